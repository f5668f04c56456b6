"""Calibration in any unit and with any kind of parameters; the kernel's scale apart from its weights."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from contract_cases import seeded, uniform
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ccnn_irregular import (
    CCNN,
    SIREN,
    ContinuousConv,
    GaussianMask,
    Grid,
    Kernel,
    KernelSpec,
    Points,
    Product,
    SeparableContinuousConv,
    convolve,
)
from ccnn_irregular.adapters.geometric_networks import CloudCCNN, CloudUNet
from ccnn_irregular.domains import Domain
from ccnn_irregular.kernels.taps import dilated
from ccnn_irregular.layers import mean_square
from ccnn_irregular.networks.ccnn import HeadName
from ccnn_irregular.networks_unet import ContinuousUNet
from ccnn_irregular.testing import assert_close

SIZES = (7, 6, 3, 3)
MONTH, NANOMETRE, ANGSTROM = 2.6e6, 1e-9, 1e-10  # seconds, metres
# Steps per axis: what one cell measures.
UNITS = {
    "hours": [0.5],
    "a climate cube in seconds and metres": [MONTH, 1e3, 1e5, 1e5],
    "voxels of 20 nm in metres": [20 * NANOMETRE] * 3,
    "molecular dynamics in seconds and metres": [1e-15, ANGSTROM, ANGSTROM, ANGSTROM],
    "months and nanometres": [MONTH, NANOMETRE, NANOMETRE],
    "gigametres": [1e9] * 4,
}
everywhere = pytest.mark.parametrize("steps", UNITS.values(), ids=UNITS.keys())
both_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def kernel_in(steps: Sequence[float], shape: tuple[int] | tuple[int, int] = (3,)) -> Kernel:
    torch.manual_seed(0)
    generator = SIREN(len(steps), math.prod(shape), hidden=8, omega_0=2.0)
    return Kernel(generator, GaussianMask([2 * s for s in steps]), extent=[5 * s for s in steps], shape=shape)


def grid_in(steps: Sequence[float]) -> Grid:
    return Grid(SIZES[: len(steps)], steps)


def noise(domain: Grid, channels: int, dtype: torch.dtype, seed: int = 1) -> Tensor:
    return seeded(40, channels, *domain.sizes, seed=seed).to(dtype)


def whole_kernel(kernel: Kernel, offsets: Tensor) -> Tensor:
    """Kernel values times the scale in float64: the scale alone may be beyond float32."""
    return kernel.unscaled(offsets.to(kernel.dtype)).detach().double() * kernel.scale


@everywhere
@both_dtypes
def test_white_noise_keeps_its_variance_in_any_unit(steps: list[float], dtype: torch.dtype) -> None:
    layer, grid = ContinuousConv(kernel_in(steps)).to(dtype), grid_in(steps)
    layer.calibrate(grid)
    result = layer(noise(grid, 3, dtype), grid).detach()
    assert 0.6 < float(result.std()) < 1.6
    # The gain that white noise of variance 1 has, by the definition of the sum.
    nodes = grid.nodes()
    squares = whole_kernel(layer.kernel, nodes[:, None] - nodes[None]).square().sum(1) * math.prod(steps) ** 2
    assert float(squares.mean()) == pytest.approx(1, rel=0.3)


@both_dtypes
@settings(max_examples=8)
@given(exponent=st.floats(-11, 11), d=st.integers(1, 4), count=st.integers(1, 2))
def test_the_unit_does_not_matter(dtype: torch.dtype, exponent: float, d: int, count: int) -> None:
    """A layer calibrated in another unit of length gives the same numbers for the same field."""
    unit, steps = 10**exponent, [0.5, 0.7, 1.1, 0.3][:d]
    shape = (3,) if count == 1 else (2, 3)
    results = []
    for factor in (1.0, unit):
        scaled = [step * factor for step in steps]
        layer, grid = ContinuousConv(kernel_in(scaled, shape)).to(dtype), grid_in(scaled)
        layer.calibrate(grid)
        results.append(layer(noise(grid, 3, dtype)[:2], grid).detach())
    assert_close(results[1], results[0], factor=1e3 if dtype == torch.float64 else 30)


@pytest.mark.parametrize("steps", list(UNITS.values())[1:], ids=list(UNITS)[1:])
def test_all_engines_multiply_by_the_scale(steps: list[float]) -> None:
    layer, grid = ContinuousConv(kernel_in(steps, (2, 3))), grid_in(steps)
    layer.calibrate(grid)
    values, nodes = noise(grid, 3, torch.float32)[:2], grid.nodes()
    matrix = whole_kernel(layer.kernel, nodes[:, None] - nodes[None]) * math.prod(steps)
    rows = values.flatten(2).double()
    wanted = torch.einsum("mndc,bcn->bmd", matrix, rows)
    scale = float(wanted.abs().max())

    def close(found: Tensor, allowed: float = 1e-5) -> None:
        assert float((found.detach().double() - wanted).abs().max()) <= allowed * scale

    for engine in ("fft", "reference"):
        close(convolve(layer.kernel, values, grid, engine=engine).flatten(2).movedim(1, 2))
    points = grid.as_points(2)
    flat = values.flatten(2).movedim(1, 2).flatten(0, 1)
    engines = ["reference", "neighbours", *(["spectral"] if len(steps) <= 3 else [])]
    for engine in engines:
        found = convolve(layer.kernel, flat, points, engine=engine, rtol=1e-4)  # type: ignore[arg-type]
        close(found.unflatten(0, (2, -1)), 2e-3 if engine == "spectral" else 1e-5)
    first = Points(grid.axes[0].nodes()[:, None], torch.full((grid.sizes[0],), steps[0]))
    product = Product(first, Grid(grid.sizes[1:], steps[1:]))
    for engine in ("reference", "spectral"):
        found = convolve(layer.kernel, values[0].movedim(1, 0), product, engine=engine, rtol=1e-4)  # type: ignore[arg-type]
        wanted_here = wanted[0].reshape(*grid.sizes, 2).movedim(-1, 1)
        assert float((found.detach().double() - wanted_here).abs().max()) <= 2e-3 * scale


@everywhere
@both_dtypes
def test_on_the_values_that_arrive_in_any_unit(steps: list[float], dtype: torch.dtype) -> None:
    """Values that are large or small themselves, too: their squares leave float32's range."""
    layer, grid = SeparableContinuousConv(kernel_in(steps), 8).to(dtype), grid_in(steps)
    for size in (1.0, 1e-25, 1e25):
        fresh, values = copy.deepcopy(layer), noise(grid, 3, dtype) * size
        fresh.calibrate(grid, values=values)
        found = fresh(values, grid).detach().double().square().mean()
        assert float(found) == pytest.approx(float(values.double().square().mean()), rel=1e-3)


