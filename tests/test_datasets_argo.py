"""Argo profiles: flags, modes and repeated pressures on a file made here, and the floats where they are present."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from ccnn_irregular.datasets import argo


def written(path: Path, **changes: object) -> Path:
    """Three profiles of four levels: D, A and R; raw temperatures are 10, adjusted ones 20."""
    shape = (3, 4)
    pressure = np.tile(np.array([5.0, 10.0, 20.0, 40.0]), (3, 1))
    flags = np.full(shape, b"1", dtype="S1")
    content: dict[str, object] = {
        "JULD": ("N_PROF", np.array(["2010-01-01", "2010-01-11", "2010-01-21"], dtype="datetime64[ns]")),
        "JULD_QC": ("N_PROF", np.array([b"1"] * 3)),
        "POSITION_QC": ("N_PROF", np.array([b"1"] * 3)),
        "LATITUDE": ("N_PROF", np.array([1.0, 2.0, 3.0])),
        "LONGITUDE": ("N_PROF", np.array([4.0, 5.0, 6.0])),
        "DATA_MODE": ("N_PROF", np.array([b"D", b"A", b"R"])),
        "CYCLE_NUMBER": ("N_PROF", np.array([1, 2, 3])),
    }
    for name, raw, adjusted in (("PRES", pressure, pressure + 1), ("TEMP", np.full(shape, 10.0), np.full(shape, 20.0))):
        for key, values in ((name, raw), (f"{name}_ADJUSTED", adjusted)):
            content[key] = (("N_PROF", "N_LEVELS"), values, {"units": "degree_Celsius"})
            content[f"{key}_QC"] = (("N_PROF", "N_LEVELS"), flags.copy())
    xr.Dataset({**content, **changes}).to_netcdf(path, engine="h5netcdf")
    return path


def test_mode_decides_between_raw_and_adjusted(tmp_path: Path) -> None:
    table = argo.load(written(tmp_path / "1_prof.nc"))
    np.testing.assert_array_equal(table["TEMP"][:, 0], [20.0, 20.0, 10.0])
    np.testing.assert_array_equal(table["pressure"][:, 0], [6.0, 6.0, 5.0])
    assert table["TEMP"].attrs["units"] == "degree_Celsius"
    assert table["mode"].values.tolist() == ["D", "A", "R"]
    assert table.attrs["float"] == "1"


def test_only_good_flags_count(tmp_path: Path) -> None:
    flags = np.array([[b"1", b"2", b"3", b"4"], [b"1"] * 4, [b"9", b"1", b"1", b"1"]])
    path = written(tmp_path / "1_prof.nc", TEMP_ADJUSTED_QC=(("N_PROF", "N_LEVELS"), flags))
    np.testing.assert_array_equal(np.isfinite(argo.load(path)["TEMP"])[0], [True, True, False, False])
    assert np.isfinite(argo.load(path)["TEMP"])[2].all()  # real time: the raw value's own flag counts
    np.testing.assert_array_equal(np.isfinite(argo.load(path, good=("1",))["TEMP"])[0], [True, False, False, False])


def test_bad_dates_positions_and_pressures_take_their_values_along(tmp_path: Path) -> None:
    pressures = np.full((3, 4), b"1")
    pressures[0, 2] = b"4"
    path = written(
        tmp_path / "1_prof.nc",
        JULD_QC=("N_PROF", np.array([b"1", b"4", b"1"])),
        PRES_ADJUSTED_QC=(("N_PROF", "N_LEVELS"), pressures),
        LATITUDE=("N_PROF", np.array([1.0, 2.0, np.nan])),
    )
    known = np.isfinite(argo.load(path)["TEMP"].values)
    np.testing.assert_array_equal(known, [[True, True, False, True], [False] * 4, [False] * 4])


def test_a_date_beyond_nanoseconds_does_not_hurt_the_others(tmp_path: Path) -> None:
    """Such dates occur where the clock of a float failed; they are flagged, or not."""
    days = {"units": "days since 1950-01-01", "conventions": "relative"}
    path = written(tmp_path / "1_prof.nc", JULD=("N_PROF", [21915.0, 500_000.0, np.nan], days))
    table = argo.load(path)
    np.testing.assert_array_equal(np.isfinite(table["TEMP"].values).all(1), [True, True, False])
    assert str(table["time"].values[0])[:10] == "2010-01-01"


def test_the_first_of_equal_pressures_counts(tmp_path: Path) -> None:
    pressure = np.tile(np.array([5.0, 5.0, 20.0, np.nan]), (3, 1))
    path = written(tmp_path / "1_prof.nc", PRES=(("N_PROF", "N_LEVELS"), pressure))
    np.testing.assert_array_equal(np.isfinite(argo.load(path)["TEMP"])[2], [True, False, True, False])


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_every_pressure_keeps_its_first_good_value(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever stands at the same pressure: value by value, in plain Python."""
    shape = (3, 4)

    def draw(choices: list) -> np.ndarray:
        return np.array(data.draw(st.lists(st.sampled_from(choices), min_size=12, max_size=12)))

    pressure = draw([5.0, 10.0, 20.0, np.nan]).reshape(shape)
    value_flags, pressure_flags = (draw([b"1", b"2", b"3", b"4", b"9", b" "]).reshape(shape) for _ in range(2))
    values = np.where(draw([0, 0, 0, 1]).reshape(shape), np.nan, np.arange(12.0).reshape(shape))
    levels = ("N_PROF", "N_LEVELS")
    path = written(
        tmp_path_factory.mktemp("argo") / "1_prof.nc",
        DATA_MODE=("N_PROF", np.array([b"R"] * 3)),
        PRES=(levels, pressure),
        PRES_QC=(levels, pressure_flags),
        TEMP=(levels, values),
        TEMP_QC=(levels, value_flags),
    )
    wanted = np.full(shape, np.nan)
    for row in range(3):
        seen = set()
        for level in range(4):
            here = (row, level)
            good = value_flags[here] in (b"1", b"2") and pressure_flags[here] in (b"1", b"2")
            if good and np.isfinite(values[here] + pressure[here]) and pressure[here] not in seen:
                seen.add(pressure[here])
                wanted[here] = values[here]
    np.testing.assert_array_equal(argo.load(path)["TEMP"], wanted)


