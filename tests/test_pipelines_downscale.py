"""Downscaling: interpolation and planes against NumPy and SciPy, training from the command line, input refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.interpolate import RectBivariateSpline

from ccnn_irregular import Grid, KernelSpec
from ccnn_irregular.datasets.simulated_fronts import fronts
from ccnn_irregular.pipelines import cli
from ccnn_irregular.pipelines.tasks.downscale.baselines import spline
from ccnn_irregular.pipelines.tasks.downscale.data import DownscalingBatch, DownscalingDataModule
from ccnn_irregular.pipelines.tasks.downscale.fields import Fields, coarsened_values
from ccnn_irregular.pipelines.tasks.downscale.network import DownscalingNetwork, cubic
from ccnn_irregular.pipelines.train.evaluation import weighted_rmse

QUIET = ("--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def quadratic(rows: Any, columns: Any) -> Any:
    return 1 + 2 * rows - columns + 0.3 * rows**2 - 0.2 * rows * columns + 0.1 * columns**2


def on(grid: Grid, function: Any) -> torch.Tensor:
    rows, columns = (axis.nodes() for axis in grid.axes)
    return function(rows[:, None], columns[None, :])[None, None]


def test_cubic_interpolation_is_exact_for_quadratics_up_to_the_ends_and_of_third_order() -> None:
    source = Grid([6, 9], [1.0, 0.5], [2.0, -1.0])
    query = Grid([18, 27], [1 / 3, 1 / 6], [2.0 - 1 / 3, -1.0 - 1 / 6])
    torch.testing.assert_close(cubic(on(source, quadratic), source, query), on(query, quadratic))
    errors = []
    for size in (16, 32, 64):
        step = 2 * np.pi / size
        source = Grid([size, size], [step, step], periodic=True)
        query = Grid([3 * size, 3 * size], [step / 3, step / 3], [-step / 3, -step / 3], periodic=True)
        found = cubic(on(source, lambda a, b: torch.sin(a) * torch.cos(b)), source, query)
        errors.append(float((found - on(query, lambda a, b: torch.sin(a) * torch.cos(b))).abs().max()))
    assert errors[0] / errors[1] > 7
    assert errors[1] / errors[2] > 7
    assert errors[2] < 1e-3


def test_splines_are_scipys() -> None:
    source, query = Grid([7, 9], [1.0, 2.0]), Grid([13, 17], [0.5, 1.0])
    values = np.random.default_rng(0).standard_normal((2, 7, 9)).astype("float32")
    found = spline(values, source, query, 3)
    places = [axis.nodes().numpy() for axis in (*source.axes, *query.axes)]
    wanted = [RectBivariateSpline(places[0], places[1], one)(places[2], places[3]) for one in values]
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)
    around = Grid([20, 9], [18.0, 2.0], periodic=[True, False])
    finer = Grid([60, 9], [6.0, 2.0], [-6.0, 0.0], periodic=[True, False])
    wave = np.cos(np.radians(around.axes[0].nodes().numpy()))[:, None] * np.ones(9)
    again = np.cos(np.radians(finer.axes[0].nodes().numpy()))[:, None] * np.ones(9)
    np.testing.assert_allclose(spline(wave.astype("float32"), around, finer, 3), again, atol=2e-4)


def test_planes_agree_with_xarray() -> None:
    latitude, longitude = np.linspace(80, -80, 33), np.arange(0.0, 360, 7.5)
    values = np.random.default_rng(0).standard_normal((2, 33, 48)).astype("float32")
    coordinates = {"time": [0, 1], "lat": ("lat", latitude, {"units": "degrees_north"})}
    coordinates["lon"] = ("lon", longitude, {"units": "degrees_east"})
    dataset = xr.Dataset({"t": (("time", "lat", "lon"), values)}, coordinates)
    fields = Fields.of(dataset, ["t"])
    read = torch.from_numpy(np.ascontiguousarray(fields.read({})))
    nodes = fields.plane.coarsened(4, "nodes")
    assert nodes.sizes == (9, 12)
    assert nodes.refined(4, "nodes").sizes == (33, 48)
    rising = dataset.t.isel(lat=slice(None, None, -1))
    thin = coarsened_values(read, 4, "nodes", nodes.sizes)
    np.testing.assert_array_equal(thin[:, 0], rising[:, ::4, ::4])
    np.testing.assert_allclose(nodes.rows.nodes, rising.lat[::4])
    means = fields.plane.coarsened(4, "means")
    boxes = rising.isel(lat=slice(0, 32)).coarsen(lat=4, lon=4).mean()
    np.testing.assert_allclose(coarsened_values(read, 4, "means", means.sizes)[:, 0], boxes, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(means.rows.nodes, boxes.lat)
    np.testing.assert_allclose(means.columns.nodes, boxes.lon)
    np.testing.assert_allclose(means.refined(4, "means").rows.nodes, rising.lat[:32])
    assert means.grid().periodic == (False, True)
    areas = fields.plane.areas()[:, 0].numpy()
    np.testing.assert_allclose(areas / areas[16], np.cos(np.radians(rising.lat)), atol=1e-12)


def test_an_untrained_network_interpolates_and_reaches_as_far_as_it_says() -> None:
    torch.manual_seed(0)
    fields = Fields.of(fronts(3, size=96), ["front"])
    coarse = fields.plane.coarsened(3, "means")
    fine = coarse.refined(3, "means")
    source, query = coarse.grid(), fine.grid()
    truth = torch.from_numpy(fields.read({}))
    given = coarsened_values(truth, 3, "means", coarse.sizes)
    network = DownscalingNetwork(1, 4, 1, kernel=KernelSpec(extent=[6.0, 6.0], width=[1.5, 1.5], omega_0=2.0, hidden=8))
    network.prepare(DownscalingBatch(given, truth, source, query, torch.ones(query.sizes), torch.ones(3, 1, 96, 1)))
    network.eval().requires_grad_(False)
    torch.testing.assert_close(network(given, source, query), cubic(given, source, query))
    torch.nn.init.normal_(network.cnn.output.weight)
    reach = network.reach(coarse.steps)[0]
    changed = given.clone()
    changed[:, :, 0] += 10
    moved = (network(changed, source, query) - network(given, source, query)).abs().amax((0, 1, 3))
    assert float(moved[0]) > 0.1
    assert 3 * reach < 96 - 6
    assert float(moved[3 * reach :].max()) < 1e-4 * float(moved.max())


SMALL = ("--data.count", "40", "--trainer.max_epochs", "4", "--data.batch_size", "4")


def test_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    """The demonstration, shortened: better than every interpolation on held-out fields; then from file to file."""
    config = ("--config", "downscale", *QUIET, *SMALL)
    cli.main(["fit", *config])
    cli.main(["test", *config])
    report = json.loads(Path("runs/downscale/test/metrics.json").read_text())
    assert report["fields"] == 8
    ratios = {name: one["front"] for name, one in report["ratio_to_cubic_spline"].items()}
    assert list(ratios) == ["linear", "cubic spline", "cubic spline + mean error in training", "network"]
    assert ratios["cubic spline"] == 1
    assert 0.95 < ratios["linear"] < 1.2
    assert ratios["network"] < 0.85
    assert Path("runs/downscale/test/front.png").stat().st_size > 20_000
    truth = fronts(40)
    truth.isel(time=slice(32, 40)).to_netcdf("fine.nc", engine="h5netcdf")
    words = ("--predict.input", "fine.nc", "--predict.coarsen", "true", "--output", "answer.zarr")
    cli.main(["predict", "--config", "downscale", *QUIET, *words])
    assert "1 blocks computed" in capsys.readouterr().out
    with xr.open_zarr("answer.zarr", consolidated=False) as answer:
        answer.load()
        error = float(np.sqrt(np.square(answer.front - truth.front[32:]).mean()))
    assert error == pytest.approx(report["rmse"]["network"]["front"], rel=1e-3)
    # A store that lacks a chunk is read where the options say so.
    truth.isel(time=slice(32, 40)).to_zarr("fine.zarr", consolidated=False, encoding={"front": {"chunks": (1, 64, 64)}})
    Path("fine.zarr/front/c/0/0/0").unlink()
    words = ("--predict.input", "fine.zarr", "--predict.coarsen", "true", "--output", "again.nc")
    with pytest.raises(SystemExit):
        cli.main(["predict", "--config", "downscale", *QUIET, *words])
    assert "missing_chunks=True" in capsys.readouterr().err
    words += ("--predict.reading.missing_chunks", "true", "--predict.reading.months", "calendar")
    cli.main(["predict", "--config", "downscale", *QUIET, *words])
    with xr.open_dataset("again.nc", engine="h5netcdf") as again:
        assert bool(again.front[0].isnull().any())
        np.testing.assert_allclose(again.front[1:], answer.front[1:], rtol=0, atol=1e-5)


def test_patches_cover_the_fields_and_leave_their_margins_out() -> None:
    for coarse in ("nodes", "means"):
        data = DownscalingDataModule(count=5, factor=2, coarse=coarse, patch=12, margin=2, validation=0.2)  # type: ignore[arg-type]
        data.setup("fit")
        rows = np.concatenate(list(data.patches.values()))
        assert len({tuple(row) for row in rows}) == len(rows)
        seen = np.zeros((len(data.training), *data.coarse_plane.sizes), int)
        for field, row, column in rows:
            seen[field, row : row + 12, column : column + 12] += 1
        assert seen.min() >= 1
        batch = data.batch(rows[:3])
        fine = batch.fine[0, 0]
        place = rows[0]
        torch.testing.assert_close(fine[0, 0], data.training[place[0], 0, 2 * place[1], 2 * place[2]])
        assert batch.coarse.shape == (3, 1, 12, 12)
        assert tuple(fine.shape) == batch.query.sizes == tuple(batch.weights.shape)
        assert batch.weights[4:-4, 4:-4].min() == 1
        assert float(batch.weights.sum()) == float(batch.weights[4:-4, 4:-4].numel())


@pytest.mark.parametrize("patch", [None, 8])
def test_the_test_part_is_whole_fields_one_by_one(patch: int | None) -> None:
    data = DownscalingDataModule(count=10, factor=4, patch=patch)
    data.setup("test")
    batches = list(data.loader("test"))
    assert [len(batch) for batch in batches] == [1] * len(data.testing)
    assert torch.equal(torch.cat([batch.fine for batch in batches]), data.testing)
    count, _, rows, columns = data.testing.shape
    boxes = data.testing.double().reshape(count, 1, rows // 4, 4, columns // 4, 4).mean((3, 5))
    found = torch.cat([batch.coarse for batch in batches]).double()
    torch.testing.assert_close(found, boxes, rtol=1e-5, atol=1e-6)
    assert batches[0].source.sizes == data.coarse_plane.sizes
    assert batches[0].query.sizes == tuple(batches[0].weights.shape) == (rows, columns)
    assert torch.equal(
        torch.cat([batch.fine for batch in data.loader("all")]), torch.cat([data.training, data.testing])
    )


def one_month(months: int, calendar: str = "noleap") -> xr.Dataset:
    """Noise on a grid of latitudes and longitudes, on two levels, at the beginning of some months."""
    rows, columns = np.linspace(60, 20, 41), np.arange(0.0, 73)
    values = np.random.default_rng(0).standard_normal((months, 2, 41, 73)).astype("float32")
    times = xr.date_range("2001-01-01", periods=months, freq="MS", calendar=calendar, use_cftime=True)
    return xr.Dataset(
        {"t": (("time", "level", "lat", "lon"), values)},
        {
            "time": times,
            "level": [500, 850],
            "lat": ("lat", rows, {"units": "degrees_north"}),
            "lon": ("lon", columns, {"units": "degrees_east"}),
        },
    )


@pytest.mark.parametrize("coarse", ["nodes", "means"])
@pytest.mark.parametrize(
    ("months", "options", "validated"),
    [
        (12, {"patch": 12, "margin": 2}, "the first 2 of 10 entries along time"),
        (12, {"patch": None}, "the first 2 of 10 entries along time"),
        (2, {"patch": 8, "margin": 0}, "the last 8 of 36 coarse columns"),
        (2, {"patch": 10, "margin": 3}, "the last 10 of 36 coarse columns"),
    ],
)
def test_validation_scores_no_node_that_training_does(
    coarse: str, months: int, options: dict[str, Any], validated: str
) -> None:
    """One month in the training part is split by columns, more of them by months; nothing at all is read by both."""
    one_month(months).to_netcdf("months.nc", engine="h5netcdf")
    data = DownscalingDataModule("months.nc", ["t"], factor=2, coarse=coarse, validation=0.2, **options)  # type: ignore[arg-type]
    data.setup("fit")
    validated = validated.replace("36", "37") if coarse == "nodes" else validated
    assert data.describe()["validated on"] == validated
    everything = torch.arange(data.training[:, :1].numel()).reshape(data.training[:, :1].shape)
    scored, read = {}, {}
    for part, rows in data.patches.items():
        batch = data.batch(rows)
        high, wide = batch.query.sizes
        numbers = torch.stack([everything[n, 0, 2 * a : 2 * a + high, 2 * b : 2 * b + wide] for n, a, b in rows])
        values = torch.stack([data.training[n, 0, 2 * a : 2 * a + high, 2 * b : 2 * b + wide] for n, a, b in rows])
        assert torch.equal(values, batch.fine[:, 0])
        scored[part], read[part] = (
            set(numbers[:, batch.weights > 0].flatten().tolist()),
            set(numbers.flatten().tolist()),
        )
    assert len(scored["train"]) > 2 * len(scored["validation"]) > 0
    assert len(scored["train"] & scored["validation"]) == 0
    assert len(read["train"] & read["validation"]) == 0
    if options["patch"] is None:
        assert len(scored["train"] | scored["validation"]) == everything.numel()


def test_a_single_field_needs_patches_for_a_validation_of_its_own() -> None:
    one_month(2).to_netcdf("months.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match=r"have 2 entries or more .* or be cut into patches with data\.patch, got 1"):
        DownscalingDataModule("months.nc", ["t"], factor=2).setup("fit")
    with pytest.raises(ValueError, match=r"be at least 40 coarse nodes wide, .* give a smaller data\.patch, got 36"):
        DownscalingDataModule("months.nc", ["t"], factor=2, patch=20).setup("fit")


def test_errors_are_weighted_by_the_cosine_of_the_latitude() -> None:
    truth = one_month(3).isel(level=0).transpose("time", "lat", "lon").sortby("lat")
    noise = truth.t.copy(data=np.random.default_rng(1).standard_normal(truth.t.shape))
    answer = truth + 0.1 * truth.lat * noise
    truth = truth.where(np.random.default_rng(2).random(truth.t.shape) < 0.8)
    areas = Fields.of(truth, ["t"]).plane.areas().numpy()
    found = weighted_rmse(answer.t.values[:, None], truth.t.values[:, None], areas, (0, 2, 3))
    squares = np.square(answer.t - truth.t)
    expected = np.sqrt(squares.weighted(np.cos(np.radians(truth.lat))).mean())
    assert float(found[0]) == pytest.approx(float(expected), rel=1e-6)
    assert float(found[0]) != pytest.approx(float(np.sqrt(squares.mean())), rel=1e-2)


@pytest.mark.parametrize("calendar", ["noleap", "360_day", "julian", "all_leap", "standard"])
def test_calendars_of_models_go_through(calendar: str) -> None:
    cube = one_month(12, calendar)
    cube.to_netcdf("months.nc", engine="h5netcdf")
    data = DownscalingDataModule("months.nc", ["t"], {"level": 500}, factor=2, split="time", test=0.25)
    data.setup("fit")
    wanted = cube.t.sel(level=500).isel(lat=slice(None, None, -1), time=slice(9, 12))
    np.testing.assert_array_equal(data.testing[:, 0, :40, :72], wanted[:, :40, :72])
    march = DownscalingDataModule("months.nc", ["t"], {"time": "2001-03-01"}, factor=2, test=0.5, patch=8)
    march.setup("fit")
    assert march.split == "level"
    np.testing.assert_array_equal(march.testing[0, 0], cube.t[2, 1, ::-1][:40, :72])


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        cli.main(list(arguments))
    assert stopped.value.code == 2
    return " ".join(capsys.readouterr().err.split())


def test_input_that_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    fit = ("fit", "--config", "downscale", *QUIET)
    fields = fronts(4, size=16)
    fields.to_netcdf("small.nc", engine="h5netcdf")
    infinite = fields.copy(deep=True)
    infinite["front"].data[1, 2, 3] = np.inf
    infinite.to_netcdf("infinite.nc", engine="h5netcdf")
    cases = {
        ("--data.path", "nowhere.nc"): "path must be a netCDF or GRIB file or a zarr store, got nowhere.nc",
        ("--data.path", "small.nc", "--data.variables", "u"): "variables must be of the fields ['front'], got 'u'",
        (
            "--data.path",
            "infinite.nc",
            "--data.variables",
            "front",
        ): "variable 'front' must be finite or missing, got 1 of 768 infinite",
        ("--data.path", "small.nc", "--data.variables", "front", "--data.factor", "5"): "leave 4 coarse nodes or more",
        ("--data.factor", "1"): "factor must be at least 2, got 1",
        ("--data.split", "level"): "split must be of the dimensions ('time',), got 'level'",
        ("--data.select", "{level: 500}", "--data.path", "small.nc"): "select must name coordinates of",
        ("--data.test", "0"): "test must lie in (0, 1), got 0",
        ("--data.patch", "4"): "patch must be at least 8 coarse nodes, got 4",
        ("--data.margin", "2"): "margin must be 0 for whole fields, got 2",
        (
            "--model.network.init_args.in_channels",
            "2",
        ): "in_channels must be the data's 1 (--model.network.init_args.in_channels 1), got 2",
    }
    for arguments, message in cases.items():
        assert message in refused(capsys, *fit, *arguments), arguments
    assert not (tmp_path / "runs").exists()


def test_fronts_are_functions_of_the_place() -> None:
    fine, coarse = fronts(2, size=20, step=0.5), fronts(2, size=10, step=1.0)
    np.testing.assert_allclose(fine.front[:, ::2, ::2], coarse.front, atol=1e-5)
    assert 0.8 < float(fronts(20).front.std()) < 1.2
    with pytest.raises(ValueError, match="width must be positive, got 0"):
        fronts(1, width=0)
