"""Meshes: triangles of OFF files, and the voxels that a surface passes through."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccnn_irregular._checks import require

__all__ = ["read_off", "voxelise"]

# Points on a triangle are at most this far apart along its edges, in voxels.
_SPACING = 1 / 3
_POINTS_AT_ONCE = 1_000_000


def voxelise(
    vertices: NDArray[np.floating[Any]],
    faces: NDArray[np.integer[Any]],
    size: int = 30,
    *,
    margin: int = 3,
    fill: bool = False,
) -> NDArray[np.uint8]:
    """Voxels that the surface of a mesh passes through, ``(size, size, size)`` of 0 and 1.

    The surface is looked up at points a third of a voxel apart, corners and edges of all faces among them: a voxel of
    which it only cuts off a corner may stay 0.

    Args:
        vertices: ``(V, 3)``.
        faces: ``(F, 3)``, the corners of each triangle.
        size: voxels along each axis.
        margin: voxels left empty on every side; the longest side of the mesh fills the rest, its middle in the middle.
        fill: set what the surface encloses to 1 too.

    Raises:
        ValueError: shapes that disagree, faces that name no vertex, coordinates that are not finite, a mesh without
            extent or a margin that leaves no room.
    """
    require(vertices.ndim == 2 and vertices.shape[1] == 3, "vertices", "have shape (V, 3)", vertices.shape)
    sound = faces.ndim == 2 and faces.shape[1] == 3 and len(faces) > 0 and faces.dtype.kind in "iu"
    require(sound, "faces", "be integers of shape (F, 3)", f"{faces.dtype} {faces.shape}")
    known = int(faces.min()) >= 0 and int(faces.max()) < len(vertices)
    require(known, "faces", f"name vertices 0 to {len(vertices) - 1}", f"{faces.min()} to {faces.max()}")
    require(0 <= 2 * margin < size, "margin", f"leave room in {size} voxels", margin)
    corners = vertices.astype(np.float64)[faces]  # (F, 3 corners, 3 axes)
    require(bool(np.isfinite(corners).all()), "vertices", "be finite", "nan or infinity")
    low, high = corners.min((0, 1)), corners.max((0, 1))
    extent = float((high - low).max())
    require(extent > 0, "vertices", "have an extent", "a single point")
    # In voxels.
    corners = (corners - (low + high) / 2) * ((size - 2 * margin) / extent) + size / 2
    grid = np.zeros((size,) * 3, np.uint8)
    longest = np.sqrt(((corners - np.roll(corners, 1, axis=1)) ** 2).sum(2)).max(1)
    pieces = np.maximum(np.ceil(longest / _SPACING).astype(np.int64), 1)
    for count in np.unique(pieces):
        shares = _barycentric(int(count))
        triangles = corners[pieces == count]
        for some in np.array_split(triangles, -(-len(triangles) * len(shares) // _POINTS_AT_ONCE)):
            points = (shares @ some).reshape(-1, 3)
            # What lies on the wall of two voxels belongs to the one nearer the middle.
            cells = np.floor(points - 1e-9 * np.sign(points - size / 2)).astype(np.int64)
            grid[tuple(cells.T)] = 1
    if fill:
        from scipy.ndimage import binary_fill_holes

        grid = binary_fill_holes(grid).astype(np.uint8)
    return grid


def _barycentric(count: int) -> NDArray[np.float64]:
    """Shares of the three corners at points that cut each edge into ``count`` pieces, ``(points, 3)``."""
    first, second = np.meshgrid(np.arange(count + 1), np.arange(count + 1), indexing="ij")
    inside = first + second <= count
    a, b = first[inside], second[inside]
    return np.stack([a, b, count - a - b], axis=1) / count


def read_off(path: Path) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Vertices and triangles of an OFF file; polygons are cut into fans. Some headers run into the counts, OFF490."""
    words = path.read_text(encoding="ascii", errors="replace").removeprefix("\ufeff").split()
    try:
        head = words.pop(0)
        if head != "OFF":
            require(head.startswith("OFF"), path.name, "start with OFF", repr(head[:10]))
            words.insert(0, head[3:])
        vertex_count, face_count = int(words[0]), int(words[1])
        numbers = np.array(words[3 : 3 + 3 * vertex_count], dtype=np.float64)
        vertices = numbers.reshape(vertex_count, 3)
        rest = np.array(words[3 + 3 * vertex_count :], dtype=np.float64).astype(np.int64)
    except (ValueError, IndexError) as error:
        raise ValueError(f"{path} must be an OFF mesh, got {error}") from error
    if len(rest) == 4 * face_count and bool((rest[::4] == 3).all()):
        return vertices, rest.reshape(face_count, 4)[:, 1:]
    triangles, place = [], 0
    for number in range(face_count):
        corners = rest[place + 1 : place + 1 + int(rest[place])] if place < len(rest) else rest[:0]
        require(len(corners) >= 3, str(path), f"hold {face_count} faces of three corners or more", number)
        triangles += [(corners[0], *edge) for edge in itertools.pairwise(corners[1:])]
        place += 1 + len(corners)
    return vertices, np.array(triangles, dtype=np.int64).reshape(-1, 3)
