"""Where ``ccnn predict`` answers: at the rows of a table, at the nodes of a file's grid or of one of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ccnn_irregular._checks import reject, require
from ccnn_irregular.datasets.observations import Observations, read_table
from ccnn_irregular.datasets.stations import StationSet, placed
from ccnn_irregular.pipelines.train.reports import whole

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["AtGrid", "AtTable", "WantedPlaces"]

Array = NDArray[np.float64]

_DEVIATION = "_std"
_ESTIMATE = "_estimate"
_PARQUET = (".parquet", ".pq")
_MOST_NODES = 200_000_000
# CF standard names, units and the direction of axes that are made here.
_ABOUT = {
    "latitude": {"standard_name": "latitude", "units": "degrees_north", "axis": "Y"},
    "longitude": {"standard_name": "longitude", "units": "degrees_east", "axis": "X"},
    "y": {"standard_name": "projection_y_coordinate", "axis": "Y"},
    "x": {"standard_name": "projection_x_coordinate", "axis": "X"},
    "level": {"axis": "Z"},
    "time": {"standard_name": "time", "axis": "T"},
}


@dataclass
class WantedPlaces:
    """Where values are wanted of a table's observations; nothing = at the table's own rows.

    Attributes:
        like: a netCDF file or zarr store whose grid they are wanted on.
        grid: steps of a grid, one for each axis (latitude, longitude, level, time), or one number for the plane.
        bounds: lowest and highest coordinate of each axis of that grid in turn; () = those of the observations.
        table: a table at whose rows they are wanted: CSV, CSV.gz or Parquet.
        times: times at which grids are wanted; () = those of the grid, or of the observations.
        smoothed: of a cube, and of what else is answered at its own places: estimates at measured places too, in place
            of the values measured there.
    """

    like: str | None = None
    grid: Sequence[float] = ()
    bounds: Sequence[float] = ()
    table: str | None = None
    times: Sequence[str] = ()
    smoothed: bool = False

    def __post_init__(self) -> None:
        named = [name for name in ("like", "grid", "table") if getattr(self, name)]
        require(len(named) <= 1, "predict", "name one of --predict.like, .grid and .table", ", ".join(named))
        require(not self.bounds or bool(self.grid), "predict.bounds", "be left out without --predict.grid", self.bounds)
        needs_grid = not self.times or bool(self.grid or self.like)
        require(needs_grid, "predict.times", "be left out without --predict.grid or .like", list(self.times))

    @property
    def any(self) -> bool:
        """Whether one is named."""
        return bool(self.like or self.grid or self.table)

    def suffix(self, table: Path) -> str:
        """The end of the name of what is written: netCDF for a grid, for a table Parquet if it is one, else CSV."""
        if self.like or self.grid:
            return ".nc"
        return table.suffix if table.suffix.lower() in _PARQUET else ".csv"

    def of(self, fields: StationSet) -> AtGrid | AtTable:
        """The places, for the coordinates of some fields.

        Raises:
            ValueError, FileNotFoundError: files without the coordinates of the fields, and so on.
        """
        if self.like:
            return _like(Path(self.like), fields, self.times)
        if self.grid:
            return _steps(self.grid, self.bounds, fields, self.times)
        return AtTable.of(fields, self.table)


@dataclass(frozen=True)
class AtTable:
    """Rows of a table.

    Attributes:
        observations: of the table.
        places: float64 ``(M, d)``, nan where the table has none.
        field: int64 ``(M,)``, the field of each row, -1 where there is none of its time.
        own: whether it is the table of the observations.
    """

    observations: Observations
    places: Tensor
    field: Tensor
    own: bool

    @staticmethod
    def of(fields: StationSet, path: str | None) -> AtTable:
        """The rows of a table, or of that of the observations."""
        observed = fields.observations
        observations = observed
        if path is not None:
            table = read_table(path)
            names = set(map(str, table.frame.columns))
            same: dict[str, Any] = {role: name for role, name in observed.columns.items() if name in names}
            none: dict[str, Any] = {role: "none" for role in ("level", "station") if role not in observed.columns}
            # Names that this table does not have are looked for by their usual ones.
            usual: dict[str, Any] = {role: None for role in observed.columns if role not in same}
            observations = Observations.of(path, table, replace(observed.given, **usual, **same, **none))
        coordinates, stamps = placed(observations, fields.axes)
        places = torch.from_numpy(coordinates)
        field = _field_of(fields, stamps, len(places), observations.path)
        field[~torch.isfinite(places).all(1)] = -1
        return AtTable(observations, places, field, path is None)

    def write(self, path: Path, fields: StationSet, values: Array, deviations: Array, source: str) -> str:
        """Write the table with two columns more for each variable: CSV, or Parquet where ``path`` ends so."""
        frame = self.observations.frame.copy()
        for channel, name in enumerate(fields.channels):
            for column, found in ((f"{name}{_ESTIMATE}", values), (f"{name}{_DEVIATION}", deviations)):
                rule = f"have no column {column!r}, which is that of the answer (rename it)"
                require(column not in frame.columns, self.observations.path, rule, "one")
                frame[column] = found[:, channel]
        with whole(path) as temporary:
            if path.suffix.lower() in _PARQUET:
                frame.attrs["source"] = source
                frame.to_parquet(temporary, index=False)
            else:
                # As the table was written: fractions with a comma need another sign between the columns.
                signs = {"decimal": ",", "sep": ";"} if self.observations.given.decimal == "," else {}
                frame.to_csv(temporary, index=False, compression="gzip" if path.suffix == ".gz" else None, **signs)
        lacking = int(np.isnan(values).any(1).sum())
        note = f", {lacking} of them without a place, or at times without observations: empty" if lacking else ""
        return f"{len(frame)} rows{note}"


@dataclass(frozen=True)
class AtGrid:
    """Nodes of a grid, at the times of fields where those are no axis.

    Attributes:
        coordinates: of the result, by their names.
        shape: of the result.
        dims: names of its dimensions.
        places: float64 ``(M, d)``, of all nodes at all times.
        field: int64 ``(M,)``, -1 where nothing is observed at that time.
        attributes: of the result's Dataset.
    """

    coordinates: dict[str, xr.DataArray]
    shape: tuple[int, ...]
    dims: tuple[str, ...]
    places: Tensor
    field: Tensor
    attributes: dict[str, Any]

    def write(self, path: Path, fields: StationSet, values: Array, deviations: Array, source: str) -> str:
        """Write a netCDF file."""
        import xarray as xr

        found = {}
        for channel, (name, unit) in enumerate(zip(fields.channels, fields.channel_units, strict=True)):
            about = {"units": unit} if unit else {}
            estimate, deviation = (column[:, channel].reshape(self.shape) for column in (values, deviations))
            found[name] = xr.DataArray(estimate, dims=self.dims, attrs=about | {"long_name": f"estimate of {name}"})
            told = {"long_name": f"standard deviation of the estimate of {name}"}
            found[f"{name}{_DEVIATION}"] = xr.DataArray(deviation, dims=self.dims, attrs=about | told)
            found[name].attrs["ancillary_variables"] = f"{name}{_DEVIATION}"
        dataset = xr.Dataset(found, self.coordinates, self.attributes | {"source": source})
        with whole(path) as temporary:
            dataset.to_netcdf(temporary, engine="h5netcdf")
        sizes = " x ".join(f"{size} {dim}" for dim, size in zip(self.dims, self.shape, strict=True))
        return f"{int(np.isfinite(values).all(1).sum())} of {len(values)} values ({sizes})"


def _field_of(fields: StationSet, stamps: NDArray[Any] | None, count: int, where: str) -> Tensor:
    """The field of each time, -1 where there is none."""
    if fields.stamps is None:
        return torch.zeros(count, dtype=torch.int64)
    if stamps is None:
        reject(where, "hold times, for the observations are a field for each time", "no column or axis of time")
    kinds = fields.stamps.dtype.kind, stamps.dtype.kind
    require(kinds[0] == kinds[1], f"the times of {where}", "be as those of the observations (dates, or numbers)", kinds)
    found = np.searchsorted(fields.stamps, stamps).clip(max=len(fields.stamps) - 1)
    return torch.from_numpy(np.where(fields.stamps[found] == stamps, found, -1))


def _like(path: Path, fields: StationSet, times: Sequence[str]) -> AtGrid:
    """The grid of a file: lines of coordinates, or latitudes and longitudes on two dimensions."""

    from ccnn_irregular.adapters.xarray import open_cube
    from ccnn_irregular.adapters.xarray_roles import cf_roles

    with open_cube(path) as opened:
        dataset = opened.load()
    roles: dict[str, str] = {}
    for name, role in _roles(dataset, cf_roles).items():
        if role in (*fields.axes, "time"):
            roles.setdefault(role, name)
    lacking = [axis for axis in fields.axes if axis not in roles and not (axis == "time" and times)]
    held = ", ".join(map(str, dataset.variables))
    require(
        not lacking, f"the grid of {path}", f"have the coordinates {', '.join(fields.axes)}", f"the variables {held}"
    )
    wanted = [axis for axis in ("time", *fields.axes) if axis in roles or axis == "time"]
    coordinates = {roles[axis]: dataset[roles[axis]] for axis in dict.fromkeys(wanted) if axis in roles}
    if times or "time" not in roles:
        coordinates.pop(roles.get("time", ""), None)
        coordinates = _of_times(fields, times) | coordinates
        if "time" in coordinates:
            roles["time"] = "time"
        else:
            roles.pop("time", None)
    return _nodes(fields, coordinates, roles, dict(dataset.attrs), str(path))


def _roles(dataset: xr.Dataset, cf_roles: Any) -> dict[str, str]:
    """What coordinates are, by CF conventions, else by their usual names."""
    from ccnn_irregular.datasets.observations import usual_role

    found: dict[str, str] = {}
    cf = {"vertical": "level"}
    for array in dataset.data_vars.values():
        found |= {name: cf.get(role, role) for name, role in cf_roles(array).items()}
    for name in map(str, dataset.variables):
        known = usual_role(name)
        if name not in found and known is not None and name in dataset.coords:
            found[name] = known
    return found


def _of_times(fields: StationSet, times: Sequence[str]) -> dict[str, xr.DataArray]:
    """The times of a grid: as asked for, or of all fields; none where there is no time at all."""
    import xarray as xr

    if times:
        stamps = _asked_times(times, dates=_counts_dates(fields))
    elif "time" in fields.axes:
        reject("predict.times", "be given where the grid has no time (--predict.times 2024-01-31 ...)", "none")
    elif fields.stamps is None:
        return {}
    else:
        stamps = fields.stamps
    return {"time": xr.DataArray(stamps, dims="time", attrs=dict(_ABOUT["time"]))}


def _counts_dates(fields: StationSet) -> bool:
    if fields.stamps is not None:
        return fields.stamps.dtype.kind == "M"
    return "time" in fields.axes and fields.axis_units[fields.axes.index("time")].startswith("days since")


def _asked_times(times: Sequence[str], *, dates: bool) -> NDArray[Any]:
    """Times as typed: dates of UTC, or numbers where the table has those."""
    try:
        texts = [str(time).removesuffix("Z") for time in times]
        return np.array(texts, "datetime64[us]") if dates else np.array(texts, np.float64)
    except ValueError as error:
        kind = "dates such as 2024-01-31T18:00" if dates else "numbers, as the table's times are"
        raise ValueError(f"predict.times must be {kind}, got {error}") from error


def _nodes(
    fields: StationSet,
    coordinates: dict[str, xr.DataArray],
    roles: dict[str, str],
    attributes: dict[str, Any],
    where: str,
) -> AtGrid:
    """All combinations of some coordinates."""
    import xarray as xr

    lines = [array if array.ndim else array.expand_dims(str(array.name or "time")) for array in coordinates.values()]
    together = xr.broadcast(*[line.reset_coords(drop=True) for line in lines])
    dims, shape = tuple(map(str, together[0].dims)), together[0].shape
    count = int(np.prod(shape))
    require(count <= _MOST_NODES, where, f"have at most {_MOST_NODES:,} nodes at all times", f"{count:,}")
    flat = dict(zip(coordinates, (array.transpose(*dims).to_numpy().reshape(-1) for array in together), strict=True))
    stamps = _stamps(flat[roles["time"]], coordinates[roles["time"]]) if "time" in roles else None
    columns = [_days(stamps) if axis == "time" else flat[roles[axis]].astype(np.float64) for axis in fields.axes]
    places = torch.from_numpy(np.stack(columns, 1))
    field = _field_of(fields, None if "time" in fields.axes else stamps, count, where)
    field[~torch.isfinite(places).all(1)] = -1
    if bool((field < 0).all()):
        shown = ", ".join(fields.names[:3])
        reject(f"the times of {where}", f"be among those of the observations: {shown}, ... (--predict.times)", "none")
    kept = {
        name: array.drop_vars([other for other in array.coords if other not in coordinates])
        for name, array in coordinates.items()
    }
    return AtGrid(kept, shape, dims, places, field, attributes)


def _stamps(times: NDArray[Any], coordinate: xr.DataArray) -> NDArray[Any]:
    """Times of a grid as those of tables are: dates, or numbers as they are."""
    import xarray as xr

    from ccnn_irregular.adapters.xarray_times import kind_of_times, time_numbers

    if times.dtype.kind == "M":
        return times.astype("datetime64[us]")
    if kind_of_times(coordinate).what != "dates":
        return times.astype(np.float64)
    found = time_numbers(xr.DataArray(times, dims="row", name="time", attrs=coordinate.attrs), "days")
    assert found is not None
    return np.datetime64("1970-01-01", "us") + np.round(found[0] * 86400e6).astype("timedelta64[us]")


def _days(stamps: NDArray[Any] | None) -> Array:
    assert stamps is not None
    if stamps.dtype.kind != "M":
        return stamps
    return (stamps - np.datetime64("1970-01-01", "us")) / np.timedelta64(1, "D").astype("timedelta64[us]")


def _steps(steps: Sequence[float], bounds: Sequence[float], fields: StationSet, times: Sequence[str]) -> AtGrid:
    """A uniform grid over the observations, or over some bounds."""
    import xarray as xr

    axes = [axis for axis in fields.axes if not (axis == "time" and times)]
    rule = f"be one number, or one for each of {', '.join(axes)}"
    plane_alone = len(steps) == 1 and len(axes) == 2
    require(plane_alone or len(steps) == len(axes), "predict.grid", rule, list(steps))
    require(min(steps) > 0, "predict.grid", "be positive", list(steps))
    require(
        len(bounds) in (0, 2 * len(axes)), "predict.bounds", f"be two numbers for each of {', '.join(axes)}", bounds
    )
    known = fields.coordinates[fields.known].numpy()
    coordinates = {}
    for place, axis in enumerate(axes):
        step = float(steps[0] if plane_alone else steps[place])
        column = known[:, fields.axes.index(axis)]
        if bounds:
            low, high = map(float, bounds[2 * place : 2 * place + 2])
            require(low <= high, f"predict.bounds of {axis}", "rise", (low, high))
        else:
            low, high = np.floor(column.min() / step) * step, np.ceil(column.max() / step) * step
        nodes: NDArray[Any] = low + step * np.arange(int(np.floor((high - low) / step + 1e-9)) + 1)
        about = dict(_ABOUT[axis])
        unit = fields.axis_units[fields.axes.index(axis)]
        if axis == "time" and unit.startswith("days since"):
            nodes = np.datetime64("1970-01-01", "us") + np.round(nodes * 86400e6).astype("timedelta64[us]")
        elif unit:
            about["units"] = unit
        coordinates[axis] = xr.DataArray(nodes, dims=axis, name=axis, attrs=about)
    if "time" not in axes:
        coordinates = _of_times(fields, times) | coordinates
    return _nodes(fields, coordinates, {name: name for name in coordinates}, {}, "predict.grid")
