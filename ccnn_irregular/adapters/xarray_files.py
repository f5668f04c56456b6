"""Open netCDF and GRIB files, folders of netCDF files and zarr stores as Datasets, or say why not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, final

import xarray as xr

from ccnn_irregular._checks import reject, require
from ccnn_irregular._files import naming, parsing
from ccnn_irregular._optional import import_optional
from ccnn_irregular.adapters import hdf5_sources, zarr_stores
from ccnn_irregular.adapters.grib import GRIB, open_grib
from ccnn_irregular.adapters.netcdf_classic import require_whole_classic
from ccnn_irregular.adapters.xarray_decoding import decode_times
from ccnn_irregular.adapters.xarray_folders import joined
from ccnn_irregular.adapters.xarray_missing import marked, unpacked_limits
from ccnn_irregular.adapters.xarray_results import without_limits
from ccnn_irregular.adapters.xarray_times import Months
from ccnn_irregular.adapters.xarray_values import named_values

__all__ = ["Reading", "open_cube"]

_HDF5 = b"\x89HDF\r\n\x1a\n"
_CLASSIC = (b"CDF\x01", b"CDF\x02", b"CDF\x05")
# What macOS writes beside a file on a foreign disk, under its name with "._" in front.
_APPLE_DOUBLE = (b"\x00\x05\x16\x07", b"\x00\x05\x16\x00")
_SMALLEST = 8
# What marks the folder of a store, and the names of files that are parts of a cube.
_STORE = ("zarr.json", ".zgroup", ".zmetadata")
_SUFFIXES = (".nc", ".nc4", ".cdf", ".h5")


@final
@dataclass(frozen=True)
class Reading:
    """Options of reading, for what files leave open.

    Attributes:
        group: of a netCDF-4 file or zarr store, "/" = the root; None = the root, which then has to be the only one.
        missing_chunks: accept a zarr store that lacks chunks, and netCDF-4 variables that were not written as a whole.
            They read as the fill value: zarr leaves out chunks that hold nothing else, but a copy that broke off looks
            the same.
        valid_range: values outside ``valid_range``, ``valid_min`` and ``valid_max`` are missing.
        zero_fill_missing: a fill value of 0 of a zarr store of format 2, which arrays without one have too, means
            missing.
        months: what fractions are in "months since" and "years since": "calendar" or "mean", see ``decode_times``;
            None = whole numbers only, by the calendar.
    """

    group: str | None = None
    missing_chunks: bool = False
    valid_range: bool = True
    zero_fill_missing: bool = False
    months: Months | None = None

    def open(self, path: str | Path) -> xr.Dataset:
        """Call ``open_cube`` with these options."""
        return open_cube(path, **asdict(self))


def open_cube(
    path: str | Path,
    *,
    variables: Sequence[str] | None = None,
    chunks: Mapping[str, int] | Literal["auto"] | None = None,
    group: str | None = None,
    missing_chunks: bool = False,
    valid_range: bool = True,
    zero_fill_missing: bool = False,
    months: Months | None = None,
) -> xr.Dataset:
    """Open a netCDF file (classic or HDF5), a GRIB file, a zarr store or a folder of netCDF files as a Dataset.

    The format is read off the content. The files of a folder, and of the folders in it, are parts of one cube: years
    that follow one another, variables beside each other, as reanalyses and WeatherBench are stored. Nothing is filled
    in and nothing dropped: what does not fit together exactly is refused.

    Missing, so nan, are values equal to ``_FillValue`` or ``missing_value``, those that were never written (the netCDF
    library's default fill values), and those outside the valid range, which for packed values is that of the packed
    ones. Integers stay integers where none is missing.

    Args:
        path: of the file, or the folder of the store or of the files (netCDF by their content, or names that end in
            .nc, .nc4, .cdf or .h5).
        variables: those that are kept; None = all.
        chunks: sizes of the blocks of lazy arrays per dimension, {} = those of the file, "auto" = dask's choice;
            None = read when first used, in a folder {}.
        group: see ``Reading``.
        missing_chunks: see ``Reading``.
        valid_range: see ``Reading``.
        zero_fill_missing: see ``Reading``.
        months: see ``Reading``.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: another format, a damaged or truncated file, one compressed in a way that is not installed, one
            whose values lie in other files that are missing, a store with missing chunks, groups of which none is
            named, a variable that is not there, files of a folder that do not fit together, times that are not since
            a date of a calendar (see ``decode_times``); a GRIB file of two fields for one place (``grib.open_grib``).
    """
    path = Path(path)
    reading = Reading(group, missing_chunks, valid_range, zero_fill_missing, months)
    if not path.exists():
        raise FileNotFoundError(f"path must be a netCDF or GRIB file or a zarr store, got {path}, which does not exist")
    if path.is_file() and _start(path)[:4] == GRIB:
        dataset = open_grib(path, chunks, variables)
    elif not path.is_dir():
        dataset = _open_file(path, chunks, reading)
    elif files := _netcdf_files(path):
        import_optional("dask.array", "a folder of files", "files")
        parts = {file: _open_file(file, {} if chunks is None else chunks, reading) for file in files}
        dataset = joined(path, parts, variables)
    else:
        dataset = _open_zarr(path, chunks, reading)
    return dataset if variables is None else _chosen(path, dataset, variables)


def _chosen(path: Path, dataset: xr.Dataset, variables: Sequence[str]) -> xr.Dataset:
    present = sorted(map(str, dataset.data_vars))
    for name in variables:
        require(name in present, "variables", f"be among those of {path}, {present}", repr(name))
    return dataset[list(variables)]


def _netcdf_files(folder: Path) -> list[Path]:
    """List the netCDF files in a folder that is no store, and in the folders in it."""
    if any((folder / name).exists() for name in _STORE):
        return []
    files, stores = [], []
    for path in sorted(folder.rglob("*")):
        if path.name in _STORE:
            stores.append(path.parent)
        elif path.is_file() and not any(store in path.parents for store in stores):
            start = _start(path)
            beside = path.name.startswith("._") and start[:4] in _APPLE_DOUBLE
            netcdf = start == _HDF5 or start[:4] in _CLASSIC or path.suffix.lower() in _SUFFIXES
            files += [path] if netcdf and not beside else []
    rule = "hold netCDF files or be a zarr store; open stores in it one by one"
    require(not files or not stores, str(folder), rule, f"files and the stores {sorted(map(str, set(stores)))[:3]}")
    return files


def _start(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(_SMALLEST)


def _open_file(path: Path, chunks: Any, reading: Reading) -> xr.Dataset:
    start = _start(path)
    if start == _HDF5:
        return _open_hdf5(path, chunks, reading)
    if start[:4] == b"CDF\x05":
        reject(str(path), "be netCDF classic, 64-bit offset or netCDF-4", "the 64-bit data format CDF-5")
    if start[:4] in _CLASSIC:
        rule = "be None or '/' for a classic netCDF file, which has no groups"
        require(reading.group in (None, "/"), "group", rule, repr(reading.group))
        require_whole_classic(path)
        dataset = _opened(path, "scipy", None, reading)
        _require_complete(path, dataset)
        return dataset if chunks is None else dataset.chunk(chunks)
    what = "text" if start.isascii() and start else "bytes that begin with " + repr(start)
    reject(str(path), "be a netCDF or GRIB file or a zarr store", what if start else "an empty file")


def _open_hdf5(path: Path, chunks: Any, reading: Reading) -> xr.Dataset:
    import_optional("h5netcdf", "a netCDF-4 file", "files")
    import h5py

    with parsing(path, "netCDF file"):
        file = h5py.File(path, "r")
    with file:
        _require_group(path, reading, hdf5_sources.groups_with_values(file))
        group = file[reading.group or "/"]
        hdf5_sources.require_filters(path, group)
        hdf5_sources.require_sources(path, group)
        dataset = _opened(path, "h5netcdf", chunks, reading)
        phony = sorted(
            str(name)
            for name, variable in dataset.variables.items()
            if any("phony_dim" in str(d) for d in variable.dims)
        )
        rule = "be a netCDF file, whose dimensions have names (adapters.nifti.read_hdf5 reads volumes without)"
        require(not phony, str(path), rule, f"HDF5 without for {phony[:5]}")
        if not reading.missing_chunks:
            hdf5_sources.require_written(path, group, [str(name) for name in dataset.variables])
    return dataset


def _require_group(path: Path, reading: Reading, groups: Sequence[str]) -> None:
    """Refuse a file of several groups of which none is named, and the name of a group that it lacks."""
    if reading.group is None:
        rule = "have its variables in one group, or be opened with group=... ('/' = the root)"
        require(not groups, str(path), rule, f"the groups {list(groups)}")
    elif reading.group.strip("/"):
        given = "/" + reading.group.strip("/")
        require(given in groups, "group", f"be '/' or one of {list(groups)}", repr(reading.group))


def _open_zarr(path: Path, chunks: Any, reading: Reading) -> xr.Dataset:
    zarr = import_optional("zarr", "a zarr store", "files")
    found = any((path / name).is_file() for name in _STORE)
    names = sorted(entry.name for entry in path.iterdir())[:5]
    require(
        found, str(path), "be a netCDF file or a zarr store", f"a folder of {names}" if names else "an empty folder"
    )
    with zarr_stores.quiet_about_foreign_files():
        with parsing(path, "zarr store"):
            root = zarr.open_group(path, mode="r", use_consolidated=False)
            groups, gone = zarr_stores.groups_with_arrays(root), zarr_stores.lacking_arrays(path)
        require(not gone, str(path), "hold the arrays that its metadata names", f"none named {', '.join(gone)}")
        _require_group(path, reading, groups)
        inner = (reading.group or "").strip("/")
        with parsing(path, "zarr store"):
            lacking = zarr_stores.missing_parts(path / inner, root[inner] if inner else root)
        dataset = _opened(path, "zarr", chunks, reading)
    rule = "hold all chunks, or be opened with missing_chunks=True, where what is missing reads as the fill value"
    require(reading.missing_chunks or not lacking, str(path), rule, f"missing chunks: {lacking}")
    return dataset


@final
class _Cube(xr.backends.BackendEntrypoint):
    """xarray's way to a Dataset by a reader of our own: its laziness and its chunks, our missing values."""

    open_dataset_parameters = ("filename_or_obj", "drop_variables", "engine_name", "reading")

    def open_dataset(  # type: ignore[override]
        self, filename_or_obj: Path, *, drop_variables: Any, engine_name: str, reading: Reading
    ) -> xr.Dataset:
        """Read the variables of the file, decoded, with nan where values are missing."""
        path, zarr = filename_or_obj, engine_name == "zarr"
        with parsing(path, "zarr store" if zarr else "netCDF file"):
            raw = named_values(path, _raw(path, engine_name, reading.group))
            fills = _zarr_fills(path, reading) if zarr else {}
        stored, changed = raw.variables, {}
        for name, variable in stored.items():
            copied = variable.copy(deep=False)
            if name in fills:
                copied.attrs = {key: value for key, value in variable.attrs.items() if key != "_FillValue"}
                copied.attrs |= {} if fills[name] is None else {"_FillValue": fills[name]}
            if variable.encoding.get("shards"):
                # What is stored together is read and written together.
                copied.encoding |= {
                    "preferred_chunks": dict(zip(variable.dims, variable.encoding["shards"], strict=True))
                }
            # Zarr has fill values of its own; only floats from netCDF carry its default ones along.
            options = {"default_fills": not zarr or variable.dtype.kind == "f", "valid_range": reading.valid_range}
            changed[name] = marked(str(path), str(name), copied, **options)
        with parsing(path, "zarr store" if zarr else "netCDF file"):
            decoded = xr.decode_cf(raw.assign(changed), decode_times=False)
        if reading.valid_range:
            for name, variable in decoded.variables.items():
                if name in stored:
                    variable.attrs = unpacked_limits(stored[name], variable)
        decoded.set_close(raw.close)
        return decoded


def _raw(path: Path, engine: str, group: str | None) -> xr.Dataset:
    """Read a group as it is stored, with the coordinates that the groups above it have for its dimensions."""
    names = (group or "").strip("/").split("/") if (group or "").strip("/") else []
    opened_group = _raw_group(path, engine, names)
    opened, raw = ExitStack(), opened_group.copy(deep=False)
    opened.callback(opened_group.close)
    for count in reversed(range(len(names))):
        above = _raw_group(path, engine, names[:count])
        opened.callback(above.close)
        for dim, size in raw.sizes.items():
            if dim not in raw.variables and dim in above.variables and above.sizes.get(dim) == size:
                raw = raw.assign_coords({dim: above.variables[dim]})
    raw.set_close(opened.close)
    return raw


def _raw_group(path: Path, engine: str, names: Sequence[str]) -> xr.Dataset:
    group = "/".join(names) or None
    options: dict[str, Any] = {} if engine == "scipy" else {"group": group}
    if engine == "h5netcdf":
        options["phony_dims"] = "sort"
    if engine == "zarr":
        # The attribute _FillValue is decoded by us: xarray takes it in its own encoding only.
        told = {"consolidated": False, "use_zarr_fill_value_as_mask": True}
        options["store"] = xr.backends.ZarrStore.open_group(path, mode="r", group=group, **told)
    return xr.open_dataset(path, engine=engine, decode_cf=False, cache=False, chunks=None, **options)


def _zarr_fills(path: Path, reading: Reading) -> dict[str, Any]:
    """Return the value that each array of a store calls missing; see ``zarr_stores.stated_fill``."""
    zarr = import_optional("zarr", "a zarr store", "files")
    group = zarr.open_group(path, mode="r", path=(reading.group or "").strip("/"), use_consolidated=False)
    return {name: zarr_stores.stated_fill(array, reading.zero_fill_missing) for name, array in group.arrays()}


def _opened(path: Path, engine: str, chunks: Any, reading: Reading) -> xr.Dataset:
    dataset = xr.open_dataset(path, engine=_Cube, chunks=chunks, engine_name=engine, reading=reading)
    require(len(dataset.variables) > 0, str(path), "hold variables", "none")
    return _with_dates(path, dataset, reading.months)


def _with_dates(path: Path, numbers: xr.Dataset, months: Months | None) -> xr.Dataset:
    """Decode the times of a Dataset; leave out limits in the unit that they had."""
    with naming(path):
        dataset = decode_times(numbers, months)
    for name, variable in dataset.variables.items():
        if variable.dtype != numbers.variables[name].dtype:
            variable.attrs = without_limits(variable.attrs)
    dataset.set_close(numbers.close)
    return dataset


def _require_complete(path: Path, dataset: xr.Dataset) -> None:
    """Check that the last values of each variable are in the file: classic files have no checksum."""
    for name, variable in dataset.variables.items():
        with parsing(path, f"netCDF file, {name!r} too"):
            variable[{dim: slice(-1, None) for dim in variable.dims}].to_numpy()
