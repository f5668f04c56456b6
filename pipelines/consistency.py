"""``ccnn consistency``: how much of a layer's answer on a gridded variable depends on engine and sampling."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray
from jsonargparse import ArgumentParser
from numpy.typing import NDArray
from torch import Tensor

from ccnn_irregular import KernelSpec, Solver
from ccnn_irregular._checks import reject, require
from ccnn_irregular._optional import import_optional
from ccnn_irregular.adapters.xarray_axes import line
from ccnn_irregular.adapters.xarray_files import Reading
from ccnn_irregular.adapters.xarray_times import REAL_CALENDARS, Months, days_since_first, kind_of_times
from ccnn_irregular.adapters.xarray_units import compass
from ccnn_irregular.consistency import ConsistencyReport, Field, check_consistency
from ccnn_irregular.domains import Axis, Grid, Points
from ccnn_irregular.kernels import SIREN, GaussianMask, Kernel
from ccnn_irregular.layers import ContinuousConv
from ccnn_irregular.operators import ENGINES
from ccnn_irregular.pipelines.train.reports import write_text

__all__ = ["GriddedVariable", "checkpoint_layer", "read_netcdf", "read_npz", "run", "smooth_layer"]

_MOST_AXES = 4
# A coordinate stored in float32 is off by up to 1e-4 steps; a month is off by 0.03 of a month and more.
_UNIFORM = 1e-3
_COARSEST_MAP = 16
_DEFAULT_WIDTH_STEPS = 4.0
_KERNEL_OMEGA = 2.0
# Nodes per axis at which the smooth kernel's mass is summed.
_MASS_NODES = {1: 1024, 2: 128, 3: 32, 4: 16}


@dataclass(frozen=True)
class GriddedVariable:
    """A variable on uniform axes.

    Attributes:
        name: of the variable, with what was selected.
        unit: of the variable, or an empty string.
        values: float64 ``grid.sizes``, nan where there is no value.
        grid: its axes, in coordinate units.
        axes: name of each axis.
        units: unit of each axis, None where it has none.
        notes: what was done to the file's arrangement, one sentence each.
    """

    name: str
    unit: str
    values: NDArray[np.float64]
    grid: Grid
    axes: tuple[str, ...]
    units: tuple[str | None, ...]
    notes: tuple[str, ...]


def read_netcdf(
    path: Path,
    variable: str | None = None,
    select: Sequence[str] = (),
    index: Sequence[str] = (),
    reading: Reading | None = None,
) -> GriddedVariable:
    """A variable of a netCDF file or zarr store, on one to four uniform axes.

    A falling axis is flipped. An axis of longitudes that goes round the globe repeats, with or without its first
    meridian again at the end; another one that the file cuts at Greenwich or the date line is joined there. Axes of
    length 1 are dropped.

    Args:
        path: of the file.
        variable: its name; None = the only one there is.
        select: ``axis=value`` picks the node of an axis with that coordinate.
        index: ``axis=number`` picks a node by its place, from 0.
        reading: how the file is read; None = as ``Reading`` says.

    Raises:
        FileNotFoundError, ValueError: see ``open_cube``; a variable, axis or coordinate that is not there, an axis that
            is not uniform, more than four axes.
    """
    with warnings.catch_warnings():
        # About the file's attributes, not about its values.
        warnings.simplefilter("ignore", xarray.SerializationWarning)
        with (reading or Reading()).open(path) as data:
            array = data[_chosen(variable, _gridded(data), "variable")]
            array = _with_model_days(_selected(array, select, index)).load()
    name = " ".join([str(array.name), *select, *index])
    notes = [f"axis {axis!r} of length 1 was dropped" for axis, size in array.sizes.items() if size == 1]
    array = array.squeeze()
    _require_axes(array.ndim, array.sizes)
    require(array.dtype.kind in "fiub", f"variable {name!r}", "hold numbers", array.dtype)
    values = array.values.astype(np.float64)
    axes, units = [], []
    for place, dimension in enumerate(array.dims):
        if _is_longitude(array, str(dimension)):
            axis, unit, values, moved = _longitude_axis(array, str(dimension), values, place)
            notes += moved
        else:
            axis, unit, falls = _uniform_axis(array, str(dimension))
            if falls:
                values = np.flip(values, place)
                notes.append(f"axis {str(dimension)!r} falls in the file and was flipped")
        if axis.periodic:
            notes.append(f"axis {str(dimension)!r} goes round the globe and repeats after 360 degrees")
        axes.append(axis)
        units.append(unit)
    if any(unit is not None and unit.startswith("degree") for unit in units) and len(units) > 1:
        notes.append("degrees are taken as a plane: a kernel covers fewer kilometres of longitude near the poles")
    return GriddedVariable(
        name,
        str(array.attrs.get("units", "")),
        np.ascontiguousarray(values),
        _grid(axes),
        tuple(map(str, array.dims)),
        tuple(units),
        tuple(notes),
    )


def _with_model_days(array: Any) -> Any:
    """Dates of a model's calendar as the numbers in the file: a year of 360 days is as uniform as in the model."""
    for name, one in array.coords.items():
        if one.dtype == object and one.size and kind_of_times(one).calendar not in REAL_CALENDARS:
            cftime = import_optional("cftime", f"the dates of {name!r}", "files")
            unit, calendar = one.encoding["units"], one.encoding["calendar"]
            numbers = np.asarray(cftime.date2num(one.values, unit, calendar), dtype=np.float64)
            array = array.assign_coords({name: (one.dims, numbers, {**one.attrs, "units": unit})})
    return array


