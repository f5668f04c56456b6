"""Kernels that depend on the distance alone: on points in space, and on a sphere by the length of the chord."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from ccnn_irregular._checks import require, require_finite
from ccnn_irregular._reprs import lengths
from ccnn_irregular.kernels.formula import Operations
from ccnn_irregular.kernels.generators import Generator
from ccnn_irregular.kernels.masks import GaussianMask, Mask, register

__all__ = ["Isotropic", "RadialMask", "chord_length", "unit_vectors"]


@final
class Isotropic(Generator):
    """A generator of one axis, read at the squared distance: values are the same in all directions.

    The inner generator sees 2 r^2 - 1, with r in kernel extents: -1 at the centre, 1 at one extent. An isotropic
    function is smooth at its centre exactly if it is a smooth function of r^2 (Whitney, Duke Math. J. 10, 1943): it has
    a gradient at distance 0, where the distance itself has none, and its spectrum ends.

    The kernel as a whole is isotropic if its extent is the same on all axes and its mask is a ``RadialMask``. Then
    rotating positions rotates the result, and on unit vectors, where the distance is a chord, it is a zonal kernel
    of the sphere. No engine needs to know.

    Args:
        inner: a generator with ``d = 1``; a frequency of ``omega_0`` there is one of 4 r omega_0 per extent at
            distance r.
        d: number of coordinate axes.
    """

    def __init__(self, inner: Generator, d: int) -> None:
        require(inner.d == 1, "inner", "have one axis", inner.d)
        super().__init__(d, inner.out_channels)
        self.inner = inner

    def extra_repr(self) -> str:
        return f"{self.d} axes, {self.inner!r}"

    @property
    def output(self) -> nn.Linear:
        return self.inner.output

    def formula(self, offsets: Any, operations: Operations) -> Any:
        return self.inner.formula(operations.squared_norm(offsets) * 2.0 - 1.0, operations)


@final
class RadialMask(Mask):
    """``GaussianMask`` of the distance: one learned width for all axes, so that it stays a ball in training.

    Args:
        width: initial standard deviation, coordinate units.
        d: number of coordinate axes.
        threshold: value of the Gaussian at which the mask ends, in (0, 1).
        trainable: whether the width is a parameter (else it is fixed).
    """

    def __init__(self, width: float, d: int, threshold: float = 0.01, *, trainable: bool = True) -> None:
        super().__init__()
        require(d >= 1, "d", "be at least 1", d)
        self.d = d
        # The formula of one axis: it broadcasts its width against the components, and takes the norm of all of them.
        self.profile = GaussianMask([width], threshold, trainable=trainable)

    @property
    def width(self) -> Tensor:
        """Current standard deviation, ``(1,)``, coordinate units."""
        return self.profile.width

    def extra_repr(self) -> str:
        return f"width={lengths(self.width)}, {super().extra_repr()}"

    @property
    def support(self) -> Tensor:
        return self.profile.support.repeat(self.d)

    @property
    def ellipsoidal(self) -> bool:
        return True

    def formula(self, offsets: Any, operations: Operations) -> Any:
        return self.profile.formula(offsets, operations)


def _radial(width: Sequence[float], threshold: float = 0.01) -> RadialMask:
    """``RadialMask`` of the largest of the widths."""
    return RadialMask(max(width), len(width), threshold)


register("radial", _radial)


def unit_vectors(latitude: Tensor, longitude: Tensor) -> Tensor:
    """Places on a sphere as points in space, for kernels of the chord: no pole, no date line.

    Args:
        latitude: ``(N,)`` degrees north, in [-90, 90].
        longitude: ``(N,)`` degrees east, any turn.

    Returns:
        Unit vectors (x towards 0 N 0 E, z towards the North Pole), float64 ``(N, 3)``.

    Raises:
        ValueError: shapes that disagree, values that are not finite, a latitude beyond a pole.
    """
    require(latitude.ndim == 1, "latitude", "have shape (N,)", tuple(latitude.shape))
    require(longitude.shape == latitude.shape, "longitude", f"have shape {tuple(latitude.shape)}", longitude.shape)
    require_finite("latitude", latitude)
    require_finite("longitude", longitude)
    north, east = (torch.deg2rad(angle.to(torch.float64)) for angle in (latitude, longitude))
    beyond = latitude.detach().abs().max() if len(latitude) else latitude.new_zeros(())
    require(float(beyond) <= 90, "latitude", "lie in [-90, 90] degrees", float(beyond))
    return torch.stack([north.cos() * east.cos(), north.cos() * east.sin(), north.sin()], dim=1)


def chord_length(arc: float, radius: float = 1.0) -> float:
    """Length of the straight line between two places on the unit sphere, from their great-circle distance.

    For widths of kernels on ``unit_vectors``: 1,000 km on the Earth is ``chord_length(1000, 6371)``.

    Args:
        arc: great-circle distance, from 0 to half the circumference, in units of the radius.
        radius: of the sphere on which ``arc`` was measured.

    Raises:
        ValueError: a radius that is not positive, an arc beyond the antipode.
    """
    require(math.isfinite(radius) and radius > 0, "radius", "be positive and finite", radius)
    require(0 <= arc <= math.pi * radius, "arc", f"lie in [0, {math.pi * radius:g}]", arc)
    return 2 * math.sin(arc / (2 * radius))
