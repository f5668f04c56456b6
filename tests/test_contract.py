"""What every engine promises: one equation, one answer (docs: the contract of the engines)."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable

import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.integrate
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
    check_keops_family,
    compare_keops,
    exists,
    grid_case,
    name,
    pair_case,
    periodic_width,
    random_case,
    requires_compiler,
    run,
    seeded,
    small_kernel,
    uniform,
    white_noise_norm,
)
from hypothesis import given
from tested_device import DEVICE, convolve, explain, make_plan
from torch import Tensor

from ccnn_irregular import ENGINES, ContinuousConv, GaussianMask, Grid, Kernel, MAGNet, Points, Product, Solver
from ccnn_irregular.domains import Domain
from ccnn_irregular.operators import EngineName
from ccnn_irregular.quadrature import trapezoid
from ccnn_irregular.testing import TOLERANCES, assert_all_close, assert_close

# Gradients add up many terms of both signs, which float32 notices.
GRADIENT_FACTOR = 10.0
# The engines that need no compiler, on grids and elsewhere; KeOps has one test per family of formulas below.
EAGER = ("reference", "fft")
ON_POINTS = ("reference", "neighbours", "spectral")
# Where an engine is out, and the reason it has to give; the first row that fits counts. All else it serves.
OUT: tuple[tuple[str, Callable[[Case], bool], str], ...] = (
    ("fft", lambda case: case.kind != "grid to grid", "source and query must both be grids"),
    ("neighbours", lambda case: case.kind == "grid to grid", "both domains are grids"),
    ("spectral", lambda case: case.kind == "grid to grid", "both domains are grids"),
    ("spectral", lambda case: case.irregular > 3, "more than 3 irregular axes"),
    ("spectral", lambda case: jumps(case) and (case.irregular > 1 or case.shares_lattice), "causal on one of several"),
    ("neighbours", lambda case: case.kernel.mask is None, "the kernel has no mask"),
    ("spectral", lambda case: case.kernel.mask is None, "the kernel has no mask"),
)


def jumps(case: Case) -> bool:
    """Whether the kernel is causal on an irregular axis."""
    return any(axis < case.irregular for axis in case.kernel.causal_axes)


def is_out(engine: str, case: Case) -> bool:
    """Whether ``OUT`` says so; then the engine must refuse with the reason that stands there."""
    reason = next((reason for one, rule, reason in OUT if one == engine and rule(case)), None)
    if reason is not None:
        with pytest.raises(ValueError, match=rf"engine must suit source and query \('{engine}': .*{reason}"):
            convolve(case.kernel, case.values, case.source, case.query, engine=engine, rtol=case.rtol)
        assert reason in str(explain(case.kernel, case.source, case.query, rtol=case.rtol).costs[engine])
    return reason is not None


def compare(engine: str, case: Case, expected: dict[str, Tensor]) -> None:
    """An exact engine gives ``expected`` and its gradients up to rounding, spectral up to its rtol."""
    if engine == "spectral":
        scale = white_noise_norm(case.kernel, case.values, case.source, case.query)
        assert_within(case.run(engine), expected, case.rtol, scale)
    else:
        assert_all_close(case.run(engine), expected, factor=GRADIENT_FACTOR)


# ---- the comparison itself ----


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("sizes", [(2,), (31,), (7, 9), (3, 2, 5, 1)], ids=name)
def test_comparison_fails_for_wrong_results(sizes: tuple[int, ...], dtype: torch.dtype) -> None:
    kernel, grid, _ = grid_case(sizes, "plain", dtype)
    values = seeded(2, 2, *sizes, dtype=dtype)
    right = convolve(kernel, values, grid, engine="reference")
    assert_close(right.clone(), right)
    wrong = {
        "zeros": torch.zeros_like(right),
        "half": right / 2,
        "input": values,
        "shifted": right.roll(1, dims=2),
        "swapped channels": right.flip(1),
        "swapped entries": right.flip(0),
        "negative": -right,
        "nan": torch.full_like(right, math.nan),
        "another shape": right[..., :-1],
        "another dtype": right.to(torch.float32 if dtype == torch.float64 else torch.float64),
        "slightly larger": right * (1 + 3 * TOLERANCES[dtype]),
    }
    for what, result in wrong.items():
        with pytest.raises(AssertionError, match=f"{what}: "):
            assert_close(result, right, name=what)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("d", [1, 2, 3])
def test_comparison_of_approximations_fails_for_wrong_results(d: int, dtype: torch.dtype) -> None:
    case = pair_case("points to points", d, "plain", dtype)
    right = case.run("reference")
    scale = white_noise_norm(case.kernel, case.values, case.source, case.query)
    assert_within(right, right, case.rtol, scale)
    for key, one in right.items():
        wrong = {
            "zeros": torch.zeros_like(one),
            "half": one / 2,
            "shifted": one.roll(1, dims=0),
            "negative": -one,
            "nan": torch.full_like(one, math.nan),
            "another shape": one[..., :-1],
            "another dtype": one.to(torch.float32 if dtype == torch.float64 else torch.float64),
        }
        if key == "output":
            wrong["slightly larger"] = one * (1 + 5 * case.rtol)
        if len(one) == 1:  # one number: rolled, it is the same
            del wrong["shifted"]
        for result in wrong.values():
            with pytest.raises(AssertionError, match=key):
                assert_within(right | {key: result}, right, case.rtol, scale)


def test_comparison_refuses_to_compare_nothing() -> None:
    zeros = torch.zeros(3, dtype=torch.float64)
    with pytest.raises(AssertionError, match="zero everywhere"):
        assert_close(zeros, zeros)
    assert_close(zeros, zeros, scale=1.0)
    with pytest.raises(AssertionError, match="nothing is compared"):
        assert_close(zeros[:0], zeros[:0])
    with pytest.raises(AssertionError, match="all that is expected is zero"):
        assert_all_close({"a": zeros}, {"a": zeros})
    with pytest.raises(AssertionError, match="names are"):
        assert_all_close({"a": zeros}, {"a": zeros, "b": zeros + 1})
    with pytest.raises(AssertionError, match=r"b: differs by .* largest at \(1,\): got 2, expected 1"):
        assert_all_close({"b": torch.tensor([1.0, 2.0]).double()}, {"b": torch.ones(2).double()})
    with pytest.raises(ValueError, match="dtype"):
        assert_close(torch.ones(2, dtype=torch.float16), torch.ones(2, dtype=torch.float16))
    with pytest.raises(ValueError, match="scale must be positive"):
        assert_close(zeros, zeros, scale=0.0)


# ---- one answer: every engine, dtype, number of axes, size and kind of grid ----


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("sizes", SIZE_CASES, ids=name)
def test_engines_agree_on_grids(sizes: tuple[int, ...], dtype: torch.dtype, mode: str) -> None:
    kernel, source, query = grid_case(sizes, mode, dtype)
    values = seeded(2, 2, *sizes, dtype=dtype, requires_grad=True)
    reference = run(kernel, values, source, query, "reference")
    assert reference["output"].shape == (2, 2, *query.sizes)
    assert_all_close(reference, run(kernel, values, source, query, "equation"), factor=GRADIENT_FACTOR)
    case = Case("grid to grid", 0, kernel, values, source, query, 1e-3)
    compare("fft", case, reference)
    assert is_out("neighbours", case)
    assert is_out("spectral", case)


PAIRS = [
    (kind, d, lengths)
    for kind in KINDS
    for d in (1, 2, 3, 4)
    if exists(kind, d)
    for lengths in (LENGTHS if kind == "points to points" else ("ragged",))
]


@pytest.mark.parametrize("mode", PAIR_MODES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("kind", "d", "lengths"), PAIRS)
def test_engines_agree_between_points_grids_and_products(
    kind: str, d: int, lengths: str, dtype: torch.dtype, mode: str
) -> None:
    case = pair_case(kind, d, mode, dtype, lengths)
    reference = case.run("reference")
    assert reference["output"].dtype == dtype
    assert_all_close(reference, case.run("equation"), factor=GRADIENT_FACTOR)
    assert is_out("fft", case)
    for engine in ("neighbours", "spectral"):
        if not is_out(engine, case):
            compare(engine, case, reference)


@pytest.mark.parametrize("mode", PAIR_MODES)
@pytest.mark.parametrize(("kind", "d"), [("points to points", 1), ("points to grid", 2), ("product to product", 3)])
def test_engines_agree_on_full_kernels(kind: str, d: int, mode: str) -> None:
    case = pair_case(kind, d, mode, torch.float64, shape=(3, 2))
    reference = case.run("reference")
    assert_all_close(reference, case.run("equation"), factor=GRADIENT_FACTOR)
    for engine in ("neighbours", "spectral"):
        if not is_out(engine, case):
            compare(engine, case, reference)


@pytest.mark.parametrize("kind", KINDS)
def test_kernels_without_a_mask(kind: str) -> None:
    case = pair_case(kind, 3, "plain", torch.float64)
    kernel = small_kernel(3, masked=False)
    case = Case(kind, case.irregular, kernel, case.values, case.source, case.query, 1e-3)
    assert_all_close(case.run("reference"), case.run("equation"), factor=GRADIENT_FACTOR)
    for engine in ("fft", "neighbours", "spectral"):
        assert is_out(engine, case)


@pytest.mark.parametrize("shape", [(3,), (4, 3)], ids=["depthwise", "full"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("sizes", [(1,), (13,), (7, 4), (3, 2, 5), (3, 2, 4, 1)], ids=name)
def test_grid_nodes_as_points_equal_the_fft(
    sizes: tuple[int, ...], dtype: torch.dtype, mode: str, shape: tuple[int, ...]
) -> None:
    template, source, query = grid_case(sizes, mode, dtype)
    kernel = small_kernel(
        len(sizes), width=template.mask.width.tolist(), shape=shape, causal_axes=template.causal_axes, dtype=dtype
    )
    values = seeded(2, 3, *sizes, dtype=dtype, requires_grad=True)
    on_grid = run(kernel, values, source, query, "fft")
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


@pytest.mark.parametrize("product", [False, True], ids=["points", "product"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_weights_per_channel(dtype: torch.dtype, product: bool) -> None:
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
    for engine in ON_POINTS:
        compare(engine, case, expected)
        assert not case.run(engine)["gradient of values"][unseen].any()


@pytest.mark.parametrize("mode", ["plain", "causal", "periodic"])
@pytest.mark.parametrize("engine", EAGER)
def test_gradients_equal_finite_differences(engine: str, mode: str) -> None:
    kernel, grid, query = grid_case((3, 4), mode, torch.float64)
    layer = ContinuousConv(kernel, bias=False, solver=Solver(engine))
    names = list(dict(layer.named_parameters()))

    def function(values: Tensor, *parameters: Tensor) -> Tensor:
        state = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(layer, state, (values, grid, query))

    inputs = [seeded(1, 2, 3, 4, requires_grad=True)]
    inputs += [one.detach().clone().requires_grad_() for one in kernel.parameters()]
    assert torch.autograd.gradcheck(function, inputs)


@pytest.mark.parametrize("engine", ["reference", "neighbours"])
def test_coordinate_and_weight_gradients_equal_finite_differences(engine: EngineName) -> None:
    kernel = small_kernel(2, width=(0.6, 0.5))

    def function(values: Tensor, coordinates: Tensor, weights: Tensor, query: Tensor) -> Tensor:
        return convolve(kernel, values, Points(coordinates, weights), Points(query), engine=engine)

    inputs = [seeded(5, 2), uniform(5, 2, seed=1), uniform(5, low=0.2, seed=2), uniform(4, 2, seed=3)]
    assert torch.autograd.gradcheck(function, [one.requires_grad_() for one in inputs])


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


@pytest.mark.parametrize("causal", [False, True], ids=["plain", "causal"])
@pytest.mark.parametrize(("ratio", "shift", "size"), RATIONAL)
def test_rational_queries(ratio: float, shift: float, size: int, causal: bool) -> None:
    source = Grid((12, 5), (0.1, 0.7), (-3.0, 2.0))
    query = Grid((size, 4), (0.1 * ratio, 0.7 / 2), (-3.0 + 0.1 * shift, 1.3))
    kernel = small_kernel(2, width=(0.15, 0.8), causal_axes=(0,) if causal else ())
    values = seeded(2, 2, 12, 5, requires_grad=True)
    reference = run(kernel, values, source, query, "reference")
    result = run(kernel, values, source, query, "fft")
    if abs(shift) == 40:
        # Beyond the reach of the kernel: the answer is zero, and so are all gradients.
        for key, one in reference.items():
            assert not one.any()
            assert_close(result[key], one, scale=1.0, name=key)
    else:
        assert_all_close(result, reference)


@pytest.mark.parametrize(("ratio", "shift", "size"), [(1, 0.25, 12), (3, 0.0, 4), (1 / 2, 0.0, 24), (2 / 3, -30.0, 18)])
def test_rational_periodic_queries(ratio: float, shift: float, size: int) -> None:
    source = Grid((12, 5), (0.1, 0.7), periodic=(True, False))
    query = Grid((size, 5), (0.1 * ratio, 0.7), (0.1 * shift, 0.0), periodic=(True, False))
    kernel = small_kernel(2, width=(0.19, 0.8))
    values = seeded(2, 2, 12, 5, requires_grad=True)
    assert_all_close(run(kernel, values, source, query, "fft"), run(kernel, values, source, query, "reference"))
    # A query without a period may lie anywhere, several periods away.
    open_query = Grid((3, 5), (0.1 * ratio, 0.7), (2.4 + 0.1 * shift, 0.0))
    assert_all_close(
        run(kernel, values, source, open_query, "fft"), run(kernel, values, source, open_query, "reference")
    )


@pytest.mark.parametrize("masked", [True, False], ids=["wide mask", "no mask"])
@pytest.mark.parametrize("causal", [False, True], ids=["plain", "causal"])
def test_kernel_wider_than_the_grid(masked: bool, causal: bool) -> None:
    grid = Grid((7, 4), (0.5, 0.7))
    kernel = small_kernel(2, width=(20.0, 30.0), masked=masked, causal_axes=(0,) if causal else ())
    values = seeded(2, 2, 7, 4, requires_grad=True)
    assert_all_close(run(kernel, values, grid, grid, "fft"), run(kernel, values, grid, grid, "reference"))


@pytest.mark.parametrize("width", [0.01, 0.32, 0.33])
def test_kernel_narrower_than_a_step(width: float) -> None:
    grid = Grid((6,), (1.0,))
    kernel = small_kernel(1, width=(width,))
    values = seeded(1, 2, 6)
    result = convolve(kernel, values, grid, engine="fft")
    centre = kernel(torch.zeros(1, dtype=torch.float64))
    if width < 0.32:
        assert_close(result, values * centre[:, None])
    assert_close(result, convolve(kernel, values, grid, engine="reference"))
    between = Grid((5,), (1.0,), (0.5,))
    expected = convolve(kernel, values, grid, between, engine="reference")
    assert bool((expected == 0).all()) == (width < 0.16)
    assert_close(convolve(kernel, values, grid, between, engine="fft"), expected, scale=1.0)


# ---- algebra ----


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("engine", EAGER)
def test_linear(engine: str, dtype: torch.dtype) -> None:
    kernel, grid, query = grid_case((7, 9), "strided", dtype)
    x, y = seeded(2, 2, 7, 9, dtype=dtype), seeded(2, 2, 7, 9, dtype=dtype, seed=1)
    together = convolve(kernel, 3 * x - 0.5 * y, grid, query, engine=engine)
    apart = 3 * convolve(kernel, x, grid, query, engine=engine) - 0.5 * convolve(kernel, y, grid, query, engine=engine)
    assert_close(together, apart)
    assert not convolve(kernel, torch.zeros_like(x), grid, query, engine=engine).any()


@pytest.mark.parametrize("sizes", [(9,), (8, 6), (3, 5, 4), (2, 4, 3, 3)], ids=name)
@pytest.mark.parametrize("engine", EAGER)
def test_shift_equivariant_on_grids(engine: str, sizes: tuple[int, ...]) -> None:
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


# Engine, number of axes, causal or not.
ALGEBRA = [(engine, d, False) for engine in ON_POINTS for d in (1, 2, 3)] + [(engine, 1, True) for engine in ON_POINTS]
on_points = pytest.mark.parametrize(("engine", "d", "causal"), ALGEBRA)


def points_case(d: int, causal: bool, shape: tuple[int, ...] = (2,)) -> Case:
    """Twenty weighted points and nine others, one sample, for the laws of the sum."""
    kernel = small_kernel(d, width=(0.4, 0.3, 0.35)[:d], shape=shape, causal_axes=(0,) if causal else ())  # type: ignore[arg-type]
    source = Points(uniform(20, d, seed=1), uniform(20, seed=2))
    query = Points(uniform(9, d, seed=3), uniform(9, seed=4))
    values = seeded(20, 2, requires_grad=True)
    return Case("points to points", d, kernel, values, source, query, RTOL[torch.float64][d])


def convolved(engine: str, case: Case, *, values: Tensor | None = None, **domains: Domain) -> Tensor:
    """The convolution of a case, with something else in place of its values, source or query."""
    given_values = case.values if values is None else values
    source, query = domains.get("source", case.source), domains.get("query", case.query)
    return convolve(case.kernel, given_values, source, query, engine=engine, rtol=case.rtol).detach()


def assert_same(engine: str, case: Case, actual: Tensor, expected: Tensor) -> None:
    """Equal up to rounding, or, where two approximations have cells of their own, up to the error of both."""
    if engine == "spectral":
        scale = white_noise_norm(case.kernel, case.values, case.source, case.query)
        assert float((actual - expected).norm()) <= 2 * case.rtol * scale
    else:
        assert_close(actual, expected)


@on_points
def test_linear_on_points(engine: str, d: int, causal: bool) -> None:
    case = points_case(d, causal)
    x, y = seeded(20, 2, seed=5), seeded(20, 2, seed=6)
    together = convolved(engine, case, values=3 * x - 0.5 * y)
    assert_close(together, 3 * convolved(engine, case, values=x) - 0.5 * convolved(engine, case, values=y))
    assert not convolved(engine, case, values=torch.zeros_like(x)).any()


@on_points
def test_shift_equivariant_on_points(engine: str, d: int, causal: bool) -> None:
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


@pytest.mark.parametrize("engine", ON_POINTS)
def test_shift_equivariant_on_axes_that_repeat(engine: str) -> None:
    """Also by more than a period: coordinates may lie anywhere."""
    kernel = small_kernel(2, width=(0.3, 0.2))
    periods = (2.0, 1.5)
    shift = torch.tensor([6.3, -2.2], dtype=torch.float64)
    near = Points(uniform(20, 2, seed=1), uniform(20, seed=2), periods=periods)
    far = Points(near.coordinates + shift, near.weights, periods=periods)
    case = Case("points to points", 2, kernel, seeded(20, 2), near, near, RTOL[torch.float64][2])
    assert_same(engine, case, convolved(engine, case, source=far, query=far), convolved(engine, case))


@on_points
def test_blind_to_the_order_of_points(engine: str, d: int, causal: bool) -> None:
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


@on_points
def test_doubled_points_at_half_weight_change_nothing(engine: str, d: int, causal: bool) -> None:
    case = points_case(d, causal)
    source = case.source
    assert isinstance(source, Points)
    expected = convolved(engine, case)
    places, weights = source.coordinates.repeat_interleave(2, 0), source.weights.repeat_interleave(2)
    twice = case.values.repeat_interleave(2, 0)
    assert_same(engine, case, convolved(engine, case, values=twice, source=Points(places, weights / 2)), expected)
    unweighted = convolved(engine, case, values=twice, source=Points(places, weights))
    assert_same(engine, case, unweighted / 2, expected)


@on_points
def test_adjoint_by_autograd(engine: str, d: int, causal: bool) -> None:
    """<Ax, y> = <x, A'y> to rounding, of an approximation too: its backward pass is its own adjoint."""
    case = points_case(d, causal)
    output = convolve(case.kernel, case.values, case.source, case.query, engine=engine, rtol=case.rtol)
    y = seeded(9, 2, seed=7)
    (back,) = torch.autograd.grad(output, [case.values], y)
    assert_close((output * y).sum(), (case.values * back).sum())


