"""``.ccnn.smooth`` against scipy.ndimage.gaussian_filter, sums by hand over what is known, and constants."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

import ccnn_irregular.adapters.xarray  # noqa: F401  # registers the accessor


def grid(values: np.ndarray, steps: tuple[float, ...]) -> xr.DataArray:
    """Values on uniform axes in metres."""
    names = tuple("zyx"[3 - values.ndim :])
    coordinates = {
        name: (name, step * np.arange(size), {"units": "m", "axis": name.upper()})
        for name, step, size in zip(names, steps, values.shape, strict=True)
    }
    attributes = {"units": "K", "standard_name": "air_temperature", "valid_max": 3.0}
    return xr.DataArray(values, coordinates, names, name="t", attrs=attributes)


def test_away_from_edges_it_is_scipys_filter() -> None:
    values = np.random.default_rng(0).standard_normal((60, 70))
    found = grid(values, (0.5, 2.0)).ccnn.smooth({"y": 1.0, "x": 6.0})
    wanted = gaussian_filter(values, [2.0, 3.0], truncate=6.0)
    inner = (slice(12, -12), slice(18, -18))
    np.testing.assert_allclose(found.to_numpy()[inner], wanted[inner], atol=1e-5)
    assert found.attrs == {"units": "K", "standard_name": "air_temperature"}
    assert found.name == "t"
    np.testing.assert_array_equal(found.x, grid(values, (0.5, 2.0)).x)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 99), constant=st.floats(-1e3, 1e3), missing=st.floats(0, 0.9))
def test_constants_stay_constant_whatever_is_missing(seed: int, constant: float, missing: float) -> None:
    rng = np.random.default_rng(seed)
    values = np.where(rng.random((20, 25)) < missing, np.nan, constant)
    values[3, 4] = constant
    found = grid(values, (1.0, 1.0)).ccnn.smooth(2.0).to_numpy()
    assert np.isfinite(found[:6, :6]).all()
    np.testing.assert_allclose(found[np.isfinite(found)], constant, rtol=1e-6, atol=1e-9)


def test_missing_values_are_left_out_of_the_average_and_may_stay_missing() -> None:
    rng = np.random.default_rng(1)
    values = rng.standard_normal(40).astype(np.float32)
    values[[3, 4, 5, 20]] = np.nan
    array = grid(values, (0.25,))
    found = array.ccnn.smooth(0.8)
    offsets = np.subtract.outer(array.x.to_numpy(), array.x.to_numpy())
    weights = np.exp(-0.5 * (offsets / 0.8) ** 2) * np.isfinite(values)
    wanted = weights @ np.nan_to_num(values) / weights.sum(1)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    assert found.dtype == np.float32
    kept = array.ccnn.smooth(0.8, keep_missing=True)
    np.testing.assert_array_equal(np.isnan(kept), np.isnan(values))


def test_along_one_axis_entries_of_the_others_are_smoothed_each_by_itself() -> None:
    values = np.random.default_rng(2).standard_normal((3, 50))
    times = pd.date_range("2001-01-01", periods=50, freq="6h")
    array = xr.DataArray(values, {"time": times, "station": [0, 1, 2]}, ("station", "time"), attrs={"units": "degC"})
    found = array.ccnn.smooth({"time": 1.0})  # days
    wanted = gaussian_filter(values, [0, 4.0], truncate=6.0)
    np.testing.assert_allclose(found.to_numpy()[:, 24:-24], wanted[:, 24:-24], atol=1e-5)
    both = array.to_dataset(name="a").assign(b=2 * array).ccnn(samples="station").smooth(1.0)
    np.testing.assert_allclose(both["b"], 2 * found, atol=1e-9)
    assert both["a"].attrs["units"] == "degC"


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan"), {"x": 0.0}, {"depth": 1.0}])
def test_bad_sigma(sigma: object) -> None:
    with pytest.raises(ValueError, match="sigma must"):
        grid(np.zeros(9), (1.0,)).ccnn.smooth(sigma)
