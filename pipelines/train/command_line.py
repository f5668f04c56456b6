"""``ccnn fit | validate | test | predict``: LightningCLI and a run folder around it; the tasks behind it fill it in."""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import pickle
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import yaml
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from rich import get_console

from ccnn_irregular._checks import reject, require
from ccnn_irregular.pipelines.train import figures
from ccnn_irregular.pipelines.train.earlier import config_argument, migrated_config
from ccnn_irregular.pipelines.train.module import TrainedNetwork
from ccnn_irregular.pipelines.train.reports import versions, write_json
from ccnn_irregular.pipelines.train.run_end import (
    FiniteMetrics,
    RunEnd,
    StepLimit,
    TimeLimit,
    require_epochs,
    require_numbers,
)
from ccnn_irregular.pipelines.train.run_folder import (
    EPOCHS,
    EpochSeed,
    History,
    RunFolder,
    checkpoints,
    differing_options,
    is_free,
    others_than,
)
from ccnn_irregular.pipelines.train.trained_on import ENTRY, Overlap, TrainedOn

__all__ = ["TASKS", "TrainingCLI", "load_weights", "run"]

# Task of a configuration -> module and class of its command line.
TASKS = {
    "risk": ("risk.task", "RiskCLI"),
    "classification": ("classification.task", "ClassificationCLI"),
    "segmentation": ("segmentation.task", "SegmentationCLI"),
    "field": ("field.task", "FieldCLI"),
    "downscale": ("downscale.task", "DownscaleCLI"),
    "cloud_classification": ("cloud_classification.task", "CloudClassificationCLI"),
    "cloud_segmentation": ("cloud_segmentation.task", "CloudSegmentationCLI"),
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
    known, _ = _shared_arguments(args[1:])
    task = "risk"
    files = known.config
    if not files and args[0] != "fit" and (own := _tested_run(known).config).is_file():
        files = [own]
    for path in files:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        task = content.get("task", task) if isinstance(content, dict) else task
    task = known.task or task
    require(task in TASKS, "task", f"be one of {', '.join(TASKS)}", repr(task))
    module, name = TASKS[task]
    return getattr(importlib.import_module(f"ccnn_irregular.pipelines.tasks.{module}"), name)


# Exit statuses of a process that a signal ended, as shells have them.
_STATUS = {"interrupt": 130, "termination": 143}


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
        if subcommand in ("test", "validate"):
            text = "go on where rows were trained on, and count them in the report; else such a test is refused"
            parser.add_argument("--allow_overlap", type=bool, default=False, help=text)
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
        """Parse, then find the run folder and the checkpoint in it; what is not typed is as in the run."""
        self.config = parser.parse_args(with_options_of_run(args))
        options = self.config[self.config.subcommand]
        self.run_folder = RunFolder(Path(options.run_dir or _default_run_dir(options.config or [])))
        if self.config.subcommand == "fit":
            self._find_resumable(options)
        else:
            options.ckpt_path = options.ckpt_path or str(self.run_folder.best)
            _require_checkpoint(options.ckpt_path)

    def _find_resumable(self, options: Any) -> None:
        """Resume from ``last.ckpt`` where the folder holds an unfinished run with the same options."""
        if options.restart and (aside := self.run_folder.set_aside()):
            get_console().print(f"the earlier run is now {aside}")
        before = self.run_folder.saved_config()
        if before is None:
            return
        self.run_folder.require_same(self._plain_config())
        end, trained = self.run_folder.end(), len(self.run_folder.saved_rows())
        epochs, more = before["trainer"]["max_epochs"], options.trainer.max_epochs
        if end is not None and end["finished"] and (end["by"] != "max_epochs" or more == epochs):
            reject(
                f"run_dir {self.run_folder.path}",
                "hold no finished run (--run_dir names another folder, --restart true sets the old run aside, a larger "
                f"--{EPOCHS} than {epochs} goes on where that ended it)",
                f"one that is finished after {trained} epochs: {end['why']}; see {self.run_folder.summary}",
            )
        if options.ckpt_path is None and self.run_folder.last.is_file():
            options.ckpt_path = str(self.run_folder.last)
            why = end["why"] if end is not None else "it ended without a word"
            get_console().print(f"resuming from {options.ckpt_path} after {trained} epochs ({why})", soft_wrap=True)
        if trained and more != epochs:
            warnings.warn(
                f"{EPOCHS} was {epochs} and is {more}: from epoch {trained} on the learning rate follows the schedule "
                f"of {more} epochs, so the result is not that of {more} epochs from the start (--restart true)",
                UserWarning,
                stacklevel=2,
            )

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
        subcommand = self.config.subcommand
        path = self.config[subcommand].ckpt_path
        if path is None or not Path(path).is_file():
            return
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
            raise ValueError(f"ckpt_path must be a checkpoint written by ccnn fit, got {path}: {error}") from error
        options = migrated_config(content.get("hyper_parameters", {}))
        options.pop("_instantiator", None)
        self.config = self.parser.parse_object({subcommand: {"model": options}}, self.config)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer with the callbacks of the run; those of the configuration are for training only."""
        subcommand = self.config.subcommand
        options = self._get(self.config_init, "trainer")
        callbacks: list[Callback] = []
        if options.enable_progress_bar is not False:
            callbacks.append(RichProgressBar(leave=False))
        if subcommand == "fit":
            self.history = History(self.run_folder)
            stopping = self._get(self.config, "early_stopping")
            needed = [self.monitor, *([stopping.monitor] if stopping.strict else [])]
            seed = self._get(self.config, "seed_everything")
            callbacks += [EpochSeed(seed), self.history, FiniteMetrics(needed), StepLimit()]
            callbacks += [] if options.max_time is None else [TimeLimit(options.max_time)]
            callbacks += checkpoints(self.run_folder, self.monitor)
        else:
            kwargs |= {"callbacks": [], "enable_checkpointing": False}
        self.trainer_defaults = {**self.trainer_defaults, "callbacks": callbacks}
        kwargs["max_time"] = None  # Lightning's own limit would count the time of earlier commands
        return super().instantiate_trainer(default_root_dir=str(self.run_folder.path), **kwargs)

    def fit(self, model: TrainedNetwork, datamodule: Any, **kwargs: Any) -> None:
        """Train, then say how it ended, and write the summary and the training curves."""
        started = time.monotonic()
        require_epochs(self.trainer)
        # Read before the folder is made: a mistyped data root must not leave an empty run behind.
        datamodule.setup("fit")
        model.require_fits(datamodule)
        if (path := kwargs.get("ckpt_path")) is not None:
            model.on_load_checkpoint(torch.load(path, map_location="cpu", weights_only=True))
            model.note_rows(datamodule)
        get_console().print(self.report(datamodule), highlight=False, soft_wrap=True)
        self.run_folder.start(self._plain_config())
        before = len(self.run_folder.saved_rows())
        try:
            self.trainer.fit(model, datamodule=datamodule, **kwargs)
        except BaseException as error:
            end = RunEnd.broken(error)
            self._summarise(end, time.monotonic() - started)
            if end.by in _STATUS:
                raise SystemExit(_STATUS[end.by]) from error
            if end.by != "time_limit":
                raise
            if len(self.run_folder.saved_rows()) == before:
                reject("trainer.max_time", "be longer than an epoch takes", "no epoch done in this time; none is kept")
        else:
            self._summarise(RunEnd.reached(self.trainer), time.monotonic() - started)
        self.finish(model, datamodule)

    def finish(self, model: Any, datamodule: Any) -> None:
        """What this task does to the best checkpoint once training has ended."""

    def _summarise(self, end: RunEnd, seconds: float) -> None:
        """Tell how training ended, on the console and in ``summary.json``; what was left out does not count."""
        rows = self.run_folder.saved_rows()
        best = max(rows, key=lambda row: row[self.monitor]) if rows else None
        summary = {
            "end": {"finished": end.finished, **vars(end)},
            "epochs": len(rows),
            "best": best,
            "seconds_of_this_command": round(seconds, 1),
            "seed": self._get(self.config, "seed_everything"),
            "checkpoint": str(self.run_folder.best),
            "data": self.describe(self.datamodule),
            "versions": versions(),
        }
        write_json(self.run_folder.summary, summary)
        told = f"finished after {len(rows)} epochs: {end.why}"
        if not end.finished:
            next_step = "--restart true starts anew" if end.by == "no_number" else "the same command resumes"
            told = f"not finished: {end.why}\n{len(rows)} epochs are in {self.run_folder.path}; {next_step}"
        if best is not None:
            plot = figures.training_curves(rows, self.run_folder.path / "training.png", self.curves)
            told += (
                f"\nbest validation {self.monitor_label} {best[self.monitor]:.3f} in epoch {best['epoch']:.0f}\n"
                f"checkpoint {self.run_folder.best}\ncurves {plot}"
            )
        get_console().print(told, highlight=False, soft_wrap=True)

    def before_validate(self) -> None:
        """Compare the validation part with what was trained on."""
        self._require_apart("validation")

    def before_test(self) -> None:
        """Compare the test part with what was trained on."""
        self._require_apart("test")

    def _require_apart(self, part: Literal["validation", "test"]) -> None:
        """Refuse a part whose rows were trained on, before work is done; see ``TrainedOn``.

        Raises:
            ValueError: rows of the part were trained on, with their number; a checkpoint that does not tell.
        """
        path = self._get(self.config, "ckpt_path")
        allowed = self._get(self.config, "allow_overlap")
        self.datamodule.setup("test" if part == "test" else "validate")
        self.overlap = self.overlap_with(path, part, allowed)
        end = RunFolder(Path(path).parent).end()
        if end is not None and not end["finished"]:
            get_console().print(f"note: training is not finished: {end['why']}", highlight=False, soft_wrap=True)
        if self.overlap is None:
            return
        if self.overlap.met > self.overlap.twins and not allowed:
            reject(
                f"the {self.overlap.tested} {self.overlap.rows_are} of the {part} part",
                f"be others than those that {path} was trained on ({self._differing(path)}; "
                "--allow_overlap true goes on and counts them in the report)",
                str(self.overlap),
            )
        if self.overlap.met:
            get_console().print(f"note: {self.overlap}", highlight=False, soft_wrap=True)

    def overlap_with(self, ckpt_path: str, part: Literal["validation", "test"], allowed: bool) -> Overlap | None:
        """How much of a part was trained on; None where a checkpoint does not tell and that is allowed."""
        checkpoint = torch.load(ckpt_path, map_location="cpu", weights_only=True)
        if allowed and ENTRY not in checkpoint:
            return None
        # The validation part chose the best epoch by design: there, only what was trained on counts.
        keys = self.datamodule.keys(part)
        return TrainedOn.from_checkpoint(checkpoint, ckpt_path).overlap(keys, chosen=part == "test")

    def tell_overlap(self, ckpt_path: str) -> None:
        """For ``predict``, which scores nothing: say how many of the rows to predict were trained on."""
        overlap = self.overlap_with(ckpt_path, "test", allowed=True)
        if overlap is not None and overlap.met:
            get_console().print(f"note: {overlap}", highlight=False, soft_wrap=True)

    def _differing(self, ckpt_path: str) -> str:
        """Options of the data that are others than the run's, for a message."""
        run = RunFolder(Path(ckpt_path).parent)
        saved, here = run.saved_config(), self._plain_config()
        if saved is None:
            return "its run folder holds no config.yaml to compare the options with"
        shown = [one for one in differing_options(saved, here) if one.startswith("data.")]
        return f"the run there, this command here: {'; '.join(shown)}" if shown else "with the options of the run"

    def provenance(self, ckpt_path: str) -> dict[str, Any]:
        """Where tested weights come from, for the JSON of a test: checkpoint, seed, end of training, overlap."""
        run = RunFolder(Path(ckpt_path).parent)
        return {
            "checkpoint": ckpt_path,
            "seed": (run.saved_config() or {}).get("seed_everything"),
            "training": run.end(),
            "overlap": self.overlap,
        }

    def validate(self, model: TrainedNetwork, datamodule: Any, ckpt_path: str, **kwargs: Any) -> None:
        """Lightning's table of the validation metrics."""
        load_weights(model, ckpt_path)
        model.require_fits(datamodule)
        for metrics in self.trainer.validate(model, datamodule=datamodule, verbose=kwargs["verbose"]):
            require_numbers(metrics, [self.monitor], "on the validation part", model)


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


def with_options_of_run(args: list[str]) -> list[str]:
    """The arguments of ``validate``, ``test`` or ``predict`` with the options of the tested run's data put in.

    What is typed comes first, then what the run was trained with, then a configuration file; where the file says
    something else than the run, that is told.
    """
    known, typed = _shared_arguments(args[1:])
    tested = _tested_run(known)
    saved = tested.saved_config()
    if args[0] == "fit" or saved is None or not {"data", "seed_everything"} <= saved.keys():
        return args
    known.run_dir = known.run_dir or str(_default_run_dir(known.config or [tested.config]))
    names = ("task", "run_dir", "ckpt_path")
    typed += [f"--{name}={getattr(known, name)}" for name in names if getattr(known, name) is not None]
    files = [config_argument(path) for path in known.config or [tested.config]]
    data = {name: value for name, value in saved["data"].items() if not is_free(f"data.{name}")}
    as_run = [f"--data={json.dumps(data, default=str)}", f"--seed_everything={json.dumps(saved['seed_everything'])}"]
    for path in known.config:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        given: dict[str, Any] = (content.get("data") if isinstance(content, dict) else None) or {}
        for name in others_than(given, data):
            if not any(word.startswith(f"--data.{name}") for word in typed):
                text = f"data.{name} = {data[name]} as in {tested.path}, not {given[name]} as in {path}"
                get_console().print(text, highlight=False, soft_wrap=True)
    return [args[0], *files, *as_run, *typed]


def _shared_arguments(args: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The arguments that tell the task and the run, and all others."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", "-c", action="append", default=[])
    for name in ("--task", "--run_dir", "--ckpt_path"):
        parser.add_argument(name)
    return parser.parse_known_args(args)


def _tested_run(known: argparse.Namespace) -> RunFolder:
    """The folder of the checkpoint that ``validate``, ``test`` and ``predict`` take."""
    if known.ckpt_path is not None:
        return RunFolder(Path(known.ckpt_path).parent)
    return RunFolder(Path(known.run_dir or _default_run_dir(known.config)))


def _default_run_dir(configs: Sequence[str | os.PathLike[str]]) -> Path:
    """``runs/`` and the stem of the last configuration file; the file a run keeps stands for that run's own folder."""
    if not configs:
        return Path("runs/default")
    path = Path(os.fspath(configs[-1]))
    return path.parent if RunFolder(path.parent).is_run(path) else Path("runs") / path.stem


def _require_checkpoint(path: str) -> None:
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"ckpt_path must be a trained checkpoint, got no file {path}; train one with ccnn fit, or name one with "
            f"--ckpt_path or its folder with --run_dir"
        )
