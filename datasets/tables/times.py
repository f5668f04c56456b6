"""Times of tables: numbers, or dates with or without a zone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ccnn_irregular._checks import reject, require

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SECONDS", "instants", "require_same_kind", "typical_unit"]

# Units of dates, in seconds.
SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
# A unit serves spans of up to so many seconds.
_SPANS = (("s", 300.0), ("min", 3 * 3600.0), ("h", 7 * 86400.0))
_ZONE = r"(?:[zZ]|[+-]\d\d:?(?:\d\d)?)$"
_RULE = "hold numbers, or dates after ISO 8601 (columns.time_format names another way to write them)"


def instants(column: pd.Series, name: str, time_format: str | None = None) -> tuple[NDArray[np.float64], str]:
    """Times as float64, and what they are: "numbers", "dates" or "dates with a zone" (then since 1970, in UTC).

    Dates are seconds since 1970; one of this century is exact to a quarter of a microsecond.

    Raises:
        ValueError: neither numbers nor dates; some dates with and others without a zone; naming the first ones.
    """
    import pandas as pd

    if pd.api.types.is_bool_dtype(column):
        reject(f"column {name!r}", _RULE, "true and false")
    if pd.api.types.is_numeric_dtype(column):
        return column.to_numpy(np.float64, na_value=np.nan), "numbers"
    if not isinstance(column.dtype, pd.DatetimeTZDtype) and not pd.api.types.is_datetime64_any_dtype(column):
        return _parsed(column, name, time_format)
    zoned = isinstance(column.dtype, pd.DatetimeTZDtype)
    return _seconds(column), "dates with a zone" if zoned else "dates"


def _parsed(column: pd.Series, name: str, time_format: str | None) -> tuple[NDArray[np.float64], str]:
    import pandas as pd

    known = column.dropna()
    texts = known.astype(str)
    zoned = texts.str.contains(_ZONE, regex=True) & texts.str.contains(":", regex=False)
    if zoned.any() and not zoned.all():
        got = f"{texts[zoned].iloc[0]!r} and {texts[~zoned].iloc[0]!r}"
        reject(f"column {name!r}", "hold dates that all have a zone, or none", got)
    options = {"format": time_format or "ISO8601", "utc": True}
    parsed = pd.to_datetime(texts, errors="coerce", **options)
    if (bad := parsed.isna()).any():
        reject(f"column {name!r}", _RULE, f"{texts[bad].iloc[0]!r}")
    seconds = np.full(len(column), np.nan)
    seconds[column.notna().to_numpy()] = _seconds(parsed)
    return seconds, "dates with a zone" if zoned.any() else "dates"


def _seconds(dates: pd.Series) -> NDArray[np.float64]:
    import pandas as pd

    plain = dates.dt.tz_convert(None) if isinstance(dates.dtype, pd.DatetimeTZDtype) else dates
    nanoseconds = plain.astype("datetime64[ns]").to_numpy()
    counts = nanoseconds.astype(np.int64)
    # Whole seconds and the rest apart: nanoseconds since 1970 have more digits than a float.
    seconds = counts // 10**9 + (counts % 10**9) * 1e-9
    return np.where(np.isnat(nanoseconds), np.nan, seconds)


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
