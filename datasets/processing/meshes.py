"""Meshes: triangles of OFF files, and the voxels that a surface passes through."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccnn_irregular._checks import require
from ccnn_irregular._files import DamagedFileError

__all__ = ["read_off", "voxelise"]

# Points on a triangle are at most this far apart along its edges, in voxels.
_SPACING = 1 / 3
_POINTS_AT_ONCE = 1_000_000
# Texture, colour and normal may be told before OFF, and the first count may follow without a blank.
_OFF_HEAD = re.compile(r"(?:ST)?C?N?OFF(\d*)")


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
    """Vertices and triangles of an OFF file; polygons are cut into fans, comments, colours and normals left out.

    Headers may run into the counts (OFF490) and say what vertices have beside their place (COFF, NOFF, STOFF, ...).

    Raises:
        ValueError: another file, a binary one or one of more dimensions, too few vertices or faces.
    """
    lines = path.read_text(encoding="ascii", errors="replace").removeprefix("\ufeff").splitlines()
    rows = [words for words in (line.partition("#")[0].split() for line in lines) if words]
    try:
        head = _OFF_HEAD.fullmatch(rows[0][0]) if rows else None
        require(head is not None, path.name, "start with OFF, or with COFF, NOFF and the like", repr(rows[:1])[:40])
        assert head is not None
        first = [*([head[1]] if head[1] else []), *rows.pop(0)[1:]]
        require(first[:1] != ["BINARY"], path.name, "be text", "BINARY")
        vertex_count, face_count = map(int, (first or rows.pop(0))[:2])
        if len(rows) < vertex_count or any(len(row) < 3 for row in rows[:vertex_count]):
            rows = _by_counts([word for row in rows for word in row], vertex_count)
        vertices = np.array([row[:3] for row in rows[:vertex_count]], dtype=np.float64).reshape(vertex_count, 3)
        faces = rows[vertex_count : vertex_count + face_count]
        corners = [row[1 : 1 + int(row[0])] for row in faces]
    except (ValueError, IndexError) as error:
        raise DamagedFileError(f"{path} must be an OFF mesh, got {error}", path) from error
    short = next((n for n, row in enumerate(corners) if not 3 <= int(faces[n][0]) == len(row)), len(corners))
    require(short == face_count, str(path), f"hold {face_count} faces of three corners or more", short)
    triangles = [(row[0], *edge) for row in corners for edge in itertools.pairwise(row[1:])]
    try:
        return vertices, np.array(triangles, dtype=np.int64).reshape(-1, 3)
    except (ValueError, OverflowError) as error:
        raise DamagedFileError(f"{path} must name the corners of its faces by numbers, got {error}", path) from error


def _by_counts(words: list[str], vertex_count: int) -> list[list[str]]:
    """Rows of a file whose vertices or faces do not have a line each, and nothing beside places and corners."""
    rows = [words[place : place + 3] for place in range(0, 3 * vertex_count, 3)]
    place = 3 * vertex_count
    while place < len(words):
        rows.append(words[place : place + 1 + int(words[place])])
        place += 1 + int(words[place])
    return rows
