"""A batch of fields: observations, and places that are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ccnn_irregular.datasets.samples import FieldSet
from ccnn_irregular.domains import Points
from ccnn_irregular.pipelines.tasks.field.records import BroughtInLine

__all__ = ["FieldBatch"]


@dataclass(frozen=True)
class FieldBatch:
    """Some fields, each with places where it is observed and others where it is asked for.

    Attributes:
        observed: where, with one sample a field.
        values: float64 ``(n, C)`` there.
        query: where values are wanted, in the same samples.
        targets: float64 ``(m, C)``, the values there, or nan.
        rows: int64 ``(m,)``, rows of the queries in the set of fields.
        noise: float64 ``(n, C)``, variance of the noise of ``values`` relative to the usual one.
        weights: float64 ``(m,)``, what each query counts in scores, see ``FieldSet.areas``.
    """

    observed: Points
    values: Tensor
    query: Points
    targets: Tensor
    rows: Tensor
    noise: Tensor
    weights: Tensor

    @staticmethod
    def of(
        fields: FieldSet,
        observed: Sequence[Tensor],
        asked: Sequence[Tensor],
        in_line: Sequence[BroughtInLine],
        wanted: Sequence[Tensor],
    ) -> FieldBatch:
        """Some of the places of some fields.

        Args:
            fields: all of them.
            observed: rows of each field that are observed.
            asked: rows of each that are asked for.
            in_line: what the observed values of each are taken from.
            wanted: float64 ``(N, C)``, what the targets of each are taken from.
        """

        def points(parts: Sequence[Tensor]) -> Points:
            splits = torch.tensor([0, *(len(rows) for rows in parts)]).cumsum(0)
            return Points(fields.coordinates[torch.cat(list(parts))], splits=splits)

        rows = torch.cat(list(asked))
        return FieldBatch(
            observed=points(observed),
            values=torch.cat([source.values[seen] for source, seen in zip(in_line, observed, strict=True)]),
            query=points(asked),
            targets=torch.cat([values[hidden] for values, hidden in zip(wanted, asked, strict=True)]),
            rows=rows,
            noise=torch.cat([source.noise[seen] for source, seen in zip(in_line, observed, strict=True)]),
            weights=fields.weights(rows),
        )

    @staticmethod
    def at(observed: Tensor, values: Tensor, noise: Tensor, places: Tensor, rows: Tensor) -> FieldBatch:
        """One field asked for at any places, where no truth is known.

        Args:
            observed: float64 ``(n, d)`` places.
            values: float64 ``(n, C)`` there.
            noise: float64 ``(n, C)``, of ``values``.
            places: float64 ``(m, d)``.
            rows: int64 ``(m,)``, number of each place.
        """
        return FieldBatch(
            observed=Points(observed),
            values=values,
            query=Points(places),
            targets=values.new_full((len(places), values.shape[1]), torch.nan),
            rows=rows,
            noise=noise,
            weights=torch.ones(len(places), dtype=torch.float64),
        )

    def __len__(self) -> int:
        return self.observed.samples

    def spans(self) -> Iterator[tuple[slice, slice]]:
        """Rows of the observations and of the queries of each field."""
        seen, asked = self.observed.splits.tolist(), self.query.splits.tolist()
        for field in range(len(self)):
            yield slice(*seen[field : field + 2]), slice(*asked[field : field + 2])

    def to(self, device: torch.device | str, **_: bool) -> FieldBatch:
        """The same batch on ``device``."""
        return FieldBatch(*(part.to(device) for part in vars(self).values()))
