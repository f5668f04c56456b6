"""The convolution between grids by sums along each axis, as finely as its error has to be small."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ccnn_irregular.domains import Grid, Points
from ccnn_irregular.kernels import Kernel
from ccnn_irregular.operators.engines.engine import Plan
from ccnn_irregular.operators.engines.neighbours import Neighbours
from ccnn_irregular.operators.engines.reference import Reference
from ccnn_irregular.operators.engines.spectral.boxes import SMALLEST_RTOL
from ccnn_irregular.operators.engines.spectral.refinement import refined
from ccnn_irregular.operators.engines.spectral.separable import GridGeometry, Transfer, grid_cost
from ccnn_irregular.operators.layout import balance, restored
from ccnn_irregular.operators.numerics.axiswise import convolved
from ccnn_irregular.operators.numerics.sizes import Pasts, energy_and_peaks, outliers, sample_energy
from ccnn_irregular.operators.planning.memory import available_memory
from ccnn_irregular.operators.planning.rates import current_rates

__all__ = ["between_grids"]

# A plan is too coarse for a kernel whose error in it is so many rtol; that of a new plan is to be less.
_STALE, _SAFE = 1.2, 0.6
# Share of the values' energy that their mean holds, from which on the error made of constants counts.
_MEAN_COUNTS = 0.1
# Where no transform is accurate enough, the sum pair by pair is taken if it costs at most so many times the finest one.
_EXACT_IS_WORTH = 10.0


def between_grids(kernel: Kernel, values: Tensor, plan: Plan) -> Tensor:
    """The convolution of values ``(B, C, *source.sizes)`` at the nodes of the query."""
    source, query = _grids(plan)
    weight = source.cell_volume * float(kernel.scale)
    factor = balance(weight)
    rows, kernel = values * (weight / factor), kernel.replace(scale=1.0)
    if not rows.numel():
        nothing = (rows.sum() + kernel(rows.new_zeros(0, kernel.d)).sum()) * 0.0
        return nothing + rows.new_zeros(query.values_shape(kernel.out_channels, len(values)))
    # Each entry is a sample of one row, its nodes the numbers of that row.
    splits = torch.arange(len(rows) + 1, device=rows.device)
    entries = Points(torch.zeros(len(rows), 1, dtype=torch.float64, device=rows.device), splits=splits)
    energy, peaked = energy_and_peaks(rows.flatten(2), entries)
    loud = outliers(rows.flatten(2), entries, query.count, of_nodes=True) if peaked else None
    if loud is None:
        return restored(_accurate(kernel, rows, energy, entries, plan), factor)
    loud = loud.reshape(rows.shape)
    quiet = torch.where(loud, 0.0, rows)
    result = _accurate(kernel, quiet, sample_energy(quiet.flatten(2), entries), entries, plan)
    return restored(result + _node_by_node(kernel, rows, loud, plan), factor)


def _grids(plan: Plan) -> tuple[Grid, Grid]:
    source, query = plan.source, plan.query
    assert isinstance(source, Grid)
    assert isinstance(query, Grid)
    return source, query


def _accurate(kernel: Kernel, rows: Tensor, energy: Tensor, entries: Points, plan: Plan) -> Tensor:
    """Its error at most rtol of the result of its own entry and channel; ``energy`` of the rows, float64 ``(B, C)``."""
    _, query = _grids(plan)

    def transformed(rtol: float, channels: Tensor | None) -> tuple[Tensor, Tensor] | str:
        found = _transfer_for(kernel, plan, rtol)
        if isinstance(found, str):
            return found
        geometry, transfer = found
        taps, parts, error = transfer.taps, transfer.parts, transfer.error
        means = rows.detach().flatten(2).mean(2, dtype=torch.float64).square()
        if bool((means * math.prod(rows.shape[2:]) > _MEAN_COUNTS * energy).any()):
            flat = geometry.error_of_constants(kernel, transfer)
        else:
            flat = torch.zeros_like(error)
        these, size = rows, energy
        if channels is not None:
            taps, parts = taps[channels], [torch.cat(parts)[channels]]
            error, flat = error[channels], flat[channels]
            if kernel.depthwise:
                these, size, means = rows[:, channels], energy[:, channels], means[:, channels]
        lost = size * error + means * flat if kernel.depthwise else size @ error.T + means @ flat.T
        return convolved(these, taps, parts, geometry.ways), query.count * lost[:, None]

    def exact(rtol: float) -> Tensor | None:
        return _sum_of_pairs(kernel, rows, plan) if _pairs_are_cheaper(kernel, plan, len(rows), rtol) else None

    geometry: GridGeometry = plan.geometry
    return refined(transformed, exact, Pasts(entries, None), geometry.rtol, SMALLEST_RTOL[kernel.dtype])


def _transfer_for(kernel: Kernel, plan: Plan, rtol: float) -> tuple[GridGeometry, Transfer] | str:
    """A geometry that suits the kernel and ``rtol``, and the kernel's transform; or why there is none."""
    planned: GridGeometry = plan.geometry
    geometry = planned.renewed.get(rtol, planned if rtol == planned.rtol else None)
    if geometry is not None and _reaches(kernel, geometry):
        transfer = geometry.transfer(kernel)
        if transfer.relative_error <= _STALE * rtol:
            return geometry, transfer
    source, query = _grids(plan)
    finer, best = rtol, SMALLEST_RTOL[kernel.dtype]
    while True:
        renewed = GridGeometry.build([kernel], source, query, finer)
        if isinstance(renewed, str):
            return renewed
        transfer = renewed.transfer(kernel)
        if transfer.relative_error <= _STALE * rtol or finer <= best:
            break
        finer = max(best, finer * _SAFE * rtol / transfer.relative_error)  # a spectrum that is hard to see
    planned.renewed[rtol] = renewed
    return renewed, transfer


