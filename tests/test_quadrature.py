"""Quadrature weights: exact where the rule is exact, nothing where nothing was observed."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import numpy as np
import pytest
import scipy.integrate
import torch
from contract_cases import uniform
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ccnn_irregular import Grid, Points
from ccnn_irregular.quadrature import (
    cell_volumes,
    covered_volume,
    density_compensation,
    gauss_legendre,
    plain_mean,
    product_rule,
    simpson,
    spherical_areas,
    trapezoid,
    voronoi,
)
from ccnn_irregular.testing import assert_close

# An irregular ragged batch: four samples, the second empty, the last with a single row.
POSITIONS = torch.tensor([0.0, 0.1, 0.5, 2.0, 3.5, -4.0, -3.5, -3.0, 7.0, 11.0], dtype=torch.float64)
SPLITS = torch.tensor([0, 5, 5, 9, 10])


def numpy_trapezoid(values: np.ndarray, positions: np.ndarray) -> float:
    return float(np.trapezoid(values, positions))


# ---- trapezoid ----


def test_exact_for_linear_functions_on_irregular_samples() -> None:
    positions = POSITIONS[:5]
    weights = trapezoid(positions)
    assert weights.dtype == torch.float64
    assert_close(weights, torch.tensor([0.05, 0.25, 0.95, 1.5, 0.75], dtype=torch.float64))
    for constant, slope in ((1.0, 0.0), (0.0, 1.0), (-2.0, 3.0)):
        exact = constant * 3.5 + slope * 3.5**2 / 2
        assert float((weights * (constant + slope * positions)).sum()) == pytest.approx(exact, rel=1e-14)
    # No more than that: a parabola is overestimated.
    assert float((weights * positions**2).sum()) > 3.5**3 / 3 + 0.1


def test_equals_numpy_on_every_sample_of_a_ragged_batch() -> None:
    weights = trapezoid(POSITIONS, splits=SPLITS)
    function = torch.cos(POSITIONS) + POSITIONS**2
    for first, last in zip(SPLITS[:-1].tolist(), SPLITS[1:].tolist(), strict=True):
        own = float((weights * function)[first:last].sum())
        assert own == pytest.approx(numpy_trapezoid(function[first:last].numpy(), POSITIONS[first:last].numpy()))
        # Blind to the other samples.
        assert torch.equal(weights[first:last], trapezoid(POSITIONS[first:last]))
    assert float(weights[-1]) == 0  # a single observation spans nothing


def test_each_channel_is_integrated_over_its_own_observations() -> None:
    count, channels = 40, 6
    positions = torch.sort(uniform(count, high=48.0, seed=1)).values
    splits = torch.tensor([0, 13, 13, 30, 40])
    observed = uniform(count, channels, seed=2) < torch.tensor([1.0, 0.7, 0.4, 0.15, 0.05, 0.0])
    weights = trapezoid(positions, observed=observed, splits=splits)
    function = torch.sin(positions)[:, None] + torch.arange(channels)
    assert weights.shape == (count, channels)
    assert not weights[~observed].any()
    for first, last in zip(splits[:-1].tolist(), splits[1:].tolist(), strict=True):
        for channel in range(channels):
            seen = observed[first:last, channel].numpy()
            exact = numpy_trapezoid(function[first:last, channel].numpy()[seen], positions[first:last].numpy()[seen])
            own = float((weights * function)[first:last, channel].sum())
            assert own == pytest.approx(exact, rel=1e-13, abs=1e-13)
    assert float(weights[:, 0].sum()) > 0
    assert not weights[:, 5].any()


def test_nan_positions_are_refused_but_unobserved_rows_are_not_gaps() -> None:
    observed = torch.tensor([[True, True], [False, True], [True, True]])
    weights = trapezoid(torch.tensor([0.0, 1.0, 4.0]), observed=observed)
    assert_close(weights, torch.tensor([[2.0, 0.5], [0.0, 2.0], [2.0, 1.5]], dtype=torch.float64))


def test_cap_limits_each_side() -> None:
    positions = torch.tensor([0.0, 1.0, 21.0, 22.0, 40.0], dtype=torch.float64)
    capped = trapezoid(positions, cap=4.0)
    assert_close(capped, torch.tensor([0.5, 2.5, 2.5, 2.5, 2.0], dtype=torch.float64))
    assert torch.equal(trapezoid(positions, cap=100.0), trapezoid(positions))


def test_single_observation_weighs_the_cap() -> None:
    lone = torch.tensor([5.0])
    assert trapezoid(lone).tolist() == [0.0]
    assert trapezoid(lone, cap=3.0).tolist() == [3.0]
    observed = torch.tensor([[True, False], [False, False], [True, True]])
    weights = trapezoid(torch.tensor([0.0, 1.0, 2.0]), observed=observed, cap=6.0)
    assert weights.tolist() == [[1.0, 0.0], [0.0, 0.0], [1.0, 6.0]]
    # Alone in its own sample, whatever the neighbouring samples hold.
    ragged = trapezoid(POSITIONS, splits=SPLITS, cap=1.0)
    assert float(ragged[-1]) == 1.0
    assert float(ragged[4]) == 0.5


def test_nothing_at_all() -> None:
    assert trapezoid(torch.zeros(0)).shape == (0,)
    nothing = trapezoid(torch.zeros(0), observed=torch.zeros(0, 3, dtype=torch.bool), splits=torch.tensor([0, 0]))
    assert nothing.shape == (0, 3)
    unseen = trapezoid(torch.arange(3.0), observed=torch.zeros(3, 2, dtype=torch.bool), cap=1.0)
    assert unseen.tolist() == [[0.0, 0.0]] * 3


def test_positions_in_float32_give_float64_weights() -> None:
    weights = trapezoid(torch.tensor([0.0, 0.1, 1e6], dtype=torch.float32))
    assert weights.dtype == torch.float64
    assert float(weights.sum()) == 1e6


def test_gradient_reaches_positions() -> None:
    positions = POSITIONS[:5].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda p: trapezoid(p) * torch.arange(5.0), [positions])


gaps = hnp.arrays(np.float64, st.integers(1, 12), elements=st.floats(0.01, 30.0))


@st.composite
def ragged_observations(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Positions, an observed mask of three channels, and splits."""
    samples = [np.cumsum(draw(gaps)) - draw(st.floats(-50, 50)) for _ in range(draw(st.integers(1, 4)))]
    samples = [one if draw(st.booleans()) else one[:0] for one in samples]
    positions = torch.from_numpy(np.concatenate(samples))
    splits = torch.tensor([0, *np.cumsum([len(one) for one in samples])])
    mask = draw(hnp.arrays(np.bool_, (len(positions), 3)))
    return positions, torch.from_numpy(mask), splits


