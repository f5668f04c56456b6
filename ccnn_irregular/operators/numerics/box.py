"""The box of cells that samples are laid into, and the modes that are kept of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ccnn_irregular.operators.numerics.windows import ALIAS_BINS, Window, squared_alias

__all__ = ["Box"]


@dataclass(frozen=True)
class Box:
    """The cells all samples are laid into, and which modes are kept of it.

    Attributes:
        steps: length of a cell per axis, coordinate units.
        sizes: number of cells per axis.
        windows: window per axis; its band decides which modes are kept.
        shifts: float64 ``(B, d)``, added to a sample's coordinates to lay it into the box.
        repeats: per axis, whether the box is one period of it.
        layers: number of boxes on top of each other: 1, or one for each sample.
    """

    steps: tuple[float, ...]
    sizes: tuple[int, ...]
    windows: tuple[Window, ...]
    shifts: Tensor
    repeats: tuple[bool, ...]
    layers: int

    @property
    def d(self) -> int:
        """Number of axes."""
        return len(self.sizes)

    @property
    def cells(self) -> int:
        """Number of cells of one layer."""
        return math.prod(self.sizes)

    @property
    def kept(self) -> tuple[int, ...]:
        """Highest mode that is kept per axis; modes run from its negative to it."""
        return tuple(math.floor(w.kept * size) for w, size in zip(self.windows, self.sizes, strict=True))

    def modes(self, axis: int, *, half: bool) -> Tensor:
        """Kept modes of an axis in the order of an FFT, int64; the non-negative ones alone if ``half``."""
        return _modes(self.kept[axis], half, self.shifts.device)

    def deconvolution(self, axis: int, first: int, *, half: bool) -> Tensor:
        """1 / psi^(k)^2 on the kept modes of an axis, shifted by ``first`` cells, complex128."""
        return _deconvolution(self.windows[axis], self.sizes[axis], self.kept[axis], first, half, self.shifts.device)

    def squared_alias(self, axis: int, *, half: bool) -> Tensor:
        """The windows' squared alias on the kept modes of an axis, float64."""
        return _alias_of_modes(self.windows[axis], self.kept[axis], half, self.shifts.device)

    def wave_numbers(self, axis: int, *, half: bool) -> Tensor:
        """Angular frequency of the kept modes of an axis in radians per coordinate unit, float64."""
        period = self.sizes[axis] * self.steps[axis]
        return self.modes(axis, half=half).to(torch.float64) * (2 * math.pi / period)


def _modes(kept: int, half: bool, device: torch.device) -> Tensor:
    upper = torch.arange(kept + 1, device=device)
    return upper if half else torch.cat([upper, -upper[1:].flip(0)])


# What follows depends on the box alone. A quadrature takes as long as a small transform, and layers and steps share it.
@lru_cache(maxsize=128)
def _deconvolution(window: Window, size: int, kept: int, first: int, half: bool, device: torch.device) -> Tensor:
    frequency = _modes(kept, half, torch.device("cpu")).to(torch.float64) / size
    inverse = 1 / window.transform(frequency[: kept + 1]).square()
    inverse = inverse if half else torch.cat([inverse, inverse[1:].flip(0)])
    return torch.polar(inverse, frequency * (-2 * math.pi * first)).to(device)


@lru_cache(maxsize=128)
def _alias_of_modes(window: Window, kept: int, half: bool, device: torch.device) -> Tensor:
    mode = _modes(kept, half, torch.device("cpu")).abs()
    bins = (mode * ALIAS_BINS - 1).div(max(1, kept), rounding_mode="floor").clamp(0, ALIAS_BINS - 1)
    return squared_alias(window.width, window.kept)[bins].to(device)
