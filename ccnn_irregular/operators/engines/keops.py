"""The same sum by KeOps: one compiled reduction over all pairs, no array over the pairs."""

from __future__ import annotations

import math
import os
import shutil
import threading
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from ccnn_irregular._optional import import_optional
from ccnn_irregular.domains import Domain
from ccnn_irregular.kernels import Kernel, with_tensors
from ccnn_irregular.kernels.formula import LazyOperations
from ccnn_irregular.operators.engines.engine import Cost, Engine, Plan
from ccnn_irregular.operators.engines.reference import PairGeometry, PairProblem, Reference, pair_cost, pair_gradients
from ccnn_irregular.operators.layout import balance, from_rows, restored, to_rows, weighted
from ccnn_irregular.operators.planning.rates import Work
from ccnn_irregular.operators.planning.work import evaluation_work, pair_work, scale

__all__ = ["KeOps", "compiler"]

# Calls of array operations: to lay out the geometry once, and around each reduction.
_PLAN_CALLS, _CALLS = 80, 300
# The sum, and its transpose for the gradient of the values.
_LEAST_FORMULAS = 2
# Bytes of the geometry per row of either domain, where a grid is expanded too.
_BYTES_PER_ROW = 64
# Kernel values that one formula may have. KeOps keeps its vectors in registers, and a GPU's hold about 100 numbers;
# each further part evaluates the hidden layers again. CPUs have caches for them and would do without parts.
_MOST_VALUES = 64
# KeOps keeps the addresses of arguments and result on the compiled formula until it calls it: a second thread would
# write into the first one's result. It also compiles into one folder for all.
_ONE_AT_A_TIME = threading.Lock()
# Parts of coordinates for single precision, and the binary digits of each: differences, and a turn less, fit into 24.
_PARTS, _DIGITS = 3, 21
_NO_COMPILER = "no C++ compiler found (looked for $CXX, g++, clang++): runs as the blocked reference sum"


def compiler() -> str | None:
    """Path of the C++ compiler KeOps would use, or None."""
    return _found(os.environ.get("CXX"), os.environ.get("PATH"))


@cache
def _found(named: str | None, folders: str | None) -> str | None:
    """Looked up once: planning may not take as long as it takes to search the folders."""
    paths = (shutil.which(name, path=folders) for name in (named, "g++", "clang++") if name)
    return next((path for path in paths if path), None)


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

    def least_work(self, kernel: Kernel, source: Domain) -> Work:
        return Work() if compiler() is None else Work(keops_compile=_LEAST_FORMULAS)

    def cost(self, kernel: Kernel, source: Domain, query: Domain, batch: int, rtol: float) -> Cost:
        if compiler() is None:
            return replace(Reference().cost(kernel, source, query, batch, rtol), note=_NO_COMPILER)
        sizes, work = pair_work(source, query), evaluation_work(kernel)
        written = kernel.generator.out_channels
        # Each part of the channels evaluates the hidden layers again.
        parts = math.ceil(written / _MOST_VALUES)
        outputs = kernel.generator.output.weight.numel()
        operations = parts * (work.multiply_adds - outputs + work.elements) + outputs
        reduced = Work(call=_CALLS * parts, keops=scale(kernel) * batch * sizes.pairs * operations)
        # Channels that are left over have formulas of their own.
        formulas = _LEAST_FORMULAS * min(parts, 1 if written % _MOST_VALUES == 0 else 2)
        # The kernel's gradients are a sum over blocks of pairs.
        blocked = pair_cost(kernel, sizes, sizes.pairs, batch)
        rows = sizes.sources + sizes.queries
        return Cost(
            Work(call=_PLAN_CALLS, pair=rows, keops_compile=formulas),
            reduced,
            reduced + blocked.backward,
            _BYTES_PER_ROW * rows + blocked.bytes,
            f"plan includes compiling {formulas} formulas at first use",
        )

    def prepare(
        self, kernels: Sequence[Kernel], source: Domain, query: Domain, rtol: float, study: Any = None
    ) -> PairGeometry:
        return PairGeometry.build(source, query, kernels[0].extent.device)

    def apply(self, kernel: Kernel, values: Tensor, plan: Plan) -> Tensor:
        geometry: PairGeometry = plan.geometry
        if compiler() is None:
            _warn_no_compiler()
            return Reference().apply(kernel, values, plan)
        if int(geometry.ends[-1]) == 0:  # nothing to reduce, and KeOps refuses empty arrays
            return Reference().apply(kernel, values, plan)
        weights = geometry.source.weights * kernel.scale
        factor = balance(weights)
        rows = weighted(to_rows(values, plan.source, plan.query), weights, factor)
        problem = PairProblem.build(kernel, geometry)
        result = _PairSum.apply(problem, rows, *problem.tensors())
        return from_rows(restored(result, factor), plan.source, plan.query)


