"""Grids, points and products: what they hold, and that each shape of domain convolves with each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from contract_cases import seeded, small_kernel, uniform
from hypothesis import given
from hypothesis import strategies as st

from ccnn_irregular import Axis, Grid, Points, Product
from ccnn_irregular.domains import Domain
from ccnn_irregular.testing import assert_close


def test_axis_nodes_and_period() -> None:
    axis = Axis(4, 0.5, -1.0)
    assert axis.nodes().tolist() == [-1.0, -0.5, 0.0, 0.5]
    assert axis.nodes().dtype == torch.float64
    assert axis.period is None
    assert Axis(4, 0.5, periodic=True).period == 2.0
    assert Axis(np.int64(4), 0.5) == Axis(4, 0.5)
    assert type(Axis(np.int64(4), 0.5).size) is int
    with pytest.raises(AttributeError):
        axis.size = 5  # type: ignore[misc]


def test_nodes_do_not_drift_along_long_axes() -> None:
    nodes = Axis(100_001, 0.1, 5.0).nodes()
    assert float(nodes[-1]) == pytest.approx(10_005.0, rel=1e-15)


def test_grid_nodes_run_row_major_with_its_values() -> None:
    grid = Grid((2, 3), (0.5, 10.0), (1.0, -10.0), periodic=(False, True))
    assert grid.nodes().tolist() == [[1, -10], [1, 0], [1, 10], [1.5, -10], [1.5, 0], [1.5, 10]]
    assert (grid.d, grid.sizes, grid.steps, grid.starts) == (2, (2, 3), (0.5, 10.0), (1.0, -10.0))
    assert grid.periodic == (False, True)
    assert grid.periods == (None, 30.0)
    assert (grid.count, grid.cell_volume) == (6, 5.0)
    assert repr(grid) == "Grid(sizes=(2, 3), steps=(0.5, 10.0), starts=(1.0, -10.0), periodic=(False, True))"


def test_grids_are_equal_by_value() -> None:
    grid = Grid((2, 3), (0.5, 10.0))
    assert grid == Grid([2, 3], [0.5, 10], [0, 0], periodic=[False, False])
    assert hash(grid) == hash(Grid([2, 3], [0.5, 10]))
    for other in (
        Grid((2, 3), (0.5, 9.0)),
        Grid((2, 3), (0.5, 10.0), (0.0, 1.0)),
        Grid((2, 3), (0.5, 10.0), None, True),
    ):
        assert grid != other
    assert grid != (2, 3)


def test_grid_points_are_one_copy_of_the_nodes_per_sample() -> None:
    grid = Grid((2, 3), (0.5, 10.0), (1.0, -10.0), periodic=(False, True))
    points = grid.as_points(samples=3)
    assert points.splits.tolist() == [0, 6, 12, 18]
    assert points.periods == (None, 30.0)
    assert torch.equal(points.coordinates[6:12], grid.nodes())
    assert torch.equal(points.weights, torch.full((18,), 5.0, dtype=torch.float64))


def test_points_hold_float64_and_defaults() -> None:
    points = Points(torch.tensor([[0.5, 1.0], [2.0, 3.0]], dtype=torch.float32))
    assert points.coordinates.dtype == points.weights.dtype == torch.float64
    assert points.weights.tolist() == [1.0, 1.0]
    assert points.splits.tolist() == [0, 2]
    assert (points.count, points.d, points.samples, points.periods) == (2, 2, 1, (None, None))
    assert repr(points).startswith("Points(n=2, d=2, samples=1, ")
    moved = points.to("cpu")
    assert torch.equal(moved.coordinates, points.coordinates)


def test_points_are_not_copied_away_from_the_graph() -> None:
    coordinates, weights = torch.rand(3, 1, requires_grad=True), torch.rand(3, requires_grad=True)
    points = Points(coordinates, weights)
    (points.coordinates.sum() + 2 * points.weights.sum()).backward()
    assert coordinates.grad is not None
    assert coordinates.grad.flatten().tolist() == [1.0] * 3
    assert weights.grad is not None
    assert weights.grad.tolist() == [2.0] * 3


def test_sample_index_skips_empty_samples() -> None:
    points = Points(torch.zeros(5, 1), splits=torch.tensor([0, 0, 2, 2, 5, 5]))
    assert points.sample_index().tolist() == [1, 1, 3, 3, 3]
    assert points.samples == 5


@given(st.lists(st.integers(0, 6), min_size=1, max_size=8))
def test_sample_index_agrees_with_splits(lengths: list[int]) -> None:
    splits = torch.tensor([0, *np.cumsum(lengths)])
    index = Points(torch.zeros(sum(lengths), 2), splits=splits).sample_index()
    assert index.tolist() == [b for b, n in enumerate(lengths) for _ in range(n)]


def test_no_points_at_all() -> None:
    nothing = Points(torch.zeros(0, 3), splits=torch.tensor([0, 0, 0]))
    assert (nothing.count, nothing.d, nothing.samples) == (0, 3, 2)
    assert nothing.sample_index().shape == (0,)


def test_product_expands_with_the_grid_running_fastest() -> None:
    points = Points(
        torch.tensor([[1.0], [2.0], [5.0]]),
        torch.tensor([0.5, 1.5, 1.0]),
        torch.tensor([0, 2, 3]),
        periods=[24.0],
    )
    product = Product(points, Grid((2,), (10.0,), periodic=True))
    assert (product.d, product.count, product.samples, product.device) == (2, 6, 2, torch.device("cpu"))
    expanded = product.as_points()
    assert expanded.coordinates.tolist() == [[1, 0], [1, 10], [2, 0], [2, 10], [5, 0], [5, 10]]
    assert expanded.weights.tolist() == [5, 5, 15, 15, 10, 10]
    assert expanded.splits.tolist() == [0, 4, 6]
    assert expanded.periods == (24.0, 20.0)
    assert repr(product).startswith("Product(Points(n=3, d=1, samples=2, ")
    assert torch.equal(product.to("cpu").as_points().coordinates, expanded.coordinates)


def test_product_keeps_weights_per_channel() -> None:
    weights = torch.tensor([[0.0, 1.0], [2.0, 0.0]])
    expanded = Product(Points(torch.zeros(2, 1), weights), Grid((2,), (0.5,))).as_points()
    assert expanded.weights.tolist() == [[0, 0.5], [0, 0.5], [1, 0], [1, 0]]


POINTS = Points(torch.tensor([[0.0], [1.0], [3.0]]), splits=torch.tensor([0, 2, 3]), periods=(24.0,))
GRID = Grid((4, 2), (0.5, 10.0), periodic=(False, True))


@pytest.mark.parametrize(
    ("domain", "irregular", "uniform"),
    [(POINTS, POINTS, None), (GRID, None, GRID), (Product(POINTS, GRID), POINTS, GRID)],
    ids=["points", "grid", "product"],
)
def test_every_domain_answers_the_same_questions(
    domain: Domain, irregular: Points | None, uniform: Grid | None
) -> None:
    assert domain.irregular is irregular
    assert domain.uniform is uniform
    ragged = irregular is not None
    assert domain.samples == (2 if ragged else None)
    assert domain.device == (torch.device("cpu") if ragged else None)
    assert domain.periods == ((24.0,) if ragged else ()) + ((None, 20.0) if uniform else ())
    assert len(domain.periods) == domain.d
    sizes = (4, 2) if uniform else ()
    assert domain.values_shape(7, batch=5) == (3 if ragged else 5, 7, *sizes)
    assert domain.batch_size(torch.zeros(domain.values_shape(7, batch=5))) == (2 if ragged else 5)
    assert not domain.weighs_channels
    domain.require_current()
    assert domain.to("cpu").values_shape(7) == domain.values_shape(7)


def test_weights_per_channel_are_known_of_points_and_products() -> None:
    points = Points(torch.zeros(2, 1), torch.ones(2, 3))
    assert points.weighs_channels
    assert Product(points, GRID).weighs_channels


def test_only_a_grid_is_repeated_as_points() -> None:
    product = Product(POINTS, GRID)
    assert POINTS.as_points() is POINTS.as_points(2) is POINTS
    assert [domain.as_points(2).samples for domain in (POINTS, GRID, product)] == [2, 2, 2]
    for domain in (POINTS, product):
        with pytest.raises(ValueError, match="samples must be None or the 2 there are, got 3"):
            domain.as_points(3)


def test_splits_survive_counts_float32_cannot_hold() -> None:
    """Offsets are integers: beyond 2^24 a float32 would name the wrong rows."""
    big = 2**24 + 1
    splits = torch.tensor([0, big - 1, big])
    points = Points(torch.zeros(big, 1, dtype=torch.float64), torch.ones(big, dtype=torch.float64), splits)
    assert points.splits.tolist() == [0, big - 1, big]
    assert int(points.sample_index()[-1]) == 1


def test_units_of_the_samples_do_not_matter() -> None:
    """Metres or millimetres: coordinates, weights, widths and extents scale together, the result by the volume."""
    positions, values = uniform(12, 2, seed=1), seeded(12, 2)
    results = []
    for unit in (1.0, 1000.0):
        kernel = small_kernel(2, width=(0.3 * unit, 0.4 * unit))
        points = Points(positions * unit, torch.full((12,), unit**2, dtype=torch.float64))
        results.append(convolve_reference(kernel, values, points) / unit**2)
    # The units pass through float32 when the kernel is made, so this holds to about 1e-7.
    assert_close(results[1], results[0], factor=1e6)


def convolve_reference(kernel: object, values: torch.Tensor, points: Points) -> torch.Tensor:
    from ccnn_irregular import convolve

    return convolve(kernel, values, points, engine="reference")  # type: ignore[arg-type]
