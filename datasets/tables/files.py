"""Files of tables, a million rows at a time: CSV of any delimiter, compressed or not, and Parquet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ccnn_irregular._checks import require
from ccnn_irregular._files import parsing
from ccnn_irregular._optional import import_optional
from ccnn_irregular.datasets.reading.csv_text import csv_layout, in_utf8

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["chunks", "table_files", "whole_table"]

_ROWS = 1_000_000
_CSV = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt", ".psv")
_PARQUET = (".parquet", ".pq")
# Which columns hold words and codes, from the names of all: "001" is not the number 1.
Words = Callable[[Sequence[str]], Sequence[str | None]]


def table_files(paths: str | Path | Sequence[str | Path], suffixes: Sequence[str] = (*_CSV, *_PARQUET)) -> list[Path]:
    """The files that paths name, those of folders sorted by name; hidden ones are none.

    Raises:
        FileNotFoundError: a path that is not there.
        ValueError: a folder without a file of these kinds.
    """
    files: list[Path] = []
    for path in map(Path, [paths] if isinstance(paths, str | Path) else paths):
        if not path.exists():
            raise FileNotFoundError(f"tables must be files or folders that exist, got {path}")
        inside = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
        found = [file for file in inside if file == path or _readable(file, suffixes)]
        require(len(found) > 0, f"folder {path}", f"hold files that end with {', '.join(suffixes)}", "none")
        files += found
    return files


def _readable(path: Path, suffixes: Sequence[str]) -> bool:
    return path.name.lower().endswith(tuple(suffixes)) and not path.name.startswith((".", "_"))


def chunks(path: Path, words: Words, only: Words | None = None, decimal: str = ".") -> Iterator[pd.DataFrame]:
    """The rows of a file in their order.

    Args:
        path: a file.
        words: columns that stay text in a CSV file.
        only: columns to read; None = all.
        decimal: sign of the fractions in CSV files.

    Raises:
        ValueError: no table, with the file.
    """
    frames = _parquet(path, only) if path.name.lower().endswith(_PARQUET) else _csv(path, words, only, decimal)
    while (frame := _next(path, frames)) is not None:
        yield frame


def whole_table(paths: str | Path | Sequence[str | Path], words: Words, decimal: str = ".") -> pd.DataFrame:
    """All rows of small tables."""
    import pandas as pd

    frames = [frame for file in table_files(paths) for frame in chunks(file, words, decimal=decimal)]
    return pd.concat(frames, ignore_index=True)


def _next(path: Path, frames: Iterator[pd.DataFrame]) -> pd.DataFrame | None:
    """The next rows; errors of who works on them between two calls are not those of the file."""
    with parsing(path, "table in CSV or Parquet"), in_utf8(path):
        return next(frames, None)


def _csv(path: Path, words: Words, only: Words | None, decimal: str) -> Iterator[pd.DataFrame]:
    import pandas as pd

    layout = csv_layout(path) | {"decimal": decimal}
    names = [str(name) for name in pd.read_csv(path, nrows=0, **layout).columns]
    kept = names if only is None else [name for name in only(names) if name is not None]
    kinds = {name: "category" for name in words(names) if name is not None}
    yield from pd.read_csv(path, chunksize=_ROWS, usecols=kept, dtype=kinds, low_memory=False, **layout)


def _parquet(path: Path, only: Words | None) -> Iterator[pd.DataFrame]:
    file = import_optional("pyarrow.parquet", "reading Parquet", "formats").ParquetFile(path)
    names = list(file.schema_arrow.names)
    kept = names if only is None else [name for name in only(names) if name is not None]
    for batch in file.iter_batches(_ROWS, columns=kept):
        yield batch.to_pandas()
