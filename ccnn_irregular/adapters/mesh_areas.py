"""Areas of the cells of meshes, by their corners or by positions, in square degrees."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree

from ccnn_irregular._checks import require
from ccnn_irregular.longitudes import GLOBE, on_circle
from ccnn_irregular.quadrature.polygons import solid_angles, spherical_polygons

__all__ = ["STERADIAN", "areas_by_positions", "bounded_areas", "middles", "polygon_areas", "shared_places"]

Floats = NDArray[np.float64]
STERADIAN = math.degrees(1) ** 2  # square degrees
# Share of its own size within which a cell lies where another one does: a halo stored twice.
_SAME_PLACE = 1e-2
# The first and the last column of a mesh are neighbours if they are at most so many columns apart.
_SEAM = 1.5
# Columns that a mesh around the globe may have twice.
_HALO = 2


def polygon_areas(latitudes: Floats, longitudes: Floats) -> Floats:
    """Compute the areas of polygons ``(n, corners)`` of great circles, square degrees."""
    return np.asarray(
        spherical_polygons(torch.from_numpy(latitudes), torch.from_numpy(longitudes), radius=math.degrees(1))
    )


def bounded_areas(latitudes: Floats, longitudes: Floats) -> Floats:
    """Compute areas ``(*cells)`` within bounds ``(*cells, corners)``, nan where bounds are missing.

    Where all edges run along meridians and parallels the cells are boxes of latitude and longitude, else their edges
    are great circles. Two corners are the ends of a box.
    """
    require(latitudes.shape == longitudes.shape, "bounds", f"have one shape, {latitudes.shape}", longitudes.shape)
    shape, corners = latitudes.shape[:-1], latitudes.shape[-1]
    north, east = latitudes.reshape(-1, corners), longitudes.reshape(-1, corners)
    known = (np.isfinite(north) & np.isfinite(east)).sum(1) >= min(corners, 3)
    north, east = north[known], east[known]
    areas = np.full(len(known), np.nan)
    if corners == 2 or _are_boxes(north, east):
        areas[known] = _boxes(north, east)
    else:
        areas[known] = polygon_areas(north, east)
    return areas.reshape(shape)


def _are_boxes(latitudes: Floats, longitudes: Floats) -> bool:
    """Tell whether every edge runs along a meridian or a parallel; at a pole any longitude is the same."""
    around = np.abs(on_circle(longitudes - np.roll(longitudes, 1, 1), 0.0))
    across = np.abs(latitudes - np.roll(latitudes, 1, 1))
    pole = np.maximum(np.abs(latitudes), np.abs(np.roll(latitudes, 1, 1))) >= 90 - 1e-9
    resolution = 1e-9 * GLOBE
    return bool(((around <= resolution) | (across <= resolution) | pole).all())


def _boxes(latitudes: Floats, longitudes: Floats) -> Floats:
    """Compute the areas of boxes of latitude and longitude."""
    south, north = (np.radians(end(latitudes, axis=1)) for end in (np.nanmin, np.nanmax))
    height = 2 * np.cos((north + south) / 2) * np.sin((north - south) / 2)
    ends = [end(longitudes, axis=1) for end in (np.nanmin, np.nanmax)]
    whole = ends[1] - ends[0]
    # Corners on both sides of a cut of the circle: the box is the short way round, unless it is the whole of it.
    turned = on_circle(longitudes - longitudes[:, :1], 0.0)
    width = np.where(np.abs(whole - GLOBE) < 1e-6, GLOBE, np.where(whole <= GLOBE / 2, whole, np.ptp(turned, axis=1)))
    return np.asarray(np.degrees(1) * height * width)


def _unit_vectors(latitudes: Floats, longitudes: Floats) -> Floats:
    north, east = np.radians(latitudes), np.radians(longitudes)
    return np.stack([np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north)], -1)


def middles(latitudes: Floats, longitudes: Floats) -> tuple[Floats, Floats]:
    """Compute latitude and longitude of the mean corner of polygons ``(n, corners)``."""
    x, y, z = np.nansum(_unit_vectors(latitudes, longitudes), axis=1).T
    return np.degrees(np.arctan2(z, np.hypot(x, y))), np.degrees(np.arctan2(y, x))


def areas_by_positions(latitudes: Floats, longitudes: Floats) -> Floats:
    """Compute the areas of cells whose corners lie amid four neighbouring positions, ``(rows, columns)``.

    Beyond the edge of the mesh, and beyond a missing position, it goes on as on the other side; around the globe the
    first column is beside the last, also where some columns are stored twice. A cell that has no neighbour along one
    direction is as large as the nearest that has.

    Returns:
        float64 like ``latitudes``, nan where a position is missing.

    Raises:
        ValueError: no cell has neighbours along both directions.
    """
    places = _unit_vectors(latitudes, longitudes)
    padded = np.pad(places, ((1, 1), (1, 1), (0, 0)), constant_values=np.nan)
    for axis in (0, 1):
        _join(padded, places, axis)
    for _ in range(2):  # beyond edges, then beyond corners
        _extend(padded)
    corners = sum(padded[i : len(padded) - 1 + i, j : padded.shape[1] - 1 + j] for i in (0, 1) for j in (0, 1))
    corners /= np.linalg.norm(corners, axis=-1, keepdims=True)
    around = [corners[:-1, :-1], corners[:-1, 1:], corners[1:, 1:], corners[1:, :-1]]
    areas = solid_angles(torch.from_numpy(np.stack(around, axis=-2))).numpy() * STERADIAN
    placed = np.isfinite(places[..., 0])
    known = placed & np.isfinite(areas)
    rule = "have neighbours along both dimensions; pass the areas of such cells as weights="
    require(bool(known.any()), "positions", rule, "none that has")
    if not known[placed].all():
        nearest = distance_transform_edt(~known, return_distances=False, return_indices=True)
        areas = areas[tuple(nearest)]
    return np.where(placed, areas, np.nan)


def _join(padded: Floats, places: Floats, axis: int) -> None:
    """Put the last row (or column) beside the first where they are neighbours."""
    size = places.shape[axis]
    ends = np.moveaxis(places, axis, 0)
    apart = np.linalg.norm(np.diff(ends, axis=0), axis=-1)
    step = np.full(apart.shape[1:], np.nan)
    seen = np.isfinite(apart).any(0)
    step[seen] = np.nanmedian(apart[:, seen], axis=0)
    target = np.moveaxis(padded, axis, 0)
    for twice in reversed(range(min(_HALO, size - 3) + 1)):
        beside = np.linalg.norm(ends[-1 - twice] - ends[0], axis=-1)
        again = np.linalg.norm(ends[size - twice :] - ends[:twice], axis=-1) if twice else np.zeros((1, *step.shape))
        known = np.isfinite(beside + step)
        fits = (beside <= _SEAM * step) & (beside > 0) & (again <= _SAME_PLACE * step).all(0)
        if known.any() and fits[known].all():
            target[0, 1:-1], target[-1, 1:-1] = ends[size - 1 - twice], ends[twice]
            return


def _extend(padded: Floats) -> None:
    """Fill in positions beside known ones: as far beyond their neighbour as the one before it lies on this side.

    Where neighbours along an edge are one place, a pole, cells end there.
    """
    rows, columns = np.nonzero(np.isnan(padded[..., 0]))
    total = np.zeros((len(rows), 3))

    def at(row: NDArray[np.int64], column: NDArray[np.int64]) -> Floats:
        inside = (row >= 0) & (row < len(padded)) & (column >= 0) & (column < padded.shape[1])
        found = padded[row.clip(0, len(padded) - 1), column.clip(0, padded.shape[1] - 1)]
        return np.where(inside[:, None], found, np.nan)

    for down, right in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        near, far = at(rows + down, columns + right), at(rows + 2 * down, columns + 2 * right)
        beyond = 2 * (near * far).sum(-1, keepdims=True) * near - far
        width = np.linalg.norm(near - far, axis=-1)
        for sign in (1, -1):
            side = at(rows + down + sign * right, columns + right + sign * down)
            beyond = np.where((np.linalg.norm(near - side, axis=-1) <= 1e-6 * width)[:, None], near, beyond)
        total += np.nan_to_num(beyond)
    length = np.linalg.norm(total, axis=-1, keepdims=True)
    padded[rows, columns] = np.divide(total, length, out=np.full_like(total, np.nan), where=length > 0)


def shared_places(latitudes: Floats, longitudes: Floats, areas: Floats) -> Floats:
    """Count the cells of a mesh ``(rows, columns)`` at the place of each cell: halos are stored twice.

    Neighbours at one place are no copies: they share a pole. nan where a position is missing.
    """
    places = _unit_vectors(latitudes, longitudes)
    pole = np.zeros(latitudes.shape, dtype=bool)
    for axis in (0, 1):
        near = np.moveaxis(np.linalg.norm(np.diff(places, axis=axis), axis=-1) <= 1e-12, axis, 0)
        along = np.moveaxis(pole, axis, 0)
        along[1:] |= near
        along[:-1] |= near
    rows = np.flatnonzero(np.isfinite(places[..., 0]) & ~pole)
    counts = np.where(np.isfinite(places[..., 0]), 1.0, np.nan).reshape(-1)
    chosen = places.reshape(-1, 3)[rows]
    reach = _SAME_PLACE * np.sqrt(np.nan_to_num(areas.reshape(-1)[rows]) / STERADIAN)
    if len(chosen) < 2:
        return counts.reshape(latitudes.shape)
    tree = cKDTree(chosen, balanced_tree=False, compact_nodes=False)
    nearest = tree.query(chosen, k=[2], distance_upper_bound=float(reach.max()) * (1 + 1e-9))[0][:, 0]
    crowded = np.flatnonzero(nearest <= reach)
    counts[rows[crowded]] = tree.query_ball_point(chosen[crowded], reach[crowded], return_length=True)
    return counts.reshape(latitudes.shape)
