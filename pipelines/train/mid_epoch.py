"""Checkpoints inside an epoch: every few minutes and when a signal asks, resumed bit by bit as if nothing had been.

Lightning's own checkpoint holds weights, optimiser, schedules and the number of batches done, and the loader keeps its
position. What both leave out is kept here: random states, and what metrics of the epoch have gathered so far.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor
from torchmetrics import Metric

from ccnn_irregular.pipelines.train.batches import ResumableLoader

__all__ = ["MidEpoch", "Signals"]

EVERY = 300.0  # seconds
_GRACE = 10.0  # seconds that a signal waits for the end of a batch
_ENDS = {signal.SIGTERM: SIGTERMException, signal.SIGINT: KeyboardInterrupt}


class Signals:
    """What the process was asked for: to save (SIGUSR1), or to save and end (SIGTERM, Ctrl-C).

    An end waits for that of the batch, some seconds at most; outside a batch, and when asked again by Ctrl-C, it comes
    at once. Signals reach the main thread alone; in others nothing changes.

    Attributes:
        in_batch: whether a training batch is being computed.
    """

    def __init__(self) -> None:
        self.in_batch = False
        self._save = False
        self._end: type[BaseException] | None = None

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Listen in this context."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        listening = {signal.SIGUSR1: self._asked_to_save, signal.SIGALRM: self._out_of_patience}
        listening |= dict.fromkeys(_ENDS, self._asked_to_end)
        before = {number: signal.signal(number, listener) for number, listener in listening.items()}
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number, listener in before.items():
                signal.signal(number, listener)

    def take_save(self) -> bool:
        """Whether a checkpoint was asked for since the last call."""
        asked, self._save = self._save, False
        return asked

    def end_after_batch(self, reason: type[BaseException]) -> None:
        """Save and end once the batch is done, by raising ``reason``."""
        self._end, self._save = self._end or reason, True

    def leave(self) -> None:
        """End where that was asked for.

        Raises:
            SIGTERMException: after SIGTERM.
            KeyboardInterrupt: after Ctrl-C.
            BaseException: what ``end_after_batch`` was given.
        """
        if self._end is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise self._end

    def _asked_to_save(self, number: int, frame: FrameType | None) -> None:
        self._save = True

    def _asked_to_end(self, number: int, frame: FrameType | None) -> None:
        again = self._end is not None
        if again and number == signal.SIGTERM:
            return  # the end of the run is not to be disturbed
        self._end, self._save = _ENDS[signal.Signals(number)], True
        if again or not self.in_batch:
            raise self._end
        signal.setitimer(signal.ITIMER_REAL, _GRACE)

    def _out_of_patience(self, number: int, frame: FrameType | None) -> None:
        self.leave()


class MidEpoch(Callback):
    """Saves inside an epoch, and takes up there.

    Args:
        path: of the checkpoint.
        signals: ask for one, too.
    """

    def __init__(self, path: Path, signals: Signals) -> None:
        self.path = path
        self.signals = signals
        self._saved = time.monotonic()
        self._inside = False
        self._module: LightningModule | None = None
        self._found: dict[str, Any] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Lightning itself hands the loader its position only where no schedule had asked for the number of steps.
        if self._found is not None:
            _loader(trainer).load_state_dict(self._found["loader"])

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.signals.in_batch = True
        if self._found is not None:
            _set_random_states(self._found["random"])
            _set_metrics(pl_module, self._found["metrics"])

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._found is not None:
            _add_sums(trainer, self._found["sums"])
            self._found = None
        self.signals.in_batch = False
        # A step that is gathered over several batches has no state of its own; after the last batch comes validation.
        whole = (batch_idx + 1) % trainer.accumulate_grad_batches == 0 and not trainer.is_last_batch
        whole = whole and isinstance(trainer.train_dataloader, ResumableLoader)
        due = time.monotonic() - self._saved > EVERY
        if whole and (self.signals.take_save() or due):
            self.save(trainer)
        self.signals.leave()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._saved = time.monotonic()  # the end of an epoch is saved anyway

    def save(self, trainer: Trainer) -> None:
        """Write the checkpoint after a batch."""
        self._inside, self._module, self._trainer = True, trainer.lightning_module, trainer
        try:
            trainer.save_checkpoint(self.path)
        finally:
            self._inside = False
        self._saved = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        if not self._inside:
            return {}
        assert self._module is not None
        return {
            "loader": _loader(self._trainer).state_dict(),
            "random": _random_states(),
            "metrics": _metrics(self._module),
            "sums": _sums(self._trainer),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._found = state_dict or None


def _loader(trainer: Trainer) -> ResumableLoader[Any]:
    loader = trainer.train_dataloader
    assert isinstance(loader, ResumableLoader)  # no other is saved inside an epoch
    return loader


def _random_states() -> dict[str, Any]:
    """The states of what ``seed_everything`` seeds, as tensors and plain values."""
    name, words, *rest = np.random.get_state(legacy=True)  # noqa: NPY002  # users may draw from it
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "numpy": [name, torch.from_numpy(np.asarray(words, np.int64)), *rest],
        "python": random.getstate(),
    }


def _set_random_states(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["torch"])
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])
    name, words, *rest = states["numpy"]
    np.random.set_state((name, words.numpy().astype(np.uint32), *rest))  # noqa: NPY002  # see above
    version, words, normal = states["python"]
    random.setstate((version, tuple(words), normal))


def _metrics(module: LightningModule) -> dict[str, Any]:
    """What metrics that are parts of the module have gathered in this epoch."""
    found = {name: part for name, part in module.named_modules() if isinstance(part, Metric) and part.update_called}
    return {name: [metric.update_count, dict(metric.metric_state)] for name, metric in found.items()}


def _set_metrics(module: LightningModule, states: dict[str, Any]) -> None:
    parts = dict(module.named_modules())
    for name, (count, state) in states.items():
        metric = parts[name]
        assert isinstance(metric, Metric)
        metric._update_count = count
        for key, value in state.items():
            setattr(metric, key, value.to(metric.device) if isinstance(value, Tensor) else value)


def _logged(trainer: Trainer) -> dict[str, Any]:
    """Means over the epoch that are being gathered, by name; those of metrics are in the metrics themselves."""
    return {name: result for name, result in trainer.fit_loop.epoch_loop._results.items() if result.is_tensor}


def _sums(trainer: Trainer) -> dict[str, Any]:
    return {name: [result.value, result.cumulated_batch_size] for name, result in _logged(trainer).items()}


def _add_sums(trainer: Trainer, sums: dict[str, Any]) -> None:
    """Add what was gathered before to what the first batch gave: a sum of two, the same in either order."""
    logged = _logged(trainer)
    for name, (value, count) in sums.items():
        one = logged[name]
        one.value = one.value + value.to(one.value)
        one.cumulated_batch_size = one.cumulated_batch_size + count.to(one.cumulated_batch_size)
        one._computed = None  # what it told of the first batch alone
