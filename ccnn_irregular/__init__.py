"""One convolutional network for every sampling: irregular series, point clouds, grids of any dimension."""

from ccnn_irregular.domains import Axis, Grid, Points, Product
from ccnn_irregular.kernels import SIREN, GaussianMask, Kernel, MAGNet
from ccnn_irregular.layers import ContinuousConv, SeparableContinuousConv
from ccnn_irregular.networks import CCNN
from ccnn_irregular.operators import ENGINES, convolve, explain, make_plan

__all__ = [
    "CCNN",
    "ENGINES",
    "SIREN",
    "Axis",
    "ContinuousConv",
    "GaussianMask",
    "Grid",
    "Kernel",
    "MAGNet",
    "Points",
    "Product",
    "SeparableContinuousConv",
    "convolve",
    "explain",
    "make_plan",
]
