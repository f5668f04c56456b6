"""``ccnn fit | validate | test | predict`` for gridded fields made finer; predict works from file to file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ccnn_irregular._checks import require
from ccnn_irregular.adapters.xarray import Reading
from ccnn_irregular.pipelines.tasks.downscale import figures
from ccnn_irregular.pipelines.tasks.downscale.baselines import spline
from ccnn_irregular.pipelines.tasks.downscale.blocks import as_bytes
from ccnn_irregular.pipelines.tasks.downscale.data import DownscalingDataModule
from ccnn_irregular.pipelines.tasks.downscale.fields import coarsened_values
from ccnn_irregular.pipelines.tasks.downscale.files import predict_file
from ccnn_irregular.pipelines.tasks.downscale.gaps import filled
from ccnn_irregular.pipelines.tasks.downscale.module import Downscaling
from ccnn_irregular.pipelines.train.checkpoint import load_weights
from ccnn_irregular.pipelines.train.evaluation import Evaluation, ResultTable, weighted_rmse
from ccnn_irregular.pipelines.train.outputs import record
from ccnn_irregular.pipelines.train.task import Task
from ccnn_irregular.plotting import with_unit

__all__ = ["DownscaleTask", "PredictOptions"]

_NETWORK, _CUBIC = "network", "cubic spline"

# Numbers of each method, one for each variable.
Errors = dict[str, NDArray[np.float64]]


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


class DownscaleTask(Task):
    """The four commands on gridded fields."""

    task = "downscale"
    module = Downscaling
    data = DownscalingDataModule
    monitor = "val_skill"
    monitor_label = "skill over cubic interpolation"
    summaries: ClassVar[dict[str, str]] = {
        "test": "errors on held-out times beside those of interpolation, as table, JSON and maps",
        "predict": "fine fields from a file of coarse ones, larger than memory; the same command resumes",
    }
    curves = (
        ("squared error / interpolation's", "train_loss", "training", "-"),
        ("squared error / interpolation's", "val_loss", "validation", "--"),
        ("skill", "val_skill", "validation", "--"),
    )
    predict_options = PredictOptions

    def evaluate(self, model: Downscaling, datamodule: DownscalingDataModule, folder: Path) -> Evaluation:
        """Errors over the whole test fields, beside those of three interpolations: table, JSON, maps.

        Nodes of a grid of latitudes count by the area they stand for, and all alike beside it ("by nodes").
        """
        trained, given = model.network.format, datamodule.format()
        require(trained == given, "data", f"be what the checkpoint was trained on, {trained}", given)
        answers = self._answers(model, datamodule)
        fine, areas = datamodule.testing.numpy(), datamodule.fine_plane.areas().numpy()
        errors, by_nodes = (
            {name: weighted_rmse(values, fine, weights, (0, 2, 3)) for name, values in answers.items()}
            for weights in (areas, np.ones_like(areas))
        )
        on_sphere = bool((areas != 1).any())
        title = (
            f"root mean square error over {len(fine)} fields, {'by area, ' if on_sphere else ''}"
            f"and ratio to the cubic spline's; {self.checkpoint}"
        )
        units = {name: datamodule.units[name] for name in datamodule.variables}
        return Evaluation(
            {
                "rmse": _named(errors, units),
                "ratio_to_cubic_spline": _named(_ratios(errors), units),
                "rmse_by_nodes": _named(by_nodes, units),
                "ratio_to_cubic_spline_by_nodes": _named(_ratios(by_nodes), units),
                "fields": len(fine),
            },
            tables=[_table(errors, by_nodes if on_sphere else None, units, title)],
            files=_maps(datamodule, answers, folder),
        )

    def _answers(self, model: Downscaling, data: DownscalingDataModule) -> dict[str, NDArray[Any]]:
        """Fine fields ``(B, C, rows, columns)`` for the test part, by method; splines have an answer everywhere."""
        source, query = data.coarse_plane.grid(), data.fine_plane.grid()

        def known(fine: Tensor) -> NDArray[np.float32]:
            coarse = coarsened_values(fine, data.factor, data.coarse, data.coarse_plane.sizes)
            return filled(coarse, source).numpy()

        tested = known(data.testing)
        smooth = spline(tested, source, query, 3)
        found = {"linear": spline(tested, source, query, 1), _CUBIC: smooth}
        if len(data.training):
            # What a spline gets wrong on average in training, node by node: the part that belongs to the place.
            wrong = torch.from_numpy(data.training.numpy() - spline(known(data.training), source, query, 3))
            found["cubic spline + mean error in training"] = smooth + wrong.nanmean(0).nan_to_num(0.0).numpy()
        return found | {_NETWORK: torch.cat(self.predictions(model, data.loader("test"))).numpy()}

    def predict(self, model: Downscaling, datamodule: DownscalingDataModule, ckpt_path: str, **_: Any) -> None:
        """From file to file, see ``files``; the data trained on need not be there."""
        options: PredictOptions = self.asked()
        output = self._get(self.config, "output")
        require(options.input is not None, "predict.input", "name a file, store or folder", options.input)
        require(output is not None, "output", "name the file (.nc) or store (.zarr) to write", output)
        load_weights(model, ckpt_path)
        assert options.input is not None
        written = predict_file(
            model.network,
            Path(options.input),
            Path(output),
            checkpoint=Path(ckpt_path),
            memory=as_bytes(options.memory),
            coarsen=options.coarsen,
            reading=options.reading,
        )
        record(written, self.task, ckpt_path)


def _ratios(errors: Errors) -> Errors:
    """Errors over those of the cubic spline."""
    return {method: found / errors[_CUBIC] for method, found in errors.items()}


def _named(errors: Errors, units: dict[str, str]) -> dict[str, dict[str, float]]:
    """Numbers of each method by variable."""
    return {method: dict(zip(units, map(float, found), strict=True)) for method, found in errors.items()}


def _table(errors: Errors, by_nodes: Errors | None, units: dict[str, str], title: str) -> ResultTable:
    columns = {"error": errors, "ratio": _ratios(errors)}
    if by_nodes is not None:
        columns["by nodes"] = _ratios(by_nodes)
    rows = []
    for channel, (name, unit) in enumerate(units.items()):
        for method in errors:
            first, *ratios = (found[method][channel] for found in columns.values())
            rows.append((f"{name} {unit}".strip(), method, f"{first:.4g}", *(f"{ratio:.3f}" for ratio in ratios)))
    return ResultTable(title, ("variable", "method", *columns), rows, words=2)


def _maps(data: DownscalingDataModule, answers: dict[str, NDArray[Any]], folder: Path) -> list[Path]:
    """A picture of each variable, of the first field that knows something of it."""
    fine = data.testing.numpy()
    paths = []
    for place, name in enumerate(data.variables):
        field = int(np.isfinite(fine[:, place]).any((1, 2)).argmax())
        coarse = data.whole(data.testing[field : field + 1]).coarse[0, place].numpy()
        shown = {method: answers[method][field, place] for method in (_CUBIC, _NETWORK)}
        label = with_unit(name, data.units[name] or None)
        planes = data.coarse_plane, data.fine_plane
        paths.append(figures.maps(coarse, fine[field, place], shown, planes, label, folder / f"{name}.png"))
    return paths
