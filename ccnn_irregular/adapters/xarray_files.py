"""Opening netCDF files and zarr stores as Datasets, or saying why not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import xarray as xr

from ccnn_irregular._checks import reject, require
from ccnn_irregular._optional import import_optional

__all__ = ["open_cube"]

_HDF5 = b"\x89HDF\r\n\x1a\n"
_CLASSIC = (b"CDF\x01", b"CDF\x02")
_SMALLEST = 8


def open_cube(
    path: str | Path, *, chunks: Mapping[str, int] | Literal["auto"] | None = None, missing_chunks: bool = False
) -> xr.Dataset:
    """A netCDF file (classic or HDF5) or a zarr store as a Dataset; the format is read off the content.

    Args:
        path: of the file, or the folder of the store.
        chunks: sizes of the blocks of lazy arrays per dimension, {} = those of the file, "auto" = dask's choice;
            None = read when first used.
        missing_chunks: accept a zarr store that lacks chunks. They read as the fill value: stores leave out chunks
            that hold nothing else, but a copy that broke off looks the same.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: another format, a damaged or truncated file, a store with missing chunks.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"path must be a netCDF file or a zarr store, got {path}, which does not exist")
    if path.is_dir():
        return _open_zarr(path, chunks, missing_chunks)
    with path.open("rb") as stream:
        start = stream.read(_SMALLEST)
    if start == _HDF5:
        import_optional("h5netcdf", "a netCDF-4 file", "files")
        return _opened(path, "h5netcdf", chunks)
    if start[:4] in _CLASSIC:
        dataset = _opened(path, "scipy", None)
        _require_complete(path, dataset)
        return dataset if chunks is None else dataset.chunk(chunks)
    if start[:4] == b"CDF\x05":
        reject(str(path), "be netCDF classic, 64-bit offset or netCDF-4", "the 64-bit data format CDF-5")
    what = "text" if start.isascii() and start else "bytes that begin with " + repr(start)
    reject(str(path), "be a netCDF file or a zarr store", what if start else "an empty file")


def _opened(path: Path, engine: str, chunks: Any) -> xr.Dataset:
    try:
        return xr.open_dataset(path, engine=engine, chunks=chunks)
    except (OSError, ValueError, TypeError, KeyError, IndexError, EOFError, RuntimeError) as error:
        raise ValueError(f"{path} must be a complete netCDF file, got {type(error).__name__}: {error}") from error


def _require_complete(path: Path, dataset: xr.Dataset) -> None:
    """Classic files have no checksum: the last values of each variable must be there."""
    for name, variable in dataset.variables.items():
        try:
            variable[{dim: slice(-1, None) for dim in variable.dims}].to_numpy()
        except (OSError, ValueError, TypeError, IndexError, RuntimeError) as error:
            raise ValueError(f"{path} must be a complete netCDF file, got {name!r} cut short: {error}") from error


def _open_zarr(path: Path, chunks: Any, missing_chunks: bool) -> xr.Dataset:
    zarr = import_optional("zarr", "a zarr store", "files")
    found = any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zmetadata"))
    names = sorted(one.name for one in path.iterdir())[:5]
    require(
        found, str(path), "be a netCDF file or a zarr store", f"a folder of {names}" if names else "an empty folder"
    )
    try:
        group = zarr.open_group(path, mode="r")
        lacking = {
            name: f"{array.nchunks - array.nchunks_initialized} of {array.nchunks}"
            for name, array in group.arrays()
            if array.nchunks_initialized < array.nchunks
        }
        dataset = xr.open_dataset(path, engine="zarr", chunks=chunks, consolidated=False)
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise ValueError(f"{path} must be a complete zarr store, got {type(error).__name__}: {error}") from error
    rule = "hold all chunks, or be opened with missing_chunks=True, where what is missing reads as the fill value"
    require(missing_chunks or not lacking, str(path), rule, f"missing chunks: {lacking}")
    return dataset
