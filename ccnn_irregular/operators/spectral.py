"""The non-uniform FFT convolution of points, and of products of points with uniform axes.

    y = interp_q . FFTconv_K . spread_p (w x)

The irregular axes, three at the most, go through a box of cells (``nufft``); the uniform axes of a
``Product`` need no window: they are transformed as the exact FFT engine does (``lattice``), before the
points are spread, so that no cell of the box is ever combined with a node that has no sample.

A kernel that is causal in irregular time is split (``splitting``): its smooth part goes this way, the
rest reaches a few neighbours only.

Samples of a ragged batch are laid end to end along one axis, one kernel support apart: a whole batch
is one transform, and nothing is padded to equal lengths.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from ccnn_irregular._checks import reject, require
from ccnn_irregular.domains import Domain, Grid, Points, Product
from ccnn_irregular.kernels import Kernel
from ccnn_irregular.operators.bands import Band, bands_by_width, least_samples
from ccnn_irregular.operators.engine import Cost, Engine, Plan
from ccnn_irregular.operators.lattice import (
    Lattice,
    at_queries,
    no_common_lattice,
    on_lattice,
    query_windows,
    tap_offsets,
    tap_spans,
)
from ccnn_irregular.operators.layout import balance, from_rows, pair_points, restored, to_rows, weighted
from ccnn_irregular.operators.neighbours import Neighbours
from ccnn_irregular.operators.nufft import Box, Spreading, at_points, columns_at_once, to_modes, transform_taps
from ccnn_irregular.operators.rates import current_rates, scale
from ccnn_irregular.operators.splitting import shorten, split
from ccnn_irregular.operators.transforms import fast_length, real_spectrum, real_window
from ccnn_irregular.operators.work import evaluation_work

__all__ = ["Spectral"]

_MOST_AXES = 3
_SMALLEST_RTOL = {torch.float32: 1e-5, torch.float64: 1e-8}
# Uses of a plan that its cost is spread over when the window is chosen.
_USES = 20
# Numbers written per cell and column around the transforms; more for each doubling of a box that no cache holds.
_WRITTEN, _WRITTEN_PER_DOUBLING, _CELLS_IN_CACHE = 1.0, 0.8, 1 << 18
# Calls of array operations in a pass and in a plan, however few the points.
_CALLS, _PLAN_CALLS = 600, 3000
# Arrays of the size of what is transformed at once that live together.
_COPIES = 6
# Samples within the lags that are summed one by one, at each query, where a causal kernel is split.
_NEAR_SAMPLES = 12
# Support of a kernel in units of the lags that are left of it where the points are much closer together.
_LONGEST_IN_PLATEAUS = 16
_MOST_CELLS = 1 << 40


@dataclass(frozen=True)
class _Factors:
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
    def build(cls, source: Domain, query: Domain) -> _Factors:
        if isinstance(source, Product) and isinstance(query, Product) and _share_lattice(source.grid, query.grid):
            lattices = tuple(Lattice.build(a, b) for a, b in zip(source.grid.axes, query.grid.axes, strict=True))
            same = source.points is query.points
            return cls(source.points, query.points, lattices, source.grid.cell_volume, same)
        sources, queries = pair_points(source, query)
        return cls(sources, sources if source is query else queries, (), 1.0, source is query)

    @property
    def d(self) -> int:
        """Number of irregular axes."""
        return self.sources.d


def _share_lattice(source: Grid, query: Grid) -> bool:
    return source.d == query.d and no_common_lattice(source, query) is None


@dataclass(frozen=True)
class _Place:
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
    def of(cls, kernels: Sequence[Kernel], factors: _Factors) -> _Place:
        """The points within reach of the other side's bounding box in their sample."""
        used = _near(factors, _support(kernels))
        bounds = [_bounds(factors.sources, used[0]), _bounds(factors.queries, used[1])]
        lowest = torch.minimum(bounds[0][0], bounds[1][0])
        highest = torch.maximum(bounds[0][1], bounds[1][1])
        empty = lowest > highest
        return cls(*used, torch.where(empty, 0.0, lowest), torch.where(empty, 0.0, highest))


