"""Lazy arrays stay lazy, and give what the array gives in memory; a 4-D convolution on a real cube."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from ccnn_irregular import (
    CCNN,
    SIREN,
    ContinuousConv,
    GaussianMask,
    Kernel,
    KernelSpec,
    Points,
    Product,
    Solver,
    convolve,
)
from ccnn_irregular.adapters.xarray import open_cube
from ccnn_irregular.layers import SeparableContinuousConv

pytest.importorskip("dask")


def conv(widths: list[float], channels: int = 1, rtol: float = 1e-7) -> ContinuousConv:
    torch.manual_seed(1)
    kernel = Kernel(
        SIREN(len(widths), channels, 8, omega_0=2.0), GaussianMask(widths), extent=[3 * width for width in widths]
    )
    return ContinuousConv(kernel.double(), solver=Solver(rtol=rtol)).double()


def field(*, falling: bool = True, closed: bool = False, uneven: bool = False, gaps: bool = False) -> xr.DataArray:
    latitude, longitude = np.arange(-84.0, 85, 8), np.arange(0.0, 360 + 5 * closed, 10)
    time = np.arange(14.0) ** (1.2 if uneven else 1)
    values = np.random.default_rng(0).standard_normal((len(time), len(latitude), len(longitude)))
    if closed:
        values[..., -1] = values[..., 0]
    if gaps:
        values[:, 5:9, 12:18] = np.nan
        values[2, 3, 4] = np.nan
    coordinates = {
        "time": ("time", time, {"axis": "T", "units": "days"}),
        "lat": ("lat", latitude[::-1] if falling else latitude, {"units": "degrees_north"}),
        "lon": ("lon", longitude, {"units": "degrees_east"}),
    }
    return xr.DataArray(values, coordinates, ("time", "lat", "lon"), "t", {"units": "K"})


def assert_same(lazy: xr.DataArray, wanted: xr.DataArray) -> None:
    assert lazy.chunks is not None, "a lazy array stays lazy"
    xr.testing.assert_identical(wanted.copy(data=np.zeros(wanted.shape)), lazy.copy(data=np.zeros(wanted.shape)))
    scale = float(np.abs(wanted).max())
    np.testing.assert_allclose(lazy.compute(), wanted, rtol=0, atol=1e-6 * scale)
    assert float(wanted.std()) > 0.01 * scale


@pytest.mark.parametrize(
    "case",
    [
        {},
        {"falling": False, "gaps": True},
        {"closed": True},
        {"uneven": True, "gaps": True},
    ],
    ids=str,
)
def test_blocks_give_what_the_whole_gives(case: dict[str, bool]) -> None:
    array = field(**case)
    layer = conv([1.0, 8.0, 12.0])
    wanted = array.ccnn.convolve(layer)
    # Chunks smaller than the kernel, chunks that do not divide the sizes, and seams in the middle of the globe.
    lazy = array.chunk(time=4, lat=9, lon=17).ccnn.convolve(layer)
    assert_same(lazy, wanted)


def test_blocks_without_overlap_differ() -> None:
    array = field()
    layer = conv([1.0, 8.0, 12.0])
    wanted = array.ccnn.convolve(layer)
    alone = array.isel(lat=slice(0, 9)).ccnn.convolve(layer)
    assert float(np.abs(alone - wanted)[:, -1].max()) > 0.1 * float(np.abs(wanted).max())


def test_nothing_is_read_before_it_is_asked_for() -> None:
    da = pytest.importorskip("dask.array")

    def refuse(block: np.ndarray) -> np.ndarray:
        raise RuntimeError("read too early")

    array = field()
    poisoned = array.copy(data=da.map_blocks(refuse, da.zeros(array.shape, chunks=(7, 11, 18)), dtype=float))
    result = poisoned.ccnn.convolve(conv([1.0, 8.0, 12.0]))
    dense = poisoned.ccnn(area_weights=False).predict(network())
    assert result.chunks is not None
    for lazy in (result, dense):
        with pytest.raises(RuntimeError, match="read too early"):
            lazy.compute()


def test_samples_and_channels_of_lazy_arrays() -> None:
    array = field(gaps=True).expand_dims(member=3).copy()
    array = xr.concat([array, array + 1], xr.DataArray(["u", "v"], dims="variable")).transpose("member", ...).copy()
    array[1] *= 2
    layer = SeparableContinuousConv(conv([1.0, 8.0, 12.0], 2).kernel, 3, solver=Solver(rtol=1e-7)).double()
    accessor = array.ccnn(samples="member", channels="variable")
    lazy = array.chunk(member=1, variable=1, time=7).ccnn(samples="member", channels="variable").convolve(layer)
    assert_same(lazy, accessor.convolve(layer))
    assert lazy.sizes["channel"] == 3
    dataset = xr.Dataset({"u": field(), "v": 2 * field()})
    depthwise = conv([1.0, 8.0, 12.0], 2)
    wanted = dataset.ccnn.convolve(depthwise)
    assert_same(dataset.chunk(time=7, lat=11).ccnn.convolve(depthwise)["v"], wanted["v"])


def network(**options: object) -> CCNN:
    torch.manual_seed(0)
    kernel = KernelSpec(extent=[3.0, 30.0, 30.0], width=[0.4, 3.0, 4.0], omega_0=2.0)
    return CCNN(1, 4, 2, kernel=kernel, blocks=2, head="dense", solver=Solver("fft")).double()


def test_networks_see_as_far_as_all_their_kernels() -> None:
    array = field()
    wanted = array.ccnn(area_weights=False).predict(network())
    lazy = array.chunk(time=5, lat=20, lon=12).ccnn(area_weights=False).predict(network())
    assert_same(lazy, wanted)


def test_a_result_goes_into_a_store_in_the_chunks_of_its_own(tmp_path: Path) -> None:
    pytest.importorskip("zarr")
    array, layer = field(), conv([1.0, 8.0, 12.0])
    array.to_dataset().to_zarr(tmp_path / "a.zarr", consolidated=False, encoding={"t": {"chunks": (3, 5, 7)}})
    with open_cube(tmp_path / "a.zarr", chunks={}) as dataset:
        result = dataset["t"].ccnn.convolve(layer)
        assert all(sum(result.chunks[0][:end]) % 3 == 0 for end in range(len(result.chunks[0])))
        result.to_zarr(tmp_path / "b.zarr", consolidated=False)
    with open_cube(tmp_path / "b.zarr") as stored:
        wanted = array.ccnn.convolve(layer)
        np.testing.assert_allclose(stored["t"], wanted, rtol=0, atol=1e-6 * float(np.abs(wanted).max()))
        assert stored["t"].encoding["chunks"] == (3, 5, 7)
        assert stored["t"].attrs == wanted.attrs


def test_networks_that_answer_once_need_the_array_in_memory() -> None:
    torch.manual_seed(0)
    once = CCNN(
        1,
        4,
        2,
        kernel=KernelSpec(extent=[9.0, 9.0, 9.0], width=[9.0, 9.0, 9.0], omega_0=1.0),
        blocks=1,
        solver=Solver("fft"),
    ).double()
    with pytest.raises(ValueError, match=r"model must answer at every place of a lazy array \(head 'dense'\)"):
        field().chunk(time=5).ccnn(area_weights=False).predict(once)
    with pytest.raises(ValueError, match=r"like must be None for a lazy array: load it first"):
        field().chunk(time=5).ccnn.convolve(conv([1.0, 8.0, 12.0]), like=field())
    with pytest.raises(ValueError, match=r"like must be None for a lazy array: load it first"):
        field().chunk(time=5).ccnn.predict(once, like=field())
    with pytest.raises(ValueError, match=r"astype\('float32'\), got float64"):
        field().chunk(time=5).ccnn.convolve(conv([1.0, 8.0, 12.0]).float())


def test_a_kernel_without_a_mask_sees_the_whole_array() -> None:
    torch.manual_seed(0)
    layer = ContinuousConv(Kernel(SIREN(3, 1, 8, omega_0=2.0), extent=[14.0, 90.0, 100.0]).double()).double()
    array = field().isel(lon=slice(0, 20))
    lazy = array.chunk(time=5, lat=9).ccnn.convolve(layer)
    assert_same(lazy, array.ccnn.convolve(layer))


def test_progress(capsys: pytest.CaptureFixture[str]) -> None:
    lazy = field().chunk(time=5).ccnn.convolve(conv([1.0, 8.0, 12.0]))
    loaded = lazy.ccnn.compute()
    assert loaded.chunks is None
    assert "Completed" in capsys.readouterr().out
    assert "Completed" not in (lazy.ccnn.compute(progress=False), capsys.readouterr().out)[1]
    dataset = xr.Dataset({"t": field().chunk(time=5)})
    assert dataset.ccnn.compute()["t"].chunks is None
    members = field().expand_dims(member=2)
    members.ccnn(samples="member", area_weights=False).predict(network(), progress=True)
    assert "predict: 100%" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:variable .* has non-conforming '_FillValue'")
def test_a_4d_convolution_on_the_real_cube(shared_data: Path) -> None:
    """month x level x latitude x longitude: product engine, lazy blocks, and the sum over all pairs at some nodes."""
    dataset = open_cube(shared_data / "climate" / "xarray_eraint_uvz.nc")
    cube = dataset["u"].load().drop_encoding()
    axes = {"month": "time", "level": "vertical"}
    rtol = 1e-3
    layer = conv([150.0, 1.5, 4.0, 2.0], rtol=rtol)
    order = ["level", "latitude", "month", "longitude"]  # what is not uniform first
    accessor = cube.ccnn(axes=axes, order=order)
    result = accessor.convolve(layer)
    scale = float(result.std())
    lazy = cube.chunk(latitude=80, longitude=120).ccnn(axes=axes, order=order).convolve(layer)
    assert lazy.chunks is not None
    assert float(np.abs(lazy.compute() - result).max()) < 10 * rtol * scale
    # The reference: latitudes by area, longitudes around the globe, nodes and weights from the samples' domain.
    samples = accessor.to_samples()
    assert isinstance(samples.domain, Product)
    everything = samples.domain.as_points()
    values = samples.values.movedim(1, -1).reshape(-1, 1)
    nodes = torch.randint(0, everything.count, (12,), generator=torch.Generator().manual_seed(0))
    query = Points(everything.coordinates[nodes], periods=everything.periods)
    with torch.no_grad():
        wanted = convolve(layer.kernel, values, everything, query, engine="reference")[:, 0]
    own = samples.frame.packed(result.transpose(*samples.frame.dims).to_numpy())[0, 0].reshape(-1)[nodes.numpy()]
    np.testing.assert_allclose(own, wanted.numpy(), rtol=0, atol=10 * rtol * scale)
