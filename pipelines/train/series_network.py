"""Networks of irregular series with statics: values at times of their own in, a few numbers for each sample out.

Every variable keeps its own times: a measurement enters with the quadrature weight of its own variable, and what was
not measured weighs nothing. The first continuous convolution reads these irregular samples and answers at the nodes of
a regular grid, where the CCNN goes on by FFT.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ccnn_irregular._checks import reject, require
from ccnn_irregular._reprs import sized
from ccnn_irregular.datasets.processing.moments import mean_and_deviation
from ccnn_irregular.domains import Grid, Points
from ccnn_irregular.kernels import Kernel, KernelSpec
from ccnn_irregular.networks import CCNN, ResidualBlock
from ccnn_irregular.pipelines.train.draws import Draws
from ccnn_irregular.pipelines.train.reach import sampling_of, warn_of_kernel
from ccnn_irregular.quadrature import trapezoid

__all__ = ["HatBasis", "Measured", "SeriesEnsemble", "SeriesRows", "StandardScore", "calibrate_by_noise"]


class Measured(Protocol):
    """Irregular series laid end to end: times ``(N,)`` float64, values ``(N, V)``, nan where not observed."""

    @property
    def times(self) -> Tensor:
        """``(N,)`` float64."""

    @property
    def values(self) -> Tensor:
        """``(N, V)``, nan where not observed."""

    @property
    def splits(self) -> Tensor:
        """``(B + 1,)`` int64; series b owns the rows ``splits[b]:splits[b + 1]``."""


class SeriesRows(Measured, Protocol):
    """The same with statics ``(B, S)``, nan where missing, and what is drawn for them in training."""

    @property
    def statics(self) -> Tensor:
        """``(B, S)``, nan where missing."""

    @property
    def draws(self) -> Draws | None:
        """Of each series in training, else None."""


class SeriesEnsemble(nn.Module):
    """A small ensemble of CCNNs on a regular latent grid, each behind one continuous convolution of the samples.

    Each variable enters as ``knots`` channels, the hat functions of its value on the training quantiles (so that both a
    low and a high heart rate can mean risk), weighted by the trapezoid rule of its own times, and one channel of ones,
    weighted 1 each: the intensity of measuring it.

    Members differ by their initial weights and by what is thinned away in training; each is trained on its own, and the
    mean of their answers is the answer (Lakshminarayanan et al. 2017, arXiv 1612.01474).

    Args:
        variables: number of variables.
        statics: number of statics.
        categories: number of categories of those statics that have some.
        outputs: numbers to answer.
        latent: the grid, in the unit of the times.
        members: number of CCNNs.
        hidden_channels: channels of each CCNN.
        blocks: residual blocks of each CCNN.
        kernel: recipe of all kernels, in the unit of the times.
        dropout: in the blocks and the head.
        knots: hat functions per variable.
        cap: time one measurement may stand for.
        least: time it stands for at least.
        thinning: in training a random share of the measurements, up to this one, is dropped from each sample.
        series_dropout: in training, probability that a variable of a sample is dropped whole.
        rows_are: what a sample is, for messages.
    """

    def __init__(
        self,
        variables: int,
        statics: int,
        categories: Mapping[int, int],
        outputs: int,
        latent: Grid,
        *,
        members: int,
        hidden_channels: int,
        blocks: int,
        kernel: KernelSpec,
        dropout: float,
        knots: int,
        cap: float,
        least: float,
        thinning: float,
        series_dropout: float,
        rows_are: str,
    ) -> None:
        super().__init__()
        for name, share in (("thinning", thinning), ("series_dropout", series_dropout)):
            require(0 <= share < 1, name, "be in [0, 1)", share)
        require(members >= 1, "members", "be at least 1", members)
        self.kernel, self.latent, self.rows_are = kernel, latent, rows_are
        self.thinning, self.series_dropout = thinning, series_dropout
        self.basis = HatBasis(variables, knots, cap, least)
        self.statics = StandardScore(statics, categories)
        recipe: dict[str, Any] = {
            "kernel": kernel,
            "blocks": blocks,
            "dropout": dropout,
            "dropout_unit": "value",
            "head": "dense",
        }
        sizes = (self.basis.channels, hidden_channels, hidden_channels)
        self.members = nn.ModuleList(
            _Member(
                CCNN(*sizes, latent=latent, **recipe),
                hidden_channels,
                self.statics.channels,
                outputs,
                dropout,
            )
            for _ in range(members)
        )

    def extra_repr(self) -> str:
        return f"{len(self.members)} members, {sized(self)}"

    @torch.no_grad()
    def fit(self, columns: Iterable[NDArray[np.float32]], statics: NDArray[np.float32], first: Measured) -> None:
        """Take knots and scales from training values, and scale the kernels for a typical sampling.

        Args:
            columns: all values of each variable.
            statics: ``(B, S)``, nan where missing.
            first: some samples.
        """
        self.basis.fit(columns)
        self.statics.fit(statics)
        if len(first.times):
            sampling = self.sampling(first.times, first.splits, ~torch.isnan(first.values))
            self._warn(sampling)
            for member in self.members:
                assert isinstance(member, _Member)
                calibrate_by_noise(member.cnn, sampling)

    def forward(self, batch: SeriesRows) -> Tensor:
        """Answers ``(B, outputs)``, or in training ``(members, B, outputs)``, to be trained for each member.

        A sample without any measurement is judged by its statics.
        """
        statics = self.statics(batch.statics)
        if self.training:
            answers = [
                member(*self.basis.read(batch, self._thinned(batch, number)), statics)
                for number, member in enumerate(self.members)
            ]
            return torch.stack(answers)
        read = self.basis.read(batch)
        return torch.stack([member(*read, statics) for member in self.members]).mean(0)

    def sampling(self, times: Tensor, splits: Tensor, observed: Tensor) -> Points:
        """The measurements as points with weights per channel, ``(N, variables * (knots + 1))``."""
        return self.basis.sampling(times, splits, observed)

    def _warn(self, sampling: Points) -> None:
        """Say so where kernels do not suit the samples or the latent grid; see ``pipelines.train.reach``."""
        first = self.members[0]
        assert isinstance(first, _Member)
        assert first.cnn.latent is not None
        read = (sampling_of(sampling, self.rows_are), sampling_of(first.cnn.latent, "the latent grid (step)"))
        warn_of_kernel(self.kernel, next(iter(self.kernels().values())).support, *read)

    def kernels(self) -> dict[str, Kernel]:
        """The learned kernels of the first member by layer; offsets in the unit of the times."""
        first = self.members[0]
        assert isinstance(first, _Member)
        return first.cnn.kernels()

    def _thinned(self, batch: SeriesRows, member: int) -> Tensor:
        """What a member sees: a random share of the measurements of each sample, without some of its series."""
        observed = ~torch.isnan(batch.values)
        if not self.thinning and not self.series_dropout:
            return observed
        draws = batch.draws
        if draws is None:
            reject("draws of the batch", "be given in training, or thinning and series_dropout be 0", None)
        lengths, series = batch.splits.diff().cpu().numpy(), observed.shape[1]
        # Squared, so that it is mostly a little: what is to come is not thinned.
        share = self.thinning * draws.uniform(f"thinning share {member}") ** 2
        kept = draws.uniform(f"thinning {member}", lengths, width=series) >= np.repeat(share, lengths)[:, None]
        left = draws.uniform(f"series {member}", width=series) >= self.series_dropout
        kept &= np.repeat(left, lengths, axis=0)
        return observed & torch.from_numpy(kept).to(observed.device)


class _Member(nn.Module):
    """One CCNN, pooled over time, and the head that joins it with the statics."""

    def __init__(self, cnn: CCNN, channels: int, statics: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.cnn = cnn
        self.statics = nn.Sequential(nn.Linear(statics, channels), nn.GELU()) if statics else None
        pooled = (3 if self.statics is None else 4) * channels  # mean, maximum and end of the time; statics
        self.head = nn.Sequential(
            nn.LayerNorm(pooled),
            nn.Dropout(dropout),
            nn.Linear(pooled, channels),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(channels, outputs),
        )

    def forward(self, values: Tensor, source: Points, statics: Tensor) -> Tensor:
        """Answers ``(B, outputs)``."""
        features = self.cnn(values, source)  # (B, channels, nodes)
        pooled = [features.mean(2), features.amax(2), features[:, :, -1]]
        pooled += [] if self.statics is None else [self.statics(statics)]
        answer: Tensor = self.head(torch.cat(pooled, dim=1))
        return answer


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
        cap: time one value may stand for, in the unit of the times.
        least: time one value stands for at least, however soon it is repeated.

    Attributes:
        channels: number of channels that ``read`` gives.
    """

    knots: Tensor

    def __init__(self, series: int, knots: int = 4, cap: float = 6.0, least: float = 0.1) -> None:
        super().__init__()
        require(knots >= 2, "knots", "be at least 2", knots)
        self.channels = series * (knots + 1)
        self.cap, self.least = cap, least
        self.register_buffer("knots", torch.linspace(-2.0, 2.0, knots).repeat(series, 1))

    def extra_repr(self) -> str:
        series, knots = self.knots.shape
        return f"{series} series, knots={knots}, cap={self.cap:g}, least={self.least:g}"

    @torch.no_grad()
    def fit(self, columns: Iterable[NDArray[np.float32]]) -> None:
        """Put the knots of each series on the quantiles 0.02 .. 0.98 of its values; of none they stay where they are.

        Args:
            columns: all values of each series, nan where not observed.
        """
        levels = np.linspace(0.02, 0.98, self.knots.shape[1])
        for series, column in enumerate(columns):
            if np.isnan(column).all():
                continue
            quantiles = np.nanquantile(column, levels)
            # Equal quantiles (a score with few levels, a constant) are moved apart by a sliver of the scale.
            sliver = 1e-3 * max(1.0, float(np.abs(quantiles).max())) * np.arange(len(levels))
            self.knots[series] = torch.from_numpy(np.maximum.accumulate(quantiles) + sliver)

    def forward(self, values: Tensor) -> Tensor:
        """``(N, series)`` to ``(N, series, knots)``."""
        left, right = self.knots[:, :-1], self.knots[:, 1:]
        rise = ((values[..., None] - left) / (right - left)).clamp(0.0, 1.0)  # of each hat but the first
        one, zero = torch.ones_like(rise[..., :1]), torch.zeros_like(rise[..., :1])
        return torch.cat([one, rise], dim=-1) - torch.cat([rise, zero], dim=-1)

    def read(self, series: Measured, observed: Tensor | None = None) -> tuple[Tensor, Points]:
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
        """Where ``read`` finds values: hats weigh the time they stand for, ones 1 each."""
        spans = trapezoid(times, observed=observed, splits=splits, cap=self.cap)
        spans = torch.where(observed, spans.clamp(min=self.least), 0.0)
        per_hat = spans.repeat_interleave(self.knots.shape[1], dim=1)
        return Points(times[:, None], torch.cat([per_hat, observed.to(spans.dtype)], dim=1), splits)