def _reaches(kernel: Kernel, geometry: GridGeometry) -> bool:
    return all(a <= b * (1 + 1e-6) for a, b in zip(kernel.support.tolist(), geometry.support, strict=True))


def _pairs_are_cheaper(kernel: Kernel, plan: Plan, batch: int, rtol: float) -> bool:
    """Whether the sum costs less than a transform of this rtol, or little where none has it."""
    planned: GridGeometry = plan.geometry
    if rtol not in planned.exact:
        source, query = _grids(plan)
        best, rates = SMALLEST_RTOL[kernel.dtype], current_rates(kernel.extent.device)
        transform = grid_cost(kernel, source, query, batch, max(best, rtol))
        pairs = Reference().cost(kernel, source, query, batch, rtol)
        dearer = 1.0 if rtol >= best else _EXACT_IS_WORTH
        least = math.inf if isinstance(transform, str) else dearer * transform.seconds(rates)
        fits = pairs.bytes <= available_memory(kernel.extent.device)
        planned.exact[rtol] = fits and pairs.seconds(rates) <= least
    return planned.exact[rtol]


def _sum_of_pairs(kernel: Kernel, rows: Tensor, plan: Plan) -> Tensor:
    """Pair by pair; the rows are weighted already."""
    source, query = _grids(plan)
    pairs = Plan(Reference(), source, query, Reference().prepare([kernel], source, query, plan.rtol))
    return Reference().apply(kernel.replace(scale=1 / source.cell_volume), rows, pairs)


def _node_by_node(kernel: Kernel, rows: Tensor, chosen: Tensor, plan: Plan) -> Tensor:
    """The sum over the chosen values only."""
    source, query = _grids(plan)
    entry, node = chosen.any(1).flatten(1).nonzero(as_tuple=True)
    places = source.nodes(rows.device)[node]
    splits = torch.searchsorted(entry, torch.arange(len(rows) + 1, device=rows.device))
    points = Points(places, splits=splits, periods=source.periods)
    queries = query.as_points(len(rows), rows.device)
    values = torch.where(chosen, rows, 0.0).flatten(2)[entry, :, node]
    pairs = Plan(Neighbours(), points, queries, Neighbours().prepare([kernel], points, queries, plan.rtol))
    result = Neighbours().apply(kernel, values, pairs)
    return result.unflatten(0, (len(rows), -1)).movedim(2, 1).unflatten(2, query.sizes)
