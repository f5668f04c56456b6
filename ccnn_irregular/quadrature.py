"""Quadrature: positions to weights, so that ``sum_n w_n f(p_n)`` approximates ``integral f(p) dp``.

Weights carry the unit of the coordinates (hours, mm^3 ...) and are float64.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ccnn_irregular._checks import require, require_finite, require_splits

__all__ = ["cell_volumes", "trapezoid"]


def cell_volumes(sizes: tuple[int, ...], steps: tuple[float, ...]) -> Tensor:
    """Weights of a uniform grid's nodes: every node stands for one cell of volume ``prod(steps)``.

    Exact for functions that are constant on each cell (midpoint rule).

    Args:
        sizes: number of nodes per axis.
        steps: distance of neighbouring nodes per axis, in coordinate units.

    Returns:
        float64 ``sizes``.
    """
    require(all(size >= 1 for size in sizes), "sizes", "be at least 1 on every axis", sizes)
    require(len(sizes) == len(steps), "steps", f"have one entry per axis, {len(sizes)}", steps)
    require(all(step > 0 for step in steps), "steps", "be positive", steps)
    return torch.full(sizes, float(torch.tensor(steps, dtype=torch.float64).prod()), dtype=torch.float64)


def trapezoid(
    positions: Tensor,
    *,
    observed: Tensor | None = None,
    splits: Tensor | None = None,
    cap: float | None = None,
) -> Tensor:
    """Trapezoid weights of sorted irregular 1-D samples, per sample of a ragged batch and per channel.

    Each observation stands for the half gaps to the previous and the next observation *of its own
    channel*. Exact for functions that are linear between observations, where no gap is capped.
    A single observation has no gaps: it weighs ``cap``, or 0 without one (the trapezoid rule of a set
    without extent).

    Args:
        positions: ``(N,)`` strictly increasing within each sample, in coordinate units.
        observed: bool ``(N, C)``, True where channel ``c`` was measured; None = one channel, always.
        splits: int64 ``(B + 1,)`` offsets of the samples; None = one sample.
        cap: largest width one observation may stand for, in coordinate units: each side is credited
            with at most ``cap / 2``, since a measurement is no evidence for the twenty hours after it.

    Returns:
        float64 ``(N,)``, or ``(N, C)`` with ``observed``; exactly 0 where not observed.

    Raises:
        ValueError: positions not finite, not sorted or repeated within a sample; shapes that
            disagree; ``cap`` not positive or not finite.
    """
    require(positions.ndim == 1, "positions", "have shape (N,)", tuple(positions.shape))
    require_finite("positions", positions)
    require(cap is None or 0 < cap < math.inf, "cap", "be positive and finite", cap)
    positions = positions.to(torch.float64)
    count = len(positions)
    if splits is None:
        splits = torch.tensor([0, count], dtype=torch.int64, device=positions.device)
    require_splits(splits, count)
    sample = _sample_of_row(splits, count)
    _require_sorted(positions, sample)
    if observed is None:
        return _half_gaps(positions[:, None], sample, torch.ones_like(positions, dtype=torch.bool)[:, None], cap)[:, 0]
    require(observed.dtype == torch.bool, "observed", "be bool", observed.dtype)
    require(
        observed.ndim == 2 and len(observed) == count,
        "observed",
        f"have shape (N, C) with N = {count}",
        tuple(observed.shape),
    )
    return _half_gaps(positions[:, None].expand(observed.shape), sample, observed, cap)


def _sample_of_row(splits: Tensor, count: int) -> Tensor:
    samples = torch.arange(len(splits) - 1, device=splits.device)
    return torch.repeat_interleave(samples, splits.diff(), output_size=count)


def _require_sorted(positions: Tensor, sample: Tensor) -> None:
    steps = positions.diff()
    inside = sample.diff() == 0
    for rule, bad in (("be sorted", steps < 0), ("be distinct", steps == 0)):
        rows = torch.nonzero(bad & inside).flatten()
        if len(rows):
            row = int(rows[0])
            got = f"{float(positions[row]):g} followed by {float(positions[row + 1]):g} at row {row + 1}"
            require(False, "positions", f"{rule} within a sample", got)


def _half_gaps(positions: Tensor, sample: Tensor, observed: Tensor, cap: float | None) -> Tensor:
    """Half the gap to the previous plus half the gap to the next observation; all arrays (N, C)."""
    limit = float("inf") if cap is None else cap / 2
    # Observations in column order: within a channel they are sorted by sample, then by position.
    channel, row = torch.nonzero(observed.T, as_tuple=True)
    position = positions[row, channel]
    neighbours = (channel.diff() == 0) & (sample[row].diff() == 0)
    half = torch.where(neighbours, (position.diff() / 2).clamp(max=limit), 0.0)
    weight = torch.zeros_like(position)
    weight[:-1] += half
    weight[1:] += half
    if cap is not None:
        alone = torch.ones_like(position, dtype=torch.bool)
        alone[:-1] &= ~neighbours
        alone[1:] &= ~neighbours
        weight = torch.where(alone, torch.full_like(weight, cap), weight)
    weights = torch.zeros(observed.shape, dtype=torch.float64, device=observed.device)
    return weights.index_put((row, channel), weight)
