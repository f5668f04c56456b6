"""Lightning modules: what every training shares (optimiser, schedule, what is saved), and that of a binary outcome."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torchmetrics.classification import BinaryAUROC, BinaryAveragePrecision

from ccnn_irregular._checks import require
from ccnn_irregular.optimisation import parameter_groups, warmup_cosine
from ccnn_irregular.pipelines.evaluation import Predictions

if TYPE_CHECKING:
    from ccnn_irregular.pipelines.icu_data import StayBatch

__all__ = ["BinaryRisk", "TrainedNetwork"]


class TrainedNetwork(LightningModule):
    """A network trained with AdamW, warm-up and cosine, whose checkpoints load with ``weights_only=True``.

    A subclass calls ``save_plain_hyperparameters(network)`` in its constructor.

    Args:
        network: what is trained.
        learning_rate: peak of the schedule.
        weight_decay: of AdamW; vectors (biases, norms, widths) and masks are exempt.
        warmup_epochs: linear rise before the cosine, in epochs.
        final_share: share of the peak learning rate that is left at the end.
        mask_rate: learning rate of the masks relative to the others', see ``parameter_groups``.
        decay_generators: decay the matrices of the generators too.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        learning_rate: float,
        weight_decay: float,
        warmup_epochs: float,
        final_share: float,
        mask_rate: float = 1.0,
        decay_generators: bool = True,
    ) -> None:
        super().__init__()
        require(learning_rate > 0, "learning_rate", "be positive", learning_rate)
        require(weight_decay >= 0, "weight_decay", "not be negative", weight_decay)
        require(warmup_epochs >= 0, "warmup_epochs", "not be negative", warmup_epochs)
        require(0 <= final_share <= 1, "final_share", "be in [0, 1]", final_share)
        require(mask_rate > 0, "mask_rate", "be positive", mask_rate)
        self.network = network
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.warmup_epochs = warmup_epochs
        self.final_share = final_share
        self.mask_rate = mask_rate
        self.decay_generators = decay_generators

    def save_plain_hyperparameters(self, network: nn.Module) -> None:
        """Keep what a checkpoint can be rebuilt from, and no object that ``weights_only=True`` would refuse.

        From the command line these are the parsed configuration, network included. From Python "network" is the module
        itself: its weights are in the checkpoint anyway, and load_from_checkpoint(path, network=...) takes a new one.
        """
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*is an instance of `nn.Module`")
            self.save_hyperparameters(logger=False)
        if self.hparams.get("network") is network:
            self.remove_ignored_hparams(["network"])

    def require_fits(self, data: Any) -> None:
        """Refuse data that the network cannot read, with ValueError; before anything is written."""

    def configure_optimizers(self) -> Any:
        groups = parameter_groups(
            self.network,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            mask_rate=self.mask_rate,
            decay_generators=self.decay_generators,
        )
        optimiser = torch.optim.AdamW(groups, lr=self.learning_rate)
        steps = self.trainer.estimated_stepping_batches
        require(math.isfinite(steps), "max_epochs", "be set: the learning rate falls to its end over it", steps)
        warmup = round(self.warmup_epochs * steps / max(self.trainer.max_epochs or 1, 1))

        def share(step: int) -> float:
            return warmup_cosine(step, steps=int(steps), warmup=warmup, final_share=self.final_share)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, share)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class BinaryRisk(TrainedNetwork):
    """Risk of a binary outcome, one logit a stay.

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
        self.val_auroc = BinaryAUROC()
        self.val_auprc = BinaryAveragePrecision()

    def setup(self, stage: str) -> None:
        """Take the normalisation from the training stays; a resumed run reads the same numbers from its checkpoint."""
        if stage == "fit":
            data = self.trainer.datamodule  # type: ignore[attr-defined]  # a Lightning attribute without annotation
            require(data is not None, "fit", "be given a data module (for the normalisation)", "loaders alone")
            self.network.fit_normalisation(data.training_cohort())  # type: ignore[operator]

    def forward(self, batch: StayBatch) -> Tensor:
        """Logits ``(B,)``."""
        return self.network(batch)

    def probabilities(self, batch: StayBatch) -> Tensor:
        """Risk ``(B,)`` float64 in [0, 1], without gradients."""
        with torch.no_grad():
            return torch.sigmoid(self(batch).double())

    def training_step(self, batch: StayBatch, batch_idx: int) -> Tensor:
        logits = self(batch)
        loss = nn.functional.binary_cross_entropy_with_logits(logits, _labels(batch).expand_as(logits))
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(batch))
        return loss

    def validation_step(self, batch: StayBatch, batch_idx: int) -> None:
        logits, labels = self(batch), _labels(batch)
        loss = nn.functional.binary_cross_entropy_with_logits(logits, labels)
        self.val_auroc.update(logits, labels.long())
        self.val_auprc.update(logits, labels.long())
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
