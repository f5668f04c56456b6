"""Weights as functions of their channels: interpolation, partitions, quadrature, sampling, and plain layers again."""

from __future__ import annotations

import copy
import io
import itertools
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ccnn_irregular import integral
from ccnn_irregular.integral import INTERPOLATIONS, RULES, Partition
from ccnn_irregular.quadrature import midpoint

KERNELS = {
    "linear": lambda s: np.maximum(1 - s, 0),
    "cubic": lambda s: np.where(
        s < 1, 1.5 * s**3 - 2.5 * s**2 + 1, np.where(s < 2, -0.5 * s**3 + 2.5 * s**2 - 4 * s + 2, 0)
    ),
}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(8, 6, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(6 * 4, 10),
        nn.ReLU(),
        nn.Linear(10, 3),
    ).eval()


IMAGES = torch.randn(4, 2, 4, 4, generator=torch.Generator().manual_seed(0))


# ---- interpolation ----


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_interpolation_is_exact_below_its_order(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(INTERPOLATIONS)))
    rule = INTERPOLATIONS[name]
    count = data.draw(st.integers(rule.order, 12))
    places = data.draw(st.lists(st.floats(-1, count), min_size=1, max_size=5))
    factors = data.draw(st.lists(st.floats(-2, 2), min_size=rule.order, max_size=rule.order))
    scale = count**rule.order
    values = np.polyval(factors, np.arange(count)) / scale
    found = rule.matrix(torch.tensor(places, dtype=torch.float64), count).numpy() @ values
    np.testing.assert_allclose(found, np.polyval(factors, places) / scale, atol=1e-11)


@pytest.mark.parametrize(("name", "order"), [("linear", 2), ("cubic", 3), ("cubic_wide", 4)])
def test_the_order_of_interpolations(name: str, order: int) -> None:
    """The next polynomial is missed, and the error falls as the order says."""
    rule = INTERPOLATIONS[name]
    assert rule.order == order
    errors = []
    for count in (33, 65, 129):
        places = torch.linspace(0, 1, 301, dtype=torch.float64)
        values = torch.sin(5 * torch.linspace(0, 1, count, dtype=torch.float64))
        found = rule.matrix(places * (count - 1), count) @ values
        errors.append(float((found - torch.sin(5 * places)).abs().max()))
    rates = np.log2(np.divide(errors[:-1], errors[1:]))
    assert rates == pytest.approx([order] * 2, abs=0.25)
    middle = rule.matrix(torch.tensor([4.3], dtype=torch.float64), 9) @ torch.arange(9.0, dtype=torch.float64) ** order
    assert abs(float(middle) - 4.3**order) > 1e-3


@pytest.mark.parametrize("name", sorted(INTERPOLATIONS))
def test_nodes_are_reproduced_and_places_have_gradients(name: str) -> None:
    rule = INTERPOLATIONS[name]
    for count in range(1, 8):
        places = torch.arange(count, dtype=torch.float64)
        torch.testing.assert_close(rule.matrix(places, count), torch.eye(count, dtype=torch.float64))
    places = torch.tensor([-0.4, 0.3, 2.2, 5.3], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda at: rule.matrix(at, 6), places)
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        rule.matrix(places, 0)


# ---- partitions ----


@given(st.lists(st.floats(-5, 5).filter(lambda root: abs(root) > 1e-3), min_size=2, max_size=20))
@settings(max_examples=40, deadline=None)
def test_partitions_ascend_for_any_parameters(roots: list[float]) -> None:
    for rule in ("midpoint", "trapezoid"):
        partition = Partition(len(roots) + (rule == "trapezoid"), rule)
        with torch.no_grad():
            partition.roots.copy_(torch.tensor(roots))
        partition.learn()
        positions, weights = partition.positions().detach(), partition.sampling()[1].detach()
        assert bool((positions.diff() > 0).all())
        assert float(positions[0]) >= 0
        assert float(positions[-1]) <= 1 + 1e-12
        assert float(weights.sum()) / partition.count == pytest.approx(1)


@pytest.mark.parametrize(("rule", "degree"), [("midpoint", 1), ("trapezoid", 1), ("simpson", 3), ("gauss_legendre", 9)])
def test_rules_integrate_what_they_integrate_exactly(rule: str, degree: int) -> None:
    partition = Partition(5, rule)
    positions, weights = partition.positions(), partition.sampling()[1] / partition.count
    for power in range(degree + 1):
        assert float((weights * positions**power).sum()) == pytest.approx(1 / (power + 1), rel=1e-13)
    assert abs(float((weights * positions ** (degree + 1)).sum()) - 1 / (degree + 2)) > 1e-8


