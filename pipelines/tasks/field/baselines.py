"""Interpolants from SciPy and the textbook on the same observations, to be compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator

from ccnn_irregular.longitudes import GLOBE, on_circle, one_turn
from ccnn_irregular.pipelines.tasks.field.batch import FieldBatch
from ccnn_irregular.pipelines.tasks.field.kriging import FieldAxis

__all__ = ["BaselineName", "about_the_origin", "baseline_values", "baselines", "inverse_distance", "linear"]

Array = NDArray[np.float64]
Interpolant = Callable[[Array, Array, Array], Array]
BaselineName = Literal["linear", "inverse_distance"]

POWERS = (1, 2, 3, 4)
_EARTH = 6371.0  # kilometres
_PADDING = 60.0  # degrees of longitude repeated on both sides


def baselines(name: BaselineName, axes: Sequence[FieldAxis]) -> dict[str, Interpolant]:
    """Interpolants by name; each takes places ``(n, d)``, values ``(n, C)`` and queries ``(m, d)``."""
    if name == "inverse_distance":
        return {
            f"inverse distance, power {power}": partial(inverse_distance, axes=axes, power=power) for power in POWERS
        }
    found: dict[str, Interpolant] = {"linear": partial(linear, axes=axes)}
    if any(axis.kind == "plain" for axis in axes):
        raw = [FieldAxis(axis.name, axis.kind) for axis in axes]
        found["linear, axes scaled to their range"] = partial(linear, axes=raw, rescale=True)
    return found


def baseline_values(batches: Sequence[FieldBatch], name: BaselineName, axes: Sequence[FieldAxis]) -> dict[str, Array]:
    """Values of each interpolant at all queries ``(m, C)``."""
    parts: dict[str, list[Array]] = {}
    for method, interpolate in baselines(name, axes).items():
        for batch in batches:
            for seen, asked in batch.spans():
                places, queries = batch.observed.coordinates[seen].numpy(), batch.query.coordinates[asked].numpy()
                parts.setdefault(method, []).append(
                    _known_alone(interpolate, places, batch.values[seen].numpy(), queries)
                )
    return {method: np.concatenate(values) for method, values in parts.items()}


def _known_alone(interpolate: Interpolant, places: Array, values: Array, queries: Array) -> Array:
    """The interpolant from the places where each channel is known, nan where none is."""
    known = ~np.isnan(values)
    if known.all():
        return interpolate(places, values, queries)
    columns = [
        interpolate(places[known_rows], values[known_rows, channel : channel + 1], queries)
        if known_rows.any()
        else np.full((len(queries), 1), np.nan)
        for channel, known_rows in enumerate(known.T)
    ]
    return np.concatenate(columns, 1)


def linear(places: Array, values: Array, queries: Array, axes: Sequence[FieldAxis], *, rescale: bool = False) -> Array:
    """Linear on a Delaunay triangulation, nearest neighbour outside its hull; longitudes go around the globe.

    Args:
        places: ``(n, d)``.
        values: ``(n, C)``.
        queries: ``(m, d)``.
        axes: their units and logarithms decide which triangles there are.
        rescale: scale every axis to the range of the places first.
    """
    places, queries = about_the_origin(_scaled(places, axes), _scaled(queries, axes))
    for column, axis in enumerate(axes):
        if axis.kind == "longitude":
            turn = one_turn(places[:, column])
            middle = float(turn.degrees.min() + turn.degrees.max()) / 2
            places, queries = places.copy(), queries.copy()
            places[:, column], queries[:, column] = turn.degrees, on_circle(queries[:, column], middle)
            around = np.eye(len(axes))[column] * GLOBE
            copies = [(places, values), (places + around, values), (places - around, values)]
            low, high = places[:, column].min() - _PADDING, places[:, column].max() + _PADDING
            places, values = (np.concatenate(parts) for parts in zip(*copies, strict=True))
            inside = (places[:, column] >= low) & (places[:, column] <= high)
            places, values = places[inside], values[inside]
    result = NearestNDInterpolator(places, values, rescale=rescale)(queries)
    if len(places) > len(axes) + 1:
        between = LinearNDInterpolator(places, values, rescale=rescale)(queries)
        result = np.where(np.isnan(between), result, between)
    return result


def about_the_origin(*places: Array) -> tuple[Array, ...]:
    """Places ``(n, d)``, all moved alike so that the middle of the first ones lies at the origin, in float64.

    For everything that triangulates: Qhull measures rounding by the largest coordinate, and leaves out what lies closer
    together than that, without an error. Of points about 1 m apart at UTM coordinates 15 % are left out in two
    dimensions, and 56 % in three.
    """
    first = places[0].astype(np.float64)
    middle = (first.min(0) + first.max(0)) / 2 if len(first) else 0.0
    return tuple(array.astype(np.float64) - middle for array in places)


def inverse_distance(places: Array, values: Array, queries: Array, axes: Sequence[FieldAxis], power: float) -> Array:
    """All observations weighted by distance to the power ``-power`` (Shepard 1968); great circles on the sphere."""
    distance = _distances(places, queries, axes)
    weights = np.maximum(distance, 1e-9) ** -power
    return weights @ values / weights.sum(1, keepdims=True)


def _distances(places: Array, queries: Array, axes: Sequence[FieldAxis]) -> Array:
    kinds = [axis.kind for axis in axes]
    if kinds == ["latitude", "longitude"]:
        (latitude, longitude), (north, east) = np.radians(places.T), np.radians(queries.T)
        half = np.sin((north[:, None] - latitude) / 2) ** 2
        half += np.cos(north)[:, None] * np.cos(latitude) * np.sin((east[:, None] - longitude) / 2) ** 2
        return 2 * _EARTH * np.arcsin(np.sqrt(half.clip(0, 1)))
    difference = _scaled(queries, axes)[:, None] - _scaled(places, axes)
    return np.sqrt((difference**2).sum(2))


def _scaled(places: Array, axes: Sequence[FieldAxis]) -> Array:
    columns = [axis.scaled(torch.from_numpy(column)) for axis, column in zip(axes, places.T, strict=True)]
    return torch.stack(columns, 1).numpy()
