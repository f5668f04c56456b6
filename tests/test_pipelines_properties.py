"""What holds for every task: answers, draws and scores do not depend on batches; nothing follows from test values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from pipelines_tasks import TASKS, Task, answers, fitted, new_model, read, trainer
from sklearn import metrics
from torch import Tensor

from ccnn_irregular.domains import Grid, Points
from ccnn_irregular.pipelines.tasks.cloud_segmentation.task import height_filter
from ccnn_irregular.pipelines.train.module import TaskModule
from ccnn_irregular.pipelines.train.registry import TASKS as COMMANDS
from ccnn_irregular.pipelines.train.registry import task_class
from ccnn_irregular.pipelines.train.series_network import SeriesEnsemble

EVERY = pytest.mark.parametrize("name", TASKS)
DRAWN = pytest.mark.parametrize("name", [name for name, task in TASKS.items() if task.draws])


def test_every_task_of_the_command_line_is_here() -> None:
    """By its module."""
    assert {task_class(name).module for name in COMMANDS} == {type(new_model(task)) for task in TASKS.values()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For the files of all tasks."""
    return tmp_path_factory.mktemp("tasks")


@pytest.fixture(scope="module")
def trained(folder: Path) -> Callable[[str], TaskModule]:
    """A model of each task after one epoch, made when it is first wanted."""

    @cache
    def one(name: str) -> TaskModule:
        return fitted(TASKS[name], read(TASKS[name], folder, 4), folder)

    return lambda name: deepcopy(one(name))


# ------------------------------------------------------------------------------------------------------------ answers


@EVERY
def test_answers_do_not_depend_on_the_size_of_the_batches(
    name: str, folder: Path, trained: Callable[[str], TaskModule]
) -> None:
    task, model = TASKS[name], trained(name)
    alone, together = (answers(model, task.tested(read(task, folder, size))) for size in (1, 64))
    assert len(alone) > 1
    assert float(together.std()) > 0
    # Sums over points are exact to a thousandth, by their rtol.
    torch.testing.assert_close(alone, together, rtol=2e-3, atol=2e-3 * float(together.abs().max()))


# -------------------------------------------------------------------------------------------------------------- draws


def pieces(batch: Any) -> list[tuple[Tensor, ...]]:
    """What is read of each sample of a batch."""
    if hasattr(batch, "observed"):
        cut = [one.splits.diff().tolist() for one in (batch.observed, batch.query)]
        columns = [
            (batch.observed.coordinates, cut[0]),
            (batch.values, cut[0]),
            (batch.query.coordinates, cut[1]),
            (batch.targets, cut[1]),
        ]
        return list(zip(*(values.split(counts) for values, counts in columns), strict=True))
    if hasattr(batch, "query"):
        grids = [torch.tensor([*grid.sizes, *grid.steps, *grid.starts]) for grid in (batch.grid, batch.query)]
        return [(batch.values, *grids)]
    if isinstance(batch.domain, Grid):
        return [(one,) for one in batch.values]
    assert isinstance(batch.domain, Points)
    counts = batch.domain.splits.diff().tolist()
    # Weights follow from the places, but for the order in which a batch is summed.
    return list(zip(batch.values.split(counts), batch.domain.coordinates.split(counts), strict=True))


def seen(task: Task, folder: Path, size: int, *, seed: int, epochs: int) -> list[Counter[bytes]]:
    """What the network has read of each training sample, epoch by epoch."""
    found: list[Counter[bytes]] = [Counter() for _ in range(epochs)]

    def watched() -> TaskModule:
        model = task.model()

        def keep(samples: list[tuple[Tensor, ...]]) -> None:
            if torch.is_grad_enabled():  # else it is prepared or validated
                read = (b"".join(one.detach().numpy().tobytes() for one in sample) for sample in samples)
                found[model.current_epoch].update(read)

        if isinstance(model.network, SeriesEnsemble):  # thins by itself, for each member
            for member in model.network.members:
                member.register_forward_pre_hook(lambda _, inputs: keep(pieces_of_stays(*inputs)))
        else:
            model.network.register_forward_pre_hook(lambda _, inputs: keep(pieces(inputs[0])))
        return model

    fitted(replace(task, model=watched), read(task, folder, size), folder, epochs=epochs, seed=seed)
    assert found[0]
    return found


