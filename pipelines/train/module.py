"""What all Lightning modules share: optimiser, schedule, what is saved."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from ccnn_irregular._checks import reject, require
from ccnn_irregular.optimisation import parameter_groups, warmup_cosine
from ccnn_irregular.pipelines.train.draws import Draws
from ccnn_irregular.pipelines.train.trained_on import ENTRY, KeyedData, TrainedOn

__all__ = ["TrainedNetwork", "timed"]


class TrainedNetwork(LightningModule):
    """A network trained with AdamW, warm-up and cosine, whose checkpoints load with ``weights_only=True``.

    A subclass calls ``save_plain_hyperparameters(network)`` in its constructor. What it changes at random in a sample
    it takes from ``draws``.

    Args:
        network: what is trained.
        learning_rate: peak of the schedule.
        weight_decay: of AdamW; vectors (biases, norms, widths) and masks are exempt.
        warmup_epochs: linear rise before the cosine, in epochs.
        final_share: share of the peak learning rate that is left at the end.
        mask_rate: learning rate of the masks relative to the others', see ``parameter_groups``.
        decay_generators: decay the matrices of the generators too.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        learning_rate: float,
        weight_decay: float,
        warmup_epochs: float,
        final_share: float,
        mask_rate: float = 1.0,
        decay_generators: bool = True,
    ) -> None:
        super().__init__()
        require(learning_rate > 0, "learning_rate", "be positive", learning_rate)
        require(weight_decay >= 0, "weight_decay", "not be negative", weight_decay)
        require(warmup_epochs >= 0, "warmup_epochs", "not be negative", warmup_epochs)
        require(0 <= final_share <= 1, "final_share", "be in [0, 1]", final_share)
        require(mask_rate > 0, "mask_rate", "be positive", mask_rate)
        self.network = network
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.warmup_epochs = warmup_epochs
        self.final_share = final_share
        self.mask_rate = mask_rate
        self.decay_generators = decay_generators
        self.trained_on: TrainedOn | None = None
        self._seed = 0

    def save_plain_hyperparameters(self, network: nn.Module) -> None:
        """Keep what a checkpoint can be rebuilt from, and no object that ``weights_only=True`` would refuse.

        From the command line these are the parsed configuration, network included. From Python "network" is the module
        itself: its weights are in the checkpoint anyway, and load_from_checkpoint(path, network=...) takes a new one.
        """
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*is an instance of `nn.Module`")
            self.save_hyperparameters(logger=False)
        if self.hparams.get("network") is network:
            self.remove_ignored_hparams(["network"])

    def draws(self, ids: Tensor | None) -> Draws:
        """What is drawn for the samples ``ids`` (int64) of a batch in this epoch.

        Raises:
            ValueError: a batch whose samples have no ids.
        """
        if ids is None:
            reject("a batch to be changed at random", "tell the ids of its samples", "none")
        return Draws(self._seed, self.current_epoch, ids)

    def require_fits(self, data: Any) -> None:
        """Refuse data that the network cannot read, with ValueError; before anything is written."""

    def on_fit_start(self) -> None:
        """Take the seed of what is drawn, that of the run; note what is trained on.

        Raises:
            ValueError: other rows than a resumed run began with.
        """
        self._seed = torch.initial_seed()
        data = self.trainer.datamodule  # type: ignore[attr-defined]  # a Lightning attribute without annotation
        if isinstance(data, KeyedData):  # none of the caller's own
            self.note_rows(data)

    def note_rows(self, data: KeyedData) -> None:
        """Keep what is trained on, for the checkpoint.

        Raises:
            ValueError: other rows than the run began with, whose checkpoint was loaded.
        """
        now, before = TrainedOn.of(data), self.trained_on
        if before is not None:
            counts = [f"{len(one.train)} + {len(one.validation)}" for one in (now, before)]
            got = f"{counts[0]} {now.rows_are}" if counts[0] == counts[1] else f"{counts[0]} in place of {counts[1]}"
            rule = "be what the run began with (--restart true sets it aside and starts anew)"
            require(now.same_as(before), "the rows to train and to validate on", rule, f"others, {got}")
        self.trained_on = now
        if now.own_twins():
            warnings.warn(
                f"{now.own_twins()} of the {now.rows_are} to test on are in the training or validation part too, as "
                f"equal {now.rows_are}: the data hold them twice. Tests count them.",
                UserWarning,
                stacklevel=2,
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.trained_on is not None:
            checkpoint[ENTRY] = self.trained_on.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.trained_on = TrainedOn.from_checkpoint(checkpoint, "to resume from") if ENTRY in checkpoint else None

    def configure_optimizers(self) -> Any:
        groups = parameter_groups(
            self.network,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            mask_rate=self.mask_rate,
            decay_generators=self.decay_generators,
        )
        optimiser = torch.optim.AdamW(groups, lr=self.learning_rate)
        steps = self.trainer.estimated_stepping_batches
        require(math.isfinite(steps), "max_epochs", "be set: the learning rate falls to its end over it", steps)
        warmup = round(self.warmup_epochs * steps / max(self.trainer.max_epochs or 1, 1))

        def share(step: int) -> float:
            return warmup_cosine(step, steps=int(steps), warmup=warmup, final_share=self.final_share)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, share)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def timed(network: Callable[[Any], Tensor], batch: Any) -> tuple[Tensor, float]:
    """The answer of ``network`` to ``batch``, and the seconds it took; on a GPU until all of it is computed."""
    _wait_for_gpu()
    started = time.perf_counter()
    answer = network(batch)
    _wait_for_gpu()
    return answer, time.perf_counter() - started


def _wait_for_gpu() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
