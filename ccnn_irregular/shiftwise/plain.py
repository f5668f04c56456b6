"""Trained networks on a fixed grid in ordinary convolutions: no generator, no Fourier transform, for any exporter."""

from __future__ import annotations

import itertools
import math
from functools import partial
from typing import Any, final

import torch
from torch import Tensor, nn

from ccnn_irregular._checks import require
from ccnn_irregular.domains import Grid
from ccnn_irregular.layers import BatchNorm, ContinuousConv, InstanceNorm, PointwiseLinear, SeparableContinuousConv
from ccnn_irregular.layers.pointwise import shuffle_channels
from ccnn_irregular.networks import CCNN, ResidualBlock
from ccnn_irregular.networks_unet import ContinuousUNet, level_grids
from ccnn_irregular.operators.arguments import check_periods
from ccnn_irregular.operators.numerics.lattice import Lattice, no_common_lattice, sampled_kernel, tap_spans
from ccnn_irregular.shiftwise.blocks import BATCH_NORMS, CONVOLUTIONS
from ccnn_irregular.shiftwise.ways import convolve, least_seconds

__all__ = ["GridConv", "PlainCCNN", "PlainUNet", "plain"]

_INSTANCE_NORMS = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


@final
class GridConv(nn.Module):
    """A continuous convolution from one grid to another as one ordinary convolution, its kernel sampled at their lags.

    A query of fewer nodes makes a strided convolution. On a finer one nodes at each place between two of the source
    are channels of their own, which are laid between each other behind the convolution. Beyond the ends values are
    zero, on axes that repeat those of the other end; a causal kernel has no taps in the future.

    Args:
        layer: a depthwise or full convolution, whose weights are copied.
        source: where values are given; 1 to 3 axes.
        query: where the result is wanted, on a common lattice with the source.

    Attributes:
        weight: ``(D * phases, C / groups, *taps)`` as torch has it, phases running fastest.
        channels_last: the layout that is computed in, see ``choose_layout``.
        bias: ``(D,)`` or None; the separable layers, whose mix adds it, have none.

    Raises:
        ValueError: more than three axes, or grids without a common lattice.
    """

    def __init__(self, layer: ContinuousConv, source: Grid, query: Grid, *, bias: bool = True) -> None:
        super().__init__()
        require(source.d <= 3, "grid", "have at most 3 axes, as torch's convolutions do", source.d)
        reason = no_common_lattice(source, query)
        require(reason is None, "query", "lie on a common lattice with the source", reason)
        kernel = layer.kernel
        check_periods(kernel, source)
        lattices = [Lattice.build(a, b) for a, b in zip(source.axes, query.axes, strict=True)]
        axes = [_Axis(lattice, span) for lattice, span in zip(lattices, tap_spans(kernel, lattices), strict=True)]
        taps = sampled_kernel(kernel, lattices, [axis.span for axis in axes]).detach()
        # In float64: a volume in small units is below what float32 holds.
        taps = (taps.double() * (source.cell_volume * float(kernel.scale))).to(taps.dtype)
        taps = taps[:, None] if kernel.depthwise else taps
        require(bool(torch.isfinite(taps).all()), "layer", "have a kernel of ordinary size", "taps beyond the dtype")
        self.source, self.query = source, query
        self.groups = kernel.out_channels if kernel.depthwise else layer.groups
        self.shuffled = layer.groups if layer.shuffle else 0
        self.phases = [axis.lattice.up for axis in axes]
        self.strides = [axis.lattice.down for axis in axes]
        self.around = [axis.around for axis in axes]
        self.weight = nn.Parameter(_by_phase(taps, axes), requires_grad=False)
        self.bias = None
        if bias and layer.bias is not None:
            self.bias = nn.Parameter(layer.bias.detach().clone(), requires_grad=False)
        self.channels_last = False
        self.even = all(axis.even and not axis.lattice.periodic for axis in axes)
        for number, axis in enumerate(axes):
            self.register_buffer(f"_read_{number}", axis.read() if axis.lattice.periodic else None, persistent=False)

    def extra_repr(self) -> str:
        return f"{tuple(self.weight.shape)}, groups={self.groups}, from {self.source!r} to {self.query!r}"

    @property
    def same_grid(self) -> bool:
        """Whether a result is wanted at the nodes of the values, and no axis repeats."""
        return self.source == self.query and not any(self.source.periodic)

    def forward(self, values: Tensor) -> Tensor:
        """``(B, C, *source.sizes)`` to ``(B, D, *query.sizes)``."""
        padding = [front for front, _ in self.around] if self.even else None
        values = values if self.even else self._extended(values)
        result = self._interleaved(self._convolved(values, padding, self.channels_last))
        if self.bias is not None:
            result = result + self.bias.reshape(-1, *(1,) * self.source.d)
        return shuffle_channels(result, self.shuffled) if self.shuffled else result

    def _convolved(self, values: Tensor, padding: list[int] | None, channels_last: bool) -> Tensor:
        shape: dict[str, Any] = {"stride": self.strides, "padding": padding, "groups": self.groups}
        return convolve(values, self.weight, **shape, channels_last=channels_last)

    @torch.no_grad()
    def choose_layout(self, batch: int = 1) -> None:
        """Compute in the layout that takes less time for so many entries, measured here."""
        channels = self.weight.shape[1] * self.groups
        values = self.weight.new_zeros(batch, channels, *self.source.sizes)
        padding = [front for front, _ in self.around] if self.even else None
        values = values if self.even else self._extended(values)
        ways = {str(last): partial(self._convolved, values, padding, last) for last in (False, True)}
        seconds = least_seconds(ways, values.device)
        self.channels_last = seconds["True"] < seconds["False"]

    def _extended(self, values: Tensor) -> Tensor:
        """The values with what lies beyond their ends, or without those that nothing reads."""
        around = [(0, 0) if axis.periodic else own for axis, own in zip(self.source.axes, self.around, strict=True)]
        values = nn.functional.pad(values, [part for own in reversed(around) for part in own])
        for number, axis in enumerate(self.source.axes):
            if axis.periodic:
                values = values.index_select(2 + number, getattr(self, f"_read_{number}"))
        return values

    def _interleaved(self, result: Tensor) -> Tensor:
        """``(B, D * phases, *sizes)`` to ``(B, D, *query.sizes)``."""
        d = self.source.d
        if max(self.phases) > 1:
            own = result.shape[2:]
            result = result.unflatten(1, (-1, *self.phases))
            order = [0, 1, *itertools.chain(*((2 + d + axis, 2 + axis) for axis in range(d)))]
            sizes = [size * up for size, up in zip(own, self.phases, strict=True)]
            result = result.permute(order).reshape(result.shape[0], -1, *sizes)
        ends: Any = (..., *(slice(size) for size in self.query.sizes))
        return result if result.shape[2:] == self.query.sizes else result[ends]


