"""What a file calls missing is nan, and nothing else is: each file written raw, each truth worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5netcdf.legacyapi as netcdf4
import h5py
import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import netcdf_file

from ccnn_irregular.adapters.xarray import open_cube

NAN = np.nan
# NC_FILL_* of netcdf.h.
FILLS = {
    "i2": -32767,
    "i4": -2147483647,
    "i8": -9223372036854775806,
    "u2": 65535,
    "u4": 4294967295,
    "f4": 9.969209968386869e36,
    "f8": 9.969209968386869e36,
}


def raw_file(path: Path, values: np.ndarray, attributes: dict[str, Any], kind: str = "hdf5") -> Path:
    """A variable ``t`` along ``x`` with attributes as they are, written by h5py or SciPy, not by xarray."""
    if kind == "classic":
        with netcdf_file(path, "w") as file:
            file.createDimension("x", len(values))
            variable = file.createVariable("t", values.dtype, ("x",))
            variable[:] = values
            for name, value in attributes.items():
                setattr(variable, name, value)
        return path
    with h5py.File(path, "w") as file:
        file["x"] = np.arange(float(len(values)))
        file["x"].make_scale("x")
        file["t"] = values
        file["t"].dims[0].attach_scale(file["x"])
        file["t"].attrs.update(attributes)
    return path


def read(path: Path, **options: Any) -> xr.DataArray:
    with open_cube(path, **options) as dataset:
        return dataset["t"].load()


@pytest.mark.parametrize("dtype", FILLS)
def test_entries_never_written_are_missing(dtype: str, tmp_path: Path) -> None:
    values = np.array([1, FILLS[dtype], 3], dtype)
    np.testing.assert_array_equal(read(raw_file(tmp_path / "a.nc", values, {})), [1, NAN, 3])
    if dtype in ("i2", "i4", "f4", "f8"):
        classic = raw_file(tmp_path / "b.nc", values.astype(f">{dtype}"), {}, "classic")
        np.testing.assert_array_equal(read(classic), [1, NAN, 3])
        np.testing.assert_array_equal(read(classic, chunks={"x": 2}), [1, NAN, 3])


def test_what_the_library_leaves_unwritten_is_missing(tmp_path: Path) -> None:
    with netcdf4.Dataset(tmp_path / "a.nc", "w") as file:
        file.createDimension("x", 4)
        for name, dtype in (("f", "f4"), ("i", "i4"), ("s", "i2")):
            file.createVariable(name, dtype, ("x",), chunksizes=(2,))[:1] = [5]
    with open_cube(tmp_path / "a.nc") as dataset:
        for name in "fis":
            np.testing.assert_array_equal(dataset[name], [5, NAN, NAN, NAN])


@pytest.mark.parametrize("fills", [{"_FillValue": -999.0}, {"missing_value": -999.0}], ids=str)
def test_a_fill_value_of_its_own_does_not_bring_the_default_back(fills: dict[str, float], tmp_path: Path) -> None:
    values = np.array([-999, 1, FILLS["f4"]], "f4")
    typed = {key: np.float32(value) for key, value in fills.items()}
    found = read(raw_file(tmp_path / "a.nc", values, typed))
    np.testing.assert_array_equal(found, [NAN, 1, NAN])
    assert found.encoding["_FillValue" if "_FillValue" in fills else "missing_value"] == -999


def test_integers_that_are_data_stay(tmp_path: Path) -> None:
    """Bytes have no default; an integer with a fill value of its own may hold the default as a value."""
    own = read(raw_file(tmp_path / "a.nc", np.array([-32767, -32768, 5], "i2"), {"_FillValue": np.int16(-32768)}))
    np.testing.assert_array_equal(own, [-32767, NAN, 5])
    for dtype, values in (("i1", [-127, 0, 127]), ("u1", [255, 0, 1]), ("i4", [-32767, 65535, 7])):
        found = read(raw_file(tmp_path / f"{dtype}.nc", np.array(values, dtype), {}))
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, values)


def test_a_number_that_carries_attributes_stays_an_integer(tmp_path: Path) -> None:
    with netcdf4.Dataset(tmp_path / "a.nc", "w") as file:
        file.createDimension("x", 2)
        file.createVariable("t", "f8", ("x",))[:] = [1, 2]
        file.createVariable("crs", "i4", ()).grid_mapping_name = "latitude_longitude"
    with open_cube(tmp_path / "a.nc") as dataset:
        assert dataset["crs"].dtype.kind == "i"
        assert dataset["crs"].attrs["grid_mapping_name"] == "latitude_longitude"


@pytest.mark.parametrize("kind", ["hdf5", "classic"])
@pytest.mark.parametrize("dtype", ["i4", "f8"])
@pytest.mark.parametrize(
    ("units", "dates"), [("months since 2001-01-01", [0, 31, 59]), ("days since 2001-01-01", [0, 1, 2])]
)
def test_limits_of_times_are_in_the_units_of_the_file(
    units: str, dates: list[int], dtype: str, kind: str, tmp_path: Path
) -> None:
    attributes = {"units": units, "valid_range": np.array([0, 24], dtype)}
    found = read(raw_file(tmp_path / "a.nc", np.array([0, 1, 2, 25, -1], dtype), attributes, kind))
    wanted = np.datetime64("2001-01-01", "ns") + np.array(dates).astype("m8[D]")
    np.testing.assert_array_equal(found, [*wanted, np.datetime64("NaT"), np.datetime64("NaT")])
    assert "valid_range" not in found.attrs
    every = read(tmp_path / "a.nc", valid_range=False)
    assert int(every.isnull().sum()) == 0


def test_a_date_never_written_is_no_date(tmp_path: Path) -> None:
    values = np.array([0, FILLS["i4"], 31], "i4")
    found = read(raw_file(tmp_path / "a.nc", values, {"units": "days since 2001-01-01"}))
    np.testing.assert_array_equal(found, np.array(["2001-01-01", "NaT", "2001-02-01"], "datetime64[ns]"))


@pytest.mark.parametrize("kind", ["hdf5", "classic"])
@pytest.mark.parametrize(
    ("limits", "wanted"),
    [
        ({"valid_range": np.array([-2, 40], "f4")}, [NAN, -2, 0, 40, NAN]),
        ({"valid_min": np.float32(-2)}, [NAN, -2, 0, 40, 41]),
        ({"valid_max": np.float32(40)}, [-999, -2, 0, 40, NAN]),
        ({"valid_min": np.float32(-2), "valid_max": np.float32(39)}, [NAN, -2, 0, NAN, NAN]),
        ({"valid_range": np.array([-2, 40], "f8")}, [NAN, -2, 0, 40, NAN]),
        ({"valid_range": np.array([-2, 40], "i4")}, [NAN, -2, 0, 40, NAN]),
        ({"actual_range": np.array([0, 1], "f4")}, [-999, -2, 0, 40, 41]),
    ],
    ids=lambda one: str(sorted(one)) if isinstance(one, dict) else "",
)
def test_values_outside_the_valid_range_are_missing(
    limits: dict[str, Any], wanted: list[float], kind: str, tmp_path: Path
) -> None:
    path = raw_file(tmp_path / "a.nc", np.array([-999, -2, 0, 40, 41], "f4"), limits, kind)
    np.testing.assert_array_equal(read(path), wanted)
    np.testing.assert_array_equal(read(path, valid_range=False), [-999, -2, 0, 40, 41])


def test_a_limit_is_as_exact_as_the_values(tmp_path: Path) -> None:
    """0.1 as a double is less than 0.1 as a float: the value at the limit is valid."""
    for number in (0.1, -0.1, 323.15, 1e-30):
        path = raw_file(tmp_path / "a.nc", np.array([number, 2 * number], "f4"), {"valid_max": np.float64(abs(number))})
        assert not bool(np.isnan(read(path)[0]))


@given(
    packed=st.lists(st.integers(-32000, 32000), min_size=1, max_size=20),
    low=st.integers(-20000, 0),
    high=st.integers(1, 20000),
    scale=st.sampled_from([0.01, 0.1, 1.0, 37.0, -0.5]),
    offset=st.sampled_from([0.0, 273.15, -1e4]),
    meant=st.sampled_from(["packed", "unpacked"]),
)
@settings(max_examples=40, deadline=None)
def test_packed_values_are_compared_as_they_are_stored(
    packed: list[int],
    low: int,
    high: int,
    scale: float,
    offset: float,
    meant: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Limits in the packed type are those of the integers, limits in the type of the scale those of what they mean."""
    values = np.array(packed, "i2")
    limits = np.array([low, high], "i2") if meant == "packed" else np.sort(np.array([low, high]) * scale + offset)
    attributes = {"scale_factor": scale, "add_offset": offset, "valid_range": limits}
    found = read(raw_file(tmp_path_factory.mktemp("packed") / "a.nc", values, attributes))
    valid = (values >= low) & (values <= high)
    np.testing.assert_array_equal(~np.isnan(found), valid)
    np.testing.assert_allclose(found[valid], values[valid] * scale + offset, rtol=1e-6, atol=1e-2)


