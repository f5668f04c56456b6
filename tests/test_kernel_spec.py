"""Recipes of kernels: what they build, how they are written, and what they refuse."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch
from contract_cases import seeded
from hypothesis import given
from hypothesis import strategies as st
from jsonargparse import ArgumentParser
from torch import Tensor, nn

from ccnn_irregular import CCNN, MLP, SIREN, GaussianMask, Grid, Kernel, KernelSpec, MAGNet, RandomFourier, Solver
from ccnn_irregular.adapters.geometric import CLOUD_KERNEL, CCNNConv
from ccnn_irregular.kernels import GENERATORS, MASKS
from ccnn_irregular.kernels.isotropic import Isotropic, RadialMask
from ccnn_irregular.networks import PUBLISHED_KERNEL, ccnn_4_110, ccnn_6_380
from ccnn_irregular.networks_unet import UNET_KERNEL, ContinuousUNet
from ccnn_irregular.testing import assert_close


def assert_same(one: nn.Module, other: nn.Module) -> None:
    """Equal parameters and buffers, under equal names."""
    left, right = one.state_dict(), other.state_dict()
    assert list(left) == list(right)
    assert all(torch.equal(left[name], right[name]) for name in left)


def by_hand(spec: KernelSpec, network: Callable[[int], Any], mask: Any) -> Kernel:
    torch.manual_seed(0)
    assert isinstance(spec.extent, tuple)
    return Kernel(network(6), mask, extent=spec.extent, causal_axes=(0,) if spec.causal else ())


def test_the_parts_are_those_that_are_named() -> None:
    extent, width = (2.0, 4.0), (0.4, 1.0)
    spread = 1.667 * 0.25  # the wider mask's, in extents
    smooth = GaussianMask(width)
    cases: list[tuple[dict[str, Any], Callable[[int], Any], Any]] = [
        ({}, lambda n: MAGNet(2, n, 32, omega_0=100.0, spread=spread), smooth),
        ({"causal": True}, lambda n: MAGNet(2, n, 32, omega_0=100.0, spread=spread, one_sided=True), smooth),
        ({"generator": "siren", "omega_0": 3.0}, lambda n: SIREN(2, n, 32, omega_0=3.0), smooth),
        ({"generator": "mlp", "omega_0": 3.0, "hidden": 8}, lambda n: MLP(2, n, 8, omega_0=3.0), smooth),
        (
            {"generator": "random_fourier", "omega_0": 3.0, "mask": "none"},
            lambda n: RandomFourier(2, n, 32, omega_0=3.0),
            None,
        ),
        (
            {"generator": "siren", "mask": "cropped"},
            lambda n: SIREN(2, n, 32, omega_0=100.0),
            GaussianMask(width, 0.1, smooth=False),
        ),
        (
            {"generator": "siren", "threshold": 0.05, "learned_mean": True},
            lambda n: SIREN(2, n, 32, omega_0=100.0),
            GaussianMask(width, 0.05, mean=(0.0, 0.0)),
        ),
    ]
    for options, network, mask in cases:
        spec = KernelSpec(extent, width, **options)
        torch.manual_seed(0)
        kernel = spec(6)
        expected = by_hand(spec, network, mask)
        assert type(kernel.generator) is type(expected.generator)
        assert_same(kernel, expected)
        assert kernel.causal_axes == expected.causal_axes
        offsets = torch.rand(50, 2) * 3 - 1
        assert torch.equal(kernel(offsets), expected(offsets))


@pytest.mark.parametrize("mask", [*MASKS, "none"])
@pytest.mark.parametrize("generator", GENERATORS)
def test_every_registered_part_can_be_named(generator: str, mask: str) -> None:
    kernel = KernelSpec([2.0, 2.0], [0.5, 0.5], omega_0=2.0, generator=generator, hidden=8, mask=mask)(3)
    values = kernel(torch.rand(20, 2))
    assert values.shape == (20, 3)
    assert bool(values.isfinite().all())
    assert type(kernel.generator) is GENERATORS[generator]


def test_a_mask_without_a_learned_centre_is_named() -> None:
    with pytest.raises(
        ValueError, match=r"kernel\.learned_mean must be False for mask 'radial', whose centre is no argument"
    ):
        KernelSpec(1.0, 0.5, mask="radial", learned_mean=True)(1)


def test_a_full_kernel_has_the_weights_of_a_depthwise_one_of_as_many_values() -> None:
    spec = KernelSpec([1.0], [0.2], generator="siren", omega_0=5.0)
    torch.manual_seed(0)
    full = spec(2, 3)
    torch.manual_seed(0)
    assert_same(full, spec(6))
    assert (full.shape, full.in_channels, full.out_channels) == ((3, 2), 2, 3)


def test_a_length_that_is_left_out_follows_from_the_other() -> None:
    kernel = KernelSpec(extent=[2.0, 4.0])(1)
    assert isinstance(kernel.mask, GaussianMask)
    assert kernel.mask.exact_numbers("initial_width") == pytest.approx([0.15, 0.3])
    kernel = KernelSpec(width=[0.2, 0.5], generator="siren")(1)
    torch.testing.assert_close(kernel.extent, kernel.support)
    assert kernel.extent.tolist() == pytest.approx(
        [0.2 * math.sqrt(2 * math.log(100)), 0.5 * math.sqrt(2 * math.log(100))]
    )
    with torch.device("meta"):
        assert KernelSpec(width=[0.2])(1).exact_numbers("extent") == pytest.approx([0.2 * math.sqrt(2 * math.log(100))])


def test_one_number_is_one_axis_or_as_many_as_asked_for() -> None:
    spec = KernelSpec(extent=2.0, width=0.5)
    assert spec(3).d == 1
    assert spec.on_axes(3) == replace(spec, extent=(2.0,) * 3, width=(0.5,) * 3)
    assert spec.on_axes(3)(4).d == 3
    assert spec.scaled([1.0, 10.0]) == replace(spec, extent=(2.0, 20.0), width=(0.5, 5.0))
    assert KernelSpec(width=0.5).scaled([2.0]).extent is None
    assert KernelSpec(np.float32(2.0), np.array([0.5])) == KernelSpec(2.0, (0.5,))  # type: ignore[arg-type]


@given(
    st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=4),
    st.floats(1e-6, 1e6),
    st.sampled_from(["magnet", "siren", "random_fourier", "mlp"]),
)
def test_a_recipe_is_a_value(lengths: list[float], width: float, generator: str) -> None:
    spec = KernelSpec(lengths, width, generator=generator)
    again = KernelSpec(**asdict(spec))
    assert again == spec
    assert hash(again) == hash(spec)
    assert pickle.loads(pickle.dumps(spec)) == spec
    d = len(lengths)
    assert spec.scaled([2.0] * d).scaled([0.5] * d) == spec.on_axes(d)


def test_an_isotropic_kernel_depends_on_the_distance_alone() -> None:
    kernel = replace(CLOUD_KERNEL, width=0.7, isotropic=True).on_axes(3)(2).double()
    assert isinstance(kernel.generator, Isotropic)
    assert isinstance(kernel.mask, RadialMask)
    turn = torch.linalg.qr(seeded(3, 3))[0]
    offsets = seeded(40, 3)
    assert_close(kernel(offsets @ turn).detach(), kernel(offsets).detach(), factor=1e3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"kernel\.extent must be given, or kernel\.width of a kernel with a mask, got None"),
        ({"width": 1.0, "mask": "none"}, r"kernel\.extent must be given"),
        ({"extent": 0.0}, r"kernel\.extent must be positive and finite, one number or one per axis, got 0\.0"),
        ({"extent": [1.0, math.nan]}, r"kernel\.extent must be positive and finite"),
        ({"extent": []}, r"kernel\.extent must be positive and finite"),
        ({"extent": 1.0, "width": [-1.0]}, r"kernel\.width must be positive and finite"),
        ({"extent": [1.0], "width": [1.0, 1.0]}, r"kernel\.width must have one entry per axis, as kernel\.extent"),
        ({"extent": 1.0, "generator": "wavelet"}, r"kernel\.generator must be one of .*'siren'.*, got 'wavelet'"),
        ({"extent": 1.0, "mask": "box"}, r"kernel\.mask must be .*'cropped'.*, got 'box'"),
        ({"extent": 1.0, "omega_0": 0.0}, r"kernel\.omega_0 must be positive, got 0\.0"),
        ({"extent": 1.0, "hidden": 0}, r"kernel\.hidden must be at least 1, got 0"),
        ({"extent": 1.0, "threshold": 1.0}, r"kernel\.threshold must lie between 0 and 1, got 1\.0"),
        ({"extent": 1.0, "mask": "none", "learned_mean": True}, r"kernel\.learned_mean must be False without a mask"),
        ({"extent": 1.0, "isotropic": True, "causal": True}, r"kernel\.causal must be False for isotropic kernels"),
        ({"extent": 1.0, "isotropic": True, "learned_mean": True}, r"kernel\.learned_mean must be False for isotropic"),
        (
            {"extent": 1.0, "isotropic": True, "mask": "cropped"},
            r"kernel\.mask must be 'smooth', 'radial' or 'none'",
        ),
        ({"width": [1.0, 2.0], "isotropic": True}, r"kernel\.width must be the same on all axes for isotropic kernels"),
    ],
)
def test_refusals_name_the_argument(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KernelSpec(**options)


def test_networks_refuse_other_numbers_of_axes() -> None:
    spec = KernelSpec([1.0, 1.0])
    cases: list[Callable[[], object]] = [
        lambda: spec.on_axes(1),
        lambda: CCNN(1, 4, 1, kernel=spec, latent=Grid([4], [1.0])),
        lambda: CCNNConv(1, 4, 3, kernel=spec),
        lambda: ccnn_4_110(3, kernel=spec),
        lambda: ContinuousUNet(1, 2, steps=[1.0, 1.0, 1.0], kernel=spec),
    ]
    for case in cases:
        with pytest.raises(
            ValueError, match=r"kernel\.extent must be one number or one per axis, [13], got \(1\.0, 1\.0\)"
        ):
            case()
    with pytest.raises(ValueError, match="channels must be at least 1, got 0"):
        spec(0)
    with pytest.raises(ValueError, match="out_channels must be at least 1, got 0"):
        spec(2, 0)


def test_published_recipes() -> None:
    assert PUBLISHED_KERNEL.omega_0 == 2976.49
    wide = next(iter(ccnn_6_380(2).kernels().values()))
    assert isinstance(wide.generator, MAGNet)
    assert wide.generator.output.in_features == 64
    assert UNET_KERNEL.extent == 3.0


# ---- from configurations ----


class Reader(nn.Module):
    """A network with a recipe of its own."""

    def __init__(
        self, kernel: KernelSpec = KernelSpec(24.0, 6.0, 10.0, "siren"), solver: Solver = Solver("fft")
    ) -> None:
        super().__init__()
        self.kernel, self.solver = kernel, solver


def read(options: dict[str, Any], *words: str) -> Reader:
    """The network of a configuration and typed words."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--network", type=nn.Module)
    given = {"network": {"class_path": f"{__name__}.Reader", "init_args": options}}
    parser.set_defaults(given)
    return parser.instantiate(parser.parse_args(list(words))).network


