"""Finding and reading the files of a data set, with errors that name the file and what is wrong with it."""

from __future__ import annotations

import gzip
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ccnn_irregular._checks import reject, require
from ccnn_irregular.datasets.reading.archive import read_members

__all__ = [
    "existing_folder",
    "labels_in_range",
    "missing_file",
    "one_of",
    "read_gzip",
    "read_npz",
    "read_packed_or_unpacked",
]

_NAMES_SHOWN = 5


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
    try:
        with gzip.open(path) as stream:
            return stream.read()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} must be a complete gzip file, got a damaged one: {error}") from error


def read_npz(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The named arrays of a ``.npz`` file; pickled objects are refused.

    Raises:
        ValueError: the file is no complete ``.npz`` or lacks an array.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            found = [name.removesuffix(".npy") for name in archive.namelist()]
        arrays = {}
        with np.load(path, allow_pickle=False) as content:
            for name in set(names) & set(found):
                arrays[name] = content[name]
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
        raise ValueError(f"{path.name} must be a complete .npz file of numbers, got another one: {error}") from error
    lacking = [name for name in names if name not in arrays]
    require(not lacking, path.name, f"hold the arrays {', '.join(names)}", found)
    return {name: arrays[name] for name in names}


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
