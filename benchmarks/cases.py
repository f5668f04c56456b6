"""Errors, not times: random cases of the spectral engine, and an integral that is known being refined."""

from __future__ import annotations

import inspect
import math
import random
from typing import Any, ClassVar, Literal, final

import torch
from exact import relative_error, sums
from problems import gaussian_mask
from torch import Tensor

import ccnn_irregular.kernels.generators as generators
from ccnn_irregular import Grid, Kernel, Points, convolve
from ccnn_irregular.domains import Domain
from ccnn_irregular.kernels import Generator
from ccnn_irregular.quadrature import gauss_legendre, simpson, trapezoid

__all__ = ["RULES", "random_cases", "random_kernel", "random_points", "refinement"]

Row = dict[str, Any]
Rule = Literal["cell volumes 1-D", "cell volumes 2-D", "cell volumes 3-D", "trapezoid", "simpson", "gauss_legendre"]

_HIDDEN = 16
_CHANNELS = 2
_SMALLEST_RTOL = {torch.float32: 1e-5, torch.float64: 1e-8}
_LARGEST_RTOL = 1e-1
_MOST_POINTS = {1: 3000, 2: 3000, 3: 2000}
_PEAK_SAMPLES = 4096
_TRIES = 6  # cases drawn per case wanted, for want of one that is accepted


def random_cases(first: int, count: int) -> list[Row]:
    """Draw ``count`` cases that the spectral engine accepts, seeds ``first * 1000`` on, and those it refused before.

    Kernels of every generator, 1 to 3 axes, even and uneven density, ragged batches, axes that repeat, queries at the
    sources and elsewhere, both dtypes, rtol from 1e-1 to the smallest of the dtype. The judge is the sum in float64
    over the same float32 or float64 kernel and values.
    """
    rows: list[Row] = []
    accepted, seed = 0, first * 1000
    while accepted < count and len(rows) < count * _TRIES:
        row = _random_case(seed)
        row["problem"] = f"random case {seed}"
        accepted += row["status"] == "ok"
        rows.append(row)
        seed += 1
    return rows


def _random_case(seed: int) -> Row:
    draw = random.Random(seed)
    torch.manual_seed(seed)
    d = draw.choice((1, 2, 3))
    dtype = draw.choice((torch.float32, torch.float64))
    rtol = 10 ** draw.uniform(math.log10(_SMALLEST_RTOL[dtype]), math.log10(_LARGEST_RTOL))
    periods = [1.0 if draw.random() < 0.25 else None for _ in range(d)]
    support = [10 ** draw.uniform(-1, -0.4) for _ in range(d)]
    kernel, generator = random_kernel(draw, d, support)
    kernel = kernel.to(dtype)
    density = draw.choice(("even", "power", "clusters"))
    samples = draw.choice((1, 1, 3))
    source = random_points(draw, d, density, samples, _MOST_POINTS[d], periods)
    elsewhere = draw.random() < 0.5
    query = random_points(draw, d, "even", samples, 200, periods) if elsewhere else source
    values = torch.randn(source.count, _CHANNELS, dtype=dtype)
    what = (
        f"{generator} {d}-D, {density}, {source.count} points in {samples} samples, "
        f"support {', '.join(f'{reach:.2g}' for reach in support)}"
        f"{', periodic' if any(periods) else ''}{', other queries' if elsewhere else ''}"
    )
    row: Row = {"method": "spectral", "d": d, "rtol": rtol, "dtype": str(dtype).removeprefix("torch."), "note": what}
    try:
        with torch.no_grad():
            result = convolve(kernel, values, source, query, engine="spectral", rtol=rtol)
    except (ValueError, MemoryError) as error:
        return row | {"status": "refused", "note": f"{what}: {error}"}
    weighted = values.double()[:, None] * source.weights[:, None, None]
    kernel = kernel.double()
    expected = sums(kernel, source, weighted, query.coordinates, query.sample_index())
    error = relative_error(result[:, None], expected) * float(expected.norm())
    return row | {"status": "ok", "points": source.count, "relative_error": error / _scale(kernel, weighted, expected)}


def _scale(kernel: Kernel, weighted: Tensor, expected: Tensor) -> float:
    """Return the norm of the result, or what white noise gives at the query where the kernel is largest, if more.

    Queries that only touch the kernel's end have a result of a millionth of that: no engine that works in modes, and no
    float32 sum, is exact relative to such a rest.
    """
    offsets = (2 * torch.rand(_PEAK_SAMPLES, kernel.d, dtype=torch.float64) - 1) * kernel.support
    with torch.no_grad():
        peak = float(kernel(offsets).abs().max())
    return max(float(expected.norm()), peak * float(weighted.norm()))


def random_kernel(draw: random.Random, d: int, support: list[float]) -> tuple[Kernel, str]:
    """Draw a kernel of any generator, with a base frequency where it has one; return also the generator's name."""
    kinds = [kind for name in generators.__all__ if inspect.isclass(kind := getattr(generators, name))]
    kinds = [kind for kind in kinds if issubclass(kind, Generator) and not inspect.isabstract(kind)]
    # Not those that wrap another generator.
    kind = draw.choice([kind for kind in kinds if "d" in inspect.signature(kind).parameters])
    known = inspect.signature(kind).parameters
    options: dict[str, Any] = {"hidden": _HIDDEN} if "hidden" in known else {}
    if "omega_0" in known:
        options["omega_0"] = 10 ** draw.uniform(0, 1)
    threshold = draw.choice((0.1, 0.01, 0.001))
    return Kernel(kind(d, _CHANNELS, **options), gaussian_mask(support, threshold), extent=support), kind.__name__


