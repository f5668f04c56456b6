"""What all plots share: written as PNG, whole or not at all; and the curves of a training run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ccnn_irregular.pipelines.train.reports import whole
from ccnn_irregular.plotting import COLOURS, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Curves", "save", "training_curves"]

# One curve: the panel's y label, the column of the history, the label, the line style.
Curves = Sequence[tuple[str, str, str, str]]


def save(figure: Figure, path: Path) -> Path:
    """Write ``figure`` as PNG, whole or not at all."""
    with whole(path) as temporary:
        figure.savefig(temporary, format="png")
    return path


def training_curves(rows: Sequence[Mapping[str, float]], path: Path, curves: Curves) -> Path:
    """Columns of the history by epoch, one panel for each y label."""
    epochs = [row["epoch"] for row in rows]
    panels = list(dict.fromkeys(panel for panel, *_ in curves))
    figure = new_figure(4.0 * len(panels), 3.2)
    axes_of = dict(zip(panels, np.atleast_1d(figure.subplots(1, len(panels))), strict=True))
    marker = "o" if len(rows) < 30 else None
    for panel, column, label, style in curves:
        colour = COLOURS[0] if style == "-" else COLOURS[1]
        values = [row[column] for row in rows]
        axes_of[panel].plot(epochs, values, style, color=colour, marker=marker, markersize=3, label=label)
    for panel, axes in axes_of.items():
        axes.set(xlabel="epoch", ylabel=panel)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(frameon=False)
    return save(figure, path)
