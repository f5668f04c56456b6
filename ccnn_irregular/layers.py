"""Continuous convolutions as ``nn.Module``s, and the channel-wise layers that work on every domain.

Channels are axis 1 of every value tensor: ``(N, C)`` on Points, ``(B, C, *sizes)`` on Grid,
``(N, C, *sizes)`` on Product.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Literal, final, get_args

import torch
from torch import Tensor, nn
from torch._compile import _disable_dynamo

from ccnn_irregular import batch_statistics
from ccnn_irregular._autocast import outside_autocast
from ccnn_irregular._checks import require
from ccnn_irregular._sums import gathered, linear, sums_of_sorted
from ccnn_irregular._transforms import transforms_active
from ccnn_irregular.domains import Domain, Grid, Points, Product
from ccnn_irregular.kernels import Kernel
from ccnn_irregular.kernels.generators import OutputRows
from ccnn_irregular.operators import EngineName, Plan, convolve, make_plan
from ccnn_irregular.operators.engines.reference import PairGeometry
from ccnn_irregular.operators.layout import balance, out_of_range_unannounced, restored, weighted
from ccnn_irregular.operators.numerics.lattice import (
    Lattice,
    at_queries,
    no_common_lattice,
    on_lattice,
    tap_offsets,
    tap_spans,
)

__all__ = [
    "BatchNorm",
    "ContinuousConv",
    "Dropout",
    "DropoutUnit",
    "InstanceNorm",
    "PointwiseLinear",
    "SampledConv",
    "SeparableContinuousConv",
    "coarser",
    "finer",
    "mean_over_positions",
    "mean_square",
    "sampled_kernel",
    "shuffle_channels",
]

DropoutUnit = Literal["channel", "value"]

_CALIBRATION_QUERIES = 64
# A kernel's factor stays in its output layer's weight between these. Beyond them, where weights would be so small or
# large that steps of an optimiser make no sense, it goes to the kernel's scale.
_LEAST_IN_WEIGHTS, _MOST_IN_WEIGHTS = 2.0**-20, 2.0**20
# Beyond these gains float32 may have lost digits of a result.
_LEAST_GAIN, _MOST_GAIN = 2.0**-40, 2.0**40
# A result so much smaller or larger than what it was made of is lost on the layers behind it: norms add 1e-5 to a
# variance.
_LEAST_RESPONSE, _MOST_RESPONSE = 1e-4, 1e4
# Values and offsets that are looked at to find out.
_LOOKED_AT, _OFFSETS_LOOKED_AT = 1024, 64


@final
class ContinuousConv(nn.Module):
    """y(q) = bias + sum_n w_n K(q - p_n) x_n.

    Which kind of convolution it is, strided, transposed, dilated, causal, periodic or any other, is decided by the
    kernel, the domains and ``groups``, on grids, points and products alike (docs/convolutions.md).

    Under autocast the convolution itself stays in the kernel's dtype: no FFT exists in bfloat16, and positions do
    not survive eight bits.

    Args:
        kernel: depthwise (C,) or full (D, C), in coordinate units; of shape (D, C / groups) where it is grouped.
        bias: add a learned constant per output channel.
        groups: number of groups of consecutive channels that are convolved with one another only, as in
            ``torch.nn.Conv1d``. As many groups as channels make a depthwise convolution with D / C results each.
        shuffle: interleave the groups of the result, see ``shuffle_channels``.
        engine: a name in ``ENGINES`` or "auto".
        rtol: relative error the "spectral" engine may make; all others are exact.

    Raises:
        ValueError: groups that do not divide the kernel's output channels, or a depthwise kernel cut into groups.
    """

    def __init__(
        self,
        kernel: Kernel,
        *,
        bias: bool = True,
        groups: int = 1,
        shuffle: bool = False,
        engine: EngineName = "auto",
        rtol: float = 1e-3,
    ) -> None:
        super().__init__()
        _require_groups(groups, kernel.out_channels, shuffle)
        require(groups == 1 or not kernel.depthwise, "kernel", "have shape (D, C / groups) for groups", kernel.shape)
        self.kernel = kernel
        self.groups = groups
        self.shuffle = shuffle
        self.engine: EngineName = engine
        self.rtol = rtol
        self.bias = nn.Parameter(torch.zeros(kernel.out_channels)) if bias else None

    @property
    def in_channels(self) -> int:
        """Number of channels the layer reads."""
        return self.groups * self.kernel.in_channels

    def forward(self, values: Tensor, source: Domain, query: Domain | None = None, plan: Plan | None = None) -> Tensor:
        """Convolve ``values`` on ``source`` and evaluate at ``query``; see ``ccnn_irregular.convolve``."""
        result = self.integral(values, source, query, plan)
        result = result if self.bias is None else result + _per_channel(self.bias, result)
        return shuffle_channels(result, self.groups) if self.shuffle else result

    # The choice of engine and the extent of a kernel depend on values: torch.compile leaves them as they are. This
    # form of torch.compiler.disable does not import the compiler, a second's work, with the package.
    @_disable_dynamo
    @outside_autocast
    def integral(self, values: Tensor, source: Domain, query: Domain | None = None, plan: Plan | None = None) -> Tensor:
        """The convolution without the bias, not shuffled."""
        result = self._convolved(values, source, query, plan)
        _warn_of_scale(self.kernel, values, result, source)
        return result

    def _convolved(self, values: Tensor, source: Domain, query: Domain | None, plan: Plan | None) -> Tensor:
        if self.groups == 1:
            return convolve(self.kernel, values, source, query, engine=self.engine, rtol=self.rtol, plan=plan)
        fits = values.ndim >= 2 and values.shape[1] == self.in_channels
        require(fits, "values", f"have {self.in_channels} channels on axis 1", tuple(values.shape))
        kernels = self._group_kernels()
        if not isinstance(source, Grid) and _weights(source).ndim == 2:
            require(plan is None, "plan", "be None for a grouped kernel where weights differ between channels", plan)
            query = source if query is None else query
            values, source = _with_weights_in_values(values, source)
        if plan is None:
            batch = len(values) if isinstance(source, Grid) else 1
            plan = make_plan(kernels, source, query, engine=self.engine, rtol=self.rtol, batch=batch)
        # One channel a group: each is read by D / C depthwise kernels. Else one full kernel for each group.
        multiplier = self.kernel.out_channels // self.groups
        single = len(kernels) == 1
        blocks = (values.repeat_interleave(multiplier, 1),) if single else values.split(self.kernel.in_channels, 1)
        results = [
            convolve(kernel, block, source, query, engine=self.engine, rtol=self.rtol, plan=plan)
            for kernel, block in zip(kernels, blocks, strict=True)
        ]
        return torch.cat(results, 1)

    def _group_kernels(self) -> list[Kernel]:
        """Kernels that share this one's tensors: one full kernel a group, or a depthwise one for groups of one."""
        kernel, (rows, columns) = self.kernel, (self.kernel.out_channels // self.groups, self.kernel.in_channels)
        if columns == 1:
            return [kernel.alike(shape=(kernel.out_channels,))]
        count = rows * columns
        generators = [OutputRows(kernel.generator, group * count, count) for group in range(self.groups)]
        return [kernel.alike(generator=generator, shape=(rows, columns)) for generator in generators]

    @_disable_dynamo
    def plan(self, source: Domain, query: Domain | None = None, *, batch: int = 1) -> Plan:
        """Geometry for several calls between the same domains; see ``ccnn_irregular.make_plan``."""
        kernel = self.kernel if self.groups == 1 else self._group_kernels()
        return make_plan(kernel, source, query, engine=self.engine, rtol=self.rtol, batch=batch)

    @torch.no_grad()
    @outside_autocast
    def calibrate(self, source: Domain, query: Domain | None = None) -> None:
        """Scale the kernel so that white noise sampled on ``source`` keeps its variance.

        The output variance for white noise of variance 1 is sum_n w_n^2 K(q - p_n)^2, here averaged
        over up to 64 queries and the output channels: it depends on the kernel's L2 mass and on the
        density of the sampling, which only the caller knows. Queries of samples without any point are left out. Any
        unit will do: where the factor is beyond what parameters should be, or the output layer's weight is computed
        (by a weight norm, say), it goes to ``kernel.scale``.

        Raises:
            ValueError: no pair of source and query lies within the kernel's support.
        """
        query = source if query is None else query
        _scale_kernel(self.kernel, _white_noise_gain(self.kernel, source, query, self.groups))


@final
class SeparableContinuousConv(nn.Module):
    """Depthwise continuous convolution followed by a linear mix of the channels.

    Args:
        kernel: depthwise kernel of the input's channels.
        out_channels: number of channels after the mix.
        bias: learned constants after both steps.
        groups: number of groups of channels that are mixed with one another only.
        shuffle: interleave the groups of the result, see ``shuffle_channels``.
        engine: a name in ``ENGINES`` or "auto".
        rtol: relative error the "spectral" engine may make; all others are exact.

    Raises:
        ValueError: the kernel is not depthwise, or groups that do not divide both numbers of channels.
    """

    def __init__(
        self,
        kernel: Kernel,
        out_channels: int,
        *,
        bias: bool = True,
        groups: int = 1,
        shuffle: bool = False,
        engine: EngineName = "auto",
        rtol: float = 1e-3,
    ) -> None:
        super().__init__()
        require(kernel.depthwise, "kernel", "be depthwise, of shape (C,)", kernel.shape)
        self.depthwise = ContinuousConv(kernel, bias=bias, engine=engine, rtol=rtol)
        self.pointwise = PointwiseLinear(kernel.out_channels, out_channels, bias=bias, groups=groups, shuffle=shuffle)

    @property
    def kernel(self) -> Kernel:
        """The depthwise kernel."""
        return self.depthwise.kernel

    def forward(self, values: Tensor, source: Domain, query: Domain | None = None, plan: Plan | None = None) -> Tensor:
        """Convolve ``values`` on ``source``, evaluate at ``query``, mix the channels."""
        # The mix adds the depthwise bias: one pass over the values less.
        return self.pointwise(self.depthwise.integral(values, source, query, plan), self.depthwise.bias)

    @torch.no_grad()
    @outside_autocast
    def calibrate(
        self, source: Domain, query: Domain | None = None, values: Tensor | None = None, plan: Plan | None = None
    ) -> None:
        """Scale the kernel so that the layer keeps the mean square of its input.

        Args:
            source: sampling of the input.
            query: where the layer is evaluated; None = at the source.
            values: input to keep the mean square of, over all channels and positions, the latter by their quadrature
                weights. Behind other layers neighbouring values resemble each other, which a smooth kernel
                amplifies: layers in a row are calibrated first to last, each on what the ones before it send
                (Mishkin & Matas 2016, arXiv 1511.06422). None = white noise, see ``ContinuousConv.calibrate``;
                the mix keeps its variance by its initialisation.
            plan: from ``self.depthwise.plan``, if at hand.

        Raises:
            ValueError: the kernel's support holds no pair of source and query, or nothing but zeros arrives.
        """
        if values is None:
            self.depthwise.calibrate(source, query)
            return
        power = mean_square(values, source)
        require(power > 0, "values", "not be zero everywhere", power)
        gain = self._power_of_result(values, source, query, plan) / power
        if not _LEAST_GAIN < gain < _MOST_GAIN:
            self.depthwise.calibrate(source, query)
            gain = self._power_of_result(values, source, query, plan) / power
        _scale_kernel(self.kernel, gain)

    def _power_of_result(self, values: Tensor, source: Domain, query: Domain | None, plan: Plan | None) -> float:
        with out_of_range_unannounced():
            convolved = self.depthwise._convolved(values, source, query, plan)
        result = self.pointwise.mixed(convolved, None)
        return mean_square(result, source if query is None else query)


@final
class SampledConv(nn.Module):
    """A trained separable convolution between two grids as tensor operations alone, its kernel sampled once.

    Args:
        layer: whose weights are taken, not copied.
        source: where values are given.
        query: where the result is wanted, on a common lattice with the source.

    Raises:
        ValueError: grids without a common lattice.
    """

    taps: Tensor

    def __init__(self, layer: SeparableContinuousConv, source: Grid, query: Grid) -> None:
        super().__init__()
        reason = no_common_lattice(source, query)
        require(reason is None, "query", "lie on a common lattice with the source", reason)
        self.pointwise = layer.pointwise
        self.bias = layer.depthwise.bias
        self.channels = layer.kernel.in_channels
        self.lattices = tuple(Lattice.build(a, b) for a, b in zip(source.axes, query.axes, strict=True))
        self.spans = tap_spans(layer.kernel, self.lattices)
        self.lengths = [lattice.length(*span) for lattice, span in zip(self.lattices, self.spans, strict=True)]
        taps = sampled_kernel(layer.kernel, self.lattices).detach()
        weight = source.cell_volume * float(layer.kernel.scale)
        self.factor = balance(weight)
        self.register_buffer("taps", taps * (weight / self.factor))

    def forward(self, values: Tensor) -> Tensor:
        """``(B, C, *sizes)`` on the source to values on the query."""
        dims = tuple(range(-len(self.lengths), 0))
        values = values.to(self.taps.dtype)  # under autocast it may come in less: there is no FFT of that
        spectrum = torch.fft.rfftn(on_lattice(values, self.lattices), s=self.lengths, dim=dims)
        spectrum = spectrum * torch.fft.rfftn(self.taps, s=self.lengths, dim=dims)
        result = at_queries(torch.fft.irfftn(spectrum, s=self.lengths, dim=dims), self.lattices, self.spans)
        return self.pointwise(restored(result, self.factor), self.bias)


def sampled_kernel(kernel: Kernel, lattices: Sequence[Lattice]) -> Tensor:
    """Kernel values without the scale, on a lattice as far as support and lattice reach, ``(*kernel.shape, *taps)``."""
    spans = tap_spans(kernel, lattices)
    device = kernel.extent.device
    offsets = [tap_offsets(lattice, span, device) for lattice, span in zip(lattices, spans, strict=True)]
    values = kernel.unscaled(torch.stack(torch.meshgrid(*offsets, indexing="ij"), dim=-1).to(kernel.dtype))
    return values.movedim(tuple(range(kernel.d)), tuple(range(-kernel.d, 0)))


@final
class PointwiseLinear(nn.Linear):
    """Linear map of the channels at every position, the 1x1 convolution; starts out keeping the variance.

    Args:
        in_features, out_features: numbers of channels.
        bias: add a learned constant per output channel.
        groups: number of groups of consecutive channels that are mixed with one another only; the weight has shape
            ``(out_features, in_features / groups)``.
        shuffle: interleave the groups of the result, see ``shuffle_channels``.

    Raises:
        ValueError: groups that do not divide both numbers of channels.
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *, groups: int = 1, shuffle: bool = False
    ) -> None:
        _require_groups(groups, out_features, shuffle)
        require(in_features % groups == 0, "groups", f"divide the {in_features} input channels", groups)
        super().__init__(in_features // groups, out_features, bias)
        self.in_features = in_features
        self.groups = groups
        self.shuffle = shuffle

    def reset_parameters(self) -> None:
        nn.init.kaiming_normal_(self.weight, nonlinearity="linear")
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, values: Tensor, offset: Tensor | None = None) -> Tensor:
        """``(N, C_in, *sizes)`` to ``(N, C_out, *sizes)``.

        Args:
            values: the input.
            offset: ``(C_in,)`` constants to add to the input's channels first.
        """
        bias: Tensor | None = self.bias
        if offset is not None:
            shift = self._product(offset[None])[0]
            bias = shift if bias is None else bias + shift
        return self.mixed(values, bias)

    def mixed(self, values: Tensor, bias: Tensor | None) -> Tensor:
        """``values`` mixed by the layer's weight, plus another bias than its own."""
        if self.groups > 1:
            result = self._product(values)
            result = result if bias is None else result + _per_channel(bias, result)
            return shuffle_channels(result, self.groups) if self.shuffle else result
        if values.ndim == 2:
            return linear(values, self.weight, bias)
        flat = values.flatten(2)
        weight = self.weight.expand(flat.shape[0], -1, -1)  # len() would fix the batch of an exported network
        # One product per entry, the bias in it: on CPUs about three times as fast as torch.matmul and an addition.
        mixed = torch.bmm(weight, flat) if bias is None else torch.baddbmm(bias[:, None], weight, flat)
        return mixed.unflatten(2, values.shape[2:])

    def _product(self, values: Tensor) -> Tensor:
        """The weight's product with ``(N, C_in, ...)``, group by group."""
        if self.groups == 1:
            return nn.functional.linear(values, self.weight)
        weight = self.weight.unflatten(0, (self.groups, -1))
        return torch.einsum("gdc,ngc...->ngd...", weight, values.unflatten(1, (self.groups, -1))).flatten(1, 2)


def shuffle_channels(values: Tensor, groups: int) -> Tensor:
    """Interleave ``groups`` groups of consecutive channels, so that each following group holds some of every one.

    Channel i of group g becomes channel i * groups + g (Zhang et al. 2018, arXiv 1707.01083, section 3.1), as
    ``torch.nn.ChannelShuffle`` does on grids; here on every domain.

    Args:
        values: ``(N, C, *sizes)``.
        groups: number of groups, a divisor of C.

    Raises:
        ValueError: groups that do not divide the channels.
    """
    fits = groups >= 1 and values.shape[1] % groups == 0
    require(fits, "groups", f"divide the {values.shape[1]} channels", groups)
    return values.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)


