"""Values of files that are read when they are first used, with errors that name the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, final

import xarray as xr
from xarray.core import indexing

from ccnn_irregular._files import parsing

__all__ = ["named_values"]


@final
class _Values(xr.backends.BackendArray):
    def __init__(self, path: Path, array: Any) -> None:
        self.path, self.array, self.shape, self.dtype = path, array, array.shape, array.dtype

    def __getitem__(self, key: Any) -> Any:
        with parsing(self.path, "file, its values too"):
            chosen = indexing.apply_indexer(self.array, key)
            return chosen.get_duck_array() if isinstance(chosen, indexing.ExplicitlyIndexed) else chosen


def named_values(path: Path, raw: xr.Dataset) -> xr.Dataset:
    """The Dataset of a file, whose lazy values raise ``DamagedFileError`` where they cannot be read."""
    lazy = {
        name: xr.Variable(
            one.dims, indexing.LazilyIndexedArray(_Values(path, one._data)), one.attrs, one.encoding, fastpath=True
        )
        for name, one in raw.variables.items()
        if isinstance(one._data, indexing.ExplicitlyIndexed) and not isinstance(one, xr.IndexVariable)
    }
    named = raw.assign(lazy)
    named.set_close(raw.close)
    return named
