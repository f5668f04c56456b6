"""The sum over the pairs within the kernel's support only: exact, and cheap where the kernel is compact.

The pairs are found once per plan by a radius search of SciPy's k-d tree. Each axis is divided by the
kernel's support there, so that the box, or the ellipsoid of a ``GaussianMask``, becomes a ball of
radius 1; one more axis keeps the samples of a ragged batch apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from ccnn_irregular._checks import require
from ccnn_irregular.domains import Domain, Grid, Points
from ccnn_irregular.kernels import GaussianMask, Kernel
from ccnn_irregular.operators.engine import Cost, Engine, Plan
from ccnn_irregular.operators.layout import pair_points
from ccnn_irregular.operators.reference import PairGeometry, pair_cost, sum_over_pairs

__all__ = ["Neighbours"]

# Relative to the support: rounding of scaled coordinates or of a float32 width must not lose a pair.
_MARGIN = 1e-6
_SAMPLE_DISTANCE = 4.0
# Lags this far in the past of zero, relative to the extent, are the future to a causal kernel. Twice its tolerance.
_FUTURE = 2e-6
# Pairs that one call of the search may find, and bytes it needs for each before they are packed.
_PAIRS_PER_SEARCH = 1 << 22
_BYTES_PER_FOUND_PAIR = 40
# Points drawn of either domain to predict the number of pairs.
_DRAWN_QUERIES, _DRAWN_SOURCES = 1024, 16384


@dataclass(frozen=True)
class _Geometry:
    """What a plan holds.

    Attributes:
        pairs: the pairs, by query row.
        support: kernel support per axis that was searched for, coordinate units.
        ball: whether only the ellipsoid in that box was searched, as masks that are Gaussian allow.
        extents: per axis, the largest extent of a kernel for which no pair that counts was dropped as its future;
            None on axes that are not causal.
    """

    pairs: PairGeometry
    support: tuple[float, ...]
    ball: bool
    extents: tuple[float | None, ...]


@final
class Neighbours(Engine):
    """Blocked PyTorch over the pairs that a radius search found. Exact, for kernels with a mask."""

    name: ClassVar[str] = "neighbours"
    plan_follows_kernel: ClassVar[bool] = True

    def assess(self, kernel: Kernel, source: Domain, query: Domain, batch: int, rtol: float) -> Cost | str:
        if isinstance(source, Grid) and isinstance(query, Grid):
            return "both domains are grids: 'fft' is exact there"
        if kernel.mask is None:
            return "the kernel has no mask, so every point is a neighbour of every other"
        sources, queries = pair_points(source, query)
        pairs = _predicted_pairs(kernel, sources, queries)
        summed = pair_cost(kernel, pairs, sources.count, batch)
        search = _BYTES_PER_FOUND_PAIR * min(pairs, _PAIRS_PER_SEARCH)
        memory = max(summed.bytes, search) + _index_dtype(sources).itemsize * pairs
        note = f"about {pairs / max(queries.count, 1):.3g} neighbours a point"
        return Cost(0.0, summed.forward_seconds, summed.backward_seconds, memory, note)

    def prepare(self, kernel: Kernel, source: Domain, query: Domain, rtol: float) -> _Geometry:
        every = PairGeometry.build(source, query)
        sources, queries = every.source, every.query
        counts, partners = _search(kernel, sources, queries)
        counts, partners = counts.to(sources.device), partners.to(sources.device)
        pairs = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        found = PairGeometry(sources, queries, every.first, pairs, every.period, every.inverse_period, partners)
        if kernel.causal_axes:
            found = _without_future(kernel, found)
        extent = kernel.extent.tolist()
        causal = tuple(extent[axis] if axis in kernel.causal_axes else None for axis in range(kernel.d))
        return _Geometry(found, tuple(kernel.support.tolist()), _is_ball(kernel), causal)

    def apply(self, kernel: Kernel, values: Tensor, plan: Plan) -> Tensor:
        geometry: _Geometry = plan.geometry
        _require_fit(kernel, geometry)
        return sum_over_pairs(kernel, values, plan.source, plan.query, geometry.pairs)


def _is_ball(kernel: Kernel) -> bool:
    """Whether the kernel is zero outside the ellipsoid in its support's box, not only outside the box."""
    return isinstance(kernel.mask, GaussianMask)


def _norm(kernel: Kernel) -> float:
    return 2.0 if _is_ball(kernel) else math.inf


