"""``like=``: places in another measure than the array's give the same sum, or are refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cftime
import numpy as np
import pytest
import torch
import xarray as xr

from ccnn_irregular import SIREN, ContinuousConv, GaussianMask, Kernel, Solver
from ccnn_irregular.adapters.xarray import DataArrayAccessor  # noqa: F401  (registers .ccnn)

# 2001-03-01 and the following days, counted by Python's own calendar.
FIRST = 11382


def conv(width: float) -> ContinuousConv:
    torch.manual_seed(1)
    kernel = Kernel(SIREN(1, 1, 8, omega_0=2.0), GaussianMask([width]), extent=[3 * width])
    return ContinuousConv(kernel, bias=False, solver=Solver("reference")).double()


def line(values: Any, attributes: Mapping[str, Any], data: Any = None, name: str = "axis") -> xr.DataArray:
    filled = np.zeros(len(values)) if data is None else data
    return xr.DataArray(filled, {name: (name, values, dict(attributes))}, (name,))


def summed(layer: ContinuousConv, nodes: Any, weights: Any, values: Any, places: Any) -> np.ndarray:
    offsets = np.asarray(places, float)[:, None] - np.asarray(nodes, float)
    with torch.no_grad():
        kernel = layer.kernel(torch.from_numpy(offsets[..., None])).squeeze(-1).numpy()
    return kernel @ (np.asarray(weights) * values)


@pytest.fixture
def values() -> np.ndarray:
    return np.random.default_rng(0).standard_normal(6)


DAYS = np.datetime64("2001-03-01", "ns") + np.arange(6) * np.timedelta64(1, "D")
NOONS = [f"2001-03-0{day}T12" for day in (2, 3, 4)]
TIME = {"standard_name": "time"}


def dates(calendar: str, offset: int = 0) -> np.ndarray:
    """Noon of three days, 2001-03-02 to -04 of a calendar, moved by some days."""
    return np.array([cftime.datetime(2001, 3, 2 + day + offset, 12, calendar=calendar) for day in range(3)])


@pytest.mark.parametrize(
    "asked",
    [
        *((np.array(NOONS, f"datetime64[{unit}]"), {}) for unit in ("s", "ms", "us")),
        (dates("standard"), {}),
        (dates("proleptic_gregorian"), {}),
        # The Julian calendar is 13 days behind in 2001.
        (np.array([cftime.datetime(2001, 2, 17 + day, 12, calendar="julian") for day in range(3)]), {}),
        (np.array([36.0, 60.0, 84.0]), {"units": "hours since 2001-03-01"}),
        (np.array([1.5, 2.5, 3.5]), {"units": "days since 2001-03-01", "calendar": "gregorian"}),
        (np.array([130_000.0, 216_400.0, 302_800.0]) - 400, {"units": "s since 2001-03-01 00:00:00"}),
        (np.array([18, 42, 66]), {"units": "hours since 2001-03-01 12:00 -6:00"}),
    ],
    ids=["s", "ms", "us", "standard", "proleptic", "julian", "hours", "days", "seconds", "zone"],
)
@pytest.mark.parametrize("source", ["ns", "s", "cftime", "numbers"])
def test_dates_of_the_same_days(asked: tuple[Any, dict[str, str]], source: str, values: np.ndarray) -> None:
    array = {
        "ns": line(DAYS, TIME, values),
        "s": line(DAYS.astype("datetime64[s]"), TIME, values),
        "cftime": line(cftime.num2date(np.arange(6), "days since 2001-03-01", calendar="standard"), TIME, values),
        "numbers": line(np.arange(6) * 24, {**TIME, "units": "hours since 2001-03-01"}, values),
    }[source]
    layer = conv(2.0)
    result = array.ccnn.convolve(layer, like=line(asked[0], {**TIME, **asked[1]}))
    wanted = summed(layer, FIRST + np.arange(6), np.ones(6), values, FIRST + np.array([1.5, 2.5, 3.5]))
    np.testing.assert_allclose(result, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("calendar", ["noleap", "360_day", "all_leap"])
def test_days_of_a_model_are_no_days_of_the_world(calendar: str, values: np.ndarray) -> None:
    layer, array = conv(2.0), line(DAYS, TIME, values)
    asked = line(dates(calendar), TIME)
    message = (
        rf"times of like \('axis'\) must be dates .*'proleptic_gregorian': .*convert_calendar.*, got .*'{calendar}'"
    )
    with pytest.raises(ValueError, match=message):
        array.ccnn.convolve(layer, like=asked)
    with pytest.raises(
        ValueError, match=rf"must be dates of the array's calendar '{calendar}'.*got .*'proleptic_gregorian'"
    ):
        line(dates(calendar), TIME, values[:3]).ccnn.convolve(layer, like=array)
    by_date = asked.convert_calendar("proleptic_gregorian", "axis", align_on="date", use_cftime=True)
    wanted = summed(layer, FIRST + np.arange(6), np.ones(6), values, FIRST + np.array([1.5, 2.5, 3.5]))
    np.testing.assert_allclose(array.ccnn.convolve(layer, like=by_date), wanted, rtol=1e-9)
    same = line(dates(calendar), TIME, values[:3])
    assert same.ccnn.convolve(layer, like=line(dates(calendar, 1), TIME)).shape == (3,)


@pytest.mark.parametrize(
    "asked",
    [(np.arange(3.0), {"units": "days"}), (np.arange(3), {}), (np.arange(3).astype("timedelta64[D]"), {})],
    ids=["days", "numbers", "spans"],
)
def test_spans_of_time_are_no_dates(asked: tuple[Any, dict[str, str]], values: np.ndarray) -> None:
    array, like = line(DAYS, TIME, values), line(asked[0], {**TIME, **asked[1]})
    with pytest.raises(
        ValueError, match=r"times of like \('axis'\) must be like the array's 'axis', dates of .*, got time"
    ):
        array.ccnn.convolve(conv(2.0), like=like)
    with pytest.raises(ValueError, match=r"must be like the array's 'axis', time .*, got dates of the calendar"):
        like.ccnn.convolve(conv(2.0), like=array)


def test_spans_of_other_units(values: np.ndarray) -> None:
    layer, array = conv(2.0), line(np.arange(6) * np.timedelta64(24, "h"), TIME, values)
    wanted = summed(layer, np.arange(6), np.ones(6), values, [0.5, 1, 2])
    for asked in (
        ([12, 24, 48], {"units": "hours"}),
        ([720, 1440, 2880], {"units": "min"}),
        ([0.5, 1, 2], {"units": "d"}),
    ):
        like = line(np.array(asked[0]), {**TIME, **asked[1]})
        np.testing.assert_allclose(array.ccnn.convolve(layer, like=like), wanted, rtol=1e-12)


UP = {"axis": "Z", "positive": "up"}


@pytest.mark.parametrize(
    ("unit", "asked"),
    [
        ("m", {"km": 1e-3, "kilometres": 1e-3, "metre": 1.0, "cm": 100.0}),
        ("km", {"m": 1000.0, "meters": 1000.0}),
        ("hPa", {"Pa": 100.0, "millibar": 1.0, "mb": 1.0, "bar": 1e-3, "dbar": 1e-2, "kPa": 0.1}),
        ("dbar", {"Pa": 1e4, "decibars": 1.0}),
    ],
)
def test_lengths_and_pressures_of_other_units(unit: str, asked: dict[str, float], values: np.ndarray) -> None:
    heights, places = np.array([0.0, 1, 2, 4, 7, 9]), np.array([8.0, 3.5, 0.5])
    widths = [1, 1, 1.5, 2.5, 2.5, 2]  # half the gaps to both sides, the outer ones twice
    layer, array = conv(2.0), line(heights, {**UP, "units": unit}, values)
    wanted = summed(layer, heights, widths, values, places)
    for other, factor in asked.items():
        result = array.ccnn.convolve(layer, like=line(places * factor, {**UP, "units": other}))
        np.testing.assert_allclose(result, wanted, rtol=1e-12, err_msg=other)


@pytest.mark.parametrize(
    ("own", "other", "message"),
    [
        (
            {"units": "m"},
            {"units": "hPa"},
            r"like \('axis'\) must be in the unit of the array's 'axis', 'm', got 'hPa'",
        ),
        ({"units": "m"}, {"units": ""}, r"must be in the unit of the array's 'axis', 'm', got ''"),
        ({"units": "1"}, {"units": "m"}, r"must be in the unit of the array's 'axis', '1', got 'm'"),
        ({"units": "m"}, {"units": "m", "positive": "down"}, r"must count up as 'axis' does, got down"),
        (
            {"units": "m", "positive": "", "standard_name": "height"},
            {"units": "m", "positive": "", "standard_name": "depth"},
            r"must count up as 'axis' does, got down",
        ),
        (
            {"units": "m", "standard_name": "height"},
            {"units": "m", "standard_name": "altitude"},
            r"must be the height that 'axis' is, got altitude",
        ),
    ],
)
def test_other_vertical_coordinates(
    own: dict[str, str], other: dict[str, str], message: str, values: np.ndarray
) -> None:
    array, like = line(np.arange(6.0), {**UP, **own}, values), line(np.arange(3.0), {**UP, **other})
    with pytest.raises(ValueError, match=message):
        array.ccnn.convolve(conv(2.0), like=like)
    # What is not said does not differ.
    quiet = line(np.arange(3.0), {"axis": "Z", "units": own["units"]})
    assert array.ccnn.convolve(conv(2.0), like=quiet).shape == (3,)


def test_stations_in_other_units() -> None:
    rng = np.random.default_rng(0)
    places = {"height": rng.uniform(0, 2000, 8), "y": rng.uniform(0, 9e3, 8)}

    def stations(scale: float, height: str, y: str) -> xr.DataArray:
        return xr.DataArray(
            rng.standard_normal(8),
            {
                "height": ("station", places["height"] * scale, {**UP, "units": height}),
                "latitude": ("station", places["y"] / 1e3, {"units": y}),
                "longitude": ("station", places["y"] / 2e3, {"units": "degrees_east"}),
            },
            ("station",),
        )

    torch.manual_seed(0)
    kernel = Kernel(SIREN(3, 1, 8, omega_0=2.0), GaussianMask([900.0, 3.0, 3.0]), extent=[2000.0, 9.0, 9.0])
    layer = ContinuousConv(kernel, bias=False, solver=Solver("reference")).double()
    array = stations(1.0, "m", "degrees_north")
    wanted = array.ccnn.convolve(layer)
    np.testing.assert_allclose(array.ccnn.convolve(layer, like=stations(1e-3, "km", "degreesN")), wanted, rtol=1e-9)


def plane(names: tuple[str, str], units: tuple[str, str], mapping: Mapping[str, Any] | None = None) -> xr.DataArray:
    coordinates: dict[str, Any] = {
        "y": ("y", [0.0, 1, 2], {"axis": "Y", "units": units[0]}),
        "x": ("x", [0.0, 1, 2, 3], {"axis": "X", "units": units[1]}),
    }
    for name, standard in zip(("y", "x"), names, strict=True):
        coordinates[name][2].update({"standard_name": standard} if standard else {})
    array = xr.DataArray(np.ones((3, 4)), coordinates, ("y", "x"), attrs={"grid_mapping": "crs"})
    return array if mapping is None else array.assign_coords(crs=((), 0, dict(mapping)))


ROTATED = ("grid_latitude", "grid_longitude")
PLANE = ("projection_y_coordinate", "projection_x_coordinate")
POLE = {"grid_mapping_name": "rotated_latitude_longitude", "grid_north_pole_latitude": 39.25}
UTM = {"grid_mapping_name": "transverse_mercator", "longitude_of_central_meridian": 9.0, "GeoTransform": "0 1 0 0 0 1"}


@pytest.mark.parametrize(
    ("array", "like", "message"),
    [
        (
            plane(ROTATED, ("degrees", "degrees")),
            plane(("latitude", "longitude"), ("degrees_north", "degrees_east")),
            r"like \('y'\) must be of a rotated pole as 'y' is, got true",
        ),
        (
            plane(("", ""), ("degrees_north", "degrees_east")),
            plane(ROTATED, ("degrees", "degrees")),
            r"like \('y'\) must be true as 'y' is, got of a rotated pole",
        ),
        (
            plane(ROTATED, ("degrees", "degrees"), POLE),
            plane(ROTATED, ("degrees", "degrees"), {**POLE, "grid_north_pole_latitude": 37.5}),
            r"grid mapping of like \(grid_north_pole_latitude\) must be the array's, 39.25, got 37.5",
        ),
        (
            plane(PLANE, ("m", "m"), UTM),
            plane(PLANE, ("m", "m"), {**UTM, "longitude_of_central_meridian": 15}),
            r"grid mapping of like \(longitude_of_central_meridian\) must be the array's, 9.0, got 15",
        ),
        (
            plane(PLANE, ("m", "m"), UTM),
            plane(PLANE, ("m", "m"), POLE),
            r"grid mapping of like must be the array's, transverse_mercator, got rotated_latitude_longitude",
        ),
    ],
)
def test_other_projections_are_refused(array: xr.DataArray, like: xr.DataArray, message: str) -> None:
    layer = ContinuousConv(Kernel(SIREN(2, 1, 4), GaussianMask([1.0, 1.0]), extent=[3.0, 3.0])).double()
    with pytest.raises(ValueError, match=message):
        array.ccnn.convolve(layer, like=like)
    other_extent = array.copy()
    if "crs" in array.coords:
        other_extent["crs"] = other_extent.crs.assign_attrs(GeoTransform="5 1 0 5 0 1")
    assert array.ccnn.convolve(layer, like=other_extent).shape == (3, 4)


def test_axes_named_for_the_array_are_those_of_like(values: np.ndarray) -> None:
    layer, array = conv(2.0), line(np.arange(6.0), {"units": "m"}, values)
    like = line(np.array([500.0, 1500.0]), {"units": "mm"})
    result = array.ccnn(axes={"axis": "other"}).convolve(layer, like=like)
    np.testing.assert_allclose(result, summed(layer, np.arange(6), np.ones(6), values, [0.5, 1.5]), rtol=1e-12)
