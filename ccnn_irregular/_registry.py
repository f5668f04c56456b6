"""Registries: parts of one kind by name, in the order in which ``register`` functions added them."""

from __future__ import annotations

from collections.abc import Container
from typing import TypeVar

from ccnn_irregular._checks import require

__all__ = ["add", "require_known"]

Part = TypeVar("Part")


def add(parts: dict[str, Part], kind: str, name: object, part: Part, reserved: Container[str] = ()) -> Part:
    """Add a part under its name, and return it.

    What is defined again, as when a notebook's cell runs twice, replaces the one of before.

    Raises:
        ValueError: a name that is no word in small letters, that is reserved, or that another part has.
    """
    valid = isinstance(name, str) and name.isidentifier() and name == name.lower() and name not in reserved
    require(valid, "name", f"be a word in small letters to name {kind}, such as 'dense_sum'", repr(name))
    assert isinstance(name, str)
    before = parts.get(name)
    taken = before is not None and _definition(before) != _definition(part)
    require(not taken, "name", f"be another one for {kind}: {sorted(parts)} are taken", repr(name))
    parts[name] = part
    return part


def require_known(parts: dict[str, Part], argument: str, name: object, besides: tuple[str, ...] = ()) -> None:
    """Refuse a name that is not registered.

    Raises:
        ValueError: names the known ones.
    """
    extra = "".join(f"{word!r} or " for word in besides)
    known = isinstance(name, str) and (name in parts or name in besides)
    require(known, argument, f"be {extra}one of {sorted(parts)}", repr(name))


def _definition(part: object) -> object:
    """Where a part comes from: module and name of a class or function, or else of its class."""
    made = part if hasattr(part, "__qualname__") else type(part)
    return made.__module__, made.__qualname__
