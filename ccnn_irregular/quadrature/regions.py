"""Area or volume that scattered points cover, where their outline is unknown."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
from scipy.spatial import Delaunay, QhullError, cKDTree
from torch import Tensor

from ccnn_irregular._checks import require, require_finite, require_splits

__all__ = ["covered_volume"]

# A simplex belongs to the region where the ball through its corners is at most so large, in spacings of the points.
_REACH = 3.0
# Which neighbour's distance tells the spacing.
_NEIGHBOURS = 16
# Of the largest: simplices smaller than this have no volume, and no ball either.
_FLAT = 1e-12


def covered_volume(points: Tensor, *, splits: Tensor | None = None) -> Tensor:
    """Compute the area (2-D) or volume (3-D) that points cover: outline, bays and holes follow the points.

    The region is made of the Delaunay simplices whose circumscribed ball has a radius of at most three spacings (an
    alpha shape: Edelsbrunner, Kirkpatrick and Seidel, IEEE Trans. Inf. Theory 29(4), 1983). The spacing is that around
    the corner where points lie closest, by the distance to its 16th neighbour, so an uneven density does no harm. A
    bay or a hole is seen where a ball of that radius fits in. Points at one place count once; nothing depends on the
    order of the rows nor, but for rounding, on how the points are moved or turned.

    The outermost points are the edge. Points drawn at random leave a rim without any, so that their region is too
    small by about 0.4 spacings times the length of its edge: in a square 2.5 % for 4 000 points, 1.2 % for 16 000.

    Args:
        points: ``(N, 2)`` or ``(N, 3)`` in coordinate units; axes in the same unit.
        splits: int64 ``(B + 1,)`` offsets of the samples; None = one sample.

    Returns:
        float64 ``(B,)``; 0 for a sample whose points lie on a line (in 3-D: in a plane), or that has too few.

    Raises:
        ValueError: points of another shape, or not finite.
    """
    shape = tuple(points.shape)
    require(len(shape) == 2 and shape[1] in (2, 3), "points", "have shape (N, 2) or (N, 3)", shape)
    require_finite("points", points)
    offsets = torch.tensor([0, len(points)]) if splits is None else splits
    require_splits(offsets, len(points))
    array = points.detach().to("cpu", torch.float64).numpy()
    volumes = [_covered(array[first:last]) for first, last in pairwise(offsets.tolist())]
    return torch.tensor(volumes, dtype=torch.float64, device=points.device)


def _covered(points: np.ndarray) -> float:
    """Compute the volume that the points of one sample cover."""
    places = np.unique(points, axis=0)
    d = places.shape[1]
    if len(places) <= d:
        return 0.0
    # About the origin and of size 1: far from it Qhull leaves points out.
    places = places - places.mean(0)
    size = float(np.abs(places).max())
    places = places / size
    try:
        simplices = Delaunay(places).simplices
    except QhullError:  # all on a line, or in a plane
        return 0.0
    edges = places[simplices[:, 1:]] - places[simplices[:, :1]]
    volumes = np.abs(np.linalg.det(edges)) / math.factorial(d)
    solid = volumes > _FLAT * volumes.max()
    radii = _circumradii(edges[solid])
    covers = radii <= _REACH * _spacings(places)[simplices[solid]].min(1)
    return float(volumes[solid][covers].sum()) * size**d


def _circumradii(edges: np.ndarray) -> np.ndarray:
    """Compute the circumradius of each simplex, whose ``edges`` ``(n, d, d)`` start at one of its corners."""
    centres = np.linalg.solve(2 * edges, np.square(edges).sum(2)[..., None])[..., 0]
    return np.linalg.norm(centres, axis=1)


def _spacings(places: np.ndarray) -> np.ndarray:
    """Estimate the local spacing: the edge of the cube per point, by the density within reach of its neighbours."""
    d, neighbours = places.shape[1], min(_NEIGHBOURS, len(places) - 1)
    radius = cKDTree(places).query(places, [neighbours + 1])[0][:, 0]  # the place itself is the first
    ball = math.pi ** (d / 2) / math.gamma(d / 2 + 1)
    return radius * (ball / neighbours) ** (1 / d)
