"""ICU stays as ragged batches: the batch, the split into parts, the Lightning data module.

Nothing is padded and no stay is visited in Python: a batch is one gather of rows from the arrays of the whole cohort.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from ccnn_irregular._checks import reject, require
from ccnn_irregular.datasets import physionet2012
from ccnn_irregular.pipelines.train.batches import EqualBatches, batch_loader
from ccnn_irregular.pipelines.train.data import Evaluated, Part, TaskData
from ccnn_irregular.pipelines.train.draws import Draws
from ccnn_irregular.pipelines.train.sample_keys import ragged_keys, row_keys

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ccnn_irregular.datasets.physionet2012 import Cohort

__all__ = ["OUTCOME", "ICUDataModule", "StayBatch", "StaySplit", "cohort_keys", "split_stays"]

OUTCOME = "In-hospital_death"


@dataclasses.dataclass(frozen=True)
class StayBatch:
    """B stays laid end to end.

    Attributes:
        times: ``(N,)`` float64, hours since admission, strictly increasing within a stay.
        values: ``(N, 37)`` float32, nan where a series was not observed at that time.
        splits: ``(B + 1,)`` int64; stay b owns the rows ``splits[b]:splits[b + 1]``, possibly none.
        statics: ``(B, 5)`` float32, nan where missing.
        labels: ``(B,)`` float32 in {0, 1}, or None where the outcomes are unknown.
        record_ids: ``(B,)`` int64.
        draws: what is drawn for the stays in training, or None.
    """

    times: Tensor
    values: Tensor
    splits: Tensor
    statics: Tensor
    labels: Tensor | None
    record_ids: Tensor
    draws: Draws | None = None

    def __len__(self) -> int:
        return len(self.record_ids)

    @staticmethod
    def from_cohort(cohort: Cohort) -> StayBatch:
        """The whole cohort as one batch, sharing its memory; labels are its in-hospital deaths where known."""
        labels = None
        if cohort.outcomes is not None:
            labels = torch.from_numpy(np.asarray(cohort.outcomes[OUTCOME], dtype=np.float32))
        return StayBatch(
            times=torch.from_numpy(cohort.times),
            values=torch.from_numpy(cohort.values),
            splits=torch.from_numpy(cohort.splits),
            statics=torch.from_numpy(cohort.statics),
            labels=labels,
            record_ids=torch.from_numpy(cohort.record_ids),
        )

    def to(self, device: torch.device | str, non_blocking: bool = False) -> StayBatch:
        """The same batch on ``device``; dtypes stay as they are."""
        moved: dict[str, Any] = {
            field.name: value.to(device, non_blocking=non_blocking)
            for field in dataclasses.fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        return dataclasses.replace(self, **moved)

    def take(self, indices: Tensor) -> StayBatch:
        """The stays ``indices`` (int64, any order, repeats allowed), in that order."""
        lengths = self.splits.diff()[indices]
        splits = torch.zeros(len(indices) + 1, dtype=torch.int64, device=self.splits.device)
        torch.cumsum(lengths, 0, out=splits[1:])
        shift = torch.repeat_interleave(self.splits[indices] - splits[:-1], lengths)
        rows = shift + torch.arange(len(shift), dtype=torch.int64, device=shift.device)
        return StayBatch(
            times=self.times[rows],
            values=self.values[rows],
            splits=splits,
            statics=self.statics[indices],
            labels=None if self.labels is None else self.labels[indices],
            record_ids=self.record_ids[indices],
        )

    def known_by(self, hours: Tensor) -> StayBatch:
        """Each stay as it was known at ``hours`` ``(B,)`` float64: rows after that time are dropped."""
        kept = self.times <= torch.repeat_interleave(hours, self.splits.diff())
        before = torch.nn.functional.pad(torch.cumsum(kept.to(torch.int64), 0), (1, 0))
        return dataclasses.replace(self, times=self.times[kept], values=self.values[kept], splits=before[self.splits])


@dataclasses.dataclass(frozen=True)
class StaySplit:
    """Indices (int64) of the stays of each part; the parts are disjoint and together hold every stay."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    held_out: NDArray[np.int64]


