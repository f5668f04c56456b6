"""A field that is known on a full grid, and its samples: thinned, or displaced."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import RegularGridInterpolator
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from ccnn_irregular._checks import require
from ccnn_irregular.domains import Grid, Points
from ccnn_irregular.quadrature import density_compensation, plain_mean, trapezoid, voronoi

__all__ = ["Field", "Rule", "Sampling"]

Rule = Literal["cell_volumes", "trapezoid", "voronoi", "density_compensation", "plain_mean", "no weights"]
# Voronoi diagrams of more points than this take minutes in 3-D.
_MOST_VORONOI = {2: 200_000, 3: 30_000}
# The cubic spline through a grid of several axes solves one large system.
_MOST_CUBIC = 300_000
# Images across an axis that repeats are taken within so many mean distances of its ends.
_SEAM = 6.0


@dataclass(frozen=True)
class Sampling:
    """Samples of a field, those without a value left out.

    Attributes:
        name: in words.
        kept: share of the grid's nodes.
        jitter: largest displacement per axis, in grid steps.
        coordinates: float64 ``(n, d)``, coordinate units.
        values: float64 ``(n, C)``.
        nodes: int64 ``(n,)``, the grid's node each sample was taken at or displaced from.
        weights: float64 ``(n,)`` by the rule they are made with, the recommended one first.
    """

    name: str
    kept: float
    jitter: float
    coordinates: Tensor
    values: Tensor
    nodes: Tensor
    weights: dict[Rule, Tensor]


class Field:
    """A field on a full grid, and how it is sampled.

    Args:
        values: ``(C, *grid.sizes)``, or ``(*grid.sizes)`` for one channel; nan where there is no value (land, say).
        grid: where the values are.
        seed: of everything that is drawn at random.

    Attributes:
        values: float64 ``(C, *grid.sizes)``.
        valid: bool ``(*grid.sizes)``, True where every channel has a value.

    Raises:
        ValueError: shapes that disagree, infinite values, or no value at all.
    """

    def __init__(self, values: Tensor | NDArray[Any], grid: Grid, seed: int = 0) -> None:
        array = torch.as_tensor(values).detach().to("cpu", torch.float64)
        array = array[None] if tuple(array.shape) == grid.sizes else array
        shape = tuple(array.shape)
        require(shape[1:] == grid.sizes, "values", f"have shape (C, *sizes) with sizes {grid.sizes}", shape)
        require(not bool(torch.isinf(array).any()), "values", "be finite or nan", "inf")
        self.valid = ~torch.isnan(array).any(0)
        require(bool(self.valid.any()), "values", "hold at least one node with a value", "nan everywhere")
        self.values = array
        self.grid = grid
        self._seed = seed
        self._order = np.random.default_rng((seed, 0)).permutation(grid.count)

    @property
    def complete(self) -> bool:
        """Whether every node has a value."""
        return bool(self.valid.all())

    def queries(self, count: int) -> Tensor:
        """Row-major indices of at most ``count`` random nodes with a value, ascending."""
        nodes = np.flatnonzero(self.valid.reshape(-1).numpy())
        drawn = np.random.default_rng((self._seed, 1)).permutation(nodes)[:count]
        return torch.from_numpy(np.sort(drawn))

    def at(self, nodes: Tensor) -> Points:
        """Nodes as points."""
        return Points(self.grid.nodes()[nodes], periods=self.grid.periods)

    def thinned(self, keep: float) -> Sampling:
        """A random share of the nodes; what a smaller share keeps, a larger one keeps too.

        Nodes without a value are kept with the same probability and then weigh nothing: a coast ends where the
        nearest sample changes from sea to land.
        """
        require(0 < keep <= 1, "keep", "lie in (0, 1]", keep)
        nodes = torch.from_numpy(np.sort(self._order[: max(1, round(keep * self.grid.count))]))
        if len(nodes) == self.grid.count:
            return self._sampling("full grid", keep, 0.0, self._indices()[nodes], nodes, None)
        return self._sampling(f"{100 * keep:g} % of the nodes", keep, 0.0, self._indices()[nodes], nodes, None)

    def jittered(self, jitter: float) -> Sampling:
        """All nodes, each displaced by up to ``jitter`` grid steps along every axis; values are interpolated there.

        A sample beyond the end of an axis is mirrored there, or wrapped on an axis that repeats. One that is nearest
        to a node without a value has none.
        """
        require(0 <= jitter < math.inf, "jitter", "not be negative, and finite", jitter)
        rng = np.random.default_rng((self._seed, 2))
        shift = torch.from_numpy(rng.uniform(-1, 1, (self.grid.count, self.grid.d))) * jitter
        positions = self._indices() + shift
        for axis, one in enumerate(self.grid.axes):
            if one.size == 1:
                positions[:, axis] = 0.0
            elif one.periodic:
                positions[:, axis] = torch.remainder(positions[:, axis] + 0.5, one.size) - 0.5
            else:
                last = one.size - 1
                positions[:, axis] = last - (torch.remainder(positions[:, axis], 2 * last) - last).abs()
        nodes = torch.zeros(len(positions), dtype=torch.int64)
        for axis, size in enumerate(self.grid.sizes):
            nodes = nodes * size + positions[:, axis].round().to(torch.int64).clamp(0, size - 1)
        name = f"jitter up to {jitter:g} steps"
        return self._sampling(name, 1.0, jitter, positions, nodes, self.interpolate(self.values, positions))

    def interpolate(self, values: Tensor, positions: Tensor) -> Tensor:
        """``values`` ``(C, *sizes)`` at ``positions`` ``(n, d)`` in grid steps: float64 ``(n, C)``.

        A cubic spline where every node has a value and the grid is not too large, else linear; what has no value is
        first given that of the nearest node with one.
        """
        return _interpolated(self._filled(values), positions, self.grid.periodic, self.method)

    @property
    def method(self) -> Literal["cubic", "linear"]:
        """How values between the nodes are found."""
        smooth = self.complete and self.grid.count <= _MOST_CUBIC
        # Half as many nodes are left when the interpolation is put to the test.
        return "cubic" if smooth and all(size >= 8 or size == 1 for size in self.grid.sizes) else "linear"

    def from_every_second_node(self) -> tuple[Tensor, Tensor]:
        """The field with all but every second node (per axis) interpolated from those; and which ones were, bool."""
        repeats = tuple(axis.periodic and axis.size % 2 == 0 for axis in self.grid.axes)
        # Beyond the last node that is kept nothing can be interpolated.
        ends = [size if wraps else size - (size + 1) % 2 for size, wraps in zip(self.grid.sizes, repeats, strict=True)]
        inside = tuple(slice(0, end) for end in ends)
        positions = torch.stack(torch.meshgrid(*(torch.arange(end) / 2.0 for end in ends), indexing="ij"), -1)
        coarse = self._filled(self.values)[(slice(None), *(slice(0, end, 2) for end in ends))]
        found = _interpolated(coarse, positions.reshape(-1, self.grid.d).double(), repeats, self.method)
        left_out = torch.zeros(self.grid.sizes, dtype=torch.bool)
        left_out[inside] = (positions % 1 != 0).any(-1)
        left_out &= self.valid
        values = self.values.clone()
        values[(slice(None), *inside)] = found.T.reshape(-1, *ends)
        return torch.where(left_out, values, self.values), left_out

    def _indices(self) -> Tensor:
        """Positions of all nodes in grid steps, float64 ``(count, d)``."""
        return Grid(self.grid.sizes, (1.0,) * self.grid.d).nodes()

    def _filled(self, values: Tensor) -> Tensor:
        """``values`` with that of the nearest valid node where there is none."""
        if self.complete:
            return values
        nearest = distance_transform_edt(~self.valid.numpy(), return_distances=False, return_indices=True)
        return values[(slice(None), *torch.from_numpy(nearest).long())]

    def _sampling(
        self, name: str, kept: float, jitter: float, positions: Tensor, nodes: Tensor, values: Tensor | None
    ) -> Sampling:
        values = self.values.flatten(1).T[nodes] if values is None else values
        valid = self.valid.reshape(-1)[nodes]
        require(bool(valid.any()), "keep", "leave at least one node with a value", f"none of {len(nodes)} nodes")
        exact = len(nodes) == self.grid.count and jitter == 0
        volume = self.grid.cell_volume
        weights: dict[Rule, Tensor] = {}
        if exact:
            weights["cell_volumes"] = torch.full((len(nodes),), volume, dtype=torch.float64)
        else:
            rule, shares = _recommended(positions, self.grid)
            weights[rule] = shares * volume
            weights["plain_mean"] = plain_mean(len(nodes), volume=volume * self.grid.count)
        if len(nodes) < self.grid.count:
            weights["no weights"] = torch.full((len(nodes),), volume, dtype=torch.float64)
        starts, steps = (
            torch.tensor(lengths_of, dtype=torch.float64) for lengths_of in (self.grid.starts, self.grid.steps)
        )
        return Sampling(
            name,
            kept,
            jitter,
            (starts + steps * positions)[valid],
            values[valid],
            nodes[valid],
            {rule: weight[valid] for rule, weight in weights.items()},
        )


def _recommended(positions: Tensor, grid: Grid) -> tuple[Rule, Tensor]:
    """The rule for samples at ``positions`` in grid steps, and their weights in cells, which sum to the grid's."""
    d, count = grid.d, len(positions)
    images, bounds = _with_images(positions, grid)
    if d == 1:
        return "trapezoid", _trapezoid_to_the_walls(images[:, 0], bounds[0])[:count]
    rule: Rule = "voronoi" if len(images) <= _MOST_VORONOI.get(d, 0) else "density_compensation"
    weights = voronoi(images, bounds=bounds) if rule == "voronoi" else density_compensation(images, bounds=bounds)
    return rule, weights[:count] * (grid.count / weights[:count].sum())


