"""A sample's answer is its own: standardised by itself, whatever pads it and whoever shares its batch; by NumPy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ccnn_irregular import KernelSpec
from ccnn_irregular.adapters.geometric import CLOUD_KERNEL
from ccnn_irregular.adapters.geometric_weights import cloud_weights
from ccnn_irregular.datasets.samples import GriddedSamples, RaggedSeries
from ccnn_irregular.domains import Points
from ccnn_irregular.pipelines.tasks.classification.augmentation import Augmentation
from ccnn_irregular.pipelines.tasks.classification.content import sampled_points
from ccnn_irregular.pipelines.tasks.classification.data import SampleBatch, SampleDataModule
from ccnn_irregular.pipelines.tasks.classification.network import (
    ContinuousClassifier,
    FixedKernelClassifier,
    GridOptions,
    Standardise,
)
from ccnn_irregular.pipelines.tasks.classification.sampling import on_one_grid, resample_series
from ccnn_irregular.pipelines.tasks.cloud_classification.network import CloudClassifier
from ccnn_irregular.pipelines.train.draws import Draws

STEP = 0.01


def recordings(lengths: list[int], channels: int = 2, seed: int = 0) -> RaggedSeries:
    """Noise of unequal loudness about unequal means."""
    rng = np.random.default_rng(seed)
    loud, mean = rng.uniform(0.1, 10, (len(lengths), 1)), rng.normal(0, 5, (len(lengths), channels))
    pieces = [
        level * rng.standard_normal((length, channels)) + middle
        for length, level, middle in zip(lengths, loud, mean, strict=True)
    ]
    splits = torch.tensor([0, *lengths]).cumsum(0)
    values = torch.from_numpy(np.concatenate(pieces).astype(np.float32))
    return RaggedSeries.uniform(values, STEP, splits, torch.arange(len(lengths)) % 2, ("a", "b"), "s")


def pieces_of(series: RaggedSeries) -> list[np.ndarray]:
    return [piece.double().numpy() for piece in series.values.split(series.splits.diff().tolist())]


def deviation(piece: np.ndarray, weights: np.ndarray | None = None) -> float:
    """About the channels' means, one for all channels; nan and what weighs nothing is left out."""
    weights = np.ones_like(piece) if weights is None else np.broadcast_to(weights, piece.shape)
    variances = []
    for values, counts in zip(piece.T, weights.T, strict=True):
        read = counts > 0
        if read.any():
            mean = np.average(values[read], weights=counts[read])
            variances.append(np.average((values[read] - mean) ** 2, weights=counts[read]))
    return float(np.sqrt(np.mean(variances))) if variances else 0.0


@given(st.lists(st.integers(2, 40), min_size=1, max_size=5), st.integers(0, 100), st.integers(0, 30))
def test_what_pads_a_sample_is_no_part_of_its_deviation(lengths: list[int], seed: int, more: int) -> None:
    series = recordings(lengths, seed=seed)
    padded = on_one_grid(series, (max(lengths) + more) * STEP)
    batch = SampleBatch.of(padded)
    standardise = Standardise(2, each=True)
    standardise.fit(series.values)
    result = standardise(batch.values, batch.domain, batch.sampled)
    for number, piece in enumerate(pieces_of(series)):
        wanted = (piece - standardise.mean.double().numpy()) / deviation(piece)
        found = result[number].T.numpy()
        np.testing.assert_allclose(found[: len(piece)], wanted, rtol=1e-4, atol=1e-4)
        assert not found[len(piece) :].any()


