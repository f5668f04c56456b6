"""The network of the ICU task: irregular vital signs and laboratory values in, one logit a stay out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ccnn_irregular._checks import require
from ccnn_irregular.datasets.physionet2012 import SERIES, STATICS
from ccnn_irregular.domains import Grid, Points
from ccnn_irregular.kernels import Kernel
from ccnn_irregular.networks import CCNN
from ccnn_irregular.quadrature import trapezoid

if TYPE_CHECKING:
    from ccnn_irregular.datasets.physionet2012 import Cohort
    from ccnn_irregular.pipelines.icu_data import StayBatch

__all__ = ["ICURiskNetwork"]


class ICURiskNetwork(nn.Module):
    def __init__(
        self,
        hidden_channels: int = 64,
        blocks: int = 2,
        width: float = 6.0,
        extent: float = 24.0,
        omega_0: float = 10.0,
        generator: Literal["magnet", "siren"] = "siren",
        generator_hidden: int = 32,
        dropout: float = 0.2,
        cap: float = 6.0,
        hours: float = 48.0,
        step: float = 1.0,
        knots: int = 4,
    ) -> None:
        super().__init__()
        series, statics = len(SERIES), len(STATICS)
        nodes = round(hours / step) 
        self.knots = knots
        self.cap = cap
        self.latent = Grid([nodes], [step], [step])
        self.register_buffer("quantiles", torch.linspace(-2, 2, knots).repeat(series, 1))
        self.register_buffer("static_mean", torch.zeros(statics))
        self.register_buffer("static_scale", torch.ones(statics))
        self.input_dropout = nn.Dropout(0.1)
        self.cnn = CCNN(
            series * (knots + 1),
            hidden_channels,
            hidden_channels,
            blocks=blocks,
            extent=(extent,),
            width=(width,),
            omega_0=omega_0,
            generator=generator,
            generator_hidden=generator_hidden,
            dropout=dropout,
            latent=self.latent,
        )
        self.static = nn.Sequential(nn.Linear(2 * statics + 4, hidden_channels), nn.GELU())
        self.head = nn.Sequential(
            nn.LayerNorm(4 * hidden_channels), nn.Dropout(dropout), nn.Linear(4 * hidden_channels, hidden_channels), nn.GELU(),
            nn.Dropout(dropout), nn.Linear(hidden_channels, 1)
        )

    @torch.no_grad()
    def fit_normalisation(self, cohort: Cohort) -> None:
        levels = np.linspace(0.02, 0.98, self.knots)
        q = np.stack([np.nanquantile(col, levels) if (~np.isnan(col)).any() else np.linspace(-2, 2, self.knots) for col in cohort.values.T])
        # strictly increasing
        for row in q:
            eps = 1e-3 * max(1.0, abs(row).max())
            for i in range(1, len(row)):
                row[i] = max(row[i], row[i - 1] + eps)
        self.quantiles.copy_(torch.from_numpy(q))
        self.static_mean.copy_(torch.from_numpy(np.nanmean(cohort.statics, 0)))
        self.static_scale.copy_(torch.from_numpy(np.nanstd(cohort.statics, 0) + 1e-6))

    def points(self, batch: StayBatch) -> tuple[Tensor, Points]:
        observed = ~torch.isnan(batch.values)
        w = trapezoid(batch.times, observed=observed, splits=batch.splits, cap=self.cap)
        w = torch.where(observed, w.clamp(min=0.1), 0.0)
        basis = hat_basis(torch.where(observed, batch.values, 0.0), self.quantiles)  # N, S, K
        values = torch.cat([basis.flatten(1), observed.to(basis.dtype)], 1)
        weights = torch.cat([w.repeat_interleave(self.knots, dim=1), observed.to(w)], 1)
        return values, Points(batch.times[:, None], weights, batch.splits)

    def forward(self, batch: StayBatch) -> Tensor:
        values, source = self.points(batch)
        features, _ = self.cnn.features(values, source)
        pooled = torch.cat([features.mean(2), features.amax(2), features[:, :, -1]], 1)
        missing = torch.isnan(batch.statics)
        z = torch.where(missing, 0.0, (batch.statics - self.static_mean) / self.static_scale).clamp(-5, 5)
        unit = nn.functional.one_hot((batch.statics[:, 3].nan_to_num(1.0).long() - 1).clamp(0, 3), 4).to(z.dtype)
        static = self.static(torch.cat([z, missing.to(z.dtype), unit], 1))
        return self.head(torch.cat([pooled, static], 1))[:, 0]

    def kernels(self) -> dict[str, Kernel]:
        return self.cnn.kernels()


def hat_basis(values: Tensor, knots: Tensor) -> Tensor:
    """(N, S) with knots (S, K) -> (N, S, K) piecewise linear partition of unity, constant outside."""
    v = values.clamp(min=knots[:, 0], max=knots[:, -1])[..., None]
    left, right = knots[:, :-1], knots[:, 1:]
    t = ((v - left) / (right - left)).clamp(0, 1)  # N,S,K-1
    up = torch.cat([torch.ones_like(v), t], -1)
    return up - torch.cat([t, torch.zeros_like(v)], -1)
