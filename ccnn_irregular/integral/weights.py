"""Weights as functions of their axes, for ``torch.nn.utils.parametrize``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import final

import torch
from torch import Tensor, nn

from ccnn_irregular.integral.layout import AxisPlan, GroupPlan, Segment, WeightPlan
from ccnn_irregular.integral.partitions import Partition
from ccnn_irregular.kernels import Generator

__all__ = ["GeneratedWeight", "SampledWeight"]

_ROLE_POWER = {"samples": 0.0, "integral": 1.0, "root_integral": 0.5}


class _ContinuousWeight(nn.Module):
    """What both ways to give a function have in common: the plan, and the partitions of the groups it lies along."""

    def __init__(self, plan: WeightPlan, groups: list[GroupPlan], partitions: Mapping[int, Partition]) -> None:
        super().__init__()
        self.plan = plan
        self.blocks = {number: group.blocks for number, group in enumerate(groups)}
        used = {
            segment.group: partitions[segment.group]
            for axis in plan.axes.values()
            for segment in axis.segments
            if segment.group is not None
        }
        self.partitions = nn.ModuleDict({str(number): partition for number, partition in used.items()})

    def partition(self, segment: Segment) -> Partition:
        """The partition that a segment is sampled on."""
        partition = self.partitions[str(segment.group)]
        assert isinstance(partition, Partition)
        return partition

    def inner_blocks(self, segment: Segment, cut: int) -> int:
        """Blocks of channels along the axis itself."""
        assert segment.group is not None
        return self.blocks[segment.group] // cut

    def along(
        self, values: Tensor, axis: int, plan: AxisPlan, change: Callable[[Partition, float], Tensor | None], back: bool
    ) -> Tensor:
        """Apply a linear map to each segment that a group lies along; ``back`` = from samples to nodes."""
        lengths = []
        for segment in plan.segments:
            size = segment.channels // plan.cut
            if segment.group is not None and back:
                size = self.partition(segment).size * self.inner_blocks(segment, plan.cut)
            lengths.append(size * segment.repeat)
        parts = []
        for part, segment in zip(values.split(lengths, axis), plan.segments, strict=True):
            if segment.group is not None:
                matrix = change(self.partition(segment), _ROLE_POWER[segment.role])
                if matrix is not None:
                    blocks = self.inner_blocks(segment, plan.cut)
                    part = part.unflatten(axis, (blocks, -1, segment.repeat))
                    part = torch.tensordot(matrix.to(part.dtype), part, dims=([1], [axis + 1])).movedim(0, axis + 1)
                    part = part.flatten(axis, axis + 2)
            parts.append(part)
        return parts[0] if len(parts) == 1 else torch.cat(parts, axis)


@final
class SampledWeight(_ContinuousWeight):
    """A weight that is interpolated between its values at nodes: F(x) = sum_i f_i prod_a kernel(u_a - i_a).

    Sampled on the partitions of its axes and multiplied by quadrature weights it is an ordinary weight of their sizes.
    Variances are interpolated by their logarithms, so that they stay positive.

    Args:
        plan: what lies along its axes.
        groups: all groups of the network.
        partitions: one for each group that can be resized, by its number; shared by all weights.
    """

    def forward(self, nodes: Tensor) -> Tensor:
        """Values at the nodes, of full size, to the weight."""
        values = nodes.reshape(self.plan.shape)  # shared ones have the shape of the layer's weight
        for axis, plan in self.plan.axes.items():
            values = self.along(values, axis, plan, _to_samples, back=False)
        values = self.plan.join(values)
        if self.plan.measured:
            values = values.detach()  # norms want statistics without gradients, which learned places would bring
        return values.exp() if self.plan.positive else values

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Values at the nodes that the weight follows from; the smallest ones where many do."""
        lengths = list(self.plan.shape)
        for axis, plan in self.plan.axes.items():
            lengths[axis] = sum(
                segment.length // plan.cut
                if segment.group is None
                else self.partition(segment).size * self.inner_blocks(segment, plan.cut) * segment.repeat
                for segment in plan.segments
            )
        values = weight.reshape(lengths)
        if self.plan.positive:
            values = values.clamp(min=torch.finfo(values.dtype).tiny).log()
        for axis, plan in self.plan.axes.items():
            values = self.along(values, axis, plan, _to_nodes, back=True)
        return values.contiguous()