def _gridded(data: Any) -> list[str]:
    """Names of the variables with at least one axis that hold numbers, and not the ends of an axis' cells."""
    ends = {one.attrs.get("bounds", one.encoding.get("bounds")) for one in data.variables.values()}
    named = {str(name): one for name, one in data.data_vars.items() if name not in ends}
    return [name for name, one in named.items() if one.ndim and one.dtype.kind in "fiub"]


def _chosen(name: str | None, names: Sequence[str], argument: str) -> str:
    """``name``, or the only one there is."""
    listed = ", ".join(names) or "none with numbers on an axis"
    if name is None:
        require(len(names) == 1, argument, f"be named, since the file holds {listed}", "none")
        return names[0]
    require(name in names, argument, f"be one of those in the file: {listed}", repr(name))
    return name


def _require_axes(count: int, sizes: Any) -> None:
    shown = ", ".join(f"{name} ({size})" for name, size in sizes.items()) or "none"
    rule = f"have 1 to {_MOST_AXES} axes longer than 1 (select nodes of the others)"
    require(1 <= count <= _MOST_AXES, "variable", rule, shown)


def _selected(array: Any, select: Sequence[str], index: Sequence[str]) -> Any:
    """``array`` at the chosen nodes; each choice takes an axis away."""
    for option, choices in (("select", select), ("index", index)):
        for choice in choices:
            axis, equals, text = choice.partition("=")
            require(bool(equals), option, "have the form axis=value", repr(choice))
            rule = f"name an axis of the variable: {', '.join(map(str, array.dims))}"
            require(axis in array.dims, option, rule, repr(axis))
            size = array.sizes[axis]
            if option == "select":
                place = _place_of(array, axis, text)
            else:
                fits = text.isdecimal() and int(text) < size
                require(fits, f"index {axis}", f"be a number from 0 to {size - 1}", repr(text))
                place = int(text)
            array = array.isel({axis: place})
    return array


def _place_of(array: Any, axis: str, text: str) -> int:
    """Place of the node of ``axis`` whose coordinate is ``text``."""
    require(axis in array.coords, f"select {axis}", "be done with index, since that axis has no coordinate", repr(text))
    nodes = array.coords[axis].values
    try:
        if nodes.dtype.kind == "M":
            found = nodes == np.datetime64(text)
        elif nodes.dtype.kind == "O" and hasattr(nodes[0], "calendar"):
            found = nodes == xarray.date_range(text, periods=1, calendar=nodes[0].calendar, use_cftime=True)[0]
        elif nodes.dtype.kind in "fiu":
            found = np.isclose(nodes.astype(np.float64), float(text), rtol=1e-6, atol=0)
        else:
            found = nodes.astype(str) == text
    except ValueError:
        found = np.zeros(len(nodes), dtype=bool)
    if not found.any():
        shown = ", ".join(map(str, nodes)) if len(nodes) <= 12 else f"{nodes[0]} ... {nodes[-1]} ({len(nodes)} nodes)"
        reject(f"select {axis}", f"be one of {shown} (or --index {axis}=0 to {len(nodes) - 1})", repr(text))
    return int(np.flatnonzero(found)[0])


