"""The README is short, shows Python on the first screen, and its links and its picture are true."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from matplotlib import image

REPOSITORY = Path(__file__).resolve().parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
# The tools are scripts that stand side by side, not a package.
sys.path.insert(0, str(REPOSITORY / "tools"))

import readme_picture  # noqa: E402


def test_is_short_and_shows_code_first() -> None:
    lines = README.splitlines()
    assert len(lines) <= 110
    start = lines.index("```python")
    end = lines.index("```", start)
    assert end < 30
    assert sum(bool(line) for line in lines[start + 1 : end]) <= 10


def test_links_lead_to_files() -> None:
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert len(links) > 15
    assert [link for link in links if not (REPOSITORY / link).is_file()] == []


def test_every_document_is_reached_from_the_readme() -> None:
    pages = {path.name for path in (REPOSITORY / "docs").glob("*.md")}
    assert pages - set(re.findall(r"docs/(\w+\.md)", README + (REPOSITORY / "CONTRIBUTING.md").read_text())) == set()


def test_the_picture_is_the_script_s(tmp_path: Path) -> None:
    readme_picture.main(["--output", str(tmp_path / "samplings.png")])
    drawn, shown = image.imread(tmp_path / "samplings.png"), image.imread(readme_picture.PICTURE)
    assert readme_picture.PICTURE.stat().st_size < 300_000
    assert drawn.shape == shown.shape
    # Another version of matplotlib may shift a letter.
    assert abs(drawn - shown).mean() == pytest.approx(0, abs=0.02)
