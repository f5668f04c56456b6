"""One field stored in every way the CF conventions allow: the same convolution at the same places, or a refusal.

The truth is the sum over all nodes, written out once for the field as it is: days, metres, degrees north and east.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import cftime
import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import event, given, settings
from hypothesis import strategies as st

from ccnn_irregular import SIREN, ContinuousConv, GaussianMask, Kernel
from ccnn_irregular.adapters.xarray import open_cube

DIMS = ("time", "height", "lat", "lon")
DATES = [np.datetime64(one) for one in ("2001-01-01T00", "2001-02-01T06", "2001-03-01T12", "2001-04-01T18")]
HEIGHT = np.array([0.0, 500.0, 1000.0])
LATITUDE = np.array([-60.0, -20.0, 20.0, 60.0])
LONGITUDE = np.arange(0.0, 360.0, 45.0)
# Days from 1970-01-01 to 2001-01-01: 31 years, 8 of them leap years.
DAYS = 31 * 365 + 8 + np.array([0, 31.25, 59.5, 90.75])
# Values that int16 with a scale of 1/64, float32 and float64 hold alike.
VALUES = (
    np.round(64 * np.add.outer(np.sin(DAYS), np.add.outer(HEIGHT / 500, np.outer(LATITUDE / 50, np.cos(LONGITUDE)))))
    / 64
)
SCALE = 1 / 64


class Way(NamedTuple):
    """How the field is stored."""

    order: tuple[str, ...]
    flipped: tuple[bool, bool, bool, bool]
    first_longitude: float
    rolled: int
    time: str
    height: str
    units: tuple[str, str]
    dtype: str
    coordinate: str
    store: str
    chunked: bool
    lazy: bool


TIMES = (
    *("s", "ms", "us", "ns", "cftime standard", "cftime proleptic_gregorian"),
    *("days since 2000-01-01", "hours since 1900-01-01 00:00", "minutes since 2001-01-01 06:00:00 +6:00"),
    *("s since 1970-01-01", "d since 2001-01-01 00:00:00Z"),
)
METRES = {"m": 1.0, "metres": 1.0, "km": 1000.0, "kilometer": 1000.0, "cm": 0.01}
LATITUDES = {"degrees_north": 1, "degree_N": 1, "degreesN": 1, "degrees_south": -1, "degreeS": -1}
LONGITUDES = {"degrees_east": 1, "degree_E": 1, "degreesE": 1, "degrees_west": -1, "degreeW": -1}
STORES = ("memory", "classic", "netCDF-4", "zarr 2", "zarr 3", "zarr 3 sharded")

WAYS = st.builds(
    Way,
    order=st.permutations(DIMS).map(tuple),
    flipped=st.tuples(*[st.booleans()] * 4),
    first_longitude=st.sampled_from([0.0, -180.0, 180.0, -90.0]),
    rolled=st.sampled_from([0, 0, 0, 3]),
    time=st.sampled_from(TIMES),
    height=st.sampled_from(sorted(METRES)),
    units=st.tuples(st.sampled_from(sorted(LATITUDES)), st.sampled_from(sorted(LONGITUDES))),
    dtype=st.sampled_from(["<f8", "<f4", ">f8", ">f4", "packed", "packed big-endian"]),
    coordinate=st.sampled_from(["<f8", "<f4", ">f4"]),
    store=st.sampled_from(STORES),
    chunked=st.booleans(),
    lazy=st.booleans(),
)


def coordinates(way: Way) -> dict[str, Any]:
    """What a file holds for the axes, in the order of the truth."""
    utc = np.array(DATES, "datetime64[ns]")
    attributes: dict[str, str] = {"standard_name": "time", "axis": "T"}
    if way.time in ("s", "ms", "us", "ns"):
        times: Any = utc.astype(f"datetime64[{way.time}]")
    elif way.time.startswith("cftime"):
        times = cftime.num2date(DAYS, "days since 1970-01-01", calendar=way.time.split()[1])
    else:
        attributes |= {"units": way.time, "calendar": "standard"}
        zone = 6 if "+6:00" in way.time else 0
        unit, reference = way.time.replace(" +6:00", "").replace("Z", "").split(" since ")
        seconds = {"days": 86400, "d": 86400, "hours": 3600, "minutes": 60, "s": 1}[unit]
        begin = np.datetime64(reference.replace(" ", "T")) - np.timedelta64(zone, "h")
        times = (utc - begin) / np.timedelta64(1, "s") / seconds
    degrees = (LONGITUDE - way.first_longitude) % 360 + way.first_longitude
    return {
        "time": (times, attributes),
        "height": (
            (HEIGHT / METRES[way.height]).astype(way.coordinate),
            {"units": way.height, "axis": "Z", "positive": "up"},
        ),
        "lat": ((LATITUDE * LATITUDES[way.units[0]]).astype(way.coordinate), {"units": way.units[0]}),
        "lon": ((degrees * LONGITUDES[way.units[1]]).astype(way.coordinate), {"units": way.units[1]}),
    }


def places(way: Way) -> dict[str, np.ndarray]:
    """Which entry of the truth stands at each entry of what is stored."""
    turned = np.argsort((LONGITUDE - way.first_longitude) % 360)
    found = {"time": np.arange(4), "height": np.arange(3), "lat": np.arange(4), "lon": np.roll(turned, way.rolled)}
    return {dim: one[::-1] if flip else one for (dim, one), flip in zip(found.items(), way.flipped, strict=True)}


def array_of(way: Way) -> xr.DataArray:
    """The field in memory."""
    index = places(way)
    values = VALUES[np.ix_(*(index[dim] for dim in DIMS))]
    coords = {dim: (dim, one[index[dim]], attributes) for dim, (one, attributes) in coordinates(way).items()}
    kind = "<f4" if "packed" in way.dtype else way.dtype
    array = xr.DataArray(values, coords, DIMS, "a").transpose(*way.order)
    return array.copy(data=np.ascontiguousarray(array.values).astype(kind))


@contextmanager
def stored(way: Way) -> Iterator[xr.DataArray]:
    """The field as it is read."""
    array = array_of(way)
    if way.store == "memory":
        yield array.chunk({"time": 2, "lon": 4}) if way.lazy else array
        return
    encoding: dict[str, Any] = {}
    if "packed" in way.dtype:
        big_endian = "big" in way.dtype and way.store != "classic"  # classic files are big-endian anyway
        encoding |= {"dtype": ">i2" if big_endian else "i2", "scale_factor": SCALE, "_FillValue": np.int16(-32768)}
    sizes = [2 if dim in ("time", "lon", "lat") else 3 for dim in way.order]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "field"
        if way.store.startswith("zarr"):
            chunks: dict[str, Any] = {"chunks": tuple(sizes)} if way.chunked else {}
            if "sharded" in way.store:
                chunks = {"chunks": tuple(sizes), "shards": array.shape}
            array.to_dataset().to_zarr(
                path, consolidated=False, zarr_format=int(way.store.split()[1]), encoding={"a": encoding | chunks}
            )
        elif way.store == "classic":
            array.to_dataset().to_netcdf(path, engine="scipy", encoding={"a": encoding})
        else:
            chunks = {"chunksizes": tuple(sizes)} if way.chunked else {}
            array.to_dataset().to_netcdf(path, engine="h5netcdf", encoding={"a": encoding | chunks})
        with open_cube(path, chunks={} if way.lazy else None) as opened:
            yield opened["a"]


def layer_of(way: Way) -> ContinuousConv:
    """The same kernel in the unit of the heights."""
    torch.manual_seed(3)
    metre = 1 / METRES[way.height]
    widths = [25.0, 400.0 * metre, 40.0, 50.0]
    extent = [75.0, 1200.0 * metre, 120.0, 150.0]
    kernel = Kernel(SIREN(4, 1, 8, omega_0=2.0), GaussianMask(widths), extent=extent)
    return ContinuousConv(kernel.double(), bias=False, engine="reference").double().requires_grad_(False)


PLAIN = Way(
    DIMS, (False,) * 4, 0.0, 0, "ns", "m", ("degrees_north", "degrees_east"), "<f8", "<f8", "memory", False, False
)


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    """The sum over all nodes at all nodes, days x metres x square degrees at the equator."""
    gaps = np.diff(DAYS)
    days = np.concatenate([[gaps[0]], (gaps[1:] + gaps[:-1]) / 2, [gaps[-1]]])
    # Bands end half-way between the latitudes, the outer ones at the poles.
    bands = np.degrees(np.diff(np.sin(np.radians([-90.0, -40, 0, 40, 90]))))
    weights = np.einsum("t,z,y,x->tzyx", days, np.full(3, 500.0), bands, np.full(8, 45.0)).reshape(-1)
    mesh = np.stack(np.meshgrid(DAYS, HEIGHT, LATITUDE, LONGITUDE, indexing="ij"), -1).reshape(-1, 4)
    offsets = mesh[:, None] - mesh
    offsets[..., 3] = (offsets[..., 3] + 180) % 360 - 180
    kernel = layer_of(PLAIN).kernel(torch.from_numpy(offsets)).squeeze(-1).numpy()
    return (kernel @ (weights * VALUES.reshape(-1))).reshape(VALUES.shape)


def assert_same(result: xr.DataArray, way: Way, truth: np.ndarray) -> None:
    assert result.dims == way.order
    found = np.empty_like(truth)
    found[np.ix_(*(places(way)[dim] for dim in DIMS))] = result.transpose(*DIMS).values * METRES[way.height]
    np.testing.assert_allclose(found, truth, rtol=0, atol=2e-6 * np.abs(truth).max())


def may_be_refused(way: Way, error: ValueError) -> None:
    """Longitudes that jump in the middle of the array may be refused, by their name; nothing else may."""
    if not way.rolled or "'lon'" not in str(error):
        raise error
    event("rolled longitudes refused")


@pytest.mark.filterwarnings("ignore:the encoding of 'a' packs values:UserWarning")
@settings(max_examples=25)
@given(WAYS)
def test_a_field_is_the_same_however_it_is_stored(truth: np.ndarray, way: Way) -> None:
    with stored(way) as array:
        try:
            result = array.ccnn.convolve(layer_of(way))
        except ValueError as error:
            return may_be_refused(way, error)
        assert_same(result.compute(), way, truth)


@settings(max_examples=15)
@given(WAYS.map(lambda way: way._replace(store="memory", lazy=False)))
def test_places_are_the_same_however_they_are_given(truth: np.ndarray, way: Way) -> None:
    try:
        result = array_of(PLAIN).ccnn.convolve(layer_of(PLAIN), like=array_of(way))
    except ValueError as error:
        return may_be_refused(way, error)
    assert_same(result / METRES[way.height], way, truth)
