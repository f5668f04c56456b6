"""Files of observations as tables: CSV, Parquet, netCDF with a discrete sampling geometry."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ccnn_irregular._files import parsing
from ccnn_irregular._optional import import_optional
from ccnn_irregular.datasets.observations.columns import ROLES, is_measured
from ccnn_irregular.datasets.reading.csv_text import csv_layout, in_utf8

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Table", "read_table"]

_PARQUET, _NETCDF = (".parquet", ".pq"), (".nc", ".nc4", ".cdf", ".zarr")
_TEXTS: dict[str, Any] = {"dtype": str, "keep_default_na": False, "index_col": False}


@dataclass(frozen=True)
class Table:
    """A table as it was read.

    Attributes:
        frame: texts of CSV files are kept as they are.
        units: of columns, where the file says any.
        roles: column of each role, where the file says it.
        measured: columns that are measured, where the file says it.
    """

    frame: pd.DataFrame
    units: dict[str, str] = field(default_factory=dict)
    roles: dict[str, str] = field(default_factory=dict)
    measured: tuple[str, ...] = ()


def read_table(path: str | Path) -> Table:
    """A table from CSV (also .gz; separated by commas, semicolons, tabs or bars), Parquet, or netCDF of CF's samplings.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that cannot be read as what its name says.
    """
    pd = import_optional("pandas", "a table of stations", "files")
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"data.table must be a CSV, Parquet or netCDF file, got no file {path}")
    suffix = path.suffixes[-1].lower() if path.suffixes else ""
    if suffix in _NETCDF:
        return _of_netcdf(path)
    with parsing(path, "table with a line of column names"), in_utf8(path):
        return _of_parquet(path) if suffix in _PARQUET else Table(pd.read_csv(path, **csv_layout(path), **_TEXTS))


def _of_parquet(path: Path) -> Table:
    pd = import_optional("pandas", "a table of stations", "files")
    import_optional("pyarrow", "a Parquet file", "formats")
    frame = pd.read_parquet(path)
    return Table(frame if isinstance(frame.index, pd.RangeIndex) else frame.reset_index())


def _of_netcdf(path: Path) -> Table:
    """A discrete sampling geometry; CF conventions say what its variables are."""
    from ccnn_irregular.adapters.xarray_discrete import observations
    from ccnn_irregular.adapters.xarray_files import open_cube
    from ccnn_irregular.adapters.xarray_roles import cf_roles

    with open_cube(path) as dataset:
        flat = observations(dataset).load()
        numeric = {str(name) for name, array in dataset.data_vars.items() if array.dtype.kind in "iuf"}
        sizes = dataset.sizes
        dims = {name: dataset[name].dims for name in numeric & set(map(str, flat.data_vars))}
    roles: dict[str, str] = {}
    for name, role in {key: role for array in flat.data_vars.values() for key, role in cf_roles(array).items()}.items():
        roles.setdefault("level" if role == "vertical" else role, name)
    identified = {str(variable.attrs.get("cf_role")): str(name) for name, variable in flat.variables.items()}
    for kind in ("timeseries_id", "trajectory_id", "profile_id"):
        if kind in identified:
            roles.setdefault("station", identified[kind])
    units = {
        str(name): str(variable.attrs["units"])
        for name, variable in flat.variables.items()
        if "units" in variable.attrs
    }
    frame = flat.reset_coords().to_dataframe().reset_index(drop=True)
    # Heights of stations and the like are repeated, not measured: they run along the features.
    most = max(dims.values(), key=lambda along: np.prod([sizes[dim] for dim in along]), default=())
    measured = [name for name in map(str, flat.data_vars) if dims.get(name) == most and name not in roles.values()]
    measured = [name for name in measured if is_measured(name)]
    return Table(frame, units, {role: name for role, name in roles.items() if role in ROLES}, tuple(measured))
