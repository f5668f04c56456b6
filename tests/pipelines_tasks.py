"""Every task of the command line at its smallest: simulated data, its own network, everything drawn that can be."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import torch
from lightning.pytorch import Trainer
from pipelines_stand_in import STAYS
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ccnn_irregular import KernelSpec, Solver
from ccnn_irregular.adapters.geometric import CLOUD_KERNEL
from ccnn_irregular.datasets import simulated_icu
from ccnn_irregular.domains import Grid
from ccnn_irregular.networks_unet import UNET_KERNEL
from ccnn_irregular.pipelines.tasks.classification.data import SampleDataModule
from ccnn_irregular.pipelines.tasks.classification.module import Classification
from ccnn_irregular.pipelines.tasks.classification.network import ContinuousClassifier, GridOptions
from ccnn_irregular.pipelines.tasks.cloud_classification.data import CloudChanges, ShapeDataModule
from ccnn_irregular.pipelines.tasks.cloud_classification.module import CloudClassification
from ccnn_irregular.pipelines.tasks.cloud_classification.network import CloudClassifier
from ccnn_irregular.pipelines.tasks.cloud_segmentation.data import Discs, LabelDataModule
from ccnn_irregular.pipelines.tasks.cloud_segmentation.module import CloudSegmentation
from ccnn_irregular.pipelines.tasks.cloud_segmentation.network import CloudSegmenter
from ccnn_irregular.pipelines.tasks.clouds.data import CloudFiles
from ccnn_irregular.pipelines.tasks.downscale.data import DownscalingDataModule
from ccnn_irregular.pipelines.tasks.downscale.module import Downscaling
from ccnn_irregular.pipelines.tasks.downscale.network import DownscalingNetwork
from ccnn_irregular.pipelines.tasks.field.data import FieldDataModule
from ccnn_irregular.pipelines.tasks.field.kriging import FieldAxis
from ccnn_irregular.pipelines.tasks.field.module import FieldReconstruction
from ccnn_irregular.pipelines.tasks.field.network import FieldNetwork
from ccnn_irregular.pipelines.tasks.forecast.network import ForecastNetwork
from ccnn_irregular.pipelines.tasks.forecast.task import ForecastData, Forecasting
from ccnn_irregular.pipelines.tasks.segmentation.augmentation import VolumeAugmentation
from ccnn_irregular.pipelines.tasks.segmentation.data import VolumeDataModule
from ccnn_irregular.pipelines.tasks.segmentation.module import Segmentation
from ccnn_irregular.pipelines.tasks.segmentation.network import ContinuousSegmenter
from ccnn_irregular.pipelines.tasks.series.data import SeriesTables
from ccnn_irregular.pipelines.tasks.series.module import SeriesModel
from ccnn_irregular.pipelines.tasks.series.network import SeriesNetwork
from ccnn_irregular.pipelines.tasks.series.samples import Schema
from ccnn_irregular.pipelines.train.module import TaskModule
from ccnn_irregular.pipelines.train.schedule import Schedule

__all__ = ["TASKS", "Task", "answers", "fitted", "new_model", "read", "trainer", "write_tables", "write_volumes"]


@dataclass(frozen=True)
class Task:
    """How to make a task.

    Attributes:
        data: a data module from a folder for its files and a batch size.
        model: the module, with its network.
        tested: loader of the part to be tested.
        spoil: writes a value over all values and places of the test part that was read.
        draws: something is drawn for the samples in training.
    """

    data: Callable[[Path, int], Any]
    model: Callable[[], TaskModule]
    tested: Callable[[Any], DataLoader[Any]]
    spoil: Callable[[Any, float], None]
    draws: bool = True


def trainer(folder: Path, epochs: int = 1) -> Trainer:
    return Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        default_root_dir=folder,
    )


def read(task: Task, folder: Path, batch_size: int) -> Any:
    """The data module, set up."""
    data = task.data(folder, batch_size)
    data.setup("fit")
    return data


def new_model(task: Task) -> TaskModule:
    """Always with the same weights."""
    torch.manual_seed(0)
    return task.model()


def fitted(task: Task, data: Any, folder: Path, *, epochs: int = 1, seed: int = 0) -> TaskModule:
    """A model trained for some epochs; ``seed`` is that of the training and of what the data module draws."""
    model = new_model(task)
    if hasattr(data, "seed"):
        data.seed = seed
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.* is deprecated.*")
        # Networks this small reach less far than one would choose.
        warnings.filterwarnings("ignore", category=UserWarning, module="ccnn_irregular")
        trainer(folder, epochs).fit(model, datamodule=data)
    return model.eval()


def awake(model: TaskModule) -> TaskModule:
    """Weights that are zero before training are no longer: some networks begin with their first guess."""
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.ndim > 1 and not bool(parameter.any()):
            nn.init.normal_(parameter, std=0.1, generator=generator)
    return model


def answers(model: TaskModule, loader: DataLoader[Any]) -> Tensor:
    """Of all samples, one after the other, in one column or more."""
    awake(model).eval()
    found = []
    with torch.no_grad():
        for batch in loader:
            given = model.standardised(batch) if isinstance(model, Segmentation) else batch
            answer = model(given)
            found.append(answer.flatten(2)[0].T if isinstance(model, Segmentation) else answer)
    return torch.cat(found)


# ------------------------------------------------------------------------------------------------------------ stays


def stays(folder: Path, batch_size: int, sets: tuple[str, ...] = ("a", "b")) -> SeriesTables:
    root = folder / "stays"
    if not root.is_dir():
        simulated_icu.write(root, stays=24, seed=5, sets=("a", "b"))
    options = {"sets": sets, "cache": False, "progress": False}
    shares = {"test": 0.5, "validation": 0.4}
    return SeriesTables(str(root), source="physionet2012", source_options=options, **shares, batch_size=batch_size)


def risk() -> SeriesModel:
    sizes = {"members": 2, "hidden_channels": 4, "blocks": 1, "knots": 2}
    network = SeriesNetwork(**STAYS | {"step": 4.0, "nodes": 12}, **sizes, thinning=0.8, series_dropout=0.3)
    return SeriesModel(network, schedule=Schedule(warmup_epochs=0))


# --------------------------------------------------------------------------------------------------- classification


def samples(name: str, count: int, **options: Any) -> Callable[[Path, int], SampleDataModule]:
    return lambda folder, batch_size: SampleDataModule(
        name,
        count=count,
        batch_size=batch_size,
        validation=0.2,
        test=0.2,
        **options,  # type: ignore[arg-type]
    )


def strokes() -> Classification:
    network = ContinuousClassifier(
        3,
        6,
        4,
        1,
        kernel=KernelSpec(extent=[0.2], width=[0.05], omega_0=0.5, hidden=4),
        copies=2,
        presence=True,
        latent=GridOptions([50], [0.02]),
        solver=Solver(rtol=1e-5),
    )
    return Classification(network, drop=0.5, stretch=0.1, schedule=Schedule(warmup_epochs=0))


def images() -> Classification:
    network = ContinuousClassifier(
        1, 5, 4, 1, kernel=KernelSpec(extent=[13.5, 13.5], width=[2.5, 2.5], omega_0=0.3, hidden=4)
    )
    return Classification(network, low_pass=0.05, shift=[3.0, 2.0], flip=[0, 1], schedule=Schedule(warmup_epochs=0))


def scans() -> Classification:
    network = ContinuousClassifier(
        1,
        6,
        4,
        1,
        kernel=KernelSpec(extent=[10.0] * 3, width=[2.5] * 3, omega_0=0.3, hidden=4),
        latent=GridOptions([8] * 3, [4.0] * 3, [-14.0] * 3),
    )
    return Classification(network, flip=[0, 1, 2], schedule=Schedule(warmup_epochs=0))


def tested_samples(data: SampleDataModule) -> DataLoader[Any]:
    return data.loader("test")


def spoil_samples(data: SampleDataModule, value: float) -> None:
    assert data._parts is not None
    rows_of = data.samples.subset
    mine = torch.zeros(len(data.samples), dtype=torch.bool)
    mine[data._parts.test] = True
    held = data.samples
    if hasattr(held, "splits"):
        held.values[torch.repeat_interleave(mine, held.splits.diff())] = value
    elif hasattr(held, "grids"):
        counts = torch.tensor([grid.count for grid in held.grids])
        held.values[torch.repeat_interleave(mine, counts)] = value
    else:
        held.values[mine] = value
    assert float(rows_of(data._parts.test).values.min()) == value


# ----------------------------------------------------------------------------------------------------- segmentation


def write_volumes(root: Path, count: int = 7) -> Path:
    """Bright boxes in noise, voxels of unequal sizes."""
    rng = np.random.default_rng(0)
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        sizes = rng.integers(6, 9, 3)
        labels = np.zeros(sizes, np.uint8)
        labels[2:5, 2:4, 1:4] = 1
        values = (labels + 0.2 * rng.standard_normal(sizes)).astype(np.float32)
        affine = np.diag([*rng.uniform(0.9, 1.1, 3), 1.0])
        for folder, array in (("images", values), ("labels", labels)):
            nibabel.save(nibabel.Nifti1Image(array, affine), root / folder / f"case_{number}.nii.gz")
    return root


def volumes(folder: Path, batch_size: int) -> VolumeDataModule:
    root = folder / "volumes"
    if not root.is_dir():
        write_volumes(root)
    return VolumeDataModule(str(root), ["nothing", "box"], validation=0.2, test=0.2)


def segmentation() -> Segmentation:
    network = ContinuousSegmenter(
        1,
        2,
        kernel=replace(UNET_KERNEL, hidden=4),
        channels=(4,),
        blocks=(0,),
    )
    changes = VolumeAugmentation(0.5, stretch=0.1, contrast=0.2, brightness=0.3, gamma=1.5, noise=0.2)
    return Segmentation(network, augmentation=changes, schedule=Schedule(warmup_epochs=0))


def spoil_volumes(data: VolumeDataModule, value: float) -> None:
    for number in data.part("test"):
        data.volume(number).values.fill_(value)


# ------------------------------------------------------------------------------------------------------------ fields


def fields(folder: Path, batch_size: int) -> FieldDataModule:
    return FieldDataModule(
        "simulated_fields",
        held=0.3,
        watched=0.1,
        hide=[0.1, 0.5],
        hide_units=0.1,
        queries=10**6,
        draws=5,
        watched_fields=5,
        batch_size=batch_size,
    )


def field() -> FieldReconstruction:
    network = FieldNetwork(
        1,
        [FieldAxis("y", scale=0.1), FieldAxis("x", scale=0.1)],
        kernel=KernelSpec(extent=[4.0, 4.0], width=[1.5, 1.5], omega_0=1.0, generator="siren", hidden=4),
        neighbours=8,
        correlation=[1.0, 3.0],
        latent=Grid([11, 11], [1.0, 1.0]),
        hidden_channels=4,
        blocks=1,
    )
    return FieldReconstruction(network, schedule=Schedule(warmup_epochs=0))


def stations(folder: Path, batch_size: int) -> FieldDataModule:
    """A table of stations on a plane, a field for each day."""
    path, rng = folder / "stations.csv", np.random.default_rng(0)
    places = np.repeat(rng.uniform(0, 10, (12, 2)), 6, axis=0)
    days = np.tile([f"2020-01-{day:02d}" for day in range(1, 7)], 12)
    columns = {"station": np.repeat(np.arange(12), 6), "y": places[:, 0], "x": places[:, 1], "time": days}
    warm = np.sin(places[:, 0] / 2) + 0.1 * rng.standard_normal(72)
    pd.DataFrame(columns | {"warm": warm}).to_csv(path, index=False)
    options: dict[str, Any] = {"held_units": 0.3, "watched_units": 0.2, "hide": [0.1, 0.5], "hide_units": 0.2}
    options |= {"draws": 5, "watched_fields": 5, "queries": 10**6, "batch_size": batch_size}
    return FieldDataModule("stations", table=str(path), **options)


def spoil_fields(data: FieldDataModule, value: float) -> None:
    data.samples.values[data.parts.part == 2] = value


def fronts(folder: Path, batch_size: int) -> DownscalingDataModule:
    return DownscalingDataModule(count=12, batch_size=batch_size)


def downscaling() -> Downscaling:
    network = DownscalingNetwork(1, 4, 1, kernel=KernelSpec(extent=[8.0, 8.0], width=[3.0, 3.0], omega_0=2.0, hidden=4))
    return Downscaling(network, schedule=Schedule(warmup_epochs=0))


def spoil_fronts(data: DownscalingDataModule, value: float) -> None:
    data.testing.fill_(value)


# ------------------------------------------------------------------------------------------------------------ clouds

CHANGES = CloudChanges(
    fewest=20, turn=90.0, quarter_turns=True, mirror=True, scale=0.1, shift=0.1, noise=0.01, gradient=1.0
)


def shapes(folder: Path, batch_size: int) -> ShapeDataModule:
    return ShapeDataModule(
        "simulated_solids", count=30, points=60, places=100, changes=CHANGES, batch_size=batch_size, validation=0.3
    )


def cloud_classes() -> CloudClassification:
    network = CloudClassifier(
        1,
        5,
        kernel=replace(CLOUD_KERNEL, hidden=4),
        reading=0.4,
        spacing=0.8,
        channels=(4,),
    )
    return CloudClassification(network, schedule=Schedule(warmup_epochs=0))


def own_classes(folder: Path, batch_size: int) -> ShapeDataModule:
    """Balls and rods in files, a folder for each class."""
    rng = np.random.default_rng(0)
    for number in range(16):
        kind = ("ball", "rod")[number % 2]
        (folder / "own_classes" / kind).mkdir(parents=True, exist_ok=True)
        places = rng.standard_normal((70, 3)) * [1, 1, 1 + 4 * (number % 2)]
        np.savez(folder / "own_classes" / kind / f"{number}.npz", xyz=places)
    options: dict[str, Any] = {"points": 40, "places": 60, "changes": CHANGES, "validation": 0.3, "test": 0.3}
    return ShapeDataModule("cloud_folder", str(folder / "own_classes"), **options, batch_size=batch_size)


def balls_and_rods() -> CloudClassification:
    network = CloudClassifier(1, 2, kernel=replace(CLOUD_KERNEL, hidden=4), reading=0.6, spacing=1.2, channels=(4,))
    return CloudClassification(network, schedule=Schedule(warmup_epochs=0))


def spoil_shapes(data: ShapeDataModule, value: float) -> None:
    pool, held = data._pools["test"], torch.from_numpy(data._parts["test"])
    mine = torch.zeros(len(pool), dtype=torch.bool)
    mine[held] = True
    pool.places[torch.repeat_interleave(mine, pool.splits.diff())] = value


def tile(folder: Path, batch_size: int) -> LabelDataModule:
    return LabelDataModule("simulated_terrain", count=700, discs=Discs(18.0, 7), changes=CHANGES, batch_size=batch_size)


def cloud_labels() -> CloudSegmentation:
    network = CloudSegmenter(9, 2, kernel=replace(CLOUD_KERNEL, width=0.7, hidden=4), spacing=6.0, channels=(4,))
    return CloudSegmentation(network, value_noise=0.1, schedule=Schedule(warmup_epochs=0))


def spoil_tile(data: LabelDataModule, value: float) -> None:
    assert data.tile is not None
    for values in (data.parts["test"].values, data.parts["test"].coordinates):
        values.fill_(value)
    for values in (data.tile.values, data.tile.coordinates):
        values[data.rows["test"]] = value


def own_clouds(folder: Path, batch_size: int) -> CloudFiles:
    root = folder / "own_clouds"
    root.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(5):
        places = rng.uniform(0, [40, 20, 3], (150, 3))
        label = (places[:, 2] > 1.5).astype(np.int64)
        np.savez(root / f"{number}.npz", xyz=places, label=label, intensity=label + 0.1 * rng.standard_normal(150))
    options = {"terrain": False, "spacing": 2.0, "radius": 6.0, "discs": 7, "changes": CHANGES}
    return CloudFiles(str(root), **options, batch_size=batch_size)  # type: ignore[arg-type]


def own_cloud_labels() -> CloudSegmentation:
    network = CloudSegmenter(1, 2, kernel=replace(CLOUD_KERNEL, width=0.7, hidden=4), spacing=4.0, channels=(4,))
    return CloudSegmentation(network, value_noise=0.1, schedule=Schedule(warmup_epochs=0))


def spoil_own_clouds(data: CloudFiles, value: float) -> None:
    for cloud in data.parts["test"]:
        cloud.values.fill(value)
        cloud.places.fill(value)


# --------------------------------------------------------------------------------------------------------- forecast


def gappy(folder: Path, batch_size: int) -> ForecastData:
    options = {"count": 30, "seed": 3}
    return ForecastData(dataset="simulated_series", options=options, test=0.3, batch_size=batch_size)


def forecast() -> Forecasting:
    return Forecasting(ForecastNetwork(5, hidden_channels=4, blocks=1), schedule=Schedule(warmup_epochs=0))


def spoil_gappy(data: ForecastData, value: float) -> None:
    mine = torch.zeros(len(data.series), dtype=torch.bool)
    mine[data.parts.test] = True
    data.series.values[mine[data.series.sample_index()]] = value


# ------------------------------------------------------------------------------------------------------- own tables


def write_tables(folder: Path, name: str = "own", count: int = 40, seed: int = 0) -> tuple[Path, Path]:
    """A long table of two variables at times of their own, and labels that follow from one of them."""
    rng = np.random.default_rng(seed)
    labels, rows = np.arange(count) % 2, rng.integers(2, 12, (count, 2))
    parts = []
    for number, variable in enumerate(("pulse", "SpO2")):
        series = np.repeat(np.arange(count), rows[:, number])
        values = rng.normal(size=len(series)) + 2.0 * labels[series] * (number == 0)
        columns = {"id": [f"{name}{one:03d}" for one in series], "time": rng.uniform(0, 48, len(series))}
        parts.append(pd.DataFrame(columns | {"variable": variable, "value": values}))
    table, outcomes = folder / f"{name}.csv", folder / f"{name}_labels.csv"
    pd.concat(parts).to_csv(table, index=False)
    pd.DataFrame({"id": [f"{name}{one:03d}" for one in range(count)], "label": labels}).to_csv(outcomes, index=False)
    return table, outcomes


def own_tables(folder: Path, batch_size: int) -> SeriesTables:
    table, labels = write_tables(folder)
    return SeriesTables(str(table), str(labels), test=0.3, validation=0.3, batch_size=batch_size)


def own_series() -> SeriesModel:
    schema = Schema(["SpO2", "pulse"], {}, "binary", ["0", "1"], "units of the table", "numbers", "given")
    sizes = {"members": 2, "hidden_channels": 4, "blocks": 1}
    network = SeriesNetwork(schema, 0.0, 4.0, 12, 24.0, 8.0, 8.0, **sizes)
    return SeriesModel(network, schedule=Schedule(warmup_epochs=0))


def numbered_tables(folder: Path, batch_size: int) -> SeriesTables:
    """The same table with a number to be told of each series."""
    table, labels = write_tables(folder, "numbers")
    frame = pd.read_csv(labels)
    frame.assign(label=frame["label"] * 3.0 + np.linspace(0, 1, len(frame))).to_csv(labels, index=False)
    return SeriesTables(str(table), str(labels), test=0.3, validation=0.3, batch_size=batch_size)


def numbered_series() -> SeriesModel:
    schema = Schema(["SpO2", "pulse"], {}, "number", [], "units of the table", "numbers", "given")
    sizes = {"members": 2, "hidden_channels": 4, "blocks": 1}
    network = SeriesNetwork(schema, 0.0, 4.0, 12, 24.0, 8.0, 8.0, **sizes)
    return SeriesModel(network, schedule=Schedule(warmup_epochs=0))


def spoil_tables(data: SeriesTables, value: float) -> None:
    tested = data.samples.index[data.indices("test")]
    rows, _ = data.samples.series.rows_of(tested)
    data.samples.series.values[rows] = value
    data.samples.statics[tested] = value


TASKS: dict[str, Task] = {
    "tables": Task(own_tables, own_series, lambda data: data.loader("test"), spoil_tables),
    "numbers": Task(numbered_tables, numbered_series, lambda data: data.loader("test"), spoil_tables),
    "stays": Task(stays, risk, lambda data: data.loader("test"), spoil_tables),
    "series": Task(samples("simulated_strokes", 30), strokes, tested_samples, spoil_samples),
    "images": Task(samples("simulated_shapes", 30), images, tested_samples, spoil_samples),
    "scans": Task(samples("simulated_volumes", 30), scans, tested_samples, spoil_samples),
    "segmentation": Task(volumes, segmentation, lambda data: data.loader("test"), spoil_volumes),
    "field": Task(fields, field, lambda data: data.loader("test"), spoil_fields),
    "stations": Task(stations, field, lambda data: data.loader("test"), spoil_fields),
    "downscale": Task(fronts, downscaling, lambda data: data.loader("test"), spoil_fronts, draws=False),
    "shapes": Task(shapes, cloud_classes, lambda data: data.loader("test"), spoil_shapes),
    "own_classes": Task(own_classes, balls_and_rods, lambda data: data.loader("test"), spoil_shapes),
    "tile": Task(tile, cloud_labels, lambda data: data.loader("test"), spoil_tile),
    "clouds": Task(own_clouds, own_cloud_labels, lambda data: data.loader("test"), spoil_own_clouds),
    "forecast": Task(gappy, forecast, lambda data: data.loader("test"), spoil_gappy, draws=False),
}
