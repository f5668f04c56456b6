"""Which dimensions of an array are axes, samples and channels: by CF conventions, and by what is named."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final, get_args

import numpy as np
import xarray as xr

from ccnn_irregular._checks import reject, require
from ccnn_irregular._optional import import_optional
from ccnn_irregular.adapters.xarray_axes import Line, Role, TimeUnit, line
from ccnn_irregular.adapters.xarray_clouds import Cloud, cloud
from ccnn_irregular.adapters.xarray_frames import Frame
from ccnn_irregular.adapters.xarray_meshes import Areas, CellsOf
from ccnn_irregular.adapters.xarray_times import is_time
from ccnn_irregular.adapters.xarray_units import compass, measure, same_unit

__all__ = ["SCATTERED", "Axes", "Options", "cf_roles", "frame_of"]

Axes = Mapping[str, Role] | Sequence[str]
# What weights are called that say: these are no cells, but places where something was measured.
SCATTERED = "scattered"
# CF names of coordinates that are what a role says, whatever else is known of them; those of rotated poles keep the
# metric of the rotated sphere.
_STANDARD_NAMES: dict[str, Role] = {
    "latitude": "latitude",
    "grid_latitude": "latitude",
    "longitude": "longitude",
    "grid_longitude": "longitude",
    "projection_x_coordinate": "x",
    "projection_y_coordinate": "y",
    "time": "time",
    "forecast_period": "time",
}
# What cf-xarray calls them, the more telling ones first.
_CF_COORDINATES: dict[str, Role] = {
    "latitude": "latitude",
    "longitude": "longitude",
    "time": "time",
    "vertical": "vertical",
}
_CF_AXES: dict[str, Role] = {"T": "time", "Z": "vertical", "Y": "y", "X": "x"}
# The order of axes that CF conventions recommend: T, Z, Y, X.
_ORDER: dict[Role, int] = {"time": 0, "vertical": 1, "latitude": 2, "y": 2, "longitude": 3, "x": 3, "other": 4}
# Units of axes that count their nodes.
_COUNTS = ("", "1", "level", "levels", "layer", "index", "dimensionless")
_PLACES: tuple[Role, ...] = ("time", "vertical", "latitude", "longitude")
_SPHERE: tuple[Role, Role] = ("latitude", "longitude")


@final
@dataclass(frozen=True)
class Options:
    """How to read an array where its attributes say too little or too much.

    Attributes:
        axes: coordinates that are axes, with or without their roles ("time", "vertical", "latitude", "longitude", "x",
            "y", "other"); they settle their dimensions. The others are recognised by CF conventions.
        samples: dimensions whose entries know nothing of each other.
        channels: dimension of the channels; None = one channel.
        order: coordinates in the order of the kernel's axes; None = see ``Frame``.
        area_weights: whether latitudes count by their area on the sphere.
        time_unit: unit of dates and time spans.
        weights: what each place stands for, along the dimensions of one axis or one set of points: an array, or the
            name of a coordinate or variable. ``SCATTERED`` = one over the density of points. None = as the file says.
        about: what stands beside the array in its Dataset, and its own attributes; None = its coordinates and its own.
    """

    axes: Axes | None = None
    samples: Sequence[str] = ()
    channels: str | None = None
    order: Sequence[str] | None = None
    area_weights: bool = True
    time_unit: TimeUnit = "days"
    weights: xr.DataArray | str | None = None
    about: tuple[xr.Dataset, xr.DataArray] | None = None


def frame_of(array: xr.DataArray, options: Options, *, weighted: bool = True) -> Frame:
    """Find the axes of an array by CF conventions and by what ``options`` name.

    Args:
        array: whose dimensions are axes, samples and channels.
        options: how it is to be understood.
        weighted: whether it matters what each place stands for; without, points count nothing.

    Raises:
        ValueError: a dimension that is neither recognised nor named; names the array does not have; two coordinates
            that say the same of one dimension; horizontal axes of different units; an axis that cannot be one, see
            ``xarray_axes.line`` and ``xarray_clouds.cloud``; cells whose areas the file says somewhere else.
    """
    beside, about = options.about or (array.coords.to_dataset(), array)
    cells = CellsOf(about, beside)
    array = _placed(array, cells)
    array, told = _without_starts(array, options)
    samples = (options.samples,) if isinstance(options.samples, str) else tuple(options.samples)
    samples = (*samples, *(dim for dim in told if dim not in (*samples, options.channels)))
    dims = [str(dim) for dim in array.dims]
    for what, names in (("samples", samples), ("channels", (options.channels,) if options.channels else ())):
        for name in names:
            require(name in dims, what, f"be one of the dimensions {dims}", repr(name))
    free = [dim for dim in dims if dim not in (*samples, options.channels)]
    known = cf_roles(array)
    groups = _named_groups(array, options.axes, known, free)
    taken = {dim for group in groups for name in group for dim in array[name].dims}
    recognised = _recognised_groups(array, known, [dim for dim in free if dim not in taken])
    _announce_counted_axes(array, recognised, known)
    groups += recognised
    given = _given_weights(array, beside, options)
    spans = [{str(dim) for name in group for dim in array[name].dims} for group in groups]
    fits = given is None or set(map(str, given.dims)) in spans
    rule = f"run along the dimensions of one axis or set of points: {[sorted(span) for span in spans]}"
    require(fits, "weights", rule, None if given is None else given.dims)
    factors = [_factor(array, group, options, cells, given, weighted) for group in groups]
    _require_same_units(factors)
    return Frame(_ordered(factors, free, options.order), samples, options.channels)


def _without_starts(array: xr.DataArray, options: Options) -> tuple[xr.DataArray, list[str]]:
    """The array as its axes are looked for, and the dimensions that CF conventions tell to be independent samples.

    Those are the members of an ensemble ("realization") and, beside lead times ("forecast_period"), the starts of the
    forecasts; dates on both dimensions then say nothing more. What ``options.axes`` names settles its dimensions.
    """
    named = {dim for name in options.axes or () if name in array.coords for dim in array[name].dims}
    standard = {str(dim): array[dim].attrs.get("standard_name") for dim in array.dims if dim in array.coords}
    told = [dim for dim, name in standard.items() if name == "realization" and dim not in named]
    by_name = {name: dim for dim, name in standard.items()}
    start, lead = by_name.get("forecast_reference_time"), by_name.get("forecast_period")
    if start is None or lead is None or start in named or lead in named:
        return array, told
    dates = [name for name, coordinate in array.coords.items() if set(coordinate.dims) == {start, lead}]
    return array.drop_vars(dates), [*told, start]


def cf_roles(array: xr.DataArray) -> dict[str, Role]:
    """Find the coordinates that CF conventions give a role."""
    roles: dict[str, Role] = {}
    import_optional("cf_xarray", "recognising axes by CF conventions", "files")
    for table, found in ((_CF_AXES, array.cf.axes), (_CF_COORDINATES, array.cf.coordinates)):
        for key, role in table.items():
            roles |= {str(name): role for name in found.get(key, ())}
    for name, coordinate in array.coords.items():
        standard = coordinate.attrs.get("standard_name")
        way = compass(str(coordinate.attrs.get("units", ""))) if coordinate.dtype.kind in "iuf" else None
        if way and str(name) not in roles:  # cf-xarray knows degrees north and east only
            roles[str(name)] = "latitude" if way in ("north", "south") else "longitude"
        if standard in _STANDARD_NAMES:
            roles[str(name)] = _STANDARD_NAMES[standard]
    return roles | _untold_times(array, roles)


def _untold_times(array: xr.DataArray, roles: Mapping[str, Role]) -> dict[str, Role]:
    """Find times that no attribute calls so: by their dtype or their unit.

    Of several along the same dimensions the one that a dimension is named after is taken, else none.
    """
    told = {array[name].dims for name, role in roles.items() if role == "time"}
    rest = {str(name): coordinate for name, coordinate in array.coords.items() if str(name) not in roles}
    found = {name: one.dims for name, one in rest.items() if one.dims and one.dims not in told and is_time(one)}
    along = list(found.values())
    return {name: "time" for name, dims in found.items() if dims == (name,) or along.count(dims) == 1}


def _named_groups(
    array: xr.DataArray, axes: Axes | None, known: Mapping[str, Role], free: Sequence[str]
) -> list[dict[str, Role]]:
    """Group the coordinates that the caller names: those that share dimensions together."""
    named = dict(axes) if isinstance(axes, Mapping) else {name: known.get(name, "other") for name in axes or ()}
    groups: list[dict[str, Role]] = []
    for name, role in named.items():
        present = sorted(str(coordinate) for coordinate in array.coords)
        require(name in array.coords, "axes", f"be among the coordinates {present}", repr(name))
        require(role in get_args(Role), "axes", f"have roles among {get_args(Role)}", repr(role))
        dims = set(array[name].dims)
        outside = sorted(map(str, dims - set(free)))
        require(bool(dims), "axes", "run along a dimension", f"the scalar {name!r}")
        require(not outside, "axes", "not run along samples or channels", f"{name!r} along {outside}")
        joined = [group for group in groups if any(dims & set(array[other].dims) for other in group)]
        groups = [group for group in groups if group not in joined]
        groups.append({key: value for group in joined for key, value in group.items()} | {name: role})
    return groups


def _recognised_groups(array: xr.DataArray, known: Mapping[str, Role], free: list[str]) -> list[dict[str, Role]]:
    """Group axes by CF conventions along ``free``: dimensions with their own coordinate, else points."""
    groups: list[dict[str, Role]] = []
    for dim in list(free):
        along_itself = known.get(dim) if dim in array.coords else None
        along = {name: role for name, role in known.items() if array[name].dims == (dim,)}
        where = {role for name, role in along.items() if name != dim}
        if along_itself is None or (along_itself in ("time", "vertical") and {"latitude", "longitude"} <= where):
            continue  # points, or the track of something that moves
        groups.append({dim: along_itself})
        free.remove(dim)
    while free:
        dim = free[0]
        reached, group = {dim}, {}
        for name, role in known.items():
            if role in _PLACES and array[name].dims and set(map(str, array[name].dims)) <= set(free):
                group[name] = role
        # Only those connected to this dimension.
        connected: dict[str, Role] = {}
        grown = True
        while grown:
            more = {n: r for n, r in group.items() if n not in connected and reached & set(map(str, array[n].dims))}
            connected |= more
            reached |= {str(met) for name in more for met in array[name].dims}
            grown = bool(more)
        if not connected:
            _refuse_dimension(array, dim)
        roles = list(connected.values())
        twice = sorted({role for role in roles if roles.count(role) > 1})
        rule = "be told apart: name the ones to use in axes"
        require(not twice, f"coordinates of {sorted(reached)}", rule, f"several for {twice}: {sorted(connected)}")
        groups.append(dict(sorted(connected.items(), key=lambda item: _PLACES.index(item[1]))))
        free[:] = [coordinate for coordinate in free if coordinate not in reached]
    return groups


def _announce_counted_axes(
    array: xr.DataArray, groups: Sequence[Mapping[str, Role]], known: Mapping[str, Role]
) -> None:
    """Warn of an axis that only counts levels or cells where a length, pressure, date or place lies along it, too."""
    for name, role in (item for group in groups if len(group) == 1 for item in group.items()):
        unit = str(array[name].attrs.get("units", ""))
        if array[name].dtype.kind not in "iuf" or unit.strip().lower() not in _COUNTS:
            continue
        formula = str(array[name].attrs.get("formula_terms", "")).split()
        beside = [
            str(other)
            for other, coordinate in array.coords.items()
            if other != name and str(other) not in formula and name in coordinate.dims and _measures(coordinate, role)
        ]
        if beside:
            named = {other: known.get(other, role) for other in (beside if role in ("x", "y") else beside[:1])}
            text = (
                f"axis {name!r} is taken as numbers of unit {unit!r}, although {', '.join(beside)} lies along it: name "
                f"what is meant, axes={named} or axes={ {name: role} }"
            )
            warnings.warn(text, UserWarning, stacklevel=2)


def _measures(coordinate: xr.DataArray, role: Role) -> bool:
    """Tell whether a coordinate has the unit of what a role measures."""
    if role == "time":
        return coordinate.dtype.kind in "MO"
    if coordinate.dtype.kind not in "iuf":
        return False
    unit = str(coordinate.attrs.get("units", ""))
    known = measure(unit)
    wanted = {"vertical": ("length", "pressure"), "x": ("length",), "y": ("length",)}.get(role, ())
    return (known is not None and known[0] in wanted) or (role in ("x", "y") and bool(compass(unit)))


def _refuse_dimension(array: xr.DataArray, dim: str) -> None:
    present = sorted(str(coordinate) for coordinate in array.coords if dim in array[coordinate].dims)
    got = f"coordinates {present} without a role" if present else "no coordinate"
    for key in ("mesh", "grid_mapping"):
        name = array.attrs.get(key)
        if name is not None and name not in array.coords:
            got += f" (its {key} {name!r} is not with the array: use the accessor of the Dataset)"
    reject(f"dimension {dim!r}", "be an axis by its CF attributes, or be named in axes, samples or channels", got)


def _placed(array: xr.DataArray, cells: CellsOf) -> xr.DataArray:
    """Add the positions of a mesh's cells as coordinates, where the array has none."""
    positions = cells.positions()
    known = cf_roles(array) if positions else {}
    for name, position in positions.items():
        role = "latitude" if "lat" in str(position.attrs.get("standard_name", name)) else "longitude"
        found = any(
            known[coordinate] == role and set(position.dims) <= set(array[coordinate].dims) for coordinate in known
        )
        array = array if found else array.assign_coords({name: position.variable})
    return array


