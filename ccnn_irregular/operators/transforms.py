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

__all__ = ["fast_length", "real_spectrum", "real_window"]

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


def _placed(values: Tensor, dim: int, span: range) -> Tensor:
    """Values in the cells ``span`` along ``dim``, zeros in all others before the last one."""
    if span.start == 0 and span.step == 1:
        return values  # transforms fill up behind it
    shape = list(values.shape)
    shape[dim] = span.stop
    placed = values.new_zeros(shape)
    placed.movedim(dim, -1)[..., span.start : span.stop : span.step] = values.movedim(dim, -1)
    return placed


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
            for axis, span in enumerate(spans):
                values = _placed(values, axis - len(lengths), span)
            return torch.fft.rfftn(values, s=lengths, dim=tuple(range(-len(lengths), 0)))
        spectrum = torch.fft.rfft(_placed(values, -1, spans[-1]), n=lengths[-1])
        for axis in range(len(lengths) - 2, -1, -1):
            dim = axis - len(lengths)
            spectrum = torch.fft.fft(_placed(spectrum, dim, spans[axis]), n=lengths[axis], dim=dim)
        return spectrum

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        # The inverse counts each frequency between the first and the last of the half spectrum twice, for its mirror
        # image, and divides by the number of cells.
        count = float(torch.Size(ctx.lengths).numel())
        weighted = gradients[0] * (count / 2)
        for edge in _edges(weighted, ctx.lengths):
            edge.mul_(2)
        return _Window.apply(weighted, ctx.lengths, ctx.spans), None, None


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


def _edges(spectrum: Tensor, lengths: tuple[int, ...]) -> list[Tensor]:
    """The parts of a half spectrum that hold both a frequency and its mirror image."""
    return [spectrum[..., 0]] if lengths[-1] % 2 else [spectrum[..., 0], spectrum[..., -1]]
