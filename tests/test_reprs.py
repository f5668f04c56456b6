"""What networks, layers, kernels, domains, plans and estimators say of themselves: the numbers they were made of."""

from __future__ import annotations

import re

import pandas as pd
import pytest
import torch
from torch import nn

from ccnn_irregular import (
    CCNN,
    ContinuousConv,
    GaussianMask,
    Grid,
    Kernel,
    KernelSpec,
    Points,
    Product,
    SeparableContinuousConv,
    Solver,
    explain,
    make_plan,
)
from ccnn_irregular.adapters.geometric_networks import CloudUNet
from ccnn_irregular.datasets.simulated_fields import smooth_fields
from ccnn_irregular.estimators import SeriesClassifier
from ccnn_irregular.kernels.taps import conv_kernel
from ccnn_irregular.layers import InstanceNorm, PointwiseLinear
from ccnn_irregular.networks_unet import ContinuousUNet
from ccnn_irregular.pipelines.tasks.field.kriging import FieldAxis
from ccnn_irregular.pipelines.tasks.field.network import FieldNetwork

SPEC = KernelSpec(extent=8.0, width=3.0, omega_0=5.0, generator="siren", hidden=16)


def count(module: nn.Module) -> int:
    """Numbers of the parameters, from the state that a checkpoint holds."""
    trained = {name for name, _ in module.named_parameters()}
    return sum(tensor.numel() for name, tensor in module.state_dict().items() if name in trained)


def network(**options: object) -> CCNN:
    return CCNN(3, 16, 2, kernel=SPEC, blocks=3, latent=Grid([48], [0.5]), **options)  # type: ignore[arg-type]


def test_a_network_tells_channels_blocks_head_latent_and_parameters_in_a_few_lines() -> None:
    made = network(head="dense")
    lines = repr(made).splitlines()
    assert lines[0] == "CCNN("
    assert lines[1].strip() == f"3 -> 16 -> 2 channels, 3 blocks, head='dense', {count(made):,} parameters"
    assert lines[2].strip() == "latent=Grid(sizes=(48,), steps=(0.5,))"
    assert sum("3 x ResidualBlock(16, Kernel(SIREN(1 -> 16, hidden=16, omega_0=5)" in line for line in lines) == 1
    assert len(lines) <= 15
    assert max(map(len, lines)) <= 140
    assert "latent" not in repr(CCNN(3, 16, 2, kernel=SPEC))


def test_other_modules_nest_a_network_as_torch_does() -> None:
    made = network()
    lines = repr(nn.Sequential(made)).splitlines()
    assert lines[1:-1] == [f"  {line}" if line else line for line in f"(0): {made!r}".splitlines()]


def test_a_kernel_tells_its_reach_as_it_is_now() -> None:
    kernel = SPEC(4)
    # The mask ends where exp(-s) = 0.01: 3 sqrt(2 log 100) = 9.1046...
    assert repr(kernel) == ("Kernel(SIREN(1 -> 4, hidden=16, omega_0=5), GaussianMask(width=3, reach=9.105), extent=8)")
    assert isinstance(kernel.mask, GaussianMask)
    with torch.no_grad():
        kernel.mask.log_scale.fill_(0.5)  # 3 exp(0.5) = 4.946
    assert "width=4.946, reach=15.01" in repr(kernel)
    full = KernelSpec(extent=[3.0, 4.0], width=1.0, causal=True, learned_mean=True)(2, 5)
    assert "GaussianMask(width=1, mean=0, reach=3.035), extent=(3, 4), shape=(5, 2), causal_axes=(0,)" in repr(full)
    assert repr(conv_kernel(torch.ones(2, 3, 3), [1.0, 1.0])).startswith("Kernel(Taps(2 -> 2, 9 taps), BoxMask(reach=")
    assert "scale=2.5e-30" in repr(Kernel(kernel.generator, kernel.mask, extent=[8.0], scale=2.5e-30))


def test_a_recipe_shows_what_was_asked_for_and_can_be_typed() -> None:
    assert repr(SPEC) == "KernelSpec(extent=8.0, width=3.0, omega_0=5.0, generator='siren', hidden=16)"
    assert eval(repr(SPEC)) == SPEC
    assert repr(KernelSpec(width=2.0, causal=True)).endswith("generator='magnet', causal=True)")


def test_layers_are_one_line_and_name_what_is_unusual() -> None:
    layer = ContinuousConv(SPEC(4, 6), bias=False, groups=2, shuffle=True, solver=Solver("spectral", 1e-5))
    assert repr(layer) == (
        f"ContinuousConv(8 -> 6, {layer.kernel!r}, bias=False, groups=2, shuffle=True, engine='spectral', rtol=1e-05)"
    )
    usual = SeparableContinuousConv(SPEC(4), 6)
    assert repr(usual) == f"SeparableContinuousConv(4 -> 6, {usual.kernel!r})"
    assert repr(InstanceNorm(7)) == "InstanceNorm(7, eps=1e-05)"
    assert repr(PointwiseLinear(4, 6, groups=2)).endswith("out_features=6, bias=True, groups=2)")


