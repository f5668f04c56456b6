"""The few operations kernel formulas need beyond arithmetic, for tensors and for KeOps' lazy tensors.

A generator or mask is written once against ``Operations``; which enumeration of the pairs runs it
is the engine's business. ``x`` is ``(..., n)`` here: a tensor, or a ``LazyTensor`` with n components.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, final

import torch
from torch import Tensor

from ccnn_irregular._sums import linear
from ccnn_irregular._transforms import transforms_active

__all__ = ["TENSORS", "LazyOperations", "Operations", "TensorOperations"]


class Operations(ABC):
    """What a kernel formula may do with offsets, apart from ``+ - *`` and ``.sin() .cos() .exp() .relu()``."""

    @abstractmethod
    def vector(self, values: Tensor) -> Any:
        """A parameter vector ``(n,)`` that broadcasts against ``x``."""

    @abstractmethod
    def linear(self, x: Any, weight: Tensor, bias: Tensor | None) -> Any:
        """``weight @ x + bias`` with weight ``(m, n)``."""

    @abstractmethod
    def component(self, x: Any, axis: int) -> Any:
        """Component ``axis`` of ``x``, kept as one component that broadcasts."""

    @abstractmethod
    def squared_norm(self, x: Any) -> Any:
        """Sum of squares over the components, kept as one component."""

    @abstractmethod
    def step(self, x: Any) -> Any:
        """1 where ``x >= 0``, else 0."""

    @abstractmethod
    def silu(self, x: Any) -> Any:
        """``x / (1 + exp(-x))``."""

    @abstractmethod
    def exponential_tail(self, x: Any) -> Any:
        """``exp(x) - 1 - x - x^2 / 2`` for ``x >= 0``, to the last digits however small ``x`` is."""


# The series x^3 (1 / 3! + x / 4! + ...) of the tail below 1, where the terms of its definition cancel.
_TAIL_SERIES = tuple(1 / math.factorial(power) for power in range(3, 20))
# Its terms that count in single precision.
_SINGLE_TERMS = 9


def exponential_tail(x: float) -> float:
    """``Operations.exponential_tail`` of a number."""
    return float(TENSORS.exponential_tail(torch.tensor(x, dtype=torch.float64)))


@final
class TensorOperations(Operations):
    """On tensors ``(..., n)``."""

    def vector(self, values: Tensor) -> Tensor:
        return values

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return linear(x, weight, bias)

    def component(self, x: Tensor, axis: int) -> Tensor:
        return x[..., axis : axis + 1]

    def squared_norm(self, x: Tensor) -> Tensor:
        return (x * x).sum(-1, keepdim=True)

    def step(self, x: Tensor) -> Tensor:
        return (x >= 0).to(x.dtype)

    def silu(self, x: Tensor) -> Tensor:
        return torch.nn.functional.silu(x)

    def exponential_tail(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() or transforms_active():
            return _ExponentialTail.apply(x)
        return _ExponentialTail.forward(x)  # torch inspects a function's signature in every call


class _ExponentialTail(torch.autograd.Function):
    """Its derivative is itself plus x^2 / 2: no term of the series is kept or differentiated."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        *coefficients, last = _TAIL_SERIES if x.dtype == torch.float64 else _TAIL_SERIES[:_SINGLE_TERMS]
        series = torch.full_like(x, last)
        for coefficient in reversed(coefficients):
            series.mul_(x).add_(coefficient)
        square = x * x
        series.mul_(square).mul_(x)
        return torch.where(x < 1, series, x.exp().sub_(x).sub_(square, alpha=0.5).sub_(1.0))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs, output)
        ctx.save_for_forward(*inputs, output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        x, tail = ctx.saved_tensors
        return gradient * torch.addcmul(tail, x, x, value=0.5)

    @staticmethod
    def jvp(ctx: Any, slope: Tensor) -> Tensor:
        x, tail = ctx.saved_tensors
        return slope * torch.addcmul(tail, x, x, value=0.5)


@final
class LazyOperations(Operations):
    """On ``pykeops.torch.LazyTensor``: builds the formula KeOps compiles, no array over the pairs.

    Args:
        parameter: ``pykeops.torch.Pm``, handed in so that this module never imports pykeops.
    """

    def __init__(self, parameter: Any) -> None:
        self._parameter = parameter

    def vector(self, values: Tensor) -> Any:
        return self._parameter(values.reshape(-1))

    def linear(self, x: Any, weight: Tensor, bias: Tensor | None) -> Any:
        product = self.vector(weight).matvecmult(x)
        return product if bias is None else product + self.vector(bias)

    def component(self, x: Any, axis: int) -> Any:
        return x.elem(axis)

    def squared_norm(self, x: Any) -> Any:
        return x.sqnorm2()

    def step(self, x: Any) -> Any:
        return x.step()

    def silu(self, x: Any) -> Any:
        return x / ((x * -1.0).exp() + 1.0)

    def exponential_tail(self, x: Any) -> Any:
        *coefficients, series = _TAIL_SERIES
        for coefficient in reversed(coefficients):
            series = x * series + coefficient
        return (x - 1.0).ifelse(x.exp() - 1.0 - x - x * x * 0.5, x * x * x * series)


TENSORS = TensorOperations()
