"""Fewer points of a cloud, for strided convolutions: farthest-point sampling, and one point for each voxel.

torch-geometric's ``fps`` and ``voxel_grid`` do the same but need a compiled package besides it; these need torch and
SciPy. Coarser points take over the quadrature weight of those they stand for, so integrals stay what they were.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from ccnn_irregular._checks import require
from ccnn_irregular.domains import Points

__all__ = ["coarsen_farthest", "coarsen_voxels", "farthest_points", "places", "voxel_cells"]

_MOST_CELLS = 2**62


def farthest_points(points: Points, ratio: float) -> Tensor:
    """Choose well-spread points, as rows: each is the farthest from all chosen before (Eldar et al. 1997).

    The first of a cloud is the point farthest from the cloud's centre of mass. Points at one place are one place: it is
    taken once, for the first of its rows, and weighs what they weigh together. So points that are repeated and share
    their weight change nothing, nor does the order of the rows. Clouds of similar size are sampled together.

    Args:
        points: clouds of any sizes; axes must not repeat.
        ratio: share of each cloud's places to take, in (0, 1]; rounded up, so that no cloud vanishes.

    Returns:
        int64 ``(M,)``, cloud by cloud, in the order in which they were taken.

    Raises:
        ValueError: a ratio outside (0, 1], axes that repeat.
    """
    require(0 < ratio <= 1, "ratio", "lie in (0, 1]", ratio)
    distinct, rows = places(points)
    sizes = distinct.splits.diff()
    counts = torch.ceil(sizes * ratio - 1e-9).to(torch.int64).clamp(min=1).minimum(sizes)
    starts = counts.cumsum(0) - counts
    chosen = torch.empty(int(counts.sum()), dtype=torch.int64, device=points.device)
    magnitudes = torch.floor(torch.log2(sizes.clamp(min=1).to(torch.float64)))
    for magnitude in magnitudes[sizes > 0].unique().tolist():
        clouds = torch.nonzero((magnitudes == magnitude) & (sizes > 0)).flatten()
        taken = _farthest_of_similar(distinct, clouds, sizes[clouds], int(counts[clouds].max()))
        order = torch.arange(taken.shape[1], device=points.device)
        kept = order < counts[clouds, None]
        chosen[(starts[clouds, None] + order)[kept]] = taken[kept]
    return rows[chosen]


@torch.no_grad()
def places(points: Points) -> tuple[Points, Tensor]:
    """Merge points at one place: return the places with their total weights, and the first row of each, int64.

    Places come in the order of their coordinates, whatever that of the rows. Weights of channels are added up.

    Args:
        points: clouds of any sizes; axes must not repeat.
    """
    _require_open(points)
    sample = points.sample_index()
    keys = torch.cat([sample[:, None].to(torch.float64), points.coordinates.detach()], dim=1)
    found, place = torch.unique(keys, dim=0, return_inverse=True)
    weights = _one_weight(points)
    weights = weights.new_zeros(len(found)).index_add(0, place, weights)
    rows = torch.arange(points.count, device=points.device)
    first = rows.new_zeros(len(found)).scatter_reduce(0, place, rows, "amin", include_self=False)
    return Points(found[:, 1:], weights, _splits(sample[first], points.samples)), first


@torch.no_grad()
def _farthest_of_similar(points: Points, clouds: Tensor, sizes: Tensor, count: int) -> Tensor:
    """The first ``count`` rows of each of these clouds, ``(clouds, count)``; padded, for sizes within a factor 2."""
    place = torch.arange(int(sizes.max()), device=points.device)
    exists = place < sizes[:, None]
    first = points.splits[clouds]
    rows = first[:, None] + torch.where(exists, place, 0)
    spots = points.coordinates.detach()[rows]
    spots = spots - spots[:, :1]  # small numbers, whatever the projection
    weights = torch.where(exists, points.weights[rows], 0.0)
    mass = weights.sum(1, keepdim=True)
    share = torch.where(mass > 0, weights / mass, exists / sizes[:, None])
    spots = spots - (spots * share[..., None]).sum(1, keepdim=True)
    score = torch.where(exists, spots.square().sum(2), -2.0)
    cloud = torch.arange(len(clouds), device=points.device)
    taken = torch.empty(len(clouds), count, dtype=torch.int64, device=points.device)
    for index in range(count):
        pick = score.argmax(1)
        taken[:, index] = pick
        distance = (spots - spots[cloud, pick][:, None]).square().sum(2)
        score = torch.where(exists, distance, -2.0) if index == 0 else torch.minimum(score, distance)
        score[cloud, pick] = -1.0  # never again, though all that are left be so near that rounding leaves no distance
    return first[:, None] + taken


def voxel_cells(points: Points, size: float) -> Tensor:
    """Return the number of the cubic cell that each point lies in.

    The cells of a cloud start at its lowest coordinate on each axis: moving a cloud moves its cells along.

    Args:
        points: clouds of any sizes; axes must not repeat.
        size: edge of a cell, coordinate units.

    Returns:
        int64 ``(N,)``; cells that hold a point are numbered from 0, cloud by cloud, none is left out.

    Raises:
        ValueError: a size that is not positive or so small that cells cannot be numbered, axes that repeat.
    """
    require(math.isfinite(size) and size > 0, "size", "be positive and finite", size)
    _require_open(points)
    sample, coordinates = points.sample_index(), points.coordinates.detach()
    lowest = coordinates.new_full((points.samples, points.d), math.inf)
    lowest = lowest.scatter_reduce(0, sample[:, None].expand_as(coordinates), coordinates, "amin")
    cells = torch.floor((coordinates - lowest[sample]) / size)
    sizes = cells.amax(0) + 1 if len(cells) else cells.new_ones(points.d)
    numbers = points.samples * math.prod(sizes.tolist())
    require(numbers < _MOST_CELLS, "size", "be larger: cells cannot be numbered", f"{size:g} for {numbers:.3g} cells")
    key = sample
    for axis in range(points.d):
        key = key * int(sizes[axis]) + cells[:, axis].to(torch.int64)
    return torch.unique(key, return_inverse=True)[1]


def coarsen_farthest(points: Points, ratio: float) -> Points:
    """Thin clouds to ``farthest_points``; each gets the weight of all points that are nearest to it.

    Args:
        points: clouds of any sizes; axes must not repeat.
        ratio: share of each cloud's places to take, in (0, 1].
    """
    rows = farthest_points(points, ratio)
    sample = points.sample_index()
    coarse = points.coordinates[rows]
    owner = _nearest(coarse, sample[rows], points.coordinates, sample)
    weights = points.weights.new_zeros(len(rows), *points.weights.shape[1:]).index_add(0, owner, points.weights)
    return Points(coarse, weights, _splits(sample[rows], points.samples))


def coarsen_voxels(points: Points, size: float) -> Points:
    """Thin clouds to one point per ``voxel_cells`` cell: the centre of mass of its points, with their total weight.

    Args:
        points: clouds of any sizes; axes must not repeat. What weighs 0 does not move a centre, but where nothing in
            the cell weighs anything all count the same. Gradients flow to coordinates.
        size: edge of a cell, coordinate units.
    """
    cell = voxel_cells(points, size)
    count = int(cell.max()) + 1 if len(cell) else 0
    share = _one_weight(points)

    def summed(rows: Tensor) -> Tensor:
        return rows.new_zeros(count, *rows.shape[1:]).index_add(0, cell, rows)

    share = torch.where(summed(share)[cell] > 0, share, 1.0)
    share = share / summed(share)[cell]
    sample = points.sample_index()
    owner = sample.new_zeros(count).scatter(0, cell, sample)
    return Points(summed(points.coordinates * share[:, None]), summed(points.weights), _splits(owner, points.samples))


def _one_weight(points: Points) -> Tensor:
    """Add the weights of each point over the channels, ``(N,)``."""
    return points.weights if points.weights.ndim == 1 else points.weights.sum(1)


def _splits(sample: Tensor, samples: int) -> Tensor:
    counts = torch.bincount(sample, minlength=samples)
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def _nearest(coarse: Tensor, coarse_sample: Tensor, fine: Tensor, fine_sample: Tensor) -> Tensor:
    """Find the nearest coarse point of the same cloud for each fine point, as its row."""
    if not len(fine):
        return fine_sample
    span = float((fine.detach().amax(0) - fine.detach().amin(0)).norm())
    # One more axis, on which clouds are farther apart than any two points of a cloud.
    gap = 2 * span + 1

    def lifted(spots: Tensor, sample: Tensor) -> np.ndarray:
        return torch.cat([spots.detach(), gap * sample[:, None].to(spots.dtype)], dim=1).cpu().numpy()

    owner = cKDTree(lifted(coarse, coarse_sample)).query(lifted(fine, fine_sample))[1]
    return torch.from_numpy(np.asarray(owner, dtype=np.int64)).to(fine.device)


def _require_open(points: Points) -> None:
    require(not any(points.periods), "points", "have axes that do not repeat", points.periods)
