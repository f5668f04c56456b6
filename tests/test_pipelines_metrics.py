"""What each task logs in validation, for batches of any size, against scikit-learn and sums over everything at once."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from sklearn import metrics
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ccnn_irregular import KernelSpec
from ccnn_irregular.datasets.decathlon import Volume
from ccnn_irregular.domains import Grid, Points
from ccnn_irregular.pipelines.tasks.classification.data import SampleBatch
from ccnn_irregular.pipelines.tasks.classification.module import Classification
from ccnn_irregular.pipelines.tasks.cloud_segmentation.data import LabelBatch
from ccnn_irregular.pipelines.tasks.cloud_segmentation.module import CloudSegmentation
from ccnn_irregular.pipelines.tasks.cloud_segmentation.task import class_iou
from ccnn_irregular.pipelines.tasks.downscale.data import DownscalingBatch
from ccnn_irregular.pipelines.tasks.downscale.module import Downscaling
from ccnn_irregular.pipelines.tasks.downscale.network import DownscalingNetwork
from ccnn_irregular.pipelines.tasks.field.batch import FieldBatch
from ccnn_irregular.pipelines.tasks.field.kriging import FieldAxis
from ccnn_irregular.pipelines.tasks.field.module import FieldReconstruction
from ccnn_irregular.pipelines.tasks.field.network import FieldNetwork
from ccnn_irregular.pipelines.tasks.segmentation.batch import VolumeBatch
from ccnn_irregular.pipelines.tasks.segmentation.data import VolumeDataModule
from ccnn_irregular.pipelines.tasks.segmentation.module import Segmentation, _metric_names
from ccnn_irregular.pipelines.tasks.series.module import SeriesModel
from ccnn_irregular.pipelines.tasks.series.samples import Schema, SeriesBatch
from ccnn_irregular.pipelines.train.run_folder import History, RunFolder

SIZES = [1, 2, 7, 100]


class Given(nn.Module):
    """Logits that are part of the batch."""

    def __init__(self, classes: int = 1, in_channels: int = 1) -> None:
        super().__init__()
        self.classes, self.in_channels = classes, in_channels
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, batch: Any) -> Tensor:
        return batch.values


class GivenRisk(Given):
    schema = Schema(["x"], {}, "binary", ["0", "1"], "h", "numbers", "given")

    def forward(self, batch: Any) -> Tensor:
        return batch.statics


def validated(model: LightningModule, batches: list[Any], folder: Path) -> dict[str, float]:
    """What Lightning has logged at the end of a validation over the batches."""
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
    )
    trainer.validate(model, DataLoader(batches, batch_size=None), verbose=False)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def cut(total: int, size: int) -> list[Tensor]:
    """Rows in batches, the last one smaller."""
    return list(torch.arange(total).split(size))


def stays(logits: Tensor, labels: Tensor, rows: Tensor) -> SeriesBatch:
    nothing = torch.zeros(len(rows) + 1, dtype=torch.int64)
    known = (logits[rows, None], labels[rows].double(), torch.zeros(len(rows)), rows)
    return SeriesBatch(torch.zeros(0), torch.zeros(0, 1), nothing, *known)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("spread", [0.5, 3.0, 12.0])
def test_risks_are_ranked_as_scikit_learn_ranks_them(size: int, spread: float, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.rand(100, generator=generator) < 0.2
    logits = spread * torch.randn(100, generator=generator) + labels
    # Some batches lie in [0, 1], which is where a metric may take logits for probabilities.
    logits[::3] = torch.rand(34, generator=generator)
    found = validated(SeriesModel(GivenRisk()), [stays(logits, labels, rows) for rows in cut(100, size)], tmp_path)
    assert found["val_score"] == pytest.approx(metrics.roc_auc_score(labels, logits), abs=1e-6)
    risks = torch.sigmoid(logits.double())
    assert found["val_loss"] == pytest.approx(metrics.log_loss(labels, risks), rel=1e-5)


def test_a_part_with_one_outcome_alone_is_refused() -> None:
    def data(validation: list[int]) -> Any:
        labels = np.array([0.0, 1, 0, 1, 0, 0, 1])
        parts = {"train": labels[:4], "validation": labels[validation]}
        return SimpleNamespace(targets=parts.__getitem__)

    SeriesModel(GivenRisk()).require_trainable(data([5, 6]))
    with pytest.raises(ValueError, match=r"labels must differ in the validation part .*, got 2 alike"):
        SeriesModel(GivenRisk()).require_trainable(data([4, 5]))


@pytest.mark.parametrize("size", SIZES)
def test_classes_are_counted_as_scikit_learn_counts_them(size: int, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (100,), generator=generator)  # the fourth class is absent
    logits = torch.rand(100, 4, generator=generator)  # all in [0, 1]
    batches = [SampleBatch(logits[rows], Grid((1,), (1.0,)), labels[rows]) for rows in cut(100, size)]
    found = validated(Classification(Given(4)), batches, tmp_path)
    assert found["val_accuracy"] == pytest.approx(metrics.accuracy_score(labels, logits.argmax(1)), abs=1e-6)
    assert found["val_loss"] == pytest.approx(
        metrics.log_loss(labels, logits.double().softmax(1), labels=range(4)), rel=1e-5
    )


@pytest.mark.parametrize("size", SIZES)
def test_points_are_counted_as_scikit_learn_counts_them(size: int, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (100,), generator=generator)
    logits = torch.rand(100, 4, generator=generator) - torch.tensor([0.0, 0.0, 0.0, 9.0])  # class 3 is nowhere
    batches = [
        LabelBatch(logits[rows], Points(torch.zeros(len(rows), 3, dtype=torch.float64)), labels[rows])
        for rows in cut(100, size)
    ]
    found = validated(CloudSegmentation(Given(4)), batches, tmp_path)
    # Over the classes that are there or predicted: 0, 1 and 2.
    wanted = metrics.jaccard_score(labels, logits.argmax(1), labels=[0, 1, 2], average=None, zero_division=0)
    assert found["val_iou"] == pytest.approx(wanted.mean(), abs=1e-6)
    table = class_iou(logits.argmax(1).numpy(), labels.numpy(), 4)
    np.testing.assert_allclose(table, [*wanted, np.nan], atol=1e-6)


def test_dice_is_the_mean_over_volumes_and_over_labels_that_are_somewhere(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)

    class Stored(Given):
        answers: dict[str, Tensor]

        def forward(self, batch: VolumeBatch) -> Tensor:
            return nn.functional.one_hot(self.answers[batch.name], 4).movedim(-1, 0)[None].float()

    network, batches, wanted = Stored(4), [], []
    network.answers = {}
    for name, sizes in {"one": (5, 6, 7), "two": (3, 3, 3), "three": (1, 1, 1)}.items():
        labels, answer = torch.randint(0, 3, (2, *sizes), generator=generator)
        network.answers[name] = answer
        volume = Volume(name, torch.rand(1, *sizes), Grid(sizes, (1.0,) * 3), labels.to(torch.uint8))
        batches.append(VolumeBatch.of(volume))
        # F1 of a label against the rest is Dice; none where the label is neither there nor predicted.
        known = [one for one in (1, 2) if bool(((labels == one) | (answer == one)).any())]
        score = dict.fromkeys((1, 2), np.nan) | {
            one: metrics.f1_score(labels.flatten() == one, answer.flatten() == one) for one in known
        }
        wanted.append([score[1], score[2]])
    model = Segmentation(network)
    found = validated(model, batches, tmp_path)
    each = np.nanmean(wanted, axis=0)
    assert [found["val_dice_1"], found["val_dice_2"]] == pytest.approx(each.tolist(), abs=1e-6)
    # Label 3 is in no volume and was predicted in none: it has no Dice, and the mean is over the others.
    assert "val_dice_3" not in found
    assert found["val_dice"] == pytest.approx(each.mean(), abs=1e-6)


@pytest.mark.parametrize(
    ("classes", "names"),
    [
        (("background", "label 2", "label 41"), ["2", "41"]),
        (("background", "left lung", "heart"), ["left_lung", "heart"]),
        (("background", "left lung", "left_lung"), ["1", "2"]),  # a column each
    ],
)
def test_dice_of_a_label_is_called_by_its_name_or_its_code(classes: tuple[str, ...], names: list[str]) -> None:
    data = VolumeDataModule("absent", list(classes))
    assert _metric_names(data, 3) == names
    assert _metric_names(None, 3) == ["1", "2"]


def test_history_of_a_resumed_run_may_have_other_columns(tmp_path: Path) -> None:
    """An earlier version named them otherwise: none of them is lost."""
    history = History(RunFolder(tmp_path))
    history.rows = [{"epoch": 0, "val_dice_1": 0.5, "seconds": 1.0}]
    trainer = SimpleNamespace(current_epoch=1, callback_metrics={"val_dice_41": 0.75})
    history.on_train_epoch_end(trainer, None)
    lines = (tmp_path / "history.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "epoch,val_dice_1,seconds,val_dice_41"
    assert lines[1] == "0,0.5,1.0,"
    assert lines[2].endswith(",0.75")


@pytest.mark.parametrize("sizes", [[1] * 12, [5, 1, 6], [12]])
def test_errors_of_fields_are_means_over_places_by_their_areas(sizes: list[int], tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    places = torch.rand(40, 2, generator=generator, dtype=torch.float64)
    values = torch.randn(40, 1, generator=generator, dtype=torch.float64)
    weights = torch.rand(40, generator=generator, dtype=torch.float64)
    seen, asked = torch.arange(28), torch.arange(28, 40)
    network = FieldNetwork(1, [FieldAxis("y"), FieldAxis("x")], neighbours=8, correlation=[0.3])
    model = FieldReconstruction(network)

    def batch(rows: Tensor) -> FieldBatch:
        noise = torch.ones(28, 1, dtype=torch.float64)
        query = Points(places[rows])
        return FieldBatch(Points(places[seen]), values[seen], query, values[rows], rows, noise, weights[rows])

    bounds = list(itertools.accumulate(sizes, initial=0))
    found = validated(model, [batch(asked[a:b]) for a, b in itertools.pairwise(bounds)], tmp_path)
    errors = network.predict(batch(asked))[0] - values[asked]
    squares = errors.square()[:, 0].numpy()
    assert found["val_loss"] == pytest.approx(np.average(squares, weights=weights[asked].numpy()), rel=1e-5)
    assert found["val_score"] == -found["val_loss"]


@pytest.mark.parametrize("size", [1, 2, 5])
def test_skill_is_over_known_nodes_by_their_areas(size: int, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    source, query = Grid((8, 8), (2.0, 2.0)), Grid((15, 15), (1.0, 1.0))
    fine = torch.randn(5, 1, 15, 15, generator=generator)
    coarse = fine[:, :, ::2, ::2].clone()
    fine[torch.rand(fine.shape, generator=generator) < torch.linspace(0, 0.8, 5).reshape(-1, 1, 1, 1)] = torch.nan
    network = DownscalingNetwork(1, 4, 1, kernel=KernelSpec(extent=[4.0, 4.0], width=[2.0, 2.0], omega_0=2.0, hidden=4))
    network.residual.fill_(2.0)
    model = Downscaling(network)
    areas = torch.rand(5, 1, 15, 1, generator=generator)
    batches = [DownscalingBatch(coarse[r], fine[r], source, query, torch.ones(15, 15), areas[r]) for r in cut(5, size)]
    found = validated(model, batches, tmp_path)
    with torch.no_grad():
        answers = network.eval()(coarse, source, query)
        nn.init.zeros_(network.cnn.output.weight)
        nn.init.zeros_(network.cnn.output.bias)
        smooth = network(coarse, source, query)
    known = ~fine.isnan()
    weights = areas.expand(fine.shape)[known].numpy()
    squares = ((one - fine)[known].double().square().numpy() for one in (answers, smooth))
    mine, others = (np.average(one, weights=weights) for one in squares)
    assert found["val_loss"] == pytest.approx(mine / 4, rel=1e-5)
    assert found["val_skill"] == pytest.approx(1 - mine / others, rel=1e-4)

    # An answer that is no number is not left out of the mean.
    nn.init.constant_(network.cnn.output.bias, torch.nan)
    assert not np.isfinite(validated(model, batches, tmp_path)["val_loss"])
