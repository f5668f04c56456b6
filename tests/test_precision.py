"""Numbers that stay right: long sums, small units, far places, autocast, and what weighs nothing."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from contract_cases import requires_compiler, seeded, small_kernel
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import gammainc
from tested_device import DEVICE, convolve, explain
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
    batch_statistics,
)
from ccnn_irregular._sums import gathered, linear, sums_of_sorted
from ccnn_irregular.domains import Domain
from ccnn_irregular.layers import BatchNorm, InstanceNorm, PointwiseLinear, mean_over_positions
from ccnn_irregular.networks_unet import ContinuousUNet
from ccnn_irregular.operators.engines.keops import _parts

FLOAT32 = 1e-6
MANY = 300_000


def error(found: Tensor, wanted: Tensor | np.ndarray) -> float:
    """Norm of the difference over the norm of what is right."""
    wanted = torch.as_tensor(wanted).detach().double()
    return float((found.detach().double() - wanted).norm() / wanted.norm())


def smooth_mask(mask: GaussianMask, offsets: np.ndarray) -> np.ndarray:
    """exp(-s) P(3, s_max - s) / P(3, s_max) with SciPy's incomplete gamma function, free of differences."""
    width = mask.width.detach().double().numpy()
    s, most = 0.5 * ((offsets / width) ** 2).sum(-1), -math.log(mask.threshold)
    return np.exp(-s) * gammainc(3, np.maximum(most - s, 0)) / gammainc(3, most)


def constant_kernel(width: float) -> Kernel:
    """The mask alone."""
    kernel = Kernel(SIREN(1, 1, hidden=2, layers=1), GaussianMask([width]), extent=[1.0])
    with torch.no_grad():
        kernel.generator.output.weight.zero_()
        kernel.generator.output.bias.fill_(1.0)
    return kernel


# ---- long sums ----


@pytest.mark.parametrize("engine", ["reference", "neighbours"])
def test_a_sum_of_very_many_terms_is_as_accurate_as_one_of_few(engine: str) -> None:
    kernel, place = constant_kernel(0.3), torch.linspace(0, 1, MANY, dtype=torch.float64)[:, None]
    many = Points(place, torch.full((MANY,), 1 / MANY, dtype=torch.float64))
    few = Points(torch.tensor([[0.3], [0.5]], dtype=torch.float64), torch.ones(2, dtype=torch.float64).requires_grad_())
    matrix = smooth_mask(kernel.mask, (few.coordinates - place[:, 0]).numpy()[..., None])
    found = convolve(kernel, torch.ones(MANY, 1), many, few, engine=engine)
    assert error(found[:, 0], matrix.mean(1)) < FLOAT32
    # The other way round the gradients are the long sums.
    values = torch.ones(2, 1, requires_grad=True)
    convolve(kernel, values, few, many, engine=engine).sum().backward()
    assert error(values.grad[:, 0], matrix.sum(1)) < FLOAT32
    assert error(few.weights.grad, matrix.sum(1)) < FLOAT32
    bias = kernel.generator.output.bias.grad
    assert error(bias, torch.tensor([matrix.sum()])) < FLOAT32


def test_gradients_of_parameters_over_very_many_pairs() -> None:
    torch.manual_seed(0)
    kernel = Kernel(SIREN(1, 1, hidden=4, omega_0=0.5), GaussianMask([0.3]), extent=[1.0])
    twin = copy.deepcopy(kernel).double()
    many, few = Points(torch.rand(MANY, 1, dtype=torch.float64)), Points(torch.tensor([[0.3]], dtype=torch.float64))
    for one in (kernel, twin):
        convolve(one, torch.ones(MANY, 1, dtype=one.dtype), many, few, engine="reference").sum().backward()
    for found, wanted in zip(kernel.parameters(), twin.parameters(), strict=True):
        assert error(found.grad, wanted.grad) < 2e-6


