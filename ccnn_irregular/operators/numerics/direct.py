"""The convolution on a lattice tap by tap, by PyTorch's depthwise convolution, where that is faster than a transform.

With the channels last in memory it is fast on CPUs, one-dimensional ones as a row of two; its backward pass is not, but
for the fewest taps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ccnn_irregular.operators.numerics.lattice import Lattice

__all__ = ["direct_convolution", "is_direct"]

# Taps up to which it is the faster way, by the number of axes: in passes without gradients, and with them. Measured on
# an AMD EPYC with 16 to 140 channels of 16,384 samples, 32 to 192 pixels a side, 24 voxels a side.
_MOST_TAPS = {1: 31, 2: 225, 3: 343}
_MOST_TAPS_WITH_GRADIENTS = {1: 0, 2: 36, 3: 27}
# Channels are what is computed at once.
_LEAST_CHANNELS = 8


def is_direct(lattices: Sequence[Lattice], taps: Sequence[int], channels: int, *, gradients: bool) -> bool:
    """Whether a depthwise float32 convolution on CPUs is faster tap by tap.

    Args:
        lattices: one per axis.
        taps: number of taps per axis.
        channels: of values and kernels.
        gradients: whether they will be wanted.
    """
    most = (_MOST_TAPS_WITH_GRADIENTS if gradients else _MOST_TAPS).get(len(lattices), 0)
    if math.prod(taps) > most or channels < _LEAST_CHANNELS:
        return False
    return all(one.up == 1 and not one.periodic for one in lattices)


def direct_convolution(
    values: Tensor, taps: Tensor, lattices: Sequence[Lattice], spans: Sequence[tuple[int, int]]
) -> Tensor:
    """Values ``(B, C, *sizes)`` at the source's nodes to ``(B, C, *sizes)`` at the query's; differentiable.

    Args:
        values: float32.
        taps: ``(C, *taps)``.
        lattices: one per axis, as ``is_direct`` lets them pass.
        spans: first and last tap per axis.
    """
    weight, axes = taps.flip(tuple(range(1, taps.ndim)))[:, None], list(zip(lattices, spans, strict=True))
    # Query m meets the nodes from m down - last on.
    before = [last for _, (_, last) in axes]
    behind = [(one.query - 1) * one.down - first - one.source + 1 for one, (first, _) in axes]
    strides = [one.down for one in lattices]
    if len(axes) == 1:
        values, weight = values[:, :, None], weight[:, :, None]
        before, behind, strides = [0, *before], [0, *behind], [1, *strides]
    padding = before
    if before != behind or min(before) < 0:
        around = [number for ends in zip(reversed(before), reversed(behind), strict=True) for number in ends]
        values, padding = torch.nn.functional.pad(values, around), [0] * len(before)
    convolution, layout = (
        (torch.nn.functional.conv2d, torch.channels_last)
        if values.ndim == 4
        else (torch.nn.functional.conv3d, torch.channels_last_3d)
    )
    values, weight = (one.contiguous(memory_format=layout) for one in (values, weight))
    result = convolution(values, weight, stride=strides, padding=padding, groups=len(weight)).contiguous()
    return result[:, :, 0] if len(axes) == 1 else result
