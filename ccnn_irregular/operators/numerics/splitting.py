"""Kernels made smooth and short enough for a transform, without changing what they do on the domain at hand.

A causal kernel jumps at lag zero, so its spectrum never ends. But with a smooth step s(lag) from 0 at
lag zero to 1 at lag ``reach``

    K = s K  +  (1 - s) K,

and s K is as smooth as K is beyond the jump, while (1 - s) K ends at ``reach``: a transform for the one,
a few neighbours for the other (the idea of Ewald's summation).

A kernel that reaches much farther than any two points are apart is used near its middle only: there it
counts how well it is resolved, and a taper that falls from 1 to 0 beyond the largest lag ends it.

Step and taper are error functions, cut where they are within a hundredth of the error that is allowed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor

from ccnn_irregular.kernels import Kernel
from ccnn_irregular.kernels.formula import Operations
from ccnn_irregular.kernels.masks import Mask

__all__ = ["shorten", "split"]

_CUT = 1e-2


def split(kernel: Kernel, axis: int, reach: float, rtol: float) -> tuple[Kernel, Kernel]:
    """The smooth part and the part of short reach of a kernel causal on ``axis``, sharing its parameters.

    Args:
        kernel: with a mask; causal on ``axis``.
        axis: the causal axis.
        reach: lag at which the near part ends, coordinate units.
        rtol: relative error that may be made.
    """
    far, near = (_Step(kernel.mask, axis, reach, _steepness(rtol), far=far) for far in (True, False))
    return kernel.replace(mask=far), kernel.replace(mask=near)


def shorten(kernel: Kernel, spans: Sequence[float | None], rtol: float) -> Kernel:
    """The kernel, unchanged at lags up to ``spans``, zero beyond twice those, sharing its parameters.

    Args:
        kernel: with a mask.
        spans: largest lag that is used per axis, coordinate units; None = leave the axis alone.
        rtol: relative error that may be made.
    """
    return kernel.replace(mask=_Taper(kernel.mask, tuple(spans), _steepness(rtol)))


def _steepness(rtol: float) -> float:
    """Of an error function over one unit that differs from 0 and 1 at its ends by ``_CUT * rtol`` at most."""
    return math.sqrt(-math.log(_CUT * rtol))


@final
class _Taper(Mask):
    """A mask times (1 + erf(steepness (3 - 2 |lag| / span))) / 2 on each axis that has a span."""

    def __init__(self, mask: Mask | None, spans: tuple[float | None, ...], steepness: float) -> None:
        super().__init__()
        assert mask is not None  # without one the engine refused
        self.mask = mask
        self.spans = spans
        self.steepness = steepness

    @property
    def support(self) -> Tensor:
        support = self.mask.support.clone()
        for axis, span in enumerate(self.spans):
            if span is not None:
                support[axis] = support[axis].clamp(max=2 * span)
        return support

    def formula(self, offsets: Any, operations: Operations) -> Any:
        value = self.mask.formula(offsets, operations)
        for axis, span in enumerate(self.spans):
            if span is not None:
                lag = operations.component(offsets, axis).abs()
                value = value * (0.5 * (1 + torch.erf(self.steepness * (3 - lag * (2 / span)))))
        return value


@final
class _Step(Mask):
    """A mask times s(lag / reach), or times 1 - s and cut at ``reach``; s(u) = (1 + erf(steepness (2 u - 1))) / 2."""

    def __init__(self, mask: Mask | None, axis: int, reach: float, steepness: float, *, far: bool) -> None:
        super().__init__()
        assert mask is not None  # without one there is no support, and the engine refused
        self.mask = mask
        self.axis = axis
        self.reach = reach
        self.steepness = steepness
        self.far = far

    @property
    def support(self) -> Tensor:
        support = self.mask.support
        if self.far:
            return support
        short = support.clone()
        short[self.axis] = support[self.axis].clamp(max=self.reach)
        return short

    def formula(self, offsets: Any, operations: Operations) -> Any:
        lag = operations.component(offsets, self.axis)
        step = 0.5 * (1 + torch.erf(self.steepness * (lag * (2 / self.reach) - 1)))
        return self.mask.formula(offsets, operations) * (step if self.far else 1 - step)
