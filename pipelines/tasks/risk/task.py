"""``ccnn fit | validate | test | predict`` for the risk of a binary outcome: metrics with intervals, plots, a CSV."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lightning.pytorch.cli import LightningArgumentParser

from ccnn_irregular.pipelines.tasks.risk import figures
from ccnn_irregular.pipelines.tasks.risk.data import ICUDataModule
from ccnn_irregular.pipelines.tasks.risk.evaluation import Predictions, evaluate, joined, table, write_predictions
from ccnn_irregular.pipelines.tasks.risk.module import BinaryRisk
from ccnn_irregular.pipelines.train.checkpoint import load_weights, save_weights
from ccnn_irregular.pipelines.train.evaluation import Evaluation, say
from ccnn_irregular.pipelines.train.task import Task

__all__ = ["Bootstrap", "RiskTask"]


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


class RiskTask(Task):
    """The four commands on stays in an intensive care unit."""

    task = "risk"
    module = BinaryRisk
    data = ICUDataModule
    monitor = "val_auroc"
    monitor_label = "AUROC"
    summaries: ClassVar[dict[str, str]] = {
        "test": "metrics with intervals, as a table and JSON, and plots",
        "predict": "a CSV of record_id,probability; needs no outcomes",
    }
    curves = (
        ("cross-entropy", "train_loss", "training", "-"),
        ("cross-entropy", "val_loss", "validation", "--"),
        ("validation metric", "val_auroc", "AUROC", "-"),
        ("validation metric", "val_auprc", "AUPRC", "--"),
    )
    stops_early = True

    def add_task_arguments(self, parser: LightningArgumentParser, subcommand: str) -> None:
        """Intervals and a stay to plot for test."""
        if subcommand == "test":
            parser.add_class_arguments(Bootstrap, "bootstrap")
            parser.add_argument("--record_id", type=int | None, help="the stay whose risk over time is plotted")

    def finish(self, model: BinaryRisk, datamodule: ICUDataModule) -> None:
        """Calibrate the best epoch on the validation stays, and keep that in its checkpoint."""
        path = self.run_folder.best
        load_weights(model, path)
        say(model.calibrate(datamodule.stays("validation")))
        save_weights(model, path)

    def evaluate(self, model: BinaryRisk, datamodule: ICUDataModule, folder: Path) -> Evaluation:
        """Metrics with intervals, plots, on the stays that ``data.evaluate`` names."""
        predictions = self._predictions(model, datamodule)
        assert predictions.labels is not None
        bootstrap = self._get(self.config_init, "bootstrap")
        results = evaluate(predictions.labels, predictions.probabilities, **vars(bootstrap))
        stays, deaths = len(predictions.labels), int(predictions.labels.sum())
        figures_of = {"source": Path(datamodule.root).name, "record_id": self._get(self.config, "record_id")}
        plots = figures.save_test_figures(folder, predictions, model, datamodule.stays("all"), **figures_of)
        write_predictions(folder / "predictions.csv", predictions)
        return Evaluation(
            {
                "metrics": results,
                "n": stays,
                "deaths": deaths,
                "bootstrap": vars(bootstrap),
                "calibration": _calibration(model),
            },
            tables=[table({"network": results}, f"{stays} stays, {deaths} deaths ({datamodule.root})")],
            files=[folder / "predictions.csv", *plots],
        )

    def predicted_rows(self, model: BinaryRisk, datamodule: ICUDataModule, path: Path) -> str:
        """Write ``record_id,probability`` lines."""
        predictions = self._predictions(model, datamodule)
        write_predictions(path, predictions)
        return f"{len(predictions.record_ids)} stays"

    def _predictions(self, model: BinaryRisk, datamodule: ICUDataModule) -> Predictions:
        if not bool(model.calibration.fitted):
            say(f"the risks of {self.checkpoint} are not calibrated")
        say(datamodule.summary())
        return joined(self.predictions(model, datamodule.loader("test")))

    def output(self, datamodule: ICUDataModule, name: str) -> Path:
        """As asked, or under a name in the run folder that tells one tested set from another."""
        stem, dot, suffix = name.partition(".")
        tested = f"{Path(datamodule.root).name}_{'+'.join(datamodule.sets)}_{datamodule.evaluate}"
        return super().output(datamodule, f"{stem}_{tested}{dot}{suffix}")


def _calibration(model: BinaryRisk) -> dict[str, list[float]] | None:
    """Level and slope of the logit by hour, for the JSON; None where there is no calibration."""
    found = model.calibration
    if not bool(found.fitted):
        return None
    return {name: getattr(found, name).tolist() for name in ("hours", "levels", "slopes")}