@given(ragged_observations(), st.one_of(st.none(), st.floats(0.1, 100.0)))
def test_weights_hold_for_any_observations(
    case: tuple[torch.Tensor, torch.Tensor, torch.Tensor], cap: float | None
) -> None:
    positions, observed, splits = case
    weights = trapezoid(positions, observed=observed, splits=splits, cap=cap)
    assert bool((weights >= 0).all())
    assert not weights[~observed].any()
    if cap is not None:
        assert bool((weights <= cap * (1 + 1e-12)).all())
    for first, last in zip(splits[:-1].tolist(), splits[1:].tolist(), strict=True):
        for channel in range(3):
            seen = positions[first:last][observed[first:last, channel]]
            total = float(weights[first:last, channel].sum())
            if cap is not None and len(seen) == 1:
                assert total == cap
            else:
                lengths = seen.diff() if cap is None else seen.diff().clamp(max=cap)
                assert total == pytest.approx(float(lengths.sum()), rel=1e-12, abs=1e-12)


@given(ragged_observations(), st.randoms(use_true_random=False))
def test_samples_may_stand_in_any_order(case: tuple[torch.Tensor, torch.Tensor, torch.Tensor], random: object) -> None:
    positions, observed, splits = case
    order = list(range(len(splits) - 1))
    random.shuffle(order)  # type: ignore[attr-defined]
    rows = torch.cat([torch.arange(int(splits[b]), int(splits[b + 1])) for b in order])
    lengths = splits.diff()[order]
    shuffled = torch.cat([splits[:1], lengths.cumsum(0)])
    weights = trapezoid(positions, observed=observed, splits=splits, cap=5.0)
    assert torch.equal(trapezoid(positions[rows], observed=observed[rows], splits=shuffled, cap=5.0), weights[rows])


@given(gaps, st.floats(0.01, 100.0))
def test_weights_scale_with_the_unit(steps: np.ndarray, unit: float) -> None:
    positions = torch.from_numpy(np.cumsum(steps))
    scaled = trapezoid(positions * unit, cap=7.0 * unit)
    assert_close(scaled, trapezoid(positions, cap=7.0) * unit)


# ---- cells of a grid ----


@pytest.mark.parametrize("sizes", [(1,), (7,), (4, 5), (2, 3, 1), (2, 3, 2, 2)])
def test_cells_are_exact_for_functions_constant_on_each_cell(sizes: tuple[int, ...]) -> None:
    steps = (0.5, 0.7, 1.1, 0.3)[: len(sizes)]
    weights = cell_volumes(sizes, steps)
    assert weights.shape == sizes
    assert weights.dtype == torch.float64
    volume = math.prod(n * h for n, h in zip(sizes, steps, strict=True))
    assert float(weights.sum()) == pytest.approx(volume, rel=1e-14)
    levels = uniform(*sizes, seed=1)
    assert float((weights * levels).sum()) == pytest.approx(float(levels.mean()) * volume, rel=1e-14)


def test_cells_are_exact_for_linear_functions() -> None:
    """Nodes are the cells' centres: the rule is the midpoint rule."""
    grid = Grid((4, 3), (0.5, 2.0), (0.25, 1.0))  # covers [0, 2] x [0, 6]
    x, y = grid.nodes().T
    weights = cell_volumes(grid.sizes, grid.steps).reshape(-1)
    assert float((weights * (2 * x - y + 3)).sum()) == pytest.approx(2 * 12 - 36 + 36, rel=1e-14)
    assert float(weights[0]) == pytest.approx(grid.cell_volume)


@pytest.mark.parametrize("count", [3, 8])
def test_cells_integrate_trigonometric_polynomials_over_a_period(count: int) -> None:
    grid = Grid((count,), (2 * math.pi / count,), (0.3,), periodic=True)
    nodes, weights = grid.nodes()[:, 0], cell_volumes(grid.sizes, grid.steps)
    for order in range(1, count):
        assert float((weights * torch.cos(order * nodes + 0.2)).sum()) == pytest.approx(0, abs=1e-13)
    assert float((weights * torch.cos(count * (nodes - 0.3))).sum()) == pytest.approx(2 * math.pi)  # aliased: 1


