"""The full grid's answer, and how far those of other engines and samplings are from it."""

from __future__ import annotations

import copy
import inspect
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ccnn_irregular._checks import require
from ccnn_irregular.consistency.field import Field, Rule, Sampling
from ccnn_irregular.consistency.report import ConsistencyReport, Interpolation, Row
from ccnn_irregular.domains import Domain, Grid, Points
from ccnn_irregular.kernels import Kernel
from ccnn_irregular.layers import ContinuousConv, SeparableContinuousConv
from ccnn_irregular.networks import CCNN
from ccnn_irregular.operators import ENGINES
from ccnn_irregular.operators.planning.rates import current_rates
from ccnn_irregular.solver import Solver

__all__ = ["check_consistency"]

Progress = Callable[[int, int, str], None]

GRID_ENGINE = "fft"
# Queries at which each engine is compared with the sum over all pairs in float64.
_JUDGED = 16


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
        rtol: error that an approximate engine may make.
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
        ran.sort(key=lambda row: (ENGINES[row.engine].error(self.rtol), row.seconds))
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
        query = None if source.irregular is None else self._query()
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
        distance = None if judge is None else _distance(answer[: len(judge)], judge)
        largest = float((answer - wanted).abs().max() / wanted.abs().max())
        return replace(
            row, error=_distance(answer, wanted), largest_error=largest, engine_error=distance, seconds=seconds
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
        starts, steps = (torch.tensor(lengths_of, dtype=torch.float64) for lengths_of in (grid.starts, grid.steps))
        return self.field.interpolate(self.answer.T.unflatten(1, grid.sizes), (sampling.coordinates - starts) / steps)

    def _evaluated(self, layer: nn.Module, sampling: Sampling, source: Domain, query: Points | None) -> Tensor:
        """The answer from ``sampling`` where the full grid's is compared, float64."""
        dtype = _kernels(layer)[0].dtype
        if source.irregular is None:
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
        for convolution in _sampled_convolutions(layer):
            engine, rtol = ENGINES[convolution.solver.engine], convolution.solver.rtol
            cost = engine.assess(convolution.kernel, source, source if query is None else query, 1, rtol)
            if isinstance(cost, str):
                return cost
            seconds += current_rates(convolution.kernel.extent.device).seconds(cost.plan + cost.forward)
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