def _require_fit(kernel: Kernel, geometry: _Geometry) -> None:
    for axis, (reach, planned) in enumerate(zip(kernel.support.tolist(), geometry.support, strict=True)):
        rule = f"be made anew when the kernel's support on axis {axis} grows beyond {planned:g}"
        require(reach <= planned * (1 + _MARGIN / 2), "plan", rule, f"{reach:g}")
    require(_is_ball(kernel) or not geometry.ball, "plan", "be made with a kernel of this mask", type(kernel.mask))
    for axis, (extent, most) in enumerate(zip(kernel.extent.tolist(), geometry.extents, strict=True)):
        if most is not None:
            rule = f"be made anew for a kernel that is not causal on axis {axis}"
            require(axis in kernel.causal_axes, "plan", rule, kernel.causal_axes)
            rule = f"be made anew when the extent on the causal axis {axis} grows beyond {most:g}"
            require(extent <= most, "plan", rule, f"{extent:g}")


def _index_dtype(sources: Points) -> torch.dtype:
    return torch.int32 if sources.count < 2**31 else torch.int64


def _scaled(
    kernel: Kernel, sources: Points, queries: Points
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], list[float]]:
    """Coordinates of both in units of the support, with the sample as one more axis, and each axis' period or 0."""
    support = kernel.support.to("cpu", torch.float64)
    reaches = zip(sources.periods, support.tolist(), strict=True)
    periods = [0.0 if period is None else period / reach for period, reach in reaches]
    sides = []
    for points in (sources, queries):
        scaled = points.coordinates.detach().cpu() / support
        for axis, period in enumerate(periods):
            if period:
                wrapped = torch.remainder(scaled[:, axis], period)
                # The remainder of -1e-20 rounds to the period itself, which the tree refuses.
                scaled[:, axis] = torch.where(wrapped >= period, 0.0, wrapped)
        sample = points.sample_index().cpu().to(torch.float64) * _SAMPLE_DISTANCE
        sides.append(torch.cat([scaled, sample[:, None]], dim=1).numpy())
    return sides[0], sides[1], [*periods, 0.0]


def _predicted_pairs(kernel: Kernel, sources: Points, queries: Points) -> float:
    """Number of pairs within the support, counted on random points of both domains; exact for few points."""
    source, query, periods = _scaled(kernel, sources, queries)
    if not len(source) or not len(query):
        return 0.0
    few_sources, few_queries = _drawn(source, _DRAWN_SOURCES), _drawn(query, _DRAWN_QUERIES)
    tree = cKDTree(few_sources, boxsize=periods)
    count = tree.query_ball_point(few_queries, 1 + _MARGIN, p=_norm(kernel), return_length=True).sum()
    return float(count) * (len(source) / len(few_sources)) * (len(query) / len(few_queries))


def _drawn(rows: np.ndarray[Any, Any], count: int) -> np.ndarray[Any, Any]:
    """At most ``count`` random rows, the same in every call; no seed of the caller's is spent."""
    if len(rows) <= count:
        return rows
    return rows[np.random.default_rng(0).choice(len(rows), count, replace=False)]


def _search(kernel: Kernel, sources: Points, queries: Points) -> tuple[Tensor, Tensor]:
    """Number of neighbours of each query row, int64, and their source rows, ascending within a query row."""
    per_row = _predicted_pairs(kernel, sources, queries) / max(queries.count, 1)
    rows = max(1, int(_PAIRS_PER_SEARCH / max(per_row, 1.0)))
    source, query, periods = _scaled(kernel, sources, queries)
    dtype = _index_dtype(sources)
    counts, partners = [torch.zeros(0, dtype=torch.int64)], [torch.zeros(0, dtype=dtype)]
    tree = cKDTree(source, boxsize=periods)
    for start in range(0, len(query), rows):
        block = cKDTree(query[start : start + rows], boxsize=periods)
        found = block.sparse_distance_matrix(tree, 1 + _MARGIN, p=_norm(kernel), output_type="coo_matrix").tocsr()
        found.sort_indices()
        counts.append(torch.from_numpy(np.diff(found.indptr)).to(torch.int64))
        partners.append(torch.from_numpy(found.indices).to(dtype))
    return torch.cat(counts), torch.cat(partners)


@torch.no_grad()
def _without_future(kernel: Kernel, pairs: PairGeometry) -> PairGeometry:
    """The pairs less those whose lag on a causal axis is negative."""
    assert pairs.partners is not None
    kept, counts = [pairs.partners[:0]], [pairs.pairs[:0]]
    for start, stop in pairs.blocks():
        query, source, offset = pairs.offsets(start, stop)
        past = torch.ones_like(query, dtype=torch.bool)
        for axis in kernel.causal_axes:
            past &= offset[:, axis] >= -_FUTURE * kernel.extent[axis].to(torch.float64)
        kept.append(source[past].to(pairs.partners.dtype))
        counts.append(torch.bincount(query[past] - start, minlength=stop - start))
    ends = torch.cat(counts).cumsum(0)
    offsets = torch.cat([ends.new_zeros(1), ends])
    return PairGeometry(
        pairs.source, pairs.query, pairs.first, offsets, pairs.period, pairs.inverse_period, torch.cat(kept)
    )
