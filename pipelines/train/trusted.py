"""Which classes a configuration or a checkpoint may name, and how much memory it may ask for: both can be a stranger's.

A class path is imported and called, which runs its code. So only this package's classes, some of Lightning's, and those
of modules that the user names (``--plugins``, ``trust``) are taken; jsonargparse refuses all others before an import.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jsonargparse
import torch
from jsonargparse import set_parsing_settings
from torch.utils._python_dispatch import TorchDispatchMode

from ccnn_irregular._checks import reject, require

__all__ = ["bounded_by", "import_plugins", "known_classes_only", "trust"]

_CALLBACKS = "lightning.pytorch.callbacks"
_LOGGERS = "lightning.pytorch.loggers"
# Of a prefix and a longer one that both fit, the longer one decides.
_KNOWN = [
    "ccnn_irregular",
    _CALLBACKS,
    # The others speak to a server.
    *(f"{_LOGGERS}.{name}" for name in ("CSVLogger", "csv_logs", "TensorBoardLogger", "tensorboard")),
    "lightning.pytorch.strategies",
    "lightning.pytorch.profilers",
]
_UNKNOWN = [
    "*",
    # It calls functions it is given.
    *(f"{_CALLBACKS}.{name}" for name in ("LambdaCallback", "lambda_function")),
]
# What a network may need beside its weights, such as quadrature nodes, and while it is built.
_TIMES_FILE = 4
_SPARE = 256 * 2**20


_trusted: list[str] = []  # by the user, in this process


@contextmanager
def known_classes_only() -> Iterator[None]:
    """Let parsers take classes of known modules alone, and call nothing where an option takes any value.

    Until the end of the context, then all is as before: jsonargparse has these settings for a whole process, in which a
    program may have parsers of its own.
    """
    before = dict(jsonargparse._common.parsing_settings)
    set_parsing_settings(
        import_path_denylist=_UNKNOWN,
        import_path_allowlist=[*_KNOWN, *_trusted],
        instantiate_subclass_spec_in_any=False,
    )
    try:
        yield
    finally:
        jsonargparse._common.parsing_settings.update(before)


def trust(module: str) -> None:
    """Let configurations and checkpoints name classes of a module, and of those below it.

    Args:
        module: its full name; it is code that you would run.

    Raises:
        ValueError: no name of a module.
    """
    named = bool(module) and all(part.isidentifier() for part in module.split("."))
    require(named, "module", "be the full name of a Python module", repr(module))
    _trusted.append(module)


def import_plugins(names: Sequence[str]) -> None:
    """Import what the user names by ``--plugins``, and trust it.

    Args:
        names: full names of modules or packages, or paths of files ``.py``, whose classes are known by the file's stem.

    Raises:
        ValueError: no module of this name, or no such file.
    """
    rule = "name Python modules that can be imported, or files NAME.py"
    for name in names:
        if name.endswith(".py"):
            require(Path(name).is_file(), "plugins", rule, f"{name}, where there is no file")
            trust(Path(name).stem)
            _import_file(Path(name))
            continue
        trust(name)
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            reject("plugins", rule, f"{name} ({error})")


def _import_file(path: Path) -> None:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None  # the name ends in .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)


@contextmanager
def bounded_by(path: str | Path | None) -> Iterator[None]:
    """Refuse to make tensors that a checkpoint has no room for: its options tell sizes, and may tell any.

    Args:
        path: the checkpoint that a network is built from in this context; where there is none, nothing is bounded.

    Raises:
        ValueError: before memory is taken.
    """
    if path is None or not Path(path).is_file():
        yield
        return
    size = Path(path).stat().st_size
    with _Bounded(_TIMES_FILE * size + _SPARE, f"{path} of {size / 1e6:,.1f} MB"):
        yield


class _Bounded(TorchDispatchMode):
    """Adds up what is made anew. What is freed is not taken off, for a network keeps what it makes."""

    def __init__(self, most: int, file: str) -> None:
        super().__init__()
        self.left = most
        self.most = most
        self.file = file

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        shape = args[0] if args and not isinstance(args[0], torch.Tensor) else kwargs.get("size")
        if isinstance(shape, (list, tuple)) and all(type(extent) is int for extent in shape):
            self.left -= math.prod(shape) * (kwargs.get("dtype") or torch.get_default_dtype()).itemsize
        if self.left < 0:
            rule = f"describe a network that fits its own weights (at most {self.most / 1e6:,.0f} MB)"
            reject("ckpt_path", rule, f"{self.file}, whose options ask for a tensor of shape {tuple(shape)}")
        return func(*args, **kwargs)
