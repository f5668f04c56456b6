"""Networks that tell clouds apart: batches in, logits out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ccnn_irregular._checks import reject, require
from ccnn_irregular._reprs import sized
from ccnn_irregular.adapters.geometric import CLOUD_KERNEL, require_resolution
from ccnn_irregular.adapters.geometric_networks import CloudCCNN
from ccnn_irregular.adapters.geometric_sampling import coarsen_voxels
from ccnn_irregular.domains import Points
from ccnn_irregular.kernels import KernelSpec
from ccnn_irregular.pipelines.tasks.classification.data import SampleBatch
from ccnn_irregular.pipelines.train.reach import sampling_of, warn_of_reach

__all__ = ["CloudClassifier", "CloudNetwork"]

_CLASSIFIER_KERNEL = replace(CLOUD_KERNEL, hidden=16)


class CloudNetwork(nn.Module):
    """A network that tells clouds apart by one point for each voxel that holds some: their centre of mass.

    Args:
        in_channels: 1, the constant on the cloud.
        classes: number of classes; null = as the data tell, in ``ccnn fit``.
        reading: edge of the voxels, coordinate units; null = read all points.

    Raises:
        ValueError: a size out of range.
    """

    def __init__(self, in_channels: int, classes: int | None, reading: float | None) -> None:
        super().__init__()
        if classes is None:
            reject("classes", "be given: nothing tells it but the data of ccnn fit", "null")
        require(in_channels == 1, "in_channels", "be 1, the constant on the cloud", in_channels)
        require(classes >= 2, "classes", "be at least 2", classes)
        require(reading is None or reading > 0, "reading", "be positive", reading)
        self.in_channels = in_channels
        self.classes = classes
        self.reading = reading

    def extra_repr(self) -> str:
        reading = "all points" if self.reading is None else f"a point for each voxel of edge {self.reading:g}"
        return f"{self.in_channels} -> {self.classes} classes, reads {reading}, {sized(self)}"

    def read(self, batch: SampleBatch, *, weighed: bool = True) -> Points:
        """The points that are read, with the weight of all that they stand for; or with equal weights all.

        Raises:
            ValueError: no points in three dimensions.
        """
        points = batch.domain
        if not isinstance(points, Points) or points.d != 3:
            reject("batch", "hold points in three dimensions", f"{points!r}")
        if not weighed:
            points = Points(points.coordinates, splits=points.splits)
        return points if self.reading is None else coarsen_voxels(points, self.reading)


class CloudClassifier(CloudNetwork):
    """A ``CloudCCNN`` that reads the shape of a cloud and gives one logit per class.

    It reads one point for each voxel of edge ``reading``, their centre of mass, with the weight of all of them: the
    cost does not grow with the number of points beyond that, and integrals stay what they were.

    Args:
        in_channels: 1, the constant on the cloud.
        classes: number of classes; null = as the data tell, in ``ccnn fit``.
        reading: edge of the voxels, coordinate units; null = read all points.
        positions: axes whose coordinate is a further channel: where on the shape.
        channels: see ``CloudCCNN``, as all below.
        spacing: see there.
        kernel: see there.
        blocks: see there.
        dropout: see there.
    """

    def __init__(
        self,
        in_channels: int,
        classes: int | None,
        reading: float | None,
        spacing: float,
        positions: Sequence[int] = (0, 1, 2),
        channels: Sequence[int] = (32, 64, 128),
        kernel: KernelSpec = _CLASSIFIER_KERNEL,
        blocks: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(in_channels, classes, reading)
        require(set(positions) <= {0, 1, 2}, "positions", "name axes 0 to 2", tuple(positions))
        self.positions = tuple(positions)
        self.spacing = spacing
        read = in_channels + len(self.positions)
        self.cnn = CloudCCNN(
            read, self.classes, channels=channels, spacing=spacing, kernel=kernel, blocks=blocks, dropout=dropout
        )

    @torch.no_grad()
    def prepare(self, batch: SampleBatch, values: None = None) -> None:
        """Scale all layers for clouds like these, and say so where their kernels do not suit them."""
        points = self.read(batch)
        support = self.cnn.encoder.finest.support
        warn_of_reach("spacing", self.spacing, support, sampling_of(points, "the points that are read"))
        self.cnn.calibrate(self._values(points), points.coordinates, points.sample_index(), points.weights)

    def forward(self, batch: SampleBatch) -> Tensor:
        """Logits ``(B, classes)``."""
        points = self.read(batch)
        sample = points.sample_index()
        return self.cnn(self._values(points), points.coordinates, sample, points.weights, points.samples)

    def _values(self, points: Points) -> Tensor:
        """``(N, 1 + positions)``: the constant, and coordinates."""
        weight = self.cnn.output.weight
        places = points.coordinates[:, list(self.positions)].to(weight.dtype)
        require_resolution("positions", places, self.cnn.encoder.finest)
        return torch.cat([places.new_ones(points.count, 1), places], dim=1)