@dataclass(frozen=True)
class _Smoothing:
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
    def of(cls, kernels: Sequence[Kernel], factors: _Factors, place: _Place, rtol: float) -> _Smoothing:
        """What these kernels need on these domains."""
        support, extents = _support(kernels).tolist(), place.highest - place.lowest
        largest, jump = extents.amax(0).tolist(), None
        if factors.d == 1 and 0 in kernels[0].causal_axes:
            within = float(extents.sum()) * _NEAR_SAMPLES / max(factors.sources.count, 1)
            jump = min(within, largest[0], support[0]) if within > 0 else support[0]
        spans: list[float | None] = [None] * len(support)
        for axis, (span, period) in enumerate(zip(largest, factors.sources.periods, strict=True)):
            # The shorter the plateau of the taper, the worse the slope of a kernel that is flat there; beside a jump,
            # which is as steep, that does not count.
            span = span if jump is not None else max(span, support[axis] / _LONGEST_IN_PLATEAUS)
            if period is None and 0 < 2 * span < support[axis]:
                spans[axis] = span
        return cls(tuple(spans), jump, rtol)

    def parts(self, kernel: Kernel) -> tuple[Kernel, Kernel | None]:
        """The part that is transformed, and the part of short reach where there is a jump."""
        near = None
        if self.jump is not None:
            kernel, near = split(kernel, 0, self.jump, self.rtol)
        return shorten(kernel, self.spans, self.rtol) if any(self.spans) else kernel, near


@dataclass(frozen=True)
class _Geometry:
    """What a plan holds.

    Attributes:
        factors: source and query taken apart.
        support: kernel support per axis that the plan holds for, coordinate units.
        spread: window matrix of the sources.
        interpolate: window matrix of the queries.
        smoothing: how kernels are made smooth and short enough.
        near: neighbours of the part of short reach of a kernel that is causal in irregular time, or None.
    """

    factors: _Factors
    support: tuple[float, ...]
    spread: Spreading
    interpolate: Spreading
    smoothing: _Smoothing
    near: Plan | None


@final
class Spectral(Engine):
    """Non-uniform FFT convolution of points, ragged batches and products with uniform axes; error about ``rtol``."""

    name: ClassVar[str] = "spectral"
    plan_follows_kernel: ClassVar[bool] = True

    def assess(self, kernel: Kernel, source: Domain, query: Domain, batch: int, rtol: float) -> Cost | str:
        if isinstance(source, Grid) and isinstance(query, Grid):
            return "both domains are grids: 'fft' is exact there"
        if kernel.mask is None:
            return "the kernel has no mask, so no support that could separate the samples"
        smallest = _SMALLEST_RTOL[kernel.dtype]
        if rtol < smallest:
            return f"rtol {rtol:g} is below {smallest:g}, the least in {kernel.dtype}"
        factors = _Factors.build(source, query)
        if factors.d > _MOST_AXES:
            return f"more than {_MOST_AXES} irregular axes"
        if any(axis < factors.d for axis in kernel.causal_axes) and (factors.d > 1 or factors.lattices):
            return "a kernel that is causal on one of several axes jumps along it there: its spectrum never ends"
        place = _Place.of([kernel], factors)
        far, near = _Smoothing.of([kernel], factors, place, rtol).parts(kernel)
        smooth = _assess_smooth(far, factors, place, rtol)
        if isinstance(smooth, str) or near is None:
            return smooth
        short = Neighbours().assess(near, source, query, batch, rtol)
        return short if isinstance(short, str) else _sum(smooth, short)

    def least_seconds(self, kernel: Kernel, source: Domain) -> float:
        calls = (_PLAN_CALLS + 3 * _CALLS) * current_rates(kernel.extent.device).call
        axes = source.points.d if isinstance(source, Product) else source.d
        return calls + _seconds_of_study(kernel, axes) if axes <= _MOST_AXES else math.inf

    def prepare(
        self, kernels: Sequence[Kernel], source: Domain, query: Domain, rtol: float, study: Any = None
    ) -> _Geometry:
        factors = _Factors.build(source, query)
        place = _Place.of(kernels, factors)
        smoothing = _Smoothing.of(kernels, factors, place, rtol)
        parts = [smoothing.parts(kernel) for kernel in kernels]
        far = [smooth for smooth, _ in parts]
        short = [close for _, close in parts if close is not None]
        near = Plan("neighbours", source, query, Neighbours().prepare(short, source, query, rtol)) if short else None
        box: Box | None = _best_box(far, factors, place, rtol) if study is None else study
        if box is None:
            rule = f"be smooth enough to be sampled finely enough for rtol {rtol:g}"
            reject("kernel", rule, "one that is too sharp")
        dtype = kernels[0].dtype
        spread = Spreading.build(factors.sources, place.sources, box, dtype)
        interpolate = spread if factors.same else Spreading.build(factors.queries, place.queries, box, dtype)
        # What is shortened may grow as it likes.
        reaches = zip(smoothing.spans, _support(kernels).tolist(), strict=True)
        support = tuple(reach if span is None else math.inf for span, reach in reaches)
        return _Geometry(factors, support, spread, interpolate, smoothing, near)

    def apply(self, kernel: Kernel, values: Tensor, plan: Plan) -> Tensor:
        geometry: _Geometry = plan.geometry
        _require_fit(kernel, geometry)
        far, near = geometry.smoothing.parts(kernel)
        result = _convolve_smooth(far, values, plan)
        if near is None or geometry.near is None:
            return result
        return result + Neighbours().apply(near, values, geometry.near)


