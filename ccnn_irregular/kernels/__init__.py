"""Kernels: functions from an offset in coordinate units to values."""

from ccnn_irregular.kernels.generators import SIREN, Generator, MAGNet
from ccnn_irregular.kernels.kernel import Kernel
from ccnn_irregular.kernels.masks import GaussianMask, Mask

__all__ = ["SIREN", "GaussianMask", "Generator", "Kernel", "MAGNet", "Mask"]
