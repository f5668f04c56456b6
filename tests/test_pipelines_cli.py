"""``ccnn`` from end to end on a tiny simulated cohort: train, interrupt, resume, test, predict, and what it refuses."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser
from pipelines_commands import history, refused, write_config
from pipelines_stand_in import StandIn

from ccnn_irregular.datasets import simulated_icu
from ccnn_irregular.pipelines import cli, demo
from ccnn_irregular.pipelines.tasks.series.module import SeriesModel
from ccnn_irregular.pipelines.train import run as training_cli
from ccnn_irregular.pipelines.train.arguments import Words, join_lists

pytestmark = pytest.mark.usefixtures("in_tmp_path")

EPOCHS = 3
SETS = ["--data.source_options.sets", "[a, b]"]
FIGURES = [
    *("calibration.png", "kernels.png", "mistakes.png", "precision_recall.png", "receptive_fields.png", "roc.png"),
    "series.png",
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("simulated")
    simulated_icu.write(root, stays=100, seed=5, sets=("a", "b"))
    return root


@pytest.fixture
def config(root: Path, tmp_path: Path) -> str:
    """A configuration file named tiny.yaml."""
    data = {"source_options": {"sets": ["a"], "cache": False, "progress": False}}
    return write_config(tmp_path / "tiny.yaml", root, seed_everything=3, trainer={"max_epochs": EPOCHS}, data=data)


def test_train_test_predict(config: str, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["fit", "--config", config, *SETS])
    run = tmp_path / "runs" / "tiny"
    names = {path.name for path in run.iterdir()}
    kept = {"config.yaml", "data.json", "history.csv", "summary.json", "training.png"}
    assert names == kept | {"best.ckpt", "last.ckpt"}
    assert len(history("runs/tiny")) == EPOCHS
    assert yaml.safe_load((run / "config.yaml").read_text())["data"]["source_options"]["sets"] == ["a", "b"]
    summary = json.loads((run / "summary.json").read_text())
    assert summary["epochs"] == EPOCHS
    assert summary["best"]["val_score"] == max(float(row["val_score"]) for row in history("runs/tiny"))

    # Held-out stays: the default checkpoint is the best one.
    assert "10 of each are needed" in capsys.readouterr().out
    cli.main(["test", "--config", config, *SETS])
    printed = capsys.readouterr().out
    folder = run / "test"
    report = json.loads((folder / "metrics.json").read_text())
    assert report["n"] == 50
    assert report["checkpoint"] == "runs/tiny/best.ckpt"
    assert report["seed"] == 3
    assert report["calibration"] is None
    assert "the risks of runs/tiny/best.ckpt are not calibrated" in printed
    assert f"{report['metrics']['auroc']['value']:.3f}" in printed
    assert sorted(path.name for path in folder.glob("*.png")) == FIGURES
    assert all(str(Path("runs/tiny", folder.name, name)) in printed for name in FIGURES)

    # The configuration that the run keeps serves the other commands as well.
    cli.main(["test", "--config", str(run / "config.yaml"), "--output", "again"])
    again = json.loads((tmp_path / "again" / "metrics.json").read_text())
    assert again["metrics"]["auroc"] == report["metrics"]["auroc"]

    # A hidden set in another folder, without outcomes: it can be predicted, not tested.
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "set-b").symlink_to(root / "set-b", target_is_directory=True)
    data = ["--data.table", str(hidden), "--data.source_options.sets", "[b]"]
    cli.main(["predict", "--config", config, *data, "--output", "risks.csv"])
    lines = Path("risks.csv").read_text().splitlines()
    assert lines[0] == "id,prediction,probability_0,probability_1"
    assert len(lines) == 101
    message = refused(capsys, "test", "--config", config, *data, "--data.evaluate", "all")
    assert "must hold Outcomes-b.txt" in message
    message = refused(capsys, "predict", "--config", config, *data, "--data.evaluate", "test")
    assert "must hold Outcomes-b.txt" in message

    # With its outcomes every stay of it is evaluated, from another run folder too, and a stay can be named.
    (hidden / "Outcomes-b.txt").symlink_to(root / "Outcomes-b.txt")
    everything = [*data, "--data.evaluate", "all", "--run_dir", "elsewhere", "--output", "out"]
    named = ["--ckpt_path", str(run / "last.ckpt"), "--test.series", lines[5].split(",")[0]]
    message = refused(capsys, "test", "--config", config, *everything, *named)
    assert "of 100 series that were trained on" in message
    everything += ["--allow_overlap", "true"]
    cli.main(["test", "--config", config, *everything, *named, "--test.resamples", "50"])
    report = json.loads(Path("out/metrics.json").read_text())
    assert report["overlap"]["tested"] == 100
    assert 0 < report["overlap"]["trained_on"] < 100
    assert report["n"] == 100
    assert report["bootstrap"]["resamples"] == 50
    assert report["data"]["table"] == str(hidden)
    message = refused(capsys, "test", "--config", config, *everything, *named[:2], "--test.series", "7")
    assert "test.series must be one of the 100 series that were read, got '7'" in message

    capsys.readouterr()
    cli.main(["validate", "--config", config, *SETS])
    assert "val_score" in capsys.readouterr().out

    # What the command line trained can be loaded from Python as it is.
    model = SeriesModel.load_from_checkpoint(run / "best.ckpt", map_location="cpu")
    assert isinstance(model.network, StandIn)
    assert float(model.network.mean.abs().sum()) > 0
    assert torch.load(run / "best.ckpt", weights_only=True)["hyper_parameters"]["schedule"]["learning_rate"] == 0.01

    # A checkpoint of something else is named as such.
    Path("text.ckpt").write_text("no checkpoint")
    message = refused(capsys, "test", "--config", config, "--ckpt_path", "text.ckpt")
    assert "ckpt_path must be a checkpoint written by ccnn fit, and undamaged, got text.ckpt" in message
    content = torch.load(run / "best.ckpt", weights_only=True)
    del content["state_dict"]["network.mean"]
    torch.save(content, "other.ckpt")
    message = refused(capsys, "test", "--config", config, *SETS, "--ckpt_path", "other.ckpt")
    assert "ckpt_path must hold the weights of the configured network, got other.ckpt" in message


def test_an_interrupted_run_resumes_to_the_same_result(
    config: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["fit", "--config", config, "--run_dir", "runs/whole"])
    steps_an_epoch = 4
    monkeypatch.setattr(StandIn, "interrupt_at", 2 * steps_an_epoch)  # in the second epoch
    with pytest.raises(SystemExit) as stopped:
        cli.main(["fit", "--config", config, "--run_dir", "runs/parts"])
    assert stopped.value.code == 130
    printed = capsys.readouterr().out
    assert "not finished: interrupted by Ctrl-C" in printed
    assert "1 epoch is in runs/parts; the same command resumes" in printed
    assert len(history("runs/parts")) == 1

    # What was saved is a usable checkpoint.
    cli.main(["test", "--config", config, "--run_dir", "runs/parts"])

    # Other options are refused, and the options that differ are named.
    different = ["--model.schedule.learning_rate", "0.02", "--data.batch_size", "8"]
    message = refused(capsys, "fit", "--config", config, "--run_dir", "runs/parts", *different)
    assert "data.batch_size = 16 there and 8 here; model.schedule.learning_rate = 0.01 there and 0.02 here" in message

    # The same ones resume, in a folder that was moved too, and end where the uninterrupted run ended.
    monkeypatch.setattr(StandIn, "interrupt_at", None)
    Path("runs/parts").rename("runs/moved")
    capsys.readouterr()
    cli.main(["fit", "--config", config, "--run_dir", "runs/moved"])
    assert "resuming from runs/moved/last.ckpt" in capsys.readouterr().out
    assert history("runs/moved") == history("runs/whole")
    for name in ("best.ckpt", "last.ckpt"):
        weights = [torch.load(f"runs/{run}/{name}", weights_only=True)["state_dict"] for run in ("moved", "whole")]
        torch.testing.assert_close(*weights, rtol=0, atol=0)

    # A finished run is not trained on by accident, but can be set aside.
    message = refused(capsys, "fit", "--config", config, "--run_dir", "runs/moved")
    assert "must hold no finished run" in message
    cli.main(["fit", "--config", config, "--run_dir", "runs/moved", "--restart", "true", "--trainer.max_epochs", "1"])
    assert len(history("runs/moved")) == 1
    assert len(history("runs/moved.old-1")) == EPOCHS


def test_ctrl_c_in_a_terminal(config: str, tmp_path: Path) -> None:
    """The signal itself, sent to the process of the command."""
    code = (
        f"import signal, sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        # A shell starts what runs in its background with the signal ignored, and that is inherited.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from ccnn_irregular.pipelines.cli import main; main()"
    )
    # Without an end of its own: neither the number of epochs nor early stopping may come before the signal.
    endless = ["--trainer.max_epochs", "3000", "--early_stopping.patience", "3000"]
    command = [sys.executable, "-u", "-c", code, "fit", "--config", config, "--plugins", "pipelines_stand_in", *endless]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path
    ) as process:
        assert process.stdout is not None
        printed = ""
        for line in process.stdout:
            printed += line
            if line.startswith("epoch 1:"):
                process.send_signal(signal.SIGINT)
                break
        printed += process.stdout.read()
        status = process.wait(timeout=60)
    assert status == 130, printed
    assert "the same command resumes" in printed, printed
    assert "Traceback" not in printed, printed
    torch.load(tmp_path / "runs" / "tiny" / "last.ckpt", weights_only=True)


def test_averaged_weights_are_what_is_saved(config: str) -> None:
    options = yaml.safe_load(Path(config).read_text())
    average = {"class_path": "lightning.pytorch.callbacks.EMAWeightAveraging", "init_args": {"decay": 0.9}}
    options["trainer"]["callbacks"] = [average]
    Path("averaged.yaml").write_text(yaml.safe_dump(options))
    cli.main(["fit", "--config", "averaged.yaml"])
    cli.main(["test", "--config", "averaged.yaml"])
    content = torch.load("runs/averaged/last.ckpt", weights_only=True)
    name = "network.body.0.weight"
    assert (content["state_dict"][name] != content["current_model_state"][name]).any()


def test_input_that_is_refused(config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = {
        ("fit", "--config", "physionet"): "got 'physionet'; did you mean physionet2012",
        ("fit", "--config", "serie"): "config must be a YAML file or a name that ccnn --help lists, got 'serie'; "
        "did you mean series",
        ("fit", "--config", "zzz"): "got 'zzz'\n",
        ("fit", "--config", config, "--data.table", "nowhere"): "root must be an existing folder, got nowhere",
        (
            "fit",
            "--config",
            config,
            "--data.source_options.sets",
            "[d]",
        ): "sets must be different ones of ('a', 'b', 'c')",
        (
            "fit",
            "--config",
            config,
            "--model.schedule.learning_rate",
            "-1",
        ): "schedule.learning_rate must be positive, got -1.0",
        ("fit", "--config", config, "--model.learning_rat", "1"): "learning_rat",
        ("test", "--config", config): "ckpt_path must be a trained checkpoint, got no file runs/tiny/best.ckpt",
        ("predict", "--config", config, "--ckpt_path", "no.ckpt"): "got no file no.ckpt",
        (
            "nonsense",
        ): "the command must be one of fit, validate, test, predict, resize, export, baseline, inspect, info",
        ("simulate", "data", "--stays", "0"): "stays must lie in 1..100000, got 0",
    }
    for arguments, message in cases.items():
        assert message in refused(capsys, *arguments)
    assert not (tmp_path / "runs").exists()


def test_the_traceback_is_there_for_who_wants_it(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CCNN_TRACEBACK", "1")
    with pytest.raises(FileNotFoundError):
        cli.main(["test", "--config", config])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--data.sets", "a", "b", "--x", "1"], ["--data.sets", '["a", "b"]', "--x", "1"]),
        (["--data.sets", "a"], ["--data.sets", '["a"]']),
        (["--data.sets=a", "b"], ["--data.sets", '["a", "b"]']),
        (["--data.sets=[a,b]"], ["--data.sets", "[a,b]"]),
        (["--data.sets", "[a, b]", "--w=2"], ["--data.sets", "[a, b]", "--w=2"]),
        (["--other", "a", "b", "--flag="], ["--other", "a", "b", "--flag="]),
        (["--y", "1", "2"], ["--y", "[1, 2]"]),
        (["--y", "3"], ["--y", "[3]"]),
        (["--y", "null"], ["--y", "null"]),
        (["--z", "true"], ["--z", "true"]),
        (["--z", "0", "1"], ["--z", "[0, 1]"]),
    ],
)
def test_lists_may_be_words(given: list[str], expected: list[str]) -> None:
    parser = ArgumentParser(exit_on_error=False)
    for name, kind in (
        ("--data.sets", tuple[str, ...]),
        ("--x", int),
        ("--y", list[int] | None),
        ("--z", bool | list[int]),
    ):
        parser.add_argument(name, type=kind)
    assert join_lists(given, parser) == expected


def test_configurations_are_found_by_name_and_by_path(config: str) -> None:
    packaged = str(cli.CONFIGS / "physionet2012.yaml")
    assert cli.packaged_configs(["fit", "--config", "physionet2012"]) == ["fit", "--config", packaged]
    assert cli.packaged_configs(["fit", "--config=physionet2012"]) == ["fit", f"--config={packaged}"]
    assert cli.packaged_configs(["fit", "-c", config]) == ["fit", "-c", config]
    assert cli.packaged_configs(["fit", "--config"]) == ["fit", "--config"]


def test_help_lists_the_commands_without_loading_lightning() -> None:
    code = (
        "import sys\nfrom ccnn_irregular.pipelines.cli import main\nmain(['--help'])\n"
        "print([name for name in ('lightning', 'sklearn', 'matplotlib', 'h5py') if name in sys.modules])"
    )
    started = time.monotonic()
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=True)
    assert time.monotonic() - started < 60
    for command in cli.COMMANDS:
        assert f"\n  {command}" in process.stdout
    assert process.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict", "baseline", "simulate", "demo"])
def test_every_command_explains_its_options(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main([command, "--help-all" if command in ("fit", "validate", "test", "predict") else "--help"])
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    wanted = {"simulate": ["--stays"], "demo": ["--folder"], "baseline": ["--data.table", "--trees.seeds"]}
    for option in wanted.get(
        command, ["--data.table", "--model.schedule.learning_rate", "--trainer.max_epochs", "--run_dir"]
    ):
        assert option in printed


def test_warnings_are_printed_without_their_place_in_the_code(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def warned(arguments: list[str]) -> None:
        for category in (UserWarning, DeprecationWarning):
            print(warnings.formatwarning("look here", category, "some/file.py", 7), file=sys.stderr, end="")

    monkeypatch.setitem(cli.COMMANDS, "info", (warned, ""))
    cli.main(["info"])
    assert capfd.readouterr().err == "ccnn: warning: look here\nsome/file.py:7: DeprecationWarning: look here\n"
    assert warnings.formatwarning("look here", UserWarning, "some/file.py", 7) != "ccnn: warning: look here\n"


def test_the_demonstration_ends_with_what_to_type_for_ones_own_table(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[list[str]] = []
    monkeypatch.setattr(training_cli, "run", ran.append)
    monkeypatch.chdir(tmp_path)
    demo.run(["--folder", "demo", "--stays", "3"])
    assert [arguments[0] for arguments in ran] == ["fit", "test"]
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 120
    typed = [line.split("#")[0].split() for line in lines if line.startswith("  ccnn")]
    assert all(words[1] in cli.COMMANDS for words in typed)
    assert all("physionet2012" in words for words in typed[:4])
    assert lines[-5].startswith("For a table of your own (id, time, variable, value")
    assert [words[1] for words in typed[4:]] == ["inspect", "fit", "test", "predict"]
    assert {"--data.table", "--data.labels"} < set(typed[5])


def test_run_dir_of_configurations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Typed, else the last configuration that sets it, else the last stem; a run's own file means where it lies."""
    monkeypatch.chdir(tmp_path)
    for name, text in (("s", "run_dir: runs/from_yaml\n"), ("t", "run_dir: runs/later\n"), ("u", "task: series\n")):
        Path(f"{name}.yaml").write_text(text, encoding="utf-8")
    moved = Path("moved")
    moved.mkdir()
    (moved / "config.yaml").write_text("run_dir: runs/before\n", encoding="utf-8")
    (moved / "last.ckpt").touch()
    for command in ("fit", "validate", "test", "predict"):
        for words, folder in (
            ("--config u.yaml", "runs/u"),
            ("--config s.yaml", "runs/from_yaml"),
            ("--config s.yaml --config u.yaml", "runs/from_yaml"),
            ("--config s.yaml --config t.yaml", "runs/later"),
            ("--config s.yaml --run_dir typed", "typed"),
            ("--config moved/config.yaml", "moved"),
            ("--run_dir moved", "moved"),
        ):
            known = Words.of([command, *words.split()])
            assert known.tested_run.path == Path(folder), words
            assert known.with_options_of_run()[-1] == f"--run_dir={folder}", words
    Path("v.yaml").write_text("run_dir: 3\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"run_dir in v\.yaml must name a folder, got 3"):
        _ = Words.of(["fit", "--config", "v.yaml"]).tested_run


def test_a_second_demonstration_sets_the_first_one_aside(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(training_cli, "run", lambda arguments: None)
    monkeypatch.chdir(tmp_path)
    for _ in range(3):
        demo.run(["--folder", "demo", "--stays", "3"])
    assert "the earlier demo is now demo.old-2" in capsys.readouterr().out
    assert all(Path(name, "simulated_cohort").is_dir() for name in ("demo", "demo.old-1", "demo.old-2"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").touch()
    with pytest.raises(ValueError, match="folder must be that of an earlier demo, or not be there, got mine"):
        demo.run(["--folder", "mine"])
