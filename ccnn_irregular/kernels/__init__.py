"""Kernels: functions from an offset in coordinate units to values."""

from ccnn_irregular.kernels.generators import MLP, SIREN, Generator, MAGNet, RandomFourier
from ccnn_irregular.kernels.kernel import Kernel
from ccnn_irregular.kernels.masks import GaussianMask, Mask
from ccnn_irregular.kernels.spec import KernelSpec
from ccnn_irregular.kernels.spectrum import energy_above
from ccnn_irregular.kernels.substitution import with_tensors

__all__ = [
    "MLP",
    "SIREN",
    "GaussianMask",
    "Generator",
    "Kernel",
    "KernelSpec",
    "MAGNet",
    "Mask",
    "RandomFourier",
    "energy_above",
    "with_tensors",
]
