"""``ccnn fit | validate | test | predict`` for classes of series and images; tests at other rates and resolutions."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

from lightning.pytorch.cli import LightningArgumentParser
from rich import box, get_console
from rich.table import Table
from torch import nn

from ccnn_irregular.pipelines.tasks.classification import figures
from ccnn_irregular.pipelines.tasks.classification.data import SampleDataModule, Sampling, grid_sizes
from ccnn_irregular.pipelines.tasks.classification.module import Classification, ClassPredictions
from ccnn_irregular.pipelines.train.command_line import TrainingCLI, load_weights
from ccnn_irregular.pipelines.train.equal_samples import EqualSamples
from ccnn_irregular.pipelines.train.reports import versions, write_json, write_text

__all__ = [
    "ClassificationCLI",
    "Result",
    "TestOptions",
    "print_equal",
    "wilson_interval",
    "without_equal",
    "write_predictions",
]

_Z = 1.959964  # of a 95 % interval


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


def wilson_interval(correct: int, n: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927, JASA 22:209)."""
    share, z2 = correct / n, _Z**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z / (1 + z2 / n) * (share * (1 - share) / n + z2 / (4 * n * n)) ** 0.5
    # The share itself, and 0 and 1, are not left out by rounding.
    return max(min(centre - half, share), 0.0), min(max(centre + half, share), 1.0)


def without_equal(name: str, predictions: ClassPredictions, equal: EqualSamples) -> dict[str, Any]:
    """Accuracy and its interval on the test samples that equal none that was trained on or validated with."""
    correct = (predictions.predicted == predictions.labels)[~equal.equal]
    n = len(correct)
    low, high = wilson_interval(int(correct.sum()), n) if n else (None, None)
    return {"sampling": name, "accuracy": float(correct.mean()) if n else None, "low": low, "high": high, "n": n}


def print_equal(equal: EqualSamples, others: list[dict[str, Any]]) -> None:
    """Say how many test samples equal one trained on, and the accuracies without them."""
    if not equal.equal.any():
        return
    shares = [
        f"{one['sampling']} {100 * one['accuracy']:.2f} % ({100 * one['low']:.2f} - {100 * one['high']:.2f})"
        for one in others
        if one["n"]
    ]
    text = f"note: {equal}; without them: {'; '.join(shares) or 'none are left'}"
    get_console().print(text, highlight=False, soft_wrap=True)


