"""A U-shaped network of continuous convolutions for grids of any number of axes, spacing and size."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import final

import torch
from torch import Tensor, nn

from ccnn_irregular._autocast import outside_autocast
from ccnn_irregular._checks import require
from ccnn_irregular._reprs import lengths, one_line, sized
from ccnn_irregular.domains import Grid
from ccnn_irregular.kernels import Kernel, KernelSpec
from ccnn_irregular.layers import (
    ContinuousConv,
    InstanceNorm,
    PointwiseLinear,
    SeparableContinuousConv,
    warn_uncalibrated,
)
from ccnn_irregular.networks import ResidualBlock
from ccnn_irregular.solver import Solver

__all__ = ["UNET_KERNEL", "ContinuousUNet", "level_grids"]

UNET_KERNEL = KernelSpec(extent=3.0, width=1.0, omega_0=6.0, generator="siren")
"""Recipe of its kernels, in steps of their level."""


def level_grids(source: Grid, steps: Sequence[float], count: int) -> list[Grid]:
    """Grids of the levels of a U-shaped network, fine to coarse, over the extent of ``source``.

    All start at the source's first node and end at its last or up to one step beyond it. The first level's step is
    the source's, times or divided by the whole number that brings it next to the one asked for; each further level's is
    twice the one before. So levels hardly depend on the spacing of the source, and the common lattice of any two
    neighbours is the finer one of them.

    Args:
        source: where values are given; its axes do not repeat.
        steps: of the first level, per axis, coordinate units.
        count: number of levels.

    Raises:
        ValueError: axes that repeat, or steps of another number of axes.
    """
    require(not any(source.periodic), "source", "have no axis that repeats", source)
    require(len(steps) == source.d, "source", f"have {len(steps)} axes", source.d)
    grids = []
    for level in range(count):
        sizes, coarse_steps = [], []
        for axis, wanted in zip(source.axes, steps, strict=True):
            factor = wanted / axis.step
            ratio = (Fraction(round(factor)) if factor >= 1 else Fraction(1, round(1 / factor))) * 2**level
            sizes.append(math.ceil((axis.size - 1) / ratio) + 1)
            coarse_steps.append(axis.step * float(ratio))
        grids.append(Grid(sizes, coarse_steps, source.starts))
    return grids


@final
class _Step(nn.Module):
    """A convolution between two grids, norm and GELU."""

    def __init__(self, convolution: ContinuousConv | SeparableContinuousConv, channels: int) -> None:
        super().__init__()
        self.conv = convolution
        self.norm = InstanceNorm(channels)

    __repr__ = one_line

    def extra_repr(self) -> str:
        return repr(self.conv)

    def forward(self, values: Tensor, source: Grid, query: Grid, *, calibrating: bool = False) -> Tensor:
        if calibrating and isinstance(self.conv, SeparableContinuousConv):
            self.conv.calibrate(source, query, values)
        elif calibrating:
            self.conv.calibrate(source, query)
        return nn.functional.gelu(self.norm(self.conv(values, source, query), query))


@final
class _Level(nn.Module):
    """Residual blocks on the grid of one level."""

    def __init__(self, blocks: Iterable[ResidualBlock]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, values: Tensor, grid: Grid, *, calibrating: bool = False) -> Tensor:
        for block in self.blocks:
            assert isinstance(block, ResidualBlock)
            values = block.calibrate(values, grid, len(self.blocks)) if calibrating else block(values, grid)
        return values


@final
class ContinuousUNet(nn.Module):
    """U-shaped network (Ronneberger et al. 2015, arXiv 1505.04597) of continuous convolutions, one answer per position.

    The levels are grids of given steps in coordinate units over the extent of the input, whatever the spacing of the
    input is: another spacing changes the quadrature of the first convolution and the places at which the last one is
    evaluated, and nothing between them. Down and up are convolutions whose query is the coarser or the finer grid; on
    each level residual blocks of the CCNN; on the way up the level's own values are mixed in. Values are normalised
    sample by sample, so volumes of unequal sizes may come one by one.

    Args:
        in_channels: channels of the input.
        out_channels: answers per position (classes).
        channels: channels of each level, fine to coarse.
        steps: distance of neighbouring nodes of the first level per axis, coordinate units; doubled from level to
            level, see ``level_grids``.
        blocks: residual blocks of each level, down and up alike.
        kernel: recipe of all kernels, its lengths in steps of their level. At width 1 a kernel ends at about 3 steps,
            its extent.
        dropout: probability in every block.
        solver: engine and tolerance. All grids lie on one lattice, so the FFT is exact; "auto" would spend a tenth of
            each pass on finding that out.

    Raises:
        ValueError: no level, or numbers of blocks and of levels that differ.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        channels: Sequence[int] = (16, 32, 64),
        steps: Sequence[float],
        blocks: Sequence[int] = (0, 1, 1),
        kernel: KernelSpec = UNET_KERNEL,
        dropout: float = 0.0,
        solver: Solver = Solver("fft"),
    ) -> None:
        super().__init__()
        require(in_channels >= 1, "in_channels", "be at least 1", in_channels)
        require(len(channels) >= 1, "channels", "name one level or more", tuple(channels))
        require(len(blocks) == len(channels), "blocks", f"have one entry per level, {len(channels)}", tuple(blocks))
        self.steps = tuple(float(step) for step in steps)
        coarsest = len(channels) - 1

        recipes = [kernel.scaled([step * 2**level for step in self.steps]) for level in range(len(channels))]

        def step(level: int, read: int, made: int) -> _Step:
            return _Step(SeparableContinuousConv(recipes[level](read), made, solver=solver), made)

        def residual(level: int) -> _Level:
            width = channels[level]
            return _Level(
                ResidualBlock(width, recipes[level](width), dropout, norm="instance", solver=solver)
                for _ in range(blocks[level])
            )

        first = channels[0]
        self.stem = _Step(ContinuousConv(recipes[0](in_channels, first), solver=solver), first)
        self.downs = nn.ModuleList(step(level, *channels[level - 1 : level + 1]) for level in range(1, coarsest + 1))
        self.down_levels = nn.ModuleList(residual(level) for level in range(coarsest + 1))
        pairs = list(itertools.pairwise(channels))
        # Mixed to the finer level's channels before the convolution: on the finer grid each channel costs most.
        self.narrow = nn.ModuleList(PointwiseLinear(coarse, fine) for fine, coarse in pairs)
        self.ups = nn.ModuleList(step(level + 1, fine, fine) for level, (fine, _) in enumerate(pairs))
        self.mixes = nn.ModuleList(PointwiseLinear(2 * fine, fine) for fine, _ in pairs)
        self.up_levels = nn.ModuleList(residual(level) for level in range(coarsest))
        # Normalised before it is read out: an answer must not depend on where else answers are wanted.
        self.norm = InstanceNorm(first)
        self.readout = SeparableContinuousConv(recipes[0](first), 2 * first, solver=solver)
        self.output = PointwiseLinear(2 * first, out_channels)

    @property
    def in_channels(self) -> int:
        """Channels of the input; other layers before the network may be resized with it, see ``integral``."""
        convolution = self.stem.conv
        assert isinstance(convolution, ContinuousConv)
        return convolution.in_channels

    @property
    def out_channels(self) -> int:
        """Answers per position."""
        return self.output.out_features

    def extra_repr(self) -> str:
        norms = [self.stem.norm, *(step.norm for step in self.downs)]
        levels = tuple(len(norm.weight) for norm in norms if isinstance(norm, InstanceNorm))
        steps = f"steps={lengths(self.steps)}, twice that from level to level"
        return f"{self.in_channels} -> {levels} -> {self.out_channels} channels, {steps}, {sized(self)}"

    def forward(self, values: Tensor, source: Grid, query: Grid | None = None) -> Tensor:
        """Values on a grid to answers at the nodes of another.

        Args:
            values: ``(B, in_channels, *source.sizes)``.
            source: where they were sampled, coordinate units.
            query: where answers are wanted, None = at the source. Its steps and the first level's must be in a ratio
                of small integers, as the source's are.

        Returns:
            ``(B, out_channels, *query.sizes)``.

        Raises:
            ValueError: values of other channels or sizes, a source with axes that repeat, grids of another number of
                axes.
        """
        warn_uncalibrated(self, "calibrate(values, source)")
        return self._answers(values, source, source if query is None else query)

    @torch.no_grad()
    @outside_autocast
    def calibrate(self, values: Tensor, source: Grid) -> None:
        """Scale all kernels, first to last, for values like these; once, before training."""
        self._answers(values, source, source, calibrating=True)

    def kernels(self) -> dict[str, Kernel]:
        """The kernels of all convolutions by name."""
        convolutions = {name: module for name, module in self.named_modules() if isinstance(module, ContinuousConv)}
        return {
            name.removesuffix(".depthwise").removesuffix(".conv"): convolution.kernel
            for name, convolution in convolutions.items()
        }

    def _answers(self, values: Tensor, source: Grid, query: Grid, *, calibrating: bool = False) -> Tensor:
        wanted = (self.in_channels, *source.sizes)
        require(values.shape[1:] == wanted, "values", f"have shape (B, {', '.join(map(str, wanted))})", values.shape)
        grids = level_grids(source, self.steps, len(self.down_levels))
        hidden = self.stem(values, source, grids[0], calibrating=calibrating)
        down = [self.down_levels[0](hidden, grids[0], calibrating=calibrating)]
        for step, level, (fine, coarse) in zip(
            self.downs, self.down_levels[1:], itertools.pairwise(grids), strict=True
        ):
            down.append(level(step(down[-1], fine, coarse, calibrating=calibrating), coarse, calibrating=calibrating))
        hidden = down[-1]
        for number in reversed(range(len(self.ups))):
            fine, coarse = grids[number], grids[number + 1]
            finer = self.ups[number](self.narrow[number](hidden), coarse, fine, calibrating=calibrating)
            hidden = self.mixes[number](torch.cat([finer, down[number]], dim=1))
            hidden = self.up_levels[number](hidden, fine, calibrating=calibrating)
        hidden = self.norm(hidden, grids[0])
        if calibrating:
            self.readout.calibrate(grids[0], query, hidden)
        return self.output(nn.functional.gelu(self.readout(hidden, grids[0], query)))
