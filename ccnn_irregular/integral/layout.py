"""How groups of channels lie along the axes of weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

__all__ = [
    "AttributePlan",
    "AxisPlan",
    "GroupPlan",
    "NetworkPlan",
    "Role",
    "Segment",
    "WeightPlan",
    "channels_first",
    "reordered",
]

Role = Literal["samples", "integral", "root_integral"]
"""What happens to an axis: its function is sampled; or sampled and multiplied by quadrature weights, since the network
sums over it; or by their square roots, where what is summed is divided by the root of the number of channels."""


@dataclass(frozen=True)
class Segment:
    """A stretch of an axis.

    Attributes:
        group: number of the group whose channels lie along it, None where they are fixed.
        channels: how many of them, at full size.
        repeat: how often each channel comes in a row (the positions of an image that was flattened).
        role: what is done with it when it is sampled.
    """

    group: int | None
    channels: int
    repeat: int = 1
    role: Role = "samples"

    @property
    def length(self) -> int:
        """Entries of the axis, at full size."""
        return self.channels * self.repeat


@dataclass(frozen=True)
class AxisPlan:
    """Along one axis of a weight.

    Attributes:
        segments: from its start to its end.
        cut: of a grouped convolution's weight: along this axis each of so many blocks of channels is met by the same
            entries, and the blocks themselves lie along the weight's first axis; 1 elsewhere.
    """

    segments: tuple[Segment, ...]
    cut: int = 1


@dataclass(frozen=True)
class WeightPlan:
    """One parameter or buffer.

    Attributes:
        name: in the network.
        shape: at full size, with axes that hold a product of channels split into their factors.
        joined: the lengths of runs of axes that are one axis of the tensor.
        axes: plan of each axis that holds channels.
    """

    name: str
    shape: tuple[int, ...]
    joined: tuple[int, ...]
    axes: Mapping[int, AxisPlan]

    @property
    def layer(self) -> str:
        """Name of the module that holds it."""
        return self.name.rpartition(".")[0]

    @property
    def measured(self) -> bool:
        """Whether it holds the running statistics of a norm."""
        return self.name.rpartition(".")[2] in ("running_mean", "running_var")

    @property
    def positive(self) -> bool:
        """Whether it is a variance."""
        return self.name.rpartition(".")[2] == "running_var"

    def join(self, values: Tensor) -> Tensor:
        """The tensor as the network has it."""
        lengths, start = [], 0
        for count in self.joined:
            lengths.append(math.prod(values.shape[start : start + count]))
            start += count
        return values.reshape(lengths)


@dataclass
class GroupPlan:
    """Channels that are resized together.

    Attributes:
        name: of the layer that makes them.
        channels: number of channels at full size.
        blocks: number of equal blocks that keep their places (attention heads, groups of a convolution); within each
            channels may be reordered and resized.
        family: groups of the same number have the same number of channels always.
        fixed: why they cannot be resized, None if they can.
        layers: names of all layers with weights along them.
    """

    name: str
    channels: int
    blocks: int = 1
    family: int = 0
    fixed: str | None = None
    layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class AttributePlan:
    """A number of channels that a module holds as an attribute.

    Attributes:
        module: name of the module.
        attribute: name of the attribute.
        factors: its value is the product of the lengths of these axes; a tuple of them where ``each``.
        each: whether the attribute is the tuple of the lengths.
    """

    module: str
    attribute: str
    factors: tuple[tuple[Segment, ...], ...]
    each: bool = False


@dataclass
class NetworkPlan:
    """All groups of a network, and where they lie."""

    groups: list[GroupPlan] = field(default_factory=list)
    weights: list[WeightPlan] = field(default_factory=list)
    attributes: list[AttributePlan] = field(default_factory=list)

    def length(self, segments: Sequence[Segment], sizes: Mapping[int, int]) -> int:
        """Entries of an axis, where groups have ``sizes``; those that are not named have their full size."""
        return sum(
            (segment.channels if segment.group is None else sizes.get(segment.group, segment.channels)) * segment.repeat
            for segment in segments
        )

    def resizable(self) -> list[int]:
        """Numbers of the groups that can be resized."""
        return [number for number, group in enumerate(self.groups) if group.fixed is None]


def channels_first(values: Tensor, axis: int, plan: AxisPlan) -> list[Tensor]:
    """For each segment, its channels as the first axis of a matrix: ``(channels, everything else)``."""
    if plan.cut > 1:
        parted = values.unflatten(0, (plan.cut, -1))  # axis moves on by one
        return [parted.movedim(axis + 1, 1).flatten(0, 1).flatten(1)]
    parts = values.split([segment.length for segment in plan.segments], axis)
    return [
        part.unflatten(axis, (segment.channels, segment.repeat)).movedim(axis, 0).flatten(1)
        for part, segment in zip(parts, plan.segments, strict=True)
    ]


def reordered(values: Tensor, axis: int, plan: AxisPlan, orders: Mapping[int, Tensor]) -> Tensor:
    """``values`` with the channels of each group in another order.

    Args:
        values: of full size.
        axis: which axis.
        plan: what lies along it.
        orders: by group, the channels in their new order; within their blocks.
    """
    if plan.cut > 1:
        order = orders.get(plan.segments[0].group)  # type: ignore[arg-type]  # grouped axes hold one group
        if order is None:
            return values
        parted = values.unflatten(0, (plan.cut, -1)).movedim(axis + 1, 1)
        size = parted.shape[1]
        inside = order.reshape(plan.cut, size) - size * torch.arange(plan.cut)[:, None]
        blocks = torch.arange(plan.cut)[:, None]
        return parted[blocks, inside].movedim(1, axis + 1).flatten(0, 1)
    parts = []
    for part, segment in zip(
        values.split([segment.length for segment in plan.segments], axis), plan.segments, strict=True
    ):
        order = None if segment.group is None else orders.get(segment.group)
        if order is not None:
            part = part.unflatten(axis, (segment.channels, segment.repeat)).index_select(axis, order)
            part = part.flatten(axis, axis + 1)
        parts.append(part)
    return torch.cat(parts, axis)
