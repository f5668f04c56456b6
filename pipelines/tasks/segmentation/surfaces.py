"""How far the surface of a predicted label lies from the true one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, distance_transform_edt
from torch import Tensor

from ccnn_irregular._checks import require

__all__ = ["surface_distance"]


def surface_distance(predicted: Tensor, labels: Tensor, classes: int, steps: Sequence[float]) -> NDArray[np.float64]:
    """Mean distance from each surface to the other one, of each label but 0, in the units of ``steps``.

    A label's surface are its voxels with a face to another label or to the end of the volume; both surfaces' voxels
    count alike.

    Args:
        predicted: integers in 0 ... ``classes`` - 1, one per voxel.
        labels: the same shape.
        classes: number of classes, background included.
        steps: of the voxels along each axis.

    Returns:
        ``(classes - 1,)``; nan for a label that one of the two has not.

    Raises:
        ValueError: shapes that differ.
    """
    rule = f"have the labels' shape {tuple(labels.shape)}"
    require(predicted.shape == labels.shape, "predicted", rule, tuple(predicted.shape))
    pairs = [[(voxels == label).cpu().numpy() for voxels in (predicted, labels)] for label in range(1, classes)]
    return np.array([_distance(first, second, steps) for first, second in pairs])


def _distance(first: NDArray[np.bool_], second: NDArray[np.bool_], steps: Sequence[float]) -> float:
    if not first.any() or not second.any():
        return float("nan")
    surfaces = [inside & ~binary_erosion(inside) for inside in (first, second)]
    to_first, to_second = (distance_transform_edt(~surface, sampling=steps) for surface in surfaces)
    return float(np.concatenate([to_second[surfaces[0]], to_first[surfaces[1]]]).mean())
