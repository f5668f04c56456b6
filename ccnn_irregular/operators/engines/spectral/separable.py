"""What a plan between grids holds: per axis, the sums to modes of a circle and back.

Coordinates of grids are products of axes, so the transforms of source, kernel and query are taken axis after axis, and
no window is needed. Two kinds of axes:

    on a lattice   source and query lie on common uniform nodes: modes and taps are those of the FFT engine, exactly
    of a band      any two steps: the circle holds all lags that the kernel reaches; modes end where its spectrum does
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ccnn_irregular.domains import Axis, Grid
from ccnn_irregular.kernels import Kernel
from ccnn_irregular.operators.engines.engine import Cost
from ccnn_irregular.operators.engines.spectral.boxes import SMALLEST_RTOL
from ccnn_irregular.operators.engines.spectral.factors import largest_support, tapered_from
from ccnn_irregular.operators.numerics.axiswise import AxisWay, Draw, to_modes
from ccnn_irregular.operators.numerics.bands import box_offsets, cut_frequency, least_samples
from ccnn_irregular.operators.numerics.lattice import Lattice, common_ratio, tap_offsets
from ccnn_irregular.operators.numerics.sizes import energy_of_taps
from ccnn_irregular.operators.numerics.splitting import shorten
from ccnn_irregular.operators.numerics.transforms import fast_length
from ccnn_irregular.operators.numerics.uniform import Nodes, UniformSum
from ccnn_irregular.operators.planning.rates import Work
from ccnn_irregular.operators.planning.work import evaluation_work, kernel_work, scale

__all__ = ["FINEST_LATTICE", "GridGeometry", "band_axes", "grid_cost", "least_grid_work"]

FINEST_LATTICE = 4
"""Cells of a common lattice per step of the source beyond which an axis has sums of its own."""

# What lies beyond the spectrum's end is less than so many rtol; kernel values per axis that this is found by.
_SAFETY, _SAMPLES = 0.9, 6
# Length of an axis from which on its circle is a whole number of steps, so that the source is transformed by an FFT.
_LONG = 512
# Nodes of the last axis from which on sines and cosines apart take less time than waves.
_SHORT = 64
# Places at which a kernel is compared with what its modes make of it.
_PLACES = 216
# Places of queries between the source's nodes at which the error made of constants is looked at, and lags from them.
_PHASES, _MOST_LAGS = 8, 1 << 16
# Calls of array operations in a pass and in a plan.
_CALLS, _PLAN_CALLS = 120, 400
# Small complex products run at this share of the speed of a generator's.
_SLOWER = 1.5
_MOST_MODES = 1 << 30
# Bytes of modes that are held at once on CPUs: new memory for more costs as much time as the sums.
_AT_ONCE = 4e6
# Numbers that live at once for each mode or node of what is transformed.
_COPIES = 6.0


@dataclass(frozen=True)
class Transfer:
    """A kernel's transform.

    Attributes:
        taps: over the number of circles' cells, ``(*kernel.shape, *taps)``.
        parts: their modes, without gradients, in groups of channels of the result.
        error, energy: squared, float64 ``(*kernel.shape)``, the error made of one row of size 1, and that row's result,
            on average over all places.
    """

    taps: Tensor
    parts: list[Tensor]
    error: Tensor
    energy: Tensor

    @property
    def relative_error(self) -> float:
        """The largest of any channel."""
        return math.sqrt(float(torch.where(self.energy > 0, self.error / self.energy, 0.0).max()))


@dataclass(frozen=True)
class GridGeometry:
    """What a plan between grids holds.

    Attributes:
        rtol: relative error it may make.
        ways: one per axis.
        support: kernel support per axis that the plan holds for, coordinate units.
        spans: per axis the largest lag that is used, where the kernels reach much farther; else None.
        renewed: by rtol, geometry made since for kernels this one is too coarse for, and for values that cancel.
        exact: by rtol, whether the sum pair by pair is the cheaper way for values that cancel.
    """

    rtol: float
    ways: tuple[AxisWay, ...]
    support: tuple[float, ...]
    spans: tuple[float | None, ...]
    renewed: dict[float, GridGeometry] = field(default_factory=dict, compare=False)
    exact: dict[float, bool] = field(default_factory=dict, compare=False)

    @classmethod
    def build(cls, kernels: Sequence[Kernel], source: Grid, query: Grid, rtol: float) -> GridGeometry | str:
        """What serves all of the kernels, or why there is none."""
        support = largest_support(kernels).tolist()
        bands, pairs = band_axes(source, query, kernels[0].causal_axes), list(zip(source.axes, query.axes, strict=True))
        spans: list[float | None] = [None] * source.d
        for axis in bands:
            if not source.axes[axis].periodic:
                spans[axis] = tapered_from(_largest_lag(*_cropped(*pairs[axis], support[axis])), support[axis])
        reaches = [reach if span is None else 2 * span for reach, span in zip(support, spans, strict=True)]
        short = [shorten(kernel, spans, rtol) if any(spans) else kernel for kernel in kernels]
        lattices = {axis: _OnLattice.of(*pairs[axis], support[axis], axis in kernels[0].causal_axes)
                    for axis in range(source.d) if axis not in bands}  # fmt: skip
        device, dtype = kernels[0].extent.device, kernels[0].dtype.to_complex()
        others = box_offsets(
            [lattices[axis].offsets() if axis in lattices else reaches[axis] for axis in range(source.d)],
            device,
            _SAMPLES,
        )
        ways = []
        for axis, ends in enumerate(pairs):
            half = axis == source.d - 1
            if axis in lattices:
                ways.append(lattices[axis].way(device, dtype, half=half))
                continue
            frequency = cut_frequency(short, axis, reaches[axis], others, (_SAFETY * rtol) ** 2 / len(bands))
            if frequency is None:
                return f"the kernel is too sharp to be sampled finely enough for rtol {rtol:g}"
            ways.append(_band_way(*ends, support[axis], reaches[axis], frequency, device, dtype, half=half))
        if math.prod(way.modes for way in ways) > _MOST_MODES:
            return f"{'x'.join(str(way.modes) for way in ways)} modes are too many"
        limits = [reach if span is None else math.inf for reach, span in zip(support, spans, strict=True)]
        return cls(rtol, tuple(ways), tuple(limits), tuple(spans))

    def transfer(self, kernel: Kernel) -> Transfer:
        """The kernel's taps and their modes."""
        kernel = shorten(kernel, self.spans, self.rtol) if any(self.spans) else kernel
        cells = math.prod(way.cells for way in self.ways)
        taps = kernel.sampled([way.offsets for way in self.ways])
        energy, _ = energy_of_taps(taps.detach().flatten(0, kernel.d - 1))
        taps = taps.permute(*range(kernel.d, taps.ndim), *range(kernel.d))
        with torch.no_grad():
            error = self._between_taps(kernel, taps)
        taps = taps / cells
        with torch.no_grad():
            parts = [to_modes(part, [way.taps for way in self.ways]) for part in taps.split(self._together(kernel))]
        return Transfer(taps, parts, error / cells, energy / cells)

    def _between_taps(self, kernel: Kernel, taps: Tensor) -> Tensor:
        """Squared difference of a kernel and what its modes make of it, summed over places one cell apart, float64.

        Estimated at a few places along each axis between the taps, most of them where the kernel is large.
        """
        size, count = taps.flatten(0, -kernel.d - 1).square().sum(0), round(_PLACES ** (1 / kernel.d))
        draws = [
            way.drawn(size.movedim(axis, 0).reshape(len(way.offsets), -1).sum(1), count)
            for axis, way in enumerate(self.ways)
        ]
        weights = taps.new_ones((), dtype=torch.float64)
        for draw in draws:
            weights = weights[..., None] * draw.weights
        return (self._difference(kernel, taps, draws).square() * weights).flatten(-kernel.d).sum(-1)

    @torch.no_grad()
    def error_of_constants(self, kernel: Kernel, transfer: Transfer) -> Tensor:
        """Squared error made of rows that are all 1, on average over the queries, float64 ``(*kernel.shape)``.

        What lies beyond the end of a spectrum adds up there, where a kernel's falls slowly. 0 where a look costs much.
        """
        kernel = shorten(kernel, self.spans, self.rtol) if any(self.spans) else kernel
        phases = round(_PHASES ** (1 / kernel.d))
        lags = [way.source_lags(phases) for way in self.ways]
        if math.prod(len(one.places) for one in lags) > _MOST_LAGS:
            return torch.zeros_like(transfer.error)
        taps = transfer.taps.detach() * math.prod(way.cells for way in self.ways)
        difference = self._difference(kernel, taps, lags)
        for dim in range(-kernel.d, 0):
            difference = difference.movedim(dim, -1).unflatten(-1, (phases, -1)).sum(-1).movedim(-1, dim)
        return difference.square().flatten(-kernel.d).mean(-1)

    def _difference(self, kernel: Kernel, taps: Tensor, draws: Sequence[Draw]) -> Tensor:
        """Of a kernel and what its taps' modes make of it at some places, float64 ``(*kernel.shape, *places)``."""
        for draw in draws:
            taps = torch.tensordot(taps, draw.from_taps.to(taps), dims=([len(kernel.shape)], [1]))
        true = kernel.sampled([draw.places for draw in draws])
        return (true.permute(*range(kernel.d, true.ndim), *range(kernel.d)) - taps).to(torch.float64)

    def _together(self, kernel: Kernel) -> int:
        """How many channels of the result go through the modes at once: on CPUs no more than stay in the cache."""
        if kernel.extent.device.type != "cpu":
            return kernel.out_channels
        values = math.prod(kernel.shape[1:]) * math.prod(way.modes for way in self.ways)
        return max(1, int(_AT_ONCE / (values * kernel.dtype.to_complex().itemsize)))


