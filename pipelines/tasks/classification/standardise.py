"""Values of zero mean and unit deviation, by the training part or each sample by itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ccnn_irregular.datasets.processing.moments import mean_and_deviation
from ccnn_irregular.domains import Domain, Points
from ccnn_irregular.layers import mean_over_positions

__all__ = ["Standardise"]


class Standardise(nn.Module):
    """Values minus mean, over standard deviation, of each channel of the training part.

    Args:
        channels: number of channels.
        each: divide every sample by its own standard deviation instead, for recordings of unequal loudness. What pads a
            sample is no part of it; samples read as points count by their quadrature weights. A sample that is
            constant, or weighs nothing, has none and is divided as the others of the training part are.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, channels: int, each: bool = False) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("scale", torch.ones(channels))
        self.each = each

    def extra_repr(self) -> str:
        return f"{len(self.mean)}{', each=True' if self.each else ''}"

    @torch.no_grad()
    def fit(self, values: Tensor, weights: Tensor | None = None) -> None:
        """Take mean and scale from ``(N, C, ...)``; nan is left out, a constant channel keeps its scale.

        Args:
            values: of the training part.
            weights: what each of its ``N`` times nodes rows counts, ``(N * ...,)``; None = all the same.
        """
        mean, scale = mean_and_deviation(values.movedim(1, -1).flatten(0, -2), weights)
        self.mean.copy_(mean)
        self.scale.copy_(scale)
        self.scale.masked_fill_(~(self.scale > 0), 1.0)

    def forward(self, values: Tensor, domain: Domain, sampled: Tensor | None = None) -> Tensor:
        """``(N, C, ...)`` to the same shape.

        Args:
            values: of samples on a grid, or of points.
            domain: where they were taken.
            sampled: of a grid, bool ``(N, 1, ...)``: elsewhere values pad their sample and become 0; None = everywhere.
        """
        shape = (1, -1, *(1,) * (values.ndim - 2))
        centred = values - self.mean.reshape(shape)
        scale = self.scale.reshape(shape)
        if self.each:
            of_sample = _own_deviation(values, domain, sampled)
            scale = torch.where(of_sample > 0, of_sample, scale)
        result = centred / scale
        return result if sampled is None else torch.where(sampled, result, 0.0)


def _own_deviation(values: Tensor, domain: Domain, sampled: Tensor | None) -> Tensor:
    """Standard deviation of the sample that each value belongs to; broadcasts with the values."""
    points = domain.irregular
    return _deviation_on_grid(values, sampled) if points is None else _deviation_of_points(values, points)


def _deviation_on_grid(values: Tensor, sampled: Tensor | None) -> Tensor:
    """Standard deviation of each sample ``(B, C, ...)`` about its channels' means, ``(B, 1, 1, ...)``."""
    nodes = tuple(range(2, values.ndim))
    if sampled is None:
        sampled = values.new_ones((1, 1, *values.shape[2:]), dtype=torch.bool)
    shares = sampled / sampled.sum(nodes, keepdim=True).clamp(min=1)
    # From the lowest value on: exactly zero where a channel is constant.
    lowest = torch.where(sampled, values, torch.inf).amin(nodes, keepdim=True)
    offset = torch.where(sampled, values - lowest, 0.0)
    largest = offset.amax((1, *nodes), keepdim=True)
    relative = offset / torch.where(largest > 0, largest, 1.0)  # squares of large values are infinite
    mean = (relative * shares).sum(nodes, keepdim=True)
    variance = ((relative - mean).square() * shares).sum(nodes, keepdim=True)
    return largest * variance.mean(1, keepdim=True).sqrt()


def _deviation_of_points(values: Tensor, points: Points) -> Tensor:
    """The same of the sample that each point ``(N, C)`` belongs to, ``(N, 1)``; channels never seen are left out."""
    sample, weights = points.sample_index(), points.weights
    read = (weights if weights.ndim == 2 else weights[:, None]) > 0
    read = read.expand_as(values)
    channels = values.new_zeros(points.samples, values.shape[1])
    index = sample[:, None].expand_as(values)
    lowest = channels.scatter_reduce(0, index, torch.where(read, values, torch.inf), "amin", include_self=False)
    offset = torch.where(read, values - lowest[sample], 0.0)
    largest = channels[:, 0].scatter_reduce(0, sample, offset.amax(1), "amax")
    relative = offset / torch.where(largest > 0, largest, 1.0)[sample, None]
    centred = relative - mean_over_positions(relative, points)[sample]
    seen = channels.scatter_reduce(0, index, read.to(values.dtype), "amax").sum(1)
    variance = mean_over_positions(centred.square(), points).sum(1) / seen.clamp(min=1)
    return (largest * variance.sqrt())[sample, None]