# ---- Simpson ----


def power_integral(power: int, start: float, stop: float) -> float:
    return (stop ** (power + 1) - start ** (power + 1)) / (power + 1)


def random_nodes(count: int, seed: int, low: float = 0.7, high: float = 1.3) -> torch.Tensor:
    """Increasing nodes whose neighbouring gaps differ by less than a factor of 2."""
    return uniform(count, low=low, high=high, seed=seed).cumsum(0) - 2.0


@pytest.mark.parametrize("count", [3, 4, 5, 6, 9, 10, 41, 42])
def test_simpson_is_exact_for_parabolas_on_irregular_nodes(count: int) -> None:
    nodes = random_nodes(count, seed=count) / count
    weights = simpson(nodes)
    assert weights.dtype == torch.float64
    start, stop = float(nodes[0]), float(nodes[-1])
    for power in (0, 1, 2):
        exact = power_integral(power, start, stop)
        assert float((weights * nodes**power).sum()) == pytest.approx(exact, rel=1e-13)
    # No more than that.
    assert abs(float((weights * nodes**3).sum()) - power_integral(3, start, stop)) > 1e-9


def test_simpson_is_exact_for_cubics_on_uniform_nodes_with_an_even_number_of_intervals() -> None:
    for count in (3, 5, 21):
        nodes = torch.linspace(-1.0, 3.0, count, dtype=torch.float64)
        assert float((simpson(nodes) * nodes**3).sum()) == pytest.approx(20.0, rel=1e-14)
        assert float((simpson(nodes) * nodes**4).sum()) > power_integral(4, -1.0, 3.0) + 1e-6
    nodes = torch.linspace(-1.0, 3.0, 20, dtype=torch.float64)
    assert abs(float((simpson(nodes) * nodes**3).sum()) - 20.0) > 1e-4


@pytest.mark.parametrize("count", [2, 3, 4, 5, 8, 31, 100])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_simpson_equals_scipy_on_wildly_irregular_nodes(count: int, seed: int) -> None:
    nodes = torch.sort(uniform(count, low=-3.0, high=5.0, seed=seed)).values
    weights = simpson(nodes, allow_negative=True)
    # The weight of each node: the integral of the values that are 1 there and 0 elsewhere.
    columns = scipy.integrate.simpson(np.eye(count), x=nodes.numpy(), axis=1)
    assert float((weights - torch.from_numpy(columns)).abs().max()) <= 1e-12 * np.abs(columns).max()


def test_simpson_of_a_ragged_batch_is_that_of_its_samples() -> None:
    lengths = [5, 0, 1, 2, 4, 3, 0, 8, 7]
    nodes = torch.cat([random_nodes(n, seed=n) for n in lengths])
    splits = torch.tensor([0, *np.cumsum(lengths)])
    weights = simpson(nodes, splits=splits)
    for n, first, last in zip(lengths, splits[:-1].tolist(), splits[1:].tolist(), strict=True):
        assert torch.equal(weights[first:last], simpson(nodes[first:last]))
        extent = float(nodes[last - 1] - nodes[first]) if n else 0.0
        assert float(weights[first:last].sum()) == pytest.approx(extent, rel=1e-13)
    assert simpson(torch.tensor([5.0])).tolist() == [0.0]
    assert simpson(torch.tensor([5.0, 8.0])).tolist() == [1.5, 1.5]
    assert simpson(torch.zeros(0)).shape == (0,)


@pytest.mark.parametrize("parity", [0, 1])
def test_simpson_converges_faster_than_the_trapezoid_rule(parity: int) -> None:
    exact = math.sin(2.0) + 2.0
    errors: dict[str, list[float]] = {"simpson": [], "trapezoid": []}
    for intervals in (40 + parity, 160 + parity):
        even = torch.linspace(0.0, 1.0, intervals + 1, dtype=torch.float64)
        nodes = 2.0 * (even + 0.1 * torch.sin(math.pi * even) ** 2)  # smoothly uneven
        for name, rule in (("simpson", simpson), ("trapezoid", trapezoid)):
            errors[name].append(abs(float((rule(nodes) * (torch.cos(nodes) + 1)).sum()) - exact))
    order = {name: math.log(two[0] / two[1]) / math.log(4) for name, two in errors.items()}
    assert order["simpson"] > 3.6
    assert order["trapezoid"] == pytest.approx(2.0, abs=0.1)


def test_simpson_refuses_negative_weights_unless_asked() -> None:
    nodes = torch.tensor([0.0, 1.0, 4.0])
    with pytest.raises(
        ValueError, match=r"positions must have neighbouring gaps within .* got the weight -0\.666667 at"
    ):
        simpson(nodes)
    weights = simpson(nodes, allow_negative=True)
    assert float(weights[0]) == pytest.approx(-2 / 3)
    assert float((weights * nodes**2).sum()) == pytest.approx(64 / 3)
    with pytest.raises(ValueError, match="weights must not be negative"):
        Points(nodes[:, None], weights)


def test_gradient_of_simpson_reaches_positions() -> None:
    nodes = random_nodes(11, seed=4).requires_grad_()
    splits = torch.tensor([0, 5, 5, 9, 11])
    assert torch.autograd.gradcheck(lambda p: simpson(p, splits=splits) * torch.arange(1.0, 12.0), [nodes])


