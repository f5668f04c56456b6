"""Medical volumes for training, each on its own grid, in parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from ccnn_irregular._checks import require
from ccnn_irregular.datasets.decathlon import Pair, Volume, find_pairs, label_codes, read_volume
from ccnn_irregular.datasets.reading.files import read_each
from ccnn_irregular.pipelines.tasks.segmentation.batch import Thinning, VolumeBatch
from ccnn_irregular.pipelines.train.batches import EqualBatches, batch_loader
from ccnn_irregular.pipelines.train.data import Evaluated, Part, TaskData
from ccnn_irregular.pipelines.train.groups import parts_by_group, read_groups
from ccnn_irregular.pipelines.train.sample_keys import row_keys

__all__ = ["VolumeDataModule"]


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
        self._keys: dict[int, tuple[np.uint64, np.uint64]] = {}
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
            self._volumes = read_each(self._pairs, lambda pair: read_volume(pair, self.codes))

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
        for number in set(self.part(part)) - self._keys.keys():  # in one pass: volumes may lie on the disk
            volume = self.volume(number)
            key = row_keys(volume.values[None].numpy())
            learned = key if volume.labels is None else row_keys(key, volume.labels[None].numpy())
            self._keys[number] = (key[0], learned[0])
        return np.array([self._keys[number][0] for number in self.part(part)], np.uint64).reshape(-1, 1)

    def outcomes(self, part: Any, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
        return np.array([self._keys[number][1] for number in self.part(part)], np.uint64)

    def training_steps(self) -> tuple[float, ...]:
        """Median step of the training volumes along each axis, millimetres."""
        steps = [self.volume(number).grid.steps for number in self.part("train")]
        return tuple(float(step) for step in np.median(steps, axis=0))

    def sizes(self) -> dict[str, int]:
        return {"classes": len(self.classes), "in_channels": int(self.volume(0).values.shape[0])}

    def inferred(self) -> dict[str, Any]:
        return {**self.sizes(), "steps": [round(step, 3) for step in self.training_steps()]}

    def values_told(self) -> dict[str, Any]:
        return {
            "scale": "as the scans have it: the network standardises each scan itself",
            "axes": ["left to right", "posterior to anterior", "inferior to superior"],
        }

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
