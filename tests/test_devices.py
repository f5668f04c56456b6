"""Layers, networks and steps of training answer on the tested device (CCNN_TEST_DEVICE) as on the CPU.

Where that is the CPU they are compared with themselves, which shows only that these tests run.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from contract_cases import seeded, small_kernel, uniform
from tested_device import DEVICE, there
from torch import Tensor, nn

from ccnn_irregular import CCNN, ContinuousConv, Grid, KernelSpec, Points, Product, SeparableContinuousConv, Solver
from ccnn_irregular.adapters.geometric import CLOUD_KERNEL, CCNNConv
from ccnn_irregular.domains import Domain
from ccnn_irregular.networks_unet import ContinuousUNet
from ccnn_irregular.testing import assert_all_close

# Sums of many terms of both signs, in another order on every device.
FACTOR = 100.0
RAGGED = Points(uniform(40, 1, high=6.0, seed=1), uniform(40, seed=2), torch.tensor([0, 17, 17, 40]))
CLOUD = Points(uniform(60, 3, seed=1), uniform(60, seed=2), torch.tensor([0, 25, 60]))
STATIONS = Product(Points(uniform(9, 2, seed=3), splits=torch.tensor([0, 4, 9])), Grid((6,), (1.0,)))
LINE, IMAGE, VOLUME = Grid((48,), (0.25,)), Grid((12, 9), (0.5, 0.7)), Grid((6, 5, 7), (1.0, 1.5, 1.0))
Case = tuple[Callable[[], nn.Module], Domain]


def network(d: int, causal: bool = False, **options: Any) -> CCNN:
    """Two blocks, a third of a unit wide per axis of small domains."""
    kernel = KernelSpec(extent=[2.0] * d, width=[0.6] * d, omega_0=5.0, generator="siren", causal=causal)
    return CCNN(2, 6, 3, kernel=kernel, blocks=2, **options)


CASES: dict[str, Case] = {
    "convolution, points": (lambda: ContinuousConv(small_kernel(1), solver=Solver("neighbours")), RAGGED),
    "convolution, spectral": (lambda: ContinuousConv(small_kernel(1), solver=Solver("spectral", rtol=1e-6)), RAGGED),
    "convolution, product": (lambda: ContinuousConv(small_kernel(3), solver=Solver("reference")), STATIONS),
    "groups": (lambda: ContinuousConv(small_kernel(2, shape=(6, 1)), groups=2, shuffle=True), IMAGE),
    "separable, image": (lambda: SeparableContinuousConv(small_kernel(2), 5), IMAGE),
    "sequence, causal": (lambda: network(1, causal=True), LINE),
    "image": (lambda: network(2), IMAGE),
    "volume": (lambda: network(3), VOLUME),
    "ragged series, causal": (lambda: network(1, causal=True, solver=Solver("neighbours")), RAGGED),
    "ragged series, latent grid": (
        lambda: network(1, latent=Grid((24,), (0.25,)), solver=Solver("neighbours")),
        RAGGED,
    ),
    "clouds": (lambda: network(3, solver=Solver("neighbours")), CLOUD),
    "U-net": (lambda: ContinuousUNet(2, 3, channels=(2, 4), steps=[0.5, 0.7], blocks=(0, 1)), IMAGE),
}


def values_on(domain: Domain, dtype: torch.dtype) -> Tensor:
    if isinstance(domain, Grid):
        return seeded(2, 2, *domain.sizes, dtype=dtype)
    nodes = domain.grid.sizes if isinstance(domain, Product) else ()
    return seeded(domain.points.count if isinstance(domain, Product) else domain.count, 2, *nodes, dtype=dtype)


def answers(module: nn.Module, values: Tensor, domain: Domain) -> dict[str, Tensor]:
    """Output and gradients, brought to the CPU."""
    values = values.clone().requires_grad_()
    output = module(values, domain)
    names, parameters = zip(*module.named_parameters(), strict=True)
    gradients = torch.autograd.grad(output.float().square().sum(), [values, *parameters])
    found = {"output": output.detach(), **dict(zip(("values", *names), gradients, strict=True))}
    return {name: one.cpu() for name, one in found.items()}


@pytest.mark.parametrize("name", CASES)
def test_answers_as_on_the_cpu(name: str) -> None:
    make, domain = CASES[name]
    torch.manual_seed(0)
    module, values = make().double().eval(), values_on(domain, torch.float64)
    expected = answers(module, values, domain)
    assert_all_close(
        answers(copy.deepcopy(module).to(DEVICE), values.to(DEVICE), there(domain)), expected, factor=FACTOR
    )


@pytest.mark.parametrize("name", ["sequence, causal", "image", "clouds", "ragged series, latent grid"])
def test_autocast_stays_near_single_precision(name: str) -> None:
    """Convolutions stay in float32; the mixes around them are of eight bits."""
    make, domain = CASES[name]
    torch.manual_seed(0)
    module, values = make().eval().to(DEVICE), values_on(domain, torch.float32).to(DEVICE)
    expected = answers(module, values, there(domain))
    with torch.autocast(DEVICE.type, torch.bfloat16):
        found = answers(module, values, there(domain))
    assert float((found["output"].float() - expected["output"]).norm() / expected["output"].norm()) < 0.05
    for gradient in found.values():
        assert bool(torch.isfinite(gradient).all())


@pytest.mark.parametrize("name", ["sequence, causal", "image", "clouds"])
def test_training_takes_the_same_steps(name: str) -> None:
    make, domain = CASES[name]
    losses = {}
    for device in (torch.device("cpu"), DEVICE):
        torch.manual_seed(0)
        module = make().double().train()
        module = module.to(device)
        values = values_on(domain, torch.float64).to(device)
        source = domain if isinstance(domain, Grid) or device.type == "cpu" else there(domain)
        optimiser = torch.optim.SGD(module.parameters(), 1e-3)  # Adam would enlarge what is zero up to rounding
        losses[device] = []
        for _ in range(4):
            optimiser.zero_grad()
            loss = module(values, source).square().mean()
            loss.backward()
            optimiser.step()
            losses[device].append(loss.item())
    assert losses[DEVICE] == pytest.approx(losses[torch.device("cpu")], rel=1e-6)


def test_clouds_by_the_layer_of_torch_geometric() -> None:
    torch.manual_seed(0)
    layer = CCNNConv(2, 4, kernel=replace(CLOUD_KERNEL, width=0.15)).double()
    values, batch = seeded(60, 2), CLOUD.sample_index()
    expected = layer(values, CLOUD.coordinates, batch)
    found = layer.to(DEVICE)(values.to(DEVICE), CLOUD.coordinates.to(DEVICE), batch.to(DEVICE))
    assert_all_close({"result": found.cpu()}, {"result": expected}, factor=FACTOR)
