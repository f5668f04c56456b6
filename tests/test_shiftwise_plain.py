"""Convolutions and networks on a fixed grid as ordinary ones: against the integral in Fourier space, any geometry."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ccnn_irregular import CCNN, SIREN, ContinuousConv, GaussianMask, Grid, Kernel, KernelSpec
from ccnn_irregular.layers import SeparableContinuousConv
from ccnn_irregular.networks_unet import ContinuousUNet
from ccnn_irregular.shiftwise import GridConv, plain


@st.composite
def geometry(draw: st.DrawFn) -> tuple[Grid, Grid]:
    """Two grids of 1 to 3 axes on a common lattice, shifted by anything; some axes repeat."""
    sources, queries, periodic = [], [], []
    for _ in range(draw(st.integers(1, 3))):
        repeats = draw(st.booleans())
        ratio = draw(st.sampled_from([1.0, 0.5, 2.0] if repeats else [1.0, 0.5, 2.0, 3.0, 1 / 3, 1.5, 2 / 3]))
        nodes = 2 * draw(st.integers(1, 4)) if repeats else draw(st.integers(1, 9))
        step = draw(st.sampled_from([0.5, 1.0, 2.0]))
        sources.append((nodes, step, draw(st.sampled_from([0.0, 0.3]))))
        wanted = round(nodes / ratio) if repeats else draw(st.integers(1, 9))
        queries.append((wanted, step * ratio, draw(st.sampled_from([0.0, 1.0]))))
        periodic.append(repeats)
    source, query = (Grid(*zip(*axes, strict=True), periodic) for axes in (sources, queries))
    return source, query


@settings(max_examples=60, deadline=None)
@given(
    grids=geometry(),
    reach=st.sampled_from([0.4, 1.0, 5.0]),
    causal=st.booleans(),
    kind=st.sampled_from(["depthwise", "full", "groups"]),
)
def test_any_two_grids(grids: tuple[Grid, Grid], reach: float, causal: bool, kind: str) -> None:
    source, query = grids
    torch.manual_seed(0)
    extent = [min(reach, 0.3 * (axis.period or 99.0)) for axis in source.axes]
    causal_axes = tuple(axis for axis, own in enumerate(source.axes) if causal and not own.periodic)
    shape = {"depthwise": (4,), "full": (3, 4), "groups": (6, 2)}[kind]
    count = torch.Size(shape).numel()
    mask = GaussianMask([one / 2.5 for one in extent])
    generator = SIREN(source.d, count, 8, omega_0=3.0)
    kernel = Kernel(generator, mask, extent=extent, causal_axes=causal_axes, shape=shape)
    grouped = {"groups": 2, "shuffle": True} if kind == "groups" else {}
    layer = ContinuousConv(kernel, **grouped).double()
    torch.nn.init.normal_(layer.bias)
    values = torch.randn(2, 4, *source.sizes, dtype=torch.float64)
    with torch.no_grad():
        expected = layer(values, source, query)
        found = plain(layer, source, query)
        assert isinstance(found, GridConv)
        for found.channels_last in (False, True):
            assert torch.allclose(found(values), expected, atol=1e-12 * float(1 + expected.abs().max()))


@pytest.mark.parametrize("head", ["classify", "dense"])
@pytest.mark.parametrize("latent", [None, Grid([5, 7], [2.0, 1.5], [0.5, 0.0])])
def test_networks_that_classify(head: str, latent: Grid | None) -> None:
    torch.manual_seed(0)
    grid, values = Grid([10, 9], [1.0, 1.0]), torch.randn(3, 2, 10, 9)
    kernel = KernelSpec(extent=[5.0] * 2, width=[1.5] * 2, omega_0=6.0)
    network = CCNN(2, 6, 3, blocks=2, kernel=kernel, head=head, latent=latent)
    network.calibrate(grid, values)
    network(values, grid)
    network.eval()
    for one in network.parameters():
        torch.nn.init.normal_(one) if one.ndim == 1 and len(one) == 6 else None
    with torch.no_grad():
        expected = network(values, grid)
        assert torch.allclose(plain(network, grid)(values), expected, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize(("d", "steps"), [(1, [0.6]), (2, [0.6, 2.0]), (3, [1.0, 0.5, 2.3]), (2, [30.0, 30.0])])
def test_u_shaped_networks(d: int, steps: list[float]) -> None:
    torch.manual_seed(0)
    sizes = [11, 6, 9][:d] if steps[0] < 30 else [1, 1]
    grid, values = Grid(sizes, steps), torch.randn(2, 2, *sizes)
    network = ContinuousUNet(2, 3, channels=(3, 4, 5), steps=[1.0] * d, blocks=(1, 0, 1)).eval()
    network.calibrate(torch.randn(1, 2, *[9] * d), Grid([9] * d, [1.0] * d))
    with torch.no_grad():
        expected = network(values, grid)
        assert torch.allclose(plain(network, grid)(values), expected, atol=2e-5 * float(expected.abs().max()))


def test_a_plain_layer_is_a_copy_and_is_not_trained() -> None:
    layer = SeparableContinuousConv(Kernel(SIREN(1, 2, 8), GaussianMask([1.0]), extent=[2.0]), 3, groups=1)
    grid, values = Grid([9], [0.5]), torch.randn(1, 2, 9)
    found = plain(layer, grid)
    with torch.no_grad():
        before = found(values)
        layer.pointwise.weight.zero_()
        assert torch.equal(found(values), before)
    assert not any(one.requires_grad for one in found.parameters())
    with pytest.raises(ValueError, match="query must lie on a common lattice with the source"):
        plain(layer, grid, Grid([9], [0.5001]))
    with pytest.raises(ValueError, match="network must have head 'classify' or 'dense'"):
        plain(CCNN(1, 2, 2, kernel=KernelSpec(extent=[2.0]), head="anywhere"), grid)
    with pytest.raises(ValueError, match="support of at most half the period"):
        plain(layer, Grid([3], [0.5], periodic=True))
