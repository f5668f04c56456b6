"""``ccnn fit | validate | test | predict``: LightningCLI and a run folder around it; the tasks behind it fill it in."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import pickle
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
import yaml
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from rich import get_console

from ccnn_irregular._checks import reject, require
from ccnn_irregular.pipelines import figures
from ccnn_irregular.pipelines.reports import versions, write_json, write_text
from ccnn_irregular.pipelines.run_folder import EpochSeed, History, RunFolder, checkpoints
from ccnn_irregular.pipelines.training import TrainedNetwork

__all__ = ["TASKS", "TrainingCLI", "load_weights", "run"]

# Task of a configuration -> module and class of its command line.
TASKS = {
    "risk": ("icu.cli", "RiskCLI"),
    "classification": ("classification.cli", "ClassificationCLI"),
    "segmentation": ("segmentation.cli", "SegmentationCLI"),
    "field": ("field.cli", "FieldCLI"),
    "downscale": ("downscale.cli", "DownscaleCLI"),
    "cloud_classification": ("clouds.classification_cli", "CloudClassificationCLI"),
    "cloud_segmentation": ("clouds.segmentation_cli", "CloudSegmentationCLI"),
}


def run(args: list[str]) -> None:
    """Run one of the four commands; ``args`` starts with its name."""
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
        _task_class(args)(args)


def _task_class(args: list[str]) -> type[TrainingCLI]:
    """The command line of the task that the configurations name (``task: classification``)."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", "-c", action="append", default=[])
    parser.add_argument("--task")
    known, _ = parser.parse_known_args(args)
    task = "risk"
    for path in known.config:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        task = content.get("task", task) if isinstance(content, dict) else task
    task = known.task or task
    require(task in TASKS, "task", f"be one of {', '.join(TASKS)}", repr(task))
    module, name = TASKS[task]
    return getattr(importlib.import_module(f"{__package__}.{module}"), name)


