"""Quadrature weights: exact where the rule is exact, nothing where nothing was observed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from contract_cases import uniform
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ccnn_irregular import Grid
from ccnn_irregular.quadrature import cell_volumes, trapezoid
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
