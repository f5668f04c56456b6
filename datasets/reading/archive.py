"""Read files of a ``.tar.gz`` in memory; nothing from an archive is ever written to disk."""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO, cast

from ccnn_irregular._checks import require
from ccnn_irregular._files import parsing, refuse_file

__all__ = ["read_archive", "read_members"]

_WHAT = ".tar.gz archive"
# What its parsers raise at damaged bytes; the last four are tarfile's where a header tells nonsense.
_BROKEN = (EOFError, zlib.error, gzip.BadGzipFile, tarfile.TarError, ValueError, KeyError, IndexError, OverflowError)
_BLOCK = 512  # tar stores everything in blocks of this many bytes and ends with two blocks of zeros
_LARGEST = 2**30  # bytes unpacked; a small file that unpacks to more is a mistake or an attack
_LARGEST_SELECTION = 2**32  # bytes of all members that are kept from a large archive


def read_archive(path: Path) -> dict[str, bytes]:
    """Contents of all regular files of the archive.

    Returns:
        Member name (normalised, ``/`` between folders) -> bytes, in archive order. Folders are left out.

    Raises:
        ValueError: the archive is truncated or no ``.tar.gz``, unpacks to more than 1 GiB, holds a name twice, an
            absolute path, a ``..`` or anything but plain files and folders. All entries are checked before any is read.
    """
    unpacked = _gunzip(path)
    with parsing(path, _WHAT):
        archive = tarfile.open(fileobj=io.BytesIO(unpacked), mode="r:")  # noqa: SIM115  (closed below)
    with archive:
        with parsing(path, _WHAT):
            members = archive.getmembers()
        _require_safe(path, members)
        _require_complete(path, unpacked, members)
        return {_normal_name(member): _content(unpacked, member) for member in members if member.isfile()}


def read_members(path: Path, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """Contents of the regular files whose normalised name is ``wanted``, in archive order.

    The archive is unpacked once from front to end, and only what is wanted is held: for archives that do not fit into
    memory. Every entry is checked before it is read.

    Raises:
        ValueError: as :func:`read_archive`, with a limit of 4 GiB for the files that are kept.
    """
    contents: dict[str, bytes] = {}
    seen: set[str] = set()
    total = 0
    try:
        with gzip.open(path) as stream:
            watched = _Watched(stream)
            with tarfile.open(fileobj=cast("IO[bytes]", watched), mode="r|") as archive:
                for member in archive:
                    _require_safe_entry(path, member, seen)
                    name = _normal_name(member)
                    if not member.isfile() or not wanted(name):
                        continue
                    total += member.size
                    require(total <= _LARGEST_SELECTION, str(path), f"hold {_LARGEST_SELECTION} bytes at most", total)
                    file = archive.extractfile(member)
                    assert file is not None
                    contents[name] = file.read()
                rest = watched.rest_from(archive.offset)
    except _BROKEN as error:
        refuse_file(path, f"be a complete {_WHAT}", f"a damaged one: {error}")
    if len(rest) < 2 * _BLOCK or rest.strip(b"\0"):
        refuse_file(path, f"be a complete {_WHAT}", f"no end mark after {len(seen)} entries")
    return contents


class _Watched:
    """A stream that remembers its last pieces: ``tarfile`` stops silently at a broken header, as at the end."""

    def __init__(self, stream: gzip.GzipFile) -> None:
        self._stream = stream
        self._kept = b""
        self._position = 0

    def read(self, size: int) -> bytes:
        piece = self._stream.read(size)
        self._kept = self._kept[-len(piece) :] + piece
        self._position += len(piece)
        return piece

    def rest_from(self, offset: int) -> bytes:
        """Enough of what follows ``offset`` to see if it is all zeros; reads to the end, where gzip checks its sum."""
        rest = self._kept[max(0, len(self._kept) - (self._position - offset)) :]
        while piece := self._stream.read(2**20):
            rest += piece if len(rest) < 2 * _BLOCK else piece.strip(b"\0")[:1]
        return rest


def _gunzip(path: Path) -> bytes:
    with parsing(path, _WHAT), gzip.open(path) as stream:
        unpacked = stream.read(_LARGEST + 1)
    require(len(unpacked) <= _LARGEST, str(path), f"unpack to at most {_LARGEST} bytes", "more")
    return unpacked


def _require_safe(path: Path, members: list[tarfile.TarInfo]) -> None:
    seen: set[str] = set()
    for member in members:
        _require_safe_entry(path, member, seen)


def _require_safe_entry(path: Path, member: tarfile.TarInfo, seen: set[str]) -> None:
    """Check one entry and add its name to those ``seen``."""
    name = PurePosixPath(member.name)
    plain = (member.isreg() and not member.issparse()) or member.isdir()
    require(plain, str(path), "hold plain files and folders only", f"entry {member.name!r} of another type")
    # Backslashes and drive letters are paths on Windows.
    outside = name.is_absolute() or ".." in name.parts or "\\" in member.name or ":" in member.name
    require(not outside, str(path), "hold relative paths without '..'", f"entry {member.name!r}")
    repeated = member.isfile() and _normal_name(member) in seen
    require(not repeated, str(path), "hold every file once", f"entry {member.name!r} twice")
    seen.add(_normal_name(member))


def _require_complete(path: Path, unpacked: bytes, members: list[tarfile.TarInfo]) -> None:
    """``tarfile`` stops silently at a broken header, so look at what follows the last member."""
    end = max((member.offset_data + -(-member.size // _BLOCK) * _BLOCK for member in members), default=0)
    tail = unpacked[end:]
    if len(tail) < 2 * _BLOCK or tail.strip(b"\0"):
        refuse_file(path, f"be a complete {_WHAT}", f"no end mark after {len(members)} entries")


def _content(unpacked: bytes, member: tarfile.TarInfo) -> bytes:
    return unpacked[member.offset_data : member.offset_data + member.size]


def _normal_name(member: tarfile.TarInfo) -> str:
    return str(PurePosixPath(member.name))
