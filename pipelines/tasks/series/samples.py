"""Samples of one's own series: what is known of a series by some time, its statics, and its label."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ccnn_irregular._checks import require
from ccnn_irregular.datasets.tables import LongSeries
from ccnn_irregular.datasets.tables.frames import listed
from ccnn_irregular.pipelines.train.draws import Draws
from ccnn_irregular.pipelines.train.sample_keys import row_keys, text_keys

__all__ = [
    "Indices",
    "Samples",
    "Schema",
    "SeriesBatch",
    "Timing",
    "beyond",
    "inferred_text",
    "sample_numbers",
    "timing_of",
    "values_by_variable",
]

Indices = NDArray[np.int64]

# Samples that are looked at for the timing, and bounds of the number of nodes.
_LOOKED_AT = 4096
_NODES = (48, 256)


@dataclass(frozen=True)
class Schema:
    """What a network reads and answers; its checkpoint carries it to other tables.

    Attributes:
        variables: names, in order.
        statics: categories of each static; [] of a number.
        kind: of labels: "binary", "classes" or "number".
        classes: their names; of two the last one is the outcome whose probability is told. [] of numbers.
        unit: of times.
        times: what times are in the tables: "numbers", "dates", "dates with a zone".
        since: what times count from: "given" (as the table has it), "first" (row of the series, or its origin),
            "label" (the time of the label, or the last row where there is none).
    """

    variables: list[str]
    statics: dict[str, list[str]]
    kind: str
    classes: list[str]
    unit: str
    times: str
    since: str

    @property
    def outputs(self) -> int:
        """Numbers that a network answers."""
        return len(self.classes) if self.kind == "classes" else 1

    def tell_differences(self, series: LongSeries) -> None:
        """Warn of variables that are new or missing in other tables."""
        measured = {series.variables[variable] for variable in np.unique(series.variable)}
        new = sorted(measured - set(self.variables))
        missing = [name for name in self.variables if name not in measured]
        if new:
            text = f"variables that training did not have are left out: {listed(new)}"
            warnings.warn(text, UserWarning, stacklevel=2)
        if missing:
            warnings.warn(f"variables that training had are missing: {listed(missing)}", UserWarning, stacklevel=2)


class SeriesBatch(NamedTuple):
    """B samples laid end to end.

    Attributes:
        times: ``(N,)`` float64, strictly increasing within a sample.
        values: ``(N, V)`` float32, nan where a variable was not observed.
        splits: ``(B + 1,)`` int64; sample b owns the rows ``splits[b]:splits[b + 1]``, possibly none.
        statics: ``(B, S)`` float32, nan where missing; of categories 1, 2, ...
        targets: ``(B,)`` float64: class or number, nan where unknown.
        judged: ``(B,)`` float64, the time by which a sample is judged, inf = by all of its rows; 0 where times count
            from it.
        ids: ``(B,)`` int64, by which random draws know a sample.
        draws: what is drawn for the samples in training, or None.
    """

    times: Tensor
    values: Tensor
    splits: Tensor
    statics: Tensor
    targets: Tensor
    judged: Tensor
    ids: Tensor
    draws: Draws | None = None


@dataclass(frozen=True)
class Samples:
    """Samples of series.

    Attributes:
        series: with the variables of a schema.
        statics: ``(B, S)`` float32.
        index: ``(n,)`` int64, the series of each sample.
        cuts: ``(n,)`` float64, the time by which a sample is judged, later rows are dropped; inf = all rows count.
        targets: ``(n,)`` float64, nan where unknown.
        since_cut: times count from the cut, or from the last row where there is none.
        numbers: ``(n,)`` int64, what each sample is known by, whatever else is read; None = its place.
    """

    series: LongSeries
    statics: NDArray[np.float32]
    index: NDArray[np.int64]
    cuts: NDArray[np.float64]
    targets: NDArray[np.float64]
    since_cut: bool = False
    numbers: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.index)

    def outcome_keys(self, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        """A key of each sample's series, time and label, ``(B,)``."""
        ids = text_keys(map(str, self.series.ids[self.index[rows]]))
        return row_keys(ids, self.cuts[rows], self.targets[rows])

    def batch(self, chosen: Tensor) -> SeriesBatch:
        """The samples ``chosen`` (int64, any order), in that order: one gather."""
        rows = chosen.numpy()
        index, cuts = self.index[rows], self.cuts[rows]
        taken, owner = self.series.rows_of(index)
        times = self.series.times[taken]
        if np.isfinite(cuts).any():
            kept = times <= cuts[owner]
            taken, owner, times = taken[kept], owner[kept], times[kept]
        if self.since_cut:
            times = times - self.judged_by(rows)[owner]
        # A row of the batch is what one sample has at one time.
        first = np.ones(len(taken), bool)
        first[1:] = (np.diff(owner) != 0) | (np.diff(times) != 0)
        place = np.cumsum(first) - 1
        values = np.full((int(first.sum()), len(self.series.variables)), np.nan, np.float32)
        values[place, self.series.variable[taken]] = self.series.values[taken]
        splits = np.searchsorted(owner[first], np.arange(len(rows) + 1))
        judged = np.zeros(len(rows)) if self.since_cut else cuts
        numbers = rows if self.numbers is None else self.numbers[rows]
        found = (times[first], values, splits, self.statics[index], self.targets[rows], judged, numbers)
        return SeriesBatch._make((*(torch.from_numpy(np.ascontiguousarray(one)) for one in found), None))

    def known_by(self, cuts: NDArray[np.float64]) -> Samples:
        """The same samples, judged by other times ``(n,)``."""
        return replace(self, cuts=cuts)

    def take(self, chosen: NDArray[np.int64]) -> Samples:
        """Some of the samples, in this order; one may be there several times."""
        columns = ("index", "cuts", "targets", "numbers")
        return replace(self, **{name: one[chosen] for name in columns if (one := getattr(self, name)) is not None})

    def judged_by(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """The time that samples are judged by: their cut, or the last row where there is none."""
        index, cuts = self.index[rows], self.cuts[rows]
        ends = self.series.splits[index + 1]
        filled = ends > self.series.splits[index]
        last = np.where(filled, np.append(self.series.times, 0.0)[ends - 1], 0.0)
        return np.where(np.isfinite(cuts), cuts, last)


@dataclass(frozen=True)
class Timing:
    """Where a network's nodes lie and how far its kernels reach, in the unit of times.

    Attributes:
        start: time before the first node.
        step: distance of nodes.
        nodes: their number.
        extent: of kernels, see ``KernelSpec``.
        width: of their masks at first.
        cap: time that one value may stand for.
    """

    start: float
    step: float
    nodes: int
    extent: float
    width: float
    cap: float


def _looked_at(samples: Samples, training: NDArray[np.int64]) -> SeriesBatch:
    chosen = training[:: max(1, math.ceil(len(training) / _LOOKED_AT))]
    return samples.batch(torch.from_numpy(np.ascontiguousarray(chosen)))


def beyond(samples: Samples, training: NDArray[np.int64], start: float, length: float) -> float:
    """Share of the rows of the training samples that lie outside a latent grid."""
    times = _looked_at(samples, training).times.numpy()
    return float(np.mean((times < start) | (times > start + length)))


def timing_of(samples: Samples, training: NDArray[np.int64]) -> Timing:
    """Nodes over all but the most extreme hundredth of the training samples, as fine as half of the rows are.

    Kernels reach as those of the stays in intensive care, which serve 48 nodes: 24 nodes long, 6 wide.

    Raises:
        ValueError: training samples without a single row.
    """
    batch = _looked_at(samples, training)
    times, splits = batch.times.numpy(), batch.splits.numpy()
    require(len(times) > 0, "the table", "hold values of the series to train on", "none")
    filled = np.flatnonzero(np.diff(splits))
    firsts, lasts = times[splits[filled]], times[splits[filled + 1] - 1]
    low, high = float(np.quantile(firsts, 0.01)), 0.0 if samples.since_cut else float(np.quantile(lasts, 0.99))
    if 0 < low <= 0.5 * high:
        low = 0.0
    inside = np.ones(len(times), bool)
    inside[splits[filled]] = False
    gaps = np.diff(times)[inside[1:]]
    gap = float(np.median(gaps)) if len(gaps) else 1.0
    span = max(high - low, gap)
    nodes = int(np.clip(round(span / (2 * gap)), *_NODES))
    step = _round_up(span / nodes)
    nodes = math.ceil(span / step - 1e-9)
    start = low if not samples.since_cut else high - nodes * step
    return Timing(start, step, nodes, 24 * step, 6 * step, 6 * step)


def _round_up(value: float) -> float:
    """The next number of two digits."""
    scale = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / scale - 1e-9) * scale:.12g}")


