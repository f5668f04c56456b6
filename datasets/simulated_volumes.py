"""Simulated scans of single objects: small, seeded, learnable, each with voxels of its own size, measured nowhere.

For tests, examples and method studies, in the container of :mod:`ccnn_irregular.datasets.volume_folder`. Each scan is a
function of continuous space that is averaged over voxels only at its edges: the same seed with other voxels shows the
same objects (with other noise).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from ccnn_irregular._checks import require
from ccnn_irregular.datasets.registry import DataSet, register
from ccnn_irregular.datasets.samples import RaggedVolumes
from ccnn_irregular.domains import Grid

__all__ = ["CLASSES", "VOXELS", "textured_shapes"]

CLASSES = ("ball, plain", "ball, striped", "box, plain", "box, striped", "shell, plain", "shell, striped")
# Voxels in mm along z, y, x, as scanners are set: cubes, thick slices, thin ones.
VOXELS = ((1.5, 1.5, 1.5), (3.0, 1.5, 1.5), (2.0, 2.0, 2.0), (3.0, 1.0, 1.0), (1.5, 2.0, 2.0), (2.4, 1.2, 1.2))

_EXTENT = 24.0  # mm, side of the field of view


def textured_shapes(
    count: int = 300, *, seed: int = 0, voxels: Sequence[Sequence[float]] = VOXELS, noise: float = 0.1
) -> RaggedVolumes:
    """Balls, boxes and hollow balls of 5 to 8 mm radius, half of them striped, on a ground of 0.

    Place, size, brightness and the direction of the stripes are random; stripes are 7 to 9 mm apart, so that voxels of
    3 mm still show them.

    Args:
        count: scans; classes (CLASSES) are as equally frequent as they can be, in random order.
        seed: of everything, not negative.
        voxels: sizes of voxels in mm along z, y and x; each scan draws one of them. Sizes are cut so that a whole
            number fits into 24 mm.
        noise: standard deviation of the noise; the objects have a brightness of about 1.

    Returns:
        One channel; grids with the middle of the field of view at 0, in mm.
    """
    require(count >= 1, "count", "be at least 1", count)
    require(seed >= 0, "seed", "not be negative", seed)
    sound = len(voxels) >= 1 and all(len(size) == 3 and min(size) > 0 and max(size) <= _EXTENT for size in voxels)
    require(sound, "voxels", f"be triples of mm, above 0 and up to {_EXTENT:g}", voxels)
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count, dtype=np.int64) % len(CLASSES))
    # One row of numbers a scan, drawn before any voxel: the objects do not depend on the voxels.
    drawn = rng.uniform(size=(count, 12))
    grids = [_grid(voxels[int(row[0] * len(voxels))]) for row in drawn]
    volumes = [
        _scan(int(label), row, grid) + noise * rng.standard_normal(grid.sizes)
        for label, row, grid in zip(labels, drawn, grids, strict=True)
    ]
    values = [torch.from_numpy(volume.astype(np.float32))[None] for volume in volumes]
    return RaggedVolumes.of(values, grids, torch.from_numpy(labels), CLASSES, "mm")


def _grid(voxel: Sequence[float]) -> Grid:
    sizes = [max(1, round(_EXTENT / step)) for step in voxel]
    steps = [_EXTENT / size for size in sizes]
    return Grid(sizes, steps, [(step - _EXTENT) / 2 for step in steps])


def _scan(label: int, drawn: np.ndarray, grid: Grid) -> np.ndarray:
    """The object at the nodes, its edge as soft as the largest voxel is wide."""
    z, y, x = np.meshgrid(*(axis.nodes().numpy() for axis in grid.axes), indexing="ij")
    radius = 5 + 3 * drawn[1]
    centre = 3 * (2 * drawn[2:5] - 1)
    across = np.stack([z - centre[0], y - centre[1], x - centre[2]])
    distance = np.sqrt((across**2).sum(0))
    shape = CLASSES[label].partition(",")[0]
    outside = {
        "ball": distance - radius,
        "box": np.abs(across).max(0) - 0.8 * radius,
        "shell": np.abs(distance - 0.75 * radius) - 0.25 * radius,
    }[shape]
    brightness = 0.8 + 0.4 * drawn[5]
    if label % 2:
        direction = drawn[6:9] - 0.5
        direction /= np.linalg.norm(direction)
        phase = np.tensordot(direction, across, 1) / (7 + 2 * drawn[9]) + drawn[10]
        brightness = brightness * (1 + 0.7 * np.sin(2 * math.pi * phase))
    return brightness * np.clip(0.5 - outside / max(grid.steps), 0, 1)


register(
    DataSet(
        name="simulated_volumes",
        about="simulated scans of plain and striped objects in the form of a volume folder",
        load=textured_shapes,
        samples=RaggedVolumes,
        shape="1 channel on a grid of its own in mm",
    )
)
