"""What does not change in a series: numbers and categories, as a matrix."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ccnn_irregular._checks import reject, require

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["statics_matrix", "statics_schema"]

_MOST_CATEGORIES = 100


def statics_schema(
    statics: pd.DataFrame, names: Sequence[str] | None, categories: Sequence[str]
) -> dict[str, list[str]]:
    """Each column's categories; [] of a column of numbers.

    Args:
        statics: rows to learn from, one a series.
        names: columns to take; None = all.
        categories: columns of numbers that are names of something.

    Raises:
        ValueError: a column that is not there, that holds dates, or too many categories.
    """
    import pandas as pd

    present = list(statics.columns)
    for option, asked in (("data.static_columns", names or ()), ("data.categories", categories)):
        missing = [name for name in asked if name not in present]
        require(not missing, option, f"name columns of the statics: {', '.join(present)}", ", ".join(missing))
    schema: dict[str, list[str]] = {}
    for name in present if names is None else names:
        column = statics[name]
        if pd.api.types.is_datetime64_any_dtype(column):
            rule = "hold numbers or categories (data.static_columns names the columns to take)"
            reject(f"statics column {name!r}", rule, "dates")
        schema[name] = []
        if name in categories or not pd.api.types.is_numeric_dtype(column):
            found = sorted(_texts(column).dropna().unique())
            rule = f"have at most {_MOST_CATEGORIES} categories (data.static_columns names the columns to take)"
            require(0 < len(found) <= _MOST_CATEGORIES, f"statics column {name!r}", rule, len(found))
            schema[name] = [str(one) for one in found]
    return schema


def _texts(column: pd.Series) -> pd.Series:
    """Categories as texts; whole numbers without a point."""
    import pandas as pd

    if pd.api.types.is_float_dtype(column) and bool((column.dropna() % 1 == 0).all()):
        column = column.astype("Int64")
    return column.astype(object).map(str, na_action="ignore")


def statics_matrix(
    statics: pd.DataFrame | None, ids: NDArray, schema: Mapping[str, Sequence[str]]
) -> NDArray[np.float32]:
    """``(B, S)``, the columns of the schema for the series ``ids``: numbers, or 1, 2, ... for its categories.

    What is missing, columns and rows too, is nan. A category that the schema lacks is missing, with a warning.

    Raises:
        ValueError: a word in a column of numbers.
    """
    import pandas as pd

    matrix = np.full((len(ids), len(schema)), np.nan, np.float32)
    if statics is None:
        return matrix
    rows = statics.index.get_indexer(pd.Index(ids))
    if ignored := [name for name in statics.columns if name not in schema]:
        _warn(f"columns of the statics that training did not have are left out: {', '.join(ignored)}")
    if lacking := [name for name in schema if name not in statics.columns]:
        _warn(f"columns of the statics that training had are missing: {', '.join(lacking)}")
    for place, (name, categories) in enumerate(schema.items()):
        if name in statics.columns:
            known = _codes(statics[name], categories) if categories else _floats(statics[name])
            matrix[rows >= 0, place] = known[rows[rows >= 0]]
    return matrix


def _codes(column: pd.Series, categories: Sequence[str]) -> NDArray[np.float64]:
    place = {name: float(number) for number, name in enumerate(categories, start=1)}
    texts = _texts(column)
    found = texts.map(place).to_numpy(np.float64, na_value=np.nan)
    if unknown := sorted(set(texts[np.isnan(found)].dropna())):
        _warn(f"categories of {column.name!r} that training did not have count as missing: {', '.join(unknown[:8])}")
    return found


def _floats(column: pd.Series) -> NDArray[np.float64]:
    import pandas as pd

    numbers = pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    bad = np.isnan(numbers) & column.notna().to_numpy()
    if bad.any():
        reject(f"statics column {column.name!r}", "hold numbers, as in training", repr(column[bad].iloc[0]))
    return numbers


def _warn(text: str) -> None:
    warnings.warn(text, UserWarning, stacklevel=3)
