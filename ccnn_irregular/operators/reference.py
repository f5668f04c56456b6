"""The sum as written, in blocks of pairs: slow, exact for every kernel and domain, the judge of all engines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ccnn_irregular.domains import Domain, Points
from ccnn_irregular.kernels import Kernel
from ccnn_irregular.operators.engine import Cost, Engine, Plan
from ccnn_irregular.operators.layout import from_rows, pair_points, to_rows, weighted

__all__ = ["PairGeometry", "Reference", "kernel_work", "pair_count"]

_PAIRS_PER_BLOCK = 1 << 18
# Seconds per pair and multiply-add of the generator, and per pair and value gathered, multiplied and added up;
# measured on two CPU cores in float32.
_SECONDS_PER_OPERATION = 2.7e-10
_SECONDS_PER_VALUE = 1.5e-8


def kernel_work(kernel: Kernel) -> int:
    """Multiply-adds of one kernel evaluation: one per parameter of its generator."""
    return sum(parameter.numel() for parameter in kernel.generator.parameters())


def pair_count(source: Domain, query: Domain) -> int:
    """Number of (source, query) pairs within samples."""
    sources, queries = pair_points(source, query)
    return int((sources.splits.diff() * queries.splits.diff()).sum())


@dataclass(frozen=True)
class PairGeometry:
    """Which source rows each query row is paired with: all rows of its own sample.

    Attributes:
        source, query: the two domains as points with equal samples.
        first: int64 ``(M,)`` first source row of each query row.
        pairs: int64 ``(M + 1,)`` offsets of each query row's pairs in the list of all pairs.
        period, inverse_period: float64 ``(d,)``; 0 on axes that do not repeat.
    """

    source: Points
    query: Points
    first: Tensor
    pairs: Tensor
    period: Tensor
    inverse_period: Tensor

    @classmethod
    def build(cls, source: Domain, query: Domain) -> PairGeometry:
        sources, queries = pair_points(source, query)
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

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Ranges of query rows with about ``_PAIRS_PER_BLOCK`` pairs each (one row at the least)."""
        rows, start = len(self.first), 0
        while start < rows:
            limit = self.pairs[start] + _PAIRS_PER_BLOCK
            stop = max(start + 1, int(torch.searchsorted(self.pairs, limit, right=True)) - 1)
            yield start, min(stop, rows)
            start = min(stop, rows)

    def offsets(self, start: int, stop: int) -> tuple[Tensor, Tensor, Tensor]:
        """Query row, source row and wrapped offset (float64) of every pair of query rows [start, stop)."""
        rows = torch.arange(start, stop, device=self.first.device)
        count = self.pairs[start + 1 : stop + 1] - self.pairs[start:stop]
        total = int(self.pairs[stop] - self.pairs[start])
        query = torch.repeat_interleave(rows, count, output_size=total)
        position = torch.arange(total, device=rows.device) + self.pairs[start]
        source = self.first[query] + position - self.pairs[query]
        offset = self.query.coordinates[query] - self.source.coordinates[source]
        return query, source, offset - self.period * torch.round(offset * self.inverse_period)


@final
class Reference(Engine):
    """Blocked PyTorch. Memory is that of one block: blocks are recomputed in the backward pass."""

    name: ClassVar[str] = "reference"

    def unsuitable(self, kernel: Kernel, source: Domain, query: Domain, rtol: float) -> str | None:
        return None

    def cost(self, kernel: Kernel, source: Domain, query: Domain, batch: int, rtol: float) -> Cost:
        pairs = pair_count(source, query)
        block = min(pairs, _PAIRS_PER_BLOCK)
        item = kernel.extent.element_size()
        values = batch * kernel.generator.out_channels
        seconds = pairs * (kernel_work(kernel) * _SECONDS_PER_OPERATION + values * _SECONDS_PER_VALUE)
        # About ten intermediates of the generator's width live at once in a block.
        return Cost(seconds, 10.0 * block * item * max(32, values))

    def prepare(self, kernel: Kernel, source: Domain, query: Domain, rtol: float) -> PairGeometry:
        return PairGeometry.build(source, query)

    def apply(self, kernel: Kernel, values: Tensor, plan: Plan) -> Tensor:
        geometry: PairGeometry = plan.geometry
        rows = weighted(to_rows(values, plan.source, plan.query), geometry.source.weights)
        blocks = list(geometry.blocks())
        recompute = len(blocks) > 1 and torch.is_grad_enabled()

        def sums(start: int, stop: int) -> Tensor:
            return _block_sum(kernel, rows, geometry, start, stop)

        parts = [
            checkpoint(sums, start, stop, use_reentrant=False) if recompute else sums(start, stop)
            for start, stop in blocks
        ]
        result = torch.cat(parts) if parts else rows.new_zeros(0, rows.shape[1], kernel.out_channels)
        return from_rows(result, plan.source, plan.query)


def _block_sum(kernel: Kernel, rows: Tensor, geometry: PairGeometry, start: int, stop: int) -> Tensor:
    """Sum over the pairs of query rows [start, stop): ``(stop - start, B, D)``."""
    query, source, offset = geometry.offsets(start, stop)
    kernel_values = kernel(offset.to(rows.dtype))
    values = rows[source]  # (pairs, B, C)
    if kernel.depthwise:
        products = kernel_values[:, None, :] * values
    else:
        products = torch.einsum("pdc,pbc->pbd", kernel_values, values)
    sums = products.new_zeros(stop - start, products.shape[1], products.shape[2])
    return sums.index_add(0, query - start, products)
