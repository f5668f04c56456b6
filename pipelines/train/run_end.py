"""How a training run ended, and what ends it early: its time limit, its number of steps, a metric that is no number."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, Timer
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException
from torch import Tensor, nn
from torch.optim import Optimizer

from ccnn_irregular._checks import reject
from ccnn_irregular.pipelines.train.mid_epoch import Signals

__all__ = [
    "FiniteMetrics",
    "FiniteSteps",
    "NoNumberError",
    "RunEnd",
    "StepLimit",
    "TimeIsUp",
    "TimeLimit",
    "require_numbers",
    "tells_no_numbers",
]

By = Literal[
    "max_epochs",
    "max_steps",
    "early_stopping",
    "time_limit",
    "interrupt",
    "termination",
    "no_number",
    "error",
    "callback",
]
# Ends that training was asked for; after all others it goes on with the same command.
_FINISHED: tuple[By, ...] = ("max_epochs", "max_steps", "early_stopping")


_SHOWN = 20  # ids in a message
_OF_BATCH = (
    "look at these samples (values of enormous size), or try a lower --model.schedule.learning_rate or "
    "--trainer.gradient_clip_val 1.0; what was trained before is kept"
)
_OF_PART = (
    "look at the data of that part (values of enormous size, a part without what the metric measures; data.validation "
    "and the seed of the split decide which part that is)"
)


@dataclass(frozen=True)
class RunEnd:
    """How training ended.

    Attributes:
        by: what ended it.
        why: the same for readers.
    """

    by: By
    why: str

    @property
    def status(self) -> int | None:
        """Exit status of a process that a signal ended; None for others."""
        return {"interrupt": 130, "termination": 143}.get(self.by)

    @property
    def finished(self) -> bool:
        """Whether training has come to the end it was asked for."""
        return self.by in _FINISHED

    def told(self, epochs: int, folder: Path, kept: bool) -> str:
        """The end for the console, with what to do next where training is not finished.

        Args:
            epochs: that are done.
            folder: of the run.
            kept: whether it holds a checkpoint to resume from.
        """
        if self.finished:
            return f"finished after {epochs} epoch{'s' * (epochs != 1)}: {self.why}"
        next_step = "--restart true starts anew" if self.by == "no_number" else "the same command resumes"
        next_step = next_step if kept else "nothing is kept"
        done = "1 epoch is" if epochs == 1 else f"{epochs} epochs are"
        return f"not finished: {self.why}\n{done} in {folder}; {next_step}"

    @staticmethod
    def reached(trainer: Trainer) -> RunEnd:
        """The end of a training that returned."""
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # an attribute without annotation
        stopped = [entry for entry in callbacks if isinstance(entry, EarlyStopping) and entry.stopping_reason_message]
        if trainer.max_epochs is not None and 0 <= trainer.max_epochs <= trainer.current_epoch:
            return RunEnd("max_epochs", f"all {trainer.max_epochs} epochs are done")
        if 0 <= trainer.max_steps <= trainer.global_step:
            return RunEnd("max_steps", f"all {trainer.max_steps} steps are done")
        if stopped and stopped[0].stopping_reason is not EarlyStoppingReason.NOT_STOPPED:
            return RunEnd("early_stopping", _early(stopped[0]))
        if any(isinstance(callback, TimeLimit) and callback.is_up() for callback in callbacks):
            return RunEnd("time_limit", "the time limit trainer.max_time was reached")
        return RunEnd("callback", "a callback of the configuration stopped it")

    @staticmethod
    def broken(error: BaseException) -> RunEnd:
        """The end of a training that raised."""
        if isinstance(error, TimeIsUp):
            return RunEnd("time_limit", "the time limit trainer.max_time was reached")
        if isinstance(error, SIGTERMException):
            return RunEnd("termination", "terminated by SIGTERM")
        # Lightning leaves by SystemExit after Ctrl-C.
        if isinstance(error, KeyboardInterrupt) or isinstance(error.__context__, KeyboardInterrupt):
            return RunEnd("interrupt", "interrupted by Ctrl-C")
        if isinstance(error, NoNumberError):
            return RunEnd("no_number", str(error))
        return RunEnd("error", f"{type(error).__name__}: {error}")


def _early(stopping: EarlyStopping) -> str:
    reasons = {
        EarlyStoppingReason.PATIENCE_EXHAUSTED: f"did not improve in {stopping.wait_count} epochs",
        EarlyStoppingReason.STOPPING_THRESHOLD: f"passed stopping_threshold {stopping.stopping_threshold}",
        EarlyStoppingReason.DIVERGENCE_THRESHOLD: f"fell beyond divergence_threshold {stopping.divergence_threshold}",
    }
    return f"{stopping.monitor} {reasons.get(stopping.stopping_reason, str(stopping.stopping_reason_message))}"


class NoNumberError(ValueError):
    """A metric that is nan, infinite or missing."""


class TimeIsUp(Exception):
    """Leaves an epoch that the time limit fell into, once what was done of it is saved."""


class FiniteMetrics(Callback):
    """Ends training where a metric of an epoch is no number, or where the epoch had no validation.

    Args:
        needed: metrics that have to be there, such as the one that chooses the best epoch.
    """

    def __init__(self, needed: Sequence[str]) -> None:
        self.needed = tuple(dict.fromkeys(needed))
        self._validated: int | None = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validated = trainer.current_epoch

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch = trainer.current_epoch
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if self._validated != epoch:
            metrics = {name: value for name, value in metrics.items() if name not in self.needed}
        require_numbers(metrics, self.needed, f"in epoch {epoch}", pl_module)


class FiniteSteps(Callback):
    """Ends training before a loss or gradient that is no number reaches the weights, naming the samples it is of."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._batch, self._number = batch, batch_idx

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        self._require(loss.detach(), "the loss", trainer, pl_module)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        if getattr(trainer.precision_plugin, "scaler", None) is not None:
            return  # which leaves out a step that is no number, and scales the next ones less
        gradients = [weight.grad for weight in pl_module.parameters() if weight.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        self._require(norm, "the norm of the gradient", trainer, pl_module)

    def _require(self, value: Tensor, name: str, trainer: Trainer, module: LightningModule) -> None:
        if bool(torch.isfinite(value)):
            return
        ids, data = getattr(self._batch, "ids", None), trainer.datamodule  # type: ignore[attr-defined]  # not annotated
        names = [] if ids is None else getattr(data, "named", list)(ids.tolist()[:_SHOWN])
        of = "" if ids is None else f" of the {getattr(data, 'rows_are', 'samples')} {', '.join(map(str, names))}"
        more = "" if ids is None or len(ids) <= _SHOWN else f" and {len(ids) - _SHOWN} more"
        where = f"in batch {self._number} of epoch {trainer.current_epoch}"
        raise NoNumberError(
            f"{name} must be a finite number, got {value:g} {where}{of}{more}: {_cause(module, _OF_BATCH)}"
        )


def require_numbers(metrics: Mapping[str, float], needed: Sequence[str], where: str, module: LightningModule) -> None:
    """Refuse metrics that are nan or infinite, or that are not there.

    Args:
        metrics: by name.
        needed: names that have to be there.
        where: for the message ("in epoch 3").
        module: whose metrics they are; its weights tell whether training diverged.

    Raises:
        NoNumberError: naming the metric, its value, a cause and what to type.
    """
    missing = [name for name in needed if name not in metrics]
    if missing:
        known = ", ".join(sorted(metrics)) or "none"
        raise NoNumberError(f"{missing[0]} must be measured {where}, got no such metric (there are: {known})")
    bad = [name for name, value in metrics.items() if not math.isfinite(value)]
    if not bad:
        return
    first = next((name for name in needed if name in bad), bad[0])
    others = f" (and {', '.join(name for name in bad if name != first)})" if len(bad) > 1 else ""
    raise NoNumberError(
        f"{first}{others} must be a finite number {where}, got {metrics[first]}: {_cause(module, _OF_PART)}"
    )


@contextmanager
def tells_no_numbers(network: nn.Module) -> Iterator[None]:
    """Warn, at the end, of answers that the network gave in the meantime and that hold nothing but nan or infinities.

    Some places may have no answer, as land has no temperature of the sea; a network that may have none at all for a
    sample has an attribute ``leaves_gaps`` that is true.
    """
    if getattr(network, "leaves_gaps", False):
        yield
        return
    bad: list[Tensor] = []
    count = 0

    def look(_: nn.Module, __: Any, answer: Any) -> None:
        nonlocal count
        if isinstance(answer, Tensor) and answer.ndim and answer.is_floating_point():
            bad.append((~torch.isfinite(answer)).reshape(len(answer), -1).all(1).sum())
            count += len(answer)

    hook = network.register_forward_hook(look)
    try:
        yield
    finally:
        hook.remove()
    if found := sum(map(int, bad)):
        warnings.warn(
            f"{found} of {count} answers of the network are no numbers, and nan or empty where they are written: look "
            "at the values of these rows (of enormous size?) and at the end of the training (summary.json of the run)",
            UserWarning,
            stacklevel=2,
        )


def _cause(module: LightningModule, otherwise: str) -> str:
    broken = [name for name, weight in module.named_parameters() if not bool(torch.isfinite(weight).all())]
    rate = getattr(getattr(module, "schedule", None), "learning_rate", None)
    if broken:
        return (
            f"{len(broken)} weights such as {broken[0]} are no numbers any more, training has diverged; "
            f"a lower --model.schedule.learning_rate than {rate} or --trainer.gradient_clip_val 1.0 may help "
            "(--restart true)"
        )
    return f"all weights are finite, so {otherwise}"


class StepLimit(Callback):
    """Ends training after ``trainer.max_steps`` with a validation, which Lightning leaves out inside an epoch."""

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if 0 <= trainer.max_steps <= trainer.global_step:
            trainer.should_stop = True


class TimeLimit(Timer):
    """Ends the training of this command after a time; what was trained before is not counted, so a run can be resumed.

    A batch is always done, and so is the validation after the last one of an epoch.

    Args:
        duration: ``DD:HH:MM:SS``, a span, or its parts by name.
        signals: are told of the end.
    """

    def __init__(self, duration: str | timedelta | dict[str, int], signals: Signals) -> None:
        self.signals = signals
        try:
            super().__init__(duration, verbose=False)
        except (MisconfigurationException, TypeError) as error:
            reject("trainer.max_time", "be DD:HH:MM:SS or parts such as {hours: 2}", f"{duration!r} ({error})")

    def is_up(self) -> bool:
        """Whether the time has passed."""
        left = self.time_remaining()
        return left is not None and left <= 0

    def on_fit_start(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        """Nothing was used up before."""

    def on_train_batch_end(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        if self.is_up() and not trainer.is_last_batch and _least_done(trainer):
            self.signals.end_after_batch(TimeIsUp)

    def on_train_epoch_end(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        if self.is_up():
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing is kept."""


def _least_done(trainer: Trainer) -> bool:
    """Whether ``trainer.min_epochs`` and ``min_steps`` are done."""
    return trainer.current_epoch >= (trainer.min_epochs or 0) and trainer.global_step >= (trainer.min_steps or 0)