def test_a_configuration_states_what_differs_from_the_network() -> None:
    assert read({}).kernel == KernelSpec(24.0, 6.0, 10.0, "siren")
    assert read({"kernel": {"width": [3.0]}}).kernel == KernelSpec(24.0, [3.0], 10.0, "siren")
    both = read({"kernel": {"omega_0": 5, "extent": None}, "solver": {"rtol": 1e-4}})
    assert both.kernel == KernelSpec(None, 6.0, 5.0, "siren")
    assert both.solver == Solver("fft", 1e-4)


def test_single_keys_are_typed_on_the_command_line() -> None:
    word = "--network.init_args.kernel"
    found = read({"kernel": {"width": [3.0, 2.0]}}, f"{word}.omega_0", "20", f"{word}.causal", "true").kernel
    assert found == KernelSpec(24.0, (3.0, 2.0), 20.0, "siren", causal=True)
    assert read({}, f"{word}.extent", "[4, 5]").kernel.extent == (4.0, 5.0)


# ---- Kernel.replace and Kernel.sampled ----


def some_kernel() -> Kernel:
    torch.manual_seed(0)
    return Kernel(SIREN(2, 6), GaussianMask([0.3, 0.4]), extent=[0.1, 1.0], causal_axes=(0,), scale=1e30)


