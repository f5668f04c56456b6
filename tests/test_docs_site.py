"""The documentation is built without a warning, holds every document and module, and fetches nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
# The tools are scripts that stand side by side, not a package.
sys.path.insert(0, str(REPOSITORY / "tools"))

import docs_tree  # noqa: E402


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as ``make docs`` builds it, in folders of this test."""
    root = tmp_path_factory.mktemp("documentation")
    folder, configuration = root / "site", root / "mkdocs.yml"
    docs_tree.main(root / "docs")
    text = (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8")
    configuration.write_text(text.replace("build/docs/", "docs/"), encoding="utf-8")
    process = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=root,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return folder


def test_holds_every_document(site: Path) -> None:
    documents = [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md")]
    pages = [path.relative_to(REPOSITORY).with_suffix("").as_posix() for path in documents]
    assert all((site / page.replace("README", "") / "index.html").is_file() for page in pages)
    navigation = (REPOSITORY / "mkdocs.yml").read_text()
    assert [page for page in pages if f" {page}.md\n" not in navigation] == [], "not in the navigation of mkdocs.yml"


def test_holds_every_module(site: Path) -> None:
    modules = [name for name, _ in docs_tree.public_modules()]
    assert {"ccnn_irregular", "ccnn_irregular.datasets.mnist", "ccnn_irregular.kernels.masks"} <= set(modules)
    listed = (site / "reference" / "index.html").read_text()
    for name in modules:
        assert f"{name}/" in listed
    masks = (site / "reference" / "ccnn_irregular.kernels.masks" / "index.html").read_text()
    assert 'id="ccnn_irregular.kernels.masks.GaussianMask"' in masks


def test_fetches_nothing(site: Path) -> None:
    page = (site / "index.html").read_text()
    loaded = re.findall(
        r"<(?:script|img)[^>]* src=\"?(http[^\" >]*)|<link[^>]*stylesheet[^>]* href=\"?(http[^\" >]*)", page
    )
    assert loaded == []
