"""``ccnn resize``: a smaller run that ``test`` and ``predict`` take."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from pipelines_commands import refused
from test_pipelines_classification import QUIET, TINY

from ccnn_irregular.pipelines import cli

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
    assert json.loads((half / "summary.json").read_text())["resized"] == {"from": str(run), "ratio": 0.5}
    cli.main(["test", "--run_dir", str(half), *QUIET])
    assert json.loads((half / "test" / "metrics.json").read_text())["results"][0]["accuracy"] >= 0
    cli.main(["predict", "--run_dir", str(half), *QUIET])
    assert (half / "predictions.csv").is_file()
    assert f"output must be a folder that does not exist yet, got {half}" in refused(
        capsys, "resize", "--run_dir", str(run), "--ratio", "0.5"
    )


def test_what_cannot_be_resized_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "run_dir must be a folder of ccnn fit with best.ckpt, got absent" in refused(
        capsys, "resize", "--run_dir", "absent", "--ratio", "0.5"
    )
    assert "ratio must lie above 0, and at 1 at most, got 2.0" in refused(
        capsys, "resize", "--run_dir", "absent", "--ratio", "2"
    )
