"""Risks by time: level and slope against scikit-learn, means against outcomes; what test stays may not change."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch import Trainer, seed_everything
from pipelines_stand_in import STAYS, StandIn
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from ccnn_irregular.datasets import simulated_icu
from ccnn_irregular.datasets.tables import from_frames
from ccnn_irregular.pipelines import cli
from ccnn_irregular.pipelines.tasks.series import figures
from ccnn_irregular.pipelines.tasks.series.calibration import (
    SHARES_OF_THE_TIME,
    Calibration,
    fit_level_and_slope,
    fit_slope,
)
from ccnn_irregular.pipelines.tasks.series.data import SeriesTables
from ccnn_irregular.pipelines.tasks.series.module import SeriesModel
from ccnn_irregular.pipelines.tasks.series.network import SeriesNetwork
from ccnn_irregular.pipelines.tasks.series.samples import Samples
from ccnn_irregular.pipelines.train.schedule import Schedule

HOURS = [48 * share for share in SHARES_OF_THE_TIME]


def drawn(seed: int, stays: int = 400, spread: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are half as certain as they say, and outcomes."""
    generator = np.random.default_rng(seed)
    logits = spread * generator.standard_normal(stays) - 1
    return logits, (generator.random(stays) < expit(0.5 * logits - 1)).astype(np.int64)


# ---------------------------------------------------------------------------------------------------- level and slope


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_with_many_stays_level_and_slope_are_those_of_a_logistic_regression(seed: int) -> None:
    logits, labels = drawn(seed, stays=200_000)
    found = fit_level_and_slope(logits, labels)
    wanted = LogisticRegression(C=1e9, tol=1e-8).fit(logits[:, None], labels)
    assert found == pytest.approx((wanted.intercept_[0], wanted.coef_[0, 0]), abs=1e-3)


@given(
    seed=st.integers(0, 1000),
    stays=st.integers(20, 200),
    spread=st.sampled_from([0.0, 1e-3, 1.0, 30.0]),
    shift=st.sampled_from([-20.0, 0.0, 20.0]),
)
def test_the_mean_risk_is_the_share_of_deaths(seed: int, stays: int, spread: float, shift: float) -> None:
    logits, _ = drawn(seed, stays, spread)
    labels = (np.random.default_rng(seed).random(stays) < 0.2).astype(np.int64)
    labels[:2] = 0, 1
    level, slope = fit_level_and_slope(logits + shift, labels)
    risks = expit(level + slope * (logits + shift))
    assert slope >= 0
    assert bool(((risks >= 0) & (risks <= 1)).all())
    assert risks.mean() == pytest.approx(labels.mean(), abs=1e-9)


def test_logits_that_are_upside_down_are_not_turned() -> None:
    labels = (np.arange(300) % 5 == 0).astype(np.int64)
    level, slope = fit_level_and_slope(-8.0 * labels, labels)
    assert slope == 0
    assert expit(level) == pytest.approx(0.2)


def test_a_few_deaths_do_not_bend_the_slope() -> None:
    """Perfectly separated logits have no slope of greatest likelihood; the prior holds it near 1."""
    logits = np.linspace(-3, 3, 60)
    _, slope = fit_level_and_slope(logits, (logits > 2).astype(np.int64))
    assert 1 < slope < 3


def test_between_the_hours_level_and_slope_are_interpolated_and_beyond_them_they_stay() -> None:
    calibration = Calibration(HOURS)
    labels = (np.arange(100) < 30).astype(np.int64)
    logits = np.stack([np.linspace(1, -1, 100) * (1 + hour / 48) + hour / 24 for hour in HOURS])[..., None]
    asked = torch.tensor([0.0, 1.0, 2.5, 40.0, 48.0, 60.0, torch.inf], dtype=torch.float64)
    untouched = calibration(torch.full((7, 1), 0.7), asked)
    torch.testing.assert_close(untouched, torch.full((7, 1), 0.7).double())
    calibration.fit(logits, labels)
    for value in (0.0, 1.0):
        found = calibration(torch.full((7, 1), value), asked)[:, 0].numpy()
        table = calibration.levels.numpy() + value * calibration.slopes.numpy()
        np.testing.assert_allclose(found, np.interp(asked.numpy(), HOURS, table), rtol=1e-12)
    other = Calibration(HOURS)
    other.load_state_dict(calibration.state_dict())
    assert torch.equal(other(torch.ones(7, 1), asked), calibration(torch.ones(7, 1), asked))


def test_one_time_serves_all() -> None:
    calibration = Calibration([0.0])
    logits, labels = drawn(0)
    calibration.fit(logits[None, :, None], labels)
    found = calibration(torch.from_numpy(logits[:, None]), torch.zeros(len(logits)))
    assert float(found.sigmoid().mean()) == pytest.approx(labels.mean(), abs=1e-9)


