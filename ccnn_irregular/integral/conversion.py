"""From a trained network to one of any width, and to plain layers again."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ccnn_irregular._checks import reject, require
from ccnn_irregular.integral.function_rules import FUNCTIONS
from ccnn_irregular.integral.grouping import plan_of
from ccnn_irregular.integral.interpolation import INTERPOLATIONS
from ccnn_irregular.integral.layer_rules import LAYERS, require_continuous_layers
from ccnn_irregular.integral.layout import AttributePlan, NetworkPlan, WeightPlan, reordered
from ccnn_irregular.integral.ordering import Order, distances, shortest_path, variation
from ccnn_irregular.integral.partitions import Partition
from ccnn_irregular.integral.tracing import Tracer
from ccnn_irregular.integral.weights import GeneratedWeight, SampledWeight
from ccnn_irregular.kernels import GENERATORS, Generator

__all__ = [
    "ChannelGroups",
    "channel_groups",
    "convert",
    "discretise",
    "learn_partitions",
    "recalibrate",
    "resize",
    "resize_randomly",
]

_NAME = "channel_groups"


@final
class ChannelGroups:
    """The groups of channels of an integral network, printable: sizes, layers, why some are fixed.

    Attributes:
        plan: groups and where they lie.
        partitions: by the number of the group.
        variations: total variation of the weights along the channels by group: as they came, and as reordered.
        error: largest difference of the outputs at full size, divided by the largest output; nan where the weights
            are generated.
    """

    def __init__(self, plan: NetworkPlan, partitions: Mapping[int, Partition]) -> None:
        self.plan = plan
        self.partitions = dict(partitions)
        self.variations: dict[int, tuple[float, float]] = {}
        self.error = math.nan

    @property
    def sizes(self) -> dict[str, int]:
        """Present number of channels of each group that can be resized, by name."""
        return {self.plan.groups[number].name: size for number, size in self.numbers().items()}

    def numbers(self) -> dict[int, int]:
        """Present number of channels by the number of the group."""
        blocks = self.plan.groups
        return {number: self.partitions[number].size * blocks[number].blocks for number in self.plan.resizable()}

    def multiple(self, number: int) -> int:
        """Numbers of channels of a group are multiples of this."""
        own = self.plan.groups[number].family
        return math.lcm(*(group.blocks for group in self.plan.groups if group.family == own))

    def smallest(self, number: int) -> int:
        """Least number of channels of a group."""
        multiple = self.multiple(number)
        own = self.plan.groups[number].family
        least = max(
            self.partitions[other].smallest * self.plan.groups[other].blocks
            for other in self.plan.resizable()
            if self.plan.groups[other].family == own
        )
        return math.ceil(least / multiple) * multiple

    def __str__(self) -> str:
        rows = [("group", "channels", "of", "blocks", "variation", "layers, or why it is fixed")]
        sizes = self.numbers()
        for number, group in enumerate(self.plan.groups):
            if group.fixed is not None:
                rows.append((group.name, str(group.channels), str(group.channels), "", "", f"fixed: {group.fixed}"))
                continue
            before, after = self.variations.get(number, (math.nan, math.nan))
            change = f"{before:.3g} -> {after:.3g}"
            size = str(sizes[number])
            row = (group.name, size, str(group.channels), str(group.blocks), change, ", ".join(group.layers))
            rows.append(row)
        widths = [max(len(row[column]) for row in rows) for column in range(5)]
        lines = [
            "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[5]]) for row in rows
        ]
        return "\n".join(lines)


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
    require(not hasattr(model, _NAME), "model", f"have no attribute {_NAME} (is it converted already?)", type(model))
    require_continuous_layers(model, fixed)
    result = copy.deepcopy(model)
    training = result.training
    result.eval()
    plan = _trace(result, example, fixed)
    if not plan.resizable():
        reasons = {group.fixed for group in plan.groups} or {"no layer with weights was run"}
        reject("model", "have channels that can be resized", "; ".join(sorted(filter(None, reasons))))
    with torch.no_grad():
        wanted = _run(result, example)
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
    setattr(result, _NAME, groups)
    result.register_load_state_dict_post_hook(_follow_loaded)  # a checkpoint may be of another size
    if not generated:
        groups.error = _difference(_outputs(_run_without_gradient(result, example)), _outputs(wanted))
        rule_text = f"keep the outputs to {tolerance:g} (rule {rule!r}, function {function!r}); see fixed= and order="
        require(groups.error <= tolerance, "model", rule_text, f"a difference of {groups.error:.2g}")
    _try_smaller(result, example, fixed)
    return result.train(training)


def channel_groups(model: nn.Module) -> ChannelGroups:
    """The groups of a converted network; print them.

    Raises:
        ValueError: a network that was not converted.
    """
    groups = getattr(model, _NAME, None)
    if not isinstance(groups, ChannelGroups):
        reject("model", "be converted by ccnn_irregular.integral.convert", type(model).__name__)
    return groups


def resize(model: nn.Module, ratio: float | None = None, sizes: Mapping[str, int] | None = None) -> nn.Module:
    """Give a converted network other numbers of channels, in place; its functions stay what they are.

    Args:
        model: from ``convert``.
        ratio: share of the full number of channels of every group; rounded to whole blocks. May exceed 1.
        sizes: number of channels by name of the group (``print(channel_groups(model))`` lists them); others stay.

    Returns:
        The same network.

    Raises:
        ValueError: neither or both given; names or numbers that do not fit, groups with different sizes that must be
            equal.
    """
    groups = channel_groups(model)
    require((ratio is None) != (sizes is None), "ratio", "be given, or sizes, but not both", (ratio, sizes))
    if ratio is not None:
        require(math.isfinite(ratio) and ratio > 0, "ratio", "be positive and finite", ratio)
        wanted = _sizes_of_ratio(groups, ratio)
    else:
        assert sizes is not None
        wanted = _checked_sizes(groups, sizes)
    for number, size in wanted.items():
        groups.partitions[number].resize(size // groups.plan.groups[number].blocks)
    _set_attributes(model, groups)
    return model


def resize_randomly(
    model: nn.Module, lowest: float = 0.5, highest: float = 1.0, generator: torch.Generator | None = None
) -> nn.Module:
    """Draw a ratio from [lowest, highest] and resize; before each step of training it makes a network for all sizes.

    Raises:
        ValueError: ends that are not in order.
    """
    require(0 < lowest <= highest < math.inf, "lowest", "be positive, and at most highest", (lowest, highest))
    share = float(torch.rand((), generator=generator))
    return resize(model, lowest + share * (highest - lowest))


def learn_partitions(model: nn.Module, learned: bool = True) -> list[nn.Parameter]:
    """Let training move the places at which weights are sampled, and nothing else.

    Args:
        model: from ``convert``, resized.
        learned: False = weights are trained again, and the places stay.

    Returns:
        The parameters to hand to an optimiser.
    """
    groups = channel_groups(model)
    for parameter in model.parameters():
        parameter.requires_grad_(not learned)
    for number in groups.plan.resizable():
        groups.partitions[number].learn(learned)
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def discretise(model: nn.Module) -> nn.Module:
    """A copy with plain weights of the present sizes: smaller and faster, and of the layers that ``model`` was of."""
    groups = channel_groups(model)
    result = copy.deepcopy(model)
    for layer in {weight.layer for weight in groups.plan.weights}:
        _make_plain(result.get_submodule(layer))
    delattr(result, _NAME)
    hooks = result._load_state_dict_post_hooks
    for key in [key for key, hook in hooks.items() if hook is _follow_loaded]:
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
    require(not hasattr(model, _NAME), "model", "be discretised first", "an integral network")
    norms = [one for one in model.modules() if isinstance(one, nn.modules.batchnorm._BatchNorm)]
    kept = [(norm, norm.training, norm.momentum) for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.train()
        norm.momentum = None  # the mean of all batches
    try:
        for batch in batches:
            _run(model, batch)
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
    tracer.trace(lambda: _run(model, example))
    shapes = {name: tuple(one.shape) for name, one in [*model.named_parameters(), *model.named_buffers()]}
    return plan_of(tracer, shapes)


def _run(model: nn.Module, example: Any) -> Any:
    return model(*example) if isinstance(example, tuple) else model(example)


@torch.no_grad()
def _run_without_gradient(model: nn.Module, example: Any) -> Any:
    return _run(model, example)


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


def _sizes_of_ratio(groups: ChannelGroups, ratio: float) -> dict[int, int]:
    wanted = {}
    for number in groups.plan.resizable():
        multiple = groups.multiple(number)
        size = round(groups.plan.groups[number].channels * ratio / multiple) * multiple
        wanted[number] = max(size, groups.smallest(number))
    return wanted


def _checked_sizes(groups: ChannelGroups, sizes: Mapping[str, int]) -> dict[int, int]:
    names = {groups.plan.groups[number].name: number for number in groups.plan.resizable()}
    now = groups.numbers()
    wanted = {}
    for name, size in sizes.items():
        require(name in names, "sizes", f"name groups that can be resized, {sorted(names)}", repr(name))
        number = names[name]
        multiple, least = groups.multiple(number), groups.smallest(number)
        fits = isinstance(size, int) and size >= least and size % multiple == 0
        require(fits, f"sizes[{name!r}]", f"be a multiple of {multiple}, at least {least}", size)
        wanted[number] = size
    families: dict[int, tuple[str, int]] = {}
    for number in wanted:
        group = groups.plan.groups[number]
        for other in groups.plan.resizable():
            partner = groups.plan.groups[other]
            if partner.family == group.family and wanted.get(other, now[other]) != wanted[number]:
                rule = f"give {group.name!r} and {partner.name!r} equal sizes"
                reject("sizes", rule, (wanted[number], wanted.get(other, now[other])))
        families[group.family] = (group.name, wanted[number])
    return wanted


def _set_attributes(model: nn.Module, groups: ChannelGroups) -> None:
    """Write the present numbers of channels where layers keep them."""
    plan, sizes = groups.plan, groups.numbers()
    shapes: dict[str, dict[str, tuple[int, ...]]] = {}
    for weight in plan.weights:
        lengths = list(weight.shape)
        for axis, along in weight.axes.items():
            lengths[axis] = plan.length(along.segments, sizes) // along.cut
        layer, _, name = weight.name.rpartition(".")
        shapes.setdefault(layer, {})[name] = _joined_shape(lengths, weight.joined)
    for layer, found in shapes.items():
        _set_layer(model.get_submodule(layer), found)
    for attribute in plan.attributes:
        setattr(model.get_submodule(attribute.module), attribute.attribute, _value(plan, attribute, sizes))


def _follow_loaded(model: nn.Module, incompatible: object) -> None:
    _set_attributes(model, channel_groups(model))


def _joined_shape(lengths: Sequence[int], joined: Sequence[int]) -> tuple[int, ...]:
    ends = np.cumsum([0, *joined])
    return tuple(math.prod(lengths[start:stop]) for start, stop in itertools.pairwise(ends))


def _value(plan: NetworkPlan, attribute: AttributePlan, sizes: Mapping[int, int]) -> object:
    lengths = [plan.length(segments, sizes) for segments in attribute.factors]
    return tuple(lengths) if attribute.each else math.prod(lengths)


def _set_layer(layer: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Numbers of channels that follow from the shapes of a layer's weights."""
    weight = shapes.get("weight", shapes.get("in_proj_weight", ()))
    if isinstance(layer, nn.Linear) and weight:
        layer.out_features, layer.in_features = weight
    elif isinstance(layer, nn.modules.conv._ConvNd) and weight:
        _set_convolution(layer, weight)
    elif isinstance(layer, nn.modules.batchnorm._NormBase):
        layer.num_features = next(iter(shapes.values()))[0]
    elif isinstance(layer, nn.LayerNorm | nn.RMSNorm):
        layer.normalized_shape = weight
    elif isinstance(layer, nn.GroupNorm):
        layer.num_channels = weight[0]
    elif isinstance(layer, nn.Embedding):
        layer.embedding_dim = weight[1]
    elif isinstance(layer, nn.PReLU):
        layer.num_parameters = weight[0]
    elif isinstance(layer, nn.MultiheadAttention):
        layer.embed_dim = layer.kdim = layer.vdim = weight[1]
        layer.head_dim = weight[1] // layer.num_heads


