"""The Lightning module of downscaling: loss, skill over interpolation, fine fields."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import MeanMetric

from ccnn_irregular._checks import require
from ccnn_irregular.pipelines.tasks.downscale.network import DownscalingNetwork, interpolation
from ccnn_irregular.pipelines.train.module import TrainedNetwork

if TYPE_CHECKING:
    from ccnn_irregular.pipelines.tasks.downscale.data import FieldBatch, FieldDataModule

__all__ = ["Downscaling"]

# Patches the network is prepared with.
_PREPARED_WITH = 64


class Downscaling(TrainedNetwork):
    """Fine fields from coarse ones: mean square error in units of the interpolation's own error.

    In training every known node counts alike; in the validation those of a grid of latitudes count by their area.

    Args:
        network: interpolation and CCNN.
        learning_rate: peak of the schedule.
        weight_decay: of AdamW; vectors (biases, norms, widths), masks and generators are exempt.
        warmup_epochs: linear rise before the cosine, in epochs.
        final_share: share of the peak learning rate that is left at the end.
        mask_rate: learning rate of the masks relative to the others', see ``parameter_groups``.
    """

    network: DownscalingNetwork

    def __init__(
        self,
        network: DownscalingNetwork,
        learning_rate: float = 1e-2,
        weight_decay: float = 1e-4,
        warmup_epochs: float = 1.0,
        final_share: float = 0.01,
        mask_rate: float = 1.0,
    ) -> None:
        super().__init__(
            network,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            warmup_epochs=warmup_epochs,
            final_share=final_share,
            mask_rate=mask_rate,
            decay_generators=False,
        )
        self.save_plain_hyperparameters(network)
        # A nan is an infinite error, which ends the training (see ``run_end``): by default it would be left out, and
        # with "disable" torchmetrics drops the weights.
        self.train_error = MeanMetric(nan_strategy=math.inf)
        self.val_error = MeanMetric(nan_strategy=math.inf)
        self.val_interpolation = MeanMetric(nan_strategy=math.inf)

    def require_fits(self, data: FieldDataModule) -> None:
        """Refuse data of another number of variables."""
        there, here = len(data.variables), self.network.in_channels
        require(here == there, "in_channels", f"be the data's {there} variables", here)

    def setup(self, stage: str) -> None:
        """Prepare the network by training patches; a resumed run reads the same numbers from its checkpoint."""
        if stage != "fit":
            return
        data = self.trainer.datamodule  # type: ignore[attr-defined]  # a Lightning attribute without annotation
        require(data is not None, "fit", "be given a data module (for the normalisation)", "loaders alone")
        self.require_fits(data)
        rows = data.patches["train"]
        spread = np.linspace(0, len(rows) - 1, min(len(rows), _PREPARED_WITH)).round().astype(np.int64)
        batch = data.batch(rows[spread])
        self.network.prepare(data.format(), batch.coarse, batch.fine, batch.source, batch.query)

    def forward(self, batch: FieldBatch) -> Tensor:
        """Fine fields ``(B, C, rows, columns)``."""
        fine: Tensor = self.network(batch.coarse, batch.source, batch.query)
        return fine

    def training_step(self, batch: FieldBatch, batch_idx: int) -> Tensor:
        loss, weight = self._error(self(batch), batch, batch.weights)
        # The mean over an epoch is one over known nodes, as that of the validation is.
        self.train_error.update(loss.detach().clone(), weight.clone())  # which it may write to
        self.log("train_loss", self.train_error, on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def validation_step(self, batch: FieldBatch, batch_idx: int) -> None:
        weights = batch.weights * batch.areas
        self.val_error.update(*self._error(self(batch), batch, weights))
        smooth = interpolation(batch.coarse, batch.source, batch.query)
        self.val_interpolation.update(*self._error(smooth, batch, weights))
        self.log("val_loss", self.val_error, on_step=False, on_epoch=True, prog_bar=True)

    def on_validation_epoch_end(self) -> None:
        missed = self.val_interpolation.compute()
        self.val_interpolation.reset()
        rule = "hold something that cubic interpolation misses: skill over it has no value without (data.validation)"
        require(bool(missed != 0), "the validation patches", rule, "fields that it reproduces exactly")
        skill = 1 - self.val_error.compute() / missed
        self.log("val_skill", skill, prog_bar=True)

    def _error(self, fine: Tensor, batch: FieldBatch, weights: Tensor) -> tuple[Tensor, Tensor]:
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

    @torch.no_grad()
    def fine_fields(self, coarse: Tensor, source: Any, query: Any) -> Tensor:
        """``(B, C, rows, columns)`` on the fine grid in evaluation mode, one field after the other."""
        self.eval()
        return torch.cat([self.network(field[None], source, query) for field in coarse])
