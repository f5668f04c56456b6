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
from torch import Tensor

from ccnn_irregular.pipelines.tasks.field import figures
from ccnn_irregular.pipelines.tasks.field.baselines import RivalName, rivals
from ccnn_irregular.pipelines.tasks.field.data import FieldBatch, FieldDataModule
from ccnn_irregular.pipelines.tasks.field.module import FieldEstimates, FieldReconstruction
from ccnn_irregular.pipelines.tasks.field.network import FieldNetwork
from ccnn_irregular.pipelines.tasks.field.records import in_own_reference
from ccnn_irregular.pipelines.train.command_line import TrainingCLI, load_weights
from ccnn_irregular.pipelines.train.reports import versions, write_json, write_text

__all__ = ["FieldCLI", "Score"]

Array = NDArray[np.float64]
_MAPS = 3  # channels drawn


@dataclass(frozen=True)
class Score:
    """Root mean square errors of one channel over everything asked for in the test.

    Nodes of a grid of latitudes and longitudes count by the area they stand for (the cosine of their latitude), all
    other places alike: the error of stations and floats is one over observations.

    Attributes:
        channel: its name.
        unit: of the errors.
        n: values compared.
        network: error of the network.
        rivals: error of each rival.
        best_rival: name of the rival of least error in this channel in the validation.
        ratio: the network's error divided by that of ``best_rival``.
        ratio_in_hindsight: the same by the least error of a rival in the test.
        treated_rivals: errors of the rivals from the observations as the network gets them, their estimates in the
            stations' own reference as its are; empty where there is no such treatment.
        treated_ratio: the network's error divided by that of the one of these that is best in the validation.
        by_nodes: errors of network and rivals with every node counted alike; None where they are counted so above.
        ratio_by_nodes: the network's divided by that of ``best_rival``.
    """

    channel: str
    unit: str
    n: int
    network: float
    rivals: dict[str, float]
    best_rival: str
    ratio: float
    ratio_in_hindsight: float
    treated_rivals: dict[str, float]
    treated_ratio: float | None
    by_nodes: dict[str, float] | None
    ratio_by_nodes: float | None


@dataclass(frozen=True)
class _Answers:
    """Values ``(m, C)`` asked for, the rivals' answers as they are and with the network's treatment, and the rows."""

    rows: Tensor
    targets: Array
    rivals: dict[str, Array]
    treated: dict[str, Array]


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
        test = _answers(batches, as_read, rival, model, datamodule)
        watched, watched_as_read = (list(datamodule.validation_loader(as_read=flag)) for flag in (False, True))
        validation = _answers(watched, watched_as_read, rival, model, datamodule)
        network = in_own_reference(
            datamodule.samples, torch.from_numpy(np.concatenate([one.values for one in estimates])), test.rows
        ).numpy()
        scores = _scores(network, test, validation, datamodule)
        mean_ratio = float(np.mean([score.ratio for score in scores]))
        by_nodes = [score.ratio_by_nodes for score in scores if score.ratio_by_nodes is not None]
        report = {
            "scores": scores,
            "mean_ratio": mean_ratio,
            "mean_ratio_by_nodes": float(np.mean(by_nodes)) if by_nodes else None,
            **self.provenance(ckpt_path),
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "data": self.describe(datamodule),
            "versions": versions(),
        }
        write_json(folder / "metrics.json", report)
        _write_scores(folder / "metrics.csv", scores)
        _print_table(scores, f"{datamodule.dataset}, root mean square errors, {ckpt_path}")
        drawn = len(datamodule.samples.axes) == 2  # maps have two axes
        plots = figures.save_test_figures(folder, batches, network, datamodule.samples, _MAPS) if drawn else []
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


def _answers(
    batches: list[FieldBatch],
    as_read: list[FieldBatch],
    rival: RivalName,
    model: FieldReconstruction,
    data: FieldDataModule,
) -> _Answers:
    """What rivals answer to the same queries, from observations as they were read and as the network gets them."""
    rows = torch.cat([batch.rows for batch in batches])
    targets = np.concatenate([batch.targets.numpy() for batch in batches])
    treated: dict[str, Array] = {}
    if data.samples.reference is not None:
        for name, values in _rival_values(batches, rival, model).items():
            treated[name] = in_own_reference(data.samples, torch.from_numpy(values), rows).numpy()
    return _Answers(rows, targets, _rival_values(as_read, rival, model), treated)


