"""The Lightning module of a segmentation: cross-entropy and soft Dice, Dice of each label, predicted labels."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics import MeanMetric

from ccnn_irregular._checks import require
from ccnn_irregular.datasets.decathlon import label_dtype
from ccnn_irregular.datasets.processing.interpolation import NodeMethod
from ccnn_irregular.pipelines.tasks.segmentation.augmentation import VolumeAugmentation
from ccnn_irregular.pipelines.tasks.segmentation.batch import Intensities, resampled_batch, standardised
from ccnn_irregular.pipelines.tasks.segmentation.surfaces import surface_distance
from ccnn_irregular.pipelines.train.module import TaskModule, attribute_of, timed
from ccnn_irregular.pipelines.train.resampling import onto_grid
from ccnn_irregular.pipelines.train.schedule import Schedule

if TYPE_CHECKING:
    from ccnn_irregular.pipelines.tasks.segmentation.batch import VolumeBatch
    from ccnn_irregular.pipelines.tasks.segmentation.data import VolumeDataModule

__all__ = ["Segmentation", "SegmentedVolume", "VoxelResampling", "dice", "soft_dice_loss"]

SCHEDULE = Schedule(learning_rate=3e-3, weight_decay=1e-2, warmup_epochs=1.0)

# Volumes that a message names.
_NAMES = 20


@dataclass  # not frozen: Lightning refuses to pass frozen dataclasses from a step to the callbacks
class SegmentedVolume:
    """Predicted labels of a volume.

    Attributes:
        name: of the file.
        labels: ``(*sizes)``, most probable class of each voxel; see ``label_dtype``.
        dice: ``(classes - 1,)`` float64, nan where neither has the label; None without true labels.
        surface: mean distance of the surfaces of each label, millimetres, see ``surface_distance``; None likewise.
        seconds: what the network took, resampling included.
    """

    name: str
    labels: Tensor
    dice: NDArray[np.float64] | None
    surface: NDArray[np.float64] | None
    seconds: float


@dataclass(frozen=True)
class VoxelResampling:
    """A volume on voxels of other steps before the network reads it, its probabilities back on the voxels given.

    Attributes:
        steps: along each axis, millimetres.
        method: for the values; probabilities come back linearly.
    """

    steps: tuple[float, ...]
    method: NodeMethod

    def probabilities(self, network: Callable[[VolumeBatch], Tensor], batch: VolumeBatch) -> Tensor:
        """``(1, classes, *query.sizes)``."""
        resampled = resampled_batch(dataclasses.replace(batch, labels=None), self.steps, self.method)
        return onto_grid(network(resampled).softmax(1), resampled.query, batch.query, "linear", smooth=False)


def dice(predicted: Tensor, labels: Tensor, classes: int) -> NDArray[np.float64]:
    """Dice's coefficient 2 |A and B| / (|A| + |B|) of each label but 0, over all voxels given.

    Args:
        predicted: integers in 0 ... ``classes`` - 1.
        labels: the same shape.
        classes: number of classes, background included.

    Returns:
        ``(classes - 1,)``; nan for a label that neither has.

    Raises:
        ValueError: shapes that differ.
    """
    require(predicted.shape == labels.shape, "predicted", f"have the labels' shape {tuple(labels.shape)}",
            tuple(predicted.shape))  # fmt: skip
    pairs = labels.flatten().long() * classes + predicted.flatten().long()
    table = torch.bincount(pairs, minlength=classes**2).reshape(classes, classes).double()
    both, either = table.diagonal(), table.sum(0) + table.sum(1)
    return (2 * both / either)[1:].cpu().numpy()


def soft_dice_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """1 minus the mean over labels but 0 of 2 sum(p g) / (sum(p) + sum(g)), p the softmax (Drozdzal et al. 2016).

    A label that no voxel has enters as 1 - 1 / (sum(p) + 1): the sums have 1 added.

    Args:
        logits: ``(B, classes, *sizes)``.
        labels: int64 ``(B, *sizes)``.
    """
    classes = logits.shape[1]
    shares = logits.softmax(1).transpose(0, 1).flatten(1)[1:]
    wanted = nn.functional.one_hot(labels.flatten(), classes).T[1:].to(shares.dtype)
    both = (shares * wanted).sum(1)
    return 1 - ((2 * both + 1) / (shares.sum(1) + wanted.sum(1) + 1)).mean()


def _labels_of(labels: Tensor) -> set[int]:
    """Those of any voxel but the background."""
    return set(labels.unique().tolist()) - {0}


def _metric_names(data: VolumeDataModule | None, classes: int) -> list[str]:
    """What the history calls each label but the background: its name, or what stands for it in the files."""
    numbers = [str(label) for label in range(1, classes)]
    named = [] if data is None else [name.removeprefix("label ").replace(" ", "_") for name in data.classes[1:]]
    return named if len(set(named)) == len(numbers) else numbers


class Segmentation(TaskModule):
    """A class for every voxel: cross-entropy plus soft Dice, volume by volume.

    Args:
        network: ``forward(VolumeBatch) -> logits (1, classes, *query.sizes)`` of a standardised volume, with attributes
            ``classes`` and ``in_channels``.
        schedule: how it is trained.
        dice_weight: of the soft Dice loss; the cross-entropy's is 1.
        augmentation: random changes in training; null = none.
        intensities: "compressed" or "clipped", see ``pipelines.tasks.segmentation.data.standardised``. It is part of a
            checkpoint, which is read with what it was trained with; those from before this choice were "clipped".
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule = SCHEDULE,
        dice_weight: float = 1.0,
        augmentation: VolumeAugmentation | None = None,
        intensities: Intensities = "compressed",
    ) -> None:
        super().__init__(network, schedule)
        require(dice_weight >= 0, "dice_weight", "not be negative", dice_weight)
        self.dice_weight = dice_weight
        self.augmentation = augmentation
        known = get_args(Intensities)
        require(intensities in known, "intensities", f"be one of {known}", repr(intensities))
        self.intensities: Intensities = intensities
        self.resampling: VoxelResampling | None = None  # for predictions, where a test asks for it
        self.classes = int(attribute_of(network, "classes"))
        self.val_dice = nn.ModuleList(MeanMetric(nan_strategy="ignore") for _ in range(self.classes - 1))
        self._watched: set[int] = set()

    def get_extra_state(self) -> dict[str, Any]:
        return {"intensities": self.intensities}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.intensities = state["intensities"]

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """As torch has it; weights from before there was a choice of ``intensities`` were trained with "clipped"."""
        return super().load_state_dict({"_extra_state": {"intensities": "clipped"}, **state_dict}, *args, **kwargs)

    def standardised(self, batch: VolumeBatch) -> VolumeBatch:
        """The batch as the network reads it: values standardised, on the CPU (some devices have no float64)."""
        values = standardised(batch.values[0].cpu(), self.intensities)[None]
        return dataclasses.replace(batch, values=values.to(batch.values.device))

    def require_trainable(self, data: VolumeDataModule) -> None:
        """Refuse a validation part without any label.

        Labels that no volume of the validation part holds have no Dice there: they are named, and left out of its mean.
        """
        numbers = data.part("validation")
        labels = (data.volume(number).labels for number in numbers)
        held = set().union(*(_labels_of(volume) for volume in labels if volume is not None))
        names = ", ".join(data.pairs[number].name for number in numbers[:_NAMES]) + ", ..." * (len(numbers) > _NAMES)
        part = f"{len(numbers)} validation volumes ({names})"
        rule = "hold a voxel of a label: Dice, which chooses the best epoch, has no value without"
        options = "data.validation takes more volumes, data.split_seed others"
        require(bool(held), f"the {part}", f"{rule} ({options})", "background alone")
        lacking = [f"{label} {data.classes[label]!r}" for label in range(1, self.classes) if label not in held]
        if lacking:
            warnings.warn(
                f"no voxel of the {part} has the label {', '.join(lacking)}: it has no Dice there, and val_dice is the "
                f"mean over the other labels ({options})",
                UserWarning,
                stacklevel=2,
            )

    def prepare(self, data: VolumeDataModule) -> None:
        """Scale the layers for the first training volume."""
        attribute_of(self.network, "prepare")(self.standardised(data.typical_batch()))

    def training_step(self, batch: VolumeBatch, batch_idx: int) -> Tensor:
        batch = self.standardised(batch)
        if self.augmentation is not None:
            batch = self.augmentation(batch, self.draws(batch.ids))
        loss = self._loss(self(batch), batch)
        self.log_epoch({"train_loss": loss}, len(batch))
        return loss

    def _loss(self, logits: Tensor, batch: VolumeBatch) -> Tensor:
        if batch.labels is None:
            raise ValueError("training and testing must have label volumes, got a volume without")
        entropy = nn.functional.cross_entropy(logits, batch.labels)
        return entropy + self.dice_weight * soft_dice_loss(logits, batch.labels)

    def validation_step(self, batch: VolumeBatch, batch_idx: int) -> None:
        logits = self(self.standardised(batch))
        self.log_epoch({"val_loss": self._loss(logits, batch)}, len(batch))
        assert batch.labels is not None
        self._watched |= _labels_of(batch.labels)
        for metric, value in zip(self.val_dice, dice(logits.argmax(1), batch.labels, self.classes), strict=True):
            assert isinstance(metric, MeanMetric)
            metric.update(float(value))

    def on_validation_epoch_end(self) -> None:
        """Dice of each label that the validation part holds, and their mean: its best value marks the best epoch."""
        found: dict[str, Tensor] = {}
        names = _metric_names(self.trainer.datamodule, self.classes)  # type: ignore[attr-defined]  # as in setup
        for label, (name, metric) in enumerate(zip(names, self.val_dice, strict=True), 1):
            assert isinstance(metric, MeanMetric)
            if label in self._watched:
                found[f"val_dice_{name}"] = metric.compute()
            metric.reset()
        self._watched.clear()
        if found:
            self.log_epoch(found | {"val_dice": torch.stack(list(found.values())).mean()})

    def predict_step(self, batch: VolumeBatch, batch_idx: int) -> SegmentedVolume:
        """Labels of a volume, on the CPU, and how well they fit where that is known."""
        shares, seconds = timed(self._probabilities, self.standardised(batch))
        found, labels = shares.argmax(1), batch.labels
        fit = None if labels is None else dice(found, labels, self.classes)
        steps = batch.query.steps
        surface = None if labels is None else surface_distance(found[0], labels[0], self.classes, steps)
        return SegmentedVolume(batch.name, found[0].to(label_dtype(self.classes - 1)).cpu(), fit, surface, seconds)

    def _probabilities(self, batch: VolumeBatch) -> Tensor:
        if self.resampling is None:
            return self(batch).softmax(1)
        return self.resampling.probabilities(self, batch)
