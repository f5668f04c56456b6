"""Every kind of convolution on grids, points and products, against torch, SciPy and the sum written out."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
import torch
from contract_cases import (
    KINDS,
    PAIR_MODES,
    Case,
    adjoint,
    as_rows,
    as_values,
    equation,
    exists,
    pair_case,
    requires_compiler,
    seeded,
    small_kernel,
    uniform,
    white_noise_norm,
)
from hypothesis import given
from torch import Tensor, nn
from torch.nn import functional

from ccnn_irregular import (
    MLP,
    SIREN,
    ContinuousConv,
    GaussianMask,
    Grid,
    Kernel,
    MAGNet,
    Points,
    Product,
    RandomFourier,
    SeparableContinuousConv,
    Solver,
    convolve,
    make_plan,
)
from ccnn_irregular.domains import Domain
from ccnn_irregular.kernels.box_masks import BoxMask
from ccnn_irregular.kernels.generators import OutputRows
from ccnn_irregular.kernels.taps import (
    Taps,
    conv_kernel,
    conv_query,
    conv_transpose_kernel,
    conv_transpose_query,
    dilated,
    unread_lags,
)
from ccnn_irregular.layers import PointwiseLinear, coarser, finer, shuffle_channels
from ccnn_irregular.testing import assert_all_close, assert_close

CONVOLUTIONS: dict[int, Callable[..., Tensor]] = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
TRANSPOSED: dict[int, Callable[..., Tensor]] = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}
STEPS, STARTS = (0.1, 0.7, 1.3, 0.3), (-1.0, 3.0, 5e6, 0.25)
EXACT: tuple[str, ...] = ("reference", "neighbours")
# A hundred-thousandth of the largest result is the package's tolerance in float32; a tenth of it is asked for here.
TIGHT = {torch.float64: 1.0, torch.float32: 0.1}


@dataclass(frozen=True)
class Discrete:
    """A discrete convolution in torch's terms: the numbers per axis, groups, channels, and its values and weight."""

    nodes: tuple[int, ...]
    sizes: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    output_padding: tuple[int, ...]
    groups: int
    values: Tensor
    weight: Tensor

    @property
    def d(self) -> int:
        return len(self.nodes)

    @property
    def grid(self) -> Grid:
        return Grid(self.nodes, STEPS[: self.d], STARTS[: self.d])


