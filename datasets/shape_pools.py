"""Shapes as pools of places that clouds of any number of points are drawn from: ModelNet's meshes or voxels, solids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.datasets import ModelNet

from ccnn_irregular._checks import require, require_finite, require_splits
from ccnn_irregular.datasets.point_clouds import MODELNET10_CLASSES, Part, modelnet, modelnet10_voxels
from ccnn_irregular.datasets.reading.content import content_id

__all__ = ["MODELNET40_CLASSES", "SOLIDS", "ShapePool", "modelnet_pool", "solids"]

MODELNET40_CLASSES = (
    "airplane", "bathtub", "bed", "bench", "bookshelf", "bottle", "bowl", "car", "chair", "cone", "cup", "curtain",
    "desk", "door", "dresser", "flower_pot", "glass_box", "guitar", "keyboard", "lamp", "laptop", "mantel",
    "monitor", "night_stand", "person", "piano", "plant", "radio", "range_hood", "sink", "sofa", "stairs", "stool",
    "table", "tent", "toilet", "tv_stand", "vase", "wardrobe", "xbox",
)  # fmt: skip
SOLIDS = ("ball", "box", "cylinder", "ring", "two balls")

_VOXELS = 30  # along each axis of the file
_SMALLEST = 1e-12


@dataclass(frozen=True, repr=False)
class ShapePool:
    """B labelled shapes, each in [-1, 1]^3 and known by many places on it, laid end to end.

    Attributes:
        places: float32 ``(N, 3)``, the third axis upwards.
        splits: int64 ``(B + 1,)``; shape b owns the rows ``splits[b]:splits[b + 1]``, none for an empty shape.
        labels: int64 ``(B,)``, index into ``classes``.
        classes: what the labels mean.
        reach: float32 ``(B,)``, half the edge of the voxel that each place stands for, 0 for points of a surface.

    Raises:
        ValueError: shapes or dtypes that disagree, places that are not finite.
    """

    places: Tensor
    splits: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    reach: Tensor

    def __post_init__(self) -> None:
        shape = tuple(self.places.shape)
        require(len(shape) == 2 and shape[1] == 3, "places", "have shape (N, 3)", shape)
        require(self.places.dtype == torch.float32, "places", "be float32", self.places.dtype)
        require_finite("places", self.places)
        require_splits(self.splits, len(self.places))
        for name in ("labels", "reach"):
            rows = tuple(getattr(self, name).shape)
            require(rows == (len(self.splits) - 1,), name, f"have shape ({len(self.splits) - 1},)", rows)

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        empty = int((self.splits.diff() == 0).sum())
        return f"ShapePool(shapes={len(self)}, places={len(self.places)}, empty={empty}, classes={len(self.classes)})"

    def draw(
        self,
        index: NDArray[np.int64],
        counts: NDArray[np.int64],
        place: NDArray[np.float64],
        within: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Points of the shapes ``index``, evenly: ``counts`` of each, laid end to end.

        Places are taken with repetition; within a voxel each point has a place of its own.

        Args:
            index: ``(B,)``.
            counts: ``(B,)``, 0 for an empty shape, see ``drawable``.
            place: ``(sum(counts),)`` in (0, 1), uniform: which place each point is at.
            within: ``(sum(counts), 3)`` in (0, 1), uniform: where in the voxel.

        Returns:
            Positions float64 ``(sum(counts), 3)``.
        """
        splits = self.splits.numpy()
        first, size = np.repeat(splits[index], counts), np.repeat(splits[index + 1] - splits[index], counts)
        rows = first + np.floor(place * size).astype(np.int64)
        positions = self.places.numpy()[rows].astype(np.float64)
        reach = np.repeat(self.reach.numpy()[index], counts)[:, None]
        return positions + reach * (2 * within - 1)

    def drawable(self, index: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """``counts``, and 0 for the shapes among ``index`` that are empty."""
        return np.where(self.splits.diff().numpy()[index] > 0, counts, 0)


def modelnet_pool(
    root: str | Path,
    name: Literal["10", "40"] = "10",
    part: Part = "train",
    *,
    places: int = 4096,
    download: bool = False,
) -> ShapePool:
    """ModelNet as pools: from its meshes where ``root/raw`` holds them, else from ``root/modelnet10_voxels.npz``.

    Shapes are moved and scaled so that the box around each is centred and its longest side reaches from -1 to 1.

    Args:
        root: folder of the data set, see ``modelnet`` and ``modelnet10_voxels``.
        name: "10" or "40".
        part: "train" or "test", as published.
        places: points drawn of each mesh, which depend on the mesh alone, so that equal meshes have equal places; of
            voxels all are taken.
        download: fetch the official meshes where neither is there.

    Raises:
        FileNotFoundError: neither meshes nor voxels.
    """
    root = Path(root)
    meshes = (root / "raw").is_dir() or (root / "processed").is_dir()
    if not meshes and name == "10" and (root / "modelnet10_voxels.npz").is_file():
        clouds = modelnet10_voxels(root, part)
        return _pool(clouds, MODELNET10_CLASSES, half_edge=1 / _VOXELS)
    if not meshes and not download:
        raise FileNotFoundError(
            f"root must hold the meshes of ModelNet{name} in raw/<class>/<part>/*.off (--data.download true fetches "
            f"them){' or modelnet10_voxels.npz' if name == '10' else ''}, got {root}"
        )
    clouds = _drawn(modelnet(root, name, part, points=places))
    return _pool(clouds, MODELNET10_CLASSES if name == "10" else MODELNET40_CLASSES, half_edge=0.0)


def _drawn(shapes: ModelNet) -> list[Data]:
    """Points of each mesh, which follow from the mesh, in an order that follows from the meshes.

    torch-geometric keeps them as the folder was listed, which differs from machine to machine.
    """
    meshes = (shapes.get(number) for number in range(len(shapes)))
    ids = [content_id(*(one.numpy().tobytes() for one in (mesh.pos, mesh.face))) for mesh in meshes]
    clouds = []
    with torch.random.fork_rng(devices=[]):
        for number in np.lexsort((ids, shapes.y.numpy())).tolist():
            torch.manual_seed(ids[number])
            clouds.append(shapes[number])
    return clouds


def _pool(clouds: Sequence[Data], classes: tuple[str, ...], half_edge: float) -> ShapePool:
    """Clouds, each in a box of its own, as a pool."""
    splits = np.cumsum([0, *(len(cloud.pos) for cloud in clouds)])
    places = torch.cat([cloud.pos for cloud in clouds]).double().numpy()
    filled = np.flatnonzero(np.diff(splits))
    scale = np.ones(len(clouds))
    if len(filled):
        low = np.minimum.reduceat(places, splits[filled]) - half_edge
        high = np.maximum.reduceat(places, splits[filled]) + half_edge
        # A shape of one point, or of points that are all the same, has no size; it goes to the middle.
        scale[filled] = 2 / np.maximum((high - low).max(1), _SMALLEST)
        counts = np.diff(splits)[filled]
        places = (places - np.repeat((low + high) / 2, counts, axis=0)) * np.repeat(scale[filled], counts)[:, None]
    return ShapePool(
        torch.from_numpy(places.astype(np.float32)),
        torch.from_numpy(splits),
        torch.cat([cloud.y for cloud in clouds]),
        classes,
        torch.from_numpy((half_edge * scale).astype(np.float32)),
    )


def solids(count: int = 300, *, places: int = 512, seed: int = 0) -> ShapePool:
    """Simulated shapes, surfaces of ``SOLIDS``, turned about the vertical and stretched; measured on nothing.

    Args:
        count: shapes; classes are as equally frequent as they can be, in random order.
        places: on each shape.
        seed: of everything, not negative.
    """
    require(count >= 1, "count", "be at least 1", count)
    require(places >= 1, "places", "be at least 1", places)
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count) % len(SOLIDS))
    clouds = []
    for label in labels.tolist():
        points = _solid(SOLIDS[label], places, rng) * rng.uniform(0.6, 1.0, 3)
        angle = rng.uniform(0, 2 * np.pi)
        turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
        clouds.append(Data(pos=torch.from_numpy(points @ turn.T), y=torch.tensor([label])))
    return _pool(clouds, SOLIDS, half_edge=0.0)


def _solid(name: str, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Points on a surface about the origin."""
    directions = rng.standard_normal((count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    angle, height = rng.uniform(0, 2 * np.pi, count), rng.uniform(-1, 1, count)
    circle = np.stack([np.cos(angle), np.sin(angle), np.zeros(count)], axis=1)
    up = np.array([0.0, 0.0, 1.0])
    if name == "ball":
        return directions
    if name == "box":
        return directions / np.abs(directions).max(1, keepdims=True)
    if name == "cylinder":
        return circle + height[:, None] * up
    if name == "ring":
        return circle * 0.8 + 0.2 * directions
    return 0.5 * directions + np.where(height > 0, 0.5, -0.5)[:, None] * up
