"""The field task: kriging against NumPy, the network's last step, what is hidden from whom, baselines, the commands."""

from __future__ import annotations

import json
from pathlib import Path

import cftime
import numpy as np
import pytest
import torch
import xarray as xr
from scipy.interpolate import griddata

from ccnn_irregular import KernelSpec
from ccnn_irregular.adapters.xarray import Reading
from ccnn_irregular.datasets import argo, ghcnm
from ccnn_irregular.datasets.cube import load as load_cube
from ccnn_irregular.datasets.simulated_fields import smooth_fields
from ccnn_irregular.domains import Grid, Points
from ccnn_irregular.pipelines import cli
from ccnn_irregular.pipelines.tasks.field.baselines import about_the_origin, inverse_distance, linear
from ccnn_irregular.pipelines.tasks.field.data import FieldDataModule
from ccnn_irregular.pipelines.tasks.field.kriging import FieldAxis, LocalKriging, Metric
from ccnn_irregular.pipelines.tasks.field.network import FieldNetwork
from ccnn_irregular.pipelines.tasks.field.records import referred_to
from ccnn_irregular.pipelines.tasks.field.scores import Answers, scores_of
from ccnn_irregular.pipelines.train.evaluation import weighted_rmse

PLANE = (FieldAxis("y"), FieldAxis("x"))
GLOBE = (FieldAxis("latitude", "latitude"), FieldAxis("longitude", "longitude"))


