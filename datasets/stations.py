"""Tables of stations, tracks and profiles of one's own as fields: a field for each time, or time as an axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from ccnn_irregular._checks import reject, require
from ccnn_irregular.datasets.observations import Observations, StationColumns, read_table
from ccnn_irregular.datasets.registry import DataSet, register
from ccnn_irregular.datasets.samples import FieldSet
from ccnn_irregular.datasets.samples.fields import Array

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

__all__ = ["Duplicates", "StationColumns", "StationSet", "load", "placed"]

Duplicates = Literal["refuse", "mean", "first", "last"]

# Places observed at one time from which on each time is a field of its own.
_AT_ONCE = 5
_FEWEST_STATIONS = 5  # below it profiles are hidden in their place
_DAY = np.timedelta64(86_400_000_000, "us")
_YEARS = {"days": 1 / 365.2425, "hours": 1 / 8765.82, "minutes": 1 / 525949.2, "seconds": 1 / 31556952.0, "years": 1.0}
_SHOWN = 3


@dataclass(frozen=True, repr=False)
class StationSet(FieldSet):
    """Fields of a table of observations.

    Attributes:
        observations: the table.
        rows: int64 ``(N,)``, row of the table that each place is.
        stamps: ``(F,)``, times of the fields, ``datetime64[us]`` or float64; None where time is an axis or lacks.
        about: what was found, a line each for the reader.
    """

    observations: Observations = field(kw_only=True)
    rows: NDArray[np.int64] = field(kw_only=True)
    stamps: NDArray[Any] | None = field(kw_only=True)
    about: tuple[str, ...] = field(kw_only=True, default=())

    @property
    def known(self) -> torch.Tensor:
        """Where some channel is known, bool ``(N,)``: those of a station need not be measured together."""
        return ~self.values.isnan().all(1)


def load(
    root: str | Path,
    *,
    variables: Sequence[str] = (),
    axes: Sequence[str] = (),
    columns: StationColumns | None = None,
    duplicates: Duplicates = "refuse",
    anomalies: bool = False,
    least: int = 10,
) -> StationSet:
    """Observations of stations, floats or tracks: a row of the table is a place.

    Rows of one time are a field where most times have five places or more; else time is an axis, in days (or in its
    own unit), beside ``latitude`` and ``longitude`` (or ``y`` and ``x``) and ``level``.

    Args:
        root: CSV, CSV.gz, Parquet, or netCDF with a discrete sampling geometry of CF conventions (profiles, time
            series, trajectories; contiguous, indexed or incomplete arrays). A row an observation.
        variables: columns that are measured; () = all columns of numbers that are not known as something else.
        axes: of a field: latitude and longitude, or y and x, then level and time; () = by what the table holds.
        columns: names of the columns; None = the usual ones.
        duplicates: of known values of one place and time: "refuse", or the "mean", "first" or "last" of them counts.
        anomalies: values are differences from the station's own mean of that calendar month.
        least: years that such a mean needs.

    Raises:
        FileNotFoundError: no such file.
        ValueError: see ``Observations``; duplicates that no rule is chosen for; anomalies without dates.
    """
    require(duplicates in get_args(Duplicates), "duplicates", f"be one of {get_args(Duplicates)}", repr(duplicates))
    observations = Observations.of(str(root), read_table(root), columns or StationColumns())
    return _fields(observations, tuple(variables), tuple(axes), duplicates, least if anomalies else None)


def _fields(
    observations: Observations, variables: tuple[str, ...], axes: tuple[str, ...], rule: Duplicates, least: int | None
) -> StationSet:
    place = _groups(np.stack([observations.position(role) for role in observations.horizontal], 1))
    names = observations.measured(variables)
    values = observations.values(names)
    stations = observations.stations()
    unit = place if stations is None else np.unique(stations, return_inverse=True)[1]
    times, time_unit = observations.times() if "time" in observations.columns else (None, "")
    axes = axes or _axes_of(observations, unit, place, times)
    coordinates, stamps = placed(observations, axes)
    usable = np.asarray(np.isfinite(coordinates).all(1))
    if stamps is not None:
        usable = usable & (~np.isnat(stamps) if stamps.dtype.kind == "M" else np.isfinite(stamps))
    about = [observations.told(names, [role for role in ("level",) if role not in axes])]
    if not usable.all():
        about.append(f"{int((~usable).sum())} rows of {len(usable)} without a place or time are left out")
    require(bool(usable.any()), observations.path, "hold rows with a place and a time", "none")
    rows = np.flatnonzero(usable)
    keys, group = (None, np.zeros(len(rows), np.int64)) if stamps is None else _counted(stamps[rows])
    units, told = _hidden_together(observations, unit[rows], coordinates[rows], axes, group)
    order = np.lexsort((rows, units, group))
    rows, group, units = rows[order], group[order], units[order]
    coordinates = coordinates[rows]
    values = _without_duplicates(observations, rows, group, coordinates, values[rows], rule)
    reference = None
    if least is not None:
        values, reference = _monthly(observations, values, keys, group, units, least)
    count = 1 if keys is None else len(keys)
    about += [_about_fields(axes, keys, len(np.unique(units))), told]
    return StationSet(
        coordinates=torch.from_numpy(coordinates),
        values=torch.from_numpy(values),
        splits=torch.from_numpy(np.searchsorted(group, np.arange(count + 1))),
        units=torch.from_numpy(units),
        names=(Path(observations.path).name,) if keys is None else tuple(_shown(key) for key in keys),
        channels=names,
        channel_units=tuple(observations.units.get(name, "") for name in names),
        axes=axes,
        axis_units=tuple(_unit_of(observations, role, time_unit) for role in axes),
        restored=_way_back(observations, names, rows),
        times=None if keys is None else torch.from_numpy(_years(keys, time_unit)),
        reference=reference,
        observations=observations,
        rows=rows,
        stamps=keys,
        about=tuple(filter(None, about)),
    )


def placed(observations: Observations, axes: Sequence[str]) -> tuple[Array, NDArray[Any] | None]:
    """Where the rows of a table are.

    Args:
        observations: the table.
        axes: roles of the coordinates, in their order.

    Returns:
        coordinates ``(N, d)``, nan where missing, dates in days since 1970; and times that are no axis, ``(N,)``, or
        None where the table has none.

    Raises:
        ValueError: a column that lacks.
    """
    lacking = [role for role in axes if role not in observations.columns]
    rule = f"hold {', '.join(axes)} ({', '.join(f'--data.columns.{role} NAME' for role in lacking)})"
    require(not lacking, f"the columns of {observations.path}", rule, ", ".join(map(str, observations.frame.columns)))
    times = observations.times()[0] if "time" in observations.columns else None
    columns = [_as_numbers(times) if role == "time" else observations.position(role) for role in axes]
    return np.stack(columns, 1), None if "time" in axes else times


def _as_numbers(times: NDArray[Any] | None) -> Array:
    """Dates as days since 1970, nan where missing."""
    assert times is not None
    if times.dtype.kind != "M":
        return times
    days = (times - np.datetime64("1970-01-01", "us")) / _DAY
    return np.where(np.isnat(times), np.nan, days)


def _axes_of(
    observations: Observations, unit: NDArray[Any], place: NDArray[Any], times: NDArray[Any] | None
) -> tuple[str, ...]:
    """Horizontal axes, the level where it differs within stations, time where few places are observed at once."""
    axes: tuple[str, ...] = observations.horizontal
    if "level" in observations.columns:
        levels = observations.position("level")
        pairs = np.unique(np.stack([unit, levels], 1)[np.isfinite(levels)], axis=0)
        if observations.given.level is not None or len(pairs) > len(np.unique(pairs[:, 0])):
            axes = (*axes, "level")
    if times is None:
        return axes
    pairs = np.unique(np.stack([np.unique(times, return_inverse=True)[1], place], 1), axis=0)
    _, which, at_once = np.unique(pairs[:, 0], return_inverse=True, return_counts=True)
    return axes if np.median(at_once[which]) >= _AT_ONCE else (*axes, "time")


def _groups(places: Array) -> NDArray[np.int64]:
    """Number of each distinct place."""
    return np.unique(places, axis=0, return_inverse=True)[1].reshape(-1)


def _counted(stamps: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    return np.unique(stamps, return_inverse=True)


def _hidden_together(
    observations: Observations, unit: NDArray[Any], coordinates: Array, axes: Sequence[str], group: NDArray[np.int64]
) -> tuple[NDArray[np.int64], str]:
    """What is hidden as a whole: the station, the place where the table names none, the profile of few stations."""
    named = "stations of column " + repr(observations.columns["station"]) if "station" in observations.columns else ""
    found, unit = np.unique(unit, return_inverse=True)
    what = named or "places"
    if len(found) < _FEWEST_STATIONS and "level" in axes:
        moment = coordinates[:, list(axes).index("time")] if "time" in axes else group
        profile = _groups(np.column_stack([unit, moment]))
        if profile.max() >= _FEWEST_STATIONS:
            unit, what = profile, f"profiles, for there are {len(found)} {what}"
    return unit, f"hidden as a whole: {what} (--data.columns.station)"


def _without_duplicates(
    observations: Observations,
    rows: NDArray[np.int64],
    group: NDArray[np.int64],
    coordinates: Array,
    values: Array,
    rule: Duplicates,
) -> Array:
    """Values of rows ``(N, C)`` without those that share place and time with another, of which one is left."""
    values = values.copy()
    known = np.flatnonzero(~np.isnan(values).all(1))
    places = np.column_stack([group[known], coordinates[known]])
    _, which, counts = np.unique(places, axis=0, return_inverse=True, return_counts=True)
    which = which.reshape(-1)
    if (counts == 1).all():
        return values
    if rule == "refuse":
        first = np.flatnonzero(counts[which] > 1)[:1]
        same = rows[known[which == which[first]]][:_SHOWN] + 1
        unnamed = [role for role in ("time", "level") if role not in observations.columns]
        apart = " or ".join(f"--data.columns.{role} NAME" for role in unnamed)
        reject(
            f"the rows of {observations.path}",
            "hold one value a place and time (--data.options.duplicates mean, first or last takes one of them"
            + (f"; {apart} names what tells them apart, where a column does)" if unnamed else ")"),
            f"{int((counts - 1).sum())} more, as in rows {', '.join(map(str, same))}",
        )
    order = known[np.lexsort((rows[known], which))]
    ends = counts.cumsum()
    keeps = order[ends - 1] if rule == "last" else order[ends - counts]
    kept = values[keeps]
    if rule == "mean":
        known_values = ~np.isnan(values[order])
        sums = np.add.reduceat(np.where(known_values, values[order], 0), ends - counts)
        counted = np.add.reduceat(known_values.astype(np.int64), ends - counts)
        kept = np.where(counted > 0, sums / np.maximum(counted, 1), np.nan)
    values[known] = np.nan
    values[keeps] = kept
    return values


def _monthly(
    observations: Observations,
    values: Array,
    keys: NDArray[Any] | None,
    group: NDArray[np.int64],
    units: NDArray[np.int64],
    least: int,
) -> tuple[Array, torch.Tensor]:
    """Values whose calendar month has enough years at their station, and groups of what is compared with one mean."""
    if keys is None or keys.dtype.kind != "M":
        reject("anomalies", "be left out where times are no dates, or an axis", f"the axes of {observations.path}")
    month = keys.astype("datetime64[M]").astype(np.int64) % 12 + 1
    reference = month[group] + 12 * units
    known, partly = ~np.isnan(values).all(1), np.isnan(values).any(1)
    rule = "be of variables that are measured together (--data.variables NAME takes one)"
    require(not (known & partly).any(), "anomalies", rule, f"{int((known & partly).sum())} rows with some of them")
    counts = np.bincount(reference[known], minlength=int(reference.max()) + 1)
    enough = counts[reference] >= least
    rule = f"hold a station with {least} years of some calendar month, to take anomalies from"
    require(bool(enough.any()), observations.path, rule, "none")
    return np.where(enough[:, None], values, np.nan), torch.from_numpy(reference)


def _years(keys: NDArray[Any], unit: str) -> Array:
    """Times of fields in years."""
    return _as_numbers(keys) * (_YEARS["days"] if keys.dtype.kind == "M" else _YEARS.get(unit, 1.0))


def _shown(key: Any) -> str:
    """A time for the reader, without what is zero at its end."""
    if not isinstance(key, np.datetime64):
        return f"{key:g}"
    text = str(key.astype("datetime64[s]"))
    return text.removesuffix("T00:00:00").removesuffix(":00") if key == key.astype("datetime64[s]") else str(key)


def _unit_of(observations: Observations, role: str, time_unit: str) -> str:
    if role == "time":
        return "days since 1970-01-01" if time_unit == "UTC" else time_unit
    angles = {"latitude": "degrees_north", "longitude": "degrees_east"}
    return angles.get(role, observations.units.get(observations.columns[role], ""))


def _about_fields(axes: Sequence[str], keys: NDArray[Any] | None, units: int) -> str:
    other = " ".join((*axes, "time") if keys is not None else [name for name in axes if name != "time"])
    way = f"--data.axes {other}"
    if keys is None:
        return f"axes of the field: {', '.join(axes)}; {units} units" + (f" ({way}: a field a time)" * ("time" in axes))
    return f"axes of a field: {', '.join(axes)}; a field for each of {len(keys)} times ({way} makes time an axis)"


def _way_back(observations: Observations, names: Sequence[str], rows: NDArray[np.int64]) -> Any:
    def restored(filled: Array) -> xr.Dataset:
        import xarray as xr

        frame: pd.DataFrame = observations.frame.copy()
        for name, column in zip(names, filled.T, strict=True):
            whole = np.full(len(frame), np.nan)
            whole[rows] = column
            frame[name] = whole
        return xr.Dataset.from_dataframe(frame.rename_axis("row"))

    return restored


register(
    DataSet(
        name="stations",
        about="your table of stations, tracks or profiles, one field for each time or time as an axis",
        load=load,
        samples=FieldSet,
        shape="values at latitudes and longitudes (or y and x), levels, times",
        files="path of a CSV, Parquet or netCDF file, a row an observation",
        size="of the file",
        licence="yours",
        source="yours",
    )
)
