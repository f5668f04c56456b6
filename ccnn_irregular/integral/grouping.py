"""From what a traced pass says about channels to groups that are resized together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ccnn_irregular.integral.layout import AttributePlan, AxisPlan, GroupPlan, NetworkPlan, Role, Segment, WeightPlan
from ccnn_irregular.integral.tracing import Axis, Tracer, Use

__all__ = ["plan_of"]


def plan_of(tracer: Tracer, shapes: dict[str, tuple[int, ...]]) -> NetworkPlan:
    """Groups, and what lies along the axes of each weight.

    Args:
        tracer: of a pass that has ended.
        shapes: of all parameters and buffers.
    """
    return _Grouping(tracer, shapes).plan()


class _Grouping:
    """Channels are what is joined; a group is made of all channels that lie along the same axes."""

    def __init__(self, tracer: Tracer, shapes: dict[str, tuple[int, ...]]) -> None:
        self.tracer = tracer
        self.shapes = shapes
        self.channel = _joined(tracer.atoms, tracer.same)  # of each label
        self.uses = list(tracer.uses.values())
        self.axes = [(use, number, axis) for use in self.uses for number, axis in use.axes.items()]
        self._weighed: dict[int, Role] = {int(label): role for labels, role in tracer.weighed for label in labels}
        self.group, self.place = self._groups()
        counts = np.bincount(self.group[self.group >= 0], minlength=self.group.max(initial=-1) + 1)
        names = self._names(len(counts))
        self.groups = [GroupPlan(name, int(count)) for name, count in zip(names, counts, strict=True)]

    def plan(self) -> NetworkPlan:
        for labels, reason in self.tracer.fixed:
            self._fix(self.channel[labels], reason)
        for rows in self.tracer.blocks:
            self._keep_blocks(rows)
        weights = [self._weight(use) for use in self.uses]
        attributes = [
            AttributePlan(
                use.module, use.attribute, tuple(self._segments(factor, 1) for factor in use.factors), use.each
            )
            for use in self.tracer.attributes
        ]
        self._share_families()
        attributes = [replace(attribute, factors=tuple(map(self._free, attribute.factors))) for attribute in attributes]
        return NetworkPlan(self.groups, self._only_resizable(weights), attributes)

    def _groups(self) -> tuple[np.ndarray, np.ndarray]:
        """Group of each channel and its place in it, by the axes that the channel lies along; -1 where there is none.

        Channels are ordered as on the first axis that they lie along.
        """
        count = int(self.channel.max(initial=-1)) + 1
        counts = np.zeros((count, max(len(self.axes), 1)), np.int32)
        first = np.full(count, np.iinfo(np.int64).max)
        for column, (_, _, axis) in enumerate(self.axes):
            labels = axis.labels.reshape(-1)
            found = self.channel[labels[labels >= 0]]
            np.add.at(counts[:, column], found, 1)
            order = np.full(count, np.iinfo(np.int64).max)
            np.minimum.at(order, found, np.arange(len(found)))
            first = np.minimum(first, np.where(order < np.iinfo(np.int64).max, column * 10**9 + order, first))
        met = counts.any(1)
        group, place = np.full(count, -1), np.full(count, -1)
        if met.any():
            _, found = np.unique(counts[met], axis=0, return_inverse=True)
            group[met] = found.reshape(-1)
            group[met] = _numbered_by(group[met], first[met])
            for number in range(group.max() + 1):
                members = np.flatnonzero(group == number)
                place[members[np.argsort(first[members])]] = np.arange(len(members))
        return group, place

    def _names(self, count: int) -> list[str]:
        """The layer whose weight's outputs they are; numbered where a layer makes several."""
        names = [""] * count
        for use, _, axis in sorted(self.axes, key=lambda one: one[2].role != "samples"):
            labels = axis.labels.reshape(-1)
            for group in np.unique(self.group[self.channel[labels[labels >= 0]]]):
                names[group] = names[group] or _layer_name(use.name)
        repeats = {name: names.count(name) for name in names}
        seen: dict[str, int] = {}
        for place, name in enumerate(names):
            if repeats[name] > 1:
                seen[name] = seen.get(name, 0) + 1
                names[place] = f"{name}#{seen[name]}"
        return names

    def _fix(self, channels: np.ndarray, reason: str) -> None:
        for number in np.unique(self.group[channels]):
            if number >= 0 and self.groups[number].fixed is None:
                self.groups[number].fixed = reason

    def _keep_blocks(self, rows: np.ndarray) -> None:
        """Let channels stay in their row; rows that are no equal stretches of a group fix it."""
        labelled = rows >= 0
        channels = self.channel[np.where(labelled, rows, 0)]
        row = np.broadcast_to(np.arange(len(rows))[:, None], rows.shape)
        for number in np.unique(self.group[channels[labelled]]):
            group = self.groups[number] if number >= 0 else None
            if group is None:
                continue
            of_place = np.full(group.channels, -1)
            mine = labelled & (self.group[channels] == number)
            of_place[self.place[channels[mine]]] = row[mine]
            even = group.channels % len(rows) == 0
            wanted = np.repeat(np.arange(len(rows)), group.channels // len(rows)) if even else of_place + 1
            if np.array_equal(of_place, wanted):
                group.blocks = math.lcm(group.blocks, len(rows))
            elif group.fixed is None:
                group.fixed = "cut into blocks (heads, groups) that are no equal stretches of it"
            if group.channels % group.blocks and group.fixed is None:
                group.fixed = "cut into blocks of different lengths"

    def _segments(self, labels: np.ndarray, cut: int) -> tuple[Segment, ...]:
        """The stretches of an axis."""
        labels = labels.reshape(-1)
        channels = np.where(labels >= 0, self.channel[labels], -1)
        segments, start = [], 0
        while start < len(channels):
            length = self._stretch(channels, start)
            number = self.group[channels[start]] if channels[start] >= 0 else -1
            if number < 0:
                segments.append(Segment(None, length))
                start += length
                continue
            group = self.groups[number]
            stretch = channels[start : start + group.channels * length]
            whole = np.array_equal(self.group[stretch], np.full(group.channels * length, number))
            if whole and np.array_equal(self.place[stretch], np.repeat(np.arange(group.channels), length)):
                segments.append(Segment(int(number), group.channels, length))
                start += len(stretch)
                continue
            group.fixed = group.fixed or "met in different orders, as behind a channel shuffle"
            segments.append(Segment(None, length))
            start += length
        if cut > 1 and (len(segments) != 1 or segments[0].repeat != 1):
            for segment in segments:
                if segment.group is not None:
                    group = self.groups[segment.group]
                    group.fixed = group.fixed or "read by a grouped convolution together with others"
        return tuple(segments)

    @staticmethod
    def _stretch(channels: np.ndarray, start: int) -> int:
        """How often the channel at ``start`` comes in a row."""
        differs = np.flatnonzero(channels[start:] != channels[start])
        return int(differs[0]) if len(differs) else len(channels) - start

    def _weight(self, use: Use) -> WeightPlan:
        shape: list[int] = []
        joined: list[int] = []
        for number, length in enumerate(self.shapes[use.name]):
            factors = use.split.get(number, (length,))
            shape += factors
            joined.append(len(factors))
        axes = {number: self._axis(axis) for number, axis in sorted(use.axes.items())}
        return WeightPlan(use.name, tuple(shape), tuple(joined), axes)

    def _axis(self, axis: Axis) -> AxisPlan:
        """Keys carry the quadrature of the products with queries, also where both are rows of one weight."""
        weighed = {} if axis.role == "integral" else self._weighed
        segments, start = [], 0
        for segment in self._segments(axis.labels, axis.cut):
            label = int(axis.labels.reshape(-1)[start])
            segments.append(replace(segment, role=weighed.get(label, axis.role)))
            start += segment.length
        return AxisPlan(tuple(segments), axis.cut)

    def _share_families(self) -> None:
        """Number the families of groups with equal numbers of channels; one that is fixed fixes all."""
        pairs = []
        for a, b in self.tracer.tied:
            first, second = (np.unique(self.group[self.channel[side[side >= 0]]]) for side in (a, b))
            if len(first) == len(second):
                pairs += [pair for pair in zip(first, second, strict=True) if min(pair) >= 0]
            else:
                for number in [*first, *second]:
                    self.groups[number].fixed = self.groups[number].fixed or "one of parts that must be equally long"
        families = _joined(len(self.groups), [(np.array([a]), np.array([b])) for a, b in pairs])
        for number, group in enumerate(self.groups):
            group.family = int(families[number])
            partners = [
                group for group, family in zip(self.groups, families, strict=True) if family == families[number]
            ]
            reasons = [partner.fixed for partner in partners if partner.fixed is not None]
            group.fixed = reasons[0] if reasons else None

    def _free(self, segments: Sequence[Segment]) -> tuple[Segment, ...]:
        """The segments, those of fixed groups without their group."""
        return tuple(
            segment
            if segment.group is None or self.groups[segment.group].fixed is None
            else replace(segment, group=None)
            for segment in segments
        )

    def _only_resizable(self, weights: Sequence[WeightPlan]) -> list[WeightPlan]:
        """Weights with a group along some axis, and who has a group's channels."""
        layers: dict[int, dict[str, None]] = {number: {} for number in range(len(self.groups))}
        kept = []
        for weight in weights:
            axes = {}
            for number, axis in weight.axes.items():
                found = [segment.group for segment in axis.segments if segment.group is not None]
                for group in found:
                    layers[group][_layer_name(weight.name)] = None
                if any(self.groups[group].fixed is None for group in found):
                    axes[number] = AxisPlan(self._free(axis.segments), axis.cut)
            if axes:
                kept.append(WeightPlan(weight.name, weight.shape, weight.joined, axes))
        for number, plan in enumerate(self.groups):
            plan.layers = tuple(layers[number])
        return kept


def _layer_name(weight: str) -> str:
    """Name of the layer that a weight belongs to: a convolution for all parts of its kernel."""
    return weight.partition(".kernel.")[0] if ".kernel." in weight else weight.rpartition(".")[0] or weight


def _joined(count: int, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Number of the connected component of each of ``count`` nodes."""
    if count == 0:
        return np.zeros(0, np.int64)
    rows = np.concatenate([np.zeros(0, np.int64), *(a for a, _ in pairs)])
    columns = np.concatenate([np.zeros(0, np.int64), *(b for _, b in pairs)])
    graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def _numbered_by(numbers: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """The same partition, numbered by the least key of each part."""
    least = np.full(numbers.max() + 1, np.iinfo(np.int64).max)
    np.minimum.at(least, numbers, keys)
    rank = np.empty(len(least), np.int64)
    rank[np.argsort(least, kind="stable")] = np.arange(len(least))
    return rank[numbers]
