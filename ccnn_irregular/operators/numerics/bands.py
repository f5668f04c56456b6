"""How fine a grid a kernel needs: the cell and the window, from the kernel's own spectrum.

For white noise the relative error of spread, FFT convolution and interpolation is, squared and
summed over the axes,

    sum over kept modes of E alias^2, twice    +    sum of E beyond the kept modes, and folded back

with E the share of the kernel's energy in a mode. Modes at the end of the band, where the window is
at its worst, hold little of it, so a narrower window or a coarser cell does than the worst case asks
for. For each width of the window the coarsest cell that keeps the budget is found.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ccnn_irregular.kernels import Kernel
from ccnn_irregular.kernels.spectrum import marginal_energy
from ccnn_irregular.operators.numerics.windows import ALIAS_BINS, Window, squared_alias

__all__ = ["Band", "bands_by_width", "box_offsets", "cut_frequency", "least_samples"]

_WIDTHS = tuple(range(2, 15))
_KEPT = (0.2, 0.25, 0.3, 0.35, 0.4, 0.45)
# The band may have to be cut later than where its tail alone fills the budget, to leave some for the window.
_STRETCHES = (1.0, 1.08, 1.2, 1.35, 1.6, 2.0)
_SHARE_OF_TAIL = 0.9
# The error stays below rtol for values that are not white noise too, within reason.
_SAFETY = 0.5
# Kernel samples along an axis to look for the end of its spectrum, doubled up to the most; in all, with the other axes.
_FIRST_SAMPLES, _MOST_SAMPLES, _MOST_IN_ALL = 64, 1 << 15, 1 << 21
# Samples along each other axis, where the energy is only summed up; of a uniform one, nodes within the support.
_OTHER_SAMPLES = 16


@dataclass(frozen=True)
class Band:
    """Cell and window of one axis.

    Attributes:
        step: length of a cell, coordinate units.
        window: the window across it.
    """

    step: float
    window: Window


def bands_by_width(
    kernels: Sequence[Kernel], axes: int, lattice: Sequence[Tensor], rtol: float
) -> dict[int, tuple[Band, ...]]:
    """Per width of the window, cell and window of each of the first ``axes`` axes; empty if a kernel is too sharp.

    Args:
        kernels: their first ``axes`` axes are irregular, at most 3 of them, the others uniform.
        axes: number of irregular axes.
        lattice: offsets at which the kernels are used on each uniform axis, float64, coordinate units.
        rtol: relative error that may be made.
    """
    budget = (_SAFETY * rtol) ** 2 / axes
    reaches = torch.stack([kernel.support[:axes] for kernel in kernels]).amax(0).tolist()
    others = box_offsets([*reaches, *lattice], kernels[0].extent.device)
    per_axis: list[dict[int, Band]] = []
    for axis, reach in enumerate(reaches):
        energy = _resolved_energy(kernels, axis, reach, others, budget, _FIRST_SAMPLES)
        if energy is None:
            return {}
        per_axis.append(_axis_bands(energy, reach, budget))
    return {width: tuple(axis[width] for axis in per_axis) for width in _WIDTHS if all(width in a for a in per_axis)}


def least_samples(axes: int, samples: int = _OTHER_SAMPLES) -> int:
    """Kernel values that a look at the spectrum along each of ``axes`` axes takes, or more."""
    return axes * _FIRST_SAMPLES * samples ** (axes - 1)


def cut_frequency(
    kernels: Sequence[Kernel], axis: int, reach: float, others: Sequence[Tensor], share: float
) -> float | None:
    """Frequency along ``axis`` beyond which the kernels have too little energy to count, cycles per coordinate unit.

    Args:
        kernels: ending at ``reach`` along ``axis``, coordinate units.
        axis: along which.
        reach: half width of their support there.
        others: ``box_offsets`` of all axes.
        share: of their energy that may lie beyond.

    Returns:
        None where a kernel is too sharp.
    """
    energy = _resolved_energy(kernels, axis, reach, others, share, _FIRST_SAMPLES // 2)
    return None if energy is None else max(1, _end(_tails(energy), share)) / (4 * reach)


def box_offsets(axes: Sequence[float | Tensor], device: torch.device, samples: int = _OTHER_SAMPLES) -> list[Tensor]:
    """A few offsets per axis: over a support of a half width, or out of those of a uniform axis, coordinate units."""
    return [
        _thinned(one, samples).to(device) if isinstance(one, Tensor) else _over_support(one, samples, device)
        for one in axes
    ]


def _over_support(reach: float, count: int, device: torch.device) -> Tensor:
    return (torch.arange(count, dtype=torch.float64, device=device) - count // 2) * (2 * reach / count)


def _thinned(offsets: Tensor, samples: int) -> Tensor:
    if len(offsets) <= samples:
        return offsets
    return offsets[torch.linspace(0, len(offsets) - 1, samples).round().long()]


def _resolved_energy(
    kernels: Sequence[Kernel], axis: int, reach: float, others: Sequence[Tensor], budget: float, first: int
) -> Tensor | None:
    """Marginal energy along ``axis``, sampled so finely that the upper half is negligible; None if too many."""
    count = first
    across = math.prod(len(offsets) for number, offsets in enumerate(others) if number != axis)
    while count <= _MOST_SAMPLES and (count == first or count * across <= _MOST_IN_ALL):
        box = list(others)
        box[axis] = _over_support(reach, count, box[axis].device)
        with torch.no_grad():
            energy = torch.cat([marginal_energy(kernel, axis, box) for kernel in kernels], 1)
        if _end(_tails(energy), budget) <= count // 2:
            return energy
        count *= 2
    return None


def _tails(energy: Tensor) -> Tensor:
    """Share of each channel's energy in modes >= j, ``(modes + 1, channels)``; 0 for a channel that is zero."""
    tail = torch.cat([energy.flip(0).cumsum(0).flip(0), torch.zeros_like(energy[:1])])
    return tail / torch.where(tail[:1] > 0, tail[:1], 1.0)


def _end(tails: Tensor, share: float) -> int:
    """First mode from which on no channel has more than ``share`` of its energy left."""
    return int((tails <= share).all(1).to(torch.int64).argmax())


def _axis_bands(energy: Tensor, reach: float, budget: float) -> dict[int, Band]:
    """The coarsest cell for each width of the window that keeps the budget."""
    tails = _tails(energy)
    last = len(tails) - 1
    first_cut = max(1, _end(tails, _SHARE_OF_TAIL * budget))
    best: dict[int, Band] = {}
    for stretch in _STRETCHES:
        cut = min(last, math.ceil(first_cut * stretch))
        edges = (torch.arange(ALIAS_BINS + 1) * cut) // ALIAS_BINS
        binned = tails[edges[:-1]] - tails[edges[1:]]  # (bins, channels)
        for kept in _KEPT:
            folded = tails[min(last, math.floor(cut * (1 - kept) / kept))]
            aliased = torch.stack([squared_alias(width, kept) for width in _WIDTHS]) @ binned
            errors = (2 * aliased + tails[cut] + folded).amax(1).tolist()
            step = 4 * reach * kept / cut
            for width, error in zip(_WIDTHS, errors, strict=True):
                if error <= budget and (width not in best or step > best[width].step):
                    best[width] = Band(step, Window(width, kept))
    return best
