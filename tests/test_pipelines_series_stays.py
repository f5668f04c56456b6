"""Stays in intensive care as a preset of series: what a network is given is what the reader of PhysioNet 2012 found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from pipelines_stand_in import STAYS

from ccnn_irregular.datasets import physionet2012, simulated_icu
from ccnn_irregular.datasets.physionet2012 import Cohort
from ccnn_irregular.pipelines.tasks.series.data import SeriesTables
from ccnn_irregular.pipelines.tasks.series.module import SeriesModel
from ccnn_irregular.pipelines.tasks.series.network import SeriesNetwork
from ccnn_irregular.pipelines.tasks.series.parts import split_series

# Of the first steps on these stays, as the task of the risk had them that was a task of its own.
LOSSES = [0.7417872548103333, 0.7288181185722351, 0.7092754244804382, 0.7092621922492981]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("simulated")
    simulated_icu.write(root, stays=80, seed=3, sets=("a", "b"))
    return root


@pytest.fixture(scope="module")
def cohort(root: Path) -> Cohort:
    return physionet2012.load(root, ("a", "b"), cache=False, progress=False)


def module(root: Path, stage: str = "fit", sets: tuple[str, ...] = ("a", "b"), **options) -> SeriesTables:
    reader = {"sets": sets, "cache": False, "progress": False}
    shares = {"test": 0.15, "validation": 0.1, "batch_size": 16}
    data = SeriesTables(str(root), source="physionet2012", source_options=reader, **shares | options)
    data.setup(stage)
    return data


def test_a_batch_is_what_the_reader_found(root: Path, cohort: Cohort) -> None:
    samples = module(root).samples
    empty = int(np.flatnonzero(np.diff(cohort.splits) == 0)[0])
    chosen = torch.tensor([5, empty, 0, 5, len(cohort) - 1])
    got = samples.batch(chosen)
    wanted = [slice(cohort.splits[i], cohort.splits[i + 1]) for i in chosen.tolist()]
    np.testing.assert_array_equal(got.times, np.concatenate([cohort.times[rows] for rows in wanted]))
    np.testing.assert_array_equal(got.values, np.concatenate([cohort.values[rows] for rows in wanted]))
    assert got.splits.diff().tolist() == [rows.stop - rows.start for rows in wanted]
    np.testing.assert_array_equal(got.statics, cohort.statics[chosen])
    assert cohort.labels is not None
    np.testing.assert_array_equal(got.targets, cohort.labels[chosen])
    assert got.ids.tolist() == cohort.record_ids[chosen].tolist()
    names = ("times", "values", "splits", "statics", "targets", "ids")
    dtypes = [getattr(got, name).dtype for name in names]
    assert dtypes == [torch.float64, torch.float32, torch.int64, torch.float32, torch.float64, torch.int64]


def test_known_by_drops_what_came_later(root: Path, cohort: Cohort) -> None:
    limits = np.array([0.0, 12.0, 48.0])
    got = module(root).samples.take(np.array([1, 2, 3])).known_by(limits).batch(torch.arange(3))
    for place, limit in enumerate(limits):
        times = cohort.times[cohort.splits[place + 1] : cohort.splits[place + 2]]
        kept = got.times[got.splits[place] : got.splits[place + 1]]
        assert kept.tolist() == [time for time in times.tolist() if time <= limit]


def test_schema_and_losses_are_those_that_published_figures_came_from(root: Path, tmp_path: Path) -> None:
    data, losses = module(root), []
    assert data.schema == STAYS["schema"]

    class Keep(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:  # type: ignore[no-untyped-def]
            losses.append(float(outputs["loss"]))

    torch.manual_seed(0)
    model = SeriesModel(SeriesNetwork(**STAYS, thinning=0.8, members=2, hidden_channels=8, blocks=1))
    model.schedule = type(model.schedule)(1e-3, final_share=0.01, decay_generators=True)
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    trainer = Trainer(
        max_steps=4, max_epochs=1, accelerator="cpu", default_root_dir=tmp_path, callbacks=[Keep()], **quiet
    )
    trainer.fit(model, datamodule=data)
    assert losses == pytest.approx(LOSSES, rel=1e-5)


def test_the_split_is_stable_disjoint_and_stratified() -> None:
    generator = np.random.default_rng(0)
    labels = (generator.random(2000) < 0.14).astype(np.int64)
    shares = {"test": 0.15, "validation": 0.1}
    split = split_series(labels, **shares, seed=4)
    parts = list(split.values())
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(2000))
    assert [len(part) for part in parts] == [1530, 170, 300]
    for part in parts:
        assert abs(labels[part].mean() - labels.mean()) < 0.006
    assert set(split_series(labels, **shares, seed=5)["test"]) != set(split["test"])


def test_the_held_out_stays_of_a_seed_never_change() -> None:
    # Results of different versions are compared on them: if this fails, every published figure needs a new split.
    split = split_series((np.arange(40) % 5 == 0).astype(np.int64), test=0.15, validation=0.1, seed=0)
    assert split["test"].tolist() == [1, 4, 15, 16, 19, 27]
    assert split["validation"].tolist() == [9, 18, 21, 25]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test": 1.0}, r"data.test must lie in \[0, 1\), got 1.0"),
        ({"validation": -0.1}, r"data.validation must lie in \[0, 1\), got -0.1"),
        (
            {"strata": np.array([0, 0, 0, 1])},
            r"the labels must name more series of every class, so that each has some in and outside of data.test 0.5, "
            r"got 3 of 'alive', 1 of 'dead' among 4 series",
        ),
    ],
)
def test_bad_splits(change: dict, message: str) -> None:
    arguments = {"strata": np.array([0, 1, 0, 1]), "classes": ["alive", "dead"], "test": 0.5, "validation": 0.0}
    with pytest.raises(ValueError, match=message):
        split_series(**arguments | change, seed=0)


def test_loaders_visit_each_stay_once_in_even_batches_and_shuffle_by_epoch(root: Path) -> None:
    data = module(root)
    loader = data.train_dataloader()
    epochs = []
    for epoch in (0, 1, 0):
        loader.sampler.set_epoch(epoch)
        batches = list(loader)
        sizes = [len(batch.ids) for batch in batches]
        assert max(sizes) - min(sizes) <= 1
        assert max(sizes) <= 16
        assert len(batches) == len(loader)
        epochs.append(torch.cat([batch.ids for batch in batches]).tolist())
    assert sorted(epochs[0]) == sorted(int(one) for one in data.ids("train"))
    assert epochs[0] == epochs[2] != epochs[1]
    held = torch.cat([batch.ids for batch in data.loader("test")]).tolist()
    watched = torch.cat([batch.ids for batch in data.val_dataloader()]).tolist()
    assert sorted(held + watched + epochs[0]) == sorted(int(one) for one in data.ids("all"))


def test_the_order_of_the_sets_does_not_move_a_stay(root: Path) -> None:
    assert module(root).ids("train") == module(root, sets=("b", "a")).ids("train")


def test_every_stay_is_predicted_without_outcomes(root: Path, tmp_path: Path) -> None:
    (tmp_path / "set-b").symlink_to(root / "set-b", target_is_directory=True)
    other = {"sets": ("b",), "cache": False, "progress": False}
    data = SeriesTables(str(tmp_path), source="physionet2012", source_options=other, evaluate="all")
    data.schema = STAYS["schema"]
    data.setup("predict")
    batches = list(data.predict_dataloader())
    assert sum(len(batch.ids) for batch in batches) == 80
    assert all(bool(batch.targets.isnan().all()) for batch in batches)
    again = SeriesTables(str(tmp_path), source="physionet2012", source_options=other, evaluate="all")
    with pytest.raises(FileNotFoundError, match=r"must hold Outcomes-b\.txt"):
        again.setup("test")


def test_bad_options(root: Path) -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        SeriesTables(str(root), batch_size=0)
    with pytest.raises(ValueError, match="must be set up"):
        _ = SeriesTables(str(root)).samples
    with pytest.raises(ValueError, match="the part 'test' must hold at least one sample, got none"):
        module(root, test=0.0).loader("test")
