"""Where the voxels of a NIfTI file lie: affines, and coordinates in millimetres."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ccnn_irregular._checks import require
from ccnn_irregular._optional import import_optional

__all__ = [
    "VOXEL",
    "WORLD",
    "affine_of",
    "file_affine",
    "file_indices",
    "require_affine",
    "space_axes",
    "space_of",
    "uniform_axis",
]

Floats = NDArray[np.float64]
WORLD = ("x", "y", "z")
VOXEL = ("i", "j", "k")
_CF_AXES = ("X", "Y", "Z")
# Sine of the angle from which a voxel axis counts as oblique, and two of them as not perpendicular.
_ALIGNED, _PERPENDICULAR = 1e-4, 1e-3
# Largest departure of a node from its place on a uniform axis, in steps.
_UNEVEN = 1e-3


def affine_of(array: xr.DataArray) -> Floats:
    """Compute the affine from voxel indices to millimetres by the array's coordinates, ``(4, 4)``.

    That of the file it was read from, moved and stretched where the array was cut or thinned since; axes in the order
    of the attribute ``voxel_axes``.

    Raises:
        ValueError: attributes or coordinates are missing, or the coordinates are not uniform.
    """
    return file_affine(array) @ file_indices(array)


def require_affine(what: str, affine: Floats) -> None:
    """Refuse an affine that is not finite, or singular."""
    require(bool(np.isfinite(affine).all()), f"affine of {what}", "be finite", affine.tolist())
    directions = affine[:3, :3]
    sizes = np.linalg.norm(directions, axis=0)
    volume = abs(float(np.linalg.det(directions)))
    singular = bool((sizes == 0).any()) or volume <= 1e-6 * float(sizes.prod())
    require(not singular, f"affine of {what}", "not be singular", directions.tolist())


def space_of(affine: Floats, shape: Sequence[int]) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Return the names of the voxel axes and their coordinates in millimetres."""
    directions = affine[:3, :3]
    sizes = np.linalg.norm(directions, axis=0)
    cosines = directions / sizes
    angles = np.abs(cosines.T @ cosines - np.eye(3)).max()
    if angles > _PERPENDICULAR:
        off = float(np.degrees(np.arcsin(min(1.0, angles))))
        text = f"voxel axes are up to {off:.2g} degrees from perpendicular: distances across them are not Euclidean"
        warnings.warn(text, UserWarning, stacklevel=3)
    worlds = _nearest_axes(cosines)
    along = np.abs(cosines[worlds, range(3)])
    aligned = bool((np.sqrt((1 - along**2).clip(0)) <= _ALIGNED).all())
    names = tuple(WORLD[world] for world in worlds) if aligned else VOXEL
    coordinates: dict[str, Any] = {}
    for axis, (name, world) in enumerate(zip(names, worlds, strict=True)):
        index = np.arange(shape[axis])
        if aligned:
            nodes, about = affine[world, 3] + affine[world, axis] * index, "scanner coordinate, RAS+"
        else:
            nodes, about = sizes[axis] * index, "along the voxel axis, from the first voxel"
        coordinates[name] = (name, nodes, {"axis": _CF_AXES[world], "units": "mm", "long_name": about})
    return names, coordinates


def _nearest_axes(cosines: Floats) -> list[int]:
    """Assign the nearest world axis to each voxel axis, each once."""
    linear_sum_assignment = import_optional("scipy.optimize", "orientations").linear_sum_assignment
    return [int(axis) for axis in linear_sum_assignment(-np.abs(cosines.T))[1]]


def space_axes(array: xr.DataArray) -> list[str]:
    """Return the names of the three voxel axes of an array that was read from NIfTI."""
    return str(array.attrs["voxel_axes"]).split()[:3]


def file_affine(array: xr.DataArray) -> Floats:
    """Return the affine of the file that an array was read from."""
    for name in ("affine", "voxel_axes"):
        require(name in array.attrs, "attributes", f"hold {name!r}, as after read_nifti", sorted(map(str, array.attrs)))
    affine = np.array(array.attrs["affine"], np.float64).reshape(4, 4)
    require_affine("affine", affine)
    return affine


def file_indices(array: xr.DataArray) -> Floats:
    """Return the map ``(4, 4)`` from the array's voxel indices to those of its file: a step and a start per axis."""
    affine, axes = file_affine(array), space_axes(array)
    result, sizes = np.eye(4), np.linalg.norm(affine[:3, :3], axis=0)
    for axis, dim in enumerate(axes):
        require(dim in array.coords, "coordinates", f"hold the voxel axes {axes}", sorted(map(str, array.coords)))
        nodes = np.atleast_1d(array[dim].to_numpy().astype(np.float64))
        if dim in VOXEL:
            places = nodes / sizes[axis]
        else:
            row = WORLD.index(dim)
            places = (nodes - affine[row, 3]) / affine[row, axis]
        first, step = uniform_axis(dim, places)
        result[axis, 3] = _snapped(first)
        result[axis, axis] = 1.0 if step is None else _snapped(step)
    return result


def uniform_axis(dim: str, nodes: Floats) -> tuple[float, float | None]:
    """Return the first node and the step of a uniform axis; None for the step of a single node."""
    if len(nodes) == 1:
        return float(nodes[0]), None
    step = float(nodes[-1] - nodes[0]) / (len(nodes) - 1)
    off = np.abs(nodes - (nodes[0] + step * np.arange(len(nodes)))).max()
    require(step != 0 and bool(off <= _UNEVEN * abs(step)), f"coordinate {dim!r}", "be uniform", "gaps that differ")
    return float(nodes[0]), step


def _snapped(number: float) -> float:
    """Round numbers that are whole but for rounding, so that uncut axes keep their affines to the last digit."""
    return float(round(number)) if abs(number - round(number)) <= 1e-6 else number
