"""The globe, its seam and its turns: lines, clouds, queries and files agree with sums over the circle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import ccnn_irregular.adapters.xarray  # noqa: F401
from ccnn_irregular import SIREN, ContinuousConv, GaussianMask, Kernel, Solver
from ccnn_irregular.longitudes import longitude_line, on_circle, one_turn
from ccnn_irregular.pipelines.consistency import read_netcdf
from ccnn_irregular.pipelines.tasks.downscale.fields import Fields
from ccnn_irregular.pipelines.tasks.field.baselines import linear
from ccnn_irregular.pipelines.tasks.field.kriging import FieldAxis

STEP = 5.0
NORTH = {"units": "degrees_north"}


def conv(width: float, channels: int = 1) -> ContinuousConv:
    torch.manual_seed(1)
    mask = GaussianMask([width], threshold=1e-3)
    kernel = Kernel(SIREN(1, channels, 8, omega_0=2.0), mask, extent=[3 * width])
    return ContinuousConv(kernel.double(), bias=False, solver=Solver("reference")).double().requires_grad_(False)


def field(longitudes: np.ndarray, **attributes: str) -> xr.DataArray:
    """A smooth field of the place alone."""
    angle = np.radians(longitudes)
    values = np.sin(angle) + 0.3 * np.cos(5 * angle) + np.exp(np.cos(angle - 1))
    about = {"units": "degrees_east"} | attributes
    return xr.DataArray(values, {"lon": ("lon", np.asarray(longitudes, np.float64), about)}, ("lon",))


def circle_sum(layer: ContinuousConv, wanted: np.ndarray, places: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The sum over all places, each at its shortest offset around the circle."""
    offsets = (wanted[:, None] - places[None] + 180) % 360 - 180
    kernel = layer.kernel(torch.from_numpy(offsets[..., None]))[..., 0].numpy()
    return kernel @ (weights * field(places).values)


@st.composite
def stored_arcs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """An arc from west to east, and the same places as files hold them: cut anywhere, in any turn, rising or not."""
    steps = draw(st.lists(st.sampled_from([1.0, 2.0, 4.5]), min_size=2, max_size=12))
    west = draw(st.sampled_from([-180.0, -179.5, -20.0, -0.5, 0.0, 170.0, 350.25]))
    arc = west + np.concatenate([[0], np.cumsum(steps)])
    stored = on_circle(arc, draw(st.sampled_from([0.0, 180.0])))
    if draw(st.booleans()):  # as xarray's sortby leaves them
        stored = np.sort(stored)
    return arc, stored[::-1].copy() if draw(st.booleans()) else stored


@given(stored_arcs())
@settings(max_examples=60, deadline=None)
def test_an_arc_is_the_same_however_it_is_stored(case: tuple[np.ndarray, np.ndarray]) -> None:
    arc, stored = case
    gaps = np.diff(arc)
    wanted = (np.concatenate([gaps[:1], gaps]) + np.concatenate([gaps, gaps[-1:]])) / 2
    line = longitude_line("lon", stored)
    assert not line.globe
    np.testing.assert_allclose(on_circle(line.nodes - arc, 0.0), 0, atol=1e-9)
    (axis,) = field(stored).ccnn.frame().factors
    np.testing.assert_allclose(axis.widths, wanted, rtol=1e-9)
    values = np.arange(len(arc)) * 1.0
    np.testing.assert_array_equal(axis.unpacked(axis.packed(values, 0), 0), values)
    np.testing.assert_allclose(axis.packed(field(stored).values, 0), field(arc).values, rtol=1e-9, atol=1e-9)
    turn = one_turn(stored)
    assert np.ptp(turn.degrees) == pytest.approx(arc[-1] - arc[0])


@pytest.mark.parametrize("falling", [False, True])
@pytest.mark.parametrize("centre", [0.0, 45.0, 180.0])
@pytest.mark.parametrize("rolled", range(4))
@pytest.mark.parametrize("count", [2, 3, 4])
def test_a_short_arc_cut_anywhere(count: int, rolled: int, centre: float, falling: bool) -> None:
    """Of three places cut in two one step rises and one falls."""
    arc = np.array([10.0, 50.0, 100.0, 160.0])[:count]
    stored = on_circle(np.roll(arc, rolled), centre)
    line = longitude_line("lon", stored[::-1] if falling else stored)
    np.testing.assert_allclose(on_circle(line.nodes, 85.0), arc)


