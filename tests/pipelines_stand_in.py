"""A network with the interface that ``BinaryRisk`` trains, small enough for tests: means and counts, two layers."""

from __future__ import annotations

import dataclasses
import signal

import torch
from torch import Tensor, nn

from ccnn_irregular.kernels import SIREN, GaussianMask, Kernel
from ccnn_irregular.pipelines.tasks.risk.data import StayBatch
from ccnn_irregular.pipelines.train.trusted import trust

trust(__name__)  # what --plugins does


class StandIn(nn.Module):
    """Logits from the mean normalised value and the count of each series; dropout makes the random state matter."""

    # Raise KeyboardInterrupt in the training step with this number, as Ctrl-C would.
    interrupt_at: int | None = None
    # The same for a loss that is no number, and for SIGTERM.
    spoil_at: int | None = None
    terminate_at: int | None = None
    # Gradients that are no numbers, and a validation that is none.
    steep_at: int | None = None
    spoil_validation = False

    def __init__(self, hidden: int = 8) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(37))
        self.register_buffer("scale", torch.ones(37))
        self.body = nn.Sequential(nn.Linear(2 * 37, hidden), nn.GELU(), nn.Dropout(0.2), nn.Linear(hidden, 1))
        self.kernel = Kernel(SIREN(1, 4), GaussianMask([2.0]), extent=[6.0])
        self.steps = 0

    def prepare(self, batch: StayBatch, values: None = None) -> None:
        values = batch.values
        mean = torch.nan_to_num(values.nanmean(0))
        self.mean.copy_(mean)
        self.scale.copy_(torch.nan_to_num((values - mean).square().nanmean(0).sqrt()).clamp_min(1e-3))

    def forward(self, batch: StayBatch) -> Tensor:
        if self.training:
            self.steps += 1
            if self.steps == type(self).interrupt_at:
                raise KeyboardInterrupt
            if self.steps == type(self).terminate_at:
                signal.raise_signal(signal.SIGTERM)
            if self.steps == type(self).steep_at:
                next(self.parameters()).register_hook(lambda gradient: gradient * torch.inf)
            if self.steps == type(self).spoil_at:
                batch = dataclasses.replace(batch, values=torch.full_like(batch.values, torch.inf))
        elif type(self).spoil_validation:
            batch = dataclasses.replace(batch, values=torch.full_like(batch.values, torch.inf))
        stay = torch.repeat_interleave(torch.arange(len(batch)), batch.splits.diff())
        values = (batch.values - self.mean) / self.scale
        zeros = values.new_zeros(len(batch), 37)
        counts = zeros.index_add(0, stay, (~values.isnan()).float())
        means = zeros.index_add(0, stay, values.nan_to_num()) / counts.clamp_min(1)
        used = 0 * self.kernel(torch.zeros(1, 1)).sum()
        return self.body(torch.cat([means, counts.log1p()], 1))[:, 0] + used

    def kernels(self) -> dict[str, Kernel]:
        return {"only layer": self.kernel}
