"""How networks are trained: AdamW under a warm-up and a cosine."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import nn

from ccnn_irregular._checks import require
from ccnn_irregular.optimisation import parameter_groups, warmup_cosine

__all__ = ["Schedule"]


@dataclass(frozen=True)
class Schedule:
    """AdamW whose learning rate rises linearly and falls along a cosine, step by step.

    Attributes:
        learning_rate: peak of the schedule.
        weight_decay: of AdamW; vectors (biases, norms, widths) and masks are exempt.
        warmup_epochs: linear rise before the cosine, in epochs.
        final_share: share of the peak learning rate that is left at the end.
        mask_rate: learning rate of the masks relative to the others', see ``parameter_groups``.
        decay_generators: decay the matrices of the generators too.
        least_width: below 1, each step also trains narrower networks, down to this share of the channels, so that
            ``ccnn resize`` needs no training; about three times the work.

    Raises:
        ValueError: a rate or a share out of range.
    """

    learning_rate: float = 5e-3
    weight_decay: float = 1e-2
    warmup_epochs: float = 1.0
    final_share: float = 0.0
    mask_rate: float = 1.0
    decay_generators: bool = False
    least_width: float = 1.0

    def __post_init__(self) -> None:
        for name in ("learning_rate", "mask_rate"):
            require(getattr(self, name) > 0, f"schedule.{name}", "be positive", getattr(self, name))
        for name in ("weight_decay", "warmup_epochs"):
            require(getattr(self, name) >= 0, f"schedule.{name}", "not be negative", getattr(self, name))
        require(0 <= self.final_share <= 1, "schedule.final_share", "be in [0, 1]", self.final_share)
        require(0 < self.least_width <= 1, "schedule.least_width", "lie above 0, and at 1 at most", self.least_width)

    def optimisers(self, network: nn.Module, trainer: Trainer) -> Any:
        """What Lightning expects of ``configure_optimizers``.

        Raises:
            ValueError: a trainer without an end, over which the learning rate could fall.
        """
        groups = parameter_groups(
            network,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            mask_rate=self.mask_rate,
            decay_generators=self.decay_generators,
        )
        optimiser = torch.optim.AdamW(groups, lr=self.learning_rate)
        steps = trainer.estimated_stepping_batches
        require(math.isfinite(steps), "max_epochs", "be set: the learning rate falls to its end over it", steps)
        warmup = round(self.warmup_epochs * steps / max(trainer.max_epochs or 1, 1))

        def share(step: int) -> float:
            return warmup_cosine(step, steps=int(steps), warmup=warmup, final_share=self.final_share)

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, share)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
