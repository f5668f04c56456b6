"""The non-uniform FFT engine: its error against the tolerance asked for, gradients, ragged batches, refusals."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor

from ccnn_irregular import SIREN, GaussianMask, Grid, Kernel, MAGNet, Points, Product, convolve, explain, make_plan

HOURS = 48.0


def ragged(lengths: list[int], seed: int, *, channels: int | None = None) -> Points:
    """Random times in 0..48 h with random weights, shared by the channels or not."""
    generator = torch.Generator().manual_seed(seed)
    count = sum(lengths)
    splits = torch.tensor([0, *lengths]).cumsum(0)
    times = torch.rand(count, 1, generator=generator, dtype=torch.float64) * HOURS
    shape = (count,) if channels is None else (count, channels)
    weights = torch.rand(shape, generator=generator, dtype=torch.float64)
    return Points(times, weights, splits)


def siren_kernel(
    shape: tuple[int] | tuple[int, int], *, width: float, omega_0: float, dtype: torch.dtype, causal: bool = False
) -> Kernel:
    generator = SIREN(1, math.prod(shape), 16, omega_0=omega_0)
    axes = (0,) if causal else ()
    return Kernel(generator, GaussianMask([width]), extent=[24.0], shape=shape, causal_axes=axes).to(dtype)


def relative_error(result: Tensor, expected: Tensor) -> float:
    return float((result.detach() - expected.detach()).norm() / expected.detach().norm())


@given(
    seed=st.integers(0, 10**6),
    width=st.floats(0.5, 12.0),
    omega_0=st.floats(1.0, 40.0),
    lengths=st.lists(st.integers(0, 60), min_size=1, max_size=6).filter(any),
    rtol=st.sampled_from([1e-1, 1e-2, 1e-3, 1e-4, 1e-6, 1e-8]),
    full=st.booleans(),
)
def test_error_stays_below_the_tolerance(
    seed: int, width: float, omega_0: float, lengths: list[int], rtol: float, full: bool
) -> None:
    torch.manual_seed(seed)
    kernel = siren_kernel((2, 3) if full else (3,), width=width, omega_0=omega_0, dtype=torch.float64)
    source, query = ragged(lengths, seed), ragged([5] * len(lengths), seed + 1)
    values = torch.randn(source.count, 3, dtype=torch.float64)
    with torch.no_grad():
        exact = convolve(kernel, values, source, query, engine="reference")
        result = convolve(kernel, values, source, query, engine="spectral", rtol=rtol)
    # Measured against what white noise of these values would give, at one query where the kernel peaks at the least: a
    # query where the terms happen to cancel, or that no sample reaches, does not count as an error of the engine.
    scale = max(_white_noise_norm(kernel, values, source, query), _at_the_peak(kernel, values, source))
    assert float((result - exact).norm()) <= 2 * rtol * scale


def _white_noise_norm(kernel: Kernel, values: Tensor, source: Points, query: Points) -> float:
    """Root of the expected squared norm of the result if the values' signs were random."""
    same = source.sample_index()[None, :] == query.sample_index()[:, None]
    offsets = query.coordinates[:, None] - source.coordinates[None]
    kernels = kernel(offsets).reshape(query.count, source.count, -1, 3)
    power = (kernels * (same[..., None] * source.weights[None, :, None] * values[None])[:, :, None]).square().sum()
    return float(power.detach().sqrt())


def _at_the_peak(kernel: Kernel, values: Tensor, source: Points) -> float:
    """What white noise of these values would give at one query, were it where the kernel is largest for all of them."""
    reach = torch.linspace(-1, 1, 201, dtype=torch.float64)[:, None] * kernel.support
    return float(kernel(reach).detach().abs().max() * (values * source.weights[:, None]).norm())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(4,), (2, 4)])
def test_values_and_gradients_equal_the_reference(dtype: torch.dtype, shape: tuple[int] | tuple[int, int]) -> None:
    torch.manual_seed(0)
    rtol = 1e-4 if dtype == torch.float32 else 1e-8
    kernel = siren_kernel(shape, width=4.0, omega_0=10.0, dtype=dtype)
    plain = ragged([30, 0, 7, 55], seed=1, channels=4)
    weights = plain.weights.clone().requires_grad_()
    source = Points(plain.coordinates, weights, plain.splits)
    values = torch.randn(source.count, 4, dtype=dtype, requires_grad=True)
    query = Grid([49], [1.0])
    inputs = [values, weights, *kernel.parameters()]
    found = {}
    for engine in ("reference", "spectral"):
        result = convolve(kernel, values, source, query, engine=engine, rtol=rtol)  # type: ignore[arg-type]
        assert result.shape == (4, shape[0], 49)
        assert result.dtype == dtype
        found[engine] = [result.detach(), *torch.autograd.grad(result.square().sum(), inputs)]
    for index, (result, expected) in enumerate(zip(found["spectral"], found["reference"], strict=True)):
        # The derivative by the mask's width is less smooth at the mask's end than the kernel the cell was chosen for.
        assert relative_error(result, expected) < rtol * (100 if index else 2), index


