"""Clouds read from files for training and tests: values, labels, weights; overlapping pieces of large ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from ccnn_irregular._checks import require
from ccnn_irregular.adapters.geometric_weights import CloudSampling

__all__ = ["Piece", "ReadCloud", "measures", "pieces", "strips"]

_NEIGHBOURS = 16
# Of the part of a piece that is answered, and of what is read beside it, in radii of the discs of training.
_CORE, _MARGIN = 6.0, 1.0
# Rows of a search at once.
_ROWS = 1_000_000


@dataclass(frozen=True)
class ReadCloud:
    """The points of a file that have a place.

    Attributes:
        name: of the file, for readers.
        places: float64 ``(M, 3)``, from the middle of the file.
        values: float32 ``(M, C)``.
        labels: int64 ``(M,)``.
        weights: float64 ``(M,)``, quadrature weights.
        keys: uint64 ``(M,)``, by which each point is known again.
    """

    name: str
    places: NDArray[np.float64]
    values: NDArray[np.float32]
    labels: NDArray[np.int64]
    weights: NDArray[np.float64]
    keys: NDArray[np.uint64]

    def rows(self, chosen: NDArray[Any]) -> ReadCloud:
        """Some of the points."""
        columns = ("places", "values", "labels", "weights", "keys")
        return replace(self, **{name: getattr(self, name)[chosen] for name in columns})


@dataclass(frozen=True)
class Piece:
    """A part of a cloud that is read at once.

    Attributes:
        read: int64 ``(n,)``, rows of the points that are read.
        answered: bool ``(n,)``, those that are answered here and in no other piece.
    """

    read: NDArray[np.int64]
    answered: NDArray[np.bool_]


def pieces(places: NDArray[np.float64], radius: float) -> Iterator[Piece]:
    """Overlapping pieces of a cloud; each point is answered in the one it is most inside.

    Pieces are squares seen from above with a margin of ``radius`` on all sides, so that what is read at once is as
    large whatever the size of the cloud. A small cloud is one piece.

    Args:
        places: ``(N, 3)``.
        radius: of the discs of training.
    """
    core, margin = _CORE * radius, _MARGIN * radius
    low, high = places[:, :2].min(0), places[:, :2].max(0)
    if (high - low).max() <= core + 2 * margin:
        yield Piece(np.arange(len(places)), np.ones(len(places), bool))
        return
    counts = np.maximum(np.ceil((high - low) / core).astype(np.int64), 1)
    edge = np.maximum((high - low) / counts, margin)  # of the squares, all alike
    cell = np.minimum(((places[:, :2] - low) / edge).astype(np.int64), counts - 1)
    number = cell[:, 0] * counts[1] + cell[:, 1]
    order = np.argsort(number, kind="stable")
    ends = np.searchsorted(number[order], np.arange(counts.prod() + 1))
    for square in np.flatnonzero(np.diff(ends)):
        column, line = divmod(int(square), int(counts[1]))
        columns = range(max(column - 1, 0), min(column + 2, int(counts[0])))
        first, last = max(line - 1, 0), min(line + 2, int(counts[1]))
        near = np.concatenate([order[ends[c * counts[1] + first] : ends[c * counts[1] + last]] for c in columns])
        begin = low + edge * (column, line)
        inside = (places[near, :2] >= begin - margin) & (places[near, :2] <= begin + edge + margin)
        read = np.sort(near[inside.all(1)])
        yield Piece(read, number[read] == square)


def measures(places: NDArray[np.float64], sampling: CloudSampling) -> NDArray[np.float64]:
    """The area, or of a "volume" the volume, that each point stands for, ``(N,)``.

    That of the disc, or the ball, which reaches the 16th neighbour, over 16. It does not depend on points farther
    away: a piece weighs what it weighs in the whole cloud. Points at one place share its measure; "even" gives all
    points the mean.
    """
    sites, site, repeats = np.unique(places, axis=0, return_inverse=True, return_counts=True)
    nearest = min(_NEIGHBOURS, len(sites) - 1)
    if nearest == 0:
        return np.full(len(places), 1 / len(places))
    tree = cKDTree(sites)
    parts = np.array_split(sites, -(-len(sites) // _ROWS))
    reach = np.concatenate([tree.query(part, [nearest + 1])[0][:, 0] for part in parts])
    measure = 4 / 3 * np.pi * reach**3 if sampling == "volume" else np.pi * reach**2
    each = (measure / nearest / repeats)[site.reshape(-1)]
    return np.full_like(each, each.mean()) if sampling == "even" else each


def strips(cloud: ReadCloud, validation: float, test: float) -> dict[str, ReadCloud]:
    """Three strips of a cloud along its longer side: to train on, to validate with, to test on at the far end."""
    along = cloud.places[:, int(np.argmax(np.ptp(cloud.places[:, :2], axis=0)))]
    first, second = np.quantile(along, [1 - test - validation, 1 - test])
    require(first < second < along.max(), f"{cloud.name}", "be larger than a point to be cut into parts", len(along))
    return {
        "train": cloud.rows(along < first),
        "validation": cloud.rows((along >= first) & (along < second)),
        "test": cloud.rows(along >= second),
    }
