"""Trained continuous kernels on a fixed grid as sparse shift-wise layers: sampled, tiled, small tiles left out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor, nn

from ccnn_irregular._checks import require
from ccnn_irregular.domains import Grid
from ccnn_irregular.shiftwise.choice import TILES, choose
from ccnn_irregular.shiftwise.plain import GridConv, plain
from ccnn_irregular.shiftwise.tiled import TiledConv, from_large_kernel
from ccnn_irregular.shiftwise.tiles import width_per_axis
from ccnn_irregular.shiftwise.ways import LARGE_KERNEL

__all__ = ["DepthwiseConv", "Exported", "LayerReport", "export", "settle"]

_WAYS = (TILES, "direct", "channels last")  # those without a Fourier transform


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
        way: how it is computed: as "tiles", or as the one kernel that those kept make, "direct" or "channels last".
        reason: why the layer is one ordinary convolution of all its taps; empty where it is not.
    """

    name: str
    taps: int = 0
    tiles: int = 0
    kept: int = 0
    multiply_adds: int = 0
    bound: float = 0.0
    error: float = 0.0
    way: str = ""
    reason: str = ""

    def __str__(self) -> str:
        if self.reason:
            return f"{self.name or 'layer'}: {self.taps} taps in one convolution: {self.reason}"
        return (
            f"{self.name or 'layer'}: {self.kept} of {self.tiles} tiles, {self.multiply_adds} multiply-adds a place "
            f"for {self.taps} taps, bound {self.bound:.1e}, error {self.error:.1e}, computed as {self.way}"
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
class DepthwiseConv(nn.Module):
    """A depthwise convolution with one large kernel; sizes stay.

    Args:
        kernel: ``(C, *odd lengths)``.
        way: "direct" or "channels last".
    """

    def __init__(self, kernel: Tensor, way: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(kernel.detach().clone(), requires_grad=False)
        self.way = way

    def extra_repr(self) -> str:
        return f"{tuple(self.weight.shape)}, {self.way}"

    def forward(self, values: Tensor) -> Tensor:
        """``(B, C, *sizes)`` to the same shape."""
        return LARGE_KERNEL[self.way](values, self.weight)


@torch.no_grad()
def export(
    layer: nn.Module,
    grid: Grid,
    tolerance: float = 1e-2,
    width: int = 5,
    *,
    way: str | None = None,
    query: Grid | None = None,
) -> Exported:
    """A trained layer or network on a fixed grid as shift-wise convolutions.

    Kernels are sampled at the grid's lags, cut into tiles, and in each channel the smallest tiles are left out while
    their magnitudes add up to at most ``tolerance`` of the channel's: no result changes by more than that share of
    what values as large as the largest one could give. Depthwise convolutions from a grid to itself are; all others,
    and those on axes that repeat, become one ordinary convolution of all their taps, and say so.

    Args:
        layer: a convolution, a ``CCNN`` with head "classify" or "dense", or a ``ContinuousUNet``; copied.
        grid: where values will come; 1 to 3 axes.
        tolerance: share of each kernel's sum of magnitudes that may be left out, in [0, 1).
        width: taps of a tile along each axis.
        way: how all of them are computed, "tiles", "direct" or "channels last"; None = the fastest, measured here.
        query: where answers are wanted, see ``plain``.

    Raises:
        ValueError: more than three axes, another head, arguments outside their ranges.
        TypeError: another layer.
    """
    require(0 <= tolerance < 1, "tolerance", "lie in [0, 1)", tolerance)
    require(way is None or way in _WAYS, "way", f"be one of {_WAYS}", repr(way))
    width_per_axis(width, grid.d)
    # In a module of its own, so that a convolution that stands alone can be replaced too.
    whole, reports = nn.Sequential(plain(layer, grid, query)), []
    for name, module in list(whole.named_modules()):
        if not isinstance(module, GridConv):
            continue
        label = ".".join(part for part in name.split(".")[1:])
        if (reason := _not_tiled(module)) is not None:
            module.choose_layout()
            reports.append(LayerReport(label, taps=module.weight.numel(), reason=reason))
            continue
        tiled, report = _tiled(module, label, tolerance, width, way)
        whole.set_submodule(name, tiled)
        reports.append(report)
    return Exported(whole[0].eval().requires_grad_(False), reports)


def _not_tiled(conv: GridConv) -> str | None:
    if conv.source != conv.query:
        return f"it leads from {conv.source} to {conv.query}"
    if any(conv.source.periodic):
        return "an axis repeats"
    return None if conv.weight.shape[1] == 1 and conv.groups == len(conv.weight) else "it is not depthwise"


def _tiled(
    sampled: GridConv, name: str, tolerance: float, width: int, way: str | None
) -> tuple[nn.Module, LayerReport]:
    """A depthwise convolution from a grid to itself as tiles, and what became of it."""
    weight, sizes = _about_zero(sampled), sampled.source.sizes
    conv = from_large_kernel(weight, width, bias=sampled.bias, tolerance=tolerance)
    whole = from_large_kernel(weight, width, bias=sampled.bias)
    total = weight.double().abs().flatten(1).sum(1)
    left = total - torch.zeros_like(total).index_add(0, conv.channel, conv.weight.double().abs().flatten(1).sum(1))
    noise = torch.randn(1, len(weight), *sizes, generator=torch.Generator().manual_seed(0)).to(weight)
    exact = whole.by("direct", noise)
    error = (conv.by("direct", noise) - exact).norm() / exact.norm().clamp(min=torch.finfo(exact.dtype).tiny)
    way = _fastest(conv, (1, len(weight), *sizes)) if way is None else way
    report = LayerReport(
        name,
        taps=sampled.weight.numel(),
        tiles=whole.groups,
        kept=conv.groups,
        multiply_adds=conv.weight.numel(),
        bound=float((left / torch.where(total > 0, total, 1.0)).clamp(min=0).max()),
        error=float(error),
        way=way,
    )
    conv.way = way
    return conv if way == TILES else _joined(conv, way), report


@torch.no_grad()
def settle(network: nn.Module, values: Tensor) -> nn.Module:
    """A network whose layers of tiles each are what takes the least time for values like these; changed in place.

    Args:
        network: such as ``compress`` gives.
        values: what it reads.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    names = [name for name, layer in network.named_modules() if isinstance(layer, TiledConv)]
    hooks = [
        network.get_submodule(name).register_forward_pre_hook(
            lambda _, given, name=name: shapes.update({name: tuple(given[0].shape)})
        )
        for name in names
    ]
    network(values)
    for hook in hooks:
        hook.remove()
    for name, shape in shapes.items():
        conv = network.get_submodule(name)
        assert isinstance(conv, TiledConv)
        conv.way = _fastest(conv, shape)
        if conv.way != TILES:
            network.set_submodule(name, _joined(conv, conv.way))
    return network


def _fastest(conv: TiledConv, shape: tuple[int, ...]) -> str:
    """The way of least time among those that every exporter knows."""
    seconds = choose(conv, shape).seconds
    return min((name for name in _WAYS if name in seconds), key=seconds.__getitem__)


def _joined(conv: TiledConv, way: str) -> nn.Module:
    """The one kernel that the tiles make, no longer than those that were kept."""
    dense = DepthwiseConv(conv.to_large_kernel(), way)
    return dense if conv.bias is None else nn.Sequential(dense, _Bias(conv.bias))


class _Bias(nn.Module):
    """A constant for each channel."""

    def __init__(self, bias: Tensor) -> None:
        super().__init__()
        self.bias = nn.Parameter(bias.detach().clone())

    def forward(self, values: Tensor) -> Tensor:
        return values + self.bias.reshape(-1, *(1,) * (values.ndim - 2))


def _about_zero(conv: GridConv) -> Tensor:
    """The kernel ``(C, *odd taps)`` with zeros around it, so that lag 0 is in the middle."""
    around: list[int] = []
    for axis in range(conv.source.d - 1, -1, -1):
        front, taps = conv.around[axis][0], conv.weight.shape[2 + axis]
        reach = max(abs(front), abs(taps - 1 - front))
        around += [reach - front, reach - (taps - 1 - front)]
    return torch.nn.functional.pad(conv.weight[:, 0], around)
