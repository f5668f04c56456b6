"""Columns of tables of observations: what each is, by its name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ccnn_irregular._checks import require
from ccnn_irregular.datasets.reading.numbers import number_in, require_decimal
from ccnn_irregular.datasets.reading.usual_names import plain, usual

__all__ = ["ROLES", "StationColumns", "column_of", "is_measured", "usual_role"]

# What columns are, and what they are called in the list of usual names.
ROLES = {name: name for name in ("latitude", "longitude", "x", "y", "time", "level", "station")} | {"time": "date"}
# Columns of numbers that are no measurements, whatever stands in them.
_NO_VALUES = ("elevation", "elev", "alt", "year", "month", "day", "hour", "minute", "cycle", "index", "unnamed0", "row")
_NO_VALUE_ENDS = ("flag", "flags", "qc", "quality", "id", "code")


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
        return [number for number in map(number_in, self.missing or ()) if number is not None]

    @property
    def missing_texts(self) -> list[str]:
        """The texts among what is missing, as they are compared."""
        return [str(entry).strip().lower() for entry in self.missing or () if number_in(entry) is None]


def column_of(role: str, asked: str | None, names: Iterable[str], taken: Iterable[str], where: str) -> str | None:
    """The column of a role: as asked for, or the one of the likeliest name; None = there is none.

    Args:
        role: a name in ``ROLES``.
        asked: as ``StationColumns`` has it.
        names: of all columns.
        taken: names that play another role already.
        where: what is looked at, for messages.

    Raises:
        ValueError: no column of the name asked for.
    """
    names = list(names)
    if asked is None:
        return next(iter(usual(ROLES[role], (name for name in names if name not in set(taken)))), None)
    if asked == "none":
        return None
    require(asked in names, f"data.columns.{role}", f"be among the columns of {where}: {', '.join(names)}", repr(asked))
    return asked


def usual_role(name: str) -> str | None:
    """The role of a column or coordinate by its name; None = it has no usual one."""
    return next((role for role, listed in ROLES.items() if usual(listed, [name])), None)


def is_measured(name: str) -> bool:
    """Whether the name of a column of numbers is that of no calendar, counter, id or flag."""
    return plain(name) not in _NO_VALUES and not plain(name).endswith(_NO_VALUE_ENDS)
