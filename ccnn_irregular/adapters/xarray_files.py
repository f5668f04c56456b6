"""Opening netCDF files, folders of them and zarr stores as Datasets, or saying why not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import xarray as xr

from ccnn_irregular._checks import reject, require
from ccnn_irregular._optional import import_optional
from ccnn_irregular.adapters.xarray_times import Months, decode_times, same_resolution

__all__ = ["open_cube"]

_HDF5 = b"\x89HDF\r\n\x1a\n"
_CLASSIC = (b"CDF\x01", b"CDF\x02")
_SMALLEST = 8
# What marks the folder of a store, and the names of files that are parts of a cube.
_STORE = ("zarr.json", ".zgroup", ".zmetadata")
_SUFFIXES = (".nc", ".nc4", ".cdf", ".h5")


def open_cube(
    path: str | Path,
    *,
    variables: Sequence[str] | None = None,
    chunks: Mapping[str, int] | Literal["auto"] | None = None,
    missing_chunks: bool = False,
    months: Months | None = None,
) -> xr.Dataset:
    """A netCDF file (classic or HDF5), a zarr store or a folder of netCDF files as a Dataset.

    The format is read off the content. The files of a folder, and of the folders in it, are parts of one cube: years
    that follow one another, variables beside each other, as reanalyses and WeatherBench are stored. Nothing is filled
    in and nothing dropped: what does not fit together exactly is refused.

    Args:
        path: of the file, or the folder of the store or of the files (names that end in .nc, .nc4, .cdf or .h5).
        variables: those that are kept; None = all.
        chunks: sizes of the blocks of lazy arrays per dimension, {} = those of the file, "auto" = dask's choice;
            None = read when first used, in a folder {}.
        missing_chunks: accept a zarr store that lacks chunks. They read as the fill value: stores leave out chunks
            that hold nothing else, but a copy that broke off looks the same.
        months: what fractions are in "months since" and "years since": "calendar" or "mean", see ``decode_times``;
            None = whole numbers only, by the calendar.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: another format, a damaged or truncated file, one compressed in a way that is not installed, a store
            with missing chunks, a variable that is not there, files of a folder that do not fit together, times that
            are not since a date of a calendar (see ``decode_times``).
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"path must be a netCDF file or a zarr store, got {path}, which does not exist")
    if not path.is_dir():
        dataset = _open_file(path, chunks, months)
    elif files := _netcdf_files(path):
        dataset = _open_folder(path, files, variables, {} if chunks is None else chunks, months)
    else:
        dataset = _with_dates(path, _open_zarr(path, chunks, missing_chunks), months)
    return dataset if variables is None else _chosen(path, dataset, variables)


def _chosen(path: Path, dataset: xr.Dataset, variables: Sequence[str]) -> xr.Dataset:
    there = sorted(map(str, dataset.data_vars))
    for name in variables:
        require(name in there, "variables", f"be of those in {path}, {there}", repr(name))
    return dataset[list(variables)]


def _netcdf_files(folder: Path) -> list[Path]:
    """Files in a folder that is no store, and in those in it."""
    if any((folder / name).exists() for name in _STORE):
        return []
    return sorted(path for path in folder.rglob("*") if path.suffix in _SUFFIXES and path.is_file())


def _open_folder(
    folder: Path, files: Sequence[Path], variables: Sequence[str] | None, chunks: Any, months: Months | None
) -> xr.Dataset:
    """All files as one lazy Dataset."""
    import_optional("dask.array", "a folder of files", "files")
    parts = same_resolution({path: _open_file(path, chunks, months) for path in files})
    if variables is not None:
        parts = {path: part[[name for name in variables if name in part]] for path, part in parts.items()}
        parts = {path: part for path, part in parts.items() if part.data_vars}
        there = sorted({str(name) for part in parts.values() for name in part.data_vars})
        lacking = [name for name in variables if name not in there]
        everything = (
            sorted({str(name) for path in files for name in _open_file(path, chunks, months).data_vars})
            if lacking
            else []
        )
        require(not lacking, "variables", f"be of those in {folder}, {everything}", lacking)
    _require_same_units(folder, parts)
    try:
        joined = xr.combine_by_coords(
            list(parts.values()),
            compat="equals",
            join="exact",
            data_vars="minimal",
            coords="minimal",
            combine_attrs="override",
        )
    except (ValueError, TypeError) as error:
        raise ValueError(f"files of {folder} must fit together, got {type(error).__name__}: {error}") from error
    for name, index in joined.indexes.items():
        repeated = index[index.duplicated()]
        rule = "be in one file only"
        require(
            len(repeated) == 0,
            f"entries of {name!r} in {folder}",
            rule,
            f"{len(repeated)} twice, such as {repeated[:1]}",
        )
    assert isinstance(joined, xr.Dataset)
    return joined


