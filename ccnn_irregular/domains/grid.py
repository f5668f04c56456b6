"""Uniform axes and their product."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import final

import torch
from torch import Tensor

from ccnn_irregular._checks import require
from ccnn_irregular.domains.points import Points
from ccnn_irregular.quadrature import cell_volumes

__all__ = ["Axis", "Grid"]


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
        starts = f", starts={self.starts}" if any(self.starts) else ""
        periodic = f", periodic={self.periodic}" if any(self.periodic) else ""
        return f"Grid(sizes={self.sizes}, steps={self.steps}{starts}{periodic})"

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

    @property
    def samples(self) -> None:
        """Number of samples in a ragged batch: None, a grid serves any number."""
        return None

    @property
    def device(self) -> None:
        """Device of the coordinates: None, a grid holds no tensors."""
        return None

    @property
    def irregular(self) -> None:
        """The irregular factor: a grid has none."""
        return None

    @property
    def uniform(self) -> Grid:
        """The uniform factor: this grid."""
        return self

    @property
    def weighs_channels(self) -> bool:
        """Whether every channel has weights of its own: never, each node weighs its cell volume."""
        return False

    def values_shape(self, channels: int, batch: int = 1) -> tuple[int, ...]:
        """Shape of values: ``(batch, channels, *sizes)``."""
        return batch, channels, *self.sizes

    def batch_size(self, values: Tensor) -> int:
        """Number of samples that ``values`` hold: entries of their first axis."""
        return len(values)

    def require_current(self) -> None:
        """Nothing to refuse: a grid cannot change. See ``Points.require_current``."""

    def as_points(self, samples: int | None = None, device: torch.device | str | None = None) -> Points:
        """The nodes as ``Points`` that weigh their cell volume.

        Args:
            samples: number of samples, each with all nodes; None = 1.
            device: of the points; None = the CPU.
        """
        samples = 1 if samples is None else samples
        device = "cpu" if device is None else device
        volumes = cell_volumes(self.sizes, self.steps).reshape(-1).to(device)
        splits = torch.arange(samples + 1, dtype=torch.int64, device=device) * self.count
        return Points(self.nodes(device).repeat(samples, 1), volumes.repeat(samples), splits, periods=self.periods)

    def to(self, device: torch.device | str) -> Grid:
        """The grid itself: it serves every device."""
        return self
