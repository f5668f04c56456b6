"""The figure of a segmented tile: two maps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ccnn_irregular.pipelines.train.figures import save
from ccnn_irregular.plotting import COLOURS, new_figure

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ccnn_irregular.datasets.samples import LabelledClouds

__all__ = ["tile"]


def tile(clouds: LabelledClouds, predicted: NDArray[np.int64], tested: NDArray[np.int64], path: Path) -> Path:
    """Two maps of a tile of two classes seen from above: predicted class, and where it is wrong in the test part.

    Args:
        clouds: one tile.
        predicted: class of each point.
        tested: rows of the test part; others are shown pale.
        path: of the PNG.
    """
    places = clouds.coordinates.numpy()
    labels = clouds.labels.numpy()
    width, height = np.ptp(places[:, 0]), np.ptp(places[:, 1])
    tall = float(np.clip(4.0 * height / max(width, 1e-9), 3.0, 9.5))
    figure = new_figure(9.5, tall + 0.9)
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    alpha = np.full(len(places), 0.3)
    alpha[tested] = 1.0
    wrong = predicted != labels
    kinds = (
        (
            left,
            "predicted (points of the test part)",
            [(f"{name}", predicted == number, number) for number, name in enumerate(clouds.classes)],
        ),
        (
            right,
            f"test part: {100 * float((~wrong)[tested].mean()):.1f} % of the points right",
            [
                ("right", ~wrong, None),
                *(
                    (f"{clouds.classes[truth]} taken for {clouds.classes[other]}", wrong & (labels == truth), truth)
                    for truth, other in ((0, 1), (1, 0))
                ),
            ],
        ),
    )
    for axes, title, groups in kinds:
        for label, chosen, number in groups:
            colour = "#cccccc" if number is None else COLOURS[number]
            shown = np.flatnonzero(chosen)
            if len(shown):  # matplotlib takes no empty array of opacities
                dots = {"s": 1.2, "color": colour, "alpha": alpha[shown], "linewidths": 0, "rasterized": True}
                axes.scatter(*places[shown, :2].T, **dots)
            axes.scatter([], [], s=18, color=colour, label=f"{label} ({int(chosen[tested].sum())})")
        axes.set(xlabel=f"x, {clouds.unit} from the mean", aspect="equal")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.01), fontsize="small", title=title)
    left.set_ylabel(f"y, {clouds.unit} from the mean")
    return save(figure, path)
