"""Labelled series of unequal length, laid end to end."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ccnn_irregular._checks import require, require_splits
from ccnn_irregular.datasets.samples.common import as_positions, require_alike, require_labels
from ccnn_irregular.datasets.samples.protocol import summary
from ccnn_irregular.domains import Points
from ccnn_irregular.quadrature import trapezoid
from ccnn_irregular.quadrature.lines import sample_of_row

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
        channels: names of the C channels; () = they have none.
        ids: ``(B,)`` int64, what the source calls each series; None = it numbers them from 0 on.

    Raises:
        ValueError: shapes or dtypes that disagree.
    """

    values: Tensor
    coordinates: Tensor
    splits: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    unit: str
    channels: tuple[str, ...] = ()
    ids: Tensor | None = None

    def __post_init__(self) -> None:
        require(self.values.ndim == 2, "values", "have shape (N, C)", tuple(self.values.shape))
        require(self.values.dtype == torch.float32, "values", "be float32", self.values.dtype)
        count = len(self.values)
        shape = tuple(self.coordinates.shape)
        require(shape == (count, 1), "coordinates", f"have shape ({count}, 1)", shape)
        require(self.coordinates.dtype == torch.float64, "coordinates", "be float64", self.coordinates.dtype)
        require_splits(self.splits, count)
        require_labels(self.labels, len(self.splits) - 1)
        named = len(self.channels) in (0, self.values.shape[1])
        require(named, "channels", f"name the {self.values.shape[1]} channels", self.channels)
        require(self.ids is None or len(self.ids) == len(self), "ids", f"number {len(self)}, one a series", self.ids)

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
            ids=None if self.ids is None else self.ids[index],
        )

    def keep(self, rows: Tensor) -> RaggedSeries:
        """Every series without the rows where ``rows``, bool ``(N,)``, is False; a series may be left without any."""
        before = torch.nn.functional.pad(torch.cumsum(rows, 0), (1, 0))
        values, coordinates = self.values[rows], self.coordinates[rows]
        return dataclasses.replace(self, values=values, coordinates=coordinates, splits=before[self.splits])

    def at(self, coordinates: Sequence[float]) -> RaggedSeries:
        """The same series with rows at other ``coordinates``, rising and the same for all; their values are 0."""
        places = torch.tensor(coordinates, dtype=torch.float64, device=self.values.device)
        rows = len(self) * len(places)
        return dataclasses.replace(
            self,
            values=self.values.new_zeros(rows, self.values.shape[1]),
            coordinates=places.repeat(len(self))[:, None],
            splits=torch.arange(len(self) + 1, device=places.device) * len(places),
        )

    def last(self) -> Tensor:
        """The last value of each channel in each series ``(B, C)``; nan where there is none."""
        observed = ~self.values.isnan()
        rows = torch.arange(1, len(observed) + 1, device=observed.device)[:, None]
        latest = torch.where(observed, rows, 0).cummax(0).values
        latest = torch.nn.functional.pad(latest, (0, 0, 1, 0))[self.splits[1:]]
        # Counted from 1, so that 0 is a row of nan; what lies before a series belongs to another one.
        latest = torch.where(latest > self.splits[:-1, None], latest, 0)
        return torch.nn.functional.pad(self.values, (0, 0, 1, 0), value=torch.nan).gather(0, latest)

    def cells(self, values: Tensor | None = None) -> list[tuple[int, float, str, float]]:
        """Id of the series, coordinate, channel and value wherever a value is known: a table in long form.

        Args:
            values: ``(N, C)``, others to take in their place; None = the series' own.
        """
        rows, columns = torch.nonzero(~self.values.isnan(), as_tuple=True)
        sample = self.sample_index()[rows]
        ids = sample if self.ids is None else self.ids[sample]
        channels = self.channels or [str(channel) for channel in range(self.values.shape[1])]
        taken = (self.values if values is None else values)[rows, columns]
        names = (channels[column] for column in columns.tolist())
        return list(zip(ids.tolist(), self.times[rows].tolist(), names, taken.tolist(), strict=True))

    @property
    def times(self) -> Tensor:
        """The coordinates ``(N,)``."""
        return self.coordinates[:, 0]

    def sample_index(self) -> Tensor:
        """Series each row belongs to, int64 ``(N,)``."""
        return sample_of_row(self.splits, len(self.values))

    def joined(self, other: RaggedSeries) -> RaggedSeries:
        """These series, and behind them the ``other`` ones of the same classes, unit and channels."""
        require_alike(self, other, "classes", "unit", "channels")
        named = [samples.ids for samples in (self, other) if samples.ids is not None]
        require(len(named) != 1, "samples to be joined", "all have ids, or none", "ids of one part")
        return dataclasses.replace(
            self,
            values=torch.cat([self.values, other.values]),
            coordinates=torch.cat([self.coordinates, other.coordinates]),
            splits=torch.cat([self.splits, self.splits[-1] + other.splits[1:]]),
            labels=torch.cat([self.labels, other.labels]),
            ids=None if self.ids is None or other.ids is None else torch.cat([self.ids, other.ids]),
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
        return dataclasses.replace(self, **moved, ids=None if self.ids is None else self.ids.to(device))
