"""Several threads share one layer: nothing writes to it in forward or backward, and each thread gets its own answer."""

from __future__ import annotations

import copy
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from contract_cases import requires_compiler, seeded, uniform
from torch import Tensor, nn

import ccnn_irregular.adapters.xarray  # noqa: F401  # registers the accessor
import ccnn_irregular.operators.engines.keops as keops
from ccnn_irregular import (
    CCNN,
    SIREN,
    ContinuousConv,
    GaussianMask,
    Grid,
    Kernel,
    KernelSpec,
    MAGNet,
    Points,
    Product,
    Solver,
    convolve,
)
from ccnn_irregular.domains import Domain
from ccnn_irregular.kernels import with_tensors
from ccnn_irregular.operators.engines import reference
from ccnn_irregular.testing import assert_close

THREADS, CALLS = 4, 6
GRID = Grid([14], [0.3])
POINTS = Points(uniform(14, 1, high=4.0, seed=1), uniform(14, low=0.2, seed=2), torch.tensor([0, 6, 14]))
PRODUCT = Product(Points(uniform(5, 1, high=4.0, seed=3)), Grid([3], [0.5]))


def shaped_kernel(d: int, shape: tuple[int] | tuple[int, int], generator: type[SIREN | MAGNet] = SIREN) -> Kernel:
    torch.manual_seed(0)
    count = shape[0] if len(shape) == 1 else shape[0] * shape[1]
    return Kernel(generator(d, count, hidden=4), GaussianMask([0.7] * d), extent=[2.0] * d, shape=shape).double()


def grouped(d: int, engine: str) -> ContinuousConv:
    return ContinuousConv(shaped_kernel(d, (6, 2)), groups=2, solver=Solver(engine)).double()  # type: ignore[arg-type]


def multiplied(d: int, engine: str) -> ContinuousConv:
    """As many groups as channels."""
    return ContinuousConv(shaped_kernel(d, (8, 1)), groups=4, solver=Solver(engine)).double()  # type: ignore[arg-type]


def depthwise(d: int, engine: str) -> ContinuousConv:
    return ContinuousConv(shaped_kernel(d, (4,), MAGNet), solver=Solver(engine)).double()  # type: ignore[arg-type]


def weight_normed(d: int, engine: str) -> ContinuousConv:
    layer = depthwise(d, engine)
    nn.utils.parametrizations.weight_norm(layer.kernel.generator.output)
    return layer


class ReadOnly(dict[str, Any]):
    """A dictionary of a module that nobody may write to."""

    def _refuse(self, *_: object, **__: object) -> None:
        raise AssertionError("a shared module was written to")

    __setitem__ = __delitem__ = update = pop = setdefault = clear = __ior__ = _refuse  # type: ignore[assignment]


@contextmanager
def guarded(module: nn.Module) -> Iterator[None]:
    """No parameter, buffer, submodule or attribute of the module or of any below it may be set."""
    shared = {id(one) for one in module.modules()}
    original = nn.Module.__setattr__

    def guard(self: nn.Module, name: str, value: object) -> None:
        assert id(self) not in shared, f"{type(self).__name__}.{name} was set"
        original(self, name, value)

    plain = [
        (one, name, vars(one)[name]) for one in module.modules() for name in ("_parameters", "_buffers", "_modules")
    ]
    for one, name, held in plain:
        vars(one)[name] = ReadOnly(held)
    nn.Module.__setattr__ = guard  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.__setattr__ = original  # type: ignore[method-assign]
        for one, name, held in plain:
            vars(one)[name] = held


def values_on(domain: Domain, channels: int, seed: int = 0) -> Tensor:
    if isinstance(domain, Grid):
        return seeded(2, channels, *domain.sizes, seed=seed)
    if isinstance(domain, Product):
        return seeded(domain.points.count, channels, *domain.grid.sizes, seed=seed)
    return seeded(domain.count, channels, seed=seed)


CASES = [
    (GRID, "fft"),
    (GRID, "reference"),
    (POINTS, "reference"),
    (POINTS, "neighbours"),
    (POINTS, "spectral"),
    (PRODUCT, "spectral"),
    (PRODUCT, "auto"),
]


@pytest.mark.parametrize("make", [grouped, multiplied, depthwise, weight_normed], ids=lambda make: make.__name__)
@pytest.mark.parametrize(
    ("domain", "engine"), CASES, ids=lambda one: one if isinstance(one, str) else type(one).__name__
)
def test_nothing_is_written_to_a_shared_layer(
    domain: Domain, engine: str, make: Callable[[int, str], ContinuousConv], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "_PAIRS_PER_BLOCK", 8)  # several blocks
    layer = make(domain.d, engine)
    values = values_on(domain, layer.in_channels).requires_grad_()
    with guarded(layer):
        result = layer(values, domain)
        result.square().sum().backward()
    assert all(bool(one.grad.isfinite().all()) for one in [values, *layer.parameters()])
    assert float(layer.kernel.mask.log_scale.grad.abs().min()) > 0  # type: ignore[union-attr]


