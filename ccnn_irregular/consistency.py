"""How much of a layer's answer depends on the engine, and how much on the sampling.

A field that is known on a full grid is thinned or its positions are jittered; the layer's answer from what is left is
compared with its answer from the full grid, for every engine and for several quadrature weights.
"""

from __future__ import annotations

import copy
import csv
import inspect
import io
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import RegularGridInterpolator
from scipy.ndimage import distance_transform_edt
from torch import Tensor, nn

from ccnn_irregular._checks import require
from ccnn_irregular.domains import Domain, Grid, Points
from ccnn_irregular.kernels import Kernel
from ccnn_irregular.layers import ContinuousConv, SeparableContinuousConv
from ccnn_irregular.networks import CCNN
from ccnn_irregular.operators import ENGINES
from ccnn_irregular.quadrature import density_compensation, plain_mean, trapezoid, voronoi
from ccnn_irregular.solver import Solver

__all__ = ["ConsistencyReport", "Field", "Interpolation", "Row", "Rule", "Sampling", "check_consistency"]

Rule = Literal["cell_volumes", "trapezoid", "voronoi", "density_compensation", "plain_mean", "no weights"]
Progress = Callable[[int, int, str], None]

GRID_ENGINE = "fft"
# Voronoi diagrams of more points than this take minutes in 3-D.
_MOST_VORONOI = {2: 200_000, 3: 30_000}
# The cubic spline through a grid of several axes solves one large system.
_MOST_CUBIC = 300_000
# Queries at which each engine is compared with the sum over all pairs in float64.
_JUDGED = 16
# Images across an axis that repeats are taken within so many mean distances of its ends.
_SEAM = 6.0


@dataclass(frozen=True)
class Row:
    """One evaluation: a sampling, its weights and an engine.

    Attributes:
        sampling: in words.
        kept: share of the grid's nodes that was sampled.
        jitter: largest displacement of a sample per axis, in grid steps.
        nodes: number of samples that hold a value.
        rule: quadrature rule of the weights; "no weights" = the full grid's cell volume for every sample.
        engine: name in ``ENGINES``.
        error: L2 norm of the difference to the full grid's answer, relative to that answer's L2 norm; None = not run.
        largest_error: largest difference, relative to the largest value of the full grid's answer.
        engine_error: as ``error``, to the same sampling's own sum over all pairs in float64 (a layer that cannot be
            asked at queries: to the first engine that ran on this sampling, None for that one).
        seconds: of the one evaluation, planning (and compiling) included.
        predicted: seconds of planning and a forward pass by the planner, or None where the engine does not serve.
        note: why it was not run, or an empty string.
    """

    sampling: str
    kept: float
    jitter: float
    nodes: int
    rule: Rule
    engine: str
    error: float | None = None
    largest_error: float | None = None
    engine_error: float | None = None
    seconds: float | None = None
    predicted: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Interpolation:
    """How well values between the nodes are known: every second node is left out and interpolated from the others.

    Attributes:
        method: "cubic" or "linear".
        values: relative L2 error of the interpolated values at the left-out nodes.
        answer: relative L2 error of the layer's answer from the field with its left-out nodes interpolated.
    """

    method: str
    values: float
    answer: float


