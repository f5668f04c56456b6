"""Networks for point clouds: one label per cloud, or one per point, on levels of coarser and coarser points."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, final, get_args

import torch
from torch import Tensor, nn

from ccnn_irregular._autocast import outside_autocast
from ccnn_irregular._checks import require
from ccnn_irregular.adapters.geometric import CloudGeneratorName, cloud_kernel, cloud_points, require_resolution
from ccnn_irregular.adapters.geometric_sampling import coarsen_farthest, coarsen_voxels, places
from ccnn_irregular.domains import Points
from ccnn_irregular.kernels import Kernel
from ccnn_irregular.layers import (
    BatchNorm,
    ContinuousConv,
    Dropout,
    PointwiseLinear,
    SeparableContinuousConv,
    mean_over_positions,
)
from ccnn_irregular.networks import ResidualBlock
from ccnn_irregular.operators import EngineName, make_plan

__all__ = ["CloudCCNN", "CloudUNet", "Coarsening"]

Coarsening = Literal["voxels", "farthest"]


@dataclass(frozen=True)
class _Options:
    """What all convolutions of a network share: arguments of ``cloud_kernel`` and of the layers, by name."""

    kernel: dict[str, Any]
    layer: dict[str, Any]

    def convolution(self, in_channels: int, out_channels: int, width: float) -> SeparableContinuousConv:
        return SeparableContinuousConv(self.depthwise(in_channels, width), out_channels, **self.layer)

    def depthwise(self, channels: int, width: float) -> Kernel:
        return cloud_kernel((channels,), width=width, **self.kernel)


@final
class _Step(nn.Module):
    """A convolution between two levels, norm and GELU."""

    def __init__(self, convolution: ContinuousConv | SeparableContinuousConv, channels: int) -> None:
        super().__init__()
        self.conv = convolution
        self.norm = BatchNorm(channels)

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

    def __init__(self, channels: int, blocks: int, width: float, dropout: float, options: _Options) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            ResidualBlock(channels, options.depthwise(channels, width), dropout, **options.layer) for _ in range(blocks)
        )

    def _residual_blocks(self) -> Iterator[ResidualBlock]:
        for block in self.blocks:
            assert isinstance(block, ResidualBlock)
            yield block

    def forward(self, values: Tensor, points: Points, *, calibrating: bool = False) -> Tensor:
        convolutions = [block.conv.depthwise for block in self._residual_blocks()]
        if not convolutions:
            return values
        kernels, rtol = [one.kernel for one in convolutions], min(one.rtol for one in convolutions)
        plan = make_plan(kernels, points, engine=convolutions[0].engine, rtol=rtol)
        for block in self._residual_blocks():
            if calibrating:
                values = block.calibrate(values, points, len(self.blocks), plan)
            else:
                values = block(values, points, plan)
        return values


@final
class _Encoder(nn.Module):
    """From the given points to levels of coarser ones."""

    def __init__(
        self,
        in_channels: int,
        channels: Sequence[int],
        spacing: float,
        width: float,
        coarsening: Coarsening,
        ratio: float,
        blocks: int,
        dropout: float,
        options: _Options,
    ) -> None:
        super().__init__()
        require(len(channels) >= 1, "channels", "name one level or more", tuple(channels))
        require(coarsening in get_args(Coarsening), "coarsening", f"be one of {get_args(Coarsening)}", repr(coarsening))
        self.in_channels = in_channels
        self.channels = tuple(channels)
        self.coarsening = coarsening
        self.ratio = ratio
        self.spacings = [spacing * 2**level for level in range(len(channels))]
        self.widths = [width * one for one in self.spacings]
        full = cloud_kernel((channels[0], in_channels), width=self.widths[0], **options.kernel)
        steps = [_Step(ContinuousConv(full, **options.layer), channels[0])]
        for level in range(1, len(channels)):
            convolution = options.convolution(channels[level - 1], channels[level], self.widths[level])
            steps.append(_Step(convolution, channels[level]))
        self.steps = nn.ModuleList(steps)
        self.levels = nn.ModuleList(
            _Level(one, blocks, own_width, dropout, options)
            for one, own_width in zip(channels, self.widths, strict=True)
        )

    @property
    def finest(self) -> Kernel:
        """The first kernel."""
        step = self.steps[0]
        assert isinstance(step, _Step)
        return step.conv.kernel

    def given(
        self, x: Tensor | None, pos: Tensor, batch: Tensor | None, weight: Tensor | None, batch_size: int | None
    ) -> tuple[Tensor, Points]:
        """The arguments of a forward pass as values on points."""
        require_resolution("pos", pos, self.finest)
        points = cloud_points(pos, batch, weight, batch_size)
        if x is None:
            require(self.in_channels == 1, "x", "be given for a network with several channels in", x)
            x = self.finest.extent.new_ones(points.count, 1)
        return x, points

    def at_places(
        self, x: Tensor | None, pos: Tensor, batch: Tensor | None, weight: Tensor | None
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


@final
class CloudCCNN(nn.Module):
    """Classifier of point clouds, called as torch-geometric's models are: ``model(x, pos, batch)``.

    A full continuous convolution from the points to the first level, then for each level a strided convolution, and
    residual blocks of the CCNN; the mean over the last level, and two linear layers. All sums are integrals over what
    was sampled: give the quadrature weights, and the answer follows the shape and not the sampling.

    Args:
        in_channels: channels of ``x``; with 1, ``x`` may be None: the constant 1 on the cloud.
        out_channels: number of classes.
        dim: number of coordinate axes.
        channels: channels of each level, fine to coarse.
        spacing: distance of neighbouring points on the first level, units of ``pos``; doubled from level to level.
        width: standard deviation of the masks in spacings of their level; kernels end at 3.03 times that.
        coarsening: "voxels" = one point for each cell of edge ``spacing``, "farthest" = farthest-point sampling, see
            ``geometric_sampling``.
        ratio: with "farthest", share of the points that each level keeps.
        blocks: residual blocks on each level.
        dropout: probability in every block, and before the last layer.
        isotropic: kernels of the distance alone: answers do not change when a cloud is turned. Voxels lie along
            the axes and are turned only nearly with the cloud; "farthest" are turned exactly.
        generator: "siren", "magnet", "random_fourier" or "mlp".
        generator_hidden: width of the generators' hidden layers.
        omega_0: frequency of the generators, per kernel extent.
        engine: a name in ``ENGINES`` or "auto", see ``CCNNConv``.
        rtol: relative error the "spectral" engine may make; all others are exact.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        dim: int = 3,
        channels: Sequence[int] = (32, 64, 128),
        spacing: float,
        width: float = 1.0,
        coarsening: Coarsening = "voxels",
        ratio: float = 0.25,
        blocks: int = 1,
        dropout: float = 0.0,
        isotropic: bool = False,
        generator: CloudGeneratorName = "siren",
        generator_hidden: int = 32,
        omega_0: float = 6.0,
        engine: EngineName = "neighbours",
        rtol: float = 1e-3,
    ) -> None:
        super().__init__()
        options = _options(dim, isotropic, generator, generator_hidden, omega_0, engine, rtol)
        self.encoder = _Encoder(in_channels, channels, spacing, width, coarsening, ratio, blocks, dropout, options)
        self.norm = BatchNorm(channels[-1])
        self.hidden = PointwiseLinear(channels[-1], channels[-1])
        self.dropout = nn.Dropout(dropout)
        self.output = PointwiseLinear(channels[-1], out_channels)

    def forward(
        self,
        x: Tensor | None,
        pos: Tensor,
        batch: Tensor | None = None,
        weight: Tensor | None = None,
        batch_size: int | None = None,
    ) -> Tensor:
        """Values on clouds to one row per cloud.

        Args:
            x: ``(N, in_channels)``, or None.
            pos: ``(N, dim)`` positions.
            batch: int64 ``(N,)`` cloud of each row, never falling; None = one cloud.
            weight: ``(N,)`` quadrature weights; None = each cloud weighs 1, all of its points the same.
            batch_size: number of clouds, where the last ones may be empty.

        Returns:
            ``(B, out_channels)``; an empty cloud has the answer of the last two layers to a mean of 0.

        Raises:
            ValueError: see ``CCNNConv``; a batch in training without any point.
        """
        values, points = self.encoder.given(x, pos, batch, weight, batch_size)
        levels = self.encoder.coarser(points)
        last = self.norm(self.encoder(values, points, levels)[-1], levels[-1])
        mean = mean_over_positions(last, levels[-1])
        return self.output(self.dropout(nn.functional.gelu(self.hidden(mean))))

    @torch.no_grad()
    @outside_autocast
    def calibrate(
        self, x: Tensor | None, pos: Tensor, batch: Tensor | None = None, weight: Tensor | None = None
    ) -> None:
        """Scale all kernels, first to last, for clouds like these; once, before training."""
        values, points = self.encoder.at_places(x, pos, batch, weight)
        self.encoder(values, points, self.encoder.coarser(points), calibrating=True)


