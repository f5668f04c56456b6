"""Samples, plans, the choice of engine, and KeOps with and without a compiler."""

from __future__ import annotations

import warnings

import pytest
import torch
from contract_cases import (
    SIZES,
    check_keops_family,
    compare_keops,
    dense,
    requires_compiler,
    run,
    run_keops,
    seeded,
    small_kernel,
    uniform,
)
from tested_device import DEVICE, convolve, explain, make_plan
from torch import Tensor

from ccnn_irregular import ENGINES, SIREN, ContinuousConv, GaussianMask, Grid, Kernel, Points, Product, Solver
from ccnn_irregular.operators.engines import keops, reference
from ccnn_irregular.operators.engines.engine import Cost
from ccnn_irregular.operators.planning.rates import DEFAULT_RATES
from ccnn_irregular.testing import assert_all_close, assert_close


def ragged(lengths: list[int], d: int = 1, *, seed: int = 1, high: float = 2.0, weighted: bool = True) -> Points:
    """Points of random places and weights, ``lengths`` of them in each sample."""
    count = sum(lengths)
    weights = uniform(count, low=0.2, seed=seed + 1) if weighted else None
    return Points(uniform(count, d, high=high, seed=seed), weights, torch.tensor([0, *lengths]).cumsum(0))


def sample(points: Points, number: int, *, grad: bool = False) -> Points:
    """One sample of a ragged batch on its own."""
    first, last = points.splits[number : number + 2].tolist()
    return Points(points.coordinates[first:last].detach().clone().requires_grad_(grad), points.weights[first:last])


# ---- ragged batches ----


@pytest.mark.parametrize("shape", [(2,), (3, 2)], ids=["depthwise", "full"])
@pytest.mark.parametrize("d", [1, 3])
def test_samples_are_blind_to_each_other(d: int, shape: tuple[int, ...]) -> None:
    lengths, query_lengths = [3, 0, 5, 1, 4, 0], [2, 3, 0, 4, 1, 2]
    source, query = ragged(lengths, d), ragged(query_lengths, d, seed=5)
    source.coordinates.requires_grad_()
    query.coordinates.requires_grad_()
    kernel = small_kernel(d, width=(0.8,) * d, shape=shape)
    values = seeded(13, 2, requires_grad=True)
    whole = run(kernel, values, source, query, "reference")
    assert_close(whole["output"], dense(kernel, values, source, query))
    cotangent = seeded(*whole["output"].shape, seed=99)
    parameters = list(kernel.parameters())
    totals = [torch.zeros_like(one) for one in parameters]
    for number in range(6):
        rows = slice(*source.splits[number : number + 2].tolist())
        wanted = slice(*query.splits[number : number + 2].tolist())
        own_values = values[rows].detach().clone().requires_grad_()
        own, own_query = sample(source, number, grad=True), sample(query, number, grad=True)
        output = convolve(kernel, own_values, own, own_query, engine="reference")
        assert torch.equal(output, whole["output"][wanted])
        if len(own_values) == 0:
            assert not output.any()
            assert not whole["gradient of query coordinates"][wanted].any()
            continue
        if len(output) == 0:
            assert not whole["gradient of values"][rows].any()
            assert not whole["gradient of source coordinates"][rows].any()
            continue
        leaves = [own_values, own.coordinates, own_query.coordinates, *parameters]
        gradients = torch.autograd.grad(output, leaves, cotangent[wanted])
        assert_close(gradients[0], whole["gradient of values"][rows])
        assert_close(gradients[1], whole["gradient of source coordinates"][rows])
        assert_close(gradients[2], whole["gradient of query coordinates"][wanted])
        totals = [total + one for total, one in zip(totals, gradients[3:], strict=True)]
    for (key, _), total in zip(kernel.named_parameters(), totals, strict=True):
        assert_close(total, whole[f"gradient of {key}"], factor=10, name=key)


def test_changing_one_sample_changes_no_other() -> None:
    source, kernel, values = ragged([4, 6, 5]), small_kernel(1), seeded(15, 2)
    before = convolve(kernel, values, source, engine="reference")
    changed = values.clone()
    changed[4:10] = 1e6
    after = convolve(kernel, changed, source, engine="reference")
    assert torch.equal(after[:4], before[:4])
    assert torch.equal(after[10:], before[10:])
    assert bool((after[4:10] != before[4:10]).all())


