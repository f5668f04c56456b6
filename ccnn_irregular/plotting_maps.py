"""Maps: answers from a sampling beside those of the full grid, fields reconstructed from observations, coastlines.

Needs matplotlib, imported when a plot is made; cartopy for coastlines.
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ccnn_irregular._checks import require
from ccnn_irregular._optional import import_optional
from ccnn_irregular.domains import Grid
from ccnn_irregular.plotting import new_figure, with_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_coastlines", "plot_answer_maps", "plot_field_maps"]

Array = NDArray[np.floating[Any]]

_MOST_MARKED = 2000
_PANEL = 8e4  # area of a panel of plot_field_maps, square points
_COAST = {"colors": "#404040", "linewidths": 0.5, "zorder": 1.5}
# Degrees across which a map shows the coast at 1 : 110 million, else at 1 : 50 million.
_WIDE = 90.0


def plot_answer_maps(
    full: NDArray[np.floating[Any]],
    sampled: NDArray[np.floating[Any]],
    grid: Grid,
    *,
    sampling: str,
    names: Sequence[str] = ("axis 0", "axis 1"),
    units: Sequence[str | None] = (None, None),
    unit: str | None = None,
    samples: NDArray[np.floating[Any]] | None = None,
    title: str | None = None,
) -> Figure:
    """Plot the full grid's answer, a sampling's answer on the same colour scale, and their difference, as maps.

    Maps in degrees get coastlines, see ``draw_coastlines``.

    Args:
        full: ``grid.sizes``, nan where there is nothing to show (grey).
        sampled: ``grid.sizes``.
        grid: where both are; axis 0 is drawn upwards, axis 1 to the right.
        sampling: name of the sampling, for its panel.
        names: of the axes.
        units: of the axes.
        unit: of the answers.
        samples: ``(n, 2)`` coordinates of the samples, marked on their panel where there are at most 2000.
        title: above the panels.

    Raises:
        ValueError: a grid that has not two axes, or shapes that are not its.
    """
    require(grid.d == 2, "grid", "have two axes to be drawn as a map", grid.d)
    shapes = (full.shape, sampled.shape)
    require(shapes == (grid.sizes,) * 2, "full and sampled", f"have the grid's shape {grid.sizes}", shapes)
    (low_y, high_y), (low_x, high_x) = (
        (axis.start - axis.step / 2, axis.start + (axis.size - 0.5) * axis.step) for axis in grid.axes
    )
    difference = sampled - full
    both = np.concatenate([full[np.isfinite(full)], sampled[np.isfinite(full)]])
    bound = float(np.nanmax(np.abs(difference))) or 1.0
    error = np.linalg.norm(difference[np.isfinite(full)]) / np.linalg.norm(full[np.isfinite(full)])
    scale = {"cmap": "viridis", "vmin": both.min(), "vmax": both.max()}
    around_zero = {"cmap": "RdBu_r", "vmin": -bound, "vmax": bound}
    wide = (high_x - low_x) / (high_y - low_y) if units[0] == units[1] else 1.5
    figure = new_figure(3.4 * min(max(wide, 1.0), 2.2) + 1.6, 8.0)
    panels = figure.subplots(3, 1, sharex=True, sharey=True)
    shown = (
        ("full grid", full, scale),
        (sampling, sampled, scale),
        (
            f"difference: {100 * error:.2g} % of the full grid's L2 norm, over all that is shown",
            difference,
            around_zero,
        ),
    )
    images = []
    for axes, (name, values, colours) in zip(panels, shown, strict=True):
        axes.set_facecolor("#cccccc")
        box = (low_x, high_x, low_y, high_y)
        images.append(
            axes.imshow(values, origin="lower", extent=box, aspect="auto", interpolation="nearest", **colours)
        )
        axes.set_title(name, fontsize="small")
        axes.set_ylabel(with_unit(names[0], units[0]))
    draw_coastlines(panels, names)
    if samples is not None and len(samples) <= _MOST_MARKED:
        panels[1].plot(samples[:, 1], samples[:, 0], ".", color="white", markersize=1.2, alpha=0.7)
    panels[2].set_xlabel(with_unit(names[1], units[1]))
    figure.colorbar(images[0], ax=panels[:2], label=with_unit("answer", unit), aspect=35)
    figure.colorbar(images[2], ax=panels[2:], label=with_unit("difference", unit), aspect=16)
    if title is not None:
        figure.suptitle(title, fontsize="medium")
    return figure


def plot_field_maps(
    observed: NDArray[np.floating[Any]],
    observations: NDArray[np.floating[Any]],
    places: NDArray[np.floating[Any]],
    truth: NDArray[np.floating[Any]],
    estimates: NDArray[np.floating[Any]],
    *,
    names: tuple[str, str] = ("latitude", "longitude"),
    units: tuple[str | None, str | None] = (None, None),
    unit: str | None = None,
    nodes: tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]] | None = None,
    title: str | None = None,
) -> Figure:
    """Plot the observations of a field, the truth elsewhere, its reconstruction, and the error, as four maps.

    Fields on a grid are images, those at scattered places marks. Maps in degrees get coastlines, see
    ``draw_coastlines``.

    Args:
        observed: ``(n, 2)`` places of the observations; coordinate 0 is drawn upwards (pressure downwards).
        observations: ``(n,)``; those that are nan are not drawn, nor counted.
        places: ``(m, 2)`` where the field was asked for.
        truth: ``(m,)``, nan where it is not known: only the reconstruction is drawn there.
        estimates: ``(m,)``, nan where there is none.
        names: of the coordinates.
        units: of the coordinates, for the labels.
        unit: of the values.
        nodes: ``(rows,)`` and ``(columns,)``, rising coordinates of a grid on which all places lie; None = scattered.
            Truth and reconstruction then show the observations too, so that no node is blank.
        title: above the panels.

    Raises:
        ValueError: places of another number of axes.
    """
    require(observed.shape[1:] == (2,) and places.shape[1:] == (2,), "places", "have two axes", places.shape)
    if names[1] == "pressure":  # depth is drawn downwards, and time to the right
        observed, places, names, units = observed[:, ::-1], places[:, ::-1], names[::-1], units[::-1]
        nodes = None if nodes is None else (nodes[1], nodes[0])
    seen, known, answered = (np.isfinite(values) for values in (observations, truth, estimates))
    require(bool(seen.any()), "observations", "hold a value", f"{len(observations)} of nan")
    observed, observations = observed[seen], observations[seen]
    compared = known & answered
    require(bool(compared.any()), "truth", "be known at a place with an estimate", "none")
    error = (estimates - truth)[compared]
    low, high = np.percentile(np.concatenate([observations, truth[known]]), [0.5, 99.5])
    bound = float(np.percentile(np.abs(error), 99.5)) or 1.0
    scale: dict[str, Any] = {"cmap": "viridis", "vmin": low, "vmax": high}
    around_zero: dict[str, Any] = {"cmap": "RdBu_r", "vmin": -bound, "vmax": bound}
    rms = float(np.sqrt(np.mean(error**2)))
    figure = new_figure(11.0, 6.4)
    panels = figure.subplots(2, 2, sharex=True, sharey=True).ravel()
    shown = (
        (f"{len(observed)} observations", observed, observations, scale),
        (f"truth at {known.sum()} other places", places[known], truth[known], scale),
        ("reconstruction", places[answered], estimates[answered], scale),
        (with_unit(f"error, root mean square {rms:.3g}", unit), places[compared], error, around_zero),
    )
    if nodes is not None:
        filled = np.concatenate([places, observed])
        shown = (
            (f"{shown[0][0]} (grey: none)", *shown[0][1:]),
            ("truth (grey: not known)", filled, np.concatenate([truth, observations]), scale),
            ("reconstruction, observations kept", filled, np.concatenate([estimates, observations]), scale),
            (f"{shown[3][0]} (grey: observed, or no truth)", *shown[3][1:]),
        )
    images = []
    for axes, (name, where, values, colours) in zip(panels, shown, strict=True):
        drawn = _marks(axes, where, values, colours) if nodes is None else _image(axes, nodes, where, values, colours)
        images.append(drawn)
        axes.set_title(name, fontsize="small")
        axes.set_facecolor("#e6e6e6")
    draw_coastlines(panels, names)
    for axes in panels[::2]:
        axes.set_ylabel(with_unit(names[0], units[0]))
    for axes in panels[2:]:
        axes.set_xlabel(with_unit(names[1], units[1]))
    if names[0] == "pressure":
        panels[0].invert_yaxis()
    figure.colorbar(images[1], ax=panels[:2], label=with_unit("value, reconstructed too", unit))
    figure.colorbar(images[3], ax=panels[2:], label=with_unit("error", unit))
    if title is not None:
        figure.suptitle(title, fontsize="medium")
    return figure


def _marks(axes: Axes, where: Array, values: Array, colours: dict[str, Any]) -> Any:
    """Draw values as marks that together cover the panel about once."""
    size = float(np.clip(_PANEL / max(len(where), 1), 0.3, 30))
    marker = "s" if len(where) > _MOST_MARKED else "o"
    return axes.scatter(where[:, 1], where[:, 0], c=values, s=size, marker=marker, linewidths=0, **colours)


def _image(axes: Axes, nodes: tuple[Array, Array], where: Array, values: Array, colours: dict[str, Any]) -> Any:
    """Draw values on the nodes of a grid, blank where there is none."""
    picture = np.full((len(nodes[0]), len(nodes[1])), np.nan)
    row, column = (np.searchsorted(line, place) for line, place in zip(nodes, where.T, strict=True))
    picture[row, column] = values
    return axes.pcolormesh(nodes[1], nodes[0], picture, shading="nearest", **colours)


def draw_coastlines(panels: Sequence[Axes], names: Sequence[str]) -> None:
    """Draw coastlines of Natural Earth on maps of latitude and longitude in degrees, within their present limits.

    Plain axes stay plain: where cartopy is not installed, and, with a warning, where its shapes are not on this machine
    and cannot be downloaded.

    Args:
        panels: latitude upwards, longitude (-180 to 180 or 0 to 360) to the right.
        names: of the coordinates; nothing is drawn on others.
    """
    if tuple(names) != ("latitude", "longitude") or importlib.util.find_spec("cartopy") is None:
        return
    collections = import_optional("matplotlib.collections", "plotting", "plots")
    (west, east), (south, north) = panels[0].get_xlim(), panels[0].get_ylim()
    try:
        lines = _coast("110m" if east - west > _WIDE else "50m")
    except OSError as error:  # no network, or no place to keep them
        warnings.warn(f"maps are drawn without coastlines, which cartopy could not read: {error}", stacklevel=2)
        return
    for axes in panels:
        for turn in (-360.0, 0.0, 360.0):
            axes.add_collection(collections.LineCollection([line + np.array([turn, 0.0]) for line in lines], **_COAST))
        axes.set(xlim=(west, east), ylim=(south, north))


def _coast(resolution: str) -> list[NDArray[np.float64]]:
    """Return lines ``(n, 2)`` of longitude and latitude."""
    shapes = importlib.import_module("cartopy.io.shapereader")
    path = shapes.natural_earth(resolution=resolution, category="physical", name="coastline")
    found = shapes.Reader(path).geometries()
    return [np.asarray(part.coords)[:, :2] for shape in found for part in getattr(shape, "geoms", [shape])]
