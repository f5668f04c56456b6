"""The notebooks run without errors on a bare machine, and the outputs they are stored with come from such a run."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
LARGEST = 600_000  # bytes of a stored notebook: it is opened in a browser
SECONDS_PER_CELL = 300

# An absolute path (of the machine a notebook was last run on), and the escape codes of a terminal.
MACHINE = re.compile(r"(?<![\w.:/])/(?:[\w.-]+/)+[\w.-]+|\b[A-Z]:\\|\x1b\[")

# Put before the first cell: warnings that our own code or a cell causes are errors.
STRICT = "import warnings\nwarnings.filterwarnings('error', module=r'(ccnn_irregular|__main__)(\\..*)?$')"

each_notebook = pytest.mark.parametrize(
    "path", [pytest.param(path, id=path.stem, marks=pytest.mark.xdist_group(path.stem)) for path in NOTEBOOKS]
)


def test_all_are_there() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["01_sampling", "02_icu", "03_volumes"]


@each_notebook
def test_runs_without_errors(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MPLBACKEND", raising=False)
    monkeypatch.setenv("CCNN_CACHE", str(tmp_path / "cache"))
    working_folder = tmp_path / "working_folder"
    working_folder.mkdir()
    stored = nbformat.read(path, as_version=4)
    notebook = nbformat.from_dict({**stored, "cells": [nbformat.v4.new_code_cell(STRICT), *stored.cells]})
    resources = {"metadata": {"path": str(working_folder)}}
    NotebookClient(notebook, timeout=SECONDS_PER_CELL, kernel_name="python3", resources=resources).execute()
    assert list(working_folder.iterdir()) == [], "a notebook cleans up behind itself"
    # The stored outputs belong to this source: the same kinds of output, cell by cell.
    assert [_kinds(cell) for cell in notebook.cells[1:]] == [_kinds(cell) for cell in stored.cells]


@each_notebook
def test_stored_outputs_come_from_one_complete_run(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        assert not any(output.output_type == "error" for output in cell.outputs)
        assert not any(output.get("name") == "stderr" for output in cell.outputs), "a warning is stored"
        assert "figure" not in cell.source.splitlines()[-1] or "image/png" in _kinds(cell), "a figure is missing"


@each_notebook
def test_stored_notebook_is_small_and_of_no_machine(path: Path) -> None:
    assert path.stat().st_size < LARGEST
    notebook = nbformat.read(path, as_version=4)
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}
    for cell in notebook.cells:
        assert not MACHINE.search(cell.source)
        for output in cell.get("outputs", []):
            text = "".join(v for k, v in output.get("data", {}).items() if k.startswith("text/"))
            assert not MACHINE.search(output.get("text", "") + text), text


def _kinds(cell: NotebookNode) -> list[str]:
    """Kinds of output of a cell; printed text counts once, however it was cut into pieces."""
    kinds: list[str] = []
    for output in cell.get("outputs", []):
        kinds += [output.name] if output.output_type == "stream" else sorted(output.get("data", {}))
    return sorted(set(kinds))


def test_kernel_is_this_interpreter() -> None:
    """A kernel of another installation would test another installation."""
    from jupyter_client.kernelspec import KernelSpecManager

    assert KernelSpecManager().get_kernel_spec("python3").argv[0] in ("python", "python3", sys.executable)