def _given_weights(array: xr.DataArray, beside: xr.Dataset, options: Options) -> xr.DataArray | None:
    """Return the weights that ``options`` name, areas in square degrees."""
    given = options.weights
    if given is None or (isinstance(given, str) and given == SCATTERED):
        return None
    if isinstance(given, str):
        present = sorted(map(str, beside.variables))
        require(given in beside.variables, "weights", f"be {SCATTERED!r}, an array, or one of {present}", repr(given))
        given = beside[given]
    require(isinstance(given, xr.DataArray), "weights", "be an array of xarray or a name", type(given).__name__)
    given = given.transpose(*(dim for dim in array.dims if dim in given.dims), ...)
    for dim, size in given.sizes.items():
        rule = f"have the array's entries along {dim!r}"
        require(array.sizes.get(dim) == size, "weights", rule, size)
        both = dim in given.indexes and dim in array.indexes
        require(not both or given.indexes[dim].equals(array.indexes[dim]), "weights", rule, "other coordinates")
    values = given.to_numpy().astype(np.float64)
    bad = int((np.isinf(values) | (values < 0)).sum())
    require(bad == 0, "weights", "be finite and not negative", f"{bad} that are not")
    return given.copy(data=values)


def _factor(
    array: xr.DataArray,
    group: Mapping[str, Role],
    options: Options,
    cells: CellsOf,
    given: xr.DataArray | None,
    weighted: bool,
) -> Line | Cloud:
    kept = {"time_unit": options.time_unit, "area_weights": options.area_weights}
    names, roles = list(group), list(group.values())
    dims = tuple(str(dim) for dim in array.dims if any(dim in array[name].dims for name in names))
    weights = given if given is not None and set(map(str, given.dims)) == set(dims) else None
    if len(names) == 1 and len(dims) == 1:
        found = line(array[names[0]], roles[0], **kept)  # type: ignore[arg-type]
        return found if weights is None else replace(found, widths=found.packed(weights.to_numpy(), 0))
    rule = "give more than one coordinate, or one of one dimension"
    require(len(names) > 1, "axes", rule, f"{names[0]!r} on {dims}")
    areas, scattered, sphere = None, True, set(roles) == set(_SPHERE)
    if not weighted:
        areas = Areas(xr.DataArray(np.zeros([array.sizes[dim] for dim in dims]), dims=dims), "none", given=True)
    elif weights is not None:
        weights = weights.transpose(*dims)
        unitless = str(weights.attrs.get("units", "")) in ("", "1")
        areas = Areas(weights if unitless or not sphere else cells.square_degrees(weights), "as given", given=True)
    elif sphere:
        areas, scattered = _areas_of(array, group, dims, options, cells)
    coordinates = [array[name] for name in names]
    return cloud(coordinates, roles, dims, areas=areas, scattered=scattered, **kept)  # type: ignore[arg-type]


