"""Sums of any number of rows that are as accurate as sums of a few: float32 adds up short stretches, float64 the rest.

A float32 total that grows row by row loses a digit with every tenfold: of a million terms, the fourth one counts.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["gathered", "sums_of_sorted"]

# Rows that are added up in their own dtype.
_STRETCH = 64


def sums_of_sorted(rows: Tensor, index: Tensor, count: int) -> Tensor:
    """Sum of the rows that share an index, ``(count, ...)``; the indices ascend. Differentiable any number of times.

    Args:
        rows: ``(N, ...)``.
        index: int64 ``(N,)``, from 0 to ``count - 1``.
        count: number of sums.
    """
    return _SumsOfSorted.apply(rows, index, count)


def gathered(rows: Tensor, index: Tensor) -> Tensor:
    """``rows[index]``, several times faster on CPUs, and with a gradient that is summed in float64."""
    return _Gathered.apply(rows, index)


class _SumsOfSorted(torch.autograd.Function):
    """Three times as fast as ``index_add`` on a CPU."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, count: int) -> Tensor:
        ctx.save_for_backward(index)
        if not len(rows):
            return rows.new_zeros(count, *rows.shape[1:])
        lengths = torch.bincount(index, minlength=count)
        if int(lengths.max()) <= _STRETCH:
            return _consecutive_sums(rows, lengths)
        stretches = (lengths + (_STRETCH - 1)) // _STRETCH
        short = torch.full((int(stretches.sum()),), _STRETCH, device=rows.device)
        filled = stretches > 0
        short[stretches.cumsum(0)[filled] - 1] = (lengths - (stretches - 1) * _STRETCH)[filled]
        return _consecutive_sums(_consecutive_sums(rows, short).double(), stretches).to(rows.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (index,) = ctx.saved_tensors
        return gathered(gradient, index), None, None


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.count = len(rows)
        return rows.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        sums = gradient.new_zeros(ctx.count, *gradient.shape[1:], dtype=torch.float64)
        return sums.index_add(0, index, gradient.double()).to(gradient.dtype), None


def _consecutive_sums(rows: Tensor, lengths: Tensor) -> Tensor:
    return torch.segment_reduce(rows, "sum", lengths=lengths, initial=0.0, unsafe=True)
