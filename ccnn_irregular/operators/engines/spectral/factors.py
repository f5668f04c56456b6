"""What a convolution looks like to the spectral engine: axes taken apart, points that count, kernels made smooth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ccnn_irregular.domains import Domain, Points, Product
from ccnn_irregular.kernels import Kernel
from ccnn_irregular.operators.layout import pair_points
from ccnn_irregular.operators.numerics.lattice import Lattice, no_common_lattice
from ccnn_irregular.operators.numerics.splitting import shorten, split

__all__ = ["Factors", "Place", "Smoothing", "irregular_axes", "largest_support", "tapered_from"]

# Samples within the lags that are summed one by one, at each query, where a causal kernel is split.
_NEAR_SAMPLES = 12
# Support of a kernel in units of the lags that are left of it where the points are much closer together.
_LONGEST_IN_PLATEAUS = 16


@dataclass(frozen=True)
class Factors:
    """Source and query taken apart.

    Attributes:
        sources, queries: the irregular axes, with equal samples.
        lattices: the uniform axes that source and query have in common; none unless both are products.
        volume: cell volume of the source on the uniform axes.
        same: whether sources and queries are the same points.
    """

    sources: Points
    queries: Points
    lattices: tuple[Lattice, ...]
    volume: float
    same: bool

    @classmethod
    def build(cls, source: Domain, query: Domain) -> Factors:
        """Split a pair of domains into irregular axes and uniform lattices."""
        products = _on_one_lattice(source, query)
        if products is not None:
            first, second = products
            lattices = tuple(Lattice.build(a, b) for a, b in zip(first.grid.axes, second.grid.axes, strict=True))
            return cls(first.points, second.points, lattices, first.grid.cell_volume, first.points is second.points)
        sources, queries = pair_points(source, query)
        return cls(sources, sources if source is query else queries, (), 1.0, source is query)

    @property
    def d(self) -> int:
        """Number of irregular axes."""
        return self.sources.d


def irregular_axes(source: Domain, query: Domain) -> tuple[int, bool]:
    """Number of axes that go through a box of cells, and whether there are uniform axes besides."""
    products = _on_one_lattice(source, query)
    return (source.d, False) if products is None else (products[0].points.d, True)


def _on_one_lattice(source: Domain, query: Domain) -> tuple[Product, Product] | None:
    """The two domains where they are products whose uniform axes lie on a common lattice; else None."""
    if not (isinstance(source, Product) and isinstance(query, Product)) or source.grid.d != query.grid.d:
        return None
    return (source, query) if no_common_lattice(source.grid, query.grid) is None else None


@dataclass(frozen=True)
class Place:
    """Where the points are that can give or get anything.

    Attributes:
        sources, queries: which points count, bool ``(N,)`` and ``(M,)``.
        lowest, highest: bounds of both in each sample, float64 ``(B, d)``; 0 and 0 where there is none.
    """

    sources: Tensor
    queries: Tensor
    lowest: Tensor
    highest: Tensor

    @classmethod
    def of(cls, kernels: Sequence[Kernel], factors: Factors) -> Place:
        """The points within reach of the other side's bounding box in their sample."""
        used = _near(factors, largest_support(kernels))
        bounds = [_bounds(factors.sources, used[0]), _bounds(factors.queries, used[1])]
        lowest = torch.minimum(bounds[0][0], bounds[1][0])
        highest = torch.maximum(bounds[0][1], bounds[1][1])
        empty = lowest > highest
        return cls(*used, torch.where(empty, 0.0, lowest), torch.where(empty, 0.0, highest))


@dataclass(frozen=True)
class Smoothing:
    """How kernels are made smooth and short enough.

    Attributes:
        spans: per axis the largest lag that is used, where the kernels reach much farther; else None.
        jump: where a kernel that is causal in irregular time begins to be smooth, coordinate units, or None.
        rtol: relative error it may make.
    """

    spans: tuple[float | None, ...]
    jump: float | None
    rtol: float

    @classmethod
    def of(cls, kernels: Sequence[Kernel], factors: Factors, place: Place, rtol: float) -> Smoothing:
        """What these kernels need on these domains."""
        support, extents = largest_support(kernels).tolist(), place.highest - place.lowest
        largest, jump = extents.amax(0).tolist(), None
        if factors.d == 1 and 0 in kernels[0].causal_axes:
            within = float(extents.sum()) * _NEAR_SAMPLES / max(factors.sources.count, 1)
            jump = min(within, largest[0], support[0]) if within > 0 else support[0]
        spans: list[float | None] = [None] * len(support)
        for axis, (span, period) in enumerate(zip(largest, factors.sources.periods, strict=True)):
            if period is None:
                spans[axis] = tapered_from(span, support[axis], steep=jump is not None)
        return cls(tuple(spans), jump, rtol)

    def parts(self, kernel: Kernel) -> tuple[Kernel, Kernel | None]:
        """The part that is transformed, and the part of short reach where there is a jump."""
        near = None
        if self.jump is not None:
            kernel, near = split(kernel, 0, self.jump, self.rtol)
        return shorten(kernel, self.spans, self.rtol) if any(self.spans) else kernel, near


def tapered_from(span: float, support: float, *, steep: bool = False) -> float | None:
    """Where the taper of a kernel that reaches much farther than the largest lag may begin; None = it is left alone.

    The shorter the plateau of the taper, the worse the slope of a kernel that is flat there; beside a jump, which is as
    ``steep``, that does not count.
    """
    span = span if steep else max(span, support / _LONGEST_IN_PLATEAUS)
    return span if 0 < 2 * span < support else None


def _near(factors: Factors, support: Tensor) -> tuple[Tensor, Tensor]:
    """Which sources lie within reach of the queries' bounding box in their sample, and which queries of those sources'.

    All others neither give nor get anything, and must not make the box of cells larger.
    """
    sources, queries = factors.sources, factors.queries
    if factors.same:
        everything = torch.ones(sources.count, dtype=torch.bool, device=sources.device)
        return everything, everything
    reach = support[: factors.d].to(sources.coordinates)
    for axis, period in enumerate(sources.periods):
        if period is not None:
            reach[axis] = math.inf
    near = _within(sources, *_bounds(queries), reach)
    return near, _within(queries, *_bounds(sources, near), reach)


def _within(points: Points, lowest: Tensor, highest: Tensor, reach: Tensor) -> Tensor:
    sample, place = points.sample_index(), points.coordinates.detach()
    return ((place >= (lowest - reach)[sample]) & (place <= (highest + reach)[sample])).all(1)


def _bounds(points: Points, used: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Lowest and highest coordinates of each sample's used points, ``(B, d)``; inf and -inf where there are none."""
    place, sample = points.coordinates.detach(), points.sample_index()
    if used is not None:
        place, sample = place[used], sample[used]
    none = place.new_full((points.samples, points.d), math.inf)
    sample = sample[:, None].expand(place.shape)
    return none.scatter_reduce(0, sample, place, "amin"), (-none).scatter_reduce(0, sample, place, "amax")


def largest_support(kernels: Sequence[Kernel]) -> Tensor:
    """Half width of the box about zero outside which all of the kernels are zero, ``(d,)``."""
    return torch.stack([kernel.support for kernel in kernels]).amax(0)
