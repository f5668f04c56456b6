"""Rows to modes, times a kernel's transform, and back to rows, each sample on a scale of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ccnn_irregular.domains import Points
from ccnn_irregular.operators.numerics.nufft import Spreading, adjoint_factor, along_axes, at_points, to_modes
from ccnn_irregular.operators.numerics.sizes import sample_energy, sample_scales

__all__ = ["Side", "filtered"]

# Gradients of samples with fewer queries are smaller by themselves; half of rtol, so many times, is let pass.
_ALIKE_GRADIENTS = 4.0


@dataclass(frozen=True)
class Side:
    """Sources or queries of a box.

    Attributes:
        points: their places, by sample.
        spreading: their window matrix.
    """

    points: Points
    spreading: Spreading


def filtered(
    rows: Tensor, transfer: Tensor, source: Side, query: Side, volumes: Tensor, scales: Tensor | None
) -> Tensor:
    """Rows ``(N, C, F)`` at the sources to rows ``(M, D, F)`` at the queries; complex where the rows are.

    Samples of unlike size are brought to one size before the transform and back afterwards, in either pass: the
    error at a query is a share of its own sample's result, that of a gradient a share of its own sample's gradient.

    Args:
        rows: weighted values, ``F`` frequencies of each (1 where there are no uniform axes).
        transfer: the kernel's transform, ``(C, F, 1, *modes)`` if depthwise, else ``(D, C, F, 1, *modes)``.
        source: where the rows are.
        query: where they are wanted.
        volumes: float64 ``(B,)``, space over which each sample is spread.
        scales: ``(B, C)``, or ``(B, 1)`` of a full kernel, as ``sample_scales`` gives them; None = as they are.
    """
    places = source.points.coordinates, query.points.coordinates
    return _Filtered.apply(rows, transfer, *places, source, query, volumes, scales)


class _Filtered(torch.autograd.Function):
    """One function in place of three: the rows' sizes are not those of their gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        transfer: Tensor,
        sources: Tensor,
        queries: Tensor,
        source: Side,
        query: Side,
        volumes: Tensor,
        scales: Tensor | None,
    ) -> Tensor:
        spread = _to_modes(rows, source, _inverse(scales))
        kept = spread.contiguous() if ctx.needs_input_grad[1] else None
        modes = _product(spread, transfer, source, in_place=kept is None)
        # What the slopes need is transformed again; moving points are rare.
        ctx.save_for_backward(rows, transfer, kept)
        ctx.source, ctx.query, ctx.volumes, ctx.scales = source, query, volumes, scales
        return _at_points(modes, query, scales, like=rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, transfer, spread = ctx.saved_tensors
        source, query, volumes, scales = ctx.source, ctx.query, ctx.volumes, ctx.scales
        depthwise = _is_depthwise(transfer, query)
        adjoint = transfer.conj() if depthwise else transfer.conj().transpose(0, 1)
        own = None
        if len(volumes) > 1:
            energy = sample_energy(gradient, query.points)
            own = sample_scales(energy, volumes, joint=not depthwise, alike=_ALIKE_GRADIENTS)
        needed = ctx.needs_input_grad
        by_rows = by_transfer = by_sources = by_queries = field = None
        if needed[1]:
            # Modes that are saved hang in no graph.
            known = _to_modes(rows, source, _inverse(scales)) if torch.is_grad_enabled() else spread
            field = _to_modes(gradient, query, scales)
            by_transfer = _transfer_gradient(field, known, query, transfer, real=not rows.is_complex())
        if needed[0]:
            if field is None or own is not None or scales is not None:
                field = _to_modes(gradient, query, _inverse(own))
            by_rows = _at_points(_product(field, adjoint, query), source, own, like=rows)
        if needed[2]:
            by_sources = _slopes(gradient, own, adjoint, query, source, rows)
        if needed[3]:
            by_queries = _slopes(rows, scales, transfer, source, query, gradient)
        return by_rows, by_transfer, by_sources, by_queries, None, None, None, None


def _to_modes(rows: Tensor, side: Side, scales: Tensor | None) -> Tensor:
    """Modes ``(C, F, layers, *modes)`` of rows ``(N, C, F)`` times their sample's scale."""
    rows = rows if scales is None else rows * _of_rows(scales, side.points, rows)
    return to_modes(rows.flatten(1), side.points, side.spreading).unflatten(0, rows.shape[1:])


def _at_points(modes: Tensor, side: Side, scales: Tensor | None, *, like: Tensor) -> Tensor:
    """Rows ``(M, D, F)``, complex if ``like`` is, of modes ``(D, F, layers, *modes)``, times their sample's scale."""
    rows = at_points(modes.flatten(0, 1), side.points, side.spreading, real=not like.is_complex())
    rows = rows.unflatten(1, modes.shape[:2])
    return rows if scales is None else rows * _of_rows(scales, side.points, rows)


def _product(modes: Tensor, transfer: Tensor, side: Side, *, in_place: bool = False) -> Tensor:
    """Modes of the result, ``(D, F, layers, *modes)``; ``in_place``: those of the rows may be overwritten."""
    if _is_depthwise(transfer, side):
        return modes.mul_(transfer) if in_place else modes * transfer
    return torch.einsum("cf...,dcf...->df...", modes, transfer)


def _transfer_gradient(field: Tensor, modes: Tensor, side: Side, transfer: Tensor, *, real: bool) -> Tensor:
    """Gradient of the kernel's transform: of the result's modes, times the conjugate modes of the rows."""
    field = field * adjoint_factor(side.spreading.box, field, real)
    if _is_depthwise(transfer, side):
        product = field * modes.conj()
    else:
        product = torch.einsum("df...,cf...->dcf...", field, modes.conj())
    layers = -side.spreading.box.d - 1
    return product if product.shape[layers] == 1 else product.sum(layers, keepdim=True)


def _is_depthwise(transfer: Tensor, side: Side) -> bool:
    return transfer.ndim == side.spreading.box.d + 3


def _inverse(scales: Tensor | None) -> Tensor | None:
    return None if scales is None else torch.where(scales > 0, 1 / scales, 0.0)


def _of_rows(scales: Tensor, points: Points, like: Tensor) -> Tensor:
    """Each row's scale, ``(N, C or 1, 1)``."""
    return scales[points.sample_index()].to(like.real.dtype)[:, :, None]


def _slopes(rows: Tensor, scales: Tensor | None, transfer: Tensor, source: Side, query: Side, other: Tensor) -> Tensor:
    """Slope of the filtered rows at each query, times the other rows there, summed over channels: ``(M, d)``."""
    modes = _product(_to_modes(rows, source, _inverse(scales)), transfer, source).flatten(0, 1)
    other = other if scales is None else other * _of_rows(scales, query.points, other)
    return along_axes(modes, query.points.coordinates, query.spreading, other.flatten(1), not rows.is_complex())