@given(st.lists(hnp.arrays(np.float64, st.integers(1, 9), elements=st.floats(0.55, 1.0)), min_size=1, max_size=4))
def test_simpson_sums_to_the_extent_and_is_not_negative_for_gaps_within_a_factor_of_2(steps: list[np.ndarray]) -> None:
    nodes = torch.from_numpy(np.concatenate([np.cumsum(one) for one in steps]))
    splits = torch.tensor([0, *np.cumsum([len(one) for one in steps])])
    weights = simpson(nodes, splits=splits)
    assert bool((weights >= 0).all())
    for first, last in zip(splits[:-1].tolist(), splits[1:].tolist(), strict=True):
        extent = float(nodes[last - 1] - nodes[first])
        assert float(weights[first:last].sum()) == pytest.approx(extent, rel=1e-12, abs=1e-12)


# ---- Gauss-Legendre and products ----


@pytest.mark.parametrize("count", [1, 2, 3, 7, 16])
def test_gauss_legendre_is_exact_to_its_degree_and_no_further(count: int) -> None:
    nodes, weights = gauss_legendre(count, -0.5, 2.0)
    assert bool((weights > 0).all())
    assert bool((nodes.diff() > 0).all())
    for power in range(2 * count):
        exact = power_integral(power, -0.5, 2.0)
        assert float((weights * nodes**power).sum()) == pytest.approx(exact, rel=1e-13)
    if count < 10:
        missed = float((weights * nodes ** (2 * count)).sum()) - power_integral(2 * count, -0.5, 2.0)
        assert abs(missed) > 1e-8


def test_gauss_legendre_with_a_thousand_nodes() -> None:
    nodes, weights = gauss_legendre(1000, 0.0, 50.0)
    # The integral to infinity is 0.1; what lies beyond 50 is below 1e-21.
    assert float((weights * torch.exp(-nodes) * torch.cos(3 * nodes)).sum()) == pytest.approx(0.1, rel=1e-10)


def test_product_rule_is_exact_for_products() -> None:
    x, of_x = gauss_legendre(3, 0.0, 2.0)
    y = random_nodes(6, seed=1)
    z = torch.tensor([0.0, 1.0, 2.5], dtype=torch.float64)
    weights = product_rule(of_x, simpson(y), trapezoid(z))
    assert weights.shape == (3, 6, 3)
    mesh_x, mesh_y, mesh_z = torch.meshgrid(x, y, z, indexing="ij")
    exact = power_integral(5, 0.0, 2.0) * power_integral(2, float(y[0]), float(y[-1])) * power_integral(1, 0.0, 2.5)
    assert float((weights * mesh_x**5 * mesh_y**2 * mesh_z).sum()) == pytest.approx(exact, rel=1e-13)
    grid = Grid((4, 3), (0.5, 2.0))
    assert_close(product_rule(torch.full((4,), 0.5), torch.full((3,), 2.0)), cell_volumes(grid.sizes, grid.steps))


# ---- sphere ----


def test_a_cell_has_the_area_of_the_sphere_between_its_edges() -> None:
    latitudes = torch.tensor([20.0, 30.0, 50.0])  # edges 15, 25, 40, 60
    longitudes = torch.tensor([0.0, 10.0, 30.0, 40.0])  # edges -5, 5, 20, 35, 45
    areas = spherical_areas(latitudes, longitudes, radius=6371.0)
    edges, widths = (15, 25, 40, 60), (10, 15, 15, 10)
    for i in range(3):
        for j in range(4):
            bounds = math.radians(edges[i]), math.radians(edges[i + 1])
            band = scipy.integrate.quad(math.cos, *bounds, epsabs=1e-14)[0]
            assert float(areas[i, j]) == pytest.approx(6371.0**2 * band * math.radians(widths[j]), rel=1e-12)
    assert_close(spherical_areas(latitudes.flip(0), longitudes, radius=6371.0), areas.flip(0))
    bands = spherical_areas(latitudes, radius=6371.0)
    assert_close(spherical_areas(latitudes, 10.0, radius=6371.0), areas[:, 0])
    assert_close(bands, areas[:, 0] * 36)


@pytest.mark.parametrize("count", [2, 3, 8, 73, 180])
def test_areas_sum_to_the_sphere(count: int) -> None:
    sphere = 4 * math.pi * 9.0
    gauss = torch.rad2deg(torch.arcsin(gauss_legendre(count)[0]))
    centres = (torch.arange(count, dtype=torch.float64) + 0.5) * 180 / count - 90
    with_poles = torch.linspace(90, -90, count, dtype=torch.float64)
    longitudes = torch.cumsum(uniform(7, low=10, high=50, seed=count), 0) - 30
    for latitudes in (gauss, centres, with_poles):
        areas = spherical_areas(latitudes, longitudes, radius=3.0, globe=True)
        assert areas.shape == (count, 7)
        assert bool((areas > 0).all())
        assert float(areas.sum()) == pytest.approx(sphere, rel=1e-13)
        assert float(spherical_areas(latitudes, radius=3.0, globe=True).sum()) == pytest.approx(sphere, rel=1e-13)
    assert float(spherical_areas(gauss, radius=3.0, gaussian=True).sum()) == pytest.approx(sphere, rel=1e-13)
    # Regular latitudes reach the poles without being told to.
    assert_close(spherical_areas(centres, 5.0), spherical_areas(centres, 5.0, globe=True))


