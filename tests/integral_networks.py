"""Small networks shaped as ResNet-18, MobileNet-V3, transformers and others, for tests of integral networks."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ccnn_irregular import CCNN, SIREN, GaussianMask, Grid, Kernel, KernelSpec, Points
from ccnn_irregular.layers import ContinuousConv, PointwiseLinear
from ccnn_irregular.networks_unet import ContinuousUNet

__all__ = ["NETWORKS", "Named"]

Named = tuple[nn.Module, object, dict[str, int]]
"""A network, what it is called with, and the sizes of all groups that can be resized."""

GRID = Grid([8, 8], [1.0, 1.0])
RECIPE = KernelSpec(extent=[4.0, 4.0], width=[1.5, 1.5], generator="siren", omega_0=5.0, hidden=6)


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, read: int, made: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(read, made, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(made)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(made, made, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(made)
        self.downsample: nn.Module | None = None
        if stride > 1:
            self.downsample = nn.Sequential(nn.Conv2d(read, made, 1, stride, bias=False), nn.BatchNorm2d(made))

    def forward(self, values: Tensor) -> Tensor:
        hidden = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(values)))))
        hidden += values if self.downsample is None else self.downsample(values)
        return self.relu(hidden)


class ResNet(nn.Module):
    """ResNet-18 with narrow layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 4, 7, 2, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        )
        widths = [4, 4, 6, 8, 10]
        self.layers = nn.Sequential(
            *(
                nn.Sequential(BasicBlock(a, b, 1 if level == 0 else 2), BasicBlock(b, b, 1))
                for level, (a, b) in enumerate(itertools.pairwise(widths))
            )
        )
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(10, 5)

    def forward(self, values: Tensor) -> Tensor:
        return self.fc(torch.flatten(self.avgpool(self.layers(self.stem(values))), 1))


class SqueezeExcitation(nn.Module):
    """Channels scaled by what their means say."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, values: Tensor) -> Tensor:
        scale = self.fc2(nn.functional.relu(self.fc1(self.avgpool(values))))
        return nn.functional.hardsigmoid(scale) * values


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, squeeze and excitation, projection."""

    def __init__(self, read: int, wide: int, made: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv2d(read, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
            nn.Hardswish(),
            nn.Conv2d(wide, wide, 5, padding=2, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            nn.Hardswish(),
            SqueezeExcitation(wide, 4),
            nn.Conv2d(wide, made, 1, bias=False),
            nn.BatchNorm2d(made),
        )
        self.adds = read == made

    def forward(self, values: Tensor) -> Tensor:
        result = self.block(values)
        return result + values if self.adds else result


class MobileNet(nn.Module):
    """MobileNet-V3 (small) with few and narrow layers."""

    def __init__(self) -> None:
        super().__init__()
        stem = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1, bias=False), nn.BatchNorm2d(6), nn.Hardswish())
        self.features = nn.Sequential(stem, InvertedResidual(6, 12, 8), InvertedResidual(8, 16, 8))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Linear(8, 10), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(10, 3))

    def forward(self, values: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.avgpool(self.features(values)), 1))


class VisionBlock(nn.Module):
    """Attention whose heads are cut out of one linear layer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        self.heads = heads
        self.scale = nn.Parameter(torch.rand(width))
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 12), nn.GELU(), nn.Linear(12, width))

    def forward(self, values: Tensor) -> Tensor:
        batch, count, _ = values.shape
        cut = self.qkv(self.norm1(values)).reshape(batch, count, 3, self.heads, -1)
        query, key, value = cut.permute(2, 0, 3, 1, 4)
        read = nn.functional.scaled_dot_product_attention(query, key, value)
        values = values + self.scale * self.projection(read.transpose(1, 2).reshape(batch, count, -1))
        return values + self.mlp(self.norm2(values))


class VisionTransformer(nn.Module):
    """Patches, a class token, positions, a block."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.positions = nn.Parameter(torch.randn(1, 5, 8))
        self.block = VisionBlock(8, 2)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 3)

    def forward(self, values: Tensor) -> Tensor:
        patches = self.patches(values).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(values), -1, -1), patches], dim=1) + self.positions
        return self.head(self.norm(self.block(tokens))[:, 0])


class Text(nn.Module):
    """Embedding and torch's own transformer layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.layer(self.embedding(tokens)).mean(1))


class Joined(nn.Module):
    """Concatenation, its sum with another layer, groups, a gate of two halves, transposed convolution in groups."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv1d(2, 4, 3, padding=1)
        self.b = nn.Conv1d(4, 6, 3, padding=1)
        self.c = nn.Conv1d(10, 10, 3, padding=1)
        self.d = nn.Conv1d(10, 8, 1)
        self.norm = nn.GroupNorm(2, 8)
        self.slope = nn.PReLU(8)
        self.grouped = nn.Conv1d(8, 12, 3, padding=1, groups=2)
        self.up = nn.ConvTranspose1d(12, 8, 4, 2, 1, groups=2)
        self.gate = nn.Conv1d(8, 12, 1)
        self.end = nn.Linear(6 * 12, 3)

    def forward(self, values: Tensor) -> Tensor:
        a = self.a(values).relu()
        joined = torch.cat([a, self.b(a).relu()], dim=1)
        hidden = self.slope(self.norm(self.d(joined + self.c(joined))))
        u, v = self.gate(self.up(self.grouped(hidden).tanh())).chunk(2, dim=1)
        return self.end((u * v.sigmoid()).flatten(1))


