"""The measured error of a result: the exact sum at random queries, relative to the result's own size."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from contract_cases import KINDS, PAIR_MODES, equation, exists, pair_case, random_case, seeded, uniform
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ccnn_irregular import (
    ENGINES,
    SIREN,
    CheckReport,
    GaussianMask,
    Grid,
    Kernel,
    Points,
    Product,
    ToleranceError,
    convolve,
    make_plan,
)
from ccnn_irregular.operators import Plan, check
from ccnn_irregular.operators.check import worst_error


def sine_kernel(dtype: torch.dtype = torch.float64, shape: tuple[int, ...] = (1,)) -> Kernel:
    """sin(1.5 t) under a Gaussian mask of width 1: a kernel that NumPy can write down."""
    kernel = Kernel(SIREN(1, math.prod(shape), hidden=1, layers=1, omega_0=1.0), GaussianMask([1.0]), extent=[1.0])
    with torch.no_grad():
        kernel.generator.linears[0].weight.fill_(1.5)  # type: ignore[union-attr]
        kernel.generator.linears[0].bias.zero_()  # type: ignore[union-attr]
        kernel.generator.output.weight.fill_(1.0)
        kernel.generator.output.bias.zero_()
    return kernel.to(dtype)


def sine_by_numpy(lag: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    end = -math.log(0.01)
    left = np.maximum(end - lag**2 / 2, 0)
    mask = (np.exp(left) - 1 - left - left**2 / 2) / (math.exp(end) - 1 - end - end**2 / 2)
    return np.sin(1.5 * lag) * mask


def spoiled(plan: Plan, error: Tensor) -> Plan:
    """The plan with an engine that adds ``error`` to its results."""
    runner = copy.copy(plan.runner)
    right = runner.apply
    runner.apply = lambda kernel, values, plan: right(kernel, values, plan) + error  # type: ignore[method-assign]
    return replace(plan, runner=runner)


def by_hand(result: Tensor, exact: Tensor, splits: list[int]) -> float:
    """The promised measure on points, sample by sample in NumPy."""
    worst = 0.0
    for first, last in itertools.pairwise(splits):
        own = exact[first:last].detach().double().numpy()
        if len(own):
            error = np.abs(result[first:last].detach().double().numpy() - own) / np.abs(own).max(0)
            worst = max(worst, float(error.max()))
    return worst


# ---- the measure ----


def test_error_is_relative_to_its_own_sample_and_channel() -> None:
    exact = torch.tensor([[1.0, 2e6], [-1.0, 2e6], [3e9, 0.0], [4e9, 0.0]], dtype=torch.float64)
    points = Points(uniform(4, 1), splits=torch.tensor([0, 2, 2, 4]))
    change = torch.zeros_like(exact)
    change[1, 0] = 0.25
    assert worst_error(exact + change, exact, points, points) == 0.25
    change[3, 0] = 1e9
    assert worst_error(exact + change, exact, points, points) == 0.25
    assert worst_error(exact, exact, points, points) == 0
    change[2, 1] = 1e-30  # where nothing is right but zero
    assert worst_error(exact + change, exact, points, points) == math.inf
    assert worst_error(exact * math.nan, exact, points, points) == math.inf


def test_entries_on_grids_are_samples() -> None:
    grid = Grid((3, 2), (1.0, 1.0))
    exact = torch.ones(2, 1, 3, 2, dtype=torch.float64) * torch.tensor([1.0, 1e6])[:, None, None, None]
    change = torch.zeros_like(exact)
    change[0, 0, 2, 1] = 0.5
    assert worst_error(exact + change, exact, grid, grid) == 0.5
    product = Product(Points(uniform(2, 1), splits=torch.tensor([0, 1, 2])), grid)
    assert worst_error(exact + change, exact, product, product) == 0.5


# ---- the exact sum at random queries ----


@pytest.mark.parametrize("mode", PAIR_MODES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(2,), (3, 2)], ids=["depthwise", "full"])
def test_the_error_at_all_queries_is_that_of_the_equation(kind: str, mode: str, shape: tuple[int, ...]) -> None:
    case = pair_case(kind, next(d for d in (2, 3) if exists(kind, d)), mode, torch.float64, shape=shape)
    exact = equation(case.kernel, case.values, case.source, case.query).detach()
    plan = make_plan(case.kernel, case.source, case.query, engine="reference")
    count = 10**6
    assert plan.check(case.kernel, case.values, exact, n=count).error < 1e-9
    noise = seeded(*exact.shape, seed=5) * exact.abs().mean()
    with pytest.raises(ToleranceError) as raised:
        plan.check(case.kernel, case.values, exact + noise, n=count)
    assert raised.value.error == pytest.approx(worst_error(exact + noise, exact, case.source, case.query), rel=1e-6)


@pytest.mark.parametrize("d", [1, 2])
def test_grids_are_checked_in_every_entry(d: int) -> None:
    grid, kernel = (
        Grid((9, 5)[:d], (0.5, 0.7)[:d], periodic=d == 2),
        Kernel(SIREN(d, 6, 4), GaussianMask([0.3] * d), extent=[1.0] * d, shape=(2, 3)).double(),
    )
    values = seeded(4, 3, *grid.sizes) * torch.tensor([1.0, 1e-6, 1e6, 0.0]).reshape(4, *(1,) * (d + 1))
    plan = make_plan(kernel, grid, engine="fft")
    result = convolve(kernel, values, grid, plan=plan)
    exact = equation(kernel, values, grid, grid)
    report = plan.check(kernel, values, result, n=1000)
    assert report.queries == grid.count
    assert report.error == pytest.approx(worst_error(result, exact, grid, grid), rel=0.5)
    assert report.error < 1e-9
    changed = result.detach().clone()
    changed[1, 1].flatten()[7] += 0.1 * float(exact[1, 1].detach().abs().max())
    with pytest.raises(ToleranceError) as raised:
        plan.check(kernel, values, changed, n=1000)
    assert raised.value.error == pytest.approx(0.1)
    assert (raised.value.report.sample, raised.value.report.channel) == (1, 1)
    assert raised.value.report.place == pytest.approx(grid.nodes()[7].tolist())


@given(seed=st.integers(0, 10**6), n=st.integers(1, 300), engine=st.sampled_from(["spectral", "neighbours"]))
def test_what_is_measured_on_random_cases(seed: int, n: int, engine: Any) -> None:
    case = random_case(seed, finest=1e-3)
    if isinstance(ENGINES[engine].assess(case.kernel, case.source, case.query, 1, case.rtol), str):
        return
    plan = make_plan(case.kernel, case.source, case.query, engine=engine, rtol=case.rtol)
    result = convolve(case.kernel, case.values, case.source, case.query, plan=plan)
    exact = equation(case.kernel.double(), case.values.double(), case.source, case.query)
    right = worst_error(result, exact, case.source, case.query)
    kernel = case.kernel.to(case.values.dtype)
    assert measured(plan, kernel, case.values, result, n=10**6).error == pytest.approx(right, rel=1e-3, abs=1e-5)
    assert measured(plan, kernel, case.values, result, n=n).queries == min(n, case.query.count)


def measured(plan: Plan, kernel: Kernel, values: Tensor, result: Tensor, n: int) -> CheckReport:
    """What a check finds, be it good or bad."""
    try:
        return plan.check(kernel, values, result, n=n)
    except ToleranceError as raised:
        return raised.report


def test_the_sum_is_numpys_and_the_float32_kernels_own() -> None:
    places, targets = np.sort(uniform(4000, 1, high=100.0).numpy(), axis=0), np.linspace(10, 90, 300)[:, None]
    field = 288 + 0.5 * np.sin(0.7 * places)
    right = sine_by_numpy(targets - places[:, 0]) @ field
    source, query = Points(torch.from_numpy(places)), Points(torch.from_numpy(targets))
    for dtype, rounding in ((torch.float64, 1e-12), (torch.float32, 1e-4)):
        kernel, values = sine_kernel(dtype), torch.from_numpy(field).to(dtype)
        plan = make_plan(kernel, source, query, engine="reference")
        assert plan.check(kernel, values, torch.from_numpy(right), n=300).error < rounding


# ---- what comes of it ----


def ragged() -> tuple[Kernel, Tensor, Points, Points]:
    source = Points(uniform(900, 1, high=20.0), splits=torch.tensor([0, 400, 400, 900]))
    query = Points(uniform(500, 1, high=20.0, seed=1), splits=torch.tensor([0, 490, 490, 500]))
    values = seeded(900, 1)
    values[:400] *= 1e6
    return sine_kernel(), values, source, query


@pytest.mark.parametrize("n", [1, 10, 64])
def test_a_spoiled_sample_is_seen_beside_a_larger_one(n: int) -> None:
    kernel, values, source, query = ragged()
    plan = make_plan(kernel, source, query, engine="reference", rtol=1e-2)
    exact = equation(kernel, values, source, query)
    leak = torch.zeros_like(exact)
    leak[490:] = 0.05 * exact[490:].abs().max()  # 1e-8 of the first sample's size
    bad = spoiled(plan, leak)
    seen = 0
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        try:
            report = bad.check(kernel, values, n=n, generator=generator)
        except ToleranceError as raised:
            report, seen = raised.report, seen + 1
            assert report.error == pytest.approx(0.05, rel=0.1)
            assert (report.sample, report.channel) == (2, 0)
            assert report.place[0] in query.coordinates[490:, 0].tolist()
        assert report.queries == n
    assert seen == 4 or n == 1  # the ten queries of the last sample are half of any ten


@pytest.mark.parametrize("factor", [1.3, 40.0, 1e9, math.nan, math.inf])
def test_an_error_of_any_size_is_measured(factor: float) -> None:
    kernel, values, source, query = ragged()
    plan = make_plan(kernel, source, query, engine="neighbours")
    exact = equation(kernel, values, source, query)
    size = torch.ones_like(exact) * exact[490:].abs().max()
    size[:490] = exact[:490].abs().max()
    signs = torch.where(seeded(500, 1, seed=7) > 0, 1.0, -1.0)
    with pytest.raises(ToleranceError, match=r"engine 'neighbours': error .* allowed 0\.001") as raised:
        spoiled(plan, factor * size * signs).check(kernel, values, n=500)
    assert raised.value.rtol == 1e-3
    assert raised.value.error == (pytest.approx(factor, rel=1e-6) if math.isfinite(factor) else math.inf)
    assert raised.value.report.engine == "neighbours"


def test_convolve_checks_and_raises_with_both_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, values, source, query = ragged()
    right = convolve(kernel, values, source, query, engine="reference")
    assert torch.equal(convolve(kernel, values, source, query, engine="reference", check=20), right)
    engine = type(ENGINES["reference"])
    apply = engine.apply
    monkeypatch.setattr(engine, "apply", lambda self, *given: 1.2 * apply(self, *given))
    with pytest.raises(ToleranceError, match=r"allowed 0\.05.*smaller rtol") as raised:
        convolve(kernel, values, source, query, engine="reference", rtol=0.05, check=500)
    size = by_hand(1.2 * right, right, query.splits.tolist())
    assert raised.value.error == pytest.approx(size)
    convolve(kernel, values, source, query, engine="reference")  # unchecked


def test_spectral_is_measured_as_numpy_measures_it() -> None:
    source, query = Points(uniform(3000, 1, high=60.0)), Points(uniform(400, 1, high=60.0, seed=1))
    kernel, values = sine_kernel(), seeded(3000, 1)
    right = sine_by_numpy(query.coordinates.numpy() - source.coordinates.numpy()[:, 0]) @ values.numpy()
    plan = make_plan(kernel, source, query, engine="spectral", rtol=1e-3)
    result = convolve(kernel, values, source, query, plan=plan)
    report = plan.check(kernel, values, result, n=400, rtol=0.5)
    assert report.error == pytest.approx(by_hand(result, torch.from_numpy(right), [0, 400]), rel=1e-6)
    with pytest.raises(ToleranceError):
        plan.check(kernel, values, result, n=400, rtol=report.error / 2)


def test_draws_are_the_generators_and_spend_no_seed() -> None:
    kernel, values, source, query = ragged()
    plan = make_plan(kernel, source, query, engine="neighbours")
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    reports = [plan.check(kernel, values, n=3, generator=torch.Generator().manual_seed(1)) for _ in range(2)]
    assert reports[0] == reports[1]
    assert len({plan.check(kernel, values, n=3) for _ in range(5)}) > 1
    assert torch.equal(torch.rand(2), expected)


def test_a_check_changes_nothing() -> None:
    kernel, values, source, query = ragged()
    torch.nn.utils.parametrizations.weight_norm(kernel.generator.output)
    kernel = kernel.float()
    values = values.float().requires_grad_()
    before = copy.deepcopy(kernel.state_dict())
    result = convolve(kernel, values, source, query, engine="reference", check=5)
    result.sum().backward()
    plain = convolve(kernel, values, source, query, engine="reference")
    assert torch.equal(result, plain)
    assert values.grad is not None
    assert all(torch.equal(one, before[name]) for name, one in kernel.state_dict().items())
    assert kernel.dtype == torch.float32


def test_nan_of_weight_zero_is_not_read() -> None:
    source = Points(uniform(30, 1, high=4.0), weights=(torch.arange(30) % 3 != 0).double())
    values = seeded(30, 1)
    values[::3] = math.nan
    assert make_plan(sine_kernel(), source, engine="neighbours").check(sine_kernel(), values).error < 1e-12


@pytest.mark.parametrize("unit", [1e-30, 1e-170, 1e160])
def test_units_do_not_matter(unit: float) -> None:
    kernel, values, source, query = ragged()
    plan = make_plan(kernel, source, query, engine="reference")
    assert plan.check(kernel, values * unit).error < 1e-10


def test_nothing_to_check() -> None:
    kernel, some, none = sine_kernel(), Points(uniform(3, 1)), Points(uniform(0, 1))
    report = make_plan(kernel, some, none, engine="reference").check(kernel, seeded(3, 1))
    assert report == CheckReport("reference", 1e-3, 0, 0.0, None, None, ())
    assert "no query" in str(report)
    assert make_plan(kernel, none, some, engine="reference").check(kernel, seeded(0, 1)).error == 0


def test_many_entries_and_channels_are_summed_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, values, source, query = ragged()
    plan = make_plan(kernel, source, query, engine="reference")
    result = plan.convolve(kernel, values)
    whole = plan.check(kernel, values, result, n=100, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(check, "_NUMBERS_PER_BLOCK", 321)
    parts = plan.check(kernel, values, result, n=100, generator=torch.Generator().manual_seed(0))
    assert parts.error == pytest.approx(whole.error, abs=1e-14)


def test_bad_counts_and_tolerances() -> None:
    kernel, values, source, query = ragged()
    plan = make_plan(kernel, source, query)
    for n in (0, -1, 2.5, True):
        with pytest.raises(ValueError, match=r"n must be a number of queries, an integer of at least 1, got"):
            plan.check(kernel, values, n=n)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"check must be a number of queries"):
            convolve(kernel, values, source, query, check=n)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"rtol must lie between 0 and 1"):
        plan.check(kernel, values, rtol=0.0)
    with pytest.raises(ValueError, match=r"result must have shape \(500, 1\), got \(499, 1\)"):
        plan.check(kernel, values, values[:499])
    grid = Grid((5,), (1.0,))
    with pytest.raises(ValueError, match=r"result must have shape \(2, 1, 5\), got \(3, 1, 5\)"):
        make_plan(kernel, grid).check(kernel, seeded(2, 1, 5), seeded(3, 1, 5))


def test_the_error_can_be_sent_between_processes() -> None:
    error = ToleranceError(CheckReport("fft", 1e-3, 5, 0.5, 1, 2, (0.25,)))
    again = pickle.loads(pickle.dumps(error))
    assert (again.report, str(again)) == (error.report, str(error))
