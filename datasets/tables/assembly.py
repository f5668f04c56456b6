"""Tables of values, labels and statics joined by the ids of the series."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ccnn_irregular._checks import reject, require
from ccnn_irregular._files import naming
from ccnn_irregular.datasets.reading.codes import require_declared
from ccnn_irregular.datasets.tables.columns import Columns, find
from ccnn_irregular.datasets.tables.frames import Collector, Tables, id_texts, known_entries, listed, series_of
from ccnn_irregular.datasets.tables.times import instants

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["assemble", "from_frames", "label_frame"]


def label_frame(frame: pd.DataFrame, columns: Columns) -> tuple[pd.DataFrame, str, str]:
    """Labels with columns "id", "label", "time", as far as they are there; what was taken for what; the label's name.

    Raises:
        ValueError: no column of ids; neither labels nor times.
    """
    import pandas as pd

    names = [str(name) for name in frame.columns]
    key = find("id", columns.id if columns.id in names else None, names, "the labels")
    frame = known_entries(frame, columns, (key,))
    frame = frame.dropna(axis=1, how="all")  # tables of labels may have a column for each kind of them
    names = [str(name) for name in frame.columns]
    where = "the labels"
    key = find("id", columns.id if columns.id in names else None, names, where)
    require(
        key is not None, "data.columns.id", f"name a column of {where} (none has a usual name): {listed(names)}", None
    )
    time = find("label_time", columns.label_time, names, where)
    label = find("label", columns.label, [name for name in names if name not in (key, time)], where)
    others = [name for name in names if name not in (key, time)]
    if label is None and len(others) == 1:
        label = others[0]
    rule = f"name a column of {where} (none has a usual name): {listed(names)}"
    require(label is not None or time is not None, "data.columns.label", rule, None)
    codes, texts = id_texts(frame[key], str(key))
    found = {"id": np.array(texts, dtype=object)[codes]}
    found |= {role: frame[name].array for role, name in (("label", label), ("time", time)) if name is not None}
    told = ", ".join(f"{role} = {name}" for role, name in (("id", key), ("label", label), ("time", time)) if name)
    return pd.DataFrame(found), f"labels: {told}", str(label or "label")


def statics_frame(frame: pd.DataFrame, columns: Columns) -> pd.DataFrame:
    """Statics indexed by id.

    Raises:
        ValueError: no column of ids, two rows of one series, or a code such as -999 that nobody declared.
    """
    names = [str(name) for name in frame.columns]
    key = find("id", columns.id if columns.id in names else None, names, "the statics")
    require(key is not None, "data.columns.id", f"name a column of the statics: {listed(names)}", None)
    codes, texts = id_texts(frame[key], str(key))
    repeated = [texts[code] for code in np.flatnonzero(np.bincount(codes) > 1)]
    require(not repeated, "the statics", "hold one row a series", f"several rows of {listed(repeated)}")
    indexed = known_entries(frame, columns, (key,)).drop(columns=[key])
    indexed.index = np.array(texts, dtype=object)[codes]
    indexed.columns = [str(name) for name in indexed.columns]
    for name in indexed.select_dtypes("number"):
        numbers = indexed[name].to_numpy(np.float64, na_value=np.nan)
        require_declared(f"the column {name!r} of the statics", numbers, columns.missing)
    return indexed


def assemble(
    collector: Collector,
    labels: pd.DataFrame | None,
    statics: pd.DataFrame | None,
    columns: Columns,
    *,
    unit: str | None = None,
    since: str | None = None,
    repeats: str = "refuse",
) -> Tables:
    """One's own tables as series with statics and labels, over all ids that any of them names."""
    notes = collector.notes
    found = None if labels is None else label_frame(labels, columns)
    fixed = None if statics is None else statics_frame(statics, columns)
    instants_of_labels = None
    if found is not None and "time" in found[0]:
        instants_of_labels, kind = instants(found[0]["time"], "time of the labels", columns.time_format)
        collector.kinds["the labels"] = kind
        rule = "have a time in every row, or no column of times"
        missing = int(np.isnan(instants_of_labels).sum())
        require(not missing, "the labels", rule, f"{missing} rows without one")
    fixed = _without_origin(collector, fixed)
    require_origin = columns.origin is None or bool(collector.origins)
    require(require_origin, "data.columns.origin", "name a column of the table or of the statics", repr(columns.origin))
    events = collector.events()
    others = {"statics": [] if fixed is None else list(fixed.index), "labels": [] if found is None else found[0]["id"]}
    notes += [note for where, ids in others.items() for note in _without_values(where, ids, collector.ids.index)]
    further = [name for ids in others.values() for name in ids]
    with naming(collector.where):
        way = collector.long_way() if repeats == "refuse" else ""
        series = series_of(events, ids=further, unit=unit or collector.unit, since=since, repeats=repeats, way=way)
    if found is not None:
        notes.append(found[1])
    frame, name = (None, "label") if found is None else (found[0], found[2])
    return Tables(series, fixed, frame, tuple(notes), instants_of_labels, name)


def _without_values(where: str, ids: Iterable[str], measured: Iterable[str]) -> list[str]:
    """What to say of ids of the labels or statics that the table does not have.

    Raises:
        ValueError: all of them, or some that the table writes in another way.
    """
    known, asked = set(measured), list(dict.fromkeys(ids))
    missing = [name for name in asked if name not in known]
    alike = {_loosely(name): name for name in known}
    other = next((name for name in missing if _loosely(name) in alike), None)
    rule = "be written alike in all tables (numbers lose their leading zeros: let the column hold texts)"
    if other is not None:
        reject(f"ids of the {where}", rule, f"{other!r}, which the table calls {alike[_loosely(other)]!r}")
    if missing and known and len(missing) == len(asked):
        rule = "name series of the table (data.columns.id names the column)"
        reject(f"ids of the {where}", rule, f"{listed(missing)}, while the table has {listed(sorted(known))}")
    if not missing:
        return []
    verb = "is" if len(missing) == 1 else "are"
    return [
        f"{len(missing)} of {len(asked)} ids of the {where} {verb} not in the table: {listed(missing)}; "
        "they count as series without values, which are judged by their statics"
    ]


def _loosely(name: str) -> str:
    """An id without what is lost between programs: case, blanks, leading zeros, the point of a whole number."""
    return name.strip().casefold().removesuffix(".0").lstrip("0")


def _without_origin(collector: Collector, statics: pd.DataFrame | None) -> pd.DataFrame | None:
    """Statics without the column of origins, which the collector takes."""
    name = collector.columns.origin
    if statics is None or name not in statics.columns:
        return statics
    series = collector.ids.codes(statics.index)
    collector._take_origins(statics[name], str(name), series)
    return statics.drop(columns=[name])


def from_frames(
    table: pd.DataFrame,
    labels: pd.DataFrame | None = None,
    statics: pd.DataFrame | None = None,
    *,
    columns: Columns | None = None,
    layout: str = "auto",
    variables: Sequence[str] | None = None,
    **options: Any,
) -> Tables:
    """Series of pandas frames.

    Args:
        table: long or wide.
        labels: an id and a label a row, and a time where a label holds from what was known by then.
        statics: an id and its numbers and categories a row.
        columns: their names; None = the usual ones.
        layout: "long", "wide" or "auto".
        variables: those that are read; None = all.
        **options: ``unit``, ``since`` and ``repeats``, see ``series_of``.

    Raises:
        ValueError: columns that are missing or may be several, words among numbers, repeated values.
    """
    collector = Collector(columns or Columns(), variables, layout)
    collector.add(table, "the table")
    return assemble(collector, labels, statics, collector.columns, **options)
