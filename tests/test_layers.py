"""Layers: biases and mixes on every domain, calibration, weighted means."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from contract_cases import seeded, small_kernel, uniform
from torch import nn

from ccnn_irregular import (
    SIREN,
    ContinuousConv,
    GaussianMask,
    Grid,
    Kernel,
    Points,
    Product,
    SeparableContinuousConv,
    Solver,
    convolve,
    make_plan,
)
from ccnn_irregular.domains import Domain
from ccnn_irregular.layers import BatchNorm, Dropout, InstanceNorm, PointwiseLinear, mean_over_positions
from ccnn_irregular.quadrature import trapezoid
from ccnn_irregular.testing import assert_close

RAGGED = Points(uniform(9, 1, high=2.0, seed=1), uniform(9, low=0.2, seed=2), torch.tensor([0, 4, 4, 9]))
GRIDS = [Grid((7,), (0.5,)), Grid((4, 3), (0.5, 0.7)), Grid((3, 2, 4), (0.5, 0.7, 1.1)), Grid((2, 3, 1, 2), (1.0,) * 4)]


# ---- convolution layers ----


def test_layer_is_the_convolution_plus_bias() -> None:
    layer = ContinuousConv(small_kernel(1, shape=(3, 2)), solver=Solver("reference")).to(torch.float64)
    assert layer.bias.shape == (3,)
    assert not layer.bias.any()
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([1.0, -2.0, 3.0]))
    values, query = seeded(9, 2), Points(uniform(4, 1, seed=3), splits=torch.tensor([0, 1, 3, 4]))
    expected = convolve(layer.kernel, values, RAGGED, query, engine="reference") + torch.tensor([[1.0, -2.0, 3.0]])
    assert_close(layer(values, RAGGED, query), expected)
    plain = ContinuousConv(small_kernel(1), bias=False)
    assert plain.bias is None
    assert "bias" not in plain.state_dict()


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: f"d={grid.d}")
def test_layer_on_grids(grid: Grid) -> None:
    layer = ContinuousConv(small_kernel(grid.d)).to(torch.float64)
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([1.0, -2.0]))
    values = seeded(2, 2, *grid.sizes)
    result = layer(values, grid)
    without = convolve(layer.kernel, values, grid, engine="reference")
    assert_close(result[:, 0], without[:, 0] + 1)
    assert_close(result[:, 1], without[:, 1] - 2)


def test_layer_with_a_plan() -> None:
    layer, grid = ContinuousConv(small_kernel(1)).to(torch.float64), GRIDS[0]
    plan, values = make_plan(layer.kernel, grid), seeded(2, 2, 7)
    assert torch.equal(layer(values, grid, plan=plan), layer(values, grid))
    with pytest.raises(ValueError, match="plan must be made for this source"):
        layer(values, Grid((7,), (0.25,)), plan=plan)


def test_separable_layer_mixes_after_the_convolution() -> None:
    layer = SeparableContinuousConv(small_kernel(2), 5, solver=Solver("reference")).to(torch.float64)
    with torch.no_grad():
        layer.depthwise.bias.copy_(torch.tensor([0.3, -0.4]))
        layer.pointwise.bias.copy_(torch.arange(5.0))
    assert layer.kernel is layer.depthwise.kernel
    grid = GRIDS[1]
    values = seeded(2, 2, 4, 3)
    inner = convolve(layer.kernel, values, grid, engine="reference") + torch.tensor([0.3, -0.4])[:, None, None]
    mixed = torch.einsum("dc,bcxy->bdxy", layer.pointwise.weight, inner) + torch.arange(5.0)[:, None, None]
    assert_close(layer(values, grid), mixed)
    rows = values.flatten(2).movedim(1, 2).flatten(0, 1)
    on_points = layer(rows, grid.as_points(2))
    assert_close(on_points.unflatten(0, (2, 12)).movedim(1, 2).unflatten(2, (4, 3)), mixed)
    bare = SeparableContinuousConv(small_kernel(2), 5, bias=False)
    assert bare.depthwise.bias is None
    assert bare.pointwise.bias is None


def test_separable_layer_equals_one_full_kernel() -> None:
    """Depthwise, then mixed, is the full kernel W[d, c] K[c]: one layer, two ways to compute it."""
    separable = SeparableContinuousConv(small_kernel(1), 3, bias=False).to(torch.float64)
    full = small_kernel(1, shape=(3, 2))
    with torch.no_grad():
        mix, inner, outer = separable.pointwise.weight, separable.kernel.generator, full.generator
        outer.linears.load_state_dict(inner.linears.state_dict())
        outer.output.weight.copy_((mix[:, :, None] * inner.output.weight[None]).flatten(0, 1))
        outer.output.bias.copy_((mix * inner.output.bias[None]).flatten())
    values = seeded(9, 2)
    assert_close(
        convolve(full, values, RAGGED, engine="reference"),
        separable.pointwise(convolve(separable.kernel, values, RAGGED, engine="reference")),
    )


@pytest.mark.parametrize("shape", [(6, 3), (6, 3, 5), (6, 3, 4, 5), (6, 3, 2, 3, 4), (6, 3, 2, 3, 2, 2)])
def test_pointwise_linear_on_every_shape(shape: tuple[int, ...]) -> None:
    for bias in (True, False):
        layer = PointwiseLinear(3, 4, bias=bias).to(torch.float64)
        if bias:
            with torch.no_grad():
                layer.bias.copy_(torch.arange(4.0))
        values = seeded(*shape)
        moved = nn.functional.linear(values.movedim(1, -1), layer.weight, layer.bias).movedim(-1, 1)
        assert_close(layer(values), moved)


def test_pointwise_linear_keeps_the_variance() -> None:
    torch.manual_seed(0)
    layer = PointwiseLinear(200, 300)
    assert not layer.bias.any()
    assert float(layer(torch.randn(500, 200)).var().detach()) == pytest.approx(1.0, rel=0.1)


@pytest.mark.parametrize("shape", [(20, 3), (6, 3, 5), (6, 3, 4, 5), (6, 3, 2, 3, 2, 2)])
def test_batch_norm_normalises_each_channel_over_all_positions(shape: tuple[int, ...]) -> None:
    norm = BatchNorm(3).to(torch.float64)
    values = seeded(*shape) * 3 + 2
    dims = [0, *range(2, len(shape))]
    view = [1, 3] + [1] * (len(shape) - 2)
    mean, variance = values.mean(dims), values.var(dims, unbiased=False)
    expected = (values - mean.view(view)) / (variance.view(view) + norm.eps).sqrt()
    domain = Points(uniform(20, 1)) if len(shape) == 2 else Grid(shape[2:], (1.0,) * (len(shape) - 2))
    assert_close(norm(values, domain), expected)
    assert_close(norm.running_mean, 0.1 * mean)


# ---- calibration ----


def sampling(name: str) -> tuple[Domain, Domain | None]:
    """A source and a query with a hundred queries or more."""
    even = torch.sort(uniform(150, high=15.0, seed=3)).values
    match name:
        case "dense grid":
            return Grid((150,), (0.05,)), None
        case "sparse grid":
            return Grid((150,), (0.9,)), None
        case "irregular points":
            return Points(even[:, None], trapezoid(even)), None
        case "irregular points without weights":
            return Points(even[:, None]), None
        case "ragged":
            splits = torch.tensor([0, 20, 20, 85, 150])
            return Points(even[:, None], trapezoid(even, splits=splits, cap=1.0), splits), None
        case "points to grid":
            return Points(even[:, None], trapezoid(even)), Grid((150,), (0.1,))
        case "square grid":
            return Grid((14, 11), (0.3, 0.5)), None
        case _:
            return Product(Points(uniform(8, 1, high=4.0, seed=1), uniform(8, seed=2)), Grid((16,), (0.2,))), None


SAMPLINGS = (
    "dense grid",
    "sparse grid",
    "irregular points",
    "irregular points without weights",
    "ragged",
    "points to grid",
    "square grid",
    "product",
)


def white_noise(domain: Domain, channels: int, seed: int) -> torch.Tensor:
    if isinstance(domain, Grid):
        return seeded(1, channels, *domain.sizes, seed=seed)
    if isinstance(domain, Product):
        return seeded(domain.points.count, channels, *domain.grid.sizes, seed=seed)
    return seeded(domain.count, channels, seed=seed)


@pytest.mark.parametrize("full", [False, True], ids=["depthwise", "full"])
@pytest.mark.parametrize("name", SAMPLINGS)
def test_calibration_keeps_the_variance_of_white_noise(name: str, full: bool) -> None:
    source, query = sampling(name)
    torch.manual_seed(0)
    channels = 8 if full else 32
    shape = (6, channels) if full else (channels,)
    generator = SIREN(source.d, 6 * channels if full else channels, hidden=16, omega_0=2.0)
    kernel = Kernel(generator, GaussianMask([0.6] * source.d), extent=[1.0] * source.d, shape=shape)
    layer = ContinuousConv(kernel).to(torch.float64)
    before = copy.deepcopy(kernel)
    layer.calibrate(source, query)
    # The kernel is scaled as a whole: its form stays.
    offsets = uniform(5, source.d, low=-0.4, high=0.4, seed=5)
    ratio = (kernel(offsets) / before(offsets)).detach()
    assert_close(ratio, ratio.flatten()[0].expand_as(ratio).contiguous(), factor=1e3)
    with torch.no_grad():
        draws = [layer(white_noise(source, channels, seed), source, query) for seed in range(60)]
    # 64 of the queries decide the scale and the borders differ from the middle: near 1, not exact.
    assert float(torch.stack(draws).square().mean()) == pytest.approx(1.0, rel=0.15)
    again = copy.deepcopy(layer)
    again.calibrate(source, query)
    for mine, other in zip(layer.parameters(), again.parameters(), strict=True):
        assert torch.allclose(mine, other, rtol=1e-12)


def test_calibration_is_exact_for_few_queries() -> None:
    """With fewer queries than are looked at, the mean of sum (w K)^2 over them is exactly 1."""
    layer = ContinuousConv(small_kernel(1, shape=(3, 2)), solver=Solver("reference")).to(torch.float64)
    query = Points(uniform(6, 1, high=2.0, seed=4), splits=torch.tensor([0, 2, 2, 6]))
    layer.calibrate(RAGGED, query)
    # Columns of the operator, one source entry at a time.
    power = 0.0
    with torch.no_grad():
        for row in range(9):
            for channel in range(2):
                impulse = torch.zeros(9, 2, dtype=torch.float64)
                impulse[row, channel] = 1
                power += float(layer(impulse, RAGGED, query).square().sum())
    assert power / (6 * 3) == pytest.approx(1.0, rel=1e-12)


def test_calibration_is_explicit() -> None:
    """No forward pass changes a layer."""
    layer = SeparableContinuousConv(small_kernel(1), 3, solver=Solver("reference")).to(torch.float64)
    before = copy.deepcopy(layer.state_dict())
    attributes = {name: set(vars(module)) for name, module in layer.named_modules()}
    layer(seeded(9, 2), RAGGED)
    layer(seeded(1, 2, 7), GRIDS[0])
    assert all(torch.equal(one, before[key]) for key, one in layer.state_dict().items())
    assert attributes == {name: set(vars(module)) for name, module in layer.named_modules()}
    layer.calibrate(RAGGED)
    assert not torch.equal(
        layer.state_dict()["depthwise.kernel.generator._output.weight"],
        before["depthwise.kernel.generator._output.weight"],
    )


# ---- means ----


def test_mean_is_weighted_per_sample() -> None:
    values = seeded(9, 3)
    means = mean_over_positions(values, RAGGED)
    assert means.shape == (3, 3)
    for number, (first, last) in enumerate(((0, 4), (4, 4), (4, 9))):
        weights = RAGGED.weights[first:last, None]
        expected = (weights * values[first:last]).sum(0) / weights.sum() if last > first else torch.zeros(3).double()
        assert_close(means[number], expected, scale=1.0)
    assert bool(means[0].all())


def test_mean_with_weights_per_channel() -> None:
    weights = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0]])
    points = Points(torch.arange(3.0)[:, None], weights, torch.tensor([0, 2, 3]))
    means = mean_over_positions(torch.tensor([[1.0, 9.0], [2.0, 9.0], [7.0, 5.0]]), points)
    assert means.tolist() == [[1.75, 0.0], [0.0, 5.0]]


def test_mean_does_not_follow_the_density_of_samples() -> None:
    """A signal measured more often where it is high has the same mean over time."""
    positions = torch.cat([torch.linspace(0, 1, 10), torch.linspace(1.001, 2, 500)]).double()
    values = (positions > 1).double()[:, None]
    weighted = mean_over_positions(values, Points(positions[:, None], trapezoid(positions)))
    assert float(weighted) == pytest.approx(0.5, abs=2e-3)
    assert float(mean_over_positions(values, Points(positions[:, None]))) > 0.95


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: f"d={grid.d}")
def test_mean_on_grids(grid: Grid) -> None:
    values = seeded(2, 3, *grid.sizes)
    expected = values.sum(tuple(range(2, values.ndim))) / grid.count
    assert_close(mean_over_positions(values, grid), expected)


def test_mean_on_products() -> None:
    product = Product(RAGGED, Grid((4, 2), (0.5, 0.7)))
    values = seeded(9, 3, 4, 2)
    rows = values.flatten(2).movedim(1, 2).flatten(0, 1)
    means = mean_over_positions(values, product)
    assert_close(means, mean_over_positions(rows, product.as_points()))
    assert not means[1].any()


# ---- norm and dropout ----


def doubled(points: Points) -> Points:
    """Every point twice, at half its weight."""
    splits = 2 * points.splits
    return Points(points.coordinates.repeat_interleave(2, 0), points.weights.repeat_interleave(2, 0) / 2, splits)


@pytest.mark.parametrize("product", [False, True])
def test_batch_norm_does_not_follow_the_density(product: bool) -> None:
    grid = Grid((3,), (0.5,))
    values = seeded(9, 2, 3) * 3 + 2 if product else seeded(9, 2) * 3 + 2
    sparse, dense = BatchNorm(2).double(), BatchNorm(2).double()
    one = sparse(values, Product(RAGGED, grid) if product else RAGGED)
    twice = doubled(RAGGED)
    two = dense(values.repeat_interleave(2, 0), Product(twice, grid) if product else twice)
    assert_close(two[::2], one)
    for key, state in sparse.state_dict().items():
        assert torch.equal(state, dense.state_dict()[key]) or torch.allclose(state, dense.state_dict()[key], rtol=1e-12)
    # By NumPy's weighted average, channel by channel.
    weights = RAGGED.weights.numpy()
    rows = values.flatten(2).mean(2) if product else values
    mean = np.average(rows.numpy(), axis=0, weights=weights)
    assert_close(sparse.running_mean, torch.from_numpy(0.1 * mean))
    square = ((values - torch.from_numpy(mean).reshape(1, 2, *(1,) * product)) ** 2).flatten(2) if product else None
    square = square.mean(2) if product else (values - torch.from_numpy(mean)) ** 2
    variance = np.average(square.numpy(), axis=0, weights=weights)
    assert_close(sparse.running_var, torch.from_numpy(0.9 + 0.1 * variance))


def test_batch_norm_reads_nothing_that_weighs_nothing() -> None:
    weights = RAGGED.weights.clone()
    weights[[1, 7]] = 0
    points = Points(RAGGED.coordinates, weights, RAGGED.splits)
    values = seeded(9, 2)
    spoiled = values.clone()
    spoiled[[1, 7]] = float("nan")
    kept = [0, 2, 3, 4, 5, 6, 8]
    assert_close(BatchNorm(2).double()(spoiled, points)[kept], BatchNorm(2).double()(values, points)[kept])
    norm = BatchNorm(2).double()
    norm(spoiled, points)
    assert bool(torch.isfinite(norm.running_var).all())
    with pytest.raises(ValueError, match=r"source.weights must hold a positive weight for every channel, got 0.0"):
        norm(values, Points(RAGGED.coordinates, torch.zeros(9), RAGGED.splits))
    norm.eval()(values, Points(RAGGED.coordinates, torch.zeros(9), RAGGED.splits))


def test_batch_norm_is_torchs_on_grids_and_in_evaluation() -> None:
    ours, theirs = BatchNorm(3, momentum=None).double(), nn.BatchNorm2d(3, momentum=None).double()
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    grid = GRIDS[1]
    for seed in range(3):
        values = seeded(2, 3, 4, 3, seed=seed) + seed
        assert_close(ours(values, grid), theirs(values))
    theirs.load_state_dict(ours.state_dict())
    assert_close(ours.eval()(values, grid), theirs.eval()(values))
    rows = seeded(9, 3)
    assert_close(ours(rows, RAGGED), theirs(rows[:, :, None, None])[:, :, 0, 0])
    assert_close(ours.by_these(values, grid).mean((0, 2, 3)), torch.zeros(3).double(), scale=1.0)
    # Evaluation begins where training is, but for the factor n / (n - 1) of 24 values.
    torch.testing.assert_close(ours(values, grid), ours.by_these(values, grid), rtol=0, atol=0.1)
    assert_close(ours.by_these(rows, RAGGED), ours(rows, RAGGED))
    averaging = BatchNorm(3, momentum=None).double()
    for seed in range(3):
        averaging(seeded(9, 3, seed=seed), RAGGED)
    assert int(averaging.num_batches_tracked) == 3
    means = [np.average(seeded(9, 3, seed=seed).numpy(), axis=0, weights=RAGGED.weights.numpy()) for seed in range(3)]
    assert_close(averaging.running_mean, torch.from_numpy(np.mean(means, axis=0)))


def test_batch_norm_gradient() -> None:
    norm = BatchNorm(2).double()
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.5, 2.0]))
    assert torch.autograd.gradcheck(lambda values: norm(values, RAGGED), [seeded(9, 2, requires_grad=True)])


def test_channel_dropout_takes_whole_channels_of_a_sample() -> None:
    torch.manual_seed(0)
    drop = Dropout(0.5)
    on_points = drop(torch.ones(9, 40), RAGGED)
    for first, last in ((0, 4), (4, 9)):
        rows = on_points[first:last]
        assert bool((rows == rows[:1]).all())
        assert set(rows.unique().tolist()) == {0.0, 2.0}
    assert not torch.equal(on_points[0], on_points[8])
    on_product = drop(torch.ones(9, 40, 3), Product(RAGGED, Grid((3,), (1.0,))))
    assert bool((on_product[:4] == on_product[:1, :, :1]).all())
    on_grid = drop(torch.ones(2, 40, 4, 3), GRIDS[1])
    assert bool((on_grid == on_grid[:, :, :1, :1]).all())
    assert not torch.equal(on_grid[0], on_grid[1])
    assert float(drop(torch.ones(1, 10_000, 1), Grid((1,), (1.0,))).mean()) == pytest.approx(1.0, abs=0.05)
    singles = Dropout(0.5, "value")(torch.ones(9, 40), RAGGED)
    assert not bool((singles[:4] == singles[:1]).all())
    assert torch.equal(drop.eval()(on_points, RAGGED), on_points)
    assert repr(drop) == "Dropout(0.5, unit='channel')"


@pytest.mark.parametrize(
    ("options", "message"),
    [((1.0,), r"probability must be in \[0, 1\), got 1.0"), ((0.1, "row"), "unit must be one of")],
)
def test_dropout_refusals(options: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Dropout(*options)


def test_separable_calibration_on_given_values() -> None:
    layer = SeparableContinuousConv(small_kernel(1), 5, solver=Solver("reference")).to(torch.float64)
    values = seeded(9, 2)
    layer.calibrate(RAGGED, values=values)
    result = layer(values, RAGGED).detach()
    weights = RAGGED.weights.numpy()
    power = [np.average((one.numpy() ** 2).mean(1), weights=weights) for one in (values, result)]
    assert power[1] == pytest.approx(power[0], rel=1e-12)
    with pytest.raises(ValueError, match=r"values must not be zero everywhere"):
        layer.calibrate(RAGGED, values=torch.zeros_like(values))


# ---------------------------------------------------------------------------------------------------- instance norm


def instance_norm() -> InstanceNorm:
    norm = InstanceNorm(2).double()
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([2.0, -0.5]))
        norm.bias.copy_(torch.tensor([0.25, 3.0]))
    return norm


@pytest.mark.parametrize("sizes", [(7,), (4, 5), (3, 2, 4)])
def test_instance_norm_on_a_grid_is_torchs(sizes: tuple[int, ...]) -> None:
    ours, theirs = instance_norm(), nn.InstanceNorm1d(2, affine=True).double()
    theirs.load_state_dict(ours.state_dict())
    values = seeded(3, 2, *sizes) * 5 + 1
    grid = Grid(sizes, [0.5] * len(sizes))
    assert_close(ours(values, grid), theirs(values.flatten(2)).reshape(values.shape))
    assert_close(ours.eval()(values, grid), ours.train()(values, grid))


@pytest.mark.parametrize("axes", [1, 3])
def test_instance_norm_of_a_single_position_is_the_bias_as_on_a_grid_of_equal_values(axes: int) -> None:
    norm, values = instance_norm(), seeded(3, 2, *(1,) * axes).requires_grad_()
    found = norm(values, Grid((1,) * axes, [0.5] * axes))
    repeated = norm(values.expand(3, 2, *(2,) * axes), Grid((2,) * axes, [0.5] * axes))
    assert_close(found.expand_as(repeated), repeated)
    found.sum().backward()
    assert bool((values.grad == 0).all())


def test_instance_norm_on_points_is_that_of_each_sample_by_its_weights() -> None:
    values, coordinates, weights = seeded(9, 2), seeded(9, 1), seeded(9).abs() + 0.1
    splits = torch.tensor([0, 5, 9])
    norm, points = instance_norm(), Points(coordinates, weights, splits)
    found = norm(values, points)
    for first, last in ((0, 5), (5, 9)):
        own, share = values[first:last], (weights[first:last] / weights[first:last].sum())[:, None]
        mean = (own * share).sum(0)
        variance = ((own - mean).square() * share).sum(0)
        assert_close(found[first:last], (own - mean) / (variance + norm.eps).sqrt() * norm.weight + norm.bias)
    # Twice the points of half the weight are the same function; what weighs nothing is never read.
    twice = torch.arange(9).repeat_interleave(2)
    doubled = Points(coordinates[twice], weights[twice] / 2, 2 * splits)
    assert_close(norm(values[twice], doubled), found[twice])
    none, spoiled = weights.clone(), values.clone()
    none[2], spoiled[2] = 0.0, torch.nan
    kept = torch.arange(9) != 2
    without = Points(coordinates, none, splits)
    assert_close(norm(spoiled, without)[kept], norm(values, without)[kept])


def test_instance_norm_on_a_product_counts_points_by_their_weights_and_nodes_alike() -> None:
    values = seeded(4, 2, 3)
    points = Points(torch.arange(4.0)[:, None], torch.tensor([1.0, 2.0, 0.5, 1.0]), torch.tensor([0, 3, 4]))
    grid = Grid((3,), (1.0,))
    norm = instance_norm()
    flat = Product(points, grid).as_points()
    assert_close(
        norm(values, Product(points, grid)),
        norm(values.transpose(1, 2).reshape(12, 2), flat).reshape(4, 3, 2).transpose(1, 2),
    )
