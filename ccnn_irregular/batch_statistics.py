"""Batch normalisation over a whole grid on CPUs, with statistics from vectorised sums.

PyTorch's kernel for CPUs adds up mean and variance in double precision value by value, two thirds of its time. Sums
along the positions run at the speed of memory, and only their totals need doubles.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ccnn_irregular._transforms import transforms_active

__all__ = ["normalised", "suits"]

# Positions that are added up in the dtype of the values.
_STRETCH = 1024


def suits(values: Tensor, weight: Tensor | None, bias: Tensor | None) -> bool:
    """Whether ``normalised`` takes these tensors; for others there is ``torch.nn.functional.batch_norm``."""
    return (
        values.device.type == "cpu"
        and values.dtype in (torch.float32, torch.float64)
        and values.shape[0] * values.shape[2] > 1
        and all(parameter is None or parameter.dtype == values.dtype for parameter in (weight, bias))
        # A compiler joins the steps of PyTorch's own with what surrounds it.
        and not torch.compiler.is_compiling()
        and not transforms_active()
    )


def normalised(values: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """What ``torch.nn.functional.batch_norm`` gives in training, differentiable twice.

    Args:
        values: ``(B, C, N)`` on the CPU.
        weight: ``(C,)`` factors, or None.
        bias: ``(C,)`` constants, or None.
        eps: added to the variance.

    Returns:
        The normalised values, and their mean and biased variance per channel, ``(C,)``, without gradients.
    """
    return _Normalised.apply(values, weight, bias, eps)


class _Normalised(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, values: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        count = values.shape[0] * values.shape[2]
        exact = values.sum(2).double().sum(0) / count
        mean = exact.to(values.dtype)
        centred = values - mean[:, None]
        variance = (_stretch_sums(torch.linalg.vector_norm, centred, power=2) / count).to(values.dtype)
        ctx.save_for_backward(values, weight, exact, torch.rsqrt(variance + eps))
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance)
        return torch.nn.functional.batch_norm(values, mean, variance, weight, bias, eps=eps), mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        values, weight, mean, inverse = ctx.saved_tensors
        wanted = [bool(needed) for needed in ctx.needs_input_grad[:3]]
        if torch.is_grad_enabled():  # PyTorch's has a derivative of its own
            found = torch.ops.aten.native_batch_norm_backward(
                gradients[0], values, weight, None, None, mean.to(values.dtype), inverse, True, ctx.eps, wanted
            )
        else:
            found = _gradients(gradients[0], values, weight, mean, inverse)
        along_values, along_weight, along_bias = (
            gradient if asked else None for gradient, asked in zip(found, wanted, strict=True)
        )
        return along_values, along_weight, along_bias, None


def _stretch_sums(reduction: Callable[..., Tensor], *arrays: Tensor, power: int = 1) -> Tensor:
    """A reduction over the last axis of ``(B, C, N)``, to ``power``, summed over the batch in doubles, ``(C,)``.

    Stretch by stretch: over a million positions the reduction itself would lose four digits of seven.
    """
    whole = arrays[0].shape[2] // _STRETCH * _STRETCH
    rest = reduction(*(array[..., whole:] for array in arrays), dim=2).double().pow(power).sum(0)
    if not whole:
        return rest
    stretches = [array[..., :whole].unflatten(2, (-1, _STRETCH)) for array in arrays]
    return rest + reduction(*stretches, dim=3).double().pow(power).sum((0, 2))


def _gradients(
    gradient: Tensor, values: Tensor, weight: Tensor | None, mean: Tensor, inverse: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Along values, weight and bias; ``gradient`` may be a part of a larger array and is not copied for it."""
    count = values.shape[0] * values.shape[2]
    total = gradient.sum(2).double().sum(0)
    # Along the normalised values; a mean far from zero costs as many digits as the values have lost by it.
    along = (_stretch_sums(torch.linalg.vecdot, gradient, values) - mean * total) * inverse
    scale = inverse.double() if weight is None else inverse.double() * weight
    slope, constant = -scale * inverse * along / count, -scale * total / count
    found = (one.to(values.dtype) for one in (slope, constant, scale, along, total, mean))
    slope, constant, scale, along, total, mean = found
    # slope (x - mean) + constant, in one pass. Some versions of PyTorch refuse eps = 0; this one is lost beside 1.
    nothing = torch.finfo(values.dtype).tiny
    result = torch.nn.functional.batch_norm(values, mean, torch.ones_like(mean), slope, constant, eps=nothing)
    return result.addcmul_(gradient, scale[:, None]), along, total
