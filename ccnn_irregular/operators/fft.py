"""The exact FFT convolution between uniform grids.

On a common lattice of step h the convolution is a discrete one with taps K((o + k) h): the kernel is
sampled where grid and support allow a non-zero value, never elsewhere. Output steps may be any
rational multiple of the input's (strided, transposed, shifted by any amount), axes may be periodic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, final

import torch
from scipy.fft import next_fast_len
from torch import Tensor

from ccnn_irregular.domains import Axis, Domain, Grid
from ccnn_irregular.kernels import Kernel
from ccnn_irregular.operators.engine import Cost, Engine, Plan
from ccnn_irregular.operators.reference import kernel_work

__all__ = ["FFT"]

_SECONDS_PER_TAP_OPERATION = 2.7e-10
_SECONDS_PER_FFT_OPERATION = 4e-10
_LARGEST_DENOMINATOR = 64


@dataclass(frozen=True)
class _Lattice:
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
    def build(cls, source: Axis, query: Axis) -> _Lattice:
        ratio = _rational(query.step / source.step)
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
        return int(next_fast_len(shortest, real=True))


def _rational(ratio: float) -> Fraction | None:
    fraction = Fraction(ratio).limit_denominator(_LARGEST_DENOMINATOR)
    return fraction if fraction > 0 and abs(float(fraction) / ratio - 1) < 1e-9 else None


@final
class FFT(Engine):
    """FFT convolution from grid to grid, exact up to rounding."""

    name: ClassVar[str] = "fft"

    def assess(self, kernel: Kernel, source: Domain, query: Domain, batch: int, rtol: float) -> Cost | str:
        if not (isinstance(source, Grid) and isinstance(query, Grid)):
            return "source and query must both be grids"
        for axis, (a, b) in enumerate(zip(source.axes, query.axes, strict=True)):
            if _rational(b.step / a.step) is None:
                return f"step ratio {b.step / a.step:g} on axis {axis} is no fraction up to 1/{_LARGEST_DENOMINATOR}"
        lattices = self.prepare(kernel, source, query, rtol)
        spans = _spans(kernel, lattices)
        taps = math.prod(last - first + 1 for first, last in spans)
        points = math.prod(a.length(*span) for a, span in zip(lattices, spans, strict=True))
        transforms = batch * (kernel.in_channels + kernel.out_channels) + kernel.generator.out_channels
        seconds = taps * kernel_work(kernel) * _SECONDS_PER_TAP_OPERATION
        seconds += transforms * points * math.log2(points + 1) * _SECONDS_PER_FFT_OPERATION
        item = kernel.extent.element_size()
        return Cost(0.0, seconds, 2 * seconds, float(item * (2 * transforms * points + 10 * taps * 32)))

    def prepare(self, kernel: Kernel, source: Domain, query: Domain, rtol: float) -> tuple[_Lattice, ...]:
        assert isinstance(source, Grid)
        assert isinstance(query, Grid)
        return tuple(_Lattice.build(a, b) for a, b in zip(source.axes, query.axes, strict=True))

    def apply(self, kernel: Kernel, values: Tensor, plan: Plan) -> Tensor:
        lattices: tuple[_Lattice, ...] = plan.geometry
        spans = _spans(kernel, lattices)
        lengths = [a.length(*span) for a, span in zip(lattices, spans, strict=True)]
        dims = tuple(range(-len(lattices), 0))
        spectrum = torch.fft.rfftn(_on_lattice(values, lattices), s=lengths, dim=dims)
        taps = _sampled(kernel, lattices, spans) * plan.source.cell_volume  # type: ignore[union-attr]
        transfer = torch.fft.rfftn(taps, s=lengths, dim=dims)
        product = spectrum * transfer if kernel.depthwise else torch.einsum("bc...,dc...->bd...", spectrum, transfer)
        return _at_queries(torch.fft.irfftn(product, s=lengths, dim=dims), lattices, spans)


def _spans(kernel: Kernel, lattices: tuple[_Lattice, ...]) -> list[tuple[int, int]]:
    support = kernel.support.tolist()
    return [
        lattice.taps(radius, axis in kernel.causal_axes)
        for axis, (lattice, radius) in enumerate(zip(lattices, support, strict=True))
    ]


def _sampled(kernel: Kernel, lattices: tuple[_Lattice, ...], spans: list[tuple[int, int]]) -> Tensor:
    """Kernel values on the lattice inside its support, ``(*kernel.shape, *taps)``."""
    device = kernel.extent.device
    offsets = [
        (torch.arange(first, last + 1, dtype=torch.float64, device=device) + lattice.shift) * lattice.step
        for lattice, (first, last) in zip(lattices, spans, strict=True)
    ]
    mesh = torch.stack(torch.meshgrid(*offsets, indexing="ij"), dim=-1)
    values = kernel(mesh.to(kernel.dtype))
    d = len(lattices)
    return values.permute(*range(d, values.ndim), *range(d))


def _on_lattice(values: Tensor, lattices: tuple[_Lattice, ...]) -> Tensor:
    """Values with zeros between the source's nodes where the lattice is finer."""
    if all(lattice.up == 1 for lattice in lattices):
        return values
    spread = values.new_zeros(*values.shape[:2], *(lattice.source for lattice in lattices))
    spread[(slice(None), slice(None), *(slice(None, None, lattice.up) for lattice in lattices))] = values
    return spread


def _at_queries(result: Tensor, lattices: tuple[_Lattice, ...], spans: list[tuple[int, int]]) -> Tensor:
    """Circular convolution result read at the query nodes."""
    d = len(lattices)
    for axis, (lattice, (first, _)) in enumerate(zip(lattices, spans, strict=True)):
        dim = result.ndim - d + axis
        start, stop = -first, (lattice.query - 1) * lattice.down - first + 1
        if start >= 0 and stop <= result.shape[dim]:
            result = result[(slice(None),) * dim + (slice(start, stop, lattice.down),)]
        else:
            index = torch.arange(start, stop, lattice.down, device=result.device) % result.shape[dim]
            result = result.index_select(dim, index)
    return result
