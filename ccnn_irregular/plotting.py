"""Plots of kernels, of irregular samples and of how answers from them agree, in coordinate units.

Needs matplotlib, imported when a plot is made.

Every function draws on a matplotlib ``Figure`` of its own (no pyplot, no global state) unless it is given axes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from ccnn_irregular._checks import require
from ccnn_irregular._optional import import_optional
from ccnn_irregular.consistency import ConsistencyReport, Row
from ccnn_irregular.kernels import Kernel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "COLOURS",
    "new_figure",
    "plot_consistency",
    "plot_kernel",
    "plot_receptive_field",
    "plot_samples",
    "with_unit",
]

# Okabe and Ito's palette, told apart by readers with any colour vision; its yellow is too pale for lines.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_POINTS = 1001
_MAX_CHANNELS_SHOWN = len(COLOURS) - 1
_QUIET = "#666666"
_ENGINE_STYLES = {
    "reference": (COLOURS[6], "o"),
    "neighbours": (COLOURS[2], "^"),
    "keops": (COLOURS[4], "v"),
    "fft": (_QUIET, "D"),
    "spectral": (COLOURS[5], "s"),
}


def new_figure(width: float, height: float) -> Figure:
    """Make an empty figure of this size in inches, laid out so that labels do not overlap."""
    figure = import_optional("matplotlib.figure", "plotting", "plots")
    made: Figure = figure.Figure(figsize=(width, height), layout="constrained", dpi=150)
    return made


def plot_kernel(
    kernel: Kernel,
    *,
    channels: Sequence[int] | None = None,
    reach: float | None = None,
    unit: str | None = None,
    axes: Axes | None = None,
) -> Axes:
    """Plot the values of a kernel of one coordinate axis, channel by channel, and its mask.

    Args:
        kernel: with ``d = 1``.
        channels: which of its values to draw (index into the flattened ``(C,)`` or ``(D, C)``), at most 6;
            None = the 6 of largest norm.
        reach: largest offset drawn, coordinate units; None = the kernel's support.
        unit: of the coordinate, for the label.
        axes: where to draw; None = a new figure.

    Raises:
        ValueError: a kernel of several axes, or one without a mask where no ``reach`` is given.
    """
    offsets, values = _sampled(kernel, reach)
    norms = np.linalg.norm(values, axis=0)
    largest = np.sort(np.argsort(-norms, kind="stable")[:_MAX_CHANNELS_SHOWN])
    chosen = largest if channels is None else np.asarray(channels, dtype=np.int64)
    fits = len(chosen) <= _MAX_CHANNELS_SHOWN and bool(((chosen >= 0) & (chosen < values.shape[1])).all())
    rule = f"name at most {_MAX_CHANNELS_SHOWN} channels of 0..{values.shape[1] - 1}"
    require(fits, "channels", rule, chosen.tolist())
    axes = new_figure(6.0, 3.4).add_subplot() if axes is None else axes
    for colour, channel in zip(COLOURS, chosen, strict=False):
        axes.plot(offsets, values[:, channel], color=colour, linewidth=1.4, label=f"channel {channel}")
    if kernel.mask is not None:
        scale = float(np.abs(values[:, chosen]).max()) or 1.0
        mask = _evaluate(kernel.mask, offsets, kernel.dtype)[:, 0] * scale
        axes.plot(offsets, mask, color=_QUIET, linestyle="--", linewidth=1, label="mask (scaled)")
        axes.plot(offsets, -mask, color=_QUIET, linestyle="--", linewidth=1)
    axes.axhline(0, color=_QUIET, linewidth=0.5)
    axes.set_xlabel(with_unit("offset, query minus sample", unit))
    axes.set_ylabel("kernel value")
    axes.margins(x=0)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize="small")
    return axes


def plot_receptive_field(
    kernel: Kernel, *, reach: float | None = None, unit: str | None = None, axes: Axes | None = None
) -> Axes:
    """Plot how strongly a kernel weighs samples at each offset: root mean square over its channels, scaled to peak 1.

    The shaded part holds 90 % of the squared kernel; what lies beyond it hardly counts.

    Args:
        kernel: with ``d = 1``.
        reach: largest offset drawn, coordinate units; None = the kernel's support.
        unit: of the coordinate, for the label.
        axes: where to draw; None = a new figure.

    Raises:
        ValueError: a kernel of several axes, or one without a mask where no ``reach`` is given.
    """
    offsets, values = _sampled(kernel, reach)
    strength = np.sqrt(np.mean(values**2, axis=1))
    strength = strength / (strength.max() or 1.0)
    low, high = _central_share(offsets, strength**2, 0.9)
    inside = (offsets >= low) & (offsets <= high)
    axes = new_figure(6.0, 3.0).add_subplot() if axes is None else axes
    axes.fill_between(offsets[inside], strength[inside], color=COLOURS[5], alpha=0.45, linewidth=0)
    axes.plot(offsets, strength, color=COLOURS[0], linewidth=1.4)
    axes.set_title(f"90 % within {with_unit(f'{low:.3g} to {high:.3g}', unit, brackets=False)}", fontsize="small")
    axes.set_xlabel(with_unit("offset, query minus sample", unit))
    axes.set_ylabel("kernel strength (peak = 1)")
    axes.set_ylim(0, 1.05)
    axes.margins(x=0)
    return axes


def plot_samples(
    times: NDArray[np.floating[Any]],
    values: NDArray[np.floating[Any]],
    *,
    names: Sequence[str] | None = None,
    units: Sequence[str] | None = None,
    time_unit: str | None = None,
    panels: Sequence[Axes] | None = None,
) -> Figure:
    """Plot one irregular series, one panel a channel: dots where it was sampled, nothing in between
    but a thin line from one sample to the next.

    Args:
        times: ``(N,)``, coordinate units.
        values: ``(N, C)``, nan where a channel was not observed.
        names: of the C channels.
        units: of the C channels, empty where there is none.
        time_unit: of ``times``, for the label.
        panels: C axes to draw on, top to bottom; None = a new figure.

    Raises:
        ValueError: shapes or numbers of names, units and panels that disagree.
    """
    times, values = np.asarray(times), np.asarray(values)
    shapes = (times.shape, values.shape)
    require(values.ndim == 2 and times.shape == values.shape[:1], "times and values", "be (N,) and (N, C)", shapes)
    channels = values.shape[1]
    names = [f"channel {channel}" for channel in range(channels)] if names is None else names
    units = [""] * channels if units is None else units
    counts = (len(names), len(units), channels if panels is None else len(panels))
    require(counts == (channels,) * 3, "names, units and panels", f"number {channels}, one a channel", counts)
    rows = _rows_of_panels(channels) if panels is None else list(panels)
    for panel, column, name, unit in zip(rows, values.T, names, units, strict=True):
        observed = ~np.isnan(column)
        panel.plot(times[observed], column[observed], color=COLOURS[0], linewidth=0.6, marker="o", markersize=2.5)
        panel.set_ylabel(f"{name}\n{unit}" if unit else name, rotation=0, ha="right", va="center", fontsize="small")
        panel.tick_params(labelsize="small")
        panel.locator_params(axis="y", nbins=3)
    rows[-1].set_xlabel(with_unit("time", time_unit))
    figure = cast("Figure", rows[0].figure)
    figure.align_ylabels(rows)
    return figure


def plot_consistency(report: ConsistencyReport, *, title: str | None = None) -> Figure:
    """Plot the error against the share of the nodes that is kept, and against the jitter, both axes logarithmic.

    One line for each quadrature rule: how far the answer is from the full grid's. Dashed, usually far below: how far
    each engine is from the sum over all pairs of the same samples; one that is not off at all has no line.

    Args:
        report: of ``check_consistency``.
        title: above the panels.

    Raises:
        ValueError: nothing was evaluated but the full grid, or nothing at all.
    """
    ran = [row for row in report.rows if row.error is not None]
    panels = {
        "nodes kept": [row for row in ran if row.jitter == 0],
        "largest displacement (grid steps)": [row for row in ran if row.jitter > 0],
    }
    panels = {label: rows for label, rows in panels.items() if any(row.kept < 1 or row.jitter > 0 for row in rows)}
    require(len(panels) > 0, "report", "hold an evaluated sampling besides the full grid", f"{len(ran)} rows")
    figure = new_figure(3.4 + 3.2 * len(panels), 4.2)
    drawn: dict[str, Any] = {}
    row_of_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (label, rows) in zip(row_of_axes, panels.items(), strict=True):
        kept = label == "nodes kept"
        place = {id(row): row.kept if kept else row.jitter for row in rows}
        for name, style, points in _consistency_lines(rows):
            where = [place[id(row)] for row, _ in points]
            (line,) = axes.plot(where, [error for _, error in points], **style)
            drawn.setdefault(name, line)
        if not kept and report.interpolation is not None:
            line = axes.axhline(report.interpolation.answer, color=_QUIET, linestyle=":", linewidth=1.2)
            drawn["values interpolated from\nevery second node"] = line
        ticks = sorted(set(place.values()))
        axes.set(xscale="log", yscale="log", xlabel=label)
        axes.set_xticks(ticks, [f"{100 * tick:g} %" if kept else f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.margins(x=0.1)
        axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    figure.axes[0].set_ylabel("relative L2 error of the answer")
    figure.legend(drawn.values(), drawn.keys(), loc="outside right upper", frameon=False, fontsize="small")
    if title is not None:
        figure.suptitle(title, fontsize="medium")
    return figure


def _consistency_lines(rows: Sequence[Row]) -> Iterator[tuple[str, dict[str, Any], list[tuple[Row, float]]]]:
    """Yield name, style and points (row, error) of each line of one panel."""
    shown = {"voronoi": 0, "density_compensation": 0, "trapezoid": 0, "plain_mean": 1, "no weights": 3}
    for rule, colour in shown.items():
        # One engine per sampling: the lines of all would lie on one another.
        first = {(row.kept, row.jitter): row for row in reversed(rows) if row.rule == rule}
        points = [(row, row.error) for row in reversed(first.values()) if row.error is not None]
        if points:
            marker = "s" if rule == "density_compensation" else "o"
            style = {"color": COLOURS[colour], "marker": marker, "markersize": 4, "linewidth": 1.6}
            yield f"sampling: {rule.replace('_', ' ')}", style, points
    for depth, engine in enumerate(dict.fromkeys(row.engine for row in rows)):
        measured = [(row, row.engine_error) for row in rows if row.engine == engine]
        points = [(row, error) for row, error in measured if error is not None and error > 0]
        if points:
            tint, marker = _ENGINE_STYLES.get(engine, (_QUIET, "x"))
            style = {"color": tint, "marker": marker, "markersize": 5, "linewidth": 1, "linestyle": "--"}
            yield f"engine: {engine}", style | {"markerfacecolor": "none", "zorder": 2 - 0.1 * depth}, points


def _rows_of_panels(count: int) -> list[Axes]:
    """Make a figure of ``count`` panels with one time axis."""
    return list(new_figure(7.0, 0.6 + 0.85 * count).subplots(count, 1, sharex=True, squeeze=False)[:, 0])


def _sampled(kernel: Kernel, reach: float | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return offsets ``(n,)`` from -reach to reach and the flattened kernel values ``(n, C)`` at them."""
    require(kernel.d == 1, "kernel", "have one coordinate axis to be drawn as a curve", f"{kernel.d} axes")
    reach = float(kernel.support[0]) if reach is None else reach
    require(np.isfinite(reach) and reach > 0, "reach", "be positive and finite (a kernel without mask has none)", reach)
    offsets = np.linspace(-reach, reach, _POINTS)
    return offsets, _evaluate(kernel, offsets, kernel.dtype)


def _evaluate(function: torch.nn.Module, offsets: NDArray[np.float64], dtype: torch.dtype) -> NDArray[np.float64]:
    """Evaluate ``function`` at offsets ``(n,)`` of one axis, as ``(n, values)``."""
    device = next((weight.device for weight in function.parameters()), torch.device("cpu"))
    with torch.no_grad():
        values = function(torch.as_tensor(offsets, dtype=dtype, device=device)[:, None])
    return values.reshape(len(offsets), -1).double().cpu().numpy()


def _central_share(offsets: NDArray[np.float64], density: NDArray[np.float64], share: float) -> tuple[float, float]:
    """Return the offsets between which the middle ``share`` of ``density`` lies."""
    mass = np.cumsum(density)
    tail = 0.5 * (1 - share)
    low, high = np.searchsorted(mass, [tail * mass[-1], (1 - tail) * mass[-1]])
    return float(offsets[low]), float(offsets[min(high, len(offsets) - 1)])


def with_unit(text: str, unit: str | None, brackets: bool = True) -> str:
    """Append a unit to a label: "depth (m)", or "depth m" without brackets; None and "" leave ``text`` as it is."""
    if not unit:
        return text
    return f"{text} ({unit})" if brackets else f"{text} {unit}"
