"""Linear maps of the channels at every position, in groups or at once."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from ccnn_irregular._checks import require
from ccnn_irregular._sums import linear
from ccnn_irregular.layers.positions import per_channel

__all__ = ["PointwiseLinear", "require_groups", "shuffle_channels"]


@final
class PointwiseLinear(nn.Linear):
    """Linear map of the channels at every position, the 1x1 convolution; starts out keeping the variance.

    Args:
        in_features: number of channels of the values.
        out_features: number of channels of the result.
        bias: add a learned constant per output channel.
        groups: number of groups of consecutive channels that are mixed with one another only; the weight has shape
            ``(out_features, in_features / groups)``.
        shuffle: interleave the groups of the result, see ``shuffle_channels``.

    Raises:
        ValueError: groups that do not divide both numbers of channels.
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *, groups: int = 1, shuffle: bool = False
    ) -> None:
        require_groups(groups, out_features, shuffle)
        require(in_features % groups == 0, "groups", f"divide the {in_features} input channels", groups)
        super().__init__(in_features // groups, out_features, bias)
        self.in_features = in_features
        self.groups = groups
        self.shuffle = shuffle

    def extra_repr(self) -> str:
        groups = f", groups={self.groups}" if self.groups > 1 else ""
        return f"{super().extra_repr()}{groups}{', shuffle=True' if self.shuffle else ''}"

    def reset_parameters(self) -> None:
        nn.init.kaiming_normal_(self.weight, nonlinearity="linear")
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, values: Tensor, offset: Tensor | None = None) -> Tensor:
        """``(N, C_in, *sizes)`` to ``(N, C_out, *sizes)``.

        Args:
            values: the input.
            offset: ``(C_in,)`` constants to add to the input's channels first.
        """
        bias: Tensor | None = self.bias
        if offset is not None:
            shift = self._product(offset[None])[0]
            bias = shift if bias is None else bias + shift
        return self.mixed(values, bias)

    def mixed(self, values: Tensor, bias: Tensor | None) -> Tensor:
        """``values`` mixed by the layer's weight, plus another bias than its own."""
        if self.groups > 1:
            result = self._product(values)
            result = result if bias is None else result + per_channel(bias, result)
            return shuffle_channels(result, self.groups) if self.shuffle else result
        if values.ndim == 2:
            return linear(values, self.weight, bias)
        flat = values.flatten(2)
        weight = self.weight.expand(flat.shape[0], -1, -1)  # len() would fix the batch of an exported network
        # One product per entry, the bias in it: on CPUs about three times as fast as torch.matmul and an addition.
        mixed = torch.bmm(weight, flat) if bias is None else torch.baddbmm(bias[:, None], weight, flat)
        return mixed.unflatten(2, values.shape[2:])

    def _product(self, values: Tensor) -> Tensor:
        """The weight's product with ``(N, C_in, ...)``, group by group."""
        if self.groups == 1:
            return nn.functional.linear(values, self.weight)
        weight = self.weight.unflatten(0, (self.groups, -1))
        return torch.einsum("gdc,ngc...->ngd...", weight, values.unflatten(1, (self.groups, -1))).flatten(1, 2)


def shuffle_channels(values: Tensor, groups: int) -> Tensor:
    """Interleave ``groups`` groups of consecutive channels, so that each following group holds some of every one.

    Channel i of group g becomes channel i * groups + g (Zhang et al. 2018, arXiv 1707.01083, section 3.1), as
    ``torch.nn.ChannelShuffle`` does on grids; here on every domain.

    Args:
        values: ``(N, C, *sizes)``.
        groups: number of groups, a divisor of C.

    Raises:
        ValueError: groups that do not divide the channels.
    """
    fits = groups >= 1 and values.shape[1] % groups == 0
    require(fits, "groups", f"divide the {values.shape[1]} channels", groups)
    return values.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)


def require_groups(groups: int, out_channels: int, shuffle: bool) -> None:
    """Check that ``groups`` divides the output channels, and that there is something to shuffle.

    Raises:
        ValueError: another number of groups, or ``shuffle`` with a single one.
    """
    require(groups >= 1 and out_channels % groups == 0, "groups", f"divide the {out_channels} output channels", groups)
    require(groups > 1 or not shuffle, "shuffle", "be False without groups", shuffle)
