"""What one run leaves on disk, and how the same command carries on where an earlier one stopped.

::

    runs/<configuration>/
        config.yaml     every option of the training command
        best.ckpt       highest validation AUROC
        last.ckpt       after the last finished epoch; the same command resumes from it
        config_until_epoch_*.yaml   options of the epochs before, where a later command asked for more of them
        data.json       names, sizes and digests of the files it was trained on
        history.csv     one line an epoch; training.png shows it
        summary.json    how training ended, and whether it is finished; absent while it runs, and where it was killed
        test_*/         one folder for each set of stays the run was tested on
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from rich import get_console

from ccnn_irregular._checks import reject, require
from ccnn_irregular._files import refuse_file
from ccnn_irregular.pipelines.train.alone import alone
from ccnn_irregular.pipelines.train.checkpoint import first_whole, read_checkpoint
from ccnn_irregular.pipelines.train.draws import hashed
from ccnn_irregular.pipelines.train.earlier import read_config
from ccnn_irregular.pipelines.train.fingerprint import NAME, write_fingerprint
from ccnn_irregular.pipelines.train.reports import write_text
from ccnn_irregular.pipelines.train.texts import read_json

__all__ = ["EPOCHS", "EpochSeed", "History", "RunFolder", "checkpoints", "flat", "is_free", "put_aside"]

EPOCHS = "trainer.max_epochs"

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
    "data.source_options.cache",
    "data.source_options.download",
    "data.source_options.progress",
)


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run."""

    path: Path

    @property
    def config(self) -> Path:
        """Configuration of the run."""
        return self.path / "config.yaml"

    @property
    def best(self) -> Path:
        """Checkpoint of the best epoch."""
        return self.path / "best.ckpt"

    @property
    def last(self) -> Path:
        """Checkpoint of the last epoch, from which the run resumes."""
        return self.path / "last.ckpt"

    @property
    def fingerprint(self) -> Path:
        """What the files were that it was trained on."""
        return self.path / NAME

    @property
    def history(self) -> Path:
        """Metrics of every epoch."""
        return self.path / "history.csv"

    @property
    def summary(self) -> Path:
        """How training ended."""
        return self.path / "summary.json"

    def is_run(self, config: Path) -> bool:
        """Whether ``config`` is this folder's own configuration, beside a checkpoint."""
        return config.name == self.config.name and self.last.is_file()

    def saved_config(self) -> dict[str, Any] | None:
        """The options the run was started with, or None where no run was."""
        if not self.config.is_file():
            return None
        return read_config(self.config)

    @contextmanager
    def training(self, config: dict[str, Any]) -> Iterator[None]:
        """Write the options, those of fewer epochs are kept; what was said about an earlier end no longer holds.

        Raises:
            ValueError: another process trains in the folder; nothing is changed.
        """
        with alone(self.path):
            self._start(config)
            yield

    def _start(self, config: dict[str, Any]) -> None:
        epochs = [flat(one).get(EPOCHS) for one in (self.saved_config() or config, config)]
        if epochs[0] != epochs[1] and (rows := self.saved_rows()):
            write_text(self.path / f"config_until_epoch_{len(rows)}.yaml", self.config.read_text(encoding="utf-8"))
        write_text(self.config, yaml.safe_dump(config, sort_keys=False))
        write_fingerprint(self.fingerprint, config["data"])
        self.summary.unlink(missing_ok=True)

    def end(self) -> dict[str, Any] | None:
        """How training ended: "by", "why" and "finished"; None while it runs, or where it was killed."""
        if not self.summary.is_file():
            return None
        end = read_json(self.summary).get(
            "end", {"by": "unknown", "why": "an earlier version wrote it", "finished": True}
        )
        if not isinstance(end, dict) or not {"by", "why", "finished"} <= end.keys():
            refuse_file(self.summary, "tell how training ended (remove it where that is not known)", repr(end)[:80])
        return end

    def saved_rows(self) -> list[dict[str, float]]:
        """The rows of the history that a resumed run does not repeat: those of the checkpoint it begins with."""
        path, _ = self.resumable()
        return [] if path is None else read_checkpoint(path)["callbacks"][History.__name__]["rows"]

    def resumable(self) -> tuple[Path | None, list[str]]:
        """The newest checkpoint that is whole, and what is wrong with a newer one."""
        return first_whole((self.last, self.best))

    def require_same(self, config: dict[str, Any]) -> None:
        """Refuse to carry on a run with other options than it was started with; it may have more epochs.

        Raises:
            ValueError: naming the options that differ.
        """
        shown = differing_options(self.saved_config() or {}, config)
        if shown:
            reject(
                f"run_dir {self.path}",
                "hold a run with the same options to be resumed (--run_dir names another folder, --restart true "
                "sets the old run aside)",
                "; ".join(shown),
            )

    def set_aside(self) -> Path | None:
        """Rename an existing folder to the first free ``<name>.old-<n>``; its new name, or None if there was none.

        Raises:
            ValueError: a folder that holds something else than a run.
        """
        if not self.path.exists():
            return None
        rule = "be the folder of a run to be set aside by --restart true, or not be there (--run_dir names another one)"
        known = self.path.is_dir() and (self.config.is_file() or not any(self.path.iterdir()))
        require(known, f"run_dir {self.path}", rule, f"one without {self.config.name}")
        return put_aside(self.path)


