"""Every point combined with every grid node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from ccnn_irregular.domains.grid import Grid
from ccnn_irregular.domains.points import Points

__all__ = ["Product"]


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

    @property
    def periods(self) -> tuple[float | None, ...]:
        """Per axis the length after which it repeats, or None."""
        return *self.points.periods, *self.grid.periods

    @property
    def irregular(self) -> Points:
        """The irregular factor."""
        return self.points

    @property
    def uniform(self) -> Grid:
        """The uniform factor."""
        return self.grid

    @property
    def weighs_channels(self) -> bool:
        """Whether every channel has weights of its own, ``(N, C)``."""
        return self.points.weighs_channels

    def values_shape(self, channels: int, batch: int = 1) -> tuple[int, ...]:
        """Shape of values: ``(N, channels, *grid.sizes)``, whatever ``batch``."""
        return self.points.count, channels, *self.grid.sizes

    def batch_size(self, values: Tensor) -> int:
        """Number of samples that ``values`` hold: those of the points."""
        return self.samples

    def require_current(self) -> None:
        """See ``Points.require_current``."""
        self.points.require_current()

    def as_points(self, samples: int | None = None, device: torch.device | str | None = None) -> Points:
        """All combinations as ``Points``, the grid's nodes running fastest; see ``Grid.as_points``.

        Raises:
            ValueError: another number of samples.
        """
        points = self.points.as_points(samples)
        nodes = self.grid.nodes(self.device)
        # Not weights * volume: a product keeps its factors for one backward pass, and a plan's points serve many.
        weights = torch.add(torch.zeros_like(points.weights), points.weights, alpha=self.grid.cell_volume)
        return Points(
            torch.cat([_repeated(points.coordinates, len(nodes)), nodes.repeat(points.count, 1)], dim=1),
            _repeated(weights, len(nodes)),
            points.splits * len(nodes),
            periods=self.periods,
        )

    def to(self, device: torch.device | str) -> Product:
        """The same product on another device."""
        return Product(self.points.to(device), self.grid)


def _repeated(rows: Tensor, count: int) -> Tensor:
    """Each row ``count`` times, with nothing kept for the backward pass."""
    return rows[:, None].expand(len(rows), count, *rows.shape[1:]).flatten(0, 1)
