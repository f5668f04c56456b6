"""Tables of observations: columns by their usual names, times with or without zone, texts kept as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ccnn_irregular._checks import reject, require
from ccnn_irregular._files import parsing
from ccnn_irregular._optional import import_optional
from ccnn_irregular.datasets.tables.codes import CODES, is_code, require_declared
from ccnn_irregular.datasets.tables.columns import require_decimal, way_out
from ccnn_irregular.datasets.tables.files import delimiter

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Observations", "StationColumns", "Table", "read_table", "usual_role"]

# The usual names, in lower case without blanks and underscores, the likeliest first.
_NAMES: dict[str, tuple[str, ...]] = {
    "latitude": ("latitude", "lat", "latdeg", "decimallatitude", "stationlatitude", "navlat", "ylat"),
    "longitude": (
        "longitude",
        "lon",
        "long",
        "lng",
        "londeg",
        "decimallongitude",
        "stationlongitude",
        "navlon",
        "xlon",
    ),
    "x": ("x", "easting", "eastings", "xcoord", "utmx", "xm", "xkm", "projectionxcoordinate"),
    "y": ("y", "northing", "northings", "ycoord", "utmy", "ym", "ykm", "projectionycoordinate"),
    "time": ("time", "datetime", "date", "timestamp", "dateutc", "timeutc", "validtime", "obstime", "juld"),
    "level": ("level", "depth", "pressure", "pres", "height", "altitude", "lev", "plev", "z", "depthm"),
    "station": (
        *("station", "stationid", "stationname", "site", "siteid", "id", "stn", "wmo", "platform", "platformnumber"),
        *(
            "float",
            "floatid",
            "buoy",
            "trajectory",
            "track",
            "trackid",
            "ship",
            "cruise",
            "profile",
            "profileid",
            "name",
        ),
    ),
}
# Columns of numbers that are no measurements, whatever stands in them.
_NO_VALUES = (
    "elevation",
    "elev",
    "alt",
    "year",
    "month",
    "day",
    "hour",
    "minute",
    "cycle",
    "index",
    "unnamed:0",
    "row",
)
_NO_VALUE_ENDS = ("flag", "flags", "qc", "quality", "id", "code")
_MISSING = frozenset(("", "na", "n/a", "nan", "null", "none", "-", "--", ".", "?"))
_PARQUET, _NETCDF = (".parquet", ".pq"), (".nc", ".nc4", ".cdf", ".zarr")
_SHOWN = 3
# At the end of a date with a time of day.
_ZONE = r"(?:[Zz]|[T ]\d{2}(?::?\d{2}){0,2}(?:[.,]\d+)?\s*[+-]\d{2}(?::?\d{2})?)$"


@dataclass(frozen=True)
class StationColumns:
    """Columns of a table of observations by their names; None = the usual names are looked for.

    Attributes:
        latitude: degrees north.
        longitude: degrees east, -180 to 180 or 0 to 360.
        x: on a plane, in place of the longitude.
        y: on a plane, in place of the latitude.
        time: dates with or without zone (UTC), or numbers whose unit ``time_unit`` says.
        time_unit: of times that are numbers: "days", or "days since 1950-01-01" as CF conventions have it.
        level: depth, height or pressure; "none" = the table's is left out.
        station: id of the station, float or track; "none" = rows at one place are one station.
        missing: what stands for a missing value beside empty entries: numbers such as -9999, texts such as "n/m"; ()
            = nothing does. None = nothing does, and a column that holds such a number apart from all others is refused.
        time_format: of dates that are not ISO 8601, as ``datetime.strptime`` writes it: ``%d.%m.%Y %H:%M``.
        decimal: sign of the fractions in CSV files, ``.`` or ``,``.
    """

    latitude: str | None = None
    longitude: str | None = None
    x: str | None = None
    y: str | None = None
    time: str | None = None
    time_unit: str | None = None
    level: str | None = None
    station: str | None = None
    missing: tuple[str | float, ...] | None = None
    time_format: str | None = None
    decimal: str = "."

    def __post_init__(self) -> None:
        require_decimal(self.decimal)
        if self.missing is not None:
            object.__setattr__(self, "missing", tuple(self.missing))  # a list of the command line

    @property
    def missing_codes(self) -> list[float]:
        """The numbers among what is missing."""
        return [one for one in map(_number, self.missing or ()) if one is not None]

    @property
    def missing_texts(self) -> list[str]:
        """The texts among what is missing, as they are compared."""
        return [str(one).strip().lower() for one in self.missing or () if _number(one) is None]


@dataclass(frozen=True)
class Table:
    """A table as it was read.

    Attributes:
        frame: texts of CSV files are kept as they are.
        units: of columns, where the file says any.
        roles: column of each role, where the file says it.
        measured: columns that are measured, where the file says it.
    """

    frame: pd.DataFrame
    units: dict[str, str] = field(default_factory=dict)
    roles: dict[str, str] = field(default_factory=dict)
    measured: tuple[str, ...] = ()


@dataclass(frozen=True)
class Observations:
    """The rows of a table, in its order.

    Attributes:
        path: where they are from.
        frame: the table as it was read; texts of a CSV file are kept as they are.
        columns: name of the column of each role that there is ("latitude", "time", ...).
        units: of columns, where the file says any.
        told_measured: columns that the file says are measured.
        given: names of columns as asked for.
    """

    path: str
    frame: pd.DataFrame
    columns: dict[str, str]
    units: dict[str, str]
    told_measured: tuple[str, ...]
    given: StationColumns

    @staticmethod
    def of(path: str, table: Table, given: StationColumns) -> Observations:
        """Find the columns: as asked for, as the file says, or by the usual names.

        Raises:
            ValueError: a column that is not there (with those that are), or no horizontal coordinates.
        """
        frame = table.frame
        require(len(frame) > 0, path, "hold at least one row", "none")
        repeated = sorted(frame.columns[frame.columns.duplicated()].map(str).unique())
        require(not repeated, f"the columns of {path}", "have names of their own", f"several named {repeated[:_SHOWN]}")
        columns: dict[str, str] = {}
        for role in _NAMES:
            if (found := _column(path, table, role, getattr(given, role), set(columns.values()))) is not None:
                columns[role] = found
        sphere, plane = ({"latitude", "longitude"}, {"x", "y"})
        if sphere <= columns.keys() and given.x is None:
            columns = {role: name for role, name in columns.items() if role not in plane}
        elif plane <= columns.keys():
            columns = {role: name for role, name in columns.items() if role not in sphere}
        else:
            reject(
                f"the columns of {path}",
                "hold latitudes and longitudes, or x and y (--data.columns.latitude NAME, --data.columns.x NAME, ...)",
                f"{', '.join(map(str, frame.columns))}",
            )
        return Observations(path, frame, columns, table.units, table.measured, given)

    @property
    def horizontal(self) -> tuple[str, str]:
        """The roles of the horizontal coordinates, latitude or y first."""
        return ("latitude", "longitude") if "latitude" in self.columns else ("y", "x")

    def numbers(self, name: str) -> NDArray[np.float64]:
        """A column as float64, nan where missing.

        Raises:
            ValueError: something else than numbers, with the first of them.
        """
        found, bad = _numbers(self.frame[name], self.given)
        if len(bad):
            row = int(bad[0])
            word = self.frame[name].iloc[row]
            rule = f"hold numbers (empty, NA and nan are missing; --{way_out(word, self.given.decimal)})"
            reject(f"column {name!r} of {self.path}", rule, f"{word!r} in row {row + 1}")
        for code in self.given.missing_codes:
            found[is_code(code, found)] = np.nan
        return found

    def position(self, role: str) -> NDArray[np.float64]:
        """A coordinate, nan where missing; longitudes from -180 to below 180.

        Raises:
            ValueError: latitudes beyond the poles, longitudes beyond 360, and so a column that is another one.
        """
        numbers = self.numbers(self.columns[role])
        limits = {"latitude": (-90, 90), "longitude": (-180, 360)}.get(role)
        if limits is None:
            self._require_no_codes(self.columns[role], numbers)
            return numbers
        outside = (numbers < limits[0]) | (numbers > limits[1])
        if outside.any():
            row = int(outside.argmax())
            what = f"column {self.columns[role]!r} of {self.path}, the {role},"
            mark = any(is_code(code, numbers[row : row + 1]) for code in CODES)
            how = f" (--data.columns.missing {numbers[row]:.7g} where it means missing)" if mark else ""
            reject(what, f"lie in [{limits[0]}, {limits[1]}] degrees{how}", f"{numbers[row]} in row {row + 1}")
        if role == "longitude":
            turned = numbers >= 180
            numbers = np.where(turned, numbers - 360, numbers)
        return numbers

    def times(self) -> tuple[NDArray[Any], str]:
        """Times as ``datetime64[us]`` in UTC, or as float64 with their unit; NaT and nan where missing.

        Returns:
            the times, and the unit: "UTC" for dates.

        Raises:
            ValueError: texts that are no dates, some with and some without zone, numbers without a unit.
        """
        pd = import_optional("pandas", "a table of stations", "files")
        name = self.columns["time"]
        column, what = self.frame[name], f"column {name!r} of {self.path}, the time,"
        if not pd.api.types.is_datetime64_any_dtype(column) and not _is_object_of_dates(column):
            numbers, bad = _numbers(column, self.given)
            if not len(bad) and self.given.time_format is None:
                return _counted(what, numbers, self.given.time_unit or self.units.get(name))
            column = _dates(pd, what, column, self.given)
        if getattr(column.dtype, "tz", None) is not None:
            column = column.dt.tz_convert("UTC").dt.tz_localize(None)
        return column.to_numpy().astype("datetime64[us]"), "UTC"

    def stations(self) -> NDArray[np.str_] | None:
        """The id of the station of each row, or None where the table has none.

        Raises:
            ValueError: a row without one.
        """
        if "station" not in self.columns:
            return None
        name = self.columns["station"]
        column = self.frame[name]
        lacking = column.isna().to_numpy() | (column.astype(str).str.strip() == "").to_numpy()
        rule = "name a station in every row (--data.columns.station none takes rows at one place as one station)"
        if lacking.any():
            reject(f"column {name!r} of {self.path}", rule, f"none in row {int(lacking.argmax()) + 1}")
        return column.astype(str).str.strip().to_numpy().astype(np.str_)

    def measured(self, asked: Sequence[str] = ()) -> tuple[str, ...]:
        """The columns that are measured: as asked for, or all others that hold numbers.

        Raises:
            ValueError: one that is not there, or none.
        """
        named = tuple(map(str, self.frame.columns))
        if asked:
            lacking = [name for name in asked if name not in named]
            require(not lacking, f"the columns of {self.path}", f"hold {', '.join(asked)}", ", ".join(named))
            return tuple(asked)
        if self.told_measured:
            return self.told_measured
        taken = set(self.columns.values())
        found = tuple(
            name for name in named if name not in taken and not _is_no_value(name) and self._holds_numbers(name)
        )
        rule = "hold one with numbers that are measured (--data.variables NAME names it)"
        require(len(found) > 0, f"the columns of {self.path}", rule + self._commas(), ", ".join(named))
        return found

    def _commas(self) -> str:
        """What to type where a column that is not read holds decimal commas; "" where none does."""
        firsts = (self.frame[name].iloc[0] for name in self.frame.columns)
        return next(
            (f"; --{way}" for way in (way_out(one, self.given.decimal) for one in firsts) if "decimal" in way), ""
        )

    def _holds_numbers(self, name: str) -> bool:
        numbers, bad = _numbers(self.frame[name], self.given)
        return not len(bad) and bool(np.isfinite(numbers).any())

    def values(self, names: Sequence[str]) -> NDArray[np.float64]:
        """Measured columns ``(N, C)``, nan where missing.

        Raises:
            ValueError: a number that archives write for missing values, apart from all others; see ``missing``.
        """
        found = np.stack([self.numbers(name) for name in names], 1)
        found[~np.isfinite(found)] = np.nan
        for name, column in zip(names, found.T, strict=True):
            self._require_no_codes(name, column)
        return found

    def _require_no_codes(self, name: str, numbers: NDArray[np.float64]) -> None:
        """Refuse a number that archives write for missing values, where it lies beyond all others."""
        require_declared(f"column {name!r} of {self.path}", numbers, self.given.missing)

    def told(self, values: Sequence[str], leave_out: Sequence[str] = ()) -> str:
        """The columns in a line, with the options that name others."""
        roles = [f"{role} = {name}" for role, name in self.columns.items() if role not in leave_out]
        others = set(map(str, self.frame.columns)) - set(values)
        others -= {name for role, name in self.columns.items() if role not in leave_out}
        unused = f"; not used: {', '.join(sorted(others))}" if others else ""
        return (
            f"columns: {', '.join(roles)} (--data.columns.{next(iter(self.columns))} NAME, ...); "
            f"variables: {', '.join(values)} (--data.variables){unused}"
        )


def read_table(path: str | Path) -> Table:
    """A table from CSV (also .gz; separated by commas, semicolons, tabs or bars), Parquet, or netCDF of CF's samplings.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that cannot be read as what its name says.
    """
    pd = import_optional("pandas", "a table of stations", "files")
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"data.table must be a CSV, Parquet or netCDF file, got no file {path}")
    suffix = path.suffixes[-1].lower() if path.suffixes else ""
    if suffix in _NETCDF:
        return _of_netcdf(path)
    with parsing(path, "table with a line of column names"):
        if suffix in _PARQUET:
            import_optional("pyarrow", "a Parquet file", "formats")
            frame = pd.read_parquet(path)
            return Table(frame if isinstance(frame.index, pd.RangeIndex) else frame.reset_index())
        texts = {"dtype": str, "keep_default_na": False, "encoding": "utf-8-sig", "skipinitialspace": True}
        return Table(pd.read_csv(path, sep=delimiter(path), index_col=False, **texts))


def _of_netcdf(path: Path) -> Table:
    """A discrete sampling geometry; CF conventions say what its variables are."""
    from ccnn_irregular.adapters.xarray_discrete import observations
    from ccnn_irregular.adapters.xarray_files import open_cube
    from ccnn_irregular.adapters.xarray_roles import cf_roles

    with open_cube(path) as dataset:
        flat = observations(dataset).load()
        own = {str(name) for name, one in dataset.data_vars.items() if one.dtype.kind in "iuf"}
        sizes = dataset.sizes
        dims = {name: dataset[name].dims for name in own & set(map(str, flat.data_vars))}
    roles: dict[str, str] = {}
    for name, role in {key: role for one in flat.data_vars.values() for key, role in cf_roles(one).items()}.items():
        roles.setdefault("level" if role == "vertical" else role, name)
    identified = {str(one.attrs.get("cf_role")): str(name) for name, one in flat.variables.items()}
    for kind in ("timeseries_id", "trajectory_id", "profile_id"):
        if kind in identified:
            roles.setdefault("station", identified[kind])
    units = {str(name): str(one.attrs["units"]) for name, one in flat.variables.items() if "units" in one.attrs}
    frame = flat.reset_coords().to_dataframe().reset_index(drop=True)
    # Heights of stations and the like are repeated, not measured: they run along the features.
    most = max(dims.values(), key=lambda along: np.prod([sizes[dim] for dim in along]), default=())
    measured = [name for name in map(str, flat.data_vars) if dims.get(name) == most and name not in roles.values()]
    measured = [name for name in measured if not _is_no_value(name)]
    return Table(frame, units, {role: name for role, name in roles.items() if role in _NAMES}, tuple(measured))


def _column(path: str, table: Table, role: str, given: str | None, taken: set[str]) -> str | None:
    """The column of a role: as asked for, or the one of the likeliest name."""
    if given == "none":
        return None
    names = list(map(str, table.frame.columns))
    if given is not None:
        require(
            given in names, f"data.columns.{role}", f"be among the columns of {path}: {', '.join(names)}", repr(given)
        )
        return given
    if role in table.roles:
        return table.roles[role]
    plain = {_plain(name): name for name in reversed(names) if name not in taken}
    return next((plain[name] for name in _NAMES[role] if name in plain), None)


def usual_role(name: str) -> str | None:
    """The role of a column or coordinate by its name: "latitude", "longitude", "x", "y", "time", "level", "station"."""
    return next((role for role, names in _NAMES.items() if _plain(name) in names), None)


def _number(entry: str | float) -> float | None:
    try:
        return float(entry)
    except ValueError:
        return None


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter not in " _-()[]")


def _is_no_value(name: str) -> bool:
    plain = _plain(name)
    return plain in _NO_VALUES or plain.endswith(_NO_VALUE_ENDS)


def _numbers(column: pd.Series, given: StationColumns) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """A column as numbers, and the rows of what is none."""
    pd = import_optional("pandas", "a table of stations", "files")
    if pd.api.types.is_bool_dtype(column) or pd.api.types.is_datetime64_any_dtype(column):
        return np.full(len(column), np.nan), np.arange(len(column))
    if pd.api.types.is_numeric_dtype(column):
        return column.to_numpy(np.float64, na_value=np.nan).copy(), np.array([], np.int64)
    written = column
    if given.decimal == ",":  # a point may separate thousands, so it makes no number
        written = column.where(~column.astype(str).str.contains(".", regex=False)).str.replace(",", ".", regex=False)
    found = pd.to_numeric(written, errors="coerce").to_numpy(np.float64, na_value=np.nan).copy()
    rows = np.flatnonzero(np.isnan(found))
    texts = column.iloc[rows]
    missing = texts.isna() | texts.astype(str).str.strip().str.lower().isin([*_MISSING, *given.missing_texts])
    return found, rows[~missing.to_numpy()]


def _is_object_of_dates(column: pd.Series) -> bool:
    import datetime

    if column.dtype != object:
        return False
    known = column.dropna()
    return len(known) > 0 and isinstance(known.iloc[0], datetime.date)


def _dates(pd: Any, what: str, column: pd.Series, given: StationColumns) -> pd.Series:
    """Texts as dates of UTC; without a zone they are taken as UTC."""
    texts = column.astype(str).str.strip()
    texts = texts.mask(texts.str.lower().isin([*_MISSING, *given.missing_texts]) | column.isna())
    texts = texts.str.replace(r"\s*(?:UTC|GMT)$", "Z", regex=True)
    zoned = texts.dropna().str.contains(_ZONE, regex=True)
    if zoned.any() and not zoned.all():
        reject(what, "have a zone in all rows or in none", f"{texts.dropna()[~zoned].iloc[0]!r} beside others with one")
    found = pd.to_datetime(texts, format=given.time_format or "ISO8601", utc=True, errors="coerce")
    bad = np.flatnonzero((found.isna() & texts.notna()).to_numpy())
    if len(bad):
        rule = (
            "hold dates as 2024-01-31 or 2024-01-31T18:00Z, or numbers (with --data.columns.time_unit); "
            "--data.columns.time_format '%d.%m.%Y %H:%M' reads others"
        )
        reject(what, rule, f"{column.iloc[int(bad[0])]!r} in row {int(bad[0]) + 1}")
    return found


def _counted(what: str, numbers: NDArray[np.float64], unit: str | None) -> tuple[NDArray[Any], str]:
    """Times that are numbers: in their unit, or as dates where that names a date."""
    if unit is None:
        shown = ", ".join(f"{number:.12g}" for number in numbers[:_SHOWN])
        rule = "hold dates, or numbers whose unit is given: --data.columns.time_unit hours, or 'days since 1950-01-01'"
        reject(what, rule, f"the numbers {shown}, ...")
    if " since " not in unit:
        return numbers, unit
    import xarray as xr

    from ccnn_irregular.adapters.xarray_axes import coordinate_numbers

    days = coordinate_numbers(xr.DataArray(numbers, dims="row", name="time", attrs={"units": unit}), "time", "days")[0]
    micro = np.round(np.where(np.isfinite(days), days, 0) * 86400e6).astype("timedelta64[us]")
    dates = np.datetime64("1970-01-01", "us") + micro
    dates[~np.isfinite(days)] = np.datetime64("NaT")
    return dates, "UTC"
