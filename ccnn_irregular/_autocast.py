"""Keep full precision under ``torch.autocast``: positions do not survive the eight bits of bfloat16."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

__all__ = ["outside_autocast"]

_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")

_DEVICES = ("cpu", "cuda")


def outside_autocast(function: Callable[_Given, _Result]) -> Callable[_Given, _Result]:
    """Run a function with autocast off: tensors of autocast's dtype among its arguments become float32 first."""

    @wraps(function)
    def run(*args: _Given.args, **options: _Given.kwargs) -> _Result:
        devices = [device for device in _DEVICES if torch.is_autocast_enabled(device)]
        if not devices:
            return function(*args, **options)
        low = {torch.get_autocast_dtype(device) for device in devices}
        with ExitStack() as stack:
            for device in devices:
                stack.enter_context(torch.autocast(device, enabled=False))
            widened = [_widened(value, low) for value in args]
            return function(*widened, **{name: _widened(value, low) for name, value in options.items()})  # type: ignore[arg-type]

    return run


def _widened(argument: object, low: set[torch.dtype]) -> object:
    return argument.float() if isinstance(argument, Tensor) and argument.dtype in low else argument
