"""Tasks and masks of users: what is wrong is said before work is done, and a mistyped command blocks nothing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from torch import nn

from ccnn_irregular import KernelSpec
from ccnn_irregular.kernels import MASKS, register_mask
from ccnn_irregular.pipelines import cli
from ccnn_irregular.pipelines.tasks.classification.module import Classification
from ccnn_irregular.pipelines.tasks.classification.task import ClassificationTask
from ccnn_irregular.pipelines.tasks.segmentation.module import Segmentation
from ccnn_irregular.pipelines.train import registry
from ccnn_irregular.pipelines.train.data import TaskData
from ccnn_irregular.pipelines.train.module import TaskModule
from ccnn_irregular.pipelines.train.registry import register, task_class

NETWORK = "--model.network.init_args"
QUICK = [
    *(
        "--config",
        "simulated_strokes",
        "--data.count",
        "40",
        "--trainer.max_epochs",
        "1",
        "--trainer.accelerator",
        "cpu",
    ),
    *("--trainer.enable_progress_bar", "false", f"{NETWORK}.hidden_channels", "4", f"{NETWORK}.blocks", "1"),
]


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forgets tasks that a test registers."""
    monkeypatch.setattr(registry, "_registered", {})


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def failed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    return capsys.readouterr().err


def make(curve: str = "val_loss") -> type[ClassificationTask]:
    class Mine(ClassificationTask):
        task = "mine"
        curves = (("loss", curve, "validation", "--"),)

    return Mine


def test_a_task_defined_again_replaces_the_one_of_before(own: None) -> None:
    register(make())
    again = register(make())
    assert task_class("mine") is again
    other = type("Other", (ClassificationTask,), {"task": "mine"})
    for task in (other, type("Third", (ClassificationTask,), {"task": "series"})):
        with pytest.raises(ValueError, match=r"name must be"):
            register(task)
    with pytest.raises(
        ValueError, match=r"task must be one of .*, mine, or one whose module is imported first, got 'none'"
    ):
        task_class("none")


def test_a_curve_that_is_not_measured_ends_training_after_an_epoch(
    own: None, inside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    register(make(curve="valloss"))
    message = failed(capsys, "fit", *QUICK, "--task", "mine", "--run_dir", "mine")
    assert "valloss must be measured in epoch 0, got no such metric" in message


def test_a_data_module_says_what_it_must_implement() -> None:
    class Empty(TaskData[None, None]):
        def loader(self, part: object, variant: None = None) -> None:  # type: ignore[override]
            return None

    rule = "Empty must implement keys, sizes, typical_batch, part_sizes, summary, see TaskData"
    with pytest.raises(NotImplementedError, match=rule):
        Empty().sizes()


def test_options_that_failed_before_the_first_epoch_do_not_block_their_folder(
    inside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = failed(
        capsys, "fit", *QUICK, "--run_dir", "run", "--model.norm_penalty", "1.0", f"{NETWORK}.latent", "null"
    )
    assert "norm_penalty must be 0 without a grid" in message
    cli.main(["fit", *QUICK, "--run_dir", "run"])
    assert (inside / "run" / "best.ckpt").is_file()


def test_a_folder_without_a_run_is_named(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("validate", "test", "predict"):
        message = failed(capsys, command, "--run_dir", "runs/none")
        assert "run_dir runs/none must be a folder of ccnn fit" in message


def test_what_makes_no_mask_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(MASKS, "rectified", raising=False)
    register_mask("rectified", lambda width: nn.ReLU())
    with pytest.raises(
        ValueError, match=r"kernel\.mask must name a function or class that makes a Mask, got 'rectified': ReLU"
    ):
        KernelSpec(extent=3.0, width=1.0, mask="rectified")(2)
    del MASKS["rectified"]


class Bare(nn.Module):
    """A network that tells nothing about itself."""


class WithClasses(Bare):
    classes = 2


def test_a_network_without_what_its_task_asks_for_is_refused() -> None:
    """The attribute and the page that tells of it, in place of an AttributeError."""
    asked = r"the network Bare must have the attribute 'classes' \(docs/extending\.md, A new network, .*got none"
    for module in (Classification, Segmentation):
        with pytest.raises(ValueError, match=asked):
            module(Bare())
    data = SimpleNamespace(sizes=lambda: {"classes": 2, "in_channels": 1}, typical_batch=list, training_values=list)
    model = Classification(WithClasses())
    with pytest.raises(ValueError, match="must have the attribute 'in_channels'"):
        model.require_fits(data)
    with pytest.raises(ValueError, match="must have the attribute 'prepare'"):
        TaskModule.prepare(model, data)
    assert "## A new network" in (Path(__file__).parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")