def test_limits_of_packed_values_hold_for_what_is_read(tmp_path: Path) -> None:
    """Written again without the packing, and read again, nothing more is missing."""
    limits = {"valid_range": np.array([0, 1000], "i2"), "scale_factor": 0.1, "_FillValue": np.int16(-1)}
    first = read(raw_file(tmp_path / "a.nc", np.array([-1, 0, 1000, 1001], "i2"), limits))
    np.testing.assert_allclose(first, [NAN, 0, 100, NAN], rtol=1e-6)
    np.testing.assert_allclose(first.attrs["valid_range"], [0, 100])
    first.to_dataset().to_netcdf(tmp_path / "packed.nc", engine="h5netcdf")
    first.drop_encoding().to_dataset().to_netcdf(tmp_path / "plain.nc", engine="h5netcdf")
    for name in ("packed", "plain"):
        np.testing.assert_allclose(read(tmp_path / f"{name}.nc"), first, rtol=1e-6)


def test_a_range_of_unsigned_bytes(tmp_path: Path) -> None:
    """Bytes 0 to 250 stored as signed ones, as classic files have to."""
    stored = np.array([0, 100, -56, -6, -1], "i1")  # 0, 100, 200, 250, 255
    attributes = {"_Unsigned": b"true", "valid_range": np.array([0, -6], "i1"), "_FillValue": np.int8(-1)}
    found = read(raw_file(tmp_path / "a.nc", stored, attributes, "classic"))
    np.testing.assert_array_equal(found, [0, 100, 200, 250, NAN])
    attributes["valid_range"] = np.array([0, -56], "i1")
    np.testing.assert_array_equal(
        read(raw_file(tmp_path / "b.nc", stored, attributes, "classic")), [0, 100, 200, NAN, NAN]
    )