def errors_of(values: Array, targets: Array, weights: Array) -> Array:
    """Root mean squares ``(C,)`` of ``values - targets (m, C)`` over known targets, each weighted by ``weights (m,)``.

    nan in a channel that has no known target.
    """
    known = np.isfinite(targets)
    squares = np.square(np.subtract(values, targets, where=known, out=np.zeros_like(targets)))
    with np.errstate(invalid="ignore"):
        return np.asarray(np.sqrt((weights[:, None] * squares).sum(0) / (weights[:, None] * known).sum(0)))


def _scores(network: Array, test: _Answers, validation: _Answers, data: FieldDataModule) -> list[Score]:
    fields = data.samples
    weights, watched = (fields.weights(one.rows).numpy() for one in (test, validation))
    everywhere = np.ones(len(test.rows))

    def errors(answers: dict[str, Array], of: _Answers, counted: Array) -> dict[str, Array]:
        return {name: errors_of(values, of.targets, counted) for name, values in answers.items()}

    mine, rivals = errors_of(network, test.targets, weights), errors(test.rivals, test, weights)
    treated, by_nodes = errors(test.treated, test, weights), errors(test.rivals, test, everywhere)
    mine_by_nodes = errors_of(network, test.targets, everywhere)
    chosen = errors(validation.rivals, validation, watched)
    chosen_treated = errors(validation.treated, validation, watched)
    scores = []
    for channel, (name, unit) in enumerate(zip(fields.channels, fields.channel_units, strict=True)):

        def here(found: dict[str, Array], channel: int = channel) -> dict[str, float]:
            return {method: float(one[channel]) for method, one in found.items()}

        def least(found: dict[str, Array], channel: int = channel) -> str:
            return min(found, key=lambda method: float(found[method][channel]))

        best, own = least(chosen), float(mine[channel])
        nodes = {"network": float(mine_by_nodes[channel])} | here(by_nodes) if fields.areas is not None else None
        scores.append(
            Score(
                channel=name,
                unit=unit,
                n=int(np.isfinite(test.targets[:, channel]).sum()),
                network=own,
                rivals=here(rivals),
                best_rival=best,
                ratio=own / here(rivals)[best],
                ratio_in_hindsight=own / min(here(rivals).values()),
                treated_rivals=here(treated),
                treated_ratio=own / here(treated)[least(chosen_treated)] if treated else None,
                by_nodes=nodes,
                ratio_by_nodes=None if nodes is None else nodes["network"] / nodes[best],
            )
        )
    return scores


def _write_scores(path: Path, scores: list[Score]) -> None:
    """``channel,unit,n,method,weighting,rmse`` lines."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["channel", "unit", "n", "method", "weighting", "rmse"])
    for score in scores:
        treated = {f"{rival}, same treatment": value for rival, value in score.treated_rivals.items()}
        first = "places" if score.by_nodes is None else "area"
        counted = {first: {"network": score.network, **score.rivals, **treated}, "nodes": score.by_nodes or {}}
        for weighting, errors in counted.items():
            for method, value in errors.items():
                writer.writerow([score.channel, score.unit, score.n, method, weighting, f"{value:.6g}"])
    write_text(path, table.getvalue())


def _print_table(scores: list[Score], title: str) -> None:
    areas = scores[0].by_nodes is not None
    columns = {"ratio": [score.ratio for score in scores]}
    if areas:
        columns = {"by area": columns["ratio"], "by nodes": [_there(score.ratio_by_nodes) for score in scores]}
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("channel", no_wrap=True)
    table.add_column("best rival in validation")
    for label in ("n", "rival", "network", *(f"ratio {label}".removesuffix(" ratio") for label in columns)):
        table.add_column(label, justify="right")
    for number, one in enumerate(scores):
        errors = [f"{value:.4g}" for value in (one.rivals[one.best_rival], one.network)]
        ratios = [f"{column[number]:.3f}" for column in columns.values()]
        table.add_row(f"{one.channel} ({one.unit})", one.best_rival, str(one.n), *errors, *ratios)
    get_console().print(table)
    if len(scores[0].rivals) > 1:
        columns["to the rival that is best in the test"] = [score.ratio_in_hindsight for score in scores]
    if scores[0].treated_ratio is not None:
        columns["to the rival with the same treatment"] = [_there(score.treated_ratio) for score in scores]
    for label, column in columns.items():
        get_console().print(f"mean ratio {label}".removesuffix(" ratio"), f"{np.mean(column):.3f}", highlight=False)


def _there(value: float | None) -> float:
    assert value is not None
    return value


def _write_netcdf(dataset: xr.Dataset, path: Path) -> None:
    """Write a file whole or not at all: under a temporary name, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    dataset.to_netcdf(temporary, engine="h5netcdf")
    temporary.replace(path)
