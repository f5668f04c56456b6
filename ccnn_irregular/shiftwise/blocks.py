"""The block of shift-wise networks: a shift-wise convolution, then a channel mix at each place."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, nn

from ccnn_irregular._checks import require
from ccnn_irregular.shiftwise.conv import ShiftwiseConv
from ccnn_irregular.shiftwise.tiled import TiledConv

__all__ = ["BATCH_NORMS", "CONVOLUTIONS", "ChannelNorm", "ShiftwiseBlock"]

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
BATCH_NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


@final
class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each place, ``(B, C, *sizes)`` to the same shape."""

    def forward(self, values: Tensor) -> Tensor:
        """Norm each place."""
        return super().forward(values.movedim(1, -1)).movedim(-1, 1)


class _SqueezeExcite(nn.Module):
    """Channels weighted by what their means say (Hu et al., CVPR 2018)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(channels, hidden), nn.Linear(hidden, channels)

    def forward(self, values: Tensor) -> Tensor:
        means = values.flatten(2).mean(2)
        weights = torch.sigmoid(self.up(torch.relu(self.down(means))))
        return values * weights.reshape(*weights.shape, *(1,) * (values.ndim - 2))


class _GlobalResponseNorm(nn.Module):
    """Channels weighted by their norms over all places (Woo et al., CVPR 2023); channels last."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.zeros(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, values: Tensor) -> Tensor:
        size = values.flatten(1, -2).norm(dim=1).reshape(values.shape[0], *(1,) * (values.ndim - 2), -1)
        share = size / (size.mean(-1, keepdim=True) + 1e-6)
        return (self.weight * share + 1) * values + self.bias


class _DropPath(nn.Module):
    """In training whole samples of a branch are dropped, the others grow so that the mean stays (Huang et al. 2016)."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, values: Tensor) -> Tensor:
        if not self.training or not self.probability:
            return values
        kept = 1 - self.probability
        return values * (values.new_empty(len(values), *(1,) * (values.ndim - 1)).bernoulli_(kept) / kept)


@final
class ShiftwiseBlock(nn.Module):
    """Shift-wise convolution, norm, squeeze-and-excite; linear, GELU, response norm, linear, norm; plus the input.

    The block of the published networks (Li et al., CVPR 2025; its surroundings are UniRepLKNet's, CVPR 2024).

    Args:
        channels: in and out.
        length: M, the focus length.
        width: N, the focus width.
        d: axes, 1 to 3.
        drop_path: probability of dropping the branch of a sample, in [0, 1).
        layer_scale: what each channel of the branch is multiplied by at first.
        **options: of ``ShiftwiseConv``; as published two paths, four rearrangements, a ghost ratio of 0.23, norms and
            skip.

    Raises:
        ValueError: a probability outside [0, 1); see ``ShiftwiseConv``.
    """

    conv: ShiftwiseConv | TiledConv

    def __init__(
        self,
        channels: int,
        length: int,
        width: int,
        d: int = 2,
        *,
        drop_path: float = 0.0,
        layer_scale: float = 1e-6,
        **options: Any,
    ) -> None:
        super().__init__()
        require(0 <= drop_path < 1, "drop_path", "lie in [0, 1)", drop_path)
        published = {"paths": 2, "rearrangements": 4, "ghost_ratio": 0.23, "norm": True, "skip": True}
        self.conv = ShiftwiseConv(channels, length, width, d, **{**published, **options})
        self.norm = BATCH_NORMS[d](channels)
        self.squeeze = _SqueezeExcite(channels, max(1, channels // 4))
        self.widen = nn.Linear(channels, 4 * channels)
        self.response = _GlobalResponseNorm(4 * channels)
        self.narrow = nn.Linear(4 * channels, channels, bias=False)
        self.last_norm = BATCH_NORMS[d](channels)
        self.layer_scale = nn.Parameter(torch.full((channels,), layer_scale))
        self.drop_path = _DropPath(drop_path)

    def forward(self, values: Tensor) -> Tensor:
        """``(B, channels, *sizes)`` to the same shape."""
        hidden = self.squeeze(self.norm(self.conv(values))).movedim(1, -1)
        hidden = self.response(nn.functional.gelu(self.widen(hidden)))
        branch = self.last_norm(self.narrow(hidden).movedim(-1, 1))
        return values + self.drop_path(branch * self.layer_scale.reshape(-1, *(1,) * (values.ndim - 2)))
