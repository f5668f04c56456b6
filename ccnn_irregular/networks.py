"""Networks built of continuous convolutions: the CCNN for any domain, and its published sizes."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, Self, final, get_args

import torch
from torch import Tensor, nn
from torch._compile import _disable_dynamo

from ccnn_irregular._autocast import outside_autocast
from ccnn_irregular._checks import reject, require
from ccnn_irregular.domains import Domain, Grid, Points
from ccnn_irregular.kernels import MLP, SIREN, GaussianMask, Generator, Kernel, MAGNet, RandomFourier, energy_above
from ccnn_irregular.layers import (
    BatchNorm,
    Dropout,
    DropoutUnit,
    InstanceNorm,
    PointwiseLinear,
    SampledConv,
    SeparableContinuousConv,
    mean_over_positions,
    mean_square,
)
from ccnn_irregular.operators import EngineName, Plan, make_plan

__all__ = [
    "CCNN",
    "FrozenCCNN",
    "ResidualBlock",
    "ccnn_4_110",
    "ccnn_4_140",
    "ccnn_6_380",
    "masked_kernel",
    "unit_grid",
]

GeneratorName = Literal["magnet", "siren", "random_fourier", "mlp"]
MaskName = Literal["smooth", "cropped", "none"]
HeadName = Literal["classify", "dense", "anywhere"]
NormName = Literal["batch", "instance"]

# The published mask is cropped where it falls below this (arXiv 2110.08059).
_CROP = 0.1
_PUBLISHED_WIDTH = 0.075
# Mean square of all residual branches together, relative to the stream's, after calibration.
_BRANCHES = 1 / 16
# GELU is not homogeneous: a branch is scaled this many times.
_SCALINGS = 3
# Calibration looks at this many values of a channel or more, in at least two samples.
_CALIBRATION_VALUES = 4096
# Centres of MAGNet's filters spread over this many initial mask widths (arXiv 2206.03398).
_SPREAD_IN_WIDTHS = 1.667


def masked_kernel(
    channels: int,
    *,
    extent: Sequence[float],
    width: Sequence[float],
    omega_0: float,
    generator: GeneratorName = "magnet",
    generator_hidden: int = 32,
    mask: MaskName = "smooth",
    learned_mean: bool = False,
    causal: bool = False,
) -> Kernel:
    """Depthwise kernel of ``channels`` channels: a generator under a Gaussian mask of learned width.

    Args:
        channels: number of channels.
        extent: coordinate units per generator unit, one per axis; sets the kernel's finest detail with omega_0.
        width: initial standard deviation of the mask, coordinate units, one per axis.
        omega_0: ``omega_0`` of the generator; its unit is the generator's.
        generator: "magnet", "siren", "random_fourier" or "mlp".
        generator_hidden: width of the generator's hidden layers.
        mask: "smooth" reaches zero without a step, "cropped" is the published one (see ``GaussianMask``), "none" leaves
            the generator as it is, as far as the domain reaches; ``width`` then only places MAGNet's filters.
        learned_mean: let the mask's centre, zero at first, be learned.
        causal: zero for the future along axis 0.
    """
    d = len(extent)
    require(mask in get_args(MaskName), "mask", f"be one of {get_args(MaskName)}", repr(mask))
    require(not (learned_mean and mask == "none"), "learned_mean", "be False without a mask", learned_mean)
    require(len(width) == d, "width", f"have one entry per axis, {d}", tuple(width))
    network: Generator
    if generator == "magnet":
        relative = max(w / e for w, e in zip(width, extent, strict=True))
        network = MAGNet(
            d, channels, generator_hidden, omega_0=omega_0, spread=_SPREAD_IN_WIDTHS * relative, one_sided=causal
        )
    elif generator == "siren":
        network = SIREN(d, channels, generator_hidden, omega_0=omega_0)
    elif generator == "random_fourier":
        network = RandomFourier(d, channels, generator_hidden, omega_0=omega_0)
    elif generator == "mlp":
        network = MLP(d, channels, generator_hidden, omega_0=omega_0)
    else:
        reject("generator", f"be one of {get_args(GeneratorName)}", repr(generator))
    mean = (0.0,) * d if learned_mean else None
    window = {
        "smooth": lambda: GaussianMask(width, mean=mean),
        "cropped": lambda: GaussianMask(width, _CROP, mean=mean, smooth=False),
        "none": lambda: None,
    }[mask]()
    return Kernel(network, window, extent=extent, causal_axes=(0,) if causal else ())


@final
class ResidualBlock(nn.Module):
    """Norm, separable continuous convolution, GELU, dropout, linear, GELU; plus the input.

    The pre-norm block of the CCNN (arXiv 2206.03398, figure 2; 2301.10540).

    Args:
        channels: number of channels in and out.
        kernel: depthwise kernel of these channels.
        dropout: probability of dropping, in [0, 1).
        dropout_unit: what is dropped, see ``Dropout``.
        norm: "batch" as published, or "instance" for samples of unequal shapes, which come one by one.
        engine: a name in ``ENGINES`` or "auto".
        rtol: relative error the "spectral" engine may make.
    """

    def __init__(
        self,
        channels: int,
        kernel: Kernel,
        dropout: float = 0.0,
        *,
        dropout_unit: DropoutUnit = "channel",
        norm: NormName = "batch",
        engine: EngineName = "auto",
        rtol: float = 1e-3,
    ) -> None:
        super().__init__()
        require(norm in get_args(NormName), "norm", f"be one of {get_args(NormName)}", repr(norm))
        self.norm = BatchNorm(channels) if norm == "batch" else InstanceNorm(channels)
        self.conv = SeparableContinuousConv(kernel, channels, engine=engine, rtol=rtol)
        self.dropout = Dropout(dropout, dropout_unit)
        self.linear = PointwiseLinear(channels, channels)

    def forward(self, values: Tensor, domain: Domain, plan: Plan | None = None) -> Tensor:
        """Values on ``domain`` to values of the same shape."""
        branch = self._branch(self.norm(values, domain), domain, plan)
        # In place, for no backward pass reads what GELU gives; under autocast the stream is wider than the branch.
        return branch.add_(values) if branch.dtype == values.dtype else values + branch

    def _branch(self, normed: Tensor, domain: Domain, plan: Plan | None) -> Tensor:
        hidden = nn.functional.gelu(self.conv(normed, domain, plan=plan))
        return nn.functional.gelu(self.linear(self.dropout(hidden, domain)))

    @torch.no_grad()
    @outside_autocast
    def calibrate(self, values: Tensor, domain: Domain, depth: int = 1, plan: Plan | None = None) -> Tensor:
        """Scale kernel and linear layer for a block at any depth; returns what the block makes of ``values``.

        The kernel keeps the mean square of ``values``, normalised. The linear layer is scaled until the branch has a
        mean square of 1 / (16 depth) of the stream's: blocks add up to about as much whatever their number.

        Args:
            values: what arrives at the block.
            domain: where.
            depth: number of blocks in the network.
            plan: from ``self.conv.depthwise.plan``, if at hand.
        """
        normed = self.norm.by_these(values, domain)
        self.conv.calibrate(domain, values=normed, plan=plan)
        hidden = nn.functional.gelu(self.conv(normed, domain, plan=plan))
        wanted = mean_square(values, domain) * _BRANCHES / depth
        for _ in range(_SCALINGS):
            branch = nn.functional.gelu(self.linear(hidden))
            self.linear.weight.mul_(math.sqrt(wanted / mean_square(branch, domain)))
        return values + nn.functional.gelu(self.linear(hidden))


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
        blocks: number of residual blocks.
        extent: coordinate units per generator unit, one per axis.
        width: initial standard deviation of the kernels' masks, coordinate units, one per axis.
        omega_0: base frequency of the generators.
        generator: "magnet", "siren", "random_fourier" or "mlp".
        generator_hidden: width of the generators' hidden layers.
        mask: "smooth", "cropped" (as published) or "none", see ``masked_kernel``.
        learned_mean: let the masks' centres be learned.
        causal: kernels are zero for the future along axis 0.
        dropout: probability in every block.
        dropout_unit: "channel" drops whole channels of a sample, "value" single values; see ``Dropout``.
        input_dropout: probability of dropping a value of the input.
        latent: regular grid the stem is evaluated on; None = the input's own domain.
        head: "classify" for one output per sample from the mean over positions, "dense" for one per position,
            "anywhere" for outputs at any coordinates: one more separable convolution, from the last hidden domain to
            the query, and GELU before the linear layer. A causal network then forecasts at times after the last
            sample, as far as its kernels reach.
        engine: a name in ``ENGINES`` or "auto", for every layer; the FFT behind a latent grid.
        rtol: relative error the "spectral" engine may make; all others are exact.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        *,
        blocks: int = 4,
        extent: Sequence[float],
        width: Sequence[float],
        omega_0: float = 100.0,
        generator: GeneratorName = "magnet",
        generator_hidden: int = 32,
        mask: MaskName = "smooth",
        learned_mean: bool = False,
        causal: bool = False,
        dropout: float = 0.0,
        dropout_unit: DropoutUnit = "channel",
        input_dropout: float = 0.0,
        latent: Grid | None = None,
        head: HeadName = "classify",
        engine: EngineName = "auto",
        rtol: float = 1e-3,
    ) -> None:
        super().__init__()
        if latent is not None:
            require(latent.d == len(extent), "latent", f"have the kernels' {len(extent)} axes", latent.d)
        require(head in get_args(HeadName), "head", f"be one of {get_args(HeadName)}", repr(head))
        self.in_channels = in_channels
        self.latent = latent
        self.head = head

        def kernel(channels: int) -> Kernel:
            return masked_kernel(
                channels,
                extent=extent,
                width=width,
                omega_0=omega_0,
                generator=generator,
                generator_hidden=generator_hidden,
                mask=mask,
                learned_mean=learned_mean,
                causal=causal,
            )

        self.input_dropout = Dropout(input_dropout, "value")
        self.stem = SeparableContinuousConv(kernel(in_channels), hidden_channels, engine=engine, rtol=rtol)
        # Behind a latent grid the blocks see nothing but that grid.
        engine = engine if latent is None else "auto"
        self.stem_norm = BatchNorm(hidden_channels)
        self.blocks = nn.ModuleList(
            ResidualBlock(
                hidden_channels, kernel(hidden_channels), dropout, dropout_unit=dropout_unit, engine=engine, rtol=rtol
            )
            for _ in range(blocks)
        )
        self.norm = BatchNorm(hidden_channels)
        self.readout: SeparableContinuousConv | None = None
        if head == "anywhere":
            self.readout = SeparableContinuousConv(kernel(hidden_channels), hidden_channels, engine=engine, rtol=rtol)
        self.output = PointwiseLinear(hidden_channels, out_channels)

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
        require((query is None) == (self.readout is None), "query", rule, f"{query!r} with head {self.head!r}")
        features, domain = self.features(values, source)
        if self.readout is not None:
            features = nn.functional.gelu(self.readout(features, domain, query))
        elif self.head == "classify":
            features = mean_over_positions(features, domain)
        return self.output(features)

    def features(self, values: Tensor, source: Domain) -> tuple[Tensor, Domain]:
        """Values of the last hidden layer and the domain they live on."""
        domain = self._hidden_domain(values, source)
        plan = self._plan(domain, len(values) if isinstance(source, Grid) else source.samples)
        values = self.input_dropout(values, source)
        hidden = nn.functional.gelu(self.stem_norm(self.stem(values, source, domain, self._stem_plan(plan)), domain))
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
        if self.latent is None and isinstance(source, Points) and source.weights.ndim == 2:
            rule = "have one weight per point, (N,), unless a latent grid follows the first layer"
            reject("source.weights", rule, tuple(source.weights.shape))
        return source if self.latent is None else self.latent

    @_disable_dynamo
    def _plan(self, domain: Domain, batch: int) -> Plan:
        """One plan for all layers on the hidden layers' domain."""
        first = [block.conv.depthwise for block in self._residual_blocks()]
        layers = first if self.latent is not None else [*first, self.stem.depthwise]
        chosen = layers[0]
        kernels = [layer.kernel for layer in layers]
        return make_plan(kernels, domain, engine=chosen.engine, rtol=min(layer.rtol for layer in layers), batch=batch)

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
        training; nothing but these weights changes.

        Args:
            source: a typical sampling; values of all kernels' scales follow from it.
            values: a batch on ``source``; None = white noise, the same in every call.

        Raises:
            ValueError: as in a forward pass, or a kernel's support that holds no pair of positions.
        """
        values = self._noise(source) if values is None else values
        domain = self._hidden_domain(values, source)
        plan = self._plan(domain, len(values) if isinstance(source, Grid) else source.samples)
        stem_plan = self._stem_plan(plan)
        self.stem.calibrate(source, domain, values, stem_plan)
        hidden = self.stem_norm.by_these(self.stem(values, source, domain, stem_plan), domain)
        hidden = nn.functional.gelu(hidden)
        training = self.training
        self.eval()  # no dropout; norms take the statistics of what arrives
        for block in self._residual_blocks():
            hidden = block.calibrate(hidden, domain, len(self.blocks), plan)
        if self.readout is not None:
            self.readout.calibrate(domain, values=self.norm.by_these(hidden, domain))
        self.train(training)

    def _noise(self, source: Domain) -> Tensor:
        """White noise on ``source``; on a grid in as many entries as make it typical."""
        dtype, device = self.output.weight.dtype, self.output.weight.device
        generator = torch.Generator().manual_seed(0)
        if isinstance(source, Grid):
            shape = [max(2, math.ceil(_CALIBRATION_VALUES / source.count)), self.in_channels, *source.sizes]
        elif isinstance(source, Points):
            shape = [source.count, self.in_channels]
        else:
            shape = [source.points.count, self.in_channels, *source.grid.sizes]
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


def ccnn_4_110(d: int = 1, in_channels: int = 1, out_channels: int = 10, causal: bool = False, **options: Any) -> CCNN:
    """The CCNN of 4 blocks and 110 channels, of arXiv 2206.03398's first version; options as of ``ccnn_4_140``."""
    return _preset(110, 4, 32, d, in_channels, out_channels, causal, **options)


