"""Packages that are imported only where they are used, with the install line in the error."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Literal

__all__ = ["import_optional"]

Extra = Literal["train", "files", "formats", "plots", "export"]


def import_optional(name: str, purpose: str, extra: Extra | None = None) -> ModuleType:
    """Import ``name``, or say what it is needed for and how to install it.

    Raises:
        ImportError: ``name`` is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        target = f"ccnn-irregular[{extra}]" if extra else "ccnn-irregular"
        raise ImportError(f"{purpose} needs the package {name!r}; install it with: pip install '{target}'") from error