@pytest.mark.parametrize("shape", [(2,), (3, 2)], ids=["depthwise", "full"])
@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("engine", ON_POINTS)
def test_adjoint_by_the_reflected_kernel(engine: str, d: int, shape: tuple[int, ...]) -> None:
    case = points_case(d, False, shape)
    source, query = case.source, case.query
    assert isinstance(source, Points)
    assert isinstance(query, Points)
    y = seeded(9, shape[0], seed=7)
    forward = (convolved(engine, case) * y * query.weights[:, None]).sum()
    there = Case(case.kind, d, adjoint(case.kernel), y, query, source, case.rtol)
    backward = (case.values * convolved(engine, there) * source.weights[:, None]).sum().detach()
    if engine == "spectral":
        scale = white_noise_norm(case.kernel, case.values, source, query) * float((y * query.weights[:, None]).norm())
        assert abs(float(forward - backward)) <= 2 * case.rtol * scale
    else:
        assert_close(forward, backward)


@pytest.mark.parametrize("shape", [(2,), (3, 2)], ids=["depthwise", "full"])
@pytest.mark.parametrize("periodic", [False, True], ids=["plain", "periodic"])
@pytest.mark.parametrize("engine", EAGER)
def test_adjoint_on_grids(engine: str, periodic: bool, shape: tuple[int, ...]) -> None:
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


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("engine", EAGER)
def test_gaussian_error_falls_exponentially_on_grids(engine: str, d: int) -> None:
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


