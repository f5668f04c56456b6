"""``ccnn fit | validate | test | predict`` for classes of the points of your own clouds."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ccnn_irregular._checks import reject, require
from ccnn_irregular.datasets.cloud_files import CloudFile, cloud_paths, open_cloud, stray_paths
from ccnn_irregular.pipelines.tasks.cloud_segmentation.data import UNLABELLED
from ccnn_irregular.pipelines.tasks.cloud_segmentation.module import CloudSegmentation, PointPredictions
from ccnn_irregular.pipelines.tasks.cloud_segmentation.task import CloudSegmentationTask, class_iou
from ccnn_irregular.pipelines.tasks.clouds.data import CloudFiles, tell_left_out
from ccnn_irregular.pipelines.train.checkpoint import load_weights
from ccnn_irregular.pipelines.train.evaluation import Evaluation, ResultTable, say
from ccnn_irregular.pipelines.train.outputs import record, require_own
from ccnn_irregular.pipelines.train.progress import followed
from ccnn_irregular.pipelines.train.reports import whole

__all__ = ["CloudPredictOptions", "CloudsTask"]


@dataclass
class CloudPredictOptions:
    """What is written to each point.

    Attributes:
        field: name of the field of the predicted label.
        probability: name of the field of its probability.
    """

    field: str = "prediction"
    probability: str = "probability"


class CloudsTask(CloudSegmentationTask):
    """The four commands on your own clouds."""

    task = "clouds"
    data = CloudFiles
    summaries: ClassVar[dict[str, str]] = {
        "test": "IoU of each class on the test part, or on all points of new files, as table and JSON",
        "predict": "each file in its own format, with the predicted label and its probability at each point",
    }
    predict_options = CloudPredictOptions

    def evaluate(self, model: CloudSegmentation, datamodule: Any, folder: Path) -> Evaluation:
        """Intersection over union on the labelled points, beside the most common class everywhere."""
        found = PointPredictions.joined(self.predictions(model, datamodule.loader("test")))
        counted = found.labels != UNLABELLED
        labels, predicted = found.labels[counted], found.predicted[counted]
        titles = datamodule.classes
        counts = np.bincount(labels, minlength=len(titles))
        common = np.full_like(labels, counts.argmax())
        columns = {
            name: class_iou(guess, labels, len(titles))
            for name, guess in (("network", predicted), ("most common class", common))
        }
        rows = [
            (title, f"{count}", *(f"{100 * values[number]:.2f}" for values in columns.values()))
            for number, (title, count) in enumerate(zip(titles, counts, strict=True))
        ]
        means = {name: float(np.nanmean(values)) for name, values in columns.items()}
        rows.append(("mean", f"{len(labels)}", *(f"{100 * mean:.2f}" for mean in means.values())))
        accuracy = float((predicted == labels).mean())
        return Evaluation(
            {
                "accuracy": accuracy,
                "labelled points": len(labels),
                "iou": {name: dict(zip(titles, values.tolist(), strict=True)) for name, values in columns.items()},
                "mean iou": means,
            },
            tables=[
                ResultTable(
                    f"{datamodule.root}, {len(labels)} points, {self.checkpoint}",
                    ("IoU %", "points", *columns),
                    rows,
                    caption=f"{100 * accuracy:.2f} % of the points are right",
                )
            ],
        )

    def predict(self, model: Any, datamodule: Any, ckpt_path: str, **_: Any) -> None:
        """Write each file of the root with what is predicted; labels are not needed."""
        options: CloudPredictOptions = self.asked()
        load_weights(model, ckpt_path)
        datamodule.setup("predict")
        folder = self.output(datamodule, "predictions")
        jobs = _jobs(Path(datamodule.root), folder)
        tell_left_out(datamodule.root, [path.name for path in stray_paths(datamodule.root)])
        for path, target in followed(list(jobs.items()), "clouds"):
            cloud = open_cloud(path, may_be_empty=True)
            columns = self._answers(model, datamodule, cloud, options)
            with whole(target) as temporary, temporary.open("wb") as stream:
                cloud.save(stream, columns, f"{options.field} by {ckpt_path}")
            record(target, self.task, ckpt_path, {"file": str(path), "classes": datamodule.classes})
            say(f"{target}: {_told(columns[options.field])}")
        say(f"{len(jobs)} clouds written: {folder}")

    def _answers(
        self, model: CloudSegmentation, data: CloudFiles, cloud: CloudFile, options: CloudPredictOptions
    ) -> dict[str, np.ndarray]:
        """The predicted label and its probability at each point, in the order of the file."""
        loader, rows = data.to_answer(cloud)
        number, probability = np.full(len(cloud.coordinates), -1), np.full(len(cloud.coordinates), np.nan, np.float32)
        if len(rows):
            found = PointPredictions.joined(self.predictions(model, loader))
            number[rows], probability[rows] = found.predicted, found.probabilities.max(1)
        classes = data.reading.classes
        return {options.field: classes.values(number, cloud.words), options.probability: probability}


def _told(values: np.ndarray) -> str:
    counts = sorted(Counter(values.tolist()).items(), key=lambda item: -item[1])
    return ", ".join(f"{value}: {count} points" for value, count in counts) or "no points"


def _jobs(root: Path, folder: Path) -> dict[Path, Path]:
    """Each file and where it goes; before any work is done.

    Raises:
        ValueError: a target that is an input, that two files share, or that is there and no output of ours.
    """
    require(not folder.is_file(), "output", "be a folder", f"the file {folder}")
    base = root.parent if root.is_file() else root
    jobs: dict[Path, Path] = {}
    for path in cloud_paths(root):
        name = path.name.replace(".copc.", ".")
        target = (folder / path.relative_to(base)).with_name(name)
        if target in jobs.values():
            reject("root", "hold files of different names beside .copc", f"two that become {target}")
        if target.resolve() == path.resolve():
            reject("output", "be another folder than that of the input, which is not overwritten", folder)
        require_own(target)
        jobs[path] = target
    return jobs
