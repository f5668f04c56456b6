"""The figures of a classification's test: which classes are taken for which, and accuracy by sampling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ccnn_irregular.pipelines.train.figures import save
from ccnn_irregular.plotting import COLOURS, new_figure

if TYPE_CHECKING:
    from ccnn_irregular.pipelines.tasks.classification.module import ClassPredictions
    from ccnn_irregular.pipelines.tasks.classification.task import Accuracy

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


def samplings(names: Sequence[str], found: Mapping[str, Sequence[Accuracy]], path: Path) -> Path:
    """Accuracy and its interval by sampling; the first row is the sampling trained on.

    Args:
        names: of the samplings.
        found: what came out under each of them, in one way or in several, by the names of the ways.
        path: of the PNG.
    """
    figure = new_figure(6.8, 1.3 + (0.2 + 0.15 * len(found)) * len(names))
    axes = figure.subplots()
    places = np.arange(len(names))
    for number, (label, results) in enumerate(found.items()):
        values, low, high = (
            100 * np.array([getattr(result, name) for result in results]) for name in ("accuracy", "low", "high")
        )
        if number == 0:
            axes.axvline(values[0], color="#999999", linestyle="--", linewidth=1)
        rows, colour = places + 0.28 * (number - (len(found) - 1) / 2), COLOURS[number]
        bars = np.maximum([values - low, high - values], 0)
        axes.errorbar(values, rows, xerr=bars, fmt="o", color=colour, capsize=3, label=label)
        for row, value, end in zip(rows, values, high, strict=True):
            style: dict[str, Any] = {"va": "center", "fontsize": "small", "color": colour}
            axes.annotate(f"{value:.2f}", (end, row), xytext=(5, 0), textcoords="offset points", **style)
    axes.set(xlabel="test accuracy, % (95 % interval)", ylim=(len(names) - 0.5, -0.5))
    axes.set_yticks(places, names)
    axes.margins(x=0.15)
    if len(found) > 1:
        axes.legend(loc="best", fontsize="small")
    return save(figure, path)