@pytest.mark.parametrize("engine", EAGER)
def test_gaussian_everywhere_to_rounding(engine: str) -> None:
    source = Grid((61, 53), (0.25, 0.3), (-7.5, -7.8))
    query = Grid((9, 7), (0.5, 0.45), (-2.1, -1.0))
    values = gaussian(source.nodes(), SIGMA**2).reshape(1, 1, *source.sizes).expand(-1, 2, -1, -1)
    found = convolve(gaussian_kernel(2), values, source, query, engine=engine)
    assert TOLERANCES[torch.float64] == 1e-12
    assert_close(found, gaussian_convolved(query.nodes(), 2).reshape(1, 1, *query.sizes).expand(found.shape))


@pytest.mark.parametrize("engine", ON_POINTS)
def test_gaussian_error_is_second_order_on_irregular_points(engine: str) -> None:
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


def test_unweighted_points_do_not_converge() -> None:
    """What the weights are for: without them the answer follows the density of the samples."""
    positions = torch.cat([torch.linspace(-8, 0, 200), torch.linspace(0.01, 8, 800)]).double()
    values = gaussian(positions[:, None], SIGMA**2)[:, None].expand(-1, 2)
    query = Points(torch.ones(1, 1, dtype=torch.float64))
    exact = float(gaussian_convolved(torch.ones(1, dtype=torch.float64), 1))
    weighted = Points(positions[:, None], trapezoid(positions))
    mean = Points(positions[:, None], torch.full((1000,), 16 / 1000, dtype=torch.float64))
    right, wrong = (
        float(convolve(gaussian_kernel(1), values, source, query, engine="reference").mean())
        for source in (weighted, mean)
    )
    assert right == pytest.approx(exact, 1e-4)
    assert wrong > 1.2 * exact


