"""How samples are taken where a test takes them otherwise than training did: rates, grids, missing samples."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ccnn_irregular._checks import reject, require
from ccnn_irregular.datasets.processing.audio import resample
from ccnn_irregular.datasets.samples import (
    GriddedSamples,
    RaggedSeries,
    RaggedVolumes,
    average_cells,
    drop_blocks,
    drop_samples,
    resize_images,
)
from ccnn_irregular.domains import Grid
from ccnn_irregular.pipelines.train.resampling import Method, sampled_like

__all__ = ["Reading", "Samples", "Sampling", "grid_sizes", "on_one_grid", "resample_series"]

Samples = RaggedSeries | GriddedSamples | RaggedVolumes
Reading = Literal["as_is", "sequence", "permuted"]
_OFF_GRID = 1e-3  # steps by which a series may begin off the others' nodes


@dataclass(frozen=True)
class Sampling:
    """How the test part is sampled, where it differs from the training part.

    Attributes:
        rate: samples per coordinate unit (per second for recordings); filtered, see ``audio.resample``.
        image_size: pixels along y and x over the same extent; filtered, see ``samples.resize_images``.
        volume_size: voxels along each axis over the same extent, means over the old ones.
        drop: share of the samples of each series dropped at random.
        gap: share of the samples of each series that is missing in a row, at a random place.
        resample: bring what was sampled otherwise back to the training part's sampling, by this method.
    """

    rate: float | None = None
    image_size: tuple[int, ...] | None = None
    volume_size: tuple[int, ...] | None = None
    drop: float = 0.0
    gap: float = 0.0
    resample: Method | None = None

    def methods(self) -> tuple[Method, ...]:
        """What a user would try to bring such samples back to the training part's sampling."""
        return ("linear", "polyphase") if self.rate is not None else ("linear", "cubic")

    def __str__(self) -> str:
        parts = [f"rate {self.rate:g}"] if self.rate is not None else []
        for sizes, cells in ((self.image_size, "pixels"), (self.volume_size, "voxels")):
            parts += [f"{' x '.join(map(str, sizes))} {cells}"] if sizes is not None else []
        parts += [f"{self.drop:.0%} dropped"] if self.drop else []
        parts += [f"{self.gap:.0%} missing in a row"] if self.gap else []
        parts += [f"resampled ({self.resample})"] if self.resample else []
        return ", ".join(parts) or "as trained"

    def otherwise(self, samples: Samples, reading: Reading) -> Samples:
        """``samples`` at another rate or on other grids, as files hold them.

        Raises:
            ValueError: samples that cannot be sampled so, or images that are not read as they are.
        """
        if self.rate is not None:
            samples = resample_series(samples, self.rate)
        if self.image_size is not None:
            gridded = isinstance(samples, GriddedSamples) and samples.grid.d == 2 and reading == "as_is"
            require(gridded, "test.image_size", "be asked for images only", f"{samples!r} read {reading}")
            assert isinstance(samples, GriddedSamples)
            samples = resize_images(samples, self.image_size)
        if self.volume_size is not None:
            gridded = isinstance(samples, GriddedSamples) and samples.grid.d == 3
            require(gridded, "test.volume_size", "be asked for volumes only", f"{samples!r}")
            assert isinstance(samples, GriddedSamples)
            samples = average_cells(samples, self.volume_size)
        return samples

    def thinned(self, samples: Samples, seed: int) -> Samples:
        """``samples`` without those that are to be missing, drawn by ``seed``.

        Raises:
            ValueError: samples that are no series read as points.
        """
        for option, share, drop in (("drop", self.drop, drop_samples), ("gap", self.gap, drop_blocks)):
            if not share:
                continue
            if not isinstance(samples, RaggedSeries):
                rule = "be asked for series read as points only (data.window null)"
                reject(f"test.{option}", rule, f"{samples!r}")
            samples = drop(samples, share, seed=seed)
        return samples

    def brought_back(self, samples: Samples, trained: Samples) -> Samples:
        """``samples`` where ``trained`` has them, if so wanted and they were sampled otherwise."""
        if self.resample is None or samples is trained:
            return samples
        return sampled_like(samples, trained, self.resample)


