"""Values of unlike size: what keeps a sample, a place or a past from the rounding of what is much larger elsewhere.

A transform's error at a query is a share of everything that went through it, wherever it lies. The exact sum
knows what no query can see: other samples, sources beyond the kernel's reach, the future of a causal
kernel. So what is much larger than the rest takes a way of its own:

    samples    are brought to one size, by powers of two, and back afterwards (``sample_scales``)
    outliers   a few values that dwarf the rest of their sample are summed pair by pair (``outliers``)
    growth     under a causal kernel, stretches of time between which the values grow are transformed one by
               one, and what a stretch gives to the time before it, which is nothing, is left out (``stretches``)
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ccnn_irregular.domains import Points

__all__ = ["Pasts", "Stretches", "energy_and_peaks", "energy_of_taps", "outliers", "sample_energy", "sample_scales"]

# Numbers that are squared and added up while a cache holds them.
_NUMBERS_AT_ONCE = 1 << 18
# Sums of squares below this may have lost terms to underflow of float32.
_UNDERFLOWN = 1e-30
# Squares of taps whose sum is less, or more than one over this, are taken in float64.
_LEAST_ENERGY = 1e-20
# Outliers are looked for where the kurtosis exceeds this (Gaussian noise has 3), or this share of the most it can be.
_PEAKED, _PEAKED_SHARE = 16.0, 0.3
# It is an outlier beyond so many times the typical one of its sample and channel (Gaussian noise ends near 6), ...
_OUTLYING = 32.0
# ... where they are at most this share of the sample: more of them are what the values are like.
_FEW, _FEW_PER_SAMPLE = 0.06, 2
# Rows that may be summed pair by pair at any number of queries, and pairs of them and queries otherwise.
_MOST_ROWS, _MOST_PAIRS = 64, 5e6
_ROUNDS = 4
# Samples in a row that have one size between them, and growth from which on a stretch is transformed by itself.
_SAMPLES_PER_BLOCK, _GROWTH, _MOST_STRETCHES = 24, 3.0, 32
# Pasts of a sample that are held to the promise, where they are no shorter than a block.
_PASTS = 32


def sample_energy(rows: Tensor, points: Points) -> Tensor:
    """Sum of squares of the ``(N, C, F)`` rows in each sample and channel, float64 ``(B, C)``."""
    return _sums_of_powers(rows, points, 1)[0]


def energy_and_peaks(rows: Tensor, points: Points) -> tuple[Tensor, bool]:
    """``sample_energy``, and whether a few values may hold much of it: a large kurtosis of a sample and channel."""
    squares, fourths = _sums_of_powers(rows, points, 2)
    terms = points.splits.diff()[:, None] * rows.shape[2]
    peaked = torch.clamp(_PEAKED_SHARE * terms, max=_PEAKED)
    return squares, bool((fourths * terms > peaked * squares.square()).any())


def _sums_of_powers(rows: Tensor, points: Points, count: int) -> list[Tensor]:
    """Sums of squares, of fourth powers, and so on in each sample and channel, float64 ``(B, C)``."""
    for dtype in dict.fromkeys((rows.real.dtype, torch.float64)):
        sums = _powers_added(rows, dtype, points.sample_index(), points.samples, count)
        if bool(((sums[-1] > _UNDERFLOWN) & (sums[-1] < math.inf)).all()):
            break
    return sums


def _powers_added(rows: Tensor, dtype: torch.dtype, group: Tensor, groups: int, count: int) -> list[Tensor]:
    """The squares of ``(N, C, F)`` rows, their fourth powers, and so on, taken in ``dtype`` and added up by group.

    In blocks that a cache holds: what is written once is cheaper made twice.
    """
    rows = rows.detach()
    rows = torch.view_as_real(rows).flatten(2) if rows.is_complex() else rows
    sums = [rows.new_zeros(groups, rows.shape[1], dtype=torch.float64 if groups == 1 else dtype) for _ in range(count)]
    at_once = len(rows) if rows.is_cuda else _NUMBERS_AT_ONCE // math.prod(rows.shape[1:])
    for block, own in zip(rows.split(max(1, at_once)), group.split(max(1, at_once)), strict=True):
        power = block.to(dtype).square()
        for number, total in enumerate(sums):
            if number:
                power.square_()
            flat = power[:, :, 0] if power.shape[2] == 1 else power.sum(2)
            _ = total.add_(flat.sum(0)) if groups == 1 else total.index_add_(0, own, flat)
    return [total.to(torch.float64) for total in sums]


def energy_of_taps(taps: Tensor) -> tuple[Tensor, torch.dtype]:
    """Sum of squares over the first axis, float64, and the dtype in which squares keep their digits."""
    energy = taps.square().sum(0)
    if bool(((energy > _LEAST_ENERGY) & (energy < 1 / _LEAST_ENERGY)).all()):
        return energy.to(torch.float64), taps.dtype
    return taps.to(torch.float64).square().sum(0), torch.float64


def sample_scales(energy: Tensor, volumes: Tensor, *, joint: bool, alike: float = 2.0) -> Tensor | None:
    """Powers of two that bring the samples to one size; 0 for what is zero. None where they are of one size already.

    Args:
        energy: ``(B, C)`` as ``sample_energy`` gives it.
        volumes: ``(B,)``, space over which each sample's energy is spread; any unit.
        joint: whether all channels of a sample have one scale, ``(B, 1)``; else one each, ``(B, C)``.
        alike: how many times smaller than the mean a sample may be and be left as it is.
    """
    if len(energy) < 2:
        return None
    energy = energy.sum(1, keepdim=True) if joint else energy
    density = energy / volumes[:, None]
    # What a sample gets of the others is a share of all of them.
    if bool((energy.sum(0) <= alike**2 * volumes.sum() * density.amin(0)).all()):
        return None
    exponent = (0.5 * torch.log2(density.clamp(min=torch.finfo(torch.float64).tiny))).round()
    return torch.where(density > 0, torch.exp2(exponent), 0.0)


def outliers(rows: Tensor, points: Points, queries: int, *, of_nodes: bool = False) -> Tensor | None:
    """Which of the ``(N, C, F)`` rows' values dwarf the rest of their sample and channel; None where none does.

    The typical size is the mean of fourth roots, to the fourth power, over the values that are not zero: one value of
    1e8 among a hundred of 1 moves it to 16. Warns where there are too many to be summed pair by pair with so many
    ``queries``. ``of_nodes``: each of the F is a node of a grid, whose rows are summed one by one.
    """
    size, sample = rows.detach().abs(), points.sample_index()
    count, typical = _typical(size, points)
    found = torch.zeros_like(size, dtype=torch.bool)
    allowed = torch.clamp(_FEW * count, min=_FEW_PER_SAMPLE)
    for _ in range(_ROUNDS):
        beyond = size > (_OUTLYING * typical)[sample][:, :, None].to(size.dtype)
        few = _by_sample(beyond | found, points) <= allowed
        beyond &= few[sample][:, :, None]
        if not bool(beyond.any()):
            break
        found |= beyond
        size = torch.where(beyond, 0.0, size)
        _, typical = _typical(size, points)
    rows_found = int(found.any(1).sum() if of_nodes else found.flatten(1).any(1).sum())
    if rows_found > _MOST_ROWS and rows_found * queries > _MOST_PAIRS:
        total, exact = (rows[:, 0].numel(), "reference") if of_nodes else (len(rows), "neighbours")
        warnings.warn(
            f"values must not be dwarfed by more than a few others of their sample, got {rows_found} of {total} "
            f"rows that are {_OUTLYING:g} times the typical size: the error of 'spectral' is relative to these "
            f"everywhere, that of engine={exact!r} is not",
            stacklevel=2,
        )
        return None
    return found if rows_found else None


def _typical(size: Tensor, points: Points) -> tuple[Tensor, Tensor]:
    """Number of values that are not zero and their typical size in each sample and channel, float64 ``(B, C)``."""
    count = _by_sample(size != 0, points)
    return count, (_by_sample(size.sqrt().sqrt_(), points) / count.clamp(min=1)) ** 4


def _by_sample(rows: Tensor, points: Points) -> Tensor:
    """Sums of ``(N, C, F)`` rows over each sample and the frequencies, float64 ``(B, C)``; coarse, as sizes are."""
    rows = rows[:, :, 0] if rows.shape[2] == 1 else rows.sum(2)
    rows = rows if rows.is_floating_point() else rows.to(torch.float64)
    if points.samples == 1:
        return rows.sum(0, keepdim=True).to(torch.float64)
    zero = rows.new_zeros(points.samples, rows.shape[1])
    return zero.index_add_(0, points.sample_index(), rows).to(torch.float64)


@dataclass(frozen=True)
class Pasts:
    """The queries whose results are held to the promise together: those of a sample and, in time, those of its pasts.

    Attributes:
        queries: where results are wanted.
        first: int64 ``(M,)``, the shortest past a query belongs to, counted through all samples; None = whole samples.
    """

    queries: Points
    first: Tensor | None

    @classmethod
    def build(cls, sources: Points, queries: Points, *, causal: bool) -> Pasts:
        """Whole samples; of a kernel that is causal on the one axis, also what precedes each 32nd of the sources."""
        if not causal or not sources.count or not queries.count:
            return cls(queries, None)
        own, counts = queries.sample_index(), sources.splits.diff()
        until = _before(sources, queries)
        # A past of less than a block is part of the first one that is no shorter.
        shortest = (_PASTS * _SAMPLES_PER_BLOCK / counts.clamp(min=1)).ceil().to(torch.int64) - 1
        first = torch.maximum(_PASTS * until // counts.clamp(min=1)[own], shortest[own]).clamp(max=_PASTS - 1)
        return cls(queries, own * _PASTS + first)

    def added(self, rows: Tensor) -> Tensor:
        """Sums of ``(M, D, F)`` rows over the queries of each past, float64 ``(B, pasts, D)``."""
        if self.first is None:
            return _by_sample(rows, self.queries)[:, None]
        rows = rows.sum(2).to(torch.float64)
        total = rows.new_zeros(self.queries.samples * _PASTS, rows.shape[1]).index_add_(0, self.first, rows)
        return total.unflatten(0, (-1, _PASTS)).cumsum(1)

    def sums_of_powers(self, rows: Tensor) -> list[Tensor]:
        """Sums of the rows' squares and of their fourth powers, as ``added`` gives them."""
        if self.first is None:
            return [total[:, None] for total in _sums_of_powers(rows, self.queries, 2)]
        totals = _powers_added(rows, torch.float64, self.first, self.queries.samples * _PASTS, 2)
        return [total.unflatten(0, (-1, _PASTS)).cumsum(1) for total in totals]

    def counts(self) -> Tensor:
        """Number of queries of each past, float64 ``(B, pasts, 1)``."""
        if self.first is None:
            return self.queries.splits.diff().to(torch.float64)[:, None, None]
        return self.added(torch.ones(self.queries.count, 1, 1, dtype=torch.float64, device=self.first.device))


