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


def siren_kernel(shape: tuple[int] | tuple[int, int], *, width: float, omega_0: float, dtype: torch.dtype) -> Kernel:
    generator = SIREN(1, math.prod(shape), 16, omega_0=omega_0)
    return Kernel(generator, GaussianMask([width]), extent=[24.0], shape=shape).to(dtype)


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


def test_product_of_stations_and_hours() -> None:
    torch.manual_seed(0)
    kernel = Kernel(SIREN(3, 2, 8, omega_0=3.0), GaussianMask([0.2, 0.2, 3.0]), extent=[1.0, 1.0, 12.0]).double()
    stations = Points(torch.rand(7, 2), torch.rand(7))
    source = Product(stations, Grid([12], [1.0]))
    values = torch.randn(7, 2, 12, dtype=torch.float64)
    exact = convolve(kernel, values, source, engine="reference")
    result = convolve(kernel, values, source, engine="spectral", rtol=1e-4)
    assert result.shape == (7, 2, 12)
    assert relative_error(result, exact) < 1e-4


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
    causal = Kernel(kernel.generator, kernel.mask, extent=[24.0], causal_axes=(0,)).double()
    endless = Kernel(kernel.generator, None, extent=[24.0]).double()
    moving = Points(line.coordinates.clone().requires_grad_(), line.weights)
    circle = Points(line.coordinates, line.weights, torch.tensor([0, 4, 10]), periods=[48.0])
    hyper = Kernel(MAGNet(4, 2), GaussianMask([1.0] * 4), extent=[1.0] * 4).double()
    cases = [
        (causal, line, "jumps at lag zero"),
        (endless, line, "no mask"),
        (kernel, moving, "gradients of the coordinates"),
        (kernel, circle, "several samples need an axis that does not repeat"),
        (kernel, Grid([10], [1.0]), "both domains are grids"),
        (hyper, Points(torch.zeros(1, 4)), "more than 3 axes"),
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
