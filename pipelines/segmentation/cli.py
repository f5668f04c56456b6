"""``ccnn fit | validate | test | predict`` for labels of medical volumes; tests on every n-th slice."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
from lightning.pytorch.cli import LightningArgumentParser
from numpy.typing import NDArray
from rich import box, get_console
from rich.table import Table

from ccnn_irregular.datasets.decathlon import volume_name
from ccnn_irregular.pipelines.figures import save
from ccnn_irregular.pipelines.reports import versions, write_json, write_text
from ccnn_irregular.pipelines.segmentation import figures
from ccnn_irregular.pipelines.segmentation.data import VolumeBatch, VolumeDataModule, thinnings
from ccnn_irregular.pipelines.segmentation.files import FileJob, file_jobs, predict_files
from ccnn_irregular.pipelines.segmentation.network import ContinuousSegmenter
from ccnn_irregular.pipelines.segmentation.training import Segmentation, SegmentedVolume
from ccnn_irregular.pipelines.training_cli import TrainingCLI, load_weights
from ccnn_irregular.plotting_volumes import plot_kernel_slices

__all__ = ["LabelResult", "SegmentationCLI", "SegmentationPredictOptions", "SegmentationTestOptions"]

Thinning = tuple[int, ...]

_Z = 1.959964  # of a 95 % interval


@dataclass
class SegmentationTestOptions:
    """Other samplings the checkpoint is tested on, beside all slices; nothing is retrained.

    Attributes:
        thin: every how many slices along x, y and z one is kept, such as 1,1,2 2,1,1. Labels are those of the slices
            that remain.
    """

    thin: list[int | str] = field(default_factory=list)


@dataclass
class SegmentationPredictOptions:
    """What is labelled.

    Attributes:
        input: a NIfTI file, or a folder of them; null = the images of the test part.
    """

    input: str | None = None


@dataclass(frozen=True)
class LabelResult:
    """Dice of a label on the test volumes under one sampling.

    Attributes:
        sampling: its name.
        thin: every how many slices along x, y and z one was kept.
        label: what it means.
        dice: mean over the volumes that have the label, or for which it was predicted.
        low: lower end of the 95 % interval of the mean (normal, cut to [0, 1]).
        high: upper end.
        difference: mean minus that on all slices.
        n: volumes.
    """

    sampling: str
    thin: Thinning
    label: str
    dice: float
    low: float
    high: float
    difference: float
    n: int


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
        samplings = [(1, 1, 1), *thinnings(self._get(self.config_init, "test").thin)]
        datamodule.setup("test")
        load_weights(model, ckpt_path)
        found: dict[Thinning, list[SegmentedVolume]] = {}
        for thin in samplings:
            loader = datamodule.loader("test", thin=thin)
            found[thin] = cast("list[SegmentedVolume]", self.trainer.predict(model, dataloaders=loader))
        tables = {thin: _table_of(volumes) for thin, volumes in found.items()}
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
    found: dict[Thinning, list[SegmentedVolume]],
    tables: dict[Thinning, NDArray[np.float64]],
) -> list[Path]:
    """The worst, the median and the best volume under the first and the last sampling, all volumes, the kernels."""
    plots: list[Path] = []
    numbers, thinnings_drawn = data.part("test"), list(found)
    cases = figures.typical_cases(_row_means(tables[thinnings_drawn[0]]))
    for thin in dict.fromkeys((thinnings_drawn[0], thinnings_drawn[-1])):
        for name, place in cases.items():
            batch = model.standardised(VolumeBatch.of(data.volume(numbers[place]), thin))
            stem = folder / "-".join([name, *(["thin", *map(str, thin)] if max(thin) > 1 else [])])
            plots += figures.case(batch, found[thin][place], data.classes, stem)
    rows = [(_sampling(thin), table) for thin, table in tables.items()]
    plots.append(figures.dice_by_sampling(rows, data.classes, folder / "dice.png"))
    if isinstance(model.network, ContinuousSegmenter):
        plots.append(save(plot_kernel_slices(model.network.kernels()), folder / "kernels.png"))
    return plots


def _table_of(volumes: Sequence[SegmentedVolume]) -> NDArray[np.float64]:
    """Dice of each volume and label."""
    rows = [volume.dice for volume in volumes]
    assert all(row is not None for row in rows)
    return np.stack(cast("list[NDArray[np.float64]]", rows))


def _results(tables: dict[Thinning, NDArray[np.float64]], classes: Sequence[str]) -> list[LabelResult]:
    """Mean Dice of each label and of all labels; the first sampling is what the others are compared with."""
    results: list[LabelResult] = []
    names = [*classes[1:], "mean of the labels"]
    # A volume's mean over its labels is a row's own; nan where it has none of them.
    columns = {thin: np.column_stack([table, _row_means(table)]) for thin, table in tables.items()}
    first = next(iter(columns.values()))
    for thin, table in columns.items():
        for name, values, reference in zip(names, table.T, first.T, strict=True):
            there = values[~np.isnan(values)]
            n, mean = len(there), float(there.mean()) if len(there) else float("nan")
            half = _Z * float(there.std(ddof=1)) / n**0.5 if n > 1 else float("nan")
            against = reference[~np.isnan(reference)]
            difference = mean - float(against.mean()) if len(against) else float("nan")
            low, high = max(mean - half, 0.0), min(mean + half, 1.0)
            results.append(LabelResult(_sampling(thin), thin, name, mean, low, high, difference, n))
    return results


def _row_means(table: NDArray[np.float64]) -> NDArray[np.float64]:
    there = ~np.isnan(table)
    counts = there.sum(1)
    return np.where(counts > 0, np.where(there, table, 0.0).sum(1) / np.maximum(counts, 1), np.nan)


def _sampling(thin: Sequence[int]) -> str:
    kept = [f"1 of {factor} along {axis}" for axis, factor in zip("xyz", thin, strict=True) if factor > 1]
    return ", ".join(kept) or "all slices"


def _write_dice(path: Path, found: dict[Thinning, list[SegmentedVolume]], classes: Sequence[str]) -> None:
    """``sampling,volume,label,...`` lines: Dice of each label in each volume."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["sampling", "volume", *classes[1:]])
    for thin, volumes in found.items():
        for volume in volumes:
            assert volume.dice is not None
            writer.writerow([_sampling(thin), volume.name, *(f"{value:.5f}" for value in volume.dice)])
    write_text(path, table.getvalue())


def _print_table(results: Sequence[LabelResult], title: str) -> None:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for label in ("sampling", "label"):
        table.add_column(label, no_wrap=True)
    for label in ("Dice", "95 % interval", "difference"):
        table.add_column(label, justify="right", no_wrap=True)
    for one in results:
        interval = f"{one.low:.3f} - {one.high:.3f}"
        table.add_row(one.sampling, one.label, f"{one.dice:.3f}", interval, f"{one.difference:+.3f}")
    get_console().print(table)
