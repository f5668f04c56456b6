"""Where values were sampled or are wanted: ``Points`` (irregular), ``Grid`` (uniform), ``Product`` of both.

Geometry is float64 throughout; engines cast it to the values' dtype after differences are taken.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from typing import final

import torch
from torch import Tensor

from ccnn_irregular._checks import require, require_finite, require_splits
from ccnn_irregular.quadrature import cell_volumes

__all__ = ["Axis", "Domain", "Grid", "Points", "Product", "shares_memory"]


@final
@dataclass(frozen=True)
class Axis:
    """One uniform axis: ``size`` nodes at ``start + step * k``, in coordinate units.

    Attributes:
        size: number of nodes, an integer of at least 1.
        step: distance of neighbouring nodes, positive.
        start: coordinate of the first node.
        periodic: whether the node after the last is the first again; the period is ``size * step``.

    Raises:
        ValueError: size below 1 or no integer, step not positive, or a value that is not finite.
    """

    size: int
    step: float
    start: float = 0.0
    periodic: bool = False

    def __post_init__(self) -> None:
        require(isinstance(self.size, Integral), "size", "be an integer", self.size)
        require(self.size >= 1, "size", "be at least 1", self.size)
        object.__setattr__(self, "size", int(self.size))  # numpy's integers overflow silently
        require(math.isfinite(self.step) and self.step > 0, "step", "be positive and finite", self.step)
        require(math.isfinite(self.start), "start", "be finite", self.start)

    @property
    def period(self) -> float | None:
        """Length after which the axis repeats, or None."""
        return self.size * self.step if self.periodic else None

    def nodes(self, device: torch.device | str = "cpu") -> Tensor:
        """Node coordinates, float64 ``(size,)``."""
        return self.start + self.step * torch.arange(self.size, dtype=torch.float64, device=device)


@final
class Points:
    """Irregular positions, or a ragged batch of them laid end to end.

    Tensors are held as they are given, float64 ones without a copy: the points move with them if they are changed in
    place, and a ``Plan`` that was made before refuses them. Others are converted; of learned ones, which an optimiser
    moves, the points must then be made again after each step, and a convolution refuses them until they are. Memory
    shared with NumPy is copied, because PyTorch cannot tell when it is written.

    Attributes:
        coordinates: float64 ``(N, d)``, coordinate units; gradients flow through it.
        weights: float64 ``(N,)``, or ``(N, C)`` where channels were observed at different places;
            units of volume. 0 = not observed: the value there is never read.
        splits: int64 ``(B + 1,)``; sample ``b`` owns rows ``splits[b]:splits[b + 1]`` and is blind to all others.
        periods: per axis the length after which it repeats, or None.

    Raises:
        ValueError: shapes that disagree, nan or infinite coordinates or weights, negative weights,
            splits that are not offsets, a period that is not positive.
    """

    def __init__(
        self,
        coordinates: Tensor,
        weights: Tensor | None = None,
        splits: Tensor | None = None,
        *,
        periods: Sequence[float | None] | None = None,
    ) -> None:
        require(coordinates.ndim == 2, "coordinates", "have shape (N, d)", tuple(coordinates.shape))
        require(coordinates.is_floating_point(), "coordinates", "be floating point", coordinates.dtype)
        require_finite("coordinates", coordinates)
        count, d = coordinates.shape
        device = coordinates.device
        if weights is None:
            weights = torch.ones(count, dtype=torch.float64, device=device)
        if splits is None:
            splits = torch.tensor([0, count], dtype=torch.int64, device=device)
        for name, tensor in (("weights", weights), ("splits", splits)):
            require(tensor.device == device, name, f"be on the coordinates' device {device}", tensor.device)
        require(
            weights.ndim in (1, 2) and len(weights) == count,
            "weights",
            f"have shape (N,) or (N, C) with N = {count}",
            tuple(weights.shape),
        )
        require_finite("weights", weights)
        require(not bool((weights < 0).any()), "weights", "not be negative", "a negative weight")
        require_splits(splits, count)
        periods = tuple(periods) if periods is not None else (None,) * d
        require(len(periods) == d, "periods", f"have one entry per axis, {d}", periods)
        require(all(p is None or (math.isfinite(p) and p > 0) for p in periods), "periods", "be positive", periods)
        self.coordinates = _held(coordinates.to(torch.float64))
        self.weights = _held(weights.to(torch.float64))
        self.splits = _held(splits)
        self.periods = periods
        given = {"coordinates": coordinates, "weights": weights}
        self._converted = {name: one for name, one in given.items() if one.requires_grad and one.dtype != torch.float64}

    def __repr__(self) -> str:
        return f"Points(n={self.count}, d={self.d}, samples={self.samples})"

    @property
    def count(self) -> int:
        """Number of points over all samples."""
        return self.coordinates.shape[0]

    @property
    def d(self) -> int:
        """Number of coordinate axes."""
        return self.coordinates.shape[1]

    @property
    def samples(self) -> int:
        """Number of samples in the ragged batch."""
        return len(self.splits) - 1

    @property
    def device(self) -> torch.device:
        """Device of the coordinates."""
        return self.coordinates.device

    def require_current(self) -> None:
        """Refuse points made of learned coordinates or weights, in another dtype than float64, that have moved since.

        Raises:
            ValueError: the tensor was changed in place, by an optimiser, say.
        """
        for name, given in self._converted.items():
            same = torch.equal(given.detach().to(torch.float64), getattr(self, name).detach())
            rule = f"be as they were when Points was made of them in {given.dtype}: make Points anew after each change"
            require(same, name, rule, "others, changed in place")

    def sample_index(self) -> Tensor:
        """Sample each row belongs to, int64 ``(N,)``."""
        return self._sample_index

    @cached_property
    def _sample_index(self) -> Tensor:
        return torch.repeat_interleave(
            torch.arange(self.samples, device=self.device), self.splits.diff(), output_size=self.count
        )

    def to(self, device: torch.device | str) -> Points:
        """The same points on another device."""
        return Points(
            self.coordinates.to(device), self.weights.to(device), self.splits.to(device), periods=self.periods
        )


def shares_memory(tensor: Tensor) -> bool:
    """Whether others than PyTorch can write the tensor's memory: NumPy, or another process."""
    try:
        return not tensor.untyped_storage().resizable()
    except NotImplementedError:  # what torch.func wraps has no memory of its own
        return False


