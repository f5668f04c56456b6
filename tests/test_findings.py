"""The scripts in findings/ keep the form that its README states. They are not run here: they download packages."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "findings"
SCRIPTS = sorted(FOLDER.glob("*.sh"))
each_script = pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)


def comment(text: str) -> str:
    """The comment at the top, without its marks, on one line."""
    lines = text.splitlines()[1:]
    end = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    return " ".join(line.removeprefix("#").strip() for line in lines[:end])


def pins(text: str) -> dict[str, str]:
    """The packages that a script installs, and their versions."""
    (arguments,) = re.findall(r"pip\" install --quiet --disable-pip-version-check (.+)", text)
    return dict(argument.split("==") for argument in arguments.split())


def test_the_readme_lists_the_scripts() -> None:
    listed = re.findall(r"^\| `(\w+\.sh)` \| \S", (FOLDER / "README.md").read_text(), flags=re.MULTILINE)
    assert listed == [path.name for path in SCRIPTS]


@each_script
def test_states_version_behaviour_and_output(path: Path) -> None:
    said = comment(path.read_text())
    first, colon, _ = said.partition(": ")
    assert colon, "the first comment is: package and version, colon, behaviour"
    versions = pins(path.read_text())
    for name, version in re.findall(r"(\w+) (\d[\d.]*\d)", first):
        assert versions[name.lower() if name.lower() in versions else name] == version
    assert "Seen: " in said
    assert said.endswith("Exits 0 if that is so, 1 if it has changed.")


@each_script
def test_runs_in_a_temporary_environment_of_pinned_packages(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("#!/usr/bin/env bash\n")
    for line in ("set -euo pipefail", "folder=$(mktemp -d)", "trap 'rm -rf \"$folder\"' EXIT"):
        assert f"\n{line}\n" in text
    assert '\npython3 -m venv "$folder/venv"\n' in text
    assert pins(text)
    assert "ccnn" not in text, "a finding runs without this toolkit"
    assert '"as stated" if' in text
    subprocess.run(["bash", "-n", str(path)], check=True)