def test_a_network_writes_nothing_in_evaluation() -> None:
    network = CCNN(
        2, 4, 3, kernel=KernelSpec(extent=[2.0], width=[0.5], omega_0=5.0, hidden=4), blocks=2, head="dense"
    ).eval()
    with guarded(network):
        network(values_on(POINTS, 2).float(), POINTS).sum().backward()


@pytest.mark.parametrize("engine", ["reference", "neighbours"])
def test_gradients_are_those_of_the_parameters_at_the_time_of_the_call(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backward pass evaluates the kernel anew, when the layer may hold other tensors."""
    monkeypatch.setattr(reference, "_PAIRS_PER_BLOCK", 8)
    layer, other = depthwise(1, engine), depthwise(1, engine)
    with torch.no_grad():
        for one in other.parameters():
            one.mul_(1.1)
    wanted = torch.autograd.grad(other(values_on(POINTS, 4), POINTS).square().sum(), list(other.parameters()))
    given = dict(other.named_parameters())
    result = torch.func.functional_call(layer, given, (values_on(POINTS, 4), POINTS))
    found = torch.autograd.grad(result.square().sum(), list(given.values()))
    for one, right in zip(found, wanted, strict=True):
        assert_close(one, right)


def test_twins_share_what_is_not_replaced() -> None:
    torch.manual_seed(0)
    shared = nn.Linear(2, 2)
    module = nn.Sequential(shared, nn.Sequential(shared, nn.BatchNorm1d(2)))
    weight = torch.ones(2, 2)
    twin = with_tensors(module, {"0.weight": weight})
    assert twin[0].weight is weight
    assert twin[1][0].weight is weight, "a parameter is replaced under all of its names"
    assert twin[0].bias is shared.bias
    assert twin[1][1].running_mean is module[1][1].running_mean
    assert type(shared.weight) is nn.Parameter
    assert module[1][0] is shared


def in_threads(call: Callable[[int], Tensor], wanted: list[Tensor]) -> None:
    """Each of several threads calls several times, with switches between them as often as can be."""
    start, failures = threading.Barrier(THREADS), []

    def work(number: int) -> None:
        start.wait()
        for _ in range(CALLS):
            try:
                assert_close(call(number), wanted[number], factor=100)
            except Exception as error:
                failures.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not failures


@pytest.mark.parametrize(
    ("domain", "engine"),
    [(GRID, "fft"), (POINTS, "reference"), (POINTS, "spectral")],
    ids=["fft", "reference", "spectral"],
)
def test_threads_that_share_a_grouped_layer_get_their_own_answers(domain: Domain, engine: str) -> None:
    layer = grouped(1, engine)
    before = {name: (id(one), one.detach().clone()) for name, one in layer.named_parameters()}
    given = [values_on(domain, 4, seed=number) for number in range(THREADS)]
    wanted = [copy.deepcopy(layer)(values, domain).detach() for values in given]
    in_threads(lambda number: layer(given[number], domain).detach(), wanted)
    for name, one in layer.named_parameters():
        assert id(one) == before[name][0]
        assert torch.equal(one, before[name][1])


@requires_compiler
def test_threads_share_one_compiled_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    """KeOps keeps the addresses of its arguments on the formula, which all layers of one shape share."""
    monkeypatch.setattr(keops, "_MOST_VALUES", 2)  # in parts, as kernels of more than 64 values are
    kernel = shaped_kernel(1, (4,), SIREN)
    given = [values_on(POINTS, 4, seed=number) for number in range(THREADS)]
    wanted = [convolve(kernel, values, POINTS, engine="reference").detach() for values in given]
    with guarded(kernel):
        in_threads(lambda number: convolve(kernel, given[number], POINTS, engine="keops").detach(), wanted)


def test_a_lazy_array_is_convolved_by_many_threads() -> None:
    dask = pytest.importorskip("dask")
    values = np.random.default_rng(0).standard_normal((6, 4, 40))
    coordinates = {"time": ("time", np.arange(40.0) * 0.3, {"axis": "T", "units": "days"})}
    array = xr.DataArray(values, coordinates, ("member", "channel", "time"))
    layer = grouped(1, "auto").requires_grad_(False)
    wanted = array.ccnn(samples="member", channels="channel").convolve(layer)
    lazy = array.chunk(member=1, time=10).ccnn(samples="member", channels="channel").convolve(layer)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with dask.config.set(scheduler="threads", num_workers=THREADS):
            found = lazy.compute()
    finally:
        sys.setswitchinterval(interval)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-9 * float(np.abs(wanted).max()))