def test_a_bad_value_does_not_spoil_the_good_one_at_its_pressure(tmp_path: Path) -> None:
    levels = ("N_PROF", "N_LEVELS")
    pressure = np.tile(np.array([5.0, 10.0, 10.0, 10.0]), (3, 1))
    flags = np.array([[b"1"] * 4, [b"1", b"4", b"1", b"1"], [b"1"] * 4])
    pressure_flags = np.array([[b"1", b"3", b"4", b"1"], [b"1"] * 4, [b"1"] * 4])
    values = np.array([[0.0, 1, 2, 3], [0, 1, 2, 3], [0, np.nan, 2, 3]])
    path = written(
        tmp_path / "1_prof.nc",
        DATA_MODE=("N_PROF", np.array([b"R"] * 3)),
        PRES=(levels, pressure),
        PRES_QC=(levels, pressure_flags),
        TEMP=(levels, values),
        TEMP_QC=(levels, flags),
    )
    nan = np.nan
    np.testing.assert_array_equal(argo.load(path)["TEMP"], [[0, nan, nan, 3], [0, nan, 2, nan], [0, nan, 2, nan]])


def test_fill_values_that_no_attribute_names_are_no_values(tmp_path: Path) -> None:
    levels = ("N_PROF", "N_LEVELS")
    values = np.full((3, 4), 10.0, np.float32)
    values[2, 1] = 99999.0
    pressure = np.tile(np.array([5.0, 10.0, 20.0, 99999.0], np.float32), (3, 1))
    path = written(
        tmp_path / "1_prof.nc",
        TEMP=(levels, values),
        PRES=(levels, pressure),
        LATITUDE=("N_PROF", np.array([1.0, 99999.0, 3.0])),
        LONGITUDE=("N_PROF", np.array([99999.0, 1.0, 3.0])),
    )
    table = argo.load(path)
    np.testing.assert_array_equal(table["TEMP"][2], [10, np.nan, 10, np.nan])
    np.testing.assert_array_equal(table["pressure"][2], [5, 10, 20, np.nan])
    assert np.isnan(table["TEMP"][:2]).all()
    assert np.isnan(table["latitude"]).values.tolist() == [True, True, False]


