"""Kernels taken to a geometry: their transforms, and the error that the geometry makes of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ccnn_irregular.kernels import Kernel
from ccnn_irregular.operators.engines.engine import Plan
from ccnn_irregular.operators.engines.spectral.boxes import transform_cost
from ccnn_irregular.operators.engines.spectral.geometry import Geometry
from ccnn_irregular.operators.numerics.lattice import tap_offsets, tap_spans
from ccnn_irregular.operators.numerics.nufft import transform_taps
from ccnn_irregular.operators.numerics.sizes import energy_of_taps
from ccnn_irregular.operators.numerics.transforms import real_spectrum
from ccnn_irregular.operators.planning.memory import as_size, available_memory

__all__ = ["Filter", "filter_for"]

# A plan is too coarse for a kernel whose error in it is so many rtol; a new plan's is half of one.
_STALE = 1.5


@dataclass(frozen=True)
class Filter:
    """A kernel taken to a geometry that suits it.

    Attributes:
        geometry: which one.
        kernel: the smooth part, which is transformed.
        transfer: its transform, as ``filtered`` takes it.
        error: float64 ``(*kernel.shape)``, squared, the error made of one row of size 1 on average over all places.
        near: the part of short reach of a kernel that is causal in irregular time, or None.
        spans: first and last tap on each uniform axis.
    """

    geometry: Geometry
    kernel: Kernel
    transfer: Tensor
    error: Tensor
    near: Kernel | None
    spans: list[tuple[int, int]]


def filter_for(kernel: Kernel, plan: Plan, rtol: float) -> Filter | str:
    """The kernel on the plan's geometry, or on one made anew where that is too coarse for the kernel or for ``rtol``.

    A string says why there is none.
    """
    planned: Geometry = plan.geometry
    geometry = planned.renewed.get(rtol, planned if rtol == planned.rtol else None)
    found = None if geometry is None else _filter_on(kernel, geometry)
    if found is not None:
        return found
    cost = transform_cost(kernel, plan.source, plan.query, 1, rtol)
    if isinstance(cost, str):
        return cost
    available = available_memory(kernel.extent.device)
    if cost.bytes > available:
        return f"it needs about {as_size(cost.bytes)}, {as_size(available)} available"
    geometry = Geometry.build([kernel], plan.source, plan.query, rtol, cost.study)
    planned.renewed[rtol] = geometry
    return _filter_on(kernel, geometry, fresh=True) or "its spectrum could not be resolved"


def _filter_on(kernel: Kernel, geometry: Geometry, *, fresh: bool = False) -> Filter | None:
    """The kernel's transform on this geometry; None where its support or its spectrum outgrow it."""
    limits = zip(kernel.support.tolist(), geometry.support, strict=True)
    if any(reach > limit * (1 + 1e-6) for reach, limit in limits):
        return None
    far, near = geometry.smoothing.parts(kernel)
    spans = tap_spans(far, geometry.factors.lattices, geometry.factors.d)
    transfer, error, energy = _transfer(far, geometry, spans)
    if not fresh and bool((error > (_STALE * geometry.rtol) ** 2 * energy).any()):
        return None
    return Filter(geometry, far, transfer, error, near, spans)


def _transfer(kernel: Kernel, geometry: Geometry, spans: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor, Tensor]:
    """The kernel's transform ``(*kernel.shape, frequencies, 1, *modes)`` on the box's cells and the uniform axes.

    And squared, float64 ``(*kernel.shape)``: the error made of one row of size 1, and that row's result, on average
    over all places.
    """
    box, lattices, device = geometry.source.spreading.box, geometry.factors.lattices, kernel.extent.device
    reaches = [math.floor(reach / step) for reach, step in zip(kernel.support.tolist(), box.steps, strict=False)]
    offsets = [
        torch.arange(-reach, reach + 1, dtype=torch.float64, device=device) * step
        for reach, step in zip(reaches, box.steps, strict=True)
    ]
    offsets += [tap_offsets(lattice, span, device) for lattice, span in zip(lattices, spans, strict=True)]
    taps = kernel.sampled(offsets)
    energy, sizes = energy_of_taps(taps.detach().flatten(0, kernel.d - 1))
    energy = energy / box.cells
    # (*cells, *nodes, *kernel.shape) to (*kernel.shape, *nodes, *cells)
    taps = taps.permute(*range(kernel.d, taps.ndim), *range(box.d, kernel.d), *range(box.d))
    lengths = [lattice.length(*span) for lattice, span in zip(lattices, spans, strict=True)]
    if lattices:
        nodes = range(-kernel.d, -box.d)
        last = range(-len(lattices), 0)
        taps = real_spectrum(taps.movedim(tuple(nodes), tuple(last)), lengths).movedim(tuple(last), tuple(nodes))
    taps = taps.reshape(*kernel.shape, -1, 1, *taps.shape[taps.ndim - box.d :])
    transfer, error = transform_taps(taps, tuple(-reach for reach in reaches), box, sizes)
    if lattices:
        error = error * _stands_for(lengths).to(error)[:, None] / math.prod(lengths)
    everywhere = math.prod(lengths)
    return transfer, error.to(torch.float64).flatten(len(kernel.shape)).sum(-1) / everywhere, energy / everywhere


def _stands_for(lengths: Sequence[int]) -> Tensor:
    """How many frequencies each one of a real transform of these lengths stands for, ``(frequencies,)``."""
    last = torch.full((lengths[-1] // 2 + 1,), 2.0)
    last[0] = 1.0
    if lengths[-1] % 2 == 0:
        last[-1] = 1.0
    return last.repeat(math.prod(lengths[:-1]))
