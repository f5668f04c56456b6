"""Other samplings of labelled samples: without some of them, in another order, on other grids.

Random choices come from the raw stream of PCG64, which NumPy promises never to change (NEP 19): a seed gives the same
permutation and the same dropped samples on every machine and under every version.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ccnn_irregular._checks import require
from ccnn_irregular.datasets.processing.low_pass import extended, low_pass_weights, reach
from ccnn_irregular.datasets.samples.gridded import GriddedSamples
from ccnn_irregular.datasets.samples.series import RaggedSeries
from ccnn_irregular.domains import Grid

__all__ = [
    "as_sequences",
    "average_cells",
    "drop_blocks",
    "drop_samples",
    "permutation",
    "permute_sequences",
    "resize_images",
]


def drop_samples(series: RaggedSeries, fraction: float, *, seed: int = 0) -> RaggedSeries:
    """Each series without ``floor(fraction * length)`` of its samples, chosen at random; coordinates stay true.

    Which samples of a series go depends on the seed, its position in ``series`` and its length alone: drop first, then
    split into parts, so that training and test series are thinned alike.

    Args:
        series: the whole data set.
        fraction: in [0, 1).
        seed: of the choice alone, not negative.

    Raises:
        ValueError: a fraction outside [0, 1).
    """
    require(0 <= fraction < 1, "fraction", "lie in [0, 1)", fraction)
    splits = series.splits.cpu().numpy()
    lengths = np.diff(splits)
    kept_lengths = lengths - np.floor(fraction * lengths).astype(np.int64)
    sample = np.repeat(np.arange(len(lengths)), lengths)
    # Rows in random order within each series; the first so many of each stay.
    keys = [_random_keys(length, seed, number) for number, length in enumerate(lengths.tolist())]
    order = np.lexsort((np.concatenate(keys), sample))
    rank = np.arange(len(sample)) - splits[:-1][sample]
    kept = torch.from_numpy(np.sort(order[rank < kept_lengths[sample]])).to(series.values.device)
    offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(kept_lengths)])).to(series.splits.device)
    return dataclasses.replace(series, values=series.values[kept], coordinates=series.coordinates[kept], splits=offsets)


def drop_blocks(series: RaggedSeries, fraction: float, *, seed: int = 0) -> RaggedSeries:
    """Each series without ``floor(fraction * length)`` samples in a row, at a random place; its ends stay.

    The place depends on the seed and the position of the series in ``series``: drop first, then split into parts.

    Args:
        series: the whole data set.
        fraction: in [0, 1).
        seed: of the places alone, not negative.

    Raises:
        ValueError: a fraction outside [0, 1).
    """
    require(0 <= fraction < 1, "fraction", "lie in [0, 1)", fraction)
    splits = series.splits.cpu().numpy()
    lengths = np.diff(splits)
    missing = np.minimum(np.floor(fraction * lengths).astype(np.int64), np.maximum(lengths - 2, 0))
    choices = np.maximum(lengths - 1 - missing, 1).astype(np.uint64)
    begin = 1 + (_random_keys(len(lengths), seed) % choices).astype(np.int64)
    rank = np.arange(splits[-1]) - np.repeat(splits[:-1], lengths)
    begin, end = (np.repeat(bound, lengths) for bound in (begin, begin + missing))
    kept = torch.from_numpy(np.flatnonzero((rank < begin) | (rank >= end))).to(series.values.device)
    offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(lengths - missing)])).to(series.splits.device)
    return dataclasses.replace(series, values=series.values[kept], coordinates=series.coordinates[kept], splits=offsets)


def as_sequences(images: GriddedSamples) -> GriddedSamples:
    """Images ``(B, C, *sizes)`` read in row-major order as ``(B, C, prod(sizes))``, one unit of length per pixel."""
    count = images.grid.count
    values = images.values.reshape(len(images), -1, count)
    return dataclasses.replace(images, values=values, grid=Grid((count,), (1.0,)), unit="pixel in reading order")


def permutation(length: int, seed: int = 0) -> Tensor:
    """A fixed permutation, int64 ``(length,)``: what sorts the first ``length`` raw 64-bit numbers of PCG64(seed)."""
    return torch.from_numpy(np.argsort(_random_keys(length, seed), kind="stable"))


def permute_sequences(sequences: GriddedSamples, seed: int = 0) -> GriddedSamples:
    """Sequences ``(B, C, L)`` with their samples in the order ``permutation(L, seed)``, the same for all of them.

    The published results on permuted MNIST each draw a permutation of their own, so none is the official one.

    Raises:
        ValueError: the samples are no sequences.
    """
    sizes = sequences.grid.sizes
    require(len(sizes) == 1, "sequences", "lie on one axis (see as_sequences)", sizes)
    return dataclasses.replace(sequences, values=sequences.values[:, :, permutation(sizes[0], seed)])


def resize_images(images: GriddedSamples, sizes: Sequence[int]) -> GriddedSamples:
    """2-D images sampled on another grid over the same extent, by the low-pass filter of ``audio.resample``.

    What lies below 90 % of the lower Nyquist frequency stays, what lies above that frequency is weakened by at least
    75 dB where the filter (51 of the larger pixels to either side) lies on the image; elsewhere the image is taken to
    go on as its mirror image about its outer pixels, so that constants and ramps keep their values up to the border.
    Beside sharp edges the result overshoots, as everything does that holds no higher frequencies.

    Args:
        images: values ``(B, C, H, W)``; a node stands for the cell around it.
        sizes: pixels along each axis of the result; steps follow, so coordinates keep their unit.

    Raises:
        ValueError: the images have no two axes, or repeat along one.
    """
    old = images.grid
    require(old.d == 2 and len(sizes) == 2, "images and sizes", "have two axes", (old.sizes, tuple(sizes)))
    require(not any(old.periodic), "images", "have axes that do not repeat", f"periodic {old.periodic}")
    return _resized(images, sizes, _low_pass)


def average_cells(samples: GriddedSamples, sizes: Sequence[int]) -> GriddedSamples:
    """Samples on another grid over the same extent, each new cell the mean of the old ones by the volume they share.

    What a scanner of other voxels would give where the old values are means over their cells; the integral over the
    extent stays the same, and so does the range of the values. Where cells get smaller it only repeats what is there.
    A mean is no sharp filter: at the Nyquist frequency of the new cells it passes 0.64 (-4 dB), at one and a half times
    that 0.3 (-10 dB), which come back as aliases.

    Args:
        samples: values ``(B, C, *sizes)`` of any number of axes; a node stands for the cell around it.
        sizes: cells along each axis of the result; steps follow, so coordinates keep their unit.

    Raises:
        ValueError: another number of sizes than axes.
    """
    return _resized(samples, sizes, _shared_lengths)


def _resized(samples: GriddedSamples, sizes: Sequence[int], shares: Callable[[int, int], np.ndarray]) -> GriddedSamples:
    """Each axis through the matrix ``shares(old size, new size)``, whose rows sum to 1."""
    old = samples.grid
    sound = len(sizes) == old.d and min(sizes, default=0) >= 1
    require(sound, "sizes", f"be {old.d} positive integers", tuple(sizes))
    values = samples.values
    for axis, (before, after) in enumerate(zip(old.sizes, sizes, strict=True)):
        if before != after:
            matrix = torch.from_numpy(shares(before, after)).to(values)
            values = (values.movedim(2 + axis, -1) @ matrix.T).movedim(-1, 2 + axis)
    steps = [axis.step * axis.size / size for axis, size in zip(old.axes, sizes, strict=True)]
    starts = [axis.start + (step - axis.step) / 2 for axis, step in zip(old.axes, steps, strict=True)]
    grid = Grid(tuple(sizes), steps, starts, old.periodic)
    return dataclasses.replace(samples, values=values.contiguous(), grid=grid)


def _low_pass(before: int, after: int) -> np.ndarray:
    """Weights of the old cells in the new ones, ``(after, before)``; what lies beyond the ends follows from them."""
    ratio = after / before
    centres = (np.arange(after)[:, None] + 0.5) / ratio - 0.5  # in old cells, whose centres are 0, 1, ...
    margin = reach(ratio) + 1
    offsets = np.arange(-margin, before + margin) - centres
    return low_pass_weights(offsets, ratio) @ extended(np.eye(before), margin).T


def _shared_lengths(before: int, after: int) -> np.ndarray:
    """Share that each old cell has in each new one, ``(after, before)``."""
    edges = np.arange(after + 1)[:, None] * before / after
    cells = np.arange(before)
    lengths = (np.minimum(edges[1:], cells + 1) - np.maximum(edges[:-1], cells)).clip(0)
    return lengths / lengths.sum(1, keepdims=True)


def _random_keys(count: int, *seeds: int) -> np.ndarray:
    require(min(seeds) >= 0, "seed", "not be negative", min(seeds))
    return np.random.PCG64(seeds if len(seeds) > 1 else seeds[0]).random_raw(count)
