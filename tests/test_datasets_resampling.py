"""Other rates and other sizes against analytic tones, constants, ramps and impulses; starts, steps and lengths."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ccnn_irregular import Grid
from ccnn_irregular.datasets.processing.audio import resample
from ccnn_irregular.datasets.samples import GriddedSamples, RaggedSeries, average_cells, resize_images
from ccnn_irregular.pipelines.tasks.classification.sampling import on_one_grid, resample_series

RATES = [(44100, 16000), (8000, 6400), (8000, 4000), (8000, 11025), (1, 3), (10, 1), (16000, 44100)]
STOP = 10 ** (-75 / 20)  # what is left of a tone in the stop band


def tone(cycles: float, rate: float, count: int, phase: float = 0.3) -> np.ndarray:
    """Samples of a tone of ``cycles`` per unit of time."""
    return np.cos(2 * np.pi * cycles * np.arange(count) / rate + phase)


@pytest.mark.parametrize("rates", RATES)
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_tones_below_the_lower_nyquist_frequency_stay(rates: tuple[int, int], share: float) -> None:
    cycles = share * min(rates) / 2
    result = resample(tone(cycles, rates[0], 4000), *rates)
    assert len(result) == math.ceil(Fraction(4000 * rates[1], rates[0]))
    inner = slice(60 * max(1, rates[1] // rates[0] + 1), -60 * max(1, rates[1] // rates[0] + 1))
    np.testing.assert_allclose(result[inner], tone(cycles, rates[1], len(result))[inner], rtol=0, atol=2e-4)


@pytest.mark.parametrize("rates", [pair for pair in RATES if pair[1] < pair[0]])
@pytest.mark.parametrize("share", [1.0, 1.05, 1.2])
def test_tones_above_the_new_nyquist_frequency_are_lost(rates: tuple[int, int], share: float) -> None:
    result = resample(tone(share * rates[1] / 2, rates[0], 6000), *rates)
    assert float(np.abs(result[55:-55]).max()) < STOP


@pytest.mark.parametrize("rates", [(8000, 16000), (6400, 8000)])
def test_a_higher_rate_adds_nothing_above_the_old_nyquist_frequency(rates: tuple[int, int]) -> None:
    result = resample(tone(0.45 * rates[0], rates[0], 4000), *rates)
    middle = result[200:-200] * np.kaiser(len(result) - 400, 20)
    spectrum = np.abs(np.fft.rfft(middle)) / np.abs(np.fft.rfft(middle)).max()
    frequencies = np.fft.rfftfreq(len(middle), 1 / rates[1])
    assert float(spectrum[frequencies > 0.52 * rates[0]].max()) < STOP


@pytest.mark.parametrize("share", [0.05, 0.2, 0.3])
@pytest.mark.parametrize("phase", [0.0, 1.0, 2.0])
def test_slow_tones_have_no_bent_ends(share: float, phase: float) -> None:
    result = resample(tone(share * 0.5, 2, 400, phase), 2, 1)
    np.testing.assert_allclose(result, tone(share * 0.5, 1, 200, phase), rtol=0, atol=0.03)


@pytest.mark.parametrize("rates", RATES)
@pytest.mark.parametrize("count", [1, 2, 3, 7, 200])
def test_constants_stay_to_the_last_bit_and_ramps_to_rounding(rates: tuple[int, int], count: int) -> None:
    times = np.arange(math.ceil(Fraction(count * rates[1], rates[0]))) * rates[0] / rates[1]
    for dtype, rtol in ((np.float64, 1e-12), (np.float32, 1e-6)):
        constant = resample(np.full((2, count), 37.1, dtype), *rates)
        np.testing.assert_array_equal(constant, np.full((2, len(times)), 37.1, dtype))
        if count > 1:
            ramp = resample((37 - 0.25 * np.arange(count)).astype(dtype), *rates)
            np.testing.assert_allclose(ramp, 37 - 0.25 * times, rtol=0, atol=100 * rtol)


@pytest.mark.parametrize("rates", [(8000, 4000), (8000, 6400), (8000, 12000)])
@pytest.mark.parametrize("place", [60, 150])
def test_an_impulse_keeps_its_area_and_its_place(rates: tuple[int, int], place: int) -> None:
    values = np.zeros(300)
    values[place] = 1.0
    result = resample(values, *rates)
    times = np.arange(len(result)) / rates[1]
    assert result.sum() / rates[1] == pytest.approx(1 / rates[0], rel=5e-4)
    assert float((times * result).sum() / result.sum()) == pytest.approx(place / rates[0], rel=1e-2)


def test_an_outlier_at_one_end_does_not_reach_the_other() -> None:
    values = np.random.default_rng(0).standard_normal(500)
    changed = values.copy()
    changed[-1] = 1e6
    np.testing.assert_allclose(resample(changed, 2, 1)[:190], resample(values, 2, 1)[:190], rtol=0, atol=1e-9)


@given(
    count=st.integers(1, 60),
    rates=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    seed=st.integers(0, 100),
)
def test_the_first_sample_stays_and_resampling_is_linear(count: int, rates: tuple[int, int], seed: int) -> None:
    generator = np.random.default_rng(seed)
    one, other = generator.standard_normal((2, count))
    mixed = resample(2 * one - 3 * other, *rates)
    assert len(mixed) == -(-count * rates[1] // rates[0])
    np.testing.assert_allclose(mixed, 2 * resample(one, *rates) - 3 * resample(other, *rates), rtol=0, atol=1e-9)
    assert mixed[0] == pytest.approx(2 * one[0] - 3 * other[0], abs=1e-9)


def test_rows_are_filtered_apart_however_many_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).standard_normal((5, 2, 40)).astype(np.float32)
    together = resample(values, 8, 5)
    monkeypatch.setattr("ccnn_irregular.datasets.processing.audio._VALUES_AT_ONCE", 100)
    assert together.shape == (5, 2, 25)
    np.testing.assert_array_equal(resample(values, 8, 5), together)
    np.testing.assert_array_equal(resample(values[3, 1], 8, 5), together[3, 1])


def test_whole_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="values must be floats to be resampled, got int16"):
        resample(np.arange(10, dtype=np.int16), 2, 1)


# ------------------------------------------------------------------------------------------------- starts and steps


def series(starts: list[float], lengths: list[int], step: float) -> RaggedSeries:
    """Each series rises by 1 a unit of time from its own start on."""
    splits = torch.tensor([0, *lengths]).cumsum(0)
    times = torch.cat([s + step * torch.arange(n, dtype=torch.float64) for s, n in zip(starts, lengths, strict=True)])
    return RaggedSeries(times.float()[:, None], times[:, None], splits, torch.arange(len(starts)), ("a",) * 9, "s")


@pytest.mark.parametrize("rate", [8.0, 5.0, 4.0, 2.0, 12.0])
def test_series_keep_their_starts(rate: float) -> None:
    starts, lengths = [5.0, -3.0, 0.0, 1e4], [40, 1, 2, 17]
    changed = resample_series(series(starts, lengths, 0.25), rate)
    assert changed.coordinates[changed.splits[:-1], 0].tolist() == starts
    assert changed.splits.diff().tolist() == [math.ceil(n * rate / 4) for n in lengths]
    inside = torch.repeat_interleave(torch.tensor([True, False, True, True]), changed.splits.diff())
    torch.testing.assert_close(changed.values[inside], changed.coordinates[inside].float(), rtol=1e-6, atol=1e-5)
    for first, last in zip(changed.splits[:-1].tolist(), changed.splits[1:].tolist(), strict=True):
        wanted = changed.coordinates[first, 0] + torch.arange(last - first, dtype=torch.float64) / rate
        torch.testing.assert_close(changed.coordinates[first:last, 0], wanted, rtol=1e-12, atol=0)


def test_samples_on_a_grid_keep_its_start() -> None:
    grid = Grid((40,), (0.25,), (5.0,))
    values = grid.nodes().float().T[None]
    changed = resample_series(GriddedSamples(values, grid, torch.zeros(1, dtype=torch.int64), ("a",), "s"), 2.0)
    assert isinstance(changed, GriddedSamples)
    assert changed.grid == Grid((20,), (0.5,), (5.0,))
    torch.testing.assert_close(changed.values[0, 0], changed.grid.nodes()[:, 0].float())
    repeating = GriddedSamples(
        values, Grid((40,), (0.25,), (5.0,), True), torch.zeros(1, dtype=torch.int64), ("a",), ""
    )
    with pytest.raises(ValueError, match=r"test\.rate must be asked for series that do not repeat"):
        resample_series(repeating, 2.0)


def test_one_grid_begins_with_the_first_series() -> None:
    gridded = on_one_grid(series([5.0, 5.5], [3, 9], 0.25), 1.5)
    assert gridded.grid == Grid((6,), (0.25,), (5.0,))
    assert gridded.values[:, 0].tolist() == [[5.0, 5.25, 5.5, 0, 0, 0], [0, 0, 5.5, 5.75, 6.0, 6.25]]
    with pytest.raises(ValueError, match=r"series must begin whole steps of 0\.25 apart"):
        on_one_grid(series([5.0, 5.1], [3, 9], 0.25), 1.5)
    with pytest.raises(ValueError, match=r"window must hold a sample of each series, got 1\.5 with 1 that begin later"):
        on_one_grid(series([5.0, 6.5], [3, 9], 0.25), 1.5)


def test_a_series_of_one_sample_says_nothing_about_the_step() -> None:
    changed = resample_series(series([0.0, 100.0], [1, 8], 0.25), 8.0)
    assert changed.coordinates[:, 0].tolist() == [0.0, 0.125, *(100 + 0.125 * np.arange(16))]


def test_empty_series_are_named() -> None:
    with pytest.raises(ValueError, match=r"series must hold at least one sample each .*, got 1 empty"):
        resample_series(series([0.0, 1.0], [8, 0], 0.25), 2.0)


# ----------------------------------------------------------------------------------------------------------- images


def scene(grid: Grid, function: object) -> GriddedSamples:
    y, x = (axis.nodes() for axis in grid.axes)
    values = function(y[:, None], x[None]).float()[None, None]  # type: ignore[operator]
    return GriddedSamples(values, grid, torch.zeros(1, dtype=torch.int64), ("a",), "mm")


GRID = Grid((150, 160), (0.5, 2.0), (5.25, -3.0))


@pytest.mark.parametrize("sizes", [(75, 80), (75, 160), (60, 50), (150, 107), (225, 240)])
def test_images_keep_what_a_size_holds_and_lose_the_rest(sizes: tuple[int, int]) -> None:
    spans = (75.0, 320.0)
    nyquist = [min(size, old) / span / 2 for size, old, span in zip(sizes, GRID.sizes, spans, strict=True)]

    def low(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return torch.cos(2 * math.pi * (0.2 * nyquist[0] * y + 0.1 * nyquist[1] * x))

    kept = resize_images(scene(GRID, low), sizes)
    torch.testing.assert_close(kept.values, scene(kept.grid, low).values, rtol=0, atol=0.03)
    inner = tuple(slice(size // 2 - 2, size // 2 + 3) for size in sizes)
    found, wanted = kept.values[0, 0][inner], scene(kept.grid, low).values[0, 0][inner]
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-3)
    if sizes[1] < 160 * 0.9:
        lost = resize_images(scene(GRID, lambda y, x: torch.cos(2 * math.pi * 1.1 * nyquist[1] * x) + 0 * y), sizes)
        left = float(lost.values[..., sizes[1] // 2 - 2 : sizes[1] // 2 + 3].abs().max())
        # Farther from the border than the filter reaches, where the image is as wide as that; near it otherwise.
        assert left < (0.05 if sizes[1] < 103 else 10 * STOP)


@pytest.mark.parametrize("sizes", [(14, 14), (42, 42), (27, 13), (28, 56), (1, 3), (5, 28)])
def test_images_keep_constants_and_ramps_up_to_the_border(sizes: tuple[int, int]) -> None:
    grid = Grid((28, 28), (1.0, 0.5), (7.5, -2.0))
    constant = resize_images(scene(grid, lambda y, x: 0.7 + 0 * y + 0 * x), sizes)
    torch.testing.assert_close(constant.values, torch.full_like(constant.values, 0.7), rtol=0, atol=1e-6)
    ramp = resize_images(scene(grid, lambda y, x: 3 + 0.1 * y - 0.7 * x), sizes)
    torch.testing.assert_close(
        ramp.values, scene(ramp.grid, lambda y, x: 3 + 0.1 * y - 0.7 * x).values, rtol=0, atol=1e-4
    )
    edges = [(axis.start - axis.step / 2, axis.start + axis.step * (axis.size - 0.5)) for axis in ramp.grid.axes]
    np.testing.assert_allclose(edges, [(7.0, 35.0), (-2.25, 11.75)], rtol=1e-12)


def test_images_that_repeat_are_refused_and_means_keep_the_period() -> None:
    grid = Grid((6, 8), (1.0, 1.0), None, (False, True))
    world = GriddedSamples(torch.rand(1, 1, 6, 8), grid, torch.zeros(1, dtype=torch.int64), ("a",), "degree")
    with pytest.raises(ValueError, match=r"images must have axes that do not repeat, got periodic \(False, True\)"):
        resize_images(world, (3, 4))
    assert average_cells(world, (3, 4)).grid == Grid((3, 4), (2.0, 2.0), (0.5, 0.5), (False, True))


@pytest.mark.parametrize(("share", "passed"), [(1.0, 2 / math.pi), (1.5, 0.3001), (0.5, 0.9003)])
def test_means_over_cells_pass_what_a_box_passes(share: float, passed: float) -> None:
    """sin(x) / x at x = pi / 2 times the share of the new Nyquist frequency, for new cells of many old ones."""
    grid = Grid((4000,), (1.0,))
    wave = torch.cos(math.pi * share * (grid.nodes()[:, 0] - 1999.5) / 40).float()
    found = average_cells(
        GriddedSamples(wave[None, None], grid, torch.zeros(1, dtype=torch.int64), ("a",), "mm"), (100,)
    )
    centres = found.grid.nodes()[:, 0]
    wanted = passed * torch.cos(math.pi * share * (centres - 1999.5) / 40)
    torch.testing.assert_close(found.values[0, 0].double(), wanted, rtol=0, atol=1e-3)
