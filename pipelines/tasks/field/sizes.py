"""A network that suits some fields: units of the axes, reach of the covariance, latent grid, by the training rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from ccnn_irregular._checks import require
from ccnn_irregular.datasets.samples import FieldSet
from ccnn_irregular.domains import Grid
from ccnn_irregular.kernels import KernelSpec
from ccnn_irregular.longitudes import GLOBE, one_turn
from ccnn_irregular.pipelines.tasks.field.kriging import FieldAxis, Metric
from ccnn_irregular.pipelines.tasks.field.network import FieldNetwork

__all__ = ["FieldSizes", "fitting_network", "network_options"]

Array = NDArray[np.float64]

_REACHES = (1.0, 4.0, 16.0)  # widths of the covariance at first, in typical distances of neighbours
_NODES = {1: 64, 2: 28, 3: 14}  # of the latent grid along its longest axis; no grid of more axes
_MARGIN = 2  # nodes beyond the data
_UNEVEN = 5.0  # ratio of large to small gaps from which on a level is logarithmic
_POLE = 90.0
_KINDS = {"latitude": "latitude", "longitude": "longitude"}
_PLANE = ("latitude", "longitude", "y", "x")


@dataclass(frozen=True)
class FieldSizes:
    """What a network is made of where it is not given; None = by the training rows. Printed by ``ccnn fit``.

    Attributes:
        correlation: widths of the covariance at first, shortest to longest: degrees, or the unit of x and y.
        level: units of the level that count as one degree, or as one unit of x and y.
        time: likewise, of time where it is an axis: days, or the table's own unit.
        log_level: level above which distances grow with the level, as in the ocean; 0 = nowhere.
        latent_step: distance of the nodes of the correction's grid, as ``correlation``; 0 = kriging alone.
        neighbours: observations an estimate is made of.
        nugget: variance of what is not continuous at first, in units of the field's.
        hidden_channels: of the correction.
        blocks: likewise.
    """

    correlation: tuple[float, ...] = ()
    level: float | None = None
    time: float | None = None
    log_level: float | None = None
    latent_step: float | None = None
    neighbours: int | None = None
    nugget: float = 0.05
    hidden_channels: int = 16
    blocks: int = 2

    def __post_init__(self) -> None:
        object.__setattr__(self, "correlation", tuple(self.correlation))
        for name in ("level", "time"):
            value = getattr(self, name)
            require(value is None or value > 0, f"sizes.{name}", "be positive", value)
        for name in ("log_level", "latent_step"):
            value = getattr(self, name)
            require(value is None or value >= 0, f"sizes.{name}", "be positive, or 0 for none", value)


def fitting_network(fields: FieldSet, usable: Tensor, sizes: FieldSizes | None = None) -> FieldNetwork:
    """A network that suits the ``usable`` places (bool ``(N,)``) of some fields; not trained yet.

    Raises:
        ValueError: all of them at one place.
    """
    options = network_options(fields, usable, sizes or FieldSizes())[0]
    latent, kernel = options["latent"], options["kernel"]
    return FieldNetwork(
        **options
        | {
            "axes": [FieldAxis(**axis) for axis in options["axes"]],
            "latent": None if latent is None else Grid(**latent["init_args"]),
            "kernel": None if kernel is None else KernelSpec(**kernel),
        }
    )


def network_options(fields: FieldSet, usable: Tensor, sizes: FieldSizes) -> tuple[dict[str, Any], list[str]]:
    """Arguments of ``FieldNetwork`` as plain values of a configuration, and what was chosen, for the reader."""
    places = fields.coordinates[usable].numpy()
    field = torch.repeat_interleave(torch.arange(len(fields)), fields.splits.diff())[usable].numpy()
    columns = dict(zip(fields.axes, places.T, strict=True))
    units = dict(zip(fields.axes, fields.axis_units or ("",) * len(fields.axes), strict=True))
    plane = [name for name in fields.axes if name in _PLANE]
    require(
        len(plane) == 2,
        "axes",
        "hold latitude and longitude, or y and x; else name the network (see docs/fields.md)",
        fields.axes,
    )
    unit = "degrees" if "latitude" in columns else units["x"]
    gap = _plane_gap(np.stack([columns[name] for name in plane], 1), plane)
    axes = [_axis(name, columns, fields.units[usable].numpy(), field, gap, sizes) for name in fields.axes]
    correlation = list(sizes.correlation) or [_rounded(gap * reach) for reach in _REACHES]
    neighbours = sizes.neighbours or (24 if len(axes) == 2 else 40)
    told = [
        f"typical distance of neighbours: {_rounded(gap):g} {unit}",
        f"widths of the covariance at first: {_listed(correlation)} {unit} (--model.sizes.correlation)",
    ]
    told += [_told_axis(axis, units[axis.name], unit) for axis in axes if axis.name not in plane]
    options: dict[str, Any] = {
        "channels": len(fields.channels),
        "axes": [asdict(axis) for axis in axes],
        "neighbours": neighbours,
        "correlation": correlation,
        "nugget": sizes.nugget,
        "hidden_channels": sizes.hidden_channels,
        "blocks": sizes.blocks,
        "latent": None,
        "kernel": None,
    }
    told.append(f"observations an estimate is made of: {neighbours} (--model.sizes.neighbours)")
    if len(axes) in _NODES and sizes.latent_step != 0:
        latent, step = _latent(axes, places, gap, sizes.latent_step)
        options["latent"] = {"class_path": "ccnn_irregular.Grid", "init_args": latent}
        reach, width = ([factor * number for number in latent["steps"]] for factor in (4.0, 1.5))
        options["kernel"] = {"extent": reach, "width": width, "omega_0": 1.0, "generator": "siren", "hidden": 16}
        told.append(
            f"correction on {' x '.join(map(str, latent['sizes']))} nodes, {_rounded(step):g} {unit} apart "
            f"(--model.sizes.latent_step; 0 = none)"
        )
    else:
        told.append("no correction: kriging alone (--model.sizes.latent_step)")
    return options, told


def _plane_gap(places: Array, names: Sequence[str]) -> float:
    """Median distance of distinct places to their nearest one: degrees along the chord, or units of the plane."""
    kinds = [_KINDS.get(name, "plain") for name in names]
    metric = Metric([FieldAxis(name, kind) for name, kind in zip(names, kinds, strict=True)])  # type: ignore[arg-type]
    distinct = torch.from_numpy(np.unique(places, axis=0))
    require(len(distinct) > 1, "the training rows", "lie at two places at least", len(distinct))
    vectors = metric.embedded(distinct)
    found = vectors[0].numpy() if metric.spherical else torch.cat(vectors, 1).numpy()
    return float(np.median(cKDTree(found).query(found, k=2)[0][:, 1]))


def _axis(
    name: str, columns: dict[str, Array], unit: NDArray[Any], field: NDArray[Any], gap: float, sizes: FieldSizes
) -> FieldAxis:
    """How an axis enters distances: a level and a time by their own gaps within a station."""
    if name in _PLANE:
        return FieldAxis(name, _KINDS.get(name, "plain"))  # type: ignore[arg-type]
    column = columns[name]
    others = [unit, field, *([columns["time"]] if name == "level" and "time" in columns else [])]
    gaps = _gaps(column, others)
    log = None
    if name == "level":
        uneven = float(column.min()) >= 0 and np.quantile(gaps, 0.9) > _UNEVEN * np.quantile(gaps, 0.1)
        log = sizes.log_level if sizes.log_level is not None else float(np.median(column)) * uneven
        log = _rounded(log) if log else None
    given = sizes.level if name == "level" else sizes.time
    if given is not None:
        # One unit of the plane at the level 0, where the logarithm is a straight line.
        return FieldAxis(name, scale=given if log is None else given / log, log=log)
    if log is not None:
        gaps = _gaps(np.log1p(column / log), others)
    return FieldAxis(name, scale=_rounded(float(np.median(gaps)) / gap), log=log)


def _gaps(column: Array, groups: Sequence[NDArray[Any]]) -> Array:
    """Positive gaps along a column within groups; over all rows where no group has any."""
    for keys in (groups, ()):
        order = np.lexsort((column, *keys))
        steps = np.diff(column[order])
        same = np.all([np.diff(key[order]) == 0 for key in keys], axis=0) if keys else np.ones(len(steps), bool)
        found = steps[same & (steps > 0)]
        if len(found):
            return np.asarray(found)
    return np.ones(1)


def _latent(axes: Sequence[FieldAxis], places: Array, gap: float, step: float | None) -> tuple[dict[str, Any], float]:
    """Arguments of the grid that covers some places and a margin, and its step in the plane."""
    scaled = torch.stack([axis.scaled(torch.from_numpy(column)) for axis, column in zip(axes, places.T, strict=True)])
    spans = []
    for axis, column in zip(axes, scaled.numpy(), strict=True):
        turn = one_turn(column) if axis.kind == "longitude" else None
        column = column if turn is None else turn.degrees
        globe = turn is not None and turn.gap < GLOBE / 4
        spans.append((-GLOBE / 2, GLOBE / 2, True) if globe else (float(column.min()), float(column.max()), False))
    most = _NODES[len(axes)]
    longest = max(high - low for low, high, _ in spans[:2])
    # Levels and times have gaps of the plane's, in units of the network, and as many nodes at most.
    steps = [max(gap, (high - low) / most) for low, high, _ in spans]
    plane = step or max(steps[0], steps[1], longest / most)
    grid: dict[str, list[Any]] = {"sizes": [], "steps": [], "starts": [], "periodic": []}
    for place, (axis, (low, high, globe)) in enumerate(zip(axes, spans, strict=True)):
        width = plane if axis.name in _PLANE else steps[place]
        if globe:
            size, start = math.ceil(GLOBE / width), low
            width = GLOBE / size
        else:
            width = float(f"{width:.4g}")
            size = math.ceil((high - low) / width) + 1 + 2 * _MARGIN
            start = (low + high) / 2 - width * (size - 1) / 2
            if axis.kind == "latitude":
                start, size = _between_poles(start, width, size)
        for name, value in zip(grid, (size, width, start, globe), strict=True):
            grid[name].append(value)
    return grid, plane


def _between_poles(start: float, step: float, size: int) -> tuple[float, int]:
    """Nodes on the sphere only."""
    first = max(0, math.ceil((-_POLE - start) / step))
    last = min(size - 1, math.floor((_POLE - start) / step))
    return start + first * step, last - first + 1


def _told_axis(axis: FieldAxis, unit: str, plane: str) -> str:
    """One line on a level or a time."""
    unit = unit.split(" since ")[0] or "units"
    if axis.log is None:
        return f"{axis.name}: {axis.scale:g} {unit} count as one of {plane or 'x and y'} (--model.sizes.{axis.name})"
    near = _rounded(axis.scale * axis.log)
    text = f"{axis.name}: {near:g} {unit} count as one of {plane or 'x and y'} near 0 (--model.sizes.{axis.name})"
    return f"{text}, logarithmic above {axis.log:g} (--model.sizes.log_level; 0 = nowhere)"


def _rounded(number: float) -> float:
    return float(f"{number:.2g}")


def _listed(numbers: Sequence[float]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)
