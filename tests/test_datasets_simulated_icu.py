"""The simulated cohort: format, determinism, quirks, plausibility, and how hard its task is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ccnn_irregular.datasets import physionet2012, simulated_icu
from ccnn_irregular.datasets.physionet2012 import SERIES, STATICS, Cohort

STAYS = 1200


def load(root: Path, sets: Any = "a") -> Cohort:
    return physionet2012.load(root, sets, cache=False, progress=False)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    root = tmp_path_factory.mktemp("simulated")
    simulated_icu.write(root, stays=STAYS, seed=3)
    return load(root)


def observed(cohort: Cohort, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Values of a series and the index of the stay each belongs to."""
    column = cohort.values[:, SERIES.index(name)]
    seen = ~np.isnan(column)
    return column[seen], np.repeat(np.arange(len(cohort)), np.diff(cohort.splits))[seen]


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_the_loader_reads_it_as_an_official_set(cohort: Cohort) -> None:
    assert cohort.record_ids.tolist() == list(range(900001, 900001 + STAYS))
    assert cohort.report.skipped == ()
    assert 0.15 <= death(cohort).mean() <= 0.25
    assert 250 < cohort.report.measurements / STAYS < 450
    assert 0 <= cohort.times.min() < 1
    assert 47 < cohort.times.max() < 48
    assert cohort.outcomes is not None
    survival, length, died = (cohort.outcomes[name] for name in ("Survival", "Length_of_stay", "In-hospital_death"))
    np.testing.assert_array_equal((survival >= 2) & (survival <= length), died == 1)


def test_it_says_that_it_is_simulated(cohort: Cohort, tmp_path: Path) -> None:
    assert cohort.report.ignored_files == ("set-a/SIMULATED.txt",)
    simulated_icu.write(tmp_path, stays=2, seed=8)
    note = (tmp_path / "set-a" / "SIMULATED.txt").read_text()
    assert note.startswith("SIMULATED data")
    assert "2 stays, seed 8" in note


def test_it_has_the_quirks_of_the_real_sets(cohort: Cohort) -> None:
    assert 300 < cohort.report.repeated_pairs < 2000
    assert len(cohort.report.empty_stays) == 1
    missing = np.isnan(cohort.statics).mean(0)
    assert 0.4 < missing[STATICS.index("Height")] < 0.55
    assert 0.04 < missing[STATICS.index("Weight")] < 0.12
    assert missing[STATICS.index("Age")] == 0


def test_every_series_is_measured_within_plausible_bounds(cohort: Cohort) -> None:
    means = {"HR": (80, 100), "SysABP": (105, 130), "Temp": (36.7, 37.3), "pH": (7.3, 7.42), "Na": (135, 143)}
    means |= {"Lactate": (1.5, 4), "GCS": (10, 14), "Creatinine": (0.8, 2), "Weight": (70, 95), "MechVent": (1, 1)}
    for name in SERIES:
        values, _ = observed(cohort, name)
        assert len(values) > 50, name
        low, high = means.get(name, (0, np.inf))
        assert low <= values.mean() <= high, name
        assert values.std() > 0 or name == "MechVent"
    assert observed(cohort, "GCS")[0].max() <= 15
    assert observed(cohort, "SaO2")[0].max() <= 100


def death(cohort: Cohort) -> np.ndarray:
    assert cohort.outcomes is not None
    return cohort.outcomes["In-hospital_death"]


def test_the_dying_look_sicker_and_are_measured_differently(cohort: Cohort) -> None:
    died = death(cohort) == 1
    for name, sign in (("HR", 1), ("Lactate", 1), ("MAP", -1), ("pH", -1), ("GCS", -1), ("Creatinine", 1)):
        values, stay = observed(cohort, name)
        assert sign * (values[died[stay]].mean() - values[~died[stay]].mean()) > 0.1 * values.std(), name
    for name, factor in (("Lactate", 1.4), ("pH", 1.2), ("TroponinI", 1.4)):
        counts = np.bincount(observed(cohort, name)[1], minlength=len(cohort))
        assert counts[died].mean() > factor * counts[~died].mean(), name
    assert cohort.statics[died, STATICS.index("Age")].mean() > cohort.statics[~died, STATICS.index("Age")].mean() + 2


