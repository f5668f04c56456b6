"""``ccnn fit | validate | test | predict`` for classes of series and images; tests at other rates and resolutions."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from torch.utils.data import DataLoader

from ccnn_irregular.pipelines.tasks.classification import figures
from ccnn_irregular.pipelines.tasks.classification.data import SampleBatch, SampleDataModule, Sampling, grid_sizes
from ccnn_irregular.pipelines.tasks.classification.module import Classification, ClassPredictions
from ccnn_irregular.pipelines.train.equal_samples import EqualSamples
from ccnn_irregular.pipelines.train.evaluation import Evaluation, ResultTable, wilson_interval
from ccnn_irregular.pipelines.train.reports import write_csv
from ccnn_irregular.pipelines.train.task import Task

__all__ = ["ClassificationTask", "Result", "TestOptions", "equal_note", "without_equal", "write_predictions"]


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
class Result:
    """Accuracy on the test part under one sampling.

    Attributes:
        sampling: its name.
        options: what differs from the training part.
        accuracy: share of the samples whose class is found.
        low: lower end of the 95 % interval (Wilson 1927).
        high: upper end.
        difference: accuracy minus that of the sampling trained on.
        n: samples.
        seconds: what the network takes for 1,000 samples, in batches as configured; without reading and resampling.
    """

    sampling: str
    options: dict[str, Any]
    accuracy: float
    low: float
    high: float
    difference: float
    n: int
    seconds: float

    @staticmethod
    def of(sampling: Sampling, predictions: ClassPredictions, trained: ClassPredictions) -> Result:
        """What came out under ``sampling``, compared with what came out as ``trained``."""
        correct, n = predictions.correct, len(predictions.labels)
        low, high = wilson_interval(correct, n)
        difference, seconds = (correct - trained.correct) / n, 1000 * predictions.seconds
        return Result(str(sampling), asdict(sampling), correct / n, low, high, difference, n, seconds)


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
        f"{one['sampling']} {100 * one['accuracy']:.2f} % ({100 * one['low']:.2f} - {100 * one['high']:.2f})"
        for one in others
        if one["n"]
    ]
    return [f"note: {equal}; without them: {'; '.join(shares) or 'none are left'}"]


class ClassificationTask(Task):
    """The four commands on labelled series and images."""

    task = "classification"
    module = Classification
    data = SampleDataModule
    monitor = "val_log_likelihood"
    monitor_label = "log-likelihood"
    summaries: ClassVar[dict[str, str]] = {
        "test": "accuracy on the test part, at other rates, sizes and drop rates too, as table, JSON and figures",
        "predict": "a CSV of sample,predicted,probability of the test part",
    }
    curves = (
        ("cross-entropy", "train_loss", "training", "-"),
        ("cross-entropy", "val_loss", "validation", "--"),
        ("accuracy", "train_accuracy", "training", "-"),
        ("accuracy", "val_accuracy", "validation", "--"),
    )
    test_options = TestOptions
    tells_equal = True

    def evaluate(self, model: Classification, datamodule: SampleDataModule, folder: Path) -> Evaluation:
        """Accuracy under every sampling that was asked for."""
        options: TestOptions = self.asked()
        equal = EqualSamples.of(datamodule)
        results: list[Result] = []
        others: list[dict[str, Any]] = []
        trained: ClassPredictions | None = None
        for sampling in options.samplings():
            ways = [sampling]
            if options.resample and trained:
                ways.append(self._better_resampled(model, datamodule, sampling))
            for way in ways:
                predictions = self.classes_of(model, datamodule.loader("test", way))
                trained = trained or predictions
                results.append(Result.of(way, predictions, trained))
                others.append(without_equal(str(way), predictions, equal))
        assert trained is not None
        write_predictions(folder / "predictions.csv", trained, datamodule.classes)
        plots = [figures.confusion(trained, datamodule.classes, folder / "confusion.png")]
        if len(results) > 1:
            rows = [(result.sampling, result.accuracy, result.low, result.high) for result in results]
            plots.append(figures.samplings(rows, folder / "samplings.png"))
        return Evaluation(
            {"results": results, "equal_samples": equal.counts() | {"without_them": others}},
            tables=[_table(results, f"{datamodule.dataset}, {len(trained.labels)} test samples, {self.checkpoint}")],
            notes=equal_note(equal, others),
            files=[folder / "predictions.csv", *plots],
        )

    def predicted_rows(self, model: Classification, datamodule: SampleDataModule, path: Path) -> str:
        """Write ``sample,label,predicted,probability`` lines."""
        predictions = self.classes_of(model, datamodule.loader("test"))
        write_predictions(path, predictions, datamodule.classes)
        return f"{len(predictions.labels)} samples"

    def classes_of(self, model: Classification, loader: DataLoader[SampleBatch]) -> ClassPredictions:
        """Predicted classes of all batches."""
        return ClassPredictions.joined(self.predictions(model, loader))

    def _better_resampled(self, model: Classification, datamodule: SampleDataModule, sampling: Sampling) -> Sampling:
        """``sampling``, brought back by the method that the validation part finds likelier."""

        def likelihood(way: Sampling) -> float:
            return self.classes_of(model, datamodule.loader("validation", way)).log_likelihood

        return max((replace(sampling, resample=method) for method in sampling.methods()), key=likelihood)


def write_predictions(path: Path, predictions: ClassPredictions, classes: tuple[str, ...]) -> None:
    """``sample,label,predicted,probability`` lines, in the order of the test part."""
    largest = predictions.probabilities.max(1)
    rows = zip(predictions.labels.tolist(), predictions.predicted.tolist(), largest.tolist(), strict=True)
    lines = (
        (sample, classes[label], classes[predicted], f"{probability:.6f}")
        for sample, (label, predicted, probability) in enumerate(rows)
    )
    write_csv(path, ("sample", "label", "predicted", "probability"), lines)


def _table(results: list[Result], title: str) -> ResultTable:
    def row(result: Result) -> tuple[str, ...]:
        interval = f"{100 * result.low:.2f} - {100 * result.high:.2f}"
        difference = f"{100 * result.difference:+.2f}"
        return result.sampling, f"{100 * result.accuracy:.2f}", interval, difference, f"{result.seconds:.3g}"

    head = ("sampling", "accuracy %", "95 % interval", "difference", "seconds")
    caption = "difference: points from the first row; seconds: 1,000 samples"
    return ResultTable(title, head, [row(result) for result in results], caption=caption)
