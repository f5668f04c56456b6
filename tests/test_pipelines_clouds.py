"""``ccnn`` on point clouds, end to end on simulated ones; what is drawn, changed and weighed; data at fault."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pipelines_commands import history, refused

from ccnn_irregular.adapters.geometric import CLOUD_KERNEL
from ccnn_irregular.adapters.geometric_weights import cloud_weights
from ccnn_irregular.datasets.simulated_terrain import terrain as simulated_terrain
from ccnn_irregular.domains import Points
from ccnn_irregular.pipelines import cli
from ccnn_irregular.pipelines.tasks.classification.data import SampleBatch
from ccnn_irregular.pipelines.tasks.classification.standardise import Standardise
from ccnn_irregular.pipelines.tasks.cloud_classification.data import CloudChanges, DrawnClouds, ShapeDataModule
from ccnn_irregular.pipelines.tasks.cloud_classification.module import CloudClassification
from ccnn_irregular.pipelines.tasks.cloud_classification.network import CloudClassifier
from ccnn_irregular.pipelines.tasks.cloud_segmentation.data import Discs, LabelDataModule, halves
from ccnn_irregular.pipelines.tasks.cloud_segmentation.module import PointPredictions
from ccnn_irregular.pipelines.tasks.cloud_segmentation.network import CloudSegmenter
from ccnn_irregular.pipelines.tasks.cloud_segmentation.task import class_iou, height_filter, mean_over_shapes
from ccnn_irregular.pipelines.train.batches import parts_loader
from ccnn_irregular.pipelines.train.draws import Draws
from ccnn_irregular.quadrature import covered_volume

pytestmark = pytest.mark.usefixtures("in_tmp_path")

QUIET = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]


# ------------------------------------------------------------------------------------------------------ end to end


def test_solids_are_told_apart_whatever_their_points(capsys: pytest.CaptureFixture[str]) -> None:
    config = ["--config", "simulated_clouds", "--data.count", "200", *QUIET]
    cli.main(["fit", *config])
    assert "136 train, 24 validation, 40 test" in capsys.readouterr().out
    cli.main(["test", *config, "--test.points", "64", "--test.gradient", "2"])
    printed = capsys.readouterr().out
    report = json.loads(Path("runs/simulated_clouds/test/metrics.json").read_text())
    weighed = {row["drawn"]: row["accuracy"] for row in report["weighted"]}
    even = {row["drawn"]: row["accuracy"] for row in report["without_weights"]}
    assert list(weighed) == ["256 points", "64 points", "256 points, density falls by e^2"]
    # Chance is 1 / 5, the standard error of 40 shapes 0.07.
    assert min(weighed.values()) > 0.5
    assert weighed["256 points, density falls by e^2"] >= even["256 points, density falls by e^2"]
    assert [row["options"]["weights"] for row in report["without_weights"]] == ["even"] * 3
    for name, accuracy in weighed.items():
        begin = name.partition(" by")[0]  # a long name goes on in the next line
        assert any(line.strip().startswith(begin) and f"{100 * accuracy:.2f}" in line for line in printed.splitlines())
    # No number is cut to fit a narrow console.
    assert all(f"{100 * row['difference']:+.2f}" in printed for row in report["weighted"] + report["without_weights"])
    assert {path.name for path in Path("runs/simulated_clouds/test").glob("*.png")} == {
        *("confusion.png", "drawn.png", "mistakes.png")
    }

    rows = list(csv.DictReader(Path("runs/simulated_clouds/test/predictions.csv").read_text().splitlines()))
    assert sum(row["label"] == row["prediction"] for row in rows) / len(rows) == weighed["256 points"]
    cli.main(["predict", *config, "--data.evaluate", "test", "--output", "again.csv"])
    assert Path("again.csv").read_text() == Path("runs/simulated_clouds/test/predictions.csv").read_text()
    cli.main(["predict", *config, "--output", "all.csv"])
    everyone = list(csv.DictReader(Path("all.csv").read_text().splitlines()))
    assert [row["id"] for row in everyone] == [str(number) for number in range(200)]
    assert [everyone[int(row["id"])] for row in rows] == rows


def test_ground_is_found_and_a_stopped_run_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    config = ["--config", "simulated_terrain", *QUIET]
    cli.main(["fit", *config])
    cli.main(["test", *config])
    printed = capsys.readouterr().out
    report = json.loads(Path("runs/simulated_terrain/test/metrics.json").read_text())
    assert report["iou"]["network"]["ground"] > 0.9
    assert f"{100 * report['iou']['network']['ground']:.2f}" in printed
    assert report["whole tile"]["points"] == 4000
    assert 0 < report["whole tile"]["peak memory of the process, GiB"] < 4
    assert Path("runs/simulated_terrain/test/map.png").stat().st_size > 10_000
    straight, across = (whole_tile_iou("runs/simulated_terrain/best.ckpt", angle) for angle in (0.0, 45.0))
    assert min(straight) > 0.9
    np.testing.assert_allclose(across, straight, atol=0.02)
    cli.main(["predict", *config, "--data.evaluate", "test"])
    rows = list(csv.DictReader(Path("runs/simulated_terrain/predictions.csv").read_text().splitlines()))
    assert len(rows) == report["data"]["points"]["test"] == 2001
    cli.main(["predict", *config, "--output", "all.csv"])
    assert len(Path("all.csv").read_text().splitlines()) == 1 + 4000
    assert {row["prediction"] for row in rows} == {"ground", "object"}


def whole_tile_iou(checkpoint: str, angle: float) -> Any:
    """Of the classes, on the simulated tile turned by ``angle`` degrees and read from a file."""
    tile = simulated_terrain(4000)
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    turn = torch.tensor([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]], dtype=torch.float64)
    np.savez("turned.npz", xyz=(tile.coordinates @ turn).numpy(), is_ground=tile.labels.numpy() == 1)
    data = LabelDataModule("lidar_ground", "turned.npz", discs=Discs(20.0, 32))
    data.setup("test")
    network = CloudSegmenter(9, 2, 4.0, kernel=replace(CLOUD_KERNEL, width=0.7, hidden=8), channels=[8, 16]).eval()
    weights = torch.load(checkpoint, weights_only=True)["state_dict"]
    network.load_state_dict(
        {name.removeprefix("network."): one for name, one in weights.items() if name.startswith("network.")}
    )
    with torch.no_grad():
        return class_iou(network(data.everything()).argmax(1).numpy(), tile.labels.numpy(), 2)


def test_an_interrupted_run_resumes_to_the_same_result(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Points are drawn anew for every batch: a resumed run draws those that the uninterrupted one would have drawn."""
    config = ["--config", "simulated_clouds", "--data.count", "60", "--trainer.max_epochs", "3", *QUIET]
    cli.main(["fit", *config, "--run_dir", "runs/whole"])
    step, taken = CloudClassification.training_step, []

    def interrupted(self: CloudClassification, *arguments: Any) -> torch.Tensor:
        taken.append(1)
        if len(taken) == 5:  # in the second epoch of three steps
            raise KeyboardInterrupt
        return step(self, *arguments)

    monkeypatch.setattr(CloudClassification, "training_step", interrupted)
    with pytest.raises(SystemExit):
        cli.main(["fit", *config, "--run_dir", "runs/parts"])
    assert "1 epoch is in runs/parts; the same command resumes" in capsys.readouterr().out
    monkeypatch.setattr(CloudClassification, "training_step", step)
    cli.main(["fit", *config, "--run_dir", "runs/parts"])
    assert history("runs/parts") == history("runs/whole")


