"""Labelled samples as the data sets return them: series of unequal length, samples on one grid, volumes on their own.

What the literature does to whole data sets before training is here too, as functions of such a container and a seed:
dropping samples at random, stratified parts, images read pixel by pixel, in order or permuted.

Random choices come from the raw stream of PCG64, which NumPy promises never to change (NEP 19): a seed gives the same
permutation and the same dropped samples on every machine and under every version.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ccnn_irregular._checks import reject, require, require_splits
from ccnn_irregular._optional import import_optional
from ccnn_irregular.datasets.processing.interpolation import node_shares
from ccnn_irregular.datasets.processing.low_pass import extended, low_pass_weights, reach
from ccnn_irregular.domains import Grid, Points
from ccnn_irregular.quadrature import trapezoid

__all__ = [
    "GriddedSamples",
    "Parts",
    "RaggedSeries",
    "RaggedVolumes",
    "as_sequences",
    "average_cells",
    "drop_blocks",
    "drop_samples",
    "permutation",
    "permute_sequences",
    "resize_images",
    "split_stratified",
]


@dataclass(frozen=True, repr=False)
class RaggedSeries:
    """B labelled series of their true lengths, laid end to end.

    Attributes:
        values: ``(N, C)`` float32; nan where the source says that a value is missing.
        coordinates: ``(N, 1)`` float64, strictly increasing within a series.
        splits: ``(B + 1,)`` int64; series b owns the rows ``splits[b]:splits[b + 1]``.
        labels: ``(B,)`` int64, index into ``classes``.
        classes: what the labels mean.
        unit: of the coordinates.

    Raises:
        ValueError: shapes or dtypes that disagree.
    """

    values: Tensor
    coordinates: Tensor
    splits: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    unit: str

    def __post_init__(self) -> None:
        require(self.values.ndim == 2, "values", "have shape (N, C)", tuple(self.values.shape))
        require(self.values.dtype == torch.float32, "values", "be float32", self.values.dtype)
        count = len(self.values)
        shape = tuple(self.coordinates.shape)
        require(shape == (count, 1), "coordinates", f"have shape ({count}, 1)", shape)
        require(self.coordinates.dtype == torch.float64, "coordinates", "be float64", self.coordinates.dtype)
        require_splits(self.splits, count)
        _require_labels(self.labels, len(self.splits) - 1)

    def __repr__(self) -> str:
        size = f"series={len(self)}, rows={len(self.values)}, channels={self.values.shape[1]}"
        return f"RaggedSeries({size}, classes={len(self.classes)}, unit={self.unit!r})"

    @staticmethod
    def uniform(
        values: Tensor,
        step: float,
        splits: Tensor,
        labels: Tensor,
        classes: tuple[str, ...],
        unit: str,
        starts: Tensor | None = None,
    ) -> RaggedSeries:
        """Series sampled every ``step``, each from its entry of ``starts`` ``(B,)`` float64 on; None = from 0 on."""
        index = torch.arange(len(values), dtype=torch.int64, device=values.device)
        index -= torch.repeat_interleave(splits[:-1], splits.diff(), output_size=len(values))
        coordinates = index.to(torch.float64) * step
        if starts is not None:
            coordinates += torch.repeat_interleave(starts, splits.diff(), output_size=len(values))
        return RaggedSeries(values, coordinates[:, None], splits, labels, classes, unit)

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, index: Tensor) -> RaggedSeries:
        """The series ``index`` (int64, any order, repeats allowed; or bool ``(B,)``), in that order: one gather."""
        index = _as_positions(index, len(self))
        lengths = self.splits.diff()[index]
        splits = torch.zeros(len(index) + 1, dtype=torch.int64, device=self.splits.device)
        torch.cumsum(lengths, 0, out=splits[1:])
        rows = torch.repeat_interleave(self.splits[index] - splits[:-1], lengths)
        rows += torch.arange(len(rows), dtype=torch.int64, device=rows.device)
        return dataclasses.replace(
            self,
            values=self.values[rows],
            coordinates=self.coordinates[rows],
            splits=splits,
            labels=self.labels[index],
        )

    def points(self, *, cap: float | None = None) -> Points:
        """The coordinates as a domain weighted by the trapezoid rule, see :func:`~ccnn_irregular.quadrature.trapezoid`.

        Args:
            cap: largest width one sample may stand for, in coordinate units.
        """
        weights = trapezoid(self.coordinates[:, 0], splits=self.splits, cap=cap)
        return Points(self.coordinates, weights, self.splits)

    def to(self, device: torch.device | str) -> RaggedSeries:
        """The same series on ``device``."""
        moved = {name: getattr(self, name).to(device) for name in ("values", "coordinates", "splits", "labels")}
        return dataclasses.replace(self, **moved)


@dataclass(frozen=True, repr=False)
class GriddedSamples:
    """B labelled samples on one grid.

    Attributes:
        values: ``(B, C, *grid.sizes)`` float32.
        grid: the nodes all samples share.
        labels: ``(B,)`` int64, index into ``classes``.
        classes: what the labels mean.
        unit: of the grid's coordinates.
        lengths: ``(B,)`` int64, on a grid of one axis: how many of a sample's nodes were sampled; what follows pads it
            with zeros. None = all were.

    Raises:
        ValueError: shapes or dtypes that disagree.
    """

    values: Tensor
    grid: Grid
    labels: Tensor
    classes: tuple[str, ...]
    unit: str
    lengths: Tensor | None = None

    def __post_init__(self) -> None:
        shape = tuple(self.values.shape)
        require(shape[2:] == self.grid.sizes, "values", f"have shape (B, C, *{self.grid.sizes})", shape)
        require(self.values.dtype == torch.float32, "values", "be float32", self.values.dtype)
        _require_labels(self.labels, len(self.values))
        if self.lengths is not None:
            sound = self.grid.d == 1 and self.lengths.dtype == torch.int64 and self.lengths.shape == shape[:1]
            fits = sound and bool(((self.lengths >= 0) & (self.lengths <= self.grid.count)).all())
            rule = f"be int64 of shape ({len(self)},), 0 to the nodes of one axis, {self.grid.sizes}"
            require(fits, "lengths", rule, f"{self.lengths.dtype} {tuple(self.lengths.shape)}")

    def __repr__(self) -> str:
        size = f"samples={len(self)}, channels={self.values.shape[1]}, grid={self.grid!r}"
        return f"GriddedSamples({size}, classes={len(self.classes)}, unit={self.unit!r})"

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, index: Tensor) -> GriddedSamples:
        """The samples ``index`` (int64, any order, repeats allowed; or bool ``(B,)``), in that order."""
        index = _as_positions(index, len(self))
        lengths = None if self.lengths is None else self.lengths[index]
        return dataclasses.replace(self, values=self.values[index], labels=self.labels[index], lengths=lengths)

    def to(self, device: torch.device | str) -> GriddedSamples:
        """The same samples on ``device``."""
        lengths = None if self.lengths is None else self.lengths.to(device)
        values, labels = self.values.to(device), self.labels.to(device)
        return dataclasses.replace(self, values=values, labels=labels, lengths=lengths)

    def sampled(self) -> Tensor | None:
        """Where values were sampled and do not pad, bool ``(B, 1, size)``; None = everywhere."""
        if self.lengths is None:
            return None
        return (torch.arange(self.grid.count, device=self.lengths.device) < self.lengths[:, None])[:, None]


@dataclass(frozen=True, repr=False)
class RaggedVolumes:
    """B labelled samples, each on a grid of its own size and steps, laid end to end.

    Attributes:
        values: ``(N, C)`` float32, the nodes of each sample in row-major order.
        grids: of the samples; sample b owns ``grids[b].count`` rows.
        labels: ``(B,)`` int64, index into ``classes``.
        classes: what the labels mean.
        unit: of the grids' coordinates.

    Raises:
        ValueError: shapes or dtypes that disagree.
    """

    values: Tensor
    grids: tuple[Grid, ...]
    labels: Tensor
    classes: tuple[str, ...]
    unit: str

    def __post_init__(self) -> None:
        shape, count = tuple(self.values.shape), sum(grid.count for grid in self.grids)
        require(len(shape) == 2 and shape[0] == count, "values", f"have shape ({count}, C)", shape)
        require(self.values.dtype == torch.float32, "values", "be float32", self.values.dtype)
        axes = sorted({grid.d for grid in self.grids})
        require(len(axes) <= 1, "grids", "have the same number of axes", axes)
        _require_labels(self.labels, len(self.grids))

    def __repr__(self) -> str:
        size = f"samples={len(self)}, channels={self.values.shape[1]}, grids={len(set(self.grids))}"
        return f"RaggedVolumes({size}, classes={len(self.classes)}, unit={self.unit!r})"

    @staticmethod
    def of(
        volumes: Sequence[Tensor], grids: Sequence[Grid], labels: Tensor, classes: tuple[str, ...], unit: str
    ) -> RaggedVolumes:
        """From values ``(C, *sizes)`` of each sample."""
        return RaggedVolumes(torch.cat([one.flatten(1).T for one in volumes]), tuple(grids), labels, classes, unit)

    def __len__(self) -> int:
        return len(self.labels)

    def volume(self, index: int) -> Tensor:
        """Values ``(C, *sizes)`` of one sample, a view."""
        first = sum(grid.count for grid in self.grids[:index])
        grid = self.grids[index]
        return self.values[first : first + grid.count].T.unflatten(1, grid.sizes)

    def subset(self, index: Tensor) -> RaggedVolumes:
        """The samples ``index`` (int64, any order, repeats allowed; or bool ``(B,)``), in that order."""
        index = _as_positions(index, len(self))
        counts = torch.tensor([grid.count for grid in self.grids], dtype=torch.int64)
        firsts = counts.cumsum(0) - counts
        pieces = [self.values[first : first + count] for first, count in zip(firsts[index], counts[index], strict=True)]
        values = torch.cat(pieces) if pieces else self.values[:0]
        grids = tuple(self.grids[place] for place in index.tolist())
        return dataclasses.replace(self, values=values, grids=grids, labels=self.labels[index])

    def stacked(self) -> GriddedSamples:
        """All samples as one array.

        Raises:
            ValueError: they lie on different grids, or there are none.
        """
        require(len(set(self.grids)) == 1, "samples", "lie on one grid to be stacked", f"{len(set(self.grids))} grids")
        grid = self.grids[0]
        values = self.values.unflatten(0, (len(self), *grid.sizes)).movedim(-1, 1).contiguous()
        return GriddedSamples(values, grid, self.labels, self.classes, self.unit)


# ---------------------------------------------------------------------------------------------------------- parts


@dataclass(frozen=True)
class Parts:
    """Indices (int64, rising) of the samples of each part; the parts are disjoint and together hold every sample."""

    train: Tensor
    validation: Tensor
    test: Tensor


def split_stratified(labels: Tensor, *, validation: float = 0.15, test: float = 0.15, seed: int = 0) -> Parts:
    """Random parts in which every class has the same share, drawn by scikit-learn.

    Args:
        labels: ``(B,)`` int64.
        validation: share of all samples, in (0, 1).
        test: share of all samples, in (0, 1).
        seed: of the split alone.

    Raises:
        ValueError: shares out of range, or a class too rare to be split.
    """
    require(0 < validation < 1, "validation", "lie in (0, 1)", validation)
    require(0 < test < 1, "test", "lie in (0, 1)", test)
    require(validation + test < 1, "validation + test", "be below 1", validation + test)
    selection = import_optional("sklearn.model_selection", "splitting into stratified parts", "train")
    classes, everything = labels.cpu().numpy(), np.arange(len(labels))
    try:
        train, rest = selection.train_test_split(
            everything, test_size=validation + test, stratify=classes, random_state=seed
        )
        watched, held = selection.train_test_split(
            rest, test_size=test / (validation + test), stratify=classes[rest], random_state=seed
        )
    except ValueError as error:
        reject("labels", "have enough samples of every class for three parts", f"{len(labels)} samples ({error})")
    return Parts(*(torch.from_numpy(np.sort(part)) for part in (train, watched, held)))


# --------------------------------------------------------------------------------------------------------- series


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


# --------------------------------------------------------------------------------------------------------- images


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


def _linear_shares(before: int, after: int) -> np.ndarray:
    """Linear interpolation at the new nodes; a triangle as wide as the new cells where these are larger."""
    places = (np.arange(after) + 0.5) * before / after - 0.5
    return node_shares(places, before, max(before / after, 1.0), "linear")


def _shared_lengths(before: int, after: int) -> np.ndarray:
    """Share that each old cell has in each new one, ``(after, before)``."""
    edges = np.arange(after + 1)[:, None] * before / after
    cells = np.arange(before)
    lengths = (np.minimum(edges[1:], cells + 1) - np.maximum(edges[:-1], cells)).clip(0)
    return lengths / lengths.sum(1, keepdims=True)


# --------------------------------------------------------------------------------------------------------- common


def _random_keys(count: int, *seeds: int) -> np.ndarray:
    require(min(seeds) >= 0, "seed", "not be negative", min(seeds))
    return np.random.PCG64(seeds if len(seeds) > 1 else seeds[0]).random_raw(count)


def _require_labels(labels: Tensor, count: int) -> None:
    require(labels.dtype == torch.int64, "labels", "be int64", labels.dtype)
    require(tuple(labels.shape) == (count,), "labels", f"have shape ({count},)", tuple(labels.shape))


def _as_positions(index: Tensor, count: int) -> Tensor:
    """``index`` as int64 positions; torch itself refuses positions that do not exist."""
    if index.dtype == torch.bool:
        require(tuple(index.shape) == (count,), "index", f"be a mask of shape ({count},)", tuple(index.shape))
        return torch.nonzero(index).flatten()
    require(index.dtype == torch.int64 and index.ndim == 1, "index", "be int64 of one axis, or bool", index.dtype)
    outside = index[(index < 0) | (index >= count)]
    require(len(outside) == 0, "index", f"lie in 0..{count - 1}", outside[:5].tolist())
    return index
