"""What every engine promises: one equation, one answer (docs/design.md, "Engines").

Each check takes the name of an engine and a case. What is right comes from the equation written out, from laws of the
sum, from integrals that are known, and from torch.nn.functional and scipy; never from another engine alone.
"""

from __future__ import annotations

import copy
import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
import torch
from contract_cases import (
    DTYPES,
    KINDS,
    LENGTHS,
    MODES,
    PAIR_MODES,
    RTOL,
    SIZE_CASES,
    STARTS,
    STEPS,
    Case,
    adjoint,
    assert_within,
    exists,
    grid_case,
    pair_case,
    periodic_width,
    random_case,
    run,
    seeded,
    small_kernel,
    uniform,
    white_noise_norm,
)
from contract_checks import Checks, assert_gradients
from tested_device import convolve, explain, make_plan
from torch import Tensor

from ccnn_irregular import ContinuousConv, Grid, Kernel, Points, Product, Solver
from ccnn_irregular.domains import Domain
from ccnn_irregular.operators import ENGINES, Cost
from ccnn_irregular.operators.planning.rates import DEFAULT_RATES
from ccnn_irregular.quadrature import trapezoid
from ccnn_irregular.testing import TOLERANCES, assert_all_close, assert_close

# Engines whose formulas take seconds each to compile: tests by families of formulas hold them against these checks.
COMPILED = ("keops",)
# For every engine; for those that serve two grids, or other domains; and of these for the exact ones.
GENERAL_CHECKS, GRID_CHECKS, GRID_CHECKS_OF_EXACT = Checks(), Checks(), Checks()
POINT_CHECKS, POINT_CHECKS_OF_EXACT = Checks(), Checks()

# Gradients add up many terms of both signs, which float32 notices.
GRADIENT_FACTOR = 10.0
CAUSAL_OR_NOT = (False, True)
DEPTHWISE_AND_FULL = ((2,), (3, 2))
PAIRS = [
    (kind, d, lengths)
    for kind in KINDS
    for d in (1, 2, 3, 4)
    if exists(kind, d)
    for lengths in (LENGTHS if kind == "points to points" else ("ragged",))
]
# Number of axes, causal or not.
ALGEBRA = [(1, False), (2, False), (3, False), (1, True)]
# Where the package's own engines are out, and the reason they have to give; the first row that fits counts. They serve
# all else. An engine without a row says itself where it is out.
OUT: dict[str, tuple[tuple[Callable[[Case], bool], str], ...]] = {
    "reference": (),
    "fft": ((lambda case: case.kind != "grid to grid", "both domains must be grids"),),
    "neighbours": (
        (lambda case: case.kind == "grid to grid", "both domains are grids"),
        (lambda case: case.kernel.mask is None, "the kernel has no mask"),
    ),
    "spectral": (
        (lambda case: case.kind == "grid to grid", "both domains are grids"),
        (lambda case: case.irregular > 3 and case.kernel.mask is not None, "more than 3 irregular axes"),
        (
            lambda case: jumps(case) and (case.irregular > 1 or case.shares_lattice),
            "causal on one of several",
        ),
        (lambda case: case.kernel.mask is None, "the kernel has no mask"),
    ),
}


def serves_grids(engine: str) -> bool:
    """Whether it serves two grids."""
    return isinstance(assessed(engine, grids_of((7, 9), "plain", torch.float64)[0]), Cost)


def serves_others(engine: str) -> bool:
    """Whether it serves any other pair of domains."""
    cases = (pair_case(kind, 3, "plain", torch.float64) for kind in KINDS)
    return any(isinstance(assessed(engine, case), Cost) for case in cases)


def assessed(engine: str, case: Case) -> Cost | str:
    """Its cost in a case, or why it is out."""
    return ENGINES[engine].assess(case.kernel, case.source, case.query, 1, case.rtol)


def jumps(case: Case) -> bool:
    """Whether the kernel is causal on an irregular axis."""
    return any(axis < case.irregular for axis in case.kernel.causal_axes)


def is_out(engine: str, case: Case) -> bool:
    """Whether the engine says that it cannot be used in a case; then a convolution says so too, with the reason.

    Where ``OUT`` has rows for it, it must be out just there.
    """
    reason = assessed(engine, case)
    out = isinstance(reason, str)
    if engine in OUT:
        wanted = next((words for rule, words in OUT[engine] if rule(case)), None)
        assert out == (wanted is not None), f"{engine} says {reason}, expected {wanted}"
        assert wanted is None or wanted in str(reason)
    if isinstance(reason, str):
        said = "nothing"
        try:
            convolve(case.kernel, case.values, case.source, case.query, engine=engine, rtol=case.rtol)
        except ValueError as error:
            said = str(error)
        assert said.startswith(f"engine {engine!r} cannot be used: {reason}"), f"{engine} says {reason}, then {said}"
        assert explain(case.kernel, case.source, case.query, rtol=case.rtol).costs[engine] == reason
    return out


def compare(engine: str, case: Case, expected: dict[str, Tensor]) -> None:
    """An exact engine gives ``expected`` and its gradients up to rounding, others up to their error."""
    error = ENGINES[engine].error(case.rtol)
    if error:
        scale = white_noise_norm(case.kernel, case.values, case.source, case.query)
        assert_within(case.run(engine), expected, error, scale)
    else:
        assert_all_close(case.run(engine), expected, factor=GRADIENT_FACTOR)


