"""Kernels: units, masks, causality, the generators' published formulas and initialisation."""

from __future__ import annotations

import copy
import io
import math

import numpy as np
import pytest
import torch
from contract_cases import dense, run, seeded, small_kernel, uniform
from torch import Tensor

from ccnn_irregular import (
    MLP,
    SIREN,
    GaussianMask,
    Grid,
    Kernel,
    KernelSpec,
    MAGNet,
    Points,
    RandomFourier,
    convolve,
    make_plan,
)
from ccnn_irregular.testing import assert_all_close, assert_close

REACH = math.sqrt(-2 * math.log(0.01))  # of the default mask, in widths


def as_numpy(module: torch.nn.Module) -> dict[str, np.ndarray]:
    return {key: value.detach().numpy() for key, value in module.state_dict().items()}


# ---- generators ----


@pytest.mark.parametrize("d", [1, 2, 4])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_siren_is_its_published_formula(layers: int, d: int) -> None:
    torch.manual_seed(layers)
    siren = SIREN(d, 5, hidden=7, layers=layers, omega_0=11.0).to(torch.float64)
    offsets = uniform(20, d, low=-1, seed=1)
    p, hidden = as_numpy(siren), offsets.numpy()
    for layer in range(layers):
        frequency = 11.0 if layer == 0 else 1.0
        hidden = np.sin(frequency * (hidden @ p[f"linears.{layer}.weight"].T + p[f"linears.{layer}.bias"]))
    expected = hidden @ p["_output.weight"].T + p["_output.bias"]
    assert_close(siren(offsets), torch.from_numpy(expected))


@pytest.mark.parametrize("d", [1, 2, 4])
@pytest.mark.parametrize("layers", [1, 3])
def test_magnet_is_its_published_formula(layers: int, d: int) -> None:
    torch.manual_seed(layers)
    magnet = MAGNet(d, 5, hidden=7, layers=layers, omega_0=0.5, spread=0.7).to(torch.float64)
    offsets = uniform(20, d, low=-1, seed=1)
    p, x = as_numpy(magnet), offsets.numpy()

    def gabor(level: int) -> np.ndarray:
        distance = p[f"gammas.{level}"][None] * (x[:, None, :] - p[f"centres.{level}"][None])
        wave = np.sin(x @ p[f"waves.{level}.weight"].T + p[f"waves.{level}.bias"])
        return np.exp(-0.5 * (distance**2).sum(-1)) * wave

    hidden = gabor(0)
    for level in range(layers):
        hidden = (hidden @ p[f"linears.{level}.weight"].T + p[f"linears.{level}.bias"]) * gabor(level + 1)
    expected = hidden @ p["_output.weight"].T + p["_output.bias"]
    assert_close(magnet(offsets), torch.from_numpy(expected), factor=10)


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


@pytest.mark.parametrize("d", [1, 2, 4])
@pytest.mark.parametrize("layers", [1, 3])
def test_random_fourier_is_its_published_formula(layers: int, d: int) -> None:
    torch.manual_seed(layers)
    network = RandomFourier(d, 5, hidden=8, layers=layers, omega_0=3.0).to(torch.float64)
    offsets = uniform(20, d, low=-1, seed=1)
    p = as_numpy(network)
    phase = 2 * np.pi * offsets.numpy() @ p["frequencies"].T
    hidden = np.concatenate([np.cos(phase), np.sin(phase)], axis=1)
    for layer in range(layers):
        hidden = silu(hidden @ p[f"linears.{layer}.weight"].T + p[f"linears.{layer}.bias"])
    expected = hidden @ p["_output.weight"].T + p["_output.bias"]
    assert_close(network(offsets), torch.from_numpy(expected), factor=10)


