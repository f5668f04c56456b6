"""Every option of Lightning's trainer that users set works, or is refused before training with the reason."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from jsonargparse import Namespace

from ccnn_irregular.datasets import simulated_icu
from ccnn_irregular.pipelines import cli
from ccnn_irregular.pipelines.train.trainer_options import require_options

# Lightning calls jsonargparse by names that its version 5 will no longer have.
pytestmark = [
    pytest.mark.filterwarnings(r"ignore:\s*By default only one Jsonargparse:DeprecationWarning"),
    pytest.mark.filterwarnings(r"ignore:[\s\S]*removed in\s+v5\.0\.0:DeprecationWarning"),
]
DEFAULTS = {"max_epochs": 2, "precision": None, "check_val_every_n_epoch": 1, "num_nodes": 1}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("simulated")
    simulated_icu.write(root / "stays", stays=40, seed=5)
    options = {
        "trainer": {"max_epochs": 2, "accelerator": "cpu", "enable_progress_bar": False},
        "model": {"network": {"class_path": "pipelines_stand_in.StandIn"}, "schedule": {"learning_rate": 0.01}},
        "early_stopping": {"patience": 100},
        "data": {
            "table": str(root / "stays"),
            "source": "physionet2012",
            "source_options": {"cache": False, "progress": False},
            "validation": 0.25,
            "batch_size": 8,
        },
    }
    (root / "tiny.yaml").write_text(yaml.safe_dump(options))
    return str(root / "tiny.yaml")


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    handler = signal.getsignal(signal.SIGINT)
    deterministic = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(deterministic)
    torch.autograd.set_detect_anomaly(False)
    signal.signal(signal.SIGINT, handler)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "options",
    [
        "limit_train_batches=2 limit_val_batches=1 num_sanity_val_steps=2 log_every_n_steps=1",
        "limit_train_batches=0.5 val_check_interval=0.5 deterministic=true inference_mode=false",
        "accumulate_grad_batches=2 gradient_clip_val=0.5 gradient_clip_algorithm=value precision=bf16-mixed",
        "max_steps=3 min_epochs=1 profiler=simple benchmark=true detect_anomaly=true",
        "max_time=00:01:00:00 min_steps=3 reload_dataloaders_every_n_epochs=1 enable_model_summary=true",
        "use_distributed_sampler=false callbacks=EMAWeightAveraging logger=true",
    ],
)
def test_what_users_set_works(options: str, config: str) -> None:
    words = [f"--trainer.{one}" for one in options.split()]
    cli.main(["fit", "--config", config, "--run_dir", "run", *words])
    assert json.loads(Path("run", "summary.json").read_text())["end"]["finished"]
    assert Path("run", "best.ckpt").is_file()


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("fast_dev_run", True, "be false"),
        ("fast_dev_run", 3, "make a short run"),
        ("overfit_batches", 1, "must not be what chooses"),
        ("overfit_batches", 0.5, "must not be what chooses"),
        ("barebones", True, "leave out checkpoints"),
        ("enable_checkpointing", False, "be true"),
        ("check_val_every_n_epoch", 2, "be 1"),
        ("check_val_every_n_epoch", None, "be 1"),
        ("limit_test_batches", 1, "be left out: every row"),
        ("limit_predict_batches", 0.5, "be left out: every row"),
        ("limit_val_batches", 0, "be positive"),
        ("limit_train_batches", 0, "be positive"),
        ("num_nodes", 2, "one process on one device"),
        ("default_root_dir", "elsewhere", "--run_dir names"),
        ("max_epochs", 0, "be at least 1"),
        ("max_epochs", -1, "be at least 1"),
        ("max_steps", 0, "be at least 1"),
        ("max_steps", -2, "be at least 1"),
        ("accumulate_grad_batches", 0, "be at least 1"),
        ("log_every_n_steps", 0, "be at least 1"),
        ("gradient_clip_val", -1.0, "be positive"),
        ("precision", "64-true", "positions and quadrature weights are float64"),
    ],
)
def test_what_no_run_can_follow_is_refused_with_the_reason(option: str, value: object, reason: str) -> None:
    require_options(Namespace(**DEFAULTS))
    with pytest.raises(ValueError, match=rf"trainer\.{option} must .*{reason}"):
        require_options(Namespace(**DEFAULTS | {option: value}))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--trainer.callbacks", "StochasticWeightAveraging", "--trainer.callbacks.swa_lrs", "0.01"], "EMAWeightAver"),
        (["--trainer.callbacks", "LearningRateFinder"], "--model.schedule.learning_rate"),
        (["--trainer.callbacks", "LearningRateMonitor"], "must go with each other and with a run"),
        (["--trainer.devices", "2"], "trainer.devices must be 1"),
        (["--trainer.barebones", "true"], "trainer.barebones must be false"),
        (["--trainer.val_check_interval", "70"], "val_check_interval"),
    ],
)
def test_what_does_not_go_together_is_no_traceback(
    words: list[str], reason: str, config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["fit", "--config", config, "--run_dir", "run", *words])
    assert stop.value.code == 2
    assert reason in capsys.readouterr().err
    assert not Path("run", "last.ckpt").exists()


@pytest.mark.filterwarnings("ignore")
def test_averaged_weights_are_those_of_the_checkpoint(config: str) -> None:
    """The average of all steps, decayed by 0.5 a step: not what the last step left."""
    words = ["--trainer.callbacks", "EMAWeightAveraging", "--trainer.callbacks.decay", "0.5"]
    cli.main(["fit", "--config", config, "--run_dir", "averaged", *words])
    cli.main(["fit", "--config", config, "--run_dir", "plain"])
    averaged, plain = (torch.load(f"{run}/last.ckpt", weights_only=True) for run in ("averaged", "plain"))
    name = "network.body.0.weight"
    assert not torch.equal(averaged["state_dict"][name], plain["state_dict"][name])
    torch.testing.assert_close(averaged["current_model_state"][name], plain["state_dict"][name])
