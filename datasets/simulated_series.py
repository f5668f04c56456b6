"""Simulated irregular series whose best possible forecast is known, for tests, examples and method studies.

Five variables share three hidden processes z_k, independent and Gaussian, of mean 0 and

    E z_k(s) z_k(t) = exp(-|s - t| / MEMORIES[k]) cos(2 pi (s - t) / PERIODS[k])                 times in hours

and each is measured at times of its own:

    x_c(t) = MEANS[c] + sum_k LOADS[c, k] z_k(t) + NOISE * N(0, 1)

So the mean of any value given any others is a matter of linear algebra (``best_forecast``), and no forecast has a
smaller expected squared error.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ccnn_irregular._checks import require
from ccnn_irregular.datasets.registry import DataSet, register
from ccnn_irregular.datasets.samples import RaggedSeries

__all__ = ["VARIABLES", "best_forecast", "load"]

VARIABLES = ("slow", "daily", "both", "opposed", "fast")
MEMORIES = np.array([30.0, 120.0, 4.0])  # hours
PERIODS = np.array([np.inf, 24.0, np.inf])  # hours
LOADS = np.array([[1.0, 0.2, 0.0], [0.2, 1.0, 0.0], [0.7, 0.7, 0.1], [-0.7, 0.6, 0.2], [0.4, 0.0, 0.9]])
MEANS = np.array([0.0, 10.0, -5.0, 3.0, 1.0])
NOISE = 0.15
_RATES = (0.8, 0.5, 0.3, 0.4, 0.6)  # share of the times of a series at which each variable is measured
_TIMES = 64
_HOURS = 48.0

Floats = NDArray[np.float64]


def load(count: int = 600, *, seed: int = 0) -> RaggedSeries:
    """Series over 48 hours.

    Args:
        count: number of series.
        seed: of everything, not negative.

    Returns:
        Values ``(N, 5)``, nan where a variable was not measured at that time; times in hours. Nothing is labelled: all
        belong to one class.
    """
    require(count >= 1, "count", "be at least 1", count)
    require(seed >= 0, "seed", "not be negative", seed)
    rng = np.random.default_rng(seed)
    times = np.sort(rng.uniform(0, _HOURS, (count, _TIMES)), axis=1)
    gaps = times[:, :, None] - times[:, None, :]
    # (process, series, time): correlated by the factor of each covariance.
    factors = np.linalg.cholesky(_covariances(gaps) + 1e-9 * np.eye(_TIMES))
    hidden = np.einsum("kbst,kbt->kbs", factors, rng.standard_normal((len(MEMORIES), count, _TIMES)))
    values = MEANS + np.einsum("kbs,ck->bsc", hidden, LOADS)
    values += NOISE * rng.standard_normal(values.shape)
    values[rng.random(values.shape) >= _RATES] = np.nan
    series = RaggedSeries(
        values=torch.from_numpy(values.reshape(-1, len(VARIABLES)).astype(np.float32)),
        coordinates=torch.from_numpy(times.reshape(-1, 1)),
        splits=torch.arange(count + 1) * _TIMES,
        labels=torch.zeros(count, dtype=torch.int64),
        classes=("series",),
        unit="h",
        channels=VARIABLES,
    )
    return series.keep(~series.values.isnan().all(1))


def best_forecast(history: RaggedSeries, asked: RaggedSeries) -> Tensor:
    """Mean of every variable given what was measured before: no forecast has a smaller expected squared error.

    Args:
        history: B series of ``load``, or parts of them.
        asked: the same series at the times asked for, M in all; their values are not read.

    Returns:
        ``(M, 5)`` float32.
    """
    parts = []
    for number in range(len(history)):
        known, wanted = (series.subset(torch.tensor([number])) for series in (history, asked))
        parts.append(_conditional_mean(known.times.numpy(), known.values.double().numpy(), wanted.times.numpy()))
    return torch.from_numpy(np.concatenate(parts).astype(np.float32))


def _conditional_mean(times: Floats, values: Floats, asked: Floats) -> Floats:
    """Gaussian regression for one series: ``(n,)``, ``(n, 5)`` and ``(m,)`` to ``(m, 5)``."""
    rows, channels = np.nonzero(~np.isnan(values))
    loads = LOADS[channels]
    among = np.einsum("kij,ik,jk->ij", _covariances(times[rows][:, None] - times[rows]), loads, loads)
    across = np.einsum("kmj,ck,jk->mcj", _covariances(asked[:, None] - times[rows]), LOADS, loads)
    deviations = values[rows, channels] - MEANS[channels]
    return MEANS + across @ np.linalg.solve(among + NOISE**2 * np.eye(len(rows)), deviations)


def _covariances(gaps: Floats) -> Floats:
    """Of each hidden process at some differences of time: one axis more, in front."""
    shape = (-1, *[1] * gaps.ndim)
    return np.exp(-np.abs(gaps) / MEMORIES.reshape(shape)) * np.cos(2 * np.pi * gaps / PERIODS.reshape(shape))


register(
    DataSet(
        name="simulated_series",
        about="irregular series of five variables whose best possible forecast is known",
        load=load,
        samples=RaggedSeries,
        shape="5 variables, 48 hours",
    )
)