def test_samples_of_unlike_times_count_at_the_times_beside_theirs() -> None:
    """Early logits are too high by 1, late ones too low by 1: each time gets its own level."""
    rng = np.random.default_rng(0)
    times = rng.uniform(0, 48, 20_000)
    true = rng.standard_normal(20_000) - 1
    labels = (rng.random(20_000) < expit(true)).astype(np.int64)
    given = true + 1 - times / 24
    calibration = Calibration(HOURS)
    shares = calibration.shares(times)
    np.testing.assert_allclose(shares.sum(0), 1)
    calibration.fit(np.broadcast_to(given[:, None], (len(HOURS), 20_000, 1)), labels, shares)
    found = calibration(torch.from_numpy(given[:, None]), torch.from_numpy(times))[:, 0].numpy()
    early, late = times < 16, times > 32
    for some in (early, late):
        assert expit(found)[some].mean() == pytest.approx(labels[some].mean(), abs=0.015)
        assert abs(expit(given)[some].mean() - labels[some].mean()) > 0.05


def test_logits_of_classes_get_the_temperature_they_were_drawn_with() -> None:
    rng = np.random.default_rng(0)
    true = rng.standard_normal((20_000, 3))
    labels = (true + rng.gumbel(size=true.shape)).argmax(1)
    assert fit_slope(2.5 * true, labels, np.ones(20_000)) == pytest.approx(0.4, abs=0.02)
    calibration = Calibration([0.0])
    calibration.fit(2.5 * true[None], labels)
    assert float(calibration.levels[0]) == 0.0
    assert float(calibration.slopes[0]) == pytest.approx(0.4, abs=0.02)


def test_too_few_of_a_class_are_refused() -> None:
    with pytest.raises(ValueError, match="labels must hold at least 10 of each class to calibrate by, got 9"):
        Calibration(HOURS).fit(np.zeros((13, 50, 1)), (np.arange(50) < 9).astype(np.int64))
    with pytest.raises(ValueError, match=r"logits must have shape \(13, 50\), got \(2, 50\)"):
        Calibration(HOURS).fit(np.zeros((2, 50, 1)), (np.arange(50) < 20).astype(np.int64))


# --------------------------------------------------------------------------------------------------------- the model


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("simulated")
    simulated_icu.write(root, stays=500, seed=2)
    return root


def module(root: Path) -> SeriesTables:
    options = {"cache": str(root / "cache"), "progress": False}
    data = SeriesTables(str(root), source="physionet2012", source_options=options, test=0.4, validation=0.5)
    data.setup("fit")
    return data


def trained(data: SeriesTables, folder: Path, epochs: int = 4) -> SeriesModel:
    seed_everything(0, verbose=False)
    model = SeriesModel(StandIn(**STAYS), Schedule(learning_rate=0.02))
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(
        default_root_dir=folder, accelerator="cpu", max_epochs=epochs, enable_checkpointing=False, **quiet
    )
    trainer.fit(model, datamodule=data)
    return model.eval()


def risks_at(network: SeriesNetwork, stays: Samples, hour: float | None) -> np.ndarray:
    known = stays if hour is None else stays.known_by(np.full(len(stays), hour))
    with torch.no_grad():
        return network.answers(known.batch(torch.arange(len(stays))))[:, 0].numpy()


def test_the_mean_risk_of_stays_never_seen_is_the_observed_rate_at_every_hour(root: Path, tmp_path: Path) -> None:
    data = module(root)
    model = trained(data, tmp_path)
    network = model.network
    watched, held = (data.samples.take(data.indices(part)) for part in ("validation", "test"))
    before = {hour: risks_at(network, held, hour) for hour in (1.0, 12.0, 48.0)}
    told = model.calibrate(data)
    assert told.startswith("risks are calibrated by time, with ")
    assert not model.training
    for hour in HOURS:
        assert risks_at(network, watched, hour).mean() == pytest.approx(watched.targets.mean(), abs=1e-5)
    low, high = figures._wilson(np.array([held.targets.mean()]), np.array([len(held)]))
    means = [risks_at(network, held, hour).mean() for hour in range(1, 49, 3)]
    assert low[0] < min(means) <= max(means) < high[0]
    # What there was to mend, and that the order of the stays stays.
    assert not low[0] < before[1.0].mean() < high[0]
    for hour, risks in before.items():
        order = np.argsort(risks, kind="stable")
        assert bool((np.diff(risks_at(network, held, hour)[order]) >= 0).all())
    # A whole stay is what was known by its last hour.
    np.testing.assert_allclose(risks_at(network, held, None), risks_at(network, held, 48.0), rtol=1e-6)


