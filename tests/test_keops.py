"""KeOps: every generator and mask, parts of channels, and gradients that need no formula of their own."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest
import torch
from contract_cases import compare_keops, requires_compiler, run, run_keops, seeded, small_kernel, uniform
from tested_device import convolve
from torch import Tensor
from torch.func import functional_call

from ccnn_irregular import MLP, SIREN, GaussianMask, Kernel, MAGNet, Points, RandomFourier
from ccnn_irregular.kernels import Generator, Mask
from ccnn_irregular.operators.engines import keops
from ccnn_irregular.operators.planning import measure
from ccnn_irregular.operators.planning.rates import DEFAULT_RATES
from ccnn_irregular.testing import assert_all_close, assert_close

pytestmark = requires_compiler

CASES: dict[str, tuple[Callable[[], Generator], Callable[[], Mask | None]]] = {
    "random_fourier, mean": (
        lambda: RandomFourier(2, 2, hidden=4, omega_0=0.5),
        lambda: GaussianMask((0.6, 0.7), mean=(0.2, -0.3)),
    ),
    "mlp, cropped": (lambda: MLP(2, 2, hidden=3), lambda: GaussianMask((0.5, 0.6), 0.1, mean=(0.1, 0.2), smooth=False)),
    "magnet, no mask": (lambda: MAGNet(2, 2, hidden=3, layers=2, omega_0=0.05, spread=0.7), lambda: None),
}


def clouds(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Points, Points]:
    """Values, 11 sources and 7 queries in the unit square, all of which ask for gradients."""
    source = Points(uniform(11, 2, seed=1).requires_grad_(), uniform(11, low=0.2, seed=2).requires_grad_())
    query = Points(uniform(7, 2, seed=3).requires_grad_())
    return seeded(11, 2, dtype=dtype, requires_grad=True), source, query


@pytest.fixture
def reductions(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each KeOps reduction since was a transposed one."""
    calls: list[bool] = []
    reduce = keops._reduce

    def counted(problem: keops._Problem, values: Tensor) -> Tensor:
        calls.append(problem.transposed)
        return reduce(problem, values)

    monkeypatch.setattr(keops, "_reduce", counted)
    return calls


@pytest.mark.parametrize("case", CASES)
def test_generators_and_masks(monkeypatch: pytest.MonkeyPatch, reductions: list[bool], case: str) -> None:
    torch.manual_seed(0)
    generator, mask = CASES[case]
    kernel = Kernel(generator(), mask(), extent=[1.0, 1.0]).to(torch.float64)
    values, source, query = clouds()
    compare_keops(monkeypatch, kernel, values, source, query)
    # However many tensors are trained, KeOps multiplies by the matrix and by its transpose, no more.
    assert reductions == [False, True]
    # The values' gradient alone, and the kernel's alone.
    only = next(iter(dict(kernel.named_parameters())))
    compare_keops(monkeypatch, kernel, values, source, query, ["values"])
    compare_keops(monkeypatch, kernel.requires_grad_(), values.detach(), source, query, [only])
    assert reductions[2:] == [False, True, False]


def test_single_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    generator, mask = CASES["random_fourier, mean"]
    kernel = Kernel(generator(), mask(), extent=[1.0, 1.0])
    values, source, query = clouds(torch.float32)
    actual = run_keops(monkeypatch, kernel, values, source, query)
    expected = run(kernel, values, source, query, "reference")
    assert actual["output"].dtype == actual["gradient of mask.shift"].dtype == torch.float32
    # Coordinates are float64 whatever the values are.
    assert_all_close(*({key: one.float() for key, one in side.items()} for side in (actual, expected)))


def test_parts_of_channels_equal_the_whole(monkeypatch: pytest.MonkeyPatch, reductions: list[bool]) -> None:
    monkeypatch.setattr(keops, "_MOST_VALUES", 2)
    _, source, query = clouds()
    depthwise = small_kernel(2, channels=4)
    compare_keops(monkeypatch, depthwise, seeded(11, 4, requires_grad=True), source, query)
    assert reductions == [False, False, True, True]
    # One output channel of two input channels at a time, and the transpose alike.
    del reductions[:]
    full = small_kernel(2, shape=(2, 4))
    compare_keops(monkeypatch, full, seeded(11, 4, requires_grad=True), source, query)
    assert reductions == [False] * 4 + [True] * 4


