"""Plots of volumes: orthogonal slices with labels, where two label volumes differ, central slices of kernels.

Needs matplotlib, imported when a plot is made. Distances are true on every panel, whatever the voxels' proportions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ccnn_irregular._checks import reject, require
from ccnn_irregular.domains import Grid
from ccnn_irregular.kernels import Kernel
from ccnn_irregular.plotting import COLOURS, new_figure

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_disagreement", "plot_kernel_slices", "plot_prediction", "plot_slices"]

_NAMES = ("x", "y", "z")
# Of labels 1, 2, ...: orange, light blue and on, which stand out against grey.
_LABEL_COLOURS = tuple(COLOURS[place] for place in (4, 5, 2, 3, 1, 0))
_OPACITY = 0.55
_DISAGREEMENT = (("agree", "#b8d8c8"), ("missed", COLOURS[1]), ("too much", COLOURS[0]), ("other label", COLOURS[3]))
_KIND_COLOURS = [colour for _, colour in _DISAGREEMENT]
# Percentiles of the intensities that are drawn black and white.
_WINDOW = (0.5, 99.5)
_BAR_SHARE = 0.3
_INCHES = 2.5
_KERNEL_NODES = 61
_MOST_KERNELS = 4

Array = NDArray[Any]


def plot_slices(
    values: Array | xr.DataArray,
    grid: Grid | None = None,
    *,
    labels: Array | None = None,
    names: Sequence[str] | None = None,
    at: Sequence[int] | None = None,
    unit: str = "mm",
    title: str | None = None,
) -> Figure:
    """Plot three orthogonal slices of a volume, labels in colour over them, a scale bar on each.

    Args:
        values: ``grid.sizes``, three axes.
        grid: of the voxels, in ``unit``. None where ``values`` is an array with uniform coordinates (``read_nifti``),
            whose dimensions then name the axes; else they are called x, y and z.
        labels: integers of the same shape, 0 = nothing.
        names: of the labels 1, 2, ...; for the legend.
        at: index of the slice along each axis; None = where the most of the labels is seen, else the middle.
        unit: of the grid.
        title: above the panels.

    Raises:
        ValueError: shapes that disagree, or slices outside of the volume.
    """
    values, grid, axis_names = _gridded(values, grid)
    if labels is not None:
        labels = np.asarray(labels)
        require(labels.shape == values.shape, "labels", f"have the volume's shape {values.shape}", labels.shape)
    at = _places(grid, labels if at is None else None, at)
    entries = [] if labels is None else _label_entries(int(labels.max()), names)
    row = _Row(None, labels, [colour for _, colour in entries])
    return _drawn(_Volume(values, grid, axis_names, at, unit), [row], entries, title)


def plot_disagreement(
    values: Array | xr.DataArray,
    predicted: Array,
    labels: Array,
    grid: Grid | None = None,
    *,
    at: Sequence[int] | None = None,
    unit: str = "mm",
    title: str | None = None,
) -> Figure:
    """Plot where predicted labels differ from the true ones: voxels missed, too much, or given another label.

    Args:
        values: ``grid.sizes``, three axes.
        predicted: integers of the same shape, 0 = nothing.
        labels: the true ones.
        grid: of the voxels; None where ``values`` is an array with coordinates.
        at: index of the slice along each axis; None = where most voxels differ.
        unit: of the grid.
        title: above the panels.

    Raises:
        ValueError: shapes that disagree, or slices outside of the volume.
    """
    volume, code = _compared(values, predicted, labels, grid, at, unit)
    return _drawn(volume, [_Row(None, code, _KIND_COLOURS)], _disagreement_entries(code), title)


def plot_prediction(
    values: Array | xr.DataArray,
    predicted: Array,
    labels: Array,
    grid: Grid | None = None,
    *,
    names: Sequence[str] | None = None,
    at: Sequence[int] | None = None,
    unit: str = "mm",
    title: str | None = None,
) -> Figure:
    """Plot predicted labels beside the true ones on the same slices: a row for each, and a row for where they differ.

    Args:
        values: ``grid.sizes``, three axes.
        predicted: integers of the same shape, 0 = nothing.
        labels: the true ones.
        grid: of the voxels; None where ``values`` is an array with coordinates.
        names: of the labels 1, 2, ...; for the legend.
        at: index of the slice along each axis; None = where most voxels differ.
        unit: of the grid.
        title: above the panels.

    Raises:
        ValueError: shapes that disagree, or slices outside of the volume.
    """
    volume, code = _compared(values, predicted, labels, grid, at, unit)
    entries = _label_entries(max(int(np.max(labels)), int(np.max(predicted))), names)
    colours = [colour for _, colour in entries]
    rows = [
        _Row("truth", np.asarray(labels), colours),
        _Row("predicted", np.asarray(predicted), colours),
        _Row("difference", code, _KIND_COLOURS),
    ]
    return _drawn(volume, rows, [*entries, *_disagreement_entries(code)], title)


def plot_kernel_slices(
    kernels: Mapping[str, Kernel], *, channels: int = _MOST_KERNELS, unit: str = "mm", title: str | None = None
) -> Figure:
    """Plot central slices of learned kernels of three axes: what each weighs, at its true size.

    One row a kernel: its ``channels`` values of largest norm, each in the plane of its first two axes through the
    origin, the first to the right, on a colour scale of its own. All panels span the same distance.

    Args:
        kernels: by name, each of two or three axes and with a mask.
        channels: at most so many panels a kernel.
        unit: of the kernels' coordinates.
        title: above the panels.

    Raises:
        ValueError: no kernel, one of another number of axes, or one whose support is not bounded.
    """
    require(len(kernels) > 0, "kernels", "hold one at least", "none")
    for name, kernel in kernels.items():
        require(kernel.d in (2, 3), f"kernels[{name!r}]", "have two or three axes", kernel.d)
        bounded = bool(torch.isfinite(kernel.support).all())
        require(bounded, f"kernels[{name!r}]", "have a mask that ends", kernel.support.tolist())
    reach = max(float(kernel.support[:2].max()) for kernel in kernels.values())
    figure = new_figure(0.9 + 1.35 * channels, 0.6 + 1.35 * len(kernels))
    panels = figure.subplots(len(kernels), channels, squeeze=False, sharex=True, sharey=True)
    for row, (name, kernel) in zip(panels, kernels.items(), strict=True):
        slices = _central_slice(kernel, reach)
        chosen = np.sort(np.argsort(-np.linalg.norm(slices, axis=(1, 2)), kind="stable")[:channels])
        for axes, channel in zip(row, chosen, strict=False):
            bound = float(np.abs(slices[channel]).max()) or 1.0
            axes.imshow(slices[channel].T, origin="lower", extent=(-reach, reach) * 2, cmap="RdBu_r", vmin=-bound,
                        vmax=bound, interpolation="nearest")  # fmt: skip
            axes.tick_params(labelsize="x-small")
        for axes in row[len(chosen) :]:
            axes.set_axis_off()
        across = " x ".join(f"{2 * half:.3g}" for half in kernel.support.tolist())
        row[0].set_title(f"{name}: {across} {unit} across", loc="left", fontsize="x-small")
    for axes in panels[-1]:
        axes.set_xlabel(f"axis 0 ({unit})", fontsize="x-small")
    for axes in panels[:, 0]:
        axes.set_ylabel(f"axis 1 ({unit})", fontsize="x-small")
    if title is not None:
        figure.suptitle(title, fontsize="medium")
    return figure


class _Volume(NamedTuple):
    """A volume, the names of its axes, and the slices that are drawn."""

    values: Array
    grid: Grid
    axis_names: tuple[str, ...]
    at: tuple[int, ...]
    unit: str


class _Row(NamedTuple):
    """Labels over a row of panels; without a name it is the only row."""

    name: str | None
    labels: Array | None
    colours: Sequence[str]


def _drawn(volume: _Volume, rows: Sequence[_Row], entries: Sequence[tuple[str, str]], title: str | None) -> Figure:
    """Draw rows of slices; what is the same for all rows stands at the first and the last one."""
    figure, panels = _panels(volume.grid, len(rows))
    for number, row in enumerate(rows):
        axes_of = panels[3 * number : 3 * number + 3]
        _draw_grey(axes_of, volume)
        if row.labels is not None:
            _draw_labels(axes_of, row.labels, volume.grid, volume.at, row.colours)
        if row.name is not None:
            text = f"{row.name}\n{axes_of[0].get_ylabel()}"
            axes_of[0].set_ylabel(text, fontsize="small", rotation=0, ha="right", va="center")
        for axes in axes_of if number else ():
            axes.set_title("")
        for axes in axes_of if number < len(rows) - 1 else ():
            axes.set_xlabel("")
    if entries:
        _legend(figure, entries)
    if title is not None:
        figure.suptitle(title, fontsize="medium")
    return figure


def _compared(
    values: Array | xr.DataArray,
    predicted: Array,
    labels: Array,
    grid: Grid | None,
    at: Sequence[int] | None,
    unit: str,
) -> tuple[_Volume, NDArray[np.int64]]:
    """The volume at the slices where most voxels differ, unless others are asked for, and how each of them differs."""
    values, grid, axis_names = _gridded(values, grid)
    predicted, labels = np.asarray(predicted), np.asarray(labels)
    shapes = (predicted.shape, labels.shape)
    require(shapes == (values.shape,) * 2, "predicted and labels", f"have the volume's shape {values.shape}", shapes)
    code = _disagreement(predicted, labels)
    at = _places(grid, _most_wrong(code) if at is None else None, at)
    return _Volume(values, grid, axis_names, at, unit), code


def _gridded(values: Array | xr.DataArray, grid: Grid | None) -> tuple[Array, Grid, tuple[str, ...]]:
    """Return values, grid and names of the axes, the latter two from the coordinates of an array that has them."""
    names = tuple(str(dim) for dim in getattr(values, "dims", _NAMES))
    if grid is None:
        if isinstance(values, np.ndarray):
            reject("grid", "be given where values have no coordinates", grid)
        nodes = [values[dim].to_numpy().astype(np.float64) for dim in values.dims]
        steps = [float(np.diff(line).mean()) if len(line) > 1 else 1.0 for line in nodes]
        rising = tuple(slice(None, None, -1 if step < 0 else 1) for step in steps)
        values = values.to_numpy()[rising]
        grid = Grid(values.shape, [abs(step) for step in steps], [float(line.min()) for line in nodes])
    array = np.asarray(values)
    require(grid.d == 3, "grid", "have three axes", grid.d)
    require(array.shape == grid.sizes, "values", f"have the grid's shape {grid.sizes}", array.shape)
    return array, grid, names


def _places(grid: Grid, marked: Array | None, at: Sequence[int] | None) -> tuple[int, ...]:
    """Choose the slices that are drawn."""
    if at is not None:
        inside = len(at) == grid.d and all(0 <= index < size for index, size in zip(at, grid.sizes, strict=False))
        require(inside, "at", f"be three indices inside {grid.sizes}", tuple(at))
        return tuple(int(index) for index in at)
    if marked is None or not marked.any():
        return tuple(size // 2 for size in grid.sizes)
    seen = marked > 0
    others = [tuple(axis for axis in range(grid.d) if axis != normal) for normal in range(grid.d)]
    return tuple(int(np.argmax(seen.sum(axis=rest))) for rest in others)


def _extents(grid: Grid) -> list[float]:
    return [axis.size * axis.step for axis in grid.axes]


def _label_entries(top: int, names: Sequence[str] | None) -> list[tuple[str, str]]:
    """Names and colours of the labels 1, 2, ..., up to ``top`` at least."""
    shown = [f"label {label}" for label in range(1, top + 1)] if names is None else list(names)
    shown += [f"label {label}" for label in range(len(shown) + 1, top + 1)]
    return [(name, _LABEL_COLOURS[number % len(_LABEL_COLOURS)]) for number, name in enumerate(shown)]


def _disagreement(predicted: Array, labels: Array) -> NDArray[np.int64]:
    """1, 2, ... for each kind of ``_DISAGREEMENT``, 0 where there is no label."""
    both = (predicted > 0) & (labels > 0)
    kinds = (both & (predicted == labels), (labels > 0) & (predicted == 0), (predicted > 0) & (labels == 0),
             both & (predicted != labels))  # fmt: skip
    code = np.zeros(labels.shape, np.int64)
    for number, kind in enumerate(kinds, 1):
        code[kind] = number
    return code


def _most_wrong(code: NDArray[np.int64]) -> NDArray[np.int64]:
    """What the slices are chosen by: voxels that differ, all that have a label where none do."""
    wrong = np.where(code > 1, 1, 0)
    return wrong if wrong.any() else code


def _disagreement_entries(code: NDArray[np.int64]) -> list[tuple[str, str]]:
    """Kinds with their numbers of voxels, and their colours."""
    counts = np.bincount(code.reshape(-1), minlength=len(_DISAGREEMENT) + 1)[1:]
    return [(f"{name}: {count}", colour) for (name, colour), count in zip(_DISAGREEMENT, counts, strict=True)]


def _panels(grid: Grid, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """Make one panel a slice, each as wide as its plane, in one row or more."""
    sizes = _extents(grid)
    planes = [(sizes[axis] for axis in _plane(normal)) for normal in range(3)]
    widths, heights = zip(*planes, strict=True)
    scale = _INCHES / max(heights)
    figure = new_figure(max(5.0, scale * sum(widths) + 1.2), rows * _INCHES + 1.0)
    return figure, list(figure.subplots(rows, 3, width_ratios=widths, squeeze=False).ravel())


def _plane(normal: int) -> tuple[int, int]:
    """Return the axes of the slice across axis ``normal``: to the right and upwards."""
    first, second = (axis for axis in range(3) if axis != normal)
    return first, second


def _box(grid: Grid, normal: int) -> tuple[float, float, float, float]:
    """Return the edges of the voxels of a slice."""
    edges = [
        (axis.start - axis.step / 2, axis.start + (axis.size - 0.5) * axis.step)
        for axis in (grid.axes[number] for number in _plane(normal))
    ]
    return (*edges[0], *edges[1])


def _draw_grey(panels: Sequence[Axes], volume: _Volume) -> None:
    values, grid, names, at, unit = volume
    low, high = np.nanpercentile(values, _WINDOW)
    for normal, axes in enumerate(panels):
        plane = np.take(values, at[normal], axis=normal)
        axes.imshow(plane.T, origin="lower", extent=_box(grid, normal), cmap="gray", vmin=low, vmax=high or None,
                    aspect="equal", interpolation="nearest")  # fmt: skip
        place = grid.axes[normal].start + at[normal] * grid.axes[normal].step
        right, up = (names[number] for number in _plane(normal))
        axes.set_title(f"{names[normal]} = {place:.4g} {unit}", fontsize="small")
        axes.set_xlabel(right, fontsize="small")
        axes.set_ylabel(up, fontsize="small", rotation=0)
        axes.set_xticks([])
        axes.set_yticks([])
        _scale_bar(axes, unit)


def _scale_bar(axes: Axes, unit: str) -> None:
    """Draw a bar of a round length in the lower left corner, black under white: seen on any grey."""
    left, right = axes.get_xlim()
    bottom, top = axes.get_ylim()
    length = _round_length(_BAR_SHARE * (right - left))
    x, y = left + 0.06 * (right - left), bottom + 0.06 * (top - bottom)
    for colour, width in (("black", 4.0), ("white", 2.0)):
        axes.plot([x, x + length], [y, y], color=colour, linewidth=width, solid_capstyle="butt")
    text = axes.annotate(
        f"{length:g} {unit}", (x + length / 2, y), (0, 3), textcoords="offset points", ha="center", fontsize="x-small"
    )
    text.set(color="white", bbox={"facecolor": "black", "alpha": 0.5, "edgecolor": "none", "pad": 0.8})


def _round_length(longest: float) -> float:
    """Return the largest of 1, 2, 5, 10, ... that is not longer."""
    power = 10.0 ** math.floor(math.log10(longest))
    return max(factor * power for factor in (1, 2, 5) if factor * power <= longest)


def _draw_labels(panels: Sequence[Axes], labels: Array, grid: Grid, at: Sequence[int], colours: Sequence[str]) -> None:
    from matplotlib.colors import to_rgba

    table = np.array([(0.0, 0.0, 0.0, 0.0), *(to_rgba(colour, _OPACITY) for colour in colours)])
    for normal, axes in enumerate(panels):
        plane = np.take(labels, at[normal], axis=normal).T
        axes.imshow(table[plane], origin="lower", extent=_box(grid, normal), aspect="equal", interpolation="nearest")


def _legend(figure: Figure, entries: Sequence[tuple[str, str]]) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(facecolor=colour, alpha=_OPACITY, edgecolor="none", label=name) for name, colour in entries]
    figure.legend(
        handles=handles, loc="outside lower center", frameon=False, fontsize="small", ncols=min(len(handles), 4)
    )


def _central_slice(kernel: Kernel, reach: float) -> NDArray[np.float64]:
    """Evaluate ``(kernel values, nodes, nodes)`` in the plane of the first two axes through the origin."""
    nodes = torch.linspace(-reach, reach, _KERNEL_NODES, dtype=torch.float64)
    plane = torch.stack(torch.meshgrid(nodes, nodes, indexing="ij"), dim=-1)
    offsets = torch.cat([plane, plane.new_zeros(*plane.shape[:2], kernel.d - 2)], dim=-1)
    with torch.no_grad():
        values = kernel(offsets.to(kernel.extent))
    return values.reshape(_KERNEL_NODES, _KERNEL_NODES, -1).movedim(-1, 0).double().cpu().numpy()