@pytest.mark.parametrize("count", [2, 5, 32])
def test_gaussian_latitudes_are_exact_for_polynomials_in_the_sine(count: int) -> None:
    nodes = torch.rad2deg(torch.arcsin(gauss_legendre(count)[0])).flip(0)  # north first, as in files
    weights = spherical_areas(nodes.to(torch.float32), gaussian=True)  # rounded, as in files
    sines = torch.sin(torch.deg2rad(nodes))
    for power in range(0, 2 * count, 2):
        assert float((weights * sines**power).sum()) == pytest.approx(4 * math.pi / (power + 1), rel=1e-12)
    # Cells are second order only; two of them are the hemispheres in both rules.
    assert count == 2 or abs(float((spherical_areas(nodes, globe=True) * sines**2).sum()) - 4 * math.pi / 3) > 1e-4


def test_cells_on_the_sphere_converge_at_second_order() -> None:
    errors = []
    for count in (20, 80):
        latitudes = (torch.arange(count, dtype=torch.float64) + 0.5) * 180 / count - 90
        values = torch.sin(torch.deg2rad(latitudes)) ** 2
        errors.append(abs(float((spherical_areas(latitudes) * values).sum()) - 4 * math.pi / 3))
    assert math.log(errors[0] / errors[1]) / math.log(4) == pytest.approx(2.0, abs=0.1)


# ---- plain mean ----


def test_plain_mean_divides_the_volume_by_the_observations() -> None:
    weights = plain_mean(10, splits=SPLITS, volume=6.0)
    assert_close(weights, torch.tensor([1.2] * 5 + [1.5] * 4 + [6.0], dtype=torch.float64))
    assert plain_mean(10, splits=SPLITS, volume=6.0, cap=2.0).tolist()[-2:] == [1.5, 2.0]
    assert plain_mean(4).tolist() == [0.25] * 4
    observed = torch.tensor([[True, True, False], [True, False, False], [True, True, False]])
    weights = plain_mean(3, observed=observed, splits=torch.tensor([0, 2, 3]), volume=2.0)
    assert weights.tolist() == [[1.0, 2.0, 0.0], [1.0, 0.0, 0.0], [2.0, 2.0, 0.0]]


# ---- Voronoi cells ----

BOX = {2: ((-1.0, 3.0), (10.0, 12.0)), 3: ((-1.0, 3.0), (10.0, 12.0), (0.0, 1.0))}


def cloud(count: int, d: int, seed: int = 0) -> torch.Tensor:
    low, high = torch.tensor(BOX[d], dtype=torch.float64).T
    return low + (high - low) * uniform(count, d, seed=seed)


def box_volume(d: int) -> float:
    return math.prod(high - low for low, high in BOX[d])


@pytest.mark.parametrize("d", [2, 3])
def test_voronoi_cells_of_a_uniform_grid_are_its_cells(d: int) -> None:
    grid = Grid((8, 4, 3)[:d], (0.5, 0.5, 1 / 3)[:d], (-0.75, 10.25, 1 / 6)[:d])
    assert_close(voronoi(grid.nodes(), bounds=BOX[d]), cell_volumes(grid.sizes, grid.steps).reshape(-1))
    # Nodes on the walls, edges and corners: half, quarter and eighth cells, as in the trapezoid rule.
    axes = [
        torch.linspace(low, high, n, dtype=torch.float64) for (low, high), n in zip(BOX[d], (6, 5, 4), strict=False)
    ]
    nodes = torch.cartesian_prod(*axes)
    assert_close(voronoi(nodes, bounds=BOX[d]), product_rule(*(trapezoid(axis) for axis in axes)).reshape(-1))


@pytest.mark.parametrize("d", [2, 3])
def test_voronoi_cells_equal_the_share_of_nearest_places(d: int) -> None:
    """Counted on a fine grid, without any diagram."""
    points = cloud(12, d, seed=3)
    points[0, 0] = BOX[d][0][0]  # on a wall
    steps = [(high - low) / n for (low, high), n in zip(BOX[d], (200, 100, 50), strict=False)]
    starts = [low + step / 2 for (low, _), step in zip(BOX[d], steps, strict=False)]
    nodes = Grid((200, 100, 50)[:d], steps, starts).nodes()
    nearest = torch.cdist(nodes, points).argmin(1)
    counted = torch.bincount(nearest, minlength=12) * math.prod(steps)
    weights = voronoi(points, bounds=BOX[d])
    assert float((weights - counted).abs().max()) < 3e-3 * box_volume(d)
    assert float(weights.min()) > 3e-3 * box_volume(d)


@pytest.mark.parametrize("d", [2, 3])
def test_voronoi_weights_of_a_ragged_batch_and_of_twins(d: int) -> None:
    points = cloud(40, d, seed=5)
    splits = torch.tensor([0, 1, 1, 22, 40])
    weights = voronoi(points, bounds=BOX[d], splits=splits)
    for first, last in zip(splits[:-1].tolist(), splits[1:].tolist(), strict=True):
        assert torch.equal(weights[first:last], voronoi(points[first:last], bounds=BOX[d]))
    assert float(weights.sum()) == pytest.approx(3 * box_volume(d), rel=1e-12)
    alone = voronoi(points[1:22], bounds=BOX[d])
    twins = voronoi(torch.cat([points[1:22], points[1:5], points[1:3] + 1e-9]), bounds=BOX[d])
    assert_close(twins[2:4], alone[2:4] / 2)
    assert_close(twins[:2], alone[:2] / 3)
    assert_close(twins[21:23], alone[:2] / 3)
    assert_close(twins[25:], alone[:2] / 3)
    assert_close(twins[4:21], alone[4:])
    capped = voronoi(points, bounds=BOX[d], splits=splits, cap=0.3)
    assert torch.equal(capped, weights.clamp(max=0.3))
    assert float(capped.max()) == 0.3 < float(weights.max())


