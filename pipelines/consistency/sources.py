"""A variable on uniform axes, of a netCDF file, a zarr store or an npz file."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray
from numpy.typing import NDArray

from ccnn_irregular._checks import reject, require
from ccnn_irregular._files import parsing
from ccnn_irregular._optional import import_optional
from ccnn_irregular.adapters.xarray_axes import line
from ccnn_irregular.adapters.xarray_files import Reading
from ccnn_irregular.adapters.xarray_times import REAL_CALENDARS, days_since_first, kind_of_times
from ccnn_irregular.adapters.xarray_units import compass
from ccnn_irregular.datasets.reading.files import read_npz as read_arrays
from ccnn_irregular.domains import Axis, Grid

__all__ = ["GriddedVariable", "length_unit", "read_netcdf", "read_npz"]

_MOST_AXES = 4
# A coordinate stored in float32 is off by up to 1e-4 steps; a month is off by 0.03 of a month and more.
_UNIFORM = 1e-3


@dataclass(frozen=True)
class GriddedVariable:
    """A variable on uniform axes.

    Attributes:
        name: of the variable, with what was selected.
        unit: of the variable, or an empty string.
        values: float64 ``grid.sizes``, nan where there is no value.
        grid: its axes, in coordinate units.
        axes: name of each axis.
        units: unit of each axis, None where it has none.
        notes: what was done to the file's arrangement, one sentence each.
    """

    name: str
    unit: str
    values: NDArray[np.float64]
    grid: Grid
    axes: tuple[str, ...]
    units: tuple[str | None, ...]
    notes: tuple[str, ...]


def read_netcdf(
    path: Path,
    variable: str | None = None,
    select: Sequence[str] = (),
    index: Sequence[str] = (),
    reading: Reading | None = None,
) -> GriddedVariable:
    """A variable of a netCDF file or zarr store, on one to four uniform axes.

    A falling axis is flipped. An axis of longitudes that goes round the globe repeats, with or without its first
    meridian again at the end; another one that the file cuts at Greenwich or the date line is joined there. Axes of
    length 1 are dropped.

    Args:
        path: of the file.
        variable: its name; None = the only one there is.
        select: ``axis=value`` picks the node of an axis with that coordinate.
        index: ``axis=number`` picks a node by its place, from 0.
        reading: how the file is read; None = as ``Reading`` says.

    Raises:
        FileNotFoundError, ValueError: see ``open_cube``; a variable, axis or coordinate that is not there, an axis that
            is not uniform, more than four axes.
    """
    with warnings.catch_warnings():
        # About the file's attributes, not about its values.
        warnings.simplefilter("ignore", xarray.SerializationWarning)
        with (reading or Reading()).open(path) as data:
            array = data[_chosen(variable, _gridded(data), "variable")]
            array = _with_model_days(_selected(array, select, index)).load()
    name = " ".join([str(array.name), *select, *index])
    notes = [f"axis {axis!r} of length 1 was dropped" for axis, size in array.sizes.items() if size == 1]
    array = array.squeeze()
    _require_axes(array.ndim, array.sizes)
    require(array.dtype.kind in "fiub", f"variable {name!r}", "hold numbers", array.dtype)
    values = array.values.astype(np.float64)
    axes, units = [], []
    for place, dimension in enumerate(array.dims):
        axis, unit, values, done = _rising_axis(array, str(dimension), values, place)
        notes += done
        axes.append(axis)
        units.append(unit)
    if any(unit is not None and unit.startswith("degree") for unit in units) and len(units) > 1:
        notes.append("degrees are taken as a plane: a kernel covers fewer kilometres of longitude near the poles")
    return GriddedVariable(
        name,
        str(array.attrs.get("units", "")),
        np.ascontiguousarray(values),
        _grid(axes),
        tuple(map(str, array.dims)),
        tuple(units),
        tuple(notes),
    )


def _with_model_days(array: Any) -> Any:
    """Dates of a model's calendar as the numbers in the file: a year of 360 days is as uniform as in the model."""
    for name, coordinate in array.coords.items():
        if coordinate.dtype == object and coordinate.size and kind_of_times(coordinate).calendar not in REAL_CALENDARS:
            cftime = import_optional("cftime", f"the dates of {name!r}", "files")
            unit, calendar = coordinate.encoding["units"], coordinate.encoding["calendar"]
            numbers = np.asarray(cftime.date2num(coordinate.values, unit, calendar), dtype=np.float64)
            array = array.assign_coords({name: (coordinate.dims, numbers, {**coordinate.attrs, "units": unit})})
    return array


