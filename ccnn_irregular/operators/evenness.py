"""Whether points without weights are of even density: else dense places count more than sparse ones."""

from __future__ import annotations

import math
import warnings

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from ccnn_irregular.domains import Points

__all__ = ["space_ratio", "warn_of_uneven"]

# Points that are judged at most and at least, among so many at most; the neighbour that tells the space around each.
_ASKED, _LEAST, _MOST_IN_TREE, _NEIGHBOUR = 300, 100, 50_000, 8
# Shares of the points between which the space around them is compared, and by how much it may differ.
_SHARES, _LARGEST_RATIO = (0.05, 0.95), 12.0
_TEXT = (
    "the points convolved are of uneven density and carry no weights: each counts 1, so dense places count more than "
    "sparse ones. Give each the space it stands for: Points(x, trapezoid(x[:, 0])) for times, "
    "Points(x, density_compensation(x)) for places, both of ccnn_irregular.quadrature; or torch.ones(len(x)) where "
    "each shall count 1"
)


def warn_of_uneven(points: Points, extent: Tensor) -> None:
    """Say so, once for each ``Points``, where they carry no weights though their density is uneven.

    The space around a point is the ball that reaches its eighth neighbour of the same sample, with distances in the
    kernel's extents and the dimension that the points themselves fill. Points are uneven where one in twenty of them
    has more than 12 times the space that another one in twenty has, of 300 points at most, the same in every call;
    fewer than 100 are not judged. Measured on 150 draws each of 100 to 10,000 points: uniform random points on lines,
    squares, cubes, in four dimensions, on spheres, in balls and strips, jittered and plain grids, stations by hours and
    ragged batches of times reach 10.4 at most, 3 to 5 as a rule. A density ten times as high on one half reaches 18,
    normal clouds 25 and more, bursts of measurements 100, the rings of a scanner 1000; density ratios of up to four
    are let pass.

    Args:
        points: where values are convolved from.
        extent: of the kernel, ``(d,)``.
    """
    if points.weighted or points.evenness_told or points.count < _LEAST:
        return
    points.evenness_told = True
    if space_ratio(points, extent) > _LARGEST_RATIO:
        warnings.warn(_TEXT, UserWarning, stacklevel=2)


def space_ratio(points: Points, extent: Tensor) -> float:
    """How many times the space of the densest twentieth of the points the sparsest twentieth has; 1 where unknown."""
    places = (points.coordinates.detach() / extent.detach()).cpu().numpy()
    apart = 10 * math.dist(places.min(0), places.max(0))  # no neighbour is found across samples
    if points.samples > 1:
        places = np.column_stack([places, apart * points.sample_index().cpu().numpy()])
    rng = np.random.default_rng(0)
    if len(places) > _MOST_IN_TREE:
        places = places[rng.integers(len(places), size=_MOST_IN_TREE)]
    asked = places[rng.integers(len(places), size=_ASKED)] if len(places) > _ASKED else places
    tree = cKDTree(places, balanced_tree=False, compact_nodes=False)
    near, far = tree.query(asked, [_NEIGHBOUR + 1, 2 * _NEIGHBOUR + 1])[0].T
    alone = near > apart / 2
    near, far = near[~alone & (near > 0)], far[~alone & (near > 0)]
    if len(near) < _LEAST // 2:
        return 1.0
    low, high = np.quantile(near, _SHARES)
    return float((high / low) ** _dimension(near, far, apart, points.d))


def _dimension(near: NDArray[np.float64], far: NDArray[np.float64], apart: float, d: int) -> float:
    """That of what the points fill: a ball twice as full is 2^(1 / dimension) times as wide."""
    known = far < apart / 2
    if not known.any():
        return d
    return min(math.log(2) / float(np.median(np.log(far[known] / near[known]))), d)
