"""The reader of the PhysioNet 2012 challenge: format, faults, archives, outcomes, cache, download, official files."""

from __future__ import annotations

import csv
import gzip
import hashlib
import http.server
import io
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ccnn_irregular._cache_folder import cache_folder
from ccnn_irregular.datasets import physionet2012
from ccnn_irregular.datasets.physionet2012 import SERIES, STATICS, Cohort

read = partial(physionet2012.load, cache=False, progress=False)

HEAD = "Time,Parameter,Value\n00:00,RecordID,{id}\n00:00,Age,54\n00:00,Gender,1\n00:00,Height,-1\n00:00,ICUType,4\n"
OUTCOME_HEADER = "RecordID,SAPS-I,SOFA,Length_of_stay,Survival,In-hospital_death\n"
COLUMN = {name: column for column, name in enumerate(SERIES)}


def record(record_id: int, body: str = "", weight: str = "71.5") -> str:
    return HEAD.format(id=record_id) + f"00:00,Weight,{weight}\n" + body


def outcome_rows(record_ids: list[int]) -> str:
    return OUTCOME_HEADER + "".join(f"{record_id},6,1,5,-1,{record_id % 2}\n" for record_id in record_ids)


def write_set(root: Path, texts: dict[int, str | bytes], letter: str = "a") -> Path:
    """An unpacked set with its outcomes file; returns ``root``."""
    folder = root / f"set-{letter}"
    folder.mkdir(parents=True)
    for record_id, text in texts.items():
        (folder / f"{record_id}.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    (root / f"Outcomes-{letter}.txt").write_text(outcome_rows(list(texts)))
    return root


def write_archive(path: Path, entries: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for entry, content in entries:
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def entry(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def assert_same(left: Cohort, right: Cohort) -> None:
    for name in ("record_ids", "splits", "times", "values", "statics", "sources"):
        first, second = getattr(left, name), getattr(right, name)
        assert first.dtype == second.dtype, name
        np.testing.assert_array_equal(first, second, err_msg=name)
    assert (left.outcomes is None) == (right.outcomes is None)
    if left.outcomes is not None and right.outcomes is not None:
        assert left.outcomes.keys() == right.outcomes.keys()
        for name, column in left.outcomes.items():
            assert column.dtype == right.outcomes[name].dtype
            np.testing.assert_array_equal(column, right.outcomes[name], err_msg=name)
    assert left.report == right.report


# ------------------------------------------------------------------------------------------------ what is in a record


def test_the_names_are_the_challenges() -> None:
    assert len(SERIES) == 37
    assert list(SERIES) == sorted(set(SERIES))
    assert {"Weight", "HR", "pH", "TroponinT", "NIDiasABP"} <= set(SERIES)
    assert STATICS == ("Age", "Gender", "Height", "ICUType", "Weight")


def test_values_times_statics_and_outcomes_of_a_small_set(tmp_path: Path) -> None:
    first = record(11, "00:07,HR,73\n00:07,pH,7.31\n13:30,HR,88.5\n48:00,Weight,70\n")
    root = write_set(tmp_path, {12: record(12, "01:00,Lactate,1.5e0\n", weight="-1"), 11: first})
    cohort = read(root)
    assert len(cohort) == 2
    assert cohort.record_ids.tolist() == [11, 12]
    assert cohort.splits.tolist() == [0, 3, 4]
    np.testing.assert_array_equal(cohort.times, [7 / 60, 13.5, 48.0, 1.0])
    expected = np.full((4, 37), np.nan, np.float32)
    expected[0, COLUMN["HR"]], expected[0, COLUMN["pH"]] = 73, 7.31
    expected[1, COLUMN["HR"]], expected[2, COLUMN["Weight"]], expected[3, COLUMN["Lactate"]] = 88.5, 70, 1.5
    np.testing.assert_array_equal(cohort.values, expected)
    np.testing.assert_array_equal(
        cohort.statics, np.array([[54, 1, np.nan, 4, 71.5], [54, 1, np.nan, 4, np.nan]], np.float32)
    )
    assert cohort.outcomes is not None
    assert cohort.outcomes["In-hospital_death"].tolist() == [1, 0]
    assert cohort.outcomes["Survival"].tolist() == [-1, -1]
    assert cohort.sources.tolist() == ["a", "a"]
    dtypes = [array.dtype.name for array in (cohort.record_ids, cohort.splits, cohort.times, cohort.values)]
    assert dtypes == ["int64", "int64", "float64", "float32"]
    assert cohort.outcomes["In-hospital_death"].dtype == np.int8
    assert cohort.report.stays == {"a": 2}
    assert (cohort.report.rows, cohort.report.measurements) == (4, 5)


def test_stays_become_series_of_all_41_parameters(tmp_path: Path) -> None:
    """Descriptors are observed once, before everything else."""
    body = "00:07,HR,73\n30:00,Weight,70\n30:00,HR,60\n"
    write_set(tmp_path, {132539: record(132539, body), 132540: record(132540, "", weight="-1")})
    cohort = physionet2012.load(tmp_path, cache=False, progress=False)
    series = cohort.as_series()
    assert series.channels == (*SERIES, "Age", "Gender", "Height", "ICUType")
    assert series.ids is not None
    assert series.ids.tolist() == [132539, 132540]
    assert series.labels.tolist() == (cohort.labels if cohort.labels is not None else np.zeros(2)).tolist()
    np.testing.assert_allclose(series.times, [-1 / 60, 7 / 60, 30.0, -1 / 60])
    cells = [(number, round(time, 3), name, value) for number, time, name, value in series.cells()]
    statics = {name: float(value) for name, value in zip(STATICS, cohort.statics[0], strict=True)}
    assert {cell[2]: cell[3] for cell in cells if cell[0] == 132539 and cell[1] < 0} == pytest.approx(
        {name: value for name, value in statics.items() if not np.isnan(value)}
    )
    later = sorted(cell[1:] for cell in cells if cell[1] > 0)
    assert later == [(0.117, "HR", 73.0), (30.0, "HR", 60.0), (30.0, "Weight", 70.0)]


def test_only_the_first_weight_at_admission_is_a_static(tmp_path: Path) -> None:
    cohort = read(write_set(tmp_path, {11: record(11, "00:00,Weight,70.4\n")}))
    assert cohort.statics[0, STATICS.index("Weight")] == np.float32(71.5)
    assert cohort.times.tolist() == [0.0]
    assert cohort.values[0, COLUMN["Weight"]] == np.float32(70.4)


@pytest.mark.parametrize(("repeats", "expected"), [("mean", 4.0), ("first", 7.0), ("last", 2.0)])
def test_repeated_pairs_are_merged_as_asked_and_counted(tmp_path: Path, repeats: Any, expected: float) -> None:
    body = "02:00,K,7\n02:00,HR,60\n02:00,K,3\n02:00,K,2\n03:00,K,9\n"
    cohort = read(write_set(tmp_path, {11: record(11, body)}), repeats=repeats)
    np.testing.assert_array_equal(cohort.values[:, COLUMN["K"]], [expected, 9])
    assert cohort.values[0, COLUMN["HR"]] == 60
    assert cohort.report.repeated_pairs == 1


def test_a_stay_without_measurements_stays_with_zero_rows(tmp_path: Path) -> None:
    texts: dict[int, str | bytes] = {11: record(11), 12: record(12, "01:00,HR,70\n"), 13: record(13)}
    cohort = read(write_set(tmp_path, texts))
    assert cohort.splits.tolist() == [0, 0, 1, 1]
    assert cohort.report.empty_stays == (11, 13)
    assert "without measurements kept: 2 (11, 13)" in str(cohort.report)
    nothing = read(write_set(tmp_path / "all", {11: record(11)}))
    assert nothing.values.shape == (0, 37)
    assert nothing.statics[0, 0] == 54


def test_rows_without_a_parameter_name_are_dropped_and_counted(tmp_path: Path) -> None:
    body = "01:00,,5\n01:30,HR,70\n02:00,,\n99:99,,x\n02:30,HR,71\n"
    cohort = read(write_set(tmp_path, {11: record(11, body)}))
    assert cohort.times.tolist() == [1.5, 2.5]
    assert cohort.values[:, COLUMN["HR"]].tolist() == [70, 71]
    assert cohort.report.unnamed_rows == 3
    with pytest.raises(ValueError, match=r"set-a/12.txt, line 10: the time must not run backwards, got 01:00"):
        read(write_set(tmp_path / "b", {12: record(12, "01:30,HR,70\n01:40,,1\n01:00,HR,71\n")}))


def test_windows_line_ends_and_a_missing_last_one_are_the_same_record(tmp_path: Path) -> None:
    text = record(11, "01:00,HR,70\n")
    plain = read(write_set(tmp_path / "plain", {11: text}))
    windows = read(write_set(tmp_path / "windows", {11: text.replace("\n", "\r\n")}))
    cut = read(write_set(tmp_path / "cut", {11: text[:-1]}))
    assert plain.values[0, COLUMN["HR"]] == 70
    assert_same(plain, windows)
    assert_same(plain, cut)


# ---------------------------------------------------------------------------------------------------- broken records

FAULTS = [
    ("01:00,HR,x\n", "line 8: the value of HR must be a finite number, got 'x'"),
    ("01:00,HR,\n", "line 8: the value of HR must be a finite number, got ''"),
    ("01:00,HR,nan\n", "line 8: the value of HR must be a finite number, got 'nan'"),
    ("01:00,K,4\n01:05,HR,-inf\n", "line 9: the value of HR must be a finite number, got '-inf'"),
    ("01:00,HR,1e39\n", "line 8: the value of HR must be a finite number, got '1e39'"),
    ("01:00,HR,1_0\n", "line 8: the value of HR must be a finite number, got '1_0'"),
    ("01:00,Blood,1\n", "line 8: the parameter must be one of the 42 known names, got 'Blood'"),
    ("1:00,HR,70\n", "line 8: the time must be HH:MM, got '1:00'"),
    ("01:60,HR,70\n", "line 8: the time must be HH:MM, got '01:60'"),
    ("-1:30,HR,70\n", "line 8: the time must be HH:MM, got '-1:30'"),
    ("02:00,HR,70\n01:59,HR,71\n", "line 9: the time must not run backwards, got 01:59 after 02:00"),
    ("01:00,HR\n", "line 8: a row must have 3 fields, got 2 in '01:00,HR'"),
    ("01:00,HR,70,1\n", "line 8: a row must have 3 fields, got 4 in '01:00,HR,70,1'"),
    ("01:00,HR,70\n\n02:00,HR,70\n", "line 9: a row must have 3 fields, got 1 in ''"),
    ("01:00,Age,50\n", "line 8: the descriptor Age must stand at 00:00, got 01:00"),
    ("00:00,Age,50\n", "line 8: the descriptor Age must occur once, got a second row"),
    ("00:00,RecordID,11\n", "line 8: the descriptor RecordID must occur once, got a second row"),
]


@pytest.mark.parametrize(("body", "message"), FAULTS)
def test_a_bad_line_is_named(tmp_path: Path, body: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"set-a/11.txt") as caught:
        read(write_set(tmp_path, {10: record(10), 11: record(11, body), 12: record(12)}))
    assert str(caught.value) == f"set-a/11.txt, {message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "line 1: the header must be Time,Parameter,Value, got ''"),
        (b"Time;Parameter;Value\n", "line 1: the header must be Time,Parameter,Value, got 'Time;Parameter;Value'"),
        (b"Time,Parameter,Value\n", r"line 1: the record must hold the row 00:00,RecordID,11, got no named row at all"),
        (b"\x7fELF\x02\x01\x00\xff" * 50, "line 1: the record must be plain text, got byte 0x7f"),
        (record(11).encode() + b"01:00,HR,\x00\n", "line 8: the record must be plain text, got byte 0x00"),
        (record(99).encode(), "line 2: RecordID must be the 11 of the file name, got 99"),
        (b"Time,Parameter,Value\n00:00,Age,5\n", "line 2: RecordID must be the 11 of the file name, got no such row"),
    ],
)
def test_a_file_that_is_no_record_is_named(tmp_path: Path, text: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=r"set-a/11.txt") as caught:
        read(write_set(tmp_path, {11: text}))
    assert str(caught.value) == f"set-a/11.txt, {message}"


def test_bad_records_can_be_skipped_and_are_reported(tmp_path: Path) -> None:
    texts: dict[int, str | bytes] = {
        10: record(10, "01:00,HR,61\n"),
        11: record(11, "01:00,HR,x\n"),
        12: b"\x00\x01",
        13: record(13, "01:00,HR,64\n"),
    }
    cohort = read(write_set(tmp_path, texts), on_bad_record="skip")
    assert cohort.record_ids.tolist() == [10, 13]
    assert cohort.values[:, COLUMN["HR"]].tolist() == [61, 64]
    assert cohort.outcomes is not None
    assert cohort.outcomes["In-hospital_death"].tolist() == [0, 1]
    assert [message.split(",")[0] for message in cohort.report.skipped] == ["set-a/11.txt", "set-a/12.txt"]
    assert "bad records skipped: 2 (set-a/11.txt, line 8" in str(cohort.report)


def test_a_set_of_bad_records_only_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one record that can be read, got none"):
        read(write_set(tmp_path, {11: b"\x00"}), on_bad_record="skip")


# ----------------------------------------------------------------------------------------------- folders and archives


def test_missing_and_empty_places_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"root must be an existing folder, got .*nowhere"):
        read(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"must hold set-a.tar.gz or the folder set-a .* got an empty folder"):
        read(tmp_path)
    (tmp_path / "132539.txt").touch()
    with pytest.raises(FileNotFoundError, match=r"set-b .* got 132539.txt"):
        read(tmp_path, "b")
    (tmp_path / "set-a").mkdir()
    (tmp_path / "Outcomes-a.txt").write_text(OUTCOME_HEADER)
    with pytest.raises(ValueError, match=r"set a must hold records <RecordID>.txt, got none among 0 files"):
        read(tmp_path)


