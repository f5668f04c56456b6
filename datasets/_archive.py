"""Read a ``.tar.gz`` of small files in memory; nothing from an archive is ever written to disk."""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from pathlib import Path, PurePosixPath

from ccnn_irregular._checks import reject, require

__all__ = ["read_archive"]

_BLOCK = 512  # tar stores everything in blocks of this many bytes and ends with two blocks of zeros
_LARGEST = 2**30  # bytes unpacked; a small file that unpacks to more is a mistake or an attack


def read_archive(path: Path) -> dict[str, bytes]:
    """Contents of all regular files of the archive.

    Returns:
        Member name (normalised, ``/`` between folders) -> bytes, in archive order. Folders are left out.

    Raises:
        ValueError: the archive is truncated or no ``.tar.gz``, unpacks to more than 1 GiB, holds a name twice, an
            absolute path, a ``..`` or anything but plain files and folders. All entries are checked before any is read.
    """
    unpacked = _gunzip(path)
    try:
        with tarfile.open(fileobj=io.BytesIO(unpacked), mode="r:") as archive:
            members = archive.getmembers()
            _require_safe(path, members)
            _require_complete(path, unpacked, members)
            files = [member for member in members if member.isfile()]
            return {_normal_name(member): _content(unpacked, member) for member in files}
    except tarfile.TarError as error:
        raise ValueError(f"{path} must be a complete .tar.gz archive, got a damaged one: {error}") from error


def _gunzip(path: Path) -> bytes:
    try:
        with gzip.open(path) as stream:
            unpacked = stream.read(_LARGEST + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} must be a complete .tar.gz archive, got a damaged one: {error}") from error
    require(len(unpacked) <= _LARGEST, str(path), f"unpack to at most {_LARGEST} bytes", "more")
    return unpacked


def _require_safe(path: Path, members: list[tarfile.TarInfo]) -> None:
    seen: set[str] = set()
    for member in members:
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
        reject(str(path), "be a complete .tar.gz archive", f"no end mark after {len(members)} entries")


def _content(unpacked: bytes, member: tarfile.TarInfo) -> bytes:
    return unpacked[member.offset_data : member.offset_data + member.size]


def _normal_name(member: tarfile.TarInfo) -> str:
    return str(PurePosixPath(member.name))