def convolved(engine: str, case: Case, *, values: Tensor | None = None, **domains: Domain) -> Tensor:
    """The convolution of a case, with something else in place of its values, source or query."""
    given_values = case.values if values is None else values
    source, query = domains.get("source", case.source), domains.get("query", case.query)
    return convolve(case.kernel, given_values, source, query, engine=engine, rtol=case.rtol).detach()


def assert_same(engine: str, case: Case, actual: Tensor, expected: Tensor) -> None:
    """Equal up to rounding, or, where two approximations have cells of their own, up to the error of both."""
    error = ENGINES[engine].error(case.rtol)
    if error:
        scale = white_noise_norm(case.kernel, case.values, case.source, case.query)
        assert float((actual - expected).norm()) <= 2 * error * scale
    else:
        assert_close(actual, expected)


def points_case(d: int, causal: bool, shape: tuple[int, ...] = (2,)) -> Case:
    """Twenty weighted points and nine others, one sample, for the laws of the sum."""
    kernel = small_kernel(d, width=(0.4, 0.3, 0.35)[:d], shape=shape, causal_axes=(0,) if causal else ())  # type: ignore[arg-type]
    source = Points(uniform(20, d, seed=1), uniform(20, seed=2))
    query = Points(uniform(9, d, seed=3), uniform(9, seed=4))
    values = seeded(20, 2, requires_grad=True)
    return Case("points to points", d, kernel, values, source, query, RTOL[torch.float64][d])


@functools.cache
def grids_of(sizes: tuple[int, ...], mode: str, dtype: torch.dtype) -> tuple[Case, dict[str, Tensor]]:
    """A case between grids, and what is right in it; made once for all engines."""
    kernel, source, query = grid_case(sizes, mode, dtype)
    values = seeded(2, 2, *sizes, dtype=dtype, requires_grad=True)
    case = Case("grid to grid", 0, kernel, values, source, query, 1e-3)
    return case, run(kernel, values, source, query, "equation")


@functools.cache
def pair_of(
    kind: str, d: int, mode: str, dtype: torch.dtype, lengths: str = "ragged", shape: tuple[int, ...] = (2,)
) -> tuple[Case, dict[str, Tensor]]:
    """A case of ``KINDS``, and what is right in it; made once for all engines."""
    case = pair_case(kind, d, mode, dtype, lengths, shape)
    return case, case.run("equation")


def case_of(kind: str, d: int, mode: str) -> Case:
    """A case of any forms of domains, two grids too."""
    if kind == "grid to grid":
        return grids_of((3, 5, 4)[:d], mode, torch.float64)[0]
    return pair_of(kind, d, mode, torch.float64)[0]


# ---- one answer: every dtype, number of axes, size and kind of domain ----


@GENERAL_CHECKS.add()
def is_used_somewhere(engine: str) -> None:
    """An engine that is out everywhere would pass all else."""
    assert ENGINES[engine].name == engine
    assert serves_grids(engine) or serves_others(engine)


@GENERAL_CHECKS.add([(kind,) for kind in ("grid to grid", *KINDS)])
def is_out_where_it_says(engine: str, kind: str) -> None:
    for mode in MODES if kind == "grid to grid" else PAIR_MODES:
        is_out(engine, case_of(kind, 3, mode))


@GRID_CHECKS.add([(sizes, dtype, mode) for sizes in SIZE_CASES for dtype in DTYPES for mode in MODES])
def agrees_on_grids(engine: str, sizes: tuple[int, ...], dtype: torch.dtype, mode: str) -> None:
    case, expected = grids_of(sizes, mode, dtype)
    if not is_out(engine, case):
        found = case.run(engine)
        assert found["output"].shape == (2, 2, *case.query.sizes)  # type: ignore[union-attr]
        compare(engine, case, expected)


@POINT_CHECKS.add([(*pair, dtype, mode) for pair in PAIRS for dtype in DTYPES for mode in PAIR_MODES])
def agrees_between_points_grids_and_products(
    engine: str, kind: str, d: int, lengths: str, dtype: torch.dtype, mode: str
) -> None:
    case, expected = pair_of(kind, d, mode, dtype, lengths)
    if not is_out(engine, case):
        compare(engine, case, expected)


_FULL = [("points to points", 1), ("points to grid", 2), ("product to product", 3)]


@POINT_CHECKS.add([(*pair, mode) for pair in _FULL for mode in PAIR_MODES])
def agrees_on_full_kernels(engine: str, kind: str, d: int, mode: str) -> None:
    case, expected = pair_of(kind, d, mode, torch.float64, "ragged", (3, 2))
    if not is_out(engine, case):
        compare(engine, case, expected)


@POINT_CHECKS.add([(kind,) for kind in KINDS])
def agrees_without_a_mask(engine: str, kind: str) -> None:
    case = replace(pair_case(kind, 3, "plain", torch.float64), kernel=small_kernel(3, masked=False), rtol=1e-3)
    if not is_out(engine, case):
        compare(engine, case, case.run("equation"))


_NODES = [(1,), (13,), (7, 4), (3, 2, 5), (3, 2, 4, 1)]