@pytest.mark.parametrize("lengths", [[0, 4], [4, 0], [3, 0, 0, 2], [0, 0], [0]])
def test_empty_samples_give_zeros_plus_bias(lengths: list[int]) -> None:
    count = sum(lengths)
    layer = ContinuousConv(small_kernel(1), solver=Solver("reference")).to(torch.float64)
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([0.5, -2.0]))
    source, query = ragged(lengths), ragged([3] * len(lengths), seed=4)
    values = seeded(count, 2, requires_grad=True)
    output = layer(values, source, query)
    assert output.shape == (3 * len(lengths), 2)
    for number, length in enumerate(lengths):
        rows = output[3 * number : 3 * number + 3].detach()
        if length == 0:
            assert rows.tolist() == [[0.5, -2.0]] * 3
        else:
            assert bool((rows != torch.tensor([0.5, -2.0])).all())
    output.square().sum().backward()
    assert values.grad is not None
    assert values.grad.shape == (count, 2)
    assert bool((values.grad != 0).all())
    assert bool(torch.isfinite(layer.bias.grad).all())


@pytest.mark.parametrize("budget", [1, 7, 30])
def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch, budget: int) -> None:
    """However few pairs fit one block, one query row at the least, and whatever is recomputed for gradients."""
    source, query, kernel = ragged([3, 0, 9, 4]), ragged([5, 2, 0, 6], seed=5), small_kernel(1)
    source.coordinates.requires_grad_()
    values = seeded(16, 2, requires_grad=True)
    whole = run(kernel, values, source, query, "reference")
    blocks = len(list(make_plan(kernel, source, query, engine="reference").geometry.blocks()))
    monkeypatch.setattr(reference, "_PAIRS_PER_BLOCK", budget)
    monkeypatch.setattr(reference, "_TIMES_ON_GPUS", 1)
    finer = len(list(make_plan(kernel, source, query, engine="reference").geometry.blocks()))
    assert blocks == 1 < finer
    assert_all_close(run(kernel, values, source, query, "reference"), whole)


# ---- channels observed at different times ----


def test_unobserved_nan_never_leaks() -> None:
    count = 12
    observed = uniform(count, 2, seed=3) < 0.6
    weights = torch.where(observed, uniform(count, 2, low=0.2, seed=4), 0.0)
    positions, kernel = uniform(count, 1, high=3.0, seed=1), small_kernel(1, shape=(3, 2))
    clean = torch.where(observed, seeded(count, 2), 0.0)
    results = []
    for filler in (0.0, float("nan"), float("inf"), 1e30):
        values = torch.where(observed, clean, filler).requires_grad_()
        leaf = weights.clone().requires_grad_()
        coordinates = positions.clone().requires_grad_()
        result = run(kernel, values, Points(coordinates, leaf), None, "reference")
        assert not result["gradient of values"][~observed].any()
        assert bool((result["gradient of values"][observed] != 0).all())
        results.append(result)
    same = torch.equal if DEVICE.type == "cpu" else torch.allclose  # a GPU adds up gradients in any order
    for other in results[1:]:
        for key, one in results[0].items():
            assert same(other[key], one), key


def test_channels_equal_their_own_points() -> None:
    """Each channel of a depthwise kernel is convolved over its own observations alone."""
    count = 20
    observed = uniform(count, 2, seed=3) < 0.5
    weights = torch.where(observed, uniform(count, 2, low=0.2, seed=4), 0.0)
    positions, values, kernel = uniform(count, 1, high=3.0, seed=1), seeded(count, 2), small_kernel(1)
    query = Points(uniform(5, 1, high=3.0, seed=6))
    together = convolve(kernel, values, Points(positions, weights), query, engine="reference")
    for channel in range(2):
        seen = observed[:, channel]
        own = Points(positions[seen], weights[seen, channel])
        alone = convolve(kernel, values[seen], own, query, engine="reference")[:, channel]
        assert_close(together[:, channel], alone)


# ---- plans and the choice of engine ----


@pytest.mark.parametrize("engine", ["reference", "fft"])
def test_plan_serves_many_kernels_and_values(engine: str) -> None:
    source, query = Grid((9, 4), (0.5, 0.7)), Grid((5, 4), (1.0, 0.7), (0.2, 0.1))
    plan = make_plan(small_kernel(2), source, query, engine=engine)
    assert (plan.engine, plan.source, plan.query) == (engine, source, query)
    for seed in range(3):
        kernel = small_kernel(2, width=(0.3 + seed, 0.4), shape=(3, 2), seed=seed)
        values = seeded(1 + seed, 2, 9, 4, seed=seed)
        expected = convolve(kernel, values, source, query, engine=engine)
        assert torch.equal(convolve(kernel, values, source, query, plan=plan), expected)
        assert torch.equal(convolve(kernel, values, Grid((9, 4), (0.5, 0.7)), plan.query, plan=plan), expected)