def inferred_text(schema: Schema, options: dict[str, Any]) -> str:
    """What was taken from the training rows, with the options that say otherwise."""
    unit, network = schema.unit, "--model.network.init_args."
    since = {"given": "as given", "first": "since the first row of each series", "label": "since the label's time"}
    labels = "numbers" if schema.kind == "number" else f"{schema.kind}: {', '.join(schema.classes[:8])}"
    if schema.kind == "binary":
        first, last = schema.classes
        labels += f"; the positive class is {last} (--data.classes {last} {first} makes it {first})"
    statics = [f"{name} ({len(known)} categories)" if known else name for name, known in schema.statics.items()]
    end = options["start"] + options["nodes"] * options["step"]
    lines = [
        f"labels are {labels} (--data.labels_are, --data.classes)",
        f"{len(schema.variables)} variables: {listed(schema.variables)} (--data.variables)",
        *([f"statics: {listed(statics)} (--data.static_columns, --data.categories)"] if statics else []),
        f"times {since[schema.since]}, unit: {unit} (--data.time_since, --data.unit)",
        f"latent grid from {options['start']:g} to {end:g}: {options['nodes']} nodes, {options['step']:g} apart "
        f"({network}start, .step, .nodes)",
        f"kernels: extent {options['extent']:g}, width {options['width']:g} ({network}extent, .width)",
        f"a value stands for {options['cap']:g} at most ({network}cap)",
    ]
    return "\n".join(lines)


def sample_numbers(ids: NDArray[Any], index: Indices, cuts: NDArray[np.float64]) -> Indices:
    """Numbers of samples that stay what they are whatever else is read: of their series, and of their time."""
    plain = all(name.isdigit() and len(name) < 18 and str(int(name)) == name for name in ids)
    keys = np.array([int(name) for name in ids], np.int64) if plain else text_keys(ids).view(np.int64)
    return keys[index] + np.where(np.isfinite(cuts), row_keys(cuts).view(np.int64), 0)


def values_by_variable(series: LongSeries, chosen: Indices) -> list[NDArray[np.float32]]:
    """The values of each variable in the series ``chosen``."""
    rows, _ = series.rows_of(chosen)
    order = rows[np.argsort(series.variable[rows], kind="stable")]
    ends = np.searchsorted(series.variable[order], np.arange(1, len(series.variables)))
    return np.split(series.values[order], ends)
