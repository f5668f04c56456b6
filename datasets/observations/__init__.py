"""Tables of observations: columns by their usual names, times with or without zone, texts kept as they are."""

from ccnn_irregular.datasets.observations.columns import StationColumns, usual_role
from ccnn_irregular.datasets.observations.files import read_table
from ccnn_irregular.datasets.observations.observations import Observations

__all__ = ["Observations", "StationColumns", "read_table", "usual_role"]
