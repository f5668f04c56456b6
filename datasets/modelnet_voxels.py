"""ModelNet10 as volumes: 4,899 CAD models of ten kinds of objects on 30 x 30 x 30 voxels.

The models are published as meshes (Wu et al. 2015, arXiv 1406.5670) and often passed on as an ``.npz`` of voxels, of
which 8 grids are empty. Axis 2 is vertical; axis 0 runs along the width, axis 1 from front to back.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from ccnn_irregular._checks import require
from ccnn_irregular.datasets._files import existing_folder, labels_in_range, missing_file, one_of, read_npz
from ccnn_irregular.datasets.samples import GriddedSamples
from ccnn_irregular.domains import Grid

__all__ = ["CLASSES", "load", "read_voxels"]

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
