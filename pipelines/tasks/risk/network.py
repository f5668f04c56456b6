"""The network of the ICU task: irregular vital signs and laboratory values in, one logit a stay out.

Every series keeps its own times: a measurement enters with the quadrature weight of its own series,
and what was not measured weighs nothing. The first continuous convolution reads these irregular
samples and answers at the nodes of a regular grid over the stay, where the CCNN goes on by FFT.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ccnn_irregular._checks import reject, require
from ccnn_irregular.datasets.physionet2012 import SERIES, STATICS
from ccnn_irregular.datasets.processing.moments import mean_and_deviation
from ccnn_irregular.domains import Grid, Points
from ccnn_irregular.kernels import Kernel, KernelSpec
from ccnn_irregular.networks import CCNN, ResidualBlock
from ccnn_irregular.pipelines.train.reach import sampling_of, warn_of_kernel
from ccnn_irregular.quadrature import trapezoid

if TYPE_CHECKING:
    from ccnn_irregular.datasets.samples import RaggedSeries
    from ccnn_irregular.pipelines.tasks.risk.data import StayBatch

__all__ = ["STAY_KERNEL", "HatBasis", "ICURiskNetwork", "StandardScore", "calibrate_by_noise"]

# A measurement repeated within minutes still counts as one of this many hours.
_LEAST_WEIGHT = 0.1
_CALIBRATION_STAYS = 64
STAY_KERNEL = KernelSpec(extent=24.0, width=6.0, omega_0=10.0, generator="siren")
_UNITS = 4  # coronary care, cardiac surgery recovery, medical, surgical


class ICURiskNetwork(nn.Module):
    """A small ensemble of CCNNs on a regular latent grid, each behind one continuous convolution of the samples.

    Each of the 37 series enters as ``knots`` channels, the hat functions of its value on the training
    quantiles (so that both a low and a high heart rate can mean risk), weighted by the trapezoid rule of
    its own times, and one channel of ones, weighted 1 each: the intensity of measuring it.

    Members differ by their initial weights and by what is thinned away in training; each is trained on
    its own, and the mean of their logits is the answer (Lakshminarayanan et al. 2017, arXiv 1612.01474).

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
        super().__init__()
        for name, share in (("thinning", thinning), ("series_dropout", series_dropout)):
            require(0 <= share < 1, name, "be in [0, 1)", share)
        require(members >= 1, "members", "be at least 1", members)
        require(step > 0, "step", "be positive", step)
        require(hours >= step, "hours", f"be at least one step {step}", hours)
        self.kernel = kernel
        self.thinning = thinning
        self.series_dropout = series_dropout
        self.basis = HatBasis(len(SERIES), knots, cap)
        self.statics = StandardScore(len(STATICS))
        self.members = nn.ModuleList(
            _Member(
                CCNN(
                    self.basis.channels,
                    hidden_channels,
                    hidden_channels,
                    kernel=kernel,
                    blocks=blocks,
                    dropout=dropout,
                    dropout_unit="value",
                    latent=Grid([round(hours / step)], [step], [step]),
                    head="dense",
                ),
                hidden_channels,
                dropout,
            )
            for _ in range(members)
        )

    @torch.no_grad()
    def prepare(self, batch: StayBatch, values: None = None) -> None:
        """Take knots and scales from the training stays, and scale the kernels for their sampling."""
        self.basis.fit(batch.values.numpy())
        self.statics.fit(batch.statics.numpy())
        first = batch.take(torch.arange(min(len(batch), _CALIBRATION_STAYS)))
        if len(first.times):
            sampling = self.sampling(first.times, first.splits, ~torch.isnan(first.values))
            self._warn(sampling)
            for member in self.members:
                assert isinstance(member, _Member)
                calibrate_by_noise(member.cnn, sampling)

    def forward(self, batch: StayBatch) -> Tensor:
        """Logits: ``(B,)``, or in training ``(members, B)``, one row to be trained for each member.

        A stay without any measurement is judged by its statics.
        """
        statics = self.statics(batch.statics)
        if self.training:
            answers = [
                member(*self._read(batch, self._thinned(batch, number)), statics)
                for number, member in enumerate(self.members)
            ]
            return torch.stack(answers)
        read = self._read(batch, ~torch.isnan(batch.values))
        return torch.stack([member(*read, statics) for member in self.members]).mean(0)

    def sampling(self, times: Tensor, splits: Tensor, observed: Tensor) -> Points:
        """The measurements as points in hours with weights per channel, ``(N, 37 * (knots + 1))``."""
        return self.basis.sampling(times, splits, observed)

    def _warn(self, sampling: Points) -> None:
        """Say so where kernels do not suit the stays or the latent grid; see ``pipelines.train.reach``."""
        first = self.members[0]
        assert isinstance(first, _Member)
        assert first.cnn.latent is not None
        read = (sampling_of(sampling, "the stays, in hours"), sampling_of(first.cnn.latent, "the latent grid (step)"))
        warn_of_kernel(self.kernel, next(iter(self.kernels().values())).support, *read)

    def kernels(self) -> dict[str, Kernel]:
        """The learned kernels of the first member by layer; offsets in hours."""
        first = self.members[0]
        assert isinstance(first, _Member)
        return first.cnn.kernels()

    def _read(self, batch: StayBatch, observed: Tensor) -> tuple[Tensor, Points]:
        """Channel values of the measurements and where they were taken."""
        return self.basis.read(batch, observed)

    def _thinned(self, batch: StayBatch, member: int) -> Tensor:
        """What a member sees of the measurements: a random share of those of each stay, without some of its series."""
        observed = ~torch.isnan(batch.values)
        if not self.thinning and not self.series_dropout:
            return observed
        draws = batch.draws
        if draws is None:
            reject("StayBatch.draws", "be given in training, or thinning and series_dropout be 0", None)
        lengths, series = batch.splits.diff().cpu().numpy(), observed.shape[1]
        # Squared, so that it is mostly a little: the stays to come are not thinned.
        share = self.thinning * draws.uniform(f"thinning share {member}") ** 2
        kept = draws.uniform(f"thinning {member}", lengths, width=series) >= np.repeat(share, lengths)[:, None]
        left = draws.uniform(f"series {member}", width=series) >= self.series_dropout
        kept &= np.repeat(left, lengths, axis=0)
        return observed & torch.from_numpy(kept).to(observed.device)


