"""``ccnn fit | validate | test | predict`` for classes of points: intersection over union, maps, memory."""

from __future__ import annotations

import csv
import io
import resource
import sys
import time
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from rich import box, get_console
from rich.table import Table
from torch import Tensor
from torchmetrics.functional.classification import multiclass_jaccard_index

from ccnn_irregular.datasets.processing.terrain import height_above_lowest
from ccnn_irregular.pipelines.tasks.cloud_classification import figures
from ccnn_irregular.pipelines.tasks.cloud_segmentation.data import LabelDataModule, Part
from ccnn_irregular.pipelines.tasks.cloud_segmentation.module import CloudSegmentation, PointPredictions
from ccnn_irregular.pipelines.train.command_line import TrainingCLI, load_weights
from ccnn_irregular.pipelines.train.equal_samples import EqualSamples
from ccnn_irregular.pipelines.train.reports import versions, write_json, write_text

__all__ = ["CloudSegmentationCLI", "class_iou", "height_filter", "iou_without", "mean_over_shapes"]

# Of the height filter: edges of cells and thresholds that are tried on the training part, m.
_CELLS = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 20.0)
_THRESHOLDS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)


class CloudSegmentationCLI(TrainingCLI):
    """The four commands on clouds with labels."""

    task = "cloud_segmentation"
    module = CloudSegmentation
    data = LabelDataModule
    monitor = "val_log_likelihood"
    monitor_label = "log-likelihood"
    summaries: ClassVar[dict[str, str]] = {
        "fit": "train; the same command resumes an interrupted run",
        "validate": "loss and intersection over union on the validation part",
        "test": "IoU on the test part as table and JSON; of a tile also maps, a simple filter, memory",
        "predict": "a CSV of x,y,z,predicted,probability of the test part",
    }
    curves = (
        ("cross-entropy", "train_loss", "training", "-"),
        ("cross-entropy", "val_loss", "validation", "--"),
        ("mean IoU", "train_iou", "training", "-"),
        ("mean IoU", "val_iou", "validation", "--"),
    )

    def add_task_arguments(self, parser: Any, subcommand: str) -> None:
        """Training ends by its schedule; early stopping has to be asked for."""
        parser.set_defaults({"early_stopping.patience": 100_000})

    def describe(self, datamodule: LabelDataModule) -> dict[str, Any]:
        """Which clouds were read and how they were split."""
        return datamodule.description()

    def report(self, datamodule: LabelDataModule) -> str:
        """The clouds, and the size of the network."""
        count = sum(parameter.numel() for parameter in self.model.parameters())
        points = ", ".join(f"{size} {name}" for name, size in datamodule.description()["points"].items())
        return f"{datamodule.samples!r}: points {points}\nnetwork of {count:,} parameters"

    def test(self, model: CloudSegmentation, datamodule: LabelDataModule, ckpt_path: str, **_: Any) -> None:
        """Intersection over union on the test part; of a tile also a simple filter's, maps, seconds and memory."""
        datamodule.setup("test")
        load_weights(model, ckpt_path)
        predictions = self._predicted(model, datamodule, "test")
        classes = datamodule.classes
        predicted = predictions.probabilities.argmax(1)
        rows = {"network": class_iou(predicted, predictions.labels, len(classes))}
        folder = Path(self._get(self.config, "output") or self.run_folder.path / "test")
        report: dict[str, Any] = {
            "accuracy": float((predicted == predictions.labels).mean()),
            **self.provenance(ckpt_path),
            "network": type(model.network).__name__,
            "parameters": sum(parameter.numel() for parameter in model.network.parameters()),
            "data": self.describe(datamodule),
            "versions": versions(),
        }
        plots = []
        if datamodule.tile is not None:
            filtered, report["height filter"] = height_filter(datamodule)
            rows["height above the lowest point"] = class_iou(filtered, predictions.labels, len(classes))
            report["whole tile"], everywhere = _whole_tile(model, datamodule)
            test_rows = datamodule.rows["test"].numpy()
            plots.append(figures.tile(datamodule.tile, everywhere, test_rows, folder / "map.png"))
        test_part = datamodule.parts["test"]
        if test_part.kinds is not None:
            assert test_part.possible is not None
            equal = EqualSamples.of(datamodule)
            report["equal shapes"] = equal.counts() | {"mean iou without them": iou_without(equal, predictions)}
            report["mean over shapes"], report["mean over kinds"] = mean_over_shapes(
                predictions, test_part.kinds.numpy(), test_part.possible.numpy()
            )
        report["iou"] = {name: dict(zip(classes, map(float, values), strict=True)) for name, values in rows.items()}
        report["mean iou"] = {name: float(np.nanmean(values)) for name, values in rows.items()}
        write_json(folder / "metrics.json", report)
        _print_table(rows, classes, f"{datamodule.dataset}, {len(predicted)} test points, {ckpt_path}")
        for name in ("height filter", "whole tile", "mean over shapes", "mean over kinds", "equal shapes"):
            if name in report:
                get_console().print(f"{name}: {report[name]}", highlight=False, soft_wrap=True)
        for path in (folder / "metrics.json", *plots):
            get_console().print(str(path), highlight=False, soft_wrap=True)

    def predict(self, model: CloudSegmentation, datamodule: LabelDataModule, ckpt_path: str, **_: Any) -> None:
        """Write the CSV."""
        datamodule.setup("predict")
        self.tell_overlap(ckpt_path)
        load_weights(model, ckpt_path)
        predictions = self._predicted(model, datamodule, "test")
        positions = datamodule.parts["test"].coordinates.tolist()
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(["cloud", "x", "y", "z", "predicted", "probability"])
        clouds = np.repeat(np.arange(len(predictions.splits) - 1), np.diff(predictions.splits))
        for cloud, place, one in zip(clouds.tolist(), positions, predictions.probabilities, strict=True):
            best = int(one.argmax())
            writer.writerow([cloud, *(f"{x:.3f}" for x in place), datamodule.classes[best], f"{one[best]:.6f}"])
        path = Path(self._get(self.config, "output") or self.run_folder.path / "predictions.csv")
        write_text(path, table.getvalue())
        get_console().print(f"{len(positions)} points: {path}", highlight=False, soft_wrap=True)

    def _predicted(self, model: CloudSegmentation, datamodule: LabelDataModule, part: Part) -> PointPredictions:
        batches = self.trainer.predict(model, dataloaders=datamodule.part_loader(part))
        parts = cast("list[PointPredictions]", batches)
        sizes = np.concatenate([np.diff(one.splits) for one in parts])
        return PointPredictions(
            np.concatenate([one.probabilities for one in parts]),
            np.concatenate([one.labels for one in parts]),
            np.concatenate([[0], np.cumsum(sizes)]),
        )