@GRID_CHECKS_OF_EXACT.add(itertools.product(_NODES, DTYPES, MODES, [(3,), (4, 3)]))
def equals_the_sum_over_nodes_as_points(
    engine: str, sizes: tuple[int, ...], dtype: torch.dtype, mode: str, shape: tuple[int, ...]
) -> None:
    template, source, query = grid_case(sizes, mode, dtype)
    kernel = small_kernel(
        len(sizes), width=template.mask.width.tolist(), shape=shape, causal_axes=template.causal_axes, dtype=dtype
    )
    values = seeded(2, 3, *sizes, dtype=dtype, requires_grad=True)
    on_grid = run(kernel, values, source, query, engine)
    rows = values.detach().flatten(2).movedim(1, 2).flatten(0, 1).requires_grad_()
    nodes, wanted = source.as_points(samples=2), query.as_points(samples=2)
    output = convolve(kernel, rows, nodes, wanted, engine="reference")
    as_grid = output.unflatten(0, (2, -1)).movedim(1, 2).unflatten(2, query.sizes)
    cotangent = seeded(*as_grid.shape, dtype=dtype, seed=99)
    parameters = dict(kernel.named_parameters())
    gradients = torch.autograd.grad(as_grid, [rows, *parameters.values()], cotangent)
    as_points = {
        "output": as_grid,
        "gradient of values": gradients[0].unflatten(0, (2, -1)).movedim(1, 2).reshape(values.shape),
        **{f"gradient of {key}": one for key, one in zip(parameters, gradients[1:], strict=True)},
    }
    assert TOLERANCES[dtype] <= {torch.float64: 1e-12, torch.float32: 1e-5}[dtype]
    assert_close(as_points.pop("output"), on_grid.pop("output"))
    assert_all_close(as_points, on_grid, factor=1.0 if dtype == torch.float64 else GRADIENT_FACTOR)


@POINT_CHECKS.add(itertools.product(DTYPES, [False, True]))
def weighs_channels_apart(engine: str, dtype: torch.dtype, product: bool) -> None:
    """Channels seen at different points: a value of weight zero is never read, nor is its gradient taken."""
    case = pair_case("product to product" if product else "points to points", 2, "strided", dtype)
    source: Domain = case.source
    points = source.points if isinstance(source, Product) else source
    assert isinstance(points, Points)
    weights = uniform(points.count, 2, low=-0.5, seed=4).clamp(min=0)
    unseen = weights == 0
    seen = Points(points.coordinates, weights.requires_grad_(), points.splits)
    source = Product(seen, source.grid) if isinstance(source, Product) else seen
    case = Case(case.kind, case.irregular, case.kernel, case.values, source, case.query, case.rtol)
    expected = case.run("equation")
    with torch.no_grad():
        case.values[unseen] = math.nan
    compare(engine, case, expected)
    assert not case.run(engine)["gradient of values"][unseen].any()


@GRID_CHECKS_OF_EXACT.add([("plain",), ("causal",), ("periodic",)])
def gradients_equal_finite_differences(engine: str, mode: str) -> None:
    kernel, grid, query = grid_case((3, 4), mode, torch.float64)
    layer = ContinuousConv(kernel, bias=False, solver=Solver(engine))
    names = list(dict(layer.named_parameters()))

    def function(values: Tensor, *parameters: Tensor) -> Tensor:
        state = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(layer, state, (values, grid, query))

    inputs = [seeded(1, 2, 3, 4, requires_grad=True)]
    inputs += [one.detach().clone().requires_grad_() for one in kernel.parameters()]
    assert_gradients(function, inputs)


@POINT_CHECKS_OF_EXACT.add()
def gradients_of_places_and_weights_equal_finite_differences(engine: str) -> None:
    kernel = small_kernel(2, width=(0.6, 0.5))

    def function(values: Tensor, coordinates: Tensor, weights: Tensor, query: Tensor) -> Tensor:
        return convolve(kernel, values, Points(coordinates, weights), Points(query), engine=engine)

    inputs = [seeded(5, 2), uniform(5, 2, seed=1), uniform(5, low=0.2, seed=2), uniform(4, 2, seed=3)]
    assert_gradients(function, [one.requires_grad_() for one in inputs])


# (step of the query over step of the source, shift of its start in source steps, number of nodes)
RATIONAL = [
    (1, 0.5, 8),
    (1, -6.0, 25),
    (2, 0.0, 6),
    (3, -2.0, 7),
    (1 / 2, 0.0, 23),
    (1 / 3, -0.5, 20),
    (3 / 2, 0.3, 8),
    (2 / 3, -1.7, 19),
    (7 / 5, 1.0, 1),
    (1, 40.0, 5),
    (1, -40.0, 5),
]


@GRID_CHECKS_OF_EXACT.add([(*query, causal) for query in RATIONAL for causal in CAUSAL_OR_NOT])
def serves_rational_queries(engine: str, ratio: float, shift: float, size: int, causal: bool) -> None:
    source = Grid((12, 5), (0.1, 0.7), (-3.0, 2.0))
    query = Grid((size, 4), (0.1 * ratio, 0.7 / 2), (-3.0 + 0.1 * shift, 1.3))
    kernel = small_kernel(2, width=(0.15, 0.8), causal_axes=(0,) if causal else ())
    values = seeded(2, 2, 12, 5, requires_grad=True)
    expected = run(kernel, values, source, query, "equation")
    result = run(kernel, values, source, query, engine)
    if abs(shift) == 40:
        # Beyond the reach of the kernel: the answer is zero, and so are all gradients.
        for key, one in expected.items():
            assert not one.any()
            assert_close(result[key], one, scale=1.0, name=key)
    else:
        assert_all_close(result, expected, factor=GRADIENT_FACTOR)