@final
class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation of the channels over all entries and positions, on every domain.

    On grids this is ``nn.BatchNorm1d``, whose state_dict it shares. On Points and Product the statistics of a batch are
    those of the function that was sampled: positions count by their quadrature weights. Doubling every point at half
    its weight changes nothing, and what weighs 0 is never read. The running variance is then the weighted variance
    itself: the factor n / (n - 1) that it has on grids would follow the density.
    """

    def forward(self, values: Tensor, domain: Domain) -> Tensor:  # type: ignore[override]  # weights matter
        """``(N, C, *sizes)`` on ``domain`` to the same shape.

        Raises:
            ValueError: no point of a batch in training weighs anything.
        """
        rule = "be in evaluation mode, or an InstanceNorm, under torch.func and forward-mode differentiation"
        writes = self.training and self.running_mean is not None
        require(not (writes and transforms_active()), "BatchNorm", rule, "training, which writes running statistics")
        if not isinstance(domain, Grid):
            values = _without_unread(values, domain)
        stored = not self.training and self.running_mean is not None
        if stored or isinstance(domain, Grid):
            flat = values.flatten(2) if values.ndim > 3 else values
            if not self.training or not batch_statistics.suits(flat, self.weight, self.bias):
                return super().forward(flat).reshape(values.shape)
            result, mean, variance = batch_statistics.normalised(flat, self.weight, self.bias, self.eps)
            count = flat.shape[0] * flat.shape[2]
            self._follow(mean, variance * (count / (count - 1)))
            return result.reshape(values.shape)
        mean, variance = _weighted_statistics(values, domain)
        self._follow(mean, variance)
        return self._normalised(values, mean, variance)

    def by_these(self, values: Tensor, domain: Domain) -> Tensor:
        """``values`` normalised by statistics of their own in every mode; the stored ones stay."""
        if isinstance(domain, Grid):
            return nn.functional.batch_norm(values, None, None, self.weight, self.bias, training=True, eps=self.eps)
        values = _without_unread(values, domain)
        return self._normalised(values, *_weighted_statistics(values, domain))

    def _normalised(self, values: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        scale = torch.rsqrt(variance + self.eps)
        if self.weight is not None:
            scale = scale * self.weight
        shift = -mean * scale if self.bias is None else self.bias - mean * scale
        return torch.addcmul(_per_channel(shift, values), values, _per_channel(scale, values))

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics, where there are any, towards those of a batch in training."""
        if not self.training or self.running_mean is None:
            return
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean), share)
        self.running_var.lerp_(variance.to(self.running_var), share)


