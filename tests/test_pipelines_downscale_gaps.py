"""Downscaling with missing values: coarse fields, filling, answers, loss and scores, each computed again by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from numpy.typing import NDArray
from scipy.interpolate import make_interp_spline

from ccnn_irregular import Grid, KernelSpec
from ccnn_irregular.datasets.simulated_fronts import fronts
from ccnn_irregular.pipelines import cli
from ccnn_irregular.pipelines.tasks.downscale.data import DownscalingBatch, DownscalingDataModule
from ccnn_irregular.pipelines.tasks.downscale.fields import Coarse, Fields, coarsened_values
from ccnn_irregular.pipelines.tasks.downscale.gaps import answerable, filled
from ccnn_irregular.pipelines.tasks.downscale.module import Downscaling
from ccnn_irregular.pipelines.tasks.downscale.network import DownscalingNetwork, cubic, interpolation

QUIET = ("--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu")
OCEAN = "climate/iris_ostia_monthly.nc"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def with_gaps(count: int = 6, size: int = 32, seed: int = 0) -> xr.Dataset:
    """Fronts with land (a corner and an island, the same at all times) and clouds (single nodes and one stripe)."""
    dataset = fronts(count, size=size)
    values, rng = dataset["front"].to_numpy().copy(), np.random.default_rng(seed)
    values[:, : size // 3, : size // 2] = np.nan
    values[:, size // 2 : size // 2 + 9, size // 2 + 1 : size // 2 + 10] = np.nan
    values[rng.random(values.shape) < 0.1] = np.nan
    values[1, -6:] = np.nan
    return dataset.assign(front=dataset["front"].copy(data=values))


def ringed(values: NDArray[Any], rings: int) -> NDArray[Any]:
    """``(rows, columns)`` filled node by node, no axis repeats."""
    values = values.astype(np.float64)
    for _ in range(rings):
        before = values.copy()
        for row, column in np.argwhere(np.isnan(before)):
            around = before[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
            if np.isfinite(around).any():
                values[row, column] = np.nanmean(around)
    return values


def small(coarse: Grid, fine: Grid, given: torch.Tensor, truth: torch.Tensor) -> DownscalingNetwork:
    """A prepared network with random weights."""
    torch.manual_seed(0)
    network = DownscalingNetwork(
        given.shape[1], 4, 1, kernel=KernelSpec(extent=[6.0, 6.0], width=[1.5, 1.5], omega_0=2.0, hidden=8)
    )
    areas = torch.ones(len(truth), 1, fine.sizes[0], 1)
    network.prepare(DownscalingBatch(given, truth, coarse, fine, torch.ones(fine.sizes), areas))
    torch.nn.init.normal_(network.cnn.output.weight)
    return network.eval().requires_grad_(False)


def test_a_coarse_value_is_the_mean_of_what_is_known() -> None:
    rng = np.random.default_rng(0)
    fine = rng.standard_normal((3, 2, 15, 22)).astype("float32")
    fine[rng.random(fine.shape) < 0.6] = np.nan
    fine[:, :, 3:6, 4:8] = np.nan
    found = coarsened_values(torch.from_numpy(fine), 3, "means", (5, 7)).numpy()
    for row in range(5):
        for column in range(7):
            cells = fine[:, :, 3 * row : 3 * row + 3, 3 * column : 3 * column + 3].reshape(3, 2, 9)
            known = np.isfinite(cells).any(-1)
            np.testing.assert_array_equal(np.isfinite(found[:, :, row, column]), known)
            np.testing.assert_allclose(
                found[:, :, row, column][known], np.nanmean(cells[known], -1), rtol=1e-5, atol=1e-6
            )
    assert 0 < np.isnan(found).mean() < 0.2
    np.testing.assert_array_equal(coarsened_values(torch.from_numpy(fine), 3, "nodes", (5, 8)), fine[:, :, ::3, ::3])


def test_missing_nodes_are_filled_ring_by_ring() -> None:
    rng = np.random.default_rng(1)
    values = rng.standard_normal((2, 1, 9, 12)).astype("float32")
    values[0, 0, 2:8, 3:10] = np.nan
    values[1, 0, rng.random((9, 12)) < 0.5] = np.nan
    given, source = torch.from_numpy(values), Grid([9, 12], [1.0, 1.0])
    for rings in (1, 2, 9):
        wanted = np.stack([np.nan_to_num(ringed(one, rings)) for one in values[:, 0]])
        np.testing.assert_allclose(filled(given, source, rings)[:, 0], wanted, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(filled(given, source), filled(given, source, 9))
    # Around the globe: three copies side by side know what the middle one sees.
    around = Grid([9, 12], [1.0, 1.0], periodic=[False, True])
    copies = filled(torch.cat([given] * 3, 3), Grid([9, 36], [1.0, 1.0]))
    torch.testing.assert_close(filled(given, around), copies[..., 12:24])
    assert float(filled(torch.full((1, 1, 4, 4), torch.nan), Grid([4, 4], [1.0, 1.0])).abs().max()) == 0


@pytest.mark.parametrize("coarse", ["means", "nodes"])
@pytest.mark.parametrize("factor", [2, 3, 4])
def test_answers_are_given_where_the_next_coarse_node_is_known(coarse: Coarse, factor: int) -> None:
    fields = Fields.of(fronts(1, size=24), ["front"])
    plane = fields.plane.coarsened(factor, coarse)
    source, query = plane.grid(), plane.refined(factor, coarse).grid()
    values = torch.zeros(1, 1, *source.sizes)
    values[torch.rand(values.shape, generator=torch.Generator().manual_seed(0)) < 0.5] = torch.nan
    found = answerable(values, source, query)[0, 0].numpy()
    nodes = np.stack(np.meshgrid(*(axis.nodes() for axis in source.axes), indexing="ij"), -1).reshape(-1, 2)
    places = np.stack(np.meshgrid(*(axis.nodes() for axis in query.axes), indexing="ij"), -1).reshape(-1, 2)
    distances = np.linalg.norm(places[:, None] - nodes[None], axis=-1)
    nearest = distances < distances.min(1, keepdims=True) + 1e-9
    wanted = (nearest & values[0, 0].isfinite().numpy().ravel()).any(1)
    np.testing.assert_array_equal(found, wanted.reshape(query.sizes))


def test_a_network_for_gaps_is_the_interpolation_at_first_and_local() -> None:
    fields = Fields.of(with_gaps(4, 96), ["front"])
    plane = fields.plane.coarsened(3, "means")
    source, query = plane.grid(), plane.refined(3, "means").grid()
    truth = torch.from_numpy(fields.read({}))
    given = coarsened_values(truth, 3, "means", plane.sizes)
    network = small(source, query, given, truth)
    numbers = np.concatenate([one.ravel() for one in given.numpy()])
    np.testing.assert_allclose(network.mean, np.nanmean(numbers), rtol=1e-5)
    np.testing.assert_allclose(network.scale, np.nanstd(numbers), rtol=1e-5)
    smooth = interpolation(given, source, query)
    np.testing.assert_allclose(network.residual, np.sqrt(np.nanmean(np.square((truth - smooth).numpy()))), rtol=1e-5)
    answer = network(given, source, query)
    asked = given.isfinite().repeat_interleave(3, 2).repeat_interleave(3, 3)
    assert torch.equal(answer.isfinite(), asked)
    assert torch.equal(smooth.isfinite(), asked)
    # Two rings are all that cubic interpolation reads where an answer is given.
    entirely = cubic(filled(given, source), source, query)
    torch.testing.assert_close(smooth[asked], entirely[asked])
    reach = network.reach(plane.steps)[0]
    changed = given.clone()
    changed[:, :, 0] = torch.where(changed[:, :, 0].isnan(), 10.0, torch.nan)
    moved = (network(changed, source, query) - answer).abs().nan_to_num(0.0).amax((0, 1, 3))
    assert float(moved[3:].max()) > 0.1
    assert float(moved[3 * reach :].max()) < 1e-4 * float(moved.max())


def test_complete_fields_are_interpolated_as_ever() -> None:
    fields = Fields.of(fronts(3, size=48), ["front"])
    plane = fields.plane.coarsened(3, "means")
    source, query = plane.grid(), plane.refined(3, "means").grid()
    truth = torch.from_numpy(fields.read({}))
    given = coarsened_values(truth, 3, "means", plane.sizes)
    boxes = truth.reshape(3, 1, 16, 3, 16, 3).double().mean((3, 5))
    torch.testing.assert_close(given.double(), boxes, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(interpolation(given, source, query), cubic(given, source, query), rtol=0, atol=0)
    network = small(source, query, given, truth)
    torch.testing.assert_close(network.mean, given.mean((0, 2, 3)))
    torch.testing.assert_close(network.scale, given.std((0, 2, 3), correction=0))


def test_loss_and_gradient_know_nothing_of_missing_cells() -> None:
    data = prepared(patch=None)
    network = DownscalingNetwork(1, 4, 1, kernel=KernelSpec(extent=[8.0, 8.0], width=[3.0, 3.0], omega_0=2.0, hidden=8))
    module = Downscaling(network)
    batch = data.batch(data.patches["train"])
    network.prepare(batch)
    answer = (interpolation(batch.coarse, batch.source, batch.query) + 0.1).requires_grad_()
    loss, total = module._error(answer, batch, batch.weights)
    known = np.isfinite(batch.fine.numpy())
    errors = (answer.detach().numpy() - batch.fine.numpy())[known] / float(network.residual)
    assert float(total) == known.sum() < known.size
    assert float(loss.detach()) == pytest.approx(float(np.square(errors).mean()), rel=1e-5)
    (gradient,) = torch.autograd.grad(loss, answer)
    assert torch.equal(gradient != 0, torch.from_numpy(known))
    module(batch).nan_to_num(0.0).sum().backward()
    trained = [one.grad for one in network.parameters() if one.grad is not None]
    assert trained
    assert all(bool(one.isfinite().all()) for one in trained)


def prepared(**options: Any) -> DownscalingDataModule:
    with_gaps().to_netcdf("gaps.nc", engine="h5netcdf")
    data = DownscalingDataModule("gaps.nc", ["front"], factor=2, **options)
    data.setup("fit")
    return data


@pytest.mark.parametrize("coarse", ["means", "nodes"])
def test_patches_that_know_nothing_are_not_drawn(coarse: Coarse) -> None:
    dataset = with_gaps(6, 48)
    dataset["front"].data[2, :, :36] = np.nan
    dataset["front"].data[3] = np.nan
    dataset.to_netcdf("many.nc", engine="h5netcdf")
    data = DownscalingDataModule("many.nc", ["front"], factor=2, coarse=coarse, patch=8, margin=2, validation=0.2)
    data.setup("fit")
    rows = np.concatenate(list(data.patches.values()))
    drawn = {tuple(int(one) for one in row) for row in rows}
    firsts = sorted({row[1] for row in drawn})
    for field in range(len(data.training)):
        for row in firsts:
            for column in firsts:
                batch = data.batch(np.array([[field, row, column]]))
                knows = bool((batch.fine.isfinite() * batch.weights).any())
                assert knows == ((field, row, column) in drawn)
    assert not any(row[0] == 3 for row in drawn)
    assert len(firsts) == 5
    assert 0 < sum(row[0] == 2 for row in drawn) < sum(row[0] == 0 for row in drawn) < 25


def splined(fine: NDArray[Any], degree: int) -> NDArray[Any]:
    """The spline through means over 2 x 2 nodes of ``(B, rows, columns)``, what is missing filled."""
    count, rows, columns = fine.shape
    boxes = fine.reshape(count, rows // 2, 2, columns // 2, 2).transpose(0, 1, 3, 2, 4)
    boxes = boxes.reshape(*boxes.shape[:3], 4).astype(np.float64)
    known = np.isfinite(boxes).sum(-1)
    coarse = np.where(known > 0, np.nansum(boxes, -1) / np.maximum(known, 1), np.nan)
    coarse = np.stack([np.nan_to_num(ringed(one, rows)) for one in coarse])
    for axis, size in ((1, rows), (2, columns)):
        middles = np.arange(size // 2) * 2 + 0.5
        coarse = make_interp_spline(middles, coarse, k=degree, axis=axis)(np.arange(size))
    return coarse


def test_scores_are_of_known_cells(capsys: pytest.CaptureFixture[str]) -> None:
    """Trained and tested on fields with gaps; each score again, by hand; two fill values, one result."""
    dataset = with_gaps(24)
    dataset["front"].data[22] = np.nan
    config = ("--config", "downscale", *QUIET, "--data.factor", "2", "--trainer.max_epochs", "3")
    reports, answers = [], []
    for fill in (1e20, -9999.0):
        dataset["front"].encoding = {"_FillValue": np.float32(fill)}
        name = f"fill{fill:.0f}"
        dataset.to_netcdf(f"{name}.nc", engine="h5netcdf")
        words = (*config, "--data.path", f"{name}.nc", "--data.variables", "[front]", "--run_dir", name)
        cli.main(["fit", *words])
        cli.main(["test", *words])
        assert Path(name, "test/front.png").stat().st_size > 20_000
        reports.append(json.loads(Path(name, "test/metrics.json").read_text()))
        words = (*QUIET, "--predict.input", f"{name}.nc", "--predict.coarsen", "true", "--output", f"{name}.zarr")
        cli.main(["predict", "--config", "downscale", "--run_dir", name, *words])
        with xr.open_zarr(f"{name}.zarr", consolidated=False, mask_and_scale=False) as raw:
            assert raw["front"].attrs["_FillValue"] == np.float32(fill)
        with xr.open_zarr(f"{name}.zarr", consolidated=False) as answer:
            answers.append(answer["front"].load())
    assert reports[0]["rmse"] == reports[1]["rmse"]
    xr.testing.assert_identical(*answers)
    truth = dataset["front"].to_numpy()
    np.testing.assert_array_equal(np.isnan(answers[0]), np.isnan(truth))
    tested = truth[19:]
    assert reports[0]["fields"] == len(tested)
    assert reports[0]["data"]["missing values"]["test"]["front"] == int(np.isnan(tested).sum())
    known = np.isfinite(tested)
    for method, degree in (("linear", 1), ("cubic spline", 3)):
        found = splined(truth, degree)
        errors = (found[19:] - tested)[known]
        assert reports[0]["rmse"][method]["front"] == pytest.approx(float(np.sqrt(np.square(errors).mean())), rel=1e-4)
    wrong = truth[:19] - found[:19]
    seen = np.isfinite(wrong).any(0)
    offset = np.where(seen, np.nansum(wrong, 0) / np.maximum(np.isfinite(wrong).sum(0), 1), 0)
    errors = (found[19:] + offset - tested)[known]
    corrected = reports[0]["rmse"]["cubic spline + mean error in training"]["front"]
    assert corrected == pytest.approx(float(np.sqrt(np.square(errors).mean())), rel=1e-4)
    errors = (answers[0].to_numpy()[19:] - tested)[known]
    assert reports[0]["rmse"]["network"]["front"] == pytest.approx(float(np.sqrt(np.square(errors).mean())), rel=1e-4)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        cli.main(list(arguments))
    assert stopped.value.code == 2
    return " ".join(capsys.readouterr().err.split())


def test_gaps_that_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    fit = ("fit", "--config", "downscale", *QUIET, "--data.factor", "2", "--data.variables", "[front]")
    dataset = with_gaps()
    total = int(np.isnan(dataset["front"][:5]).sum())
    datasets = {"infinite": dataset.fillna(np.inf)}
    for name, part in (("early", slice(0, 5)), ("late", slice(5, 6))):
        datasets[name] = dataset.copy(deep=True)
        datasets[name]["front"].data[part] = np.nan
    for name, one in datasets.items():
        one.to_netcdf(f"{name}.nc", engine="h5netcdf")
    cases = {
        "early": "variable 'front' must be known somewhere in the training fields, got 5120 missing values",
        "late": "variable 'front' must be known somewhere in the test fields, got 1024 missing values",
        "infinite": f"variable 'front' must be finite or missing, got {total} of 5120 infinite",
    }
    for name, message in cases.items():
        assert message in refused(capsys, *fit, "--data.path", f"{name}.nc"), name
    assert not Path("runs").exists()


def test_sea_surface_temperatures(shared_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Monthly means around the equator with the continents missing: better than every interpolation."""
    path = shared_data / OCEAN
    if not path.is_file():
        pytest.skip(f"no file {path}")
    words = ("--data.path", str(path), "--data.variables", "[surface_temperature]")
    config = ("--config", "downscale_climate", *QUIET, *words)
    cli.main(["fit", *config, "--trainer.max_epochs", "3"])
    cli.main(["test", *config])
    report = json.loads(Path("runs/downscale_climate/test/metrics.json").read_text())
    ratios = {name: one["surface_temperature"] for name, one in report["ratio_to_cubic_spline"].items()}
    assert min(ratios, key=ratios.__getitem__) == "network"
    assert ratios["network"] < 0.75
    words = ("--predict.input", str(path), "--predict.coarsen", "true", "--output", "fine.nc")
    cli.main(["predict", "--config", "downscale_climate", *QUIET, *words])
    with xr.open_dataset(path) as truth, xr.open_dataset("fine.nc", engine="h5netcdf") as answer:
        known = truth["surface_temperature"].notnull().to_numpy()
        np.testing.assert_array_equal(answer["surface_temperature"].notnull(), known)
        assert answer["surface_temperature"].attrs["units"] == "K"
        assert answer["surface_temperature"].encoding["_FillValue"] == np.float32(1e20)
        errors = np.square(answer["surface_temperature"] - truth["surface_temperature"].to_numpy())[-9:]
        weights = np.cos(np.radians(truth["latitude"])).to_numpy()[:, None] * known[-9:]
        error = float(np.sqrt((errors.fillna(0).to_numpy() * weights).sum() / weights.sum()))
    assert error == pytest.approx(report["rmse"]["network"]["surface_temperature"], rel=1e-3)
