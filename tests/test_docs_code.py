"""Every block of code in the README and the documents: Python is run, commands are parsed by the parsers they meet.

The Python of a document runs from top to bottom in one folder, in which files of the reader's stand as small simulated
ones. Commands do not train: ``ccnn`` parses its options and stops, other programs and their options have to exist.
"""

from __future__ import annotations

import itertools
import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jsonargparse
import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image

from ccnn_irregular.pipelines import cli
from ccnn_irregular.testing import assert_close

REPOSITORY = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md"), REPOSITORY / "findings" / "README.md"])
MAKEFILE = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
EXTRAS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
PROGRAMS = ("ccnn", "make", "python", "pip", "bash", ".venv/bin/pre-commit")


class Block(NamedTuple):
    """A block of code: its language ("" of indented ones), its text, and the line it begins in."""

    language: str
    text: str
    line: int


def blocks(text: str) -> Iterator[Block]:
    """The fenced and the indented blocks of a document, from top to bottom."""
    pattern = r"^```(?P<language>\w*)\n(?P<fenced>.*?)^```$|(?<=\n\n)(?P<indented> {4}\S[^\n]*\n(?: {4}[^\n]*\n)*)"
    for found in re.finditer(pattern, text, flags=re.DOTALL | re.MULTILINE):
        line = text.count("\n", 0, found.start()) + 1
        if found["indented"] is None:
            yield Block(found["language"], found["fenced"], line)
        else:
            yield Block("", re.sub(r"^ {4}", "", found["indented"], flags=re.MULTILINE), line)


def named(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def commands(path: Path) -> list[str]:
    """The commands of a document, each once."""
    lines: dict[str, None] = {}
    for block in blocks(path.read_text(encoding="utf-8")):
        if block.language == "sh" or (not block.language and block.text.startswith(PROGRAMS)):
            joined = block.text.replace("\\\n", " ")
            lines |= dict.fromkeys(line for line in joined.splitlines() if shlex.split(line, comments=True))
    return list(lines)


# Followed by tests of its own, which take back what its code registers.
EXTENDING = REPOSITORY / "docs" / "extending.md"
WITH_PYTHON = [path for path in DOCUMENTS if path != EXTENDING and "```python\n" in path.read_text(encoding="utf-8")]
WITH_COMMANDS = [path for path in DOCUMENTS if commands(path)]


def test_blocks_are_found() -> None:
    assert {"README.md", "docs/library.md", "docs/volumes_and_climate.md"} <= {named(path) for path in WITH_PYTHON}
    assert {"README.md", "CONTRIBUTING.md", "docs/command_line.md"} <= {named(path) for path in WITH_COMMANDS}
    assert len(list(blocks("```sh\na\n```\n\n    b\n    c\n\n- item\n\n  text\n"))) == 2


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_every_block_is_code_that_is_checked(path: Path) -> None:
    """Fenced blocks name their language; indented ones are commands or formulas."""
    for block in blocks(path.read_text(encoding="utf-8")):
        if block.language:
            assert block.language in ("python", "sh"), f"{named(path)}:{block.line}"
        elif not block.text.startswith(PROGRAMS):
            assert not re.search(r"^(import|from|with|for|\w+ = \w+\.)", block.text), f"{named(path)}:{block.line}"


@pytest.mark.parametrize("path", WITH_PYTHON, ids=named)
def test_python_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    FILES.get(named(path), lambda: None)()
    torch.manual_seed(0)
    names: dict[str, Any] = {}
    for block in python_blocks(path):
        # Lines are those of the document, for the traceback.
        exec(compile("\n" * block.line + block.text, str(path), "exec"), names)
    check = CHECKS.get(named(path))
    if check is not None:
        check(names)


def test_each_section_on_extending_is_followed_by_a_test() -> None:
    sections = re.findall(r"^## (A new .+)$", EXTENDING.read_text(encoding="utf-8"), flags=re.MULTILINE)
    others = [
        path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py") if path.name != __name__
    ]
    assert len(sections) >= 4
    assert [name for name in sections if not any(f'{name}"' in text for text in others)] == []


def python_blocks(path: Path) -> list[Block]:
    return [block for block in blocks(path.read_text(encoding="utf-8")) if block.language == "python"]


def write_argo_profiles() -> None:
    """Two profiles of three levels, of which one value is flagged as bad."""
    flags = np.array([[b"1", b"1", b"4"], [b"1", b"1", b"1"]])
    variables = {
        "JULD": ("N_PROF", np.array(["2010-01-01", "2010-01-11"], dtype="datetime64[ns]"), {"standard_name": "time"}),
        "LATITUDE": ("N_PROF", np.array([1.0, 2.0]), {"units": "degree_north"}),
        "LONGITUDE": ("N_PROF", np.array([4.0, 5.0]), {"units": "degree_east"}),
        "PRES": (("N_PROF", "N_LEVELS"), np.array([[5.0, 10.0, 20.0], [6.0, 11.0, 21.0]]), {"units": "decibar"}),
        "TEMP": (("N_PROF", "N_LEVELS"), np.array([[20.0, 18.0, 99.0], [19.0, 17.0, 15.0]])),
        "TEMP_QC": (("N_PROF", "N_LEVELS"), flags),
    }
    xr.Dataset(variables).to_netcdf("6901234_prof.nc", engine="h5netcdf")


def write_picture() -> None:
    """A picture of colours, higher than wide."""
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3)).astype(np.uint8)).save("picture.png")