class TrainingCLI(LightningCLI):
    """The four commands; each option of the trainer, the module and the data module is an option of each command.

    Attributes:
        task: its name in a configuration.
        module: what is trained.
        data: what it is trained on.
        monitor: metric on the validation part whose highest value marks the best epoch.
        monitor_label: its name for readers.
        summaries: one line of help per command.
        curves: columns of the history that are drawn, see ``figures.training_curves``.
    """

    task: ClassVar[str]
    module: ClassVar[type[TrainedNetwork]]
    data: ClassVar[type[LightningDataModule]]
    monitor: ClassVar[str]
    monitor_label: ClassVar[str]
    summaries: ClassVar[Mapping[str, str]]
    curves: ClassVar[figures.Curves]

    def __init__(self, args: list[str]) -> None:
        super().__init__(
            self.module,
            self.data,
            save_config_callback=None,  # the run folder keeps the configuration, and compares it
            seed_everything_default=0,
            trainer_defaults={
                "logger": False,
                "devices": 1,
                "enable_model_summary": False,
                "num_sanity_val_steps": 0,
            },
            parser_kwargs={"prog": "ccnn", "allow_abbrev": False}
            | {name: {"description": text, "allow_abbrev": False} for name, text in self.summaries.items()},
            auto_configure_optimizers=False,
            args=args,
        )

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        parser.set_defaults({"weights_only": True})
        parser.add_argument("--run_dir", type=str | None, help="folder of the run (default: runs/<configuration>)")
        parser.add_argument("--task", type=str, default=self.task, help="what is trained; configurations name it")
        # Every command accepts it, though only fit uses it: one configuration file serves all four.
        parser.add_lightning_class_args(EarlyStopping, "early_stopping")
        parser.set_defaults({"early_stopping.monitor": self.monitor, "early_stopping.mode": "max"})
        if subcommand == "fit":
            parser.add_argument("--restart", type=bool, default=False, help="set an earlier run aside, start anew")
        self.add_task_arguments(parser, subcommand)
        if subcommand in ("test", "predict"):
            parser.add_argument("--output", type=str | None, help="where results go (default: inside the run folder)")
        return parser

    def add_task_arguments(self, parser: LightningArgumentParser, subcommand: str) -> None:
        """Options of a command that only this task has."""

    def describe(self, datamodule: Any) -> dict[str, Any]:
        """What was read, for the JSON."""
        raise NotImplementedError

    def report(self, datamodule: Any) -> str:
        """What was read, for the reader."""
        raise NotImplementedError

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, then find the run folder and the checkpoint in it."""
        self.config = parser.parse_args(args)
        options = self.config[self.config.subcommand]
        self.run_folder = RunFolder(Path(options.run_dir or _default_run_dir(options)))
        if self.config.subcommand == "fit":
            self._find_resumable(options)
        else:
            options.ckpt_path = options.ckpt_path or str(self.run_folder.best)
            _require_checkpoint(options.ckpt_path)

    def _find_resumable(self, options: Any) -> None:
        """Resume from ``last.ckpt`` where the folder holds an unfinished run with the same options."""
        if options.restart and (aside := self.run_folder.set_aside()):
            get_console().print(f"the earlier run is now {aside}")
        if self.run_folder.saved_config() is None:
            return
        self.run_folder.require_same(self._plain_config())
        if self.run_folder.summary.is_file():
            reject(
                f"run_dir {self.run_folder.path}",
                "hold no finished run (--run_dir names another folder, --restart true sets the old run aside)",
                f"one that ended by itself; see {self.run_folder.summary}",
            )
        if options.ckpt_path is None and self.run_folder.last.is_file():
            options.ckpt_path = str(self.run_folder.last)
            get_console().print(f"resuming from {options.ckpt_path}")

    def _plain_config(self) -> dict[str, Any]:
        """The options of the subcommand as plain values, without those that only make sense in one call of fit.

        So the file saved in the run folder serves every command: ``ccnn test --config runs/NAME/config.yaml``.
        """
        subcommand = self.config.subcommand
        text = self._parser(subcommand).dump(self.config[subcommand], format="yaml", skip_none=False)
        once = ("restart", "ckpt_path", "config", "weights_only")
        return {name: value for name, value in yaml.safe_load(text).items() if name not in once}

    def _parse_ckpt_path(self) -> None:
        """Take the options of the model from the checkpoint, which the configuration may no longer match."""
        path = self.config[self.config.subcommand].ckpt_path
        try:
            super()._parse_ckpt_path()
        except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
            raise ValueError(f"ckpt_path must be a checkpoint written by ccnn fit, got {path}: {error}") from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer with the callbacks of the run; those of the configuration are for training only."""
        subcommand = self.config.subcommand
        callbacks: list[Callback] = []
        if self._get(self.config, "trainer").enable_progress_bar is not False:
            callbacks.append(RichProgressBar(leave=False))
        if subcommand == "fit":
            self.history = History(self.run_folder)
            seed = self._get(self.config, "seed_everything")
            callbacks += [EpochSeed(seed), self.history, *checkpoints(self.run_folder, self.monitor)]
        else:
            kwargs |= {"callbacks": [], "enable_checkpointing": False}
        self.trainer_defaults = {**self.trainer_defaults, "callbacks": callbacks}
        return super().instantiate_trainer(default_root_dir=str(self.run_folder.path), **kwargs)

    def fit(self, model: TrainedNetwork, datamodule: Any, **kwargs: Any) -> None:
        """Train, then write the summary and the training curves."""
        started = time.monotonic()
        # Read before the folder is made: a mistyped data root must not leave an empty run behind.
        datamodule.setup("fit")
        model.require_fits(datamodule)
        get_console().print(self.report(datamodule), highlight=False, soft_wrap=True)
        write_text(self.run_folder.config, yaml.safe_dump(self._plain_config(), sort_keys=False))
        try:
            self.trainer.fit(model, datamodule=datamodule, **kwargs)
        except SystemExit as stop:  # Lightning's way out of Ctrl-C
            finished = len(self.history.rows)
            get_console().print(
                f"interrupted after {finished} epochs in {self.run_folder.path}; the same command resumes"
            )
            raise SystemExit(130) from stop
        self.finish(model, datamodule)
        self._summarise(time.monotonic() - started)

    def finish(self, model: Any, datamodule: Any) -> None:
        """What this task does to the best checkpoint once training has ended."""

    def _summarise(self, seconds: float) -> None:
        best = max(self.history.rows, key=lambda row: row[self.monitor])
        summary = {
            "epochs": len(self.history.rows),
            "best": best,
            "seconds_of_this_command": round(seconds, 1),
            "seed": self._get(self.config, "seed_everything"),
            "checkpoint": str(self.run_folder.best),
            "data": self.describe(self.datamodule),
            "versions": versions(),
        }
        plot = figures.training_curves(self.history.rows, self.run_folder.path / "training.png", self.curves)
        write_json(self.run_folder.summary, summary)
        get_console().print(
            f"best validation {self.monitor_label} {best[self.monitor]:.3f} in epoch {best['epoch']:.0f}\n"
            f"checkpoint {self.run_folder.best}\ncurves {plot}",
            highlight=False,
            soft_wrap=True,
        )

    def validate(self, model: TrainedNetwork, datamodule: Any, ckpt_path: str, **kwargs: Any) -> None:
        """Lightning's table of the validation metrics."""
        load_weights(model, ckpt_path)
        self.trainer.validate(model, datamodule=datamodule, verbose=kwargs["verbose"])

    def training_seed(self, ckpt_path: str) -> int | None:
        config = RunFolder(Path(ckpt_path).parent).saved_config()
        return None if config is None else config["seed_everything"]


def load_weights(model: TrainedNetwork, ckpt_path: str) -> None:
    """Weights and normalisation of a checkpoint, into a model that was built from its options.

    Not left to the trainer, which would ask for the callbacks of the training run as well.

    Raises:
        ValueError: the checkpoint is of another network.
    """
    try:
        model.load_state_dict(torch.load(ckpt_path, map_location="cpu", weights_only=True)["state_dict"])
    except (KeyError, RuntimeError) as error:
        raise ValueError(
            f"ckpt_path must hold the weights of the configured network, got {ckpt_path}: {error}"
        ) from error


def _default_run_dir(options: Any) -> Path:
    """``runs/`` and the stem of the last configuration file; the file a run keeps stands for that run's own folder."""
    if not options.config:
        return Path("runs/default")
    path = Path(os.fspath(options.config[-1]))
    return path.parent if RunFolder(path.parent).is_run(path) else Path("runs") / path.stem


def _require_checkpoint(path: str) -> None:
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"ckpt_path must be a trained checkpoint, got no file {path}; train one with ccnn fit, or name one with "
            f"--ckpt_path or its folder with --run_dir"
        )