@pytest.mark.parametrize("version", [2, 3])
def test_a_range_of_unsigned_bytes_of_a_zarr_array(version: Any, tmp_path: Path) -> None:
    """Attributes of zarr are numbers without a type: -56 is the stored byte, 200 what it stands for."""
    stored = np.array([0, 100, -56, -6, -1], "i1")
    for limits in ([0, -56], [0, 200]):
        attributes = {"_Unsigned": "true", "valid_range": limits, "_FillValue": -1}
        path = tmp_path / f"{limits[1]}.zarr"
        xr.Dataset({"t": ("x", stored, attributes)}).to_zarr(path, consolidated=False, zarr_format=version)
        np.testing.assert_array_equal(read(path), [0, 100, 200, NAN, NAN])


@pytest.mark.parametrize("kind", ["hdf5", "classic"])
def test_one_limit_of_packed_values(kind: str, tmp_path: Path) -> None:
    """A limit of one number; what is read has it in its own unit."""
    packing = {"scale_factor": 0.5, "add_offset": 10.0, "valid_max": np.int16(100)}
    with open_cube(raw_file(tmp_path / "a.nc", np.array([-4, 100, 101], "i2"), packing, kind)) as found:
        np.testing.assert_array_equal(found["t"].values, [8, 60, NAN])
        assert found["t"].attrs["valid_max"] == 60


@pytest.mark.parametrize(("limits", "wanted"), [([-10.0, 10.0], [0, 10, NAN]), ([-1e6, 1e6], [0, 10, 300])])
def test_a_range_about_the_sign_bit(limits: list[float], wanted: list[float], tmp_path: Path) -> None:
    """All of the largest and the smallest signed number and the default fill value are valid; then all numbers."""
    stored = (64 * (np.array([0.0, 10.0, 300.0]) + 512)).astype(np.uint16).astype("i2")
    packing = {"scale_factor": 1 / 64, "add_offset": -512.0, "_Unsigned": "true", "valid_range": np.array(limits)}
    xr.Dataset({"t": ("x", stored, packing)}).to_zarr(tmp_path / "a.zarr", consolidated=False)
    np.testing.assert_array_equal(read(tmp_path / "a.zarr"), wanted)


