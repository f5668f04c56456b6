"""Channel groups of whole networks: any order of their channels leaves the outputs, and any size runs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from integral_networks import NETWORKS, Named
from torch import Tensor, nn

from ccnn_irregular import CCNN, Grid, KernelSpec, integral
from ccnn_irregular.layers import PointwiseLinear
from ccnn_irregular.networks_unet import ContinuousUNet


def assert_close(found: Tensor, wanted: Tensor, rtol: float) -> None:
    """Compare relative to the largest value."""
    assert found.shape == wanted.shape
    assert float((found - wanted).detach().abs().max()) <= rtol * float(wanted.detach().abs().max())


def run(network: nn.Module, example: object) -> Tensor:
    return network(*example) if isinstance(example, tuple) else network(example)


def in_float64(named: Named) -> Named:
    network, example, sizes = named
    network.double().eval()
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):  # no channel like another
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)

    def wide(one: object) -> object:
        return one.double() if isinstance(one, Tensor) and one.is_floating_point() else one

    return network, tuple(map(wide, example)) if isinstance(example, tuple) else wide(example), sizes


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("name", NETWORKS)
def test_groups_of_a_network(name: str) -> None:
    network, example, sizes = in_float64(NETWORKS[name]())
    numbers = np.random.default_rng(0)
    with torch.no_grad():
        wanted = run(network, example)
    # A random order: were one layer left out, the outputs would be others.
    converted = integral.convert(network, example, order=lambda between: numbers.permutation(len(between)))
    groups = integral.channel_groups(converted)
    assert groups.sizes == sizes
    assert groups.error < 1e-6
    with torch.no_grad():
        found = run(converted, example)
        assert_close(found, wanted, rtol=1e-6)
        integral.resize(converted, 0.5)
        smaller = integral.discretise(converted)
        assert_close(run(smaller, example), run(converted, example), rtol=1e-12)
        assert run(smaller, example).shape == wanted.shape
        assert_close(run(integral.resize(converted, 1.0), example), found, rtol=1e-14)
    count = sum(parameter.numel() for parameter in smaller.parameters())
    assert count < sum(parameter.numel() for parameter in network.parameters())


def test_groups_are_printed_with_their_layers_and_why_others_are_fixed() -> None:
    network, example, _ = NETWORKS["resnet"]()
    converted = integral.convert(network.eval(), example)
    lines = str(integral.channel_groups(converted)).splitlines()
    assert lines[0].startswith("group ")
    assert lines[1].startswith("stem.0 ")
    assert "stem.0, stem.1, layers.0.0.conv1, layers.0.0.conv2" in lines[1]
    assert lines[-1].startswith("fc ")
    assert lines[-1].endswith("fixed: outputs of the network")


def test_heads_are_blocks_and_stay_as_wide_as_the_stream() -> None:
    network, example, _ = NETWORKS["text"]()
    groups = integral.channel_groups(converted := integral.convert(network.eval(), example))
    blocks = {group.name: group.blocks for group in groups.plan.groups}
    assert blocks["layer.self_attn#1"] == blocks["layer.self_attn#2"] == 2
    with pytest.raises(
        ValueError, match=r"sizes must give 'embedding' and 'layer.self_attn#1' equal sizes, got \(6, 8"
    ):
        integral.resize(converted, sizes={"embedding": 6})
    every = dict.fromkeys(("embedding", "layer.self_attn#1", "layer.self_attn#2"), 6)
    integral.resize(converted, sizes=every)
    assert run(integral.discretise(converted), example).shape == (2, 3)
    with pytest.raises(ValueError, match=r"sizes\['embedding'\] must be a multiple of 2, at least 2, got 5"):
        integral.resize(converted, sizes={"embedding": 5})


def test_queries_and_keys_keep_the_size_of_their_products() -> None:
    """Constant functions of the channels: products of any number of samples are those of all."""

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key, self.value = (nn.Linear(3, 8) for _ in range(3))
            self.end = nn.Linear(8, 2)

        def forward(self, values: Tensor) -> Tensor:
            query, key, value = self.query(values), self.key(values), self.value(values)
            return self.end(nn.functional.scaled_dot_product_attention(query, key, value))

    network = Attention().double()
    with torch.no_grad():
        for layer in (network.query, network.key, network.value):
            layer.weight.copy_(layer.weight[:1].expand(8, -1))
            layer.bias.copy_(layer.bias[:1].expand(8))
        network.end.weight.copy_(network.end.weight[:, :1].expand(-1, 8))
        values = torch.randn(2, 5, 3, dtype=torch.float64)
        converted = integral.convert(network, values)
        for ratio in (0.25, 0.5, 2.0):
            assert_close(run(integral.resize(converted, ratio), values), network(values), rtol=1e-12)


class Constant(nn.Module):
    """A network that holds a number of channels as a constant: in a shape, or in a cut."""

    def __init__(self, cut: bool) -> None:
        super().__init__()
        self.cut = cut
        self.first = nn.Linear(3, 8)
        self.last = nn.Linear(4 if cut else 8, 2)

    def forward(self, values: Tensor) -> Tensor:
        hidden = self.first(values)
        return self.last(hidden[:, :4] if self.cut else hidden.reshape(len(values), 8))


@pytest.mark.parametrize(("cut", "got"), [(True, "cannot be multiplied"), (False, "is invalid for input")])
def test_constants_are_refused(cut: bool, got: str) -> None:
    advice = "compute numbers of channels from its tensors' shapes; or name the modules at fault in fixed="
    with pytest.raises(ValueError, match=f"model must {advice}, got .*{got}"):
        integral.convert(Constant(cut), torch.randn(2, 3))


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (nn.LSTM(4, 4), r"LSTM '1'"),
        (nn.GRUCell(4, 4), r"GRUCell '1'"),
        (nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), r"plain weights \(end a weight norm by .*Linear '1'"),
        (nn.LazyLinear(4), r"weights of known shapes: run it once first, got LazyLinear '1'"),
    ],
)
def test_layers_that_cannot_be_continuous_are_refused_by_name(layer: nn.Module, words: str) -> None:
    network = nn.Sequential(nn.Linear(2, 4), layer)
    with pytest.raises(ValueError, match=words):
        integral.convert(network, torch.randn(3, 2))


def test_what_is_fixed_stays_as_it_is() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(2, 6), nn.Linear(6, 4)
            self.memory, self.last = nn.LSTM(4, 5), nn.Linear(5, 2)

        def forward(self, values: Tensor) -> Tensor:
            return self.last(self.memory(self.second(self.first(values).relu()))[0])

    network, values = Recurrent().eval(), torch.randn(7, 2)
    converted = integral.convert(network, values, fixed=["memory"])
    groups = integral.channel_groups(converted)
    assert groups.sizes == {"first": 6}
    reasons = {group.name: group.fixed for group in groups.plan.groups}
    assert reasons["second"] == "read by 'memory', which stays as it is"
    with pytest.raises(ValueError, match=r"fixed must name modules of the network .* got 'absent'"):
        integral.convert(network, values, fixed=["absent"])


def test_a_function_that_is_not_known_fixes_what_it_reads() -> None:
    class Sorted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(2, 6), nn.Linear(6, 4), nn.Linear(4, 2)

        def forward(self, values: Tensor) -> Tensor:
            return self.c(torch.erfinv(self.b(self.a(values).relu()).tanh() / 2))

    converted = integral.convert(Sorted(), torch.randn(3, 2))
    groups = integral.channel_groups(converted)
    assert groups.sizes == {"a": 6}
    assert {group.fixed for group in groups.plan.groups if group.name == "b"} == {
        "read by 'erfinv' in 'Sorted', which is not known"
    }


def test_weights_that_layers_share_fix_their_channels() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.middle, self.last = nn.Embedding(7, 4), nn.Linear(4, 6), nn.Linear(6, 4)
            self.end = nn.Linear(4, 7, bias=False)
            self.end.weight = self.embedding.weight

        def forward(self, tokens: Tensor) -> Tensor:
            return self.end(self.last(self.middle(self.embedding(tokens)).relu()))

    converted = integral.convert(Tied(), torch.randint(0, 7, (2, 5)))
    assert list(integral.channel_groups(converted).sizes.values()) == [6]


def test_a_network_without_channels_is_refused() -> None:
    with pytest.raises(ValueError, match="model must have channels that can be resized, got outputs of the network"):
        integral.convert(nn.Linear(2, 3), torch.randn(1, 2))
    with pytest.raises(ValueError, match="no layer with weights was run"):
        integral.convert(nn.ReLU(), torch.randn(1, 2))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_shared_copy_trains_the_network_at_every_width(name: str) -> None:
    """Its gradients at half the width are those of a converted network of its own parameters."""
    network, example, _ = in_float64(NETWORKS[name]())
    names = [name for name, _ in network.named_parameters()]
    with torch.no_grad():
        wanted = run(network, example)
    numbers = np.random.default_rng(0)
    copy = integral.shared_copy(network, example, order=lambda between: numbers.permutation(len(between)))
    assert [name for name, _ in network.named_parameters()] == names
    with torch.no_grad():
        assert_close(run(network, example), wanted, rtol=1e-6)  # channels of the network itself are in that order
    mine = set(network.parameters())
    assert all(one in mine for one in copy.parameters() if one.requires_grad)

    alone = integral.convert(network, example, order=None)
    for ratio in (1.0, 0.5):
        sums = []
        for one in (copy, alone):
            network.zero_grad()
            alone.zero_grad()
            run(integral.resize(one, ratio), example).square().sum().backward()
            found = network if one is copy else alone
            sums.append(sum(float(p.grad.square().sum()) for p in found.parameters() if p.grad is not None))
        assert sums[0] == pytest.approx(sums[1], rel=1e-9)
    network.zero_grad()
    run(integral.resize(copy, 1.0), example).square().sum().backward()
    found = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    network.zero_grad()
    run(network, example).square().sum().backward()
    plain = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    assert found.keys() == plain.keys()
    for name, gradient in found.items():
        assert_close(gradient, plain[name], rtol=1e-6)


class Banked(nn.Module):
    """Channels that a layer of the caller's own makes, read by a CCNN or a U-net."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.bank = PointwiseLinear(2, 8)
        self.network = network

    def forward(self, values: Tensor) -> Tensor:
        grid = Grid([8, 8], [1.0, 1.0])
        found: Tensor = self.network(self.bank(values).sin(), grid)
        return found


@pytest.mark.parametrize("kind", ["CCNN", "ContinuousUNet"])
def test_channels_before_a_network_are_resized_with_it(kind: str) -> None:
    recipe = KernelSpec(extent=[4.0, 4.0], width=[1.5, 1.5], omega_0=5.0, hidden=6)
    if kind == "CCNN":
        inner: nn.Module = CCNN(8, 6, 3, blocks=1, kernel=recipe)
    else:
        inner = ContinuousUNet(8, 3, channels=[4, 6], blocks=[1, 1], steps=[1.0, 1.0], kernel=recipe)
    network, values = Banked(inner).double().eval(), torch.randn(2, 2, 8, 8, dtype=torch.float64)
    converted = integral.resize(integral.convert(network, values), 0.5)
    assert integral.channel_groups(converted).sizes["bank"] == 4
    assert converted.network.in_channels == 4
    assert converted(values).shape == network(values).shape
    small = integral.discretise(converted)
    assert_close(small(values), converted(values), rtol=1e-12)
