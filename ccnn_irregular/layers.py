"""Continuous convolutions as ``nn.Module``s, and the channel-wise layers that work on every domain.

Channels are axis 1 of every value tensor: ``(N, C)`` on Points, ``(B, C, *sizes)`` on Grid,
``(N, C, *sizes)`` on Product.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from ccnn_irregular._checks import require
from ccnn_irregular.domains import Domain, Grid, Product
from ccnn_irregular.kernels import Kernel
from ccnn_irregular.operators import EngineName, Plan, convolve, make_plan
from ccnn_irregular.operators.reference import PairGeometry

__all__ = ["BatchNorm", "ContinuousConv", "PointwiseLinear", "SeparableContinuousConv", "mean_over_positions"]

_CALIBRATION_QUERIES = 64


@final
class ContinuousConv(nn.Module):
    """y(q) = bias + sum_n w_n K(q - p_n) x_n.

    Args:
        kernel: depthwise (C,) or full (D, C), in coordinate units.
        bias: add a learned constant per output channel.
        engine: a name in ``ENGINES`` or "auto".
        rtol: relative error the "spectral" engine may make; all others are exact.
    """

    def __init__(self, kernel: Kernel, *, bias: bool = True, engine: EngineName = "auto", rtol: float = 1e-3) -> None:
        super().__init__()
        self.kernel = kernel
        self.engine: EngineName = engine
        self.rtol = rtol
        self.bias = nn.Parameter(torch.zeros(kernel.out_channels)) if bias else None

    def forward(self, values: Tensor, source: Domain, query: Domain | None = None, plan: Plan | None = None) -> Tensor:
        """Convolve ``values`` on ``source`` and evaluate at ``query``; see ``ccnn_irregular.convolve``."""
        result = convolve(self.kernel, values, source, query, engine=self.engine, rtol=self.rtol, plan=plan)
        return result if self.bias is None else result + _per_channel(self.bias, result)

    def plan(self, source: Domain, query: Domain | None = None, *, batch: int = 1) -> Plan:
        """Geometry for several calls between the same domains; see ``ccnn_irregular.make_plan``."""
        return make_plan(self.kernel, source, query, engine=self.engine, rtol=self.rtol, batch=batch)

    @torch.no_grad()
    def calibrate(self, source: Domain, query: Domain | None = None) -> None:
        """Scale the kernel so that white noise sampled on ``source`` keeps its variance.

        The output variance for white noise of variance 1 is sum_n w_n^2 K(q - p_n)^2, here averaged
        over up to 64 queries and the output channels: it depends on the kernel's L2 mass and on the
        density of the sampling, which only the caller knows.

        Raises:
            ValueError: no pair of source and query lies within the kernel's support.
        """
        gain = _white_noise_gain(self.kernel, source, source if query is None else query)
        require(gain > 0, "source", "reach the queries within the kernel's support", f"a response of {gain}")
        self.kernel.generator.output.weight.mul_(gain**-0.5)
        self.kernel.generator.output.bias.mul_(gain**-0.5)


@final
class SeparableContinuousConv(nn.Module):
    """Depthwise continuous convolution followed by a linear mix of the channels.

    Args:
        kernel: depthwise kernel of the input's channels.
        out_channels: number of channels after the mix.
        bias: learned constants after both steps.
        engine: a name in ``ENGINES`` or "auto".
        rtol: relative error the "spectral" engine may make; all others are exact.

    Raises:
        ValueError: the kernel is not depthwise.
    """

    def __init__(
        self,
        kernel: Kernel,
        out_channels: int,
        *,
        bias: bool = True,
        engine: EngineName = "auto",
        rtol: float = 1e-3,
    ) -> None:
        super().__init__()
        require(kernel.depthwise, "kernel", "be depthwise, of shape (C,)", kernel.shape)
        self.depthwise = ContinuousConv(kernel, bias=bias, engine=engine, rtol=rtol)
        self.pointwise = PointwiseLinear(kernel.out_channels, out_channels, bias=bias)

    @property
    def kernel(self) -> Kernel:
        """The depthwise kernel."""
        return self.depthwise.kernel

    def forward(self, values: Tensor, source: Domain, query: Domain | None = None, plan: Plan | None = None) -> Tensor:
        """Convolve ``values`` on ``source``, evaluate at ``query``, mix the channels."""
        return self.pointwise(self.depthwise(values, source, query, plan))

    def calibrate(self, source: Domain, query: Domain | None = None) -> None:
        """See ``ContinuousConv.calibrate``; the linear mix keeps the variance by its initialisation."""
        self.depthwise.calibrate(source, query)


@final
class PointwiseLinear(nn.Linear):
    """Linear map of the channels at every position; starts out keeping the variance."""

    def reset_parameters(self) -> None:
        nn.init.kaiming_normal_(self.weight, nonlinearity="linear")
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, values: Tensor) -> Tensor:
        """``(N, C_in, *sizes)`` to ``(N, C_out, *sizes)``."""
        if values.ndim == 2:
            return super().forward(values)
        mixed = torch.matmul(self.weight, values.flatten(2))
        if self.bias is not None:
            mixed = mixed + self.bias[:, None]
        return mixed.unflatten(2, values.shape[2:])


@final
class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation of the channels over all entries and positions, for any number of axes."""

    def forward(self, values: Tensor) -> Tensor:
        """``(N, C, *sizes)`` to the same shape."""
        if values.ndim <= 3:
            return super().forward(values)
        return super().forward(values.flatten(2)).unflatten(2, values.shape[2:])


def mean_over_positions(values: Tensor, domain: Domain) -> Tensor:
    """Mean over the positions of each sample, weighted by the quadrature weights: ``(B, C)``.

    On a grid all cells weigh the same. A sample without weight (no points at all) has mean 0.
    """
    if isinstance(domain, Grid):
        return values.flatten(2).mean(2)
    points = domain.points if isinstance(domain, Product) else domain
    rows = values.flatten(2).mean(2) if values.ndim > 2 else values
    weights = points.weights.to(rows.dtype)
    weights = weights[:, None] if weights.ndim == 1 else weights
    sample = points.sample_index()
    sums = rows.new_zeros(points.samples, rows.shape[1]).index_add(0, sample, rows * weights)
    mass = rows.new_zeros(points.samples, weights.shape[1]).index_add(0, sample, weights)
    return sums / torch.where(mass == 0, 1.0, mass)


def _per_channel(parameter: Tensor, values: Tensor) -> Tensor:
    return parameter.reshape(1, -1, *(1,) * (values.ndim - 2))


def _white_noise_gain(kernel: Kernel, source: Domain, query: Domain) -> float:
    """Mean of sum_n w_n^2 K(q - p_n)^2 over queries and output channels."""
    geometry = PairGeometry.build(source, query)
    weights = geometry.source.weights.to(kernel.extent)
    weights = weights[:, None] if weights.ndim == 1 else weights
    count = len(geometry.first)
    queries = torch.linspace(0, count - 1, min(_CALIBRATION_QUERIES, count)).round().long()
    power = 0.0
    for query_row in queries.tolist():
        _, partners, offset = geometry.offsets(query_row, query_row + 1)
        response = kernel(offset.to(kernel.extent)).reshape(len(partners), -1, kernel.in_channels)
        power += float((response * weights[partners, None]).square().sum()) / kernel.out_channels
    return power / max(1, len(queries))
