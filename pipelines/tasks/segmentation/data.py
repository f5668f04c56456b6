"""Medical volumes for training, each on its own grid: parts, thinned slices, augmentation."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from ccnn_irregular._checks import require
from ccnn_irregular.datasets.decathlon import Pair, Volume, find_pairs, label_codes, read_volume
from ccnn_irregular.datasets.processing.interpolation import NodeMethod
from ccnn_irregular.datasets.processing.moments import mean_and_deviation
from ccnn_irregular.datasets.reading.content import content_id
from ccnn_irregular.domains import Grid
from ccnn_irregular.pipelines.train.batches import EqualBatches, batch_loader
from ccnn_irregular.pipelines.train.data import Evaluated, Part, TaskData
from ccnn_irregular.pipelines.train.draws import Draws
from ccnn_irregular.pipelines.train.groups import parts_by_group, read_groups
from ccnn_irregular.pipelines.train.resampling import covering_grid, onto_grid
from ccnn_irregular.pipelines.train.sample_keys import row_keys

__all__ = [
    "Intensities",
    "Thinning",
    "VolumeAugmentation",
    "VolumeBatch",
    "VolumeDataModule",
    "resampled_batch",
    "standardised",
    "thinned_grid",
    "thinnings",
]

# Every how many slices along x, y and z one is kept.
Thinning = tuple[int, ...]
# What becomes of intensities beyond the percentiles, see ``standardised``.
Intensities = Literal["compressed", "clipped"]

# Percentiles between which a volume is standardised: a few bright vessels or an outlier move neither.
_PERCENTILES = (1.0, 99.0)


@dataclasses.dataclass(frozen=True)
class VolumeBatch:
    """One volume, and where answers are wanted: volumes of unequal sizes come one by one.

    Attributes:
        name: of the file.
        values: float32 ``(1, C, *grid.sizes)``, as stored in the file.
        grid: of the voxels that are given, millimetres.
        query: where labels are wanted.
        labels: int64 ``(1, *query.sizes)``, or None.
    """

    name: str
    values: Tensor
    grid: Grid
    query: Grid
    labels: Tensor | None

    @staticmethod
    def of(volume: Volume, thin: Sequence[int] = (1, 1, 1)) -> VolumeBatch:
        """A volume, or every n-th slice along each axis of it, with its labels there."""
        kept = tuple(slice(None, None, factor) for factor in thin)
        values = volume.values[(slice(None), *kept)][None]
        grid = thinned_grid(volume.grid, thin)
        labels = None if volume.labels is None else volume.labels[kept].long()[None]
        return VolumeBatch(volume.name, values, grid, grid, labels)

    @property
    def ids(self) -> Tensor:
        """What the volume is known by in all epochs, int64 ``(1,)``: its name."""
        return torch.tensor([content_id(self.name)])

    def __len__(self) -> int:
        return 1

    def to(self, device: torch.device | str, non_blocking: bool = False) -> VolumeBatch:
        """The same batch on ``device``; grids have none."""
        labels = None if self.labels is None else self.labels.to(device, non_blocking=non_blocking)
        return dataclasses.replace(self, values=self.values.to(device, non_blocking=non_blocking), labels=labels)


def standardised(values: Tensor, intensities: Intensities = "compressed") -> Tensor:
    """``(C, *sizes)``, each channel minus its mean over its standard deviation, both of values cut to percentiles.

    MR intensities have no unit, and their largest may be artefacts: mean and deviation are those of the values cut to
    the percentiles 1 and 99. Where these are equal, as in a field that is empty but for a small object, the deviation
    is that of all values.

    Args:
        values: ``(C, *sizes)``, finite.
        intensities: "compressed": what lies beyond a percentile by x deviations is put log(1 + x) beyond it, so that
            order and contrast remain: an object of less than a hundredth of the voxels is seen. "clipped": it is put
            on the percentile, as in checkpoints from before this choice; such an object is gone.

    Returns:
        float32 ``(C, *sizes)``; zeros for a constant channel.
    """
    return torch.stack([_standardised_channel(channel, intensities) for channel in values])


def _standardised_channel(channel: Tensor, intensities: Intensities) -> Tensor:
    exact = channel.double()
    low, high = np.percentile(exact.numpy(), _PERCENTILES)
    cut = exact.clamp(float(low), float(high))
    mean, deviation = mean_and_deviation(cut.reshape(-1, 1))
    if intensities == "compressed" and not deviation > 0:
        deviation = mean_and_deviation(exact.reshape(-1, 1))[1]
    if not deviation > 0:
        return torch.zeros_like(channel)
    result = (cut - mean) / deviation
    if intensities == "compressed":
        beyond = (exact - cut) / deviation
        result += beyond.sign() * beyond.abs().log1p()
    return result.to(channel.dtype)


def thinned_grid(grid: Grid, thin: Sequence[int], first: Sequence[int] | None = None) -> Grid:
    """Every n-th node along each axis, from the node ``first`` on (default: the first one)."""
    first = (0,) * grid.d if first is None else first
    sizes = [math.ceil((axis.size - begin) / n) for axis, n, begin in zip(grid.axes, thin, first, strict=True)]
    steps = [axis.step * n for axis, n in zip(grid.axes, thin, strict=True)]
    starts = [axis.start + axis.step * begin for axis, begin in zip(grid.axes, first, strict=True)]
    return Grid(sizes, steps, starts, grid.periodic)


def thinnings(words: Sequence[int | str]) -> list[tuple[int, int, int]]:
    """``["1,1,2", "2,1,1"]`` as factors per axis: every how many slices along x, y and z one is kept.

    Raises:
        ValueError: words that are not three positive integers.
    """
    found = []
    for word in words:
        numbers = str(word).split(",")
        sound = len(numbers) == 3 and all(number.isdecimal() and int(number) > 0 for number in numbers)
        require(sound, "test.thin", "be three positive integers each, such as 1,1,2", repr(word))
        found.append((int(numbers[0]), int(numbers[1]), int(numbers[2])))
    return found


@dataclasses.dataclass(frozen=True)
class VolumeAugmentation:
    """Random changes of a standardised volume in training; answers are wanted where they were.

    Attributes:
        thin: probability that every second slice along one random axis is taken away.
        kept_only: want answers at the slices that were kept alone, and not at all of them.
        resample: bring what stretching and thinning made back to voxels of the size given, values linearly and labels
            by the nearest voxel: what fixed kernels need in place of coordinates.
        stretch: largest relative change of the voxel size along each axis: the same anatomy, larger or smaller.
        contrast: largest relative change of the contrast.
        brightness: largest shift, standard deviations of the volume.
        gamma: largest exponent that bends the scale of intensities, and one over the smallest; 1 = none.
        noise: largest standard deviation of white noise, in those of the volume.
    """

    thin: float = 0.0
    kept_only: bool = False
    resample: bool = False
    stretch: float = 0.0
    contrast: float = 0.0
    brightness: float = 0.0
    gamma: float = 1.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        require(0 <= self.thin <= 1, "thin", "be a probability", self.thin)
        for name in ("stretch", "contrast"):
            require(0 <= getattr(self, name) < 1, name, "lie in [0, 1)", getattr(self, name))
        for name in ("brightness", "noise"):
            require(getattr(self, name) >= 0, name, "not be negative", getattr(self, name))
        require(self.gamma >= 1, "gamma", "be at least 1", self.gamma)

    def __call__(self, batch: VolumeBatch, draws: Draws) -> VolumeBatch:
        """Another batch; ``draws`` are those of its volume."""
        d, steps = batch.grid.d, batch.grid.steps
        (rng,) = draws.generators("augmentation")
        factors = (1 + self.stretch * rng.uniform(-1, 1, d)).tolist()
        thinned, axis, begin = rng.random() < self.thin, int(rng.integers(d)), int(rng.integers(2))
        grid, query = (_stretched(nodes, factors) for nodes in (batch.grid, batch.query))
        batch = dataclasses.replace(batch, values=self._intensities(batch.values, rng), grid=grid, query=query)
        batch = self._thinned(batch, axis, begin) if thinned else batch
        return resampled_batch(batch, steps) if self.resample else batch

    def _thinned(self, batch: VolumeBatch, axis: int, begin: int) -> VolumeBatch:
        """Every second slice along ``axis`` from ``begin`` on, where that leaves more than one."""
        if batch.grid.sizes[axis] < 4:
            return batch
        thin, first = [1] * batch.grid.d, [0] * batch.grid.d
        thin[axis], first[axis] = 2, begin
        kept = (slice(None),) * axis + (slice(begin, None, 2),)
        grid, values = thinned_grid(batch.grid, thin, first), batch.values[(slice(None), slice(None), *kept)]
        batch = dataclasses.replace(batch, values=values, grid=grid)
        if not self.kept_only:
            return batch
        labels = None if batch.labels is None else batch.labels[(slice(None), *kept)]
        return dataclasses.replace(batch, query=grid, labels=labels)

    def _intensities(self, values: Tensor, rng: np.random.Generator) -> Tensor:
        if self.gamma > 1:
            low, high = values.amin(), values.amax()
            span = (high - low).clamp_min(1e-6)
            exponent = self.gamma ** rng.uniform(-1, 1)
            values = ((values - low) / span) ** exponent * span + low
        scale, shift = 1 + self.contrast * rng.uniform(-1, 1), self.brightness * rng.uniform(-1, 1)
        values = values * scale + shift
        level = self.noise * rng.random()
        if not level:
            return values
        noise = torch.from_numpy(rng.standard_normal(values.shape, dtype=np.float32))
        return values + level * noise.to(values)


def resampled_batch(batch: VolumeBatch, steps: Sequence[float], method: NodeMethod = "linear") -> VolumeBatch:
    """The volume on voxels of these steps over all places where answers are wanted; labels of the nearest voxel there.

    Axes that have these steps already keep their voxels.
    """
    grid = covering_grid(batch.query, steps)
    values = onto_grid(batch.values, batch.grid, grid, method)
    labels = batch.labels
    if labels is not None:
        for axis, (old, new) in enumerate(zip(batch.query.axes, grid.axes, strict=True)):
            nearest = ((new.nodes(labels.device) - old.start) / old.step).round().long().clamp(0, old.size - 1)
            labels = labels.index_select(1 + axis, nearest)
    return dataclasses.replace(batch, values=values, grid=grid, query=grid, labels=labels)


def _stretched(grid: Grid, factors: Sequence[float]) -> Grid:
    """The same nodes with the voxels' size times a factor per axis."""
    steps = [step * factor for step, factor in zip(grid.steps, factors, strict=True)]
    starts = [start * factor for start, factor in zip(grid.starts, factors, strict=True)]
    return Grid(grid.sizes, steps, starts, grid.periodic)


