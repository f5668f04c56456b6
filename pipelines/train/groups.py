"""Samples that belong together, such as the volumes of one subject: a file that tells, and parts that keep them so."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ccnn_irregular._checks import require
from ccnn_irregular.datasets.reading.csv_text import in_utf8, open_text

__all__ = ["parts_by_group", "read_groups"]

_COLUMNS = ["name", "group"]
_SHOWN = 3


def read_groups(path: str | Path, names: Sequence[str]) -> list[str]:
    """The group of each sample, from a CSV file with the columns ``name`` and ``group``.

    Args:
        path: of the file; lines of other names are passed over.
        names: of the samples.

    Raises:
        FileNotFoundError: no such file.
        ValueError: other columns, a name that stands there twice, without a group or not at all.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"groups must be an existing CSV file of the columns name and group, got {path}")
    with in_utf8(Path(path)), open_text(Path(path)) as file:
        reader = csv.DictReader(file)
        require(reader.fieldnames == _COLUMNS, f"the first line of {path}", "be name,group", reader.fieldnames)
        found: dict[str, str] = {}
        for row in reader:
            where = f"{path} line {reader.line_num}"
            require(row["name"] not in found, where, "name a sample that no line before it names", repr(row["name"]))
            require(bool(row["group"]) and None not in row, where, "hold a name and a group", dict(row))
            found[row["name"]] = row["group"]
    lacking = [name for name in names if name not in found]
    shown = ", ".join(lacking[:_SHOWN]) + (", ..." if len(lacking) > _SHOWN else "")
    require(not lacking, str(path), "name the group of every sample", f"none for {shown}")
    return [found[name] for name in names]


def parts_by_group(groups: Sequence[str], sizes: Sequence[int], seed: int) -> list[NDArray[np.int64]]:
    """Samples in parts at random, those of one group in one part; the last part is what is left.

    Args:
        groups: of each sample.
        sizes: samples of each part but the last one, at least: a group is not divided.
        seed: of the order of the groups.

    Returns:
        rising rows of each part.
    """
    distinct = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    group = np.array([distinct[group] for group in groups])
    counts, part_of = np.bincount(group), np.empty(len(distinct), np.int64)
    part, filled = 0, 0
    for one in np.random.default_rng(seed).permutation(len(distinct)):
        while part < len(sizes) and filled >= sizes[part]:
            part, filled = part + 1, 0
        part_of[one] = part
        filled += counts[one]
    return [np.flatnonzero(part_of[group] == part) for part in range(len(sizes) + 1)]
