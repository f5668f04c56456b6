"""Files that lack a part are refused by name, and whole ones are not; each part is taken away by hand."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import h5netcdf.legacyapi as netcdf4
import h5py
import numpy as np
import pytest
import xarray as xr
import zarr
from scipy.io import netcdf_file

from ccnn_irregular.adapters.nifti import read_hdf5
from ccnn_irregular.adapters.xarray import open_cube

pytestmark = pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part")


def field(times: int = 3, start: str = "2001-01-01", **scalars: Any) -> xr.Dataset:
    values = np.random.default_rng(0).normal(280, 5, (times, 4, 6)).astype("f4")
    coordinates = {
        "time": xr.date_range(start, periods=times),
        "lat": ("lat", np.arange(4.0), {"units": "degrees_north"}),
        "lon": ("lon", np.arange(6.0), {"units": "degrees_east"}),
        **scalars,
    }
    return xr.Dataset({"t": (("time", "lat", "lon"), values, {"units": "K"})}, coordinates)


# HDF5


def scaled(file: h5py.File, size: int) -> None:
    file["x"] = np.arange(float(size))
    file["x"].make_scale("x")
    file["t"].dims[0].attach_scale(file["x"])


def virtual_file(folder: Path, source: str = "part.h5", size: int = 10) -> Path:
    layout = h5py.VirtualLayout((size,), "f8")
    layout[:10] = h5py.VirtualSource(source, "inner", (10,))
    with h5py.File(folder / "whole.nc", "w") as file:
        file.create_virtual_dataset("t", layout)
        scaled(file, size)
    return folder / "whole.nc"


def test_a_virtual_source_that_is_missing_is_named(tmp_path: Path) -> None:
    path = virtual_file(tmp_path)
    with pytest.raises(ValueError, match=r"dataset 't' of .*whole.nc must have the files .*, got none named part.h5"):
        open_cube(path)
    with h5py.File(tmp_path / "part.h5", "w") as file:
        file["another"] = np.arange(10.0)
    with pytest.raises(ValueError, match=r"dataset 't' of .* got .*part.h5 without 'inner'"):
        open_cube(path)
    with h5py.File(tmp_path / "part.h5", "a") as file:
        file["inner"] = np.arange(7.0)
    with pytest.raises(ValueError, match=r"'inner' in .*part.h5 of shape \(7,\), which is less than was taken"):
        open_cube(path)
    with h5py.File(tmp_path / "part.h5", "w") as file:
        file["inner"] = np.arange(10.0) + 1
    with open_cube(path) as dataset:
        np.testing.assert_array_equal(dataset["t"], np.arange(10.0) + 1)
    (tmp_path / "part.h5").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"part.h5 must be a complete HDF5 file, of which .* takes values"):
        open_cube(path)


def test_sources_of_sources_are_looked_at(tmp_path: Path) -> None:
    path = virtual_file(tmp_path)
    layout = h5py.VirtualLayout((10,), "f8")
    layout[:] = h5py.VirtualSource("deep.h5", "core", (10,))
    with h5py.File(tmp_path / "part.h5", "w") as file:
        file.create_virtual_dataset("inner", layout)
    with pytest.raises(ValueError, match=r"dataset 'inner' of .*part.h5 must have .*, got none named deep.h5"):
        open_cube(path)
    with h5py.File(tmp_path / "deep.h5", "w") as file:
        file["core"] = np.arange(10.0)
    with open_cube(path) as dataset:
        np.testing.assert_array_equal(dataset["t"], np.arange(10.0))


def test_numbered_sources_must_have_no_gap(tmp_path: Path) -> None:
    """As detectors write them: a file for every ten entries, as many as there are."""
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    whole = h5py.h5s.create_simple((30,), (h5py.h5s.UNLIMITED,))
    whole.select_hyperslab((0,), (h5py.h5s.UNLIMITED,), (10,), (10,))
    plan.set_virtual(whole, b"part%b.h5", b"inner", h5py.h5s.create_simple((10,)))
    with h5py.File(tmp_path / "whole.nc", "w") as file:
        space = h5py.h5s.create_simple((30,), (h5py.h5s.UNLIMITED,))
        h5py.h5d.create(file.id, b"t", h5py.h5t.NATIVE_DOUBLE, space, plan)
        scaled(file, 30)
    for number in (0, 1, 2):
        with h5py.File(tmp_path / f"part{number}.h5", "w") as file:
            file["inner"] = np.arange(10.0) + 10 * number
    with open_cube(tmp_path / "whole.nc") as dataset:
        np.testing.assert_array_equal(dataset["t"], np.arange(30.0))
    (tmp_path / "part1.h5").unlink()
    with pytest.raises(ValueError, match=r"got none named part%b.h5"):
        open_cube(tmp_path / "whole.nc")


def test_what_no_source_covers_was_never_written(tmp_path: Path) -> None:
    path = virtual_file(tmp_path, size=12)
    with h5py.File(tmp_path / "part.h5", "w") as file:
        file["inner"] = np.arange(10.0)
    with pytest.raises(ValueError, match=r"all values of 't' in .* must be written, .*, got sources for 10 of 12"):
        open_cube(path)


def test_external_values_that_are_missing_or_short_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with h5py.File("whole.nc", "w") as file:
        file.create_dataset("t", (10,), "f8", external=[("values.bin", 16, 80)])[:] = np.arange(10.0) + 1
        scaled(file, 10)
    with open_cube("whole.nc") as dataset:
        np.testing.assert_array_equal(dataset["t"], np.arange(10.0) + 1)
    content = Path("values.bin").read_bytes()
    Path("values.bin").write_bytes(content[:-8])
    with pytest.raises(ValueError, match=r"dataset 't' of whole.nc .* got values.bin of 88 bytes in place of 96"):
        open_cube("whole.nc")
    os.remove("values.bin")
    with pytest.raises(ValueError, match=r"dataset 't' of whole.nc must have the files .*, got none at values.bin"):
        open_cube("whole.nc")


def test_links_that_lead_nowhere_are_named(tmp_path: Path) -> None:
    for link in (h5py.SoftLink("/nowhere"), h5py.ExternalLink("gone.h5", "/nowhere")):
        field().to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
        with h5py.File(tmp_path / "a.nc", "a") as file:
            file["u"] = link
        with pytest.raises(ValueError, match=r"link 'u' in .*a.nc must lead to an object that exists, got /nowhere"):
            open_cube(tmp_path / "a.nc")


def test_volumes_with_missing_sources_are_refused(tmp_path: Path) -> None:
    layout = h5py.VirtualLayout((2, 3, 4), "f4")
    layout[:] = h5py.VirtualSource("part.h5", "inner", (2, 3, 4))
    with h5py.File(tmp_path / "volume.h5", "w") as file:
        file.create_virtual_dataset("raw", layout)
    with pytest.raises(ValueError, match=r"dataset 'raw' of .*volume.h5 must have the files .*part.h5"):
        read_hdf5(tmp_path / "volume.h5", "raw", spacing=[1.0, 1.0, 1.0])


@pytest.mark.parametrize("chunks", [(2,), None])
def test_parts_that_were_never_written_are_named(chunks: tuple[int, ...] | None, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.nc", "w") as file:
        values = file.create_dataset("t", (6,), "f8", chunks=chunks)
        if chunks:
            values[:4] = 1.0
        scaled(file, 6)
    got = "2 of 3 chunks" if chunks else "none"
    with pytest.raises(ValueError, match=rf"all values of 't' in .* must be written, .* reads as 0.0, got {got}"):
        open_cube(tmp_path / "a.nc")
    with open_cube(tmp_path / "a.nc", missing_chunks=True) as dataset:
        np.testing.assert_array_equal(dataset["t"], [1, 1, 1, 1, 0, 0] if chunks else np.zeros(6))


@pytest.mark.parametrize("fill", [np.nan, -9.0, 9.969209968386869e36])
def test_parts_never_written_that_read_as_missing_are_fine(fill: float, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.nc", "w") as file:
        file.create_dataset("t", (6,), "f8", chunks=(2,), fillvalue=fill)[:4] = 1.0
        scaled(file, 6)
        if fill == -9:
            file["t"].attrs["_FillValue"] = -9.0
    with open_cube(tmp_path / "a.nc") as dataset:
        np.testing.assert_array_equal(dataset["t"], [1, 1, 1, 1, np.nan, np.nan])


# zarr


def taken(path: Path, name: str, place: int = -1) -> Path:
    """A store without one of the stored objects of an array."""
    objects = sorted(one for one in (path / name).rglob("*") if one.is_file() and "zarr" not in one.name[-10:])
    objects = [one for one in objects if not one.name.startswith(".z")]
    objects[place].unlink()
    return path


@pytest.mark.parametrize(
    ("chunks", "shards", "count"),
    [((1, 2, 3), (2, 4, 6), 2), ((1, 1, 1), (1, 4, 6), 3), ((1, 2, 2), (3, 4, 4), 2), ((2, 3, 4), None, 8)],
)
def test_stored_objects_are_counted_not_what_is_in_them(
    chunks: tuple[int, ...], shards: tuple[int, ...] | None, count: int, tmp_path: Path
) -> None:
    layout = {"t": {"chunks": chunks, "shards": shards}}
    field().to_zarr(tmp_path / "a.zarr", zarr_format=3, consolidated=False, encoding=layout)
    with open_cube(tmp_path / "a.zarr") as dataset:
        xr.testing.assert_equal(dataset.load(), field())
    with pytest.raises(ValueError, match=rf"missing chunks: \{{'t': '1 of {count}{' shards' if shards else ''}'\}}"):
        open_cube(taken(tmp_path / "a.zarr", "t"))


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize(
    "dataset",
    [
        field(1),
        field(3, number=0, surface=0.0, step=np.timedelta64(0, "ns")),
        field(3, spatial_ref=((), 0, {"grid_mapping_name": "latitude_longitude"})),
        field(1).expand_dims(member=[0]),
        field(2) * 0,
    ],
    ids=["one time", "scalars", "spatial_ref", "member", "zeros"],
)
def test_whole_stores_are_opened(version: Any, dataset: xr.Dataset, tmp_path: Path) -> None:
    dataset.to_zarr(tmp_path / "a.zarr", zarr_format=version, consolidated=False)
    with open_cube(tmp_path / "a.zarr") as opened:
        xr.testing.assert_equal(opened.load(), dataset)


@pytest.mark.parametrize("version", [2, 3])
def test_times_that_were_appended_one_by_one(version: Any, tmp_path: Path) -> None:
    """The first is 0 since itself, so that zarr leaves its chunk out."""
    path, whole = tmp_path / "a.zarr", field(4)
    layout = {"time": {"units": "days since 2001-01-01", "dtype": "int64", "chunks": (1,)}}
    whole.isel(time=[0]).to_zarr(path, zarr_format=version, consolidated=False, encoding=layout)
    for place in range(1, 4):
        whole.isel(time=[place]).to_zarr(path, append_dim="time", consolidated=False)
        with open_cube(path) as opened:
            xr.testing.assert_equal(opened.load(), whole.isel(time=slice(0, place + 1)))
    with pytest.raises(ValueError, match=r"missing chunks: \{'time': '2 of 4'\}"):
        open_cube(taken(path, "time"))


@pytest.mark.parametrize("version", [2, 3])
def test_a_chunk_of_a_coordinate_that_was_lost(version: Any, tmp_path: Path) -> None:
    dataset = field(4)
    dataset["time"].encoding = {"units": "days since 1900-01-01", "dtype": "int64", "chunks": (1,)}
    dataset.to_zarr(tmp_path / "a.zarr", zarr_format=version, consolidated=False)
    with pytest.raises(ValueError, match=r"missing chunks: \{'time': '1 of 4'\}"):
        open_cube(taken(tmp_path / "a.zarr", "time", 0))


@pytest.mark.parametrize("version", [2, 3])
def test_an_array_that_was_lost_is_named(version: Any, tmp_path: Path) -> None:
    dataset = field().assign(u=lambda one: one.t + 1)
    dataset.to_zarr(tmp_path / "a.zarr", zarr_format=version, consolidated=True)
    for one in (tmp_path / "a.zarr" / "u").rglob("*"):
        if one.is_file():
            one.unlink()
    with pytest.raises(ValueError, match=r"must hold the arrays that its metadata names, got none named u"):
        open_cube(tmp_path / "a.zarr")


def test_an_empty_chunk_is_missing(tmp_path: Path) -> None:
    field().to_zarr(tmp_path / "a.zarr", consolidated=False, encoding={"t": {"chunks": (1, 4, 6)}})
    (tmp_path / "a.zarr" / "t" / "c" / "1" / "0" / "0").write_bytes(b"")
    with pytest.raises(ValueError, match=r"missing chunks: \{'t': '1 of 3'\}"):
        open_cube(tmp_path / "a.zarr")


# Groups


@pytest.mark.parametrize("kind", ["nc", "2.zarr", "3.zarr"])
@pytest.mark.parametrize("root", [False, True])
def test_groups_do_not_vanish(kind: str, root: bool, tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind}"

    def write(dataset: xr.Dataset, group: str | None, mode: str) -> None:
        if kind == "nc":
            dataset.to_netcdf(path, mode=mode, group=group, engine="h5netcdf")  # type: ignore[arg-type]
        else:
            dataset.to_zarr(path, mode=mode, group=group, zarr_format=int(kind[0]), consolidated=False)  # type: ignore[call-overload]

    if root:
        write(field(), None, "w")
    write(field() + 1, "forecast", "a")
    write(field() + 2, "deep/inner", "a")
    with pytest.raises(ValueError, match=r"in one group, or be opened with group=.*'/deep/inner', '/forecast'\]"):
        open_cube(path)
    for name, added in (("forecast", 1), ("/forecast/", 1), ("deep/inner", 2), *((("/", 0),) if root else ())):
        with open_cube(path, group=name) as dataset:
            xr.testing.assert_allclose(dataset.load(), field() + added)
    if not root:
        with pytest.raises(ValueError, match=r"a.* must hold variables, got none"):
            open_cube(path, group="/")
    with pytest.raises(ValueError, match=r"group must be '/' or one of \['/deep/inner', '/forecast'\], got 'analysis'"):
        open_cube(path, group="analysis")


def test_a_group_has_the_coordinates_of_the_groups_above(tmp_path: Path) -> None:
    with netcdf4.Dataset(tmp_path / "a.nc", "w") as file:
        file.createDimension("x", 3)
        x = file.createVariable("x", "f8", ("x",))
        x[:] = [10, 20, 30]
        x.units = "m"
        file.createGroup("product").createVariable("t", "f8", ("x",))[:] = [1, 2, 3]
    with open_cube(tmp_path / "a.nc", group="product") as dataset:
        np.testing.assert_array_equal(dataset["x"], [10, 20, 30])
        assert dataset["x"].attrs["units"] == "m"


def test_a_classic_file_has_no_groups(tmp_path: Path) -> None:
    classic(tmp_path / "a.nc")
    with pytest.raises(ValueError, match=r"group must be None or '/' for a classic netCDF file"):
        open_cube(tmp_path / "a.nc", group="forecast")


# Classic files


def classic(path: Path, *, records: bool = True, version: int = 1) -> bytes:
    """Three records of two variables, and one of no records."""
    with netcdf_file(path, "w", version=version) as file:
        file.createDimension("time", None if records else 3)
        file.createDimension("x", 5)
        file.title = "a classic file"
        x = file.createVariable("x", "d", ("x",))
        x[:] = np.arange(5)
        x.units = "m"
        for name, kind in (("t", "f"), ("s", "h")):
            file.createVariable(name, kind, ("time", "x"))[:] = np.arange(1, 16).reshape(3, 5)
    return path.read_bytes()


@pytest.mark.parametrize("records", [True, False])
@pytest.mark.parametrize("version", [1, 2])
def test_whole_classic_files_are_opened(records: bool, version: int, tmp_path: Path) -> None:
    classic(tmp_path / "a.nc", records=records, version=version)
    with open_cube(tmp_path / "a.nc") as dataset:
        for name in ("t", "s"):
            np.testing.assert_array_equal(dataset[name], np.arange(1, 16).reshape(3, 5))


def test_one_variable_of_records_has_no_padding(tmp_path: Path) -> None:
    with netcdf_file(tmp_path / "a.nc", "w") as file:
        file.createDimension("time", None)
        file.createDimension("x", 3)
        file.createVariable("s", "b", ("time", "x"))[:] = np.arange(1, 10).reshape(3, 3)
    with open_cube(tmp_path / "a.nc") as dataset:
        np.testing.assert_array_equal(dataset["s"], np.arange(1, 10).reshape(3, 3))


def test_a_damaged_number_in_the_header_is_seen(tmp_path: Path) -> None:
    """Each four bytes of the header that are a tag, a count, a size or a place, set to zero or to one more or less."""
    whole = classic(tmp_path / "a.nc")
    end = whole.index(b"\0\0\0\x0a") - 4  # where the number of records stands
    assert end == 4
    with open_cube(tmp_path / "a.nc") as dataset:
        wanted = dataset.load()
    names = {wanted.sizes["x"], *wanted.sizes.values()}
    assert names == {3, 5}
    begin = struct.unpack(">i", whole[whole.index(b"\0\0\0\x06", 60) + 8 :][:4])[0]
    seen = 0
    for place in range(4, begin, 4):
        for value in (0, int.from_bytes(whole[place : place + 4], "big") + 1, 1):
            if whole[place : place + 4] == value.to_bytes(4, "big"):
                continue
            (tmp_path / "b.nc").write_bytes(whole[:place] + value.to_bytes(4, "big") + whole[place + 4 :])
            try:
                with open_cube(tmp_path / "b.nc") as found:
                    same = found.load()
            except ValueError as error:
                assert "b.nc must be a complete netCDF file" in str(error)  # noqa: PT017
                seen += 1
                continue
            # Names and attributes may be other ones: no file without checksums can tell. The values are all there.
            assert sorted(map(len, same.variables.values())) == sorted(map(len, wanted.variables.values()))
            assert sum(one.size for one in same.variables.values()) == 35
    assert seen > 60


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (4, 1, r"a header of 1 records, where the file holds 3"),
        (4, 0, r"a header of 0 records, where the file holds 3"),
        (4, 4, r"one cut short"),
        (4, 0xFFFFFFFF, r"a number of records that was left open"),
        (8, 0, r"a list in the header that begins with 0 in place of 10"),
    ],
)
def test_records_that_the_header_does_not_tell_of(place: int, value: int, message: str, tmp_path: Path) -> None:
    whole = classic(tmp_path / "a.nc")
    (tmp_path / "a.nc").write_bytes(whole[:place] + value.to_bytes(4, "big") + whole[place + 4 :])
    with pytest.raises(ValueError, match=rf"a.nc must be a complete netCDF file, got a damaged one: {message}"):
        open_cube(tmp_path / "a.nc")


def test_an_empty_header_is_refused(tmp_path: Path) -> None:
    """What is left of a header whose lists were set to zero is a valid file of nothing."""
    whole = classic(tmp_path / "a.nc")
    (tmp_path / "a.nc").write_bytes(whole[:4] + bytes(28) + whole[32:])
    with pytest.raises(ValueError, match=r"a damaged one: a header without variables"):
        open_cube(tmp_path / "a.nc")


# Folders


def folder_of(path: Path, *datasets: xr.Dataset) -> Path:
    path.mkdir()
    for number, one in enumerate(datasets):
        one.to_netcdf(path / f"{number}.nc", engine="scipy")
    return path


def test_steps_do_not_vanish_with_a_damaged_header(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "steps", *(field(1, f"2001-01-0{day}") for day in (1, 2, 3)))
    whole = (folder / "1.nc").read_bytes()
    (folder / "1.nc").write_bytes(whole[:4] + bytes(28) + whole[32:])
    with pytest.raises(ValueError, match=r"1.nc must be a complete netCDF file"):
        open_cube(folder)


@pytest.mark.parametrize("longer", ["first", "second"])
@pytest.mark.parametrize("dim", ["time", "lat"])
def test_files_that_begin_alike_are_refused(longer: str, dim: str, tmp_path: Path) -> None:
    sizes = (4, 2) if longer == "first" else (2, 4)
    parts = [field(4).isel({dim: slice(0, size)}) + number for number, size in enumerate(sizes)]
    with pytest.raises(ValueError, match=rf"entries of '{dim}' in .* must be in one file only, got 2 twice"):
        open_cube(folder_of(tmp_path / "parts", *parts))


def test_the_same_places_twice_are_refused(tmp_path: Path) -> None:
    tiles = [field(2).isel(lat=rows, lon=columns) for rows in ([0, 1], [2, 3]) for columns in ([0, 1, 2], [3, 4, 5])]
    with open_cube(folder_of(tmp_path / "tiles", *tiles)) as dataset:
        xr.testing.assert_equal(dataset.load(), field(2))
    (tiles[1] + 1).to_netcdf(tmp_path / "tiles" / "again.nc", engine="scipy")
    with pytest.raises(ValueError, match=r"(files of .* must fit together|values of 't' in .* be in one file only)"):
        open_cube(tmp_path / "tiles")


def test_files_of_other_packings_are_written_right(tmp_path: Path) -> None:
    """The packing of the first year need not hold the second one's values."""
    (tmp_path / "years").mkdir()
    parts = [field(2), field(2, "2002-01-01") * 1000]
    for number, one in enumerate(parts):
        packing = {"dtype": "int16", "scale_factor": 0.01 * 1000**number, "add_offset": 280 * 1000.0**number}
        packing["_FillValue"] = -32768
        one.to_netcdf(tmp_path / "years" / f"{number}.nc", engine="h5netcdf", encoding={"t": packing})
    with open_cube(tmp_path / "years") as dataset:
        dataset.load().to_netcdf(tmp_path / "one.nc", engine="h5netcdf")
    with open_cube(tmp_path / "one.nc") as found:
        for place, one in enumerate(parts):
            np.testing.assert_allclose(found["t"][2 * place : 2 * place + 2], one["t"], rtol=1e-4)