class _Axis:
    """Where one axis of a convolution between grids reads, in nodes of the source.

    Node m = up * j + s of the query reads node n of the source at tap k = m * down - n * up, so with t = j * down - n
    at tap up * t + s * down: for each s an ordinary convolution, strided by ``down``.
    """

    def __init__(self, lattice: Lattice, span: tuple[int, int]) -> None:
        self.lattice, self.span = lattice, span
        up, down, (first, last) = lattice.up, lattice.down, span
        self.first = min(-((s * down - first) // up) for s in range(up))
        self.last = max((last - s * down) // up for s in range(up))
        self.last = max(self.first, self.last)
        self.taps = self.last - self.first + 1
        self.steps = -(-lattice.query // up)
        self.size = -(-lattice.source // up)
        length = (self.steps - 1) * down + self.taps
        self.around = (self.last, length - self.last - self.size)

    @property
    def even(self) -> bool:
        """Whether as many zeros behind as in front give no more and no less results."""
        front = self.last
        return front >= 0 and (self.size + 2 * front - self.taps) // self.lattice.down + 1 == self.steps

    def read(self) -> Tensor:
        """The nodes that are read on an axis that repeats, int64."""
        front, back = self.around
        return torch.arange(-front, self.size + back) % self.size

    def places(self) -> Tensor:
        """Number of the tap in the span for each phase and place of the weight, ``(up, taps)``; -1 where it is none."""
        lag = self.lattice.up * torch.arange(self.last, self.first - 1, -1)
        tap = lag + self.lattice.down * torch.arange(self.lattice.up)[:, None]
        return torch.where((tap >= self.span[0]) & (tap <= self.span[1]), tap - self.span[0], -1)


def _by_phase(taps: Tensor, axes: list[_Axis]) -> Tensor:
    """Kernel values ``(D, C, *taps)`` as the weight ``(D * phases, C, *places)`` of an ordinary convolution."""
    for number, axis in enumerate(axes):
        places = axis.places().to(taps.device)
        dim = 2 + 2 * number
        picked = taps.index_select(dim, places.clamp(min=0).flatten()).unflatten(dim, tuple(places.shape))
        taps = picked * (places >= 0).reshape(*places.shape, *(1,) * (picked.ndim - dim - 2))
    d = len(axes)
    order = [0, *range(2, 2 + 2 * d, 2), 1, *range(3, 3 + 2 * d, 2)]
    return taps.permute(order).flatten(0, d).contiguous()


def plain(layer: nn.Module, source: Grid, query: Grid | None = None) -> nn.Module:
    """A trained layer or network on a fixed grid in ordinary torch modules, in evaluation mode; a copy.

    Args:
        layer: a convolution, a ``BatchNorm``, a ``CCNN`` with head "classify" or "dense", or a ``ContinuousUNet``.
        source: where values will come, 1 to 3 axes.
        query: where answers are wanted; None = at the source. Of a ``CCNN`` always where it has them.

    Raises:
        ValueError: grids without a common lattice, more than three axes, a head that answers anywhere.
        TypeError: another layer.
    """
    query = source if query is None else query
    if isinstance(layer, BatchNorm):
        return _batch_norm(layer, source.d).eval().requires_grad_(False)
    if isinstance(layer, CCNN):
        return PlainCCNN(layer, source).eval().requires_grad_(False)
    if isinstance(layer, ContinuousUNet):
        return PlainUNet(layer, source, query).eval().requires_grad_(False)
    if isinstance(layer, ContinuousConv | SeparableContinuousConv):
        return _convolution(layer, source, query).eval().requires_grad_(False)
    kinds = "a ContinuousConv, a SeparableContinuousConv, a BatchNorm, a CCNN or a ContinuousUNet"
    raise TypeError(f"layer must be {kinds}, got {type(layer).__name__}")


@final
class PlainCCNN(nn.Module):
    """A ``CCNN`` on one grid, see ``plain``."""

    def __init__(self, network: CCNN, source: Grid) -> None:
        super().__init__()
        require(network.head != "anywhere", "network", "have head 'classify' or 'dense'", repr(network.head))
        domain = source if network.latent is None else network.latent
        d = domain.d
        stem = _convolution(network.stem, source, domain)
        self.stem = nn.Sequential(stem, _batch_norm(network.stem_norm, d), nn.GELU())
        self.blocks = nn.ModuleList(_Residual(block, domain) for block in network._residual_blocks())
        self.norm = _batch_norm(network.norm, d)
        self.dense = network.head == "dense"
        self.output = _mix(network.output, d) if self.dense else _linear(network.output)

    def forward(self, values: Tensor) -> Tensor:
        """``(B, C, *sizes)`` to ``(B, out_channels)``, or with a dense head to ``(B, out_channels, *sizes)``."""
        hidden = self.stem(values)
        for block in self.blocks:
            hidden = block(hidden)
        hidden = self.norm(hidden)
        return self.output(hidden if self.dense else hidden.flatten(2).mean(2))


@final
class PlainUNet(nn.Module):
    """A ``ContinuousUNet`` from one grid to another, see ``plain``."""

    def __init__(self, network: ContinuousUNet, source: Grid, query: Grid) -> None:
        super().__init__()
        grids = level_grids(source, network.steps, len(network.down_levels))
        pairs: list[Any] = list(itertools.pairwise(grids))

        def level(blocks: Any, grid: Grid) -> nn.Sequential:
            return nn.Sequential(*(_Residual(block, grid) for block in blocks.blocks))

        def mix(layer: Any) -> nn.Module:
            return _mix(layer, source.d)

        self.stem = _step(network.stem, source, grids[0])
        self.downs = nn.ModuleList(_step(one, *pair) for one, pair in zip(network.downs, pairs, strict=True))
        self.down_levels = nn.ModuleList(map(level, network.down_levels, grids))
        self.narrow = nn.ModuleList(map(mix, network.narrow))
        self.ups = nn.ModuleList(_step(one, *pair[::-1]) for one, pair in zip(network.ups, pairs, strict=True))
        self.mixes = nn.ModuleList(map(mix, network.mixes))
        self.up_levels = nn.ModuleList(map(level, network.up_levels, grids))
        self.norm = _instance_norm(network.norm, grids[0])
        self.readout = nn.Sequential(_convolution(network.readout, grids[0], query), nn.GELU(), mix(network.output))

    def forward(self, values: Tensor) -> Tensor:
        """``(B, C, *source.sizes)`` to ``(B, out_channels, *query.sizes)``."""
        down = [self.down_levels[0](self.stem(values))]
        for step, level in zip(self.downs, self.down_levels[1:], strict=True):
            down.append(level(step(down[-1])))
        hidden = down.pop()
        parts = zip(self.narrow, self.ups, self.mixes, self.up_levels, down, strict=True)
        for narrow, step, mix, level, own in reversed(list(parts)):
            hidden = level(mix(torch.cat([step(narrow(hidden)), own], dim=1)))
        return self.readout(self.norm(hidden))


class _Residual(nn.Module):
    """A residual block on one grid."""

    def __init__(self, block: ResidualBlock, grid: Grid) -> None:
        super().__init__()
        norm = block.norm
        self.norm = _instance_norm(norm, grid) if isinstance(norm, InstanceNorm) else _batch_norm(norm, grid.d)
        self.conv = _convolution(block.conv, grid, grid)
        self.linear = _mix(block.linear, grid.d)

    def forward(self, values: Tensor) -> Tensor:
        gelu = nn.functional.gelu
        return values + gelu(self.linear(gelu(self.conv(self.norm(values)))))


class _Shuffle(nn.Module):
    """Channels of groups laid between each other."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, values: Tensor) -> Tensor:
        return shuffle_channels(values, self.groups)


class _OfOnePosition(nn.Module):
    """The instance norm of a single position, which is its own mean."""

    def __init__(self, bias: Tensor) -> None:
        super().__init__()
        self.bias = nn.Parameter(bias.detach().clone())

    def forward(self, values: Tensor) -> Tensor:
        return values - values + self.bias.reshape(1, -1, *(1,) * (values.ndim - 2))


def _convolution(layer: ContinuousConv | SeparableContinuousConv, source: Grid, query: Grid) -> nn.Module:
    """A convolution; of a separable one the mix of the channels behind it."""
    if isinstance(layer, ContinuousConv):
        return GridConv(layer, source, query)
    return nn.Sequential(
        GridConv(layer.depthwise, source, query, bias=False), _mix(layer.pointwise, source.d, layer.depthwise.bias)
    )


def _step(step: Any, source: Grid, query: Grid) -> nn.Sequential:
    """A convolution between two levels of a U-shaped network, norm and GELU."""
    return nn.Sequential(_convolution(step.conv, source, query), _instance_norm(step.norm, query), nn.GELU())


def _mix(layer: PointwiseLinear, d: int, offset: Tensor | None = None) -> nn.Module:
    """A linear map of the channels at every place, of values to which a constant ``(C,)`` is added first."""
    kind: Any = CONVOLUTIONS[d]
    result = kind(layer.in_features, layer.out_features, 1, groups=layer.groups)
    result.to(layer.weight)
    with torch.no_grad():
        result.weight.copy_(layer.weight.reshape(result.weight.shape))
        result.bias.zero_()
        if layer.bias is not None:
            result.bias.add_(layer.bias)
        if offset is not None:
            result.bias.add_(layer._product(offset[None])[0])
    return nn.Sequential(result, _Shuffle(layer.groups)) if layer.shuffle else result


def _linear(layer: PointwiseLinear) -> nn.Linear:
    result = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None).to(layer.weight)
    result.load_state_dict(layer.state_dict())
    return result


def _batch_norm(norm: nn.BatchNorm1d, d: int) -> nn.Module:
    kind: Any = BATCH_NORMS[d]
    result = kind(norm.num_features, norm.eps).to(norm.weight)
    result.load_state_dict(norm.state_dict())
    return result


def _instance_norm(norm: Any, grid: Grid) -> nn.Module:
    if math.prod(grid.sizes) == 1:
        return _OfOnePosition(norm.bias)
    kind: Any = _INSTANCE_NORMS[grid.d]
    result = kind(len(norm.weight), norm.eps, affine=True).to(norm.weight)
    result.load_state_dict(norm.state_dict())
    return result
