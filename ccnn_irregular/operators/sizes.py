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

__all__ = ["Stretches", "energy_and_peaks", "outliers", "sample_energy", "sample_scales"]

# Samples whose sizes differ by no more than this are transformed as they are.
_ALIKE = 4.0
# Sums of squares below this may have lost terms to underflow of float32.
_UNDERFLOWN = 1e-30
# Outliers are looked for where the kurtosis exceeds this (Gaussian noise has 3), or this share of the most it can be.
_PEAKED, _PEAKED_SHARE = 16.0, 0.5
# It is an outlier beyond so many times the typical one of its sample and channel (Gaussian noise ends near 6), ...
_OUTLYING = 32.0
# ... where they are at most this share of the sample: more of them are what the values are like.
_FEW, _FEW_PER_SAMPLE = 0.01, 2
# Rows that may be summed pair by pair: so many, and a share of all.
_MOST_ROWS, _MOST_SHARE = 64, 0.02
_ROUNDS = 4
# Samples in a row that have one size between them, and growth from which on a stretch is transformed by itself.
_SAMPLES_PER_BLOCK, _GROWTH, _MOST_STRETCHES = 24, 4.0, 8


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
    """Sums of squares, of fourth powers, and so on, float64 ``(B, C)``."""
    rows = rows.detach()
    rows = torch.view_as_real(rows).flatten(2) if rows.is_complex() else rows
    for dtype in dict.fromkeys((rows.dtype, torch.float64)):
        power, sums = rows.to(dtype).square(), []
        for _ in range(count):
            sums.append(_by_sample(power, points))
            power = power.square_() if len(sums) < count else power
        if bool(((sums[-1] > _UNDERFLOWN) & (sums[-1] < math.inf)).all()):
            break
    return sums


def sample_scales(energy: Tensor, volumes: Tensor, *, joint: bool) -> Tensor | None:
    """Powers of two that bring the samples to one size; 0 for what is zero. None where they are of one size already.

    Args:
        energy: ``(B, C)`` as ``sample_energy`` gives it.
        volumes: ``(B,)``, space over which each sample's energy is spread; any unit.
        joint: whether all channels of a sample have one scale, ``(B, 1)``; else one each, ``(B, C)``.
    """
    if len(energy) < 2:
        return None
    density = (energy.sum(1, keepdim=True) if joint else energy) / volumes[:, None]
    if bool((density.amax(0) <= _ALIKE**2 * density.amin(0)).all()):
        return None
    exponent = (0.5 * torch.log2(density.clamp(min=torch.finfo(torch.float64).tiny))).round()
    return torch.where(density > 0, torch.exp2(exponent), 0.0)


def outliers(rows: Tensor, points: Points) -> Tensor | None:
    """Which of the ``(N, C, F)`` rows' values dwarf the rest of their sample and channel; None where none does.

    The typical size is the mean of fourth roots, to the fourth power, over the values that are not zero: one value of
    1e8 among a hundred of 1 moves it to 16. Warns where there are a few too many to be summed pair by pair.
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
    rows_found = int(found.flatten(1).any(1).sum())
    if rows_found > max(_MOST_ROWS, _MOST_SHARE * len(rows)):
        warnings.warn(
            f"values must not be dwarfed by more than a few others of their sample, got {rows_found} of {len(rows)} "
            f"rows that are {_OUTLYING:g} times the typical size: the error of 'spectral' is relative to these "
            f"everywhere, that of engine='neighbours' is not",
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
class Stretches:
    """Blocks of consecutive times of each sample, in which growth is looked for.

    Attributes:
        points: the sources, one axis.
        block: int64 ``(N,)``, block of each row; blocks follow each other in time, sample by sample.
        starts: float64 ``(blocks,)``, first time of each.
        sample: int64 ``(blocks,)``, sample of each.
    """

    points: Points
    block: Tensor
    starts: Tensor
    sample: Tensor

    @classmethod
    def build(cls, points: Points) -> Stretches:
        """Blocks of two dozen samples; the last one of a sample may be shorter."""
        sample, time = points.sample_index(), points.coordinates.detach()[:, 0]
        order = torch.argsort(time, stable=True)
        order = order[torch.argsort(sample[order], stable=True)]
        within = torch.arange(len(order), device=order.device) - points.splits[sample[order]]
        first = within % _SAMPLES_PER_BLOCK == 0
        block = torch.empty_like(order)
        block[order] = first.cumsum(0) - 1
        return cls(points, block, time[order][first], sample[order][first])

    def apart(self, rows: Tensor, queries: Points, *, joint: bool) -> Iterator[tuple[Tensor, Tensor]] | None:
        """The ``(N, C)`` rows of each stretch, others 0, and which of the queries' ``(M, C or 1)`` results it reaches.

        None where the values do not grow. ``joint``: all channels of a row belong to one stretch.
        """
        if not len(self.starts):
            return None
        size = rows.detach().abs()
        size = size.amax(1, keepdim=True) if joint else size
        largest = size.new_zeros(len(self.starts), size.shape[1])
        largest.scatter_reduce_(0, self.block[:, None].expand(size.shape), size, "amax")
        largest = largest.to(torch.float64)
        # The running maximum of each sample: logarithms lie between -1100 and 1100, samples 4096 apart.
        apart = 4096.0 * self.sample.to(torch.float64)[:, None]
        logarithm = torch.log2(largest.clamp(min=torch.finfo(torch.float64).tiny))
        running = (logarithm + apart).cummax(0).values - apart
        final = torch.full((self.points.samples, running.shape[1]), -torch.inf, dtype=torch.float64, device=rows.device)
        final.scatter_reduce_(0, self.sample[:, None].expand(running.shape), running, "amax")
        below = torch.where(largest > 0, final[self.sample] - running, 0.0)
        if not bool((below >= math.log2(_GROWTH)).any()):
            return None
        step = max(math.log2(_GROWTH), float(below.max()) / (_MOST_STRETCHES - 0.5))
        level = ((final[self.sample] - running) / step).floor().clamp(0, _MOST_STRETCHES - 1)
        return self._by_level(rows, level, largest > 0, queries)

    def _by_level(
        self, rows: Tensor, level: Tensor, occupied: Tensor, queries: Points
    ) -> Iterator[tuple[Tensor, Tensor]]:
        own, sample = level[self.block], queries.sample_index()
        for one in torch.unique(level[occupied]).flip(0).tolist():
            # From its first block on: later stretches are larger, and what they get from it is theirs to round.
            begins = torch.where((level == one) & occupied, self.starts[:, None], torch.inf)
            first = begins.new_full((self.points.samples, level.shape[1]), torch.inf)
            first.scatter_reduce_(0, self.sample[:, None].expand(begins.shape), begins, "amin")
            reached = queries.coordinates.detach() >= first[sample]
            yield torch.where(own == one, rows, 0.0), reached
