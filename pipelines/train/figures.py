"""What all plots share: written as PNG, whole or not at all; and the curves of a training run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from ccnn_irregular.pipelines.train.reports import whole
from ccnn_irregular.plotting import COLOURS, new_figure, with_unit
from ccnn_irregular.plotting_kernels import plot_strongest_kernels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ccnn_irregular.datasets.samples import RaggedSeries
    from ccnn_irregular.kernels import Kernel

__all__ = ["Curves", "file_stem", "forecasts", "kernels", "save", "short_times", "training_curves", "width_sweep"]

_TIME = re.compile(r"\d{4,}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?")
_SERIES_SHOWN, _VARIABLES_SHOWN = 3, 4

_COSTS = ("parameters", "seconds a batch")

# One curve: the panel's y label, the column of the history, the label, the line style.
Curves = Sequence[tuple[str, str, str, str]]


def save(figure: Figure, path: Path) -> Path:
    """Write ``figure`` as PNG, whole or not at all."""
    with whole(path) as temporary:
        figure.savefig(temporary, format="png")
    return path


def short_times(text: str) -> str:
    """Times in a text without the zeros at their end: 2020-01-01T00:00:00.000000000 becomes 2020-01-01."""

    def shortest(found: re.Match[str]) -> str:
        time = found[0].rstrip("0").rstrip(".") if found[1] else found[0]
        return re.sub(r"([T ]00:00)?(:00)?$", "", time)

    return _TIME.sub(shortest, text)


def file_stem(title: str) -> str:
    """A title as the name of a file: "t2m, time 2020-01-01T06:00" becomes "t2m_time_2020-01-01T0600"."""
    return re.sub(r"[^\w.+-]+", "_", title.replace(":", "")).strip("_.")


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


def width_sweep(scores: Sequence[float], label: str, rows: Sequence[Sequence[Any]], title: str, path: Path) -> Path:
    """Scores of a network at other widths against its size and its time.

    Args:
        scores: one for each row.
        label: what they are.
        rows: each begins with the channels kept, the number of parameters and the seconds of a batch; the first one is
            the network as trained.
        title: of the picture.
        path: of the picture.
    """
    figure = new_figure(8.0, 3.6)
    for axes, column, name in zip(figure.subplots(1, 2, sharey=True), (1, 2), _COSTS, strict=True):
        places = [row[column] for row in rows]
        axes.plot(places[1:], scores[1:], "o", color=COLOURS[0], markersize=4, label="resized")
        axes.plot(places[0], scores[0], "D", color=COLOURS[1], markersize=6, fillstyle="none", label="as trained")
        for row, place, score in zip(rows[1::2], places[1::2], scores[1::2], strict=True):
            axes.annotate(row[0], (place, score), (-4, 4), textcoords="offset points", fontsize=7, ha="right")
        axes.margins(0.15)
        axes.locator_params(axis="x", nbins=5)
        axes.set(xlabel=name, ylabel=label if column == 1 else "")
    axes.legend(frameon=False, loc="best")
    figure.suptitle(title, fontsize=9)
    return save(figure, path)


def kernels(network: nn.Module, unit: str | None, folder: Path, names: tuple[str, ...] | None = None) -> list[Path]:
    """``kernels.png``: the eight strongest kernels of a network that tells its kernels; of another, nothing."""
    if not hasattr(network, "kernels"):
        return []
    learned = cast("Mapping[str, Kernel]", network.kernels())  # type: ignore[operator]  # an attribute of any type
    return [save(plot_strongest_kernels(learned, unit=unit, names=names), folder / "kernels.png")]


def forecasts(history: RaggedSeries, asked: RaggedSeries, values: Tensor, folder: Path) -> Path:
    """What was observed of some series, what was forecast, and what came: one column a series, one row a variable.

    Args:
        history: B series as they were known.
        asked: the same series at the times asked for, nan where the truth is not known.
        values: ``(M, C)``, what was forecast at these times.
        folder: of the picture ``forecasts.png``.
    """
    known = ~asked.values.isnan()
    channels = known.sum(0).topk(min(_VARIABLES_SHOWN, known.shape[1])).indices.sort().values
    counts = torch.zeros(len(asked), dtype=torch.int64).index_add(0, asked.sample_index(), known[:, channels].sum(1))
    series = counts.topk(min(_SERIES_SHOWN, len(asked))).indices
    figure = new_figure(3.4 * len(series), 0.6 + 1.3 * len(channels))
    panels = figure.subplots(len(channels), len(series), sharex=True, sharey="row", squeeze=False)
    for column, number in enumerate(series.tolist()):
        before = history.subset(series[column : column + 1])
        rows = slice(*asked.splits[number : number + 2].tolist())
        for panel, channel in zip(panels[:, column], channels.tolist(), strict=True):
            seen, asked_for = ~before.values[:, channel].isnan(), known[rows, channel]
            style: dict[str, Any] = {"markersize": 3, "linewidth": 0.8}
            panel.plot(
                before.times[seen], before.values[seen, channel], "o-", color=COLOURS[0], label="observed", **style
            )
            later = (asked.times[rows][asked_for], asked.values[rows, channel][asked_for])
            panel.plot(*later, "o", color=COLOURS[0], fillstyle="none", label="what came", **style)
            panel.plot(later[0], values[rows, channel][asked_for], ".-", color=COLOURS[1], label="forecast", **style)
            panel.tick_params(labelsize="small")
            if column == 0:
                panel.set_ylabel(asked.channels[channel] if asked.channels else f"channel {channel}", fontsize="small")
        panels[0, column].set_title(
            f"series {number if asked.ids is None else int(asked.ids[number])}", fontsize="small"
        )
        panels[-1, column].set_xlabel(with_unit("time", asked.unit), fontsize="small")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper center", frameon=False, ncols=3)
    return save(figure, folder / "forecasts.png")
