"""Opening cubes: every format by its content, every damage with its reason."""

from __future__ import annotations

from pathlib import Path

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
    with pytest.raises(FileNotFoundError, match=r"path must be a netCDF file or a zarr store, got .* does not exist"):
        open_cube(tmp_path / "nothing.nc")
    for name, content, what in (
        ("text.nc", b"station year value", "text"),
        ("empty.nc", b"", "an empty file"),
        ("grib.nc", b"GRIB\x00\x99\x81\x02....", "bytes that begin with"),
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
            with pytest.raises(ValueError, match=r"must be a netCDF file or a zarr store, got text"):
                open_cube(path)
