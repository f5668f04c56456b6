"""The continuous CNN: the published size, every domain in, and nothing hidden in forward."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from contract_cases import seeded, uniform
from torch import Tensor

from ccnn_irregular import (
    CCNN,
    MLP,
    Grid,
    KernelSpec,
    Points,
    Product,
    SeparableContinuousConv,
    Solver,
    convolve,
    make_plan,
)
from ccnn_irregular.domains import Domain
from ccnn_irregular.kernels import energy_above
from ccnn_irregular.layers import Dropout, mean_over_positions
from ccnn_irregular.networks import (
    PUBLISHED_KERNEL,
    ResidualBlock,
    ccnn_4_110,
    ccnn_4_140,
    ccnn_6_380,
    unit_grid,
)
from ccnn_irregular.quadrature import density_compensation, trapezoid
from ccnn_irregular.testing import assert_all_close, assert_close

RAGGED = Points(uniform(14, 1, high=5.0, seed=1), uniform(14, low=0.2, seed=2), torch.tensor([0, 6, 6, 14]))


def small(in_channels: int = 2, d: int = 1, seed: int = 0, engine: str = "auto", **changes: Any) -> CCNN:
    """A network of two blocks; changes of its recipe and its own options by name."""
    torch.manual_seed(seed)
    of_kernel = {name: changes.pop(name) for name in [one.name for one in fields(KernelSpec)] if name in changes}
    kernel = replace(KernelSpec(extent=[2.0] * d, width=[0.6] * d, omega_0=1.0, hidden=6), **of_kernel)
    network = CCNN(in_channels, 8, 3, kernel=kernel, blocks=2, solver=Solver(engine), **changes)
    return network.to(torch.float64).eval()


# ---- size ----


@pytest.mark.parametrize(
    ("preset", "in_channels", "d", "count"),
    [
        (ccnn_4_140, 1, 1, 198_769),  # sequential MNIST
        (ccnn_4_140, 3, 1, 199_117),  # sequential CIFAR-10
        (ccnn_4_140, 3, 2, 201_042),  # CIFAR-10
        (ccnn_6_380, 1, 1, 1_993_091),
        (ccnn_6_380, 3, 1, 1_993_983),
        (ccnn_6_380, 3, 2, 1_999_366),
    ],
)
@pytest.mark.parametrize("mask", ["smooth", "cropped"])
def test_parameter_counts_are_those_of_the_released_models(
    preset: Callable[..., CCNN], in_channels: int, d: int, count: int, mask: str
) -> None:
    kernel = replace(PUBLISHED_KERNEL, causal=d == 1, mask=mask, hidden=64 if preset is ccnn_6_380 else 32)
    network = preset(d=d, in_channels=in_channels, out_channels=10, kernel=kernel)
    assert sum(one.numel() for one in preset(d, in_channels).parameters()) == count
    assert sum(one.numel() for one in network.parameters()) == count


@pytest.mark.parametrize("d", [1, 2, 3, 4])
def test_presets_change_nothing_but_the_number_of_axes(d: int) -> None:
    torch.manual_seed(0)
    network = ccnn_4_110(kernel=replace(PUBLISHED_KERNEL, causal=True), d=d, in_channels=2, out_channels=3)
    grid = unit_grid((9, 5, 4, 3)[:d])
    assert network(torch.randn(2, 2, *grid.sizes), grid).shape == (2, 3)
    assert len(network.blocks) == 4
    assert network.output.in_features == 110
    for kernel in network.kernels().values():
        assert kernel.extent.tolist() == [1.0] * d
        assert kernel.causal_axes == (0,)
        assert kernel.mask.width.tolist() == pytest.approx([0.075] * d)
    other = ccnn_4_140(
        kernel=replace(PUBLISHED_KERNEL, extent=4.0, width=[0.5] * d, omega_0=5.0, generator="mlp", mask="none"),
        d=d,
        head="dense",
    )
    assert other.stem.kernel.mask is None
    assert isinstance(other.stem.kernel.generator, MLP)
    assert other.stem.kernel.extent.tolist() == [4.0] * d
    assert ccnn_4_140(
        kernel=replace(PUBLISHED_KERNEL, extent=4.0), d=d
    ).stem.kernel.mask.width.tolist() == pytest.approx([0.3] * d)
    moving = ccnn_4_140(
        kernel=replace(PUBLISHED_KERNEL, learned_mean=True), d=d, dropout=0.2, dropout_unit="value", input_dropout=0.1
    )
    assert moving.stem.kernel.mask.shift is not None
    assert moving.blocks[0].dropout.unit == "value"


def test_unit_grid() -> None:
    nodes = unit_grid([5, 3]).nodes()
    assert nodes.amin(0).tolist() == [-1, -0.5]
    assert nodes.amax(0).tolist() == [1, 0.5]
    assert unit_grid([784]).steps == pytest.approx((2 / 783,))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ccnn_4_140(d=0), "d must be at least 1, got 0"),
        (
            lambda: ccnn_4_140(kernel=replace(PUBLISHED_KERNEL, extent=[1.0]), d=2),
            r"extent must be one number or one per axis, 2, got \(1.0,\)",
        ),
        (lambda: unit_grid([1]), "sizes must hold an axis of at least 2 nodes"),
        (lambda: small(head="mean"), r"head must be one of \('classify', 'dense', 'anywhere'\), got 'mean'"),
        (lambda: small(mask="box"), "kernel.mask must be 'none' or one of"),
        (lambda: small(mask="none", learned_mean=True), "learned_mean must be False without a mask"),
        (lambda: small()(seeded(14, 2), RAGGED, RAGGED), "query must be given with head 'anywhere' and with no other"),
        (lambda: small(head="anywhere")(seeded(14, 2), RAGGED), "query must be given with head 'anywhere'"),
        (lambda: small(head="anywhere").frozen(Grid((8,), (0.5,))), "network must have head 'classify' or 'dense'"),
        (lambda: small().frozen(Grid((8,), (0.5,)))(seeded(1, 2, 7)), r"values must have shape \(B, 2, 8\)"),
    ],
)
def test_bad_options(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


# ---- every domain ----


@pytest.mark.parametrize("generator", ["magnet", "siren"])
def test_ragged_points_give_one_output_per_sample(generator: str) -> None:
    network = small(generator=generator, engine="reference")
    values = seeded(14, 2)
    output = network(values, RAGGED)
    assert output.shape == (3, 3)
    for number, (first, last) in enumerate(((0, 6), (6, 14))):
        own = Points(RAGGED.coordinates[first:last], RAGGED.weights[first:last])
        assert_close(network(values[first:last], own)[0], output[2 * number], factor=1e3)
    # An empty sample has no positions to average over: the head's bias.
    assert_close(output[1], network.output.bias, scale=1.0)
    # Left to itself an approximation may serve, within its tolerance.
    assert_close(small(generator=generator)(values, RAGGED), output, factor=1e9)


@pytest.mark.parametrize("sizes", [(9,), (6, 5), (3, 4, 5), (2, 3, 4, 2)], ids=str)
def test_grids_of_any_dimension(sizes: tuple[int, ...]) -> None:
    d = len(sizes)
    network = small(d=d)
    grid, values = Grid(sizes, (0.5,) * d), seeded(2, 2, *sizes)
    output = network(values, grid)
    assert output.shape == (2, 3)
    assert_close(network(values[1:], grid), output[1:], factor=10)
    # The grid's nodes as points: another engine, the same network.
    rows = values.flatten(2).movedim(1, 2).flatten(0, 1)
    assert_close(small(d=d, engine="reference")(rows, grid.as_points(2)), output, factor=1e3)


def test_product_domain() -> None:
    network = small(d=2, engine="reference")
    product = Product(RAGGED, Grid((4,), (0.5,)))
    values = seeded(14, 2, 4)
    output = network(values, product)
    assert output.shape == (3, 3)
    rows = values.flatten(2).movedim(1, 2).flatten(0, 1)
    assert_close(network(rows, product.as_points()), output, factor=1e3)


def test_latent_grid() -> None:
    latent = Grid((12,), (0.5,), (-0.5,))
    network, values = small(latent=latent), seeded(14, 2)
    features, domain = network.features(values, RAGGED)
    assert domain is latent
    assert features.shape == (3, 8, 12)
    assert network(values, RAGGED).shape == (3, 3)
    assert_close(network(values, RAGGED), network.output(features.mean(2)))
    # By hand: stem at the latent nodes, blocks on the grid.
    stem = network.stem(values, RAGGED, latent)
    hidden = torch.nn.functional.gelu(network.stem_norm(stem, latent))
    for block in network.blocks:
        hidden = block(hidden, latent)
    assert_close(network.norm(hidden, latent), features)


def test_latent_grid_reads_channels_observed_at_different_times() -> None:
    latent = Grid((12,), (0.5,), (-0.5,))
    network = small(latent=latent)
    observed = uniform(14, 2, seed=3) < 0.5
    positions = RAGGED.coordinates[:, 0].sort().values
    weights = trapezoid(positions, observed=observed, cap=2.0)
    values = torch.where(observed, seeded(14, 2), float("nan")).requires_grad_()
    output = network(values, Points(positions[:, None], weights))
    assert bool(torch.isfinite(output).all())
    (gradient,) = torch.autograd.grad(output.sum(), [values])
    assert not gradient[~observed].any()
    assert bool((gradient[observed] != 0).all())


def test_dense_head() -> None:
    values, grid = seeded(2, 2, 6, 5), Grid((6, 5), (0.5, 0.4))
    network = small(d=2, head="dense")
    dense = network(values, grid)
    assert dense.shape == (2, 3, 6, 5)
    features, _ = network.features(values, grid)
    assert_close(dense, network.output(features))
    twin = small(d=2)
    assert_close(twin(values, grid), dense.flatten(2).mean(2), factor=10)
    on_points = small(head="dense")(seeded(14, 2), RAGGED)
    assert on_points.shape == (14, 3)
    on_latent = small(head="dense", latent=Grid((12,), (0.5,)))(seeded(14, 2), RAGGED)
    assert on_latent.shape == (3, 3, 12)


def test_classify_head_weighs_positions() -> None:
    network, values = small(), seeded(14, 2)
    features, _ = network.features(values, RAGGED)
    assert_close(network(values, RAGGED), network.output(mean_over_positions(features, RAGGED)))


def test_residual_block_is_its_published_order() -> None:
    torch.manual_seed(0)
    kernel = KernelSpec(extent=[2.0], width=[0.6], omega_0=1.0, hidden=6)(4)
    block = ResidualBlock(4, kernel).to(torch.float64).eval()
    grid, values = Grid((9,), (0.5,)), seeded(2, 4, 9)
    gelu = torch.nn.functional.gelu
    inner = gelu(block.conv(block.norm(values, grid), grid))
    assert_close(block(values, grid), values + gelu(block.linear(inner)))


@pytest.mark.parametrize("generator", ["magnet", "siren"])
def test_causal_network_does_not_see_the_future(generator: str) -> None:
    def difference(causal: bool) -> Tensor:
        """What a change at nodes 12 and later does to the output, per node."""
        network = small(generator=generator, causal=causal, head="dense")
        before, after = network(values, grid), network(changed, grid)
        return ((after - before).abs().amax((0, 1)) / before.abs().max()).detach()

    grid, values = Grid((20,), (0.5,)), seeded(1, 2, 20)
    changed = values.clone()
    changed[..., 12:] += 10
    assert float(difference(causal=True)[:12].max()) < 1e-12
    # A causal kernel sees the present; a MAGNet starts out with none of it, for its waves are sines.
    assert float(difference(causal=True)[13 if generator == "magnet" else 12 :].min()) > 1e-3
    assert float(difference(causal=False)[:12].max()) > 1e-3


def test_kernel_of_another_resolution_is_the_same_function() -> None:
    """Sampled twice as finely, the same signal gives nearly the same answer without retraining."""
    network = small(generator="siren")

    def answer(count: int) -> Tensor:
        grid = Grid((count,), (8.0 / count,), (4.0 / count,))
        nodes = grid.nodes()[:, 0]
        return network(torch.stack([torch.sin(nodes), torch.cos(2 * nodes)])[None], grid).detach()

    coarse, fine, finest = answer(40), answer(80), answer(160)
    assert float((fine - finest).abs().max()) < 0.02 * float((finest - network.output.bias.detach()).abs().max())
    assert float((fine - finest).abs().max()) < 0.5 * float((coarse - finest).abs().max())


# ---- training ----


DOMAINS: dict[str, tuple[int, Domain, Sequence[int]]] = {
    "points": (1, RAGGED, (14, 2)),
    "grid": (2, Grid((6, 5), (0.5, 0.4)), (2, 2, 6, 5)),
    "product": (2, Product(RAGGED, Grid((3,), (0.5,))), (14, 2, 3)),
}


@pytest.mark.parametrize("latent", [False, True], ids=["own domain", "latent"])
@pytest.mark.parametrize("name", DOMAINS)
def test_gradient_reaches_every_parameter(name: str, latent: bool) -> None:
    d, source, shape = DOMAINS[name]
    network = small(d=d, latent=Grid((5,) * d, (0.7,) * d) if latent else None).train()
    values = seeded(*shape, requires_grad=True)
    network(values, source).square().sum().backward()
    assert values.grad is not None
    assert bool(values.grad.any())
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert bool(torch.isfinite(parameter.grad).all()), key
        assert bool(parameter.grad.any()), key


def attributes(network: torch.nn.Module) -> dict[str, dict[str, object]]:
    return {key: {name: id(value) for name, value in vars(module).items()} for key, module in network.named_modules()}


@pytest.mark.parametrize("name", DOMAINS)
def test_forward_writes_nothing(name: str) -> None:
    d, source, shape = DOMAINS[name]
    network = small(d=d)
    before, state = attributes(network), copy.deepcopy(network.state_dict())
    network(seeded(*shape), source)
    network(seeded(*shape), source).sum().backward()
    assert attributes(network) == before
    for key, one in network.state_dict().items():
        assert torch.equal(one, state[key]), key


def test_lengths_in_any_order_answer_as_a_fresh_network() -> None:
    network = small()
    untouched = copy.deepcopy(network)
    for length in (5, 40, 2, 1, 17, 5):
        grid, values = Grid((length,), (0.5,)), seeded(2, 2, length, seed=length)
        assert torch.equal(network(values, grid), copy.deepcopy(untouched)(values, grid))


def test_dropout_acts_in_training_only() -> None:
    network, values = small(dropout=0.5), seeded(14, 2)
    assert torch.equal(network(values, RAGGED), network(values, RAGGED))
    for module in network.modules():
        if isinstance(module, Dropout):
            module.train()
    assert not torch.equal(network(values, RAGGED), network(values, RAGGED))


def test_kernels_are_listed_by_layer() -> None:
    kernels = small().kernels()
    assert list(kernels) == ["stem", "blocks.0.conv", "blocks.1.conv"]
    assert [one.in_channels for one in kernels.values()] == [2, 8, 8]
    assert kernels["stem"].support.tolist() == pytest.approx([0.6 * 3.03485], rel=1e-4)


def clouds(d: int) -> Points:
    """Sixteen samples at the same scattered points of uneven density in a box of side 2, weighing their share of it.

    The same for all: else the sample that a layer amplifies most would be all that is left behind twenty.
    """
    cloud = uniform(50, d) ** 1.4 * 2
    weights = density_compensation(cloud, volume=2.0**d)
    return Points(cloud.repeat(16, 1), weights.repeat(16), torch.arange(17) * 50)


SAMPLINGS: list[Domain] = [
    Grid((96,), (0.05,)),
    Grid((14, 17), (0.15, 0.1)),
    Grid((7, 6, 8), (0.3, 0.3, 0.25)),
    Grid((4, 5, 4, 4), (0.4, 0.3, 0.4, 0.5)),
    *(clouds(d) for d in (1, 2, 3, 4)),
]


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=lambda one: f"{type(one).__name__} d={one.d}")
@pytest.mark.parametrize("generator", ["magnet", "siren"])
def test_twenty_calibrated_layers_keep_the_scale(generator: str, sampling: Domain) -> None:
    """No norm and no shortcut, on values they were not calibrated with; as they are they explode or vanish."""
    torch.manual_seed(0)
    d, channels = sampling.d, 64
    omega_0 = 20.0 if generator == "magnet" else 6.0
    kernel = KernelSpec(extent=[1.0] * d, width=[0.35] * d, omega_0=omega_0, generator=generator, hidden=8)
    layers = [SeparableContinuousConv(kernel(channels), channels).double() for _ in range(20)]
    engine = "fft" if isinstance(sampling, Grid) else "neighbours"
    plan = make_plan([layer.kernel for layer in layers], sampling, engine=engine)
    raw = noise(sampling, channels, 2)
    with torch.no_grad():
        for layer in layers:
            raw = layer(raw, sampling, plan=plan)
    start = noise(sampling, channels, 2)
    assert not 0.1 < power(raw, sampling) / power(start, sampling) < 10
    values = start
    for layer in layers:
        layer.calibrate(sampling, values=values, plan=plan)
        values = layer(values, sampling, plan=plan).detach()
    other = noise(sampling, channels, 3)
    result = other
    for layer in layers:
        result = layer(result, sampling, plan=plan).detach()
    assert 0.5 < power(values, sampling) / power(start, sampling) < 2
    assert 0.5 < power(result, sampling) / power(other, sampling) < 2


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=lambda one: f"{type(one).__name__} d={one.d}")
def test_deep_network_keeps_its_scale(sampling: Domain) -> None:
    """Twenty calibrated blocks: what goes along the stream stays within a factor 2."""
    torch.manual_seed(0)
    d = sampling.d
    kernel = KernelSpec(extent=[1.0] * d, width=[0.35] * d, omega_0=2.0, generator="siren", hidden=8)
    solver = Solver("fft" if isinstance(sampling, Grid) else "neighbours")
    network = CCNN(3, 16, 3, kernel=kernel, blocks=20, solver=solver).double()
    network.calibrate(sampling)
    found = streams(network, noise(sampling, 3, 2), sampling)
    assert 0.5 < min(found) / found[0] <= max(found) / found[0] < 2


def streams(network: CCNN, values: Tensor, sampling: Domain) -> list[float]:
    """Variance of the stream behind the stem and behind each block."""
    hidden = torch.nn.functional.gelu(network.stem_norm(network.stem(values, sampling), sampling))
    found = [variance(hidden.detach(), sampling)]
    for block in network.blocks:
        hidden = block(hidden, sampling)
        found.append(variance(hidden.detach(), sampling))
    return found


def noise(domain: Domain, channels: int, seed: int) -> Tensor:
    if isinstance(domain, Grid):
        return seeded(8, channels, *domain.sizes, seed=seed)
    assert isinstance(domain, Points)
    return seeded(domain.count, channels, seed=seed)


def variance(values: Tensor, domain: Domain) -> float:
    """Mean over channels of the variance over samples and positions, the latter by their weights."""
    means = mean_over_positions(values, domain).mean(0)
    return power(values - means.reshape(1, -1, *(1,) * (values.ndim - 2)), domain)


def power(values: Tensor, domain: Domain) -> float:
    """Mean square over channels and positions, the latter by their weights."""
    return float(mean_over_positions(values.square(), domain).mean())


def test_training_step_lowers_the_loss() -> None:
    network = small().train()
    network.calibrate(RAGGED)
    values, target = seeded(14, 2), torch.tensor([0, 1, 2])
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    losses = []
    for _ in range(15):
        loss = torch.nn.functional.cross_entropy(network(values, RAGGED), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.6 * losses[0]


def test_weights_per_channel_need_a_latent_grid() -> None:
    points = Points(torch.rand(6, 1), torch.rand(6, 2))
    kernel = KernelSpec(extent=[1.0], width=[0.3], omega_0=3.0, generator="siren")
    values = torch.randn(6, 2)
    with pytest.raises(
        ValueError, match=r"source.weights must have one weight per point, \(N,\), unless a latent grid"
    ):
        CCNN(2, 4, 3, kernel=kernel, blocks=1)(values, points)
    assert CCNN(2, 4, 3, kernel=kernel, blocks=1, latent=Grid([8], [0.125]))(values, points).shape == (1, 3)


def test_engine_and_tolerance_reach_every_layer() -> None:
    torch.manual_seed(0)
    points = Points(torch.rand(40, 1, dtype=torch.float64), torch.full((40,), 1 / 40))
    kernel = KernelSpec(extent=[1.0], width=[0.2], omega_0=5.0, generator="siren")
    exact = CCNN(2, 4, 3, kernel=kernel, blocks=2, solver=Solver("reference")).double().eval()
    values = torch.randn(40, 2, dtype=torch.float64)
    errors = []
    for rtol in (1e-2, 1e-6):
        network = CCNN(2, 4, 3, kernel=kernel, blocks=2, solver=Solver("spectral", rtol)).double().eval()
        network.load_state_dict(exact.state_dict())
        with torch.no_grad():
            expected = exact(values, points)
            errors.append(float((network(values, points) - expected).norm() / expected.norm()))
    assert 0 < errors[1] < 1e-5 < errors[0] < 1e-1


# ---- outputs anywhere ----


def test_head_anywhere_is_one_more_convolution() -> None:
    network, values = small(head="anywhere", engine="reference"), seeded(14, 2)
    query = Points(uniform(5, 1, high=5.0, seed=8), splits=torch.tensor([0, 2, 2, 5]))
    output = network(values, RAGGED, query)
    assert output.shape == (5, 3)
    features, domain = network.features(values, RAGGED)
    assert domain is RAGGED
    inner = convolve(network.readout.kernel, features, RAGGED, query, engine="reference")
    inner = torch.nn.functional.linear(inner, network.readout.pointwise.weight)
    expected = torch.nn.functional.linear(torch.nn.functional.gelu(inner), network.output.weight)
    assert_close(output, expected)
    finer = Grid((7,), (0.25,), (0.1,))
    assert small(head="anywhere")(seeded(2, 2, 9), Grid((9,), (0.5,)), finer).shape == (2, 3, 7)


def test_causal_network_forecasts_from_the_past_alone() -> None:
    network = small(head="anywhere", causal=True, generator="siren", engine="reference")
    times = torch.linspace(0, 4, 20, dtype=torch.float64)
    source, values = Points(times[:, None], trapezoid(times)), seeded(20, 2)
    query = Points(torch.tensor([[2.05], [4.5]]))
    changed = values.clone()
    changed[times > 2.05] += 10
    before, after = network(values, source, query).detach(), network(changed, source, query).detach()
    assert_close(after[0], before[0])
    assert float((after[1] - before[1]).abs().max()) > 1e-4
    assert float((before[1] - network.output.bias.detach()).abs().max()) > 1e-6


# ---- compiled, exported, in other number formats ----


@pytest.mark.parametrize("head", ["classify", "dense"])
@pytest.mark.parametrize("latent", [None, Grid((6,), (1.0,), (0.5,))])
def test_frozen_network_answers_alike_and_exports(head: str, latent: Grid | None) -> None:
    network, grid = small(head=head, latent=latent, causal=True).train(), Grid((12,), (0.5,))
    network(seeded(4, 2, 12), grid)
    frozen, values = network.frozen(grid), seeded(3, 2, 12, seed=1)
    assert network.training
    expected = network.eval()(values, grid)
    assert_close(frozen(values), expected, factor=10)
    assert not frozen.train().training
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(frozen, (values,), dynamic_shapes=({0: batch},))
    assert_close(program.module()(torch.cat([values, 2 * values]))[:3], expected, factor=10)
    compiled = torch.compile(frozen, fullgraph=True, backend="aot_eager")
    assert_close(compiled(values), expected, factor=10)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of what crosses a break of the graph
def test_compiled_network_trains_alike() -> None:
    network, grid, values = small().train(), Grid((12,), (0.5,)), seeded(3, 2, 12)
    plain = copy.deepcopy(network)
    compiled = torch.compile(network, backend="aot_eager")
    for one in (plain, compiled):
        one(values, grid).square().sum().backward()
    gradients = {name: parameter.grad for name, parameter in plain.named_parameters()}
    assert_all_close({name: p.grad for name, p in network.named_parameters()}, gradients, factor=1e3)


@pytest.mark.parametrize("source", [Grid((24,), (0.25,)), RAGGED], ids=["grid", "points"])
def test_autocast_keeps_the_convolution_in_float32(source: Domain) -> None:
    network = small().float().train()
    values = seeded(*((2, 2, 24) if isinstance(source, Grid) else (14, 2)), dtype=torch.float32)
    exact = network(values, source).detach()
    with torch.autocast("cpu", torch.bfloat16):
        output = network(values, source)
    assert float((output.detach().float() - exact).norm() / exact.norm()) < 0.05
    output.float().square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
        assert bool(parameter.grad.any()), name


def test_copies_pickles_and_state() -> None:
    network, grid, values = small(learned_mean=True), Grid((12,), (0.5,)), seeded(2, 2, 12)
    expected = network(values, grid)
    assert torch.equal(copy.deepcopy(network)(values, grid), expected)
    assert torch.equal(pickle.loads(pickle.dumps(network))(values, grid), expected)
    other = small(learned_mean=True, seed=1)
    assert not torch.equal(other(values, grid), expected)
    other.load_state_dict(network.state_dict())
    assert torch.equal(other(values, grid), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_answers_like_the_cpu() -> None:
    network, grid, values = small(), Grid((12,), (0.5,)), seeded(2, 2, 12)
    expected = network(values, grid)
    assert_close(network.cuda()(values.cuda(), grid).cpu(), expected, factor=1e3)


# ---- another rate ----


def test_any_rate_and_length_on_one_network() -> None:
    """Rates in ratios that are not whole numbers, and lengths in any order, of one function of time."""
    network = small(generator="siren", width=[0.5])
    untouched = copy.deepcopy(network)
    answers = {}
    for count in (784, 63, 1568, 100, 63):
        grid = Grid((count,), (8.0 / count,), (4.0 / count,))
        nodes = grid.nodes()[:, 0]
        values = torch.stack([torch.sin(nodes), torch.cos(2 * nodes)])[None]
        answers[count] = network(values, grid).detach()
        assert torch.equal(answers[count], copy.deepcopy(untouched)(values, grid).detach())
    for count in (784, 63, 100):
        assert_close(answers[count], answers[1568], factor=3e10)


def test_energy_above_sums_over_the_kernels() -> None:
    network = small(d=2)
    expected = sum(energy_above(one, [0.5, None])[0].mean() for one in network.kernels().values())
    found = network.energy_above([0.5, None])
    assert_close(found, expected)
    assert float(found.detach()) > 0
    found.backward()
    assert bool(network.stem.kernel.generator.output.weight.grad.any())
