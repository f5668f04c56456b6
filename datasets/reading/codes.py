"""Numbers that archives write where a value is missing: refused until somebody says what they mean."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ccnn_irregular._checks import reject
from ccnn_irregular.datasets.reading.numbers import number_in

__all__ = ["CODES", "is_code", "maybe_codes", "require_declared"]

# float32 makes others of them, by a few roundings.
CODES = (-9999.0, -999.0, -99.0, -999.9, -9999.9, -99.9, 9999.0, 99999.0, 999.9, 9999.9, -32768.0, 9.96921e36, 1e20)
_ROUNDING = 1e-6
_APART = 0.1  # share of such a number by which it must lie beyond all others: -99 beside -100 is a value
_SMALLEST = 98.0  # no code lies closer to 0


def is_code(code: float, numbers: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Where numbers are a code, but for rounding."""
    return np.asarray(np.abs(numbers - code) <= _ROUNDING * abs(code))


def maybe_codes(numbers: NDArray[np.floating]) -> NDArray[np.int64]:
    """Rows of any of the codes."""
    rows = np.flatnonzero(np.abs(numbers) > _SMALLEST)
    found = np.logical_or.reduce([is_code(code, numbers[rows]) for code in CODES])
    return rows[found].astype(np.int64)


def require_declared(what: str, numbers: NDArray[np.floating], declared: Sequence[str | float] | None) -> None:
    """Refuse a code that lies beyond all other numbers, with the option that says what it means.

    Args:
        what: a column or a variable, for the message.
        numbers: its values, nan where missing.
        declared: what was declared to be missing: () = nothing is, texts alone or None = nobody spoke of numbers.

    Raises:
        ValueError: such a code.
    """
    if declared is not None and (not declared or any(map(_is_code, declared))):
        return
    places = {code: is_code(code, numbers) for code in CODES}
    others = numbers[np.isfinite(numbers) & ~np.logical_or.reduce([*places.values()])]
    if not len(others):
        return
    low, high = float(others.min()), float(others.max())
    beyond = {code: max(low - code, code - high) > _APART * abs(code) for code in CODES}
    met = {code: int(at.sum()) for code, at in places.items() if at.any() and beyond[code]}
    if not met:
        return
    words = " ".join(f"{code:.7g}" for code in met)
    typed = " ".join([*(f"'{entry}'" for entry in declared or ()), words])
    # Beside texts, a number that no row holds says that all are values.
    values = "1e30 in place of them" if declared else "--data.columns.missing '[]'"
    rule = f"tell whether {words} mean missing: --data.columns.missing {typed}, or {values} where they are values"
    shown = ", ".join(f"{code:.7g} {count} times" for code, count in met.items())
    reject(what, rule, f"{shown}, all others from {low:.7g} to {high:.7g}")


def _is_code(entry: str | float) -> bool:
    number = number_in(entry)
    return number is not None and not np.isnan(number)
