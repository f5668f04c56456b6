"""Risks that mean what they say at every hour: logits put right by the outcomes of the validation stays.

A network that is trained on whole stays takes an empty afternoon for a sign of health or of illness, so that its mean
risk drifts over the hours while the share of deaths does not. Here the logit z of what was known by hour h becomes

    level(h) + slope(h) z        Platt 1999, once for each of a few hours, linear in between

so that the mean risk at those hours is the share of deaths among the stays it was fitted to. Slopes are not negative:
the order of the stays at one hour stays what it was.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize
from scipy.special import expit
from torch import Tensor, nn

from ccnn_irregular._checks import require

__all__ = ["CALIBRATION_HOURS", "FEWEST_OF_AN_OUTCOME", "HourlyCalibration", "fit_level_and_slope"]

CALIBRATION_HOURS = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 18.0, 24.0, 30.0, 36.0, 42.0, 48.0)
FEWEST_OF_AN_OUTCOME = 10
# A slope is expected to be 1, give or take this much, until the outcomes say otherwise.
_SLOPE_DEVIATION = 0.5


class HourlyCalibration(nn.Module):
    """Level and slope of the logit over the hours of a stay; at first 0 and 1, which change nothing.

    Attributes:
        hours: ``(H,)`` float64 since admission, rising.
        levels: ``(H,)`` float64.
        slopes: ``(H,)`` float64, not negative.
        fitted: bool scalar.
    """

    hours: Tensor
    levels: Tensor
    slopes: Tensor
    fitted: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("hours", torch.tensor(CALIBRATION_HOURS, dtype=torch.float64))
        self.register_buffer("levels", torch.zeros_like(self.hours))
        self.register_buffer("slopes", torch.ones_like(self.hours))
        self.register_buffer("fitted", torch.tensor(False))

    def fit(self, logits: NDArray[np.float64], labels: NDArray[np.int64]) -> None:
        """Take levels and slopes from stays that were not trained on.

        Args:
            logits: ``(H, B)``, of what was known by each of ``hours``.
            labels: ``(B,)``, 0 or 1.

        Raises:
            ValueError: fewer than ``FEWEST_OF_AN_OUTCOME`` deaths or survivors, or other shapes.
        """
        expected = (len(self.hours), len(labels))
        require(logits.shape == expected, "logits", f"have shape {expected}", logits.shape)
        fewest = min(int(labels.sum()), int((1 - labels).sum()))
        rule = f"hold at least {FEWEST_OF_AN_OUTCOME} stays of each outcome to calibrate by"
        require(fewest >= FEWEST_OF_AN_OUTCOME, "labels", rule, fewest)
        pairs = np.array([fit_level_and_slope(row, labels) for row in logits])
        self.levels.copy_(torch.from_numpy(pairs[:, 0]))
        self.slopes.copy_(torch.from_numpy(pairs[:, 1]))
        self.fitted.fill_(True)

    def forward(self, logits: Tensor, hours: Tensor) -> Tensor:
        """Calibrated logits ``(B,)`` float64 of what was known by ``hours`` ``(B,)`` float64; the ends hold beyond."""
        at = hours.clamp(self.hours[0], self.hours[-1])
        right = torch.searchsorted(self.hours, at).clamp(1, len(self.hours) - 1)
        share = (at - self.hours[right - 1]) / (self.hours[right] - self.hours[right - 1])
        level = torch.lerp(self.levels[right - 1], self.levels[right], share)
        slope = torch.lerp(self.slopes[right - 1], self.slopes[right], share)
        return level + slope * logits.double()


def fit_level_and_slope(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> tuple[float, float]:
    """The level and the slope >= 0 of greatest likelihood; with them the mean risk is the share of ones.

    Logistic regression whose slope has the prior N(1, 0.5^2), so that a few deaths do not bend it.

    Args:
        logits: ``(B,)`` float64, finite.
        labels: ``(B,)``, 0 or 1, both present.
    """

    def cost(pair: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        scores = pair[0] + pair[1] * logits
        errors = expit(scores) - labels
        off = (pair[1] - 1) / _SLOPE_DEVIATION**2
        value = np.logaddexp(0, scores).sum() - labels @ scores + off * (pair[1] - 1) / 2
        return float(value), np.array([errors.sum(), errors @ logits + off])

    slope = max(float(minimize(cost, np.array([0.0, 1.0]), jac=True, method="BFGS").x[1]), 0.0)
    scores = slope * logits
    # The mean risk rises with the level, from the share of ones or less to that or more.
    wanted = float(np.log(labels.mean() / (1 - labels.mean())))
    level = brentq(
        lambda one: expit(one + scores).mean() - labels.mean(), wanted - scores.max() - 1, wanted - scores.min() + 1
    )
    return float(level), slope
