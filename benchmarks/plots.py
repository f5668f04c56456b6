"""Figures of the measured rows: ``python benchmarks/plots.py``."""

from __future__ import annotations

import argparse
import math
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
import results
from results import Row

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

__all__ = ["FIGURES", "draw", "main"]

# Colours of Okabe and Ito (2008), which colour-blind readers tell apart; each with a marker of its own.
_STYLES = {
    "spectral": ("#0072B2", "o"),
    "auto": ("#000000", "x"),
    "neighbours": ("#56B4E9", "P"),
    "finufft": ("#009E73", "s"),
    "keops": ("#D55E00", "^"),
    "torch-geometric": ("#CC79A7", "D"),
    "blocked torch": ("#E69F00", "v"),
    "padded torch": ("#A6761D", "*"),
    "fft": ("#0072B2", "o"),
    "fft, kernel given": ("#56B4E9", "o"),
    "rfftn-irfftn": ("#999999", "o"),
    "fft, uncropped": ("#009E73", "o"),
    "direct convolution": ("#D55E00", "o"),
}
_BOTH = "forward_backward_s"


def _numbers(rows: Sequence[Row], field: str) -> list[float]:
    return [float(row[field]) for row in rows]


def _select(rows: Sequence[Row], method: str, field: str, **fields: object) -> list[Row]:
    """Select a method's rows that hold ``field``, by size."""
    found = [
        row
        for row in rows
        if row["method"] == method
        and row["status"] in ("ok", "extrapolated")
        and row[field]
        and all(results.same(row[name], value) for name, value in fields.items())
    ]
    return sorted(found, key=lambda row: float(row["size"]))


def _lines(axes: Axes, rows: Sequence[Row], methods: Sequence[str], field: str, **fields: object) -> None:
    """Draw one line a method over the size; extrapolated parts are dashed and have hollow markers."""
    for method in methods:
        found = _select(rows, method, field, **fields)
        if not found:
            continue
        colour, marker = _STYLES[method]
        measured = [row for row in found if row["status"] == "ok"]
        beyond = [row for row in found if row["status"] == "extrapolated"]
        # What "auto" picks is one of the others: marks on that one's line.
        width = 0.0 if method == "auto" else 1.6
        size = 8 if method == "auto" else 5
        axes.plot(_numbers(measured, "size"), _numbers(measured, field), color=colour, marker=marker, ms=size, lw=width)
        if beyond:
            tail = [*measured[-1:], *beyond]
            axes.plot(_numbers(tail, "size"), _numbers(tail, field), color=colour, ls=(0, (4, 3)), lw=1.3)
            places, heights = _numbers(beyond, "size"), _numbers(beyond, field)
            axes.plot(places, heights, color=colour, marker=marker, ms=5, mfc="white", ls="none")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.grid(which="major", color="0.9")
    axes.spines[["top", "right"]].set_visible(False)


def _legend(figure: Figure, rows: Sequence[Row], methods: Sequence[str], field: str = _BOTH) -> None:
    """Draw the legend beside the panels: the methods in them, and what dashes mean."""
    present = [method for method in methods if _select(rows, method, field)]
    handles = [
        Line2D([], [], color=_STYLES[name][0], marker=_STYLES[name][1], lw=0 if name == "auto" else 1.6, label=name)
        for name in present
    ]
    if any(row["status"] == "extrapolated" and row["method"] in present and row[field] for row in rows):
        label = "extrapolated"
        handles.append(Line2D([], [], color="0.4", ls=(0, (4, 3)), marker="o", mfc="white", label=label))
    figure.legend(handles=handles, loc="outside center right", frameon=False, fontsize=9, handlelength=3)


def _panels(title: str, count: int, height: float = 4.2) -> tuple[Figure, list[Axes]]:
    width = 3.4 * count + 2.2 if count > 1 else 7.0
    figure, axes = plt.subplots(1, count, figsize=(width, height), squeeze=False, sharey=True, layout="constrained")
    figure.suptitle(title, fontsize=11)
    return figure, list(axes[0])


_POINT_METHODS = ("spectral", "auto", "finufft", "torch-geometric", "keops", "blocked torch")


def time_of_points(rows: Sequence[Row]) -> Figure:
    """Plot seconds against the number of points."""
    return _of_points(rows, _BOTH, "forward + backward, seconds", "Time of a convolution of scattered points")


