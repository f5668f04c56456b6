"""What commands write beside figures: text, CSV and JSON, whole or not at all, and the versions a result depends on."""

from __future__ import annotations

import csv
import io
import json
import os
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = ["versions", "whole", "write_answers", "write_csv", "write_json", "write_text"]

_VERSIONED = ("ccnn-irregular", "torch", "lightning", "torchmetrics", "scikit-learn", "numpy")


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in _VERSIONED}


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary name to write a file to, renamed to ``path`` at the end: it is there whole or not at all.

    It lies beside ``path``, since a rename is one step only within a file system; its bytes are on the disk before the
    name is, so that a machine that goes down leaves one or the other; and a write that fails leaves nothing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        _flush(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write ``content`` (dataclasses allowed) as readable JSON."""
    write_text(path, json.dumps(content, indent=2, default=asdict) + "\n")


def write_csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write lines of a table under the names of its columns."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    write_text(path, table.getvalue())


def write_answers(
    path: Path,
    rows: Mapping[str, Sequence[Any]],
    prediction: Sequence[Any],
    probabilities: Mapping[str, Iterable[float]] | None = None,
    label: Sequence[Any] | None = None,
    deviation: Sequence[Any] | None = None,
) -> None:
    """Write the answers to rows, with the columns that they have in all tasks.

    Those are id, where and when a row is (time, x, y, z), label where it is known in a test, prediction, of a number
    its standard_deviation, and probability_NAME of each class.

    Args:
        path: of the CSV.
        rows: columns that tell which row it is, id first.
        prediction: class, or number.
        probabilities: of each class by its name.
        label: the truth; "" where it is not known.
        deviation: of numbers.
    """
    columns = {**rows, **({} if label is None else {"label": label}), "prediction": prediction}
    columns |= {} if deviation is None else {"standard_deviation": deviation}
    for name, chances in (probabilities or {}).items():
        columns[f"probability_{name}"] = [f"{chance:.6f}" for chance in chances]
    write_csv(path, list(columns), zip(*columns.values(), strict=True))
