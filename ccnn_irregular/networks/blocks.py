"""The residual block that CCNNs are built of."""

from __future__ import annotations

import math
from typing import Literal, final, get_args

import torch
from torch import Tensor, nn

from ccnn_irregular._autocast import outside_autocast
from ccnn_irregular._checks import require
from ccnn_irregular._reprs import one_line
from ccnn_irregular.domains import Domain
from ccnn_irregular.kernels import Kernel
from ccnn_irregular.layers import (
    BatchNorm,
    Dropout,
    DropoutUnit,
    InstanceNorm,
    PointwiseLinear,
    SeparableContinuousConv,
    mean_square,
)
from ccnn_irregular.operators import Plan
from ccnn_irregular.solver import Solver

__all__ = ["ResidualBlock"]

NormName = Literal["batch", "instance"]

# Mean square of all residual branches together, relative to the stream's, after calibration.
_BRANCHES = 1 / 16
# GELU is not homogeneous: a branch is scaled this many times.
_SCALINGS = 3


@final
class ResidualBlock(nn.Module):
    """Norm, separable continuous convolution, GELU, dropout, linear, GELU; plus the input.

    The pre-norm block of the CCNN (arXiv 2206.03398, figure 2; 2301.10540).

    Args:
        channels: number of channels in and out.
        kernel: depthwise kernel of these channels.
        dropout: probability of dropping, in [0, 1).
        dropout_unit: what is dropped, see ``Dropout``.
        norm: "batch" as published, or "instance" for samples of unequal shapes, which come one by one.
        solver: engine and tolerance of the sums, see ``Solver``.
    """

    def __init__(
        self,
        channels: int,
        kernel: Kernel,
        dropout: float = 0.0,
        *,
        dropout_unit: DropoutUnit = "channel",
        norm: NormName = "batch",
        solver: Solver = Solver(),
    ) -> None:
        super().__init__()
        require(norm in get_args(NormName), "norm", f"be one of {get_args(NormName)}", repr(norm))
        self.norm = BatchNorm(channels) if norm == "batch" else InstanceNorm(channels)
        self.conv = SeparableContinuousConv(kernel, channels, solver=solver)
        self.dropout = Dropout(dropout, dropout_unit)
        self.linear = PointwiseLinear(channels, channels)

    __repr__ = one_line

    def extra_repr(self) -> str:
        norm = "" if isinstance(self.norm, BatchNorm) else ", norm='instance'"
        dropout = f", {self.dropout!r}" if self.dropout.probability else ""
        return f"{self.linear.in_features}, {self.conv.kernel!r}{norm}{dropout}"

    def forward(self, values: Tensor, domain: Domain, plan: Plan | None = None) -> Tensor:
        """Values on ``domain`` to values of the same shape."""
        branch = self._branch(self.norm(values, domain), domain, plan)
        # In place, for no backward pass reads what GELU gives; under autocast the stream is wider than the branch.
        return branch.add_(values) if branch.dtype == values.dtype else values + branch

    def _branch(self, normed: Tensor, domain: Domain, plan: Plan | None) -> Tensor:
        hidden = nn.functional.gelu(self.conv(normed, domain, plan=plan))
        return nn.functional.gelu(self.linear(self.dropout(hidden, domain)))

    @torch.no_grad()
    @outside_autocast
    def calibrate(self, values: Tensor, domain: Domain, depth: int = 1, plan: Plan | None = None) -> Tensor:
        """Scale kernel and linear layer for a block at any depth; returns what the block makes of ``values``.

        The kernel keeps the mean square of ``values``, normalised. The linear layer is scaled until the branch has a
        mean square of 1 / (16 depth) of the stream's: blocks add up to about as much whatever their number.

        Args:
            values: what arrives at the block.
            domain: where.
            depth: number of blocks in the network.
            plan: from ``self.conv.depthwise.plan``, if at hand.
        """
        normed = self.norm.by_these(values, domain)
        self.conv.calibrate(domain, values=normed, plan=plan)
        hidden = nn.functional.gelu(self.conv(normed, domain, plan=plan))
        wanted = mean_square(values, domain) * _BRANCHES / depth
        for _ in range(_SCALINGS):
            branch = nn.functional.gelu(self.linear(hidden))
            self.linear.weight.mul_(math.sqrt(wanted / mean_square(branch, domain)))
        return values + nn.functional.gelu(self.linear(hidden))
