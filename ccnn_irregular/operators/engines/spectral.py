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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from ccnn_irregular._checks import reject
from ccnn_irregular.domains import Domain, Grid, Points, Product
from ccnn_irregular.kernels import Kernel
from ccnn_irregular.operators.engines.engine import Cost, Engine, Plan
from ccnn_irregular.operators.engines.neighbours import Neighbours
from ccnn_irregular.operators.layout import balance, from_rows, pair_points, restored, to_rows, weighted
from ccnn_irregular.operators.numerics.bands import Band, bands_by_width, least_samples
from ccnn_irregular.operators.numerics.filtering import Side, filtered
from ccnn_irregular.operators.numerics.lattice import (
    Lattice,
    at_queries,
    no_common_lattice,
    on_lattice,
    query_windows,
    tap_offsets,
    tap_spans,
)
from ccnn_irregular.operators.numerics.nufft import Box, Spreading, columns_at_once, transform_taps
from ccnn_irregular.operators.numerics.sizes import (
    Pasts,
    Stretches,
    energy_and_peaks,
    outliers,
    sample_energy,
    sample_scales,
)
from ccnn_irregular.operators.numerics.splitting import shorten, split
from ccnn_irregular.operators.numerics.transforms import fast_length, real_spectrum, real_window
from ccnn_irregular.operators.planning.memory import as_size, available_memory
from ccnn_irregular.operators.planning.rates import current_rates, scale
from ccnn_irregular.operators.planning.work import evaluation_work

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
# A plan is too coarse for a kernel whose error in it is so many rtol; a new plan's is half of one.
_STALE = 1.5
# Errors up to so many rtol are let pass; beyond, rtol is divided by powers of a factor until it is safely less.
_TOLERATED, _SAFE, _FINER, _MOST_FINER = 1.0, 0.7, 4.0, 12
# The error of a result that one query holds may be so many times larger yet than is to be expected.
_FOR_CHANCE = 2.0
# Squares of taps whose sum is less, or more than one over this, are taken in float64.
_LEAST_ENERGY = 1e-20
# Where no transform is accurate enough, the sum pair by pair is taken if it costs at most so many times the finest one.
_EXACT_IS_WORTH = 10.0


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
        rtol: relative error it may make.
        factors: source and query taken apart.
        support: kernel support per axis that the plan holds for, coordinate units.
        source: places and window matrix of the sources.
        query: those of the queries.
        volumes: float64 ``(B,)``, space each sample is spread over, coordinate units.
        smoothing: how kernels are made smooth and short enough.
        near: neighbours of the part of short reach of a kernel that is causal in irregular time, or None.
        stretches: blocks of time in which values may grow, where a kernel is causal in irregular time; else None.
        pasts: the queries whose results keep rtol together.
        renewed: by rtol, geometry made since for kernels this one is too coarse for, and for values that cancel.
        pairs: by rtol, what was decided for values that cancel.
    """

    rtol: float
    factors: _Factors
    support: tuple[float, ...]
    source: Side
    query: Side
    volumes: Tensor
    smoothing: _Smoothing
    near: Plan | None
    stretches: Stretches | None
    pasts: Pasts
    renewed: dict[float, _Geometry] = field(default_factory=dict, compare=False)
    pairs: dict[float, _Pairs] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class _Pairs:
    """Whether the sum pair by pair is the cheaper way to a smaller rtol.

    Attributes:
        support: kernel support per axis for which that was decided, coordinate units.
        plan: of the sum, or None where a transform is cheaper.
    """

    support: tuple[float, ...]
    plan: Plan | None


@dataclass(frozen=True)
class _Filter:
    """A kernel taken to a geometry that suits it.

    Attributes:
        geometry: which one.
        kernel: the smooth part, which is transformed.
        transfer: its transform, as ``filtered`` takes it.
        error: float64 ``(*kernel.shape)``, squared, the error made of one row of size 1 on average over all places.
        near: the part of short reach of a kernel that is causal in irregular time, or None.
        spans: first and last tap on each uniform axis.
    """

    geometry: _Geometry
    kernel: Kernel
    transfer: Tensor
    error: Tensor
    near: Kernel | None
    spans: list[tuple[int, int]]


@final
class Spectral(Engine):
    """Non-uniform FFT convolution of points, ragged batches and products with uniform axes; error about ``rtol``."""

    name: ClassVar[str] = "spectral"
    plan_follows_kernel: ClassVar[bool] = True
    exact: ClassVar[bool] = False

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
        near = _near_plan(short, factors, rtol) if short else None
        box: Box | None = _best_box(far, factors, place, rtol) if study is None else study
        if box is None:
            rule = f"be smooth enough to be sampled finely enough for rtol {rtol:g}"
            reject("kernel", rule, "one that is too sharp")
        dtype = kernels[0].dtype
        spread = Spreading.build(factors.sources, place.sources, box, dtype)
        interpolate = spread if factors.same else Spreading.build(factors.queries, place.queries, box, dtype)
        # What is shortened may grow as it likes.
        reaches = _support(kernels)[: factors.d].detach()
        limits = zip(smoothing.spans, _support(kernels).tolist(), strict=True)
        in_time = bool(short) and factors.sources.periods == (None,)
        return _Geometry(
            rtol,
            factors,
            tuple(reach if span is None else math.inf for span, reach in limits),
            Side(factors.sources, spread),
            Side(factors.queries, interpolate),
            (place.highest - place.lowest + reaches.to(place.lowest)).prod(1),
            smoothing,
            near,
            Stretches.build(factors.sources) if in_time else None,
            Pasts.build(factors.sources, factors.queries, causal=in_time),
        )

    def apply(self, kernel: Kernel, values: Tensor, plan: Plan) -> Tensor:
        factors = plan.geometry.factors
        weights = factors.sources.weights * (kernel.scale * factors.volume)
        factor = balance(weights)
        rows, kernel = _weighted_rows(values, weights / factor, plan), kernel.without_scale()
        if not len(rows) or not factors.queries.count:
            return _zero(kernel, rows, plan)
        energy, peaked = energy_and_peaks(rows.flatten(2), factors.sources)
        loud = outliers(rows.flatten(2), factors.sources, factors.queries.count) if peaked else None
        if loud is None:
            return _from_rows(restored(_accurate(kernel, rows, energy, plan), factor), plan)
        loud = loud.reshape(rows.shape)
        quiet = torch.where(loud, 0.0, rows)
        energy = sample_energy(quiet.flatten(2), factors.sources)
        result = _accurate(kernel, quiet, energy, plan) + _pair_by_pair(kernel, rows, loud, plan)
        return _from_rows(restored(result, factor), plan)


def _near_plan(kernels: Sequence[Kernel], factors: _Factors, rtol: float) -> Plan:
    """Of the parts of short reach; its values are weighted already."""
    sources = Points(factors.sources.coordinates, splits=factors.sources.splits, periods=factors.sources.periods)
    queries = sources if factors.same else factors.queries
    return Plan(Neighbours(), sources, queries, Neighbours().prepare(kernels, sources, queries, rtol))


def _weighted_rows(values: Tensor, weights: Tensor, plan: Plan) -> Tensor:
    """Values times float64 weights, ``(N, C, *uniform sizes)``."""
    factors: _Factors = plan.geometry.factors
    if not factors.lattices:
        return weighted(to_rows(values, plan.source, plan.query), weights).movedim(1, 2)
    weights = weights.to(values.dtype)
    weights = weights.reshape(*weights.shape, *(1,) * (values.ndim - weights.ndim))
    return torch.where(weights == 0, 0.0, values) * weights


def _from_rows(rows: Tensor, plan: Plan) -> Tensor:
    """Rows ``(M, D, *uniform sizes)`` in the query's convention."""
    return rows if plan.geometry.factors.lattices else from_rows(rows.movedim(2, 1), plan.source, plan.query)