def _areas_of(
    array: xr.DataArray, group: Mapping[str, Role], dims: tuple[str, ...], options: Options, cells: CellsOf
) -> tuple[Areas | None, bool]:
    """Return the areas of cells at latitudes and longitudes, or None; and whether to weigh by density instead.

    Warns where that is taken for want of anything else: points may be stations, or cells that came without areas.
    """
    if isinstance(options.weights, str) and options.weights == SCATTERED:
        return None, True
    latitude, longitude = (array[next(n for n, found in group.items() if found == role)] for role in _SPHERE)
    areas = cells.areas(dims, latitude, longitude)
    if areas is not None or (len(dims) == 2 and min(array.sizes[dim] for dim in dims) > 1):
        return areas, False
    lacking = cells.lacking(latitude, longitude)
    at = f"cells along {', '.join(dims)}"
    rule = f"come with their areas: use the accessor of the Dataset, or weights= (an array, or {SCATTERED!r})"
    require(lacking is None, at, rule, f"no {lacking} with the array")
    text = (
        f"nothing says what the points along {', '.join(dims)} stand for: each weighs one over the density of points. "
        f"weights={SCATTERED!r} says that this is meant, weights=<array> gives the areas of cells"
    )
    warnings.warn(text, UserWarning, stacklevel=2)
    return None, True


