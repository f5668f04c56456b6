"""What samples of every kind are asked for: their order, keys, names, classes and grids."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ccnn_irregular._checks import reject, require
from ccnn_irregular.datasets.samples import GriddedSamples, RaggedSeries, RaggedVolumes, ShapePool
from ccnn_irregular.datasets.samples.parts import counts_of
from ccnn_irregular.domains import Points
from ccnn_irregular.pipelines.tasks.classification.sampling import Samples
from ccnn_irregular.pipelines.train.sample_keys import ragged_keys, row_keys
from ccnn_irregular.quadrature import trapezoid

__all__ = [
    "carved",
    "grid_numbers",
    "joined",
    "labelled_as",
    "names_of",
    "sample_keys",
    "sampled_points",
]


def joined(first: Samples, second: Samples) -> Samples:
    """Samples of one data set, which are of one kind, one after the other."""
    joined: Samples = cast("Any", first).joined(second)
    return joined


def labelled_as(samples: Samples | ShapePool, classes: tuple[str, ...]) -> Any:
    """The samples with their labels counted as in ``classes``, those that were trained on.

    Raises:
        ValueError: a sample of a class that is none of them.
    """
    if samples.classes == classes:
        return samples
    met = {samples.classes[label] for label in samples.labels.unique().tolist() if label >= 0}
    rule = f"be of the classes that the checkpoint was trained on, {', '.join(classes)}"
    require(met <= set(classes), "labels", rule, ", ".join(sorted(met - set(classes))))
    # The last entry is for -1, a label that is not known.
    numbers = torch.tensor([classes.index(name) if name in met else -1 for name in samples.classes] + [-1])
    return dataclasses.replace(samples, labels=numbers[samples.labels], classes=classes)


def sampled_points(coordinates: Tensor, values: Tensor, splits: Tensor, cap: float | None) -> Points:
    """Series as points weighted by the trapezoid rule, per channel where values are missing (nan)."""
    missing = values.isnan()
    observed = ~missing if bool(missing.any()) else None
    return Points(coordinates, trapezoid(coordinates[:, 0], observed=observed, splits=splits, cap=cap), splits)


def grid_numbers(volumes: RaggedVolumes) -> NDArray[np.int64]:
    """Equal numbers for equal grids."""
    numbers = {grid: number for number, grid in enumerate(dict.fromkeys(volumes.grids))}
    return np.array([numbers[grid] for grid in volumes.grids], dtype=np.int64)


def sample_keys(samples: Samples) -> NDArray[np.uint64]:
    """One key for each sample, of what was measured and where."""
    if isinstance(samples, GriddedSamples):
        return row_keys(samples.values.numpy())
    if isinstance(samples, RaggedSeries):
        return ragged_keys(samples.splits.numpy(), samples.coordinates.numpy(), samples.values.numpy())
    sizes = np.array([grid.count for grid in samples.grids], dtype=np.int64)
    splits = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    nodes = np.arange(splits[-1]) - np.repeat(splits[:-1], sizes)
    return ragged_keys(splits, nodes, samples.values.numpy())


def carved(labels: Tensor, share: float, seed: int, names: Sequence[str] = ()) -> tuple[Tensor, Tensor]:
    """Indices of the training part and of a stratified ``share`` set aside."""
    from sklearn.model_selection import train_test_split

    everything, classes = np.arange(len(labels)), labels.numpy()
    try:
        kept, aside = train_test_split(everything, test_size=share, stratify=classes, random_state=seed)
    except ValueError:
        got = f"{share} of {len(labels)} samples: {counts_of(classes, names)}"
        reject("data.validation", "leave samples of every class in both parts", got)
    return torch.from_numpy(np.sort(kept)), torch.from_numpy(np.sort(aside))


def names_of(samples: Samples) -> Sequence[Any]:
    """What the source calls each sample, or its number there."""
    if isinstance(samples, RaggedVolumes) and samples.names:
        return samples.names
    ids = samples.ids if isinstance(samples, RaggedSeries) else None
    return range(len(samples)) if ids is None else ids.tolist()