def test_midpoint_stands_for_its_interval() -> None:
    ends = torch.tensor([1.0, 1.5, 4.0], dtype=torch.float64, requires_grad=True)
    nodes, weights = midpoint(ends)
    assert nodes.tolist() == [1.25, 2.75]
    assert weights.tolist() == [0.5, 2.5]
    assert torch.autograd.gradcheck(lambda at: midpoint(at)[1], ends)
    with pytest.raises(ValueError, match="ends must be at least two, got 1"):
        midpoint(torch.zeros(1))
    with pytest.raises(ValueError, match="be sorted within a sample"):
        midpoint(torch.tensor([1.0, 0.0]))


def test_a_learned_partition_keeps_its_density_at_another_size() -> None:
    partition = Partition(40)
    with torch.no_grad():
        partition.roots.copy_(torch.linspace(1, 3, 40))
    partition.learn()
    before = partition.positions().detach()
    partition.resize(20)
    assert partition.size == 20
    middles = (before[::2] + before[1::2]) / 2
    torch.testing.assert_close(partition.positions().detach(), middles, atol=2e-3, rtol=0)
    assert partition.roots.requires_grad


def test_partitions_refuse_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"rule must be one of \['gauss_legendre', .* got 'midpiont'"):
        Partition(5, "midpiont")
    with pytest.raises(ValueError, match="interpolation must be one of"):
        Partition(5, interpolation="spline")
    with pytest.raises(ValueError, match="size must be at least 2 for rule 'trapezoid', got 1"):
        Partition(1, "trapezoid")
    with pytest.raises(ValueError, match="rule must follow a partition to be learned, got 'gauss_legendre'"):
        Partition(5, "gauss_legendre").learn()


def test_positions_are_float64_in_any_network() -> None:
    partition = Partition(7)
    partition.resize(5)
    matrix = partition.matrix.clone()
    partition.to(torch.float16)
    assert partition.roots.dtype == partition.matrix.dtype == torch.float64
    assert torch.equal(partition.matrix, matrix)


# ---- sampling ----


