"""The Lightning module of the field task: hidden values are to be found from those that are left."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import MeanMetric

from ccnn_irregular._checks import reject, require
from ccnn_irregular.pipelines.tasks.field.batch import FieldBatch
from ccnn_irregular.pipelines.tasks.field.data import FieldDataModule
from ccnn_irregular.pipelines.tasks.field.network import FieldNetwork
from ccnn_irregular.pipelines.tasks.field.records import in_own_reference
from ccnn_irregular.pipelines.tasks.field.sizes import FieldSizes
from ccnn_irregular.pipelines.train.module import TaskModule
from ccnn_irregular.pipelines.train.schedule import Schedule

__all__ = ["FieldReconstruction"]

SCHEDULE = Schedule(final_share=0.02)
SIZES = FieldSizes()


class FieldReconstruction(TaskModule):
    """Self-supervised: the mean squared error of hidden values, in units of the error of the first guess.

    In training every value asked for counts alike; in the validation nodes of a grid of latitudes count by their area.

    Args:
        network: see ``FieldNetwork``; None = ``ccnn fit`` takes one that suits the training part, see ``FieldSizes``.
        sizes: of the network that is taken.
        variables: names of the channels; () = the data's. ``ccnn fit`` keeps them in the checkpoint.
        schedule: how it is trained.

    Raises:
        ValueError: no network, in Python: ``fitting_network`` makes one.
    """

    network: FieldNetwork

    def __init__(
        self,
        network: FieldNetwork | None = None,
        sizes: FieldSizes = SIZES,
        variables: Sequence[str] = (),
        schedule: Schedule = SCHEDULE,
    ) -> None:
        if network is None:
            reject("network", "be given (fitting_network(fields, usable) makes one that suits the data)", None)
        super().__init__(network, schedule)
        self.variables = tuple(variables)
        self.val_error = MeanMetric(nan_strategy=math.inf)

    def require_fits(self, data: FieldDataModule) -> None:
        """Refuse data of other channels or axes."""
        super().require_fits(data)
        names = tuple(axis.name for axis in self.network.metric.axes)
        require(names == data.samples.axes, "axes", f"be the data's {', '.join(data.samples.axes)}", names)
        found = data.samples.channels
        known = self.variables in ((), found)
        require(
            known, "data.variables", f"be those that were trained on: {', '.join(self.variables)}", ", ".join(found)
        )

    def training_step(self, batch: FieldBatch, batch_idx: int) -> Tensor:
        squares, known = self._squares(batch)
        loss = (squares.sum() / known.sum().clamp_min(1)).float()
        self.log_epoch({"train_loss": loss}, len(batch.targets))
        return loss

    def _squares(self, batch: FieldBatch) -> tuple[Tensor, Tensor]:
        """Squared errors at the queries ``(m, C)``, that of the first guess being 1, 0 where no target is known."""
        answer, known = self(batch), batch.targets.isfinite()
        targets = self.network.normalised(batch.targets).where(known, answer.detach())
        return ((answer - targets) / self.network.first_error).square(), known

    def validation_step(self, batch: FieldBatch, batch_idx: int) -> None:
        squares, known = self._squares(batch)
        self.val_error.update(squares.sum(1) / known.sum(1).clamp_min(1), batch.weights)
        self.log_epoch({"val_loss": self.val_error})

    def on_validation_epoch_end(self) -> None:
        self.log("val_score", -self.val_error.compute(), prog_bar=True)

    def fit_spread(self, data: FieldDataModule) -> None:
        """Fit the standard deviations of the answers to the validation part, whose stations were not trained on."""
        batches = list(data.loader("validation", "whole"))
        values, deviations = (torch.cat(parts) for parts in zip(*map(self.network.predict, batches), strict=True))
        rows = torch.cat([batch.rows for batch in batches])
        values = in_own_reference(data.samples, values, rows)
        self.network.fit_spread(values, deviations, data.samples.values[rows])

    def predict_step(self, batch: FieldBatch, batch_idx: int) -> Tensor:
        """Estimates at the queries and their standard deviations ``(m, 2, C)``, float64, in the field's units."""
        return torch.stack(self.network.predict(batch), 1).cpu()
