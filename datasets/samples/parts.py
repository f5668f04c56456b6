"""Random parts of labelled samples in which every class has the same share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ccnn_irregular._checks import reject, require
from ccnn_irregular._optional import import_optional

__all__ = ["Parts", "counts_of", "split_stratified"]


@dataclass(frozen=True)
class Parts:
    """Indices (int64, rising) of the samples of each part; the parts are disjoint and together hold every sample."""

    train: Tensor
    validation: Tensor
    test: Tensor


def split_stratified(
    labels: Tensor, *, validation: float = 0.15, test: float = 0.15, seed: int = 0, classes: Sequence[str] = ()
) -> Parts:
    """Random parts in which every class has the same share, drawn by scikit-learn.

    Args:
        labels: ``(B,)`` int64.
        validation: share of all samples, in (0, 1).
        test: share of all samples, in [0, 1); of 0 the test part is empty.
        seed: of the split alone.
        classes: what the labels mean, for messages; () = their numbers are told.

    Raises:
        ValueError: shares out of range, or a class too rare to be split.
    """
    require(0 < validation < 1, "validation", "lie in (0, 1)", validation)
    require(0 <= test < 1, "test", "lie in [0, 1)", test)
    require(validation + test < 1, "validation + test", "be below 1", validation + test)
    selection = import_optional("sklearn.model_selection", "splitting into stratified parts", "train")
    strata, everything = labels.cpu().numpy(), np.arange(len(labels))
    try:
        train, rest = selection.train_test_split(
            everything, test_size=validation + test, stratify=strata, random_state=seed
        )
        watched, held = rest, rest[:0]
        if test > 0:
            watched, held = selection.train_test_split(
                rest, test_size=test / (validation + test), stratify=strata[rest], random_state=seed
            )
    except ValueError:
        enough = np.ceil(1 / min(share for share in (validation, test, 1 - validation - test) if share > 0) - 1e-9)
        rule = (
            f"have enough samples of every class for three parts: {enough:.0f} of each are enough "
            f"(--data.validation and --data.test, here {validation:g} and {test:g}, decide)"
        )
        reject("labels", rule, f"{len(labels)} samples: {counts_of(strata, classes)}")
    return Parts(*(torch.from_numpy(np.sort(part)) for part in (train, watched, held)))


def counts_of(labels: NDArray[np.int64], classes: Sequence[str] = ()) -> str:
    """How many samples there are of each class, for messages.

    Args:
        labels: ``(B,)``.
        classes: what they mean; () = their numbers are told.
    """
    numbers, counts = np.unique(labels, return_counts=True)
    names = [classes[number] if 0 <= number < len(classes) else number for number in numbers]
    return ", ".join(f"{name} {count}" for name, count in zip(names, counts, strict=True))
