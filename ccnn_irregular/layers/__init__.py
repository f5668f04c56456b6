"""Continuous convolutions as ``nn.Module``s, and the channel-wise layers that work on every domain.

Channels are axis 1 of every value tensor: ``(N, C)`` on Points, ``(B, C, *sizes)`` on Grid,
``(N, C, *sizes)`` on Product.
"""

from ccnn_irregular.layers.convolutions import ContinuousConv, SeparableContinuousConv
from ccnn_irregular.layers.dropout import Dropout, DropoutUnit
from ccnn_irregular.layers.norms import BatchNorm, InstanceNorm
from ccnn_irregular.layers.pointwise import PointwiseLinear, shuffle_channels
from ccnn_irregular.layers.positions import mean_over_positions, mean_square
from ccnn_irregular.layers.sampled import SampledConv, sampled_kernel
from ccnn_irregular.layers.scale import warn_uncalibrated
from ccnn_irregular.layers.strides import coarser, finer

__all__ = [
    "BatchNorm",
    "ContinuousConv",
    "Dropout",
    "DropoutUnit",
    "InstanceNorm",
    "PointwiseLinear",
    "SampledConv",
    "SeparableContinuousConv",
    "coarser",
    "finer",
    "mean_over_positions",
    "mean_square",
    "sampled_kernel",
    "shuffle_channels",
    "warn_uncalibrated",
]