def test_mean_square_of_any_size() -> None:
    grid, points = Grid((4,), (1.0,)), Points(uniform(4, 1), torch.tensor([1.0, 0.0, 2.0, 1.0]))
    values = torch.tensor([[1.0, 2.0, -3.0, 0.5]])
    for size in (1.0, 1e-30, 1e30):
        scaled = values * size
        assert mean_square(scaled[None], grid) == pytest.approx(float(np.mean(values.numpy() ** 2)) * size**2)
        rows = scaled.T.clone()
        rows[1] = math.nan  # weighs nothing
        assert mean_square(rows, points) == pytest.approx((1 + 2 * 9 + 0.25) / 4 * size**2)
    assert mean_square(torch.zeros(1, 1, 4), grid) == 0


@everywhere
def test_training_does_not_follow_the_unit(steps: list[float]) -> None:
    """What an optimiser moves stays of the size it was initialised with."""
    layer, grid = ContinuousConv(kernel_in(steps)), grid_in(steps)
    layer.calibrate(grid)
    weight = layer.kernel.generator.output.weight
    assert 1e-6 < float(weight.detach().abs().max()) < 1e6
    values = noise(grid, 3, torch.float32)[:2]
    layer(values, grid).square().mean().backward()
    assert 1e-6 < float(weight.grad.abs().max()) < 1e6


PARAMETRIZED = {
    "weight norm": nn.utils.parametrizations.weight_norm,
    "spectral norm": nn.utils.parametrizations.spectral_norm,
    "orthogonal": nn.utils.parametrizations.orthogonal,
}


