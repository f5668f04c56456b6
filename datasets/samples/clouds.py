"""Clouds with a label for each point, laid end to end."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ccnn_irregular._checks import require, require_finite, require_splits
from ccnn_irregular.datasets.samples.protocol import summary

__all__ = ["LabelledClouds"]


@dataclass(frozen=True, repr=False)
class LabelledClouds:
    """B clouds, laid end to end, with values and a label at each point.

    Attributes:
        coordinates: float64 ``(N, 3)``, the third axis upwards.
        values: float32 ``(N, C)``.
        labels: int64 ``(N,)``, index into ``classes``.
        splits: int64 ``(B + 1,)``; cloud b owns the rows ``splits[b]:splits[b + 1]``.
        classes: what the labels mean.
        unit: of the coordinates.
        kinds: int64 ``(B,)``, what each cloud is a kind of, where a kind has some of the classes only.
        possible: bool ``(kinds, classes)``, the classes a cloud of each kind may have.
        origin: float64 ``(3,)``, what was subtracted from the coordinates of the source; None = nothing.

    Raises:
        ValueError: shapes or dtypes that disagree, coordinates or values that are not finite, labels without class.
    """

    coordinates: Tensor
    values: Tensor
    labels: Tensor
    splits: Tensor
    classes: tuple[str, ...]
    unit: str
    kinds: Tensor | None = None
    possible: Tensor | None = None
    origin: Tensor | None = None

    @staticmethod
    def joined(parts: Sequence[LabelledClouds]) -> LabelledClouds:
        """Clouds of the same classes, kinds and origin as one."""
        first = parts[0]
        names = ["coordinates", "values", "labels", *(["kinds"] if first.kinds is not None else [])]
        counts = torch.cat([part.splits.diff() for part in parts])
        columns: dict[str, Any] = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
        return dataclasses.replace(first, splits=torch.nn.functional.pad(counts.cumsum(0), (1, 0)), **columns)

    def __post_init__(self) -> None:
        shape = tuple(self.coordinates.shape)
        require(len(shape) == 2 and shape[1] == 3, "coordinates", "have shape (N, 3)", shape)
        require(self.coordinates.dtype == torch.float64, "coordinates", "be float64", self.coordinates.dtype)
        require_finite("coordinates", self.coordinates)
        rows = self.values.ndim == 2 and len(self.values) == shape[0]
        require(rows, "values", f"have shape ({shape[0]}, C)", tuple(self.values.shape))
        require_finite("values", self.values)
        require(tuple(self.labels.shape) == shape[:1], "labels", f"have {shape[0]} rows", tuple(self.labels.shape))
        named = not len(self.labels) or (int(self.labels.min()) >= 0 and int(self.labels.max()) < len(self.classes))
        require(named, "labels", f"lie in 0..{len(self.classes) - 1}", self.labels.unique().tolist()[:5])
        require_splits(self.splits, shape[0])
        require((self.kinds is None) == (self.possible is None), "kinds", "be given with possible", self.kinds)

    def __len__(self) -> int:
        return len(self.splits) - 1

    def describe(self) -> dict[str, Any]:
        """What they are, as plain values; classes are counted by points."""
        return summary(self, points=len(self.values), channels=self.values.shape[1])

    def __repr__(self) -> str:
        size = f"clouds={len(self)}, points={len(self.values)}, channels={self.values.shape[1]}"
        return f"LabelledClouds({size}, classes={len(self.classes)}, unit={self.unit!r})"

    def rows(self, index: Tensor, splits: Tensor) -> LabelledClouds:
        """The rows ``index`` as clouds that end at ``splits``; kinds are left out."""
        return dataclasses.replace(
            self,
            coordinates=self.coordinates[index],
            values=self.values[index],
            labels=self.labels[index],
            splits=splits,
            kinds=None,
            possible=None,
        )
