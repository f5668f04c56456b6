"""Networks for point clouds: one label per cloud, or one per point, on levels of coarser and coarser points."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, final, get_args

import torch
from torch import Tensor, nn

from ccnn_irregular._autocast import outside_autocast
from ccnn_irregular._checks import require
from ccnn_irregular._reprs import lengths, one_line, sized
from ccnn_irregular.adapters.geometric import CLOUD_KERNEL, Array, cloud_points, require_resolution
from ccnn_irregular.adapters.geometric_sampling import coarsen_farthest, coarsen_voxels, places
from ccnn_irregular.domains import Points
from ccnn_irregular.domains.points import as_tensor
from ccnn_irregular.kernels import Kernel, KernelSpec
from ccnn_irregular.layers import (
    BatchNorm,
    ContinuousConv,
    Dropout,
    PointwiseLinear,
    SeparableContinuousConv,
    mean_over_positions,
    warn_uncalibrated,
)
from ccnn_irregular.networks import ResidualBlock
from ccnn_irregular.solver import Solver

__all__ = ["CloudCCNN", "CloudNetwork", "CloudUNet", "Coarsening"]

Coarsening = Literal["voxels", "farthest"]


@final
class _Step(nn.Module):
    """A convolution between two levels, norm and GELU."""

    def __init__(self, convolution: ContinuousConv | SeparableContinuousConv, channels: int) -> None:
        super().__init__()
        self.conv = convolution
        self.norm = BatchNorm(channels)

    __repr__ = one_line

    def extra_repr(self) -> str:
        return repr(self.conv)

    def forward(self, values: Tensor, source: Points, query: Points) -> Tensor:
        return nn.functional.gelu(self.norm(self.conv(values, source, query), query))

    @torch.no_grad()
    def calibrate(self, values: Tensor, source: Points, query: Points) -> Tensor:
        """Scale the kernel to what arrives, and return what leaves, normalised by its own statistics."""
        if isinstance(self.conv, SeparableContinuousConv):
            self.conv.calibrate(source, query, values)
        else:
            self.conv.calibrate(source, query)
        return nn.functional.gelu(self.norm.by_these(self.conv(values, source, query), query))


@final
class _Level(nn.Module):
    """Residual blocks on the points of one level."""

    def __init__(self, blocks: Iterable[ResidualBlock]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def _residual_blocks(self) -> Iterator[ResidualBlock]:
        for block in self.blocks:
            assert isinstance(block, ResidualBlock)
            yield block

    def forward(self, values: Tensor, points: Points, *, calibrating: bool = False) -> Tensor:
        convolutions = [block.conv.depthwise for block in self._residual_blocks()]
        if not convolutions:
            return values
        solver = Solver.shared(layer.solver for layer in convolutions)
        plan = solver.plan([layer.kernel for layer in convolutions], points)
        for block in self._residual_blocks():
            if calibrating:
                values = block.calibrate(values, points, len(self.blocks), plan)
            else:
                values = block(values, points, plan)
        return values


@dataclass(frozen=True)
class _Levels:
    """How the layers of each level are built, fine to coarse."""

    channels: Sequence[int]
    kernels: Sequence[KernelSpec]
    blocks: int
    dropout: float
    solver: Solver

    def step(self, level: int, in_channels: int, out_channels: int) -> _Step:
        """To or from ``level``, with its kernel."""
        kernel = self.kernels[level](in_channels)
        return _Step(SeparableContinuousConv(kernel, out_channels, solver=self.solver), out_channels)

    def residual(self, level: int) -> _Level:
        """The blocks on ``level``."""
        channels, kernel = self.channels[level], self.kernels[level]
        return _Level(
            ResidualBlock(channels, kernel(channels), self.dropout, solver=self.solver) for _ in range(self.blocks)
        )


@final
class _Encoder(nn.Module):
    """From the given points to levels of coarser ones."""

    def __init__(
        self, in_channels: int, spacings: Sequence[float], coarsening: Coarsening, ratio: float, levels: _Levels
    ) -> None:
        super().__init__()
        require(coarsening in get_args(Coarsening), "coarsening", f"be one of {get_args(Coarsening)}", repr(coarsening))
        self.in_channels = in_channels
        self.coarsening = coarsening
        self.ratio = ratio
        self.spacings = spacings
        first = levels.channels[0]
        steps = [_Step(ContinuousConv(levels.kernels[0](in_channels, first), solver=levels.solver), first)]
        for level, (fine, coarse) in enumerate(itertools.pairwise(levels.channels), 1):
            steps.append(levels.step(level, fine, coarse))
        self.steps = nn.ModuleList(steps)
        self.levels = nn.ModuleList(levels.residual(level) for level in range(len(levels.channels)))

    def extra_repr(self) -> str:
        given = f"{self.coarsening!r}, " + (f"ratio={self.ratio:g}, " if self.coarsening == "farthest" else "")
        return f"{given}spacings={lengths(self.spacings)}"

    @property
    def finest(self) -> Kernel:
        """The first kernel."""
        step = self.steps[0]
        assert isinstance(step, _Step)
        return step.conv.kernel

    def given(
        self,
        x: Tensor | Array | None,
        pos: Tensor | Array,
        batch: Tensor | Array | None,
        weight: Tensor | Array | None,
        batch_size: int | None,
    ) -> tuple[Tensor, Points]:
        """The arguments of a forward pass as values on points."""
        require_resolution("pos", pos, self.finest)
        points = cloud_points(pos, batch, weight, batch_size)
        if x is None:
            require(self.in_channels == 1, "x", "be given for a network with several channels in", x)
            x = self.finest.extent.new_ones(points.count, 1)
        return as_tensor("x", x), points

    def at_places(
        self,
        x: Tensor | Array | None,
        pos: Tensor | Array,
        batch: Tensor | Array | None,
        weight: Tensor | Array | None,
    ) -> tuple[Tensor, Points]:
        """The same, each place once: noise at points that share a place is the same noise."""
        values, points = self.given(x, pos, batch, weight, None)
        distinct, rows = places(points)
        return values[rows], distinct

    def coarser(self, points: Points) -> list[Points]:
        """The points of each level, fine to coarse."""
        levels = []
        for spacing in self.spacings:
            if self.coarsening == "voxels":
                points = coarsen_voxels(points, spacing)
            else:
                points = coarsen_farthest(points, self.ratio)
            levels.append(points)
        return levels

    def forward(
        self, values: Tensor, points: Points, levels: Sequence[Points], *, calibrating: bool = False
    ) -> list[Tensor]:
        """Values on every level."""
        results = []
        for step, level, coarse in zip(self.steps, self.levels, levels, strict=True):
            assert isinstance(step, _Step)
            values = step.calibrate(values, points, coarse) if calibrating else step(values, points, coarse)
            values = level(values, coarse, calibrating=calibrating)
            points = coarse
            results.append(values)
        return results


class CloudNetwork(nn.Module, ABC):
    """What networks of clouds share: levels of coarser and coarser points, and torch-geometric's way of calling.

    A full continuous convolution leads from the points to the first level, then a strided convolution to each further
    level; on every level there are residual blocks of the CCNN. All sums are integrals over what was sampled: give the
    quadrature weights, and the answer follows the shape and not the sampling.

    Args:
        in_channels: channels of ``x``; with 1, ``x`` may be None: the constant 1 on the cloud.
        out_channels: channels of the answer (classes).
        dim: number of coordinate axes.
        channels: channels of each level, fine to coarse.
        spacing: distance of neighbouring points on the first level, units of ``pos``; doubled from level to level.
        kernel: recipe of all kernels, its lengths in spacings of their level. Without an extent, it is where the mask
            ends at first, 3.03 times its width. Isotropic kernels give answers that do not change when a cloud is
            turned. Voxels lie along the axes and are turned only nearly with the cloud; "farthest" are turned exactly.
        coarsening: "voxels" = one point for each cell of edge ``spacing``, "farthest" = farthest-point sampling, see
            ``geometric_sampling``.
        ratio: with "farthest", share of the points that each level keeps.
        blocks: residual blocks on each level, on the way down and, where there is one, up.
        dropout: probability in every block, and before the last layer.
        solver: engine and tolerance of all sums, see ``CCNNConv``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        dim: int = 3,
        channels: Sequence[int] = (32, 64, 128),
        spacing: float,
        kernel: KernelSpec = CLOUD_KERNEL,
        coarsening: Coarsening = "voxels",
        ratio: float = 0.25,
        blocks: int = 1,
        dropout: float = 0.0,
        solver: Solver = Solver("neighbours"),
    ) -> None:
        super().__init__()
        require(len(channels) >= 1, "channels", "name one level or more", tuple(channels))
        spacings = [spacing * 2**level for level in range(len(channels))]
        kernels = [kernel.scaled([spacing] * dim) for spacing in spacings]
        levels = _Levels(channels, kernels, blocks, dropout, solver)
        self.encoder = _Encoder(in_channels, spacings, coarsening, ratio, levels)
        self._add_head(in_channels, out_channels, levels)

    def extra_repr(self) -> str:
        return sized(self)

    @abstractmethod
    def _add_head(self, in_channels: int, out_channels: int, levels: _Levels) -> None:
        """Add the layers behind the encoder."""

    @abstractmethod
    def _answer(self, values: Tensor, points: Points) -> Tensor:
        """The answer to values on points."""

    @abstractmethod
    def _calibrate(self, values: Tensor, points: Points) -> None:
        """Scale all kernels for values like these."""

    def forward(
        self,
        x: Tensor | Array | None,
        pos: Tensor | Array,
        batch: Tensor | Array | None = None,
        weight: Tensor | Array | None = None,
        batch_size: int | None = None,
    ) -> Tensor:
        """Values on clouds to one row per cloud (``CloudCCNN``) or per point (``CloudUNet``); NumPy arrays serve too.

        Args:
            x: ``(N, in_channels)``, or None.
            pos: ``(N, dim)`` positions.
            batch: int64 ``(N,)`` cloud of each row, never falling; None = one cloud.
            weight: ``(N,)`` quadrature weights; None = each cloud weighs 1, all of its points the same.
            batch_size: number of clouds, where the last ones may be empty.

        Returns:
            ``(B, out_channels)`` or ``(N, out_channels)``; an empty cloud has the answer of ``CloudCCNN``'s last two
            layers to a mean of 0.

        Raises:
            ValueError: see ``CCNNConv``; a batch in training without any point.
        """
        warn_uncalibrated(self, "calibrate(x, pos, batch, weight)")
        return self._answer(*self.encoder.given(x, pos, batch, weight, batch_size))

    @torch.no_grad()
    @outside_autocast
    def calibrate(
        self,
        x: Tensor | Array | None,
        pos: Tensor | Array,
        batch: Tensor | Array | None = None,
        weight: Tensor | Array | None = None,
    ) -> None:
        """Scale all kernels, first to last, for clouds like these; once, before training."""
        self._calibrate(*self.encoder.at_places(x, pos, batch, weight))