# ------------------------------------------------------------------------------------------------- what is drawn


def shapes(**options: Any) -> ShapeDataModule:
    data = ShapeDataModule("simulated_solids", count=100, **{"points": 200, "places": 500} | options)
    data.setup("fit")
    return data


def test_a_density_falls_as_asked_and_weights_make_up_for_it() -> None:
    data = shapes(points=10_000, places=10_000)
    index = torch.arange(4)
    even = data.drawn_batch("test", index, DrawnClouds(20_000, 0.0, "even"))
    fallen = data.drawn_batch("test", index, DrawnClouds(20_000, 2.0, "surface"))
    assert isinstance(even.domain, Points)
    assert isinstance(fallen.domain, Points)
    for cloud in range(4):
        all_x = even.domain.coordinates[even.domain.splits[cloud] : even.domain.splits[cloud + 1], 0]
        rows = slice(int(fallen.domain.splits[cloud]), int(fallen.domain.splits[cloud + 1]))
        x, weights = fallen.domain.coordinates[rows, 0], fallen.domain.weights[rows]
        edges = torch.linspace(float(all_x.min()) - 1e-9, float(all_x.max()) + 1e-9, 6, dtype=torch.float64)
        share = torch.histogram(x, edges).hist / torch.histogram(all_x, edges).hist
        # Mean of exp(-2 t) over each fifth.
        t = torch.linspace(0, 1, 6, dtype=torch.float64)
        wanted = (torch.exp(-2 * t[:-1]) - torch.exp(-2 * t[1:])) / 0.4
        torch.testing.assert_close(share, wanted, rtol=0.3, atol=0)
        assert abs(float((weights * x).sum()) - float(all_x.mean())) < 0.04
        assert abs(float(x.mean()) - float(all_x.mean())) > 0.1


