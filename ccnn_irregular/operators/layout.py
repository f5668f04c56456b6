"""Values and domains as every pairwise engine wants them: flat rows, blocks of samples.

The public conventions, (N, C) on Points, (B, C, *sizes) on Grid, (N, C, *sizes) on Product, end here.
Inside, values are (N, B, C): B entries sharing one geometry, 1 unless both domains are grids.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from ccnn_irregular._checks import reject, require
from ccnn_irregular.domains import Domain, Grid, Points

__all__ = [
    "balance",
    "both_grids",
    "check_pair",
    "from_rows",
    "out_of_range_unannounced",
    "pair_points",
    "restored",
    "to_rows",
    "weighted",
]

# Weights between 2^-32 and 2^32 are multiplied by as they are.
_USUAL_EXPONENT = 32
# Half an exponent of a weight, which float32 holds.
_LARGEST_EXPONENT = 120
_ANNOUNCED = ContextVar("announced", default=True)


def check_pair(source: Domain, query: Domain) -> None:
    """Refuse a source and a query that cannot be convolved with each other.

    Raises:
        ValueError: different numbers of axes, samples, periods or different devices.
    """
    require(query.d == source.d, "query", f"have the source's {source.d} axes", query.d)
    wanted, given = source.samples, query.samples
    if wanted is not None and given is not None:
        require(given == wanted, "query", f"have one sample per sample of the source, {wanted}", given)
    if None not in (source.device, query.device):
        require(query.device == source.device, "query", f"be on the source's device {source.device}", query.device)
    for axis, (own, other) in enumerate(zip(source.periods, query.periods, strict=True)):
        if other is not None and (own is None or abs(own - other) > 1e-9 * own):
            reject("query", f"have the source's period {own} on axis {axis}", other)


def both_grids(source: Domain, query: Domain) -> tuple[Grid, Grid] | None:
    """The two domains where both are grids, so that entries share one geometry; else None."""
    return (source, query) if isinstance(source, Grid) and isinstance(query, Grid) else None


def pair_points(source: Domain, query: Domain, device: torch.device | None = None) -> tuple[Points, Points]:
    """Both domains as ``Points`` with the same samples; a grid is repeated for each sample of the other.

    Grids have no device of their own: they are laid out on that of the other domain, two of them on ``device``.
    """
    samples = next((side.samples for side in (source, query) if side.samples is not None), 1)
    device = source.device or query.device or device
    assert device is not None
    return source.as_points(samples, device), query.as_points(samples, device)


def balance(weights: Tensor | float) -> float:
    """The power of two that weights are to be divided by, and the sum over them multiplied by.

    In small or large units weights leave float32's range (cubic nanometres in metres times femtoseconds: 1e-42), or
    their product with the values does, though the sum, with a kernel as large as they are small, lies well inside. So
    half of their exponent goes to the weights and half to the result, where gradients come in. 1 for usual weights.
    """
    if isinstance(weights, Tensor):
        weights = float(weights.detach().max()) if weights.numel() else 0.0
    _, exponent = math.frexp(weights)
    if abs(exponent) <= _USUAL_EXPONENT:
        return 1.0
    return 2.0 ** max(-_LARGEST_EXPONENT, min(exponent // 2, _LARGEST_EXPONENT))


def restored(result: Tensor, factor: float) -> Tensor:
    """The sum over weights that were divided by ``factor``, multiplied by it.

    Warns where that leaves the range in which the dtype keeps its digits.
    """
    if factor == 1:
        return result
    largest = float(result.detach().abs().max()) * factor if result.numel() else 0.0
    kept = torch.finfo(result.dtype)
    if _ANNOUNCED.get() and (0 < largest < kept.tiny or kept.max < largest < math.inf):
        warnings.warn(
            f"the result must lie between {kept.tiny:.1e} and {kept.max:.1e} to be held in {result.dtype}, got "
            f"{largest:.1e}: use float64, or positions in another unit",
            stacklevel=2,
        )
    return result * factor


@contextmanager
def out_of_range_unannounced() -> Iterator[None]:
    """For results that are looked at to bring them into range."""
    token = _ANNOUNCED.set(False)
    try:
        yield
    finally:
        _ANNOUNCED.reset(token)


def weighted(values: Tensor, weights: Tensor, factor: float = 1.0) -> Tensor:
    """Rows ``(N, B, C)`` times weights ``(N,)`` or ``(N, C)`` over ``factor``; what weighs 0 is never read."""
    weights = (weights if factor == 1 else weights / factor).to(values.dtype)
    weights = weights[:, None, None] if weights.ndim == 1 else weights[:, None, :]
    unread = weights == 0
    if values.is_cuda or bool(unread.any()):  # on a GPU to ask takes longer than to do it
        values = torch.where(unread, 0.0, values)
    return values * weights


def to_rows(values: Tensor, source: Domain, query: Domain) -> Tensor:
    """Values in the source's convention as rows ``(N, B, C)`` of ``pair_points``' source."""
    if source.uniform is None:
        return values[:, None, :]
    flat = values.flatten(2).movedim(1, 2)  # (B or N, nodes, C)
    return flat.movedim(0, 1) if both_grids(source, query) else flat.flatten(0, 1)[:, None, :]


def from_rows(rows: Tensor, source: Domain, query: Domain) -> Tensor:
    """Rows ``(M, B, D)`` of ``pair_points``' query in the query's convention."""
    grid = query.uniform
    if grid is None:
        return rows[:, 0, :]
    if both_grids(source, query):
        return rows.permute(1, 2, 0).reshape(rows.shape[1], rows.shape[2], *grid.sizes)
    return rows[:, 0, :].reshape(-1, grid.count, rows.shape[2]).movedim(1, 2).unflatten(2, grid.sizes)
