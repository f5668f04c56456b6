"""Rules for samples on a line, sorted and ragged, and Gauss-Legendre nodes."""

from __future__ import annotations

import math

import torch
from scipy.special import roots_legendre
from torch import Tensor

from ccnn_irregular._checks import reject, require, require_finite, require_splits

__all__ = ["gauss_legendre", "midpoint", "require_observed", "sample_of_row", "simpson", "trapezoid"]


def trapezoid(
    positions: Tensor,
    *,
    observed: Tensor | None = None,
    splits: Tensor | None = None,
    cap: float | None = None,
) -> Tensor:
    """Compute trapezoid weights of sorted irregular 1-D samples, per sample of a ragged batch and per channel.

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
    require(cap is None or 0 < cap < math.inf, "cap", "be positive and finite", cap)
    positions, splits, sample = _checked_line(positions, splits)
    if observed is None:
        return _half_gaps(positions[:, None], sample, torch.ones_like(positions, dtype=torch.bool)[:, None], cap)[:, 0]
    require_observed(observed, len(positions))
    return _half_gaps(positions[:, None].expand(observed.shape), sample, observed, cap)


def simpson(positions: Tensor, *, splits: Tensor | None = None, allow_negative: bool = False) -> Tensor:
    """Compute composite Simpson weights of sorted irregular 1-D samples, per sample of a ragged batch.

    A parabola through each three nodes that follow one another. Exact for quadratics on any nodes, and for
    cubics on uniform nodes with an even number of intervals. With an odd number the last interval is
    integrated under the parabola through the last three nodes (Cartwright, J. Math. Sci. Math. Educ. 12(2),
    2017), as in ``scipy.integrate.simpson``. Two nodes are the trapezoid rule, a single one weighs 0.

    Where the gaps on both sides of a node differ by more than a factor of 2, weights may turn negative. Such
    a rule multiplies the noise of the samples and is no measure, so it is refused unless asked for (``Points``
    refuses it always). There is no cap: a parabola cannot be fitted to a part of a gap; use ``trapezoid``.

    Args:
        positions: ``(N,)`` strictly increasing within each sample, in coordinate units.
        splits: int64 ``(B + 1,)`` offsets of the samples; None = one sample.
        allow_negative: return negative weights instead of refusing them.

    Returns:
        float64 ``(N,)``; gradients flow to ``positions``.

    Raises:
        ValueError: positions not finite, not sorted or repeated within a sample; a negative weight.
    """
    positions, splits, sample = _checked_line(positions, splits)
    count = len(positions)
    index = torch.arange(count, device=positions.device) - splits[sample]
    length = splits.diff()[sample]
    weights = torch.zeros_like(positions)

    def gaps(first: Tensor) -> tuple[Tensor, Tensor]:
        return positions[first + 1] - positions[first], positions[first + 2] - positions[first + 1]

    # Two intervals at a time, from each sample's first node on.
    first = torch.nonzero((index % 2 == 0) & (index + 2 < length)).flatten()
    left, right = gaps(first)
    third = (left + right) / 6
    weights = weights.index_add(0, first, third * (2 - right / left))
    weights = weights.index_add(0, first + 1, third * (left + right) ** 2 / (left * right))
    weights = weights.index_add(0, first + 2, third * (2 - left / right))
    # The one interval that is left over.
    is_last = (length % 2 == 0) & (index + 1 == length)
    first = torch.nonzero(is_last & (length > 2)).flatten() - 2
    left, right = gaps(first)
    weights = weights.index_add(0, first, -(right**3) / (6 * left * (left + right)))
    weights = weights.index_add(0, first + 1, (right**2 + 3 * left * right) / (6 * left))
    weights = weights.index_add(0, first + 2, (2 * right**2 + 3 * left * right) / (6 * (left + right)))
    last = torch.nonzero(is_last & (length == 2)).flatten()
    half = (positions[last] - positions[last - 1]) / 2
    weights = weights.index_add(0, last - 1, half).index_add(0, last, half)
    negative = torch.nonzero(weights < 0).flatten()
    if len(negative) and not allow_negative:
        row = int(negative[0])
        rule = "have neighbouring gaps within a factor of 2 for non-negative weights (or use trapezoid)"
        reject("positions", rule, f"the weight {float(weights[row]):g} at row {row}")
    return weights


def gauss_legendre(count: int, start: float = -1.0, stop: float = 1.0) -> tuple[Tensor, Tensor]:
    """Compute nodes and weights of the Gauss-Legendre rule between ``start`` and ``stop``.

    Exact for polynomials of degree ``2 count - 1``, on these nodes only. All weights are positive.

    Args:
        count: number of nodes, at least 1.
        start: lower end, in coordinate units.
        stop: upper end.

    Returns:
        Nodes, float64 ``(count,)``, increasing, and weights, float64 ``(count,)``, which sum to ``stop - start``.

    Raises:
        ValueError: ``count`` below 1, ends not finite or not in order.
    """
    require(count >= 1, "count", "be at least 1", count)
    require(math.isfinite(start) and math.isfinite(stop), "start and stop", "be finite", (start, stop))
    require(start < stop, "start", "be below stop", (start, stop))
    nodes, weights = (torch.from_numpy(array) for array in roots_legendre(count))
    half = (stop - start) / 2
    return (start + stop) / 2 + half * nodes, half * weights


def midpoint(ends: Tensor) -> tuple[Tensor, Tensor]:
    """Compute nodes and weights of the midpoint rule: each interval's middle stands for the interval.

    Exact for functions that are linear on each interval. All weights are positive; gradients flow to ``ends``.

    Args:
        ends: ``(n + 1,)`` of the intervals, strictly increasing, in coordinate units.

    Returns:
        Nodes and weights, float64 ``(n,)`` each; weights sum to the distance of the outermost ends.

    Raises:
        ValueError: fewer than two ends; ends not finite, not sorted or repeated.
    """
    ends, _, _ = _checked_line(ends, None)
    require(len(ends) >= 2, "ends", "be at least two", len(ends))
    return (ends[:-1] + ends[1:]) / 2, ends.diff()


def sample_of_row(splits: Tensor, count: int) -> Tensor:
    """Return the number of the sample that each of ``count`` rows belongs to, int64 ``(count,)``."""
    samples = torch.arange(len(splits) - 1, device=splits.device)
    return torch.repeat_interleave(samples, splits.diff(), output_size=count)


def require_observed(observed: Tensor, count: int) -> None:
    """Check that ``observed`` is bool ``(count, C)``.

    Raises:
        ValueError: another dtype or shape.
    """
    require(observed.dtype == torch.bool, "observed", "be bool", observed.dtype)
    shape = tuple(observed.shape)
    require(len(shape) == 2 and shape[0] == count, "observed", f"have shape (N, C) with N = {count}", shape)


def _checked_line(positions: Tensor, splits: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Check sorted samples; return positions as float64, splits, and the sample of each row."""
    require(positions.ndim == 1, "positions", "have shape (N,)", tuple(positions.shape))
    require_finite("positions", positions)
    positions = positions.to(torch.float64)
    count = len(positions)
    if splits is None:
        splits = torch.tensor([0, count], dtype=torch.int64, device=positions.device)
    require_splits(splits, count)
    sample = sample_of_row(splits, count)
    _require_sorted(positions, sample)
    return positions, splits, sample


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
    """Add half the gap to the previous and half the gap to the next observation; all arrays (N, C)."""
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
