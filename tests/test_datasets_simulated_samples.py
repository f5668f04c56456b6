"""The simulated strokes, sounds and shapes: their form, and that their labels can be learnt from the signals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from ccnn_irregular.datasets import simulated_samples
from ccnn_irregular.datasets.samples import GriddedSamples, RaggedSeries

MAKERS: dict[str, Callable[..., RaggedSeries | GriddedSamples]] = {
    "strokes": simulated_samples.pen_strokes,
    "digits": simulated_samples.spoken_digits,
    "shapes": simulated_samples.shapes,
}


def series_values(series: RaggedSeries) -> list[np.ndarray]:
    return [part.numpy() for part in series.values.split(series.splits.diff().tolist())]


def test_form_and_units() -> None:
    strokes, digits = simulated_samples.pen_strokes(30), simulated_samples.spoken_digits(30)
    assert (strokes.values.shape[1], len(strokes.classes)) == (3, 6)
    assert (digits.values.shape[1], digits.classes) == (1, tuple("0123456789"))
    for series, rate, shortest, longest in ((strokes, 200, 0.3, 0.9), (digits, 8000, 0.15, 0.5)):
        assert series.unit == "s"
        np.testing.assert_allclose(series.coordinates[1:5, 0], np.arange(1, 5) / rate, rtol=1e-12)
        durations = series.splits.diff() / rate
        assert shortest <= float(durations.min()) < float(durations.max()) <= longest + 1 / rate
        assert len(torch.unique(durations)) > 20
    assert float(digits.values.abs().max()) < 1.1
    shapes = simulated_samples.shapes(12)
    assert shapes.values.shape == (12, 1, 28, 28)
    assert (float(shapes.values.min()), float(shapes.values.max())) == (0, 1)


@pytest.mark.parametrize("kind", MAKERS)
def test_classes_are_balanced_and_the_seed_decides(kind: str) -> None:
    make = MAKERS[kind]
    first, again, other = make(61, seed=1), make(61, seed=1), make(61, seed=2)
    counts = torch.bincount(first.labels, minlength=len(first.classes))
    assert int(counts.max() - counts.min()) <= 1
    assert torch.equal(first.values, again.values)
    assert not torch.equal(first.labels, other.labels)
    assert not torch.equal(first.labels, first.labels.sort().values)


def test_another_rate_or_size_shows_the_same_samples() -> None:
    for make, factor in ((simulated_samples.pen_strokes, 4), (simulated_samples.spoken_digits, 2)):
        rate = {4: 200, 2: 8000}[factor]
        full, low = make(20, noise=0), make(20, noise=0, rate=rate / factor)
        assert torch.equal(full.labels, low.labels)
        for dense, sparse in zip(series_values(full), series_values(low), strict=True):
            np.testing.assert_allclose(sparse, dense[::factor], atol=1e-5)
    large, small = (simulated_samples.shapes(20, noise=0, sizes=(size, size)) for size in (56, 28))
    averaged = torch.nn.functional.avg_pool2d(large.values, 2)
    assert float((averaged - small.values).abs().mean()) < 0.01
    assert simulated_samples.shapes(2, sizes=(14, 56)).grid.steps == (2.0, 0.5)


def stroke_features(strokes: RaggedSeries) -> np.ndarray:
    """Each channel at 24 places along the stroke."""
    rows = [
        np.concatenate([np.interp(np.linspace(0, 1, 24), np.linspace(0, 1, len(v)), channel) for channel in v.T[:2]])
        for v in series_values(strokes)
    ]
    return np.array(rows)


def digit_features(digits: RaggedSeries) -> np.ndarray:
    """Power in bands of 50 Hz up to 1,500 Hz, in the first and the last third of the recording."""
    rows = []
    for values in series_values(digits):
        third = len(values) // 3
        parts = [np.abs(np.fft.rfft(part[:, 0], 8000)) for part in (values[:third], values[-third:])]
        rows.append(np.concatenate([part[:1500].reshape(30, 50).mean(1) / part[:1500].mean() for part in parts]))
    return np.array(rows)


def shape_features(shapes: GriddedSamples) -> np.ndarray:
    """Magnitudes of the lowest spatial frequencies, which do not depend on the place."""
    spectrum = np.abs(np.fft.fft2(shapes.values[:, 0].numpy()))[:, :10, :10]
    return (spectrum / spectrum[:, :1, :1]).reshape(len(shapes), -1)


@pytest.mark.parametrize(
    ("kind", "count", "features", "least"),
    [
        ("strokes", 300, stroke_features, 0.9),
        ("digits", 300, digit_features, 0.9),
        ("shapes", 400, shape_features, 0.8),
    ],
)
def test_labels_can_be_learnt_from_the_signal(kind: str, count: int, features: Any, least: float) -> None:
    ensemble = pytest.importorskip("sklearn.ensemble", reason="the extra 'train' is not installed")
    samples = MAKERS[kind](count, seed=5)
    inputs, labels = features(samples), samples.labels.numpy()
    half = count // 2

    def accuracy(targets: np.ndarray) -> float:
        model = ensemble.RandomForestClassifier(100, random_state=0, n_jobs=1)
        return float(model.fit(inputs[:half], targets[:half]).score(inputs[half:], targets[half:]))

    assert accuracy(labels) > least
    assert accuracy(np.random.default_rng(0).permutation(labels)) < 0.4


@pytest.mark.parametrize("kind", MAKERS)
def test_wrong_arguments_are_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        MAKERS[kind](0)
    with pytest.raises(ValueError, match="seed must not be negative, got -1"):
        MAKERS[kind](5, seed=-1)
    if kind == "shapes":
        with pytest.raises(ValueError, match=r"sizes must be two positive integers, got \(28,\)"):
            simulated_samples.shapes(5, sizes=(28,))
    else:
        with pytest.raises(ValueError, match="rate must be positive, got 0"):
            MAKERS[kind](5, rate=0)
