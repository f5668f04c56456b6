"""Files .ts of the UEA & UCR archive: unequal lengths, time stamps, missing values, faults, the real files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

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
    ("lines", "message"),
    [
        (["1,2,3:left", "1,2,3"], "X.ts must be a complete .ts file, got a damaged one: inconsistent number of dim"),
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
    with pytest.raises(ValueError, match=r"X.ts, series 2 must have the same times in all channels, got lengths"):
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
    with pytest.raises(ValueError, match=r"the files must agree on their time stamps, got \[False, True\]"):
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
