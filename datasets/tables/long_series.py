"""Irregular series of many variables, each at times of its own: one row for each value, nothing for what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccnn_irregular._checks import reject, require
from ccnn_irregular.datasets.tables.times import written

__all__ = ["Events", "LongSeries", "Repeats", "merge_repeats"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Repeats = str
REPEATS = ("refuse", "mean", "first", "last")
_SHOWN = 3


@dataclass(frozen=True)
class Events:
    """Values as tables list them, in any order.

    Attributes:
        ids: what the series are called, each once; series without a value among them.
        variables: names of the variables.
        series: ``(N,)`` integers, index into ``ids``.
        times: ``(N,)`` float64.
        variable: ``(N,)`` integers, index into ``variables``.
        values: ``(N,)`` float32, finite.
        origins: ``(B,)`` float64, the times from which those of each series are counted; nan = its first row.
        kind: of times, see ``times.instants``.
    """

    ids: tuple[str, ...]
    variables: tuple[str, ...]
    series: Integers
    times: Floats
    variable: Integers
    values: NDArray[np.float32]
    origins: Floats
    kind: str = "numbers"


@dataclass(frozen=True)
class LongSeries:
    """B series, their values laid end to end, sorted by time and then by variable.

    Attributes:
        ids: ``(B,)`` what the source calls each series, as text.
        variables: names of the V variables.
        splits: ``(B + 1,)`` int64; series b owns the rows ``splits[b]:splits[b + 1]``, possibly none.
        times: ``(N,)`` float64, in ``unit`` since the origin of the series.
        variable: ``(N,)`` int64, index into ``variables``.
        values: ``(N,)`` float32, finite.
        origins: ``(B,)`` float64, where the times of each series begin: numbers in ``unit``, dates in seconds since
            1970; nan of a series without an origin.
        unit: of times.
        kind: "numbers", "dates" or "dates with a zone".
    """

    ids: NDArray[Any]
    variables: tuple[str, ...]
    splits: Integers
    times: Floats
    variable: Integers
    values: NDArray[np.float32]
    origins: Floats
    unit: str
    kind: str

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        size = f"series={len(self)}, values={len(self.values)}, variables={len(self.variables)}"
        return f"LongSeries({size}, unit={self.unit!r})"

    @property
    def series(self) -> Integers:
        """Series each value belongs to, ``(N,)``."""
        return np.repeat(np.arange(len(self)), np.diff(self.splits))

    def positions(self, ids: Sequence[str]) -> Integers:
        """Where series of these names stand ``(len(ids),)``; -1 of names that are not there."""
        import pandas as pd

        return pd.Index(self.ids).get_indexer(pd.Index(ids)).astype(np.int64)

    def rows_of(self, index: Integers) -> tuple[Integers, Integers]:
        """Rows of the series ``index``, end to end, and the position in ``index`` that each belongs to."""
        lengths = np.diff(self.splits)[index]
        owner = np.repeat(np.arange(len(index)), lengths)
        before = np.cumsum(lengths) - lengths
        return np.arange(len(owner)) + (self.splits[index] - before)[owner], owner

    def with_variables(self, names: Sequence[str]) -> LongSeries:
        """The same series with these variables in this order; values of others are left out."""
        place = {name: number for number, name in enumerate(names)}
        codes = np.array([place.get(name, -1) for name in self.variables] or [0], np.int64)[self.variable]
        kept = codes >= 0
        before = np.concatenate([[0], np.cumsum(kept)])
        return replace(
            self,
            variables=tuple(names),
            splits=before[self.splits],
            times=self.times[kept],
            variable=codes[kept],
            values=self.values[kept],
        )


def merge_repeats(events: Events, repeats: Repeats, way: str = "") -> Events:
    """The values sorted by series, time and variable, one of each.

    Args:
        events: in the order of the files.
        repeats: what counts of several values of one variable of one series at one time: "mean", "first" or "last" in
            the order of the files; "refuse" = an error that names the first ones.
        way: what such an error advises; "" = to choose one of the others.

    Raises:
        ValueError: repeated values that are refused.
    """
    require(repeats in REPEATS, "repeats", f"be one of {', '.join(REPEATS)}", repr(repeats))
    order = np.lexsort((events.variable, events.times, events.series))
    columns: list[NDArray[Any]] = [column[order] for column in (events.series, events.times, events.variable)]
    same = np.logical_and.reduce([np.diff(column) == 0 for column in columns]) if len(order) else np.zeros(0, bool)
    values: NDArray[Any] = events.values[order]
    if same.any():
        if repeats == "refuse":
            _refuse(events, order, same, way or "--data.repeats mean, first or last chooses")
        firsts = np.flatnonzero(np.concatenate([[True], ~same]))
        counts = np.diff(np.append(firsts, len(order)))
        means = np.add.reduceat(values, firsts, dtype=np.float64) / counts
        values = {"mean": means, "first": values[firsts], "last": values[firsts + counts - 1]}[repeats]
        columns = [column[firsts] for column in columns]
    series, times, variable = columns
    return replace(events, series=series, times=times, variable=variable, values=values.astype(np.float32))


def _refuse(events: Events, order: Integers, same: NDArray[np.bool_], way: str) -> None:
    rows = order[np.flatnonzero(same)]
    shown = [
        f"{events.ids[events.series[row]]} at {written(events.times[row], events.kind)}, "
        f"{events.variables[events.variable[row]]}"
        for row in rows[:_SHOWN]
    ]
    rule = f"hold one value of a variable of a series at a time ({way})"
    more = ", ..." if len(rows) > _SHOWN else ""
    reject("the table", rule, f"{len(rows)} repeated ones: {'; '.join(shown)}{more}")