@final
class GeneratedWeight(_ContinuousWeight):
    """A weight whose values are those of a kernel generator: F(x) = gain generator(x).

    The generator sees one coordinate from -1 to 1 for each axis that channels lie along and gives the values of all
    other axes (the taps of a convolution, the positions of a flattened image) at once.

    Args:
        plan: what lies along its axes, see ``suits``.
        groups: all groups of the network.
        partitions: one for each group that can be resized, by its number.
        make: a name's entry in ``ccnn_irregular.kernels.GENERATORS``, or another function of the number of coordinates
            and of values.
    """

    def __init__(
        self,
        plan: WeightPlan,
        groups: list[GroupPlan],
        partitions: Mapping[int, Partition],
        make: Callable[[int, int], Generator],
    ) -> None:
        super().__init__(plan, groups, partitions)
        self.repeats = tuple(axis.segments[0].repeat for axis in plan.axes.values())
        self.rest = tuple(length for axis, length in enumerate(plan.shape) if axis not in plan.axes)
        self.generator = make(len(plan.axes), math.prod(self.rest) * math.prod(self.repeats))

    @staticmethod
    def suits(plan: WeightPlan, groups: list[GroupPlan]) -> bool:
        """Whether one group, in one block, lies along each axis that has channels, of two axes or more in all."""
        segments = [axis.segments for axis in plan.axes.values()]
        single = all(len(segment) == 1 and segment[0].group is not None for segment in segments)
        return len(plan.shape) > 1 and single and all(groups[segment[0].group or 0].blocks == 1 for segment in segments)

    def forward(self, gain: Tensor) -> Tensor:
        """The gain, ``()``, to the weight."""
        lines, factors = [], []
        for plan in self.plan.axes.values():
            partition = self.partition(plan.segments[0])
            lines.append(2 * partition.positions() - 1)
            factors.append(partition.sampling()[1].to(gain) ** _ROLE_POWER[plan.segments[0].role])
        mesh = torch.stack(torch.meshgrid(*lines, indexing="ij"), -1).to(gain)
        values = self.generator(mesh) * gain
        for axis, factor in enumerate(factors):
            values = values * factor.reshape(-1, *(1,) * (values.ndim - 1 - axis))
        values = values.unflatten(-1, (*self.repeats, *self.rest))
        return self.plan.join(self._in_order(values))

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The gain that gives generated values the mean square of ``weight``."""
        with torch.no_grad():
            made = self(weight.new_ones(()))
        return (weight.square().mean() / made.square().mean()).sqrt()

    def _in_order(self, values: Tensor) -> Tensor:
        """Axes in the weight's order, from those with channels, their repeats, and all others."""
        count = len(self.repeats)
        places, others = [], iter(range(2 * count, values.ndim))
        for axis in range(len(self.plan.shape)):
            along = list(self.plan.axes).index(axis) if axis in self.plan.axes else None
            places += [next(others)] if along is None else [along, count + along]
        values = values.permute(places)
        for axis in range(len(self.plan.shape)):
            if axis in self.plan.axes:
                values = values.flatten(axis, axis + 1)
        return values


def _to_samples(partition: Partition, power: float) -> Tensor | None:
    if partition.is_whole and (power == 0 or partition.rule == "midpoint"):
        return None  # the samples are the nodes, and all weigh 1
    matrix, weights = partition.sampling()
    return weights[:, None] ** power * matrix if power else matrix


def _to_nodes(partition: Partition, power: float) -> Tensor | None:
    matrix = _to_samples(partition, power)
    return None if matrix is None else torch.linalg.pinv(matrix)
