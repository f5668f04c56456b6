"""Runs ``ccnn fit | validate | test | predict`` for the task that the words or the configuration name."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lightning.pytorch.utilities.exceptions import MisconfigurationException

from ccnn_irregular.pipelines.train.arguments import Words
from ccnn_irregular.pipelines.train.registry import task_class
from ccnn_irregular.pipelines.train.trusted import import_plugins, known_classes_only

if TYPE_CHECKING:
    from ccnn_irregular.pipelines.train.task import Task

__all__ = ["quiet", "run", "run_task"]


def run(args: list[str]) -> None:
    """Run one of the four commands; ``args`` starts with its name."""
    words = Words.of(args)
    import_plugins(words.plugins)
    run_task(task_class(words.task_name()), words)


def run_task(kind: type[Task], words: Words) -> None:
    """Run a command of a task."""
    with quiet(), known_classes_only():
        kind(words)


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out what Lightning says of itself."""
    # Lightning greets, advertises and reports what it found; the commands report what a user asked for.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # A batch is one gather from memory: worker processes would only copy it once more.
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        # History and checkpoints lie in one folder that a resumed run finds again.
        warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists and is not empty.*")
        # Lightning's own use of PyTorch.
        warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.* is deprecated.*")
        try:
            yield
        except MisconfigurationException as error:
            raise ValueError(f"the options of the trainer must go with each other and with a run: {error}") from error