def random_points(
    draw: random.Random, d: int, density: str, samples: int, most: int, periods: list[float | None]
) -> Points:
    """Draw points in the unit box; their density is even, rises from a corner, or forms clusters."""
    counts = [round(10 ** draw.uniform(1, math.log10(most / samples))) for _ in range(samples)]
    total = sum(counts)
    place = torch.rand(total, d, dtype=torch.float64)
    if density == "power":
        place = place**2
    elif density == "clusters":
        centres = torch.rand(5, d, dtype=torch.float64)
        place = (centres[torch.randint(5, (total,))] + 0.05 * torch.randn(total, d, dtype=torch.float64)) % 1.0
    splits = torch.tensor([0, *torch.tensor(counts).cumsum(0).tolist()], dtype=torch.int64)
    weights = torch.rand(total, dtype=torch.float64) / total
    return Points(place, weights, splits, periods=periods)


@final
class _GaussianGenerator(Generator):
    """exp(-|x|^2 / 2): nothing to learn."""

    def __init__(self, d: int) -> None:
        super().__init__(d, 1)

    @property
    def output(self) -> torch.nn.Linear:
        raise NotImplementedError("a Gaussian has no last layer")

    def formula(self, offsets: Any, operations: Any) -> Any:
        return (operations.squared_norm(offsets) * -0.5).exp()


@final
class _Refined:
    """One rule: nodes and weights over [-9, 9] at a level of refinement."""

    reach: ClassVar[float] = 9.0

    @staticmethod
    def grid(d: int, level: int) -> Grid:
        """Nodes in the middles of 8, 12, 16, 24, ... cells."""
        size = (2 ** (level // 2)) * (12 if level % 2 else 8)
        step = 2 * _Refined.reach / size
        return Grid([size] * d, [step] * d, [-_Refined.reach + step / 2] * d)

    @staticmethod
    def line(rule: Rule, level: int) -> Points:
        """Random nodes whose gaps are halved at every level; Gauss-Legendre's own nodes."""
        if rule == "gauss_legendre":
            nodes, weights = gauss_legendre(8 * (level + 1), -_Refined.reach, _Refined.reach)
            return Points(nodes[:, None], weights)
        generator = torch.Generator().manual_seed(0)
        gaps = 0.5 + torch.rand(16, generator=generator, dtype=torch.float64)
        nodes = torch.cat([gaps.new_zeros(1), gaps.cumsum(0)])
        nodes = (2 * nodes / nodes[-1] - 1) * _Refined.reach
        for _ in range(level + 1):
            nodes = torch.cat([torch.stack([nodes[:-1], (nodes[:-1] + nodes[1:]) / 2], 1).flatten(), nodes[-1:]])
        return Points(nodes[:, None], trapezoid(nodes) if rule == "trapezoid" else simpson(nodes))


RULES: dict[Rule, int] = {
    "cell volumes 1-D": 6,
    "cell volumes 2-D": 6,
    "cell volumes 3-D": 6,
    "trapezoid": 7,
    "simpson": 7,
    "gauss_legendre": 8,
}
"""Levels of refinement of each rule."""


@torch.no_grad()
def refinement(rule: Rule) -> list[Row]:
    """Measure the error of a unit Gaussian convolved with itself against the Gaussian of variance 2, float64.

    On grids by the FFT engine, at the nodes; on a line by the sum over all pairs, at 101 places. Relative to the
    largest value of the result.
    """
    rows: list[Row] = []
    for level in range(RULES[rule]):
        if rule.startswith("cell volumes"):
            d = int(rule.removeprefix("cell volumes ")[0])
            source: Domain = _Refined.grid(d, level)
            query, engine = source, "fft"
        else:
            d, source = 1, _Refined.line(rule, level)
            query, engine = Points(torch.linspace(-3, 3, 101, dtype=torch.float64)[:, None]), "reference"
        kernel = Kernel(_GaussianGenerator(d), extent=[1.0] * d).double()
        values = _in_convention(source, _gaussian(_places(source), 1.0))
        result = convolve(kernel, values, source, query, engine=engine)  # type: ignore[arg-type]
        # exp(-x^2/2) * exp(-x^2/2) = sqrt(pi) exp(-x^2/4) on each axis
        expected = math.pi ** (d / 2) * _gaussian(_places(query), 2.0)
        error = float((result.flatten() - expected).abs().max() / expected.max())
        nodes = source.sizes[0] if isinstance(source, Grid) else source.count
        row = {"problem": f"Gaussian * Gaussian, {rule}, {nodes} nodes", "method": engine, "d": d, "dtype": "float64"}
        rows.append(row | {"status": "ok", "size": nodes, "points": nodes**d, "relative_error": error, "note": rule})
    return rows


def _places(domain: Domain) -> Tensor:
    assert isinstance(domain, Grid | Points)
    return domain.nodes() if isinstance(domain, Grid) else domain.coordinates


def _gaussian(places: Tensor, variance: float) -> Tensor:
    return torch.exp(-places.square().sum(1) / (2 * variance))


def _in_convention(domain: Domain, values: Tensor) -> Tensor:
    return values.reshape(1, 1, *domain.sizes) if isinstance(domain, Grid) else values[:, None]
