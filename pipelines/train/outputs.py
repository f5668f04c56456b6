"""What ``ccnn predict`` and ``ccnn export`` wrote: by which checkpoint, and that nothing else is overwritten.

``FILE.json`` beside a written FILE tells its checkpoint and its checksum. A task that writes one file by
``predicted_rows`` has both done for it; one that overrides ``predict`` calls ``require_own`` of each file before any
work, and ``record`` once it is written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from ccnn_irregular._checks import reject, require
from ccnn_irregular.pipelines.train.reports import versions, write_json

__all__ = ["earlier", "record", "record_path", "require_own", "sha256"]

Command = Literal["ccnn predict", "ccnn export"]


def record_path(path: Path) -> Path:
    """Where the record of an output lies."""
    return path.with_name(f"{path.name}.json")


def require_own(path: Path) -> None:
    """Refuse to overwrite a file that none of these commands wrote, or that was changed since.

    Raises:
        ValueError: with what to type instead.
    """
    beside = record_path(path)
    rule = "not be there, or be an earlier output of ccnn: --output names another file"
    require(not path.is_dir(), "output", "be a file, not a folder: --output names another one", str(path))
    if beside.exists() and _content(beside) is None:
        reject("output", rule, f"{beside}, which is none of its records")
    if not path.exists():
        return
    content = _content(beside)
    if content is None:
        reject("output", rule, f"{path}, of which no {beside.name} tells")
    require(content["sha256"] == sha256(path), "output", rule, f"{path}, which was changed since it was written")


def record(
    path: Path,
    task: str,
    checkpoint: str | Path,
    data: Mapping[str, Any] | None = None,
    by: Command = "ccnn predict",
) -> None:
    """Write beside an output which checkpoint made it.

    Args:
        path: of the output; a folder, as of zarr, has no checksum.
        task: name of the task.
        checkpoint: the file.
        data: what was read; None = not told.
        by: the command.
    """
    content = {
        "made by": by,
        "task": task,
        "checkpoint": str(checkpoint),
        "checkpoint sha256": sha256(Path(checkpoint)),
        "sha256": sha256(path) if path.is_file() else None,
        "versions": versions(),
    }
    write_json(record_path(path), content | ({} if data is None else {"data": data}))


def earlier(path: Path) -> dict[str, Any] | None:
    """The record of an output of ours that is still as it was written; None where there is none."""
    content = _content(record_path(path))
    return content if content is not None and path.is_file() and content["sha256"] == sha256(path) else None


def sha256(path: Path) -> str:
    """Checksum of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _content(path: Path) -> dict[str, Any] | None:
    """What a record says; None where the file is none of ours."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and content.get("made by") in get_args(Command) else None