class Volume(nn.Module):
    """A small U-shaped network of volumes, with a depthwise convolution that doubles channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv3d(1, 4, 3, padding=1)
        self.norm = nn.InstanceNorm3d(4, affine=True)
        self.down = nn.Conv3d(4, 8, 3, padding=1, groups=4)
        self.up = nn.ConvTranspose3d(8, 4, 2, 2)
        self.last = nn.Conv3d(8, 2, 1)

    def forward(self, values: Tensor) -> Tensor:
        fine = nn.functional.gelu(self.norm(self.first(values)))
        coarse = nn.functional.max_pool3d(nn.functional.gelu(self.down(fine)), 2)
        return self.last(torch.cat([fine, self.up(coarse)], dim=1))


class FullKernels(nn.Module):
    """Continuous convolutions whose kernels mix channels."""

    def __init__(self) -> None:
        super().__init__()
        shapes = ((6, 2), (4, 6))
        self.convolutions = nn.ModuleList(
            ContinuousConv(Kernel(SIREN(2, a * b), GaussianMask([1.5, 1.5]), extent=[4.0, 4.0], shape=(a, b)))
            for a, b in shapes
        )
        self.end = PointwiseLinear(4, 2)

    def forward(self, values: Tensor, domain: Grid) -> Tensor:
        for convolution in self.convolutions:
            values = convolution(values, domain).relu()
        return self.end(values)


def _resnet() -> Named:
    sizes = {"stem.0": 4, "layers.0.0.conv1": 4, "layers.0.1.conv1": 4}
    for level, width in ((1, 6), (2, 8), (3, 10)):
        sizes |= dict.fromkeys((f"layers.{level}.0.conv1", f"layers.{level}.0.conv2", f"layers.{level}.1.conv1"), width)
    return ResNet(), torch.randn(2, 3, 32, 32), sizes


def _mobilenet() -> Named:
    sizes = {"features.0.0": 6, "classifier.0": 10, "features.1.block.0": 12, "features.2.block.0": 16}
    sizes |= {"features.1.block.7": 8, "features.1.block.6.fc1": 4, "features.2.block.6.fc1": 4}
    return MobileNet(), torch.randn(2, 3, 16, 16), sizes


def _vision() -> Named:
    sizes = {"patches": 8, "block.qkv#1": 8, "block.qkv#2": 8, "block.mlp.0": 12}
    return VisionTransformer(), torch.randn(2, 3, 8, 8), sizes


def _text() -> Named:
    sizes = {"embedding": 8, "layer.self_attn#1": 8, "layer.self_attn#2": 8, "layer.linear1": 12}
    return Text(), torch.randint(0, 11, (2, 5)), sizes


def _joined() -> Named:
    return Joined(), torch.randn(2, 2, 6), {"a": 4, "b": 6, "d": 8, "grouped": 12, "up": 8, "gate": 6}


def _volume() -> Named:
    return Volume(), torch.randn(1, 1, 4, 4, 6), {"first": 4, "up": 4}


def _ccnn() -> Named:
    network = CCNN(2, 6, 3, kernel=RECIPE, blocks=2)
    sizes = {"stem.pointwise": 6, "blocks.0.conv.pointwise": 6, "blocks.1.conv.pointwise": 6}
    return network, (torch.randn(2, 2, 8, 8), GRID), sizes


def _ccnn_of_points() -> Named:
    places = torch.rand(30, 2, dtype=torch.float64) * 8
    points = Points(places, torch.rand(30, dtype=torch.float64) + 0.1, torch.tensor([0, 12, 30]))
    network = CCNN(2, 6, 3, kernel=RECIPE, blocks=1)
    return network, (torch.randn(30, 2), points), {"stem.pointwise": 6, "blocks.0.conv.pointwise": 6}


def _unet() -> Named:
    network = ContinuousUNet(1, 2, channels=(4, 6), steps=[1.0, 1.0], blocks=(0, 1))
    sizes = {"stem.conv": 4, "downs.0.conv.pointwise": 6, "down_levels.1.blocks.0.conv.pointwise": 6, "narrow.0": 4}
    sizes |= {"ups.0.conv.pointwise": 4, "mixes.0": 4, "readout.pointwise": 8}
    return network, (torch.randn(1, 1, 8, 8), GRID), sizes


def _full_kernels() -> Named:
    return FullKernels(), (torch.randn(1, 2, 8, 8), GRID), {"convolutions.0": 6, "convolutions.1": 4}


NETWORKS: dict[str, Callable[[], Named]] = {
    "resnet": _resnet,
    "mobilenet": _mobilenet,
    "vision": _vision,
    "text": _text,
    "joined": _joined,
    "volume": _volume,
    "ccnn": _ccnn,
    "ccnn_of_points": _ccnn_of_points,
    "unet": _unet,
    "full_kernels": _full_kernels,
}
