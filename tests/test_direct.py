"""Convolutions on a lattice tap by tap, against the sum pair by pair; and when the engine takes them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ccnn_irregular import SIREN, GaussianMask, Grid, Kernel, convolve
from ccnn_irregular.operators.numerics import direct


def kernel_of(extent: list[float], channels: int = 8, **options: object) -> Kernel:
    torch.manual_seed(0)
    d = len(extent)
    return Kernel(SIREN(d, channels, 8), GaussianMask([e / 3 for e in extent]), extent=extent, **options)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """An entry for each convolution that was taken tap by tap."""
    calls: list[int] = []

    def counted(*arguments: object) -> torch.Tensor:
        calls.append(1)
        return direct.direct_convolution(*arguments)

    monkeypatch.setattr("ccnn_irregular.operators.engines.fft.direct_convolution", counted)
    return calls


@settings(max_examples=25, deadline=None)
@given(d=st.integers(1, 3), data=st.data(), causal=st.booleans())
def test_results_and_gradients_are_those_of_the_sum(d: int, data: st.DataObject, causal: bool) -> None:
    sizes = data.draw(st.lists(st.integers(1, {1: 30, 2: 9, 3: 5}[d]), min_size=d, max_size=d))
    wanted = data.draw(st.lists(st.integers(1, 6), min_size=d, max_size=d))
    steps = data.draw(st.lists(st.sampled_from([1.0, 2.0, 3.0]), min_size=d, max_size=d))
    starts = data.draw(st.lists(st.floats(-6.0, 6.0), min_size=d, max_size=d))
    kernel = kernel_of([2.5] * d, causal_axes=(0,) if causal else ())
    source, query = Grid(sizes, [1.0] * d), Grid(wanted, steps, starts)
    values = torch.randn(2, 8, *sizes, requires_grad=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(direct, "_MOST_TAPS_WITH_GRADIENTS", {1: 10**6, 2: 10**6, 3: 10**6})
        found = convolve(kernel, values, source, query, engine="fft")
    exact = convolve(kernel, values, source, query, engine="reference")
    assert torch.allclose(found, exact, atol=1e-5)
    along = torch.randn_like(exact)
    slopes = [torch.autograd.grad((one * along).sum(), [values, *kernel.parameters()]) for one in (found, exact)]
    for got, true in zip(*slopes, strict=True):
        assert torch.allclose(got, true, atol=1e-4 * (1 + float(true.abs().max())))


def test_it_is_taken_where_it_is_faster(taken: list[int]) -> None:
    grid, kernel, values = Grid([20, 20], [1.0, 1.0]), kernel_of([4.0, 4.0]), torch.randn(1, 8, 20, 20)
    convolve(kernel, values, grid, engine="fft")
    assert not taken  # 9 x 9 taps and gradients
    with torch.no_grad():
        result = convolve(kernel, values, grid, engine="fft")
        assert taken
        exact = convolve(kernel, values, grid, engine="reference")
    assert torch.allclose(result, exact, atol=1e-5)
    convolve(kernel_of([2.0, 2.0]), values, grid, engine="fft").sum().backward()
    assert len(taken) == 2


def test_it_is_not_taken_where_it_would_be_wrong_or_slow(taken: list[int]) -> None:
    with torch.no_grad():
        ring = Grid([20, 20], [1.0, 1.0], periodic=True)
        convolve(kernel_of([2.0, 2.0]), torch.randn(1, 8, 20, 20), ring, engine="fft")
        grid = Grid([20, 20], [1.0, 1.0])
        convolve(kernel_of([2.0, 2.0]), torch.randn(1, 8, 20, 20), grid, Grid([40, 40], [0.5, 0.5]), engine="fft")
        convolve(kernel_of([2.0, 2.0]).double(), torch.randn(1, 8, 20, 20).double(), grid, engine="fft")
        convolve(kernel_of([9.0, 9.0]), torch.randn(1, 8, 20, 20), grid, engine="fft")
        convolve(kernel_of([2.0, 2.0], 3), torch.randn(1, 3, 20, 20), grid, engine="fft")
        convolve(kernel_of([2.0, 2.0], 16, shape=(2, 8)), torch.randn(1, 8, 20, 20), grid, engine="fft")
    assert not taken


def test_an_infinite_value_stays_within_the_reach_of_its_kernel() -> None:
    kernel, grid, values = kernel_of([2.0, 2.0]), Grid([20, 20], [1.0, 1.0]), torch.randn(1, 8, 20, 20)
    values[0, 0, 3, 3] = 1e30
    with torch.no_grad():
        result = convolve(kernel, values, grid, engine="fft")[0, 0, 8:, 8:]
        values[0, 0, 3, 3] = 0.0
        assert torch.equal(result, convolve(kernel, values, grid, engine="fft")[0, 0, 8:, 8:])
