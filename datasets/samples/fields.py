"""Fields as places with values, and the way back to a Dataset with coordinates and units."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ccnn_irregular._checks import require
from ccnn_irregular.datasets.samples.protocol import summary

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["FieldSet"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class FieldSet:
    """F fields laid end to end, N places in all.

    Attributes:
        coordinates: float64 ``(N, d)``, coordinate units.
        values: float64 ``(N, C)``, nan where a value is not known.
        splits: int64 ``(F + 1,)``; field ``f`` owns rows ``splits[f]:splits[f + 1]``.
        units: int64 ``(N,)``, the station or profile of each place; places of a grid have one each.
        names: of the fields.
        channels: of the values.
        channel_units: of the channels.
        axes: names of the coordinates.
        restored: values ``(N, C)`` at all places -> a Dataset with the coordinates and attributes of what was read.
        shape: sizes of a field on a grid of two axes, to be drawn as a map; None = scattered.
        times: float64 ``(F,)``, rising, of the fields in years; None where they have none.
        reference: int64 ``(N,)``, groups of places whose values count as differences from a mean of the group, which
            ``records.referred_to`` takes off; None where values are absolute.
        mean_over: bool ``(N,)``, the places which that mean is over; None = all that are known.
        areas: float64 ``(N,)``, what each place counts in scores: nodes of a grid of latitudes and longitudes as the
            area they stand for, in any unit; None = all places alike.
        axis_units: of the coordinates; () = not stated.
    """

    coordinates: Tensor
    values: Tensor
    splits: Tensor
    units: Tensor
    names: tuple[str, ...]
    channels: tuple[str, ...]
    channel_units: tuple[str, ...]
    axes: tuple[str, ...]
    restored: Callable[[Array], xr.Dataset]
    shape: tuple[int, ...] | None = None
    times: Tensor | None = None
    reference: Tensor | None = None
    mean_over: Tensor | None = None
    areas: Tensor | None = None
    axis_units: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        bad = ~torch.isfinite(self.coordinates).all(1)
        require(not bool(bad.any()), "coordinates", "be finite", f"row {int(bad.double().argmax())} of {len(bad)}")
        field = torch.repeat_interleave(torch.arange(len(self.names)), self.splits.diff()).double()
        places = torch.cat([field[:, None], self.coordinates], 1)
        known = self.known
        distinct = len(torch.unique(places[known], dim=0))
        rule = "be distinct within a field where values are known"
        require(distinct == int(known.sum()), "coordinates", rule, f"{int(known.sum()) - distinct} repeated places")

    def __repr__(self) -> str:
        channels = ", ".join(f"{name} ({unit})" for name, unit in zip(self.channels, self.channel_units, strict=True))
        size = f"fields={len(self)}, places={len(self.coordinates)}, axes={self.axes}"
        return f"{type(self).__name__}({size}, channels={channels})"

    def __len__(self) -> int:
        return len(self.names)

    @property
    def labels(self) -> None:
        """Fields have none."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Fields have none."""
        return ()

    @property
    def unit(self) -> str:
        """Of the coordinates, axis by axis."""
        return ", ".join(self.axis_units)

    def describe(self) -> dict[str, Any]:
        """What they are, as plain values."""
        known = int(self.known.sum())
        return summary(self, places=len(self.values), known=known, axes=list(self.axes), channels=list(self.channels))

    @property
    def known(self) -> Tensor:
        """Where all channels are known, bool ``(N,)``."""
        return ~self.values.isnan().any(1)

    @property
    def averaged(self) -> Tensor:
        """Where the values are known whose mean a group of ``reference`` is referred to, bool ``(N,)``."""
        return self.known if self.mean_over is None else self.known & self.mean_over

    def weights(self, rows: Tensor) -> Tensor:
        """What the places ``rows`` count in scores, float64 of their shape."""
        return torch.ones(len(rows), dtype=torch.float64) if self.areas is None else self.areas[rows]
