"""Gridded fields as planes of two uniform axes: finding them in a file, making them coarser and finer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast, final

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from ccnn_irregular._checks import require
from ccnn_irregular.adapters.xarray import Line
from ccnn_irregular.adapters.xarray_roles import Options, cf_roles, frame_of
from ccnn_irregular.domains import Grid

__all__ = ["Coarse", "Fields", "Plane", "coarsened_values"]

# How a coarse field comes from a fine one: every k-th node, or means over k x k nodes.
Coarse = Literal["nodes", "means"]

_ROWS, _COLUMNS = ("latitude", "y"), ("longitude", "x")


@final
@dataclass(frozen=True)
class Plane:
    """The two horizontal axes of a field: rows (latitude or y) and columns (longitude or x), nodes rising.

    Attributes:
        rows: uniform.
        columns: uniform.
    """

    rows: Line
    columns: Line

    @property
    def sizes(self) -> tuple[int, int]:
        """Nodes along rows and columns."""
        return self.rows.count, self.columns.count

    @property
    def steps(self) -> tuple[float, float]:
        """Distances of neighbouring nodes."""
        return cast("float", self.rows.step), cast("float", self.columns.step)

    def grid(self) -> Grid:
        """The nodes as the domain of a convolution."""
        lines = (self.rows, self.columns)
        starts = [float(line.nodes[0]) for line in lines]
        return Grid(self.sizes, self.steps, starts, [line.period is not None for line in lines])

    def coarsened(self, factor: int, coarse: Coarse) -> Plane:
        """The plane of the coarse field.

        Raises:
            ValueError: an axis that repeats and is not a multiple of the factor, or one of less than 4 coarse nodes.
        """
        return Plane(*(_coarsened(line, factor, coarse) for line in (self.rows, self.columns)))

    def refined(self, factor: int, coarse: Coarse) -> Plane:
        """The plane of the fine field whose coarse one lies on this plane."""
        return Plane(*(_refined(line, factor, coarse) for line in (self.rows, self.columns)))

    def part(self, start: int, stop: int) -> Plane:
        """Some of the rows, all columns."""
        return replace(self, rows=_part(self.rows, start, stop))

    def patch(self, rows: tuple[int, int], columns: tuple[int, int]) -> Plane:
        """Some of the rows and columns."""
        return Plane(_part(self.rows, *rows), _part(self.columns, *columns))

    def areas(self) -> Tensor:
        """What a row counts, float64 ``(rows, 1)`` of mean 1: the cosine of its latitude, or the same for all."""
        nodes = torch.from_numpy(self.rows.nodes.copy())
        weights = (
            torch.cos(torch.deg2rad(nodes)).clamp_min(0) if self.rows.role == "latitude" else torch.ones(len(nodes))
        )
        return (weights.double() / weights.double().mean())[:, None]

    def packed(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values ``(..., rows, columns)`` in the order of the file, in that of the nodes."""
        values = self.columns.packed(values, values.ndim - 1)
        return self.rows.packed(values, values.ndim - 2)

    def unpacked(self, values: NDArray[Any]) -> NDArray[Any]:
        """The inverse of ``packed``."""
        values = self.columns.unpacked(values, values.ndim - 1)
        return self.rows.unpacked(values, values.ndim - 2)

    def coordinates(self) -> dict[str, NDArray[np.float64]]:
        """Nodes by dimension, in the order of the file."""
        found = {}
        for line in (self.rows, self.columns):
            nodes = np.roll(line.nodes, line.first)
            nodes = np.append(nodes, nodes[0] + (line.period or 0.0)) if line.closed else nodes
            found[line.dim] = nodes[::-1] if line.falling else nodes
        return found


