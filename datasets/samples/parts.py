"""Random parts of labelled samples in which every class has the same share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ccnn_irregular._checks import reject, require
from ccnn_irregular._optional import import_optional

__all__ = ["Parts", "split_stratified"]


@dataclass(frozen=True)
class Parts:
    """Indices (int64, rising) of the samples of each part; the parts are disjoint and together hold every sample."""

    train: Tensor
    validation: Tensor
    test: Tensor


def split_stratified(labels: Tensor, *, validation: float = 0.15, test: float = 0.15, seed: int = 0) -> Parts:
    """Random parts in which every class has the same share, drawn by scikit-learn.

    Args:
        labels: ``(B,)`` int64.
        validation: share of all samples, in (0, 1).
        test: share of all samples, in [0, 1); of 0 the test part is empty.
        seed: of the split alone.

    Raises:
        ValueError: shares out of range, or a class too rare to be split.
    """
    require(0 < validation < 1, "validation", "lie in (0, 1)", validation)
    require(0 <= test < 1, "test", "lie in [0, 1)", test)
    require(validation + test < 1, "validation + test", "be below 1", validation + test)
    selection = import_optional("sklearn.model_selection", "splitting into stratified parts", "train")
    classes, everything = labels.cpu().numpy(), np.arange(len(labels))
    try:
        train, rest = selection.train_test_split(
            everything, test_size=validation + test, stratify=classes, random_state=seed
        )
        watched, held = rest, rest[:0]
        if test > 0:
            watched, held = selection.train_test_split(
                rest, test_size=test / (validation + test), stratify=classes[rest], random_state=seed
            )
    except ValueError as error:
        reject("labels", "have enough samples of every class for three parts", f"{len(labels)} samples ({error})")
    return Parts(*(torch.from_numpy(np.sort(part)) for part in (train, watched, held)))
