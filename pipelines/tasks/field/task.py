"""``ccnn fit | validate | test | predict`` for fields: values anywhere from scattered or gappy observations."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from lightning.pytorch.cli import LightningArgumentParser
from numpy.typing import NDArray
from torch import Tensor

from ccnn_irregular.pipelines.tasks.field import figures
from ccnn_irregular.pipelines.tasks.field.baselines import BaselineName, baseline_values
from ccnn_irregular.pipelines.tasks.field.data import FieldDataModule
from ccnn_irregular.pipelines.tasks.field.kriging import FieldAxis
from ccnn_irregular.pipelines.tasks.field.module import FieldReconstruction
from ccnn_irregular.pipelines.tasks.field.records import in_own_reference
from ccnn_irregular.pipelines.tasks.field.scores import CSV_HEAD, Answers, csv_lines, mean_ratios, scores_of, table
from ccnn_irregular.pipelines.train.data import Part
from ccnn_irregular.pipelines.train.evaluation import Evaluation
from ccnn_irregular.pipelines.train.reports import whole, write_csv
from ccnn_irregular.pipelines.train.task import Task

__all__ = ["FieldTask"]

_MAPS = 3  # channels drawn


class FieldTask(Task):
    """The four commands on fields."""

    task = "field"
    module = FieldReconstruction
    data = FieldDataModule
    monitor = "val_score"
    monitor_label = "score (minus the squared error, first guess = -1)"
    summaries: ClassVar[dict[str, str]] = {
        "test": "error of network and baselines at what is kept for the test, as table, JSON, CSV and maps",
        "predict": "a netCDF file of the field at all its places",
    }
    curves = (
        ("squared error, first guess = 1", "train_loss", "training", "-"),
        ("squared error, first guess = 1", "val_loss", "validation", "--"),
    )
    predicted = "field.nc"

    def add_task_arguments(self, parser: LightningArgumentParser, subcommand: str) -> None:
        """The baseline, which configurations of all commands may name."""
        parser.add_argument("--baseline", type=BaselineName, default="linear", help="what ccnn test compares with")

    def evaluate(self, model: FieldReconstruction, datamodule: FieldDataModule, folder: Path) -> Evaluation:
        """Errors of network and baselines on the same observations: table, JSON, CSV, maps."""
        fields, axes = datamodule.samples, model.network.metric.axes
        test, validation = (self._answers(datamodule, part, axes) for part in ("test", "validation"))
        estimates = self._estimates(model, datamodule, "test", test.rows)
        scores = scores_of(estimates, test, validation, fields)
        write_csv(folder / "metrics.csv", CSV_HEAD, csv_lines(scores))
        plots = []
        if len(fields.axes) == 2:  # maps have two axes
            plots = figures.save_test_figures(folder, list(datamodule.loader("test")), estimates, fields, _MAPS)
        by_nodes = [score.ratio_by_nodes for score in scores if score.ratio_by_nodes is not None]
        return Evaluation(
            {
                "scores": scores,
                "mean_ratio": float(np.mean([score.ratio for score in scores])),
                "mean_ratio_by_nodes": float(np.mean(by_nodes)) if by_nodes else None,
            },
            tables=[table(scores, f"{datamodule.dataset}, root mean square errors, {self.checkpoint}")],
            notes=mean_ratios(scores),
            files=[folder / "metrics.csv", *plots],
        )

    def predicted_rows(self, model: FieldReconstruction, datamodule: FieldDataModule, path: Path) -> str:
        """Write a netCDF file of the coordinates and attributes of what was read."""
        rows = torch.cat([batch.rows for batch in datamodule.loader("all")])
        filled = np.full(datamodule.samples.values.shape, np.nan)
        filled[rows] = self._estimates(model, datamodule, "all", rows)
        dataset = datamodule.samples.restored(filled)
        dataset.attrs["source"] = f"ccnn predict from {datamodule.predict_from} observations, {self.checkpoint}"
        with whole(path) as temporary:
            dataset.to_netcdf(temporary, engine="h5netcdf")
        return f"{int(np.isfinite(filled).sum())} values"

    def _estimates(
        self, model: FieldReconstruction, data: FieldDataModule, part: Part, rows: Tensor
    ) -> NDArray[np.float64]:
        """The network's answers at the places ``rows`` that a part asks for, in the stations' own reference."""
        values = torch.cat(self.predictions(model, data.loader(part)))
        return in_own_reference(data.samples, values, rows).numpy()

    def _answers(
        self, data: FieldDataModule, part: Literal["validation", "test"], axes: tuple[FieldAxis, ...]
    ) -> Answers:
        """What the baselines answer, from observations as they were read and as the network gets them."""
        name: BaselineName = self._get(self.config, "baseline")
        as_read = list(data.loader(part, "as read"))
        rows = torch.cat([batch.rows for batch in as_read])
        targets = np.concatenate([batch.targets.numpy() for batch in as_read])
        treated = {}
        if data.samples.reference is not None:
            for method, values in baseline_values(list(data.loader(part, "whole")), name, axes).items():
                treated[method] = in_own_reference(data.samples, torch.from_numpy(values), rows).numpy()
        return Answers(rows, targets, baseline_values(as_read, name, axes), treated)
