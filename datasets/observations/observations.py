"""The rows of a table of observations: places, times, stations and measured values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ccnn_irregular._checks import reject, require
from ccnn_irregular.datasets.observations.columns import ROLES, StationColumns, column_of, is_measured
from ccnn_irregular.datasets.observations.entries import numbers_of, times_of
from ccnn_irregular.datasets.observations.files import Table
from ccnn_irregular.datasets.reading.codes import CODES, is_code, require_declared
from ccnn_irregular.datasets.reading.numbers import way_out

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Observations"]

_SHOWN = 3


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
        for role in ROLES:
            if (found := _column(table, role, given, columns, path)) is not None:
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
        found, bad = numbers_of(self.frame[name], self.given)
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
        name = self.columns["time"]
        what = f"column {name!r} of {self.path}, the time,"
        return times_of(self.frame[name], self.given, self.given.time_unit or self.units.get(name), what)

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
        found = tuple(name for name in named if name not in taken and is_measured(name) and self._holds_numbers(name))
        rule = "hold one with numbers that are measured (--data.variables NAME names it)"
        require(len(found) > 0, f"the columns of {self.path}", rule + self._commas(), ", ".join(named))
        return found

    def _commas(self) -> str:
        """What to type where a column that is not read holds decimal commas; "" where none does."""
        firsts = (self.frame[name].iloc[0] for name in self.frame.columns)
        return next(
            (f"; --{way}" for way in (way_out(entry, self.given.decimal) for entry in firsts) if "decimal" in way), ""
        )

    def _holds_numbers(self, name: str) -> bool:
        numbers, bad = numbers_of(self.frame[name], self.given)
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


def _column(table: Table, role: str, given: StationColumns, found: Mapping[str, str], path: str) -> str | None:
    """The column of a role: as asked for, as the file says, or by its name."""
    asked = getattr(given, role)
    if asked is None and role in table.roles:
        return table.roles[role]
    return column_of(role, asked, map(str, table.frame.columns), found.values(), path)
