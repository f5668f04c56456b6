"""Check that a classic netCDF file agrees with its header. Such files have no checksum.

Format: the NetCDF Classic Format Specification of the netCDF User's Guide.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn, final

from ccnn_irregular._checks import reject

__all__ = ["require_whole_classic"]

_DIMENSIONS, _VARIABLES, _ATTRIBUTES = 10, 11, 12
# Bytes of byte, char, short, int, float and double.
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 8}
_STREAMING = 2**32 - 1
# Sizes that do not fit into four bytes are written as this one.
_TOO_LARGE = 2**32 - 1
# Bytes after the last value that are looked at.
_TAIL = 1 << 16


def require_whole_classic(path: Path) -> None:
    """Refuse a file whose header is damaged, or describes other values than the file holds.

    Raises:
        ValueError: see above, with what is wrong.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        header = _Header(path, stream, size)
        last = header.last_value()
        stream.seek(last)
        # Values are padded to four bytes.
        rest = stream.read(_TAIL)[3:].strip(b"\0")
    if rest:
        _refuse(path, f"a header that ends {size - last} bytes before the file does")


def _refuse(path: Path, what: str) -> NoReturn:
    reject(str(path), "be a complete netCDF file", f"a damaged one: {what}")


@final
@dataclass(frozen=True)
class _Variable:
    """Where values lie.

    Attributes:
        begin: first byte.
        size: bytes, of one record where it has records.
        records: whether its first dimension is the unlimited one.
    """

    begin: int
    size: int
    records: bool


@final
class _Header:
    """What the header says, read from the start of the file."""

    def __init__(self, path: Path, stream: BinaryIO, size: int) -> None:
        self.path, self._stream, self._size = path, stream, size
        self._wide = stream.read(4)[3:] == b"\x02"
        self.records = self._number()
        self.dimensions = [(self._name("a dimension"), self._number())[1] for _ in range(self._count(_DIMENSIONS))]
        self._attributes()
        count = self._count(_VARIABLES)
        if count == 0:
            _refuse(path, "a header without variables")
        self.variables = [self._variable() for _ in range(count)]
        self.end = stream.tell()

    def last_value(self) -> int:
        """Return the position of the byte after the last value.

        Raises:
            ValueError: values that overlap the header or lie beyond the end of the file, another number of records
                than the file holds.
        """
        if min(variable.begin for variable in self.variables) < self.end:
            _refuse(self.path, "values that begin within the header")
        last = max((variable.begin + variable.size for variable in self.variables if not variable.records), default=0)
        recorded = [variable for variable in self.variables if variable.records]
        if recorded:
            step = recorded[0].size if len(recorded) == 1 else sum(_padded(variable.size) for variable in recorded)
            begin = min(variable.begin for variable in recorded)
            if self.records == _STREAMING:
                _refuse(self.path, "a number of records that was left open")
            if step and begin + (self.records + 1) * step <= self._size:
                held = (self._size - begin) // step
                _refuse(self.path, f"a header of {self.records} records, where the file holds {held}")
            ends = [variable.begin + (self.records - 1) * step + variable.size for variable in recorded if self.records]
            last = max(last, *ends, 0)
        if last > self._size:
            _refuse(self.path, f"one cut short, {self._size} of {last} bytes")
        return last

    def _bytes(self, count: int) -> bytes:
        found = self._stream.read(count) if count <= self._size else b""
        if len(found) < count:
            _refuse(self.path, "a header that is cut short")
        return found

    def _number(self) -> int:
        return int.from_bytes(self._bytes(4), "big")

    def _count(self, tag: int) -> int:
        """Entries of a list."""
        found, count = self._number(), self._number()
        if found != tag and (found, count) != (0, 0):
            _refuse(self.path, f"a list in the header that begins with {found} in place of {tag}")
        return count

    def _name(self, what: str) -> str:
        count = self._number()
        try:
            name = self._bytes(_padded(count))[:count].decode("utf-8")
        except UnicodeDecodeError:
            name = ""
        if not name or not name.isprintable():
            _refuse(self.path, f"a header in which {what} has no readable name")
        return name

    def _type_bytes(self, name: str) -> int:
        kind = self._number()
        if kind not in _TYPE_BYTES:
            _refuse(self.path, f"a header in which {name!r} is of the unknown type {kind}")
        return _TYPE_BYTES[kind]

    def _attributes(self) -> None:
        for _ in range(self._count(_ATTRIBUTES)):
            name = self._name("an attribute")
            size = self._type_bytes(name)
            self._bytes(_padded(size * self._number()))

    def _variable(self) -> _Variable:
        name = self._name("a variable")
        places = [self._number() for _ in range(min(self._number(), self._size))]
        if any(place >= len(self.dimensions) for place in places):
            _refuse(self.path, f"a header in which {name!r} has a dimension that is not there")
        shape = [self.dimensions[place] for place in places]
        self._attributes()
        records = bool(shape) and shape[0] == 0
        size = math.prod(shape[1:] if records else shape) * self._type_bytes(name)
        written = self._number()
        begin = int.from_bytes(self._bytes(8 if self._wide else 4), "big")
        # Some writers leave out the padding of a single variable of records.
        if written not in (_padded(size), size, _TOO_LARGE) and size < _TOO_LARGE:
            _refuse(self.path, f"a header in which {name!r} has {written} bytes where its shape has {size}")
        return _Variable(begin, size, records)


def _padded(size: int) -> int:
    return -(-size // 4) * 4
