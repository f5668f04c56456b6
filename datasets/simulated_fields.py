"""Simulated smooth fields at random places, known everywhere; measured nowhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from ccnn_irregular.datasets.registry import DataSet, register
from ccnn_irregular.datasets.samples import FieldSet
from ccnn_irregular.datasets.samples.fields import Array

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["smooth_fields"]


def smooth_fields(count: int = 12, points: int = 400, *, waves: int = 24, seed: int = 0) -> FieldSet:
    """Smooth random fields on the unit square, known everywhere: sums of cosines with a falling spectrum.

    Args:
        count: number of fields.
        points: places of each, drawn at random.
        waves: cosines in a field, of up to three periods along each axis.
        seed: of everything drawn.
    """
    import xarray as xr

    generator = torch.Generator().manual_seed(seed)
    places = torch.rand(count, points, 2, generator=generator, dtype=torch.float64)
    waves_of = 6 * torch.rand(count, waves, 2, generator=generator, dtype=torch.float64) - 3
    phases = torch.rand(count, waves, generator=generator, dtype=torch.float64)
    sizes = torch.randn(count, waves, generator=generator, dtype=torch.float64) / (1 + waves_of.norm(dim=2))
    angles = 2 * torch.pi * (places @ waves_of.transpose(1, 2) + phases[:, None])
    values = (angles.cos() * sizes[:, None]).sum(2)
    names = tuple(f"field {number}" for number in range(count))

    def restored(filled: Array) -> xr.Dataset:
        flat = places.reshape(-1, 2).numpy()
        field = np.repeat(np.arange(count), points)
        return xr.Dataset(
            {"value": ("place", filled[:, 0])},
            {"field": ("place", field), "y": ("place", flat[:, 0]), "x": ("place", flat[:, 1])},
        )

    return FieldSet(
        coordinates=places.reshape(-1, 2),
        values=values.reshape(-1, 1),
        splits=torch.arange(count + 1) * points,
        units=torch.arange(count * points),
        names=names,
        channels=("value",),
        channel_units=("1",),
        axes=("y", "x"),
        axis_units=("sides", "sides"),
        restored=restored,
    )


register(
    DataSet(
        name="simulated_fields",
        about="simulated smooth fields at random places of the unit square",
        load=smooth_fields,
        samples=FieldSet,
        shape="1 channel at 400 places",
    )
)
