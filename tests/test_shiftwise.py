"""Shift-wise convolution: against torch's own depthwise convolution, and layers against what they are merged into."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ccnn_irregular.shiftwise import GroupSparsity, ShiftwiseConv, TiledConv, explain, from_large_kernel
from ccnn_irregular.shiftwise.choice import TILES
from ccnn_irregular.shiftwise.shift_add import _plain, shift_add
from ccnn_irregular.shiftwise.tiles import cut, joined
from ccnn_irregular.shiftwise.ways import LARGE_KERNEL

CONVOLUTIONS = {1: torch.nn.functional.conv1d, 2: torch.nn.functional.conv2d, 3: torch.nn.functional.conv3d}


def direct(values: Tensor, weight: Tensor) -> Tensor:
    """torch's depthwise convolution with (M - 1) // 2 zeros in front and M // 2 behind."""
    lengths = weight.shape[1:]
    around = [part for length in reversed(lengths) for part in ((length - 1) // 2, length // 2)]
    padded = torch.nn.functional.pad(values, around)
    return CONVOLUTIONS[len(lengths)](padded, weight.unsqueeze(1), groups=len(weight))


@settings(max_examples=40, deadline=None)
@given(data=st.data(), d=st.integers(1, 3))
def test_any_large_kernel_is_decomposed_exactly(data: st.DataObject, d: int) -> None:
    lengths = data.draw(st.lists(st.integers(1, {1: 60, 2: 17, 3: 7}[d]), min_size=d, max_size=d))
    widths = data.draw(st.lists(st.integers(1, 6), min_size=d, max_size=d))
    sizes = data.draw(st.lists(st.integers(1, {1: 70, 2: 15, 3: 6}[d]), min_size=d, max_size=d))
    weight = torch.randn(3, *lengths, dtype=torch.float64)
    values = torch.randn(2, 3, *sizes, dtype=torch.float64, requires_grad=True)
    exact = direct(values, weight)
    layer = from_large_kernel(weight.unsqueeze(1), widths)
    along = torch.randn_like(exact)
    slope = torch.autograd.grad((exact * along).sum(), values)[0]
    large = [layer.by(way, values) for way in LARGE_KERNEL]
    for found in (layer(values), layer.shifted(values), layer._by_offset(values), *large):
        assert torch.allclose(found, exact, rtol=0, atol=1e-12 * weight[0].numel())
        (same,) = torch.autograd.grad((found * along).sum(), values)
        assert torch.allclose(same, slope, rtol=0, atol=1e-12 * weight[0].numel())
    assert torch.allclose(direct(values, layer.to_large_kernel()), exact, rtol=0, atol=1e-12 * weight[0].numel())
    assert torch.equal(joined(cut(weight, widths), lengths), weight)


@pytest.mark.parametrize(
    ("lengths", "width", "sizes"),
    [((51, 5), 5, (56, 56)), ((31, 31), 5, (28, 28)), ((501,), 5, (300,)), ((15, 15, 15), 5, (12, 12, 12))],
)
def test_published_sizes_in_float32(lengths: tuple[int, ...], width: int, sizes: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    weight, values = torch.randn(4, *lengths), torch.randn(1, 4, *sizes)
    exact = direct(values, weight)
    assert (from_large_kernel(weight, width)(values) - exact).abs().max() <= 1e-5 * exact.abs().max()


def test_tiles_of_zeros_are_left_out_and_a_tolerance_bounds_the_error() -> None:
    torch.manual_seed(0)
    weight = torch.randn(3, 20, 6, dtype=torch.float64)
    weight[0, :10], weight[1, 5:] = 0, 0
    layer = from_large_kernel(weight, 5)
    assert layer.groups == 4 + 2 + 8
    values = 2 * torch.rand(2, 3, 9, 30, dtype=torch.float64) - 1
    exact = direct(values, weight)
    assert torch.allclose(layer(values), exact, rtol=0, atol=1e-12)
    weight[2] *= torch.logspace(0, -4, 20)[:, None]
    exact = direct(values, weight)
    rough = from_large_kernel(weight, 5, tolerance=0.05)
    assert rough.groups < layer.groups
    bound = 0.05 * weight.abs().sum((1, 2))[:, None, None]
    assert bool(((rough(values) - exact).abs() <= bound).all())


LAYERS = {
    "1-D": {"d": 1},
    "2-D": {},
    "3-D": {"d": 3},
    "one orientation": {"orientations": [1], "identity": False},
    "all parts": {"paths": 2, "rearrangements": 4, "ghost_ratio": 0.23, "norm": True, "skip": True},
    "passing": {"ghost_ratio": 0.5, "skip": True},
}


def trained(options: dict[str, object], length: int = 11, width: int = 3) -> tuple[ShiftwiseConv, Tensor]:
    torch.manual_seed(0)
    layer = ShiftwiseConv(9, length, width, **options).double()  # type: ignore[arg-type]
    values = torch.randn(3, 9, *(13,) * layer.d, dtype=torch.float64)
    for norm in layer.norms or ():
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
    layer(values)
    return layer.eval(), values


def by_hand(layer: ShiftwiseConv, values: Tensor) -> Tensor:
    """The published layer in its words: small convolutions, each branch a kernel of M taps one way and N the other."""
    own, weight = values[:, layer.used], layer.weight.sum(0) * layer.mask[(..., *(None,) * layer.d)]
    total = own if layer.skip else torch.zeros_like(own)
    for branch in range(len(layer.axes) + layer.identity):
        kernels = []
        for channel in range(len(own[0])):
            if branch == len(layer.axes):
                kernels.append(weight[channel, layer.small[:, channel]].sum(0))
                continue
            tiles = weight[channel, layer.places[branch, :, channel]].sum(0)
            axis = layer.axes[branch]
            kernels.append(torch.cat(list(tiles), axis).narrow(axis, 0, layer.length))
        result = direct(own, torch.stack(kernels))
        total = total + (result if layer.norms is None else layer.norms[branch](result))
    return values.index_copy(1, layer.used, total)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_the_sum_of_its_branches(name: str) -> None:
    layer, values = trained(LAYERS[name], length=12)
    assert torch.allclose(layer(values), by_hand(layer, values), atol=1e-12)


@pytest.mark.parametrize("name", LAYERS)
def test_merged_and_compressed_layers_give_the_same(name: str) -> None:
    layer, values = trained(LAYERS[name])
    layer.mask.copy_(torch.rand(layer.mask.shape, generator=torch.Generator().manual_seed(1)) < 0.3)
    merged, compressed = layer.merge(), layer.compress()
    expected = layer(values)
    assert torch.allclose(merged(values), expected, atol=1e-12)
    assert torch.allclose(compressed(values), expected, atol=1e-12)
    assert compressed.groups < merged.groups
    rebuilt = copy.deepcopy(compressed)
    buffer = io.BytesIO()
    torch.save(compressed.state_dict(), buffer)
    buffer.seek(0)
    torch.nn.init.zeros_(rebuilt.weight)
    rebuilt.load_state_dict(torch.load(buffer))
    assert torch.equal(rebuilt(values), compressed(values))


def test_a_state_of_another_seed_brings_its_channels_and_order() -> None:
    options = {"rearrangements": 3, "ghost_ratio": 0.4}
    layer, values = trained({**options, "seed": 1})
    other = ShiftwiseConv(9, 11, 3, seed=2, **options).double()  # type: ignore[arg-type]
    assert not torch.equal(other(values), layer(values))
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(values), layer(values))


@pytest.mark.parametrize("d", [1, 2, 3])
def test_gradients(d: int) -> None:
    torch.manual_seed(0)
    layer = ShiftwiseConv(2, 5, 2, d).double()
    values = torch.randn(1, 2, *(3,) * d, dtype=torch.float64, requires_grad=True)

    def call(values: Tensor, weight: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"weight": weight}, (values,))

    weight = layer.weight.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(call, (values, weight), fast_mode=True)
    assert torch.autograd.gradgradcheck(call, (values, weight), fast_mode=True)
    assert torch.autograd.gradcheck(layer.merge().shifted, (values,), fast_mode=True)


@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=3), data=st.data())
@settings(max_examples=30, deadline=None)
def test_the_exported_form_of_the_sum_is_the_same(sizes: list[int], data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 4))
    one = st.tuples(*(st.integers(-12, 12) for _ in sizes))
    offsets = data.draw(st.lists(one, min_size=count, max_size=count))
    parts = torch.randn(2, 3, count, *(size + 2 for size in sizes), dtype=torch.float64)
    assert torch.equal(shift_add(parts, offsets, sizes), _plain(parts, offsets, sizes))