@final
class CloudUNet(nn.Module):
    """U-shaped network with one answer per point, called as torch-geometric's models are: ``model(x, pos, batch)``.

    The levels of ``CloudCCNN`` down, and up again: transposed convolutions are evaluated at the finer level's points
    and mixed with what was there on the way down, at last at the given points, with their own values.

    Args:
        in_channels: channels of ``x``; with 1, ``x`` may be None: the constant 1 on the cloud.
        out_channels: answers per point (classes).
        dim: number of coordinate axes.
        channels: channels of each level, fine to coarse.
        spacing: distance of neighbouring points on the first level, units of ``pos``; doubled from level to level.
        width: standard deviation of the masks in spacings of their level; kernels end at 3.03 times that.
        coarsening: "voxels" or "farthest", see ``CloudCCNN``.
        ratio: with "farthest", share of the points that each level keeps.
        blocks: residual blocks on each level, down and up.
        dropout: probability in every block, and before the last layer.
        isotropic: kernels of the distance alone.
        generator: "siren", "magnet", "random_fourier" or "mlp".
        generator_hidden: width of the generators' hidden layers.
        omega_0: frequency of the generators, per kernel extent.
        engine: a name in ``ENGINES`` or "auto", see ``CCNNConv``.
        rtol: relative error the "spectral" engine may make; all others are exact.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        dim: int = 3,
        channels: Sequence[int] = (32, 64, 128),
        spacing: float,
        width: float = 1.0,
        coarsening: Coarsening = "voxels",
        ratio: float = 0.25,
        blocks: int = 1,
        dropout: float = 0.0,
        isotropic: bool = False,
        generator: CloudGeneratorName = "siren",
        generator_hidden: int = 32,
        omega_0: float = 6.0,
        engine: EngineName = "neighbours",
        rtol: float = 1e-3,
    ) -> None:
        super().__init__()
        options = _options(dim, isotropic, generator, generator_hidden, omega_0, engine, rtol)
        self.encoder = _Encoder(in_channels, channels, spacing, width, coarsening, ratio, blocks, dropout, options)
        widths = self.encoder.widths
        ups, mixes, levels = [], [], []
        for level in range(len(channels) - 1):
            finer, coarser = channels[level], channels[level + 1]
            ups.append(_Step(options.convolution(coarser, finer, widths[level + 1]), finer))
            mixes.append(PointwiseLinear(2 * finer, finer))
            levels.append(_Level(finer, blocks, widths[level], dropout, options))
        self.ups, self.mixes, self.levels = nn.ModuleList(ups), nn.ModuleList(mixes), nn.ModuleList(levels)
        self.readout = _Step(options.convolution(channels[0], channels[0], widths[0]), channels[0])
        self.own = PointwiseLinear(channels[0] + in_channels, channels[0])
        self.dropout = Dropout(dropout, "value")
        self.output = PointwiseLinear(channels[0], out_channels)

    def forward(
        self,
        x: Tensor | None,
        pos: Tensor,
        batch: Tensor | None = None,
        weight: Tensor | None = None,
        batch_size: int | None = None,
    ) -> Tensor:
        """Values on clouds to one row per point.

        Args:
            x: ``(N, in_channels)``, or None.
            pos: ``(N, dim)`` positions.
            batch: int64 ``(N,)`` cloud of each row, never falling; None = one cloud.
            weight: ``(N,)`` quadrature weights; None = each cloud weighs 1, all of its points the same.
            batch_size: number of clouds, where the last ones may be empty.

        Returns:
            ``(N, out_channels)``.

        Raises:
            ValueError: see ``CCNNConv``; a batch in training without any point.
        """
        values, points = self.encoder.given(x, pos, batch, weight, batch_size)
        hidden = self._decoded(values, points, calibrating=False)
        mixed = nn.functional.gelu(self.own(torch.cat([hidden, values], dim=1)))
        return self.output(self.dropout(mixed, points))

    @torch.no_grad()
    @outside_autocast
    def calibrate(
        self, x: Tensor | None, pos: Tensor, batch: Tensor | None = None, weight: Tensor | None = None
    ) -> None:
        """Scale all kernels, first to last, for clouds like these; once, before training."""
        values, points = self.encoder.at_places(x, pos, batch, weight)
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


def _options(
    dim: int,
    isotropic: bool,
    generator: CloudGeneratorName,
    generator_hidden: int,
    omega_0: float,
    engine: EngineName,
    rtol: float,
) -> _Options:
    kernel = {
        "d": dim,
        "isotropic": isotropic,
        "generator": generator,
        "generator_hidden": generator_hidden,
        "omega_0": omega_0,
    }
    return _Options(kernel, {"engine": engine, "rtol": rtol})
