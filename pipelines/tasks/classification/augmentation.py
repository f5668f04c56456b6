"""Random changes of training batches, in the units of the coordinates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ccnn_irregular._checks import require
from ccnn_irregular.domains import Grid, Points
from ccnn_irregular.pipelines.tasks.classification.content import sampled_points
from ccnn_irregular.pipelines.tasks.classification.data import SampleBatch
from ccnn_irregular.pipelines.train.draws import Draws

__all__ = ["Augmentation"]

# A low-pass filter falls from 1 at its cut-off to 0 at 1 + this many times that frequency.
_ROLL_OFF = 0.2


@dataclass(frozen=True)
class Augmentation:
    """What happens to a batch before a training step.

    Attributes:
        drop: each series read as points loses a random share of its samples, up to this one; in [0, 1).
        stretch: times from the first sample of each series read as points are scaled by a factor within 1 +- stretch.
        low_pass: half of the samples on a grid are filtered: frequencies (cycles per coordinate unit) up to a random
            one between this and the Nyquist frequency stay, those from 1.2 times that one on are lost. None = none are.
            Beyond an end a sample goes on as its mirror image, or repeats where the grid does. A network so trained
            needs no more than the low frequencies, whatever rate it meets later.
        shift: samples on a grid are moved by up to this much along each axis, what leaves on one side enters on the
            other; empty = not at all.
        flip: axes of a grid; half of the samples are mirrored along each of them, drawn axis by axis. True = the last
            axis alone, False = none.
        cap: as of the data module, for the weights of the points that stay.
    """

    drop: float = 0.0
    stretch: float = 0.0
    low_pass: float | None = None
    shift: Sequence[float] = ()
    flip: bool | Sequence[int] = False
    cap: float | None = None

    def __post_init__(self) -> None:
        require(0 <= self.drop < 1, "drop", "lie in [0, 1)", self.drop)
        require(0 <= self.stretch < 1, "stretch", "lie in [0, 1)", self.stretch)
        require(self.low_pass is None or self.low_pass > 0, "low_pass", "be positive", self.low_pass)

    @property
    def changes(self) -> bool:
        """Whether anything happens at all."""
        return self != Augmentation(cap=self.cap)

    def __call__(self, batch: SampleBatch, draws: Draws) -> SampleBatch:
        """The changed batch; ``draws`` are those of its samples."""
        if isinstance(batch.domain, Points):
            return self._changed_points(batch, batch.domain, draws)
        values, sampled = self._changed_grid(batch.values, batch.domain, batch.sampled, draws)
        return replace(batch, values=values, sampled=sampled)

    def _changed_points(self, batch: SampleBatch, points: Points, draws: Draws) -> SampleBatch:
        if not self.drop and not self.stretch:
            return batch
        sample, lengths = points.sample_index(), points.splits.diff().cpu().numpy()
        share = np.repeat(self.drop * draws.uniform("drop share"), lengths)
        kept = torch.from_numpy(draws.uniform("drop", lengths) >= share).to(points.device)
        factor = torch.from_numpy(1 + self.stretch * (2 * draws.uniform("stretch") - 1)).to(points.device)
        first = points.coordinates[points.splits[:-1].clamp(max=max(points.count - 1, 0))][sample]
        coordinates = (first + (points.coordinates - first) * factor[sample, None])[kept]
        splits = torch.nn.functional.pad(kept.to(torch.int64).cumsum(0), (1, 0))[points.splits]
        values = batch.values[kept]
        return replace(batch, values=values, domain=sampled_points(coordinates, values, splits, self.cap))

    def _changed_grid(
        self, values: Tensor, grid: Grid, sampled: Tensor | None, draws: Draws
    ) -> tuple[Tensor, Tensor | None]:
        """Values, and where they do not pad."""
        if self.low_pass is not None:
            values = _low_passed(values, grid, self.low_pass, draws)
        if sampled is None:
            return self._moved(values, grid, draws), None
        # Moved as one more channel.
        both = self._moved(torch.cat([values, sampled.to(values.dtype)], dim=1), grid, draws)
        return both[:, :-1], both[:, -1:] > 0

    def _moved(self, values: Tensor, grid: Grid, draws: Draws) -> Tensor:
        if self.shift:
            require(len(self.shift) == grid.d, "shift", f"have one entry per axis, {grid.d}", tuple(self.shift))
            for axis, furthest in enumerate(self.shift):
                nodes = round(furthest / grid.steps[axis])
                moved = np.floor(draws.uniform(f"shift {axis}") * (2 * nodes + 1)).astype(np.int64) - nodes
                values = _rolled(values, 2 + axis, torch.from_numpy(moved).to(values.device))
        for axis in self._mirrored_axes(grid.d):
            mirrored = torch.from_numpy(draws.uniform(f"flip {axis}") < 0.5).to(values.device)
            values = torch.where(mirrored.reshape(-1, *(1,) * (values.ndim - 1)), values.flip(2 + axis), values)
        return values

    def _mirrored_axes(self, d: int) -> Sequence[int]:
        if isinstance(self.flip, bool):
            return (d - 1,) if self.flip else ()
        sound = len(set(self.flip)) == len(self.flip) and all(0 <= axis < d for axis in self.flip)
        require(sound, "flip", f"name axes of the grid, 0 to {d - 1}, each once", tuple(self.flip))
        return self.flip


def _low_passed(values: Tensor, grid: Grid, lowest: float, draws: Draws) -> Tensor:
    """Half of the entries without what lies above a cut-off of their own, log-uniform up to the Nyquist frequency."""
    entries, device = len(values), values.device
    chosen = torch.from_numpy(draws.uniform("low pass") < 0.5).to(device)
    # One position between lowest and Nyquist for all axes of an entry.
    place = torch.from_numpy(draws.uniform("low pass place")).to(values)
    for dim, axis in enumerate(grid.axes, start=2):
        nyquist = 0.5 / axis.step
        require(lowest <= nyquist, "low_pass", f"be at most the Nyquist frequency {nyquist:g}", lowest)
        # A transform takes its axis for periodic: one that is not goes there and back again, or its ends would ring.
        around = values if axis.periodic else torch.cat([values, values.flip(dim)], dim)
        length = around.shape[dim]
        cut = lowest * torch.exp(place * math.log(nyquist / lowest))
        frequency = torch.fft.rfftfreq(length, axis.step, device=device)
        fall = ((1 + _ROLL_OFF - frequency / cut[:, None]) / _ROLL_OFF).clamp(0, 1)
        gain = torch.where(chosen[:, None], 0.5 - 0.5 * torch.cos(math.pi * fall), 1.0)
        shape = (entries, *(-1 if other == dim else 1 for other in range(1, values.ndim)))
        filtered = torch.fft.irfft(torch.fft.rfft(around, dim=dim) * gain.reshape(shape), n=length, dim=dim)
        values = filtered.narrow(dim, 0, axis.size)
    return values


def _rolled(values: Tensor, dim: int, moved: Tensor) -> Tensor:
    """Each entry rolled along ``dim`` by a number of nodes of its own."""
    size, entries = values.shape[dim], len(values)
    index = (torch.arange(size, device=values.device) - moved[:, None]) % size
    shape = [entries, *(size if axis == dim else 1 for axis in range(1, values.ndim))]
    return values.gather(dim, index.reshape(shape).expand_as(values))
