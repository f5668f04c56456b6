"""Groups of channels of a converted network, and their numbers: resizing in place."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import final

import numpy as np
import torch
from torch import nn

from ccnn_irregular._checks import reject, require
from ccnn_irregular.integral.layout import AttributePlan, NetworkPlan
from ccnn_irregular.integral.partitions import Partition

__all__ = [
    "GROUPS",
    "ChannelGroups",
    "channel_groups",
    "follow_loaded",
    "learn_partitions",
    "resize",
    "resize_randomly",
    "set_attributes",
]

GROUPS = "channel_groups"
"""Attribute of a converted network that holds its groups."""


_SHOWN = 4  # layers of a group, printed


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
        family = self.plan.groups[number].family
        return math.lcm(*(group.blocks for group in self.plan.groups if group.family == family))

    def smallest(self, number: int) -> int:
        """Least number of channels of a group."""
        multiple = self.multiple(number)
        family = self.plan.groups[number].family
        least = max(
            self.partitions[other].smallest * self.plan.groups[other].blocks
            for other in self.plan.resizable()
            if self.plan.groups[other].family == family
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
            row = (group.name, size, str(group.channels), str(group.blocks), change, _few(group.layers))
            rows.append(row)
        widths = [max(len(row[column]) for row in rows) for column in range(5)]
        lines = [
            "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[5]]) for row in rows
        ]
        return "\n".join(lines)


def _few(layers: Sequence[str]) -> str:
    """The first ones of a long list."""
    more = f" and {len(layers) - _SHOWN} more" if len(layers) > _SHOWN else ""
    return ", ".join(layers[:_SHOWN]) + more


def channel_groups(model: nn.Module) -> ChannelGroups:
    """The groups of a converted network; print them.

    Raises:
        ValueError: a network that was not converted.
    """
    groups = getattr(model, GROUPS, None)
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
    set_attributes(model, groups)
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
    for number in wanted:
        group = groups.plan.groups[number]
        for other in groups.plan.resizable():
            partner = groups.plan.groups[other]
            if partner.family == group.family and wanted.get(other, now[other]) != wanted[number]:
                rule = f"give {group.name!r} and {partner.name!r} equal sizes"
                reject("sizes", rule, (wanted[number], wanted.get(other, now[other])))
    return wanted


def set_attributes(model: nn.Module, groups: ChannelGroups) -> None:
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


def follow_loaded(model: nn.Module, incompatible: object) -> None:
    """Write the numbers of channels of weights that were loaded; a hook of ``load_state_dict``."""
    set_attributes(model, channel_groups(model))


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