def _convolve_smooth(kernel: Kernel, values: Tensor, plan: Plan) -> Tensor:
    geometry: _Geometry = plan.geometry
    factors = geometry.factors
    if factors.lattices:
        return _convolve_product(kernel, values, geometry)
    factor = balance(factors.sources.weights)
    rows = weighted(to_rows(values, plan.source, plan.query), factors.sources.weights, factor)[:, 0]
    modes = to_modes(rows, factors.sources, geometry.spread)[:, None]
    modes = _filtered(kernel, modes, geometry, []).squeeze(1)
    result = at_points(modes, factors.queries, geometry.interpolate, real=True)
    return from_rows(restored(result[:, None], factor), plan.source, plan.query)


def _convolve_product(kernel: Kernel, values: Tensor, geometry: _Geometry) -> Tensor:
    """Values ``(N, C, *sizes)`` to ``(M, D, *sizes)``: uniform axes are transformed before the points are spread."""
    factors = geometry.factors
    lattices, weights = factors.lattices, factors.sources.weights * factors.volume
    factor = balance(weights)
    weights = (weights / factor).to(values.dtype)
    weights = weights.reshape(*weights.shape, *(1,) * (2 - weights.ndim), *(1,) * len(lattices))
    if not factors.sources.count or not factors.queries.count:
        sizes = [lattice.query for lattice in lattices]
        zero = (values.sum() + weights.sum() + kernel(values.new_zeros(0, kernel.d)).sum()) * 0.0
        return zero + values.new_zeros(factors.queries.count, kernel.out_channels, *sizes)
    masses = torch.where(weights == 0, 0.0, values) * weights
    spans = tap_spans(kernel, lattices, factors.d)
    lengths = [lattice.length(*span) for lattice, span in zip(lattices, spans, strict=True)]
    spectra = real_spectrum(on_lattice(masses, lattices), lengths)  # (N, C, *frequencies)
    frequencies = spectra.shape[2:]
    modes = to_modes(spectra.flatten(1), factors.sources, geometry.spread)
    modes = _filtered(kernel, modes.unflatten(0, (kernel.in_channels, -1)), geometry, spans).flatten(0, 1)
    rows = at_points(modes, factors.queries, geometry.interpolate, real=False)
    windows = query_windows(lattices, spans)
    result = real_window(rows.unflatten(1, (kernel.out_channels, *frequencies)), lengths, windows)
    return restored(at_queries(result, lattices, spans, windows), factor)


def _filtered(kernel: Kernel, modes: Tensor, geometry: _Geometry, spans: Sequence[tuple[int, int]]) -> Tensor:
    """Modes ``(C, frequencies, layers, *modes)`` times the kernel's transform: ``(D, frequencies, layers, *modes)``."""
    transfer = _transfer(kernel, geometry, spans)
    return modes * transfer if kernel.depthwise else torch.einsum("cf...,dcf...->df...", modes, transfer)