def _with_images(positions: Tensor, grid: Grid) -> tuple[Tensor, list[tuple[float, float]]]:
    """Positions followed by their images near the seams of axes that repeat, and the box that holds them all.

    A grid's cells reach half a step beyond its outermost nodes.
    """
    margin = _SEAM * (grid.count / len(positions)) ** (1 / grid.d)
    bounds = []
    for axis, nodes in enumerate(grid.axes):
        low, high, reach = -0.5, nodes.size - 0.5, 0.0
        if nodes.periodic:
            reach = min(margin, nodes.size / 2)
            shift = torch.zeros(grid.d, dtype=torch.float64)
            shift[axis] = nodes.size
            place = positions[:, axis]
            positions = torch.cat(
                [positions, positions[place < low + reach] + shift, positions[place > high - reach] - shift]
            )
        bounds.append((low - reach, high + reach))
    # Rounding must not put an image beyond the wall.
    box = torch.tensor(bounds, dtype=torch.float64)
    return positions.clamp(box[:, 0], box[:, 1]), bounds


def _trapezoid_to_the_walls(positions: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Trapezoid weights in any order of the positions; the outermost ones stand for all up to the walls."""
    order = positions.argsort()
    weights = trapezoid(positions[order])
    weights[0] += positions[order[0]] - bounds[0]
    weights[-1] += bounds[1] - positions[order[-1]]
    return torch.zeros_like(weights).index_copy(0, order, weights)


def _interpolated(values: Tensor, positions: Tensor, periodic: Sequence[bool], method: str) -> Tensor:
    """``values`` ``(C, *sizes)`` without nan at ``positions`` ``(n, d)`` in steps of their own grid: ``(n, C)``."""
    array, places = values.numpy(), positions.numpy()
    axes, used = [], []
    for axis, (size, repeats) in enumerate(zip(values.shape[1:], periodic, strict=True)):
        if size == 1:
            continue
        pad = min(size, 8) if repeats else 0
        widths = [(0, 0)] * array.ndim
        widths[axis + 1] = (pad, pad)
        array = np.pad(array, widths, mode="wrap") if pad else array
        axes.append(np.arange(-pad, size + pad, dtype=np.float64))
        used.append(axis)
    array = np.moveaxis(array.reshape(len(array), *map(len, axes)), 0, -1)
    if not axes:
        return torch.from_numpy(np.repeat(array[None], len(places), 0))
    return torch.from_numpy(RegularGridInterpolator(axes, array, method=method)(places[:, used]))