def _set_convolution(layer: nn.modules.conv._ConvNd, weight: tuple[int, ...]) -> None:
    depthwise = layer.groups == layer.in_channels > 1
    if layer.transposed:
        layer.in_channels = weight[0]
        layer.groups = weight[0] if depthwise else layer.groups
        layer.out_channels = weight[1] * layer.groups
        return
    multiplier = layer.out_channels // layer.in_channels
    layer.out_channels = weight[0]
    layer.groups = weight[0] // multiplier if depthwise else layer.groups
    layer.in_channels = weight[1] * layer.groups


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
        tracer.trace(lambda: _run(smaller, example))
    except (RuntimeError, ValueError, IndexError, TypeError, AssertionError) as error:
        raise ValueError(f"model must {advice}, got at half its size: {error}") from error
    shapes = {name: tuple(one.shape) for name, one in [*smaller.named_parameters(), *smaller.named_buffers()]}
    found = {weight.name: weight for weight in plan_of(tracer, shapes).weights}
    for weight in plan.weights:
        for axis, along in weight.axes.items():
            lengths = [plan.length([segment], full) for segment in along.segments]
            now = found[weight.name].axes.get(axis) if weight.name in found else None
            same = now is not None and [segment.length for segment in now.segments] == lengths
            got = f"other channels along {weight.name} at half its size"
            require(same, "model", advice, got)
    resize(model, 1.0)