@pytest.mark.parametrize("d", [1, 2, 4])
@pytest.mark.parametrize("layers", [1, 3])
def test_mlp_is_linear_layers_and_silu(layers: int, d: int) -> None:
    torch.manual_seed(layers)
    network = MLP(d, 5, hidden=7, layers=layers, omega_0=11.0).to(torch.float64)
    offsets = uniform(20, d, low=-1, seed=1)
    p, hidden = as_numpy(network), offsets.numpy()
    for layer in range(layers):
        scale = 11.0 if layer == 0 else 1.0
        hidden = silu(scale * (hidden @ p[f"linears.{layer}.weight"].T + p[f"linears.{layer}.bias"]))
    expected = hidden @ p["_output.weight"].T + p["_output.bias"]
    assert_close(network(offsets), torch.from_numpy(expected))


@pytest.mark.parametrize("d", [1, 3])
def test_random_fourier_starts_as_published(d: int) -> None:
    torch.manual_seed(0)
    network = RandomFourier(d, 200, hidden=2000, layers=2, omega_0=7.0)
    # B from N(0, omega_0^2), and not trained.
    assert network.frequencies.shape == (1000, d)
    assert float(network.frequencies.std()) == pytest.approx(7.0, rel=0.06)
    assert "frequencies" in network.state_dict()
    assert not any("frequencies" in name for name, _ in network.named_parameters())
    # Second moments: features 1/2, pre-activations 1, kernel values 1.
    weights = [network.linears[0].weight, network.linears[1].weight, network.output.weight]
    moment = float(np.mean(silu(np.random.default_rng(0).standard_normal(1_000_000)) ** 2))
    for weight, second_moment in zip(weights, (0.5, moment, moment), strict=True):
        assert float(weight.detach().std()) == pytest.approx(1 / math.sqrt(2000 * second_moment), rel=0.01)
    assert not any(linear.bias.any() for linear in [*network.linears, network.output])
    values = network(uniform(500, d, low=-1, seed=1).float()).detach()
    assert float(values.square().mean()) == pytest.approx(1.0, rel=0.1)


@pytest.mark.parametrize("omega_0", [1.0, 100.0])
@pytest.mark.parametrize("d", [1, 3])
def test_mlp_starts_with_unit_variance_and_bends_everywhere(d: int, omega_0: float) -> None:
    torch.manual_seed(0)
    network = MLP(d, 300, hidden=2000, layers=3, omega_0=omega_0)
    inputs = uniform(1000, d, low=-1, seed=1).float()
    first = network.linears[0]
    pre_activation = first(inputs).detach()
    assert float(pre_activation.square().mean()) == pytest.approx(1.0, rel=0.1)
    # The units bend where their pre-activation changes sign: as often as not it does so among the inputs.
    bends = (pre_activation.amin(0) < 0) & (pre_activation.amax(0) > 0)
    assert float(bends.float().mean()) > 0.9
    # For one input only the first layer's pre-activations are not normal: three times their fourth power for one axis.
    assert float(network(inputs).detach().square().mean()) == pytest.approx(1.0, rel=0.3)
    assert not any(linear.bias.any() for linear in [*network.linears[1:], network.output])


