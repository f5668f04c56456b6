"""Kernels, domains and the judge that the tests of all engines share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, final

import pytest
import torch
from torch import Tensor, nn

from ccnn_irregular import SIREN, GaussianMask, Grid, Kernel, Points, convolve
from ccnn_irregular.domains import Domain
from ccnn_irregular.kernels import Generator
from ccnn_irregular.operators.keops import compiler
from ccnn_irregular.operators.reference import Reference
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
    mask = GaussianMask(width) if masked else None
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


def run(
    kernel: Kernel, values: Tensor, source: Domain, query: Domain | None, engine: Any, only: Sequence[str] | None = None
) -> dict[str, Tensor]:
    """The convolution and its gradients for every leaf that asks for one, by name.

    ``only`` restricts the gradients by name, and no other leaf asks for one from then on; parameters
    are named as in the kernel.
    """
    leaves = {"values": values, **dict(kernel.named_parameters())}
    for side, domain in (("source", source), ("query", query)):
        if isinstance(domain, Points):
            leaves[f"{side} coordinates"] = domain.coordinates
    if isinstance(source, Points):
        leaves["source weights"] = source.weights
    wanted = {key: leaf for key, leaf in leaves.items() if leaf.requires_grad}
    if only is not None:
        # KeOps compiles a formula for every leaf that asks for a gradient, used or not.
        for key in wanted.keys() - set(only):
            leaves[key].requires_grad_(False)
        wanted = {key: wanted[key] for key in only}
    output = convolve(kernel, values, source, query, engine=engine)
    results = {"output": output}
    if wanted:
        cotangent = seeded(*output.shape, dtype=output.dtype, seed=99)
        gradients = torch.autograd.grad(output, list(wanted.values()), cotangent)
        results |= {f"gradient of {key}": one for key, one in zip(wanted, gradients, strict=True)}
    return results


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
    """One compiled family of formulas, on all sizes of the grids of ``d`` axes and on scattered points.

    ``only`` restricts the gradients (each is one more formula to compile); an empty list = none.
    """
    for sizes in SIZES[d]:
        kernel, source, query = grid_case(sizes, mode, torch.float64)
        # One entry: KeOps compiles batches and ragged samples apart; test_keops_ragged_and_batched has them.
        values = seeded(1, 2, *sizes, requires_grad=True)
        on_grid = None if only is None else [key for key in only if "coordinates" not in key and "weights" not in key]
        compare_keops(monkeypatch, kernel, values, source, query, on_grid)
    kernel, grid, _ = grid_case(SIZES[d][-1], mode, torch.float64)
    extents = torch.tensor(grid.sizes, dtype=torch.float64) * torch.tensor(grid.steps, dtype=torch.float64)
    source = Points(
        (uniform(11, d, seed=1) * extents).requires_grad_(),
        uniform(11, low=0.2, seed=2).requires_grad_(),
        periods=grid.periods,
    )
    query = Points((uniform(7, d, seed=3) * extents).requires_grad_(), periods=grid.periods)
    compare_keops(monkeypatch, kernel, seeded(11, 2, requires_grad=True), source, query, only)


def dense(kernel: Kernel, values: Tensor, source: Points, query: Points) -> Tensor:
    """The equation written out over all pairs, sharing nothing with the engines but the kernel."""
    offsets = query.coordinates[:, None] - source.coordinates[None]
    for axis, period in enumerate(source.periods):
        if period is not None:
            wrapped = torch.remainder(offsets[..., axis] + period / 2, period) - period / 2
            offsets = torch.cat([offsets[..., :axis], wrapped[..., None], offsets[..., axis + 1 :]], dim=-1)
    response = kernel(offsets.to(values.dtype))
    response = torch.diag_embed(response) if kernel.depthwise else response  # (M, N, D, C)
    weights = source.weights.to(values.dtype)
    weights = weights[:, None].expand(values.shape) if weights.ndim == 1 else weights
    masses = torch.where(weights == 0, 0.0, values * weights)
    own = (query.sample_index()[:, None] == source.sample_index()[None]).to(values.dtype)
    return torch.einsum("mn,mndc,nc->md", own, response, masses)


def dense_grid(kernel: Kernel, values: Tensor, source: Grid, query: Grid) -> Tensor:
    """``dense`` in the convention of grids."""
    sources, queries = source.points(), query.points()
    entries = [dense(kernel, entry.flatten(1).T, sources, queries).T.unflatten(1, query.sizes) for entry in values]
    return torch.stack(entries)


@final
class PureGaussian(Generator):
    """exp(-|x|^2 / 2) in each of ``channels`` channels: a kernel whose integrals are known."""

    def __init__(self, d: int, channels: int = 1) -> None:
        super().__init__(d, channels)
        self._amplitude = nn.Linear(1, channels, bias=False)
        nn.init.ones_(self._amplitude.weight)

    @property
    def output(self) -> nn.Linear:
        return self._amplitude

    def formula(self, offsets: Any, operations: Any) -> Any:
        return operations.linear((operations.squared_norm(offsets) * -0.5).exp(), self._amplitude.weight, None)


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
