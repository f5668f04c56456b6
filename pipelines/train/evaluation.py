"""What a test found: figures for the JSON, tables and notes for the console, files beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich import box, get_console
from rich.table import Table
from rich.text import Text

__all__ = ["Evaluation", "ResultTable", "mean_interval", "say", "weighted_rmse", "wilson_interval"]

_Z = 1.959964  # of a 95 % interval
_LEAST_WIDTH = 14  # characters of a column of words that are not wrapped in a narrow console


def say(text: object) -> None:
    """A line for the reader, as it is: neither coloured nor wrapped."""
    get_console().print(str(text), highlight=False, markup=False, soft_wrap=True)


def wilson_interval(correct: int, n: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927, JASA 22:209)."""
    share, z2 = correct / n, _Z**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z / (1 + z2 / n) * (share * (1 - share) / n + z2 / (4 * n * n)) ** 0.5
    # The share itself, and 0 and 1, are not left out by rounding.
    return max(min(centre - half, share), 0.0), min(max(centre + half, share), 1.0)


def mean_interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """95 % interval of the mean of scores in [0, 1] (normal, cut to [0, 1]); nan of less than two."""
    n, mean = len(values), float(values.mean()) if len(values) else float("nan")
    half = _Z * float(values.std(ddof=1)) / n**0.5 if n > 1 else float("nan")
    return max(mean - half, 0.0), min(mean + half, 1.0)


def weighted_rmse(
    values: NDArray[Any], targets: NDArray[Any], weights: NDArray[np.float64], axis: int | tuple[int, ...]
) -> NDArray[np.float64]:
    """Root mean squares of ``values - targets`` over known targets, float64; nan where none is known.

    Args:
        values: any shape.
        targets: the same, nan where not known.
        weights: what each target counts, of a shape that broadcasts to theirs.
        axis: along which the mean is taken, one or more.
    """
    known = np.isfinite(targets)
    squares = np.square(np.subtract(values, targets, dtype=np.float64), where=known, out=np.zeros(targets.shape))
    with np.errstate(invalid="ignore"):
        return np.asarray(np.sqrt((squares * weights).sum(axis) / (known * weights).sum(axis)))


@dataclass(frozen=True)
class ResultTable:
    """A table for the console.

    Attributes:
        title: above it.
        head: names of the columns.
        rows: one text for each column.
        words: columns from the left that hold words; all others hold numbers and stand at the right.
        caption: below it; None = nothing.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 1
    caption: str | None = None

    def print(self) -> None:
        """In the style of all tables."""
        style: dict[str, Any] = {"title_justify": "left", "box": box.SIMPLE_HEAD, "pad_edge": False}
        table = Table(title=self.title, caption=self.caption, padding=(0, 1, 0, 0), **style)
        least = [self._least_width(number) for number in range(len(self.head))]
        for number, label in enumerate(self.head):
            table.add_column(label, justify="left" if number < self.words else "right", min_width=least[number])
        for row in self.rows:
            table.add_row(*row)
        console = get_console()
        # A console that is too narrow wraps lines: no number is cut off.
        console.print(table, width=max(console.width, sum(least) + 2 * len(least)), crop=False)

    def _least_width(self, column: int) -> int:
        """Characters of a column: names go on in the next line where there is no room, numbers do not."""
        longest = max((_width(row[column]) for row in self.rows), default=0)
        longest = min(longest, _LEAST_WIDTH) if column < self.words else longest
        return max([longest, *map(len, self.head[column].split())])


def _width(cell: str) -> int:
    """Characters of the longest line of a cell, marks of style left out."""
    return max((len(line) for line in Text.from_markup(cell).plain.splitlines()), default=0)


@dataclass
class Evaluation:
    """What a test found.

    Attributes:
        figures: for the JSON, which also tells where the weights come from and what was read.
        tables: for the console.
        notes: lines below the tables.
        files: tables and pictures that were written.
    """

    figures: dict[str, Any]
    tables: list[ResultTable] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)

    def print(self) -> None:
        """Tables, notes and the names of the files."""
        for table in self.tables:
            table.print()
        for line in (*self.notes, *self.files):
            say(line)
