"""What is changed in a volume at random in training."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ccnn_irregular._checks import require
from ccnn_irregular.domains import Grid
from ccnn_irregular.pipelines.tasks.segmentation.batch import VolumeBatch, resampled_batch, thinned_grid
from ccnn_irregular.pipelines.train.draws import Draws

__all__ = ["VolumeAugmentation"]


@dataclasses.dataclass(frozen=True)
class VolumeAugmentation:
    """Random changes of a standardised volume in training; answers are wanted where they were.

    Attributes:
        thin: probability that every second slice along one random axis is taken away.
        kept_only: want answers at the slices that were kept alone, and not at all of them.
        resample: bring what stretching and thinning made back to voxels of the size given, values linearly and labels
            by the nearest voxel: what fixed kernels need in place of coordinates.
        stretch: largest relative change of the voxel size along each axis: the same anatomy, larger or smaller.
        contrast: largest relative change of the contrast.
        brightness: largest shift, standard deviations of the volume.
        gamma: largest exponent that bends the scale of intensities, and one over the smallest; 1 = none.
        noise: largest standard deviation of white noise, in those of the volume.
    """

    thin: float = 0.0
    kept_only: bool = False
    resample: bool = False
    stretch: float = 0.0
    contrast: float = 0.0
    brightness: float = 0.0
    gamma: float = 1.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        require(0 <= self.thin <= 1, "thin", "be a probability", self.thin)
        for name in ("stretch", "contrast"):
            require(0 <= getattr(self, name) < 1, name, "lie in [0, 1)", getattr(self, name))
        for name in ("brightness", "noise"):
            require(getattr(self, name) >= 0, name, "not be negative", getattr(self, name))
        require(self.gamma >= 1, "gamma", "be at least 1", self.gamma)

    def __call__(self, batch: VolumeBatch, draws: Draws) -> VolumeBatch:
        """Another batch; ``draws`` are those of its volume."""
        d, steps = batch.grid.d, batch.grid.steps
        (rng,) = draws.generators("augmentation")
        factors = (1 + self.stretch * rng.uniform(-1, 1, d)).tolist()
        thinned, axis, begin = rng.random() < self.thin, int(rng.integers(d)), int(rng.integers(2))
        grid, query = (_stretched(nodes, factors) for nodes in (batch.grid, batch.query))
        batch = dataclasses.replace(batch, values=self._intensities(batch.values, rng), grid=grid, query=query)
        batch = self._thinned(batch, axis, begin) if thinned else batch
        return resampled_batch(batch, steps) if self.resample else batch

    def _thinned(self, batch: VolumeBatch, axis: int, begin: int) -> VolumeBatch:
        """Every second slice along ``axis`` from ``begin`` on, where that leaves more than one."""
        if batch.grid.sizes[axis] < 4:
            return batch
        thin, first = [1] * batch.grid.d, [0] * batch.grid.d
        thin[axis], first[axis] = 2, begin
        kept = (slice(None),) * axis + (slice(begin, None, 2),)
        grid, values = thinned_grid(batch.grid, thin, first), batch.values[(slice(None), slice(None), *kept)]
        batch = dataclasses.replace(batch, values=values, grid=grid)
        if not self.kept_only:
            return batch
        labels = None if batch.labels is None else batch.labels[(slice(None), *kept)]
        return dataclasses.replace(batch, query=grid, labels=labels)

    def _intensities(self, values: Tensor, rng: np.random.Generator) -> Tensor:
        if self.gamma > 1:
            low, high = values.amin(), values.amax()
            span = (high - low).clamp_min(1e-6)
            exponent = self.gamma ** rng.uniform(-1, 1)
            values = ((values - low) / span) ** exponent * span + low
        scale, shift = 1 + self.contrast * rng.uniform(-1, 1), self.brightness * rng.uniform(-1, 1)
        values = values * scale + shift
        level = self.noise * rng.random()
        if not level:
            return values
        noise = torch.from_numpy(rng.standard_normal(values.shape, dtype=np.float32))
        return values + level * noise.to(values)


def _stretched(grid: Grid, factors: Sequence[float]) -> Grid:
    """The same nodes with the voxels' size times a factor per axis."""
    steps = [step * factor for step, factor in zip(grid.steps, factors, strict=True)]
    starts = [start * factor for start, factor in zip(grid.starts, factors, strict=True)]
    return Grid(grid.sizes, steps, starts, grid.periodic)
