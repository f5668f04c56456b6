"""The sum as written, in blocks of pairs: slow, exact for every kernel and domain, the judge of all engines."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from ccnn_irregular._autocast import outside_autocast
from ccnn_irregular._sums import gathered, sums_of_sorted
from ccnn_irregular._transforms import transforms_active
from ccnn_irregular.domains import Domain, Points
from ccnn_irregular.kernels import Kernel, with_tensors
from ccnn_irregular.operators.engines.engine import Cost, Engine, Plan
from ccnn_irregular.operators.layout import balance, from_rows, pair_points, restored, to_rows, weighted
from ccnn_irregular.operators.planning.rates import Work
from ccnn_irregular.operators.planning.work import PairWork, evaluation_work, kernel_work, pair_work, scale

__all__ = ["PairGeometry", "PairProblem", "Reference", "pair_cost", "pair_gradients", "sum_over_pairs"]

# Larger blocks fall out of a CPU's cache: in them the backward pass takes twice as long. A GPU is idle in small ones.
_PAIRS_PER_BLOCK, _TIMES_ON_GPUS = 1 << 16, 16
# Every block adds to the gradient of all source rows, so a block may not be much smaller than their number.
_SOURCE_ROWS_PER_PAIR = 4
# Calls of array operations: to enumerate the pairs once, and for each block of them.
_PLAN_CALLS, _BLOCK_CALLS = 80, 60
# Bytes of the geometry per row of either domain, float64 coordinates and int64 offsets, where a grid is expanded too.
_BYTES_PER_ROW = 64
# Bytes of a block per pair: int64 rows and float64 offsets, and what it takes to make them.
_BYTES_PER_PAIR = 192


def pairs_per_block(source_rows: int, device: torch.device) -> int:
    """Pairs that are evaluated at once."""
    pairs = _PAIRS_PER_BLOCK if device.type == "cpu" else _PAIRS_PER_BLOCK * _TIMES_ON_GPUS
    return max(pairs, source_rows // _SOURCE_ROWS_PER_PAIR)


@dataclass(frozen=True)
class PairGeometry:
    """Which source rows each query row is paired with: all rows of its own sample, or those listed.

    Attributes:
        source, query: the two domains as points with equal samples.
        first: int64 ``(M,)`` first source row of each query row, where it is paired with a whole sample.
        pairs: int64 ``(M + 1,)`` offsets of each query row's pairs in the list of all pairs.
        period, inverse_period: float64 ``(d,)``; 0 on axes that do not repeat.
        partners: source row of every pair, any integer dtype, or None = consecutive rows from ``first``.
    """

    source: Points
    query: Points
    first: Tensor
    pairs: Tensor
    period: Tensor
    inverse_period: Tensor
    partners: Tensor | None = None

    @classmethod
    def build(cls, source: Domain, query: Domain, device: torch.device) -> PairGeometry:
        """All pairs within samples; grids are laid out on ``device``."""
        sources, queries = pair_points(source, query, device)
        sample = queries.sample_index()
        partners = sources.splits.diff()[sample]
        pairs = torch.cat([partners.new_zeros(1), partners.cumsum(0)])
        period = [0.0 if p is None else p for p in sources.periods]
        inverse = [0.0 if p is None else 1 / p for p in sources.periods]
        options = {"dtype": torch.float64, "device": sources.device}
        return cls(
            sources,
            queries,
            sources.splits[sample],
            pairs,
            torch.tensor(period, **options),  # type: ignore[arg-type]
            torch.tensor(inverse, **options),  # type: ignore[arg-type]
        )

    @cached_property
    def ends(self) -> Tensor:
        """``pairs`` on the CPU, where Python reads them in every block without waiting for a GPU."""
        return self.pairs.cpu()

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Ranges of query rows with about ``pairs_per_block`` pairs each (one row at the least)."""
        rows, start, budget = len(self.first), 0, pairs_per_block(self.source.count, self.first.device)
        while start < rows:
            limit = self.ends[start] + budget
            stop = max(start + 1, int(torch.searchsorted(self.ends, limit, right=True)) - 1)
            yield start, min(stop, rows)
            start = min(stop, rows)

    def offsets(self, start: int, stop: int) -> tuple[Tensor, Tensor, Tensor]:
        """Query row, source row and wrapped offset (float64) of every pair of query rows [start, stop)."""
        rows = torch.arange(start, stop, device=self.first.device)
        count = self.pairs[start + 1 : stop + 1] - self.pairs[start:stop]
        begin, end = int(self.ends[start]), int(self.ends[stop])
        query = torch.repeat_interleave(rows, count, output_size=end - begin)
        if self.partners is None:
            position = torch.arange(begin, end, device=rows.device)
            source = self.first[query] + position - self.pairs[query]
        else:
            source = self.partners[begin:end].to(torch.int64)
        offset = self.query.coordinates.index_select(0, query) - self.source.coordinates.index_select(0, source)
        return query, source, offset - self.period * torch.round(offset * self.inverse_period)


