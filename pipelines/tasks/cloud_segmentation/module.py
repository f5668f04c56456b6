"""The Lightning module of a segmentation of point clouds: a class for each point."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassJaccardIndex

from ccnn_irregular._checks import require
from ccnn_irregular.pipelines.tasks.cloud_segmentation.data import UNLABELLED, LabelBatch
from ccnn_irregular.pipelines.train.cross_entropy import CrossEntropy
from ccnn_irregular.pipelines.train.schedule import Schedule

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CloudSegmentation", "PointPredictions"]

SCHEDULE = Schedule(learning_rate=5e-3, weight_decay=1e-2, warmup_epochs=1.0)


@dataclass  # not frozen: Lightning refuses to pass frozen dataclasses from a step to the callbacks
class PointPredictions:
    """Predicted classes of points.

    Attributes:
        probabilities: ``(N, classes)`` float32.
        labels: ``(N,)`` int64.
        splits: ``(B + 1,)`` int64, the clouds.
    """

    probabilities: NDArray[np.float32]
    labels: NDArray[np.int64]
    splits: NDArray[np.int64]

    @staticmethod
    def joined(batches: Sequence[PointPredictions]) -> PointPredictions:
        """All batches as one."""
        sizes = np.concatenate([np.diff(batch.splits) for batch in batches])
        return PointPredictions(
            np.concatenate([batch.probabilities for batch in batches]),
            np.concatenate([batch.labels for batch in batches]),
            np.concatenate([[0], np.cumsum(sizes)]),
        )

    @property
    def predicted(self) -> NDArray[np.int64]:
        """Number of the most probable class of each point, ``(N,)``."""
        return self.probabilities.argmax(1)


class CloudSegmentation(CrossEntropy):
    """One of several classes for each point: cross-entropy; intersection over union.

    Args:
        network: ``forward(LabelBatch) -> logits (N, classes)`` with attributes ``classes`` and ``in_channels``.
        schedule: how it is trained.
        label_smoothing: share of each label that is spread over all classes.
        value_noise: standard deviation of noise on the values in training, in standard deviations of each channel.
    """

    metric = "iou"

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule = SCHEDULE,
        label_smoothing: float = 0.0,
        value_noise: float = 0.0,
    ) -> None:
        super().__init__(network, schedule, label_smoothing)
        require(value_noise >= 0, "value_noise", "not be negative", value_noise)
        self.value_noise = value_noise

    @staticmethod
    def new_metric(classes: int) -> Metric:
        return MulticlassJaccardIndex(classes, average="macro", ignore_index=UNLABELLED)

    def training_step(self, batch: LabelBatch, batch_idx: int) -> Tensor:
        if self.value_noise:
            scale: Tensor = self.network.standardise.scale  # type: ignore[assignment, union-attr]  # of every such network
            counts, channels = batch.domain.splits.diff().cpu().numpy(), batch.values.shape[1]
            noise = torch.from_numpy(self.draws(batch.ids).normal("value noise", counts, width=channels))
            batch = replace(batch, values=batch.values + self.value_noise * scale * noise.to(batch.values))
        return super().training_step(batch, batch_idx)

    def predict_step(self, batch: LabelBatch, batch_idx: int) -> PointPredictions:
        """Probabilities and labels of the points that are answered in the batch, on the CPU."""
        probabilities, labels = self(batch).float().softmax(1), batch.labels
        splits = batch.domain.splits
        if batch.answered is not None:
            counted = torch.nn.functional.pad(batch.answered.cumsum(0), (1, 0))
            probabilities, labels, splits = probabilities[batch.answered], labels[batch.answered], counted[splits]
        return PointPredictions(probabilities.cpu().numpy(), labels.cpu().numpy(), splits.cpu().numpy())
