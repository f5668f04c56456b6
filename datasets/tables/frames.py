"""Frames of pandas as irregular series: long or wide, read chunk by chunk, no row is visited in Python."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ccnn_irregular._checks import reject, require
from ccnn_irregular._files import naming
from ccnn_irregular.datasets.reading.codes import maybe_codes, require_declared
from ccnn_irregular.datasets.reading.numbers import parsed_numbers, way_out
from ccnn_irregular.datasets.reading.usual_names import usual
from ccnn_irregular.datasets.tables.columns import Columns, find
from ccnn_irregular.datasets.tables.long_series import Events, LongSeries, merge_repeats
from ccnn_irregular.datasets.tables.times import SECONDS, instants, require_same_kind, typical_unit

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Collector", "Tables", "id_texts", "known_entries", "listed", "long_way", "series_of"]

_NAMES = 8
_LOOKED_AT = 100_000  # rows of a wide table whose values repeat
_FEW_NUMBERS, _FEW_WORDS = 3, 100  # columns of values, names of variables of what looks like a long table


@dataclass(frozen=True)
class Tables:
    """What was read of one's own files.

    Attributes:
        series: of all ids that any of the tables names.
        statics: one row a series, indexed by id; None = there are none.
        labels: columns "id", "label" and "time" (in the source's own form), as far as they are there; None = no labels.
        notes: what was found, merged and left out, for the reader.
        label_instants: time of each row of ``labels`` as numbers or seconds since 1970, or None.
        label_name: what their source calls the labels.
    """

    series: LongSeries
    statics: pd.DataFrame | None = None
    labels: pd.DataFrame | None = None
    notes: tuple[str, ...] = ()
    label_instants: np.ndarray | None = None
    label_name: str = "label"


def listed(names: Sequence[str]) -> str:
    """Some names for the reader, and how many more there are."""
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    return ", ".join(map(str, names[:_NAMES])) + more


def id_texts(column: pd.Series, name: str) -> tuple[np.ndarray, list[str]]:
    """Codes of a column of ids, and the texts that they mean.

    Raises:
        ValueError: a missing id, or numbers that are not whole.
    """
    import pandas as pd

    codes, unique = pd.factorize(column)
    rule = "name a series in every row"
    require(bool((codes >= 0).all()), f"column {name!r}", rule, f"{int((codes < 0).sum())} rows without a name")
    if pd.api.types.is_float_dtype(column):
        whole = unique.astype(np.int64)
        require(bool((whole == unique).all()), f"column {name!r}", "hold whole numbers or names", listed(unique))
        unique = whole
    return codes, [str(value) for value in unique]


def long_way(frame: pd.DataFrame, keys: Sequence[str], words: Sequence[str], numbers: Sequence[str]) -> str:
    """Options that read a table as a long one, where that ends its repeats; "" where nothing says so.

    Args:
        frame: its rows, or the first of them.
        keys: the columns of ids and times, which repeat.
        words: columns of words alone.
        numbers: columns of numbers, none of them a key.
    """
    if not 1 <= len(numbers) <= _FEW_NUMBERS:
        return ""
    repeats = int(frame.duplicated(list(keys)).sum())
    kinds = {name: frame[name].nunique() for name in words}
    few = [name for name in words if 2 <= kinds[name] <= min(_FEW_WORDS, len(frame) / 2)]
    met = [name for name in few if frame.duplicated([*keys, name]).sum() <= repeats / 10]  # some repeat all the same
    if not met:
        return ""
    variable = (usual("variable", met) or sorted(met, key=kinds.__getitem__))[0]
    value = "" if len(usual("value", numbers)) == 1 else f" --data.columns.value {_typed(numbers)}"
    return f"--data.columns.variable {_typed([variable])}{value}"


def _typed(names: Sequence[str]) -> str:
    """A name as it is typed; NAME where it may be one of several."""
    name = names[0] if len(names) == 1 else "NAME"
    return name if name.isidentifier() else shlex.quote(name)


@dataclass
class _Names:
    """Names by the order in which they were met."""

    index: dict[str, int] = field(default_factory=dict)

    def codes(self, names: Iterable[str]) -> np.ndarray:
        return np.array([self.index.setdefault(name, len(self.index)) for name in names], np.int64)


class Collector:
    """Takes chunks of tables, and keeps 22 bytes of each value.

    Args:
        columns: their names.
        variables: those that are read; None = all.
        layout: "long", "wide", or "auto": long where a variable and a value column are found.
    """

    def __init__(self, columns: Columns, variables: Sequence[str] | None = None, layout: str = "auto") -> None:
        require(layout in ("auto", "long", "wide"), "layout", "be auto, long or wide", repr(layout))
        self.columns, self.layout = columns, layout
        self.wanted = None if variables is None else list(variables)
        self.ids, self.variables = _Names(), _Names()
        self.parts: list[tuple[np.ndarray, ...]] = []
        self.origins: dict[str, float] = {}
        self.kinds: dict[str, str] = {}
        self.empty = 0
        self.where = "the tables"
        self.notes: list[str] = []
        self.unit: str | None = None  # of times that are numbers, where the format says it
        self.words: dict[str, list[Any]] = {}  # of a wide table: count of numbers and the first word in each column
        self.first: tuple[pd.DataFrame, list[str]] | None = None  # rows of a wide table, its columns of ids and times

    def roles(self, names: Sequence[str], where: str) -> dict[str, str | None]:
        """The column of each role; variable and value are None in a wide table.

        Raises:
            ValueError: no column of ids or of times, with the option that names it.
        """
        asked = self.columns
        found = {role: find(role, getattr(asked, role), names, where) for role in ("id", "time")}
        for role, name in found.items():
            rule = f"name a column of {where} (none has a usual name): {', '.join(names)}"
            require(name is not None, f"data.columns.{role}", rule, None)
        found |= dict.fromkeys(("variable", "value"))
        if self.layout != "wide":
            both = {role: find(role, getattr(asked, role), names, where) for role in ("variable", "value")}
            if None not in both.values():
                found |= both
            elif self.layout == "long" or asked.variable is not None:
                lacking = next(role for role, name in both.items() if name is None)
                rule = f"name a column of {where} (none has a usual name): {', '.join(names)}"
                require(asked.variable is None, f"data.columns.{lacking}", rule, None)
                reject("layout", f"be wide where {where} has no column of variables and of values", listed(names))
        if asked.origin in names:
            found["origin"] = asked.origin
        return found

    def add(self, frame: pd.DataFrame, where: str) -> None:
        """Take the rows of a chunk of what is called ``where`` in messages."""
        self.where = where
        roles = self.roles([str(name) for name in frame.columns], where)
        if not self.notes:
            self.notes.append(_told(roles, frame.columns))
        frame = known_entries(frame, self.columns, (roles["id"], roles["time"], roles["variable"]))
        codes, names = id_texts(frame[roles["id"]], str(roles["id"]))
        series = self.ids.codes(names)[codes]
        times, kind = instants(frame[roles["time"]], str(roles["time"]), self.columns.time_format)
        self.kinds[str(roles["time"])] = kind
        if roles.get("origin"):
            self._take_origins(frame[roles["origin"]], str(roles["origin"]), series)
        if roles["variable"] is None:
            self._add_wide(frame, roles, series, times)
        else:
            self._add_long(frame, roles, series, times)

    def _take_origins(self, column: pd.Series, name: str, series: np.ndarray) -> None:
        values, kind = instants(column, name, self.columns.time_format)
        self.kinds[name] = kind
        known = np.flatnonzero(~np.isnan(values))
        firsts = known[np.unique(series[known], return_index=True)[1]]
        texts = list(self.ids.index)
        for row in firsts.tolist():
            self.origins.setdefault(texts[series[row]], float(values[row]))

    def _add_long(
        self, frame: pd.DataFrame, roles: Mapping[str, str | None], series: np.ndarray, times: np.ndarray
    ) -> None:
        codes, names = id_texts(frame[roles["variable"]], str(roles["variable"]))
        variable = self.variables.codes(names)[codes]
        values, bad = _numbers(frame[roles["value"]], self.columns.decimal)
        wanted = np.ones(len(values), bool)
        if self.wanted is not None:
            kept = np.array([name in self.wanted for name in names] or [False])
            wanted = kept[codes]
        if (wrong := bad & wanted).any():
            row = int(np.flatnonzero(wrong)[0])
            word = frame[roles["value"]].iloc[row]
            rule = f"hold numbers ({way_out(word, self.columns.decimal)}; data.variables names the variables to read)"
            got = f"{word!r} of {names[codes[row]]!r}, {int(wrong.sum())} such rows"
            reject(f"column {roles['value']!r}", rule, got)
        known = ~np.isnan(values) & wanted
        self.empty += int((np.isnan(values) & wanted).sum())
        self._keep(series[known], times[known], variable[known], values[known])

    def _add_wide(
        self, frame: pd.DataFrame, roles: Mapping[str, str | None], series: np.ndarray, times: np.ndarray
    ) -> None:
        taken = {name for name in roles.values() if name is not None}
        self.first = self.first or (frame.head(_LOOKED_AT), [str(roles["id"]), str(roles["time"])])
        for name in map(str, frame.columns):
            if name in taken or (self.wanted is not None and name not in self.wanted):
                continue
            values, bad = _numbers(frame[name], self.columns.decimal)
            counts = self.words.setdefault(name, [0, None])
            known = ~np.isnan(values)
            counts[0] += int(known.sum())
            if bad.any() and counts[1] is None:
                counts[1] = frame[name].iloc[int(np.flatnonzero(bad)[0])]
            variable = np.full(int(known.sum()), self.variables.codes([name])[0])
            self._keep(series[known], times[known], variable, values[known])

    def _keep(self, series: np.ndarray, times: np.ndarray, variable: np.ndarray, values: np.ndarray) -> None:
        unknown = np.isnan(times)
        if unknown.any():
            shown = [list(self.ids.index)[series[row]] for row in np.flatnonzero(unknown)[:_NAMES]]
            got = f"{int(unknown.sum())} values without one, of series {listed(shown)}"
            reject("each value", "have a time (statics go into a table of their own, data.statics)", got)
        self.parts.append((series.astype(np.int32), times, variable.astype(np.int32), values.astype(np.float32)))

    def long_way(self) -> str:
        """What to advise where values repeat since the table is a long one; "" where nothing says so."""
        if self.first is None or self.layout == "wide":
            return ""
        words = [name for name, (_, word) in self.words.items() if word is not None]
        way = long_way(*self.first, words, [name for name in self.words if name not in words])
        return way and f"looks like a long table: {way}"

    def events(self) -> Events:
        """All values that were taken.

        Raises:
            ValueError: a column of a wide table that holds numbers and words, times of two kinds.
        """
        with naming(self.where):
            for name, (numbers, word) in self.words.items():
                way = way_out(word, self.columns.decimal)
                rule = f"hold numbers, or words in every row ({way}; data.variables names the columns to read)"
                require(word is None or numbers == 0, f"column {name!r}", rule, f"{word!r} among {numbers} numbers")
        left = [name for name, (_, word) in self.words.items() if word is not None]
        if left:
            self.notes.append(f"columns of words are left out: {listed(left)} (data.statics takes a table of them)")
        if self.empty:
            self.notes.append(f"{self.empty} rows without a value")
        columns = [np.concatenate(column) for column in zip(*self.parts, strict=True)] if self.parts else []
        series, times, variable, values = columns or [np.zeros(0, kind) for kind in ("i4", "f8", "i4", "f4")]
        self.parts.clear()
        infinite = ~np.isfinite(values)
        if infinite.any():
            names = [list(self.variables.index)[code] for code in np.unique(variable[infinite])]
            got = f"{int(infinite.sum())} infinite ones of {listed(names)}"
            reject(f"values of {self.where}", "be finite as float32 numbers", got)
        with naming(self.where):
            self._require_no_codes(variable, values)
        ids = tuple(self.ids.index)
        origins = np.array([self.origins.get(name, np.nan) for name in ids], np.float64)
        kind = require_same_kind(self.kinds)
        used = [name for name in self.variables.index if name not in left] if self.wanted is None else self.wanted
        # Variables that nobody asked for have codes too, in the order in which they were met.
        place = {name: number for number, name in enumerate(used)}
        codes = np.array([place.get(name, -1) for name in self.variables.index] or [0])
        return Events(ids, tuple(used), series, times, codes[variable], values, origins, kind)

    def _require_no_codes(self, variable: np.ndarray, values: np.ndarray) -> None:
        for code in np.unique(variable[maybe_codes(values)]):
            name = list(self.variables.index)[code]
            require_declared(f"the variable {name!r}", values[variable == code], self.columns.missing)


def _told(roles: Mapping[str, str | None], names: Iterable[Any]) -> str:
    """Which columns were taken for what."""
    found = ", ".join(f"{role} = {name}" for role, name in roles.items() if name is not None)
    if roles["variable"] is None:
        return f"a wide table: {found}; every other column a variable"
    left = [str(name) for name in names if name not in roles.values()]
    return f"a long table: {found}" + (f"; not read: {listed(left)}" if left else "")


def known_entries(frame: pd.DataFrame, columns: Columns, but: Sequence[str | None]) -> pd.DataFrame:
    """A table in which the entries ``columns.missing`` are not known, texts as written or codes such as -999.

    The columns ``but`` stay as they are. A column that holds numbers beside such entries becomes one of numbers.
    """
    import pandas as pd

    if not columns.missing:
        return frame
    texts = [entry if isinstance(entry, str) else f"{entry:g}" for entry in columns.missing]
    asked = pd.Series(texts, dtype=object)
    codes = pd.concat([parsed_numbers(asked, sign).dropna() for sign in (".", columns.decimal)]).unique()
    changed = {}
    for name in frame.columns.difference([name for name in but if name is not None], sort=False):
        column = frame[name]
        numeric = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
        held = column.isin(codes) if numeric else column.isin(texts)
        if held.any():
            rest = column.mask(held) if numeric else column.astype(object).mask(held)
            numbers = rest if numeric else parsed_numbers(rest, columns.decimal)
            whole = numbers.notna().sum() == rest.notna().sum()
            changed[name] = numbers.mask(numbers.isin(codes)) if whole else rest
    return frame.assign(**changed)


def _numbers(column: pd.Series, decimal: str) -> tuple[np.ndarray, np.ndarray]:
    """Values as float64, nan where empty, and where there is something else than a number."""
    import pandas as pd

    if pd.api.types.is_datetime64_any_dtype(column):
        return np.full(len(column), np.nan), column.notna().to_numpy()
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(object)
    numbers = parsed_numbers(column, decimal).to_numpy(np.float64, na_value=np.nan)
    return numbers, np.isnan(numbers) & column.notna().to_numpy()


def series_of(
    events: Events,
    *,
    ids: Iterable[str] = (),
    unit: str | None = None,
    since: str | None = None,
    repeats: str = "refuse",
    way: str = "",
) -> LongSeries:
    """Sorted series of what tables list.

    Args:
        events: the values.
        ids: further series, which have no values.
        unit: of times. Dates are brought to "s", "min", "h" or "d" (None = what suits the typical series); of numbers
            it is a name.
        since: "given" = numbers stay as they are, "first" = times count from the first row of each series; None =
            given for numbers, first for dates. Where an origin is known for a series it is taken.
        repeats: see ``merge_repeats``.
        way: see ``merge_repeats``.

    Raises:
        ValueError: repeated values, an unknown unit of dates, dates that shall stay as they are.
    """
    dates = events.kind != "numbers"
    since = since or ("first" if dates else "given")
    require(since in ("given", "first"), "time_since", "be given or first", repr(since))
    require(not (dates and since == "given"), "time_since", "be first where times are dates", since)
    names = list(dict.fromkeys([*events.ids, *ids]))
    order = sorted(range(len(names)), key=_natural(names))
    rank = np.empty(len(names), np.int64)
    rank[order] = np.arange(len(names))
    merged = merge_repeats(
        Events(**{**vars(events), "series": rank[events.series], "ids": tuple(names[one] for one in order)}),
        repeats,
        way,
    )
    splits = np.searchsorted(merged.series, np.arange(len(names) + 1))
    filled = np.flatnonzero(np.diff(splits))
    origins = np.full(len(names), np.nan)
    origins[rank[: len(events.origins)]] = events.origins
    if since == "first":
        lacking = filled[np.isnan(origins[filled])]
        origins[lacking] = merged.times[splits[lacking]]
    elif not dates:
        origins = np.nan_to_num(origins, nan=0.0)
    times = merged.times - origins[merged.series]
    if dates:
        spans = merged.times[splits[filled + 1] - 1] - merged.times[splits[filled]]
        unit = unit or typical_unit(spans)
        require(unit in SECONDS, "unit", f"be one of {', '.join(SECONDS)} where times are dates", repr(unit))
        times /= SECONDS[unit]
    return LongSeries(
        np.array(merged.ids, dtype=object),
        merged.variables,
        splits,
        times,
        merged.variable.astype(np.int64),
        merged.values,
        origins,
        unit or "units of the table",
        events.kind,
    )


def _natural(names: Sequence[str]) -> Any:
    """Order of ids: as numbers where all are, else as texts."""
    if all(name.lstrip("-").isdigit() for name in names):
        return lambda one: (int(names[one]), names[one])
    return lambda one: names[one]
