"""A transform taken again and more finely where values cancel, until its error is as asked for."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ccnn_irregular._checks import reject
from ccnn_irregular.operators.numerics.sizes import Pasts

__all__ = ["refined"]

# Errors up to so many rtol are let pass; beyond, rtol is divided by powers of a factor until it is safely less.
_TOLERATED, _SAFE, _FINER, _MOST_FINER = 1.0, 0.7, 4.0, 12
# The error of a result that one query holds may be so many times larger yet than is to be expected.
_FOR_CHANCE = 2.0


def refined(
    transformed: Callable[[float, Tensor | None], tuple[Tensor, Tensor] | str],
    exact: Callable[[float], Tensor | None],
    pasts: Pasts,
    planned: float,
    best: float,
) -> Tensor:
    """A convolution whose error is at most ``planned`` of the result of its own sample and channel.

    Where values cancel, the result is smaller than the rows let expect. By how much is known once it is there: these
    channels are computed anew, with an rtol smaller by as much, or pair by pair where that costs less.

    Args:
        transformed: by rtol and channels (None = all), the result ``(M, D, ...)`` and what is lost, float64
            ``(B, pasts, D)``: the square of the error to be expected, added up over the queries of each past. Or why it
            cannot be had.
        exact: by the rtol that is wanted, the sum pair by pair; None where that is not worth while.
        pasts: the queries whose results are held to the promise together.
        planned: rtol that is promised.
        best: the smallest one there is.
    """
    first = transformed(planned, None)
    if isinstance(first, str):
        reject("plan", f"be made anew for a kernel that has become sharper ({first})", "one that was planned before")
    rtol, (result, lost) = planned, first
    while True:
        excess = _excess(result, lost, pasts, planned)
        channels = (excess > _TOLERATED).nonzero()[:, 0]
        if not len(channels):
            return result
        finer = math.ceil(math.log(float(excess.max()) / _SAFE, _FINER))
        wanted = rtol / _FINER ** max(1, min(finer, _MOST_FINER))
        summed = exact(wanted)
        if summed is not None:
            return result.index_copy(1, channels, summed[:, channels])
        again = transformed(max(best, wanted), channels) if rtol > best else "rounding"
        if isinstance(again, str):
            return result
        rtol = max(best, wanted)
        result, lost = result.index_copy(1, channels, again[0]), lost.index_copy(2, channels, again[1])


def _excess(result: Tensor, lost: Tensor, pasts: Pasts, rtol: float) -> Tensor:
    """The largest error over pasts that is to be expected in each channel, in units of what it may be, ``(D,)``.

    What is lost, squared, is known on average over all places. Where a few queries hold the result, they may have got
    more than their share of it.
    """
    energy, fourths = pasts.sums_of_powers(result.flatten(2))
    few = fourths / energy.square()  # one over how many queries hold the result
    excess = (lost / energy).sqrt() * ((1 + _FOR_CHANCE * few) / rtol)
    return torch.where((energy > 0) & (lost > 0), excess, 0.0).amax((0, 1))
