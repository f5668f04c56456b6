"""Features of airborne laser points that say where the ground may be: heights above planes laid below the points.

Like most ground filters (Sithole & Vosselman, ISPRS J. Photogramm. Remote Sens. 59, 2004) they start from the lowest
points of small cells. A plane is then fitted around each point to those within reach, in rounds of weighted least
squares in which what lies above the last plane counts less: as in the robust interpolation of Kraus & Pfeifer (ISPRS J.
Photogramm. Remote Sens. 53, 1998), but by planes, which follow slopes and need no covariance.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from ccnn_irregular._checks import require

__all__ = ["ground_features", "height_above_lowest", "lowest_in_cells"]

Positions = NDArray[np.float64]

_ROUNDS = 5
# A reference point so far above the last plane, m, counts 1/e.
_ABOVE = 0.7
# Neighbours looked at together.
_PAIRS = 4_000_000
# Of the cells of reference points, in radii.
_CELL = 1 / 6
# How far before the lowest coordinate cells start, in cells: the points of a lattice do not lie on their edges, where
# rounding would decide.
_START = 0.382
# A plane reaches a little beyond its radius, where what its reference points count has faded to this.
_BEYOND, _FADED = 1.01, 1e-3


def lowest_in_cells(positions: Positions, cell: float) -> NDArray[np.int64]:
    """Row of the lowest point of each square cell that holds one; of points as low as each other the one with the
    smallest coordinates, whatever the order of the rows.

    Args:
        positions: ``(N, 3)``, the third axis upwards.
        cell: edge, unit of ``positions``.
    """
    number = _cells(positions, cell)
    order = np.lexsort((positions[:, 1], positions[:, 0], positions[:, 2], number))
    return order[np.unique(number[order], return_index=True)[1]]


def height_above_lowest(positions: Positions, cell: float) -> NDArray[np.float64]:
    """Height of each point above the lowest one of its cell, ``(N,)``: the simplest ground filter compares it with a
    threshold."""
    number = _cells(positions, cell)
    lowest = np.full(number.max(initial=-1) + 1, np.inf)
    np.minimum.at(lowest, number, positions[:, 2])
    return positions[:, 2] - lowest[number]


def _cells(positions: Positions, cell: float) -> NDArray[np.int64]:
    """Number of the square cell that each point lies in, from 0 on."""
    require(np.isfinite(cell) and cell > 0, "cell", "be positive and finite", cell)
    lowest = positions[:, :2].min(0, initial=np.inf)
    columns = np.floor((positions[:, :2] - lowest) / cell + _START).astype(np.int64)
    return np.unique(columns, axis=0, return_inverse=True)[1].reshape(-1)


def ground_features(positions: Positions, radii: Sequence[float] = (6.0, 12.0, 24.0)) -> NDArray[np.float32]:
    """Height above the plane below each point, the plane's slope, and how far its points are from it, at each radius.

    They do not change, but for rounding, when the points are moved, turned about the vertical or put in another order:
    the cells of the reference points lie along the mean slope of all points. Points without any mean slope (a cone seen
    from above) have no such direction, and which of their points are references may change as they are turned.

    Args:
        positions: ``(N, 3)`` float64, m, the third axis upwards.
        radii: horizontal reach of the planes, m; their reference points are the lowest of cells a sixth as wide.

    Returns:
        ``(N, 3 * len(radii))``: asinh of the height in units of 0.5 m, slope (rise over run), and asinh of the root
        mean square of the distances from the plane in units of 0.5 m. Where all reference points lie at one place the
        plane is level.

    Raises:
        ValueError: positions of another shape or not finite, a radius that is not positive.
    """
    require(positions.ndim == 2 and positions.shape[1] == 3, "positions", "have shape (N, 3)", positions.shape)
    require(bool(np.isfinite(positions).all()), "positions", "be finite", "nan or infinity")
    require(len(radii) >= 1 and min(radii) > 0, "radii", "be positive", tuple(radii))
    positions = _along_the_slope(positions)
    columns = []
    for radius in radii:
        height, slope, roughness = _above_planes(positions, radius)
        columns += [np.arcsinh(2 * height), slope, np.arcsinh(2 * roughness)]
    return np.stack(columns, axis=1).astype(np.float32)


def _along_the_slope(positions: Positions) -> Positions:
    """The positions about their mean, the first axis along the mean slope: the same ones however they were turned."""
    centred = positions - positions.mean(0) if len(positions) else positions
    across = centred[:, :2].T @ centred[:, 2]
    length = np.hypot(*across)
    cos, sin = across / length if length > 0 else (1.0, 0.0)
    x, y, z = centred.T
    return np.stack([cos * x + sin * y, cos * y - sin * x, z], axis=1)


def _above_planes(positions: Positions, radius: float) -> tuple[NDArray[np.float64], ...]:
    """Height above the plane, its slope, root mean square about it, each ``(N,)``."""
    reference = positions[lowest_in_cells(positions, radius * _CELL)]
    tree = cKDTree(reference[:, :2])
    results = [np.empty((0, 3))]
    reach = _BEYOND * radius
    counts = tree.query_ball_point(positions[:, :2], reach, return_length=True)
    # A cell's lowest point may lie outside the reach of all others in the cell.
    lone = counts == 0
    block = np.cumsum(np.maximum(counts, 1)) // _PAIRS
    for number in range(int(block[-1]) + 1 if len(block) else 0):
        rows = np.flatnonzero(block == number)
        near = tree.query_ball_point(positions[rows, :2], reach, return_sorted=False)
        nearest = tree.query(positions[rows[lone[rows]], :2])[1] if lone[rows].any() else []
        for row, one in zip(np.flatnonzero(lone[rows]), nearest, strict=True):
            near[row] = [int(one)]
        partner = np.concatenate([np.asarray(neighbour, dtype=np.int64) for neighbour in near])
        size = np.array([len(neighbour) for neighbour in near])
        offset = reference[partner] - np.repeat(positions[rows], size, axis=0)
        results.append(_planes(offset, size, reach))
    height, slope, roughness = np.concatenate(results).T
    return height, slope, roughness


def _planes(offset: Positions, size: NDArray[np.int64], reach: float) -> NDArray[np.float64]:
    """Height, slope and root mean square ``(rows, 3)`` of the plane through each group of offsets."""
    starts, group = np.cumsum(size) - size, np.repeat(np.arange(len(size)), size)
    x, y, z = offset.T

    def summed(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.add.reduceat(values, starts)

    taper = np.maximum(1 - (x**2 + y**2) / reach**2, _FADED)
    trust = np.ones(len(x))
    for _ in range(_ROUNDS):
        weight = trust * taper
        wx, wy, wz = weight * x, weight * y, weight * z
        sx, sy, sxy = summed(wx), summed(wy), summed(wx * y)
        # What is added lays planes level that too few points hold.
        matrix = np.stack(
            [
                *(summed(weight) + 1e-6, sx, sy),
                *(sx, summed(wx * x) + 1e-2, sxy),
                *(sy, sxy, summed(wy * y) + 1e-2),
            ],
            axis=1,
        ).reshape(-1, 3, 3)
        right = np.stack([summed(wz), summed(wz * x), summed(wz * y)], axis=1)
        plane = np.linalg.solve(matrix, right[..., None])[..., 0]
        distance = z - (plane[group, 0] + plane[group, 1] * x + plane[group, 2] * y)
        trust = np.where(distance > 0, np.exp(-distance / _ABOVE), 1.0)
    weight = trust * taper
    roughness = np.sqrt(summed(weight * distance**2) / summed(weight))
    return np.stack([-plane[:, 0], np.hypot(plane[:, 1], plane[:, 2]), roughness], axis=1)