def _uniform_axis(array: Any, name: str) -> tuple[Axis, str | None, bool]:
    """The axis, its unit, and whether it falls in the file.

    Raises:
        ValueError: it is not uniform.
    """
    size = array.sizes[name]
    if name not in array.coords:
        return Axis(size, 1.0), "node", False
    coordinate = array.coords[name]
    nodes, unit = coordinate.values, str(coordinate.attrs.get("units", "")) or None
    if nodes.dtype.kind in "mMO":
        unit = "days" if nodes.dtype.kind == "m" else f"days since {str(nodes[0])[:10]}"
        nodes = days_since_first(coordinate)
    require(nodes.dtype.kind in "fiu", f"axis {name!r}", "have numbers or dates as its coordinate", nodes.dtype)
    nodes = nodes.astype(np.float64)
    step = _require_uniform(name, nodes, unit)
    return Axis(size, abs(step), min(nodes[0], nodes[-1])), unit, bool(step < 0)


def _require_uniform(name: str, nodes: NDArray[np.float64], unit: str | None) -> float:
    """The step of an axis; refuses one that is not uniform."""
    size = len(nodes)
    step = float(nodes[-1] - nodes[0]) / (size - 1)
    off = np.abs(nodes - np.linspace(nodes[0], nodes[-1], size))
    worst = int(np.argmax(off))
    if not (step != 0 and off[worst] <= _UNIFORM * abs(step)):
        steps = f", {off[worst] / abs(step):.3g} steps" if step else ""
        got = f"node {worst} at {nodes[worst]:g}, {off[worst]:.3g} {_length(unit)}".rstrip() + f"{steps} from its place"
        reject(f"axis {name!r}", f"be uniform from {nodes[0]:g} to {nodes[-1]:g} over {size} nodes", got)
    return step


def _is_longitude(array: Any, name: str) -> bool:
    if name not in array.coords:
        return False
    about = array.coords[name].attrs
    along = compass(str(about.get("units", ""))) in ("east", "west")
    return along or about.get("standard_name") == "longitude"


def _longitude_axis(
    array: Any, name: str, values: NDArray[np.float64], place: int
) -> tuple[Axis, str | None, NDArray[np.float64], list[str]]:
    """The axis of longitudes, its unit, the values along it from west to east, and what was done to them."""
    coordinate = array.coords[name]
    unit = str(coordinate.attrs.get("units", "")) or None
    unit = "degrees_east" if unit is not None and compass(unit) == "west" else unit
    found = line(coordinate, "longitude")
    step = _require_uniform(name, found.nodes, unit) if found.count > 1 else 1.0
    if found.period is not None:
        rule, got = "have its seam as wide as a step, or be cut", f"{found.period - np.ptp(found.nodes):g} degrees"
        require(found.step is not None, f"axis {name!r}", f"{rule} (a step is {step:g})", got)
        step = found.period / found.count
    notes = []
    if found.falling:
        notes.append(f"axis {name!r} falls in the file and was flipped")
    if found.closed:
        notes.append(f"axis {name!r} has its first meridian again at the end, which was dropped")
    if found.first:
        notes.append(f"axis {name!r} is cut between neighbours in the file and was joined at {found.nodes[0]:g}")
    periodic = found.period is not None
    return Axis(found.count, step, float(found.nodes[0]), periodic), unit, found.packed(values, place), notes


def read_npz(
    path: Path, array: str | None = None, spacing: Sequence[float] = (1.0,), periodic: Sequence[int] = ()
) -> GriddedVariable:
    """An array of an npz file, on a grid that starts at 0.

    Args:
        path: of the file.
        array: its name; None = the only one there is.
        spacing: distance of neighbouring nodes, one number or one per axis.
        periodic: axes that repeat.

    Raises:
        ValueError: an array that is not there or not of numbers, more than four axes, a spacing that is not positive.
    """
    with np.load(path, allow_pickle=False) as file:
        name = _chosen(array, list(file.files), "array")
        values = file[name]
    require(values.dtype.kind in "fiub", f"array {name!r}", "hold numbers", values.dtype)
    _require_axes(values.ndim, {f"axis {axis}": size for axis, size in enumerate(values.shape)})
    d = values.ndim
    require(len(spacing) in (1, d), "spacing", f"be one number, or one for each of {d} axes", list(spacing))
    require(all(0 <= axis < d for axis in periodic), "periodic", f"name axes from 0 to {d - 1}", list(periodic))
    steps = [spacing[0]] * d if len(spacing) == 1 else list(spacing)
    grid = Grid(values.shape, steps, periodic=[axis in periodic for axis in range(d)])
    axes = tuple(f"axis {axis}" for axis in range(d))
    return GriddedVariable(name, "", values.astype(np.float64), grid, axes, (None,) * d, ())