def drawn(count: int, seed: int = 0, size: float = 10.0) -> torch.Tensor:
    return size * torch.rand(count, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def kriged(kriging: LocalKriging, metric: Metric, source: Points, query: Points) -> tuple[torch.Tensor, torch.Tensor]:
    rows, present = metric.nearest(source, query, kriging.neighbours)
    weights, _ = kriging(metric.embedded(source.coordinates), metric.embedded(query.coordinates), rows, present)
    return weights, rows


def test_weights_are_those_of_the_kriging_equations() -> None:
    """Solved here with a Lagrange multiplier, as in Cressie (1993), 3.2: another way to an unknown mean."""
    metric, kriging = Metric(PLANE), LocalKriging(1, 2, width=(2.0, 5.0), nugget=0.1, neighbours=9)
    places, query = drawn(9), drawn(1, 1)
    weights, rows = kriged(kriging, metric, Points(places), Points(query))
    near = places[rows[0]].numpy()
    variances, widths = kriging.variances[0].detach().numpy(), kriging.widths[0, :, 0].detach().numpy()

    def covariance(squares: np.ndarray) -> np.ndarray:
        return sum(a * np.exp(-squares / (2 * w**2)) for a, w in zip(variances, widths, strict=True))

    system = np.ones((10, 10))
    system[:9, :9] = covariance(((near[:, None] - near) ** 2).sum(2)) + 0.1 * np.eye(9)
    system[9, 9] = 0
    wanted = np.append(covariance(((near - query.numpy()) ** 2).sum(1)), 1)
    expected = np.linalg.solve(system, wanted)[:9]
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(weights[0, :, 0].detach(), expected, atol=5e-3)
    assert abs(float(weights.detach().sum()) - 1) < 5e-3


def test_estimates_pass_through_observations_and_beat_linear_on_a_smooth_field() -> None:
    source, query = drawn(300), 1 + 0.8 * drawn(100, 1)

    def smooth(places: torch.Tensor) -> torch.Tensor:
        return (0.7 * places[:, :1]).sin() * (0.5 * places[:, 1:]).cos()

    metric, kriging = Metric(PLANE), LocalKriging(1, 2, width=(3.0,), nugget=1e-9, neighbours=20)
    with torch.no_grad():
        for places, tolerance in ((source[:50], 2e-4), (query, 2e-3)):
            weights, rows = kriged(kriging, metric, Points(source), Points(places))
            found = (weights * smooth(source)[rows]).sum(1)
            assert float((found - smooth(places)).abs().max()) < tolerance
    other = griddata(source.numpy(), smooth(source).numpy(), query.numpy())
    assert np.nanmax(np.abs(other - smooth(query).numpy())) > 5e-3


def test_samples_do_not_see_one_another_and_may_be_smaller_than_the_neighbourhood() -> None:
    metric, kriging = Metric(PLANE), LocalKriging(1, 2, width=(3.0,), nugget=1e-3, neighbours=8)
    places, query = drawn(13), drawn(2, 1)
    source = Points(places, splits=torch.tensor([0, 3, 13]))
    weights, rows = kriged(kriging, metric, source, Points(query, splits=torch.tensor([0, 1, 2])))
    assert int((weights[0, :, 0] != 0).sum()) == 3
    assert set(rows[0][weights[0, :, 0] != 0].tolist()) == {0, 1, 2}
    assert int(rows[1].min()) >= 3
    alone, order = kriged(LocalKriging(1, 2, width=(3.0,), nugget=1e-3, neighbours=3), metric, Points(places[:3]),
                          Points(query[:1]))  # fmt: skip
    torch.testing.assert_close(weights[0, :3, 0][rows[0, :3].argsort()], alone[0, :, 0][order[0].argsort()])


def test_the_globe_has_no_seam_and_one_pole() -> None:
    metric = Metric(GLOBE)
    places = torch.tensor([[10.0, 179.0], [10.0, -179.0], [90.0, 0.0], [90.0, 120.0]], dtype=torch.float64)
    chord, latitude, around = metric.embedded(places)
    assert abs(float((chord[0] - chord[1]).norm()) - 2 * np.cos(np.radians(10))) < 1e-3
    assert float((chord[2] - chord[3]).norm()) < 1e-12
    assert float((latitude[0] - latitude[2]).norm()) == pytest.approx(80)
    assert float((around[0] - around[1]).norm()) == pytest.approx(2, rel=1e-3)


def test_axes_scale_and_refuse() -> None:
    depth = FieldAxis("pressure", scale=0.1, log=100.0)
    values = torch.tensor([0.0, 50.0, 2000.0], dtype=torch.float64)
    torch.testing.assert_close(depth.unscaled(depth.scaled(values)), values)
    assert float(depth.scaled(values)[1]) == pytest.approx(10 * np.log(1.5))
    with pytest.raises(ValueError, match="one latitude and one longitude"):
        Metric((GLOBE[0],))
    with pytest.raises(ValueError, match="be left alone on the sphere"):
        FieldAxis("latitude", "latitude", scale=2.0)


def test_the_network_begins_with_kriging_and_returns_to_the_observations() -> None:
    data = FieldDataModule("simulated_fields", held=0.3, watched=0.1)
    data.setup("fit")
    batch = next(iter(data.val_dataloader()))
    axes = (FieldAxis("y", scale=0.1), FieldAxis("x", scale=0.1))
    kernel = KernelSpec(extent=[4.0, 4.0], width=[1.0, 1.0], omega_0=1.0, generator="siren", hidden=4)
    shape = {"hidden_channels": 4, "blocks": 1, "kernel": kernel}
    options = {"neighbours": 12, "correlation": [0.7], "nugget": 1e-7}
    plain = FieldNetwork(1, axes, **options)  # type: ignore[arg-type]
    corrected = FieldNetwork(1, axes, latent=Grid([11, 11], [1.0, 1.0]), **options | shape)  # type: ignore[arg-type]
    for one in (plain, corrected):
        one.prepare(batch, data.training_values())
    torch.testing.assert_close(corrected.predict(batch)[0], plain.predict(batch)[0])
    assert corrected.correction is not None
    torch.nn.init.normal_(corrected.correction.output.weight, std=3.0)
    changed = corrected.predict(batch)[0] - plain.predict(batch)[0]
    with torch.no_grad():
        analysis = corrected.analyse(batch.observed, batch.values)
        at_observations = corrected.at(analysis, batch.observed) - analysis.values
    assert float(changed.abs().max()) > 1e-3
    assert float(at_observations.abs().max()) < 0.05 * float(changed.abs().max() / plain.deviation)
    corrected(batch).sum().backward()
    missing = [name for name, parameter in corrected.named_parameters() if parameter.grad is None]
    assert missing == []


@pytest.mark.parametrize("options", [{"held": 0.3, "watched": 0.1}, {"test_fields": [3], "watched": 0.2, "show": 0.25}])
def test_what_is_kept_is_never_seen_in_training(options: dict[str, object]) -> None:
    data = FieldDataModule("simulated_fields", draws=12, batch_size=1, **options)  # type: ignore[arg-type]
    data.setup("fit")

    def places(batches: object, which: str) -> set[tuple[float, ...]]:
        return {tuple(row) for one in batches for row in getattr(one, which).coordinates.tolist()}  # type: ignore[attr-defined]

    training, test, watched = (list(data.loader(part)) for part in ("train", "test", "validation"))
    seen = places(training, "observed") | places(training, "query")
    assert len(seen) > 700
    for kept in (test, watched):
        assert not seen & places(kept, "query")
        assert not places(kept, "observed") & places(kept, "query")
    for batch in training:
        one = {tuple(row) for row in batch.observed.coordinates.tolist()}
        assert not one & {tuple(row) for row in batch.query.coordinates.tolist()}
    if "test_fields" in options:
        assert (len(test), test[0].observed.count, test[0].query.count) == (1, 100, 300)


def test_cubes_go_in_and_out_with_coordinates_and_units(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    cube = xr.Dataset(
        {name: (("y", "month", "level", "x"), rng.normal(size=(4, 2, 3, 5)).astype("float32"), {"units": unit})
         for name, unit in (("u", "m/s"), ("z", "m"))},
        {"y": np.arange(4.0), "x": np.arange(5.0) * 2, "level": [200, 500, 850], "month": [1, 7]},
        {"title": "made here"},
    )  # fmt: skip
    cube["u"][0, 1, 2, 3] = np.nan
    cube.to_netcdf(tmp_path / "cube.nc", engine="h5netcdf")
    fields = load_cube(tmp_path / "cube.nc", ["z", "u"], ["y", "x"], fields="month", stacked=["level"])
    assert fields.channels == ("z 200", "z 500", "z 850", "u 200", "u 500", "u 850")
    assert (len(fields), fields.channel_units[3], fields.names[1]) == (2, "m/s", "month 7")
    row = 20 + 1 * 5 + 2  # month 7, y 1, x 4
    assert fields.coordinates[row].tolist() == [1.0, 4.0]
    np.testing.assert_array_equal(fields.values[row, 3:], cube["u"].values[1, 1, :, 2].astype(float))
    assert int((~fields.known).sum()) == 1
    xr.testing.assert_identical(fields.restored(fields.values.numpy()), cube[["z", "u"]])
    with pytest.raises(ValueError, match=r"data\.variables must be among those of .*: u, z, got t"):
        load_cube(tmp_path / "cube.nc", ["t"], ["y", "x"], fields="month", stacked=["level"])
    with pytest.raises(ValueError, match="dimensions of z"):
        load_cube(tmp_path / "cube.nc", ["z"], ["y", "x"], fields="month")
    (tmp_path / "cut.nc").write_bytes((tmp_path / "cube.nc").read_bytes()[:3000])
    with pytest.raises(ValueError, match=r"cut\.nc"):
        load_cube(tmp_path / "cut.nc", ["z"], ["y", "x"], fields="month", stacked=["level"])


@pytest.mark.parametrize(
    "calendar", ["standard", "proleptic_gregorian", "julian", "noleap", "365_day", "360_day", "all_leap", "366_day"]
)
def test_times_of_a_cube_are_days_since_1970_of_their_calendar(calendar: str, tmp_path: Path) -> None:
    for year in (850, 1990, 2490):
        time = {"units": f"hours since {year:04}-03-01", "calendar": calendar, "standard_name": "time"}
        cube = xr.Dataset(
            {"t": (("time", "x"), np.zeros((3, 2)))}, {"time": ("time", [0, 6, 48], time), "x": [1.0, 2.0]}
        )
        cube.to_netcdf(tmp_path / f"{year}.nc", engine="h5netcdf")
        fields = load_cube(tmp_path / f"{year}.nc", ["t"], ["time", "x"], fields=None)
        first = cftime.date2num(cftime.datetime(year, 3, 1, calendar=calendar), "days since 1970-01-01")
        np.testing.assert_array_equal(fields.coordinates[::2, 0], first + np.array([0, 0.25, 2]))


def test_degrees_west_of_a_cube_are_negative(tmp_path: Path) -> None:
    cube = xr.Dataset({"t": ("lon", np.arange(3.0))}, {"lon": ("lon", [10.0, 20, 40], {"units": "degrees_west"})})
    cube.to_netcdf(tmp_path / "line.nc", engine="h5netcdf")
    fields = load_cube(tmp_path / "line.nc", ["t"], ["lon"], fields=None)
    np.testing.assert_array_equal(fields.coordinates[:, 0], [-10, -20, -40])
    np.testing.assert_array_equal(fields.values[:, 0], [0, 1, 2])


@pytest.mark.parametrize(
    "packing", [{"dtype": "int16"}, {"dtype": "int16", "scale_factor": 2.0, "_FillValue": -99}], ids=str
)
@pytest.mark.filterwarnings("ignore:saving variable .* with floating point data as an integer dtype without any _Fill")
def test_estimates_are_written_as_they_are(packing: dict[str, object], tmp_path: Path) -> None:
    """Into a cube of whole numbers; the calendar of its times stays."""
    cube = xr.Dataset(
        {"t": (("time", "x"), 2.0 * np.arange(10).reshape(2, 5), {"units": "m", "valid_max": 18.0})},
        {"time": xr.date_range("2001-01-01", periods=2), "x": np.arange(5.0)},
    )
    cube["time"].encoding = {"units": "hours since 1990-01-01", "dtype": "int32"}
    cube.to_netcdf(tmp_path / "cube.nc", engine="h5netcdf", encoding={"t": packing})
    estimates = np.linspace(0.1, 0.9, 10)[:, None]
    filled = load_cube(tmp_path / "cube.nc", ["t"], ["x"], fields="time").restored(estimates)
    filled.to_netcdf(tmp_path / "filled.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "filled.nc", engine="h5netcdf") as back:
        np.testing.assert_allclose(back["t"].values.ravel(), estimates[:, 0], rtol=1e-6)
        assert back["t"].attrs == {"units": "m"}
        assert back["time"].encoding["units"] == "hours since 1990-01-01"
    every = load_cube(tmp_path / "cube.nc", ["t"], ["x"], fields="time", reading=Reading(valid_range=False))
    assert every.known.all()


@pytest.mark.parametrize(("value", "rule"), [(1.0, "be distinct"), (np.nan, "be finite, got row 1 of 3")])
def test_coordinates_that_are_no_places_are_refused(tmp_path: Path, value: float, rule: str) -> None:
    cube = xr.Dataset({"t": ("x", np.arange(3.0))}, {"x": [1.0, value, 2.0]})
    cube.to_netcdf(tmp_path / "line.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match=f"coordinates must {rule}"):
        load_cube(tmp_path / "line.nc", ["t"], ["x"], fields=None)


def on_sphere(latitude: np.ndarray, longitude: np.ndarray, times: int = 3, calendar: str = "noleap") -> xr.Dataset:
    """A wave with some noise, more of it towards the poles, on the given nodes."""
    noise = np.random.default_rng(0).normal(size=(times, len(latitude), len(longitude)))
    wave = np.cos(np.radians(longitude) + np.arange(times)[:, None, None]) + np.sin(2 * np.radians(latitude))[:, None]
    return xr.Dataset(
        {"t": (("time", "lat", "lon"), wave + noise * (np.abs(latitude[:, None]) / 90) ** 3, {"units": "K"})},
        {
            "time": xr.date_range("2001-01-16", periods=times, freq="30D", calendar=calendar, use_cftime=True),
            "lat": ("lat", latitude, {"units": "degrees_north"}),
            "lon": ("lon", longitude, {"units": "degrees_east"}),
        },
    )


@pytest.mark.parametrize(
    ("latitude", "longitude"),
    [
        (np.linspace(90, -90, 13), np.arange(0, 360, 20.0)),
        (np.linspace(-30, 30, 7), np.array([0.0, 10, 20, 340, 350])),
        (np.linspace(-30, 30, 7), np.arange(0, 361, 60.0)),
    ],
    ids=["globe", "across the cut", "first meridian twice"],
)
def test_nodes_of_a_regular_grid_count_by_the_cosine_of_their_latitude(
    latitude: np.ndarray, longitude: np.ndarray, tmp_path: Path
) -> None:
    on_sphere(latitude, longitude).to_netcdf(tmp_path / "globe.nc", engine="h5netcdf")
    fields = load_cube(tmp_path / "globe.nc", ["t"], ["lat", "lon"], fields="time")
    expected = np.broadcast_to(np.cos(np.radians(latitude))[:, None], (3, len(latitude), len(longitude))).copy()
    if longitude[-1] == 360:  # the meridian that is there twice counts once
        expected[:, :, [0, -1]] /= 2
    found = fields.weights(torch.arange(len(fields.values))).numpy()
    np.testing.assert_allclose(found / found.sum(), expected.ravel() / expected.sum(), atol=1e-12)


def test_nodes_of_unequal_spacing_count_by_their_cells(tmp_path: Path) -> None:
    edges = np.array([-90, -60, -50, -20, 20, 50, 60, 90.0])
    latitude, longitude = (edges[1:] + edges[:-1]) / 2, np.array([0.0, 10, 30])
    on_sphere(latitude, longitude).to_netcdf(tmp_path / "cells.nc", engine="h5netcdf")
    fields = load_cube(tmp_path / "cells.nc", ["t"], ["lat", "lon"], fields="time")
    assert latitude.tolist() == [-75, -55, -35, 0, 35, 55, 75]
    widths = np.cos(np.radians(latitude)) * np.array([20, 20, 27.5, 35, 27.5, 20, 20])
    expected = np.outer(widths, [10, 15, 20])
    found = fields.weights(torch.arange(21)).numpy().reshape(7, 3)
    np.testing.assert_allclose(found / found[0, 0], expected / expected[0, 0], rtol=1e-12)
    plane = smooth_fields(2, 10)
    assert plane.areas is None
    assert plane.weights(torch.arange(5)).tolist() == [1] * 5


def test_errors_are_means_over_what_is_known() -> None:
    generator = np.random.default_rng(0)
    values, targets, weights = generator.normal(size=(50, 2)), generator.normal(size=(50, 2)), generator.random(50)
    targets[generator.random((50, 2)) < 0.3] = np.nan
    squares = np.ma.masked_invalid((values - targets) ** 2)
    expected = np.sqrt(np.ma.average(squares, axis=0, weights=np.stack([weights, weights], 1)))
    np.testing.assert_allclose(weighted_rmse(values, targets, weights[:, None], 0), expected)


def test_scores_of_a_globe_are_by_area_and_by_nodes_beside_it(tmp_path: Path) -> None:
    """From the command line, against xarray's weighted mean over the field that the same checkpoint writes."""
    latitude, longitude = np.linspace(-90, 90, 13), np.arange(0, 360, 24.0)
    cube = on_sphere(latitude, longitude)
    cube.to_netcdf(tmp_path / "globe.nc", engine="h5netcdf")
    axes = "[{name: lat, kind: latitude, scale: 1.0}, {name: lon, kind: longitude, scale: 1.0}]"
    network = "--model.network.init_args."
    data = {"dataset": "cube", "root": tmp_path / "globe.nc", "variables": "[t]", "axes": "[lat, lon]",
            "fields": "time", "held": 0, "test_fields": "[1]", "show": 0.3, "draws": 2}  # fmt: skip
    run = ["--config", "field", "--run_dir", str(tmp_path / "run"), "--trainer.enable_progress_bar", "false",
           f"{network}axes", axes, f"{network}latent", "null", f"{network}neighbours", "8",
           f"{network}correlation", "[30.0]",
           *(word for key, value in data.items() for word in (f"--data.{key}", str(value)))]  # fmt: skip
    cli.main(["fit", *run, "--trainer.max_epochs", "1"])
    cli.main(["test", *run])
    (score,) = json.loads((tmp_path / "run" / "test" / "metrics.json").read_text())["scores"]
    cli.main(["predict", *run, "--data.predict_from", "test", "--output", str(tmp_path / "out.nc")])
    module = FieldDataModule("cube", str(tmp_path / "globe.nc"), variables=["t"], axes=["lat", "lon"], fields="time",
                             test_fields=[1], show=0.3, watched=0.1)  # fmt: skip
    module.setup("test")
    asked = ~module.parts.shown.reshape(3, 13, 15)[1].numpy()
    with xr.open_dataset(tmp_path / "out.nc", engine="h5netcdf") as written:
        assert [str(one) for one in written.time.values] == [str(one) for one in cube.time.values]
        squares = np.square(written.t[1] - cube.t[1]).where(asked)
        by_area = float(np.sqrt(squares.weighted(np.cos(np.radians(cube.lat))).mean()))
        assert score["network"] == pytest.approx(by_area, rel=1e-6)
        assert score["by_nodes"]["network"] == pytest.approx(float(np.sqrt(squares.mean())), rel=1e-6)
    assert score["by_nodes"]["network"] > 1.1 * score["network"]
    assert score["ratio_by_nodes"] == score["by_nodes"]["network"] / score["by_nodes"]["linear"]
    assert "area" in (tmp_path / "run" / "test" / "metrics.csv").read_text()


def test_time_of_a_model_may_be_an_axis_of_three(tmp_path: Path) -> None:
    """From the command line: dates in years of 360 days are coordinates and come back; three axes have no maps."""
    cube = on_sphere(np.linspace(-60, 60, 7), np.arange(0, 360, 60.0), times=4, calendar="360_day")
    cube.to_netcdf(tmp_path / "globe.nc", engine="h5netcdf")
    axes = (
        "[{name: time, scale: 30.0}, {name: lat, kind: latitude, scale: 1.0}, {name: lon, kind: longitude, scale: 1.0}]"
    )
    network = "--model.network.init_args."
    data = {
        "dataset": "cube",
        "root": tmp_path / "globe.nc",
        "variables": "[t]",
        "axes": "[time, lat, lon]",
        "draws": 2,
    }
    run = ["--config", "field", "--run_dir", str(tmp_path / "run"), "--trainer.enable_progress_bar", "false",
           f"{network}axes", axes, f"{network}latent", "null", f"{network}neighbours", "8",
           f"{network}correlation", "[30.0]",
           *(word for key, value in data.items() for word in (f"--data.{key}", str(value)))]  # fmt: skip
    cli.main(["fit", *run, "--trainer.max_epochs", "1"])
    cli.main(["test", *run])
    assert sorted(path.name for path in (tmp_path / "run" / "test").iterdir()) == ["metrics.csv", "metrics.json"]
    cli.main(["predict", *run, "--output", str(tmp_path / "out.nc")])
    with xr.open_dataset(tmp_path / "out.nc", engine="h5netcdf") as written:
        assert written.time.values.tolist() == cube.time.values.tolist()
        assert bool(written.t.notnull().all())


def test_the_baseline_is_the_one_that_is_best_in_the_validation() -> None:
    data = FieldDataModule("simulated_fields", held=0.3, watched=0.1)
    data.setup("test")
    rows, zeros = torch.arange(4), np.zeros((4, 1))

    def answers(first: float, second: float) -> Answers:
        found = {"power 1": zeros + first, "power 2": zeros + second}
        return Answers(rows, zeros, found, {})

    (score,) = scores_of(zeros + 3.0, answers(4.0, 2.0), answers(0.1, 0.2), data.samples)
    assert (score.best_rival, score.ratio, score.ratio_in_hindsight) == ("power 1", 0.75, 1.5)


def test_too_few_observations_are_refused(tmp_path: Path) -> None:
    xr.Dataset({"t": ("x", [1.0, np.nan, np.nan])}, {"x": [1.0, 2.0, 3.0]}).to_netcdf(
        tmp_path / "line.nc", engine="h5netcdf"
    )
    data = FieldDataModule("cube", str(tmp_path / "line.nc"), variables=["t"], axes=["x"], held=0.1, watched=0.1)
    with pytest.raises(ValueError, match=r"hold a field of at least 2 known places for training.*got at most"):
        data.setup("fit")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"held": 0.2, "test_fields": [0]}, "test_fields must be given, or held"),
        ({"held": 0.2, "hide": [0.5, 0.1]}, "hide must be two shares"),
        ({"held": 1.0}, "held must lie in"),
        ({"held": 0.2, "watched": 0.0}, "watched must be positive"),
        ({"dataset": "cube", "held": 0.2}, "root must be given"),
    ],
)
def test_options_are_checked(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FieldDataModule(**{"dataset": "simulated_fields", "watched": 0.1} | options)  # type: ignore[arg-type]


def test_baselines_are_what_they_are_called() -> None:
    places, query = drawn(80).numpy(), 2 + 0.6 * drawn(30, 1).numpy()
    plane = np.stack([places.sum(1), 2 * places[:, 0] - 1], 1)
    np.testing.assert_allclose(linear(places, plane, query, PLANE), np.stack([query.sum(1), 2 * query[:, 0] - 1], 1))
    globe = np.random.default_rng(0).uniform([-80, -180], [80, 180], (400, 2))
    wave = np.cos(np.radians(globe[:, 1:]))
    seam = np.array([[0.0, 180.0], [0.0, -180.0]])
    np.testing.assert_allclose(linear(globe, wave, seam, GLOBE), -1, atol=0.05)
    two = np.array([[0.0, 0.0], [0.0, 30.0]])
    found = inverse_distance(two, np.array([[0.0], [1.0]]), np.array([[0.0, 10.0]]), GLOBE, 2)
    assert float(found[0, 0]) == pytest.approx(0.2)  # (1/20^2) / (1/10^2 + 1/20^2)


OFFSETS = {
    "UTM": ([500_000.0, 5_400_000.0], 30.0),
    "UTM and height": ([500_000.0, 5_400_000.0, 120.0], 16.0),
    "geocentric": ([4_150_000.0, 620_000.0, 4_790_000.0], 16.0),
    "Unix seconds": ([1.7e9, 5_400_000.0], 30.0),
}


@pytest.mark.parametrize("name", list(OFFSETS))
@pytest.mark.parametrize("rescale", [False, True])
def test_triangulations_leave_no_point_out_far_from_the_origin(name: str, rescale: bool) -> None:
    offset, side = np.array(OFFSETS[name][0]), OFFSETS[name][1]
    generator = np.random.default_rng(0)
    # A multiple of a power of two: moving the places rounds nothing, so the answers must be the same.
    places, queries = (np.round(generator.uniform(0, side, (n, len(offset))) * 2**12) / 2**12 for n in (1000, 50))
    values = (places[:, :1] * places[:, 1:2]) % 7.0
    axes = [FieldAxis(f"axis {number}") for number in range(len(offset))]
    here = linear(places, values, queries, axes, rescale=rescale)
    there = linear(places + offset, values, queries + offset, axes, rescale=rescale)
    np.testing.assert_allclose(there, here, atol=1e-6)
    np.testing.assert_allclose(
        linear(places + offset, values, places + offset, axes, rescale=rescale), values, atol=1e-6
    )
    if not rescale:
        inside = griddata(places, values, queries)
        known = ~np.isnan(inside)
        assert known.mean() > 0.5
        np.testing.assert_allclose(there[known], inside[known], atol=1e-6)


def test_places_are_moved_together() -> None:
    places = np.array([[5e6, 1.7e9], [5e6 + 2, 1.7e9 + 60]], np.float64)
    moved, query = about_the_origin(places, np.array([[5e6 + 1, 1.7e9]]))
    assert moved.tolist() == [[-1, -30], [1, 30]]
    assert query.tolist() == [[0, -30]]


@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e5, 1e9])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_neighbours_are_found_in_any_unit_and_far_from_the_origin(unit: float, offset: float) -> None:
    """Two fields at the same places: each query has the nearest of its own field, all of them."""
    metric = Metric(PLANE)
    places, query = unit * (drawn(40) + offset), unit * (drawn(6, 1) + offset)
    source = Points(torch.cat([places, places]), splits=torch.tensor([0, 40, 80]))
    asked = Points(torch.cat([query, query]), splits=torch.tensor([0, 6, 12]))
    rows, present = metric.nearest(source, asked, 15)
    nearest = torch.cdist(metric.scaled(query), metric.scaled(places)).argsort(1)[:, :15]
    assert bool(present.all())
    torch.testing.assert_close(rows, torch.cat([nearest, nearest + 40]))
    few, there = metric.nearest(Points(places[:4]), Points(query), 15)
    assert there.sum(1).tolist() == [4] * 6
    assert int(few.max()) <= 3