def _zero(kernel: Kernel, rows: Tensor, plan: Plan) -> Tensor:
    """What nothing gives, or what nobody asks for."""
    factors: _Factors = plan.geometry.factors
    places = factors.sources.coordinates.sum() + factors.queries.coordinates.sum()
    nothing = (rows.sum() + kernel(rows.new_zeros(0, kernel.d)).sum() + places.to(rows.dtype)) * 0.0
    sizes = [lattice.query for lattice in factors.lattices] or [1]
    return _from_rows(nothing + rows.new_zeros(factors.queries.count, kernel.out_channels, *sizes), plan)


def _pair_by_pair(kernel: Kernel, rows: Tensor, chosen: Tensor, plan: Plan) -> Tensor:
    """The sum over the chosen values only, ``(M, D, *uniform sizes)``."""
    of_row = chosen.flatten(1).any(1)
    pairs = _plan_of_pairs(kernel, plan, of_row)
    return _summed(kernel, torch.where(chosen[of_row], rows[of_row], 0.0), pairs, plan)


def _plan_of_pairs(kernel: Kernel, plan: Plan, of_row: Tensor | None = None) -> Plan:
    """Of the sum over the neighbours among some rows, or all of them; its values are weighted already."""
    sources, queries = plan.geometry.factors.sources, plan.geometry.factors.queries
    places, splits = sources.coordinates, sources.splits
    if of_row is not None:
        places, sample = places[of_row], sources.sample_index()[of_row]
        splits = torch.searchsorted(sample, torch.arange(sources.samples + 1, device=sources.device))
    # On a product, each node's volume, which is in the rows already, comes in again.
    weights = places.new_full((len(places),), 1 / plan.geometry.factors.volume)
    points = Points(places, weights, splits, periods=sources.periods)
    source: Domain = points
    query: Domain = queries
    if plan.geometry.factors.lattices:
        assert isinstance(plan.source, Product)
        assert isinstance(plan.query, Product)
        source, query = Product(points, plan.source.grid), Product(queries, plan.query.grid)
    return Plan(Neighbours(), source, query, Neighbours().prepare([kernel], source, query, plan.geometry.rtol))


