"""The shift-wise convolution layer: shared small convolutions whose results are laid along each axis and added."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from ccnn_irregular._checks import require
from ccnn_irregular.shiftwise.shift_add import shift_add
from ccnn_irregular.shiftwise.tiled import TiledConv
from ccnn_irregular.shiftwise.tiles import convolve_full, offset

__all__ = ["ShiftwiseConv"]

_NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


@final
class ShiftwiseConv(nn.Module):
    """A depthwise convolution with the reach of M taps along each axis, made of kernels of N taps.

    Each channel has M / N small kernels (rounded up). Laid end to end along an axis they are a kernel of M x N taps;
    every axis has such a branch, and the small branch is one of them where it is. All branches share the small kernels
    (Li et al., CVPR 2025, figure 3). Sizes and channels stay as they are.

    Args:
        channels: of the values.
        length: M, the focus length.
        width: N, the focus width, at most the length.
        d: axes of the values, 1 to 3.
        orientations: axes along which kernels are laid; None = all.
        identity: whether there is a small branch.
        paths: sets of small kernels that are added up, as ``merge`` does for good.
        rearrangements: how often each branch takes the small kernels, each time in another random order; 1 = once,
            in their own order.
        ghost_ratio: share of the channels that pass unchanged, drawn at random; the others' number is even then.
        norm: whether each branch ends in a batch norm.
        skip: whether the values are added to what the branches give.
        seed: of what is drawn.

    Attributes:
        weight: ``(paths, convolved channels, K, *widths)``.
        mask: bool ``(convolved channels, K)``, the groups that are not pruned; all branches and paths share it.

    Raises:
        ValueError: arguments outside their ranges.
    """

    used: Tensor
    mask: Tensor
    places: Tensor
    small: Tensor

    def __init__(
        self,
        channels: int,
        length: int,
        width: int,
        d: int = 2,
        *,
        orientations: Sequence[int] | None = None,
        identity: bool = True,
        paths: int = 1,
        rearrangements: int = 1,
        ghost_ratio: float = 0.0,
        norm: bool = False,
        skip: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        require(d in _NORMS, "d", "be 1, 2 or 3", d)
        require(1 <= width <= length, "width", f"lie between 1 and the length {length}", width)
        require(0 <= ghost_ratio < 1, "ghost_ratio", "lie in [0, 1)", ghost_ratio)
        require(paths >= 1 and rearrangements >= 1, "paths, rearrangements", "be at least 1", (paths, rearrangements))
        axes = tuple(range(d)) if orientations is None else tuple(orientations)
        fits = bool(axes) and set(axes) <= set(range(d)) and len(set(axes)) == len(axes)
        require(fits, "orientations", f"name some of the axes 0 to {d - 1}, each once", axes)
        convolved = int(channels * (1 - ghost_ratio)) // 2 * 2 if ghost_ratio else channels
        require(convolved >= 1, "ghost_ratio", f"leave two of {channels} channels to be convolved", ghost_ratio)
        self.channels, self.length, self.width, self.d = channels, length, width, d
        self.axes, self.identity, self.skip = axes, identity, skip
        count = -(-length // width)
        used, places, small = _drawn(channels, convolved, (len(axes), rearrangements), count, seed)
        device = torch.empty(0).device  # the one that modules are built on
        self.register_buffer("used", used.to(device))
        self.register_buffer("mask", torch.ones(convolved, count, dtype=torch.bool))
        self.register_buffer("places", places.to(device))
        self.register_buffer("small", small.to(device))
        self.weight = nn.Parameter(torch.empty(paths, convolved, count, *(width,) * d))
        branches = len(axes) + identity
        self.norms = nn.ModuleList(_NORMS[d](convolved) for _ in range(branches)) if norm else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights that keep the variance of white noise."""
        paths, _, count = self.weight.shape[:3]
        terms = paths * self.places.shape[1] * (count * len(self.axes) + self.identity) * self.width**self.d
        nn.init.normal_(self.weight, std=1 / math.sqrt(terms))

    def extra_repr(self) -> str:
        paths, convolved, count = self.weight.shape[:3]
        passed = f", {self.channels - convolved} pass" if convolved < self.channels else ""
        return (
            f"{self.channels} channels{passed}, {self.length} by {self.width} taps along axes {list(self.axes)}, "
            f"{int(self.mask.sum())} of {convolved * count} groups, paths={paths}, "
            f"rearrangements={self.places.shape[1]}"
        )

    def forward(self, values: Tensor) -> Tensor:
        """``(B, channels, *sizes)`` to the same shape.

        Raises:
            ValueError: another number of channels or axes.
        """
        fits = values.ndim == self.d + 2 and values.shape[1] == self.channels
        require(fits, "values", f"have shape (B, {self.channels}, *{self.d} sizes)", tuple(values.shape))
        all_used = len(self.used) == self.channels
        own = values if all_used else values.index_select(1, self.used)
        branches = self._convolved(own)
        if self.norms is not None:
            branches = [norm(branch) for norm, branch in zip(self.norms, branches, strict=True)]
        result = sum(branches[1:], branches[0])
        if self.skip:
            result = result + own
        return result if all_used else values.index_copy(1, self.used, result)

    def merge(self) -> TiledConv:
        """A layer that gives what this one gives in evaluation mode: one set of tiles, norms and paths in them."""
        return self._tiled(pruned=False)

    def compress(self) -> TiledConv:
        """``merge`` without the groups that are pruned: they are neither stored nor computed."""
        return self._tiled(pruned=True)

    def _convolved(self, own: Tensor) -> list[Tensor]:
        """Results of the branches, those along the axes first."""
        sizes, weight = own.shape[2:], self._masked()
        if self.places.shape[1] > 1:  # fewer operations than as many additions as there are rearrangements
            branches = zip(self._branch_weights(weight), self._offsets(), strict=True)
            return [shift_add(convolve_full(own, tiles), offsets, sizes) for tiles, offsets in branches]
        parts, middle = convolve_full(own, weight), weight.shape[1] // 2
        results = [shift_add(parts, offsets, sizes) for offsets in self._offsets()[: len(self.axes)]]
        if self.identity:
            results.append(shift_add(parts[:, :, middle : middle + 1], self._offsets()[-1], sizes))
        return results

    def _masked(self) -> Tensor:
        """Small kernels ``(C, K, *widths)``, the paths added up, pruned ones zero."""
        return self.weight.sum(0) * self.mask.reshape(*self.mask.shape, *(1,) * self.d)

    def _branch_weights(self, groups: Tensor) -> list[Tensor]:
        """What stands at each place of each branch, ``(C, K, ...)`` or ``(C, 1, ...)``: its rearrangements added up."""
        channel = torch.arange(len(groups), device=groups.device)
        laid = [groups[channel[:, None], places].sum(0) for places in self.places]
        return [*laid, groups[channel, self.small].sum(0)[:, None]] if self.identity else laid

    def _offsets(self) -> list[list[tuple[int, ...]]]:
        """Where the tiles of each branch are read."""
        centre = offset(0, self.width, self.width)
        starts = range(0, self.length, self.width)
        along = [offset(start, self.length, self.width) for start in starts]
        laid = [[tuple(by if axis == own else centre for axis in range(self.d)) for by in along] for own in self.axes]
        return [*laid, [(centre,) * self.d]] if self.identity else laid

    @torch.no_grad()
    def _tiled(self, *, pruned: bool) -> TiledConv:
        mask = self.mask if pruned else torch.ones_like(self.mask)
        weights, standing = self._branch_weights(self._masked()), self._branch_weights(mask)
        bias = None
        if self.norms is not None:
            scales = [norm.weight / (norm.running_var + norm.eps).sqrt() for norm in self.norms]
            shifts = [norm.bias - norm.running_mean * scale for norm, scale in zip(self.norms, scales, strict=True)]
            weights = [
                one * scale.reshape(-1, *(1,) * (self.d + 1)) for one, scale in zip(weights, scales, strict=True)
            ]
            bias = self.weight.new_zeros(self.channels).index_add(0, self.used, sum(shifts[1:], shifts[0]))
        offsets = [by for branch in self._offsets() for by in branch]
        distinct = list(dict.fromkeys(offsets))
        place = torch.tensor([distinct.index(by) for by in offsets], device=self.used.device)
        tiles = self.weight.new_zeros(self.channels, len(distinct), *self.weight.shape[3:])
        kept = torch.zeros(tiles.shape[:2], dtype=torch.int64, device=self.used.device)
        laid = tiles[self.used].index_add(1, place, torch.cat(weights, 1))
        stand = kept[self.used].index_add(1, place, torch.cat(standing, 1).to(kept.dtype))
        skip = None
        if self.skip or len(self.used) < self.channels:
            skip = self.weight.new_ones(self.channels).index_fill(0, self.used, float(self.skip))
        kept, tiles = kept.index_copy(0, self.used, stand), tiles.index_copy(0, self.used, laid)
        return TiledConv(tiles, distinct, kept > 0, skip, bias)


def _drawn(
    channels: int, convolved: int, branches: tuple[int, int], count: int, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Channels that are convolved, which small kernel stands at each place of each branch, and in the small one."""
    draw, cpu = torch.Generator().manual_seed(seed), torch.device("cpu")
    order = torch.randperm(channels, generator=draw, device=cpu)
    used = order[:convolved].sort().values
    shape = *branches, convolved, count
    if branches[1] == 1:
        middle = torch.full(shape[1:3], count // 2, device=cpu)
        return used, torch.arange(count, device=cpu).expand(shape).contiguous(), middle
    places = torch.rand(shape, generator=draw, device=cpu).argsort(-1)
    return used, places, torch.randint(count, shape[1:3], generator=draw, device=cpu)