@final
class Reference(Engine):
    """Blocked PyTorch. Memory is that of one block: the kernel is evaluated anew in the backward pass."""

    name: ClassVar[str] = "reference"
    transformable: ClassVar[bool] = True

    def cost(self, kernel: Kernel, source: Domain, query: Domain, batch: int, rtol: float) -> Cost:
        work = pair_work(source, query)
        rows = work.sources + work.queries
        summed = pair_cost(kernel, work, work.pairs, batch)
        plan = Work(call=_PLAN_CALLS, pair=rows)
        return Cost(plan, summed.forward, summed.backward, _BYTES_PER_ROW * rows + summed.bytes)

    def prepare(
        self, kernels: Sequence[Kernel], source: Domain, query: Domain, rtol: float, study: Any = None
    ) -> PairGeometry:
        return PairGeometry.build(source, query, kernels[0].extent.device)

    def apply(self, kernel: Kernel, values: Tensor, plan: Plan) -> Tensor:
        return sum_over_pairs(kernel, values, plan.source, plan.query, plan.geometry)


def pair_cost(kernel: Kernel, work: PairWork, pairs: float, batch: int) -> Cost:
    """Predicted cost of ``sum_over_pairs`` over so many of the domains' pairs, geometry apart."""
    item, (evaluated, evaluated_backward) = kernel.extent.element_size(), kernel_work(kernel, pairs)
    values = scale(kernel) * pairs * batch * kernel.generator.out_channels
    block = min(pairs, max(pairs_per_block(int(work.sources), kernel.extent.device), work.widest))
    blocks = math.ceil(pairs / max(block, 1.0))
    forward = evaluated + Work(call=_BLOCK_CALLS * blocks, pair=pairs, pair_value=values)
    backward = evaluated_backward + Work(call=2 * _BLOCK_CALLS * blocks, pair_value_backward=values)
    if blocks > 1:
        backward += forward  # every block is computed anew
    per_pair = _BYTES_PER_PAIR + item * _pair_numbers(kernel, batch)
    # The weighted rows, their gradient, and the addend of one block to it; the result before it is laid out anew.
    rows = item * batch * (4 * work.sources * kernel.in_channels + 2 * work.queries * kernel.out_channels)
    return Cost(Work(), forward, backward, block * per_pair + rows)


def _pair_numbers(kernel: Kernel, batch: int) -> float:
    """Numbers of the kernel's dtype that live at once for each pair of a block in the backward pass."""
    read, written = batch * kernel.in_channels, batch * kernel.out_channels
    # Gradients of what is saved live only as long as they are passed on.
    return 1.3 * evaluation_work(kernel).saved + 2 * kernel.generator.out_channels + 2 * read + 2 * written


def sum_over_pairs(kernel: Kernel, values: Tensor, source: Domain, query: Domain, geometry: PairGeometry) -> Tensor:
    """The convolution as a sum over the geometry's pairs in blocks; values and result in the domains' conventions."""
    weights = geometry.source.weights * kernel.scale
    factor = balance(weights)
    rows = weighted(to_rows(values, source, query), weights, factor)
    problem = PairProblem.build(kernel, geometry)
    # Function transforms take tensor operations alone: no blocks that are computed anew in the backward pass.
    if transforms_active() or int(geometry.ends[-1]) <= pairs_per_block(geometry.source.count, rows.device):
        result = _block_sum(problem, rows, 0, len(geometry.first))
    else:
        result = _BlockedSum.apply(problem, rows, *problem.tensors())
    return from_rows(restored(result, factor), source, query)


@dataclass(frozen=True)
class PairProblem:
    """A kernel on pairs of points: the matrix K(q_m - p_n), or its transpose, that values are multiplied by.

    The kernel's scale is left out of it: it is multiplied into the weights.

    Attributes:
        kernel: a twin of the kernel, with its tensors as they were when the sum was taken.
        geometry: the pairs the sum is over.
        coordinates: coordinates of queries and sources, one tensor where they are the same.
        transposed: whether the sum is over the queries, of values given there.
    """

    kernel: Kernel
    geometry: PairGeometry
    coordinates: tuple[Tensor, ...]
    transposed: bool = False

    @classmethod
    def build(cls, kernel: Kernel, geometry: PairGeometry) -> PairProblem:
        """The kernel with its parameters of this moment."""
        # A tensor that is given twice would get the sum of both gradients twice.
        coordinates = {id(one): one for one in (geometry.query.coordinates, geometry.source.coordinates)}
        return cls(with_tensors(kernel, {}), geometry, tuple(coordinates.values()))

    def tensors(self) -> tuple[Tensor, ...]:
        """All that the matrix depends on."""
        return (*self.coordinates, *self.kernel.parameters())

    def with_tensors(self, tensors: Sequence[Tensor], *, transposed: bool) -> PairProblem:
        """The same with the tensors in place of ``tensors()``."""
        count = len(self.coordinates)
        names = [name for name, _ in self.kernel.named_parameters()]
        kernel = with_tensors(self.kernel, dict(zip(names, tensors[count:], strict=True)))
        return replace(self, kernel=kernel, coordinates=tuple(tensors[:count]), transposed=transposed)

    def pairs(self, start: int, stop: int) -> tuple[Tensor, Tensor, Tensor]:
        """Query row, source row and unscaled kernel values of every pair of query rows [start, stop)."""
        query, source, offset = self.geometry.offsets(start, stop)
        return query, source, self.kernel.unscaled(offset.to(self.kernel.dtype))


