"""What commands write beside figures: text and JSON, whole or not at all, and the versions a result depends on."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = ["versions", "write_json", "write_text"]

_VERSIONED = ("ccnn-irregular", "torch", "lightning", "torchmetrics", "scikit-learn", "numpy")


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in _VERSIONED}


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all: under a temporary name, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write ``content`` (dataclasses allowed) as readable JSON."""
    write_text(path, json.dumps(content, indent=2, default=asdict) + "\n")
