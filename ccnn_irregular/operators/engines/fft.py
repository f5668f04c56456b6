"""The exact convolution between uniform grids by FFT, and tap by tap where a kernel has few.

On a common lattice of step h the convolution is a discrete one with taps K((o + k) h): the kernel is
sampled where grid and support allow a non-zero value, never elsewhere.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from ccnn_irregular._transforms import transforms_active
from ccnn_irregular.domains import Domain
from ccnn_irregular.kernels import Kernel
from ccnn_irregular.operators.engines.engine import Cost, Engine, Plan
from ccnn_irregular.operators.layout import balance, both_grids, restored
from ccnn_irregular.operators.numerics.direct import direct_convolution, is_direct
from ccnn_irregular.operators.numerics.lattice import (
    Lattice,
    at_queries,
    no_common_lattice,
    on_lattice,
    query_windows,
    sampled_kernel,
    source_cells,
    tap_spans,
)
from ccnn_irregular.operators.numerics.transforms import depthwise_convolution, real_spectrum, real_window
from ccnn_irregular.operators.planning.rates import Work
from ccnn_irregular.operators.planning.work import evaluation_work, kernel_work, scale

__all__ = ["FFT"]

# Calls of array operations in a forward pass.
_CALLS, _DIRECT_CALLS = 60, 20
# Blocks per axis in which sizes are compared, and how much larger one may be before float32 would spoil the others.
_BLOCKS, _MOST_UNLIKE, _MOST_UNLIKE_IN_FLOAT64, _FEW = 8, 1e3, 1e12, 0.05
# No fill value in use is smaller.
_LEAST_FILL = 1e15


@final
class FFT(Engine):
    """FFT convolution from grid to grid, exact up to rounding."""

    name: ClassVar[str] = "fft"
    transformable: ClassVar[bool] = True

    def refuses(self, kernel: Kernel, source: Domain, query: Domain) -> str | None:
        grids = both_grids(source, query)
        return "both domains must be grids" if grids is None else no_common_lattice(*grids)

    def cost(self, kernel: Kernel, source: Domain, query: Domain, batch: int, rtol: float) -> Cost:
        lattices = self.prepare([kernel], source, query, rtol)
        spans = tap_spans(kernel, lattices)
        if kernel.depthwise and kernel.dtype == torch.float32 and kernel.extent.device.type == "cpu":
            lengths = [last - first + 1 for first, last in spans]
            if is_direct(lattices, lengths, kernel.out_channels, gradients=True):
                return _direct_cost(kernel, lattices, math.prod(lengths), batch)
        taps = math.prod(last - first + 1 for first, last in spans)
        points = math.prod(a.length(*span) for a, span in zip(lattices, spans, strict=True))
        item, (evaluated, evaluated_backward) = kernel.extent.element_size(), kernel_work(kernel, taps)
        read, written = batch * kernel.in_channels, batch * kernel.out_channels
        transforms = read + written + kernel.generator.out_channels
        # Spectra are multiplied, padded arrays written; full kernels sum over the channels in every mode.
        written_again = scale(kernel) * float(points) * max(transforms, batch * kernel.generator.out_channels)
        moved = scale(kernel) * transforms * points * math.log2(points + 1)
        forward = evaluated + Work(call=_CALLS, fft=moved, element=written_again)
        backward = evaluated_backward + Work(call=2 * _CALLS, fft=moved, element_backward=written_again)
        # Spectra and the kernel's activations are kept; forward and backward, both work on copies beside them.
        numbers = float(points) * (2 * read + 3 * written + 3 * kernel.generator.out_channels)
        numbers += taps * (evaluation_work(kernel).saved + 3 * kernel.generator.out_channels)
        return Cost(Work(), forward, backward, item * numbers, study=lattices)

    def prepare(
        self, kernels: Sequence[Kernel], source: Domain, query: Domain, rtol: float, study: Any = None
    ) -> tuple[Lattice, ...]:
        if study is not None:
            return study
        grids = both_grids(source, query)
        assert grids is not None
        return tuple(Lattice.build(a, b) for a, b in zip(*(grid.axes for grid in grids), strict=True))

    def apply(self, kernel: Kernel, values: Tensor, plan: Plan) -> Tensor:
        lattices: tuple[Lattice, ...] = plan.geometry
        spans = tap_spans(kernel, lattices)
        lengths = [a.length(*span) for a, span in zip(lattices, spans, strict=True)]
        if kernel.depthwise and values.stride(1) == 0:
            values = values[:, :1]  # one channel, expanded: several kernels read it, and its transform serves them all
        weight: float = plan.source.cell_volume * float(kernel.scale)  # type: ignore[union-attr]
        factor = balance(weight)
        taps = sampled_kernel(kernel, lattices, spans) * (weight / factor)
        if transforms_active():
            result = _circular(on_lattice(values, lattices), taps, lengths, kernel.depthwise)
            return restored(at_queries(result, lattices, spans), factor)
        if _is_direct(values, taps, lattices, kernel):
            return restored(direct_convolution(values, taps, lattices, spans), factor)
        cells, windows = source_cells(lattices), query_windows(lattices, spans)
        # Rounding is a share of the largest value wherever it lies, beyond the kernel's reach and in the future too.
        unlike = _unlike(values)
        wide = torch.float64 if values.dtype == torch.float32 and unlike > _MOST_UNLIKE else values.dtype
        if unlike > _MOST_UNLIKE_IN_FLOAT64 and _few_are_large(values):
            warnings.warn(
                f"values {unlike:.0e} times as large as others of their entry: rounding of the transform reaches all "
                "places, beyond the kernel's reach too; are they fill values? engine='reference' keeps places apart",
                stacklevel=2,
            )
        result = _convolved(values.to(wide), taps.to(wide), lengths, cells, windows, kernel.depthwise)
        return restored(at_queries(result, lattices, spans, windows).to(values.dtype), factor)


def _direct_cost(kernel: Kernel, lattices: tuple[Lattice, ...], taps: int, batch: int) -> Cost:
    """Cost of the sum tap by tap."""
    rows = float(batch * kernel.out_channels)
    read, written = rows * math.prod(a.source for a in lattices), rows * math.prod(a.query for a in lattices)
    evaluated, evaluated_backward = kernel_work(kernel, taps)
    forward = evaluated + Work(call=_DIRECT_CALLS, multiply_add=written * taps, element=read + written)
    backward = evaluated_backward + Work(
        call=2 * _DIRECT_CALLS, multiply_add_backward=4 * written * taps, element_backward=2 * (read + written)
    )
    numbers = 3 * (read + written) + taps * (evaluation_work(kernel).saved + 3 * kernel.out_channels)
    return Cost(Work(), forward, backward, kernel.extent.element_size() * numbers, study=lattices)


def _is_direct(values: Tensor, taps: Tensor, lattices: tuple[Lattice, ...], kernel: Kernel) -> bool:
    """Whether the sum is taken tap by tap."""
    if not kernel.depthwise or values.shape[1] != len(taps) or values.dtype != torch.float32 or values.is_cuda:
        return False
    gradients = torch.is_grad_enabled() and (values.requires_grad or taps.requires_grad)
    return bool(values.numel()) and is_direct(lattices, taps.shape[1:], len(taps), gradients=gradients)


@torch.no_grad()
def _few_are_large(values: Tensor) -> bool:
    """Whether, in an entry and channel, all but a few values are lost beside the largest; fields that fade away are not
    meant."""
    size = values.abs().flatten(2)
    if not size.numel() or float(size.amax()) < _LEAST_FILL:  # else zeros that are zero up to rounding would be meant
        return False
    large = size * _MOST_UNLIKE_IN_FLOAT64 > size.amax(2, keepdim=True)
    return bool((large.sum(2) <= max(1.0, _FEW * size.shape[2])).any())


@torch.no_grad()
def _unlike(values: Tensor) -> float:
    """How much larger the largest value of an entry and channel is than that of its quietest block; 1 if it is zero."""
    peaks = values.abs()
    for dim in range(peaks.ndim - 1, 1, -1):
        size = peaks.shape[dim]
        length = -(-size // _BLOCKS)
        whole = size // length * length
        blocks = peaks.narrow(dim, 0, whole).unflatten(dim, (-1, length)).amax(dim + 1)
        if whole < size:
            blocks = torch.cat([blocks, peaks.narrow(dim, whole, size - whole).amax(dim, keepdim=True)], dim)
        peaks = blocks
    peaks = peaks.flatten(2)
    largest = peaks.amax(2, keepdim=True)
    ratio = torch.where(peaks > 0, largest / peaks, 1.0)
    return float(ratio.amax()) if ratio.numel() else 1.0


def _convolved(
    values: Tensor, taps: Tensor, lengths: list[int], cells: list[range], windows: list[range], depthwise: bool
) -> Tensor:
    """Circular convolution of the values in ``cells``, read in ``windows``; full kernels sum over the channels in."""
    if depthwise and torch.is_grad_enabled():
        return depthwise_convolution(values, taps, lengths, cells, windows)
    spectrum, transfer = real_spectrum(values, lengths, cells), real_spectrum(taps, lengths)
    if not depthwise:
        product = torch.einsum("bc...,dc...->bd...", spectrum, transfer)
    elif spectrum.shape[1] == len(transfer):
        product = spectrum.mul_(transfer)  # nobody else reads the spectrum: one large array less
    else:
        product = spectrum * transfer
    return real_window(product, lengths, windows)


def _circular(values: Tensor, taps: Tensor, lengths: list[int], depthwise: bool) -> Tensor:
    """The same from cells 0 on, read everywhere, in tensor operations that ``torch.func`` takes."""
    dims = tuple(range(-len(lengths), 0))
    spectrum, transfer = torch.fft.rfftn(values, s=lengths, dim=dims), torch.fft.rfftn(taps, s=lengths, dim=dims)
    product = spectrum * transfer if depthwise else torch.einsum("bc...,dc...->bd...", spectrum, transfer)
    return torch.fft.irfftn(product, s=lengths, dim=dims)