@pytest.mark.parametrize("kind", PARAMETRIZED.values(), ids=PARAMETRIZED.keys())
def test_an_output_layer_with_a_computed_weight(kind: object) -> None:
    layer, grid = ContinuousConv(kernel_in([0.1, 0.1])), grid_in([0.1, 0.1])
    kind(layer.kernel.generator.output)  # type: ignore[operator]
    layer.eval().calibrate(grid)
    result = layer(noise(grid, 3, torch.float32), grid).detach()
    assert 0.6 < float(result.std()) < 1.6
    before = {name: one.clone() for name, one in layer.state_dict().items()}
    layer.calibrate(grid)
    assert all(torch.allclose(one, before[name], rtol=1e-5) for name, one in layer.state_dict().items())


@pytest.mark.parametrize("kind", ["weight_norm", "spectral_norm"])
@pytest.mark.filterwarnings("ignore:.*deprecated.*:FutureWarning")
def test_weights_that_a_hook_computes_are_refused(kind: str) -> None:
    """The hook runs when the layer is called, and a kernel formula reads its weight: training would change nothing."""
    layer, grid = ContinuousConv(kernel_in([0.5])), grid_in([0.5])
    getattr(nn.utils, kind)(layer.kernel.generator.output)
    with pytest.raises(ValueError, match=r"kernel must have weights that no hook computes: use torch\.nn\.utils\.para"):
        layer(noise(grid, 3, torch.float32), grid)


def test_weights_of_a_calibration_that_fits_them_stay_where_they_were() -> None:
    """In usual units nothing but the output layer changes: what is known of rates of learning goes on to hold."""
    layer, grid = ContinuousConv(kernel_in([0.5])), grid_in([0.5])
    before = layer.kernel.generator.output.weight.detach().clone()
    layer.calibrate(grid)
    assert float(layer.kernel.scale) == 1
    ratio = layer.kernel.generator.output.weight.detach() / before
    assert_close(ratio, ratio[0, 0].expand_as(ratio).contiguous(), factor=10)
    assert abs(float(ratio[0, 0]) - 1) > 0.01


# ---- the scale ----


def test_the_scale_stays_float64_and_moves_with_the_kernel() -> None:
    kernel = kernel_in([0.5])
    kernel.scale.fill_(1e45)
    for change in (lambda: kernel.double(), lambda: kernel.float(), lambda: kernel.to(torch.bfloat16)):
        change()
        assert kernel.scale.dtype == torch.float64
        assert float(kernel.scale) == 1e45
    assert float(copy.deepcopy(kernel).scale) == 1e45
    other = kernel_in([0.5])
    other.load_state_dict(kernel.state_dict())
    assert float(other.scale) == 1e45
    assert float(dilated(kernel.float(), 2.0).scale) == 1e45


def test_kernel_values_hold_the_scale() -> None:
    kernel = kernel_in([0.5])
    offsets = uniform(5, 1, low=-0.5, high=0.5)
    before = kernel.double()(offsets).detach()
    kernel.scale.fill_(1e45)
    assert_close(kernel(offsets).detach() / 1e45, before)
    beyond = kernel.float()(torch.tensor([[9.0]]))
    assert float(beyond.detach().abs().max()) == 0, "0 outside the support, whatever the scale"


@pytest.mark.parametrize("given", [0.0, -1.0, math.inf, math.nan])
def test_a_scale_that_is_none_is_refused(given: float) -> None:
    with pytest.raises(ValueError, match="scale must be positive and finite"):
        Kernel(SIREN(1, 1), extent=[1.0], scale=given)


def test_checkpoints_without_a_scale_load() -> None:
    """They hold all of the kernel in its weights, also for a layer that has been calibrated since."""
    layer = ContinuousConv(kernel_in([NANOMETRE] * 3))
    older = {name: one.clone() for name, one in layer.state_dict().items() if not name.endswith("scale")}
    assert "kernel.log_scale" not in older
    older |= {name: one for name, one in layer.state_dict().items() if name.endswith("log_scale")}
    offsets = uniform(5, 3, low=-NANOMETRE, high=NANOMETRE).float()
    wanted = layer.kernel(offsets).detach()
    layer.calibrate(grid_in([NANOMETRE] * 3))
    assert float(layer.kernel.scale) > 1e20
    layer.load_state_dict(older)
    assert_close(layer.kernel(offsets).detach(), wanted)
    assert float(layer.kernel.scale) == 1


def test_a_partial_checkpoint_leaves_the_scale() -> None:
    layer = ContinuousConv(kernel_in([NANOMETRE] * 3))
    layer.calibrate(grid_in([NANOMETRE] * 3))
    before = float(layer.kernel.scale)
    layer.load_state_dict({"bias": torch.ones(3)}, strict=False)
    assert float(layer.kernel.scale) == before