@pytest.mark.parametrize(
    ("stored", "widths"),
    [
        ([0.5, 325.5, 330.5, 355.5], [5, 15, 15, 5]),
        ([0.0, 1, 2, 357, 358, 359], [1] * 6),
        ([359.0, 358, 357, 2, 1, 0], [1] * 6),
        ([350.0, 355, 0, 5], [5] * 4),
        ([-179.0, -178, 178, 179], [1, 1.5, 1.5, 1]),
        ([0.0, 1, 2, 358, 359, 360], [1] * 5),
    ],
)
def test_a_region_across_the_cut_is_convolved_as_a_region(stored: list[float], widths: list[float]) -> None:
    array, layer = field(np.array(stored)), conv(6.0)
    result = array.ccnn.convolve(layer)
    (axis,) = array.ccnn.frame().factors
    assert axis.period is None
    np.testing.assert_allclose(axis.widths, widths)
    assert np.all(np.diff(axis.nodes) > 0)
    wanted = circle_sum(layer, np.array(stored), axis.nodes, np.array(widths, np.float64))
    np.testing.assert_allclose(result, wanted, rtol=1e-9)
    lazy = array.chunk(lon=2).ccnn.convolve(layer)
    np.testing.assert_allclose(lazy.compute(), wanted, rtol=1e-9)


@pytest.mark.parametrize("start", [-180.0, 0.0, 90.0])
@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("falling", [False, True])
@pytest.mark.parametrize("wrapped", [False, True])
def test_the_globe_is_one_circle(start: float, closed: bool, falling: bool, wrapped: bool) -> None:
    stored = start + np.arange(0, 360 + STEP * closed, STEP)
    stored = on_circle(stored, 180.0) if wrapped and not closed else stored
    stored = stored[::-1] if falling else stored
    array, layer = field(stored), conv(9.0)
    frame = array.ccnn.frame()
    assert frame.factors[0].periods == (360.0,)
    assert frame.factors[0].step == pytest.approx(STEP)
    places = np.arange(0, 360, STEP)
    wanted = circle_sum(layer, stored, places, np.full(72, STEP))
    np.testing.assert_allclose(array.ccnn.convolve(layer), wanted, rtol=1e-8)


@pytest.mark.parametrize(
    "source",
    [np.arange(-20, 41, STEP), np.arange(340, 401, STEP) % 360, np.arange(100, 301, STEP), np.arange(0, 301, STEP)],
)
@pytest.mark.parametrize(
    "query",
    [
        np.arange(0, 360, STEP),
        np.arange(-180, 180, STEP),
        np.arange(355, -1, -STEP),
        np.arange(0, 361, STEP),
        np.array([345.0, 350, 0, 5]),
        np.arange(60, 301, STEP),
        np.array([310.0, 330.0, 350.0]),
        np.array([-30.0]),
    ],
)
def test_the_result_at_longitudes_of_any_turn(source: np.ndarray, query: np.ndarray) -> None:
    layer = conv(9.0)
    array = field(source)
    reach = float(layer.kernel.support)
    assert 30 < reach < 60
    result = array.ccnn.convolve(layer, like=field(query))
    wanted = circle_sum(layer, query, source, np.full(len(source), STEP))
    np.testing.assert_allclose(result, wanted, rtol=0, atol=1e-8 * np.abs(wanted).max())


def test_points_across_the_cut_meet_the_nearer_way_round() -> None:
    array = field(np.arange(-20, 41, STEP))
    wide = xr.concat([array, array], "lat").assign_coords(lat=("lat", [0.0, 1.0], NORTH))
    torch.manual_seed(1)
    kernel = Kernel(SIREN(2, 1, 8, omega_0=2.0), GaussianMask([5.0, 9.0]), extent=[15.0, 27.0])
    plane = ContinuousConv(kernel.double(), bias=False, solver=Solver("reference")).double().requires_grad_(False)
    places = {
        "lat": ("s", [0.0, 1.0, 0.5], NORTH),
        "lon": ("s", [350.0, 10.0, 200.0], {"units": "degrees_east"}),
    }
    found = wide.ccnn.convolve(plane, like=xr.DataArray(np.zeros(3), places, ("s",)))
    own = wide.ccnn.convolve(plane)
    np.testing.assert_allclose(found[0], own.sel(lat=0, lon=-10), rtol=1e-9)
    np.testing.assert_allclose(found[1], own.sel(lat=1, lon=10), rtol=1e-9)
    assert float(found[2]) == 0.0


