"""Files .ts of the UEA & UCR archive: unequal lengths, time stamps, missing values, faults, the real files."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ccnn_irregular.datasets import ts_files

pytest.importorskip("sktime", reason="the extra 'files' is not installed")


def write(
    path: Path,
    *lines: str,
    stamps: bool = False,
    channels: int = 1,
    classes: str = "true left Right",
    data: str = "@data",
) -> Path:
    header = [
        "# a comment",
        "@problemName Test",
        f"@timeStamps {str(stamps).lower()}",
        "@missing false",
        f"@univariate {str(channels == 1).lower()}",
        f"@dimensions {channels}",
        "@equalLength false",
        f"@classLabel {classes}",
        data,
    ]
    path.write_text("\n".join([*header, *lines]) + "\n")
    return path


def test_unequal_lengths_and_several_channels(tmp_path: Path) -> None:
    train = write(tmp_path / "X_TRAIN.ts", "1,2.5,-3e-2:4,5,6:right", "7,8:9,?:left", channels=2)
    test = write(tmp_path / "X_TEST.ts", "0:1:left", channels=2)
    series = ts_files.load(train, test, step=0.5, unit="h")
    expected = [[1, 4], [2.5, 5], [-3e-2, 6], [7, 9], [8, np.nan], [0, 1]]
    np.testing.assert_array_equal(series.values, np.array(expected, np.float32))
    assert series.coordinates[:, 0].tolist() == [0, 0.5, 1, 0, 0.5, 0]
    assert series.splits.tolist() == [0, 3, 5, 6]
    assert (series.classes, series.unit) == (("left", "right"), "h")
    assert series.labels.tolist() == [1, 0, 0]


def test_dates_become_seconds_and_numbers_stay(tmp_path: Path) -> None:
    dated = write(
        tmp_path / "dated.ts",
        "(2007-01-01 00:00:00,1),(2007-01-01 00:01:30,2):left",
        "(2008-02-29 23:59:59,3),(2008-03-01 00:00:00,4),(2008-03-02 00:00:00,5):right",
        stamps=True,
    )
    series = ts_files.load(dated, unit="fortnight")
    assert series.coordinates[:, 0].tolist() == [0, 90, 0, 1, 86401]
    assert series.unit == "s"
    numbered = write(tmp_path / "numbered.ts", "(3,1),(7,2):left", "(1,5),(2,6),(9,7):right", stamps=True)
    series = ts_files.load(numbered, step=10, unit="day")
    assert series.coordinates[:, 0].tolist() == [3, 7, 1, 2, 9]
    assert series.values[:, 0].tolist() == [1, 2, 5, 6, 7]
    assert series.unit == "day"


@pytest.mark.parametrize(
    "stamps",
    [
        ["0.5", "2.25", "10.0"],
        ["2001.5", "2003.25"],
        ["0.5", "2", "3.25"],
        ["0.0", "2.0"],
        ["-3", "-1.5", "0", "+4"],
        ["1e-3", "2.5E0", "1e3"],
        [".5", "1."],
        ["20070101", "20070201"],
        ["-1e-300", "1e300"],
    ],
    ids=str,
)
def test_stamps_that_are_numbers_stay_numbers(tmp_path: Path, stamps: list[str]) -> None:
    line = ",".join(f"( {stamp} , {number})" for number, stamp in enumerate(stamps))
    series = ts_files.load(write(tmp_path / "X.ts", f"{line}:{line}:left", stamps=True, channels=2), unit="day")
    assert series.coordinates[:, 0].tolist() == [float(stamp) for stamp in stamps]
    assert series.values.tolist() == [[number, number] for number in range(len(stamps))]
    assert series.unit == "day"


@settings(max_examples=40, deadline=None)
@given(numbers=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, unique=True))
def test_every_number_is_its_own_stamp(tmp_path_factory: pytest.TempPathFactory, numbers: list[float]) -> None:
    numbers = sorted({0.0 if number == 0 else number for number in numbers})
    line = ",".join(f"({number!r},1)" for number in numbers)
    series = ts_files.load(write(tmp_path_factory.mktemp("ts") / "X.ts", f"{line}:left", stamps=True))
    assert series.coordinates[:, 0].tolist() == numbers


moments = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30))
zones = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@settings(max_examples=40, deadline=None)
@given(dates=st.lists(st.tuples(moments, zones), min_size=1, max_size=5), style=st.sampled_from(["naive", "zone", "z"]))
def test_every_date_is_a_number_of_seconds(
    tmp_path_factory: pytest.TempPathFactory, dates: list[tuple[datetime, timezone]], style: str
) -> None:
    known = sorted({moment.replace(tzinfo=UTC): zone for moment, zone in dates}.items())
    written = [moment.astimezone(zone if style == "zone" else UTC).isoformat() for moment, zone in known]
    if style != "zone":
        written = [stamp.removesuffix("+00:00") + ("Z" if style == "z" else "") for stamp in written]
    line = ",".join(f"({stamp},1)" for stamp in written)
    series = ts_files.load(write(tmp_path_factory.mktemp("ts") / "X.ts", f"{line}:left", stamps=True))
    # datetime counts whole microseconds.
    truth = [(moment - known[0][0]) / timedelta(microseconds=1) / 1e6 for moment, _ in known]
    np.testing.assert_allclose(series.coordinates[:, 0], truth, rtol=1e-15, atol=1e-12)
    assert series.unit == "s"


@pytest.mark.parametrize(
    ("stamps", "seconds"),
    [
        (["2004-02-28", "2004-02-29", "2004-03-01"], [0, 86_400, 172_800]),
        (["1900-02-28", "1900-03-01"], [0, 86_400]),
        (["2001-01", "2001-03"], [0, 59 * 86_400]),
        (["2007-01-01 00:00", "2007-01-01 00:00:30,25"], [0, 30.25]),
        (["2020-01-01 00:00:00.000000001", "2020-01-01 00:00:00.000000003"], [0, 2e-9]),
        # The hour that comes twice in autumn.
        (["2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00"], [0, 3600]),
        (["2026-01-01t10:00:00z", "2026-01-01t12:00:00+0130", "2026-01-01 12:00 +01"], [0, 1800, 3600]),
    ],
)
def test_dates_by_the_calendar(tmp_path: Path, stamps: list[str], seconds: list[float]) -> None:
    line = ",".join(f"({stamp},1)" for stamp in stamps)
    series = ts_files.load(write(tmp_path / "X.ts", f"{line}:left", stamps=True))
    np.testing.assert_allclose(series.coordinates[:, 0], seconds, rtol=1e-12)


@pytest.mark.parametrize(
    ("stamps", "message"),
    [
        (
            ["2001.5", "2003-01-01"],
            "time stamps of X.ts must be all numbers or all dates, got '2001.5' and '2003-01-01'",
        ),
        (["01/02/2007", "02/02/2007"], "time stamps of X.ts must be numbers, or dates like .*, got '01/02/2007'"),
        (["now", "2007-01-01"], "time stamps of X.ts must be numbers, or dates like .*, got 'now'"),
        (["0", "nan"], "time stamps of X.ts must be numbers, or dates like .*, got 'nan'"),
        (["0", "?"], r"time stamps of X.ts must be numbers, or dates like .*, got '\?'"),
        (["0", "0,1"], "time stamps of X.ts must be numbers, or dates like .*, got '0,1'"),
        (["0", "1_0"], "time stamps of X.ts must be numbers, or dates like .*, got '1_0'"),
        (["2007-02-29", "2007-03-01"], "time stamps of X.ts must be dates of the calendar, got"),
        (["2007-01-01T00:00", "2007-01-01T01:00Z"], "time stamps of X.ts must be all with a zone or all without, got"),
        (
            ["1600000000000000001", "1600000000000000003"],
            "must be numbers that float64 holds.*, got 1600000000000000001",
        ),
        (["0", "1e999"], "time stamps of X.ts must be numbers that float64 holds.*, got 1e999"),
    ],
)
def test_stamps_that_say_no_time_are_refused(tmp_path: Path, stamps: list[str], message: str) -> None:
    line = ",".join(f"({stamp},1)" for stamp in stamps)
    with pytest.raises(ValueError, match=message):
        ts_files.load(write(tmp_path / "X.ts", f"{line}:left", stamps=True))


def test_whole_numbers_that_float64_holds_are_kept(tmp_path: Path) -> None:
    stamps = [2**53, 2**53 + 2, 2**60]
    line = ",".join(f"({stamp},1)" for stamp in stamps)
    series = ts_files.load(write(tmp_path / "X.ts", f"{line}:left", stamps=True))
    assert series.coordinates[:, 0].tolist() == stamps


def test_stamps_of_several_series_channels_and_files(tmp_path: Path) -> None:
    first = write(tmp_path / "X.ts", "(0.5,1),(2,?):(0.5,3),(2,4):left", "(-1,5):(-1,6):right", stamps=True, channels=2)
    second = write(tmp_path / "Y.ts", "(7,8):(7,9):right", stamps=True, channels=2)
    series = ts_files.load(first, second)
    np.testing.assert_array_equal(series.values, [[1, 3], [np.nan, 4], [5, 6], [8, 9]])
    assert (series.coordinates[:, 0].tolist(), series.splits.tolist()) == ([0.5, 2, -1, 7], [0, 2, 3, 4])
    dated = write(tmp_path / "Z.ts", "(2001-01-01,8):(2001-01-01,9):right", stamps=True, channels=2)
    with pytest.raises(ValueError, match=r"the files must agree on their time stamps, got \['dates', 'numbers'\]"):
        ts_files.load(first, dated)
    # Equal distances are not equal times: each channel keeps its own.
    apart = "(2001-01-01,1),(2001-01-03,2):(2001-01-02,3),(2001-01-03,4):left"
    series = ts_files.load(write(tmp_path / "X.ts", apart, stamps=True, channels=2))
    np.testing.assert_array_equal(series.times, [0, 86400, 2 * 86400])
    np.testing.assert_array_equal(series.values, [[1, np.nan], [np.nan, 3], [2, 4]])


@pytest.mark.parametrize(
    "line",
    ["(0,1),(1,2)", "(0,1),:left", "(0,1)(1,2):left", "(0,1),(1):left", "(0,1),(1,2:left", "(0,two):left", "0,1:left",
     ":left", "left"],
)  # fmt: skip
def test_damaged_samples_are_refused(tmp_path: Path, line: str) -> None:
    with pytest.raises(ValueError, match=r"X.ts(, series 1)? must (be a complete .ts file|hold at least one sample)"):
        ts_files.load(write(tmp_path / "X.ts", line, stamps=True))
    with pytest.raises(ValueError, match=r"X.ts must be a complete .ts file, got a damaged one: line 11 is not"):
        ts_files.load(write(tmp_path / "X.ts", "(0,1):left", "(0,1):(0,2):left", stamps=True))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["1,2,3:left", "1,2,3"],
            "X.ts must be a complete .ts file, got a damaged one: OSError: inconsistent number of dim",
        ),
        (["1,2,3:left", "1,2,"], "X.ts must be a complete .ts file, got a damaged one"),
        (["1,zwei,3:left"], "X.ts must be a complete .ts file, got a damaged one"),
        (["1,2,3:up"], r"X.ts must label its series with the classes of its header \('left', 'right'\), got \['up'\]"),
        (["1,2,3:"], r"X.ts must label its series with the classes of its header .*, got \[''\]"),
        ([":left"], "X.ts, series 1 must hold at least one sample, got none"),
        ([], "X.ts must be a complete .ts file, got a damaged one"),
    ],
)
def test_broken_files_are_refused(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ts_files.load(write(tmp_path / "X.ts", *lines))


def test_channels_times_and_headers_must_agree(tmp_path: Path) -> None:
    path = tmp_path / "X.ts"
    with pytest.raises(ValueError, match=r"X.ts, series 2 must have as many samples in all channels, .* got \[3, 2\]"):
        ts_files.load(write(path, "1,2:3,4:left", "1,2,3:4,5:left", channels=2))
    with pytest.raises(ValueError, match=r"X.ts, series 1 must have times that rise, got times that do not"):
        ts_files.load(write(path, "(3,1),(2,5):left", stamps=True))
    with pytest.raises(ValueError, match=r"X.ts must list its classes \(@classLabel true ...\), got \['false'\]"):
        ts_files.load(write(path, "1,2", classes="false"))
    with pytest.raises(ValueError, match=r"X.ts must be a .ts file with a line @data, got a file without it"):
        ts_files.load(write(path, data="# nothing"))
    other = write(tmp_path / "Y.ts", "1,2:up", classes="true up down")
    with pytest.raises(ValueError, match="the files must agree on their classes"):
        ts_files.load(write(path, "1,2:left"), other)
    other = write(tmp_path / "Y.ts", "1:2:left", channels=2)
    with pytest.raises(ValueError, match=r"the files must agree on their number of channels, got \[1, 2\]"):
        ts_files.load(path, other)
    other = write(tmp_path / "Y.ts", "(1,2):left", stamps=True)
    with pytest.raises(ValueError, match=r"the files must agree on their time stamps, got \['none', 'numbers'\]"):
        ts_files.load(path, other)


def test_missing_files_and_arguments(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"paths must name existing .ts files, got .*nowhere.ts"):
        ts_files.load(tmp_path / "nowhere.ts")
    with pytest.raises(ValueError, match="paths must name at least one file, got none"):
        ts_files.load()
    with pytest.raises(ValueError, match="step must be positive, got 0"):
        ts_files.load(tmp_path / "X.ts", step=0)
    (tmp_path / "binary.ts").write_bytes(bytes(range(256)))
    with pytest.raises(ValueError, match=r"binary.ts must be a .ts file with a line @data"):
        ts_files.load(tmp_path / "binary.ts")


def real(shared_data: Path, *names: str) -> list[Path]:
    paths = [shared_data / "uea_ucr" / name for name in names]
    for path in paths:
        if not path.is_file():
            pytest.skip(f"no {path}")
    return paths


def test_the_real_japanese_vowels(shared_data: Path) -> None:
    train, test = real(shared_data, "JapaneseVowels_TRAIN.ts", "JapaneseVowels_TEST.ts")
    series = ts_files.load(train, test)
    assert series.values.shape[1] == 12
    assert (len(series), len(ts_files.load(train))) == (640, 270)
    assert (int(series.splits.diff().min()), int(series.splits.diff().max())) == (7, 29)
    assert torch.bincount(series.labels[:270]).tolist() == [30] * 9
    # The first value of the first channels, as they stand in the file.
    assert series.values[0, :3].tolist() == pytest.approx([1.860936, -0.207383, 0.261557])


def test_the_real_gestures_and_time_stamps(shared_data: Path) -> None:
    gestures = ts_files.load(*real(shared_data, "PickupGestureWiimoteZ_TRAIN.ts", "PickupGestureWiimoteZ_TEST.ts"))
    assert len(gestures) == 100
    assert len(torch.unique(gestures.splits.diff())) > 10
    assert not bool(gestures.values.isnan().any())
    stamped = ts_files.load(*real(shared_data, "UnitTestTimeStamps_TRAIN.ts"))
    assert stamped.coordinates[:, 0].tolist() == [0, 60, 120, 180] * 4
    assert stamped.unit == "s"
