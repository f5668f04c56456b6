"""Interpolation along one axis: from node to node as a matrix, and within each of many series at once."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["NodeMethod", "between_samples", "node_shares"]

NodeMethod = Literal["linear", "cubic"]


def node_shares(places: NDArray[np.floating[Any]], count: int, width: float, method: NodeMethod) -> NDArray[np.float64]:
    """Share of each old node in each new one, ``(len(places), count)``; rows sum to 1.

    Beyond the ends the nearest node counts ("linear"), or the nearest ones within half a step ("cubic").

        Keys R. Cubic convolution interpolation for digital image processing. IEEE Transactions on ASSP 29(6), 1981.

    Args:
        places: of the new nodes, in old steps from the first old node on.
        count: old nodes.
        width: new step over old step where this is above 1, which smooths before it thins out; else 1.
        method: "linear", or "cubic": Keys's cubic convolution (a = -0.5), the "bicubic" of Pillow, and of torch with
            ``antialias=True``.
    """
    places = np.clip(places, -0.5, count - 0.5)
    distance = np.abs(places[:, None] - np.arange(count)) / width
    if method == "linear":
        shares = (1 - distance).clip(0)
    else:
        near = (1.5 * distance - 2.5) * distance**2 + 1
        far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
        shares = np.where(distance < 1, near, np.where(distance < 2, far, 0.0))
    return shares / shares.sum(1, keepdims=True)


def between_samples(
    values: Tensor, coordinates: Tensor, splits: Tensor, places: Tensor, place_splits: Tensor
) -> Tensor:
    """Values of each series at other places, linear between neighbours; beyond its ends its first or last value.

    Args:
        values: ``(N, C)``.
        coordinates: ``(N,)`` float64, strictly increasing within a series.
        splits: ``(B + 1,)`` int64; series b owns the rows ``splits[b]:splits[b + 1]``.
        places: ``(M,)`` float64.
        place_splits: ``(B + 1,)`` int64, the same for ``places``.

    Returns:
        ``(M, C)``; zeros for a series without samples.
    """
    if not len(values):
        return values.new_zeros(len(places), values.shape[1])
    lengths = splits.diff()
    numbers = torch.arange(len(lengths), device=splits.device)
    low, high = coordinates.aminmax()
    # Series after series on one axis, so that one search serves all.
    span = high - low + 1
    keys = numbers.repeat_interleave(lengths) * span + (coordinates - low)
    sample = numbers.repeat_interleave(place_splits.diff())
    right = torch.searchsorted(keys, sample * span + (places.clamp(low, high) - low))
    first, last = splits[:-1][sample], splits[1:][sample] - 1
    right = torch.minimum(torch.maximum(right, first + 1), last).clamp(0, len(values) - 1)
    left = torch.maximum(right - 1, first).clamp(0, len(values) - 1)
    gap = coordinates[right] - coordinates[left]
    share = ((places - coordinates[left]) / torch.where(gap > 0, gap, 1.0)).clamp(0, 1)
    result = torch.lerp(values[left], values[right], share[:, None].to(values.dtype))
    return torch.where((lengths > 0)[sample, None], result, 0.0)
