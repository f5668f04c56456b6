"""Opening cubes: every format by its content, every damage with its reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr

from ccnn_irregular.adapters.xarray import open_cube

pytestmark = pytest.mark.filterwarnings("ignore:variable .* has non-conforming '_FillValue'")


def cube() -> xr.Dataset:
    coordinates = {"lat": ("lat", np.arange(6.0), {"units": "degrees_north"}), "x": np.arange(8.0)}
    return xr.Dataset({"t": (("lat", "x"), np.random.default_rng(0).standard_normal((6, 8)))}, coordinates)


def write(folder: Path, kind: str) -> Path:
    path = folder / f"cube.{kind}"
    if kind == "classic":
        cube().to_netcdf(path, engine="scipy")
    elif kind == "hdf5":
        cube().to_netcdf(path, engine="h5netcdf")
    else:
        cube().to_zarr(path, consolidated=False, encoding={"t": {"chunks": (3, 4)}})
    return path


@pytest.mark.parametrize("kind", ["classic", "hdf5", "zarr"])
def test_formats_are_read_off_the_content(kind: str, tmp_path: Path) -> None:
    path = write(tmp_path, kind)
    with open_cube(path) as dataset:
        xr.testing.assert_equal(dataset.load(), cube())
    with open_cube(path, chunks={"lat": 3}) as dataset:
        assert dataset["t"].chunks is not None
        assert dataset["t"].chunks[0] == (3, 3)
        xr.testing.assert_equal(dataset.compute(), cube())


@pytest.mark.parametrize("kind", ["classic", "hdf5"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_truncated_files_are_refused(kind: str, share: float, tmp_path: Path) -> None:
    path = write(tmp_path, kind)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"must be a complete netCDF file, got"):
        open_cube(path)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"path must be a netCDF or GRIB file or a zarr store, got .* does not exist"
    ):
        open_cube(tmp_path / "nothing.nc")
    for name, content, what in (
        ("text.nc", b"station year value", "text"),
        ("empty.nc", b"", "an empty file"),
        ("grib.nc", b"GRIB\x00\x99\x81\x02....", "a damaged message at byte 0"),
        ("cdf5.nc", b"CDF\x05\x00\x00\x00\x00", "the 64-bit data format CDF-5"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name} must be .*, got {what}"):
            open_cube(tmp_path / name)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match=r"must be a netCDF file or a zarr store, got an empty folder"):
        open_cube(tmp_path / "folder")
    (tmp_path / "folder" / "a.txt").touch()
    with pytest.raises(ValueError, match=r"must be a netCDF file or a zarr store, got a folder of \['a.txt'\]"):
        open_cube(tmp_path / "folder")


def test_a_store_with_missing_chunks_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "zarr")
    (chunk,) = path.glob("t/c/1/0")
    chunk.unlink()
    with pytest.raises(ValueError, match=r"must hold all chunks, or be opened with missing_chunks=True.*'t': '1 of 4'"):
        open_cube(path)
    with open_cube(path, missing_chunks=True) as dataset:
        assert int(dataset["t"].isnull().sum()) == 12


def test_a_damaged_store_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "zarr")
    (path / "zarr.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"must be a complete zarr store, got"):
        open_cube(path)


def test_every_official_climate_file_opens_or_says_why_not(shared_data: Path) -> None:
    files = sorted(path for path in (shared_data / "climate").rglob("*") if path.is_file())
    assert len(files) >= 10
    for path in files:
        if path.suffix == ".nc":
            with open_cube(path) as dataset:
                assert dataset.data_vars
        else:
            with pytest.raises(ValueError, match=r"must be a netCDF or GRIB file or a zarr store, got text"):
                open_cube(path)


def test_hdf5_that_is_no_netcdf_or_needs_a_filter_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "foreign.nc", "w") as file:
        file["weights"] = np.arange(6.0).reshape(2, 3)
    with pytest.raises(
        ValueError, match=r"foreign.nc must be a netCDF file, whose .*, got HDF5 without for \['weights'\]"
    ):
        open_cube(tmp_path / "foreign.nc")
    path = write(tmp_path, "hdf5")
    with h5py.File(path, "a") as file:
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_chunk((3, 4))
        plan.set_filter(40000, h5py.h5z.FLAG_OPTIONAL, ())  # a number that no filter has
        space = h5py.h5s.create_simple((6, 8))
        h5py.h5d.create(file.id, b"hidden", h5py.h5t.NATIVE_DOUBLE, space, plan)
        for axis, name in enumerate(("lat", "x")):
            file["hidden"].dims[axis].attach_scale(file[name])
    with pytest.raises(
        ValueError, match=r"HDF5 filters that are installed, got filters by number \{'hidden': \[40000\]\}"
    ):
        open_cube(path)


def years(folder: Path, **changes: Any) -> Path:
    """Two variables, each in a folder of its own with a file a year, as WeatherBench has them."""
    for name, unit in (("t", "K"), ("z", "m2 s-2")):
        (folder / name).mkdir(parents=True)
        for year in (2001, 2002):
            times = xr.date_range(f"{year}-01-01", periods=4, freq="6h")
            coordinates = {"time": times, "lat": ("lat", [10.0, 0.0], {"units": "degrees_north"})}
            values = np.arange(8.0).reshape(4, 2) + year
            part = xr.Dataset({name: (("time", "lat"), values, {"units": unit})}, coordinates)
            part = changes[f"{name}{year}"](part) if f"{name}{year}" in changes else part
            part.to_netcdf(folder / name / f"{name}_{year}.nc", engine="h5netcdf" if year == 2001 else "scipy")
    return folder


def test_a_folder_of_files_is_one_lazy_cube(tmp_path: Path) -> None:
    with open_cube(years(tmp_path / "cube")) as dataset:
        assert set(dataset.data_vars) == {"t", "z"}
        assert dict(dataset.sizes) == {"time": 8, "lat": 2}
        assert dataset["t"].chunks is not None
        np.testing.assert_array_equal(dataset["z"][4:], np.arange(8.0).reshape(4, 2) + 2002)
        assert dataset["z"].attrs["units"] == "m2 s-2"
    with open_cube(tmp_path / "cube", variables=["z"]) as dataset:
        assert list(dataset.data_vars) == ["z"]
    with pytest.raises(ValueError, match=r"variables must be among those of .*, \['t', 'z'\], got \['u'\]"):
        open_cube(tmp_path / "cube", variables=["z", "u"])
    with pytest.raises(ValueError, match=r"variables must be among those of .*, \['t'\], got 'u'"):
        open_cube(tmp_path / "cube" / "t" / "t_2001.nc", variables=["u"])


def celsius(part: xr.Dataset) -> xr.Dataset:
    part["t"].attrs["units"] = "degC"
    return part


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"t2002": celsius}, r"units of 't' must be the same in all files of .*'K' in t_2001.nc, 'degC' in t_2002.nc"),
        (
            {"t2002": lambda part: part.assign_coords(lat=("lat", [10.0, 1.0], part.lat.attrs))},
            r"files of .* must fit together, got",
        ),
        (
            {
                f"{name}2002": lambda part: part.assign_coords(time=part.time - np.timedelta64(365 * 24 - 6, "h"))
                for name in "tz"
            },
            r"must fit together, got .*monoton",
        ),
        (
            {
                f"{name}2002": lambda part: part.assign_coords(time=part.time - np.timedelta64(365 * 24 - 18, "h"))
                for name in "tz"
            },
            r"entries of 'time' in .* must be in one file only, got 1 twice",
        ),
        ({"z2002": lambda part: part.isel(time=slice(0, 3))}, r"files of .* must fit together, got"),
    ],
    ids=["units", "latitudes", "overlap", "twice", "short"],
)
def test_files_that_do_not_fit_together_are_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        open_cube(years(tmp_path / "cube", **change))


def test_a_truncated_file_of_a_folder_is_named(tmp_path: Path) -> None:
    folder = years(tmp_path / "cube")
    broken = folder / "t" / "t_2001.nc"
    broken.write_bytes(broken.read_bytes()[:-500])
    with pytest.raises(ValueError, match=r"t_2001.nc must be a complete netCDF file, got"):
        open_cube(folder)