def test_points_are_the_same_in_every_call_and_others_in_every_epoch() -> None:
    data = shapes(changes=CloudChanges(fewest=50, turn=180, noise=0.01))
    first, again = (data.drawn_batch("validation", torch.tensor([3, 1]), data.as_trained) for _ in range(2))
    assert torch.equal(first.domain.coordinates, again.domain.coordinates)  # type: ignore[union-attr]
    batches = [next(iter(data.loader("train"))) for _ in range(2)]
    assert torch.equal(batches[0].domain.coordinates, batches[1].domain.coordinates)  # type: ignore[union-attr]
    loader = data.loader("train")
    loader.sampler.set_epoch(1)  # type: ignore[union-attr]
    assert not torch.equal(next(iter(loader)).domain.coordinates[:20], batches[0].domain.coordinates[:20])  # type: ignore[union-attr]


def test_all_shapes_come_part_after_part_as_in_their_parts() -> None:
    data = shapes(batch_size=16)
    drawn = DrawnClouds(50, 1.0)
    found = list(data.loader("all", drawn))
    assert sum(map(len, found)) == 100
    assert torch.equal(torch.cat([batch.labels for batch in found[:-3]]), data.labels("train"))
    parts = [batch for part in ("validation", "test") for batch in data.loader(part, drawn)]  # type: ignore[arg-type]
    for batch, wanted in zip(found[-len(parts) :], parts, strict=True):
        assert torch.equal(batch.labels, wanted.labels)
        assert torch.equal(batch.domain.coordinates, wanted.domain.coordinates)  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="variant must be left out for the training part"):
        data.loader("train", drawn)


@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4), batch_size=st.integers(1, 5))
def test_rows_of_parts_are_taken_once_and_in_order(sizes: list[int], batch_size: int) -> None:
    parts = {f"part {number}": np.arange(size)[::-1] + 10 * number for number, size in enumerate(sizes)}
    batches = list(parts_loader(lambda part, rows: [f"{part}: {row}" for row in rows.tolist()], parts, batch_size))
    assert [taken for batch in batches for taken in batch] == [
        f"{part}: {row}" for part in parts for row in parts[part]
    ]
    assert all(len(batch) <= batch_size and len({taken[:6] for taken in batch}) == 1 for batch in batches)


def test_numbers_of_points_are_log_uniform() -> None:
    data = shapes(changes=CloudChanges(fewest=20))
    counts = torch.cat([data.training_batch(torch.arange(40), epoch).domain.splits.diff() for epoch in range(40)])  # type: ignore[union-attr]
    assert 20 <= int(counts.min()) <= 22
    assert 190 <= int(counts.max()) <= 200
    assert float(counts.double().log().mean()) == pytest.approx((math.log(20) + math.log(200)) / 2, abs=0.05)


