"""What training hides of fields and asks for, anew in every epoch: random places and units, or a group of stations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ccnn_irregular._checks import require
from ccnn_irregular.pipelines.tasks.field.parts import FieldParts
from ccnn_irregular.pipelines.tasks.field.records import BroughtInLine, as_they_are, bring_in_line
from ccnn_irregular.pipelines.train.draws import Draws

__all__ = ["GroupHiding", "PlaceHiding", "uniform_rows"]

# Rows of a field that stay, rows that are hidden and asked for, and what the values of both are taken from.
Hidden = tuple[Tensor, Tensor, BroughtInLine]


class PlaceHiding:
    """Hide a share of the training places of a field, and units; at least one place stays and one is hidden.

    Args:
        parts: of the fields.
        fields: int64, numbers of the fields to draw from, of two training places at least.
        shares: of the places, smallest and largest.
        units: share of the units.
        most: places of one field that are asked for at most.
    """

    def __init__(self, parts: FieldParts, fields: Tensor, shares: tuple[float, float], units: float, most: int) -> None:
        self.parts, self.fields, self.shares, self.units, self.most = parts, fields, shares, units, most

    def drawn(self, draws: Draws) -> Iterator[Hidden]:
        """A field for each of the draws."""
        chosen = self.fields[_drawn_rows(draws, "field", len(self.fields))]
        least, largest = self.shares
        shares = least + (largest - least) * draws.uniform("share")
        found = self.parts.training_rows(chosen)
        known = [self.parts.units[rows].unique(return_inverse=True) for rows in found]
        keys = uniform_rows(draws, "places", [len(rows) for rows in found])
        of_units = uniform_rows(draws, "units", [len(units) for units, _ in known])
        as_read = as_they_are(self.parts.fields)
        for rows, (_, unit), key, of_unit, share in zip(found, known, keys, of_units, shares, strict=True):
            order = key.argsort()
            hidden = torch.arange(len(rows)) < round(float(share) * len(rows))
            hidden |= (of_unit < self.units)[unit[order]]
            hidden[0], hidden[-1] = True, False
            yield rows[order[~hidden]], rows[order[hidden]][: self.most], as_read


class GroupHiding:
    """Hide one group of stations in each field, from all months: records are brought in line without it.

    What is asked for is brought in line as what is observed is: the deviation of a station from its neighbours is
    nothing that they could tell.

    Args:
        parts: of the fields.
        share: of the stations that a group holds, at most a half.
        seed: of the groups.
        most: places of one field that are asked for at most.

    Raises:
        ValueError: no field holds stations of two groups.
    """

    def __init__(self, parts: FieldParts, share: float, seed: int, most: int) -> None:
        self.parts, self.most = parts, most
        self.group = self._dealt(round(1 / share), seed)
        self.pairs = self._pairs()

    def _dealt(self, groups: int, seed: int) -> Tensor:
        """Group of each place's station, int64 ``(N,)``; -1 for stations without a place for training."""
        units = self.parts.fields.units
        used = units[self.parts.usable].unique()
        order = torch.randperm(len(used), generator=torch.Generator().manual_seed(seed))
        group = torch.full((int(units.max()) + 1,), -1)
        group[used[order]] = torch.arange(len(used)) % groups
        return group[units]

    def _pairs(self) -> Tensor:
        """Fields and the groups that can be hidden in them, where something else is left; int64 ``(P, 2)``."""
        groups = int(self.group.max()) + 1
        hidden = [self.parts.counts(self.parts.usable & (self.group == group)) for group in range(groups)]
        counts = torch.stack(hidden, 1)
        pairs = torch.nonzero((counts > 0) & (counts < counts.sum(1, keepdim=True)))
        rule = "hold stations of two groups in some month, to hide one of (more stations, or a larger hide_units)"
        require(len(pairs) > 0, "the data", rule, f"{len(self.parts.fields)} months of {groups} groups")
        return pairs

    def drawn(self, draws: Draws) -> Iterator[Hidden]:
        """A field for each of the draws."""
        chosen = self.pairs[_drawn_rows(draws, "field and group", len(self.pairs))]
        found = self.parts.training_rows(chosen[:, 0])
        keys = uniform_rows(draws, "places", [len(rows) for rows in found])
        for rows, key, group in zip(found, keys, chosen[:, 1].tolist(), strict=True):
            hidden = self.group[rows] == group
            yield rows[~hidden], rows[hidden][key[hidden].argsort()][: self.most], self._without[group]

    @cached_property
    def _without(self) -> list[BroughtInLine]:
        """Training values brought in line without each of the groups, whose own are brought in line with the rest."""
        usable = self.parts.usable
        hidden = [self.group == group for group in range(int(self.group.max()) + 1)]
        return [bring_in_line(self.parts.fields, usable & ~group, usable & group) for group in hidden]


def uniform_rows(draws: Draws, purpose: str, counts: Sequence[int]) -> tuple[Tensor, ...]:
    """Uniform numbers for so many rows of each sample."""
    return torch.from_numpy(draws.uniform(purpose, np.array(counts, np.int64))).split(list(counts))


def _drawn_rows(draws: Draws, purpose: str, count: int) -> Tensor:
    """One of so many rows for each sample, int64."""
    return torch.from_numpy(np.floor(draws.uniform(purpose) * count).astype(np.int64))
