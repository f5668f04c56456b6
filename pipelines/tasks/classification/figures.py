"""The figures of a classification's test: classes taken for others, the worst mistakes, accuracy by sampling."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ccnn_irregular.pipelines.train.figures import save
from ccnn_irregular.plotting import COLOURS, new_figure, with_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ccnn_irregular.pipelines.tasks.classification.data import SampleBatch
    from ccnn_irregular.pipelines.tasks.classification.module import ClassPredictions
    from ccnn_irregular.pipelines.tasks.classification.task import Accuracy

__all__ = ["confusion", "mistakes", "samplings"]

_MOST_NUMBERED = 20
_SHOWN, _COLUMNS, _CHANNELS = 8, 4, 4
_TIMES = ("ms", "s", "min", "h", "d", "seconds", "minutes", "hours", "days", "years")


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
    chosen = wrong[np.argsort(-sure[wrong], kind="stable")][:_SHOWN].tolist()
    if not chosen:
        return []
    found = _found(batches, chosen)
    columns = min(_COLUMNS, len(chosen))
    rows = -(-len(chosen) // columns)
    figure = new_figure(2.6 * columns, 2.4 * rows + 0.4)
    solid = {"projection": "3d"} if found[chosen[0]][0].domain.d == 3 and found[chosen[0]][0].domain.irregular else {}
    panels = figure.subplots(rows, columns, squeeze=False, subplot_kw=solid).ravel()
    for axes, number in zip(panels, chosen, strict=False):
        _draw(axes, *found[number], unit)
        true, taken = classes[predictions.labels[number]], classes[predictions.predicted[number]]
        title = f"{ids[number]}: true {true},\npredicted {taken} ({sure[number]:.2f})"
        axes.set_title(title, fontsize="small")
        axes.tick_params(labelsize="x-small")
    for axes in panels[len(chosen) :]:
        axes.set_axis_off()
    figure.suptitle(f"{len(wrong)} of {len(predictions.labels)} samples are taken for another class", fontsize="medium")
    lines, names = panels[0].get_legend_handles_labels()
    if len(lines) > 1:
        figure.legend(lines, names, loc="outside lower center", ncols=len(lines), frameon=False, fontsize="small")
    return [save(figure, path)]


def _found(batches: Iterable[SampleBatch], chosen: Sequence[int]) -> dict[int, tuple[SampleBatch, int]]:
    """The batch that holds each of some samples, and its place there."""
    found: dict[int, tuple[SampleBatch, int]] = {}
    start = 0
    for batch in batches:
        found |= {number: (batch, number - start) for number in chosen if 0 <= number - start < len(batch)}
        start += len(batch)
        if len(found) == len(chosen):
            break
    return found


def _draw(axes: Axes, batch: SampleBatch, place: int, unit: str) -> None:
    """A sample as lines, an image, its middle slice, or a cloud."""
    points = batch.domain.irregular
    if points is not None:
        rows = slice(*points.splits[place : place + 2].tolist())
        where, values = points.coordinates[rows].numpy(), batch.values[rows].numpy()
    else:
        grid = batch.domain.uniform
        assert grid is not None
        where, values = grid.nodes().numpy(), batch.values[place].flatten(1).T.numpy()
    if batch.domain.d == 1:
        for channel, column in enumerate(values.T[:_CHANNELS]):
            known, label = ~np.isnan(column), f"channel {channel}"
            style: dict[str, Any] = {"color": COLOURS[channel], "linewidth": 0.8, "markersize": 2}
            axes.plot(where[known, 0], column[known], ".-", label=label, **style)
        _name_axes(axes, ("time" if unit in _TIMES else "position",), unit)
        axes.set_ylabel("value", fontsize="x-small")
    elif points is not None:
        marks: dict[str, Any] = {"s": 5, "c": where[:, -1], "cmap": "viridis", "linewidths": 0}
        axes.scatter(*where.T, **marks)
        axes.set_aspect("equal")
        axes.locator_params(nbins=3)
        _name_axes(axes, ("x", "y", "z")[: batch.domain.d], unit)
    else:
        _image(axes, batch, place, unit)


def _image(axes: Axes, batch: SampleBatch, place: int, unit: str) -> None:
    """Three channels as colours, else the first one; of a volume the middle slice along its last axis."""
    grid, values = batch.domain.uniform, batch.values[place].numpy()
    assert grid is not None
    volume = values.ndim == 4
    picture = values[..., values.shape[-1] // 2] if volume else values
    low, high = float(np.nanmin(picture)), float(np.nanmax(picture))
    coloured = np.moveaxis((picture - low) / ((high - low) or 1.0), 0, -1)
    (down, right), half = [(axis.start, axis.start + axis.step * (axis.size - 1)) for axis in grid.axes[:2]], grid.steps
    extent = (right[0] - half[1] / 2, right[1] + half[1] / 2, down[1] + half[0] / 2, down[0] - half[0] / 2)
    shown = coloured if len(picture) == 3 else coloured[..., 0]
    axes.imshow(shown, cmap="gray", extent=extent, interpolation="nearest")
    _name_axes(axes, ("axis 1", "axis 0") if volume else ("column", "row"), unit)


def _name_axes(axes: Axes, names: Sequence[str], unit: str) -> None:
    for side, name in zip("xyz", names, strict=False):
        getattr(axes, f"set_{side}label")(with_unit(name, unit), fontsize="x-small")


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