def test_what_macos_leaves_beside_files_is_no_file(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "parts", field(1), field(1, "2001-01-02"))
    (folder / "._0.nc").write_bytes(b"\0\x05\x16\x07\0\2\0\0Mac OS X        " + bytes(40))
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    with open_cube(folder) as dataset:
        assert dataset.sizes["time"] == 2
    store = tmp_path / "a.zarr"
    field().to_zarr(store, consolidated=False)
    for name in ("._zarr.json", "._t", "t/._zarr.json", "t/c/._0"):
        (store / name).write_bytes(b"\0\x05\x16\x07")
    with open_cube(store) as dataset:
        xr.testing.assert_equal(dataset.load(), field())


@pytest.mark.parametrize("name", ["2.NC", "2.netcdf", "2", "2.hdf5"])
def test_a_file_of_another_name_does_not_vanish(name: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "parts", field(1), field(1, "2001-01-02"))
    field(1, "2001-01-03").to_netcdf(tmp_path / "c.nc", engine="h5netcdf")
    (tmp_path / "c.nc").rename(folder / name)
    with open_cube(folder) as dataset:
        assert dataset.sizes["time"] == 3


def test_a_store_among_files_does_not_vanish(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "parts", field(1))
    field(1, "2001-01-02").to_zarr(folder / "b.zarr", consolidated=False)
    with pytest.raises(
        ValueError, match=r"must hold netCDF files or be a zarr store; .*, got files and the stores .*b.zarr"
    ):
        open_cube(folder)


def test_a_zarr_array_is_no_cube(tmp_path: Path) -> None:
    zarr.save_array(str(tmp_path / "a.zarr"), np.arange(3.0))
    with pytest.raises(ValueError, match=r"must be a complete zarr store, got"):
        open_cube(tmp_path / "a.zarr")


@pytest.mark.parametrize("engine", ["h5netcdf", "scipy"])
def test_a_file_that_was_looked_at_and_closed_can_be_written_again(tmp_path: Path, engine: str) -> None:
    path = tmp_path / "field.nc"
    times = np.datetime64("2000-01-01", "ns") + np.arange(3) * np.timedelta64(1, "D")
    dataset = xr.Dataset({"v": ("time", np.arange(3.0))}, {"time": times})
    dataset.to_netcdf(path, engine=engine)
    opened = open_cube(path)
    assert opened["v"].sizes == {"time": 3}
    opened.close()
    (dataset + 1).to_netcdf(path, engine=engine)
    with open_cube(path) as again:
        np.testing.assert_array_equal(again["v"], [1.0, 2.0, 3.0])
