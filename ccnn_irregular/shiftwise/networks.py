"""Shift-wise networks of published sizes, and the compression of any network with shift-wise layers."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, TypeVar, final

import torch
from torch import Tensor, nn

from ccnn_irregular._checks import require
from ccnn_irregular.shiftwise.blocks import CONVOLUTIONS, ChannelNorm, ShiftwiseBlock
from ccnn_irregular.shiftwise.conv import ShiftwiseConv

__all__ = ["ShiftwiseNet", "compress", "shiftwise_base", "shiftwise_small", "shiftwise_tiny"]

Network = TypeVar("Network", bound=nn.Module)
_LENGTHS = (51, 49, 47, 13)


@final
class ShiftwiseNet(nn.Module):
    """Four (or any number of) stages of shift-wise blocks, each at half the resolution of the one before.

    Args:
        in_channels: channels of the images.
        classes: number of classes.
        depths: blocks of each stage.
        channels: of each stage.
        lengths: focus length M of each stage.
        width: focus width N.
        d: axes of the images, 1 to 3.
        stem_strides: of the two convolutions before the first stage; (1, 1) for small images.
        drop_path: of the last block; it grows evenly from 0 at the first.
        **options: of ``ShiftwiseBlock``.

    Raises:
        ValueError: numbers of stages that differ; see ``ShiftwiseBlock``.
    """

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 1000,
        depths: Sequence[int] = (3, 3, 18, 3),
        channels: Sequence[int] = (80, 160, 320, 640),
        lengths: Sequence[int] = _LENGTHS,
        width: int = 3,
        d: int = 2,
        *,
        stem_strides: tuple[int, int] = (2, 2),
        drop_path: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__()
        stages = len(depths), len(channels), len(lengths)
        require(len(set(stages)) == 1, "depths, channels, lengths", "have one entry for each stage", stages)
        convolution, half = CONVOLUTIONS[d], channels[0] // 2
        self.stem = nn.Sequential(
            convolution(in_channels, half, 3, stride=stem_strides[0], padding=1),
            ChannelNorm(half, eps=1e-6),
            nn.GELU(),
            convolution(half, channels[0], 3, stride=stem_strides[1], padding=1),
            ChannelNorm(channels[0], eps=1e-6),
        )
        drops = torch.linspace(0, drop_path, sum(depths), device="cpu").tolist()
        layers: list[nn.Module] = []
        for stage, (depth, own, length) in enumerate(zip(depths, channels, lengths, strict=True)):
            if stage:
                layers.append(convolution(channels[stage - 1], own, 3, stride=2, padding=1))
                layers.append(ChannelNorm(own, eps=1e-6))
            for block in range(sum(depths[:stage]), sum(depths[:stage]) + depth):
                extra = {"drop_path": drops[block], "seed": block, **options}
                layers.append(ShiftwiseBlock(own, length, width, d, **extra))
        self.stages = nn.Sequential(*layers)
        self.norm = nn.LayerNorm(channels[-1], eps=1e-6)
        self.head = nn.Linear(channels[-1], classes)

    def forward(self, values: Tensor) -> Tensor:
        """Images ``(B, in_channels, *sizes)`` to one logit per class."""
        return self.head(self.norm(self.stages(self.stem(values)).flatten(2).mean(2)))


def shiftwise_tiny(in_channels: int = 3, classes: int = 1000, **options: Any) -> ShiftwiseNet:
    """The published network of 27 blocks and 80 to 640 channels; options as of ``ShiftwiseNet``."""
    return ShiftwiseNet(in_channels, classes, (3, 3, 18, 3), (80, 160, 320, 640), **options)


def shiftwise_small(in_channels: int = 3, classes: int = 1000, **options: Any) -> ShiftwiseNet:
    """The published network of 36 blocks and 96 to 768 channels; options as of ``ShiftwiseNet``."""
    return ShiftwiseNet(in_channels, classes, (3, 3, 27, 3), (96, 192, 384, 768), **options)


def shiftwise_base(in_channels: int = 3, classes: int = 1000, **options: Any) -> ShiftwiseNet:
    """The published network of 36 blocks and 128 to 1,024 channels; options as of ``ShiftwiseNet``."""
    return ShiftwiseNet(in_channels, classes, (3, 3, 27, 3), (128, 256, 512, 1024), **options)


def compress(network: Network) -> Network:
    """A copy in evaluation mode whose shift-wise layers are merged, pruned groups dropped; it gives the same."""
    result = copy.deepcopy(network).eval()
    for module in list(result.modules()):
        for name, child in module.named_children():
            if isinstance(child, ShiftwiseConv):
                setattr(module, name, child.compress())
    return result
