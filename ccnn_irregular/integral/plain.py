"""Plain layers again: weights of the present sizes, and batch norms measured anew."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from ccnn_irregular._checks import require
from ccnn_irregular.integral.channel_sizes import GROUPS, channel_groups, follow_loaded

__all__ = ["discretise", "recalibrate", "run"]


def discretise(model: nn.Module) -> nn.Module:
    """A copy with plain weights of the present sizes: smaller and faster, and of the layers that ``model`` was of."""
    groups = channel_groups(model)
    result = copy.deepcopy(model)
    for layer in {weight.layer for weight in groups.plan.weights}:
        _make_plain(result.get_submodule(layer))
    delattr(result, GROUPS)
    hooks = result._load_state_dict_post_hooks
    for key in [key for key, hook in hooks.items() if hook is follow_loaded]:
        del hooks[key]
    return result


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Iterable[Any]) -> None:
    """Measure the running statistics of all batch norms anew, as plain means over ``batches``; weights stay.

    Args:
        model: plain layers, from ``discretise``.
        batches: what the network is called with, one argument or a tuple of them each.

    Raises:
        ValueError: a network that is not discretised.
    """
    require(not hasattr(model, GROUPS), "model", "be discretised first", "an integral network")
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return  # there is nothing to measure
    kept = [(norm, norm.training, norm.momentum) for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.train()
        norm.momentum = None  # the mean of all batches
    try:
        for batch in batches:
            run(model, batch)
    finally:
        for norm, training, momentum in kept:
            norm.train(training)
            norm.momentum = momentum


def _make_plain(layer: nn.Module) -> None:
    """Put the present weights in the place of their parametrizations.

    ``parametrize.remove_parametrizations`` takes the weight's property from the layer's class, which deep copies share
    with the layer that they were copied from.
    """
    parametrizations = layer.parametrizations
    assert isinstance(parametrizations, nn.ModuleDict)
    values = {name: getattr(layer, name).detach().clone() for name in parametrizations}
    originals = {name: held.original for name, held in parametrizations.items()}
    del layer.parametrizations
    layer.__class__ = type(layer).__bases__[0]
    for name, value in values.items():
        original = originals[name]
        if isinstance(original, nn.Parameter):
            layer.register_parameter(name, nn.Parameter(value, requires_grad=original.requires_grad))
        else:
            layer.register_buffer(name, value)


def run(model: nn.Module, example: Any) -> Any:
    """Call a network with one argument, or with a tuple of them."""
    return model(*example) if isinstance(example, tuple) else model(example)
