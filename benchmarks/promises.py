"""What each engine promises, held against random cases: the largest error of each, in units of its promise.

    python benchmarks/promises.py --cases 2000              # a few minutes; prints the table of docs/design.md
    python benchmarks/promises.py --engines keops           # compiles eight formulas; sine kernels only

Cases draw what users bring: fields with a mean, outliers, samples of unlike size, causal kernels over values that
grow, clustered points, periods, both dtypes. The judge is the sum as written, in float64, over the same numbers.
"""

from __future__ import annotations

import argparse
import copy
import math
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from cases import random_kernel, random_points
from torch import Tensor
from tqdm import tqdm

from ccnn_irregular import ENGINES, SIREN, Grid, Kernel, Points, convolve
from ccnn_irregular.domains import Domain
from ccnn_irregular.operators.planning.rates import current_rates

__all__ = ["KINDS", "Case", "random_case", "worst_error", "worst_errors"]

KINDS = ("noise", "mean", "outliers", "unlike samples", "causal, growing", "smooth with a mean", "heavy tails")
_SMALLEST_RTOL = {torch.float32: 1e-5, torch.float64: 1e-8}
# In 2-D and 3-D the least rtol needs millions of cells.
_FINEST = {1: 1e-8, 2: 1e-5, 3: 1e-3}
_MOST_POINTS = {1: 1500, 2: 1500, 3: 1000}
_QUERIES = 80
_ABOUT_OUTLIERS = 27
_CHANNELS = 2
# Predicted seconds beyond which a case is left out.
_MOST_SECONDS = 1.0
# Samples of which a causal past holds at least so many are judged by it.
_LEAST_PAST = 24


@dataclass(frozen=True)
class Case:
    """One convolution.

    Attributes:
        kind: which of ``KINDS``.
        kernel: depthwise.
        values: in the source's convention.
        source, query: the domains.
        rtol: what "spectral" is asked for.
        loud: rows of the source that are outliers, bool ``(N, C)``.
        note: in words.
    """

    kind: str
    kernel: Kernel
    values: Tensor
    source: Domain
    query: Domain
    rtol: float
    loud: Tensor
    note: str


def random_case(seed: int, *, grid: bool = False, odd: bool = False) -> Case:
    """The case of a seed: between points, between the nodes of a grid, or from them to a grid of other steps."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    kind = KINDS[seed % len(KINDS)]
    dtype = draw.choice((torch.float32, torch.float64))
    causal = kind.startswith("causal")
    d = 1 if causal and not grid else draw.choice((1, 2, 3))
    rtol = 10 ** draw.uniform(math.log10(max(_SMALLEST_RTOL[dtype], _FINEST[d])), -1)
    periods = [1.0 if draw.random() < 0.2 and not causal else None for _ in range(d)]
    support = [10 ** draw.uniform(-1, -0.4) for _ in range(d)]
    kernel, generator = random_kernel(draw, d, support)
    if causal:
        kernel = Kernel(kernel.generator, kernel.mask, extent=support, causal_axes=(0,))
    kernel = kernel.to(dtype)
    if grid:
        sizes = [draw.randint(5, {1: 400, 2: 40, 3: 14}[d]) for _ in range(d)]
        source: Domain = Grid(sizes, [1 / size for size in sizes], periodic=[period is not None for period in periods])
        query = _other_grid(draw, source) if odd else source
        places = source.nodes()
        samples = torch.zeros(len(places), dtype=torch.int64)
    else:
        density, count = draw.choice(("even", "power", "clusters")), 3 if "samples" in kind else draw.choice((1, 1, 3))
        source = random_points(draw, d, density, count, _MOST_POINTS[d], periods)
        query = random_points(draw, d, "even", count, _QUERIES, periods)
        places, samples = source.coordinates, source.sample_index()
    values, loud = _values(draw, kind, places, samples)
    values = values.to(dtype)
    note = f"{kind}: {generator} {d}-D, {len(places)} points, rtol {rtol:.2g}, {str(dtype).removeprefix('torch.')}"
    if grid:
        values = values.T.reshape(1, _CHANNELS, *source.sizes)  # type: ignore[union-attr]
    return Case(kind, kernel, values.contiguous(), source, query, rtol, loud, note)


def _other_grid(draw: random.Random, grid: Grid) -> Grid:
    """Draw a grid over the same box whose steps have no common lattice with the given one's, or a fine one."""
    sizes = [max(3, round(size * draw.uniform(0.6, 1.4))) for size in grid.sizes]
    steps = [
        1 / size if axis.periodic else draw.uniform(0.8, 1.0) / size
        for size, axis in zip(sizes, grid.axes, strict=True)
    ]
    return Grid(sizes, steps, [draw.uniform(0, 0.1) for _ in sizes], periodic=grid.periodic)