def _transfer(kernel: Kernel, geometry: _Geometry, spans: Sequence[tuple[int, int]]) -> Tensor:
    """Transform of the kernel on the box's cells and the uniform axes, ``(*kernel.shape, frequencies, 1, *modes)``."""
    box, lattices, device = geometry.spread.box, geometry.factors.lattices, kernel.extent.device
    reaches = [math.floor(reach / step) for reach, step in zip(kernel.support.tolist(), box.steps, strict=False)]
    offsets = [
        torch.arange(-reach, reach + 1, dtype=torch.float64, device=device) * step
        for reach, step in zip(reaches, box.steps, strict=True)
    ]
    offsets += [tap_offsets(lattice, span, device) for lattice, span in zip(lattices, spans, strict=True)]
    taps = kernel(torch.stack(torch.meshgrid(*offsets, indexing="ij"), dim=-1).to(kernel.dtype))
    # (*cells, *nodes, *kernel.shape) to (*kernel.shape, *nodes, *cells)
    taps = taps.permute(*range(kernel.d, taps.ndim), *range(box.d, kernel.d), *range(box.d))
    if lattices:
        lengths = [lattice.length(*span) for lattice, span in zip(lattices, spans, strict=True)]
        nodes = range(-kernel.d, -box.d)
        last = range(-len(lattices), 0)
        taps = real_spectrum(taps.movedim(tuple(nodes), tuple(last)), lengths).movedim(tuple(last), tuple(nodes))
    taps = taps.reshape(*kernel.shape, -1, 1, *taps.shape[taps.ndim - box.d :])
    return transform_taps(taps, tuple(-reach for reach in reaches), box)


def _require_fit(kernel: Kernel, geometry: _Geometry) -> None:
    jumps = geometry.factors.d == 1 and 0 in kernel.causal_axes
    rule = "be made with a kernel that is causal on the same axes"
    require(jumps == (geometry.near is not None), "plan", rule, kernel.causal_axes)
    for axis, (reach, planned) in enumerate(zip(kernel.support.tolist(), geometry.support, strict=True)):
        rule = f"be made anew when the kernel's support on axis {axis} grows beyond {planned:g}"
        require(reach <= planned * (1 + 1e-6), "plan", rule, f"{reach:g}")


def _near(factors: _Factors, support: Tensor) -> tuple[Tensor, Tensor]:
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


def _support(kernels: Sequence[Kernel]) -> Tensor:
    """Half width of the box about zero outside which all of the kernels are zero, ``(d,)``."""
    return torch.stack([kernel.support for kernel in kernels]).amax(0)


def _best_box(kernels: Sequence[Kernel], factors: _Factors, place: _Place, rtol: float) -> Box | None:
    """The box whose plan and passes cost the least; None if a kernel is too sharp."""
    lattice = [max(offsets, key=len) for offsets in zip(*(_lattice_offsets(k, factors) for k in kernels), strict=True)]
    support = _support(kernels).tolist()
    boxes = [
        _layout(place.lowest, place.highest, bands, support, factors.sources.periods)
        for bands in bands_by_width(kernels, factors.d, lattice, rtol).values()
    ]
    return min(boxes, key=lambda box: _seconds(kernels[0], factors, box), default=None)


def _lattice_offsets(kernel: Kernel, factors: _Factors) -> list[Tensor]:
    spans = tap_spans(kernel, factors.lattices, factors.d)
    cpu = torch.device("cpu")
    return [tap_offsets(lattice, span, cpu) for lattice, span in zip(factors.lattices, spans, strict=True)]


def _layout(
    lowest: Tensor, highest: Tensor, bands: Sequence[Band], support: Sequence[float], periods: Sequence[float | None]
) -> Box:
    """Lay the samples end to end along the first axis that does not repeat; on top of each other if all repeat."""
    extent, shifts = highest - lowest, -lowest
    along = next((axis for axis, period in enumerate(periods) if period is None), None)
    sizes, steps = [], []
    for axis, (band, reach, period) in enumerate(zip(bands, support, periods, strict=False)):
        width = band.window.width
        if period is not None:
            shifts[:, axis] = 0.0
            size = _fast_size(max(period / band.step, width))
            steps.append(period / size)
        else:
            # The box is a circle: the gap behind the last sample keeps it apart from the first.
            ends = (extent[:, axis] + reach).cumsum(0) if axis == along else extent[:, axis] + reach
            if axis == along:
                shifts[:, axis] += ends - extent[:, axis] - reach
            size = _fast_size(max(float(ends.max()) / band.step, width))
            steps.append(band.step)
        sizes.append(size)
    repeats = tuple(period is not None for period in periods)
    windows = tuple(band.window for band in bands)
    return Box(tuple(steps), tuple(sizes), windows, shifts, repeats, len(shifts) if along is None else 1)


