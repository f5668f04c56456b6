"""Risks by hour: level and slope against scikit-learn, means against outcomes; what test stays may not change."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch import Trainer, seed_everything
from pipelines_stand_in import StandIn
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from ccnn_irregular import KernelSpec
from ccnn_irregular.datasets import simulated_icu
from ccnn_irregular.pipelines import cli
from ccnn_irregular.pipelines.tasks.risk import figures
from ccnn_irregular.pipelines.tasks.risk.calibration import CALIBRATION_HOURS, HourlyCalibration, fit_level_and_slope
from ccnn_irregular.pipelines.tasks.risk.data import ICUDataModule, StayBatch
from ccnn_irregular.pipelines.tasks.risk.module import BinaryRisk
from ccnn_irregular.pipelines.tasks.risk.network import ICURiskNetwork
from ccnn_irregular.pipelines.train.schedule import Schedule


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
    calibration = HourlyCalibration()
    labels = (np.arange(100) < 30).astype(np.int64)
    logits = np.stack([np.linspace(1, -1, 100) * (1 + hour / 48) + hour / 24 for hour in CALIBRATION_HOURS])
    asked = torch.tensor([0.0, 1.0, 2.5, 40.0, 48.0, 60.0], dtype=torch.float64)
    untouched = calibration(torch.full((6,), 0.7), asked)
    torch.testing.assert_close(untouched, torch.full((6,), 0.7).double())
    calibration.fit(logits, labels)
    for value in (0.0, 1.0):
        found = calibration(torch.full((6,), value), asked).numpy()
        table = calibration.levels.numpy() + value * calibration.slopes.numpy()
        np.testing.assert_allclose(found, np.interp(asked.numpy(), CALIBRATION_HOURS, table), rtol=1e-12)
    other = HourlyCalibration()
    other.load_state_dict(calibration.state_dict())
    assert torch.equal(other(torch.ones(6), asked), calibration(torch.ones(6), asked))


def test_too_few_of_an_outcome_are_refused() -> None:
    with pytest.raises(ValueError, match="labels must hold at least 10 stays of each outcome to calibrate by, got 9"):
        HourlyCalibration().fit(np.zeros((13, 50)), (np.arange(50) < 9).astype(np.int64))
    with pytest.raises(ValueError, match=r"logits must have shape \(13, 50\), got \(2, 50\)"):
        HourlyCalibration().fit(np.zeros((2, 50)), (np.arange(50) < 20).astype(np.int64))


# --------------------------------------------------------------------------------------------------------- the model


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("simulated")
    simulated_icu.write(root, stays=500, seed=2)
    return root


def module(root: Path) -> ICUDataModule:
    data = ICUDataModule(str(root), held_out=0.4, validation=0.5, cache=str(root / "cache"), progress=False)
    data.setup("fit")
    return data


def trained(data: ICUDataModule, folder: Path, epochs: int = 4) -> BinaryRisk:
    seed_everything(0, verbose=False)
    model = BinaryRisk(StandIn(), Schedule(learning_rate=0.02))
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(
        default_root_dir=folder, accelerator="cpu", max_epochs=epochs, enable_checkpointing=False, **quiet
    )
    trainer.fit(model, datamodule=data)
    return model.eval()


def risks_at(model: BinaryRisk, stays: StayBatch, hour: float) -> np.ndarray:
    return model.probabilities(stays, torch.full((len(stays),), hour, dtype=torch.float64)).numpy()


def test_the_mean_risk_of_stays_never_seen_is_the_observed_rate_at_every_hour(root: Path, tmp_path: Path) -> None:
    data = module(root)
    model = trained(data, tmp_path)
    watched, held = data.stays("validation"), data.stays("test")
    assert held.labels is not None
    before = {hour: risks_at(model, held, hour) for hour in (1.0, 12.0, 48.0)}
    told = model.calibrate(watched)
    assert told.startswith("risks are calibrated by hour, with ")
    assert not model.training
    assert watched.labels is not None
    for hour in CALIBRATION_HOURS:
        assert risks_at(model, watched, hour).mean() == pytest.approx(float(watched.labels.mean()), abs=1e-5)
    low, high = figures._wilson(np.array([float(held.labels.mean())]), np.array([len(held)]))
    means = [risks_at(model, held, hour).mean() for hour in range(1, 49, 3)]
    assert low[0] < min(means) <= max(means) < high[0]
    # What there was to mend, and that the order of the stays stays.
    assert not low[0] < before[1.0].mean() < high[0]
    for hour, risks in before.items():
        order = np.argsort(risks, kind="stable")
        assert bool((np.diff(risks_at(model, held, hour)[order]) >= 0).all())
    # A whole stay is what was known by its last hour.
    np.testing.assert_allclose(model.probabilities(held).numpy(), risks_at(model, held, 48.0), rtol=1e-6)


def test_where_deaths_are_few_the_risks_stay_and_a_sentence_says_so(root: Path) -> None:
    data = module(root)
    model = BinaryRisk(StandIn()).eval()
    few = data.stays("validation").take(torch.arange(12))
    before = model.probabilities(few)
    assert model.calibrate(few).startswith("risks are not calibrated: ")
    assert "at least 10 of each are needed" in model.calibrate(few)
    assert torch.equal(model.probabilities(few), before)
    assert not bool(model.calibration.fitted)
    figure = figures.patient_risk(model, few, int(few.record_ids[0]), "simulated")
    assert figure.axes[-1].get_ylabel() == "predicted\nrisk, not\ncalibrated"


def test_spoiled_test_stays_change_nothing_that_is_learned(root: Path, tmp_path: Path) -> None:
    states = []
    for spoiled in (False, True):
        data = module(root)
        if spoiled:
            cohort = data.cohort
            rows = np.zeros(len(cohort.values), bool)
            for stay in data.split.held_out:
                rows[cohort.splits[stay] : cohort.splits[stay + 1]] = True
            cohort.values[rows] = 1e6 * cohort.values[rows] - 7
            cohort.statics[data.split.held_out] = 1e6
        model = trained(data, tmp_path, epochs=1)
        model.calibrate(data.stays("validation"))
        network = ICURiskNetwork(
            kernel=KernelSpec(extent=24.0, width=6.0, omega_0=10.0, generator="siren", hidden=8),
            hidden_channels=8,
            blocks=1,
        )
        network.prepare(data.typical_batch())
        states.append({**model.state_dict(), **{f"real.{key}": one for key, one in network.named_buffers()}})
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(one, states[1][name]) for name, one in states[0].items())


@pytest.mark.filterwarnings(r"ignore:\s*By default only one Jsonargparse:DeprecationWarning")
@pytest.mark.filterwarnings(r"ignore:[\s\S]*removed in\s+v5\.0\.0:DeprecationWarning")
def test_the_commands_keep_and_use_the_calibration(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    options = {
        "trainer": {"max_epochs": 2, "accelerator": "cpu", "enable_progress_bar": False},
        "model": {"network": {"class_path": "pipelines_stand_in.StandIn"}, "schedule": {"learning_rate": 0.02}},
        "data": {
            "root": str(root),
            "held_out": 0.4,
            "validation": 0.5,
            "cache": str(root / "cache"),
            "progress": False,
        },
    }
    Path("tiny.yaml").write_text(yaml.safe_dump(options))
    cli.main(["fit", "--config", "tiny.yaml"])
    assert "risks are calibrated by hour, with " in capsys.readouterr().out
    model = BinaryRisk.load_from_checkpoint("runs/tiny/best.ckpt", map_location="cpu").eval()
    assert bool(model.calibration.fitted)
    data = module(root)
    watched = data.stays("validation")
    assert watched.labels is not None
    assert float(model.probabilities(watched).mean()) == pytest.approx(float(watched.labels.mean()), abs=1e-5)
    again = BinaryRisk.load_from_checkpoint("runs/tiny/best.ckpt", map_location="cpu")
    again.calibrate(watched)
    torch.testing.assert_close(again.calibration.levels, model.calibration.levels)

    cli.main(["predict", "--config", "tiny.yaml", "--data.evaluate", "all", "--output", "risks.csv"])
    found = np.loadtxt("risks.csv", delimiter=",", skiprows=1)
    wanted = model.probabilities(data.stays("all")).numpy()
    np.testing.assert_allclose(found[:, 1], wanted, rtol=0, atol=1e-6)
    assert found[:, 0].tolist() == data.cohort.record_ids.tolist()
    cli.main(["test", "--config", "tiny.yaml", "--output", "out", "--bootstrap.resamples", "20"])
    report = json.loads(Path("out/metrics.json").read_text())
    assert report["calibration"]["levels"] == model.calibration.levels.tolist()
    # The last epoch's checkpoint is there to train on, not to be believed.
    capsys.readouterr()
    cli.main(["predict", "--config", "tiny.yaml", "--ckpt_path", "runs/tiny/last.ckpt", "--output", "last.csv"])
    assert "the risks of runs/tiny/last.ckpt are not calibrated" in capsys.readouterr().out