@pytest.mark.parametrize("sets", [(), ("d",), ("a", "a"), "set-a"])
def test_sets_must_be_known_and_different(tmp_path: Path, sets: Any) -> None:
    with pytest.raises(ValueError, match=r"sets must be different ones of \('a', 'b', 'c'\), got"):
        read(tmp_path, sets)


def test_unknown_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="repeats must be 'mean', 'first' or 'last', got 'median'"):
        read(tmp_path, repeats="median")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="on_bad_record must be 'stop' or 'skip', got 'ignore'"):
        read(tmp_path, on_bad_record="ignore")  # type: ignore[arg-type]


def test_several_sets_come_together_in_the_order_asked_for(tmp_path: Path) -> None:
    write_set(tmp_path, {11: record(11, "01:00,HR,61\n")}, "a")
    write_set(tmp_path, {5: record(5, "01:00,HR,62\n"), 7: record(7, "02:00,HR,63\n")}, "c")
    cohort = read(tmp_path, ("c", "a"))
    assert cohort.record_ids.tolist() == [5, 7, 11]
    assert cohort.sources.tolist() == ["c", "c", "a"]
    assert cohort.values[:, COLUMN["HR"]].tolist() == [62, 63, 61]
    assert cohort.outcomes is not None
    assert cohort.outcomes["In-hospital_death"].tolist() == [1, 1, 1]
    assert cohort.report.stays == {"c": 2, "a": 1}
    write_set(tmp_path, {11: record(11)}, "b")
    with pytest.raises(ValueError, match="the sets must share no record, got 1 shared ones: 11"):
        read(tmp_path, ("a", "b"))