def class_iou(predicted: NDArray[np.int64], labels: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """Intersection over union of each class; nan where it is neither there nor predicted."""
    index = multiclass_jaccard_index(torch.from_numpy(predicted), torch.from_numpy(labels), classes, average="none")
    seen = np.bincount(predicted, minlength=classes) + np.bincount(labels, minlength=classes)
    return np.where(seen > 0, index.numpy().astype(np.float64), np.nan)


def iou_without(equal: EqualSamples, predictions: PointPredictions) -> float:
    """Mean intersection over union on the points of shapes that equal none trained on; nan where none is left."""
    rest = np.repeat(~equal.equal, np.diff(predictions.splits))
    probabilities, labels = predictions.probabilities[rest], predictions.labels[rest]
    if not len(labels):
        return float("nan")
    return float(np.nanmean(class_iou(probabilities.argmax(1), labels, probabilities.shape[1])))


def mean_over_shapes(
    predictions: PointPredictions, kinds: NDArray[np.int64], possible: NDArray[np.bool_]
) -> tuple[float, float]:
    """The two figures published for ShapeNet's parts: IoU averaged over shapes, and over kinds of shapes.

    A shape's points can only be parts of its kind; its IoU is the mean over these parts, and 1 for a part that is
    neither there nor predicted (Qi et al. 2017, arXiv 1612.00593).
    """
    allowed = np.repeat(possible[kinds], np.diff(predictions.splits), axis=0)
    predicted = np.where(allowed, predictions.probabilities, -1.0).argmax(1)
    classes = possible.shape[1]
    shape = np.repeat(np.arange(len(kinds)), np.diff(predictions.splits))

    def counted(labels: NDArray[np.int64], rows: NDArray[np.bool_] | slice = slice(None)) -> NDArray[np.int64]:
        key = shape[rows] * classes + labels[rows]
        return np.bincount(key, minlength=len(kinds) * classes).reshape(len(kinds), classes)

    both = counted(predicted, predicted == predictions.labels)
    union = counted(predicted) + counted(predictions.labels) - both
    each = np.where(union > 0, both / np.maximum(union, 1), 1.0)
    shapes = np.nanmean(np.where(possible[kinds], each, np.nan), axis=1)
    return float(shapes.mean()), float(np.mean([shapes[kinds == kind].mean() for kind in np.unique(kinds)]))


def height_filter(datamodule: LabelDataModule) -> tuple[NDArray[np.int64], dict[str, float]]:
    """Ground where a point is less than a threshold above the lowest of its cell; both tuned on training points.

    Returns:
        0 or 1 (ground) for each point of the test part, and what was chosen.
    """
    parts = datamodule.parts
    known = [parts["train"], parts["validation"]]
    positions = np.concatenate([one.coordinates.numpy() for one in known])
    ground = np.concatenate([one.labels.numpy() for one in known]) == 1
    best, chosen = -1.0, (0.0, 0.0)
    for cell in _CELLS:
        height = height_above_lowest(positions, cell)
        for threshold in _THRESHOLDS:
            low = height < threshold
            iou = float((low & ground).sum() / max((low | ground).sum(), 1))
            if iou > best:
                best, chosen = iou, (cell, threshold)
    cell, threshold = chosen
    low = height_above_lowest(parts["test"].coordinates.numpy(), cell) < threshold
    return low.astype(np.int64), {"cell, m": cell, "threshold, m": threshold, "ground IoU on training points": best}


def _whole_tile(model: CloudSegmentation, datamodule: LabelDataModule) -> tuple[dict[str, float], NDArray[np.int64]]:
    """One forward pass over all points: its cost, and the predicted classes."""
    batch = datamodule.everything()
    started = time.perf_counter()
    with torch.no_grad():
        logits: Tensor = model.cpu().eval()(batch)
    seconds = time.perf_counter() - started
    # The largest this process has ever been: an upper bound of what the pass took, libraries and data included.
    unit = 2**30 if sys.platform == "darwin" else 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    cost = {"points": len(batch), "seconds": round(seconds, 2), "peak memory of the process, GiB": round(peak, 2)}
    return cost, logits.argmax(1).numpy()


def _print_table(rows: dict[str, NDArray[np.float64]], classes: tuple[str, ...], title: str) -> None:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("IoU %", no_wrap=True)
    for name in rows:
        table.add_column(name, justify="right")
    for number, label in enumerate(classes):
        table.add_row(label, *(f"{100 * values[number]:.2f}" for values in rows.values()))
    table.add_row("mean", *(f"{100 * np.nanmean(values):.2f}" for values in rows.values()))
    get_console().print(table)
