"""``ccnn fit | validate | test | predict`` for fields: values anywhere from scattered or gappy observations."""

from __future__ import annotations

import csv
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
import xarray as xr
from lightning.pytorch.cli import LightningArgumentParser
from numpy.typing import NDArray
from rich import box, get_console
from rich.table import Table

from ccnn_irregular.pipelines.field import figures
from ccnn_irregular.pipelines.field.data import FieldBatch, FieldDataModule
from ccnn_irregular.pipelines.field.network import FieldNetwork
from ccnn_irregular.pipelines.field.records import in_own_reference
from ccnn_irregular.pipelines.field.rivals import RivalName, rivals
from ccnn_irregular.pipelines.field.training import FieldEstimates, FieldReconstruction
from ccnn_irregular.pipelines.reports import versions, write_json, write_text
from ccnn_irregular.pipelines.training_cli import TrainingCLI, load_weights

__all__ = ["FieldCLI", "Score"]

Array = NDArray[np.float64]
_MAPS = 3  # channels drawn


@dataclass(frozen=True)
class Score:
    """Root mean square errors of one channel over everything asked for in the test.

    Attributes:
        channel: its name.
        unit: of the errors.
        n: values compared.
        network: error of the network.
        rivals: error of each rival.
        best_rival: name of the rival of least error in this channel.
        ratio: the network's error divided by that of ``best_rival``.
        treated_rivals: errors of the rivals from the observations as the network gets them, their estimates in the
            stations' own reference as its are; empty where there is no such treatment.
        treated_ratio: the network's error divided by the least of these.
    """

    channel: str
    unit: str
    n: int
    network: float
    rivals: dict[str, float]
    best_rival: str
    ratio: float
    treated_rivals: dict[str, float]
    treated_ratio: float | None


class FieldCLI(TrainingCLI):
    """The four commands on fields."""

    task = "field"
    module = FieldReconstruction
    data = FieldDataModule
    monitor = "val_score"
    monitor_label = "score (minus the squared error, first guess = -1)"
    summaries: ClassVar[dict[str, str]] = {
        "fit": "train; the same command resumes an interrupted run",
        "validate": "error at the places kept for validation",
        "test": "error of network and rivals at what is kept for the test, as table, JSON, CSV and maps",
        "predict": "a netCDF file of the field at all its places",
    }
    curves = (("squared error, first guess = 1", "train_loss", "training", "-"),
              ("squared error, first guess = 1", "val_loss", "validation", "--"))  # fmt: skip

    def add_task_arguments(self, parser: LightningArgumentParser, subcommand: str) -> None:
        """The rival. Training ends by its schedule; early stopping has to be asked for."""
        parser.set_defaults({"early_stopping.patience": 100_000})
        parser.add_argument("--rival", type=RivalName, default="linear", help="what ccnn test compares with")

    def describe(self, datamodule: FieldDataModule) -> dict[str, Any]:
        """What was read and how it was split."""
        return datamodule.description()

    def report(self, datamodule: FieldDataModule) -> str:
        """The fields, and the size of the network."""
        count = sum(parameter.numel() for parameter in self.model.parameters())
        about = datamodule.description()
        sizes = ", ".join(f"{size} {name}" for name, size in about["known places"].items())
        channels = ", ".join(datamodule.samples.channels)
        return f"{about['fields']} fields of {channels}; known places: {sizes}\nnetwork of {count:,} parameters"

    def test(self, model: FieldReconstruction, datamodule: FieldDataModule, ckpt_path: str, **_: Any) -> None:
        """Errors of network and rivals on the same observations: table, JSON, CSV, maps."""
        datamodule.setup("test")
        load_weights(model, ckpt_path)
        model.require_fits(datamodule)
        folder = Path(self._get(self.config, "output") or self.run_folder.path / "test")
        rival: RivalName = self._get(self.config, "rival")
        batches, as_read = list(datamodule.test_loader()), list(datamodule.test_loader(as_read=True))
        estimates = cast("list[FieldEstimates]", self.trainer.predict(model, dataloaders=datamodule.test_loader()))
        rows = torch.cat([batch.rows for batch in batches])

        def referred(values: Array) -> Array:
            return in_own_reference(datamodule.samples, torch.from_numpy(values), rows).numpy()

        network = referred(np.concatenate([one.values for one in estimates]))
        others = _rival_values(as_read, rival, model)
        treated: dict[str, Array] = {}
        if datamodule.samples.reference is not None:
            treated = {name: referred(values) for name, values in _rival_values(batches, rival, model).items()}
        targets = np.concatenate([batch.targets.numpy() for batch in batches])
        scores = _scores(network, others, treated, targets, datamodule)
        mean_ratio = float(np.mean([score.ratio for score in scores]))
        report = {
            "scores": scores,
            "mean_ratio": mean_ratio,
            **self.provenance(ckpt_path),
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "data": self.describe(datamodule),
            "versions": versions(),
        }
        write_json(folder / "metrics.json", report)
        _write_scores(folder / "metrics.csv", scores)
        _print_table(scores, mean_ratio, f"{datamodule.dataset}, root mean square errors, {ckpt_path}")
        plots = figures.save_test_figures(folder, batches, network, datamodule.samples, _MAPS)
        for path in (folder / "metrics.json", folder / "metrics.csv", *plots):
            get_console().print(str(path), highlight=False, soft_wrap=True)

    def predict(self, model: FieldReconstruction, datamodule: FieldDataModule, ckpt_path: str, **_: Any) -> None:
        """Write the netCDF file."""
        datamodule.setup("predict")
        load_weights(model, ckpt_path)
        model.require_fits(datamodule)
        loader = datamodule.predict_loader()
        estimates = cast("list[FieldEstimates]", self.trainer.predict(model, dataloaders=loader))
        rows = torch.from_numpy(np.concatenate([one.rows for one in estimates]))
        values = torch.from_numpy(np.concatenate([one.values for one in estimates]))
        filled = np.full(datamodule.samples.values.shape, np.nan)
        filled[rows] = in_own_reference(datamodule.samples, values, rows)
        path = Path(self._get(self.config, "output") or self.run_folder.path / "field.nc")
        dataset = datamodule.samples.restored(filled)
        dataset.attrs["source"] = f"ccnn predict from {datamodule.predict_from} observations, {ckpt_path}"
        _write_netcdf(dataset, path)
        get_console().print(f"{int(np.isfinite(filled).sum())} values: {path}", highlight=False, soft_wrap=True)