class _PairSum(torch.autograd.Function):
    """The sum over all pairs, rows ``(N, B, C)`` to ``(M, B, D)``, differentiable any number of times.

    KeOps multiplies by the matrix and by its transpose, which is the gradient of the values: two formulas.
    It would compile and evaluate one more for every tensor the kernel depends on, with an accumulator of the
    tensor's size for each query; packing all of them into one vector saves the compiling and not the work.
    Instead one pass over blocks of pairs, whose matrix products autograd knows, gives the gradients of
    parameters and coordinates at once. With a SIREN of 32 hidden units, 16 channels and 2,000 points in 3-D
    on a CPU, forward and backward took less than a third of the time of KeOps' own gradients and two
    formulas in place of ten.
    """

    @staticmethod
    def forward(ctx: Any, problem: PairProblem, values: Tensor, *tensors: Tensor) -> Tensor:
        ctx.problem = problem
        ctx.save_for_backward(values, *tensors)
        return _sum(problem, values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        values, *tensors = ctx.saved_tensors
        _, wants_values, *wanted = ctx.needs_input_grad
        problem = ctx.problem.with_tensors(tensors, transposed=not ctx.problem.transposed)
        of_values = _PairSum.apply(problem, gradient, *tensors) if wants_values else None
        at_query, at_source = (gradient, values) if problem.transposed else (values, gradient)
        _, of_tensors = pair_gradients(problem, at_query, at_source, wanted, wants_rows=False)
        return None, of_values, *of_tensors


def _sum(problem: PairProblem, values: Tensor) -> Tensor:
    """The sum over all pairs by KeOps, in parts of at most ``_MOST_VALUES`` kernel values."""
    kernel = problem.kernel
    names = {id(parameter): name for name, parameter in kernel.named_parameters()}
    output = kernel.generator.output
    # A weight that is computed from parameters, by a weight norm, say, has no rows that could be chosen.
    if kernel.generator.out_channels <= _MOST_VALUES or id(output.weight) not in names:
        return _reduce(problem, values)
    outputs = {names[id(one)]: one for one in (output.weight, output.bias) if id(one) in names}
    rows = torch.arange(kernel.generator.out_channels, device=values.device).reshape(kernel.shape)

    def part(rows: Tensor, values: Tensor) -> Tensor:
        chosen = {name: tensor[rows.flatten()] for name, tensor in outputs.items()}
        return _reduce(replace(problem, kernel=with_tensors(kernel, chosen)), values)

    if kernel.depthwise:
        parts = zip(rows.split(_MOST_VALUES), values.split(_MOST_VALUES, -1), strict=True)
        return torch.cat([part(*one) for one in parts], -1)
    kept_axis, summed_axis = (1, 0) if problem.transposed else (0, 1)
    summed = min(_MOST_VALUES, rows.shape[summed_axis])
    results = []
    for kept in rows.split(max(1, _MOST_VALUES // summed), kept_axis):
        pieces = zip(kept.split(summed, summed_axis), values.split(summed, -1), strict=True)
        results.append(torch.stack([part(*one) for one in pieces]).sum(0))
    return torch.cat(results, -1)


def _reduce(problem: PairProblem, values: Tensor) -> Tensor:
    """One KeOps reduction, one thread at a time."""
    with _ONE_AT_A_TIME:
        return _reduced(problem, values)


def _reduced(problem: PairProblem, values: Tensor) -> Tensor:
    # KeOps prints to the terminal while it compiles; a library keeps quiet unless asked.
    # pykeops 2.3 reads KEOPS_VERBOSE before it sets it from its own variable.
    os.environ.setdefault("KEOPS_VERBOSE", os.environ.setdefault("PYKEOPS_VERBOSE", "0"))
    keops = import_optional("pykeops.torch", "engine 'keops'")
    kernel, geometry, transposed = problem.kernel, problem.geometry, problem.transposed
    batch, count = values.shape[1], (geometry.source if transposed else geometry.query).count
    if len(values) == 1:
        values = torch.cat([values, torch.zeros_like(values)])
    # Entries sharing the geometry are a batch dimension of the reduction.
    lead = (1,) if batch > 1 else ()
    per_entry = values.movedim(1, 0) if batch > 1 else values[:, 0]
    given = keops.LazyTensor(per_entry.unsqueeze(-2 if transposed else -3).contiguous())
    operations = LazyOperations(keops.Pm)
    offsets = _offsets(geometry, values.dtype, keops.LazyTensor, operations, lead)
    kernel_values = kernel.formula(offsets, operations)
    if kernel.depthwise:
        product = kernel_values * given
    else:
        product = given.vecmatmult(kernel_values) if transposed else kernel_values.matvecmult(given)
    if geometry.source.samples > 1:
        product.ranges = _ranges(geometry)
    # Not in blocks, KeOps' own way to keep digits: with ranges, on CPUs, it adds all up in one block. Nor with sines of
    # few digits, which it takes on GPUs unless told otherwise.
    axis = len(lead) + (0 if transposed else 1)
    result = product.sum(axis, dtype_acc="float64", sum_scheme="direct_sum", use_fast_math=False)
    result = result.narrow(-2, 0, count)
    if geometry.source.samples > 1:
        # Rows of a sample without partners belong to no range: KeOps leaves them unset.
        own, other = (geometry.source, geometry.query) if transposed else (geometry.query, geometry.source)
        partners = other.splits.diff()[own.sample_index()] > 0
        result = torch.where(partners[:, None], result, 0.0)
    return result.movedim(0, 1) if batch > 1 else result[:, None, :]


def _offsets(
    geometry: PairGeometry, dtype: torch.dtype, lazy: Any, operations: LazyOperations, lead: tuple[int, ...]
) -> Any:
    """Offsets of all pairs as a lazy tensor, as exact as differences of float64 coordinates.

    KeOps takes differences in the values' dtype, and float32 numbers near 5,000,000 m are half a metre apart. So
    coordinates come in parts of few digits, whose differences are exact; only their sum, the offset, is rounded.
    """
    sides = (geometry.query.coordinates.detach(), (-1, 1)), (geometry.source.coordinates.detach(), (1, -1))
    splits = []
    for coordinates, rows in sides:
        # KeOps takes an axis of one row for a parameter: a second row, cut off by the caller or of value zero.
        coordinates = coordinates.repeat(2, 1) if len(coordinates) == 1 else coordinates
        parts = _parts(coordinates, geometry.period, dtype)
        splits.append([lazy(part.reshape(*lead, *rows, part.shape[1]).contiguous()) for part in parts])
    differences = [query_i - source_j for query_i, source_j in zip(*splits, strict=True)]
    if bool(geometry.period.any()):
        turns = (differences[0] * operations.vector(geometry.inverse_period.to(dtype))).round(0)
        periods = _parts(geometry.period[None], geometry.period, dtype)
        differences = [one - operations.vector(part) * turns for one, part in zip(differences, periods, strict=True)]
    return sum(differences[1:], start=differences[0])


def _parts(coordinates: Tensor, period: Tensor, dtype: torch.dtype) -> list[Tensor]:
    """float64 ``(N, d)`` as the sum of tensors of ``dtype``, most significant first; on axes that repeat, of one turn.

    Each part but the last has ``_DIGITS`` binary digits, counted from the leading one of the number itself, so that a
    place far away costs the others nothing; on axes that repeat from that of the period, for there numbers near 0 and
    near the period are neighbours.
    """
    if dtype == torch.float64:
        return [coordinates]
    repeats = period > 0
    turn = torch.where(repeats, period, 1.0)
    # The period itself stays: a remainder of 0 would be no turn at all.
    coordinates = torch.where(repeats & (coordinates != period), torch.remainder(coordinates, turn), coordinates)
    exponent = torch.frexp(torch.where(repeats, period, coordinates)).exponent
    parts = []
    for _ in range(_PARTS - 1):
        exponent = exponent - _DIGITS
        part = torch.ldexp(torch.ldexp(coordinates, -exponent).round(), exponent)
        parts.append(part.to(dtype))
        coordinates = coordinates - part
    return [*parts, coordinates.to(dtype)]


def _ranges(geometry: PairGeometry) -> tuple[Tensor, ...]:
    """Block-diagonal ranges of KeOps: query rows of a sample meet the source rows of that sample."""
    query, source = geometry.query.splits, geometry.source.splits
    filled = (query.diff() > 0) & (source.diff() > 0)
    query_ranges = torch.stack([query[:-1], query[1:]], 1)[filled].int()
    source_ranges = torch.stack([source[:-1], source[1:]], 1)[filled].int()
    slices = torch.arange(1, len(query_ranges) + 1, dtype=torch.int32, device=query.device)
    return (query_ranges, slices, source_ranges, source_ranges, slices, query_ranges)
