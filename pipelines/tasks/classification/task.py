"""``ccnn fit | validate | test | predict`` for classes of series and images; tests at other rates and resolutions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from torch.utils.data import DataLoader

from ccnn_irregular.pipelines.tasks.classification import figures
from ccnn_irregular.pipelines.tasks.classification.data import SampleBatch, SampleDataModule
from ccnn_irregular.pipelines.tasks.classification.module import Classification, ClassPredictions, SampleClasses
from ccnn_irregular.pipelines.tasks.classification.sampling import Sampling, grid_sizes
from ccnn_irregular.pipelines.train.equal_samples import EqualSamples
from ccnn_irregular.pipelines.train.evaluation import Evaluation, ResultTable, wilson_interval
from ccnn_irregular.pipelines.train.figures import kernels
from ccnn_irregular.pipelines.train.reports import write_answers
from ccnn_irregular.pipelines.train.task import Task

__all__ = ["Accuracy", "ClassesTask", "ClassificationTask", "TestOptions"]


@dataclass
class TestOptions:
    """Other samplings the checkpoint is tested on, beside the one it was trained on; nothing is retrained.

    Attributes:
        rate: samples per coordinate unit, such as 4000 6400 for recordings in seconds.
        image_size: pixels along y and x over the same extent, such as 14x14 28x56.
        volume_size: voxels along the three axes over the same extent, such as 24x24x24 20x30x30.
        drop: shares of the samples of each series dropped at random, such as 0.3 0.5.
        gap: shares of the samples of each series that are missing in a row, such as 0.2 0.4.
        resample: test each of them once more, brought back to the sampling trained on by interpolation. Of two methods
            the one counts that has the higher likelihood on the validation part, sampled alike.
    """

    __test__ = False  # no test, whatever pytest makes of its name

    rate: list[float] = field(default_factory=list)
    image_size: list[int | str] = field(default_factory=list)
    volume_size: list[int | str] = field(default_factory=list)
    drop: list[float] = field(default_factory=list)
    gap: list[float] = field(default_factory=list)
    resample: bool = False

    def samplings(self) -> list[Sampling]:
        """As trained, then one for each number that was asked for."""
        asked = [Sampling(rate=rate) for rate in self.rate]
        images = grid_sizes(self.image_size, "test.image_size", "14x14 28x56")
        volumes = grid_sizes(self.volume_size, "test.volume_size", "24x24x24 20x30x30")
        asked += [Sampling(image_size=sizes) for sizes in images]
        asked += [Sampling(volume_size=sizes) for sizes in volumes]
        asked += [Sampling(drop=share) for share in self.drop if share]
        asked += [Sampling(gap=share) for share in self.gap if share]
        return [Sampling(), *asked]


@dataclass(frozen=True)
class Accuracy:
    """Accuracy on the test part under one sampling.

    Attributes:
        accuracy: share of the samples whose class is found.
        low: lower end of the 95 % interval (Wilson 1927).
        high: upper end.
        difference: accuracy minus that of the sampling trained on.
        n: samples.
    """

    accuracy: float
    low: float
    high: float
    difference: float
    n: int

    @staticmethod
    def of(predictions: ClassPredictions, trained: ClassPredictions) -> Accuracy:
        """What came out, compared with what came out as ``trained``."""
        correct, n = predictions.correct, len(predictions.labels)
        return Accuracy(correct / n, *wilson_interval(correct, n), (correct - trained.correct) / n, n)

    def cells(self) -> tuple[str, str, str]:
        """Accuracy, its interval and the difference for a table, percent."""
        shown = (self.accuracy, self.low, self.high, self.difference)
        accuracy, low, high, difference = (100 * value for value in shown)
        return f"{accuracy:.2f}", f"{low:.2f} - {high:.2f}", f"{difference:+.2f}"


def without_equal(name: str, predictions: ClassPredictions, equal: EqualSamples) -> dict[str, Any]:
    """Accuracy and its interval on the test samples that equal none that was trained on or validated with."""
    correct = (predictions.predicted == predictions.labels)[~equal.equal]
    n = len(correct)
    low, high = wilson_interval(int(correct.sum()), n) if n else (None, None)
    return {"sampling": name, "accuracy": float(correct.mean()) if n else None, "low": low, "high": high, "n": n}


def equal_note(equal: EqualSamples, others: list[dict[str, Any]]) -> list[str]:
    """How many test samples equal one trained on, and the accuracies without them; nothing where none do."""
    if not equal.equal.any():
        return []
    shares = [
        f"{rest['sampling']} {100 * rest['accuracy']:.2f} % ({100 * rest['low']:.2f} - {100 * rest['high']:.2f})"
        for rest in others
        if rest["n"]
    ]
    return [f"note: {equal}; without them: {'; '.join(shares) or 'none are left'}"]


class ClassesTask(Task):
    """What the tasks share whose network tells samples apart: accuracy, predicted classes."""

    monitor = "val_log_likelihood"
    monitor_label = "log-likelihood"
    curves = (
        ("cross-entropy", "train_loss", "training", "-"),
        ("cross-entropy", "val_loss", "validation", "--"),
        ("accuracy", "train_accuracy", "training", "-"),
        ("accuracy", "val_accuracy", "validation", "--"),
    )
    tells_equal = True

    def classes_of(self, model: SampleClasses, loader: DataLoader[SampleBatch]) -> ClassPredictions:
        """Predicted classes of all batches."""
        return ClassPredictions.joined(self.predictions(model, loader))

    def tested(self, datamodule: Any, found: Sequence[tuple[Any, ClassPredictions]], folder: Path) -> Evaluation:
        """The predictions as trained, the first ones, as CSV and figure; test samples that equal one trained on.

        Args:
            datamodule: whose test part was looked at.
            found: each sampling, and what was predicted under it.
            folder: of the files.
        """
        equal, trained = EqualSamples.of(datamodule), found[0][1]
        others = [without_equal(str(sampling), predictions, equal) for sampling, predictions in found]
        ids = datamodule.ids("test")
        write_predictions(folder / "predictions.csv", ids, trained, datamodule.classes)
        about = (trained, ids, datamodule.classes, datamodule.samples.unit)
        return Evaluation(
            {"equal_samples": equal.counts() | {"without_them": others}},
            notes=equal_note(equal, others),
            files=[
                folder / "predictions.csv",
                figures.confusion(trained, datamodule.classes, folder / "confusion.png"),
                *figures.mistakes(datamodule.loader("test"), *about, folder / "mistakes.png"),
            ],
        )

    def predicted_rows(self, model: SampleClasses, datamodule: Any, path: Path) -> str:
        """Write ``id,label,prediction,probability_NAME,...`` lines."""
        predictions = self.classes_of(model, datamodule.loader("test"))
        write_predictions(path, datamodule.ids("test"), predictions, datamodule.classes)
        return f"{len(predictions.labels)} {datamodule.rows_are}"


class ClassificationTask(ClassesTask):
    """The four commands on labelled series and images."""

    task = "classification"
    module = Classification
    data = SampleDataModule
    summaries: ClassVar[dict[str, str]] = {
        "test": "accuracy on the test part, at other rates, sizes and drop rates too, as table, JSON and figures",
        "predict": "a CSV of id,prediction,probability_NAME of all samples; needs no labels",
    }
    test_options = TestOptions

    def evaluate(self, model: Classification, datamodule: SampleDataModule, folder: Path) -> Evaluation:
        """Accuracy under every sampling that was asked for."""
        options: TestOptions = self.asked()
        samplings = options.samplings()
        if options.resample:
            datamodule.require_validation("test.resample")
            better = [self._better_resampled(model, datamodule, sampling) for sampling in samplings[1:]]
            samplings[1:] = itertools.chain(*zip(samplings[1:], better, strict=True))
        found = [(sampling, self.classes_of(model, datamodule.loader("test", sampling))) for sampling in samplings]
        trained = found[0][1]
        results = [
            (str(sampling), asdict(sampling), Accuracy.of(predictions, trained), 1000 * predictions.seconds)
            for sampling, predictions in found
        ]
        evaluation = self.tested(datamodule, found, folder)
        evaluation.figures["results"] = [
            {"sampling": name, "options": asked, **vars(accuracy), "seconds": seconds}
            for name, asked, accuracy, seconds in results
        ]
        evaluation.tables.append(
            ResultTable(
                f"{datamodule.dataset}, {len(trained.labels)} test samples, {self.checkpoint}",
                ("sampling", "accuracy %", "95 % interval", "difference", "seconds"),
                [(name, *accuracy.cells(), f"{seconds:.3g}") for name, _, accuracy, seconds in results],
                caption="difference: points from the first row; seconds: 1,000 samples",
            )
        )
        if len(results) > 1:
            names, accuracies = [name for name, *_ in results], [accuracy for *_, accuracy, _ in results]
            evaluation.files.append(figures.samplings(names, {"": accuracies}, folder / "samplings.png"))
        evaluation.files += kernels(model.network, datamodule.samples.unit, folder)
        return evaluation

    def _better_resampled(self, model: Classification, datamodule: SampleDataModule, sampling: Sampling) -> Sampling:
        """``sampling``, brought back by the method that the validation part finds likelier."""

        def likelihood(way: Sampling) -> float:
            return self.classes_of(model, datamodule.loader("validation", way)).log_likelihood

        return max((replace(sampling, resample=method) for method in sampling.methods()), key=likelihood)


def write_predictions(path: Path, ids: Sequence[Any], predictions: ClassPredictions, classes: tuple[str, ...]) -> None:
    """``id,label,prediction,probability_NAME,...`` lines; without labels where none is known."""
    labels = [classes[label] if label >= 0 else "" for label in predictions.labels.tolist()]
    predicted = [classes[number] for number in predictions.predicted.tolist()]
    chances = dict(zip(classes, predictions.probabilities.T.tolist(), strict=True))
    write_answers(path, {"id": ids}, predicted, chances, labels if any(labels) else None)
