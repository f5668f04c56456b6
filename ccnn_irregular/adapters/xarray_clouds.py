"""Positions given by several coordinates on the same dimensions, and what each of them stands for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, final

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError

from ccnn_irregular._checks import require
from ccnn_irregular.adapters.mesh_areas import areas_by_positions, shared_places
from ccnn_irregular.adapters.xarray_axes import Role, coordinate_numbers, line, require_latitudes
from ccnn_irregular.adapters.xarray_meshes import Areas
from ccnn_irregular.adapters.xarray_times import TimeUnit
from ccnn_irregular.longitudes import one_turn
from ccnn_irregular.quadrature import density_compensation

__all__ = ["Cloud", "cloud"]

Floats = NDArray[np.float64]

# Axes of scattered points whose convex hull is looked for, and the share of their box below which they are on a line.
_MOST_HULL_AXES, _FLAT = 4, 1e-9


@final
@dataclass(frozen=True)
class Cloud:
    """Positions given by several coordinates on the same dimensions: stations, profiles, curvilinear grids.

    Attributes:
        names, roles, units: of its axes.
        dims, shape: the dimensions of the array it covers and their sizes.
        rows: int64 ``(n,)``, places in row-major order of ``shape`` that have a position; all others have none.
        coordinates: float64 ``(n, k)``.
        weights: float64 ``(n,)``, the measure each point stands for.
        periods: per axis the length after which it repeats, or None.
        rule: where the weights are from, in words.
    """

    names: tuple[str, ...]
    roles: tuple[Role, ...]
    units: tuple[str, ...]
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    rows: NDArray[np.int64]
    coordinates: Floats
    weights: Floats
    periods: tuple[float | None, ...]
    rule: str
    step: None = None
    even: Literal[False] = False

    @property
    def count(self) -> int:
        """Number of points."""
        return len(self.rows)

    def packed(self, values: NDArray[Any], place: int) -> NDArray[Any]:
        """Values along the array's dimensions from ``place`` on, as one dimension of points."""
        end = place + len(self.shape)
        flat = values.reshape(*values.shape[:place], -1, *values.shape[end:])
        return flat.take(self.rows, place)

    def unpacked(self, values: NDArray[Any], place: int) -> NDArray[Any]:
        """The inverse of ``packed``; nan where there is no position."""
        full = np.full((*values.shape[:place], int(np.prod(self.shape)), *values.shape[place + 1 :]), np.nan)
        full = full.astype(values.dtype)
        full[(slice(None),) * place + (self.rows,)] = values
        return full.reshape(*values.shape[:place], *self.shape, *values.shape[place + 1 :])


def cloud(
    coordinates: list[xr.DataArray],
    roles: list[Role],
    dims: tuple[str, ...],
    *,
    time_unit: TimeUnit = "days",
    area_weights: bool = True,
    areas: Areas | None = None,
    scattered: bool = False,
) -> Cloud:
    """Make points of coordinates on the same dimensions.

    A place where one of them is missing has no position and is left out. The cells of a mesh (latitude and longitude on
    two dimensions) weigh their area on the sphere, all else one over the density of points, estimated with each axis in
    units of its range; these sum to the volume of the points' convex hull. Points at one place share the weight of one.

    Args:
        coordinates: each on some of ``dims``.
        roles: what each measures.
        dims: the dimensions they cover together.
        time_unit: unit of dates.
        area_weights: let points count by areas on the sphere, in square degrees at the equator.
        areas: what the cells of latitude and longitude count; None = as said above.
        scattered: weigh by density also what lies on two dimensions.

    Raises:
        ValueError: no numbers, or no place where all are known; latitudes and longitudes not in degrees; areas that
            are not known everywhere, on one dimension.
    """
    numbers = [
        coordinate_numbers(coordinate, role, time_unit) for coordinate, role in zip(coordinates, roles, strict=True)
    ]
    full = _along_all([values for values, _, _ in numbers], coordinates, dims)
    names = tuple(str(coordinate.name) for coordinate in coordinates)
    stacked = np.stack([coordinate.reshape(-1) for coordinate in full], axis=1)
    rows = np.flatnonzero(np.isfinite(stacked).all(1))
    require(len(rows) > 0, f"coordinates {', '.join(names)}", "be known together at one place at least", "none")
    points, periods = _in_one_turn(stacked[rows], roles, names)
    shape = full[0].shape
    mesh = set(roles) == {"latitude", "longitude"} and len(dims) == 2 and min(shape) > 1 and not scattered
    if areas is not None and areas.given:
        weights, rule = areas.cells.to_numpy().reshape(-1)[rows], areas.rule
    elif areas is not None or mesh:
        latitude, longitude = (full[roles.index(role)] for role in ("latitude", "longitude"))
        cells, rule = _cell_areas(
            dict(zip(roles, names, strict=True)), latitude, longitude, areas, spherical=area_weights
        )
        weights = cells.reshape(-1)[rows]
    else:
        weights, rule = _density_weights(points), "one over the density of points"
        if area_weights and "latitude" in roles:
            weights = weights * np.cos(np.radians(points[:, roles.index("latitude")])).clip(0)
    return Cloud(
        names,
        tuple(roles),
        tuple(unit for _, unit, _ in numbers),
        dims,
        shape,
        rows.astype(np.int64),
        points,
        weights,
        periods,
        rule,
    )