def test_where_deaths_are_few_the_risks_stay_and_a_sentence_says_so(root: Path) -> None:
    data = module(root)
    model = SeriesModel(StandIn(**STAYS)).eval()
    data._split["validation"] = data.indices("validation")[:12]
    few = data.samples.take(data.indices("validation"))
    before = risks_at(model.network, few, None)
    told = model.calibrate(data)
    assert told.startswith("risks are not calibrated: ")
    assert "10 of each are needed" in told
    np.testing.assert_array_equal(risks_at(model.network, few, None), before)
    assert not bool(model.network.calibration.fitted)
    figure = figures.risk_over_time(model.network, few, 0, "simulated")
    assert figure.axes[-1].get_ylabel() == "predicted\nrisk, not\ncalibrated"


def test_spoiled_test_stays_change_nothing_that_is_learned(root: Path, tmp_path: Path) -> None:
    states = []
    for spoiled in (False, True):
        data = module(root)
        if spoiled:
            tested = data.samples.index[data.indices("test")]
            rows, _ = data.samples.series.rows_of(tested)
            data.samples.series.values[rows] = 1e6 * data.samples.series.values[rows] - 7
            data.samples.statics[tested] = 1e6
        model = trained(data, tmp_path, epochs=1)
        model.calibrate(data)
        network = SeriesNetwork(**STAYS, hidden_channels=8, blocks=1)
        network.prepare(data.typical_batch(), data.training_values())
        states.append({**model.state_dict(), **{f"real.{key}": one for key, one in network.named_buffers()}})
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(one, states[1][name]) for name, one in states[0].items())


def test_the_commands_keep_and_use_the_calibration(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    options = {
        "trainer": {"max_epochs": 2, "accelerator": "cpu", "enable_progress_bar": False},
        "model": {"network": {"class_path": "pipelines_stand_in.StandIn"}, "schedule": {"learning_rate": 0.02}},
        "data": {
            "table": str(root),
            "source": "physionet2012",
            "source_options": {"cache": str(root / "cache"), "progress": False},
            "test": 0.4,
            "validation": 0.5,
        },
    }
    Path("tiny.yaml").write_text(yaml.safe_dump(options))
    cli.main(["fit", "--config", "tiny.yaml"])
    assert "risks are calibrated by time, with " in capsys.readouterr().out
    network = SeriesModel.load_from_checkpoint("runs/tiny/best.ckpt", map_location="cpu").eval().network
    assert bool(network.calibration.fitted)
    data = module(root)
    watched = data.samples.take(data.indices("validation"))
    assert risks_at(network, watched, None).mean() == pytest.approx(watched.targets.mean(), abs=1e-5)
    again = SeriesModel.load_from_checkpoint("runs/tiny/best.ckpt", map_location="cpu")
    again.calibrate(data)
    torch.testing.assert_close(again.network.calibration.levels, network.calibration.levels)

    cli.main(["predict", "--config", "tiny.yaml", "--output", "risks.csv"])
    found = np.loadtxt("risks.csv", delimiter=",", skiprows=1)
    np.testing.assert_allclose(found[:, 3], risks_at(network, data.samples, None), rtol=0, atol=1e-6)
    assert found[:, 0].tolist() == [int(one) for one in data.ids("all")]
    cli.main(["test", "--config", "tiny.yaml", "--output", "out", "--test.resamples", "20"])
    report = json.loads(Path("out/metrics.json").read_text())
    assert report["calibration"]["levels"] == network.calibration.levels.tolist()
    # The last epoch's checkpoint is there to train on, not to be believed.
    capsys.readouterr()
    cli.main(["predict", "--config", "tiny.yaml", "--ckpt_path", "runs/tiny/last.ckpt", "--output", "last.csv"])
    assert "the risks of runs/tiny/last.ckpt are not calibrated" in capsys.readouterr().out


def test_labels_with_times_are_calibrated_by_the_samples_about_these_times() -> None:
    rng = np.random.default_rng(0)
    count = 300
    ids = np.repeat(np.arange(count), 12)
    times = np.tile(np.arange(0.0, 48, 4), count)
    table = pd.DataFrame({"id": ids, "time": times, "HR": rng.normal(80, 10, len(ids))})
    asked = pd.DataFrame({"id": np.tile(np.arange(count), 2), "time": np.repeat([6.0, 40.0], count)})
    asked["label"] = (rng.random(2 * count) < np.where(asked["time"] < 20, 0.3, 0.7)).astype(int)
    data = SeriesTables.of(from_frames(table, asked), time_since="given", validation=0.5, test=0.0)
    data.setup("fit")
    assert data.schema is not None
    model = SeriesModel(StandIn(**STAYS | {"schema": data.schema})).eval()
    model.network.prepare(data.typical_batch(), data.training_values())
    assert model.calibrate(data).startswith("risks are calibrated by time, with ")
    watched = data.samples.take(data.indices("validation"))
    with torch.no_grad():
        risks = model.network.answers(watched.batch(torch.arange(len(watched))))[:, 0].numpy()
    for time in (6.0, 40.0):
        chosen = watched.cuts == time
        assert risks[chosen].mean() == pytest.approx(watched.targets[chosen].mean(), abs=1e-3)