def test_a_kernel_reaches_across_the_gap_that_a_region_leaves_open() -> None:
    layer = conv(20.0)  # 74 degrees; the gap between 300 and 360 is 60
    source = np.arange(0, 301, STEP)
    result = field(source).ccnn.convolve(layer)
    wanted = circle_sum(layer, source, source, np.full(len(source), STEP))
    np.testing.assert_allclose(result, wanted, rtol=0, atol=1e-8 * np.abs(wanted).max())
    lazy = field(source).chunk(lon=20).ccnn.convolve(layer)
    np.testing.assert_allclose(lazy.compute(), wanted, rtol=0, atol=1e-8 * np.abs(wanted).max())


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([0.0, 30, 20, 60], "rise or fall throughout, but for one jump by a turn, got a turn after entry"),
        (np.arange(12) * 60.0, "span at most the globe, 360 degrees, got 660"),
        ([0.0, 10, 10, 20], "have no duplicates"),
    ],
)
def test_longitudes_that_are_no_turn_are_refused(bad: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        field(np.asarray(bad)).ccnn.frame()


def variable(folder: Path, stored: np.ndarray) -> object:
    plane = xr.concat([field(stored)] * 3, "lat").assign_coords(lat=("lat", [0.0, 5, 10], NORTH))
    plane.to_dataset(name="t").to_netcdf(folder / "t.nc", engine="h5netcdf")
    return read_netcdf(folder / "t.nc")


def test_a_file_with_the_first_meridian_twice_is_the_globe(tmp_path: Path) -> None:
    read = variable(tmp_path, np.arange(0, 361, 12.0))
    assert read.grid.sizes == (3, 30)
    assert read.grid.periods == (None, 360.0)
    assert "axis 'lon' has its first meridian again at the end, which was dropped" in read.notes
    np.testing.assert_allclose(read.values[0], field(np.arange(0, 360, 12.0)).values)


def test_a_file_that_cuts_a_region_is_joined(tmp_path: Path) -> None:
    read = variable(tmp_path, np.array([0.0, 1, 2, 3, 356, 357, 358, 359]))
    assert read.grid.periods == (None, None)
    assert (read.grid.sizes, read.grid.starts[1], read.grid.steps[1]) == ((3, 8), 356.0, 1.0)
    np.testing.assert_allclose(read.values[1], field(np.arange(356.0, 364)).values)
    assert any("was joined at 356" in note for note in read.notes)
    falling = variable(tmp_path, np.arange(350, -1, -10.0))
    assert falling.grid.periods == (None, 360.0)
    with pytest.raises(ValueError, match="axis 'lon' must have its seam as wide as a step"):
        variable(tmp_path, np.arange(0, 349, 12.0) + 0.5 * np.arange(30) / 30)


def test_a_region_that_is_cut_is_downscaled_in_one_piece() -> None:
    cut = np.array([0.0, 1, 2, 3, 356, 357, 358, 359])

    def fields(stored: np.ndarray) -> Fields:
        plane = xr.concat([field(stored)] * 8, "lat").astype(np.float32)
        return Fields.of(plane.assign_coords(lat=("lat", np.arange(8.0), NORTH)).to_dataset(name="t"), ["t"])

    found, wanted = fields(cut), fields(np.arange(356.0, 364))
    np.testing.assert_array_equal(found.plane.columns.nodes, wanted.plane.columns.nodes)
    np.testing.assert_allclose(found.read({}), wanted.read({}), rtol=1e-6)
    np.testing.assert_array_equal(found.plane.coordinates()["lon"] % 360, cut)
    values = np.arange(64.0).reshape(8, 8)
    np.testing.assert_array_equal(found.plane.unpacked(found.plane.packed(values)), values)
    for plane in (found.plane.coarsened(2, "means"), found.plane.refined(2, "nodes")):
        assert np.all(np.diff(plane.coordinates()["lon"]) > 0)
    patch = found.plane.patch((0, 4), (2, 6))
    np.testing.assert_array_equal(patch.coordinates()["lon"], [358, 359, 360, 361])


def test_interpolation_of_observations_meets_queries_of_any_turn() -> None:
    rng = np.random.default_rng(0)
    places = np.stack([rng.uniform(0, 40, 400), rng.uniform(-30, 50, 400)], 1)
    queries = np.stack([rng.uniform(10, 30, 50), rng.uniform(-10, 30, 50)], 1)
    values, wanted = (one[:, :1] + 0.5 * one[:, 1:] for one in (places, queries))
    axes = (FieldAxis("latitude", "latitude"), FieldAxis("longitude", "longitude"))
    for turned in (0.0, 360.0):
        for centre in (0.0, 180.0):
            stored = np.stack([places[:, 0], on_circle(places[:, 1], centre)], 1)
            found = linear(stored, values, queries + np.array([0, turned]), axes)
            np.testing.assert_allclose(found, wanted, rtol=1e-9)
