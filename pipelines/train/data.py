"""What the data modules of all tasks share: parts, one loader for all of them, what was read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, Literal, TypeVar, get_args

import numpy as np
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from ccnn_irregular._checks import require

__all__ = ["AUTO", "Evaluated", "Part", "TaskData"]

# "all" are all rows of a source, whatever part they are in.
Part = Literal["train", "validation", "test", "all"]
# What ``ccnn test`` and ``ccnn predict`` look at: the rows kept from training, or a source that training never saw.
Evaluated = Literal["test", "all"]
Batch = TypeVar("Batch")
Variant = TypeVar("Variant")
AUTO = "auto"  # an argument of a network that the data are to tell, where null has a meaning of its own
_IMPLEMENTED = ("loader", "keys", "sizes", "typical_batch", "part_sizes", "summary")


class TaskData(LightningDataModule, Generic[Batch, Variant]):
    """The rows of a source in parts; ``setup`` reads them once.

    A subclass implements ``setup``, ``loader``, ``keys``, ``sizes``, ``typical_batch``, ``part_sizes`` and ``summary``;
    ``ids`` too, where predictions are a table of rows.

    ``ccnn test`` and ``ccnn predict`` look at the part "test". An argument ``evaluate`` that a subclass hands on, as
    ``super().__init__(evaluate)``, is the option ``--data.evaluate`` (default of predict: all). Its ``setup`` asks

    - ``takes_all(stage)``: make no split; "test" holds every row, in the order of the source, the other parts none;
    - ``needs_labels(stage)``: False where the source may lack labels.

    Args:
        evaluate: what test and predict look at: the part kept for the "test", or "all" of the source.

    Attributes:
        rows_are: what a row is, for messages.
        described: options that ``describe`` tells.
        told: arguments of the network that ``inferred`` tells where they are left null.
        told_by_word: those it tells where they are "auto": null has a meaning of its own.
        trained_classes: names of the classes that a checkpoint which is tested or predicts was trained on, for
            ``setup``; None in training, and of a checkpoint that does not tell.
    """

    rows_are: str = "samples"
    described: ClassVar[tuple[str, ...]] = ()
    told: ClassVar[tuple[str, ...]] = ()
    told_by_word: ClassVar[tuple[str, ...]] = ()

    def __init__(self, evaluate: Evaluated = "test") -> None:
        super().__init__()
        require(evaluate in get_args(Evaluated), "evaluate", "be 'test' or 'all'", repr(evaluate))
        self.evaluate: Evaluated = evaluate
        self.trained_classes: tuple[str, ...] | None = None

    def takes_all(self, stage: str) -> bool:
        """Whether the part "test" holds every row of the source at a stage of the commands."""
        return self.evaluate == "all" and stage in ("test", "predict")

    def needs_labels(self, stage: str) -> bool:
        """Whether labels have to be there: not where everything is only to be predicted."""
        return not (self.evaluate == "all" and stage == "predict")

    def require_validation(self, option: str) -> None:
        """Refuse an ``option`` that the validation part decides, where there is none."""
        rule = "be left out with data.evaluate all: the validation part decides it, and no row is left for that"
        require(self.part_sizes().get("validation") != 0, option, rule, "true")

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

    def outcomes(self, part: Any, keys: NDArray[np.uint64]) -> NDArray[np.uint64] | None:
        """Keys of rows of a part together with what is to be learned of them; None = ``keys`` themselves tell it.

        Args:
            part: "train" or "validation".
            keys: those of the part.
        """
        return None

    def ids(self, part: Part) -> Sequence[Any]:
        """What each row of a part is called in its source: an id, the name of a file, or its number there."""
        raise NotImplementedError(f"{type(self).__name__} must implement ids to have its rows predicted, see TaskData")

    def named(self, numbers: Sequence[int]) -> Sequence[Any]:
        """What the source calls the samples that the ``ids`` of a batch know by numbers."""
        return numbers

    def sizes(self) -> dict[str, int]:
        """Sizes that a network must have, by their names in it (``in_channels``, ``classes``)."""
        raise self._missing()

    def inferred(self) -> dict[str, Any]:
        """Arguments of the network that follow from the training part: what ``told`` and ``told_by_word`` name."""
        return {}

    @classmethod
    def left_open(cls, given: Mapping[str, Any]) -> list[str]:
        """Of the arguments of a network those that are left open and that the data tell."""
        left = [name for name in cls.told if name in given and given[name] is None]
        return left + [name for name in cls.told_by_word if given.get(name) == AUTO]

    def inferred_lines(self, taken: dict[str, Any], options: dict[str, Any]) -> str:
        """What was inferred, for the reader, with the option that says otherwise.

        Args:
            taken: arguments of the network that were left null.
            options: all of its arguments.
        """
        shown = {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in taken.items()}
        prefix = "--model.network.init_args"
        return "\n".join(f"{name} {value}, as the data tell ({prefix}.{name})" for name, value in shown.items())

    def typical_batch(self) -> Batch:
        """Rows of the training part that a network is calibrated by; the same ones in every call."""
        raise self._missing()

    def training_values(self) -> tuple[Tensor, Tensor | None] | None:
        """Values ``(N, C, ...)`` that a network is normalised by, nan where missing, and weights; None = by the batch.

        Weights are quadrature weights ``(N,)`` float64, or None where all values count alike.
        """
        return None

    def values_told(self) -> dict[str, Any]:
        """What the numbers of a sample are and how they are made of files, told without reading any."""
        return {}

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