def test_samples_are_blind_to_each_other_and_empty_ones_give_zero() -> None:
    torch.manual_seed(0)
    kernel = siren_kernel((2,), width=6.0, omega_0=10.0, dtype=torch.float64)
    lengths = [20, 0, 1, 33]
    source = ragged(lengths, seed=3)
    values = torch.randn(source.count, 2, dtype=torch.float64)
    query = Grid([25], [2.0])
    together = convolve(kernel, values, source, query, engine="spectral", rtol=1e-8).detach()
    assert float(together[1].abs().max()) < 1e-7 * float(together.abs().max())
    for sample, (start, stop) in enumerate(zip(source.splits[:-1].tolist(), source.splits[1:].tolist(), strict=True)):
        if start == stop:
            continue
        alone = Points(source.coordinates[start:stop], source.weights[start:stop])
        result = convolve(kernel, values[start:stop], alone, query, engine="spectral", rtol=1e-8).detach()
        assert relative_error(together[sample], result[0]) < 1e-7


SPACES = {
    "plane": ([None, None], [0.10, 0.15]),
    "space": ([None, None, None], [0.15, 0.2, 0.15]),
    "circle": ([1.0], [0.1]),
    "cylinder": ([None, 1.0], [0.15, 0.1]),
    "torus": ([1.0, 1.0, 1.0], [0.12, 0.12, 0.12]),
}


@pytest.mark.parametrize("fine", [False, True])
@pytest.mark.parametrize("space", SPACES)
def test_points_in_space_and_on_axes_that_repeat(space: str, fine: bool) -> None:
    periods, width = SPACES[space]
    d = len(width)
    rtol = 1e-3 if not fine else 1e-4 if d == 3 else 1e-6
    torch.manual_seed(d)
    # Threshold 0.02 keeps the support of about 2.8 widths below half a period.
    kernel = Kernel(SIREN(d, 3, 8, omega_0=3.0), GaussianMask(width, threshold=0.02), extent=[1.0] * d).double()
    samples = 1 if None not in periods else 3
    splits = torch.tensor([0, 60] if samples == 1 else [0, 40, 40, 60])
    source = Points(torch.rand(60, d), torch.rand(60, 3), splits, periods=periods)
    query = Points(torch.rand(6 * samples, d), splits=torch.arange(samples + 1) * 6, periods=periods)
    values = torch.randn(60, 3, dtype=torch.float64, requires_grad=True)
    inputs = [values, *kernel.generator.parameters()]
    found = {}
    for engine in ("reference", "spectral"):
        result = convolve(kernel, values, source, query, engine=engine, rtol=rtol)  # type: ignore[arg-type]
        found[engine] = [result.detach(), *torch.autograd.grad(result.square().sum(), inputs)]
    assert float(found["reference"][0].norm()) > 0
    for index, (result, expected) in enumerate(zip(found["spectral"], found["reference"], strict=True)):
        assert relative_error(result, expected) < rtol * (10 if index else 2), index


@pytest.mark.parametrize("shape", [(2,), (3, 2)], ids=["depthwise", "full"])
@pytest.mark.parametrize("d", [1, 2, 3])
def test_gradients_of_coordinates_equal_the_reference(d: int, shape: tuple[int] | tuple[int, int]) -> None:
    torch.manual_seed(d)
    rtol = 1e-4 if d == 3 else 1e-6
    periods = [1.0, None, None][:d]
    kernel = Kernel(SIREN(d, math.prod(shape), 8, omega_0=3.0), GaussianMask([0.15] * d), extent=[1.0] * d, shape=shape)
    kernel = kernel.double()
    values = torch.randn(30, 2, dtype=torch.float64)
    places = [torch.rand(count, d, dtype=torch.float64, requires_grad=True) for count in (30, 11)]
    splits = [torch.tensor([0, 18, 30]), torch.tensor([0, 4, 11])] if d > 1 else [None, None]
    weights = torch.rand(30, dtype=torch.float64)
    found = {}
    for engine in ("reference", "spectral"):
        source = Points(places[0], weights, splits[0], periods=periods)
        query = Points(places[1], splits=splits[1], periods=periods)
        result = convolve(kernel, values, source, query, engine=engine, rtol=rtol)  # type: ignore[arg-type]
        own = convolve(kernel, values, source, engine=engine, rtol=rtol)  # type: ignore[arg-type]
        found[engine] = torch.autograd.grad(result.square().sum() + own.square().sum(), places)
    for got, expected in zip(found["spectral"], found["reference"], strict=True):
        # A slope's spectrum ends later than the kernel's own.
        assert relative_error(got, expected) < 100 * rtol


