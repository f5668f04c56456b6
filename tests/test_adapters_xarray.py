"""The accessor: dimensions to axes, values to samples and back; compared with sums written out in NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from ccnn_irregular import CCNN, SIREN, ContinuousConv, GaussianMask, Grid, Kernel, KernelSpec, Points, Product, Solver
from ccnn_irregular.adapters.xarray import Line, open_cube
from ccnn_irregular.layers import SeparableContinuousConv

pytestmark = [
    pytest.mark.filterwarnings("ignore:variable .* has non-conforming '_FillValue'"),
    pytest.mark.filterwarnings("ignore:nothing says what the points along"),
    pytest.mark.filterwarnings("ignore:the kernel makes values about"),  # layers as they are made, in degrees and days
]


def conv(widths: list[float], channels: int = 1, engine: str = "auto") -> ContinuousConv:
    torch.manual_seed(1)
    d = len(widths)
    kernel = Kernel(SIREN(d, channels, 16, omega_0=2.0), GaussianMask(widths), extent=[3 * w for w in widths])
    layer = ContinuousConv(kernel.double(), solver=Solver(engine, rtol=1e-6)).double()  # type: ignore[arg-type]
    torch.nn.init.normal_(layer.bias)
    return layer


def written_out(layer: ContinuousConv, places: list, weights: list, values: np.ndarray, turn: int | None) -> np.ndarray:
    """Sum over all nodes of a product of lines, one channel; the axis ``turn`` repeats after 360."""
    mesh = np.stack(np.meshgrid(*places, indexing="ij"), -1).reshape(-1, len(places))
    weight = np.ones(1)
    for one in weights:
        weight = np.multiply.outer(weight, one)
    weight, flat = weight.reshape(-1), values.reshape(-1)
    seen = ~np.isnan(flat)
    offsets = mesh[:, None] - mesh[None, seen]
    if turn is not None:
        offsets[..., turn] = (offsets[..., turn] + 180) % 360 - 180
    with torch.no_grad():
        kernel = layer.kernel(torch.from_numpy(offsets)).squeeze(-1).numpy()
    bias = 0.0 if layer.bias is None else layer.bias.item()
    return (kernel @ (weight * np.where(seen, flat, 0)[...])[seen] + bias).reshape(values.shape)


def globe(step: float = 30.0, closed: bool = False, falling: bool = True, start: float = 0.0) -> xr.DataArray:
    """A field on latitudes, longitudes and three months as CF files have them."""
    latitude = np.arange(-75, 76, step)
    longitude = np.arange(start, start + 360 + (step / 2 if closed else 0), step)
    time = np.array(["2001-01-01", "2001-02-01", "2001-04-01"], "datetime64[ns]")
    values = np.random.default_rng(0).standard_normal((3, len(latitude), len(longitude)))
    if closed:
        values[..., -1] = values[..., 0]
    array = xr.DataArray(
        values,
        {
            "time": ("time", time, {"standard_name": "time"}),
            "lat": ("lat", latitude[::-1] if falling else latitude, {"units": "degrees_north"}),
            "lon": ("lon", longitude.astype(np.float32), {"units": "degrees_east"}),
            "height": ((), 2.0, {"units": "m"}),
            "area": (("lat", "lon"), np.ones((len(latitude), len(longitude)))),
        },
        ("time", "lat", "lon"),
        "t2m",
        {"units": "K", "cell_methods": "time: mean"},
    )
    array.encoding = {"dtype": "int16", "scale_factor": 10.0, "_FillValue": -32768}
    array.lat.encoding = {"dtype": "float32"}
    return array


def bands(latitude: np.ndarray) -> np.ndarray:
    """Widths of latitude bands in degrees times their mean cosine, which is the difference of the sines."""
    half = abs(latitude[1] - latitude[0]) / 2
    upper, lower = np.clip(latitude + half, -90, 90), np.clip(latitude - half, -90, 90)
    return np.degrees(np.sin(np.radians(upper)) - np.sin(np.radians(lower)))


def test_axes_of_a_cf_field() -> None:
    frame = globe().ccnn.frame()
    assert frame.axes == ("time", "lat", "lon")
    assert frame.units == ("days", "degrees", "degrees")
    time, latitude, longitude = frame.factors
    assert isinstance(time, Line)
    assert time.step is None
    np.testing.assert_allclose(time.nodes, [11323, 11354, 11413])  # days since 1970-01-01
    np.testing.assert_allclose(time.widths, [31, 45, 59])  # half the gaps; the outer ones count twice
    assert latitude.step == pytest.approx(30)
    np.testing.assert_allclose(latitude.weights, bands(np.arange(-75, 76, 30.0)), rtol=1e-12)
    assert latitude.weights.sum() * 360 == pytest.approx(4 * np.pi * np.degrees(1) ** 2)
    assert longitude.periods == (360.0,)
    assert "lon (longitude): 0 to 330 degrees, step 30, repeats" in str(frame)


@pytest.mark.parametrize("falling", [False, True])
@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("start", [0.0, -180.0])
def test_convolution_is_the_sum_written_out(falling: bool, closed: bool, start: float) -> None:
    array = globe(closed=closed, falling=falling, start=start)
    array[:, 2, 3] = np.nan
    array[1, 4, 1] = np.nan
    layer = conv([40.0, 20.0, 20.0])
    result = array.ccnn.convolve(layer)
    inner = array.isel(lon=slice(0, 12))
    places = [
        (array.time.values - np.datetime64("1970-01-01")) / np.timedelta64(1, "D"),
        inner.lat.values,
        inner.lon.values.astype(float),
    ]
    weights = [np.array([31.0, 45.0, 59.0]), bands(inner.lat.values), np.full(12, 30.0)]
    wanted = written_out(layer, places, weights, inner.values, turn=2)
    np.testing.assert_allclose(result.isel(lon=slice(0, 12)), wanted, rtol=0, atol=2e-5 * np.abs(wanted).max())
    if closed:
        np.testing.assert_array_equal(result.isel(lon=-1), result.isel(lon=0))


def test_the_order_of_axes_follows_what_they_measure() -> None:
    """A kernel must not take another axis for time because a file is transposed, or its times are uniform."""
    array, layer = globe(), conv([40.0, 20.0, 20.0])
    uniform = array.assign_coords(time=("time", [0.0, 1.0, 2.0], {"axis": "T", "units": "days"}))
    assert uniform.ccnn.frame().axes == array.ccnn.frame().axes == ("time", "lat", "lon")
    turned = array.transpose("lon", "time", "lat").ccnn.convolve(layer)
    assert turned.dims == ("lon", "time", "lat")
    np.testing.assert_allclose(turned.transpose(*array.dims), array.ccnn.convolve(layer), rtol=1e-12)


def test_what_is_not_a_value_is_kept() -> None:
    """All but the unit, which is not the convolution's, and the packing, which is not its values'."""
    array = globe(closed=True)
    array.encoding |= {"zlib": True}
    result = array.ccnn.convolve(conv([40.0, 20.0, 20.0]))
    wanted = array.copy(data=result.values)
    wanted.attrs = {"long_name": "convolution of t2m (K)"}
    xr.testing.assert_identical(result, wanted)
    assert result.encoding == {"zlib": True}
    assert result.lat.encoding == array.lat.encoding
    back = array.ccnn.to_samples()
    xr.testing.assert_identical(back.to_xarray(back.values), array)


def test_missing_values_are_samples_without_weight() -> None:
    land = globe()
    land[:, 1:3, 4:7] = np.nan
    samples = land.ccnn(order=["lat", "lon", "time"]).to_samples()
    assert isinstance(samples.domain, Points)  # irregular times end the uniform axes
    monthly = land.assign_coords(time=("time", [0.0, 1.0, 2.0], {"axis": "T", "units": "months"}))
    samples = monthly.ccnn(order=["lat", "lon", "time"]).to_samples()
    assert isinstance(samples.domain, Product)
    assert samples.domain.points.d == 2
    assert samples.domain.grid == Grid([3], [1.0])
    assert int((samples.domain.points.weights == 0).sum()) == 2 * 3
    # The same sum through the weights of the domain and through what ``convolve`` does on the grid.
    layer = conv([20.0, 20.0, 1.0])
    through_weights = samples.to_xarray(layer(samples.values, samples.domain))
    direct = monthly.ccnn(order=["lat", "lon", "time"]).convolve(layer)
    assert bool(direct.notnull().all())
    np.testing.assert_allclose(through_weights, direct, rtol=0, atol=1e-5 * np.abs(direct).max())


def test_channels_observed_at_different_places_have_weights_of_their_own() -> None:
    dataset = xr.Dataset({"a": globe(), "b": globe() * 2})
    dataset["a"][0, 0, 0] = np.nan
    samples = dataset.ccnn(["a", "b"]).to_samples()
    weights = samples.domain.weights
    assert weights.shape == (3 * 6 * 12, 2)
    assert ((weights == 0).sum(0)).tolist() == [1, 0]


def test_a_whole_channel_without_values() -> None:
    dataset = xr.Dataset({"a": globe(), "b": globe() * np.nan})
    weights = dataset.ccnn(["a", "b"], area_weights=False).to_samples().domain.points.weights
    assert (weights[:, 1] == 0).all()
    assert (weights[:, 0] > 0).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_uniform_as_far_as_the_dtype_tells(dtype: type) -> None:
    # Northings in metres: float32 has half metres there.
    nodes = 5.3e6 + 12.5 * np.arange(40)
    array = xr.DataArray(np.zeros(40), {"y": ("y", nodes.astype(dtype), {"axis": "Y", "units": "m"})}, ("y",))
    assert array.ccnn.frame().factors[0].step == pytest.approx(12.5, rel=1e-2)
    uneven = nodes + np.where(np.arange(40) == 20, 2.0, 0)
    array = array.assign_coords(y=("y", uneven.astype(dtype), array.y.attrs))
    assert array.ccnn.frame().factors[0].step is None


def test_gaussian_latitudes_and_calendar_months_are_not_uniform() -> None:
    latitude = np.degrees(np.arcsin(np.polynomial.legendre.leggauss(64)[0]))
    array = xr.DataArray(np.zeros(64), {"lat": ("lat", latitude, {"units": "degrees_north"})}, ("lat",))
    (line,) = array.ccnn.frame().factors
    assert line.step is None
    # Bands that end half-way between the nodes are close to the rule's own weights, and cover the sphere too.
    rule = np.degrees(np.polynomial.legendre.leggauss(64)[1])
    np.testing.assert_allclose(line.weights[1:-1], rule[1:-1], rtol=2e-2)
    assert line.weights.sum() == pytest.approx(np.degrees(2))
    months = xr.date_range("2000-01-01", periods=24, freq="MS")
    array = xr.DataArray(np.zeros(24), {"time": ("time", months, {"axis": "T"})}, ("time",))
    assert array.ccnn.frame().factors[0].step is None


@pytest.mark.parametrize(("calendar", "step"), [("360_day", 30.0), ("noleap", None)])
def test_other_calendars(calendar: str, step: float | None) -> None:
    months = xr.date_range("2000-01-01", periods=6, freq="MS", calendar=calendar, use_cftime=True)
    array = xr.DataArray(np.zeros(6), {"time": ("time", months, {"axis": "T"})}, ("time",))
    (line,) = array.ccnn.frame().factors
    assert line.step == step
    assert np.diff(line.nodes)[1] == (30 if calendar == "360_day" else 28)  # February
    hours = array.ccnn(time_unit="hours").frame()
    np.testing.assert_allclose(hours.factors[0].weights, 24 * line.weights)
    assert hours.units == ("hours",)


def test_time_spans_and_undecoded_times() -> None:
    leads = np.array([0, 6, 12], "timedelta64[h]").astype("timedelta64[ns]")
    array = xr.DataArray(np.zeros(3), {"lead": ("lead", leads)}, ("lead",))
    (line,) = array.ccnn(axes={"lead": "time"}, time_unit="hours").frame().factors
    np.testing.assert_array_equal(line.nodes, [0, 6, 12])
    raw = {"time": ("time", [3.0, 4.0], {"axis": "T", "units": "hours since 2000-01-01"})}
    undecoded = xr.DataArray(np.zeros(2), raw, ("time",)).ccnn
    assert undecoded.frame().units == ("days",)
    np.testing.assert_allclose(
        undecoded.frame().factors[0].coordinates[:, 0], 10957 + np.array([3, 4]) / 24, rtol=1e-15
    )
    np.testing.assert_array_equal(undecoded(time_unit="hours").frame().factors[0].coordinates[:, 0] % 24, [3, 4])


def test_a_single_node_stands_for_one_unit() -> None:
    frame = globe().isel(time=[0]).ccnn.frame()
    assert frame.factors[0].step == 1.0


def test_longitudes_that_do_not_close_do_not_repeat() -> None:
    part = globe(step=10.0).sel(lon=slice(0, 300))
    assert part.ccnn.frame().factors[2].periods == (None,)
    # Irregular ones that span the globe repeat too, and their widths close over the seam.
    uneven = globe(step=30.0).isel(lon=[0, 1, 2, 4, 6, 8, 9, 11])
    line = uneven.ccnn.frame().factors[2]
    assert (line.periods, line.step) == ((360.0,), None)
    assert line.weights.sum() == pytest.approx(360)


def test_curvilinear_grids_are_points_that_weigh_their_area() -> None:
    latitude, longitude = np.meshgrid(np.arange(-80, 81, 2.0), np.arange(0, 360, 3.0), indexing="ij")
    coordinates = {
        "nav_lat": (("j", "i"), latitude, {"standard_name": "latitude", "units": "degrees"}),
        "nav_lon": (("j", "i"), longitude, {"standard_name": "longitude", "units": "degrees"}),
    }
    array = xr.DataArray(np.ones(latitude.shape), coordinates, ("j", "i"))
    samples = array.ccnn.to_samples()
    assert isinstance(samples.domain, Points)
    assert samples.axes == ("nav_lat", "nav_lon")
    assert samples.domain.periods == (None, 360.0)
    wanted = 2.0 * 3.0 * np.cos(np.radians(latitude))
    np.testing.assert_allclose(samples.domain.weights.reshape(latitude.shape), wanted, rtol=2e-3)
    plain = array.ccnn(area_weights=False).to_samples().domain.weights.reshape(latitude.shape)
    np.testing.assert_allclose(plain, 6.0, rtol=1e-9)
    # A meridian that the grid has twice counts once.
    twice = xr.concat([array, array.isel(i=[0])], "i")
    weights = twice.ccnn.to_samples().domain.weights.reshape(81, 121).numpy()
    np.testing.assert_allclose(weights[:, [0, -1]], wanted[:, :2] / 2, rtol=2e-3)
    np.testing.assert_allclose(weights[:, 1:-1], wanted[:, 1:], rtol=2e-3)


def stations(count: int = 40) -> xr.DataArray:
    rng = np.random.default_rng(3)
    coordinates = {
        "lat": ("station", rng.uniform(26, 36, count), {"units": "degrees_north"}),
        "lon": ("station", rng.uniform(-106, -94, count), {"units": "degrees_east"}),
        "station": ("station", [f"s{index}" for index in range(count)]),
        "time": ("time", np.arange(5.0), {"axis": "T", "units": "days"}),
    }
    return xr.DataArray(rng.standard_normal((count, 5)), coordinates, ("station", "time"), "tavg")


def test_stations_are_points_beside_a_line_of_time() -> None:
    array = stations()
    array[3, 2] = np.nan
    frame = array.ccnn.frame()
    assert frame.axes == ("time", "lat", "lon")
    samples = array.ccnn.to_samples()
    assert samples.domain.d == 3
    assert int((samples.domain.weights == 0).sum()) == 1
    layer = conv([1.0, 2.0, 3.0])
    result = array.ccnn.convolve(layer)
    xr.testing.assert_identical(result.copy(data=array.values), array)
    cloud = frame.factors[1]
    offsets = np.concatenate([np.zeros((40, 40, 1)), cloud.coordinates[:, None] - cloud.coordinates[None]], -1)
    wanted = np.full((40, 5), layer.bias.item())
    for q in range(5):
        for p in range(5):
            offsets[..., 0] = q - p
            with torch.no_grad():
                kernel = layer.kernel(torch.from_numpy(offsets))[..., 0].numpy()
            wanted[:, q] += kernel @ (cloud.weights * np.nan_to_num(array.values[:, p]))
    np.testing.assert_allclose(result, wanted, rtol=0, atol=2e-5 * np.abs(wanted).max())


def test_weights_of_stations_are_areas() -> None:
    # Evenly spread stations: together they stand for the box, times the mean cosine.
    array = stations(4000)
    total = array.ccnn.frame().factors[1].weights.sum()
    assert total == pytest.approx(10 * 12 * np.cos(np.radians(31)), rel=0.05)


@pytest.mark.parametrize("count", [400, 2])
def test_weights_of_turned_stations_sum_to_the_same_area(count: int) -> None:
    """Of a square of 100 km, however it lies; the box around it is up to twice as large. Two stations lie on a line."""
    rng = np.random.default_rng(0)
    places = rng.uniform(0, 100, (count, 2)) if count > 2 else np.array([[0.0, 0.0], [50.0, 50.0]])
    sums = []
    for angle in (0.0, 0.4, np.pi / 4):
        x, y = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ places.T
        names = {"x": (x, "X"), "y": (y, "Y")}
        coordinates = {
            name: ("station", values, {"axis": kind, "units": "km"}) for name, (values, kind) in names.items()
        }
        array = xr.DataArray(np.zeros(count), coordinates, ("station",), "t")
        sums.append(float(array.ccnn(axes={"x": "x", "y": "y"}).frame().factors[0].weights.sum()))
    if count == 2:
        assert sums[0] == pytest.approx(2500)  # no hull: the box
        return
    assert sums == pytest.approx([sums[0]] * 3)
    assert sums[0] == pytest.approx(1e4, rel=0.05)


def test_stations_on_both_sides_of_the_date_line() -> None:
    array = stations().assign_coords(
        lon=("station", (np.linspace(176, 184, 40) + 180) % 360 - 180, stations().lon.attrs)
    )
    cloud = array.ccnn.frame().factors[1]
    assert cloud.periods == (None, None)
    np.testing.assert_allclose(np.ptp(cloud.coordinates[:, 1]), 8)


def test_profiles_without_a_position_are_left_out_and_come_back_as_nan() -> None:
    depth = np.array([[5.0, 10, 20], [4, np.nan, np.nan], [6, 12, 25], [5, 11, np.nan]])
    dataset = xr.Dataset(
        {
            "TEMP": (("p", "z"), np.arange(12.0).reshape(4, 3), {"units": "degree_Celsius"}),
            "PRES": (("p", "z"), depth, {"axis": "Z", "units": "dbar"}),
            "JULD": ("p", np.array(["2001-01-01", "2001-01-11", "NaT", "2001-01-31"], "datetime64[ns]")),
        }
    )
    samples = dataset.ccnn("TEMP", axes={"JULD": "time", "PRES": "vertical"}).to_samples()
    assert samples.omitted == 3 + 2 + 1
    np.testing.assert_array_equal(samples.values[:, 0], [0, 1, 2, 3, 9, 10])
    back = samples.to_xarray(samples.values).isel(variable=0)
    assert int(back.isnull().sum()) == 6
    np.testing.assert_array_equal(back.values[0], [0, 1, 2])


def test_the_track_of_a_drifter_is_points_in_time_and_space() -> None:
    coordinates = {
        "time": ("time", np.arange(6.0), {"axis": "T", "units": "hours"}),
        "lat": ("time", np.linspace(0, 1, 6), {"standard_name": "latitude"}),
        "lon": ("time", np.linspace(0, 2, 6), {"standard_name": "longitude"}),
    }
    array = xr.DataArray(np.zeros(6), coordinates, ("time",))
    assert array.ccnn.frame().axes == ("time", "lat", "lon")


def test_samples_and_channels_are_no_axes() -> None:
    member = globe().expand_dims(member=[4, 5]).transpose("time", "lat", "member", "lon").copy()
    member[..., 1, :] *= -2
    accessor = member.ccnn(samples="member")
    samples = accessor.to_samples()
    assert samples.domain.samples == 2
    layer = conv([40.0, 20.0, 20.0])
    result = accessor.convolve(layer)
    assert result.dims == member.dims
    for index in range(2):
        alone = member.isel(member=index).ccnn.convolve(layer)
        np.testing.assert_allclose(result.isel(member=index), alone, rtol=0, atol=1e-5 * np.abs(result).max())
    # As channels: three in, two out, so the dimension loses its labels.
    bands_ = xr.concat([globe(), 2 * globe(), 3 * globe()], xr.DataArray(["r", "g", "b"], dims="band"))
    mixed = bands_.ccnn(channels="band").convolve(
        SeparableContinuousConv(conv([40.0, 20.0, 20.0], 3).kernel, 2, solver=Solver(rtol=1e-6)).double()
    )
    assert mixed.sizes["channel"] == 2
    assert "band" not in mixed.coords
    kept = bands_.ccnn(channels="band").convolve(conv([40.0, 20.0, 20.0], 3))
    assert kept.dims == bands_.dims
    assert kept.band.values.tolist() == ["r", "g", "b"]


def test_a_dataset_keeps_its_variables() -> None:
    dataset = xr.Dataset({"u": globe(), "v": globe().assign_attrs(units="m s-1") * 2}, attrs={"Conventions": "CF-1.8"})
    dataset["crs"] = ((), 0)
    result = dataset.ccnn(["u", "v"]).convolve(conv([40.0, 20.0, 20.0], 2))
    assert set(result.data_vars) == {"u", "v", "crs"}
    assert result.attrs == dataset.attrs
    assert result.v.attrs == {"long_name": "convolution of v (m s-1)"}
    assert result.lat.encoding == dataset.lat.encoding
    everything = dataset.ccnn.convolve(conv([40.0, 20.0, 20.0], 2))
    xr.testing.assert_identical(everything, result)


def test_the_result_at_other_places() -> None:
    array = stations().isel(time=0, drop=True)
    grid = xr.DataArray(
        np.zeros((4, 5)),
        {
            "latitude": ("latitude", np.linspace(34, 28, 4), {"units": "degrees_north"}),
            "longitude": ("longitude", np.linspace(255, 265, 5), {"units": "degrees_east"}),
        },
        ("latitude", "longitude"),
    )
    layer = conv([2.0, 3.0])
    result = array.ccnn.convolve(layer, like=grid)
    assert result.dims == ("latitude", "longitude")
    assert result.name == "tavg"
    cloud = array.ccnn.frame().factors[0]
    places = np.stack(np.meshgrid(grid.latitude, grid.longitude - 360, indexing="ij"), -1)
    with torch.no_grad():
        kernel = layer.kernel(torch.from_numpy(places[:, :, None] - cloud.coordinates))[..., 0].numpy()
    wanted = kernel @ (cloud.weights * array.values) + layer.bias.item()
    np.testing.assert_allclose(result, wanted, rtol=0, atol=2e-5 * np.abs(wanted).max())


def network(d: int, head: str, **options: object) -> CCNN:
    torch.manual_seed(0)
    kernel = KernelSpec(extent=[90.0] * d, width=[25.0] * d, omega_0=2.0)
    return CCNN(1, 4, 2, head=head, kernel=kernel, blocks=1, **options).double()  # type: ignore[arg-type]


def test_networks_answer_everywhere_once_per_sample_and_at_queries() -> None:
    array = globe().isel(time=0, drop=True)
    array[1, 2:5] = np.nan
    dense = network(2, "dense", solver=Solver("neighbours"))
    result = array.ccnn.predict(dense)
    assert result.dims == ("lat", "lon", "channel")
    assert dense.training  # what was given stays as it was
    samples = array.ccnn.to_samples()
    with torch.no_grad():
        wanted = dense.eval()(samples.values, samples.domain)
    np.testing.assert_allclose(result, samples.to_xarray(wanted), rtol=1e-10)
    # A missing value is never read: another number there changes nothing.
    assert bool(result.notnull().all())
    members = array.expand_dims(member=3).copy()
    once = members.ccnn(samples="member").predict(network(2, "classify", solver=Solver("neighbours")), batch_size=2)
    assert once.dims == ("member", "channel")
    anywhere = network(2, "anywhere", solver=Solver("neighbours"))
    asked = array.ccnn.predict(anywhere, like=globe(step=15.0).isel(time=0, drop=True))
    assert dict(asked.sizes) == {"lat": 11, "lon": 24, "channel": 2}


def test_integers_become_floats_and_floats_are_not_rounded() -> None:
    array = globe().isel(time=0, drop=True)
    whole = (array * 10).astype(np.int16)
    assert whole.ccnn.to_samples().values.dtype == torch.float32
    layer = conv([20.0, 20.0]).float()
    assert whole.ccnn.convolve(layer).dtype == np.float32
    with pytest.raises(ValueError, match=r"dtype that float32 holds exactly.*astype\('float32'\), got float64"):
        array.ccnn.convolve(layer)


def replaced(array: xr.DataArray, name: str, values: object, **attributes: str) -> xr.DataArray:
    return array.assign_coords({name: (array[name].dims, values, array[name].attrs | attributes)})


def test_bad_coordinates_are_refused() -> None:
    array = globe()
    cases = {
        r"'lat' must have no duplicates, got \[15\.\] twice": replaced(array, "lat", [75.0, 45, 15, 15, -45, -75]),
        r"'lat' must rise or fall throughout, got a turn": replaced(array, "lat", [75.0, 45, 15, 20, -45, -75]),
        r"'lat' must be finite, got 1 missing": replaced(array, "lat", [75.0, 45, np.nan, -15, -45, -75]),
        r"'lat' must lie between -90 and 90": replaced(array, "lat", [120.0, 45, 15, -15, -45, -75]),
        r"unit of 'lat' must be degrees, got 'radians'": replaced(
            array, "lat", [1.2, 1, 0.5, 0, -0.5, -1], units="radians", standard_name="latitude"
        ),
        r"'lon' must span at most the globe": replaced(array, "lon", np.arange(12) * 60.0),
        r"values must be finite, or nan where missing, got 1 infinite": array.where(array != array[0, 0, 0], np.inf),
        r"must be the same on the repeated meridian": globe(closed=True) * np.arange(13),
    }
    for message, bad in cases.items():
        with pytest.raises(ValueError, match=message):
            bad.ccnn.to_samples()


def test_units_of_a_plane_are_the_same() -> None:
    coordinates = {
        "x": ("x", [0.0, 1, 2], {"axis": "X", "units": "km"}),
        "y": ("y", [0.0, 1, 2], {"axis": "Y", "units": "m"}),
    }
    with pytest.raises(ValueError, match=r"units of x and y must be the same, got \['km', 'm'\]"):
        xr.DataArray(np.zeros((3, 3)), coordinates, ("y", "x")).ccnn.frame()


def test_rotated_poles_and_projections_keep_their_own_metric() -> None:
    rotated = {
        "rlat": ("rlat", np.arange(-3.0, 4), {"axis": "Y", "units": "degrees", "standard_name": "grid_latitude"}),
        "rlon": ("rlon", np.arange(357.0, 364), {"axis": "X", "units": "degrees", "standard_name": "grid_longitude"}),
        "lat": (("rlat", "rlon"), np.full((7, 7), 52.0), {"standard_name": "latitude"}),
        "lon": (("rlat", "rlon"), np.full((7, 7), 11.0), {"standard_name": "longitude"}),
    }
    frame = xr.DataArray(np.zeros((7, 7)), rotated, ("rlat", "rlon")).ccnn.frame()
    assert frame.axes == ("rlat", "rlon")
    np.testing.assert_allclose(frame.factors[0].weights, np.cos(np.radians(np.arange(-3, 4))), rtol=1e-4)
    assert frame.factors[1].periods == (None,)
    projected = {
        "x": ("x", 2000.0 * np.arange(5), {"standard_name": "projection_x_coordinate", "units": "m"}),
        "y": ("y", -2000.0 * np.arange(4), {"standard_name": "projection_y_coordinate", "units": "m"}),
    }
    samples = xr.DataArray(np.zeros((4, 5)), projected, ("y", "x")).ccnn.to_samples()
    assert samples.domain == Grid([4, 5], [2000.0, 2000.0], [-6000.0, 0.0])
    assert samples.units == ("m", "m")


def test_dimensions_that_nobody_knows_are_refused() -> None:
    array = globe().rename(time="month").assign_coords(month=[1, 2, 3])
    with pytest.raises(ValueError, match=r"dimension 'month' must be an axis by its CF attributes, or be named"):
        array.ccnn.frame()
    assert array.ccnn(axes={"month": "time"}).frame().axes == ("month", "lat", "lon")
    assert array.ccnn(axes=["month"]).frame().axes == ("lat", "lon", "month")
    with pytest.raises(
        ValueError, match=r"axes must be among the coordinates \['area', 'height', 'lat', 'lon', 'month'\]"
    ):
        array.ccnn(axes=["tim"]).frame()
    with pytest.raises(ValueError, match=r"axes must have roles among \('time', .*\), got 'T'"):
        array.ccnn(axes={"month": "T"}).frame()
    with pytest.raises(ValueError, match=r"axes must run along a dimension, got the scalar 'height'"):
        array.ccnn(axes=["height"]).frame()
    with pytest.raises(ValueError, match=r"axes must give more than one coordinate, or one of one dimension"):
        globe().ccnn(axes=["area"]).frame()
    with pytest.raises(ValueError, match=r"axes must not run along samples or channels, got 'month'"):
        array.ccnn(axes=["month"], samples="month").frame()
    with pytest.raises(ValueError, match=r"samples must be one of the dimensions .*, got 'member'"):
        array.ccnn(samples="member").frame()
    with pytest.raises(ValueError, match=r"order must name the axes \[.*\], each once"):
        globe().ccnn(order=["lat"]).frame()
    with pytest.raises(ValueError, match=r"time_unit must be one of .*, got 'years'"):
        globe().ccnn(time_unit="years").frame()
    strings = array.assign_coords(month=["a", "b", "c"])
    with pytest.raises(ValueError, match=r"coordinate 'month' must hold numbers or dates"):
        strings.ccnn(axes={"month": "time"}).frame()


def test_two_coordinates_that_say_the_same_are_refused() -> None:
    array = stations().assign_coords(lat2=("station", stations().lat.values, {"standard_name": "latitude"}))
    with pytest.raises(ValueError, match=r"must be told apart: name the ones to use in axes, got several for"):
        array.ccnn.frame()
    assert array.ccnn(axes={"lat2": "latitude", "lon": "longitude"}).frame().axes == ("time", "lat2", "lon")


def test_missing_variables_are_named() -> None:
    dataset = xr.Dataset({"u": globe(), "v": globe()})
    with pytest.raises(ValueError, match=r"variables must be among \['u', 'v'\], got 'w'"):
        dataset.ccnn("w").to_samples()
    dataset["flat"] = dataset.u.isel(time=0, drop=True)
    with pytest.raises(ValueError, match=r"variables must have the same dimensions; name some of them"):
        dataset.ccnn.to_samples()


def test_layers_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"layer must have kernels of the array's 3 axes \('time', 'lat', 'lon'\)"):
        globe().ccnn.convolve(conv([1.0]))
    with pytest.raises(ValueError, match=r"layer must be one convolution; predict takes networks, got CCNN"):
        globe().ccnn.convolve(network(3, "dense"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"model must hold a continuous convolution, got Linear"):
        globe().ccnn.predict(torch.nn.Linear(1, 1))
    latent = network(3, "dense", latent=Grid([2, 2, 2], [1.0, 1.0, 1.0]), solver=Solver("neighbours"))
    with pytest.raises(ValueError, match=r"model must answer at every place, or once per sample, got shape"):
        globe().ccnn.predict(latent)
    with pytest.raises(ValueError, match=r"batch_size must be at least 1, got 0"):
        globe().ccnn.predict(network(3, "dense"), batch_size=0)
    taken = globe().rename(lat="channel")
    with pytest.raises(ValueError, match=r"dimensions must leave the name 'channel' free"):
        taken.ccnn(axes={"channel": "latitude"}).predict(network(3, "dense", solver=Solver("neighbours")))
    with pytest.raises(ValueError, match=r"like must have each axis of the array once"):
        globe().ccnn.convolve(conv([1.0, 1.0, 1.0]), like=globe().isel(time=0))


CLIMATE = {
    "xarray_eraint_uvz.nc": ("u", {"month": "time", "level": "vertical"}, Product),
    "iris_ostia_monthly.nc": ("surface_temperature", None, Points),
    "iris_A1B_north_america.nc": ("air_temperature", None, Product),
    "iris_orca2_votemper.nc": ("votemper", None, Points),
    "iristest_small_theta_colpex.nc": ("air_potential_temperature", {"level_height": "vertical"}, Points),
    "xarray_basin_mask.nc": ("basin", {"Z": "vertical"}, Points),
    "argo/1900857_prof.nc": ("TEMP", ["JULD", "LATITUDE", "LONGITUDE", "PRES"], Points),
    "argo/2901746_prof.nc": ("TEMP", ["JULD", "LATITUDE", "LONGITUDE", "PRES"], Points),
    "argo/5900865_prof.nc": ("TEMP", ["JULD", "LATITUDE", "LONGITUDE", "PRES"], Points),
}


@pytest.mark.parametrize("name", CLIMATE)
def test_official_climate_files(name: str, shared_data: Path) -> None:
    variable, axes, kind = CLIMATE[name]
    with open_cube(shared_data / "climate" / name) as dataset:
        samples = dataset.ccnn(variable, axes=axes).to_samples()
        array = dataset[variable].load()
    assert isinstance(samples.domain, kind)
    points = samples.domain.points if isinstance(samples.domain, Product) else samples.domain
    assert isinstance(points, Points)
    weights = points.weights[:, None] if points.weights.ndim == 1 else points.weights
    assert bool(torch.isfinite(samples.values[(weights > 0)[:, 0]]).all())
    assert bool((weights > 0).any())
    back = samples.to_xarray(samples.values).isel(variable=0, drop=True)
    wanted = array.astype(back.dtype).transpose(*back.dims).values
    if isinstance(axes, list):  # some values have no position
        known = np.all([np.isfinite(xr.broadcast(dataset[one], array)[0].astype(float)) for one in axes[1:]], axis=0)
        assert samples.omitted == int((~known).sum())
        wanted = np.where(known, wanted, np.nan)
    np.testing.assert_array_equal(back.values, wanted)


def test_official_stations(shared_data: Path) -> None:
    folder = shared_data / "climate"
    places = [line.split()[:3] for line in (folder / "ghcnm_texas.inv").read_text().splitlines()]
    place = {one[0]: (float(one[1]), float(one[2])) for one in places}
    record = np.full((100, 12), np.nan)
    for line in (folder / "ghcnm_texas.dat").read_text().splitlines():
        if line[11:15] == "1990" and line[:11] in place:
            months = [float(line[19 + 8 * month : 24 + 8 * month]) for month in range(12)]
            record[list(place).index(line[:11])] = [np.nan if one == -9999 else one / 100 for one in months]
    time = xr.date_range("1990-01-01", periods=12, freq="MS")
    array = xr.DataArray(
        record,
        {
            "lat": ("station", [one[0] for one in place.values()], {"units": "degrees_north"}),
            "lon": ("station", [one[1] for one in place.values()], {"units": "degrees_east"}),
            "time": ("time", time, {"axis": "T"}),
        },
        ("station", "time"),
    )
    samples = array.ccnn.to_samples()
    assert samples.domain.count == 1200
    assert int((samples.domain.weights == 0).sum()) == int(np.isnan(record).sum())


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_whole_numbers_that_floats_do_not_hold_are_refused(dtype: type) -> None:
    counts = xr.DataArray(np.array([2**60 + 65, 2**60, 2**60], dtype), {"hour": [0.0, 1.0, 2.0]}, ["hour"])
    with pytest.raises(
        ValueError, match=r"values must be whole numbers that float64 holds exactly, .*1152921504606847041"
    ):
        counts.ccnn(axes={"hour": "time"}).to_samples()
    small = counts.astype(np.int64) - 2**60
    assert small.ccnn(axes={"hour": "time"}).to_samples().values.flatten().tolist() == [65.0, 0.0, 0.0]
