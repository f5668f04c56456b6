"""Small texts that say what a run is: options in YAML, ends and records in JSON; a stranger may have written them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from ccnn_irregular._files import parsing, refuse_file

__all__ = ["read_json", "read_yaml"]

_MOST_BYTES = 16 * 2**20
_MOST_ENTRIES = 100_000  # after its aliases are written out


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        DamagedFileError: no JSON, or no object.
    """
    with parsing(path, "JSON file"):
        content = json.loads(_text(path))
    if not isinstance(content, dict):
        refuse_file(path, "hold a JSON object", type(content).__name__)
    return content


def read_yaml(path: Path) -> dict[str, Any]:
    """The options in a YAML file; none of an empty one.

    Raises:
        DamagedFileError: no YAML, no options, aliases that unfold to more than 100,000 entries or into themselves.
    """
    with parsing(path, "YAML file"):
        content = yaml.safe_load(_text(path))
    if content is None:
        return {}
    if not isinstance(content, dict):
        refuse_file(path, "hold options, NAME: VALUE", type(content).__name__)
    if (count := _entries(content, {})) > _MOST_ENTRIES:
        refuse_file(path, f"hold {_MOST_ENTRIES:,} entries at most with its aliases written out", f"{count:.3g}")
    return content


def _text(path: Path) -> str:
    size = path.stat().st_size
    if size > _MOST_BYTES:
        refuse_file(path, f"be a text of {_MOST_BYTES:,} bytes at most", f"{size:,}")
    return path.read_text(encoding="utf-8")


def _entries(value: Any, known: dict[int, float]) -> float:
    """Number of entries with aliases written out; each object is looked at once, one that holds itself is endless."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = float("inf")
        inside = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_entries(one, known) for one in inside)
    return known[id(value)]
