"""The CCNN for any domain, and its frozen form on one grid."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal, Self, final, get_args

import torch
from torch import Tensor, nn
from torch._compile import _disable_dynamo

from ccnn_irregular._autocast import outside_autocast
from ccnn_irregular._checks import reject, require
from ccnn_irregular._reprs import sized
from ccnn_irregular.domains import Domain, Grid
from ccnn_irregular.kernels import Kernel, KernelSpec, energy_above
from ccnn_irregular.layers import (
    BatchNorm,
    Dropout,
    DropoutUnit,
    PointwiseLinear,
    SampledConv,
    SeparableContinuousConv,
    mean_over_positions,
    warn_uncalibrated,
)
from ccnn_irregular.networks.blocks import ResidualBlock
from ccnn_irregular.operators import Plan
from ccnn_irregular.solver import Solver

__all__ = ["CCNN", "FrozenCCNN"]

HeadName = Literal["classify", "dense", "anywhere"]

# Calibration looks at this many values of a channel or more, in at least two samples.
_CALIBRATION_VALUES = 4096


@final
class CCNN(nn.Module):
    """Continuous CNN (Knigge et al., arXiv 2301.10540; Romero et al., arXiv 2206.03398) for any domain.

    Stem (separable continuous convolution, norm, GELU), residual blocks, norm, and a linear head on
    the mean over positions, at every position, or anywhere. Nothing is downsampled. Everything is in
    coordinate units: the same network reads any length, rate and sampling.

    With a ``latent`` grid the stem is evaluated at the grid's nodes, so irregular samples come in
    and every later layer is an exact FFT convolution; without one all layers stay on the input's domain.

    Args:
        in_channels: channels of the input.
        hidden_channels: channels of all blocks.
        out_channels: channels of the output (classes).
        kernel: recipe of all kernels.
        blocks: number of residual blocks.
        dropout: probability in every block.
        dropout_unit: "channel" drops whole channels of a sample, "value" single values; see ``Dropout``.
        input_dropout: probability of dropping a value of the input.
        latent: regular grid the stem is evaluated on; None = the input's own domain.
        head: "classify" for one output per sample from the mean over positions, "dense" for one per position,
            "anywhere" for outputs at any coordinates: one more separable convolution, from the last hidden domain to
            the query, and GELU before the linear layer. A causal network then forecasts at times after the last
            sample, as far as its kernels reach.
        solver: engine and tolerance of every layer; behind a latent grid the FFT alone.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        *,
        kernel: KernelSpec,
        blocks: int = 4,
        dropout: float = 0.0,
        dropout_unit: DropoutUnit = "channel",
        input_dropout: float = 0.0,
        latent: Grid | None = None,
        head: HeadName = "classify",
        solver: Solver = Solver(),
    ) -> None:
        super().__init__()
        require(head in get_args(HeadName), "head", f"be one of {get_args(HeadName)}", repr(head))
        self.latent = latent
        self.head = head

        kernel = kernel if latent is None else kernel.on_axes(latent.d)
        self.input_dropout = Dropout(input_dropout, "value")
        self.stem = SeparableContinuousConv(kernel(in_channels), hidden_channels, solver=solver)
        # Behind a latent grid the blocks see nothing but that grid.
        solver = solver if latent is None else replace(solver, engine="auto")
        self.stem_norm = BatchNorm(hidden_channels)
        self.blocks = nn.ModuleList(
            ResidualBlock(hidden_channels, kernel(hidden_channels), dropout, dropout_unit=dropout_unit, solver=solver)
            for _ in range(blocks)
        )
        self.norm = BatchNorm(hidden_channels)
        self.readout: SeparableContinuousConv | None = None
        if head == "anywhere":
            self.readout = SeparableContinuousConv(kernel(hidden_channels), hidden_channels, solver=solver)
        self.output = PointwiseLinear(hidden_channels, out_channels)

    @property
    def in_channels(self) -> int:
        """Channels of the input; other layers before the network may be resized with it, see ``integral``."""
        return self.stem.depthwise.in_channels

    def extra_repr(self) -> str:
        channels = " -> ".join(map(str, (self.in_channels, self.output.in_features, self.output.out_features)))
        first = f"{channels} channels, {len(self.blocks)} blocks, head={self.head!r}, {sized(self)}"
        return first if self.latent is None else f"{first}\nlatent={self.latent!r}"

    def forward(self, values: Tensor, source: Domain, query: Domain | None = None) -> Tensor:
        """Values on ``source`` to outputs.

        Args:
            values: ``(N, C)`` on Points, ``(B, C, *sizes)`` on Grid, ``(N, C, *sizes)`` on Product; where a
                weight of the source is 0 the value is never read.
            source: where the values were sampled.
            query: with head "anywhere" where outputs are wanted, as in ``ccnn_irregular.convolve``; else None.

        Returns:
            ``(B, out_channels)`` with head "classify"; with "dense" values on the latent grid or the source, with
            "anywhere" on the query, in that domain's convention.

        Raises:
            ValueError: a query that is missing or not asked for; else see ``ccnn_irregular.convolve``.
        """
        rule = "be given with head 'anywhere' and with no other"
        if (query is None) != (self.readout is None):
            reject("query", rule, f"{query!r} with head {self.head!r}")
        features, domain = self.features(values, source)
        if self.readout is not None:
            plan = self.readout.depthwise.plan(domain, query, batch=domain.batch_size(features))
            features = nn.functional.gelu(self.readout(features, domain, query, plan))
        elif self.head == "classify":
            features = mean_over_positions(features, domain)
        return self.output(features)

    def features(self, values: Tensor, source: Domain) -> tuple[Tensor, Domain]:
        """Values of the last hidden layer and the domain they live on."""
        warn_uncalibrated(self, "calibrate(source, values)")
        domain = self._hidden_domain(values, source)
        batch = source.batch_size(values)
        plan = self._plan(domain, batch)
        stem_plan = plan if self.latent is None else self.stem.depthwise.plan(source, domain, batch=batch)
        values = self.input_dropout(values, source)
        hidden = nn.functional.gelu(self.stem_norm(self.stem(values, source, domain, stem_plan), domain))
        for block in self.blocks:
            hidden = block(hidden, domain, plan)
        return self.norm(hidden, domain), domain

    def _hidden_domain(self, values: Tensor, source: Domain) -> Domain:
        """Where the hidden layers live, once the input has been looked at."""
        require(
            values.ndim >= 2 and values.shape[1] == self.in_channels,
            "values",
            f"have {self.in_channels} channels on axis 1",
            tuple(values.shape),
        )
        if self.latent is None and source.weighs_channels:
            rule = "have one weight per point, (N,), unless a latent grid follows the first layer"
            reject("source.weights", rule, "one per point and channel, (N, C)")
        return source if self.latent is None else self.latent

    @_disable_dynamo
    def _plan(self, domain: Domain, batch: int) -> Plan:
        """One plan for all layers on the hidden layers' domain."""
        first = [block.conv.depthwise for block in self._residual_blocks()]
        layers = first if self.latent is not None else [*first, self.stem.depthwise]
        solver = Solver.shared(layer.solver for layer in layers)
        return solver.plan([layer.kernel for layer in layers], domain, batch=batch)

    def _stem_plan(self, plan: Plan) -> Plan | None:
        return plan if self.latent is None else None

    def _residual_blocks(self) -> Iterator[ResidualBlock]:
        for block in self.blocks:
            assert isinstance(block, ResidualBlock)
            yield block

    def kernels(self) -> dict[str, Kernel]:
        """The kernels of all layers by name, first to last."""
        convolutions = {
            name: module for name, module in self.named_modules() if isinstance(module, SeparableContinuousConv)
        }
        return {name: module.kernel for name, module in convolutions.items()}

    def energy_above(self, steps: Sequence[float | None]) -> Tensor:
        """Share of the kernels' energy that a sampling of these steps cannot carry, summed over kernels and axes.

        Times a factor and added to the loss it keeps a network that is trained at one rate free of aliases at another;
        see ``ccnn_irregular.kernels.energy_above``, whose shares are averaged over the channels of each kernel here.

        Args:
            steps: distance of neighbouring samples per axis, coordinate units; None = an axis that is left out.
        """
        return torch.stack(
            [energy_above(kernel, steps).flatten(1).mean(1).sum() for kernel in self.kernels().values()]
        ).sum()

    def frozen(self, source: Grid) -> FrozenCCNN:
        """The network for one grid as tensor operations alone, its kernels sampled once; see ``FrozenCCNN``."""
        return FrozenCCNN(self, source)

    @torch.no_grad()
    @outside_autocast
    def calibrate(self, source: Domain, values: Tensor | None = None) -> None:
        """Make the network keep the scale of its input for the sampling at hand, at any depth.

        Layer by layer, first to last, kernels are scaled so that each separable convolution keeps the mean square of
        what arrives there (see ``SeparableContinuousConv.calibrate``), and the residual branches so that all of them
        together add a bounded share to the stream (see ``ResidualBlock.calibrate``). To be called once, before
        training; nothing changes but these weights and the stored statistics of the norms, which begin with those met.

        Args:
            source: a typical sampling; values of all kernels' scales follow from it.
            values: a batch on ``source``; None = white noise, the same in every call.

        Raises:
            ValueError: as in a forward pass, or a kernel's support that holds no pair of positions.
        """
        values = self._noise(source) if values is None else values
        domain = self._hidden_domain(values, source)
        plan = self._plan(domain, source.batch_size(values))
        stem_plan = self._stem_plan(plan)
        self.stem.calibrate(source, domain, values, stem_plan)
        hidden = self.stem_norm.by_these(self.stem(values, source, domain, stem_plan), domain)
        hidden = nn.functional.gelu(hidden)
        training = self.training
        self.eval()  # no dropout; norms take the statistics of what arrives
        for block in self._residual_blocks():
            hidden = block.calibrate(hidden, domain, len(self.blocks), plan)
        normed = self.norm.by_these(hidden, domain)
        if self.readout is not None:
            self.readout.calibrate(domain, values=normed)
        self.train(training)

    def _noise(self, source: Domain) -> Tensor:
        """White noise on ``source``; on a grid in as many entries as make it typical."""
        dtype, device = self.output.weight.dtype, self.output.weight.device
        generator = torch.Generator().manual_seed(0)
        entries = max(2, math.ceil(_CALIBRATION_VALUES / max(1, source.count)))
        shape = source.values_shape(self.in_channels, entries)
        return torch.randn(shape, generator=generator, dtype=dtype).to(device)