def pieces_of_stays(values: Tensor, source: Points, statics: Tensor) -> list[tuple[Tensor, ...]]:
    counts = source.splits.diff().tolist()
    return list(zip(values.split(counts), source.coordinates.split(counts), statics, strict=True))


@DRAWN
def test_what_is_drawn_for_a_sample_follows_from_seed_epoch_and_sample(name: str, folder: Path) -> None:
    task = TASKS[name]
    small, large = (seen(task, folder, size, seed=0, epochs=2) for size in (2, 5))
    assert small == large
    # Seeds are not added: the second epoch of seed 0 is not the first one of seed 1.
    (other,) = seen(task, folder, 5, seed=1, epochs=1)
    assert large[0] != large[1] != other != large[0]


# ----------------------------------------------------------------------------------------------------------- leakage


@EVERY
def test_nothing_in_a_model_follows_from_the_values_of_the_test_part(
    name: str, folder: Path, trained: Callable[[str], TaskModule]
) -> None:
    """Normalisation, knots, covariances, calibration and trained weights, to the last bit."""
    task = TASKS[name]
    data = read(task, folder, 4)
    task.spoil(data, 1e6)
    plain, spoiled = trained(name).state_dict(), fitted(task, data, folder).state_dict()
    assert plain.keys() == spoiled.keys()
    for key, one in plain.items():
        # A spread that was not fitted is nan in both.
        assert not isinstance(one, Tensor) or torch.equal(one.nan_to_num(7e77), spoiled[key].nan_to_num(7e77)), key


def test_the_threshold_of_the_height_filter_follows_from_training_points(tmp_path: Path) -> None:
    task = TASKS["tile"]
    plain, spoiled = (read(task, tmp_path, 4) for _ in range(2))
    spoiled.parts["test"].coordinates[:, 2] = torch.linspace(0, 1e6, len(spoiled.parts["test"].values))
    assert height_filter(plain)[1] == height_filter(spoiled)[1]


# ------------------------------------------------------------------------------------------------------------- scores


def validated(model: TaskModule, data: Any, folder: Path) -> dict[str, float]:
    """What is logged of the validation part."""
    running = trainer(folder)
    running.validate(model, datamodule=data, verbose=False)
    return {key: float(value) for key, value in running.callback_metrics.items()}


@EVERY
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_validation_scores_do_not_depend_on_the_size_of_the_batches(
    name: str, folder: Path, trained: Callable[[str], TaskModule]
) -> None:
    task, model = TASKS[name], trained(name)
    single, data = (read(task, folder, size) for size in (1, 64))
    logits = answers(model, data.val_dataloader())
    alone, together = validated(model, single, folder), validated(model, data, folder)
    assert alone == pytest.approx(together, rel=1e-4, abs=1e-6)
    if name in ("tables", "stays"):
        labels, risks = torch.from_numpy(data.targets("validation")).long(), torch.sigmoid(logits[:, 0].double())
        assert together["val_score"] == pytest.approx(metrics.roc_auc_score(labels, risks), abs=1e-6)
        assert together["val_loss"] == pytest.approx(metrics.log_loss(labels, risks), rel=1e-4)
        return
    if name == "numbers":  # in standard deviations of the training labels
        scaled = model.network.scaled(torch.from_numpy(data.targets("validation")))
        assert together["val_loss"] == pytest.approx(metrics.mean_squared_error(scaled, logits[:, 0]), rel=1e-4)
        assert together["val_score"] == pytest.approx(1 - together["val_loss"], rel=1e-4)
        return
    # scikit-learn has no score of these: see test_pipelines_metrics
    if name in ("field", "stations", "downscale", "segmentation", "forecast"):
        return
    labels = torch.cat([batch.labels for batch in data.val_dataloader()])
    labels, logits = labels[labels >= 0], logits[labels >= 0]  # of clouds in pieces some points count elsewhere
    classes = range(len(data.classes))
    loss = metrics.log_loss(labels, logits.double().softmax(1), labels=classes)
    assert together["val_loss"] == pytest.approx(loss, rel=1e-4)
    if name in ("tile", "clouds"):
        wanted = metrics.jaccard_score(labels, logits.argmax(1), average="macro", zero_division=0)
        assert together["val_iou"] == pytest.approx(wanted, abs=1e-6)
    else:
        assert together["val_accuracy"] == pytest.approx(metrics.accuracy_score(labels, logits.argmax(1)), abs=1e-6)
