"""Sums of any number of rows that are as accurate as sums of a few: float32 adds up short stretches, float64 the rest.

A float32 total that grows row by row loses a digit with every tenfold: of a million terms, the fourth one counts.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ccnn_irregular._transforms import transforms_active

__all__ = ["gathered", "linear", "sums_of_sorted"]

# Rows that are added up in their own dtype.
_STRETCH = 64
# Rows whose outer products one matrix product adds up; matrices of fewer than four times as many are left to PyTorch.
_ROWS_PER_PRODUCT = 4096


def sums_of_sorted(rows: Tensor, index: Tensor, count: int) -> Tensor:
    """Sum the rows that share an index, ``(count, ...)``; the indices ascend. Differentiable any number of times.

    Args:
        rows: ``(N, ...)``.
        index: int64 ``(N,)``, from 0 to ``count - 1``.
        count: number of sums.
    """
    if transforms_active():  # zeros that are batched as the rows are
        return torch.zeros_like(rows[:1]).expand(count, *rows.shape[1:]).index_add(0, index, rows)
    return _SumsOfSorted.apply(rows, index, count)


def gathered(rows: Tensor, index: Tensor) -> Tensor:
    """Take ``rows[index]``, several times faster on CPUs, with a gradient that is summed in float64."""
    return rows.index_select(0, index) if transforms_active() else _Gathered.apply(rows, index)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Apply ``torch.nn.functional.linear`` to ``(..., n)``; the weight's gradient is accurate for any number of rows.

    One product of a million rows, of few columns, loses three digits in float32.
    """
    trained = weight.requires_grad and torch.is_grad_enabled()
    # An exported network asks for no size.
    if not trained or torch.compiler.is_compiling() or x.shape[:-1].numel() < 4 * _ROWS_PER_PRODUCT:
        return torch.nn.functional.linear(x, weight, bias)
    return _Linear.apply(x.flatten(0, -2), weight, bias).unflatten(0, x.shape[:-1])


class _Linear(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return torch.nn.functional.linear(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
        x, weight, _ = inputs
        ctx.save_for_backward(x, weight)
        ctx.save_for_forward(x, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        return (
            gradient @ weight if wants_x else None,
            _sum_of_products(gradient, x) if wants_weight else None,
            gradient.sum(0) if wants_bias else None,
        )

    @staticmethod
    def jvp(ctx: Any, x_slope: Tensor | None, weight_slope: Tensor | None, bias_slope: Tensor | None) -> Tensor:
        x, weight = ctx.saved_tensors
        along_x = None if x_slope is None else x_slope @ weight.T
        along_weight = None if weight_slope is None else x @ weight_slope.T
        slopes = [slope for slope in (along_x, along_weight, bias_slope) if slope is not None]
        return sum(slopes, start=x.new_zeros(len(x), len(weight)))


def _sum_of_products(left: Tensor, right: Tensor) -> Tensor:
    """Compute ``left.T @ right`` of ``(N, m)`` and ``(N, n)``, the sum over N in stretches."""
    whole = len(left) // _ROWS_PER_PRODUCT * _ROWS_PER_PRODUCT
    parts = [factor[:whole].unflatten(0, (-1, _ROWS_PER_PRODUCT)) for factor in (left, right)]
    return torch.bmm(parts[0].transpose(1, 2), parts[1]).sum(0) + left[whole:].T @ right[whole:]


class _SumsOfSorted(torch.autograd.Function):
    """Three times as fast as ``index_add`` on a CPU."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, count: int) -> Tensor:
        ctx.save_for_backward(index)
        if not len(rows):
            return rows.new_zeros(count, *rows.shape[1:])
        lengths = torch.searchsorted(index, torch.arange(count + 1, device=index.device)).diff()
        if not rows.is_cuda and int(lengths.max()) <= _STRETCH:  # a GPU would have to be waited for
            return _consecutive_sums(rows, lengths)
        stretches = (lengths + (_STRETCH - 1)) // _STRETCH
        ends = stretches.cumsum(0)
        # As many as there can be, so that no shape depends on the indices; those that are too many are empty.
        number = torch.arange(len(rows) // _STRETCH + count, device=rows.device)
        owner = torch.searchsorted(ends, number, right=True).clamp(max=count - 1)
        short = (lengths[owner] - (number - (ends - stretches)[owner]) * _STRETCH).clamp(0, _STRETCH)
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
