"""Kernels, domains and the judge that the tests of all engines share."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import pytest
import torch
from tested_device import convolve
from torch import Tensor, nn

from ccnn_irregular import SIREN, GaussianMask, Grid, Kernel, Points, Product
from ccnn_irregular.domains import Domain
from ccnn_irregular.kernels import GENERATORS, Generator
from ccnn_irregular.operators.engines.keops import compiler
from ccnn_irregular.operators.engines.reference import Reference
from ccnn_irregular.testing import assert_all_close

requires_compiler = pytest.mark.skipif(
    compiler() is None, reason="no C++ compiler ($CXX, g++ or clang++): KeOps cannot compile its formulas"
)

DTYPES = (torch.float64, torch.float32)
MODES = ("plain", "causal", "periodic", "strided")
STEPS = (0.5, 0.7, 1.1, 0.3)
STARTS = (-1.0, 3.0, 0.25, 10.0)
# 1, 2, odd, even, prime, non-cubic
SIZES: dict[int, tuple[tuple[int, ...], ...]] = {
    1: ((1,), (2,), (9,), (16,), (31,)),
    2: ((1, 1), (2, 2), (1, 6), (7, 9), (8, 6), (5, 11)),
    3: ((1, 1, 1), (2, 2, 2), (3, 5, 4), (4, 4, 4), (7, 1, 3)),
    4: ((1, 1, 1, 1), (2, 2, 2, 2), (3, 2, 5, 1), (2, 4, 3, 3)),
}
SIZE_CASES = [sizes for d in sorted(SIZES) for sizes in SIZES[d]]
# Points of each sample of source and query: 1, 2, odd, even, prime. Of a ragged batch either side may be empty.
LENGTHS: dict[str, tuple[list[int], list[int]]] = {
    "one": ([1], [1]),
    "two": ([2], [2]),
    "odd": ([9], [5]),
    "prime": ([31], [17]),
    "ragged": ([9, 0, 1, 16, 0], [4, 3, 2, 7, 0]),
}
# Forms of source and query other than both a grid. A product has one uniform axis, stations have one irregular axis.
KINDS = (
    "points to points",
    "points to grid",
    "grid to points",
    "product to product",
    "stations to stations",
    "product to points",
    "points to product",
    "product to grid",
    "grid to product",
)
# Time may be the irregular axis of a product or its uniform one.
PAIR_MODES = (*MODES, "causal last")
# What spectral is asked for: the least it takes, but for three axes, where that needs a hundred million cells.
RTOL = {torch.float64: {1: 1e-8, 2: 1e-6, 3: 1e-4}, torch.float32: {1: 1e-5, 2: 1e-5, 3: 1e-3}}
# Errors of spectral's gradients, relative to the larger of their own norm and a tenth of the largest one's: sums in
# which large terms cancel say little about the engine. Values, weights and generators keep the kernel's spectrum.
GRADIENT_FACTOR = 5.0
# A slope's spectrum ends later, that of places as well as of the mask's width: the kernel has a jump in its third
# derivative at the mask's end, so beyond the cut the kernel's spectrum holds k^-7 of the energy and the slope's k^-5.
# Cells for an error rtol of the one leave rtol^(5/7) of the other.
SLOPES = ("coordinates", "log_scale", "shift")
SLOPE_FACTOR, SLOPE_POWER = 30.0, 5 / 7
SMALLEST_SHARE = 0.1


def name(sizes: Sequence[int]) -> str:
    """Readable test id of a grid's sizes."""
    return "x".join(map(str, sizes))


def seeded(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0, requires_grad: bool = False) -> Tensor:
    """White noise that is the same in every run."""
    noise = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return noise.to(dtype).requires_grad_(requires_grad)


def uniform(*shape: int, low: float = 0.0, high: float = 1.0, seed: int = 0) -> Tensor:
    """Uniform float64 numbers that are the same in every run."""
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(*shape, generator=generator, dtype=torch.float64)


def small_kernel(
    d: int,
    *,
    width: Sequence[float] | None = None,
    channels: int = 2,
    shape: tuple[int] | tuple[int, int] | None = None,
    causal_axes: Sequence[int] = (),
    dtype: torch.dtype = torch.float64,
    masked: bool = True,
    threshold: float = 0.01,
    seed: int = 0,
) -> Kernel:
    """SIREN with one hidden layer of three units under a Gaussian mask: all of the machinery, little to compile."""
    shape = (channels,) if shape is None else shape
    width = tuple(1.3 * step for step in STEPS[:d]) if width is None else width
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        generator = SIREN(d, math.prod(shape), hidden=3, layers=1, omega_0=3.0)
    with torch.no_grad():
        generator.output.bias.copy_(torch.linspace(0.3, 0.8, math.prod(shape)))
    mask = GaussianMask(width, threshold) if masked else None
    extent = [2.0 * one for one in width]
    return Kernel(generator, mask, extent=extent, shape=shape, causal_axes=causal_axes).to(dtype)