@GRID_CHECKS_OF_EXACT.add([(1, 0.25, 12), (3, 0.0, 4), (1 / 2, 0.0, 24), (2 / 3, -30.0, 18)])
def serves_rational_periodic_queries(engine: str, ratio: float, shift: float, size: int) -> None:
    source = Grid((12, 5), (0.1, 0.7), periodic=(True, False))
    query = Grid((size, 5), (0.1 * ratio, 0.7), (0.1 * shift, 0.0), periodic=(True, False))
    kernel = small_kernel(2, width=(0.19, 0.8))
    values = seeded(2, 2, 12, 5, requires_grad=True)
    assert_all_close(run(kernel, values, source, query, engine), run(kernel, values, source, query, "equation"))
    # A query without a period may lie anywhere, several periods away.
    open_query = Grid((3, 5), (0.1 * ratio, 0.7), (2.4 + 0.1 * shift, 0.0))
    assert_all_close(
        run(kernel, values, source, open_query, engine), run(kernel, values, source, open_query, "equation")
    )


@GRID_CHECKS_OF_EXACT.add(itertools.product([True, False], CAUSAL_OR_NOT))
def takes_kernels_wider_than_the_grid(engine: str, masked: bool, causal: bool) -> None:
    grid = Grid((7, 4), (0.5, 0.7))
    kernel = small_kernel(2, width=(20.0, 30.0), masked=masked, causal_axes=(0,) if causal else ())
    values = seeded(2, 2, 7, 4, requires_grad=True)
    assert_all_close(run(kernel, values, grid, grid, engine), run(kernel, values, grid, grid, "equation"))


@GRID_CHECKS_OF_EXACT.add([(0.01,), (0.32,), (0.33,)])
def takes_kernels_narrower_than_a_step(engine: str, width: float) -> None:
    grid = Grid((6,), (1.0,))
    kernel = small_kernel(1, width=(width,))
    values = seeded(1, 2, 6)
    result = convolve(kernel, values, grid, engine=engine)
    centre = kernel(torch.zeros(1, dtype=torch.float64))
    if width < 0.32:
        assert_close(result, values * centre[:, None])
    assert_close(result, run(kernel, values, grid, grid, "equation")["output"])
    between = Grid((5,), (1.0,), (0.5,))
    expected = run(kernel, values, grid, between, "equation")["output"]
    assert bool((expected == 0).all()) == (width < 0.16)
    assert_close(convolve(kernel, values, grid, between, engine=engine), expected, scale=1.0)


# ---- algebra ----


@GRID_CHECKS_OF_EXACT.add([(dtype,) for dtype in DTYPES])
def linear_on_grids(engine: str, dtype: torch.dtype) -> None:
    kernel, grid, query = grid_case((7, 9), "strided", dtype)
    x, y = seeded(2, 2, 7, 9, dtype=dtype), seeded(2, 2, 7, 9, dtype=dtype, seed=1)
    together = convolve(kernel, 3 * x - 0.5 * y, grid, query, engine=engine)
    apart = 3 * convolve(kernel, x, grid, query, engine=engine) - 0.5 * convolve(kernel, y, grid, query, engine=engine)
    assert_close(together, apart)
    assert not convolve(kernel, torch.zeros_like(x), grid, query, engine=engine).any()


@GRID_CHECKS_OF_EXACT.add([((9,),), ((8, 6),), ((3, 5, 4),), ((2, 4, 3, 3),)])
def shift_equivariant_on_grids(engine: str, sizes: tuple[int, ...]) -> None:
    d = len(sizes)
    kernel, grid, _ = grid_case(sizes, "periodic", torch.float64)
    values, dims = seeded(2, 2, *sizes), tuple(range(2, 2 + d))
    shifts = tuple(range(1, d + 1))
    rolled = convolve(kernel, values.roll(shifts, dims), grid, engine=engine)
    assert_close(rolled, convolve(kernel, values, grid, engine=engine).roll(shifts, dims))
    # The same content one node later, away from the borders of a grid that does not repeat.
    longer = Grid((sizes[0] + 1, *sizes[1:]), grid.steps, grid.starts)
    nothing = torch.zeros(2, 2, 1, *sizes[1:], dtype=torch.float64)
    early = convolve(kernel, torch.cat([values, nothing], 2), longer, engine=engine)
    late = convolve(kernel, torch.cat([nothing, values], 2), longer, engine=engine)
    assert_close(late[:, :, 1:], early[:, :, :-1])


@POINT_CHECKS.add(ALGEBRA)
def linear_on_points(engine: str, d: int, causal: bool) -> None:
    case = points_case(d, causal)
    x, y = seeded(20, 2, seed=5), seeded(20, 2, seed=6)
    together = convolved(engine, case, values=3 * x - 0.5 * y)
    assert_close(together, 3 * convolved(engine, case, values=x) - 0.5 * convolved(engine, case, values=y))
    assert not convolved(engine, case, values=torch.zeros_like(x)).any()


@POINT_CHECKS.add(ALGEBRA)
def shift_equivariant_on_points(engine: str, d: int, causal: bool) -> None:
    case = points_case(d, causal)
    shift = torch.tensor([4.0, -2.0, 8.0], dtype=torch.float64)[:d]
    source, query = case.source, case.query
    assert isinstance(source, Points)
    assert isinstance(query, Points)
    there = convolved(
        engine,
        case,
        source=Points(source.coordinates + shift, source.weights),
        query=Points(query.coordinates + shift),
    )
    assert_close(there, convolved(engine, case))