class VolumeDataModule(TaskData[VolumeBatch, Thinning]):
    """Volumes with labels, split at random into three parts that depend on ``split_seed`` alone.

    Volumes of one subject are alike: scored on one, a network that was trained on another looks better than it is.
    Files do not say which volumes these are; where you know it, ``groups`` keeps them in one part. Without, each volume
    is drawn by itself, and ``ccnn test`` says so.

    Args:
        root: folder of the pairs: the Medical Segmentation Decathlon's layout, or the folders images and labels.
        classes: what the labels 0, 1, ... mean, the background first; null = as ``dataset.json`` says, or without it
            the labels of all pairs, which then need not follow one another (0, 2, 41).
        validation: share of all volumes that chooses the best epoch.
        test: share of all volumes held out for the test.
        groups: CSV file with the columns name (of a volume, without suffix) and group (its subject): the volumes of one
            group are in one part, so that parts may be larger than their shares by a group. null = not known.
        split_seed: seed of the split and of the order of the volumes.
        in_memory: read all volumes once at the start; else each whenever it is needed.
        evaluate: what test and predict look at: the part kept for the "test", or "all" of the source.
    """

    rows_are = "volumes"
    told = ("in_channels", "classes", "steps")
    described = ("root", "classes", "evaluate", "validation", "test", "split_seed", "groups")

    def __init__(
        self,
        root: str,
        classes: list[str] | None = None,
        validation: float = 0.08,
        test: float = 0.2,
        split_seed: int = 0,
        groups: str | None = None,
        in_memory: bool = True,
        evaluate: Evaluated = "test",
    ) -> None:
        super().__init__(evaluate)
        for name, share in (("validation", validation), ("test", test)):
            require(0 < share < 1, name, "lie in (0, 1)", share)
        require(validation + test < 1, "validation + test", "be below 1", validation + test)
        require(classes is None or len(classes) >= 2, "classes", "name the background and one label at least", classes)
        self.root = root
        self.classes: tuple[str, ...] = () if classes is None else tuple(classes)
        self.codes: Sequence[int] = range(len(self.classes))
        self._counts: dict[int, int] = {}
        self.validation = validation
        self.test = test
        self.split_seed = split_seed
        self.groups = groups
        self.in_memory = in_memory
        self._pairs: tuple[Pair, ...] = ()
        self._volumes: list[Volume] = []
        self._parts: dict[str, NDArray[np.int64]] = {}
        self._groups = 0

    def setup(self, stage: str) -> None:
        """Find the pairs, split, and read them.

        Raises:
            ValueError, FileNotFoundError: from ``find_pairs`` and ``read_volume``, with the file at fault.
        """
        if self._pairs:
            return
        task = find_pairs(self.root)
        stated = not task.classes or len(self.classes) in (0, len(task.classes))
        require(stated, "classes", f"be as many as dataset.json has: {task.classes}", self.classes)
        self._pairs = task.pairs
        if not self.classes:
            self._name_classes(task.classes)
        self._parts = self._divided(self.takes_all(stage))
        if self.in_memory:
            self._volumes = [read_volume(pair, self.codes) for pair in self._pairs]

    def _name_classes(self, named: tuple[str, ...]) -> None:
        """Take the classes that ``dataset.json`` names, or the labels that there are."""
        if named:
            self.classes, self.codes = named, range(len(named))
            return
        self._counts = label_codes(pair.labels for pair in self._pairs)
        rule = "hold two labels or more, the background 0 among them (or data.classes name them)"
        require(len(self._counts) >= 2 and 0 in self._counts, f"{self.root}/labels", rule, list(self._counts))
        self.codes = tuple(self._counts)
        self.classes = ("background", *(f"label {code}" for code in self.codes[1:]))

    def state_dict(self) -> dict[str, Any]:
        """Names of the classes, and what stands for them in label files, for the checkpoint."""
        return {"classes": list(self.classes), "codes": list(self.codes)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Read labels as those of the training were."""
        self.classes, self.codes = tuple(state["classes"]), tuple(state["codes"])

    def _divided(self, everything: bool) -> dict[str, NDArray[np.int64]]:
        """Numbers of the volumes of each part."""
        count = len(self._pairs)
        names = [pair.name for pair in self._pairs]
        groups = names if self.groups is None or everything else read_groups(self.groups, names)
        self._groups = len(set(groups))
        if everything:
            none = np.empty(0, np.int64)
            return {"test": np.arange(count), "validation": none, "train": none}
        held, watched = round(self.test * count), round(self.validation * count)
        sizes = {"test": held, "validation": watched, "train": count - held - watched}
        require(min(sizes.values()) >= 1, "validation and test", "leave a volume to each part", sizes)
        tested, watched_ones, rest = parts_by_group(groups, (held, watched), self.split_seed)
        parts = {"test": tested, "validation": watched_ones, "train": rest}
        rule = "leave volumes to each part (smaller shares, or smaller groups)"
        sizes = {part: len(numbers) for part, numbers in parts.items()}
        require(min(sizes.values()) >= 1, "groups", rule, f"{len(set(groups))} groups in parts of {sizes}")
        return parts

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """All pairs by name; empty before ``setup``."""
        return self._pairs

    def volume(self, index: int) -> Volume:
        """A volume by its number."""
        require(bool(self._pairs), "the data module", "be set up before its volumes are asked for", "no volumes yet")
        return self._volumes[index] if self._volumes else read_volume(self._pairs[index], self.codes)

    def part(self, part: Part) -> list[int]:
        """Numbers of the volumes of a part."""
        return list(range(len(self._pairs))) if part == "all" else self._parts[part].tolist()

    def ids(self, part: Part) -> list[str]:
        return [self._pairs[number].name for number in self.part(part)]

    def keys(self, part: Part) -> NDArray[np.uint64]:
        """A key of the image of each volume, ``(B, 1)``: whatever its file is called, and however it is oriented."""
        volumes = (self.volume(number) for number in self.part(part))
        return np.array([row_keys(volume.values[None].numpy()) for volume in volumes], np.uint64).reshape(-1, 1)

    def training_steps(self) -> tuple[float, ...]:
        """Median step of the training volumes along each axis, millimetres."""
        steps = [self.volume(number).grid.steps for number in self.part("train")]
        return tuple(float(step) for step in np.median(steps, axis=0))

    def sizes(self) -> dict[str, int]:
        return {"classes": len(self.classes), "in_channels": int(self.volume(0).values.shape[0])}

    def inferred(self) -> dict[str, Any]:
        return {**self.sizes(), "steps": [round(step, 3) for step in self.training_steps()]}

    def part_sizes(self) -> dict[str, int]:
        return {part: len(numbers) for part, numbers in self._parts.items()}

    def summary(self) -> str:
        told = f"{self.root}: {', '.join(f'{size} {name}' for name, size in self.part_sizes().items())} volumes"
        named = dict(zip(self.classes, self._counts.values(), strict=False))
        found = ", ".join(f"{name} in {count}" for name, count in named.items())
        return f"{told}\nclasses, as the labels tell: {found} volumes (--data.classes names them)" if found else told

    def describe(self) -> dict[str, Any]:
        """What was read and how it was split, with the names of the volumes that are not trained on."""
        parts: tuple[Part, ...] = ("validation", "test")
        names = {part: self.ids(part) for part in parts}
        split = "volume: which ones are of one subject is not known" if self.groups is None else "group"
        return super().describe() | {"names": names, "split by": split, "number of groups": self._groups}

    def typical_batch(self) -> VolumeBatch:
        """The first training volume."""
        return VolumeBatch.of(self.volume(self.part("train")[0]))

    def loader(self, part: Part, variant: Thinning | None = None) -> DataLoader[VolumeBatch]:
        """The volumes of a part one by one, or every n-th slice of them along each axis."""
        batches = EqualBatches(np.array(self.part(part), np.int64), 1, self.split_seed if part == "train" else None)
        thin = variant or (1, 1, 1)
        return batch_loader(lambda indices: VolumeBatch.of(self.volume(int(indices[0])), thin), batches)
