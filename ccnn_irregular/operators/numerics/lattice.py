"""One axis, or several, of a common lattice on which source and query grid both lie.

Output steps may be any rational multiple of the input's (strided, transposed), shifted by any amount,
and axes may be periodic: a discrete convolution with taps K((shift + k) step).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import torch
from torch import Tensor

from ccnn_irregular.domains import Axis, Grid
from ccnn_irregular.kernels import Kernel
from ccnn_irregular.operators.numerics.transforms import fast_length

__all__ = [
    "LARGEST_DENOMINATOR",
    "Lattice",
    "at_queries",
    "common_ratio",
    "no_common_lattice",
    "on_lattice",
    "query_windows",
    "sampled_kernel",
    "source_cells",
    "tap_offsets",
    "tap_spans",
]

LARGEST_DENOMINATOR = 64
"""Largest denominator of a ratio of steps that is taken for rational."""


@dataclass(frozen=True)
class Lattice:
    """One axis of the common lattice.

    Attributes:
        up: lattice steps per source step.
        down: lattice steps per query step.
        step: lattice step, coordinate units.
        shift: first query node minus first source node, in lattice steps.
        source: length of the source on the lattice, between and including its nodes (periodic: one period).
        query: number of query nodes.
        periodic: whether the axis repeats.
    """

    up: int
    down: int
    step: float
    shift: float
    source: int
    query: int
    periodic: bool

    @classmethod
    def build(cls, source: Axis, query: Axis) -> Lattice:
        """Make the common lattice of two axes whose steps are in a rational ratio."""
        ratio = common_ratio(source, query)
        assert ratio is not None  # FFT.assess came first
        up, down, step = ratio.denominator, ratio.numerator, source.step / ratio.denominator
        length = source.size * up if source.periodic else (source.size - 1) * up + 1
        return cls(up, down, step, (query.start - source.start) / step, length, query.size, source.periodic)

    def taps(self, support: float, causal: bool) -> tuple[int, int]:
        """First and last tap k with a possibly non-zero kernel value K((shift + k) step)."""
        reach = support / self.step
        if self.periodic:
            reach = min(reach, self.source)  # a kernel without a mask is refused later, by convolve
            first, last = math.ceil(-reach - self.shift), math.floor(reach - self.shift)
            last = min(last, first + self.source - 1)
        else:
            first, last = 1 - self.source, (self.query - 1) * self.down
            if math.isfinite(reach):
                first = max(first, math.ceil(-reach - self.shift))
                last = min(last, math.floor(reach - self.shift))
        if causal:
            # One tap of grace: whether a lag is zero or negative is the kernel's decision.
            first = max(first, math.floor(-self.shift))
        if last < first:  # no tap at all: keep one, where the kernel is zero, and not one as far off as the query
            first = last = 1 - self.source
        return first, last

    def length(self, first: int, last: int) -> int:
        """FFT length at which no wanted output is aliased."""
        if self.periodic:
            return self.source
        taps = last - first + 1
        lowest, highest = -first, (self.query - 1) * self.down - first
        end = self.source + taps - 2
        shortest = max(end - lowest + 1, highest + 1, self.source, taps)
        return fast_length(shortest)


@lru_cache(maxsize=1024)
def _rational(ratio: float) -> Fraction | None:
    fraction = Fraction(ratio).limit_denominator(LARGEST_DENOMINATOR)
    return fraction if fraction > 0 and abs(float(fraction) / ratio - 1) < 1e-9 else None


def common_ratio(source: Axis, query: Axis) -> Fraction | None:
    """The query's step in those of the source where both lie on a common lattice, else None."""
    return _rational(query.step / source.step)


def no_common_lattice(source: Grid, query: Grid) -> str | None:
    """Why two grids do not lie on a common lattice, or None."""
    for axis, (a, b) in enumerate(zip(source.axes, query.axes, strict=True)):
        if common_ratio(a, b) is None:
            return f"step ratio {b.step / a.step:g} on axis {axis} is no fraction up to 1/{LARGEST_DENOMINATOR}"
    return None


def tap_spans(kernel: Kernel, lattices: Sequence[Lattice], first_axis: int = 0) -> list[tuple[int, int]]:
    """First and last tap per axis; the lattices are those of the kernel's axes from ``first_axis`` on."""
    support = kernel.support.tolist()
    return [
        lattice.taps(support[axis], axis in kernel.causal_axes) for axis, lattice in enumerate(lattices, first_axis)
    ]


def tap_offsets(lattice: Lattice, span: tuple[int, int], device: torch.device) -> Tensor:
    """Offsets of the taps ``span``, float64, coordinate units."""
    first, last = span
    return (torch.arange(first, last + 1, dtype=torch.float64, device=device) + lattice.shift) * lattice.step


def sampled_kernel(
    kernel: Kernel, lattices: Sequence[Lattice], spans: Sequence[tuple[int, int]] | None = None
) -> Tensor:
    """Kernel values without the scale at the taps ``spans``, ``(*kernel.shape, *taps)``; None = all it reaches."""
    spans = tap_spans(kernel, lattices) if spans is None else spans
    device, d = kernel.extent.device, len(lattices)
    values = kernel.sampled([tap_offsets(lattice, span, device) for lattice, span in zip(lattices, spans, strict=True)])
    return values.permute(*range(d, values.ndim), *range(d))


def on_lattice(values: Tensor, lattices: Sequence[Lattice]) -> Tensor:
    """Values with zeros between the source's nodes where the lattice is finer."""
    if all(lattice.up == 1 for lattice in lattices):
        return values
    spread = values.new_zeros(*values.shape[:2], *(lattice.source for lattice in lattices))
    spread[(slice(None), slice(None), *(slice(None, None, lattice.up) for lattice in lattices))] = values
    return spread


def source_cells(lattices: Sequence[Lattice]) -> list[range]:
    """Per axis the cells of the lattice that the source's nodes are."""
    return [range(0, one.source - one.up + 1 if one.periodic else one.source, one.up) for one in lattices]


def query_windows(lattices: Sequence[Lattice], spans: Sequence[tuple[int, int]]) -> list[range]:
    """Per axis the cells of a circular convolution's result that the queries lie in. They are all of its cells where
    queries lie beyond either end of it and are read around the circle."""
    windows = []
    for lattice, span in zip(lattices, spans, strict=True):
        read, length = _read(lattice, span), lattice.length(*span)
        windows.append(read if read.start >= 0 and read.stop <= length else range(length))
    return windows


def at_queries(
    result: Tensor,
    lattices: Sequence[Lattice],
    spans: Sequence[tuple[int, int]],
    windows: Sequence[range] | None = None,
) -> Tensor:
    """Circular convolution result read at the query nodes; ``windows`` if only these cells of it are there."""
    d = len(lattices)
    for axis, (lattice, span) in enumerate(zip(lattices, spans, strict=True)):
        dim = result.ndim - d + axis
        read = _read(lattice, span)
        if windows is not None and windows[axis] == read:
            continue
        if read.start >= 0 and read.stop <= result.shape[dim]:
            result = result[(slice(None),) * dim + (slice(read.start, read.stop, read.step),)]
        else:
            index = torch.arange(read.start, read.stop, read.step, device=result.device) % result.shape[dim]
            result = result.index_select(dim, index)
    return result


def _read(lattice: Lattice, span: tuple[int, int]) -> range:
    """Cells of the queries in a circular convolution's result."""
    return range(-span[0], (lattice.query - 1) * lattice.down - span[0] + 1, lattice.down)
