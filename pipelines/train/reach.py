"""Whether kernels suit the data: their reach against the gaps between samples and against the whole span."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from ccnn_irregular.domains import Domain, Grid, Points
from ccnn_irregular.kernels import KernelSpec

__all__ = ["Sampling", "sampling_of", "warn_of_kernel", "warn_of_latent", "warn_of_reach"]

# Kernels longer than this many spans are the same number at all offsets that occur.
_MOST_SPANS = 100
# A kernel that suits: a tenth of the span, and some gaps at least.
_SUITED_SPAN, _SUITED_GAPS = 0.1, 4
# Samples, and points of each, that are looked at.
_SAMPLES, _POINTS = 16, 2000
# Share of the data beyond a latent grid that is worth a word.
_BEYOND = 0.1
_OPTION = "--model.network.init_args."


@dataclass(frozen=True)
class Sampling:
    """How densely and how far something is sampled along each axis, coordinate units.

    Attributes:
        gaps: typical distance of neighbouring samples; 0 where there are no neighbours.
        spans: distance from the first to the last; 0 where there is but one.
        name: what is sampled, for the reader.
    """

    gaps: tuple[float, ...]
    spans: tuple[float, ...]
    name: str = "the data"


def sampling_of(domain: Domain, name: str = "the data") -> Sampling:
    """The sampling of a grid or of points: medians over neighbours, the largest span of a sample.

    In one dimension neighbours follow one another; in more they are nearest in all axes together, and the span is that
    of the longest axis: a cloud may be flat.
    """
    if isinstance(domain, Grid):
        spans = tuple(step * (size - 1) for step, size in zip(domain.steps, domain.sizes, strict=True))
        return Sampling(tuple(domain.steps), spans, name)
    assert isinstance(domain, Points)
    bounds = domain.splits.tolist()[: _SAMPLES + 1]
    # A place that several points share has neighbours beside them.
    samples = [np.unique(domain.coordinates[a:b].detach().cpu().numpy(), axis=0) for a, b in itertools.pairwise(bounds)]
    samples = [places for places in samples if len(places) > 1]
    gaps = np.concatenate([_distances(places) for places in samples]) if samples else np.zeros(0)
    gap = float(np.median(gaps)) if len(gaps) else 0.0
    span = max((float(np.ptp(places, axis=0).max()) for places in samples), default=0.0)
    return Sampling((gap,) * domain.d, (span,) * domain.d, name)


def _distances(places: np.ndarray) -> np.ndarray:
    """From each of some points to its nearest neighbour."""
    if places.shape[1] == 1:
        return np.diff(np.sort(places[:, 0]))
    return cKDTree(places).query(places[:: max(1, len(places) // _POINTS)], k=2)[0][:, 1]


def warn_of_reach(
    option: str, value: float | Sequence[float], reach: float | Sequence[float] | Tensor, *samplings: Sampling
) -> None:
    """Say so where a kernel reaches no neighbour, or a hundred times as far as there are samples; once.

    Args:
        option: argument of the network that decides the reach.
        value: what it is, a number or one for each axis.
        reach: half width of the kernel along each axis, coordinate units.
        samplings: of what the kernel is convolved with; the first that does not suit is named.

    Warns:
        UserWarning: with option, value, what the data have, and what to type.
    """
    for sampling in samplings:
        reaches = np.broadcast_to(np.asarray(reach, dtype=np.float64), len(sampling.gaps))
        for axis, (far, gap, span) in enumerate(zip(reaches, sampling.gaps, sampling.spans, strict=True)):
            if not _suits(far, gap, span):
                found = (
                    f"less than the typical gap of {sampling.name}: no sample meets its neighbours"
                    if far < gap
                    else f"over {_MOST_SPANS} times the span of {sampling.name}: they cannot tell places apart"
                )
                suited = _suited(value, reaches, sampling, axis)
                warnings.warn(
                    f"{option} {_shown(value)} makes kernels reach {_shown(far)} along axis {axis}, {found} (gap "
                    f"{_shown(gap)}, span {_shown(span)}); for kernels that suit, type {_OPTION}{option} "
                    f'"{_shown(suited)}"',
                    UserWarning,
                    stacklevel=2,
                )
                return


def warn_of_kernel(kernel: KernelSpec, support: Tensor, *samplings: Sampling, option: str = "kernel") -> None:
    """Say so where the width or the extent of a recipe does not suit, see ``warn_of_reach``.

    Args:
        kernel: the recipe, as the network was given it.
        support: half width of a kernel built by it along each axis, coordinate units.
        samplings: of what the kernel is convolved with.
        option: argument of the network that holds the recipe.
    """
    if kernel.width is not None:
        warn_of_reach(f"{option}.width", kernel.width, support, *samplings)
    if kernel.extent is not None:
        width_follows = kernel.width is None and kernel.mask != "none"
        warn_of_reach(f"{option}.extent", kernel.extent, support if width_follows else kernel.extent, *samplings)


def _suits(reach: float, gap: float, span: float) -> bool:
    return span == 0 or gap <= reach <= _MOST_SPANS * span or not np.isfinite(reach)


def _suited(
    value: float | Sequence[float], reaches: np.ndarray, sampling: Sampling, axis: int
) -> float | tuple[float, ...]:
    """The value scaled, where it does not suit, so that the reach is a tenth of the span and some gaps."""
    factors = [
        1.0 if _suits(far, gap, span) else min(max(_SUITED_SPAN * span, _SUITED_GAPS * gap), 2 * span) / far
        for far, gap, span in zip(reaches, sampling.gaps, sampling.spans, strict=True)
    ]
    if not isinstance(value, Sequence):
        return value * factors[axis]
    by_axis = factors if len(value) == len(factors) else [factors[axis]] * len(value)
    return tuple(number * factor for number, factor in zip(value, by_axis, strict=True))


def _shown(value: float | Sequence[float]) -> str:
    if isinstance(value, Sequence):
        return f"[{', '.join(map(_shown, value))}]"
    # Four digits without exponent: YAML takes 1e+09 for a word.
    return np.format_float_positional(float(f"{value:.4g}"), trim="-")


def warn_of_latent(latent: Grid, coordinates: Tensor, reach: Tensor) -> None:
    """Say so where much of the data lies beyond the reach of a kernel from all nodes of the grid that reads them.

    Args:
        latent: nodes at which the first convolution is evaluated.
        coordinates: of the data, ``(N, d)``.
        reach: half width of its kernel, ``(d,)``, coordinate units.

    Warns:
        UserWarning: with the grid, what the data have, and what to type.
    """
    beyond = torch.zeros(len(coordinates), dtype=torch.bool, device=coordinates.device)
    for axis, far, column in zip(latent.axes, reach.tolist(), coordinates.T, strict=True):
        if not axis.periodic:
            last = axis.start + axis.step * (axis.size - 1)
            beyond |= (column < axis.start - far) | (column > last + far)
    share = float(beyond.double().mean()) if len(beyond) else 0.0
    if share < _BEYOND:
        return
    low, high = coordinates.amin(0).tolist(), coordinates.amax(0).tolist()
    steps = [(b - a) / max(n - 1, 1) or s for a, b, n, s in zip(low, high, latent.sizes, latent.steps, strict=True)]
    ends = [(axis.start, axis.start + axis.step * (axis.size - 1)) for axis in latent.axes]
    warnings.warn(
        f"latent has nodes over {_ranges(ends)}, and {share:.0%} of the data, over "
        f"{_ranges(zip(low, high, strict=True))}, lie beyond their kernels; to cover all with as many nodes, type "
        f'{_OPTION}latent.steps "{_shown(steps)}" {_OPTION}latent.starts "{_shown(low)}"',
        UserWarning,
        stacklevel=2,
    )


def _ranges(ends: Iterable[tuple[float, float]]) -> str:
    return " x ".join(f"{_shown(low)} to {_shown(high)}" for low, high in ends)
