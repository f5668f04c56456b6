"""Utility of hourly alarms of sepsis, the score of the PhysioNet/CinC Challenge 2019.

An alarm earns up to 1 from 12 hours before the onset on, most 6 hours before it, and nothing from 3 hours after it on;
none by then costs up to 2; a false alarm costs 0.05. Labels are 1 from 6 hours before the onset.

    Reyna MA, Josef CS, Jeter R, et al. Early prediction of sepsis from clinical data: the PhysioNet/Computing in
    Cardiology Challenge 2019. Crit Care Med 48(2):210-217, 2020. doi:10.1097/CCM.0000000000004145.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ccnn_irregular._checks import require

__all__ = ["best_threshold", "normalised_utility"]

Floats = NDArray[np.float64]
_EARLY, _BEST, _LATE = -12.0, -6.0, 3.0  # hours from the onset
_FALSE_ALARM, _MISSED = -0.05, -2.0


def _utilities(labels: Floats, stays: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """What an alarm and what silence earns in each row, ``(n,)`` both; the rows of a stay are its hours, in order."""
    _, first, place = np.unique(stays, return_index=True, return_inverse=True)
    rows = np.arange(len(labels))
    hour = rows - first[place]
    onset = np.full(len(first), np.inf)
    np.minimum.at(onset, place, np.where(labels > 0, hour - _BEST, np.inf))
    since = hour - onset[place]  # -inf where there is no sepsis
    rising = np.maximum((since - _EARLY) / (_BEST - _EARLY), _FALSE_ALARM)
    falling = (_LATE - since) / (_LATE - _BEST)
    alarm = np.where(since <= _BEST, rising, np.where(since <= _LATE, falling, 0.0))
    silence = np.where((since > _BEST) & (since <= _LATE), _MISSED * (since - _BEST) / (_LATE - _BEST), 0.0)
    return alarm, silence


def normalised_utility(alarms: NDArray[np.bool_], labels: Floats, stays: NDArray[np.int64]) -> float:
    """1 of the best alarms there can be, 0 of none at all.

    Args:
        alarms: ``(n,)``.
        labels: ``(n,)``, 0 or 1.
        stays: ``(n,)``, the stay of each row; the rows of a stay lie together, an hour each, in order.

    Raises:
        ValueError: no stay has sepsis, so that silence is best.
    """
    alarm, silence = _utilities(labels, stays)
    none, best = silence.sum(), np.maximum(alarm, silence).sum()
    require(best > none, "labels", "hold a stay with sepsis", "none")
    return float((np.where(alarms, alarm, silence).sum() - none) / (best - none))


def best_threshold(risks: Floats, labels: Floats, stays: NDArray[np.int64]) -> float:
    """The risk from which on alarms have the highest utility."""
    alarm, silence = _utilities(labels, stays)
    order = np.argsort(-risks, kind="stable")
    gained = np.cumsum((alarm - silence)[order])
    # Equal risks are alarms all at once.
    last = np.append(np.diff(risks[order]) != 0, True)
    return float(risks[order][np.flatnonzero(last)[gained[last].argmax()]])
