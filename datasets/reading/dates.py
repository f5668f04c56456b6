"""Dates that tables hold as texts or as numbers, with or without a zone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ccnn_irregular._checks import reject

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["format_of_numbers", "parsed_dates"]

# At the end of a date with a time of day.
_ZONE = r"(?:[Zz]|[T ]\d{2}(?::?\d{2}){0,2}(?:[.,]\d+)?\s*[+-]\d{2}(?::?\d{2})?)$"
# Dates as numbers by their count of digits: 20240131, 2024013118, ...
_DIGITS = {8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
_FIRST, _LAST = 1800, 2200  # years


def parsed_dates(column: pd.Series, what: str, rule: str, time_format: str | None = None) -> tuple[pd.Series, bool]:
    """Texts as dates of UTC, NaT where missing, and whether they have a zone; without one they are taken as UTC.

    Args:
        column: texts, missing ones as nan, or numbers that ``time_format`` reads.
        what: name of the column for messages.
        rule: what it must hold, for messages.
        time_format: as ``datetime.strptime`` writes it; None = ISO 8601.

    Raises:
        ValueError: some with and some without zone; what is no date, with the first one and its row.
    """
    import pandas as pd

    column = column.reset_index(drop=True)
    known = column.dropna()
    if pd.api.types.is_float_dtype(known) and bool((known % 1 == 0).all()):
        known = known.astype(np.int64)  # beside missing ones whole numbers have a point
    texts = known.astype(str).str.strip().str.replace(r"\s*(?:UTC|GMT)$", "Z", regex=True)
    zoned = texts.str.contains(_ZONE, regex=True)
    if zoned.any() and not zoned.all():
        got = f"{texts[zoned].iloc[0]!r} and {texts[~zoned].iloc[0]!r}"
        reject(what, "hold dates that all have a zone, or none", got)
    found = pd.to_datetime(texts, format=time_format or "ISO8601", utc=True, errors="coerce").reindex(column.index)
    bad = np.flatnonzero((found.isna() & column.notna()).to_numpy())
    if len(bad):
        reject(what, rule, f"{column.iloc[int(bad[0])]!r} in row {int(bad[0]) + 1}")
    return found, bool(zoned.any())


def format_of_numbers(numbers: NDArray[np.floating]) -> str | None:
    """How dates are written as numbers, 20240131 for instance; None where a number is no such date."""
    known = numbers[~np.isnan(numbers)]
    if not len(known) or (known < 0).any() or (known % 1 != 0).any() or (known >= 10.0**15).any():
        return None
    whole = known.astype(np.int64)
    digits = len(str(whole[0]))
    if digits not in _DIGITS:
        return None
    day = whole // 10 ** (digits - 8)
    year, month, date = day // 10_000, day // 100 % 100, day % 100
    of_calendar = (year >= _FIRST) & (year <= _LAST) & (month >= 1) & (month <= 12) & (date >= 1) & (date <= 31)
    return _DIGITS[digits] if of_calendar.all() else None
