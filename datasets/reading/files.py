"""Finding and reading the files of a data set, with errors that name the file and what is wrong with it."""

from __future__ import annotations

import gzip
import math
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from ccnn_irregular._checks import reject, require
from ccnn_irregular._files import LARGE, SUSPECT, DamagedFileError, parsing, refuse_file, require_unfolds
from ccnn_irregular.datasets.reading.archive import read_members

__all__ = [
    "existing_folder",
    "labels_in_range",
    "missing_file",
    "one_of",
    "read_each",
    "read_gzip",
    "read_npz",
    "read_packed_or_unpacked",
]

_NAMES_SHOWN = 5
_DAMAGED_SHOWN = 3
Item = TypeVar("Item")
Content = TypeVar("Content")


def existing_folder(root: str | Path) -> Path:
    """``root`` as a path.

    Raises:
        FileNotFoundError: it is no folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"root must be an existing folder, got {root}")
    return root


def missing_file(root: Path, expected: str) -> FileNotFoundError:
    """The error to raise where ``root`` lacks what it should hold; says what it holds instead."""
    names = sorted(path.name for path in root.iterdir())
    found = ", ".join(names[:_NAMES_SHOWN]) + (", ..." if len(names) > _NAMES_SHOWN else "")
    return FileNotFoundError(f"{root} must hold {expected}, got {found or 'an empty folder'}")


def one_of(argument: str, given: str, known: Sequence[str]) -> None:
    """Refuse a word that is not among the known ones."""
    require(given in known, argument, f"be one of {tuple(known)}", repr(given))


def read_gzip(path: Path) -> bytes:
    """The bytes of a file, unpacked where its name ends in ``.gz``."""
    if path.suffix != ".gz":
        return path.read_bytes()
    most = max(LARGE, SUSPECT * path.stat().st_size)
    with parsing(path, "gzip file"), gzip.open(path) as stream:
        content = stream.read(most + 1)
    require_unfolds(path, path.stat().st_size, len(content), "gzip file")
    return content


def read_npz(path: Path, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """The named arrays of a ``.npz`` file, or all of them; pickled objects are refused.

    Raises:
        DamagedFileError: the file is no complete ``.npz``, or unfolds to what only an attack does.
        ValueError: it lacks an array.
    """
    arrays = {}
    with parsing(path, ".npz file of numbers"), zipfile.ZipFile(path) as archive:
        found = [name.removesuffix(".npy") for name in archive.namelist()]
        members = [one for one in archive.infolist() if names is None or one.filename.removesuffix(".npy") in names]
        require_unfolds(path, path.stat().st_size, sum(one.file_size for one in members), ".npz file")
        for one in members:
            _require_declared(path, archive, one)
        with np.load(path, allow_pickle=False) as content:
            arrays = {name: content[name] for name in (one.filename.removesuffix(".npy") for one in members)}
    if names is None:
        return arrays
    lacking = [name for name in names if name not in arrays]
    require(not lacking, path.name, f"hold the arrays {', '.join(names)}", found)
    return {name: arrays[name] for name in names}


def _require_declared(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Compare the shape in an array's header with the bytes there are, before room is made for the values."""
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in readers:  # 3.0, of names that are not Latin-1: of structures, which hold no numbers
            return
        shape, _, dtype = readers[version](stream)
        declared, held = math.prod(shape) * dtype.itemsize, member.file_size - stream.tell()
    if not dtype.hasobject and declared != held:
        got = f"{member.filename} of shape {shape} and type {dtype} in {held:,} bytes"
        refuse_file(path, "be a complete .npz file of numbers", got)


def read_each(items: Iterable[Item], read: Callable[[Item], Content]) -> list[Content]:
    """What ``read`` makes of each file; where some are damaged, up to three of them are named at once.

    Raises:
        DamagedFileError: with what to do. Any other error of ``read`` is raised as it comes.
    """
    found, damaged = list[Content](), list[DamagedFileError]()
    for item in items:
        try:
            one = read(item)
        except DamagedFileError as error:
            found.clear()  # nothing is made of them any more
            damaged.append(error)
            if len(damaged) == _DAMAGED_SHOWN:
                break
            continue
        if not damaged:
            found.append(one)
    if damaged:
        more = " (there may be more)" if len(damaged) == _DAMAGED_SHOWN else ""
        way = "mend such files or move them out of the data, with the labels that belong to them, and start again"
        raise DamagedFileError(f"{'; '.join(map(str, damaged))}{more}; {way}", damaged[0].path) from damaged[0]
    return found


def read_packed_or_unpacked(root: Path, archive: str, folder: str, names: Sequence[str], hint: str) -> dict[str, bytes]:
    """Files of a data set that is published as one archive with one folder in it.

    Args:
        root: holds ``archive``, or ``folder`` (what unpacking it gives). The folder wins: it is quicker to read.
        archive: name of the ``.tar.gz``.
        folder: name of the folder in it.
        names: files in the folder.
        hint: how to come by the files, for the error.

    Returns:
        name -> bytes.

    Raises:
        FileNotFoundError: ``root`` holds neither, or not all of the files.
        ValueError: the archive is damaged or unsafe.
    """
    unpacked = root / folder
    if unpacked.is_dir():
        for name in names:
            if not (unpacked / name).is_file():
                raise missing_file(unpacked, f"{name} ({hint})")
        return {name: (unpacked / name).read_bytes() for name in names}
    packed = root / archive
    if not packed.is_file():
        raise missing_file(root, f"{archive} or the folder {folder} with {', '.join(names)} ({hint})")
    wanted = {f"{folder}/{name}": name for name in names}
    contents = {wanted[name]: content for name, content in read_members(packed, wanted.__contains__).items()}
    lacking = [name for name in names if name not in contents]
    require(not lacking, str(packed), f"hold {', '.join(names)} in the folder {folder}", f"no {', '.join(lacking)}")
    return contents


def labels_in_range(file: str, labels: np.ndarray, low: int, high: int) -> np.ndarray:
    """``labels`` minus ``low`` as int64, where all of them lie in ``low..high``.

    Raises:
        ValueError: naming the file and the first sample at fault.
    """
    outside = np.flatnonzero((labels < low) | (labels > high))
    if len(outside):
        first = int(outside[0])
        reject(f"the labels in {file}", f"lie in {low}..{high}", f"{labels[first]} for sample {first}")
    return labels.astype(np.int64) - low