def test_auto_takes_the_fft_on_grids_and_an_engine_that_suits_elsewhere() -> None:
    grid, kernel, values = Grid((9,), (0.5,)), small_kernel(1), seeded(1, 2, 9)
    assert make_plan(kernel, grid).engine == "fft"
    assert torch.equal(convolve(kernel, values, grid), convolve(kernel, values, grid, engine="fft"))
    unrelated = Grid((9,), (0.5 * 2**0.5,))
    assert make_plan(kernel, grid, unrelated).engine != "fft"
    product = Product(ragged([3]), grid)
    plan = make_plan(small_kernel(2), product)
    assert isinstance(ENGINES[plan.engine].assess(small_kernel(2), product, product, 1, 1e-3), Cost)


def test_explain_prints_every_engine() -> None:
    on_grid = explain(small_kernel(1), Grid((9,), (0.5,)), batch=4)
    assert on_grid.choice == "fft"
    assert set(on_grid.costs) == set(ENGINES)
    lines = str(on_grid).splitlines()
    assert lines[0].split() == ["engine", "plan", "forward", "backward", "memory", "error", "note"]
    assert [line for line in lines if line.startswith("*fft")]
    for name in ENGINES:
        assert any(line[1:].startswith(name) for line in lines)
    on_points = explain(small_kernel(1), ragged([5, 6]))
    assert on_points.choice != "fft"
    assert on_points.costs["fft"] == "both domains must be grids"
    assert "out: both domains must be grids" in str(on_points)


def test_predicted_cost_grows_with_the_work() -> None:
    kernel = small_kernel(1)
    for name, small, large in (
        ("reference", ragged([50]), ragged([500])),
        ("keops", ragged([5000]), ragged([50000])),
        ("fft", Grid((100,), (1.0,)), Grid((10000,), (1.0,))),
    ):
        few, many = (ENGINES[name].assess(kernel, domain, domain, 1, 1e-3) for domain in (small, large))
        assert isinstance(few, Cost)
        assert isinstance(many, Cost)
        assert 0 < few.seconds(DEFAULT_RATES) < many.seconds(DEFAULT_RATES)
        assert 0 < few.bytes < many.bytes


# ---- KeOps ----


