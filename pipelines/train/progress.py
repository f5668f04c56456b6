"""Progress in one line of a terminal, which vanishes; in a pipe or a file there is none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich import get_console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["OneLine", "bar", "followed"]

Item = TypeVar("Item")


def bar() -> Progress:
    """A line of progress, drawn in a terminal alone."""
    console = get_console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(compact=True))
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def followed(items: Sequence[Item], about: str) -> Iterable[Item]:
    """The items one by one, with progress where there is more than one."""
    with bar() as shown:
        yield from shown.track(items, description=about) if len(items) > 1 else items


class OneLine(ProgressBar):
    """Lightning's progress: the part at work, its batches, the time that is left."""

    def __init__(self) -> None:
        super().__init__()
        self._bar: Progress | None = None

    def disable(self) -> None:
        """See ``ProgressBar``: nothing is drawn."""
        self._close()

    def _begin(self, about: str, batches: int | float) -> None:
        """Another part begins: its line takes the place of the one before."""
        if self._bar is None:
            self._bar = bar()
            self._bar.start()
        for task in self._bar.task_ids:
            self._bar.remove_task(task)
        self._bar.add_task(about, total=batches if batches != float("inf") else None)

    def _advance(self) -> None:
        if self._bar is not None:
            for task in self._bar.task_ids:
                self._bar.advance(task)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        last = "" if trainer.max_epochs is None or trainer.max_epochs < 0 else f"/{trainer.max_epochs - 1}"
        self._begin(f"epoch {trainer.current_epoch}{last}", self.total_train_batches)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin("validating", sum(trainer.num_val_batches))

    def on_test_start(self, trainer: Trainer, *_: Any) -> None:
        self._begin("testing", sum(trainer.num_test_batches))

    def on_predict_start(self, trainer: Trainer, *_: Any) -> None:
        self._begin("predicting", sum(trainer.num_predict_batches))

    def on_train_batch_end(self, *_: Any) -> None:
        self._advance()

    def on_validation_batch_end(self, *_: Any) -> None:
        self._advance()

    def on_test_batch_end(self, *_: Any) -> None:
        self._advance()

    def on_predict_batch_end(self, *_: Any) -> None:
        self._advance()

    def on_exception(self, *_: Any) -> None:
        self._close()

    def teardown(self, *_: Any, **__: Any) -> None:
        self._close()
