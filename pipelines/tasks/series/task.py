"""``ccnn fit | validate | test | predict`` on irregular series of one's own tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from ccnn_irregular.pipelines.tasks.series.data import SeriesTables
from ccnn_irregular.pipelines.tasks.series.evaluation import Resampling, evaluate, write_predictions
from ccnn_irregular.pipelines.tasks.series.figures import save_test_figures
from ccnn_irregular.pipelines.tasks.series.module import SeriesModel
from ccnn_irregular.pipelines.tasks.series.network import SeriesNetwork
from ccnn_irregular.pipelines.tasks.series.utility import best_threshold, normalised_utility
from ccnn_irregular.pipelines.train.checkpoint import load_weights, save_weights
from ccnn_irregular.pipelines.train.evaluation import Evaluation, say
from ccnn_irregular.pipelines.train.run_folder import is_free
from ccnn_irregular.pipelines.train.task import Task

__all__ = ["SeriesTask"]


Answers = NDArray[np.float64]


class SeriesTask(Task):
    """The four commands; what a table is like is taken from its training rows, and travels in the checkpoint."""

    task = "series"
    module = SeriesModel
    data = SeriesTables
    monitor = "val_score"
    monitor_label = "score"
    summaries: ClassVar[dict[str, str]] = {
        "test": "metrics with intervals, as a table and JSON, and the predictions",
        "predict": "a CSV of every series: id, prediction, probability or standard deviation; needs no labels",
    }
    curves = (
        ("loss", "train_loss", "training", "-"),
        ("loss", "val_loss", "validation", "--"),
        ("validation score", "val_score", "score", "-"),
    )
    stops_early = True
    test_options = Resampling

    def parse_arguments(self, parser: Any, args: Any) -> None:
        """Parse; other tables than the run's come without its labels and statics, and all of their rows count."""
        super().parse_arguments(parser, args)
        saved = None if self.config.subcommand == "fit" else self.words.tested_run.saved_config()
        if saved is None:
            return
        options = self.config[self.config.subcommand].data
        if _read(options) != _read(saved.get("data", {})):
            typed = {word.partition("=")[0] for word in self.words.others}
            for name in ("labels", "statics"):
                options[name] = options[name] if f"--data.{name}" in typed else None
            options.evaluate = options.evaluate if "--data.evaluate" in typed else "all"

    def _ask_data(self, options: Any) -> None:
        """Take the schema from the training rows, whatever an earlier configuration says."""
        options.model.network.init_args.schema = None
        super()._ask_data(options)

    def finish(self, model: SeriesModel, datamodule: SeriesTables) -> None:
        """Calibrate the best epoch on the validation part, and keep that in its checkpoint.

        Where alarms have a utility, find the risk from which on they are worth it.
        """
        network = model.network
        load_weights(model, self.run_folder.best)
        say(model.calibrate(datamodule))
        if datamodule.source == "psv":
            model.eval()
            with torch.no_grad():
                risks = torch.cat([network.answers(batch) for batch in datamodule.loader("validation")])[:, 0]
            series = datamodule.samples.index[datamodule.indices("validation")]
            network.threshold.fill_(best_threshold(risks.numpy(), datamodule.targets("validation"), series))
        save_weights(model, self.run_folder.best)

    def evaluate(self, model: SeriesModel, datamodule: SeriesTables, folder: Path) -> Evaluation:
        """Metrics with intervals, and the predictions beside the labels."""
        rows, network, asked = datamodule.indices("test"), model.network, self.asked()
        answers, targets = self._answers(model, datamodule), datamodule.targets("test")
        series, mean = datamodule.samples.index[rows], float(network.target_mean)
        found = evaluate(answers, targets, series, network.schema, mean, asked, float(network.deviation))
        found.figures["calibration"] = _calibration(network)
        found.files += save_test_figures(folder, answers, network, datamodule, asked.series)
        self._write(folder / "predictions.csv", answers, datamodule, network, targets)
        found.files.append(folder / "predictions.csv")
        if datamodule.source == "psv":
            threshold = float(network.threshold)
            utility = normalised_utility(answers[:, 0] >= threshold, targets, series)
            found.figures |= {"utility": utility, "threshold": threshold}
            found.notes.append(
                f"utility as in the challenge of 2019: {utility:.3f}, alarms at a risk of {threshold:.3f}"
            )
        return found

    def predicted_rows(self, model: SeriesModel, datamodule: SeriesTables, path: Path) -> str:
        """Write a line for each label that asks for one, and for each other series."""
        answers = self._answers(model, datamodule)
        self._write(path, answers, datamodule, model.network)
        return f"{len(answers)} predictions for {len(set(datamodule.ids('test')))} series"

    @staticmethod
    def _write(
        path: Path, answers: Answers, data: SeriesTables, network: SeriesNetwork, targets: Answers | None = None
    ) -> None:
        learned, times = (float(network.threshold), float(network.deviation)), data.written_times("test")
        write_predictions(path, data.ids("test"), answers, network.schema, times, targets, *learned)

    def _answers(self, model: SeriesModel, datamodule: SeriesTables) -> Answers:
        if model.network.schema.kind != "number" and not bool(model.network.calibration.fitted):
            say(f"the risks of {self.checkpoint} are not calibrated")
        say(datamodule.summary())
        return np.asarray(torch.cat(self.predictions(model, datamodule.loader("test"))).numpy(), np.float64)


def _read(options: Any) -> tuple[Any, ...]:
    """What is read: files, and the options of the source that choose among their content."""
    table = options.get("table")
    chosen = dict(options.get("source_options") or {})
    choosing = {name: value for name, value in chosen.items() if not is_free(f"data.source_options.{name}")}
    return [table] if isinstance(table, str) else table, choosing


def _calibration(network: SeriesNetwork) -> dict[str, list[float]] | None:
    """Level and slope of the logits by time, for the JSON; None where there is no calibration."""
    found = network.calibration
    if not bool(found.fitted):
        return None
    return {name: getattr(found, name).tolist() for name in ("times", "levels", "slopes")}
