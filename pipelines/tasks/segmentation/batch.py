"""A volume as a batch of one: its values without a unit, on its grid or one of fewer slices or other voxels."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ccnn_irregular._checks import require
from ccnn_irregular.datasets.decathlon import Volume
from ccnn_irregular.datasets.processing.interpolation import NodeMethod
from ccnn_irregular.datasets.processing.moments import mean_and_deviation
from ccnn_irregular.datasets.reading.content import content_id
from ccnn_irregular.domains import Grid
from ccnn_irregular.pipelines.train.resampling import covering_grid, onto_grid

__all__ = [
    "PERCENTILES",
    "Intensities",
    "Thinning",
    "VolumeBatch",
    "resampled_batch",
    "standardised",
    "thinned_grid",
    "thinnings",
]

# Every how many slices along x, y and z one is kept.
Thinning = tuple[int, ...]
# What becomes of intensities beyond the percentiles, see ``standardised``.
Intensities = Literal["compressed", "clipped"]

# Percentiles between which a volume is standardised: a few bright vessels or an outlier move neither.
PERCENTILES = (1.0, 99.0)


@dataclasses.dataclass(frozen=True)
class VolumeBatch:
    """One volume, and where answers are wanted: volumes of unequal sizes come one by one.

    Attributes:
        name: of the file.
        values: float32 ``(1, C, *grid.sizes)``, as stored in the file.
        grid: of the voxels that are given, millimetres.
        query: where labels are wanted.
        labels: int64 ``(1, *query.sizes)``, or None.
    """

    name: str
    values: Tensor
    grid: Grid
    query: Grid
    labels: Tensor | None

    @staticmethod
    def of(volume: Volume, thin: Sequence[int] = (1, 1, 1)) -> VolumeBatch:
        """A volume, or every n-th slice along each axis of it, with its labels there."""
        kept = tuple(slice(None, None, factor) for factor in thin)
        values = volume.values[(slice(None), *kept)][None]
        grid = thinned_grid(volume.grid, thin)
        labels = None if volume.labels is None else volume.labels[kept].long()[None]
        return VolumeBatch(volume.name, values, grid, grid, labels)

    @property
    def ids(self) -> Tensor:
        """What the volume is known by in all epochs, int64 ``(1,)``: its name."""
        return torch.tensor([content_id(self.name)])

    def __len__(self) -> int:
        return 1

    def to(self, device: torch.device | str, non_blocking: bool = False) -> VolumeBatch:
        """The same batch on ``device``; grids have none."""
        labels = None if self.labels is None else self.labels.to(device, non_blocking=non_blocking)
        return dataclasses.replace(self, values=self.values.to(device, non_blocking=non_blocking), labels=labels)


def standardised(values: Tensor, intensities: Intensities = "compressed") -> Tensor:
    """``(C, *sizes)``, each channel minus its mean over its standard deviation, both of values cut to percentiles.

    MR intensities have no unit, and their largest may be artefacts: mean and deviation are those of the values cut to
    the percentiles 1 and 99. Where these are equal, as in a field that is empty but for a small object, the deviation
    is that of all values.

    Args:
        values: ``(C, *sizes)``, finite.
        intensities: "compressed": what lies beyond a percentile by x deviations is put log(1 + x) beyond it, so that
            order and contrast remain: an object of less than a hundredth of the voxels is seen. "clipped": it is put
            on the percentile, as in checkpoints from before this choice; such an object is gone.

    Returns:
        float32 ``(C, *sizes)``; zeros for a constant channel.
    """
    return torch.stack([_standardised_channel(channel, intensities) for channel in values])


def _standardised_channel(channel: Tensor, intensities: Intensities) -> Tensor:
    exact = channel.double()
    low, high = np.percentile(exact.numpy(), PERCENTILES)
    cut = exact.clamp(float(low), float(high))
    mean, deviation = mean_and_deviation(cut.reshape(-1, 1))
    if intensities == "compressed" and not deviation > 0:
        deviation = mean_and_deviation(exact.reshape(-1, 1))[1]
    if not deviation > 0:
        return torch.zeros_like(channel)
    result = (cut - mean) / deviation
    if intensities == "compressed":
        beyond = (exact - cut) / deviation
        result += beyond.sign() * beyond.abs().log1p()
    return result.to(channel.dtype)


def thinned_grid(grid: Grid, thin: Sequence[int], first: Sequence[int] | None = None) -> Grid:
    """Every n-th node along each axis, from the node ``first`` on (default: the first one)."""
    first = (0,) * grid.d if first is None else first
    sizes = [math.ceil((axis.size - begin) / n) for axis, n, begin in zip(grid.axes, thin, first, strict=True)]
    steps = [axis.step * n for axis, n in zip(grid.axes, thin, strict=True)]
    starts = [axis.start + axis.step * begin for axis, begin in zip(grid.axes, first, strict=True)]
    return Grid(sizes, steps, starts, grid.periodic)


def thinnings(words: Sequence[int | str]) -> list[tuple[int, int, int]]:
    """``["1,1,2", "2,1,1"]`` as factors per axis: every how many slices along x, y and z one is kept.

    Raises:
        ValueError: words that are not three positive integers.
    """
    found = []
    for word in words:
        numbers = str(word).split(",")
        sound = len(numbers) == 3 and all(number.isdecimal() and int(number) > 0 for number in numbers)
        require(sound, "test.thin", "be three positive integers each, such as 1,1,2", repr(word))
        found.append((int(numbers[0]), int(numbers[1]), int(numbers[2])))
    return found


def resampled_batch(batch: VolumeBatch, steps: Sequence[float], method: NodeMethod = "linear") -> VolumeBatch:
    """The volume on voxels of these steps over all places where answers are wanted; labels of the nearest voxel there.

    Axes that have these steps already keep their voxels.
    """
    grid = covering_grid(batch.query, steps)
    values = onto_grid(batch.values, batch.grid, grid, method)
    labels = batch.labels
    if labels is not None:
        for axis, (old, new) in enumerate(zip(batch.query.axes, grid.axes, strict=True)):
            nearest = ((new.nodes(labels.device) - old.start) / old.step).round().long().clamp(0, old.size - 1)
            labels = labels.index_select(1 + axis, nearest)
    return dataclasses.replace(batch, values=values, grid=grid, query=grid, labels=labels)