# ---- empty samples ----


def test_empty_samples_count_for_nothing() -> None:
    steps = [0.5, 0.7]
    full = Points(uniform(30, 2, high=3.0, seed=1), uniform(30, low=0.1, seed=2), torch.tensor([0, 10, 30]))
    gappy = Points(full.coordinates, full.weights, torch.tensor([0, 0, 10, 10, 30, 30]))
    queries = Points(uniform(40, 2, high=3.0, seed=3), splits=torch.tensor([0, 20, 40]))
    with_more = Points(torch.cat([uniform(9, 2), queries.coordinates]), splits=torch.tensor([0, 9, 29, 29, 49, 49]))
    for shape in ((3,), (2, 3)):
        one, other = (ContinuousConv(kernel_in(steps, shape)).double() for _ in range(2))
        one.calibrate(full, queries)
        other.calibrate(gappy, with_more)
        assert_close(other.kernel.generator.output.weight.detach(), one.kernel.generator.output.weight.detach())


def test_nothing_but_empty_samples_is_refused() -> None:
    layer = ContinuousConv(kernel_in([0.5]))
    nothing = Points(torch.zeros(0, 1), splits=torch.tensor([0, 0, 0]))
    with pytest.raises(ValueError, match="source must reach the queries within the kernel's support"):
        layer.calibrate(nothing)


# ---- whole networks ----


def ccnn(steps: list[float], latent: Grid | None = None) -> CCNN:
    torch.manual_seed(0)
    kernel = KernelSpec(extent=[5 * s for s in steps], width=[2 * s for s in steps], omega_0=5.0, hidden=8)
    return CCNN(2, 8, 3, kernel=kernel, blocks=1, latent=latent)


def responses(network: nn.Module, *given: object) -> list[float]:
    """Root mean square of what each convolution makes, over that of what it reads."""
    found: list[float] = []

    def note(module: nn.Module, arguments: tuple[Tensor, ...], result: Tensor) -> None:
        made, read = (one.detach().double().square().mean().sqrt() for one in (result, arguments[0]))
        found.append(float(made / read))

    kinds = (SeparableContinuousConv, ContinuousConv)
    handles = [one.register_forward_hook(note) for one in network.modules() if isinstance(one, kinds)]
    network.eval()(*given)
    for handle in handles:
        handle.remove()
    return found


@everywhere
@both_dtypes
def test_a_network_in_any_unit(steps: list[float], dtype: torch.dtype) -> None:
    network, grid = ccnn(steps).to(dtype), grid_in(steps)
    network.calibrate(grid)
    assert all(0.3 < one < 3 for one in responses(network, noise(grid, 2, dtype), grid))


@pytest.mark.parametrize("latent", [False, True])
def test_a_network_with_an_empty_sample(latent: bool) -> None:
    places = Points(uniform(30, 1, high=3.0, seed=1), splits=torch.tensor([0, 0, 12, 12, 30]))
    network = ccnn([0.3], latent=Grid((12,), (0.3,)) if latent else None)
    network.calibrate(places)
    assert all(0.05 < one < 20 for one in responses(network, seeded(30, 2).float(), places))
    assert bool(network.eval()(seeded(30, 2).float(), places).isfinite().all())


@pytest.mark.parametrize("unit", [1.0, 1e-8, 1e6])
def test_the_unet_in_any_unit(unit: float) -> None:
    torch.manual_seed(0)
    network = ContinuousUNet(1, 2, channels=(4, 6), blocks=(1, 1), steps=[0.4 * unit, 0.4 * unit, 2 * unit])
    grid = Grid((9, 8, 5), (0.4 * unit, 0.4 * unit, 2 * unit))
    values = seeded(2, 1, *grid.sizes).float()
    network.calibrate(values, grid)
    assert all(0.1 < one < 10 for one in responses(network, values, grid))


