"""Batches, other samplings, augmentation and networks of the classification, against formulas and each other."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch

from ccnn_irregular import KernelSpec, Solver
from ccnn_irregular.datasets import simulated_samples
from ccnn_irregular.datasets.samples import GriddedSamples, RaggedSeries, split_stratified
from ccnn_irregular.domains import Grid, Points
from ccnn_irregular.pipelines.tasks.classification.augmentation import Augmentation
from ccnn_irregular.pipelines.tasks.classification.data import SampleBatch, SampleDataModule
from ccnn_irregular.pipelines.tasks.classification.network import (
    ContinuousClassifier,
    FilterBank,
    FixedKernelClassifier,
    GridOptions,
    Standardise,
)
from ccnn_irregular.pipelines.tasks.classification.sampling import Sampling, grid_sizes, on_one_grid, resample_series
from ccnn_irregular.pipelines.train.draws import Draws
from ccnn_irregular.quadrature import trapezoid


def sines(rate: float, frequency: float, lengths: tuple[int, ...] = (800, 400)) -> RaggedSeries:
    splits = torch.tensor([0, *lengths]).cumsum(0)
    times = torch.cat([torch.arange(length, dtype=torch.float64) / rate for length in lengths])
    values = torch.sin(2 * math.pi * frequency * times).float()[:, None]
    labels = torch.arange(len(lengths))
    return RaggedSeries.uniform(values, 1 / rate, splits, labels, ("a", "b"), "s")


# -------------------------------------------------------------------------------------------------------- samplings


@pytest.mark.parametrize("rate", [4000.0, 6400.0, 16000.0])
def test_a_tone_at_another_rate_is_the_tone_looked_up_there(rate: float) -> None:
    changed = resample_series(sines(8000, 700), rate)
    assert changed.splits.tolist() == [0, math.ceil(rate / 10), math.ceil(rate / 10) + math.ceil(rate / 20)]
    first = changed.values[: changed.splits[1], 0].double()
    times = torch.arange(len(first), dtype=torch.float64) / rate
    torch.testing.assert_close(changed.coordinates[: len(first), 0], times)
    inside = (times > 0.01) & (times < 0.09)
    torch.testing.assert_close(first[inside], torch.sin(2 * math.pi * 700 * times)[inside], rtol=0, atol=5e-3)


def test_what_a_lower_rate_cannot_hold_is_filtered_out() -> None:
    changed = resample_series(sines(8000, 3200), 4000.0).values[40:160]
    assert float(changed.abs().max()) < 0.05
    gridded = on_one_grid(sines(8000, 3200, (800, 800)), 0.1)
    assert float(resample_series(gridded, 4000.0).values[:, :, 40:360].abs().max()) < 0.05


def test_series_on_one_grid_are_cut_or_followed_by_zeros() -> None:
    series = RaggedSeries.uniform(
        torch.arange(1.0, 9.0)[:, None], 0.5, torch.tensor([0, 2, 8]), torch.tensor([0, 1]), ("a", "b"), "s"
    )
    gridded = on_one_grid(series, 2.0)
    assert gridded.values[:, 0].tolist() == [[1, 2, 0, 0], [3, 4, 5, 6]]
    assert gridded.grid == Grid((4,), (0.5,))
    with pytest.raises(ValueError, match=r"window must hold at least two samples 0\.5 apart, got 0\.5"):
        on_one_grid(series, 0.5)
    times = torch.tensor([[0.0], [1.0], [3.0]], dtype=torch.float64)
    uneven = RaggedSeries(torch.zeros(3, 1), times, torch.tensor([0, 3]), torch.tensor([0]), ("a",), "s")
    with pytest.raises(ValueError, match="series must be sampled uniformly to be resampled or put on a grid"):
        on_one_grid(uneven, 2.0)


def test_sizes_in_words() -> None:
    images = ("test.image_size", "14x14 28x56")
    assert grid_sizes(["14x14", "28X56", 42, 42], *images) == [(14, 14), (28, 56), (42, 42)]
    assert grid_sizes(["24x24x24", "20x30x30"], "test.volume_size", "24x24x24 20x30x30") == [(24, 24, 24), (20, 30, 30)]
    assert grid_sizes([], *images) == []
    for words in (["14"], ["14x"], ["0x3"], ["a", "b"], ["14.5", "3"], ["14x14x14"]):
        with pytest.raises(ValueError, match=r"test\.image_size must be sizes along 2 axes such as 14x14 28x56, got"):
            grid_sizes(words, *images)


def test_parts_are_stratified_disjoint_and_seeded() -> None:
    data = SampleDataModule("simulated_strokes", count=120, validation=0.2, test=0.2, drop_seed=3)
    data.setup("fit")
    train, watched, held = data.part("train"), data.part("validation"), data.sampled_part("test", Sampling())
    assert [len(part) for part in (train, watched, held)] == [72, 24, 24]
    for part in (train, watched, held):
        assert torch.bincount(part.labels).unique().numel() == 1
    parts = split_stratified(data.samples.labels, validation=0.2, test=0.2, seed=0)
    assert torch.equal(held.values, data.samples.subset(parts.test).values)
    # Dropping comes before the split: the test series lose what they would have lost in the whole set.
    thinned = data.sampled_part("test", Sampling(drop=0.5))
    assert isinstance(thinned, RaggedSeries)
    assert isinstance(held, RaggedSeries)
    assert torch.equal(thinned.splits.diff(), held.splits.diff() - held.splits.diff() // 2)
    assert torch.equal(data.sampled_part("test", Sampling(drop=0.5)).values, thinned.values)
    batches = list(data.train_dataloader())
    assert sum(len(batch) for batch in batches) == 72


def test_missing_values_weigh_nothing() -> None:
    values = torch.tensor([[1.0, 2.0], [math.nan, 3.0], [5.0, 4.0]])
    series = RaggedSeries.uniform(values, 1.0, torch.tensor([0, 3]), torch.tensor([0]), ("a",), "s")
    batch = SampleBatch.of(series)
    assert isinstance(batch.domain, Points)
    expected = trapezoid(series.coordinates[:, 0], observed=~values.isnan(), splits=series.splits)
    torch.testing.assert_close(batch.domain.weights, expected)
    assert batch.domain.weights[1, 0] == 0
    network = points_network(in_channels=2)
    filled = torch.where(values.isnan(), 77.0, values)
    network.standardise.fit(values)
    with torch.no_grad():
        answers = [network.eval()(SampleBatch(v, batch.domain, batch.labels)) for v in (values, filled)]
    torch.testing.assert_close(answers[0], answers[1])


# ----------------------------------------------------------------------------------------------------- augmentation


def draws_of(batch: SampleBatch) -> Draws:
    return Draws(0, 0, torch.arange(len(batch)))


def test_dropping_keeps_true_times_and_values() -> None:
    series = simulated_samples.pen_strokes(20, seed=1)
    batch = SampleBatch.of(series)
    changed = Augmentation(drop=0.8)(batch, draws_of(batch))
    assert isinstance(changed.domain, Points)
    kept = changed.domain.splits.diff() / series.splits.diff()
    assert float(kept.min()) > 0.1
    assert float(kept.max()) > 0.8
    assert 0.4 < float(kept.mean()) < 0.8
    before = {
        (int(s), float(t)): v
        for s, t, v in zip(series.points().sample_index(), series.coordinates, series.values[:, 0], strict=True)
    }
    rows = zip(changed.domain.sample_index(), changed.domain.coordinates, changed.values[:, 0], strict=True)
    assert all(before[int(sample), float(time)] == value for sample, time, value in rows)
    expected = trapezoid(changed.domain.coordinates[:, 0], splits=changed.domain.splits)
    torch.testing.assert_close(changed.domain.weights, expected)


def test_stretching_scales_the_times_of_each_series() -> None:
    batch = SampleBatch.of(simulated_samples.pen_strokes(10, seed=1))
    changed = Augmentation(stretch=0.2)(batch, draws_of(batch))
    assert isinstance(changed.domain, Points)
    assert isinstance(batch.domain, Points)
    ends = batch.domain.splits[1:] - 1
    factors = changed.domain.coordinates[ends, 0] / batch.domain.coordinates[ends, 0]
    assert factors.unique().numel() == 10
    assert bool(((factors > 0.8) & (factors < 1.2)).all())
    torch.testing.assert_close(
        changed.domain.coordinates[:, 0],
        batch.domain.coordinates[:, 0] * factors[batch.domain.sample_index()],
    )


def test_low_pass_takes_high_tones_from_half_of_the_entries() -> None:
    grid = Grid((1000,), (1 / 1000,))
    times = grid.nodes()[:, 0]
    low, high = (torch.sin(2 * math.pi * frequency * times).float() for frequency in (20, 480))
    batch = SampleBatch((low + high).repeat(400, 1, 1), grid, torch.zeros(400, dtype=torch.int64))
    spectra = torch.fft.rfft(Augmentation(low_pass=50.0)(batch, draws_of(batch)).values[:, 0]).abs() / 500
    torch.testing.assert_close(spectra[:, 20], torch.ones(400), rtol=0, atol=1e-3)
    assert float(spectra[:, 480].max()) < 1.001
    assert 0.35 < float((spectra[:, 480] < 0.01).float().mean()) < 0.55
    with pytest.raises(ValueError, match="low_pass must be at most the Nyquist frequency 500, got 600"):
        Augmentation(low_pass=600.0)(batch, draws_of(batch))


def test_stretching_leaves_the_start_where_it_is() -> None:
    strokes = simulated_samples.pen_strokes(10, seed=1)
    starts = 1e9 * torch.arange(10, dtype=torch.float64)
    later = dataclasses.replace(
        strokes, coordinates=strokes.coordinates + starts.repeat_interleave(strokes.splits.diff())[:, None]
    )
    batch = SampleBatch.of(later)
    changed = Augmentation(stretch=0.2)(batch, draws_of(batch))
    assert isinstance(changed.domain, Points)
    assert changed.domain.coordinates[strokes.splits[:-1], 0].tolist() == starts.tolist()


@pytest.mark.parametrize("periodic", [False, True])
def test_low_pass_keeps_constants_and_has_no_jump_between_the_ends(periodic: bool) -> None:
    grid = Grid((200, 100), (1.0, 2.0), (5.0, 0.0), (periodic, False))
    y, x = (axis.nodes() for axis in grid.axes)
    torch.manual_seed(0)
    # Along an axis that repeats, a wave that fits it; along others a ramp, whose two ends have nothing to do with each
    # other: taken for neighbours they would ring by half of its height.
    slow = torch.cos(2 * math.pi * 2 * y / 200) if periodic else y / 200
    scene = (3 + slow[:, None] + x / 200).float()
    batch = SampleBatch(scene.repeat(20, 1, 1, 1), grid, torch.zeros(20, dtype=torch.int64))
    changed = Augmentation(low_pass=0.05)(batch, draws_of(batch)).values
    torch.testing.assert_close(changed, batch.values, rtol=0, atol=0.05)
    even = SampleBatch(torch.full((20, 1, 200, 100), 37.0), grid, batch.labels)
    constant = Augmentation(low_pass=0.05)(even, draws_of(even))
    torch.testing.assert_close(constant.values, torch.full((20, 1, 200, 100), 37.0))


def test_shift_and_flip_move_pixels_only() -> None:
    images = simulated_samples.shapes(40, seed=0)
    batch = SampleBatch.of(images)
    moved = Augmentation(shift=(3.0, 2.0))(batch, draws_of(batch)).values
    rolls = {(y, x): torch.roll(images.values, (y, x), (2, 3)) for y in range(-3, 4) for x in range(-2, 3)}
    found = {
        next(roll for roll, rolled in rolls.items() if torch.equal(rolled[entry], moved[entry])) for entry in range(40)
    }
    assert len(found) > 10
    flipped = Augmentation(flip=True)(batch, draws_of(batch)).values
    same = [torch.equal(flipped[entry], images.values[entry]) for entry in range(40)]
    assert 8 < sum(same) < 32
    mirrored = [entry for entry in range(40) if not same[entry]]
    assert torch.equal(flipped[mirrored], images.values[mirrored].flip(-1))
    with pytest.raises(ValueError, match=r"shift must have one entry per axis, 2, got \(1.0,\)"):
        Augmentation(shift=(1.0,))(batch, draws_of(batch))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"drop": 1.0}, r"drop must lie in \[0, 1\), got 1.0"),
        ({"stretch": -0.1}, r"stretch must lie in \[0, 1\), got -0.1"),
        ({"low_pass": 0.0}, "low_pass must be positive, got 0.0"),
    ],
)
def test_augmentations_that_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Augmentation(**options)


# --------------------------------------------------------------------------------------------------------- networks


def points_network(in_channels: int = 3) -> ContinuousClassifier:
    torch.manual_seed(0)
    return ContinuousClassifier(
        in_channels,
        6,
        8,
        1,
        kernel=KernelSpec(extent=[0.2], width=[0.05], omega_0=0.5, hidden=8),
        copies=2,
        presence=True,
        latent=GridOptions([50], [0.02]),
        solver=Solver(rtol=1e-5),
    )


def audio_network() -> ContinuousClassifier:
    torch.manual_seed(0)
    bank = FilterBank(GridOptions([100], [0.001]), 8, KernelSpec(extent=[0.01], width=[0.003], omega_0=1.0, hidden=8))
    return ContinuousClassifier(
        1,
        2,
        8,
        1,
        kernel=KernelSpec(extent=[0.05], width=[0.01], omega_0=0.5, hidden=8),
        copies=4,
        filter_bank=bank,
        latent=GridOptions([50], [0.002]),
    )


def test_series_do_not_see_each_other() -> None:
    series = simulated_samples.pen_strokes(5, seed=2)
    network = points_network()
    network.prepare(SampleBatch.of(series), (series.values, None))
    network.eval()
    with torch.no_grad():
        together = network(SampleBatch.of(series))
        for number in (3, 0):
            alone = network(SampleBatch.of(series.subset(torch.tensor([number]))))
            torch.testing.assert_close(alone, together[number : number + 1], rtol=1e-3, atol=1e-3)
    assert float(together.std(0).min()) > 0


def test_the_answer_hardly_depends_on_the_rate_of_a_band_limited_sound() -> None:
    network = audio_network()
    low = on_one_grid(sines(8000, 200, (800, 640)), 0.1)
    network.prepare(SampleBatch.of(low), (low.values, None))
    network.eval()
    other = GriddedSamples(low.values.flip(0), low.grid, low.labels, low.classes, "s")
    with torch.no_grad():
        answers = {
            rate: network(SampleBatch.of(on_one_grid(sines(rate, 200, lengths), 0.1)))
            for rate, lengths in ((8000, (800, 640)), (4000, (400, 320)), (6400, (640, 512)))
        }
        swapped = network(SampleBatch.of(other))
    difference = float((swapped - answers[8000]).abs().max())
    for rate in (4000, 6400):
        assert float((answers[rate] - answers[8000]).abs().max()) < 0.1 * difference


def test_normalisation_follows_the_training_part_and_travels() -> None:
    values = np.random.default_rng(0).normal([1, -2, 3], [2, 3, 0.5], (500, 3)).astype(np.float32)
    values[:50, 0] = np.nan
    standardise = Standardise(3)
    standardise.fit(torch.from_numpy(values))
    np.testing.assert_allclose(standardise.mean, np.nanmean(values, 0), rtol=1e-5)
    np.testing.assert_allclose(standardise.scale, np.nanstd(values, 0), rtol=1e-5)
    other = Standardise(3)
    other.load_state_dict(standardise.state_dict())
    grid = Grid((500,), (1.0,))
    image = torch.from_numpy(values.T[None])
    torch.testing.assert_close(other(image, grid), standardise(image, grid), equal_nan=True)
    each = Standardise(1, each=True)
    louder = torch.randn(2, 1, 100) * torch.tensor([0.1, 10.0])[:, None, None]
    torch.testing.assert_close(each(louder, grid).var((1, 2), correction=0), torch.ones(2))


def test_aliases_are_counted_where_the_data_are_read() -> None:
    fine, coarse = (float(audio_network().energy_above([step]).detach()) for step in (1 / 32000, 1 / 500))
    assert 0 <= fine < coarse <= 1


def test_refusals() -> None:
    bank = FilterBank(GridOptions([9], [1.0]), 2, KernelSpec(width=[1.0], omega_0=1.0))
    with pytest.raises(ValueError, match="latent must be given where filter_bank is, got None"):
        ContinuousClassifier(1, 2, filter_bank=bank)
    causal = KernelSpec(extent=[1.0], causal=True)
    with pytest.raises(ValueError, match=r"filter_bank\.kernel\.causal must be True, as kernel\.causal, got False"):
        ContinuousClassifier(1, 2, kernel=causal, latent=GridOptions([5], [2.0]), filter_bank=bank)
    with pytest.raises(ValueError, match="classes must be at least 2, got 1"):
        ContinuousClassifier(1, 1)
    with pytest.raises(ValueError, match="in_channels must be at least 1, got 0"):
        ContinuousClassifier(0, 2)
    with pytest.raises(ValueError, match="copies must be at least 1, got 0"):
        ContinuousClassifier(1, 2, copies=0)
    gridded = SampleBatch.of(on_one_grid(simulated_samples.pen_strokes(3), 0.5))
    with pytest.raises(ValueError, match="presence must be false for samples on a grid, got True"):
        points_network()(gridded)
    with pytest.raises(ValueError, match="in_channels must be the data's channels"):
        points_network(2)(gridded)
    strokes = SampleBatch.of(simulated_samples.pen_strokes(3))
    with pytest.raises(ValueError, match="network must read samples on a grid of 1 axes"):
        FixedKernelClassifier(3, 6)(strokes)
    with pytest.raises(ValueError, match="axes must be 1, 2 or 3, got 4"):
        FixedKernelClassifier(3, 6, axes=4)
    with pytest.raises(ValueError, match="kernel_size must be odd, got 4"):
        FixedKernelClassifier(3, 6, kernel_size=4)
    data = SampleDataModule("simulated_strokes")
    with pytest.raises(ValueError, match="the data module must be set up"):
        _ = data.samples
    with pytest.raises(ValueError, match="root must be given"):
        SampleDataModule("mnist")


def test_the_baseline_learns() -> None:
    images = simulated_samples.shapes(100, seed=0)
    batch = SampleBatch.of(images)
    torch.manual_seed(0)
    network = FixedKernelClassifier(1, 5, axes=2, hidden_channels=16, blocks=2, pool=2)
    network.prepare(batch, (images.values, None))
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(25):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(network(batch), batch.labels).backward()
        optimiser.step()
    assert float((network(batch).argmax(1) == batch.labels).float().mean()) > 0.9
