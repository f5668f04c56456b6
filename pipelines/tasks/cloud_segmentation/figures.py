"""The figure of a segmented tile: three maps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ccnn_irregular.pipelines.train.figures import save
from ccnn_irregular.plotting import COLOURS, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from ccnn_irregular.datasets.samples import LabelledClouds

__all__ = ["tile"]

_RIGHT = "#cccccc"
# Area of a map in square points over the number of marks: together they cover about a third of it.
_COVERED, _SMALLEST, _LARGEST = 2e4, 0.8, 14.0


def tile(clouds: LabelledClouds, predicted: NDArray[np.int64], tested: NDArray[np.int64], path: Path) -> Path:
    """Three maps of a tile seen from above: true class, predicted class, and where it is wrong in the test part.

    Args:
        clouds: one tile.
        predicted: class of each point.
        tested: rows of the test part; others are shown pale.
        path: of the PNG.
    """
    places, labels = clouds.coordinates.numpy()[:, :2], clouds.labels.numpy()
    width, height = np.ptp(places, axis=0)
    tall = float(np.clip(4.2 * height / max(width, 1e-9), 3.0, 9.5))
    figure = new_figure(13.5, tall + 0.35 * len(clouds.classes) + 0.8)
    truth, answer, errors = figure.subplots(1, 3, sharex=True, sharey=True)
    shown = np.zeros(len(places), bool)
    shown[tested] = True
    wrong = predicted != labels
    right = 100 * float((~wrong)[tested].mean())
    classes = [(name, number, COLOURS[number % len(COLOURS)]) for number, name in enumerate(clouds.classes)]
    _map(truth, "true class", [(name, labels == number, colour) for name, number, colour in classes], places, shown)
    _map(answer, "predicted", [(name, predicted == number, colour) for name, number, colour in classes], places, shown)
    taken = [(f"{name} taken for another", wrong & (labels == number), colour) for name, number, colour in classes]
    _map(errors, f"{right:.1f} % right", [("right", ~wrong, _RIGHT), *taken], places, shown)
    for axes in (truth, answer, errors):
        axes.set(xlabel=f"x, {clouds.unit} from the mean", aspect="equal")
    truth.set_ylabel(f"y, {clouds.unit} from the mean")
    return save(figure, path)


def _map(
    axes: Axes,
    title: str,
    groups: list[tuple[str, NDArray[np.bool_], str]],
    places: NDArray[np.float64],
    tested: NDArray[np.bool_],
) -> None:
    """Draw groups of points in their colours, with the number of each in the test part."""
    size = float(np.clip(_COVERED / max(len(places), 1), _SMALLEST, _LARGEST))
    for label, chosen, colour in groups:
        for rows, alpha in ((chosen & ~tested, 0.25), (chosen & tested, 1.0)):
            axes.scatter(*places[rows].T, s=size, color=colour, alpha=alpha, linewidths=0, rasterized=True)
        axes.scatter([], [], s=18, color=colour, label=f"{label} ({int((chosen & tested).sum())})")
    style = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.01), "fontsize": "small", "frameon": False}
    axes.legend(title=f"{title} (points of the test part)", **style)