@pytest.mark.parametrize("causal", [False, True], ids=["plain", "causal"])
def test_equals_adaptive_quadrature(causal: bool) -> None:
    """A MAGNet kernel against a smooth signal, by scipy's adaptive rule and by Gauss-Legendre points."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        generator = MAGNet(1, 1, hidden=4, layers=2, omega_0=0.3)
    axes = (0,) if causal else ()
    kernel = (
        Kernel(generator, GaussianMask([0.4]), extent=[1.0], causal_axes=axes).to(torch.float64).requires_grad_(False)
    )
    at, reach = 0.3, float(kernel.support)

    def signal(p: float | np.ndarray) -> float | np.ndarray:
        return np.cos(3 * p) + 0.5 * p

    def integrand(p: float) -> float:
        offset = torch.tensor([at - p], dtype=torch.float64)
        return float(kernel(offset)) * float(signal(p))

    upper = at if causal else at + reach
    exact, error = scipy.integrate.quad(integrand, at - reach, upper, epsabs=1e-12, epsrel=1e-12, limit=200)
    assert error < 1e-9
    assert abs(exact) > 1e-3
    nodes, weights = np.polynomial.legendre.leggauss(120)
    middle, half = (at - reach + upper) / 2, (upper - at + reach) / 2
    positions = torch.from_numpy(middle + half * nodes)
    source = Points(positions[:, None], torch.from_numpy(half * weights))
    values = torch.from_numpy(signal(positions.numpy()))[:, None]
    query = Points(torch.tensor([[at]], dtype=torch.float64))
    assert float(convolve(kernel, values, source, query, engine="reference")) == pytest.approx(exact, rel=1e-9)


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


@pytest.mark.parametrize("causal", [False, True], ids=["plain", "causal"])
@pytest.mark.parametrize("shape", [(3,), (2, 3)], ids=["depthwise", "full"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("sizes", [(1,), (11,), (12,), (5, 8), (3, 4, 5)], ids=name)
@pytest.mark.parametrize("engine", EAGER)
def test_equals_torch_convolution(
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


@pytest.mark.parametrize("engine", EAGER)
def test_equals_torch_transposed_convolution(engine: str) -> None:
    grid, query = Grid((9,), (0.5,)), Grid((17,), (0.25,))
    kernel = small_kernel(1, shape=(2, 3))
    weight = taps(kernel, query) / query.cell_volume * grid.cell_volume
    values = seeded(2, 3, 9)
    expected = torch.nn.functional.conv_transpose1d(values, weight.transpose(0, 1), stride=2)
    centre = weight.shape[-1] // 2
    assert_close(convolve(kernel, values, grid, query, engine=engine), expected[..., centre : centre + 17])


@pytest.mark.parametrize("engine", EAGER)
def test_equals_torch_circular_convolution(engine: str) -> None:
    grid = Grid((9,), (0.5,), periodic=True)
    kernel = small_kernel(1, width=periodic_width(grid))
    values = seeded(2, 2, 9)
    near = taps(kernel, Grid((5,), (0.5,))).flip(-1)[:, None]  # offsets up to 4 steps: half of 9
    expected = torch.nn.functional.conv1d(torch.nn.functional.pad(values, (4, 4), mode="circular"), near, groups=2)
    assert_close(convolve(kernel, values, grid, engine=engine), expected)


@pytest.mark.parametrize("sizes", [(3, 2, 4, 5), (1, 5, 2, 3)], ids=name)
@pytest.mark.parametrize("engine", EAGER)
def test_equals_scipy_in_four_dimensions(engine: str, sizes: tuple[int, ...]) -> None:
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


@pytest.mark.parametrize("engine", EAGER)
def test_equals_scipy_wrapped_in_four_dimensions(engine: str) -> None:
    sizes = (5, 4, 3, 6)
    grid = Grid(sizes, STEPS, STARTS, periodic=True)
    kernel, values = small_kernel(4, width=periodic_width(grid)), seeded(1, 2, *sizes)
    near = taps(kernel, Grid([n // 2 + 1 for n in sizes], STEPS)).numpy()
    result = convolve(kernel, values, grid, engine=engine)
    for channel in range(2):
        expected = scipy.ndimage.convolve(values[0, channel].numpy(), near[channel], mode="wrap")
        assert_close(result[0, channel], torch.from_numpy(expected))


# ---- the error of the approximate engine ----

RANDOM_CASES, PER_BLOCK = 200, 20


@pytest.mark.parametrize("first", range(0, RANDOM_CASES, PER_BLOCK))
def test_error_of_spectral_is_below_twice_the_tolerance(first: int) -> None:
    """Random kernels, dimensions and densities: the error over the expected norm of a convolution of white noise."""
    failed = {}
    for seed in range(first, first + PER_BLOCK):
        case = random_case(seed)
        found = convolved("spectral", case).double()
        exactly = Case(
            case.kind, case.irregular, case.kernel.double(), case.values.double(), case.source, case.query, case.rtol
        )
        scale = white_noise_norm(exactly.kernel, exactly.values, exactly.source, exactly.query)
        error = float((found - convolved("reference", exactly)).norm()) / scale
        if not error <= 2 * case.rtol:
            failed[f"seed {seed}"] = f"error {error:.2g} for rtol {case.rtol:.2g}"
    assert not failed


# ---- properties of random cases ----

RANDOM_POINTS = st.integers(0, 10**6).map(lambda seed: random_case(seed, finest=1e-3))
RANDOM_PAIRS = st.builds(
    lambda pair, mode, dtype: pair_case(pair[0], pair[1], mode, dtype, pair[2]),
    st.sampled_from(PAIRS),
    st.sampled_from(PAIR_MODES),
    st.sampled_from(DTYPES),
)


@given(case=RANDOM_POINTS | RANDOM_PAIRS)
def test_every_engine_gives_one_answer_planned_anew_or_not(case: Case) -> None:
    expected = convolved("reference", case)
    scale = white_noise_norm(case.kernel, case.values, case.source, case.query)
    # Rounding is relative to the terms of a sum, an approximation's error to what they give on average.
    rounding = 30 * TOLERANCES[expected.dtype] * scale
    repeated = 0.0 if DEVICE.type == "cpu" else rounding  # a GPU adds in any order
    for engine in ("neighbours", "spectral", "auto"):
        if engine != "auto" and is_out(engine, case):
            continue
        found = convolved(engine, case)
        allowed = rounding if engine == "neighbours" else 2 * case.rtol * scale
        assert float((found - expected).norm()) <= allowed, engine
        plan = make_plan(case.kernel, case.source, case.query, engine=engine, rtol=case.rtol)
        for _ in range(2):
            again = convolve(case.kernel, case.values, case.source, case.query, plan=plan)
            if engine == "auto":  # one use and many may suit different engines
                assert float((again.detach() - expected).norm()) <= allowed
            else:
                assert float((again.detach() - found).norm()) <= repeated, engine


@given(case=RANDOM_POINTS | RANDOM_PAIRS, rtol=st.floats(1e-300, 1, exclude_max=True), batch=st.integers(1, 10**9))
def test_explain_takes_all_that_is_valid(case: Case, rtol: float, batch: int) -> None:
    table = explain(case.kernel, case.source, case.query, rtol=rtol, batch=batch)
    assert table.costs.keys() == ENGINES.keys()
    for engine in ENGINES:
        assert f"{engine} " in str(table)


@given(case=RANDOM_POINTS, engine=st.sampled_from(ON_POINTS), seed=st.integers(0, 10**6), scale=st.floats(-3, 3))
def test_laws_of_the_sum(case: Case, engine: str, seed: int, scale: float) -> None:
    """Linear, blind to the order of points, and doubled points at half the weight are the same points."""
    source, dtype = case.source, case.values.dtype
    assert isinstance(source, Points)
    base, other = convolved(engine, case), seeded(*case.values.shape, dtype=dtype, seed=seed)
    size = white_noise_norm(case.kernel, case.values.abs() + scale * other.abs(), case.source, case.query)
    rounding = 30 * TOLERANCES[dtype] * size

    # The approximate engine computes anew, with a smaller rtol, where values cancel: sums are equal up to its error.
    allowed = rounding + (4 * case.rtol * size if engine == "spectral" else 0)
    together = convolved(engine, case, values=case.values + scale * other)
    apart = base + scale * convolved(engine, case, values=other)
    assert float((together - apart).norm()) <= allowed

    # Within samples: the keys of the samples are whole numbers, those of the order lie between 0 and 1.
    order = (source.sample_index() + uniform(source.count, seed=seed)).argsort()
    shuffled = Points(source.coordinates[order], source.weights[order], source.splits, periods=source.periods)
    query = shuffled if case.query is source else case.query
    found = convolved(engine, case, values=case.values[order], source=shuffled, query=query)
    assert float((found - (base[order] if query is shuffled else base)).norm()) <= rounding

    places, weights = source.coordinates.repeat_interleave(2, 0), source.weights.repeat_interleave(2) / 2
    doubled = Points(places, weights, source.splits * 2, periods=source.periods)
    found = convolved(engine, case, values=case.values.repeat_interleave(2, 0), source=doubled)
    assert float((found - base).norm()) <= allowed


# ---- layers in use ----


@pytest.mark.parametrize("engine", EAGER)
def test_lengths_in_any_order_answer_as_a_fresh_layer(engine: str) -> None:
    layer = ContinuousConv(small_kernel(1), solver=Solver(engine)).to(torch.float64)
    untouched = copy.deepcopy(layer)
    for length in (5, 97, 2, 30, 1, 5, 96):
        grid, values = Grid((length,), (0.5,)), seeded(2, 2, length, seed=length)
        result = layer(values, grid)
        assert result.shape == (2, 2, length)
        assert float(result.abs().max().detach()) > 0
        assert torch.equal(result, copy.deepcopy(untouched)(values, grid))


@pytest.mark.parametrize("engine", ON_POINTS)
def test_series_of_any_length_in_any_order_answer_as_a_fresh_layer(engine: str) -> None:
    answers_as_a_fresh_layer(engine)


def answers_as_a_fresh_layer(engine: str) -> None:
    layer = ContinuousConv(small_kernel(1, causal_axes=(0,)), solver=Solver(engine)).to(torch.float64)
    untouched = copy.deepcopy(layer)
    for length in (5, 97, 2, 30, 1, 5, 96):
        source, values = Points(uniform(length, 1, high=0.1 * length, seed=length)), seeded(length, 2, seed=length)
        found = layer(values, source)
        assert found.shape == (length, 2)
        assert float(found.abs().max().detach()) > 0
        assert torch.equal(found, copy.deepcopy(untouched)(values, source))


DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("engine", EAGER)
def test_output_has_the_input_dtype_and_device(engine: str, dtype: torch.dtype, device: str) -> None:
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


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("engine", ON_POINTS)
def test_output_on_points_has_the_input_dtype_and_device(engine: str, dtype: torch.dtype, device: str) -> None:
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


def test_float64_is_not_downgraded() -> None:
    """Two values that float32 cannot tell apart give different results."""
    kernel, grid, _ = grid_case((9,), "plain", torch.float64)
    values = seeded(1, 2, 9)
    for engine in EAGER:
        nearby = convolve(kernel, values * (1 + 1e-10), grid, engine=engine)
        ratio = (nearby / convolve(kernel, values, grid, engine=engine) - 1).detach()
        assert_close(ratio, torch.full_like(ratio, 1e-10), scale=1.0)
        assert float(ratio.abs().min()) > 5e-11


@pytest.mark.parametrize("engine", ON_POINTS)
def test_float64_is_not_downgraded_on_points(engine: str) -> None:
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


# ---- KeOps: each test holds all uses of one family of formulas, so nothing is compiled twice ----
# Two and three axes are tested in test_operators.py: two test processes then share the compiling.


@requires_compiler
def test_keops_one_axis_causal(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    check_keops_family(monkeypatch, 1, "causal", None)
    # The laws of the sum, by the formulas that are compiled by now.
    for law in (
        test_linear_on_points,
        test_shift_equivariant_on_points,
        test_blind_to_the_order_of_points,
        test_doubled_points_at_half_weight_change_nothing,
        test_adjoint_by_autograd,
    ):
        law("keops", 1, True)
    answers_as_a_fresh_layer("keops")
    captured = capfd.readouterr()
    assert captured.out == ""  # a library keeps quiet while it compiles


@requires_compiler
def test_keops_one_axis_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    check_keops_family(monkeypatch, 1, "plain", [])
    check_keops_family(monkeypatch, 1, "strided", [])
    check_keops_family(monkeypatch, 1, "periodic", [])
    test_gaussian_error_is_second_order_on_irregular_points("keops")
    test_float64_is_not_downgraded_on_points("keops")
    kernel, grid, _ = grid_case((31,), "plain", torch.float32)
    compare_keops(monkeypatch, kernel, seeded(1, 2, 31, dtype=torch.float32), grid, only=[])


@requires_compiler
def test_keops_magnet(monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = MAGNet(1, 2, hidden=3, layers=1, omega_0=0.5, spread=0.5)
    kernel = Kernel(generator, GaussianMask([1.0]), extent=[1.0]).to(torch.float64)
    source, query = Points(uniform(11, 1, high=3.0, seed=1)), Points(uniform(7, 1, high=3.0, seed=2))
    compare_keops(monkeypatch, kernel, seeded(11, 2), source, query, ["generator.gammas.0"])


@requires_compiler
def test_keops_four_axes(monkeypatch: pytest.MonkeyPatch) -> None:
    check_keops_family(monkeypatch, 4, "periodic", None)
    check_keops_family(monkeypatch, 4, "plain", [])
