"""Metrics of predicted risks with bootstrap intervals, as a table and as JSON.

The metrics are those of scikit-learn and torchmetrics. The bootstrap needs each of them a thousand times: here they
are computed for all resamples at once, as weighted metrics on scores that are sorted only once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ccnn_irregular._checks import require
from ccnn_irregular.pipelines.train.evaluation import ResultTable

__all__ = ["METRICS", "Interval", "bootstrap", "evaluate", "point_estimates", "table"]

METRICS = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "min_se_ppv": "min(Se,+P)",
    "ece": "calibration error",
    "brier": "Brier score",
}
CALIBRATION_BINS = 10
# Weights of this many (resample, sample) pairs are held at once: 32 MB, and half a dozen arrays of that size.
_PAIRS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Interval:
    """A metric and its bootstrap interval."""

    value: float
    low: float
    high: float


def evaluate(
    labels: NDArray,
    probabilities: NDArray[np.float64],
    groups: NDArray | None = None,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """Every metric of ``METRICS`` with its percentile bootstrap interval.

    Args:
        labels: ``(B,)``, 0 or 1, both present.
        probabilities: ``(B,)`` in [0, 1].
        groups: ``(B,)``, what is drawn together, such as the series of each sample; None = each sample alone.
        resamples: groups are drawn with replacement this many times, whatever their labels; a resample with one class
            defines no AUROC and is left out of that metric's interval.
        level: share of the resamples inside the interval.
        seed: of the resamples.

    Raises:
        ValueError: lengths differ, a probability is outside [0, 1], or one class is missing.
    """
    labels, probabilities = _checked(labels, probabilities)
    require(0 < level < 1, "level", "be between 0 and 1", level)
    values = point_estimates(labels, probabilities)
    drawn = bootstrap(labels, probabilities, groups, resamples=resamples, seed=seed)
    tails = [50 * (1 - level), 50 * (1 + level)]
    # Shares all of them; sums of rounded weights may miss 0 and 1 by a bit.
    bounds = {name: np.nanpercentile(drawn[name], tails).clip(0, 1) for name in METRICS}
    return {name: Interval(values[name], float(low), float(high)) for name, (low, high) in bounds.items()}


def _checked(labels: NDArray, probabilities: NDArray) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    labels = np.asarray(labels).astype(np.int64)
    probabilities = np.ascontiguousarray(probabilities, dtype=np.float64)
    shapes = (labels.shape, probabilities.shape)
    require(labels.ndim == 1 and shapes[0] == shapes[1], "labels and probabilities", "have one shape (B,)", shapes)
    inside = (probabilities >= 0) & (probabilities <= 1)
    require(bool(inside.all()), "probabilities", "be in [0, 1]", probabilities[~inside][:5].tolist())
    count = int(labels.sum())
    require(0 < count < len(labels), "labels", "hold both classes", f"{count} of the outcome in {len(labels)} samples")
    return labels, probabilities


def point_estimates(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> dict[str, float]:
    """AUROC, average precision, max over thresholds of min(recall, precision), expected calibration error, Brier."""
    from sklearn import metrics
    from torchmetrics.functional.classification import binary_calibration_error

    precision, recall, _ = metrics.precision_recall_curve(labels, probabilities)
    error = binary_calibration_error(torch.from_numpy(probabilities), torch.from_numpy(labels), CALIBRATION_BINS, "l1")
    return {
        "auroc": float(metrics.roc_auc_score(labels, probabilities)),
        "auprc": float(metrics.average_precision_score(labels, probabilities)),
        "min_se_ppv": float(np.minimum(precision, recall).max()),
        "ece": float(error),
        "brier": float(metrics.brier_score_loss(labels, probabilities)),
    }


def bootstrap(
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    groups: NDArray | None = None,
    *,
    resamples: int,
    seed: int,
) -> dict[str, NDArray[np.float64]]:
    """Each metric of each resample, ``(resamples,)`` float64; nan where the resample lacks a class."""
    require(resamples >= 1, "resamples", "be at least 1", resamples)
    generator = np.random.default_rng(seed)
    place = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    count = int(place.max()) + 1
    at_once = max(1, _PAIRS_AT_ONCE // len(labels))
    chunks = []
    for start in range(0, resamples, at_once):
        rows = min(at_once, resamples - start)
        drawn = generator.integers(0, count, size=(rows, count)) + count * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        chunks.append(weighted_metrics(labels, probabilities, counts[:, place].astype(np.float64)))
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in METRICS}


def weighted_metrics(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64], weights: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """The metrics of ``point_estimates`` under R weightings at once.

    Args:
        labels: ``(B,)``.
        probabilities: ``(B,)``, ties allowed.
        weights: ``(R, B)``, not negative; a weight of 2 counts a sample twice.

    Returns:
        ``(R,)`` float64 for each metric.
    """
    order = np.argsort(-probabilities, kind="stable")
    labels, probabilities, weights = labels[order], probabilities[order], weights[:, order]
    ranked = _ranking_metrics(labels, probabilities, weights)
    errors = probabilities - labels
    total = weights.sum(1)
    # As torchmetrics has it, to the last bit: a bin owns its lower edge, and a risk of exactly 1 is a bin of its own.
    edges = torch.linspace(0, 1, CALIBRATION_BINS + 1, dtype=torch.float64).numpy()
    bins = np.searchsorted(edges, probabilities, side="right") - 1
    in_bin = bins[:, None] == np.arange(CALIBRATION_BINS + 1)
    ranked["ece"] = np.abs(weights @ (in_bin * errors[:, None])).sum(1) / total
    ranked["brier"] = weights @ errors**2 / total
    return ranked


def _ranking_metrics(labels: NDArray, scores: NDArray, weights: NDArray) -> dict[str, NDArray[np.float64]]:
    """AUROC, AUPRC and min(Se, +P) of samples sorted by falling score; tied ones share one threshold."""
    firsts = np.flatnonzero(np.r_[True, np.diff(scores) != 0])
    positive = np.add.reduceat(weights * labels, firsts, axis=1)
    negative = np.add.reduceat(weights * (1 - labels), firsts, axis=1)
    hits, alarms = positive.cumsum(1), (positive + negative).cumsum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        # Before the first sample of weight above zero there is no alarm and no precision: it must not win the maximum.
        precision = np.where(alarms > 0, hits / alarms, 0.0)
        positives, negatives = hits[:, -1:], alarms[:, -1:] - hits[:, -1:]
        sensitivity = hits / positives
        # A negative is ranked rightly below every positive of a higher threshold, and half below those of its own.
        auroc = (negative * (hits - positive / 2)).sum(1) / (positives * negatives)[:, 0]
        auprc = (positive * precision).sum(1) / positives[:, 0]
    return {"auroc": auroc, "auprc": auprc, "min_se_ppv": np.minimum(sensitivity, precision).max(1)}


def table(results: Mapping[str, Mapping[str, Interval]], title: str) -> ResultTable:
    """One column a metric and one row a model, each value with its interval below it."""

    def shown(name: str, metric: Interval) -> str:
        digits = ".3f" if name in METRICS else ".4g"
        return f"{metric.value:{digits}}\n[dim]{metric.low:{digits}}-{metric.high:{digits}}[/dim]"

    names = list(next(iter(results.values())))
    rows = [(model, *(shown(name, found[name]) for name in names)) for model, found in results.items()]
    return ResultTable(title, ("model", *(METRICS.get(name, name) for name in names)), rows)
