"""Discrete sampling geometries: one set of observations in every layout of CF conventions is one and the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import ccnn_irregular.adapters.xarray  # noqa: F401  # registers the accessor
from ccnn_irregular.adapters.xarray import open_cube
from ccnn_irregular.adapters.xarray_discrete import observations

DAYS = np.datetime64("2001-03-01", "ns") + np.arange(20) * np.timedelta64(1, "D")


def flat(lengths: list[int]) -> xr.Dataset:
    """Observations written out by hand: the truth."""
    station = np.repeat(np.arange(len(lengths)), lengths)
    time = np.concatenate([DAYS[:length] for length in lengths])
    return xr.Dataset(
        {"temp": ("obs", np.arange(len(station)) * 1.5), "name": ("obs", np.array(list("abcdef"))[station])},
        {"time": ("obs", time), "lat": ("obs", 10.0 * station), "lon": ("obs", 5.0 - station)},
    )


def stations(lengths: list[int]) -> xr.Dataset:
    number = np.arange(len(lengths))
    return xr.Dataset(
        {"name": ("station", np.array(list("abcdef"))[number], {"cf_role": "timeseries_id"})},
        {"lat": ("station", 10.0 * number), "lon": ("station", 5.0 - number)},
    )


def contiguous(lengths: list[int]) -> xr.Dataset:
    counts = {"row_size": ("station", lengths, {"sample_dimension": "obs"})}
    return stations(lengths).assign(counts).assign(flat(lengths)[["temp", "time"]].variables).set_coords("time")


def indexed(lengths: list[int]) -> xr.Dataset:
    index = np.repeat(np.arange(len(lengths)), lengths)
    merged = stations(lengths).assign(flat(lengths)[["temp", "time"]].variables).set_coords("time")
    return merged.assign(which=("obs", index, {"instance_dimension": "station"}))


def incomplete(lengths: list[int]) -> xr.Dataset:
    shape = (len(lengths), max(lengths))
    there = np.arange(shape[1]) < np.array(lengths)[:, None]
    temp, time = np.full(shape, np.nan), np.full(shape, np.datetime64("NaT"), "datetime64[ns]")
    temp[there], time[there] = flat(lengths)["temp"], flat(lengths)["time"]
    return stations(lengths).assign(temp=(("station", "o"), temp)).assign_coords(time=(("station", "o"), time))


def rows(dataset: xr.Dataset) -> list[tuple[object, ...]]:
    frame = dataset.reset_coords().to_dataframe()
    return sorted(frame[["name", "time", "lat", "lon", "temp"]].itertuples(index=False, name=None))


@pytest.mark.parametrize("layout", [contiguous, indexed, incomplete])
@given(lengths=st.lists(st.integers(1, 5), min_size=1, max_size=5))
@settings(max_examples=10, deadline=None)
def test_each_layout_holds_the_same_observations(layout: Callable[[list[int]], xr.Dataset], lengths: list[int]) -> None:
    assert rows(observations(layout(lengths))) == rows(flat(lengths))


def test_an_index_may_mix_features() -> None:
    dataset = indexed([3, 2, 4])
    order = np.array([5, 0, 8, 2, 1, 7, 3, 4, 6])
    assert rows(observations(dataset.isel(obs=order))) == rows(flat([3, 2, 4]))


def test_profiles_of_stations_are_ragged_twice() -> None:
    dataset = xr.Dataset(
        {
            "temp": ("obs", np.arange(6.0)),
            "rows": ("profile", [2, 1, 3], {"sample_dimension": "obs"}),
            "station_index": ("profile", [0, 1, 0], {"instance_dimension": "station"}),
            "id": ("station", ["a", "b"], {"cf_role": "timeseries_id"}),
        },
        {"lat": ("station", [1.0, 2.0]), "time": ("profile", DAYS[:3]), "z": ("obs", np.arange(6.0) % 3)},
    )
    found = observations(dataset)
    assert found["id"].values.tolist() == ["a", "a", "b", "a", "a", "a"]
    assert found["lat"].values.tolist() == [1, 1, 2, 1, 1, 1]
    assert found["time"].values.tolist() == DAYS[[0, 0, 1, 2, 2, 2]].tolist()
    assert found["profile"].values.tolist() == [0, 0, 1, 2, 2, 2]
    assert set(found.coords) == {"lat", "time", "z"}


def test_stations_of_common_times_and_a_lone_track() -> None:
    temp = np.array([[1.0, np.nan, 3.0], [4.0, 5.0, 6.0]])
    common = xr.Dataset({"temp": (("station", "time"), temp)}, {"time": DAYS[:3], "lat": ("station", [1.0, 2.0])})
    found = observations(common)
    assert found["temp"].values.tolist() == [1, 3, 4, 5, 6]
    assert found["time"].values.tolist() == DAYS[[0, 2, 0, 1, 2]].tolist()
    assert found["station"].values.tolist() == [0, 0, 1, 1, 1]
    places = {"time": DAYS[:3], "lat": ("time", [1.0, 2.0, 3.0]), "ship": "x"}
    track = xr.Dataset({"temp": ("time", np.arange(3.0))}, places)
    track["ship"].attrs["cf_role"] = "trajectory_id"
    found = observations(track)
    assert found["ship"].values.tolist() == ["x"] * 3
    assert found["time"].dims == found["lat"].dims == ("obs",)


def test_what_does_not_add_up_is_named() -> None:
    dataset = contiguous([2, 3])
    dataset["row_size"].values[1] = 4
    with pytest.raises(ValueError, match=r"'row_size' must add up to the 5 entries of 'obs', got 6"):
        observations(dataset)
    dataset = indexed([2, 3])
    dataset["which"].values[1] = 2
    with pytest.raises(
        ValueError, match=r"'which' must be numbers of the 2 entries of 'station', from 0 on, got \[2\]"
    ):
        observations(dataset)


def test_the_accessor_says_what_to_type_for_ragged_arrays(tmp_path: Path) -> None:
    contiguous([2, 3]).to_netcdf(tmp_path / "ragged.nc")
    with open_cube(tmp_path / "ragged.nc") as dataset:
        with pytest.raises(ValueError, match=r"dataset\.ccnn\.observations\(\)"):
            dataset.ccnn.to_samples()
        found = dataset.ccnn.observations()
        samples = found.ccnn("temp", axes=["lat", "lon"], weights="scattered").to_samples()
    assert samples.values.flatten().tolist() == flat([2, 3])["temp"].values.tolist()