@POINT_CHECKS.add()
def shift_equivariant_on_axes_that_repeat(engine: str) -> None:
    """Also by more than a period: coordinates may lie anywhere."""
    kernel = small_kernel(2, width=(0.3, 0.2))
    periods = (2.0, 1.5)
    shift = torch.tensor([6.3, -2.2], dtype=torch.float64)
    near = Points(uniform(20, 2, seed=1), uniform(20, seed=2), periods=periods)
    far = Points(near.coordinates + shift, near.weights, periods=periods)
    case = Case("points to points", 2, kernel, seeded(20, 2), near, near, RTOL[torch.float64][2])
    assert_same(engine, case, convolved(engine, case, source=far, query=far), convolved(engine, case))


@POINT_CHECKS.add(ALGEBRA)
def blind_to_the_order_of_points(engine: str, d: int, causal: bool) -> None:
    case = points_case(d, causal)
    source, query = case.source, case.query
    assert isinstance(source, Points)
    assert isinstance(query, Points)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(5))
    expected = convolved(engine, case)
    other = Points(source.coordinates[order], source.weights[order])
    assert_close(convolved(engine, case, values=case.values[order], source=other), expected)
    back = convolved(engine, case, query=Points(query.coordinates.flip(0)))
    assert_close(back.flip(0), expected)


@POINT_CHECKS.add(ALGEBRA)
def doubled_points_at_half_weight_change_nothing(engine: str, d: int, causal: bool) -> None:
    case = points_case(d, causal)
    source = case.source
    assert isinstance(source, Points)
    expected = convolved(engine, case)
    places, weights = source.coordinates.repeat_interleave(2, 0), source.weights.repeat_interleave(2)
    twice = case.values.repeat_interleave(2, 0)
    assert_same(engine, case, convolved(engine, case, values=twice, source=Points(places, weights / 2)), expected)
    unweighted = convolved(engine, case, values=twice, source=Points(places, weights))
    assert_same(engine, case, unweighted / 2, expected)


@POINT_CHECKS.add(ALGEBRA)
def adjoint_by_autograd(engine: str, d: int, causal: bool) -> None:
    """<Ax, y> = <x, A'y> to rounding, of an approximation too: its backward pass is its own adjoint."""
    case = points_case(d, causal)
    output = convolve(case.kernel, case.values, case.source, case.query, engine=engine, rtol=case.rtol)
    y = seeded(9, 2, seed=7)
    (back,) = torch.autograd.grad(output, [case.values], y)
    assert_close((output * y).sum(), (case.values * back).sum())


@POINT_CHECKS.add(itertools.product([1, 2, 3], DEPTHWISE_AND_FULL))
def adjoint_by_the_reflected_kernel(engine: str, d: int, shape: tuple[int, ...]) -> None:
    case = points_case(d, False, shape)
    source, query = case.source, case.query
    assert isinstance(source, Points)
    assert isinstance(query, Points)
    y = seeded(9, shape[0], seed=7)
    forward = (convolved(engine, case) * y * query.weights[:, None]).sum()
    there = Case(case.kind, d, adjoint(case.kernel), y, query, source, case.rtol)
    backward = (case.values * convolved(engine, there) * source.weights[:, None]).sum().detach()
    error = ENGINES[engine].error(case.rtol)
    if error:
        scale = white_noise_norm(case.kernel, case.values, source, query) * float((y * query.weights[:, None]).norm())
        assert abs(float(forward - backward)) <= 2 * error * scale
    else:
        assert_close(forward, backward)


@GRID_CHECKS_OF_EXACT.add(itertools.product([False, True], DEPTHWISE_AND_FULL))
def adjoint_on_grids(engine: str, periodic: bool, shape: tuple[int, ...]) -> None:
    source = Grid((7, 6), (0.5, 0.7), (1.0, 0.0), periodic=periodic)
    query = Grid((14, 2), (0.25, 2.1), (0.9, 0.3), periodic=periodic)
    kernel = small_kernel(2, width=(0.5, 0.6), shape=shape)
    x, y = seeded(1, 2, *source.sizes), seeded(1, kernel.out_channels, *query.sizes, seed=1)
    forward = (convolve(kernel, x, source, query, engine=engine) * y).sum() * query.cell_volume
    backward = (x * convolve(adjoint(kernel), y, query, source, engine=engine)).sum() * source.cell_volume
    assert_close(forward, backward)


# ---- integrals with known answers ----

SIGMA, TAU = 1.0, 0.75  # widths of the sampled Gaussian and of the kernel
PRODUCT_VARIANCE = SIGMA**2 * TAU**2 / (SIGMA**2 + TAU**2)


def gaussian_kernel(d: int) -> Kernel:
    """exp(-|x|^2 / 2 TAU^2) in both channels: a generator that is 1 under a mask that ends 8.6 widths out.

    What the mask takes off the Gaussian to end smoothly is 1e-13 of it there.
    """
    kernel = small_kernel(d, width=[TAU] * d, threshold=1e-16).requires_grad_(False)
    kernel.generator.output.weight.zero_()
    kernel.generator.output.bias.fill_(1.0)
    return kernel


