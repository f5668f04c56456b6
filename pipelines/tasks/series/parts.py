"""Series in three parts, every class with the same share in each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ccnn_irregular._checks import reject, require
from ccnn_irregular._optional import import_optional

__all__ = ["split_series"]

Indices = NDArray[np.int64]


def split_series(
    strata: Indices, classes: Sequence[str] = (), *, test: float, validation: float, seed: int
) -> dict[str, Indices]:
    """Rising positions of the parts "train", "validation" and "test", drawn by scikit-learn.

    Args:
        strata: ``(B,)``, class of each series, in an order that does not depend on how the files are laid out.
        classes: their names, for messages; () = one stratum.
        test: share of all series that is never trained on, in [0, 1).
        validation: share of the rest that chooses the best epoch, in [0, 1).
        seed: of the split alone.

    Raises:
        ValueError: shares out of range, or a class too rare to be split.
    """
    for name, share in (("test", test), ("validation", validation)):
        require(0 <= share < 1, f"data.{name}", "lie in [0, 1)", share)
    rest, held = _halves(np.arange(len(strata)), strata, classes, "test", test, seed)
    train, watched = _halves(rest, strata, classes, "validation", validation, seed + 1)
    return {"train": train, "validation": watched, "test": held}


def _halves(
    chosen: Indices, strata: Indices, classes: Sequence[str], part: str, share: float, seed: int
) -> tuple[Indices, Indices]:
    """``chosen`` without and with the ``share`` set aside."""
    if share == 0:
        return chosen, chosen[:0]
    selection = import_optional("sklearn.model_selection", "splitting into stratified parts", "train")
    counts = np.bincount(strata[chosen])
    aside = int(np.ceil(share * len(chosen)))
    present = int((counts > 0).sum())
    if counts[counts > 0].min() < 2 or not present <= aside <= len(chosen) - present:
        got = ", ".join(f"{count} of {name!r}" for name, count in zip(classes, counts, strict=False) if count)
        rule = f"name more series of every class, so that each has some in and outside of data.{part} {share:g}"
        reject("the labels", rule, f"{got or 'labels'} among {len(chosen)} series")
    kept, taken = selection.train_test_split(chosen, test_size=share, stratify=strata[chosen], random_state=seed)
    return np.sort(kept), np.sort(taken)
