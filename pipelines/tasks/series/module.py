"""The Lightning module of one's own series: a class or a number of each sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import BinaryAUROC, MulticlassAccuracy

from ccnn_irregular._checks import require
from ccnn_irregular.pipelines.tasks.series.network import SeriesNetwork
from ccnn_irregular.pipelines.tasks.series.samples import SeriesBatch
from ccnn_irregular.pipelines.train.module import TaskModule
from ccnn_irregular.pipelines.train.schedule import Schedule

if TYPE_CHECKING:
    from ccnn_irregular.pipelines.tasks.series.data import SeriesTables

__all__ = ["SeriesModel"]

SCHEDULE = Schedule(learning_rate=1.5e-3, final_share=0.01, decay_generators=True)


class SeriesModel(TaskModule):
    """Trained by the cross-entropy, of numbers by the squared error.

    The best epoch has the highest AUROC of two classes, accuracy of several, or share of the variance of numbers that
    is explained.

    Args:
        network: see ``SeriesNetwork``.
        schedule: how it is trained.
    """

    network: SeriesNetwork

    def __init__(self, network: SeriesNetwork, schedule: Schedule = SCHEDULE) -> None:
        super().__init__(network, schedule)
        kind, classes = network.schema.kind, len(network.schema.classes)
        scores: dict[str, Metric] = {"number": MeanMetric(), "binary": BinaryAUROC()}
        self.val_score = scores[kind] if kind in scores else MulticlassAccuracy(classes, average="micro")

    def require_trainable(self, data: SeriesTables) -> None:
        """Refuse parts without several labels: nothing is learned there, or no best epoch chosen."""
        for part in ("train", "validation"):
            targets = data.targets(part)
            rule = f"differ in the {part} part (data.validation, data.test and data.split_seed decide)"
            several = len(set(targets.tolist())) > 1
            require(several or self.network.schema.kind == "classes", "labels", rule, f"{len(targets)} alike")

    def loss(self, answers: Tensor, targets: Tensor) -> Tensor:
        """Mean over samples and members; ``answers`` are ``(..., B, outputs)``."""
        kind = self.network.schema.kind
        if kind == "classes":
            repeated = targets.long().expand(answers.shape[:-1]).flatten()
            return nn.functional.cross_entropy(answers.flatten(0, -2), repeated)
        single = answers[..., 0]
        if kind == "binary":
            return nn.functional.binary_cross_entropy_with_logits(single, targets.float().expand_as(single))
        return nn.functional.mse_loss(single, self.network.scaled(targets).expand_as(single))

    def training_step(self, batch: SeriesBatch, batch_idx: int) -> Tensor:
        loss = self.loss(self(batch._replace(draws=self.draws(batch.ids))), batch.targets)
        self.log_epoch({"train_loss": loss}, len(batch.ids))
        return loss

    def validation_step(self, batch: SeriesBatch, batch_idx: int) -> None:
        answers = self(batch)
        kind, targets = self.network.schema.kind, batch.targets
        if kind == "number":
            self.val_score.update(1 - (answers[..., 0] - self.network.scaled(targets)).square())
        else:
            # In float64 no two probabilities become equal; probabilities put all batches on one scale.
            self.val_score.update(answers[:, 0].double().sigmoid() if kind == "binary" else answers, targets.long())
        self.log_epoch({"val_loss": self.loss(answers, targets), "val_score": self.val_score}, len(batch.ids))

    def predict_step(self, batch: SeriesBatch, batch_idx: int) -> Tensor:
        """Probabilities or numbers, on the CPU, see ``SeriesNetwork.answers``."""
        with torch.no_grad():
            return self.network.answers(batch).cpu()
