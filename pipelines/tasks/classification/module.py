"""The Lightning module of a classification: loss, penalties, accuracy, predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from ccnn_irregular._checks import reject, require
from ccnn_irregular.optimisation import norm_penalty
from ccnn_irregular.pipelines.tasks.classification.augmentation import Augmentation
from ccnn_irregular.pipelines.train.module import TrainedNetwork, timed

if TYPE_CHECKING:
    from ccnn_irregular.pipelines.tasks.classification.data import SampleBatch, SampleDataModule

__all__ = ["ClassPredictions", "Classification"]

# Samples the network is calibrated on.
_CALIBRATION_SAMPLES = 64


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
        return self.probabilities.argmax(1)

    @property
    def correct(self) -> int:
        return int((self.predicted == self.labels).sum())

    @property
    def log_likelihood(self) -> float:
        """Mean logarithm of the probability that the true class was given."""
        given = np.take_along_axis(self.probabilities, self.labels[:, None], 1)
        return float(np.log(given.clip(np.finfo(np.float32).tiny)).mean())


class Classification(TrainedNetwork):
    """One of several classes for each sample: cross-entropy.

    Args:
        network: ``forward(SampleBatch) -> logits (B, classes)`` with an attribute ``classes``; its
            ``prepare(values, batch)`` is called once with the training values and a batch of them, and what it stores
            must be buffers or parameters, so that a checkpoint carries it to other data.
        learning_rate: peak of the schedule.
        weight_decay: of AdamW; vectors (biases, norms, widths), masks and generators are exempt.
        warmup_epochs: linear rise before the cosine, in epochs.
        final_share: share of the peak learning rate that is left at the end.
        mask_rate: learning rate of the masks relative to the others', see ``parameter_groups``.
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
        learning_rate: float = 1e-2,
        weight_decay: float = 1e-4,
        warmup_epochs: float = 5.0,
        final_share: float = 0.0,
        mask_rate: float = 1.0,
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
        require(0 <= label_smoothing < 1, "label_smoothing", "lie in [0, 1)", label_smoothing)
        for name, factor in (("norm_penalty", norm_penalty), ("alias_penalty", alias_penalty)):
            require(factor >= 0, name, "not be negative", factor)
        require(alias_penalty == 0 or len(alias_steps) > 0, "alias_steps", "be given with alias_penalty", alias_steps)
        self.label_smoothing = label_smoothing
        self.norm_penalty = norm_penalty
        self.alias_penalty = alias_penalty
        self.alias_steps = tuple(alias_steps)
        self.augmentation = Augmentation(
            drop, stretch, low_pass, tuple(shift), flip if isinstance(flip, bool) else tuple(flip)
        )
        classes = int(network.classes)  # type: ignore[arg-type]  # an attribute of every such network
        self.train_accuracy = MulticlassAccuracy(classes, average="micro")
        self.val_accuracy = MulticlassAccuracy(classes, average="micro")

    def require_fits(self, data: SampleDataModule) -> None:
        """Refuse data of other channels or another number of classes."""
        for name, there in (("classes", len(data.classes)), ("in_channels", data.channels)):
            here = getattr(self.network, name)
            require(here == there, name, f"be the data's {there}", here)

    def setup(self, stage: str) -> None:
        """Normalise and calibrate by the training part; a resumed run reads the same numbers from its checkpoint."""
        if stage != "fit":
            return
        data = self.trainer.datamodule  # type: ignore[attr-defined]  # a Lightning attribute without annotation
        require(data is not None, "fit", "be given a data module (for the normalisation)", "loaders alone")
        self.require_fits(data)
        self.augmentation = Augmentation(**vars(self.augmentation) | {"cap": data.cap})
        batch = data.typical_batch(_CALIBRATION_SAMPLES)
        self.network.prepare(data.training_values(), batch)  # type: ignore[operator]  # of every such network

    def forward(self, batch: SampleBatch) -> Tensor:
        """Logits ``(B, classes)``."""
        return self.network(batch)

    def training_step(self, batch: SampleBatch, batch_idx: int) -> Tensor:
        if self.augmentation.changes:
            batch = self.augmentation(batch, self.draws(batch.ids))
        logits = self(batch)
        loss = nn.functional.cross_entropy(logits, batch.labels, label_smoothing=self.label_smoothing)
        self.train_accuracy.update(logits, batch.labels)
        # Without smoothing, to be compared with the validation loss.
        plain = nn.functional.cross_entropy(logits.detach(), batch.labels)
        shown: dict[str, Any] = {"train_loss": plain, "train_accuracy": self.train_accuracy}
        self.log_dict(shown, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(batch))
        return loss + self._penalties(batch)

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

    def validation_step(self, batch: SampleBatch, batch_idx: int) -> None:
        logits = self(batch)
        loss = nn.functional.cross_entropy(logits, batch.labels)
        self.val_accuracy.update(logits, batch.labels)
        # Its best value marks the best epoch: accuracy on a small validation part is the same in many of them.
        shown: dict[str, Any] = {"val_loss": loss, "val_log_likelihood": -loss, "val_accuracy": self.val_accuracy}
        self.log_dict(shown, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(batch))

    def predict_step(self, batch: SampleBatch, batch_idx: int) -> ClassPredictions:
        """Probabilities and labels of the batch, on the CPU."""
        logits, seconds = timed(self, batch)
        probabilities = logits.float().softmax(1)
        return ClassPredictions(probabilities.cpu().numpy(), batch.labels.cpu().numpy(), seconds / len(batch))
