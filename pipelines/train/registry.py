"""Which tasks there are: one line each, and those that a program registers."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from ccnn_irregular import _registry
from ccnn_irregular._checks import require
from ccnn_irregular.pipelines.train.trusted import trust

if TYPE_CHECKING:
    from ccnn_irregular.pipelines.train.task import Task

__all__ = ["TASKS", "register", "task_class"]

# Name of a task in a configuration -> module and class.
TASKS = {
    "classification": "ccnn_irregular.pipelines.tasks.classification.task:ClassificationTask",
    "segmentation": "ccnn_irregular.pipelines.tasks.segmentation.task:SegmentationTask",
    "field": "ccnn_irregular.pipelines.tasks.field.task:FieldTask",
    "downscale": "ccnn_irregular.pipelines.tasks.downscale.task:DownscaleTask",
    "cloud_classification": "ccnn_irregular.pipelines.tasks.cloud_classification.task:CloudClassificationTask",
    "cloud_segmentation": "ccnn_irregular.pipelines.tasks.cloud_segmentation.task:CloudSegmentationTask",
    "clouds": "ccnn_irregular.pipelines.tasks.clouds.task:CloudsTask",
    "series": "ccnn_irregular.pipelines.tasks.series.task:SeriesTask",
    "forecast": "ccnn_irregular.pipelines.tasks.forecast.task:ForecastTask",
}
_registered: dict[str, type[Task]] = {}


def register(task: type[Task]) -> type[Task]:
    """Make a task of your own known under its name; to be used as a decorator of its class.

    A class that is defined again, as when a notebook's cell runs twice, replaces the one of before.

    Raises:
        ValueError: a name that is no word in small letters, or that another task has.
    """
    found = _registry.add(_registered, "a task", task.task, task, reserved=tuple(TASKS))
    trust(task.__module__)  # its network may be named in configurations
    return found


def task_class(name: str) -> type[Task]:
    """The task of a name.

    Raises:
        ValueError: no task has this name.
    """
    if name in _registered:
        return _registered[name]
    rule = f"be one of {', '.join((*TASKS, *_registered))}, or one whose module is imported first"
    require(name in TASKS, "task", rule, repr(name))
    module, _, kind = TASKS[name].partition(":")
    found: type[Task] = getattr(importlib.import_module(module), kind)
    return found