class _BlockedSum(torch.autograd.Function):
    """The sum in blocks of pairs, rows ``(N, B, C)`` to ``(M, B, D)``; no block outlives its turn."""

    @staticmethod
    def forward(ctx: Any, problem: PairProblem, rows: Tensor, *tensors: Tensor) -> Tensor:
        ctx.problem = problem
        ctx.save_for_backward(rows, *tensors)
        result = rows.new_empty(len(problem.geometry.first), rows.shape[1], problem.kernel.out_channels)
        for start, stop in problem.geometry.blocks():
            result[start:stop] = _block_sum(problem, rows, start, stop)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, *tensors = ctx.saved_tensors
        _, wants_rows, *wanted = ctx.needs_input_grad
        problem = ctx.problem.with_tensors(tensors, transposed=False)
        of_rows, of_tensors = pair_gradients(problem, gradient, rows, wanted, wants_rows=wants_rows)
        return None, of_rows, *of_tensors


@outside_autocast
def pair_gradients(
    problem: PairProblem, at_query: Tensor, at_source: Tensor, wanted: Sequence[bool], *, wants_rows: bool
) -> tuple[Tensor | None, list[Tensor | None]]:
    """Gradients of sum_mn at_query_m . K(q_m - p_n) at_source_n, block by block, differentiable in grad mode.

    Args:
        problem: the kernel and the pairs.
        at_query: ``(M, B, D)``.
        at_source: ``(N, B, C)``.
        wanted: which of ``problem.tensors()`` want theirs.
        wants_rows: whether ``at_source`` wants its own.

    Returns:
        The gradient of ``at_source``, and those of the problem's tensors; None where it is not wanted.
    """
    inputs = [tensor for tensor, wants in zip(problem.tensors(), wanted, strict=True) if wants]
    depthwise, differentiable = problem.kernel.depthwise, torch.is_grad_enabled()
    # Sums over any number of queries, and of blocks: in float64.
    of_rows = torch.zeros_like(at_source, dtype=torch.float64) if wants_rows else None
    totals = [torch.zeros_like(one, dtype=torch.float64) for one in inputs]
    for start, stop in problem.geometry.blocks() if inputs or wants_rows else ():
        with torch.set_grad_enabled(bool(inputs) or differentiable):
            query, source, values = problem.pairs(start, stop)
        left = at_query.index_select(0, query)
        if of_rows is not None:
            own = values if differentiable else values.detach()
            parts = (own[:, None] * left if depthwise else torch.einsum("pdc,pbd->pbc", own, left)).double()
            of_rows = of_rows.index_add(0, source, parts) if differentiable else of_rows.index_add_(0, source, parts)
        if inputs:
            right = at_source.index_select(0, source)
            slope = (left * right).sum(1) if depthwise else torch.einsum("pbd,pbc->pdc", left, right)
            gradients = torch.autograd.grad(
                values, inputs, slope, create_graph=differentiable, allow_unused=True, materialize_grads=True
            )
            totals = [total + one for total, one in zip(totals, gradients, strict=True)]
    remaining = (total.to(one.dtype) for total, one in zip(totals, inputs, strict=True))
    of_rows = None if of_rows is None else of_rows.to(at_source.dtype)
    return of_rows, [next(remaining) if wants else None for wants in wanted]


def _block_sum(problem: PairProblem, rows: Tensor, start: int, stop: int) -> Tensor:
    """Sum over the pairs of query rows [start, stop): ``(stop - start, B, D)``."""
    query, products = _products(problem, rows, start, stop)
    return sums_of_sorted(products, query - start, stop - start)


def _products(problem: PairProblem, rows: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
    """Query row, and kernel times value ``(pairs, B, D)``, of every pair of query rows [start, stop)."""
    query, source, kernel_values = problem.pairs(start, stop)
    values = gathered(rows, source)  # (pairs, B, C)
    if problem.kernel.depthwise:
        return query, kernel_values[:, None, :] * values
    return query, torch.einsum("pdc,pbc->pbd", kernel_values, values)