def _require_same_units(folder: Path, parts: Mapping[Path, xr.Dataset]) -> None:
    """Refuse files that measure one variable or coordinate in different units; dates are decoded already."""
    seen: dict[str, tuple[str, Path]] = {}
    for path, part in parts.items():
        for name, one in part.variables.items():
            unit = str(one.attrs.get("units", ""))
            known, where = seen.setdefault(str(name), (unit, path))
            rule = f"be the same in all files of {folder}"
            require(unit == known, f"units of {name!r}", rule, f"{known!r} in {where.name}, {unit!r} in {path.name}")


def _open_file(path: Path, chunks: Any, months: Months | None) -> xr.Dataset:
    return _with_dates(path, _open_numbers(path, chunks), months)


def _with_dates(path: Path, dataset: xr.Dataset, months: Months | None) -> xr.Dataset:
    """Decode what was opened with times as numbers."""
    try:
        return decode_times(dataset, months)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _open_numbers(path: Path, chunks: Any) -> xr.Dataset:
    """A file with times as the numbers it holds."""
    with path.open("rb") as stream:
        start = stream.read(_SMALLEST)
    if start == _HDF5:
        import_optional("h5netcdf", "a netCDF-4 file", "files")
        dataset = _opened(path, "h5netcdf", chunks, phony_dims="sort")
        phony = sorted(
            str(name) for name, one in dataset.variables.items() if any("phony_dim" in str(d) for d in one.dims)
        )
        rule = "be a netCDF file, whose dimensions have names (adapters.nifti.read_hdf5 reads volumes without)"
        require(not phony, str(path), rule, f"HDF5 without for {phony[:5]}")
        _require_readable(path)
        return dataset
    if start[:4] in _CLASSIC:
        dataset = _opened(path, "scipy", None)
        _require_complete(path, dataset)
        return dataset if chunks is None else dataset.chunk(chunks)
    if start[:4] == b"CDF\x05":
        reject(str(path), "be netCDF classic, 64-bit offset or netCDF-4", "the 64-bit data format CDF-5")
    what = "text" if start.isascii() and start else "bytes that begin with " + repr(start)
    reject(str(path), "be a netCDF file or a zarr store", what if start else "an empty file")


def _opened(path: Path, engine: str, chunks: Any, **options: Any) -> xr.Dataset:
    try:
        return xr.open_dataset(path, engine=engine, chunks=chunks, decode_times=False, **options)
    except (OSError, ValueError, TypeError, KeyError, IndexError, EOFError, RuntimeError) as error:
        raise ValueError(f"{path} must be a complete netCDF file, got {type(error).__name__}: {error}") from error


def _require_readable(path: Path) -> None:
    """Values may be compressed or encrypted by filters of other programs, which HDF5 only finds out when reading."""
    import h5py

    lacking: dict[str, list[int]] = {}

    def look(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            plan = item.id.get_create_plist()
            filters = [plan.get_filter(place)[0] for place in range(plan.get_nfilters())]
            missing = [number for number in filters if not h5py.h5z.filter_avail(number)]
            lacking.update({name: missing} if missing else {})

    with h5py.File(path, "r") as file:
        file.visititems(look)
    require(not lacking, str(path), "be stored with HDF5 filters that are installed", f"filters by number {lacking}")


def _require_complete(path: Path, dataset: xr.Dataset) -> None:
    """Classic files have no checksum: the last values of each variable must be there."""
    for name, variable in dataset.variables.items():
        try:
            variable[{dim: slice(-1, None) for dim in variable.dims}].to_numpy()
        except (OSError, ValueError, TypeError, IndexError, RuntimeError) as error:
            raise ValueError(f"{path} must be a complete netCDF file, got {name!r} cut short: {error}") from error


def _open_zarr(path: Path, chunks: Any, missing_chunks: bool) -> xr.Dataset:
    zarr = import_optional("zarr", "a zarr store", "files")
    found = any((path / name).is_file() for name in _STORE)
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
        dataset = xr.open_dataset(path, engine="zarr", chunks=chunks, consolidated=False, decode_times=False)
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise ValueError(f"{path} must be a complete zarr store, got {type(error).__name__}: {error}") from error
    rule = "hold all chunks, or be opened with missing_chunks=True, where what is missing reads as the fill value"
    require(missing_chunks or not lacking, str(path), rule, f"missing chunks: {lacking}")
    return dataset