def test_integers_with_a_range_are_floats_only_where_they_have_to_be(tmp_path: Path) -> None:
    limits = {"valid_range": np.array([0, 250], "u1")}
    whole = read(raw_file(tmp_path / "a.nc", np.array([0, 9, 250], "u1"), limits))
    assert whole.dtype == np.uint8
    np.testing.assert_array_equal(read(raw_file(tmp_path / "b.nc", np.array([0, 9, 251], "u1"), limits)), [0, 9, NAN])
    count = read(raw_file(tmp_path / "c.nc", np.array([5, -7, 0], "i8"), {"valid_min": np.int64(0)}))
    np.testing.assert_array_equal(count, [5, NAN, 0])


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"valid_range": "0, 40"}, r"valid_range of 't' in .*a.nc must be 2 numbers; valid_range=False reads all"),
        ({"valid_range": np.array([1.0])}, r"valid_range of 't' in .* must be 2 numbers"),
        ({"valid_min": np.array([1.0, 2.0])}, r"valid_min of 't' in .* must be 1 number;"),
        ({"valid_range": np.array([40.0, -2.0])}, r"limits of 't' in .* must leave valid values; .*\[40.0, -2.0\]"),
        ({"valid_min": 3.0, "valid_max": 2.0}, r"limits of 't' in .* must leave valid values"),
    ],
    ids=str,
)
def test_limits_that_are_none_are_refused(attributes: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = raw_file(tmp_path / "a.nc", np.array([1.0, 2.0]), attributes)
    with pytest.raises(ValueError, match=message):
        read(path)
    np.testing.assert_array_equal(read(path, valid_range=False), [1, 2])


def zarr_array(path: Path, version: int, values: np.ndarray, **given: Any) -> Path:
    """An array ``t`` along ``x`` by zarr itself."""
    group = zarr.open_group(path, mode="w", zarr_format=version)  # type: ignore[arg-type]
    named = {"dimension_names": ("x",)} if version == 3 else {}
    attributes = {"_ARRAY_DIMENSIONS": ["x"]} if version == 2 else {}
    attributes |= given.pop("attributes", {})
    array = group.create_array("t", shape=values.shape, chunks=values.shape, dtype=values.dtype, **named, **given)
    array.attrs.update(attributes)
    array[:] = values
    return path


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "u1"])
def test_zeros_of_a_zarr_store_are_zeros(version: int, dtype: str, tmp_path: Path) -> None:
    values = np.array([0, 1, 2, 0], dtype)
    found = read(zarr_array(tmp_path / "a.zarr", version, values, fill_value=0))
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found, values)
    if version == 2:
        masked = read(tmp_path / "a.zarr", zero_fill_missing=True)
        np.testing.assert_array_equal(masked, [NAN, 1, 2, NAN])


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("dtype", ["f4", "i4"])
@pytest.mark.parametrize("attribute", [-9, [-9], 0])
def test_the_attribute_of_a_zarr_array_says_what_is_missing(
    version: int, dtype: str, attribute: Any, tmp_path: Path
) -> None:
    values = np.array([0, -9, 2, 0], dtype)
    path = zarr_array(tmp_path / "a.zarr", version, values, fill_value=0, attributes={"_FillValue": attribute})
    wanted = [NAN, -9, 2, NAN] if attribute == 0 else [0, NAN, 2, 0]
    np.testing.assert_array_equal(read(path), wanted)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("packing", [{}, {"dtype": "int16", "scale_factor": 0.5, "_FillValue": -32767}], ids=str)
def test_what_xarray_writes_into_a_zarr_store_comes_back(version: Any, packing: dict[str, Any], tmp_path: Path) -> None:
    array = xr.DataArray([0.0, NAN, 1.5, 0.0], dims="x", name="t")
    array.to_dataset().to_zarr(tmp_path / "a.zarr", zarr_format=version, consolidated=False, encoding={"t": packing})
    np.testing.assert_array_equal(read(tmp_path / "a.zarr"), array)


def test_a_range_of_a_zarr_array(tmp_path: Path) -> None:
    values = np.array([0, 9.969209968386869e36, 2, 3], "f4")
    path = zarr_array(tmp_path / "a.zarr", 3, values, fill_value=0, attributes={"valid_range": [0.0, 2.5]})
    np.testing.assert_array_equal(read(path), [0, NAN, 2, NAN])
    np.testing.assert_array_equal(read(path, valid_range=False), [0, NAN, 2, 3])
