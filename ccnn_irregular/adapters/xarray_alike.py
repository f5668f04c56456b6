"""Express the axes of another array in an array's units: converted exactly, or refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ccnn_irregular._checks import reject, require
from ccnn_irregular.adapters.xarray_axes import Line, Role, TimeUnit
from ccnn_irregular.adapters.xarray_clouds import Cloud
from ccnn_irregular.adapters.xarray_frames import Frame
from ccnn_irregular.adapters.xarray_times import epoch_shift, kind_of_times
from ccnn_irregular.adapters.xarray_units import compass, measure, same_unit

__all__ = ["in_measure_of"]

Floats = NDArray[np.float64]

# Standard names of heights that say which way they count, where "positive" does not.
_UPWARDS = ("height", "altitude", "geopotential_height", "height_above_", "atmosphere_hybrid_height_coordinate")
_DOWNWARDS = ("depth",)
# What a grid mapping says beside its numbers: the extent of one raster, or the same once more in words.
_NOT_COMPARED = ("GeoTransform", "crs_wkt", "spatial_ref", "long_name", "grid_mapping_name")
_DAYS: dict[TimeUnit, Fraction] = {
    "seconds": Fraction(86400),
    "minutes": Fraction(1440),
    "hours": Fraction(24),
    "days": Fraction(1),
}


def in_measure_of(frame: Frame, array: xr.DataArray, query: Frame, like: xr.DataArray, time_unit: TimeUnit) -> Frame:
    """Express ``query``, the axes of ``like``, in the units and references of ``frame``, the axes of ``array``.

    Lengths, pressures and times of other units are multiplied by the exact factor; dates of calendars that are about
    the same days (standard, proleptic_gregorian, julian) are moved onto each other.

    Raises:
        ValueError: a unit, a calendar, a vertical coordinate, a pole or a projection that is not the array's; names it.
    """
    _require_same_projection(array, like)
    factors = []
    for factor in query.factors:
        numbers = factor.coordinates
        units = []
        for axis, (name, role, unit) in enumerate(zip(factor.names, factor.roles, factor.units, strict=True)):
            place = query.axes.index(name)
            ours, theirs = _coordinate(array, frame.axes[place]), _coordinate(like, name)
            scale, shift = _conversion(ours, theirs, role, frame.units[place], unit, time_unit)
            if scale != 1 or shift != 0:
                changed = numbers[:, axis] * scale.numerator / scale.denominator + float(shift)
                numbers = np.column_stack([numbers[:, :axis], changed, numbers[:, axis + 1 :]])
            units.append(frame.units[place])
        factors.append(_replaced(factor, numbers, tuple(units)))
    return replace(query, factors=tuple(factors))


def _coordinate(array: xr.DataArray, name: str) -> xr.DataArray:
    """Return a coordinate; positions that were worked out from a mesh are true degrees, without attributes."""
    return array[name] if name in array.coords else xr.DataArray(np.nan, name=name)


def _replaced(factor: Line | Cloud, numbers: Floats, units: tuple[str, ...]) -> Line | Cloud:
    """Replace the numbers of places; their widths do not matter where only an answer is wanted."""
    if isinstance(factor, Cloud):
        return replace(factor, coordinates=numbers, units=units)
    nodes = numbers[:, 0]
    if factor.step is None or len(nodes) == 1:
        return replace(factor, nodes=nodes, unit=units[0])
    return replace(factor, nodes=nodes, unit=units[0], step=float(nodes[-1] - nodes[0]) / (len(nodes) - 1))


def _conversion(
    ours: xr.DataArray, theirs: xr.DataArray, role: Role, unit: str, given: str, time_unit: TimeUnit
) -> tuple[Fraction, Fraction]:
    """Return factor and shift that turn numbers of ``theirs`` into those of ``ours``."""
    if role == "time" or "dates" in (kind_of_times(ours).what, kind_of_times(theirs).what):
        found = _time_shift(ours, theirs)
        if found is not None:
            return Fraction(1), found * _DAYS[time_unit]
    else:
        _require_same_coordinate(ours, theirs, role)
    if same_unit(unit, given):
        return Fraction(1), Fraction(0)
    known, wanted = measure(given), measure(unit)
    if known is None or wanted is None or known[0] != wanted[0]:
        reject(
            f"like ({str(theirs.name)!r})", f"be in the unit of the array's {str(ours.name)!r}, {unit!r}", repr(given)
        )
    return known[1] / wanted[1], Fraction(0)


def _time_shift(ours: xr.DataArray, theirs: xr.DataArray) -> int | None:
    """Return the days to add to dates; None where neither array has dates."""
    kind, given = kind_of_times(ours), kind_of_times(theirs)
    where = f"times of like ({str(theirs.name)!r})"
    require(kind.what == given.what, where, f"be like the array's {str(ours.name)!r}, {kind}", given)
    if kind.what != "dates":
        return None
    shift = epoch_shift(given, kind)
    if shift is None:
        call = f"like.convert_calendar({kind.calendar!r}, {str(theirs.dims[0])!r}, align_on='date', use_cftime=True)"
        rule = f"be dates of the array's calendar {kind.calendar!r}: choose how, by {call} or with align_on='year'"
        reject(where, rule, given)
    return shift


def _require_same_coordinate(ours: xr.DataArray, theirs: xr.DataArray, role: Role) -> None:
    """Refuse a height for a depth or a rotated latitude for a true one; unstated attributes do not differ."""
    where, name = f"like ({str(theirs.name)!r})", str(ours.name)
    if role in ("latitude", "longitude"):
        rotated, given = _rotated(ours), _rotated(theirs)
        known = rotated is not None and given is not None
        words = {True: "of a rotated pole", False: "true"}
        require(not known or rotated == given, where, f"be {words[bool(rotated)]} as {name!r} is", words[bool(given)])
        return
    if role == "vertical":
        direction, given_direction = _direction(ours), _direction(theirs)
        said = direction is not None and given_direction is not None
        require(not said or direction == given_direction, where, f"count {direction} as {name!r} does", given_direction)
    standard, given_name = ours.attrs.get("standard_name"), theirs.attrs.get("standard_name")
    said = standard is not None and given_name is not None
    require(not said or standard == given_name, where, f"be the {standard} that {name!r} is", given_name)


def _rotated(coordinate: xr.DataArray) -> bool | None:
    """Tell whether a latitude or longitude is that of a rotated pole; None = not stated."""
    standard = coordinate.attrs.get("standard_name")
    if standard is not None:
        return str(standard).startswith("grid_")
    return False if compass(str(coordinate.attrs.get("units", ""))) else None


def _direction(coordinate: xr.DataArray) -> str | None:
    """Tell which way a vertical coordinate counts; None = not stated."""
    given = str(coordinate.attrs.get("positive", "")).lower()
    if given in ("up", "down"):
        return given
    standard = str(coordinate.attrs.get("standard_name", ""))
    if standard.startswith(_UPWARDS):
        return "up"
    return "down" if standard.startswith(_DOWNWARDS) else None


def _require_same_projection(array: xr.DataArray, like: xr.DataArray) -> None:
    """Refuse places on another projection or about another pole, where both arrays have their grid mapping."""
    ours, theirs = _grid_mapping(array), _grid_mapping(like)
    if not ours or not theirs:
        return
    names = [mapping.get("grid_mapping_name", "one without a name") for mapping in (ours, theirs)]
    require(names[0] == names[1], "grid mapping of like", f"be the array's, {names[0]}", names[1])
    for key in sorted(set(ours) & set(theirs) - set(_NOT_COMPARED)):
        require(
            _equal(ours[key], theirs[key]), f"grid mapping of like ({key})", f"be the array's, {ours[key]}", theirs[key]
        )


def _grid_mapping(array: xr.DataArray) -> Mapping[Any, Any]:
    name = array.attrs.get("grid_mapping", array.encoding.get("grid_mapping", "spatial_ref"))
    return dict(array.coords[name].attrs) if name in array.coords else {}


def _equal(first: Any, second: Any) -> bool:
    try:
        return bool(np.allclose(np.asarray(first, np.float64), np.asarray(second, np.float64), rtol=1e-9, atol=1e-9))
    except (TypeError, ValueError):
        return bool(np.all(np.asarray(first) == np.asarray(second)))