class StandardScore(nn.Module):
    """Statics as standard scores, beside which of them are missing and the categories one by one.

    Args:
        columns: number of statics.
        categories: number of categories of those columns that have some; their values are 1, 2, ...

    Attributes:
        channels: number of channels that ``forward`` gives.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, columns: int, categories: Mapping[int, int]) -> None:
        super().__init__()
        self.categories = dict(categories)
        self.channels = 2 * columns + sum(self.categories.values())
        self.register_buffer("mean", torch.zeros(columns))
        self.register_buffer("scale", torch.ones(columns))

    def extra_repr(self) -> str:
        return f"{len(self.mean)} statics -> {self.channels}"

    @torch.no_grad()
    def fit(self, statics: NDArray[np.float32]) -> None:
        """Standardise by the columns of ``statics``, nan where missing."""
        if not len(self.mean):
            return
        mean, deviation = mean_and_deviation(torch.from_numpy(statics))
        known = ~mean.isnan()
        self.mean[known] = mean[known].to(self.mean)
        self.scale[known] = torch.where(deviation > 0, deviation, 1.0)[known].to(self.scale)

    def forward(self, statics: Tensor) -> Tensor:
        """``(B, columns)``, nan where missing, to ``(B, channels)``."""
        missing = torch.isnan(statics)
        scores = torch.where(missing, 0.0, (statics - self.mean) / self.scale).clamp(-5.0, 5.0)
        found = [scores, missing.to(scores.dtype)]
        for column, count in self.categories.items():
            category = torch.nan_to_num(statics[:, column], nan=0.0).long()
            # 0 (missing) has a column of its own in the one-hot code, which is dropped.
            found.append(nn.functional.one_hot(category.clamp(0, count), count + 1)[:, 1:].to(scores.dtype))
        return torch.cat(found, dim=1)
