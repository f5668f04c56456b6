"""Train a network at other widths through its own parameters."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ccnn_irregular.integral.channel_sizes import channel_groups
from ccnn_irregular.integral.conversion import convert
from ccnn_irregular.integral.ordering import Order

__all__ = ["shared_copy"]


def shared_copy(model: nn.Module, example: Any, *, order: Order | None = None) -> nn.Module:
    """A converted copy that has no parameters of its own: gradients at any width reach those of ``model``.

    So ``model`` is trained for all widths and stays what it is: its checkpoints are those of a plain network. At full
    width the copy computes what ``model`` does, for its functions pass through the weights themselves ("midpoint" rule,
    cubic convolution). Buffers, running statistics of norms among them, are the copy's own.

    Args:
        model: see ``convert``.
        example: see there.
        order: see there; channels of ``model`` are put into that order, in place. None = they stay: right for a network
            that is trained from the start, or was trained in this way before.

    Returns:
        The copy, for ``resize`` and ``resize_randomly``. It lives as long as the parameters of ``model`` stay the same
        objects.
    """
    copy = convert(model, example, order=order)
    along = {weight.name for weight in channel_groups(copy).plan.weights}
    if order is not None:
        with torch.no_grad():
            for name in along:
                layer, own = _owner(model, name)
                getattr(layer, own).copy_(getattr(_owner(copy, name)[0], own))
    for name, parameter in model.named_parameters(remove_duplicate=False):
        layer, own = _owner(copy, name)
        if name in along:
            layer.parametrizations[own].original = parameter  # type: ignore[union-attr, index]
        else:
            setattr(layer, own, parameter)
    return copy


def _owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The layer that holds a parameter or a buffer, and its name there."""
    layer, _, own = name.rpartition(".")
    return model.get_submodule(layer), own