@final
class InstanceNorm(nn.Module):
    """Every channel of every sample normalised over its own positions, in training and afterwards, on every domain.

    On grids this is ``nn.InstanceNorm1d`` with learned scale and shift (Ulyanov et al. 2016, arXiv 1607.08022); on
    Points and Product positions count by their quadrature weights, and what weighs 0 is never read. For samples too
    large or too unequal in shape to be batched: what one becomes depends on no other one and on no running average.

    Args:
        channels: number of channels.
        eps: added to the variance.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, values: Tensor, domain: Domain) -> Tensor:
        """``(N, C, *sizes)`` on ``domain`` to the same shape."""
        if isinstance(domain, Grid):
            flat = nn.functional.instance_norm(values.flatten(2), weight=self.weight, bias=self.bias, eps=self.eps)
            return flat.reshape(values.shape)
        points = domain.points if isinstance(domain, Product) else domain
        shape, sample = (*values.shape[:2], *(1,) * (values.ndim - 2)), points.sample_index()
        values = _without_unread(values, domain).to(torch.promote_types(values.dtype, torch.float32))
        centred = values - mean_over_positions(values, domain)[sample].reshape(shape)
        scale = torch.rsqrt(mean_over_positions(centred.square(), domain) + self.eps)[sample].reshape(shape)
        return centred * scale * _per_channel(self.weight, values) + _per_channel(self.bias, values)

    def by_these(self, values: Tensor, domain: Domain) -> Tensor:
        """The same: there are no other statistics. For layers that may hold a ``BatchNorm`` instead."""
        return self(values, domain)


@final
class Dropout(nn.Module):
    """Dropout in training: of single values, or of whole channels of a sample.

    A convolution averages over neighbouring values, so what dropping single ones does fades as the sampling gets
    denser. Whole channels of a sample (``nn.Dropout1d`` on a grid; Tompson et al. 2015, arXiv 1411.4280) are gone at
    any density; on Points and Product all points of a sample lose the same channels.

    Args:
        probability: of dropping, in [0, 1).
        unit: what is dropped: "channel", as almost all published recipes of the CCNN, or "value".
    """

    def __init__(self, probability: float, unit: DropoutUnit = "channel") -> None:
        super().__init__()
        require(0 <= probability < 1, "probability", "be in [0, 1)", probability)
        require(unit in get_args(DropoutUnit), "unit", f"be one of {get_args(DropoutUnit)}", repr(unit))
        self.probability = probability
        self.unit = unit

    def extra_repr(self) -> str:
        return f"{self.probability:g}, unit={self.unit!r}"

    def forward(self, values: Tensor, domain: Domain) -> Tensor:
        """``(N, C, *sizes)`` on ``domain`` to the same shape."""
        if not self.training or self.probability == 0:
            return values
        if self.unit == "value":
            return nn.functional.dropout(values, self.probability)
        if isinstance(domain, Grid):
            return nn.functional.dropout1d(values.flatten(2), self.probability).reshape(values.shape)
        points = domain.points if isinstance(domain, Product) else domain
        kept = nn.functional.dropout(values.new_ones(points.samples, values.shape[1]), self.probability)
        return values * kept[points.sample_index()].reshape(*values.shape[:2], *(1,) * (values.ndim - 2))


def mean_over_positions(values: Tensor, domain: Domain) -> Tensor:
    """Mean over the positions of each sample, weighted by the quadrature weights: ``(B, C)``.

    On a grid all cells weigh the same. A sample without weight (no points at all) has mean 0. What weighs 0 is never
    read, nan or not. Any number of positions is summed to the accuracy of the values' dtype, float32 at least.
    """
    if isinstance(domain, Grid):
        return values.flatten(2).mean(2)
    points = domain.points if isinstance(domain, Product) else domain
    rows = values.flatten(2).mean(2) if values.ndim > 2 else values
    weights, sample = _weight_columns(domain), points.sample_index()
    mass = sums_of_sorted(weights, sample, points.samples)
    # Shares in float64: in small units weights are below what float32 holds.
    shares = weights / gathered(torch.where(mass == 0, 1.0, mass), sample)
    shares = shares.to(torch.promote_types(rows.dtype, torch.float32))
    unread = weights == 0
    read = torch.where(unread, 0.0, rows) if bool(unread.any()) else rows
    return sums_of_sorted(read * shares, sample, points.samples).to(rows.dtype)


def mean_square(values: Tensor, domain: Domain) -> float:
    """Mean square over all channels and positions, the latter by their weights; 0 of no values."""
    if isinstance(domain, Grid):
        largest = _largest(values)
        return (
            float(
                (values / largest)
                .to(torch.promote_types(values.dtype, torch.float32))
                .square()
                .mean(dtype=torch.float64)
            )
            * largest**2
        )
    shares = _shares(values, domain)
    read = torch.where(shares > 0, values.to(shares.dtype), 0.0)
    largest = _largest(read)
    return float(((read / largest).square() * shares).sum(dtype=torch.float64) / values[0].numel()) * largest**2


def _largest(values: Tensor) -> float:
    """Largest absolute value, to divide by before a square would leave the dtype's range; 1 if all are zero."""
    return (float(values.detach().abs().max()) if values.numel() else 0.0) or 1.0


