"""Formats of series from fit to predict: every row of files that training never saw, by its own id."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pipelines_tasks import write_tables

from ccnn_irregular.datasets import physionet2012
from ccnn_irregular.pipelines import cli
from ccnn_irregular.pipelines.tasks.series.data import SeriesTables

pytestmark = [
    # Networks this small reach less far than one would choose.
    pytest.mark.filterwarnings("ignore:kernel:UserWarning"),
]
QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"]
SMALL = ["--trainer.max_epochs", "2", "--model.network.init_args.members", "1", "--data.validation", "0.25"]
SMALL += ["--model.network.init_args.hidden_channels", "4", "--model.network.init_args.blocks", "1"]
COUNT = 24


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def fit_test_predict(folder: Path, new: Path, *options: str) -> list[dict[str, str]]:
    """The answers to another source of a run that was trained and tested; ``options`` are those of its own."""
    run = ["--run_dir", str(folder / "run"), *QUIET]
    cli.main(["fit", "--config", "series", *run, *SMALL, *options])
    cli.main(["test", *run, "--test.resamples", "20"])
    cli.main(["predict", *run, "--data.table", str(new), "--output", str(folder / "answers.csv")])
    return lines(folder / "answers.csv")


def require_answers(found: list[dict[str, str]], ids: list[str], classes: list[str], *rows: str) -> None:
    """A line for each id, with the columns that answers have in all tasks."""
    assert [line["id"] for line in found] == ids
    assert list(found[0]) == ["id", *rows, "prediction", *(f"probability_{name}" for name in classes)]
    for line in found:
        chances = {name: float(line[f"probability_{name}"]) for name in classes}
        assert sum(chances.values()) == pytest.approx(1, abs=1e-5)
        assert line["prediction"] in classes


# ---------------------------------------------------------------------------------------------------------------- MEDS


def write_meds(root: Path, first: int, labels: bool) -> list[str]:
    """Subjects in the layout of the Medical Event Data Standard; their ids."""
    rng = np.random.default_rng(first)
    subjects = list(range(first, first + COUNT))
    events = [pd.DataFrame({"subject_id": subjects, "code": "GENDER//F", "time": pd.NaT})]
    for subject in subjects:
        times = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.sort(rng.uniform(0, 48, 6)), unit="h")
        values = 140 + 3 * (subject % 2) + rng.normal(size=6)
        events.append(pd.DataFrame({"subject_id": subject, "time": times, "code": "LAB//Na", "numeric_value": values}))
    (root / "data").mkdir(parents=True)
    table = pd.concat([one.astype({"time": "datetime64[us]"}) for one in events], ignore_index=True)
    table["numeric_value"] = table["numeric_value"].astype("float32")
    table.to_parquet(root / "data" / "0.parquet")
    asked = pd.DataFrame({"subject_id": subjects, "prediction_time": pd.Timestamp("2024-01-02 12:00")})
    if labels:
        asked["boolean_value"] = [subject % 2 == 1 for subject in subjects]
    asked.to_parquet(root / "labels.parquet")
    return [str(one) for one in subjects]


def test_meds(tmp_path: Path) -> None:
    write_meds(tmp_path / "old", 100, labels=True)
    ids = write_meds(tmp_path / "new", 900, labels=False)
    labels = ["--data.labels", str(tmp_path / "old" / "labels.parquet")]
    options = ["--data.source", "meds", "--data.table", str(tmp_path / "old"), *labels]
    require_answers(fit_test_predict(tmp_path, tmp_path / "new", *options), ids, ["False", "True"])
    # Asked for at a time of its own, too.
    run, asked = ["--run_dir", str(tmp_path / "run"), *QUIET], str(tmp_path / "new" / "labels.parquet")
    output = tmp_path / "timed.csv"
    cli.main(["predict", *run, "--data.table", str(tmp_path / "new"), "--data.labels", asked, "--output", str(output)])
    require_answers(lines(output), ids, ["False", "True"], "time")
    assert {line["time"] for line in lines(output)} == {"2024-01-02 12:00:00"}


# ----------------------------------------------------------------------------------- PhysioNet/CinC Challenge of 2019


def write_stays(root: Path, first: int, labels: bool) -> list[str]:
    """Stays of 14 hours; every second one has sepsis, of which labels tell from hour 6 on. Ids, an hour each."""
    rng = np.random.default_rng(first)
    root.mkdir()
    names = [f"p{number:06d}" for number in range(first, first + COUNT)]
    for place, name in enumerate(names):
        hours = np.arange(1, 15)
        sepsis = (hours >= 6) * (place % 2)
        pulse = np.where(rng.random(14) < 0.3, np.nan, 80 + 20 * sepsis + rng.normal(size=14))
        columns = {"HR": pulse, "O2Sat": 97.0, "Age": 60.0 + place, "Gender": place % 2, "Unit1": np.nan}
        columns |= {"Unit2": np.nan, "HospAdmTime": -3.2, "ICULOS": hours}
        frame = pd.DataFrame(columns | ({"SepsisLabel": sepsis} if labels else {}))
        frame.to_csv(root / f"{name}.psv", sep="|", index=False, na_rep="NaN")
    return [name for name in names for _ in range(14)]


def test_stays_of_the_challenge_of_2019(tmp_path: Path) -> None:
    write_stays(tmp_path / "old", 1, labels=True)
    ids = write_stays(tmp_path / "new", 500, labels=False)
    options = ["--data.source", "psv", "--data.table", str(tmp_path / "old"), "--data.batch_size", "128"]
    found = fit_test_predict(tmp_path, tmp_path / "new", *options)
    require_answers(found, ids, ["0", "1"], "time")
    assert [line["time"] for line in found] == [str(hour) for hour in range(1, 15)] * COUNT
    report = json.loads((tmp_path / "run" / "test" / "metrics.json").read_text())
    assert report["utility"] <= 1
    alarms = [float(line["probability_1"]) >= report["threshold"] - 1e-6 for line in found]
    assert [line["prediction"] == "1" for line in found] == alarms
    assert len(report["calibration"]["levels"]) == 1  # times count from the hour that is asked about


# ------------------------------------------------------------------------------------------------------------ .ts, WFDB


def write_ts(path: Path, seed: int) -> list[str]:
    """Two channels at times of their own."""
    rng = np.random.default_rng(seed)
    head = "@problemName X\n@timeStamps true\n@univariate false\n@dimensions 2\n@classLabel true left right\n@data\n"
    rows = []
    for number in range(COUNT):
        channels = []
        for channel in range(2):
            times = np.cumsum(rng.integers(1, 4, rng.integers(3, 9)))
            values = rng.normal(size=len(times)) + 3 * (number % 2) * (channel == 0)
            channels.append(",".join(f"({time},{value:.3f})" for time, value in zip(times, values, strict=True)))
        rows.append(":".join([*channels, ("left", "right")[number % 2]]))
    path.write_text(head + "\n".join(rows) + "\n")
    return [str(number) for number in range(COUNT)]


def test_ts_files_whose_channels_have_their_own_times(tmp_path: Path) -> None:
    write_ts(tmp_path / "old.ts", 0)
    ids = write_ts(tmp_path / "new.ts", 1)
    options = ["--data.source", "ts", "--data.table", str(tmp_path / "old.ts")]
    found = fit_test_predict(tmp_path, tmp_path / "new.ts", *options)
    require_answers(found, ids, ["left", "right"])


def write_records(root: Path, seed: int) -> list[str]:
    """Records of two signals at rates of their own."""
    wfdb = pytest.importorskip("wfdb", reason="the extra 'formats' is not installed")
    rng = np.random.default_rng(seed)
    root.mkdir()
    names = [f"r{seed}{number:02d}" for number in range(COUNT)]
    for number, name in enumerate(names):
        signals = [rng.normal(size=20) + 2 * (number % 2), rng.normal(80, 5, size=10)]
        wfdb.wrsamp(
            name, fs=1, units=["mV", "mmHg"], sig_name=["ECG", "ABP"], e_p_signal=signals, samps_per_frame=[2, 1],
            fmt=["16", "16"], write_dir=str(root),
        )  # fmt: skip
    return names


def test_wfdb_records(tmp_path: Path) -> None:
    names = write_records(tmp_path / "old", 0)
    ids = write_records(tmp_path / "new", 1)
    labels = pd.DataFrame({"record": names, "rhythm": ["sinus", "other", "paced"] * (COUNT // 3)})
    labels.to_csv(tmp_path / "labels.csv", index=False)
    options = ["--data.source", "wfdb", "--data.table", str(tmp_path / "old"), "--data.columns.id", "record"]
    options += ["--data.labels", str(tmp_path / "labels.csv")]
    found = fit_test_predict(tmp_path, tmp_path / "new", *options)
    require_answers(found, ids, ["other", "paced", "sinus"])


# ---------------------------------------------------------------------------------------------------------- own tables


def test_entries_that_mean_nothing_are_declared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, labels = write_tables(tmp_path)
    rows = pd.read_csv(table, dtype=str)
    rows.loc[[0, 5], "value"] = "<0.5"
    rows.loc[7, "value"] = "-999"
    rows.to_csv(table, index=False)
    data = ["--data.table", str(table), "--data.labels", str(labels)]
    with pytest.raises(SystemExit):
        cli.main(["fit", "--config", "series", "--run_dir", str(tmp_path / "run"), *QUIET, *data])
    assert """data.columns.missing '["<0.5"]' counts it as not known""" in capsys.readouterr().err
    run = ["--run_dir", str(tmp_path / "run"), *QUIET]
    cli.main(["fit", "--config", "series", *run, *SMALL, *data, "--data.columns.missing", "<0.5", "-999"])
    assert "3 rows without a value" in capsys.readouterr().out
    cli.main(["predict", *run, "--output", str(tmp_path / "p.csv")])
    assert len(lines(tmp_path / "p.csv")) == 40


def test_a_class_too_rare_to_be_split_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, labels = write_tables(tmp_path)
    pd.read_csv(labels).assign(label=["rare", *["often"] * 39]).to_csv(labels, index=False)
    data = ["--data.table", str(table), "--data.labels", str(labels)]
    with pytest.raises(SystemExit):
        cli.main(["fit", "--config", "series", "--run_dir", str(tmp_path / "run"), *QUIET, *data])
    message = capsys.readouterr().err
    assert "in and outside of data.test 0.2, got 39 of 'often', 1 of 'rare' among 40 series" in message
    assert not (tmp_path / "run").exists()


def test_stays_of_2012_as_a_long_table_answer_a_set_that_was_never_seen(shared_data: Path, tmp_path: Path) -> None:
    """Real stays: set a to train on, all of set b to be answered, as tables in Parquet."""
    root = shared_data / "physionet2012"
    if not root.is_dir():
        pytest.skip(f"no stays: {root} is absent")
    stays = {}
    for letter in "ab":
        cohort = physionet2012.load(root, (letter,), cache=False, progress=False)
        stays[letter] = cohort
        owner = np.repeat(cohort.record_ids, np.diff(cohort.splits))
        at, what = np.nonzero(~np.isnan(cohort.values))
        names = np.array(physionet2012.SERIES)[what]
        columns = {"id": owner[at], "hour": cohort.times[at], "variable": names, "value": cohort.values[at, what]}
        pd.DataFrame(columns).to_parquet(tmp_path / f"{letter}.parquet")
        fixed = pd.DataFrame(cohort.statics, columns=physionet2012.STATICS)
        fixed.insert(0, "id", cohort.record_ids)
        fixed.to_csv(tmp_path / f"{letter}_statics.csv", index=False)
    assert stays["a"].outcomes is not None
    deaths = pd.DataFrame({"id": stays["a"].record_ids, "death": stays["a"].outcomes["In-hospital_death"]})
    deaths.to_csv(tmp_path / "deaths.csv", index=False)
    run = ["--run_dir", str(tmp_path / "run"), *QUIET]
    data = ["--data.table", str(tmp_path / "a.parquet"), "--data.labels", str(tmp_path / "deaths.csv")]
    data += ["--data.columns.label", "death", "--data.statics", str(tmp_path / "a_statics.csv")]
    data += ["--data.categories", "ICUType"]
    cli.main(["fit", "--config", "series", *run, *SMALL, *data, "--trainer.limit_train_batches", "10"])
    new = ["--data.table", str(tmp_path / "b.parquet"), "--data.statics", str(tmp_path / "b_statics.csv")]
    cli.main(["predict", *run, *new, "--output", str(tmp_path / "b.csv")])
    found = lines(tmp_path / "b.csv")
    require_answers(found, [str(one) for one in sorted(stays["b"].record_ids)], ["0", "1"])

    # What the network sees of the table is what it sees of the files.
    own = SeriesTables(str(root), source="physionet2012", source_options={"cache": False, "progress": False})
    table = SeriesTables(
        str(tmp_path / "a.parquet"),
        str(tmp_path / "deaths.csv"),
        str(tmp_path / "a_statics.csv"),
        categories=("ICUType",),
    )
    batches = []
    for one in (own, table):
        one.setup("fit")
        batches.append(next(iter(one.loader("validation"))))
    assert own.ids("test") == table.ids("test")
    for name in ("times", "values", "splits", "statics", "targets", "ids"):
        np.testing.assert_array_equal(*(getattr(batch, name) for batch in batches), err_msg=name)
