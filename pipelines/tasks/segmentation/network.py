"""Networks that label every voxel: the continuous U-net in millimetres, and one with fixed kernels."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ccnn_irregular._checks import reject, require
from ccnn_irregular._reprs import sized
from ccnn_irregular.kernels import Kernel, KernelSpec
from ccnn_irregular.networks_unet import UNET_KERNEL, ContinuousUNet
from ccnn_irregular.pipelines.tasks.segmentation.data import VolumeBatch
from ccnn_irregular.pipelines.train.reach import sampling_of, warn_of_reach

__all__ = ["ContinuousSegmenter", "FixedKernelSegmenter"]


class ContinuousSegmenter(nn.Module):
    """A ``ContinuousUNet`` in millimetres: the same weights serve every voxel size.

    Args:
        in_channels: channels of the data (modalities); ``ccnn fit`` takes what is null here and in the next two from
            the training part.
        classes: number of classes, background included.
        channels: of each level, fine to coarse.
        steps: of the first level along x, y and z, millimetres; doubled from level to level. null = the median voxel.
        blocks: residual blocks of each level.
        kernel: recipe of all kernels, its lengths in steps of their level.
        dropout: in the blocks.
    """

    def __init__(
        self,
        in_channels: int | None = None,
        classes: int | None = None,
        channels: Sequence[int] = (12, 32, 64),
        steps: Sequence[float] | None = (1.0, 1.0, 1.0),
        blocks: Sequence[int] = (0, 1, 1),
        kernel: KernelSpec = UNET_KERNEL,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if in_channels is None or classes is None or steps is None:
            reject("in_channels, classes and steps", "be given: no data tell them here", "null")
        require(classes >= 2, "classes", "be at least 2", classes)
        self.in_channels = in_channels
        self.classes = classes
        self.steps = tuple(steps)
        self.unet = ContinuousUNet(
            in_channels,
            classes,
            channels=channels,
            steps=steps,
            blocks=blocks,
            kernel=kernel,
            dropout=dropout,
        )

    def extra_repr(self) -> str:
        return f"{self.in_channels} -> {self.classes} classes, {sized(self)}"

    def prepare(self, batch: VolumeBatch, values: None = None) -> None:
        """Scale all layers for the sampling of ``batch``, and say so where their kernels do not suit it."""
        support = next(iter(self.kernels().values())).support
        warn_of_reach("steps", self.steps, support, sampling_of(batch.grid, "the voxels, in mm"))
        self.unet.calibrate(batch.values, batch.grid)

    def forward(self, batch: VolumeBatch) -> Tensor:
        """Logits ``(1, classes, *query.sizes)``."""
        return self.unet(batch.values, batch.grid, batch.query)

    def kernels(self) -> dict[str, Kernel]:
        """The learned kernels by layer; offsets in millimetres."""
        return self.unet.kernels()


class FixedKernelSegmenter(nn.Module):
    """A U-net of ordinary 3 x 3 x 3 convolutions: what the continuous one is compared with.

    Its kernels count voxels, whatever they measure. Two convolutions, instance norm and leaky ReLU on each level down
    and up, strided convolutions down, transposed ones up, as in the nnU-Net (Isensee et al. 2021).

    Args:
        in_channels: channels of the data (modalities); null = as the training part, likewise classes.
        classes: number of classes, background included.
        channels: of each level, fine to coarse.
        dropout: of whole channels, on the coarsest level.
    """

    def __init__(
        self,
        in_channels: int | None = None,
        classes: int | None = None,
        channels: Sequence[int] = (8, 16, 24),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if in_channels is None or classes is None:
            reject("in_channels and classes", "be given: no data tell them here", "null")
        require(classes >= 2, "classes", "be at least 2", classes)
        require(len(channels) >= 1, "channels", "name one level or more", tuple(channels))
        self.in_channels = in_channels
        self.classes = classes

        def layer(read: int, made: int, stride: int = 1) -> nn.Sequential:
            convolution = nn.Conv3d(read, made, 3, stride, padding=1, bias=False)
            return nn.Sequential(convolution, nn.InstanceNorm3d(made, affine=True), nn.LeakyReLU(0.01))

        pairs = list(itertools.pairwise(channels))
        self.stem = nn.Sequential(layer(in_channels, channels[0]), layer(channels[0], channels[0]))
        self.downs = nn.ModuleList(
            nn.Sequential(layer(fine, coarse, 2), layer(coarse, coarse)) for fine, coarse in pairs
        )
        self.dropout = nn.Dropout3d(dropout)
        self.ups = nn.ModuleList(nn.ConvTranspose3d(coarse, fine, 2, 2) for fine, coarse in pairs)
        self.mixes = nn.ModuleList(nn.Sequential(layer(2 * fine, fine), layer(fine, fine)) for fine, _ in pairs)
        self.output = nn.Conv3d(channels[0], classes, 1)

    def extra_repr(self) -> str:
        return f"{self.in_channels} -> {self.classes} classes, {sized(self)}"

    @torch.no_grad()
    def prepare(self, batch: VolumeBatch, values: None = None) -> None:
        """Nothing to be scaled: torch's initialisation fits voxels."""

    def forward(self, batch: VolumeBatch) -> Tensor:
        """Logits ``(1, classes, *sizes)`` at the given voxels.

        Raises:
            ValueError: answers wanted elsewhere than at the voxels.
        """
        rule = "be the given voxels (fixed kernels answer nowhere else; in training see model.augmentation.resample)"
        require(batch.query == batch.grid, "query", rule, "others")
        levels = [self.stem(batch.values)]
        for down in self.downs:
            levels.append(down(levels[-1]))
        hidden = self.dropout(levels.pop())
        for up, mix in reversed(list(zip(self.ups, self.mixes, strict=True))):
            skip = levels.pop()
            # A level of odd size ends one voxel before the next one's double.
            finer = up(hidden)[(..., *(slice(size) for size in skip.shape[2:]))]
            hidden = mix(torch.cat([finer, skip], dim=1))
        return self.output(hidden)
