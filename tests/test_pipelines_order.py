"""Rows, files and variables in another order: the same parts, the same draws, the same models and answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from pipelines_tasks import TASKS, answers, fitted, stays, write_tables, write_volumes
from test_datasets_argo import written
from torch import Tensor

from ccnn_irregular.datasets.samples import drop_samples
from ccnn_irregular.datasets.simulated_fronts import fronts
from ccnn_irregular.datasets.simulated_samples import pen_strokes
from ccnn_irregular.pipelines.tasks.classification.data import SampleDataModule
from ccnn_irregular.pipelines.tasks.classification.sampling import Sampling
from ccnn_irregular.pipelines.tasks.cloud_classification.data import ShapeDataModule
from ccnn_irregular.pipelines.tasks.cloud_segmentation.data import Discs, LabelDataModule
from ccnn_irregular.pipelines.tasks.downscale.data import DownscalingDataModule
from ccnn_irregular.pipelines.tasks.field.data import FieldDataModule
from ccnn_irregular.pipelines.tasks.forecast.task import ForecastData
from ccnn_irregular.pipelines.tasks.segmentation.data import VolumeDataModule
from ccnn_irregular.pipelines.tasks.series.data import SeriesTables

nibabel = pytest.importorskip("nibabel")

# Rows as they were, and in another order.
ORDERS = (lambda rows: rows, lambda rows: [*rows[1::2][::-1], *rows[::2]])


def ready(data: Any) -> Any:
    data.setup("fit")
    return data


def tensors(samples: Any) -> dict[str, Any]:
    """What samples hold, grids as they are written; not their numbers in the files, which are what changes."""
    held = {key: one for key, one in vars(samples).items() if isinstance(one, Tensor) and key != "ids"}
    grids = [(*grid.sizes, *grid.steps, *grid.starts) for grid in getattr(samples, "grids", ())]
    return held | {"grids": grids}


def same(first: Any, second: Any) -> None:
    """To the last bit."""
    torch.testing.assert_close(first, second, rtol=0, atol=0, equal_nan=True)


# ----------------------------------------------------------------------------------------------------- classification


def written_series(folder: Path, order: Callable[[list[str]], list[str]], files: int) -> str:
    """Series of three channels and six classes in ``.ts`` files."""
    rng, lines = np.random.default_rng(0), []
    for number in range(48):
        times = np.sort(rng.choice(60, rng.integers(15, 40), replace=False)) / 100
        channels = [rng.standard_normal(len(times)) + number % 6 for _ in range(3)]
        text = [",".join(f"({t:.2f},{v:.4f})" for t, v in zip(times, one, strict=True)) for one in channels]
        lines.append(":".join([*text, "abcdef"[number % 6]]))
    head = "@problemName any\n@timestamps true\n@classLabel true a b c d e f\n@data\n"
    folder.mkdir()
    paths = [folder / f"{number}.ts" for number in range(files)]
    for number, path in enumerate(paths):
        path.write_text(head + "\n".join(order(lines)[number::files]) + "\n")
    return ",".join(str(path) for path in order(paths))  # type: ignore[arg-type]


def test_series_of_ts_files_may_stand_in_any_order_and_file(tmp_path: Path) -> None:
    first, second, third = (
        ready(SampleDataModule("ts_files", written_series(tmp_path / str(n), order, files), validation=0.2, test=0.2))
        for n, (order, files) in enumerate([(ORDERS[0], 1), (ORDERS[1], 1), (ORDERS[1], 3)])
    )
    for other in (second, third):
        for part in ("train", "validation"):
            same(tensors(first.part(part)), tensors(other.part(part)))
        for sampling in (Sampling(), Sampling(drop=0.5)):
            same(tensors(first.sampled_part("test", sampling)), tensors(other.sampled_part("test", sampling)))
    task = TASKS["series"]
    models = [fitted(task, data, tmp_path) for data in (first, third)]
    same(models[0].state_dict(), models[1].state_dict())


def test_series_to_forecast_may_stand_in_any_order_and_file(tmp_path: Path) -> None:
    found = []
    for number, (order, files) in enumerate([(ORDERS[0], 1), (ORDERS[1], 3)]):
        root = written_series(tmp_path / str(number), order, files)
        found.append(
            ready(ForecastData(cut=0.3, dataset="ts_files", root=root, test=0.2, validation=0.2, batch_size=6))
        )
    for part in ("train", "validation", "test"):
        same(*(tensors(data.part(part)) for data in found))
    for first, second in zip(*(data.loader("train") for data in found), strict=True):
        same(first.history.values, second.history.values)


# --------------------------------------------------------------------------------------------------------- own tables


def test_rows_columns_and_files_of_tables_may_stand_in_any_order(tmp_path: Path) -> None:
    table, labels = (pd.read_csv(path) for path in write_tables(tmp_path))
    task, states, found = TASKS["tables"], [], []
    for number, order in enumerate(ORDERS):
        folder = tmp_path / str(number)
        (folder / "values").mkdir(parents=True)
        rows = table.iloc[order(list(range(len(table))))]
        rows = rows[["value", "variable", "id", "time"]] if number else rows
        for part in range(1 + number):
            rows.iloc[part :: 1 + number].to_csv(folder / "values" / f"{part}.csv", index=False)
        labels.iloc[order(list(range(len(labels))))].to_csv(folder / "labels.csv", index=False)
        options = {"test": 0.3, "validation": 0.3, "batch_size": 6}
        data = ready(SeriesTables(str(folder / "values"), str(folder / "labels.csv"), **options))  # type: ignore[arg-type]
        model = fitted(task, data, tmp_path)
        states.append({key: one for key, one in model.state_dict().items() if isinstance(one, Tensor)})
        found.append(dict(zip(data.ids("test"), answers(model, data.loader("test")).tolist(), strict=True)))
    same(*states)
    assert found[0] == found[1]


def test_the_rows_of_a_table_of_volumes_may_stand_in_any_order(tmp_path: Path) -> None:
    names = sorted(path.name for path in (write_volumes(tmp_path, 12) / "images").iterdir())
    rows = [f"images/{name},{'ab'[number % 2]}" for number, name in enumerate(names)]
    found = []
    for order in ORDERS:
        (tmp_path / "labels.csv").write_text("\n".join(["file,label", *order(rows)]) + "\n")
        found.append(ready(SampleDataModule("volume_folder", str(tmp_path), validation=0.2, test=0.2)))
    for part in ("train", "validation"):
        same(*(tensors(data.part(part)) for data in found))
    same(*(tensors(data.sampled_part("test", Sampling())) for data in found))


def test_dropped_samples_of_a_series_do_not_depend_on_the_series_before_it() -> None:
    """They are known by their number alone."""
    strokes = pen_strokes(6)
    longer = strokes.subset(torch.tensor([1, 1, 2, 3]))
    whole, other = drop_samples(strokes, 0.5, seed=2), drop_samples(longer, 0.5, seed=2)
    rows = [slice(*one.splits[2:4].tolist()) for one in (whole, other)]
    same(whole.coordinates[rows[0]], other.coordinates[rows[1]])


# -------------------------------------------------------------------------------------------------------------- stays


def test_sets_of_stays_may_stand_in_any_order(tmp_path: Path) -> None:
    task = TASKS["stays"]
    found: list[dict[str, Any]] = []
    states = []
    for sets in (("a", "b"), ("b", "a")):
        data = ready(stays(tmp_path, 7, sets))
        model = fitted(task, data, tmp_path)
        states.append({key: one for key, one in model.state_dict().items() if isinstance(one, Tensor)})
        logits = answers(model, data.test_dataloader()).tolist()
        found.append(dict(zip(data.ids("test"), logits, strict=True)))
    same(*states)
    assert found[0] == found[1]


# -------------------------------------------------------------------------------------------------------- segmentation


def test_pairs_may_be_listed_in_any_order(tmp_path: Path) -> None:
    names = sorted(path.name for path in (write_volumes(tmp_path) / "images").iterdir())
    pairs = [{"image": f"images/{name}", "label": f"labels/{name}"} for name in names]
    found = []
    for order in ORDERS:
        content = {"training": order(pairs), "labels": {"0": "nothing", "1": "box"}}
        (tmp_path / "dataset.json").write_text(json.dumps(content))
        data = ready(VolumeDataModule(str(tmp_path), validation=0.2, test=0.2))
        found.append(
            {part: [data.pairs[one].name for one in data.part(part)] for part in ("train", "validation", "test")}
        )
    assert found[0] == found[1]


# -------------------------------------------------------------------------------------------------------------- fields


def parts_of(data: FieldDataModule) -> set[tuple[Any, ...]]:
    """Field, place and part of every known value, and whether it is shown in the test."""
    parts = data.parts
    columns = [parts.field[:, None], data.samples.coordinates, parts.part[:, None], parts.shown[:, None]]
    rows = torch.cat(columns, 1)
    return set(map(tuple, rows[data.samples.known].tolist()))


def drawn_of(data: FieldDataModule) -> list[tuple[Any, Any]]:
    """Places that are shown and asked for in training and in validation."""
    batches = [*data.train_dataloader(), *data.val_dataloader()]
    return [
        (sorted(batch.observed.coordinates.tolist()), sorted(batch.query.coordinates.tolist())) for batch in batches
    ]


OPTIONS: dict[str, dict[str, Any]] = {
    "places": {"held": 0.3, "held_units": 0.1},
    "fields": {"test_fields": [1], "show": 0.2},
}


@pytest.mark.parametrize("kept", OPTIONS)
def test_axes_and_variables_of_a_cube_may_stand_in_any_order(kept: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shape, dims = (3, 9, 12), ("month", "latitude", "longitude")
    cube = xr.Dataset(
        {name: (dims, rng.standard_normal(shape), {"units": "K"}) for name in ("warm", "cold", "other")},
        {
            "month": [1, 2, 3],
            "latitude": ("latitude", np.linspace(60, 20, 9), {"units": "degrees_north"}),
            "longitude": ("longitude", np.linspace(0, 110, 12), {"units": "degrees_east"}),
        },
    )
    turned = cube[["other", "cold", "warm"]].isel(latitude=slice(None, None, -1), longitude=slice(None, None, -1))
    found = []
    for number, one in enumerate((cube, turned.transpose("longitude", "month", "latitude"))):
        one.to_netcdf(tmp_path / f"{number}.nc", engine="h5netcdf")
        data = FieldDataModule(
            "cube", str(tmp_path / f"{number}.nc"), variables=["warm", "cold"], axes=["latitude", "longitude"],
            fields="month", watched=0.1, hide_units=0.2, draws=6, batch_size=2, **OPTIONS[kept],
        )  # fmt: skip
        found.append(ready(data))
    assert parts_of(found[0]) == parts_of(found[1])
    assert drawn_of(found[0]) == drawn_of(found[1])


def test_stations_may_stand_in_any_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    stations, lines = [], []
    for number in range(20):
        name, places = f"425000{number:05d}", rng.uniform([30, -100], [40, -90])
        stations.append(
            f"{name} {places[0]:8.4f} {places[1]:9.4f}  426.7 {'SOMEWHERE':<30} 436R   -9HIxxno-9A-9WARM FIELD"
        )
        for year in range(1990, 2002):
            lines.append(f"{name}{year}TAVG" + "".join(f"{int(rng.normal(1000, 300)):5d}  G" for _ in range(12)))
    found = []
    for number, order in enumerate(ORDERS):
        path = tmp_path / f"{number}.dat"
        path.write_text("\n".join(order(lines)) + "\n")
        path.with_suffix(".inv").write_text("\n".join(order(stations)) + "\n")
        options: dict[str, Any] = {"held_units": 0.3, "watched_units": 0.2, "hide": [0.0, 0.3], "hide_units": 0.2}
        found.append(ready(FieldDataModule("ghcnm", str(path), draws=6, batch_size=3, watched_fields=5, **options)))
    assert parts_of(found[0]) == parts_of(found[1])
    assert drawn_of(found[0]) == drawn_of(found[1])


def test_profiles_and_levels_may_stand_in_any_order(tmp_path: Path) -> None:
    content = xr.load_dataset(written(tmp_path / "content.nc"))
    content["PRES_ADJUSTED"] = content["PRES_ADJUSTED"] + xr.DataArray([0.0, 0.1, 0.2], dims="N_PROF")
    found = []
    for number, cut in enumerate([{}, {"N_PROF": [2, 0, 1], "N_LEVELS": [3, 1, 0, 2]}]):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name in ("1", "2", "3"):
            content.isel(cut).to_netcdf(folder / f"{name}_prof.nc", engine="h5netcdf")
        options: dict[str, Any] = {"held": 0.2, "held_units": 0.3, "watched": 0.3, "hide_units": 0.2}
        found.append(ready(FieldDataModule("argo", str(folder), draws=6, batch_size=2, seed=4, **options)))
    assert parts_of(found[0]) == parts_of(found[1])
    assert drawn_of(found[0]) == drawn_of(found[1])


def test_times_rows_and_variables_of_fields_made_finer_may_stand_in_any_order(tmp_path: Path) -> None:
    made = fronts(10, seed=1)
    (name,) = made.data_vars
    made = made.assign({"twice": 2 * made[name]})
    first, *axes = made[name].dims
    made = made.assign_coords({first: np.arange(10)})
    turned = made[["twice", name]].isel({first: [3, 9, 1, 0, 2, 5, 8, 7, 6, 4], axes[0]: slice(None, None, -1)})
    found = []
    for number, one in enumerate((made, turned)):
        one.to_netcdf(tmp_path / f"{number}.nc", engine="h5netcdf")
        found.append(ready(DownscalingDataModule(str(tmp_path / f"{number}.nc"), [str(name), "twice"], patch=8)))
    same(found[0].testing, found[1].testing)
    same(found[0].training, found[1].training)
    same(*({part: torch.from_numpy(rows) for part, rows in data.patches.items()} for data in found))


# -------------------------------------------------------------------------------------------------------------- clouds


def test_points_of_a_tile_may_stand_in_any_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    places = np.column_stack([rng.uniform(0, 60, (400, 2)), rng.uniform(0, 3, 400)])
    rows = [" ".join(map(repr, map(float, place))) + f" {int(place[2] > 1)}" for place in places]
    found = []
    for number, order in enumerate(ORDERS):
        path = tmp_path / f"{number}.txt"
        path.write_text("\n".join(order(rows)) + "\n")
        found.append(ready(LabelDataModule("lidar_ground", str(path), discs=Discs(10.0, 5), weights="even")))
    for first, second in zip(*(data.train_dataloader() for data in found), strict=True):
        same(first.domain.splits, second.domain.splits)
        same(first.labels, second.labels)
        torch.testing.assert_close(first.domain.coordinates, second.domain.coordinates, rtol=0, atol=1e-9)
    for part in ("train", "validation", "test"):
        assert len(found[0].parts[part].values) == len(found[1].parts[part].values)


def test_points_and_files_of_own_clouds_may_stand_in_any_order(tmp_path: Path) -> None:
    found = []
    for number, order in enumerate(ORDERS):
        folder = tmp_path / str(number)
        folder.mkdir()
        data = TASKS["clouds"].data(folder, 4)  # writes its files
        for path in (folder / "own_clouds").iterdir():
            with np.load(path) as file:
                arrays = {name: file[name][order(list(range(150)))] for name in order(file.files)}
            np.savez(path, **arrays)
        found.append(ready(data))
    same(*(fitted(TASKS["clouds"], data, tmp_path).state_dict() for data in found))


def test_points_files_and_labels_of_clouds_with_a_class_may_stand_in_any_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    clouds = [rng.standard_normal((80, 3)) * [1, 1, 1 + 4 * (number % 2)] for number in range(16)]
    found = []
    for number, order in enumerate(ORDERS):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name, cloud in enumerate(clouds):
            np.savez(folder / f"{name:02d}.npz", xyz=cloud[order(list(range(80)))])
        rows = [f"{name:02d}.npz,{'ab'[name % 2]}" for name in range(16)]
        (folder / "labels.csv").write_text("\n".join(["file,label", *order(rows)]) + "\n")
        options: dict[str, Any] = {"points": 40, "places": 60, "validation": 0.3, "test": 0.25, "batch_size": 4}
        found.append(ready(ShapeDataModule("cloud_folder", str(folder), **options)))
    models = [fitted(TASKS["own_classes"], data, tmp_path) for data in found]
    same(*(model.state_dict() for model in models))
    told = [
        dict(zip(data.ids("test"), answers(models[0], data.loader("test")).tolist(), strict=True)) for data in found
    ]
    assert told[0] == told[1]


def test_rows_and_columns_of_a_table_of_stations_may_stand_in_any_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = np.repeat([f"s{number:02d}" for number in range(15)], 6)
    places, years = np.repeat(rng.uniform([30, -100], [40, -90], (15, 2)), 6, axis=0), np.tile(np.arange(6), 15)
    table = pd.DataFrame({"station": names, "lat": places[:, 0], "lon": places[:, 1]})
    table["time"] = [f"20{10 + year}-01-01" for year in years]
    table["warm"], table["cold"] = rng.standard_normal((2, 90))
    found = []
    options: dict[str, Any] = {"variables": ["warm", "cold"], "held_units": 0.3, "watched_units": 0.2}
    options |= {"hide": [0.0, 0.3], "hide_units": 0.2, "draws": 6, "batch_size": 3}
    for number, order in enumerate(ORDERS):
        rows, path = table.iloc[order(list(range(len(table))))], tmp_path / f"{number}.csv"
        rows = rows[["cold", "time", "warm", "lon", "station", "lat"]] if number else rows
        rows.to_csv(path, index=False)
        found.append(ready(FieldDataModule("stations", table=str(path), **options)))
    assert parts_of(found[0]) == parts_of(found[1])
    assert drawn_of(found[0]) == drawn_of(found[1])