def memory_of_points(rows: Sequence[Row]) -> Figure:
    """Plot peak memory against the number of points."""
    return _of_points(
        rows, "peak_mib", "peak memory beyond the data, MiB", "Memory of a convolution of scattered points"
    )


def _of_points(rows: Sequence[Row], field: str, label: str, title: str) -> Figure:
    figure, panels = _panels(f"{title}: 16 channels, support 0.25 of the box, rtol 1e-3", 3)
    for d, axes in enumerate(panels, start=1):
        _lines(axes, rows, _POINT_METHODS, field, kind="points", d=d, rtol=0.001)
        axes.set_title(f"{d}-D", fontsize=10)
        axes.set_xlabel("points")
    panels[0].set_ylabel(label)
    _legend(figure, rows, _POINT_METHODS, field)
    return figure


def error_against_time(rows: Sequence[Row]) -> Figure:
    """Plot measured error against seconds, for several rtol, at the size that was measured with most of them."""
    chosen = [row for row in rows if row["kind"] == "points" and row["d"] == "3" and row["status"] == "ok"]
    sizes = {row["size"]: len({other["rtol"] for other in chosen if other["size"] == row["size"]}) for row in chosen}
    size = max(sizes, key=sizes.__getitem__)
    figure, (axes,) = _panels(f"Error and time: {int(size):,} points in 3-D, 16 channels", 1)
    for method in ("spectral", "finufft"):
        found = sorted(_select(chosen, method, _BOTH, size=size), key=lambda row: float(row["rtol"]))
        colour, marker = _STYLES[method]
        axes.plot(_numbers(found, _BOTH), _numbers(found, "relative_error"), color=colour, marker=marker)
        for row in found:
            place = (float(row[_BOTH]), float(row["relative_error"]))
            axes.annotate(
                f"{float(row['rtol']):g}", place, xytext=(7, 4), textcoords="offset points", fontsize=8, color=colour
            )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.15, y=0.1)
    axes.grid(which="major", color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("forward + backward, seconds")
    axes.set_ylabel("measured relative L2 error (labels: requested rtol)")
    _legend(figure, chosen, ("spectral", "finufft"))
    return figure


_RAGGED_METHODS = ("spectral", "auto", "keops", "blocked torch", "padded torch")


def time_of_ragged(rows: Sequence[Row]) -> Figure:
    """Plot seconds against the number of series."""
    figure, (axes,) = _panels("Ragged batches: 30 to 200 samples a series, 64 channels", 1)
    _lines(axes, rows, _RAGGED_METHODS, _BOTH)
    axes.set_xlabel("series")
    axes.set_ylabel("forward + backward, seconds")
    _legend(figure, rows, _RAGGED_METHODS)
    return figure


def compact_kernel(rows: Sequence[Row]) -> Figure:
    """Plot seconds and memory of a kernel that reaches about 50 neighbours."""
    size = max(rows, key=lambda row: float(row["size"] or 0))["size"]
    methods = ("auto", "neighbours", "torch-geometric", "spectral", "keops")
    figure, axes = plt.subplots(1, 2, figsize=(8.4, 3.2), sharey=True, layout="constrained")
    figure.suptitle(f"About 50 neighbours a point: {int(size):,} points in 3-D, 16 channels", fontsize=11)
    for panel, field, label in (
        (axes[0], _BOTH, "forward + backward, seconds"),
        (axes[1], "peak_mib", "peak memory beyond the data, MiB"),
    ):
        statuses = {row["method"]: row["status"] for row in rows if row["size"] == size}
        shown = [(name, _select(rows, name, field, size=size), statuses.get(name, "")) for name in methods]
        _decades([panel], _horizontal(panel, shown, field))
        panel.set_xlabel(label)
    return figure


def time_on_grids(rows: Sequence[Row]) -> Figure:
    """Plot seconds of every method on grids, per number of axes and support."""
    methods = ("rfftn-irfftn", "fft, kernel given", "fft", "fft, uncropped", "direct convolution")
    dimensions = sorted({int(row["d"]) for row in rows})
    figure, axes = plt.subplots(
        2, len(dimensions), figsize=(3.1 * len(dimensions) + 1, 4.8), squeeze=False, sharex=True, sharey="row",
        layout="constrained",
        height_ratios=(len(methods), 3),
    )  # fmt: skip
    figure.suptitle("Grids: forward + backward, seconds", fontsize=11)
    values: list[float] = []
    for column, d in enumerate(dimensions):
        for line, (support, names) in enumerate(((0.1, methods), (1.0, methods[:3]))):
            panel = axes[line][column]
            statuses = {row["method"]: row["status"] for row in rows if results.same(row["d"], d)}
            shown = [(name, _select(rows, name, _BOTH, d=d, support=support), statuses.get(name, "")) for name in names]
            values += _horizontal(panel, shown, _BOTH)
            found = next((row for row in rows if row["d"] == str(d)), None)
            size = "" if found is None else "x".join([found["size"]] * d if d < 4 else [f"{found['size']}^4"])
            batch = "" if found is None else f", {found['channels']} ch, batch {found['batch']}"
            if line == 0:
                panel.set_title(f"{size}{batch}", fontsize=9)
            if column == 0:
                panel.set_ylabel(f"support {support:.0%}\nof the axis", fontsize=9)
    _decades(figure.axes, values)
    return figure


def _horizontal(axes: Axes, bars: Sequence[tuple[str, list[Row], str]], field: str) -> list[float]:
    """Draw a bar a method with its figure, hatched where extrapolated, or why there is none; return the figures."""
    for place, (method, rows, status) in enumerate(bars):
        if not rows:
            missing = "not measured" if status in ("", "ok", "extrapolated") else status
            axes.annotate(
                missing, (0.02, place), xycoords=("axes fraction", "data"), va="center", fontsize=8, color="0.5"
            )
            continue
        value, beyond = float(rows[-1][field]), rows[-1]["status"] == "extrapolated"
        axes.barh(place, value, color=_STYLES[method][0], height=0.65, hatch="///" if beyond else "", ec="white")
        text = f"{value:{'.0f' if value >= 100 else '.3g'}}{' (extrapolated)' if beyond else ''}"
        axes.annotate(text, (value, place), xytext=(3, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(range(len(bars)), [method for method, _, _ in bars], fontsize=9)
    if not axes.yaxis_inverted():
        axes.invert_yaxis()
    values = [float(rows[-1][field]) for _, rows, _ in bars if rows]
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return values


def _decades(panels: Sequence[Axes], values: Sequence[float]) -> None:
    """Set one logarithmic axis for all panels, from a whole decade on, with room for the figures behind the bars."""
    low = 10.0 ** math.floor(math.log10(min(values) / 1.5))
    high = max(values) * (max(values) / low) ** 0.45
    for axes in panels:
        axes.set_xscale("log")
        axes.set_xlim(low, high)
        axes.xaxis.set_minor_formatter(NullFormatter())


FIGURES: dict[str, tuple[str, Callable[[Sequence[Row]], Figure]]] = {
    "points_time": ("points", time_of_points),
    "points_memory": ("points", memory_of_points),
    "points_error": ("points", error_against_time),
    "compact": ("compact", compact_kernel),
    "ragged_time": ("ragged", time_of_ragged),
    "grids_time": ("grids", time_on_grids),
}
"""Name of each figure's file, the suite it shows, and what draws it."""


def _sign(figure: Figure, machine: str) -> None:
    """Print machine and versions in small type, below everything else."""
    text = textwrap.fill(machine, width=round(figure.get_figwidth() * 20))
    figure.supxlabel(text, fontsize=6, color="0.4")


def draw(folder: Path, device: str) -> list[Path]:
    """Draw the figures of the suites that ``folder`` holds."""
    files = results.files(folder, device)
    paths: list[Path] = []
    for name, (suite, make) in FIGURES.items():
        rows = results.read(files[suite])
        if not any(row["status"] == "ok" for row in rows):
            continue
        figure = make(rows)
        _sign(figure, results.described(rows[0]))
        paths.append(folder / f"{name}{files[suite].stem.removeprefix(suite)}.png")
        figure.savefig(paths[-1], dpi=150)
        plt.close(figure)
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=results.RESULTS, help="folder of the CSV files")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    options = parser.parse_args()
    paths = draw(options.folder, options.device)
    if not paths:
        sys.exit(f"{options.folder} holds no results: run benchmarks/run.py first")
    print(*paths, sep="\n")


if __name__ == "__main__":
    main()
