"""The window that carries points to a uniform grid and back, and the error it makes.

"Exponential of semicircle" of Barnett, Magland & af Klinteberg (2019, arXiv 1808.06736): psi(x) =
exp(beta (sqrt(1 - (2 x / width)^2) - 1)) for |x| <= width / 2, x in cells. Interpolating with it the
wave of frequency f (cycles per cell), divided by the window's transform there, also brings in the
waves f + m: relative to the wave itself with a root mean square over all places of

    alias(f) = sqrt(sum_{m != 0} psi^(f + m)^2) / psi^(f).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

__all__ = ["ALIAS_BINS", "Window", "squared_alias"]

ALIAS_BINS = 32
"""Number of equal parts of the kept band for which ``squared_alias`` is tabulated."""

# The best shape is a little flatter than the one whose transform's first zero lies at 1 - kept.
_FLATTER = 0.98
# Images beyond these add nothing that counts.
_IMAGES = 5


@dataclass(frozen=True)
class Window:
    """A window and the band it is meant for.

    Attributes:
        width: cells it covers.
        kept: highest frequency that is kept, cycles per cell, below 1/2. 1/4 is "twofold oversampling".
    """

    width: int
    kept: float

    @property
    def beta(self) -> float:
        """Shape parameter that makes the worst alias in the kept band small."""
        return _FLATTER * math.pi * self.width * (1 - self.kept)

    def values(self, distance: Tensor) -> Tensor:
        """psi at distances in cells; 0 beyond the window."""
        arc = (1 - (distance * (2 / self.width)).square()).clamp(min=0.0).sqrt()
        inside = distance.abs() <= self.width / 2
        return torch.where(inside, torch.exp(self.beta * (arc - 1)), 0.0)

    def transform(self, frequency: Tensor) -> Tensor:
        """Fourier transform of psi at frequencies in cycles per cell, float64."""
        # The integrand turns width * |f| times; Gauss-Legendre needs about pi nodes a turn.
        nodes, weights = _gauss_legendre(math.ceil(math.log2(4 * self.width * float(frequency.abs().max()) + 40)))
        psi = torch.exp(self.beta * ((1 - nodes.square()).sqrt() - 1)) * weights * (self.width / 2)
        return ((math.pi * self.width) * frequency[..., None] * nodes).cos() @ psi


@cache
def _gauss_legendre(log2_count: int) -> tuple[Tensor, Tensor]:
    nodes, weights = np.polynomial.legendre.leggauss(1 << log2_count)
    return torch.from_numpy(nodes), torch.from_numpy(weights)


@cache
def squared_alias(width: int, kept: float) -> Tensor:
    """alias(f)^2 of a ``Window`` at the upper end of each of ``ALIAS_BINS`` equal parts of [0, kept], float64."""
    window = Window(width, kept)
    frequency = torch.arange(1, ALIAS_BINS + 1, dtype=torch.float64) * (kept / ALIAS_BINS)
    images = torch.tensor([m for m in range(-_IMAGES, _IMAGES + 1) if m], dtype=torch.float64)
    aliases = window.transform(frequency[:, None] + images).square().sum(1)
    return aliases / window.transform(frequency).square()
