"""Figures of tests on point clouds: accuracy by how points were drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ccnn_irregular.pipelines.figures import save
from ccnn_irregular.plotting import COLOURS, new_figure

if TYPE_CHECKING:
    from ccnn_irregular.pipelines.cloud_classification_cli import CloudResult

__all__ = ["drawn"]


def drawn(results: Sequence[tuple[CloudResult, CloudResult]], path: Path) -> Path:
    """Accuracy and its interval for each way to draw points, with quadrature weights and without.

    Args:
        results: with and without weights; the first pair is as trained.
        path: of the PNG.
    """
    figure = new_figure(7.0, 1.4 + 0.5 * len(results))
    axes = figure.subplots()
    places = np.arange(len(results))
    weights = results[0][0].options["weights"]
    axes.axvline(100 * results[0][0].accuracy, color="#999999", linestyle="--", linewidth=1)
    for column, (label, lift) in enumerate(((f'weights "{weights}"', -0.14), ("without weights", 0.14))):
        rows = [pair[column] for pair in results]
        values, low, high = (100 * np.array([getattr(row, name) for row in rows]) for name in ("accuracy", "low", "high"))
        bars = np.maximum([values - low, high - values], 0)
        axes.errorbar(values, places + lift, xerr=bars, fmt="o", color=COLOURS[column], capsize=3, label=label)
        for place, value, end in zip(places, values, high, strict=True):
            note = {"xytext": (4, 0), "textcoords": "offset points", "va": "center", "fontsize": "small"}
            axes.annotate(f"{value:.1f}", (end, place + lift), color=COLOURS[column], **note)
    axes.set(xlabel="test accuracy, % (95 % interval)", ylim=(len(results) - 0.5, -0.5))
    axes.set_yticks(places, [weighed.drawn for weighed, _ in results])
    axes.margins(x=0.12)
    axes.legend(loc="best", fontsize="small")
    return save(figure, path)
