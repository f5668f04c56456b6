"""Places of fields in parts, whatever their order in a file: training, validation, test, and what the test shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ccnn_irregular.datasets.samples import FieldSet
from ccnn_irregular.pipelines.tasks.field.records import referred_to

__all__ = ["PARTS", "FieldParts"]

# Their numbers are their places here.
PARTS = ("train", "validation", "test")
_ABOVE = 1 + 1e-6  # a factor that makes a number drawn in float32 lie below its product


@dataclass(frozen=True)
class FieldParts:
    """Places of fields in parts.

    Attributes:
        fields: differences from a mean (``FieldSet.reference``) are from that over the first part a group has.
        part: int64 ``(N,)``, place of each one's part in ``PARTS``.
        order: int64 ``(N,)``, rows by field and place: what is drawn for places is drawn in this order.
        units: int64 ``(N,)``, the station or profile of each place.
        shown: bool ``(N,)``, known places that the test shows.
    """

    fields: FieldSet
    part: Tensor
    order: Tensor
    units: Tensor
    shown: Tensor

    @staticmethod
    def of(
        fields: FieldSet, shares: Mapping[str, float], test_fields: Sequence[int], show: float, seed: int
    ) -> FieldParts:
        """Decide at random.

        Args:
            fields: as they were read.
            shares: of the places (``held``, ``watched``) and of the units (``held_units``, ``watched_units``) kept for
                the test and for the validation.
            test_fields: numbers of the fields kept for the test.
            show: share of the places of such a field that the test shows.
            seed: of all of it.
        """
        order = _in_order(fields)
        # A place that is a unit of its own is known by its rank too.
        alone = len(fields.units.unique()) == len(fields.units)
        units = order.argsort() if alone else fields.units
        part = _drawn_parts(order, units, fields.known, shares, seed)
        for number in test_fields:
            part[slice(*fields.splits[number : number + 2].tolist())] = PARTS.index("test")
        shown = fields.known & (part != PARTS.index("test"))
        if test_fields:
            shown = _some_shown(fields, order, test_fields, show, seed)
        return FieldParts(referred_to(fields, part), part, order, units, shown)

    @staticmethod
    def undivided(fields: FieldSet) -> FieldParts:
        """All of it for the test, and all that is known shown."""
        part = torch.full((len(fields.units),), PARTS.index("test"))
        return FieldParts(referred_to(fields, part), part, _in_order(fields), fields.units, fields.known)

    @cached_property
    def usable(self) -> Tensor:
        """Places that training may use, bool ``(N,)``."""
        return self.known("train")

    def known(self, part: str) -> Tensor:
        """Known places of a part, bool ``(N,)``."""
        return (self.part == PARTS.index(part)) & self.fields.known

    @cached_property
    def field(self) -> Tensor:
        """Field of each place, int64 ``(N,)``."""
        return torch.repeat_interleave(torch.arange(len(self.fields)), self.fields.splits.diff())

    def counts(self, chosen: Tensor) -> Tensor:
        """Chosen places (bool ``(N,)``) of each field, int64 ``(F,)``."""
        return torch.zeros(len(self.fields), dtype=torch.int64).index_add_(0, self.field, chosen.long())

    def rows(self, numbers: Tensor) -> list[Tensor]:
        """Rows of some fields, those of each in the order of their places."""
        return [self.order[slice(*self.fields.splits[number : number + 2].tolist())] for number in numbers.tolist()]

    def training_rows(self, numbers: Tensor) -> list[Tensor]:
        """Rows of some fields that training may use, those of each in the order of their places."""
        return [rows[self.usable[rows]] for rows in self.rows(numbers)]


def _in_order(fields: FieldSet) -> Tensor:
    """Rows by field and place, as maps are read: latitudes from north to south, all else from small to large."""
    field = torch.repeat_interleave(torch.arange(len(fields)), fields.splits.diff())
    columns = [
        -column if name == "latitude" else column
        for name, column in zip(fields.axes, fields.coordinates.T.numpy(), strict=True)
    ]
    return torch.from_numpy(np.lexsort((*columns[::-1], field.numpy())))


def _drawn_parts(order: Tensor, units: Tensor, known: Tensor, shares: Mapping[str, float], seed: int) -> Tensor:
    """Part of each place by the shares of places and of units."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(int(units.max()) + 1, generator=generator)
    by_unit = drawn[units]
    by_place = torch.empty(len(units))
    by_place[order] = torch.rand(len(units), generator=generator)
    part = torch.full((len(units),), PARTS.index("train"))
    held = shares["held"]
    held_units, both = _limits(drawn[units[known].unique()].double(), shares["held_units"], shares["watched_units"])
    watched = (by_unit < both) | (by_place < held + shares["watched"])
    part[watched] = PARTS.index("validation")
    part[(by_unit < held_units) | (by_place < held)] = PARTS.index("test")
    return part


def _limits(drawn: Tensor, held: float, watched: float) -> tuple[float, float]:
    """Below which numbers drawn for units these are kept for the test, and for test or validation.

    The shares, or as much more as gives each part a unit where few units are drawn for.
    """
    first, second = held, held + watched
    if held > 0:
        first = max(first, float(drawn.min()) * _ABOVE)
    later = drawn[drawn >= first]
    if watched > 0 and len(later):
        second = max(second, float(later.min()) * _ABOVE)
    return first, second


def _some_shown(fields: FieldSet, order: Tensor, test_fields: Sequence[int], show: float, seed: int) -> Tensor:
    """A share of the known places of each test field, one at least."""
    generator = torch.Generator().manual_seed(seed)
    drawn = order[torch.rand(len(order), generator=generator).argsort()]
    shown = torch.zeros_like(fields.known)
    for number in test_fields:
        first, last = fields.splits[number : number + 2].tolist()
        rows = drawn[(drawn >= first) & (drawn < last)]
        rows = rows[fields.known[rows]]
        shown[rows[: max(1, round(show * len(rows)))]] = True
    return shown