class ClassificationCLI(TrainingCLI):
    """The four commands on labelled series and images."""

    task = "classification"
    module = Classification
    data = SampleDataModule
    monitor = "val_log_likelihood"
    monitor_label = "log-likelihood"
    summaries: ClassVar[dict[str, str]] = {
        "fit": "train; the same command resumes an interrupted run",
        "validate": "loss and accuracy on the validation part",
        "test": "accuracy on the test part, at other rates, sizes and drop rates too, as table, JSON and figures",
        "predict": "a CSV of sample,predicted,probability of the test part",
    }
    curves = (
        ("cross-entropy", "train_loss", "training", "-"),
        ("cross-entropy", "val_loss", "validation", "--"),
        ("accuracy", "train_accuracy", "training", "-"),
        ("accuracy", "val_accuracy", "validation", "--"),
    )

    def add_task_arguments(self, parser: LightningArgumentParser, subcommand: str) -> None:
        """Samplings to be tested. Training ends by its schedule; early stopping has to be asked for."""
        parser.set_defaults({"early_stopping.patience": 100_000})
        if subcommand == "test":
            parser.add_class_arguments(TestOptions, "test", as_group=False)

    def describe(self, datamodule: SampleDataModule) -> dict[str, Any]:
        """Which samples were read and how they were split."""
        return datamodule.description()

    def report(self, datamodule: SampleDataModule) -> str:
        """The samples, and the size of the network."""
        count = sum(parameter.numel() for parameter in self.model.parameters())
        sizes = ", ".join(f"{size} {name}" for name, size in datamodule.description()["samples"].items())
        return f"{datamodule.samples!r}: {sizes}\nnetwork of {count:,} parameters"

    def test(self, model: Classification, datamodule: SampleDataModule, ckpt_path: str, **_: Any) -> None:
        """Accuracy under every sampling that was asked for: table, JSON, figures."""
        options = TestOptions(**vars(self._get(self.config_init, "test")))
        samplings = options.samplings()
        datamodule.setup("test")
        load_weights(model, ckpt_path)
        equal = EqualSamples.of(datamodule)
        results: list[Result] = []
        others: list[dict[str, Any]] = []
        trained: ClassPredictions | None = None
        for sampling in samplings:
            ways = [sampling]
            if options.resample and trained:
                ways.append(self._better_resampled(model, datamodule, sampling))
            for way in ways:
                predictions = self._predictions(model, datamodule, way)
                trained = trained or predictions
                results.append(Result.of(way, predictions, trained))
                others.append(without_equal(str(way), predictions, equal))
        assert trained is not None
        folder = Path(self._get(self.config, "output") or self.run_folder.path / "test")
        report = {
            "results": results,
            "equal_samples": equal.counts() | {"without_them": others},
            **self.provenance(ckpt_path),
            "network": type(model.network).__name__,
            "parameters": _parameters(model.network),
            "data": self.describe(datamodule),
            "versions": versions(),
        }
        write_json(folder / "metrics.json", report)
        write_predictions(folder / "predictions.csv", trained, datamodule.classes)
        plots = [figures.confusion(trained, datamodule.classes, folder / "confusion.png")]
        if len(results) > 1:
            rows = [(result.sampling, result.accuracy, result.low, result.high) for result in results]
            plots.append(figures.samplings(rows, folder / "samplings.png"))
        _print_table(results, f"{datamodule.dataset}, {len(trained.labels)} test samples, {ckpt_path}")
        print_equal(equal, others)
        for path in (folder / "metrics.json", folder / "predictions.csv", *plots):
            get_console().print(str(path), highlight=False, soft_wrap=True)

    def predict(self, model: Classification, datamodule: SampleDataModule, ckpt_path: str, **_: Any) -> None:
        """Write the CSV."""
        datamodule.setup("predict")
        self.tell_overlap(ckpt_path)
        load_weights(model, ckpt_path)
        predictions = self._predictions(model, datamodule, Sampling())
        path = Path(self._get(self.config, "output") or self.run_folder.path / "predictions.csv")
        write_predictions(path, predictions, datamodule.classes)
        get_console().print(f"{len(predictions.labels)} samples: {path}", highlight=False, soft_wrap=True)

    def _predictions(
        self,
        model: Classification,
        datamodule: SampleDataModule,
        sampling: Sampling,
        part: Literal["validation", "test"] = "test",
    ) -> ClassPredictions:
        batches = self.trainer.predict(model, dataloaders=datamodule.test_loader(sampling, part))
        return ClassPredictions.joined(cast("list[ClassPredictions]", batches))

    def _better_resampled(self, model: Classification, datamodule: SampleDataModule, sampling: Sampling) -> Sampling:
        """``sampling``, brought back by the method that the validation part finds likelier."""

        def likelihood(way: Sampling) -> float:
            return self._predictions(model, datamodule, way, "validation").log_likelihood

        return max((replace(sampling, resample=method) for method in sampling.methods()), key=likelihood)


def _parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def write_predictions(path: Path, predictions: ClassPredictions, classes: tuple[str, ...]) -> None:
    """``sample,label,predicted,probability`` lines, in the order of the test part."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["sample", "label", "predicted", "probability"])
    largest = predictions.probabilities.max(1)
    rows = zip(predictions.labels.tolist(), predictions.predicted.tolist(), largest.tolist(), strict=True)
    for sample, (label, predicted, probability) in enumerate(rows):
        writer.writerow([sample, classes[label], classes[predicted], f"{probability:.6f}"])
    write_text(path, table.getvalue())


def _print_table(results: list[Result], title: str) -> None:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("sampling", min_width=22)
    for label in ("accuracy %", "95 % interval", "difference", "seconds"):
        table.add_column(label, justify="right", no_wrap=True)
    for one in results:
        interval = f"{100 * one.low:.2f} - {100 * one.high:.2f}"
        numbers = (f"{100 * one.accuracy:.2f}", interval, f"{100 * one.difference:+.2f}", f"{one.seconds:.3g}")
        table.add_row(one.sampling, *numbers)
    table.caption = "difference: points from the first row; seconds: 1,000 samples"
    get_console().print(table)
