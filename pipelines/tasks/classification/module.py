"""The Lightning module of a classification: loss, penalties, accuracy, predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from ccnn_irregular._checks import reject, require
from ccnn_irregular.optimisation import norm_penalty
from ccnn_irregular.pipelines.tasks.classification.augmentation import Augmentation
from ccnn_irregular.pipelines.tasks.classification.shiftwise import ShiftwiseClassifier
from ccnn_irregular.pipelines.train.cross_entropy import CrossEntropy
from ccnn_irregular.pipelines.train.module import timed
from ccnn_irregular.pipelines.train.schedule import Schedule

if TYPE_CHECKING:
    from ccnn_irregular.pipelines.tasks.classification.data import SampleBatch, SampleDataModule

__all__ = ["ClassPredictions", "Classification", "SampleClasses"]

SCHEDULE = Schedule(learning_rate=1e-2, weight_decay=1e-4, warmup_epochs=5.0)


@dataclass  # not frozen: Lightning refuses to pass frozen dataclasses from a step to the callbacks
class ClassPredictions:
    """Predicted classes.

    Attributes:
        probabilities: ``(B, classes)`` float32.
        labels: ``(B,)`` int64.
        seconds: what the network took, a sample.
    """

    probabilities: NDArray[np.float32]
    labels: NDArray[np.int64]
    seconds: float

    @staticmethod
    def joined(batches: Sequence[ClassPredictions]) -> ClassPredictions:
        """All batches as one; seconds: the median batch's, for the first ones also prepare."""
        return ClassPredictions(
            np.concatenate([batch.probabilities for batch in batches]),
            np.concatenate([batch.labels for batch in batches]),
            float(np.median([batch.seconds for batch in batches])),
        )

    @property
    def predicted(self) -> NDArray[np.int64]:
        """Number of the most probable class of each sample, ``(B,)``."""
        return self.probabilities.argmax(1)

    @property
    def correct(self) -> int:
        """Number of samples whose predicted class is right."""
        return int((self.predicted == self.labels).sum())

    @property
    def log_likelihood(self) -> float:
        """Mean logarithm of the probability that the true class was given."""
        given = np.take_along_axis(self.probabilities, self.labels[:, None], 1)
        return float(np.log(given.clip(np.finfo(np.float32).tiny)).mean())


class SampleClasses(CrossEntropy):
    """One of several classes for each sample: cross-entropy, accuracy, predictions.

    Args:
        network: ``forward(SampleBatch) -> logits (B, classes)`` with attributes ``classes`` and ``in_channels``.
        schedule: how it is trained.
        label_smoothing: share of each label that is spread over all classes.
    """

    metric = "accuracy"

    @staticmethod
    def new_metric(classes: int) -> Metric:
        return MulticlassAccuracy(classes, average="micro")

    def predict_step(self, batch: SampleBatch, batch_idx: int) -> ClassPredictions:
        """Probabilities and labels of the batch, on the CPU."""
        logits, seconds = timed(self, batch)
        probabilities = logits.float().softmax(1)
        return ClassPredictions(probabilities.cpu().numpy(), batch.labels.cpu().numpy(), seconds / len(batch))


class Classification(SampleClasses):
    """One of several classes for each sample: cross-entropy, penalties of the kernels, changes at random.

    Args:
        network: ``forward(SampleBatch) -> logits (B, classes)`` with attributes ``classes`` and ``in_channels``.
        schedule: how it is trained.
        label_smoothing: share of each label that is spread over all classes.
        norm_penalty: factor of ``ccnn_irregular.optimisation.norm_penalty``, the published form of weight decay.
        alias_penalty: factor of the share of the kernels' energy that samplings of ``alias_steps`` cannot carry.
        alias_steps: steps per axis of the coarsest sampling the network is to serve, coordinate units.
        drop: see ``Augmentation``, as all below.
        stretch: see there.
        low_pass: see there.
        shift: see there.
        flip: see there.
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule = SCHEDULE,
        label_smoothing: float = 0.0,
        norm_penalty: float = 0.0,
        alias_penalty: float = 0.0,
        alias_steps: Sequence[float] = (),
        drop: float = 0.0,
        stretch: float = 0.0,
        low_pass: float | None = None,
        shift: Sequence[float] = (),
        flip: bool | list[int] = False,
    ) -> None:
        super().__init__(network, schedule, label_smoothing)
        for name, factor in (("norm_penalty", norm_penalty), ("alias_penalty", alias_penalty)):
            require(factor >= 0, name, "not be negative", factor)
        require(alias_penalty == 0 or len(alias_steps) > 0, "alias_steps", "be given with alias_penalty", alias_steps)
        self.norm_penalty = norm_penalty
        self.alias_penalty = alias_penalty
        self.alias_steps = tuple(alias_steps)
        self.augmentation = Augmentation(
            drop, stretch, low_pass, tuple(shift), flip if isinstance(flip, bool) else tuple(flip)
        )

    def require_trainable(self, data: SampleDataModule) -> None:
        """Refuse a channel of which the training part holds no value."""
        missing = data.training_values()[0].isnan().movedim(1, 0).flatten(1).all(1)
        never = missing.nonzero().flatten().tolist()
        rule = "be measured in some sample of the training part; leave it out of the files"
        require(not never, f"channel {', '.join(map(str, never))} (from 0 on)", rule, "missing values alone")

    def prepare(self, data: SampleDataModule) -> None:
        """Normalise and calibrate the network; weigh the points that augmentation leaves as the data module does."""
        self.augmentation = Augmentation(**vars(self.augmentation) | {"cap": data.cap})
        super().prepare(data)

    def training_step(self, batch: SampleBatch, batch_idx: int) -> Tensor:
        if self.augmentation.changes:
            batch = self.augmentation(batch, self.draws(batch.ids))
        return super().training_step(batch, batch_idx) + self._penalties(batch)

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Choose the groups of a sparse network by its first gradients."""
        if isinstance(self.network, ShiftwiseClassifier):
            self.network.before_step(int(self.trainer.estimated_stepping_batches))

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """A step, after which groups of a sparse network are replaced."""
        super().optimizer_step(*args, **kwargs)
        if isinstance(self.network, ShiftwiseClassifier):
            self.network.after_step()

    def _penalties(self, batch: SampleBatch) -> Tensor | float:
        penalty: Tensor | float = 0.0
        if self.alias_penalty:
            energy = self.network.energy_above(self.alias_steps)  # type: ignore[operator]  # continuous kernels only
            penalty = penalty + self.alias_penalty * energy
        if self.norm_penalty:
            latent = getattr(getattr(self.network, "cnn", None), "latent", None)
            grid = (batch.domain if latent is None else latent).uniform
            if grid is None:
                reject("norm_penalty", "be 0 without a grid to sample the kernels on", self.norm_penalty)
            penalty = penalty + self.norm_penalty * norm_penalty(self.network, grid)
        return penalty