def test_changes_of_position() -> None:
    positions = np.random.default_rng(0).normal(size=(300, 3))
    counts, draws = np.array([150, 150]), Draws(1, 0, np.arange(2))
    turned = CloudChanges(turn=180, mirror=True).moved(positions, counts, draws)
    np.testing.assert_allclose(turned[:, 2], positions[:, 2])
    np.testing.assert_allclose(np.hypot(*turned[:, :2].T), np.hypot(*positions[:, :2].T))
    assert not np.allclose(turned, positions)
    quarter = CloudChanges(quarter_turns=True).moved(positions, counts, draws)
    swapped = np.sort(np.abs(quarter[:, :2]), axis=1)
    np.testing.assert_allclose(swapped, np.sort(np.abs(positions[:, :2]), axis=1))
    scaled = CloudChanges(scale=0.2).moved(positions, counts, draws) / positions
    for rows in (slice(150), slice(150, None)):
        np.testing.assert_allclose(scaled[rows], np.broadcast_to(scaled[rows][:1], (150, 3)))
    assert 0.8 <= scaled.min() < scaled.max() <= 1.2


@pytest.mark.parametrize("reading", [None, 0.3])
def test_clouds_of_any_size_have_an_answer(reading: float | None) -> None:
    """Empty ones, one point, points that are all the same, and repeated points among others."""
    torch.manual_seed(0)
    network = CloudClassifier(
        1,
        5,
        kernel=replace(CLOUD_KERNEL, hidden=4),
        reading=reading,
        spacing=0.4,
        channels=(8, 8),
    )
    network.prepare(shapes().typical_batch(4))
    sizes = torch.tensor([0, 1, 20, 30, 0])
    coordinates = torch.cat([torch.randn(1, 3), torch.ones(20, 3), torch.randn(15, 3).repeat(2, 1)]).double()
    splits = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)])
    bare = Points(coordinates, torch.ones(51, dtype=torch.float64), splits)
    batch = SampleBatch(torch.ones(51, 1), Points(coordinates, cloud_weights(bare, "surface"), splits), torch.arange(5))
    for training in (False, True):
        logits = network.train(training)(batch)
        assert logits.shape == (5, 5)
        assert bool(logits.isfinite().all())
    # Points at one place share the weight of one.
    once = torch.cat([coordinates[:2], coordinates[21:36]])
    bare = Points(once, torch.ones(17, dtype=torch.float64), torch.tensor([0, 0, 1, 2, 17, 17]))
    single = Points(once, cloud_weights(bare, "even"), bare.splits)
    doubled = Points(coordinates, cloud_weights(Points(coordinates, batch.domain.weights, splits), "even"), splits)
    network.eval()
    answers = [network(SampleBatch(torch.ones(one.count, 1), one, batch.labels)) for one in (single, doubled)]
    torch.testing.assert_close(*answers, rtol=1e-4, atol=1e-4)


def test_positions_that_are_not_finite_are_refused() -> None:
    network = CloudClassifier(
        1,
        5,
        kernel=replace(CLOUD_KERNEL, hidden=4),
        reading=None,
        spacing=0.4,
        channels=(8,),
    )
    coordinates = torch.zeros(4, 3, dtype=torch.float64)
    points = Points(coordinates, torch.ones(4, dtype=torch.float64))
    coordinates[2] = torch.nan
    with pytest.raises(ValueError, match="must be finite"):
        network(SampleBatch(torch.ones(4, 1), points, torch.zeros(1, dtype=torch.int64)))


# ------------------------------------------------------------------------------------------------------- tiles


def test_halves_do_not_overlap_and_validation_is_far_from_the_test() -> None:
    positions = torch.rand(1000, 3, dtype=torch.float64)
    parts = halves(positions, 1, 0.2)
    joined = torch.cat(list(parts.values()))
    assert torch.equal(joined.sort().values, torch.arange(1000))
    reach = {part: (float(positions[rows, 1].min()), float(positions[rows, 1].max())) for part, rows in parts.items()}
    assert reach["validation"][1] <= reach["train"][0]
    assert reach["train"][1] <= reach["test"][0]
    assert len(parts["test"]) in (500, 501)
    assert len(parts["validation"]) == pytest.approx(100, abs=2)


