"""``ccnn fit | validate | test | predict`` on irregular series of one's own tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from ccnn_irregular.datasets.tables import Columns
from ccnn_irregular.pipelines.tasks.series.data import SeriesTables, told
from ccnn_irregular.pipelines.tasks.series.evaluation import decided, evaluate, labels_of
from ccnn_irregular.pipelines.tasks.series.module import SeriesModel
from ccnn_irregular.pipelines.tasks.series.network import SeriesNetwork
from ccnn_irregular.pipelines.tasks.series.utility import best_threshold, normalised_utility
from ccnn_irregular.pipelines.train.checkpoint import load_weights, save_weights
from ccnn_irregular.pipelines.train.evaluation import Evaluation, say
from ccnn_irregular.pipelines.train.reports import write_csv
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
        "predict": "a CSV of every series: id, prediction, probability; needs no labels",
    }
    curves = (
        ("loss", "train_loss", "training", "-"),
        ("loss", "val_loss", "validation", "--"),
        ("validation score", "val_score", "score", "-"),
    )
    stops_early = True

    def parse_arguments(self, parser: Any, args: Any) -> None:
        """Parse; other tables than the run's come without its labels and statics, and all of their rows count."""
        super().parse_arguments(parser, args)
        if self.config.subcommand == "fit":
            return
        options = self.config[self.config.subcommand].data
        saved = (self.words.tested_run.saved_config() or {}).get("data", {})
        if _listed(options.table) != _listed(saved.get("table")):
            typed = {word.partition("=")[0] for word in self.words.others}
            for name in ("labels", "statics"):
                options[name] = options[name] if f"--data.{name}" in typed else None
            options.evaluate = options.evaluate if "--data.evaluate" in typed else "all"

    def _find_resumable(self, options: Any) -> None:
        """Fill in what the training rows say of the network, before the options are compared with an earlier run's."""
        self._training = SeriesTables(**{**vars(options.data), "columns": Columns(**vars(options.data.columns))})
        self._training.setup("fit")
        own = options.model.network.init_args.as_dict()
        found = self._training.inferred_options()
        found |= {name: own[name] for name in found if own[name] is not None and name != "schema"}
        network = {"class_path": options.model.network.class_path, "init_args": own | found}
        self.config = self.parser.parse_object({"fit": {"model": {"network": network}}}, self.config)
        assert self._training.schema is not None
        say(told(self._training.schema, found))
        super()._find_resumable(self.config["fit"])

    def instantiate_classes(self) -> None:
        """Hand the data what the network was trained on: its variables, statics, classes and units."""
        super().instantiate_classes()
        if self.config.subcommand == "fit":
            self.datamodule = self._training
        else:
            self.datamodule.schema = self.model.network.schema

    def finish(self, model: SeriesModel, datamodule: SeriesTables) -> None:
        """Where alarms have a utility, find the risk from which on they are worth it, by the validation part."""
        if datamodule.source != "psv":
            return
        load_weights(model, self.run_folder.best)
        model.eval()
        with torch.no_grad():
            risks = torch.cat([model.network.answers(batch) for batch in datamodule.loader("validation")])[:, 0]
        series = datamodule.samples.index[datamodule.indices("validation")]
        found = best_threshold(risks.numpy(), datamodule.targets("validation"), series)
        model.network.threshold.fill_(found)
        save_weights(model, self.run_folder.best)

    def evaluate(self, model: SeriesModel, datamodule: SeriesTables, folder: Path) -> Evaluation:
        """Metrics with intervals, and the predictions beside the labels."""
        rows, schema = datamodule.indices("test"), model.network.schema
        answers = self._answers(model, datamodule)
        mean = float(model.network.target_mean)
        found = evaluate(answers, datamodule.targets("test"), datamodule.samples.index[rows], schema, mean)
        _write(folder / "predictions.csv", answers, datamodule, model.network, labelled=True)
        found.files.append(folder / "predictions.csv")
        if datamodule.source == "psv":
            threshold = float(model.network.threshold)
            series = datamodule.samples.index[rows]
            utility = normalised_utility(answers[:, 0] >= threshold, datamodule.targets("test"), series)
            found.figures |= {"utility": utility, "threshold": threshold}
            found.notes.append(
                f"utility as in the challenge of 2019: {utility:.3f}, alarms at a risk of {threshold:.3f}"
            )
        return found

    def predicted_rows(self, model: SeriesModel, datamodule: SeriesTables, path: Path) -> str:
        """Write a line for each label that asks for one, and for each other series."""
        answers = self._answers(model, datamodule)
        _write(path, answers, datamodule, model.network, labelled=False)
        return f"{len(answers)} predictions for {len(set(datamodule.ids('test')))} series"

    def _answers(self, model: SeriesModel, datamodule: SeriesTables) -> Answers:
        say(datamodule.summary())
        return np.asarray(torch.cat(self.predictions(model, datamodule.loader("test"))).numpy(), np.float64)


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])


def _write(
    path: Path, answers: NDArray[np.float64], data: SeriesTables, network: SeriesNetwork, labelled: bool
) -> None:
    """A CSV of id, time where labels have one, prediction and probabilities."""
    schema, times = network.schema, data.written_times("test")
    columns: dict[str, Any] = {"id": data.ids("test")} | ({} if times is None else {"time": times})
    if labelled:
        columns["label"] = labels_of(data.targets("test"), schema)
    columns["prediction"] = decided(answers, schema, float(network.threshold))
    if schema.kind != "number":
        chances = np.hstack([1 - answers, answers]) if schema.kind == "binary" else answers
        columns |= {f"probability_{name}": [f"{p:.6f}" for p in chances[:, k]] for k, name in enumerate(schema.classes)}
    write_csv(path, list(columns), zip(*columns.values(), strict=True))
