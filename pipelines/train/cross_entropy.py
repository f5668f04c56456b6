"""What the modules of all tasks share whose network tells classes apart: cross-entropy, and a metric beside it."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn
from torchmetrics import Metric

from ccnn_irregular._checks import require
from ccnn_irregular.pipelines.train.module import TaskModule, attribute_of
from ccnn_irregular.pipelines.train.schedule import Schedule

__all__ = ["CrossEntropy"]


class CrossEntropy(TaskModule):
    """One of several classes for each row of the logits: cross-entropy.

    A subclass implements ``new_metric`` and ``predict_step``, and changes batches or adds to the loss around
    ``training_step``. Batches have ``labels``, as many as the logits have rows.

    Args:
        network: ``forward(batch) -> logits (N, classes)`` with attributes ``classes`` and ``in_channels``.
        schedule: how it is trained.
        label_smoothing: share of each label that is spread over all classes.

    Attributes:
        metric: what ``new_metric`` measures, as the history names it after "train_" and "val_".
    """

    metric: ClassVar[str]

    def __init__(self, network: nn.Module, schedule: Schedule, label_smoothing: float = 0.0) -> None:
        super().__init__(network, schedule)
        require(0 <= label_smoothing < 1, "label_smoothing", "lie in [0, 1)", label_smoothing)
        self.label_smoothing = label_smoothing
        classes = int(attribute_of(network, "classes"))
        self.train_metric = self.new_metric(classes)
        self.val_metric = self.new_metric(classes)

    @staticmethod
    def new_metric(classes: int) -> Metric:
        """What is measured of logits and labels, over an epoch."""
        raise NotImplementedError("a module with CrossEntropy must implement new_metric")

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        logits = self(batch)
        self.train_metric.update(logits, batch.labels)
        # Without smoothing, to be compared with the validation loss.
        plain = nn.functional.cross_entropy(logits.detach(), batch.labels)
        self.log_epoch({"train_loss": plain, f"train_{self.metric}": self.train_metric}, len(batch))
        return nn.functional.cross_entropy(logits, batch.labels, label_smoothing=self.label_smoothing)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        logits = self(batch)
        loss = nn.functional.cross_entropy(logits, batch.labels)
        self.val_metric.update(logits, batch.labels)
        # The likelihood's best value marks the best epoch: a share of a small validation part is the same in many.
        self.log_epoch(
            {"val_loss": loss, "val_log_likelihood": -loss, f"val_{self.metric}": self.val_metric}, len(batch)
        )
