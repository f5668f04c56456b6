"""Intervals of shares, of mean scores and of risks' metrics lie in [0, 1] and are those of SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ccnn_irregular.pipelines.tasks.segmentation.task import Scores, SliceSampling, _results
from ccnn_irregular.pipelines.tasks.series.figures import _wilson
from ccnn_irregular.pipelines.tasks.series.risks import METRICS, evaluate
from ccnn_irregular.pipelines.train.evaluation import wilson_interval


@given(n=st.integers(1, 10**6), share=st.floats(0, 1))
def test_intervals_of_shares_are_wilsons(n: int, share: float) -> None:
    correct = round(share * n)
    low, high = wilson_interval(correct, n)
    wanted = stats.binomtest(correct, n).proportion_ci(0.95, method="wilson")
    assert (low, high) == pytest.approx((wanted.low, wanted.high), abs=1e-8)
    assert 0 <= low <= correct / n <= high <= 1
    lows, highs = _wilson(np.array([correct / n]), np.array([n]))
    assert (lows[0], highs[0]) == pytest.approx((low, high), abs=2e-5)
    assert 0 <= lows[0] <= highs[0] <= 1


@pytest.mark.parametrize("values", [[0.99, 1.0, 0.8], [0.0, 0.01, 0.0], [1.0, 1.0], [0.0, 1.0]])
def test_intervals_of_mean_dice_lie_in_the_range_of_dice(values: list[float]) -> None:
    table = np.array(values)[:, None]
    for result in _results({SliceSampling(): Scores(table, table, 0.0)}, ["background", "organ"]):
        half = 1.959964 * np.std(values, ddof=1) / np.sqrt(len(values))
        assert result.low == pytest.approx(max(np.mean(values) - half, 0))
        assert result.high == pytest.approx(min(np.mean(values) + half, 1))


@given(seed=st.integers(0, 10_000), stays=st.integers(2, 40), levels=st.integers(1, 30), perfect=st.booleans())
def test_intervals_of_metrics_lie_in_the_range_of_shares(seed: int, stays: int, levels: int, perfect: bool) -> None:
    generator = np.random.default_rng(seed)
    labels = (generator.random(stays) < 0.3).astype(np.int64)
    labels[:2] = 0, 1
    risks = labels.astype(np.float64) if perfect else generator.integers(0, levels + 1, stays) / levels
    for flipped in (risks, 1 - risks):
        found = evaluate(labels, flipped, resamples=20, seed=seed)
        assert found.keys() == METRICS.keys()
        for one in found.values():
            assert 0 <= one.low <= one.high <= 1
            assert 0 <= one.value <= 1 + 1e-7
