"""A depthwise convolution whose kernel is a set of small tiles, each channel with those it needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from ccnn_irregular._checks import require
from ccnn_irregular.shiftwise.shift_add import shift_add
from ccnn_irregular.shiftwise.tiles import convolve_full, cut, tile_offsets, width_per_axis

__all__ = ["TiledConv", "from_large_kernel"]


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
        result = self._all_at_once(values) if self.dense and self.offsets else self._by_offset(values)
        if self.skip is not None:
            result = result + values * self.skip.reshape(-1, *(1,) * self.d)
        return result if self.bias is None else result + self.bias.reshape(-1, *(1,) * self.d)

    def to_large_kernel(self) -> Tensor:
        """The one kernel that does the same, ``(C, *lengths)`` of odd lengths, the bias left out."""
        widths = self.weight.shape[2:]
        reach = [1] * self.d
        for offset in self.offsets:
            for axis, (by, width) in enumerate(zip(offset, widths, strict=True)):
                first = by - width + 1
                reach[axis] = max(reach[axis], 2 * max(abs(first), abs(first + width - 1)) + 1)
        kernel = self.weight.new_zeros(self.channels, *reach)
        for offset, channel, weight in self._parts():
            first = [by - width + 1 + size // 2 for by, width, size in zip(offset, widths, reach, strict=True)]
            places = tuple(slice(start, start + width) for start, width in zip(first, widths, strict=True))
            kernel[(slice(None), *places)] = kernel[(slice(None), *places)].index_add(0, channel, weight[:, 0])
        if self.skip is not None:
            centre = (slice(None), *(size // 2 for size in reach))
            kernel[centre] = kernel[centre] + self.skip
        return kernel

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
