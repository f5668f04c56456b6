"""Samples that a data set holds twice: together in parts made here, counted where official parts share them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ccnn_irregular.datasets.samples import LabelledClouds
from ccnn_irregular.pipelines import cli
from ccnn_irregular.pipelines.tasks.classification.content import carved
from ccnn_irregular.pipelines.tasks.classification.data import SampleDataModule
from ccnn_irregular.pipelines.tasks.cloud_classification.data import ShapeDataModule
from ccnn_irregular.pipelines.tasks.cloud_segmentation.data import LabelDataModule
from ccnn_irregular.pipelines.tasks.cloud_segmentation.module import PointPredictions
from ccnn_irregular.pipelines.tasks.cloud_segmentation.task import iou_without
from ccnn_irregular.pipelines.train.equal_samples import EqualSamples, split_together
from ccnn_irregular.pipelines.train.evaluation import wilson_interval


@given(st.lists(st.integers(0, 12), min_size=40, max_size=80), st.integers(0, 5))
def test_equal_samples_are_in_one_part(keys: list[int], seed: int) -> None:
    labels = torch.tensor(keys) % 2  # a label of its own for each content
    held = np.array(keys, dtype=np.uint64)

    def halves(of: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        order = torch.randperm(len(of), generator=torch.Generator().manual_seed(seed))
        return order[: len(of) // 2], order[len(of) // 2 :]

    parts = split_together(held, labels, halves)
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(len(keys)))
    assert not np.isin(held[parts[0].numpy()], held[parts[1].numpy()]).any()
    assert all(bool((part.diff() > 0).all()) for part in parts)


def test_samples_that_all_differ_are_split_as_ever() -> None:
    labels = torch.arange(60) % 3
    keys = np.random.default_rng(0).permutation(60).astype(np.uint64)
    parts = split_together(keys, labels, lambda own: carved(own, 0.2, 4))
    for part, wanted in zip(parts, carved(labels, 0.2, 4), strict=True):
        assert torch.equal(part, wanted)


def voxels(folder: Path) -> dict[str, np.ndarray]:
    """A file of ModelNet's form: 40 training grids twice; test grids 0 to 3 are training grids, 2 of another label."""
    rng = np.random.default_rng(0)
    train = (rng.random((60, 6, 6, 6)) < 0.5).astype(np.int32)
    train = np.concatenate([train, train[:40]])
    labels = np.concatenate([np.arange(60), np.arange(40)]) % 10
    test = (rng.random((30, 6, 6, 6)) < 0.5).astype(np.int32)
    test[:4] = train[[3, 5, 50, 7]]
    tested = np.arange(30) % 10
    tested[:4] = [3, 5, 4, 7]
    content = {"X_train": train, "y_train": labels, "X_test": test, "y_test": tested}
    np.savez(folder / "modelnet10_voxels.npz", **content)  # type: ignore[arg-type]
    return content


@pytest.mark.parametrize("form", ["grids", "clouds"])
def test_equal_shapes_stay_together_and_those_of_the_test_are_counted(tmp_path: Path, form: str) -> None:
    content = voxels(tmp_path)
    data: Any
    if form == "grids":
        data = SampleDataModule("modelnet10_voxels", str(tmp_path), validation=0.3)
    else:
        data = ShapeDataModule("modelnet10", str(tmp_path), validation=0.3)
    data.setup("fit")
    train, watched = (set(data.keys(part)[:, 0].tolist()) for part in ("train", "validation"))
    assert len(train) + len(watched) == 60
    assert not train & watched
    equal = EqualSamples.of(data)
    # The truth: arrays compared as they are.
    same = [[np.array_equal(one, other) for other in content["X_train"]] for one in content["X_test"]]
    assert equal.equal.tolist() == [any(row) for row in same]
    wrong = [
        any(row) and not any(match and label == mine for match, label in zip(row, content["y_train"], strict=True))
        for row, mine in zip(same, content["y_test"], strict=True)
    ]
    assert equal.other_label.tolist() == wrong
    assert list(equal.counts().values()) == [30, 4, 1]