class _Member(nn.Module):
    """One CCNN, pooled over the stay, and the head that joins it with the statics."""

    def __init__(self, cnn: CCNN, channels: int, dropout: float) -> None:
        super().__init__()
        self.cnn = cnn
        self.statics = nn.Sequential(nn.Linear(2 * len(STATICS) + _UNITS, channels), nn.GELU())
        pooled = 4 * channels  # mean, maximum and end of the stay; statics
        self.head = nn.Sequential(
            nn.LayerNorm(pooled),
            nn.Dropout(dropout),
            nn.Linear(pooled, channels),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(channels, 1),
        )

    def forward(self, values: Tensor, source: Points, statics: Tensor) -> Tensor:
        """Logits ``(B,)``."""
        features = self.cnn(values, source)  # (B, channels, nodes)
        pooled = [features.mean(2), features.amax(2), features[:, :, -1], self.statics(statics)]
        return self.head(torch.cat(pooled, dim=1))[:, 0]


def calibrate_by_noise(cnn: CCNN, source: Points) -> None:
    """Scale each kernel for white noise on the domain it works on: two blocks are too few to drift.

    Args:
        cnn: on a latent grid.
        source: a typical sampling of what its first layer reads; a channel may be observed nowhere.
    """
    assert cnn.latent is not None
    cnn.stem.calibrate(source, cnn.latent)
    for block in cnn.blocks:
        assert isinstance(block, ResidualBlock)
        block.conv.calibrate(cnn.latent)
    if cnn.readout is not None:
        cnn.readout.calibrate(cnn.latent)


