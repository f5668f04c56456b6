"""Constants of a module that are exact in every dtype."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor, nn

__all__ = ["ExactBuffers"]


class ExactBuffers(nn.Module):
    """A module with buffers that hold given numbers to the last digit of its dtype.

    A module is built in the default dtype, float32 as a rule, and ``.to(torch.float64)`` would carry the
    rounding along: an extent of 0.1 would be 0.10000000149. These buffers are rounded anew from the numbers
    given, unless another value has been loaded or written since; and written anew when a module that was built on
    the meta device gets memory.
    """

    def __init__(self) -> None:
        super().__init__()
        self._exact: dict[str, tuple[float, ...]] = {}

    def register_exact_buffer(self, name: str, numbers: Sequence[float]) -> None:
        """A buffer ``name`` of these numbers, ``(len(numbers),)``, in the default dtype."""
        self._exact[name] = tuple(map(float, numbers))
        self.register_buffer(name, torch.tensor(self._exact[name], dtype=torch.get_default_dtype()))

    def exact_numbers(self, name: str) -> tuple[float, ...]:
        """The numbers of a buffer: those given, unless another value has been loaded or written since."""
        buffer, numbers = self.get_buffer(name), self._exact[name]
        if buffer.is_meta or torch.equal(buffer, torch.tensor(numbers, dtype=buffer.dtype, device=buffer.device)):
            return numbers
        return tuple(buffer.tolist())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        before = {name: self.get_buffer(name) for name in self._exact}
        super()._apply(fn, recurse)
        for name, numbers in self._exact.items():
            rounded, buffer = before[name], self.get_buffer(name)
            if buffer.is_meta or (buffer.dtype == rounded.dtype and not rounded.is_meta):
                continue
            first = torch.tensor(numbers, dtype=rounded.dtype, device=rounded.device)
            if rounded.is_meta or torch.equal(rounded, first):
                setattr(self, name, torch.tensor(numbers, dtype=buffer.dtype, device=buffer.device))
        return self
