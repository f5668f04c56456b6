"""Sums pair by pair that stand in for a transform: of the few values that dwarf the others, and where they cancel."""

from __future__ import annotations

import torch
from torch import Tensor

from ccnn_irregular.domains import Domain, Points, Product
from ccnn_irregular.kernels import Kernel
from ccnn_irregular.operators.engines.engine import Plan
from ccnn_irregular.operators.engines.neighbours import Neighbours
from ccnn_irregular.operators.engines.spectral.boxes import SMALLEST_RTOL, transform_cost
from ccnn_irregular.operators.engines.spectral.factors import Factors
from ccnn_irregular.operators.engines.spectral.geometry import Geometry, PairsDecision
from ccnn_irregular.operators.planning.memory import available_memory
from ccnn_irregular.operators.planning.rates import current_rates

__all__ = ["cheaper_pairs", "pair_by_pair", "summed"]

# Where no transform is accurate enough, the sum pair by pair is taken if it costs at most so many times the finest one.
_EXACT_IS_WORTH = 10.0


def pair_by_pair(kernel: Kernel, rows: Tensor, chosen: Tensor, plan: Plan) -> Tensor:
    """The sum over the chosen values only, ``(M, D, *uniform sizes)``."""
    of_row = chosen.flatten(1).any(1)
    pairs = _plan_of_pairs(kernel, plan, of_row)
    return summed(kernel, torch.where(chosen[of_row], rows[of_row], 0.0), pairs, plan)


def _plan_of_pairs(kernel: Kernel, plan: Plan, of_row: Tensor | None = None) -> Plan:
    """Of the sum over the neighbours among some rows, or all of them; its values are weighted already."""
    sources, queries = plan.geometry.factors.sources, plan.geometry.factors.queries
    places, splits = sources.coordinates, sources.splits
    if of_row is not None:
        places, sample = places[of_row], sources.sample_index()[of_row]
        splits = torch.searchsorted(sample, torch.arange(sources.samples + 1, device=sources.device))
    # On a product, each node's volume, which is in the rows already, comes in again.
    weights = places.new_full((len(places),), 1 / plan.geometry.factors.volume)
    points = Points(places, weights, splits, periods=sources.periods)
    source: Domain = points
    query: Domain = queries
    if plan.geometry.factors.lattices:
        assert isinstance(plan.source, Product)
        assert isinstance(plan.query, Product)
        source, query = Product(points, plan.source.grid), Product(queries, plan.query.grid)
    return Plan(Neighbours(), source, query, Neighbours().prepare([kernel], source, query, plan.geometry.rtol))


def summed(kernel: Kernel, rows: Tensor, pairs: Plan, plan: Plan) -> Tensor:
    """Weighted rows ``(N, C, *uniform sizes)`` to ``(M, D, *uniform sizes)``, pair by pair."""
    factors: Factors = plan.geometry.factors
    if factors.lattices:
        return Neighbours().apply(kernel, rows, pairs)
    return Neighbours().apply(kernel, rows[:, :, 0], pairs)[:, :, None]


def cheaper_pairs(kernel: Kernel, plan: Plan, rtol: float) -> Plan | None:
    """A plan of the sum pair by pair, if it costs less than a transform of this rtol, or little where none has it."""
    planned: Geometry = plan.geometry
    known = planned.pairs.get(rtol)
    if known is None or any(a > b * (1 + 1e-6) for a, b in zip(kernel.support.tolist(), known.support, strict=True)):
        best = SMALLEST_RTOL[kernel.dtype]
        transform = transform_cost(kernel, plan.source, plan.query, 1, max(best, rtol))
        sum_ = Neighbours().cost(kernel, plan.source, plan.query, 1, rtol)
        known = PairsDecision(tuple(kernel.support.tolist()), None)
        if sum_.bytes <= available_memory(kernel.extent.device):
            rates = current_rates(kernel.extent.device)
            dearer = 1.0 if rtol >= best else _EXACT_IS_WORTH
            if isinstance(transform, str) or sum_.seconds(rates) <= dearer * transform.seconds(rates):
                known = PairsDecision(known.support, _plan_of_pairs(kernel, plan))
        planned.pairs[rtol] = known
    return known.plan
