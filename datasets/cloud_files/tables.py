"""Tables with a header line (CSV, TXT) by pandas, and arrays of ``.npz``."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd

from ccnn_irregular._checks import reject, require
from ccnn_irregular._files import parsing
from ccnn_irregular.datasets.cloud_files.cloud_file import CloudFile, Columns, fields_of, with_columns
from ccnn_irregular.datasets.reading.csv_text import ENCODING, in_utf8, open_text
from ccnn_irregular.datasets.reading.files import read_npz
from ccnn_irregular.datasets.reading.numbers import number_in

__all__ = ["TEXTS", "holds_points", "open_npz", "open_table"]

TEXTS = (".csv", ".csv.gz", ".txt")
"""Ends of the names of tables."""

_SEPARATORS = (",", ";", "\t")
# Names of an array (N, 3) of positions, and what the columns of other arrays are called.
_PLACES = ("xyz", "pos", "points", "coordinates")
_COLUMNS = {
    **dict.fromkeys(("rgb", "color", "colour", "colors", "colours"), ("red", "green", "blue")),
    **dict.fromkeys(("normal", "normals"), ("nx", "ny", "nz")),
}


def open_table(path: Path) -> CloudFile:
    """A table of x, y, z and further columns under a line of their names, separated by , ; tabs or blanks.

    A copy holds the lines of the file with columns added: what stands in them is not written anew.
    """
    packed = path.name.lower().endswith(".gz")
    with parsing(path, "table of points"), in_utf8(path), open_text(path) as stream:
        lines = [line for line in stream.read().splitlines() if line.strip()]
    require(bool(lines), f"{path}", "hold a line of names and points", "an empty file")
    separator, names = _names(lines[0])
    if _are_numbers(names):
        reject(f"first line of {path}", "name the columns, such as x,y,z,label", repr(lines[0][:80]))
    axes = [next((name for name in names if name.lower() == axis), None) for axis in "xyz"]
    if None in axes:
        reject(f"first line of {path}", "name the columns x, y and z", ", ".join(names))
    frame = _frame(path, separator, names)
    require(len(frame) == len(lines) - 1, f"{path}", "hold one point on each line", f"{len(frame)} in {len(lines)}")
    for axis in axes:
        numbers = frame[axis].dtype.kind in "iuf" or frame.empty
        require(numbers, f"column {axis} of {path}", "hold numbers", frame[axis].head(1).tolist())

    def copy(stream: BinaryIO, columns: Columns, note: str) -> None:
        head = f"{separator.join([lines[0], *columns])}\n".encode()
        data = head + with_columns(lines[1:], columns, separator)
        stream.write(gzip.compress(data) if packed else data)

    return CloudFile(
        path=path,
        coordinates=np.ascontiguousarray(frame[axes].to_numpy(np.float64)),
        fields=fields_of(names, lambda name: frame[name].to_numpy(), tuple(map(str, axes))),
        copy=copy,
        words=True,
        copy_name=path.name,
    )


def _frame(path: Path, separator: str, names: list[str]) -> pd.DataFrame:
    """The rows below the line of names."""
    with parsing(path, "table with a line of names"):
        return pd.read_csv(
            path,
            sep=r"\s+" if separator == " " else separator,
            names=names,
            skiprows=1,
            index_col=False,
            compression="gzip" if path.name.lower().endswith(".gz") else None,
            encoding=ENCODING,
            float_precision="round_trip",
            keep_default_na=False,  # "NA" may be the name of a class
            na_values=["", "nan", "NaN"],
        )


def holds_points(path: Path) -> bool:
    """Whether the first line of a text names x, y and z, or is numbers: points whose columns are yet to be named."""
    with open_text(path) as stream:
        try:
            line = next((line for line in stream if line.strip()), "")
        except (UnicodeDecodeError, OSError):
            return True  # damaged: the reader says how
    names = _names(line)[1]
    return {"x", "y", "z"} <= {name.lower() for name in names} or _are_numbers(names)


def _names(line: str) -> tuple[str, list[str]]:
    """The separator of a table, and the words of a line of it."""
    separator = next((separator for separator in _SEPARATORS if separator in line), " ")
    words = line.lstrip("/# ").strip().split(None if separator == " " else separator)
    return separator, [word.strip().strip('"') for word in words]


def _are_numbers(words: list[str]) -> bool:
    return bool(words) and None not in map(number_in, words)


def open_npz(path: Path) -> CloudFile:
    """Arrays of one row for each point: xyz, pos, points or coordinates ``(N, 3)``, and fields of ``(N,)`` or more."""
    arrays = read_npz(path)
    place = next((name for name in _PLACES if name in arrays), None)
    if place is None:
        reject(f"{path}", f"hold positions (N, 3) as {', '.join(_PLACES)}", ", ".join(arrays))
    places = arrays[place]
    require(places.ndim == 2 and places.shape[1] == 3, f"{place} of {path}", "have shape (N, 3)", places.shape)
    columns = {}
    for name, values in sorted(arrays.items()):
        if name == place or values.shape[:1] != places.shape[:1]:
            continue
        if values.ndim == 1:
            columns[name] = values
        elif values.ndim == 2:
            parts = _COLUMNS.get(name.lower(), tuple(f"{name}_{number}" for number in range(values.shape[1])))
            columns |= dict(zip(parts, values.T, strict=False))

    def copy(stream: BinaryIO, added: Columns, note: str) -> None:
        np.savez(stream, allow_pickle=False, **{**arrays, **added, "written_by": np.array(note)})

    return CloudFile(
        path=path,
        coordinates=places.astype(np.float64),
        fields=fields_of(columns, columns.__getitem__),
        copy=copy,
        words=True,
        copy_name=path.name,
    )