def test_an_archive_is_read_like_the_folder_and_never_unpacked(tmp_path: Path) -> None:
    texts: dict[int, str | bytes] = {11: record(11, "01:00,HR,61\n"), 12: record(12, "02:00,K,4\n")}
    unpacked = write_set(tmp_path / "unpacked", texts)
    packed = tmp_path / "packed"
    members = [(entry(f"./set-a/{key}.txt"), str(text).encode()) for key, text in reversed(texts.items())]
    write_archive(packed / "set-a.tar.gz", [(entry("set-a", tarfile.DIRTYPE), b""), *members])
    (packed / "Outcomes-a.txt").write_text(outcome_rows([11, 12]))
    before = sorted(packed.rglob("*"))
    cohort = read(packed)
    assert cohort.values[1, COLUMN["K"]] == 4
    assert_same(cohort, read(unpacked))
    assert sorted(packed.rglob("*")) == before


def test_a_fault_in_an_archive_names_the_member(tmp_path: Path) -> None:
    write_archive(tmp_path / "set-a.tar.gz", [(entry("set-a/11.txt"), record(11, "xx:00,HR,61\n").encode())])
    with pytest.raises(ValueError, match=r"^set-a.tar.gz: set-a/11.txt, line 8: the time must be HH:MM, got 'xx:00'$"):
        read(tmp_path, outcomes=False)