def terrain(**options: Any) -> LabelDataModule:
    data = LabelDataModule("simulated_terrain", count=2000, discs=Discs(15.0, 8), batch_size=4, **options)
    data.setup("fit")
    return data


def test_a_reversed_tile_is_trained_on_the_other_half() -> None:
    north, south = terrain(), terrain(reverse=True)
    assert (
        float(north.parts["train"].coordinates[:, 1].mean()) < 0 < float(south.parts["train"].coordinates[:, 1].mean())
    )


def test_all_points_of_a_tile_are_one_batch() -> None:
    data = terrain()
    (batch,) = data.loader("all")
    assert data.tile is not None
    assert torch.equal(batch.labels, data.tile.labels)
    (tested,) = data.loader("test")
    assert torch.equal(tested.values, data.tile.values[data.rows["test"]])


def test_discs_keep_the_weights_of_the_tile() -> None:
    """So kernels integrate the same function of a disc as of a whole tile."""
    data = terrain(weights="even")
    batch = data.training_batch(torch.arange(4), 0)
    part = data.parts["train"]
    each = float(covered_volume(part.coordinates[:, :2])) / len(part.values)
    torch.testing.assert_close(batch.domain.weights, torch.full((len(batch),), each, dtype=torch.float64))
    # Points of a disc lie within it.
    for first, last in zip(batch.domain.splits[:-1].tolist(), batch.domain.splits[1:].tolist(), strict=True):
        disc = batch.domain.coordinates[first:last, :2]
        assert float(torch.cdist(disc, disc).max()) <= 30.0 + 1e-9


def test_a_turned_tile_is_read_as_the_same_tile(tmp_path: Path) -> None:
    """Area, weights and features; the box around it is up to twice as large."""
    tile = simulated_terrain(3000, seed=2)
    turn = torch.tensor([[1.0, 1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 2**0.5]], dtype=torch.float64) / 2**0.5
    read = []
    for number, places in enumerate((tile.coordinates, tile.coordinates @ turn)):
        np.savez(tmp_path / f"{number}.npz", xyz=places.numpy(), is_ground=tile.labels.numpy() == 1)
        data = LabelDataModule("lidar_ground", str(tmp_path / f"{number}.npz"), discs=Discs(15.0, 8))
        data.setup("fit")
        read.append(data.everything())
    torch.testing.assert_close(read[1].domain.weights, read[0].domain.weights, rtol=1e-6, atol=0)
    torch.testing.assert_close(read[1].values, read[0].values, rtol=0, atol=1e-5)
    assert float(read[0].domain.weights.sum()) == pytest.approx(120**2, rel=0.04)


def test_normalisation_goes_by_area_and_not_by_points() -> None:
    """Half of the points repeated five times each, at a fifth of their weight: the same mean and deviation."""
    torch.manual_seed(0)
    values, weights = torch.randn(200, 9), torch.rand(200, dtype=torch.float64)
    rows = torch.cat([torch.arange(100).repeat(5), torch.arange(100, 200)])
    shared = torch.cat([weights[:100].repeat(5) / 5, weights[100:]])
    found = []
    for some, own in ((values, weights), (values[rows], shared)):
        standardise = Standardise(9)
        standardise.fit(some, own)
        found.append((standardise.mean, standardise.scale))
    torch.testing.assert_close(*found)


def test_the_height_filter_is_tuned_on_training_points_alone() -> None:
    data = terrain()
    filtered, chosen = height_filter(data)
    test = data.parts["test"]
    assert len(filtered) == len(test.values)
    iou = class_iou(filtered, test.labels.numpy(), 2)
    assert iou[1] > 0.8
    test.labels[:] = 0  # what the test part holds does not matter
    assert height_filter(data)[1] == chosen


def test_intersection_over_union_by_hand() -> None:
    predicted, labels = np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 0])
    iou = class_iou(predicted, labels, 3)
    np.testing.assert_allclose(iou[:2], [1 / 3, 2 / 4])
    assert np.isnan(iou[2])


