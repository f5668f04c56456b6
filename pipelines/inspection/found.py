"""What a file or a folder was found to be."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["CLASS_NAMES", "LISTED", "Found", "suffix_of"]

_WIDTH = 118
LISTED = 12
"""Columns, variables or files that are told one by one."""
CLASS_NAMES = ("label", "class", "classification")
"""Names of fields and columns that hold a class."""


@dataclass
class Found:
    """What a file or a folder is.

    Attributes:
        what: in a few words.
        facts: what it holds, by a word for each.
        doubts: what looks wrong.
        next: what to type; None = nothing in this package reads it.
    """

    what: str
    facts: dict[str, str] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)
    next: str | None = None

    def lines(self) -> list[str]:
        """For the console."""
        rows = {"is": self.what, **self.facts}
        rows |= {"looks wrong" if not number else " " * number: doubt for number, doubt in enumerate(self.doubts)}
        rows |= {"type next": self.next} if self.next else {}
        margin = max(map(len, rows)) + 2
        options: dict[str, Any] = {"subsequent_indent": " " * margin, "break_on_hyphens": False}
        return [
            line
            for name, text in rows.items()
            for line in textwrap.wrap(text, _WIDTH, initial_indent=name.ljust(margin), **options)
        ]


def suffix_of(path: Path) -> str:
    """The end of a name in small letters, that of a packed file without .gz."""
    name = path.name.lower().removesuffix(".gz") if not path.name.lower().endswith(".nii.gz") else path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else Path(name).suffix