def _gridded(data: Any) -> list[str]:
    """Names of the variables with at least one axis that hold numbers, and not the ends of an axis' cells."""
    ends = {variable.attrs.get("bounds", variable.encoding.get("bounds")) for variable in data.variables.values()}
    named = {str(name): array for name, array in data.data_vars.items() if name not in ends}
    return [name for name, array in named.items() if array.ndim and array.dtype.kind in "fiub"]


def _chosen(name: str | None, names: Sequence[str], argument: str) -> str:
    """``name``, or the only one there is."""
    listed = ", ".join(names) or "none with numbers on an axis"
    if name is None:
        require(len(names) == 1, argument, f"be named, since the file holds {listed}", "none")
        return names[0]
    require(name in names, argument, f"be one of those in the file: {listed}", repr(name))
    return name


def _require_axes(count: int, sizes: Any) -> None:
    shown = ", ".join(f"{name} ({size})" for name, size in sizes.items()) or "none"
    rule = f"have 1 to {_MOST_AXES} axes longer than 1 (select nodes of the others)"
    require(1 <= count <= _MOST_AXES, "variable", rule, shown)


def _selected(array: Any, select: Sequence[str], index: Sequence[str]) -> Any:
    """``array`` at the chosen nodes; each choice takes an axis away."""
    for option, choices in (("select", select), ("index", index)):
        for choice in choices:
            axis, equals, text = choice.partition("=")
            require(bool(equals), option, "have the form axis=value", repr(choice))
            rule = f"name an axis of the variable: {', '.join(map(str, array.dims))}"
            require(axis in array.dims, option, rule, repr(axis))
            size = array.sizes[axis]
            if option == "select":
                place = _place_of(array, axis, text)
            else:
                fits = text.isdecimal() and int(text) < size
                require(fits, f"index {axis}", f"be a number from 0 to {size - 1}", repr(text))
                place = int(text)
            array = array.isel({axis: place})
    return array


def _place_of(array: Any, axis: str, text: str) -> int:
    """Place of the node of ``axis`` whose coordinate is ``text``."""
    require(axis in array.coords, f"select {axis}", "be done with index, since that axis has no coordinate", repr(text))
    nodes = array.coords[axis].values
    try:
        if nodes.dtype.kind == "M":
            found = nodes == np.datetime64(text)
        elif nodes.dtype.kind == "O" and hasattr(nodes[0], "calendar"):
            found = nodes == xarray.date_range(text, periods=1, calendar=nodes[0].calendar, use_cftime=True)[0]
        elif nodes.dtype.kind in "fiu":
            found = np.isclose(nodes.astype(np.float64), float(text), rtol=1e-6, atol=0)
        else:
            found = nodes.astype(str) == text
    except ValueError:
        found = np.zeros(len(nodes), dtype=bool)
    if not found.any():
        shown = ", ".join(map(str, nodes)) if len(nodes) <= 12 else f"{nodes[0]} ... {nodes[-1]} ({len(nodes)} nodes)"
        reject(f"select {axis}", f"be one of {shown} (or --index {axis}=0 to {len(nodes) - 1})", repr(text))
    return int(np.flatnonzero(found)[0])


def _rising_axis(
    array: Any, name: str, values: NDArray[np.float64], place: int
) -> tuple[Axis, str | None, NDArray[np.float64], list[str]]:
    """The axis, its unit, the values along it as it rises, and what was done to them."""
    if _is_longitude(array, name):
        axis, unit, values, notes = _longitude_axis(array, name, values, place)
    else:
        axis, unit, falls = _uniform_axis(array, name)
        values = np.flip(values, place) if falls else values
        notes = [f"axis {name!r} falls in the file and was flipped"] if falls else []
    if axis.periodic:
        notes.append(f"axis {name!r} goes round the globe and repeats after 360 degrees")
    return axis, unit, values, notes


def _uniform_axis(array: Any, name: str) -> tuple[Axis, str | None, bool]:
    """The axis, its unit, and whether it falls in the file.

    Raises:
        ValueError: it is not uniform.
    """
    size = array.sizes[name]
    if name not in array.coords:
        return Axis(size, 1.0), "node", False
    coordinate = array.coords[name]
    nodes, unit = coordinate.values, str(coordinate.attrs.get("units", "")) or None
    if nodes.dtype.kind in "mMO":
        unit = "days" if nodes.dtype.kind == "m" else f"days since {str(nodes[0])[:10]}"
        nodes = days_since_first(coordinate)
    require(nodes.dtype.kind in "fiu", f"axis {name!r}", "have numbers or dates as its coordinate", nodes.dtype)
    nodes = nodes.astype(np.float64)
    step = _require_uniform(name, nodes, unit)
    return Axis(size, abs(step), min(nodes[0], nodes[-1])), unit, bool(step < 0)


