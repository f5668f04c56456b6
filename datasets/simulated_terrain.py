"""A simulated hillside with houses and trees, as an airborne laser would see it; measured nowhere."""

from __future__ import annotations

import numpy as np
import torch

from ccnn_irregular._checks import require
from ccnn_irregular.datasets.lidar_ground import as_tile
from ccnn_irregular.datasets.registry import DataSet, register
from ccnn_irregular.datasets.samples import LabelledClouds

__all__ = ["terrain"]


def terrain(count: int = 6000, *, seed: int = 0, side: float = 120.0) -> LabelledClouds:
    """A hillside with houses and trees, as a laser from above would see it; in the form of ``lidar_ground.load``.

    Args:
        count: points.
        seed: of everything, not negative.
        side: of the tile, m.
    """
    require(count >= 1, "count", "be at least 1", count)
    rng = np.random.default_rng(seed)
    place = rng.uniform(0, side, (count, 2))
    phase = rng.uniform(0, 2 * np.pi, 2)
    height = 0.3 * place[:, 0] + 6 * np.sin(place[:, 1] / 25 + phase[0]) + 3 * np.sin(place[:, 0] / 15 + phase[1])
    ground = np.ones(count, dtype=bool)
    per_side = max(1, int(side / 20))
    middles = 20 * np.stack(np.meshgrid(np.arange(per_side), np.arange(per_side)), -1).reshape(-1, 2) + 10.0
    for middle in middles + rng.uniform(-3, 3, middles.shape):
        away = place - middle
        if rng.random() < 0.5:  # a house with a level roof
            inside = (np.abs(away) < rng.uniform(3, 6, 2)).all(1)
            height[inside] = height[inside].max(initial=0.0) + rng.uniform(3, 6)
        else:  # a tree, most of whose crown lets no pulse through
            inside = (np.linalg.norm(away, axis=1) < rng.uniform(3, 6)) & (rng.random(count) < 0.8)
            height[inside] += rng.uniform(1, 8, int(inside.sum()))
        ground[inside] = False
    height += 0.05 * rng.standard_normal(count)
    positions = np.column_stack([place, height])
    return as_tile(positions - positions.mean(0), torch.from_numpy(ground.astype(np.int64)))


register(
    DataSet(
        name="simulated_terrain",
        about="a simulated hillside with houses and trees in the form of a LiDAR tile",
        load=terrain,
        samples=LabelledClouds,
        shape="9 features of the terrain at points in m",
    )
)
