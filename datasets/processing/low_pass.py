"""Low-pass weights for a sampling at another rate, shared by series and images.

The pass band ends at 90 % of the lower one of the two Nyquist frequencies, the stop band begins at that frequency:

    up to 0.9 of it    gain 1 within 0.0002
    from 1.0 of it on  gain at most 0.0002 (at least 75 dB down)

as long as the taps lie on the series. They reach 51 samples of the lower rate to either side; beyond the ends a series
goes on as its own mirror image about its last sample (``extended``), so that it has neither a jump nor a bend there.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["extended", "low_pass_weights", "reach"]

_STOP = 80.0  # dB of the window's design, Kaiser 1974
_ROLL_OFF = 0.1  # between pass and stop band, in Nyquist frequencies
_BETA = 0.1102 * (_STOP - 8.7)
_REACH = math.ceil((_STOP - 7.95) / (2 * 2.285 * math.pi * _ROLL_OFF))  # samples of the lower rate


def extended(rows: NDArray[np.float64], margin: int) -> NDArray[np.float64]:
    """``(B, n)`` with ``margin`` more samples before and behind: x[-k] = 2 x[0] - x[k], ramps go on as ramps."""
    return np.pad(rows, ((0, 0), (margin, margin)), mode="reflect", reflect_type="odd")


def reach(ratio: float) -> int:
    """Old samples to either side of a new one that may have a weight, for new samples per old one."""
    return math.ceil(_REACH / min(ratio, 1.0))


def low_pass_weights(offsets: NDArray[np.float64], ratio: float) -> NDArray[np.float64]:
    """Weights of old samples in new ones: each row keeps constants and ramps to rounding.

    Args:
        offsets: ``(..., n)`` old samples' positions minus that of the new one, in old steps; at least all those within
            ``reach(ratio)``.
        ratio: new rate over old rate.

    Returns:
        ``(..., n)``.
    """
    lower = min(ratio, 1.0)
    place = offsets * (lower / _REACH)
    window = np.i0(_BETA * np.sqrt((1 - place**2).clip(0))) / np.i0(_BETA) * (np.abs(place) <= 1)
    cut = lower * (1 - _ROLL_OFF / 2)
    weights = cut * np.sinc(cut * offsets) * window
    # The sum and the mean position are off by about 1e-4; a line times the window puts both right.
    zeroth, first, second = (lower / _REACH * (window * place**power).sum(-1) for power in range(3))
    missing, drift = 1 - weights.sum(-1), (weights * place).sum(-1)
    scale = lower / _REACH / (zeroth * second - first**2)
    level, slope = scale * (missing * second + drift * first), -scale * (missing * first + drift * zeroth)
    return weights + window * (level[..., None] + slope[..., None] * place)
