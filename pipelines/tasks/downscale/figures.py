"""The figure of a downscaling test: one field, what was known of it, and what is wrong with each answer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ccnn_irregular.pipelines.tasks.downscale.fields import Plane
from ccnn_irregular.pipelines.train.figures import save
from ccnn_irregular.plotting import new_figure

__all__ = ["maps"]

Field = NDArray[np.floating]


def maps(
    coarse: Field,
    fine: Field,
    answers: Mapping[str, Field],
    planes: tuple[Plane, Plane],
    label: str,
    path: Path,
) -> Path:
    """Coarse and fine field in one colour scale, and below them the errors of the answers in another.

    Args:
        coarse: ``(rows, columns)`` of the first plane, blank where nan.
        fine: ``(rows, columns)`` of the second plane, blank where nan; with values.
        answers: fine fields by their names, two of them.
        planes: of the coarse and of the fine field.
        label: variable and unit.
        path: of the PNG.
    """
    high, wide = fine.shape
    figure = new_figure(8.6, 1.6 + 7.2 * min(1.2, max(0.4, high / wide)))
    panels = figure.subplots(2, 2, sharex=True, sharey=True)
    lowest, highest = float(np.nanmin(fine)), float(np.nanmax(fine))
    errors = {f"{name} minus true": values - fine for name, values in answers.items()}
    most = max(float(np.nanquantile(np.abs(error), 0.995)) for error in errors.values())
    shown = [("coarse, given", coarse, planes[0]), ("fine, true", fine, planes[1])]
    for axes, (name, values, plane) in zip(panels[0], shown, strict=True):
        image = axes.imshow(values, extent=_extent(plane), origin="lower", vmin=lowest, vmax=highest, aspect="auto")
        axes.set_title(name, fontsize="medium")
    figure.colorbar(image, ax=panels[0], label=label)
    for axes, (name, values) in zip(panels[1], errors.items(), strict=True):
        image = axes.imshow(
            values, extent=_extent(planes[1]), origin="lower", cmap="RdBu_r", vmin=-most, vmax=most, aspect="auto"
        )
        axes.set_title(f"{name}: rms {np.sqrt(np.nanmean(np.square(values))):.3g}", fontsize="medium")
    figure.colorbar(image, ax=panels[1], label=f"error, {label}", extend="both")
    rows, columns = planes[1].rows, planes[1].columns
    for axes in panels[1]:
        axes.set_xlabel(f"{columns.name} ({columns.unit})")
    for axes in panels[:, 0]:
        axes.set_ylabel(f"{rows.name} ({rows.unit})")
    return save(figure, path)


def _extent(plane: Plane) -> tuple[float, float, float, float]:
    """Outer edges of the first and last cells: left, right, bottom, top."""
    (high, wide), rows, columns = plane.steps, plane.rows.nodes, plane.columns.nodes
    return columns[0] - wide / 2, columns[-1] + wide / 2, rows[0] - high / 2, rows[-1] + high / 2
