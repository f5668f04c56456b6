"""What the data modules of all tasks share: parts, one loader for all of them, what was read."""

from __future__ import annotations

from typing import Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

__all__ = ["Part", "TaskData"]

# "all" are all rows of a source, whatever part they are in.
Part = Literal["train", "validation", "test", "all"]
Batch = TypeVar("Batch")
Variant = TypeVar("Variant")
_IMPLEMENTED = ("loader", "keys", "sizes", "typical_batch", "part_sizes", "summary")


class TaskData(LightningDataModule, Generic[Batch, Variant]):
    """The rows of a source in parts; ``setup`` reads them once.

    A subclass implements ``setup``, ``loader``, ``keys``, ``sizes``, ``typical_batch``, ``part_sizes`` and ``summary``.

    Attributes:
        rows_are: what a row is, for messages.
        described: options that ``describe`` tells.
    """

    rows_are: str = "samples"
    described: ClassVar[tuple[str, ...]] = ()

    def _missing(self) -> NotImplementedError:
        left = [name for name in _IMPLEMENTED if getattr(type(self), name) is getattr(TaskData, name)]
        return NotImplementedError(f"{type(self).__name__} must implement {', '.join(left)}, see TaskData")

    def loader(self, part: Part, variant: Variant | None = None) -> DataLoader[Batch]:
        """The rows of a part in batches; those of "train" shuffled, drawn and changed as in training.

        Args:
            part: "train", "validation", "test" or "all".
            variant: another way to sample the rows, of a type of the task's own; None = as trained.
        """
        raise self._missing()

    def keys(self, part: Literal["train", "validation", "test"]) -> NDArray[np.uint64]:
        """``(B, K)``, keys of each row of a part, any of which tells it; see ``sample_keys``."""
        raise self._missing()

    def sizes(self) -> dict[str, int]:
        """Sizes that a network must have, by their names in it (``in_channels``, ``classes``)."""
        raise self._missing()

    def inferred(self) -> dict[str, Any]:
        """Arguments of the network that follow from the training part, where they are left null; none by default."""
        return {}

    def typical_batch(self) -> Batch:
        """Rows of the training part that a network is calibrated by; the same ones in every call."""
        raise self._missing()

    def training_values(self) -> tuple[Tensor, Tensor | None] | None:
        """Values ``(N, C, ...)`` that a network is normalised by, nan where missing, and weights; None = by the batch.

        Weights are quadrature weights ``(N,)`` float64, or None where all values count alike.
        """
        return None

    def part_sizes(self) -> dict[str, int]:
        """Number of rows by the name of their part."""
        raise self._missing()

    def summary(self) -> str:
        """What was read, in a line for the reader."""
        raise self._missing()

    def describe(self) -> dict[str, Any]:
        """What was read and how it was split, for the JSON."""
        return {name: getattr(self, name) for name in self.described} | {self.rows_are: self.part_sizes()}

    def train_dataloader(self) -> DataLoader[Batch]:
        return self.loader("train")

    def val_dataloader(self) -> DataLoader[Batch]:
        return self.loader("validation")

    def test_dataloader(self) -> DataLoader[Batch]:
        return self.loader("test")

    def predict_dataloader(self) -> DataLoader[Batch]:
        return self.loader("test")
