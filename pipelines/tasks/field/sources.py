"""Fields of a data set as places with values, and the way back to a Dataset with coordinates and units."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from ccnn_irregular._checks import require
from ccnn_irregular.adapters.xarray_axes import coordinate_numbers
from ccnn_irregular.adapters.xarray_files import Reading
from ccnn_irregular.adapters.xarray_frames import cf_roles
from ccnn_irregular.adapters.xarray_results import fitting_encoding, without_limits
from ccnn_irregular.datasets import argo, ghcnm
from ccnn_irregular.datasets.reading.files import existing_folder, missing_file
from ccnn_irregular.longitudes import one_turn

__all__ = ["FieldSet", "argo_floats", "cube_fields", "simulated_fields", "station_months"]

Array = NDArray[np.float64]

# Share of a step by which nodes may be off a uniform axis: printed decimals are.
_UNIFORM = 1e-3


@dataclass(frozen=True)
class FieldSet:
    """F fields laid end to end, N places in all.

    Attributes:
        coordinates: float64 ``(N, d)``, coordinate units.
        values: float64 ``(N, C)``, nan where a value is not known.
        splits: int64 ``(F + 1,)``; field ``f`` owns rows ``splits[f]:splits[f + 1]``.
        units: int64 ``(N,)``, the station or profile of each place; places of a grid have one each.
        names: of the fields.
        channels: of the values.
        channel_units: of the channels.
        axes: names of the coordinates.
        restored: values ``(N, C)`` at all places -> a Dataset with the coordinates and attributes of what was read.
        shape: sizes of a field on a grid of two axes, to be drawn as a map; None = scattered.
        times: float64 ``(F,)``, rising, of the fields in years; None where they have none.
        reference: int64 ``(N,)``, groups of places whose values count as differences from a mean of the group, which
            ``records.referred_to`` takes off; None where values are absolute.
        mean_over: bool ``(N,)``, the places which that mean is over; None = all that are known.
        areas: float64 ``(N,)``, what each place counts in scores: nodes of a grid of latitudes and longitudes as the
            area they stand for, in any unit; None = all places alike.
    """

    coordinates: Tensor
    values: Tensor
    splits: Tensor
    units: Tensor
    names: tuple[str, ...]
    channels: tuple[str, ...]
    channel_units: tuple[str, ...]
    axes: tuple[str, ...]
    restored: Callable[[Array], xr.Dataset]
    shape: tuple[int, ...] | None = None
    times: Tensor | None = None
    reference: Tensor | None = None
    mean_over: Tensor | None = None
    areas: Tensor | None = None

    def __post_init__(self) -> None:
        bad = ~torch.isfinite(self.coordinates).all(1)
        require(not bool(bad.any()), "coordinates", "be finite", f"row {int(bad.double().argmax())} of {len(bad)}")
        field = torch.repeat_interleave(torch.arange(len(self.names)), self.splits.diff()).double()
        places = torch.cat([field[:, None], self.coordinates], 1)
        known = ~self.values.isnan().any(1)
        distinct = len(torch.unique(places[known], dim=0))
        rule = "be distinct within a field where values are known"
        require(distinct == int(known.sum()), "coordinates", rule, f"{int(known.sum()) - distinct} repeated places")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def known(self) -> Tensor:
        """Where all channels are known, bool ``(N,)``."""
        return ~self.values.isnan().any(1)

    @property
    def averaged(self) -> Tensor:
        """Where the values are known whose mean a group of ``reference`` is referred to, bool ``(N,)``."""
        return self.known if self.mean_over is None else self.known & self.mean_over

    def weights(self, rows: Tensor) -> Tensor:
        """What the places ``rows`` count in scores, float64 of their shape."""
        return torch.ones(len(rows), dtype=torch.float64) if self.areas is None else self.areas[rows]


def cube_fields(
    path: str | Path,
    variables: Sequence[str],
    axes: Sequence[str],
    *,
    fields: str | None,
    stacked: Sequence[str] = (),
    reading: Reading | None = None,
) -> FieldSet:
    """Variables of a netCDF file or zarr store: one field for each node of ``fields``.

    Args:
        path: of the file.
        variables: that become channels.
        axes: dimensions that are the coordinates of a field; dates and time spans are days, degrees west and south
            negative.
        fields: dimension along which fields follow one another; None = the file holds one field.
        stacked: dimensions whose nodes become channels, such as levels.
        reading: how the file is read; None = as ``Reading`` says.

    Raises:
        FileNotFoundError, ValueError: see ``open_cube``; a variable that the file lacks (with those that it holds), or
            dimensions that are not those named.
    """
    with (reading or Reading()).open(path) as opened:
        held = sorted(map(str, opened.data_vars))
        lacking = [name for name in variables if name not in opened.data_vars]
        require(
            len(variables) > 0 and not lacking, "variables", f"be among those of {path}: {', '.join(held)}", lacking
        )
        named = {*axes, *stacked, *([fields] if fields else [])}
        for name in variables:
            require(set(opened[name].dims) == named, f"dimensions of {name}", f"be {sorted(named)}", opened[name].dims)
        dataset = opened[list(variables)].load()
    first = [fields] if fields else []
    order = [*first, *stacked, *axes]
    cube = xr.concat([dataset[name].transpose(*order).astype("float64") for name in variables], "_variable")
    cube = cube.transpose("_variable", *order)
    shape = tuple(dataset.sizes[axis] for axis in axes)
    count = dataset.sizes[fields] if fields else 1
    roles = cf_roles(dataset[variables[0]])
    lines = [coordinate_numbers(dataset[axis], roles.get(axis, "other"), "days")[0] for axis in axes]
    areas = _areas(lines, [roles.get(axis, "other") for axis in axes])
    nodes = np.stack(np.meshgrid(*lines, indexing="ij"), -1).reshape(-1, len(axes))
    levels = [dict(zip(stacked, one, strict=True)) for one in np.ndindex(*(dataset.sizes[dim] for dim in stacked))]
    labels = [" ".join([str(name), *(f"{dataset[d].values[i]}" for d, i in level.items())])
              for name in variables for level in levels]  # fmt: skip
    per_field = cube.values.reshape(len(variables), count, len(levels), len(nodes))
    values = per_field.transpose(1, 3, 0, 2).reshape(count * len(nodes), -1)

    def restored(filled: Array) -> xr.Dataset:
        back = filled.reshape(count, len(nodes), len(variables), len(levels)).transpose(2, 0, 3, 1)
        result = dataset.copy()
        for name, one in zip(variables, back, strict=True):
            sizes = [dataset.sizes[dim] for dim in order]
            array = xr.DataArray(one.reshape(sizes), dims=order).transpose(*dataset[name].dims)
            given = dataset[name]
            # Estimates are no integers, whatever the file holds.
            array = array.astype(given.dtype if given.dtype.kind == "f" else np.float64)
            array.attrs = without_limits(given.attrs)
            array.encoding = fitting_encoding(array, given)
            result[name] = array.variable
        return result

    return FieldSet(
        coordinates=torch.from_numpy(np.tile(nodes, (count, 1))),
        values=torch.from_numpy(np.ascontiguousarray(values)),
        splits=torch.arange(count + 1) * len(nodes),
        units=torch.arange(count * len(nodes)),
        names=tuple(f"{fields} {value}" for value in dataset[fields].values) if fields else (Path(path).stem,),
        channels=tuple(labels),
        channel_units=tuple(str(dataset[name].attrs.get("units", "1")) for name in variables for _ in levels),
        axes=tuple(axes),
        restored=restored,
        shape=shape if len(shape) == 2 else None,
        areas=None if areas is None else torch.from_numpy(np.tile(areas, count)),
    )


def _areas(lines: Sequence[Array], roles: Sequence[str]) -> Array | None:
    """What each node of a grid stands for, in any unit; None where it has no latitudes.

    The cosine of the latitude times the spacing of the latitudes and of the longitudes there, so the cosine alone
    where these are uniform.
    """
    if "latitude" not in roles:
        return None
    factors = [np.ones(len(line)) for line in lines]
    for factor, line, role in zip(factors, lines, roles, strict=True):
        if role == "latitude":
            factor *= np.cos(np.radians(line)).clip(0) * _spacing(line)
        elif role == "longitude":
            factor *= _spacing(one_turn(line).degrees)
    return np.asarray(reduce(np.multiply.outer, factors).ravel())


def _spacing(nodes: Array) -> Array:
    """Half the distance between the neighbours of each node, in any order, in any unit; repeated nodes share theirs."""
    distinct, which, copies = np.unique(nodes, return_inverse=True, return_counts=True)
    gaps = np.diff(distinct)
    uniform = len(gaps) == 0 or bool(np.ptp(gaps) <= _UNIFORM * gaps.max())
    return np.asarray(((np.ones(len(distinct)) if uniform else np.gradient(distinct)) / copies)[which])


def _days(dates: xr.DataArray) -> Array:
    """Dates of any calendar and span as days since 1970, nan where missing."""
    return coordinate_numbers(dates, "time", "days")[0]


def station_months(root: str | Path, *, element: str = "TAVG", drop_flagged: bool = True, least: int = 10) -> FieldSet:
    """Months of GHCN-Monthly stations, one field each: ``latitude``, ``longitude``.

    Values are temperatures; anomalies are differences from each station's own mean of that calendar month, as in
    ``ghcnm.anomalies``, taken by the ``reference`` of the set once it is known what that mean may be over. A calendar
    month with less than ``least`` years is not known.

    Args:
        root: the ``.dat`` file, its ``.inv`` beside it.
        element: see ``ghcnm.load``, as ``drop_flagged``.
        drop_flagged: see there.
        least: see ``ghcnm.anomalies``.
    """
    # By name: which stations are kept for the test must not depend on the order of the inventory.
    dataset = ghcnm.load(root, element=element, drop_flagged=drop_flagged).sortby("station")
    temperature = dataset["temperature"]
    table = temperature.where(ghcnm.anomalies(temperature, least).notnull())
    known_months = table.notnull().sum("station").values > 0
    table = table.isel(time=known_months)
    stations, months = table.sizes["station"], table.sizes["time"]
    places = np.stack([dataset["latitude"].values, dataset["longitude"].values], 1)

    def restored(filled: Array) -> xr.Dataset:
        array = table.copy(data=filled.reshape(months, stations).T)
        array.attrs |= {"long_name": f"anomaly of monthly {element}", "standard_name": "air_temperature_anomaly"}
        return array.to_dataset(name="temperature_anomaly")

    return FieldSet(
        coordinates=torch.from_numpy(np.tile(places, (months, 1))),
        values=torch.from_numpy(np.ascontiguousarray(table.values.T).reshape(-1, 1)),
        splits=torch.arange(months + 1) * stations,
        units=torch.arange(stations).repeat(months),
        names=tuple(str(month)[:7] for month in table["time"].values),
        channels=("temperature anomaly",),
        channel_units=("K",),
        axes=("latitude", "longitude"),
        restored=restored,
        times=torch.from_numpy(_days(table["time"])) / 365.2425,
        reference=(torch.from_numpy(table["time"].dt.month.values)[:, None] + 12 * torch.arange(stations)).flatten(),
    )


def argo_floats(root: str | Path, parameter: str = "TEMP") -> FieldSet:
    """Profiles of Argo floats, one field a float: ``time`` in days since its first profile, ``pressure`` in decibar.

    Args:
        root: folder of ``*_prof.nc`` files.
        parameter: see ``argo.load``.
    """
    folder = existing_folder(root)
    paths = sorted(folder.glob("*_prof.nc"))
    if not paths:
        raise missing_file(folder, "*_prof.nc files")
    # By time: which profiles are kept for the test must not depend on their order in the files.
    floats = [argo.load(path, parameter).sortby("time") for path in paths]
    places, values, units, kept = [], [], [], []
    before = 0
    for one in floats:
        days = _days(one["time"])
        days = np.broadcast_to((days - np.nanmin(days))[:, None], one[parameter].shape)
        there = np.isfinite(one["pressure"].values) & np.isfinite(days)
        profile = np.broadcast_to(np.arange(one.sizes["profile"])[:, None], there.shape)
        places.append(np.stack([days[there], one["pressure"].values[there]], 1))
        values.append(one[parameter].values[there])
        units.append(before + profile[there])
        kept.append(there)
        before += one.sizes["profile"]

    def restored(filled: Array) -> xr.Dataset:
        ends = np.cumsum([int(there.sum()) for there in kept])[:-1]
        filled_floats = []
        most = max(one.sizes["level"] for one in floats)
        for one, there, part in zip(floats, kept, np.split(filled[:, 0], ends), strict=True):
            whole = np.full(there.shape, np.nan)
            whole[there] = part
            named = one[[parameter]].copy()
            named[parameter] = one[parameter].copy(data=whole)
            named = named.pad(level=(0, most - one.sizes["level"]))
            filled_floats.append(named.assign_coords(float=("profile", [one.attrs["float"]] * one.sizes["profile"])))
        return xr.concat(filled_floats, "profile", combine_attrs="drop_conflicts")

    return FieldSet(
        coordinates=torch.from_numpy(np.concatenate(places)),
        values=torch.from_numpy(np.concatenate(values)[:, None]),
        splits=torch.tensor([0, *(len(one) for one in values)]).cumsum(0),
        units=torch.from_numpy(np.concatenate(units)),
        names=tuple(f"float {one.attrs['float']}" for one in floats),
        channels=(parameter,),
        channel_units=(str(floats[0][parameter].attrs.get("units", "1")),),
        axes=("time", "pressure"),
        restored=restored,
    )


def simulated_fields(count: int = 12, points: int = 400, *, waves: int = 24, seed: int = 0) -> FieldSet:
    """Smooth random fields on the unit square, known everywhere: sums of cosines with a falling spectrum.

    Args:
        count: number of fields.
        points: places of each, drawn at random.
        waves: cosines in a field, of up to three periods along each axis.
        seed: of everything drawn.
    """
    generator = torch.Generator().manual_seed(seed)
    places = torch.rand(count, points, 2, generator=generator, dtype=torch.float64)
    waves_of = 6 * torch.rand(count, waves, 2, generator=generator, dtype=torch.float64) - 3
    phases = torch.rand(count, waves, generator=generator, dtype=torch.float64)
    sizes = torch.randn(count, waves, generator=generator, dtype=torch.float64) / (1 + waves_of.norm(dim=2))
    angles = 2 * torch.pi * (places @ waves_of.transpose(1, 2) + phases[:, None])
    values = (angles.cos() * sizes[:, None]).sum(2)
    names = tuple(f"field {number}" for number in range(count))

    def restored(filled: Array) -> xr.Dataset:
        flat = places.reshape(-1, 2).numpy()
        field = np.repeat(np.arange(count), points)
        return xr.Dataset(
            {"value": ("place", filled[:, 0])},
            {"field": ("place", field), "y": ("place", flat[:, 0]), "x": ("place", flat[:, 1])},
        )

    return FieldSet(
        coordinates=places.reshape(-1, 2),
        values=values.reshape(-1, 1),
        splits=torch.arange(count + 1) * points,
        units=torch.arange(count * points),
        names=names,
        channels=("value",),
        channel_units=("1",),
        axes=("y", "x"),
        restored=restored,
    )


FieldSource = Literal["cube", "ghcnm", "argo", "simulated"]
