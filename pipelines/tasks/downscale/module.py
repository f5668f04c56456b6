"""The Lightning module of downscaling: loss, skill over interpolation, fine fields."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor
from torchmetrics import MeanMetric

from ccnn_irregular._checks import require
from ccnn_irregular.pipelines.tasks.downscale.network import DownscalingNetwork, interpolation
from ccnn_irregular.pipelines.train.module import TaskModule
from ccnn_irregular.pipelines.train.schedule import Schedule

if TYPE_CHECKING:
    from ccnn_irregular.pipelines.tasks.downscale.data import DownscalingBatch, DownscalingDataModule

__all__ = ["Downscaling"]

SCHEDULE = Schedule(learning_rate=1e-2, weight_decay=1e-4, final_share=0.01)


class Downscaling(TaskModule):
    """Fine fields from coarse ones: mean square error in units of the interpolation's own error.

    In training every known node counts alike; in the validation those of a grid of latitudes count by their area.

    Args:
        network: interpolation and CCNN.
        schedule: how it is trained.
    """

    network: DownscalingNetwork

    def __init__(self, network: DownscalingNetwork, schedule: Schedule = SCHEDULE) -> None:
        super().__init__(network, schedule)
        # A nan is an infinite error, which ends the training (see ``run_end``): by default it would be left out, and
        # with "disable" torchmetrics drops the weights.
        self.train_error = MeanMetric(nan_strategy=math.inf)
        self.val_error = MeanMetric(nan_strategy=math.inf)
        self.val_interpolation = MeanMetric(nan_strategy=math.inf)

    def prepare(self, data: DownscalingDataModule) -> None:
        """Tell the network what its fields are, too."""
        self.network.format = data.format()
        super().prepare(data)

    def forward(self, batch: DownscalingBatch) -> Tensor:
        """Fine fields ``(B, C, rows, columns)``."""
        fine: Tensor = self.network(batch.coarse, batch.source, batch.query)
        return fine

    def training_step(self, batch: DownscalingBatch, batch_idx: int) -> Tensor:
        loss, weight = self._error(self(batch), batch, batch.weights)
        # The mean over an epoch is one over known nodes, as that of the validation is.
        self.train_error.update(loss.detach().clone(), weight.clone())  # which it may write to
        self.log_epoch({"train_loss": self.train_error})
        return loss

    def validation_step(self, batch: DownscalingBatch, batch_idx: int) -> None:
        weights = batch.weights * batch.areas
        self.val_error.update(*self._error(self(batch), batch, weights))
        smooth = interpolation(batch.coarse, batch.source, batch.query)
        self.val_interpolation.update(*self._error(smooth, batch, weights))
        self.log_epoch({"val_loss": self.val_error})

    def on_validation_epoch_end(self) -> None:
        missed = self.val_interpolation.compute()
        self.val_interpolation.reset()
        rule = "hold something that cubic interpolation misses: skill over it has no value without (data.validation)"
        require(bool(missed != 0), "the validation patches", rule, "fields that it reproduces exactly")
        skill = 1 - self.val_error.compute() / missed
        self.log("val_skill", skill, prog_bar=True)

    def _error(self, fine: Tensor, batch: DownscalingBatch, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Mean square over the known nodes, each variable in units of what interpolation misses; their weight.

        Args:
            fine: ``(B, C, rows, columns)``.
            batch: with what is right.
            weights: what each node counts, of a shape that broadcasts to that of ``fine``.
        """
        missing = batch.fine.isnan()
        # Zero before anything is multiplied: nan times a weight of zero is nan, in gradients too.
        errors = (fine - batch.fine).masked_fill(missing, 0.0) / self.network.residual.reshape(1, -1, 1, 1)
        total = (weights * ~missing).sum()
        return (errors.square() * weights).sum() / total, total
