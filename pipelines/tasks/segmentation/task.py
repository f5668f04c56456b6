"""``ccnn fit | validate | test | predict`` for labels of medical volumes; tests on every n-th slice."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, cast, get_args

import numpy as np
from lightning.pytorch.cli import LightningArgumentParser
from numpy.typing import NDArray
from rich import box, get_console
from rich.table import Table

from ccnn_irregular.datasets.decathlon import volume_name
from ccnn_irregular.datasets.processing.interpolation import NodeMethod
from ccnn_irregular.pipelines.tasks.segmentation import figures
from ccnn_irregular.pipelines.tasks.segmentation.data import Part, VolumeBatch, VolumeDataModule, thinnings
from ccnn_irregular.pipelines.tasks.segmentation.files import FileJob, file_jobs, predict_files
from ccnn_irregular.pipelines.tasks.segmentation.module import Segmentation, SegmentedVolume, VoxelResampling
from ccnn_irregular.pipelines.tasks.segmentation.network import ContinuousSegmenter
from ccnn_irregular.pipelines.train.command_line import TrainingCLI, load_weights
from ccnn_irregular.pipelines.train.figures import save
from ccnn_irregular.pipelines.train.reports import versions, write_json, write_text
from ccnn_irregular.plotting_volumes import plot_kernel_slices

__all__ = ["LabelResult", "SegmentationCLI", "SegmentationPredictOptions", "SegmentationTestOptions"]

Thinning = tuple[int, ...]

_Z = 1.959964  # of a 95 % interval
_MEAN = "mean of the labels"


@dataclass
class SegmentationTestOptions:
    """Other samplings the checkpoint is tested on, beside all slices; nothing is retrained.

    Attributes:
        thin: every how many slices along x, y and z one is kept, such as 1,1,2 2,1,1. Labels are those of the slices
            that remain.
        resample: test each of them once more, with values interpolated to the training volumes' median voxels and
            probabilities brought back. Of two methods the one counts that has the higher mean Dice on the validation
            part, thinned alike.
    """

    thin: list[int | str] = field(default_factory=list)
    resample: bool = False


@dataclass
class SegmentationPredictOptions:
    """What is labelled.

    Attributes:
        input: a NIfTI file, or a folder of them; null = the images of the test part.
    """

    input: str | None = None


@dataclass(frozen=True)
class SliceSampling:
    """How volumes are sampled, and whether they are brought back to the training's voxels.

    Attributes:
        thin: every how many slices along x, y and z one is kept.
        resample: method of interpolation to the training volumes' voxels; None = as they are.
    """

    thin: Thinning = (1, 1, 1)
    resample: NodeMethod | None = None

    def __str__(self) -> str:
        parts = [f"1 of {factor} along {axis}" for axis, factor in zip("xyz", self.thin, strict=True) if factor > 1]
        parts += [f"resampled ({self.resample})"] if self.resample else []
        return ", ".join(parts) or "all slices"

    @property
    def file_name(self) -> str:
        """For files; empty for all slices as they are."""
        words = ["thin", *map(str, self.thin)] if max(self.thin) > 1 else []
        return "-".join(words + ([self.resample] if self.resample else []))


@dataclass(frozen=True)
class Scores:
    """What the test volumes are given under one sampling.

    Attributes:
        dice: ``(volumes, labels)``, nan where neither has the label.
        surface: mean distance of surfaces, millimetres, likewise; nan where one of the two has not the label.
        seconds: of the network for the median volume, resampling included.
    """

    dice: NDArray[np.float64]
    surface: NDArray[np.float64]
    seconds: float

    @staticmethod
    def of(volumes: Sequence[SegmentedVolume]) -> Scores:
        """Of labelled volumes."""
        dice, surface = ([getattr(volume, name) for volume in volumes] for name in ("dice", "surface"))
        return Scores(np.stack(dice), np.stack(surface), float(np.median([volume.seconds for volume in volumes])))


@dataclass(frozen=True)
class LabelResult:
    """Dice of a label on the test volumes under one sampling.

    Attributes:
        sampling: its name.
        thin: every how many slices along x, y and z one was kept.
        resample: method by which volumes were brought back to the training's voxels, or None.
        label: what it means.
        dice: mean over the volumes that have the label, or for which it was predicted.
        low: lower end of the 95 % interval of the mean (normal, cut to [0, 1]).
        high: upper end.
        difference: mean minus that on all slices.
        n: volumes.
        surface: mean distance of the predicted surface and the true one, millimetres, over volumes that have both.
        seconds: of the network for the median volume, resampling included.
    """

    sampling: str
    thin: Thinning
    resample: NodeMethod | None
    label: str
    dice: float
    low: float
    high: float
    difference: float
    n: int
    surface: float
    seconds: float


class SegmentationCLI(TrainingCLI):
    """The four commands on volumes with labels."""

    task = "segmentation"
    module = Segmentation
    data = VolumeDataModule
    monitor = "val_dice"
    monitor_label = "mean Dice"
    summaries: ClassVar[dict[str, str]] = {
        "fit": "train; the same command resumes an interrupted run",
        "validate": "loss and Dice on the validation part",
        "test": "Dice of each label on the test part, with slices removed too, as table, JSON, CSV and figures",
        "predict": "label volumes of NIfTI files, on their own voxels",
    }
    curves = (
        ("loss", "train_loss", "training", "-"),
        ("loss", "val_loss", "validation", "--"),
        ("mean Dice", "val_dice", "validation", "--"),
    )

    def add_task_arguments(self, parser: LightningArgumentParser, subcommand: str) -> None:
        """Samplings to be tested. Training ends by its schedule; early stopping has to be asked for."""
        parser.set_defaults({"early_stopping.patience": 100_000})
        if subcommand == "test":
            parser.add_class_arguments(SegmentationTestOptions, "test", as_group=False)
        if subcommand == "predict":
            parser.add_class_arguments(SegmentationPredictOptions, "predict", as_group=False)

    def describe(self, datamodule: VolumeDataModule) -> dict[str, Any]:
        """Which volumes were read and how they were split."""
        return datamodule.description()

    def report(self, datamodule: VolumeDataModule) -> str:
        """The volumes, and the size of the network."""
        sizes = ", ".join(f"{size} {name}" for name, size in datamodule.description()["volumes"].items())
        return f"{datamodule.root}: {sizes} volumes\nnetwork of {_parameters(self.model):,} parameters"

    def test(self, model: Segmentation, datamodule: VolumeDataModule, ckpt_path: str, **_: Any) -> None:
        """Dice under every sampling that was asked for: table, JSON, CSV, figures."""
        options = SegmentationTestOptions(**vars(self._get(self.config_init, "test")))
        samplings = [SliceSampling(), *(SliceSampling(thin) for thin in thinnings(options.thin))]
        datamodule.setup("test")
        load_weights(model, ckpt_path)
        if options.resample:
            better = [self._better_resampled(model, datamodule, sampling) for sampling in samplings[1:]]
            samplings[1:] = [one for pair in zip(samplings[1:], better, strict=True) for one in pair]
        found = {sampling: self._volumes(model, datamodule, sampling, "test") for sampling in samplings}
        tables = {sampling: Scores.of(volumes) for sampling, volumes in found.items()}
        results = _results(tables, datamodule.classes)
        folder = Path(self._get(self.config, "output") or self.run_folder.path / "test")
        report = {
            "results": results,
            **self.provenance(ckpt_path),
            "network": type(model.network).__name__,
            "parameters": _parameters(model),
            "data": self.describe(datamodule),
            "versions": versions(),
        }
        write_json(folder / "metrics.json", report)
        _write_dice(folder / "dice.csv", found, datamodule.classes)
        plots = _draw(folder, model, datamodule, found, tables)
        _print_table(results, f"{datamodule.root}, {len(found[samplings[0]])} test volumes, {ckpt_path}")
        get_console().print(f"split by {datamodule.description()['split by']}", highlight=False, soft_wrap=True)
        for path in (folder / "metrics.json", folder / "dice.csv", *plots):
            get_console().print(str(path), highlight=False, soft_wrap=True)

    def _volumes(
        self, model: Segmentation, datamodule: VolumeDataModule, sampling: SliceSampling, part: Part
    ) -> list[SegmentedVolume]:
        """The labelled volumes of a part."""
        method = sampling.resample
        model.resampling = None if method is None else VoxelResampling(datamodule.training_steps(), method)
        volumes = self.trainer.predict(model, dataloaders=datamodule.loader(part, thin=sampling.thin))
        model.resampling = None
        return cast("list[SegmentedVolume]", volumes)

    def _better_resampled(
        self, model: Segmentation, datamodule: VolumeDataModule, sampling: SliceSampling
    ) -> SliceSampling:
        """``sampling``, brought back by the method of higher mean Dice on the validation part."""

        def mean_dice(way: SliceSampling) -> float:
            return float(np.nanmean(Scores.of(self._volumes(model, datamodule, way, "validation")).dice))

        return max((replace(sampling, resample=method) for method in get_args(NodeMethod)), key=mean_dice)

    def predict(self, model: Segmentation, datamodule: VolumeDataModule, ckpt_path: str, **_: Any) -> None:
        """Write label volumes; those that are there already and younger than their image are kept."""
        source = SegmentationPredictOptions(**vars(self._get(self.config_init, "predict"))).input
        output = self._get(self.config, "output")
        folder = Path(output or self.run_folder.path / "predictions")
        if source is None:
            datamodule.setup("predict")
            images = [datamodule.pairs[number].image for number in datamodule.part("test")]
            jobs = [FileJob(image, folder / f"{volume_name(image)}.nii.gz") for image in images]
        else:
            path = Path(source)
            single = output is None and not path.is_dir()
            jobs = file_jobs(path, folder / f"{volume_name(path)}.nii.gz" if single else folder)
        load_weights(model, ckpt_path)
        written = predict_files(model, jobs, Path(ckpt_path))
        where = jobs[0].output if len(jobs) == 1 else jobs[0].output.parent
        get_console().print(f"{len(written)} label volumes written: {where}", highlight=False, soft_wrap=True)


def _parameters(model: Segmentation) -> int:
    return sum(parameter.numel() for parameter in model.network.parameters())


def _draw(
    folder: Path,
    model: Segmentation,
    data: VolumeDataModule,
    found: dict[SliceSampling, list[SegmentedVolume]],
    tables: dict[SliceSampling, Scores],
) -> list[Path]:
    """The worst, the median and the best volume under the first and the last sampling, all volumes, the kernels."""
    plots: list[Path] = []
    numbers, samplings = data.part("test"), list(found)
    cases = figures.typical_cases(_row_means(tables[samplings[0]].dice))
    for sampling in dict.fromkeys((samplings[0], samplings[-1])):
        for name, place in cases.items():
            batch = model.standardised(VolumeBatch.of(data.volume(numbers[place]), sampling.thin))
            stem = folder / "-".join([name, *filter(None, [sampling.file_name])])
            plots += figures.case(batch, found[sampling][place], data.classes, stem)
    rows = [(str(sampling), scores.dice) for sampling, scores in tables.items()]
    plots.append(figures.dice_by_sampling(rows, data.classes, folder / "dice.png"))
    if isinstance(model.network, ContinuousSegmenter):
        plots.append(save(plot_kernel_slices(model.network.kernels()), folder / "kernels.png"))
    return plots


def _results(tables: dict[SliceSampling, Scores], classes: Sequence[str]) -> list[LabelResult]:
    """Mean scores of each label and of all labels; the first sampling is what the others are compared with."""
    results: list[LabelResult] = []
    names = [*classes[1:], _MEAN]
    reference = [_mean(column) for column in _with_mean(next(iter(tables.values())).dice).T]
    for sampling, scores in tables.items():
        columns = zip(_with_mean(scores.dice).T, _with_mean(scores.surface).T, strict=True)
        for name, against, (values, distances) in zip(names, reference, columns, strict=True):
            there = values[~np.isnan(values)]
            n, mean = len(there), _mean(values)
            half = _Z * float(there.std(ddof=1)) / n**0.5 if n > 1 else float("nan")
            sampled = str(sampling), sampling.thin, sampling.resample
            interval = max(mean - half, 0.0), min(mean + half, 1.0)
            difference, surface = mean - against, _mean(distances)
            results.append(LabelResult(*sampled, name, mean, *interval, difference, n, surface, scores.seconds))
    return results


def _with_mean(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """The columns, and each volume's mean over its labels as a further one; nan where it has none of them."""
    return np.column_stack([table, _row_means(table)])