@dataclass(frozen=True)
class ConsistencyReport:
    """What ``check_consistency`` found; ``str()`` is a table.

    Attributes:
        rows: one for each sampling, rule and engine.
        compared: number of places (or outputs) that were compared on the full grid.
        size: root mean square of the full grid's answer there.
        spread: its standard deviation there, channel by channel; errors relative to the variation of the answer are
            those of the rows times ``size / spread``.
        rtol: error that "spectral" was allowed.
        interpolation: error of values between the nodes; None without jitter.
        notes: what a reader should know, one sentence each.
    """

    rows: tuple[Row, ...]
    compared: int
    size: float
    spread: float
    rtol: float
    interpolation: Interpolation | None
    notes: tuple[str, ...]

    def __str__(self) -> str:
        heads = ("sampling", "samples", "weights", "engine", "error", "largest", "engine's own", "seconds", "predicted")
        cells = []
        for row in self.rows:
            errors = [_shown(value, ".1e") for value in (row.error, row.largest_error, row.engine_error)]
            seconds = [_shown(value, ".2g") for value in (row.seconds, row.predicted)]
            cells.append((row.sampling, str(row.nodes), row.rule, row.engine, *errors, *seconds))
        widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
        lines = []
        for line, note in zip((heads, *cells), ("", *(row.note for row in self.rows)), strict=True):
            padded = [
                f"{cell:>{width}}" if place >= 4 or place == 1 else f"{cell:<{width}}"
                for place, (cell, width) in enumerate(zip(line, widths, strict=True))
            ]
            lines.append("  ".join([*padded, note]).rstrip())
        return "\n".join([*lines, "", *self.notes])

    def to_csv(self) -> str:
        """The rows as CSV, one column for each attribute of ``Row``; an empty cell is None."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([field.name for field in fields(Row)])
        writer.writerows(["" if value is None else value for value in astuple(row)] for row in self.rows)
        return text.getvalue()


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


@dataclass(frozen=True)
class Sampling:
    """Samples of a field, those without a value left out.

    Attributes:
        name: in words.
        kept: share of the grid's nodes.
        jitter: largest displacement per axis, in grid steps.
        coordinates: float64 ``(n, d)``, coordinate units.
        values: float64 ``(n, C)``.
        nodes: int64 ``(n,)``, the grid's node each sample was taken at or displaced from.
        weights: float64 ``(n,)`` by the rule they are made with, the recommended one first.
    """

    name: str
    kept: float
    jitter: float
    coordinates: Tensor
    values: Tensor
    nodes: Tensor
    weights: dict[Rule, Tensor]


class Field:
    """A field on a full grid, and how it is sampled.

    Args:
        values: ``(C, *grid.sizes)``, or ``(*grid.sizes)`` for one channel; nan where there is no value (land, say).
        grid: where the values are.
        seed: of everything that is drawn at random.

    Attributes:
        values: float64 ``(C, *grid.sizes)``.
        valid: bool ``(*grid.sizes)``, True where every channel has a value.

    Raises:
        ValueError: shapes that disagree, infinite values, or no value at all.
    """

    def __init__(self, values: Tensor | NDArray[Any], grid: Grid, seed: int = 0) -> None:
        array = torch.as_tensor(values).detach().to("cpu", torch.float64)
        array = array[None] if tuple(array.shape) == grid.sizes else array
        shape = tuple(array.shape)
        require(shape[1:] == grid.sizes, "values", f"have shape (C, *sizes) with sizes {grid.sizes}", shape)
        require(not bool(torch.isinf(array).any()), "values", "be finite or nan", "inf")
        self.valid = ~torch.isnan(array).any(0)
        require(bool(self.valid.any()), "values", "hold at least one node with a value", "nan everywhere")
        self.values = array
        self.grid = grid
        self._seed = seed
        self._order = np.random.default_rng((seed, 0)).permutation(grid.count)

    @property
    def complete(self) -> bool:
        """Whether every node has a value."""
        return bool(self.valid.all())

    def queries(self, count: int) -> Tensor:
        """Row-major indices of at most ``count`` random nodes with a value, ascending."""
        nodes = np.flatnonzero(self.valid.reshape(-1).numpy())
        drawn = np.random.default_rng((self._seed, 1)).permutation(nodes)[:count]
        return torch.from_numpy(np.sort(drawn))

    def at(self, nodes: Tensor) -> Points:
        """Nodes as points."""
        return Points(self.grid.nodes()[nodes], periods=self.grid.periods)

    def thinned(self, keep: float) -> Sampling:
        """A random share of the nodes; what a smaller share keeps, a larger one keeps too.

        Nodes without a value are kept with the same probability and then weigh nothing: a coast ends where the
        nearest sample changes from sea to land.
        """
        require(0 < keep <= 1, "keep", "lie in (0, 1]", keep)
        nodes = torch.from_numpy(np.sort(self._order[: max(1, round(keep * self.grid.count))]))
        if len(nodes) == self.grid.count:
            return self._sampling("full grid", keep, 0.0, self._indices()[nodes], nodes, None)
        return self._sampling(f"{100 * keep:g} % of the nodes", keep, 0.0, self._indices()[nodes], nodes, None)

    def jittered(self, jitter: float) -> Sampling:
        """All nodes, each displaced by up to ``jitter`` grid steps along every axis; values are interpolated there.

        A sample beyond the end of an axis is mirrored there, or wrapped on an axis that repeats. One that is nearest
        to a node without a value has none.
        """
        require(0 <= jitter < math.inf, "jitter", "not be negative, and finite", jitter)
        rng = np.random.default_rng((self._seed, 2))
        shift = torch.from_numpy(rng.uniform(-1, 1, (self.grid.count, self.grid.d))) * jitter
        positions = self._indices() + shift
        for axis, one in enumerate(self.grid.axes):
            if one.size == 1:
                positions[:, axis] = 0.0
            elif one.periodic:
                positions[:, axis] = torch.remainder(positions[:, axis] + 0.5, one.size) - 0.5
            else:
                last = one.size - 1
                positions[:, axis] = last - (torch.remainder(positions[:, axis], 2 * last) - last).abs()
        nodes = torch.zeros(len(positions), dtype=torch.int64)
        for axis, size in enumerate(self.grid.sizes):
            nodes = nodes * size + positions[:, axis].round().to(torch.int64).clamp(0, size - 1)
        name = f"jitter up to {jitter:g} steps"
        return self._sampling(name, 1.0, jitter, positions, nodes, self.interpolate(self.values, positions))

    def interpolate(self, values: Tensor, positions: Tensor) -> Tensor:
        """``values`` ``(C, *sizes)`` at ``positions`` ``(n, d)`` in grid steps: float64 ``(n, C)``.

        A cubic spline where every node has a value and the grid is not too large, else linear; what has no value is
        first given that of the nearest node with one.
        """
        return _interpolated(self._filled(values), positions, self.grid.periodic, self.method)

    @property
    def method(self) -> Literal["cubic", "linear"]:
        """How values between the nodes are found."""
        smooth = self.complete and self.grid.count <= _MOST_CUBIC
        # Half as many nodes are left when the interpolation is put to the test.
        return "cubic" if smooth and all(size >= 8 or size == 1 for size in self.grid.sizes) else "linear"

    def from_every_second_node(self) -> tuple[Tensor, Tensor]:
        """The field with all but every second node (per axis) interpolated from those; and which ones were, bool."""
        repeats = tuple(axis.periodic and axis.size % 2 == 0 for axis in self.grid.axes)
        # Beyond the last node that is kept nothing can be interpolated.
        ends = [size if wraps else size - (size + 1) % 2 for size, wraps in zip(self.grid.sizes, repeats, strict=True)]
        inside = tuple(slice(0, end) for end in ends)
        positions = torch.stack(torch.meshgrid(*(torch.arange(end) / 2.0 for end in ends), indexing="ij"), -1)
        coarse = self._filled(self.values)[(slice(None), *(slice(0, end, 2) for end in ends))]
        found = _interpolated(coarse, positions.reshape(-1, self.grid.d).double(), repeats, self.method)
        left_out = torch.zeros(self.grid.sizes, dtype=torch.bool)
        left_out[inside] = (positions % 1 != 0).any(-1)
        left_out &= self.valid
        values = self.values.clone()
        values[(slice(None), *inside)] = found.T.reshape(-1, *ends)
        return torch.where(left_out, values, self.values), left_out

    def _indices(self) -> Tensor:
        """Positions of all nodes in grid steps, float64 ``(count, d)``."""
        return Grid(self.grid.sizes, (1.0,) * self.grid.d).nodes()

    def _filled(self, values: Tensor) -> Tensor:
        """``values`` with that of the nearest valid node where there is none."""
        if self.complete:
            return values
        nearest = distance_transform_edt(~self.valid.numpy(), return_distances=False, return_indices=True)
        return values[(slice(None), *torch.from_numpy(nearest).long())]

    def _sampling(
        self, name: str, kept: float, jitter: float, positions: Tensor, nodes: Tensor, values: Tensor | None
    ) -> Sampling:
        values = self.values.flatten(1).T[nodes] if values is None else values
        valid = self.valid.reshape(-1)[nodes]
        require(bool(valid.any()), "keep", "leave at least one node with a value", f"none of {len(nodes)} nodes")
        exact = len(nodes) == self.grid.count and jitter == 0
        volume = self.grid.cell_volume
        weights: dict[Rule, Tensor] = {}
        if exact:
            weights["cell_volumes"] = torch.full((len(nodes),), volume, dtype=torch.float64)
        else:
            rule, shares = _recommended(positions, self.grid)
            weights[rule] = shares * volume
            weights["plain_mean"] = plain_mean(len(nodes), volume=volume * self.grid.count)
        if len(nodes) < self.grid.count:
            weights["no weights"] = torch.full((len(nodes),), volume, dtype=torch.float64)
        starts, steps = (torch.tensor(one, dtype=torch.float64) for one in (self.grid.starts, self.grid.steps))
        return Sampling(
            name,
            kept,
            jitter,
            (starts + steps * positions)[valid],
            values[valid],
            nodes[valid],
            {rule: one[valid] for rule, one in weights.items()},
        )


def _recommended(positions: Tensor, grid: Grid) -> tuple[Rule, Tensor]:
    """The rule for samples at ``positions`` in grid steps, and their weights in cells, which sum to the grid's."""
    d, count = grid.d, len(positions)
    images, bounds = _with_images(positions, grid)
    if d == 1:
        return "trapezoid", _trapezoid_to_the_walls(images[:, 0], bounds[0])[:count]
    rule: Rule = "voronoi" if len(images) <= _MOST_VORONOI.get(d, 0) else "density_compensation"
    weights = voronoi(images, bounds=bounds) if rule == "voronoi" else density_compensation(images, bounds=bounds)
    return rule, weights[:count] * (grid.count / weights[:count].sum())


