"""Clouds of your own with a class each: a folder for each class, or a table of files and labels.

Files are read by :mod:`ccnn_irregular.datasets.cloud_files`. Each cloud is brought into the cube from -1 to 1: its
shape counts, and not its size or where it stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ccnn_irregular._checks import require
from ccnn_irregular.datasets.cloud_files import SUFFIXES, cloud_paths, open_cloud
from ccnn_irregular.datasets.reading.label_table import read_labels
from ccnn_irregular.datasets.registry import DataSet, register
from ccnn_irregular.datasets.samples import ShapePool

__all__ = ["load"]


def load(
    root: str | Path, table: str = "labels.csv", *, classes: Sequence[str] | None = None, labelled: bool = True
) -> ShapePool:
    """All clouds below a folder, in the order of their names, which are paths relative to it.

    Args:
        root: folder of the clouds; without labels a single file, too.
        table: CSV file in ``root`` with the columns ``file`` and ``label``. Where there is none, the folder in ``root``
            that a cloud lies in is its class.
        classes: the labels there may be, in the order of their numbers; None = those found, sorted.
        labelled: False reads all clouds without their classes: labels are -1.

    Raises:
        FileNotFoundError: no such folder, no clouds in it, or a file of the table that is not there.
        ValueError: a cloud that cannot be read or lies in no folder of a class; a table as ``read_labels`` refuses.
    """
    root = Path(root)
    base = root.parent if root.is_file() else root
    if labelled and (base / table).is_file():
        listed = read_labels(base, table, _is_cloud, f"a file that ends in one of {SUFFIXES}")
        pairs = sorted(zip(*listed, strict=True))  # in whatever order the table lists them
        names, words = [name for name, _ in pairs], [word for _, word in pairs]
    else:
        names = [path.relative_to(base).as_posix() for path in cloud_paths(root) if path != base / table]
        words = [_folder(name, root, table) for name in names] if labelled else []
    known = tuple(sorted(set(words))) if classes is None else tuple(classes)
    strange = [word for word in words if word not in known]
    require(not strange, f"labels of {root}", f"be among {', '.join(known)}", ", ".join(strange[:3]))
    labels = [known.index(word) for word in words] if labelled else [-1] * len(names)
    shapes = [_places(base / name) for name in names]
    return replace(ShapePool.of(shapes, torch.tensor(labels), known), names=tuple(names))


def _is_cloud(path: Path) -> bool:
    return path.is_file() and path.name.lower().endswith(SUFFIXES)


def _folder(name: str, root: Path, table: str) -> str:
    """The class of a cloud by the folder it lies in."""
    parts = Path(name).parts
    rule = f"lie in a folder of {root} named by its class, or {root} hold the table {table}"
    require(len(parts) > 1, f"the cloud {name}", rule, "one beside them")
    return parts[0]


def _places(path: Path) -> torch.Tensor:
    """Points that have a place, about their middle; in an order that follows from them: random draws number them."""
    places = open_cloud(path).coordinates
    places = places[np.isfinite(places).all(1)]
    places = places[np.lexsort(places.T)]
    require(len(places) > 0, str(path), "hold a point that has a place", "none")
    return torch.from_numpy(places - places.mean(0))


register(
    DataSet(
        name="cloud_folder",
        about="clouds of your own with a class each",
        load=load,
        samples=ShapePool,
        files=f"a folder for each class, or clouds and labels.csv of file and label: {', '.join(SUFFIXES)}",
        shape="points of a shape",
        size="of the files",
        licence="yours",
        source="yours",
    )
)
