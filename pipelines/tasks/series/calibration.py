"""Risks that mean what they say at every time: logits put right by the labels of the validation samples.

A network that is trained on whole series takes an empty afternoon for a sign of health or of illness, so that its mean
risk drifts over the hours while the share of deaths does not. Here the logit z of what was known by time t becomes

    level(t) + slope(t) z        Platt 1999, once for each of a few times, linear in between

so that the mean risk at those times is the share of the outcome among the samples it was fitted to. Slopes are not
negative: the order of the samples at one time stays what it was. Logits of several classes have a slope alone, the
inverse of a temperature (Guo et al. 2017, arXiv 1706.04599).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize, minimize_scalar
from scipy.special import expit, logsumexp
from torch import Tensor, nn

from ccnn_irregular._checks import require

__all__ = ["FEWEST_OF_A_CLASS", "SHARES_OF_THE_TIME", "Calibration", "fit_level_and_slope", "fit_slope"]

Floats = NDArray[np.float64]
# Of 48 hours: 1, 2, 3, 4, 6, 8, 12, 18, ... Early on more becomes known in an hour.
SHARES_OF_THE_TIME = tuple(hour / 48 for hour in (1, 2, 3, 4, 6, 8, 12, 18, 24, 30, 36, 42, 48))
FEWEST_OF_A_CLASS = 10
# A slope is expected to be 1, give or take this much, until the labels say otherwise.
_SLOPE_DEVIATION = 0.5
_STEEPEST = 20.0


class Calibration(nn.Module):
    """Level and slope of the logits over the time; at first 0 and 1, which change nothing.

    Args:
        times: by which samples are judged, rising.

    Attributes:
        times: ``(H,)`` float64.
        levels: ``(H,)`` float64.
        slopes: ``(H,)`` float64, not negative.
        fitted: bool scalar.
    """

    times: Tensor
    levels: Tensor
    slopes: Tensor
    fitted: Tensor

    def __init__(self, times: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("times", torch.tensor(list(times), dtype=torch.float64))
        self.register_buffer("levels", torch.zeros_like(self.times))
        self.register_buffer("slopes", torch.ones_like(self.times))
        self.register_buffer("fitted", torch.tensor(False))

    def fit(self, logits: Floats, labels: NDArray[np.int64], weights: Floats | None = None) -> None:
        """Take levels and slopes from samples that were not trained on.

        Args:
            logits: ``(H, B, K)``, of what was known by each of ``times``; of two classes K is 1.
            labels: ``(B,)``, the class.
            weights: ``(H, B)``, how much a sample counts at each of the times; None = alike. A time at which some class
                has less than ``FEWEST_OF_A_CLASS`` takes what all samples give.

        Raises:
            ValueError: fewer than ``FEWEST_OF_A_CLASS`` of a class, or other shapes.
        """
        expected = (len(self.times), len(labels))
        require(logits.shape[:2] == expected, "logits", f"have shape {expected}", logits.shape[:2])
        classes = max(2, logits.shape[2])
        fewest = int(np.bincount(labels, minlength=classes).min())
        rule = f"hold at least {FEWEST_OF_A_CLASS} of each class to calibrate by"
        require(fewest >= FEWEST_OF_A_CLASS, "labels", rule, fewest)
        for place, row in enumerate(logits):
            counts = np.ones(len(labels)) if weights is None else weights[place]
            if np.bincount(labels, counts, minlength=classes).min() < FEWEST_OF_A_CLASS:
                counts = np.ones(len(labels))
            pair = (
                (0.0, fit_slope(row, labels, counts)) if classes > 2 else fit_level_and_slope(row[:, 0], labels, counts)
            )
            self.levels[place], self.slopes[place] = pair
        self.fitted.fill_(True)

    def forward(self, logits: Tensor, times: Tensor) -> Tensor:
        """Calibrated logits ``(B, K)`` float64 of what was known by ``times`` ``(B,)``; the ends hold beyond."""
        at = times.to(self.times).clamp(self.times[0], self.times[-1])
        right = torch.searchsorted(self.times, at).clamp(min(1, len(self.times) - 1), len(self.times) - 1)
        left = (right - 1).clamp(min=0)
        share = ((at - self.times[left]) / (self.times[right] - self.times[left])).nan_to_num()
        level = torch.lerp(self.levels[left], self.levels[right], share)
        slope = torch.lerp(self.slopes[left], self.slopes[right], share)
        return level[:, None] + slope[:, None] * logits.double()

    def shares(self, times: Floats) -> Floats:
        """How much samples that are judged by ``times`` ``(B,)`` count at each of the calibration's, ``(H, B)``."""
        nodes = self.times.numpy()
        return np.stack([np.interp(times, nodes, row) for row in np.eye(len(nodes))])


def fit_level_and_slope(
    logits: Floats, labels: NDArray[np.int64], weights: Floats | None = None
) -> tuple[float, float]:
    """The level and the slope >= 0 of greatest likelihood; with them the mean risk is the share of ones.

    Logistic regression whose slope has the prior N(1, 0.5^2), so that a few deaths do not bend it.

    Args:
        logits: ``(B,)`` float64, finite.
        labels: ``(B,)``, 0 or 1, both present.
        weights: ``(B,)``, how often each counts; None = once.
    """
    counts = np.ones(len(labels)) if weights is None else weights

    def cost(pair: Floats) -> tuple[float, Floats]:
        scores = pair[0] + pair[1] * logits
        errors = counts * (expit(scores) - labels)
        off = (pair[1] - 1) / _SLOPE_DEVIATION**2
        value = counts @ (np.logaddexp(0, scores) - labels * scores) + off * (pair[1] - 1) / 2
        return float(value), np.array([errors.sum(), errors @ logits + off])

    slope = max(float(minimize(cost, np.array([0.0, 1.0]), jac=True, method="BFGS").x[1]), 0.0)
    scores = slope * logits
    # The mean risk rises with the level, from the share of ones or less to that or more.
    share = float(np.average(labels, weights=counts))
    wanted = float(np.log(share / (1 - share)))
    level = brentq(
        lambda one: np.average(expit(one + scores), weights=counts) - share,
        wanted - scores.max() - 1,
        wanted - scores.min() + 1,
    )
    return float(level), slope


def fit_slope(logits: Floats, labels: NDArray[np.int64], weights: Floats) -> float:
    """The slope of greatest likelihood of the logits ``(B, K)`` of several classes, with the same prior."""
    of_truth = logits[np.arange(len(labels)), labels]

    def cost(slope: float) -> float:
        off = (slope - 1) / _SLOPE_DEVIATION
        return float(weights @ (logsumexp(slope * logits, axis=1) - slope * of_truth) + off**2 / 2)

    return float(minimize_scalar(cost, bounds=(0.0, _STEEPEST), method="bounded").x)
