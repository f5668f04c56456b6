"""Training that is broken off inside an epoch: nothing is lost but the time since the last checkpoint, to the bit."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import seed_everything
from pipelines_commands import fit, stopped, write_config
from pipelines_stand_in import StandIn
from pipelines_tasks import TASKS, new_model, read, trainer

from ccnn_irregular.datasets import simulated_icu
from ccnn_irregular.pipelines.train import mid_epoch
from ccnn_irregular.pipelines.train.mid_epoch import MidEpoch, Signals
from ccnn_irregular.pipelines.train.run_end import TimeLimit
from ccnn_irregular.pipelines.train.run_folder import EpochSeed

pytestmark = pytest.mark.usefixtures("in_tmp_path")

EPOCHS, STEPS = 2, 3  # of the run, and of an epoch


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("mid_epoch")
    simulated_icu.write(folder / "simulated", stays=80, seed=5)
    return write_config(folder / "tiny.yaml", folder / "simulated", trainer={"max_epochs": EPOCHS})


def checkpoint(run: str) -> dict[str, Any]:
    return torch.load(Path(run, "last.ckpt"), weights_only=True)


def ended(run: str) -> str:
    return json.loads(Path(run, "summary.json").read_text())["end"]["by"]


def same(run: str, other: str) -> None:
    """Weights, the optimiser and the metrics of every epoch are equal, bit by bit."""
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "global_step"):
        torch.testing.assert_close(checkpoint(run)[part], checkpoint(other)[part], rtol=0, atol=0)
    tables = []
    for folder in (run, other):
        with Path(folder, "history.csv").open() as file:
            tables.append([{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)])
    assert tables[0] == tables[1]


def at_step(monkeypatch: pytest.MonkeyPatch, steps: set[int], number: int) -> None:
    """Send a signal to the process in the middle of these training steps of a process."""
    forward = StandIn.forward

    def signalled(network: StandIn, batch: Any) -> torch.Tensor:
        answer = forward(network, batch)
        if network.training and network.steps in steps:
            signal.raise_signal(number)
        return answer

    monkeypatch.setattr(StandIn, "forward", signalled)


@pytest.mark.parametrize("step", [1, 2, STEPS + 1, STEPS + 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_ends_after_the_batch_and_the_run_goes_on_there(
    config: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    step: int,
    number: Any,
) -> None:
    fit(config, "whole")
    at_step(monkeypatch, {step}, number)
    before = signal.getsignal(number)
    stopped({signal.SIGTERM: 143, signal.SIGINT: 130}[number], config, "parts")
    assert signal.getsignal(number) is before
    assert "the same command resumes" in capsys.readouterr().out
    assert checkpoint("parts")["global_step"] == step
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    fit(config, "parts")
    same("parts", "whole")


def test_kills_inside_the_first_epoch_make_progress(
    config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(config, "whole")
    at_step(monkeypatch, {1}, signal.SIGTERM)  # each process does one step
    for step in range(1, STEPS):
        stopped(143, config, "parts")
        assert checkpoint("parts")["global_step"] == step
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    fit(config, "parts")
    same("parts", "whole")


def test_a_signal_does_not_wait_for_a_batch_without_end(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mid_epoch, "_GRACE", 0.2)
    forward = StandIn.forward
    begun = []

    def endless(network: StandIn, batch: Any) -> torch.Tensor:
        if network.training and network.steps == 1:
            begun.append(time.monotonic())
            signal.raise_signal(signal.SIGTERM)
            time.sleep(60)
        return forward(network, batch)

    monkeypatch.setattr(StandIn, "forward", endless)
    stopped(143, config, "run")
    assert time.monotonic() - begun[0] < 30
    assert ended("run") == "termination"


def test_sigusr1_saves_and_training_goes_on(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fit(config, "whole")
    saved = []
    save = MidEpoch.save
    monkeypatch.setattr(MidEpoch, "save", lambda self, one: (saved.append(one.global_step), save(self, one)))
    at_step(monkeypatch, {2}, signal.SIGUSR1)
    fit(config, "asked")
    assert saved == [2]
    assert ended("asked") == "max_epochs"
    same("asked", "whole")


def test_a_time_limit_inside_the_first_epoch_is_no_loss(
    config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(config, "whole")
    monkeypatch.setattr(TimeLimit, "is_up", lambda self: True)
    for step in (1, 2):
        fit(config, "parts", "--trainer.max_time", "00:00:00:01")
        assert (ended("parts"), checkpoint("parts")["global_step"]) == ("time_limit", step)
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    fit(config, "parts")
    same("parts", "whole")


def test_sigkill_loses_what_came_after_the_last_checkpoint_alone(config: str, tmp_path: Path) -> None:
    fit(config, "whole")
    code = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pipelines_stand_in import StandIn
from ccnn_irregular.pipelines import cli
from ccnn_irregular.pipelines.train import mid_epoch
mid_epoch.EVERY = 0.0
forward = StandIn.forward
def killed(network, batch):
    if network.training and network.steps == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return forward(network, batch)
StandIn.forward = killed
cli.main(sys.argv[1:])
"""
    command = [sys.executable, "-c", code, "fit", "--config", config, "--run_dir", str(tmp_path / "parts")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert checkpoint("parts")["global_step"] == 2
    fit(config, "parts")
    same("parts", "whole")


class BrokenOff(Exception):
    """Raised after the checkpoint was written."""


class _Breaking(MidEpoch):
    """Saves after the first batch of the second epoch, and leaves."""

    state_key = MidEpoch.__name__

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if trainer.current_epoch == 1 and batch_idx == 0:
            self.save(trainer)
            raise BrokenOff


@pytest.mark.parametrize("name", TASKS)
def test_every_task_goes_on_inside_an_epoch(name: str, tmp_path: Path) -> None:
    """What is drawn, shuffled and gathered after the break is what it would have been."""
    task = TASKS[name]
    (tmp_path / "files").mkdir()
    data = read(task, tmp_path / "files", 2)
    path = tmp_path / "some.ckpt"
    found = []
    for kind in ("whole", "broken", "resumed"):
        model = new_model(task)
        saving = _Breaking(path, Signals()) if kind == "broken" else MidEpoch(path, Signals())
        training = trainer(tmp_path, 2)
        training.callbacks += [EpochSeed(3), saving]
        seed_everything(3, verbose=False)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*does not have many workers.*")
            warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.* is deprecated.*")
            warnings.filterwarnings("ignore", category=UserWarning, module="ccnn_irregular")
            where = {"ckpt_path": path, "weights_only": True} if kind == "resumed" else {}
            if kind == "broken":
                with pytest.raises(BrokenOff):
                    training.fit(model, datamodule=data)
                continue
            training.fit(model, datamodule=data, **where)
        found.append((model.state_dict(), training.callback_metrics))
    (weights, metrics), (resumed_weights, resumed_metrics) = found
    for one, other in ((weights, resumed_weights), (metrics, resumed_metrics)):
        assert one.keys() == other.keys()
        for part, value in one.items():
            if isinstance(value, torch.Tensor):
                torch.testing.assert_close(value, other[part], rtol=0, atol=0, equal_nan=True, msg=part)
            else:
                assert value == other[part], part
