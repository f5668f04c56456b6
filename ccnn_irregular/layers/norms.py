"""Norms whose statistics are those of the function that was sampled, on every domain."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from ccnn_irregular import batch_statistics
from ccnn_irregular._checks import require
from ccnn_irregular._transforms import transforms_active
from ccnn_irregular.domains import Domain
from ccnn_irregular.layers.positions import mean_over_positions, per_channel, weighted_statistics, without_unread

__all__ = ["BatchNorm", "InstanceNorm"]


@final
class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation of the channels over all entries and positions, on every domain.

    On grids this is ``nn.BatchNorm1d``, whose state_dict it shares. On Points and Product the statistics of a batch are
    those of the function that was sampled: positions count by their quadrature weights. Doubling every point at half
    its weight changes nothing, and what weighs 0 is never read. The running variance is then the weighted variance
    itself: the factor n / (n - 1) that it has on grids would follow the density.
    """

    def forward(self, values: Tensor, domain: Domain) -> Tensor:  # type: ignore[override]  # weights matter
        """``(N, C, *sizes)`` on ``domain`` to the same shape.

        Raises:
            ValueError: no point of a batch in training weighs anything.
        """
        rule = "be in evaluation mode, or an InstanceNorm, under torch.func and forward-mode differentiation"
        writes = self.training and self.running_mean is not None
        require(not (writes and transforms_active()), "BatchNorm", rule, "training, which writes running statistics")
        points = domain.irregular
        if points is not None:
            values = without_unread(values, points)
        stored = not self.training and self.running_mean is not None
        if stored or points is None:
            flat = values.flatten(2) if values.ndim > 3 else values
            if not self.training or not batch_statistics.suits(flat, self.weight, self.bias):
                return super().forward(flat).reshape(values.shape)
            result, mean, variance = batch_statistics.normalised(flat, self.weight, self.bias, self.eps)
            count = flat.shape[0] * flat.shape[2]
            self._follow(mean, variance * (count / (count - 1)))
            return result.reshape(values.shape)
        mean, variance = weighted_statistics(values, points)
        self._follow(mean, variance)
        return self._normalised(values, mean, variance)

    def by_these(self, values: Tensor, domain: Domain) -> Tensor:
        """``values`` normalised by statistics of their own in every mode, with which the stored ones begin.

        For calibration. From the zeros and ones of a new norm the stored statistics would take tens of batches to
        arrive at those of the data, and evaluation before that would normalise by neither.
        """
        points = domain.irregular
        if points is None:
            kept, weights = (self.running_mean, self.running_var), (self.weight, self.bias)
            return nn.functional.batch_norm(values, *kept, *weights, training=True, momentum=1.0, eps=self.eps)
        values = without_unread(values, points)
        mean, variance = weighted_statistics(values, points)
        if self.running_mean is not None and self.running_var is not None:
            self.running_mean.copy_(mean)
            self.running_var.copy_(variance)
        return self._normalised(values, mean, variance)

    def _normalised(self, values: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        scale = torch.rsqrt(variance + self.eps)
        if self.weight is not None:
            scale = scale * self.weight
        shift = -mean * scale if self.bias is None else self.bias - mean * scale
        return torch.addcmul(per_channel(shift, values), values, per_channel(scale, values))

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics, where there are any, towards those of a batch in training."""
        if not self.training or self.running_mean is None:
            return
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean), share)
        self.running_var.lerp_(variance.to(self.running_var), share)


@final
class InstanceNorm(nn.Module):
    """Every channel of every sample normalised over its own positions, in training and afterwards, on every domain.

    On grids this is ``nn.InstanceNorm1d`` with learned scale and shift (Ulyanov et al. 2016, arXiv 1607.08022); on
    Points and Product positions count by their quadrature weights, and what weighs 0 is never read. For samples too
    large or too unequal in shape to be batched: what one becomes depends on no other one and on no running average.

    Args:
        channels: number of channels.
        eps: added to the variance.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, eps={self.eps}"

    def forward(self, values: Tensor, domain: Domain) -> Tensor:
        """``(N, C, *sizes)`` on ``domain`` to the same shape."""
        points = domain.irregular
        if points is None and values.shape[2:].numel() == 1:  # a single position is its own mean; PyTorch refuses it
            return (values - values) + per_channel(self.bias, values)
        if points is None:
            flat = nn.functional.instance_norm(values.flatten(2), weight=self.weight, bias=self.bias, eps=self.eps)
            return flat.reshape(values.shape)
        shape, sample = (*values.shape[:2], *(1,) * (values.ndim - 2)), points.sample_index()
        values = without_unread(values, points).to(torch.promote_types(values.dtype, torch.float32))
        centred = values - mean_over_positions(values, domain)[sample].reshape(shape)
        scale = torch.rsqrt(mean_over_positions(centred.square(), domain) + self.eps)[sample].reshape(shape)
        return centred * scale * per_channel(self.weight, values) + per_channel(self.bias, values)

    def by_these(self, values: Tensor, domain: Domain) -> Tensor:
        """The same: there are no other statistics. For layers that may hold a ``BatchNorm`` instead."""
        return self(values, domain)
