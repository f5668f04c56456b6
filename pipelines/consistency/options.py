"""The options of ``ccnn consistency``, and what they name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jsonargparse import ArgumentParser

from ccnn_irregular._checks import require
from ccnn_irregular.adapters.xarray_files import Reading
from ccnn_irregular.adapters.xarray_times import Months
from ccnn_irregular.layers import ContinuousConv
from ccnn_irregular.pipelines.consistency.layers import checkpoint_layer, smooth_layer
from ccnn_irregular.pipelines.consistency.sources import GriddedVariable, length_unit, read_netcdf, read_npz

__all__ = ["chosen_layer", "less_mean", "option_parser", "read_variable"]

_DEFAULT_WIDTH_STEPS = 4.0


def option_parser() -> ArgumentParser:
    """The parser of the command's arguments."""
    parser = ArgumentParser(
        prog="ccnn consistency",
        allow_abbrev=False,
        description="how far each engine, and each thinned or jittered sampling, is from the full grid",
    )
    add = parser.add_argument
    add("file", type=str, help="netCDF file, zarr store, folder of netCDF files, or .npz")
    add("--variable", type=str, help="variable of a netCDF file, array of an .npz")
    add("--select", action="append", default=[], metavar="AXIS=VALUE", help="netCDF: the node at that coordinate")
    add("--index", action="append", default=[], metavar="AXIS=NUMBER", help="netCDF: the node at that place, from 0")
    add("--group", type=str, help="of a netCDF file or zarr store; / = the root")
    add("--missing-chunks", action="store_true", help="netCDF, zarr: accept chunks that are not there")
    add(
        "--all-values", action="store_true", help="netCDF, zarr: also those outside the range that the file calls valid"
    )
    add("--zero-fill-missing", action="store_true", help="zarr 2: a fill value of 0 means missing")
    add("--months", type=Months, help="what fractions of months and years since a date are; else refused")
    add("--spacing", type=float, nargs="+", default=[1.0], help=".npz: distance of the nodes, one or one per axis")
    add("--periodic", type=int, nargs="+", default=[], metavar="AXIS", help=".npz: axes that repeat")
    add("--anomaly", action="store_true", help="subtract the mean of the variable, which else outweighs its variation")
    add("--checkpoint", type=str, help="of a network that ccnn fit trained; default: a random smooth kernel")
    add("--layer", type=str, default="stem", help="convolution of the checkpoint whose kernel is taken")
    add("--kernel-width", type=float, nargs="+", help="standard deviation of the smooth kernel's mask, one or one per "
        f"axis, coordinate units; default: {_DEFAULT_WIDTH_STEPS:g} steps")  # fmt: skip
    add("--engines", type=str, nargs="+", help="default: all")
    add("--keep", type=float, nargs="+", default=[1.0, 0.5, 0.2, 0.05], help="shares of the nodes to keep")
    add("--jitter", type=float, nargs="+", default=[0.0, 0.25, 0.5], help="largest displacements, grid steps")
    add("--queries", type=int, default=512, help="random nodes at which answers are compared")
    add("--rtol", type=float, default=1e-3, help="error that the spectral engine may make")
    add("--limit-seconds", type=float, default=60.0, help="evaluations predicted to take longer are left out")
    add("--seed", type=int, default=0, help="of samplings, queries and the smooth kernel")
    add("--map-keep", type=float, help="share of the nodes of the map of a variable on two axes; default: the smallest")
    add("--output", type=str, help="folder of the results; default: consistency/<name of the file>")
    add("--overwrite", action="store_true", help="replace earlier results in the folder")
    return parser


def read_variable(path: Path, options: Any) -> GriddedVariable:
    """The variable that the options name, of a netCDF file, a zarr store or an npz file.

    Raises:
        ValueError: options that do not suit the format; see ``read_netcdf`` and ``read_npz``.
    """
    if path.suffix == ".npz":
        given = [*options.select, *options.index]
        require(not given, "select and index", "be used with netCDF files", given)
        require(options.group is None, "group", "be used with netCDF files and zarr stores", options.group)
        return read_npz(path, options.variable, options.spacing, options.periodic)
    kept = options.group, options.missing_chunks, not options.all_values, options.zero_fill_missing
    reading = Reading(*kept, options.months)
    return read_netcdf(path, options.variable, options.select, options.index, reading)


def less_mean(variable: GriddedVariable) -> GriddedVariable:
    """The variable without the mean of all its nodes; its name and notes say so."""
    mean = float(np.nanmean(variable.values)) if np.isfinite(variable.values).any() else 0.0
    note = f"the mean of all nodes, {mean:.6g}, was subtracted"
    return replace(
        variable, name=f"{variable.name} anomaly", values=variable.values - mean, notes=(*variable.notes, note)
    )


def chosen_layer(variable: GriddedVariable, options: Any) -> tuple[ContinuousConv, str]:
    """The layer that the options name, and what it is in words."""
    grid = variable.grid
    if options.checkpoint is not None:
        layer = checkpoint_layer(Path(options.checkpoint), options.layer)
        support = ", ".join(f"{reach:.4g}" for reach in layer.kernel.support.tolist())
        source = f"kernel {options.layer!r} of {options.checkpoint}, in the units it was trained in"
        return layer, f"{source}: reaches {support}"
    widths = options.kernel_width or [_DEFAULT_WIDTH_STEPS * step for step in grid.steps]
    layer = smooth_layer(grid, widths, options.seed)
    rows = zip(variable.axes, variable.units, layer.kernel.support.tolist(), strict=True)
    reaches = ", ".join(f"{reach:.4g} {length_unit(unit)}".strip() + f" along {name}" for name, unit, reach in rows)
    return layer, f"random smooth kernel (seed {options.seed}), a moving average: reaches {reaches}"
