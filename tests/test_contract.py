"""The contract of engines, generators and masks, held against all that are registered; and KeOps, by families."""

from __future__ import annotations

import math
from collections.abc import Iterable

import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.integrate
import torch
from contract_cases import (
    DTYPES,
    PAIR_MODES,
    Case,
    assert_within,
    check_keops_family,
    compare_keops,
    grid_case,
    name,
    pair_case,
    random_case,
    requires_compiler,
    seeded,
    uniform,
    white_noise_norm,
)
from contract_checks import Check
from contract_engines import (
    COMPILED,
    PAIRS,
    SIGMA,
    adjoint_by_autograd,
    blind_to_the_order_of_points,
    convolved,
    doubled_points_at_half_weight_change_nothing,
    gaussian,
    gaussian_convolved,
    gaussian_error_is_second_order_on_irregular_points,
    gaussian_kernel,
    is_out,
    keeps_float64,
    linear_on_points,
    series_of_any_length_in_any_order_answer_as_a_fresh_layer,
    serves_others,
    shift_equivariant_on_points,
)
from engine_contract import contract
from hypothesis import given
from tested_device import DEVICE, convolve, explain, make_plan

from ccnn_irregular import ENGINES, GaussianMask, Kernel, MAGNet, Points
from ccnn_irregular.quadrature import trapezoid
from ccnn_irregular.testing import TOLERANCES, assert_all_close, assert_close

EAGER = [engine for engine in ENGINES if engine not in COMPILED]
ON_POINTS = [engine for engine in EAGER if serves_others(engine)]


def by_id(checks: Iterable[tuple[str, Check]]) -> list[object]:
    return [pytest.param(part, check, id=f"{part}-{check}") for part, check in checks]


@pytest.mark.parametrize(("part", "check"), by_id(contract()))
def test_contract(part: str, check: Check) -> None:
    check(part)


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


# ---- what weights are for, and scipy's adaptive rule ----


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
    for engine in (*EAGER, "auto"):
        if engine != "auto" and is_out(engine, case):
            continue
        found = convolved(engine, case)
        error = case.rtol if engine == "auto" else ENGINES[engine].error(case.rtol)
        allowed = 2 * error * scale if error else rounding
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


@given(
    case=RANDOM_POINTS,
    engine=st.sampled_from(ON_POINTS),
    seed=st.integers(0, 10**6),
    scale=st.floats(-3, 3),
)
def test_laws_of_the_sum(case: Case, engine: str, seed: int, scale: float) -> None:
    """Linear, blind to the order of points, and doubled points at half the weight are the same points."""
    source, dtype = case.source, case.values.dtype
    assert isinstance(source, Points)
    base, other = convolved(engine, case), seeded(*case.values.shape, dtype=dtype, seed=seed)
    size = white_noise_norm(case.kernel, case.values.abs() + scale * other.abs(), case.source, case.query)
    rounding = 30 * TOLERANCES[dtype] * size

    # The approximate engine computes anew, with a smaller rtol, where values cancel: sums are equal up to its error.
    allowed = rounding + 4 * ENGINES[engine].error(case.rtol) * size
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


# ---- KeOps: each test holds all uses of one family of formulas, so nothing is compiled twice ----
# Two and three axes are tested in test_operators.py: two test processes then share the compiling.


@requires_compiler
def test_keops_one_axis_causal(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    check_keops_family(monkeypatch, 1, "causal", None)
    # The laws of the sum, by the formulas that are compiled by now.
    for law in (
        linear_on_points,
        shift_equivariant_on_points,
        blind_to_the_order_of_points,
        doubled_points_at_half_weight_change_nothing,
        adjoint_by_autograd,
    ):
        law("keops", 1, True)
    series_of_any_length_in_any_order_answer_as_a_fresh_layer("keops")
    captured = capfd.readouterr()
    assert captured.out == ""  # a library keeps quiet while it compiles


@requires_compiler
def test_keops_one_axis_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    check_keops_family(monkeypatch, 1, "plain", [])
    check_keops_family(monkeypatch, 1, "strided", [])
    check_keops_family(monkeypatch, 1, "periodic", [])
    gaussian_error_is_second_order_on_irregular_points("keops")
    keeps_float64("keops")
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
