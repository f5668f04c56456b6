"""What a person reads: help in one screen, the nearest names of a mistyped option, what is missing or known."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from ccnn_irregular.pipelines import cli
from ccnn_irregular.pipelines.tasks.field.network import FieldNetwork
from ccnn_irregular.pipelines.tasks.field.task import FieldTask
from ccnn_irregular.pipelines.train.registry import TASKS

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:ccnn_irregular"),
]

STROKES = ["--config", "simulated_strokes", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
SMALL = ["--data.count", "60", "--model.network.init_args.hidden_channels", "4", "--trainer.max_epochs", "1",
         "--model.network.init_args.copies", "1", "--model.network.init_args.blocks", "1"]  # fmt: skip


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """Lines of the message of a command that ends with status 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    return capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(("periodic", "found"), [({}, False), ({"periodic": [True, False]}, [True, False])])
def test_a_configuration_of_ones_own_inherits_no_period(
    periodic: dict[str, list[bool]], found: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A region behind the configuration of a globe."""
    latent = {"class_path": "ccnn_irregular.Grid", "init_args": {"sizes": [5, 6], "steps": [1, 1], **periodic}}
    network = {"class_path": f"{FieldNetwork.__module__}.FieldNetwork", "init_args": {"latent": latent}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"model": {"network": network}}))
    taken = {}

    def instantiate(task: FieldTask) -> None:
        taken.update(task.config.fit.model.network.init_args.latent.as_dict())
        raise SystemExit

    monkeypatch.setattr(FieldTask, "instantiate_classes", instantiate)
    configs = ["--config", "field_era", "--config", str(tmp_path / "mine.yaml")]
    with pytest.raises(SystemExit):
        cli.main(["fit", *configs, "--run_dir", str(tmp_path / "run"), "--data.root", "cube.nc"])
    assert taken["sizes"] == [5, 6]
    assert taken["periodic"] == found


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("command", ["fit", "predict"])
def test_help_fits_on_a_screen(task: str, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main([command, "--task", task, "--help"])
    assert stopped.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 120
    shown = [line.split()[0] for line in lines if line.startswith("  --")]
    assert {"--run_dir", "--task", "--trainer.max_epochs", "--model.schedule.*"} <= set(shown)
    assert shown.index("--run_dir") < shown.index("--trainer.max_epochs")
    assert "--help-all" in lines[-2]


def test_help_shows_what_a_configuration_sets_and_all_options_are_behind_another_word(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["fit", "--config", "simulated_strokes", "--help"])
    shown = capsys.readouterr().out
    assert "--data.count [600]" in shown
    assert "hidden_channels 24" in shown
    with pytest.raises(SystemExit) as stopped:
        cli.main(["fit", "--config", "simulated_strokes", "--help-all"])
    assert stopped.value.code == 0
    assert "--trainer.accumulate_grad_batches" in capsys.readouterr().out
    cli.main(["--help"])
    assert "--config NAME --help" in capsys.readouterr().out


def test_nearest_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = refused(capsys, "fit", *STROKES, "--data.cuont", "3")
    assert len(lines) == 2
    assert "--data.cuont is no option of ccnn fit for the task classification; did you mean --data.count" in lines[0]
    lines = refused(capsys, "fit", *STROKES, "--model.network.init_args.hiden_channels", "3")
    assert len(lines) == 2
    assert "did you mean hidden_channels" in lines[0]
    own = tmp_path / "own.yaml"
    own.write_text("task: classification\ndata: {dataset: simulated_strokes, batchsize: 3}\n")
    lines = refused(capsys, "fit", "--config", str(own))
    assert len(lines) == 2
    assert "did you mean data.batch_size" in lines[0]


def test_what_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "--config NAME or FILE" in refused(capsys, "fit")[0]
    assert "--run_dir" in refused(capsys, "test")[0]
    lines = refused(capsys, "fit", "--run_dir", "mine", "--task", "forecast")
    assert len(lines) == 2
    assert "--data.dataset for the task forecast" in lines[0]
    capsys.readouterr()
    with pytest.raises(SystemExit):
        cli.main(["fit", "--run_dir", "mine"])
    assert "the task is series" in capsys.readouterr().out
    assert not any(tmp_path.iterdir())


def test_a_number_inside_another_option_may_be_null(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["fit", *STROKES, "--model.network.init_args.kernel.threshold=0.2",
                  "--model.network.init_args.kernel.threshold", "null", "--print_config"])  # fmt: skip
    assert stopped.value.code == 0
    kernel = yaml.safe_load(capsys.readouterr().out)["model"]["network"]["init_args"]["kernel"]
    assert kernel["threshold"] is None
    assert kernel["extent"] == [0.2]


def test_a_run_knows_its_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    cli.main(["fit", *STROKES, *SMALL, "--run_dir", "mine"])
    cli.main(["test", "--run_dir", "mine"])
    assert (tmp_path / "mine" / "test" / "metrics.json").is_file()
    cli.main(["predict", "--run_dir", "mine"])
    assert len((tmp_path / "mine" / "predictions.csv").read_text().splitlines()) == 61
    with pytest.warns(UserWarning, match="max_epochs was 1 and is 2"):
        cli.main(["fit", "--run_dir", "mine", "--trainer.max_epochs", "2"])
    assert torch.load("mine/last.ckpt", weights_only=True)["epoch"] == 1
