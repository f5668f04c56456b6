"""CCNNs of published sizes, and the grids their published kernels are meant for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ccnn_irregular._checks import require
from ccnn_irregular.domains import Grid
from ccnn_irregular.kernels import KernelSpec
from ccnn_irregular.networks.ccnn import CCNN

__all__ = ["PUBLISHED_KERNEL", "ccnn_4_110", "ccnn_4_140", "ccnn_6_380", "unit_grid"]

PUBLISHED_KERNEL = KernelSpec(extent=1.0, omega_0=2976.49)
"""Recipe of the CCNN of 4 blocks for coordinates in [-1, 1]; that of 6 blocks has ``hidden=64``."""

_WIDE_KERNEL = replace(PUBLISHED_KERNEL, hidden=64)


def ccnn_4_110(
    d: int = 1, in_channels: int = 1, out_channels: int = 10, kernel: KernelSpec = PUBLISHED_KERNEL, **options: Any
) -> CCNN:
    """The CCNN of 4 blocks and 110 channels, of arXiv 2206.03398's first version; options as of ``ccnn_4_140``."""
    return _preset(110, 4, d, in_channels, out_channels, kernel, **options)


def ccnn_4_140(
    d: int = 1, in_channels: int = 1, out_channels: int = 10, kernel: KernelSpec = PUBLISHED_KERNEL, **options: Any
) -> CCNN:
    """The CCNN of 4 blocks and 140 channels (arXiv 2301.10540) for ``d`` axes.

    The published recipe is meant for coordinates in [-1, 1], see ``unit_grid``: extent 1, and with it width 0.075. In
    other units, with another frequency, or causal as published for sequences, hand in a changed one,
    ``replace(PUBLISHED_KERNEL, extent=392.0, causal=True)`` (``dataclasses.replace``).

    Args:
        d: number of coordinate axes.
        in_channels: channels of the input.
        out_channels: channels of the output (classes).
        kernel: recipe of all kernels. Published values of ``omega_0``, 4,140 / 6,380 where they differ: sequential
            MNIST 2976.49, permuted 2985.63, sequential CIFAR-10 2386.49 / 4005.15, Speech Commands MFCC
            750.18 / 1295.61, raw 1295.61, CIFAR-10 in 2-D 4231.57 / 976.78, CIFAR-100 3521.55 / 679.14, STL-10 954.28,
            ModelNet40 500.
        **options: every other option of ``CCNN``.

    Raises:
        ValueError: see ``CCNN``.
    """
    return _preset(140, 4, d, in_channels, out_channels, kernel, **options)


def ccnn_6_380(
    d: int = 1, in_channels: int = 1, out_channels: int = 10, kernel: KernelSpec = _WIDE_KERNEL, **options: Any
) -> CCNN:
    """The CCNN of 6 blocks and 380 channels (arXiv 2301.10540), its generators twice as wide as those of 4 blocks.

    Options as of ``ccnn_4_140``; a recipe of your own starts from ``replace(PUBLISHED_KERNEL, hidden=64)``.
    """
    return _preset(380, 6, d, in_channels, out_channels, kernel, **options)


def unit_grid(sizes: Sequence[int]) -> Grid:
    """A grid on [-1, 1] along its longest axis and with the same step, centred, on the others.

    On it the published widths and frequencies of the CCNN hold. Two nodes at least lie on the longest axis.
    """
    require(max(sizes, default=0) >= 2, "sizes", "hold an axis of at least 2 nodes", tuple(sizes))
    step = 2 / (max(sizes) - 1)
    return Grid(sizes, [step] * len(sizes), [-step * (size - 1) / 2 for size in sizes])


def _preset(
    hidden_channels: int,
    blocks: int,
    d: int,
    in_channels: int,
    out_channels: int,
    kernel: KernelSpec,
    **options: Any,
) -> CCNN:
    """A network of published size."""
    require(d >= 1, "d", "be at least 1", d)
    return CCNN(in_channels, hidden_channels, out_channels, kernel=kernel.on_axes(d), **{"blocks": blocks} | options)
