"""Files of several formats as one kind of tables; each format is a function of :data:`SOURCES`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ccnn_irregular._checks import require
from ccnn_irregular.datasets.tables.columns import Columns, find
from ccnn_irregular.datasets.tables.files import chunks, table_files, whole_table
from ccnn_irregular.datasets.tables.frames import Collector, Tables, assemble

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SOURCES", "read"]

Paths = str | Path | Sequence[str | Path]


def read(
    table: Paths,
    labels: Paths | None = None,
    statics: Paths | None = None,
    *,
    source: str = "table",
    columns: Columns | None = None,
    **options: Any,
) -> Tables:
    """Series, labels and statics from files.

    Args:
        table: a file, several ones, or folders of files.
        labels: table of an id and a label a row, and of a time where a label holds from what was known by then.
        statics: table of an id and its numbers and categories a row.
        source: format of ``table``, a name in ``SOURCES``.
        columns: names of columns; None = the usual ones.
        **options: ``layout``, ``variables``, ``unit``, ``since``, ``repeats``: see ``from_frames``.

    Raises:
        FileNotFoundError: a file is not there.
        ValueError: from the reader, with the file, the column or the rows at fault.
        ImportError: a package that the format needs is not installed.
    """
    require(source in SOURCES, "source", f"be one of {', '.join(SOURCES)}", repr(source))
    return SOURCES[source](table, labels, statics, columns or Columns(), **options)


def _table(
    table: Paths,
    labels: Paths | None,
    statics: Paths | None,
    columns: Columns,
    *,
    layout: str = "auto",
    variables: Sequence[str] | None = None,
    **options: Any,
) -> Tables:
    """Tables in CSV or Parquet."""
    collector = Collector(columns, variables, layout)
    for path in table_files(table):

        def only(names: Sequence[str], path: Path = path) -> Sequence[str | None]:
            roles = collector.roles(names, path.name)
            return names if roles["variable"] is None else list(roles.values())

        for frame in chunks(path, _words(columns, "id", "variable"), only):
            collector.add(frame, path.name)
    return assemble(collector, _small(labels, columns), _small(statics, columns), **options)


def _words(columns: Columns, *roles: str) -> Callable[[Sequence[str]], list[str | None]]:
    """Columns whose entries are names, "001" among them."""

    def words(names: Sequence[str]) -> list[str | None]:
        asked = [getattr(columns, role) for role in roles]
        given = [name for name in asked if name in names]
        return [
            *given,
            *(find(role, None, names, "the table") for role, name in zip(roles, asked, strict=True) if not name),
        ]

    return words


def _small(path: Paths | None, columns: Columns) -> pd.DataFrame | None:
    import pandas as pd

    if path is None:
        return None
    words = _words(columns, "id")
    return pd.concat([whole_table(file, words) for file in table_files(path)], ignore_index=True)


SOURCES: dict[str, Callable[..., Tables]] = {"table": _table}