def gaussian(positions: Tensor, variance: float) -> Tensor:
    return torch.exp(-positions.square().sum(-1) / (2 * variance))


def gaussian_convolved(positions: Tensor, d: int) -> Tensor:
    """Integral of exp(-|q - p|^2 / 2 TAU^2) exp(-|p|^2 / 2 SIGMA^2) dp."""
    return (2 * math.pi * PRODUCT_VARIANCE) ** (d / 2) * gaussian(positions, SIGMA**2 + TAU**2)


@GRID_CHECKS_OF_EXACT.add([(1,), (2,), (3,)])
def gaussian_error_falls_exponentially_on_grids(engine: str, d: int) -> None:
    """The equal-weight rule aliases the integrand's spectrum: at q = 0 the relative error is, to leading
    order, 2 d exp(-2 pi^2 v / h^2) with v the variance of the product of the two Gaussians."""
    errors = []
    for step in (1.5, 1.2, 0.9, 0.6):
        half = math.ceil(6.5 / step)
        source = Grid((2 * half + 1,) * d, (step,) * d, (-half * step,) * d)
        query = Grid((1,) * d, (step,) * d)
        values = gaussian(source.nodes(), SIGMA**2).reshape(1, 1, *source.sizes).expand(-1, 2, *source.sizes)
        found = convolve(gaussian_kernel(d), values, source, query, engine=engine).mean()
        exact = gaussian_convolved(torch.zeros(d, dtype=torch.float64), d)
        error = float(found / exact) - 1
        alias = math.exp(-2 * math.pi**2 * PRODUCT_VARIANCE / step**2)
        assert error == pytest.approx((1 + 2 * alias + 2 * alias**4) ** d - 1, rel=1e-2)
        errors.append(error)
    assert errors[0] > 1e6 * errors[-1] > 0


@GRID_CHECKS_OF_EXACT.add()
def gaussian_everywhere_to_rounding(engine: str) -> None:
    source = Grid((61, 53), (0.25, 0.3), (-7.5, -7.8))
    query = Grid((9, 7), (0.5, 0.45), (-2.1, -1.0))
    values = gaussian(source.nodes(), SIGMA**2).reshape(1, 1, *source.sizes).expand(-1, 2, -1, -1)
    found = convolve(gaussian_kernel(2), values, source, query, engine=engine)
    assert TOLERANCES[torch.float64] == 1e-12
    assert_close(found, gaussian_convolved(query.nodes(), 2).reshape(1, 1, *query.sizes).expand(found.shape))


@POINT_CHECKS.add()
def gaussian_error_is_second_order_on_irregular_points(engine: str) -> None:
    queries = torch.linspace(-1.5, 1.5, 13, dtype=torch.float64)[:, None]
    exact = gaussian_convolved(queries, 1)
    errors = []
    for count in (100, 200, 400, 800):
        # A smooth map keeps the ratios of neighbouring gaps under refinement; jitter would hide the order.
        even = torch.linspace(-1, 1, count + 1, dtype=torch.float64)
        positions = 8 * (even + 0.25 * torch.sin(3 * even + 1) - 0.25 * math.sin(1) * (1 - even**2))
        source = Points(positions[:, None], trapezoid(positions))
        values = gaussian(source.coordinates, SIGMA**2)[:, None].expand(-1, 2)
        found = convolve(gaussian_kernel(1), values, source, Points(queries), engine=engine, rtol=1e-8)
        errors.append(float((found - exact[:, None]).abs().max()))
    for coarse, fine in itertools.pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(2, abs=0.1)


# ---- independent implementations: torch.nn.functional and scipy ----


def taps(kernel: Kernel, grid: Grid) -> Tensor:
    """Kernel values times cell volume at all offsets between nodes, ``(*shape, 2 N - 1, ...)``, first axis first."""
    axes = [step * torch.arange(1 - n, n, dtype=torch.float64) for n, step in zip(grid.sizes, grid.steps, strict=True)]
    mesh = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
    with torch.no_grad():
        return kernel(mesh.to(kernel.dtype)).movedim(tuple(range(grid.d)), tuple(range(-grid.d, 0))) * grid.cell_volume


TORCH_CONVOLUTIONS = {
    1: torch.nn.functional.conv1d,
    2: torch.nn.functional.conv2d,
    3: torch.nn.functional.conv3d,
}


_SIZES = [(1,), (11,), (12,), (5, 8), (3, 4, 5)]


