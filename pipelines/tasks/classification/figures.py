"""The figures of a classification's test: which classes are taken for which, and accuracy by sampling."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ccnn_irregular.pipelines.train.figures import save
from ccnn_irregular.plotting import COLOURS, new_figure

if TYPE_CHECKING:
    from ccnn_irregular.pipelines.tasks.classification.module import ClassPredictions

__all__ = ["confusion", "samplings"]

_MOST_NUMBERED = 20


def confusion(predictions: ClassPredictions, classes: Sequence[str], path: Path) -> Path:
    """How often each class is taken for each other one; counts are written where there is room."""
    count = len(classes)
    matrix = np.bincount(predictions.labels * count + predictions.predicted, minlength=count**2).reshape(count, count)
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    side = 2.2 + 0.26 * min(count, 40)
    figure = new_figure(side + 0.6, side)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the class", shrink=0.8)
    accuracy = predictions.correct / len(predictions.labels)
    axes.set(
        xlabel="predicted", ylabel="true", title=f"{100 * accuracy:.2f} % of {len(predictions.labels)} test samples"
    )
    if count <= _MOST_NUMBERED:
        axes.set_xticks(range(count), classes, fontsize="small", rotation=90 if max(map(len, classes)) > 2 else 0)
        axes.set_yticks(range(count), classes, fontsize="small")
        for row, column in zip(*np.nonzero(matrix), strict=True):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(matrix[row, column]), ha="center", va="center", color=colour, fontsize=6)
    return save(figure, path)


def samplings(rows: Sequence[tuple[str, float, float, float]], path: Path) -> Path:
    """Accuracy (and its interval) by sampling; the first row is the sampling trained on.

    Args:
        rows: name, accuracy, lower and upper end of the interval.
        path: of the PNG.
    """
    figure = new_figure(6.5, 1.2 + 0.35 * len(rows))
    axes = figure.subplots()
    names = [name for name, *_ in rows]
    values, low, high = (100 * np.array([row[column] for row in rows]) for column in (1, 2, 3))
    places = np.arange(len(rows))
    axes.axvline(values[0], color="#999999", linestyle="--", linewidth=1)
    axes.errorbar(
        values, places, xerr=np.maximum([values - low, high - values], 0), fmt="o", color=COLOURS[0], capsize=3
    )
    for place, value, end in zip(places, values, high, strict=True):
        axes.annotate(f"{value:.2f}", (end, place), xytext=(5, 0), textcoords="offset points", va="center")
    axes.set(xlabel="test accuracy, % (95 % interval)", ylim=(len(rows) - 0.5, -0.5))
    axes.set_yticks(places, names)
    axes.margins(x=0.15)
    return save(figure, path)
