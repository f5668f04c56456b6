"""``ccnn resize``: a smaller run that ``test`` and ``predict`` take."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from pipelines_commands import refused
from pipelines_tasks import write_tables
from test_pipelines_classification import QUIET, TINY

from ccnn_irregular._reprs import parameter_count
from ccnn_irregular.pipelines import cli
from ccnn_irregular.pipelines.train.opened import opened
from ccnn_irregular.pipelines.train.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("in_tmp_path")


def test_a_run_is_resized_tested_and_predicts(capsys: pytest.CaptureFixture[str]) -> None:
    config = ["--config", "simulated_strokes", "--data.count", "60", "--trainer.max_epochs", "1", *TINY, *QUIET]
    cli.main(["fit", *config])
    run = Path("runs/simulated_strokes")
    capsys.readouterr()
    cli.main(["resize", "--run_dir", str(run), "--ratio", "0.5"])
    told = capsys.readouterr().out
    half = Path("runs/simulated_strokes_0.5")
    assert str(half) in told
    assert re.search(r"^network\.cnn\.stem\.pointwise +4 +8 ", told, re.MULTILINE)
    config = yaml.safe_load((half / "config.yaml").read_text())
    assert config["model"]["network"]["init_args"]["hidden_channels"] == 4
    summary = json.loads((half / "summary.json").read_text())
    assert summary["resized"] == {"from": str(run), "ratio": 0.5, "tuned_by_batches": 0}
    assert "best" not in summary  # the full network's
    cli.main(["test", "--run_dir", str(half), *QUIET])
    assert json.loads((half / "test" / "metrics.json").read_text())["results"][0]["accuracy"] >= 0
    cli.main(["predict", "--run_dir", str(half), *QUIET])
    assert (half / "predictions.csv").is_file()
    assert f"output must be a folder that does not exist yet, got {half}" in refused(
        capsys, "resize", "--run_dir", str(run), "--ratio", "0.5"
    )


def test_a_resized_run_is_trained_further_as_another_one(capsys: pytest.CaptureFixture[str]) -> None:
    config = ["--data.count", "60", "--trainer.max_epochs", "1", *QUIET]
    cli.main(["fit", "--config", "simulated_strokes", *config, *TINY, "--run_dir", "runs/a"])
    cli.main(["resize", "--run_dir", "runs/a", "--ratio", "0.5"])
    told = refused(capsys, "fit", "--run_dir", "runs/a_0.5", "--trainer.max_epochs", "3")
    assert "(train this one further by --start_from runs/a_0.5 --run_dir NEW), got one of ccnn resize" in told
    half = ["--config", "runs/a_0.5/config.yaml", "--start_from", "runs/a_0.5", "--run_dir", "runs/b"]
    cli.main(["fit", *half, *config])
    network = yaml.safe_load(Path("runs/b/config.yaml").read_text())["model"]["network"]
    assert network["init_args"]["hidden_channels"] == 4


def test_a_run_of_series_is_resized(tmp_path: Path) -> None:
    table, labels = write_tables(tmp_path)
    data = ["--data.table", str(table), "--data.labels", str(labels), "--data.validation", "0.25"]
    sizes = ["--model.network.init_args.members", "2", "--model.network.init_args.hidden_channels", "8"]
    fit = ["fit", "--config", "series", *data, *sizes, "--trainer.max_epochs", "1", *QUIET, "--run_dir", "runs/s"]
    cli.main([*fit, "--model.schedule.least_width", "0.5"])
    cli.main(["resize", "--run_dir", "runs/s", "--ratio", "0.5", "--tune", "2"])
    cli.main(["test", "--run_dir", "runs/s_0.5", *QUIET])
    before, after = (opened(RunFolder(Path("runs", name)))[0].network for name in ("s", "s_0.5"))
    assert parameter_count(after) < parameter_count(before)


def test_what_cannot_be_resized_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "run_dir must be a folder of ccnn fit with best.ckpt, got absent" in refused(
        capsys, "resize", "--run_dir", "absent", "--ratio", "0.5"
    )
    assert "ratio must lie above 0, and at 1 at most, got 2.0" in refused(
        capsys, "resize", "--run_dir", "absent", "--ratio", "2"
    )
