"""Clouds with a label for each point, for training: a tile in discs drawn at random, or whole clouds in batches."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor
from torch.utils.data import DataLoader

from ccnn_irregular._checks import reject, require
from ccnn_irregular.adapters.geometric_weights import CloudSampling, cloud_weights
from ccnn_irregular.datasets import lidar_ground, shapenet_parts
from ccnn_irregular.datasets.samples import LabelledClouds
from ccnn_irregular.datasets.simulated_terrain import terrain
from ccnn_irregular.domains import Points
from ccnn_irregular.pipelines.tasks.cloud_classification.data import CloudChanges
from ccnn_irregular.pipelines.train.batches import EqualBatches, batch_loader, drawn_loader
from ccnn_irregular.pipelines.train.draws import Draws
from ccnn_irregular.pipelines.train.sample_keys import ragged_keys, row_keys
from ccnn_irregular.quadrature import covered_volume

__all__ = ["Discs", "LabelBatch", "LabelDataModule", "halves"]

LabelledSet = Literal["lidar_ground", "shapenet_part", "terrain"]
Part = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class LabelBatch:
    """Clouds with a label at each point.

    Attributes:
        values: float32 ``(N, C)``.
        domain: their points, with quadrature weights.
        labels: int64 ``(N,)``.
        ids: int64 ``(B,)``, what each cloud is known by in an epoch, or None where nothing is drawn for it.
    """

    values: Tensor
    domain: Points
    labels: Tensor
    ids: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> LabelBatch:
        """The same batch on ``device``."""
        values, labels = (one.to(device, non_blocking=non_blocking) for one in (self.values, self.labels))
        return replace(self, values=values, domain=self.domain.to(device), labels=labels)


@dataclass
class Discs:
    """How a tile is read in training: in discs about random points of it, each a cloud of its own.

    Attributes:
        radius: horizontal, unit of the coordinates.
        count: in an epoch.
    """

    radius: float
    count: int

    def __post_init__(self) -> None:
        require(self.radius > 0, "discs.radius", "be positive", self.radius)
        require(self.count >= 1, "discs.count", "be at least 1", self.count)


def halves(positions: Tensor, axis: int, validation: float) -> dict[str, Tensor]:
    """Rows of a tile in parts: below the median along an axis for training, above it for the test.

    Of the lower half the share ``validation`` that is farthest from the test half chooses the best epoch.
    """
    along = positions[:, axis]
    middle = along.median()
    end = along[along < middle].quantile(validation) if bool((along < middle).any()) else middle
    parts = {
        "train": (along < middle) & (along >= end),
        "validation": (along < middle) & (along < end),
        "test": along >= middle,
    }
    return {part: torch.nonzero(chosen).flatten() for part, chosen in parts.items()}


def _area(tile: LabelledClouds, part: str) -> float:
    """Area that the points of a tile cover, seen from above."""
    area = float(covered_volume(tile.coordinates[:, :2]))
    require(area > 0, "data", f"hold points that cover an area in the {part} part", f"{len(tile.values)} points")
    return area


class LabelDataModule(LightningDataModule):
    """Clouds with labels, in parts.

    Discs, points and changes of training depend on ``seed``, on the epoch and on the number of the disc or the shape
    alone: not on the batch it is in, or on the order of a tile's points in its file.

    Args:
        dataset: "lidar_ground": one tile, half of which is for the test (see ``halves``); "shapenet_part": official
            parts; "terrain": a simulated tile, split as the other one.
        root: file of the tile, or folder of the shapes.
        count: points of "terrain".
        axis: along which a tile is halved.
        reverse: train on the upper half and test on the lower one.
        discs: how a tile is read in training.
        weights: quadrature weights, see ``cloud_weights``. The weights of a tile sum to the area that its points cover
            from above, see ``covered_volume``, so that discs, halves and whole tiles, however they are turned, meet
            the same kernels; those of a shape sum to 1.
        points: of each shape in training, drawn at random without repetition; null = all. Tests read all.
        changes: of training clouds.
        validation: share of the training half of a tile that chooses the best epoch; shapes have an official part.
        seed: of all random choices.
        batch_size: discs or shapes a step.
        download: fetch official files where they are missing.
    """

    def __init__(
        self,
        dataset: LabelledSet,
        root: str | None = None,
        count: int = 6000,
        axis: int = 1,
        reverse: bool = False,
        discs: Discs | None = None,
        weights: CloudSampling = "surface",
        points: int | None = None,
        changes: CloudChanges | None = None,
        validation: float = 0.15,
        seed: int = 0,
        batch_size: int = 8,
        download: bool = False,
    ) -> None:
        super().__init__()
        require(dataset in get_args(LabelledSet), "dataset", f"be one of {get_args(LabelledSet)}", repr(dataset))
        require(root is not None or dataset == "terrain", "root", "be given (--data.root)", root)
        require(
            (discs is None) == (dataset == "shapenet_part"), "discs", "be given for a tile, and for no other", discs
        )
        require(axis in (0, 1), "axis", "be 0 or 1", axis)
        require(weights in get_args(CloudSampling), "weights", f"be one of {get_args(CloudSampling)}", repr(weights))
        require(0 < validation < 1, "validation", "lie in (0, 1)", validation)
        require(batch_size >= 1, "batch_size", "be at least 1", batch_size)
        require(points is None or points >= 1, "points", "be at least 1", points)
        self.dataset: LabelledSet = dataset
        self.root = root
        self.count = count
        self.axis = axis
        self.reverse = reverse
        self.discs = discs
        self.weights: CloudSampling = weights
        self.points = points
        self.changes = CloudChanges() if changes is None else changes
        self.validation = validation
        self.seed = seed
        self.batch_size = batch_size
        self.download = download
        self.parts: dict[str, LabelledClouds] = {}
        self.tile: LabelledClouds | None = None
        self.rows: dict[str, Tensor] = {}
        self._weights: dict[str, Tensor] = {}
        self._tree: cKDTree | None = None

    def setup(self, stage: str) -> None:
        """Read the files once and split.

        Raises:
            ValueError, FileNotFoundError: from the reader, with the file at fault.
        """
        if self.parts:
            return
        if self.dataset == "shapenet_part":
            assert self.root is not None
            for part in get_args(Part):
                self.parts[part] = shapenet_parts.load(self.root, part, download=self.download)
                self._weights[part] = self._weighed(self.parts[part], 1.0)
            return
        self.tile = terrain(self.count, seed=self.seed) if self.root is None else lidar_ground.load(self.root)
        positions = -self.tile.coordinates if self.reverse else self.tile.coordinates
        self.rows = halves(positions, self.axis, self.validation)
        for part, rows in self.rows.items():
            cut = self.tile.rows(rows, torch.tensor([0, len(rows)]))
            self.parts[part] = cut
            self._weights[part] = self._weighed(cut, _area(cut, part))
        places = self.parts["train"].coordinates.numpy()
        # Points are counted by their places, not by their rows in the file, whose order must not matter.
        self._by_place = np.lexsort(places.T)
        self._tree = cKDTree(places[self._by_place, :2])

    def _weighed(self, clouds: LabelledClouds, total: float) -> Tensor:
        even = torch.ones(len(clouds.values), dtype=torch.float64)
        return cloud_weights(Points(clouds.coordinates, even, clouds.splits), self.weights, total=total)

    @property
    def samples(self) -> LabelledClouds:
        """What is trained on."""
        return self.parts["train"]

    @property
    def training_weights(self) -> Tensor:
        """Quadrature weights of the points that are trained on, float64 ``(N,)``."""
        return self._weights["train"]

    @property
    def classes(self) -> tuple[str, ...]:
        return self.samples.classes

    @property
    def channels(self) -> int:
        """Channels of the values."""
        return int(self.samples.values.shape[1])

    @property
    def training_clouds(self) -> int:
        """Discs or shapes in an epoch."""
        return len(self.samples) if self.discs is None else self.discs.count

    @property
    def rows_are(self) -> str:
        return "shapes" if self.tile is None else "points"

    def keys(self, part: Part) -> NDArray[np.uint64]:
        """A key of the place of each point of a tile, or of all points of each shape, ``(B, 1)``."""
        clouds = self.parts[part]
        # Coordinates are differences from their mean, whose last digits depend on the order of the points.
        places = clouds.coordinates.numpy().astype(np.float32)
        whole = self.tile is None
        return (ragged_keys(clouds.splits.numpy(), places) if whole else row_keys(places))[:, None]

    def labels(self, part: Part) -> Tensor:
        """The kind of each shape of a part, ``(B,)``."""
        kinds = self.parts[part].kinds
        if kinds is None:
            reject("data.dataset", "be one of shapes to have kinds of them", repr(self.dataset))
        return kinds

    def description(self) -> dict[str, Any]:
        """What was read and how it was split, for the JSON."""
        options = ("dataset", "root", "axis", "reverse", "weights", "validation", "seed")
        return {name: getattr(self, name) for name in options} | {
            "discs": None if self.discs is None else asdict(self.discs),
            "changes": asdict(self.changes),
            "clouds": {part: len(clouds) for part, clouds in self.parts.items()},
            "points": {part: len(clouds.values) for part, clouds in self.parts.items()},
            "shares": {
                part: (torch.bincount(clouds.labels, minlength=len(self.classes)) / len(clouds.labels)).tolist()
                for part, clouds in self.parts.items()
            },
        }

    def train_dataloader(self) -> DataLoader[LabelBatch]:
        batches = EqualBatches(np.arange(self.training_clouds), self.batch_size, self.seed)
        return drawn_loader(self.training_batch, batches)

    def val_dataloader(self) -> DataLoader[LabelBatch]:
        return self.part_loader("validation")

    def part_loader(self, part: Part) -> DataLoader[LabelBatch]:
        """All of a part, as it is: a tile at once, shapes in batches."""
        batches = EqualBatches(np.arange(len(self.parts[part])), self.batch_size, None)
        return batch_loader(lambda index: self.whole(part, index), batches)

    def whole(self, part: Part, index: Tensor) -> LabelBatch:
        """The clouds ``index`` (int64) of a part."""
        rows, splits = self._rows(part, index)
        return self._batch(part, rows, splits, self.parts[part].coordinates[rows])

    def _rows(self, part: Part, index: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of the clouds ``index`` of a part, laid end to end, and where each cloud ends."""
        clouds = self.parts[part]
        lengths = clouds.splits.diff()[index]
        splits = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
        return torch.repeat_interleave(clouds.splits[index] - splits[:-1], lengths) + torch.arange(
            int(splits[-1])
        ), splits

    def everything(self) -> LabelBatch:
        """The whole tile in one batch."""
        assert self.tile is not None
        weights = self._weighed(self.tile, _area(self.tile, "whole tile"))
        return LabelBatch(self.tile.values, Points(self.tile.coordinates, weights, self.tile.splits), self.tile.labels)

    def training_batch(self, index: Tensor, epoch: int) -> LabelBatch:
        """Discs or shapes of the training part by their number, changed at random, anew in every epoch."""
        draws, clouds = Draws(self.seed, epoch, index), self.samples
        if self.discs is None:
            rows, splits = self._some(index, draws)
        else:
            assert self._tree is not None
            middles = np.floor(draws.uniform("discs") * self._tree.n).astype(np.int64)
            near = self._tree.query_ball_point(self._tree.data[middles], self.discs.radius, return_sorted=True)
            rows = torch.from_numpy(self._by_place[np.concatenate(near)])
            splits = torch.tensor([0, *map(len, near)]).cumsum(0)
        positions = self.changes.moved(clouds.coordinates[rows].numpy(), splits.diff().numpy(), draws)
        return replace(self._batch("train", rows, splits, torch.from_numpy(positions)), ids=index)

    def _some(self, index: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Rows of the shapes, in their order, at most ``points`` of each, and where each shape ends."""
        rows, splits = self._rows("train", index)
        if self.points is None:
            return rows, splits
        lengths = splits.diff().numpy()
        cloud = np.repeat(np.arange(len(lengths)), lengths)
        order = np.lexsort((draws.uniform("points", lengths), cloud))
        rank = np.arange(len(order)) - splits.numpy()[cloud]
        kept = np.sort(order[rank < self.points])
        return rows[kept], torch.nn.functional.pad(splits.diff().clamp(max=self.points).cumsum(0), (1, 0))

    def _batch(self, part: Part, rows: Tensor, splits: Tensor, coordinates: Tensor) -> LabelBatch:
        clouds, weights = self.parts[part], self._weights[part][rows]
        if self.tile is None:  # shapes weigh 1, those of which only some points were drawn too
            cloud = torch.repeat_interleave(torch.arange(len(splits) - 1), splits.diff())
            weights = weights / weights.new_zeros(len(splits) - 1).index_add(0, cloud, weights)[cloud]
        points = Points(coordinates, weights, splits)
        return LabelBatch(clouds.values[rows], points, clouds.labels[rows])
