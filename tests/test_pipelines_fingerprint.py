"""What a run was trained on: files and outcomes that were changed since are refused, or told in a line."""

from __future__ import annotations

import csv
import dataclasses
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pipelines_stand_in import StandIn
from pipelines_tasks import TASKS, new_model, read, write_tables

from ccnn_irregular.pipelines import cli
from ccnn_irregular.pipelines.train.fingerprint import changed_files, write_fingerprint
from ccnn_irregular.pipelines.train.trained_on import ENTRY, TrainedOn

# Lightning calls jsonargparse by names that its version 5 will no longer have.
pytestmark = [
    pytest.mark.filterwarnings(r"ignore:\s*By default only one Jsonargparse:DeprecationWarning"),
    pytest.mark.filterwarnings(r"ignore:[\s\S]*removed in\s+v5\.0\.0:DeprecationWarning"),
]
QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu", "--trainer.max_epochs", "2"]


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)


def one_label_changed(path: Path) -> None:
    rows = list(csv.reader(path.read_text().splitlines()))
    column = rows[0].index("label") if "label" in rows[0] else -1
    values = sorted({row[column] for row in rows[1:]})
    rows[1][column] = next(value for value in values if value != rows[1][column])
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def test_a_run_whose_labels_were_changed_is_not_carried_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table, labels = write_tables(tmp_path)
    run = ["--run_dir", "run", *QUIET, "--model.network.class_path", "pipelines_stand_in.StandIn"]
    run += ["--data.table", str(table), "--data.labels", str(labels), "--data.validation", "0.25"]
    monkeypatch.setattr(StandIn, "interrupt_at", 6)
    with pytest.raises(SystemExit):
        cli.main(["fit", "--task", "series", *run, "--data.batch_size", "8"])
    monkeypatch.setattr(StandIn, "interrupt_at", None)
    before = labels.read_bytes()
    one_label_changed(labels)
    capsys.readouterr()
    with pytest.raises(SystemExit):
        cli.main(["fit", "--task", "series", *run, "--data.batch_size", "8"])
    message = capsys.readouterr().err
    assert "run_dir run must hold a run whose files are what it began with (--restart true" in message
    assert f"{labels.name} has other contents" in message

    labels.write_bytes(before)
    cli.main(["fit", "--task", "series", *run, "--data.batch_size", "8"])
    capsys.readouterr()
    cli.main(["predict", "--run_dir", "run"])
    assert "have changed since" not in capsys.readouterr().out
    one_label_changed(labels)
    cli.main(["predict", "--run_dir", "run"])
    told = f"note: the files have changed since the training: {labels.name} has other contents"
    assert told in " ".join(capsys.readouterr().out.split())


def test_files_are_compared_by_content_and_new_ones_are_let_be(tmp_path: Path) -> None:
    folder = tmp_path / "scans"
    (folder / "deeper").mkdir(parents=True)
    large = np.random.default_rng(0).bytes(700_000)
    (folder / "deeper" / "a.nii").write_bytes(large)
    (folder / "b.nii").write_bytes(b"123")
    data: dict[str, Any] = {"root": str(folder), "labels": None, "table": ["nowhere.csv"], "batch_size": 3}
    write_fingerprint(tmp_path / "data.json", data)
    assert changed_files(tmp_path / "data.json", data) == []
    (folder / "c.nii").write_bytes(b"new")
    (folder / ".hidden").write_bytes(b"new")
    assert changed_files(tmp_path / "data.json", data) == []
    assert changed_files(tmp_path / "nothing.json", data) == []
    assert changed_files(tmp_path / "data.json", {"root": str(tmp_path)}) == []  # another source

    (folder / "b.nii").write_bytes(b"124")
    assert changed_files(tmp_path / "data.json", data) == ["b.nii has other contents"]
    (folder / "b.nii").write_bytes(b"1234")
    (folder / "deeper" / "a.nii").write_bytes(large[:-1] + bytes([large[-1] ^ 1]))
    changed = ["b.nii had 3 bytes and has 4", "deeper/a.nii has other contents"]
    assert sorted(changed_files(tmp_path / "data.json", data)) == changed
    (folder / "b.nii").unlink()
    assert f"b.nii of {folder} is gone" in changed_files(tmp_path / "data.json", data)


def _spoil_outcomes(data: Any) -> bool:
    """Change one outcome in memory of a data module; False where the values themselves are what is learned."""
    if hasattr(data, "_read") and hasattr(data._read, "labels"):
        data._read.labels[data._parts.train[0]] += 1
    elif hasattr(data, "_pools"):
        labels = data._pools["train"].labels
        labels[data._parts["train"][0]] = 1 - labels[data._parts["train"][0]].clamp(max=1)
    elif hasattr(data, "_volumes"):
        number = data.part("train")[0]
        data._volumes[number].labels[0] = 1 - data._volumes[number].labels[0].clamp(max=1)
        data._keys.clear()
    elif hasattr(data, "samples") and hasattr(data.samples, "targets"):
        row = data.indices("train")[0]
        targets = data.samples.targets.copy()
        targets[row] = 1 - targets[row]
        object.__setattr__(data.samples, "targets", targets)  # a frozen one
    elif isinstance(getattr(data, "parts", None), dict) and isinstance(data.parts["train"], list):
        data.parts["train"][0].labels[0] += 1
    elif isinstance(getattr(data, "parts", None), dict):
        data.parts["train"].labels[0] = 1 - data.parts["train"].labels[0].clamp(max=1)
    elif hasattr(data, "parts") and hasattr(data.parts, "known"):
        row = data.parts.known("train").nonzero()[0]
        data.samples.values[row] += 1
    else:
        return False
    return True


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.filterwarnings("ignore")
def test_another_outcome_of_one_row_is_noticed(name: str, tmp_path: Path) -> None:
    data = read(TASKS[name], tmp_path, 2)
    before = TrainedOn.of(data)
    again = TrainedOn.from_checkpoint({ENTRY: before.state()}, "a.ckpt")
    assert again == dataclasses.replace(again, outcomes=before.outcomes)
    assert before.same_outcomes(TrainedOn.of(data))
    older = TrainedOn.from_checkpoint({ENTRY: {**before.state(), "outcomes": None}}, "a.ckpt")
    assert before.same_outcomes(older)  # of a version that kept none
    if not _spoil_outcomes(data):
        assert name in ("downscale", "forecast")  # values alone are learned, and keys are made of them
        return
    model = new_model(TASKS[name])
    model.trained_on = before
    with pytest.raises(ValueError, match=r"must be what the run began with \(--restart true"):
        model.note_rows(data)


def test_runs_inside_the_folder_of_the_data_are_none_of_the_data(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x\n1\n")
    runs = [tmp_path / "runs" / name for name in ("first", "second")]
    for run in runs:
        run.mkdir(parents=True)
        (run / "config.yaml").write_text("{}")
        write_fingerprint(run / "data.json", {"root": str(tmp_path)})
    for run in runs:
        (run / "history.csv").write_text("epoch\n0\n")
        (run / "config.yaml").write_text("{a: 1}")
    for run in runs:
        assert changed_files(run / "data.json", {"root": str(tmp_path)}) == []
    (tmp_path / "a.csv").write_text("x\n2\n")
    assert changed_files(runs[0] / "data.json", {"root": str(tmp_path)}) == ["a.csv has other contents"]
