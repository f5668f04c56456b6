"""Areas of polygons on a sphere: the faces of a mesh."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ccnn_irregular._checks import require

__all__ = ["solid_angles", "spherical_polygons"]


def spherical_polygons(latitudes: Tensor, longitudes: Tensor, *, radius: float = 1.0) -> Tensor:
    """Compute the areas of polygons whose edges are great circles.

    Exact, from a few millimetres to half the sphere: across the date line, around a pole, with a corner on it. Faces of
    a mesh without holes sum to ``4 pi radius^2``.

    Args:
        latitudes: ``(n, k)`` degrees north of the corners of each polygon, one after the other around it, k >= 3.
            Missing corners (nan) are left out: polygons of fewer corners than k.
        longitudes: ``(n, k)`` degrees east, of any turn.
        radius: of the sphere; areas have its unit squared.

    Returns:
        float64 ``(n,)``.

    Raises:
        ValueError: shapes that disagree, fewer than 3 known corners, infinite values, a latitude beyond a pole,
            ``radius`` not positive.
    """
    require(math.isfinite(radius) and radius > 0, "radius", "be positive and finite", radius)
    shape = tuple(latitudes.shape)
    require(len(shape) == 2 and shape[1] >= 3, "latitudes", "have shape (n, k) with k >= 3", shape)
    require(longitudes.shape == latitudes.shape, "longitudes", f"have shape {shape}", tuple(longitudes.shape))
    infinite = bool(latitudes.isinf().any() | longitudes.isinf().any())
    require(not infinite, "latitudes and longitudes", "be finite, or nan for no corner", "inf")
    known = ~(latitudes.isnan() | longitudes.isnan())
    few = torch.nonzero(known.sum(1) < 3).flatten()
    require(len(few) == 0, "polygons", "have 3 corners or more", f"{len(few)} with fewer, the first {few[:1].tolist()}")
    farthest = float(latitudes[known].abs().max()) if bool(known.any()) else 0.0
    require(farthest <= 90 + 1e-4, "latitudes", "lie between -90 and 90 degrees", farthest)
    north, east = (torch.deg2rad(degrees.to(torch.float64)) for degrees in (latitudes, longitudes))
    corners = torch.stack([north.cos() * east.cos(), north.cos() * east.sin(), north.sin()], -1)
    # A corner that is not there lies on the first that is: what it spans has no area.
    first = corners[torch.arange(len(corners)), known.to(torch.uint8).argmax(1)]
    return radius**2 * solid_angles(torch.where(known[..., None], corners, first[:, None]))


def solid_angles(corners: Tensor) -> Tensor:
    """Compute the solid angles of polygons whose corners are unit vectors, float64 ``(..., k, 3)`` to ``(...)``.

    The signed triangles of a fan (Van Oosterom and Strackee, IEEE Trans. Biomed. Eng. 30(2), 1983); products are those
    of the small differences between corners, so that small polygons lose nothing.
    """
    first, second, third = corners[..., :1, :], corners[..., 1:-1, :], corners[..., 2:, :]
    triple = (first * torch.linalg.cross(second - first, third - first)).sum(-1)
    scale = 1 + (first * second).sum(-1) + (second * third).sum(-1) + (third * first).sum(-1)
    return (2 * torch.atan2(triple, scale)).sum(-1).abs()
