"""Clouds with a label for each point: airborne LiDAR (ground or object), parts of ShapeNet's shapes, simulations."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric.datasets import ShapeNet

from ccnn_irregular._checks import require, require_finite, require_splits
from ccnn_irregular.datasets.point_clouds import lidar_tile
from ccnn_irregular.datasets.processing.terrain import ground_features

__all__ = ["GROUND", "LabelledClouds", "lidar_ground", "shapenet_parts", "simulated_terrain"]

GROUND = ("object", "ground")


@dataclass(frozen=True, repr=False)
class LabelledClouds:
    """B clouds, laid end to end, with values and a label at each point.

    Attributes:
        coordinates: float64 ``(N, 3)``, the third axis upwards.
        values: float32 ``(N, C)``.
        labels: int64 ``(N,)``, index into ``classes``.
        splits: int64 ``(B + 1,)``; cloud b owns the rows ``splits[b]:splits[b + 1]``.
        classes: what the labels mean.
        unit: of the coordinates.
        kinds: int64 ``(B,)``, what each cloud is a kind of, where a kind has some of the classes only.
        possible: bool ``(kinds, classes)``, the classes a cloud of each kind may have.

    Raises:
        ValueError: shapes or dtypes that disagree, coordinates or values that are not finite, labels without class.
    """

    coordinates: Tensor
    values: Tensor
    labels: Tensor
    splits: Tensor
    classes: tuple[str, ...]
    unit: str
    kinds: Tensor | None = None
    possible: Tensor | None = None

    def __post_init__(self) -> None:
        shape = tuple(self.coordinates.shape)
        require(len(shape) == 2 and shape[1] == 3, "coordinates", "have shape (N, 3)", shape)
        require(self.coordinates.dtype == torch.float64, "coordinates", "be float64", self.coordinates.dtype)
        require_finite("coordinates", self.coordinates)
        rows = self.values.ndim == 2 and len(self.values) == shape[0]
        require(rows, "values", f"have shape ({shape[0]}, C)", tuple(self.values.shape))
        require_finite("values", self.values)
        require(tuple(self.labels.shape) == shape[:1], "labels", f"have {shape[0]} rows", tuple(self.labels.shape))
        named = not len(self.labels) or (int(self.labels.min()) >= 0 and int(self.labels.max()) < len(self.classes))
        require(named, "labels", f"lie in 0..{len(self.classes) - 1}", self.labels.unique().tolist()[:5])
        require_splits(self.splits, shape[0])
        require((self.kinds is None) == (self.possible is None), "kinds", "be given with possible", self.kinds)

    def __len__(self) -> int:
        return len(self.splits) - 1

    def __repr__(self) -> str:
        size = f"clouds={len(self)}, points={len(self.values)}, channels={self.values.shape[1]}"
        return f"LabelledClouds({size}, classes={len(self.classes)}, unit={self.unit!r})"

    def rows(self, index: Tensor, splits: Tensor) -> LabelledClouds:
        """The rows ``index`` as clouds that end at ``splits``; kinds are left out."""
        return dataclasses.replace(
            self,
            coordinates=self.coordinates[index],
            values=self.values[index],
            labels=self.labels[index],
            splits=splits,
            kinds=None,
            possible=None,
        )


def lidar_ground(path: str | Path) -> LabelledClouds:
    """A tile of airborne laser points as one cloud, see ``lidar_tile``; values are ``ground_features``, 9 channels.

    Coordinates are metres from the mean of the tile, which is subtracted in float64.
    """
    tile = lidar_tile(path)
    return _tile(tile.pos.numpy(), tile.y)


def _tile(positions: NDArray[np.float64], labels: Tensor) -> LabelledClouds:
    values = torch.from_numpy(ground_features(positions))
    splits = torch.tensor([0, len(positions)])
    return LabelledClouds(torch.from_numpy(positions), values, labels, splits, GROUND, "m")


def simulated_terrain(count: int = 6000, *, seed: int = 0, side: float = 120.0) -> LabelledClouds:
    """A hillside with houses and trees, as a laser from above would see it; measured nowhere. Form of ``lidar_ground``.

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
    return _tile(positions - positions.mean(0), torch.from_numpy(ground.astype(np.int64)))


def shapenet_parts(
    root: str | Path, part: Literal["train", "val", "test"], *, download: bool = False
) -> LabelledClouds:
    """ShapeNet's shapes with a label for the part each point belongs to (Yi et al. 2016), by torch-geometric's class.

    Args:
        root: folder of the data set: ``raw`` as the official archive unpacks, or ``processed`` as that class keeps it.
        part: "train", "val" or "test", as published.
        download: fetch the official archive where it is missing.

    Returns:
        Coordinates as published, about unit size, values normal and one channel for each of 16 kinds: 19 channels.

    Raises:
        FileNotFoundError: no such files, and no download asked for.
    """
    root = Path(root)
    if not download and not (root / "raw").is_dir() and not (root / "processed").is_dir():
        raise FileNotFoundError(
            f"root must hold ShapeNet's parts in raw or processed (--data.download true fetches them), got {root}"
        )
    shapes = ShapeNet(str(root), split=part)
    clouds = [shapes[number] for number in range(len(shapes))]
    kinds = torch.tensor([int(cloud.category) for cloud in clouds])
    sizes = torch.tensor([len(cloud.pos) for cloud in clouds])
    kind = torch.nn.functional.one_hot(kinds, len(shapes.categories)).repeat_interleave(sizes, dim=0)
    classes = [f"{name} {number}" for name, numbers in shapes.seg_classes.items() for number in numbers]
    return LabelledClouds(
        torch.cat([cloud.pos for cloud in clouds]).double(),
        torch.cat([torch.cat([cloud.x for cloud in clouds]), kind.float()], dim=1),
        torch.cat([cloud.y for cloud in clouds]),
        torch.nn.functional.pad(sizes.cumsum(0), (1, 0)),
        tuple(classes),
        "of the box",
        kinds,
        shapes.y_mask,
    )
