"""How files of clouds are read: what the training files told, and what is taken out of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccnn_irregular.adapters.geometric_weights import CloudSampling
from ccnn_irregular.pipelines.tasks.clouds.labels import Labels, PointClasses

__all__ = ["TERRAIN_CHANNELS", "Columns", "Read", "varies"]

TERRAIN_CHANNELS = 9
"""Features of the terrain at each point."""


@dataclass(frozen=True)
class Read:
    """How files are read: what the training files told, and what was typed. A checkpoint carries it to other files.

    Attributes:
        classes: and the field of their labels.
        fields: that are channels.
        terrain: whether features of the terrain are channels too.
        spacing: typical distance of neighbouring points, unit of the coordinates.
        radius: of the discs of training, seen from above.
        weights: quadrature weights, see ``cloud_weights``.
    """

    classes: PointClasses
    fields: tuple[str, ...]
    terrain: bool
    spacing: float
    radius: float
    weights: CloudSampling

    @property
    def channels(self) -> int:
        """Number of the values of a point."""
        return len(self.fields) + (TERRAIN_CHANNELS if self.terrain else 0)

    def state(self) -> dict[str, Any]:
        """Plain values, for the checkpoint."""
        return vars(self) | {"classes": dict(vars(self.classes))}

    @staticmethod
    def from_state(state: dict[str, Any]) -> Read:
        """From what :meth:`state` returned."""
        return Read(**{**state, "classes": PointClasses(**state["classes"])})


@dataclass(frozen=True)
class Columns:
    """What is taken out of a file before it is known how files are read.

    Attributes:
        path: of the file.
        places: float64 ``(M, 3)`` as in the file, of the points that have a place.
        labels: by the names of their fields.
        fields: float32 ``(M,)`` by name.
    """

    path: Path
    places: NDArray[np.float64]
    labels: Mapping[str, Labels]
    fields: Mapping[str, NDArray[np.float32]]


def varies(columns: Sequence[NDArray[np.float32]]) -> bool:
    """Whether a field is not the same at all points of all files."""
    first = columns[0][0]
    return any(bool((column != first).any()) for column in columns)