def _require_uniform(name: str, nodes: NDArray[np.float64], unit: str | None) -> float:
    """The step of an axis; refuses one that is not uniform."""
    size = len(nodes)
    step = float(nodes[-1] - nodes[0]) / (size - 1)
    off = np.abs(nodes - np.linspace(nodes[0], nodes[-1], size))
    worst = int(np.argmax(off))
    if not (step != 0 and off[worst] <= _UNIFORM * abs(step)):
        steps = f", {off[worst] / abs(step):.3g} steps" if step else ""
        distance = f"{off[worst]:.3g} {length_unit(unit)}".rstrip()
        got = f"node {worst} at {nodes[worst]:g}, {distance}{steps} from its place"
        reject(f"axis {name!r}", f"be uniform from {nodes[0]:g} to {nodes[-1]:g} over {size} nodes", got)
    return step


def _is_longitude(array: Any, name: str) -> bool:
    if name not in array.coords:
        return False
    about = array.coords[name].attrs
    along = compass(str(about.get("units", ""))) in ("east", "west")
    return along or about.get("standard_name") == "longitude"


def _longitude_axis(
    array: Any, name: str, values: NDArray[np.float64], place: int
) -> tuple[Axis, str | None, NDArray[np.float64], list[str]]:
    """The axis of longitudes, its unit, the values along it from west to east, and what was done to them."""
    coordinate = array.coords[name]
    unit = str(coordinate.attrs.get("units", "")) or None
    unit = "degrees_east" if unit is not None and compass(unit) == "west" else unit
    found = line(coordinate, "longitude")
    step = _require_uniform(name, found.nodes, unit) if found.count > 1 else 1.0
    if found.period is not None:
        rule, got = "have its seam as wide as a step, or be cut", f"{found.period - np.ptp(found.nodes):g} degrees"
        require(found.step is not None, f"axis {name!r}", f"{rule} (a step is {step:g})", got)
        step = found.period / found.count
    notes = []
    if found.falling:
        notes.append(f"axis {name!r} falls in the file and was flipped")
    if found.closed:
        notes.append(f"axis {name!r} has its first meridian again at the end, which was dropped")
    if found.first:
        notes.append(f"axis {name!r} is cut between neighbours in the file and was joined at {found.nodes[0]:g}")
    periodic = found.period is not None
    return Axis(found.count, step, float(found.nodes[0]), periodic), unit, found.packed(values, place), notes


def read_npz(
    path: Path, array: str | None = None, spacing: Sequence[float] = (1.0,), periodic: Sequence[int] = ()
) -> GriddedVariable:
    """An array of an npz file, on a grid that starts at 0.

    Args:
        path: of the file.
        array: its name; None = the only one there is.
        spacing: distance of neighbouring nodes, one number or one per axis.
        periodic: axes that repeat.

    Raises:
        DamagedFileError: no complete npz file.
        ValueError: an array that is not there or not of numbers, more than four axes, a spacing that is not positive.
    """
    with parsing(path, ".npz file of numbers"), zipfile.ZipFile(path) as archive:
        names = [one.removesuffix(".npy") for one in archive.namelist()]
    name = _chosen(array, names, "array")
    values = read_arrays(path, [name])[name]
    require(values.dtype.kind in "fiub", f"array {name!r}", "hold numbers", values.dtype)
    _require_axes(values.ndim, {f"axis {axis}": size for axis, size in enumerate(values.shape)})
    d = values.ndim
    require(len(spacing) in (1, d), "spacing", f"be one number, or one for each of {d} axes", list(spacing))
    require(all(0 <= axis < d for axis in periodic), "periodic", f"name axes from 0 to {d - 1}", list(periodic))
    steps = [spacing[0]] * d if len(spacing) == 1 else list(spacing)
    grid = Grid(values.shape, steps, periodic=[axis in periodic for axis in range(d)])
    axes = tuple(f"axis {axis}" for axis in range(d))
    return GriddedVariable(name, "", values.astype(np.float64), grid, axes, (None,) * d, ())


def _grid(axes: Sequence[Axis]) -> Grid:
    return Grid(
        [axis.size for axis in axes],
        [axis.step for axis in axes],
        [axis.start for axis in axes],
        [axis.periodic for axis in axes],
    )


def length_unit(unit: str | None) -> str:
    """The unit of distances on an axis: days, where its nodes are days since a date."""
    return (unit or "").partition(" since ")[0]