def _mean(values: NDArray[np.float64]) -> float:
    there = values[~np.isnan(values)]
    return float(there.mean()) if len(there) else float("nan")


def _row_means(table: NDArray[np.float64]) -> NDArray[np.float64]:
    there = ~np.isnan(table)
    counts = there.sum(1)
    return np.where(counts > 0, np.where(there, table, 0.0).sum(1) / np.maximum(counts, 1), np.nan)


def _write_dice(path: Path, found: dict[SliceSampling, list[SegmentedVolume]], classes: Sequence[str]) -> None:
    """``sampling,volume,label,...`` lines: Dice of each label in each volume."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["sampling", "volume", *classes[1:]])
    for sampling, volumes in found.items():
        for volume in volumes:
            assert volume.dice is not None
            writer.writerow([sampling, volume.name, *(f"{value:.5f}" for value in volume.dice)])
    write_text(path, table.getvalue())


def _print_table(results: Sequence[LabelResult], title: str) -> None:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("sampling", min_width=14)
    table.add_column("label", no_wrap=True)
    for label in ("Dice", "95 % interval", "change", "surface", "seconds"):
        table.add_column(label, justify="right", no_wrap=True)
    for one in results:
        interval = f"{one.low:.3f} - {one.high:.3f}"
        numbers = (f"{one.dice:.3f}", interval, f"{one.difference:+.3f}", f"{one.surface:.3f}", f"{one.seconds:.3g}")
        table.add_row(one.sampling, "mean" if one.label == _MEAN else one.label, *numbers)
    table.caption = "change: from all slices; surface: mean distance, mm; seconds: a volume"
    get_console().print(table)