def resample_series(samples: Samples, rate: float) -> Samples:
    """Series at another rate (samples per coordinate unit), see ``audio.resample``; each keeps its start.

    Raises:
        ValueError: images, series that repeat or are not uniformly sampled, or too odd a ratio of rates.
    """
    require(rate > 0, "test.rate", "be positive", rate)
    require(not isinstance(samples, RaggedVolumes), "test.rate", "be asked for series only", f"{samples!r}")
    assert not isinstance(samples, RaggedVolumes)
    if isinstance(samples, GriddedSamples):
        require(samples.grid.d == 1, "test.rate", "be asked for series only", f"{samples!r}")
        require(not samples.grid.periodic[0], "test.rate", "be asked for series that do not repeat", f"{samples!r}")
        values = resample(samples.values.numpy(), 1 / samples.grid.steps[0], rate)
        grid = Grid((values.shape[-1],), (1 / rate,), samples.grid.starts)
        lengths = samples.lengths
        if lengths is not None:
            lengths = (lengths * samples.grid.steps[0] * rate).ceil().long().clamp(max=grid.count)
        moved = torch.from_numpy(np.ascontiguousarray(values))
        return replace(samples, values=moved, grid=grid, lengths=lengths)
    starts = _starts(samples)
    step = _uniform_step(samples)
    bounds = samples.splits.tolist()
    pieces = [
        resample(samples.values[first:last].numpy().T, 1 / step, rate).T for first, last in itertools.pairwise(bounds)
    ]
    splits = torch.tensor([0, *(len(piece) for piece in pieces)]).cumsum(0)
    joined = torch.from_numpy(np.concatenate(pieces))
    return RaggedSeries.uniform(joined, 1 / rate, splits, samples.labels, samples.classes, samples.unit, starts)


def on_one_grid(series: RaggedSeries, window: float) -> GriddedSamples:
    """Uniformly sampled series on one grid of ``window`` coordinate units that begins with the first of them.

    What lies beyond the window is cut off; before and behind a series stand zeros.

    Raises:
        ValueError: series that are not uniformly sampled, that begin at a fraction of a step from one another or behind
            the window, or a window of less than two samples.
    """
    missing = int(series.values.isnan().sum())
    rule = "be null where values are missing: series are then read as points, each channel at the times it was measured"
    require(missing == 0, "data.window", rule, f"{window:g} with {missing:,} missing values")
    starts = _starts(series)
    step = _uniform_step(series)
    size = round(window / step)
    require(size >= 2, "window", f"hold at least two samples {step:g} apart", window)
    start = float(starts.min())
    ahead = (starts - start) / step
    uneven = (ahead - ahead.round()).abs()
    require(float(uneven.max()) < _OFF_GRID, "series", f"begin whole steps of {step:g} apart", f"starts {starts[:5]}")
    late = int((ahead.round() >= size).sum())
    require(late == 0, "window", "hold a sample of each series", f"{window} with {late} that begin later")
    index = torch.arange(len(series.values)) - torch.repeat_interleave(series.splits[:-1], series.splits.diff())
    sample = torch.repeat_interleave(torch.arange(len(series)), series.splits.diff())
    position = index + ahead.round().long()[sample]
    kept = position < size
    values = torch.zeros(len(series), size, series.values.shape[1])
    values[sample[kept], position[kept]] = series.values[kept]
    values = values.transpose(1, 2).contiguous()
    # A late start is silence of its own; what comes after the end is none.
    lengths = (ahead.round().long() + series.splits.diff()).clamp(max=size)
    grid = Grid((size,), (step,), (start,))
    return GriddedSamples(values, grid, series.labels, series.classes, series.unit, lengths)


def _uniform_step(series: RaggedSeries) -> float:
    """Distance of neighbouring samples where it is the same everywhere: the mean over the longest series."""
    inside = torch.ones(len(series.values), dtype=torch.bool)
    inside[series.splits[:-1]] = False
    steps = series.coordinates[:, 0].diff()[inside[1:]]
    even = len(steps) > 0 and bool((steps - steps[0]).abs().max() < 1e-6 * steps[0])
    require(even, "series", "be sampled uniformly to be resampled or put on a grid", f"{series!r}")
    lengths = series.splits.diff()
    longest = int(lengths.argmax())
    first, last = int(series.splits[longest]), int(series.splits[longest + 1]) - 1
    return float(series.coordinates[last, 0] - series.coordinates[first, 0]) / (last - first)


def _starts(series: RaggedSeries) -> Tensor:
    """Coordinate of the first sample of each series, ``(B,)`` float64."""
    empty = int((series.splits.diff() == 0).sum())
    require(empty == 0, "series", "hold at least one sample each to be resampled or put on a grid", f"{empty} empty")
    return series.coordinates[series.splits[:-1], 0]


def grid_sizes(words: Sequence[int | str], option: str, example: str) -> list[tuple[int, ...]]:
    """``["14x14", "28x56"]`` or ``[14, 14, 28, 56]`` as sizes along the axes of a grid.

    Args:
        words: sizes of one or more grids.
        option: its name, for the error.
        example: two grids, for the error; as many axes as it has are expected.

    Raises:
        ValueError: words that are no such sizes.
    """
    axes = len(example.split()[0].split("x"))
    numbers = [part for word in words for part in str(word).lower().split("x")]
    sound = len(numbers) % axes == 0 and all(number.isdecimal() and int(number) > 0 for number in numbers)
    require(sound, option, f"be sizes along {axes} axes such as {example}", " ".join(map(str, words)))
    return [tuple(map(int, numbers[first : first + axes])) for first in range(0, len(numbers), axes)]
