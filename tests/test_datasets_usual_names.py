"""Columns under the names of four languages, and dates that are written as numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ccnn_irregular.datasets import stations, tables
from ccnn_irregular.datasets.observations import usual_role
from ccnn_irregular.datasets.reading.usual_names import plain, usual
from ccnn_irregular.datasets.tables import Columns
from ccnn_irregular.pipelines.inspection import inspected

TIMES = (
    *("Datum", "date", "DateTime", "Tijdstip", "Zeit", "Zeitpunkt", "Zeitstempel", "Uhrzeit", "Heure", "horodatage"),
    *("timestamp_utc", "time_utc", "MESS_DATUM", "Messzeitpunkt", "Meettijd", "date_mesure", "sampling time"),
)


@pytest.mark.parametrize("name", TIMES)
def test_a_column_of_dates_is_found(tmp_path: Path, name: str) -> None:
    dates = ["2024-01-01T00:00", "2024-01-01T06:00", "2024-01-02T00:00"]
    path = tmp_path / "series.csv"
    pd.DataFrame({"id": ["a", "a", "b"], name: dates, "SpO2": [97.0, 96.0, 95.0]}).to_csv(path, index=False)
    found = tables.read(path, unit="h")
    assert f"time = {name}" in found.notes[0]
    np.testing.assert_allclose(found.series.times, [0.0, 6.0, 0.0])
    assert usual_role(name) == "time"
    assert "--data.columns.time" not in str(inspected(path).next)


@pytest.mark.parametrize(
    "names",
    [
        ("id", "time", "variable", "value"),
        ("patient_nr", "datum", "grootheid", "meetwaarde"),
        ("Patienten-ID", "Zeitpunkt", "Messgröße", "Wert"),
        ("identifiant", "horodatage", "paramètre", "valeur"),
    ],
)
def test_a_long_table_is_found_in_four_languages(names: tuple[str, ...]) -> None:
    frame = pd.DataFrame([("a", 0.0, "hr", 80.0), ("a", 1.0, "hr", 81.0)], columns=list(names))
    found = tables.from_frames(frame)
    assert found.series.variables == ("hr",)
    assert found.series.values.tolist() == [80.0, 81.0]


def test_stations_of_a_weather_service(tmp_path: Path) -> None:
    path = tmp_path / "produkt.txt"
    rows = [f"{10 + i};{2024010100 + h};50.{i};7.{i};{i + h}" for i in range(6) for h in range(3)]
    path.write_text("\n".join(["STATIONS_ID;MESS_DATUM;geoBreite;geoLaenge;TT_TU", *rows]))
    with pytest.raises(ValueError, match=r"--data\.columns\.time_format '%Y%m%d%H'"):
        stations.load(path)
    fields = stations.load(path, columns=stations.StationColumns(time_format="%Y%m%d%H"))
    assert (fields.axes, len(fields), fields.channels) == (("latitude", "longitude"), 3, ("TT_TU",))
    assert fields.stamps is not None
    assert fields.stamps[1] == np.datetime64("2024-01-01T01:00")
    assert len(np.unique(fields.units)) == 6


@pytest.mark.parametrize(
    ("numbers", "written"),
    [([20240131, 20240201], "%Y%m%d"), ([2024013100, 2024013112], "%Y%m%d%H"), ([202401310000], "%Y%m%d%H%M")],
)
@pytest.mark.parametrize("missing", [False, True])
def test_dates_as_numbers_are_asked_for_and_read(numbers: list[int], written: str, missing: bool) -> None:
    times = [*numbers, None] if missing else numbers  # pandas makes floats of them
    frame = pd.DataFrame({"id": "a", "date": times, "hr": [*range(len(numbers)), None][: len(times)]})
    with pytest.raises(ValueError, match=f"must be read as dates by --data.columns.time_format '{written}'"):
        tables.from_frames(frame)
    found = tables.from_frames(frame, columns=Columns(time_format=written), unit="h")
    hours = [0.0, 24.0] if written == "%Y%m%d" else [0.0, 12.0]
    assert found.series.times.tolist() == hours[: len(numbers)]


@pytest.mark.parametrize("numbers", [[1706659200.0, 1706662800.0], [20241301, 20240101], [0.5, 20240101.0], [7.0]])
def test_other_numbers_stay_numbers(numbers: list[float]) -> None:
    frame = pd.DataFrame({"id": "a", "time": numbers, "hr": range(len(numbers))})
    assert tables.from_frames(frame).series.times.tolist() == sorted(numbers)


def test_a_date_beside_a_time_of_day_is_asked_for() -> None:
    frame = pd.DataFrame({"id": ["a"], "Datum": ["2024-01-01"], "Uhrzeit": ["10:00"], "hr": [80.0]})
    with pytest.raises(ValueError, match=r"joined into one column first.*Datum, Uhrzeit"):
        tables.from_frames(frame)


def test_names_without_accents_case_and_marks() -> None:
    assert [plain(name) for name in ("Größe_1", "paramètre", "Unnamed: 0")] == ["grosse1", "parametre", "unnamed0"]
    assert usual("time", ["Heure", "value", "date"]) == ["date", "Heure"]
    assert usual_role("t2m") is None