def _along_all(values: list[Floats], coordinates: list[xr.DataArray], dims: tuple[str, ...]) -> list[Floats]:
    """Values of each coordinate repeated along the dimensions that it does not have, ``(*dims)``."""
    fields = [xr.DataArray(one, dims=coordinate.dims) for one, coordinate in zip(values, coordinates, strict=True)]
    return [field.transpose(*dims).to_numpy().astype(np.float64) for field in xr.broadcast(*fields)]


def _in_one_turn(points: Floats, roles: list[Role], names: tuple[str, ...]) -> tuple[Floats, tuple[float | None, ...]]:
    """Points ``(n, axes)`` with longitudes in one turn, and the period of each axis; refuses what is no latitude."""
    points = points.copy()
    periods: list[float | None] = [None] * len(roles)
    for axis, role in enumerate(roles):
        if role == "latitude":
            require_latitudes(names[axis], points[:, axis])
        if role == "longitude":
            turn = one_turn(points[:, axis])
            points[:, axis], periods[axis] = turn.degrees, turn.period
    return points, tuple(periods)


def _cell_areas(
    names: dict[Role, str], latitude: Floats, longitude: Floats, areas: Areas | None, spherical: bool
) -> tuple[Floats, str]:
    """Return square degrees of each cell ``(*dims)`` and their origin; cells that a mesh has twice share an area."""
    mesh = latitude.ndim == 2 and min(latitude.shape) > 1
    if areas is None:
        assert mesh
        return _mesh_areas(names, latitude, longitude, spherical), "areas between the positions"
    cells = areas.cells.to_numpy().astype(np.float64)
    lost = np.isfinite(latitude) & np.isfinite(longitude) & np.isnan(cells)
    if lost.any():
        got = f"{int(lost.sum())} of {lost.size} missing"
        require(mesh, "areas of cells", "be known wherever there is a position", got)
        cells = np.where(lost, areas_by_positions(latitude, longitude), cells)
    cells = cells / shared_places(latitude, longitude, cells) if mesh else cells
    return (cells if spherical else _plain(cells, latitude)), areas.rule


def _mesh_areas(names: dict[Role, str], latitude: Floats, longitude: Floats, spherical: bool) -> Floats:
    """Compute the area of each cell of a mesh ``(rows, columns)`` from the positions of their centres."""
    regular = _regular_areas(names, latitude, longitude, spherical)
    if regular is not None:
        return regular
    cells = areas_by_positions(latitude, longitude)
    cells = cells / shared_places(latitude, longitude, cells)
    return cells if spherical else _plain(cells, latitude)


def _plain(cells: Floats, latitude: Floats) -> Floats:
    """Undo the cosine of latitude in areas, for plain degrees; at a pole a cell is half a cell away from it."""
    return cells / np.maximum(np.cos(np.radians(latitude)), np.radians(np.sqrt(cells)) / 2)


def _regular_areas(names: dict[Role, str], latitude: Floats, longitude: Floats, spherical: bool) -> Floats | None:
    """Compute the areas of a mesh along meridians and parallels from its lines; None for any other mesh."""
    for swap in (False, True):
        north, east = (latitude.T, longitude.T) if swap else (latitude, longitude)
        if (north == north[:, :1]).all() and (east == east[:1]).all():
            along: dict[Role, Floats] = {"latitude": north[:, 0], "longitude": east[0]}
            try:
                lines = [
                    line(xr.DataArray(values, dims=("cell",), name=names[role]), role, area_weights=spherical)
                    for role, values in along.items()
                ]
            except ValueError:  # no lines: halos that are stored twice, say
                return None
            rows, columns = (axis.unpacked(axis.widths, 0) for axis in lines)
            if lines[1].closed:
                columns[[0, -1]] /= 2
            areas = np.multiply.outer(rows, columns)
            return np.asarray(areas.T if swap else areas)
    return None


def _density_weights(points: Floats) -> Floats:
    """Weigh points by one over their density, each axis in units of its range; weights sum to the convex hull."""
    lowest, spans = points.min(0), np.ptp(points, axis=0)
    used = spans > 0
    if not used.any():
        return np.full(len(points), 1 / len(points))
    unit = ((points - lowest) / np.where(used, spans, 1.0))[:, used]
    weights = density_compensation(torch.from_numpy(unit), bounds=[(0.0, 1.0)] * int(used.sum())).numpy()
    return np.asarray(weights * (spans[used].prod() * _hull_share(unit)))


def _hull_share(unit: Floats) -> float:
    """Return the share of the unit box that the points' convex hull fills: the hull turns with them, the box does not.

    1 where there is no such hull: on one axis, on more than can be afforded, and for tracks along a straight line.
    """
    axes = unit.shape[1]
    if axes == 1 or axes > _MOST_HULL_AXES or len(unit) <= axes:
        return 1.0
    try:
        share = float(ConvexHull(unit).volume)
    except QhullError:
        return 1.0
    return share if share > _FLAT else 1.0
