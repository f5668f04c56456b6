"""Maps of a test: what was observed, the truth, the reconstruction, and its error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ccnn_irregular.datasets.samples import FieldSet
from ccnn_irregular.pipelines.tasks.field.data import FieldBatch
from ccnn_irregular.pipelines.train.figures import save
from ccnn_irregular.plotting_maps import plot_field_maps

__all__ = ["save_test_figures"]


def save_test_figures(
    folder: Path, batches: list[FieldBatch], network: NDArray[np.float64], fields: FieldSet, most: int
) -> list[Path]:
    """One picture for each of up to ``most`` channels or fields, of the fields of most observations.

    Returns:
        paths of the PNG files.
    """
    ends = np.cumsum([len(batch.rows) for batch in batches])
    shown = []
    for batch, estimates in zip(batches, np.split(network, ends[:-1]), strict=True):
        seen, asked = batch.observed.splits.tolist(), batch.query.splits.tolist()
        for number in range(len(batch)):
            here, there = slice(*seen[number : number + 2]), slice(*asked[number : number + 2])
            shown.append((here.stop - here.start, batch, here, there, estimates[there]))
    shown.sort(key=lambda one: -one[0])
    channels = np.linspace(0, len(fields.channels) - 1, min(most, len(fields.channels))).round().astype(int)
    pairs = [(one, int(channel)) for one in shown[: max(1, most // len(channels))] for channel in channels]
    paths = []
    for (_, batch, here, there, estimates), channel in pairs[:most]:
        row = int(batch.rows[there][0])
        field = int(np.searchsorted(fields.splits.numpy(), row, side="right")) - 1
        title = f"{fields.channels[channel]}, {fields.names[field]}"
        figure = plot_field_maps(
            batch.observed.coordinates[here].numpy(),
            batch.values[here, channel].numpy(),
            batch.query.coordinates[there].numpy(),
            batch.targets[there, channel].numpy(),
            estimates[:, channel],
            names=(fields.axes[0], fields.axes[1]),
            unit=fields.channel_units[channel],
            title=title,
        )
        stem = "".join(letter if letter.isalnum() else "_" for letter in title)
        paths.append(save(figure, folder / f"{stem}.png"))
    return paths
