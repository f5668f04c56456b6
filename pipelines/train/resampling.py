"""Samples brought back to the sampling that a network was trained on, as users of fixed kernels do before they predict.

Methods: "linear" everywhere; "cubic" is Keys's cubic convolution on grids and SciPy's PCHIP between samples at
irregular places; "polyphase" is SciPy's ``resample_poly``, for uniform series. Validation tells which one is better.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from scipy.interpolate import PchipInterpolator
from torch import Tensor

from ccnn_irregular._checks import reject
from ccnn_irregular.datasets.processing.audio import resample
from ccnn_irregular.datasets.processing.interpolation import NodeMethod, between_samples, node_shares
from ccnn_irregular.datasets.samples import GriddedSamples, RaggedSeries, RaggedVolumes
from ccnn_irregular.domains import Axis, Grid

__all__ = ["Method", "covering_grid", "onto_grid", "sampled_like"]

Method = Literal["linear", "cubic", "polyphase"]


def onto_grid(values: Tensor, old: Grid, new: Grid, method: NodeMethod, *, smooth: bool = True) -> Tensor:
    """Values at the nodes of another grid, axis by axis.

    Args:
        values: ``(..., *old.sizes)``.
        old: where they were taken; no axis is taken to be periodic.
        new: where they are wanted; beyond the old nodes the nearest one counts.
        method: between the nodes.
        smooth: first, where the new steps are larger: for values that a network reads. False looks them up.

    Returns:
        ``(..., *new.sizes)``.
    """
    for number, (before, after) in enumerate(zip(old.axes, new.axes, strict=True)):
        if before == after:
            continue
        places = (after.start - before.start + after.step * np.arange(after.size)) / before.step
        width = max(after.step / before.step, 1.0) if smooth else 1.0
        shares = node_shares(places, before.size, width, method)
        axis = number - old.d
        values = (values.movedim(axis, -1) @ torch.from_numpy(shares.T).to(values)).movedim(-1, axis)
    return values.contiguous()


def covering_grid(grid: Grid, steps: Sequence[float]) -> Grid:
    """A grid of these steps from the first node of ``grid`` to its last one, or the next node after it."""

    def size(axis: Axis, step: float) -> int:
        # Rounding must not add a node.
        return math.ceil((axis.size - 1) * axis.step / step - 1e-6) + 1

    sizes = [size(axis, step) for axis, step in zip(grid.axes, steps, strict=True)]
    return Grid(sizes, steps, grid.starts)


def sampled_like(
    samples: GriddedSamples | RaggedSeries | RaggedVolumes,
    trained: GriddedSamples | RaggedSeries | RaggedVolumes,
    method: Method,
) -> GriddedSamples | RaggedSeries:
    """``samples`` where ``trained`` has them: the same samples, taken as the network knows them from its training.

    Raises:
        ValueError: a method that is not for samples of this kind.
    """
    if isinstance(samples, RaggedSeries) and isinstance(trained, RaggedSeries):
        return dataclasses.replace(trained, values=_series_values(samples, trained, method))
    if not isinstance(samples, GriddedSamples) or not isinstance(trained, GriddedSamples):
        reject("test.resample", "be asked for series, or for samples that share a grid", f"{samples!r}")
    if method == "polyphase":
        size = trained.grid.sizes[0]
        values = resample(samples.values.numpy(), 1 / samples.grid.steps[0], 1 / trained.grid.steps[0])[..., :size]
        return dataclasses.replace(trained, values=torch.from_numpy(np.ascontiguousarray(values)))
    return dataclasses.replace(trained, values=onto_grid(samples.values, samples.grid, trained.grid, method))


def _series_values(samples: RaggedSeries, trained: RaggedSeries, method: Method) -> Tensor:
    times, places = samples.coordinates[:, 0], trained.coordinates[:, 0]
    if method == "linear":
        return between_samples(samples.values, times, samples.splits, places, trained.splits)
    rates = _rate(samples), _rate(trained)
    parts = []
    bounds = zip(itertools.pairwise(samples.splits.tolist()), itertools.pairwise(trained.splits.tolist()), strict=True)
    for (first, last), (begin, end) in bounds:
        old, new = times[first:last].numpy(), places[begin:end].numpy()
        values = samples.values[first:last].numpy()
        if method == "cubic" and len(old) > 1:
            values = PchipInterpolator(old, values)(new.clip(old[0], old[-1]))
        elif method == "cubic":
            values = np.repeat(values, len(new), axis=0)
        else:
            values = resample(values.T, *rates).T[: len(new)]
        parts.append(values)
    return torch.from_numpy(np.concatenate(parts).astype(np.float32))


def _rate(series: RaggedSeries) -> float:
    """Samples per coordinate unit of series that are sampled alike, by the longest one."""
    first, last = series.splits[series.splits.diff().argmax() :][:2].tolist()
    span = float(series.coordinates[last - 1, 0] - series.coordinates[first, 0])
    return (last - first - 1) / span if span else 1.0
