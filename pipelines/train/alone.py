"""One process at a time trains in a run folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ccnn_irregular._checks import reject

__all__ = ["alone", "require_free"]


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other processes from training in a folder, which is made; the system lets go however this one ends.

    Raises:
        ValueError: another process trains in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _take(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def require_free(folder: Path) -> None:
    """Refuse a folder in which another process trains, with ValueError."""
    if folder.is_dir():
        with alone(folder):
            pass


def _take(descriptor: int, folder: Path) -> None:
    if os.environ.get("LOCAL_RANK", "0") != "0":
        return  # one of several processes of a run, whose first one holds the folder
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        rule = "be trained in by one process at a time (wait for it, or name another folder)"
        reject("run_dir", rule, f"{folder}, where one is at work")
    except OSError:
        return  # a file system that knows no locks