def test_a_replaced_kernel_shares_what_it_keeps() -> None:
    kernel = some_kernel()
    before = {name: tensor.clone() for name, tensor in kernel.state_dict().items()}
    offsets = torch.rand(30, 2)
    full = kernel.replace(shape=(3, 2))
    assert full.shape == (3, 2)
    assert {id(one) for one in full.parameters()} == {id(one) for one in kernel.parameters()}
    assert torch.equal(full(offsets), kernel(offsets).unflatten(1, (3, 2)))
    plain = kernel.replace(scale=1.0)
    assert torch.equal(plain(offsets), kernel.unscaled(offsets))
    mask = GaussianMask([0.1, 0.1])
    other = kernel.replace(mask=mask, extent=[0.2, 0.3])
    assert other.mask is mask
    assert other.generator is kernel.generator
    generator = MLP(2, 6)
    assert kernel.replace(generator=generator).generator is generator
    # Nothing was written to the kernel itself, and what is done to a twin's buffers stays there.
    other.double()
    assert float(other.extent[0]) == 0.2
    assert kernel.mask is not mask
    assert kernel.exact_numbers("extent") == (0.1, 1.0)
    assert all(torch.equal(before[name], one.to(before[name])) for name, one in kernel.state_dict().items())


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"shape": (4,)}, r"shape must be \(C,\) or \(D, C\) with product 6, got \(4,\)"),
        ({"mask": GaussianMask([1.0])}, "mask must have the generator's 2 axes, got 1"),
        ({"extent": [1.0]}, r"extent must have one entry per axis, 2, got \(1\.0,\)"),
        ({"extent": [1.0, 0.0]}, "extent must be positive and finite"),
        ({"generator": SIREN(1, 6)}, "extent must have one entry per axis, 1"),
    ],
)
def test_a_replaced_kernel_refuses_parts_that_disagree(parts: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        some_kernel().replace(**parts)


def test_sampled_kernels_are_the_kernel_at_every_combination() -> None:
    kernel = some_kernel().replace(shape=(3, 2))
    axes: list[Tensor] = [
        torch.linspace(-1, 1, 4, dtype=torch.float64),
        torch.tensor([0.0, 0.25, 0.7], dtype=torch.float64),
    ]
    found = kernel.sampled(axes)
    assert found.shape == (4, 3, 3, 2)
    for i, first in enumerate(axes[0]):
        for j, second in enumerate(axes[1]):
            offset = torch.stack([first, second]).to(kernel.dtype)
            torch.testing.assert_close(found[i, j], kernel.unscaled(offset), rtol=1e-4, atol=1e-6)
