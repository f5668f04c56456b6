"""Kernels: functions from an offset in coordinate units to values."""

from ccnn_irregular.kernels.generators import GENERATORS, MLP, SIREN, Generator, MAGNet, RandomFourier
from ccnn_irregular.kernels.generators import register as register_generator
from ccnn_irregular.kernels.isotropic import Isotropic, RadialMask
from ccnn_irregular.kernels.kernel import Kernel
from ccnn_irregular.kernels.masks import MASKS, GaussianMask, Mask
from ccnn_irregular.kernels.masks import register as register_mask
from ccnn_irregular.kernels.spec import KernelSpec
from ccnn_irregular.kernels.spectrum import energy_above
from ccnn_irregular.kernels.substitution import with_tensors

__all__ = [
    "GENERATORS",
    "MASKS",
    "MLP",
    "SIREN",
    "GaussianMask",
    "Generator",
    "Isotropic",
    "Kernel",
    "KernelSpec",
    "MAGNet",
    "Mask",
    "RadialMask",
    "RandomFourier",
    "energy_above",
    "register_generator",
    "register_mask",
    "with_tensors",
]
