"""Lists of names in messages."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["listed", "some"]

_NAMES_SHOWN = 5


def some(items: Sequence[object]) -> str:
    """The first few items, for a message."""
    return ", ".join(map(str, items[:_NAMES_SHOWN])) + (", ..." if len(items) > _NAMES_SHOWN else "")


def listed(label: str, items: Sequence[object]) -> str:
    """How many there are, and the first few of them."""
    return f"{label}: {len(items)}" + (f" ({some(items)})" if items else "")