def test_dates_and_positions_that_are_bad_are_none(tmp_path: Path) -> None:
    path = written(
        tmp_path / "1_prof.nc",
        JULD_QC=("N_PROF", np.array([b"4", b"1", b"1"])),
        POSITION_QC=("N_PROF", np.array([b"1", b"4", b"1"])),
    )
    table = argo.load(path)
    assert np.isnat(table["time"]).values.tolist() == [True, False, False]
    np.testing.assert_array_equal(table["longitude"], [4, np.nan, 6])


def test_a_mode_of_each_parameter_decides_for_it(tmp_path: Path) -> None:
    names = np.array([[b"PRES".ljust(64), b"CHLA_FLUORESCENCE".ljust(64)]] * 3)
    levels = ("N_PROF", "N_LEVELS")
    extra = {
        "STATION_PARAMETERS": (("N_PROF", "N_PARAM"), names),
        "PARAMETER_DATA_MODE": (("N_PROF", "N_PARAM"), np.array([[b"D", b"R"], [b"R", b"A"], [b"D", b"D"]])),
        "CHLA_FLUORESCENCE": (levels, np.full((3, 4), 10.0)),
        "CHLA_FLUORESCENCE_ADJUSTED": (levels, np.full((3, 4), 20.0)),
        "CHLA_FLUORESCENCE_QC": (levels, np.full((3, 4), b"1")),
        "CHLA_FLUORESCENCE_ADJUSTED_QC": (levels, np.full((3, 4), b"1")),
    }
    table = argo.load(written(tmp_path / "1_prof.nc", **extra), "CHLA_FLUORESCENCE")
    np.testing.assert_array_equal(table["CHLA_FLUORESCENCE"][:, 0], [10, 20, 20])
    np.testing.assert_array_equal(table["pressure"][:, 0], [6, 5, 6])
    assert table["mode"].values.tolist() == ["R", "A", "D"]


def test_flags_may_be_given_as_one_word(tmp_path: Path) -> None:
    flags = np.array([[b"1", b"2", b"3", b"4"]] * 3)
    path = written(tmp_path / "1_prof.nc", TEMP_ADJUSTED_QC=(("N_PROF", "N_LEVELS"), flags))
    assert np.isfinite(argo.load(path, good="13")["TEMP"])[0].values.tolist() == [True, False, True, False]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "1_prof.nc")
    with pytest.raises(ValueError, match=r"its flagged variables are .*PRES.*TEMP.*got none named DOXY"):
        argo.load(path, "DOXY")
    (tmp_path / "cut_prof.nc").write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"cut_prof\.nc"):
        argo.load(tmp_path / "cut_prof.nc")


def test_real_floats(shared_data: Path) -> None:
    folder = shared_data / "climate" / "argo"
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}")
    table = argo.load(folder / "5900865_prof.nc")
    assert int(table["TEMP"].notnull().sum()) == 5667  # flagged 1 in the file
    # The profiles of 2901746 in real time have a bad date: none of them is left.
    other = argo.load(folder / "2901746_prof.nc")
    assert other["TEMP"].notnull().any("level").values.tolist() == (other["mode"] == "D").values.tolist()
    assert float(other["pressure"].max()) < 801
