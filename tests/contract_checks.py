"""Checks that a contract is made of: functions of one registered part's name and of the case."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError

__all__ = ["Check", "Checks", "assert_gradients"]


@dataclass(frozen=True)
class Check:
    """One promise in one case.

    Attributes:
        function: called with the name of the part and ``arguments``; raises AssertionError where the promise is broken.
        arguments: the case.
    """

    function: Callable[..., None]
    arguments: tuple[Any, ...]

    def __call__(self, name: str) -> None:
        """Hold the part of this name against it; an engine that says it cannot be used in the case is let pass."""
        try:
            self.function(name, *self.arguments)
        except ValueError as error:
            if not str(error).startswith(f"engine {name!r} cannot be used: "):
                raise

    def __str__(self) -> str:
        return "-".join([self.function.__name__, *map(_shown, self.arguments)])


def _shown(argument: Any) -> str:
    if isinstance(argument, tuple):
        return "x".join(map(_shown, argument))
    return str(argument).replace(" ", "_")


def assert_gradients(function: Callable[..., Tensor], inputs: Sequence[Tensor], *, fast: bool = False) -> None:
    """Gradients equal finite differences."""
    try:
        torch.autograd.gradcheck(function, inputs, fast_mode=fast)
    except GradcheckError as error:
        raise AssertionError(str(error)) from error


class Checks(list[Check]):
    """Checks in the order in which their functions stand."""

    def add(self, cases: Iterable[tuple[Any, ...]] = ((),)) -> Callable[[Callable[..., None]], Callable[..., None]]:
        """Decorator: a check for each case."""

        def added(function: Callable[..., None]) -> Callable[..., None]:
            self.extend(Check(function, tuple(case)) for case in cases)
            return function

        return added
