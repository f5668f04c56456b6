"""Clouds with a label for each point, for training: a tile in discs drawn at random, or whole clouds in batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor
from torch.utils.data import DataLoader

from ccnn_irregular import datasets
from ccnn_irregular._checks import reject, require
from ccnn_irregular.adapters.geometric_weights import CloudSampling, cloud_weights
from ccnn_irregular.datasets.samples import LabelledClouds
from ccnn_irregular.domains import Points
from ccnn_irregular.pipelines.tasks.cloud_classification.data import CloudChanges
from ccnn_irregular.pipelines.train.batches import EqualBatches, drawn_loader, parts_loader
from ccnn_irregular.pipelines.train.data import Evaluated, Part, TaskData
from ccnn_irregular.pipelines.train.draws import Draws
from ccnn_irregular.pipelines.train.sample_keys import ragged_keys, row_keys
from ccnn_irregular.quadrature import covered_volume

__all__ = ["UNLABELLED", "Discs", "LabelBatch", "LabelDataModule", "halves"]

# The label of a point without one, which cross-entropy leaves out.
UNLABELLED = -100

ReadPart = Literal["train", "validation", "test"]
_CALIBRATION_CLOUDS = 8  # that a network is calibrated by, at most


@dataclass(frozen=True)
class LabelBatch:
    """Clouds with a label at each point.

    Attributes:
        values: float32 ``(N, C)``.
        domain: their points, with quadrature weights.
        labels: int64 ``(N,)``, ``UNLABELLED`` where there is none.
        ids: int64 ``(B,)``, what each cloud is known by in an epoch, or None where nothing is drawn for it.
        answered: bool ``(N,)``, the points whose answers count, or None for all.
    """

    values: Tensor
    domain: Points
    labels: Tensor
    ids: Tensor | None = None
    answered: Tensor | None = None

    def __len__(self) -> int:
        """Number of the points that have a label."""
        return int((self.labels != UNLABELLED).sum())

    def to(self, device: torch.device | str, non_blocking: bool = False) -> LabelBatch:
        """The same batch on ``device``."""
        values, labels = (held.to(device, non_blocking=non_blocking) for held in (self.values, self.labels))
        answered = None if self.answered is None else self.answered.to(device, non_blocking=non_blocking)
        return replace(self, values=values, domain=self.domain.to(device), labels=labels, answered=answered)


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


class LabelDataModule(TaskData[LabelBatch, None]):
    """Clouds with labels, in parts.

    Discs, points and changes of training depend on ``seed``, on the epoch and on the number of the disc or the shape
    alone: not on the batch it is in, or on the order of a tile's points in its file.

    Args:
        dataset: name of a registered data set of labelled clouds. "lidar_ground" is one tile, half of which is for the
            test (see ``halves``), as is "simulated_terrain"; "shapenet_part" has official parts.
        root: file of the tile, or folder of the shapes.
        count: points of a simulated tile.
        options: of the data set's loader, see ``ccnn datasets NAME``.
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
        evaluate: see ``TaskData``.
    """

    described = ("dataset", "root", "evaluate", "axis", "reverse", "weights", "validation", "seed", "discs", "changes")

    def __init__(
        self,
        dataset: str,
        root: str | None = None,
        count: int = 6000,
        options: dict[str, Any] | None = None,
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
        evaluate: Evaluated = "test",
    ) -> None:
        super().__init__(evaluate)
        self._known = datasets.get(dataset, LabelledClouds)
        self._known.require_root(root)
        self._known.require_options(options or {})
        require((discs is None) == bool(self._known.split), "discs", "be given for a tile, and for no other", discs)
        require(axis in (0, 1), "axis", "be 0 or 1", axis)
        require(weights in get_args(CloudSampling), "weights", f"be one of {get_args(CloudSampling)}", repr(weights))
        require(0 < validation < 1, "validation", "lie in (0, 1)", validation)
        require(batch_size >= 1, "batch_size", "be at least 1", batch_size)
        require(points is None or points >= 1, "points", "be at least 1", points)
        self.dataset = dataset
        self.options = dict(options or {})
        self.rows_are = "shapes" if self._known.split else "points"
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
        known = self._known
        options = known.in_training(self.options, download=self.download, count=self.count, seed=self.seed)
        if known.split:
            self.parts = {part: known.read(self.root, part, **options) for part in get_args(ReadPart)}
            if self.takes_all(stage):
                self.parts = {"test": LabelledClouds.joined(list(self.parts.values()))}
            self._weights = {part: self._weighed(clouds, 1.0) for part, clouds in self.parts.items()}
            return
        self.tile = known.read(self.root, **options)
        require(len(self.tile) == 1, f"the data set {self.dataset}", "hold one cloud, or published parts", self.tile)
        if self.takes_all(stage):
            self.rows, self.parts = {"test": torch.arange(len(self.tile.values))}, {"test": self.tile}
            self._weights = {"test": self._weighed(self.tile, _area(self.tile, "test"))}
            return
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
        """What is trained on; all, where there is no training part."""
        return next(iter(self.parts.values()))

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.samples.classes

    @property
    def training_clouds(self) -> int:
        """Discs or shapes in an epoch."""
        return len(self.samples) if self.discs is None else self.discs.count

    def keys(self, part: ReadPart) -> NDArray[np.uint64]:
        """A key of the place of each point of a tile, or of all points of each shape, ``(B, 1)``."""
        if part not in self.parts:
            return np.zeros((0, 1), np.uint64)
        clouds = self.parts[part]
        # Coordinates are differences from their mean, whose last digits depend on the order of the points.
        places = clouds.coordinates.numpy().astype(np.float32)
        whole = self.tile is None
        return (ragged_keys(clouds.splits.numpy(), places) if whole else row_keys(places))[:, None]

    def outcomes(self, part: Any, keys: NDArray[np.uint64]) -> NDArray[np.uint64] | None:
        if part not in self.parts:
            return None
        clouds = self.parts[part]
        return row_keys(clouds.coordinates.numpy().astype(np.float32), clouds.labels.numpy())

    def labels(self, part: ReadPart) -> Tensor:
        """The kind of each shape of a part, ``(B,)``."""
        if part not in self.parts:
            return torch.zeros(0, dtype=torch.int64)
        kinds = self.parts[part].kinds
        if kinds is None:
            reject("data.dataset", "be one of shapes to have kinds of them", repr(self.dataset))
        return kinds

    def ids(self, part: Part) -> Sequence[int]:
        return self.rows[part].tolist() if self.rows else range(len(self.parts[part]))

    def sizes(self) -> dict[str, int]:
        return {"classes": len(self.classes), "in_channels": int(self.samples.values.shape[1])}

    def part_sizes(self) -> dict[str, int]:
        return {part: len(clouds if self.tile is None else clouds.values) for part, clouds in self.parts.items()}

    def summary(self) -> str:
        points = ", ".join(f"{len(clouds.values)} {part}" for part, clouds in self.parts.items())
        return f"{self.samples!r}: points {points}"

    def describe(self) -> dict[str, Any]:
        """What was read and how it was split, and the shares of the classes."""
        found: dict[str, dict[str, Any]] = {"clouds": {}, "points": {}, "shares": {}}
        for part, clouds in self.parts.items():
            counts = torch.bincount(clouds.labels, minlength=len(self.classes))
            found["clouds"][part], found["points"][part] = len(clouds), len(clouds.values)
            found["shares"][part] = (counts / len(clouds.labels)).tolist()
        options = [*self.described, *(["options"] if self.options else [])]
        return {name: getattr(self, name) for name in options} | found

    def training_values(self) -> tuple[Tensor, Tensor]:
        """Values of the points that are trained on, and their quadrature weights."""
        return self.samples.values, self._weights["train"]

    def typical_batch(self) -> LabelBatch:
        """Discs or shapes of the training part, as in the first epoch, at most 8."""
        return self.training_batch(torch.arange(min(_CALIBRATION_CLOUDS, self.training_clouds)), 0)

    def loader(self, part: Part, variant: None = None) -> DataLoader[LabelBatch]:
        """A part as it is: a tile, or the part of it, at once, shapes in batches; "train" in discs or shapes drawn."""
        if part == "train":
            batches = EqualBatches(np.arange(self.training_clouds), self.batch_size, self.seed)
            return drawn_loader(self.training_batch, batches)
        if part == "all" and self.tile is not None:
            return parts_loader(lambda *_: self.everything(), {"all": np.arange(1)}, 1)
        parts = self.parts if part == "all" else {part: self.parts[part]}
        numbers = {name: np.arange(len(clouds)) for name, clouds in parts.items()}
        return parts_loader(self.whole, numbers, self.batch_size)

    def whole(self, part: str, index: Tensor) -> LabelBatch:
        """The clouds ``index`` (int64) of a part."""
        rows, splits = self._rows(part, index)
        return self._batch(part, rows, splits, self.parts[part].coordinates[rows])

    def _rows(self, part: str, index: Tensor) -> tuple[Tensor, Tensor]:
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

    def _batch(self, part: str, rows: Tensor, splits: Tensor, coordinates: Tensor) -> LabelBatch:
        clouds, weights = self.parts[part], self._weights[part][rows]
        if self.tile is None:  # shapes weigh 1, those of which only some points were drawn too
            cloud = torch.repeat_interleave(torch.arange(len(splits) - 1), splits.diff())
            weights = weights / weights.new_zeros(len(splits) - 1).index_add(0, cloud, weights)[cloud]
        points = Points(coordinates, weights, splits)
        return LabelBatch(clouds.values[rows], points, clouds.labels[rows])