class HatBasis(nn.Module):
    """Piecewise linear basis of each series on quantiles of its training values.

    The hats of a series are 0 or positive and sum to 1; beyond the outer knots they stay constant,
    so an implausible value counts as a very high or very low one, no more.

    Args:
        series: number of series.
        knots: number of hats per series, at least 2.
        cap: hours one value may stand for.

    Attributes:
        channels: number of channels that ``read`` gives.
    """

    knots: Tensor

    def __init__(self, series: int, knots: int = 4, cap: float = 6.0) -> None:
        super().__init__()
        require(knots >= 2, "knots", "be at least 2", knots)
        self.channels = series * (knots + 1)
        self.cap = cap
        self.register_buffer("knots", torch.linspace(-2.0, 2.0, knots).repeat(series, 1))

    @torch.no_grad()
    def fit(self, values: NDArray[np.float32]) -> None:
        """Put the knots on the quantiles 0.02 .. 0.98 of each column of ``values``, nan where not observed."""
        levels = np.linspace(0.02, 0.98, self.knots.shape[1])
        for series in np.flatnonzero(~np.isnan(values).all(axis=0)):
            quantiles = np.nanquantile(values[:, series], levels)
            # Equal quantiles (a score with few levels, a constant) are moved apart by a sliver of the scale.
            sliver = 1e-3 * max(1.0, float(np.abs(quantiles).max())) * np.arange(len(levels))
            self.knots[series] = torch.from_numpy(np.maximum.accumulate(quantiles) + sliver)

    def forward(self, values: Tensor) -> Tensor:
        """``(N, series)`` to ``(N, series, knots)``."""
        left, right = self.knots[:, :-1], self.knots[:, 1:]
        rise = ((values[..., None] - left) / (right - left)).clamp(0.0, 1.0)  # of each hat but the first
        one, zero = torch.ones_like(rise[..., :1]), torch.zeros_like(rise[..., :1])
        return torch.cat([one, rise], dim=-1) - torch.cat([rise, zero], dim=-1)

    def read(self, series: StayBatch | RaggedSeries, observed: Tensor | None = None) -> tuple[Tensor, Points]:
        """What a convolution reads of irregular series, and where.

        Args:
            series: their values are ``(N, series)``, nan where not observed.
            observed: bool ``(N, series)``, a part of what was observed; None = all of it.

        Returns:
            ``(N, series * (knots + 1))``, the hats of each value and then a one for it, and the points they were
            observed at: hats weigh by the trapezoid rule, ones 1 each.
        """
        observed = ~series.values.isnan() if observed is None else observed
        hats = self(torch.where(observed, series.values, 0.0))
        channels = torch.cat([hats.flatten(1), observed.to(hats.dtype)], dim=1)
        return channels, self.sampling(series.times, series.splits, observed)

    def sampling(self, times: Tensor, splits: Tensor, observed: Tensor) -> Points:
        """Where ``read`` finds values: hats weigh the hours they stand for, ones 1 each."""
        hours = trapezoid(times, observed=observed, splits=splits, cap=self.cap)
        hours = torch.where(observed, hours.clamp(min=_LEAST_WEIGHT), 0.0)
        per_hat = hours.repeat_interleave(self.knots.shape[1], dim=1)
        return Points(times[:, None], torch.cat([per_hat, observed.to(hours.dtype)], dim=1), splits)


class StandardScore(nn.Module):
    """Statics as standard scores, beside which of them are missing and the unit as one of four.

    Args:
        columns: number of statics.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(columns))
        self.register_buffer("scale", torch.ones(columns))

    @torch.no_grad()
    def fit(self, statics: NDArray[np.float32]) -> None:
        """Standardise by the columns of ``statics``, nan where missing."""
        mean, deviation = mean_and_deviation(torch.from_numpy(statics))
        known = ~mean.isnan()
        self.mean[known] = mean[known].to(self.mean)
        self.scale[known] = torch.where(deviation > 0, deviation, 1.0)[known].to(self.scale)

    def forward(self, statics: Tensor) -> Tensor:
        """``(B, 5)``, nan where missing, to ``(B, 14)``."""
        missing = torch.isnan(statics)
        scores = torch.where(missing, 0.0, (statics - self.mean) / self.scale).clamp(-5.0, 5.0)
        unit = torch.nan_to_num(statics[:, STATICS.index("ICUType")], nan=0.0).long()
        # Units are 1..4; 0 (missing) has a column of its own in the one-hot code, which is dropped.
        units = nn.functional.one_hot(unit.clamp(0, _UNITS), _UNITS + 1)[:, 1:]
        return torch.cat([scores, missing.to(scores.dtype), units.to(scores.dtype)], dim=1)
