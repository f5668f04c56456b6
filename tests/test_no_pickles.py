"""Files from strangers are never unpickled: neither by us nor by a class of a library that does so."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

# What a call must say, or None where it may not be made at all.
CALLS: dict[str, tuple[str, bool] | None] = {
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "numpy.load": ("allow_pickle", False),
    "pickle.load": None,
    "pickle.loads": None,
    "joblib.load": None,
    "yaml.load": None,
    "pd.read_pickle": None,
}
# torch-geometric's data sets keep what they have parsed as pickles.
MODULES = ("torch_geometric.datasets", "dill", "cloudpickle")


def faults(source: str) -> list[str]:
    """What a module does that could run code of a file it reads."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom | ast.Import):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [name.name for name in node.names]
            found += [f"line {node.lineno}: imports {name}" for name in names if name.startswith(MODULES)]
        if isinstance(node, ast.Call) and (name := ast.unparse(node.func)) in CALLS:
            needed = CALLS[name]
            said = {word.arg: ast.unparse(word.value) for word in node.keywords}
            if needed is None or said.get(needed[0]) != str(needed[1]):
                found.append(f"line {node.lineno}: {ast.unparse(node)}")
    return found


@pytest.mark.parametrize("folder", ["ccnn_irregular", "datasets", "pipelines"])
def test_nothing_unpickles(repository: Path, folder: str) -> None:
    files = sorted((repository / folder).rglob("*.py"))
    assert files
    found = {str(path): wrong for path in files if (wrong := faults(path.read_text(encoding="utf-8")))}
    assert not found


def test_what_would_unpickle_is_found() -> None:
    assert faults("import torch\ntorch.load(path)") == ["line 2: torch.load(path)"]
    assert faults("torch.load(path, weights_only=False)")
    assert not faults("torch.load(path, weights_only=True)")
    assert faults("np.load(path)")
    assert not faults("np.load(path, allow_pickle=False)")
    assert faults("import pickle\npickle.loads(b'')")
    assert faults("from torch_geometric.datasets import ModelNet")