# Files of the reader's that a document reads, small ones.
FILES = {"docs/export.md": write_picture, "docs/volumes_and_climate.md": write_argo_profiles}


def readme_is_true(names: dict[str, Any]) -> None:
    assert names["at_the_samples"].shape == (5, 2)
    assert names["every_hour"].shape == (1, 2, 10)
    assert float(names["every_hour"].detach().abs().max()) > 0


def library_is_true(names: dict[str, Any]) -> None:
    assert names["result"].shape == (2, 2, 10)
    assert names["logits"].shape == (2, 3)
    assert float(names["result"].detach().abs().max()) > 0


def point_clouds_are_true(names: dict[str, Any]) -> None:
    assert names["answers"].shape == (3, 2)
    assert names["classes"].shape == (3, 10)
    assert names["per_point"].shape == (427, 5)
    assert names["smoothed"].shape == (200, 4)


def volumes_and_climate_are_true(names: dict[str, Any]) -> None:
    assert float(names["smooth"].std()) > 0
    assert isinstance(names["filtered"], xr.DataArray)
    # "Where an axis is irregular both are within the layer's rtol of the sum, not of each other."
    lazy, smooth = names["lazy"].compute(), names["smooth"]
    assert float(abs(lazy - smooth).max()) < 5e-3 * float(abs(smooth).max())
    assert int(names["temperatures"].values.isfinite().sum()) == 5
    assert names["logits"].shape == (1, 3, 10, 12, 5)
    assert Path("filtered.nii.gz").is_file()


def convolutions_are_true(names: dict[str, Any]) -> None:
    assert names["on_points"].shape == (25, 8)
    assert names["on_grid"].shape == (1, 8, 12)
    assert_close(names["ours"], names["theirs"], factor=0.1)


def export_is_true(names: dict[str, Any]) -> None:
    assert names["probabilities"].shape == (1, 10)
    assert 0 < float(names["values"].max()) <= 1


# What the text says of the names that its code leaves behind.
CHECKS = {
    "docs/export.md": export_is_true,
    "README.md": readme_is_true,
    "docs/library.md": library_is_true,
    "docs/convolutions.md": convolutions_are_true,
    "docs/point_clouds.md": point_clouds_are_true,
    "docs/volumes_and_climate.md": volumes_and_climate_are_true,
}


