"""Schedule, weight decay, and what a checkpoint holds when the module is trained from Python."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from pipelines_stand_in import STAYS, StandIn

from ccnn_irregular.datasets import simulated_icu
from ccnn_irregular.pipelines.tasks.series.data import SeriesTables
from ccnn_irregular.pipelines.tasks.series.module import SeriesModel
from ccnn_irregular.pipelines.train.schedule import Schedule


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SeriesTables:
    root = tmp_path_factory.mktemp("simulated")
    simulated_icu.write(root, stays=120, seed=1)
    return SeriesTables(
        str(root),
        source="physionet2012",
        source_options={"cache": False, "progress": False},
        batch_size=32,
        validation=0.25,
    )


def trainer(folder: Path, **options) -> Trainer:
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    return Trainer(default_root_dir=folder, accelerator="cpu", num_sanity_val_steps=0, **quiet | options)


def test_a_checkpoint_from_python_loads_with_weights_only(data: SeriesTables, tmp_path: Path) -> None:
    model = SeriesModel(StandIn(**STAYS), Schedule(learning_rate=0.01))
    fit = trainer(tmp_path, max_epochs=2, callbacks=[EMAWeightAveraging(decay=0.5)])
    fit.fit(model, datamodule=data)
    path = tmp_path / "model.ckpt"
    fit.save_checkpoint(path)
    content = torch.load(path, weights_only=True)
    assert "hyper_parameters" not in content  # both are objects
    again = SeriesModel.load_from_checkpoint(path, network=StandIn(**STAYS))
    batch = next(iter(data.val_dataloader()))
    torch.testing.assert_close(again.eval()(batch), model.eval()(batch), rtol=0, atol=0)
    # The normalisation travels with the weights: it is that of the training stays, not the initial one.
    torch.testing.assert_close(again.network.mean, torch.nan_to_num(_training_mean(data)))


def _training_mean(data: SeriesTables) -> torch.Tensor:
    return data.samples.batch(torch.from_numpy(data.indices("train"))).values.nanmean(0)


def test_training_needs_an_end_and_a_data_module(data: SeriesTables, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="max_epochs must be set"):
        trainer(tmp_path, max_epochs=-1).fit(SeriesModel(StandIn(**STAYS)), datamodule=data)
    data.setup("fit")
    with pytest.raises(ValueError, match="fit must be given a data module"):
        trainer(tmp_path, max_epochs=1).fit(
            SeriesModel(StandIn(**STAYS)), data.train_dataloader(), data.val_dataloader()
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate must be positive, got 0.0"),
        ({"weight_decay": -1.0}, "weight_decay must not be negative, got -1.0"),
        ({"warmup_epochs": -1.0}, "warmup_epochs must not be negative, got -1.0"),
        ({"final_share": 2.0}, r"final_share must be in \[0, 1\], got 2.0"),
    ],
)
def test_bad_options(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SeriesModel(StandIn(**STAYS), Schedule(**options))