@st.composite
def discrete(draw: st.DrawFn, transposed: bool) -> Discrete:
    d = draw(st.integers(1, 3))

    def numbers(least: int, most: int) -> tuple[int, ...]:
        return tuple(draw(st.lists(st.integers(least, most), min_size=d, max_size=d)))

    sizes, stride, dilation, padding = numbers(1, 4), numbers(1, 3), numbers(1, 3), numbers(0, 3)
    groups = draw(st.integers(1, 3))
    inputs, outputs = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    spans = [rate * (size - 1) + 1 for rate, size in zip(dilation, sizes, strict=True)]
    extra, output_padding = numbers(0, 5), (0,) * d
    if transposed:
        # torch wants an output padding below the stride or the dilation; a result of one node at the least.
        most = [max(a, b) - 1 for a, b in zip(stride, dilation, strict=True)]
        output_padding = tuple(draw(st.integers(0, one)) for one in most)
        padding = tuple(min(pad, (span - 1) // 2) for pad, span in zip(padding, spans, strict=True))
        nodes = tuple(1 + one for one in extra)
        shape: tuple[int, ...] = (inputs, outputs // groups, *sizes)
    else:
        nodes = tuple(max(1, span - 2 * pad) + one for span, pad, one in zip(spans, padding, extra, strict=True))
        shape = (outputs, inputs // groups, *sizes)
    seed, dtype = draw(st.integers(0, 999)), draw(st.sampled_from([torch.float64, torch.float32]))
    values = seeded(2, inputs, *nodes, dtype=dtype, seed=seed, requires_grad=True)
    weight = seeded(*shape, dtype=dtype, seed=seed + 1, requires_grad=True)
    return Discrete(nodes, sizes, stride, padding, dilation, output_padding, groups, values, weight)


def with_gradients(result: Tensor, values: Tensor, weight: Tensor) -> dict[str, Tensor]:
    """The result, and the gradients of a sum that weighs each of its numbers differently."""
    of_values, of_weight = torch.autograd.grad((result * probe_of(result)).sum(), [values, weight])
    return {"output": result, "values": of_values, "weight": of_weight}


def probe_of(result: Tensor) -> Tensor:
    return seeded(*result.shape, dtype=result.dtype, seed=7)


def of_absolute_values(convolution: Callable[..., Tensor], case: Discrete, **options: Any) -> dict[str, Tensor]:
    """The same of absolute values: sums of magnitudes, none of them below the largest of all products.

    A transform adds up products that a convolution with padding or strides never reads, so its rounding is theirs too.
    """
    values, weight = (one.detach().abs().requires_grad_() for one in (case.values, case.weight))
    result = convolution(values, weight, groups=case.groups, **options)
    probe = probe_of(result).abs()
    of_values, of_weight = torch.autograd.grad((result * probe).sum(), [values, weight])
    most = {"values": values.detach().max(), "weight": weight.detach().max(), "probe": probe.max()}
    return {
        "output": result.detach().clamp(min=most["values"] * most["weight"]),
        "values": of_values.clamp(min=most["weight"] * most["probe"]),
        "weight": of_weight.clamp(min=most["values"] * most["probe"]),
    }


def compare(result: dict[str, Tensor], expected: dict[str, Tensor], absolute: dict[str, Tensor]) -> None:
    """Equal to 1e-12 or 1e-6 of the largest number in ``absolute``; gradients to ten times that.

    ``absolute`` is the same of absolute values: what is left of sums that nearly cancel says nothing of their rounding.
    """
    tight = TIGHT[expected["output"].dtype]
    if not bool(expected["output"].any()):  # between the taps of a dilated transposed convolution nothing is read
        assert not any(bool(one.any()) for one in result.values())
        return
    assert result.keys() == expected.keys() == absolute.keys()
    for name, value in expected.items():
        factor = tight if name == "output" else 10 * tight
        assert_close(result[name], value, scale=float(absolute[name].max()), factor=factor, name=name)


# ---- one table of taps, torch's own convolutions ----


@given(discrete(transposed=False))
def test_equals_torchs_convolution(case: Discrete) -> None:
    options = {"stride": case.stride, "padding": case.padding, "dilation": case.dilation}
    bias = seeded(len(case.weight), dtype=case.values.dtype)
    whole = CONVOLUTIONS[case.d](case.values, case.weight, bias, groups=case.groups, **options)
    expected = with_gradients(whole, case.values, case.weight)
    absolute = of_absolute_values(CONVOLUTIONS[case.d], case, bias=bias.abs(), **options)
    query = conv_query(case.grid, case.sizes, **options)  # type: ignore[arg-type]
    for engine in ("reference", "fft"):
        kernel = conv_kernel(case.weight, case.grid.steps, dilation=case.dilation)
        layer = ContinuousConv(kernel, groups=case.groups, solver=Solver(engine)).to(bias.dtype)
        with torch.no_grad():
            layer.bias.copy_(bias)
        result = with_gradients(layer(case.values, case.grid, query), case.values, kernel.generator.output.weight)
        result["weight"] = result["weight"].reshape(case.weight.shape)
        compare(result, expected, absolute)


@given(discrete(transposed=True))
def test_equals_torchs_transposed_convolution(case: Discrete) -> None:
    options = {"stride": case.stride, "dilation": case.dilation}
    padding = {"padding": case.padding, "output_padding": case.output_padding}
    whole = TRANSPOSED[case.d](case.values, case.weight, groups=case.groups, **options, **padding)
    expected = with_gradients(whole, case.values, case.weight)
    absolute = of_absolute_values(TRANSPOSED[case.d], case, **options, **padding)
    query = conv_transpose_query(case.grid, case.sizes, **options, **padding)  # type: ignore[arg-type]
    for engine in ("reference", "fft"):
        kernel = conv_transpose_kernel(case.weight, case.grid.steps, groups=case.groups, **options)  # type: ignore[arg-type]
        layer = ContinuousConv(kernel, groups=case.groups, bias=False, solver=Solver(engine))
        result = with_gradients(layer(case.values, case.grid, query), case.values, kernel.generator.output.weight)
        by_group = result["weight"].reshape(case.groups, -1, len(case.weight) // case.groups, *case.sizes)
        result["weight"] = by_group.transpose(1, 2).reshape(case.weight.shape)
        compare(result, expected, absolute)


@pytest.mark.parametrize("engine", EXACT)
@pytest.mark.parametrize("d", [1, 2, 3])
def test_equals_torch_on_points_and_products(d: int, engine: str) -> None:
    """The nodes of grids as points in any order, two samples end to end, and as points times a grid."""
    nodes, sizes, strides, rates, pads = (9, 6, 5)[:d], (3, 2, 3)[:d], (2, 1, 2)[:d], (2, 3, 1)[:d], (2, 0, 1)[:d]
    grid = Grid(nodes, STEPS[:d], STARTS[:d])
    values, weight = seeded(2, 4, *nodes), seeded(6, 2, *sizes, seed=1)
    options = {"stride": strides, "padding": pads, "dilation": rates}
    expected = CONVOLUTIONS[d](values, weight, groups=2, **options)
    query = conv_query(grid, sizes, **options)  # type: ignore[arg-type]
    layer = ContinuousConv(conv_kernel(weight, grid.steps, dilation=rates), groups=2, bias=False, solver=Solver(engine))
    order = torch.randperm(grid.count, generator=torch.Generator().manual_seed(0))
    order = torch.cat([order, order + grid.count])
    whole = grid.as_points(2)
    source = Points(whole.coordinates[order], whole.weights[order], whole.splits)
    found = layer(as_rows(values)[order], source, query.as_points(2))
    assert_close(as_values(found, query), expected)
    if engine == "neighbours":
        assert_close(layer(as_rows(values), whole, query), expected)
    if d == 1:
        return
    # The first axis as points, each with the other axes' grid.
    first, rest = (Grid(nodes[:1], grid.steps[:1], grid.starts[:1]), Grid(nodes[1:], grid.steps[1:], grid.starts[1:]))
    first_query = Grid(query.sizes[:1], query.steps[:1], query.starts[:1])
    rest_query = Grid(query.sizes[1:], query.steps[1:], query.starts[1:])
    source_product = Product(first.as_points(2), rest)
    rows = values.movedim(1, 2).flatten(0, 1)
    found = layer(rows, source_product, Product(first_query.as_points(2), rest_query))
    assert_close(found.unflatten(0, (2, -1)).movedim(2, 1), expected)


@requires_compiler
def test_equals_torch_by_keops() -> None:
    values, weight = seeded(1, 4, 9), seeded(6, 2, 3, seed=1)
    grid = Grid((9,), (0.1,), (5e6,))
    expected = functional.conv1d(values, weight, stride=2, padding=2, dilation=2, groups=2)
    query = conv_query(grid, (3,), stride=2, padding=2, dilation=2)
    layer = ContinuousConv(conv_kernel(weight, (0.1,), dilation=2), groups=2, bias=False, solver=Solver("keops"))
    with torch.no_grad():
        assert_close(as_values(layer(as_rows(values), grid.as_points(), query.as_points()), query), expected)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("d", [1, 2, 3])
def test_periodic_is_circular_padding(d: int, causal: bool, stride: int) -> None:
    nodes, sizes = (6, 6, 4)[:d], (3, 4, 2)[:d]
    grid = Grid(nodes, STEPS[:d], STARTS[:d], periodic=True)
    values, weight = seeded(2, 2, *nodes), seeded(3, 2, *sizes, seed=1)
    pads = [(size - 1, 0) if causal and axis == 0 else ((size - 1) // 2, size // 2) for axis, size in enumerate(sizes)]
    padded = functional.pad(values, [one for pair in reversed(pads) for one in pair], mode="circular")
    expected = CONVOLUTIONS[d](padded, weight, stride=stride)
    causal_axes = (0,) if causal else ()
    query = conv_query(grid, sizes, stride=stride, padding=pads, causal_axes=causal_axes)
    assert all(query.periodic)
    kernel = conv_kernel(weight, grid.steps, causal_axes=causal_axes)
    for engine in ("reference", "fft"):
        assert_close(convolve(kernel, values, grid, query, engine=engine), expected)
    on_points = convolve(kernel, as_rows(values), grid.as_points(2), query.as_points(2), engine="neighbours")
    assert_close(as_values(on_points, query), expected)


@pytest.mark.parametrize("engine", ["reference", "fft"])
def test_transposed_on_a_periodic_axis_wraps(engine: str) -> None:
    grid = Grid((5,), (0.3,), (1.0,), periodic=True)
    values, weight = seeded(2, 2, 5), seeded(2, 3, 4, seed=1)
    straight = functional.conv_transpose1d(values, weight, stride=2)  # 12 nodes, of which the last two wrap around
    expected = straight[:, :, :10].clone()
    expected[:, :, :2] += straight[:, :, 10:]
    kernel = conv_transpose_kernel(weight, grid.steps, stride=2)
    query = conv_transpose_query(grid, (4,), stride=2)
    assert query.sizes == (10,)
    assert_close(convolve(kernel, values, grid, query, engine=engine), expected)


@pytest.mark.parametrize("engine", ["reference", "fft"])
def test_causal_is_padding_on_the_left(engine: str) -> None:
    grid = Grid((11,), (0.1,), (3.0,))
    values, weight = seeded(2, 2, 11), seeded(3, 2, 3, seed=1)
    expected = functional.conv1d(functional.pad(values, (4, 0)), weight, dilation=2)
    query = conv_query(grid, (3,), padding=[(4, 0)], dilation=2, causal_axes=(0,))
    assert query == grid  # the result stands at the times of the input, so layers can follow one another
    kernel = conv_kernel(weight, grid.steps, dilation=2, causal_axes=(0,))
    assert_close(convolve(kernel, values, grid, engine=engine), expected)
    transposed = functional.conv_transpose1d(values, weight.transpose(0, 1), stride=2)
    fine = conv_transpose_query(grid, (3,), stride=2, causal_axes=(0,))
    assert fine.starts == grid.starts
    kernel = conv_transpose_kernel(weight.transpose(0, 1), grid.steps, stride=2, causal_axes=(0,))
    assert_close(convolve(kernel, values, grid, fine, engine=engine), transposed)


def test_a_causal_table_never_reads_the_future_between_its_taps() -> None:
    kernel = conv_kernel(seeded(1, 1, 3), (0.1,), causal_axes=(0,))
    times = uniform(30, 1, high=1.0).sort(0).values
    values = seeded(30, 1)
    before = convolve(kernel, values, Points(times), engine="reference")
    changed = values.clone()
    changed[15:] = 9.0
    after = convolve(kernel, changed, Points(times), engine="reference")
    assert torch.equal(before[:15], after[:15])
    assert not torch.equal(before[15:], after[15:])
    acausal = conv_kernel(seeded(1, 1, 3), (0.1,))
    assert not torch.equal(
        convolve(acausal, values, Points(times), engine="reference")[:15],
        convolve(acausal, changed, Points(times), engine="reference")[:15],
    )


# ---- four axes, by SciPy ----

FOUR = Grid((3, 4, 3, 5), STEPS, STARTS)


@pytest.mark.parametrize("engine", ["reference", "fft"])
@pytest.mark.parametrize("sizes", [(3, 3, 3, 3), (1, 3, 1, 5)])
def test_four_axes_equal_ndimage(sizes: tuple[int, ...], engine: str) -> None:
    values, weight = seeded(1, 2, *FOUR.sizes), seeded(2, 2, *sizes, seed=1)
    expected = np.stack(
        [
            sum(scipy.ndimage.correlate(values[0, c].numpy(), row[c].numpy(), mode="constant") for c in range(2))
            for row in weight
        ]
    )
    query = conv_query(FOUR, sizes, padding=tuple(size // 2 for size in sizes))
    assert query.starts == pytest.approx(FOUR.starts)
    found = convolve(conv_kernel(weight, FOUR.steps), values, FOUR, query, engine=engine)
    assert_close(found[0], torch.from_numpy(expected))


@pytest.mark.parametrize("engine", ["reference", "fft"])
def test_four_periodic_axes_equal_ndimage(engine: str) -> None:
    grid = Grid((4, 5, 4, 4), STEPS, STARTS, periodic=True)
    values, weight = seeded(1, 2, *grid.sizes), seeded(2, 3, 3, 3, 3, seed=1)
    expected = [
        scipy.ndimage.correlate(v.numpy(), w.numpy(), mode="wrap") for v, w in zip(values[0], weight, strict=True)
    ]
    found = convolve(conv_kernel(weight, grid.steps), values, grid, engine=engine)
    assert_close(found[0], torch.from_numpy(np.stack(expected)))


@pytest.mark.parametrize("engine", ["reference", "fft"])
def test_four_axes_strided_dilated_transposed_equal_signal(engine: str) -> None:
    values, weight = seeded(1, 1, *FOUR.sizes), seeded(1, 1, 2, 2, 2, 3, seed=1)
    stride, dilation = (1, 2, 1, 2), (2, 1, 2, 2)
    stretched = np.zeros((3, 2, 3, 5))
    stretched[::2, :, ::2, ::2] = weight[0, 0].numpy()
    every = scipy.signal.correlate(values[0, 0].numpy(), stretched, mode="valid")[::1, ::2, ::1, ::2]
    query = conv_query(FOUR, (2, 2, 2, 3), stride=stride, dilation=dilation)
    kernel = conv_kernel(weight, FOUR.steps, dilation=dilation)
    assert_close(convolve(kernel, values, FOUR, query, engine=engine)[0, 0], torch.from_numpy(every.copy()))
    spread = np.zeros((3, 7, 3, 9))
    spread[:, ::2, :, ::2] = values[0, 0].numpy()
    full = scipy.signal.convolve(spread, stretched, mode="full")
    options = {"stride": stride, "dilation": dilation}
    fine = conv_transpose_query(FOUR, (2, 2, 2, 3), **options)  # type: ignore[arg-type]
    kernel = conv_transpose_kernel(weight, FOUR.steps, **options)  # type: ignore[arg-type]
    assert_close(convolve(kernel, values, FOUR, fine, engine=engine)[0, 0], torch.from_numpy(full))


# ---- depthwise, separable, 1x1, shuffled ----


@pytest.mark.parametrize("multiplier", [1, 3])
@pytest.mark.parametrize("d", [1, 2, 3])
def test_depthwise_with_a_multiplier_equals_torch(d: int, multiplier: int) -> None:
    grid = Grid((7, 5, 4)[:d], STEPS[:d])
    values, weight = seeded(2, 4, *grid.sizes), seeded(4 * multiplier, 1, *(3,) * d, seed=1)
    expected = CONVOLUTIONS[d](values, weight, padding=1, groups=4)
    kernel = conv_kernel(weight, grid.steps)
    query = conv_query(grid, (3,) * d, padding=1)
    assert_close(ContinuousConv(kernel, groups=4, bias=False, solver=Solver("fft"))(values, grid, query), expected)
    layer = ContinuousConv(kernel, groups=4, bias=False, solver=Solver("neighbours"))
    assert_close(as_values(layer(as_rows(values), grid.as_points(2), query.as_points(2)), query), expected)
    if multiplier == 1:
        plain = conv_kernel(weight[:, 0], grid.steps)
        assert plain.depthwise
        assert_close(ContinuousConv(plain, bias=False, solver=Solver("fft"))(values, grid, query), expected)


@pytest.mark.parametrize("groups", [1, 2])
def test_depthwise_separable_equals_torch(groups: int) -> None:
    grid = Grid((7, 5), STEPS[:2])
    values, weight = seeded(2, 4, 7, 5), seeded(4, 1, 3, 3, seed=1)
    layer = SeparableContinuousConv(
        conv_kernel(weight[:, 0], grid.steps), 6, groups=groups, shuffle=groups > 1, solver=Solver("reference")
    ).to(torch.float64)
    with torch.no_grad():
        layer.depthwise.bias.copy_(seeded(4, seed=2))
        layer.pointwise.bias.copy_(seeded(6, seed=3))
    assert layer.pointwise.weight.shape == (6, 4 // groups)
    query = conv_query(grid, (3, 3), stride=2, padding=1)
    inner = functional.conv2d(values, weight, layer.depthwise.bias, stride=2, padding=1, groups=4)
    mixed = functional.conv2d(inner, layer.pointwise.weight[:, :, None, None], layer.pointwise.bias, groups=groups)
    expected = nn.ChannelShuffle(groups)(mixed) if groups > 1 else mixed
    assert_close(layer(values, grid, query), expected)
    on_points = layer(as_rows(values), grid.as_points(2), query.as_points(2))
    assert_close(as_values(on_points, query), expected)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("groups", [1, 2, 3])
@pytest.mark.parametrize("d", [1, 2, 3])
def test_pointwise_linear_is_the_1x1_convolution(d: int, groups: int, bias: bool) -> None:
    layer = PointwiseLinear(6, 12, bias, groups=groups, shuffle=groups > 1).to(torch.float64)
    if bias:
        with torch.no_grad():
            layer.bias.copy_(seeded(12, seed=3))
    values = seeded(2, 6, *(4, 3, 2)[:d], requires_grad=True)
    weight = layer.weight.reshape(12, 6 // groups, *(1,) * d)
    expected = CONVOLUTIONS[d](values, weight, layer.bias, groups=groups)
    expected = torch.nn.ChannelShuffle(groups)(expected) if groups > 1 else expected
    assert_close(layer(values), expected)
    for mine, other in zip(
        torch.autograd.grad(layer(values).square().sum(), [values, layer.weight]),
        torch.autograd.grad(expected.square().sum(), [values, layer.weight]),
        strict=True,
    ):
        assert_close(mine, other)
    # Values on points, constants added to the input first.
    rows, offset = seeded(9, 6), seeded(6, seed=4)
    assert_close(layer(rows, offset), layer(rows + offset))
    assert_close(layer(rows)[:, :, None], layer(rows[:, :, None]))
    # One tap of one step is a 1x1 convolution as well, on any stride.
    grid = Grid(values.shape[2:], STEPS[:d])
    strided = ContinuousConv(conv_kernel(weight, grid.steps), bias=False, groups=groups, solver=Solver("fft"))
    found = strided(values, grid, conv_query(grid, (1,) * d, stride=2))
    assert_close(found, CONVOLUTIONS[d](values, weight, groups=groups, stride=2))


def test_grouped_pointwise_linear_keeps_the_variance() -> None:
    torch.manual_seed(0)
    layer = PointwiseLinear(400, 600, groups=4)
    assert float(layer(torch.randn(500, 400)).var().detach()) == pytest.approx(1.0, rel=0.1)


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_shuffle_is_torchs_on_grids_and_the_same_on_points(groups: int) -> None:
    values = seeded(2, 6, 5, 3)
    expected = nn.ChannelShuffle(groups)(values)
    assert torch.equal(shuffle_channels(values, groups), expected)
    assert torch.equal(as_values(shuffle_channels(as_rows(values), groups), Grid((5, 3), (1, 1))), expected)


def test_grouped_layer_shuffles_its_result() -> None:
    layer = ContinuousConv(small_kernel(1, shape=(4, 2)), groups=2, shuffle=True, solver=Solver("reference")).double()
    plain = ContinuousConv(layer.kernel, groups=2, solver=Solver("reference"))
    bias = seeded(4, seed=2)
    with torch.no_grad():
        layer.bias.copy_(bias)
        plain.double().bias.copy_(bias)
    values, grid = seeded(2, 4, 9), Grid((9,), (0.5,))
    assert_close(layer(values, grid), nn.ChannelShuffle(2)(plain(values, grid)))
    # Two grouped layers with a shuffle between them: every output reads every input.
    second = ContinuousConv(small_kernel(1, shape=(4, 2), seed=1), groups=2, solver=Solver("reference")).double()
    reads = torch.autograd.functional.jacobian(lambda one: second(layer(one, grid), grid)[0, :, 4], values[:1])
    assert bool((reads[:, 0].abs().amax(-1) > 0).all())
    apart = torch.autograd.functional.jacobian(lambda one: second(plain(one, grid), grid)[0, :, 4], values[:1])
    assert int((apart[:, 0].abs().amax(-1) > 0).sum()) == 4 * 2


# ---- continuous kernels: groups on every domain and engine ----

GENERATORS = {
    "siren": lambda d, n: SIREN(d, n, hidden=3, layers=1, omega_0=3.0),
    "magnet": lambda d, n: MAGNet(d, n, hidden=3, layers=1, omega_0=0.5, spread=0.5),
    "fourier": lambda d, n: RandomFourier(d, n, hidden=4, omega_0=1.0),
    "mlp": lambda d, n: MLP(d, n, hidden=3, layers=1),
}


def block_diagonal(kernel: Kernel, groups: int) -> Callable[[Tensor], Tensor]:
    """The kernel with zeros for pairs of channels of different groups, by hand."""

    def full(offsets: Tensor) -> Tensor:
        values = kernel(offsets)
        rows, columns = kernel.out_channels // groups, kernel.in_channels
        whole = values.new_zeros(*values.shape[:-2], kernel.out_channels, groups * columns)
        for group in range(groups):
            part = slice(group * rows, (group + 1) * rows)
            whole[..., part, group * columns : (group + 1) * columns] = values[..., part, :]
        return whole

    return full


class _Stand:
    """What ``equation`` asks of a kernel."""

    def __init__(self, kernel: Kernel, groups: int) -> None:
        self.depthwise = False
        self.dtype = kernel.dtype
        self._full = block_diagonal(kernel, groups)

    def __call__(self, offsets: Tensor) -> Tensor:
        return self._full(offsets)


def all_gradients(result: Tensor, case: Case, values: Tensor) -> dict[str, Tensor]:
    """Gradients of values, kernel and the points' coordinates and weights."""
    leaves = {"values": values} | dict(case.kernel.named_parameters())
    for side in ("source", "query"):
        domain = getattr(case, side)
        points = domain.points if isinstance(domain, Product) else domain
        if isinstance(points, Points):
            leaves |= {f"{side} coordinates": points.coordinates, f"{side} weights": points.weights}
    probe = seeded(*result.shape, seed=7)
    found = torch.autograd.grad(
        (result * probe).sum(), list(leaves.values()), materialize_grads=True, allow_unused=True
    )
    return {"output": result} | dict(zip(leaves, found, strict=True))


@pytest.mark.parametrize("columns", [1, 2])
@pytest.mark.parametrize("mode", PAIR_MODES)
@pytest.mark.parametrize("kind", ["points to points", "points to grid", "product to product", "grid to product"])
def test_groups_are_a_block_diagonal_kernel_on_every_domain(kind: str, mode: str, columns: int) -> None:
    d = 1 if kind.startswith("points") else 2
    case = pair_case(kind, d, mode, torch.float64, shape=(4, columns))
    assert exists(kind, d)
    assert kind in KINDS
    values = seeded(len(case.values), 2 * columns, *case.values.shape[2:], seed=3, requires_grad=True)
    expected = all_gradients(equation(_Stand(case.kernel, 2), values, case.source, case.query), case, values)  # type: ignore[arg-type]
    for engine in EXACT:
        layer = ContinuousConv(case.kernel, groups=2, bias=False, solver=Solver(engine))
        assert layer.in_channels == 2 * columns
        assert_all_close(all_gradients(layer(values, case.source, case.query), case, values), expected, factor=10)
        plan = layer.plan(case.source, case.query)
        assert_close(layer(values, case.source, case.query, plan), expected["output"], factor=10)


@pytest.mark.parametrize("name", GENERATORS)
@pytest.mark.parametrize("mode", ["plain", "strided", "transposed", "causal", "periodic"])
def test_groups_on_grids(mode: str, name: str) -> None:
    torch.manual_seed(0)
    causal = (0,) if mode == "causal" else ()
    mask = GaussianMask([0.3, 0.4])  # ends before half of either period
    kernel = Kernel(GENERATORS[name](2, 18), mask, extent=[1, 1], shape=(6, 3), causal_axes=causal).double()
    grid = Grid((8, 6), (0.4, 0.5), periodic=mode == "periodic")
    query: Domain = {"strided": coarser(grid, 2), "transposed": finer(grid, (2, 3))}.get(mode, grid)
    values = seeded(2, 6, 8, 6, requires_grad=True)
    parameters = list(kernel.parameters())
    expected = equation(_Stand(kernel, 2), values, grid, query)  # type: ignore[arg-type]
    probe = seeded(*expected.shape, seed=7)
    wanted = torch.autograd.grad((expected * probe).sum(), [values, *parameters])
    for engine in ("reference", "fft"):
        result = ContinuousConv(kernel, groups=2, bias=False, solver=Solver(engine))(values, grid, query)
        assert_close(result, expected)
        found = torch.autograd.grad((result * probe).sum(), [values, *parameters])
        names = ["values", *(key for key, _ in kernel.named_parameters())]
        assert_all_close(dict(zip(names, found, strict=True)), dict(zip(names, wanted, strict=True)), factor=10)


def test_groups_by_spectral() -> None:
    case = pair_case("points to points", 2, "strided", torch.float64, shape=(4, 2))
    values = seeded(len(case.values), 4, seed=3)
    expected = equation(_Stand(case.kernel, 2), values, case.source, case.query)  # type: ignore[arg-type]
    scale = white_noise_norm(_Stand(case.kernel, 2), values, case.source, case.query)  # type: ignore[arg-type]
    layer = ContinuousConv(case.kernel, groups=2, bias=False, solver=Solver("spectral", rtol=1e-4))
    with torch.no_grad():
        assert float((layer(values, case.source, case.query) - expected).norm()) <= 2e-4 * scale
    assert layer.plan(case.source, case.query).engine == "spectral"


def test_a_table_by_spectral() -> None:
    """A table's interpolation has kinks, its spectrum a long tail: spectral serves it up to its tolerance."""
    torch.manual_seed(0)
    kernel = conv_kernel(seeded(3, 2, 5), (0.1,)).requires_grad_(False)
    source = Points(uniform(200, 1, high=5.0, seed=1), uniform(200, low=0.2, seed=2) / 20)
    values = seeded(200, 2)
    expected = convolve(kernel, values, source, engine="reference")
    found = convolve(kernel, values, source, engine="spectral", rtol=1e-3)
    assert float((found - expected).norm()) <= 2e-3 * white_noise_norm(kernel, values, source, source)


@requires_compiler
def test_groups_by_keops() -> None:
    case = pair_case("points to points", 1, "strided", torch.float64, "prime", shape=(4, 2))
    values = seeded(len(case.values), 4, seed=3)
    with torch.no_grad():
        expected = equation(_Stand(case.kernel, 2), values, case.source, case.query)  # type: ignore[arg-type]
        layer = ContinuousConv(case.kernel, groups=2, bias=False, solver=Solver("keops"))
        assert_close(layer(values, case.source, case.query), expected)


@pytest.mark.parametrize("product", [False, True])
@pytest.mark.parametrize("columns", [1, 2])
def test_groups_with_weights_per_channel(columns: int, product: bool) -> None:
    """Channels observed at different places: each group reads its own weights, and never what weighs nothing."""
    channels = 2 * columns
    weights = uniform(9, channels, seed=2)
    weights[::2, 0] = 0
    points = Points(uniform(9, 1, high=2.0, seed=1), weights.requires_grad_(), torch.tensor([0, 4, 4, 9]))
    source: Points | Product = Product(points, Grid((3,), (0.5,))) if product else points
    values = seeded(9, channels, 3) if product else seeded(9, channels)
    read = values.clone()
    values[::2, 0] = math.nan
    read[::2, 0] = 0
    kernel = small_kernel(source.d, shape=(4, columns))
    flat = as_rows(read * weights.reshape(9, channels, *(1,) * product)) * (0.5 if product else 1)
    flattened = source.as_points()
    even = Points(flattened.coordinates, splits=flattened.splits)
    expected = as_values(equation(_Stand(kernel, 2), flat, even, even), source)  # type: ignore[arg-type]
    layer = ContinuousConv(kernel, groups=2, bias=False, solver=Solver("reference"))
    result = layer(values, source)
    assert_close(result, expected)
    (mine,), (other,) = (
        torch.autograd.grad(one.square().sum(), [weights], retain_graph=True) for one in (result, expected)
    )
    observed = weights > 0
    assert_close(mine[observed], other[observed])
    with pytest.raises(ValueError, match="plan must be None for a grouped kernel where weights differ"):
        layer(values, source, plan=make_plan(kernel, source, engine="reference"))


@pytest.mark.parametrize("per_channel", [False, True])
def test_grouped_calibration_keeps_the_variance_of_white_noise(per_channel: bool) -> None:
    torch.manual_seed(0)
    kernel = Kernel(SIREN(1, 16 * 4, hidden=16, omega_0=2.0), GaussianMask([0.6]), extent=[1.0], shape=(16, 4))
    layer = ContinuousConv(kernel, groups=2, bias=False, solver=Solver("neighbours")).double()
    weights = uniform(*((200, 8) if per_channel else (200,)), low=0.2, seed=2) / 20
    points = Points(uniform(200, 1, high=10.0, seed=1), weights)
    layer.calibrate(points)
    with torch.no_grad():
        power = [float(layer(seeded(200, 8, seed=seed), points).square().mean()) for seed in range(8)]
    assert sum(power) / 8 == pytest.approx(1.0, rel=0.2)


def test_tables_are_calibrated() -> None:
    """A table has no bias to scale."""
    grid = Grid((40,), (0.1,))
    layer = ContinuousConv(conv_kernel(3 * seeded(4, 2, 3), grid.steps), bias=False)
    layer.calibrate(grid)
    squares = layer.kernel.generator.output.weight.detach().square().sum()
    # White noise gains the sum of the taps' squares, per output channel; at either end, less.
    assert float(squares) / 4 == pytest.approx(1.0, rel=0.05)


def test_grouped_layers_in_use() -> None:
    """Copies, dtypes, state, autocast: nothing of a layer's groups lives outside of its kernel."""
    layer = ContinuousConv(small_kernel(1, shape=(4, 2)), groups=2, solver=Solver("fft")).double()
    plain = ContinuousConv(small_kernel(1, shape=(4, 2), seed=5)).double()
    assert list(layer.state_dict()) == list(plain.state_dict())
    values, grid = seeded(2, 4, 9), Grid((9,), (0.5,))
    before = layer(values, grid)
    other = copy.deepcopy(layer)
    assert torch.equal(other(values, grid), before)
    other.load_state_dict(plain.state_dict())
    assert not torch.allclose(other(values, grid), before)
    assert_close(layer.float()(values.float(), grid).double(), before, factor=1e7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(values.bfloat16(), grid).dtype == torch.float32


# ---- dilated kernels ----


@pytest.mark.parametrize("rates", [2.0, (3.0, 0.5)])
def test_a_dilated_kernel_is_the_kernel_on_shrunk_coordinates(rates: float | tuple[float, float]) -> None:
    per_axis = torch.tensor([rates] * 2 if isinstance(rates, float) else rates, dtype=torch.float64)
    kernel = small_kernel(2)
    stretched = dilated(kernel, rates)
    assert all(a is b for a, b in zip(kernel.parameters(), stretched.parameters(), strict=True))
    assert_close(stretched.support, kernel.support * per_axis)
    source = Points(uniform(20, 2, high=3.0, seed=1), uniform(20, seed=2))
    query = Points(uniform(12, 2, high=3.0, seed=3))
    values = seeded(20, 2)
    shrunk = convolve(
        kernel, values, Points(source.coordinates / per_axis, source.weights), Points(query.coordinates / per_axis)
    )
    for engine in EXACT:
        assert_close(convolve(stretched, values, source, query, engine=engine), shrunk)
    grid = Grid((9, 7), (0.4, 0.5))
    on_grid = convolve(stretched, seeded(1, 2, 9, 7), grid, engine="fft")
    shrunk_grid = Grid((9, 7), [step / rate for step, rate in zip(grid.steps, per_axis.tolist(), strict=True)])
    # The cells of the shrunk grid are smaller.
    expected = convolve(kernel, seeded(1, 2, 9, 7), shrunk_grid, engine="fft") * per_axis.prod()
    assert_close(on_grid, expected)


def test_dilated_without_a_mask_or_causal() -> None:
    bare = dilated(small_kernel(1, masked=False), 2)
    assert bare.mask is None
    offsets = seeded(9, 1)
    assert_close(bare(offsets), small_kernel(1, masked=False)(offsets / 2))
    assert dilated(small_kernel(1, causal_axes=(0,)), 2).causal_axes == (0,)
    assert dilated(small_kernel(1), 2).mask.ellipsoidal
    for rates, message in (((1.0, 2.0), "one entry per axis, 1"), (0.0, "positive and finite"), (math.inf, "finite")):
        with pytest.raises(ValueError, match=f"rates must .*{message}"):
            dilated(small_kernel(1), rates)


def test_hybrid_rates_leave_no_lag_unread() -> None:
    assert unread_lags(3, (1, 2, 5)) == []
    assert unread_lags(3, (2, 2, 2)) == list(range(1, 12, 2))
    assert unread_lags(2, (1, 3)) == [2]
    # What a stack of torch's convolutions reads, by the gradient of one output.
    for size, rates in ((3, (1, 2, 5)), (3, (2, 4)), (2, (3, 1)), (3, (1, 2, 9)), (1, (3,))):
        reach = (size - 1) * sum(rates)
        values = torch.zeros(1, 1, reach + 1, dtype=torch.float64, requires_grad=True)
        result = values
        for rate in rates:
            result = functional.conv1d(result, torch.ones(1, 1, size, dtype=torch.float64), dilation=rate)
        (reads,) = torch.autograd.grad(result.sum(), values)
        assert unread_lags(size, rates) == torch.nonzero(reads.flatten() == 0).flatten().tolist()


@pytest.mark.parametrize(("size", "rates"), [(0, (1,)), (3, ()), (3, (0,)), (3, (1.5,))])
def test_rates_that_are_none(size: int, rates: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"(size|rates) must be (a )?positive integer"):
        unread_lags(size, rates)


# ---- strided and transposed: coarser and finer domains ----


def test_coarser_grids_are_every_other_node() -> None:
    grid = Grid((7, 6), (0.5, 0.2), (1.0, -2.0), (False, True))
    half = coarser(grid, (2, 3))
    assert half == Grid((4, 2), (1.0, 0.2 * 3), (1.0, -2.0), (False, True))
    layer = ContinuousConv(small_kernel(2, width=(0.2, 0.1))).to(torch.float64)
    values = seeded(2, 2, 7, 6)
    assert_close(layer(values, grid, half), layer(values, grid)[:, :, ::2, ::3])
    with pytest.raises(ValueError, match="stride must divide the 6 nodes of axis 1, which repeats, got 4"):
        coarser(grid, 4)


def test_coarser_points_keep_the_volume_of_each_sample() -> None:
    points = Points(uniform(9, 1), uniform(9, 2, seed=1), torch.tensor([0, 4, 4, 9]), periods=(2.0,))
    half = coarser(points, 2)
    assert isinstance(half, Points)
    assert half.splits.tolist() == [0, 2, 2, 5]
    assert torch.equal(half.coordinates, points.coordinates[[0, 2, 4, 6, 8]])
    pairs = [[0, 1], [2, 3], [4, 5], [6, 7], [8]]
    assert_close(half.weights, torch.stack([points.weights[rows].sum(0) for rows in pairs]))
    assert half.periods == (2.0,)
    product = coarser(Product(points, Grid((5, 4), (1.0, 2.0))), (2, 1, 3))
    assert isinstance(product, Product)
    assert torch.equal(product.points.weights, half.weights)
    assert product.grid == Grid((5, 2), (1.0, 6.0))
    empty = coarser(Points(torch.zeros(0, 1), splits=torch.tensor([0, 0, 0])), 3)
    assert isinstance(empty, Points)
    assert empty.splits.tolist() == [0, 0, 0]
    same = coarser(points, 1)
    assert isinstance(same, Points)
    assert torch.equal(same.weights, points.weights)


def test_strided_layers_on_points_follow_the_integral() -> None:
    """Two strided layers on points and on a grid converge to the same function."""
    torch.manual_seed(0)
    layers = [ContinuousConv(small_kernel(1, width=(0.3,), seed=seed), bias=False).double() for seed in (0, 1)]
    grid = Grid((400,), (0.01,))
    signal = torch.sin(3 * grid.nodes()) + 1
    jitter = grid.nodes() + 0.004 * (uniform(400, 1, seed=4) - 0.5)
    on_points: Domain = Points(jitter, grid.as_points().weights)
    rows, domain, on_grid = torch.sin(3 * jitter) + 1, on_points, grid
    values, rows = signal.reshape(1, 1, 400).repeat(1, 2, 1), rows.repeat(1, 2)
    with torch.no_grad():
        for layer in layers:
            query, query_grid = coarser(domain, 2), coarser(on_grid, 2)
            rows, values = layer(rows, domain, query), layer(values, on_grid, query_grid)
            domain, on_grid = query, query_grid  # type: ignore[assignment]
    assert_close(rows, as_rows(values), factor=2e-2 / 1e-12)
    assert float(values.abs().max()) > 0.1


def test_finer_grids_and_the_adjoint() -> None:
    grid = Grid((4, 3), (0.5, 0.6), (1.0, -2.0), (False, True))
    fine = finer(grid, (2, 3))
    assert fine == Grid((7, 9), (0.25, 0.6 / 3), (1.0, -2.0), (False, True))
    assert coarser(fine, (2, 3)).sizes == grid.sizes
    # The transposed convolution with the reflected kernel is the adjoint of the strided one, up to the cells' volumes.
    kernel = small_kernel(2, width=(0.2, 0.2), shape=(3, 2))
    x, y = seeded(1, 2, 7, 9), seeded(1, 3, 4, 3, seed=1)
    down = convolve(kernel, x, fine, grid) / fine.cell_volume
    up = convolve(adjoint(kernel), y, grid, fine) / grid.cell_volume
    assert_close((down * y).sum(), (x * up).sum())


@pytest.mark.parametrize("given", [0, -1, (2, 2), 1.5, (1.5,)])
def test_strides_that_are_none(given: object) -> None:
    for domain in (Grid((4,), (1.0,)), Points(torch.zeros(4, 1))):
        with pytest.raises(ValueError, match="stride must be a positive integer, or 1 of them"):
            coarser(domain, given)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="stride must be a positive integer, or 1 of them"):
        finer(Grid((4,), (1.0,)), given)  # type: ignore[arg-type]


# ---- the table itself ----


@pytest.mark.parametrize("d", [1, 2, 3])
def test_a_table_is_interpolated_linearly(d: int) -> None:
    positions = [(-1.5, 0.0, 2.5), (1.0, 0.0), (-2.0,)][:d]
    generator = Taps(positions, 2, volume=0.25).double()
    offsets = uniform(200, d, low=-4, high=4)
    table = generator.output.weight.detach().numpy().reshape(2, *map(len, positions))
    # NumPy's own interpolation, with the flat ends of a thousandth.
    hats = [
        np.stack([np.interp(z - p, [-0.999, -0.001, 0.001, 0.999], [0, 1, 1, 0]) for p in along])
        for along, z in zip(positions, offsets.T.numpy(), strict=True)
    ]
    letters = "ijk"[:d]
    formula = f"c{letters}," + ",".join(f"{letter}n" for letter in letters) + "->nc"
    assert_close(generator(offsets), torch.from_numpy(np.einsum(formula, table, *hats) / 0.25))
    exact = torch.tensor([[along[0] for along in positions], [along[-1] for along in positions]], dtype=torch.float64)
    assert_close(generator(exact) * 0.25, torch.from_numpy(table.reshape(2, -1)[:, [0, -1]].T.copy()))


def test_a_table_one_step_apart_keeps_constants() -> None:
    """The hats add up to one between the first and the last tap, so a constant table is a constant kernel."""
    generator = Taps([range(-3, 4)], 1).double()
    with torch.no_grad():
        generator.output.weight.fill_(2.0)
    inside = uniform(50, 1, low=-3, high=3)
    assert_close(generator(inside), torch.full_like(inside, 2.0))


def test_a_table_ends_within_its_mask() -> None:
    for kernel in (
        conv_kernel(seeded(2, 1, 3, 4), (0.1, 0.7), dilation=(2, 1), causal_axes=(0,)),
        conv_transpose_kernel(seeded(2, 1, 3, 4), (0.1, 0.7), stride=(2, 1), causal_axes=(0,)),
    ):
        offsets = uniform(4000, 2, low=-4, high=4) * torch.tensor([0.2, 1.0])
        bare = Kernel(kernel.generator, extent=kernel.extent.tolist(), shape=kernel.shape, causal_axes=(0,)).double()
        bare.extent = kernel.extent
        assert torch.equal(bare(offsets), kernel(offsets))
        assert bool((kernel(offsets)[(offsets.abs() > kernel.support).any(1)] == 0).all())
        assert bool(kernel(offsets).any())


def test_the_volume_cancels_the_cell() -> None:
    """The same table on grids of any step is the same discrete convolution; on points that weigh 1, without volume."""
    weight, values = seeded(2, 2, 3), seeded(1, 2, 9)
    expected = functional.conv1d(values, weight, padding=1)
    for step in (1e-3, 1.0, 250.0):
        grid = Grid((9,), (step,))
        assert_close(convolve(conv_kernel(weight, (step,)), values, grid), expected)
    counted = Kernel(Taps([(1, 0, -1)], 4), BoxMask([2.0]), extent=[1.0], shape=(2, 2)).double()
    with torch.no_grad():
        counted.generator.output.weight.copy_(weight.flatten(0, 1))
    line = Points(torch.arange(9.0)[:, None])
    assert_close(as_values(convolve(counted, as_rows(values), line), Grid((9,), (1.0,))), expected)


def test_rounding_does_not_blur_a_table() -> None:
    """Nodes at 5,000,000 m in steps of 0.1 m, offsets in float32: the taps' values are met exactly."""
    weight = seeded(1, 1, 5, dtype=torch.float32)
    kernel = conv_kernel(weight, (0.1,), dilation=40)
    nodes = 5e6 + 0.1 * torch.arange(200, dtype=torch.float64)
    offsets = nodes[100] - nodes[[20, 60, 100, 140, 180]]
    assert torch.equal(kernel(offsets[:, None].float()).flatten(), weight.flatten() * 10)


def test_box_mask() -> None:
    mask = BoxMask([1.0, 0.5], [0.25, -1.0]).double()
    inside = torch.tensor([[0.25, -1.0], [1.2, -1.4], [-0.7, -0.6]], dtype=torch.float64)
    outside = torch.tensor([[1.3, -1.0], [0.25, -0.4], [9.0, 9.0]], dtype=torch.float64)
    assert mask(inside).flatten().tolist() == [1, 1, 1]
    assert mask(outside).flatten().tolist() == [0, 0, 0]
    assert mask.support.tolist() == [1.25, 1.5]
    assert not mask.ellipsoidal


# ---- messages ----


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Taps([(0, 1), ()], 1), r"positions must name at least one tap on axis 1, got \(\)"),
        (lambda: Taps([(0, 0.5)], 1), "positions must be at least one unit apart on axis 0"),
        (lambda: Taps([(0, 1)], 1, volume=0.0), "volume must be positive and finite"),
        (lambda: BoxMask([]), "half_width must be positive"),
        (lambda: BoxMask([1.0, -1.0]), "half_width must be positive"),
        (lambda: BoxMask([1.0], [0.0, 1.0]), "centre must have 1 entries"),
        (lambda: BoxMask([1.0], [math.nan]), "centre must be finite"),
        (lambda: conv_kernel(seeded(3), (1.0,)), "weight must be floating point of shape"),
        (lambda: conv_kernel(seeded(3, 2, 1, 1), (1.0,)), "weight must be floating point of shape"),
        (lambda: conv_kernel(torch.zeros(3, 2, 0), (1.0,)), "weight must be floating point of shape"),
        (lambda: conv_kernel(torch.zeros(3, 2, 3).long(), (1.0,)), "weight must be .*, got torch.int64"),
        (lambda: conv_kernel(seeded(3, 2, 3), (1.0,), dilation=0), "dilation must be integers from 1 on"),
        (lambda: conv_kernel(seeded(3, 2, 3), (1.0,), dilation=(1, 2)), "dilation must be one number or one per axis"),
        (lambda: conv_kernel(seeded(3, 2, 3), (1.0,), causal_axes=(1,)), r"causal_axes must lie in 0\.\.0"),
        (lambda: conv_query(Grid((4,), (1.0,)), (3, 3)), "sizes must have one entry per axis, 1"),
        (lambda: conv_query(Grid((4,), (1.0,)), (3,), stride=0), "stride must be integers from 1 on"),
        (lambda: conv_query(Grid((4,), (1.0,)), (3,), dilation=2), "sizes must fit into the padded grid on axis 0"),
        (lambda: conv_query(Grid((4,), (1.0,)), (3,), padding=-1), "padding must be integers from 0 on, or pairs"),
        (lambda: conv_query(Grid((4,), (1.0,)), (3,), padding=[(1, 2, 3)]), "padding must be integers from 0 on"),
        (lambda: conv_query(Grid((4,), (1.0,)), (3,), padding=(1, 2)), "padding must be one number or one entry per"),
        (lambda: conv_transpose_kernel(seeded(4, 2), (1.0,)), r"weight must have shape \(C, D / groups, 1 sizes\)"),
        (lambda: conv_transpose_kernel(seeded(4, 2, 3), (1.0,), groups=3), "groups must divide the 4 channels, got 3"),
        (lambda: conv_transpose_kernel(seeded(4, 2, 3), (1.0,), stride=0), "stride must be integers from 1 on"),
        (lambda: conv_transpose_query(Grid((4,), (1.0,)), (3, 3)), "sizes must have one entry per axis, 1"),
        (lambda: conv_transpose_query(Grid((1,), (1.0,)), (3,), padding=2), "padding must leave at least one node"),
        (lambda: OutputRows(SIREN(1, 4), 3, 2), "start must leave 2 of 4 rows"),
        (lambda: ContinuousConv(small_kernel(1, shape=(4, 2)), groups=3), "groups must divide the 4 output channels"),
        (lambda: ContinuousConv(small_kernel(1, shape=(4, 2)), groups=0), "groups must divide the 4 output channels"),
        (lambda: ContinuousConv(small_kernel(1), groups=2), r"kernel must have shape \(D, C / groups\) for groups"),
        (lambda: ContinuousConv(small_kernel(1), shuffle=True), "shuffle must be False without groups"),
        (lambda: PointwiseLinear(4, 6, groups=4), "groups must divide the 6 output channels, got 4"),
        (lambda: PointwiseLinear(4, 6, groups=3), "groups must divide the 4 input channels, got 3"),
        (lambda: PointwiseLinear(4, 6, shuffle=True), "shuffle must be False without groups"),
        (lambda: shuffle_channels(seeded(2, 4), 3), "groups must divide the 4 channels, got 3"),
    ],
)
def test_messages(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_messages_of_grouped_layers() -> None:
    layer, grid = ContinuousConv(small_kernel(1, shape=(4, 2)), groups=2), Grid((5,), (1.0,))
    with pytest.raises(ValueError, match=r"values must have 4 channels on axis 1, got \(1, 2, 5\)"):
        layer(seeded(1, 2, 5), grid)
    nn.utils.parametrizations.weight_norm(layer.kernel.generator.output)
    with pytest.raises(ValueError, match="kernel must have an output layer of plain parameters to be cut into groups"):
        layer(seeded(1, 4, 5), grid)


def test_kinds_combine() -> None:
    """Grouped, strided, dilated, causal and periodic at once, three axes, equals torch after padding by hand."""
    grid = Grid((9, 8, 6), STEPS[:3], STARTS[:3], (False, True, False))
    values, weight = seeded(2, 4, *grid.sizes), seeded(4, 2, 3, 2, 2, seed=1)
    rates = (2, 1, 3)
    pads = [(4, 0), (0, 1), (0, 0)]
    padded = functional.pad(functional.pad(values, (0, 0, 0, 1, 0, 0), mode="circular"), (0, 0, 0, 0, 4, 0))
    expected = functional.conv3d(padded, weight, stride=(2, 2, 1), dilation=rates, groups=2)
    query = conv_query(grid, (3, 2, 2), stride=(2, 2, 1), padding=pads, dilation=rates, causal_axes=(0,))
    assert query.periodic == (False, True, False)
    kernel = conv_kernel(weight, grid.steps, dilation=rates, causal_axes=(0,))
    for engine in ("reference", "fft", "auto"):
        layer = ContinuousConv(kernel, groups=2, bias=False, solver=Solver(engine))
        assert_close(nn.ChannelShuffle(2)(layer(values, grid, query)), nn.ChannelShuffle(2)(expected))
    offsets = list(itertools.product(range(3), range(2), range(2)))
    assert kernel.generator.output.weight.shape == (8, len(offsets))
