"""The Lightning module of a segmentation of point clouds: a class for each point."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics.classification import MulticlassJaccardIndex

from ccnn_irregular._checks import require
from ccnn_irregular.pipelines.train.module import TrainedNetwork

if TYPE_CHECKING:
    from ccnn_irregular.pipelines.tasks.cloud_segmentation.data import LabelBatch, LabelDataModule

__all__ = ["CloudSegmentation", "PointPredictions"]

# Batches of the training part that the network is calibrated on: one.
_CALIBRATION_CLOUDS = 8


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


class CloudSegmentation(TrainedNetwork):
    """One of several classes for each point: cross-entropy; intersection over union.

    Args:
        network: ``forward(LabelBatch) -> logits (N, classes)`` with attributes ``classes`` and ``in_channels``; its
            ``prepare(values, weights, batch)`` is called once with the training values, the quadrature weights of their
            points, and a batch of them.
        learning_rate: peak of the schedule.
        weight_decay: of AdamW; vectors (biases, norms, widths), masks and generators are exempt.
        warmup_epochs: linear rise before the cosine, in epochs.
        final_share: share of the peak learning rate that is left at the end.
        label_smoothing: share of each label that is spread over all classes.
        value_noise: standard deviation of noise on the values in training, in standard deviations of each channel.
    """

    def __init__(
        self,
        network: nn.Module,
        learning_rate: float = 5e-3,
        weight_decay: float = 1e-2,
        warmup_epochs: float = 1.0,
        final_share: float = 0.0,
        label_smoothing: float = 0.0,
        value_noise: float = 0.0,
    ) -> None:
        super().__init__(
            network,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            warmup_epochs=warmup_epochs,
            final_share=final_share,
            decay_generators=False,
        )
        self.save_plain_hyperparameters(network)
        require(0 <= label_smoothing < 1, "label_smoothing", "lie in [0, 1)", label_smoothing)
        require(value_noise >= 0, "value_noise", "not be negative", value_noise)
        self.label_smoothing = label_smoothing
        self.value_noise = value_noise
        classes = int(network.classes)  # type: ignore[arg-type]  # an attribute of every such network
        self.train_iou = MulticlassJaccardIndex(classes, average="macro")
        self.val_iou = MulticlassJaccardIndex(classes, average="macro")

    def require_fits(self, data: LabelDataModule) -> None:
        """Refuse data of other channels or another number of classes."""
        for name, there in (("classes", len(data.classes)), ("in_channels", data.channels)):
            here = getattr(self.network, name)
            require(here == there, name, f"be the data's {there}", here)

    def setup(self, stage: str) -> None:
        """Normalise and calibrate by the training part; a resumed run reads the same numbers from its checkpoint."""
        if stage != "fit":
            return
        data: LabelDataModule | Any = self.trainer.datamodule  # type: ignore[attr-defined]  # not annotated
        require(data is not None, "fit", "be given a data module (for the normalisation)", "loaders alone")
        self.require_fits(data)
        batch = data.training_batch(torch.arange(min(_CALIBRATION_CLOUDS, data.training_clouds)), 0)
        self.network.prepare(data.samples.values, data.training_weights, batch)  # type: ignore[operator]  # of every such network

    def forward(self, batch: LabelBatch) -> Tensor:
        """Logits ``(N, classes)``."""
        return self.network(batch)

    def training_step(self, batch: LabelBatch, batch_idx: int) -> Tensor:
        if self.value_noise:
            scale = self.network.standardise.scale  # type: ignore[union-attr]  # of every such network
            counts, channels = batch.domain.splits.diff().cpu().numpy(), batch.values.shape[1]
            noise = torch.from_numpy(self.draws(batch.ids).normal("value noise", counts, width=channels))
            batch = replace(batch, values=batch.values + self.value_noise * scale * noise.to(batch.values))  # type: ignore[operator]
        logits = self(batch)
        loss = nn.functional.cross_entropy(logits, batch.labels, label_smoothing=self.label_smoothing)
        self.train_iou.update(logits, batch.labels)
        plain = nn.functional.cross_entropy(logits.detach(), batch.labels)
        shown: dict[str, Any] = {"train_loss": plain, "train_iou": self.train_iou}
        self.log_dict(shown, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(batch))
        return loss

    def validation_step(self, batch: LabelBatch, batch_idx: int) -> None:
        logits = self(batch)
        loss = nn.functional.cross_entropy(logits, batch.labels)
        self.val_iou.update(logits, batch.labels)
        shown: dict[str, Any] = {"val_loss": loss, "val_log_likelihood": -loss, "val_iou": self.val_iou}
        self.log_dict(shown, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(batch))

    def predict_step(self, batch: LabelBatch, batch_idx: int) -> PointPredictions:
        """Probabilities and labels of the batch, on the CPU."""
        probabilities = self(batch).float().softmax(1)
        splits = batch.domain.splits
        return PointPredictions(probabilities.cpu().numpy(), batch.labels.cpu().numpy(), splits.cpu().numpy())