@pytest.mark.parametrize("d", [2, 3])
def test_voronoi_weights_converge_at_second_order_on_jittered_grids(d: int) -> None:
    errors = []
    for n in (4, 16) if d == 2 else (3, 12):
        squares = []
        for seed in range(4):
            grid = Grid((n,) * d, (1 / n,) * d, (0.5 / n,) * d)
            points = grid.nodes() + uniform(n**d, d, low=-0.3 / n, high=0.3 / n, seed=seed)
            weights = voronoi(points, bounds=[(0.0, 1.0)] * d)
            squares.append((float((weights * torch.exp(points.sum(1))).sum()) - (math.e - 1) ** d) ** 2)
        errors.append(math.sqrt(sum(squares) / 4))
    assert errors[1] > 0
    assert math.log(errors[0] / errors[1]) / math.log(4) > 1.7


def test_voronoi_cells_of_points_on_a_line_or_plane_are_slabs() -> None:
    line = torch.tensor([[0.3, 0.1], [0.3, 0.2], [0.3, 0.9]], dtype=torch.float64)
    assert_close(voronoi(line, bounds=[(0, 1), (0, 1)]), torch.tensor([0.15, 0.4, 0.45], dtype=torch.float64))
    along_an_edge = torch.zeros(30, 3, dtype=torch.float64)
    along_an_edge[:, 0] = torch.linspace(0, 1, 30)
    slabs = voronoi(along_an_edge, bounds=[(0, 1), (0, 2), (0, 3)])
    assert_close(slabs, 6 * trapezoid(along_an_edge[:, 0]))


@given(st.sampled_from([2, 3]), st.integers(1, 30), st.integers(0, 1000), st.booleans())
def test_voronoi_cells_fill_the_box(d: int, count: int, seed: int, coarse: bool) -> None:
    points = cloud(count, d, seed=seed)
    if coarse:  # many twins, points on a lattice and on walls
        low, high = torch.tensor(BOX[d], dtype=torch.float64).T
        points = low + ((points - low) / (high - low) * 4).round() / 4 * (high - low)
    weights = voronoi(points, bounds=BOX[d])
    assert bool((weights > 0).all())
    assert float(weights.sum()) == pytest.approx(box_volume(d), rel=1e-9)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    assert_close(voronoi(points[order], bounds=BOX[d]), weights[order])


# ---- density of a cloud ----


def test_density_weights_follow_the_density() -> None:
    """Four times the density on one half: a quarter of the weight, up to the noise of 16 neighbours."""
    points = uniform(5000, 2, seed=1)
    points[:, 0] = torch.where(torch.arange(5000) < 4000, points[:, 0] / 2, (points[:, 0] + 1) / 2)
    for options in ({"neighbours": 16}, {"radius": 0.05}):
        weights = density_compensation(points, bounds=[(0, 1), (0, 1)], **options)  # type: ignore[arg-type]
        assert float(weights.sum()) == pytest.approx(1.0, rel=1e-12)
        assert float(weights[:4000].sum()) == pytest.approx(0.5, abs=0.02)
        ratio = weights[4000:] * 2000
        assert float(ratio.mean()) == pytest.approx(1.0, abs=0.05)
        assert float(ratio.std()) < 0.5


def test_density_weights_of_even_points_are_even() -> None:
    grid = Grid((9, 7), (0.5, 0.5), (0.25, 0.25))
    box = [(0.0, 4.5), (0.0, 3.5)]
    for options in ({"neighbours": 4}, {"neighbours": 12}, {"radius": 1.1}):
        weights = density_compensation(grid.nodes(), bounds=box, **options)  # type: ignore[arg-type]
        assert_close(weights, cell_volumes(grid.sizes, grid.steps).reshape(-1))
    # Without walls the outermost nodes find their neighbours farther away.
    open_ended = density_compensation(grid.nodes(), volume=15.75, neighbours=4)
    assert float(open_ended[0]) > 1.5 * float(open_ended[31])


@pytest.mark.parametrize("d", [1, 2, 3])
def test_density_weights_beat_the_plain_mean_and_converge(d: int) -> None:
    exact = (math.sin(3.0) / 3) ** d + 1
    errors: dict[str, list[float]] = {"density": [], "mean": []}
    for count in (300, 10000):
        squares = {"density": 0.0, "mean": 0.0}
        for seed in range(4):
            points = uniform(count, d, seed=seed) ** 1.5
            values = torch.cos(3 * points).prod(1) + 1
            density = density_compensation(points, bounds=[(0.0, 1.0)] * d)
            for name, weights in (("density", density), ("mean", plain_mean(count))):
                squares[name] += (float((weights * values).sum()) / exact - 1) ** 2 / 4
        for name, square in squares.items():
            errors[name].append(math.sqrt(square))
    assert errors["density"][1] < errors["density"][0] / 3
    assert errors["density"][1] < errors["mean"][1] / 5
    assert errors["mean"][1] > 0.01  # what dense places add does not average out