def _fast_size(least: float) -> int:
    """A length of at least so many cells whose transform is fast."""
    return fast_length(math.ceil(min(least, _MOST_CELLS)))


def _columns(kernel: Kernel, factors: _Factors) -> int:
    """Real columns that are spread and interpolated."""
    spans = tap_spans(kernel, factors.lattices, factors.d)
    lengths = [lattice.length(*span) for lattice, span in zip(factors.lattices, spans, strict=True)]
    # A real transform of n nodes is n / 2 + 1 complex numbers.
    frequencies = 2 * math.prod(lengths[:-1]) * (lengths[-1] // 2 + 1) if lengths else 1
    return (kernel.in_channels + kernel.out_channels) * frequencies


def _entries(factors: _Factors, box: Box) -> float:
    """Window entries of a plan."""
    count = factors.sources.count if factors.same else factors.sources.count + factors.queries.count
    return float(count * math.prod(window.width for window in box.windows))


def _passes(kernel: Kernel, factors: _Factors, box: Box) -> float:
    """Seconds of spreading, transforming and interpolating."""
    rates, columns, cells = current_rates(kernel.extent.device), _columns(kernel, factors), box.layers * box.cells
    both = _entries(factors, box) * (2 if factors.same else 1)
    written = _WRITTEN + _WRITTEN_PER_DOUBLING * math.log2(max(1.0, cells / _CELLS_IN_CACHE))
    per_cell = math.log2(cells + 2) * rates.fft + written * rates.write
    return scale(kernel) * columns * (both / 2 * rates.sparse + cells * per_cell)


def _seconds(kernel: Kernel, factors: _Factors, box: Box) -> float:
    """Of one pass, and its part of the plan: what the boxes are compared by."""
    plan = _entries(factors, box) * current_rates(kernel.extent.device).window
    return _passes(kernel, factors, box) + plan / _USES


def _seconds_of_study(kernel: Kernel, axes: int) -> float:
    """Of the look at the kernel's spectrum that the box follows from."""
    seconds, _ = current_rates(kernel.extent.device).kernel_seconds(kernel, least_samples(axes))
    return seconds


def _assess_smooth(kernel: Kernel, factors: _Factors, place: _Place, rtol: float) -> Cost | str:
    box = _best_box([kernel], factors, place, rtol)
    if box is None:
        return f"the kernel is too sharp to be sampled finely enough for rtol {rtol:g}"
    cells = box.layers * box.cells
    if cells > _MOST_CELLS:
        return f"{'x'.join(map(str, box.sizes))} cells are too many"
    rates = current_rates(kernel.extent.device)
    columns, entries = _columns(kernel, factors), _entries(factors, box)
    taps = math.prod(2 * reach / step + 1 for reach, step in zip(kernel.support.tolist(), box.steps, strict=False))
    taps *= math.prod(len(offsets) for offsets in _lattice_offsets(kernel, factors))
    kernel_forward, kernel_backward = rates.kernel_seconds(kernel, taps)
    passes = _passes(kernel, factors, box) + _CALLS * rates.call
    item = kernel.extent.element_size()
    work = evaluation_work(kernel)
    # Cells of one side, what is transformed at once with its copies, and the kernel's transform on its way.
    numbers = cells * (columns / 2 + _COPIES * columns_at_once(cells, columns / 2) + kernel.generator.out_channels)
    # Matrix and transpose, and both again while they are built; the kernel's own activations.
    memory = item * (numbers + taps * (work.saved + work.elements)) + entries * 2.5 * (item + 4)
    return Cost(
        entries * rates.window + _PLAN_CALLS * rates.call + _seconds_of_study(kernel, factors.d),
        passes + kernel_forward,
        passes + kernel_backward,
        memory,
        f"{'x'.join(map(str, box.sizes))} cells",
        study=box,
    )


def _sum(one: Cost, other: Cost) -> Cost:
    return Cost(
        one.plan_seconds + other.plan_seconds,
        one.forward_seconds + other.forward_seconds,
        one.backward_seconds + other.backward_seconds,
        one.bytes + other.bytes,
        f"{one.note} and {other.note}",
        study=one.study,
    )
