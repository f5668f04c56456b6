"""ModelNet10 as volumes: 4,899 CAD models of ten kinds of objects on 30 x 30 x 30 voxels.

The models are published as meshes (Wu et al. 2015, arXiv 1406.5670) and often passed on as an ``.npz`` of voxels, of
which 8 grids are empty. Axis 2 is vertical; axis 0 runs along the width, axis 1 from front to back. Meshes, those of
ModelNet40 too, are made into voxels here.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from ccnn_irregular._checks import require
from ccnn_irregular.datasets.reading.files import existing_folder, labels_in_range, missing_file, one_of, read_npz
from ccnn_irregular.datasets.samples import GriddedSamples
from ccnn_irregular.domains import Grid

__all__ = ["CLASSES", "load", "load_meshes", "read_voxels", "voxelise"]

Part = Literal["train", "test"]

CLASSES = (
    "bathtub",
    "bed",
    "chair",
    "desk",
    "dresser",
    "monitor",
    "night_stand",
    "sofa",
    "table",
    "toilet",
)
_VOXELS = "modelnet10_voxels.npz"

# Points on a triangle are at most this far apart along its edges, in voxels.
_SPACING = 1 / 3
_POINTS_AT_ONCE = 1_000_000


def load(root: str | Path, part: Part = "train") -> GriddedSamples:
    """Volumes ``(B, 1, 30, 30, 30)`` of 0 and 1, on a grid in voxels.

    Args:
        root: folder with ``modelnet10_voxels.npz``, see :func:`read_voxels`.
        part: "train" or "test", as published.

    Raises:
        FileNotFoundError, ValueError: as :func:`read_voxels`.
    """
    grids, labels = read_voxels(root, part)
    sizes = grids.shape[1:]
    return GriddedSamples(
        values=torch.from_numpy(grids.astype(np.float32))[:, None],
        grid=Grid(sizes, (1.0,) * len(sizes)),
        labels=torch.from_numpy(labels),
        classes=CLASSES,
        unit="voxel",
    )


def read_voxels(root: str | Path, part: Part = "train") -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Occupancy ``(B, n, n, n)`` of 0 and 1, and labels ``(B,)``, in the order of the file; empty grids stay.

    Args:
        root: folder with ``modelnet10_voxels.npz``: ``X_train``, ``X_test`` of 0 and 1, ``(B, 30, 30, 30)``, and the
            classes ``y_train``, ``y_test``, 0 to 9 in alphabetical order.
        part: "train" or "test", as published.

    Raises:
        FileNotFoundError: no such folder or file.
        ValueError: the file breaks the format; the message names it.
    """
    one_of("part", part, get_args(Part))
    root = existing_folder(root)
    if not (root / _VOXELS).is_file():
        raise missing_file(root, _VOXELS)
    names = (f"X_{part}", f"y_{part}")
    grids, labels = read_npz(root / _VOXELS, names).values()
    shape = grids.shape
    cubic = grids.ndim == 4 and len(set(shape[1:])) == 1
    require(cubic, f"{_VOXELS}, {names[0]}", "have shape (B, n, n, n)", shape)
    whole = labels.dtype.kind in "iu" and labels.shape == shape[:1]
    require(whole, f"{_VOXELS}, {names[1]}", f"hold one integer for each of {shape[0]} grids", labels.shape)
    filled = bool(((grids == 0) | (grids == 1)).all())
    require(filled, f"{_VOXELS}, {names[0]}", "hold 0 and 1", f"{grids.min()} to {grids.max()}")
    return grids.astype(np.uint8), labels_in_range(f"{_VOXELS}, {names[1]}", labels, 0, len(CLASSES) - 1)


def load_meshes(
    root: str | Path, part: Part = "train", *, size: int = 30, margin: int = 3, fill: bool = False
) -> GriddedSamples:
    """The official OFF meshes as volumes, in the form of :func:`load`.

    Args:
        root: folder of ``<class>/<part>/*.off``, as ModelNet10 and ModelNet40 unpack to.
        part: "train" or "test", as published.
        size: voxels along each axis.
        margin: see :func:`voxelise`.
        fill: see there.

    Raises:
        FileNotFoundError: no such folder, or no mesh in it.
        ValueError: a file that is no mesh; the message names it.
    """
    one_of("part", part, get_args(Part))
    root = existing_folder(root)
    files = sorted(root.glob(f"*/{part}/*.off"))
    if not files:
        raise missing_file(root, f"meshes <class>/{part}/*.off")
    classes = tuple(sorted({file.parent.parent.name for file in files}))
    values = np.empty((len(files), 1, size, size, size), np.float32)
    for place, file in enumerate(files):
        vertices, faces = _read_off(file)
        try:
            values[place, 0] = voxelise(vertices, faces, size, margin=margin, fill=fill)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
    return GriddedSamples(
        values=torch.from_numpy(values),
        grid=Grid((size,) * 3, (1.0,) * 3),
        labels=torch.tensor([classes.index(file.parent.parent.name) for file in files], dtype=torch.int64),
        classes=classes,
        unit="voxel",
    )


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


def _read_off(path: Path) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
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
