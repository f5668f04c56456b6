"""What a contributor is told to type exists, and says the same as the Makefile and the continuous integration."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
MAKEFILE = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^(\w[\w-]*):", MAKEFILE, flags=re.MULTILINE))


def loaded(path: str) -> Any:
    return yaml.safe_load((REPOSITORY / path).read_text(encoding="utf-8"))


def test_documents_name_existing_targets() -> None:
    for path in ("README.md", "CONTRIBUTING.md", "findings/README.md", ".ci/run"):
        text = (REPOSITORY / path).read_text(encoding="utf-8")
        named = set(re.findall(r"(?:^ *|`)make ([a-z]+)", text, flags=re.MULTILINE))
        assert named, f"{path} names no target"
        assert named <= TARGETS, f"{path} names targets that the Makefile does not have"


def test_help_lists_every_target() -> None:
    listed = set(re.findall(r'echo "make ([a-z]+)', MAKEFILE))
    assert listed == TARGETS - {"help", "ruff", "typecheck", "install", "install-demo", "typecheck-tree"}


def test_hooks_call_what_lint_calls() -> None:
    hooks = {
        hook["id"]: hook["entry"] for group in loaded(".pre-commit-config.yaml")["repos"] for hook in group["hooks"]
    }
    assert "\nlint: ruff typecheck\n" in MAKEFILE
    lint = MAKEFILE.partition("\nruff: install\n")[2].partition("\n\n")[0]
    assert hooks["ruff-check"].removesuffix(" --force-exclude") == ".venv/bin/ruff check"
    assert "$(BIN)/ruff check ." in lint
    assert hooks["ruff-format"].removesuffix(" --force-exclude") == ".venv/bin/ruff format"
    assert "$(BIN)/ruff format --check ." in lint
    assert hooks["mypy"] == "make typecheck"


def test_the_workflow_runs_what_ci_runs() -> None:
    (job,) = loaded(".github/workflows/ci.yml")["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert (REPOSITORY / ".ci" / "run").stat().st_mode & 0o111
