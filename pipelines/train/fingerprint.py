"""Which files a run was trained on, so that another content under the same names is noticed.

``data.json`` in the run folder holds name, size and a digest of each file that the options of the data name, or of the
files in a folder. Small files are hashed as a whole, which tables of labels are; of a large one some blocks from its
head to its tail. What is kept of the rows themselves and of their labels is in the checkpoint: ``trained_on``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ccnn_irregular._checks import reject
from ccnn_irregular.pipelines.train.evaluation import say
from ccnn_irregular.pipelines.train.reports import write_json
from ccnn_irregular.pipelines.train.texts import read_json

__all__ = ["NAME", "changed_files", "require_same_files", "tell_changed_files", "write_fingerprint"]

# Options of data modules that name files, each a path or a list of them.
_OPTIONS = ("root", "table", "labels", "statics", "path", "groups")
_WHOLE, _BLOCK = 16 * 2**20, 2**16  # bytes of a file that is hashed as a whole, and of a block of a larger one
_BLOCKS, _BLOCKS_IN_FOLDER = 17, 3
_MOST_FILES = 500  # of a folder that are looked into; of all others their sizes tell
_SHOWN = 3
NAME = "data.json"  # in a run folder

Print = dict[str, dict[str, list[Any]]]


def write_fingerprint(file: Path, data: Mapping[str, Any]) -> None:
    """Keep the files that the options of a data module name."""
    write_json(file, {"files": _of(data, file.parent)})


def changed_files(file: Path, data: Mapping[str, Any]) -> list[str]:
    """Files that are others than they were, of those options that name what they named; new files are none.

    Args:
        file: the fingerprint; nothing is told where there is none.
        data: options of the data module.
    """
    if not file.is_file():
        return []
    before, now = read_json(file).get("files", {}), _of(data, file.parent)
    changed = []
    for source, files in before.items():
        for name, (size, digest) in files.items() if source in now else ():
            size_now, digest_now = now[source].get(name, (None, None))
            if size_now is None:
                changed.append(f"{name} of {source} is gone")
            elif size != size_now:
                changed.append(f"{name} had {size:,} bytes and has {size_now:,}")
            elif digest != digest_now:
                changed.append(f"{name} has other contents")
    return changed


def require_same_files(file: Path, data: Mapping[str, Any]) -> None:
    """Refuse to carry on a run whose files were changed, before work is done.

    Raises:
        ValueError: naming the files.
    """
    if changed := changed_files(file, data):
        rule = "hold a run whose files are what it began with (--restart true sets it aside and starts anew)"
        reject(f"run_dir {file.parent}", rule, _told(changed))


def tell_changed_files(file: Path, data: Mapping[str, Any]) -> None:
    """Say in a line that the files that are tested are others than those that were trained on, under the same names."""
    if changed := changed_files(file, data):
        say(f"note: the files have changed since the training: {_told(changed)}")


def _told(changed: list[str]) -> str:
    more = f", and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
    return ", ".join(changed[:_SHOWN]) + more


def _of(data: Mapping[str, Any], run: Path) -> Print:
    return {str(path): _files(path, run) for path in _paths(data)}


def _paths(data: Mapping[str, Any]) -> Iterator[Path]:
    for name in _OPTIONS:
        given = data.get(name)
        for one in given if isinstance(given, list) else [given]:
            if isinstance(one, str):
                yield from (path for path in map(Path, one.split(",")) if path.exists())


def _files(path: Path, run: Path) -> dict[str, list[Any]]:
    """Name -> size and digest of a file, or of those in a folder; hidden files and runs that lie there are left out."""
    if path.is_file():
        return {path.name: [path.stat().st_size, _digest(path, _WHOLE, _BLOCKS)]}
    inside = sorted(one for one in path.rglob("*") if one.is_file() and not one.name.startswith("."))
    runs = {run.resolve(), *(one.parent.resolve() for one in inside if _is_of_run(one))}
    runs = {folder for folder in runs if path.resolve() in folder.parents}
    inside = [one for one in inside if runs.isdisjoint(one.resolve().parents)]
    every = -(-len(inside) // _MOST_FILES)
    looked = inside[:: max(every, 1)]
    found = {one.relative_to(path).as_posix(): [one.stat().st_size, ""] for one in inside}
    small = _BLOCKS_IN_FOLDER * _BLOCK
    for one in looked:
        found[one.relative_to(path).as_posix()][1] = _digest(one, small, _BLOCKS_IN_FOLDER)
    return found


def _is_of_run(path: Path) -> bool:
    return path.name == NAME and path.with_name("config.yaml").is_file()


def _digest(path: Path, small: int, blocks: int) -> str:
    """Of all of a file that is ``small``, in bytes; else of blocks from its head to its tail."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        if size <= small:
            return hashlib.file_digest(stream, "blake2b").hexdigest()[:32]
        whole = hashlib.blake2b(digest_size=16)
        for number in range(blocks):
            stream.seek(number * (size - _BLOCK) // (blocks - 1))
            whole.update(stream.read(_BLOCK))
        return whole.hexdigest()
