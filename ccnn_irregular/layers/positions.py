"""Means over the positions of a domain, by their quadrature weights."""

from __future__ import annotations

import torch
from torch import Tensor

from ccnn_irregular._checks import require
from ccnn_irregular._sums import gathered, sums_of_sorted
from ccnn_irregular.domains import Domain, Points, Product
from ccnn_irregular.operators.layout import balance, weighted

__all__ = [
    "mean_over_positions",
    "mean_square",
    "per_channel",
    "weighted_statistics",
    "with_weights_in_values",
    "without_unread",
]


def mean_over_positions(values: Tensor, domain: Domain) -> Tensor:
    """Mean over the positions of each sample, weighted by the quadrature weights: ``(B, C)``.

    On a grid all cells weigh the same. A sample without weight (no points at all) has mean 0. What weighs 0 is never
    read, nan or not. Any number of positions is summed to the accuracy of the values' dtype, float32 at least.
    """
    points = domain.irregular
    if points is None:
        return values.flatten(2).mean(2)
    rows = values.flatten(2).mean(2) if values.ndim > 2 else values
    weights, sample = _weight_columns(points), points.sample_index()
    mass = sums_of_sorted(weights, sample, points.samples)
    # Shares in float64: in small units weights are below what float32 holds.
    shares = weights / gathered(torch.where(mass == 0, 1.0, mass), sample)
    shares = shares.to(torch.promote_types(rows.dtype, torch.float32))
    unread = weights == 0
    read = torch.where(unread, 0.0, rows) if bool(unread.any()) else rows
    return sums_of_sorted(read * shares, sample, points.samples).to(rows.dtype)


def mean_square(values: Tensor, domain: Domain) -> float:
    """Mean square over all channels and positions, the latter by their weights; 0 of no values."""
    points = domain.irregular
    if points is None:
        largest = _largest(values)
        relative = (values / largest).to(torch.promote_types(values.dtype, torch.float32))
        return float(relative.square().mean(dtype=torch.float64)) * largest**2
    shares = _shares(values, points)
    read = torch.where(shares > 0, values.to(shares.dtype), 0.0)
    largest = _largest(read)
    return float(((read / largest).square() * shares).sum(dtype=torch.float64) / values[0].numel()) * largest**2


def weighted_statistics(values: Tensor, points: Points) -> tuple[Tensor, Tensor]:
    """Mean and variance of each channel over all positions by the points' weights, ``(C,)`` each."""
    shares = _shares(values, points)
    read = torch.where(shares > 0, values.to(shares.dtype), 0.0)
    nodes = values[0, 0].numel()
    dims = (0, *range(2, values.ndim))
    mean = (read * shares).sum(dims) / nodes
    return mean, ((read - per_channel(mean, read)).square() * shares).sum(dims) / nodes


def with_weights_in_values(values: Tensor, domain: Domain) -> tuple[Tensor, Domain]:
    """Values times their weights, on points that weigh the same: weights per channel know nothing of groups."""
    points, grid = domain.irregular, domain.uniform
    assert points is not None
    flat = values.flatten(2) if values.ndim > 2 else values[:, :, None]
    factor = balance(points.weights) ** 2
    rows = weighted(flat.movedim(1, 2), points.weights, factor).movedim(2, 1).reshape(values.shape)
    equal = torch.full_like(points.weights[:, 0], factor)
    even = Points(points.coordinates, equal, points.splits, periods=points.periods)
    return rows, even if grid is None else Product(even, grid)


def without_unread(values: Tensor, points: Points) -> Tensor:
    """Values with 0 in place of nan and infinity that weigh 0: times a gradient of 0 they would be nan."""
    unread = _weight_columns(points) == 0
    if not bool(unread.any()):
        return values
    unread = unread.reshape(*unread.shape, *(1,) * (values.ndim - 2))
    return torch.where(unread & ~values.isfinite(), 0.0, values)


def per_channel(parameter: Tensor, values: Tensor) -> Tensor:
    """A parameter ``(C,)`` that broadcasts against values ``(N, C, ...)``."""
    return parameter.reshape(1, -1, *(1,) * (values.ndim - 2))


def _largest(values: Tensor) -> float:
    """Largest absolute value, to divide by before a square would leave the dtype's range; 1 if all are zero."""
    return (float(values.detach().abs().max()) if values.numel() else 0.0) or 1.0


def _shares(values: Tensor, points: Points) -> Tensor:
    """Share of each row of values in the weight of all, ``(N, 1 or C, 1, ...)``, at least float32."""
    weights = _weight_columns(points)
    mass = weights.sum(0)
    require(bool((mass > 0).all()), "source.weights", "hold a positive weight for every channel", mass.min().item())
    shares = (weights / mass).to(torch.promote_types(values.dtype, torch.float32))
    return shares.reshape(*shares.shape, *(1,) * (values.ndim - 2))


def _weight_columns(points: Points) -> Tensor:
    """Quadrature weights, float64 ``(N, 1)`` or ``(N, C)``."""
    weights = points.weights
    return weights[:, None] if weights.ndim == 1 else weights
