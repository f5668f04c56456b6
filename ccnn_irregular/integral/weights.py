"""Weights as functions of their axes, for ``torch.nn.utils.parametrize``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import final

import torch
from torch import Tensor, nn

from ccnn_irregular._checks import require
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
        values = nodes
        for axis, plan in self.plan.axes.items():
            values = self.along(values, axis, plan, _to_samples, back=False)
        values = self.plan.join(values)
        return values.exp() if self.plan.positive else values

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Values at the nodes that the weight follows from; the smallest ones where many do."""
        lengths = list(self.plan.shape)
        for axis, plan in self.plan.axes.items():
            lengths[axis] = sum(
                one.length // plan.cut
                if one.group is None
                else self.partition(one).size * self.inner_blocks(one, plan.cut) * one.repeat
                for one in plan.segments
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
    other axes (the taps of a convolution) at once.

    Args:
        plan: what lies along its axes; each holds one group, or fixed channels.
        groups: all groups of the network.
        partitions: one for each group that can be resized, by its number.
        make: a name's entry in ``ccnn_irregular.kernels.GENERATORS``, or another function of the number of coordinates
            and of values.

    Raises:
        ValueError: an axis along which several groups lie.
    """

    def __init__(
        self,
        plan: WeightPlan,
        groups: list[GroupPlan],
        partitions: Mapping[int, Partition],
        make: Callable[[int, int], Generator],
    ) -> None:
        super().__init__(plan, groups, partitions)
        for axis in plan.axes.values():
            single = len(axis.segments) == 1 and axis.segments[0].repeat == 1
            rule = "hold one group along each axis to be generated (use interpolation instead)"
            require(single and self.inner_blocks(axis.segments[0], axis.cut) == 1, plan.name, rule, axis.segments)
        rest = [length for axis, length in enumerate(plan.shape) if axis not in plan.axes]
        self.rest = tuple(rest)
        self.generator = make(len(plan.axes), int(torch.tensor(rest).prod()) if rest else 1)

    def forward(self, gain: Tensor) -> Tensor:
        """The gain, ``()``, to the weight."""
        lines, factors = [], []
        for plan in self.plan.axes.values():
            partition = self.partition(plan.segments[0])
            lines.append(2 * partition.positions().to(gain.device) - 1)
            factors.append(partition.sampling()[1].to(gain) ** _ROLE_POWER[plan.segments[0].role])
        mesh = torch.stack(torch.meshgrid(*lines, indexing="ij"), -1).to(gain.dtype)
        values = self.generator(mesh) * gain
        for axis, factor in enumerate(factors):
            values = values * factor.reshape(-1, *(1,) * (values.ndim - 1 - axis))
        values = values.unflatten(-1, self.rest) if self.rest else values[..., 0]
        return self.plan.join(values.movedim(tuple(range(len(lines))), tuple(self.plan.axes)))

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The gain that gives generated values the mean square of ``weight``."""
        with torch.no_grad():
            made = self(weight.new_ones(()))
        return (weight.square().mean() / made.square().mean()).sqrt()


def _to_samples(partition: Partition, power: float) -> Tensor | None:
    if partition.is_whole and (power == 0 or partition.rule == "midpoint"):
        return None  # the samples are the nodes, and all weigh 1
    matrix, weights = partition.sampling()
    return weights[:, None] ** power * matrix if power else matrix


def _to_nodes(partition: Partition, power: float) -> Tensor | None:
    matrix = _to_samples(partition, power)
    return None if matrix is None else torch.linalg.pinv(matrix)
