"""Runs that are trained for all widths, and runs that begin with the weights of another."""

from __future__ import annotations

import csv
import signal
from pathlib import Path

import pytest
import torch
from pipelines_commands import history, refused
from test_pipelines_classification import NETWORK, QUIET, TINY

from ccnn_irregular.pipelines import cli
from ccnn_irregular.pipelines.tasks.classification.module import Classification
from ccnn_irregular.pipelines.train.opened import opened
from ccnn_irregular.pipelines.train.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("in_tmp_path")

CONFIG = ["--config", "simulated_strokes", "--data.count", "60", "--data.batch_size", "16", *TINY, *QUIET]
WIDE = ["--model.schedule.least_width", "0.4"]


def weights(run: str, name: str = "last") -> dict[str, torch.Tensor]:
    return torch.load(Path("runs", run, f"{name}.ckpt"), weights_only=True)["state_dict"]


def test_gradients_of_other_widths_are_added_and_nothing_else_changes() -> None:
    rate = ["--model.schedule.learning_rate", "1e-9", "--trainer.max_epochs", "1"]
    for run, options in (("plain", []), ("wide", WIDE)):
        cli.main(["fit", *CONFIG, *rate, *options, "--run_dir", f"runs/{run}"])
    # What is logged is of the full width, and so is the checkpoint.
    for one, other in zip(history("runs/plain"), history("runs/wide"), strict=True):
        assert {k: float(v) for k, v in one.items()} == pytest.approx({k: float(v) for k, v in other.items()}, rel=1e-4)
    plain, wide = weights("plain"), weights("wide")
    assert {name: value.shape for name, value in plain.items()} == {name: value.shape for name, value in wide.items()}
    for name in plain:  # statistics of norms are those of the full width
        torch.testing.assert_close(plain[name], wide[name], rtol=1e-5, atol=1e-5)
    # AdamW's first moments are means of gradients: those of the other widths are in them.
    last = [torch.load(Path("runs", run, "last.ckpt"), weights_only=True) for run in ("plain", "wide")]
    moments = [checkpoint["optimizer_states"][0]["state"][0]["exp_avg"] for checkpoint in last]
    assert (moments[1] - moments[0]).norm() > 0.1 * moments[0].norm()


def test_a_run_for_all_widths_resumes_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    config = [*CONFIG, *WIDE, f"{NETWORK}.dropout", "0.2", "--model.stretch", "0.1", "--trainer.max_epochs", "2"]
    cli.main(["fit", *config, "--trainer.max_epochs", "1", "--run_dir", "runs/first"])
    config += ["--start_from", "runs/first"]  # so channels are sorted
    cli.main(["fit", *config, "--run_dir", "runs/whole"])
    step, taken = Classification.training_step, []

    def stopped(module: Classification, batch: object, number: int) -> torch.Tensor:
        taken.append(number)
        if len(taken) == 6:  # one asks what the network reads, then three for each step: inside the second one
            signal.raise_signal(signal.SIGTERM)
        return step(module, batch, number)

    monkeypatch.setattr(Classification, "training_step", stopped)
    with pytest.raises(SystemExit):
        cli.main(["fit", *config, "--run_dir", "runs/parts"])
    monkeypatch.setattr(Classification, "training_step", step)
    assert torch.load("runs/parts/last.ckpt", weights_only=True)["global_step"] == 2
    cli.main(["fit", *config, "--run_dir", "runs/parts"])
    torch.testing.assert_close(weights("parts"), weights("whole"), rtol=0, atol=0)
    assert history("runs/parts") == history("runs/whole")


def test_a_run_begins_with_the_weights_of_another(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["fit", *CONFIG, "--trainer.max_epochs", "2", "--run_dir", "runs/first"])
    tiny = ["--model.schedule.learning_rate", "1e-9", "--trainer.max_epochs", "1"]
    for start in ("runs/first", "runs/first/best.ckpt"):
        cli.main(["fit", *CONFIG, *tiny, "--start_from", start, "--run_dir", f"runs/{len(start)}"])
        best = max(float(row["val_log_likelihood"]) for row in history("runs/first"))
        assert float(history(f"runs/{len(start)}")[0]["val_log_likelihood"]) == pytest.approx(best, rel=1e-2)
        start_weights, after = weights("first", "best"), weights(f"{len(start)}")
        for name in ("network.standardise.scale", "network.cnn.output.weight"):
            torch.testing.assert_close(start_weights[name], after[name], rtol=1e-5, atol=1e-6)
    told = refused(
        capsys, "fit", *CONFIG, "--data.split_seed", "5", "--start_from", "runs/first", "--run_dir", "runs/x"
    )
    assert "start_from must have been trained on the samples of this run, in the same parts" in told
    assert not Path("runs/x").exists()
    told = refused(
        capsys, "fit", *CONFIG, f"{NETWORK}.blocks", "2", "--start_from", "runs/first", "--run_dir", "runs/x"
    )
    assert "ckpt_path must hold the weights of the configured network, got runs/first/best.ckpt" in told
    told = refused(capsys, "fit", *CONFIG, "--start_from", "absent", "--run_dir", "runs/x")
    assert "got no file absent" in told


def test_a_sweep_measures_widths(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["fit", *CONFIG, *WIDE, "--trainer.max_epochs", "1", "--run_dir", "runs/a"])
    told = refused(capsys, "resize", "--run_dir", "runs/a", "--ratio", "0.5", "--tune", "-1")
    assert "tune must be a number of batches, 0 for none, got -1" in told
    rule = "ccnn resize must be given one of --ratio 0.5 and --sweep true, got"
    assert f"{rule} none" in refused(capsys, "resize", "--run_dir", "runs/a")
    both = ("--ratio", "0.5", "--sweep", "true")
    assert f"{rule} --ratio and --sweep" in refused(capsys, "resize", "--run_dir", "runs/a", *both)
    cli.main(["resize", "--run_dir", "runs/a", "--sweep", "true"])
    with Path("runs/a/sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    widths = ["100%", "90%", "80%", "70%", "60%", "50%", "40%", "30%", "25%"]
    assert [row["channels"] for row in rows] == ["as trained", *widths]
    assert Path("runs/a/sweep.png").is_file()
    sizes = [int(row["parameters"]) for row in rows]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < sizes[0]
    # The first row is the run itself, that at half what the resized run is validated with.
    cli.main(["resize", "--run_dir", "runs/a", "--ratio", "0.5"])
    assert "next: ccnn test --run_dir runs/a_0.5" in capsys.readouterr().out
    for run, row in (("runs/a", rows[0]), ("runs/a_0.5", rows[6])):
        cli.main(["validate", "--run_dir", run])
        assert f"{float(row['val_loss']):.4f}"[:5] in capsys.readouterr().out


def test_tuned_places_make_a_smaller_run_better_and_leave_its_weights() -> None:
    config = ["--config", "simulated_shapes", "--data.count", "200", *QUIET, "--trainer.max_epochs", "3"]
    cli.main(["fit", *config, "--run_dir", "runs/a"])
    losses = []
    for name, options in (("fixed", []), ("tuned", ["--tune", "40"])):
        cli.main(["resize", "--run_dir", "runs/a", "--ratio", "0.5", "--output", f"runs/{name}", *options])
        model, data = opened(RunFolder(Path("runs", name)))
        data.setup("fit")
        with torch.no_grad():
            found = [torch.nn.functional.cross_entropy(model(b), b.labels).item() for b in data.loader("validation")]
        losses.append(sum(found) / len(found))
    assert losses[1] < losses[0] - 0.05