LATTICES = {
    "same": (Grid([12], [1.0]), Grid([12], [1.0])),
    "day": (Grid([24], [1.0], periodic=True), Grid([24], [1.0], periodic=True)),
    "three hourly, later": (Grid([13], [1.0]), Grid([4], [3.0], [1.25])),
    "finer": (Grid([5], [2.0]), Grid([16], [0.5], [-1.0])),
    "one": (Grid([1], [1.0]), Grid([1], [1.0], [0.5])),
    "no common lattice": (Grid([6], [1.0]), Grid([5], [2**0.5])),
}


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("case", LATTICES)
def test_product_of_stations_and_hours(case: str, causal: bool) -> None:
    torch.manual_seed(0)
    hours, wanted = LATTICES[case]
    if causal and case == "no common lattice":
        pytest.skip("expanded to points of three axes, where a causal kernel is refused")
    kernel = Kernel(
        SIREN(3, 6, 8, omega_0=3.0),
        GaussianMask([0.2, 0.2, 3.0]),
        extent=[1.0, 1.0, 12.0],
        shape=(3, 2),
        causal_axes=(2,) if causal else (),
    ).double()
    weights = torch.rand(7, 2, dtype=torch.float64, requires_grad=True)
    stations = Points(torch.rand(7, 2), weights, torch.tensor([0, 3, 3, 7]))
    others = Points(torch.rand(5, 2), splits=torch.tensor([0, 2, 3, 5]))
    values = torch.randn(7, 2, *hours.sizes, dtype=torch.float64, requires_grad=True)
    inputs = [values, weights, *kernel.parameters()]
    found = {}
    for engine in ("reference", "spectral"):
        source, query = Product(stations, hours), Product(others, wanted)
        result = convolve(kernel, values, source, query, engine=engine, rtol=1e-4)  # type: ignore[arg-type]
        assert result.shape == (5, 3, *wanted.sizes)
        found[engine] = [result.detach(), *torch.autograd.grad(result.square().sum(), inputs)]
    assert float(found["reference"][0].norm()) > 0
    for index, (result, expected) in enumerate(zip(found["spectral"], found["reference"], strict=True)):
        assert relative_error(result, expected) < (1e-2 if index else 1e-4), index


def test_product_in_space_and_time() -> None:
    """Four axes: points in space times hours."""
    torch.manual_seed(0)
    kernel = Kernel(SIREN(4, 2, 8, omega_0=3.0), GaussianMask([0.3] * 3 + [2.0]), extent=[1.0] * 3 + [6.0]).double()
    places = torch.rand(20, 3, dtype=torch.float64, requires_grad=True)
    values = torch.randn(20, 2, 7, dtype=torch.float64)
    found = {}
    for engine in ("reference", "spectral"):
        domain = Product(Points(places, torch.rand(20, generator=torch.Generator().manual_seed(1))), Grid([7], [1.0]))
        result = convolve(kernel, values, domain, engine=engine, rtol=1e-3)  # type: ignore[arg-type]
        found[engine] = [result.detach(), *torch.autograd.grad(result.square().sum(), [places])]
    assert relative_error(found["spectral"][0], found["reference"][0]) < 1e-3
    assert relative_error(found["spectral"][1], found["reference"][1]) < 1e-1


