"""GHCN-Monthly: fixed-width lines with all their quirks, and the station files where they are present."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from ccnn_irregular.datasets import ghcnm

STATION = "42500410120"


def line(year: int, values: list[int], *, station: str = STATION, element: str = "TAVG", flags: str = "  G") -> str:
    return f"{station}{year}{element}" + "".join(f"{value:5d}{flags}" for value in values)


def inventory_line(station: str = STATION, latitude: float = 32.7294, elevation: float = 426.7) -> str:
    return f"{station} {latitude:8.4f}  -99.3017 {elevation:6.1f} {'ALBANY':<30} 436R   -9HIxxno-9A-9WARM FIELD"


def written(folder: Path, lines: list[str], stations: list[str], end: str = "\r\n") -> Path:
    (folder / "some.dat").write_bytes((end.join(lines) + end).encode())
    (folder / "some.inv").write_bytes((end.join(stations) + end).encode())
    return folder / "some.dat"


def test_values_are_hundredths_and_missing_stays_missing(tmp_path: Path) -> None:
    path = written(tmp_path, [line(2000, [-9999, 1164, *range(100, 1100, 100)])], [inventory_line()])
    table = ghcnm.load(path)
    assert np.isnan(table["temperature"][0, 0])
    np.testing.assert_allclose(table["temperature"][0, 1:4], [11.64, 1.0, 2.0])
    assert table["temperature"].attrs["units"] == "degC"
    assert (float(table["latitude"][0]), float(table["elevation"][0])) == (32.7294, 426.7)
    assert str(table["time"].values[11])[:10] == "2000-12-01"
    assert table["name"].values[0] == "ALBANY"


def test_flagged_values_are_left_out_unless_wanted(tmp_path: Path) -> None:
    text = line(2000, [500] * 12)
    text = text[: 19 + 6] + "S" + text[19 + 7 :]  # the quality flag of January
    path = written(tmp_path, [text], [inventory_line()])
    assert np.isnan(ghcnm.load(path)["temperature"][0, 0])
    kept = ghcnm.load(path, drop_flagged=False)
    assert float(kept["temperature"][0, 0]) == 5.0
    assert kept["quality_flag"].values[0, :2].tolist() == ["S", ""]


def test_years_between_and_trailing_blanks(tmp_path: Path) -> None:
    short = line(2002, [100] * 12, flags="   ").rstrip()
    path = written(tmp_path, [line(2000, [100] * 12), short], [inventory_line()], end="\n")
    values = ghcnm.load(path)["temperature"].values[0]
    assert len(values) == 36
    assert np.isnan(values[12:24]).all()
    assert not np.isnan(values[24:]).any()


@pytest.mark.parametrize(
    ("lines", "stations", "message"),
    [
        ([line(2000, [1] * 12), line(2001, [1] * 11)], [inventory_line()], r"line 2 must have 115 characters.*got 107"),
        ([line(2000, [1] * 12) + "x"], [inventory_line()], "line 1 must have 115 characters.*got 116"),
        ([line(2000, [1] * 12).replace("    1", "  a b")], [inventory_line()], "line 1 must hold a year and twelve"),
        ([line(2000, [1] * 12)] * 2, [inventory_line()], "line 2 must name a station and year that no line before"),
        ([line(2000, [1] * 12, station="00000000001")], [inventory_line()], "must hold every station.*00000000001"),
        ([line(2000, [1] * 12, element="TMIN")], [inventory_line()], "must hold lines of the element TAVG, got none"),
        ([line(2000, [1] * 12)], [inventory_line()] * 2, "line 2 must name a station that no line before it names"),
        ([line(2000, [1] * 12)], [inventory_line(latitude=-99.0)], "must hold a place on the globe"),
        ([line(2000, [1] * 12)], [inventory_line()[:20]], "line 1 must hold latitude, longitude and elevation"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, lines: list[str], stations: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ghcnm.load(written(tmp_path, lines, stations))


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.inv"):
        ghcnm.load(tmp_path / "none.dat", tmp_path / "none.inv")


def test_unknown_elevation_is_nan(tmp_path: Path) -> None:
    path = written(tmp_path, [line(2000, [1] * 12)], [inventory_line(elevation=-999.0)])
    assert np.isnan(ghcnm.load(path)["elevation"].values[0])


def test_anomalies_have_no_mean_and_need_enough_years() -> None:
    months = xr.date_range("2000-01-01", periods=48, freq="MS")
    values = np.random.default_rng(0).normal(size=(2, 48)) + np.tile(np.arange(12.0), 4)
    values[1, 12::12] = np.nan  # one January left
    table = xr.DataArray(values, {"time": months}, ("station", "time"), attrs={"units": "degC"})
    result = ghcnm.anomalies(table, least=2)
    assert result.dims == table.dims
    np.testing.assert_allclose(result.values[0].reshape(4, 12).mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(result.values[0] - values[0] + values[0].reshape(4, 12).mean(0)[np.arange(48) % 12], 0,
                               atol=1e-12)  # fmt: skip
    assert np.isnan(result.values[1, ::12]).all()


def test_texas(shared_data: Path) -> None:
    path = shared_data / "climate" / "ghcnm_texas.dat"
    if not path.is_file():
        pytest.skip(f"no file {path}")
    table = ghcnm.load(path)
    assert dict(table.sizes) == {"station": 100, "time": 126 * 12}
    # Counted in the text: 86268 values, 7274 missing, and those flagged M or X.
    everything = ghcnm.load(path, drop_flagged=False)["temperature"]
    assert int(everything.notnull().sum()) == 86268 - path.read_text().count("-9999")
    assert int(table["temperature"].notnull().sum()) == 78994
    assert -25 < float(table["temperature"].min()) < float(table["temperature"].max()) < 45


def test_stations_of_too_few_years_for_anomalies_are_refused_by_name(tmp_path: Path) -> None:
    path = written(tmp_path, [line(2000 + year, [100] * 12) for year in range(9)], [inventory_line()])
    with pytest.raises(
        ValueError, match=r"some\.dat must hold a station with 10 years .*, got 1 stations of fewer years"
    ):
        ghcnm.load_fields(path)
    assert len(ghcnm.load_fields(path, least=9)) == 9 * 12