def _grid(axes: Sequence[Axis]) -> Grid:
    return Grid(
        [axis.size for axis in axes],
        [axis.step for axis in axes],
        [axis.start for axis in axes],
        [axis.periodic for axis in axes],
    )


@torch.no_grad()
def smooth_layer(grid: Grid, width: Sequence[float], seed: int = 0) -> ContinuousConv:
    """A random smooth depthwise kernel of one channel: a SIREN of low frequency under a Gaussian mask.

    It is nowhere negative and integrates to 1: the answer is a lopsided moving average in the unit of the field.

    Args:
        grid: whose axes it has.
        width: standard deviation of the mask in coordinate units, one number or one per axis.
        seed: of the SIREN.
    """
    require(len(width) in (1, grid.d), "kernel_width", f"be one number, or one for each of {grid.d} axes", list(width))
    widths = [width[0]] * grid.d if len(width) == 1 else list(width)
    mask = GaussianMask(widths)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator = SIREN(grid.d, 1, omega_0=_KERNEL_OMEGA)
    kernel = Kernel(generator, mask, extent=mask.support.tolist())
    count = _MASS_NODES[grid.d]
    ticks = (torch.arange(count) + 0.5) * (2 / count) - 1
    offsets = torch.stack(torch.meshgrid(*(ticks * reach for reach in mask.support), indexing="ij"), dim=-1)
    # Between 1/2 and 3/2 under the mask: a sum of positive and negative parts would mostly show what is left of it.
    share = 0.5 / float(generator(offsets / kernel.extent).abs().max())
    generator.output.weight.mul_(share)
    generator.output.bias.mul_(share).add_(1)
    mass = float(kernel(offsets).mean() * (2 * mask.support).prod())
    generator.output.weight.div_(mass)
    generator.output.bias.div_(mass)
    return ContinuousConv(kernel, bias=False)


