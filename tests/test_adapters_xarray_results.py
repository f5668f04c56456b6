"""What results keep of the files they come from: written and read again they are what was computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numcodecs
import numpy as np
import pytest
import torch
import xarray as xr

from ccnn_irregular import (
    CCNN,
    SIREN,
    ContinuousConv,
    GaussianMask,
    Grid,
    Kernel,
    KernelSpec,
    SeparableContinuousConv,
    Solver,
)
from ccnn_irregular.adapters.xarray import open_cube
from ccnn_irregular.adapters.xarray_results import smooths
from ccnn_irregular.pipelines.consistency import smooth_layer

pytest.importorskip("dask")
pytestmark = [
    pytest.mark.filterwarnings("ignore:variable .* has non-conforming '_FillValue'"),
    pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr version 3 specification"),
]

ABOUT = {
    "units": "K",
    "standard_name": "air_temperature",
    "long_name": "temperature at 2 m",
    "cell_methods": "time: mean",
    "cell_measures": "area: areacella",
    "valid_range": np.array([-32766, 32767], "i2"),
    "actual_range": np.array([270.0, 290.0]),
    "valid_min": 0.0,
    "GRIB_units": "K",
    "GRIB_Nx": 12,
    "grid_mapping": "crs",
    "comment": "kept",
}


def field(**attributes: Any) -> xr.DataArray:
    """Whole numbers, as packed files hold them, of six hours on a small plane."""
    values = np.random.default_rng(0).integers(-90, 90, (6, 10, 12)).astype("f4")
    array = xr.DataArray(
        values,
        {
            "time": ("time", xr.date_range("2001-01-01", periods=6, freq="6h"), {"standard_name": "time"}),
            "y": ("y", np.arange(10.0), {"axis": "Y", "units": "km"}),
            "x": ("x", np.arange(12.0), {"axis": "X", "units": "km"}),
        },
        ("time", "y", "x"),
        "t",
        attributes,
    )
    array["time"].encoding = {"units": "hours since 1990-01-01", "calendar": "standard", "dtype": "int32"}
    array["x"].encoding = {"dtype": "float32"}
    return array


def conv(channels: int = 1, dtype: torch.dtype = torch.float32) -> ContinuousConv:
    torch.manual_seed(0)
    kernel = Kernel(SIREN(3, channels, 8, omega_0=2.0), GaussianMask([0.5, 1.0, 1.0]), extent=[1.0, 3.0, 3.0])
    return ContinuousConv(kernel, solver=Solver("reference")).to(dtype).requires_grad_(False)


PACKINGS = [
    {"dtype": "int16"},
    {"dtype": "int16", "_FillValue": np.int16(-32767)},
    {"dtype": "int16", "scale_factor": 0.5, "add_offset": 100.0, "_FillValue": np.int16(-32767)},
    {"dtype": "uint8", "scale_factor": 1.0, "add_offset": -100.0, "_FillValue": np.uint8(255)},
    {"dtype": "float32", "_FillValue": np.float32(0)},
    {"dtype": "float32", "missing_value": np.float32(0)},
]


@pytest.mark.parametrize("kind", ["h5netcdf", "scipy", 2, 3])
@pytest.mark.parametrize("packing", PACKINGS, ids=lambda one: " ".join(map(str, one)))
@pytest.mark.filterwarnings("ignore:saving variable .* with floating point data as an integer dtype without any _Fill")
def test_no_packing_rounds_a_result(packing: dict[str, Any], kind: Any, tmp_path: Path) -> None:
    if kind == "scipy" and packing["dtype"] == "uint8":
        pytest.skip("classic files have no unsigned bytes")
    array = field(units="K")
    suffix = "nc" if isinstance(kind, str) else "zarr"
    for name, given in (("source", array), ("result", None), ("lazy", None)):
        path = tmp_path / f"{name}.{suffix}"
        if given is None:
            with open_cube(tmp_path / f"source.{suffix}", chunks=None if name == "result" else {}) as dataset:
                given = dataset["t"].astype("f4", keep_attrs=True)
                given.encoding = dict(dataset["t"].encoding)
                given = given.ccnn.convolve(conv()).where(given.x > 3, 0.0)
                given = given.load()
        encoding = {"t": packing} if name == "source" else {}
        if isinstance(kind, str):
            given.to_dataset().to_netcdf(path, engine=kind, encoding=encoding)
        else:
            given.to_dataset().to_zarr(path, zarr_format=kind, consolidated=False, encoding=encoding)
        if name != "source":
            with open_cube(path) as back:
                assert back["t"].dtype == np.float32
                np.testing.assert_array_equal(back["t"], given)


def test_zarr_filters_that_round_are_left_out(tmp_path: Path) -> None:
    rounding = numcodecs.FixedScaleOffset(offset=0, scale=1, dtype="f4", astype="i2")
    layout = {"t": {"filters": [rounding], "chunks": (3, 10, 12)}}
    field().to_dataset().to_zarr(tmp_path / "a.zarr", zarr_format=2, consolidated=False, encoding=layout)
    with open_cube(tmp_path / "a.zarr", chunks={}) as dataset:
        result = dataset["t"].ccnn.convolve(conv())
        result.to_dataset().to_zarr(tmp_path / "b.zarr", zarr_format=2, consolidated=False)
        wanted = result.compute()
    with open_cube(tmp_path / "b.zarr") as back:
        np.testing.assert_array_equal(back["t"], wanted)
        assert back["t"].encoding["chunks"] == (3, 10, 12)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("form", ["array", "dataset"])
def test_layout_compression_and_calendar_survive(lazy: bool, form: str, tmp_path: Path) -> None:
    """Looked at in the file by h5py."""
    stored = {
        "chunksizes": (3, 5, 12),
        "zlib": True,
        "complevel": 7,
        "shuffle": True,
        "dtype": "int16",
        "_FillValue": -9,
    }
    source = tmp_path / "a.nc"
    field(units="K").to_dataset().to_netcdf(source, engine="h5netcdf", encoding={"t": stored}, unlimited_dims=["time"])
    with open_cube(source, chunks={} if lazy else None) as dataset:
        result = dataset.ccnn.convolve(conv()) if form == "dataset" else dataset["t"].ccnn.convolve(conv())
        assert (result["t"] if form == "dataset" else result).chunks is not None or not lazy
        result.to_netcdf(tmp_path / "b.nc", engine="h5netcdf")
    with h5py.File(tmp_path / "b.nc") as file:
        values, time, x = file["t"], file["time"], file["x"]
        assert (values.chunks, values.compression, values.compression_opts) == ((3, 5, 12), "gzip", 7)
        assert values.shuffle
        assert values.dtype == np.float32
        assert time.attrs["units"] == "hours since 1990-01-01"
        assert time.dtype == np.int32
        assert x.dtype == np.float32
        assert (time.maxshape[0] is None) == (form == "dataset")  # an array knows nothing of unlimited dimensions


@pytest.mark.parametrize("version", [2, 3])
def test_lazy_results_go_into_chunks_and_shards_like_the_source(version: Any, tmp_path: Path) -> None:
    layout: dict[str, Any] = {"chunks": (3, 5, 6), "compressors": numcodecs.Zstd(level=5)}
    if version == 3:
        import zarr

        layout = {"chunks": (3, 5, 6), "shards": (3, 10, 12), "compressors": zarr.codecs.ZstdCodec(level=5)}
    field().to_dataset().to_zarr(tmp_path / "a.zarr", zarr_format=version, consolidated=False, encoding={"t": layout})
    with open_cube(tmp_path / "a.zarr", chunks={}) as dataset:
        array = dataset["t"].ccnn.convolve(conv())
        array.to_dataset().to_zarr(tmp_path / "b.zarr", zarr_format=version, consolidated=False)
        memory = dataset["t"].load().ccnn.convolve(conv())
        assert {key: array.encoding[key] for key in ("chunks", "shards") if key in array.encoding} == {
            key: memory.encoding[key] for key in ("chunks", "shards") if key in memory.encoding
        }
    with open_cube(tmp_path / "b.zarr") as back:
        for key in ("chunks", "shards"):
            assert back["t"].encoding.get(key) == layout.get(key)
        assert "level=5" in repr(back["t"].encoding["compressors"])
        np.testing.assert_allclose(back["t"], memory, rtol=0, atol=1e-5 * float(abs(memory).max()))


def test_new_channels_are_a_new_dimension_of_the_chunks() -> None:
    array = field()
    array.encoding = {"chunksizes": (3, 5, 12), "original_shape": array.shape, "preferred_chunks": {"time": 3}}
    torch.manual_seed(0)
    result = array.ccnn.convolve(SeparableContinuousConv(conv().kernel, 4))
    assert result.encoding["chunksizes"] == (3, 5, 12, 4)
    assert result.encoding["original_shape"] == (6, 10, 12, 4)
    cut = array.isel(x=slice(0, 10))
    cut.encoding = dict(array.encoding)
    assert cut.ccnn.convolve(conv(), like=array).encoding == {}


def test_a_fill_value_that_no_result_has_survives() -> None:
    array = field()
    array.encoding = {"dtype": "float32", "_FillValue": np.float32(1e20)}
    assert array.ccnn.convolve(conv()).encoding == array.encoding
    assert array.chunk(time=4).ccnn.convolve(conv()).encoding == {"dtype": "float32"}
    array.encoding["_FillValue"] = np.nan
    np.testing.assert_equal(array.chunk(time=4).ccnn.convolve(conv()).encoding, array.encoding)
    # A result in double precision does not go into single precision.
    assert array.ccnn.convolve(conv(dtype=torch.float64)).encoding == {}
    values = array.ccnn.to_samples()
    array.encoding["_FillValue"] = np.float32(5)
    held = values.to_xarray(torch.full_like(values.values, 5))
    assert "_FillValue" not in held.encoding


def smoothing(channels: int = 1) -> ContinuousConv:
    grid = Grid([6, 10, 12], [0.25, 1.0, 1.0])
    one = smooth_layer(grid, [0.25, 1.0, 1.0])
    assert channels == 1
    return one


def test_a_convolution_is_another_quantity() -> None:
    array = field(**ABOUT)
    result = array.ccnn.convolve(conv())
    assert result.attrs == {
        "long_name": "convolution of temperature at 2 m (K)",
        "cell_measures": "area: areacella",
        "GRIB_Nx": 12,
        "grid_mapping": "crs",
        "comment": "kept",
    }
    lazy = array.chunk(time=4).ccnn.convolve(conv())
    inside = array.to_dataset().ccnn.convolve(conv())["t"]
    answer = array.ccnn.predict(network())
    assert lazy.attrs == inside.attrs == result.attrs
    assert answer.attrs == result.attrs | {"long_name": "network's answer of temperature at 2 m (K)"}
    assert array.ccnn.convolve(conv(), like=array).attrs == result.attrs


def network() -> CCNN:
    torch.manual_seed(0)
    kernel = KernelSpec(extent=[1.0, 3.0, 3.0], width=[0.4, 1.0, 1.0], omega_0=2.0)
    return CCNN(1, 2, 1, kernel=kernel, blocks=1, head="dense", solver=Solver("fft"))


def test_a_moving_average_keeps_the_quantity() -> None:
    array = field(**ABOUT)
    layer = smoothing()
    result = array.ccnn.convolve(layer)
    assert {key: result.attrs[key] for key in ("units", "standard_name", "long_name", "GRIB_units")} == {
        key: ABOUT[key] for key in ("units", "standard_name", "long_name", "GRIB_units")
    }
    assert not {"valid_range", "valid_min", "actual_range", "cell_methods"} & set(result.attrs)
    # A constant comes back, away from the edges: the average is one.
    constant = array.copy(data=np.full(array.shape, 288, "f4")).ccnn.convolve(layer)
    np.testing.assert_allclose(constant[3, 5, 5:7], 288, rtol=0.03)


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("mass", [0.9, 1.0, -1.0, 1e3])
def test_the_mass_of_a_kernel_decides(d: int, mass: float) -> None:
    """A Gaussian cut where it is 1/100 of its largest value; its integral by the error function."""
    width = 2.5
    mask = GaussianMask([width] * d)
    kernel = Kernel(SIREN(d, 1, 4), mask, extent=[1.0] * d)
    last = [one for one in kernel.generator.modules() if isinstance(one, torch.nn.Linear)][-1]
    reach = float(mask.support[0])
    ticks = torch.linspace(-reach, reach, 200_001, dtype=torch.float64)
    line = torch.exp(-0.5 * (ticks / width) ** 2)
    threshold = torch.exp(torch.tensor(-0.5 * (reach / width) ** 2, dtype=torch.float64))
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.ones_(last.bias)
    layer = ContinuousConv(kernel, bias=False).requires_grad_(False)
    drawn = kernel(torch.cat([ticks[:, None].float(), torch.zeros(len(ticks), d - 1)], 1)).double().flatten()
    one_axis = float(torch.trapezoid(drawn, ticks))
    # Without knowing how the mask is cut: sums over a lattice of a fifth of the width.
    nodes = torch.arange(-reach, reach, width / 10, dtype=torch.float64)
    offsets = torch.stack(torch.meshgrid(*([nodes] * d), indexing="ij"), -1).reshape(-1, d).float()
    total = float(kernel(offsets).double().sum()) * (width / 10) ** d
    assert total == pytest.approx(one_axis, rel=1e-2) if d == 1 else total > 0
    assert float(line.min()) == pytest.approx(float(threshold))
    last.bias.fill_(mass / total)
    assert smooths(layer) == (mass == 1.0)
    assert not smooths(SeparableContinuousConv(kernel, 1))
    biased = ContinuousConv(kernel).requires_grad_(False)
    assert smooths(biased) == (mass == 1.0)
    biased.bias.fill_(0.5)  # type: ignore[union-attr]
    assert not smooths(biased)


def test_a_mix_of_channels_is_no_average() -> None:
    kernel = Kernel(SIREN(1, 4, 4), GaussianMask([1.0]), extent=[1.0], shape=(2, 2))
    assert not smooths(ContinuousConv(kernel, bias=False))
    assert not smooths(ContinuousConv(Kernel(SIREN(1, 1, 4), extent=[1.0]), bias=False))  # reaches everywhere


def test_values_put_back_keep_their_attributes() -> None:
    array = field(**ABOUT)
    samples = array.ccnn.to_samples()
    xr.testing.assert_identical(samples.to_xarray(samples.values), array)


def test_a_file_written_again_reads_as_it_was(tmp_path: Path) -> None:
    """Opened and written without a change: packing, fill, times and values stay."""
    packing = {"dtype": "int16", "scale_factor": 0.5, "add_offset": 100.0, "_FillValue": np.int16(-32767)}
    array = field(units="K").where(lambda one: one.x > 2)
    array.to_dataset().to_netcdf(tmp_path / "a.nc", engine="h5netcdf", encoding={"t": packing})
    with open_cube(tmp_path / "a.nc") as dataset:
        dataset.load().to_netcdf(tmp_path / "b.nc", engine="h5netcdf")
    with h5py.File(tmp_path / "a.nc") as first, h5py.File(tmp_path / "b.nc") as second:
        for name in first:
            np.testing.assert_array_equal(first[name][...], second[name][...])
            assert first[name].dtype == second[name].dtype
            plain = {key: first[name].attrs[key] for key in first[name].attrs if key not in ("DIMENSION_LIST",)}
            for key in ("units", "calendar", "scale_factor", "add_offset", "_FillValue"):
                assert (key in plain) == (key in second[name].attrs)