def coarser(domain: Domain, stride: int | Sequence[int]) -> Domain:
    """Every ``stride``-th position of a domain: where a strided convolution is evaluated.

    Args:
        domain: on a grid, every ``stride``-th node of each axis from the first on. Of points, in the order they stand
            in, every ``stride``-th of each sample, with the weights of those it stands for added to its own: the
            volume stays. Points in time are sorted; for clouds in order of their file, choose points by place
            instead and pass them as ``query``. Of a product, both factors.
        stride: one for all axes, or one per axis of a grid; for a product one for the points and one per axis of
            its grid.

    Raises:
        ValueError: a stride below 1, or one that does not divide the nodes of an axis that repeats.
    """
    if isinstance(domain, Product):
        first, *others = _factors("stride", stride, 1 + domain.grid.d)
        grid = coarser(domain.grid, others)
        assert isinstance(grid, Grid)
        return Product(_every(domain.points, first), grid)
    if isinstance(domain, Points):
        (step,) = _factors("stride", stride, 1)
        return _every(domain, step)
    strides = _factors("stride", stride, domain.d)
    for axis, (own, factor) in enumerate(zip(domain.axes, strides, strict=True)):
        fits = not own.periodic or own.size % factor == 0
        require(fits, "stride", f"divide the {own.size} nodes of axis {axis}, which repeats", factor)
    sizes = [-(-size // factor) for size, factor in zip(domain.sizes, strides, strict=True)]
    steps = [step * factor for step, factor in zip(domain.steps, strides, strict=True)]
    return Grid(sizes, steps, domain.starts, domain.periodic)


def finer(grid: Grid, stride: int | Sequence[int]) -> Grid:
    """The grid with ``stride`` steps in place of each: where a transposed convolution is evaluated.

    Args:
        grid: its nodes are nodes of the result; there is none beyond its last, but on axes that repeat.
        stride: one for all axes or one per axis.

    Raises:
        ValueError: a stride below 1.
    """
    strides = _factors("stride", stride, grid.d)
    sizes = [
        own.size * factor if own.periodic else (own.size - 1) * factor + 1
        for own, factor in zip(grid.axes, strides, strict=True)
    ]
    return Grid(sizes, [a / b for a, b in zip(grid.steps, strides, strict=True)], grid.starts, grid.periodic)


def _every(points: Points, stride: int) -> Points:
    """Every ``stride``-th row of each sample, weighing what the rows up to the next one weigh together."""
    position = torch.arange(points.count, device=points.device) - points.splits[points.sample_index()]
    kept = position % stride == 0
    owner = kept.cumsum(0) - 1
    count = int(kept.sum())
    weights = points.weights.new_zeros(count, *points.weights.shape[1:]).index_add(0, owner, points.weights)
    before = torch.cat([kept.new_zeros(1, dtype=torch.int64), kept.cumsum(0)])
    return Points(points.coordinates[kept], weights, before[points.splits], periods=points.periods)


def _factors(name: str, given: int | Sequence[int], count: int) -> tuple[int, ...]:
    numbers = tuple(given) if isinstance(given, Sequence) else (given,) * count
    fits = len(numbers) == count and all(isinstance(one, int) and one >= 1 for one in numbers)
    require(fits, name, f"be a positive integer, or {count} of them", given)
    return numbers


def _require_groups(groups: int, out_channels: int, shuffle: bool) -> None:
    require(groups >= 1 and out_channels % groups == 0, "groups", f"divide the {out_channels} output channels", groups)
    require(groups > 1 or not shuffle, "shuffle", "be False without groups", shuffle)


def _weights(domain: Points | Product) -> Tensor:
    """Quadrature weights of the points of a domain, float64 ``(N,)`` or ``(N, C)``."""
    return (domain.points if isinstance(domain, Product) else domain).weights


def _with_weights_in_values(values: Tensor, domain: Points | Product) -> tuple[Tensor, Domain]:
    """Values times their weights, on points that weigh the same: weights per channel know nothing of groups."""
    points = domain.points if isinstance(domain, Product) else domain
    flat = values.flatten(2) if values.ndim > 2 else values[:, :, None]
    factor = balance(points.weights) ** 2
    rows = weighted(flat.movedim(1, 2), points.weights, factor).movedim(2, 1).reshape(values.shape)
    equal = torch.full_like(points.weights[:, 0], factor)
    even = Points(points.coordinates, equal, points.splits, periods=points.periods)
    return rows, Product(even, domain.grid) if isinstance(domain, Product) else even


def _weight_columns(domain: Domain) -> Tensor:
    """Quadrature weights of the points of a domain, float64 ``(N, 1)`` or ``(N, C)``."""
    assert not isinstance(domain, Grid)
    weights = _weights(domain)
    return weights[:, None] if weights.ndim == 1 else weights


def _without_unread(values: Tensor, domain: Points | Product) -> Tensor:
    """Values with 0 in place of nan and infinity that weigh 0: times a gradient of 0 they would be nan."""
    unread = _weight_columns(domain) == 0
    if not bool(unread.any()):
        return values
    unread = unread.reshape(*unread.shape, *(1,) * (values.ndim - 2))
    return torch.where(unread & ~values.isfinite(), 0.0, values)


def _shares(values: Tensor, domain: Domain) -> Tensor:
    """Share of each row of values in the weight of all, ``(N, 1 or C, 1, ...)``, at least float32."""
    weights = _weight_columns(domain)
    mass = weights.sum(0)
    require(bool((mass > 0).all()), "source.weights", "hold a positive weight for every channel", mass.min().item())
    shares = (weights / mass).to(torch.promote_types(values.dtype, torch.float32))
    return shares.reshape(*shares.shape, *(1,) * (values.ndim - 2))


def _weighted_statistics(values: Tensor, domain: Domain) -> tuple[Tensor, Tensor]:
    """Mean and variance of each channel over all positions by their weights, ``(C,)`` each."""
    shares = _shares(values, domain)
    read = torch.where(shares > 0, values.to(shares.dtype), 0.0)
    nodes = values[0, 0].numel()
    dims = (0, *range(2, values.ndim))
    mean = (read * shares).sum(dims) / nodes
    return mean, ((read - _per_channel(mean, read)).square() * shares).sum(dims) / nodes


def _per_channel(parameter: Tensor, values: Tensor) -> Tensor:
    return parameter.reshape(1, -1, *(1,) * (values.ndim - 2))


@torch.no_grad()
def _scale_kernel(kernel: Kernel, gain: float) -> None:
    """Divide the kernel by the square root of ``gain``, the mean square of what white noise of unit power becomes."""
    fits = 0 < gain < math.inf
    require(fits, "source", "reach the queries within the kernel's support", f"a response of {gain}")
    factor, output = gain**-0.5, kernel.generator.output
    tensors = [one for one in (output.weight, output.bias) if one is not None]
    own = {id(one) for one in kernel.parameters()}
    if all(id(one) in own for one in tensors) and _LEAST_IN_WEIGHTS < factor < _MOST_IN_WEIGHTS:
        for one in tensors:
            one.mul_(factor)
    else:
        kernel.scale.mul_(factor)


def _white_noise_gain(kernel: Kernel, source: Domain, query: Domain, groups: int) -> float:
    """Mean of sum_n w_n^2 K(q - p_n)^2 over output channels and queries, those whose sample holds any point."""
    geometry = PairGeometry.build(source, query, kernel.extent.device)
    weights = geometry.source.weights * kernel.scale
    # (N, groups or 1, 1, C / groups or 1), beside responses (pairs, groups, D / groups, C / groups).
    columns = weights[:, None] if weights.ndim == 1 else weights.unflatten(1, (groups, -1))[:, :, None]
    columns = columns.reshape(len(weights), *columns.shape[1:], *(1,) * (4 - columns.ndim))
    shape = (groups, kernel.generator.out_channels // (groups * kernel.in_channels), kernel.in_channels)
    paired = torch.nonzero(geometry.pairs.diff()).flatten()
    queries = torch.linspace(0, len(paired) - 1, min(_CALIBRATION_QUERIES, len(paired))).round().long()
    power = 0.0
    for query_row in paired.cpu()[queries].tolist():
        _, partners, offset = geometry.offsets(query_row, query_row + 1)
        response = kernel.unscaled(offset.to(kernel.extent)).reshape(len(partners), *shape).to(torch.float64)
        power += float((response * columns[partners]).square().sum()) / kernel.out_channels
    return power / max(1, len(queries))


def _warn_of_scale(kernel: Kernel, values: Tensor, result: Tensor, source: Domain) -> None:
    """Say so where a kernel changes the size of values so much that nothing can be learned from them.

    A look at a few values tells whether there is anything to find out.
    """
    if transforms_active():
        return
    # Read together, as a GPU is waited for.
    size, answer = torch.stack([_typical_size(values), _typical_size(result)]).tolist()
    if size == 0 or _LEAST_RESPONSE <= answer / size <= _MOST_RESPONSE:
        return
    response = _typical_response(kernel, source)
    if not _LEAST_RESPONSE <= response <= _MOST_RESPONSE:
        text = (
            f"the kernel makes values about {response:.0e} times as large on this sampling, too far from 1 to train: "
            "call the network's or the layer's calibrate(...) once, before training, or give positions in another unit"
        )
        warnings.warn(text, UserWarning, stacklevel=2)


def _typical_size(values: Tensor) -> Tensor:
    """Root mean square of some of the values, float64."""
    rows = torch.linspace(0, values.numel() - 1, min(values.numel(), _LOOKED_AT), device=values.device).long()
    return values.detach().take(rows).to(torch.float64).square().nanmean().nan_to_num().sqrt()


@torch.no_grad()
def _typical_response(kernel: Kernel, source: Domain) -> float:
    """About the root of ``_white_noise_gain``, from a few kernel values and the sampling's volumes."""
    weight, total = 1.0, 1.0
    if not isinstance(source, Grid):
        weights = _weights(source)
        total = float(weights.sum()) / max(1, weights.numel() // len(weights))
        weight = float(weights.square().sum() / weights.sum())
    if not isinstance(source, Points):
        grid = source.grid if isinstance(source, Product) else source
        weight, total = weight * grid.cell_volume, total * grid.cell_volume * grid.count
    reach = torch.minimum(kernel.support, kernel.extent) if kernel.mask is None else kernel.support
    places = torch.rand(_OFFSETS_LOOKED_AT, kernel.d, generator=torch.Generator().manual_seed(0)) * 2 - 1
    square = kernel.unscaled(places.to(reach) * reach).to(torch.float64).square().mean() * kernel.scale.square()
    volume = min(float((2 * reach.to(torch.float64)).prod()), total)
    channels = 1 if kernel.depthwise else kernel.in_channels
    return math.sqrt(float(square) * channels * weight * max(volume, weight))
