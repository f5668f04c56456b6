"""What labels are: one of two, one of several, or a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ccnn_irregular._checks import reject, require

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["KINDS", "Targets", "targets_of"]

KINDS = ("binary", "classes", "number")
# Whole numbers with more values than this are numbers, words with more than the second are no classes.
_MOST_WHOLE, _MOST_CLASSES = 20, 1000
_OVERRIDE = "data.labels_are binary, classes or number says what they are"


@dataclass(frozen=True)
class Targets:
    """Labels as numbers.

    Attributes:
        kind: "binary", "classes" or "number".
        classes: what they mean, in order; of two the last one is the outcome whose probability is told. () of numbers.
        values: ``(n,)`` float64: index into ``classes``, or the number; nan = missing.
    """

    kind: str
    classes: tuple[str, ...]
    values: NDArray[np.float64]


def targets_of(labels: pd.Series, kind: str | None = None, classes: Sequence[str] | None = None) -> Targets:
    """Labels as numbers.

    Args:
        labels: a column of numbers, words or truth values.
        kind: what they are; None = binary for two values, classes for words and for few whole numbers, else a number.
        classes: names of the classes in their order; None = those that occur, sorted.

    Raises:
        ValueError: words that shall be numbers, too many or too few classes, a class that ``classes`` lacks.
    """
    import pandas as pd

    require(kind in (None, *KINDS), "labels_are", f"be one of {', '.join(KINDS)}", repr(kind))
    kind = kind or _kind(labels, classes)
    if kind == "number":
        numbers = pd.to_numeric(labels, errors="coerce").to_numpy(np.float64, na_value=np.nan)
        bad = np.isnan(numbers) & labels.notna().to_numpy()
        if bad.any():
            reject("labels", f"be numbers ({_OVERRIDE})", repr(labels[bad].iloc[0]))
        require(not np.isinf(numbers).any(), "labels", "be finite", "an infinite one")
        return Targets(kind, (), numbers)
    codes, unique = pd.factorize(labels)
    texts = [_text(value) for value in unique]
    names = tuple(classes or sorted(set(texts), key=_order(texts)))
    unknown = sorted(set(texts) - set(names))
    require(not unknown, "labels", f"be among the classes {', '.join(names)}", ", ".join(unknown[:5]))
    enough = len(names) == 2 if kind == "binary" else 2 <= len(names) <= _MOST_CLASSES
    rule = "have two values" if kind == "binary" else f"have 2 to {_MOST_CLASSES} values"
    require(enough, "labels", f"{rule} ({_OVERRIDE})", f"{len(names)}: {', '.join(names[:5])}")
    place = np.array([names.index(text) for text in texts] + [np.nan])
    return Targets(kind, names, place[codes])


def _kind(labels: pd.Series, classes: Sequence[str] | None) -> str:
    import pandas as pd

    if classes is not None:
        return "binary" if len(classes) == 2 else "classes"
    known = labels.dropna()
    distinct = known.nunique()
    numeric = pd.api.types.is_numeric_dtype(known) and not pd.api.types.is_bool_dtype(known)
    whole = not numeric or bool((known % 1 == 0).all())
    if numeric and (not whole or distinct > _MOST_WHOLE):
        return "number"
    return "binary" if distinct == 2 else "classes"


def _text(value: Any) -> str:
    """A label as text; whole numbers without a point, which pandas gives them beside missing ones."""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def _order(texts: Sequence[str]) -> Any:
    """Numbers by size, words by the alphabet."""
    try:
        [float(text) for text in texts]
    except ValueError:
        return str
    return float
