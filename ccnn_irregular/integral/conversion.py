"""From a trained network to one of any width."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ccnn_irregular._checks import reject, require
from ccnn_irregular.integral.channel_sizes import (
    GROUPS,
    ChannelGroups,
    channel_groups,
    follow_loaded,
    resize,
)
from ccnn_irregular.integral.function_rules import FUNCTIONS
from ccnn_irregular.integral.grouping import plan_of
from ccnn_irregular.integral.interpolation import INTERPOLATIONS
from ccnn_irregular.integral.layer_rules import LAYERS, require_continuous_layers
from ccnn_irregular.integral.layout import NetworkPlan, WeightPlan, reordered
from ccnn_irregular.integral.ordering import Order, distances, shortest_path, variation
from ccnn_irregular.integral.partitions import Partition
from ccnn_irregular.integral.plain import discretise, run
from ccnn_irregular.integral.tracing import Tracer
from ccnn_irregular.integral.weights import GeneratedWeight, SampledWeight
from ccnn_irregular.kernels import GENERATORS, Generator

__all__ = ["convert"]


def convert(
    model: nn.Module,
    example: Any,
    *,
    function: str | Callable[[int, int], Generator] = "cubic",
    rule: str = "midpoint",
    fixed: Sequence[str] = (),
    order: Order | None = shortest_path,
    tolerance: float = 1e-4,
) -> nn.Module:
    """Make the weights of a network continuous functions of their channels.

    Channels that layers share (residual sums, concatenations, depthwise convolutions, heads) form groups, found by
    running ``model`` once. Each group is reordered so that neighbours resemble each other, in all layers alike, and
    every weight along it becomes a function that is sampled where its layer needs it. At full size nothing changes.

    Args:
        model: a network of linear layers, convolutions (1-D to 3-D, grouped, depthwise, transposed), attention, norms,
            embeddings and layers of this package; it is not changed.
        example: what the network is called with: one argument, or a tuple of them. Its shapes matter, its numbers not.
        function: how weights are continuous: a name of ``INTERPOLATIONS``, fitted to the weights; or of
            ``ccnn_irregular.kernels.GENERATORS`` (or a function of the number of coordinates and of values), whose
            weights start anew with the mean square of the old ones and are to be trained.
        rule: quadrature of sums over channels, a name of ``RULES``. Fitted weights are reproduced on all of their own
            nodes, which "gauss_legendre" does not have.
        fixed: names of modules that stay as they are.
        order: from distances of channels to their order, see ``shortest_path`` (any solver of the travelling salesman's
            problem for an open path will do); None = as they are.
        tolerance: largest difference of outputs that passes for rounding, relative to the largest output.

    Returns:
        A copy; ``channel_groups`` tells its groups, ``resize`` gives it another size, ``discretise`` plain layers.

    Raises:
        ValueError: names that are not known; layers that cannot be continuous; a network without any group; outputs
            that differ; a forward pass that holds numbers of channels as constants.
    """
    generated = not (isinstance(function, str) and function in INTERPOLATIONS)
    make = _generator(function) if generated else None
    fixed = tuple(fixed)
    require(not hasattr(model, GROUPS), "model", f"have no attribute {GROUPS} (is it converted already?)", type(model))
    require_continuous_layers(model, fixed)
    result = copy.deepcopy(model)
    training = result.training
    result.eval()
    plan = _trace(result, example, fixed)
    if not plan.resizable():
        reasons = {group.fixed for group in plan.groups} or {"no layer with weights was run"}
        reject("model", "have channels that can be resized", "; ".join(sorted(filter(None, reasons))))
    with torch.no_grad():
        wanted = run(result, example)
    interpolation = "cubic" if generated else str(function)
    device = next(result.parameters()).device
    partitions = {
        number: Partition(plan.groups[number].channels // plan.groups[number].blocks, rule, interpolation).to(device)
        for number in plan.resizable()
    }
    groups = ChannelGroups(plan, partitions)
    groups.variations = _reorder(result, plan, order)
    for weight in plan.weights:
        one = weight, plan.groups, partitions
        _register(result, weight, SampledWeight(*one) if make is None else _generated(weight, plan, partitions, make))
    # No submodule: a Sequential would call it. Each weight has the partitions it needs, and hence the network.
    setattr(result, GROUPS, groups)
    result.register_load_state_dict_post_hook(follow_loaded)  # a checkpoint may be of another size
    if not generated:
        groups.error = _difference(_outputs(_run_without_gradient(result, example)), _outputs(wanted))
        rule_text = f"keep the outputs to {tolerance:g} (rule {rule!r}, function {function!r}); see fixed= and order="
        require(groups.error <= tolerance, "model", rule_text, f"a difference of {groups.error:.2g}")
    _try_smaller(result, example, fixed)
    return result.train(training)


def _generator(function: str | Callable[[int, int], Generator]) -> Callable[[int, int], Generator]:
    if not isinstance(function, str):
        return function
    known = sorted([*INTERPOLATIONS, *GENERATORS])
    require(function in GENERATORS, "function", f"be one of {known}", repr(function))
    return GENERATORS[function]


def _generated(
    weight: WeightPlan, plan: NetworkPlan, partitions: Mapping[int, Partition], make: Callable[[int, int], Generator]
) -> nn.Module:
    """Biases and norms, and what several groups or blocks lie along, are interpolated."""
    if not GeneratedWeight.suits(weight, plan.groups):
        return SampledWeight(weight, plan.groups, partitions)
    return GeneratedWeight(weight, plan.groups, partitions, make)


def _trace(model: nn.Module, example: Any, fixed: tuple[str, ...]) -> NetworkPlan:
    tracer = Tracer(model, FUNCTIONS, LAYERS, fixed)
    tracer.trace(lambda: run(model, example))
    shapes = {name: tuple(tensor.shape) for name, tensor in [*model.named_parameters(), *model.named_buffers()]}
    return plan_of(tracer, shapes)


@torch.no_grad()
def _run_without_gradient(model: nn.Module, example: Any) -> Any:
    return run(model, example)


def _outputs(outputs: Any) -> list[Tensor]:
    leaves = torch.utils._pytree.tree_leaves(outputs)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def _difference(found: list[Tensor], wanted: list[Tensor]) -> float:
    """Largest difference relative to the largest value, over all outputs."""
    pairs = zip(found, wanted, strict=True)
    wide = ((a.to(torch.float64), b.to(torch.float64)) for a, b in pairs if b.numel())
    return max((float((a - b).abs().max() / b.abs().max().clamp(min=1e-300)) for a, b in wide), default=0.0)


@torch.no_grad()
def _reorder(model: nn.Module, plan: NetworkPlan, order: Order | None) -> dict[int, tuple[float, float]]:
    """Reorder the channels of all groups; total variations before and after."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    orders: dict[int, np.ndarray] = {}
    variations = {}
    for number, between in distances(plan, tensors).items():
        group = plan.groups[number]
        size = group.channels // group.blocks
        given = np.arange(group.channels)
        found = given
        if order is not None:
            starts = range(0, group.channels, size)
            found = np.concatenate(
                [start + order(between[start : start + size, start : start + size]) for start in starts]
            )
            sorted_ = np.array_equal(np.sort(found), given)
            require(sorted_, "order", "give each channel of a block once", found)
        orders[number] = found
        variations[number] = variation(between, given, group.blocks), variation(between, found, group.blocks)
    indices = {number: torch.from_numpy(found) for number, found in orders.items()}
    for weight in plan.weights:
        tensor = tensors[weight.name]
        values = tensor.detach().reshape(weight.shape)
        here = {number: index.to(tensor.device) for number, index in indices.items()}
        for axis, along in weight.axes.items():
            values = reordered(values, axis, along, here)
        tensor.copy_(values.reshape(tensor.shape))
    return variations


