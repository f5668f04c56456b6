"""``Solver``: engine and tolerance as one value, in every layer and network that computes sums."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from contract_cases import seeded, small_kernel, uniform

from ccnn_irregular import CCNN, ContinuousConv, Grid, KernelSpec, Points, SeparableContinuousConv, Solver, convolve
from ccnn_irregular.adapters.geometric import CLOUD_KERNEL, CCNNConv
from ccnn_irregular.adapters.geometric_networks import CloudUNet
from ccnn_irregular.convolution_blocks import ShuffleUnit
from ccnn_irregular.networks import ResidualBlock
from ccnn_irregular.networks_unet import ContinuousUNet

ODD = Solver("reference", 0.125)
KERNEL = KernelSpec([1.0], [0.2], omega_0=3.0, hidden=4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "fastest"}, r"solver\.engine must be 'auto' or one of .*'reference'.*, got 'fastest'"),
        ({"rtol": 0.0}, r"solver\.rtol must lie between 0 and 1, got 0\.0"),
        ({"rtol": 1.0}, r"solver\.rtol must lie between 0 and 1, got 1\.0"),
    ],
)
def test_refusals_name_the_argument(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Solver(**options)


@pytest.mark.parametrize(
    "network",
    [
        ContinuousConv(small_kernel(1), solver=ODD),
        SeparableContinuousConv(small_kernel(1), 3, solver=ODD),
        ResidualBlock(2, KERNEL(2), solver=ODD),
        CCNN(2, 4, 1, kernel=KERNEL, head="anywhere", solver=ODD),
        ShuffleUnit(4, 8, small_kernel(1, channels=4), 2, pool=small_kernel(1, channels=4), solver=ODD),
        CCNNConv(2, 3, kernel=CLOUD_KERNEL, solver=ODD),
        CCNNConv(2, 3, kernel=CLOUD_KERNEL, separable=False, solver=ODD),
        CloudUNet(1, 2, channels=(4, 4), spacing=1.0, solver=ODD),
        ContinuousUNet(1, 2, channels=(2, 4), blocks=(1, 1), steps=[1.0], solver=ODD),
    ],
    ids=lambda network: type(network).__name__,
)
def test_every_convolution_has_the_solver(network: torch.nn.Module) -> None:
    solvers = {one.solver for one in network.modules() if isinstance(one, ContinuousConv)}
    assert solvers == {ODD}


def test_behind_a_latent_grid_the_engine_is_chosen() -> None:
    network = CCNN(2, 4, 1, kernel=KERNEL, latent=Grid([8], [0.5]), solver=ODD)
    assert network.stem.depthwise.solver == ODD
    assert network.blocks[0].conv.depthwise.solver == Solver("auto", 0.125)


def test_a_shared_plan_takes_the_first_engine_and_the_least_error() -> None:
    assert Solver.shared([Solver("spectral", 1e-2), Solver("auto", 1e-4)]) == Solver("spectral", 1e-4)
    source = Points(uniform(30, 1, high=4.0))
    kernels = [small_kernel(1, seed=seed) for seed in range(2)]
    plan = ODD.plan(kernels, source)
    assert (plan.engine, plan.rtol) == ("reference", 0.125)
    values = seeded(30, kernels[0].in_channels)
    expected = convolve(kernels[1], values, source, engine="reference")
    assert torch.equal(ODD.convolve(kernels[1], values, source, plan=plan), expected)
    assert torch.equal(ODD.convolve(kernels[1], values, source), expected)