@given(st.lists(st.integers(0, 300), min_size=1, max_size=6), st.integers(0, 5))
def test_sums_by_row_are_those_of_numpy(lengths: list[int], seed: int) -> None:
    rows = seeded(sum(lengths), 2, seed=seed)
    index = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    wanted = [rows[index == one].numpy().sum(0) for one in range(len(lengths))]
    torch.testing.assert_close(sums_of_sorted(rows, index, len(lengths)), torch.from_numpy(np.stack(wanted)))


def test_sums_have_derivatives_of_any_order() -> None:
    index = torch.arange(3).repeat_interleave(3)[:7]
    rows = seeded(7, 2, requires_grad=True)
    for function in (lambda x: sums_of_sorted(x, index, 4) ** 2, lambda x: gathered(x[:3], index) ** 2):
        assert torch.autograd.gradcheck(function, rows)
        assert torch.autograd.gradgradcheck(function, rows)


def test_a_tall_linear_layer_is_torchs_in_every_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ccnn_irregular._sums._ROWS_PER_PRODUCT", 2)
    tensors = (seeded(3, 3, 2, seed=1), seeded(4, 2, seed=2), seeded(4, seed=3))
    inputs = tuple(one.clone().requires_grad_() for one in tensors)
    assert torch.equal(linear(*inputs), nn.functional.linear(*tensors))
    assert torch.autograd.gradcheck(linear, inputs, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(linear, inputs)
    plain, own = (
        torch.func.grad(lambda weight, run=run: run(tensors[0], weight, None).square().sum())(inputs[1])
        for run in (nn.functional.linear, linear)
    )
    torch.testing.assert_close(own, plain)


def test_a_layer_at_very_many_points() -> None:
    layer, values = PointwiseLinear(2, 3), torch.rand(1_000_000, 2, generator=torch.Generator().manual_seed(0))
    layer(values).backward(torch.full((len(values), 3), 1.1))
    wanted = values.double().sum(0) * float(torch.tensor(1.1))
    assert error(layer.weight.grad, wanted.expand(3, -1)) < FLOAT32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_means_over_very_many_points(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    values = (torch.rand(1_000_000, 2, generator=generator) + 1).to(dtype)
    weights = torch.rand(1_000_000, generator=generator, dtype=torch.float64)
    points = Points(torch.zeros(1_000_000, 1), weights, torch.tensor([0, 0, 999_000, 1_000_000]))
    found = mean_over_positions(values, points)
    assert found.dtype == dtype
    halves = [
        np.average(values.double()[part], axis=0, weights=weights[part])
        for part in (slice(999_000), slice(999_000, None))
    ]
    wanted = torch.from_numpy(np.stack([np.zeros(2), *halves]))
    assert error(found, wanted) < (FLOAT32 if dtype == torch.float32 else 4e-3)


def test_statistics_and_gradients_over_very_many_nodes() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(1, 2, 1_000_001, generator=generator) + 1
    slope = torch.rand(1, 2, 1_000_001, generator=generator) + 2 * values
    inputs = [values, torch.tensor([1.5, 0.5]), torch.tensor([0.1, 0.2])]
    exact = [one.double().requires_grad_() for one in inputs]
    inputs = [one.requires_grad_() for one in inputs]
    result, mean, variance = batch_statistics.normalised(*inputs, 1e-5)
    assert error(mean, values.double().mean((0, 2))) < FLOAT32
    assert error(variance, values.double().var((0, 2), correction=0)) < FLOAT32
    found = torch.autograd.grad(result, inputs, slope)
    wanted = torch.autograd.grad(
        nn.functional.batch_norm(exact[0], None, None, *exact[1:], training=True), exact, slope.double()
    )
    for one, other, tolerance in zip(found, wanted, (1e-5, 1e-5, FLOAT32), strict=True):
        assert error(one, other) < tolerance  # but for the bias, sums of which a twentieth is left


# ---- masks ----


@pytest.mark.parametrize("threshold", [1e-20, 1e-3, 0.1, 0.5, 0.9, 0.99, 0.9999, 1 - 1e-9])
@pytest.mark.parametrize("width", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_mask_has_all_its_digits_for_every_threshold_and_width(
    threshold: float, width: float, dtype: torch.dtype
) -> None:
    mask = GaussianMask([width], threshold).to(dtype)
    reach = float(mask.half_width)
    places = np.concatenate([np.linspace(0, 0.9, 50), [1.001, 2.0]]) * reach
    places = torch.tensor(places, dtype=dtype)[:, None]
    found = mask(places)[:, 0].detach()
    assert float(found[0]) == pytest.approx(1.0, rel=4 * torch.finfo(dtype).eps * max(1.0, -math.log(threshold)))
    # One rounding of s costs s_max / t of it, three times; near the centre that of exp(s_max).
    tolerance = 200 * torch.finfo(dtype).eps * max(1.0, -math.log(threshold))
    np.testing.assert_allclose(found[:-2], smooth_mask(mask, places[:-2].double().numpy()), rtol=tolerance)
    assert not bool(found[-2:].any())


def test_the_end_of_a_mask_falls_without_noise() -> None:
    mask = GaussianMask([1.0])
    places = float(mask.half_width) * (1 - torch.logspace(-4, -1, 100, dtype=torch.float64))
    found = mask(places.float()[:, None])[:, 0].detach()
    wanted = smooth_mask(mask, places.float().double().numpy()[:, None])
    assert bool((found.diff() > 0).all())
    np.testing.assert_allclose(found, wanted, rtol=0.02)


def test_a_mask_has_derivatives_of_every_kind() -> None:
    """Of any order, forward and backward, and under torch.func; one place on either side of the series' end."""
    mask = GaussianMask([1.0], 0.05).double()
    places = torch.tensor([[0.3], [1.7], [2.2], [-2.4]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(mask, places, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(mask, places)
    own = torch.autograd.grad(mask(places).sum(), places)[0]
    each = torch.func.vmap(torch.func.grad(lambda place: mask(place)[0]))(places.detach())
    torch.testing.assert_close(each, own)


@pytest.mark.parametrize("threshold", [0.0, 1.0, 1e-40, 1 - 1e-13])
def test_thresholds_beyond_single_precision_are_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match=r"threshold must lie between 1e-30 and 1 - 1e-11"):
        GaussianMask([1.0], threshold)


# ---- units ----


def scattered(weight: float, count: int = 9, d: int = 1) -> Points:
    coordinates = torch.rand(count, d, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weights = seeded(count, seed=2).abs() + 0.5
    return Points(coordinates, weights * weight)


@pytest.mark.parametrize("engine", ["reference", "neighbours", "spectral", "fft", "product"])
@pytest.mark.parametrize("weight", [1e-45, 1e-60, 1e42])
def test_results_do_not_leave_the_range_of_numbers_on_their_way(engine: str, weight: float) -> None:
    """Weights that float32 does not hold, a kernel as large as they are small: results near 1, gradients alike."""
    d = {"product": 2, "fft": 3}.get(engine, 1)
    kernel = small_kernel(d, width=[0.3, 0.9, 0.5][:d])
    with torch.no_grad():
        scale = min(1 / weight, 1e30) if weight < 1 else max(1 / weight, 1e-30)
        for one in (kernel.generator.output.weight, kernel.generator.output.bias):
            one.mul_(scale)
    size = 1.0 if weight < 1 else 1e-6
    size *= 1e9 if weight == 1e-60 else 1.0
    source: Domain = scattered(weight)
    if engine == "fft":
        unit = weight ** (1 / 3)
        source = Grid((3, 4, 3), (unit,) * 3)
        kernel = Kernel(kernel.generator, GaussianMask([2 * unit] * 3), extent=[4 * unit] * 3).double()
    elif engine == "product":
        source = Product(source, Grid((4,), (0.5,)))
    shape = (2, 2, 3, 4, 3) if engine == "fft" else (9, 2, 4) if engine == "product" else (9, 2)
    values = seeded(*shape, seed=3) * size
    found = {}
    for dtype in (torch.float64, torch.float32):
        own, leaf = copy.deepcopy(kernel).to(dtype), values.clone().to(dtype).requires_grad_()
        name = "spectral" if engine == "product" else engine
        result = convolve(own, leaf, source, engine=name, rtol=1e-5)
        result.sum().backward()
        found[dtype] = (result.detach(), leaf.grad)
    for one, wanted in zip(found[torch.float32], found[torch.float64], strict=True):
        assert error(one.double() * 1e20, wanted * 1e20) < 1e-4


@pytest.mark.parametrize("engine", ["reference", "fft"])
@pytest.mark.parametrize("step", [1e-13, 1e13])
def test_results_that_single_precision_does_not_hold_are_announced(step: float, engine: str) -> None:
    torch.manual_seed(0)
    grid = Grid([5, 5, 5], [step] * 3)
    kernel = Kernel(SIREN(3, 1, 8), GaussianMask([2 * step] * 3), extent=[5 * step] * 3)
    values = torch.randn(1, 1, 5, 5, 5)
    with pytest.warns(
        UserWarning, match=r"the result must lie between 1.2e-38 and 3.4e\+38 to be held in torch.float32"
    ):
        convolve(kernel, values, grid, engine=engine)  # type: ignore[arg-type]
    convolve(kernel.double(), values.double(), grid, engine=engine)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:the kernel makes values about:UserWarning")
def test_means_and_layers_in_units_that_single_precision_does_not_hold() -> None:
    values, points, usual = seeded(9, 4, dtype=torch.float32), scattered(1e-50), scattered(1.0)
    assert torch.equal(mean_over_positions(values, points), mean_over_positions(values, points))
    assert error(mean_over_positions(values, points), mean_over_positions(values, usual)) < FLOAT32
    kernel = small_kernel(1, width=[0.3], shape=(4, 2), dtype=torch.float32)
    with torch.no_grad():
        kernel.generator.output.weight.mul_(1e30)
        kernel.generator.output.bias.mul_(1e30)
    layer, weights = ContinuousConv(kernel, groups=2, bias=False), points.weights[:, None].repeat(1, 4)
    per_channel = layer(1e15 * values, Points(points.coordinates, weights))
    assert error(per_channel, copy.deepcopy(layer).double()(1e15 * values.double(), points)) < 1e-5


@pytest.mark.filterwarnings("ignore:the kernel makes values about:UserWarning")
def test_a_frozen_network_in_small_units() -> None:
    unit = 1e-24
    grid = Grid((8, 8), (unit, unit))
    network = CCNN(
        2,
        4,
        3,
        kernel=KernelSpec(extent=[4 * unit] * 2, width=[1.5 * unit] * 2, omega_0=3.0, generator="siren"),
        blocks=1,
    )
    with torch.no_grad():
        for kernel in network.kernels().values():
            kernel.generator.output.weight.mul_(1e36)
    network.eval()
    values = 1e9 * seeded(2, 2, 8, 8, dtype=torch.float32)
    exact = copy.deepcopy(network).double()(values.double(), grid)
    assert error(network.frozen(grid)(values), exact) < 1e-4
    assert error(network(values, grid), exact) < 1e-4


# ---- places ----


@given(
    st.lists(st.integers(-(10**18), 10**18), min_size=2, max_size=8),
    st.floats(-1e3, 1e3).map(lambda lag: round(lag, 15)),
)
def test_coordinates_in_parts_lose_nothing(numbers: list[int], lag: float) -> None:
    places = torch.tensor([[one / 1e3, one / 1e3 + lag] for one in numbers], dtype=torch.float64).reshape(-1, 1)
    parts = _parts(places, torch.zeros(1, dtype=torch.float64), torch.float32)
    assert torch.equal(sum(one.double() for one in parts), places)
    differences = [one[::2] - one[1::2] for one in parts]  # as KeOps takes them, in float32
    offset = differences[0] + differences[1] + differences[2]
    exact = places[::2] - places[1::2]
    assert bool(((offset.double() - exact).abs() <= 3e-7 * exact.abs() + 1e-30).all())


@requires_compiler
def test_keops_knows_places_and_long_sums_as_the_other_engines_do() -> None:
    """A kernel of a minute over fifteen years of seconds, one query far away, a year that repeats, a million terms."""
    torch.manual_seed(0)
    kernel = Kernel(SIREN(1, 1, hidden=2, layers=1, omega_0=3.0), GaussianMask([60.0]), extent=[120.0])
    exact = copy.deepcopy(kernel).double()
    visits = 1.1e9 + 4.7e8 * torch.rand(20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    place = (visits[:, None] + 60 * seeded(20, 10)).reshape(-1, 1)
    values = seeded(200, 1, dtype=torch.float32)
    far = torch.tensor([[1e17]], dtype=torch.float64)
    source, query = Points(place), Points(torch.cat([place[::3] + 20.0, far]))
    wanted = convolve(exact, values.double(), source, query, engine="reference")
    assert error(convolve(kernel, values, source, query, engine="keops"), wanted) < FLOAT32
    year = 365.2425 * 86400
    source, query = Points(place, periods=[year]), Points(place[::3] - 40 * year + 20.0, periods=[year])
    wanted = convolve(exact, values.double(), source, query, engine="reference")
    assert error(convolve(kernel, values, source, query, engine="keops"), wanted) < FLOAT32
    # Two samples: KeOps takes ranges.
    place = torch.linspace(0, 300, MANY, dtype=torch.float64)[:, None]
    many = Points(place, splits=torch.tensor([0, MANY // 2, MANY]))
    few = Points(place[[MANY // 4, 3 * MANY // 4]], splits=torch.tensor([0, 1, 2]))
    wanted = convolve(exact, torch.ones(MANY, 1).double(), many, few, engine="reference")
    assert error(convolve(kernel, torch.ones(MANY, 1), many, few, engine="keops"), wanted) < FLOAT32


# ---- autocast and half precision ----


def cases() -> dict[str, tuple[str, Domain, tuple[int, ...]]]:
    grid, points = Grid((12,), (0.1,)), scattered(1.0, 12)
    product = Product(points, Grid((3,), (0.5,)))
    return {
        "reference": ("reference", points, (12, 2)),
        "neighbours": ("neighbours", points, (12, 2)),
        "spectral": ("spectral", points, (12, 2)),
        "fft": ("fft", grid, (2, 2, 12)),
        "product": ("spectral", product, (12, 2, 3)),
    }


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(2,), (3, 2)], ids=["depthwise", "full"])
@pytest.mark.parametrize("case", cases())
def test_convolve_is_the_same_under_autocast(case: str, shape: tuple[int, ...], low: torch.dtype) -> None:
    engine, source, sizes = cases()[case]
    kernel = small_kernel(source.d, width=[0.3, 0.9][: source.d], shape=shape, dtype=torch.float32)
    values = seeded(*sizes).to(low).float()
    wanted = convolve(kernel, values, source, engine=engine)
    with torch.autocast(DEVICE.type, low):
        for given_values in (values, values.to(low)):
            found = convolve(kernel, given_values, source, engine=engine)
            assert found.dtype == torch.float32
            assert torch.equal(found, wanted)
        assert torch.equal(kernel(torch.ones(3, source.d)), kernel.forward(torch.ones(3, source.d)))
    outside = kernel(torch.ones(3, source.d))
    with torch.autocast("cpu", low):
        assert torch.equal(kernel(torch.ones(3, source.d)), outside)


def test_gradients_taken_under_autocast_are_those_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ccnn_irregular.operators.engines.reference._PAIRS_PER_BLOCK", 16)
    kernel, points = small_kernel(1, width=[0.3], shape=(3, 2), dtype=torch.float32), scattered(1.0)
    gradients = []
    for enabled in (False, True):
        values = seeded(9, 2, dtype=torch.float32, requires_grad=True)
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=enabled):
            result = convolve(kernel, values, points, engine="reference")
            gradients.append(torch.autograd.grad(result.sum(), [values, *kernel.parameters()]))
    for one, other in zip(*gradients, strict=True):
        assert error(one, other) < FLOAT32


def test_calibration_and_frozen_kernels_are_made_at_full_precision() -> None:
    torch.manual_seed(0)
    grid, values = Grid((16,), (0.5,)), seeded(2, 2, 16, dtype=torch.float32)
    network = CCNN(
        2, 4, 3, kernel=KernelSpec(extent=[4.0], width=[1.5], omega_0=5.0, generator="siren"), blocks=2
    ).eval()
    twin = copy.deepcopy(network)
    network.calibrate(grid, values)
    unet = ContinuousUNet(2, 3, channels=(2, 4), steps=[0.5], blocks=(0, 1))
    other = copy.deepcopy(unet)
    unet.calibrate(values, grid)
    with torch.autocast("cpu", torch.bfloat16):
        twin.calibrate(grid, values)
        other.calibrate(values, grid)
        frozen = twin.frozen(grid)
    for one, two in ((network, twin), (unet, other)):
        for name, state in one.state_dict().items():
            assert torch.equal(state, two.state_dict()[name]), name
    assert error(frozen(values), network(values, grid)) < FLOAT32
    with torch.autocast("cpu", torch.bfloat16):
        assert error(frozen(values.bfloat16()), network(values, grid)) < 0.05


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("engine", ["auto", "reference", "neighbours", "keops", "fft", "spectral"])
def test_a_kernel_of_half_precision_is_refused_with_the_way_out(engine: str, dtype: torch.dtype) -> None:
    kernel = small_kernel(1, width=[0.3], dtype=torch.float32).to(dtype)
    source: Domain = Grid((12,), (0.1,)) if engine == "fft" else scattered(1.0, 12)
    values = seeded(*((2, 2, 12) if engine == "fft" else (12, 2))).to(dtype)
    way_out = r"kernel must be float32 or float64, .*kernel\.float\(\).*torch\.autocast.*got torch\..*float16"
    for call in (
        lambda: convolve(kernel, values, source, engine=engine),
        lambda: explain(kernel, source),
        lambda: ContinuousConv(kernel).calibrate(source),
        lambda: kernel(values[:, :1]),
    ):
        with pytest.raises(ValueError, match=way_out):
            call()


# ---- what weighs nothing ----


def spoiled(product: bool = False) -> tuple[Tensor, Tensor, Domain]:
    """Values with nan and infinity where the weight is 0, the same with 0 there, and where they are."""
    values = seeded(9, 2, 3) if product else seeded(9, 2)
    weights = seeded(9, seed=1).abs() + 0.1
    weights[[2, 7]] = 0.0
    bad, clean = values.clone(), values.clone()
    bad[2], bad[7], clean[[2, 7]] = math.nan, math.inf, 0.0
    points = Points(seeded(9, 1, seed=2), weights, torch.tensor([0, 5, 9]))
    return bad, clean, Product(points, Grid((3,), (0.5,))) if product else points


@pytest.mark.parametrize("product", [False, True])
def test_means_never_read_what_weighs_nothing(product: bool) -> None:
    bad, clean, domain = spoiled(product)
    bad.requires_grad_()
    found = mean_over_positions(bad, domain)
    assert error(found, mean_over_positions(clean, domain)) < 1e-14
    found.sum().backward()
    assert bool(bad.grad.isfinite().all())
    assert not bool(bad.grad[[2, 7]].any())


@pytest.mark.parametrize("product", [False, True])
@pytest.mark.parametrize("norm", ["batch", "stored", "instance"])
def test_norms_and_their_gradients_never_read_what_weighs_nothing(norm: str, product: bool) -> None:
    bad, clean, domain = spoiled(product)
    weights = (domain.points if isinstance(domain, Product) else domain).weights
    layer = (InstanceNorm(2) if norm == "instance" else BatchNorm(2)).double().train(norm != "stored")
    gradients = []
    for values in (bad, clean):
        given_values = values.clone().requires_grad_()
        result = layer(given_values, domain)
        seen = result[weights > 0]
        gradients.append(torch.autograd.grad(seen.square().sum() + seen.sum(), [given_values, *layer.parameters()]))
    for one, other in zip(*gradients, strict=True):
        assert error(one, other) < 1e-12
    # What is finite there is normalised as the rest: a network answers at places without an observation.
    other_values = clean.clone()
    other_values[2] = 3.0
    outputs = [layer.eval()(values, domain)[2] for values in (clean, other_values)]
    assert not torch.allclose(*outputs)
