"""Lengths of a network that suit some samples: the grid of its blocks, extent and width of its kernels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ccnn_irregular._checks import require
from ccnn_irregular.datasets.samples import GriddedSamples, RaggedVolumes
from ccnn_irregular.domains import Grid
from ccnn_irregular.pipelines.tasks.classification.sampling import Samples

__all__ = ["suited_lengths"]

# Nodes of the blocks' grid, at most, and their distance in steps of the finest axis of the data.
_NODES, _STEPS = {1: 256, 2: 1024, 3: 4096}, {1: 1.0, 2: 1.0, 3: 3.0}
# Width of the masks in steps of that grid: what reads scans is narrower, what must see far in few blocks is wider.
_WIDTH = {1: 2.0, 2: 2.5, 3: 0.6}
_OMEGA = {1: 1.0, 2: 0.5, 3: 0.5}
_DIGITS = 4


@dataclass(frozen=True)
class _Extent:
    """Where samples lie: typical distance of neighbours and ends along each axis, coordinate units."""

    steps: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @staticmethod
    def of(samples: Samples) -> _Extent:
        if isinstance(samples, GriddedSamples):
            return _Extent.of_grids([samples.grid])
        if isinstance(samples, RaggedVolumes):
            return _Extent.of_grids(samples.grids)
        times, inside = samples.times, torch.ones(max(len(samples.times) - 1, 0), dtype=torch.bool)
        ends = samples.splits[1:-1]
        inside[ends[(ends > 0) & (ends < len(times))] - 1] = False
        gaps = times.diff()[inside]
        rule = "hold series of two times or more, or latent and kernel be given"
        require(len(gaps) > 0, "the training part", rule, "none")
        return _Extent((float(gaps.median()),), (float(times.min()),), (float(times.max()),))

    @staticmethod
    def of_grids(grids: Sequence[Grid]) -> _Extent:
        """Median steps, and the box around all nodes."""
        steps, starts = (np.array([getattr(grid, name) for grid in grids]) for name in ("steps", "starts"))
        ends = starts + steps * (np.array([grid.sizes for grid in grids]) - 1)
        return _Extent(*(tuple(found.tolist()) for found in (np.median(steps, 0), starts.min(0), ends.max(0))))

    @property
    def spans(self) -> tuple[float, ...]:
        """At least one step: a sample of one node stands for the cell around it."""
        return tuple(max(b - a, step) for a, b, step in zip(self.low, self.high, self.steps, strict=True))


def suited_lengths(samples: Samples) -> dict[str, Any]:
    """Arguments ``kernel`` and ``latent`` of ``ContinuousClassifier`` for samples like these, as plain values.

    The grid covers all samples. Its nodes are as far apart as neighbours in the data, three voxels in volumes, and
    farther where these would be too many; ``latent`` is None where the samples' own grid is not finer.
    """
    found = _Extent.of(samples)
    d = len(found.steps)
    steps = [max(step, _STEPS[d] * min(found.steps)) for step in found.steps]
    while (count := math.prod(_sizes(found, steps))) > _NODES[d]:
        steps = [step * max((count / _NODES[d]) ** (1 / d), 1.02) for step in steps]
    sizes, steps = _sizes(found, steps), [_rounded(step) for step in steps]
    middle = [(a + b) / 2 for a, b in zip(found.low, found.high, strict=True)]
    starts = [_rounded(m - step * (size - 1) / 2) for m, step, size in zip(middle, steps, sizes, strict=True)]
    kernel = {
        "extent": [_rounded(span / 2) for span in found.spans],
        "width": [_rounded(_WIDTH[d] * step) for step in steps],
        "omega_0": _OMEGA[d],
    }
    present = isinstance(samples, GriddedSamples) and sizes == list(samples.grid.sizes)
    return {"kernel": kernel, "latent": None if present else {"sizes": sizes, "steps": steps, "starts": starts}}


def _sizes(found: _Extent, steps: Sequence[float]) -> list[int]:
    return [math.ceil((b - a) / step - 1e-6) + 1 for a, b, step in zip(found.low, found.high, steps, strict=True)]


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
