"""Values of unlike size: every sample, channel, place and past keeps its own error. Sums are taken in NumPy."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tested_device import convolve, explain, kernel_there, make_plan
from torch import Tensor

from ccnn_irregular import MLP, SIREN, GaussianMask, Grid, Kernel, MAGNet, Points, Product
from ccnn_irregular.operators.engines.spectral.transfer import Filter, filter_for
from ccnn_irregular.operators.numerics import sizes
from ccnn_irregular.quadrature import trapezoid

RTOL = 1e-3
SPAN = 60.0


def numpy_sum(kernel: Kernel, values: Any, source: Points, query: Points) -> np.ndarray[Any, Any]:
    """The sum as it is written, float64 ``(M, D)``."""
    exact = kernel.double()
    weights = source.weights.detach().numpy()
    masses = np.asarray(values, np.float64) * (weights if weights.ndim == 2 else weights[:, None])
    result = np.zeros((query.count, kernel.out_channels))
    for sample in range(source.samples):
        (a, b), (c, d) = source.splits[sample : sample + 2].tolist(), query.splits[sample : sample + 2].tolist()
        lags = query.coordinates[c:d, None].detach() - source.coordinates[None, a:b].detach()
        with torch.no_grad():
            pairs = exact(lags).numpy()
        result[c:d] = np.einsum("mnc,nc->mc" if kernel.depthwise else "mndc,nc->md", pairs, masses[a:b])
    return result


def errors(result: Tensor, expected: np.ndarray[Any, Any], query: Points) -> np.ndarray[Any, Any]:
    """Root mean square of the error over that of the result, per sample that has queries and channel."""
    found = result.detach().double().numpy()
    ratios = []
    for start, stop in zip(query.splits[:-1].tolist(), query.splits[1:].tolist(), strict=True):
        if stop > start:
            size = np.linalg.norm(expected[start:stop], axis=0)
            ratios.append(np.linalg.norm(found[start:stop] - expected[start:stop], axis=0) / np.where(size, size, 1.0))
    return np.array(ratios)


def kernel_of(
    shape: tuple[int, ...] = (2,),
    d: int = 1,
    *,
    dtype: torch.dtype = torch.float64,
    width: float = 2.0,
    omega_0: float = 5.0,
    causal: bool = False,
    seed: int = 0,
) -> Kernel:
    torch.manual_seed(seed)
    generator = SIREN(d, math.prod(shape), 16, omega_0=omega_0)
    axes = (0,) if causal else ()
    return Kernel(generator, GaussianMask([width] * d), extent=[3 * width] * d, shape=shape, causal_axes=axes).to(dtype)  # type: ignore[arg-type]


def ragged(lengths: list[int], d: int = 1, seed: int = 0) -> Points:
    generator = torch.Generator().manual_seed(seed)
    places = torch.rand(sum(lengths), d, dtype=torch.float64, generator=generator) * (SPAN if d == 1 else 12.0)
    weights = 0.05 + 0.1 * torch.rand(sum(lengths), dtype=torch.float64, generator=generator)
    return Points(places, weights, torch.tensor([0, *lengths]).cumsum(0))


def noise(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 1) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


# ---- samples ----


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(2,), (3, 2)], ids=["depthwise", "full"])
@pytest.mark.parametrize("factor", [1e-12, 1e3, 1e6, 1e15])
def test_a_sample_is_blind_to_one_of_another_size(factor: float, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    kernel, source = kernel_of(shape, dtype=dtype), ragged([400, 0, 300])
    values = noise(source.count, 2, dtype=dtype)
    values[:400] *= factor
    result = convolve(kernel, values, source, engine="spectral", rtol=RTOL)
    assert errors(result, numpy_sum(kernel, values, source, source), source).max() < RTOL
    assert explain(kernel, source).choice == "spectral"


@given(st.lists(st.floats(-25, 25), min_size=8, max_size=8), st.integers(0, 1000))
def test_any_sizes_of_samples_and_channels(powers: list[float], seed: int) -> None:
    kernel, source = kernel_of((2,), seed=seed), ragged([150, 80, 0, 120, 60], seed=seed)
    query = ragged([40, 30, 20, 30, 30], seed=seed + 1)
    factors = 10.0 ** np.insert(np.array(powers).reshape(4, 2), 2, 0.0, axis=0)
    values = noise(source.count, 2, seed=seed) * torch.from_numpy(factors)[source.sample_index()]
    result = convolve(kernel, values, source, query, engine="spectral", rtol=RTOL)
    expected = numpy_sum(kernel, values, source, query)
    assert errors(result, expected, query).max() < 2 * RTOL
    assert not result[query.sample_index() == 2].any()  # a sample without sources


@pytest.mark.parametrize("d", [2, 3])
def test_clouds_are_blind_to_each_other(d: int) -> None:
    kernel, source = kernel_of((2,), d), ragged([400, 300], d)
    values = noise(source.count, 2)
    values[400:] *= 1e7
    result = convolve(kernel, values, source, engine="spectral", rtol=RTOL)
    assert errors(result, numpy_sum(kernel, values, source, source), source).max() < RTOL


def test_gradients_of_a_sample_are_blind_to_one_of_another_size() -> None:
    kernel, source = kernel_of((2,)), ragged([300, 200])
    quiet = source.sample_index() == 1
    factor = torch.where(quiet, 1.0, 1e6)[:, None].double()
    found = {}
    for engine in ("reference", "spectral"):
        values = (noise(source.count, 2) * factor).requires_grad_()
        places = source.coordinates.clone().requires_grad_()
        moved = Points(places, source.weights, source.splits)
        result = convolve(kernel, values, moved, engine=engine, rtol=RTOL)  # type: ignore[arg-type]
        # The loss of the large sample is large too, or as large as that of the other.
        for name, scale in (("large", factor), ("alike", 1 / factor), ("one", torch.ones_like(factor))):
            loss = (result * noise(source.count, 2, seed=5) * scale).sum()
            found[engine, name] = torch.autograd.grad(loss, [values, places, *kernel.parameters()], retain_graph=True)
    for name in ("large", "alike", "one"):
        for index, (got, right) in enumerate(zip(found["spectral", name], found["reference", name], strict=True)):
            allowed = RTOL ** (5 / 7) if index == 1 else 5 * RTOL  # a slope's spectrum ends later
            assert float((got - right).norm()) < allowed * float(right.norm())
            if index < 2:  # values and places of the quiet sample
                assert float((got - right)[quiet].norm()) < 2 * allowed * float(right[quiet].norm()), (name, index)


@pytest.mark.parametrize("shape", [(2,), (3, 2)], ids=["depthwise", "full"])
@pytest.mark.parametrize("share", [0.0, 1e-8, 1.0])
def test_gradients_of_alike_samples_whose_losses_differ(share: float, shape: tuple[int, ...]) -> None:
    kernel, source = kernel_of(shape), ragged([200, 150])
    quiet = source.sample_index() == 1
    loss_weights = torch.where(quiet, share, 1.0)[:, None] * noise(source.count, shape[0], seed=5)
    found = {}
    for engine in ("reference", "spectral"):
        values, places = noise(source.count, 2).requires_grad_(), source.coordinates.clone().requires_grad_()
        result = convolve(kernel, values, Points(places, source.weights, source.splits), engine=engine, rtol=1e-4)  # type: ignore[arg-type]
        inputs = [values, places, *kernel.parameters()]
        by_values, by_places, *others = torch.autograd.grad((result * loss_weights).sum(), inputs)
        found[engine] = by_values, by_places, torch.cat([one.flatten() for one in others])
    allowed = 5e-4, 1e-4 ** (5 / 7), 2e-3  # a slope's spectrum ends later
    for index, (got, right) in enumerate(zip(found["spectral"], found["reference"], strict=True)):
        for part in (quiet, ~quiet) if index < 2 else (slice(None),):
            assert float((got - right)[part].norm()) <= allowed[index] * float(right[part].norm()), index


def test_second_derivatives_of_alike_samples() -> None:
    kernel, base = kernel_of((3, 2)), ragged([40, 30])
    found = {}
    for engine in ("reference", "spectral"):
        values, places = noise(base.count, 2).requires_grad_(), base.coordinates.clone().requires_grad_()
        result = convolve(kernel, values, Points(places, base.weights, base.splits), engine=engine, rtol=1e-8)  # type: ignore[arg-type]
        slopes = torch.autograd.grad(result.pow(3).sum(), [values, places, *kernel.parameters()], create_graph=True)
        total = sum(slope.square().sum() for slope in slopes)
        assert isinstance(total, Tensor)
        found[engine] = torch.autograd.grad(total, [values, places, *kernel.parameters()])
    for got, right in zip(found["spectral"], found["reference"], strict=True):
        assert float((got - right).norm()) < 1e-4 * float(right.norm())


def test_second_derivatives_where_samples_differ() -> None:
    kernel, base = kernel_of((2, 2)), ragged([40, 30])
    found = {}
    for engine in ("reference", "spectral"):
        values = (noise(base.count, 2) * torch.where(base.sample_index() == 1, 1.0, 1e3)[:, None]).requires_grad_()
        result = convolve(kernel, values, base, engine=engine, rtol=1e-8)  # type: ignore[arg-type]
        (slope,) = torch.autograd.grad(result.pow(3).sum(), values, create_graph=True)
        found[engine] = torch.autograd.grad(slope.square().sum(), [values, *kernel.parameters()])
    for got, right in zip(found["spectral"], found["reference"], strict=True):
        assert float((got - right).norm()) < 1e-5 * float(right.norm())


def test_stations_are_blind_to_each_other_in_a_product() -> None:
    kernel = Kernel(SIREN(2, 2, 8, omega_0=3.0), GaussianMask([2.0, 1.0]), extent=[6.0, 3.0]).double()
    places, hours = ragged([60, 50]), Grid([12], [0.5])
    values = noise(places.count, 2, 12)
    values[:60] *= 1e6
    result = convolve(kernel, values, Product(places, hours), engine="spectral", rtol=RTOL).detach()
    flat = Product(places, hours).as_points()
    expected = numpy_sum(kernel, values.movedim(1, 2).flatten(0, 1), flat, flat)
    assert errors(result.movedim(1, 2).flatten(0, 1), expected, flat).max() < RTOL


# ---- outliers ----


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("engine", ["spectral", "neighbours"])
@pytest.mark.parametrize("d", [1, 2, 3])
def test_an_outlier_spoils_nothing_beyond_its_reach(d: int, engine: str, dtype: torch.dtype) -> None:
    kernel, source, query = kernel_of((2,), d, dtype=dtype, width=1.0), ragged([500], d), ragged([200], d, seed=3)
    values = noise(source.count, 2, dtype=dtype)
    values[7, 0], values[90, 0] = 1e8, -1e5
    result = convolve(kernel, values, source, query, engine=engine, rtol=RTOL)  # type: ignore[arg-type]
    expected = numpy_sum(kernel, values, source, query)
    lags = (query.coordinates[:, None] - source.coordinates[[7, 90]][None]).abs()
    beyond = (lags > kernel.support).any(2).all(1).numpy()
    assert 20 < beyond.sum() < query.count
    for rows in (beyond, np.ones(query.count, bool)):
        difference = result.detach().double().numpy()[rows] - expected[rows]
        assert np.all(np.linalg.norm(difference, axis=0) < RTOL * np.linalg.norm(expected[rows], axis=0))


def test_an_outlier_in_a_product_and_its_gradients() -> None:
    torch.manual_seed(0)
    kernel = Kernel(SIREN(2, 4, 8), GaussianMask([2.0, 1.0]), extent=[6.0, 3.0], shape=(2, 2)).double()
    domain = Product(ragged([80]), Grid([9], [0.5]))
    found = {}
    for engine in ("reference", "spectral"):
        values = noise(80, 2, 9)
        values[5, 1, 3] = 1e7
        values.requires_grad_()
        result = convolve(kernel, values, domain, engine=engine, rtol=1e-4)  # type: ignore[arg-type]
        inputs = [values, *kernel.parameters()]
        found[engine] = [result.detach(), *torch.autograd.grad((result * noise(80, 2, 9)).sum(), inputs)]
    for got, right in zip(found["spectral"], found["reference"], strict=True):
        assert float((got - right).norm()) < 1e-3 * float(right.norm())
    far = (domain.points.coordinates[:, 0] - domain.points.coordinates[5, 0]).abs() > kernel.support[0]
    got, right = found["spectral"][0][far], found["reference"][0][far]
    assert float((got - right).norm()) < 2e-4 * float(right.norm())


@pytest.mark.parametrize("count", [4, 30])
def test_a_handful_of_outliers_in_a_hundred(count: int) -> None:
    kernel, source, query = kernel_of((2,), width=0.5), ragged([count * 50]), ragged([200], seed=3)
    values, spikes = noise(source.count, 2), torch.arange(count) * 3
    values[spikes] *= 1e8
    # All of them in the first half of the time.
    order = source.coordinates[:, 0].argsort()
    source = Points(source.coordinates[order], source.weights[order])
    result = convolve(kernel, values, source, query, engine="spectral", rtol=RTOL)
    beyond = ((query.coordinates - source.coordinates[spikes][:, 0]).abs() > kernel.support).all(1).numpy()
    assert beyond.sum() > 20
    expected = numpy_sum(kernel, values, source, query)[beyond]
    difference = result.detach().numpy()[beyond] - expected
    assert np.all(np.linalg.norm(difference, axis=0) < 2 * RTOL * np.linalg.norm(expected, axis=0))


def test_too_many_outliers_are_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "_MOST_PAIRS", 1e6)
    kernel, source = kernel_of((64,)), ragged([2000])
    values = noise(source.count, 64)
    # Another handful in every channel: each is rare in its own, but nearly every row holds one.
    for channel in range(64):
        values[channel * 15 : channel * 15 + 15, channel] = 1e8
    with pytest.warns(UserWarning, match=r"values must not be dwarfed .*got 960 of 2000 rows"):
        convolve(kernel, values, source, engine="spectral")


def test_values_of_one_kind_are_no_outliers() -> None:
    kernel, source, query = kernel_of((1,)), ragged([3000]), ragged([60], seed=2)
    heavy = torch.exp(1.5 * noise(source.count, 1))  # precipitation is about like that
    sparse = torch.where(noise(source.count, 1, seed=2) > 2.3, noise(source.count, 1), 0.0)  # 1 % were measured
    for values in (heavy, sparse):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            result = convolve(kernel, values, source, query, engine="spectral")
        assert errors(result, numpy_sum(kernel, values, source, query), query).max() < RTOL


@pytest.mark.parametrize("counts", [(400,), (40, 33), (9, 14, 11), (5, 6, 7, 8)], ids=str)
def test_an_outlier_on_a_grid_spoils_nothing_beyond_its_reach(counts: tuple[int, ...]) -> None:
    d = len(counts)
    grid = Grid(counts, [0.5] * d)
    kernel = kernel_of((2,), d, dtype=torch.float32, width=0.5 if d < 3 else 0.3)
    values = noise(2, 2, *counts, dtype=torch.float32)
    values[(1, 0, *(1,) * d)] = 1e8
    result = convolve(kernel, values, grid, engine="fft").detach().double().flatten(2).numpy()
    nodes = Points(grid.nodes(), torch.full((grid.count,), 0.5**d))
    place = nodes.coordinates - nodes.coordinates.new_full((d,), 0.5)
    beyond = (place.abs() > kernel.support).any(1).nonzero()[:, 0]
    chosen = beyond[torch.randperm(len(beyond), generator=torch.Generator().manual_seed(0))[:40]]
    for entry in range(2):
        expected = numpy_sum(kernel, values[entry].flatten(1).T, nodes, Points(nodes.coordinates[chosen]))
        difference = result[entry].T[chosen] - expected
        assert np.all(np.linalg.norm(difference, axis=0) < 1e-5 * np.linalg.norm(expected, axis=0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_fill_values_on_a_grid_are_announced(dtype: torch.dtype) -> None:
    grid, kernel = Grid([200], [0.5]), kernel_of((2,), dtype=dtype, width=0.5)
    values = noise(1, 2, 200, dtype=dtype)
    values[0, 0, 3] = 1e20
    with pytest.warns(UserWarning, match="times as large as others of their entry: .* are they fill values"):
        convolve(kernel, values, grid, engine="fft")
    fading = torch.exp(-torch.linspace(-9, 9, 200, dtype=dtype).square()).expand(1, 2, 200)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        convolve(kernel, fading, grid, engine="fft")


def test_the_quiet_past_on_a_grid() -> None:
    grid, kernel = Grid([600], [0.25]), kernel_of((2,), dtype=torch.float32, causal=True)
    values = noise(1, 2, 600, dtype=torch.float32)
    values[..., 300:] *= 1e7
    result = convolve(kernel, values, grid, engine="fft")[0].T
    nodes = Points(grid.nodes(), torch.full((600,), 0.25))
    expected = numpy_sum(kernel, values[0].T, nodes, nodes)
    past = Points(nodes.coordinates[:300])
    assert errors(result[:300], expected[:300], past).max() < 1e-5


# ---- pasts ----


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(2,), (3, 2)], ids=["depthwise", "full"])
@pytest.mark.parametrize("growth", ["step 10", "step 1e3", "step 1e6", "exponential", "one channel"])
def test_the_past_does_not_see_the_future(growth: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    kernel, source = kernel_of(shape, dtype=dtype, causal=True), ragged([500, 400])
    values, time = noise(source.count, 2), source.coordinates
    late = time > SPAN / 2
    if growth.startswith("step"):
        values = torch.where(late, values * float(growth.split()[1]), values)
    elif growth == "exponential":
        values = values * torch.exp(time * (math.log(1e6) / SPAN))
    else:
        values[:, :1] = torch.where(late, values[:, :1] * 1e6, values[:, :1])
    values = values.to(dtype)
    result = convolve(kernel, values, source, engine="spectral", rtol=RTOL)
    expected = numpy_sum(kernel, values, source, source)
    for until in (SPAN / 6, SPAN / 3, SPAN / 2, SPAN):
        past = time[:, 0] <= until
        splits = torch.stack([past[:500].sum(), past[500:].sum()]).cumsum(0)
        queries = Points(time[past], splits=torch.cat([splits.new_zeros(1), splits]))
        assert errors(result[past], expected[past.numpy()], queries).max() < 2 * RTOL, until


@pytest.mark.parametrize("shape", [(2,), (3, 2)], ids=["depthwise", "full"])
def test_a_past_whose_values_cancel(shape: tuple[int, ...]) -> None:
    """No value is larger than another, but the early ones leave a small result."""
    kernel, time = kernel_of(shape, width=4.0, omega_0=2.0, causal=True), torch.arange(600, dtype=torch.float64) * 0.1
    source = Points(time[:, None] + 0.02 * torch.rand(600, 1, dtype=torch.float64), torch.full((600,), 0.1))
    signs = torch.where(torch.arange(600) % 2 == 0, 1.0, -1.0)[:, None].double()
    values = torch.where(time[:, None] < 30, signs, noise(600, 2))
    result = convolve(kernel, values, source, engine="spectral", rtol=RTOL)
    expected = numpy_sum(kernel, values, source, source)
    for count in (75, 150, 300, 600):
        part = Points(source.coordinates[:count])
        assert errors(result[:count], expected[:count], part).max() < 1.5 * RTOL, count


@given(st.integers(0, 10_000))
def test_which_past_a_query_belongs_to(seed: int) -> None:
    draw = np.random.default_rng(seed)
    source, query = (ragged(draw.integers(0, 200, 4).tolist(), seed=seed + one) for one in (0, 1))
    pasts = sizes.Pasts.build(source, query, causal=True)
    rows = noise(query.count, 1, 1)
    sums, counts = pasts.added(rows), pasts.counts()
    for sample in range(4):
        own, asked = source.splits[sample : sample + 2].tolist(), query.splits[sample : sample + 2].tolist()
        times = np.sort(source.coordinates[own[0] : own[1], 0].numpy())
        until = np.searchsorted(times, query.coordinates[asked[0] : asked[1], 0].numpy(), side="right")
        values = rows[asked[0] : asked[1], 0, 0].numpy()
        if not source.count or not query.count:
            continue
        for part in range(sums.shape[1]):
            # Fewer than 24 sources are no past, unless there are no more.
            allowed = (part + 1) * len(times) >= 24 * 32 or part == 31
            before = 32 * until < (part + 1) * len(times) if part < 31 else np.ones(len(until), bool)
            chosen = before & allowed
            np.testing.assert_allclose(float(sums[sample, part, 0]), values[chosen].sum(), atol=1e-9)
            assert float(counts[sample, part, 0]) == chosen.sum()


def test_the_past_of_other_queries_and_gradients_through_it() -> None:
    kernel, source = kernel_of((2,), causal=True), ragged([400])
    query = ragged([150], seed=9)
    found = {}
    for engine in ("reference", "spectral"):
        values = torch.where(source.coordinates > 30, 1e5, 1.0) * noise(400, 2)
        values.requires_grad_()
        result = convolve(kernel, values, source, query, engine=engine, rtol=1e-4)  # type: ignore[arg-type]
        inputs = [values, *kernel.parameters()]
        found[engine] = [result.detach(), *torch.autograd.grad((result * noise(150, 2)).sum(), inputs)]
    for got, right in zip(found["spectral"], found["reference"], strict=True):
        assert float((got - right).norm()) < 1e-3 * float(right.norm())
    early = query.coordinates[:, 0] < 30
    got, right = found["spectral"][0][early], found["reference"][0][early]
    assert float((got - right).norm()) < 2e-4 * float(right.norm())


# ---- means, and values that cancel ----


@pytest.mark.parametrize("mean", [0.0, 288.0, 101_325.0])
@pytest.mark.parametrize("rtol", [1e-2, 1e-3, 1e-5])
def test_a_slope_of_a_field_with_a_mean(rtol: float, mean: float) -> None:
    """An odd kernel measures a slope: what it gives has nothing of the mean."""
    kernel = Kernel(SIREN(1, 1, 1, 1, omega_0=1.0), GaussianMask([1.0]), extent=[1.0]).double()
    with torch.no_grad():
        kernel.generator.linears[0].weight.fill_(1.5)
        kernel.generator.linears[0].bias.zero_()
        kernel.generator.output.weight.fill_(1.0)
    places = torch.rand(3000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).sort(0).values * 100
    source = Points(places, trapezoid(places[:, 0]))
    query = Points(torch.linspace(10, 90, 60, dtype=torch.float64)[:, None])
    values = mean + 0.5 * torch.sin(0.7 * places)
    result = convolve(kernel, values, source, query, engine="spectral", rtol=rtol)
    assert errors(result, numpy_sum(kernel, values, source, query), query).max() < rtol


@pytest.mark.parametrize("rtol", [1e-2, 1e-4])
@pytest.mark.parametrize("generator", [SIREN, MAGNet, MLP])
def test_a_mean_under_any_kernel(generator: type, rtol: float) -> None:
    torch.manual_seed(0)
    kernel = Kernel(generator(2, 3, 16, omega_0=10.0), GaussianMask([1.0, 1.0]), extent=[3.0, 3.0]).double()
    source, query = ragged([1500], 2), ragged([40], 2, seed=4)
    values = torch.cat(
        [torch.full((1500, 1), 288.0), 288 + noise(1500, 1), 1e4 + source.coordinates[:, :1]], 1
    ).double()
    result = convolve(kernel, values, source, query, engine="spectral", rtol=rtol)
    assert errors(result, numpy_sum(kernel, values, source, query), query).max() < rtol


@pytest.mark.parametrize("rtol", [1e-2, 1e-4])
def test_pairs_of_values_that_cancel(rtol: float) -> None:
    """Two places at which values of both signs meet: what is left is the kernel's slope times their distance."""
    kernel = kernel_of((3,), width=1.0)
    spread = 0.01 * noise(400, 1)
    source = Points(torch.where(torch.arange(400)[:, None] < 200, 5.0, 15.0) + spread)
    query = ragged([150])
    query = Points(query.coordinates / 3)
    values = torch.where(torch.arange(400)[:, None] % 2 == 0, 1.0, -1.0).double().expand(-1, 3).contiguous()
    result = convolve(kernel, values, source, query, engine="spectral", rtol=rtol)
    assert errors(result, numpy_sum(kernel, values, source, query), query).max() < rtol


