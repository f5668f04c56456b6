"""``ccnn fit | validate | test | predict`` for gridded fields made finer; predict works from file to file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from lightning.pytorch.cli import LightningArgumentParser
from numpy.typing import NDArray
from rich import box, get_console
from rich.table import Table

from ccnn_irregular._checks import require
from ccnn_irregular.adapters.xarray import Reading
from ccnn_irregular.pipelines.tasks.downscale import figures
from ccnn_irregular.pipelines.tasks.downscale.baselines import spline
from ccnn_irregular.pipelines.tasks.downscale.data import FieldDataModule
from ccnn_irregular.pipelines.tasks.downscale.fields import coarsened_values
from ccnn_irregular.pipelines.tasks.downscale.files import as_bytes, predict_file
from ccnn_irregular.pipelines.tasks.downscale.gaps import filled
from ccnn_irregular.pipelines.tasks.downscale.module import Downscaling
from ccnn_irregular.pipelines.train.command_line import TrainingCLI, load_weights
from ccnn_irregular.pipelines.train.reports import versions, write_json

__all__ = ["DownscaleCLI", "PredictOptions"]

_NETWORK, _CUBIC = "network", "cubic spline"


@dataclass
class PredictOptions:
    """A file of coarse fields, block by block.

    Attributes:
        input: netCDF file, zarr store, or folder of netCDF files with the variables trained on.
        memory: the most the process may take, such as 4GiB; blocks are chosen to fit.
        coarsen: the file holds fine fields: make them coarse first, as in training.
        reading: how the input is read where it leaves it open.
    """

    input: str | None = None
    memory: str = "4GiB"
    coarsen: bool = False
    reading: Reading | None = None


class DownscaleCLI(TrainingCLI):
    """The four commands on gridded fields."""

    task = "downscale"
    module = Downscaling
    data = FieldDataModule
    monitor = "val_skill"
    monitor_label = "skill over cubic interpolation"
    summaries: ClassVar[dict[str, str]] = {
        "fit": "train; the same command resumes an interrupted run",
        "validate": "loss and skill on the validation patches",
        "test": "errors on held-out times beside those of interpolation, as table, JSON and maps",
        "predict": "fine fields from a file of coarse ones, larger than memory; the same command resumes",
    }
    curves = (
        ("squared error / interpolation's", "train_loss", "training", "-"),
        ("squared error / interpolation's", "val_loss", "validation", "--"),
        ("skill", "val_skill", "validation", "--"),
    )

    def add_task_arguments(self, parser: LightningArgumentParser, subcommand: str) -> None:
        """What predict reads. Training ends by its schedule; early stopping has to be asked for."""
        parser.set_defaults({"early_stopping.patience": 100_000})
        if subcommand == "predict":
            parser.add_class_arguments(PredictOptions, "predict", as_group=False)

    def describe(self, datamodule: FieldDataModule) -> dict[str, Any]:
        """Which fields were read and how they were split."""
        return dict(datamodule.description())

    def report(self, datamodule: FieldDataModule) -> str:
        """The fields, and the size of the network."""
        count = sum(parameter.numel() for parameter in self.model.parameters())
        sizes = ", ".join(f"{size} {name}" for name, size in datamodule.description()["sizes"].items())
        planes = " to ".join(" x ".join(map(str, plane.sizes)) for plane in self._planes(datamodule))
        return f"{', '.join(datamodule.variables)}, {planes} nodes: {sizes}\nnetwork of {count:,} parameters"

    @staticmethod
    def _planes(datamodule: FieldDataModule) -> tuple[Any, Any]:
        return datamodule.coarse_plane, datamodule.fine_plane

    def test(self, model: Downscaling, datamodule: FieldDataModule, ckpt_path: str, **_: Any) -> None:
        """Errors over the whole test fields, beside those of three interpolations: table, JSON, maps.

        Nodes of a grid of latitudes count by the area they stand for, and all alike beside it ("by nodes").
        """
        load_weights(model, ckpt_path)
        datamodule.setup("test")
        trained, here = model.network.format, datamodule.format()
        require(trained == here, "data", f"be what the checkpoint was trained on, {trained}", here)
        answers = self._answers(model, datamodule)
        fine = datamodule.testing.numpy()
        weights = datamodule.fine_plane.areas().numpy()
        errors = {name: _errors(values, fine, weights) for name, values in answers.items()}
        by_nodes = {name: _errors(values, fine, np.ones_like(weights)) for name, values in answers.items()}
        folder = Path(self._get(self.config, "output") or self.run_folder.path / "test")
        names = datamodule.variables
        report = {
            "rmse": _named(errors, names),
            "ratio_to_cubic_spline": _named(_ratios(errors), names),
            "rmse_by_nodes": _named(by_nodes, names),
            "ratio_to_cubic_spline_by_nodes": _named(_ratios(by_nodes), names),
            "fields": len(fine),
            **self.provenance(ckpt_path),
            "parameters": sum(parameter.numel() for parameter in model.network.parameters()),
            "data": self.describe(datamodule),
            "versions": versions(),
        }
        write_json(folder / "metrics.json", report)
        plots = self._maps(datamodule, answers, folder)
        on_sphere = bool((weights != 1).any())
        title = (
            f"root mean square error over {len(fine)} held-out fields, {'by area, ' if on_sphere else ''}"
            f"and ratio to the cubic spline's; {ckpt_path}"
        )
        _print_table(errors, by_nodes if on_sphere else None, names, datamodule.units, title)
        for path in (folder / "metrics.json", *plots):
            get_console().print(str(path), highlight=False, soft_wrap=True)

    def _answers(self, model: Downscaling, data: FieldDataModule) -> dict[str, NDArray[Any]]:
        """Fine fields ``(B, C, rows, columns)`` for the test part, by method; splines have an answer everywhere."""
        source, query = data.coarse_plane.grid(), data.fine_plane.grid()
        given, trained = (
            coarsened_values(fine, data.factor, data.coarse, data.coarse_plane.sizes)
            for fine in (data.testing, data.training)
        )
        known = filled(given, source).numpy()
        smooth = spline(known, source, query, 3)
        # What a spline gets wrong on average in training, node by node: the part that belongs to the place.
        wrong = torch.from_numpy(data.training.numpy() - spline(filled(trained, source).numpy(), source, query, 3))
        offset = wrong.nanmean(0).nan_to_num(0.0).numpy()
        return {
            "linear": spline(known, source, query, 1),
            _CUBIC: smooth,
            "cubic spline + mean error in training": smooth + offset,
            _NETWORK: model.fine_fields(given, source, query).numpy(),
        }

    def _maps(self, data: FieldDataModule, answers: dict[str, NDArray[Any]], folder: Path) -> list[Path]:
        fine = data.testing.numpy()
        coarse = coarsened_values(data.testing, data.factor, data.coarse, data.coarse_plane.sizes).numpy()
        paths = []
        for place, name in enumerate(data.variables):
            unit = data.units[name]
            field = int(np.isfinite(fine[:, place]).any((1, 2)).argmax())
            shown = {method: answers[method][field, place] for method in (_CUBIC, _NETWORK)}
            label = f"{name} ({unit})" if unit else name
            path = folder / f"{name}.png"
            planes = self._planes(data)
            paths.append(figures.maps(coarse[field, place], fine[field, place], shown, planes, label, path))
        return paths

    def predict(self, model: Downscaling, datamodule: FieldDataModule, ckpt_path: str, **_: Any) -> None:
        """From file to file; see ``predict_files``."""
        options = PredictOptions(**vars(self._get(self.config_init, "predict")))
        output = self._get(self.config, "output")
        require(options.input is not None, "predict.input", "name a file, store or folder", options.input)
        require(output is not None, "output", "name the file (.nc) or store (.zarr) to write", output)
        load_weights(model, ckpt_path)
        assert options.input is not None
        predict_file(
            model.network,
            Path(options.input),
            Path(output),
            checkpoint=Path(ckpt_path),
            memory=as_bytes(options.memory),
            coarsen=options.coarsen,
            reading=options.reading,
        )


def _errors(answer: NDArray[Any], fine: NDArray[Any], weights: NDArray[Any]) -> NDArray[np.float64]:
    """Root mean square over fields and known nodes for each variable, nodes by their areas."""
    known = np.isfinite(fine)
    squares = np.square(np.subtract(answer, fine, dtype=np.float64), where=known, out=np.zeros(fine.shape))
    return np.sqrt((squares * weights).sum((0, 2, 3)) / (known * weights).sum((0, 2, 3)))


def _ratios(errors: dict[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    """Errors over those of the cubic spline."""
    return {method: one / errors[_CUBIC] for method, one in errors.items()}


def _named(errors: dict[str, NDArray[np.float64]], names: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Numbers of each method by variable."""
    return {method: dict(zip(names, map(float, one), strict=True)) for method, one in errors.items()}


def _print_table(
    errors: dict[str, NDArray[np.float64]],
    by_nodes: dict[str, NDArray[np.float64]] | None,
    names: tuple[str, ...],
    units: dict[str, str],
    title: str,
) -> None:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for label in ("variable", "method"):
        table.add_column(label)
    columns = {"error": errors, "ratio": _ratios(errors)}
    if by_nodes is not None:
        columns["by nodes"] = _ratios(by_nodes)
    for label in columns:
        table.add_column(label, justify="right", no_wrap=True)
    for channel, name in enumerate(names):
        for method in errors:
            first, *ratios = (found[method][channel] for found in columns.values())
            shown = [f"{first:.4g}", *(f"{ratio:.3f}" for ratio in ratios)]
            table.add_row(f"{name} {units[name]}".strip(), method, *shown)
    get_console().print(table)
