"""The contract itself: a new engine gets all of it by being registered, and a broken one fails it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from contract_cases import seeded, small_kernel, uniform
from contract_checks import Check
from engine_contract import contract, engine_checks
from extending_page import followed
from torch import Tensor

from ccnn_irregular import Grid, Kernel, Points, convolve, explain, make_plan
from ccnn_irregular.domains import Domain
from ccnn_irregular.operators import ENGINES, Cost, Engine, Plan, Work, register, require_engine


@pytest.fixture
def dense() -> Iterator[type[Engine]]:
    """The engine of docs/extending.md, registered, and others that a test registers, until it is done."""
    with followed("A new engine", first=1) as names:
        yield names["DenseSum"]


def one_case_each(checks: list[Check]) -> list[Check]:
    """The last case of every check, which is seldom the simplest."""
    return list({check.function: check for check in checks}.values())


def broken(name: str) -> set[str]:
    """Names of the checks that an engine breaks in one case each."""
    found = set()
    for check in one_case_each(list(engine_checks(name))):
        try:
            check(name)
        except AssertionError:
            found.add(check.function.__name__)
    return found


def test_a_registered_engine_gets_every_check(dense: type[Engine]) -> None:
    checks = [check for name, check in contract() if name == "dense_sum"]
    for name in ("reference", "neighbours", "fft", "spectral"):
        assert {check for part, check in contract() if part == name} <= set(checks) | set(engine_checks(name))
    assert len(checks) == len([check for part, check in contract() if part == "reference"]) > 700
    for check in [*one_case_each(checks), *checks[::17]]:
        check("dense_sum")


class OffByOne:
    """Each result stands one node, or one point, farther on."""

    name = "off_by_one"

    def apply(self, kernel: Kernel, values: Tensor, plan: Plan) -> Tensor:
        result: Tensor = super().apply(kernel, values, plan)  # type: ignore[misc]
        return result.roll(1, dims=0 if result.ndim == 2 else -1)


class Zeros:
    """Zeros of the right shape."""

    name = "zeros"

    def apply(self, kernel: Kernel, values: Tensor, plan: Plan) -> Tensor:
        result: Tensor = super().apply(kernel, values, plan)  # type: ignore[misc]
        return result * 0.0


class Unweighted:
    """Forgets how much space a point stands for."""

    name = "unweighted"

    def apply(self, kernel: Kernel, values: Tensor, plan: Plan) -> Tensor:
        sources, queries = plan.geometry
        ones = Points(sources.coordinates, 0 * sources.weights + 1, sources.splits, periods=sources.periods)
        other = Plan(plan.runner, plan.source, plan.query, (ones, queries))
        return super().apply(kernel, values, other)  # type: ignore[misc]


class Single:
    """Computes in float32 whatever the values are."""

    name = "single"

    def apply(self, kernel: Kernel, values: Tensor, plan: Plan) -> Tensor:
        result: Tensor = super().apply(kernel, values, plan)  # type: ignore[misc]
        return result.float().to(result.dtype)


class Free:
    """Counts next to nothing, to win whatever the case."""

    name = "free"

    def cost(self, kernel: Kernel, source: Domain, query: Domain, batch: int, rtol: float) -> Cost:
        return Cost(Work(), Work(call=1), Work(call=1), 1.0)


class Nowhere:
    """Is out in every case."""

    name = "nowhere"

    def refuses(self, kernel: Kernel, source: Domain, query: Domain) -> str | None:
        return "today is not the day"


@pytest.mark.parametrize(
    ("wrong", "least"),
    [
        (OffByOne, {"agrees_on_grids", "agrees_between_points_grids_and_products", "equals_torch_convolution"}),
        (Zeros, {"agrees_on_grids", "agrees_between_points_grids_and_products", "equals_torch_convolution"}),
        (Unweighted, {"agrees_on_grids", "doubled_points_at_half_weight_change_nothing", "weighs_channels_apart"}),
        (Single, {"keeps_float64", "linear_on_points", "equals_torch_convolution"}),
        (Free, {"cost_is_counted_and_grows"}),
        (Nowhere, {"is_used_somewhere"}),
    ],
)
def test_a_broken_engine_fails(dense: type[Engine], wrong: type, least: set[str]) -> None:
    register(type(wrong.__name__, (wrong, dense), {})())
    assert least <= broken(wrong.name)


# ---- the registry ----


def test_names_of_engines_are_words_of_their_own(dense: type[Engine]) -> None:
    for name in ("", "Two Words", "Dense", 3, None, "auto"):
        with pytest.raises(ValueError, match="name must be a word in small letters to name an engine"):
            register(type("Other", (dense,), {"name": name})())
    with pytest.raises(ValueError, match=r"name must be another one for an engine: \[.*'fft'.*\] are taken, got 'fft'"):
        register(type("Other", (dense,), {"name": "fft"})())
    again = dense()
    assert register(again) is again is ENGINES["dense_sum"]  # a notebook's cell that runs twice


def test_unknown_names_are_refused_with_the_known_ones(dense: type[Engine]) -> None:
    require_engine("auto")
    require_engine("dense_sum")
    for name in ("quantum", "FFT", 3, None):
        with pytest.raises(ValueError, match=r"engine must be 'auto' or one of \['dense_sum', 'fft', .*\], got"):
            require_engine(name)


# ---- what it costs ----


def test_an_engine_cannot_state_seconds() -> None:
    with pytest.raises(ValueError, match=r"forward must be counted in operations, .*, got 1e-09"):
        Cost(Work(), 1e-9, Work(call=1), 1.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"forward must count the operations of a forward pass, got Work\(\)"):
        Cost(Work(), Work(), Work(), 1.0)
    with pytest.raises(ValueError, match=r"Work must count operations of \['call', .*\], got \['seconds'\]"):
        Work(seconds=1e-9)
    for count in (-1.0, math.nan):
        with pytest.raises(ValueError, match="Work must count no operation fewer than 0 times"):
            Work(call=count)


def test_works_add_up() -> None:
    total = (Work(call=2, fft=10) + Work(fft=5)) * 2
    assert total == Work(call=4, fft=30)
    assert repr(total) == "Work(call=4, fft=30)"
    rates = explain(small_kernel(1), Grid((4,), (1.0,))).rates
    assert rates.seconds(total) == pytest.approx(4 * rates.call + 30 * rates.fft)


def test_auto_takes_a_new_engine_where_it_is_cheapest(dense: type[Engine]) -> None:
    """By what it counts, at the same rates as all others."""
    kernel, few = small_kernel(2, masked=False), Points(uniform(40, 2))
    assert make_plan(kernel, few).engine == "dense_sum"
    assert "*dense_sum" in str(explain(kernel, few))
    values = seeded(40, 2)
    torch.testing.assert_close(convolve(kernel, values, few), convolve(kernel, values, few, engine="reference"))
    many = Grid((64, 64), (0.1, 0.1))
    assert make_plan(small_kernel(2), many).engine == "fft"


def test_reasons_are_said_in_the_words_of_the_call(dense: type[Engine]) -> None:
    register(type("Nowhere", (Nowhere, dense), {})())
    kernel, domain = small_kernel(1), Points(uniform(4, 1))
    message = (
        r"engine 'nowhere' cannot be used: today is not the day "
        r"\(from Points\(n=4, d=1, samples=1.*\) to Points\(.*\)\)\. engine='auto' takes one that can"
    )
    with pytest.raises(ValueError, match=message):
        convolve(kernel, seeded(4, 2), domain, engine="nowhere")
    assert "out: today is not the day" in str(explain(kernel, domain))
