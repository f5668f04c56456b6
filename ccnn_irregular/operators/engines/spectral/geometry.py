"""What a plan of the spectral engine holds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from ccnn_irregular._checks import reject
from ccnn_irregular.domains import Domain, Points
from ccnn_irregular.kernels import Kernel
from ccnn_irregular.operators.engines.engine import Plan
from ccnn_irregular.operators.engines.neighbours import Neighbours
from ccnn_irregular.operators.engines.spectral.boxes import best_box
from ccnn_irregular.operators.engines.spectral.factors import Factors, Place, Smoothing, largest_support
from ccnn_irregular.operators.numerics.box import Box
from ccnn_irregular.operators.numerics.filtering import Side
from ccnn_irregular.operators.numerics.nufft import Spreading
from ccnn_irregular.operators.numerics.sizes import Pasts, Stretches

__all__ = ["Geometry", "PairsDecision"]


@dataclass(frozen=True)
class Geometry:
    """What a plan holds.

    Attributes:
        rtol: relative error it may make.
        factors: source and query taken apart.
        support: kernel support per axis that the plan holds for, coordinate units.
        source: places and window matrix of the sources.
        query: those of the queries.
        volumes: float64 ``(B,)``, space each sample is spread over, coordinate units.
        smoothing: how kernels are made smooth and short enough.
        near: neighbours of the part of short reach of a kernel that is causal in irregular time, or None.
        stretches: blocks of time in which values may grow, where a kernel is causal in irregular time; else None.
        pasts: the queries whose results keep rtol together.
        renewed: by rtol, geometry made since for kernels this one is too coarse for, and for values that cancel.
        pairs: by rtol, what was decided for values that cancel.
    """

    rtol: float
    factors: Factors
    support: tuple[float, ...]
    source: Side
    query: Side
    volumes: Tensor
    smoothing: Smoothing
    near: Plan | None
    stretches: Stretches | None
    pasts: Pasts
    renewed: dict[float, Geometry] = field(default_factory=dict, compare=False)
    pairs: dict[float, PairsDecision] = field(default_factory=dict, compare=False)

    @classmethod
    def build(
        cls, kernels: Sequence[Kernel], source: Domain, query: Domain, rtol: float, box: Box | None = None
    ) -> Geometry:
        """What serves all of the kernels; ``box`` if the best one is known already."""
        factors = Factors.build(source, query)
        place = Place.of(kernels, factors)
        smoothing = Smoothing.of(kernels, factors, place, rtol)
        parts = [smoothing.parts(kernel) for kernel in kernels]
        far = [smooth for smooth, _ in parts]
        short = [close for _, close in parts if close is not None]
        near = _near_plan(short, factors, rtol) if short else None
        box = best_box(far, factors, place, rtol) if box is None else box
        if box is None:
            rule = f"be smooth enough to be sampled finely enough for rtol {rtol:g}"
            reject("kernel", rule, "one that is too sharp")
        dtype = kernels[0].dtype
        spread = Spreading.build(factors.sources, place.sources, box, dtype)
        interpolate = spread if factors.same else Spreading.build(factors.queries, place.queries, box, dtype)
        # What is shortened may grow as it likes.
        reaches = largest_support(kernels)[: factors.d].detach()
        limits = zip(smoothing.spans, largest_support(kernels).tolist(), strict=True)
        in_time = bool(short) and factors.sources.periods == (None,)
        return cls(
            rtol,
            factors,
            tuple(reach if span is None else math.inf for span, reach in limits),
            Side(factors.sources, spread),
            Side(factors.queries, interpolate),
            (place.highest - place.lowest + reaches.to(place.lowest)).prod(1),
            smoothing,
            near,
            Stretches.build(factors.sources) if in_time else None,
            Pasts.build(factors.sources, factors.queries, causal=in_time),
        )


@dataclass(frozen=True)
class PairsDecision:
    """Whether the sum pair by pair is the cheaper way to a smaller rtol.

    Attributes:
        support: kernel support per axis for which that was decided, coordinate units.
        plan: of the sum, or None where a transform is cheaper.
    """

    support: tuple[float, ...]
    plan: Plan | None


def _near_plan(kernels: Sequence[Kernel], factors: Factors, rtol: float) -> Plan:
    """Of the parts of short reach; its values are weighted already."""
    sources = Points(factors.sources.coordinates, splits=factors.sources.splits, periods=factors.sources.periods)
    queries = sources if factors.same else factors.queries
    return Plan(Neighbours(), sources, queries, Neighbours().prepare(kernels, sources, queries, rtol))
