"""Batches drawn by whole lists of indices, in an order that a resumed run repeats."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

__all__ = ["AlikeBatches", "EqualBatches", "ResumableLoader", "batch_loader", "drawn_loader", "parts_loader"]

Batch = TypeVar("Batch")


class EqualBatches(Sampler[NDArray[np.int64]]):
    """Batches of nearly equal size (never one small last batch), shuffled by (seed, epoch) so a run can be resumed."""

    def __init__(self, samples: NDArray[np.int64], batch_size: int, shuffle_seed: int | None) -> None:
        self.samples = samples
        self.count = -(-len(samples) // batch_size)
        self.shuffle_seed = shuffle_seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        # A generator, so that the epoch is read when the first batch is wanted: a resumed trainer makes the iterator
        # before it sets the epoch.
        samples = self.samples
        if self.shuffle_seed is not None:
            samples = np.random.default_rng((self.shuffle_seed, self.epoch)).permutation(samples)
        yield from np.array_split(samples, self.count)


class AlikeBatches(Sampler[NDArray[np.int64]]):
    """Batches of samples of one kind each, where only those can be stacked.

    Shuffled by (seed, epoch), so a run can be resumed: samples within their kind, then the batches. Without a seed the
    samples keep their order, and a batch ends where the next sample is of another kind.

    Args:
        samples: indices.
        kinds: ``(len(samples),)``, equal numbers for samples that can be stacked.
        batch_size: samples a batch at most.
        shuffle_seed: None = in order.
    """

    def __init__(
        self, samples: NDArray[np.int64], kinds: NDArray[np.int64], batch_size: int, shuffle_seed: int | None
    ) -> None:
        self.samples = samples
        self.kinds = kinds
        self.batch_size = batch_size
        self.shuffle_seed = shuffle_seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        kinds = self.kinds if self.shuffle_seed is None else np.sort(self.kinds)
        return len(self._batches(self.samples, kinds))

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        if self.shuffle_seed is None:
            yield from self._batches(self.samples, self.kinds)
            return
        rng = np.random.default_rng((self.shuffle_seed, self.epoch))
        order = rng.permutation(len(self.samples))
        order = order[np.argsort(self.kinds[order], kind="stable")]
        batches = self._batches(self.samples[order], self.kinds[order])
        yield from (batches[place] for place in rng.permutation(len(batches)))

    def _batches(self, samples: NDArray[np.int64], kinds: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Runs of one kind, each cut into nearly equal batches."""
        runs = np.split(samples, np.flatnonzero(np.diff(kinds)) + 1)
        return [batch for run in runs for batch in np.array_split(run, -(-len(run) // self.batch_size)) if len(run)]


class _WithEpoch(Sampler[tuple[NDArray[np.int64], int]]):
    """Batches of indices, each with the epoch it belongs to: worker processes know of no other.

    Attributes:
        taken: epoch that is drawn from, and how many of its batches were.
        skipped: epoch that was broken off, and how many of its batches are not to come again.
    """

    def __init__(self, batches: AlikeBatches | EqualBatches) -> None:
        self.batches = batches
        self.taken = (0, 0)
        self.skipped = (0, 0)

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of every epoch."""
        self.batches.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[NDArray[np.int64], int]]:
        # A generator: a resumed trainer makes the iterator before it sets the epoch.
        epoch, (broken, done) = self.batches.epoch, self.skipped
        done = done if epoch == broken else 0
        for number, indices in enumerate(itertools.islice(self.batches, done, None), done + 1):
            self.taken = (epoch, number)
            yield indices, epoch


class ResumableLoader(DataLoader[Batch]):
    """Goes on inside an epoch; by the protocol that Lightning asks of loaders, see ``MidEpoch``."""

    sampler: _WithEpoch

    def state_dict(self) -> dict[str, tuple[int, int]]:
        """What was taken."""
        return {"taken": self.sampler.taken}

    def load_state_dict(self, state: dict[str, tuple[int, int]]) -> None:
        """Leave out what was taken."""
        epoch, number = state["taken"]
        self.sampler.skipped = (epoch, number)


class _Lookup(Dataset[Batch]):
    """Looked up by a whole batch of indices at once."""

    def __init__(self, take: Callable[[Tensor, int], Batch], count: int) -> None:
        self.take = take
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, chosen: tuple[NDArray[np.int64], int]) -> Batch:
        indices, epoch = chosen
        return self.take(torch.from_numpy(indices), epoch)


def batch_loader(take: Callable[[Tensor], Batch], batches: AlikeBatches | EqualBatches) -> DataLoader[Batch]:
    """A loader of ``take(indices)``, where ``indices`` (int64) are those of one batch."""
    return drawn_loader(lambda indices, _: take(indices), batches)


def drawn_loader(take: Callable[[Tensor, int], Batch], batches: AlikeBatches | EqualBatches) -> DataLoader[Batch]:
    """A loader of ``take(indices, epoch)``, for batches that are drawn anew in every epoch."""
    # batch_size=None hands each list of indices to the data set as it is: batching is the sampler's work.
    # Its own generator keeps it from drawing from the global one, at moments that differ in a resumed run.
    lookup = _Lookup(take, len(batches.samples))
    return ResumableLoader(lookup, sampler=_WithEpoch(batches), batch_size=None, generator=torch.Generator())


def parts_loader(
    take: Callable[[str, Tensor], Batch], parts: Mapping[str, NDArray[np.int64]], batch_size: int
) -> DataLoader[Batch]:
    """A loader of ``take(part, indices)``, part after part in order; no batch is of two parts."""
    names, indices = list(parts), torch.from_numpy(np.concatenate(list(parts.values())))
    part_of = np.repeat(np.arange(len(names)), [len(rows) for rows in parts.values()])
    batches = AlikeBatches(np.arange(len(indices)), part_of, batch_size, None)
    return batch_loader(lambda rows: take(names[part_of[int(rows[0])]], indices[rows]), batches)
