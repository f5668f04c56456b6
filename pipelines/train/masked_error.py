"""Errors of answers whose targets are known in part: averaged within each variable, then over the variables.

So a variable that is rarely measured counts as much as one that is measured every hour; one that is never known does
not count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from ccnn_irregular.pipelines.train.evaluation import Evaluation, ResultTable
from ccnn_irregular.pipelines.train.reports import write_csv
from ccnn_irregular.pipelines.train.series_data import SeriesData

__all__ = ["MaskedError", "MaskedSkill", "compare", "masked_squared_error"]


def masked_squared_error(answers: Tensor, targets: Tensor) -> Tensor:
    """Squared error as a loss; 0 where no target is known.

    Args:
        answers: ``(M, C)``.
        targets: ``(M, C)``, nan where not known.
    """
    known = ~targets.isnan()
    squares = torch.where(known, answers - targets, 0.0).square()
    return _mean_over_variables(squares.sum(0), known.sum(0))


class MaskedError(Metric):
    """Squared and absolute error of all batches together; ``compute`` gives the squared one.

    Args:
        variables: their number C.
    """

    squared: Tensor
    absolute: Tensor
    count: Tensor

    def __init__(self, variables: int) -> None:
        super().__init__()
        for name in ("squared", "absolute", "count"):
            self.add_state(name, torch.zeros(variables, dtype=torch.float64), "sum")

    def update(self, answers: Tensor, targets: Tensor) -> None:
        """Count a batch, ``(M, C)`` both; targets are nan where not known."""
        known = ~targets.isnan()
        errors = torch.where(known, answers - targets, 0.0).double()
        self.squared += errors.square().sum(0)
        self.absolute += errors.abs().sum(0)
        self.count += known.sum(0)

    def compute(self) -> Tensor:
        return _mean_over_variables(self.squared, self.count)

    def figures(self, names: Sequence[str]) -> dict[str, Any]:
        """For the JSON: both errors, and those of each variable that has targets."""
        columns = zip(names, self.squared.tolist(), self.absolute.tolist(), self.count.int().tolist(), strict=True)
        return {
            "mse": float(_mean_over_variables(self.squared, self.count)),
            "mae": float(_mean_over_variables(self.absolute, self.count)),
            "by_variable": {name: {"mse": a / n, "mae": b / n, "n": n} for name, a, b, n in columns if n},
        }


class MaskedSkill(Metric):
    """Share of a baseline's squared error that is gone: 1 = no error is left, below 0 = worse than the baseline.

    Args:
        variables: their number C.
    """

    def __init__(self, variables: int) -> None:
        super().__init__()
        self.error, self.baseline = MaskedError(variables), MaskedError(variables)

    def update(self, answers: Tensor, baseline: Tensor, targets: Tensor) -> None:
        """Count a batch, ``(M, C)`` each; targets are nan where not known."""
        self.error.update(answers, targets)
        self.baseline.update(baseline, targets)

    def compute(self) -> Tensor:
        return 1 - self.error.compute() / self.baseline.compute()

    def reset(self) -> None:
        super().reset()
        self.error.reset()
        self.baseline.reset()


def compare(
    answers: Mapping[str, Tensor], targets: Tensor, data: SeriesData[Any, Any], checkpoint: str, folder: Path
) -> Evaluation:
    """Errors of several answers to the same question: figures, a table, and ``errors.csv`` by variable.

    Args:
        answers: by their name, ``(M, C)`` each.
        targets: ``(M, C)``, nan where not known.
        data: what they are about.
        checkpoint: for the title of the table.
        folder: of the CSV file.
    """
    results = {}
    for name, answer in answers.items():
        error = MaskedError(len(data.channels))
        error.update(answer, targets)
        results[name] = error.figures(data.channels)
    path = folder / "errors.csv"
    lines = [
        (name, variable, *scores.values())
        for name, result in results.items()
        for variable, scores in result["by_variable"].items()
    ]
    write_csv(path, ("answer", "variable", "mse", "mae", "n"), lines)
    rows = [(name, f"{1e3 * result['mse']:.3f}", f"{1e2 * result['mae']:.3f}") for name, result in results.items()]
    caption = "of scaled values, averaged within each variable, then over the variables"
    title = f"{data.dataset}, {data.part_sizes()['test']} test series, {checkpoint}"
    table = ResultTable(title, ("", "MSE x 10^-3", "MAE x 10^-2"), rows, caption=caption)
    return Evaluation({"results": results}, tables=[table], files=[path])


def _mean_over_variables(sums: Tensor, counts: Tensor) -> Tensor:
    return (sums / counts.clamp_min(1)).sum() / (counts > 0).sum().clamp_min(1)
