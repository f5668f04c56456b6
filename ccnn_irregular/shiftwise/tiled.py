"""A depthwise convolution whose kernel is a set of small tiles, each channel with those it needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from ccnn_irregular._checks import require
from ccnn_irregular.shiftwise.choice import TILES, Choice, choose
from ccnn_irregular.shiftwise.shift_add import shift_add
from ccnn_irregular.shiftwise.tiles import convolve_full, cut, tile_offsets, width_per_axis
from ccnn_irregular.shiftwise.ways import LARGE_KERNEL

__all__ = ["TiledConv", "explain", "from_large_kernel"]


@final
class TiledConv(nn.Module):
    """Sums of small depthwise convolutions, each read some places further on; plus a share of the values, plus a bias.

    Tiles of a (channel, offset) that is left out are neither stored nor computed. Sizes stay as they are.

    Args:
        tiles: ``(C, K, *widths)``.
        offsets: one for each of the K, places per axis, see ``tiles.tile_offsets``.
        kept: bool ``(C, K)``, the tiles that count; None = all.
        skip: ``(C,)``, share of the values that is added; None = none.
        bias: ``(C,)`` or None.

    Attributes:
        weight: ``(groups, 1, *widths)``, sorted by offset and channel.
        channel: int64 ``(groups,)``, that each belongs to.
        way: "tiles" or one of ``ways.LARGE_KERNEL`` to be taken whatever is faster; None = what ``explain`` picks.

    Raises:
        ValueError: shapes that do not fit together.
    """

    channel: Tensor
    skip: Tensor | None

    def __init__(
        self,
        tiles: Tensor,
        offsets: Sequence[tuple[int, ...]],
        kept: Tensor | None = None,
        skip: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> None:
        super().__init__()
        require(tiles.ndim in (3, 4, 5), "tiles", "have shape (C, K, *widths) with 1 to 3 widths", tuple(tiles.shape))
        require(len(offsets) == tiles.shape[1], "offsets", f"have one entry for {tiles.shape[1]} tiles", len(offsets))
        kept = torch.ones(tiles.shape[:2], dtype=torch.bool) if kept is None else kept.cpu()
        require(kept.shape == tiles.shape[:2], "kept", f"have shape {tuple(tiles.shape[:2])}", tuple(kept.shape))
        self.channels, self.d = len(tiles), tiles.ndim - 2
        used = kept.any(0).nonzero().flatten().tolist()
        self.offsets = [tuple(offsets[number]) for number in used]
        self.counts = [int(kept[:, number].sum()) for number in used]
        number, channel = kept.T[used].nonzero(as_tuple=True)
        places = torch.tensor(used, dtype=torch.int64)[number]
        self.weight = nn.Parameter(tiles.detach()[channel.to(tiles.device), places.to(tiles.device)].unsqueeze(1))
        self.register_buffer("channel", channel.to(tiles.device))
        self.register_buffer("skip", None if skip is None else skip.detach().clone())
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())
        self.way: str | None = None
        self._last: tuple[Tensor, tuple[int, int], Tensor] | None = None

    @property
    def groups(self) -> int:
        """How many tiles there are, over all channels."""
        return len(self.weight)

    @property
    def dense(self) -> bool:
        """Whether every channel has a tile at each offset."""
        return all(count == self.channels for count in self.counts)

    def extra_repr(self) -> str:
        widths = "x".join(str(n) for n in self.weight.shape[2:])
        return f"{self.channels} channels, {self.groups} tiles of {widths} at {len(self.offsets)} offsets"

    def forward(self, values: Tensor) -> Tensor:
        """``(B, C, *sizes)`` to the same shape.

        Raises:
            ValueError: another number of channels or axes.
        """
        fits = values.ndim == self.d + 2 and values.shape[1] == self.channels
        require(fits, "values", f"have shape (B, {self.channels}, *{self.d} sizes)", tuple(values.shape))
        way = self.way or self._picked(values)
        result = self.shifted(values) if way == TILES else self.by(way, values)
        if self.skip is not None:
            result = result + values * self.skip.reshape(-1, *(1,) * self.d)
        return result if self.bias is None else result + self.bias.reshape(-1, *(1,) * self.d)

    def _picked(self, values: Tensor) -> str:
        """The way of least time for values like these, measured at the first ones; unmeasured where it is compiled."""
        if not self.groups:
            return TILES
        if torch.compiler.is_compiling() or values.device.type == "meta" or not values.numel():
            return "channels last" if self.d < 3 else TILES
        trained = torch.is_grad_enabled() and (values.requires_grad or self.weight.requires_grad)
        return choose(self, values.shape, trained).picked

    def by(self, way: str, values: Tensor) -> Tensor:
        """The sum of the tiles' convolutions by one large kernel, skip and bias left out; see ``ways.LARGE_KERNEL``."""
        return LARGE_KERNEL[way](values, self._kernel())

    def shifted(self, values: Tensor) -> Tensor:
        """The sum of the tiles' convolutions, skip and bias left out."""
        return self._all_at_once(values) if self.dense and self.offsets else self._by_offset(values)

    def to_large_kernel(self) -> Tensor:
        """The one kernel that does the same, ``(C, *lengths)`` of odd lengths, no longer than need be; without bias."""
        kernel = self._joined()
        if self.skip is not None:
            centre: Any = (slice(None), *(size // 2 for size in kernel.shape[1:]))
            kernel[centre] = kernel[centre] + self.skip
        return _trimmed(kernel)

    def _kernel(self) -> Tensor:
        """``_joined``, made once for all passes without gradients between two changes of the weight."""
        trained = torch.is_grad_enabled() and self.weight.requires_grad
        if trained or torch.compiler.is_compiling() or self.weight.is_inference():
            return self._joined()
        now = (self.weight.data_ptr(), self.weight._version)
        if self._last is None or self._last[0] is not self.weight or self._last[1] != now:
            with torch.inference_mode(False), torch.no_grad():
                self._last = self.weight, now, _trimmed(self._joined())
        return self._last[2]

    def _joined(self) -> Tensor:
        """The one kernel, without the skip: each tap added to its place in it."""
        sizes, widths = self._sizes(), self.weight.shape[2:]
        strides = [math.prod(sizes[axis + 1 :]) for axis in range(self.d)]
        within = torch.zeros((), dtype=torch.int64, device=self.channel.device)
        for width, stride in zip(widths, strides, strict=True):
            within = within[..., None] + stride * torch.arange(width, device=self.channel.device)
        first = [
            sum(stride * (by - width + 1 + size // 2) for stride, by, width, size in zip(*parts, strict=True))
            for parts in ((strides, offset, widths, sizes) for offset in self.offsets)
        ]
        starts = torch.tensor(first, dtype=torch.int64, device=self.channel.device)
        starts = starts.repeat_interleave(torch.tensor(self.counts, device=starts.device))
        places = (self.channel * math.prod(sizes) + starts)[:, None] + within.flatten()
        flat = self.weight.new_zeros(self.channels * math.prod(sizes))
        return flat.index_add(0, places.flatten(), self.weight.flatten()).reshape(self.channels, *sizes)

    def _sizes(self) -> list[int]:
        """Odd lengths of the one kernel, so that place 0 is in its middle."""
        sizes = [1] * self.d
        for offset in self.offsets:
            for axis, (by, width) in enumerate(zip(offset, self.weight.shape[2:], strict=True)):
                sizes[axis] = max(sizes[axis], 2 * max(width - 1 - by, by) + 1)
        return sizes

    def _all_at_once(self, values: Tensor) -> Tensor:
        widths, count = self.weight.shape[2:], len(self.offsets)
        tiles = self.weight.reshape(count, self.channels, *widths).transpose(0, 1)
        return shift_add(convolve_full(values, tiles), self.offsets, values.shape[2:])

    def _by_offset(self, values: Tensor) -> Tensor:
        result = torch.zeros_like(values)
        for offset, channel, weight in self._parts():
            whole = len(channel) == self.channels
            own = values if whole else values.index_select(1, channel)
            part = shift_add(convolve_full(own, weight), [offset], values.shape[2:])
            result = result + part if whole else result.index_add(1, channel, part)
        return result

    def _parts(self) -> list[tuple[tuple[int, ...], Tensor, Tensor]]:
        """Offset, channels and weights of the tiles of each offset."""
        columns = zip(self.channel.split(self.counts), self.weight.split(self.counts), strict=True)
        return [(offset, *column) for offset, column in zip(self.offsets, columns, strict=True)]


def _trimmed(kernel: Tensor) -> Tensor:
    """A kernel without zeros at both its ends: tiles go on where the kernel that they were cut from had ended."""
    for axis in range(1, kernel.ndim):
        taps = kernel.abs().amax([dim for dim in range(kernel.ndim) if dim != axis])
        middle = kernel.shape[axis] // 2
        reach = int((taps.nonzero() - middle).abs().max()) if bool(taps.any()) else 0
        kernel = kernel.narrow(axis, middle - reach, 2 * reach + 1)
    return kernel.contiguous()


def from_large_kernel(
    weight: Tensor, width: int | Sequence[int], bias: Tensor | None = None, *, tolerance: float = 0.0
) -> TiledConv:
    """The exact decomposition of a depthwise kernel of any size into small ones.

    y equals torch's convolution with ``padding="same"``, ``groups=C`` and this weight, up to rounding.

    Args:
        weight: ``(C, *lengths)`` or, as torch has it, ``(C, 1, *lengths)``; 1 to 3 axes, odd or even.
        width: taps of a tile, per axis or one number for all; no more are taken than the kernel has.
        bias: ``(C,)`` or None.
        tolerance: tiles are left out, the smallest first, while their sums of magnitudes add up to at most this share
            of the channel's own: no value changes by more than that share of what the kernel could make of values of
            the largest one's size. 0 = only tiles of zeros.

    Raises:
        ValueError: a weight of another shape; a tolerance outside [0, 1).
    """
    require(weight.ndim in (2, 3, 4, 5), "weight", "have shape (C, *lengths), 1 to 3 of them", tuple(weight.shape))
    require(0 <= tolerance < 1, "tolerance", "lie in [0, 1)", tolerance)
    if weight.ndim > 2 and weight.shape[1] == 1:
        weight = weight.squeeze(1)
    require(2 <= weight.ndim <= 4, "weight", "have shape (C, *lengths), 1 to 3 of them", tuple(weight.shape))
    lengths = weight.shape[1:]
    widths = [min(n, length) for n, length in zip(width_per_axis(width, len(lengths)), lengths, strict=True)]
    tiles = cut(weight.detach(), widths)
    sizes = tiles.abs().flatten(2).sum(2).to(torch.float64)
    order = sizes.argsort(1)
    dropped = sizes.gather(1, order).cumsum(1) <= tolerance * sizes.sum(1, keepdim=True)
    kept = torch.ones_like(dropped).scatter(1, order, ~dropped)
    return TiledConv(tiles, tile_offsets(lengths, widths), kept, bias=bias)


def explain(
    layer: TiledConv | Sequence[int], sizes: Sequence[int], *, batch: int = 1, width: int = 5, gradients: bool = False
) -> Choice:
    """How long each way to convolve takes for a shape, which one the layer takes, and when shifting would be fastest.

    Measured at the first call, on this machine with its present number of threads, and kept for the process: a layer
    of tiles chooses at its first values of a shape in the same way.

    Args:
        layer: of tiles; or the shape ``(C, *lengths)`` of a depthwise kernel, cut into tiles without any left out.
        sizes: of the values along each axis.
        batch: entries of the values.
        width: taps of a tile, where a shape is given.
        gradients: measure forward and backward passes, as in training.

    Raises:
        ValueError: sizes of another number of axes.
    """
    if not isinstance(layer, TiledConv):
        draw = torch.Generator().manual_seed(0)
        layer = from_large_kernel(torch.randn(tuple(layer), generator=draw), width)
    return choose(layer, (batch, layer.channels, *sizes), gradients)