@pytest.mark.parametrize("d", [1, 2, 3])
def test_export(d: int) -> None:
    layer, values = trained({"d": d})
    layer.mask[0, 1:], layer.mask[3] = False, False
    for one in (layer, layer.compress()):
        program = torch.export.export(one, (values,))
        assert torch.allclose(program.module()(values), one(values), atol=1e-12)


def test_white_noise_keeps_its_variance() -> None:
    torch.manual_seed(0)
    layer = ShiftwiseConv(64, 21, 5, paths=2)
    inside = layer(torch.randn(2, 64, 64, 64)).detach()[..., 10:-10, 10:-10]
    assert 0.7 < float(inside.var()) < 1.6


def test_groups_are_pruned_and_grow_by_the_schedule() -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(ShiftwiseConv(8, 12, 3), torch.nn.GELU(), ShiftwiseConv(8, 9, 3, paths=2))
    sparsity = GroupSparsity(network, kept=0.3, prune_rate=0.5, every=2, steps=100)
    optimiser = torch.optim.AdamW(network.parameters(), 0.01)
    values = torch.randn(2, 8, 12, 12)
    with pytest.raises(ValueError, match="run a backward pass"):
        sparsity.start()
    network(values).square().mean().backward()
    sparsity.start()
    layers = [network[0], network[2]]
    total = sum(layer.mask.numel() for layer in layers)
    counts = [int(layer.mask.sum()) for layer in layers]
    assert sum(counts) == round(0.3 * total)
    before = [layer.mask.clone() for layer in layers]
    for _ in range(3):
        optimiser.zero_grad()
        network(values).square().mean().backward()
        optimiser.step()
        sparsity.step()
    assert [int(layer.mask.sum()) for layer in layers] == counts
    assert any(not torch.equal(layer.mask, mask) for layer, mask in zip(layers, before, strict=True))
    for layer in layers:
        assert not layer.weight[:, ~layer.mask].any()
        assert layer.compress().groups < layer.merge().groups
    again = GroupSparsity(network, kept=0.3, every=2, steps=100)
    again.load_state_dict(sparsity.state_dict())
    assert again.done == 3


