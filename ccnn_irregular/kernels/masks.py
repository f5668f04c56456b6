"""Masks: how far a kernel reaches, in coordinate units, and where it is exactly zero."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, final

import torch
from torch import Tensor, nn

from ccnn_irregular import _registry
from ccnn_irregular._checks import require
from ccnn_irregular._reprs import lengths, one_line
from ccnn_irregular.kernels.buffers import ExactBuffers
from ccnn_irregular.kernels.formula import TENSORS, Operations, exponential_tail

__all__ = ["MASKS", "GaussianMask", "Mask", "register"]

# Beyond these float32 does not hold the terms of the formula: exp(-log(threshold)), and -log(threshold)^3.
_SMALLEST_THRESHOLD, _SMALLEST_DROP = 1e-30, 1e-11


class Mask(ExactBuffers, ABC):
    """A factor R^d -> [0, 1] that is exactly zero outside a box."""

    __repr__ = one_line

    def extra_repr(self) -> str:
        return f"reach={lengths(self.support)}"

    @property
    @abstractmethod
    def support(self) -> Tensor:
        """Half width of the box about zero outside which the mask is zero, ``(d,)``, coordinate units, detached."""

    @property
    def centre(self) -> Tensor:
        """Middle of the smallest box outside which the mask is zero, ``(d,)``, coordinate units, detached."""
        return torch.zeros_like(self.support)

    @property
    def half_width(self) -> Tensor:
        """Half width of the box about ``centre``, ``(d,)``, coordinate units, detached."""
        return self.support

    @property
    def ellipsoidal(self) -> bool:
        """Whether the mask is zero outside the ellipsoid in the box about ``centre``, not only outside the box."""
        return False

    @abstractmethod
    def formula(self, offsets: Any, operations: Operations) -> Any:
        """Mask values at offsets in coordinate units, one component."""

    def forward(self, offsets: Tensor) -> Tensor:
        """Mask values ``(..., 1)`` at offsets ``(..., d)`` in coordinate units."""
        return self.formula(offsets, TENSORS)


MASKS: dict[str, Callable[..., Mask]] = {}
"""All masks by name: each is called as ``MASKS[name](width)`` with an initial width per axis, coordinate units."""


def register(name: str, make: Callable[..., Mask]) -> None:
    """Add a mask, so that recipes of kernels can name it, and is held to tests/kernel_contract.py.

    Args:
        name: a word in small letters.
        make: the class, or a function; called with the width per axis, all other arguments have defaults. Recipes of
            kernels give it ``threshold``, where it ends, and ``mean``, its learned centre, where they are asked for.

    Raises:
        ValueError: a name that is no word in small letters, or that of another mask.
    """
    _registry.add(MASKS, "a mask", name, make, reserved=("none",))


@final
class GaussianMask(Mask):
    """Gaussian with a learned width per axis, and a learned mean where asked for, that reaches zero smoothly.

    A Gaussian cut where it falls below a threshold leaves a visible step there, and a step widens the
    kernel's spectrum without bound. So its second-order Taylor polynomial at the threshold is taken
    off: with s = 1/2 sum_d ((x_d - mean_d) / width_d)^2, s_max = -log(threshold) and t = max(s_max - s, 0) the
    mask is (exp(t) - 1 - t - t^2 / 2) / (exp(s_max) - 1 - s_max - s_max^2 / 2): 1 in the centre, zero
    with zero slope and curvature where the Gaussian passes the threshold, identical for every engine.

    The width is learned as ``width * exp(log_scale)``: it stays positive, steps do not depend on the
    unit, and weight decay pulls towards the initial width. The mean is learned as ``mean + width * shift``
    with the initial width, for the same reasons.

    With ``smooth=False`` it is the published CCNN's mask (arXiv 2110.08059, section 3.1): the plain Gaussian,
    cropped along each axis where the Gaussian of that axis alone falls below the threshold (0.1 there). The
    kernel steps to zero on the faces of that box, so its spectrum falls off as one over the frequency only:
    it aliases on grids, engine "spectral" needs a very fine grid or refuses, and no gradient reaches the
    place of the step. It is here for comparison with published models.

    Args:
        width: initial standard deviation per axis, coordinate units.
        threshold: value of the Gaussian at which the mask ends, between 1e-30 and 1 - 1e-11.
        trainable: whether the width is a parameter (else it is fixed).
        mean: initial centre per axis, coordinate units; None = zero, without a parameter.
        trainable_mean: whether the mean, where given, is a parameter (else it is fixed).
        smooth: whether the mask reaches zero without a step.

    Attributes:
        log_scale: ``(d,)`` logarithm of the learned width over the initial one.
        shift: ``(d,)`` learned mean less the initial one, in initial widths; None without a mean.
    """

    initial_width: Tensor
    initial_mean: Tensor

    def __init__(
        self,
        width: Sequence[float],
        threshold: float = 0.01,
        *,
        trainable: bool = True,
        mean: Sequence[float] | None = None,
        trainable_mean: bool = True,
        smooth: bool = True,
    ) -> None:
        super().__init__()
        require(len(width) >= 1, "width", "have one entry per axis", tuple(width))
        require(all(math.isfinite(w) and w > 0 for w in width), "width", "be positive and finite", tuple(width))
        rule = f"lie between {_SMALLEST_THRESHOLD:g} and 1 - {_SMALLEST_DROP:g}"
        require(_SMALLEST_THRESHOLD <= threshold <= 1 - _SMALLEST_DROP, "threshold", rule, threshold)
        self.threshold = threshold
        self.smooth = smooth
        self.register_exact_buffer("initial_width", width)
        self.log_scale = nn.Parameter(torch.zeros_like(self.initial_width), requires_grad=trainable)
        self.shift: nn.Parameter | None = None
        if mean is not None:
            require(len(mean) == len(width), "mean", f"have one entry per axis, {len(width)}", tuple(mean))
            require(all(map(math.isfinite, mean)), "mean", "be finite", tuple(mean))
            self.register_exact_buffer("initial_mean", mean)
            self.shift = nn.Parameter(torch.zeros_like(self.initial_mean), requires_grad=trainable_mean)

    @property
    def d(self) -> int:
        """Number of coordinate axes."""
        return len(self.log_scale)

    @property
    def width(self) -> Tensor:
        """Current standard deviation per axis, ``(d,)``, coordinate units."""
        return self.initial_width * self.log_scale.exp()

    @property
    def mean(self) -> Tensor:
        """Current centre per axis, ``(d,)``, coordinate units."""
        if self.shift is None:
            return torch.zeros_like(self.initial_width)
        return self.initial_mean + self.initial_width * self.shift

    def extra_repr(self) -> str:
        mean = "" if self.shift is None else f"mean={lengths(self.mean)}, "
        return f"width={lengths(self.width)}, {mean}{super().extra_repr()}{'' if self.smooth else ', smooth=False'}"

    @property
    def centre(self) -> Tensor:
        return self.mean.detach()

    @property
    def half_width(self) -> Tensor:
        return (self.width * math.sqrt(-2 * math.log(self.threshold))).detach()

    @property
    def support(self) -> Tensor:
        return self.centre.abs() + self.half_width

    @property
    def ellipsoidal(self) -> bool:
        return self.smooth

    def formula(self, offsets: Any, operations: Operations) -> Any:
        if self.shift is not None:
            offsets = offsets - operations.vector(self.mean)
        scaled = offsets * operations.vector(1 / self.width)
        s = operations.squared_norm(scaled) * 0.5
        s_max = -math.log(self.threshold)
        if self.smooth:
            return operations.exponential_tail((s_max - s).relu()) * (1 / exponential_tail(s_max))
        value = (s * -1.0).exp()
        for axis in range(self.d):
            component = operations.component(scaled, axis)
            value = value * operations.step(2 * s_max - component * component)
        return value


register("smooth", GaussianMask)
# The published mask, cropped where the Gaussian falls below 0.1 (arXiv 2110.08059).
register("cropped", partial(GaussianMask, threshold=0.1, smooth=False))
