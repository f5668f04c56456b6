"""Files that are not what they claim: one error for all formats, and limits on what a small file may unfold to."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

__all__ = ["DamagedFileError", "naming", "parsing", "read_apart", "refuse_file", "require_unfolds"]

# A file that unfolds to more than LARGE and to more than SUSPECT times itself is a mistake or an attack.
LARGE = 2**30
SUSPECT = 100
LONGEST = 10  # seconds that a file may take where a damaged one is read for ever
_SHOWN = 300


class DamagedFileError(ValueError):
    """A file is not what its name or its first bytes claim: cut short, damaged, or of another format.

    Attributes:
        path: of the file.
    """

    def __init__(self, message: str, path: str | Path = "") -> None:
        super().__init__(message)
        self.path = Path(path)


def refuse_file(path: str | Path, rule: str, got: object) -> NoReturn:
    """Raise the error of a damaged file in the message form of all checks."""
    raise DamagedFileError(f"{path} must {rule}, got {got}", path)


@contextmanager
def parsing(path: str | Path, what: str) -> Iterator[None]:
    """Turn whatever a library raises over a damaged file into the one error, which names the file.

    It stands around calls of libraries, whose errors at damaged bytes are of any type; errors of ours have their words
    already. A file that is not there or may not be read is no damaged one.

    Args:
        path: of the file, or the folder that holds it.
        what: it should be, for the message ("NIfTI file").
    """
    try:
        yield
    except (DamagedFileError, ImportError, PermissionError):
        raise
    except Exception as error:
        if isinstance(error, FileNotFoundError) and not Path(path).exists():
            raise
        said = f"{type(error).__name__}: {error}"
        said = said if len(said) <= _SHOWN else said[:_SHOWN] + " ..."
        raise DamagedFileError(f"{path} must be a complete {what}, got a damaged one: {said}", path) from error


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Put the name of a file in front of errors about what it holds, where they do not have it."""
    try:
        yield
    except ValueError as error:
        if Path(path).name in str(error):
            raise
        raise type(error)(f"{path}: {error}") from error


def read_apart(path: str | Path, what: str, code: str) -> bytes:
    """What a program of Python prints that reads a file, in a process of its own.

    For libraries that end the process over damaged files, hang, or write over memory that is not theirs.

    Args:
        path: of the file, which the program finds as ``sys.argv[1]``.
        what: it should be, for the message.
        code: the program; it writes to ``sys.stdout.buffer``.

    Raises:
        DamagedFileError: the program failed, or was not done after ``LONGEST`` seconds.
    """
    command = [sys.executable, "-c", code, str(path)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=LONGEST, check=False)
    except subprocess.TimeoutExpired:
        refuse_file(path, f"be a complete {what}", f"one that is not read within {LONGEST} seconds")
    if done.returncode:
        last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        refuse_file(path, f"be a complete {what}", f"a damaged one: {''.join(last) or 'its library ended'}"[:_SHOWN])
    return done.stdout


def require_unfolds(path: str | Path, packed: int, unfolded: int, what: str, large: int | None = None) -> None:
    """Refuse a packed file that says it unfolds to what it cannot hold, or to what only an attack does.

    Args:
        path: of the file.
        packed: its bytes.
        unfolded: bytes that its header tells.
        what: it should be, for the message.
        large: bytes from which on it is looked at; None = ``LARGE``.

    Raises:
        DamagedFileError: before any of it is unfolded.
    """
    times = unfolded / max(packed, 1)
    large = LARGE if large is None else large
    if unfolded > large and times > SUSPECT:
        rule = f"be a {what} that unfolds to {large:,} bytes or to {SUSPECT} times itself at most (unpack it yourself)"
        refuse_file(path, rule, f"{packed:,} bytes that tell of {unfolded:,}")
