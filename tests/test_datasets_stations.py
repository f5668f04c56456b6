"""Tables of stations of one's own: columns, times, longitudes, duplicates, missing values, what is hidden together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from ccnn_irregular import datasets
from ccnn_irregular.datasets import ghcnm
from ccnn_irregular.datasets.stations import StationColumns, StationSet, load

MONTHS = [f"2001-{month:02d}-01" for month in range(1, 5)]


def table(stations: int = 8) -> pd.DataFrame:
    """Stations at four months: the value is the latitude plus the month."""
    rng = np.random.default_rng(0)
    latitude, longitude = rng.uniform(30, 40, stations).round(3), rng.uniform(-10, 10, stations).round(3)
    rows = [
        (f"{number:03d}", day, latitude[number], longitude[number], latitude[number] + month)
        for month, day in enumerate(MONTHS)
        for number in range(stations)
    ]
    return pd.DataFrame(rows, columns=["id", "date", "lat", "lon", "tavg"])


def written(folder: Path, frame: pd.DataFrame, name: str = "table.csv", **options: object) -> StationSet:
    path = folder / name
    if name.endswith(".parquet"):
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep=";" if "semicolon" in name else ",")
    return load(path, **options)


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "semicolon.csv", "a.parquet"])
def test_a_table_of_any_format_is_a_field_a_month(tmp_path: Path, name: str) -> None:
    frame = table().sample(frac=1, random_state=1)
    fields = written(tmp_path, frame, name)
    assert fields.names == tuple(MONTHS)
    assert fields.axes == ("latitude", "longitude")
    assert fields.channels == ("tavg",)
    assert fields.splits.tolist() == [0, 8, 16, 24, 32]
    month = torch.repeat_interleave(torch.arange(4), 8)
    torch.testing.assert_close(fields.values[:, 0], fields.coordinates[:, 0] + month)
    ids = frame["id"].to_numpy()[fields.rows]
    assert ids.tolist() == [f"{number:03d}" for number in range(8)] * 4
    assert fields.units.tolist() == list(range(8)) * 4
    assert "latitude = lat" in fields.about[0]


@pytest.mark.parametrize(
    ("names", "roles"),
    [
        (["STATION", "DATE", "LATITUDE", "LONGITUDE", "ELEVATION", "TAVG"], "latitude = LATITUDE"),
        (["wmo", "timestamp", "stn_lat", "stn_lon", "alt", "t"], None),
        (["site", "time", "y", "x", "z", "value"], "y = y"),
        (["float", "juld", "lat", "long", "pres", "temp_qc"], "longitude = long"),
    ],
)
def test_usual_names_are_found(tmp_path: Path, names: list[str], roles: str | None) -> None:
    frame = table()
    frame.insert(4, "level", frame["lat"] * 10)
    frame.columns = names
    if roles is None:
        with pytest.raises(
            ValueError, match=r"hold latitudes and longitudes, or x and y \(--data.columns.latitude NAME"
        ):
            written(tmp_path, frame)
        columns = StationColumns(latitude="stn_lat", longitude="stn_lon")
        assert written(tmp_path, frame, columns=columns).channels == ("t",)
    elif names[-1].endswith("_qc"):
        with pytest.raises(ValueError, match=r"hold one with numbers that are measured \(--data.variables NAME"):
            written(tmp_path, frame)
    else:
        fields = written(tmp_path, frame)
        assert roles in fields.about[0]
        assert fields.channels == (names[-1],)
        assert len(fields.axes) == 2  # a height that belongs to the station is no axis


def test_times_of_any_kind_are_the_same_dates(tmp_path: Path) -> None:
    stamps = pd.to_datetime(table()["date"])
    days = (stamps - pd.Timestamp("1950-01-01")).dt.days
    kinds = {
        "zone": stamps.dt.strftime("%Y-%m-%dT02:00:00+02:00"),
        "zulu": stamps.dt.strftime("%Y-%m-%d 00:00Z"),
        "utc": stamps.dt.strftime("%Y-%m-%d 00:00 UTC"),
        "numbers": days,
        "month": stamps.dt.strftime("%Y-%m"),
    }
    for name, times in kinds.items():
        columns = StationColumns(time_unit="days since 1950-01-01") if name == "numbers" else None
        assert written(tmp_path, table().assign(date=times), columns=columns).names == tuple(MONTHS), name
    zoned = stamps.dt.tz_localize("Europe/Paris")
    assert written(tmp_path, table().assign(date=zoned), "a.parquet").names[0] == "2000-12-31T23:00"
    hours = written(tmp_path, table().assign(date=days), columns=StationColumns(time_unit="hours"))
    assert hours.names[0] == f"{days[0]}"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"date": 17.5}, r"hold dates, or numbers whose unit is given: --data.columns.time_unit hours"),
        ({"date": "soon"}, r"must hold dates as 2024-01-31 .*got 'soon' in row 1"),
        ({"lat": 95.0}, r"column 'lat' of .*, the latitude, must lie in \[-90, 90\] degrees, got 95.0 in row 1"),
        ({"lat": "north"}, r"column 'lat' of .* must hold numbers .*got 'north' in row 1"),
        ({"id": ""}, r"name a station in every row .*got none in row 1"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_row(tmp_path: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        written(tmp_path, table().assign(**change))


def test_zones_in_some_rows_only_are_refused(tmp_path: Path) -> None:
    frame = table()
    frame.loc[3, "date"] = "2001-01-01T00:00Z"
    with pytest.raises(ValueError, match="hold dates that all have a zone, or none"):
        written(tmp_path, frame)


def test_longitudes_of_both_conventions_are_the_same_places(tmp_path: Path) -> None:
    here, there = written(tmp_path, table()), written(tmp_path, table().assign(lon=table()["lon"] % 360))
    torch.testing.assert_close(here.coordinates, there.coordinates, rtol=0, atol=1e-12)
    assert here.coordinates[:, 1].min() < 0


def test_duplicates_are_named_and_a_rule_decides(tmp_path: Path) -> None:
    frame = table()
    twice = pd.concat([frame, frame.iloc[[5]].assign(tavg=100.0)], ignore_index=True)
    with pytest.raises(ValueError, match=r"duplicates mean, first or last .*got 1 more, as in rows 6, 33"):
        written(tmp_path, twice)
    value = frame["tavg"][5]
    for rule, expected in (("first", value), ("last", 100.0), ("mean", (value + 100) / 2)):
        fields = written(tmp_path, twice, duplicates=rule)
        at = fields.values[np.isin(fields.rows, [5, 32]), 0]
        assert int(at.isnan().sum()) == 1
        np.testing.assert_allclose(at.nansum(), expected)
        assert len(fields.values) == 33  # every row stays, to be answered


def test_missing_values_are_missing_and_codes_are_told(tmp_path: Path) -> None:
    frame = table().astype({"tavg": object})
    for row, text in enumerate(("", "NA", "nan", " ")):
        frame.loc[row, "tavg"] = text
    assert int(written(tmp_path, frame).known.sum()) == 28
    frame.loc[5, "tavg"], frame.loc[6, "tavg"] = -9999, -99.9
    with pytest.raises(
        ValueError, match=r"--data.columns.missing -9999 -99.9, or .*'\[\]' .* got -9999 1 times, -99.9 1"
    ):
        written(tmp_path, frame)
    fields = written(tmp_path, frame, columns=StationColumns(missing=(-9999, -99.9)))
    assert int(fields.known.sum()) == 26
    fields = written(tmp_path, frame, columns=StationColumns(missing=()))
    assert int(fields.known.sum()) == 28
    assert float(fields.values[fields.known].min()) == -9999


@pytest.mark.parametrize("code", [9999, -99.9, 1e20, float(np.float32(1e20)), float(np.float32(9.96921e36))])
def test_a_number_far_from_all_others_is_refused_and_one_among_them_is_not(tmp_path: Path, code: float) -> None:
    frame = table()
    frame.loc[3, "tavg"] = code
    with pytest.raises(ValueError, match="tell whether"):
        written(tmp_path, frame)
    frame.loc[4, "tavg"], frame.loc[5, "tavg"] = code - max(1, abs(code)), code + max(1, abs(code))
    assert int(written(tmp_path, frame).known.sum()) == len(frame)
    frame = table()
    frame.loc[3, "lat"] = code
    with pytest.raises(ValueError, match=r"column 'lat' .*--data.columns.missing"):
        written(tmp_path, frame)
    frame = table().assign(tavg=lambda one: one["tavg"] - 130, lon=-100.0)
    frame.loc[:1, ["tavg", "lon"]] = -99.0  # no mark, beside -100
    assert int(written(tmp_path, frame).known.sum()) == len(frame)


def test_levels_that_are_missing_are_declared_too(tmp_path: Path) -> None:
    frame = table().assign(depth=lambda one: np.arange(len(one)) % 7.0)
    frame.loc[2, "depth"] = -999
    with pytest.raises(ValueError, match=r"column 'depth' .* tell whether -999 mean"):
        written(tmp_path, frame)
    fields = written(tmp_path, frame, columns=StationColumns(missing=(-999,)))
    assert len(fields.values) == len(frame) - 1  # a row without a place is left out


def test_tracks_and_profiles_have_time_and_level_as_axes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [
        (f"F{number}", f"2001-01-{1 + day:02d}T{hour:02d}:30", day + number, hour + day, depth, day - depth / 100)
        for number in range(6)
        for day in range(5)
        for hour in [int(rng.integers(0, 24))]
        for depth in (5, 10, 50, 200)
    ]
    frame = pd.DataFrame(rows, columns=["float", "time", "lat", "lon", "depth", "temp"])
    fields = written(tmp_path, frame)
    assert fields.axes == ("latitude", "longitude", "level", "time")
    assert len(fields) == 1
    assert len(fields.units.unique()) == 6
    np.testing.assert_allclose(
        fields.coordinates[0, 3], (np.datetime64(rows[0][1]) - np.datetime64("1970-01-01")) / np.timedelta64(1, "D")
    )
    # Of two floats the profiles are hidden, never the rows.
    few = written(tmp_path, frame[frame["float"].isin(["F0", "F1"])])
    assert len(few.units.unique()) == 10
    assert "profiles, for there are 2 stations" in few.about[-1]
    named = written(tmp_path, frame, axes=("latitude", "longitude", "level"))
    assert named.axes == ("latitude", "longitude", "level")
    assert len(named) == len(frame["time"].unique())


def test_places_are_stations_where_no_column_names_them(tmp_path: Path) -> None:
    fields = written(tmp_path, table().drop(columns="id"))
    places = [tuple(place) for place in fields.coordinates.tolist()]
    assert len({(unit, place) for unit, place in zip(fields.units.tolist(), places, strict=True)}) == 8
    assert written(tmp_path, table(), columns=StationColumns(station="none")).units.unique().numel() == 8


def test_netcdf_of_discrete_sampling_geometries_are_tables(tmp_path: Path) -> None:
    frame = table().sort_values(["id", "date"])
    ragged = xr.Dataset(
        {
            "t2m": ("obs", frame["tavg"], {"units": "degC"}),
            "row_size": ("station", [4] * 8, {"sample_dimension": "obs"}),
            "code": ("station", np.array(frame["id"].unique().tolist()), {"cf_role": "timeseries_id"}),
            "surface_altitude": ("station", np.arange(8.0)),
        },
        {
            "time": ("obs", pd.to_datetime(frame["date"])),
            "nav": ("station", frame["lat"][::4], {"units": "degrees_north"}),
            "nov": ("station", frame["lon"][::4], {"units": "degrees_east"}),
        },
        {"featureType": "timeSeries"},
    )
    ragged.to_netcdf(tmp_path / "ragged.nc")
    found, expected = load(tmp_path / "ragged.nc"), written(tmp_path, table())
    torch.testing.assert_close(found.coordinates, expected.coordinates)
    torch.testing.assert_close(found.values, expected.values)
    assert found.units.tolist() == expected.units.tolist()
    assert (found.channels, found.channel_units) == (("t2m",), ("degC",))


def test_anomalies_are_those_of_the_reader_of_ghcn(shared_data: Path, tmp_path: Path) -> None:
    """The official file as a table: each known value, its station, its month, and what it is compared with."""
    frame, path = ghcn_table(shared_data, tmp_path, 1999)
    own = datasets.load("ghcnm", path)
    frame.to_csv(tmp_path / "ghcn.csv", index=False)
    found = load(tmp_path / "ghcn.csv", variables=["temperature"], anomalies=True)
    known = own.known, found.known
    assert int(known[0].sum()) > 5000
    for name in ("coordinates", "values", "units", "reference"):
        torch.testing.assert_close(getattr(own, name)[known[0]], getattr(found, name)[known[1]], rtol=0, atol=0)
    with pytest.raises(ValueError, match="anomalies must be left out where times are no dates"):
        load(tmp_path / "ghcn.csv", variables=["temperature"], anomalies=True, axes=("latitude", "longitude", "time"))


def ghcn_table(shared_data: Path, folder: Path, first_year: int) -> tuple[pd.DataFrame, Path]:
    """The stations of the official file from some year on, as a table, and as a file of its own format."""
    path = shared_data / "climate" / "ghcnm_texas.dat"
    if not path.is_file():
        pytest.skip(f"no {path}")
    lines = [line for line in path.read_text().splitlines() if int(line[11:15]) >= first_year]
    (folder / "ghcn.dat").write_text("\n".join(lines) + "\n")
    (folder / "ghcn.inv").write_text(path.with_suffix(".inv").read_text())
    frame = ghcnm.load(folder / "ghcn.dat")["temperature"].to_dataframe().reset_index()
    columns = ["station", "time", "latitude", "longitude", "elevation", "temperature"]
    return frame[columns].sample(frac=1, random_state=0), folder / "ghcn.dat"


def test_duplicates_name_the_columns_that_may_tell_them_apart(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("lat,lon,moment,t2m\n1,1,2020-01-01,5\n1,1,2020-01-02,6\n2,2,2020-01-01,7\n")
    with pytest.raises(ValueError, match=r"--data\.columns\.time NAME or --data\.columns\.level NAME names what"):
        load(path)
    fields = load(path, columns=StationColumns(time="moment"))
    assert int(fields.known.sum()) == 3
    path.write_text("lat,lon,time,depth,t2m\n1,1,2020-01-01,0,5\n1,1,2020-01-01,0,6\n2,2,2020-01-01,1,7\n")
    with pytest.raises(ValueError, match=r"takes one of them\), got 1 more"):
        load(path)
