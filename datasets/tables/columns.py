"""Names of columns: as asked for, else the usual ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ccnn_irregular._checks import reject, require
from ccnn_irregular.datasets.reading.numbers import require_decimal
from ccnn_irregular.datasets.reading.usual_names import usual

__all__ = ["Columns", "find"]


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
    found = usual(role, names)
    if len(found) > 1:
        joined = " (a date and a time of day are joined into one column first)" if role == "time" else ""
        rule = f"name one of the columns that may be meant in {where}{joined}"
        reject(f"data.columns.{role}", rule, ", ".join(found))
    return found[0] if found else None
