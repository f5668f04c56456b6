"""The folder that the documentation site is built from, build/docs: ``make docs``.

It is laid out as the repository is, so that links between files hold in both: README.md is the first page, docs/ and
the other documents keep their paths. Reference pages are made here, one for each public module, with a list of them; a
new module needs no line anywhere.
"""

from __future__ import annotations

import ast
import shutil
from collections.abc import Iterator
from pathlib import Path

__all__ = ["main"]

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = "ccnn_irregular"
# The folders of modules, and where they stand when they are installed.
INSTALLED = {PACKAGE: PACKAGE, "datasets": f"{PACKAGE}/datasets", "pipelines": f"{PACKAGE}/pipelines"}
# What is shown: pages, and what they link to.
SHOWN = ("*.md", "LICENSE", "docs/**/*", "findings/*", "notebooks/*.ipynb", "benchmarks/results/*.png")

Module = tuple[str, str]  # its name, as it is imported, and the first line of its docstring


def main(root: Path = REPOSITORY / "build" / "docs") -> None:
    """Make the folder anew: ``pages`` for the site, and ``modules``, where the reference finds the docstrings."""
    shutil.rmtree(root, ignore_errors=True)
    pages = root / "pages"
    for pattern in SHOWN:
        for path in sorted(REPOSITORY.glob(pattern)):
            if path.is_file():
                copy = pages / path.relative_to(REPOSITORY)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
    for folder, installed in INSTALLED.items():
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / folder, root / "modules" / installed, ignore=ignored, dirs_exist_ok=True)
    modules = list(public_modules())
    (pages / "reference").mkdir()
    (pages / "reference" / "README.md").write_text(overview(modules), encoding="utf-8")
    for name, _ in modules:
        (pages / "reference" / f"{name}.md").write_text(f"# {name}\n\n::: {name}\n", encoding="utf-8")


def public_modules() -> Iterator[Module]:
    """Each public module."""
    for folder, installed in INSTALLED.items():
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            parts = [*installed.split("/"), *path.relative_to(REPOSITORY / folder).with_suffix("").parts]
            if parts[-1] == "__init__":
                parts.pop()
            docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
            if docstring is not None and not any(part.startswith("_") for part in parts):
                yield ".".join(parts), docstring.splitlines()[0]


def overview(modules: list[Module]) -> str:
    """The page that lists the modules, a table for each folder."""
    folders = {name.rpartition(".")[0] for name, _ in modules}
    groups: dict[str, list[str]] = {}
    for name, summary in modules:
        row = f"| [`{name}`]({name}.md) | {summary.replace('|', '&#124;')} |"
        groups.setdefault(name if name in folders else name.rpartition(".")[0], []).append(row)
    lines = ["# Reference", "", "What stands in the docstrings: shapes, units, dtypes, errors."]
    for folder, rows in groups.items():
        lines += ["", f"## {folder}", "", "| module | holds |", "|---|---|", *rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
