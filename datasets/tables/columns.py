"""Names of columns: as asked for, else the usual ones."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ccnn_irregular._checks import reject, require

__all__ = ["Columns", "find", "plain", "require_decimal", "way_out"]

# Compared without case, spaces and underscores; a table that holds two of them is asked which one is meant.
_USUAL = {
    "id": "id seriesid series subjectid subject patientid patient pid recordid record stayid icustayid hadmid "
    "encounterid caseid sampleid deviceid sensorid instanceid",
    "time": "time times timestamp datetime date charttime observationtime measuredat recordedat hour hours minutes "
    "seconds days t iculos",
    "variable": "variable parameter code itemid item feature channel signal sensor measurementname test testname",
    "value": "value numericvalue valuenum val measurement reading result amount",
    "label": "label labels target outcome class y booleanvalue sepsislabel integervalue floatvalue categoricalvalue",
    "label_time": "time predictiontime labeltime indextime timestamp datetime asof",
}


@dataclass(frozen=True)
class Columns:
    """Names of the columns of one's own tables; None = found by their usual names.

    Attributes:
        id: what each series is called, in all tables.
        time: of a measurement; numbers, dates after ISO 8601 or in ``time_format``.
        variable: name of what was measured, in long tables.
        value: what was measured, in long tables.
        label: in the table of labels.
        label_time: in the table of labels, where a label holds from what was known by then.
        origin: a time of each series from which its times are counted, in any of the tables.
        time_format: of dates that are not ISO 8601, as ``datetime.strptime`` writes it: ``%d.%m.%Y %H:%M``.
        missing: entries that mean that nothing is known, beside empty ones: texts such as ``n/a`` and ``<0.5``, and
            codes such as ``-999``; in all columns but those of ids, times and names of variables. () = nothing does.
            None, or texts alone = no number does, and a variable that holds one of the usual codes apart from all
            others is refused.
        decimal: sign of the fractions in CSV files, ``.`` or ``,``.
    """

    id: str | None = None
    time: str | None = None
    variable: str | None = None
    value: str | None = None
    label: str | None = None
    label_time: str | None = None
    origin: str | None = None
    time_format: str | None = None
    missing: tuple[str | float, ...] | None = None
    decimal: str = "."

    def __post_init__(self) -> None:
        require_decimal(self.decimal)


def require_decimal(sign: str) -> None:
    """Refuse a sign of fractions that is neither point nor comma."""
    require(sign in (".", ","), "data.columns.decimal", "be . or ,", repr(sign))


def way_out(word: Any, decimal: str) -> str:
    """What to type where a word stands among numbers whose fractions are written with a sign."""
    if decimal == "." and re.fullmatch(r"[+-]?\d+,\d+", str(word).strip()):
        return "data.columns.decimal , reads decimal commas"
    if decimal == "," and re.fullmatch(r"[+-]?[\d.]*\.\d+(,\d+)?", str(word).strip()):
        return "with data.columns.decimal , they hold no points, of thousands neither"
    return f"data.columns.missing '[\"{word}\"]' counts it as not known"


def plain(name: str) -> str:
    """A name without case, spaces, underscores and what else is no letter or digit."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


def find(role: str, asked: str | None, present: Iterable[str], where: str) -> str | None:
    """The column of ``present`` that plays a role; None where no usual name is among them.

    Args:
        role: an attribute of ``Columns``.
        asked: its name as an option gives it; None = to be found.
        present: names of all columns.
        where: what is looked at, for messages.

    Raises:
        ValueError: no column of the name asked for, or several usual ones.
    """
    names = [str(name) for name in present]
    if asked is not None:
        require(asked in names, f"data.columns.{role}", f"name a column of {where}: {', '.join(names)}", repr(asked))
        return asked
    found = [name for name in names if plain(name) in _USUAL[role].split()]
    if len(found) > 1:
        reject(f"data.columns.{role}", f"name one of the columns that may be meant in {where}", ", ".join(found))
    return found[0] if found else None