def _values(draw: random.Random, kind: str, places: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
    """Rows ``(N, C)``, and which of them are outliers."""
    noise = torch.randn(len(places), _CHANNELS, dtype=torch.float64)
    loud = torch.zeros(noise.shape, dtype=torch.bool)
    mean = draw.choice((288.0, 35.0, 1e5))
    if kind == "mean":
        noise = mean + 0.5 * noise
    elif kind == "smooth with a mean":
        noise = mean + 0.5 * torch.sin(7 * places.sum(1, keepdim=True) + torch.arange(_CHANNELS))
    elif kind == "outliers":
        for _ in range(draw.randint(1, 2)):
            row = draw.randrange(len(places))
            noise[row, 0] = draw.choice((-1, 1)) * 10 ** draw.uniform(3, 9)
            loud[row, 0] = True
    elif kind == "unlike samples":
        noise = noise * 10 ** (12 * torch.rand(int(samples.max()) + 1, _CHANNELS, dtype=torch.float64) - 6)[samples]
    elif kind == "causal, growing":
        power = draw.uniform(1, 6)
        share = places[:, :1] if draw.random() < 0.5 else (places[:, :1] > 0.5).double()
        noise = noise * 10 ** (power * share)
    elif kind == "heavy tails":
        noise = torch.exp(1.2 * noise)
    return noise, loud


def errors(case: Case, engine: str) -> Iterator[float]:
    """Measure the error of each part of the result in units of the engine's promise."""
    with torch.no_grad():
        found = convolve(case.kernel, case.values, case.source, case.query, engine=engine, rtol=case.rtol)  # type: ignore[arg-type]
    rows, sources, queries, chosen = _as_points(case, found)
    exact, quiet, terms, reached = _sums(case, sources, queries, chosen)
    epsilon = torch.finfo(case.kernel.dtype).eps
    weights = sources.weights[:, None]
    masses = (case.values.flatten(2)[0].T if isinstance(case.source, Grid) else case.values).double() * weights
    floor = _SMALLEST_RTOL[case.kernel.dtype] / case.rtol
    peak = float(terms.amax()) if terms.numel() else 0.0
    for part in _parts(case, queries, reached, chosen):
        for channel in range(_CHANNELS):
            at = part & ~reached[:, channel] if case.kind == "outliers" else part
            if not at.any():
                continue
            difference = (rows[at, channel] - exact[at, channel]).square().mean().sqrt()
            if ENGINES[engine].error(case.rtol):
                number = queries.sample_index()[chosen][at][0]
                inside = (sources.sample_index() == number) & ~case.loud[:, channel]
                white = float(masses[inside, channel].norm()) * _peak(case.kernel) / math.sqrt(int(at.sum()))
                size = max(float(quiet[part, channel].square().mean().sqrt()), floor * white)
                promised = case.rtol * size
            else:
                # Rounding of the terms of the sum; on grids of all terms, wherever they are.
                own_terms = terms[at, channel].square().mean().sqrt() if engine != "fft" else torch.tensor(peak)
                promised = epsilon * float(own_terms)
            yield float(difference) / promised if promised else (math.inf if difference > 0 else 0.0)


def _as_points(case: Case, found: Tensor) -> tuple[Tensor, Points, Points, Tensor]:
    """Return the result at some queries as float64 rows, and the domains as points."""
    if isinstance(case.source, Grid):
        assert isinstance(case.query, Grid)
        sources = case.source.as_points(1, torch.device("cpu"))
        nodes = case.query.as_points(1, torch.device("cpu"))
        chosen = torch.randperm(nodes.count, generator=torch.Generator().manual_seed(0))[:_QUERIES]
        # What the promise is relative to is largest about the outliers.
        for loud in case.loud.any(1).nonzero()[:, 0]:
            distance = ((nodes.coordinates - sources.coordinates[loud]) / case.kernel.support).square().sum(1)
            chosen = torch.cat([chosen, distance.topk(min(_ABOUT_OUTLIERS, nodes.count), largest=False).indices])
        chosen = chosen.unique()
        return found[0].flatten(1).T[chosen].double(), sources, nodes, chosen
    assert isinstance(case.query, Points)
    return found.double(), case.source, case.query, torch.arange(case.query.count)  # type: ignore[return-value]


@torch.no_grad()
def _sums(case: Case, sources: Points, queries: Points, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """At the chosen queries the sum, that without outliers, that of the terms' sizes, whether an outlier reaches
    them; ``(m, C)`` each."""
    kernel, support = copy.deepcopy(case.kernel).double(), case.kernel.support
    values = case.values.flatten(2)[0].T if isinstance(case.source, Grid) else case.values
    masses = values.double() * sources.weights[:, None]
    sample, starts = queries.sample_index()[chosen].tolist(), sources.splits.tolist()
    found = []
    for place, number in zip(queries.coordinates[chosen], sample, strict=True):
        rows = slice(starts[number], starts[number + 1])
        lags = place - sources.coordinates[rows]
        for axis, period in enumerate(sources.periods):
            if period is not None:
                lags[:, axis] -= period * torch.round(lags[:, axis] / period)
        near = (lags.abs() <= support).all(1)
        products = kernel(lags[near]) * masses[rows][near]
        loud = case.loud[rows][near]
        sums = (products, torch.where(loud, 0.0, products), products.abs(), loud.double())
        found.append(torch.stack([part.sum(0) for part in sums]))
    exact, quiet, terms, reached = torch.stack(found, 1)
    return exact, quiet, terms, reached > 0


def _parts(case: Case, queries: Points, reached: Tensor, chosen: Tensor) -> Iterator[Tensor]:
    """Yield sets of queries whose errors are kept apart: each sample and, under a causal kernel, pasts of it."""
    sample, place = queries.sample_index()[chosen], queries.coordinates[chosen]
    for number in range(queries.samples):
        inside = sample == number
        yield inside
        if case.kernel.causal_axes and isinstance(case.source, Points):
            rows = case.source.splits[number : number + 2].tolist()
            times = case.source.coordinates[rows[0] : rows[1], 0].sort().values
            for share in (0.25, 0.5):
                until = times[int(share * (len(times) - 1))] if len(times) else torch.tensor(0.0)
                if share * len(times) >= _LEAST_PAST:
                    yield inside & (place[:, 0] <= until)


def _peak(kernel: Kernel) -> float:
    offsets = (2 * torch.rand(4096, kernel.d, dtype=kernel.dtype) - 1) * kernel.support.to(kernel.dtype)
    with torch.no_grad():
        return float(kernel(offsets).abs().max())


def _of_one_formula(kernel: Kernel) -> Kernel:
    """Replace a kernel by one of the same reach whose formula is compiled once for all cases of its axes and dtype."""
    extent = kernel.extent.tolist()
    drawn = Kernel(SIREN(kernel.d, _CHANNELS, 8), kernel.mask, extent=extent, causal_axes=kernel.causal_axes)
    return drawn.to(kernel.dtype)


def worst_error(case: Case, engine: str) -> float | None:
    """Return the largest error of any part of the result in units of the promise; None for a case that is left out."""
    cost = ENGINES[engine].assess(case.kernel, case.source, case.query, 1, case.rtol)
    if isinstance(cost, str) or (
        cost.seconds(current_rates(case.kernel.extent.device)) > _MOST_SECONDS and engine != "keops"
    ):  # which counts its compiler
        return None
    return max(errors(case, engine), default=0.0)


def worst_errors(engine: str, cases: int, first: int = 0, *, odd: bool = False) -> dict[str, tuple[float, str, int]]:
    """Return, for each kind, the largest error in units of the promise, its case, and the number of cases left out.

    Left out is what the engine refuses, or would take long for: kernels too sharp for their number of points.
    """
    worst: dict[str, tuple[float, str, int]] = {}
    for seed in tqdm(range(first, first + cases), desc=engine, file=sys.stderr):
        case = random_case(seed, grid=odd or engine == "fft", odd=odd)
        if isinstance(case.source, Grid) and case.kind == "unlike samples":
            case = replace(case, kind="noise")
        if engine == "keops":
            case = replace(case, kernel=_of_one_formula(case.kernel))
        error = worst_error(case, engine)
        before = worst.get(case.kind, (0.0, "", 0))
        largest = max(before[:2], (error or 0.0, f"seed {seed}, {case.note}"))
        worst[case.kind] = (*largest, before[2] + (error is None))
    return worst


def main() -> None:
    """Print a table for each engine that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=2000, help="random cases for each engine")
    parser.add_argument("--first", type=int, default=0, help="seed of the first case")
    parser.add_argument("--engines", nargs="+", default=["reference", "neighbours", "fft", "spectral"])
    parser.add_argument("--odd", action="store_true", help="between grids of any steps, for spectral")
    options: Any = parser.parse_args()
    torch.set_num_threads(1)
    for engine in options.engines:
        found = worst_errors(engine, options.cases, options.first, odd=options.odd)
        print(f"\n{engine}: largest error in units of the promise over {options.cases} cases")
        for kind, (error, note, left_out) in found.items():
            print(f"  {kind:20s} {error:8.3g}   left out {left_out:3d}   {note}")
        print(f"  {'all':20s} {max(error for error, _, _ in found.values()):8.3g}", flush=True)


if __name__ == "__main__":
    main()
