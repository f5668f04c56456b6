"""Times and units of coordinates as numbers: against Python's own calendar, cftime and the CF conventions."""

from __future__ import annotations

import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import cftime
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from ccnn_irregular.adapters.xarray import decode_times, open_cube
from ccnn_irregular.adapters.xarray_units import compass, measure

SECONDS = {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86400}


def on_times(values: Any, **attributes: str) -> xr.DataArray:
    return xr.DataArray(
        np.zeros(len(values)), {"time": ("time", values, {"standard_name": "time", **attributes})}, ("time",)
    )


def numbers(values: Any, time_unit: str = "days", **attributes: str) -> np.ndarray:
    frame = on_times(values, **attributes).ccnn(time_unit=time_unit).frame()
    assert frame.units == (time_unit,)
    return frame.factors[0].coordinates[:, 0]


def ordinal(year: int, month: int = 1, day: int = 1) -> int:
    """Days since 1970-01-01, of Python's own calendar."""
    return datetime.date(year, month, day).toordinal() - datetime.date(1970, 1, 1).toordinal()


@pytest.mark.parametrize("resolution", ["s", "ms", "us"])
@pytest.mark.parametrize("time_unit", SECONDS)
@given(st.lists(st.datetimes(), min_size=2, max_size=5, unique=True))
def test_dates_of_years_1_to_9999_are_exact(resolution: str, time_unit: str, dates: list[datetime.datetime]) -> None:
    dates = sorted({date.replace(microsecond=0) for date in dates})
    found = numbers(np.array(dates, f"datetime64[{resolution}]"), time_unit)
    since = [(date - datetime.datetime(1970, 1, 1)) // datetime.timedelta(seconds=1) for date in dates]
    wanted = [float(Fraction(one, SECONDS[time_unit])) for one in since]
    np.testing.assert_allclose(found, wanted, rtol=1e-15, atol=0)


def test_an_axis_over_the_end_of_nanoseconds_rises() -> None:
    years = range(1500, 2800, 100)
    found = numbers(np.array([f"{year}-01-01" for year in years], "datetime64[s]"))
    np.testing.assert_array_equal(found, [ordinal(year) for year in years])


@pytest.mark.parametrize("resolution", ["s", "ms", "us", "ns"])
def test_time_spans_of_every_resolution(resolution: str) -> None:
    centuries = [0, 36525, 73050] + ([] if resolution == "ns" else [2 * 365250])
    spans = np.array(centuries, "timedelta64[D]").astype(f"timedelta64[{resolution}]")
    np.testing.assert_array_equal(numbers(spans), centuries)
    # As numbers with a unit they are the same spans.
    np.testing.assert_allclose(numbers(np.array(centuries) * 24.0, units="hours"), centuries, rtol=1e-15)


@pytest.mark.parametrize(
    ("unit", "seconds"),
    [
        *(
            ("seconds", 1),
            ("sec", 1),
            ("s", 1),
            ("min", 60),
            ("minutes", 60),
            ("hr", 3600),
            ("h", 3600),
            ("Hours", 3600),
        ),
        *(("days", 86400), ("d", 86400), ("weeks", 604800), ("msec", 0.001), ("us", 1e-6), ("ns", 1e-9)),
    ],
)
@pytest.mark.parametrize("calendar", ["standard", "proleptic_gregorian", "noleap", "360_day", "julian"])
def test_numbers_since_a_date_are_the_dates_of_cftime(unit: str, seconds: float, calendar: str) -> None:
    count = np.array([0, 3, 7]) if seconds > 1e-3 else np.array([0, 3_000_000, 7_000_000])
    found = numbers(count, units=f"{unit} since 1999-02-28 06:00:00", calendar=calendar)
    base = cftime.datetime(1999, 2, 28, 6, calendar=calendar) - cftime.datetime(1970, 1, 1, calendar=calendar)
    np.testing.assert_allclose(found, base.total_seconds() / 86400 + count * seconds / 86400, rtol=1e-15)
    if unit == "ns" and calendar not in ("standard", "proleptic_gregorian"):
        return  # cftime's dates have microseconds
    decoded = decode_times(
        on_times(count, units=f"{unit} since 1999-02-28 06:00:00", calendar=calendar).to_dataset(name="a")
    )
    np.testing.assert_allclose(numbers(decoded.time.values), found, rtol=1e-15)


@pytest.mark.parametrize("calendar", ["standard", "noleap", "360_day"])
@pytest.mark.parametrize(
    ("zone", "hours"),
    [
        *((" -6:00", 6), (" -06:00", 6), ("-06:00", 6), (" -6", 6), (" -06", 6), (" -0600", 6), (" +530", -5.5)),
        *((" +11", -11), (" 2:30", -2.5), (" Z", 0), ("Z", 0), (" UTC", 0), ("", 0)),
    ],
)
def test_a_reference_date_has_its_time_zone(zone: str, hours: float, calendar: str) -> None:
    """The formats of section 4.4 of the CF conventions, for year 1992 and for one that only objects hold."""
    for year in (1992, 2490):
        units = f"hours since {year}-10-8 15:15:42.5{zone}"
        begin = cftime.datetime(year, 10, 8, 15, 15, 42, 500_000, calendar=calendar)
        wanted = cftime.date2num(begin, "days since 1970-01-01", calendar=calendar) + (hours + np.array([0, 6])) / 24
        np.testing.assert_allclose(numbers([0, 6], units=units, calendar=calendar), wanted, rtol=1e-14)
        decoded = decode_times(on_times([0, 6], units=units, calendar=calendar).to_dataset(name="a"))
        np.testing.assert_allclose(numbers(decoded.time.values), wanted, rtol=1e-14)


@pytest.mark.parametrize("zone", ["EST", "LST", "local", "-75:00", "+5h"])
def test_names_of_time_zones_are_refused(zone: str) -> None:
    array = on_times([0, 6], units=f"hours since 1992-10-08 15:15:42 {zone}")
    for reading in (array.ccnn.frame, lambda: decode_times(array.to_dataset(name="a"))):
        with pytest.raises(
            ValueError, match=r"unit of 'time' must have a time zone of hours and minutes, such as -05:00"
        ):
            reading()


@pytest.mark.parametrize("calendar", ["standard", "noleap", "all_leap", "360_day", "julian", "proleptic_gregorian"])
@pytest.mark.parametrize(("unit", "length"), [("months", 1), ("month", 1), ("years", 12), ("year", 12)])
def test_whole_months_and_years_are_those_of_the_calendar(calendar: str, unit: str, length: int) -> None:
    places = [0, 1, 2, 13, 25]
    units = f"{unit} since 1996-01-15 12:00"
    found = numbers(np.array(places, np.int32), units=units, calendar=calendar)
    months = [length * place for place in places]
    dates = [cftime.datetime(1996 + m // 12, 1 + m % 12, 15, 12, calendar=calendar) for m in months]
    np.testing.assert_array_equal(found, cftime.date2num(dates, "days since 1970-01-01", calendar=calendar))
    dataset = decode_times(on_times(np.array(places, np.float32), units=units, calendar=calendar).to_dataset(name="a"))
    np.testing.assert_array_equal(numbers(dataset.time.values), found)


def test_fractions_of_months_are_the_users_to_decide() -> None:
    raw = on_times([0.5, 1.5, 2.0], units="months since 1999-12-01").to_dataset(name="a")
    with pytest.raises(
        ValueError, match=r"months since '1999-12-01' in 'time' must be whole numbers.*months='calendar'"
    ):
        raw["a"].ccnn.frame()
    with pytest.raises(ValueError, match=r"must be whole numbers, or be told.*months='mean'.*got \[0\.5\]"):
        decode_times(raw)
    by_calendar = numbers(decode_times(raw, months="calendar").time.values)
    begin = ordinal(1999, 12)
    np.testing.assert_array_equal(by_calendar, begin + np.array([15.5, 31 + 15.5, 62]))
    mean = numbers(decode_times(raw, months="mean").time.values)
    np.testing.assert_allclose(mean, begin + np.array([0.5, 1.5, 2]) * 365.242198781 / 12, rtol=1e-9)
    with pytest.raises(ValueError, match=r"months must be one of \('calendar', 'mean'\), got 'half'"):
        decode_times(raw, months="half")  # type: ignore[arg-type]


def test_months_from_a_day_that_some_lack_are_refused() -> None:
    raw = on_times([0, 1, 2], units="months since 2001-01-31")
    with pytest.raises(ValueError, match=r"must reach months that have its day 31, or be read.*got 2001-02"):
        raw.ccnn.frame()
    np.testing.assert_array_equal(
        numbers([0, 2], units="months since 2001-01-31"), ordinal(2001, 1, 31) + np.array([0, 59])
    )


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"units": "days since 2000-01-01", "calendar": "tai"}, r"calendar of 'time' must be one of .*, got 'tai'"),
        ({"units": "days since 2000-02-31"}, r"unit of 'time' must be .*date of the calendar 'standard'"),
        ({"units": "decades since 2000-01-01"}, r"unit of 'time' must be a unit of time since a date, got 'decades"),
        ({"units": "day as %Y%m%d.%f"}, r"unit of 'time' must be '<unit> since <date>'; turn dates .* got 'day as"),
    ],
)
def test_what_is_no_time_is_refused(attributes: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        on_times([0, 1, 2], **attributes).ccnn.frame()


def test_dates_too_close_for_numbers_since_1970() -> None:
    microseconds = np.datetime64("2026-01-01", "ns") + np.array([0, 1000, 2000, 5000])
    with pytest.raises(
        ValueError, match=r"'time' must have gaps that float64 holds .*time=array\.time - array\.time\[0\]"
    ):
        on_times(microseconds).ccnn(time_unit="seconds").frame()
    found = numbers(microseconds - microseconds[0], "seconds")
    np.testing.assert_allclose(found, [0, 1e-6, 2e-6, 5e-6], rtol=1e-15)
    # A uniform axis keeps its step: 10 kHz since 1970 in seconds.
    uniform = np.datetime64("2026-01-01", "ns") + 100_000 * np.arange(2000)
    (line,) = on_times(uniform).ccnn(time_unit="seconds").frame().factors
    assert line.step == pytest.approx(1e-4, rel=1e-6)


def file(path: Path, values: Any, **attributes: str) -> Path:
    on_times(values, **attributes).to_dataset(name="a").to_netcdf(path, engine="h5netcdf")
    return path


@pytest.mark.parametrize("calendar", ["standard", "proleptic_gregorian", "noleap"])
def test_files_of_far_years_open_without_a_word(calendar: str, tmp_path: Path) -> None:
    for year in (850, 2490):
        path = file(tmp_path / f"{year}.nc", [0, 10, 20], units=f"days since {year:04}-01-01", calendar=calendar)
        found = open_cube(path)["a"].ccnn.frame().factors[0].coordinates[:, 0]
        days = cftime.datetime(year, 1, 1, calendar=calendar) - cftime.datetime(1970, 1, 1, calendar=calendar)
        np.testing.assert_array_equal(found, days.days + np.array([0, 10, 20]))


@pytest.mark.parametrize("calendar", ["standard", "proleptic_gregorian", "noleap", "360_day"])
@pytest.mark.parametrize("reference", ["1950-01-01", "0001-01-01"])
@pytest.mark.parametrize("days", [[21915.0, 500_000.0, np.nan], [21915.0, np.nan, 500_000.0], [np.nan, 8e5, 21915.0]])
@pytest.mark.parametrize("stored", ["f8", "i4"])
def test_missing_times_are_missing_and_others_are_not(
    calendar: str, reference: str, days: list[float], stored: str, tmp_path: Path
) -> None:
    """Times of profiles or trajectories, where some are not known."""
    time = xr.Variable(
        "profile", days, {"standard_name": "time", "units": f"days since {reference}", "calendar": calendar}
    )
    time.encoding = {"dtype": stored, "_FillValue": -1 if stored == "i4" else np.nan}
    depth = {"standard_name": "depth", "units": "m", "positive": "down"}
    dataset = xr.Dataset({"a": ("profile", np.zeros(3))}, {"time": time, "depth": ("profile", [1.0, 2.0, 3.0], depth)})
    dataset.to_netcdf(tmp_path / "profiles.nc", engine="h5netcdf")
    opened = open_cube(tmp_path / "profiles.nc")
    np.testing.assert_array_equal(opened.time.isnull(), np.isnan(days))
    cloud = opened["a"].ccnn(axes=["time", "depth"]).frame().factors[0]
    base = cftime.date2num(cftime.datetime(int(reference[:4]), 1, 1, calendar=calendar), "days since 1970-01-01")
    np.testing.assert_array_equal(cloud.coordinates[:, 0], base + np.array([day for day in days if day == day]))


def test_a_missing_time_of_an_axis_is_refused(tmp_path: Path) -> None:
    path = file(tmp_path / "gap.nc", [0.0, np.nan, 2.0], units="days since 2001-01-01", calendar="noleap")
    with pytest.raises(ValueError, match="coordinate 'time' must be finite, got 1 missing"):
        open_cube(path)["a"].ccnn.frame()


def test_a_folder_over_the_end_of_nanoseconds_is_one_axis(tmp_path: Path) -> None:
    for year in (2261, 2262, 2263):
        file(tmp_path / f"{year}.nc", [0, 100, 200], units=f"days since {year}-01-01")
    found = open_cube(tmp_path)["a"].ccnn.frame().factors[0].coordinates[:, 0]
    np.testing.assert_array_equal(found, [ordinal(year) + day for year in (2261, 2262, 2263) for day in (0, 100, 200)])


def test_months_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "months.nc"
    time = {"units": "months since 1990-01-01", "bounds": "ends", "standard_name": "time"}
    ends = np.stack([np.arange(6), np.arange(1, 7)], 1)
    dataset = xr.Dataset(
        {"a": ("time", np.zeros(6)), "ends": (("time", "side"), ends)}, {"time": ("time", np.arange(6), time)}
    )
    dataset.to_netcdf(path, engine="h5netcdf")
    opened = open_cube(path)
    wanted = np.arange("1990-01", "1990-08", dtype="datetime64[M]")
    np.testing.assert_array_equal(opened.time.values, wanted[:6])
    np.testing.assert_array_equal(opened.ends.values, np.stack([wanted[:6], wanted[1:]], 1))
    opened.to_netcdf(tmp_path / "again.nc", engine="h5netcdf")
    xr.testing.assert_equal(open_cube(tmp_path / "again.nc"), opened)
    half = file(tmp_path / "half.nc", [0.5, 1.5], units="months since 1990-01-01")
    with pytest.raises(ValueError, match=r"half\.nc: months since '1990-01-01' in 'time' must be whole numbers"):
        open_cube(half)
    assert open_cube(half, months="calendar").time.values[0] == np.datetime64("1990-01-16T12:00")


DEGREES = [f"degree{plural}{gap}{{}}" for plural in ("", "s") for gap in ("", "_")]


@pytest.mark.parametrize("spelling", DEGREES)
@pytest.mark.parametrize("named", [True, False])
def test_degrees_of_every_spelling_and_direction(spelling: str, named: bool) -> None:
    for letters in (("N", "S", "E", "W"), ("north", "south", "east", "west")):
        if "_" not in spelling and letters[0] == "north":
            continue
        north, south, east, west = (spelling.format(letter) for letter in letters)
        for y_unit, x_unit, signs in ((north, east, (1, 1)), (south, west, (-1, -1))):
            names = ({"standard_name": "latitude"}, {"standard_name": "longitude"}) if named else ({}, {})
            coordinates = {
                "y0": ("y0", [10.0, 20, 40], {"units": y_unit, **names[0]}),
                "x0": ("x0", [100.0, 101, 102, 103], {"units": x_unit, **names[1]}),
            }
            frame = xr.DataArray(np.zeros((3, 4)), coordinates, ("y0", "x0")).ccnn.frame()
            assert frame.axes == ("y0", "x0")
            np.testing.assert_array_equal(sorted(signs[0] * frame.factors[0].coordinates[:, 0]), [10, 20, 40])
            np.testing.assert_array_equal(sorted(signs[1] * frame.factors[1].coordinates[:, 0]), [100, 101, 102, 103])


def test_values_stay_at_their_degrees_west() -> None:
    """A field of longitudes west is the mirrored field of longitudes east."""
    values = np.arange(4.0)
    west = xr.DataArray(values, {"lon": ("lon", [10.0, 20, 30, 50], {"units": "degrees_west"})}, ("lon",))
    samples = west.ccnn.to_samples()
    np.testing.assert_array_equal(samples.domain.coordinates[:, 0], [-50, -30, -20, -10])
    np.testing.assert_array_equal(samples.values[:, 0], [3, 2, 1, 0])
    np.testing.assert_array_equal(samples.to_xarray(samples.values), values)


@pytest.mark.parametrize(
    ("standard_name", "unit"),
    [("latitude", "degrees_east"), ("longitude", "degrees_north"), ("latitude", "degreeW"), ("longitude", "degrees_S")],
)
def test_degrees_of_another_axis_are_refused(standard_name: str, unit: str) -> None:
    attributes = {"standard_name": standard_name, "units": unit}
    with pytest.raises(ValueError, match=rf"unit of 'a', a {standard_name}, must be degrees .* or .*, got '{unit}'"):
        xr.DataArray(np.zeros(2), {"a": ("a", [1.0, 2.0], attributes)}, ("a",)).ccnn(axes={"a": standard_name}).frame()


def test_spellings_of_units() -> None:
    wanted = {
        **dict.fromkeys(("m", "metre", "metres", "meter", "Meters"), ("length", Fraction(1))),
        **dict.fromkeys(("km", "kilometre", "kilometers"), ("length", Fraction(1000))),
        **dict.fromkeys(("Pa", "pascal"), ("pressure", Fraction(1))),
        **dict.fromkeys(("hPa", "mbar", "millibar", "millibars", "mb", "hectopascal"), ("pressure", Fraction(100))),
        **dict.fromkeys(("dbar", "decibar", "decibars"), ("pressure", Fraction(10_000))),
        "bar": ("pressure", Fraction(100_000)),
        **dict.fromkeys(("min", "minute", "minutes"), ("time", Fraction(60))),
        **dict.fromkeys(("ms", "msec", "millisecond"), ("time", Fraction(1, 1000))),
        **dict.fromkeys(("us", "µs", "microseconds"), ("time", Fraction(1, 10**6))),
    }
    assert {unit: measure(unit) for unit in wanted} == wanted
    assert [measure(unit) for unit in ("", "1", "K", "MS", "M", "months", "level")] == [None] * 7
    assert [compass(unit) for unit in ("degreeS", "degrees", "DEGREES_EAST", "degrees_e", "rad")] == [
        "south", "", "east", "east", None,
    ]  # fmt: skip


def levels(**attributes: str) -> xr.DataArray:
    counted = {"standard_name": "model_level_number", "units": "1", "axis": "Z", "positive": "up"}
    coordinates = {
        "level": ("level", [1, 2, 3], counted),
        "level_height": ("level", [20.0, 80.0, 200.0], attributes),
    }
    return xr.DataArray(np.zeros(3), coordinates, ("level",))


@pytest.mark.parametrize(
    "attributes", [{"units": "m"}, {"units": "hPa"}, {"units": "m", "axis": "Z", "positive": "up"}]
)
def test_level_numbers_beside_heights_are_announced(attributes: dict[str, str]) -> None:
    array = levels(**attributes)
    with pytest.warns(
        UserWarning, match=r"axis 'level' is taken as .* '1', although level_height .*'level': 'vertical'"
    ):
        assert array.ccnn.frame().axes == ("level",)
    named = array.ccnn(axes={"level_height": "vertical"}).frame()
    np.testing.assert_array_equal(named.factors[0].coordinates[:, 0], [20, 80, 200])
    assert array.ccnn(axes={"level": "vertical"}).frame().units == ("1",)
    assert levels(units="1").ccnn.frame().axes == ("level",)  # a sigma beside it says nothing of metres


def test_cell_numbers_beside_places_are_announced() -> None:
    latitude, longitude = np.meshgrid([10.0, 11, 12], [5.0, 6, 7, 8], indexing="ij")
    coordinates = {
        "j": ("j", [0, 1, 2], {"axis": "Y", "units": "1"}),
        "i": ("i", [0, 1, 2, 3], {"axis": "X", "units": "1"}),
        "lat": (("j", "i"), latitude, {"units": "degrees_north"}),
        "lon": (("j", "i"), longitude, {"units": "degrees_east"}),
    }
    array = xr.DataArray(np.zeros((3, 4)), coordinates, ("j", "i"))
    with pytest.warns(UserWarning, match=r"axis '[ij]' is taken .*axes=\{'lat': 'latitude', 'lon': 'longitude'\}"):
        assert array.ccnn.frame().axes == ("j", "i")
    assert array.ccnn(axes={"lat": "latitude", "lon": "longitude"}).frame().axes == ("lat", "lon")


# ----------------------------------------------------------------------------------------- times that nothing calls so


@pytest.mark.parametrize(
    ("times", "attributes"),
    [
        (np.arange("2001-01-01", "2001-01-13", dtype="datetime64[D]").astype("datetime64[ns]"), {}),
        (np.arange(12), {"units": "days since 2001-01-01"}),
        (np.arange(12) * np.timedelta64(1, "D").astype("timedelta64[ns]"), {}),
        (np.arange(12) * 86400.0, {"units": "s"}),
        (xr.date_range("2001-01-01", periods=12, calendar="noleap", use_cftime=True), {}),
    ],
)
def test_times_are_known_by_their_type_or_unit_alone(times: Any, attributes: dict[str, str]) -> None:
    array = xr.DataArray(np.zeros((12, 3)), {"when": ("when", times, attributes)}, ("when", "station"))
    frame = array.ccnn(samples="station").frame()
    assert [axis for axis in frame.axes] == ["when"]
    assert frame.factors[0].roles == ("time",)
    np.testing.assert_allclose(np.diff(frame.factors[0].nodes), 1.0)


def test_of_several_times_along_a_dimension_its_own_is_taken_and_words_are_none() -> None:
    dates = np.arange("2001-01-01", "2001-01-13", dtype="datetime64[D]").astype("datetime64[ns]")
    both = {"time": ("time", dates), "issued": ("time", dates - np.timedelta64(3, "D"))}
    assert [*xr.DataArray(np.zeros(12), both, ("time",)).ccnn.frame().axes] == ["time"]
    unclear = {"valid": ("obs", dates), "issued": ("obs", dates)}
    with pytest.raises(ValueError, match="dimension 'obs' must be an axis by its CF attributes"):
        xr.DataArray(np.zeros(12), unclear, ("obs",)).ccnn.frame()
    words = {"station": ("station", np.array(["a", "b"], dtype=object))}
    with pytest.raises(ValueError, match="dimension 'station' must be an axis"):
        xr.DataArray(np.zeros(2), words, ("station",)).ccnn.frame()