def test_bad_arguments_are_named() -> None:
    for arguments, options, match in (
        ((4, 7, 8), {}, "width must lie between 1 and the length 7"),
        ((4, 7, 3, 4), {}, "d must be 1, 2 or 3"),
        ((4, 7, 3), {"orientations": [2]}, "orientations must name some of the axes 0 to 1"),
        ((4, 7, 3), {"ghost_ratio": 1.0}, "ghost_ratio must lie in"),
        ((2, 7, 3), {"ghost_ratio": 0.9}, "ghost_ratio must leave two of 2 channels"),
        ((4, 7, 3), {"paths": 0}, "paths, rearrangements must be at least 1"),
    ):
        with pytest.raises(ValueError, match=match):
            ShiftwiseConv(*arguments, **options)
    layer = ShiftwiseConv(4, 7, 3)
    for one in (layer, layer.merge()):
        with pytest.raises(ValueError, match="values must have shape"):
            one(torch.zeros(1, 3, 5, 5))
    with pytest.raises(ValueError, match="weight must have shape"):
        from_large_kernel(torch.zeros(3), 2)
    with pytest.raises(ValueError, match="width must be one number, or one for each of 2 axes"):
        from_large_kernel(torch.zeros(3, 4, 4), [2, 2, 2])
    with pytest.raises(ValueError, match="network must have ShiftwiseConv layers"):
        GroupSparsity(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="offsets must have one entry for 2 tiles"):
        TiledConv(torch.zeros(3, 2, 4), [(0,)])


def test_the_way_of_least_time_is_taken_and_explained() -> None:
    layer = from_large_kernel(torch.randn(2, 31, 31), 5)
    values = torch.randn(1, 2, 40, 40)
    choice = explain(layer, (40, 40))
    assert set(choice.seconds) == {TILES, *LARGE_KERNEL}
    assert choice.seconds[choice.picked] == min(choice.seconds.values())
    assert f"takes {choice.picked!r}" in str(choice)
    assert explain(layer, (40, 40)) is choice  # measured once
    assert explain(layer, (40, 40), gradients=True) is not choice
    assert (choice.crossover > choice.tiles) == (choice.picked == TILES)
    taken: list[str] = []
    layer.by = lambda way, values: taken.append(way) or values  # type: ignore[func-returns-value,method-assign]
    layer.shifted = lambda values: taken.append(TILES) or values  # type: ignore[func-returns-value,method-assign]
    with torch.no_grad():
        layer(values)
    layer.way = "FFT"
    layer(values)
    assert taken == [choice.picked, "FFT"]
    assert explain((3, 9, 9), (12, 12), width=3).tiles == 27
    with pytest.raises(ValueError, match=r"shape must be \(B, 2, \*2 sizes\)"):
        explain(layer, (40,))


def test_the_kernel_of_a_layer_follows_its_weight() -> None:
    layer, values = from_large_kernel(torch.randn(2, 9, 9), 4), torch.randn(1, 2, 10, 10)
    layer.way = "direct"
    with torch.inference_mode():
        before = layer(values).clone()
    with torch.no_grad():
        layer.weight.mul_(2)
    values.requires_grad_()
    layer.requires_grad_(False)
    assert torch.allclose(layer(values), 2 * before)
    torch.autograd.grad(layer(values).sum(), values)
    layer.weight = torch.nn.Parameter(torch.zeros_like(layer.weight))
    with torch.no_grad():
        assert not layer(values).any()


def test_a_layer_without_tiles_gives_zeros() -> None:
    assert not from_large_kernel(torch.zeros(2, 4, 4), 2)(torch.randn(1, 2, 8, 8)).any()
