"""Labelled samples on one grid: images, recordings of one length, volumes of one size."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ccnn_irregular._checks import require
from ccnn_irregular.datasets.samples.common import as_positions, require_alike, require_labels
from ccnn_irregular.datasets.samples.protocol import summary
from ccnn_irregular.domains import Grid

__all__ = ["GriddedSamples"]


@dataclass(frozen=True, repr=False)
class GriddedSamples:
    """B labelled samples on one grid.

    Attributes:
        values: ``(B, C, *grid.sizes)`` float32.
        grid: the nodes all samples share.
        labels: ``(B,)`` int64, index into ``classes``.
        classes: what the labels mean.
        unit: of the grid's coordinates.
        lengths: ``(B,)`` int64, on a grid of one axis: how many of a sample's nodes were sampled; what follows pads it
            with zeros. None = all were.

    Raises:
        ValueError: shapes or dtypes that disagree.
    """

    values: Tensor
    grid: Grid
    labels: Tensor
    classes: tuple[str, ...]
    unit: str
    lengths: Tensor | None = None

    def __post_init__(self) -> None:
        shape = tuple(self.values.shape)
        require(shape[2:] == self.grid.sizes, "values", f"have shape (B, C, *{self.grid.sizes})", shape)
        require(self.values.dtype == torch.float32, "values", "be float32", self.values.dtype)
        require_labels(self.labels, len(self.values))
        if self.lengths is not None:
            sound = self.grid.d == 1 and self.lengths.dtype == torch.int64 and self.lengths.shape == shape[:1]
            fits = sound and bool(((self.lengths >= 0) & (self.lengths <= self.grid.count)).all())
            rule = f"be int64 of shape ({len(self)},), 0 to the nodes of one axis, {self.grid.sizes}"
            require(fits, "lengths", rule, f"{self.lengths.dtype} {tuple(self.lengths.shape)}")

    def __repr__(self) -> str:
        size = f"samples={len(self)}, channels={self.values.shape[1]}, grid={self.grid!r}"
        return f"GriddedSamples({size}, classes={len(self.classes)}, unit={self.unit!r})"

    def __len__(self) -> int:
        return len(self.labels)

    def describe(self) -> dict[str, Any]:
        """What they are, as plain values."""
        return summary(self, channels=self.values.shape[1], sizes=list(self.grid.sizes), steps=list(self.grid.steps))

    def subset(self, index: Tensor) -> GriddedSamples:
        """The samples ``index`` (int64, any order, repeats allowed; or bool ``(B,)``), in that order."""
        index = as_positions(index, len(self))
        lengths = None if self.lengths is None else self.lengths[index]
        return dataclasses.replace(self, values=self.values[index], labels=self.labels[index], lengths=lengths)

    def joined(self, other: GriddedSamples) -> GriddedSamples:
        """These samples, and behind them the ``other`` ones on the same grid, of the same classes."""
        require_alike(self, other, "classes", "unit")
        require(self.grid == other.grid, "samples to be joined", "lie on one grid", (self.grid, other.grid))
        lengths = None
        if self.lengths is not None or other.lengths is not None:
            whole = [
                samples.lengths if samples.lengths is not None else samples._whole_lengths()
                for samples in (self, other)
            ]
            lengths = torch.cat(whole)
        values, labels = torch.cat([self.values, other.values]), torch.cat([self.labels, other.labels])
        return dataclasses.replace(self, values=values, labels=labels, lengths=lengths)

    def _whole_lengths(self) -> Tensor:
        """``lengths`` where all nodes were sampled."""
        return torch.full((len(self),), self.grid.count, dtype=torch.int64, device=self.values.device)

    def to(self, device: torch.device | str) -> GriddedSamples:
        """The same samples on ``device``."""
        lengths = None if self.lengths is None else self.lengths.to(device)
        values, labels = self.values.to(device), self.labels.to(device)
        return dataclasses.replace(self, values=values, labels=labels, lengths=lengths)

    def sampled(self) -> Tensor | None:
        """Where values were sampled and do not pad, bool ``(B, 1, size)``; None = everywhere."""
        if self.lengths is None:
            return None
        return (torch.arange(self.grid.count, device=self.lengths.device) < self.lengths[:, None])[:, None]