def test_mean_over_shapes_by_hand() -> None:
    """Two kinds: parts 0 and 1, parts 2 and 3. A part that is neither there nor predicted counts as found."""
    possible = np.array([[True, True, False, False], [False, False, True, True]])
    probabilities = np.eye(4, dtype=np.float32)[[0, 0, 1, 2, 2]]
    probabilities[1] = [0.1, 0.3, 0.6, 0.0]  # part 2 is impossible for this shape: part 1 is taken
    labels = np.array([0, 1, 0, 2, 2])
    predictions = PointPredictions(probabilities, labels, np.array([0, 3, 5]))
    # First shape: predicted 0 1 1 for 0 1 0: 1/2 and 1/2; second: part 2 right, part 3 absent.
    shapes_mean, kinds_mean = mean_over_shapes(predictions, np.array([0, 1]), possible)
    assert shapes_mean == pytest.approx((0.5 + 1.0) / 2)
    assert kinds_mean == pytest.approx((0.5 + 1.0) / 2)


def test_a_point_of_a_tile_has_the_same_answer_in_float64_metres_far_away() -> None:
    torch.manual_seed(0)
    data = terrain()
    network = CloudSegmenter(9, 2, kernel=replace(CLOUD_KERNEL, width=0.7, hidden=4), spacing=4.0, channels=(8, 8))
    batch = data.training_batch(torch.arange(2), 0)
    network.prepare(batch, data.training_values())
    network.eval()
    far = Points(
        batch.domain.coordinates + torch.tensor([5e5, 5.4e6, 300.0]), batch.domain.weights, batch.domain.splits
    )
    torch.testing.assert_close(
        network(type(batch)(batch.values, far, batch.labels)), network(batch), rtol=1e-3, atol=1e-3
    )


# ----------------------------------------------------------------------------------------------------- what is refused


def test_options_that_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    clouds = ["fit", "--config", "simulated_clouds", *QUIET]
    assert "changes.fewest must be at most points, 16" in refused(capsys, *clouds, "--data.points", "16")
    assert "root must hold the meshes of ModelNet10" in refused(
        capsys, *clouds, "--data.dataset", "modelnet10", "--data.root", str(tmp_path)
    )
    assert "root must be given" in refused(capsys, *clouds, "--data.dataset", "modelnet40", "--data.root", "null")
    assert "classes must be the data's 5" in refused(capsys, *clouds, "--model.network.init_args.classes", "4")
    tile = ["fit", "--config", "simulated_terrain", *QUIET]
    assert "discs must be given for a tile" in refused(capsys, *tile, "--data.discs", "null")
    assert "in_channels must be the data's 9" in refused(capsys, *tile, "--model.network.init_args.in_channels", "4")
    missing = ["--data.dataset", "lidar_ground", "--data.root", "nowhere.npz"]
    assert "nowhere.npz" in refused(capsys, *tile, *missing)
    assert not Path("runs").exists()


def test_a_test_with_other_points_must_be_possible(capsys: pytest.CaptureFixture[str]) -> None:
    config = ["--config", "simulated_clouds", "--data.count", "60", *QUIET]
    cli.main(["fit", *config, "--trainer.max_epochs", "1"])
    assert "test.points must be at least 1" in refused(capsys, "test", *config, "--test.points", "0")
    assert "test.gradient must not be negative" in refused(capsys, "test", *config, "--test.gradient=-1")


def test_official_shapes_are_drawn(shared_data: Path) -> None:
    root = shared_data / "point_clouds"
    if not (root / "modelnet10_voxels.npz").is_file():
        pytest.skip(f"no modelnet10_voxels.npz in {root}")
    data = ShapeDataModule("modelnet10", str(root), points=64, batch_size=16)
    data.setup("fit")
    empty = data.describe()["without any point"]
    assert (empty["train"] + empty["validation"], empty["test"]) == (7, 1)
    batch = data.typical_batch(16)
    assert isinstance(batch.domain, Points)
    sums = torch.zeros(16, dtype=torch.float64).index_add(0, batch.domain.sample_index(), batch.domain.weights)
    torch.testing.assert_close(sums, torch.ones(16, dtype=torch.float64))
