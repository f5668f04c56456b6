"""Convolutions between grids whose steps have no common lattice: separable sums against the sum itself."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ccnn_irregular import SIREN, GaussianMask, Grid, Kernel, convolve, explain
from ccnn_irregular.operators import ENGINES, Cost, make_plan
from ccnn_irregular.operators.engines.spectral.separable import GridGeometry
from ccnn_irregular.operators.numerics.axiswise import convolved, to_modes
from ccnn_irregular.operators.numerics.uniform import Nodes, UniformSum, repeated


def kernel_of(extent: list[float], channels: int = 3, **options: object) -> Kernel:
    torch.manual_seed(0)
    d = len(extent)
    return Kernel(SIREN(d, channels, 16, omega_0=3.0), GaussianMask([e / 3 for e in extent]), extent=extent, **options)


def relative_error(found: torch.Tensor, exact: torch.Tensor) -> float:
    """The largest over entries and channels."""
    found, exact = found.detach(), exact.detach()
    return float(((found - exact).flatten(2).norm(dim=2) / exact.flatten(2).norm(dim=2)).max())


SCANS = Grid([12, 10, 6], [0.94, 1.03, 3.7], [-5.0, -4.5, -9.0])
LATENT = Grid([8, 9, 7], [1.25, 1.25, 3.1], [-4.4, -5.0, -9.3])


@settings(max_examples=12, deadline=None)
@given(
    d=st.integers(1, 3),
    data=st.data(),
    rtol=st.sampled_from([1e-2, 1e-3, 1e-5]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_results_and_gradients_are_those_of_the_sum(
    d: int, data: st.DataObject, rtol: float, dtype: torch.dtype
) -> None:
    sizes, steps = data.draw(st.lists(st.integers(1, {1: 40, 2: 10, 3: 5}[d]), min_size=d, max_size=d)), []
    steps = data.draw(st.lists(st.floats(0.5, 3.0), min_size=2 * d, max_size=2 * d))
    starts = data.draw(st.lists(st.floats(-4.0, 4.0), min_size=d, max_size=d))
    wraps = data.draw(st.lists(st.booleans(), min_size=d, max_size=d))
    source = Grid(sizes, steps[:d], periodic=wraps)
    query = Grid([max(1, n - 1) for n in sizes], steps[d:], starts)
    reach = [min(4.0, 0.48 * n * h) if wrap else 4.0 for n, h, wrap in zip(sizes, steps, wraps, strict=False)]
    kernel = kernel_of([0.8 * r for r in reach]).to(dtype)
    if isinstance(ENGINES["spectral"].assess(kernel, source, query, 2, rtol), str):
        return
    values = torch.randn(2, 3, *sizes, dtype=dtype, requires_grad=True)
    exact, found = (convolve(kernel, values, source, query, engine=e, rtol=rtol) for e in ("reference", "spectral"))
    along = torch.randn_like(exact)
    size = float(exact.detach().norm())
    assert float((found - exact).detach().norm()) <= 1.5 * rtol * size + 1e-6 * float(values.detach().norm())
    slopes = [torch.autograd.grad((one * along).sum(), [values, *kernel.parameters()]) for one in (exact, found)]
    largest = max(float(one.norm()) for one in slopes[0])
    for wanted, got in zip(*slopes, strict=True):
        assert float((got - wanted).norm()) <= max(10 * rtol, 1e-3) * max(float(wanted.norm()), 0.3 * largest) + 1e-5


@pytest.mark.parametrize("options", [{}, {"shape": (2, 3)}])
def test_two_scans_of_odd_voxels_meet_a_latent_grid(options: dict[str, object]) -> None:
    kernel = kernel_of([4.0, 4.0, 9.0], 6 if options else 3, **options)
    values = torch.randn(2, 3, *SCANS.sizes)
    exact = convolve(kernel, values, SCANS, LATENT, engine="reference")
    assert relative_error(convolve(kernel, values, SCANS, LATENT, engine="spectral"), exact) < 1e-3
    back = convolve(kernel, torch.randn(1, 3, *LATENT.sizes), LATENT, SCANS, engine="spectral", check=20)
    assert back.shape == (1, kernel.out_channels, *SCANS.sizes)


def test_auto_takes_it_and_explains_it() -> None:
    kernel = kernel_of([4.0, 4.0, 9.0])
    shown = explain(kernel, SCANS, LATENT)
    assert shown.choice == "spectral"
    assert "modes" in str(shown)
    assert make_plan(kernel, SCANS, LATENT).engine == "spectral"


def test_a_fine_lattice_is_left_to_the_cheaper_way() -> None:
    source, query = Grid([40, 40], [1.0, 1.0]), Grid([30, 30], [1.3, 1.3])  # a common lattice of 0.1
    kernel = kernel_of([4.0, 4.0])
    assert all(isinstance(explain(kernel, source, query).costs[name], Cost) for name in ("fft", "spectral"))
    values = torch.randn(1, 3, 40, 40)
    results = [convolve(kernel, values, source, query, engine=engine) for engine in ("fft", "spectral")]
    assert relative_error(results[1], results[0]) < 1e-3
    simple = explain(kernel, source, Grid([30, 30], [1.5, 1.5]))
    assert "'fft' is exact" in str(simple.costs["spectral"])


def test_a_causal_axis_keeps_its_lattice_and_no_other_may_be_causal() -> None:
    kernel = kernel_of([4.0, 4.0], causal_axes=(0,))
    source = Grid([20, 20], [1.0, 0.94])
    query = Grid([10, 15], [2.0, 1.25], [0.5, 0.3])
    values = torch.randn(1, 3, 20, 20)
    exact = convolve(kernel, values, source, query, engine="reference")
    assert relative_error(convolve(kernel, values, source, query, engine="spectral"), exact) < 1e-3
    changed = values.clone()
    changed[:, :, 11:] = 9.0  # after the first six queries
    answers = [convolve(kernel, one, source, query, engine="spectral")[:, :, :6] for one in (values, changed)]
    assert torch.allclose(*answers, atol=1e-4)
    with pytest.raises(ValueError, match="jumps along an axis"):
        convolve(kernel, values, source, Grid([10, 15], [1.7771, 1.25]), engine="spectral")


def test_axes_that_repeat() -> None:
    source = Grid([36, 19], [10.0, 10.3], periodic=(True, False))
    query = Grid([50, 25], [7.0713, 7.7], [3.3, 1.0])  # more than once round
    kernel = kernel_of([50.0, 40.0])
    values = torch.randn(1, 3, 36, 19)
    exact = convolve(kernel, values, source, query, engine="reference")
    assert relative_error(convolve(kernel, values, source, query, engine="spectral"), exact) < 1e-3


@pytest.mark.parametrize("kind", ["mean", "outlier", "unlike entries"])
def test_values_that_cancel_or_dwarf_others_keep_the_error(kind: str) -> None:
    source, query = Grid([24, 20], [0.94, 1.03]), Grid([16, 15], [1.25, 1.25], [0.2, 0.1])
    kernel = kernel_of([4.0, 4.0])
    values = torch.randn(2, 3, 24, 20)
    if kind == "mean":
        values = 288.0 + 0.5 * values
    elif kind == "outlier":
        values[0, 0, 5, 5] = 1e7
    else:
        values[0] *= 1e6
    exact = convolve(kernel.double(), values.double(), source, query, engine="reference")
    found = convolve(kernel.float(), values, source, query, engine="spectral").double()
    far = slice(10, None) if kind == "outlier" else slice(None)  # beyond the reach of the outlier
    assert relative_error(found[:, :, far, far], exact[:, :, far, far]) < 2e-3


def test_a_kernel_that_became_sharper_renews_its_plan() -> None:
    kernel, values = kernel_of([4.0, 4.0, 9.0]), torch.randn(1, 3, *SCANS.sizes)
    plan = make_plan(kernel, SCANS, LATENT, engine="spectral")
    with torch.no_grad():
        kernel.mask.log_scale -= 1.0
    exact = convolve(kernel, values, SCANS, LATENT, engine="reference")
    assert relative_error(convolve(kernel, values, SCANS, LATENT, plan=plan), exact) < 1e-3
    with torch.no_grad():
        kernel.mask.log_scale += 1.3
    exact = convolve(kernel, values, SCANS, LATENT, engine="reference")
    assert relative_error(convolve(kernel, values, SCANS, LATENT, plan=plan), exact) < 1e-3


def test_memory_is_linear_in_the_nodes() -> None:
    kernel = kernel_of([30.0], 1)
    source, query = Grid([60_000], [0.94]), Grid([45_000], [1.25])
    cost = ENGINES["spectral"].assess(kernel, source, query, 1, 1e-3)
    assert isinstance(cost, Cost)
    assert cost.bytes < 1e3 * source.count
    found = convolve(kernel, torch.randn(1, 1, source.count), source, query, engine="spectral", check=5)
    assert found.shape == (1, 1, query.count)


def test_nodes_that_nothing_reaches_get_nothing_and_one_node_is_a_grid() -> None:
    kernel = kernel_of([2.0, 2.0])
    far = convolve(kernel, torch.randn(1, 3, 9, 9), Grid([9, 9], [0.94, 1.1]), Grid([4, 4], [1.25, 1.3], [90.0, 0.0]))
    assert not far.any()
    one = Grid([1, 1], [0.94, 1.1])
    values = torch.ones(1, 3, 1, 1)
    exact = convolve(kernel, values, one, Grid([3, 1], [1.25, 1.3]), engine="reference")
    assert torch.allclose(convolve(kernel, values, one, Grid([3, 1], [1.25, 1.3]), engine="spectral"), exact, atol=2e-3)


@settings(max_examples=15, deadline=None)
@given(
    count=st.integers(1, 30),
    step=st.sampled_from([1 / 32, 1 / 40, 0.0271828, 0.013]),
    first=st.floats(-2.0, 2.0),
    low=st.integers(-40, 5),
    modes=st.integers(1, 70),
    about_zero=st.booleans(),
)
def test_matrix_fft_and_chirp_are_the_sum(
    count: int, step: float, first: float, low: int, modes: int, about_zero: bool
) -> None:
    first = -0.5 * step * (count - 1) if about_zero else first
    one = UniformSum(Nodes(first, step, count), low, modes, torch.device("cpu"), torch.complex128)
    turns = torch.arange(low, low + modes)[:, None] * (first + step * torch.arange(count, dtype=torch.float64))
    matrix = torch.exp(-2j * torch.pi * turns)
    values, spectrum = (
        torch.randn(2, count, 3, dtype=torch.complex128),
        torch.randn(2, modes, 3, dtype=torch.complex128),
    )
    for dense in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(UniformSum, "dense", dense)
            same = replace(one)
            assert torch.allclose(same.to_modes(values, -2), matrix @ values, atol=1e-9)
            assert torch.allclose(same.at_nodes(spectrum, -2), matrix.mH @ spectrum, atol=1e-9)
            reals = torch.view_as_real(values).movedim(-1, 0).movedim(-2, -1)
            assert torch.allclose(same.to_modes(reals, -1), reals.to(values) @ matrix.T, atol=1e-9)
            back = (spectrum.mT @ matrix.conj()).real
            assert torch.allclose(same.real_at_nodes(spectrum.mT), back, atol=1e-9)


@pytest.mark.parametrize(("count", "modes"), [(5, 9), (6, 9), (6, 17), (1, 3)])
def test_modes_about_the_middle_repeat_up_to_their_sign(count: int, modes: int) -> None:
    one = UniformSum(Nodes(0.0, 1 / 6, count).about(0.0), -4, modes, torch.device("cpu"), torch.complex128)
    values = torch.randn(2, count, 3, dtype=torch.complex128)
    again = repeated(one.distinct.to_modes(values, -2), [modes, 3])
    signs = 1 - 2 * (torch.arange(modes) // (one.alternating or modes) % 2)
    assert one.distinct.count == min(6, modes)
    assert torch.allclose(again * signs[:, None], one.to_modes(values, -2), atol=1e-12)


@pytest.mark.parametrize("shape", [(3,), (2, 3)])
@pytest.mark.parametrize("sizes", [((4, 3), (3, 5)), ((600,), (520,))])
def test_first_and_second_gradients_through_the_modes(
    sizes: tuple[tuple[int, ...], ...], shape: tuple[int, ...]
) -> None:
    size, wanted = sizes
    d, steps = len(size), [0.94, 1.03]
    kernel = kernel_of([2.0] * d, math.prod(shape), shape=shape).double()
    source, query = Grid(size, steps[:d]), Grid(wanted, [1.25, 1.2][:d], [0.3] * d)
    geometry = GridGeometry.build([kernel], source, query, 1e-2)
    assert isinstance(geometry, GridGeometry)
    taps = geometry.transfer(kernel).taps.detach().requires_grad_()
    rows = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)

    def result(rows: torch.Tensor, taps: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            parts = [to_modes(part, [way.taps for way in geometry.ways]) for part in taps.split(2)]
        return convolved(rows, taps, parts, geometry.ways)

    assert torch.autograd.gradcheck(result, (rows, taps), fast_mode=True)
    assert torch.autograd.gradgradcheck(result, (rows, taps), fast_mode=True)


def test_parts_of_the_channels_give_what_all_do_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.randn(2, 3, *SCANS.sizes)
    for options in ({}, {"shape": (2, 3)}):
        kernel = kernel_of([4.0, 4.0, 9.0], 6 if options else 3, **options)
        whole = convolve(kernel, values, SCANS, LATENT, engine="spectral")
        with monkeypatch.context() as patch:
            patch.setattr("ccnn_irregular.operators.engines.spectral.separable._AT_ONCE", 1.0)
            assert torch.allclose(convolve(kernel, values, SCANS, LATENT, engine="spectral"), whole, atol=1e-4)
