"""The Lightning module of a binary outcome: cross-entropy, AUROC and AUPRC of the validation part."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torchmetrics.classification import BinaryAUROC, BinaryAveragePrecision

from ccnn_irregular._checks import require
from ccnn_irregular.pipelines.tasks.risk.calibration import FEWEST_OF_AN_OUTCOME, HourlyCalibration
from ccnn_irregular.pipelines.tasks.risk.data import OUTCOME
from ccnn_irregular.pipelines.tasks.risk.evaluation import Predictions
from ccnn_irregular.pipelines.train.module import TaskModule
from ccnn_irregular.pipelines.train.schedule import Schedule

if TYPE_CHECKING:
    from ccnn_irregular.pipelines.tasks.risk.data import ICUDataModule, StayBatch

__all__ = ["BinaryRisk"]

SCHEDULE = Schedule(learning_rate=1e-3, final_share=0.01, decay_generators=True)

_STAYS_AT_ONCE = 256  # in calibration, where all hours of all stays are looked at


class BinaryRisk(TaskModule):
    """Risk of a binary outcome, one logit a stay; ``calibrate`` makes probabilities of the logits, hour by hour.

    Args:
        network: ``forward(StayBatch) -> logits (B,)``, in training also ``(members, B)``; its ``prepare(batch)`` takes
            all training stays.
        schedule: how it is trained.
    """

    def __init__(self, network: nn.Module, schedule: Schedule = SCHEDULE) -> None:
        super().__init__(network, schedule)
        self.calibration = HourlyCalibration()
        self.val_auroc = BinaryAUROC()
        self.val_auprc = BinaryAveragePrecision()

    def require_trainable(self, data: ICUDataModule) -> None:
        """Refuse parts in which one outcome is missing: AUROC, which chooses the best epoch, has no value there."""
        outcomes = data.cohort.outcomes
        assert outcomes is not None
        for part in ("train", "validation"):
            deaths = outcomes[OUTCOME][data.indices(part)]
            rule = f"hold both outcomes in the {part} part (data.validation, data.held_out and data.sets decide)"
            require(0 < deaths.sum() < len(deaths), "the data", rule, f"{int(deaths.sum())} deaths in {len(deaths)}")

    def probabilities(self, batch: StayBatch, hours: Tensor | None = None) -> Tensor:
        """Calibrated risk ``(B,)`` float64 in [0, 1], without gradients.

        Args:
            batch: B stays.
            hours: ``(B,)`` float64: only what was known by then counts; None = the whole stays.
        """
        if hours is None:
            hours = self.calibration.hours[-1:].expand(len(batch))
        else:
            batch = batch.known_by(hours)
        with torch.no_grad():
            return torch.sigmoid(self.calibration(self(batch), hours))

    def calibrate(self, stays: StayBatch) -> str:
        """Fit the calibration to stays that were not trained on; what was done, as a sentence for the reader.

        Where there are too few deaths or survivors to learn from, the risks stay as they are, and the sentence says so.
        """
        labels = _labels(stays).long().cpu().numpy()
        deaths, survivors = int(labels.sum()), int((1 - labels).sum())
        found = f"{deaths} deaths and {survivors} survivors among the validation stays"
        if min(deaths, survivors) < FEWEST_OF_AN_OUTCOME:
            return f"risks are not calibrated: {found}, at least {FEWEST_OF_AN_OUTCOME} of each are needed"
        was_training = self.training
        self.eval()
        parts = [part.to(self.device) for part in map(stays.take, torch.arange(len(stays)).split(_STAYS_AT_ONCE))]
        with torch.no_grad():
            rows = [
                torch.cat([self(part.known_by(hour.expand(len(part)))) for part in parts])
                for hour in self.calibration.hours
            ]
        self.train(was_training)
        self.calibration.fit(torch.stack(rows).double().cpu().numpy(), labels)
        return f"risks are calibrated by hour, with {found}"

    def training_step(self, batch: StayBatch, batch_idx: int) -> Tensor:
        logits = self(dataclasses.replace(batch, draws=self.draws(batch.record_ids)))
        loss = nn.functional.binary_cross_entropy_with_logits(logits, _labels(batch).expand_as(logits))
        self.log_epoch({"train_loss": loss}, len(batch))
        return loss

    def validation_step(self, batch: StayBatch, batch_idx: int) -> None:
        logits, labels = self(batch), _labels(batch)
        loss = nn.functional.binary_cross_entropy_with_logits(logits, labels)
        # Probabilities: of logits, torchmetrics takes a batch that happens to lie in [0, 1] as it is and passes others
        # through a sigmoid, so that batches are no longer on one scale. In float64, where no two logits become equal.
        risks = torch.sigmoid(logits.double())
        self.val_auroc.update(risks, labels.long())
        self.val_auprc.update(risks, labels.long())
        self.log_epoch({"val_loss": loss, "val_auroc": self.val_auroc, "val_auprc": self.val_auprc}, len(batch))

    def predict_step(self, batch: StayBatch, batch_idx: int) -> Predictions:
        """Risks and, where known, labels of the batch, on the CPU."""
        return Predictions(
            record_ids=batch.record_ids.cpu().numpy(),
            probabilities=self.probabilities(batch).cpu().numpy(),
            labels=None if batch.labels is None else batch.labels.long().cpu().numpy(),
        )


def _labels(batch: StayBatch) -> Tensor:
    if batch.labels is None:
        raise ValueError("training and testing must have outcomes, got a batch without labels")
    return batch.labels
