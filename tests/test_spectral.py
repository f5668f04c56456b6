"""The non-uniform FFT engine: its cells, uniform axes of products, the split of causal kernels, plans, refusals."""

from __future__ import annotations

import math

import pytest
import torch
from tested_device import convolve, explain, make_plan
from torch import Tensor

from ccnn_irregular import SIREN, GaussianMask, Grid, Kernel, Points, Product

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
    source, query = Product(stations, hours), Product(others, wanted)
    if causal and case == "no common lattice":  # expanded to points of three axes
        with pytest.raises(ValueError, match="causal on one of several axes"):
            make_plan(kernel, source, query, engine="spectral", rtol=1e-4)
        return
    for engine in ("reference", "spectral"):
        result = convolve(kernel, values, source, query, engine=engine, rtol=1e-4)  # type: ignore[arg-type]
        assert result.shape == (5, 3, *wanted.sizes)
        found[engine] = [result.detach(), *torch.autograd.grad(result.square().sum(), inputs)]
    assert float(found["reference"][0].norm()) > 0
    for index, (result, expected) in enumerate(zip(found["spectral"], found["reference"], strict=True)):
        assert relative_error(result, expected) < (1e-2 if index else 1e-4), index


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
    assert plan.geometry.source.spreading.box.cells < 2000
    result = convolve(kernel, values, source, query, plan=plan)
    assert relative_error(result, expected) < 1e-6
    assert not bool(result[0].any())
    nowhere = Points(torch.tensor([[1e12], [-1e12]], dtype=torch.float64))
    assert not bool(convolve(kernel, values[:3], Points(source.coordinates[:3]), nowhere, engine="spectral").any())


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


def test_large_coordinates_lose_nothing() -> None:
    torch.manual_seed(0)
    kernel = siren_kernel((2,), width=6.0, omega_0=10.0, dtype=torch.float32)
    near = ragged([50], seed=7)
    far = Points(near.coordinates + 5e6, near.weights)
    values = torch.randn(near.count, 2)
    expected = convolve(kernel, values, near, engine="spectral")
    assert relative_error(convolve(kernel, values, far, engine="spectral"), expected) < 1e-5


def test_a_plan_serves_other_kernels_and_is_renewed_when_their_support_outgrows_it() -> None:
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
    grown = convolve(kernel, values, source, plan=plan)
    assert relative_error(grown, convolve(kernel, values, source, engine="reference")) < 1e-5
    assert plan.geometry.renewed[1e-5].support[0] > plan.geometry.support[0]


def test_auto_takes_it_for_a_ragged_batch_and_explains() -> None:
    kernel = siren_kernel((64,), width=6.0, omega_0=10.0, dtype=torch.float32)
    source = ragged([100] * 64, seed=9)
    assert make_plan(kernel, source).engine == "spectral"
    assert " cells" in str(explain(kernel, source))


def test_a_kernel_too_sharp_is_refused() -> None:
    line = ragged([10], seed=0)
    values = torch.randn(10, 2, dtype=torch.float64)
    jagged = siren_kernel((2,), width=4.0, omega_0=1e6, dtype=torch.float64)
    with pytest.raises(ValueError, match="the kernel is too sharp"):
        convolve(jagged, values, line, engine="spectral")
    assert make_plan(jagged, line).engine != "spectral"
