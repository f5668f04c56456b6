"""``ccnn consistency``: how much of a layer's answer on a gridded variable depends on engine and sampling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ccnn_irregular._checks import require
from ccnn_irregular.consistency import ConsistencyReport, check_consistency
from ccnn_irregular.layers import ContinuousConv
from ccnn_irregular.pipelines.consistency.layers import checkpoint_layer, smooth_layer
from ccnn_irregular.pipelines.consistency.options import chosen_layer, less_mean, option_parser, read_variable
from ccnn_irregular.pipelines.consistency.report import described, pictures
from ccnn_irregular.pipelines.consistency.sources import GriddedVariable, read_netcdf, read_npz
from ccnn_irregular.pipelines.train.reports import write_text

__all__ = ["GriddedVariable", "checkpoint_layer", "read_netcdf", "read_npz", "run", "smooth_layer"]


def run(arguments: list[str]) -> None:
    """Read the file, check, print the table, write table, report and pictures into a folder."""
    options = option_parser().parse_args(arguments)
    path, folder = Path(options.file), Path(options.output or f"consistency/{Path(options.file).stem}")
    occupied = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    rule = "be a new or empty folder (--overwrite replaces the results in it)"
    require(options.overwrite or not occupied, "output", rule, folder)
    require(path.exists(), "file", "exist", path)
    variable = read_variable(path, options)
    variable = less_mean(variable) if options.anomaly else variable
    layer, in_words = chosen_layer(variable, options)
    report = _checked(layer, variable, options)
    text = described(path, variable, in_words, layer.kernel.in_channels) + "\n\n" + str(report)
    print(text)
    write_text(folder / "consistency.csv", report.to_csv())
    write_text(folder / "report.txt", text + "\n")
    for one in pictures(folder, variable, layer, report, options):
        print(one)
    print(folder / "consistency.csv")
    print(folder / "report.txt")


def _checked(layer: ContinuousConv, variable: GriddedVariable, options: Any) -> ConsistencyReport:
    """The report of the check that the options ask for, with a progress bar meanwhile."""
    from ccnn_irregular.pipelines.train.progress import bar

    channels = layer.kernel.in_channels
    with bar() as shown:
        task = shown.add_task("full grid")

        def progress(done: int, total: int, what: str) -> None:
            shown.update(task, completed=done, total=total, description=what)

        return check_consistency(
            layer,
            np.broadcast_to(variable.values, (channels, *variable.grid.sizes)).copy(),
            variable.grid,
            engines=options.engines,
            keep=options.keep,
            jitter=options.jitter,
            queries=options.queries,
            rtol=options.rtol,
            limit_seconds=options.limit_seconds,
            seed=options.seed,
            progress=progress,
        )
