"""The network that labels the points of clouds: batches in, logits out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ccnn_irregular._checks import reject, require
from ccnn_irregular._reprs import sized
from ccnn_irregular.adapters.geometric import CLOUD_KERNEL
from ccnn_irregular.adapters.geometric_networks import CloudUNet
from ccnn_irregular.kernels import KernelSpec
from ccnn_irregular.pipelines.tasks.classification.standardise import Standardise
from ccnn_irregular.pipelines.tasks.cloud_segmentation.data import LabelBatch
from ccnn_irregular.pipelines.train.reach import sampling_of, warn_of_reach

__all__ = ["CloudSegmenter"]

_KERNEL = replace(CLOUD_KERNEL, width=0.7, hidden=16)


class CloudSegmenter(nn.Module):
    """A ``CloudUNet`` that gives one logit per class at each point; values are standardised by the training part.

    The first three arguments may be left to the data by ``ccnn fit``, where the task's data tell them.

    Args:
        in_channels: channels of the data.
        classes: number of classes.
        spacing: see ``CloudUNet``, as all below.
        channels: see there.
        kernel: see there.
        blocks: see there.
        dropout: see there.
    """

    def __init__(
        self,
        in_channels: int | None = None,
        classes: int | None = None,
        spacing: float | None = None,
        channels: Sequence[int] = (16, 32, 64),
        kernel: KernelSpec = _KERNEL,
        blocks: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if in_channels is None or classes is None or spacing is None:
            reject("in_channels, classes and spacing", "be given: these data do not tell them", "null")
        require(in_channels >= 1, "in_channels", "be at least 1", in_channels)
        require(classes >= 2, "classes", "be at least 2", classes)
        self.in_channels = in_channels
        self.classes = classes
        self.spacing = spacing
        self.standardise = Standardise(in_channels)
        self.cnn = CloudUNet(
            in_channels, classes, channels=channels, spacing=spacing, kernel=kernel, blocks=blocks, dropout=dropout
        )

    def extra_repr(self) -> str:
        return f"{self.in_channels} -> {self.classes} classes, {sized(self)}"

    @torch.no_grad()
    def prepare(self, batch: LabelBatch, values: tuple[Tensor, Tensor]) -> None:
        """Take the normalisation from the training values, scale all layers for clouds like these, warn of reach.

        Args:
            batch: clouds of the training part.
            values: ``(N, in_channels)`` of all of it, and the quadrature weights ``(N,)`` of the points.
        """
        self.standardise.fit(*values)
        points = batch.domain
        warn_of_reach("spacing", self.spacing, self.cnn.encoder.finest.support, sampling_of(points, "the points"))
        read = self.standardise(batch.values, points)
        self.cnn.calibrate(read, points.coordinates, points.sample_index(), points.weights)

    def forward(self, batch: LabelBatch) -> Tensor:
        """Logits ``(N, classes)``."""
        require(batch.values.shape[1] == self.in_channels, "in_channels", "be the data's channels", batch.values.shape)
        points = batch.domain
        read = self.standardise(batch.values, points)
        return self.cnn(read, points.coordinates, points.sample_index(), points.weights, points.samples)
