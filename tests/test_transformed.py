"""torch's function transforms, forward mode and the meta device: right where they are taken, else one sentence."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from contract_cases import seeded, uniform
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vmap

from ccnn_irregular import (
    CCNN,
    SIREN,
    ContinuousConv,
    GaussianMask,
    Grid,
    Kernel,
    KernelSpec,
    Points,
    Product,
    SeparableContinuousConv,
    Solver,
    convolve,
    make_plan,
)
from ccnn_irregular.adapters.geometric import CLOUD_KERNEL
from ccnn_irregular.adapters.geometric_networks import CloudCCNN
from ccnn_irregular.domains import Domain
from ccnn_irregular.kernels.taps import conv_kernel, dilated
from ccnn_irregular.layers import BatchNorm
from ccnn_irregular.networks_unet import ContinuousUNet
from ccnn_irregular.testing import assert_close

GRID = Grid((5, 4), (0.5, 0.7))
POINTS = Points(uniform(9, 2, high=2.0, seed=1), uniform(9, low=0.1, seed=2), torch.tensor([0, 4, 9]))
PRODUCT = Product(Points(uniform(4, 1, high=2.0, seed=3)), Grid((4,), (0.7,)))
SHAPES: dict[str, tuple[tuple[int] | tuple[int, int], int]] = {
    "depthwise": ((2,), 1),
    "full": ((3, 2), 1),
    "grouped": ((4, 1), 2),
}
TAKEN = [
    (GRID, "fft"),
    (GRID, "auto"),
    (POINTS, "reference"),
    (POINTS, "neighbours"),
    (POINTS, "auto"),
    (PRODUCT, "neighbours"),
]


def name_of(one: object) -> str:
    return one if isinstance(one, str) else type(one).__name__


taken = pytest.mark.parametrize(("domain", "engine"), TAKEN, ids=name_of)
kinds = pytest.mark.parametrize("kind", SHAPES)


def layer_of(kind: str, engine: str) -> ContinuousConv:
    torch.manual_seed(0)
    shape, groups = SHAPES[kind]
    count = shape[0] if len(shape) == 1 else shape[0] * shape[1]
    kernel = Kernel(SIREN(2, count, hidden=4), GaussianMask([1.0, 0.8]), extent=[3.0, 3.0], shape=shape)
    return ContinuousConv(kernel, groups=groups, solver=Solver(engine)).double()  # type: ignore[arg-type]


def values_on(domain: Domain, seed: int = 0) -> Tensor:
    if isinstance(domain, Grid):
        return seeded(2, 2, *domain.sizes, seed=seed)
    if isinstance(domain, Product):
        return seeded(domain.points.count, 2, *domain.grid.sizes, seed=seed)
    return seeded(domain.count, 2, seed=seed)


def tensors(layer: nn.Module) -> dict[str, Tensor]:
    return {name: one.detach() for name, one in layer.named_parameters()}


@kinds
@taken
def test_grad_of_parameters_is_that_of_autograd(domain: Domain, engine: str, kind: str) -> None:
    layer, values = layer_of(kind, engine), values_on(domain)
    found = grad(lambda given: functional_call(layer, given, (values, domain)).square().sum())(tensors(layer))
    layer_of(kind, "reference")
    layer(values, domain).square().sum().backward()
    for name, one in layer.named_parameters():
        assert_close(found[name], one.grad)


@kinds
@taken
def test_jvp_of_values_is_the_convolution_of_the_tangent(domain: Domain, engine: str, kind: str) -> None:
    """A convolution is linear: its derivative along a tangent is the convolution of the tangent."""
    layer = layer_of(kind, engine)
    values, tangent = values_on(domain), values_on(domain, seed=1)
    wanted = layer(tangent, domain) - layer(torch.zeros_like(tangent), domain)
    result, along = jvp(lambda given: layer(given, domain), (values,), (tangent,))
    assert_close(along.detach(), wanted.detach())
    assert_close(result.detach(), layer(values, domain).detach())
    with forward_ad.dual_level():
        dual = layer(forward_ad.make_dual(values, tangent), domain)
        assert_close(forward_ad.unpack_dual(dual).tangent.detach(), wanted.detach())


@kinds
@taken
def test_vmap_is_one_call_after_the_other(domain: Domain, engine: str, kind: str) -> None:
    layer = layer_of(kind, engine)
    several = torch.stack([values_on(domain, seed=seed) for seed in range(3)])
    wanted = torch.stack([layer(one, domain) for one in several])
    assert_close(vmap(lambda given: layer(given, domain))(several).detach(), wanted.detach())

    def loss(given: dict[str, Tensor], values: Tensor) -> Tensor:
        return functional_call(layer, given, (values, domain)).square().sum()

    each = vmap(grad(loss), in_dims=(None, 0))(tensors(layer), several)
    last = grad(loss)(tensors(layer), several[2])
    for name, one in last.items():
        assert_close(each[name][2], one)


@taken
def test_jacobian_and_hessian(domain: Domain, engine: str) -> None:
    layer, values = layer_of("full", engine), values_on(domain)
    jacobian = jacrev(lambda given: layer(given, domain))(values)
    assert_close(jacfwd(lambda given: layer(given, domain))(values).detach(), jacobian.detach())
    matrix = jacobian.detach().reshape(-1, values.numel())
    curvature = hessian(lambda given: layer(given, domain).square().sum())(values).detach()
    assert_close(curvature.reshape(values.numel(), -1), 2 * matrix.T @ matrix)


@pytest.mark.parametrize("engine", ["reference", "neighbours"])
def test_derivatives_by_coordinates(engine: str) -> None:
    layer, values = layer_of("full", engine), values_on(POINTS)

    def total(places: Tensor) -> Tensor:
        return layer(values, Points(places, POINTS.weights, POINTS.splits)).square().sum()

    places = POINTS.coordinates.clone().requires_grad_()
    total(places).backward()
    assert_close(grad(total)(POINTS.coordinates), places.grad)
    tangent = seeded(9, 2, seed=4)
    assert_close(jvp(total, (POINTS.coordinates,), (tangent,))[1].detach(), (places.grad * tangent).sum())


@pytest.mark.parametrize("engine", ["reference", "auto"])
@pytest.mark.parametrize("domain", [GRID, POINTS], ids=name_of)
def test_an_ensemble_of_kernels(domain: Domain, engine: str) -> None:
    layer, values = layer_of("depthwise", engine), values_on(domain)
    several = {name: torch.stack([one, 1.1 * one, 0.9 * one]) for name, one in tensors(layer).items()}
    found = vmap(lambda given: functional_call(layer, given, (values, domain)))(several)
    wanted = functional_call(layer, {name: one[1] for name, one in several.items()}, (values, domain))
    assert_close(found[1].detach(), wanted.detach())


@pytest.mark.parametrize("head", ["classify", "dense"])
@pytest.mark.parametrize("domain", [GRID, POINTS], ids=name_of)
def test_networks_in_evaluation_mode(domain: Domain, head: str) -> None:
    torch.manual_seed(0)
    network = CCNN(
        2, 4, 3, kernel=KernelSpec(extent=[2.0, 2.0], width=[0.7, 0.7], omega_0=5.0, hidden=4), blocks=1, head=head
    )
    network = network.double().eval()
    values = values_on(domain)
    found = grad(lambda given: functional_call(network, given, (values, domain)).square().sum())(tensors(network))
    network(values, domain).square().sum().backward()
    for name, one in network.named_parameters():
        assert_close(found[name], one.grad, factor=100)


# ---- what is refused ----

TRANSFORMS: dict[str, Callable[[Callable[[Tensor], Tensor], Tensor], Any]] = {
    "grad": lambda call, values: grad(lambda given: call(given).sum())(values),
    "jvp": lambda call, values: jvp(call, (values,), (values,)),
    "vmap": lambda call, values: vmap(call)(values[None]),
}


def in_forward_mode(call: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
    with forward_ad.dual_level():
        return call(forward_ad.make_dual(values, values))


@pytest.mark.parametrize("transform", [*TRANSFORMS.values(), in_forward_mode], ids=[*TRANSFORMS, "forward mode"])
@pytest.mark.parametrize("engine", ["spectral", "keops"])
def test_other_engines_are_refused_in_one_sentence(
    engine: str, transform: Callable[[Callable[[Tensor], Tensor], Tensor], Any]
) -> None:
    rule = (
        "engine must be one of 'auto', 'reference', 'neighbours', 'fft' under torch.func and forward-mode "
        f"differentiation, which take tensor operations alone, got '{engine}'"
    )
    layer, values = layer_of("depthwise", engine), values_on(POINTS)
    plan = make_plan(layer.kernel, POINTS, engine=engine)
    for call in (
        lambda given: layer(given, POINTS),
        lambda given: convolve(layer.kernel, given, POINTS, engine=engine),
        lambda given: convolve(layer.kernel, given, POINTS, plan=plan),
    ):
        with pytest.raises(ValueError, match=re.escape(rule)):
            transform(call, values)


def test_batches_of_what_decides_are_refused() -> None:
    values = values_on(POINTS)
    places = POINTS.coordinates[None].repeat(2, 1, 1)
    layer = layer_of("depthwise", "auto")
    with pytest.raises(ValueError, match=r"coordinates must be no tensor that torch\.func\.vmap runs over"):
        vmap(lambda given: layer(values, Points(given)))(places)
    layer = layer_of("depthwise", "neighbours")
    several = {name: torch.stack([one, one]) for name, one in tensors(layer).items()}
    with pytest.raises(ValueError, match=r"engine must be 'reference' where torch\.func\.vmap runs over kernels"):
        vmap(lambda given: functional_call(layer, given, (values, POINTS)))(several)


@pytest.mark.parametrize("domain", [GRID, POINTS], ids=name_of)
def test_batch_norm_in_training_is_refused(domain: Domain) -> None:
    norm = BatchNorm(2).double()
    rule = "BatchNorm must be in evaluation mode, or an InstanceNorm, under torch.func"
    with pytest.raises(ValueError, match=re.escape(rule)):
        grad(lambda given: norm(given, domain).square().sum())(values_on(domain))
    assert int(norm.num_batches_tracked) == 0


# ---- the meta device ----

ON_META: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module], Tensor]]] = {
    **{
        generator: (
            lambda generator=generator: SeparableContinuousConv(  # type: ignore[misc]
                KernelSpec(extent=[3.1], width=[0.7], omega_0=5.0, generator=generator, learned_mean=True)(2), 3
            ),
            lambda layer: layer(torch.ones(1, 2, 9), Grid((9,), (0.3,))),
        )
        for generator in ("siren", "magnet", "mlp", "random_fourier")
    },
    "table": (
        lambda: ContinuousConv(conv_kernel(torch.ones(2, 1, 3), [0.1])),
        lambda layer: layer(torch.ones(1, 1, 9), Grid((9,), (0.1,))),
    ),
    "dilated": (
        lambda: ContinuousConv(dilated(Kernel(SIREN(1, 2), GaussianMask([0.1]), extent=[0.3]), 2.0)),
        lambda layer: layer(torch.ones(1, 2, 9), Grid((9,), (0.1,))),
    ),
    "CCNN": (
        lambda: CCNN(1, 4, 2, kernel=KernelSpec(extent=[3.1], width=[0.7], omega_0=5.0), blocks=1),
        lambda network: network(torch.ones(1, 1, 9), Grid((9,), (0.3,))),
    ),
    "ContinuousUNet": (
        lambda: ContinuousUNet(1, 2, channels=(2, 3), blocks=(0, 1), steps=[0.4, 0.4]),
        lambda network: network(seeded(1, 1, 8, 6).float(), Grid((8, 6), (0.4, 0.4))),
    ),
    "CloudCCNN": (
        lambda: CloudCCNN(
            1,
            2,
            kernel=replace(CLOUD_KERNEL, isotropic=True),
            channels=(3, 4),
            spacing=0.3,
        ),
        lambda network: network(None, uniform(40, 3).float()),
    ),
}


@pytest.mark.parametrize(("make", "call"), ON_META.values(), ids=ON_META.keys())
def test_built_on_the_meta_device(make: Callable[[], nn.Module], call: Callable[[nn.Module], Tensor]) -> None:
    torch.manual_seed(0)
    usual = make().eval()
    with torch.device("meta"):
        empty = make().eval()
    assert all(one.is_meta for one in empty.parameters())
    with pytest.raises(
        ValueError, match=r"kernel must have numbers: give the module memory by to_empty\(device=\.\.\.\)"
    ):
        call(empty)
    filled = empty.to_empty(device="cpu")
    filled.load_state_dict(usual.state_dict())
    assert torch.equal(call(filled), call(usual))


def test_points_on_the_meta_device_are_refused() -> None:
    with pytest.raises(ValueError, match=r"coordinates must have numbers, which tensors on the meta device have not"):
        Points(torch.zeros(3, 2, device="meta"))
