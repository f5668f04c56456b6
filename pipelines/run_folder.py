"""What one run leaves on disk, and how the same command carries on where an earlier one stopped.

::

    runs/<configuration>/
        config.yaml     every option of the training command
        best.ckpt       highest validation AUROC
        last.ckpt       after the last finished epoch; the same command resumes from it
        history.csv     one line an epoch; training.png shows it
        summary.json    written when training has ended by itself
        test_*/         one folder for each set of stays the run was tested on
"""

from __future__ import annotations

import csv
import io
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from rich import get_console

from ccnn_irregular._checks import reject
from ccnn_irregular.pipelines.draws import hashed
from ccnn_irregular.pipelines.reports import write_text

__all__ = ["EpochSeed", "History", "RunFolder", "checkpoints"]

# What may differ between the command that started a run and the one that resumes it: where and how long it runs, and
# how it reports. Everything else would silently make a different model.
_FREE = (
    "config",
    "task",
    "run_dir",
    "restart",
    "ckpt_path",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.enable_progress_bar",
    "trainer.max_time",
    "data.cache",
    "data.download",
    "data.evaluate",
    "data.in_memory",
    "data.progress",
)


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def best(self) -> Path:
        return self.path / "best.ckpt"

    @property
    def last(self) -> Path:
        return self.path / "last.ckpt"

    @property
    def history(self) -> Path:
        return self.path / "history.csv"

    @property
    def summary(self) -> Path:
        return self.path / "summary.json"

    def is_run(self, config: Path) -> bool:
        """Whether ``config`` is this folder's own configuration, beside a checkpoint."""
        return config.name == self.config.name and self.last.is_file()

    def saved_config(self) -> dict[str, Any] | None:
        """The options the run was started with, or None where no run was."""
        return yaml.safe_load(self.config.read_text(encoding="utf-8")) if self.config.is_file() else None

    def require_same(self, config: dict[str, Any]) -> None:
        """Refuse to carry on a run with other options than it was started with.

        Raises:
            ValueError: naming the options that differ.
        """
        before, now = _flat(self.saved_config() or {}), _flat(config)
        differing = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
        shown = [f"{key} = {before.get(key)} there and {now.get(key)} here" for key in differing if not _is_free(key)]
        if shown:
            reject(
                f"run_dir {self.path}",
                "hold a run with the same options to be resumed (--run_dir names another folder, --restart true "
                "sets the old run aside)",
                "; ".join(shown),
            )

    def set_aside(self) -> Path | None:
        """Rename an existing folder to the first free ``<name>.old-<n>``; its new name, or None if there was none."""
        if not self.path.exists():
            return None
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.old-{number}")).exists():
            number += 1
        self.path.rename(aside)
        return aside


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested options as ``{"model.learning_rate": 0.001, ...}``."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _is_free(key: str) -> bool:
    return any(key == free or key.startswith(f"{free}.") for free in _FREE)


def checkpoints(run: RunFolder, monitor: str) -> list[Callback]:
    """Write ``best.ckpt`` and ``last.ckpt`` after every epoch (Lightning renames them into place when complete)."""
    best = _Best(
        dirpath=run.path,
        filename=run.best.stem,
        monitor=monitor,
        mode="max",
        enable_version_counter=False,
        save_on_train_epoch_end=True,
    )
    return [best, _Last(run.last)]  # in this order: the score of the best epoch is part of the last checkpoint


class _Last(Checkpoint):
    """Saves after every epoch."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.save_checkpoint(self.path)


class _Best(ModelCheckpoint):
    """Knows its score again in a run folder that was moved; Lightning would forget it and overwrite a better model."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        moved = {path: str(Path(str(self.dirpath)) / Path(path).name) for path in state_dict["best_k_models"]}
        here = {
            "dirpath": self.dirpath,
            "best_model_path": moved[state_dict["best_model_path"]],
            "kth_best_model_path": moved[state_dict["kth_best_model_path"]],
            "best_k_models": {moved[path]: score for path, score in state_dict["best_k_models"].items()},
        }
        super().load_state_dict({**state_dict, **here})


class EpochSeed(Callback):
    """Seeds every epoch from (seed, epoch), so that a resumed run draws what the uninterrupted one would have drawn.

    What is drawn for a sample does not depend on it, see ``pipelines.draws``; dropout does.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # A hash and no sum: the first epoch of seed 1 must not be the second one of seed 0. Lightning takes 32 bits.
        seed_everything(hashed(self.seed, trainer.current_epoch, "epoch", bits=32), verbose=False)


class History(Callback):
    """One row of metrics an epoch: printed, written to ``history.csv``, kept in the checkpoint for a resumed run."""

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self.rows: list[dict[str, float]] = []
        self._started = time.monotonic()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        row = {"epoch": trainer.current_epoch, **metrics, "seconds": time.monotonic() - self._started}
        self.rows.append(row)
        table = io.StringIO()
        writer = csv.DictWriter(table, list(self.rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.run.history, table.getvalue())
        shown = ", ".join(f"{name} {value:.3f}" for name, value in metrics.items())
        get_console().print(
            f"epoch {trainer.current_epoch}: {shown} ({row['seconds']:.1f} s)", highlight=False, soft_wrap=True
        )

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = state_dict["rows"]
