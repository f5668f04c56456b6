"""``ccnn fit | validate | test | predict``: LightningCLI, a run folder around it, and the evaluation behind it."""

from __future__ import annotations

import logging
import os
import pickle
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import yaml
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from rich import get_console

from ccnn_irregular._checks import reject
from ccnn_irregular.pipelines import figures
from ccnn_irregular.pipelines.evaluation import (
    Predictions,
    evaluate,
    joined,
    print_table,
    versions,
    write_json,
    write_predictions,
    write_text,
)
from ccnn_irregular.pipelines.icu_data import ICUDataModule
from ccnn_irregular.pipelines.run_folder import EpochSeed, History, RunFolder, checkpoints
from ccnn_irregular.pipelines.training import BinaryRisk

__all__ = ["Bootstrap", "TrainingCLI", "describe_data", "load_weights", "run"]

MONITOR = "val_auroc"
_SUMMARIES = {
    "fit": "train; the same command resumes an interrupted run",
    "validate": "losses and metrics on the validation stays",
    "test": "metrics with intervals, as a table and JSON, and plots",
    "predict": "a CSV of record_id,probability; needs no outcomes",
}


@dataclass
class Bootstrap:
    """Intervals of the metrics.

    Attributes:
        resamples: how many times the stays are drawn with replacement.
        level: share of the resamples inside an interval.
        seed: of the drawing.
    """

    resamples: int = 2000
    level: float = 0.95
    seed: int = 0


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
        TrainingCLI(args)


