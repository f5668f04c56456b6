"""How a run ends: told truthfully, in the run folder too; what is not finished goes on to the same result."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pipelines_commands import fit, history, stopped, write_config
from pipelines_stand_in import StandIn

from ccnn_irregular.datasets import simulated_icu
from ccnn_irregular.pipelines import cli
from ccnn_irregular.pipelines.train.run_end import TimeLimit

pytestmark = pytest.mark.usefixtures("in_tmp_path")

EPOCHS, STEPS = 3, 3  # of the run, and of an epoch


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("simulated")
    simulated_icu.write(root, stays=80, seed=5)
    return root


@pytest.fixture
def config(root: Path, tmp_path: Path) -> str:
    return write_config(tmp_path / "tiny.yaml", root, trainer={"max_epochs": EPOCHS})


def end(run: str) -> dict[str, Any]:
    summary = json.loads(Path(run, "summary.json").read_text())
    return summary["end"] | {"epochs": summary["epochs"]}


def weights(run: str) -> dict[str, torch.Tensor]:
    return torch.load(Path(run, "last.ckpt"), weights_only=True)["state_dict"]


def same(run: str, other: str) -> None:
    """Two runs are bit by bit the same."""
    assert history(run) == history(other)
    torch.testing.assert_close(weights(run), weights(other), rtol=0, atol=0)


def test_a_time_limit_is_told_and_the_same_command_goes_on(
    config: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(config, "whole")
    assert end("whole") == {"finished": True, "by": "max_epochs", "why": "all 3 epochs are done", "epochs": EPOCHS}
    assert "finished after 3 epochs: all 3 epochs are done" in capsys.readouterr().out

    # The time is up in the middle of the second epoch.
    asked = []
    monkeypatch.setattr(TimeLimit, "is_up", lambda self: bool(asked.append(None)) or len(asked) > STEPS + 2)
    limit = ["--trainer.max_time", "00:00:01:00"]
    fit(config, "parts", *limit)
    printed = capsys.readouterr().out
    assert "not finished: the time limit trainer.max_time was reached" in printed
    assert "1 epoch is in parts; the same command resumes" in printed
    assert end("parts")["by"] == "time_limit"
    assert end("parts")["finished"] is False
    assert end("parts")["epochs"] == len(history("parts")) == 1

    # What is there can be tested, and the report says how training ended.
    cli.main(["test", "--config", config, "--run_dir", "parts", "--output", "out"])
    assert "is not finished" in capsys.readouterr().out
    assert json.loads(Path("out/metrics.json").read_text())["training"]["finished"] is False

    # The limit is that of a command: the same one goes on, here until the end of an epoch.
    asked.clear()
    monkeypatch.setattr(TimeLimit, "is_up", lambda self: bool(asked.append(None)) or len(asked) >= STEPS)
    fit(config, "parts", *limit)
    assert "resuming from parts/last.ckpt after 1 epochs (the time limit" in capsys.readouterr().out
    assert (end("parts")["by"], end("parts")["epochs"]) == ("time_limit", 2)
    monkeypatch.undo()
    monkeypatch.chdir(Path(config).parent)
    fit(config, "parts", "--trainer.max_time", "00:01:00:00")
    assert end("parts") == end("whole")
    same("parts", "whole")


def test_a_time_limit_is_written_as_such(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    stopped(2, config, "odd", "--trainer.max_time", "an hour")
    assert "trainer.max_time must be DD:HH:MM:SS" in capsys.readouterr().err


def test_sigterm_is_told_and_the_same_command_goes_on(
    config: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(config, "whole")
    monkeypatch.setattr(StandIn, "terminate_at", STEPS + 2)
    stopped(143, config, "parts")
    assert "not finished: terminated by SIGTERM" in capsys.readouterr().out
    assert end("parts") | {"why": ""} == {"finished": False, "by": "termination", "why": "", "epochs": 1}
    monkeypatch.setattr(StandIn, "terminate_at", None)
    fit(config, "parts")
    same("parts", "whole")


def test_a_metric_that_is_no_number_ends_the_run_with_a_message(
    config: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(StandIn, "spoil_at", STEPS + 2)
    stopped(2, config, "run")
    output = capsys.readouterr()
    for text in (
        "the loss must be a finite number, got nan in batch 1 of epoch 1 of the series 9000",
        "all weights are finite, so look at these samples",
    ):
        assert text in output.err
    assert end("run")["by"] == "no_number"
    assert (end("run")["finished"], end("run")["epochs"]) == (False, 1)
    # Neither checkpoint has learned from it.
    assert all(bool(torch.isfinite(value).all()) for value in weights("run").values())
    monkeypatch.setattr(StandIn, "spoil_at", None)
    fit(config, "run")
    assert end("run")["finished"]

    # Nor does one where validation alone is no number.
    monkeypatch.setattr(StandIn, "spoil_validation", True)
    stopped(2, config, "validated")
    output = capsys.readouterr()
    assert "val_loss must be a finite number in epoch 0, got nan" in output.err
    assert "look at the data of that part" in output.err
    assert math.isnan(float(history("validated")[0]["val_loss"]))  # the history tells it too
    monkeypatch.setattr(StandIn, "spoil_validation", False)

    # A checkpoint that gives no numbers is no result of ``validate`` either.
    content = torch.load("run/best.ckpt", weights_only=True)
    content["state_dict"]["network.body.0.bias"] += torch.nan
    torch.save(content, "run/best.ckpt")
    with pytest.raises(SystemExit) as stop:
        cli.main(["validate", "--config", config, "--run_dir", "run"])
    assert stop.value.code == 2
    assert "must be a finite number on the validation part" in capsys.readouterr().err


def test_a_gradient_that_is_no_number_reaches_no_weight(
    config: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(StandIn, "steep_at", 2)
    stopped(2, config, "run")
    assert "the norm of the gradient must be a finite number, got nan in batch 1 of epoch 0" in capsys.readouterr().err
    assert end("run")["by"] == "no_number"


def test_answers_that_are_no_numbers_are_told(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    fit(config, "run", "--trainer.max_epochs", "1")
    content = torch.load("run/best.ckpt", weights_only=True)
    content["state_dict"]["network.body.0.bias"] += torch.nan
    torch.save(content, "run/best.ckpt")
    with pytest.warns(UserWarning, match="80 of 80 answers of the network are no numbers"):
        cli.main(["predict", "--run_dir", "run"])


def test_steps_may_end_inside_an_epoch_with_a_validation(config: str) -> None:
    fit(config, "run", "--trainer.max_steps", str(STEPS + 1))
    assert end("run") == {"finished": True, "by": "max_steps", "why": "all 4 steps are done", "epochs": 2}
    losses = [float(row["val_loss"]) for row in history("run")]
    assert losses[0] != losses[1]  # measured anew after the last step


def test_early_stopping_is_the_end_whatever_the_number_of_epochs(
    config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stop = ["--early_stopping.patience", "1", "--early_stopping.min_delta", "2"]  # AUROC cannot rise by 2
    fit(config, "run", *stop)
    assert end("run")["by"] == "early_stopping"
    assert end("run")["why"] == "val_score did not improve in 1 epochs"
    assert end("run")["epochs"] == 2
    stopped(2, config, "run", *stop, "--trainer.max_epochs", "9")
    assert "finished after 2 epochs: val_score did not improve in 1 epochs" in capsys.readouterr().err


def test_more_epochs_go_on_from_where_a_run_ended(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    fit(config, "run")
    stopped(2, config, "run")
    assert "a larger --trainer.max_epochs than 3 goes on where that ended it" in capsys.readouterr().err
    stopped(2, config, "run", "--trainer.max_epochs", "2")
    assert "trainer.max_epochs = 3 there and 2 here" in capsys.readouterr().err
    with pytest.warns(UserWarning, match="max_epochs was 3 and is 4: from epoch 3 on the learning rate"):
        fit(config, "run", "--trainer.max_epochs", "4")
    assert (end("run")["by"], end("run")["epochs"], len(history("run"))) == ("max_epochs", 4, 4)
    saved = {
        name: yaml.safe_load(Path("run", name).read_text()) for name in ("config.yaml", "config_until_epoch_3.yaml")
    }
    assert [one["trainer"]["max_epochs"] for one in saved.values()] == [4, 3]


def test_a_killed_run_has_no_end_and_an_earlier_one_does_not_stand_for_it(
    config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StandIn, "interrupt_at", STEPS + 2)
    stopped(130, config, "run")
    assert end("run")["by"] == "interrupt"
    left = []

    def look(self: StandIn, *_: Any) -> None:
        left.append(Path("run", "summary.json").exists())

    monkeypatch.setattr(StandIn, "prepare", look)
    monkeypatch.setattr(StandIn, "interrupt_at", None)
    fit(config, "run")
    assert left == [False]
    assert end("run")["finished"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--trainer.check_val_every_n_epoch", "2"], "trainer.check_val_every_n_epoch must be 1: after every epoch"),
        (["--trainer.limit_val_batches", "0"], "trainer.limit_val_batches must be positive"),
        (["--trainer.limit_train_batches", "0"], "trainer.limit_train_batches must be positive"),
        (["--trainer.fast_dev_run", "true"], "trainer.fast_dev_run must be false"),
        (["--trainer.max_epochs", "0"], "trainer.max_epochs must be at least 1, got 0"),
    ],
)
def test_options_without_a_validation_are_refused_before_anything_is_written(
    config: str, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped(2, config, "run", *options)
    assert message in capsys.readouterr().err
    assert not Path("run").exists()


def test_a_monitor_that_is_not_measured_ends_the_run(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    stopped(2, config, "run", "--early_stopping.monitor", "val_accuracy")
    assert "val_accuracy must be measured in epoch 0, got no such metric (there are: train_loss, val_loss" in (
        capsys.readouterr().err
    )
    assert end("run")["by"] == "no_number"