def test_archive_and_folder_together_must_agree(tmp_path: Path) -> None:
    root = write_set(tmp_path, {11: record(11, "01:00,HR,61\n"), 12: record(12)})
    same = [(entry(f"set-a/{key}.txt"), (root / f"set-a/{key}.txt").read_bytes()) for key in (11, 12)]
    write_archive(root / "set-a.tar.gz", same)
    assert read(root).values[0, COLUMN["HR"]] == 61
    (root / "set-a" / "12.txt").write_text(record(12, "01:00,HR,99\n"))
    (root / "set-a" / "13.txt").write_text(record(13))
    with pytest.raises(ValueError, match=r"same records where both are present .* got 2 different ones: 12, 13"):
        read(root)


def test_files_that_are_no_records_are_ignored_and_listed(tmp_path: Path) -> None:
    root = write_set(tmp_path, {11: record(11, "01:00,HR,61\n")})
    for name in ("README.txt", "._11.txt", "11.csv"):
        (root / "set-a" / name).write_text("not a record")
    cohort = read(root)
    assert cohort.record_ids.tolist() == [11]
    assert cohort.report.ignored_files == ("set-a/._11.txt", "set-a/11.csv", "set-a/README.txt")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (entry("../11.txt"), "relative paths without '..', got entry '../11.txt'"),
        (entry("set-a/../../11.txt"), "relative paths without '..'"),
        (entry("/etc/11.txt"), "relative paths without '..', got entry '/etc/11.txt'"),
        (entry("..\\11.txt"), "relative paths without '..'"),
        (entry("C:/11.txt"), "relative paths without '..'"),
        (entry("set-a/11.txt", tarfile.SYMTYPE, "/etc/passwd"), "plain files and folders only, got entry"),
        (entry("set-a/11.txt", tarfile.LNKTYPE, "set-a/10.txt"), "plain files and folders only"),
        (entry("set-a/11.txt", tarfile.FIFOTYPE), "plain files and folders only"),
        (entry("set-a/11.txt", tarfile.CHRTYPE), "plain files and folders only"),
        (entry("./set-a/10.txt"), "hold every file once, got entry './set-a/10.txt' twice"),
    ],
    ids=lambda value: value.name if isinstance(value, tarfile.TarInfo) else "",
)
def test_unsafe_archive_entries_are_refused(tmp_path: Path, bad: tarfile.TarInfo, message: str) -> None:
    # The first member is no record, so that reading before checking would show as another error.
    write_archive(tmp_path / "set-a.tar.gz", [(entry("set-a/10.txt"), b"\x00"), (bad, b"")])
    with pytest.raises(ValueError, match=r"set-a\.tar\.gz must hold") as caught:
        read(tmp_path, outcomes=False)
    assert message in str(caught.value)


