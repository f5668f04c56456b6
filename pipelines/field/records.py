"""What the long records of stations tell of their single values: deviations that persist, blunders, a common reference.

A station moves, its screen is painted, a town grows around it: for years it reads too warm. Its neighbours tell by how
much, and only months together tell it apart from weather. Climatologists call bringing records in line homogenisation
(Alexandersson & Moberg 1997, Int. J. Climatol. 17:25-34); what is done here is its simplest form.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ccnn_irregular._checks import reject, require
from ccnn_irregular.domains import Points
from ccnn_irregular.pipelines.field.kriging import FieldAxis, LocalKriging, Metric
from ccnn_irregular.pipelines.field.sources import FieldSet

__all__ = ["BroughtInLine", "as_they_are", "bring_in_line", "in_own_reference"]

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


def bring_in_line(fields: FieldSet, usable: Tensor) -> BroughtInLine:
    """Take from each value what its station deviates from its neighbours over some years, and mark blunders.

    Each usable value is estimated from the other usable ones of its field, by kriging. The running mean of what is
    left, over five years of the station and shrunk towards zero, is taken off. A value that is still farther from its
    estimate than 1.5 standard deviations gets more noise, by the square of that ratio.

    Args:
        fields: of stations, ``times`` rising from field to field.
        usable: bool ``(N,)``; other places tell nothing, and are left as they are.

    Raises:
        ValueError: fields without times, or with other coordinates than latitude and longitude.
    """
    if fields.times is None:
        reject("records", "be left out where fields have no times", f"fields of {', '.join(fields.channels)}")
    names = tuple(axis.name for axis in _AXES)
    require(fields.axes == names, "records", f"be left out where axes are not {', '.join(names)}", fields.axes)
    rising = bool((fields.times.diff() > 0).all())
    require(rising, "times", "rise from field to field", fields.times[:3].tolist())
    rows = torch.nonzero(usable).flatten()
    residual, deviation = _left_out(fields, rows)
    offset = _persisting(fields, rows, residual)
    relative = (residual - offset) / deviation
    usual = relative.square().nanmean(0).sqrt()
    blunder = (relative / usual).abs().div(_USUAL).clamp_min(1).nan_to_num(1.0)
    values, noise = fields.values.clone(), torch.ones_like(fields.values)
    values[rows] -= offset
    noise[rows] = blunder.square()
    return BroughtInLine(values, noise)


def as_they_are(fields: FieldSet) -> BroughtInLine:
    """Values as they were read, all with the usual noise."""
    return BroughtInLine(fields.values, torch.ones_like(fields.values))


def in_own_reference(fields: FieldSet, estimates: Tensor, rows: Tensor) -> Tensor:
    """Estimates as differences from their own mean over what is known, for each group of ``fields.reference``.

    A station's anomalies are differences from its mean over the years it has, and so average to zero there. The
    estimate of a field is in no such reference: it is brought into the station's own, which takes the years in which
    the station was read, not what it read.

    Args:
        fields: with ``reference``, else estimates are returned as they are.
        estimates: float64 ``(m, C)``.
        rows: int64 ``(m,)``, their places.
    """
    if fields.reference is None:
        return estimates
    group = fields.reference[rows]
    known = fields.known[rows]
    shape = (int(fields.reference.max()) + 1, estimates.shape[1])
    sums = estimates.new_zeros(shape).index_add_(0, group[known], estimates[known])
    counts = torch.bincount(group[known], minlength=shape[0]).clamp_min(1)
    return estimates - (sums / counts[:, None])[group]


def _left_out(fields: FieldSet, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Each value minus its estimate from the others of its field, and that estimate's deviation; nan where alone."""
    metric = Metric(_AXES)
    kriging = LocalKriging(
        fields.values.shape[1], len(metric.groups), width=_WIDTHS, nugget=_NUGGET, neighbours=_NEIGHBOURS
    )
    field = torch.searchsorted(fields.splits, rows, right=True) - 1
    splits = torch.cat([field.new_zeros(1), torch.bincount(field, minlength=len(fields)).cumsum(0)])
    held = torch.unique(splits)  # without fields of no usable place
    points = Points(fields.coordinates[rows], splits=held)
    near, present = metric.nearest(points, points, _NEIGHBOURS + 1)
    present &= near != torch.arange(len(rows))[:, None]
    vectors = metric.embedded(points.coordinates)
    with torch.no_grad():
        weights, deviation = kriging(vectors, vectors, near, present)
    estimate = (weights * fields.values[rows][near]).sum(1)
    alone = ~present.any(1, keepdim=True)
    return (fields.values[rows] - estimate).masked_fill(alone, torch.nan), deviation


def _persisting(fields: FieldSet, rows: Tensor, residual: Tensor) -> Tensor:
    """Running mean of the residuals of each unit over ``_YEARS``, shrunk; ``(len(rows), C)``."""
    assert fields.times is not None
    field = torch.searchsorted(fields.splits, rows, right=True) - 1
    unit = fields.units[rows]
    table = residual.new_zeros(len(fields) + 1, int(unit.max()) + 1, residual.shape[1])
    table[field + 1, unit] = residual.nan_to_num(0.0)
    counts = torch.zeros_like(table)
    counts[field + 1, unit] = (~residual.isnan()).double()
    first = torch.searchsorted(fields.times, fields.times - _YEARS / 2)
    last = torch.searchsorted(fields.times, fields.times + _YEARS / 2, right=True)
    sums, totals = (one.cumsum(0)[last] - one.cumsum(0)[first] for one in (table, counts))
    return (sums / (totals + _PRIOR))[field, unit]