def test_density_weights_of_a_ragged_batch() -> None:
    points = cloud(60, 3, seed=2)
    splits = torch.tensor([0, 1, 1, 20, 60])
    weights = density_compensation(points, volume=5.0, splits=splits, neighbours=30)
    for first, last in zip(splits[:-1].tolist(), splits[1:].tolist(), strict=True):
        own = density_compensation(points[first:last], volume=5.0, neighbours=30)
        assert torch.equal(weights[first:last], own)
        assert float(own.sum()) == pytest.approx(5.0 if last > first else 0.0, rel=1e-12)
    assert float(weights[0]) == 5.0
    assert torch.equal(
        density_compensation(points, volume=5.0, splits=splits, neighbours=30, cap=0.2), weights.clamp(max=0.2)
    )


@pytest.mark.parametrize("options", [{"radius": 0.5}, {"neighbours": 4}, {"neighbours": 4, "dimensions": 1}], ids=str)
def test_points_at_one_place_share_its_weight(options: dict[str, float]) -> None:
    points = cloud(50, 2, seed=6)
    alone = density_compensation(points, volume=8.0, **options)  # type: ignore[arg-type]
    repeats = torch.arange(50) % 7 + 1
    repeated = density_compensation(points.repeat_interleave(repeats, 0), volume=8.0, **options)  # type: ignore[arg-type]
    assert_close(repeated, (alone / repeats).repeat_interleave(repeats))
    once = density_compensation(torch.zeros(20, 2), volume=1.0, **options)  # type: ignore[arg-type]
    assert_close(once, torch.full((20,), 1 / 20, dtype=torch.float64))


# ---- regions ----


def square(places: torch.Tensor) -> torch.Tensor:
    return torch.ones(len(places), dtype=torch.bool)


def ell(places: torch.Tensor) -> torch.Tensor:
    """The unit square without its upper right quarter."""
    return (places > 0.5).sum(1) < 2


def disc_with_holes(places: torch.Tensor) -> torch.Tensor:
    """Radius 1/2 about the middle of the unit square, two holes of radius 0.1."""
    holes = torch.tensor([[0.3, 0.5], [0.7, 0.55]], dtype=torch.float64)
    return ((places - 0.5).norm(dim=1) < 0.5) & (torch.cdist(places, holes) > 0.1).all(1)


def fading_square(places: torch.Tensor) -> torch.Tensor:
    """The unit square, from one side of which to the other the density falls by a factor e^3."""
    chance = torch.rand(len(places), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return chance < torch.exp(-3 * places[:, 0])


REGIONS = [
    (square, 1.0),
    (ell, 0.75),
    (disc_with_holes, math.pi * (0.25 - 0.02)),
    (fading_square, 1.0),
]


@pytest.mark.parametrize(("inside", "area"), REGIONS, ids=[inside.__name__ for inside, _ in REGIONS])
def test_points_cover_the_region_they_were_drawn_from(inside: Callable[..., torch.Tensor], area: float) -> None:
    """Whatever its outline, and however it is turned: the box around it, or its hull, are up to twice as large."""
    places = uniform(12000, 2, seed=3)
    places = places[inside(places)]
    covered = float(covered_volume(places))
    assert covered == pytest.approx(area, rel=0.04)
    assert covered < area  # a rim without points
    for angle in (0.3, math.pi / 4):
        turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]).double()
        turned = (1000 * places @ turn.T + torch.tensor([5e5, 5.4e6])).flip(0)
        assert float(covered_volume(turned)) == pytest.approx(1e6 * covered, rel=1e-6)


def test_covered_volumes_of_a_ragged_batch_and_of_lattices() -> None:
    lattice = torch.cartesian_prod(torch.arange(8.0), torch.arange(6.0))
    line = torch.arange(20.0)[:, None] * torch.tensor([1.0, 2.0])
    ring = lattice[((lattice - torch.tensor([3.5, 2.5])).abs() > 1).any(1)]
    parts = [lattice, lattice[:0], lattice[:2], line, lattice[:3] @ torch.rand(2, 2), ring.repeat(2, 1)]
    splits = torch.tensor([0, *(len(part) for part in parts)]).cumsum(0)
    found = covered_volume(torch.cat(parts), splits=splits)
    torch.testing.assert_close(found, torch.tensor([35.0, 0, 0, 0, 0, 35.0], dtype=torch.float64))
    box = torch.cartesian_prod(*(torch.arange(4.0),) * 3)
    torch.testing.assert_close(covered_volume(box), torch.tensor([27.0], dtype=torch.float64))


def test_integrals_over_a_region_of_unknown_outline() -> None:
    """Of the L: the unit square less its upper right quarter."""
    places = uniform(12000, 2, seed=5)
    places = places[ell(places)]
    weights = density_compensation(places, volume=float(covered_volume(places)))
    x, y = places.T
    for values, exact in ((x, 1 / 2 - 3 / 16), (x * y, 1 / 4 - (3 / 8) ** 2), ((3 * x).cos(), None)):
        if exact is None:
            exact = math.sin(3) / 3 - 0.5 * (math.sin(3) - math.sin(1.5)) / 3
        assert float((weights * values).sum()) == pytest.approx(exact, rel=0.05)


@given(st.integers(1, 3), st.integers(2, 40), st.integers(0, 1000), st.integers(1, 20), st.floats(0.01, 100.0))
def test_density_weights_sum_to_the_volume(d: int, count: int, seed: int, neighbours: int, unit: float) -> None:
    points = uniform(count, d, seed=seed)
    assume(len(points.unique(dim=0)) == count)
    weights = density_compensation(points, volume=2.0, neighbours=neighbours)
    assert bool((weights > 0).all())
    assert float(weights.sum()) == pytest.approx(2.0, rel=1e-12)
    # The unit of length cancels.
    assert_close(density_compensation(points * unit, volume=2.0, neighbours=neighbours), weights)


