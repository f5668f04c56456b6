"""What a run of ``ccnn consistency`` shows: its text, and pictures."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ccnn_irregular.consistency import ConsistencyReport, Field
from ccnn_irregular.domains import Grid, Points
from ccnn_irregular.layers import ContinuousConv
from ccnn_irregular.operators import ENGINES
from ccnn_irregular.operators.planning.rates import current_rates
from ccnn_irregular.pipelines.consistency.sources import GriddedVariable, length_unit
from ccnn_irregular.solver import Solver

__all__ = ["answer_maps", "described", "pictures"]

_COARSEST_MAP = 16


@torch.no_grad()
def answer_maps(
    layer: ContinuousConv, variable: GriddedVariable, keep: float, *, rtol: float, limit_seconds: float, seed: int
) -> tuple[Grid, NDArray[np.float64], NDArray[np.float64], Tensor]:
    """The layer's answer everywhere, from all nodes and from a share ``keep`` of them.

    Where the answer from scattered samples at every node is predicted to take longer than ``limit_seconds``, it is
    computed at every second node (per axis), and so on.

    Returns:
        The grid of the answers, the two answers on it (channel 0, nan where the field has no value), and the
        coordinates of the samples.
    """
    kernel, grid = layer.kernel, variable.grid
    channels = kernel.in_channels
    field = Field(np.broadcast_to(variable.values, (channels, *grid.sizes)).copy(), grid, seed)
    sampling = field.thinned(keep)
    source = Points(sampling.coordinates, next(iter(sampling.weights.values())), periods=grid.periods)
    stride, rates = 1, current_rates(kernel.extent.device)
    while True:
        sizes = [math.ceil(size / stride) for size in grid.sizes]
        repeats = [wraps and size % stride == 0 for wraps, size in zip(grid.periodic, grid.sizes, strict=True)]
        places = Grid(sizes, [step * stride for step in grid.steps], grid.starts, repeats)
        costs = [engine.assess(kernel, source, places, 1, rtol) for engine in ENGINES.values()]
        seconds = [rates.seconds(cost.plan + cost.forward) for cost in costs if not isinstance(cost, str)]
        if min(seconds) <= limit_seconds or max(sizes) <= _COARSEST_MAP:
            break
        stride *= 2
    layer = ContinuousConv(kernel, bias=False, solver=Solver(rtol=rtol))
    every = (slice(None, None, stride),) * grid.d
    full = layer(torch.nan_to_num(field.values)[None].to(kernel.dtype), grid, places)[0, 0]
    sampled = layer(sampling.values.to(kernel.dtype), source, places)[0, 0]
    valid = field.valid[every].numpy()
    shown = [np.where(valid, answers.double().numpy(), np.nan) for answers in (full, sampled)]
    return places, shown[0], shown[1], sampling.coordinates


def described(path: Path, variable: GriddedVariable, layer: str, channels: int) -> str:
    """What was read and with which layer it is checked, for the reader."""
    lines = [f"{path}: {variable.name}" + (f" ({variable.unit})" if variable.unit else "")]
    for name, unit, axis in zip(variable.axes, variable.units, variable.grid.axes, strict=True):
        wraps = ", repeats" if axis.periodic else ""
        step, start = f"{axis.step:g} {length_unit(unit)}".rstrip(), f"{axis.start:g} {unit or ''}".rstrip()
        lines.append(f"  {name}: {axis.size} nodes, step {step}, from {start}{wraps}")
    lines += [f"  {note}" for note in variable.notes]
    lines.append(layer)
    if channels > 1:
        lines.append(f"The kernel has {channels} channels: each of them reads the same variable.")
    return "\n".join(lines)


def pictures(
    folder: Path, variable: GriddedVariable, layer: ContinuousConv, report: ConsistencyReport, options: Any
) -> list[Path]:
    """Write the plots of a report; their files."""
    from ccnn_irregular.pipelines.train.figures import save
    from ccnn_irregular.plotting import plot_consistency
    from ccnn_irregular.plotting_maps import plot_answer_maps

    made = []
    if any(row.error is not None and (row.kept < 1 or row.jitter > 0) for row in report.rows):
        made.append(save(plot_consistency(report, title=variable.name), folder / "errors.png"))
    shares = [options.map_keep] if options.map_keep is not None else [share for share in options.keep if share < 1]
    if variable.grid.d == 2 and shares:
        share = min(shares)
        grid, full, sampled, samples = answer_maps(
            layer, variable, share, rtol=options.rtol, limit_seconds=options.limit_seconds, seed=options.seed
        )
        figure = plot_answer_maps(
            full,
            sampled,
            grid,
            sampling=f"from {100 * share:g} % of the nodes",
            names=variable.axes,
            units=variable.units,
            unit=variable.unit or None if options.checkpoint is None else None,
            samples=samples.numpy(),
            title=f"{variable.name}, convolved",
        )
        made.append(save(figure, folder / "maps.png"))
    return made
