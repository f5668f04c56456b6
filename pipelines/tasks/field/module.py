"""The Lightning module of the field task: hidden values are to be found from those that are left."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import MeanMetric

from ccnn_irregular._checks import require
from ccnn_irregular.pipelines.tasks.field.data import FieldBatch, FieldDataModule
from ccnn_irregular.pipelines.tasks.field.network import FieldNetwork
from ccnn_irregular.pipelines.train.module import TrainedNetwork

__all__ = ["FieldEstimates", "FieldReconstruction"]


@dataclass  # not frozen: Lightning refuses to pass frozen dataclasses from a step to the callbacks
class FieldEstimates:
    """Estimates at the queries of a batch.

    Attributes:
        rows: ``(m,)`` int64, rows in the set of fields.
        values: ``(m, C)`` float64, in the field's units.
    """

    rows: NDArray[np.int64]
    values: NDArray[np.float64]


class FieldReconstruction(TrainedNetwork):
    """Self-supervised: the mean squared error of hidden values, in units of the error of the first guess.

    In training every value asked for counts alike; in the validation nodes of a grid of latitudes count by their area.

    Args:
        network: see ``FieldNetwork``.
        learning_rate: peak of the schedule.
        weight_decay: of AdamW; vectors (biases, norms, widths, covariances), masks and generators are exempt.
        warmup_epochs: linear rise before the cosine, in epochs.
        final_share: share of the peak learning rate that is left at the end.
        mask_rate: learning rate of the masks relative to the others', see ``parameter_groups``.
    """

    def __init__(
        self,
        network: FieldNetwork,
        learning_rate: float = 5e-3,
        weight_decay: float = 1e-2,
        warmup_epochs: float = 1.0,
        final_share: float = 0.02,
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
        self.val_error = MeanMetric(nan_strategy=math.inf)

    def require_fits(self, data: FieldDataModule) -> None:
        """Refuse data of other channels or axes."""
        network = self._fields()
        there = len(data.samples.channels)
        rule = f"be the data's {there} ({', '.join(data.samples.channels)})"
        require(network.channels == there, "channels", rule, network.channels)
        names = tuple(axis.name for axis in network.metric.axes)
        require(names == data.samples.axes, "axes", f"be the data's {', '.join(data.samples.axes)}", names)

    def setup(self, stage: str) -> None:
        """Normalise by the training part; a resumed run reads the same numbers from its checkpoint."""
        if stage == "fit":
            data = self.trainer.datamodule  # type: ignore[attr-defined]  # a Lightning attribute without annotation
            require(data is not None, "fit", "be given a data module (for the normalisation)", "loaders alone")
            self.require_fits(data)
            self._fields().prepare(data.training_values(), next(iter(data.val_dataloader())))

    def _fields(self) -> FieldNetwork:
        assert isinstance(self.network, FieldNetwork)
        return self.network

    def forward(self, batch: FieldBatch) -> Tensor:
        """Normalised values at the queries ``(m, C)``."""
        return self.network(batch)

    def training_step(self, batch: FieldBatch, batch_idx: int) -> Tensor:
        loss = self._squares(batch).mean().float()
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(batch.targets))
        return loss

    def _squares(self, batch: FieldBatch) -> Tensor:
        """Squared errors at the queries ``(m, C)``, that of the first guess being 1."""
        network = self._fields()
        return ((self(batch) - network.normalised(batch.targets)) / network.first_error).square()

    def validation_step(self, batch: FieldBatch, batch_idx: int) -> None:
        self.val_error.update(self._squares(batch).mean(1), batch.weights)
        self.log("val_loss", self.val_error, on_step=False, on_epoch=True, prog_bar=True)

    def on_validation_epoch_end(self) -> None:
        self.log("val_score", -self.val_error.compute(), prog_bar=True)

    def predict_step(self, batch: FieldBatch, batch_idx: int) -> FieldEstimates:
        """Estimates in the field's units, on the CPU."""
        return FieldEstimates(batch.rows.cpu().numpy(), self._fields().predict(batch).cpu().numpy())
