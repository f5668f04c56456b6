"""Whether the folder of a run holds one that the same command carries on."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ccnn_irregular._checks import reject
from ccnn_irregular.pipelines.train.alone import require_free
from ccnn_irregular.pipelines.train.evaluation import say
from ccnn_irregular.pipelines.train.fingerprint import require_same_files, tell_changed_files
from ccnn_irregular.pipelines.train.run_folder import EPOCHS, RunFolder
from ccnn_irregular.pipelines.train.texts import read_json

__all__ = ["find_resumable", "find_tested"]


def find_tested(run: RunFolder, config: Callable[[], dict[str, Any]], options: Any) -> None:
    """Set ``options.ckpt_path`` to the best checkpoint of a run, and tell whether its files are what they were.

    Args:
        run: the folder.
        config: gives the options as they are saved in a run folder.
        options: of the command.
    """
    options.ckpt_path = options.ckpt_path or str(run.best)
    tell_changed_files(RunFolder(Path(options.ckpt_path).parent).fingerprint, config()["data"])


def find_resumable(run: RunFolder, config: Callable[[], dict[str, Any]], options: Any) -> None:
    """Set ``options.ckpt_path`` to the newest whole checkpoint of an unfinished run with the same options.

    Args:
        run: the folder; set aside first where ``options.restart`` says so.
        config: gives the options as they are saved in a run folder.
        options: of the command.

    Raises:
        ValueError: a run that is finished, was started with other options or files, or is trained by another process.
    """
    require_free(run.path)
    if options.restart and (aside := run.set_aside()):
        say(f"the earlier run is now {aside}")
    if run.summary.is_file() and "resized" in read_json(run.summary):
        rule = f"hold a run of ccnn fit (train this one further by --start_from {run.path} --run_dir NEW)"
        reject(f"run_dir {run.path}", rule, "one of ccnn resize")
    before = run.saved_config()
    checkpoint, damaged = run.resumable()
    if damaged and checkpoint is None:
        reject(f"run_dir {run.path}", "hold a checkpoint to resume from (--restart true starts anew)", damaged[0])
    if before is None or checkpoint is None:
        return  # nothing was trained that other options could spoil
    now = config()
    run.require_same(now)
    require_same_files(run.fingerprint, now["data"])
    end, trained = run.end(), len(run.saved_rows())
    epochs, more = before["trainer"]["max_epochs"], options.trainer.max_epochs
    if end is not None and end["finished"] and (end["by"] != "max_epochs" or more == epochs):
        reject(
            f"run_dir {run.path}",
            "hold no finished run (--run_dir names another folder, --restart true sets the old run aside, a larger "
            f"--{EPOCHS} than {epochs} goes on where that ended it)",
            f"one that is finished after {trained} epochs: {end['why']}; see {run.summary}",
        )
    if options.ckpt_path is None:
        options.ckpt_path = str(checkpoint)
        for damage in damaged:
            warnings.warn(f"{damage}; {checkpoint.name} takes its place", UserWarning, stacklevel=2)
        why = end["why"] if end is not None else "it ended without a word"
        say(f"resuming from {options.ckpt_path} after {trained} epochs ({why})")
    if trained and more != epochs:
        warnings.warn(
            f"{EPOCHS} was {epochs} and is {more}: from epoch {trained} on the learning rate follows the schedule "
            f"of {more} epochs, so the result is not that of {more} epochs from the start (--restart true)",
            UserWarning,
            stacklevel=2,
        )
