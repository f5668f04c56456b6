"""Networks built of continuous convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, final, get_args

import torch
from torch import Tensor, nn

from ccnn_irregular._checks import reject, require
from ccnn_irregular.domains import Domain, Grid, Points
from ccnn_irregular.kernels import MLP, SIREN, GaussianMask, Generator, Kernel, MAGNet, RandomFourier
from ccnn_irregular.layers import BatchNorm, PointwiseLinear, SeparableContinuousConv, mean_over_positions
from ccnn_irregular.operators import ENGINES, EngineName, Plan

__all__ = ["CCNN", "ResidualBlock", "masked_kernel"]

GeneratorName = Literal["magnet", "siren", "random_fourier", "mlp"]

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
        causal: zero for the future along axis 0.
    """
    d = len(extent)
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
    return Kernel(network, GaussianMask(width), extent=extent, causal_axes=(0,) if causal else ())


@final
class ResidualBlock(nn.Module):
    """BatchNorm, separable continuous convolution, GELU, dropout, linear, GELU; plus the input.

    The pre-norm block of the CCNN (arXiv 2206.03398, figure 2; 2301.10540).

    Args:
        channels: number of channels in and out.
        kernel: depthwise kernel of these channels.
        dropout: probability of dropping a value, in [0, 1).
        engine: a name in ``ENGINES`` or "auto".
        rtol: relative error the "spectral" engine may make.
    """

    def __init__(
        self,
        channels: int,
        kernel: Kernel,
        dropout: float = 0.0,
        *,
        engine: EngineName = "auto",
        rtol: float = 1e-3,
    ) -> None:
        super().__init__()
        self.norm = BatchNorm(channels)
        self.conv = SeparableContinuousConv(kernel, channels, engine=engine, rtol=rtol)
        self.dropout = nn.Dropout(dropout)
        self.linear = PointwiseLinear(channels, channels)

    def forward(self, values: Tensor, domain: Domain, plan: Plan | None = None) -> Tensor:
        """Values on ``domain`` to values of the same shape."""
        hidden = nn.functional.gelu(self.conv(self.norm(values), domain, plan=plan))
        return values + nn.functional.gelu(self.linear(self.dropout(hidden)))


@final
class CCNN(nn.Module):
    """Continuous CNN (Knigge et al., arXiv 2301.10540; Romero et al., arXiv 2206.03398) for any domain.

    Stem (separable continuous convolution, norm, GELU), residual blocks, norm, and a linear head on
    the mean over positions or at every position. Nothing is downsampled. Everything is in
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
        generator: "magnet" or "siren".
        generator_hidden: width of the generators' hidden layers.
        causal: kernels are zero for the future along axis 0.
        dropout: probability in every block.
        latent: regular grid the stem is evaluated on; None = the input's own domain.
        head: "mean" for one output per sample, "dense" for one per position.
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
        causal: bool = False,
        dropout: float = 0.0,
        latent: Grid | None = None,
        head: Literal["mean", "dense"] = "mean",
        engine: EngineName = "auto",
        rtol: float = 1e-3,
    ) -> None:
        super().__init__()
        if latent is not None:
            require(latent.d == len(extent), "latent", f"have the kernels' {len(extent)} axes", latent.d)
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
                causal=causal,
            )

        self.stem = SeparableContinuousConv(kernel(in_channels), hidden_channels, engine=engine, rtol=rtol)
        # Behind a latent grid the blocks see nothing but that grid.
        engine = engine if latent is None else "auto"
        self.stem_norm = BatchNorm(hidden_channels)
        self.blocks = nn.ModuleList(
            ResidualBlock(hidden_channels, kernel(hidden_channels), dropout, engine=engine, rtol=rtol)
            for _ in range(blocks)
        )
        self.norm = BatchNorm(hidden_channels)
        self.output = PointwiseLinear(hidden_channels, out_channels)

    def forward(self, values: Tensor, source: Domain) -> Tensor:
        """Values on ``source`` to ``(B, out_channels)``, or with a dense head to values on the latent or source domain.

        Args:
            values: ``(N, C)`` on Points, ``(B, C, *sizes)`` on Grid, ``(N, C, *sizes)`` on Product; where a
                weight of the source is 0 the value is never read.
            source: where the values were sampled.

        Raises:
            ValueError: see ``ccnn_irregular.convolve``.
        """
        features, domain = self.features(values, source)
        if self.head == "mean":
            features = mean_over_positions(features, domain)
        return self.output(features)

    def features(self, values: Tensor, source: Domain) -> tuple[Tensor, Domain]:
        """Values of the last hidden layer and the domain they live on."""
        require(
            values.ndim >= 2 and values.shape[1] == self.in_channels,
            "values",
            f"have {self.in_channels} channels on axis 1",
            tuple(values.shape),
        )
        if self.latent is None and isinstance(source, Points) and source.weights.ndim == 2:
            rule = "have one weight per point, (N,), unless a latent grid follows the first layer"
            reject("source.weights", rule, tuple(source.weights.shape))
        domain = source if self.latent is None else self.latent
        hidden = nn.functional.gelu(self.stem_norm(self.stem(values, source, domain)))
        plan = None
        for block in self.blocks:
            assert isinstance(block, ResidualBlock)
            if plan is None or ENGINES[plan.engine].plan_follows_kernel:
                plan = block.conv.depthwise.plan(domain, batch=len(hidden))
            hidden = block(hidden, domain, plan)
        return self.norm(hidden), domain

    def kernels(self) -> dict[str, Kernel]:
        """The kernels of all layers by name, first to last."""
        convolutions = {
            name: module for name, module in self.named_modules() if isinstance(module, SeparableContinuousConv)
        }
        return {name: module.kernel for name, module in convolutions.items()}

    @torch.no_grad()
    def calibrate(self, source: Domain) -> None:
        """Make every convolution keep the variance of white noise on the domain it works on."""
        domain = source if self.latent is None else self.latent
        self.stem.calibrate(source, domain)
        for block in self.blocks:
            assert isinstance(block, ResidualBlock)
            block.conv.calibrate(domain)