def test_no_compiler_means_the_reference_and_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keops, "compiler", lambda: None)
    keops._warn_no_compiler.cache_clear()
    source, query, kernel = ragged([4, 0, 5]), ragged([3, 2, 1], seed=5), small_kernel(1)
    source.coordinates.requires_grad_()
    values = seeded(9, 2, requires_grad=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        explanation = str(explain(kernel, source, query))
        assert caught == []  # explaining is no use
        results = [run(kernel, values, source, query, "keops") for _ in range(3)]
    assert [one.category for one in caught] == [RuntimeWarning]
    assert "no C++ compiler found" in str(caught[0].message)
    assert "runs as the blocked reference sum" in str(caught[0].message)
    expected = run(kernel, values, source, query, "reference")
    for result in results:
        for key, one in expected.items():
            assert torch.equal(result[key], one), key
    (line,) = [line for line in explanation.splitlines() if line[1:].startswith("keops")]
    assert "no C++ compiler found" in line


def test_no_compiler_is_one_warning_in_the_whole_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also between layers, domains and dtypes."""
    monkeypatch.setattr(keops, "compiler", lambda: None)
    keops._warn_no_compiler.cache_clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for dtype in (torch.float64, torch.float32):
            kernel = small_kernel(2, dtype=dtype)
            for source in (Grid((3, 4), (0.5, 0.7)), ragged([5], 2)):
                shape = (1, 2, 3, 4) if isinstance(source, Grid) else (5, 2)
                convolve(kernel, seeded(*shape, dtype=dtype), source, engine="keops")
    assert len(caught) == 1


def test_compiler_is_looked_up_where_keops_looks(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert keops.compiler() is None
    mine = tmp_path / "mine"  # type: ignore[operator]
    mine.write_text("#!/bin/sh\n")
    mine.chmod(0o755)
    monkeypatch.setenv("CXX", str(mine))
    assert keops.compiler() == str(mine)


@requires_compiler
def test_keops_two_axes(monkeypatch: pytest.MonkeyPatch) -> None:
    check_keops_family(monkeypatch, 2, "plain", None)
    check_keops_family(monkeypatch, 2, "strided", [])
    check_keops_family(monkeypatch, 2, "periodic", [])
    check_keops_family(monkeypatch, 2, "causal", [])
    # Far from the origin float32 coordinates would be noise, were they not centred.
    kernel = small_kernel(2, dtype=torch.float32)
    positions = uniform(12, 2, high=2.0, seed=1)
    values = seeded(12, 2, dtype=torch.float32)
    here = run(kernel, values, Points(positions), None, "reference", [])["output"]
    far = run_keops(monkeypatch, kernel, values, Points(positions + 2.0**22), None, [])["output"]
    assert_close(far, here)


@requires_compiler
def test_keops_full_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = small_kernel(2, shape=(3, 2))
    source, query = ragged([9], 2), ragged([7], 2, seed=5)
    values = seeded(9, 2, requires_grad=True)
    only = ["values", "generator._output.weight"]
    compare_keops(monkeypatch, kernel, values, source, query, only)
    compare_keops(monkeypatch, kernel, seeded(1, 2, 4, 3, requires_grad=True), Grid((4, 3), (0.5, 0.7)), None, only)


@requires_compiler
def test_keops_three_axes(monkeypatch: pytest.MonkeyPatch) -> None:
    check_keops_family(monkeypatch, 3, "periodic", None)
    check_keops_family(monkeypatch, 3, "plain", [])


@requires_compiler
def test_keops_ragged_and_batched(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = small_kernel(1, width=(0.8,))
    only = ["values", "generator._output.weight", "source coordinates", "query coordinates"]

    def case(lengths: list[int], query_lengths: list[int]) -> tuple[Tensor, Points, Points]:
        source, query = ragged(lengths), ragged(query_lengths, seed=5)
        source.coordinates.requires_grad_()
        query.coordinates.requires_grad_()
        return seeded(sum(lengths), 2, requires_grad=True), source, query

    for lengths, query_lengths in (
        ([3, 0, 4, 2], [2, 2, 0, 3]),
        ([0, 3, 0, 0], [2, 2, 3, 0]),
        ([1, 0], [1, 0]),
        ([1, 0], [1, 1]),
        ([5] * 20, [4] * 20),
    ):
        values, source, query = case(lengths, query_lengths)
        compare_keops(monkeypatch, kernel, values, source, query, only)
    # No pair at all: nothing to compile, zeros, and zero gradients.
    values, source, query = case([1, 0], [0, 1])
    nothing = run(kernel, values, source, query, "keops", only)
    assert nothing["output"].shape == (1, 2)
    assert not any(one.any() for one in nothing.values())
    values, source, query = case([3, 0, 4, 2], [1] * 4)
    compare_keops(monkeypatch, kernel, values, source, Grid((4,), (0.5,)), only[:3])
    # Entries of a grid share its geometry; by KeOps they run through the same formulas.
    for sizes in SIZES[1]:
        entries = seeded(3, 2, *sizes, requires_grad=True)
        compare_keops(monkeypatch, kernel, entries, Grid(sizes, (0.5,)), Grid((3,), (0.75,)), only[:2])
        compare_keops(monkeypatch, kernel, entries, Grid(sizes, (0.5,)), None, only[:2])
    # What was not observed is never read.
    observed = Points(uniform(6, 1, seed=1), torch.tensor([[0.0, 1.0]] * 6), torch.tensor([0, 4, 6]))
    values = seeded(6, 2)
    values[:, 0] = float("nan")
    result = run_keops(monkeypatch, kernel, values, observed, None, [])["output"]
    assert not result[:, 0].any()
    assert bool(result[:, 1].all())


@pytest.mark.parametrize("start", [-1e6, 1e6])
@pytest.mark.parametrize("mask", [True, False])
def test_fft_to_a_grid_far_away_costs_no_more_than_the_grids(start: float, mask: bool) -> None:
    torch.manual_seed(0)
    kernel = Kernel(SIREN(1, 2, 4), GaussianMask([2.0]) if mask else None, extent=[4.0]).double()
    source, query = Grid([8], [1.0]), Grid([6], [1.0], [start])
    values = torch.randn(1, 2, 8, dtype=torch.float64)
    cost = ENGINES["fft"].assess(kernel, source, query, 1, 1e-3)
    assert isinstance(cost, Cost)
    assert cost.bytes < 1e5
    result = convolve(kernel, values, source, query, engine="fft").detach()
    expected = convolve(kernel, values, source, query, engine="reference").detach()
    assert bool((expected == 0).all()) == mask
    torch.testing.assert_close(result, expected, rtol=1e-6, atol=1e-9)