def split_stays(
    record_ids: NDArray[np.int64], labels: NDArray, *, held_out: float, validation: float, seed: int
) -> StaySplit:
    """Stratified split that depends on the records, the labels and the seed, never on the order of loading.

    Args:
        record_ids: ``(B,)`` int64, unique.
        labels: ``(B,)``, 0 or 1; each part gets the same share of ones.
        held_out: share of all stays that is never trained on, in [0, 1).
        validation: share of the rest that early stopping watches, in [0, 1).
        seed: of the split alone.

    Raises:
        ValueError: shares out of range, repeated records, or a class too rare to be split.
    """
    require(0 <= held_out < 1, "held_out", "be in [0, 1)", held_out)
    require(0 <= validation < 1, "validation", "be in [0, 1)", validation)
    order = np.argsort(record_ids, kind="stable")
    repeated = record_ids[order][1:][np.diff(record_ids[order]) == 0]
    require(len(repeated) == 0, "record_ids", "be unique to be split", f"{repeated[:5].tolist()} more than once")
    # Positions in the order of the record ids are drawn, and only the result is translated into indices.
    ranked = np.asarray(labels)[order]
    rest, held = _stratified_halves(np.arange(len(order)), ranked, held_out, seed)
    train, watched = _stratified_halves(rest, ranked, validation, seed + 1)
    return StaySplit(train=order[train], validation=order[watched], held_out=order[held])


