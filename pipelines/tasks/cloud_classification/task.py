"""``ccnn fit | validate | test | predict`` for classes of point clouds; tests with other points and densities."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, cast

from lightning.pytorch.cli import LightningArgumentParser
from rich import box, get_console
from rich.table import Table

from ccnn_irregular._checks import require
from ccnn_irregular.pipelines.tasks.classification.figures import confusion
from ccnn_irregular.pipelines.tasks.classification.module import ClassPredictions
from ccnn_irregular.pipelines.tasks.classification.task import (
    ClassificationCLI,
    print_equal,
    wilson_interval,
    without_equal,
    write_predictions,
)
from ccnn_irregular.pipelines.tasks.cloud_classification import figures
from ccnn_irregular.pipelines.tasks.cloud_classification.data import DrawnClouds, ShapeDataModule
from ccnn_irregular.pipelines.tasks.cloud_classification.module import CloudClassification
from ccnn_irregular.pipelines.train.command_line import load_weights
from ccnn_irregular.pipelines.train.equal_samples import EqualSamples
from ccnn_irregular.pipelines.train.reports import versions, write_json

__all__ = ["CloudClassificationCLI", "CloudResult", "CloudTestOptions"]


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


@dataclass(frozen=True)
class CloudResult:
    """Accuracy on the test part for one way to draw the points.

    Attributes:
        drawn: its name.
        options: points, gradient and weights.
        accuracy: share of the clouds whose class is found.
        low: lower end of the 95 % interval (Wilson 1927).
        high: upper end.
        difference: accuracy minus that of points drawn as in training, weighed.
        n: clouds.
    """

    drawn: str
    options: dict[str, Any]
    accuracy: float
    low: float
    high: float
    difference: float
    n: int


class CloudClassificationCLI(ClassificationCLI):
    """The four commands on labelled clouds."""

    task = "cloud_classification"
    module = CloudClassification  # type: ignore[assignment]  # one with fewer options
    data = ShapeDataModule  # type: ignore[assignment]  # another data module of the same kind of batches
    summaries: ClassVar[dict[str, str]] = {
        "fit": "train; the same command resumes an interrupted run",
        "validate": "loss and accuracy on the validation part",
        "test": "accuracy on the test part, with other points too, with and without weights: table, JSON, figures",
        "predict": "a CSV of sample,label,predicted,probability of the test part",
    }

    def add_task_arguments(self, parser: LightningArgumentParser, subcommand: str) -> None:
        """Points to be tested with. Training ends by its schedule; early stopping has to be asked for."""
        parser.set_defaults({"early_stopping.patience": 100_000})
        if subcommand == "test":
            parser.add_class_arguments(CloudTestOptions, "test", as_group=False)

    def test(self, model: Any, datamodule: Any, ckpt_path: str, **_: Any) -> None:
        """Accuracy for all ways to draw points that were asked for, with weights and without: table, JSON, figures."""
        options = CloudTestOptions(**vars(self._get(self.config_init, "test")))
        ways = options.drawn(datamodule.as_trained)
        datamodule.setup("test")
        load_weights(model, ckpt_path)
        equal = EqualSamples.of(datamodule)
        results: list[tuple[CloudResult, CloudResult]] = []
        others: list[dict[str, Any]] = []
        trained: ClassPredictions | None = None
        for way in ways:
            weighed = self._predicted(model, datamodule, way)
            even = (
                weighed if way.weights == "even" else self._predicted(model, datamodule, replace(way, weights="even"))
            )
            trained = trained or weighed
            results.append((_result(way, weighed, trained), _result(replace(way, weights="even"), even, trained)))
            others.append(without_equal(str(way), weighed, equal))
        assert trained is not None
        folder = Path(self._get(self.config, "output") or self.run_folder.path / "test")
        report = {
            "weighted": [weighed for weighed, _ in results],
            "without_weights": [even for _, even in results],
            "equal_samples": equal.counts() | {"without_them": others},
            **self.provenance(ckpt_path),
            "network": type(model.network).__name__,
            "parameters": sum(parameter.numel() for parameter in model.network.parameters()),
            "data": self.describe(datamodule),
            "versions": versions(),
        }
        write_json(folder / "metrics.json", report)
        write_predictions(folder / "predictions.csv", trained, datamodule.classes)
        plots = [confusion(trained, datamodule.classes, folder / "confusion.png")]
        if len(results) > 1:
            plots.append(figures.drawn(results, folder / "drawn.png"))
        _print_table(results, f"{datamodule.dataset}, {len(trained.labels)} test clouds, {ckpt_path}")
        print_equal(equal, others)
        for path in (folder / "metrics.json", folder / "predictions.csv", *plots):
            get_console().print(str(path), highlight=False, soft_wrap=True)

    def predict(self, model: Any, datamodule: Any, ckpt_path: str, **_: Any) -> None:
        """Write the CSV."""
        datamodule.setup("predict")
        self.tell_overlap(ckpt_path)
        load_weights(model, ckpt_path)
        predictions = self._predicted(model, datamodule, datamodule.as_trained)
        path = Path(self._get(self.config, "output") or self.run_folder.path / "predictions.csv")
        write_predictions(path, predictions, datamodule.classes)
        get_console().print(f"{len(predictions.labels)} clouds: {path}", highlight=False, soft_wrap=True)

    def _predicted(self, model: CloudClassification, datamodule: ShapeDataModule, way: DrawnClouds) -> ClassPredictions:
        batches = self.trainer.predict(model, dataloaders=datamodule.test_loader(way))
        return ClassPredictions.joined(cast("list[ClassPredictions]", batches))


def _result(way: DrawnClouds, predictions: ClassPredictions, trained: ClassPredictions) -> CloudResult:
    n = len(predictions.labels)
    low, high = wilson_interval(predictions.correct, n)
    difference = (predictions.correct - trained.correct) / n
    return CloudResult(str(way), asdict(way), predictions.correct / n, low, high, difference, n)


def _print_table(results: list[tuple[CloudResult, CloudResult]], title: str) -> None:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("points drawn", no_wrap=True)
    weights = results[0][0].options["weights"]
    for label in ("right %", "95 % interval", "change", "even %", "change"):
        table.add_column(label, justify="right", no_wrap=True)
    for weighed, even in results:
        interval = f"{100 * weighed.low:.2f} - {100 * weighed.high:.2f}"
        table.add_row(
            weighed.drawn,
            f"{100 * weighed.accuracy:.2f}",
            interval,
            f"{100 * weighed.difference:+.2f}",
            f"{100 * even.accuracy:.2f}",
            f"{100 * even.difference:+.2f}",
        )
    table.caption = f"weights: {weights}; even: without weights; change: points from the first row"
    get_console().print(table)
