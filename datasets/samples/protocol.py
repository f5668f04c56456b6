"""What all samples have in common, whatever they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

__all__ = ["Samples", "summary"]


@runtime_checkable
class Samples(Protocol):
    """The protocol of everything that a data set returns."""

    @property
    def labels(self) -> Tensor | np.ndarray | None:
        """Index into ``classes``, int64: of each sample, or of each point; None where nothing is labelled."""

    @property
    def classes(self) -> tuple[str, ...]:
        """What the labels mean; () where nothing is labelled."""

    @property
    def unit(self) -> str:
        """Of the coordinates."""

    def __len__(self) -> int:
        """Number of samples."""

    def describe(self) -> dict[str, Any]:
        """What they are, as plain values: kind, samples, sizes, unit, how often each class occurs."""


def summary(samples: Samples, **sizes: Any) -> dict[str, Any]:
    """What ``describe`` returns: the protocol's part, with the ``sizes`` of a kind of samples."""
    counts: dict[str, int] = {}
    if samples.labels is not None:
        labels = torch.as_tensor(samples.labels).flatten().cpu()
        frequencies = torch.bincount(labels[labels >= 0], minlength=len(samples.classes))  # -1 = not known
        counts = dict(zip(samples.classes, frequencies.tolist(), strict=True))
    return {
        "kind": type(samples).__name__,
        "samples": len(samples),
        **sizes,
        "unit": samples.unit,
        "classes": counts,
    }
