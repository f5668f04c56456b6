"""Missing values (nan) of gridded fields: what interpolation puts there, and which nodes are answered."""

from __future__ import annotations

import torch
from torch import Tensor

from ccnn_irregular.domains import Axis, Grid

__all__ = ["answerable", "beside", "filled"]

# A node in the middle between two others is next to both; coordinates are rounded, in steps.
_TIE = 1e-6


def beside(values: Tensor, dim: int, axis: Axis, beyond: float) -> tuple[Tensor, Tensor]:
    """What lies one node before and one node after along ``dim``, and ``beyond`` where an axis ends there."""
    if axis.periodic:
        return values.roll(1, dim), values.roll(-1, dim)
    inner = values.shape[dim] - 1
    end = torch.full_like(values.narrow(dim, 0, 1), beyond)
    return torch.cat([end, values.narrow(dim, 0, inner)], dim), torch.cat([values.narrow(dim, 1, inner), end], dim)


def filled(values: Tensor, source: Grid, rings: int | None = None) -> Tensor:
    """Missing values replaced by the mean of the known ones among their eight neighbours, ring after ring.

    Args:
        values: ``(B, C, rows, columns)`` on ``source``.
        source: whose axes tell which nodes are neighbours.
        rings: how many; None = until all is filled.

    Returns:
        The same shape without nan: 0 beyond the last ring, and where a field knows nothing at all.
    """
    for _ in range(sum(source.sizes) if rings is None else rings):
        missing = values.isnan()
        if not bool(missing.any()):
            return values
        total, known = torch.where(missing, 0.0, values), (~missing).to(values.dtype)
        for dim, axis in enumerate(source.axes, 2):
            total = total + sum(beside(total, dim, axis, 0.0))
            known = known + sum(beside(known, dim, axis, 0.0))
        # 0 / 0 where no neighbour is known: left to the next ring.
        values = torch.where(missing, total / known, values)
    return torch.where(values.isnan(), 0.0, values)


def answerable(values: Tensor, source: Grid, query: Grid) -> Tensor:
    """Where an answer is given: the next coarse node is known; of several that are equally near, one.

    Args:
        values: ``(..., rows, columns)`` on the coarse grid ``source``.
        source: coarse.
        query: fine.

    Returns:
        Bool ``(..., rows, columns)`` on ``query``.
    """
    known = ~values.isnan()
    for dim, (nodes, wanted) in enumerate(zip(source.axes, query.axes, strict=True), values.ndim - 2):
        places = (wanted.nodes(values.device) - nodes.start) / nodes.step
        ends = [(places - 0.5 - _TIE).ceil().long(), (places + 0.5 + _TIE).floor().long()]
        ends = [end.remainder(nodes.size) if nodes.periodic else end.clamp(0, nodes.size - 1) for end in ends]
        known = known.index_select(dim, ends[0]) | known.index_select(dim, ends[1])
    return known
