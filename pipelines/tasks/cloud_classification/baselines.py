"""What continuous kernels on clouds are compared with: PointNetConv of torch-geometric."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor, nn
from torch_geometric.nn import PointNetConv, global_max_pool

from ccnn_irregular._checks import require
from ccnn_irregular.domains import Points
from ccnn_irregular.pipelines.tasks.classification.data import SampleBatch
from ccnn_irregular.pipelines.tasks.cloud_classification.network import CloudNetwork

__all__ = ["PointNetClassifier", "nearest_edges"]


class PointNetClassifier(CloudNetwork):
    """Layers of ``PointNetConv`` on the nearest neighbours, the largest value of each channel, a linear layer.

    A cloud is first thinned to one point for each voxel that holds some, as users do where density varies: the mean of
    the points in it. Quadrature weights are not read.

    Args:
        in_channels: 1, the constant on the cloud.
        classes: number of classes.
        reading: edge of the voxels, coordinate units; null = read all points.
        channels: of each layer.
        neighbours: of each point, itself among them.
        dropout: before the linear layer.
    """

    def __init__(
        self,
        in_channels: int,
        classes: int | None,
        reading: float | None,
        channels: Sequence[int] = (80, 128, 160),
        neighbours: int = 16,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(in_channels, classes, reading)
        require(neighbours >= 1, "neighbours", "be at least 1", neighbours)
        self.neighbours = neighbours
        self.layers = nn.ModuleList()
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for width in channels)
        # Positions are read besides, and by every layer the offsets of the neighbours.
        for read, width in zip((3, *channels[:-1]), channels, strict=True):
            edge = nn.Sequential(nn.Linear(read + 3, width), nn.GELU(), nn.Linear(width, width))
            self.layers.append(PointNetConv(edge, add_self_loops=False))
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(channels[-1], self.classes)

    @torch.no_grad()
    def prepare(self, batch: SampleBatch, values: None = None) -> None:
        """Nothing to be scaled: torch's initialisation fits."""

    def forward(self, batch: SampleBatch) -> Tensor:
        """Logits ``(B, classes)``."""
        points = self.read(batch, weighed=False)
        positions = points.coordinates.to(self.output.weight.dtype)
        edges = nearest_edges(points, self.neighbours)
        values = positions
        for layer, norm in zip(self.layers, self.norms, strict=True):
            values = nn.functional.gelu(norm(layer(values, positions, edges)))
        return self.output(self.dropout(global_max_pool(values, points.sample_index(), points.samples)))


def nearest_edges(points: Points, neighbours: int) -> Tensor:
    """Edges from the nearest points of the same cloud (first row) to each point, itself among them, int64 ``(2, E)``.

    torch-geometric's own search is in a compiled package.
    """
    places, sample = points.coordinates.cpu().numpy(), points.sample_index().cpu().numpy()
    # Clouds far apart along a further axis: one tree serves all of them.
    apart = 2 * float(np.ptp(places, axis=0).sum()) + 1 if len(places) else 1.0
    lifted = np.column_stack([places, apart * sample])
    count = min(neighbours, len(places))
    distances, found = cKDTree(lifted).query(lifted, k=np.arange(1, count + 1))
    same = distances < apart
    target = np.repeat(np.arange(len(places)), same.sum(1))
    return torch.from_numpy(np.stack([found[same], target])).to(points.device)
