"""Tables: columns, what they usually mean, what looks wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ccnn_irregular._checks import require
from ccnn_irregular._optional import import_optional
from ccnn_irregular.datasets.reading.csv_text import csv_layout, in_utf8
from ccnn_irregular.datasets.reading.dates import format_of_numbers
from ccnn_irregular.datasets.reading.usual_names import plain, usual
from ccnn_irregular.datasets.tables.columns import find
from ccnn_irregular.datasets.tables.frames import long_way
from ccnn_irregular.pipelines.inspection.found import CLASS_NAMES, LISTED, Found, suffix_of

__all__ = ["table"]

_ROWS = 200_000  # of a table that are looked at
_OWN_COLUMNS = ("--config series --data.table", "--config stations")  # of commands that take --data.columns
_NAMES = {"z": ("z", "height", "elevation"), "class": CLASS_NAMES}


def table(path: Path) -> Found:
    """A table in CSV, text or Parquet: its columns, and what it is by their names."""
    pandas = import_optional("pandas", "reading tables", "files")
    if suffix_of(path) == ".parquet":
        import_optional("pyarrow", "reading Parquet", "formats")
        frame = pandas.read_parquet(path)
    else:
        frame = _read_csv(pandas, path)
    found = Found(
        f"a table of {len(frame):,}{' or more' if len(frame) == _ROWS else ''} rows, {frame.shape[1]} columns"
    )
    meant = _meant(list(map(str, frame.columns)))
    commas, doubts = _read_numbers(pandas, frame, [meant[one] for one in ("id", "time", "variable") if one in meant])
    found.doubts += doubts
    if "time" not in meant and (dates := _dates(frame)) is not None:
        meant["time"] = dates
    pattern = None
    if "time" in meant:
        frame[meant["time"]], pattern, doubts = _read_dates(pandas, frame[meant["time"]])
        found.doubts += doubts
    for name in list(frame.columns)[:LISTED]:
        found.facts[str(name)] = _column(pandas, frame[name])
    if frame.shape[1] > LISTED:
        found.facts["..."] = f"{frame.shape[1] - LISTED} more columns"
    _name_table(path, pandas, frame, meant, found)
    if found.next is not None and meant:
        if any(config in found.next for config in _OWN_COLUMNS):
            found.next += " --data.columns.decimal ," if commas else ""
            found.next += f" --data.columns.time_format '{pattern}'" if pattern else ""
        found.next += _options(found.next, meant, list(map(str, frame.columns)))
    return found


def _read_dates(pandas: Any, words: Any) -> tuple[Any, str | None, list[str]]:
    """Texts or numbers as dates, how they are written and what to say where they are not those of ISO 8601."""
    if pandas.api.types.is_numeric_dtype(words):
        pattern = format_of_numbers(words.to_numpy(np.float64, na_value=np.nan))
        if pattern is None:
            return words, None, []
        known = words.dropna().astype("int64").astype(str)
        dates = pandas.to_datetime(known, errors="coerce", utc=True, format=pattern).reindex(words.index)
        return dates, pattern, [f"dates written as numbers ({known.iloc[0]}): --data.columns.time_format '{pattern}'"]
    for pattern in ("%d.%m.%Y %H:%M", "%d.%m.%Y", "%d.%m.%Y %H:%M:%S"):
        dates = pandas.to_datetime(words, errors="coerce", utc=True, format=pattern)
        if dates.notna().any() and dates.notna().sum() == words.notna().sum():
            return dates, pattern, [f"dates such as {words.dropna().iloc[0]}: --data.columns.time_format '{pattern}'"]
    dates = pandas.to_datetime(words, errors="coerce", utc=True, format="ISO8601")
    bad = words[dates.isna() & words.notna()]
    told = [f"{len(bad):,} times that are no dates of ISO 8601, such as {bad.iloc[0]}"] if len(bad) else []
    return (dates if dates.notna().any() else words), None, told


def _dates(frame: Any) -> str | None:
    """The first column that begins with dates, whatever its name."""
    for name in frame.select_dtypes(exclude="number"):
        texts = frame[name].dropna().astype(str)
        if len(texts) and texts.str.match(r"\d{4}-\d\d-\d\d|\d{1,2}[./]\d{1,2}[./]\d{4}").all():
            return str(name)
    return None


def _read_csv(pandas: Any, path: Path) -> Any:
    require(path.stat().st_size > 0, str(path), "hold a line of names and rows", "an empty file")
    with in_utf8(path):
        layout = csv_layout(path)
        names = list(pandas.read_csv(path, nrows=0, **layout).columns)
        meant = _meant(list(map(str, names)))
        kinds = {meant[role]: str for role in ("id", "variable") if role in meant}  # 0012 is not the number 12
        return pandas.read_csv(path, nrows=_ROWS, dtype=kinds, **layout)


def _read_numbers(pandas: Any, frame: Any, but: list[str]) -> tuple[list[str], list[str]]:
    """Make numbers of columns of texts that hold mostly such, in place; those with decimal commas, and what to say."""
    commas: list[str] = []
    words: dict[str, None] = {}  # in their order
    for name in frame.columns.difference(but, sort=False):
        column = frame[name]
        if pandas.api.types.is_numeric_dtype(column) or pandas.api.types.is_datetime64_any_dtype(column):
            continue
        texts = column.dropna().astype(str)
        comma = texts.str.fullmatch(r"\s*[+-]?\d+,\d+\s*")
        numbers = pandas.to_numeric(texts.where(~comma, texts.str.replace(",", ".")), errors="coerce")
        if not numbers.notna().any() or numbers.notna().mean() < 0.5:
            continue
        commas += [str(name)] if comma.any() else []
        words |= dict.fromkeys(texts[numbers.isna()].unique()[:LISTED])
        frame[name] = numbers.reindex(frame.index)
    doubts = [f"decimal commas in {', '.join(commas)}: --data.columns.decimal ,"] if commas else []
    typed = " ".join(f"'{word}'" for word in words)
    doubts += [f"texts among numbers: --data.columns.missing {typed} where they mean missing"] if words else []
    return commas, doubts


def _meant(columns: list[str]) -> dict[str, str]:
    """The column of each usual meaning, of several ones the likeliest."""
    found: dict[str, str] = {}
    for meaning in ("latitude", "longitude", "x", "y", "z", "class", "id", "time", "variable", "value"):
        free = [name for name in columns if name not in found.values()]
        if meaning in _NAMES:
            met = [name for word in _NAMES[meaning] for name in free if plain(name) == word]
        else:
            met = usual(meaning, free) or (usual("station", free) if meaning == "id" else [])
        if met:
            found[meaning] = met[0]
    return found


def _options(command: str, meant: Mapping[str, str], names: list[str]) -> str:
    """Options that name the columns which training would not find by itself."""
    if _OWN_COLUMNS[0] in command:
        roles = ["id", "time", *(["variable", "value"] if {"variable", "value"} <= set(meant) else [])]
        found = {role: _found(role, names) for role in roles}
    elif _OWN_COLUMNS[1] in command:
        found = {"time": next(iter(usual("date", names)), None)}
    else:
        return ""
    asked = [role for role, name in found.items() if role in meant and name != meant[role]]
    return "".join(f" --data.columns.{role} '{meant[role]}'" for role in asked)


def _found(role: str, columns: list[str]) -> str | None:
    """The column that training would take without being told."""
    try:
        return find(role, None, columns, "the table")
    except ValueError:  # several may be meant
        return None


def _column(pandas: Any, column: Any) -> str:
    """Type, range and share of missing values."""
    missing = float(column.isna().mean())
    told = f", {missing:.1%} missing" if missing else ""
    known = column.dropna()
    if not len(known):
        return f"empty{told}"
    if pandas.api.types.is_numeric_dtype(column) or pandas.api.types.is_datetime64_any_dtype(column):
        return f"{column.dtype}, {known.min()} to {known.max()}{told}"
    words = known.astype(str)
    shown = ", ".join(f"{word} ({count})" for word, count in words.value_counts().head(4).items())
    return f"{words.nunique()} words: {shown}{', ...' if words.nunique() > 4 else ''}{told}"


def _name_table(path: Path, pandas: Any, frame: Any, meant: Mapping[str, str], found: Found) -> None:
    """What kind of table it is, what looks wrong in one of that kind, and the command."""
    rest = [str(name) for name in frame.columns if str(name) not in meant.values()]
    if {"latitude", "longitude"} <= set(meant) or ({"x", "y", "time"} <= set(meant)):
        found.what += ", values at places"
        found.doubts += _wrong_places(frame, meant)
        found.next = f"ccnn fit --config stations --data.table {path} --run_dir runs/mine"
    elif {"id", "time"} <= set(meant):
        long = {"variable", "value"} <= set(meant)
        keys = [meant[name] for name in ("id", "time", *(["variable"] if long else []))]
        found.what += f", series in {'long' if long else 'wide'} form"
        found.facts["series"] = f"{frame[meant['id']].nunique():,}, by the column {meant['id']}"
        found.facts["variables"] = str(frame[meant["variable"]].nunique()) if long else f"{len(rest)} columns"
        found.facts["gaps"] = _gaps(pandas, frame, meant)
        found.next = f"ccnn fit --config series --data.table {path} --data.labels LABELS.csv --run_dir runs/mine"
        if twice := int(frame.duplicated(keys).sum()):
            others = frame.columns.difference(keys, sort=False)
            numbers = [name for name in others if pandas.api.types.is_numeric_dtype(frame[name])]
            way = "" if long else long_way(frame, keys, [name for name in others if name not in numbers], numbers)
            told = f"looks like a long table: {way}" if way else "--data.repeats mean"
            found.doubts.append(f"{twice:,} rows repeat another one's {', '.join(keys)}: {told}")
            found.next += f" {way or '--data.repeats mean'}"
    elif "id" in meant and "class" in meant and not {"x", "y"} & set(meant):
        found.what += f", labels of series in the column {meant['class']}"
        found.next = f"ccnn fit --config series --data.table VALUES.csv --data.labels {path} --run_dir runs/mine"
    elif {"x", "y", "z"} <= set(meant):
        found.what += ", a cloud of points"
        found.next = f"ccnn fit --config clouds --data.root {path.parent} --run_dir runs/mine"
    elif suffix_of(path) == ".psv":
        found.what += ", a stay of the PhysioNet challenge of 2019"
        found.next = f"ccnn fit --config series --data.source psv --data.table {path.parent} --run_dir runs/mine"
    elif "id" in meant and "time" not in meant and len(rest) and frame[meant["id"]].is_unique:
        found.what += ", a row a series: a table of labels? give it to --data.labels"
        found.next = f"ccnn fit --config series --data.table VALUES.csv --data.labels {path} --run_dir runs/mine"
        found.next += " --data.columns.label NAME" if len(rest) > 1 else ""
    else:
        found.doubts.append(
            "no columns have the usual names of id and time, latitude and longitude, or x, y and z: name them by "
            "--data.columns.id NAME --data.columns.time NAME, or .latitude, .longitude"
        )
        found.next = f"ccnn fit --config series --data.table {path} --data.labels LABELS.csv --data.columns.id NAME"
    found.doubts += _wrong_numbers(frame)


def _wrong_numbers(frame: Any) -> list[str]:
    """What to say of infinite numbers and of those that may stand for missing ones."""
    numeric = list(frame.select_dtypes("number"))
    infinite = [str(name) for name in numeric if np.isinf(frame[name].to_numpy(float)).any()]
    doubts = [f"infinite values in {', '.join(infinite)}"] if infinite else []
    codes = (-9999, -999, 9999, 99999)
    coded = {str(name): [code for code in codes if frame[name].eq(code).any()] for name in numeric}
    met = [code for code in codes if any(code in held for held in coded.values())]
    names = ", ".join(name for name, held in coded.items() if held)
    typed = " ".join(map(str, met))
    text = f"{names}: -9999 or the like, perhaps a mark of missing values: --data.columns.missing {typed}"
    return doubts + ([text] if met else [])


def _gaps(pandas: Any, frame: Any, meant: Mapping[str, str]) -> str:
    """Median and largest gap within a series."""
    if frame[meant["time"]].dtype.kind not in "iufM":
        return "not known: its times are not read"
    held = pandas.DataFrame({"id": frame[meant["id"]], "time": frame[meant["time"]]})
    ordered = held.drop_duplicates().sort_values(["id", "time"])
    gaps = ordered.groupby("id")["time"].diff().dropna()
    return f"{gaps.median()} the median one, {gaps.max()} the longest" if len(gaps) else "none: one time a series"


def _wrong_places(frame: Any, meant: Mapping[str, str]) -> list[str]:
    limits = {"latitude": (-90, 90), "longitude": (-180, 360)}
    wrong = [meant[name] for name in limits if name in meant and frame[meant[name]].dtype.kind not in "iuf"]
    if wrong:
        return [f"{', '.join(wrong)}: texts, where degrees should be"]
    return [
        f"{meant[name]} beyond {low} to {high}"
        for name, (low, high) in limits.items()
        if name in meant and not frame[meant[name]].dropna().between(low, high).all()
    ]
