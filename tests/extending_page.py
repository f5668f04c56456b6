"""The sections of docs/extending.md, followed literally."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ccnn_irregular.integral import INTERPOLATIONS
from ccnn_irregular.kernels import GENERATORS, MASKS
from ccnn_irregular.operators import ENGINES

__all__ = ["blocks", "followed"]

PAGE = Path(__file__).resolve().parents[1] / "docs" / "extending.md"


def blocks(heading: str) -> list[str]:
    """The Python blocks of the section under a heading, in order."""
    sections = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    (section,) = [one for one in sections if one.startswith(f"{heading}\n")]
    return re.findall(r"^```python\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL)


@contextmanager
def followed(heading: str, first: int | None = None) -> Iterator[dict[str, Any]]:
    """All names that the section's first blocks define; None = all of them. What they register goes afterwards."""
    registries: tuple[dict[str, Any], ...] = (ENGINES, GENERATORS, MASKS, INTERPOLATIONS)
    before = [dict(registry) for registry in registries]
    names: dict[str, Any] = {"__name__": "extension"}
    try:
        for number, block in enumerate(blocks(heading)[:first]):
            exec(compile(block, f"{PAGE.name}, {heading}, block {number + 1}", "exec"), names)
        yield names
    finally:
        for registry, kept in zip(registries, before, strict=True):
            registry.clear()
            registry.update(kept)
