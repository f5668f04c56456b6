"""Figures of how the code is kept, as a table: ``make style``, or ``make style BASE=REV`` for before and after.

For each folder of Python files:

- ``files`` and ``lines``: all lines, as ``wc`` counts them.
- ``duplicates``: pairs of places that share six or more lines in a row. Lines are compared without indentation; blank
  lines, comments, imports and lines without a letter or digit (closing brackets) do not count. A longer
  run is one duplicate, and three places alike are three pairs. Pairs across two folders count in the last row alone.
- ``long functions``: functions and methods of more than 40 lines from ``def`` on, without their docstring.
- ``long files``: files of more than 400 lines.
- ``docstrings``: the share of public modules, classes, functions and methods that have one. Public are names without
  a leading underscore, in modules and classes that are public themselves, in the installed folders. A method that a
  base class documents, here or as a hook of Lightning, torchmetrics or PyTorch, is documented.

``--list`` names each place that is counted.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import subprocess
import tarfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import combinations
from pathlib import Path, PurePosixPath

__all__ = ["Figures", "files_at", "files_here", "main", "measure"]

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = ("ccnn_irregular", "datasets", "pipelines")
FOLDERS = (*PACKAGES, "benchmarks", "tools", "tests")
DUPLICATE_LINES = 6
FUNCTION_LINES = 40
FILE_LINES = 400

Place = tuple[str, int]  # a file and a line of it, from 1
Pair = tuple[Place, Place]
Classes = dict[str, tuple[set[str], set[str]]]
# Methods that Lightning, torchmetrics and PyTorch call, and document.
_HOOKS = re.compile(
    r"on_\w+|(training|validation|test|predict)_step|(train|val|test|predict)_dataloader|configure_\w+|prepare_data|setup"
    r"|(load_)?state_dict|[gs]et_extra_state|extra_repr|reset_parameters|compute|reset|update"
)
_Function = ast.FunctionDef | ast.AsyncFunctionDef
_Statement = ast.Module | ast.Import | ast.ImportFrom | ast.ClassDef | _Function


@dataclass
class Figures:
    """What is counted in a set of files; lists hold the places."""

    files: int = 0
    lines: int = 0
    public: int = 0
    duplicates: list[Pair] = field(default_factory=list)
    long_functions: list[tuple[Place, str, int]] = field(default_factory=list)
    long_files: list[tuple[str, int]] = field(default_factory=list)
    undocumented: list[tuple[Place, str]] = field(default_factory=list)

    def row(self) -> list[str]:
        """The figures as texts, in the order of the table's columns."""
        documented = f"{1 - len(self.undocumented) / self.public:.1%}" if self.public else "-"
        counts = (self.files, self.lines, len(self.duplicates), len(self.long_functions), len(self.long_files))
        return [*(f"{count:,}" for count in counts), documented]


COLUMNS = ("files", "lines", "duplicates", "long functions", "long files", "docstrings")


