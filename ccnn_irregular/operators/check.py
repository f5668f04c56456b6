"""The error of a result, measured against the sum itself in float64, in the one way this package speaks of errors.

The error at a query, in one channel, is |y - exact| divided by the largest exact result over the queries of the same
sample and the same channel. On grids every entry of the batch is a sample.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from numbers import Integral

import numpy as np
import torch
from torch import Tensor

from ccnn_irregular._checks import require
from ccnn_irregular.domains import Domain, Points
from ccnn_irregular.kernels import Kernel
from ccnn_irregular.operators.layout import pair_points, to_rows, weighted

__all__ = ["CheckReport", "ToleranceError", "measure_error", "require_count", "worst_error"]

_PAIRS_PER_BLOCK = 1 << 16
# Numbers of float64 that one block may hold: kernel values and products of a batch with many channels.
_NUMBERS_PER_BLOCK = 1 << 22


@dataclass(frozen=True)
class CheckReport:
    """What a check of a result found; ``str()`` is a sentence.

    Attributes:
        engine: name of the engine that gave the result.
        rtol: relative error that was allowed.
        queries: number of queries at which the exact sum was taken, in every channel.
        error: largest |y - exact| there, divided by the largest exact result over all queries of that sample and
            channel; inf where the result is not finite.
        sample: sample of the largest error, an entry on grids; None where there was no query.
        channel: channel of the largest error, or None.
        place: coordinates of the query with the largest error, coordinate units; empty where there was no query.
    """

    engine: str
    rtol: float
    queries: int
    error: float
    sample: int | None
    channel: int | None
    place: tuple[float, ...]

    def __str__(self) -> str:
        if self.sample is None:
            return f"engine {self.engine!r}: no query to check"
        place = ", ".join(f"{one:.6g}" for one in self.place)
        return (
            f"engine {self.engine!r}: error {self.error:.3g} of the largest result, allowed {self.rtol:g}; "
            f"the largest at {self.queries} random queries, in sample {self.sample}, channel {self.channel}, "
            f"at ({place})"
        )


class ToleranceError(RuntimeError):
    """A result that is farther from the exact sum than was allowed.

    Attributes:
        report: the measured error, where it was found, and the error that was allowed.
        error: ``report.error``.
        rtol: ``report.rtol``.
    """

    def __init__(self, report: CheckReport) -> None:
        super().__init__(f"{report}. Plan with a smaller rtol, or take engine 'reference', which is exact")
        self.report = report
        self.error = report.error
        self.rtol = report.rtol

    def __reduce__(self) -> tuple[type[ToleranceError], tuple[CheckReport]]:
        return type(self), (self.report,)


def require_count(argument: str, n: object) -> None:
    """Refuse what is no number of queries."""
    counts = not isinstance(n, bool) and isinstance(n, Integral) and int(n) >= 1
    require(counts, argument, "be a number of queries, an integer of at least 1", n)


def worst_error(result: Tensor, exact: Tensor, source: Domain, query: Domain) -> float:
    """Largest error of a result whose exact values are known at every query.

    Args:
        result: in the query's convention, see ``convolve``.
        exact: of the same shape, float64 if it is to judge float64.
        source: the domain of the values; with ``query`` it decides which results belong to one sample.
        query: the domain of the results.

    Returns:
        The largest |result - exact| over the largest ``exact`` in the same sample and channel; 0 where both are zero,
        inf where the result is not finite.
    """
    found, right = (to_rows(one.detach().to(torch.float64), query, source) for one in (result, exact))
    _, queries = pair_points(source, query, result.device)
    size = _largest(right, queries.sample_index(), queries.samples)
    return float(_relative(found - right, size[queries.sample_index()]).max()) if found.numel() else 0.0


@torch.no_grad()
def measure_error(
    kernel: Kernel,
    values: Tensor,
    source: Domain,
    query: Domain,
    result: Tensor,
    *,
    engine: str,
    rtol: float,
    n: int,
    generator: torch.Generator | None,
) -> CheckReport:
    """The error of ``result`` at ``n`` random queries, spread evenly over the samples; see ``Plan.check``."""
    sources, queries = pair_points(source, query, values.device)
    found = to_rows(result.detach(), query, source)
    chosen = _draw(queries, n, generator)
    if not len(chosen) or not found.numel():
        return CheckReport(engine, rtol, 0, 0.0, None, None, ())
    exact = _exact(kernel, to_rows(values.detach(), source, query), sources, queries, chosen)
    # One unit for all, so that no square leaves the range of float64.
    unit = float(torch.maximum(found.abs().max(), exact.abs().max()))
    unit = unit if math.isfinite(unit) and unit > 0 else 1.0
    at_chosen = found[chosen].to(torch.float64) / unit
    exact = exact / unit
    size = _size(found, unit, at_chosen, exact, queries, chosen)
    error = _relative(at_chosen - exact, size[_sample_of(queries, chosen)])
    worst, entry, channel = (int(index) for index in torch.unravel_index(error.argmax(), error.shape))
    row = chosen[worst : worst + 1]
    return CheckReport(
        engine,
        rtol,
        len(chosen),
        float(error[worst, entry, channel]),
        entry if error.shape[1] > 1 else int(_sample_of(queries, row)),
        channel,
        tuple(queries.coordinates[row[0]].tolist()),
    )


def _relative(difference: Tensor, size: Tensor) -> Tensor:
    """|difference| / size; 0 where both are zero, inf where it is not a number."""
    error = torch.where(difference == 0, 0.0, difference.abs() / size)
    return error.nan_to_num(nan=math.inf, posinf=math.inf)


def _size(found: Tensor, unit: float, at_chosen: Tensor, exact: Tensor, queries: Points, chosen: Tensor) -> Tensor:
    """Largest exact value over the queries of each sample, from a few of them: ``(samples, B, D)``.

    No less than at the chosen queries; nor than the largest value of the whole result, less the largest error seen.
    """
    sample = _sample_of(queries, chosen)
    seen = _largest(exact, sample, queries.samples)
    off = _largest(at_chosen - exact, sample, queries.samples)
    whole = _largest(found, queries.sample_index(), queries.samples, unit)
    return torch.maximum(torch.nan_to_num(whole - off, nan=0.0, posinf=0.0), seen)


def _largest(rows: Tensor, sample: Tensor, samples: int, unit: float = 1.0) -> Tensor:
    """Largest magnitude of rows ``(M, B, D)`` over ``unit`` in each sample, float64 ``(samples, B, D)``; 0 of none."""
    largest = torch.zeros(samples, *rows.shape[1:], dtype=torch.float64, device=rows.device)
    step = max(1, _NUMBERS_PER_BLOCK // max(1, math.prod(rows.shape[1:])))
    for start in range(0, len(rows), step):
        part = rows[start : start + step].to(torch.float64).abs() / unit
        index = sample[start : start + step].reshape(-1, *(1,) * (rows.ndim - 1)).expand(part.shape)
        largest.scatter_reduce_(0, index, part, "amax")
    return largest


def _draw(points: Points, n: int, generator: torch.Generator | None) -> Tensor:
    """Rows of ``n`` random points, as many of each sample as of any other that has them; all points if there are fewer.

    Without a generator every call draws others, and no seed of the caller's is spent.
    """
    device = None if generator is None else generator.device
    seed = None if generator is None else int(torch.randint(2**62, (1,), generator=generator, device=device))
    random = np.random.default_rng(seed)
    counts = points.splits.diff().cpu().numpy()
    taken = _shares(counts, n, random)
    starts = points.splits[:-1].cpu().numpy()
    rows = [starts[b] + random.choice(counts[b], taken[b], replace=False) for b in np.flatnonzero(taken)]
    return torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *rows])).to(points.device)


def _shares(counts: np.ndarray, n: int, random: np.random.Generator) -> np.ndarray:
    """How many of each sample are drawn: at most its ``counts``, ``n`` in all if there are so many, evenly."""
    low, high = 0, n  # the most that may be taken of every sample
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if np.minimum(counts, middle).sum() <= n else (low, middle - 1)
    shares = np.minimum(counts, low)
    larger = random.permutation(np.flatnonzero(counts > low))
    shares[larger[: n - shares.sum()]] += 1
    return shares


def _sample_of(points: Points, rows: Tensor) -> Tensor:
    """Sample that each of the rows belongs to."""
    return torch.searchsorted(points.splits[1:], rows, right=True)


def _exact(kernel: Kernel, values: Tensor, sources: Points, queries: Points, chosen: Tensor) -> Tensor:
    """The sum as written at the chosen queries, float64 ``(n, B, D)``; values ``(N, B, C)``. In blocks of pairs."""
    rows = weighted(values.to(torch.float64), sources.weights.detach())
    kernel = _in_float64(kernel)
    place, origin = queries.coordinates.detach()[chosen], sources.coordinates.detach()
    sample = _sample_of(queries, chosen)
    ends = sources.splits.diff()[sample].cumsum(0)
    first = sources.splits[1:][sample] - ends  # of a query's partners, less the pairs before it
    result = rows.new_zeros(len(chosen), rows.shape[1], kernel.out_channels)
    numbers = rows.shape[1] * (kernel.in_channels + kernel.out_channels) + kernel.generator.out_channels
    step = max(1, min(_PAIRS_PER_BLOCK, _NUMBERS_PER_BLOCK // numbers))
    for start in range(0, int(ends[-1]), step):
        pair = torch.arange(start, min(start + step, int(ends[-1])), device=ends.device)
        row = torch.searchsorted(ends, pair, right=True)
        partner = first[row] + pair
        offset = place[row] - origin[partner]
        for axis, period in enumerate(sources.periods):
            if period is not None:
                offset[:, axis] -= period * torch.round(offset[:, axis] / period)
        with torch.autocast(offset.device.type, enabled=False):
            own = kernel(offset)
        addends = own[:, None] * rows[partner] if kernel.depthwise else torch.einsum("pdc,pbc->pbd", own, rows[partner])
        result.index_add_(0, row, addends)
    return result


def _in_float64(kernel: Kernel) -> Kernel:
    """A copy in float64 of the same parameters, to the last digit of their own dtype; the kernel is only read."""
    held = [*kernel.parameters(), *kernel.buffers()]
    # What a parametrization computed is no parameter, and PyTorch copies no tensor that hangs in a graph.
    held += [one for module in kernel.modules() for one in vars(module).values() if isinstance(one, Tensor)]
    return copy.deepcopy(kernel, {id(one): _doubled(one) for one in held})


def _doubled(tensor: Tensor) -> Tensor:
    doubled = tensor.detach().to(torch.float64) if tensor.is_floating_point() else tensor.detach()
    return torch.nn.Parameter(doubled, requires_grad=False) if isinstance(tensor, torch.nn.Parameter) else doubled