@pytest.mark.parametrize("kind", [CloudCCNN, CloudUNet])
@pytest.mark.parametrize("unit", [1.0, 1e-9, 1e7])
def test_cloud_networks_in_any_unit_and_with_an_empty_cloud(kind: type[CloudCCNN | CloudUNet], unit: float) -> None:
    torch.manual_seed(0)
    network = kind(1, 3, channels=(4, 6), spacing=0.3 * unit)
    positions, cloud = uniform(60, 3).float() * unit, torch.arange(60) // 20 * 2  # clouds 1 and 3 are empty
    weights = torch.full((60,), unit**3 / 20, dtype=torch.float64)
    network.calibrate(None, positions, cloud, weights)
    assert all(0.1 < one < 10 for one in responses(network, None, positions, cloud, weights) if math.isfinite(one))


# Evaluation after a few steps, as of one small file, is as good as training: norms do not begin at zeros and ones.


def in_both_modes(network: nn.Module, *given: object) -> tuple[Tensor, Tensor]:
    """Answers in evaluation, and in training, which does not change the ones before."""
    with torch.no_grad():
        return network.eval()(*given), network.train()(*given)


@pytest.mark.parametrize("kind", [CloudCCNN, CloudUNet])
def test_a_calibrated_network_of_clouds_evaluates_as_it_trains(kind: type[CloudCCNN | CloudUNet]) -> None:
    torch.manual_seed(0)
    network = kind(2, 3, channels=(4, 6), spacing=0.2)
    positions, values, cloud = uniform(80, 3).float(), 300 * seeded(80, 2).float() + 40, torch.arange(80) // 40
    network.calibrate(values, positions, cloud)
    found, wanted = in_both_modes(network, values, positions, cloud)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4 * float(wanted.abs().max()))


@pytest.mark.parametrize("head", ["classify", "dense"])
@pytest.mark.parametrize("form", ["points", "grid"])
def test_a_calibrated_network_evaluates_as_it_trains(form: str, head: HeadName) -> None:
    torch.manual_seed(0)
    kernel = KernelSpec(extent=1.0, width=0.3, omega_0=5.0, hidden=8)
    network = CCNN(2, 8, 3, kernel=kernel, blocks=2, head=head)
    domain: Domain = Grid((400,), (0.02,)) if form == "grid" else Points(uniform(60, 1, high=8.0, seed=1))
    values = 300 * (seeded(2, 2, 400) if form == "grid" else seeded(60, 2)).float() + 40
    network.calibrate(domain, values)
    found, wanted = in_both_modes(network, values, domain)
    # On grids the variance in evaluation has the factor n / (n - 1).
    torch.testing.assert_close(found, wanted, rtol=0, atol=0.03 * float(wanted.abs().max()))


# ---- a hint ----


@pytest.mark.parametrize("unit", [1e-4, 1e4])
@pytest.mark.parametrize("form", ["grid", "points", "product"])
def test_a_layer_that_was_not_calibrated_says_so(form: str, unit: float) -> None:
    steps = [unit, unit]
    grid = grid_in(steps)
    product = Product(Points(grid.axes[0].nodes()[:, None], torch.full((7,), unit)), Grid([6], [unit]))
    domain: Domain = {"grid": grid, "points": grid.as_points(), "product": product}[form]  # type: ignore[assignment]
    values = {"grid": seeded(2, 3, 7, 6), "points": seeded(42, 3), "product": seeded(7, 3, 6)}[form].float()
    layer = SeparableContinuousConv(kernel_in(steps), 2)
    with pytest.warns(UserWarning, match=r"about \de[+-]\d\d times as large .* call the network's"):
        layer(values, domain)
    layer.calibrate(domain)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer(values, domain)


@pytest.mark.parametrize("values", [torch.zeros(1, 3, 7, 6), torch.zeros(0, 3, 7, 6)], ids=["zeros", "nothing"])
def test_no_hint_where_nothing_arrives(values: Tensor) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ContinuousConv(kernel_in([1e-4, 1e-4]))(values, grid_in([1e-4, 1e-4]))


def test_no_hint_for_a_kernel_that_cancels_what_it_reads() -> None:
    """A difference of a constant is 0 by right, not by its unit."""
    kernel, grid = kernel_in([0.5]), Grid((400,), (0.5,), periodic=True)
    layer = ContinuousConv(kernel)
    with torch.no_grad():
        offsets = torch.arange(-200, 200)[:, None] * 0.5
        kernel.generator.output.bias.sub_(kernel(offsets).sum(0) / kernel.mask(offsets).sum(0).expand(3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = layer(torch.ones(1, 3, 400), grid)
    assert float(result.detach().abs().max()) < 1e-4
