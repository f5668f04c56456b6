"""Samples that a data set holds more than once: kept together by our splits, counted where official parts share them.

Samples are equal where their keys are, see ``sample_keys``; labels are no part of a key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["EqualSamples", "LabelledKeys", "split_together"]

Keys = NDArray[np.uint64]
Part = Literal["train", "validation", "test"]


def split_together(keys: Keys, labels: Tensor, split: Callable[[Tensor], Sequence[Tensor]]) -> tuple[Tensor, ...]:
    """Parts in which equal samples are together: the first of them is put into a part, all others follow it.

    Args:
        keys: ``(B,)``, equal for equal samples.
        labels: ``(B,)`` int64.
        split: labels of samples that all differ -> their indices in each part.

    Returns:
        int64 indices of the samples of each part, rising.
    """
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    # Groups in the order of their first samples: without equal ones this is the split of the samples themselves.
    order = np.argsort(first)
    group = np.argsort(order)[group]
    parts = split(labels[torch.from_numpy(first[order])])
    return tuple(torch.from_numpy(np.flatnonzero(np.isin(group, part.numpy()))) for part in parts)


class LabelledKeys(Protocol):
    """A data module whose samples can be compared across parts; ``setup`` comes first."""

    def keys(self, part: Any) -> Keys:
        """``(B, 1)``, one for each sample of a part."""

    def labels(self, part: Any) -> Tensor:
        """``(B,)`` int64, the same for labels."""


@dataclass(frozen=True)
class EqualSamples:
    """Which samples of a test part equal one that was trained on or validated with.

    Attributes:
        equal: bool ``(B,)``.
        other_label: bool ``(B,)``, those of them whose label none of their equals has.
    """

    equal: NDArray[np.bool_]
    other_label: NDArray[np.bool_]

    @staticmethod
    def of(data: LabelledKeys) -> EqualSamples:
        """The test samples of a data module."""
        seen: tuple[Part, Part] = ("train", "validation")
        keys = np.concatenate([data.keys(part)[:, 0] for part in seen])
        labels = np.concatenate([data.labels(part).numpy() for part in seen])
        tested, wanted = data.keys("test")[:, 0], data.labels("test").numpy()
        equal = np.isin(tested, keys)
        alike = np.zeros(len(equal), dtype=bool)
        for label in np.unique(wanted[equal]):
            alike |= (wanted == label) & np.isin(tested, keys[labels == label])
        return EqualSamples(equal, equal & ~alike)

    def counts(self) -> dict[str, int]:
        """How many there are, for the JSON."""
        return {
            "test samples": len(self.equal),
            "equal to one trained on or validated with": int(self.equal.sum()),
            "of these with another label": int(self.other_label.sum()),
        }

    def __str__(self) -> str:
        tested, equal, other = self.counts().values()
        return f"{equal} of {tested} test samples equal one trained on or validated with, {other} with another label"
