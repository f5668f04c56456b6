"""Random numbers of samples: each is a function of a seed, the epoch, the sample and what it is drawn for.

So what happens to a sample in training does not depend on who shares its batch, on the size and the order of the
batches, on worker processes, or on where a run was resumed.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ccnn_irregular._checks import require

__all__ = ["Draws", "hashed"]

Floats = NDArray[np.float64]

# SplitMix64 (Steele, Lea and Flood 2014, doi:10.1145/2660193.2660195): a counter that rises by this odd number ...
_STEP = np.uint64(0x9E3779B97F4A7C15)
# ... and how its bits are mixed: shifts and factors.
_MIXED = ((np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)), (np.uint64(27), np.uint64(0x94D049BB133111EB)))
_LAST_SHIFT = np.uint64(31)


class Draws:
    """Random numbers of the samples of one batch.

    Args:
        seed: not negative.
        epoch: not negative; what is the same in every epoch takes 0.
        ids: int64 ``(B,)``, what each sample is known by in all batches and epochs.

    Raises:
        ValueError: a negative seed or epoch; ids that are not int64 of one axis.
    """

    def __init__(self, seed: int, epoch: int, ids: Tensor | NDArray[np.int64]) -> None:
        require(seed >= 0, "seed", "not be negative", seed)
        require(epoch >= 0, "epoch", "not be negative", epoch)
        self.seed, self.epoch = seed, epoch
        self.ids: NDArray[np.int64] = ids.cpu().numpy() if isinstance(ids, Tensor) else ids
        sound = self.ids.ndim == 1 and self.ids.dtype == np.int64
        require(sound, "ids", "be int64 of one axis", f"{self.ids.dtype} {self.ids.shape}")

    def __len__(self) -> int:
        return len(self.ids)

    def uniform(self, purpose: str, counts: NDArray[np.int64] | None = None, *, width: int | None = None) -> Floats:
        """Uniform numbers in (0, 1), float64.

        Args:
            purpose: what they are for, a word of its own for each thing that is drawn.
            counts: ``(B,)``, rows of each sample; None = one row each.
            width: numbers in a row; None = one, without an axis of its own.

        Returns:
            ``(sum(counts), width)``, the rows of the samples laid end to end.
        """
        keys, columns = self._keys(purpose), 1 if width is None else width
        rows = np.zeros(len(keys), np.int64)
        if counts is not None:
            keys = np.repeat(keys, counts)
            rows = np.arange(len(keys)) - np.repeat(np.cumsum(counts) - counts, counts)
        state = (rows[:, None] * columns + np.arange(1, columns + 1)).astype(np.uint64)
        state *= _STEP
        state += keys[:, None]
        # 52 bits and a half: neither 0 nor 1 is among them.
        numbers = ((_mixed(state) >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
        return numbers[:, 0] if width is None else numbers

    def normal(self, purpose: str, counts: NDArray[np.int64], *, width: int) -> NDArray[np.float32]:
        """Normal numbers of mean 0 and standard deviation 1, float32 ``(sum(counts), width)``; see ``uniform``."""
        pairs = zip(self.generators(purpose), counts.tolist(), strict=True)
        parts = [rng.standard_normal((count, width), dtype=np.float32) for rng, count in pairs]
        return np.concatenate(parts) if parts else np.zeros((0, width), np.float32)

    def generators(self, purpose: str) -> Iterator[np.random.Generator]:
        """A generator for each sample, for as many numbers of any kind as one wants."""
        return (np.random.Generator(np.random.Philox(key=key)) for key in self._keys(purpose).tolist())

    def _keys(self, purpose: str) -> NDArray[np.uint64]:
        """64 bits for each sample."""
        return _mixed(np.uint64(hashed(self.seed, self.epoch, purpose)) ^ _mixed(self.ids.astype(np.uint64) * _STEP))


def hashed(*words: int | str, bits: int = 64) -> int:
    """A number of so many bits that is another one for other words: their BLAKE2b hash."""
    return int.from_bytes(blake2b(repr(words).encode(), digest_size=bits // 8).digest(), "little")


def _mixed(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Every bit of the result depends on every bit of the state; one to one."""
    for shift, factor in _MIXED:
        state = state ^ (state >> shift)
        state *= factor
    state ^= state >> _LAST_SHIFT
    return state
