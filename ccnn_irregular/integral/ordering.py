"""An order of channels in which neighbours resemble each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from ccnn_irregular.integral.layout import NetworkPlan, channels_first

__all__ = ["Order", "distances", "shortest_path", "variation"]

Order = Callable[[np.ndarray], np.ndarray]
"""From distances ``(n, n)`` to an order of the n channels, int64 ``(n,)``."""

# Sweeps over all pairs of edges; a local minimum is reached in fewer as a rule.
_SWEEPS = 30


def distances(plan: NetworkPlan, tensors: Mapping[str, Tensor]) -> dict[int, np.ndarray]:
    """For each group that can be resized, distances of its channels over all weights, float64 ``(n, n)``.

    Squares are summed over weights, each divided by its mean square over channels, so that no weight counts more for
    its unit. Their sum along an order is the total variation of the weights along the channels.
    """
    squares = {number: np.zeros((group.channels,) * 2) for number, group in enumerate(plan.groups)}
    for weight in plan.weights:
        values = tensors[weight.name].detach().to("cpu", torch.float64).reshape(weight.shape)
        for axis, along in weight.axes.items():
            for segment, rows in zip(along.segments, channels_first(values, axis, along), strict=True):
                power = float(rows.square().mean(0).sum())
                if segment.group is not None and power > 0:
                    lengths = rows.square().sum(1)
                    gram = lengths[:, None] + lengths - 2 * rows @ rows.T
                    squares[segment.group] += (gram / power).numpy()
    return {number: np.sqrt(np.maximum(squares[number], 0)) for number in plan.resizable()}


def variation(between: np.ndarray, order: np.ndarray, blocks: int) -> float:
    """Sum of the distances of neighbours, within blocks."""
    rows = order.reshape(blocks, -1)
    return float(between[rows[:, :-1], rows[:, 1:]].sum())


def shortest_path(between: np.ndarray) -> np.ndarray:
    """A short open path through all nodes: the better of all greedy ones, improved by reversing stretches (2-opt).

    Args:
        between: symmetric distances ``(n, n)``.
    """
    count = len(between)
    if count < 3:
        return np.arange(count)
    starts = np.unique(np.linspace(0, count - 1, min(count, 16)).astype(int))
    paths = [_greedy(between, start) for start in starts]
    best = min(paths, key=lambda path: between[path[:-1], path[1:]].sum())
    return _reversed_where_shorter(between, best)


def _greedy(between: np.ndarray, start: int) -> np.ndarray:
    """The nearest node that is left, again and again."""
    left = between.copy()
    path = [start]
    for _ in range(len(between) - 1):
        left[:, path[-1]] = np.inf
        path.append(int(left[path[-1]].argmin()))
    return np.array(path)


def _reversed_where_shorter(between: np.ndarray, path: np.ndarray) -> np.ndarray:
    """2-opt of an open path; a node at distance 0 of all closes it."""
    count = len(path)
    closed = np.zeros((count + 1, count + 1))
    closed[:count, :count] = between
    tour = np.append(path, count)
    for _ in range(_SWEEPS):
        improved = False
        for first in range(count - 1):
            a, b = tour[first], tour[first + 1]
            ends = np.append(tour[first + 3 :], tour[0])
            starts = tour[first + 2 :]
            gains = closed[a, b] + closed[starts, ends] - closed[a, starts] - closed[b, ends]
            best = int(gains.argmax()) if len(gains) else 0
            if len(gains) and gains[best] > 1e-12:
                last = first + 2 + best
                tour[first + 1 : last + 1] = tour[first + 1 : last + 1][::-1]
                improved = True
        if not improved:
            break
    where = int(np.flatnonzero(tour == count)[0])
    return np.roll(tour, -where)[1:]