@pytest.mark.parametrize("name", sorted(KERNELS))
def test_a_sampled_weight_is_the_sum_written_out(name: str) -> None:
    """sum_ab q(x_j) f_ab u(x_i - a) u(x_j - b), and its gradient, in NumPy."""
    layers = nn.Sequential(nn.Linear(2, 9), nn.Linear(9, 8), nn.Linear(8, 3)).double()
    converted = integral.convert(layers, torch.randn(1, 2, dtype=torch.float64), function=name, order=None)
    integral.resize(converted, sizes={"0": 5, "1": 4})
    middle = converted[1]
    nodes = layers[1].weight.detach().numpy()

    def factors(count: int, size: int) -> np.ndarray:
        places = (np.arange(size) + 0.5) / size * count - 0.5
        order = INTERPOLATIONS[name].order
        ends = (np.arange(order), np.arange(count - order, count))
        columns = []
        for node in np.eye(count):
            low, high = (np.polynomial.Polynomial.fit(end, node[end], order - 1) for end in ends)
            every = {at: low(at) if at < 0 else high(at) if at >= count else node[at] for at in range(-2, count + 2)}
            columns.append(sum(value * KERNELS[name](np.abs(places - at)) for at, value in every.items()))
        return np.stack(columns, 1)

    out, into = factors(8, 4), factors(9, 5)
    wanted = np.zeros((4, 5))
    for i, j, a, b in itertools.product(range(4), range(5), range(8), range(9)):
        wanted[i, j] += 9 / 5 * out[i, a] * into[j, b] * nodes[a, b]  # all weigh 1 / 5, relative to 1 / 9
    np.testing.assert_allclose(middle.weight.detach().numpy(), wanted, rtol=1e-12, atol=1e-13)
    slope = torch.randn(4, 5, dtype=torch.float64)
    (middle.weight * slope).sum().backward()
    found = middle.parametrizations.weight.original.grad
    np.testing.assert_allclose(found.numpy(), 9 / 5 * out.T @ slope.numpy() @ into, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("rule", ["midpoint", "trapezoid", "simpson"])
def test_gradients_through_sampling_and_quadrature(rule: str) -> None:
    layers = nn.Sequential(nn.Conv1d(1, 5, 2), nn.Conv1d(5, 6, 2), nn.Flatten(), nn.Linear(12, 2)).double()
    values = torch.randn(2, 1, 4, dtype=torch.float64)
    converted = integral.resize(integral.convert(layers, values, rule=rule), sizes={"0": 3, "1": 4})
    roots = integral.learn_partitions(converted)
    assert len(roots) == 2
    named = {name: one for name, one in converted.named_parameters() if one.ndim and not one.requires_grad}
    name, nodes = next(
        (name, one) for name, one in named.items() if name.endswith("1.parametrizations.weight.original")
    )

    root = next(name for name, one in converted.named_parameters() if one is roots[0])

    def run(nodes: Tensor, first: Tensor) -> Tensor:
        return torch.func.functional_call(converted, {name: nodes, root: first}, (values,), tie_weights=True)

    first = roots[0].detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(run, (nodes.detach().clone().requires_grad_(), first))


def test_nothing_changes_at_full_size_and_sizes_come_back() -> None:
    plain = network()
    converted = integral.convert(plain, IMAGES)
    groups = integral.channel_groups(converted)
    assert groups.sizes == {"0": 8, "4": 6, "7": 10}
    assert groups.error < 1e-6
    assert all(after <= before for before, after in groups.variations.values())
    wanted = plain(IMAGES).detach()
    torch.testing.assert_close(converted(IMAGES).detach(), wanted, rtol=1e-4, atol=1e-6)
    integral.resize(converted, 0.5)
    assert groups.sizes == {"0": 4, "4": 3, "7": 5}
    assert converted[4].weight.shape == (3, 4, 3, 3)
    assert (converted[4].in_channels, converted[7].in_features, converted[1].num_features) == (4, 12, 4)
    integral.resize(converted, 1.5)
    assert converted[7].weight.shape == (15, 9 * 4)
    integral.resize(converted, 1.0)
    torch.testing.assert_close(converted(IMAGES).detach(), wanted, rtol=1e-4, atol=1e-6)


def test_doubled_channels_are_halved_without_loss() -> None:
    """Each channel twice in a row: half of the samples say all."""
    plain = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    with torch.no_grad():
        for layer in plain[:4:2]:
            layer.weight[1::2] = layer.weight[::2]
            layer.bias[1::2] = layer.bias[::2]
        for layer in plain[2::2]:
            layer.weight[:, 1::2] = layer.weight[:, ::2]
    mixed = copy.deepcopy(plain)
    order = torch.randperm(8)
    with torch.no_grad():
        mixed[0].weight.copy_(plain[0].weight[order])
        mixed[0].bias.copy_(plain[0].bias[order])
        mixed[2].weight.copy_(plain[2].weight[:, order])
    values = torch.randn(5, 3, dtype=torch.float64)
    converted = integral.convert(mixed, values, function="linear")
    found = integral.discretise(integral.resize(converted, 0.5))(values)
    torch.testing.assert_close(found, plain(values), rtol=1e-10, atol=1e-12)


@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.* is deprecated:FutureWarning")  # PyTorch's own use
def test_plain_layers_know_nothing_of_this_package_and_are_exported(tmp_path: Path) -> None:
    converted = integral.resize(integral.convert(network(), IMAGES), 0.5)
    plain = integral.discretise(converted)
    assert [type(layer) for layer in plain] == [type(layer) for layer in network()]
    assert converted[0].weight.shape == plain[0].weight.shape  # the network itself is still an integral one
    buffer = io.BytesIO()
    torch.save(plain, buffer)
    assert b"ccnn_irregular" not in buffer.getvalue()
    assert set(plain.state_dict()) == set(network().state_dict())
    for model in (plain, converted):
        exported = torch.export.export(model, (IMAGES,)).module()
        torch.testing.assert_close(exported(IMAGES), plain(IMAGES))
    twin = copy.deepcopy(converted)
    integral.resize(twin, 0.25)
    assert torch.equal(converted(IMAGES), plain(IMAGES))
    assert twin[0].weight.shape[0] == 2
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    torch.onnx.export(plain, (IMAGES,), tmp_path / "plain.onnx", dynamo=True, verbose=False)
    session = runtime.InferenceSession(tmp_path / "plain.onnx")
    (found,) = session.run(None, {session.get_inputs()[0].name: IMAGES.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), plain(IMAGES).detach(), rtol=1e-4, atol=1e-5)


def test_a_checkpoint_brings_its_size_along() -> None:
    converted = integral.convert(network(), IMAGES)
    other = integral.convert(network(), IMAGES)
    integral.resize(converted, 0.5)
    other.load_state_dict(converted.state_dict())
    assert other[7].in_features == 12
    assert torch.equal(other(IMAGES), converted(IMAGES))


def test_random_sizes_train_one_set_of_weights() -> None:
    converted = integral.convert(network(), IMAGES)
    generator = torch.Generator().manual_seed(0)
    before = converted[4].parametrizations.weight.original.detach().clone()
    optimiser = torch.optim.SGD(converted.parameters(), 0.1)
    sizes = set()
    for _ in range(6):
        integral.resize_randomly(converted, 0.4, 1.0, generator)
        sizes.add(integral.channel_groups(converted).sizes["7"])
        optimiser.zero_grad()
        converted(IMAGES).square().sum().backward()
        optimiser.step()
    assert len(sizes) > 2
    assert min(sizes) >= 4
    assert not torch.equal(converted[4].parametrizations.weight.original, before)
    with pytest.raises(ValueError, match="lowest must be positive, and at most highest"):
        integral.resize_randomly(converted, 0.9, 0.5)


def test_partitions_are_learned_alone() -> None:
    converted = integral.resize(integral.convert(network(), IMAGES), 0.5)
    wanted = network()(IMAGES).detach()
    parameters = integral.learn_partitions(converted)
    weights = [one.detach().clone() for one in converted.parameters() if not one.requires_grad]
    optimiser = torch.optim.Adam(parameters, 0.05)
    losses = []
    for _ in range(25):
        optimiser.zero_grad()
        loss = (converted(IMAGES) - wanted).square().mean()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]
    after = [one for one in converted.parameters() if not one.requires_grad]
    assert all(torch.equal(a, b) for a, b in zip(weights, after, strict=True))
    learned = converted(IMAGES)
    integral.learn_partitions(converted, False)
    torch.testing.assert_close(converted(IMAGES), learned)
    torch.testing.assert_close(integral.discretise(converted)(IMAGES), learned)


