"""Continuous kernels shipped as shift-wise layers: against the layers and networks they come from."""

from __future__ import annotations

import pytest
import torch

from ccnn_irregular import CCNN, SIREN, GaussianMask, Grid, Kernel, KernelSpec, SeparableContinuousConv
from ccnn_irregular.networks_unet import ContinuousUNet
from ccnn_irregular.shiftwise import export
from ccnn_irregular.shiftwise.tiled import TiledConv


def layer_of(d: int, **options: object) -> SeparableContinuousConv:
    torch.manual_seed(0)
    kernel = Kernel(SIREN(d, 4, 16, omega_0=3.0), GaussianMask([1.2] * d), extent=[3.0] * d, **options)
    layer = SeparableContinuousConv(kernel, 6)
    torch.nn.init.normal_(layer.depthwise.bias)
    return layer


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("options", [{}, {"causal_axes": (0,)}])
def test_without_tolerance_a_layer_is_the_same(d: int, options: dict[str, object]) -> None:
    layer, grid = layer_of(d, **options), Grid([11, 9, 8][:d], [0.4, 0.5, 0.6][:d])
    values = torch.randn(2, 4, *grid.sizes)
    exported = export(layer, grid, tolerance=0.0, width=3)
    with torch.no_grad():
        expected = layer(values, grid)
        assert torch.allclose(exported.module(values), expected, atol=1e-5 * float(expected.abs().max()))
    assert exported.layers[0].error < 1e-6
    assert exported.layers[0].bound < 1e-6


def test_a_tolerance_drops_tiles_and_bounds_the_error() -> None:
    layer, grid = layer_of(2), Grid([40, 40], [0.2, 0.2])
    whole, rough = export(layer, grid, 0.0, way="tiles"), export(layer, grid, 0.02, way="tiles")
    assert rough.layers[0].kept < whole.layers[0].kept
    assert 0 < rough.layers[0].bound <= 0.0201
    assert 0 < rough.layers[0].error < 0.05
    values = 2 * torch.rand(1, 4, *grid.sizes) - 1
    exact, fewer = (module.get_submodule("0") for module in (whole.module, rough.module))
    assert isinstance(exact, TiledConv)
    with torch.no_grad():
        change = (exact(values) - fewer(values)).abs().amax((0, 2, 3))
        assert bool((change <= 0.0201 * exact.to_large_kernel().abs().sum((1, 2))).all())
    for way in ("direct", "channels last"):  # the one kernel of the tiles that were kept
        same = export(layer, grid, 0.02, way=way).module
        with torch.no_grad():
            assert torch.allclose(same(values), rough.module(values), atol=1e-5)
    assert f"{rough.layers[0].kept} of {rough.layers[0].tiles} tiles" in str(rough)


@pytest.mark.parametrize("head", ["classify", "dense"])
def test_a_network_becomes_plain_torch_without_a_fourier_transform(head: str) -> None:
    torch.manual_seed(0)
    grid = Grid([14, 12], [1.0, 1.0])
    network = CCNN(2, 8, 3, blocks=2, kernel=KernelSpec(extent=[5.0] * 2, width=[1.5] * 2, omega_0=6.0), head=head)
    network.calibrate(grid)
    network.eval()
    values = torch.randn(3, 2, 14, 12)
    exported = export(network, grid, tolerance=1e-3)
    assert [layer.name for layer in exported.layers] == ["stem.0.0", "blocks.0.conv.0", "blocks.1.conv.0"]
    with torch.no_grad():
        expected = network(values, grid)
        assert (exported.module(values) - expected).norm() <= 0.02 * expected.norm()
    program = torch.export.export(exported.module, (values,))
    assert "fft" not in program.graph_module.code
    with torch.no_grad():
        assert torch.allclose(program.module()(values), exported.module(values), atol=1e-5)


def test_a_convolution_that_leads_to_another_grid_keeps_its_taps_and_says_so() -> None:
    kernel = KernelSpec(extent=[5.0] * 2, width=[1.5] * 2, omega_0=6.0)
    network = CCNN(2, 8, 3, blocks=1, kernel=kernel, latent=Grid([7, 6], [2.0, 2.0]))
    exported = export(network, Grid([14, 12], [1.0, 1.0]), 0.0)
    assert "in one convolution: it leads from Grid(sizes=(14, 12)" in str(exported.layers[0])
    values = torch.randn(1, 2, 14, 12)
    with torch.no_grad():
        expected = network.eval()(values, Grid([14, 12], [1.0, 1.0]))
        assert torch.allclose(exported.module(values), expected, atol=1e-4)


def test_axes_that_repeat_keep_their_taps() -> None:
    layer, grid = layer_of(1), Grid([20], [0.4], periodic=True)
    exported, values = export(layer, grid), torch.randn(1, 4, 20)
    assert exported.layers[0].reason == "an axis repeats"
    with torch.no_grad():
        assert torch.allclose(exported.module(values), layer(values, grid), atol=1e-5)


def test_a_u_shaped_network() -> None:
    torch.manual_seed(0)
    network = ContinuousUNet(1, 2, channels=(4, 6), steps=[1.0, 1.0], blocks=(1, 1)).eval()
    grid, values = Grid([12, 11], [0.6, 1.3]), torch.randn(2, 1, 12, 11)
    network.calibrate(values, grid)
    exported = export(network, grid, tolerance=0.01)
    kept = [layer for layer in exported.layers if not layer.reason]
    assert [layer.name for layer in kept] == [
        "down_levels.0.0.conv.0",
        "down_levels.1.0.conv.0",
        "up_levels.0.0.conv.0",
    ]
    with torch.no_grad():
        expected = network(values, grid)
        assert (exported.module(values) - expected).norm() <= 0.05 * expected.norm()
        exact = export(network, grid, tolerance=0.0).module(values)
        assert torch.allclose(exact, expected, atol=1e-5 * float(expected.abs().max()))


def test_what_cannot_be_exported_is_refused() -> None:
    layer = layer_of(2)
    with pytest.raises(ValueError, match="grid must have at most 3 axes"):
        export(layer_of(4), Grid([4] * 4, [1.0] * 4))
    with pytest.raises(ValueError, match="way must be one of"):
        export(layer, Grid([8, 8], [1.0, 1.0]), way="FFT")
    with pytest.raises(ValueError, match="tolerance must lie in"):
        export(layer, Grid([8, 8], [1.0, 1.0]), 1.0)
    with pytest.raises(TypeError, match=r"layer must be a ContinuousConv, .* or a ContinuousUNet, got Linear"):
        export(torch.nn.Linear(2, 2), Grid([8], [1.0]))
