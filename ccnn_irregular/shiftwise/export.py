"""Trained continuous kernels on a fixed grid as sparse shift-wise layers: sampled, tiled, small tiles left out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor, nn

from ccnn_irregular._checks import require
from ccnn_irregular.domains import Grid
from ccnn_irregular.layers import SampledConv, SeparableContinuousConv
from ccnn_irregular.networks import CCNN, FrozenCCNN
from ccnn_irregular.shiftwise.tiled import TiledConv, from_large_kernel
from ccnn_irregular.shiftwise.tiles import width_per_axis

__all__ = ["Exported", "LayerReport", "ShiftwiseSampledConv", "export"]


@dataclass(frozen=True)
class LayerReport:
    """What became of one convolution.

    Attributes:
        name: of the layer in the network; empty for a layer on its own.
        taps: of the sampled kernel, over all channels.
        tiles, kept: how many tiles it has, and how many were kept.
        multiply_adds: of one output place, over all channels, in the tiles that were kept.
        bound: no result changes by more than this share of the sum of its kernel's magnitudes, times the largest value.
        error: measured, relative root mean square over all channels, on white noise.
        reason: why the layer was left as it is, with an FFT; empty where it was not.
    """

    name: str
    taps: int = 0
    tiles: int = 0
    kept: int = 0
    multiply_adds: int = 0
    bound: float = 0.0
    error: float = 0.0
    reason: str = ""

    def __str__(self) -> str:
        if self.reason:
            return f"{self.name}: left as it is: {self.reason}"
        return (
            f"{self.name or 'layer'}: {self.kept} of {self.tiles} tiles, {self.multiply_adds} multiply-adds a place "
            f"for {self.taps} taps, bound {self.bound:.1e}, error {self.error:.1e}"
        )


@dataclass(frozen=True)
class Exported:
    """A shift-wise module, and what became of each convolution.

    Attributes:
        module: plain PyTorch, values ``(B, C, *grid.sizes)`` in.
        layers: one for each convolution.
    """

    module: nn.Module
    layers: list[LayerReport] = field(default_factory=list)

    def __str__(self) -> str:
        return "\n".join(str(layer) for layer in self.layers)


@final
class ShiftwiseSampledConv(nn.Module):
    """A separable convolution on one grid as small convolutions, shifted and added, and a mix of the channels.

    Args:
        conv: the depthwise part.
        pointwise: the mix, which adds the depthwise bias.
        bias: of the depthwise part, ``(C,)`` or None.
    """

    def __init__(self, conv: TiledConv, pointwise: nn.Module, bias: Tensor | None) -> None:
        super().__init__()
        self.conv, self.pointwise = conv, pointwise
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())

    def forward(self, values: Tensor) -> Tensor:
        """``(B, C, *sizes)`` to ``(B, C_out, *sizes)``."""
        return self.pointwise(self.conv(values), self.bias)


@torch.no_grad()
def export(layer: SeparableContinuousConv | CCNN, grid: Grid, tolerance: float = 1e-2, width: int = 5) -> Exported:
    """A trained layer or network on a fixed grid as shift-wise convolutions.

    Kernels are sampled at the grid's lags, cut into tiles, and in each channel the smallest tiles are left out while
    their magnitudes add up to at most ``tolerance`` of the channel's: no result changes by more than that share of
    what values as large as the largest one could give. Convolutions between two unlike grids stay as they are, with an
    FFT, and say so.

    Args:
        layer: a separable convolution, or a network with head "classify" or "dense"; copied, and not changed.
        grid: where values will come.
        tolerance: share of each kernel's sum of magnitudes that may be left out, in [0, 1).
        width: taps of a tile along each axis.

    Raises:
        ValueError: axes that repeat, more than three, another head, arguments outside their ranges.
        TypeError: another layer.
    """
    require(0 <= tolerance < 1, "tolerance", "lie in [0, 1)", tolerance)
    require(grid.d <= 3, "grid", "have at most 3 axes", grid.d)
    require(not any(axis.periodic for axis in grid.axes), "grid", "have no axis that repeats", grid.periodic)
    width_per_axis(width, grid.d)
    if isinstance(layer, SeparableContinuousConv):
        module, report = _tiled(SampledConv(layer, grid, grid), "", grid, tolerance, width)
        return Exported(module.eval(), [report])
    if not isinstance(layer, CCNN):
        raise TypeError(f"layer must be a SeparableContinuousConv or a CCNN, got {type(layer).__name__}")
    network, reports = FrozenCCNN(layer, grid), []
    names = [name for name, module in network.named_modules() if isinstance(module, SampledConv)]
    for name in names:
        source = network.source if name == "stem" else network.domain
        if source != network.domain:
            reports.append(LayerReport(name, reason=f"it leads from {source} to {network.domain}"))
            continue
        sampled: Any = network.get_submodule(name)
        module, report = _tiled(sampled, name, source, tolerance, width)
        network.set_submodule(name, module)
        reports.append(report)
    network.stem.channels = layer.in_channels
    return Exported(network, reports)


def _tiled(
    sampled: SampledConv, name: str, grid: Grid, tolerance: float, width: int
) -> tuple[ShiftwiseSampledConv, LayerReport]:
    """A sampled convolution from a grid to itself as tiles, and what became of it."""
    taps = sampled.taps * sampled.factor
    require(bool(torch.isfinite(taps).all()), "layer", "have a kernel of ordinary size", "taps beyond the dtype")
    # A convolution reads the values in the order opposite to its taps.
    weight = _about_zero(taps, sampled.spans).flip(*range(1, taps.ndim))
    conv = from_large_kernel(weight.unsqueeze(1), width, tolerance=tolerance)
    whole = from_large_kernel(weight.unsqueeze(1), width)
    module = ShiftwiseSampledConv(conv, sampled.pointwise, sampled.bias)
    total = weight.abs().flatten(1).sum(1)
    left = total - torch.zeros_like(total).index_add(0, conv.channel, conv.weight.abs().flatten(1).sum(1))
    noise = torch.randn(1, len(weight), *grid.sizes, generator=torch.Generator().manual_seed(0)).to(weight)
    exact = whole(noise)
    error = (conv(noise) - exact).norm() / exact.norm().clamp(min=torch.finfo(exact.dtype).tiny)
    report = LayerReport(
        name,
        taps=taps.numel(),
        tiles=whole.groups,
        kept=conv.groups,
        multiply_adds=conv.weight.numel(),
        bound=float((left / torch.where(total > 0, total, 1.0)).clamp(min=0).max()),
        error=float(error),
    )
    return module, report


def _about_zero(taps: Tensor, spans: list[tuple[int, int]]) -> Tensor:
    """Taps with zeros around them, so that lag 0 is in the middle."""
    reaches = [max(abs(first), abs(last)) for first, last in spans]
    around = [
        part
        for reach, (first, last) in reversed(list(zip(reaches, spans, strict=True)))
        for part in (first + reach, reach - last)
    ]
    return torch.nn.functional.pad(taps, around)