def _summed(kernel: Kernel, rows: Tensor, pairs: Plan, plan: Plan) -> Tensor:
    """Weighted rows ``(N, C, *uniform sizes)`` to ``(M, D, *uniform sizes)``, pair by pair."""
    factors: _Factors = plan.geometry.factors
    if factors.lattices:
        return Neighbours().apply(kernel, rows, pairs)
    return Neighbours().apply(kernel, rows[:, :, 0], pairs)[:, :, None]


def _accurate(kernel: Kernel, rows: Tensor, energy: Tensor, plan: Plan) -> Tensor:
    """The convolution of weighted rows, its error at most rtol of the result of its own sample and channel.

    Where values cancel, the result is smaller than the rows let expect. By how much is known once it is there: these
    channels are computed anew, with an rtol smaller by as much, or pair by pair where that costs less.
    """
    planned, best = plan.geometry.rtol, _SMALLEST_RTOL[kernel.dtype]
    rtol, filter_ = planned, _filter(kernel, plan, planned)
    if isinstance(filter_, str):
        reject("plan", f"be made anew for a kernel that has become sharper ({filter_})", "one that was planned before")
    result, lost = _approximate(rows, energy, filter_)
    while True:
        excess = _excess(result, lost, plan.geometry.pasts, planned)
        channels = (excess > _TOLERATED).nonzero()[:, 0]
        if not len(channels):
            return result
        finer = math.ceil(math.log(float(excess.max()) / _SAFE, _FINER))
        wanted = rtol / _FINER ** max(1, min(finer, _MOST_FINER))
        pairs = _cheaper_pairs(kernel, plan, wanted)
        if pairs is not None:
            return result.index_copy(1, channels, _summed(kernel, rows, pairs, plan)[:, channels])
        filter_ = _filter(kernel, plan, max(best, wanted)) if rtol > best else "rounding"
        if isinstance(filter_, str):
            return result
        rtol = max(best, wanted)
        again, its_loss = _approximate(rows, energy, filter_, channels)
        result, lost = result.index_copy(1, channels, again), lost.index_copy(2, channels, its_loss)


def _cheaper_pairs(kernel: Kernel, plan: Plan, rtol: float) -> Plan | None:
    """A plan of the sum pair by pair, if it costs less than a transform of this rtol, or little where none has it."""
    planned: _Geometry = plan.geometry
    known = planned.pairs.get(rtol)
    if known is None or any(a > b * (1 + 1e-6) for a, b in zip(kernel.support.tolist(), known.support, strict=True)):
        best = _SMALLEST_RTOL[kernel.dtype]
        transform = Spectral().assess(kernel, plan.source, plan.query, 1, max(best, rtol))
        sum_ = Neighbours().assess(kernel, plan.source, plan.query, 1, rtol)
        known = _Pairs(tuple(kernel.support.tolist()), None)
        if isinstance(sum_, Cost) and sum_.bytes <= available_memory(kernel.extent.device):
            dearer = 1.0 if rtol >= best else _EXACT_IS_WORTH
            if isinstance(transform, str) or sum_.seconds <= dearer * transform.seconds:
                known = _Pairs(known.support, _plan_of_pairs(kernel, plan))
        planned.pairs[rtol] = known
    return known.plan


def _excess(result: Tensor, lost: Tensor, pasts: Pasts, rtol: float) -> Tensor:
    """The largest error over pasts that is to be expected in each channel, in units of what it may be, ``(D,)``.

    What is lost, squared, is known on average over all places. Where a few queries hold the result, they may have got
    more than their share of it.
    """
    energy, fourths = pasts.sums_of_powers(result.flatten(2))
    few = fourths / energy.square()  # one over how many queries hold the result
    excess = (lost / energy).sqrt() * ((1 + _FOR_CHANCE * few) / rtol)
    return torch.where((energy > 0) & (lost > 0), excess, 0.0).amax((0, 1))


