"""GRIB files through cfgrib, and the layouts of the Climate Data Store: axes known, nothing read for another."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import eccodes
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import ccnn_irregular.adapters.xarray  # noqa: F401  (registers .ccnn)
from ccnn_irregular import SIREN, ContinuousConv, GaussianMask, Kernel, Solver
from ccnn_irregular.adapters.xarray_files import open_cube

GRID = {
    "Ni": 6,
    "Nj": 5,
    "latitudeOfFirstGridPointInDegrees": 50,
    "latitudeOfLastGridPointInDegrees": 46,
    "longitudeOfFirstGridPointInDegrees": 0,
    "longitudeOfLastGridPointInDegrees": 5,
    "iDirectionIncrementInDegrees": 1,
    "jDirectionIncrementInDegrees": 1,
}
ACCUMULATED = {"productDefinitionTemplateNumber": 8, "shortName": "tp", "dataDate": 20200101}


def write(path: Path, messages: Sequence[dict[str, Any]]) -> Path:
    """One field a message; its values count the messages."""
    with path.open("wb") as file:
        for number, keys in enumerate(messages, 1):
            sample = "regular_ll_pl_grib2" if "level" in keys else "regular_ll_sfc_grib2"
            handle = eccodes.codes_grib_new_from_samples(sample)
            for name, value in {**GRID, **keys}.items():
                eccodes.codes_set(handle, name, value)
            eccodes.codes_set_values(handle, np.full(30, float(number)))
            eccodes.codes_write(handle, file)
            eccodes.codes_release(handle)
    return path


def forecasts(steps: Sequence[int] = (0, 6, 12)) -> list[dict[str, Any]]:
    return [
        {"shortName": "t", "level": level, "dataDate": date, "stepRange": step}
        for date in (20200101, 20200102)
        for step in steps
        for level in (1000, 850, 500)
    ]


def test_a_cube_of_forecasts_needs_nothing_named(tmp_path: Path) -> None:
    cube = open_cube(write(tmp_path / "t.grib", forecasts()))
    frame = cube.ccnn("t").frame()
    assert frame.samples == ("time",)  # forecasts of different starts know nothing of each other
    assert [factor.dims for factor in frame.factors] == [("step",), ("isobaricInhPa",), ("latitude",), ("longitude",)]
    kernel = Kernel(SIREN(4, 1, 8), GaussianMask([0.3, 400.0, 2.0, 2.0]), extent=[1.0, 900.0, 4.0, 4.0])
    layer = ContinuousConv(kernel, solver=Solver("reference"))
    result = cube.ccnn("t").convolve(layer)
    alone = cube.isel(time=[1]).ccnn("t").convolve(layer)
    xr.testing.assert_allclose(result.isel(time=[1]), alone)
    named = cube.ccnn("t", axes={"time": "time"}, samples="step").frame()
    assert named.samples == ("step",)
    assert not list(tmp_path.glob("*.idx"))  # nothing is written beside the file


def test_members_of_an_ensemble_are_samples(tmp_path: Path) -> None:
    keys = {"productDefinitionTemplateNumber": 1, "shortName": "2t", "numberOfForecastsInEnsemble": 3, "stepRange": 0}
    members = [{**keys, "dataDate": 20200100 + day, "perturbationNumber": n} for n in (1, 2, 3) for day in (1, 2)]
    cube = open_cube(write(tmp_path / "ens.grib", members), chunks={})
    frame = cube.ccnn("t2m").frame()
    assert (frame.samples, cube.t2m.chunks is not None) == (("number",), True)
    assert [factor.dims[0] for factor in frame.factors] == ["time", "latitude", "longitude"]


@pytest.mark.parametrize("number", [False, True])
def test_the_climate_data_store_in_netcdf(number: bool, tmp_path: Path) -> None:
    about = {
        "number": {"long_name": "ensemble member numerical id", "units": "1", "standard_name": "realization"},
        "valid_time": {"long_name": "time", "standard_name": "time"},
        "pressure_level": {"units": "hPa", "positive": "down", "standard_name": "air_pressure"},
        "latitude": {"units": "degrees_north", "standard_name": "latitude"},
        "longitude": {"units": "degrees_east", "standard_name": "longitude"},
    }
    nodes = {
        "number": np.arange(2),
        "valid_time": pd.date_range("2020-01-01", periods=4, freq="6h"),
        "pressure_level": [1000.0, 850.0, 500.0],
        "latitude": np.linspace(50.0, 46.0, 5),
        "longitude": np.arange(6.0),
    }
    coordinates: dict[str, Any] = {name: (name, nodes[name], about[name]) for name in about}
    coordinates["expver"] = ("valid_time", np.array(["0001"] * 3 + ["0005"]))  # final, then preliminary data
    cube = xr.Dataset({"t": (tuple(about), np.random.default_rng(0).normal(size=(2, 4, 3, 5, 6)))}, coordinates)
    cube = cube if number else cube.isel(number=0)
    cube.to_netcdf(tmp_path / "era5.nc", engine="h5netcdf")
    frame = open_cube(tmp_path / "era5.nc").ccnn("t").frame()
    assert frame.samples == (("number",) if number else ())
    assert [factor.dims[0] for factor in frame.factors] == list(about)[1:]


def test_accumulations_of_unlike_length_are_refused_by_name(tmp_path: Path) -> None:
    path = write(tmp_path / "tp.grib", [{**ACCUMULATED, "stepRange": one} for one in ("0-6", "0-12", "6-12")])
    with pytest.raises(ValueError, match=r"tp on 20200101 over the steps 0-12 and 6-12"):
        open_cube(path)
    path = write(tmp_path / "sum.grib", [{**ACCUMULATED, "stepRange": one} for one in ("0-6", "0-12", "0-18")])
    assert open_cube(path).tp[:, 0, 0].values.tolist() == [1, 2, 3]
    path = write(tmp_path / "twice.grib", [*forecasts([0]), *forecasts([0])])
    with pytest.raises(ValueError, match="each field once, got 2 of t on 20200101 at step 0"):
        open_cube(path)


def test_a_stale_index_is_not_read_and_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.grib", forecasts([0]))
    before = path.stat()
    xr.open_dataset(path, engine="cfgrib").close()  # leaves an index
    (index,) = tmp_path.glob("*.idx")
    other = write(
        tmp_path / "b.grib", [{**one, "level": 700} if one["level"] == 850 else one for one in forecasts([0])]
    )
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns - 10**9))  # of an older date, as from an archive
    os.utime(index, ns=(before.st_atime_ns, before.st_mtime_ns))
    shutil.move(other, path)
    with pytest.warns(UserWarning, match=r"a\.grib\..*\.idx was written before"):
        cube = open_cube(path)
    assert cube.isobaricInhPa.values.tolist() == [1000, 700, 500]


def test_a_damaged_file_and_levels_that_do_not_fit(tmp_path: Path) -> None:
    path = write(tmp_path / "t.grib", forecasts())
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match="complete GRIB file"):
        open_cube(path)
    both = [*forecasts([0]), {"shortName": "2t", "dataDate": 20200101, "stepRange": 0}]
    path = write(tmp_path / "both.grib", both)
    with pytest.raises(ValueError, match="of one kind"):
        open_cube(path)
    assert list(open_cube(path, variables=["t"]).data_vars) == ["t"]
    same = [{"shortName": name, "dataDate": 20200101, "stepRange": 0} for name in ("2t", "sp")]
    assert set(open_cube(write(tmp_path / "surface.grib", same)).data_vars) == {"t2m", "sp"}
