"""What the Lightning modules of all tasks share: schedule, preparation, random draws, what is saved."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule
from torch import Tensor, nn

from ccnn_irregular._checks import reject, require
from ccnn_irregular.pipelines.train.checkpoint import load_weights
from ccnn_irregular.pipelines.train.draws import Draws
from ccnn_irregular.pipelines.train.schedule import Schedule
from ccnn_irregular.pipelines.train.trained_on import ENTRY, KeyedData, TrainedOn
from ccnn_irregular.pipelines.train.widths import AllWidths

__all__ = ["CLASSES", "TaskModule", "attribute_of", "timed"]

CLASSES = "classes"  # their names in a checkpoint


class TaskModule(LightningModule):
    """A network under a ``Schedule``, whose checkpoints load with ``weights_only=True``.

    A subclass implements ``training_step`` and ``validation_step``, and logs by ``log_epoch``; ``predict_step`` too,
    where more than the network's answer is wanted. What it changes at random in a sample it takes from ``draws``.

    Args:
        network: what is trained. Its ``prepare(batch, values)`` is called once before training, with what
            ``TaskData.typical_batch`` and ``TaskData.training_values`` give; what it stores must be buffers or
            parameters, so that a checkpoint carries it to other data.
        schedule: how it is trained.

    Attributes:
        first_weights: a checkpoint whose weights and normalisation training begins with.
    """

    def __init__(self, network: nn.Module, schedule: Schedule) -> None:
        super().__init__()
        self.network = network
        self.schedule = schedule
        self.trained_on: TrainedOn | None = None
        self.class_names: tuple[str, ...] | None = None
        self.first_weights: str | None = None
        self._seed = 0
        self._save_plain_hyperparameters()

    def _save_plain_hyperparameters(self) -> None:
        """Keep what a checkpoint can be rebuilt from, and no object that ``weights_only=True`` would refuse.

        From the command line these are the parsed configuration, network included. From Python "network" is the module
        itself: its weights are in the checkpoint anyway, and load_from_checkpoint(path, network=...) takes a new one,
        as it takes other objects such as the schedule.
        """
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*is an instance of `nn.Module`")
            self.save_hyperparameters(logger=False)
        objects = [
            name
            for name, value in self.hparams.items()
            if isinstance(value, nn.Module) or dataclasses.is_dataclass(value)
        ]
        self.remove_ignored_hparams(objects)

    def draws(self, ids: Tensor | None) -> Draws:
        """What is drawn for the samples ``ids`` (int64) of a batch in this epoch.

        Raises:
            ValueError: a batch whose samples have no ids.
        """
        if ids is None:
            reject("a batch to be changed at random", "tell the ids of its samples", "none")
        return Draws(self._seed, self.current_epoch, ids)

    def require_fits(self, data: Any) -> None:
        """Refuse data that the network cannot read; before anything is written.

        Raises:
            ValueError: naming the size that differs.
        """
        for name, size in data.sizes().items():
            here = attribute_of(self.network, name)
            require(here == size, name, f"be the data's {size} (--model.network.init_args.{name} {size})", here)

    def require_trainable(self, data: Any) -> None:
        """Refuse parts that cannot be trained on or validated with, with ValueError; before anything is written."""

    def setup(self, stage: str) -> None:
        """Normalise and calibrate by the training part; a resumed run reads the same numbers from its checkpoint."""
        if stage != "fit":
            return
        data = self.trainer.datamodule  # type: ignore[attr-defined]  # a Lightning attribute without annotation
        require(data is not None, "fit", "be given a data module (for the normalisation)", "loaders alone")
        self.require_fits(data)
        self.require_trainable(data)
        self.prepare(data)
        if self.first_weights is not None:
            load_weights(self, self.first_weights)

    def configure_callbacks(self) -> list[Callback]:
        """What the schedule adds to training."""
        sort = self.first_weights is not None
        return [AllWidths(self.schedule.least_width, sort)] if self.schedule.least_width < 1 else []

    def prepare(self, data: Any) -> None:
        """Hand the network what it is normalised and calibrated by."""
        attribute_of(self.network, "prepare")(data.typical_batch(), data.training_values())

    def forward(self, batch: Any) -> Tensor:
        """What the network answers to a batch."""
        answer: Tensor = self.network(batch)
        return answer

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        """The network's answer, on the CPU."""
        return self(batch).cpu()

    def log_epoch(self, shown: dict[str, Any], batch_size: int | None = None) -> None:
        """Log values of a step, or metrics, by their mean over the epoch; None = metrics weigh their samples."""
        self.log_dict(shown, on_step=False, on_epoch=True, prog_bar=True, batch_size=batch_size)

    def on_fit_start(self) -> None:
        """Take the seed of what is drawn, that of the run; note what is trained on.

        Raises:
            ValueError: other rows than a resumed run began with.
        """
        self._seed = torch.initial_seed()
        data = self.trainer.datamodule  # type: ignore[attr-defined]  # a Lightning attribute without annotation
        if isinstance(data, KeyedData):  # none of the caller's own
            self.note_rows(data)
        if (names := getattr(data, "classes", None)) is not None:
            self.class_names = tuple(names)

    def note_rows(self, data: KeyedData) -> None:
        """Keep what is trained on, for the checkpoint.

        Raises:
            ValueError: other rows than the run began with, whose checkpoint was loaded.
        """
        now, before = TrainedOn.of(data), self.trained_on
        if before is not None:
            counts = [f"{len(part.train)} + {len(part.validation)}" for part in (now, before)]
            got = f"{counts[0]} {now.rows_are}" if counts[0] == counts[1] else f"{counts[0]} in place of {counts[1]}"
            rule = "be what the run began with (--restart true sets it aside and starts anew)"
            require(now.same_as(before), "the rows to train and to validate on", rule, f"others, {got}")
            require(now.same_outcomes(before), "the outcomes (labels) of these rows", rule, "others")
        self.trained_on = now
        if now.own_twins():
            warnings.warn(
                f"{now.own_twins()} of the {now.rows_are} to test on are in the training or validation part too, as "
                f"equal {now.rows_are}: the data hold them twice. Tests count them.",
                UserWarning,
                stacklevel=2,
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.trained_on is not None:
            checkpoint[ENTRY] = self.trained_on.state()
        if self.class_names is not None:
            checkpoint[CLASSES] = list(self.class_names)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.trained_on = TrainedOn.from_checkpoint(checkpoint, "to resume from") if ENTRY in checkpoint else None

    def configure_optimizers(self) -> Any:
        return self.schedule.optimisers(self.network, self.trainer)


def attribute_of(network: nn.Module, name: str) -> Any:
    """What every network of a task has under ``name``.

    Raises:
        ValueError: a network of the user's own has not.
    """
    rule = f"have the attribute {name!r} (docs/extending.md, A new network, tells what a task asks of its network)"
    require(hasattr(network, name), f"the network {type(network).__name__}", rule, "none")
    return getattr(network, name)


def timed(network: Callable[[Any], Tensor], batch: Any) -> tuple[Tensor, float]:
    """The answer of ``network`` to ``batch``, and the seconds it took; on a GPU until all of it is computed."""
    _wait_for_gpu()
    started = time.perf_counter()
    answer = network(batch)
    _wait_for_gpu()
    return answer, time.perf_counter() - started


def _wait_for_gpu() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