def test_real_stations_and_floats_become_fields(shared_data: Path) -> None:
    climate = shared_data / "climate"
    if not climate.is_dir():
        pytest.skip(f"no folder {climate}")
    stations = ghcnm.load_fields(climate / "ghcnm_texas.dat")
    assert stations.axes == ("latitude", "longitude")
    assert int(stations.units.max()) == 99
    referred = referred_to(stations, torch.zeros(len(stations.units), dtype=torch.int64))
    series = ghcnm.anomalies(ghcnm.load(climate / "ghcnm_texas.dat")["temperature"])
    series = series.isel(time=series.notnull().any("station").values)
    np.testing.assert_allclose(referred.values.reshape(-1, 100), series.values.T, atol=1e-12)
    floats = argo.load_fields(climate / "argo")
    assert floats.names == ("float 1900857", "float 2901746", "float 5900865")
    back = floats.restored(floats.values.numpy())
    assert int(back["TEMP"].notnull().sum()) == int(floats.known.sum())
    assert back["TEMP"].attrs["units"] == "degree_Celsius"


def test_simulated_fields_repeat_with_their_seed() -> None:
    first, second = smooth_fields(2, 10, seed=3), smooth_fields(2, 10, seed=3)
    torch.testing.assert_close(first.values, second.values)
    assert not torch.equal(first.values, smooth_fields(2, 10, seed=4).values)