@final
@dataclass(frozen=True)
class Fields:
    """Variables of a Dataset on one plane: the channels.

    Attributes:
        dataset: lazily read or in memory.
        variables: their names.
        samples: the other dimensions, whose entries know nothing of each other (times, levels).
        plane: the horizontal axes.
    """

    dataset: xr.Dataset
    variables: tuple[str, ...]
    samples: tuple[str, ...]
    plane: Plane

    @classmethod
    def of(cls, dataset: xr.Dataset, variables: Sequence[str]) -> Fields:
        """Find the axes by CF conventions.

        Raises:
            ValueError: no such variable; variables of different dimensions; axes that are not found or not uniform.
        """
        names = tuple(variables)
        require(len(names) > 0, "variables", "name the variables", list(variables))
        known = sorted(
            str(name) for name, array in dataset.data_vars.items() if array.ndim >= 2 and array.dtype.kind in "iuf"
        )
        for name in names:
            require(name in known, "variables", f"be of the fields {known}", repr(name))
        shapes = {name: tuple(map(str, dataset[name].dims)) for name in names}
        require(len(set(shapes.values())) == 1, "variables", "have the same dimensions", shapes)
        array = dataset[names[0]]
        horizontal = [dim for dim, role in cf_roles(array).items() if role in _ROWS + _COLUMNS and dim in array.dims]
        samples = tuple(str(dim) for dim in array.dims if dim not in horizontal)
        rule = "have two horizontal axes by their CF attributes (latitude and longitude, or y and x)"
        require(len(horizontal) == 2, f"variable {names[0]!r}", rule, f"{horizontal} of {list(array.dims)}")
        frame = frame_of(array, Options(samples=samples, area_weights=False))
        lines = [_regular(line) for line in frame.factors if isinstance(line, Line)]
        require(len(lines) == 2, f"variable {names[0]!r}", rule, frame.axes)
        return cls(dataset, names, samples, Plane(lines[0], lines[1]))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Entries along each dimension of the samples."""
        return tuple(self.dataset.sizes[dim] for dim in self.samples)

    def read(self, part: Mapping[str, slice], rows: tuple[int, int] | None = None) -> NDArray[np.float32]:
        """Values ``(S, C, rows, columns)`` in the order of the nodes, float32; what is missing is nan.

        Args:
            part: which samples, by dimension; those left out are read whole.
            rows: from which node to which; None = all.

        Raises:
            ValueError: infinite values.
        """
        plane, chosen = self.plane, dict(part)
        if rows is not None and rows != (0, self.plane.rows.count):
            start, stop = rows
            plane = self.plane.part(start, stop)
            count = self.plane.rows.count
            chosen[plane.rows.dim] = slice(count - stop, count - start) if plane.rows.falling else slice(start, stop)
        dims = (*self.samples, plane.rows.dim, plane.columns.dim)
        channels = []
        for name in self.variables:
            values = self.dataset[name].isel(chosen).transpose(*dims).to_numpy()
            packed = plane.packed(values.reshape(-1, *values.shape[-2:]))
            bad = int(np.isinf(packed).sum())
            require(bad == 0, f"variable {name!r}", "be finite or missing", f"{bad} of {packed.size} infinite")
            channels.append(packed.astype(np.float32))
        return np.stack(channels, axis=1)

    def attributes(self) -> dict[str, str]:
        """Unit of each variable."""
        return {name: str(self.dataset[name].attrs.get("units", "")) for name in self.variables}


def coarsened_values(values: Tensor, factor: int, coarse: Coarse, sizes: tuple[int, int]) -> Tensor:
    """Fine values ``(..., rows, columns)`` on the ``sizes`` nodes of the coarse plane.

    A mean is that of the known fine nodes, however few, so that each of them belongs to a known coarse node; it is nan
    where none is known.
    """
    rows, columns = sizes
    if coarse == "nodes":
        return values[..., ::factor, ::factor][..., :rows, :columns]
    cut = values[..., : rows * factor, : columns * factor]

    def boxes(nodes: Tensor) -> Tensor:
        return nodes.unflatten(-1, (columns, factor)).mean(-1).unflatten(-2, (rows, factor)).mean(-2)

    means = boxes(cut)
    if not bool(means.isnan().any()):
        return means
    total = boxes(cut.nan_to_num(0.0))
    # 0 / 0 where nothing is known.
    return torch.where(means.isnan(), total / boxes((~cut.isnan()).to(cut.dtype)), means)


def _regular(line: Line) -> Line:
    """A uniform axis with exactly uniform nodes: what is stored in float32 is rounded."""
    rule = "be uniform to be made finer"
    require(
        line.step is not None and line.count >= 2, f"coordinate {line.name!r}", rule, f"{line.count} nodes that are not"
    )
    return replace(line, nodes=line.nodes[0] + cast("float", line.step) * np.arange(line.count))


def _part(line: Line, start: int, stop: int) -> Line:
    whole = (start, stop) == (0, line.count)
    part = replace(line, nodes=line.nodes[start:stop], widths=line.widths[start:stop])
    return part if whole else replace(part, period=None, closed=False, first=0)


def _moved(line: Line, first: float, step: float, count: int) -> Line:
    nodes, widths = first + step * np.arange(count, dtype=np.float64), np.full(count, step)
    # A region that the file cuts in two is written in one piece.
    return replace(line, nodes=nodes, widths=widths, step=step, first=0)


def _coarsened(line: Line, factor: int, coarse: Coarse) -> Line:
    step, at = cast("float", line.step), f"coordinate {line.name!r}"
    if line.period is not None:
        require(line.count % factor == 0, at, f"repeat after a multiple of the factor {factor}", f"{line.count} nodes")
    count = math.ceil(line.count / factor) if coarse == "nodes" and line.period is None else line.count // factor
    require(count >= 4, at, f"leave 4 coarse nodes or more at factor {factor}", f"{line.count} nodes")
    first = line.nodes[0] + (0.0 if coarse == "nodes" else (factor - 1) / 2 * step)
    return _moved(line, first, step * factor, count)


def _refined(line: Line, factor: int, coarse: Coarse) -> Line:
    step = cast("float", line.step) / factor
    open_ended = coarse == "nodes" and line.period is None
    count = (line.count - 1) * factor + 1 if open_ended else line.count * factor
    first = line.nodes[0] - (0.0 if coarse == "nodes" else (factor - 1) / 2 * step)
    return _moved(line, first, step, count)
