"""A CSV table of files and their labels."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

from ccnn_irregular._checks import require
from ccnn_irregular._files import DamagedFileError
from ccnn_irregular.datasets.reading.csv_text import in_utf8, open_text
from ccnn_irregular.datasets.reading.files import missing_file

__all__ = ["read_labels"]

_NAMES_SHOWN = 3


def read_labels(
    root: Path, table: str, is_one: Callable[[Path], bool], kinds: str, *, labelled: bool = True
) -> tuple[list[str], list[str]]:
    """Names of files and their labels, checked before any of them is opened.

    Args:
        root: folder of the files and the table.
        table: CSV file with a header line and the columns ``file``, relative to ``root``, and ``label``.
        is_one: whether a path is of a kind that is read.
        kinds: what such a path is, for messages: "a scan".
        labelled: whether each file must have a label; else labels may be empty.

    Raises:
        FileNotFoundError: no such table, or a file that is not there.
        ValueError: another table, a file named twice or outside the folder, a label that is empty; with the line.
    """
    path = root / table
    if not path.is_file():
        raise missing_file(root, f"the table of labels {table}")
    try:
        with in_utf8(path), open_text(path) as file:
            reader = csv.DictReader(file)
            columns = list(reader.fieldnames or [])
            needed = {"file", "label"} if labelled else {"file"}
            require(needed <= set(columns), table, f"have the columns {' and '.join(sorted(needed))}", columns)
            rows = [((row["file"] or "").strip(), (row.get("label") or "").strip()) for row in reader]
    except csv.Error as error:
        raise DamagedFileError(f"{path} must be a CSV file, got {error}", path) from error
    require(len(rows) > 0, table, "name a file", "no row below the header")
    if labelled:
        lacking = [name for name, label in rows if name and not label]
        shown = ", ".join(lacking[:_NAMES_SHOWN]) + ", ..." * (len(lacking) > _NAMES_SHOWN)
        require(not lacking, table, "hold a label for each file", f"{len(lacking)} of {len(rows)} without: {shown}")
    seen: set[str] = set()
    for line, (name, label) in enumerate(rows, 2):
        where = f"line {line} of {table}"
        require(bool(name), where, "hold a file and a label", (name, label))
        inside = not Path(name).is_absolute() and ".." not in Path(name).parts
        require(inside, f"file on {where}", f"lie in the folder {root}", repr(name))
        require(name not in seen, f"file on {where}", "be named once", repr(name))
        seen.add(name)
        if not (root / name).exists():
            raise FileNotFoundError(f"file on {where} must exist in {root}, got {name}")
        require(is_one(root / name), f"file on {where}", f"be {kinds}", repr(name))
    return [name for name, _ in rows], [label for _, label in rows]