def _held(tensor: Tensor) -> Tensor:
    """The tensor, or a copy where others may write it and no gradient has to reach it."""
    return tensor.clone() if shares_memory(tensor) and not tensor.requires_grad else tensor


@final
class Grid:
    """Product of uniform axes; values on it have shape ``(B, C, *sizes)`` and weigh one cell volume each.

    Args:
        sizes: number of nodes per axis.
        steps: distance of neighbouring nodes per axis, in coordinate units.
        starts: coordinate of the first node per axis; None = 0.
        periodic: one flag for all axes or one per axis.

    Raises:
        ValueError: a size below 1 or no integer, a step that is not positive, lengths that disagree.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        steps: Sequence[float],
        starts: Sequence[float] | None = None,
        periodic: bool | Sequence[bool] = False,
    ) -> None:
        d = len(sizes)
        require(d >= 1, "sizes", "name at least one axis", tuple(sizes))
        starts = (0.0,) * d if starts is None else starts
        periodic = (periodic,) * d if isinstance(periodic, bool) else periodic
        for name, given in (("steps", steps), ("starts", starts), ("periodic", periodic)):
            require(len(given) == d, name, f"have one entry per axis, {d}", tuple(given))
        self.axes = tuple(
            Axis(size, float(step), float(start), bool(wraps))
            for size, step, start, wraps in zip(sizes, steps, starts, periodic, strict=True)
        )

    def __repr__(self) -> str:
        return f"Grid(sizes={self.sizes}, steps={self.steps}, starts={self.starts}, periodic={self.periodic})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Grid) and self.axes == other.axes

    def __hash__(self) -> int:
        return hash(self.axes)

    @property
    def d(self) -> int:
        """Number of coordinate axes."""
        return len(self.axes)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of nodes per axis."""
        return tuple(axis.size for axis in self.axes)

    @property
    def steps(self) -> tuple[float, ...]:
        """Distance of neighbouring nodes per axis, in coordinate units."""
        return tuple(axis.step for axis in self.axes)

    @property
    def starts(self) -> tuple[float, ...]:
        """Coordinate of the first node per axis."""
        return tuple(axis.start for axis in self.axes)

    @property
    def periodic(self) -> tuple[bool, ...]:
        """Whether each axis repeats."""
        return tuple(axis.periodic for axis in self.axes)

    @property
    def periods(self) -> tuple[float | None, ...]:
        """Per axis the length after which it repeats, or None."""
        return tuple(axis.period for axis in self.axes)

    @property
    def count(self) -> int:
        """Number of nodes."""
        return math.prod(self.sizes)

    @property
    def cell_volume(self) -> float:
        """Quadrature weight of every node, in units of volume."""
        return math.prod(self.steps)

    def nodes(self, device: torch.device | str = "cpu") -> Tensor:
        """Node coordinates in row-major order, float64 ``(prod(sizes), d)``."""
        mesh = torch.meshgrid(*(axis.nodes(device) for axis in self.axes), indexing="ij")
        return torch.stack([coordinate.reshape(-1) for coordinate in mesh], dim=1)

    def points(self, samples: int = 1, device: torch.device | str = "cpu") -> Points:
        """The nodes as ``Points`` weighing their cell volume, repeated for each of ``samples`` samples."""
        volumes = cell_volumes(self.sizes, self.steps).reshape(-1).to(device)
        splits = torch.arange(samples + 1, dtype=torch.int64, device=device) * self.count
        return Points(self.nodes(device).repeat(samples, 1), volumes.repeat(samples), splits, periods=self.periods)