def test_numbers_that_are_not_known_are_no_reason_to_fail() -> None:
    with torch.device("meta"):
        assert "GaussianMask(width=?, reach=?), extent=8" in repr(network())
    shown = []
    torch.func.vmap(lambda widths: shown.append(repr(GaussianMask([1.0]))) or widths)(torch.ones(2, 1))
    kernel = SPEC(2)

    def under_vmap(scale: torch.Tensor) -> torch.Tensor:
        shown.append(torch.func.functional_call(_Repr(kernel), {"kernel.mask.log_scale": scale}, ()))
        return scale

    torch.func.vmap(under_vmap)(torch.zeros(2, 1))
    assert "width=?" in shown[1]


class _Repr(nn.Module):
    def __init__(self, kernel: Kernel) -> None:
        super().__init__()
        self.kernel = kernel

    def forward(self) -> str:
        return repr(self.kernel)


def test_domains_show_where_they_lie_and_what_they_weigh() -> None:
    points = Points(torch.tensor([[0.0, 5.0], [9.0, -2.0]]), torch.tensor([0.5, 2.25]), periods=[None, 24.0])
    where = "n=2, d=2, samples=1, from=(0, -2), to=(9, 5)"
    assert repr(points) == f"Points({where}, weights=0.5..2.25, periods=(None, 24.0))"
    assert repr(Points(points.coordinates)) == f"Points({where}, weights=1)"
    assert repr(Points(points.coordinates, torch.ones(2, 3))) == f"Points({where}, weights=1 of 3 channels)"
    assert repr(Points(torch.zeros(0, 2))) == "Points(n=0, d=2, samples=1)"
    learned = points.coordinates.clone().requires_grad_()
    assert repr(Points(learned)) == f"Points({where}, weights=1)"
    for grid in (Grid([4], [0.25]), Grid([3, 4], [0.5, 1.0], [1.0, 0.0], periodic=[True, False])):
        assert eval(repr(grid)) == grid
    assert repr(Grid([4], [0.25])) == "Grid(sizes=(4,), steps=(0.25,))"
    assert repr(Product(points, Grid([4], [0.25]))) == f"Product({points!r}, Grid(sizes=(4,), steps=(0.25,)))"


def test_a_plan_names_its_engine_and_says_a_domain_once() -> None:
    grid = Grid([20], [0.5])
    points = Points(torch.linspace(0, 9, 30, dtype=torch.float64)[:, None])
    assert repr(make_plan(SPEC(2), grid)) == f"Plan('fft', at {grid!r}, rtol=0.001)"
    plan = make_plan(SPEC(2), points, grid, engine="spectral", rtol=1e-2)
    assert repr(plan) == f"Plan('spectral', from {points!r} to {grid!r}, rtol=0.01)"


@pytest.mark.parametrize(
    "made",
    [
        lambda: ContinuousUNet(1, 2, steps=(1.0, 1.0, 2.0)),
        lambda: CloudUNet(1, 4, spacing=0.1),
        lambda: FieldNetwork(
            2, [FieldAxis("depth"), FieldAxis("time")], latent=Grid([8, 8], [1.0, 1.0]), kernel=KernelSpec(width=1.0)
        ),
    ],
)
def test_every_network_tells_its_parameters_and_no_address(made: object) -> None:
    built = made()  # type: ignore[operator]
    shown = repr(built)
    assert f"{count(built):,} parameters" in shown.split("\n(", 1)[0]
    assert not re.search(r" at 0x|object", shown)
    assert max(map(len, shown.splitlines())) <= 200


def test_levels_and_steps_of_a_unet_are_told() -> None:
    first = repr(ContinuousUNet(1, 2, channels=(4, 8), blocks=(0, 1), steps=(1.0, 1.0, 2.0))).splitlines()[1]
    assert first.strip().startswith("1 -> (4, 8) -> 2 channels, steps=(1, 1, 2), twice that from level to level, ")


def test_an_estimator_shows_what_was_changed_and_no_table() -> None:
    table = pd.DataFrame({"id": range(5000), "time": 0.0, "variable": "x", "value": 1.0})
    made = SeriesClassifier(max_epochs=3, table=table, columns=None)
    assert repr(made) == "SeriesClassifier(max_epochs=3, table=<table of 5,000 rows>)"
    assert repr(SeriesClassifier()) == "SeriesClassifier()"


def test_what_is_printed_as_a_table_is_shown_as_one() -> None:
    explanation = explain(SPEC(2), Grid([20], [0.5]))
    assert repr(explanation) == str(explanation)
    assert repr(explanation).splitlines()[0].split()[:3] == ["engine", "plan", "forward"]


def test_fields_are_told_in_a_line() -> None:
    fields = smooth_fields(3, points=40)
    assert repr(fields).startswith("FieldSet(fields=3, places=120, axes=(")
    assert "tensor" not in repr(fields)
