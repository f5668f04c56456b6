"""Masks: how far a kernel reaches, in coordinate units, and where it is exactly zero."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from ccnn_irregular._checks import require
from ccnn_irregular.kernels.formula import TENSORS, Operations

__all__ = ["GaussianMask", "Mask"]


class Mask(nn.Module, ABC):
    """A factor R^d -> [0, 1] that is exactly zero outside a box."""

    @property
    @abstractmethod
    def support(self) -> Tensor:
        """Half width of the box outside which the mask is zero, ``(d,)``, coordinate units, detached."""

    @abstractmethod
    def formula(self, offsets: Any, operations: Operations) -> Any:
        """Mask values at offsets in coordinate units, one component."""

    def forward(self, offsets: Tensor) -> Tensor:
        """Mask values ``(..., 1)`` at offsets ``(..., d)`` in coordinate units."""
        return self.formula(offsets, TENSORS)


@final
class GaussianMask(Mask):
    """Gaussian with a learned width per axis that reaches zero smoothly.

    A Gaussian cut where it falls below a threshold leaves a visible step there, and a step widens the
    kernel's spectrum without bound. So its second-order Taylor polynomial at the threshold is taken
    off: with s = 1/2 sum_d (x_d / width_d)^2, s_max = -log(threshold) and t = max(s_max - s, 0) the
    mask is (exp(t) - 1 - t - t^2 / 2) / (exp(s_max) - 1 - s_max - s_max^2 / 2): 1 in the centre, zero
    with zero slope and curvature where the Gaussian passes the threshold, identical for every engine.

    The width is learned as ``width * exp(log_scale)``: it stays positive, steps do not depend on the
    unit, and weight decay pulls towards the initial width.

    Args:
        width: initial standard deviation per axis, coordinate units.
        threshold: value of the Gaussian at which the mask ends, in (0, 1).
        trainable: whether the width is a parameter (else it is fixed).

    Attributes:
        log_scale: ``(d,)`` logarithm of the learned width over the initial one.
    """

    initial_width: Tensor

    def __init__(self, width: Sequence[float], threshold: float = 0.01, *, trainable: bool = True) -> None:
        super().__init__()
        require(len(width) >= 1, "width", "have one entry per axis", tuple(width))
        require(all(math.isfinite(w) and w > 0 for w in width), "width", "be positive and finite", tuple(width))
        require(0 < threshold < 1, "threshold", "lie between 0 and 1", threshold)
        self.threshold = threshold
        self.register_buffer("initial_width", torch.tensor(tuple(width), dtype=torch.get_default_dtype()))
        self.log_scale = nn.Parameter(torch.zeros_like(self.initial_width), requires_grad=trainable)

    @property
    def d(self) -> int:
        """Number of coordinate axes."""
        return len(self.log_scale)

    @property
    def width(self) -> Tensor:
        """Current standard deviation per axis, ``(d,)``, coordinate units."""
        return self.initial_width * self.log_scale.exp()

    @property
    def support(self) -> Tensor:
        return (self.width * math.sqrt(-2 * math.log(self.threshold))).detach()

    def formula(self, offsets: Any, operations: Operations) -> Any:
        s_max = -math.log(self.threshold)
        s = operations.squared_norm(offsets * operations.vector(1 / self.width)) * 0.5
        t = (s_max - s).relu()
        return (t.exp() - 1 - t - t * t * 0.5) * (1 / (math.exp(s_max) - 1 - s_max - 0.5 * s_max**2))
