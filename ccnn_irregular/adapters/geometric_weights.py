"""Quadrature weights of point clouds: of a surface or of a volume, sampled evenly or not."""

from __future__ import annotations

from typing import Literal, final, get_args

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from ccnn_irregular._checks import require
from ccnn_irregular.adapters.geometric import to_points
from ccnn_irregular.domains import Points
from ccnn_irregular.quadrature import density_compensation, plain_mean

__all__ = ["CloudSampling", "QuadratureWeights", "cloud_weights"]

CloudSampling = Literal["even", "surface", "volume"]


@torch.no_grad()
def cloud_weights(
    points: Points, sampling: CloudSampling, *, total: float | Tensor = 1.0, neighbours: int = 16
) -> Tensor:
    """Compute quadrature weights that follow the shape of a cloud and not how densely it was sampled.

    With r the distance to the ``neighbours``-th neighbour, a point weighs in proportion to r^m, where m is the number
    of dimensions of what was sampled: d - 1 for a surface in space (scans, meshes, terrain) or a curve in the plane, d
    for a volume or an area. The wrong m does harm: on a surface r^3 gives sparse places too much. Points at the
    same place share the weight of one. See ``ccnn_irregular.quadrature.density_compensation`` for the accuracy.

    Args:
        points: clouds of any sizes; their own weights are not looked at.
        sampling: "surface", "volume", or "even" = all points of a cloud the same, for an even density.
        total: what the weights of each cloud sum to, one number or one for each cloud, ``(B,)``: 1 = the integral is
            a mean over the shape. In units of area or volume, the same kernels serve pieces of any size.
        neighbours: more average more, and see changes of the density less sharply.

    Returns:
        float64 ``(N,)``.

    Raises:
        ValueError: an unknown sampling, a surface in one dimension, a total that is not positive.
    """
    require(sampling in get_args(CloudSampling), "sampling", f"be one of {get_args(CloudSampling)}", repr(sampling))
    totals = torch.as_tensor(total, dtype=torch.float64, device=points.device)
    wanted = ((), (points.samples,))
    require(totals.shape in wanted, "total", f"be one number or one per cloud, {points.samples}", tuple(totals.shape))
    positive = torch.isfinite(totals) & (totals > 0)
    require(bool(positive.all()), "total", "be positive and finite", totals[~positive].tolist())
    require(neighbours >= 1, "neighbours", "be at least 1", neighbours)
    sample = points.sample_index()
    if sampling == "even":
        weights = plain_mean(points.count, splits=points.splits)
    else:
        require(sampling == "volume" or points.d >= 2, "points", "have two axes or more for a surface", points.d)
        dimensions = points.d if sampling == "volume" else points.d - 1
        weights = density_compensation(
            points.coordinates, volume=1.0, neighbours=neighbours, dimensions=dimensions, splits=points.splits
        )
    return weights * totals.expand(points.samples)[sample]


@final
class QuadratureWeights(BaseTransform):
    """torch-geometric transform that adds ``data.weight``, ``(N,)``: see ``cloud_weights``.

    To be applied behind whatever moves or draws points, ``SamplePoints`` say; rotations change nothing.

    Args:
        sampling: "surface", "volume" or "even".
        total: what the weights of each cloud sum to.
        neighbours: which neighbour's distance measures the density.
    """

    def __init__(self, sampling: CloudSampling, *, total: float = 1.0, neighbours: int = 16) -> None:
        require(sampling in get_args(CloudSampling), "sampling", f"be one of {get_args(CloudSampling)}", repr(sampling))
        self.sampling: CloudSampling = sampling
        self.total = total
        self.neighbours = neighbours

    def forward(self, data: Data) -> Data:
        """Return the data with ``weight``, float64, added."""
        data.weight = cloud_weights(to_points(data), self.sampling, total=self.total, neighbours=self.neighbours)
        return data

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.sampling!r}, total={self.total}, neighbours={self.neighbours})"