def ccnn_4_140(d: int = 1, in_channels: int = 1, out_channels: int = 10, causal: bool = False, **options: Any) -> CCNN:
    """The CCNN of 4 blocks and 140 channels (arXiv 2301.10540) for ``d`` axes.

    The published sizes of kernels are meant for coordinates in [-1, 1], see ``unit_grid``: extent 1, width 0.075.
    In other units give ``extent``, half the length of the domain, say, and with it the width follows.

    Args:
        d: number of coordinate axes.
        in_channels: channels of the input.
        out_channels: channels of the output (classes).
        causal: kernels are zero for the future along axis 0; published for sequences.
        **options: ``extent`` (one number or one per axis; default 1), ``width`` (likewise; default 0.075 of the
            extent), ``omega_0`` (default 2976.49), and every other option of ``CCNN``. Published values of
            ``omega_0``, 4,140 / 6,380 where they differ: sequential MNIST 2976.49, permuted 2985.63, sequential
            CIFAR-10 2386.49 / 4005.15, Speech Commands MFCC 750.18 / 1295.61, raw 1295.61, CIFAR-10 in 2-D 4231.57 /
            976.78, CIFAR-100 3521.55 / 679.14, STL-10 954.28, ModelNet40 500.

    Raises:
        ValueError: see ``CCNN``.
    """
    return _preset(140, 4, 32, d, in_channels, out_channels, causal, **options)


