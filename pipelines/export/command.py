"""The command: options, the grid of a run, the file, and what was gained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse import ArgumentParser
from torch import Tensor

from ccnn_irregular._checks import reject, require
from ccnn_irregular._reprs import parameter_count
from ccnn_irregular.datasets.samples import GriddedSamples, RaggedVolumes
from ccnn_irregular.domains import Grid
from ccnn_irregular.pipelines.export.costs import flops, seconds, stored
from ccnn_irregular.pipelines.export.files import SUFFIXES, read_onnx, require_packages, write
from ccnn_irregular.pipelines.export.networks import Exporter, Trained, require_on_grid, trained
from ccnn_irregular.pipelines.train.arguments import join_lists
from ccnn_irregular.pipelines.train.checkpoint import read_checkpoint
from ccnn_irregular.pipelines.train.evaluation import ResultTable, say
from ccnn_irregular.pipelines.train.module import CLASSES
from ccnn_irregular.pipelines.train.opened import opened, task_of
from ccnn_irregular.pipelines.train.outputs import record, require_own, sha256
from ccnn_irregular.pipelines.train.run_folder import RunFolder

__all__ = ["Given", "given_by_data", "run"]

Format = Literal["torch", "onnx", "shiftwise"]
# Tasks whose samples bring their own places: these are data, and no part of a network for a file.
_OWN_PLACES = {
    "series": "each series has times of its own",
    "forecast": "each series has times of its own, and answers are wanted at others",
    "field": "observations lie anywhere",
    "cloud_classification": "each cloud has points of its own",
    "cloud_segmentation": "each cloud has points of its own",
    "downscale": "blocks of a cube have sizes of their own",
}
_INSTEAD = "ccnn predict answers for files of them"


def run(arguments: list[str]) -> None:
    """Write a trained network into a file, and say what that costs and gains."""
    parser = ArgumentParser(prog="ccnn export", allow_abbrev=False, description=__doc__)
    parser.add_argument("--run_dir", type=str, required=True, help="folder of the trained run")
    parser.add_argument("--format", type=Format, required=True, help="torch, onnx, or shiftwise: small tiles left out")
    parser.add_argument("--output", type=str, required=True, help="file to write: .pt2 for PyTorch, .onnx for ONNX")
    parser.add_argument("--size", type=list[int] | None, help="nodes along each axis (default: as the data of the run)")
    parser.add_argument("--spacing", type=list[float] | None, help="distance of nodes per axis, with --size")
    parser.add_argument("--start", type=list[float] | None, help="first node per axis, with --size (default: 0)")
    parser.add_argument(
        "--tolerance", type=float, default=0.01, help="of shiftwise: share of a kernel that is left out"
    )
    parser.add_argument("--width", type=int, default=5, help="of shiftwise: taps of a tile along each axis")
    parser.add_argument("--batch_size", type=int, default=1, help="samples of the batch that is timed")
    options = parser.parse_args(join_lists(arguments, parser))
    folder, output = RunFolder(Path(options.run_dir)), Path(options.output)
    _require_sound(folder, output, options)
    checkpoint = read_checkpoint(folder.best)
    model, data = opened(folder)
    require_on_grid(model.network)
    given = _grid_of(data, options)
    exporter = Exporter(options.tolerance, options.width) if options.format == "shiftwise" else Exporter()
    network = trained(model, given.grid, exporter, padded=given.padded)
    metadata = {
        "task": task_of(folder),
        "classes": list(checkpoint.get(CLASSES) or given.classes) or int(model.network.classes),
        "channels": int(model.network.in_channels),
        "inputs": {name: ["batch", *shape] for name, shape in network.shapes.items()},
        "values": data.values_told(),
        "output": "logits: their softmax over axis 1 are the probabilities of the classes",
        "size": list(given.grid.sizes),
        "spacing": list(given.grid.steps),
        "start": list(given.grid.starts),
        "periodic": list(given.grid.periodic),
        "unit": given.unit,
        "format": options.format,
        "tolerance": options.tolerance if options.format == "shiftwise" else 0.0,
        "checkpoint sha256": sha256(folder.best),
    }
    write(output, network, metadata)
    record(output, str(metadata["task"]), folder.best, {"grid": str(given.grid)}, by="ccnn export")
    _report(output, network, exporter, given.inputs(network, options.batch_size), model.network)


@dataclass(frozen=True)
class Given:
    """Where samples come.

    Attributes:
        grid: of each of them.
        unit: of its lengths.
        classes: their names, as far as known.
        padded: whether they may end before the grid does.
        batch: some of them, or None where none are at hand.
    """

    grid: Grid
    unit: str
    classes: Sequence[str] = ()
    padded: bool = False
    batch: tuple[Tensor, ...] | None = None

    def inputs(self, network: Trained, batch: int) -> tuple[Tensor, ...]:
        """As many samples, repeated if need be, or else white noise."""
        if self.batch is None:
            return network.noise(batch)
        rows = torch.arange(batch) % len(self.batch[0])
        return tuple(one[rows] for one in self.batch)


def _require_sound(folder: RunFolder, output: Path, options: Any) -> None:
    """Refuse what cannot end well before anything is read."""
    require(folder.best.is_file(), "run_dir", "be a folder of ccnn fit with best.ckpt", options.run_dir)
    suffixes = SUFFIXES[options.format]
    require(output.suffix in suffixes, "output", f"end in {' or '.join(suffixes)} for {options.format}", str(output))
    require((options.size is None) == (options.spacing is None), "size and spacing", "be given together", "one of them")
    require(options.start is None or options.size is not None, "start", "be given with --size and --spacing", "alone")
    require(0 <= options.tolerance < 1, "tolerance", "lie in [0, 1)", options.tolerance)
    require(options.batch_size >= 1, "batch_size", "be at least 1", options.batch_size)
    if (reason := _OWN_PLACES.get(task_of(folder))) is not None:
        rule = "hold a network whose samples lie on one fixed grid (tasks classification, segmentation)"
        reject("run_dir", rule, f"one of the task {task_of(folder)}: {reason}; {_INSTEAD}")
    require_own(output)
    require_packages(output)


def _grid_of(data: Any, options: Any) -> Given:
    """As typed, or as the data of the run are."""
    if options.size is not None:
        return Given(Grid(options.size, options.spacing, options.start), _unit(data))
    try:
        data.setup("fit")
    except OSError as error:
        rule = "be given where the run's data are not at hand, --size 28 28 --spacing 1 1"
        raise ValueError(f"size and spacing must {rule}, got neither, and {error}") from error
    return given_by_data(data)


def given_by_data(data: Any) -> Given:
    """The one grid that all samples of a data module lie on, which is set up, and some of them.

    Raises:
        ValueError: samples that lie on no grid, or on several ones.
    """
    if hasattr(data, "volume"):
        grids = {data.volume(number).grid for number in data.part("all")}
        _require_one(grids)
        return Given(grids.pop(), "mm", data.classes, batch=(data.typical_batch().values,))
    samples = data.samples
    if isinstance(samples, RaggedVolumes):
        _require_one(set(samples.grids))
    elif not isinstance(samples, GriddedSamples):
        rule = "hold samples on one grid, or the grid on which they will come be given with --size and --spacing"
        instead = f"--data.window puts series that are sampled uniformly on one in training; {_INSTEAD}"
        reject("the run's data", rule, f"series, each at times of its own with weights of its own ({instead})")
    batch = data.typical_batch()
    lengths = () if batch.sampled is None else (batch.sampled[:, 0].sum(1),)
    return Given(batch.domain, samples.unit, samples.classes, bool(lengths), (batch.values, *lengths))


def _require_one(grids: set[Grid]) -> None:
    shown = ", ".join(str(grid) for grid in list(grids)[:2])
    rule = "lie on one grid, or the one on which they will come be given with --size and --spacing"
    require(len(grids) == 1, "the run's volumes", rule, f"{len(grids)} of them, such as {shown}")


def _unit(data: Any) -> str:
    return "mm" if hasattr(data, "volume") else "unit of the run's data"


def _report(output: Path, network: Trained, exporter: Exporter, inputs: tuple[Tensor, ...], original: Any) -> None:
    """Say what the network costs before and after, and how far its answers are from the trained one's."""
    for layer in exporter.layers:
        say(layer)
    rows = [_row("as trained, PyTorch", parameter_count(original), network.before, network.before, inputs)]
    count = stored(network.after)
    runs: dict[str, Callable[..., Tensor]] = {"exported, PyTorch": network.after}
    if output.suffix == ".onnx":
        runs["exported, onnxruntime"] = read_onnx(output, torch.get_num_threads())
    with torch.no_grad():
        expected = network.before(*inputs)
        for name, one in runs.items():
            rows.append(_row(name, count, network.after, one, inputs))
        errors = [float((one(*inputs) - expected).norm() / expected.norm()) for one in runs.values()]
    head = ("network", "numbers", "GFLOP", f"ms, batch of {len(inputs[0])}")
    caption = "GFLOP: of convolutions, matrices and Fourier transforms; ms: median"
    ResultTable(f"{output}, {output.stat().st_size / 1e6:.2f} MB", head, rows, caption=caption).print()
    bound = max((layer.bound for layer in exporter.layers), default=0.0)
    told = f"no layer's answer changes by more than {bound:.1e} of what its kernel could make of the largest value"
    say(f"error of the answers {max(errors):.1e} (relative, root mean square); {told if bound else 'nothing left out'}")


def _row(
    name: str, count: int, counted: Callable[..., Tensor], timed: Callable[..., Tensor], inputs: tuple[Tensor, ...]
) -> Sequence[str]:
    with torch.no_grad():
        taken = seconds(lambda: timed(*inputs))
    return name, f"{count:,}", f"{flops(counted, inputs) / 1e9:.3g}", f"{1e3 * taken:.3g}"