def _stratified_halves(
    stays: NDArray[np.int64], labels: NDArray, share: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """``stays`` without and with the ``share`` set aside."""
    from sklearn.model_selection import train_test_split

    if share == 0:
        return stays, stays[:0]
    try:
        kept, aside = train_test_split(stays, test_size=share, stratify=labels[stays], random_state=seed)
    except ValueError as error:
        ones = int(labels[stays].sum())
        raise ValueError(
            f"a share of {share} must be splittable by outcome, got {ones} deaths in {len(stays)} stays ({error})"
        ) from error
    return np.sort(kept), np.sort(aside)


def cohort_keys(cohort: Cohort) -> NDArray[np.uint64]:
    """Keys of each stay, ``(B, 2)`` uint64: of all that was recorded, and of its record id and statics.

    The first is the same under another record id, the second where repeated values were read in another way. A record
    id alone is none: cohorts of different hospitals count from the same number on.
    """
    empty = np.where(np.diff(cohort.splits) > 0, -1, cohort.record_ids)  # nothing else tells these from one another
    recorded = ragged_keys(cohort.splits, cohort.times, cohort.values)
    return np.stack([row_keys(recorded, cohort.statics, empty), row_keys(cohort.record_ids, cohort.statics)], 1)


class ICUDataModule(TaskData["StayBatch", None]):
    """Stays of the PhysioNet 2012 challenge, or of any folder in its file format.

    Args:
        root: folder that holds the sets (folders or archives) and their outcomes files.
        sets: which sets to read, for example a b.
        evaluate: what test and predict look at: the stays held out for the "test", or "all" (a hidden set).
        held_out: share of the stays that training never sees.
        validation: share of the rest that early stopping watches.
        split_seed: seed of the split; the same seed and records give the same parts, whatever is trained.
        batch_size: stays a step.
        on_bad_record: stop at the first record that cannot be read, or skip it and count.
        repeats: which of several values of one series at one time counts.
        cache: folder of the HDF5 cache; false reads the files every time; null keeps it at its default place.
        download: fetch the official files into root where they are missing.
        progress: show a bar while files are read.
    """

    rows_are = "stays"
    described = ("root", "sets", "evaluate", "held_out", "validation", "split_seed", "on_bad_record", "repeats")

    def __init__(
        self,
        root: str,
        sets: tuple[str, ...] = ("a",),
        evaluate: Evaluated = "test",
        held_out: float = 0.15,
        validation: float = 0.1,
        split_seed: int = 0,
        batch_size: int = 64,
        on_bad_record: Literal["stop", "skip"] = "stop",
        repeats: Literal["mean", "first", "last"] = "mean",
        cache: bool | str | None = None,
        download: bool = False,
        progress: bool = True,
    ) -> None:
        super().__init__(evaluate)
        require(batch_size >= 1, "batch_size", "be at least 1", batch_size)
        require(len(sets) > 0, "sets", "name at least one set", sets)
        self.root = root
        self.sets: Sequence[str] = tuple(sets)
        self.held_out = held_out
        self.validation = validation
        self.split_seed = split_seed
        self.batch_size = batch_size
        self.on_bad_record = on_bad_record
        self.repeats = repeats
        self.cache = cache
        self.download = download
        self.progress = progress
        self._cohort: Cohort | None = None
        self._stays: StayBatch | None = None
        self._split: StaySplit | None = None

    def like(self, *, root: str, sets: Sequence[str]) -> ICUDataModule:
        """A data module for other stays, all of them evaluated, read with the same options."""
        return ICUDataModule(
            root,
            tuple(sets),
            evaluate="all",
            on_bad_record=self.on_bad_record,
            repeats=self.repeats,
            cache=self.cache,
            download=self.download,
            progress=self.progress,
        )

    def setup(self, stage: str) -> None:
        """Read the files once. Outcomes are read unless every stay is only to be predicted.

        Raises:
            ValueError, FileNotFoundError: from the reader, with the file and line at fault.
        """
        needs_outcomes = self.needs_labels(stage)
        if self._cohort is None or (needs_outcomes and self._cohort.outcomes is None):
            self._read(needs_outcomes)
        if self.takes_all(stage):
            everything = np.arange(len(self.cohort), dtype=np.int64)
            self._split = StaySplit(everything[:0], everything[:0], everything)

    def _read(self, outcomes: bool) -> None:
        cohort = physionet2012.load(
            self.root,
            self.sets,
            outcomes=outcomes,
            on_bad_record=self.on_bad_record,
            repeats=self.repeats,
            cache=self._cache_folder(),
            download=self.download,
            progress=self.progress,
        )
        self._cohort = cohort
        self._stays = StayBatch.from_cohort(cohort)
        self._split = None

    def _cache_folder(self) -> Path | Literal[False] | None:
        """What the reader takes: a folder, False for no cache, None for its default place."""
        if isinstance(self.cache, str):
            return Path(self.cache)
        return None if self.cache in (None, True) else False

    @property
    def cohort(self) -> Cohort:
        """Everything that was read; ``setup`` comes first."""
        if self._cohort is None:
            reject("the data module", "be set up (setup('fit')) before its stays are asked for", "no stays yet")
        return self._cohort

    @property
    def split(self) -> StaySplit:
        """The parts of the cohort, made when first asked for."""
        if self._split is None:
            assert self.cohort.outcomes is not None
            self._split = split_stays(
                self.cohort.record_ids,
                self.cohort.outcomes[OUTCOME],
                held_out=self.held_out,
                validation=self.validation,
                seed=self.split_seed,
            )
        return self._split

    def indices(self, part: Part) -> NDArray[np.int64]:
        """Indices into ``cohort`` of the stays of a part; the test part is what ``evaluate`` names."""
        if part == "all":
            return np.arange(len(self.cohort), dtype=np.int64)
        return getattr(self.split, "held_out" if part == "test" else part)

    def stays(self, part: Part) -> StayBatch:
        """The stays of a part as one batch."""
        indices = self.indices(part)
        assert self._stays is not None
        return self._stays.take(torch.from_numpy(indices))

    def ids(self, part: Part) -> list[int]:
        return self.cohort.record_ids[self.indices(part)].tolist()

    def keys(self, part: Part) -> NDArray[np.uint64]:
        """Two keys of each stay ``(B, 2)``, see ``cohort_keys``."""
        return cohort_keys(self.cohort.select(self.indices(part)))

    def sizes(self) -> dict[str, int]:
        """Nothing: the series of the challenge are always the same."""
        return {}

    def typical_batch(self) -> StayBatch:
        """All training stays."""
        return self.stays("train")

    def part_sizes(self) -> dict[str, int]:
        parts: tuple[Part, ...] = ("train", "validation", "test")
        return {part: len(self.indices(part)) for part in parts}

    def summary(self) -> str:
        """What the reader met in the files."""
        return str(self.cohort.report)

    def loader(self, part: Part, variant: None = None) -> DataLoader[StayBatch]:
        """The stays of a part in batches."""
        indices = self.indices(part)
        require(len(indices) > 0, f"the part {part!r}", "hold at least one stay", f"none of {len(self.cohort)}")
        assert self._stays is not None
        batches = EqualBatches(indices, self.batch_size, self.split_seed if part == "train" else None)
        return batch_loader(self._stays.take, batches)
