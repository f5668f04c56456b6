"""The non-uniform FFT convolution of points, and of products of points with uniform axes.

    y = interp_q . FFTconv_K . spread_p (w x)

The irregular axes, three at the most, go through a box of cells (``numerics.nufft``); the uniform axes of a
``Product`` need no window: they are transformed as the exact FFT engine does (``numerics.lattice``), before the
points are spread, so that no cell of the box is ever combined with a node that has no sample.

Two grids without a common lattice need no cells at all: each axis has sums of its own (``separable``).

A kernel that is causal in irregular time is split (``numerics.splitting``): its smooth part goes this way, the
rest reaches a few neighbours only.

Samples of a ragged batch are laid end to end along one axis, one kernel support apart: a whole batch
is one transform, and nothing is padded to equal lengths.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from ccnn_irregular._checks import reject
from ccnn_irregular.domains import Domain, Grid
from ccnn_irregular.kernels import Kernel
from ccnn_irregular.operators.engines.engine import Cost, Engine, Plan
from ccnn_irregular.operators.engines.spectral.accuracy import accurate
from ccnn_irregular.operators.engines.spectral.boxes import least_work, transform_cost
from ccnn_irregular.operators.engines.spectral.factors import Factors, irregular_axes
from ccnn_irregular.operators.engines.spectral.geometry import Geometry
from ccnn_irregular.operators.engines.spectral.grids import between_grids
from ccnn_irregular.operators.engines.spectral.pairs import pair_by_pair
from ccnn_irregular.operators.engines.spectral.separable import GridGeometry, band_axes, grid_cost, least_grid_work
from ccnn_irregular.operators.layout import balance, both_grids, from_rows, restored, to_rows, weighted
from ccnn_irregular.operators.numerics.sizes import energy_and_peaks, outliers, sample_energy
from ccnn_irregular.operators.planning.rates import Work

__all__ = ["Spectral"]

_MOST_AXES = 3


@final
class Spectral(Engine):
    """Non-uniform FFT convolution of points, ragged batches and products with uniform axes; error about ``rtol``."""

    name: ClassVar[str] = "spectral"
    plan_follows_kernel: ClassVar[bool] = True

    def refuses(self, kernel: Kernel, source: Domain, query: Domain) -> str | None:
        grids = both_grids(source, query)
        if grids is not None and not band_axes(*grids, kernel.causal_axes):
            return "both domains are grids on a common lattice: 'fft' is exact there"
        if kernel.mask is None:
            return "the kernel has no mask, so no support that could separate the samples"
        if grids is not None:
            return _refuses_grids(kernel, *grids)
        axes, shares_lattice = irregular_axes(source, query)
        if axes > _MOST_AXES:
            return f"more than {_MOST_AXES} irregular axes"
        if any(axis < axes for axis in kernel.causal_axes) and (axes > 1 or shares_lattice):
            return "a kernel that is causal on one of several axes jumps along it there: its spectrum never ends"
        return None

    def error(self, rtol: float) -> float:
        return rtol

    def least_work(self, kernel: Kernel, source: Domain) -> Work:
        if source.irregular is None:
            return least_grid_work(kernel)
        axes = source.irregular.d
        return least_work(kernel, axes) if axes <= _MOST_AXES else Work(call=math.inf)

    def cost(self, kernel: Kernel, source: Domain, query: Domain, batch: int, rtol: float) -> Cost | str:
        grids = both_grids(source, query)
        if grids is not None:
            return grid_cost(kernel, *grids, batch, rtol)
        return transform_cost(kernel, source, query, batch, rtol)

    def prepare(
        self, kernels: Sequence[Kernel], source: Domain, query: Domain, rtol: float, study: Any = None
    ) -> Geometry | GridGeometry:
        grids = both_grids(source, query)
        if grids is None:
            return Geometry.build(kernels, source, query, rtol, study)
        geometry = GridGeometry.build(kernels, *grids, rtol) if study is None else study
        if isinstance(geometry, str):
            reject("kernel", f"be smooth enough for rtol {rtol:g}", geometry)
        return geometry

    def apply(self, kernel: Kernel, values: Tensor, plan: Plan) -> Tensor:
        if both_grids(plan.source, plan.query):
            return between_grids(kernel, values, plan)
        factors = plan.geometry.factors
        weights = factors.sources.weights * (kernel.scale * factors.volume)
        factor = balance(weights)
        rows, kernel = _weighted_rows(values, weights / factor, plan), kernel.replace(scale=1.0)
        if not len(rows) or not factors.queries.count:
            return _zero(kernel, rows, plan)
        energy, peaked = energy_and_peaks(rows.flatten(2), factors.sources)
        loud = outliers(rows.flatten(2), factors.sources, factors.queries.count) if peaked else None
        if loud is None:
            return _from_rows(restored(accurate(kernel, rows, energy, plan), factor), plan)
        loud = loud.reshape(rows.shape)
        quiet = torch.where(loud, 0.0, rows)
        energy = sample_energy(quiet.flatten(2), factors.sources)
        result = accurate(kernel, quiet, energy, plan) + pair_by_pair(kernel, rows, loud, plan)
        return _from_rows(restored(result, factor), plan)


def _refuses_grids(kernel: Kernel, source: Grid, query: Grid) -> str | None:
    bands = band_axes(source, query, kernel.causal_axes)
    if len(bands) > _MOST_AXES:
        return f"more than {_MOST_AXES} axes have steps in no ratio of small integers"
    if any(axis in bands for axis in kernel.causal_axes):
        return "the kernel jumps along an axis whose steps are in no ratio of small integers: its spectrum never ends"
    return None


def _weighted_rows(values: Tensor, weights: Tensor, plan: Plan) -> Tensor:
    """Values times float64 weights, ``(N, C, *uniform sizes)``."""
    factors: Factors = plan.geometry.factors
    if not factors.lattices:
        return weighted(to_rows(values, plan.source, plan.query), weights).movedim(1, 2)
    weights = weights.to(values.dtype)
    weights = weights.reshape(*weights.shape, *(1,) * (values.ndim - weights.ndim))
    return torch.where(weights == 0, 0.0, values) * weights


def _from_rows(rows: Tensor, plan: Plan) -> Tensor:
    """Rows ``(M, D, *uniform sizes)`` in the query's convention."""
    return rows if plan.geometry.factors.lattices else from_rows(rows.movedim(2, 1), plan.source, plan.query)


def _zero(kernel: Kernel, rows: Tensor, plan: Plan) -> Tensor:
    """What nothing gives, or what nobody asks for."""
    factors: Factors = plan.geometry.factors
    places = factors.sources.coordinates.sum() + factors.queries.coordinates.sum()
    nothing = (rows.sum() + kernel(rows.new_zeros(0, kernel.d)).sum() + places.to(rows.dtype)) * 0.0
    sizes = [lattice.query for lattice in factors.lattices] or [1]
    return _from_rows(nothing + rows.new_zeros(factors.queries.count, kernel.out_channels, *sizes), plan)
