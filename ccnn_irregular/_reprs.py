"""What reprs share: numbers of four digits, modules in one line, how many parameters there are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["coordinates", "lengths", "one_line", "parameter_count", "sized"]


def one_line(module: nn.Module) -> str:
    """The repr of a module whose parts are told by its ``extra_repr``; to be its ``__repr__``."""
    return f"{type(module).__name__}({module.extra_repr()})"


def lengths(values: Tensor | Sequence[float]) -> str:
    """Lengths of the axes to four digits: "3" where they are all the same, else "(3, 0.25)"; "?" where none is known.

    A tensor has no numbers on the meta device and where ``torch.func.vmap`` runs over it.
    """
    shown = list(dict.fromkeys(coordinates(values).strip("()").split(", ")))
    return shown[0] if len(shown) == 1 else coordinates(values)


def coordinates(values: Tensor | Sequence[float]) -> str:
    """Numbers to four digits, one for each axis."""
    if isinstance(values, Tensor):
        try:
            values = values.detach().to(torch.float64).tolist()
        except RuntimeError:
            return "?"
    shown = ", ".join(f"{value:.4g}" for value in values)
    return shown if len(values) == 1 else f"({shown})"


def parameter_count(module: nn.Module) -> int:
    """Numbers that are trained or could be."""
    return sum(parameter.numel() for parameter in module.parameters())


def sized(module: nn.Module) -> str:
    """The number of parameters in words."""
    return f"{parameter_count(module):,} parameters"
