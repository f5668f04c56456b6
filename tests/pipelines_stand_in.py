"""A network with the interface that ``SeriesModel`` trains, small enough for tests: means and counts, two layers."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ccnn_irregular.datasets.physionet2012 import SERIES, STATICS
from ccnn_irregular.kernels import SIREN, GaussianMask, Kernel
from ccnn_irregular.pipelines.tasks.series.network import SeriesNetwork
from ccnn_irregular.pipelines.tasks.series.samples import Schema, SeriesBatch
from ccnn_irregular.pipelines.train.trusted import trust

trust(__name__)  # what --plugins does

_STATICS = {name: [f"unit {unit}" for unit in range(1, 5)] if name == "ICUType" else [] for name in STATICS}
# Arguments of a network of stays in intensive care, beside its sizes.
STAYS: dict[str, Any] = {
    "schema": Schema(list(SERIES), _STATICS, "binary", ["0", "1"], "h", "numbers", "given"),
    **{"start": 0.0, "step": 1.0, "nodes": 48, "extent": 24.0, "width": 6.0, "cap": 6.0},
}


class StandIn(SeriesNetwork):
    """Logits from the mean normalised value and the count of each series; dropout makes the random state matter."""

    # Raise KeyboardInterrupt in the training step with this number, as Ctrl-C would.
    interrupt_at: int | None = None
    # The same for a loss that is no number, and for SIGTERM.
    spoil_at: int | None = None
    terminate_at: int | None = None
    # Gradients that are no numbers, and a validation that is none.
    steep_at: int | None = None
    spoil_validation = False

    def __init__(self, hidden: int = 8, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        count = len(self.schema.variables)
        self.members = nn.ModuleList()
        self.register_buffer("mean", torch.zeros(count))
        self.register_buffer("scale", torch.ones(count))
        self.body = nn.Sequential(nn.Linear(2 * count, hidden), nn.GELU(), nn.Dropout(0.2), nn.Linear(hidden, 1))
        self.kernel_ = Kernel(SIREN(1, 4), GaussianMask([2.0]), extent=[6.0])
        self.steps = 0

    def fit(self, columns: Iterable[np.ndarray], statics: np.ndarray, first: Any) -> None:
        for place, column in enumerate(columns):
            if len(column):
                self.mean[place] = float(column.mean())
                self.scale[place] = max(float(column.std()), 1e-3)

    def forward(self, batch: SeriesBatch) -> Tensor:
        values, count = batch.values, len(batch.ids)
        if self.training:
            self.steps += 1
            if self.steps == type(self).interrupt_at:
                raise KeyboardInterrupt
            if self.steps == type(self).terminate_at:
                signal.raise_signal(signal.SIGTERM)
            if self.steps == type(self).steep_at:
                next(self.parameters()).register_hook(lambda gradient: gradient * torch.inf)
            if self.steps == type(self).spoil_at:
                values = torch.full_like(values, torch.inf)
        elif type(self).spoil_validation:
            values = torch.full_like(values, torch.inf)
        sample = torch.repeat_interleave(torch.arange(count), batch.splits.diff())
        values = (values - self.mean) / self.scale
        zeros = values.new_zeros(count, values.shape[1])
        counts = zeros.index_add(0, sample, (~values.isnan()).float())
        means = zeros.index_add(0, sample, values.nan_to_num()) / counts.clamp_min(1)
        used = 0 * self.kernel_(torch.zeros(1, 1)).sum()
        return self.body(torch.cat([means, counts.log1p()], 1)) + used

    def kernels(self) -> dict[str, Kernel]:
        return {"only layer": self.kernel_}
