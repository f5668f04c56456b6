"""Labelled series of unequal length, laid end to end."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ccnn_irregular._checks import require, require_splits
from ccnn_irregular.datasets.samples.common import as_positions, require_labels
from ccnn_irregular.datasets.samples.protocol import summary
from ccnn_irregular.domains import Points
from ccnn_irregular.quadrature import trapezoid

__all__ = ["RaggedSeries"]


@dataclass(frozen=True, repr=False)
class RaggedSeries:
    """B labelled series of their true lengths, laid end to end.

    Attributes:
        values: ``(N, C)`` float32; nan where the source says that a value is missing.
        coordinates: ``(N, 1)`` float64, strictly increasing within a series.
        splits: ``(B + 1,)`` int64; series b owns the rows ``splits[b]:splits[b + 1]``.
        labels: ``(B,)`` int64, index into ``classes``.
        classes: what the labels mean.
        unit: of the coordinates.

    Raises:
        ValueError: shapes or dtypes that disagree.
    """

    values: Tensor
    coordinates: Tensor
    splits: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    unit: str

    def __post_init__(self) -> None:
        require(self.values.ndim == 2, "values", "have shape (N, C)", tuple(self.values.shape))
        require(self.values.dtype == torch.float32, "values", "be float32", self.values.dtype)
        count = len(self.values)
        shape = tuple(self.coordinates.shape)
        require(shape == (count, 1), "coordinates", f"have shape ({count}, 1)", shape)
        require(self.coordinates.dtype == torch.float64, "coordinates", "be float64", self.coordinates.dtype)
        require_splits(self.splits, count)
        require_labels(self.labels, len(self.splits) - 1)

    def __repr__(self) -> str:
        size = f"series={len(self)}, rows={len(self.values)}, channels={self.values.shape[1]}"
        return f"RaggedSeries({size}, classes={len(self.classes)}, unit={self.unit!r})"

    @staticmethod
    def uniform(
        values: Tensor,
        step: float,
        splits: Tensor,
        labels: Tensor,
        classes: tuple[str, ...],
        unit: str,
        starts: Tensor | None = None,
    ) -> RaggedSeries:
        """Series sampled every ``step``, each from its entry of ``starts`` ``(B,)`` float64 on; None = from 0 on."""
        index = torch.arange(len(values), dtype=torch.int64, device=values.device)
        index -= torch.repeat_interleave(splits[:-1], splits.diff(), output_size=len(values))
        coordinates = index.to(torch.float64) * step
        if starts is not None:
            coordinates += torch.repeat_interleave(starts, splits.diff(), output_size=len(values))
        return RaggedSeries(values, coordinates[:, None], splits, labels, classes, unit)

    def __len__(self) -> int:
        return len(self.labels)

    def describe(self) -> dict[str, Any]:
        """What they are, as plain values; ``lengths`` are those of the shortest and of the longest series."""
        lengths = self.splits.diff().tolist()
        ends = [min(lengths, default=0), max(lengths, default=0)]
        return summary(self, rows=len(self.values), channels=self.values.shape[1], lengths=ends)

    def subset(self, index: Tensor) -> RaggedSeries:
        """The series ``index`` (int64, any order, repeats allowed; or bool ``(B,)``), in that order: one gather."""
        index = as_positions(index, len(self))
        lengths = self.splits.diff()[index]
        splits = torch.zeros(len(index) + 1, dtype=torch.int64, device=self.splits.device)
        torch.cumsum(lengths, 0, out=splits[1:])
        rows = torch.repeat_interleave(self.splits[index] - splits[:-1], lengths)
        rows += torch.arange(len(rows), dtype=torch.int64, device=rows.device)
        return dataclasses.replace(
            self,
            values=self.values[rows],
            coordinates=self.coordinates[rows],
            splits=splits,
            labels=self.labels[index],
        )

    def points(self, *, cap: float | None = None) -> Points:
        """The coordinates as a domain weighted by the trapezoid rule, see :func:`~ccnn_irregular.quadrature.trapezoid`.

        Args:
            cap: largest width one sample may stand for, in coordinate units.
        """
        weights = trapezoid(self.coordinates[:, 0], splits=self.splits, cap=cap)
        return Points(self.coordinates, weights, self.splits)

    def to(self, device: torch.device | str) -> RaggedSeries:
        """The same series on ``device``."""
        moved = {name: getattr(self, name).to(device) for name in ("values", "coordinates", "splits", "labels")}
        return dataclasses.replace(self, **moved)