def _before(sources: Points, queries: Points) -> Tensor:
    """How many sources of its sample are no later than each query, int64 ``(M,)``."""
    time, asked = sources.coordinates.detach()[:, 0], queries.coordinates.detach()[:, 0]
    lowest = min(float(time.min()), float(asked.min()))
    # What is added keeps the samples apart.
    apart = max(float(time.max()), float(asked.max())) - lowest + 1.0
    times = (time - lowest + apart * sources.sample_index()).sort().values
    until = torch.searchsorted(times, asked - lowest + apart * queries.sample_index(), right=True)
    return until - sources.splits[queries.sample_index()]


@dataclass(frozen=True)
class Stretches:
    """The order of the times in each sample, and blocks of consecutive ones, in which growth is looked for.

    Attributes:
        points: the sources, one axis.
        order: int64 ``(N,)``, rows sample by sample in the order of time.
        block: int64 ``(N,)``, block of each row in that order; a block belongs to one sample.
        first: int64 ``(B,)``, first block of each sample, of two dozen times; 0 for empty samples.
    """

    points: Points
    order: Tensor
    block: Tensor
    first: Tensor

    @classmethod
    def build(cls, points: Points) -> Stretches:
        """Blocks of two dozen times; the last one of a sample may be shorter."""
        order = torch.argsort(points.coordinates.detach()[:, 0], stable=True)
        order = order[torch.argsort(points.sample_index()[order], stable=True)]
        within = torch.arange(points.count, device=points.device) - points.splits[points.sample_index()]
        block = (within % _SAMPLES_PER_BLOCK == 0).cumsum(0) - 1
        starts = points.splits[:-1].clamp(max=max(0, points.count - 1))
        return cls(points, order, block, block[starts] if points.count else starts)

    def apart(self, rows: Tensor, queries: Points, *, joint: bool) -> Iterator[tuple[Tensor, Tensor]] | None:
        """The ``(N, C)`` rows of each stretch, others 0, and which of the queries' ``(M, C or 1)`` results it reaches.

        None where the values do not grow. The first two dozen values of a sample are of one stretch, whatever they
        are: they are too few to tell growth from chance. ``joint``: all channels of a row belong to one stretch.
        """
        if not len(rows):
            return None
        size = rows.detach().abs()
        size = (size.amax(1, keepdim=True) if joint else size)[self.order]
        peaks = size.new_zeros(int(self.block[-1]) + 1, size.shape[1])
        peaks.scatter_reduce_(0, self.block[:, None].expand(size.shape), size, "amax")
        of_block = self.points.sample_index().new_zeros(len(peaks)).scatter_(0, self.block, self.points.sample_index())
        largest = peaks.new_zeros(self.points.samples, size.shape[1])
        largest.scatter_reduce_(0, of_block[:, None].expand(peaks.shape), peaks, "amax")
        if float(_growth(_running(peaks, of_block), largest[of_block]).max()) < math.log2(_GROWTH):
            return None
        sample = self.points.sample_index()
        running = torch.maximum(_running(size, sample), _logarithm(peaks[self.first][sample]))
        growth = _growth(running, largest[sample])
        step = max(math.log2(_GROWTH), float(growth.max()) / (_MOST_STRETCHES - 0.5))
        return self._by_level(rows, (growth / step).floor(), size > 0, queries)

    def _by_level(
        self, rows: Tensor, level: Tensor, occupied: Tensor, queries: Points
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """From the largest growth still to come, the first stretch, down to none, the last."""
        time, sample = self.points.coordinates.detach()[self.order], self.points.sample_index()[:, None]
        own = torch.empty_like(level)
        own[self.order] = level
        for one in torch.unique(level[occupied]).flip(0).tolist():
            begins = torch.where((level == one) & occupied, time, torch.inf)
            first = begins.new_full((self.points.samples, level.shape[1]), torch.inf)
            first.scatter_reduce_(0, sample.expand(begins.shape), begins, "amin")
            yield torch.where(own == one, rows, 0.0), queries.coordinates.detach() >= first[queries.sample_index()]


def _logarithm(size: Tensor) -> Tensor:
    return torch.log2(size.to(torch.float64).clamp(min=torch.finfo(torch.float64).tiny))


def _running(size: Tensor, sample: Tensor) -> Tensor:
    """Logarithm of the largest value so far in each sample; rows by sample, float64."""
    # Logarithms of float64 lie between -1100 and 1100: what is added keeps the samples apart.
    apart = 4096.0 * sample.to(torch.float64)[:, None]
    return (_logarithm(size) + apart).cummax(0).values - apart


def _growth(running: Tensor, largest: Tensor) -> Tensor:
    """By how many powers of two the values will grow; none before the first that is not zero."""
    return torch.where(running > _logarithm(largest.new_zeros(())), _logarithm(largest) - running, 0.0)
