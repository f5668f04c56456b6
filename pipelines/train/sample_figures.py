"""Some samples side by side: series as lines, images, the middle slices of volumes, clouds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ccnn_irregular.domains import Grid
from ccnn_irregular.plotting import COLOURS, new_figure, with_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["MOST_SHOWN", "Drawn", "draw_samples"]

MOST_SHOWN = 8
_COLUMNS, _CHANNELS = 4, 4
_TIMES = ("ms", "s", "min", "h", "d", "seconds", "minutes", "hours", "days", "years")


@dataclass(frozen=True)
class Drawn:
    """A sample to be drawn, on points or on a grid.

    Attributes:
        values: ``(n, C)`` on points, nan where missing, or ``(C, *sizes)`` on a grid.
        places: ``(n, d)``, coordinates of the points.
        grid: where no points are given.
    """

    values: NDArray[Any]
    places: NDArray[Any] | None = None
    grid: Grid | None = None

    @property
    def axes(self) -> int:
        """Number of axes."""
        if self.places is not None:
            return self.places.shape[1]
        assert self.grid is not None
        return self.grid.d


def draw_samples(samples: Sequence[Drawn], titles: Sequence[str], heading: str, unit: str) -> Figure:
    """A panel for each sample.

    Args:
        samples: all on points or all on a grid, of one number of axes; at least one.
        titles: of the panels.
        heading: above all.
        unit: of the coordinates.
    """
    columns = min(_COLUMNS, len(samples))
    rows = -(-len(samples) // columns)
    figure = new_figure(2.6 * columns, 2.4 * rows + 0.4)
    solid = {"projection": "3d"} if samples[0].axes == 3 and samples[0].places is not None else {}
    panels = figure.subplots(rows, columns, squeeze=False, subplot_kw=solid).ravel()
    for axes, sample, title in zip(panels, samples, titles, strict=False):
        _draw(axes, sample, unit)
        axes.set_title(title, fontsize="small")
        axes.tick_params(labelsize="x-small")
    for axes in panels[len(samples) :]:
        axes.set_axis_off()
    figure.suptitle(heading, fontsize="medium")
    handles = [axes.get_legend_handles_labels() for axes in panels[: len(samples)]]
    lines = {name: line for found in handles for line, name in zip(*found, strict=True)}
    if len(lines) > 1:
        figure.legend(
            lines.values(), lines.keys(), loc="outside lower center", ncols=4, frameon=False, fontsize="small"
        )
    return figure


def _draw(axes: Axes, sample: Drawn, unit: str) -> None:
    if sample.axes == 1:
        _lines(axes, sample)
        _name_axes(axes, ("time" if unit in _TIMES else "position",), unit)
        axes.set_ylabel("value", fontsize="x-small")
    elif sample.places is not None:
        marks: dict[str, Any] = {"s": 5, "c": sample.places[:, -1], "cmap": "viridis", "linewidths": 0}
        axes.scatter(*sample.places.T, **marks)
        axes.set_aspect("equal")
        axes.locator_params(nbins=3)
        _name_axes(axes, ("x", "y", "z")[: sample.axes], unit)
    else:
        _image(axes, sample)
        _name_axes(axes, ("axis 1", "axis 0") if sample.axes == 3 else ("column", "row"), unit)


def _lines(axes: Axes, sample: Drawn) -> None:
    if sample.places is not None:
        where, values = sample.places[:, 0], sample.values
    else:
        assert sample.grid is not None
        where, values = sample.grid.nodes().numpy()[:, 0], sample.values.T
    for colour, channel in zip(COLOURS, range(min(values.shape[1], _CHANNELS)), strict=False):
        known = ~np.isnan(values[:, channel])
        style: dict[str, Any] = {"linewidth": 0.8, "markersize": 2, "color": colour}
        axes.plot(where[known], values[known, channel], ".-", label=f"channel {channel}", **style)


def _image(axes: Axes, sample: Drawn) -> None:
    """Three channels as colours, else the first one; of a volume the middle slice along its last axis."""
    grid, values = sample.grid, sample.values
    assert grid is not None
    picture = values[..., values.shape[-1] // 2] if sample.axes == 3 else values
    low, high = float(np.nanmin(picture)), float(np.nanmax(picture))
    coloured = np.moveaxis((picture - low) / ((high - low) or 1.0), 0, -1)
    (down, right), half = [(axis.start, axis.start + axis.step * (axis.size - 1)) for axis in grid.axes[:2]], grid.steps
    extent = (right[0] - half[1] / 2, right[1] + half[1] / 2, down[1] + half[0] / 2, down[0] - half[0] / 2)
    shown = coloured if len(picture) == 3 else coloured[..., 0]
    axes.imshow(shown, cmap="gray", extent=extent, interpolation="nearest")


def _name_axes(axes: Axes, names: Sequence[str], unit: str) -> None:
    for side, name in zip("xyz", names, strict=False):
        getattr(axes, f"set_{side}label")(with_unit(name, unit), fontsize="x-small")
