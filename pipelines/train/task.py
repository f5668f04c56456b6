"""``ccnn fit | validate | test | predict``: LightningCLI and a run folder around it; a task fills it in."""

from __future__ import annotations

import time
from argparse import ArgumentError
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import yaml
from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from rich import get_console
from torch.utils.data import DataLoader

from ccnn_irregular._reprs import parameter_count
from ccnn_irregular.pipelines.train import figures
from ccnn_irregular.pipelines.train.alone import require_free
from ccnn_irregular.pipelines.train.arguments import Words, join_lists
from ccnn_irregular.pipelines.train.beginning import first_weights
from ccnn_irregular.pipelines.train.callbacks import training_callbacks
from ccnn_irregular.pipelines.train.checkpoint import WholeCheckpoints, load_weights, read_checkpoint, saved_options
from ccnn_irregular.pipelines.train.data import TaskData
from ccnn_irregular.pipelines.train.evaluation import Evaluation, say
from ccnn_irregular.pipelines.train.mid_epoch import Signals
from ccnn_irregular.pipelines.train.module import CLASSES, TaskModule
from ccnn_irregular.pipelines.train.outputs import record, require_own
from ccnn_irregular.pipelines.train.overlap import overlap_with, provenance, require_others
from ccnn_irregular.pipelines.train.progress import OneLine
from ccnn_irregular.pipelines.train.reports import versions, write_json
from ccnn_irregular.pipelines.train.resume import find_resumable, find_tested
from ccnn_irregular.pipelines.train.run_end import RunEnd, require_numbers, tells_no_numbers
from ccnn_irregular.pipelines.train.run_folder import RunFolder
from ccnn_irregular.pipelines.train.trainer_options import require_callbacks, require_options
from ccnn_irregular.pipelines.train.trusted import bounded_by
from ccnn_irregular.pipelines.train.usage import explained, help_asked

__all__ = ["Task"]

_SUMMARIES = {
    "fit": "train; the same command resumes an interrupted run",
    "validate": "loss and metrics on the validation part",
}
# A mistyped option is refused by us, with the nearest ones.
_STRICT = {"allow_abbrev": False, "exit_on_error": False}
_NEVER = 100_000  # epochs without a gain before training stops early, where a task trains to the end of its schedule


