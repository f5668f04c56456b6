"""Add up results of small convolutions, each read some places further on; nothing is padded or copied."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["shift_add"]

_Offsets = tuple[tuple[int, ...], ...]


def shift_add(parts: Tensor, offsets: Sequence[tuple[int, ...]], sizes: Sequence[int]) -> Tensor:
    """y(p) = sum over k of parts_k(p + offset_k), zero where that is outside; differentiable any number of times.

    Args:
        parts: ``(B, C, K, *extended)``.
        offsets: one for each of the K, places per axis.
        sizes: of the result.

    Returns:
        ``(B, C, *sizes)``.
    """
    if torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export():
        return _plain(parts, offsets, sizes)
    return _ShiftAdd.apply(parts, tuple(offsets), tuple(sizes))


class _ShiftAdd(torch.autograd.Function):
    """Sums of shifted windows."""

    @staticmethod
    def forward(ctx: Any, parts: Tensor, offsets: _Offsets, sizes: tuple[int, ...]) -> Tensor:
        ctx.offsets, ctx.extended = offsets, tuple(parts.shape[3:])
        result = parts.new_zeros(*parts.shape[:2], *sizes)
        for number, read, write in _windows(offsets, ctx.extended, sizes):
            result[write].add_(parts[:, :, number][read])
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _ShiftSpread.apply(gradients[0], ctx.offsets, ctx.extended), None, None


class _ShiftSpread(torch.autograd.Function):
    """The adjoint: the windows that values came from."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, offsets: _Offsets, extended: tuple[int, ...]) -> Tensor:
        ctx.offsets, ctx.sizes = offsets, tuple(values.shape[2:])
        parts = values.new_zeros(*values.shape[:2], len(offsets), *extended)
        for number, read, write in _windows(offsets, extended, ctx.sizes):
            parts[:, :, number][read].copy_(values[write])
        return parts

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _ShiftAdd.apply(gradients[0], ctx.offsets, ctx.sizes), None, None


def _windows(
    offsets: Sequence[tuple[int, ...]], extended: Sequence[int], sizes: Sequence[int]
) -> Iterator[tuple[int, Any, Any]]:
    """Number of each part that reaches the result, where it is read and where it is added."""
    for number, offset in enumerate(offsets):
        spans = [range(max(0, -by), min(size, end - by)) for by, end, size in zip(offset, extended, sizes, strict=True)]
        if all(spans):
            read = (..., *(slice(span.start + by, span.stop + by) for span, by in zip(spans, offset, strict=True)))
            yield number, read, (..., *(slice(span.start, span.stop) for span in spans))


def _plain(parts: Tensor, offsets: Sequence[tuple[int, ...]], sizes: Sequence[int]) -> Tensor:
    """The same by operations that every exporter knows."""
    result = parts.new_zeros(*parts.shape[:2], *sizes)
    for number, read, write in _windows(offsets, parts.shape[3:], sizes):
        around = [
            part
            for place, size in zip(reversed(write[1:]), reversed(list(sizes)), strict=True)
            for part in (place.start, size - place.stop)
        ]
        result = result + torch.nn.functional.pad(parts[:, :, number][read], around)
    return result