def band_axes(source: Grid, query: Grid, causal_axes: Sequence[int]) -> list[int]:
    """The axes whose nodes have no common lattice, or a fine one, on which most cells would be empty.

    A causal kernel, whose spectrum never ends, stays on a fine one.
    """
    found = []
    for axis, ends in enumerate(zip(source.axes, query.axes, strict=True)):
        ratio = common_ratio(*ends)
        if ratio is None or (ratio.denominator > FINEST_LATTICE and axis not in causal_axes):
            found.append(axis)
    return found


def least_grid_work(kernel: Kernel) -> Work:
    """Lower bound on the work for this kernel between grids: the calls of a plan, and the look at its spectrum."""
    study, _ = kernel_work(kernel, least_samples(kernel.d, _SAMPLES))
    return Work(call=_PLAN_CALLS) + study


def grid_cost(kernel: Kernel, source: Grid, query: Grid, batch: int, rtol: float) -> Cost | str:
    """Cost of transforming this kernel between grids, or why it cannot be transformed to ``rtol``."""
    smallest = SMALLEST_RTOL[kernel.dtype]
    if rtol < smallest:
        return f"rtol {rtol:g} is below {smallest:g}, the least in {kernel.dtype}"
    geometry = GridGeometry.build([kernel], source, query, rtol)
    if isinstance(geometry, str):
        return geometry
    read, written, values = batch * kernel.in_channels, batch * kernel.out_channels, math.prod(kernel.shape)
    ways, modes = geometry.ways, math.prod(way.modes for way in geometry.ways)
    taps = math.prod(len(way.offsets) for way in ways)
    evaluated, evaluated_backward = kernel_work(kernel, taps)
    passes = Work(call=_CALLS, element=scale(kernel) * 2.0 * modes * max(read + written + values, batch * values))
    largest = 0.0
    for columns, side in ((read, "source"), (values, "taps"), (written, "query")):
        sums = [getattr(way, side) for way in ways]
        passes += _sum_work(sums) * (scale(kernel) * columns)
        largest += columns * math.prod(max(one.count, one.nodes.count) for one in sums)
    numbers = _COPIES * largest + taps * (evaluation_work(kernel).saved + 3 * values)
    return Cost(
        least_grid_work(kernel),
        passes + evaluated,
        passes + evaluated_backward,
        kernel.extent.element_size() * numbers,
        f"{'x'.join(str(way.modes) for way in ways)} modes",
        study=geometry,
    )


