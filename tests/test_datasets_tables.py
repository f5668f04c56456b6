"""One's own tables of series: every layout and format reads as the numbers that were written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import wfdb
from hypothesis import given, settings
from hypothesis import strategies as st

from ccnn_irregular.datasets import physionet2012, simulated_icu, tables
from ccnn_irregular.datasets.tables import Columns, LongSeries

LONG = pd.DataFrame(
    {
        "patient_id": ["007", "007", "b", "007"],
        "time": [1.5, 0.0, 3.0, 1.5],
        "variable": ["hr", "hr", "hr", "SpO2"],
        "value": [80.0, 75.0, 60.0, 97.0],
    }
)
ROWS = [("007", 0.0, "hr", 75.0), ("007", 1.5, "SpO2", 97.0), ("007", 1.5, "hr", 80.0), ("b", 3.0, "hr", 60.0)]


def rows(series: LongSeries) -> list[tuple[str, float, str, float]]:
    """Id, time, variable, value of all values, sorted."""
    names = [series.variables[one] for one in series.variable]
    ids = [str(series.ids[one]) for one in series.series]
    return sorted(zip(ids, series.times.tolist(), names, series.values.tolist(), strict=True))


def wide(frame: pd.DataFrame) -> pd.DataFrame:
    """Id, time, and a column for each variable."""
    return frame.pivot_table("value", ["patient_id", "time"], "variable").reset_index()


# ------------------------------------------------------------------------------------------------- files and layouts


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.tsv", "a.parquet"])
@pytest.mark.parametrize("layout", [lambda frame: frame, wide])
def test_layouts_and_files_read_alike(tmp_path: Path, name: str, layout: Any) -> None:
    frame, path = layout(LONG), tmp_path / name
    if name.endswith("parquet"):
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep="\t" if ".tsv" in name else ",")
    found = tables.read(path)
    assert rows(found.series) == ROWS
    assert "id = patient_id" in found.notes[0]


def test_a_folder_is_all_of_its_files(tmp_path: Path) -> None:
    LONG[:2].to_csv(tmp_path / "1.csv", index=False)
    (tmp_path / "deeper").mkdir()
    LONG[2:].to_parquet(tmp_path / "deeper" / "2.parquet")
    (tmp_path / "notes.md").write_text("not a table")
    assert rows(tables.read(tmp_path).series) == ROWS
    both = [tmp_path / "1.csv", tmp_path / "deeper" / "2.parquet"]
    assert rows(tables.read(both).series) == ROWS


def test_chunks_read_as_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    LONG.to_csv(tmp_path / "a.csv", index=False)
    monkeypatch.setattr("ccnn_irregular.datasets.tables.files._ROWS", 1)
    assert rows(tables.read(tmp_path / "a.csv").series) == ROWS


cells = st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 2))


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(cells, st.floats(-95, 95, width=32), min_size=1), st.randoms())
def test_long_and_wide_in_any_order_hold_the_same(values: dict[tuple[int, int, int], float], random: Any) -> None:
    listed = list(values.items())
    random.shuffle(listed)
    long = pd.DataFrame([(*key, value) for key, value in listed], columns=["id", "time", "variable", "value"])
    across = long.pivot_table("value", ["id", "time"], "variable").add_prefix("v").reset_index()
    expected = sorted((str(i), float(t), str(v), x) for (i, t, v), x in values.items())
    assert rows(tables.from_frames(long).series) == expected
    assert rows(tables.from_frames(across).series) == [(i, t, f"v{v}", x) for i, t, v, x in expected]


# ------------------------------------------------------------------------------------------------------------- columns


def test_columns_are_named_or_found(tmp_path: Path) -> None:
    odd = LONG.rename(columns={"patient_id": "who", "time": "when", "variable": "what", "value": "how_much"})
    columns = Columns("who", "when", "what", "how_much")
    assert rows(tables.from_frames(odd, columns=columns).series) == ROWS
    with pytest.raises(ValueError, match=r"columns.id must name a column of the table \(none has a usual name\): who"):
        tables.from_frames(odd)
    two = LONG.assign(stay_id=1)
    with pytest.raises(ValueError, match=r"columns.id must name one of .* the table, got patient_id, stay_id"):
        tables.from_frames(two)
    with pytest.raises(ValueError, match=r"columns.time must name a column of the table: .*, got 'hour'"):
        tables.from_frames(LONG, columns=Columns(time="hour"))


def test_repeated_values_are_refused_or_merged_as_asked() -> None:
    twice = pd.concat([LONG, LONG[:1].assign(value=84.0)])
    match = r"one value of a variable of a series at a time .*got 1 repeated ones: 007 at 1.5, hr"
    with pytest.raises(ValueError, match=match):
        tables.from_frames(twice)
    for repeats, value in (("mean", 82.0), ("last", 84.0), ("first", 80.0)):
        merged = tables.from_frames(twice, repeats=repeats)
        assert ("007", 1.5, "hr", value) in rows(merged.series)
        assert len(merged.series.values) == 4


def test_repeated_values_at_dates_are_told_by_their_dates() -> None:
    """Not by the seconds since 1970 as which they are held."""
    dates = pd.Series(["2024-02-01T05:00:00", "2024-02-01T05:00:00"])
    for zone, told in (("", "2024-02-01T05:00:00"), ("+01:00", "2024-02-01T04:00:00Z")):
        frame = pd.DataFrame({"id": "P0", "time": dates + zone, "variable": "hr", "value": [80.0, 81.0]})
        with pytest.raises(ValueError, match=rf"1 repeated ones: P0 at {told}, hr"):
            tables.from_frames(frame)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (LONG.assign(value=["80", "75", "high", "97"]), r"column 'value' must hold numbers .*'high' of 'hr', 1 such"),
        (
            LONG.assign(time=[0.0, np.nan, 1.0, 2.0]),
            r"each value must have a time .*1 values without one, of series 007",
        ),
        (
            LONG.assign(patient_id=["a", None, "b", "c"]),
            "column 'patient_id' must name a series in every row, got 1 rows",
        ),
        (LONG.assign(value=[1.0, np.inf, 2.0, 3.0]), r"values of the table must be finite .* 1 infinite ones of hr"),
        (LONG.assign(time=["1", "2", "noon", "4"]), "column 'time' must hold numbers, or dates after ISO 8601"),
    ],
)
def test_what_cannot_be_read_is_named(frame: pd.DataFrame, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tables.from_frames(frame)


def test_columns_of_words_are_told_and_mixed_ones_refused() -> None:
    found = tables.from_frames(wide(LONG).assign(ward="A"))
    assert any("columns of words are left out: ward" in note for note in found.notes)
    assert "ward" not in found.series.variables
    with pytest.raises(ValueError, match=r"column 'lactate' must hold numbers, or words in every row .*'<1' among 2"):
        tables.from_frames(wide(LONG).assign(lactate=["<1", "2", "3"]))


# --------------------------------------------------------------------------------------------------------------- times


@pytest.mark.parametrize("zone", ["", "Z", "+02:00"])
def test_dates_count_from_the_first_row_of_each_series(zone: str) -> None:
    dates = [f"2024-03-31T0{hour}:30:00{zone}" for hour in (3, 0, 5, 3)]
    series = tables.from_frames(LONG.assign(time=dates), unit="h").series
    assert series.times.tolist() == [0.0, 3.0, 3.0, 0.0]
    assert (series.unit, series.kind) == ("h", "dates with a zone" if zone else "dates")


def test_dates_may_be_parsed_already_and_have_an_origin() -> None:
    frame = LONG.assign(time=pd.to_datetime(["2024-01-02", "2024-01-01", "2024-01-05", "2024-01-02"]))
    statics = pd.DataFrame({"patient_id": ["007", "b"], "born": pd.to_datetime(["2023-12-31", "2024-01-04"])})
    found = tables.from_frames(frame, statics=statics, columns=Columns(origin="born"), unit="d")
    assert rows(found.series)[0][1] == 1.0
    assert rows(found.series)[-1] == ("b", 1.0, "hr", 60.0)
    assert found.statics is not None
    assert list(found.statics.columns) == []


def test_times_of_two_kinds_are_refused() -> None:
    mixed = ["2024-01-01T00:00Z", "2024-01-01T00:00", "2024-01-01T00:00Z", "2024-01-01T00:00Z"]
    with pytest.raises(ValueError, match="column 'time' must hold dates that all have a zone, or none, got"):
        tables.from_frames(LONG.assign(time=mixed))
    labels = pd.DataFrame({"id": ["b"], "label": [1], "prediction_time": ["2024-01-01"]})
    with pytest.raises(ValueError, match="times must all be numbers, or dates"):
        tables.from_frames(LONG, labels)


def test_ids_without_values_are_kept_and_numbers_sort_as_numbers() -> None:
    frame = pd.DataFrame({"id": [10, 9], "time": [0, 0], "x": [1.0, 2.0]})
    labels = pd.DataFrame({"id": [9, 10, 11], "label": [0, 1, 0]})
    series = tables.from_frames(frame, labels).series
    assert series.ids.tolist() == ["9", "10", "11"]
    assert np.diff(series.splits).tolist() == [1, 1, 0]


def test_ids_that_the_table_lacks_are_named_with_what_becomes_of_them() -> None:
    frame = pd.DataFrame({"id": ["a", "b"], "time": [0, 0], "x": [1.0, 2.0]})
    labels = pd.DataFrame({"id": ["a", "c", "d"], "label": [0, 1, 0]})
    statics = pd.DataFrame({"id": ["a", "b", "e"], "age": [1, 2, 3]})
    notes = "\n".join(tables.from_frames(frame, labels, statics).notes)
    assert "2 of 3 ids of the labels are not in the table: c, d; they count as series without values" in notes
    assert "1 of 3 ids of the statics is not in the table: e; " in notes
    with pytest.raises(ValueError, match=r"ids of the labels must name series of the table .*, got c, d, while"):
        tables.from_frames(frame, labels[1:])


@pytest.mark.parametrize(("written", "asked"), [("0012", 12), ("12", 12.0), ("A7", "a7 "), ("12.0", 12)])
def test_ids_that_are_written_in_two_ways_are_refused(written: str, asked: Any) -> None:
    frame = pd.DataFrame({"id": [written, "b"], "time": [0, 0], "x": [1.0, 2.0]})
    labels = pd.DataFrame({"id": pd.Series([asked], dtype=type(asked)), "label": [0]})
    if written == "12":  # a whole number that pandas holds as a float
        assert tables.from_frames(frame, labels).labels is not None
        return
    got = f"got {str(asked)!r}, which the table calls {written!r}"
    with pytest.raises(ValueError, match=rf"ids of the labels must be written alike in all tables .*, {got}"):
        tables.from_frames(frame, labels)


def test_entries_that_mean_nothing_are_not_known() -> None:
    frame = LONG.assign(value=["80", "<1", "n/m", "-9"])
    missing = Columns(missing=("<1", "n/m", "-9"))
    assert tables.from_frames(frame, columns=missing).series.values.tolist() == [80.0]
    spread = wide(LONG).assign(lactate=[-9.0, 2.0, 3.0])
    found = tables.from_frames(spread, columns=Columns(missing=("-9",))).series
    assert sorted(found.values[found.variable == found.variables.index("lactate")]) == [2.0, 3.0]
    statics = pd.DataFrame({"id": ["007", "8"], "age": ["60", "n/m"], "ward": ["A", "n/m"]})
    labels = pd.DataFrame({"id": ["007", "8"], "label": ["yes", "n/m"]})
    read = tables.from_frames(LONG, labels, statics, columns=missing)
    assert read.statics is not None
    assert read.labels is not None
    assert tables.statics_schema(read.statics, None, ()) == {"age": [], "ward": ["A"]}
    assert read.statics.loc["8"].isna().all()
    assert read.labels["label"].isna().tolist() == [False, True]


def test_decimal_commas_are_read_where_they_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id;time;variable;value\n1;0,5;x;1,25\n")
    (tmp_path / "u.csv").write_text("id;time;variable;value\n1;0;x;1,25\n")
    with pytest.raises(ValueError, match=r"data.columns.decimal , reads decimal commas"):
        tables.read(tmp_path / "u.csv")
    assert rows(tables.read(tmp_path / "t.csv", columns=Columns(decimal=",")).series) == [("1", 0.5, "x", 1.25)]
    with pytest.raises(ValueError, match=r"data.columns.decimal must be . or ,, got ';'"):
        Columns(decimal=";")


# ------------------------------------------------------------------------------------------------- labels and statics


@pytest.mark.parametrize(
    ("labels", "kind", "classes"),
    [
        ([0, 1, 1], "binary", ("0", "1")),
        ([True, False, True], "binary", ("False", "True")),
        (["yes", "no", None], "binary", ("no", "yes")),
        ([0.0, 1.0, np.nan], "binary", ("0", "1")),
        (["a", "b", "c"], "classes", ("a", "b", "c")),
        ([2, 10, 1], "classes", ("1", "2", "10")),
        ([0.5, 1.5, 2.0], "number", ()),
        (list(range(30)), "number", ()),
    ],
)
def test_kinds_of_labels_are_inferred(labels: list[Any], kind: str, classes: tuple[str, ...]) -> None:
    found = tables.targets_of(pd.Series(labels))
    assert (found.kind, found.classes) == (kind, classes)
    for label, value in zip(labels, found.values, strict=True):
        known = not pd.isna(label)
        assert np.isnan(value) != known
        if known and kind != "number":
            assert str(label).removesuffix(".0") == classes[int(value)]


def test_kinds_of_labels_may_be_named() -> None:
    assert tables.targets_of(pd.Series([0, 1, 2]), "number").values.tolist() == [0.0, 1.0, 2.0]
    assert tables.targets_of(pd.Series(["a", "b"]), classes=["b", "a"]).values.tolist() == [1.0, 0.0]
    with pytest.raises(ValueError, match=r"labels must have two values .* got 3"):
        tables.targets_of(pd.Series([0, 1, 2]), "binary")
    with pytest.raises(ValueError, match="labels must be among the classes a, b, got c"):
        tables.targets_of(pd.Series(["a", "c"]), classes=["a", "b"])


def test_statics_are_numbers_or_categories() -> None:
    frame = pd.DataFrame({"age": [50.0, np.nan], "ward": ["A", "B"], "site": [3, 7]}, index=["x", "y"])
    schema = tables.statics_schema(frame, None, ["site"])
    assert schema == {"age": [], "ward": ["A", "B"], "site": ["3", "7"]}
    matrix = tables.statics_matrix(frame, np.array(["y", "none", "x"], dtype=object), schema)
    np.testing.assert_array_equal(matrix, [[np.nan, 2, 2], [np.nan] * 3, [50, 1, 1]])
    new = pd.DataFrame({"age": [1.0], "ward": ["C"], "extra": [0]}, index=["z"])
    with pytest.warns(UserWarning, match="training") as told:
        matrix = tables.statics_matrix(new, np.array(["z"], dtype=object), schema)
    np.testing.assert_array_equal(matrix, [[1, np.nan, np.nan]])
    texts = " ".join(str(one.message) for one in told)
    assert "'ward' that training did not have count as missing: C" in texts
    assert "left out: extra" in texts
    assert "missing: site" in texts


def test_statics_of_two_rows_a_series_are_refused() -> None:
    statics = pd.DataFrame({"patient_id": ["b", "b"], "age": [1, 2]})
    with pytest.raises(ValueError, match="the statics must hold one row a series, got several rows of b"):
        tables.from_frames(LONG, statics=statics)


# ------------------------------------------------------------------------------------------------------ other formats


def test_physionet_2012_as_a_long_table_is_what_its_own_reader_reads(tmp_path: Path) -> None:
    simulated_icu.write(str(tmp_path / "files"), stays=30, seed=1)
    own = tables.read(tmp_path / "files", source="physionet2012")
    cohort = physionet2012.load(tmp_path / "files", cache=False, progress=False)
    stay = np.repeat(cohort.record_ids, np.diff(cohort.splits))
    at, what = np.nonzero(~np.isnan(cohort.values))
    names = np.array(physionet2012.SERIES)[what]
    columns = {"id": stay[at], "time": cohort.times[at], "variable": names, "value": cohort.values[at, what]}
    pd.DataFrame(columns).sample(frac=1, random_state=0).to_csv(tmp_path / "long.csv.gz", index=False)
    assert cohort.outcomes is not None
    death = cohort.outcomes["In-hospital_death"]
    pd.DataFrame({"id": cohort.record_ids, "death": death}).to_csv(tmp_path / "labels.csv", index=False)
    long = tables.read(tmp_path / "long.csv.gz", tmp_path / "labels.csv", columns=Columns(label="death"))
    assert own.series.ids.tolist() == long.series.ids.tolist() == [str(one) for one in cohort.record_ids]
    for found in (own.series, long.series):
        again = found.with_variables(physionet2012.SERIES)
        table = np.full(cohort.values.shape, np.nan, np.float32)
        row = np.searchsorted(stay * 1e4 + cohort.times, cohort.record_ids[again.series] * 1e4 + again.times - 1e-6)
        table[row, again.variable] = again.values
        np.testing.assert_allclose(table, cohort.values, rtol=1e-6)
        np.testing.assert_allclose(cohort.times[row], again.times, rtol=0, atol=1e-6)
    assert own.labels is not None
    assert long.labels is not None
    assert own.labels["label"].tolist() == long.labels["label"].tolist()


def write_meds(root: Path) -> Path:
    """A data set of two subjects, its labels beside it."""
    shards = root / "data" / "train"
    shards.mkdir(parents=True)
    events = [
        (1, None, "GENDER//F", None),
        (1, "1950-01-01", "MEDS_BIRTH", None),
        (1, "2020-01-01 08:00", "LAB//Na", 140.0),
        (1, "2020-01-01 09:00", "ADMISSION", None),
        (2, "2020-05-01 00:00", "LAB//Na", 135.0),
    ]
    frame = pd.DataFrame(events, columns=["subject_id", "time", "code", "numeric_value"])
    frame["time"] = pd.to_datetime(frame["time"], format="mixed")
    frame.astype({"numeric_value": "float32"}).to_parquet(shards / "0.parquet")
    (root / "metadata").mkdir()
    pd.DataFrame({"code": ["LAB//Na"], "description": ["sodium"]}).to_parquet(root / "metadata" / "codes.parquet")
    labels = pd.DataFrame({"subject_id": [1, 2], "boolean_value": [True, False], "float_value": [np.nan, np.nan]})
    labels["prediction_time"] = pd.to_datetime(["2020-01-01 08:30", "2020-05-02 00:00"])
    labels.to_parquet(root / "labels.parquet")
    return root


def test_meds_events_are_values_statics_and_times(tmp_path: Path) -> None:
    root = write_meds(tmp_path / "meds")
    found = tables.read(root, root / "labels.parquet", source="meds", unit="h")
    values = [("1", 0.0, "LAB//Na", 140.0), ("1", 1.0, "ADMISSION (event)", 1.0), ("2", 0.0, "LAB//Na", 135.0)]
    assert rows(found.series) == values
    assert "1 births are left out" in found.notes
    assert found.statics is not None
    assert found.statics.loc["1"].to_dict() == {"GENDER//F": 1.0}
    assert found.labels is not None
    assert found.labels["label"].tolist() == [True, False]
    assert found.label_instants is not None


def test_events_without_codes_are_refused(tmp_path: Path) -> None:
    root = write_meds(tmp_path / "meds")
    (path,) = (root / "data").rglob("*.parquet")
    pd.read_parquet(path).drop(columns="code").to_parquet(path)
    with pytest.raises(ValueError, match=r"numeric_value of MEDS, got none named code"):
        tables.read(root, root / "labels.parquet", source="meds", unit="h")


def test_stays_of_the_challenge_of_2019(tmp_path: Path) -> None:
    head = "HR|O2Sat|Age|Gender|Unit1|Unit2|HospAdmTime|ICULOS|SepsisLabel\n"
    (tmp_path / "p000001.psv").write_text(head + "80|NaN|60.5|1|NaN|NaN|-3.2|1|0\nNaN|97|60.5|1|NaN|NaN|-3.2|2|1\n")
    (tmp_path / "p000002.psv").write_text(head + "NaN|NaN|40|0|0|1|-1|1|0\n")
    found = tables.read(tmp_path, source="psv")
    assert rows(found.series) == [("p000001", 1.0, "HR", 80.0), ("p000001", 2.0, "O2Sat", 97.0)]
    assert found.series.ids.tolist() == ["p000001", "p000002"]
    assert found.labels is not None
    assert found.labels.to_dict("list") == {"id": ["p000001"] * 2 + ["p000002"], "label": [0, 1, 0], "time": [1, 2, 1]}
    assert found.statics is not None
    assert found.statics.loc["p000001", "Age"] == 60.5


def test_channels_of_a_ts_file_keep_their_times(tmp_path: Path) -> None:
    head = "@problemName X\n@timeStamps true\n@univariate false\n@dimensions 2\n@classLabel true left right\n@data\n"
    (tmp_path / "X.ts").write_text(head + "(0,1),(2,2):(1,3):left\n(0,4):(0,5),(3,6):right\n")
    found = tables.read(tmp_path / "X.ts", source="ts")
    one, two = "channel 0", "channel 1"
    expected = [
        ("0", 0, one, 1),
        ("0", 1, two, 3),
        ("0", 2, one, 2),
        ("1", 0, one, 4),
        ("1", 0, two, 5),
        ("1", 3, two, 6),
    ]
    assert rows(found.series) == expected
    assert found.labels is not None
    assert found.labels["label"].tolist() == ["left", "right"]


def test_signals_of_a_wfdb_record_keep_their_rates(tmp_path: Path) -> None:
    signals = [np.array([0.5, 1.0, -0.5, 0.25]), np.array([10.0, 20.0])]
    wfdb.wrsamp(
        "r1", fs=2, units=["mV", "mmHg"], sig_name=["ECG", "ABP"], e_p_signal=signals, samps_per_frame=[2, 1],
        fmt=["16", "16"], write_dir=str(tmp_path),
    )  # fmt: skip
    found = rows(tables.read(tmp_path, source="wfdb").series)
    assert [(one, time, name) for one, time, name, _ in found] == [
        ("r1", 0.0, "ABP"), ("r1", 0.0, "ECG"), ("r1", 0.25, "ECG"), ("r1", 0.5, "ABP"), ("r1", 0.5, "ECG"),
        ("r1", 0.75, "ECG"),
    ]  # fmt: skip
    np.testing.assert_allclose([value for *_, value in found], [10, 0.5, 1, 20, -0.5, 0.25], atol=1e-3)


def test_decimal_commas_beside_texts_that_are_missing(tmp_path: Path) -> None:
    rows_of_file = ["0012;2024-01-01;CRP;<0,5", "0012;2024-01-02;CRP;1,5", "0013;2024-01-01;CRP;2,5"]
    (tmp_path / "a.csv").write_text("\n".join(["id;time;parameter;value", *rows_of_file]))
    found = tables.read(tmp_path / "a.csv", columns=Columns(decimal=",", missing=("<0,5",)))
    assert found.series.values.tolist() == [1.5, 2.5]
    with pytest.raises(ValueError, match=r"""'\["<0,5"\]' counts it as not known.*got '<0,5' of 'CRP', 1 such rows"""):
        tables.read(tmp_path / "a.csv", columns=Columns(decimal=","))
    codes = Columns(decimal=",", missing=("<0,5", "2,5"))
    assert tables.read(tmp_path / "a.csv", columns=codes).series.values.tolist() == [1.5]
    # A point may part thousands or be another decimal sign.
    (tmp_path / "b.csv").write_text("\n".join(["id;time;parameter;value", *rows_of_file, "0013;2024-01-02;CRP;1.234"]))
    with pytest.raises(ValueError, match=r"hold no points, of thousands neither.*got '1\.234'"):
        tables.read(tmp_path / "b.csv", columns=Columns(decimal=",", missing=("<0,5",)))


def test_codes_of_archives_are_refused_until_they_are_declared() -> None:
    frame = pd.DataFrame({"id": [1, 1, 2, 2], "time": [0, 1, 0, 1], "variable": "Na", "value": [140, -999, 138, 141]})
    with pytest.raises(ValueError, match=r"variable 'Na' .*missing -999, or .*'\[\]'.* got -999 1 times, all others"):
        tables.from_frames(frame)
    with pytest.raises(ValueError, match=r"--data.columns.missing '<1' -999, or 1e30"):
        tables.from_frames(frame, columns=Columns(missing=("<1",)))
    assert len(tables.from_frames(frame, columns=Columns(missing=("<1", "-999"))).series.values) == 3
    for as_values in ((), ("<1", "1e30")):
        assert len(tables.from_frames(frame, columns=Columns(missing=as_values)).series.values) == 4
    # -99 beside -95 is a value.
    assert len(tables.from_frames(frame.assign(value=[-99, -95, 0, 1])).series.values) == 4
    ages = pd.DataFrame({"id": [1, 2, 3], "age": [50, 60, -9999]})
    with pytest.raises(ValueError, match=r"column 'age' of the statics .*missing -9999"):
        tables.from_frames(frame[2:], statics=ages)
