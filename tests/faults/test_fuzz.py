"""Spoiled files of every format: an error that is documented and names the file, soon, and within memory."""

from __future__ import annotations

from pathlib import Path

import pytest
from corpus import READERS
from scripts import output_of


@pytest.mark.parametrize("name", READERS)
@pytest.mark.filterwarnings("ignore")
def test_what_is_whole_is_read(name: str, tmp_path: Path) -> None:
    READERS[name].read(READERS[name].make(tmp_path))


def test_what_is_spoiled_is_refused_by_name() -> None:
    """``make fuzz`` tries twenty times as many, of another seed."""
    found = output_of("fuzz.py", "--inputs", "1000", "--seed", "0")
    assert "1000 inputs" in found
    assert "DamagedFileError" in found