def test_the_task_can_be_learnt_but_not_solved(cohort: Cohort) -> None:
    ensemble = pytest.importorskip("sklearn.ensemble")
    metrics = pytest.importorskip("sklearn.metrics")
    selection = pytest.importorskip("sklearn.model_selection")
    columns = [cohort.statics]
    for name in SERIES:
        values, stay = observed(cohort, name)
        counts = np.bincount(stay, minlength=len(cohort))
        mean, last = np.full((2, len(cohort)), np.nan)
        mean[counts > 0] = np.bincount(stay, values, len(cohort))[counts > 0] / counts[counts > 0]
        last[stay] = values  # in the order of time: the last one stays
        columns += [counts[:, None], mean[:, None], last[:, None]]
    features = np.hstack(columns)
    model = ensemble.HistGradientBoostingClassifier(
        learning_rate=0.15, max_iter=35, max_leaf_nodes=8, l2_regularization=1.0, random_state=0
    )

    def auroc(inputs: np.ndarray) -> float:
        chances = selection.cross_val_predict(model, inputs, death(cohort), cv=3, method="predict_proba")
        return float(metrics.roc_auc_score(death(cohort), chances[:, 1]))

    assert 0.80 < auroc(features) < 0.92
    assert auroc(cohort.statics) < 0.70


def test_files_depend_on_seed_and_set_only(tmp_path: Path) -> None:
    simulated_icu.write(tmp_path / "once", stays=25, seed=1)
    simulated_icu.write(tmp_path / "again", stays=25, seed=1, sets=("b", "a"))
    simulated_icu.write(tmp_path / "other", stays=25, seed=2)
    once, again, other = (contents(tmp_path / name) for name in ("once", "again", "other"))
    assert once == {name: text for name, text in again.items() if "set-b" not in name and "-b." not in name}
    assert once.keys() == other.keys()
    assert once["set-a/900001.txt"] != other["set-a/900001.txt"]
    assert set(load(tmp_path / "again", ("a", "b")).sources.tolist()) == {"a", "b"}
    assert again["set-b/1000001.txt"] != again["set-a/900001.txt"]


def test_an_archive_holds_the_same_stays(tmp_path: Path) -> None:
    simulated_icu.write(tmp_path / "folder", stays=25, seed=1)
    simulated_icu.write(tmp_path / "archive", stays=25, seed=1, archive=True)
    simulated_icu.write(tmp_path / "twice", stays=25, seed=1, archive=True)
    assert contents(tmp_path / "archive") == contents(tmp_path / "twice")
    assert sorted(contents(tmp_path / "archive")) == ["Outcomes-a.txt", "set-a.tar.gz"]
    folder, archive = load(tmp_path / "folder"), load(tmp_path / "archive")
    assert np.nansum(archive.values) > 0
    np.testing.assert_array_equal(folder.values, archive.values)
    np.testing.assert_array_equal(folder.times, archive.times)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "set-b.tar.gz").write_bytes(b"real data")
    with pytest.raises(FileExistsError, match=r"root must not hold set-b.tar.gz yet"):
        simulated_icu.write(tmp_path, stays=2, seed=0, sets=("a", "b"))
    assert sorted(contents(tmp_path)) == ["set-b.tar.gz"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stays": 0}, "stays must lie in 1..100000, got 0"),
        ({"seed": -1}, "seed must not be negative, got -1"),
        ({"sets": ("d",)}, "sets must be different ones of"),
        ({"sets": ()}, "sets must be different ones of"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        simulated_icu.write(tmp_path / "root", **options)
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize("stays", [1, 2, 19])
def test_small_cohorts_have_measurements_everywhere(tmp_path: Path, stays: int) -> None:
    simulated_icu.write(tmp_path, stays=stays, seed=5)
    cohort = load(tmp_path)
    assert len(cohort) == stays
    assert cohort.report.empty_stays == ()
