"""The Lightning module of a classification of point clouds."""

from __future__ import annotations

from torch import nn

from ccnn_irregular.pipelines.tasks.classification.module import SampleClasses
from ccnn_irregular.pipelines.train.schedule import Schedule

__all__ = ["CloudClassification"]

SCHEDULE = Schedule(learning_rate=5e-3, weight_decay=1e-2, warmup_epochs=1.0)


class CloudClassification(SampleClasses):
    """One of several classes for each cloud. Clouds are changed at random by the data module.

    Args:
        network: see ``SampleClasses``, as all below.
        schedule: see there.
        label_smoothing: see there.
    """

    def __init__(self, network: nn.Module, schedule: Schedule = SCHEDULE, label_smoothing: float = 0.0) -> None:
        super().__init__(network, schedule, label_smoothing)