def _approximate(
    rows: Tensor, energy: Tensor, filter_: _Filter, channels: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The convolution of weighted rows ``(N, C, *uniform sizes)``, and what is lost, float64 ``(B, pasts, D)``.

    That is the square of the error to be expected, added up over the queries of each past. ``energy`` of the rows, by
    sample and channel; ``channels``: those of the result that are wanted.
    """
    geometry, kernel, transfer, error = filter_.geometry, filter_.kernel, filter_.transfer, filter_.error
    near = None
    if filter_.near is not None and geometry.near is not None:
        near = Neighbours().apply(filter_.near, rows[:, :, 0], geometry.near)[:, :, None]
    if channels is not None:
        transfer, error = transfer[channels], error[channels]
        rows, energy = (rows[:, channels], energy[:, channels]) if kernel.depthwise else (rows, energy)
        near = None if near is None else near[:, channels]
    stretches = geometry.stretches
    parts = stretches and stretches.apart(rows[:, :, 0], geometry.query.points, joint=not kernel.depthwise)
    if parts:
        result, lost = _sum_of_stretches(parts, transfer, error, geometry, joint=not kernel.depthwise)
    else:
        scales = sample_scales(energy, geometry.volumes, joint=not kernel.depthwise)
        result = _along_lattices(rows, transfer, filter_, scales)
        entries = geometry.pasts.counts() * math.prod(result.shape[2:])
        lost = entries * _expected_loss(energy, scales, error, geometry)[:, None]
    return result if near is None else result + near, lost


def _sum_of_stretches(
    parts: Iterable[tuple[Tensor, Tensor]], transfer: Tensor, error: Tensor, geometry: _Geometry, *, joint: bool
) -> tuple[Tensor, Tensor]:
    """Each stretch of time by itself; the time before it gets nothing of it. And what is lost."""
    result = lost = geometry.volumes.new_zeros(())
    sample = geometry.query.points.sample_index()
    for rows, reached in parts:
        rows = rows[:, :, None]
        energy = sample_energy(rows, geometry.source.points)
        scales = sample_scales(energy, geometry.volumes, joint=joint)
        part = filtered(rows, transfer, geometry.source, geometry.query, geometry.volumes, scales)
        result = result + torch.where(reached[:, :, None], part, 0.0)
        lost = lost + torch.where(reached, _expected_loss(energy, scales, error, geometry)[sample], 0.0)
    return result, geometry.pasts.added(lost[:, :, None])


def _expected_loss(energy: Tensor, scales: Tensor | None, error: Tensor, geometry: _Geometry) -> Tensor:
    """Squared error of a query of each sample and channel, float64 ``(B, D)``; ``error`` as in ``_Filter``."""
    if scales is not None:
        energy = torch.where(scales > 0, energy / scales.square(), 0.0)
    box = geometry.source.spreading.box
    # What a sample loses it gets back about its own place, or all get it: the worse of both.
    near = energy * (math.prod(box.sizes) * math.prod(box.steps) / geometry.volumes)[:, None]
    energy = torch.maximum(near, energy.sum(0) if box.layers == 1 else energy)
    squared = energy * error if error.ndim == 1 else energy @ error.T
    return squared if scales is None else squared * scales.square()


def _along_lattices(rows: Tensor, transfer: Tensor, filter_: _Filter, scales: Tensor | None) -> Tensor:
    """The smooth part's result ``(M, D, *uniform sizes)``; uniform axes are transformed before points are spread."""
    geometry = filter_.geometry
    lattices, ends = geometry.factors.lattices, (geometry.source, geometry.query, geometry.volumes)
    if not lattices:
        return filtered(rows, transfer, *ends, scales)
    lengths = [lattice.length(*span) for lattice, span in zip(lattices, filter_.spans, strict=True)]
    spectra = real_spectrum(on_lattice(rows, lattices), lengths)  # (N, C, *frequencies)
    result = filtered(spectra.flatten(2), transfer, *ends, scales).unflatten(2, spectra.shape[2:])
    windows = query_windows(lattices, filter_.spans)
    return at_queries(real_window(result, lengths, windows), lattices, filter_.spans, windows)


def _filter(kernel: Kernel, plan: Plan, rtol: float) -> _Filter | str:
    """The kernel on the plan's geometry, or on one made anew where that is too coarse for the kernel or for ``rtol``.

    A string says why there is none.
    """
    planned: _Geometry = plan.geometry
    geometry = planned.renewed.get(rtol, planned if rtol == planned.rtol else None)
    found = None if geometry is None else _filter_on(kernel, geometry)
    if found is not None:
        return found
    cost = Spectral().assess(kernel, plan.source, plan.query, 1, rtol)
    if isinstance(cost, str):
        return cost
    available = available_memory(kernel.extent.device)
    if cost.bytes > available:
        return f"it needs about {as_size(cost.bytes)}, {as_size(available)} available"
    geometry = Spectral().prepare([kernel], plan.source, plan.query, rtol, cost.study)
    planned.renewed[rtol] = geometry
    return _filter_on(kernel, geometry, fresh=True) or "its spectrum could not be resolved"


def _filter_on(kernel: Kernel, geometry: _Geometry, *, fresh: bool = False) -> _Filter | None:
    """The kernel's transform on this geometry; None where its support or its spectrum outgrow it."""
    limits = zip(kernel.support.tolist(), geometry.support, strict=True)
    if any(reach > limit * (1 + 1e-6) for reach, limit in limits):
        return None
    far, near = geometry.smoothing.parts(kernel)
    spans = tap_spans(far, geometry.factors.lattices, geometry.factors.d)
    transfer, error, energy = _transfer(far, geometry, spans)
    if not fresh and bool((error > (_STALE * geometry.rtol) ** 2 * energy).any()):
        return None
    return _Filter(geometry, far, transfer, error, near, spans)


def _transfer(kernel: Kernel, geometry: _Geometry, spans: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor, Tensor]:
    """The kernel's transform ``(*kernel.shape, frequencies, 1, *modes)`` on the box's cells and the uniform axes.

    And squared, float64 ``(*kernel.shape)``: the error made of one row of size 1, and that row's result, on average
    over all places.
    """
    box, lattices, device = geometry.source.spreading.box, geometry.factors.lattices, kernel.extent.device
    reaches = [math.floor(reach / step) for reach, step in zip(kernel.support.tolist(), box.steps, strict=False)]
    offsets = [
        torch.arange(-reach, reach + 1, dtype=torch.float64, device=device) * step
        for reach, step in zip(reaches, box.steps, strict=True)
    ]
    offsets += [tap_offsets(lattice, span, device) for lattice, span in zip(lattices, spans, strict=True)]
    taps = kernel.unscaled(torch.stack(torch.meshgrid(*offsets, indexing="ij"), dim=-1).to(kernel.dtype))
    energy, sizes = _tap_energy(taps.detach().flatten(0, kernel.d - 1))
    energy = energy / box.cells
    # (*cells, *nodes, *kernel.shape) to (*kernel.shape, *nodes, *cells)
    taps = taps.permute(*range(kernel.d, taps.ndim), *range(box.d, kernel.d), *range(box.d))
    lengths = [lattice.length(*span) for lattice, span in zip(lattices, spans, strict=True)]
    if lattices:
        nodes = range(-kernel.d, -box.d)
        last = range(-len(lattices), 0)
        taps = real_spectrum(taps.movedim(tuple(nodes), tuple(last)), lengths).movedim(tuple(last), tuple(nodes))
    taps = taps.reshape(*kernel.shape, -1, 1, *taps.shape[taps.ndim - box.d :])
    transfer, error = transform_taps(taps, tuple(-reach for reach in reaches), box, sizes)
    if lattices:
        error = error * _stands_for(lengths).to(error)[:, None] / math.prod(lengths)
    everywhere = math.prod(lengths)
    return transfer, error.to(torch.float64).flatten(len(kernel.shape)).sum(-1) / everywhere, energy / everywhere


def _tap_energy(taps: Tensor) -> tuple[Tensor, torch.dtype]:
    """Sum of squares over the first axis, float64, and the dtype in which squares keep their digits."""
    energy = taps.square().sum(0)
    if bool(((energy > _LEAST_ENERGY) & (energy < 1 / _LEAST_ENERGY)).all()):
        return energy.to(torch.float64), taps.dtype
    return taps.to(torch.float64).square().sum(0), torch.float64


def _stands_for(lengths: Sequence[int]) -> Tensor:
    """How many frequencies each one of a real transform of these lengths stands for, ``(frequencies,)``."""
    last = torch.full((lengths[-1] // 2 + 1,), 2.0)
    last[0] = 1.0
    if lengths[-1] % 2 == 0:
        last[-1] = 1.0
    return last.repeat(math.prod(lengths[:-1]))


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
