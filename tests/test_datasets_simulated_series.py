"""The simulated series: their covariance, their seed, and that no forecast beats the best one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ccnn_irregular.datasets import registry, simulated_series
from ccnn_irregular.datasets.simulated_series import LOADS, MEANS, MEMORIES, NOISE, PERIODS, VARIABLES, best_forecast


def covariance(first: tuple[float, int], second: tuple[float, int]) -> float:
    """Of two measured values, (time, variable) each, by the formula in the module's words."""
    (s, a), (t, b) = first, second
    total = sum(
        LOADS[a, k] * LOADS[b, k] * np.exp(-abs(s - t) / MEMORIES[k]) * np.cos(2 * np.pi * (s - t) / PERIODS[k])
        for k in range(len(MEMORIES))
    )
    return total + (NOISE**2 if first == second else 0.0)


def test_form_and_seed() -> None:
    series = registry.load("simulated_series", count=20, seed=1)
    assert (len(series), series.values.shape[1], series.channels, series.unit) == (20, 5, VARIABLES, "h")
    assert 0 <= float(series.times.min()) < float(series.times.max()) <= 48
    assert not bool(series.values.isnan().all(1).any())
    assert torch.equal(series.values.nan_to_num(), simulated_series.load(20, seed=1).values.nan_to_num())
    assert len(torch.unique(series.splits.diff())) > 1


def test_moments_are_those_of_the_model() -> None:
    series = simulated_series.load(3000)
    values = series.values.double().numpy()
    np.testing.assert_allclose(np.nanmean(values, 0), MEANS, atol=0.05)
    wanted = [covariance((0.0, one), (0.0, one)) for one in range(5)]
    np.testing.assert_allclose(np.nanvar(values, 0), wanted, rtol=0.06)


def test_the_best_forecast_is_the_regression_on_all_that_was_measured() -> None:
    """Against normal equations written out value by value."""
    series = simulated_series.load(3, seed=4)
    history, asked = series.keep(series.times < 12), series.at([12.0, 30.0])
    found = best_forecast(history, asked).reshape(3, 2, 5)
    for number in range(3):
        one = history.subset(torch.tensor([number]))
        cells = [(t, c, v) for t, row in zip(one.times.tolist(), one.values.tolist(), strict=True)
                 for c, v in enumerate(row) if not np.isnan(v)]  # fmt: skip
        places = [(t, c) for t, c, _ in cells]
        among = np.array([[covariance(p, q) for q in places] for p in places])
        deviations = np.array([value - MEANS[c] for _, c, value in cells])
        for place, time in enumerate((12.0, 30.0)):
            across = np.array([[covariance((time, c), q) for q in places] for c in range(5)])
            wanted = MEANS + across @ np.linalg.solve(among, deviations)
            np.testing.assert_allclose(found[number, place], wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("options", "message"), [({"count": 0}, "count"), ({"seed": -1}, "seed")])
def test_wrong_arguments_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        simulated_series.load(**options)
