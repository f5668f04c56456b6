"""Rows to modes, times a kernel's transform, and back to rows, each sample on a scale of its own."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ccnn_irregular.domains import Points
from ccnn_irregular.operators.nufft import Spreading, along_axes, at_points, to_modes
from ccnn_irregular.operators.sizes import sample_energy, sample_scales

__all__ = ["Side", "filtered"]


@dataclass(frozen=True)
class Side:
    """Sources or queries of a box.

    Attributes:
        points: their places, by sample.
        spreading: their window matrix.
    """

    points: Points
    spreading: Spreading

    def detached(self) -> Side:
        """The same places, through which no gradient flows."""
        points = copy.copy(self.points)
        points.coordinates = points.coordinates.detach()
        return replace(self, points=points)


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
    if scales is None:
        return _through(rows, transfer, source, query)
    inside, outside = (_of_rows(one, side.points, rows) for one, side in ((_inverse(scales), source), (scales, query)))
    result = _through(rows.detach() * inside, transfer, source.detached(), query.detached()) * outside
    places = source.points.coordinates, query.points.coordinates
    return _Balanced.apply(rows, result, *places, transfer, source, query, volumes, scales)


def _through(rows: Tensor, transfer: Tensor, source: Side, query: Side) -> Tensor:
    modes = _modes(rows, transfer, source)
    result = at_points(modes, query.points, query.spreading, real=not rows.is_complex())
    return result.unflatten(1, (-1, rows.shape[2]))


def _modes(rows: Tensor, transfer: Tensor, source: Side) -> Tensor:
    """Modes of the result, ``(D * F, layers, *modes)``."""
    modes = to_modes(rows.flatten(1), source.points, source.spreading).unflatten(0, rows.shape[1:])
    depthwise = _is_depthwise(transfer, source)
    modes = modes * transfer if depthwise else torch.einsum("cf...,dcf...->df...", modes, transfer)
    return modes.flatten(0, 1)


def _is_depthwise(transfer: Tensor, side: Side) -> bool:
    return transfer.ndim == side.spreading.box.d + 3


def _inverse(scales: Tensor) -> Tensor:
    return torch.where(scales > 0, 1 / scales, 0.0)


def _of_rows(scales: Tensor, points: Points, like: Tensor) -> Tensor:
    """Each row's scale, ``(N, C or 1, 1)``."""
    return scales[points.sample_index()].to(like.real.dtype)[:, :, None]


class _Balanced(torch.autograd.Function):
    """``result``, of which rows and coordinates are the detached input: its gradient has samples of other sizes."""

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        result: Tensor,
        sources: Tensor,
        queries: Tensor,
        transfer: Tensor,
        source: Side,
        query: Side,
        volumes: Tensor,
        scales: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(rows, transfer)
        ctx.source, ctx.query, ctx.volumes, ctx.scales = source, query, volumes, scales
        return result.view_as(result)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, transfer = ctx.saved_tensors
        source, query, volumes, scales = ctx.source, ctx.query, ctx.volumes, ctx.scales
        depthwise = _is_depthwise(transfer, query)
        adjoint = transfer.conj() if depthwise else transfer.conj().transpose(0, 1)
        own = sample_scales(sample_energy(gradient, query.points), volumes, joint=not depthwise)
        by_rows = by_sources = by_queries = None
        if ctx.needs_input_grad[0]:
            by_rows = filtered(gradient, adjoint, query, source, volumes, own)
        if ctx.needs_input_grad[2]:
            by_sources = _slopes(gradient, own, adjoint, query, source, rows)
        if ctx.needs_input_grad[3]:
            by_queries = _slopes(rows, scales, transfer, source, query, gradient)
        return by_rows, gradient, by_sources, by_queries, None, None, None, None, None


def _slopes(rows: Tensor, scales: Tensor | None, transfer: Tensor, source: Side, query: Side, other: Tensor) -> Tensor:
    """Slope of the filtered rows at each query, times the other rows there, summed over channels: ``(M, d)``."""
    if scales is not None:
        rows = rows * _of_rows(_inverse(scales), source.points, rows)
        other = other * _of_rows(scales, query.points, other)
    modes = _modes(rows, transfer, source)
    return along_axes(modes, query.points.coordinates, query.spreading, other.flatten(1), not rows.is_complex())