@final
class FrozenCCNN(nn.Module):
    """A trained ``CCNN`` on one grid: no generator, no plan, no choice that depends on a value.

    So ``torch.export`` and ``torch.compile(..., fullgraph=True)`` take it, which they cannot do with the network
    itself: that one reads the supports of its kernels in every pass. Answers are those of the network in evaluation
    mode.

    Args:
        network: with head "classify" or "dense"; copied, and not changed.
        source: the grid inputs will come on; every batch size is allowed.

    Raises:
        ValueError: head "anywhere", or grids of input and latent that have no common lattice.
    """

    def __init__(self, network: CCNN, source: Grid) -> None:
        super().__init__()
        require(network.head != "anywhere", "network", "have head 'classify' or 'dense'", repr(network.head))
        domain = source if network.latent is None else network.latent
        # What is copied with the network is dropped again: only the sampled kernels stay.
        twin = copy.deepcopy(network).eval().requires_grad_(False)
        self.stem = SampledConv(twin.stem, source, domain)
        self.stem_norm = twin.stem_norm
        self.convolutions = nn.ModuleList(SampledConv(block.conv, domain, domain) for block in twin._residual_blocks())
        self.norms = nn.ModuleList(block.norm for block in twin._residual_blocks())
        self.linears = nn.ModuleList(block.linear for block in twin._residual_blocks())
        self.norm = twin.norm
        self.output = twin.output
        self.source = source
        self.domain = domain
        self.dense = network.head == "dense"
        self.eval()

    def extra_repr(self) -> str:
        channels = f"{self.stem.channels} -> {self.output.in_features} -> {self.output.out_features}"
        return f"{channels} channels, head={'dense' if self.dense else 'classify'!r}\nsource={self.source!r}"

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode."""
        return super().train(False)

    def forward(self, values: Tensor) -> Tensor:
        """``(B, C, *sizes)`` to ``(B, out_channels)``, or with a dense head to ``(B, out_channels, *sizes)``."""
        wanted = (self.stem.channels, *self.source.sizes)
        require(values.shape[1:] == wanted, "values", f"have shape (B, {', '.join(map(str, wanted))})", values.shape)
        gelu = nn.functional.gelu
        hidden = gelu(self.stem_norm(self.stem(values), self.domain))
        for convolution, norm, linear in zip(self.convolutions, self.norms, self.linears, strict=True):
            hidden = hidden + gelu(linear(gelu(convolution(norm(hidden, self.domain)))))
        hidden = self.norm(hidden, self.domain)
        return self.output(hidden if self.dense else mean_over_positions(hidden, self.domain))