def ccnn_6_380(d: int = 1, in_channels: int = 1, out_channels: int = 10, causal: bool = False, **options: Any) -> CCNN:
    """The CCNN of 6 blocks and 380 channels (arXiv 2301.10540); options as of ``ccnn_4_140``."""
    return _preset(380, 6, 64, d, in_channels, out_channels, causal, **options)


def unit_grid(sizes: Sequence[int]) -> Grid:
    """A grid on [-1, 1] along its longest axis and with the same step, centred, on the others.

    On it the published widths and frequencies of the CCNN hold. Two nodes at least lie on the longest axis.
    """
    require(max(sizes, default=0) >= 2, "sizes", "hold an axis of at least 2 nodes", tuple(sizes))
    step = 2 / (max(sizes) - 1)
    return Grid(sizes, [step] * len(sizes), [-step * (size - 1) / 2 for size in sizes])


def _preset(
    hidden_channels: int,
    blocks: int,
    generator_hidden: int,
    d: int,
    in_channels: int,
    out_channels: int,
    causal: bool,
    *,
    extent: float | Sequence[float] = 1.0,
    width: float | Sequence[float] | None = None,
    **options: Any,
) -> CCNN:
    """A network of published size."""
    require(d >= 1, "d", "be at least 1", d)
    extents = _per_axis("extent", extent, d)
    defaults = {"blocks": blocks, "generator_hidden": generator_hidden, "omega_0": 2976.49}
    return CCNN(
        in_channels,
        hidden_channels,
        out_channels,
        extent=extents,
        width=[_PUBLISHED_WIDTH * e for e in extents] if width is None else _per_axis("width", width, d),
        causal=causal,
        **defaults | options,
    )


def _per_axis(name: str, given: float | Sequence[float], d: int) -> tuple[float, ...]:
    """One number per axis."""
    numbers = (given,) * d if isinstance(given, int | float) else tuple(given)
    require(len(numbers) == d, name, f"be one number or one per axis, {d}", numbers)
    return numbers
