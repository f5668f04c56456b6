"""Labelled samples that each lie on a grid of their own, laid end to end."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ccnn_irregular._checks import require
from ccnn_irregular.datasets.samples.common import as_positions, require_alike, require_labels
from ccnn_irregular.datasets.samples.gridded import GriddedSamples
from ccnn_irregular.datasets.samples.protocol import summary
from ccnn_irregular.domains import Grid

__all__ = ["RaggedVolumes"]


@dataclass(frozen=True, repr=False)
class RaggedVolumes:
    """B labelled samples, each on a grid of its own size and steps, laid end to end.

    Attributes:
        values: ``(N, C)`` float32, the nodes of each sample in row-major order.
        grids: of the samples; sample b owns ``grids[b].count`` rows.
        labels: ``(B,)`` int64, index into ``classes``.
        classes: what the labels mean.
        unit: of the grids' coordinates.
        names: what the source calls each sample; () = it numbers them.

    Raises:
        ValueError: shapes or dtypes that disagree.
    """

    values: Tensor
    grids: tuple[Grid, ...]
    labels: Tensor
    classes: tuple[str, ...]
    unit: str
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shape, count = tuple(self.values.shape), sum(grid.count for grid in self.grids)
        require(len(shape) == 2 and shape[0] == count, "values", f"have shape ({count}, C)", shape)
        require(self.values.dtype == torch.float32, "values", "be float32", self.values.dtype)
        axes = sorted({grid.d for grid in self.grids})
        require(len(axes) <= 1, "grids", "have the same number of axes", axes)
        require_labels(self.labels, len(self.grids))
        require(len(self.names) in (0, len(self)), "names", f"be of {len(self)} samples", len(self.names))

    def __repr__(self) -> str:
        size = f"samples={len(self)}, channels={self.values.shape[1]}, grids={len(set(self.grids))}"
        return f"RaggedVolumes({size}, classes={len(self.classes)}, unit={self.unit!r})"

    @staticmethod
    def of(
        volumes: Sequence[Tensor], grids: Sequence[Grid], labels: Tensor, classes: tuple[str, ...], unit: str
    ) -> RaggedVolumes:
        """From values ``(C, *sizes)`` of each sample."""
        return RaggedVolumes(
            torch.cat([volume.flatten(1).T for volume in volumes]), tuple(grids), labels, classes, unit
        )

    def __len__(self) -> int:
        return len(self.labels)

    def describe(self) -> dict[str, Any]:
        """What they are, as plain values."""
        return summary(self, rows=len(self.values), channels=self.values.shape[1], grids=len(set(self.grids)))

    def volume(self, index: int) -> Tensor:
        """Values ``(C, *sizes)`` of one sample, a view."""
        first = sum(grid.count for grid in self.grids[:index])
        grid = self.grids[index]
        return self.values[first : first + grid.count].T.unflatten(1, grid.sizes)

    def subset(self, index: Tensor) -> RaggedVolumes:
        """The samples ``index`` (int64, any order, repeats allowed; or bool ``(B,)``), in that order."""
        index = as_positions(index, len(self))
        counts = torch.tensor([grid.count for grid in self.grids], dtype=torch.int64)
        firsts = counts.cumsum(0) - counts
        pieces = [self.values[first : first + count] for first, count in zip(firsts[index], counts[index], strict=True)]
        values = torch.cat(pieces) if pieces else self.values[:0]
        grids = tuple(self.grids[place] for place in index.tolist())
        names = tuple(self.names[place] for place in index.tolist()) if self.names else ()
        return dataclasses.replace(self, values=values, grids=grids, labels=self.labels[index], names=names)

    def joined(self, other: RaggedVolumes) -> RaggedVolumes:
        """These samples, and behind them the ``other`` ones of the same classes and unit."""
        require_alike(self, other, "classes", "unit")
        require(bool(self.names) == bool(other.names), "samples to be joined", "all have names, or none", "some")
        values, labels = torch.cat([self.values, other.values]), torch.cat([self.labels, other.labels])
        grids, names = self.grids + other.grids, self.names + other.names
        return dataclasses.replace(self, values=values, grids=grids, labels=labels, names=names)

    def stacked(self) -> GriddedSamples:
        """All samples as one array.

        Raises:
            ValueError: they lie on different grids, or there are none.
        """
        require(len(set(self.grids)) == 1, "samples", "lie on one grid to be stacked", f"{len(set(self.grids))} grids")
        grid = self.grids[0]
        values = self.values.unflatten(0, (len(self), *grid.sizes)).movedim(-1, 1).contiguous()
        return GriddedSamples(values, grid, self.labels, self.classes, self.unit)
