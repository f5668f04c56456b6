"""Dropout of single values or of whole channels of a sample, on every domain."""

from __future__ import annotations

from typing import Literal, final, get_args

from torch import Tensor, nn

from ccnn_irregular._checks import require
from ccnn_irregular.domains import Domain

__all__ = ["Dropout", "DropoutUnit"]

DropoutUnit = Literal["channel", "value"]


@final
class Dropout(nn.Module):
    """Dropout in training: of single values, or of whole channels of a sample.

    A convolution averages over neighbouring values, so what dropping single ones does fades as the sampling gets
    denser. Whole channels of a sample (``nn.Dropout1d`` on a grid; Tompson et al. 2015, arXiv 1411.4280) are gone at
    any density; on Points and Product all points of a sample lose the same channels.

    Args:
        probability: of dropping, in [0, 1).
        unit: what is dropped: "channel", as almost all published recipes of the CCNN, or "value".
    """

    def __init__(self, probability: float, unit: DropoutUnit = "channel") -> None:
        super().__init__()
        require(0 <= probability < 1, "probability", "be in [0, 1)", probability)
        require(unit in get_args(DropoutUnit), "unit", f"be one of {get_args(DropoutUnit)}", repr(unit))
        self.probability = probability
        self.unit = unit

    def extra_repr(self) -> str:
        return f"{self.probability:g}, unit={self.unit!r}"

    def forward(self, values: Tensor, domain: Domain) -> Tensor:
        """``(N, C, *sizes)`` on ``domain`` to the same shape."""
        if not self.training or self.probability == 0:
            return values
        if self.unit == "value":
            return nn.functional.dropout(values, self.probability)
        points = domain.irregular
        if points is None:
            return nn.functional.dropout1d(values.flatten(2), self.probability).reshape(values.shape)
        kept = nn.functional.dropout(values.new_ones(points.samples, values.shape[1]), self.probability)
        return values * kept[points.sample_index()].reshape(*values.shape[:2], *(1,) * (values.ndim - 2))
