"""Figures of predicted classes and numbers, with intervals, beside what knows of no series."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccnn_irregular._checks import require
from ccnn_irregular.pipelines.tasks.series import risks
from ccnn_irregular.pipelines.tasks.series.risks import CALIBRATION_BINS, Interval
from ccnn_irregular.pipelines.tasks.series.samples import Schema
from ccnn_irregular.pipelines.train.evaluation import Evaluation
from ccnn_irregular.pipelines.train.reports import write_answers

__all__ = ["WITHIN_90", "Resampling", "decided", "evaluate", "write_predictions"]

Floats = NDArray[np.float64]
_DIGITS = 7  # as many as a float32 has
WITHIN_90 = 1.645
"""Standard deviations on either side of the mean of a normal distribution that hold 90 % of it."""


@dataclass(frozen=True)
class Resampling:
    """How intervals are drawn, and what a test draws beside them.

    Attributes:
        resamples: how many times the series are drawn with replacement.
        level: share of the resamples inside an interval.
        seed: of the drawing.
        series: of two classes, id of the series whose risk over time is drawn; default: the outcome that was predicted
            with the highest risk.
    """

    resamples: int = 2000
    level: float = 0.95
    seed: int = 0
    series: str | None = None


def decided(answers: Floats, schema: Schema, threshold: float) -> list[Any]:
    """The class, or the number, that each row of ``SeriesNetwork.answers`` stands for."""
    if schema.kind == "number":
        return [float(f"{answer:.{_DIGITS}g}") for answer in answers[:, 0].tolist()]
    chosen = (answers[:, 0] >= threshold).astype(int) if schema.kind == "binary" else answers.argmax(1)
    return [schema.classes[row] for row in chosen]


def write_predictions(
    path: Path,
    ids: Sequence[str],
    answers: Floats,
    schema: Schema,
    times: Sequence[str] | None = None,
    targets: Floats | None = None,
    threshold: float = 0.5,
    deviation: float = 0.0,
) -> None:
    """Write a CSV of id, time where labels have one, label where targets are given, and the answer.

    That is the prediction and the probabilities of classes, or the standard deviation of a number.

    Args:
        path: of the file.
        ids: the series of each row.
        answers: see ``SeriesNetwork.answers``.
        schema: what labels are.
        times: as the table of labels has them.
        targets: ``(n,)``, class or number.
        threshold: probability from which on the outcome of two classes is predicted.
        deviation: of numbers, 0 where it is not known.
    """
    rows = {"id": ids} | ({} if times is None else {"time": times})
    label = None
    if targets is not None:
        number = schema.kind == "number"
        label = targets.tolist() if number else [schema.classes[int(target)] for target in targets]
    chances = np.hstack([1 - answers, answers]) if schema.kind == "binary" else answers
    by_name = dict(zip(schema.classes, chances.T.tolist(), strict=True)) if schema.kind != "number" else None
    known = schema.kind == "number" and deviation > 0
    spread = [f"{deviation:.6g}"] * len(answers) if known else None
    write_answers(path, rows, decided(answers, schema, threshold), by_name, label, spread)


def evaluate(
    answers: Floats,
    targets: Floats,
    groups: NDArray[np.int64],
    schema: Schema,
    mean: float,
    drawn: Resampling = Resampling(),
    deviation: float = 0.0,
) -> Evaluation:
    """Figures and a table.

    Args:
        answers: see ``SeriesNetwork.answers``.
        targets: ``(n,)``, class or number.
        groups: ``(n,)``, the series of each sample: intervals are of series drawn with replacement.
        schema: what labels are.
        mean: of the numbers in training, the baseline.
        drawn: how intervals are drawn.
        deviation: of numbers, 0 where it is not known.

    Raises:
        ValueError: one class only, where two are told apart.
    """
    title = f"{len(targets)} samples of {len(np.unique(groups))} series"
    how: dict[str, Any] = {"resamples": drawn.resamples, "level": drawn.level, "seed": drawn.seed}
    about: dict[str, Any] = {"n": len(targets), "bootstrap": how}
    if schema.kind == "binary":
        outcome = schema.classes[-1]
        count = int(targets.sum())
        rule = "hold both classes to be tested by"
        require(0 < count < len(targets), "labels", rule, f"{count} of {outcome!r} in {len(targets)}")
        title += f", {count} of {outcome!r}"
        about["outcomes"] = count
        results = risks.evaluate(targets, answers[:, 0], groups, **how)
    else:
        metrics = _of_numbers(mean, deviation) if schema.kind == "number" else _of_classes()
        results = {name: _interval(metric, answers, targets, groups, drawn) for name, metric in metrics.items()}
    return Evaluation({"metrics": results} | about, tables=[risks.table({"network": results}, title)])


Metric = Callable[[Floats, Floats], float]


def _of_numbers(mean: float, deviation: float) -> dict[str, Metric]:
    def explained(answers: Floats, targets: Floats) -> float:
        total = np.square(targets - targets.mean()).sum()
        return float(1 - np.square(answers[:, 0] - targets).sum() / total) if total > 0 else float("nan")

    found: dict[str, Metric] = {
        "RMSE": lambda answers, targets: float(np.sqrt(np.square(answers[:, 0] - targets).mean())),
        "mean absolute error": lambda answers, targets: float(np.abs(answers[:, 0] - targets).mean()),
        "R2": explained,
        "RMSE of the training mean": lambda answers, targets: float(np.sqrt(np.square(mean - targets).mean())),
    }
    if deviation > 0:
        found["within the 90 % interval"] = lambda answers, targets: float(
            (np.abs(answers[:, 0] - targets) <= WITHIN_90 * deviation).mean()
        )
    return found


def _of_classes() -> dict[str, Metric]:
    from sklearn import metrics

    def macro(answers: Floats, targets: Floats) -> float:
        return float(metrics.f1_score(targets, answers.argmax(1), average="macro"))

    def log_loss(answers: Floats, targets: Floats) -> float:
        of_truth = answers[np.arange(len(targets)), targets.astype(int)]
        return float(-np.log(np.maximum(of_truth, 1e-300)).mean())

    def brier(answers: Floats, targets: Floats) -> float:
        truth = np.eye(answers.shape[1])[targets.astype(int)]
        return float(np.square(answers - truth).sum(1).mean())

    return {
        "accuracy": lambda answers, targets: float((answers.argmax(1) == targets).mean()),
        "macro F1": macro,
        "log loss": log_loss,
        "calibration error": _calibration_error,
        "Brier score": brier,
        "share of the commonest class": lambda answers, targets: float(
            np.bincount(targets.astype(int)).max() / len(targets)
        ),
    }


def _calibration_error(answers: Floats, targets: Floats) -> float:
    """Mean distance, over tenths of the probability of the chosen class, of that probability and its share right."""
    chances, right = answers.max(1), answers.argmax(1) == targets
    bins = np.minimum((chances * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    return float(np.abs(np.bincount(bins, chances - right)).sum() / len(targets))


def _interval(
    metric: Metric, answers: Floats, targets: Floats, groups: NDArray[np.int64], asked: Resampling
) -> Interval:
    """A metric, and what most of the resamples of series give."""
    rng = np.random.default_rng(asked.seed)
    _, place = np.unique(groups, return_inverse=True)
    order = np.argsort(place, kind="stable")
    counts = np.bincount(place)
    starts = np.cumsum(counts) - counts
    drawn = []
    for _ in range(asked.resamples):
        chosen = rng.integers(0, len(counts), len(counts))
        lengths = counts[chosen]
        rows = np.arange(lengths.sum()) + np.repeat(starts[chosen] - (np.cumsum(lengths) - lengths), lengths)
        drawn.append(metric(answers[order[rows]], targets[order[rows]]))
    low, high = np.nanpercentile(drawn, [50 * (1 - asked.level), 50 * (1 + asked.level)])
    return Interval(metric(answers, targets), float(low), float(high))
