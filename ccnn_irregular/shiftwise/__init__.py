"""Shift-wise convolution: large kernels as sums of small ones, each read some places further on.

A kernel of M x N taps equals M / N kernels of N x N whose results are shifted by multiples of N and added (Li et al.,
CVPR 2025, arXiv 2401.12736).
"""

from ccnn_irregular.shiftwise.blocks import ShiftwiseBlock
from ccnn_irregular.shiftwise.choice import Choice
from ccnn_irregular.shiftwise.conv import ShiftwiseConv
from ccnn_irregular.shiftwise.export import DepthwiseConv, Exported, LayerReport, export, settle
from ccnn_irregular.shiftwise.networks import (
    ShiftwiseNet,
    compress,
    shiftwise_base,
    shiftwise_small,
    shiftwise_tiny,
)
from ccnn_irregular.shiftwise.plain import GridConv, plain
from ccnn_irregular.shiftwise.sparsity import GroupSparsity
from ccnn_irregular.shiftwise.tiled import TiledConv, explain, from_large_kernel

__all__ = [
    "Choice",
    "DepthwiseConv",
    "Exported",
    "GridConv",
    "GroupSparsity",
    "LayerReport",
    "ShiftwiseBlock",
    "ShiftwiseConv",
    "ShiftwiseNet",
    "TiledConv",
    "compress",
    "explain",
    "export",
    "from_large_kernel",
    "plain",
    "settle",
    "shiftwise_base",
    "shiftwise_small",
    "shiftwise_tiny",
]