def _register(model: nn.Module, weight: WeightPlan, function: nn.Module) -> None:
    module = model.get_submodule(weight.layer)
    tensor = getattr(module, weight.name.rpartition(".")[2])
    if isinstance(function, GeneratedWeight):
        function.generator.to(tensor.device, tensor.dtype)
    # Unsafe only in that a gain of another shape may stand for a weight.
    parametrize.register_parametrization(module, weight.name.rpartition(".")[2], function, unsafe=True)


def _try_smaller(model: nn.Module, example: Any, fixed: tuple[str, ...]) -> None:
    """Run the network at half its size once: its channels must lie along its weights as they do at full size."""
    groups = channel_groups(model)
    plan, full = groups.plan, {}
    for number in plan.resizable():
        multiple = groups.multiple(number)
        half = round(plan.groups[number].channels / 2 / multiple) * multiple
        full[number] = max(half, min(2 * multiple, plan.groups[number].channels))
    resize(model, sizes={plan.groups[number].name: size for number, size in full.items()})
    smaller = discretise(model)
    tracer = Tracer(smaller, FUNCTIONS, LAYERS, fixed)
    advice = "compute numbers of channels from its tensors' shapes; or name the modules at fault in fixed="
    try:
        tracer.trace(lambda: run(smaller, example))
    except (RuntimeError, ValueError, IndexError, TypeError, AssertionError) as error:
        raise ValueError(f"model must {advice}, got at half its size: {error}") from error
    shapes = {name: tuple(tensor.shape) for name, tensor in [*smaller.named_parameters(), *smaller.named_buffers()]}
    found = {weight.name: weight for weight in plan_of(tracer, shapes).weights}
    for weight in plan.weights:
        for axis, along in weight.axes.items():
            lengths = [plan.length([segment], full) for segment in along.segments]
            now = found[weight.name].axes.get(axis) if weight.name in found else None
            same = now is not None and [segment.length for segment in now.segments] == lengths
            got = f"other channels along {weight.name} at half its size"
            require(same, "model", advice, got)
    resize(model, 1.0)
