"""The network of the ICU task: irregular vital signs and laboratory values in, one logit a stay out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ccnn_irregular._checks import require
from ccnn_irregular.datasets.physionet2012 import SERIES, STATICS
from ccnn_irregular.domains import Grid
from ccnn_irregular.kernels import KernelSpec
from ccnn_irregular.pipelines.train.series_network import SeriesEnsemble

if TYPE_CHECKING:
    from ccnn_irregular.pipelines.tasks.risk.data import StayBatch

__all__ = ["STAY_KERNEL", "ICURiskNetwork"]

_CALIBRATION_STAYS = 64
STAY_KERNEL = KernelSpec(extent=24.0, width=6.0, omega_0=10.0, generator="siren")
_UNITS = 4  # coronary care, cardiac surgery recovery, medical, surgical


class ICURiskNetwork(SeriesEnsemble):
    """The ensemble of ``SeriesEnsemble`` on the 37 series and five statics of a stay.

    Args:
        members: number of CCNNs.
        hidden_channels: channels of each CCNN.
        blocks: residual blocks of each CCNN.
        kernel: recipe of all kernels, hours.
        dropout: in the blocks and the head.
        knots: hat functions per series.
        cap: hours one measurement may stand for.
        hours: length of a stay.
        step: hours between nodes of the latent grid.
        thinning: in training a random share of the measurements, up to this one, is dropped from each stay.
        series_dropout: in training, probability that a series of a stay is dropped whole.
    """

    def __init__(
        self,
        members: int = 1,
        hidden_channels: int = 64,
        blocks: int = 2,
        kernel: KernelSpec = STAY_KERNEL,
        dropout: float = 0.2,
        knots: int = 4,
        cap: float = 6.0,
        hours: float = 48.0,
        step: float = 1.0,
        thinning: float = 0.8,
        series_dropout: float = 0.1,
    ) -> None:
        require(step > 0, "step", "be positive", step)
        require(hours >= step, "hours", f"be at least one step {step}", hours)
        super().__init__(
            len(SERIES),
            len(STATICS),
            {STATICS.index("ICUType"): _UNITS},
            1,
            Grid([round(hours / step)], [step], [step]),
            members=members,
            hidden_channels=hidden_channels,
            blocks=blocks,
            kernel=kernel,
            dropout=dropout,
            knots=knots,
            cap=cap,
            least=0.1,
            thinning=thinning,
            series_dropout=series_dropout,
            rows_are="the stays, in hours",
        )

    def prepare(self, batch: StayBatch, values: None = None) -> None:
        """Take knots and scales from the training stays, and scale the kernels for their sampling."""
        first = batch.take(torch.arange(min(len(batch), _CALIBRATION_STAYS)))
        self.fit(batch.values.numpy().T, batch.statics.numpy(), first)

    def forward(self, batch: StayBatch) -> Tensor:
        """Logits: ``(B,)``, or in training ``(members, B)``, one row to be trained for each member."""
        return super().forward(batch)[..., 0]
