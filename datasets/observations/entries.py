"""Entries of tables of observations: numbers and times, and what stands for a missing one."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ccnn_irregular._checks import reject
from ccnn_irregular._optional import import_optional
from ccnn_irregular.datasets.observations.columns import StationColumns
from ccnn_irregular.datasets.reading.dates import format_of_numbers, parsed_dates
from ccnn_irregular.datasets.reading.numbers import parsed_numbers

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["numbers_of", "times_of"]

_MISSING = frozenset(("", "na", "n/a", "nan", "null", "none", "-", "--", ".", "?"))
_SHOWN = 3


def numbers_of(column: pd.Series, given: StationColumns) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """A column as numbers, and the rows of what is none."""
    pd = import_optional("pandas", "a table of stations", "files")
    if pd.api.types.is_bool_dtype(column) or pd.api.types.is_datetime64_any_dtype(column):
        return np.full(len(column), np.nan), np.arange(len(column))
    if pd.api.types.is_numeric_dtype(column):
        return column.to_numpy(np.float64, na_value=np.nan).copy(), np.array([], np.int64)
    found = parsed_numbers(column, given.decimal).to_numpy(np.float64, na_value=np.nan).copy()
    rows = np.flatnonzero(np.isnan(found))
    return found, rows[~_missing(column.iloc[rows], given).to_numpy()]


def times_of(column: pd.Series, given: StationColumns, unit: str | None, what: str) -> tuple[NDArray[Any], str]:
    """Times as ``datetime64[us]`` in UTC, or as float64 with their unit; NaT and nan where missing.

    Args:
        column: dates, texts or numbers.
        given: how they are written.
        unit: of numbers; one that counts since a date makes dates of them.
        what: name of the column for messages.

    Raises:
        ValueError: texts that are no dates, some with and some without zone, numbers without a unit.
    """
    pd = import_optional("pandas", "a table of stations", "files")
    if not pd.api.types.is_datetime64_any_dtype(column) and not _is_object_of_dates(column):
        numbers, bad = numbers_of(column, given)
        if not len(bad) and given.time_format is None:
            return _counted(what, numbers, unit)
        rule = (
            "hold dates as 2024-01-31 or 2024-01-31T18:00Z, or numbers (with --data.columns.time_unit); "
            "--data.columns.time_format '%d.%m.%Y %H:%M' reads others"
        )
        column = parsed_dates(column.mask(_missing(column, given)), what, rule, given.time_format)[0]
    if getattr(column.dtype, "tz", None) is not None:
        column = column.dt.tz_convert("UTC").dt.tz_localize(None)
    return column.to_numpy().astype("datetime64[us]"), "UTC"


def _missing(column: pd.Series, given: StationColumns) -> pd.Series:
    """Where an entry stands for a missing one."""
    return column.isna() | column.astype(str).str.strip().str.lower().isin([*_MISSING, *given.missing_texts])


def _is_object_of_dates(column: pd.Series) -> bool:
    if column.dtype != object:
        return False
    known = column.dropna()
    return len(known) > 0 and isinstance(known.iloc[0], datetime.date)


def _counted(what: str, numbers: NDArray[np.float64], unit: str | None) -> tuple[NDArray[Any], str]:
    """Times that are numbers: in their unit, or as dates where that names a date."""
    if unit is None:
        shown = ", ".join(f"{number:.12g}" for number in numbers[:_SHOWN])
        rule = "hold dates, or numbers whose unit is given: --data.columns.time_unit hours, or 'days since 1950-01-01'"
        if (written := format_of_numbers(numbers)) is not None:
            rule = (
                f"be read as dates by --data.columns.time_format '{written}', or have a unit (--data.columns.time_unit)"
            )
        reject(what, rule, f"the numbers {shown}, ...")
    if " since " not in unit:
        return numbers, unit
    import xarray as xr

    from ccnn_irregular.adapters.xarray_axes import coordinate_numbers

    days = coordinate_numbers(xr.DataArray(numbers, dims="row", name="time", attrs={"units": unit}), "time", "days")[0]
    micro = np.round(np.where(np.isfinite(days), days, 0) * 86400e6).astype("timedelta64[us]")
    dates = np.datetime64("1970-01-01", "us") + micro
    dates[~np.isfinite(days)] = np.datetime64("NaT")
    return dates, "UTC"