class TrainingCLI(LightningCLI):
    """The four commands; each option of the trainer, the module and the data module is an option of each command."""

    def __init__(self, args: list[str]) -> None:
        super().__init__(
            BinaryRisk,
            ICUDataModule,
            save_config_callback=None,  # the run folder keeps the configuration, and compares it
            seed_everything_default=0,
            trainer_defaults={
                "logger": False,
                "devices": 1,
                "enable_model_summary": False,
                "num_sanity_val_steps": 0,
            },
            parser_kwargs={"prog": "ccnn", "allow_abbrev": False}
            | {name: {"description": text, "allow_abbrev": False} for name, text in _SUMMARIES.items()},
            auto_configure_optimizers=False,
            args=args,
        )

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        parser.set_defaults({"weights_only": True})
        parser.add_argument("--run_dir", type=str | None, help="folder of the run (default: runs/<configuration>)")
        # Every command accepts it, though only fit uses it: one configuration file serves all four.
        parser.add_lightning_class_args(EarlyStopping, "early_stopping")
        parser.set_defaults({"early_stopping.monitor": MONITOR, "early_stopping.mode": "max"})
        if subcommand == "fit":
            parser.add_argument("--restart", type=bool, default=False, help="set an earlier run aside, start anew")
        if subcommand == "test":
            parser.add_class_arguments(Bootstrap, "bootstrap")
            parser.add_argument("--record_id", type=int | None, help="the stay whose risk over time is plotted")
        if subcommand == "predict":
            parser.set_defaults({"data.evaluate": "all"})
        if subcommand in ("test", "predict"):
            parser.add_argument("--output", type=str | None, help="where results go (default: inside the run folder)")
        return parser

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
            callbacks += [EpochSeed(seed), self.history, *checkpoints(self.run_folder, MONITOR)]
        else:
            kwargs |= {"callbacks": [], "enable_checkpointing": False}
        self.trainer_defaults = {**self.trainer_defaults, "callbacks": callbacks}
        return super().instantiate_trainer(default_root_dir=str(self.run_folder.path), **kwargs)

    def fit(self, model: BinaryRisk, datamodule: ICUDataModule, **kwargs: Any) -> None:
        """Train, then write the summary and the training curves."""
        started = time.monotonic()
        # Read before the folder is made: a mistyped data root must not leave an empty run behind.
        datamodule.setup("fit")
        get_console().print(str(datamodule.cohort.report), highlight=False)
        write_text(self.run_folder.config, yaml.safe_dump(self._plain_config(), sort_keys=False))
        try:
            self.trainer.fit(model, datamodule=datamodule, **kwargs)
        except SystemExit as stop:  # Lightning's way out of Ctrl-C
            finished = len(self.history.rows)
            get_console().print(
                f"interrupted after {finished} epochs in {self.run_folder.path}; the same command resumes"
            )
            raise SystemExit(130) from stop
        self._summarise(time.monotonic() - started)

    def _summarise(self, seconds: float) -> None:
        best = max(self.history.rows, key=lambda row: row[MONITOR])
        summary = {
            "epochs": len(self.history.rows),
            "best": best,
            "seconds_of_this_command": round(seconds, 1),
            "seed": self._get(self.config, "seed_everything"),
            "checkpoint": str(self.run_folder.best),
            "data": describe_data(self.datamodule),
            "versions": versions(),
        }
        plot = figures.training_curves(self.history.rows, self.run_folder.path / "training.png")
        write_json(self.run_folder.summary, summary)
        get_console().print(
            f"best validation AUROC {best[MONITOR]:.3f} in epoch {best['epoch']:.0f}\n"
            f"checkpoint {self.run_folder.best}\ncurves {plot}",
            highlight=False,
            soft_wrap=True,
        )

    def validate(self, model: BinaryRisk, datamodule: ICUDataModule, ckpt_path: str, **kwargs: Any) -> None:
        """Lightning's table of the validation metrics."""
        load_weights(model, ckpt_path)
        self.trainer.validate(model, datamodule=datamodule, verbose=kwargs["verbose"])

    def test(self, model: BinaryRisk, datamodule: ICUDataModule, ckpt_path: str, **_: Any) -> None:
        """Evaluate on the stays that ``data.evaluate`` names: table, JSON, plots."""
        datamodule.setup("test")
        predictions = self._predictions(model, datamodule, ckpt_path)
        assert predictions.labels is not None
        bootstrap = self._get(self.config_init, "bootstrap")
        results = evaluate(
            predictions.labels,
            predictions.probabilities,
            resamples=bootstrap.resamples,
            level=bootstrap.level,
            seed=bootstrap.seed,
        )
        folder = self._output(datamodule, prefix="test", suffix="")
        report = {
            "metrics": results,
            "n": len(predictions.labels),
            "deaths": int(predictions.labels.sum()),
            "checkpoint": ckpt_path,
            "seed": self._training_seed(ckpt_path),
            "bootstrap": vars(bootstrap),
            "data": describe_data(datamodule),
            "versions": versions(),
        }
        write_json(folder / "metrics.json", report)
        write_predictions(folder / "predictions.csv", predictions)
        record = self._get(self.config, "record_id")
        source = Path(datamodule.root).name
        stays = datamodule.stays("all")
        plots = figures.save_test_figures(folder, predictions, model, stays, source=source, record_id=record)
        print_table({"network": results}, title=f"{report['n']} stays, {report['deaths']} deaths ({datamodule.root})")
        for path in (folder / "metrics.json", folder / "predictions.csv", *plots):
            get_console().print(str(path), highlight=False, soft_wrap=True)

    def predict(self, model: BinaryRisk, datamodule: ICUDataModule, ckpt_path: str, **_: Any) -> None:
        """Write the CSV."""
        predictions = self._predictions(model, datamodule, ckpt_path)
        path = self._output(datamodule, prefix="predictions", suffix=".csv")
        write_predictions(path, predictions)
        get_console().print(f"{len(predictions.record_ids)} stays: {path}", highlight=False, soft_wrap=True)

    def _predictions(self, model: BinaryRisk, datamodule: ICUDataModule, ckpt_path: str) -> Predictions:
        load_weights(model, ckpt_path)
        batches = self.trainer.predict(model, datamodule=datamodule)
        get_console().print(str(datamodule.cohort.report), highlight=False)
        return joined(cast("list[Predictions]", batches))

    def _output(self, datamodule: ICUDataModule, prefix: str, suffix: str) -> Path:
        """Where results go: as asked, or under a name in the run folder that tells one tested set from another."""
        name = f"{prefix}_{Path(datamodule.root).name}_{'+'.join(datamodule.sets)}_{datamodule.evaluate}{suffix}"
        return Path(self._get(self.config, "output") or self.run_folder.path / name)

    def _training_seed(self, ckpt_path: str) -> int | None:
        config = RunFolder(Path(ckpt_path).parent).saved_config()
        return None if config is None else config["seed_everything"]


def load_weights(model: BinaryRisk, ckpt_path: str) -> None:
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


def describe_data(data: ICUDataModule) -> dict[str, Any]:
    """What was evaluated, for the JSON."""
    names = ("root", "sets", "evaluate", "held_out", "validation", "split_seed", "on_bad_record", "repeats")
    return {name: getattr(data, name) for name in names}


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
