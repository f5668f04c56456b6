"""Numbers that tables hold as texts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ccnn_irregular._checks import require

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["number_in", "parsed_numbers", "require_decimal", "way_out"]


def number_in(entry: str | float) -> float | None:
    """The number that a word is; None where it is none."""
    try:
        return float(entry)
    except ValueError:
        return None


def parsed_numbers(column: pd.Series, decimal: str) -> pd.Series:
    """Numbers, nan where an entry is none; with decimal commas a point is none: nobody knows what it would mean."""
    import pandas as pd

    if decimal == "," and not pd.api.types.is_numeric_dtype(column):
        swapped = column.astype(object).str.translate(str.maketrans(",.", ".,"))  # nan where an entry is no text
        column = swapped.where(swapped.notna(), column)
    return pd.to_numeric(column, errors="coerce")


def require_decimal(sign: str) -> None:
    """Refuse a sign of fractions that is neither point nor comma."""
    require(sign in (".", ","), "data.columns.decimal", "be . or ,", repr(sign))


def way_out(word: Any, decimal: str) -> str:
    """What to type where a word stands among numbers whose fractions are written with a sign."""
    if decimal == "." and re.fullmatch(r"[+-]?\d+,\d+", str(word).strip()):
        return "data.columns.decimal , reads decimal commas"
    if decimal == "," and re.fullmatch(r"[+-]?[\d.]*\.\d+(,\d+)?", str(word).strip()):
        return "with data.columns.decimal , they hold no points, of thousands neither"
    return f"data.columns.missing '[\"{word}\"]' counts it as not known"
