"""The transform of weighted rows at points, as finely as its error has to be small."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from ccnn_irregular.kernels import Kernel
from ccnn_irregular.operators.engines.engine import Plan
from ccnn_irregular.operators.engines.neighbours import Neighbours
from ccnn_irregular.operators.engines.spectral.boxes import SMALLEST_RTOL
from ccnn_irregular.operators.engines.spectral.geometry import Geometry
from ccnn_irregular.operators.engines.spectral.pairs import cheaper_pairs, summed
from ccnn_irregular.operators.engines.spectral.refinement import refined
from ccnn_irregular.operators.engines.spectral.transfer import Filter, filter_for
from ccnn_irregular.operators.numerics.filtering import filtered
from ccnn_irregular.operators.numerics.lattice import at_queries, on_lattice, query_windows
from ccnn_irregular.operators.numerics.sizes import sample_energy, sample_scales
from ccnn_irregular.operators.numerics.transforms import real_spectrum, real_window

__all__ = ["accurate"]


def accurate(kernel: Kernel, rows: Tensor, energy: Tensor, plan: Plan) -> Tensor:
    """The convolution of weighted rows, its error at most rtol of the result of its own sample and channel."""

    def transformed(rtol: float, channels: Tensor | None) -> tuple[Tensor, Tensor] | str:
        filter_ = filter_for(kernel, plan, rtol)
        return filter_ if isinstance(filter_, str) else _approximate(rows, energy, filter_, channels)

    def exact(rtol: float) -> Tensor | None:
        pairs = cheaper_pairs(kernel, plan, rtol)
        return None if pairs is None else summed(kernel, rows, pairs, plan)

    return refined(transformed, exact, plan.geometry.pasts, plan.geometry.rtol, SMALLEST_RTOL[kernel.dtype])


def _approximate(
    rows: Tensor, energy: Tensor, filter_: Filter, channels: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The convolution of weighted rows ``(N, C, *uniform sizes)``, and what is lost, float64 ``(B, pasts, D)``.

    That is the square of the error to be expected, added up over the queries of each past. ``energy`` of the rows, by
    sample and channel; ``channels``: those of the result that are wanted.
    """
    geometry, kernel, transfer, error = filter_.geometry, filter_.kernel, filter_.transfer, filter_.error
    near = None
    if filter_.near is not None and geometry.near is not None:
        near = Neighbours().apply(filter_.near, rows[:, :, 0], geometry.near)[:, :, None]
    if channels is not None:
        transfer, error = transfer[channels], error[channels]
        rows, energy = (rows[:, channels], energy[:, channels]) if kernel.depthwise else (rows, energy)
        near = None if near is None else near[:, channels]
    stretches = geometry.stretches
    parts = stretches and stretches.apart(rows[:, :, 0], geometry.query.points, joint=not kernel.depthwise)
    if parts:
        result, lost = _sum_of_stretches(parts, transfer, error, geometry, joint=not kernel.depthwise)
    else:
        scales = sample_scales(energy, geometry.volumes, joint=not kernel.depthwise)
        result = _along_lattices(rows, transfer, filter_, scales)
        entries = geometry.pasts.counts() * math.prod(result.shape[2:])
        lost = entries * _expected_loss(energy, scales, error, geometry)[:, None]
    return result if near is None else result + near, lost


def _sum_of_stretches(
    parts: Iterable[tuple[Tensor, Tensor]], transfer: Tensor, error: Tensor, geometry: Geometry, *, joint: bool
) -> tuple[Tensor, Tensor]:
    """Each stretch of time by itself; the time before it gets nothing of it. And what is lost."""
    result = lost = geometry.volumes.new_zeros(())
    sample = geometry.query.points.sample_index()
    for rows, reached in parts:
        rows = rows[:, :, None]
        energy = sample_energy(rows, geometry.source.points)
        scales = sample_scales(energy, geometry.volumes, joint=joint)
        part = filtered(rows, transfer, geometry.source, geometry.query, geometry.volumes, scales)
        result = result + torch.where(reached[:, :, None], part, 0.0)
        lost = lost + torch.where(reached, _expected_loss(energy, scales, error, geometry)[sample], 0.0)
    return result, geometry.pasts.added(lost[:, :, None])


def _expected_loss(energy: Tensor, scales: Tensor | None, error: Tensor, geometry: Geometry) -> Tensor:
    """Squared error of a query of each sample and channel, float64 ``(B, D)``; ``error`` as in ``Filter``."""
    if scales is not None:
        energy = torch.where(scales > 0, energy / scales.square(), 0.0)
    box = geometry.source.spreading.box
    # What a sample loses it gets back about its own place, or all get it: the worse of both.
    near = energy * (math.prod(box.sizes) * math.prod(box.steps) / geometry.volumes)[:, None]
    energy = torch.maximum(near, energy.sum(0) if box.layers == 1 else energy)
    squared = energy * error if error.ndim == 1 else energy @ error.T
    return squared if scales is None else squared * scales.square()


def _along_lattices(rows: Tensor, transfer: Tensor, filter_: Filter, scales: Tensor | None) -> Tensor:
    """The smooth part's result ``(M, D, *uniform sizes)``; uniform axes are transformed before points are spread."""
    geometry = filter_.geometry
    lattices, ends = geometry.factors.lattices, (geometry.source, geometry.query, geometry.volumes)
    if not lattices:
        return filtered(rows, transfer, *ends, scales)
    lengths = [lattice.length(*span) for lattice, span in zip(lattices, filter_.spans, strict=True)]
    spectra = real_spectrum(on_lattice(rows, lattices), lengths)  # (N, C, *frequencies)
    result = filtered(spectra.flatten(2), transfer, *ends, scales).unflatten(2, spectra.shape[2:])
    windows = query_windows(lattices, filter_.spans)
    return at_queries(real_window(result, lengths, windows), lattices, filter_.spans, windows)
