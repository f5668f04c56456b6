"""What every reader of clouds returns: coordinates, fields by name, and a way to save a copy with more fields."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ccnn_irregular._checks import reject, require

__all__ = ["ASPRS", "CloudFile", "Columns", "extended", "fields_of", "with_columns"]

# A name of the kind that ASPRS lists in its LAS specification 1.4, table 17 -> its code.
ASPRS = {
    "never classified": 0,
    "unclassified": 1,
    "ground": 2,
    "low vegetation": 3,
    "medium vegetation": 4,
    "high vegetation": 5,
    "building": 6,
    "low noise": 7,
    "key point": 8,
    "water": 9,
    "rail": 10,
    "road": 11,
    "wire guard": 13,
    "wire conductor": 14,
    "transmission tower": 15,
    "wire connector": 16,
    "bridge": 17,
    "high noise": 18,
}

Columns = Mapping[str, NDArray[Any]]

# What programs put before the name of a field, and other names of one field.
_PREFIX = "scalar_"
_SAME = {"normal_x": "nx", "normal_y": "ny", "normal_z": "nz", "r": "red", "g": "green", "b": "blue"}


@dataclass(frozen=True, kw_only=True)
class CloudFile:
    """A cloud as its file holds it.

    Attributes:
        path: of the file.
        coordinates: float64 ``(N, 3)``, the third axis upwards; nan where an organised cloud has no point.
        fields: by their name in small letters, what reads one field ``(N,)`` in the dtype of the file.
        words: a field may hold words.
        copy: writes to a stream the file with fields of ``(N,)`` added and, where the format has room, a line of text.
        copy_name: name of the file that ``copy`` writes: that of the file; of COPC, whose index is left out, of a LAZ.
    """

    path: Path
    coordinates: NDArray[np.float64]
    fields: Mapping[str, Callable[[], NDArray[Any]]]
    copy: Callable[[BinaryIO, Columns, str], None]
    words: bool = False
    copy_name: str

    def field(self, name: str) -> NDArray[Any]:
        """A field by its name, ``(N,)``.

        Raises:
            ValueError: the file has no such field; with those it has.
        """
        if name.lower() not in self.fields:
            reject(f"{self.path}", f"hold a field {name!r}", ", ".join(self.fields) or "coordinates alone")
        return self.fields[name.lower()]()

    def save(self, stream: BinaryIO, columns: Columns, note: str) -> None:
        """Write the cloud in its own format, points and coordinates as they are, with ``columns`` added.

        Args:
            stream: to write to.
            columns: by name, ``(N,)`` each: integers, floating-point numbers, or words where the format has them.
            note: a line of text, for formats that have room for one.

        Raises:
            ValueError: a field of that name is there already.
        """
        taken = [name for name in columns if name.lower() in self.fields]
        require(not taken, f"new fields of {self.path}", "have names that are free", ", ".join(taken))
        self.copy(stream, columns, note)


def fields_of(
    names: Iterable[str], column: Callable[[str], NDArray[Any]], others: Sequence[str] = ()
) -> dict[str, Callable[[], NDArray[Any]]]:
    """Readers of fields by plain names: small letters, without what programs put before them.

    Args:
        names: in the file.
        column: reads one.
        others: names that are no fields, the coordinates.
    """
    fields: dict[str, Callable[[], NDArray[Any]]] = {}
    for name in names:
        if name in others:
            continue
        short = name.lower().removeprefix(_PREFIX)
        short = _SAME.get(short, short)
        fields[name.lower() if short in fields else short] = lambda name=name: np.asarray(column(name))  # type: ignore[misc]
    return fields


def extended(table: NDArray[Any], columns: Columns) -> NDArray[Any]:
    """A structured array with further columns."""
    kinds = [(name, table.dtype[name]) for name in table.dtype.names or ()]
    result = np.empty(len(table), kinds + [(name, values.dtype) for name, values in columns.items()])
    for name, _ in kinds:
        result[name] = table[name]
    for name, values in columns.items():
        result[name] = values
    return result


def with_columns(lines: Sequence[str], columns: Columns, separator: str) -> bytes:
    """Lines of a text, one for each point, as they are but for columns at their ends; numbers with all their digits."""
    words = [values.astype(str).tolist() for values in columns.values()]
    text = "\n".join(separator.join(line) for line in zip(lines, *words, strict=True))
    return f"{text}\n".encode()
