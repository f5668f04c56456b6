"""Files of several formats as one kind of tables; each format is a function of :data:`SOURCES`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ccnn_irregular._checks import require
from ccnn_irregular._files import naming, parsing, refuse_file
from ccnn_irregular._optional import import_optional
from ccnn_irregular.datasets import physionet2012, ts_files
from ccnn_irregular.datasets.reading.csv_text import in_utf8
from ccnn_irregular.datasets.tables.assembly import assemble
from ccnn_irregular.datasets.tables.columns import Columns, find
from ccnn_irregular.datasets.tables.files import chunks, table_files, whole_table
from ccnn_irregular.datasets.tables.frames import Collector, Tables

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SOURCES", "read"]

Paths = str | Path | Sequence[str | Path]
# Columns of the challenge of 2019 that do not change in a stay, its time, and its label of each hour.
_STATICS_2019, _HOUR_2019, _LABEL_2019 = ("Age", "Gender", "Unit1", "Unit2", "HospAdmTime"), "ICULOS", "SepsisLabel"
_FILES_AT_ONCE = 1000
_OF_EVENTS = ("subject_id", "time", "code", "numeric_value")


def read(
    table: Paths,
    labels: Paths | None = None,
    statics: Paths | None = None,
    *,
    source: str = "table",
    columns: Columns | None = None,
    layout: str = "auto",
    variables: Sequence[str] | None = None,
    source_options: dict[str, Any] | None = None,
    own_labels: bool = True,
    **options: Any,
) -> Tables:
    """Series, labels and statics from files.

    Args:
        table: a file, several ones, or folders of files.
        labels: table of an id and a label a row, and of a time where a label holds from what was known by then; None =
            those of the source, if it has some.
        statics: table of an id and its numbers and categories a row; None = those of the source.
        source: format of ``table``, a name in ``SOURCES``.
        columns: names of columns; None = the usual ones, or those of the format.
        layout: of tables: "long", "wide", or "auto" = long where columns of variables and of values are found.
        variables: those that are read; None = all.
        source_options: of the format's reader: ``sets`` of physionet2012, ``step`` and ``unit`` of ts.
        own_labels: False = labels that the source keeps in files of their own are not read, and need not be there.
        **options: ``unit``, ``since``, ``repeats``: see ``frames.series_of``.

    Raises:
        FileNotFoundError: a file is not there.
        ValueError: from the reader, with the file, the column or the rows at fault.
        ImportError: a package that the format needs is not installed.
    """
    require(source in SOURCES, "source", f"be one of {', '.join(SOURCES)}", repr(source))
    asked = columns or Columns()
    collector = Collector(asked, variables, layout)
    given = dict(source_options or {})
    if source == "physionet2012":
        given.setdefault("outcomes", own_labels and labels is None)
    with naming(_listed(table)[0]):
        within_labels, within_statics = SOURCES[source](collector, table, **given)
    found = within_labels if labels is None else _small(labels, asked)
    fixed = within_statics if statics is None else _small(statics, asked)
    return assemble(collector, found, fixed, asked, **options)


# What a reader returns: its own labels and statics, if there are some.
Found = tuple["pd.DataFrame | None", "pd.DataFrame | None"]


def _table(collector: Collector, table: Paths) -> Found:
    """Tables in CSV or Parquet."""
    for path in table_files(table):

        def only(names: Sequence[str], path: Path = path) -> Sequence[str | None]:
            roles = collector.roles(names, path.name)
            return names if roles["variable"] is None else list(roles.values())

        for frame in chunks(path, _words(collector.columns, "id", "variable"), only, collector.columns.decimal):
            collector.add(frame, path.name)
    return None, None


def _meds(collector: Collector, table: Paths) -> Found:
    """Events of the Medical Event Data Standard: the folder ``data`` of a data set, or Parquet files.

    A code with a number is a variable of that name; one without is the variable "code (event)", which is 1. Events
    without a time are statics. Births are left out: they lie decades before all else.
    """
    import pandas as pd

    paths = [Path(path) / "data" if (Path(path) / "data").is_dir() else Path(path) for path in _listed(table)]
    collector.columns = _named(collector.columns, id="subject_id", time="time", variable="code", value="numeric_value")
    fixed, born = [], 0
    for path in table_files(paths, (".parquet",)):
        for frame in chunks(path, lambda _: (), lambda _: _OF_EVENTS):
            if lacking := [name for name in _OF_EVENTS if name not in frame]:
                rule = f"have the columns {', '.join(_OF_EVENTS)} of MEDS"
                refuse_file(path, rule, f"none named {', '.join(lacking)}")
            birth = (frame["code"] == "MEDS_BIRTH").to_numpy()
            born += int(birth.sum())
            events = frame[~birth]
            bare = events["numeric_value"].isna()
            timeless = events["time"].isna()
            fixed.append(events[timeless].assign(numeric_value=events.loc[timeless, "numeric_value"].fillna(1.0)))
            names = events["code"].where(~bare, events["code"] + " (event)")
            collector.add(
                events.assign(code=names, numeric_value=events["numeric_value"].fillna(1.0))[~timeless], path.name
            )
    collector.notes.append(f"{born} births are left out")
    statics = pd.concat(fixed).pivot_table("numeric_value", "subject_id", "code", "last").reset_index()
    return None, statics if len(statics) else None


def _named(columns: Columns, id: str, time: str, variable: str | None = None, value: str | None = None) -> Columns:
    """The columns of a format; what else was asked for stays."""
    return replace(columns, id=id, time=time, variable=variable, value=value)


def _psv(collector: Collector, table: Paths) -> Found:
    """Stays of the PhysioNet/CinC Challenge 2019: a file a stay, a row an hour, a label an hour."""
    import pandas as pd

    files = table_files(table, (".psv",))
    collector.columns, collector.layout = _named(collector.columns, id="id", time=_HOUR_2019), "wide"
    labels, statics = [], []
    for start in range(0, len(files), _FILES_AT_ONCE):
        part = files[start : start + _FILES_AT_ONCE]
        whole = pd.concat([_stay(path) for path in part], ignore_index=True)
        missing = [name for name in (*_STATICS_2019, _HOUR_2019) if name not in whole]
        require(not missing, part[0].name, "be a stay of the challenge of 2019", f"no column {', '.join(missing)}")
        timeless = whole.loc[whole[_HOUR_2019].isna(), "id"].tolist()
        require(not timeless, f"{_HOUR_2019} of {''.join(timeless[:1])}.psv", "be known in each row", "rows without")
        statics.append(whole.groupby("id", sort=False)[list(_STATICS_2019)].first().reset_index())
        labels.append(whole[[name for name in ("id", _HOUR_2019, _LABEL_2019) if name in whole]])
        wide = whole.drop(columns=[*_STATICS_2019, _LABEL_2019], errors="ignore")
        collector.add(wide, f"the stays beside {part[0].name}")
    collector.unit = "h"
    hourly = {_HOUR_2019: "time", _LABEL_2019: "label"}
    return pd.concat(labels).rename(columns=hourly), pd.concat(statics)


def _stay(path: Path) -> pd.DataFrame:
    import pandas as pd

    with parsing(path, "table separated by |"), in_utf8(path):
        return pd.read_csv(path, sep="|").assign(id=path.stem)


def _ts(collector: Collector, table: Paths, **options: Any) -> Found:
    """Files ``.ts`` of the UEA & UCR archive; series are numbered from 0 on."""
    import pandas as pd

    series = ts_files.load(*table_files(table, (".ts",)), **options)
    names = [f"channel {number}" for number in range(series.values.shape[1])]
    wide = pd.DataFrame(series.values.numpy(), columns=names)
    collector.columns, collector.layout = _named(collector.columns, id="id", time="time"), "wide"
    collector.add(wide.assign(id=series.sample_index().numpy(), time=series.times.numpy()), "the series")
    classes = np.array(series.classes, dtype=object)[series.labels.numpy()]
    return pd.DataFrame({"id": np.arange(len(series)), "label": classes}), None


def _wfdb(collector: Collector, table: Paths) -> Found:
    """Records of WFDB, each signal at its own rate; a series is called as its record, times are seconds."""
    import pandas as pd

    wfdb = import_optional("wfdb", "reading WFDB records", "formats")
    collector.unit = "s"
    collector.columns = _named(collector.columns, id="id", time="time", variable="variable", value="value")
    collector.layout = "long"
    for path in table_files(table, (".hea",)):
        with parsing(path, "record of WFDB, its signals beside it"):
            record = wfdb.rdrecord(str(path.with_suffix("")), smooth_frames=False)
        require(record.e_p_signal is not None, path.name, "be a record of one segment", "several segments")
        for name, values, per_frame in zip(record.sig_name, record.e_p_signal, record.samps_per_frame, strict=True):
            times = np.arange(len(values)) / (record.fs * per_frame)
            frame = pd.DataFrame({"id": path.stem, "time": times, "variable": name, "value": values})
            collector.add(frame, path.name)
    return None, None


def _physionet2012(collector: Collector, table: Paths, **options: Any) -> Found:
    """Stays of the PhysioNet/CinC Challenge 2012 with their deaths in hospital; options are those of its reader."""
    import pandas as pd

    cohort = physionet2012.load(str(_listed(table)[0]), **options)
    collector.notes.append(str(cohort.report))
    collector.unit = "h"
    ids = pd.Series(cohort.record_ids)
    wide = pd.DataFrame(cohort.values, columns=list(physionet2012.SERIES))
    collector.columns, collector.layout = _named(collector.columns, id="id", time="time"), "wide"
    collector.add(wide.assign(id=np.repeat(ids.to_numpy(), np.diff(cohort.splits)), time=cohort.times), "the stays")
    collector.ids.codes(map(str, ids))  # stays without a row
    statics = pd.DataFrame(cohort.statics, columns=list(physionet2012.STATICS)).assign(id=ids)
    units = statics["ICUType"]
    statics["ICUType"] = units.where(units.isna(), "unit " + units.fillna(0).astype(int).astype(str))
    if cohort.outcomes is None:
        return None, statics
    return pd.DataFrame({"id": ids, "label": cohort.outcomes["In-hospital_death"]}), statics


def _listed(table: Paths) -> list[str | Path]:
    return [table] if isinstance(table, str | Path) else list(table)


def _words(columns: Columns, *roles: str) -> Callable[[Sequence[str]], list[str | None]]:
    """Columns whose entries are names, "001" among them."""

    def words(names: Sequence[str]) -> list[str | None]:
        asked = [getattr(columns, role) for role in roles]
        given = [name for name in asked if name in names]
        usual = [find(role, None, names, "the table") for role, name in zip(roles, asked, strict=True) if not name]
        return [*given, *usual]

    return words


def _small(path: Paths, columns: Columns) -> pd.DataFrame:
    return whole_table(path, _words(columns, "id"), columns.decimal)


SOURCES: dict[str, Callable[..., Found]] = {
    "table": _table,
    "meds": _meds,
    "psv": _psv,
    "ts": _ts,
    "wfdb": _wfdb,
    "physionet2012": _physionet2012,
}
