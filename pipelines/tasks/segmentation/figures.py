"""The figures of a segmentation's test: cases with their labels, where they are wrong, Dice by sampling, kernels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ccnn_irregular.pipelines.train.figures import save
from ccnn_irregular.plotting import COLOURS, new_figure
from ccnn_irregular.plotting_volumes import plot_prediction

if TYPE_CHECKING:
    from ccnn_irregular.pipelines.tasks.segmentation.data import VolumeBatch
    from ccnn_irregular.pipelines.tasks.segmentation.module import SegmentedVolume

__all__ = ["case", "dice_by_sampling", "typical_cases"]


def typical_cases(scores: NDArray[np.float64]) -> dict[str, int]:
    """Numbers of the worst, the median and the best volume by a score each; nan is none of them."""
    order = [int(place) for place in np.argsort(scores, kind="stable") if not np.isnan(scores[place])]
    return {"worst": order[0], "median": order[len(order) // 2], "best": order[-1]} if order else {}


def case(batch: VolumeBatch, found: SegmentedVolume, classes: Sequence[str], path: Path) -> Path:
    """The true labels of a volume, below them those predicted, and where they differ."""
    assert batch.labels is not None
    assert found.dice is not None
    values, labels, predicted = batch.values[0, 0].numpy(), batch.labels[0].numpy(), found.labels.numpy()
    scores = ", ".join(f"{name} {value:.3f}" for name, value in zip(classes[1:], found.dice, strict=True))
    title = f"{found.name}: Dice {scores}"
    return save(plot_prediction(values, predicted, labels, batch.grid, names=classes[1:], title=title), path)


def dice_by_sampling(tables: Sequence[tuple[str, NDArray[np.float64]]], classes: Sequence[str], path: Path) -> Path:
    """Dice of every test volume, one panel a label, one row a sampling, with the mean of each.

    Args:
        tables: name of the sampling and ``(volumes, labels)``; the first is what the others are compared with.
        classes: what the labels 0, 1, ... mean.
        path: of the PNG.
    """
    figure = new_figure(1.8 + 3.0 * (len(classes) - 1), 1.3 + 0.45 * len(tables))
    panels = figure.subplots(1, len(classes) - 1, sharey=True, sharex=True, squeeze=False)[0]
    for label, axes in enumerate(panels):
        for place, (_, table) in enumerate(tables):
            known = table[~np.isnan(table[:, label]), label]
            # Spread by their order, so that equal ones are seen side by side; the same picture in every run.
            spread = 0.24 * np.sin(2.4 * np.arange(len(known)))
            axes.plot(known, place + spread, ".", color=COLOURS[5], markersize=3)
            if len(known):
                axes.plot([known.mean()] * 2, [place - 0.34, place + 0.34], color=COLOURS[0], linewidth=2)
                axes.annotate(
                    f"{known.mean():.3f}",
                    (known.mean(), place - 0.34),
                    (0, 2),
                    textcoords="offset points",
                    ha="center",
                    va="bottom",
                    fontsize="x-small",
                )
        axes.set(xlabel="Dice (line: mean)", ylim=(len(tables) - 0.4, -0.75))
        axes.set_title(classes[label + 1], fontsize="small")
    panels[0].set_yticks(range(len(tables)), [name for name, _ in tables], fontsize="small")
    return save(figure, path)
