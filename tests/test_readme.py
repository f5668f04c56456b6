"""The README's Python runs exactly as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import torch


def test_library_example(repository: Path) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", (repository / "README.md").read_text(), flags=re.DOTALL)
    torch.manual_seed(0)
    names: dict[str, object] = {}
    exec(compile(block, "README.md", "exec"), names)
    result, logits = names["result"], names["logits"]
    assert isinstance(result, torch.Tensor)
    assert isinstance(logits, torch.Tensor)
    assert result.shape == (2, 2, 10)
    assert logits.shape == (2, 3)
    assert float(result.detach().abs().max()) > 0