def _with_images(positions: Tensor, grid: Grid) -> tuple[Tensor, list[tuple[float, float]]]:
    """Positions followed by their images near the seams of axes that repeat, and the box that holds them all.

    A grid's cells reach half a step beyond its outermost nodes.
    """
    margin = _SEAM * (grid.count / len(positions)) ** (1 / grid.d)
    bounds = []
    for axis, one in enumerate(grid.axes):
        low, high, reach = -0.5, one.size - 0.5, 0.0
        if one.periodic:
            reach = min(margin, one.size / 2)
            shift = torch.zeros(grid.d, dtype=torch.float64)
            shift[axis] = one.size
            place = positions[:, axis]
            positions = torch.cat(
                [positions, positions[place < low + reach] + shift, positions[place > high - reach] - shift]
            )
        bounds.append((low - reach, high + reach))
    # Rounding must not put an image beyond the wall.
    box = torch.tensor(bounds, dtype=torch.float64)
    return positions.clamp(box[:, 0], box[:, 1]), bounds


def _trapezoid_to_the_walls(positions: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Trapezoid weights in any order of the positions; the outermost ones stand for all up to the walls."""
    order = positions.argsort()
    weights = trapezoid(positions[order])
    weights[0] += positions[order[0]] - bounds[0]
    weights[-1] += bounds[1] - positions[order[-1]]
    return torch.zeros_like(weights).index_copy(0, order, weights)


def _interpolated(values: Tensor, positions: Tensor, periodic: Sequence[bool], method: str) -> Tensor:
    """``values`` ``(C, *sizes)`` without nan at ``positions`` ``(n, d)`` in steps of their own grid: ``(n, C)``."""
    array, places = values.numpy(), positions.numpy()
    axes, used = [], []
    for axis, (size, repeats) in enumerate(zip(values.shape[1:], periodic, strict=True)):
        if size == 1:
            continue
        pad = min(size, 8) if repeats else 0
        widths = [(0, 0)] * array.ndim
        widths[axis + 1] = (pad, pad)
        array = np.pad(array, widths, mode="wrap") if pad else array
        axes.append(np.arange(-pad, size + pad, dtype=np.float64))
        used.append(axis)
    array = np.moveaxis(array.reshape(len(array), *map(len, axes)), 0, -1)
    if not axes:
        return torch.from_numpy(np.repeat(array[None], len(places), 0))
    return torch.from_numpy(RegularGridInterpolator(axes, array, method=method)(places[:, used]))


@torch.no_grad()
def check_consistency(
    layer: nn.Module,
    values: Tensor | NDArray[Any],
    grid: Grid,
    *,
    engines: Sequence[str] | None = None,
    keep: Sequence[float] = (1.0, 0.5, 0.2, 0.05),
    jitter: Sequence[float] = (0.0, 0.25, 0.5),
    queries: int = 512,
    rtol: float = 1e-3,
    limit_seconds: float = 60.0,
    seed: int = 0,
    progress: Progress | None = None,
) -> ConsistencyReport:
    """How far the answer of each engine and each sampling is from the full grid's, which is computed in float64.

    The layer is evaluated as a copy in evaluation mode; the one given is not changed.

    Args:
        layer: called as ``layer(values, source)`` or, where it takes one, ``layer(values, source, query)``:
            ``ContinuousConv``, ``SeparableContinuousConv``, ``ResidualBlock``, ``CCNN`` or a module of such.
        values: ``(C, *grid.sizes)``, or ``(*grid.sizes)`` for one channel, on the full grid; nan where there is no
            value: such nodes weigh nothing.
        grid: where the values are, in the units of the layer's kernels.
        engines: names in ``ENGINES``; None = all.
        keep: shares of the nodes, in (0, 1]; 1 = the full grid.
        jitter: largest displacement of all nodes, in grid steps; 0 = the full grid.
        queries: number of random nodes at which answers are compared, where the layer takes a query. Other layers
            answer at the samples (compared with the full grid's answer there, interpolated where jittered) or
            at places that do not depend on the sampling (compared as they are).
        rtol: error that "spectral" may make.
        limit_seconds: an evaluation that is predicted to take longer is left out.
        seed: of samplings and queries.
        progress: called as ``progress(done, total, what comes next)``.

    Raises:
        ValueError: arguments out of range; a layer without continuous convolution or of other axes or channels; an
            answer that is zero everywhere.
    """
    _check_options(engines, keep, jitter, queries, rtol, limit_seconds)
    names = list(ENGINES) if engines is None else list(engines)
    kernels = _kernels(layer)
    require(len(kernels) > 0, "layer", "hold a continuous convolution", type(layer).__name__)
    require(kernels[0].d == grid.d, "layer", f"have kernels of the grid's {grid.d} axes", kernels[0].d)
    field = Field(values, grid, seed)
    check = _Check(layer, field, queries, rtol, limit_seconds)
    shares = list(dict.fromkeys([*([1.0] if 0 in jitter else []), *keep]))
    displaced = [steps for steps in dict.fromkeys(jitter) if steps > 0]
    total = len(shares) + len(displaced)
    samplings = itertools.chain(map(field.thinned, shares), map(field.jittered, displaced))
    rows: list[Row] = []
    for done, sampling in enumerate(samplings):

        def say(what: str, done: int = done, sampling: Sampling = sampling) -> None:
            if progress is not None:
                progress(done, total, f"{sampling.name}: {what}")

        rows += check.rows(sampling, names, say)
    interpolation = check.interpolation() if displaced else None
    size, spread = _size_and_spread(check.compared)
    notes = tuple(_notes(check, interpolation))
    return ConsistencyReport(tuple(rows), len(check.compared), size, spread, rtol, interpolation, notes)


def _check_options(
    engines: Sequence[str] | None,
    keep: Sequence[float],
    jitter: Sequence[float],
    queries: int,
    rtol: float,
    limit_seconds: float,
) -> None:
    for name in engines or ():
        require(name in ENGINES, "engines", f"be of {', '.join(ENGINES)}", repr(name))
    require(len(keep) + len(jitter) > 0, "keep and jitter", "name at least one sampling", "none")
    for share in keep:
        require(0 < share <= 1, "keep", "lie in (0, 1]", share)
    for steps in jitter:
        require(0 <= steps < math.inf, "jitter", "not be negative, and finite", steps)
    require(queries >= 1, "queries", "be at least 1", queries)
    require(0 < rtol < 1, "rtol", "lie between 0 and 1", rtol)
    require(limit_seconds > 0, "limit_seconds", "be positive", limit_seconds)


class _Check:
    """The full grid's answer, and how far others are from it.

    Attributes:
        answer: float64 ``(nodes, D)``, nan where there is no value; flat where it does not depend on the sampling.
        compared: the places (or outputs) of ``answer`` that are compared, ``(places, D)``.
    """

    def __init__(self, layer: nn.Module, field: Field, queries: int, rtol: float, limit_seconds: float) -> None:
        self.layer = layer
        self.field = field
        self.rtol = rtol
        self.limit_seconds = limit_seconds
        self.dtype = _kernels(layer)[0].dtype
        self.takes_query = "query" in inspect.signature(layer.forward).parameters and not (
            isinstance(layer, CCNN) and layer.readout is None
        )
        # Where a value is weighed before anything else happens to it, zero is as good as no value.
        self.on_grid = field.complete or _weighs_first(layer)
        self.query_nodes = field.queries(queries)
        self.answer, self.fixed = self._full_answer(field.values)
        if self.fixed:
            self.compared = self.answer[:, None]
        else:
            places = self.query_nodes if self.takes_query else torch.nonzero(field.valid.reshape(-1)).flatten()
            self.compared = self.answer[places]
        require(bool((self.compared != 0).any()), "layer", "answer with something else than zeros", "zeros everywhere")

    def rows(self, sampling: Sampling, names: Sequence[str], say: Callable[[str], None]) -> Iterator[Row]:
        """All engines with the recommended weights, and one of them with the others."""
        main, *others = sampling.weights
        source = self._points(sampling, main)
        judge = self._judge(sampling, source)
        ran: list[Row] = []
        for name in names:
            whole = "cell_volumes" in sampling.weights and self.on_grid
            if name == GRID_ENGINE and not whole:
                continue  # it serves nothing but grids: no row for every other sampling
            say(name)
            row, answer = self._row(sampling, main, name, self.field.grid if name == GRID_ENGINE else source, judge)
            yield row
            if answer is not None and name != GRID_ENGINE:
                ran.append(row)
                # A layer that cannot be asked at queries has no other judge than the first engine.
                judge = answer if judge is None and not self.takes_query else judge
        # An exact engine shows what the weights do, and nothing else.
        ran.sort(key=lambda row: (row.engine == "spectral", row.seconds))
        for rule in others if ran else ():
            say(rule)
            yield self._row(sampling, rule, ran[0].engine, self._points(sampling, rule), None)[0]

    def interpolation(self) -> Interpolation:
        """The error of a field of which every second node was interpolated."""
        values, left_out = self.field.from_every_second_node()
        answer, _ = self._full_answer(values)
        places = ... if self.fixed else (self.query_nodes if self.takes_query else self.field.valid.reshape(-1))
        return Interpolation(
            self.field.method,
            _distance(values[:, left_out], self.field.values[:, left_out]),
            _distance(answer[places], self.answer[places]),
        )

    def _row(
        self, sampling: Sampling, rule: Rule, engine: str, source: Domain, judge: Tensor | None
    ) -> tuple[Row, Tensor | None]:
        """The row of one evaluation, and its answer unless it was left out."""
        row = Row(sampling.name, sampling.kept, sampling.jitter, len(sampling.values), rule, engine)
        layer = self._copy(engine, self.dtype)
        # On its grid the layer answers everywhere, and the compared places are read off.
        query = None if isinstance(source, Grid) else self._query()
        predicted = self._predicted(layer, source, query)
        if isinstance(predicted, str):
            return replace(row, note=f"left out: {predicted}"), None
        row = replace(row, predicted=predicted)
        if predicted > self.limit_seconds:
            return replace(row, note=f"left out: predicted to take longer than {self.limit_seconds:g} s"), None
        started = time.perf_counter()
        answer = self._evaluated(layer, sampling, source, query)
        seconds = time.perf_counter() - started
        wanted = self._wanted(sampling)
        own = None if judge is None else _distance(answer[: len(judge)], judge)
        largest = float((answer - wanted).abs().max() / wanted.abs().max())
        return replace(
            row, error=_distance(answer, wanted), largest_error=largest, engine_error=own, seconds=seconds
        ), answer

    def _judge(self, sampling: Sampling, source: Points) -> Tensor | None:
        """The sum over all pairs in float64 at the first queries; None for a layer that cannot be asked there."""
        if not self.takes_query:
            return None
        layer, query = self._copy("reference", torch.float64), self.field.at(self.query_nodes[:_JUDGED])
        predicted = self._predicted(layer, source, query)
        if isinstance(predicted, str) or predicted > self.limit_seconds:
            return None
        return self._evaluated(layer, sampling, source, query)

    def _full_answer(self, values: Tensor) -> tuple[Tensor, bool]:
        """The answer from every node in float64, and whether it is given at places of its own."""
        grid, valid = self.field.grid, self.field.valid.reshape(-1)
        if self.on_grid:
            result = self._copy("auto", torch.float64)(torch.nan_to_num(values)[None], grid)
            at_source = tuple(result.shape[2:]) == grid.sizes and not _has_latent(self.layer)
            return (result[0].flatten(1).T if at_source else result.flatten()), not at_source
        nodes = torch.nonzero(valid).flatten()
        weights = torch.full((len(nodes),), grid.cell_volume, dtype=torch.float64)
        source = Points(self.field.at(nodes).coordinates, weights, periods=grid.periods)
        result = self._cheapest_exact(source)(values.flatten(1).T[nodes], source)
        if result.ndim != 2 or len(result) != len(nodes):
            return result.flatten(), True
        answer = torch.full((grid.count, result.shape[1]), math.nan, dtype=torch.float64)
        return answer.index_copy(0, nodes, result), False

    def _cheapest_exact(self, source: Points) -> nn.Module:
        """The layer in float64 with an exact engine for points."""
        layers = {name: self._copy(name, torch.float64) for name in ("neighbours", "reference")}
        costs = {name: self._predicted(layer, source, None) for name, layer in layers.items()}
        seconds = {name: cost for name, cost in costs.items() if not isinstance(cost, str)}
        name = min(seconds, key=seconds.__getitem__)
        rule = "allow for the exact answer from all nodes with a value, which no FFT can give here"
        require(seconds[name] <= self.limit_seconds, "limit_seconds", rule, f"{seconds[name]:.3g} s predicted")
        return layers[name]

    def _wanted(self, sampling: Sampling) -> Tensor:
        """What a perfect answer from ``sampling`` would be."""
        if self.fixed:
            return self.answer
        if self.takes_query:
            return self.answer[self.query_nodes]
        if sampling.jitter == 0:
            return self.answer[sampling.nodes]
        grid = self.field.grid
        starts, steps = (torch.tensor(one, dtype=torch.float64) for one in (grid.starts, grid.steps))
        return self.field.interpolate(self.answer.T.unflatten(1, grid.sizes), (sampling.coordinates - starts) / steps)

    def _evaluated(self, layer: nn.Module, sampling: Sampling, source: Domain, query: Points | None) -> Tensor:
        """The answer from ``sampling`` where the full grid's is compared, float64."""
        dtype = _kernels(layer)[0].dtype
        if isinstance(source, Grid):
            result = layer(torch.nan_to_num(self.field.values)[None].to(dtype), source)
            result = result.flatten() if self.fixed else result[0].flatten(1).T
            places = self.query_nodes if self.takes_query else sampling.nodes
            return (result if self.fixed else result[places]).double()
        values = sampling.values.to(dtype)
        result = layer(values, source) if query is None else layer(values, source, query)
        wanted = self.answer.shape if self.fixed else (result.shape[0], self.answer.shape[1])
        result = result.flatten() if self.fixed else result
        rule = "answer at the samples, at queries, or always at the same places"
        require(tuple(result.shape) == tuple(wanted), "layer", rule, f"shape {tuple(result.shape)}")
        return result.double()

    def _points(self, sampling: Sampling, rule: Rule) -> Points:
        return Points(sampling.coordinates, sampling.weights[rule], periods=self.field.grid.periods)

    def _query(self) -> Points | None:
        return self.field.at(self.query_nodes) if self.takes_query else None

    def _copy(self, engine: str, dtype: torch.dtype) -> nn.Module:
        """The layer in evaluation mode, all convolutions that see the sampling by ``engine``."""
        layer = copy.deepcopy(self.layer).eval().requires_grad_(False).to(dtype)
        for convolution in _sampled_convolutions(layer):
            convolution.solver = Solver(engine, self.rtol)
        return layer

    def _predicted(self, layer: nn.Module, source: Domain, query: Domain | None) -> float | str:
        """Seconds of planning and a forward pass, or why the engine does not serve."""
        query = layer.latent if isinstance(layer, CCNN) and layer.latent is not None else query
        seconds = 0.0
        for one in _sampled_convolutions(layer):
            engine, rtol = ENGINES[one.solver.engine], one.solver.rtol
            cost = engine.assess(one.kernel, source, source if query is None else query, 1, rtol)
            if isinstance(cost, str):
                return cost
            seconds += cost.plan_seconds + cost.forward_seconds
        return seconds


def _has_latent(layer: nn.Module) -> bool:
    return isinstance(layer, CCNN) and layer.latent is not None


def _weighs_first(layer: nn.Module) -> bool:
    """Whether a value meets its weight first, and nothing else at its own place."""
    return isinstance(layer, ContinuousConv | SeparableContinuousConv) or _has_latent(layer)


def _sampled_convolutions(layer: nn.Module) -> list[ContinuousConv]:
    """The convolutions that see the sampling: behind a latent grid there is but that grid."""
    first: nn.Module = layer.stem if isinstance(layer, CCNN) and layer.latent is not None else layer
    return [module for module in first.modules() if isinstance(module, ContinuousConv)]


def _kernels(layer: nn.Module) -> list[Kernel]:
    return [module.kernel for module in layer.modules() if isinstance(module, ContinuousConv)]


def _distance(one: Tensor, other: Tensor) -> float:
    """L2 norm of the difference relative to ``other``'s."""
    return float((one - other).norm() / other.norm())


def _notes(check: _Check, interpolation: Interpolation | None) -> Iterator[str]:
    field, grid = check.field, check.field.grid
    places = "outputs" if check.fixed else "random nodes" if check.takes_query else "nodes"
    size, spread = _size_and_spread(check.compared)
    varies_little = 0 < 1.1 * spread < size
    yield (
        f"error, largest: of the answer, relative to that of the full grid in float64, at {len(check.compared)} "
        f"{places}. There its root mean square is {size:.3g} and its standard deviation {spread:.3g}"
        + (f": relative to how it varies, errors are {size / spread:.3g} times as large." if varies_little else ".")
    )
    if check.takes_query:
        yield (
            "engine's own: difference to the sum over all pairs of the same sampling in float64, at "
            f"{min(_JUDGED, len(check.compared))} of them."
        )
    else:
        yield "engine's own: difference to the first engine that ran on the same sampling."
    yield "seconds: of one evaluation, planning and compiling included; predicted: by the planner."
    yield f"no weights: every sample counts for a cell of the full grid, {grid.cell_volume:.4g} units of volume."
    missing = grid.count - int(field.valid.sum())
    if missing:
        yield f"{missing} of {grid.count} nodes have no value and weigh nothing."
    if interpolation is not None:
        yield (
            f"Jittered samples are interpolated ({interpolation.method}). Interpolating every second node from the "
            f"others, a harder task, changes their values by {interpolation.values:.1e} and the answer by "
            f"{interpolation.answer:.1e}: errors of jittered rows below that may be the interpolation's."
        )


def _size_and_spread(answer: Tensor) -> tuple[float, float]:
    """Root mean square, and standard deviation over the places, of ``(places, D)``."""
    return float(answer.square().mean().sqrt()), float((answer - answer.mean(0)).square().mean().sqrt())
