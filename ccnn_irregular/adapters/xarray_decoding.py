"""Dates of Datasets as xarray decodes them, and those that it cannot decode."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import xarray as xr

from ccnn_irregular._checks import require
from ccnn_irregular.adapters.xarray_times import (
    MISSING,
    REAL_CALENDARS,
    SINCE,
    Months,
    calendar_of,
    elapsed,
    parsed_unit,
    rescaled,
    time_numbers,
    with_zone,
)
from ccnn_irregular.adapters.xarray_units import measure

__all__ = ["decode_times", "same_resolution"]

# Days from 1970 that datetime64[ns] holds, less a few.
_NANOSECOND_DAYS = 106_700
# What xarray and cftime read before "since"; "us", "weeks" and others that UDUNITS knows they do not.
_DECODED = re.compile(
    r"(nanosecond|microsecond|microsec|millisecond|millisec|msec|second|sec|minute|min|hour|hr|day)s?|s|h|d",
    re.IGNORECASE,
)
# What xarray calls other units that have these lengths in seconds.
_DECODED_NAMES = {
    Fraction(86400): "days",
    Fraction(3600): "hours",
    Fraction(60): "minutes",
    **{Fraction(1, 1000**place): f"{prefix}seconds" for place, prefix in enumerate(("", "milli", "micro", "nano"))},
}
_PACKING = ("dtype", "_FillValue", "missing_value", "scale_factor", "add_offset")


def decode_times(dataset: xr.Dataset, months: Months | None = None) -> xr.Dataset:
    """Decode dates of a Dataset opened with ``decode_times=False`` as xarray does, and those it cannot decode.

    Dates are datetime64 in nanoseconds, or in microseconds where one is beyond 2262 or before 1678; dates of model
    calendars, and of the standard one before 1582, are objects of cftime.

    CF allows "months since" and "years since", and UDUNITS means 1/12 and 1 of 365.242198781 days by them, while most
    who write them mean the calendar's. Where that is exact they are read so: whole numbers, the reference date's day
    and time in each month reached. In calendars whose months (360_day) or years (noleap, all_leap) are all of one
    length, fractions are exact too.

    Args:
        dataset: with times as numbers.
        months: what else fractions of months and years are: "calendar" = shares of the month or year they fall in,
            "mean" = UDUNITS' mean months and years, whole numbers too. None = refused.

    Raises:
        ValueError: fractions without ``months``, a day that a month does not have, a reference date or calendar that
            is none.
    """
    require(months is None or months in get_args(Months), "months", f"be one of {get_args(Months)}", repr(months))
    times = _decodable_times(dataset, months)
    changed = {name: time.variable for name, time in times.items() if time.attrs != dataset.variables[name].attrs}
    beyond = any(_beyond_nanoseconds(time) for time in times.values())
    decoded = _decoded(dataset.assign(changed), list(times), "us" if beyond else "ns")
    for name, time in times.items():
        known = _known(time).variable
        if time.chunks is not None or not bool(known.all()):
            # xarray makes the reference date of what is missing wherever cftime decodes it.
            found = decoded.variables[name]
            kept = found.where(known)
            kept.attrs, kept.encoding = found.attrs, found.encoding
            decoded = decoded.assign({name: kept})
    return decoded


def same_resolution(parts: Mapping[Path, xr.Dataset]) -> dict[Path, xr.Dataset]:
    """Bring dates of the parts of a cube to one resolution, where some reach beyond 2262 and others do not.

    Nanoseconds for all, which joining them would take, cannot hold the later ones.
    """
    dates = {
        path: [name for name, variable in part.variables.items() if variable.dtype.kind == "M"]
        for path, part in parts.items()
    }
    resolutions = {part[name].dtype for path, part in parts.items() for name in dates[path]}
    if len(resolutions) <= 1:
        return dict(parts)
    return {
        path: part.assign({name: part.variables[name].astype("datetime64[us]") for name in dates[path]})
        for path, part in parts.items()
    }


def _decodable_times(dataset: xr.Dataset, months: Months | None) -> dict[Any, xr.DataArray]:
    """Convert numbers since dates, and their bounds, to units that xarray decodes."""
    found: dict[Any, xr.DataArray] = {}
    for name, variable in dataset.variables.items():
        if variable.dtype.kind not in "iuf" or not SINCE.match(str(variable.attrs.get("units", ""))):
            continue
        found[name] = _decodable(xr.DataArray(variable, name=name), months)
        # Bounds are in the unit of what they bound, without saying so.
        bounds = variable.attrs.get("bounds")
        if bounds in dataset.variables and "units" not in dataset.variables[bounds].attrs:
            named = xr.DataArray(dataset.variables[bounds], name=bounds)
            units = {key: variable.attrs[key] for key in ("units", "calendar") if key in variable.attrs}
            found[bounds] = _decodable(named.assign_attrs(units), months)
    return found


def _beyond_nanoseconds(coordinate: xr.DataArray) -> bool:
    """Tell whether a date of a real calendar may lie outside datetime64[ns].

    xarray decides it by the first and the last number, and makes NaT of such dates where another one is missing.
    """
    if calendar_of(coordinate) not in REAL_CALENDARS or coordinate.size == 0:
        return False
    known = coordinate.where(_known(coordinate)).astype(np.float64)
    ends = xr.DataArray([float(known.min()), float(known.max())], dims="end", attrs=coordinate.attrs)
    try:
        found = time_numbers(ends, "days")
    except ValueError:
        return False  # a reference that cftime does not read; xarray may
    assert found is not None
    return bool(np.nanmax(np.abs(found[0]), initial=0.0) > _NANOSECOND_DAYS)


def _known(numbers: xr.DataArray) -> xr.DataArray:
    """Tell where numbers are known; xarray reads fill values of integer times as the least integer."""
    return numbers != MISSING if numbers.dtype.kind == "i" else numbers.notnull()


def _decoded(dataset: xr.Dataset, times: Sequence[Any], resolution: Literal["ns", "us"]) -> xr.Dataset:
    """Decode numbers by xarray, without its warning about dates that stay objects: they are exact too.

    Times that are no dask arrays are read: what xarray leaves for later it would also warn of later.
    """
    coder = xr.coders.CFDatetimeCoder(time_unit=resolution)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Unable to decode time axis", xr.SerializationWarning)
        try:
            found = xr.decode_cf(
                dataset, mask_and_scale=False, concat_characters=False, decode_coords=False, decode_times=coder
            )
            for name in times:
                if found.variables[name].chunks is None:
                    found.variables[name].load()
            return found
        except (ValueError, OverflowError) as error:
            raise ValueError(f"times must be '<unit> since <date>' of a calendar that has the date: {error}") from error


def _decodable(coordinate: xr.DataArray, months: Months | None) -> xr.DataArray:
    """Convert numbers since a date to a unit that xarray decodes; unchanged where they have such a unit."""
    text = str(coordinate.attrs["units"])
    split = SINCE.match(text)
    assert split is not None
    calendar_of(coordinate)
    reference = with_zone(coordinate, split[2])
    if _DECODED.fullmatch(split[1]) and " since " in text.lower() and reference == split[2]:
        return coordinate
    unit = parsed_unit(coordinate)[0]
    known = measure(unit)
    if known is not None and known[1] in _DECODED_NAMES:
        return coordinate.assign_attrs(units=f"{_DECODED_NAMES[known[1]]} since {reference}")
    numbers, length = elapsed(coordinate, months)
    found = coordinate.copy(data=rescaled(numbers, length / 86400)).assign_attrs(units=f"days since {reference}")
    found.encoding = {key: value for key, value in coordinate.encoding.items() if key not in _PACKING}
    return found