def test_own_test_parts_share_no_sample_with_training() -> None:
    shapes = ShapeDataModule("simulated_solids", count=100, points=20, places=50)
    samples = SampleDataModule("simulated_strokes", count=60)
    for data in (shapes, samples):
        data.setup("test")
        assert list(EqualSamples.of(data).counts().values())[1:] == [0, 0]


def test_parts_of_equal_shapes_are_told_with_and_without_them() -> None:
    """Two test shapes, the first of which is a training shape with its points in another order."""
    places = torch.rand(12, 3, dtype=torch.float64)

    def clouds(rows: list[int], sizes: list[int], kinds: list[int]) -> LabelledClouds:
        splits = torch.tensor([0, *sizes]).cumsum(0)
        labels, possible = torch.tensor(rows) % 2, torch.ones(2, 2, dtype=torch.bool)
        values = torch.ones(len(rows), 1)
        return LabelledClouds(places[rows], values, labels, splits, ("a", "b"), "1", torch.tensor(kinds), possible)

    data = LabelDataModule("shapenet_part", "nowhere")
    data.parts = {
        "train": clouds([0, 1, 2, 3, 4], [2, 3], [0, 1]),
        "validation": clouds([5, 6], [2], [0]),
        "test": clouds([4, 2, 3, 8, 9, 10, 11], [3, 4], [0, 1]),
    }
    equal = EqualSamples.of(data)
    assert (equal.equal.tolist(), equal.other_label.tolist()) == ([True, False], [True, False])
    probabilities = np.eye(2, dtype=np.float32)[[1, 1, 1, 0, 1, 1, 1]]
    predictions = PointPredictions(probabilities, data.parts["test"].labels.numpy(), np.array([0, 3, 7]))
    # Of the second shape, 0 1 0 1: 0 is found once of two and 1 is right twice of three.
    assert iou_without(equal, predictions) == pytest.approx((1 / 2 + 2 / 3) / 2)


@pytest.mark.usefixtures("in_tmp_path")
def test_accuracy_is_told_with_and_without_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    voxels(tmp_path)
    config = ["--config", "simulated_clouds", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
    config += ["--data.dataset", "modelnet10", "--data.root", str(tmp_path), "--trainer.max_epochs", "1"]
    config += ["--data.points", "64", "--data.validation", "0.3"]
    with pytest.warns(UserWarning, match="4 of the shapes to test on are in the training or validation part"):
        cli.main(["fit", *config, "--model.network.init_args.classes", "10"])
    cli.main(["test", *config])
    printed = capsys.readouterr().out
    assert printed.count("note:") == 1  # told once, with the accuracy without them
    assert "4 of 30 test samples equal one trained on or validated with, 1 with another label" in printed
    report = json.loads(Path("runs/simulated_clouds/test/metrics.json").read_text())["equal_samples"]
    rows = list(csv.DictReader(Path("runs/simulated_clouds/test/predictions.csv").read_text().splitlines()))
    right = [row["label"] == row["prediction"] for row in rows][4:]
    (told,) = report.pop("without_them")
    assert list(report.values()) == [30, 4, 1]
    assert (told["accuracy"], told["n"]) == (pytest.approx(sum(right) / 26), 26)
    assert (told["low"], told["high"]) == pytest.approx(wilson_interval(sum(right), 26))


def test_official_shapes_that_equal_one_another(shared_data: Path) -> None:
    """71 filled test grids and the empty one equal a training grid; 6 and the empty one have another label."""
    root = shared_data / "point_clouds"
    if not (root / "modelnet10_voxels.npz").is_file():
        pytest.skip(f"no modelnet10_voxels.npz in {root}")
    data = SampleDataModule("modelnet10_voxels", str(root))
    data.setup("test")
    assert list(EqualSamples.of(data).counts().values()) == [908, 72, 7]
    assert not set(data.keys("train")[:, 0].tolist()) & set(data.keys("validation")[:, 0].tolist())