def test_damaged_archives_are_refused_at_every_length(tmp_path: Path) -> None:
    path = tmp_path / "set-a.tar.gz"
    members = [(entry(f"set-a/{key}.txt"), record(key, "01:00,HR,61\n" * key).encode()) for key in range(10, 40)]
    write_archive(path, members)
    whole = path.read_bytes()
    assert len(read(tmp_path, outcomes=False)) == 30
    for length in (0, 5, 18, len(whole) // 2, len(whole) - 9, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"must be a complete .tar.gz archive, got"):
            read(tmp_path, outcomes=False)
    unpacked = gzip.decompress(whole)
    for length in (512, 1024, 512 * 20, 512 * 20 + 100):  # cut before packing: gzip itself is intact
        path.write_bytes(gzip.compress(unpacked[:length]))
        with pytest.raises(ValueError, match=r"must be a complete .tar.gz archive, got"):
            read(tmp_path, outcomes=False)
    path.write_bytes(b"plain text, no archive")
    with pytest.raises(ValueError, match=r"must be a complete .tar.gz archive, got"):
        read(tmp_path, outcomes=False)


# ---------------------------------------------------------------------------------------------------------- outcomes


def test_a_set_without_outcomes_loads_unlabelled(tmp_path: Path) -> None:
    root = write_set(tmp_path, {11: record(11, "01:00,HR,61\n")})
    (root / "Outcomes-a.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"must hold Outcomes-a.txt \(or load with outcomes=False\), got set a"):
        read(root)
    cohort = read(root, outcomes=False)
    assert cohort.outcomes is None
    assert cohort.values[0, COLUMN["HR"]] == 61
    assert cohort.select([0]).outcomes is None


def test_outcomes_of_other_records_are_refused_with_counts(tmp_path: Path) -> None:
    root = write_set(tmp_path, {key: record(key) for key in range(11, 20)})
    (root / "Outcomes-a.txt").write_text(outcome_rows([11, *range(50, 52)]))
    with pytest.raises(ValueError, match=r"Outcomes-a.txt must list exactly the 9 records of its set") as caught:
        read(root)
    assert "8 records without outcome (12, 13, 14, 15, 16, ...)" in str(caught.value)
    assert "2 outcomes without record (50, 51)" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("RecordID,Death\n11,0\n", "Outcomes-a.txt, line 1 must be RecordID,SAPS-I,SOFA,Length_of_stay,Survival,In-h"),
        (OUTCOME_HEADER + "11,6,1,5,-1\n", "Outcomes-a.txt, line 2 must hold 6 integers, got '11,6,1,5,-1'"),
        (OUTCOME_HEADER + "11,6,1,5,-1,dead\n", "Outcomes-a.txt, line 2 must hold 6 integers"),
        (OUTCOME_HEADER + "11,6,1,5,-1,2\n", "Outcomes-a.txt, line 2 must have In-hospital_death 0 or 1, got 2"),
        (OUTCOME_HEADER + "11,6,1,99999999999,-1,1\n", "Outcomes-a.txt, line 2 must hold 6 integers"),
        (outcome_rows([11, 11]), "Outcomes-a.txt must list every record once, got repeated: 11"),
        ("\x00\xff", "Outcomes-a.txt must be plain text, got byte 0x"),
        (OUTCOME_HEADER, "0 outcomes without record"),
    ],
)
def test_broken_outcome_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    root = write_set(tmp_path, {11: record(11)})
    (root / "Outcomes-a.txt").write_text(text)
    with pytest.raises(ValueError, match=r"Outcomes-a.txt") as caught:
        read(root)
    assert message in str(caught.value)


# --------------------------------------------------------------------------------------------------------- selection


def small_cohort(root: Path) -> Cohort:
    bodies = ["", "01:00,HR,61\n02:00,HR,62\n", "03:00,HR,63\n", "04:00,HR,64\n05:00,HR,65\n"]
    return read(write_set(root, {key: record(key, body) for key, body in enumerate(bodies, 11)}))


def test_select_takes_whole_stays_in_the_order_given(tmp_path: Path) -> None:
    cohort = small_cohort(tmp_path)
    chosen = cohort.select([3, 0, 1, 3])
    assert chosen.record_ids.tolist() == [14, 11, 12, 14]
    assert chosen.splits.tolist() == [0, 2, 2, 4, 6]
    assert chosen.values[:, COLUMN["HR"]].tolist() == [64, 65, 61, 62, 64, 65]
    assert chosen.times.tolist() == [4, 5, 1, 2, 4, 5]
    assert chosen.outcomes is not None
    assert chosen.outcomes["In-hospital_death"].tolist() == [0, 1, 0, 0]
    assert_same(cohort.select(np.array([False, True, False, True])), cohort.select([1, 3]))
    assert_same(cohort.select(range(4)), cohort)
    assert len(cohort.select([])) == 0
    assert cohort.select([]).splits.tolist() == [0]


@pytest.mark.parametrize("indices", [[4], [-1], [0.5], [[0]], [True, False], 1])
def test_select_refuses_other_indices(tmp_path: Path, indices: Any) -> None:
    with pytest.raises(ValueError, match="indices must"):
        small_cohort(tmp_path).select(indices)


# ------------------------------------------------------------------------------------------------------- random stays

