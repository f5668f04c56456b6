"""Spoiled files of every format: an error that is documented and names the file, soon, and within memory."""

from __future__ import annotations

from pathlib import Path

import pytest
from corpus import READERS
from fuzz import LONGEST, MEMORY, fuzz


@pytest.mark.parametrize("name", READERS)
@pytest.mark.filterwarnings("ignore")
def test_what_is_whole_is_read(name: str, tmp_path: Path) -> None:
    READERS[name].read(READERS[name].make(tmp_path))


def test_what_is_spoiled_is_refused_by_name() -> None:
    """``make fuzz`` tries twenty times as many, of another seed."""
    report = fuzz(1000, 0, list(READERS))
    assert report.faults == []
    assert sum(report.outcomes.values()) == 1000
    assert report.slowest < LONGEST
    assert report.most_bytes < MEMORY
