"""Rows to modes, times a kernel's transform, and back to rows, each sample on a scale of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ccnn_irregular.domains import Points
from ccnn_irregular.operators.nufft import Spreading, at_points, to_modes
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
    result = _through(rows.detach() * inside, transfer, source, query) * outside
    return _Balanced.apply(rows, result, transfer, source, query, volumes)


def _through(rows: Tensor, transfer: Tensor, source: Side, query: Side) -> Tensor:
    channels, frequencies = rows.shape[1:]
    modes = to_modes(rows.flatten(1), source.points, source.spreading).unflatten(0, (channels, frequencies))
    depthwise = _is_depthwise(transfer, source)
    modes = modes * transfer if depthwise else torch.einsum("cf...,dcf...->df...", modes, transfer)
    result = at_points(modes.flatten(0, 1), query.points, query.spreading, real=not rows.is_complex())
    return result.unflatten(1, (-1, frequencies))


def _is_depthwise(transfer: Tensor, side: Side) -> bool:
    return transfer.ndim == side.spreading.box.d + 3


def _inverse(scales: Tensor) -> Tensor:
    return torch.where(scales > 0, 1 / scales, 0.0)


def _of_rows(scales: Tensor, points: Points, like: Tensor) -> Tensor:
    """Each row's scale, ``(N, C or 1, 1)``."""
    return scales[points.sample_index()].to(like.real.dtype)[:, :, None]


class _Balanced(torch.autograd.Function):
    """``result``, of which ``rows`` are the detached input: its gradient has samples of other sizes than the rows."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, result: Tensor, transfer: Tensor, source: Side, query: Side, volumes: Tensor
    ) -> Tensor:
        ctx.save_for_backward(transfer)
        ctx.source, ctx.query, ctx.volumes = source, query, volumes
        return result.view_as(result)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, None, None, None, None]:
        by_rows = None
        if ctx.needs_input_grad[0]:
            (transfer,) = ctx.saved_tensors
            depthwise = _is_depthwise(transfer, ctx.query)
            adjoint = transfer.conj() if depthwise else transfer.conj().transpose(0, 1)
            scales = sample_scales(sample_energy(gradient, ctx.query.points), ctx.volumes, joint=not depthwise)
            by_rows = filtered(gradient, adjoint, ctx.query, ctx.source, ctx.volumes, scales)
        return by_rows, gradient, None, None, None, None
