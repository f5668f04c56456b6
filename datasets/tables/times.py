"""Times of tables: numbers, or dates with or without a zone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ccnn_irregular._checks import reject, require
from ccnn_irregular.datasets.reading.dates import format_of_numbers, parsed_dates

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SECONDS", "instants", "require_same_kind", "typical_unit", "written"]

# Units of dates, in seconds.
SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
# A unit serves spans of up to so many seconds.
_SPANS = (("s", 300.0), ("min", 3 * 3600.0), ("h", 7 * 86400.0))
_RULE = "hold numbers, or dates after ISO 8601 (columns.time_format names another way to write them)"


def instants(column: pd.Series, name: str, time_format: str | None = None) -> tuple[NDArray[np.float64], str]:
    """Times as float64, and what they are: "numbers", "dates" or "dates with a zone" (then since 1970, in UTC).

    Dates are seconds since 1970; one of this century is exact to a quarter of a microsecond.

    Raises:
        ValueError: neither numbers nor dates; some dates with and others without a zone; dates that are written as
            numbers; naming the first ones.
    """
    import pandas as pd

    what = f"column {name!r}"
    if pd.api.types.is_bool_dtype(column):
        reject(what, _RULE, "true and false")
    if pd.api.types.is_numeric_dtype(column) and time_format is None:
        numbers = column.to_numpy(np.float64, na_value=np.nan)
        if (found := format_of_numbers(numbers)) is not None:
            rule = f"be read as dates by --data.columns.time_format '{found}', or be other numbers where they are none"
            reject(what, rule, f"{numbers[~np.isnan(numbers)][0]:.0f}")
        return numbers, "numbers"
    if isinstance(column.dtype, pd.DatetimeTZDtype) or pd.api.types.is_datetime64_any_dtype(column):
        return _seconds(column), "dates with a zone" if isinstance(column.dtype, pd.DatetimeTZDtype) else "dates"
    dates, zoned = parsed_dates(column, what, _RULE, time_format)
    return _seconds(dates), "dates with a zone" if zoned else "dates"


def _seconds(dates: pd.Series) -> NDArray[np.float64]:
    import pandas as pd

    plain = dates.dt.tz_convert(None) if isinstance(dates.dtype, pd.DatetimeTZDtype) else dates
    nanoseconds = plain.astype("datetime64[ns]").to_numpy()
    counts = nanoseconds.astype(np.int64)
    # Whole seconds and the rest apart: nanoseconds since 1970 have more digits than a float.
    seconds = counts // 10**9 + (counts % 10**9) * 1e-9
    return np.where(np.isnat(nanoseconds), np.nan, seconds)


def written(time: float, kind: str) -> str:
    """A time as ``instants`` gives it for the reader: a date after ISO 8601, with its zone, or the number."""
    import pandas as pd

    if kind == "numbers":
        return f"{time:.15g}"
    date = pd.Timestamp(time, unit="s").round("us").isoformat()
    return f"{date}Z" if kind == "dates with a zone" else date


def typical_unit(spans: NDArray[np.float64]) -> str:
    """The unit that suits series of these lengths in seconds."""
    typical = float(np.median(spans)) if len(spans) else 0.0
    return next((unit for unit, most in _SPANS if typical <= most), "d")


def require_same_kind(kinds: dict[str, str]) -> str:
    """What the times of all tables are; refuse tables that differ."""
    found = set(kinds.values())
    rule = "all be numbers, or dates with, or dates without a zone"
    require(len(found) <= 1, "times", rule, ", ".join(f"{kind} in {name}" for name, kind in kinds.items()))
    return found.pop() if found else "numbers"
