"""``ccnn fit | validate | test | predict`` for labels of medical volumes; tests on every n-th slice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, get_args

import numpy as np
from numpy.typing import NDArray

from ccnn_irregular.adapters.scan_files import is_scan
from ccnn_irregular.datasets.decathlon import find_images
from ccnn_irregular.datasets.processing.interpolation import NodeMethod
from ccnn_irregular.pipelines.tasks.segmentation import figures
from ccnn_irregular.pipelines.tasks.segmentation.data import Thinning, VolumeBatch, VolumeDataModule, thinnings
from ccnn_irregular.pipelines.tasks.segmentation.files import file_jobs, jobs_of, labels_name, predict_files
from ccnn_irregular.pipelines.tasks.segmentation.module import Segmentation, SegmentedVolume, VoxelResampling
from ccnn_irregular.pipelines.train.checkpoint import load_weights
from ccnn_irregular.pipelines.train.data import Part
from ccnn_irregular.pipelines.train.evaluation import Evaluation, ResultTable, mean_interval, say
from ccnn_irregular.pipelines.train.figures import kernels
from ccnn_irregular.pipelines.train.reports import write_csv
from ccnn_irregular.pipelines.train.task import Task

__all__ = ["LabelResult", "SegmentationPredictOptions", "SegmentationTask", "SegmentationTestOptions"]

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
        input: a scan of any format that is read, or a folder of them; null = the images of data.root, with or without
            labels (data.evaluate all), or those of its test part.
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


class SegmentationTask(Task):
    """The four commands on volumes with labels."""

    task = "segmentation"
    module = Segmentation
    data = VolumeDataModule
    monitor = "val_dice"
    monitor_label = "mean Dice"
    summaries: ClassVar[dict[str, str]] = {
        "test": "Dice of each label on the test part, with slices removed too, as table, JSON, CSV and figures",
        "predict": "label volumes of scans in their own format, on their own voxels; needs no labels",
    }
    curves = (
        ("loss", "train_loss", "training", "-"),
        ("loss", "val_loss", "validation", "--"),
        ("mean Dice", "val_dice", "validation", "--"),
    )
    test_options = SegmentationTestOptions
    predict_options = SegmentationPredictOptions

    def evaluate(self, model: Segmentation, datamodule: VolumeDataModule, folder: Path) -> Evaluation:
        """Dice under every sampling that was asked for."""
        options: SegmentationTestOptions = self.asked()
        samplings = [SliceSampling(), *(SliceSampling(thin) for thin in thinnings(options.thin))]
        if options.resample:
            datamodule.require_validation("test.resample")
            better = [self._better_resampled(model, datamodule, sampling) for sampling in samplings[1:]]
            samplings[1:] = [sampling for pair in zip(samplings[1:], better, strict=True) for sampling in pair]
        found = {sampling: self._volumes(model, datamodule, sampling, "test") for sampling in samplings}
        tables = {sampling: Scores.of(volumes) for sampling, volumes in found.items()}
        results = _results(tables, datamodule.classes)
        _write_dice(folder / "dice.csv", found, tables, datamodule.classes)
        title = f"{datamodule.root}, {len(found[samplings[0]])} test volumes, {self.checkpoint}"
        return Evaluation(
            {"results": results},
            tables=[_table(results, title)],
            notes=[f"split by {datamodule.describe()['split by']}"],
            files=[folder / "dice.csv", *_draw(folder, model, datamodule, found, tables)],
        )

    def _volumes(
        self, model: Segmentation, datamodule: VolumeDataModule, sampling: SliceSampling, part: Part
    ) -> list[SegmentedVolume]:
        """The labelled volumes of a part."""
        method = sampling.resample
        model.resampling = None if method is None else VoxelResampling(datamodule.training_steps(), method)
        volumes = self.predictions(model, datamodule.loader(part, sampling.thin))
        model.resampling = None
        return volumes

    def _better_resampled(
        self, model: Segmentation, datamodule: VolumeDataModule, sampling: SliceSampling
    ) -> SliceSampling:
        """``sampling``, brought back by the method of higher mean Dice on the validation part."""

        def mean_dice(way: SliceSampling) -> float:
            return float(np.nanmean(Scores.of(self._volumes(model, datamodule, way, "validation")).dice))

        return max((replace(sampling, resample=method) for method in get_args(NodeMethod)), key=mean_dice)

    def predict(self, model: Any, datamodule: Any, ckpt_path: str, **_: Any) -> None:
        """Write label volumes; those that this checkpoint wrote before and that are younger than their image are kept.

        Unless the test part is asked for, the data that were trained on need not be at hand.
        """
        options: SegmentationPredictOptions = self.asked()
        folder = self.output(datamodule, "predictions")
        if options.input is None and datamodule.evaluate == "test":
            self._ready(model, datamodule, ckpt_path)
            jobs = jobs_of([datamodule.pairs[number].image for number in datamodule.part("test")], folder)
        elif options.input is None:
            jobs = jobs_of(find_images(datamodule.root), folder)
        else:
            path = Path(options.input)
            single = self._get(self.config, "output") is None and is_scan(path)
            jobs = file_jobs(path, folder / labels_name(path) if single else folder)
        load_weights(model, ckpt_path)
        codes = datamodule.codes or range(int(model.network.classes))
        written = predict_files(model, jobs, Path(ckpt_path), codes)
        where = jobs[0].output if len(jobs) == 1 else jobs[0].output.parent
        say(f"{len(written)} label volumes written: {where}")


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
            path = folder / ("-".join([name, *filter(None, [sampling.file_name])]) + ".png")
            plots.append(figures.case(batch, found[sampling][place], data.classes, path))
    rows = [(str(sampling), scores.dice) for sampling, scores in tables.items()]
    plots.append(figures.dice_by_sampling(rows, data.classes, folder / "dice.png"))
    return plots + kernels(model.network, "mm", folder, ("x", "y"))


def _results(tables: dict[SliceSampling, Scores], classes: Sequence[str]) -> list[LabelResult]:
    """Mean scores of each label and of all labels; the first sampling is what the others are compared with."""
    results: list[LabelResult] = []
    names = [*classes[1:], _MEAN]
    reference = [_mean(column) for column in _with_mean(next(iter(tables.values())).dice).T]
    for sampling, scores in tables.items():
        columns = zip(_with_mean(scores.dice).T, _with_mean(scores.surface).T, strict=True)
        for name, against, (values, distances) in zip(names, reference, columns, strict=True):
            known = values[~np.isnan(values)]
            mean, surface = _mean(values), _mean(distances)
            found = (mean, *mean_interval(known), mean - against, len(known), surface, scores.seconds)
            results.append(LabelResult(str(sampling), sampling.thin, sampling.resample, name, *found))
    return results


def _with_mean(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """The columns, and each volume's mean over its labels as a further one; nan where it has none of them."""
    return np.column_stack([table, _row_means(table)])


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _row_means(table: NDArray[np.float64]) -> NDArray[np.float64]:
    known = ~np.isnan(table)
    counts = known.sum(1)
    return np.where(counts > 0, np.where(known, table, 0.0).sum(1) / np.maximum(counts, 1), np.nan)


