"""``ccnn fit | validate | test | predict`` for the risk of a binary outcome: metrics with intervals, plots, a CSV."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from lightning.pytorch.cli import LightningArgumentParser
from rich import get_console

from ccnn_irregular.pipelines.tasks.risk import figures
from ccnn_irregular.pipelines.tasks.risk.data import ICUDataModule
from ccnn_irregular.pipelines.tasks.risk.evaluation import Predictions, evaluate, joined, print_table, write_predictions
from ccnn_irregular.pipelines.tasks.risk.module import BinaryRisk
from ccnn_irregular.pipelines.train.command_line import TrainingCLI, load_weights
from ccnn_irregular.pipelines.train.reports import versions, write_json

__all__ = ["Bootstrap", "RiskCLI", "describe_data"]


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


class RiskCLI(TrainingCLI):
    """The four commands on stays in an intensive care unit."""

    task = "risk"
    module = BinaryRisk
    data = ICUDataModule
    monitor = "val_auroc"
    monitor_label = "AUROC"
    summaries: ClassVar[dict[str, str]] = {
        "fit": "train; the same command resumes an interrupted run",
        "validate": "losses and metrics on the validation stays",
        "test": "metrics with intervals, as a table and JSON, and plots",
        "predict": "a CSV of record_id,probability; needs no outcomes",
    }
    curves = (
        ("cross-entropy", "train_loss", "training", "-"),
        ("cross-entropy", "val_loss", "validation", "--"),
        ("validation metric", "val_auroc", "AUROC", "-"),
        ("validation metric", "val_auprc", "AUPRC", "--"),
    )

    def add_task_arguments(self, parser: LightningArgumentParser, subcommand: str) -> None:
        """Intervals and a stay to plot for test; predict looks at every stay."""
        if subcommand == "test":
            parser.add_class_arguments(Bootstrap, "bootstrap")
            parser.add_argument("--record_id", type=int | None, help="the stay whose risk over time is plotted")
        if subcommand == "predict":
            parser.set_defaults({"data.evaluate": "all"})

    def describe(self, datamodule: ICUDataModule) -> dict[str, Any]:
        """Which stays were read and how they were split."""
        return describe_data(datamodule)

    def report(self, datamodule: ICUDataModule) -> str:
        """What the reader met in the files."""
        return str(datamodule.cohort.report)

    def finish(self, model: BinaryRisk, datamodule: ICUDataModule) -> None:
        """Calibrate the best epoch on the validation stays, and keep that in its checkpoint."""
        path = self.run_folder.best
        load_weights(model, str(path))
        get_console().print(model.calibrate(datamodule.stays("validation")), highlight=False, soft_wrap=True)
        content = torch.load(path, map_location="cpu", weights_only=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        torch.save(content | {"state_dict": model.state_dict()}, partial)
        partial.replace(path)

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
            **self.provenance(ckpt_path),
            "bootstrap": vars(bootstrap),
            "calibration": _calibration(model),
            "data": self.describe(datamodule),
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
        datamodule.setup("predict")
        self.tell_overlap(ckpt_path)
        predictions = self._predictions(model, datamodule, ckpt_path)
        path = self._output(datamodule, prefix="predictions", suffix=".csv")
        write_predictions(path, predictions)
        get_console().print(f"{len(predictions.record_ids)} stays: {path}", highlight=False, soft_wrap=True)

    def _predictions(self, model: BinaryRisk, datamodule: ICUDataModule, ckpt_path: str) -> Predictions:
        load_weights(model, ckpt_path)
        if not bool(model.calibration.fitted):
            get_console().print(f"the risks of {ckpt_path} are not calibrated", highlight=False, soft_wrap=True)
        batches = self.trainer.predict(model, datamodule=datamodule)
        get_console().print(str(datamodule.cohort.report), highlight=False)
        return joined(cast("list[Predictions]", batches))

    def _output(self, datamodule: ICUDataModule, prefix: str, suffix: str) -> Path:
        """Where results go: as asked, or under a name in the run folder that tells one tested set from another."""
        name = f"{prefix}_{Path(datamodule.root).name}_{'+'.join(datamodule.sets)}_{datamodule.evaluate}{suffix}"
        return Path(self._get(self.config, "output") or self.run_folder.path / name)


def _calibration(model: BinaryRisk) -> dict[str, list[float]] | None:
    """Level and slope of the logit by hour, for the JSON; None where there is no calibration."""
    found = model.calibration
    if not bool(found.fitted):
        return None
    return {name: getattr(found, name).tolist() for name in ("hours", "levels", "slopes")}


def describe_data(data: ICUDataModule) -> dict[str, Any]:
    """What was evaluated, for the JSON."""
    names = ("root", "sets", "evaluate", "held_out", "validation", "split_seed", "on_bad_record", "repeats")
    return {name: getattr(data, name) for name in names}