@GRID_CHECKS_OF_EXACT.add(itertools.product(_SIZES, [1, 2], [(3,), (2, 3)], CAUSAL_OR_NOT))
def equals_torch_convolution(
    engine: str, sizes: tuple[int, ...], stride: int, shape: tuple[int, ...], causal: bool
) -> None:
    d = len(sizes)
    grid = Grid(sizes, STEPS[:d], STARTS[:d])
    query = Grid([-(-n // stride) for n in sizes], [stride * s for s in grid.steps], grid.starts)
    kernel = small_kernel(d, shape=shape, causal_axes=(0,) if causal else ())
    values = seeded(2, 3, *sizes)
    # torch correlates, so the taps are reversed; zero padding lets every node see every other.
    weight = taps(kernel, grid).flip(tuple(range(-d, 0)))
    weight = weight[:, None] if kernel.depthwise else weight
    groups = 3 if kernel.depthwise else 1
    padding = [n - 1 for n in sizes]
    expected = TORCH_CONVOLUTIONS[d](values, weight, stride=stride, padding=padding, groups=groups)
    result = convolve(kernel, values, grid, query, engine=engine)
    assert_close(result, expected)


@GRID_CHECKS_OF_EXACT.add()
def equals_torch_transposed_convolution(engine: str) -> None:
    grid, query = Grid((9,), (0.5,)), Grid((17,), (0.25,))
    kernel = small_kernel(1, shape=(2, 3))
    weight = taps(kernel, query) / query.cell_volume * grid.cell_volume
    values = seeded(2, 3, 9)
    expected = torch.nn.functional.conv_transpose1d(values, weight.transpose(0, 1), stride=2)
    centre = weight.shape[-1] // 2
    assert_close(convolve(kernel, values, grid, query, engine=engine), expected[..., centre : centre + 17])


@GRID_CHECKS_OF_EXACT.add()
def equals_torch_circular_convolution(engine: str) -> None:
    grid = Grid((9,), (0.5,), periodic=True)
    kernel = small_kernel(1, width=periodic_width(grid))
    values = seeded(2, 2, 9)
    near = taps(kernel, Grid((5,), (0.5,))).flip(-1)[:, None]  # offsets up to 4 steps: half of 9
    expected = torch.nn.functional.conv1d(torch.nn.functional.pad(values, (4, 4), mode="circular"), near, groups=2)
    assert_close(convolve(kernel, values, grid, engine=engine), expected)


@GRID_CHECKS_OF_EXACT.add([((3, 2, 4, 5),), ((1, 5, 2, 3),)])
def equals_scipy_in_four_dimensions(engine: str, sizes: tuple[int, ...]) -> None:
    grid = Grid(sizes, STEPS, STARTS)
    kernel, values = small_kernel(4), seeded(2, 2, *sizes)
    result = convolve(kernel, values, grid, engine=engine)
    at_nodes = tuple(slice(n - 1, 2 * n - 1) for n in sizes)
    weight = taps(kernel, grid).numpy()
    for entry in range(2):
        for channel in range(2):
            whole = scipy.signal.fftconvolve(values[entry, channel].numpy(), weight[channel], mode="full")
            assert_close(result[entry, channel], torch.from_numpy(np.ascontiguousarray(whole[at_nodes])))
            direct = scipy.ndimage.convolve(values[entry, channel].numpy(), weight[channel], mode="constant")
            assert_close(result[entry, channel], torch.from_numpy(direct))


@GRID_CHECKS_OF_EXACT.add()
def equals_scipy_wrapped_in_four_dimensions(engine: str) -> None:
    sizes = (5, 4, 3, 6)
    grid = Grid(sizes, STEPS, STARTS, periodic=True)
    kernel, values = small_kernel(4, width=periodic_width(grid)), seeded(1, 2, *sizes)
    near = taps(kernel, Grid([n // 2 + 1 for n in sizes], STEPS)).numpy()
    result = convolve(kernel, values, grid, engine=engine)
    for channel in range(2):
        expected = scipy.ndimage.convolve(values[0, channel].numpy(), near[channel], mode="wrap")
        assert_close(result[0, channel], torch.from_numpy(expected))


# ---- the error of approximations ----

RANDOM_CASES, PER_BLOCK = 200, 20


@POINT_CHECKS.add([(first,) for first in range(0, RANDOM_CASES, PER_BLOCK)])
def error_is_below_twice_the_tolerance(engine: str, first: int) -> None:
    """Random kernels, dimensions and densities: the error over the expected norm of a convolution of white noise."""
    failed = {}
    for seed in range(first, first + PER_BLOCK):
        case = random_case(seed)
        error = ENGINES[engine].error(case.rtol)
        if not error or isinstance(assessed(engine, case), str):
            continue
        found = convolved(engine, case).double()
        exactly = replace(case, kernel=case.kernel.double(), values=case.values.double())
        scale = white_noise_norm(exactly.kernel, exactly.values, exactly.source, exactly.query)
        made = float((found - exactly.run("equation")["output"]).norm()) / scale
        if not made <= 2 * error:
            failed[f"seed {seed}"] = f"error {made:.2g}, allowed {error:.2g}"
    assert not failed


# ---- what the planner needs ----


@GENERAL_CHECKS.add([("grid",), ("points",)])
def cost_is_counted_and_grows(engine: str, form: str) -> None:
    """A pass reads all values and writes all results, so nothing costs less; and four times the places cost more."""
    costs = []
    for count in (64, 256):
        domain = Grid((count,), (1.0,)) if form == "grid" else Points(uniform(count, 1, high=float(count), seed=1))
        cost = ENGINES[engine].assess(small_kernel(1), domain, domain, 1, 1e-3)
        if isinstance(cost, str):
            return
        least = DEFAULT_RATES.write * 2 * count
        assert DEFAULT_RATES.seconds(cost.forward) >= least, f"counts {cost.forward}: less than writing the result"
        assert DEFAULT_RATES.seconds(cost.backward) >= least, f"counts {cost.backward}: less than writing the gradient"
        assert 0 < cost.bytes < math.inf
        costs.append(cost)
    few, many = costs
    assert few.seconds(DEFAULT_RATES) < many.seconds(DEFAULT_RATES) < math.inf
    assert few.bytes < many.bytes


@GENERAL_CHECKS.add([("grid to grid",), ("points to points",), ("product to product",)])
def a_plan_gives_the_same(engine: str, kind: str) -> None:
    """Planned once, used twice; and the least work is no more than what is counted."""
    case = case_of(kind, 2, "plain")
    cost = assessed(engine, case)
    if isinstance(cost, str):
        return
    least = ENGINES[engine].least_work(case.kernel, case.source)
    assert DEFAULT_RATES.seconds(least) <= cost.seconds(DEFAULT_RATES)
    expected = convolved(engine, case)
    plan = make_plan(case.kernel, case.source, case.query, engine=engine, rtol=case.rtol)
    for _ in range(2):
        assert_close(convolve(case.kernel, case.values, case.source, case.query, plan=plan), expected)


# ---- layers in use ----


@GRID_CHECKS.add()
def lengths_in_any_order_answer_as_a_fresh_layer(engine: str) -> None:
    layer = ContinuousConv(small_kernel(1), solver=Solver(engine)).to(torch.float64)
    untouched = copy.deepcopy(layer)
    for length in (5, 97, 2, 30, 1, 5, 96):
        grid, values = Grid((length,), (0.5,)), seeded(2, 2, length, seed=length)
        result = layer(values, grid)
        assert result.shape == (2, 2, length)
        assert float(result.abs().max().detach()) > 0
        assert torch.equal(result, copy.deepcopy(untouched)(values, grid))


@POINT_CHECKS.add()
def series_of_any_length_in_any_order_answer_as_a_fresh_layer(engine: str) -> None:
    layer = ContinuousConv(small_kernel(1, causal_axes=(0,)), solver=Solver(engine)).to(torch.float64)
    untouched = copy.deepcopy(layer)
    for length in (5, 97, 2, 30, 1, 5, 96):
        source, values = Points(uniform(length, 1, high=0.1 * length, seed=length)), seeded(length, 2, seed=length)
        found = layer(values, source)
        assert found.shape == (length, 2)
        assert float(found.abs().max().detach()) > 0
        assert torch.equal(found, copy.deepcopy(untouched)(values, source))


DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@GRID_CHECKS_OF_EXACT.add(itertools.product(DTYPES, DEVICES))
def has_the_dtype_and_device_of_its_values_on_grids(engine: str, dtype: torch.dtype, device: str) -> None:
    kernel, grid, query = grid_case((7, 9), "strided", dtype)
    expected = convolve(kernel, seeded(2, 2, 7, 9, dtype=dtype), grid, query, engine=engine)
    kernel = kernel.to(device)
    values = seeded(2, 2, 7, 9, dtype=dtype).to(device).requires_grad_()
    result = convolve(kernel, values, grid, query, engine=engine)
    assert result.dtype == dtype
    assert result.device == values.device
    assert_close(result.cpu(), expected)
    (gradient,) = torch.autograd.grad(result.sum(), [values])
    assert gradient.dtype == dtype
    assert gradient.device == values.device


@POINT_CHECKS.add(itertools.product(DTYPES, DEVICES))
def has_the_dtype_and_device_of_its_values(engine: str, dtype: torch.dtype, device: str) -> None:
    case = pair_case("product to product", 2, "strided", dtype)
    expected = case.run(engine)["output"].detach()
    source, query = case.source, case.query
    assert isinstance(source, Product)
    assert isinstance(query, Product)
    values = case.values.detach().to(device).requires_grad_()
    kernel = case.kernel.to(device)
    found = convolve(kernel, values, source.to(device), query.to(device), engine=engine, rtol=case.rtol)
    (gradient,) = torch.autograd.grad(found.sum(), [values])
    for one in (found, gradient):
        assert one.dtype == dtype
        assert one.device == values.device
    scale = white_noise_norm(case.kernel.to("cpu"), case.values, source, query)
    assert float((found.detach().cpu() - expected).norm()) <= 30 * TOLERANCES[dtype] * scale


@GRID_CHECKS_OF_EXACT.add()
def keeps_float64_on_grids(engine: str) -> None:
    """Two values that float32 cannot tell apart give different results."""
    kernel, grid, _ = grid_case((9,), "plain", torch.float64)
    values = seeded(1, 2, 9)
    nearby = convolve(kernel, values * (1 + 1e-10), grid, engine=engine)
    ratio = (nearby / convolve(kernel, values, grid, engine=engine) - 1).detach()
    assert_close(ratio, torch.full_like(ratio, 1e-10), scale=1.0)
    assert float(ratio.abs().min()) > 5e-11


@POINT_CHECKS.add()
def keeps_float64(engine: str) -> None:
    """Values, places and weights that float32 cannot tell apart give different results."""
    case = points_case(1, False)
    source, query = case.source, case.query
    assert isinstance(source, Points)
    base, reference = convolved(engine, case), convolved("reference", case)
    for changed in (
        {"values": case.values.detach() * (1 + 1e-10)},
        {"source": Points(source.coordinates, source.weights * (1 + 1e-10))},
        {"source": Points(source.coordinates + 1e-10, source.weights)},
        {"query": Points(query.coordinates + 1e-10)},  # type: ignore[union-attr]
    ):
        difference = convolved(engine, case, **changed) - base  # type: ignore[arg-type]
        wanted = convolved("reference", case, **changed) - reference  # type: ignore[arg-type]
        assert float(wanted.abs().max()) > 1e-12
        assert float((difference - wanted).norm()) <= 1e-2 * float(wanted.norm())