def test_fit_test_and_predict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = ["--config", "field", "--run_dir", str(tmp_path / "run"), "--data.draws", "4"]
    cli.main(["fit", *run, "--trainer.max_epochs", "1", "--trainer.enable_progress_bar", "false"])
    cli.main(["test", *run, "--trainer.enable_progress_bar", "false"])
    metrics = json.loads((tmp_path / "run" / "test" / "metrics.json").read_text())
    (score,) = metrics["scores"]
    assert score["n"] == metrics["data"]["known places"]["test"] > 1000
    assert 0 < score["network"] < 0.5 * score["rivals"][score["best_rival"]]
    assert len(list((tmp_path / "run" / "test").glob("*.png"))) == 3
    lines = (tmp_path / "run" / "test" / "metrics.csv").read_text().splitlines()
    assert lines[0] == "channel,unit,n,method,weighting,rmse"
    assert "mean ratio" in capsys.readouterr().out
    cli.main(["predict", *run, "--trainer.enable_progress_bar", "false", "--output", str(tmp_path / "out.nc")])
    with xr.open_dataset(tmp_path / "out.nc") as written:
        expected = smooth_fields().values[:, 0].numpy()
        error = written["value"].values - expected
    assert np.sqrt(np.mean(error**2)) < 0.1 * expected.std()
    assert not list(tmp_path.glob(".out*"))


def test_a_network_of_other_axes_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["fit", "--config", "field", "--run_dir", str(tmp_path / "run"),
                  "--model.network.init_args.channels", "2"])  # fmt: skip
    assert "channels must be the data's 1 (--model.network.init_args.channels 1), got 2" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
