"""The box of cells that costs the least, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ccnn_irregular.domains import Domain
from ccnn_irregular.kernels import Kernel
from ccnn_irregular.operators.engines.engine import Cost
from ccnn_irregular.operators.engines.neighbours import Neighbours
from ccnn_irregular.operators.engines.spectral.factors import Factors, Place, Smoothing, largest_support
from ccnn_irregular.operators.numerics.bands import Band, bands_by_width, least_samples
from ccnn_irregular.operators.numerics.box import Box
from ccnn_irregular.operators.numerics.lattice import tap_offsets, tap_spans
from ccnn_irregular.operators.numerics.nufft import columns_at_once
from ccnn_irregular.operators.numerics.transforms import fast_length
from ccnn_irregular.operators.planning.rates import Work, current_rates
from ccnn_irregular.operators.planning.work import evaluation_work, kernel_work, scale

__all__ = ["SMALLEST_RTOL", "best_box", "least_work", "transform_cost"]

SMALLEST_RTOL = {torch.float32: 1e-5, torch.float64: 1e-8}
"""The least error that is promised, by dtype."""

# Uses of a plan that its cost is spread over when the window is chosen.
_USES = 20
# Numbers written per cell and column around the transforms; more for each doubling of a box that no cache holds.
_WRITTEN, _WRITTEN_PER_DOUBLING, _CELLS_IN_CACHE = 1.0, 0.8, 1 << 18
# Calls of array operations in a pass and in a plan, however few the points.
_CALLS, _PLAN_CALLS = 600, 3000
# Arrays of the size of what is transformed at once that live together.
_COPIES = 6
_MOST_CELLS = 1 << 40


def transform_cost(kernel: Kernel, source: Domain, query: Domain, batch: int, rtol: float) -> Cost | str:
    """Cost of transforming this kernel between domains that suit, or why it cannot be transformed to ``rtol``."""
    smallest = SMALLEST_RTOL[kernel.dtype]
    if rtol < smallest:
        return f"rtol {rtol:g} is below {smallest:g}, the least in {kernel.dtype}"
    factors = Factors.build(source, query)
    place = Place.of([kernel], factors)
    far, near = Smoothing.of([kernel], factors, place, rtol).parts(kernel)
    smooth = _smooth_cost(far, factors, place, rtol)
    return (
        smooth
        if isinstance(smooth, str) or near is None
        else _sum(smooth, Neighbours().cost(near, source, query, batch, rtol))
    )


def least_work(kernel: Kernel, axes: int) -> Work:
    """Lower bound on the work for this kernel on ``axes`` irregular axes: its calls, and the look at its spectrum."""
    return Work(call=_PLAN_CALLS + 2 * _CALLS) + _study_work(kernel, axes)


def best_box(kernels: Sequence[Kernel], factors: Factors, place: Place, rtol: float) -> Box | None:
    """The box whose plan and passes cost the least; None if a kernel is too sharp."""
    lattice = [max(offsets, key=len) for offsets in zip(*(_lattice_offsets(k, factors) for k in kernels), strict=True)]
    support = largest_support(kernels).tolist()
    boxes = [
        _layout(place.lowest, place.highest, bands, support, factors.sources.periods)
        for bands in bands_by_width(kernels, factors.d, lattice, rtol).values()
    ]
    return min(boxes, key=lambda box: _seconds(kernels[0], factors, box), default=None)


def _lattice_offsets(kernel: Kernel, factors: Factors) -> list[Tensor]:
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


def _columns(kernel: Kernel, factors: Factors) -> int:
    """Real columns that are spread and interpolated."""
    spans = tap_spans(kernel, factors.lattices, factors.d)
    lengths = [lattice.length(*span) for lattice, span in zip(factors.lattices, spans, strict=True)]
    # A real transform of n nodes is n / 2 + 1 complex numbers.
    frequencies = 2 * math.prod(lengths[:-1]) * (lengths[-1] // 2 + 1) if lengths else 1
    return (kernel.in_channels + kernel.out_channels) * frequencies


def _entries(factors: Factors, box: Box) -> float:
    """Window entries of a plan."""
    count = factors.sources.count if factors.same else factors.sources.count + factors.queries.count
    return float(count * math.prod(window.width for window in box.windows))


def _passes(kernel: Kernel, factors: Factors, box: Box) -> Work:
    """Spreading, transforming and interpolating."""
    columns, cells = _columns(kernel, factors), box.layers * box.cells
    both = _entries(factors, box) * (2 if factors.same else 1)
    written = _WRITTEN + _WRITTEN_PER_DOUBLING * math.log2(max(1.0, cells / _CELLS_IN_CACHE))
    times = scale(kernel) * columns
    return Work(sparse=times * both / 2, fft=times * cells * math.log2(cells + 2), write=times * cells * written)


def _seconds(kernel: Kernel, factors: Factors, box: Box) -> float:
    """Of one pass, and its part of the plan: what the boxes are compared by."""
    work = _passes(kernel, factors, box) + Work(window=_entries(factors, box) / _USES)
    return current_rates(kernel.extent.device).seconds(work)


def _study_work(kernel: Kernel, axes: int) -> Work:
    """The look at the kernel's spectrum that the box follows from."""
    work, _ = kernel_work(kernel, least_samples(axes))
    return work


def _smooth_cost(kernel: Kernel, factors: Factors, place: Place, rtol: float) -> Cost | str:
    box = best_box([kernel], factors, place, rtol)
    if box is None:
        return f"the kernel is too sharp to be sampled finely enough for rtol {rtol:g}"
    cells = box.layers * box.cells
    if cells > _MOST_CELLS:
        return f"{'x'.join(map(str, box.sizes))} cells are too many"
    columns, entries = _columns(kernel, factors), _entries(factors, box)
    taps = math.prod(2 * reach / step + 1 for reach, step in zip(kernel.support.tolist(), box.steps, strict=False))
    taps *= math.prod(len(offsets) for offsets in _lattice_offsets(kernel, factors))
    kernel_forward, kernel_backward = kernel_work(kernel, taps)
    passes = _passes(kernel, factors, box) + Work(call=_CALLS)
    item = kernel.extent.element_size()
    work = evaluation_work(kernel)
    # Cells of one side, what is transformed at once with its copies, and the kernel's transform on its way.
    numbers = cells * (columns / 2 + _COPIES * columns_at_once(cells, columns / 2) + kernel.generator.out_channels)
    # Matrix and transpose, and both again while they are built; the kernel's own activations.
    memory = item * (numbers + taps * (work.saved + work.elements)) + entries * 2.5 * (item + 4)
    return Cost(
        Work(window=entries, call=_PLAN_CALLS) + _study_work(kernel, factors.d),
        passes + kernel_forward,
        passes + kernel_backward,
        memory,
        f"{'x'.join(map(str, box.sizes))} cells",
        study=box,
    )


def _sum(one: Cost, other: Cost) -> Cost:
    return Cost(
        one.plan + other.plan,
        one.forward + other.forward,
        one.backward + other.backward,
        one.bytes + other.bytes,
        f"{one.note} and {other.note}",
        study=one.study,
    )
