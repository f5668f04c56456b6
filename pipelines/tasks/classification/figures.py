"""The figures of a classification's test: classes taken for others, the worst mistakes, accuracy by sampling."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ccnn_irregular.pipelines.train.figures import save
from ccnn_irregular.pipelines.train.sample_figures import MOST_SHOWN, Drawn, draw_samples
from ccnn_irregular.plotting import COLOURS, new_figure

if TYPE_CHECKING:
    from ccnn_irregular.pipelines.tasks.classification.data import SampleBatch
    from ccnn_irregular.pipelines.tasks.classification.module import ClassPredictions
    from ccnn_irregular.pipelines.tasks.classification.task import Accuracy

__all__ = ["confusion", "mistakes", "samplings"]

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
    title = f"{100 * accuracy:.2f} % of {len(predictions.labels)} test samples right"
    axes.set(xlabel="predicted", ylabel="true", title=title)
    if count <= _MOST_NUMBERED:
        axes.set_xticks(range(count), classes, fontsize="small", rotation=90 if max(map(len, classes)) > 2 else 0)
        axes.set_yticks(range(count), classes, fontsize="small")
        size = 8 if count <= 10 else 6
        for row, column in zip(*np.nonzero(matrix), strict=True):
            colour = "white" if shares[row, column] > 0.5 else "black"
            style: dict[str, Any] = {"ha": "center", "va": "center", "color": colour, "fontsize": size}
            axes.text(column, row, str(matrix[row, column]), **style)
    return save(figure, path)


def mistakes(
    batches: Iterable[SampleBatch],
    predictions: ClassPredictions,
    ids: Sequence[Any],
    classes: Sequence[str],
    unit: str,
    path: Path,
) -> list[Path]:
    """The samples that were taken for another class with the highest probability, the worst first; none = no picture.

    Args:
        batches: the samples that were predicted, in that order.
        predictions: of all of them; labels of -1 are not known.
        ids: of all of them.
        classes: their names.
        unit: of the coordinates.
        path: of the PNG.
    """
    wrong = np.flatnonzero((predictions.predicted != predictions.labels) & (predictions.labels >= 0))
    sure = predictions.probabilities.max(1)
    chosen = wrong[np.argsort(-sure[wrong], kind="stable")][:MOST_SHOWN].tolist()
    if not chosen:
        return []
    found = _found(batches, chosen)
    titles = [
        f"{ids[row]}: true {classes[predictions.labels[row]]},\n"
        f"predicted {classes[predictions.predicted[row]]} ({sure[row]:.2f})"
        for row in chosen
    ]
    heading = f"{len(wrong)} of {len(predictions.labels)} samples are taken for another class"
    return [save(draw_samples([found[row] for row in chosen], titles, heading, unit), path)]


def _found(batches: Iterable[SampleBatch], chosen: Sequence[int]) -> dict[int, Drawn]:
    """Some samples by their numbers."""
    found: dict[int, Drawn] = {}
    start = 0
    for batch in batches:
        found |= {number: _drawn(batch, number - start) for number in chosen if 0 <= number - start < len(batch)}
        start += len(batch)
        if len(found) == len(chosen):
            break
    return found


def _drawn(batch: SampleBatch, place: int) -> Drawn:
    points = batch.domain.irregular
    if points is None:
        return Drawn(batch.values[place].numpy(), grid=batch.domain.uniform)
    rows = slice(*points.splits[place : place + 2].tolist())
    return Drawn(batch.values[rows].numpy(), places=points.coordinates[rows].numpy())


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