@pytest.mark.parametrize("period", [None, 48.0])
@pytest.mark.parametrize("rtol", [1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("shape", [(2,), (3, 2)], ids=["depthwise", "full"])
def test_causal_kernel_in_irregular_time(
    shape: tuple[int] | tuple[int, int], rtol: float, period: float | None
) -> None:
    torch.manual_seed(0)
    kernel = siren_kernel(shape, width=6.0, omega_0=10.0, dtype=torch.float64, causal=True)
    plain = ragged([90, 0, 1, 40], seed=4)
    times = plain.coordinates.clone().requires_grad_()
    values = torch.randn(plain.count, 2, dtype=torch.float64, requires_grad=True)
    inputs = [values, times, *kernel.parameters()]
    query = Points(torch.rand(40, 1) * HOURS, splits=torch.arange(5) * 10, periods=[period])
    found = {}
    for engine in ("reference", "spectral"):
        source = Points(times, plain.weights, plain.splits, periods=[period])
        # At the samples themselves the lag is zero, where the kernel jumps: the sample counts.
        here = convolve(kernel, values, source, engine=engine, rtol=rtol)  # type: ignore[arg-type]
        there = convolve(kernel, values, source, query, engine=engine, rtol=rtol)  # type: ignore[arg-type]
        total = here.square().sum() + there.square().sum()
        found[engine] = [here.detach(), there.detach(), *torch.autograd.grad(total, inputs)]
    for index, (result, expected) in enumerate(zip(found["spectral"], found["reference"], strict=True)):
        assert relative_error(result, expected) < rtol * (100 if index > 1 else 2), index


def test_samples_on_axes_that_all_repeat_are_kept_apart() -> None:
    torch.manual_seed(0)
    kernel = siren_kernel((2,), width=4.0, omega_0=10.0, dtype=torch.float64)
    source = Points(torch.rand(30, 1) * 48, torch.rand(30), torch.tensor([0, 4, 4, 30]), periods=[48.0])
    values = torch.randn(30, 2, dtype=torch.float64)
    expected = convolve(kernel, values, source, engine="reference")
    assert relative_error(convolve(kernel, values, source, engine="spectral", rtol=1e-6), expected) < 1e-6


def test_far_queries_and_sources_get_nothing_and_cost_nothing() -> None:
    torch.manual_seed(0)
    kernel = siren_kernel((2,), width=4.0, omega_0=10.0, dtype=torch.float64)
    source = Points(torch.tensor([[0.0], [5.0], [7.0], [1e12]], dtype=torch.float64))
    query = Points(torch.tensor([[-1e12], [4.0], [19.0], [1e9]], dtype=torch.float64))
    values = torch.randn(4, 2, dtype=torch.float64)
    expected = convolve(kernel, values, source, query, engine="reference")
    plan = make_plan(kernel, source, query, engine="spectral", rtol=1e-6)
    assert plan.geometry.spread.box.cells < 2000
    result = convolve(kernel, values, source, query, plan=plan)
    assert relative_error(result, expected) < 1e-6
    assert not bool(result[0].any())
    nowhere = Points(torch.tensor([[1e12], [-1e12]], dtype=torch.float64))
    assert not bool(convolve(kernel, values[:3], Points(source.coordinates[:3]), nowhere, engine="spectral").any())


def test_support_larger_than_the_domain() -> None:
    torch.manual_seed(0)
    kernel = siren_kernel((2,), width=100.0, omega_0=10.0, dtype=torch.float64)
    source = ragged([12, 5], seed=2)
    values = torch.randn(17, 2, dtype=torch.float64)
    expected = convolve(kernel, values, source, engine="reference")
    assert relative_error(convolve(kernel, values, source, engine="spectral", rtol=1e-6), expected) < 1e-6


def test_one_point_equal_points_and_none() -> None:
    torch.manual_seed(0)
    kernel = siren_kernel((2,), width=4.0, omega_0=10.0, dtype=torch.float64)
    centre = kernel(torch.zeros(1, 1, dtype=torch.float64))[0]
    one = torch.full((1, 1), 3.0, dtype=torch.float64)
    values = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    result = convolve(kernel, values[:1], Points(one), engine="spectral", rtol=1e-6)
    assert relative_error(result[0], centre * values[0]) < 1e-6
    result = convolve(kernel, values, Points(one.expand(5, 1)), engine="spectral", rtol=1e-6)
    assert relative_error(result, (centre * values.sum(0)).expand(5, 2)) < 1e-6
    nothing = Points(one[:0])
    assert convolve(kernel, values[:0], nothing, engine="spectral").shape == (0, 2)
    empty = convolve(kernel, values, Points(one.expand(5, 1)), nothing, engine="spectral")
    assert empty.shape == (0, 2)
    (gradient,) = torch.autograd.grad(empty.sum(), [values])
    assert not bool(gradient.any())
    assert not bool(convolve(kernel, values[:0], nothing, Points(one), engine="spectral").any())


def test_second_derivatives() -> None:
    torch.manual_seed(0)
    kernel = siren_kernel((2,), width=6.0, omega_0=5.0, dtype=torch.float64)
    weights = torch.rand(12, dtype=torch.float64)
    times = (torch.rand(12, 1, dtype=torch.float64) * HOURS).requires_grad_()
    values = torch.randn(12, 2, dtype=torch.float64, requires_grad=True)
    found = {}
    for engine in ("reference", "spectral"):
        source = Points(times, weights)
        result = convolve(kernel, values, source, engine=engine, rtol=1e-8)  # type: ignore[arg-type]
        by_values, by_times = torch.autograd.grad(result.pow(3).sum(), [values, times], create_graph=True)
        total = by_values.square().sum() + by_times.square().sum()
        found[engine] = torch.autograd.grad(total, [values, times])
    for got, expected in zip(found["spectral"], found["reference"], strict=True):
        assert relative_error(got, expected) < 1e-5


def test_adjoint_identity() -> None:
    torch.manual_seed(0)
    kernel = siren_kernel((3,), width=6.0, omega_0=10.0, dtype=torch.float64)
    source, query = ragged([40, 12], seed=5), ragged([9, 30], seed=6)
    x = torch.randn(source.count, 3, dtype=torch.float64, requires_grad=True)
    y = torch.randn(query.count, 3, dtype=torch.float64)
    forward = (convolve(kernel, x, source, query, engine="spectral") * y).sum()
    (adjoint,) = torch.autograd.grad(forward, x)
    torch.testing.assert_close(forward.detach(), (x.detach() * adjoint).sum(), rtol=1e-12, atol=0)


def test_large_coordinates_lose_nothing() -> None:
    torch.manual_seed(0)
    kernel = siren_kernel((2,), width=6.0, omega_0=10.0, dtype=torch.float32)
    near = ragged([50], seed=7)
    far = Points(near.coordinates + 5e6, near.weights)
    values = torch.randn(near.count, 2)
    expected = convolve(kernel, values, near, engine="spectral")
    assert relative_error(convolve(kernel, values, far, engine="spectral"), expected) < 1e-5


def test_a_plan_serves_other_kernels_until_their_support_outgrows_it() -> None:
    torch.manual_seed(0)
    kernel = siren_kernel((2,), width=4.0, omega_0=10.0, dtype=torch.float64)
    source = ragged([40, 12], seed=8)
    values = torch.randn(source.count, 2, dtype=torch.float64)
    plan = make_plan(kernel, source, engine="spectral", rtol=1e-5)
    planned = convolve(kernel, values, source, plan=plan)
    assert relative_error(planned, convolve(kernel, values, source, engine="reference")) < 1e-5
    assert isinstance(kernel.mask, GaussianMask)
    with torch.no_grad():
        kernel.mask.log_scale += 0.5
    with pytest.raises(ValueError, match=r"plan must be made anew .* support on axis 0 grows beyond 12\.1\d*, got"):
        convolve(kernel, values, source, plan=plan)


def test_auto_takes_it_for_a_ragged_batch_and_explains() -> None:
    kernel = siren_kernel((64,), width=6.0, omega_0=10.0, dtype=torch.float32)
    source = ragged([100] * 64, seed=9)
    assert make_plan(kernel, source).engine == "spectral"
    assert " cells" in str(explain(kernel, source))


def test_refusals_say_why() -> None:
    kernel = siren_kernel((2,), width=4.0, omega_0=10.0, dtype=torch.float64)
    line = ragged([10], seed=0)
    values = torch.randn(10, 2, dtype=torch.float64)
    causal = Kernel(SIREN(2, 2), GaussianMask([1.0, 1.0]), extent=[1.0, 1.0], causal_axes=(0,)).double()
    endless = Kernel(kernel.generator, None, extent=[24.0]).double()
    hyper = Kernel(MAGNet(4, 2), GaussianMask([1.0] * 4), extent=[1.0] * 4).double()
    cases = [
        (causal, Points(torch.zeros(1, 2)), "causal on one of several axes"),
        (endless, line, "no mask"),
        (kernel, Grid([10], [1.0]), "both domains are grids"),
        (hyper, Points(torch.zeros(1, 4)), "more than 3 irregular axes"),
    ]
    for one, source, reason in cases:
        with pytest.raises(ValueError, match=rf"engine must suit source and query \('spectral': .*{reason}"):
            make_plan(one, source, engine="spectral")
    with pytest.raises(ValueError, match=r"rtol 1e-09 is below 1e-08"):
        convolve(kernel, values, line, engine="spectral", rtol=1e-9)
    jagged = siren_kernel((2,), width=4.0, omega_0=1e6, dtype=torch.float64)
    with pytest.raises(ValueError, match="the kernel is too sharp"):
        convolve(jagged, values, line, engine="spectral")
    assert make_plan(jagged, line).engine != "spectral"
