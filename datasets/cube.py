"""Variables of any netCDF or GRIB file or zarr store as fields: one for each node of a dimension, or a single one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ccnn_irregular._checks import require
from ccnn_irregular.datasets.registry import DataSet, register
from ccnn_irregular.datasets.samples import FieldSet
from ccnn_irregular.datasets.samples.fields import Array
from ccnn_irregular.longitudes import one_turn

if TYPE_CHECKING:
    import xarray as xr

    from ccnn_irregular.adapters.xarray_files import Reading

__all__ = ["fields_of", "load"]

# Share of a step by which nodes may be off a uniform axis: printed decimals are.
_UNIFORM = 1e-3


def load(
    root: str | Path,
    variables: Sequence[str] = (),
    axes: Sequence[str] = (),
    *,
    fields: str | None = None,
    stacked: Sequence[str] = (),
    reading: Reading | None = None,
) -> FieldSet:
    """Variables of a netCDF or GRIB file or a zarr store: one field for each node of ``fields``.

    Args:
        root: path of the file or store.
        variables: that become channels; () = all that lie on latitudes and longitudes, or on y and x.
        axes: dimensions that are the coordinates of a field; dates and time spans are days, degrees west and south
            negative. () = latitude and longitude, or y and x; fields then follow one another along the time, and all
            other dimensions are stacked.
        fields: dimension along which fields follow one another; None = the file holds one field.
        stacked: dimensions whose nodes become channels, such as levels.
        reading: how the file is read; None = as ``Reading`` says.

    Raises:
        FileNotFoundError, ValueError: see ``open_cube``; a variable that the file lacks (with those that it holds), or
            dimensions that are not those named.
    """
    from ccnn_irregular.adapters.xarray_files import Reading

    with (reading or Reading()).open(root) as opened:
        held = sorted(map(str, opened.data_vars))
        lacking = [name for name in variables if name not in opened.data_vars]
        require(not lacking, "data.variables", f"be among those of {root}: {', '.join(held)}", ", ".join(lacking))
        found = None if axes else _found(opened, root, variables, fields, stacked)
        if found is not None:
            variables, axes, fields, stacked = found.variables, tuple(found.axes), found.fields, found.stacked
        require(len(variables) > 0, "data.variables", f"name some of {root}: {', '.join(held)}", "none")
        named = {*axes, *stacked, *([fields] if fields else [])}
        for name in variables:
            require(set(opened[name].dims) == named, f"dimensions of {name}", f"be {sorted(named)}", opened[name].dims)
        dataset = opened[list(variables)].load()
    made = fields_of(dataset, variables, axes, fields=fields, stacked=stacked, name=Path(root).stem)
    return made if found is None else replace(made, axes=tuple(found.axes.values()))


@dataclass(frozen=True)
class _Found:
    """What a file says of its dimensions; ``axes`` are dimensions and their roles."""

    variables: tuple[str, ...]
    axes: dict[str, str]
    fields: str | None
    stacked: tuple[str, ...]


def _found(
    dataset: xr.Dataset, root: str | Path, variables: Sequence[str], fields: str | None, stacked: Sequence[str]
) -> _Found:
    """The dimensions by CF conventions, where they are not named.

    Raises:
        ValueError: no variable on a plane, or variables of several kinds of dimensions.
    """
    from ccnn_irregular.adapters.xarray_roles import cf_roles

    known: dict[str, dict[str, str]] = {}
    for name in variables or map(str, dataset.data_vars):
        if name in dataset.data_vars:
            dims = set(map(str, dataset[name].dims))
            known[name] = {dim: role for dim, role in cf_roles(dataset[name]).items() if dim in dims}
    planes = {name: _plane(roles) for name, roles in known.items()}
    chosen = [name for name, plane in planes.items() if plane and dataset[name].dtype.kind in "iuf"]
    shapes = {name: f"{name} ({', '.join(map(str, dataset[name].dims))})" for name in dataset.data_vars}
    rule = "be named (--data.axes NAME NAME, --data.fields NAME): none lies on latitudes and longitudes, or y and x"
    require(bool(chosen), f"the dimensions of {root}", rule, ", ".join(shapes.values()))
    first = chosen[0]
    alike = all(set(dataset[name].dims) == set(dataset[first].dims) for name in chosen)
    rule = "have the same dimensions (--data.variables NAME ... chooses some)"
    require(alike, f"the variables of {root}", rule, ", ".join(shapes[name] for name in chosen))
    rest = [str(dim) for dim in dataset[first].dims if dim not in planes[first] and dim not in stacked]
    # The starts of forecasts, before their steps: both are times.
    times = [dim for dim in rest if dataset[dim].dtype.kind == "M" or known[first].get(dim) == "time"]
    fields = fields or min(times, key=lambda dim: dataset[dim].dtype.kind != "M", default=None)
    return _Found(tuple(chosen), planes[first], fields, (*stacked, *(dim for dim in rest if dim != fields)))


def _plane(roles: Mapping[str, str]) -> dict[str, str]:
    """Dimensions that are latitude and longitude, or y and x, with their roles; none where one lacks."""
    dims = {role: dim for dim, role in roles.items()}
    pair = next((pair for pair in (("latitude", "longitude"), ("y", "x")) if set(pair) <= set(dims)), ())
    return {dims[role]: role for role in pair}


def fields_of(
    dataset: xr.Dataset,
    variables: Sequence[str],
    axes: Sequence[str],
    *,
    fields: str | None,
    stacked: Sequence[str] = (),
    name: str = "field",
) -> FieldSet:
    """Variables of a Dataset as fields, see :func:`load`; each has the dimensions named, and no others.

    Args:
        dataset: in memory.
        variables: that become channels.
        axes: dimensions that are the coordinates of a field.
        fields: dimension along which fields follow one another, or None.
        stacked: dimensions whose nodes become channels.
        name: of the field where it is the only one.
    """
    import xarray as xr

    from ccnn_irregular.adapters.xarray_axes import coordinate_numbers
    from ccnn_irregular.adapters.xarray_roles import cf_roles

    order = [*([fields] if fields else []), *stacked, *axes]
    cube = xr.concat([dataset[name].transpose(*order).astype("float64") for name in variables], "_variable")
    cube = cube.transpose("_variable", *order)
    shape = tuple(dataset.sizes[axis] for axis in axes)
    count = dataset.sizes[fields] if fields else 1
    roles = cf_roles(dataset[variables[0]])
    read = [coordinate_numbers(dataset[axis], roles.get(axis, "other"), "days") for axis in axes]
    lines = [numbers for numbers, _, _ in read]
    areas = _areas(lines, [roles.get(axis, "other") for axis in axes])
    nodes = np.stack(np.meshgrid(*lines, indexing="ij"), -1).reshape(-1, len(axes))
    levels = [dict(zip(stacked, one, strict=True)) for one in np.ndindex(*(dataset.sizes[dim] for dim in stacked))]
    per_field = cube.values.reshape(len(variables), count, len(levels), len(nodes)).transpose(1, 3, 0, 2)
    return FieldSet(
        coordinates=torch.from_numpy(np.tile(nodes, (count, 1))),
        values=torch.from_numpy(np.ascontiguousarray(per_field.reshape(count * len(nodes), -1))),
        splits=torch.arange(count + 1) * len(nodes),
        units=torch.arange(count * len(nodes)),
        names=tuple(f"{fields} {value}" for value in dataset[fields].values) if fields else (name,),
        channels=tuple(_channel(dataset, name, level) for name in variables for level in levels),
        channel_units=tuple(str(dataset[name].attrs.get("units", "")) for name in variables for _ in levels),
        axes=tuple(axes),
        restored=_way_back(dataset, variables, order, (count, len(nodes), len(variables), len(levels))),
        shape=shape if len(shape) == 2 else None,
        axis_units=tuple(unit for _, unit, _ in read),
        areas=None if areas is None else torch.from_numpy(np.tile(areas, count)),
    )


def _channel(dataset: xr.Dataset, variable: str, level: dict[str, int]) -> str:
    """Name of the channel that a variable is at a node of the stacked dimensions."""
    return " ".join([str(variable), *(f"{dataset[dim].values[node]}" for dim, node in level.items())])


def _way_back(
    dataset: xr.Dataset, variables: Sequence[str], order: Sequence[str], shape: tuple[int, int, int, int]
) -> Callable[[Array], xr.Dataset]:
    """Values of all fields -> the Dataset with these in place of what it holds.

    Args:
        dataset: what was read.
        variables: of the channels.
        order: of the dimensions in the values.
        shape: fields, nodes of each, variables, levels.
    """
    import xarray as xr

    from ccnn_irregular.adapters.xarray_results import fitting_encoding, without_limits

    def restored(filled: Array) -> xr.Dataset:
        back = filled.reshape(shape).transpose(2, 0, 3, 1)
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

    return restored


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


register(
    DataSet(
        name="cube",
        about="variables of a netCDF or GRIB file or zarr store, one field for each node of a dimension",
        load=load,
        samples=FieldSet,
        shape="as in the file",
        files="path of the file or store",
        size="of the file",
        licence="yours",
        source="your file",
    )
)