class Task(LightningCLI):
    """The four commands; each option of the trainer, the module and the data module is an option of each command.

    A subclass declares what follows and implements ``evaluate``; one that predicts rows implements ``predicted_rows``,
    one that writes something else overrides ``predict``.

    Attributes:
        task: its name in a configuration.
        module: what is trained.
        data: what it is trained on.
        monitor: metric on the validation part whose highest value marks the best epoch.
        monitor_label: its name for readers.
        summaries: one line of help for "test" and "predict".
        curves: columns of the history that are drawn, see ``figures.training_curves``.
        test_options: a dataclass of options ``--test....``; None = there are none.
        predict_options: the same of ``--predict....``.
        predicted: name of the file that predict writes in the run folder.
        stops_early: training ends where the monitor no longer rises; else by its schedule, unless asked for.
        tells_equal: ``evaluate`` says itself which test rows equal one trained on.
    """

    task: ClassVar[str]
    module: ClassVar[type[TaskModule]]
    data: ClassVar[type[TaskData[Any, Any]]]
    monitor: ClassVar[str]
    monitor_label: ClassVar[str]
    summaries: ClassVar[Mapping[str, str]]
    curves: ClassVar[figures.Curves]
    test_options: ClassVar[type | None] = None
    predict_options: ClassVar[type | None] = None
    predicted: ClassVar[str] = "predictions.csv"
    stops_early: ClassVar[bool] = False
    tells_equal: ClassVar[bool] = False

    def __init__(self, words: Words) -> None:
        self.words = words
        self.signals = Signals()
        self._read_data: TaskData[Any, Any] | None = None
        summaries = _SUMMARIES | dict(self.summaries)
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
            parser_kwargs={"prog": "ccnn", **_STRICT}
            | {name: {"description": text, **_STRICT} for name, text in summaries.items()},
            auto_configure_optimizers=False,
            args=words.with_options_of_run(),
        )

    # What a task fills in

    def add_task_arguments(self, parser: LightningArgumentParser, subcommand: str) -> None:
        """Add options of a command that only this task has, beside ``test_options`` and ``predict_options``."""

    def finish(self, model: Any, datamodule: Any) -> None:
        """Do something to the best checkpoint once training has ended."""

    def evaluate(self, model: Any, datamodule: Any, folder: Path) -> Evaluation:
        """Test a model that has its weights on data that are set up; files go into ``folder``."""
        raise NotImplementedError(f"{type(self).__name__} must implement evaluate, see Task")

    def predicted_rows(self, model: Any, datamodule: Any, path: Path) -> str:
        """Write the predictions of a model that has its weights to ``path``; what was written, for the reader."""
        raise NotImplementedError(f"{type(self).__name__} must implement predicted_rows or predict, see Task")

    @property
    def checkpoint(self) -> str:
        """Path of the checkpoint that is tested or predicts."""
        return str(self._get(self.config, "ckpt_path"))

    def output(self, datamodule: Any, name: str) -> Path:
        """Where results go: as asked, else under a name in the run folder; a whole source leaves the run's own test."""
        name = "test_all" if name == "test" and datamodule.evaluate == "all" else name
        return Path(self._get(self.config, "output") or self.run_folder.path / name)

    # The command line

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        parser.set_defaults({"weights_only": True})
        parser.add_argument("--run_dir", type=str | None, help="folder of the run (default: runs/<configuration>)")
        text = "folder or checkpoint of a run on the same rows, whose weights training begins with"
        parser.add_argument("--start_from", type=str | None, help=text)
        parser.add_argument("--task", type=str, default=self.task, help="what is trained; configurations name it")
        # Every command accepts it, though only fit uses it: one configuration file serves all four.
        parser.add_lightning_class_args(EarlyStopping, "early_stopping")
        parser.set_defaults({"early_stopping.monitor": self.monitor, "early_stopping.mode": "max"})
        if not self.stops_early:
            parser.set_defaults({"early_stopping.patience": _NEVER})
        if subcommand == "fit":
            parser.add_argument("--restart", type=bool, default=False, help="set an earlier run aside, start anew")
        options = {"test": self.test_options, "predict": self.predict_options}.get(subcommand)
        if options is not None:
            parser.add_class_arguments(options, subcommand, as_group=False)
        if subcommand == "predict" and any(action.dest == "data.evaluate" for action in parser._actions):
            parser.set_defaults({"data.evaluate": "all"})
        self.add_task_arguments(parser, subcommand)
        if subcommand in ("test", "validate"):
            text = "go on where rows were trained on, and count them in the report; else such a test is refused"
            parser.add_argument("--allow_overlap", type=bool, default=False, help=text)
        if subcommand in ("test", "predict"):
            parser.add_argument("--output", type=str | None, help="where results go (default: inside the run folder)")
        return parser

    def asked(self) -> Any:
        """``test_options`` or ``predict_options`` as typed."""
        kind = {"test": self.test_options, "predict": self.predict_options}[self.config.subcommand]
        assert kind is not None
        return kind(**vars(self._get(self.config_init, self.config.subcommand)))

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, then find the run folder and the checkpoint in it; what is not typed is as in the run."""
        command, command_parser = args[0], self._parser(args[0])
        help_asked(args, command_parser, self.task, self.words.chosen())
        try:
            self.config = parser.parse_args([command, *join_lists(args[1:], command_parser)])
        except ArgumentError as error:
            raise ValueError(explained(str(error), command_parser, command, self.task)) from error
        options = self.config[self.config.subcommand]
        self.run_folder = RunFolder(Path(options.run_dir))
        if self.config.subcommand == "fit":
            require_free(self.run_folder.path)  # before data are read
            self._ask_data(options)
            find_resumable(self.run_folder, self._plain_config, self.config["fit"])
        else:
            find_tested(self.run_folder, self._plain_config, options)

    def _ask_data(self, options: Any) -> None:
        """Fill in the arguments of the network that were left open and that the data tell."""
        network = options.model.get("network")  # a task of a user's may have none
        left = [] if network is None else self.data.left_open(network.init_args)
        if not left:
            return
        parser = ArgumentParser()
        parser.add_class_arguments(self.data, "data")
        self._read_data = parser.instantiate(Namespace(data=options.data)).data
        self._read_data.setup("fit")
        taken = {name: value for name, value in self._read_data.inferred().items() if name in left}
        given = network.init_args.as_dict() | taken
        found = {"class_path": network.class_path, "init_args": given}
        self.config = self.parser.parse_object({"fit": {"model": {"network": found}}}, self.config)
        say(self._read_data.inferred_lines(taken, given))

    def instantiate_classes(self) -> None:
        """The data that told the arguments of the network are read once; no checkpoint asks for more than it holds."""
        with bounded_by(self._get(self.config, "ckpt_path")):
            super().instantiate_classes()
        if self._read_data is not None:
            self.datamodule = self._read_data

    def after_instantiate_classes(self) -> None:
        """Let data be read as those of the training were, where its checkpoint holds how that was."""
        path = self._get(self.config, "ckpt_path")
        if self.config.subcommand != "fit" and Path(path).is_file():
            state = read_checkpoint(path).get(self.data.__qualname__)
            if state is not None:
                self.datamodule.load_state_dict(state)

    def _plain_config(self) -> dict[str, Any]:
        """The options of the subcommand as plain values, without those that only make sense in one call of fit.

        So the file saved in the run folder serves every command: ``ccnn test --config runs/NAME/config.yaml``.
        """
        subcommand = self.config.subcommand
        text = self._parser(subcommand).dump(self.config[subcommand], format="yaml", skip_none=False)
        once = ("restart", "ckpt_path", "config", "weights_only")
        kept = {name: value for name, value in yaml.safe_load(text).items() if name not in once}
        kept["data"].pop("evaluate", None)
        return kept

    def _parse_ckpt_path(self) -> None:
        """Take the options of the model from the checkpoint, which the configuration may no longer match."""
        path = self.config[self.config.subcommand].ckpt_path
        if path is not None and (options := saved_options(path)):
            command = self.config.subcommand
            try:
                self.config = self.parser.parse_object({command: {"model": options}}, self.config)
            except ArgumentError as error:
                raise ValueError(explained(str(error), self._parser(command), command, self.task)) from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer with the callbacks of the run; those of the configuration are for training only."""
        subcommand = self.config.subcommand
        options = self._get(self.config_init, "trainer")
        require_options(options)
        kwargs["enable_progress_bar"] = options.enable_progress_bar is not False and get_console().is_terminal
        callbacks: list[Callback] = [OneLine()] if kwargs["enable_progress_bar"] else []
        if subcommand == "fit":
            options = self.config_init[subcommand]
            callbacks += training_callbacks(self.run_folder, options, self.monitor, self.curves, self.signals)
        else:
            kwargs |= {"callbacks": [], "enable_checkpointing": False}
        self.trainer_defaults = {**self.trainer_defaults, "callbacks": callbacks}
        kwargs["max_time"] = None  # Lightning's own limit would count the time of earlier commands
        trainer: Trainer = super().instantiate_trainer(default_root_dir=str(self.run_folder.path), **kwargs)
        require_callbacks(trainer)
        trainer.strategy.checkpoint_io = WholeCheckpoints()
        return trainer

    # The four commands

    def fit(self, model: TaskModule, datamodule: TaskData[Any, Any], **kwargs: Any) -> None:
        """Train, then say how it ended, and write the summary and the training curves."""
        started = time.monotonic()
        # Read before the folder is made: a mistyped data root must not leave an empty run behind.
        datamodule.setup("fit")
        model.require_fits(datamodule)
        model.require_trainable(datamodule)
        if (path := kwargs.get("ckpt_path")) is not None:
            model.on_load_checkpoint(read_checkpoint(path))
            model.note_rows(datamodule)
        elif (begin := self._get(self.config, "start_from")) is not None:
            model.first_weights = first_weights(begin, datamodule)
        say(f"{datamodule.summary()}\nnetwork of {parameter_count(model):,} parameters")
        with self.run_folder.training(self._plain_config()):
            try:
                with self.signals.heard():
                    self.trainer.fit(model, datamodule=datamodule, **kwargs)
            except BaseException as error:
                end = RunEnd.broken(error)
                if end.by != "time_limit":
                    self._summarise(end, time.monotonic() - started)
                    if end.status is not None:
                        raise SystemExit(end.status) from error
                    raise
            else:
                end = RunEnd.reached(self.trainer)
            trained = self.run_folder.best.is_file()  # not before the first epoch is done
            if trained:
                self.finish(model, datamodule)
            self._summarise(end, time.monotonic() - started)  # last: it says that nothing is left to do
            if trained:
                say(f"next: ccnn test --run_dir {self.run_folder.path}")

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
            "data": self.datamodule.describe(),
            "versions": versions(),
        }
        write_json(self.run_folder.summary, summary)
        told = end.told(len(rows), self.run_folder.path, self.run_folder.last.is_file())
        if best is not None:
            plot = figures.training_curves(rows, self.run_folder.path / "training.png", self.curves)
            told += (
                f"\nbest validation {self.monitor_label} {best[self.monitor]:.3f} in epoch {best['epoch']:.0f}\n"
                f"checkpoint {self.run_folder.best}\ncurves {plot}"
            )
        say(told)

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
        self._read("test" if part == "test" else "validate", self.datamodule, path)
        self.overlap = overlap_with(self.datamodule, path, part, allowed)
        end = RunFolder(Path(path).parent).end()
        if end is not None and not end["finished"]:
            say(f"note: training is not finished: {end['why']}")
        if self.overlap is None:
            return
        if not allowed:
            require_others(self.overlap, path, part, self._plain_config())
        told_later = part == "test" and self.tells_equal and self.overlap.met == self.overlap.twins
        if self.overlap.met and not told_later:
            say(f"note: among these are {self.overlap}")

    def validate(self, model: TaskModule, datamodule: TaskData[Any, Any], ckpt_path: str, **kwargs: Any) -> None:
        """Lightning's table of the validation metrics."""
        load_weights(model, ckpt_path)
        model.require_fits(datamodule)
        model.require_trainable(datamodule)
        for metrics in self.trainer.validate(model, datamodule=datamodule, verbose=kwargs["verbose"]):
            require_numbers(metrics, [self.monitor], "on the validation part", model)

    def test(self, model: TaskModule, datamodule: TaskData[Any, Any], ckpt_path: str, **_: Any) -> None:
        """Evaluate on the test part: tables, JSON, files."""
        self._ready(model, datamodule, ckpt_path)
        folder = self.output(datamodule, "test")
        found = self.evaluate(model, datamodule, folder)
        about = {
            "network": type(model.network).__name__,
            "parameters": parameter_count(model.network),
            "data": datamodule.describe(),
            "versions": versions(),
        }
        write_json(folder / "metrics.json", found.figures | provenance(ckpt_path, self.overlap) | about)
        found.files.insert(0, folder / "metrics.json")
        found.print()

    def predict(self, model: Any, datamodule: Any, ckpt_path: str, **_: Any) -> None:
        """Write the predictions."""
        path = self.output(datamodule, self.predicted)
        require_own(path)
        self._ready(model, datamodule, ckpt_path)
        if (overlap := overlap_with(datamodule, ckpt_path, "test", allowed=True)) is not None and overlap.met:
            say(f"note: among these are {overlap}")
        written = self.predicted_rows(model, datamodule, path)
        record(path, self.task, ckpt_path, datamodule.describe())
        say(f"{written}: {path}")

    def _ready(self, model: TaskModule, datamodule: TaskData[Any, Any], ckpt_path: str) -> None:
        """Read the data, and give the model its weights."""
        self._read(self.config.subcommand, datamodule, ckpt_path)
        load_weights(model, ckpt_path)
        model.require_fits(datamodule)

    @staticmethod
    def _read(stage: str, datamodule: TaskData[Any, Any], ckpt_path: str) -> None:
        """Read the data for a checkpoint, whose classes they are to have."""
        names = read_checkpoint(ckpt_path).get(CLASSES)
        datamodule.trained_classes = None if names is None else tuple(names)
        datamodule.setup(stage)

    def predictions(self, model: TaskModule, loader: DataLoader[Any]) -> list[Any]:
        """What ``predict_step`` answers to each batch."""
        with tells_no_numbers(model.network):
            found = self.trainer.predict(model, dataloaders=loader)
        assert found is not None
        return found
