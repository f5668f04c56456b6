"""``ccnn fit | validate | test | predict`` for fields: values anywhere from scattered or gappy observations."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch.cli import LightningArgumentParser
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from ccnn_irregular._checks import require
from ccnn_irregular.datasets.stations import StationSet
from ccnn_irregular.pipelines.tasks.field import figures
from ccnn_irregular.pipelines.tasks.field.baselines import BaselineName, baseline_values
from ccnn_irregular.pipelines.tasks.field.batch import FieldBatch
from ccnn_irregular.pipelines.tasks.field.data import STATIONS, FieldDataModule
from ccnn_irregular.pipelines.tasks.field.kriging import FieldAxis
from ccnn_irregular.pipelines.tasks.field.module import FieldReconstruction
from ccnn_irregular.pipelines.tasks.field.network import FieldNetwork
from ccnn_irregular.pipelines.tasks.field.places import AtGrid, AtTable, WantedPlaces
from ccnn_irregular.pipelines.tasks.field.records import in_own_reference
from ccnn_irregular.pipelines.tasks.field.scores import CSV_HEAD, Answers, csv_lines, mean_ratios, scores_of, table
from ccnn_irregular.pipelines.tasks.field.sizes import FieldSizes, network_options
from ccnn_irregular.pipelines.train.checkpoint import load_weights, read_checkpoint
from ccnn_irregular.pipelines.train.evaluation import Evaluation, say
from ccnn_irregular.pipelines.train.outputs import record, require_own
from ccnn_irregular.pipelines.train.reports import whole, write_csv
from ccnn_irregular.pipelines.train.task import Task

__all__ = ["FieldTask"]

_MAPS = 3  # channels drawn
_NOT_FITTED = "standard deviations are not fitted to data: the run ended before, or is of an earlier version"


class FieldTask(Task):
    """The four commands on fields."""

    task = "field"
    module = FieldReconstruction
    data = FieldDataModule
    monitor = "val_score"
    monitor_label = "score (minus the squared error, first guess = -1)"
    summaries: ClassVar[dict[str, str]] = {
        "test": "error of network and baselines at what is kept for the test, as table, JSON, CSV and maps",
        "predict": "values and standard deviations at the places of the data, of a table or on a grid",
    }
    curves = (
        ("squared error, first guess = 1", "train_loss", "training", "-"),
        ("squared error, first guess = 1", "val_loss", "validation", "--"),
    )
    predicted = "field.nc"
    predict_options = WantedPlaces

    def add_task_arguments(self, parser: LightningArgumentParser, subcommand: str) -> None:
        """The baseline, which configurations of all commands may name."""
        parser.add_argument("--baseline", type=BaselineName, default="linear", help="what ccnn test compares with")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, and note whether a network is named or to be found."""
        self.found = False
        super().parse_arguments(parser, args)
        self.found = self.config[self.config.subcommand].model.network is None

    def _plain_config(self) -> dict[str, Any]:
        """The options as typed: what was found for them is in the checkpoint."""
        config = super()._plain_config()
        return config | {"model": config["model"] | {"network": None, "variables": []}} if self.found else config

    def instantiate_classes(self) -> None:
        """Take a network that suits the data where none is named; read a table as the run has read its own."""
        subcommand = self.config.subcommand
        data = None
        if self.config[subcommand].model.network is None and subcommand == "fit":
            data = self._measured(subcommand)
        super().instantiate_classes()
        if data is not None:
            self.datamodule = data  # which has read its files
        self.datamodule.follow([axis.name for axis in self.model.network.metric.axes], self.model.variables)

    def _measured(self, subcommand: str) -> FieldDataModule:
        """Set up the data, and put a network that suits them into the options."""
        parser = ArgumentParser(exit_on_error=False)
        parser.add_class_arguments(FieldDataModule, "data")
        plain = self._plain_config()
        data: FieldDataModule = parser.instantiate_classes(parser.parse_object({"data": plain["data"]})).data
        data.setup("fit")
        options, told = network_options(data.samples, data.parts.usable, FieldSizes(**plain["model"]["sizes"]))
        say("\n".join(told))
        network = {"class_path": f"{FieldNetwork.__module__}.{FieldNetwork.__name__}", "init_args": options}
        found = {"network": network, "variables": list(data.samples.channels)}
        self.config = self.parser.parse_object({subcommand: {"model": found}}, self.config)
        return data

    def finish(self, model: FieldReconstruction, datamodule: FieldDataModule) -> None:
        """Fit the standard deviations of the best epoch to the validation part, and keep that in its checkpoint."""
        path = self.run_folder.best
        load_weights(model, path)
        model.fit_spread(datamodule)
        with whole(path) as partial:
            torch.save(read_checkpoint(path) | {"state_dict": model.state_dict()}, partial)

    def evaluate(self, model: FieldReconstruction, datamodule: FieldDataModule, folder: Path) -> Evaluation:
        """Errors of network and baselines on the same observations: table, JSON, CSV, maps."""
        fields, axes = datamodule.samples, model.network.metric.axes
        test = self._answers(datamodule, "test", axes)
        whole_source = datamodule.undivided
        validation = test if whole_source else self._answers(datamodule, "validation", axes)
        estimates, deviations = self._estimates(model, datamodule, datamodule.loader("test"), test.rows)
        fitted = bool(model.network.spread.isfinite().all())
        scores = scores_of(estimates, test, validation, fields, deviations if fitted else None)
        write_csv(folder / "metrics.csv", CSV_HEAD, csv_lines(scores))
        plots = []
        if len(fields.axes) == 2:  # maps have two axes
            batches = list(datamodule.loader("test"))
            plots = figures.save_test_figures(folder, batches, estimates, fields, _MAPS, model.network)
        by_nodes = [score.ratio_by_nodes for score in scores if score.ratio_by_nodes is not None]
        title = f"{datamodule.root or datamodule.dataset}, root mean square errors, {self.checkpoint}"
        return Evaluation(
            {
                "scores": scores,
                "mean_ratio": float(np.mean([score.ratio for score in scores])),
                "mean_ratio_by_nodes": float(np.mean(by_nodes)) if by_nodes else None,
            },
            tables=[table(scores, title, "in this test" if whole_source else "in validation")],
            notes=mean_ratios(scores) + ([] if fitted else [_NOT_FITTED]),
            files=[folder / "metrics.csv", *plots],
        )

    def output(self, datamodule: FieldDataModule, name: str) -> Path:
        """As asked, or under a name in the run folder that tells a whole source from the run's own test."""
        if self.config.subcommand == "test" and datamodule.undivided:
            name = f"{name}_{Path(str(datamodule.root)).stem}_all"
        return super().output(datamodule, name)

    def predict(self, model: Any, datamodule: Any, ckpt_path: str, **kwargs: Any) -> None:
        """Answer at the places asked for; without any, at those of the data."""
        wanted: WantedPlaces = self.asked()
        if datamodule.dataset != STATIONS:
            rule = f"be left out for {datamodule.dataset}, which is answered at its own places"
            require(not wanted.any, "--predict.like, .grid and .table", rule, "one")
            super().predict(model, datamodule, ckpt_path, **kwargs)
            return
        rule = "be left out for a table, whose answers are columns of their own"
        require(not wanted.smoothed, "predict.smoothed", rule, "true")
        table = Path(wanted.table or datamodule.root)
        path = self.output(datamodule, f"{table.name.split('.')[0]}_field{wanted.suffix(table)}")
        require_own(path)
        self._ready(model, datamodule, ckpt_path)
        fields: StationSet = datamodule.samples
        places = wanted.of(fields)
        values, deviations = self._answered(model, datamodule, places)
        if not bool(model.network.spread.isfinite().all()):
            say(_NOT_FITTED)
        source = f"ccnn predict from {fields.observations.path}, {self.checkpoint}"
        written = places.write(path, fields, values, deviations, source)
        record(path, self.task, ckpt_path, datamodule.describe())
        say(f"{written}: {path}")

    def _answered(
        self, model: FieldReconstruction, data: FieldDataModule, places: AtGrid | AtTable
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Values and standard deviations at some places ``(M, C)``, nan where there are no observations."""
        shape = (len(places.places), len(data.samples.channels))
        values, deviations = np.full(shape, np.nan), np.full(shape, np.nan)
        for batch in data.asking(places.places, places.field):
            found = (column.numpy() for column in model.network.predict(batch))
            values[batch.rows], deviations[batch.rows] = found
        if isinstance(places, AtTable) and places.own:
            # Anomalies of the stations themselves, in their own reference.
            assert isinstance(data.samples, StationSet)
            rows = data.samples.rows
            values[rows] = in_own_reference(
                data.samples, torch.from_numpy(values[rows]), torch.arange(len(rows))
            ).numpy()
        return values, deviations

    def predicted_rows(self, model: FieldReconstruction, datamodule: FieldDataModule, path: Path) -> str:
        """Write a netCDF file of the coordinates and attributes of what was read, values and standard deviations.

        What the network was shown stays as it was measured, unless smoothed values are asked for.
        """
        rows = torch.cat([batch.rows for batch in datamodule.loader("all")])
        filled = np.full((2, *datamodule.samples.values.shape), np.nan)
        filled[:, rows] = self._estimates(model, datamodule, datamodule.loader("all"), rows)
        measured = datamodule.samples.values.numpy()
        kept = np.isfinite(measured) & datamodule.shown("all").numpy()[:, None] & (not self.asked().smoothed)
        filled[0][kept] = measured[kept]
        dataset, deviations = map(datamodule.samples.restored, filled)
        for name, deviation in deviations.data_vars.items():
            long_name = f"standard deviation of the estimate of {deviation.attrs.get('long_name', name)}"
            unit = {"units": deviation.attrs["units"]} if "units" in deviation.attrs else {}
            # The variable alone: its coordinates would take the place of those of the values.
            about = deviation.variable.copy(deep=False)
            about.attrs = {"long_name": long_name, **unit}
            dataset[f"{name}_std"] = about
        dataset.attrs["source"] = f"ccnn predict from {datamodule.predict_from} observations, {self.checkpoint}"
        with whole(path) as temporary:
            dataset.to_netcdf(temporary, engine="h5netcdf")
        estimates = int((np.isfinite(filled[0]) & ~kept).sum())
        how = " (--predict.smoothed true estimates them too)" if kept.any() else ""
        return f"{estimates} values estimated, {int(kept.sum())} as measured{how}"

    def _estimates(
        self, model: FieldReconstruction, data: FieldDataModule, loader: DataLoader[FieldBatch], rows: Tensor
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The network's answers at the places ``rows`` that a loader asks for, in the stations' own reference.

        Returns:
            values and their standard deviations, ``(m, C)`` each.
        """
        values, deviations = torch.cat(self.predictions(model, loader)).unbind(1)
        return in_own_reference(data.samples, values, rows).numpy(), deviations.numpy()

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