def periodic_width(grid: Grid) -> tuple[float, ...]:
    """Widths with which the mask ends just before half the period of every axis."""
    in_widths = math.sqrt(-2 * math.log(0.01))
    return tuple(0.49 * size * step / in_widths for size, step in zip(grid.sizes, grid.steps, strict=True))


def grid_case(sizes: Sequence[int], mode: str, dtype: torch.dtype) -> tuple[Kernel, Grid, Grid]:
    """Kernel, source and query of one entry of the contract table."""
    d = len(sizes)
    steps, starts = STEPS[:d], STARTS[:d]
    if mode == "periodic":
        grid = Grid(sizes, steps, starts, periodic=True)
        return small_kernel(d, width=periodic_width(grid), dtype=dtype), grid, grid
    grid = Grid(sizes, steps, starts)
    if mode == "strided":
        coarse = [-(-size // 2) for size in sizes]
        query = Grid(coarse, [2 * s for s in steps], [b + 0.25 * s for b, s in zip(starts, steps, strict=True)])
        return small_kernel(d, dtype=dtype), grid, query
    # Causal along time alone: a causal d-dimensional kernel would see one orthant only.
    return small_kernel(d, causal_axes=(0,) if mode == "causal" else (), dtype=dtype), grid, grid


@dataclass(frozen=True)
class Case:
    """One convolution between domains that are not both grids.

    Attributes:
        kind: forms of source and query, one of ``KINDS``.
        irregular: number of axes on which the two do not lie on a common lattice.
        kernel, values, source, query: what ``convolve`` takes.
        rtol: relative error that spectral is asked for.
    """

    kind: str
    irregular: int
    kernel: Kernel
    values: Tensor
    source: Domain
    query: Domain
    rtol: float

    @property
    def shares_lattice(self) -> bool:
        """Whether source and query have uniform axes in common."""
        return self.irregular < self.kernel.d

    def run(self, engine: str) -> dict[str, Tensor]:
        """The result and all gradients, by an engine or, for "equation", by the sum written out."""
        return run(self.kernel, self.values, self.source, self.query, engine, rtol=self.rtol)


def exists(kind: str, d: int) -> bool:
    """Whether there is such a pair of domains in so many axes, and not the same under another name."""
    return d >= 3 if "stations" in kind else d >= 2 if "product" in kind else True


def pair_case(
    kind: str, d: int, mode: str, dtype: torch.dtype, lengths: str = "ragged", shape: tuple[int, ...] = (2,)
) -> Case:
    """Case of one of ``KINDS``; values, coordinates, weights and parameters ask for gradients.

    The query is the source where the forms are equal, but for "strided": other points, a coarser grid. The
    coordinates on axes that repeat lie up to two periods outside the first one.
    """
    forms = kind.split(" to ")
    axes = {"points": d, "grid": 0, "product": d - 1, "stations": 1}  # irregular ones
    periods = tuple(2.3 + 0.25 * axis for axis in range(d)) if mode == "periodic" else (None,) * d

    def domain(form: str, side: int) -> Domain:
        irregular, counts = axes[form], LENGTHS[lengths][side]
        # One or two points must lie in reach of one another.
        places = uniform(sum(counts), irregular, high=min(2, 0.4 * sum(counts)) / math.sqrt(d), seed=side + 1)
        for axis, period in enumerate(periods[:irregular]):
            if period is not None:
                places[:, axis] += period * (seeded(sum(counts), seed=axis) * 1.2).round().clamp(-2, 2)
        weights = uniform(sum(counts), low=0.2, seed=side + 3)
        points = Points(
            places.requires_grad_(),
            weights.requires_grad_(),
            torch.tensor([0, *counts]).cumsum(0),
            periods=periods[:irregular],
        )
        if irregular == d:
            return points
        sizes = ((4, 3, 2, 3), (2, 2, 1, 2))[side][irregular:d]
        steps = [(period or 1.2) / size for period, size in zip(periods[irregular:], sizes, strict=True)]
        grid = Grid(sizes, steps, [0.5 * side] * len(sizes), periodic=mode == "periodic")
        return grid if irregular == 0 else Product(points, grid)

    source = domain(forms[0], 0)
    query = source if mode != "strided" and forms[0] == forms[1] else domain(forms[1], 1)
    causal = {"causal": (0,), "causal last": (d - 1,)}.get(mode, ())
    in_widths = math.sqrt(-2 * math.log(0.01))
    kernel = small_kernel(
        d,
        width=[(1 + 0.1 * axis) / in_widths for axis in range(d)],
        shape=shape,  # type: ignore[arg-type]
        causal_axes=causal,
        dtype=dtype,
    )
    nodes = () if isinstance(source, Points) else (source if isinstance(source, Grid) else source.grid).sizes
    rows = len(LENGTHS[lengths][0]) if isinstance(source, Grid) else sum(LENGTHS[lengths][0])
    values = seeded(rows, kernel.in_channels, *nodes, dtype=dtype, requires_grad=True)
    irregular = axes[forms[0]] if forms[0] == forms[1] else d
    return Case(kind, irregular, kernel, values, source, query, RTOL[dtype].get(irregular, 1e-3))


def run(
    kernel: Kernel,
    values: Tensor,
    source: Domain,
    query: Domain | None,
    engine: Any,
    only: Sequence[str] | None = None,
    rtol: float = 1e-3,
) -> dict[str, Tensor]:
    """The convolution and its gradients for every leaf that asks for one, by name.

    ``engine`` "equation" is the sum written out. ``only`` restricts the gradients by name, and no other leaf
    asks for one from then on; parameters are named as in the kernel.
    """
    leaves = {"values": values, **dict(kernel.named_parameters())}
    factors = [(side, _points_of(domain)) for side, domain in (("source", source), ("query", query))]
    leaves |= {f"{side} coordinates": points.coordinates for side, points in factors if points is not None}
    if factors[0][1] is not None:
        leaves["source weights"] = factors[0][1].weights
    wanted = {key: leaf for key, leaf in leaves.items() if leaf.requires_grad}
    if only is not None:
        # KeOps compiles a formula for every leaf that asks for a gradient, used or not.
        for key in wanted.keys() - set(only):
            leaves[key].requires_grad_(False)
        wanted = {key: wanted[key] for key in only}
    if engine == "equation":
        output = equation(kernel, values, source, source if query is None else query)
    else:
        output = convolve(kernel, values, source, query, engine=engine, rtol=rtol)
    results = {"output": output}
    if wanted:
        cotangent = seeded(*output.shape, dtype=output.dtype, seed=99)
        gradients = torch.autograd.grad(output, list(wanted.values()), cotangent)
        # Geometry is float64 in any case; its gradients are as exact as the values' dtype.
        results |= {f"gradient of {key}": one.to(output) for key, one in zip(wanted, gradients, strict=True)}
    return results


def _points_of(domain: Domain | None) -> Points | None:
    """The irregular factor of a domain."""
    return domain.points if isinstance(domain, Product) else domain if isinstance(domain, Points) else None


FREQUENCIES: dict[str, tuple[float, float]] = {
    "siren": (1.0, 20.0),
    "magnet": (0.05, 0.5),
    "random_fourier": (0.1, 2.0),
    "mlp": (1.0, 10.0),
}
"""Generators and the range of their frequencies in which a kernel is neither constant nor beyond every grid."""


def random_case(seed: int, *, finest: float = 0.0) -> Case:
    """Points with a random kernel, dimension, density, ragged or not, periodic or not, causal in 1-D or not.

    rtol is log-uniform between the least that spectral takes and 0.1; in 3-D, where the least would need a hundred
    million cells, from 1e-4. ``finest`` raises the least further.
    """
    draw = random.Random(seed)
    d, dtype = draw.choice((1, 2, 3)), draw.choice(DTYPES)
    least = max(finest, 1e-4 if d == 3 else 0.0, 1e-5 if dtype == torch.float32 else 1e-8)
    rtol = _log_uniform(draw, least, 0.1)
    samples, count = draw.choice((1, 1, 2, 5)), round(_log_uniform(draw, 10, 400))
    periods = [1.0 if draw.random() < 0.3 else None for _ in range(d)]
    chosen = draw.choice(sorted(FREQUENCIES))
    lowest, highest = FREQUENCIES[chosen]
    shape = draw.choice(((2,), (2, 2)))
    in_widths = math.sqrt(-2 * math.log(0.01)) * 1.001  # support of at most half a period
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        generator = GENERATORS[chosen](d, math.prod(shape), hidden=8, omega_0=_log_uniform(draw, lowest, highest))
    mask = GaussianMask([draw.uniform(0.15, 0.5) / in_widths for _ in range(d)])
    causal = (0,) if d == 1 and draw.random() < 0.4 else ()
    kernel = Kernel(generator, mask, extent=[1.0] * d, shape=shape, causal_axes=causal).to(dtype)

    def points(number: int, key: int) -> Points:
        cuts = sorted(draw.randrange(number + 1) for _ in range(samples - 1))
        places, weights = uniform(number, d, seed=seed + key), uniform(number, seed=seed + key + 1)
        return Points(places, weights, torch.tensor([0, *cuts, number]), periods=periods)

    source = points(count, 1)
    query = source if draw.random() < 0.3 else points(40, 3)
    values = seeded(count, 2, dtype=dtype, seed=seed)
    return Case("points to points", d, kernel.requires_grad_(False), values, source, query, rtol)


def _log_uniform(draw: random.Random, low: float, high: float) -> float:
    return math.exp(draw.uniform(math.log(low), math.log(high)))


def run_keops(
    monkeypatch: pytest.MonkeyPatch,
    kernel: Kernel,
    values: Tensor,
    source: Domain,
    query: Domain | None,
    only: Sequence[str] | None = None,
) -> dict[str, Tensor]:
    """``run`` with KeOps, where the blocked sum may not step in."""

    def refuse(*_: object) -> None:
        raise AssertionError("the reference ran in place of KeOps")

    with monkeypatch.context() as patch:
        patch.setattr(Reference, "apply", refuse)
        return run(kernel, values, source, query, "keops", only)


def compare_keops(
    monkeypatch: pytest.MonkeyPatch,
    kernel: Kernel,
    values: Tensor,
    source: Domain,
    query: Domain | None = None,
    only: Sequence[str] | None = None,
) -> None:
    """KeOps gives the reference's result and gradients."""
    actual = run_keops(monkeypatch, kernel, values, source, query, only)
    assert_all_close(actual, run(kernel, values, source, query, "reference", only))


def check_keops_family(monkeypatch: pytest.MonkeyPatch, d: int, mode: str, only: Sequence[str] | None) -> None:
    """One compiled family of formulas, on all sizes of the grids of ``d`` axes and on all pairs of other domains.

    Two formulas are compiled, the sum and its transpose for the gradients of values and weights; the one alone if
    ``only`` is an empty list. Gradients of parameters and coordinates need none.
    """
    cases = [grid_case(sizes, mode, torch.float64) for sizes in SIZES[d]]
    # One entry or sample: KeOps compiles batches and ragged samples apart; test_keops_ragged_and_batched has them.
    rows = [seeded(1, 2, *sizes, requires_grad=True) for sizes in SIZES[d]]
    pairs = [pair_case(kind, d, mode, torch.float64, "prime") for kind in KINDS if exists(kind, d)]
    everything: list[tuple[Kernel, Tensor, Domain, Domain]] = [
        (kernel, values, source, query) for (kernel, source, query), values in zip(cases, rows, strict=True)
    ]
    everything += [(case.kernel, case.values, case.source, case.query) for case in pairs]
    for kernel, values, source, query in everything:
        points = _points_of(source)
        if only is not None:
            values.requires_grad_(False)
            if points is not None:
                points.weights.requires_grad_(False)
        compare_keops(monkeypatch, kernel, values, source, query)


def responses(kernel: Kernel, source: Points, query: Points) -> Tensor:
    """Kernel values of all pairs ``(M, N, D, C)``, zero between samples; of all engines this shares the kernel only."""
    offsets = query.coordinates[:, None] - source.coordinates[None]
    for axis, period in enumerate(source.periods):
        if period is not None:
            wrapped = torch.remainder(offsets[..., axis] + period / 2, period) - period / 2
            offsets = torch.cat([offsets[..., :axis], wrapped[..., None], offsets[..., axis + 1 :]], dim=-1)
    response = kernel(offsets.to(kernel.dtype))
    response = torch.diag_embed(response) if kernel.depthwise else response
    own = query.sample_index()[:, None] == source.sample_index()[None]
    return response * own[..., None, None]


def masses(values: Tensor, source: Points) -> Tensor:
    """Values times weights ``(N, C)``; what weighs 0 is never read."""
    weights = source.weights.to(values.dtype)
    weights = weights[:, None].expand(values.shape) if weights.ndim == 1 else weights
    return torch.where(weights == 0, 0.0, values * weights)


def dense(kernel: Kernel, values: Tensor, source: Points, query: Points) -> Tensor:
    """The equation written out over all pairs."""
    return torch.einsum("mndc,nc->md", responses(kernel, source, query), masses(values, source))


def equation(kernel: Kernel, values: Tensor, source: Domain, query: Domain) -> Tensor:
    """``dense`` for every form of domain, in its convention."""
    sources, queries = flattened(source, query)
    if isinstance(source, Grid) and isinstance(query, Grid):
        return torch.cat([as_values(dense(kernel, as_rows(one[None]), sources, queries), query) for one in values])
    return as_values(dense(kernel, as_rows(values), sources, queries), query)


def flattened(source: Domain, query: Domain) -> tuple[Points, Points]:
    """Both domains as points, a grid once for each sample of the other."""
    samples = next((side.samples for side in (source, query) if side.samples is not None), 1)
    sources = source.as_points(samples)
    return sources, sources if query is source else query.as_points(samples)


def as_rows(values: Tensor) -> Tensor:
    """``(B, C, *sizes)`` to ``(B * nodes, C)``, the nodes running fastest."""
    return values.flatten(2).movedim(1, 2).flatten(0, 1) if values.ndim > 2 else values


def as_values(rows: Tensor, domain: Domain) -> Tensor:
    """Rows of a domain's points in the domain's convention."""
    if isinstance(domain, Points):
        return rows
    grid = domain if isinstance(domain, Grid) else domain.grid
    return rows.unflatten(0, (-1, grid.count)).movedim(1, 2).unflatten(2, grid.sizes)


@torch.no_grad()
def white_noise_norm(kernel: Kernel, values: Tensor, source: Domain, query: Domain) -> float:
    """Root of the expected squared norm of the result if the values' signs were random.

    An approximation is measured against it: a query where the terms happen to cancel is no error of the engine.
    """
    sources, queries = flattened(source, query)
    powers = responses(kernel, sources, queries).square()
    return float(torch.einsum("mndc,nc->md", powers, masses(as_rows(values), sources).square()).sum().sqrt())


def assert_within(actual: Mapping[str, Tensor], expected: Mapping[str, Tensor], rtol: float, scale: float) -> None:
    """An approximation and its gradients, as ``run`` gives them, are within ``2 rtol`` of the exact ones.

    ``scale`` is what the norm of the output's error is relative to, ``white_noise_norm``. The constants say what a
    gradient's is relative to, and how large it may be.
    """
    assert actual.keys() == expected.keys()
    assert scale > 0
    norms = {name: float(one.detach().norm()) for name, one in expected.items() if name != "output"}
    least = SMALLEST_SHARE * max(norms.values(), default=0.0)
    for name, one in expected.items():
        assert actual[name].shape == one.shape, name
        assert actual[name].dtype == one.dtype, name
        error = float((actual[name].detach() - one.detach()).norm())
        own, allowed = max(norms.get(name, scale), least), GRADIENT_FACTOR * rtol
        if name == "output":
            own, allowed = scale, 2 * rtol
        elif name.endswith(SLOPES):
            allowed = SLOPE_FACTOR * rtol**SLOPE_POWER
        assert error <= allowed * own, f"{name}: differs by {error / own:.3g}, allowed {allowed:.3g}"


@final
class Reflected(Generator):
    """Another generator at the negative offset, its (D, C) output transposed: the adjoint's kernel."""

    def __init__(self, inner: Generator, shape: tuple[int, ...]) -> None:
        super().__init__(inner.d, inner.out_channels)
        self.inner = inner
        self.shape = shape

    @property
    def output(self) -> nn.Linear:
        return self.inner.output

    def formula(self, offsets: Any, operations: Any) -> Any:
        values = self.inner.formula(offsets * -1.0, operations)
        return values if len(self.shape) == 1 else values.unflatten(-1, self.shape).transpose(-1, -2).flatten(-2)


def adjoint(kernel: Kernel) -> Kernel:
    """The kernel K(-offset) transposed, sharing parameters."""
    extent = kernel.extent.tolist()
    shape: Any = kernel.shape[::-1]
    reflected = Kernel(Reflected(kernel.generator, kernel.shape), kernel.mask, extent=extent, shape=shape)
    return reflected.to(kernel.dtype)
