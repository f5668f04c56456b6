"""One convolutional network for every sampling: irregular series, point clouds, grids of any dimension."""

from importlib.metadata import version as _version

from ccnn_irregular.domains import Axis, Grid, Points, Product
from ccnn_irregular.kernels import MLP, SIREN, GaussianMask, Kernel, KernelSpec, MAGNet, RandomFourier
from ccnn_irregular.layers import ContinuousConv, SeparableContinuousConv
from ccnn_irregular.networks import CCNN
from ccnn_irregular.operators import ENGINES, CheckReport, ToleranceError, convolve, explain, make_plan
from ccnn_irregular.solver import Solver

__all__ = [
    "CCNN",
    "ENGINES",
    "MLP",
    "SIREN",
    "Axis",
    "CheckReport",
    "ContinuousConv",
    "GaussianMask",
    "Grid",
    "Kernel",
    "KernelSpec",
    "MAGNet",
    "Points",
    "Product",
    "RandomFourier",
    "SeparableContinuousConv",
    "Solver",
    "ToleranceError",
    "__version__",
    "convolve",
    "explain",
    "make_plan",
]

__version__ = _version("ccnn-irregular")  # that of pyproject.toml