@final
class CloudCCNN(CloudNetwork):
    """Classifier of point clouds, called as torch-geometric's models are: ``model(x, pos, batch)``.

    The mean over the last level of a ``CloudNetwork``, whose arguments it has, and two linear layers.
    """

    def _add_head(self, in_channels: int, out_channels: int, levels: _Levels) -> None:
        channels = levels.channels[-1]
        self.norm = BatchNorm(channels)
        self.hidden = PointwiseLinear(channels, channels)
        self.dropout = nn.Dropout(levels.dropout)
        self.output = PointwiseLinear(channels, out_channels)

    def _answer(self, values: Tensor, points: Points) -> Tensor:
        levels = self.encoder.coarser(points)
        last = self.norm(self.encoder(values, points, levels)[-1], levels[-1])
        mean = mean_over_positions(last, levels[-1])
        return self.output(self.dropout(nn.functional.gelu(self.hidden(mean))))

    def _calibrate(self, values: Tensor, points: Points) -> None:
        levels = self.encoder.coarser(points)
        self.norm.by_these(self.encoder(values, points, levels, calibrating=True)[-1], levels[-1])


@final
class CloudUNet(CloudNetwork):
    """U-shaped network with one answer per point, called as torch-geometric's models are: ``model(x, pos, batch)``.

    The levels of a ``CloudNetwork``, whose arguments it has, down, and up again: transposed convolutions are evaluated
    at the finer level's points and mixed with what was there on the way down, at last at the given points, with their
    own values.
    """

    def _add_head(self, in_channels: int, out_channels: int, levels: _Levels) -> None:
        ups, mixes, residual = [], [], []
        for level, (fine, coarse) in enumerate(itertools.pairwise(levels.channels)):
            ups.append(levels.step(level + 1, coarse, fine))
            mixes.append(PointwiseLinear(2 * fine, fine))
            residual.append(levels.residual(level))
        self.ups, self.mixes, self.levels = nn.ModuleList(ups), nn.ModuleList(mixes), nn.ModuleList(residual)
        first = levels.channels[0]
        self.readout = levels.step(0, first, first)
        self.own = PointwiseLinear(first + in_channels, first)
        self.dropout = Dropout(levels.dropout, "value")
        self.output = PointwiseLinear(first, out_channels)

    def _answer(self, values: Tensor, points: Points) -> Tensor:
        hidden = self._decoded(values, points, calibrating=False)
        mixed = nn.functional.gelu(self.own(torch.cat([hidden, values], dim=1)))
        return self.output(self.dropout(mixed, points))

    def _calibrate(self, values: Tensor, points: Points) -> None:
        self._decoded(values, points, calibrating=True)

    def _decoded(self, values: Tensor, points: Points, *, calibrating: bool) -> Tensor:
        """Values of the last hidden layer at the given points."""
        coarse = self.encoder.coarser(points)
        down = self.encoder(values, points, coarse, calibrating=calibrating)
        hidden = down[-1]

        def stepped(step: nn.Module, source: Points, query: Points) -> Tensor:
            assert isinstance(step, _Step)
            return step.calibrate(hidden, source, query) if calibrating else step(hidden, source, query)

        for level in reversed(range(len(self.ups))):
            finer = stepped(self.ups[level], coarse[level + 1], coarse[level])
            hidden = self.mixes[level](torch.cat([finer, down[level]], dim=1))
            hidden = self.levels[level](hidden, coarse[level], calibrating=calibrating)
        return stepped(self.readout, coarse[0], points)
