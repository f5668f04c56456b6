"""Ragged batches, the split, the data module."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ccnn_irregular.datasets import physionet2012, simulated_icu
from ccnn_irregular.datasets.physionet2012 import Cohort
from ccnn_irregular.pipelines.tasks.risk.data import OUTCOME, ICUDataModule, StayBatch, split_stays


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("simulated")
    simulated_icu.write(root, stays=80, seed=3, sets=("a", "b"))
    return root


@pytest.fixture(scope="module")
def cohort(root: Path) -> Cohort:
    return physionet2012.load(root, ("a", "b"), cache=False, progress=False)


def module(root: Path, **options) -> ICUDataModule:
    return ICUDataModule(
        str(root), **{"sets": ("a", "b"), "cache": False, "progress": False, "batch_size": 16} | options
    )


def test_take_equals_taking_stay_by_stay(cohort: Cohort) -> None:
    batch = StayBatch.from_cohort(cohort)
    empty = int(np.flatnonzero(np.diff(cohort.splits) == 0)[0])
    indices = torch.tensor([5, empty, 0, 5, len(cohort) - 1])
    got = batch.take(indices)
    wanted = [slice(cohort.splits[i], cohort.splits[i + 1]) for i in indices.tolist()]
    np.testing.assert_array_equal(got.times, np.concatenate([cohort.times[rows] for rows in wanted]))
    np.testing.assert_array_equal(got.values, np.concatenate([cohort.values[rows] for rows in wanted]))
    assert got.splits.diff().tolist() == [rows.stop - rows.start for rows in wanted]
    np.testing.assert_array_equal(got.statics, cohort.statics[indices])
    assert got.labels is not None
    assert cohort.outcomes is not None
    np.testing.assert_array_equal(got.labels, cohort.outcomes[OUTCOME][indices])
    assert got.record_ids.tolist() == cohort.record_ids[indices].tolist()
    dtypes = [getattr(got, name).dtype for name in ("times", "values", "splits", "statics", "labels", "record_ids")]
    assert dtypes == [torch.float64, torch.float32, torch.int64, torch.float32, torch.float32, torch.int64]


def test_known_by_drops_what_came_later(cohort: Cohort) -> None:
    batch = StayBatch.from_cohort(cohort).take(torch.tensor([1, 2, 3]))
    hours = torch.tensor([0.0, 12.0, 48.0], dtype=torch.float64)
    got = batch.known_by(hours)
    for stay, limit in enumerate(hours.tolist()):
        times = batch.times[batch.splits[stay] : batch.splits[stay + 1]]
        kept = got.times[got.splits[stay] : got.splits[stay + 1]]
        assert kept.tolist() == [time for time in times.tolist() if time <= limit]
    assert len(got.values) == len(got.times) == int(got.splits[-1])


def test_to_keeps_dtypes_and_missing_labels(cohort: Cohort) -> None:
    batch = StayBatch.from_cohort(cohort).take(torch.arange(3))
    moved = batch.to("meta")
    assert moved.times.device.type == "meta"
    assert moved.times.dtype == torch.float64
    without = StayBatch(batch.times, batch.values, batch.splits, batch.statics, None, batch.record_ids)
    assert without.to("cpu").labels is None
    assert without.take(torch.tensor([0])).labels is None


def test_the_split_is_stable_disjoint_and_stratified() -> None:
    generator = np.random.default_rng(0)
    ids = generator.permutation(2000) + 100_000
    labels = (generator.random(2000) < 0.14).astype(np.int8)
    shares = {"held_out": 0.15, "validation": 0.1, "seed": 4}
    split = split_stays(ids, labels, **shares)
    parts = [split.train, split.validation, split.held_out]
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(2000))
    assert [len(part) for part in parts] == [1530, 170, 300]
    for part in parts:
        assert abs(labels[part].mean() - labels.mean()) < 0.006
    order = generator.permutation(2000)
    again = split_stays(ids[order], labels[order], **shares)
    assert set(ids[order][again.held_out]) == set(ids[split.held_out])
    assert set(ids[order][again.train]) == set(ids[split.train])
    assert set(split_stays(ids, labels, held_out=0.15, validation=0.1, seed=5).held_out) != set(split.held_out)


def test_the_held_out_stays_of_a_seed_never_change() -> None:
    # Results of different versions are compared on them: if this fails, every published figure needs a new split.
    ids = np.arange(40)
    split = split_stays(ids, (ids % 5 == 0).astype(np.int8), held_out=0.15, validation=0.1, seed=0)
    assert sorted(split.held_out.tolist()) == [1, 4, 15, 16, 19, 27]
    assert sorted(split.validation.tolist()) == [9, 18, 21, 25]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"held_out": 1.0}, r"held_out must be in \[0, 1\), got 1.0"),
        ({"validation": -0.1}, r"validation must be in \[0, 1\), got -0.1"),
        ({"record_ids": np.array([1, 2, 2, 4])}, r"record_ids must be unique to be split, got \[2\] more than once"),
        ({"labels": np.array([0, 0, 0, 1])}, "must be splittable by outcome, got 1 deaths in 4 stays"),
    ],
)
def test_bad_splits(change: dict, message: str) -> None:
    arguments = {"record_ids": np.arange(4), "labels": np.array([0, 1, 0, 1]), "held_out": 0.5, "validation": 0.0}
    with pytest.raises(ValueError, match=message):
        split_stays(**(arguments | change), seed=0)


def test_loaders_visit_each_stay_once_in_even_batches_and_shuffle_by_epoch(root: Path) -> None:
    data = module(root)
    data.setup("fit")
    loader = data.train_dataloader()
    epochs = []
    for epoch in (0, 1, 0):
        loader.sampler.set_epoch(epoch)
        batches = list(loader)
        sizes = [len(batch) for batch in batches]
        assert max(sizes) - min(sizes) <= 1
        assert max(sizes) <= 16
        assert len(batches) == len(loader)
        epochs.append(torch.cat([batch.record_ids for batch in batches]).tolist())
    assert sorted(epochs[0]) == sorted(data.stays("train").record_ids.tolist())
    assert epochs[0] == epochs[2] != epochs[1]
    held = torch.cat([batch.record_ids for batch in data.loader("test")]).tolist()
    watched = torch.cat([batch.record_ids for batch in data.val_dataloader()]).tolist()
    assert sorted(held + watched + epochs[0]) == sorted(data.cohort.record_ids.tolist())


def test_the_order_of_the_sets_does_not_move_a_stay(root: Path) -> None:
    first, second = module(root), module(root, sets=("b", "a"))
    for data in (first, second):
        data.setup("fit")
    assert set(first.stays("train").record_ids.tolist()) == set(second.stays("train").record_ids.tolist())


def test_every_stay_is_predicted_without_outcomes(root: Path, tmp_path: Path) -> None:
    (tmp_path / "set-b").symlink_to(root / "set-b", target_is_directory=True)
    data = module(tmp_path, sets=("b",), evaluate="all")
    data.setup("predict")
    batches = list(data.predict_dataloader())
    assert sum(map(len, batches)) == 80
    assert all(batch.labels is None for batch in batches)
    with pytest.raises(FileNotFoundError, match=r"must hold Outcomes-b\.txt"):
        data.setup("test")


def test_bad_options(root: Path) -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        module(root, batch_size=0)
    with pytest.raises(ValueError, match="sets must name at least one set"):
        module(root, sets=())
    with pytest.raises(ValueError, match="must be set up"):
        _ = module(root).cohort
    data = module(root, held_out=0.0)
    data.setup("fit")
    with pytest.raises(ValueError, match="the part 'test' must hold at least one stay, got none of 160"):
        data.loader("test")
