"""One field stored in every way the CF conventions allow: the same convolution at the same places.

The truth is the sum over all nodes, written out once for the field as it is: days, metres, degrees north and east.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import cftime
import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from ccnn_irregular import SIREN, ContinuousConv, GaussianMask, Kernel, Solver
from ccnn_irregular.adapters.xarray import decode_times, open_cube

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
# Where nothing was measured, where a way says so.
MISSING = (1, 2, 1, [0, 3, 6])
OUTLIER = 99.0

# A layer as it is made, in centimetres and in seconds.
pytestmark = pytest.mark.filterwarnings("ignore:the kernel makes values about")


class Way(NamedTuple):
    """How the field is stored.

    Attributes:
        order: of the dimensions.
        flipped: which of DIMS.
        stretch: of the circle that there is: the first longitude eastwards and how many.
        first_longitude: from which the numbers run over a turn.
        rolled: by how many places the array is cut elsewhere than where the stretch begins.
        closed: the first meridian stands again at the end, where the stretch is the globe.
        missing: how values are stored that are missing; "" = none is.
    """

    order: tuple[str, ...]
    flipped: tuple[bool, bool, bool, bool]
    stretch: tuple[int, int]
    first_longitude: float
    rolled: int
    closed: bool
    time: str
    height: str
    units: tuple[str, str]
    dtype: str
    missing: str
    coordinate: str
    store: str
    group: str
    chunked: bool
    lazy: bool


TIMES = (
    *("s", "ms", "us", "ns", "cftime standard", "cftime proleptic_gregorian"),
    *("days since 2000-01-01", "hours since 1900-01-01 00:00", "minutes since 2001-01-01 06:00:00 +6:00"),
    *("s since 1970-01-01", "d since 2001-01-01 00:00:00Z", "months since 2001-01-01"),
)
# The dates as shares of the months they are in.
MONTHS = np.array([0, 1 + 0.25 / 28, 2 + 0.5 / 31, 3 + 0.75 / 30])
METRES = {"m": 1.0, "metres": 1.0, "km": 1000.0, "kilometer": 1000.0, "cm": 0.01}
LATITUDES = {"degrees_north": 1, "degree_N": 1, "degreesN": 1, "degrees_south": -1, "degreeS": -1}
LONGITUDES = {"degrees_east": 1, "degree_E": 1, "degreesE": 1, "degrees_west": -1, "degreeW": -1}
STORES = ("memory", "classic", "netCDF-4", "zarr 2", "zarr 3", "zarr 3 sharded")
# Offsets of packed values; those of unsigned ones need the sign bit.
OFFSETS = {"packed": 0.0, "packed big-endian": 0.0, "packed unsigned": -516.0}

WAYS = st.builds(
    Way,
    order=st.permutations(DIMS).map(tuple),
    flipped=st.tuples(*[st.booleans()] * 4),
    stretch=st.tuples(st.integers(0, 7), st.sampled_from([8, 8, 8, 7, 6, 4, 3, 2])),
    first_longitude=st.sampled_from([0.0, -180.0, 180.0, -90.0]),
    rolled=st.integers(0, 3),
    closed=st.booleans(),
    time=st.sampled_from(TIMES),
    height=st.sampled_from(sorted(METRES)),
    units=st.tuples(st.sampled_from(sorted(LATITUDES)), st.sampled_from(sorted(LONGITUDES))),
    dtype=st.sampled_from(["<f8", "<f4", ">f8", ">f4", *OFFSETS]),
    missing=st.sampled_from(["", "", "fill", "never written", "valid_range", "valid_max", "unpacked valid_range"]),
    coordinate=st.sampled_from(["<f8", "<f4", ">f4"]),
    store=st.sampled_from(STORES),
    group=st.sampled_from(["", "run"]),
    chunked=st.booleans(),
    lazy=st.booleans(),
)


def coordinates(way: Way) -> dict[str, tuple[Any, dict[str, str]]]:
    """What a file holds for the axes, in the order of ``places``."""
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
        seconds = {"months": np.nan, "days": 86400, "d": 86400, "hours": 3600, "minutes": 60, "s": 1}[unit]
        begin = np.datetime64(reference.replace(" ", "T")) - np.timedelta64(zone, "h")
        times = MONTHS if unit == "months" else (utc - begin) / np.timedelta64(1, "s") / seconds
    index = places(way)
    flipped = way.flipped[3]
    eastward = LONGITUDE[index["lon"][::-1] if flipped else index["lon"]]
    degrees = (eastward - way.first_longitude) % 360 + way.first_longitude
    if is_closed(way):
        degrees[-1] = degrees[-2] + 45
    degrees = degrees[::-1] if flipped else degrees
    height, latitude = HEIGHT[index["height"]], LATITUDE[index["lat"]]
    return {
        "time": (times[index["time"]], attributes),
        "height": (
            (height / METRES[way.height]).astype(way.coordinate),
            {"units": way.height, "axis": "Z", "positive": "up"},
        ),
        "lat": ((latitude * LATITUDES[way.units[0]]).astype(way.coordinate), {"units": way.units[0]}),
        "lon": ((degrees * LONGITUDES[way.units[1]]).astype(way.coordinate), {"units": way.units[1]}),
    }


def is_closed(way: Way) -> bool:
    return way.closed and way.stretch[1] == len(LONGITUDE)


def places(way: Way) -> dict[str, np.ndarray]:
    """Which entry of the truth stands at each entry of what is stored."""
    first, count = way.stretch
    longitudes = np.roll((first + np.arange(count)) % len(LONGITUDE), way.rolled)
    if is_closed(way):
        longitudes = np.append(longitudes, longitudes[0])
    found = {"time": np.arange(4), "height": np.arange(3), "lat": np.arange(4), "lon": longitudes}
    return {dim: one[::-1] if flip else one for (dim, one), flip in zip(found.items(), way.flipped, strict=True)}


def known_values(way: Way) -> np.ndarray:
    """The truth, nan where nothing was measured."""
    values = VALUES.copy()
    if way.missing:
        values[MISSING] = np.nan
    return values


def field_of(way: Way) -> xr.DataArray:
    """The field as it is measured."""
    values = known_values(way)[np.ix_(*places(way).values())]
    coords = {dim: (dim, *held) for dim, held in coordinates(way).items()}
    return xr.DataArray(values, coords, DIMS, "a").transpose(*way.order)


def array_of(way: Way) -> xr.DataArray:
    """The field in memory; accessors count months as whole ones only."""
    field = field_of(way)
    kind = "<f4" if way.dtype in OFFSETS else way.dtype
    field = field.copy(data=np.ascontiguousarray(field.values).astype(kind))
    return decode_times(field.to_dataset(), "calendar")["a"] if way.time.startswith("months") else field


def raw_of(way: Way) -> xr.DataArray:
    """What a file holds of the field, with the attributes that say how it is meant."""
    field = field_of(way)
    packed, unsigned = way.dtype in OFFSETS, way.dtype == "packed unsigned"
    dtype = np.dtype(way.dtype if not packed else ">i2" if "big" in way.dtype and way.store != "classic" else "<i2")
    offset = OFFSETS.get(way.dtype, 0.0)
    attributes: dict[str, Any] = {"scale_factor": SCALE, "add_offset": offset} if packed else {}
    attributes |= {"_Unsigned": "true"} if unsigned else {}

    def stored_as(numbers: Any) -> np.ndarray:
        whole = np.round((np.asarray(numbers) - offset) / SCALE).astype(np.int64)
        return whole.astype(np.uint16).astype(dtype) if packed else np.asarray(numbers).astype(dtype)

    mark, limits = stored_as(OUTLIER), stored_as([-10.0, 10.0])
    # What never was written looks like data in a zarr store, which has no such value for integers.
    if way.missing == "fill" or (way.missing == "never written" and way.store.startswith("zarr")):
        attributes["_FillValue"] = mark[()]
    elif way.missing == "never written":
        mark = np.asarray(-32767 if packed else 9.969209968386869e36).astype(dtype)
    elif way.missing == "valid_max":
        attributes["valid_max"] = limits[1]
    elif way.missing == "unpacked valid_range" and packed:
        attributes["valid_range"] = np.array([-10.0, 10.0])
    elif way.missing:
        attributes["valid_range"] = limits
    values = np.where(np.isnan(field.values), mark, stored_as(np.nan_to_num(field.values))).astype(dtype)
    return field.copy(data=np.ascontiguousarray(values)).assign_attrs(attributes)


@contextmanager
def stored(way: Way) -> Iterator[xr.DataArray]:
    """The field as it is read."""
    if way.store == "memory":
        array = array_of(way)
        yield array.chunk({"time": 2, "lon": 2}) if way.lazy else array
        return
    dataset = raw_of(way).to_dataset()
    shape = dataset["a"].shape
    sizes = tuple(min(2 if dim in ("time", "lon", "lat") else 3, dataset.sizes[dim]) for dim in way.order)
    encoding: dict[str, Any] = {"_FillValue": None} if "_FillValue" not in dataset["a"].attrs else {}
    group = way.group if way.store != "classic" else ""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "field"
        if way.store.startswith("zarr"):
            encoding |= {"chunks": sizes} if way.chunked else {}
            if "sharded" in way.store:
                whole = tuple(-(-size // step) * step for size, step in zip(shape, sizes, strict=True))
                encoding |= {"chunks": sizes, "shards": whole}
            version = int(way.store.split()[1])
            named = {"group": group} if group else {}
            dataset.to_zarr(path, consolidated=False, zarr_format=version, encoding={"a": encoding}, **named)
        elif way.store == "classic":
            dataset.to_netcdf(path, engine="scipy", encoding={"a": encoding})
        else:
            encoding |= {"chunksizes": sizes} if way.chunked else {}
            dataset.to_netcdf(path, engine="h5netcdf", encoding={"a": encoding}, group=group or None)
        chunks = {} if way.lazy else None
        with open_cube(path, chunks=chunks, group=group or None, months="calendar") as opened:
            yield opened["a"]


def layer_of(way: Way) -> ContinuousConv:
    """The same kernel in the unit of the heights."""
    torch.manual_seed(3)
    metre = 1 / METRES[way.height]
    widths = [25.0, 400.0 * metre, 40.0, 50.0]
    extent = [75.0, 1200.0 * metre, 120.0, 150.0]
    kernel = Kernel(SIREN(4, 1, 8, omega_0=2.0), GaussianMask(widths), extent=extent)
    return ContinuousConv(kernel.double(), bias=False, solver=Solver("reference")).double().requires_grad_(False)


PLAIN = Way(
    order=DIMS,
    flipped=(False,) * 4,
    stretch=(0, 8),
    first_longitude=0.0,
    rolled=0,
    closed=False,
    time="ns",
    height="m",
    units=("degrees_north", "degrees_east"),
    dtype="<f8",
    missing="",
    coordinate="<f8",
    store="memory",
    group="",
    chunked=False,
    lazy=False,
)


@cache
def contributions() -> np.ndarray:
    """The kernel from each node to each times what the node stands for, days x metres x square degrees."""
    gaps = np.diff(DAYS)
    days = np.concatenate([[gaps[0]], (gaps[1:] + gaps[:-1]) / 2, [gaps[-1]]])
    # Bands end half-way between the latitudes, the outer ones at the poles.
    bands = np.degrees(np.diff(np.sin(np.radians([-90.0, -40, 0, 40, 90]))))
    weights = np.einsum("t,z,y,x->tzyx", days, np.full(3, 500.0), bands, np.full(8, 45.0)).reshape(-1)
    mesh = np.stack(np.meshgrid(DAYS, HEIGHT, LATITUDE, LONGITUDE, indexing="ij"), -1).reshape(-1, 4)
    offsets = mesh[:, None] - mesh
    offsets[..., 3] = (offsets[..., 3] + 180) % 360 - 180
    return layer_of(PLAIN).kernel(torch.from_numpy(offsets)).squeeze(-1).numpy() * weights


def truth(way: Way) -> np.ndarray:
    """The sum over the nodes that a way stores, at all nodes."""
    stands = np.zeros_like(VALUES)
    stands[..., places(way)["lon"]] = 1
    return (contributions() @ (stands * np.nan_to_num(known_values(way))).reshape(-1)).reshape(VALUES.shape)


def assert_same(result: xr.DataArray, source: Way, at: Way) -> None:
    """The field as ``source`` stores it, convolved at the places that ``at`` has."""
    assert result.dims == at.order
    wanted = truth(source)
    found = result.transpose(*DIMS).values * METRES[source.height]
    bound = 2e-6 * np.abs(truth(PLAIN)).max()
    np.testing.assert_allclose(found, wanted[np.ix_(*places(at).values())], rtol=0, atol=bound)


@settings(max_examples=25)
@given(WAYS)
def test_a_field_is_the_same_however_it_is_stored(way: Way) -> None:
    with stored(way) as array:
        assert_same(array.ccnn.convolve(layer_of(way)).compute(), way, way)


@settings(max_examples=15)
@given(WAYS.map(lambda way: way._replace(lazy=False)), WAYS.map(lambda way: way._replace(store="memory")))
def test_places_are_the_same_however_they_are_given(way: Way, other: Way) -> None:
    """Also those that the array itself has not: other longitudes than its own."""
    with stored(way) as array:
        assert_same(array.ccnn.convolve(layer_of(way), like=array_of(other)), way, other)
