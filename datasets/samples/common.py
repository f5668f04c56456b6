"""Checks that the containers of samples share."""

from __future__ import annotations

import torch
from torch import Tensor

from ccnn_irregular._checks import require
from ccnn_irregular.datasets.samples.protocol import Samples

__all__ = ["as_positions", "require_alike", "require_labels"]


def require_labels(labels: Tensor, count: int) -> None:
    """Refuse labels that are not int64, one for each of ``count`` samples."""
    require(labels.dtype == torch.int64, "labels", "be int64", labels.dtype)
    require(tuple(labels.shape) == (count,), "labels", f"have shape ({count},)", tuple(labels.shape))


def as_positions(index: Tensor, count: int) -> Tensor:
    """``index`` as int64 positions; torch itself refuses positions that do not exist."""
    if index.dtype == torch.bool:
        require(tuple(index.shape) == (count,), "index", f"be a mask of shape ({count},)", tuple(index.shape))
        return torch.nonzero(index).flatten()
    require(index.dtype == torch.int64 and index.ndim == 1, "index", "be int64 of one axis, or bool", index.dtype)
    outside = index[(index < 0) | (index >= count)]
    require(len(outside) == 0, "index", f"lie in 0..{count - 1}", outside[:5].tolist())
    return index


def require_alike(first: Samples, second: Samples, *names: str) -> None:
    """Refuse to join samples that differ in one of the attributes ``names``."""
    for name in names:
        given = getattr(first, name), getattr(second, name)
        require(given[0] == given[1], "samples to be joined", f"have the same {name}", given)
