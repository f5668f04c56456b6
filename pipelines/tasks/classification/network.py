"""Networks that tell samples apart: the CCNN with what surrounds it in a recipe, and one with fixed kernels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ccnn_irregular._checks import reject, require, require_finite
from ccnn_irregular._reprs import sized
from ccnn_irregular.datasets.processing.interpolation import between_samples
from ccnn_irregular.domains import Domain, Grid, Points
from ccnn_irregular.kernels import Kernel, KernelSpec, energy_above
from ccnn_irregular.layers import BatchNorm, DropoutUnit, SeparableContinuousConv
from ccnn_irregular.networks import CCNN, PUBLISHED_KERNEL
from ccnn_irregular.pipelines.tasks.classification.data import SampleBatch
from ccnn_irregular.pipelines.tasks.classification.standardise import Standardise
from ccnn_irregular.pipelines.train.reach import sampling_of, warn_of_kernel, warn_of_latent
from ccnn_irregular.solver import Solver

__all__ = [
    "ContinuousClassifier",
    "FilterBank",
    "FixedKernelClassifier",
    "GridOptions",
]


@dataclass
class GridOptions:
    """A grid in coordinate units.

    Attributes:
        sizes: nodes per axis.
        steps: distance of neighbouring nodes per axis.
        starts: first node per axis; null = 0.
    """

    sizes: list[int]
    steps: list[float]
    starts: list[float] | None = None

    def grid(self) -> Grid:
        """Make the grid."""
        return Grid(self.sizes, self.steps, self.starts)


@dataclass
class FilterBank:
    """A first convolution on a grid finer than that of the blocks, for recordings.

    Attributes:
        grid: where it is evaluated.
        channels: filters.
        kernel: recipe of its kernels, coordinate units.
    """

    grid: GridOptions
    channels: int
    kernel: KernelSpec


class ContinuousClassifier(nn.Module):
    """A CCNN that reads series at their own times, or samples on any grid, and gives one logit per class.

    All lengths are in the coordinates of the data set (seconds, pixels), so the same weights serve every sampling.
    The published widths and frequencies are meant for coordinates in [-1, 1]: ``kernel.extent`` half the length of the
    training samples makes them hold.

    Args:
        in_channels: channels of the data; ``ccnn fit`` takes what is null here and below from the training part.
        classes: number of classes.
        hidden_channels: channels of the blocks.
        blocks: residual blocks.
        kernel: recipe of the kernels, coordinate units.
        dropout: in the blocks.
        dropout_unit: "channel" or "value", see ``ccnn_irregular.layers.Dropout``.
        input_dropout: probability of dropping a value that the blocks' network reads.
        copies: the first convolution applies this many kernels to each channel of the data; published is 1.
        presence: give series read as points one more channel that is 1 at every sample: where the series is.
        each: standardise each sample by itself.
        latent: grid of the blocks; null = that of the data, "auto" = ``ccnn fit`` takes one that covers the training
            part. Series read as points need one to be fast.
        filter_bank: a first convolution on a finer grid than ``latent``.
        solver: engine and tolerance of sums over points.
    """

    def __init__(
        self,
        in_channels: int | None = None,
        classes: int | None = None,
        hidden_channels: int = 140,
        blocks: int = 4,
        kernel: KernelSpec | None = PUBLISHED_KERNEL,
        dropout: float = 0.0,
        dropout_unit: DropoutUnit = "channel",
        input_dropout: float = 0.0,
        copies: int = 1,
        presence: bool = False,
        each: bool = False,
        latent: GridOptions | Literal["auto"] | None = None,
        filter_bank: FilterBank | None = None,
        solver: Solver = Solver(),
    ) -> None:
        super().__init__()
        if in_channels is None or classes is None or kernel is None or latent == "auto":
            reject("in_channels, classes, kernel and latent", "be given: no data tell them here", "null or auto")
        require(in_channels >= 1, "in_channels", "be at least 1", in_channels)
        require(classes >= 2, "classes", "be at least 2", classes)
        require(copies >= 1, "copies", "be at least 1", copies)
        self.kernel = kernel
        self.in_channels = in_channels
        self.classes = classes
        self.copies = copies
        self.presence = presence
        self.standardise = Standardise(in_channels, each)
        read = (in_channels + presence) * copies
        self.filter_bank = filter_bank
        self.bank: SeparableContinuousConv | None = None
        if filter_bank is not None:
            if latent is None:
                reject("latent", "be given where filter_bank is", latent)
            causal = filter_bank.kernel.causal
            require(
                causal == kernel.causal, "filter_bank.kernel.causal", f"be {kernel.causal}, as kernel.causal", causal
            )
            bank_kernel = filter_bank.kernel.on_axes(len(filter_bank.grid.sizes))
            self.bank = SeparableContinuousConv(bank_kernel(read), filter_bank.channels, solver=solver)
            self.bank_norm = BatchNorm(filter_bank.channels)
            self.bank_grid = filter_bank.grid.grid()
            read = filter_bank.channels
        self.cnn = CCNN(
            read,
            hidden_channels,
            classes,
            kernel=kernel,
            blocks=blocks,
            dropout=dropout,
            dropout_unit=dropout_unit,
            input_dropout=input_dropout,
            latent=None if latent is None else latent.grid(),
            solver=solver,
        )

    def extra_repr(self) -> str:
        return f"{self.in_channels} -> {self.classes} classes, {sized(self)}"

    @torch.no_grad()
    def prepare(self, batch: SampleBatch, values: tuple[Tensor, Tensor | None]) -> None:
        """Take the normalisation from the training values and scale all layers for the sampling of ``batch``."""
        self.standardise.fit(*values)
        self._warn(batch.domain)
        read, domain = self._read(batch)
        if self.bank is not None:
            self.bank.calibrate(domain, self.bank_grid, read)
            read = nn.functional.gelu(self.bank_norm.by_these(self.bank(read, domain, self.bank_grid), self.bank_grid))
            domain = self.bank_grid
        self.cnn.calibrate(domain, read)

    def _warn(self, data: Domain) -> None:
        """Say so where kernels do not suit the data, or the grids between; see ``pipelines.train.reach``."""
        read = [sampling_of(data)]
        kernels = list(self.kernels().values())
        first, later = kernels[0], kernels[-1]
        if self.filter_bank is not None:
            warn_of_kernel(self.filter_bank.kernel, first.support, *read, option="filter_bank.kernel")
            read = [sampling_of(self.bank_grid, "the filter bank's grid")]
        if self.cnn.latent is not None:
            read.append(sampling_of(self.cnn.latent, "the latent grid"))
        warn_of_kernel(self.kernel, later.support, *read)
        evaluated = self.cnn.latent if self.filter_bank is None else self.bank_grid
        if evaluated is not None and isinstance(data, Points):
            warn_of_latent(evaluated, data.coordinates, first.support)

    def forward(self, batch: SampleBatch) -> Tensor:
        """Logits ``(B, classes)``."""
        read, domain = self._read(batch)
        if self.bank is not None:
            features = self.bank(read, domain, self.bank_grid)
            read, domain = nn.functional.gelu(self.bank_norm(features, self.bank_grid)), self.bank_grid
        return self.cnn(read, domain)

    def _read(self, batch: SampleBatch) -> tuple[Tensor, Domain]:
        """What the first convolution reads, and where."""
        values, domain = batch.values, batch.domain
        require(values.shape[1] == self.in_channels, "in_channels", "be the data's channels", tuple(values.shape))
        values = self.standardise(values, domain, batch.sampled)
        if isinstance(domain, Grid):
            require(not self.presence, "presence", "be false for samples on a grid", self.presence)
            # A view where there is but one channel: it is transformed once for all copies.
            one = self.in_channels == 1
            return values.expand(-1, self.copies, *domain.sizes) if one else values.repeat_interleave(
                self.copies, dim=1
            ), domain
        weights = domain.weights
        if self.presence:
            values = torch.cat([values, values.new_ones(len(values), 1)], dim=1)
            if weights.ndim == 2:
                # A row without any value says nothing about where the series is either.
                weights = torch.cat([weights, weights.amax(1, keepdim=True)], dim=1)
        if weights.ndim == 2:
            domain = Points(domain.coordinates, weights.repeat_interleave(self.copies, dim=1), domain.splits)
        return values.repeat_interleave(self.copies, dim=1), domain

    def energy_above(self, steps: Sequence[float | None]) -> Tensor:
        """Share of the kernels' energy that a sampling of the data with these steps cannot carry, summed over layers.

        Layers behind a latent grid never meet the data's sampling and are left out.
        """
        kernels = self.kernels()
        if self.bank is not None or self.cnn.latent is not None:
            kernels = dict([next(iter(kernels.items()))])
        return torch.stack([energy_above(kernel, steps).mean() for kernel in kernels.values()]).sum()

    def kernels(self) -> dict[str, Kernel]:
        """The learned kernels by layer; offsets in coordinate units."""
        first = {} if self.bank is None else {"filter_bank": self.bank.kernel}
        return first | self.cnn.kernels()


class FixedKernelClassifier(nn.Module):
    """A residual network of ordinary convolutions: what the CCNN is compared with.

    Its kernels count samples: at another rate or size they meet other frequencies than those they were trained on.

    Args:
        in_channels: channels of the data; null = as the training part, likewise classes.
        classes: number of classes.
        axes: 1 for series on a grid, 2 for images, 3 for volumes.
        hidden_channels: channels of all layers.
        blocks: residual blocks of two convolutions each.
        kernel_size: samples along each axis, odd.
        stem_kernel_size: of the first convolution, odd.
        stem_stride: of the first convolution.
        pool: each block but the last is followed by averages over so many samples.
        dropout: in the blocks.
        each: standardise each sample by itself.
        grid: series read as points are interpolated linearly onto this grid first, zeros beyond their ends; one more
            channel is 1 where the series is. null = the data lie on a grid.
    """

    def __init__(
        self,
        in_channels: int | None = None,
        classes: int | None = None,
        axes: int = 1,
        hidden_channels: int = 64,
        blocks: int = 4,
        kernel_size: int = 3,
        stem_kernel_size: int = 3,
        stem_stride: int = 1,
        pool: int = 1,
        dropout: float = 0.0,
        each: bool = False,
        grid: GridOptions | None = None,
    ) -> None:
        super().__init__()
        if in_channels is None or classes is None:
            reject("in_channels and classes", "be given: no data tell them here", "null")
        require(grid is None or len(grid.sizes) == axes == 1, "grid", "have one axis, as the network", axes)
        require(axes in (1, 2, 3), "axes", "be 1, 2 or 3", axes)
        for name, size in (("kernel_size", kernel_size), ("stem_kernel_size", stem_kernel_size)):
            require(size % 2 == 1, name, "be odd", size)
        convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
        norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[axes - 1]
        average = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)[axes - 1]
        self.in_channels = in_channels
        self.classes = classes
        self.axes = axes
        self.grid = None if grid is None else grid.grid()
        self.standardise = Standardise(in_channels, each)

        def layer(channels: int, size: int, stride: int = 1) -> list[nn.Module]:
            half = size // 2
            return [
                convolution(channels, hidden_channels, size, stride, padding=half, bias=False),
                norm(hidden_channels),
                nn.GELU(),
            ]

        read = in_channels + (grid is not None)
        self.stem = nn.Sequential(*layer(read, stem_kernel_size, stem_stride))
        self.blocks = nn.ModuleList(
            nn.Sequential(
                *layer(hidden_channels, kernel_size), nn.Dropout(dropout), *layer(hidden_channels, kernel_size)
            )
            for _ in range(blocks)
        )
        self.pool = average(pool, ceil_mode=True) if pool > 1 else nn.Identity()
        self.output = nn.Linear(hidden_channels, classes)

    def extra_repr(self) -> str:
        return f"{self.in_channels} -> {self.classes} classes, {sized(self)}"

    @torch.no_grad()
    def prepare(self, batch: SampleBatch, values: tuple[Tensor, Tensor | None]) -> None:
        """Take the normalisation from the training values."""
        self.standardise.fit(*values)

    def forward(self, batch: SampleBatch) -> Tensor:
        """Logits ``(B, classes)``."""
        values = batch.values
        require(values.shape[1] == self.in_channels, "in_channels", "be the data's", f"{tuple(values.shape)}")
        hidden = self.stem(self._on_grid(self.standardise(values, batch.domain, batch.sampled), batch.domain))
        for number, block in enumerate(self.blocks):
            hidden = hidden + block(hidden)
            if number + 1 < len(self.blocks):
                hidden = self.pool(hidden)
        return self.output(hidden.flatten(2).mean(2))

    def _on_grid(self, values: Tensor, domain: Domain) -> Tensor:
        """``(B, channels, *sizes)``, as the first convolution reads them."""
        if self.grid is None:
            gridded = isinstance(domain, Grid) and domain.d == self.axes
            require(gridded, "network", f"read samples on a grid of {self.axes} axes (fixed kernels)", f"{domain!r}")
            return values
        if not isinstance(domain, Points):
            reject("grid", "be null for samples on a grid", f"{domain!r}")
        require_finite("values (to be interpolated)", values)
        return _filled(values, domain, self.grid)


def _filled(values: Tensor, points: Points, grid: Grid) -> Tensor:
    """Series ``(N, C)`` on ``grid``, ``(B, C + 1, size)``: linear between samples; the last channel is 1 there."""
    times, splits, series = points.coordinates[:, 0], points.splits, points.samples
    nodes = grid.nodes(points.device)[:, 0]
    node_splits = torch.arange(series + 1, device=points.device) * grid.count
    found = between_samples(values, times, splits, nodes.repeat(series), node_splits).unflatten(0, (series, -1))
    # One nan after the last series stands for the ends of those without samples.
    ends = torch.nn.functional.pad(times, (0, 1), value=math.nan)
    empty = splits.diff() == 0
    first, last = (ends[place.masked_fill(empty, -1)][:, None] for place in (splits[:-1], splits[1:] - 1))
    rounding = 1e-6 * grid.steps[0]
    inside = ((nodes >= first - rounding) & (nodes <= last + rounding))[..., None]
    return torch.cat([torch.where(inside, found, 0.0), inside.to(found.dtype)], dim=2).transpose(1, 2)
