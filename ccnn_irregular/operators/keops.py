"""The same sum by KeOps: one compiled reduction over all pairs, no array over the pairs."""

from __future__ import annotations

import os
import shutil
import warnings
from dataclasses import replace
from functools import cache
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from ccnn_irregular._optional import import_optional
from ccnn_irregular.domains import Domain
from ccnn_irregular.kernels import Kernel
from ccnn_irregular.kernels.formula import LazyOperations
from ccnn_irregular.operators.engine import Cost, Engine, Plan
from ccnn_irregular.operators.layout import from_rows, to_rows, weighted
from ccnn_irregular.operators.reference import PairGeometry, Reference, kernel_work, pair_count

__all__ = ["KeOps", "compiler"]

_SECONDS_PER_OPERATION = 1.3e-10
# KeOps compiles one reduction per formula at first use; measured with g++ on one core.
_COMPILE_SECONDS = 7.0
_NO_COMPILER = "no C++ compiler found (looked for $CXX, g++, clang++): runs as the blocked reference sum"


def compiler() -> str | None:
    """Path of the C++ compiler KeOps would use, or None."""
    return next(
        (path for name in (os.environ.get("CXX"), "g++", "clang++") if name and (path := shutil.which(name))), None
    )


@cache
def _warn_no_compiler() -> None:
    """Once per process: the cache is what makes it once."""
    warnings.warn(f"engine 'keops': {_NO_COMPILER}", RuntimeWarning, stacklevel=2)


@final
class KeOps(Engine):
    """KeOps reduction; ragged batches are block-diagonal ranges, nothing is padded.

    Without a C++ compiler the blocked reference sum does the work, with one warning per process.
    """

    name: ClassVar[str] = "keops"

    def assess(self, kernel: Kernel, source: Domain, query: Domain, batch: int, rtol: float) -> Cost:
        if compiler() is None:
            return replace(Reference().assess(kernel, source, query, batch, rtol), note=_NO_COMPILER)
        pairs = pair_count(source, query)
        work = kernel_work(kernel) + kernel.generator.out_channels
        # The sum itself, and a formula for the gradient of the values and of each trained tensor.
        formulas = 2 + sum(parameter.requires_grad for parameter in kernel.parameters())
        seconds = pairs * batch * work * _SECONDS_PER_OPERATION
        rows = source.count * batch * kernel.in_channels + query.count * batch * kernel.out_channels
        return Cost(
            formulas * _COMPILE_SECONDS,
            seconds,
            (formulas - 1) * seconds,
            float(rows * kernel.extent.element_size()),
            f"includes compiling up to {formulas} formulas at first use",
        )

    def prepare(self, kernel: Kernel, source: Domain, query: Domain, rtol: float) -> PairGeometry:
        return PairGeometry.build(source, query)

    def apply(self, kernel: Kernel, values: Tensor, plan: Plan) -> Tensor:
        geometry: PairGeometry = plan.geometry
        if compiler() is None:
            _warn_no_compiler()
            return Reference().apply(kernel, values, plan)
        if int(geometry.pairs[-1]) == 0:  # nothing to reduce, and KeOps refuses empty arrays
            return Reference().apply(kernel, values, plan)
        rows = weighted(to_rows(values, plan.source, plan.query), geometry.source.weights)
        return from_rows(_reduce(kernel, rows, geometry), plan.source, plan.query)


def _reduce(kernel: Kernel, rows: Tensor, geometry: PairGeometry) -> Tensor:
    """Sum over all pairs: rows ``(N, B, C)`` to ``(M, B, D)``."""
    # KeOps prints to the terminal while it compiles; a library keeps quiet unless asked.
    # pykeops 2.3 reads KEOPS_VERBOSE before it sets it from its own variable.
    os.environ.setdefault("KEOPS_VERBOSE", os.environ.setdefault("PYKEOPS_VERBOSE", "0"))
    keops = import_optional("pykeops.torch", "engine 'keops'")
    query, source = _centred(geometry, rows.dtype)
    batch, count = rows.shape[1], len(query)
    # KeOps takes an axis of one row for a parameter: a second row, cut off below or of value zero.
    if count == 1:
        query = query.repeat(2, 1)
    if len(source) == 1:
        source, rows = source.repeat(2, 1), torch.cat([rows, torch.zeros_like(rows)])
    # Entries sharing the geometry are a batch dimension of the reduction.
    lead = (1,) if batch > 1 else ()
    query_i = keops.LazyTensor(query.reshape(*lead, -1, 1, kernel.d).contiguous())
    source_j = keops.LazyTensor(source.reshape(*lead, 1, -1, kernel.d).contiguous())
    per_entry = rows.movedim(1, 0) if batch > 1 else rows[:, 0]
    values_j = keops.LazyTensor(per_entry.unsqueeze(-3).contiguous())
    operations = LazyOperations(keops.Pm)
    offsets = _wrapped(query_i - source_j, geometry, rows.dtype, operations)
    kernel_values = kernel.formula(offsets, operations)
    product = kernel_values * values_j if kernel.depthwise else kernel_values.matvecmult(values_j)
    if geometry.source.samples > 1:
        product.ranges = _ranges(geometry)
    result = product.sum(len(lead) + 1).narrow(-2, 0, count)
    if geometry.source.samples > 1:
        # Query rows of a sample without sources belong to no range: KeOps leaves them unset.
        partners = geometry.pairs.diff() > 0
        result = torch.where(partners[:, None], result, 0.0)
    return result.movedim(0, 1) if batch > 1 else result[:, None, :]


def _centred(geometry: PairGeometry, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Coordinates about their common mean: differences of float32 numbers near 5,000,000 m would be noise."""
    both = torch.cat([geometry.query.coordinates, geometry.source.coordinates]).detach()
    centre = both.mean(0)
    return (geometry.query.coordinates - centre).to(dtype), (geometry.source.coordinates - centre).to(dtype)


def _wrapped(offsets: Any, geometry: PairGeometry, dtype: torch.dtype, operations: LazyOperations) -> Any:
    if not bool(geometry.period.any()):
        return offsets
    period = operations.vector(geometry.period.to(dtype))
    inverse = operations.vector(geometry.inverse_period.to(dtype))
    return offsets - period * (offsets * inverse).round(0)


def _ranges(geometry: PairGeometry) -> tuple[Tensor, ...]:
    """Block-diagonal ranges of KeOps: query rows of a sample meet the source rows of that sample."""
    query, source = geometry.query.splits, geometry.source.splits
    filled = (query.diff() > 0) & (source.diff() > 0)
    query_ranges = torch.stack([query[:-1], query[1:]], 1)[filled].int()
    source_ranges = torch.stack([source[:-1], source[1:]], 1)[filled].int()
    slices = torch.arange(1, len(query_ranges) + 1, dtype=torch.int32, device=query.device)
    return (query_ranges, slices, source_ranges, source_ranges, slices, query_ranges)