def put_aside(folder: Path) -> Path:
    """Rename a folder to the first free ``<name>.old-<n>``; its new name."""
    number = 1
    while (aside := folder.with_name(f"{folder.name}.old-{number}")).exists():
        number += 1
    folder.rename(aside)
    return aside


def differing_options(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What would make another model, as ``name = x there and y here``; more epochs than before are no difference."""
    earlier, here = flat(before), flat(now)
    differing = sorted(key for key in earlier.keys() | here.keys() if earlier.get(key) != here.get(key))
    epochs = (earlier.get(EPOCHS), here.get(EPOCHS))
    if all(isinstance(epoch, int) for epoch in epochs) and 0 < epochs[0] < epochs[1]:  # type: ignore[operator]
        differing = [key for key in differing if key != EPOCHS]
    return [f"{key} = {earlier.get(key)} there and {here.get(key)} here" for key in differing if not is_free(key)]


def others_than(given: dict[str, Any], taken: dict[str, Any]) -> list[str]:
    """Names in ``given`` whose values are others than in ``taken``, which may spell out more of them."""

    def same(one: Any, other: Any) -> bool:
        if isinstance(one, dict) and isinstance(other, dict):
            return not others_than(one, other)
        try:
            return float(one) == float(other)  # YAML takes 1e-3 for a word
        except (TypeError, ValueError):
            return one == other

    return [name for name, value in given.items() if name in taken and not same(value, taken[name])]


def flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested options as ``{"model.schedule.learning_rate": 0.001, ...}``."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def is_free(key: str) -> bool:
    """Whether an option may differ between the command that started a run and the one that resumes or tests it."""
    return any(key == free or key.startswith(f"{free}.") for free in _FREE)


def checkpoints(run: RunFolder, monitor: str) -> list[Callback]:
    """Write ``best.ckpt`` and ``last.ckpt`` after every epoch."""
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
        moved = {"": ""}  # none in the first epoch
        moved |= {path: str(Path(str(self.dirpath)) / Path(path).name) for path in state_dict["best_k_models"]}
        here = {
            "dirpath": self.dirpath,
            "best_model_path": moved[state_dict["best_model_path"]],
            "kth_best_model_path": moved[state_dict["kth_best_model_path"]],
            "best_k_models": {moved[path]: score for path, score in state_dict["best_k_models"].items()},
        }
        super().load_state_dict({**state_dict, **here})


class EpochSeed(Callback):
    """Seeds every epoch from (seed, epoch), so that a resumed run draws what the uninterrupted one would have drawn.

    What is drawn for a sample does not depend on it, see ``pipelines.train.draws``; dropout does.
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
        # All rows' columns: those of a resumed run may be from an earlier version, which named them otherwise.
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        writer = csv.DictWriter(table, columns, lineterminator="\n")
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
