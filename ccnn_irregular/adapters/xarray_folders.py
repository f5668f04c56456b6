"""The files of a folder as one cube: joined where they fit together exactly, else refused."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ccnn_irregular._checks import require
from ccnn_irregular.adapters.xarray_decoding import same_resolution
from ccnn_irregular.adapters.xarray_results import PACKING

__all__ = ["joined"]


def joined(folder: Path, parts: Mapping[Path, xr.Dataset], variables: Sequence[str] | None) -> xr.Dataset:
    """Join the files of a folder, opened lazily, to one lazy Dataset of all variables or those that are named.

    Raises:
        ValueError: a variable that is not there, files that do not fit together.
    """
    parts = same_resolution(parts)
    if variables is not None:
        everything = sorted({str(name) for part in parts.values() for name in part.data_vars})
        parts = {path: part[[name for name in variables if name in part]] for path, part in parts.items()}
        parts = {path: part for path, part in parts.items() if part.data_vars}
        present = sorted({str(name) for part in parts.values() for name in part.data_vars})
        lacking = [name for name in variables if name not in present]
        require(not lacking, "variables", f"be among those of {folder}, {everything}", lacking)
    _require_same_units(folder, parts)
    try:
        whole = xr.combine_by_coords(
            list(parts.values()),
            compat="equals",
            join="exact",
            data_vars="minimal",
            coords="minimal",
            combine_attrs="override",
        )
    except (ValueError, TypeError) as error:
        raise ValueError(f"files of {folder} must fit together, got {type(error).__name__}: {error}") from error
    assert isinstance(whole, xr.Dataset)
    _require_apart(folder, parts)
    for name, variable in whole.variables.items():
        packings = [
            {key: str(part.variables[name].encoding.get(key)) for key in PACKING}
            for part in parts.values()
            if name in part.variables
        ]
        # Values of the other files need not fit into the packing of the first.
        if any(packing != packings[0] for packing in packings) and variable.dtype.kind in "iuf":
            variable.encoding = {key: value for key, value in variable.encoding.items() if key not in PACKING}
    return whole


def _require_apart(folder: Path, parts: Mapping[Path, xr.Dataset]) -> None:
    """Refuse files that hold one variable at the same places: of two values only one would be read.

    xarray orders files by the first entries of their coordinates, and merges those that begin alike.
    """
    for name in dict.fromkeys(name for part in parts.values() for name in part.data_vars):
        held = {path: part for path, part in parts.items() if name in part.data_vars}
        places: dict[tuple[Any, ...], Path] = {}
        known: dict[str, dict[Any, Any]] = defaultdict(dict)
        for path, part in held.items():
            place = []
            for dim in sorted(str(dim) for dim in part[name].dims if dim in part.indexes):
                index = part.indexes[dim]
                place.append(_key(index))
                known[dim].setdefault(place[-1], index)
            what = f"values of {name!r} in {folder}"
            other = places.setdefault(tuple(place), path)
            require(other == path, what, "be in one file only", f"the same places in {other.name} and {path.name}")
        for dim, indexes in known.items():
            first, *others = indexes.values()
            whole = first.append(others)
            repeated = whole[whole.duplicated()]
            rule = "be in one file only"
            got = f"{len(repeated)} twice, such as {repeated[:1]}"
            require(len(repeated) == 0, f"entries of {dim!r} in {folder}", rule, got)


def _key(index: Any) -> Any:
    """Return a key that is equal for coordinates of equal entries, so that thousands of files are compared at once."""
    values = index.to_numpy()
    if values.dtype.kind in "iuf":
        return values.astype(np.float64).tobytes()
    return tuple(values) if values.dtype == object else values.tobytes()


def _require_same_units(folder: Path, parts: Mapping[Path, xr.Dataset]) -> None:
    """Refuse files that measure one variable or coordinate in different units; dates are decoded already."""
    seen: dict[str, tuple[str, Path]] = {}
    for path, part in parts.items():
        for name, variable in part.variables.items():
            unit = str(variable.attrs.get("units", ""))
            known, where = seen.setdefault(str(name), (unit, path))
            rule = f"be the same in all files of {folder}"
            require(unit == known, f"units of {name!r}", rule, f"{known!r} in {where.name}, {unit!r} in {path.name}")