def _write_dice(
    path: Path,
    found: dict[SliceSampling, list[SegmentedVolume]],
    tables: dict[SliceSampling, Scores],
    classes: Sequence[str],
) -> None:
    """``sampling,volume,label,...`` lines: Dice of each label in each volume."""
    lines = (
        (sampling, volume.name, *(f"{value:.5f}" for value in scores))
        for sampling, volumes in found.items()
        for volume, scores in zip(volumes, tables[sampling].dice, strict=True)
    )
    write_csv(path, ("sampling", "volume", *classes[1:]), lines)


def _table(results: Sequence[LabelResult], title: str) -> ResultTable:
    def row(result: LabelResult) -> tuple[str, ...]:
        label = "mean" if result.label == _MEAN else result.label
        interval = f"{result.low:.3f} - {result.high:.3f}"
        difference, surface = f"{result.difference:+.3f}", f"{result.surface:.3f}"
        return result.sampling, label, f"{result.dice:.3f}", interval, difference, surface, f"{result.seconds:.3g}"

    head = ("sampling", "label", "Dice", "95 % interval", "change", "surface", "seconds")
    caption = "change: from all slices; surface: mean distance, mm; seconds: a volume"
    return ResultTable(title, head, [row(result) for result in results], words=2, caption=caption)
