"""Tables of irregular series that somebody wrote: long or wide, CSV or Parquet, with statics and labels.

Nothing of a table has to be known in advance: columns are found by their usual names, and :class:`LongSeries` keeps
each variable at times of its own. :func:`read` serves files of several formats, :func:`from_frames` pandas frames.
"""

from __future__ import annotations

from ccnn_irregular.datasets.tables.assembly import from_frames
from ccnn_irregular.datasets.tables.columns import Columns
from ccnn_irregular.datasets.tables.frames import Tables
from ccnn_irregular.datasets.tables.labels import Targets, targets_of
from ccnn_irregular.datasets.tables.long_series import LongSeries
from ccnn_irregular.datasets.tables.sources import SOURCES, read
from ccnn_irregular.datasets.tables.statics import statics_matrix, statics_schema

__all__ = [
    "SOURCES",
    "Columns",
    "LongSeries",
    "Tables",
    "Targets",
    "from_frames",
    "read",
    "statics_matrix",
    "statics_schema",
    "targets_of",
]
