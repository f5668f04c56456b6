"""Blocks of published networks, of the kinds of convolution in ``layers``, on every domain."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from ccnn_irregular._checks import require
from ccnn_irregular._reprs import sized
from ccnn_irregular.domains import Domain
from ccnn_irregular.kernels import Kernel
from ccnn_irregular.layers import BatchNorm, ContinuousConv, PointwiseLinear
from ccnn_irregular.solver import Solver

__all__ = ["ShuffleUnit"]


@final
class ShuffleUnit(nn.Module):
    """The ShuffleNet unit (Zhang et al. 2018, arXiv 1707.01083, figure 2) with a continuous depthwise convolution.

    Grouped 1x1, norm, ReLU, channel shuffle; depthwise convolution, norm; grouped 1x1, norm. Without ``pool`` the input
    is added (figure 2b). With it the unit may be evaluated elsewhere, at a stride as a rule: what ``pool`` makes of the
    input there comes first, the branch's channels behind it (figure 2c). ReLU at the end.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the result.
        kernel: depthwise kernel between the 1x1 convolutions; its channels are the bottleneck's, a quarter of
            ``out_channels`` in the paper.
        groups: number of groups of either 1x1 convolution.
        pool: depthwise kernel of the input's channels for the shortcut; the paper averages 3 x 3 nodes. Trained along
            unless its parameters ask for no gradient.
        solver: engine and tolerance of the sums, see ``Solver``.

    Raises:
        ValueError: kernels that are not depthwise or of other channels, channels that ``groups`` does not divide, or an
            input that can be neither added nor joined.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: Kernel,
        groups: int,
        *,
        pool: Kernel | None = None,
        solver: Solver = Solver(),
    ) -> None:
        super().__init__()
        require(kernel.depthwise, "kernel", "be depthwise, of shape (C,)", kernel.shape)
        if pool is None:
            require(out_channels == in_channels, "out_channels", f"be the input's {in_channels} to add", out_channels)
            branch = out_channels
        else:
            require(pool.shape == (in_channels,), "pool", f"have shape ({in_channels},), the input's", pool.shape)
            require(out_channels > in_channels, "out_channels", f"exceed the input's {in_channels}", out_channels)
            branch = out_channels - in_channels
        bottleneck = kernel.out_channels
        self.reduce = PointwiseLinear(in_channels, bottleneck, bias=False, groups=groups, shuffle=groups > 1)
        self.reduce_norm = BatchNorm(bottleneck)
        self.depthwise = ContinuousConv(kernel, bias=False, solver=solver)
        self.depthwise_norm = BatchNorm(bottleneck)
        self.expand = PointwiseLinear(bottleneck, branch, bias=False, groups=groups)
        self.expand_norm = BatchNorm(branch)
        self.pool = None if pool is None else ContinuousConv(pool, bias=False, solver=solver)

    def extra_repr(self) -> str:
        return sized(self)

    def forward(self, values: Tensor, source: Domain, query: Domain | None = None) -> Tensor:
        """Values on ``source`` to values on ``query``, None = at the source.

        Raises:
            ValueError: another query than the source without ``pool``.
        """
        query = source if query is None else query
        elsewhere = query is not source and query != source
        require(self.pool is not None or not elsewhere, "query", "be the source for a unit that adds its input", query)
        # Norm and ReLU act channel by channel, so the shuffle may come before them.
        hidden = nn.functional.relu(self.reduce_norm(self.reduce(values), source))
        hidden = self.depthwise_norm(self.depthwise(hidden, source, query), query)
        branch = self.expand_norm(self.expand(hidden), query)
        if self.pool is None:
            return nn.functional.relu(values + branch)
        return nn.functional.relu(torch.cat([self.pool(values, source, query), branch], 1))
