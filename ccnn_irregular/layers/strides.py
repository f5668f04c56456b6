"""Where strided and transposed convolutions are evaluated: every n-th position of a domain, n nodes in place of one."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ccnn_irregular._checks import require
from ccnn_irregular.domains import Domain, Grid, Points, Product

__all__ = ["coarser", "finer"]


def coarser(domain: Domain, stride: int | Sequence[int]) -> Domain:
    """Every ``stride``-th position of a domain: where a strided convolution is evaluated.

    Args:
        domain: on a grid, every ``stride``-th node of each axis from the first on. Of points, in the order they stand
            in, every ``stride``-th of each sample, with the weights of those it stands for added to its own: the
            volume stays. Points in time are sorted; for clouds in order of their file, choose points by place
            instead and pass them as ``query``. Of a product, both factors.
        stride: one for all axes, or one per axis of a grid; for a product one for the points and one per axis of
            its grid.

    Raises:
        ValueError: a stride below 1, or one that does not divide the nodes of an axis that repeats.
    """
    points, grid = domain.irregular, domain.uniform
    if points is None:
        assert grid is not None
        return _coarser_grid(grid, _factors("stride", stride, grid.d))
    first, *others = _factors("stride", stride, 1 if grid is None else 1 + grid.d)
    fewer = _every(points, first)
    return fewer if grid is None else Product(fewer, _coarser_grid(grid, others))


def _coarser_grid(grid: Grid, strides: Sequence[int]) -> Grid:
    """The nodes of a grid that strides leave, from the first on."""
    for axis, (nodes, factor) in enumerate(zip(grid.axes, strides, strict=True)):
        fits = not nodes.periodic or nodes.size % factor == 0
        require(fits, "stride", f"divide the {nodes.size} nodes of axis {axis}, which repeats", factor)
    sizes = [-(-size // factor) for size, factor in zip(grid.sizes, strides, strict=True)]
    steps = [step * factor for step, factor in zip(grid.steps, strides, strict=True)]
    return Grid(sizes, steps, grid.starts, grid.periodic)


def finer(grid: Grid, stride: int | Sequence[int]) -> Grid:
    """The grid with ``stride`` steps in place of each: where a transposed convolution is evaluated.

    Args:
        grid: its nodes are nodes of the result; there is none beyond its last, but on axes that repeat.
        stride: one for all axes or one per axis.

    Raises:
        ValueError: a stride below 1.
    """
    strides = _factors("stride", stride, grid.d)
    sizes = [
        nodes.size * factor if nodes.periodic else (nodes.size - 1) * factor + 1
        for nodes, factor in zip(grid.axes, strides, strict=True)
    ]
    return Grid(sizes, [a / b for a, b in zip(grid.steps, strides, strict=True)], grid.starts, grid.periodic)


def _every(points: Points, stride: int) -> Points:
    """Every ``stride``-th row of each sample, weighing what the rows up to the next one weigh together."""
    position = torch.arange(points.count, device=points.device) - points.splits[points.sample_index()]
    kept = position % stride == 0
    owner = kept.cumsum(0) - 1
    count = int(kept.sum())
    weights = points.weights.new_zeros(count, *points.weights.shape[1:]).index_add(0, owner, points.weights)
    before = torch.cat([kept.new_zeros(1, dtype=torch.int64), kept.cumsum(0)])
    return Points(points.coordinates[kept], weights, before[points.splits], periods=points.periods)


def _factors(name: str, given: int | Sequence[int], count: int) -> tuple[int, ...]:
    numbers = tuple(given) if isinstance(given, Sequence) else (given,) * count
    fits = len(numbers) == count and all(isinstance(number, int) and number >= 1 for number in numbers)
    require(fits, name, f"be a positive integer, or {count} of them", given)
    return numbers
