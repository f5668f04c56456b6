"""The Fourier transform of real arrays that are shorter than it, and back to a part of the result.

PyTorch's own gradient of ``rfftn`` fills the half spectrum up with zeros and runs a full complex transform: twice the
work and memory of the forward pass. The adjoint of either direction is the other one, up to weights.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

__all__ = ["depthwise_convolution", "fast_length", "real_spectrum", "real_window"]

# Prime factors a transform's length may have.
_PRIMES = (2, 3, 5, 7)
# Time per cell of a transform by the number of factors 2 in its length, relative to lengths with four or more; measured
# on CPUs (MKL) from 24 to 16,000 cells, real and complex: 2.2 to 3.5 for odd lengths, 1.25 to 1.5 for one factor.
_TIME_BY_TWOS = (2.5, 1.3, 1.15, 1.05)

# Where at most this share of the cells is not zero, transforming axis by axis is faster than all at once: 0.6 of the
# time for 39 x 39 taps on 224 x 224 cells, but twice the time for 48^3 values on 56^3 cells.
_SPARSE = 1 / 16
# Where at most this share of all axes but the last is read, the inverse is faster axis by axis: 0.6 of the time for
# half of 56^3 or 96^3 cells along each axis, the same time for 0.85 of them, 1.3 times the time for all.
_WIDE = 0.7


@lru_cache(maxsize=4096)
def fast_length(shortest: int) -> int:
    """The length of at least ``shortest`` cells whose Fourier transform takes the least time.

    Not the smallest one of small prime factors: 18,225 = 3^6 5^2 takes five times as long as 18,432 = 2^11 3^2.
    """
    return min(_smooth_numbers(max(shortest, 1)), key=_relative_time)


def _relative_time(length: int) -> float:
    twos = (length & -length).bit_length() - 1
    return length * (_TIME_BY_TWOS[twos] if twos < len(_TIME_BY_TWOS) else 1.0)


def _smooth_numbers(shortest: int) -> list[int]:
    """Numbers from ``shortest`` to the next power of two that have small prime factors only, ascending."""
    longest = 1 << (shortest - 1).bit_length()
    numbers = [1]
    for prime in _PRIMES:
        multiples = numbers
        while multiples:
            multiples = [prime * one for one in multiples if prime * one <= longest]
            numbers = numbers + multiples
    numbers.sort()
    return numbers[bisect_left(numbers, shortest) :]


def real_spectrum(values: Tensor, lengths: Sequence[int], spans: Sequence[range] | None = None) -> Tensor:
    """``torch.fft.rfftn`` over the last axes, one a length, of values with zeros around and between them.

    Differentiable any number of times.

    Args:
        values: real ``(..., *sizes)``.
        lengths: size of the transform along each of the last axes.
        spans: cells that the values lie in, per axis; None = those from 0 on.

    Returns:
        Complex ``(..., *lengths[:-1], lengths[-1] // 2 + 1)``.
    """
    if spans is None:
        spans = [range(size) for size in values.shape[-len(lengths) :]]
    return _Spectrum.apply(values, tuple(lengths), tuple(spans))


def real_window(spectrum: Tensor, lengths: Sequence[int], spans: Sequence[range]) -> Tensor:
    """A window of ``torch.fft.irfftn`` over the last axes; differentiable any number of times.

    Args:
        spectrum: complex ``(..., *lengths[:-1], lengths[-1] // 2 + 1)``.
        lengths: size of the transform along each of the last axes.
        spans: cells of the window, per axis: with a step only every so manieth is read.

    Returns:
        Real ``(..., *sizes)``, sizes those of the window.
    """
    return _Window.apply(spectrum, tuple(lengths), tuple(spans))


def depthwise_convolution(
    values: Tensor, taps: Tensor, lengths: Sequence[int], cells: Sequence[range], spans: Sequence[range]
) -> Tensor:
    """Circular convolution of real arrays with one kernel per channel, read in a window; differentiable twice.

    The same as ``real_window(real_spectrum(values) * real_spectrum(taps))`` with a cheaper backward pass: the factors
    of the adjoint transforms cancel, and no conjugate of the batch's spectrum is written beside it.

    Args:
        values: real ``(B, C, *sizes)``, or ``(B, 1, *sizes)`` where all kernels read the same channel.
        taps: real ``(C, *taps)`` of the same dtype, taps at most the lengths.
        lengths: size of the circle along each of the last axes.
        cells: those that the values lie in, per axis; zeros in all others.
        spans: cells of the window, per axis.

    Returns:
        Real ``(B, C, *window)``.
    """
    result, *_ = _Depthwise.apply(values, taps, tuple(lengths), tuple(cells), tuple(spans))
    return result


class _Depthwise(torch.autograd.Function):
    """Values and taps to a window of their convolution, and to both spectra, so that second derivatives know them."""

    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        taps: Tensor,
        lengths: tuple[int, ...],
        cells: tuple[range, ...],
        spans: tuple[range, ...],
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.lengths, ctx.spans, ctx.channels = lengths, spans, values.shape[1]
        ctx.cells = cells, tuple(range(size) for size in taps.shape[1:])
        spectrum, transfer = real_spectrum(values, lengths, cells), real_spectrum(taps, lengths)
        result = real_window(spectrum * transfer, lengths, spans)
        # What the backward pass multiplies by; the spectrum itself is not needed any more.
        conjugates = spectrum.conj_physical_(), transfer.conj_physical_()
        ctx.save_for_backward(*conjugates)
        return result, *conjugates

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        spectrum, transfer = ctx.saved_tensors  # conjugated
        along_result, *along_spectra = gradients
        found: list[Tensor | None] = [None, None]
        if along_result is not None:
            gradient = _Spectrum.apply(along_result, ctx.lengths, ctx.spans)
            if ctx.needs_input_grad[1]:
                found[1] = real_window((gradient * spectrum).sum(0), ctx.lengths, ctx.cells[1])
            if ctx.needs_input_grad[0]:
                product = gradient * transfer if torch.is_grad_enabled() else gradient.mul_(transfer)
                if ctx.channels < product.shape[1]:
                    product = product.sum(1, keepdim=True)
                found[0] = real_window(product, ctx.lengths, ctx.cells[0])
        for place, along in enumerate(along_spectra):
            if along is not None and ctx.needs_input_grad[place]:  # in second derivatives only
                more = _adjoint_of_spectrum(along.conj(), ctx.lengths, ctx.cells[place])
                before = found[place]
                found[place] = more if before is None else before + more
        return found[0], found[1], None, None, None


class _Spectrum(torch.autograd.Function):
    """Values inside a window, zero outside it, to their spectrum."""

    @staticmethod
    def forward(  # the form without setup_context, which costs 0.1 ms a call
        ctx: Any, values: Tensor, lengths: tuple[int, ...], spans: tuple[range, ...]
    ) -> Tensor:
        ctx.lengths, ctx.spans = lengths, spans
        if not values.numel():  # no entry of a batch: MKL refuses it
            half = (*lengths[:-1], lengths[-1] // 2 + 1)
            return values.new_zeros(*values.shape[: -len(lengths)], *half, dtype=values.dtype.to_complex())
        if values.shape[-len(lengths) :].numel() > _SPARSE * torch.Size(lengths).numel():
            return torch.fft.rfftn(_filled_up(values, lengths, spans), dim=tuple(range(-len(lengths), 0)))
        spectrum = torch.fft.rfft(_placed(values, -1, spans[-1]), n=lengths[-1])
        for axis in range(len(lengths) - 2, -1, -1):
            dim = axis - len(lengths)
            spectrum = torch.fft.fft(_placed(spectrum, dim, spans[axis]), n=lengths[axis], dim=dim)
        return spectrum

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _adjoint_of_spectrum(gradients[0], ctx.lengths, ctx.spans), None, None


class _Window(torch.autograd.Function):
    """A half spectrum to the values inside a window."""

    @staticmethod
    def forward(  # the form without setup_context, which costs 0.1 ms a call
        ctx: Any, spectrum: Tensor, lengths: tuple[int, ...], spans: tuple[range, ...]
    ) -> Tensor:
        ctx.lengths, ctx.spans = lengths, spans
        if not spectrum.numel():
            return spectrum.real.new_zeros(*spectrum.shape[: -len(lengths)], *map(len, spans))
        windows = [slice(span.start, span.stop, span.step) for span in spans]
        kept = math.prod(len(span) / length for span, length in zip(spans[:-1], lengths[:-1], strict=True))
        if kept > _WIDE:
            return torch.fft.irfftn(spectrum, s=lengths, dim=tuple(range(-len(lengths), 0)))[(..., *windows)]
        # Axis by axis, so that what lies outside the window is dropped before the next axis is transformed.
        for axis, window in enumerate(windows[:-1]):
            behind = len(windows) - 1 - axis
            spectrum = torch.fft.ifft(spectrum, dim=-1 - behind)[(..., window, *(slice(None),) * behind)]
        return torch.fft.irfft(spectrum, n=lengths[-1])[..., windows[-1]]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        count = float(torch.Size(ctx.lengths).numel())
        weighted = _Spectrum.apply(gradients[0], ctx.lengths, ctx.spans) * (2 / count)
        for edge in _edges(weighted, ctx.lengths):
            edge.mul_(0.5)
        return weighted, None, None


def _filled_up(values: Tensor, lengths: Sequence[int], spans: Sequence[range]) -> Tensor:
    """Values in the cells ``spans``, zeros in all others, ``(..., *lengths)``.

    Where the cells are neighbours each one is written once: ``rfftn(s=...)`` writes zeros everywhere first.
    """
    if all(len(span) == length for span, length in zip(spans, lengths, strict=True)):
        return values
    shape = *values.shape[: -len(lengths)], *lengths
    if any(span.step > 1 for span in spans):
        windows: tuple[Any, ...] = tuple(slice(span.start, span.stop, span.step) for span in spans)
        result = values.new_zeros(shape)
        result[(..., *windows)].copy_(values)
        return result
    result = inside = values.new_empty(shape)
    for dim, (length, span) in enumerate(zip(lengths, spans, strict=True), -len(lengths)):
        for start, stop in ((0, span.start), (span.stop, length)):
            if stop > start:
                inside.narrow(dim, start, stop - start).zero_()
        inside = inside.narrow(dim, span.start, len(span))
    inside.copy_(values)
    return result


def _placed(values: Tensor, dim: int, span: range) -> Tensor:
    """Values in the cells ``span`` along ``dim``, zeros in all others before the last one."""
    if span.start == 0 and span.step == 1:
        return values  # transforms fill up behind it
    shape = list(values.shape)
    shape[dim] = span.stop
    placed = values.new_zeros(shape)
    placed.movedim(dim, -1)[..., span.start : span.stop : span.step] = values.movedim(dim, -1)
    return placed


def _adjoint_of_spectrum(gradient: Tensor, lengths: tuple[int, ...], spans: Sequence[range]) -> Tensor:
    """A gradient along the half spectrum of values inside a window to that along the values."""
    # The inverse counts each frequency between the first and the last of the half spectrum twice, for its mirror
    # image, and divides by the number of cells.
    weighted = gradient * (torch.Size(lengths).numel() / 2)
    for edge in _edges(weighted, lengths):
        edge.mul_(2)
    return real_window(weighted, lengths, spans)


def _edges(spectrum: Tensor, lengths: tuple[int, ...]) -> list[Tensor]:
    """The parts of a half spectrum that hold both a frequency and its mirror image."""
    return [spectrum[..., 0]] if lengths[-1] % 2 else [spectrum[..., 0], spectrum[..., -1]]
