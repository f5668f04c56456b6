"""Other tensors in place of a module's parameters, without writing to the module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from torch import Tensor, nn

__all__ = ["with_tensors"]

Module = TypeVar("Module", bound=nn.Module)


def with_tensors(module: Module, tensors: Mapping[str, Tensor]) -> Module:
    """A module like ``module`` with other tensors in place of some parameters; all else is shared, nothing copied.

    ``torch.func.functional_call`` puts the tensors into the module itself and takes them out again: another thread that
    calls the module meanwhile reads them, and what it puts back is what it found.

    Args:
        module: is not written to; it must reach its parameters and submodules through ``self``.
        tensors: by the parameter's name; a parameter of several names is replaced under all of them.
    """
    known = dict(module.named_parameters())
    return _twin(module, {id(known[name]): tensor for name, tensor in tensors.items()})


def _twin(module: Module, replaced: Mapping[int, Tensor]) -> Module:
    """A new object of the module's class and of all below it, with dictionaries of their own."""
    twin = module.__new__(type(module))
    parameters = {name: replaced.get(id(parameter), parameter) for name, parameter in module._parameters.items()}
    children = {name: None if child is None else _twin(child, replaced) for name, child in module._modules.items()}
    attributes = {"_parameters": parameters, "_modules": children, "_buffers": dict(module._buffers)}
    object.__setattr__(twin, "__dict__", vars(module) | attributes)
    return twin