measurement = st.tuples(
    st.integers(0, 48 * 60),
    st.sampled_from(SERIES),
    st.floats(-1e6, 1e6, width=32).map(lambda value: value + 0.0),
)
stay = st.tuples(
    st.lists(measurement, max_size=12, unique_by=lambda row: row[:2]),
    st.tuples(*[st.one_of(st.none(), st.floats(0, 300, width=32)) for _ in STATICS]),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(stays=st.lists(stay, min_size=1, max_size=5), data=st.data())
def test_what_is_written_in_the_format_is_what_is_loaded(
    tmp_path_factory: pytest.TempPathFactory, stays: list[Any], data: st.DataObject
) -> None:
    texts: dict[int, str | bytes] = {}
    for record_id, (rows, statics) in enumerate(stays, 100):
        text = f"Time,Parameter,Value\n00:00,RecordID,{record_id}\n"
        for name, value in zip(STATICS, statics, strict=True):
            text += f"00:00,{name},{-1 if value is None else repr(value)}\n"
        # Rows of one time may come in any order.
        shuffled = sorted(data.draw(st.permutations(rows)), key=lambda row: row[0])
        text += "".join(f"{minute // 60:02}:{minute % 60:02},{name},{value!r}\n" for minute, name, value in shuffled)
        texts[record_id] = text
    cohort = read(write_set(tmp_path_factory.mktemp("random"), texts))
    assert cohort.record_ids.tolist() == list(texts)
    assert cohort.splits[-1] == len(cohort.times) == len(cohort.values)
    for index, (rows, statics) in enumerate(stays):
        part = slice(cohort.splits[index], cohort.splits[index + 1])
        times, values = cohort.times[part], cohort.values[part]
        assert (np.diff(times) > 0).all()
        loaded = {
            (round(times[row] * 60), SERIES[column]): float(values[row, column])
            for row, column in np.argwhere(~np.isnan(values))
        }
        assert loaded == {(minute, name): value for minute, name, value in rows}
        wanted = np.array([np.nan if value is None else value for value in statics], np.float32)
        np.testing.assert_array_equal(cohort.statics[index], wanted)


# ------------------------------------------------------------------------------------------------------------- cache


def cached(root: Path, folder: Path, **options: Any) -> Cohort:
    return physionet2012.load(root, cache=folder, progress=False, **options)


@pytest.fixture
def small_root(tmp_path: Path) -> Path:
    texts: dict[int, str | bytes] = {11: record(11, "01:00,HR,61\n01:00,HR,63\n02:00,K,4\n"), 12: record(12)}
    return write_set(tmp_path / "root", texts)


def test_the_cache_gives_what_parsing_gives(small_root: Path, tmp_path: Path) -> None:
    fresh = read(small_root)
    first, second = cached(small_root, tmp_path / "cache"), cached(small_root, tmp_path / "cache")
    assert not first.report.from_cache
    assert second.report.from_cache
    assert "(from the cache)" in str(second.report)
    assert second.values[0, COLUMN["HR"]] == 62
    assert_same(fresh, first)
    assert_same(fresh, second)
    unlabelled = [cached(small_root, tmp_path / "cache", outcomes=False) for _ in range(2)]
    assert unlabelled[1].report.from_cache
    assert unlabelled[1].outcomes is None
    assert_same(*unlabelled)


def test_a_changed_source_or_option_is_parsed_again(small_root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    cached(small_root, folder)
    file = small_root / "set-a" / "11.txt"
    stat = file.stat()
    file.write_text(file.read_text().replace("HR,61", "HR,65"))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # the same size and date: only the content tells
    changed = cached(small_root, folder)
    assert not changed.report.from_cache
    assert changed.values[0, COLUMN["HR"]] == 64
    assert len(list(folder.iterdir())) == 1
    last = cached(small_root, folder, repeats="last")
    assert not last.report.from_cache
    assert last.values[0, COLUMN["HR"]] == 63
    (small_root / "Outcomes-a.txt").write_text(outcome_rows([11, 12]).replace("12,6,1,5,-1,0", "12,6,1,5,-1,1"))
    relabelled = cached(small_root, folder)
    assert relabelled.outcomes is not None
    assert relabelled.outcomes["In-hospital_death"].tolist() == [1, 1]


def test_a_damaged_cache_is_rebuilt_with_a_warning(small_root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    fresh = cached(small_root, folder)
    (file,) = folder.iterdir()
    intact = file.read_bytes()
    flipped = bytearray(intact)
    flipped[len(intact) // 2] ^= 1
    for damaged in (b"", b"garbage", intact[:300], intact[:-100], bytes(flipped), b"0" * 512 + intact[512:]):
        file.write_bytes(damaged)
        with pytest.warns(UserWarning, match="is damaged and is rebuilt"):
            assert_same(cached(small_root, folder), fresh)
        assert cached(small_root, folder).report.from_cache


def test_a_cache_that_cannot_be_written_is_only_a_warning(small_root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.warns(UserWarning, match="cannot be"):
        cohort = cached(small_root, tmp_path / "file")
    assert cohort.values[0, COLUMN["HR"]] == 62


def test_the_default_folder_follows_the_environment(
    small_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CCNN_CACHE", str(tmp_path / "chosen"))
    physionet2012.load(small_root, progress=False)
    assert [path.suffix for path in (tmp_path / "chosen").iterdir()] == [".h5"]
    monkeypatch.delenv("CCNN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache_folder() == tmp_path / "xdg" / "ccnn_irregular"


def test_processes_that_share_a_cache_all_get_the_data(small_root: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from ccnn_irregular.datasets import physionet2012 as p\n"
        "for _ in range(20):\n"
        "    for file in Path(sys.argv[2]).glob('*.h5'): file.unlink(missing_ok=True)\n"
        "    assert p.load(sys.argv[1], cache=Path(sys.argv[2]), progress=False).values[0, p.SERIES.index('HR')] == 62"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(small_root), str(tmp_path / "cache")]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path) for _ in range(2)]
    for process in processes:
        _, errors = process.communicate(timeout=100)
        assert process.returncode == 0, errors
    assert_same(cached(small_root, tmp_path / "cache"), read(small_root))
    assert not list((tmp_path / "cache").glob("*.tmp"))


def test_importing_the_module_loads_no_optional_package(tmp_path: Path) -> None:
    code = (
        "import sys, ccnn_irregular.datasets.physionet2012, ccnn_irregular.datasets.simulated_icu\n"
        "print([name for name in ('h5py', 'pooch', 'lightning', 'pandas', 'tqdm') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "h5py" not in result.stdout
    assert "pooch" not in result.stdout
    assert "lightning" not in result.stdout
    assert "pandas" not in result.stdout


# ---------------------------------------------------------------------------------------------------------- download


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path, list[str]]]:
    """Address of a file server, the folder it serves, and the paths it was asked for."""
    folder, asked = tmp_path / "served", []
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: Any) -> None:
            asked.append(self.path)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}", folder, asked
        running.shutdown()
        thread.join()


def served_set(folder: Path) -> dict[str, str]:
    """A small set on the server; its checksums."""
    write_archive(folder / "set-b.tar.gz", [(entry("set-b/11.txt"), record(11, "01:00,HR,61\n").encode())])
    (folder / "Outcomes-b.txt").write_text(outcome_rows([11]))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_missing_files_are_downloaded_once(server: tuple[str, Path, list[str]], tmp_path: Path) -> None:
    pytest.importorskip("pooch")
    url, folder, asked = server
    sums = served_set(folder)
    root = tmp_path / "deep" / "root"
    physionet2012.fetch(root, ("b",), url=url, sha256=sums, progress=False)
    cohort = read(root, "b")
    assert cohort.values[0, COLUMN["HR"]] == 61
    assert cohort.sources.tolist() == ["b"]
    assert asked == ["/set-b.tar.gz", "/Outcomes-b.txt"]
    physionet2012.fetch(root, ("b",), url=url, sha256=sums, progress=False)
    assert len(asked) == 2


def test_a_download_with_another_checksum_is_not_kept(server: tuple[str, Path, list[str]], tmp_path: Path) -> None:
    pytest.importorskip("pooch")
    url, folder, _ = server
    wrong = served_set(folder) | {"set-b.tar.gz": "0" * 64}
    with pytest.raises(ValueError, match=r"set-b.tar.gz must have the published SHA256 0000.*which was not kept"):
        physionet2012.fetch(tmp_path / "root", ("b",), url=url, sha256=wrong, progress=False)
    assert list((tmp_path / "root").iterdir()) == []


def test_a_file_the_server_lacks_is_an_error(server: tuple[str, Path, list[str]], tmp_path: Path) -> None:
    pytest.importorskip("pooch")
    with pytest.raises(OSError, match="404"):
        physionet2012.fetch(tmp_path / "root", ("b",), url=server[0], progress=False)
    assert list((tmp_path / "root").iterdir()) == []


def test_load_downloads_only_what_is_missing(small_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def download(url: str, sha256: str, target: Path, *, progress: bool) -> None:
        calls.append(url)
        assert sha256 == physionet2012.SHA256[target.name]
        target.write_text(outcome_rows([11, 12]))

    monkeypatch.setattr(physionet2012, "download_file", download)
    read(small_root, download=True)
    assert calls == []
    (small_root / "Outcomes-a.txt").unlink()
    cohort = read(small_root, download=True)
    assert calls == ["https://physionet.org/files/challenge-2012/1.0.0/Outcomes-a.txt"]
    assert cohort.outcomes is not None
    assert cohort.outcomes["In-hospital_death"].tolist() == [1, 0]


# ---------------------------------------------------------------------------------------------------- official files


@pytest.fixture(scope="module")
def official(shared_data: Path) -> Path:
    root = shared_data / "physionet2012"
    if not (root / "set-a.tar.gz").is_file():
        pytest.skip(f"no official PhysioNet 2012 files: {root} holds no set-a.tar.gz")
    return root


@pytest.fixture(scope="module")
def sets_a_and_b(official: Path) -> Cohort:
    return read(official, ("a", "b"))


def test_counts_of_the_official_sets(sets_a_and_b: Cohort) -> None:
    cohort = sets_a_and_b
    assert cohort.outcomes is not None
    deaths = cohort.outcomes["In-hospital_death"]
    for letter, stays, died in (("a", 4000, 554), ("b", 4000, 568)):
        assert (cohort.sources == letter).sum() == stays
        assert deaths[cohort.sources == letter].sum() == died
    empty = {140501, 140936, 141264, 142731, 142998, 143656, 145611, 147514, 150309, 150649}
    assert set(cohort.report.empty_stays) == empty
    assert cohort.report.skipped == ()
    assert cohort.report.unnamed_rows == 0
    assert cohort.times.min() == 0
    assert cohort.times.max() == 48
    rows = np.diff(cohort.splits)
    assert (rows == 0).sum() == len(empty)
    assert rows.max() == 202
    inside = np.ones(len(cohort.times), bool)
    inside[cohort.splits[1:-1][cohort.splits[1:-1] < len(inside)]] = False
    assert (np.diff(cohort.times)[inside[1:]] > 0).all()
    assert not np.isnan(cohort.values).all(axis=1).any()


def test_official_set_a_counted_row_by_row(official: Path, sets_a_and_b: Cohort) -> None:
    """Counts and sums by a plain reading, row by row."""
    pairs: dict[tuple[str, str, str], list[float]] = {}
    missing_heights = 0
    with tarfile.open(official / "set-a.tar.gz") as archive:
        for member in archive:
            stream = archive.extractfile(member) if member.isfile() else None
            if stream is None:
                continue
            weighed = False
            for line in stream.read().decode().splitlines()[1:]:
                time, name, value = line.split(",")
                missing_heights += name == "Height" and value == "-1"
                at_admission = name == "Weight" and time == "00:00" and not weighed
                weighed |= at_admission
                if name in COLUMN and not at_admission:
                    pairs.setdefault((member.name, time, name), []).append(float(value))
    set_a = sets_a_and_b.select(sets_a_and_b.sources == "a")
    assert len(pairs) == np.count_nonzero(~np.isnan(set_a.values)) > 1_700_000
    assert missing_heights == np.isnan(set_a.statics[:, STATICS.index("Height")]).sum() > 1000
    repeated_in_a, repeated_in_b = sum(len(values) > 1 for values in pairs.values()), 3929
    assert repeated_in_a == 3730
    assert sets_a_and_b.report.repeated_pairs == repeated_in_a + repeated_in_b
    totals = dict.fromkeys(SERIES, 0.0)
    for (_, _, name), values in pairs.items():
        totals[name] += sum(values) / len(values)
    np.testing.assert_allclose(np.nansum(set_a.values, axis=0, dtype=np.float64), list(totals.values()), rtol=1e-6)


@pytest.mark.parametrize("record_id", [132539, 137593, 149509])
def test_one_official_record_read_by_hand(official: Path, sets_a_and_b: Cohort, record_id: int) -> None:
    index = int(np.flatnonzero(sets_a_and_b.record_ids == record_id)[0])
    letter = sets_a_and_b.sources[index]
    with tarfile.open(official / f"set-{letter}.tar.gz") as archive:
        stream = archive.extractfile(f"set-{letter}/{record_id}.txt")
        assert stream is not None
        rows = list(csv.reader(io.TextIOWrapper(stream)))[1:]
    weight_row = next(row for row in rows if row[1] == "Weight")
    rows.remove(weight_row)
    described = {row[1]: float(row[2]) for row in [*rows, weight_row] if row[1] in STATICS and row[0] == "00:00"}
    if record_id != 149509:  # that one has a second weight at 00:00, which is a measurement
        wanted = [np.nan if described[name] == -1 else described[name] for name in STATICS]
        np.testing.assert_array_equal(sets_a_and_b.statics[index], np.array(wanted, np.float32))
    expected: dict[tuple[float, str], list[float]] = {}
    for time, name, value in rows:
        if name in SERIES:
            hours = int(time[:2]) + int(time[3:]) / 60
            expected.setdefault((hours, name), []).append(float(value))
    stay_rows = slice(sets_a_and_b.splits[index], sets_a_and_b.splits[index + 1])
    times, values = sets_a_and_b.times[stay_rows], sets_a_and_b.values[stay_rows]
    observed = np.argwhere(~np.isnan(values))
    assert len(observed) == len(expected) > 100
    for row, column in observed:
        (key,) = [key for key in expected if abs(key[0] - times[row]) < 1e-9 and key[1] == SERIES[column]]
        assert values[row, column] == pytest.approx(np.mean(expected[key]), rel=1e-6)


def test_the_official_cache_equals_a_fresh_parse(official: Path, sets_a_and_b: Cohort, tmp_path: Path) -> None:
    parsed, from_cache = (cached(official, tmp_path, sets="b") for _ in range(2))
    assert not parsed.report.from_cache
    assert from_cache.report.from_cache
    assert_same(from_cache, parsed)
    among_others = sets_a_and_b.select(sets_a_and_b.sources == "b")
    np.testing.assert_array_equal(from_cache.values, among_others.values)
    np.testing.assert_array_equal(from_cache.times, among_others.times)


def test_the_official_outcome_files_have_the_published_checksums(official: Path) -> None:
    for name in ("Outcomes-a.txt", "Outcomes-b.txt"):
        assert hashlib.sha256((official / name).read_bytes()).hexdigest() == physionet2012.SHA256[name]
