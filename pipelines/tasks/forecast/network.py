"""The network of the forecast: a CCNN that is asked at any later time corrects the last value of each variable."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from ccnn_irregular.datasets.samples import RaggedSeries
from ccnn_irregular.domains import Grid
from ccnn_irregular.kernels import KernelSpec
from ccnn_irregular.networks import CCNN
from ccnn_irregular.pipelines.train.reach import sampling_of, warn_of_kernel
from ccnn_irregular.pipelines.train.series_network import HatBasis, calibrate_by_noise
from ccnn_irregular.pipelines.train.value_scale import ValueScale

__all__ = ["ForecastBatch", "ForecastNetwork"]


class ForecastBatch(NamedTuple):
    """B series: what was observed before the cut, and the times asked for, with the values there, nan = not known."""

    history: RaggedSeries
    asked: RaggedSeries


class ForecastNetwork(nn.Module):
    """mean + (1 + gain) (last value - mean) + shift, for each variable at any time.

    A CCNN reads the history as that of the risk does, each variable at its own times with its own quadrature weights,
    carries it along a latent grid that ends with the last time, and answers gains and shifts at the times asked for.
    Both are 0 at first: training begins with the last value, or with the mean of a variable that was not observed.

    Args:
        in_channels: number of variables.
        hidden_channels: of the CCNN.
        blocks: its residual blocks.
        kernel: recipe of all kernels, hours.
        dropout: in the blocks.
        cap: hours one value may stand for.
        hours: length of the latent grid, of hourly nodes.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int = 64,
        blocks: int = 2,
        kernel: KernelSpec = KernelSpec(24.0, 6.0, 10.0, "siren"),
        dropout: float = 0.1,
        cap: float = 6.0,
        hours: int = 48,
    ) -> None:
        super().__init__()
        self.in_channels, self.kernel = in_channels, kernel
        self.scale = ValueScale(in_channels)
        self.basis = HatBasis(in_channels, cap=cap)
        sizes = (self.basis.channels, hidden_channels, 2 * in_channels)
        latent = Grid([hours], [1.0], [1.0])
        self.cnn = CCNN(*sizes, kernel=kernel, blocks=blocks, dropout=dropout, latent=latent, head="anywhere")

    def prepare(self, batch: ForecastBatch, values: tuple[Tensor, None]) -> None:
        """Take scales and knots from ``values``, scale the kernels for the batch, and begin with the last value."""
        self.scale.fit(values[0])
        self.basis.fit(values[0].numpy().T)
        _, source = self.basis.read(batch.history)
        warn_of_kernel(self.kernel, self.cnn.stem.kernel.support, sampling_of(source, "the histories"))
        calibrate_by_noise(self.cnn, source)
        nn.init.zeros_(self.cnn.output.weight)

    def last_value(self, batch: ForecastBatch) -> Tensor:
        """The baseline: last values carried forward, the mean where there is none ``(M, C)``, scaled."""
        last = self.scale(batch.history.last())
        return last.where(~last.isnan(), self.scale.mean)[batch.asked.sample_index()]

    def forward(self, batch: ForecastBatch) -> Tensor:
        """Forecasts of all variables at the times asked for ``(M, C)``, scaled."""
        gain, shift = self.cnn(*self.basis.read(batch.history), batch.asked.points()).chunk(2, 1)
        last = self.last_value(batch)
        return last + gain * (last - self.scale.mean) + shift * self.scale.deviation
