"""What the long records of stations tell of their single values: deviations that persist, blunders, a common reference.

A station moves, its screen is painted, a town grows around it: for years it reads too warm. Its neighbours tell by how
much, and only months together tell it apart from weather. Climatologists call bringing records in line homogenisation
(Alexandersson & Moberg 1997, Int. J. Climatol. 17:25-34); what is done here is its simplest form.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ccnn_irregular._checks import reject, require
from ccnn_irregular.datasets.samples import FieldSet
from ccnn_irregular.domains import Points
from ccnn_irregular.pipelines.tasks.field.kriging import FieldAxis, LocalKriging, Metric

__all__ = ["BroughtInLine", "as_they_are", "bring_in_line", "in_own_reference", "referred_to"]

# Covariance of monthly anomalies: degrees on the sphere, and the nugget relative to their variance. What persists is a
# mean of many residuals and hardly depends on these; the network learns its own.
_AXES = (FieldAxis("latitude", "latitude"), FieldAxis("longitude", "longitude"))
_WIDTHS = (2.2, 3.6, 13.5)
_NUGGET = 0.06
_NEIGHBOURS = 30
_YEARS = 5.0  # of the running mean
_PRIOR = 12.0  # residuals of zero that are added to it: few months prove little
_USUAL = 2.0  # root mean squares, beyond which a residual counts as a blunder (Huber 1964)


@dataclass(frozen=True)
class BroughtInLine:
    """Observed values as their stations' records correct them.

    Attributes:
        values: float64 ``(N, C)``, without the deviation that persists.
        noise: float64 ``(N, C)``, variance of each value's noise relative to the usual one, at least 1.
    """

    values: Tensor
    noise: Tensor


def bring_in_line(fields: FieldSet, shown: Tensor, asked: Tensor | None = None) -> BroughtInLine:
    """Take from each value what its station deviates from its neighbours over some years, and mark blunders.

    Each value is estimated from the shown ones of its field (without itself), by kriging. The running mean of what is
    left, over five years of the station and shrunk towards zero, is taken off. A shown value that is still farther from
    its estimate than twice what is usual gets more noise, by the square of that ratio.

    What is made of shown values depends on shown values alone, to the last bit.

    Args:
        fields: of stations, ``times`` rising from field to field.
        shown: bool ``(N,)``.
        asked: bool ``(N,)``, further places whose values are brought in line with what is shown, without telling
            anything themselves: the targets of training. Other places are left as they are.

    Raises:
        ValueError: fields without times, or with other coordinates than latitude and longitude.
    """
    if fields.times is None:
        reject("records", "be left out where fields have no times", f"fields of {', '.join(fields.channels)}")
    names = tuple(axis.name for axis in _AXES)
    require(fields.axes == names, "records", f"be left out where axes are not {', '.join(names)}", fields.axes)
    rising = bool((fields.times.diff() > 0).all())
    require(rising, "times", "rise from field to field", fields.times[:3].tolist())
    values, noise = fields.values.clone(), torch.ones_like(fields.values)
    rows = torch.nonzero(shown).flatten()
    residual, deviation = _unexplained(fields, rows, rows)
    offset = _persisting(fields, rows, residual)
    relative = (residual - offset) / deviation
    usual = relative.square().nanmean(0).sqrt()
    blunder = (relative / usual).abs().div(_USUAL).clamp_min(1).nan_to_num(1.0)
    values[rows] -= offset
    noise[rows] = blunder.square()
    if asked is not None:
        rest = torch.nonzero(asked & ~shown).flatten()
        values[rest] -= _persisting(fields, rest, _unexplained(fields, rest, rows)[0])
    return BroughtInLine(values, noise)


def as_they_are(fields: FieldSet) -> BroughtInLine:
    """Values as they were read, all with the usual noise."""
    return BroughtInLine(fields.values, torch.ones_like(fields.values))


def in_own_reference(fields: FieldSet, estimates: Tensor, rows: Tensor) -> Tensor:
    """Estimates as differences from their own mean over what is known, for each group of ``fields.reference``.

    A station's anomalies are differences from its mean over the years it has, and so average to zero there. The
    estimate of a field is in no such reference: it is brought into the station's own, which takes the years in which
    the station was read, not what it read. Where that mean is of other places than ``rows``, nothing is taken off.

    Args:
        fields: with ``reference``, else estimates are returned as they are.
        estimates: float64 ``(m, C)``.
        rows: int64 ``(m,)``, their places.
    """
    if fields.reference is None:
        return estimates
    group, known = fields.reference[rows], fields.averaged[rows]
    return estimates - _group_means(estimates, group, known, int(fields.reference.max()) + 1)[group]


def referred_to(fields: FieldSet, part: Tensor) -> FieldSet:
    """Differences from the mean over one part of each group of ``fields.reference``: the first part it has.

    The mean that a data set comes with is over all values, those that are kept for the test among them.

    Args:
        fields: without ``reference`` they are returned as they are.
        part: int64 ``(N,)``, numbers of parts; a group's lowest one makes its mean.
    """
    if fields.reference is None:
        return fields
    group, known = fields.reference, fields.known
    beyond = int(part.max()) + 1
    first = torch.full((int(group.max()) + 1,), beyond).scatter_reduce(0, group[known], part[known], "amin")
    averaged = known & (part == first[group])
    mean = _group_means(fields.values, group, averaged, len(first))
    return replace(fields, values=fields.values - mean[group], mean_over=averaged)


def _group_means(values: Tensor, group: Tensor, counted: Tensor, groups: int) -> Tensor:
    """Mean of the counted rows of ``values (m, C)`` in each group ``(groups, C)``; 0 where there is none."""
    sums = values.new_zeros(groups, values.shape[1]).index_add_(0, group[counted], values[counted])
    return sums / torch.bincount(group[counted], minlength=groups).clamp_min(1)[:, None]


def _unexplained(fields: FieldSet, rows: Tensor, shown: Tensor) -> tuple[Tensor, Tensor]:
    """Values at ``rows`` minus their estimates from the rows ``shown`` of their field, without themselves.

    Returns:
        residuals, nan where no other is shown, and the standard deviations of the estimates; ``(len(rows), C)`` each.
    """
    metric = Metric(_AXES)
    kriging = LocalKriging(
        fields.values.shape[1], len(metric.groups), width=_WIDTHS, nugget=_NUGGET, neighbours=_NEIGHBOURS
    )
    residual = torch.full((len(rows), fields.values.shape[1]), torch.nan, dtype=torch.float64)
    deviation = torch.full_like(residual, torch.nan)
    told = torch.bincount(_field_of(fields, shown), minlength=len(fields))
    answered = torch.nonzero(told[_field_of(fields, rows)] > 0).flatten()
    asked = torch.bincount(_field_of(fields, rows[answered]), minlength=len(fields))
    source, query = (
        Points(fields.coordinates[chosen], splits=torch.nn.functional.pad(counts[told > 0].cumsum(0), (1, 0)))
        for chosen, counts in ((shown, told), (rows[answered], asked))
    )
    near, present = metric.nearest(source, query, _NEIGHBOURS + 1)
    present &= shown[near] != rows[answered][:, None]
    # Stations of one month are mostly those of the next: each arrangement of them is solved once.
    _, place = torch.unique(torch.cat([source.coordinates, query.coordinates]), dim=0, return_inverse=True)
    told_at, asked_at = place[: len(shown)], place[len(shown) :]
    arrangement = torch.cat([asked_at[:, None], told_at[near].masked_fill(~present, -1)], 1)
    distinct, which = torch.unique(arrangement, dim=0, return_inverse=True)
    solved = torch.empty(len(distinct), dtype=torch.int64).scatter_(0, which, torch.arange(len(which)))
    vectors = [vectors[solved] for vectors in metric.embedded(query.coordinates)]
    with torch.no_grad():
        weights, left = kriging(metric.embedded(source.coordinates), vectors, near[solved], present[solved])
    estimate = (weights[which] * fields.values[shown][near]).sum(1)
    alone = ~present.any(1, keepdim=True)
    residual[answered] = (fields.values[rows[answered]] - estimate).masked_fill(alone, torch.nan)
    deviation[answered] = left[which]
    return residual, deviation


def _field_of(fields: FieldSet, rows: Tensor) -> Tensor:
    return torch.searchsorted(fields.splits, rows, right=True) - 1


def _persisting(fields: FieldSet, rows: Tensor, residual: Tensor) -> Tensor:
    """Running mean of the residuals of each unit over ``_YEARS``, shrunk; ``(len(rows), C)``."""
    assert fields.times is not None
    field, unit = _field_of(fields, rows), fields.units[rows]
    table = residual.new_zeros(len(fields) + 1, int(fields.units.max()) + 1, residual.shape[1])
    table[field + 1, unit] = residual.nan_to_num(0.0)
    counts = torch.zeros_like(table)
    counts[field + 1, unit] = (~residual.isnan()).double()
    first = torch.searchsorted(fields.times, fields.times - _YEARS / 2)
    last = torch.searchsorted(fields.times, fields.times + _YEARS / 2, right=True)
    sums, totals = (column.cumsum(0)[last] - column.cumsum(0)[first] for column in (table, counts))
    return (sums / (totals + _PRIOR))[field, unit]
