"""Configurations and checkpoints of a stranger: what they may name, and how much they may ask for."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pipelines_commands import refused
from pipelines_stand_in import StandIn

from ccnn_irregular.datasets import simulated_icu
from ccnn_irregular.pipelines import cli

# A module that only notes that its code ran.
NOTED = "import pathlib\npathlib.Path({note!r}).write_text('its code ran')\n"
NETWORK = """
from pipelines_stand_in import StandIn


class Own(StandIn):
    pass
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("simulated")
    simulated_icu.write(root, stays=60, seed=5)
    return root


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


def options(root: Path, class_path: str = f"{StandIn.__module__}.StandIn", **more: Any) -> dict[str, Any]:
    return {
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False} | more.pop("trainer", {}),
        "model": {"network": {"class_path": class_path}, "schedule": {"learning_rate": 0.01}},
        "data": {
            "table": str(root),
            "source": "physionet2012",
            "source_options": {"cache": False, "progress": False},
            "validation": 0.25,
            "batch_size": 16,
        },
    } | more


def written(content: dict[str, Any]) -> str:
    Path("own.yaml").write_text(yaml.safe_dump(content))
    return "own.yaml"


@pytest.fixture
def stranger(tmp_path: Path, request: pytest.FixtureRequest) -> tuple[str, Path]:
    """A module that nobody named, and the note it leaves where its code runs."""
    name, note = f"stranger_{request.node.name.partition('[')[0]}", tmp_path / "note.txt"
    Path(f"{name}.py").write_text(NOTED.format(note=str(note)) + NETWORK)
    return name, note


def test_classes_of_other_modules_are_refused_before_they_are_imported(
    root: Path, stranger: tuple[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    name, note = stranger
    places: list[dict[str, Any]] = [
        options(root, f"{name}.Own"),
        options(root, trainer={"callbacks": [{"class_path": f"{name}.Own"}]}),
        options(root, trainer={"logger": {"class_path": f"{name}.Own"}}),
        options(root, trainer={"strategy": {"class_path": f"{name}.Own"}}),
    ]
    for content in places:
        message = refused(capsys, "fit", "--config", written(content))
        assert f"{name}.Own" in message
        assert not note.exists()
        assert name not in sys.modules
    assert "--plugins MODULE or FILE.py" in refused(capsys, "fit", "--config", written(places[0]))
    assert not Path("runs").exists()


def test_any_value_is_no_class_to_be_called(root: Path, stranger: tuple[str, Path]) -> None:
    """An option that takes any value hands a class path on as the words it is."""
    from jsonargparse import ArgumentParser

    from ccnn_irregular.pipelines.train.trusted import known_classes_only

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--any", type=Any)
    value = {"class_path": f"{stranger[0]}.Own", "init_args": {}}
    with known_classes_only():
        found = parser.instantiate(parser.parse_object({"any": value}))
    assert not isinstance(found.any, torch.nn.Module)
    assert not stranger[1].exists()


@pytest.mark.parametrize(
    "trainer",
    [
        {"callbacks": [{"class_path": "lightning.pytorch.callbacks.LambdaCallback"}]},
        {"callbacks": [{"class_path": "lightning.pytorch.callbacks.lambda_function.LambdaCallback"}]},
        {"logger": {"class_path": "lightning.pytorch.loggers.WandbLogger"}},
        {"logger": {"class_path": "lightning.pytorch.loggers.mlflow.MLFlowLogger"}},
    ],
    ids=lambda value: str(value)[-30:],
)
def test_callers_of_functions_and_of_servers_are_refused(
    root: Path, trainer: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(capsys, "fit", "--config", written(options(root, trainer=trainer)))
    assert "takes classes of ccnn_irregular" in message


def test_known_callbacks_and_loggers_are_taken(root: Path) -> None:
    trainer = {
        "log_every_n_steps": 1,
        "callbacks": [{"class_path": "EarlyStopping", "init_args": {"monitor": "val_loss"}}],
        "logger": {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "logged"}},
    }
    cli.main(["fit", "--config", written(options(root, trainer=trainer)), "--run_dir", "known"])
    assert Path("known", "best.ckpt").is_file()
    assert list(Path("logged").rglob("metrics.csv"))


def test_plugins_are_typed_and_no_configuration_asks_for_them(
    root: Path, stranger: tuple[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    name, note = stranger
    config = written(options(root, f"{name}.Own"))
    assert "no_such_module" in refused(capsys, "fit", "--config", config, "--plugins", "no_such_module")
    assert "where there is no file" in refused(capsys, "fit", "--config", config, "--plugins", "nowhere.py")
    asking = written(options(root, f"{name}.Other", plugins=[name]))
    refused(capsys, "fit", "--config", asking)
    assert not note.exists()

    config = written(options(root, f"{name}.Own"))
    cli.main(["fit", "--config", config, "--plugins", f"{name}.py", "--run_dir", "run"])
    assert note.exists()
    cli.main(["predict", "--run_dir", "run", "--plugins", name, "--output", "risks.csv"])
    assert Path("risks.csv").is_file()


def test_a_checkpoint_names_no_other_class_and_no_size_of_its_own(
    root: Path, stranger: tuple[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    name, note = stranger
    cli.main(["fit", "--config", written(options(root)), "--run_dir", "run"])
    content = torch.load("run/best.ckpt", weights_only=True)

    def with_network(**changes: Any) -> None:
        hyper = content["hyper_parameters"]
        torch.save(content | {"hyper_parameters": hyper | {"network": hyper["network"] | changes}}, "run/best.ckpt")

    with_network(class_path=f"{name}.Own")
    message = refused(capsys, "predict", "--run_dir", "run")
    assert f"got {name}.Own" in message
    assert not note.exists()

    with_network(init_args={"hidden": 10**11})
    message = refused(capsys, "predict", "--run_dir", "run")
    assert "describe a network that fits its own weights" in message
    assert "run/best.ckpt of 0." in message
    assert "100000000000" in message

    torch.save(content, "run/best.ckpt")
    cli.main(["predict", "--run_dir", "run"])
