"""Labelled shapes as point clouds: how many points, drawn how densely, and weighed how, in training and in tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from ccnn_irregular import datasets
from ccnn_irregular._checks import require
from ccnn_irregular.adapters.geometric_weights import CloudSampling, cloud_weights
from ccnn_irregular.datasets.samples import ShapePool
from ccnn_irregular.domains import Points
from ccnn_irregular.pipelines.tasks.classification.content import carved, labelled_as
from ccnn_irregular.pipelines.tasks.classification.data import SampleBatch
from ccnn_irregular.pipelines.train.batches import EqualBatches, drawn_loader, parts_loader
from ccnn_irregular.pipelines.train.data import Evaluated, Part, TaskData
from ccnn_irregular.pipelines.train.draws import Draws
from ccnn_irregular.pipelines.train.equal_samples import split_together
from ccnn_irregular.pipelines.train.sample_keys import ragged_keys, row_keys

__all__ = ["CloudChanges", "DrawnClouds", "ShapeDataModule"]

_Read = Literal["train", "validation", "test"]
_CALIBRATION_SHAPES = 32  # that a network is calibrated by, at most


@dataclass(frozen=True)
class DrawnClouds:
    """How points are drawn from the shapes of the test part.

    Attributes:
        points: of each shape.
        gradient: logarithm of the factor by which the density falls from one side of a shape to the other along the
            first axis: each point drawn is kept with probability exp(-gradient t), t from 0 to 1. 0 = all are kept.
        weights: quadrature weights, see ``cloud_weights``; "even" = none.
    """

    points: int
    gradient: float = 0.0
    weights: CloudSampling = "surface"

    def __str__(self) -> str:
        return f"{self.points} points" + (f", density falls by e^{self.gradient:g}" if self.gradient else "")


@dataclass
class CloudChanges:
    """What happens to a cloud in training.

    Attributes:
        fewest: least number of points; each cloud has a random number, log-uniform up to that of the tests.
        turn: largest angle about the third axis, degrees; 180 = any.
        quarter_turns: turn by a random multiple of 90 degrees besides.
        mirror: mirror half of the clouds along the first axis.
        scale: each axis is scaled by a factor of its own within 1 +- scale.
        shift: each cloud is moved by up to this much along each axis.
        noise: standard deviation of noise on all positions.
        gradient: largest ``DrawnClouds.gradient``, along a random horizontal direction; each cloud has its own.
    """

    fewest: int | None = None
    turn: float = 0.0
    quarter_turns: bool = False
    mirror: bool = False
    scale: float = 0.0
    shift: float = 0.0
    noise: float = 0.0
    gradient: float = 0.0

    def __post_init__(self) -> None:
        require(self.fewest is None or self.fewest >= 1, "changes.fewest", "be at least 1", self.fewest)
        require(0 <= self.turn <= 180, "changes.turn", "lie in [0, 180]", self.turn)
        require(0 <= self.scale < 1, "changes.scale", "lie in [0, 1)", self.scale)
        for name in ("shift", "noise", "gradient"):
            require(getattr(self, name) >= 0, f"changes.{name}", "not be negative", getattr(self, name))

    def moved(self, positions: NDArray[np.float64], counts: NDArray[np.int64], draws: Draws) -> NDArray[np.float64]:
        """The points of all clouds, ``counts`` of each, every cloud moved in its own way."""
        angle = np.deg2rad(self.turn) * (2 * draws.uniform("turn") - 1)
        if self.quarter_turns:
            angle += np.pi / 2 * np.floor(4 * draws.uniform("quarter turns"))
        factor = 1 + self.scale * (2 * draws.uniform("scale", width=3) - 1)
        if self.mirror:
            factor[:, 0] *= np.where(draws.uniform("mirror") < 0.5, -1.0, 1.0)
        shift = self.shift * (2 * draws.uniform("shift", width=3) - 1)
        cloud = np.repeat(np.arange(len(counts)), counts)
        cos, sin = np.cos(angle)[cloud], np.sin(angle)[cloud]
        x, y, z = (positions * factor[cloud]).T
        turned = np.stack([cos * x - sin * y, sin * x + cos * y, z], axis=1) + shift[cloud]
        if self.noise:
            turned += self.noise * draws.normal("noise", counts, width=3)
        return turned


class ShapeDataModule(TaskData[SampleBatch, DrawnClouds]):
    """Shapes of ModelNet (official test part), or simulated ones, as clouds that are drawn anew for every batch.

    Values are the constant 1: what is known of a shape is where it is. The points of a shape depend on ``seed``, on the
    part, on the shape and, in training, on the epoch alone: not on the batch it is in.

    Args:
        dataset: name of a registered data set of shapes: "modelnet10", "modelnet40" (see ``modelnet.load_pool``), or
            "simulated_solids", which needs no root.
        root: folder of the official files.
        count: shapes of a simulated data set.
        options: of the data set's loader, see ``ccnn datasets NAME``.
        points: of each shape in validation and tests, and most in training.
        weights: quadrature weights of the points drawn: "surface", "volume" or "even", see ``cloud_weights``.
        places: points drawn of each mesh, from which all others are drawn.
        changes: of training clouds.
        validation: share of the training part that chooses the best epoch; equal shapes stay together, here as in
            the test part where there is no official one.
        test: share of all shapes, where there is no official test part.
        seed: of the split, the order of the batches and the points.
        batch_size: shapes a step.
        download: fetch official meshes where they are missing.
        evaluate: see ``TaskData``.
    """

    rows_are = "shapes"
    told = ("in_channels", "classes")
    described = ("dataset", "root", "evaluate", "points", "weights", "validation", "seed", "changes")

    def __init__(
        self,
        dataset: str,
        root: str | None = None,
        count: int = 300,
        options: dict[str, Any] | None = None,
        points: int = 1024,
        weights: CloudSampling = "surface",
        places: int = 4096,
        changes: CloudChanges | None = None,
        validation: float = 0.1,
        test: float = 0.2,
        seed: int = 0,
        batch_size: int = 32,
        download: bool = False,
        evaluate: Evaluated = "test",
    ) -> None:
        super().__init__(evaluate)
        self._known = datasets.get(dataset, ShapePool)
        self._known.require_root(root)
        self._known.require_options(options or {})
        require(points >= 1, "points", "be at least 1", points)
        require(weights in get_args(CloudSampling), "weights", f"be one of {get_args(CloudSampling)}", repr(weights))
        require(batch_size >= 1, "batch_size", "be at least 1", batch_size)
        for name, share in (("validation", validation), ("test", test)):
            require(0 < share < 1, name, "lie in (0, 1)", share)
        self.changes = CloudChanges() if changes is None else changes
        fewest = self.changes.fewest
        require(fewest is None or fewest <= points, "changes.fewest", f"be at most points, {points}", fewest)
        self.dataset = dataset
        self.options = dict(options or {})
        self.root = root
        self.count = count
        self.points = points
        self.weights: CloudSampling = weights
        self.places = places
        self.validation = validation
        self.test = test
        self.seed = seed
        self.batch_size = batch_size
        self.download = download
        self._pools: dict[str, ShapePool] = {}
        self._parts: dict[str, NDArray[np.int64]] = {}

    def setup(self, stage: str) -> None:
        """Read the files once and split.

        Raises:
            ValueError, FileNotFoundError: from the reader, with the file at fault.
        """
        if self._pools:
            return
        known = self._known
        labelled = self.needs_labels(stage)
        defaults = {"count": self.count, "places": self.places, "seed": self.seed, "labelled": labelled}
        options = known.in_training(self.options, download=self.download, **defaults)
        if self.takes_all(stage):
            pool = ShapePool.joined([known.read(self.root, part, **options) for part in known.split or (None,)])
            pool = pool if self.trained_classes is None else labelled_as(pool, self.trained_classes)
            everything = np.arange(len(pool))
            self._pools = dict.fromkeys(get_args(_Read), pool)
            self._parts = {"train": everything[:0], "validation": everything[:0], "test": everything}
            return
        if known.split:
            train, held = (known.read(self.root, part, **options) for part in ("train", "test"))
            rest, aside = torch.arange(len(train)), torch.arange(len(held))
        else:
            train = held = known.read(self.root, **options)
            rest, aside = self._carved(train, torch.arange(len(train)), self.test)
        learned, watched = self._carved(train, rest, self.validation)
        self._pools = {"train": train, "validation": train, "test": held}
        parts = {"train": learned, "validation": watched, "test": aside}
        self._parts = {part: index.numpy() for part, index in parts.items()}

    def _carved(self, pool: ShapePool, index: Tensor, share: float) -> tuple[Tensor, Tensor]:
        """The shapes ``index`` without a share set aside, and that share; equal shapes stay together."""
        keys = _shape_keys(pool)[index.numpy()]
        kept, aside = split_together(keys, pool.labels[index], lambda labels: carved(labels, share, self.seed))
        return index[kept], index[aside]

    @property
    def samples(self) -> ShapePool:
        """The shapes that are trained on and validated with."""
        return self._pools["train"]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.samples.classes

    def keys(self, part: str) -> NDArray[np.uint64]:
        """A key of the places of each shape, in any order, ``(B, 1)``; labels are no part of it."""
        return _shape_keys(self._pools[part])[self._parts[part], None]

    def ids(self, part: Part) -> Sequence[int | str]:
        numbers = self._parts[part].tolist()
        names = self._pools[part].names
        return [names[number] for number in numbers] if names else numbers

    def inferred(self) -> dict[str, Any]:
        return self.sizes()

    def outcomes(self, part: Any, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
        return row_keys(keys, self.labels(part).numpy())

    def labels(self, part: str) -> Tensor:
        """Labels of a part, ``(B,)``."""
        return self._pools[part].labels[self._parts[part]]

    def sizes(self) -> dict[str, int]:
        return {"classes": len(self.classes), "in_channels": 1}

    def part_sizes(self) -> dict[str, int]:
        return {part: len(index) for part, index in self._parts.items()}

    def summary(self) -> str:
        return f"{self.samples!r}: {', '.join(f'{size} {name}' for name, size in self.part_sizes().items())}"

    def describe(self) -> dict[str, Any]:
        """What was read and how it was split, and how many shapes of each part are empty."""
        told = super().describe()
        told["samples"] = told.pop(self.rows_are)
        empty = {part: int((pool.splits.diff() == 0)[self._parts[part]].sum()) for part, pool in self._pools.items()}
        return told | {"without any point": empty} | ({"options": self.options} if self.options else {})

    def typical_batch(self, count: int = _CALIBRATION_SHAPES) -> SampleBatch:
        """A batch of ``count`` shapes of the training part, as in the first epoch."""
        index = self._parts["train"]
        spread = np.linspace(0, len(index) - 1, min(len(index), count)).round().astype(np.int64)
        return self.training_batch(torch.from_numpy(index[spread]), 0)

    @property
    def as_trained(self) -> DrawnClouds:
        """How clouds are drawn as in training: their number of points and their weights."""
        return DrawnClouds(self.points, weights=self.weights)

    def loader(self, part: Part, variant: DrawnClouds | None = None) -> DataLoader[SampleBatch]:
        """A part in batches, the same points in every epoch; those of "train" are drawn and changed anew in each.

        Raises:
            ValueError: points of the training part are asked for otherwise.
        """
        if part == "train":
            require(variant is None, "variant", "be left out for the training part", variant)
            return drawn_loader(self.training_batch, EqualBatches(self._parts["train"], self.batch_size, self.seed))
        names = self._parts if part == "all" else (part,)
        drawn = variant or self.as_trained
        parts = {name: self._parts[name] for name in names}
        return parts_loader(lambda name, index: self.drawn_batch(name, index, drawn), parts, self.batch_size)

    def drawn_batch(self, part: str, index: Tensor, drawn: DrawnClouds) -> SampleBatch:
        """The shapes ``index`` of a part's pool, drawn as asked: the same points in every call."""
        pool, shapes = self._pools[part], index.numpy()
        # What a cloud of a file is answered does not depend on the files beside it.
        known_by = index if not pool.names else torch.from_numpy(_shape_keys(pool).view(np.int64))[index]
        draws = Draws(self.seed, 0, known_by)
        positions, counts = _drawn(pool, shapes, np.full(len(shapes), drawn.points), draws, part)
        slope = np.tile([drawn.gradient, 0.0], (len(shapes), 1))
        positions, counts = _thinned(positions, counts, slope, draws)
        return self._batch(positions, counts, pool.labels[index], drawn.weights)

    def training_batch(self, index: Tensor, epoch: int) -> SampleBatch:
        """The shapes ``index`` of the training pool, drawn and changed at random, anew in every epoch."""
        draws, shapes, changes = Draws(self.seed, epoch, index), index.numpy(), self.changes
        low, high = np.log(changes.fewest or self.points), np.log(self.points + 0.5)
        wanted = np.exp(low + (high - low) * draws.uniform("points")).astype(np.int64)
        positions, counts = _drawn(self.samples, shapes, wanted, draws, "train")
        positions = changes.moved(positions, counts, draws)
        angle, steepness = 2 * np.pi * draws.uniform("slope"), changes.gradient * draws.uniform("gradient")
        slope = steepness[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
        positions, counts = _thinned(positions, counts, slope, draws)
        return self._batch(positions, counts, self.samples.labels[index], self.weights)

    def _batch(
        self, positions: NDArray[np.float64], counts: NDArray[np.int64], labels: Tensor, weights: CloudSampling
    ) -> SampleBatch:
        coordinates = torch.from_numpy(positions)
        splits = torch.from_numpy(np.concatenate([[0], np.cumsum(counts)]))
        even = Points(coordinates, torch.ones(len(coordinates), dtype=torch.float64), splits)
        points = Points(coordinates, cloud_weights(even, weights), splits)
        return SampleBatch(torch.ones(points.count, 1), points, labels)


def _shape_keys(pool: ShapePool) -> NDArray[np.uint64]:
    return ragged_keys(pool.splits.numpy(), pool.places.numpy())


def _drawn(
    pool: ShapePool, shapes: NDArray[np.int64], counts: NDArray[np.int64], draws: Draws, part: str
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Positions ``(N, 3)`` of ``counts`` points of each of the shapes, none of an empty one, and how many those are."""
    counts = pool.drawable(shapes, counts)
    place, within = draws.uniform(f"{part} place", counts), draws.uniform(f"{part} voxel", counts, width=3)
    return pool.draw(shapes, counts, place, within), counts


def _thinned(
    positions: NDArray[np.float64], counts: NDArray[np.int64], slope: NDArray[np.float64], draws: Draws
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Points kept with probability exp(-|slope| t), t from 0 to 1 across each cloud along the horizontal ``slope``.

    Args:
        positions: ``(N, 3)``.
        counts: points of each of the B clouds; one of each cloud at least is kept.
        slope: ``(B, 2)``.
    """
    if not slope.any():
        return positions, counts
    cloud = np.repeat(np.arange(len(counts)), counts)
    filled = np.flatnonzero(counts)
    starts = (np.cumsum(counts) - counts)[filled]
    height = (positions[:, :2] * slope[cloud]).sum(1)
    low, span = np.zeros(len(counts)), np.ones(len(counts))
    low[filled] = np.minimum.reduceat(height, starts)
    span[filled] = np.maximum.reduceat(height, starts) - low[filled]
    size = np.linalg.norm(slope, axis=1)
    share = np.exp(-size[cloud] * (height - low[cloud]) / np.maximum(span, 1e-12)[cloud])
    kept = draws.uniform("thinning", counts) < share
    kept[starts] = True
    return positions[kept], np.bincount(cloud[kept], minlength=len(counts))
