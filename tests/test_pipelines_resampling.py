"""Samples brought back to the training's sampling, against NumPy, SciPy and torch; gaps; fixed kernels on series."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import zoom
from scipy.signal import resample_poly

from ccnn_irregular.datasets import simulated_samples, simulated_volumes
from ccnn_irregular.datasets.samples import (
    GriddedSamples,
    RaggedSeries,
    average_cells,
    drop_blocks,
    drop_samples,
    resize_images,
)
from ccnn_irregular.domains import Grid
from ccnn_irregular.pipelines import cli
from ccnn_irregular.pipelines.tasks.classification.data import SampleBatch, SampleDataModule
from ccnn_irregular.pipelines.tasks.classification.module import Classification, ClassPredictions
from ccnn_irregular.pipelines.tasks.classification.network import FixedKernelClassifier, GridOptions
from ccnn_irregular.pipelines.tasks.classification.sampling import Sampling, resample_series
from ccnn_irregular.pipelines.train import resampling
from ccnn_irregular.pipelines.train.resampling import covering_grid, onto_grid, sampled_like

pytestmark = pytest.mark.usefixtures("in_tmp_path")
QUIET = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
NETWORK = "--model.network.init_args"


def values_on(*sizes: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(2, 3, *sizes)).astype(np.float32))


# ------------------------------------------------------------------------------------------------------------ grids


@pytest.mark.parametrize("sizes", [(14, 14), (42, 42), (28, 56), (20, 9)])
@pytest.mark.parametrize(("method", "mode"), [("linear", "bilinear"), ("cubic", "bicubic")])
def test_images_over_one_extent_are_torchs(sizes: tuple[int, int], method: str, mode: str) -> None:
    values = values_on(*sizes)
    old = Grid(sizes, [28 / size for size in sizes], [14 / size - 0.5 for size in sizes])
    found = onto_grid(values, old, Grid((28, 28), (1.0, 1.0)), method)  # type: ignore[arg-type]
    wanted = torch.nn.functional.interpolate(values, size=(28, 28), mode=mode, antialias=True, align_corners=False)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_volumes_are_scipys_zoom() -> None:
    values = values_on(6, 8, 7)
    old = Grid((6, 8, 7), (2.0, 1.0, 1.5), (0.5, 0.0, 0.25))
    found = onto_grid(values, old, Grid((12, 8, 21), (1.0, 1.0, 0.5), (0.0, 0.0, -0.25)), "linear")
    for one, other in zip(found.flatten(0, 1), values.flatten(0, 1), strict=True):
        wanted = zoom(other.numpy(), (2, 1, 3), order=1, mode="nearest", grid_mode=True)
        np.testing.assert_allclose(one, wanted, rtol=1e-5, atol=1e-6)


@given(
    size=st.integers(2, 12),
    step=st.floats(0.2, 5),
    start=st.floats(-3, 3),
    new_size=st.integers(1, 20),
    share=st.floats(0.05, 1),
    new_start=st.floats(-6, 12),
)
def test_between_nodes_and_beyond_them_as_numpy_interpolates(
    size: int, step: float, start: float, new_size: int, share: float, new_start: float
) -> None:
    old, new = Grid((size,), (step,), (start,)), Grid((new_size,), (share * step,), (new_start,))
    values = torch.from_numpy(np.random.default_rng(size).normal(size=(1, size)))
    wanted = np.interp(new.nodes()[:, 0], old.nodes()[:, 0], values[0])
    np.testing.assert_allclose(onto_grid(values, old, new, "linear")[0], wanted, rtol=1e-9, atol=1e-9)


def test_cubic_keeps_nodes_constants_and_parabolas() -> None:
    old, new = Grid((20,), (1.0,)), Grid((39,), (0.5,))
    nodes, places = old.nodes()[:, 0], new.nodes()[:, 0]
    found = onto_grid(torch.stack([nodes**2, torch.full_like(nodes, 7.0)]), old, new, "cubic")
    torch.testing.assert_close(found[0, 4:35], places[4:35] ** 2)
    torch.testing.assert_close(found[:, ::2], torch.stack([nodes**2, torch.full_like(nodes, 7.0)]))
    torch.testing.assert_close(found[1], torch.full((39,), 7.0, dtype=torch.float64))


def test_a_covering_grid_has_the_thinned_nodes_among_its_own() -> None:
    assert covering_grid(Grid((5, 4), (2.0, 1.0), (3.0, 0.0)), (1.0, 1.0)) == Grid((9, 4), (1.0, 1.0), (3.0, 0.0))
    assert covering_grid(Grid((4,), (0.3,)), (0.1,)) == Grid((10,), (0.1,))
    assert covering_grid(Grid((5,), (0.5,)), (0.8,)) == Grid((4,), (0.8,))
    assert covering_grid(Grid((1,), (9.0,)), (1.0,)) == Grid((1,), (1.0,))


# ----------------------------------------------------------------------------------------------------------- series


def strokes(count: int = 12) -> RaggedSeries:
    return simulated_samples.pen_strokes(count, seed=3)


@pytest.mark.parametrize("drop", [drop_samples, drop_blocks])
def test_strokes_with_samples_missing_are_filled_as_numpy_and_scipy_do(drop: object) -> None:
    whole = strokes()
    thin = drop(whole, 0.6, seed=1)  # type: ignore[operator]
    linear, cubic = (sampled_like(thin, whole, method) for method in ("linear", "cubic"))
    assert isinstance(linear, RaggedSeries)
    assert torch.equal(linear.splits, whole.splits)
    assert torch.equal(linear.coordinates, whole.coordinates)
    for number in range(len(whole)):
        old = slice(*thin.splits[number : number + 2].tolist())
        new = slice(*whole.splits[number : number + 2].tolist())
        times, places = thin.coordinates[old, 0].numpy(), whole.coordinates[new, 0].numpy()
        for channel in range(3):
            values = thin.values[old, channel].numpy()
            np.testing.assert_allclose(
                linear.values[new, channel], np.interp(places, times, values), rtol=1e-5, atol=1e-5
            )
            wanted = PchipInterpolator(times, values)(places.clip(times[0], times[-1]))
            np.testing.assert_allclose(cubic.values[new, channel], wanted, rtol=1e-5, atol=1e-5)


def test_recordings_come_back_at_their_rate() -> None:
    whole = simulated_samples.spoken_digits(4, seed=0)
    low = resample_series(whole, 4000.0)
    linear, polyphase = (sampled_like(low, whole, method) for method in ("linear", "polyphase"))
    for number in range(4):
        old, new = (slice(*one.splits[number : number + 2].tolist()) for one in (low, whole))  # type: ignore[union-attr]
        times, places = low.coordinates[old, 0], whole.coordinates[new, 0]  # type: ignore[union-attr]
        wanted = np.interp(places, times, low.values[old, 0])
        np.testing.assert_allclose(linear.values[new, 0], wanted, rtol=1e-5, atol=1e-5)
        # SciPy takes zeros beyond the ends, and its own filter lets other amounts of the highest frequencies through.
        inner = slice(200, -200)
        wanted = resample_poly(low.values[old, 0].numpy(), 2, 1)[: new.stop - new.start]
        np.testing.assert_allclose(polyphase.values[new, 0][inner], wanted[inner], rtol=0, atol=5e-3)
    assert torch.equal(polyphase.labels, whole.labels)


def test_uniform_series_on_a_grid_come_back_too() -> None:
    times = torch.arange(400) / 400
    values = torch.sin(2 * np.pi * 5 * times)[None, None]
    whole = GriddedSamples(values, Grid((400,), (1 / 400,)), torch.tensor([0]), ("a",), "s")
    for method in ("linear", "polyphase"):
        back = sampled_like(resample_series(whole, 160.0), whole, method)  # type: ignore[arg-type]
        assert isinstance(back, GriddedSamples)
        assert back.grid == whole.grid
        torch.testing.assert_close(back.values[..., 20:-20], values[..., 20:-20], rtol=0, atol=0.02)


def test_samples_each_on_their_own_grid_are_refused() -> None:
    scans = simulated_volumes.textured_shapes(3, seed=0)
    with pytest.raises(ValueError, match=r"test\.resample must be asked for series, or for samples that share a grid"):
        sampled_like(scans, scans, "linear")


@given(
    fraction=st.floats(0, 0.99), lengths=st.lists(st.integers(1, 30), min_size=1, max_size=8), seed=st.integers(0, 9)
)
def test_gaps_are_one_block_between_the_ends(fraction: float, lengths: list[int], seed: int) -> None:
    splits = torch.tensor([0, *lengths]).cumsum(0)
    labels = torch.zeros(len(lengths), dtype=torch.int64)
    series = RaggedSeries.uniform(torch.randn(sum(lengths), 1), 1.0, splits, labels, ("a",), "s")
    found = drop_blocks(series, fraction, seed=seed)
    for number, length in enumerate(lengths):
        kept = found.coordinates[found.splits[number] : found.splits[number + 1], 0].tolist()
        missing = min(int(np.floor(fraction * length)), max(length - 2, 0))
        gone = sorted(set(range(length)) - {int(one) for one in kept})
        assert len(gone) == missing
        assert gone == list(range(gone[0], gone[0] + missing)) if gone else True
        assert {0, length - 1} <= set(kept)
        # Position and seed alone say where: whatever follows in the data set.
    alone = drop_blocks(series.subset(torch.tensor([0])), fraction, seed=seed)
    assert torch.equal(alone.coordinates, found.coordinates[: found.splits[1]])


# --------------------------------------------------------------------------------------------------- data and network


def test_parts_come_back_at_the_training_sampling() -> None:
    images = SampleDataModule("simulated_shapes", count=90)
    images.setup("test")
    plain = images.sampled_part("test", Sampling())
    assert isinstance(plain, GriddedSamples)
    for sizes in ((14, 14), (42, 42)):
        changed = resize_images(plain, sizes)
        back = images.sampled_part("test", Sampling(image_size=sizes, resample="linear"))
        assert isinstance(back, GriddedSamples)
        assert back.grid == plain.grid
        mode = {"mode": "bilinear", "antialias": True, "align_corners": False}
        wanted = torch.nn.functional.interpolate(changed.values, size=(28, 28), **mode)  # type: ignore[arg-type]
        torch.testing.assert_close(back.values, wanted, rtol=1e-5, atol=1e-5)
    watched = images.sampled_part("validation", Sampling(image_size=(14, 14)))
    assert torch.equal(watched.values, resize_images(images.part("validation"), (14, 14)).values)  # type: ignore[arg-type]
    assert str(Sampling(gap=0.2, resample="cubic")) == "20% missing in a row, resampled (cubic)"


def test_averaged_voxels_come_back_between_their_centres() -> None:
    scans = simulated_volumes.textured_shapes(3, seed=1, voxels=[(1.0, 1.0, 1.0)]).stacked()
    coarse = average_cells(scans, tuple(size // 2 for size in scans.grid.sizes))
    back = sampled_like(coarse, scans, "linear")
    assert isinstance(back, GriddedSamples)
    for one, other in zip(back.values[:, 0], coarse.values[:, 0], strict=True):
        np.testing.assert_allclose(
            one, zoom(other.numpy(), 2, order=1, mode="nearest", grid_mode=True), rtol=1e-4, atol=1e-4
        )


def test_fixed_kernels_read_strokes_interpolated_onto_their_grid() -> None:
    series = drop_samples(strokes(5), 0.5, seed=0)
    network = FixedKernelClassifier(3, 6, 1, 8, 1, grid=GridOptions([150], [0.005]))
    seen: list[torch.Tensor] = []
    network.stem.register_forward_pre_hook(lambda module, read: seen.append(read[0]))
    batch = SampleBatch.of(series)
    assert network(batch).shape == (5, 6)  # means 0 and scales 1: values as they are
    nodes = 0.005 * np.arange(150)
    for number, read in enumerate(seen[0]):
        rows = slice(*series.splits[number : number + 2].tolist())
        times = series.coordinates[rows, 0].numpy()
        inside = (nodes >= times[0] - 1e-9) & (nodes <= times[-1] + 1e-9)
        for channel in range(3):
            wanted = np.where(inside, np.interp(nodes, times, series.values[rows, channel]), 0)
            np.testing.assert_allclose(read[channel].detach(), wanted, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(read[3].detach(), inside)
    alone = network.eval()(SampleBatch.of(series.subset(torch.tensor([2]))))
    torch.testing.assert_close(alone, network(batch)[2:3])


def test_what_fixed_kernels_on_series_refuse() -> None:
    with pytest.raises(ValueError, match="grid must have one axis, as the network, got 2"):
        FixedKernelClassifier(1, 2, 2, 4, 1, grid=GridOptions([5, 5], [1.0, 1.0]))
    network = FixedKernelClassifier(1, 5, 1, 4, 1, grid=GridOptions([5], [1.0]))
    images = SampleBatch.of(simulated_samples.shapes(2, seed=0))
    with pytest.raises(ValueError, match="grid must be null for samples on a grid"):
        network(images)
    missing = RaggedSeries.uniform(
        torch.tensor([[1.0], [torch.nan]]), 1.0, torch.tensor([0, 2]), torch.tensor([0]), ("a",), "s"
    )
    with pytest.raises(ValueError, match=r"values \(to be interpolated\) must be finite, got nan at rows \[1\]"):
        network(SampleBatch.of(missing))


def test_batches_are_joined_with_the_median_of_their_seconds() -> None:
    batches = [
        ClassPredictions(np.full((2, 2), 0.5, np.float32), np.array([0, 1]), seconds) for seconds in (9.0, 1.0, 2.0)
    ]
    joined = ClassPredictions.joined(batches)
    assert (len(joined.labels), joined.seconds) == (6, 2.0)
    assert joined.log_likelihood == pytest.approx(np.log(0.5))


# ------------------------------------------------------------------------------------------------------- end to end


def results(folder: str) -> dict[str, dict[str, float]]:
    return {one["sampling"]: one for one in json.loads(Path(folder, "metrics.json").read_text())["results"]}


def test_fixed_kernels_answer_at_other_samplings_once_they_are_resampled(
    capsys: pytest.CaptureFixture[str],
) -> None:
    strokes_file = Path(cli.CONFIGS / "character_trajectories_baseline_cpu.yaml").read_text()
    Path("strokes.yaml").write_text(
        re.sub("dataset: character_trajectories\n  root: .*", "dataset: simulated_strokes", strokes_file)
    )
    small = [*QUIET, "--data.count", "240", f"{NETWORK}.hidden_channels", "16", f"{NETWORK}.blocks", "2"]
    small += [f"{NETWORK}.classes", "6", "--trainer.max_epochs", "6", "--model.schedule.warmup_epochs", "1"]
    cli.main(["fit", "--config", "strokes.yaml", *small])
    asked = ["--test.drop", "0.5", "--test.gap", "0.3", "--test.resample", "true"]
    cli.main(["test", "--config", "strokes.yaml", *small, *asked])
    printed = capsys.readouterr().out.splitlines()
    found = results("runs/strokes/test")
    plain = ["as trained", "50% dropped", "30% missing in a row"]
    assert [name for name in found if "resampled" not in name] == plain
    assert len(found) == 5
    assert min(one["accuracy"] for one in found.values()) > 0.4  # chance is 1 / 6
    assert all(one["seconds"] > 0 for one in found.values())
    # Its own interpolation is the linear one: brought back linearly, the same strokes have the same answers.
    for name in plain[1:]:
        again = found.get(f"{name}, resampled (linear)")
        assert again is None or again["accuracy"] == found[name]["accuracy"]
    for one in found.values():
        assert any(f"{100 * one['accuracy']:.2f}" in line and f"{one['seconds']:.3g}" in line for line in printed)
    with Path("runs/strokes/test/predictions.csv").open() as file:
        assert len(list(csv.DictReader(file))) == found["as trained"]["n"]

    # The method is the one of higher likelihood on the validation part, whatever the test part would say.
    data = SampleDataModule("simulated_strokes", count=240, validation=0.15, test=0.15, batch_size=64)
    data.setup("test")
    model = Classification.load_from_checkpoint("runs/strokes/best.ckpt", map_location="cpu").eval()
    for sampling in (Sampling(drop=0.5), Sampling(gap=0.3)):
        losses = {}
        for method in ("linear", "cubic"):
            batch = SampleBatch.of(data.sampled_part("validation", replace(sampling, resample=method)))
            with torch.no_grad():
                losses[method] = float(torch.nn.functional.cross_entropy(model(batch), batch.labels))
        assert f"{sampling}, resampled ({min(losses, key=losses.__getitem__)})" in found


def test_a_first_series_of_one_sample_is_sampled_as_the_others() -> None:
    splits, labels = torch.tensor([0, 1, 6]), torch.tensor([0, 1])
    series = RaggedSeries.uniform(torch.zeros(6, 1), 0.5, splits, labels, ("a", "b"), "s")
    assert resampling._rate(series) == 2.0
    finer = resample_series(series, 4.0)
    assert isinstance(finer, RaggedSeries)
    assert finer.splits.diff().tolist() == [2, 10]
