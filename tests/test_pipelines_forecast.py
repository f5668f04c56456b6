"""Forecasts: masked errors, baselines, what the network may see, and the four commands."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ccnn_irregular.datasets import simulated_icu
from ccnn_irregular.pipelines import cli
from ccnn_irregular.pipelines.tasks.forecast.network import ForecastBatch, ForecastNetwork
from ccnn_irregular.pipelines.tasks.forecast.task import ForecastData
from ccnn_irregular.pipelines.train.masked_error import MaskedError, MaskedSkill, masked_squared_error
from ccnn_irregular.pipelines.train.value_scale import ValueScale

FOLDER = Path(__file__).resolve().parents[1] / "pipelines" / "tasks" / "forecast"


def data(**options: object) -> ForecastData:
    made = ForecastData(**{"dataset": "simulated_series", "options": {"count": 40}, "batch_size": 8} | options)
    made.setup("fit")
    return made


def prepared(source: ForecastData) -> ForecastNetwork:
    """A small network whose last layer is no longer zero."""
    torch.manual_seed(0)
    network = ForecastNetwork(source.sizes()["in_channels"], hidden_channels=8, blocks=1)
    network.prepare(source.typical_batch(), source.training_values())
    torch.nn.init.normal_(network.cnn.output.weight, std=0.1)
    return network.eval()


def test_the_task_has_at_most_200_lines() -> None:
    assert sum(len(path.read_text().splitlines()) for path in FOLDER.glob("*.py")) <= 200


# ------------------------------------------------------------------------------------------------------------- errors


def in_numpy(answers: np.ndarray, targets: np.ndarray, power: int) -> float:
    """Mean within each column that has a target, then over these columns."""
    means = [
        float(np.mean(np.abs(answer - target)[~np.isnan(target)].astype(np.float64) ** power))
        for answer, target in zip(answers.T, targets.T, strict=True)
        if not np.isnan(target).all()
    ]
    return float(np.mean(means)) if means else 0.0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 12), st.integers(1, 4), st.floats(0, 1), st.integers(1, 5))
def test_masked_errors_are_those_of_numpy_for_batches_of_any_size(
    seed: int, rows: int, columns: int, missing: float, size: int
) -> None:
    rng = np.random.default_rng(seed)
    answers, baseline, targets = rng.normal(size=(3, rows, columns))
    targets[rng.random((rows, columns)) < missing] = np.nan
    tensors = [torch.from_numpy(array) for array in (answers, baseline, targets)]
    assert float(masked_squared_error(tensors[0], tensors[2])) == pytest.approx(in_numpy(answers, targets, 2))
    error, skill = MaskedError(columns), MaskedSkill(columns)
    for one, other, target in zip(*(tensor.split(size) for tensor in tensors), strict=True):
        error.update(one, target)
        skill.update(one, other, target)
    names = [f"variable {column}" for column in range(columns)]
    figures = error.figures(names)
    assert float(error.compute()) == figures["mse"] == pytest.approx(in_numpy(answers, targets, 2))
    assert figures["mae"] == pytest.approx(in_numpy(answers, targets, 1))
    counts = (~np.isnan(targets)).sum(0)
    known = {name: int(count) for name, count in zip(names, counts, strict=True) if count}
    assert {name: found["n"] for name, found in figures["by_variable"].items()} == known
    if known:
        wanted = 1 - in_numpy(answers, targets, 2) / in_numpy(baseline, targets, 2)
        assert float(skill.compute()) == pytest.approx(wanted)
    skill.reset()
    assert float(skill.error.count.sum()) == 0


def test_targets_that_are_not_known_send_no_gradient() -> None:
    answers = torch.randn(4, 3, requires_grad=True)
    targets = torch.randn(4, 3)
    targets[1, 2] = targets[:, 0] = torch.nan
    masked_squared_error(answers, targets).backward()
    assert answers.grad is not None
    assert bool(answers.grad.isfinite().all())
    assert torch.equal(answers.grad == 0, targets.isnan())


def test_values_are_scaled_by_their_range_and_back() -> None:
    values = torch.tensor([[1.0, 5.0, torch.nan], [3.0, 5.0, torch.nan], [torch.nan, 5.0, torch.nan]])
    scale = ValueScale(3)
    scale.fit(values)
    assert torch.equal(scale(values)[:2, 0], torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(scale.mean, torch.tensor([0.5, 0.0, 0.0]))
    torch.testing.assert_close(scale.deviation, torch.tensor([0.5, 0.0, 0.0]))
    torch.testing.assert_close(scale.inverse(scale(values)), values, equal_nan=True)


# --------------------------------------------------------------------------------------------------------- the network


def test_training_begins_with_the_last_value_or_the_mean() -> None:
    source = data()
    torch.manual_seed(0)
    network = ForecastNetwork(5, hidden_channels=8, blocks=1)
    network.prepare(source.typical_batch(), source.training_values())
    batch = source.batch(source.part("test"))
    torch.testing.assert_close(network.eval()(batch), network.last_value(batch))
    values = source.part("train", "validation").values.numpy()
    means, low, high = np.nanmean(values, 0), np.nanmin(values, 0), np.nanmax(values, 0)
    asked = batch.asked.sample_index().tolist()
    for row in range(0, len(asked), 7):
        history = batch.history.subset(torch.tensor([asked[row]])).values.numpy()
        for variable, column in enumerate(history.T):
            known = column[~np.isnan(column)]
            wanted = ((known[-1] if len(known) else means[variable]) - low[variable]) / (high - low)[variable]
            assert float(network.last_value(batch)[row, variable]) == pytest.approx(float(wanted), abs=1e-5)


def test_a_series_without_history_is_forecast_by_what_the_others_are() -> None:
    source = data()
    network = prepared(source)
    batch = source.batch(source.part("test"))
    unseen = ForecastBatch(batch.history.keep(torch.zeros(len(batch.history.values), dtype=torch.bool)), batch.asked)
    assert torch.equal(network.last_value(unseen), network.scale.mean.expand(len(batch.asked.values), 5))
    assert bool(network(unseen).isfinite().all())


def test_no_value_after_the_cut_is_seen() -> None:
    """Values and, beyond the times asked for, nothing of what is measured then."""
    source = data()
    network = prepared(source)
    series = source.part("test")
    batch = source.batch(series)
    assert float(batch.history.times.max()) < source.cut <= float(batch.asked.times.min())
    assert len(batch.history.values) + len(batch.asked.values) == len(series.values)
    later = series.times >= source.cut
    changed = torch.where(later[:, None], torch.rand(series.values.shape) * 1e3, series.values)
    other = source.batch(dataclasses.replace(series, values=changed))
    assert torch.equal(network(batch), network(other))
    times = [25.0, 47.5]
    fewer = source.batch(series.keep(~later | (torch.rand(len(later)) < 0.3)), times)
    assert torch.equal(network(source.batch(series, times)), network(fewer))


def test_a_forecast_depends_on_its_own_time_and_series() -> None:
    """One time asked for alone, and one series alone, are answered as among others."""
    source = data()
    network = prepared(source)
    series = source.part("test")
    together = network(source.batch(series, [24.0, 30.0, 48.0])).reshape(len(series), 3, 5)
    assert bool((together.std(1) > 0).any())
    alone = network(source.batch(series, [30.0]))
    torch.testing.assert_close(alone, together[:, 1], rtol=2e-3, atol=1e-4)
    single = network(source.batch(series.subset(torch.tensor([3])), [24.0, 30.0, 48.0]))
    torch.testing.assert_close(single, together[3], rtol=2e-3, atol=1e-4)


def test_nothing_asked_for_is_no_error() -> None:
    source = data()
    assert prepared(source)(source.batch(source.part("test"), [])).shape == (0, 5)


# -------------------------------------------------------------------------------------------------------- the commands


def test_fit_test_and_predict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = ["--config", "simulated_forecast", "--run_dir", str(tmp_path / "run"), "--trainer.accelerator", "cpu",
           "--trainer.enable_progress_bar", "false"]  # fmt: skip
    cli.main(["fit", *run, "--trainer.max_epochs", "2", "--data.options", "{count: 100}"])
    cli.main(["validate", *run])
    cli.main(["test", *run])
    shown = capsys.readouterr().out
    assert "best possible" in shown
    assert "MSE x 10^-3" in shown
    report = json.loads((tmp_path / "run" / "test" / "metrics.json").read_text())
    results = report["results"]
    assert results["best possible"]["mse"] < results["network"]["mse"] < results["last value"]["mse"]
    assert set(results["network"]["by_variable"]) == {"slow", "daily", "both", "opposed", "fast"}
    assert (report["data"]["cut"], report["data"]["series"]["test"]) == (24, 20)
    assert report["overlap"]["trained_on"] == 0
    with (tmp_path / "run" / "test" / "errors.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    found = [float(row["mse"]) for row in rows if row["answer"] == "last value"]
    assert np.mean(found) == pytest.approx(results["last value"]["mse"])
    assert (tmp_path / "run" / "test" / "forecasts.png").stat().st_size > 10_000

    cli.main(["predict", *run, "--predict.times", "24", "36.5", "--output", str(tmp_path / "asked.csv")])
    cli.main(["predict", *run, "--data.evaluate", "test", "--output", str(tmp_path / "observed.csv")])
    with (tmp_path / "asked.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert list(rows[0]) == ["id", "time", "variable", "prediction"]
    assert len(rows) == 100 * 2 * 5
    assert {row["time"] for row in rows} == {"24.0", "36.5"}
    assert max(len(row["prediction"].lstrip("-0.").partition("e")[0].replace(".", "")) for row in rows) == 7
    daily = [float(row["prediction"]) for row in rows if row["variable"] == "daily"]
    assert 8 < np.mean(daily) < 12  # units of the data
    with (tmp_path / "observed.csv").open() as lines:
        counted = len(list(csv.DictReader(lines)))
    assert counted == sum(one["n"] for one in results["network"]["by_variable"].values())


def test_stays_of_an_intensive_care_unit_are_read(tmp_path: Path) -> None:
    simulated_icu.write(tmp_path / "stays", stays=30, seed=2)
    run = ["--config", "physionet2012_forecast", "--run_dir", str(tmp_path / "run"), "--trainer.accelerator", "cpu",
           "--trainer.enable_progress_bar", "false"]  # fmt: skip
    small = ["--data.root", str(tmp_path / "stays"), "--data.options", "{sets: [a], cache: false, progress: false}",
             "--model.network.init_args.hidden_channels", "4", "--trainer.max_epochs", "1"]  # fmt: skip
    cli.main(["fit", *run, *small])
    cli.main(["test", *run])
    report = json.loads((tmp_path / "run" / "test" / "metrics.json").read_text())
    assert report["results"]["network"]["mse"] > 0
    assert not {"Age", "Gender", "Height", "ICUType"} & set(report["results"]["network"]["by_variable"])
    cli.main(["predict", *run, "--predict.times", "48", "--output", str(tmp_path / "out.csv")])
    with (tmp_path / "out.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert {row["time"] for row in rows} == {"48.0"}
    assert int(rows[0]["id"]) >= simulated_icu.FIRST_RECORD_ID


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data.dataset", "nothing"], "dataset must be one of"),
        (["--data.dataset", "mnist"], "dataset must be one of"),
        (["--data.options", "{counts: 3}"], "counts"),
        (
            ["--model.network.init_args.in_channels", "7"],
            "in_channels must be the data's 5 (--model.network.init_args.in_channels 5), got 7",
        ),
        (["--data.cut", "50"], "data.cut"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["fit", "--config", "simulated_forecast", "--run_dir", str(tmp_path / "run"), *options])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
