"""Maps of a test: what was observed, the truth, the reconstruction, and its error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ccnn_irregular.datasets.samples import FieldSet
from ccnn_irregular.datasets.stations import StationSet
from ccnn_irregular.pipelines.tasks.field.batch import FieldBatch
from ccnn_irregular.pipelines.tasks.field.network import FieldNetwork
from ccnn_irregular.pipelines.train.figures import file_stem, save, short_times
from ccnn_irregular.plotting_maps import plot_field_maps

__all__ = ["save_test_figures"]


def save_test_figures(
    folder: Path,
    batches: list[FieldBatch],
    answers: NDArray[np.float64],
    fields: FieldSet,
    most: int,
    network: FieldNetwork,
) -> list[Path]:
    """One picture for each of up to ``most`` channels or fields, of the fields of most observations.

    Args:
        folder: of the pictures.
        batches: of the test.
        answers: ``(m, C)``, those of the network to all batches.
        fields: what was read.
        most: pictures.
        network: is asked for the gaps of a grid too, of which no truth is known.

    Returns:
        paths of the PNG files.
    """
    ends = np.cumsum([len(batch.rows) for batch in batches])
    shown = []
    for batch, estimates in zip(batches, np.split(answers, ends[:-1]), strict=True):
        shown += [(seen.stop - seen.start, batch, seen, asked, estimates[asked]) for seen, asked in batch.spans()]
    shown.sort(key=lambda field: -field[0])
    channels = np.linspace(0, len(fields.channels) - 1, min(most, len(fields.channels))).round().astype(int)
    distinct: dict[int, Any] = {}  # where all of a source is asked for, a field comes once for each group of stations
    for entry in shown:
        distinct.setdefault(_number(fields, entry[1], entry[3]), entry)
    first = list(distinct.items())[: max(1, most // len(channels))]
    pairs = [(number, entry, int(channel)) for number, entry in first for channel in channels]
    paths = []
    for field, (_, batch, seen, asked, estimates), channel in pairs[:most]:
        errors = batch.targets[asked, channel] - torch.from_numpy(estimates[:, channel])
        if not (batch.values[seen, channel].isfinite().any() and errors.isfinite().any()):
            continue  # a channel that is not measured there
        title = short_times(f"{fields.channels[channel]}, {fields.names[field]}")
        title += " UTC" if _has_hours(fields, title) else ""
        gaps = FieldBatch.at(
            batch.observed.coordinates[seen], batch.values[seen], batch.noise[seen], *_gaps(fields, field)
        )
        filled = network.predict(gaps)[0].numpy() if len(gaps.rows) else gaps.targets.numpy()
        figure = plot_field_maps(
            batch.observed.coordinates[seen].numpy(),
            batch.values[seen, channel].numpy(),
            torch.cat([gaps.query.coordinates, batch.query.coordinates[asked]]).numpy(),
            torch.cat([gaps.targets, batch.targets[asked]])[:, channel].numpy(),
            np.concatenate([filled, estimates])[:, channel],
            names=(fields.axes[0], fields.axes[1]),
            units=_units(fields),
            nodes=None if fields.shape is None else _nodes(fields, field),
            unit=fields.channel_units[channel],
            title=title,
        )
        paths.append(save(figure, folder / f"{file_stem(title)}.png"))
    return paths


def _has_hours(fields: FieldSet, title: str) -> bool:
    """Whether a title holds a time of day, to which the times of tables are brought from any zone."""
    stamps = fields.stamps if isinstance(fields, StationSet) else None
    return stamps is not None and stamps.dtype.kind == "M" and ":" in title.rpartition("T")[2]


def _units(fields: FieldSet) -> tuple[str | None, str | None]:
    """Of the axes, as far as they are stated."""
    given = [unit or None for unit in fields.axis_units[:2]]
    return (given[0], given[1]) if len(given) == 2 else (None, None)


def _gaps(fields: FieldSet, field: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Places of a field on a grid where some value lacks, and their rows; none of scattered ones."""
    first, last = fields.splits[field : field + 2].tolist()
    lacking = fields.values[first:last].isnan().any(1) & (fields.shape is not None)
    rows = first + torch.nonzero(lacking).flatten()
    return fields.coordinates[rows], rows


def _nodes(fields: FieldSet, field: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coordinates of the rows and of the columns of a field on a grid."""
    places = fields.coordinates[slice(*fields.splits[field : field + 2].tolist())].numpy()
    return np.unique(places[:, 0]), np.unique(places[:, 1])


def _number(fields: FieldSet, batch: FieldBatch, asked: slice) -> int:
    """The field of some queries."""
    return int(np.searchsorted(fields.splits.numpy(), int(batch.rows[asked][0]), side="right")) - 1