@given(st.lists(st.integers(2, 40), min_size=1, max_size=5), st.integers(0, 100), st.floats(0, 0.6))
def test_points_are_standardised_by_their_quadrature_weights(lengths: list[int], seed: int, missing: float) -> None:
    series = recordings(lengths, seed=seed)
    rng = np.random.default_rng(seed)
    steps = torch.from_numpy(rng.uniform(0.01, 1, (len(series.values), 1))).cumsum(0)
    values = series.values.masked_fill(torch.from_numpy(rng.random(series.values.shape) < missing), torch.nan)
    points = sampled_points(steps, values, series.splits, None)
    standardise = Standardise(2, each=True)
    standardise.fit(series.values)
    result = standardise(values, points).double().numpy()
    scale = standardise.scale.double().numpy()
    for first, last in zip(series.splits[:-1].tolist(), series.splits[1:].tolist(), strict=True):
        own = deviation(
            values[first:last].double().numpy(), points.weights[first:last].numpy().reshape(last - first, -1)
        )
        wanted = (values[first:last].double().numpy() - standardise.mean.double().numpy()) / (own if own > 0 else scale)
        np.testing.assert_allclose(result[first:last], wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("constant", [0.1, -37.3, 3e22])
def test_a_constant_series_is_divided_as_the_others_are(constant: float) -> None:
    """It has no deviation, to the last bit, however its weights are rounded; nor has a single sample."""
    standardise = Standardise(1, each=True)
    standardise.scale.fill_(2.0)
    times = torch.rand(143, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).cumsum(0)
    points = sampled_points(times, torch.full((143, 1), constant), torch.tensor([0, 142, 143]), None)
    result = standardise(torch.full((143, 1), constant), points)
    torch.testing.assert_close(result, torch.full((143, 1), constant) / 2)


@pytest.mark.parametrize("each", [False, True])
def test_repeated_points_at_a_share_of_their_weight_change_nothing(each: bool) -> None:
    values, weights = torch.randn(30, 2), torch.rand(30, dtype=torch.float64)
    rows = torch.arange(30).repeat_interleave(torch.arange(30) % 3 + 1)
    shared = (weights / (torch.arange(30) % 3 + 1))[rows]
    standardise = Standardise(2, each)
    standardise.fit(values)
    once, often = (
        standardise(own, Points(torch.zeros(len(own), 1, dtype=torch.float64), weight))
        for own, weight in ((values, weights), (values[rows], shared))
    )
    torch.testing.assert_close(often, once[rows])


def test_normalisation_is_not_learned_from_what_pads() -> None:
    data = SampleDataModule("simulated_digits", count=120, window=1.0)
    data.setup("fit")
    padded = data.part("train")
    assert isinstance(padded, GriddedSamples)
    assert padded.lengths is not None
    assert int(padded.lengths.max()) < padded.grid.count
    standardise = Standardise(1)
    standardise.fit(*data.training_values())
    known = np.concatenate(
        [one[0, :length] for one, length in zip(padded.values.numpy(), padded.lengths.tolist(), strict=True)]
    )
    np.testing.assert_allclose(float(standardise.scale), known.astype(np.float64).std(), rtol=1e-5)
    np.testing.assert_allclose(float(standardise.mean), known.astype(np.float64).mean(), rtol=1e-4, atol=1e-7)


def test_augmentation_moves_what_pads_with_the_values() -> None:
    batch = SampleBatch.of(on_one_grid(recordings([20, 35, 7]), 0.5))
    marked = SampleBatch(batch.sampled.expand(-1, 2, -1).float(), batch.domain, batch.labels, sampled=batch.sampled)  # type: ignore[union-attr]
    moved = Augmentation(shift=(0.2,), flip=True)(marked, Draws(0, 0, torch.arange(3)))
    assert moved.sampled is not None
    assert not torch.equal(moved.sampled, batch.sampled)  # type: ignore[arg-type]
    assert torch.equal(moved.sampled.expand(-1, 2, -1).float(), moved.values)


def test_lengths_follow_subsets_and_rates() -> None:
    padded = on_one_grid(recordings([20, 35, 7]), 0.5)
    assert padded.subset(torch.tensor([2, 0])).lengths.tolist() == [7, 20]  # type: ignore[union-attr]
    assert resample_series(padded, 50.0).lengths.tolist() == [10, 18, 4]  # type: ignore[union-attr]
    cut = on_one_grid(recordings([20, 35, 7]), 0.1)
    assert cut.lengths.tolist() == [10, 10, 7]  # type: ignore[union-attr]
    with pytest.raises(ValueError, match=r"lengths must be int64 of shape \(3,\), 0 to the nodes of one axis"):
        GriddedSamples(padded.values, padded.grid, padded.labels, padded.classes, "s", torch.tensor([1, 2, 51]))


# ------------------------------------------------------------------------------------------------ alone and together


def grid_batches() -> tuple[Any, list[SampleBatch]]:
    network = FixedKernelClassifier(2, 2, hidden_channels=4, blocks=2, each=True)
    series = recordings([30, 50, 11, 2])
    alone = [series.subset(torch.tensor([number])) for number in range(4)]
    return network, [SampleBatch.of(on_one_grid(some, 0.5)) for some in (series, *alone)]


def continuous(**options: Any) -> ContinuousClassifier:
    kernel = KernelSpec(extent=[0.3], omega_0=5.0, hidden=8)
    return ContinuousClassifier(2, 2, hidden_channels=4, blocks=1, kernel=kernel, each=True, **options)


def continuous_grid_batches() -> tuple[Any, list[SampleBatch]]:
    return continuous(), grid_batches()[1]


def series_batches() -> tuple[Any, list[SampleBatch]]:
    network = continuous(latent=GridOptions([40], [0.0125]), presence=True)
    series = recordings([30, 50, 11, 2])
    alone = [series.subset(torch.tensor([number])) for number in range(4)]
    return network, [SampleBatch.of(some) for some in (series, *alone)]


def cloud_batches() -> tuple[Any, list[SampleBatch]]:
    network = CloudClassifier(
        1,
        2,
        kernel=replace(CLOUD_KERNEL, hidden=4),
        reading=0.1,
        spacing=0.3,
        channels=(4, 8),
    )
    sizes = [30, 200, 1, 60]
    generator = torch.Generator().manual_seed(0)
    places = [torch.rand(size, 3, dtype=torch.float64, generator=generator) for size in sizes]

    def batch(some: list[torch.Tensor]) -> SampleBatch:
        splits = torch.tensor([0, *map(len, some)]).cumsum(0)
        points = Points(torch.cat(some), splits=splits)
        weighed = Points(points.coordinates, cloud_weights(points, "volume"), splits)
        return SampleBatch(torch.ones(points.count, 1), weighed, torch.zeros(len(some), dtype=torch.int64))

    return network, [batch(places), *(batch([one]) for one in places)]


@pytest.mark.parametrize("made", [grid_batches, continuous_grid_batches, series_batches, cloud_batches])
def test_a_sample_alone_and_among_longer_ones_has_the_same_answer(made: Any) -> None:
    torch.manual_seed(0)
    network, (together, *alone) = made()
    if isinstance(network, CloudClassifier):
        network.prepare(together)
    else:
        network.prepare(together, (together.values, None))
    network.train()
    with torch.no_grad():
        for _ in range(20):  # norms follow the batch
            network(together)
        network.eval()
        answers = network(together)
        for number, batch in enumerate(alone):
            torch.testing.assert_close(network(batch), answers[number : number + 1], rtol=2e-3, atol=2e-3)
    assert float(answers.std(0).min()) > 0.01
