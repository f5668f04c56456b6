"""The Lightning module of a binary outcome: cross-entropy, AUROC and AUPRC of the validation part."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torchmetrics.classification import BinaryAUROC, BinaryAveragePrecision

from ccnn_irregular._checks import require
from ccnn_irregular.pipelines.tasks.risk.calibration import FEWEST_OF_AN_OUTCOME, HourlyCalibration
from ccnn_irregular.pipelines.tasks.risk.data import OUTCOME
from ccnn_irregular.pipelines.tasks.risk.evaluation import Predictions
from ccnn_irregular.pipelines.train.module import TrainedNetwork

if TYPE_CHECKING:
    from ccnn_irregular.pipelines.tasks.risk.data import ICUDataModule, StayBatch

__all__ = ["BinaryRisk"]

_STAYS_AT_ONCE = 256  # in calibration, where all hours of all stays are looked at


class BinaryRisk(TrainedNetwork):
    """Risk of a binary outcome, one logit a stay; ``calibrate`` makes probabilities of the logits, hour by hour.

    Args:
        network: ``forward(StayBatch) -> logits (B,)``, in training also ``(members, B)``; its
            ``fit_normalisation(cohort)`` is called once with the training stays, and what it stores must be buffers,
            so that a checkpoint carries it to other data.
        learning_rate: peak of the schedule.
        weight_decay: of AdamW; vectors (biases, norms, widths) and masks are exempt.
        warmup_epochs: linear rise before the cosine, in epochs.
        final_share: share of the peak learning rate that is left at the end.
    """

    def __init__(
        self,
        network: nn.Module,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-2,
        warmup_epochs: float = 1.0,
        final_share: float = 0.01,
    ) -> None:
        super().__init__(
            network,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            warmup_epochs=warmup_epochs,
            final_share=final_share,
        )
        self.save_plain_hyperparameters(network)
        self.calibration = HourlyCalibration()
        self.val_auroc = BinaryAUROC()
        self.val_auprc = BinaryAveragePrecision()

    def require_fits(self, data: ICUDataModule) -> None:
        """Refuse parts in which one outcome is missing: AUROC, which chooses the best epoch, has no value there."""
        outcomes = data.cohort.outcomes
        assert outcomes is not None
        for part in ("train", "validation"):
            deaths = outcomes[OUTCOME][data.indices(part)]
            rule = f"hold both outcomes in the {part} part (data.validation, data.held_out and data.sets decide)"
            require(0 < deaths.sum() < len(deaths), "the data", rule, f"{int(deaths.sum())} deaths in {len(deaths)}")

    def setup(self, stage: str) -> None:
        """Take the normalisation from the training stays; a resumed run reads the same numbers from its checkpoint."""
        if stage == "fit":
            data = self.trainer.datamodule  # type: ignore[attr-defined]  # a Lightning attribute without annotation
            require(data is not None, "fit", "be given a data module (for the normalisation)", "loaders alone")
            self.network.fit_normalisation(data.training_cohort())  # type: ignore[operator]

    def forward(self, batch: StayBatch) -> Tensor:
        """Logits ``(B,)``."""
        return self.network(batch)

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
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(batch))
        return loss

    def validation_step(self, batch: StayBatch, batch_idx: int) -> None:
        logits, labels = self(batch), _labels(batch)
        loss = nn.functional.binary_cross_entropy_with_logits(logits, labels)
        # Probabilities: of logits, torchmetrics takes a batch that happens to lie in [0, 1] as it is and passes others
        # through a sigmoid, so that batches are no longer on one scale. In float64, where no two logits become equal.
        risks = torch.sigmoid(logits.double())
        self.val_auroc.update(risks, labels.long())
        self.val_auprc.update(risks, labels.long())
        shown: dict[str, Any] = {"val_loss": loss, "val_auroc": self.val_auroc, "val_auprc": self.val_auprc}
        self.log_dict(shown, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(batch))

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