def test_generators_are_weight_functions() -> None:
    torch.manual_seed(1)
    converted = integral.convert(network(), IMAGES, function="siren")
    layer = converted[4]
    assert type(layer.parametrizations.weight[0].generator).__name__ == "SIREN"
    wanted = network()[4].weight.detach().square().mean()
    assert float(layer.weight.detach().square().mean()) == pytest.approx(float(wanted), rel=0.5)
    integral.resize(converted, 0.5)
    converted(IMAGES).sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parametrizations.weight[0].generator.parameters())
    assert integral.discretise(converted)[4].weight.shape == (3, 4, 3, 3)


def test_running_statistics_are_measured_anew() -> None:
    plain = integral.discretise(integral.resize(integral.convert(network(), IMAGES), 0.5))
    integral.recalibrate(plain, [IMAGES, 2 * IMAGES])
    hidden = torch.stack([plain[0](IMAGES), plain[0](2 * IMAGES)])
    torch.testing.assert_close(plain[1].running_mean, hidden.mean((0, 1, 3, 4)))
    assert not plain[1].training
    assert plain[1].momentum == 0.1
    with pytest.raises(ValueError, match="model must be discretised first"):
        integral.recalibrate(integral.convert(network(), IMAGES), [IMAGES])


def test_arguments_are_checked() -> None:
    converted = integral.convert(network(), IMAGES)
    with pytest.raises(ValueError, match=r"model must have no attribute channel_groups"):
        integral.convert(converted, IMAGES)
    with pytest.raises(ValueError, match=r"function must be one of \['cubic', .*'siren'\], got 'spline'"):
        integral.convert(network(), IMAGES, function="spline")
    with pytest.raises(ValueError, match=r"ratio must be given, or sizes, but not both"):
        integral.resize(converted)
    with pytest.raises(ValueError, match="ratio must be positive and finite, got 0"):
        integral.resize(converted, 0)
    with pytest.raises(ValueError, match=r"sizes must name groups that can be resized, \['0', '4', '7'\], got '9'"):
        integral.resize(converted, sizes={"9": 3})
    with pytest.raises(ValueError, match=r"sizes\['0'\] must be a multiple of 1, at least 1, got 0"):
        integral.resize(converted, sizes={"0": 0})
    with pytest.raises(ValueError, match=r"model must be converted by .*convert, got Sequential"):
        integral.resize(network(), 0.5)
    wide = nn.Sequential(nn.Linear(2, 200), nn.ReLU(), nn.Linear(200, 2))
    with pytest.raises(ValueError, match=r"model must keep the outputs to 0.0001 \(rule 'gauss_legendre'"):
        integral.convert(wide, torch.randn(3, 2), rule="gauss_legendre", order=None)
    with pytest.raises(ValueError, match="order must give each channel of a block once"):
        integral.convert(network(), IMAGES, order=lambda between: np.zeros(len(between), int))
    assert sorted(RULES) == ["gauss_legendre", "midpoint", "simpson", "trapezoid"]
    assert pickle.loads(pickle.dumps(integral.channel_groups(converted).sizes)) == {"0": 8, "4": 6, "7": 10}


def test_the_path_is_short() -> None:
    """Points on a line in random order come back sorted; on random points the path beats a greedy one."""
    numbers = np.random.default_rng(0)
    places = numbers.permutation(60).astype(float)
    found = integral.shortest_path(np.abs(places[:, None] - places))
    assert np.abs(np.diff(places[found])).sum() == 59
    assert integral.shortest_path(np.zeros((2, 2))).tolist() == [0, 1]
    points = numbers.random((80, 2))
    between = np.linalg.norm(points[:, None] - points, axis=2)
    found = integral.shortest_path(between)
    assert sorted(found) == list(range(80))
    assert between[found[:-1], found[1:]].sum() < 0.7124 * np.sqrt(80) * 1.2  # of the best tour, and a fifth