def checkpoint_layer(path: Path, name: str) -> ContinuousConv:
    """The kernel of one convolution of a network that ``ccnn fit`` trained, as a layer without bias.

    Args:
        path: of the checkpoint; read without running any code in it.
        name: of the convolution in the network, or in its first member (``stem``, ``blocks.0.conv``).

    Raises:
        ValueError: a file that is no such checkpoint, or a name that is not there.
    """
    from ccnn_irregular.pipelines.tasks.risk.network import ICURiskNetwork

    require(path.is_file(), "checkpoint", "be a file", path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        options, state = content["hyper_parameters"]["network"], content["state_dict"]
        class_path, arguments = options["class_path"], options["init_args"]
    except Exception as error:  # a file of any kind may come here
        raise ValueError(f"checkpoint must be one that 'ccnn fit' wrote, got {path}: {error!r}") from error
    wanted = f"{ICURiskNetwork.__module__}.{ICURiskNetwork.__qualname__}"
    require(class_path == wanted, "checkpoint", f"hold a {wanted}", class_path)
    network = ICURiskNetwork(**arguments | {"kernel": KernelSpec(**arguments["kernel"])})
    network.load_state_dict({key.removeprefix("network."): one for key, one in state.items() if key[:8] == "network."})
    kernels = {place: one.kernel for place, one in network.named_modules() if isinstance(one, ContinuousConv)}
    kernels |= {place: one for place, one in network.kernels().items()}
    require(name in kernels, "layer", f"be one of {', '.join(kernels)}", repr(name))
    return ContinuousConv(kernels[name], bias=False)


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
    stride = 1
    while True:
        sizes = [math.ceil(size / stride) for size in grid.sizes]
        repeats = [wraps and size % stride == 0 for wraps, size in zip(grid.periodic, grid.sizes, strict=True)]
        places = Grid(sizes, [step * stride for step in grid.steps], grid.starts, repeats)
        costs = [engine.assess(kernel, source, places, 1, rtol) for engine in ENGINES.values()]
        seconds = [cost.plan_seconds + cost.forward_seconds for cost in costs if not isinstance(cost, str)]
        if min(seconds) <= limit_seconds or max(sizes) <= _COARSEST_MAP:
            break
        stride *= 2
    layer = ContinuousConv(kernel, bias=False, solver=Solver(rtol=rtol))
    every = (slice(None, None, stride),) * grid.d
    full = layer(torch.nan_to_num(field.values)[None].to(kernel.dtype), grid, places)[0, 0]
    sampled = layer(sampling.values.to(kernel.dtype), source, places)[0, 0]
    valid = field.valid[every].numpy()
    shown = [np.where(valid, one.double().numpy(), np.nan) for one in (full, sampled)]
    return places, shown[0], shown[1], sampling.coordinates


def run(arguments: list[str]) -> None:
    """Read the file, check, print the table, write table, report and pictures into a folder."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    options = _parser().parse_args(arguments)
    path, folder = Path(options.file), Path(options.output or f"consistency/{Path(options.file).stem}")
    occupied = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    rule = "be a new or empty folder (--overwrite replaces the results in it)"
    require(options.overwrite or not occupied, "output", rule, folder)
    require(path.exists(), "file", "exist", path)
    variable = _read(path, options)
    variable = _anomaly(variable) if options.anomaly else variable
    layer, described = _layer(variable, options)
    channels = layer.kernel.in_channels
    with Progress(
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"), TimeElapsedColumn(),
        transient=True,
    ) as bar:  # fmt: skip
        task = bar.add_task("full grid")

        def progress(done: int, total: int, what: str) -> None:
            bar.update(task, completed=done, total=total, description=what)

        report = check_consistency(
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
    text = _described(path, variable, described, channels) + "\n\n" + str(report)
    print(text)
    write_text(folder / "consistency.csv", report.to_csv())
    write_text(folder / "report.txt", text + "\n")
    for one in _pictures(folder, variable, layer, report, options):
        print(one)
    print(folder / "consistency.csv")
    print(folder / "report.txt")


def _parser() -> ArgumentParser:
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


def _read(path: Path, options: Any) -> GriddedVariable:
    if path.suffix == ".npz":
        given = [*options.select, *options.index]
        require(not given, "select and index", "be used with netCDF files", given)
        require(options.group is None, "group", "be used with netCDF files and zarr stores", options.group)
        return read_npz(path, options.variable, options.spacing, options.periodic)
    kept = options.group, options.missing_chunks, not options.all_values, options.zero_fill_missing
    reading = Reading(*kept, options.months)
    return read_netcdf(path, options.variable, options.select, options.index, reading)


def _anomaly(variable: GriddedVariable) -> GriddedVariable:
    mean = float(np.nanmean(variable.values)) if np.isfinite(variable.values).any() else 0.0
    note = f"the mean of all nodes, {mean:.6g}, was subtracted"
    return replace(
        variable, name=f"{variable.name} anomaly", values=variable.values - mean, notes=(*variable.notes, note)
    )


def _layer(variable: GriddedVariable, options: Any) -> tuple[ContinuousConv, str]:
    """The layer, and it in words."""
    grid = variable.grid
    if options.checkpoint is not None:
        layer = checkpoint_layer(Path(options.checkpoint), options.layer)
        support = ", ".join(f"{reach:.4g}" for reach in layer.kernel.support.tolist())
        described = (
            f"kernel {options.layer!r} of {options.checkpoint}, in the units it was trained in: reaches {support}"
        )
        return layer, described
    widths = options.kernel_width or [_DEFAULT_WIDTH_STEPS * step for step in grid.steps]
    layer = smooth_layer(grid, widths, options.seed)
    rows = zip(variable.axes, variable.units, layer.kernel.support.tolist(), strict=True)
    reaches = ", ".join(f"{reach:.4g} {_length(unit)}".strip() + f" along {name}" for name, unit, reach in rows)
    return layer, f"random smooth kernel (seed {options.seed}), a moving average: reaches {reaches}"


def _length(unit: str | None) -> str:
    """The unit of distances on an axis: days, where its nodes are days since a date."""
    return (unit or "").partition(" since ")[0]


def _described(path: Path, variable: GriddedVariable, layer: str, channels: int) -> str:
    lines = [f"{path}: {variable.name}" + (f" ({variable.unit})" if variable.unit else "")]
    for name, unit, axis in zip(variable.axes, variable.units, variable.grid.axes, strict=True):
        wraps = ", repeats" if axis.periodic else ""
        step, start = f"{axis.step:g} {_length(unit)}".rstrip(), f"{axis.start:g} {unit or ''}".rstrip()
        lines.append(f"  {name}: {axis.size} nodes, step {step}, from {start}{wraps}")
    lines += [f"  {note}" for note in variable.notes]
    lines.append(layer)
    if channels > 1:
        lines.append(f"The kernel has {channels} channels: each of them reads the same variable.")
    return "\n".join(lines)


def _pictures(
    folder: Path, variable: GriddedVariable, layer: ContinuousConv, report: ConsistencyReport, options: Any
) -> list[Path]:
    """The plots, written."""
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