# ---- plans ----


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("change", ["narrower", "wider", "first layer", "depth", "other kernel"])
def test_a_plan_is_renewed_for_a_kernel_it_is_too_coarse_for(change: str, causal: bool) -> None:
    kernel, source = kernel_of((4,), causal=causal), ragged([300, 200])
    values = noise(source.count, 4)
    plan = make_plan(kernel, source, engine="spectral", rtol=RTOL)
    assert isinstance(kernel.mask, GaussianMask)
    with torch.no_grad():
        if change == "narrower":
            kernel.mask.log_scale -= math.log(10)
        elif change == "wider":
            kernel.mask.log_scale += math.log(1.5)
        elif change == "first layer":
            kernel.generator.linears[0].weight.data.mul_(5)  # not even PyTorch counts this change
        elif change == "depth":
            kernel.generator.linears[1].weight.mul_(6)
        else:
            kernel = kernel_of((4,), causal=causal, omega_0=60.0, seed=3)
    result = convolve(kernel, values, source, plan=plan)
    assert errors(result, numpy_sum(kernel, values, source, source), source).max() < RTOL
    assert torch.equal(convolve(kernel, values, source, plan=plan), result)  # what was renewed is kept


def test_a_plan_serves_a_smoother_kernel_as_it_is() -> None:
    kernel, source = kernel_of((2,), omega_0=20.0), ragged([300])
    plan = make_plan(kernel, source, engine="spectral", rtol=RTOL)
    with torch.no_grad():
        kernel.generator.linears[0].weight.mul_(0.5)
    result = convolve(kernel, noise(300, 2), source, plan=plan)
    assert errors(result, numpy_sum(kernel, noise(300, 2), source, source), source).max() < RTOL
    assert not plan.geometry.renewed


