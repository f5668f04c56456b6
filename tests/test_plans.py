"""What a plan was made for, and that it refuses everything else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from contract_cases import dense, equation, seeded, small_kernel, uniform
from torch import Tensor

from ccnn_irregular import (
    CCNN,
    ENGINES,
    SIREN,
    ContinuousConv,
    GaussianMask,
    Grid,
    Kernel,
    KernelSpec,
    Points,
    Product,
    Solver,
    convolve,
    explain,
    make_plan,
)
from ccnn_irregular.operators.check import worst_error
from ccnn_irregular.testing import assert_close

ENGINES_ON_POINTS = ["reference", "neighbours", "spectral"]
MOVED = r"plan must be made anew \(make_plan\) when the coordinates of its source change"


def kernel_of(d: int = 1, **options: Any) -> Kernel:
    return small_kernel(d, width=(0.1,) * d, **options).requires_grad_(False)


# ---- coordinates that move ----


def in_place(coordinates: Tensor) -> None:
    with torch.no_grad():
        coordinates += 0.1


def past_the_counter(coordinates: Tensor) -> None:
    coordinates.data.mul_(1.1)


def by_an_optimiser(fused: bool) -> Callable[[Tensor], None]:
    def move(coordinates: Tensor) -> None:
        optimiser = torch.optim.Adam([coordinates], lr=0.1, fused=fused)
        coordinates.square().sum().backward()
        optimiser.step()

    return move


WAYS = {
    "in place": in_place,
    ".data": past_the_counter,
    "Adam": by_an_optimiser(fused=False),
    "fused Adam": by_an_optimiser(fused=True),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("engine", ENGINES_ON_POINTS)
def test_a_plan_refuses_learned_coordinates_that_moved(engine: Any, way: str) -> None:
    kernel, values = kernel_of(), seeded(40, 2)
    coordinates = uniform(40, 1).requires_grad_()
    source = Points(coordinates)
    plan = make_plan(kernel, source, engine=engine)
    result = convolve(kernel, values, source, plan=plan)
    assert worst_error(result, equation(kernel, values, source, source), source, source) < 2e-3
    assert torch.autograd.grad(result.sum(), coordinates)[0].norm() > 0
    WAYS[way](coordinates)
    with pytest.raises(ValueError, match=MOVED):
        convolve(kernel, values, source, plan=plan)
    with pytest.raises(ValueError, match=MOVED):
        plan.check(kernel, values, result)
    # Without a plan, and with a new one, the points are where they are now.
    expected = dense(kernel, values, Points(coordinates.detach().clone()), source)
    for again in (None, make_plan(kernel, source, engine=engine)):
        result = convolve(kernel, values, source, engine=engine, plan=again)
        assert worst_error(result, expected, source, source) < 2e-3


@pytest.mark.parametrize("engine", ENGINES_ON_POINTS)
def test_a_plan_refuses_moved_queries_and_sources_without_gradients(engine: Any) -> None:
    kernel, values = kernel_of(), seeded(40, 2)
    source, query = Points(uniform(40, 1)), Points(uniform(9, 1, seed=1))
    plan = make_plan(kernel, source, query, engine=engine)
    query.coordinates[3] += 0.2
    with pytest.raises(ValueError, match=r"plan must be made anew .* coordinates of its query change"):
        convolve(kernel, values, source, query, plan=plan)
    plan = make_plan(kernel, source, query, engine=engine)
    source.coordinates = source.coordinates + 0.2
    with pytest.raises(ValueError, match=MOVED):
        convolve(kernel, values, source, query, plan=plan)
    plan = make_plan(kernel, source, query, engine=engine)
    source.splits[0] = 0
    with pytest.raises(ValueError, match=r"splits of its source change"):
        convolve(kernel, values, source, query, plan=plan)


@pytest.mark.parametrize("engine", ENGINES_ON_POINTS)
@pytest.mark.parametrize("name", ["coordinates", "weights", "splits"])
def test_products_of_points_that_changed(engine: Any, name: str) -> None:
    kernel, values, grid = kernel_of(2), seeded(20, 2, 4), Grid((4,), (0.1,))
    product = Product(Points(uniform(20, 1), uniform(20, low=0.5, seed=1)), grid)
    plan = make_plan(kernel, product, engine=engine)
    convolve(kernel, values, product, plan=plan)
    getattr(product.points, name)[-1] *= 1
    with pytest.raises(ValueError, match=rf"plan must be made anew \(make_plan\) when the {name} of its source change"):
        convolve(kernel, values, product, plan=plan)


@pytest.mark.parametrize("engine", ENGINES_ON_POINTS)
def test_learned_weights_of_points_keep_their_plan(engine: Any) -> None:
    kernel, values = kernel_of(), seeded(40, 2)
    weights = uniform(40, low=0.5, seed=1).requires_grad_()
    source = Points(uniform(40, 1), weights)
    plan = make_plan(kernel, source, engine=engine)
    for _ in range(2):
        result = convolve(kernel, values, source, plan=plan)
        assert worst_error(result, equation(kernel, values, source, source), source, source) < 2e-3
        by_an_optimiser(fused=True)(weights)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_memory_of_numpy_is_copied(dtype: Any) -> None:
    kernel, values = kernel_of(), seeded(40, 2)
    arrays = {
        "coordinates": uniform(40, 1).numpy().astype(dtype),
        "weights": uniform(40, seed=1).numpy().astype(dtype),
        "splits": np.array([0, 10, 40]),
    }
    source = Points(**{name: torch.from_numpy(array) for name, array in arrays.items()})
    plan = make_plan(kernel, source, engine="neighbours")
    before = convolve(kernel, values, source, plan=plan)
    arrays["coordinates"] += 1
    arrays["coordinates"][:5] *= 3
    arrays["weights"][:] = 0
    arrays["splits"][1] = 20
    assert torch.equal(convolve(kernel, values, source, plan=plan), before)
    assert torch.equal(convolve(kernel, values, source, engine="neighbours"), before)


def test_memory_of_numpy_that_is_learned_is_watched() -> None:
    kernel, values, array = kernel_of(), seeded(40, 2), uniform(40, 1).numpy()
    source = Points(torch.from_numpy(array).requires_grad_())
    plan = make_plan(kernel, source, engine="neighbours")
    array[7] += 0.3
    with pytest.raises(ValueError, match=MOVED):
        convolve(kernel, values, source, plan=plan)
    own = uniform(40, 1)
    source, seen = Points(own), own.numpy()
    plan = make_plan(kernel, source, engine="neighbours")
    seen[7] += 0.3
    with pytest.raises(ValueError, match=MOVED):
        convolve(kernel, values, source, plan=plan)


def test_float64_memory_of_pytorch_is_not_copied() -> None:
    coordinates, weights = uniform(4, 1), uniform(4).requires_grad_()
    points = Points(coordinates, weights)
    assert points.coordinates.data_ptr() == coordinates.data_ptr()
    assert points.weights is weights


@pytest.mark.parametrize("name", ["coordinates", "weights"])
@pytest.mark.parametrize("way", WAYS)
def test_learned_float32_geometry_is_refused_once_it_moved(way: str, name: str) -> None:
    kernel, values = kernel_of(), seeded(40, 2)
    learned = uniform(40, *((1,) if name == "coordinates" else ()), low=0.5, seed=1).float().requires_grad_()
    given = {"coordinates": uniform(40, 1)} | {name: learned}
    source = Points(**given)
    plan = make_plan(kernel, source, engine="neighbours")
    torch.autograd.grad(convolve(kernel, values, source, plan=plan).sum(), learned)
    WAYS[way](learned)
    message = rf"{name} must be as they were when Points was made of them in torch.float32: make Points anew"
    wide, grid = kernel_of(2), Grid((3,), (0.1,))
    for refused in (
        lambda: convolve(kernel, values, source, plan=plan),
        lambda: convolve(kernel, values, source),
        lambda: make_plan(kernel, source),
        lambda: explain(kernel, source),
        lambda: convolve(wide, seeded(40, 2, 3), Product(source, grid)),
    ):
        with pytest.raises(ValueError, match=message):
            refused()
    source = Points(**given)
    result = convolve(kernel, values, source)
    assert_close(result, equation(kernel, values, source, source))


def test_learning_coordinates_goes_on_with_a_plan_for_each_step() -> None:
    """Points find the places their values were taken from."""
    kernel = small_kernel(1, width=(0.4,)).requires_grad_(False)
    right, query, values = uniform(6, 1, seed=3), Points(uniform(30, 1, seed=4)), seeded(6, 2)
    target = dense(kernel, values, Points(right), query)
    coordinates = (right + 0.02 * seeded(6, 1, seed=5)).requires_grad_()
    source, optimiser = Points(coordinates), torch.optim.Adam([coordinates], lr=2e-3)
    first = float((coordinates.detach() - right).norm())
    for _ in range(60):
        optimiser.zero_grad()
        plan = make_plan(kernel, source, query, engine="neighbours")
        (convolve(kernel, values, source, query, plan=plan) - target).square().sum().backward()
        optimiser.step()
    assert float((coordinates.detach() - right).norm()) < 0.2 * first


@pytest.mark.parametrize("planned_without_gradients", [False, True])
@pytest.mark.parametrize("sides", ["product to product", "product to points", "points to product"])
@pytest.mark.parametrize("engine", ENGINES_ON_POINTS)
def test_a_plan_serves_many_backward_passes_to_the_points_of_a_product(
    engine: Any, sides: str, planned_without_gradients: bool
) -> None:
    kernel, irregular = kernel_of(2), Points(uniform(30, 2, high=0.4, seed=6))
    points = Points(uniform(9, 1, high=0.5).requires_grad_(), uniform(9, low=0.5, seed=1).requires_grad_())
    product = Product(points, Grid((4,), (0.1,)))
    source, query = (product if side == "product" else irregular for side in sides.split(" to "))
    values = seeded(*((9, 2, 4) if source is product else (30, 2)))
    leaves = [points.coordinates, points.weights][: 2 if source is product else 1]
    expected = torch.autograd.grad(equation(kernel, values, source, query).square().sum(), leaves)
    with torch.set_grad_enabled(not planned_without_gradients):
        plan = make_plan(kernel, source, query, engine=engine, rtol=1e-5)
    for _ in range(2):
        result = convolve(kernel, values, source, query, plan=plan)
        found = torch.autograd.grad(result.square().sum(), leaves)
        for one, right in zip(found, expected, strict=True):
            assert float((one - right).norm()) < 1e-2 * float(right.norm())


def test_a_plan_made_before_its_points_were_learned_is_refused() -> None:
    kernel, values, points = kernel_of(2), seeded(9, 2, 4), Points(uniform(9, 1))
    product = Product(points, Grid((4,), (0.1,)))
    plan = make_plan(kernel, product, engine="neighbours")
    points.coordinates.requires_grad_()
    with pytest.raises(ValueError, match=MOVED):
        convolve(kernel, values, product, plan=plan)


# ---- rtol ----


def test_a_plan_knows_its_rtol() -> None:
    kernel, values = kernel_of(), seeded(60, 2)
    source = Points(uniform(60, 1, high=3.0))
    exact = equation(kernel, values, source, source)
    coarse, fine = (make_plan(kernel, source, engine="spectral", rtol=rtol) for rtol in (0.1, 1e-6))
    assert (coarse.rtol, fine.rtol) == (0.1, 1e-6)
    rule = r"plan must be made for rtol 1e-08 or less, make_plan\(..., rtol=1e-08\), got one made for rtol 0.1"
    with pytest.raises(ValueError, match=rule):
        convolve(kernel, values, source, rtol=1e-8, plan=coarse)
    with pytest.raises(ValueError, match=r"plan must be made for rtol 0\.001 or less"):
        ContinuousConv(kernel, bias=False)(values, source, plan=coarse)
    for given in (None, 1e-3, 1e-6):  # None = the plan's
        assert worst_error(convolve(kernel, values, source, rtol=given, plan=fine), exact, source, source) < 1e-5
    convolve(kernel, values, source, plan=coarse)
    convolve(kernel, values, source, rtol=0.5, plan=coarse)
    with pytest.raises(ValueError, match="rtol must lie between 0 and 1"):
        convolve(kernel, values, source, rtol=0.0, plan=coarse)


@pytest.mark.parametrize("engine", [name for name in ENGINES if not ENGINES[name].error(1e-3)])
def test_plans_of_exact_engines_serve_any_rtol(engine: Any) -> None:
    kernel, grid = kernel_of(), Grid((12,), (0.05,))
    source = grid if engine == "fft" else Points(uniform(12, 1))
    values = seeded(1, 2, 12) if engine == "fft" else seeded(12, 2)
    plan = make_plan(kernel, source, engine=engine, rtol=0.5)
    result = convolve(kernel, values, source, rtol=1e-9, plan=plan)
    assert_close(result, equation(kernel, values, source, source))


# ---- the query ----


@pytest.mark.parametrize("engine", ENGINES_ON_POINTS)
def test_no_query_means_at_the_source_with_a_plan_too(engine: Any) -> None:
    kernel, values = kernel_of(), seeded(40, 2)
    source, query = Points(uniform(40, 1)), Points(uniform(40, 1, seed=1))
    plan = make_plan(kernel, source, query, engine=engine)
    rule = r"query must be given with a plan for another query than its source, query=plan.query, got None"
    with pytest.raises(ValueError, match=rule):
        convolve(kernel, values, source, plan=plan)
    with pytest.raises(ValueError, match=rule):
        ContinuousConv(kernel, solver=Solver(engine))(values, source, plan=plan)
    at_query = convolve(kernel, values, source, query=plan.query, plan=plan)
    assert worst_error(at_query, equation(kernel, values, source, query), source, query) < 2e-3
    own = make_plan(kernel, source, engine=engine)
    for given in (None, source):
        convolve(kernel, values, source, given, plan=own)
    with pytest.raises(ValueError, match="plan must be made for this query"):
        convolve(kernel, values, source, query, plan=own)


def test_grids_are_the_same_where_their_axes_are() -> None:
    kernel, values = kernel_of(), seeded(1, 2, 12)
    plan = make_plan(kernel, Grid((12,), (0.05,)), Grid((6,), (0.1,)))
    with pytest.raises(ValueError, match="query must be given"):
        convolve(kernel, values, Grid((12,), (0.05,)), plan=plan)
    result = convolve(kernel, values, Grid((12,), (0.05,)), Grid((6,), (0.1,)), plan=plan)
    assert_close(result, equation(kernel, values, Grid((12,), (0.05,)), Grid((6,), (0.1,))))


# ---- the kernel ----


def test_a_spectral_plan_refuses_kernels_of_another_kind() -> None:
    source, values = Points(uniform(50, 2)), seeded(50, 2)
    plan = make_plan(kernel_of(2), source, engine="spectral")
    rule = r"plan must be made with a kernel of the same set of causal axes, now \(0,\), got \(\)"
    with pytest.raises(ValueError, match=rule):
        convolve(kernel_of(2, causal_axes=(0,)), values, source, plan=plan)
    rule = r"plan must be made with a kernel of the same dtype, now torch.float32, got torch.float64"
    with pytest.raises(ValueError, match=rule):
        convolve(kernel_of(2).float(), values.float(), source, plan=plan)
    with pytest.raises(ValueError, match="plan must be made with a kernel of the same kind, with or without a mask,"):
        convolve(kernel_of(2, masked=False), values, source, plan=plan)


@pytest.mark.parametrize("engine", ["reference", "neighbours", "fft"])
@pytest.mark.parametrize("other", ["float32", "causal", "full", "sharper", "narrower", "isotropic"])
def test_exact_plans_serve_other_kernels_exactly(engine: Any, other: str) -> None:
    kernels = {
        "float32": lambda: kernel_of(2, dtype=torch.float32),
        "causal": lambda: kernel_of(2, causal_axes=(1,)),
        "full": lambda: kernel_of(2, shape=(3, 2)),
        "sharper": lambda: kernel_of(2, seed=5),
        "narrower": lambda: small_kernel(2, width=(0.01, 0.1)),
        "isotropic": lambda: Kernel(SIREN(2, 2, 4), GaussianMask([0.05, 0.05]), extent=[1.0, 1.0]).double(),
    }
    grid = Grid((7, 6), (0.1, 0.2))
    source = grid if engine == "fft" else Points(uniform(60, 2))
    kernel = kernels[other]()
    if other == "sharper":
        with torch.no_grad():
            kernel.generator.linears[0].weight.mul_(30)  # type: ignore[union-attr]
    values = seeded(*((2, 2, 7, 6) if engine == "fft" else (60, 2)), dtype=kernel.dtype)
    plan = make_plan(kernel_of(2), source, engine=engine)
    assert_close(convolve(kernel, values, source, plan=plan), equation(kernel, values, source, source), factor=10)


def test_a_plan_is_short_to_print() -> None:
    plan = make_plan(kernel_of(), Points(uniform(50, 1)), engine="neighbours", rtol=1e-2)
    assert "Points(n=50" in repr(plan)
    assert "rtol=0.01" in repr(plan)
    assert "tensor" not in repr(plan)
    assert plan.engine == "neighbours"


# ---- networks ----


def test_layers_of_unlike_rtol_share_the_finest() -> None:
    torch.manual_seed(0)
    network = CCNN(
        1,
        2,
        1,
        kernel=KernelSpec(extent=[1.0], width=[0.2], omega_0=5.0),
        blocks=2,
        head="dense",
        solver=Solver("spectral"),
    ).double()
    points, values = Points(uniform(200, 1, high=4.0)), seeded(200, 1)
    with torch.no_grad():
        expected = network(values, points)
        for layer in network.modules():
            if isinstance(layer, ContinuousConv):
                layer.solver = Solver("spectral", 1e-6)
        fine = network(values, points)
        layer = next(one for one in network.modules() if isinstance(one, ContinuousConv))
        layer.solver = Solver("spectral", 1e-4)
        assert torch.equal(network(values, points), fine)
    assert 0 < float((fine - expected).norm() / expected.norm()) < 1e-2


def test_a_network_follows_points_that_move() -> None:
    torch.manual_seed(0)
    network = CCNN(
        1, 2, 1, kernel=KernelSpec(extent=[1.0], width=[0.2]), blocks=1, head="dense", solver=Solver("neighbours")
    ).double()
    coordinates = uniform(50, 1).requires_grad_()
    points, values = Points(coordinates), seeded(50, 1)
    network(values, points)
    by_an_optimiser(fused=True)(coordinates)
    moved = Points(coordinates.detach().clone())
    assert torch.equal(network(values, points), network(values, moved))
