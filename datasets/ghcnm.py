"""GHCN-Monthly version 3: monthly mean temperatures of stations, with flags and positions.

The format is that of the archive's own README (NOAA's National Centers for Environmental Information, Lawrimore et al.
2011, doi:10.1029/2011JD016187): a ``.dat`` file with one line a station, year and element, values in hundredths of
a degree Celsius, and an ``.inv`` file with one line a station.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ccnn_irregular._checks import reject, require
from ccnn_irregular._files import DamagedFileError
from ccnn_irregular.datasets.registry import DataSet, register
from ccnn_irregular.datasets.samples import FieldSet
from ccnn_irregular.datasets.samples.fields import Array

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["ELEMENTS", "anomalies", "load", "load_fields", "read_inventory"]

ELEMENTS = ("TAVG", "TMAX", "TMIN")

_MISSING = -9999
_HEAD = 19  # station 11, year 4, element 4
_MONTH = 8  # value 5, measurement flag, quality flag, source flag
_WIDTH = _HEAD + 12 * _MONTH
_LEAST_WIDTH = _WIDTH - 3  # blank flags at the end of a line are often cut off
_NO_ELEVATION = -999.0


def load(
    data: str | Path, inventory: str | Path | None = None, *, element: str = "TAVG", drop_flagged: bool = True
) -> xr.Dataset:
    """Temperatures and flags of all stations.

    Args:
        data: the ``.dat`` file.
        inventory: the ``.inv`` file; None = the one beside ``data`` of the same name.
        element: "TAVG", "TMAX" or "TMIN".
        drop_flagged: leave out values that failed a quality check (their flag is not blank); False keeps them, and
            ``quality_flag`` tells which they are.

    Returns:
        A Dataset with ``temperature (station, time)``, float64, degrees Celsius, nan where not measured, and
        ``quality_flag (station, time)``, one letter or "". Coordinates: ``station`` (its 11 characters), ``time`` (the
        first of each month, from the first year to the last), ``latitude``, ``longitude`` (degrees), ``elevation``
        (metres, nan where unknown), ``name``. Stations stand in the order of the inventory; those without a line
        of this element are left out.

    Raises:
        FileNotFoundError: a file that is not there.
        ValueError: a line of another width or with what is no number (with its number), a station and year given
            twice, a station that the inventory lacks, or no line of this element.
    """
    import xarray as xr

    require(element in ELEMENTS, "element", f"be one of {ELEMENTS}", repr(element))
    path = Path(data)
    stations = read_inventory(Path(inventory) if inventory is not None else path.with_suffix(".inv"))
    rows = _lines(path, element)
    unknown = sorted({station for station, _ in rows} - set(stations))
    require(not unknown, "the inventory", f"hold every station of {path}", f"none of {', '.join(unknown[:5])}")
    used = [station for station in stations if station in {row for row, _ in rows}]
    years = [year for _, year in rows]
    first, last = min(years), max(years)
    values = np.full((len(used), last - first + 1, 12), np.nan)
    flags = np.full(values.shape, "", dtype="<U1")
    place = {station: index for index, station in enumerate(used)}
    for (station, year), (numbers, quality) in rows.items():
        values[place[station], year - first] = numbers
        flags[place[station], year - first] = quality
    if drop_flagged:
        values[flags != ""] = np.nan
    months = np.arange(f"{first}-01", f"{last + 1}-01", dtype="datetime64[M]").astype("datetime64[s]")
    shape = (len(used), len(months))
    about = {
        key: [stations[station][key] for station in used] for key in ("latitude", "longitude", "elevation", "name")
    }
    return xr.Dataset(
        {
            "temperature": (
                ("station", "time"),
                values.reshape(shape),
                {"units": "degC", "long_name": f"monthly {element}", "standard_name": "air_temperature"},
            ),
            "quality_flag": (("station", "time"), flags.reshape(shape), {"long_name": "failed check, one letter"}),
        },
        {
            "station": ("station", used),
            "time": ("time", months, {"standard_name": "time"}),
            "latitude": ("station", about["latitude"], {"units": "degrees_north", "standard_name": "latitude"}),
            "longitude": ("station", about["longitude"], {"units": "degrees_east", "standard_name": "longitude"}),
            "elevation": ("station", about["elevation"], {"units": "m", "standard_name": "height_above_geoid"}),
            "name": ("station", about["name"]),
        },
    )


def load_fields(root: str | Path, *, element: str = "TAVG", drop_flagged: bool = True, least: int = 10) -> FieldSet:
    """Months of GHCN-Monthly stations, one field each: ``latitude``, ``longitude``.

    Values are temperatures; anomalies are differences from each station's own mean of that calendar month, as in
    :func:`anomalies`, taken by the ``reference`` of the set once it is known what that mean may be over. A calendar
    month with less than ``least`` years is not known.

    Args:
        root: the ``.dat`` file, its ``.inv`` beside it.
        element: see :func:`load`, as ``drop_flagged``.
        drop_flagged: see there.
        least: see :func:`anomalies`.

    Raises:
        ValueError: no calendar month of any station has so many years.
    """
    from ccnn_irregular.adapters.xarray_axes import coordinate_numbers

    # By name: which stations are kept for the test must not depend on the order of the inventory.
    dataset = load(root, element=element, drop_flagged=drop_flagged).sortby("station")
    temperature = dataset["temperature"]
    table = temperature.where(anomalies(temperature, least).notnull())
    known_months = table.notnull().sum("station").values > 0
    rule = f"hold a station with {least} years of some calendar month, to take anomalies from"
    require(bool(known_months.any()), str(root), rule, f"{dataset.sizes['station']} stations of fewer years")
    table = table.isel(time=known_months)
    stations, months = table.sizes["station"], table.sizes["time"]
    places = np.stack([dataset["latitude"].values, dataset["longitude"].values], 1)

    def restored(filled: Array) -> xr.Dataset:
        array = table.copy(data=filled.reshape(months, stations).T)
        array.attrs |= {"long_name": f"anomaly of monthly {element}", "standard_name": "air_temperature_anomaly"}
        return array.to_dataset(name="temperature_anomaly")

    return FieldSet(
        coordinates=torch.from_numpy(np.tile(places, (months, 1))),
        values=torch.from_numpy(np.ascontiguousarray(table.values.T).reshape(-1, 1)),
        splits=torch.arange(months + 1) * stations,
        units=torch.arange(stations).repeat(months),
        names=tuple(str(month)[:7] for month in table["time"].values),
        channels=("temperature anomaly",),
        channel_units=("K",),
        axes=("latitude", "longitude"),
        axis_units=("degrees_north", "degrees_east"),
        restored=restored,
        times=torch.from_numpy(coordinate_numbers(table["time"], "time", "days")[0]) / 365.2425,
        reference=(torch.from_numpy(table["time"].dt.month.values)[:, None] + 12 * torch.arange(stations)).flatten(),
    )


def read_inventory(path: str | Path) -> dict[str, dict[str, Any]]:
    """Stations by their identifier: ``latitude``, ``longitude``, ``elevation``, ``name``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line that is cut short or holds what is no place on the globe, or a station given twice.
    """
    path = Path(path)
    stations: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(_text(path).splitlines(), 1):
        if not line.strip():
            continue
        where = f"{path} line {number}"
        try:
            latitude, longitude, elevation = float(line[12:20]), float(line[21:30]), float(line[31:37])
        except ValueError as error:
            raise ValueError(f"{where} must hold latitude, longitude and elevation, got {line!r}") from error
        on_globe = -90 <= latitude <= 90 and -180 <= longitude <= 360
        require(on_globe, where, "hold a place on the globe", (latitude, longitude))
        station = line[:11]
        require(station not in stations, where, "name a station that no line before it names", station)
        stations[station] = {
            "latitude": latitude,
            "longitude": longitude,
            "elevation": np.nan if elevation <= _NO_ELEVATION else elevation,
            "name": line[38:68].strip(),
        }
    require(len(stations) > 0, str(path), "hold at least one station", "none")
    return stations


def anomalies(temperature: xr.DataArray, least: int = 10) -> xr.DataArray:
    """What differs from each station's own mean of that calendar month, over all years it has.

    Args:
        temperature: ``(station, time)``.
        least: years a station needs for the mean of a month; with fewer its anomalies are nan.
    """
    months = temperature.groupby("time.month")
    mean, count = months.mean("time"), months.count("time")
    result = months - mean.where(count >= least)
    return result.drop_vars("month").transpose(*temperature.dims).assign_attrs(temperature.attrs)


def _lines(path: Path, element: str) -> dict[tuple[str, int], tuple[NDArray[np.float64], list[str]]]:
    """Values in degrees and quality flags of twelve months, by station and year."""
    rows: dict[tuple[str, int], tuple[NDArray[np.float64], list[str]]] = {}
    for number, line in enumerate(_text(path).splitlines(), 1):
        where = f"{path} line {number}"
        rule = f"have {_WIDTH} characters (blank flags at its end may lack)"
        require(_LEAST_WIDTH <= len(line) <= _WIDTH, where, rule, f"{len(line)}: {line[:_HEAD]}...")
        if line[15:_HEAD] != element:
            continue
        months = [line.ljust(_WIDTH)[_HEAD + _MONTH * month :][:_MONTH] for month in range(12)]
        try:
            key = (line[:11], int(line[11:15]))
            hundredths = np.array([int(month[:5]) for month in months])
        except ValueError as error:
            raise ValueError(f"{where} must hold a year and twelve integers, got {line!r}") from error
        require(key not in rows, where, "name a station and year that no line before it names", key)
        rows[key] = (
            np.where(hundredths == _MISSING, np.nan, hundredths / 100),
            [month[6].strip() for month in months],
        )
    if not rows:
        reject(str(path), f"hold lines of the element {element}", "none")
    return rows


def _text(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"the station files must exist, got no file {path}")
    try:
        return path.read_text(encoding="ascii")
    except UnicodeDecodeError as error:
        raise DamagedFileError(f"{path} must be plain text, got {error}", path) from error


register(
    DataSet(
        name="ghcnm",
        about="monthly temperatures of stations, one field a month",
        load=load_fields,
        samples=FieldSet,
        shape="anomalies in K at latitudes and longitudes",
        files="path of a .dat file of GHCN-Monthly v3, with the .inv file beside it",
        size="0.8 MB for 100 stations",
        licence="public domain",
        source="https://www.ncei.noaa.gov/products/land-based-station/global-historical-climatology-network-monthly",
    )
)
