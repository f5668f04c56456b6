"""How values are scaled: to [0, 1] by the range of known ones, of which mean and deviation are kept too."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ccnn_irregular.datasets.processing.moments import mean_and_deviation

__all__ = ["ValueScale"]


class ValueScale(nn.Module):
    """Range of each channel, as buffers, so that a checkpoint carries it; at first values stay as they are.

    Args:
        channels: their number C.

    Attributes:
        low: ``(C,)``, the lowest value.
        span: ``(C,)``, the highest minus the lowest one; 1 where they are equal.
        mean: ``(C,)``, scaled.
        deviation: ``(C,)``, standard deviation, scaled.
    """

    low: Tensor
    span: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name, value in (("low", 0.0), ("span", 1.0), ("mean", 0.0), ("deviation", 1.0)):
            self.register_buffer(name, torch.full((channels,), value))

    def extra_repr(self) -> str:
        return f"{len(self.low)}"

    @torch.no_grad()
    def fit(self, values: Tensor) -> None:
        """Scale by ``(N, C)``, nan where not known; a channel that is never known keeps its values."""
        low, high = values.nan_to_num(nan=torch.inf).amin(0), values.nan_to_num(nan=-torch.inf).amax(0)
        self.low = torch.where(low <= high, low, 0.0)
        self.span = torch.where(low < high, high - low, 1.0)
        mean, deviation = (moment.nan_to_num().to(self.low) for moment in mean_and_deviation(values))
        self.mean, self.deviation = self(mean), deviation / self.span

    def forward(self, values: Tensor) -> Tensor:
        """``(..., C)`` in units of the data to scaled ones."""
        return (values - self.low) / self.span

    def inverse(self, scaled: Tensor) -> Tensor:
        """Scaled values to those in units of the data."""
        return scaled * self.span + self.low
