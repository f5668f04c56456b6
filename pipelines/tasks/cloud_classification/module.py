"""The Lightning module of a classification of point clouds."""

from __future__ import annotations

from typing import Any

from torch import nn

from ccnn_irregular._checks import require
from ccnn_irregular.pipelines.tasks.classification.module import Classification

__all__ = ["CloudClassification"]

# Shapes the network is calibrated on.
_CALIBRATION_SHAPES = 32


class CloudClassification(Classification):
    """One of several classes for each cloud: cross-entropy. Clouds are changed at random by the data module.

    Args:
        network: ``forward(SampleBatch) -> logits (B, classes)`` with attributes ``classes`` and ``in_channels``; its
            ``prepare(batch)`` is called once with training clouds of a ``ShapeDataModule``.
        learning_rate: peak of the schedule.
        weight_decay: of AdamW; vectors (biases, norms, widths), masks and generators are exempt.
        warmup_epochs: linear rise before the cosine, in epochs.
        final_share: share of the peak learning rate that is left at the end.
        label_smoothing: share of each label that is spread over all classes.
    """

    def __init__(
        self,
        network: nn.Module,
        learning_rate: float = 5e-3,
        weight_decay: float = 1e-2,
        warmup_epochs: float = 1.0,
        final_share: float = 0.0,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(
            network,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            warmup_epochs=warmup_epochs,
            final_share=final_share,
            label_smoothing=label_smoothing,
        )

    def setup(self, stage: str) -> None:
        """Calibrate by clouds of the training part; a resumed run reads the same numbers from its checkpoint."""
        if stage != "fit":
            return
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]  # a Lightning attribute without annotation
        require(data is not None, "fit", "be given a data module (for the calibration)", "loaders alone")
        self.require_fits(data)
        self.network.prepare(data.typical(_CALIBRATION_SHAPES))  # type: ignore[operator]  # of every such network
