"""Hard and bad input to the convolution: by every engine a correct answer or a clear error. See also test_checks.py."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from contract_cases import (
    KINDS,
    assert_within,
    dense,
    exists,
    pair_case,
    run,
    seeded,
    small_kernel,
    uniform,
    white_noise_norm,
)
from torch import Tensor

from ccnn_irregular import ENGINES, GaussianMask, Grid, Kernel, Points, Product, convolve, explain, make_plan
from ccnn_irregular.domains import Domain
from ccnn_irregular.operators.engines.engine import Cost
from ccnn_irregular.testing import assert_all_close, assert_close

ON_POINTS: tuple[str, ...] = ("reference", "neighbours", "spectral")
# Where there is no pair at all KeOps compiles nothing.
WITH_KEOPS: tuple[str, ...] = (*ON_POINTS, "keops")
RTOL = 1e-6


def check(engine: str, kernel: Kernel, values: Tensor, source: Points, query: Points) -> None:
    """Result and gradients are those of the sum written out."""
    expected = run(kernel, values, source, query, "equation")
    found = run(kernel, values, source, query, engine, rtol=RTOL)
    if engine == "spectral":
        assert_within(found, expected, RTOL, white_noise_norm(kernel, values, source, query))
    else:
        assert_all_close(found, expected, factor=10)


def leaf(*shape: int, seed: int = 0) -> Tensor:
    return seeded(*shape, seed=seed, requires_grad=True)


# ---- a correct answer ----


@pytest.mark.parametrize("engine", ON_POINTS)
def test_coordinates_outside_a_periodic_box_are_wrapped(engine: str) -> None:
    kernel, periods = small_kernel(2, width=(0.3, 0.2)), (2.0, None)
    places, query = uniform(12, 2, high=2.0, seed=1), Points(uniform(7, 2, high=2.0, seed=2), periods=periods)
    values = seeded(12, 2)
    results = [
        convolve(kernel, values, Points(places + shift, periods=periods), query, engine=engine, rtol=RTOL).detach()
        for shift in torch.tensor([[0.0, 0.0], [2.0, 0.0], [-34.0, 0.0], [2e6, 0.0]], dtype=torch.float64)
    ]
    assert bool(results[0].any())
    assert_close(results[1], results[0])
    assert_close(results[2], results[0])
    # 2e6 + x keeps ten digits of x.
    assert_close(results[3], results[0], factor=1e4)
    within = torch.remainder(places, torch.tensor([2.0, math.inf], dtype=torch.float64))
    assert bool((within[:, 0] < 2).all())
    check(engine, kernel, leaf(12, 2), Points(places + 4.0, periods=periods), Points(within + 4.0, periods=periods))


@pytest.mark.parametrize("engine", ["reference", "fft"])
def test_grid_that_starts_a_period_later_is_the_same(engine: str) -> None:
    kernel, values = small_kernel(1, width=(0.5,)), seeded(1, 2, 8)
    ring = Grid((8,), (0.5,), periodic=True)
    later = Grid((8,), (0.5,), (12.0,), periodic=True)
    expected = convolve(kernel, values, ring, engine=engine)
    assert_close(convolve(kernel, values, later, ring, engine=engine), expected)
    assert_close(convolve(kernel, values, ring, later, engine=engine), expected)


@pytest.mark.parametrize("engine", ON_POINTS)
def test_equal_points_all_count(engine: str) -> None:
    kernel, place = small_kernel(2, width=(0.4, 0.3)), torch.full((1, 2), 0.3, dtype=torch.float64)
    values, weights = seeded(5, 2), uniform(5, seed=1)
    found = convolve(kernel, values, Points(place.expand(5, 2), weights), Points(place), engine=engine, rtol=RTOL)
    expected = kernel(torch.zeros(1, 2, dtype=torch.float64)) * (values * weights[:, None]).sum(0)
    assert float((found - expected).detach().norm()) <= RTOL * float(expected.detach().norm())
    mixed = Points(torch.cat([place.expand(4, 2), uniform(8, 2, seed=3), place]))
    check(engine, kernel, leaf(13, 2), mixed, mixed)


@pytest.mark.parametrize("engine", ON_POINTS)
@pytest.mark.parametrize("d", [1, 2, 3])
def test_one_point(engine: str, d: int) -> None:
    kernel = small_kernel(d, width=(0.4,) * d)
    alone = Points(torch.full((1, d), -7.3, dtype=torch.float64), torch.tensor([0.5]))
    values = seeded(1, 2)
    found = convolve(kernel, values, alone, engine=engine, rtol=1e-4).detach()
    expected = kernel(torch.zeros(1, d, dtype=torch.float64)).detach() * values * 0.5
    assert float((found - expected).norm()) <= 2e-4 * float(expected.norm())


SHAPES = {"no sources": (0, 3), "no queries": (4, 0), "neither": (0, 0)}


@pytest.mark.parametrize("what", SHAPES)
@pytest.mark.parametrize("engine", WITH_KEOPS)
@pytest.mark.parametrize("period", [None, 4.0])
def test_empty_sets_of_points(engine: str, what: str, period: float | None) -> None:
    sources, queries = SHAPES[what]
    kernel = small_kernel(1, width=(0.4,))
    source = Points(uniform(sources, 1, seed=1).requires_grad_(), periods=[period])
    query = Points(uniform(queries, 1, seed=2).requires_grad_(), periods=[period])
    found = run(kernel, leaf(sources, 2), source, query, engine)
    assert found["output"].shape == (queries, 2)
    assert found["gradient of values"].shape == (sources, 2)
    assert found["gradient of source coordinates"].shape == (sources, 1)
    assert found["gradient of query coordinates"].shape == (queries, 1)
    assert not any(bool(one.any()) for one in found.values())


@pytest.mark.parametrize("what", SHAPES)
@pytest.mark.parametrize("engine", ["reference", "neighbours", "keops", "spectral"])
def test_empty_products_and_no_points_on_a_grid(engine: str, what: str) -> None:
    sources, queries = SHAPES[what]
    kernel, hours = small_kernel(2, width=(0.4, 0.6)), Grid((5,), (0.5,))
    source, query = Product(Points(uniform(sources, 1)), hours), Product(Points(uniform(queries, 1)), hours)
    values = leaf(sources, 2, 5)
    found = convolve(kernel, values, source, query, engine=engine)
    assert found.shape == (queries, 2, 5)
    (gradient,) = torch.autograd.grad(found.sum(), [values])
    assert not bool(found.any() or gradient.any())
    plane = Grid((3, 4), (0.5, 0.5))
    if not sources:
        onto = convolve(kernel, values[..., 0], Points(uniform(0, 2)), plane, engine=engine)
        assert onto.shape == (1, 2, 3, 4)
        assert not bool(onto.any())
    if not queries:
        onto = convolve(kernel, seeded(1, 2, 3, 4), plane, Points(uniform(0, 2)), engine=engine)
        assert onto.shape == (0, 2)


@pytest.mark.parametrize("lengths", [[0], [0, 0], [0, 4], [3, 0, 0, 2]])
@pytest.mark.parametrize("engine", ON_POINTS)
def test_empty_samples_give_zeros(engine: str, lengths: list[int]) -> None:
    count, kernel = sum(lengths), small_kernel(1, width=(0.8,))
    source = Points(uniform(count, 1), splits=torch.tensor([0, *lengths]).cumsum(0))
    query = Points(uniform(3 * len(lengths), 1), splits=torch.arange(len(lengths) + 1) * 3)
    values = leaf(count, 2)
    found = convolve(kernel, values, source, query, engine=engine, rtol=RTOL)
    empty = torch.tensor(lengths).repeat_interleave(3) == 0
    # An approximation leaks its error, no more, from one sample to the next.
    assert float(found[empty].detach().abs().sum()) <= (10 * RTOL if engine == "spectral" else 0)
    assert bool((found[~empty] != 0).all())
    (gradient,) = torch.autograd.grad(found.sum(), [values])
    assert gradient.shape == (count, 2)
    assert bool((gradient != 0).all())


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("engine", ON_POINTS)
def test_queries_far_from_all_points_get_nothing_and_cost_nothing(engine: str, d: int) -> None:
    kernel = small_kernel(d, width=(0.3,) * d)
    source = Points(uniform(20, d, seed=1))
    near, far = uniform(5, d, seed=2), uniform(5, d, seed=3) * 1e12 + 1e9
    query = Points(torch.cat([near, far, -far]))
    values = leaf(20, 2)
    cost = explain(kernel, source, query, rtol=1e-4).costs[engine]
    assert isinstance(cost, Cost)
    assert cost.bytes < 5e7
    found = convolve(kernel, values, source, query, engine=engine, rtol=1e-4)
    assert bool(found[:5].any())
    assert not bool(found[5:].any())
    nowhere = convolve(kernel, values, source, Points(far), engine=engine, rtol=1e-4)
    assert not bool(nowhere.any())
    (gradient,) = torch.autograd.grad(nowhere.sum(), [values])
    assert not bool(gradient.any())


@pytest.mark.parametrize("causal", [(), (0,)])
@pytest.mark.parametrize("engine", ON_POINTS)
def test_support_larger_than_the_domain(engine: str, causal: tuple[int, ...]) -> None:
    kernel = small_kernel(1, width=(10.0,), causal_axes=causal)
    source = Points(uniform(17, 1, seed=1), uniform(17, seed=2), torch.tensor([0, 12, 17]))
    check(engine, kernel, leaf(17, 2), source, source)


def test_causal_support_hundreds_of_times_the_domain_in_cells() -> None:
    kernel = small_kernel(1, width=(100.0,), causal_axes=(0,)).requires_grad_(False)
    source = Points(uniform(17, 1, seed=1), uniform(17, seed=2), torch.tensor([0, 12, 17]))
    check("spectral", kernel, seeded(17, 2), source, source)


@pytest.mark.parametrize("engine", ON_POINTS)
def test_points_on_a_line_in_space(engine: str) -> None:
    """A cloud without volume, and one whose extent along an axis is zero, are clouds."""
    kernel = small_kernel(2, width=(0.3, 0.2))
    flat = Points(torch.cat([uniform(15, 1, seed=1), torch.full((15, 1), 5.0, dtype=torch.float64)], 1))
    check(engine, kernel, leaf(15, 2), flat, flat)


# ---- a clear error ----


@pytest.mark.parametrize("engine", WITH_KEOPS)
@pytest.mark.parametrize("of", ["points", "product"])
def test_support_over_half_a_period(engine: str, of: str) -> None:
    wide = GaussianMask((0.5,) * (1 if of == "points" else 2))
    d = wide.d
    kernel = small_kernel(d, width=(0.5,) * d)
    points = Points(uniform(6, 1), periods=[2.0])
    source: Domain = points if of == "points" else Product(points, Grid((4,), (1.0,)))
    values = seeded(6, 2, *(() if of == "points" else (4,)))
    rule = r"kernel must have a support of at most half the period 2 on axis 0, got 1\.51"
    with pytest.raises(ValueError, match=rule):
        convolve(kernel, values, source, engine=engine)


@pytest.mark.parametrize("rtol", [0.0, 1.0, -1.0, 2.0, math.nan, math.inf])
@pytest.mark.parametrize("engine", ["auto", *ENGINES])
def test_rtol_out_of_range(engine: str, rtol: float) -> None:
    kernel, source = small_kernel(1), Points(uniform(6, 1))
    calls: tuple[Callable[[], object], ...] = (
        lambda: convolve(kernel, seeded(6, 2), source, engine=engine, rtol=rtol),
        lambda: make_plan(kernel, source, engine=engine, rtol=rtol),
        lambda: explain(kernel, source, rtol=rtol),
    )
    for call in calls:
        with pytest.raises(ValueError, match=rf"^rtol must lie between 0 and 1, got {rtol}$"):
            call()


@pytest.mark.parametrize(("dtype", "least"), [(torch.float32, "1e-05"), (torch.float64, "1e-08")])
def test_rtol_below_what_the_dtype_holds(dtype: torch.dtype, least: str) -> None:
    kernel, source, values = small_kernel(1, dtype=dtype), Points(uniform(6, 1)), seeded(6, 2, dtype=dtype)
    below = 0.99 * float(least)
    with pytest.raises(
        ValueError, match=rf"engine 'spectral' cannot be used: rtol {below:g} is below {least}, the least in {dtype}"
    ):
        convolve(kernel, values, source, engine="spectral", rtol=below)
    # All others are exact.
    assert make_plan(kernel, source, rtol=below).engine != "spectral"
    assert_close(convolve(kernel, values, source, rtol=below), dense(kernel, values, source, source))


DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.int64, torch.bool, torch.complex128)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("engine", ["auto", *WITH_KEOPS, "fft"])
def test_values_of_another_dtype(engine: str, dtype: torch.dtype) -> None:
    on_grid = engine == "fft"
    source: Domain = Grid((6,), (0.5,)) if on_grid else Points(uniform(6, 1))
    values = torch.ones(1, 2, 6).to(dtype) if on_grid else torch.ones(6, 2).to(dtype)
    with pytest.raises(ValueError, match=rf"values must have the kernel's dtype torch.float64, got {dtype}"):
        convolve(small_kernel(1), values, source, engine=engine)


def test_float64_values_of_a_float32_kernel() -> None:
    kernel, source = small_kernel(1, dtype=torch.float32), Points(uniform(6, 1))
    for engine in ("auto", *WITH_KEOPS):
        with pytest.raises(ValueError, match=r"values must have the kernel's dtype torch.float32, got torch.float64"):
            convolve(kernel, seeded(6, 2), source, engine=engine)  # type: ignore[arg-type]


@pytest.mark.parametrize("engine", ["auto", *WITH_KEOPS])
def test_mixed_devices(engine: str) -> None:
    kernel, source, values = small_kernel(1), Points(uniform(6, 1)), seeded(6, 2)
    with pytest.raises(ValueError, match=r"values must be on the kernel's device cpu, got meta"):
        convolve(kernel, values.to("meta"), source, engine=engine)
    elsewhere = small_kernel(1).to("meta")
    with pytest.raises(ValueError, match=r"kernel must have numbers: .*, got one on the meta device"):
        convolve(elsewhere, values, source, engine=engine)
    plan = make_plan(kernel, source, engine="reference")
    with pytest.raises(ValueError, match=r"kernel must have numbers: .*, got one on the meta device"):
        convolve(elsewhere, values, source, plan=plan)
    with pytest.raises(ValueError, match=r"kernel must have numbers: .*, got one on the meta device"):
        make_plan(elsewhere, source, engine=engine)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("engine", ["auto", *WITH_KEOPS])
def test_values_that_are_not_finite(engine: str, value: float) -> None:
    values = seeded(6, 2)
    values[4, 1] = value
    kind = "nan" if math.isnan(value) else "inf"
    with pytest.raises(ValueError, match=rf"values must be finite, got {kind} at rows \[4\] of 6"):
        convolve(small_kernel(1), values, Points(uniform(6, 1)), engine=engine)
    places = uniform(6, 1)
    places[2] = value
    with pytest.raises(ValueError, match=rf"coordinates must be finite, got {kind} at rows \[2\] of 6"):
        Points(places)


@pytest.mark.parametrize("kind", KINDS)
def test_values_of_another_shape(kind: str) -> None:
    d = next(d for d in (2, 3) if exists(kind, d))
    case = pair_case(kind, d, "plain", torch.float64)
    values = case.values.detach()
    wrong = [values[:, :1], values.repeat(1, 2, *(1,) * (values.ndim - 2)), values[0], values[None]]
    wrong += [values[..., :-1]] if values.ndim > 2 else [values[:-1]]
    for engine in WITH_KEOPS:
        plan = make_plan(case.kernel, case.source, case.query, engine=engine)
        for given in wrong:
            with pytest.raises(ValueError, match=r"values must have shape \("):
                convolve(case.kernel, given, case.source, case.query, plan=plan)


@pytest.mark.parametrize("engine", ["reference", "neighbours", "spectral"])
def test_plans_of_something_else(engine: str) -> None:
    kernel, values = small_kernel(1, width=(0.3,)), seeded(6, 2)
    source, other = Points(uniform(6, 1, seed=1)), Points(uniform(6, 1, seed=2))
    plan = make_plan(kernel, source, engine=engine)
    with pytest.raises(ValueError, match=r"plan must be made for this source, got Points\(n=6"):
        convolve(kernel, values, other, plan=plan)
    with pytest.raises(ValueError, match=r"plan must be made for this query, got Points\(n=6"):
        convolve(kernel, values, source, other, plan=plan)
    name = "neighbours" if engine == "reference" else "reference"
    with pytest.raises(ValueError, match=rf"plan must be made for engine '{name}', got '{engine}'"):
        convolve(kernel, values, source, engine=name, plan=plan)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"plan must have the kernel's 2 axes, got 1"):
        convolve(small_kernel(2), values, source, plan=plan)
    wider = small_kernel(1, width=(0.6,))
    if engine == "spectral":  # renews its plan
        found, expected = convolve(wider, values, source, plan=plan), dense(wider, values, source, source)
        assert float((found - expected).detach().norm()) < 1e-3 * float(expected.detach().norm())
    elif ENGINES[engine].plan_follows_kernel:
        rule = r"plan must be made anew when the kernel's support on axis 0 grows beyond 0\.91\d*, got 1\.8"
        with pytest.raises(ValueError, match=rule):
            convolve(wider, values, source, plan=plan)
    else:
        assert_close(convolve(wider, values, source, plan=plan), dense(wider, values, source, source))