def _rival_values(batches: list[FieldBatch], rival: RivalName, model: FieldReconstruction) -> dict[str, Array]:
    """Values of each rival at all queries ``(m, C)``."""
    assert isinstance(model.network, FieldNetwork)
    axes = model.network.metric.axes
    parts: dict[str, list[Array]] = {}
    for name, interpolate in rivals(rival, axes).items():
        for batch in batches:
            seen, asked = batch.observed.splits.tolist(), batch.query.splits.tolist()
            for field in range(len(batch)):
                here, there = slice(*seen[field : field + 2]), slice(*asked[field : field + 2])
                places, queries = batch.observed.coordinates[here].numpy(), batch.query.coordinates[there].numpy()
                parts.setdefault(name, []).append(interpolate(places, batch.values[here].numpy(), queries))
    return {name: np.concatenate(values) for name, values in parts.items()}


def _scores(
    network: Array, others: dict[str, Array], treated: dict[str, Array], targets: Array, data: FieldDataModule
) -> list[Score]:
    scores = []
    for channel, (name, unit) in enumerate(zip(data.samples.channels, data.samples.channel_units, strict=True)):
        there = np.isfinite(targets[:, channel])

        def error(values: Array, channel: int = channel, there: NDArray[np.bool_] = there) -> float:
            return float(np.sqrt(np.mean((values[there, channel] - targets[there, channel]) ** 2)))

        errors = {rival: error(values) for rival, values in others.items()}
        best = min(errors, key=errors.__getitem__)
        mine = error(network)
        also = {rival: error(values) for rival, values in treated.items()}
        treated_ratio = mine / min(also.values()) if also else None
        scores.append(Score(name, unit, int(there.sum()), mine, errors, best, mine / errors[best], also, treated_ratio))
    return scores


def _write_scores(path: Path, scores: list[Score]) -> None:
    """``channel,unit,n,method,rmse`` lines."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["channel", "unit", "n", "method", "rmse"])
    for score in scores:
        treated = {f"{rival}, same treatment": value for rival, value in score.treated_rivals.items()}
        for method, value in {"network": score.network, **score.rivals, **treated}.items():
            writer.writerow([score.channel, score.unit, score.n, method, f"{value:.6g}"])
    write_text(path, table.getvalue())


def _print_table(scores: list[Score], mean_ratio: float, title: str) -> None:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("channel", no_wrap=True)
    table.add_column("best rival")
    treated = scores[0].treated_ratio is not None
    for label in ("n", "rival", "network", "ratio", *(["ratio, same treatment"] if treated else [])):
        table.add_column(label, justify="right")
    for one in scores:
        last = [f"{one.treated_ratio:.3f}"] if one.treated_ratio is not None else []
        errors = [f"{value:.4g}" for value in (one.rivals[one.best_rival], one.network)]
        table.add_row(f"{one.channel} ({one.unit})", one.best_rival, str(one.n), *errors, f"{one.ratio:.3f}", *last)
    get_console().print(table)
    get_console().print(f"mean ratio {mean_ratio:.3f}", highlight=False)


def _write_netcdf(dataset: xr.Dataset, path: Path) -> None:
    """Write a file whole or not at all: under a temporary name, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    dataset.to_netcdf(temporary, engine="h5netcdf")
    temporary.replace(path)
