"""Figures of predicted classes and numbers, with intervals, beside what knows of no series."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccnn_irregular._checks import require
from ccnn_irregular.pipelines.tasks.risk.evaluation import Interval
from ccnn_irregular.pipelines.tasks.risk.evaluation import evaluate as evaluate_risks
from ccnn_irregular.pipelines.tasks.risk.evaluation import table as risk_table
from ccnn_irregular.pipelines.tasks.series.samples import Schema
from ccnn_irregular.pipelines.train.evaluation import Evaluation, ResultTable

__all__ = ["decided", "evaluate", "labels_of"]

Floats = NDArray[np.float64]
_RESAMPLES = 1000


def decided(answers: Floats, schema: Schema) -> list[Any]:
    """The class, or the number, that each row of ``SeriesNetwork.answers`` stands for."""
    if schema.kind == "number":
        return answers[:, 0].tolist()
    chosen = (answers[:, 0] >= 0.5).astype(int) if schema.kind == "binary" else answers.argmax(1)
    return [schema.classes[one] for one in chosen]


def labels_of(targets: Floats, schema: Schema) -> list[Any]:
    """Labels as the tables have them."""
    return targets.tolist() if schema.kind == "number" else [schema.classes[int(one)] for one in targets]


def evaluate(answers: Floats, targets: Floats, groups: NDArray[np.int64], schema: Schema, mean: float) -> Evaluation:
    """Figures and a table.

    Args:
        answers: see ``SeriesNetwork.answers``.
        targets: ``(n,)``, class or number.
        groups: ``(n,)``, the series of each sample: intervals are of series drawn with replacement.
        schema: what labels are.
        mean: of the numbers in training, the baseline.

    Raises:
        ValueError: one class only, where two are told apart.
    """
    title = f"{len(targets)} samples of {len(np.unique(groups))} series"
    if schema.kind == "binary":
        outcome = schema.classes[-1]
        count = int(targets.sum())
        rule = "hold both classes to be tested by"
        require(0 < count < len(targets), "labels", rule, f"{count} of {outcome!r} in {len(targets)}")
        results = evaluate_risks(targets, answers[:, 0])
        table = risk_table({"network": results}, f"{title}, {count} of {outcome!r}")
        return Evaluation({"metrics": results, "n": len(targets)}, tables=[table])
    metrics = _of_numbers(mean) if schema.kind == "number" else _of_classes()
    results = {name: _interval(metric, answers, targets, groups) for name, metric in metrics.items()}
    rows = [(name, f"{one.value:.4g}", f"{one.low:.4g} to {one.high:.4g}") for name, one in results.items()]
    table = ResultTable(title, ("", "value", "95 % interval"), rows)
    return Evaluation({"metrics": results, "n": len(targets)}, tables=[table])


Metric = Callable[[Floats, Floats], float]


def _of_numbers(mean: float) -> dict[str, Metric]:
    def explained(answers: Floats, targets: Floats) -> float:
        total = np.square(targets - targets.mean()).sum()
        return float(1 - np.square(answers[:, 0] - targets).sum() / total) if total > 0 else float("nan")

    return {
        "RMSE": lambda answers, targets: float(np.sqrt(np.square(answers[:, 0] - targets).mean())),
        "mean absolute error": lambda answers, targets: float(np.abs(answers[:, 0] - targets).mean()),
        "R2": explained,
        "RMSE of the training mean": lambda answers, targets: float(np.sqrt(np.square(mean - targets).mean())),
    }


def _of_classes() -> dict[str, Metric]:
    from sklearn import metrics

    def macro(answers: Floats, targets: Floats) -> float:
        return float(metrics.f1_score(targets, answers.argmax(1), average="macro"))

    def log_loss(answers: Floats, targets: Floats) -> float:
        own = answers[np.arange(len(targets)), targets.astype(int)]
        return float(-np.log(np.maximum(own, 1e-300)).mean())

    return {
        "accuracy": lambda answers, targets: float((answers.argmax(1) == targets).mean()),
        "macro F1": macro,
        "log loss": log_loss,
        "share of the commonest class": lambda answers, targets: float(
            np.bincount(targets.astype(int)).max() / len(targets)
        ),
    }


def _interval(metric: Metric, answers: Floats, targets: Floats, groups: NDArray[np.int64]) -> Interval:
    """A metric, and what 95 % of the resamples of series give."""
    rng = np.random.default_rng(0)
    _, place = np.unique(groups, return_inverse=True)
    order = np.argsort(place, kind="stable")
    counts = np.bincount(place)
    starts = np.cumsum(counts) - counts
    drawn = []
    for _ in range(_RESAMPLES):
        chosen = rng.integers(0, len(counts), len(counts))
        lengths = counts[chosen]
        rows = np.arange(lengths.sum()) + np.repeat(starts[chosen] - (np.cumsum(lengths) - lengths), lengths)
        drawn.append(metric(answers[order[rows]], targets[order[rows]]))
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return Interval(metric(answers, targets), float(low), float(high))
