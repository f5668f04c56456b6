"""The figures of ``make style``: what is counted, and the limits that hold."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
# The tools are scripts that stand side by side, not a package.
sys.path.insert(0, str(REPOSITORY / "tools"))

import style  # noqa: E402

SHARED = "\n".join(f"    total_{number} = step(total_{number})" for number in range(7))


@pytest.fixture(scope="module")
def installed() -> style.Figures:
    """The figures of the folders that are installed."""
    texts = {path: text for path, text in style.files_here().items() if path.split("/")[0] in style.PACKAGES}
    return style.measure(texts)


def test_every_public_name_has_a_docstring(installed: style.Figures) -> None:
    assert installed.public > 1000
    assert installed.undocumented == []


def test_files_are_short(installed: style.Figures) -> None:
    """None over 400 lines in pipelines/, and at most four elsewhere, each of which is one concept."""
    long = [path for path, _ in installed.long_files]
    assert [path for path in long if path.startswith("pipelines/")] == []
    assert len(long) <= 4


def test_a_run_shared_by_two_places_counts_once() -> None:
    texts = {"datasets/a.py": f"def a():\n{SHARED}\n", "pipelines/b.py": f"# another\n\ndef b():\n    x()\n{SHARED}\n"}
    assert style.duplicates(texts) == [(("datasets/a.py", 2), ("pipelines/b.py", 5))]


def test_three_places_are_three_pairs() -> None:
    texts = {f"pipelines/{name}.py": f"def {name}():\n{SHARED}\n" for name in "abc"}
    assert len(style.duplicates(texts)) == 3


def test_indentation_comments_imports_and_brackets_do_not_count() -> None:
    spread = "\n        ()\n        # why\n\n        import os\n".join("    " + line for line in SHARED.splitlines())
    texts = {"datasets/a.py": f"def a():\n{SHARED}\n", "datasets/b.py": f"def b():\n    if x:\n{spread}\n"}
    assert style.duplicates(texts) == [(("datasets/a.py", 2), ("datasets/b.py", 3))]


def test_repeated_lines_within_one_place_do_not_overlap() -> None:
    assert style.duplicates({"datasets/a.py": "\n".join(["step()"] * 11)}) == []
    assert style.duplicates({"datasets/a.py": "\n".join(["step()"] * 12)}) != []


def test_long_functions_are_counted_without_docstring() -> None:
    body = "\n".join("    step()" for _ in range(40))
    docstring = '    """One line.\n\n    More.\n    """\n'
    short = style.measure({"tools/a.py": f"def short():\n{docstring}{body[:-11]}\n"})
    long = style.measure({"tools/a.py": f"class A:\n  def long(self):\n{docstring}{body}\n"})
    assert short.long_functions == []
    assert long.long_functions == [(("tools/a.py", 2), "long", 41)]


def test_long_files_are_named() -> None:
    figures = style.measure({"tools/a.py": "step()\n" * 400, "tools/b.py": "other()\n" * 401})
    assert figures.long_files == [("tools/b.py", 401)]
    assert (figures.files, figures.lines) == (2, 801)


def test_what_needs_a_docstring() -> None:
    text = '''"""A module."""
class Base:
    """A class."""
    def documented(self):
        """A method."""
    def _private(self): ...
class Child(Base):
    """A class."""
    def documented(self): ...
    def training_step(self): ...
    def missing(self): ...
    @property
    def size(self):
        """A number."""
    @size.setter
    def size(self, value): ...
def function(): ...
class _Private:
    def method(self): ...
'''
    figures = style.measure({"pipelines/a.py": text, "pipelines/_b.py": "def f(): ...\n", "tests/c.py": "x = 1\n"})
    assert [name for _, name in figures.undocumented] == ["pipelines.a.Child.missing", "pipelines.a.function"]
    assert figures.public == 9
    assert figures.row()[-1] == "77.8%"


def test_before_and_after(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    for folder in style.FOLDERS:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.py").write_text("step()\n")
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    (tmp_path / "tools" / "a.py").write_text("step()\nstep()\n")
    (tmp_path / "tools" / "sub").mkdir()
    (tmp_path / "tools" / "sub" / "b.py").write_text("step()\n")
    now, before = style.files_here(tmp_path), style.files_at("HEAD", tmp_path)
    assert before["tools/a.py"] == "step()\n"
    rows = {line.split()[0]: line.split()[1:] for line in style.table(now, before, depth=1).splitlines()}
    assert rows["tools"][:6] == ["1", "->", "2", "1", "->", "3"]
    assert rows["tests"][:3] == ["1", "1", "0"]
    assert "tools/sub" in style.table(now, None, depth=2)
    with pytest.raises(SystemExit, match="--base must be a commit, branch or tag"):
        style.files_at("nothing", tmp_path)


def test_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(style, "files_here", lambda: {"datasets/a.py": "def f(): ...\n"})
    style.main(["--list"])
    printed = capsys.readouterr().out
    assert "no docstring: datasets/a.py:1 datasets.a.f" in printed
    with pytest.raises(SystemExit):
        style.main(["--depth", "0"])