def _sum_work(sums: Sequence[UniformSum]) -> Work:
    """Work of the sums of one column, axis after axis from the last on; the other direction's is the same."""
    work, counts = Work(), [one.nodes.count for one in sums]
    for dim in range(len(sums) - 1, -1, -1):
        one = sums[dim]
        across = math.prod(counts) / counts[dim]
        counts[dim] = one.count
        if one.dense:
            work += Work(multiply_add=_SLOWER * across * one.multiply_adds)
        else:  # complex transforms, there and back
            work += Work(fft=4.0 * across * one.length * math.log2(one.length + 1))
    return work


@dataclass(frozen=True)
class _OnLattice:
    """An axis on which source and query have common nodes."""

    lattice: Lattice
    span: tuple[int, int]
    size: int

    @classmethod
    def of(cls, source: Axis, query: Axis, support: float, causal: bool) -> _OnLattice:
        lattice = Lattice.build(source, query)
        return cls(lattice, lattice.taps(support, causal), source.size)

    def offsets(self, device: torch.device | str = "cpu") -> Tensor:
        return tap_offsets(self.lattice, self.span, torch.device(device))

    def way(self, device: torch.device, dtype: torch.dtype, *, half: bool) -> AxisWay:
        first, last = self.span
        length = self.lattice.length(first, last)
        modes = range(length // 2 + 1 if half else length)
        source, taps, query = (
            Nodes(begin / length, step / length, nodes)
            for begin, step, nodes in (
                (0, self.lattice.up, self.size),
                (first, 1, last - first + 1),
                (0, self.lattice.down, self.lattice.query),
            )
        )
        sums = _sums(source, taps, query, modes, device, dtype, half=half)
        return AxisWay(range(self.size), *sums, self.offsets(device), band=False)


def _sums(
    source: Nodes, taps: Nodes, query: Nodes, modes: range, device: torch.device, dtype: torch.dtype, *, half: bool
) -> tuple[UniformSum, UniformSum, UniformSum]:
    """The sums of an axis.

    Where that makes matrices real, source and query are moved about 0, and the taps to match; not the last axis, whose
    values are real, if it is short.
    """
    between = UniformSum(source, modes.start, len(modes), device, dtype)
    short = half and max(source.count, query.count) < _SHORT
    if not short and between.dense and replace(between, nodes=query).dense:
        taps = replace(taps, first=taps.first + source.centre - query.centre)
        between, query = replace(between, nodes=source.about(0.0)), query.about(0.0)
    turned = 0 if half else between.alternating  # the last axis has all its modes
    return between, replace(between, nodes=taps), replace(between, nodes=query, turned=turned)


def _band_way(
    source: Axis,
    query: Axis,
    support: float,
    reach: float,
    frequency: float,
    device: torch.device,
    dtype: torch.dtype,
    *,
    half: bool,
) -> AxisWay:
    """An axis of any two steps; the kernels end at ``reach`` there, and their spectrum at ``frequency``."""
    kept, cropped = _kept(source, query, support), _cropped(source, query, support)[0]
    circle = source.period
    if circle is None:
        circle = _largest_lag(cropped, query) + reach
        steps = max(cropped.size, math.ceil(circle / source.step))
        if cropped.size >= _LONG:
            circle = source.step * fast_length(steps)
        elif 2 * frequency * source.step > 1:  # the source's modes repeat
            circle = source.step * steps
    highest = math.ceil(frequency * circle)
    cells = fast_length(2 * highest + 1) if highest > _LONG else 2 * highest + 1
    taps = math.floor(reach * cells / circle)
    offsets = torch.arange(-taps, taps + 1, dtype=torch.float64, device=device) * (circle / cells)
    sums = _sums(
        Nodes(0.0, source.step / circle, cropped.size),
        Nodes(-taps / cells, 1 / cells, 2 * taps + 1),
        Nodes((query.start - cropped.start) / circle, query.step / circle, query.size),
        range(0 if half else -highest, highest + 1),
        device,
        dtype,
        half=half,
    )
    return AxisWay(kept, *sums, offsets, band=True)


def _kept(source: Axis, query: Axis, support: float) -> range:
    """Nodes of the source that the kernel reaches from the queries, one at the least."""
    if source.periodic or not math.isfinite(support):
        return range(source.size)
    last = query.start + query.step * (query.size - 1)
    begin = math.ceil((query.start - support - source.start) / source.step)
    end = math.floor((last + support - source.start) / source.step) + 1
    begin = min(max(begin, 0), source.size - 1)
    return range(begin, max(min(end, source.size), begin + 1))


def _cropped(source: Axis, query: Axis, support: float) -> tuple[Axis, Axis]:
    """The source's nodes that are kept, and the query."""
    kept = _kept(source, query, support)
    return Axis(len(kept), source.step, source.start + source.step * kept.start, source.periodic), query


def _largest_lag(source: Axis, query: Axis) -> float:
    """Between any node of the one and any of the other."""
    last = query.start + query.step * (query.size - 1) - source.start
    first = query.start - source.start - source.step * (source.size - 1)
    return max(abs(first), abs(last))