def test_a_kernel_that_became_too_sharp_is_refused() -> None:
    kernel, source = kernel_of((2,)), ragged([100])
    plan = make_plan(kernel, source, engine="spectral")
    with torch.no_grad():
        kernel.generator.linears[0].weight.mul_(1e6)
    with pytest.raises(ValueError, match=r"plan must be made anew for a kernel that has become sharper .*too sharp"):
        convolve(kernel, noise(100, 2), source, plan=plan)


@pytest.mark.parametrize("d", [1, 2])
def test_predicted_errors_are_those_of_white_noise(d: int) -> None:
    """The error that decides on renewal, against the one that is made."""
    kernel, source, query = kernel_of((3,), d, width=1.0), ragged([1500], d), ragged([200], d, seed=2)
    plan = make_plan(kernel, source, query, engine="spectral", rtol=RTOL)
    found = filter_for(kernel_there(kernel), plan, RTOL)
    assert isinstance(found, Filter)
    values = noise(source.count, 3)
    result = convolve(kernel, values, source, query, plan=plan).detach().numpy()
    made = np.sqrt(np.mean((result - numpy_sum(kernel, values, source, query)) ** 2, axis=0))
    masses = (values * source.weights[:, None]).square().sum(0)
    predicted = (found.error.cpu() * masses).sqrt().numpy()
    assert np.all(made < 2 * predicted)
    assert np.all(made > predicted / 4)
