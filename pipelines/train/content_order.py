"""Samples whose files and rows may stand in any order, in one that follows from what they hold."""

from __future__ import annotations

from typing import TypeVar

import torch

from ccnn_irregular.datasets.reading.content import content_id
from ccnn_irregular.datasets.samples import GriddedSamples, RaggedSeries, RaggedVolumes

__all__ = ["in_order_of_content"]

Sorted = TypeVar("Sorted", RaggedSeries, GriddedSamples, RaggedVolumes, RaggedSeries | GriddedSamples | RaggedVolumes)


def in_order_of_content(samples: Sorted) -> Sorted:
    """The same samples in an order that follows from what they hold; volumes on equal grids stand side by side."""
    kinds, places = [""] * len(samples), [b""] * len(samples)
    if isinstance(samples, RaggedSeries):
        counts = samples.splits.diff().tolist()
        places = [rows.numpy().tobytes() for rows in samples.coordinates.split(counts)]
        values = samples.values.split(counts)
    elif isinstance(samples, GriddedSamples):
        values = samples.values.unbind()
    else:
        kinds = [repr(grid) for grid in samples.grids]
        values = samples.values.split([grid.count for grid in samples.grids])
    held = zip(samples.labels.tolist(), places, values, strict=True)
    ids = [content_id(samples.classes[label], place, rows.numpy().tobytes()) for label, place, rows in held]
    order = sorted(range(len(samples)), key=lambda one: (kinds[one], ids[one]))
    return samples.subset(torch.tensor(order))
