"""Cut a kernel of any size into small ones: where each of them lies, and where its result has to be read.

A kernel of M taps covers the places p - (M - 1) // 2 .. p + M // 2 about an output p, as torch's ``padding="same"``
does. Its tiles are N taps each, M / N rounded up of them; the last one is filled up with zeros. The convolution with a
tile is computed wherever it may differ from zero, N - 1 places more than there are values, and read some places on.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ccnn_irregular._checks import require

__all__ = ["convolve_full", "cut", "joined", "offset", "tile_offsets", "width_per_axis"]

_CONVOLUTIONS = {1: torch.nn.functional.conv1d, 2: torch.nn.functional.conv2d, 3: torch.nn.functional.conv3d}


def width_per_axis(width: int | Sequence[int], d: int) -> tuple[int, ...]:
    """Taps of a tile along each of ``d`` axes, one number standing for all."""
    widths = (width,) * d if isinstance(width, int) else tuple(width)
    require(len(widths) == d, "width", f"be one number, or one for each of {d} axes", widths)
    require(all(one >= 1 for one in widths), "width", "be at least 1", widths)
    return widths


def offset(start: int, length: int, width: int) -> int:
    """Where the full convolution with a tile is read for the first output, along one axis.

    Args:
        start: first tap of the tile in the kernel.
        length: taps of the kernel.
        width: taps of the tile.
    """
    return start - (length - 1) // 2 + width - 1


def tile_offsets(lengths: Sequence[int], widths: Sequence[int]) -> list[tuple[int, ...]]:
    """``offset`` of each tile of a kernel, per axis, the last axis running fastest."""
    axes = [
        [offset(start, length, width) for start in range(0, length, width)]
        for length, width in zip(lengths, widths, strict=True)
    ]
    return list(itertools.product(*axes))


def cut(weight: Tensor, widths: Sequence[int]) -> Tensor:
    """A depthwise kernel ``(C, *lengths)`` to its tiles ``(C, K, *widths)``, in the order of ``tile_offsets``."""
    lengths, d = weight.shape[1:], len(widths)
    counts = [-(-length // width) for length, width in zip(lengths, widths, strict=True)]
    fill = [n * width - length for n, width, length in zip(counts, widths, lengths, strict=True)]
    padded = torch.nn.functional.pad(weight, [part for extra in reversed(fill) for part in (0, extra)])
    parts = padded.reshape(len(weight), *itertools.chain(*zip(counts, widths, strict=True)))
    order = [0, *range(1, 2 * d, 2), *range(2, 2 * d + 1, 2)]
    return parts.permute(order).reshape(len(weight), math.prod(counts), *widths)


def joined(tiles: Tensor, lengths: Sequence[int]) -> Tensor:
    """The kernel ``(C, *lengths)`` whose tiles are ``(C, K, *widths)``: the inverse of ``cut``."""
    widths, d = tiles.shape[2:], len(lengths)
    counts = [-(-length // width) for length, width in zip(lengths, widths, strict=True)]
    parts = tiles.reshape(len(tiles), *counts, *widths)
    order = [0, *itertools.chain(*((1 + axis, 1 + d + axis) for axis in range(d)))]
    sizes = [n * width for n, width in zip(counts, widths, strict=True)]
    return parts.permute(order).reshape(len(tiles), *sizes)[(slice(None), *(slice(length) for length in lengths))]


def convolve_full(values: Tensor, tiles: Tensor) -> Tensor:
    """Each channel with its tiles, wherever that may differ from zero.

    Args:
        values: ``(B, C, *sizes)``.
        tiles: ``(C, K, *widths)``.

    Returns:
        ``(B, C, K, *(sizes + widths - 1))``.
    """
    channels, count, *widths = tiles.shape
    convolution = _CONVOLUTIONS[len(widths)]
    padding = [width - 1 for width in widths]
    result = convolution(values, tiles.flatten(0, 1).unsqueeze(1), padding=padding, groups=channels)
    return result.unflatten(1, (channels, count))
