"""A trained run opened from its folder: the model with its weights, and its data not yet read."""

from __future__ import annotations

from typing import Any

from ccnn_irregular.pipelines.train.arguments import Words
from ccnn_irregular.pipelines.train.checkpoint import load_weights
from ccnn_irregular.pipelines.train.registry import task_class
from ccnn_irregular.pipelines.train.run import run_task
from ccnn_irregular.pipelines.train.run_folder import RunFolder

__all__ = ["opened", "task_of"]


def opened(folder: RunFolder, *, weights: bool = True) -> tuple[Any, Any]:
    """The Lightning module of a run in evaluation mode, and its data module, which is not set up.

    Args:
        folder: of the run.
        weights: take those of the best checkpoint; else the module is as training would begin.
    """
    words = _words(folder)
    found: list[Any] = []

    class Opened(task_class(words.task_name())):  # type: ignore[misc]  # a class that is looked up
        """The run's options, read as ``ccnn validate`` reads them; nothing is validated."""

        def before_validate(self) -> None:
            pass

        def validate(self, model: Any, datamodule: Any, ckpt_path: str, **_: Any) -> None:
            if weights:
                load_weights(model, ckpt_path)
            found.extend([model.eval(), datamodule])

    run_task(Opened, words)
    model, datamodule = found
    return model, datamodule


def task_of(folder: RunFolder) -> str:
    """Name of the task of a run."""
    return _words(folder).task_name()


def _words(folder: RunFolder) -> Words:
    return Words("validate", (), None, str(folder.path), None, (), ())