class Parsed(Exception):
    """The arguments of a command have been parsed."""


@pytest.fixture
def parsing_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """``ccnn`` stops once the real parser has taken its arguments."""
    parse_args = jsonargparse.ArgumentParser.parse_args

    def parse_and_stop(self: jsonargparse.ArgumentParser, *arguments: Any, **options: Any) -> None:
        parse_args(self, *arguments, **options)
        raise Parsed

    monkeypatch.setattr(jsonargparse.ArgumentParser, "parse_args", parse_and_stop)


@pytest.mark.parametrize("path", WITH_COMMANDS, ids=named)
@pytest.mark.usefixtures("parsing_only")
def test_commands_parse(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    wrong = {line: said for line in commands(path) if (said := complaint(line, capsys))}
    assert wrong == {}


def complaint(line: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What is wrong with a command; empty if nothing is."""
    words = shlex.split(line, comments=True)
    while words and re.match(r"[A-Z_]+=", words[0]):
        del words[0]
    program, *arguments = words
    if program == "ccnn":
        return ccnn_complaint(arguments, capsys)
    checks = {
        "make": make_complaint,
        "python": script_complaint,
        "bash": script_complaint,
        "pip": pip_complaint,
        ".venv/bin/pre-commit": pre_commit_complaint,
    }
    return checks[program](arguments) if program in checks else f"{program} is no program of these: {[*checks]}"


def ccnn_complaint(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    if arguments[0] in ("info", "inspect"):  # which have no options, and look at once
        return "" if len(arguments) == 1 + (arguments[0] == "inspect") else "it takes no more words"
    try:
        cli.main(arguments)
    except Parsed:
        leave_run(arguments)
        return ""
    except SystemExit:
        return capsys.readouterr().err.splitlines()[-1]
    return "it ended without parsing its arguments"


def leave_run(arguments: list[str]) -> None:
    """What ``fit`` and ``resize`` leave for the commands below them: the configuration of a run."""
    given = dict(itertools.pairwise(arguments))
    if arguments[0] == "fit" and "--config" in given:
        run, source = given.get("--run_dir", f"runs/{Path(given['--config']).stem}"), cli.config_path(given["--config"])
    elif arguments[0] == "resize" and "--output" in given:
        run, source = given["--output"], Path(given["--run_dir"]) / "config.yaml"
    else:
        return
    Path(run).mkdir(parents=True, exist_ok=True)
    shutil.copy(source, Path(run) / "config.yaml")


def make_complaint(arguments: list[str]) -> str:
    for word in arguments:
        name, equals, _ = word.partition("=")
        pattern = rf"^{name} \?=" if equals else rf"^{name}:"
        if not re.search(pattern, MAKEFILE, flags=re.MULTILINE):
            return f"the Makefile has no {name}"
    return ""


def script_complaint(arguments: list[str]) -> str:
    """A script of the repository, and its options; ``python -m pytest`` with files of tests."""
    if arguments[:2] == ["-m", "pytest"]:
        missing = [word for word in arguments[2:] if word.endswith(".py") and not (REPOSITORY / word).is_file()]
        return f"there is no {missing}" if missing else ""
    script = REPOSITORY / arguments[0]
    if not script.is_file():
        return f"there is no {arguments[0]}"
    source = script.read_text(encoding="utf-8")
    options = re.findall(r"--[\w-]+", " ".join(arguments[1:]))
    unknown = [option for option in options if f'"{option}"' not in source]
    return f"it has no {unknown}" if unknown else ""


def pip_complaint(arguments: list[str]) -> str:
    named_extras = re.findall(r"\[([\w,]+)\]", " ".join(arguments))
    unknown = {extra for names in named_extras for extra in names.split(",")} - EXTRAS.keys()
    return f"pyproject.toml has no extras {unknown}" if unknown else ""


def pre_commit_complaint(arguments: list[str]) -> str:
    return "" if arguments == ["install"] else f"it is not called with {arguments}"