@pytest.mark.parametrize("make", [RandomFourier, MLP])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": 0}, "layers must be at least 1, got 0"),
        ({"omega_0": 0.0}, "omega_0 must be positive, got 0.0"),
    ],
)
def test_generators_refuse_bad_arguments(make: type, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(1, 2, **options)


@pytest.mark.parametrize("hidden", [0, 5])
def test_random_fourier_refuses_odd_widths(hidden: int) -> None:
    with pytest.raises(ValueError, match=f"hidden must be even, a sine and a cosine of each frequency, got {hidden}"):
        RandomFourier(1, 2, hidden)


@pytest.mark.parametrize(
    ("name", "kind"), [("magnet", MAGNet), ("siren", SIREN), ("random_fourier", RandomFourier), ("mlp", MLP)]
)
def test_generators_by_name(name: str, kind: type) -> None:
    kernel = KernelSpec(extent=[1.0], width=[0.2], omega_0=5.0, generator=name)(3)  # type: ignore[arg-type]
    assert type(kernel.generator) is kind
    assert kernel(torch.zeros(4, 1)).shape == (4, 3)
    if kind is not MAGNet:
        torch.manual_seed(0)
        expected = kind(1, 3, 32, omega_0=5.0)
        torch.manual_seed(0)
        kernel = KernelSpec(extent=[1.0], width=[0.2], omega_0=5.0, generator=name)(3)  # type: ignore[arg-type]
        offsets = uniform(9, 1, seed=1).float()
        assert torch.equal(kernel.generator(offsets), expected(offsets))


def test_unknown_generator_is_refused() -> None:
    with pytest.raises(ValueError, match=r"kernel\.generator must be one of .*'siren'.*, got 'spline'"):
        KernelSpec(extent=[1.0], width=[0.2], omega_0=5.0, generator="spline")


def test_siren_starts_as_published() -> None:
    torch.manual_seed(0)
    siren = SIREN(2, 64, hidden=256, layers=3, omega_0=30.0)
    bounds = [1 / 2, math.sqrt(6 / 256), math.sqrt(6 / 256)]
    for linear, bound in zip(siren.linears, bounds, strict=True):
        weight = linear.weight.detach()
        assert bound * 0.98 < float(weight.abs().max()) <= bound
        assert float(weight.std()) == pytest.approx(bound / math.sqrt(3), rel=0.05)
    assert float(siren.output.weight.detach().abs().max()) <= math.sqrt(6 / 256)
    assert not siren.output.bias.any()
    # Section 3.2 of the paper: pre-activations of hidden layers have variance 1, outputs about 1.
    inputs = uniform(4096, 2, low=-1, seed=1).float()
    assert float(siren(inputs).std().detach()) == pytest.approx(1.0, rel=0.15)


@pytest.mark.parametrize("one_sided", [False, True])
def test_magnet_starts_as_published(one_sided: bool) -> None:
    torch.manual_seed(0)
    d, hidden, omega, spread = 2, 4000, 25.0, 0.125
    magnet = MAGNet(d, 3, hidden=hidden, layers=1, omega_0=omega, spread=spread, one_sided=one_sided)
    for level, (gamma, centre, wave) in enumerate(zip(magnet.gammas, magnet.centres, magnet.waves, strict=True)):
        gamma, centre, weight = gamma.detach(), centre.detach(), wave.weight.detach()
        # gamma ~ Gamma(6 / (l + 1), rate 1): mean and variance both 6 / (l + 1)
        shape = 6 / (level + 1)
        assert bool((gamma > 0).all())
        assert float(gamma.mean()) == pytest.approx(shape, rel=0.03)
        assert float(gamma.var()) == pytest.approx(shape, rel=0.1)
        # centres uniform
        lowest = 0.0 if one_sided else -spread
        assert lowest <= float(centre.min()) < lowest + 0.002
        assert spread - 0.002 < float(centre.max()) <= spread
        assert float(centre.mean()) == pytest.approx((lowest + spread) / 2, abs=0.003)
        # waves: torch's default U(-1/sqrt(d), 1/sqrt(d)) times 2 pi omega_0 gamma
        default = weight / (2 * math.pi * omega * gamma)
        assert 0.98 / math.sqrt(d) < float(default.abs().max()) <= 1.0001 / math.sqrt(d)
        assert float(default.std()) == pytest.approx(1 / math.sqrt(3 * d), rel=0.03)
        assert not wave.bias.any()
    for linear in magnet.linears:
        bound = math.sqrt(3 / hidden)  # Kaiming uniform with gain 1
        assert 0.99 * bound < float(linear.weight.detach().abs().max()) <= bound
        assert bool((linear.bias == 1).all())
    assert not magnet.output.bias.any()
    assert float(magnet.output.weight.detach().abs().max()) <= math.sqrt(3 / hidden)


def test_magnet_parameter_shapes() -> None:
    magnet = MAGNet(3, 5, hidden=32)
    assert [tuple(one.shape) for one in magnet.gammas] == [(32, 3)] * 4
    assert len(magnet.linears) == 3
    counted = sum(one.numel() for one in magnet.parameters())
    assert counted == 3 * (32 * 32 + 32) + 4 * (32 * 3 + 32) + 2 * 4 * 32 * 3 + (32 * 5 + 5)


# ---- masks ----


@pytest.mark.parametrize("threshold", [0.01, 0.1])
@pytest.mark.parametrize("width", [(2.0,), (0.5, 3.0), (0.1, 1.0, 10.0)])
def test_mask_is_one_in_the_centre_and_zero_from_the_support_on(width: tuple[float, ...], threshold: float) -> None:
    mask = GaussianMask(width, threshold).to(torch.float64)
    d = len(width)
    assert_close(mask(torch.zeros(1, d, dtype=torch.float64)), torch.ones(1, 1, dtype=torch.float64))
    support = mask.support
    assert not support.requires_grad
    assert support.tolist() == pytest.approx([w * math.sqrt(-2 * math.log(threshold)) for w in width], rel=1e-6)
    for axis in range(d):
        edge = torch.zeros(4, d, dtype=torch.float64)
        edge[:, axis] = support[axis] * torch.tensor([0.9, 1.0 + 1e-12, 1.5, -1.2], dtype=torch.float64)
        values = mask(edge)[:, 0]
        assert float(values[0].detach()) > 0
        assert not values[1:].any()
    # The box's corners lie outside the ellipse.
    assert not mask(0.8 * support[None]).any() or d == 1


def test_mask_falls_monotonically_and_stays_between_zero_and_one() -> None:
    mask = GaussianMask((1.0,)).to(torch.float64)
    values = mask(torch.linspace(0, 4, 2001, dtype=torch.float64)[:, None])[:, 0].detach()
    assert bool((values >= 0).all())
    assert bool((values <= 1 + 1e-15).all())
    assert bool((values.diff() <= 1e-15).all())
    assert bool((values[:1400].diff()[1:] < 0).all())
    assert torch.equal(mask(torch.tensor([[0.7]]).double()), mask(torch.tensor([[-0.7]]).double()))


def test_mask_approaches_the_gaussian_as_the_threshold_falls() -> None:
    offsets = uniform(50, 2, low=-1.5, high=1.5, seed=1)
    gaussian = torch.exp(-0.5 * offsets.square().sum(-1, keepdim=True))
    errors = [
        float((GaussianMask((1.0, 1.0), threshold).to(torch.float64)(offsets) - gaussian).abs().max().detach())
        for threshold in (1e-2, 1e-4, 1e-6)
    ]
    assert errors[0] < 0.2
    assert errors[0] > 20 * errors[1] > 400 * errors[2] > 0


def test_mask_reaches_zero_smoothly() -> None:
    """Value, slope and curvature vanish at the support: difference quotients there shrink with the step."""
    mask = GaussianMask((1.0,)).to(torch.float64)
    edge = math.sqrt(-2 * math.log(0.01))

    def at(offset: float) -> float:
        return float(mask(torch.tensor([[offset]], dtype=torch.float64)).detach())

    for step in (1e-2, 1e-3):
        assert 0 < at(edge - step) < 0.5 * step**2  # a Gaussian that is merely cut is 0.01 here
        slope = (at(edge + step) - at(edge - step)) / (2 * step)
        curvature = (at(edge + step) - 2 * at(edge) + at(edge - step)) / step**2
        assert abs(slope) < 0.5 * step
        assert abs(curvature) < 0.5 * math.sqrt(step)
    inside = (at(1.0 + 1e-4) - at(1.0 - 1e-4)) / 2e-4
    assert inside < -0.3


def test_mask_width_is_learned() -> None:
    mask = GaussianMask((1.0, 2.0)).to(torch.float64)
    offsets = uniform(9, 2, low=-1, seed=1)
    (gradient,) = torch.autograd.grad(mask(offsets).sum(), [mask.log_scale])
    assert bool((gradient > 0).all())  # wider means larger everywhere
    nudged = copy.deepcopy(mask)
    with torch.no_grad():
        nudged.log_scale += torch.tensor([1e-6, 0.0])
    slope = float((nudged(offsets) - mask(offsets)).sum().detach()) / 1e-6
    assert slope == pytest.approx(float(gradient[0]), rel=1e-4)
    with torch.no_grad():
        mask.log_scale.fill_(math.log(2.0))
    assert_close(mask.width, torch.tensor([2.0, 4.0], dtype=torch.float64))
    assert_close(mask(2 * offsets), GaussianMask((1.0, 2.0)).to(torch.float64)(offsets))
    assert mask.support.tolist() == pytest.approx([2 * REACH, 4 * REACH])
    fixed = GaussianMask((1.0,), trainable=False)
    assert not fixed.log_scale.requires_grad


def moved_mask(smooth: bool = True) -> GaussianMask:
    """Two axes, mean (0.5, -1.5) before and (0.75, -2.1) after what has been learned."""
    mask = GaussianMask((0.5, 1.0), 0.05, mean=(0.5, -1.5), smooth=smooth).to(torch.float64)
    with torch.no_grad():
        mask.shift.copy_(torch.tensor([0.5, -0.6], dtype=torch.float64))
        mask.log_scale.copy_(torch.tensor([0.2, -0.3], dtype=torch.float64))
    return mask


def test_mean_moves_the_mask() -> None:
    mask, plain = moved_mask(), GaussianMask((0.5, 1.0), 0.05).to(torch.float64)
    with torch.no_grad():
        plain.log_scale.copy_(mask.log_scale)
    mean = torch.tensor([0.75, -2.1], dtype=torch.float64)
    assert_close(mask.mean, mean)
    assert_close(mask.centre, mean)
    assert not mask.centre.requires_grad
    offsets = uniform(200, 2, low=-2, high=2, seed=1)
    assert_close(mask(offsets + mean), plain(offsets))
    assert torch.equal(mask.half_width, plain.support)
    # The box about zero holds all of it and no more.
    assert_close(mask.support, mean.abs() + plain.support)
    edge = torch.tensor([[mask.support[0], mean[1]], [mean[0], -mask.support[1]]], dtype=torch.float64)
    assert bool((mask(edge * 0.999) > 0).all())
    assert not mask(edge * 1.001).any()
    gradients = torch.autograd.grad(mask(offsets).sum(), [mask.shift, mask.log_scale])
    assert all(bool(one.all()) for one in gradients)


def test_no_mean_means_no_parameter() -> None:
    plain = GaussianMask((1.0, 2.0))
    assert set(plain.state_dict()) == {"initial_width", "log_scale"}
    assert plain.centre.tolist() == plain.mean.tolist() == [0.0, 0.0]
    assert torch.equal(plain.half_width, plain.support)
    moved = GaussianMask((1.0, 2.0), mean=(0.5, 0.25))
    assert set(moved.state_dict()) == {"initial_width", "log_scale", "initial_mean", "shift"}
    assert set(dict(moved.named_parameters())) == {"log_scale", "shift"}
    fixed = GaussianMask((1.0, 2.0), mean=(0.5, 0.25), trainable_mean=False)
    assert [name for name, one in fixed.named_parameters() if one.requires_grad] == ["log_scale"]
    assert fixed.mean.tolist() == [0.5, 0.25]


@pytest.mark.parametrize(
    ("mean", "message"),
    [
        ((1.0,), r"mean must have one entry per axis, 2, got \(1.0,\)"),
        ((1.0, math.nan), r"mean must be finite, got \(1.0, nan\)"),
    ],
)
def test_mask_refuses_bad_means(mean: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GaussianMask((1.0, 2.0), mean=mean)


def test_cropped_mask_is_the_gaussian_in_a_box() -> None:
    """The published mask: no value is changed, and each axis is cut where its own Gaussian passes the threshold."""
    mask = moved_mask(smooth=False)
    offsets = uniform(4000, 2, low=-5, high=5, seed=1)
    x, p = offsets.numpy(), as_numpy(mask)
    mean, width = np.array([0.75, -2.1]), np.array([0.5, 1.0]) * np.exp(p["log_scale"])
    factors = np.exp(-0.5 * ((x - mean) / width) ** 2)
    inside = (factors > 0.05).all(1)
    assert 50 < inside.sum() < 2000
    expected = np.where(inside, factors.prod(1), 0.0)
    assert_close(mask(offsets)[:, 0], torch.from_numpy(expected))
    assert not mask.ellipsoidal
    assert GaussianMask((1.0,)).ellipsoidal
    # It holds corners that lie outside the ellipsoid.
    corner = (mask.centre + 0.99 * mask.half_width)[None]
    assert float(mask(corner).detach()) == pytest.approx(0.05 ** (2 * 0.99**2))


@pytest.mark.parametrize("smooth", [True, False])
def test_engines_agree_on_a_mask_with_a_mean(smooth: bool) -> None:
    torch.manual_seed(0)
    kernel = Kernel(SIREN(2, 3, 4), moved_mask(smooth), extent=[2.0, 2.0]).to(torch.float64)
    source = Points(uniform(60, 2, high=6.0, seed=1).requires_grad_(), uniform(60, low=0.2, seed=2))
    query = Points(uniform(50, 2, high=6.0, seed=3).requires_grad_())
    values = seeded(60, 3, requires_grad=True)
    expected = run(kernel, values, source, query, "reference")
    assert_close(expected["output"], dense(kernel, values, source, query))
    assert_all_close(run(kernel, values, source, query, "neighbours"), expected, factor=10)
    grid = Grid((11, 13), (0.4, 0.3))
    entries = seeded(2, 3, 11, 13, requires_grad=True)
    assert_all_close(run(kernel, entries, grid, None, "fft"), run(kernel, entries, grid, None, "reference"), factor=10)
    periodic = Points(source.coordinates.detach(), source.weights, periods=(6.0, 9.0))
    wrapped = convolve(kernel, values, periodic, engine="neighbours")
    assert_close(wrapped, convolve(kernel, values, periodic, engine="reference"))
    assert_close(wrapped, dense(kernel, values, periodic, periodic))


def test_neighbour_lists_hold_until_the_mean_leaves_what_was_searched() -> None:
    mask = moved_mask()
    kernel = Kernel(SIREN(2, 1, 4), mask, extent=[2.0, 2.0]).to(torch.float64)
    source = Points(uniform(60, 2, high=6.0, seed=1))
    values = seeded(60, 1)
    plan = make_plan(kernel, source, engine="neighbours")
    with torch.no_grad():
        mask.log_scale -= 0.5  # to 0.61 of the width: the middle may move by 0.39 of it, in all directions together
        mask.shift += torch.tensor([0.25, 0.2], dtype=torch.float64) * mask.half_width / mask.initial_width
    assert_close(convolve(kernel, values, source, plan=plan), convolve(kernel, values, source, engine="reference"))
    with torch.no_grad():
        mask.shift += torch.tensor([0.3, 0.3], dtype=torch.float64) * mask.half_width / mask.initial_width
    # Still inside the box, no more inside the ellipsoid.
    with pytest.raises(
        ValueError, match=r"plan must be made anew when the kernel's centre moves away from \(0.75, -2.1"
    ):
        convolve(kernel, values, source, plan=plan)
    with torch.no_grad():
        mask.shift[1] += 1.0
    with pytest.raises(ValueError, match="plan must be made anew when the kernel's support on axis 1 grows beyond"):
        convolve(kernel, values, source, plan=plan)


# ---- kernels ----


def test_kernel_is_generator_times_mask_in_units() -> None:
    kernel = small_kernel(2, width=(3.0, 0.5), channels=3)
    offsets = uniform(30, 2, low=-2, high=2, seed=1)
    expected = kernel.generator(offsets / torch.tensor([6.0, 1.0])) * kernel.mask(offsets)
    assert_close(kernel(offsets), expected)
    assert kernel(offsets).shape == (30, 3)
    assert kernel(offsets.unflatten(0, (5, 6))).shape == (5, 6, 3)
    full = small_kernel(2, shape=(2, 3))
    assert full(offsets).shape == (30, 2, 3)
    assert (full.out_channels, full.in_channels, full.depthwise) == (2, 3, False)
    assert (kernel.out_channels, kernel.in_channels, kernel.depthwise) == (3, 3, True)
    # Row-major: entry (d, c) of the full kernel is channel d * C + c of its generator.
    flat = full.generator(offsets / full.extent) * full.mask(offsets)
    assert_close(full(offsets), flat.reshape(30, 2, 3))


@pytest.mark.parametrize("generator", ["siren", "magnet"])
@pytest.mark.parametrize("causal", [False, True])
def test_scaling_the_unit_changes_nothing(generator: str, causal: bool) -> None:
    offsets = uniform(200, 2, low=-1, seed=1)
    results = []
    for unit in (1.0, 64.0, 1 / 1024):  # powers of two: exact in every dtype
        torch.manual_seed(0)
        network = SIREN(2, 3) if generator == "siren" else MAGNet(2, 3, omega_0=2.0, spread=0.5)
        kernel = Kernel(
            network,
            GaussianMask([0.25 * unit, 0.5 * unit]),
            extent=[1.0 * unit, 2.0 * unit],
            causal_axes=(0,) if causal else (),
        ).to(torch.float64)
        assert kernel.support.tolist() == pytest.approx([0.25 * REACH * unit, 0.5 * REACH * unit])
        results.append(kernel(offsets * unit))
    assert float(results[0].detach().abs().max()) > 0
    assert_close(results[1], results[0])
    assert_close(results[2], results[0])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_causal_kernel_is_zero_for_the_future_only(dtype: torch.dtype) -> None:
    causal, plain = small_kernel(2, causal_axes=(0,), dtype=dtype), small_kernel(2, dtype=dtype)
    lags = torch.tensor([-1.0, -0.1, -1e-3, 0.0, 1e-3, 0.1, 1.0], dtype=dtype)
    offsets = torch.stack([lags, torch.full_like(lags, -0.2)], dim=1)
    values = causal(offsets)
    assert not values[:3].any()
    assert torch.equal(values[3:], plain(offsets)[3:])
    assert bool((values[3:] != 0).all())
    # The other axis looks both ways; rounding of coordinates that should be equal does not cost lag zero.
    assert bool((causal(torch.tensor([[0.5, 0.3], [0.5, -0.3], [-1e-9, 0.3]], dtype=dtype)) != 0).all())


def test_kernel_without_a_mask_reaches_everywhere() -> None:
    kernel = small_kernel(2, masked=False)
    assert kernel.support.tolist() == [math.inf, math.inf]
    assert bool((kernel(torch.full((1, 2), 1e3, dtype=torch.float64)) != 0).all())


def make_magnet_kernel() -> Kernel:
    return Kernel(MAGNet(2, 6, hidden=4), GaussianMask([1.0, 2.0]), extent=[2.0, 3.0], shape=(2, 3), causal_axes=(1,))


def test_state_dict_carries_the_whole_kernel() -> None:
    torch.manual_seed(0)
    original = make_magnet_kernel()
    with torch.no_grad():
        original.mask.log_scale += 0.3
    file = io.BytesIO()
    torch.save(original.state_dict(), file)
    file.seek(0)
    torch.manual_seed(1)
    other = Kernel(MAGNet(2, 6, hidden=4), GaussianMask([9.0, 9.0]), extent=[9.0, 9.0], shape=(2, 3), causal_axes=(1,))
    offsets = uniform(20, 2, low=-1, seed=1).float()
    assert not torch.allclose(other(offsets), original(offsets))
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(offsets), original(offsets))
    assert torch.equal(other.support, original.support)
    assert torch.equal(other.extent, torch.tensor([2.0, 3.0]))


def test_deepcopy_is_independent() -> None:
    original = make_magnet_kernel()
    offsets = uniform(20, 2, low=-1, seed=1).float()
    before = original(offsets)
    twin = copy.deepcopy(original)
    assert torch.equal(twin(offsets), before)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter += 0.1
    assert torch.equal(original(offsets), before)
    assert not torch.allclose(twin(offsets), before)


def test_dtype_follows_the_module() -> None:
    kernel = make_magnet_kernel()
    offsets = uniform(20, 2, low=-1, seed=1)
    single = kernel(offsets.float())
    assert kernel.dtype == single.dtype == torch.float32
    kernel.to(torch.float64)
    double = kernel(offsets)
    assert kernel.dtype == double.dtype == kernel.support.dtype == torch.float64
    assert_close(double.float(), single, factor=100)  # MAGNet's waves turn fast: float32 phases are coarse
    assert not torch.equal(double.float().double(), double)


@pytest.mark.parametrize("make", [lambda: small_kernel(2), lambda: make_magnet_kernel().to(torch.float64)])
def test_kernel_gradients_equal_finite_differences(make: object) -> None:
    torch.manual_seed(0)
    kernel = make()  # type: ignore[operator]
    names = list(dict(kernel.named_parameters()))
    offsets = uniform(6, 2, low=0.1, high=0.9, seed=1)

    def function(offsets: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(kernel, dict(zip(names, parameters, strict=True)), (offsets,)).sum(0)

    inputs = [offsets.requires_grad_(), *(one.detach().clone().requires_grad_() for one in kernel.parameters())]
    # MAGNet's frequencies of hundreds make the third derivative, and so the difference quotient's error, large.
    assert torch.autograd.gradcheck(function, inputs, eps=1e-8, atol=1e-4, rtol=1e-4, fast_mode=True)


def test_constants_are_exact_in_float64() -> None:
    numbers = [0.1, 1 / 3]
    kernel = Kernel(SIREN(2, 3), GaussianMask(numbers, mean=numbers), extent=numbers)
    assert kernel.extent.dtype == torch.float32
    twin = copy.deepcopy(kernel)
    for one in (kernel.to(torch.float64), twin.double().float().half().double()):
        assert one.extent.tolist() == numbers
        assert one.mask.initial_width.tolist() == numbers
        assert one.mask.initial_mean.tolist() == numbers
    rounded = kernel.float().extent.tolist()
    assert rounded == torch.tensor(numbers, dtype=torch.float32).tolist() != numbers


def test_loaded_constants_are_kept_whatever_the_dtype() -> None:
    saved = Kernel(SIREN(1, 3), GaussianMask([0.7]), extent=[0.3]).state_dict()
    kernel = Kernel(SIREN(1, 3), GaussianMask([0.1]), extent=[0.2])
    kernel.load_state_dict(saved)
    kernel.to(torch.float64)
    assert kernel.extent.tolist() == saved["extent"].tolist()
    assert kernel.mask.initial_width.tolist() == saved["mask.initial_width"].tolist()


def test_constants_survive_the_meta_device() -> None:
    with torch.device("meta"):
        kernel = Kernel(SIREN(1, 3), GaussianMask([0.1]), extent=[0.2])
    assert kernel.to(torch.float64).extent.is_meta


def test_parameters_are_found_by_optimisers() -> None:
    kernel = make_magnet_kernel()
    names = {key.split(".")[0] for key, _ in kernel.named_parameters()}
    assert names == {"generator", "mask"}
    assert "mask.log_scale" in dict(kernel.named_parameters())
    values = kernel(seeded(10, 2, dtype=torch.float32) * 0.3)
    gradients = torch.autograd.grad(values.square().sum(), list(kernel.parameters()))
    assert all(bool(one.any()) for one in gradients)
