"""The sum over the pairs within the kernel's support only: exact, and cheap where the kernel is compact.

The pairs are found once per plan by a radius search of SciPy's k-d tree. Each axis is divided by the
kernel's support there, so that the box, or the ellipsoid of a ``GaussianMask``, becomes a ball of
radius 1; one more axis keeps the samples of a ragged batch apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
import torch
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree
from torch import Tensor

from ccnn_irregular._checks import require
from ccnn_irregular._transforms import as_numpy
from ccnn_irregular.domains import Domain, Points
from ccnn_irregular.kernels import Kernel
from ccnn_irregular.operators.engines.engine import Cost, Engine, Plan
from ccnn_irregular.operators.engines.reference import PairGeometry, pair_cost, sum_over_pairs
from ccnn_irregular.operators.layout import both_grids
from ccnn_irregular.operators.planning.rates import Work
from ccnn_irregular.operators.planning.work import drawn, pair_work

__all__ = ["Neighbours"]

# Relative to the support: rounding of scaled coordinates or of a float32 width must not lose a pair.
_MARGIN = 1e-6
_SAMPLE_DISTANCE = 4.0
# Lags this far in the past of zero, relative to the extent, are the future to a causal kernel. Twice its tolerance.
_FUTURE = 2e-6
# Pairs that one call of the search may find, and bytes it needs for each before they are packed.
_PAIRS_PER_SEARCH = 1 << 22
_BYTES_PER_FOUND_PAIR = 40
# Calls of array operations to lay out the geometry, and what a row costs the search besides its pairs, in found pairs.
_PLAN_CALLS, _ROW_IN_PAIRS = 120, 4
# Bytes of the geometry per row of either domain, where a grid is expanded too.
_BYTES_PER_ROW = 64
# Points drawn of either domain to predict the number of pairs.
_DRAWN_QUERIES, _DRAWN_SOURCES = 1024, 16384


@dataclass(frozen=True)
class _Reach:
    """Which offsets count.

    Attributes:
        centre, half_width: float64 ``(d,)``, of the box of offsets outside which the kernels are zero.
        ball: whether they are zero outside the ellipsoid in that box too.
        extents: per axis, the largest extent of a kernel for which no pair that counts is dropped as its future;
            None on axes that are not causal.
    """

    centre: Tensor
    half_width: Tensor
    ball: bool
    extents: tuple[float | None, ...]

    @classmethod
    def of(cls, kernels: Sequence[Kernel]) -> _Reach:
        """What holds all of the kernels; they are causal on the same axes."""
        boxes = [_box(kernel) for kernel in kernels]
        lowest = torch.stack([centre - half_width for centre, half_width in boxes]).amin(0)
        highest = torch.stack([centre + half_width for centre, half_width in boxes]).amax(0)
        centre = boxes[0][0]
        # Ellipsoids about one centre lie within that of the largest half widths, others only within their box.
        ball = all(
            _is_ball(kernel) and torch.equal(own, centre) for kernel, (own, _) in zip(kernels, boxes, strict=True)
        )
        if ball:
            half_width = torch.stack([half_width for _, half_width in boxes]).amax(0)
        else:
            centre, half_width = (lowest + highest) / 2, (highest - lowest) / 2
        extents = torch.stack([kernel.extent.to("cpu", torch.float64) for kernel in kernels]).amax(0).tolist()
        causal = kernels[0].causal_axes
        return cls(centre, half_width, ball, tuple(e if axis in causal else None for axis, e in enumerate(extents)))

    @property
    def norm(self) -> float:
        """Order of the norm in which offsets in units of the half width are at most 1."""
        return 2.0 if self.ball else math.inf


@dataclass(frozen=True)
class _Geometry:
    """What a plan holds: the pairs by query row, and the offsets that were searched."""

    pairs: PairGeometry
    reach: _Reach


@final
class Neighbours(Engine):
    """Blocked PyTorch over the pairs that a radius search found. Exact, for kernels with a mask."""

    name: ClassVar[str] = "neighbours"
    plan_follows_kernel: ClassVar[bool] = True
    transformable: ClassVar[bool] = True

    def refuses(self, kernel: Kernel, source: Domain, query: Domain) -> str | None:
        if both_grids(source, query):
            return "both domains are grids: 'fft' is exact there"
        if kernel.mask is None:
            return "the kernel has no mask, so every point is a neighbour of every other: take 'reference'"
        return None

    def cost(self, kernel: Kernel, source: Domain, query: Domain, batch: int, rtol: float) -> Cost:
        work = pair_work(source, query)
        found = _predicted_pairs(_Reach.of([kernel]), source, query)
        pairs = found / 2 ** len(kernel.causal_axes)  # the future is dropped once it is found
        rows = work.sources + work.queries
        summed = pair_cost(kernel, work, pairs, batch)
        plan = Work(call=_PLAN_CALLS, search=found + _ROW_IN_PAIRS * rows)
        search = _BYTES_PER_FOUND_PAIR * min(found, _PAIRS_PER_SEARCH)
        kept = _BYTES_PER_ROW * rows + _index_dtype(work.sources).itemsize * pairs
        # While the blocks of the search are joined, all partners are there twice.
        memory = kept + max(summed.bytes, search, _index_dtype(work.sources).itemsize * found)
        note = f"about {pairs / max(work.queries, 1.0):.3g} neighbours a point"
        return Cost(plan, summed.forward, summed.backward, memory, note, study=found)

    def prepare(
        self, kernels: Sequence[Kernel], source: Domain, query: Domain, rtol: float, study: float | None = None
    ) -> _Geometry:
        every, reach = PairGeometry.build(source, query, kernels[0].extent.device), _Reach.of(kernels)
        sources, queries = every.source, every.query
        found = _predicted_pairs(reach, sources, queries) if study is None else study
        counts, partners = _search(reach, sources, queries, found / max(queries.count, 1))
        counts, partners = counts.to(sources.device), partners.to(sources.device)
        pairs = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        listed = PairGeometry(sources, queries, every.first, pairs, every.period, every.inverse_period, partners)
        return _Geometry(_without_future(reach, listed), reach)

    def apply(self, kernel: Kernel, values: Tensor, plan: Plan) -> Tensor:
        geometry: _Geometry = plan.geometry
        _require_fit(kernel, geometry.reach)
        return sum_over_pairs(kernel, values, plan.source, plan.query, geometry.pairs)


def _is_ball(kernel: Kernel) -> bool:
    """Whether the kernel is zero outside the ellipsoid in its box, not only outside the box."""
    return kernel.mask is not None and kernel.mask.ellipsoidal


def _box(kernel: Kernel) -> tuple[Tensor, Tensor]:
    """Middle and half width of the box of offsets outside which the kernel is zero, float64 ``(d,)``."""
    centre, half_width = torch.zeros_like(kernel.support), kernel.support
    if kernel.mask is not None:
        centre, half_width = kernel.mask.centre, kernel.mask.half_width
    return centre.to("cpu", torch.float64), half_width.to("cpu", torch.float64)


def _require_fit(kernel: Kernel, planned: _Reach) -> None:
    centre, half_width = _box(kernel)
    moved = (centre - planned.centre).abs()
    for axis, (own, most) in enumerate(zip((moved + half_width).tolist(), planned.half_width.tolist(), strict=True)):
        rule = f"be made anew when the kernel's support on axis {axis} grows beyond {most:g}"
        require(own <= most * (1 + _MARGIN / 2), "plan", rule, f"{own:g}")
    require(_is_ball(kernel) or not planned.ball, "plan", "be made with a kernel of this mask", type(kernel.mask))
    # The shrunken ellipsoid lies within the planned one if its middle is no farther off than what it lost.
    lost = float((moved / planned.half_width).norm()) + float((half_width / planned.half_width).max())
    rule = f"be made anew when the kernel's centre moves away from {tuple(planned.centre.tolist())}"
    require(lost <= 1 + _MARGIN / 2 or not planned.ball, "plan", rule, tuple(centre.tolist()))
    for axis, (extent, largest) in enumerate(zip(kernel.extent.tolist(), planned.extents, strict=True)):
        if largest is not None:
            rule = f"be made anew for a kernel that is not causal on axis {axis}"
            require(axis in kernel.causal_axes, "plan", rule, kernel.causal_axes)
            rule = f"be made anew when the extent on the causal axis {axis} grows beyond {largest:g}"
            require(extent <= largest, "plan", rule, f"{extent:g}")


def _index_dtype(sources: float) -> torch.dtype:
    return torch.int32 if sources < 2**31 else torch.int64


def _scaled_periods(reach: _Reach, periods: Sequence[float | None]) -> list[float] | None:
    """Each axis' period in units of the half width, 0 where it does not repeat, and 0 for the axis of the samples.

    None where no axis repeats: the tree searches three times as fast if it is not told of periods.
    """
    if not any(periods):
        return None
    half_widths = reach.half_width.tolist()
    scaled = [0.0 if period is None else period / width for period, width in zip(periods, half_widths, strict=True)]
    return [*scaled, 0.0]


def _scaled(
    reach: _Reach, points: Points, boxsize: list[float] | None, *, queries: bool = False
) -> np.ndarray[Any, Any]:
    """Coordinates in units of the half width, with the sample as one more axis; queries less the centre."""
    coordinates = points.coordinates.detach().cpu()
    scaled = (coordinates - reach.centre if queries else coordinates) / reach.half_width
    for axis, period in enumerate(boxsize or ()):
        if period:
            wrapped = torch.remainder(scaled[:, axis], period)
            # The remainder of -1e-20 rounds to the period itself, which the tree refuses.
            scaled[:, axis] = torch.where(wrapped >= period, 0.0, wrapped)
    sample = points.sample_index().cpu().to(torch.float64) * _SAMPLE_DISTANCE
    return as_numpy(torch.cat([scaled, sample[:, None]], dim=1))


def _predicted_pairs(reach: _Reach, source: Domain, query: Domain) -> float:
    """Number of pairs within the support, counted on random points of both domains; exact for few points."""
    work = pair_work(source, query)
    if not work.sources or not work.queries:
        return 0.0
    samples = next((side.samples for side in (source, query) if side.samples is not None), 1)
    few_sources, few_queries = drawn(source, samples, _DRAWN_SOURCES), drawn(query, samples, _DRAWN_QUERIES)
    # The source's periods hold for both: queries need not say that an axis repeats.
    boxsize = _scaled_periods(reach, few_sources.periods)
    tree = cKDTree(_scaled(reach, few_sources, boxsize), boxsize=boxsize)
    count = tree.query_ball_point(
        _scaled(reach, few_queries, boxsize, queries=True), 1 + _MARGIN, p=reach.norm, return_length=True
    ).sum()
    return float(count) * (work.sources / few_sources.count) * (work.queries / few_queries.count)


def _search(reach: _Reach, sources: Points, queries: Points, per_row: float) -> tuple[Tensor, Tensor]:
    """Number of neighbours of each query row, int64, and their source rows, ascending within a query row.

    About ``per_row`` neighbours are expected of each.
    """
    rows = max(1, int(_PAIRS_PER_SEARCH / max(per_row, 1.0)))
    periods = _scaled_periods(reach, sources.periods)
    source, query = _scaled(reach, sources, periods), _scaled(reach, queries, periods, queries=True)
    dtype = _index_dtype(sources.count)
    counts, partners = [torch.zeros(0, dtype=torch.int64)], [torch.zeros(0, dtype=dtype)]
    tree = cKDTree(source, boxsize=periods)
    for start in range(0, len(query), rows):
        if rows >= len(query) and np.array_equal(source, query):
            found = _among_themselves(tree, reach)
        else:
            block = cKDTree(query[start : start + rows], boxsize=periods)
            found = block.sparse_distance_matrix(tree, 1 + _MARGIN, p=reach.norm, output_type="coo_matrix").tocsr()
        found.sort_indices()
        counts.append(torch.from_numpy(np.diff(found.indptr)).to(torch.int64))
        partners.append(torch.from_numpy(found.indices).to(dtype))
    return torch.cat(counts), torch.cat(partners)


def _among_themselves(tree: cKDTree, reach: _Reach) -> csr_matrix:
    """Pairs of the tree's own points: half of them are searched, and each is its own neighbour."""
    first, second = tree.query_pairs(1 + _MARGIN, p=reach.norm, output_type="ndarray").T
    own = np.arange(tree.n)
    rows, columns = np.concatenate([first, second, own]), np.concatenate([second, first, own])
    return csr_matrix((np.ones(len(rows), np.int8), (rows, columns)), shape=(tree.n, tree.n))


@torch.no_grad()
def _without_future(reach: _Reach, pairs: PairGeometry) -> PairGeometry:
    """The pairs less those whose lag on a causal axis is negative."""
    assert pairs.partners is not None
    causal = [(axis, extent) for axis, extent in enumerate(reach.extents) if extent is not None]
    if not causal:
        return pairs
    kept, counts = [pairs.partners[:0]], [pairs.pairs[:0]]
    for start, stop in pairs.blocks():
        query, source, offset = pairs.offsets(start, stop)
        past = torch.ones_like(query, dtype=torch.bool)
        for axis, extent in causal:
            past &= offset[:, axis] >= -_FUTURE * extent
        kept.append(source[past].to(pairs.partners.dtype))
        counts.append(torch.bincount(query[past] - start, minlength=stop - start))
    ends = torch.cat(counts).cumsum(0)
    offsets = torch.cat([ends.new_zeros(1), ends])
    return PairGeometry(
        pairs.source, pairs.query, pairs.first, offsets, pairs.period, pairs.inverse_period, torch.cat(kept)
    )
