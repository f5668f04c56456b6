"""Labelled shapes as pools of places that clouds of any number of points are drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ccnn_irregular._checks import reject, require, require_finite, require_splits
from ccnn_irregular.datasets.samples.protocol import summary

if TYPE_CHECKING:
    from torch_geometric.data import Data

__all__ = ["ShapePool"]

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
        names: what the source calls each shape; () = it numbers them.

    Raises:
        ValueError: shapes or dtypes that disagree, places that are not finite.
    """

    places: Tensor
    splits: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    reach: Tensor
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shape = tuple(self.places.shape)
        require(len(shape) == 2 and shape[1] == 3, "places", "have shape (N, 3)", shape)
        require(self.places.dtype == torch.float32, "places", "be float32", self.places.dtype)
        require_finite("places", self.places)
        require_splits(self.splits, len(self.places))
        for name in ("labels", "reach"):
            rows = tuple(getattr(self, name).shape)
            require(rows == (len(self.splits) - 1,), name, f"have shape ({len(self.splits) - 1},)", rows)
        require(len(self.names) in (0, len(self)), "names", f"be of {len(self)} shapes", len(self.names))

    @staticmethod
    def from_data(clouds: Sequence[Data], classes: Sequence[str], names: Sequence[str] = ()) -> ShapePool:
        """Clouds of torch-geometric: the places are ``pos``, the label is ``y``, an index into ``classes``.

        Raises:
            ValueError: a cloud without ``pos`` of three axes, or with another ``y`` than one of the classes.
        """
        shapes, labels = [], []
        for number, cloud in enumerate(clouds):
            if cloud.pos is None or cloud.pos.ndim != 2 or cloud.pos.shape[1] != 3:
                got = None if cloud.pos is None else tuple(cloud.pos.shape)
                reject(f"pos of cloud {number}", "have shape (N, 3)", got)
            label = -1 if cloud.y is None else int(cloud.y)
            require(0 <= label < len(classes), f"y of cloud {number}", f"lie in 0..{len(classes) - 1}", cloud.y)
            shapes.append(torch.as_tensor(cloud.pos))
            labels.append(label)
        return replace(ShapePool.of(shapes, torch.tensor(labels), tuple(classes)), names=tuple(names))

    @staticmethod
    def joined(pools: Sequence[ShapePool]) -> ShapePool:
        """Pools of the same classes as one."""
        counts = torch.cat([pool.splits.diff() for pool in pools])
        places, labels, reach = (
            torch.cat([getattr(pool, name) for pool in pools]) for name in ("places", "labels", "reach")
        )
        splits = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
        return ShapePool(
            places, splits, labels, pools[0].classes, reach, tuple(n for pool in pools for n in pool.names)
        )

    @staticmethod
    def of(shapes: Sequence[Tensor], labels: Tensor, classes: tuple[str, ...], half_edge: float = 0.0) -> ShapePool:
        """Shapes brought into [-1, 1]^3: the box around each is centred and its longest side reaches from -1 to 1.

        Args:
            shapes: places ``(n, 3)`` on each, none for an empty one.
            labels: int64 ``(B,)``.
            classes: what the labels mean.
            half_edge: half the edge of the voxel that each place stands for, unit of the places.
        """
        splits = np.cumsum([0, *map(len, shapes)])
        places = torch.cat(list(shapes)).double().numpy()
        filled = np.flatnonzero(np.diff(splits))
        scale = np.ones(len(shapes))
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
            labels,
            classes,
            torch.from_numpy((half_edge * scale).astype(np.float32)),
        )

    @property
    def unit(self) -> str:
        """Of the places: the box around each shape reaches from -1 to 1."""
        return "half of the longest side"

    def __len__(self) -> int:
        return len(self.labels)

    def describe(self) -> dict[str, Any]:
        """What they are, as plain values."""
        return summary(self, places=len(self.places), empty=int((self.splits.diff() == 0).sum()))

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
