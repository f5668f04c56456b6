"""``ccnn fit | validate | test | predict`` for values of all variables at asked times after a cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from ccnn_irregular._checks import require
from ccnn_irregular.datasets.samples import RaggedSeries
from ccnn_irregular.datasets.simulated_series import best_forecast
from ccnn_irregular.pipelines.tasks.forecast.network import ForecastBatch, ForecastNetwork
from ccnn_irregular.pipelines.train import figures
from ccnn_irregular.pipelines.train.evaluation import Evaluation
from ccnn_irregular.pipelines.train.masked_error import MaskedSkill, compare, masked_squared_error
from ccnn_irregular.pipelines.train.module import TaskModule
from ccnn_irregular.pipelines.train.reports import write_csv
from ccnn_irregular.pipelines.train.schedule import Schedule
from ccnn_irregular.pipelines.train.series_data import AskedTimes, SeriesData
from ccnn_irregular.pipelines.train.task import Task

__all__ = ["ForecastData", "ForecastTask", "Forecasting"]

SCHEDULE = Schedule(learning_rate=3e-3, final_share=0.01)


class ForecastData(SeriesData[ForecastBatch, list[float]]):
    """Series cut at one time; the variant of a loader: times to forecast all variables at.

    Args:
        cut: time at which the history ends; what was observed from then on is to be forecast.
        **options: see ``SeriesData``.
    """

    described = (*SeriesData.described, "cut")
    scaled_by = ("train", "validation")  # as published

    def __init__(self, cut: float = 24.0, **options: Any) -> None:
        super().__init__(**options)
        self.cut = cut

    def setup(self, stage: str) -> None:
        super().setup(stage)
        first, last = float(self.series.times.min()), float(self.series.times.max())
        # What is only to be predicted need not have come yet.
        inside = first < self.cut and (self.cut <= last or not self.needs_labels(stage))
        require(inside, "data.cut", f"lie within the times of the series, {first:g} to {last:g}", self.cut)

    def batch(self, series: RaggedSeries, variant: list[float] | None = None) -> ForecastBatch:
        asked = series.keep(series.times >= self.cut) if variant is None else series.at(variant)
        return ForecastBatch(series.keep(series.times < self.cut), asked)


class Forecasting(TaskModule):
    """Trained by the masked squared error; its best epoch is that of the highest skill against the last value.

    Args:
        network: see ``ForecastNetwork``.
        schedule: how it is trained.
    """

    network: ForecastNetwork

    def __init__(self, network: ForecastNetwork, schedule: Schedule = SCHEDULE) -> None:
        super().__init__(network, schedule)
        self.val_skill = MaskedSkill(network.in_channels)

    def training_step(self, batch: ForecastBatch, batch_idx: int) -> Tensor:
        loss = masked_squared_error(self(batch), self.network.scale(batch.asked.values))
        self.log_epoch({"train_loss": loss}, len(batch.asked))
        return loss

    def validation_step(self, batch: ForecastBatch, batch_idx: int) -> None:
        self.val_skill.update(self(batch), self.network.last_value(batch), self.network.scale(batch.asked.values))
        self.log_epoch({"val_loss": self.val_skill.error, "val_skill": self.val_skill})


class ForecastTask(Task):
    """The four commands on irregular series."""

    task = "forecast"
    module = Forecasting
    data = ForecastData
    monitor = "val_skill"
    monitor_label = "skill"
    summaries: ClassVar[dict[str, str]] = {"test": "masked errors beside baselines", "predict": "a CSV of forecasts"}
    curves = (
        ("masked squared error", "train_loss", "training", "-"),
        ("masked squared error", "val_loss", "validation", "--"),
    )
    predict_options = AskedTimes

    def evaluate(self, model: Forecasting, datamodule: ForecastData, folder: Path) -> Evaluation:
        """Errors on the test series, and those of the baselines."""
        batch, network = datamodule.batch(datamodule.part("test")), model.network
        forecasts = {
            "network": torch.cat(self.predictions(model, datamodule.loader("test"))),
            "last value": network.last_value(batch),
            "mean": network.scale.mean.expand(batch.asked.values.shape),
        }
        if datamodule.dataset == "simulated_series":
            forecasts["best possible"] = network.scale(best_forecast(*batch))
        found = compare(forecasts, network.scale(batch.asked.values), datamodule, self.checkpoint, folder)
        found.files.append(figures.forecasts(*batch, network.scale.inverse(forecasts["network"]), folder))
        return found

    def predicted_rows(self, model: Forecasting, datamodule: ForecastData, path: Path) -> str:
        """Write ``id,time,variable,prediction`` lines, in units of the data."""
        times = self.asked().times
        asked = datamodule.batch(datamodule.part("test"), times).asked
        rule = f"be given where nothing was observed from data.cut ({datamodule.cut:g}) on"
        require(len(asked.values) > 0, "predict.times", rule, times)
        forecasts = torch.cat(self.predictions(model, datamodule.loader("test", times)))
        cells = asked.cells(model.network.scale.inverse(forecasts))
        lines = ((*where, f"{value:.7g}") for *where, value in cells)  # the digits of float32
        write_csv(path, ("id", "time", "variable", "prediction"), lines)
        return f"{len(cells)} values"