@final
@dataclass(frozen=True, eq=False)
class Product:
    """Every point combined with every grid node (stations x hours, levels x latitude x longitude).

    Coordinates are the points' axes followed by the grid's. Values have shape ``(N, C, *grid.sizes)``.

    Attributes:
        points: the irregular factor; its splits are the samples of the product.
        grid: the uniform factor.
    """

    points: Points
    grid: Grid

    def __repr__(self) -> str:
        return f"Product({self.points!r}, {self.grid!r})"

    @property
    def d(self) -> int:
        """Number of coordinate axes."""
        return self.points.d + self.grid.d

    @property
    def count(self) -> int:
        """Number of (point, node) combinations."""
        return self.points.count * self.grid.count

    @property
    def samples(self) -> int:
        """Number of samples in the ragged batch."""
        return self.points.samples

    @property
    def device(self) -> torch.device:
        """Device of the coordinates."""
        return self.points.device

    def require_current(self) -> None:
        """See ``Points.require_current``."""
        self.points.require_current()

    def expanded(self) -> Points:
        """All combinations as ``Points``, the grid's nodes running fastest."""
        nodes = self.grid.nodes(self.device)
        # Not weights * volume: a product keeps its factors for one backward pass, and a plan's points serve many.
        weights = torch.add(torch.zeros_like(self.points.weights), self.points.weights, alpha=self.grid.cell_volume)
        return Points(
            torch.cat([_repeated(self.points.coordinates, len(nodes)), nodes.repeat(self.points.count, 1)], dim=1),
            _repeated(weights, len(nodes)),
            self.points.splits * len(nodes),
            periods=(*self.points.periods, *self.grid.periods),
        )

    def to(self, device: torch.device | str) -> Product:
        """The same product on another device."""
        return Product(self.points.to(device), self.grid)


def _repeated(rows: Tensor, count: int) -> Tensor:
    """Each row ``count`` times, with nothing kept for the backward pass."""
    return rows[:, None].expand(len(rows), count, *rows.shape[1:]).flatten(0, 1)


Domain = Points | Grid | Product
