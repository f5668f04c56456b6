"""Two trainings in one run folder: the second one is refused, and changes nothing."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest
import torch
from pipelines_commands import refused
from test_pipelines_classification import QUIET, TINY

from ccnn_irregular.pipelines import cli
from ccnn_irregular.pipelines.tasks.classification.module import Classification
from ccnn_irregular.pipelines.train.alone import alone

pytestmark = pytest.mark.usefixtures("in_tmp_path")

CONFIG = ["--config", "simulated_strokes", "--data.count", "60", "--run_dir", "run", *TINY, *QUIET]


def contents() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path("run").iterdir()}


def test_a_second_training_is_refused_and_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step, told = Classification.training_step, []

    def another(module: Classification, batch: object, number: int) -> torch.Tensor:
        if module.current_epoch == 1 and not told:
            monkeypatch.setattr(Classification, "training_step", step)
            before = contents()
            for options in ([], ["--restart", "true"]):
                told.append(refused(capsys, "fit", *CONFIG, "--trainer.max_epochs", "2", *options))
            assert contents() == before
        return step(module, batch, number)

    monkeypatch.setattr(Classification, "training_step", another)
    cli.main(["fit", *CONFIG, "--trainer.max_epochs", "2"])
    wanted = "run_dir must be trained in by one process at a time (wait for it, or name another folder), got run"
    assert all(wanted in text for text in told)
    assert len(told) == 2
    assert Path("run/summary.json").is_file()
    with pytest.warns(UserWarning, match="max_epochs was 2 and is 3"):  # the folder is free again
        cli.main(["fit", *CONFIG, "--trainer.max_epochs", "3"])


@pytest.mark.parametrize(
    "named", [["--config", "series", "--data.table", "none.csv", "--data.labels", "none.csv"], CONFIG[:4]]
)
def test_a_folder_that_is_taken_is_refused_before_data_are_read(
    named: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with alone(Path("run")):
        said = refused(capsys, "fit", *named, "--run_dir", "run", *QUIET)
    assert "run_dir must be trained in by one process at a time" in said
    assert "none.csv" not in said


def test_a_file_system_without_locks_is_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*arguments: object) -> None:
        raise OSError(95, os.strerror(95))

    monkeypatch.setattr(fcntl, "flock", unknown)
    with alone(Path("run")), alone(Path("run")):
        assert Path("run").is_dir()


def test_further_processes_of_a_run_are_not_kept_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with alone(Path("run")):
        monkeypatch.setenv("LOCAL_RANK", "1")
        with alone(Path("run")):
            pass
