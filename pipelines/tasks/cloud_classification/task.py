"""``ccnn fit | validate | test | predict`` for classes of point clouds; tests with other points and densities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from ccnn_irregular._checks import require
from ccnn_irregular.pipelines.tasks.classification import figures
from ccnn_irregular.pipelines.tasks.classification.module import ClassPredictions
from ccnn_irregular.pipelines.tasks.classification.task import Accuracy, ClassesTask
from ccnn_irregular.pipelines.tasks.cloud_classification.data import DrawnClouds, ShapeDataModule
from ccnn_irregular.pipelines.tasks.cloud_classification.module import CloudClassification
from ccnn_irregular.pipelines.train.evaluation import Evaluation, ResultTable

__all__ = ["CloudClassificationTask", "CloudTestOptions"]


@dataclass
class CloudTestOptions:
    """Other ways to draw the points the checkpoint is tested with; nothing is retrained.

    Attributes:
        points: numbers of points, such as 256 512 4096.
        gradient: falls of the density across each shape, such as 2 3 for factors e^2 and e^3, see ``DrawnClouds``.
    """

    points: list[int] = field(default_factory=list)
    gradient: list[float] = field(default_factory=list)

    def drawn(self, trained: DrawnClouds) -> list[DrawnClouds]:
        """As trained, then one for each number that was asked for."""
        for number in self.points:
            require(number >= 1, "test.points", "be at least 1", number)
        for fall in self.gradient:
            require(fall >= 0, "test.gradient", "not be negative", fall)
        others = [replace(trained, points=number) for number in self.points if number != trained.points]
        fallen = [replace(trained, gradient=fall) for fall in self.gradient if fall]
        return [trained, *others, *fallen]


class CloudClassificationTask(ClassesTask):
    """The four commands on labelled clouds."""

    task = "cloud_classification"
    module = CloudClassification
    data = ShapeDataModule
    summaries: ClassVar[dict[str, str]] = {
        "test": "accuracy on the test part, with other points too, with and without weights: table, JSON, figures",
        "predict": "a CSV of id,prediction,probability_NAME of all clouds",
    }
    test_options = CloudTestOptions

    def evaluate(self, model: CloudClassification, datamodule: ShapeDataModule, folder: Path) -> Evaluation:
        """Accuracy for all ways to draw points that were asked for, with weights and without."""
        options: CloudTestOptions = self.asked()

        def predicted(ways: Sequence[DrawnClouds]) -> list[tuple[DrawnClouds, ClassPredictions]]:
            return [(way, self.classes_of(model, datamodule.loader("test", way))) for way in ways]

        ways = options.drawn(datamodule.as_trained)
        weighed = predicted(ways)
        even = weighed if datamodule.weights == "even" else predicted([replace(way, weights="even") for way in ways])
        trained = weighed[0][1]
        right, without = ([Accuracy.of(found, trained) for _, found in pairs] for pairs in (weighed, even))
        evaluation = self.tested(datamodule, weighed, folder)
        evaluation.figures |= {"weighted": _rows(weighed, right), "without_weights": _rows(even, without)}
        names = [str(way) for way in ways]
        lines = zip(names, right, without, strict=True)
        evaluation.tables.append(
            ResultTable(
                f"{datamodule.dataset}, {len(trained.labels)} test clouds, {self.checkpoint}",
                ("points drawn", "right %", "95 % interval", "change", "even %", "change"),
                [(name, *weighted.cells(), *bare.cells()[::2]) for name, weighted, bare in lines],
                caption=f"weights: {datamodule.weights}; even: without weights; change: points from the first row",
            )
        )
        if len(ways) > 1:
            found = {f'weights "{datamodule.weights}"': right, "without weights": without}
            evaluation.files.append(figures.samplings(names, found, folder / "drawn.png"))
        return evaluation


def _rows(found: Sequence[tuple[DrawnClouds, Any]], accuracies: Sequence[Accuracy]) -> list[dict[str, Any]]:
    """For the JSON."""
    pairs = zip(found, accuracies, strict=True)
    return [{"drawn": str(way), "options": asdict(way), **vars(accuracy)} for (way, _), accuracy in pairs]
