"""The Lightning module of one's own series: a class or a number of each sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import BinaryAUROC, MulticlassAccuracy

from ccnn_irregular._checks import require
from ccnn_irregular.pipelines.tasks.series.calibration import FEWEST_OF_A_CLASS
from ccnn_irregular.pipelines.tasks.series.network import SeriesNetwork
from ccnn_irregular.pipelines.tasks.series.samples import Samples, SeriesBatch
from ccnn_irregular.pipelines.train.module import TaskModule
from ccnn_irregular.pipelines.train.schedule import Schedule

if TYPE_CHECKING:
    from ccnn_irregular.pipelines.tasks.series.data import SeriesTables

__all__ = ["SeriesModel"]

SCHEDULE = Schedule(learning_rate=1.5e-3, final_share=0.01, decay_generators=True)
_AT_ONCE = 256  # samples, in calibration
_LATEST = 1e300  # finite, for whole series


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

    def calibrate(self, data: SeriesTables) -> str:
        """Fit the calibration to the validation samples; what was done, as a sentence for the reader.

        Where labels have no times, risks are calibrated by what was known at each of several times; where they have,
        by the samples that are judged about these times. Of too few samples of a class, risks stay as they are. Of
        numbers the standard deviation becomes that of the errors at the validation samples.
        """
        schema, rows = self.network.schema, data.indices("validation")
        if schema.kind == "number":
            return self._measure_errors(data.samples.take(rows), data.targets("validation"))
        labels = data.targets("validation").astype(np.int64)
        counts = np.bincount(labels, minlength=len(schema.classes))
        each = ", ".join(f"{count} of {name!r}" for name, count in zip(schema.classes, counts, strict=True))
        if counts.min() < FEWEST_OF_A_CLASS:
            return f"risks are not calibrated: {each} in the validation part, {FEWEST_OF_A_CLASS} of each are needed"
        found, watched = self.network.calibration, data.samples.take(rows)
        timed = bool(np.isfinite(watched.cuts).any())
        was_training = self.training
        self.eval()
        if timed or schema.since == "label":
            logits = np.broadcast_to(watched_logits := self._logits(watched), (len(found.times), *watched_logits.shape))
        else:
            cut = [watched.known_by(np.full(len(rows), time)) for time in found.times.tolist()]
            logits = np.stack([self._logits(part) for part in cut])
        self.train(was_training)
        by_time = timed and len(found.times) > 1
        found.fit(logits, labels, found.shares(np.minimum(watched.cuts, _LATEST)) if by_time else None)
        return f"risks are calibrated{' by time' if len(found.times) > 1 else ''}, with {each} in the validation part"

    def _measure_errors(self, watched: Samples, targets: NDArray[np.float64]) -> str:
        """Take the standard deviation of the answers from samples that were not trained on."""
        was_training = self.training
        self.eval()
        network = self.network
        errors = self._logits(watched)[:, 0] * float(network.target_scale) + float(network.target_mean) - targets
        self.train(was_training)
        network.deviation.fill_(float(np.sqrt(np.square(errors).mean())))
        return (
            f"standard deviation of a prediction: {float(network.deviation):.4g}, by {len(errors)} validation samples"
        )

    def _logits(self, samples: Samples) -> NDArray[np.float64]:
        """What the network answers to all samples, ``(n, K)``."""
        parts = torch.arange(len(samples)).split(_AT_ONCE)
        with torch.no_grad():
            found = [self.network(self._moved(samples.batch(part))).double().cpu() for part in parts]
        return torch.cat(found).numpy()

    def _moved(self, batch: SeriesBatch) -> SeriesBatch:
        return SeriesBatch._make(entry.to(self.device) if isinstance(entry, Tensor) else entry for entry in batch)

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
