"""Training of a network of series without a run folder: the best epoch is kept in memory."""

from __future__ import annotations

import copy
import logging
import warnings
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping

from ccnn_irregular.pipelines.tasks.series.data import SeriesTables
from ccnn_irregular.pipelines.tasks.series.module import SeriesModel
from ccnn_irregular.pipelines.train.progress import OneLine

__all__ = ["train_in_memory"]


def train_in_memory(
    model: SeriesModel, data: SeriesTables, *, max_epochs: int, patience: int, verbose: bool
) -> tuple[int, float]:
    """Train a model, give it the weights of its best epoch, and calibrate it.

    Args:
        model: on the CPU afterwards, in evaluation mode.
        data: set up for training.
        max_epochs: passes over the training series.
        patience: epochs without a gain on the validation series before training stops.
        verbose: print progress and what was calibrated.

    Returns:
        Number of epochs that were trained, and the best score of the validation series.

    Raises:
        ValueError: parts without several labels.
    """
    model.require_trainable(data)
    best = _BestWeights()
    stopping = EarlyStopping("val_score", patience=patience, mode="max")
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    levels = {name: logging.getLogger(name).level for name in ("lightning.pytorch", "lightning.fabric")}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.* is deprecated.*")
        warnings.filterwarnings("ignore", ".*number of training batches.*is smaller than the logging interval.*")
        for name in levels:
            logging.getLogger(name).setLevel(logging.WARNING)
        trainer = Trainer(
            max_epochs=max_epochs,
            gradient_clip_val=1.0,
            devices=1,
            num_sanity_val_steps=0,
            enable_progress_bar=verbose,
            callbacks=[stopping, best, *([OneLine()] if verbose else [])],
            **quiet,
        )
        trainer.fit(model, datamodule=data)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
    model.network.load_state_dict(best.weights)
    model.cpu().eval()
    told = model.calibrate(data)
    if verbose:
        print(told)
    return trainer.current_epoch, best.score


class _BestWeights(Callback):
    """Keeps the weights of the best epoch in memory."""

    def __init__(self) -> None:
        self.score = -np.inf
        self.weights: dict[str, Any] = {}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        score = float(trainer.callback_metrics["val_score"])
        if score > self.score or not self.weights:
            self.score = score
            network: Any = pl_module.network
            self.weights = copy.deepcopy(network.state_dict())