# ---- what is refused ----

SQUARE = ((0.0, 1.0), (0.0, 1.0))
REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "Simpson unsorted": (
        lambda: simpson(torch.tensor([0.0, 2.0, 1.0])),
        "positions must be sorted within a sample, got 2 followed by 1 at row 2",
    ),
    "Simpson repeated": (lambda: simpson(torch.tensor([0.0, 2.0, 2.0])), "positions must be distinct within a sample"),
    "Simpson nan": (lambda: simpson(torch.tensor([math.nan])), "positions must be finite, got nan at rows [0] of 1"),
    "Simpson splits": (
        lambda: simpson(torch.arange(3.0), splits=torch.tensor([0, 2])),
        "splits must end at the number of points 3, got 2",
    ),
    "Gauss without nodes": (lambda: gauss_legendre(0), "count must be at least 1, got 0"),
    "Gauss backwards": (lambda: gauss_legendre(3, 1.0, 0.0), "start must be below stop, got (1.0, 0.0)"),
    "Gauss to infinity": (lambda: gauss_legendre(3, 0.0, math.inf), "start and stop must be finite"),
    "product of nothing": (lambda: product_rule(), "weights must be given for at least one axis, got none"),
    "product of matrices": (
        lambda: product_rule(torch.ones(2), torch.ones(2, 2)),
        "weights of axis 1 must have shape (n,), got (2, 2)",
    ),
    "latitude beyond the pole": (
        lambda: spherical_areas(torch.tensor([0.0, 91.0])),
        "latitudes must lie between -90 and 90 degrees, got 91.0",
    ),
    "latitudes that turn": (lambda: spherical_areas(torch.tensor([0.0, 2.0, 1.0])), "latitudes must rise or fall"),
    "lone latitude": (lambda: spherical_areas(torch.tensor([0.0])), "latitudes must be at least 2"),
    "not Gaussian": (
        lambda: spherical_areas(torch.linspace(-80, 80, 9), gaussian=True),
        "latitudes must be the Gaussian latitudes, got one that is",
    ),
    "radius": (lambda: spherical_areas(torch.tensor([0.0, 1.0]), radius=0.0), "radius must be positive and finite"),
    "longitudes that fall": (
        lambda: spherical_areas(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0])),
        "longitudes must increase strictly",
    ),
    "longitudes around twice": (
        lambda: spherical_areas(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 360.0]), globe=True),
        "longitudes must span less than 360 degrees on a globe, got 360.0",
    ),
    "cells around twice": (
        lambda: spherical_areas(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 200.0])),
        "longitudes must have cells of at most 360 degrees together, got 400.0",
    ),
    "width of cells": (
        lambda: spherical_areas(torch.tensor([0.0, 1.0]), 0.0),
        "longitudes must be a width of more than 0 and at most 360 degrees, got 0.0",
    ),
    "mean of no volume": (lambda: plain_mean(3, volume=0.0), "volume must be positive and finite, got 0.0"),
    "mean observed": (
        lambda: plain_mean(3, observed=torch.ones(2, 1, dtype=torch.bool)),
        "observed must have shape (N, C) with N = 3, got (2, 1)",
    ),
    "Voronoi in 4-D": (
        lambda: voronoi(torch.zeros(3, 4), bounds=SQUARE * 2),
        "points must have shape (N, 2) or (N, 3), got (3, 4)",
    ),
    "Voronoi outside": (
        lambda: voronoi(torch.tensor([[0.5, 0.5], [0.5, 1.5]]), bounds=SQUARE),
        "points must lie within bounds, got [0.5, 1.5] at row 1",
    ),
    "Voronoi bounds": (
        lambda: voronoi(torch.zeros(1, 2), bounds=((0.0, 1.0),)),
        "bounds must have a lower and an upper end for each of 2 axes",
    ),
    "Voronoi bounds reversed": (
        lambda: voronoi(torch.zeros(1, 2), bounds=((0.0, 1.0), (1.0, 0.0))),
        "bounds must be finite, lower first",
    ),
    "Voronoi nan": (
        lambda: voronoi(torch.tensor([[0.5, math.nan]]), bounds=SQUARE),
        "points must be finite, got nan at rows [0] of 1",
    ),
    "Voronoi cap": (lambda: voronoi(torch.zeros(1, 2), bounds=SQUARE, cap=0.0), "cap must be positive and finite"),
    "density of unknown volume": (
        lambda: density_compensation(torch.zeros(1, 2)),
        "volume must be given, or bounds, but not both, got (None, None)",
    ),
    "density of too many dimensions": (
        lambda: density_compensation(torch.zeros(20, 2), volume=1.0, dimensions=3),
        "dimensions must lie in 1..2, the number of axes, got 3",
    ),
    "covered in 4-D": (
        lambda: covered_volume(torch.zeros(3, 4)),
        "points must have shape (N, 2) or (N, 3), got (3, 4)",
    ),
    "covered nan": (lambda: covered_volume(torch.full((4, 2), math.nan)), "points must be finite, got nan at rows"),
    "density neighbours": (
        lambda: density_compensation(torch.zeros(2, 2), volume=1.0, neighbours=0),
        "neighbours must be at least 1, got 0",
    ),
    "density radius": (
        lambda: density_compensation(torch.zeros(2, 2), volume=1.0, radius=-1.0),
        "radius must be positive and finite, got -1.0",
    ),
}


@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
