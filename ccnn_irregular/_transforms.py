"""Detect torch's function transforms (``torch.func``) and forward-mode differentiation."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd import forward_ad

__all__ = ["as_numpy", "is_batched", "transforms_active"]


def transforms_active() -> bool:
    """Tell whether a transform of ``torch.func`` or a level of forward-mode differentiation is active.

    They take tensor operations only: neither the functions with a backward pass of their own that make engines fast
    nor the hooks that count a kernel's work.
    """
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def is_batched(tensor: Tensor) -> bool:
    """Tell whether ``torch.func.vmap`` runs over the tensor, so that no number can be read from it."""
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        if torch._C._functorch.is_batchedtensor(tensor):
            return True
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return False


def as_numpy(tensor: Tensor) -> NDArray[Any]:
    """Return the numbers of a tensor on the CPU, without gradients; ``Tensor.numpy`` refuses inside of transforms."""
    tensor = tensor.detach()  # first: what an operation returns is inside of the transforms again
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return np.from_dlpack(tensor)