def _require_same_units(factors: Sequence[Line | Cloud]) -> None:
    """Refuse a plane whose axes are measured in different units."""
    for pair in (("x", "y"), ("longitude", "latitude")):
        found = {
            unit
            for factor in factors
            for role, unit in zip(factor.roles, factor.units, strict=True)
            if role in pair and unit
        }
        require(
            all(same_unit(unit, next(iter(found))) for unit in found),
            f"units of {pair[0]} and {pair[1]}",
            "be the same",
            sorted(found),
        )


def _ordered(
    factors: Sequence[Line | Cloud], dims: Sequence[str], order: Sequence[str] | None
) -> tuple[Line | Cloud, ...]:
    """Sort factors into the order of a kernel's axes."""
    if order is None:
        # Neither the order in a file nor whether an axis happens to be uniform may decide which axis a kernel takes
        # for which.
        return tuple(
            sorted(
                factors,
                key=lambda factor: (
                    min(_ORDER[role] for role in factor.roles),
                    min(dims.index(dim) for dim in factor.dims),
                ),
            )
        )
    names = [name for factor in factors for name in factor.names]
    require(sorted(order) == sorted(names), "order", f"name the axes {names}, each once", list(order))
    arranged = sorted(factors, key=lambda factor: min(list(order).index(name) for name in factor.names))
    found = [name for factor in arranged for name in factor.names]
    require(found == list(order), "order", f"keep together what are coordinates of one set of points: {found}", order)
    return tuple(arranged)
