"""``ccnn fit | validate | test | predict`` for classes of points: intersection over union, maps, memory."""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.functional.classification import multiclass_jaccard_index

from ccnn_irregular.datasets.processing.terrain import height_above_lowest
from ccnn_irregular.pipelines.tasks.cloud_segmentation import figures
from ccnn_irregular.pipelines.tasks.cloud_segmentation.data import LabelDataModule
from ccnn_irregular.pipelines.tasks.cloud_segmentation.module import CloudSegmentation, PointPredictions
from ccnn_irregular.pipelines.train.data import TaskData
from ccnn_irregular.pipelines.train.equal_samples import EqualSamples
from ccnn_irregular.pipelines.train.evaluation import Evaluation, ResultTable
from ccnn_irregular.pipelines.train.module import timed
from ccnn_irregular.pipelines.train.reports import write_answers
from ccnn_irregular.pipelines.train.task import Task

__all__ = ["CloudSegmentationTask", "class_iou", "height_filter", "iou_without", "mean_over_shapes"]

# Of the height filter: edges of cells and thresholds that are tried on the training part, m.
_CELLS = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 20.0)
_THRESHOLDS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)


class CloudSegmentationTask(Task):
    """The four commands on clouds with labels."""

    task = "cloud_segmentation"
    module = CloudSegmentation
    data: ClassVar[type[TaskData[Any, Any]]] = LabelDataModule
    monitor = "val_log_likelihood"
    monitor_label = "log-likelihood"
    summaries: ClassVar[dict[str, str]] = {
        "test": "IoU on the test part as table and JSON; of a tile also maps, a simple filter, memory",
        "predict": "a CSV of id,x,y,z,prediction,probability_NAME of all points",
    }
    curves = (
        ("cross-entropy", "train_loss", "training", "-"),
        ("cross-entropy", "val_loss", "validation", "--"),
        ("mean IoU", "train_iou", "training", "-"),
        ("mean IoU", "val_iou", "validation", "--"),
    )

    def evaluate(self, model: CloudSegmentation, datamodule: LabelDataModule, folder: Path) -> Evaluation:
        """Intersection over union on the test part; of a tile also a simple filter's, maps, seconds and memory."""
        found = self._predictions(model, datamodule)
        classes, labels, plots = datamodule.classes, found.labels, []
        columns = {"network": class_iou(found.predicted, labels, len(classes))}
        noted: dict[str, Any] = {}
        if datamodule.tile is not None:
            if "train" in datamodule.parts:
                filtered, noted["height filter"] = height_filter(datamodule)
                columns["height above the lowest point"] = class_iou(filtered, labels, len(classes))
            noted["whole tile"], everywhere = _whole_tile(model, datamodule)
            plots = [figures.tile(datamodule.tile, everywhere, datamodule.rows["test"].numpy(), folder / "map.png")]
        elif datamodule.parts["test"].kinds is not None:
            noted |= _of_shapes(datamodule, found)
        means = {name: float(np.nanmean(values)) for name, values in columns.items()}
        return Evaluation(
            {
                "accuracy": float((found.predicted == labels).mean()),
                "iou": {name: dict(zip(classes, values.tolist(), strict=True)) for name, values in columns.items()},
                "mean iou": means,
                **noted,
            },
            tables=[_table(columns, classes, f"{datamodule.dataset}, {len(labels)} test points, {self.checkpoint}")],
            notes=[f"{name}: {figure}" for name, figure in noted.items()],
            files=plots,
        )

    def predicted_rows(self, model: CloudSegmentation, datamodule: LabelDataModule, path: Path) -> str:
        """Write ``id,x,y,z,prediction,probability_NAME`` lines, coordinates as in the source."""
        found = self._predictions(model, datamodule)
        clouds = np.repeat(np.arange(len(found.splits) - 1), np.diff(found.splits)).tolist()
        part = datamodule.parts["test"]
        places = (part.coordinates if part.origin is None else part.coordinates + part.origin).tolist()
        columns = {"id": clouds} | {axis: [f"{place[k]:.3f}" for place in places] for k, axis in enumerate("xyz")}
        classes = datamodule.classes
        chances = dict(zip(classes, found.probabilities.T.tolist(), strict=True))
        write_answers(path, columns, [classes[number] for number in found.predicted.tolist()], chances)
        return f"{len(places)} points"

    def _predictions(self, model: CloudSegmentation, datamodule: LabelDataModule) -> PointPredictions:
        return PointPredictions.joined(self.predictions(model, datamodule.loader("test")))


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
    positions = np.concatenate([clouds.coordinates.numpy() for clouds in known])
    ground = np.concatenate([clouds.labels.numpy() for clouds in known]) == 1
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


def _of_shapes(datamodule: LabelDataModule, found: PointPredictions) -> dict[str, Any]:
    """What is published of shapes whose kinds are known, and what equal shapes make of it."""
    part = datamodule.parts["test"]
    assert part.kinds is not None
    assert part.possible is not None
    shapes, kinds = mean_over_shapes(found, part.kinds.numpy(), part.possible.numpy())
    equal = EqualSamples.of(datamodule)
    return {
        "mean over shapes": shapes,
        "mean over kinds": kinds,
        "equal shapes": equal.counts() | {"mean iou without them": iou_without(equal, found)},
    }


def _whole_tile(model: CloudSegmentation, datamodule: LabelDataModule) -> tuple[dict[str, float], NDArray[np.int64]]:
    """One forward pass over all points: its cost, and the predicted classes."""
    batch = datamodule.everything()
    with torch.no_grad():
        logits, seconds = timed(model.cpu().eval(), batch)
    # The largest this process has ever been: an upper bound of what the pass took, libraries and data included.
    unit = 2**30 if sys.platform == "darwin" else 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    cost = {"points": len(batch), "seconds": round(seconds, 2), "peak memory of the process, GiB": round(peak, 2)}
    return cost, logits.argmax(1).numpy()


def _table(columns: dict[str, NDArray[np.float64]], classes: tuple[str, ...], title: str) -> ResultTable:
    """A column for the network and each baseline, a row for each class and their mean."""
    rows = [(*values, np.nanmean(values)) for values in columns.values()]
    lines = [
        (label, *(f"{100 * value:.2f}" for value in line))
        for label, line in zip((*classes, "mean"), zip(*rows, strict=True), strict=True)
    ]
    return ResultTable(title, ("IoU %", *columns), lines)