def files_here(root: Path = REPOSITORY) -> dict[str, str]:
    """The text of each Python file of ``FOLDERS`` below ``root``, by its path in the repository."""
    paths = sorted(path for folder in FOLDERS for path in (root / folder).rglob("*.py"))
    return {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def files_at(revision: str, root: Path = REPOSITORY) -> dict[str, str]:
    """The same at a commit, a branch or a tag.

    Raises:
        SystemExit: git does not know ``revision``.
    """
    archive = subprocess.run(["git", "-C", str(root), "archive", revision], capture_output=True, check=False)
    if archive.returncode:
        raise SystemExit(f"--base must be a commit, branch or tag that git knows here, got {revision!r}")
    texts = {}
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        for member in files:
            stream = files.extractfile(member) if member.isfile() else None
            if stream is not None and member.name.endswith(".py") and member.name.split("/")[0] in FOLDERS:
                texts[member.name] = stream.read().decode()
    return texts


def measure(texts: Mapping[str, str]) -> Figures:
    """The figures of files given as path and text."""
    figures = Figures(files=len(texts), duplicates=duplicates(texts))
    classes = documented_methods(texts)
    for path, text in texts.items():
        lines = len(text.splitlines())
        figures.lines += lines
        if lines > FILE_LINES:
            figures.long_files.append((path, lines))
        figures.long_functions += [
            ((path, node.lineno), node.name, length)
            for node in statements(text)
            if isinstance(node, _Function) and (length := function_lines(node)) > FUNCTION_LINES
        ]
        if PurePosixPath(path).parts[0] in PACKAGES:
            things = list(public_things(path, text))
            figures.public += len(things)
            figures.undocumented += [
                ((path, getattr(node, "lineno", 1)), name)
                for name, node in things
                if ast.get_docstring(node) is None and not documented_by_base(name, classes)
            ]
    return figures


@cache
def statements(text: str) -> list[_Statement]:
    """The module itself, and each import, class and function of a file, at any depth."""
    return [node for node in ast.walk(ast.parse(text)) if isinstance(node, _Statement)]


def function_lines(node: _Function) -> int:
    """Lines of a function from ``def`` to its end, without its docstring."""
    assert node.end_lineno is not None
    docstring = docstring_lines(node)
    return node.end_lineno - node.lineno + 1 - len(docstring)


def docstring_lines(node: ast.Module | ast.ClassDef | _Function) -> range:
    """The lines of a node's docstring; none where it has none."""
    if ast.get_docstring(node, clean=False) is None:
        return range(0)
    first = node.body[0]
    assert first.end_lineno is not None
    return range(first.lineno, first.end_lineno + 1)


def public_things(path: str, text: str) -> Iterator[tuple[str, ast.Module | ast.ClassDef | _Function]]:
    """Each public module, class, function and method in a file, with its name."""
    parts = [part for part in PurePosixPath(path).with_suffix("").parts if part != "__init__"]
    if not any(part.startswith("_") for part in parts):
        module, tree = ".".join(parts), statements(text)[0]
        assert isinstance(tree, ast.Module)
        yield module, tree
        yield from _public_below(module, tree)


def _public_below(prefix: str, parent: ast.Module | ast.ClassDef) -> Iterator[tuple[str, ast.ClassDef | _Function]]:
    for node in parent.body:
        if isinstance(node, ast.ClassDef | _Function) and not node.name.startswith("_"):
            name = f"{prefix}.{node.name}"
            if not _repeats_a_definition(node):
                yield name, node
            if isinstance(node, ast.ClassDef):
                yield from _public_below(name, node)


def _repeats_a_definition(node: ast.ClassDef | _Function) -> bool:
    """Whether this is another signature (``overload``) or the setter of something that is documented elsewhere."""
    names = {ast.unparse(decorator).rpartition(".")[2] for decorator in node.decorator_list}
    return bool(names & {"overload", "setter", "deleter"})


def documented_methods(texts: Mapping[str, str]) -> Classes:
    """Each class by its bare name: the names of its bases, and those of its methods that have a docstring."""
    classes: Classes = defaultdict(lambda: (set(), set()))
    for text in texts.values():
        for node in statements(text):
            if isinstance(node, ast.ClassDef):
                bases, methods = classes[node.name]
                bases |= {ast.unparse(base).partition("[")[0].rpartition(".")[2] for base in node.bases}
                methods |= {item.name for item in node.body if isinstance(item, _Function) and ast.get_docstring(item)}
    return classes


def documented_by_base(name: str, classes: Classes) -> bool:
    """Whether ``module.Class.method`` is documented by a base of the class, or is a hook that a library documents."""
    *_, owner, method = name.split(".")
    if owner not in classes:
        return False
    pending, seen = [owner], set()
    while pending:
        current = pending.pop()
        bases, methods = classes.get(current, (set(), set()))
        if method in methods:
            return True
        seen.add(current)
        pending += bases - seen
    return _HOOKS.fullmatch(method) is not None


def duplicates(texts: Mapping[str, str]) -> list[Pair]:
    """Pairs of places that share ``DUPLICATE_LINES`` or more lines in a row; of a longer run its beginning."""
    lines = {path: compared_lines(text) for path, text in texts.items()}
    windows: dict[tuple[str, ...], list[tuple[str, int]]] = defaultdict(list)
    for path, numbered in lines.items():
        for start in range(len(numbered) - DUPLICATE_LINES + 1):
            window = tuple(text for _, text in numbered[start : start + DUPLICATE_LINES])
            windows[window].append((path, start))
    pairs = []
    for places in windows.values():
        for (path, start), (other, other_start) in combinations(places, 2):
            overlap = path == other and abs(start - other_start) < DUPLICATE_LINES
            inside = min(start, other_start) > 0 and lines[path][start - 1][1] == lines[other][other_start - 1][1]
            if not overlap and not inside:
                pairs.append(((path, lines[path][start][0]), (other, lines[other][other_start][0])))
    return pairs


@cache
def compared_lines(text: str) -> list[tuple[int, str]]:
    """Number and text of each line that counts when places are compared."""
    left_out: set[int] = set()
    for node in statements(text):
        if isinstance(node, ast.Import | ast.ImportFrom):
            assert node.end_lineno is not None
            left_out |= set(range(node.lineno, node.end_lineno + 1))
    numbered = ((number, line.strip()) for number, line in enumerate(text.splitlines(), start=1))
    return [
        (number, line)
        for number, line in numbered
        if number not in left_out and not line.startswith("#") and re.search(r"\w", line)
    ]


def by_folder(texts: Mapping[str, str], depth: int) -> dict[str, dict[str, str]]:
    """The files grouped by the first ``depth`` folders of their paths."""
    groups: dict[str, dict[str, str]] = {}
    for path, text in texts.items():
        groups.setdefault("/".join(PurePosixPath(path).parent.parts[:depth]), {})[path] = text
    return groups


def table(texts: Mapping[str, str], base: Mapping[str, str] | None, depth: int) -> str:
    """The table; with ``base``, cells that differ show the figure of before, an arrow and the figure of now."""
    now, before = by_folder(texts, depth), by_folder(base or {}, depth)
    folders = sorted(now.keys() | before.keys(), key=lambda folder: (FOLDERS.index(folder.split("/")[0]), folder))
    rows = [["folder", *COLUMNS]]
    for folder, here, earlier in [
        *((folder, now.get(folder, {}), before.get(folder, {})) for folder in folders),
        ("all", texts, base or {}),
    ]:
        cells = measure(here).row()
        if base is not None:
            old = measure(earlier).row()
            cells = [cell if cell == was else f"{was} -> {cell}" for cell, was in zip(cells, old, strict=True)]
        rows.append([folder, *cells])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    )


def listing(figures: Figures) -> str:
    """Each place that is counted, one a line."""
    lines = [f"duplicate: {a}:{i} and {b}:{j}" for (a, i), (b, j) in sorted(figures.duplicates)]
    lines += [f"long function: {path}:{line} {name}, {n} lines" for (path, line), name, n in figures.long_functions]
    lines += [f"long file: {path}, {n} lines" for path, n in figures.long_files]
    lines += [f"no docstring: {path}:{line} {name}" for (path, line), name in figures.undocumented]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Print the table, and with ``--list`` the places."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", metavar="REV", help="a commit, branch or tag to compare with")
    parser.add_argument(
        "--depth", type=int, default=1, help="levels of folders that get a row of their own (default 1)"
    )
    parser.add_argument("--list", action="store_true", help="name each place that is counted")
    options = parser.parse_args(arguments)
    if options.depth < 1:
        parser.error(f"--depth must be at least 1, got {options.depth}")
    texts = files_here()
    base = None if options.base is None else files_at(options.base)
    print(table(texts, base, options.depth))
    if options.list:
        print(listing(measure(texts)))


if __name__ == "__main__":
    main()