def test_computed_weights_are_not_cut_into_parts(monkeypatch: pytest.MonkeyPatch, reductions: list[bool]) -> None:
    monkeypatch.setattr(keops, "_MOST_VALUES", 2)
    kernel = small_kernel(2, channels=4)
    torch.nn.utils.parametrizations.weight_norm(kernel.generator.output)
    _, source, query = clouds()
    names = ["generator._output.parametrizations.weight.original0", "mask.log_scale"]
    compare_keops(monkeypatch, kernel, seeded(11, 4), source, query, names)
    assert reductions == [False]


def test_wide_kernels_run() -> None:
    torch.manual_seed(0)
    kernel = Kernel(SIREN(2, 140, hidden=64), GaussianMask((0.5, 0.5)), extent=[1.0, 1.0]).to(torch.float64)
    _, source, query = clouds()
    values = seeded(11, 140)
    names = ["generator.linears.1.weight", "generator._output.weight", "generator._output.bias"]
    actual, expected = (run(kernel, values, source, query, engine, names) for engine in ("keops", "reference"))
    assert_all_close(actual, expected)


def test_second_derivatives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a penalty on the gradients; formulas and sizes are those of the tests above."""
    monkeypatch.setattr(keops, "_MOST_VALUES", 2)
    kernel = small_kernel(2, channels=4)
    _, source, query = clouds()
    values = seeded(11, 4, requires_grad=True)
    leaves = {
        "values": values,
        "weights": source.weights,
        "sources": source.coordinates,
        "queries": query.coordinates,
        **dict(kernel.named_parameters()),
    }

    def penalty(engine: str) -> dict[str, Tensor]:
        output = convolve(kernel, values, source, query, engine=engine)  # type: ignore[arg-type]
        first = torch.autograd.grad(output, list(leaves.values()), seeded(*output.shape, seed=9), create_graph=True)
        second = torch.autograd.grad(sum(one.square().sum() for one in first), list(leaves.values()))
        return dict(zip(leaves, second, strict=True))

    assert_all_close(penalty("keops"), penalty("reference"), factor=10)


def test_gradients_are_those_of_the_parameters_at_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where others stand in for the kernel's own during the forward pass, or are changed in between."""
    monkeypatch.setattr(keops, "_MOST_VALUES", 2)
    kernel = small_kernel(2, channels=4)
    _, source, query = clouds()
    values = seeded(11, 4)
    others = {name: (one.detach() * 0.9).requires_grad_() for name, one in kernel.named_parameters()}

    class Layer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel = kernel

        def forward(self) -> Tensor:
            return convolve(self.kernel, values, source, query, engine="keops")

    output = functional_call(Layer(), {f"kernel.{name}": one for name, one in others.items()}, ())
    gradients = torch.autograd.grad(output.square().sum(), list(others.values()))
    twin = small_kernel(2, channels=4)
    twin.load_state_dict({**kernel.state_dict(), **others})
    expected = convolve(twin, values, source, query, engine="reference")
    assert_close(output, expected)
    for one, other in zip(
        gradients, torch.autograd.grad(expected.square().sum(), list(twin.parameters())), strict=True
    ):
        assert_close(one, other, factor=10)
    output = convolve(kernel, values, source, query, engine="keops")
    with torch.no_grad():
        kernel.generator.output.weight.mul_(2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


def test_where_keops_fails_its_rates_stay_the_default_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that ends without a word, as where its compiler does not go with the machine's CUDA."""
    ended = subprocess.CompletedProcess([], -11, "", "")
    monkeypatch.setattr(measure, "compiler", lambda: "c++")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: ended)
    with pytest.warns(UserWarning, match=r"KeOps could not be measured, .* its process ended with -11"):
        assert measure._keops(torch.device("cpu"), DEFAULT_RATES) == DEFAULT_RATES
