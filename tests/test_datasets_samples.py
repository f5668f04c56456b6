"""The containers of labelled samples, and what is done to whole data sets before training."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ccnn_irregular import Grid
from ccnn_irregular.datasets import samples
from ccnn_irregular.datasets.samples import GriddedSamples, RaggedSeries

LENGTHS = [3, 1, 40, 7, 25]


@pytest.fixture
def series() -> RaggedSeries:
    """Five series of two channels; the first channel says which series a row belongs to."""
    splits = torch.tensor([0, *np.cumsum(LENGTHS)])
    own = torch.repeat_interleave(torch.arange(5), splits.diff())
    values = torch.stack([own.float(), torch.rand(len(own))], dim=1)
    return RaggedSeries.uniform(values, 0.25, splits, torch.tensor([2, 0, 1, 1, 2]), ("a", "b", "c"), "s")


def images(sizes: tuple[int, int] = (4, 6), count: int = 3) -> GriddedSamples:
    values = torch.rand(count, 2, *sizes)
    return GriddedSamples(values, Grid(sizes, (1.0, 1.0)), torch.zeros(count, dtype=torch.int64), ("a",), "pixel")


def rows_of(series: RaggedSeries, sample: int) -> slice:
    return slice(int(series.splits[sample]), int(series.splits[sample + 1]))


# -------------------------------------------------------------------------------------------------------- containers


def test_uniform_series_start_at_zero_each(series: RaggedSeries) -> None:
    assert len(series) == 5
    for sample, length in enumerate(LENGTHS):
        np.testing.assert_array_equal(series.coordinates[rows_of(series, sample), 0], np.arange(length) * 0.25)
    assert series.coordinates.dtype == torch.float64
    assert repr(series) == "RaggedSeries(series=5, rows=76, channels=2, classes=3, unit='s')"


@pytest.mark.parametrize("index", [[4, 0, 0, 2], [True, False, False, True, False]])
def test_a_subset_holds_the_chosen_series_whole(series: RaggedSeries, index: list[int]) -> None:
    chosen = torch.tensor(index)
    positions = chosen.nonzero().flatten() if chosen.dtype == torch.bool else chosen
    subset = series.subset(chosen)
    assert subset.labels.tolist() == series.labels[positions].tolist()
    assert subset.classes == series.classes
    for new, old in enumerate(positions.tolist()):
        for name in ("values", "coordinates"):
            np.testing.assert_array_equal(
                getattr(subset, name)[rows_of(subset, new)], getattr(series, name)[rows_of(series, old)]
            )


def test_rows_are_kept_by_a_mask(series: RaggedSeries) -> None:
    rows = torch.rand(len(series.values)) < 0.4
    rows[rows_of(series, 2)] = False  # nothing is left of the third one
    kept = series.keep(rows)
    for sample in range(5):
        own = rows_of(series, sample)
        assert torch.equal(kept.values[rows_of(kept, sample)], series.values[own][rows[own]])
        assert torch.equal(kept.coordinates[rows_of(kept, sample)], series.coordinates[own][rows[own]])
    assert torch.equal(kept.labels, series.labels)


def test_other_coordinates_are_the_same_for_all(series: RaggedSeries) -> None:
    asked = series.at([0.5, 2.0])
    assert asked.times.tolist() == [0.5, 2.0] * 5
    assert asked.splits.tolist() == [0, 2, 4, 6, 8, 10]
    assert asked.sample_index().tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert not bool(asked.values.any())
    assert len(series.at([]).values) == 0


@pytest.mark.parametrize("missing", [0.0, 0.6, 0.95, 1.0])
def test_the_last_value_is_that_of_a_plain_loop(series: RaggedSeries, missing: float) -> None:
    values = torch.where(torch.rand(series.values.shape) < missing, torch.nan, series.values)
    gappy = dataclasses.replace(series, values=values).keep(torch.arange(len(values)) != 3)  # the second one is empty
    wanted = torch.full((5, 2), torch.nan)
    for sample in range(5):
        for row in gappy.values[rows_of(gappy, sample)]:
            wanted[sample] = torch.where(row.isnan(), wanted[sample], row)
    torch.testing.assert_close(gappy.last(), wanted, rtol=0, atol=0, equal_nan=True)


def test_cells_are_a_long_table(series: RaggedSeries) -> None:
    first = dataclasses.replace(series, ids=torch.tensor([7, 5, 3, 2, 1]), channels=("a", "b")).subset(
        torch.tensor([1])
    )
    gappy = dataclasses.replace(first, values=torch.tensor([[torch.nan, 4.0]]))
    assert gappy.cells() == [(5, 0.0, "b", 4.0)]
    assert gappy.cells(torch.tensor([[1.0, 2.0]])) == [(5, 0.0, "b", 2.0)]
    assert [cell[:3] for cell in series.subset(torch.tensor([1])).cells()] == [(0, 0.0, "0"), (0, 0.0, "1")]


def test_points_carry_the_trapezoid_rule_of_each_series(series: RaggedSeries) -> None:
    thinned = samples.drop_samples(series, 0.5, seed=3)
    points = thinned.points()
    for sample in (0, 2, 3, 4):
        rows = rows_of(thinned, sample)
        times = thinned.coordinates[rows, 0].numpy()
        expected = np.trapezoid(times**1.0, times)
        assert float(points.weights[rows] @ thinned.coordinates[rows, 0]) == pytest.approx(expected, abs=1e-12)
    capped = series.points(cap=0.1).weights
    assert float(capped.max()) <= 0.1 + 1e-12


def test_a_subset_of_images() -> None:
    pictures = images()
    subset = pictures.subset(torch.tensor([2, 0]))
    np.testing.assert_array_equal(subset.values, pictures.values[[2, 0]])
    assert len(pictures.subset(torch.tensor([False, True, True]))) == 2
    assert subset.grid == pictures.grid
    assert pictures.to("cpu").values.shape == pictures.values.shape
    assert repr(pictures).startswith("GriddedSamples(samples=3, channels=2, grid=Grid(sizes=(4, 6)")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"values": torch.zeros(76)}, "values must have shape"),
        ({"values": torch.zeros(76, 2, dtype=torch.float64)}, "values must be float32, got torch.float64"),
        ({"coordinates": torch.zeros(76)}, r"coordinates must have shape \(76, 1\), got \(76,\)"),
        ({"coordinates": torch.zeros(76, 1)}, "coordinates must be float64, got torch.float32"),
        ({"splits": torch.tensor([0, 75])}, "splits must end at the number of points 76, got 75"),
        ({"labels": torch.zeros(4, dtype=torch.int64)}, r"labels must have shape \(5,\), got \(4,\)"),
        ({"labels": torch.zeros(5)}, "labels must be int64, got torch.float32"),
    ],
)
def test_wrong_series_are_refused(series: RaggedSeries, changes: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(series, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"values": torch.zeros(3, 2, 4, 5)}, r"values must have shape \(B, C, \*\(4, 6\)\), got \(3, 2, 4, 5\)"),
        ({"values": torch.zeros(3, 2, 4, 6, dtype=torch.float64)}, "values must be float32"),
        ({"labels": torch.zeros(2, dtype=torch.int64)}, r"labels must have shape \(3,\), got \(2,\)"),
    ],
)
def test_wrong_images_are_refused(changes: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(images(), **changes)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (torch.tensor([0, 5]), r"index must lie in 0\.\.4, got \[5\]"),
        (torch.tensor([-1]), r"index must lie in 0\.\.4, got \[-1\]"),
        (torch.tensor([1.0]), "index must be int64 of one axis, or bool, got torch.float32"),
        (torch.tensor([], dtype=torch.int64), r"splits must have shape \(B \+ 1,\) with B >= 1, got \(1,\)"),
        (torch.tensor([True, False]), r"index must be a mask of shape \(5,\), got \(2,\)"),
    ],
)
def test_wrong_indices_are_refused(series: RaggedSeries, index: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        series.subset(index)


# ---------------------------------------------------------------------------------------------------------- dropping


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.5, 0.7, 0.99])
def test_dropping_leaves_the_stated_number_of_true_samples(series: RaggedSeries, fraction: float) -> None:
    thinned = samples.drop_samples(series, fraction, seed=1)
    expected = [length - int(np.floor(fraction * length)) for length in LENGTHS]
    assert thinned.splits.diff().tolist() == expected
    assert thinned.labels.tolist() == series.labels.tolist()
    for sample in range(5):
        before, after = rows_of(series, sample), rows_of(thinned, sample)
        known = {
            float(t): v.tolist() for t, v in zip(series.coordinates[before, 0], series.values[before], strict=True)
        }
        times = thinned.coordinates[after, 0]
        assert bool((times.diff() > 0).all())
        assert [known[float(time)] for time in times] == thinned.values[after].tolist()
    if fraction == 0:
        np.testing.assert_array_equal(thinned.values, series.values)


def test_dropping_follows_the_seed_and_spares_no_place(series: RaggedSeries) -> None:
    first, again, other = (samples.drop_samples(series, 0.5, seed=seed).coordinates for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not torch.equal(first, other)
    # Over many seeds each of the 40 samples of one series stays about half the time.
    stays = torch.zeros(40)
    for seed in range(200):
        thinned = samples.drop_samples(series, 0.5, seed=seed)
        stays[(thinned.coordinates[rows_of(thinned, 2), 0] / 0.25).round().long()] += 1
    assert stays.sum() == 200 * 20
    assert stays.min() > 65
    assert stays.max() < 135


@pytest.mark.parametrize("fraction", [1.0, -0.1, float("nan")])
def test_a_wrong_fraction_is_refused(series: RaggedSeries, fraction: float) -> None:
    with pytest.raises(ValueError, match=r"fraction must lie in \[0, 1\), got"):
        samples.drop_samples(series, fraction)


# ------------------------------------------------------------------------------------------------------------- parts


def test_parts_are_disjoint_complete_and_stratified() -> None:
    labels = torch.tensor([0] * 200 + [1] * 100 + [2] * 40)[torch.randperm(340, generator=torch.Generator())]
    parts = samples.split_stratified(labels, seed=4)
    joined = torch.cat([parts.train, parts.validation, parts.test])
    assert sorted(joined.tolist()) == list(range(340))
    assert [len(part) for part in (parts.train, parts.validation, parts.test)] == [238, 51, 51]
    for part in (parts.train, parts.validation, parts.test):
        share = torch.bincount(labels[part], minlength=3) / len(part)
        np.testing.assert_allclose(share, np.array([200, 100, 40]) / 340, atol=0.02)
        assert bool((part.diff() > 0).all())
    again, other = samples.split_stratified(labels, seed=4), samples.split_stratified(labels, seed=5)
    assert torch.equal(parts.test, again.test)
    assert not torch.equal(parts.test, other.test)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation": 0.0}, r"validation must lie in \(0, 1\), got 0.0"),
        ({"test": 1.0}, r"test must lie in \[0, 1\), got 1.0"),
        ({"validation": 0.5, "test": 0.5}, r"validation \+ test must be below 1, got 1.0"),
    ],
)
def test_wrong_shares_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        samples.split_stratified(torch.zeros(100, dtype=torch.int64), **options)


def test_a_class_too_rare_for_parts_is_refused() -> None:
    with pytest.raises(ValueError, match="labels must have enough samples of every class for three parts"):
        samples.split_stratified(torch.tensor([0] * 50 + [1]))


@given(st.lists(st.integers(1, 12), min_size=2, max_size=4), st.sampled_from([(0.15, 0.2), (0.1, 0.0), (0.3, 0.3)]))
def test_classes_too_rare_are_counted_and_what_is_enough_is_told(
    counts: list[int], shares: tuple[float, float]
) -> None:
    """As many of each as the message asks for can be split; the message tells how many there are."""
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    names = ["sound", "ill", "odd", "none"][: len(counts)]
    options: dict[str, Any] = {"validation": shares[0], "test": shares[1], "classes": names}
    try:
        samples.split_stratified(labels, **options)
    except ValueError as error:
        told = str(error)
        assert ", ".join(f"{name} {count}" for name, count in zip(names, counts, strict=True)) in told
        assert f"--data.validation and --data.test, here {shares[0]:g} and {shares[1]:g}, decide" in told
        enough = int(re.search(r"(\d+) of each are enough", told)[1])  # type: ignore[index]
        assert min(counts) < enough
        more = torch.tensor(counts).clamp(min=enough)
        parts = samples.split_stratified(torch.repeat_interleave(torch.arange(len(counts)), more), **options)
        assert len(parts.train) + len(parts.validation) + len(parts.test) == int(more.sum())


# ------------------------------------------------------------------------------------------------------------ images


def test_sequences_read_images_row_by_row() -> None:
    pictures = images((4, 6))
    sequences = samples.as_sequences(pictures)
    assert sequences.grid == Grid((24,), (1.0,))
    np.testing.assert_array_equal(sequences.values[:, :, 6 * 2 + 5], pictures.values[:, :, 2, 5])


def test_the_permutation_is_the_stated_one() -> None:
    permutation = samples.permutation(784)
    assert permutation[:8].tolist() == [269, 11, 403, 600, 196, 608, 657, 150]
    assert sorted(permutation.tolist()) == list(range(784))
    raw = [np.random.PCG64(0).advance(position).random_raw() for position in permutation.tolist()]
    assert raw == sorted(raw)
    assert not torch.equal(permutation, samples.permutation(784, seed=1))


def test_permuted_sequences_are_permuted_alike() -> None:
    sequences = samples.as_sequences(images((4, 6)))
    permuted = samples.permute_sequences(sequences, seed=7)
    order = samples.permutation(24, 7).tolist()
    for position, source in enumerate(order):
        np.testing.assert_array_equal(permuted.values[:, :, position], sequences.values[:, :, source])
    with pytest.raises(ValueError, match=r"sequences must lie on one axis \(see as_sequences\), got \(4, 6\)"):
        samples.permute_sequences(images())
    with pytest.raises(ValueError, match="seed must not be negative, got -1"):
        samples.permutation(5, -1)


# Where the ratio of sizes is no integer, the taps of the smoothing filter lie unevenly about the new nodes.
@pytest.mark.parametrize(
    ("sizes", "tolerance"), [((14, 14), 1e-5), ((42, 42), 1e-5), ((28, 56), 1e-5), ((27, 13), 0.02)]
)
def test_resized_images_show_the_same_scene_at_their_own_nodes(sizes: tuple[int, int], tolerance: float) -> None:
    """A scene linear in y and x is what bilinear interpolation keeps, away from the border; half a pixel is 0.15."""

    def scene(grid: Grid) -> Tensor:
        y, x = (axis.nodes() for axis in grid.axes)
        return (0.3 * y[:, None] - 0.1 * x + 2).to(torch.float32)[None, None]

    grid = Grid((28, 28), (1.0, 1.0), (0.5, 0.5))
    small = GriddedSamples(scene(grid), grid, torch.zeros(1, dtype=torch.int64), ("a",), "pixel")
    resized = samples.resize_images(small, sizes)
    assert resized.grid.sizes == sizes
    for axis in resized.grid.axes:  # the extent stays [0, 28]
        assert axis.start - axis.step / 2 == pytest.approx(0)
        assert axis.size * axis.step == pytest.approx(28)
    inner = (slice(None), slice(None), slice(4, -4), slice(4, -4))
    np.testing.assert_allclose(resized.values[inner], scene(resized.grid)[inner], rtol=0, atol=tolerance)
    with pytest.raises(ValueError, match="images and sizes must have two axes"):
        samples.resize_images(samples.as_sequences(small), sizes)
