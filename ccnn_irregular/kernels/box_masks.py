"""Masks of discrete kernels: boxes, and masks stretched by a dilation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, final

from torch import Tensor

from ccnn_irregular._checks import require
from ccnn_irregular.kernels.formula import Operations
from ccnn_irregular.kernels.masks import Mask

__all__ = ["ON_TAP", "BoxMask", "DilatedMask"]

# Offsets this close to a tap, in its widths, are on it: rounding of coordinates and of float32 offsets must not blur a
# table.
ON_TAP = 1e-3


@final
class BoxMask(Mask):
    """1 inside a box, 0 outside: for generators that end by themselves, as ``Taps`` does.

    Any other kernel jumps on its faces, which widens its spectrum without bound: see ``GaussianMask``.

    Args:
        half_width: half width of the box per axis, coordinate units.
        centre: its middle per axis, coordinate units; None = zero.
    """

    _half_width: Tensor
    _centre: Tensor

    def __init__(self, half_width: Sequence[float], centre: Sequence[float] | None = None) -> None:
        super().__init__()
        positive = all(math.isfinite(half) and half > 0 for half in half_width)
        require(len(half_width) >= 1 and positive, "half_width", "be positive and finite", tuple(half_width))
        centre = (0.0,) * len(half_width) if centre is None else centre
        require(len(centre) == len(half_width), "centre", f"have {len(half_width)} entries", tuple(centre))
        require(all(map(math.isfinite, centre)), "centre", "be finite", tuple(centre))
        self.register_exact_buffer("_half_width", half_width)
        self.register_exact_buffer("_centre", centre)

    @property
    def centre(self) -> Tensor:
        return self._centre

    @property
    def half_width(self) -> Tensor:
        return self._half_width

    @property
    def support(self) -> Tensor:
        return self._centre.abs() + self._half_width

    def formula(self, offsets: Any, operations: Operations) -> Any:
        distance = (offsets - operations.vector(self._centre)).abs()
        inside = operations.vector(self._half_width) - distance
        value = operations.step(operations.component(inside, 0))
        for axis in range(1, len(self._half_width)):
            value = value * operations.step(operations.component(inside, axis))
        return value


@final
class DilatedMask(Mask):
    """Another mask, stretched: m(x / rate). See ``dilated``."""

    rates: Tensor

    def __init__(self, inner: Mask, rates: Sequence[float]) -> None:
        super().__init__()
        self.inner = inner
        self.register_exact_buffer("rates", rates)

    @property
    def centre(self) -> Tensor:
        return self.inner.centre * self.rates

    @property
    def half_width(self) -> Tensor:
        return self.inner.half_width * self.rates

    @property
    def support(self) -> Tensor:
        return self.inner.support * self.rates

    @property
    def ellipsoidal(self) -> bool:
        return self.inner.ellipsoidal

    def formula(self, offsets: Any, operations: Operations) -> Any:
        return self.inner.formula(offsets * operations.vector(1 / self.rates), operations)
