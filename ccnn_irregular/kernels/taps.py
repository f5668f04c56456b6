"""Discrete kernels as continuous ones: a table of taps, and the grids on which it is a discrete convolution.

The value of a tap is a number, that of a kernel a number per volume: the quadrature multiplies by the volume of the
source's cell, so a table divided by this volume is the discrete convolution itself,
sum_n volume (T_k / volume) x_n = sum_n T_k x_n, not an approximation of it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Self, final

import torch
from torch import Tensor, nn

from ccnn_irregular._checks import require
from ccnn_irregular.domains import Grid
from ccnn_irregular.kernels.box_masks import ON_TAP, BoxMask, DilatedMask
from ccnn_irregular.kernels.formula import Operations
from ccnn_irregular.kernels.generators import Generator
from ccnn_irregular.kernels.kernel import Kernel

__all__ = [
    "Taps",
    "conv_kernel",
    "conv_query",
    "conv_transpose_kernel",
    "conv_transpose_query",
    "dilated",
    "unread_lags",
]

Ints = int | Sequence[int]


@final
class Taps(Generator):
    """A table of numbers at given offsets, interpolated linearly on every axis to zero one unit off each tap.

    K(x) = 1 / volume sum_k T_k prod_a hat(x_a - position_ka) with hat(z) = 1 - |z|, cut off between 0 and 1, with
    flat ends of a thousandth of a unit: |z| < 0.001 is on the tap, |z| > 0.999 on its neighbour. Taps one unit apart
    give the piecewise multilinear function through the table; taps further apart (dilation) stand alone.

    Args:
        positions: per axis, the offsets of the taps in units of the kernel's extent, in the table's order.
        out_channels: number of kernel values per offset.
        volume: what the table is divided by, units of volume: that of the cells of the grid on which the taps are to
            be the weights of a discrete convolution.

    Attributes:
        output: its weight ``(out_channels, taps)`` is the table, the last axis running fastest; it has no bias.

    Raises:
        ValueError: an axis without a tap, taps less than one unit apart, a volume that is not positive.
    """

    places: Tensor

    def __init__(self, positions: Sequence[Sequence[float]], out_channels: int, volume: float = 1.0) -> None:
        super().__init__(len(positions), out_channels)
        for axis, along in enumerate(positions):
            require(len(along) >= 1, "positions", f"name at least one tap on axis {axis}", tuple(along))
            gaps = [b - a for a, b in itertools.pairwise(sorted(along))]
            apart = all(gap >= 1 - ON_TAP for gap in gaps)
            require(apart, "positions", f"be at least one unit apart on axis {axis}", tuple(along))
        require(math.isfinite(volume) and volume > 0, "volume", "be positive and finite", volume)
        self.volume = volume
        self._positions = tuple(map(tuple, positions))
        self._output = nn.Linear(math.prod(map(len, positions)), out_channels, bias=False)
        mesh = torch.tensor(self._mesh(), dtype=torch.get_default_dtype())
        self.register_buffer("places", mesh, persistent=False)

    def extra_repr(self) -> str:
        return f"{self.d} -> {self.out_channels}, {len(self.places)} taps"

    @property
    def output(self) -> nn.Linear:
        return self._output

    def formula(self, offsets: Any, operations: Operations) -> Any:
        hats = self._hat(0, offsets, operations)
        for axis in range(1, self.d):
            hats = hats * self._hat(axis, offsets, operations)
        return operations.linear(hats, self._output.weight * (1 / self.volume), None)

    def _mesh(self) -> list[tuple[float, ...]]:
        """The place of every tap, the last axis running fastest."""
        return list(itertools.product(*self._positions))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        empty = self.places.is_meta
        super()._apply(fn, recurse)
        if empty and not self.places.is_meta:  # built on the meta device; no state_dict holds the places
            self.places = torch.tensor(self._mesh(), dtype=self.places.dtype, device=self.places.device)
        return self

    def _hat(self, axis: int, offsets: Any, operations: Operations) -> Any:
        """1 on the taps' coordinate on this axis, 0 one unit off; one component per tap."""
        distance = (operations.component(offsets, axis) - operations.vector(self.places[:, axis])).abs()
        slope = 1 / (1 - 2 * ON_TAP)
        height = (distance * -slope + (1 - ON_TAP) * slope).relu()
        return (height * -1.0 + 1.0).relu() * -1.0 + 1.0


def dilated(kernel: Kernel, rates: float | Sequence[float]) -> Kernel:
    """The kernel stretched about lag zero, K(x / rate), with the same parameters: not copies, the same tensors.

    A continuous kernel has no holes to be stretched; neither has what it reads. A table of taps is stretched with its
    interpolation: on grids as fine as before that is an enlarged image of it. The dilated convolution of
    ``torch.nn.functional``, whose taps stand alone, is ``conv_kernel(..., dilation=rate)``.

    Args:
        kernel: what to stretch.
        rates: factor per axis, or one for all.

    Raises:
        ValueError: rates that are not positive, or not one per axis.
    """
    rates = (float(rates),) * kernel.d if isinstance(rates, int | float) else tuple(map(float, rates))
    require(len(rates) == kernel.d, "rates", f"have one entry per axis, {kernel.d}", rates)
    require(all(math.isfinite(rate) and rate > 0 for rate in rates), "rates", "be positive and finite", rates)
    mask = None if kernel.mask is None else DilatedMask(kernel.mask, rates).to(kernel.extent)
    extent = [length * rate for length, rate in zip(kernel.exact_numbers("extent"), rates, strict=True)]
    return kernel.replace(mask=mask, extent=extent)


def conv_kernel(
    weight: Tensor, steps: Sequence[float], *, dilation: Ints = 1, causal_axes: Sequence[int] = ()
) -> Kernel:
    """The continuous kernel that is ``torch.nn.functional.conv1d`` (2d, 3d, ...) with ``weight`` on grids of ``steps``.

    torch's convolution is a correlation: tap k reads what lies k steps further on, so its offset is negative there.
    Lag zero is the middle of the table, on causal axes its last tap.

    Args:
        weight: ``(D, C / groups, *sizes)`` as torch has it, for ``ContinuousConv(kernel, groups=groups)``; or
            ``(C, *sizes)`` for a depthwise kernel. Its values become a parameter of their own, of its dtype.
        steps: distance of the grid's nodes per axis, coordinate units; the number of axes.
        dilation: distance of the taps, in steps; one for all axes or one per axis.
        causal_axes: axes along which only the past is read.

    Raises:
        ValueError: a shape that does not go with the number of axes, a dilation below 1.
    """
    d = len(steps)
    sizes = _sizes(weight, d)
    rates = _per_axis("dilation", dilation, d, 1)
    lags = _lag_zero(sizes, rates, causal_axes)
    positions = [[lag - rate * k for k in range(size)] for size, rate, lag in zip(sizes, rates, lags, strict=True)]
    return _table(weight, positions, steps, math.prod(steps), causal_axes)


def conv_query(
    source: Grid,
    sizes: Sequence[int],
    *,
    stride: Ints = 1,
    padding: Ints | Sequence[tuple[int, int]] = 0,
    dilation: Ints = 1,
    causal_axes: Sequence[int] = (),
) -> Grid:
    """The grid on which ``conv_kernel`` gives the nodes of ``torch.nn.functional.conv1d`` (2d, 3d, ...), in its order.

    On axes that repeat padding is circular, as ``torch.nn.functional.pad(..., mode="circular")`` makes it.

    Args:
        source: where values are given.
        sizes: taps per axis.
        stride: source steps per step of the result.
        padding: zeros before and after each axis: one number, one per axis, or pairs (before, after) per axis. Left of
            an axis (K - 1) dilation zeros and right of it none make a causal convolution of the axis' own length.
        dilation: as for ``conv_kernel``.
        causal_axes: as for ``conv_kernel``.

    Raises:
        ValueError: numbers below their least value, or a kernel larger than the padded grid.
    """
    d = source.d
    require(len(sizes) == d, "sizes", f"have one entry per axis, {d}", tuple(sizes))
    strides, rates = _per_axis("stride", stride, d, 1), _per_axis("dilation", dilation, d, 1)
    pads = _pads(padding, d)
    lags = _lag_zero(sizes, rates, causal_axes)
    counts, starts = [], []
    for axis, source_axis in enumerate(source.axes):
        before, after = pads[axis]
        room = source_axis.size + before + after - rates[axis] * (sizes[axis] - 1) - 1
        require(room >= 0, "sizes", f"fit into the padded grid on axis {axis}", tuple(sizes))
        counts.append(room // strides[axis] + 1)
        starts.append(source_axis.start + (lags[axis] - before) * source_axis.step)
    steps = [step * stride for step, stride in zip(source.steps, strides, strict=True)]
    wraps = [a.periodic and n * s == a.size for a, n, s in zip(source.axes, counts, strides, strict=True)]
    return Grid(counts, steps, starts, wraps)


def conv_transpose_kernel(
    weight: Tensor,
    steps: Sequence[float],
    *,
    stride: Ints = 1,
    dilation: Ints = 1,
    groups: int = 1,
    causal_axes: Sequence[int] = (),
) -> Kernel:
    """The continuous kernel that is ``torch.nn.functional.conv_transpose1d`` (2d, 3d, ...) with ``weight``.

    Lag zero is the middle of the table, on causal axes its first tap.

    Args:
        weight: ``(C, D / groups, *sizes)`` as torch has it, for ``ContinuousConv(kernel, groups=groups)``.
        steps: distance of the source's nodes per axis, coordinate units.
        stride: steps of the result per step of the source.
        dilation: distance of the taps, in steps of the result.
        groups: number of groups of channels.
        causal_axes: axes along which only the past is read.

    Raises:
        ValueError: a shape that does not go with axes or groups, numbers below 1.
    """
    d = len(steps)
    require(weight.ndim == d + 2, "weight", f"have shape (C, D / groups, {d} sizes)", tuple(weight.shape))
    require(groups >= 1 and len(weight) % groups == 0, "groups", f"divide the {len(weight)} channels", groups)
    sizes = _sizes(weight, d)
    rates, strides = _per_axis("dilation", dilation, d, 1), _per_axis("stride", stride, d, 1)
    lags = _lag_zero(sizes, rates, causal_axes)
    firsts = [0 if axis in causal_axes else lag for axis, lag in enumerate(lags)]
    positions = [[rate * k - lag for k in range(size)] for size, rate, lag in zip(sizes, rates, firsts, strict=True)]
    by_group = weight.detach().unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)
    fine = [step / factor for step, factor in zip(steps, strides, strict=True)]
    return _table(by_group, positions, fine, math.prod(steps), causal_axes)


def conv_transpose_query(
    source: Grid,
    sizes: Sequence[int],
    *,
    stride: Ints = 1,
    padding: Ints = 0,
    output_padding: Ints = 0,
    dilation: Ints = 1,
    causal_axes: Sequence[int] = (),
) -> Grid:
    """The grid on which ``conv_transpose_kernel`` gives the nodes of ``torch.nn.functional.conv_transpose1d`` (...).

    Args:
        source: where values are given; an axis that repeats is refined as a whole, ``stride`` nodes for each.
        sizes: taps per axis.
        stride: as for ``conv_transpose_kernel``.
        dilation: as for ``conv_transpose_kernel``.
        causal_axes: as for ``conv_transpose_kernel``.
        padding: nodes left out at either end of the result.
        output_padding: nodes added at the far end.

    Raises:
        ValueError: numbers below their least value, or padding that leaves nothing.
    """
    d = source.d
    require(len(sizes) == d, "sizes", f"have one entry per axis, {d}", tuple(sizes))
    strides, rates = _per_axis("stride", stride, d, 1), _per_axis("dilation", dilation, d, 1)
    pads, extra = _per_axis("padding", padding, d, 0), _per_axis("output_padding", output_padding, d, 0)
    lags = _lag_zero(sizes, rates, causal_axes)
    counts, starts = [], []
    for axis, source_axis in enumerate(source.axes):
        count = (
            (source_axis.size - 1) * strides[axis] - 2 * pads[axis] + rates[axis] * (sizes[axis] - 1) + extra[axis] + 1
        )
        count = source_axis.size * strides[axis] if source_axis.periodic else count
        require(count >= 1, "padding", f"leave at least one node on axis {axis}", pads[axis])
        counts.append(count)
        lag = 0 if axis in causal_axes else lags[axis]
        starts.append(source_axis.start + (pads[axis] - lag) * source_axis.step / strides[axis])
    steps = [step / factor for step, factor in zip(source.steps, strides, strict=True)]
    return Grid(counts, steps, starts, source.periodic)


def _table(
    weight: Tensor,
    positions: Sequence[Sequence[float]],
    extent: Sequence[float],
    volume: float,
    causal_axes: Sequence[int],
) -> Kernel:
    """Kernel of the taps ``weight``, ``(*shape, *sizes)``, at ``positions`` in units of ``extent``."""
    shape = tuple(weight.shape[: weight.ndim - len(positions)])
    generator = Taps(positions, math.prod(shape), volume)
    middle = [(min(along) + max(along)) / 2 * length for along, length in zip(positions, extent, strict=True)]
    reach = [
        ((max(along) - min(along)) / 2 + 1 - ON_TAP) * length for along, length in zip(positions, extent, strict=True)
    ]
    mask = BoxMask(reach, middle)
    kernel = Kernel(generator, mask, extent=extent, shape=shape, causal_axes=causal_axes).to(weight)  # type: ignore[arg-type]
    with torch.no_grad():
        generator.output.weight.copy_(weight.reshape(generator.output.weight.shape))
    return kernel


def _lag_zero(sizes: Sequence[int], rates: Sequence[int], causal_axes: Sequence[int]) -> list[float]:
    """Per axis the place of lag zero in the table of a convolution, in steps from its first tap."""
    d = len(sizes)
    require(all(0 <= axis < d for axis in causal_axes), "causal_axes", f"lie in 0..{d - 1}", tuple(causal_axes))
    spans = [rate * (size - 1) for size, rate in zip(sizes, rates, strict=True)]
    return [float(span) if axis in causal_axes else span / 2 for axis, span in enumerate(spans)]


def _sizes(weight: Tensor, d: int) -> tuple[int, ...]:
    """Taps per axis of a table."""
    fits = d >= 1 and weight.ndim in (d + 1, d + 2) and weight.numel() > 0 and weight.is_floating_point()
    rule = f"be floating point of shape (D, C / groups, {d} sizes) or (C, {d} sizes)"
    require(fits, "weight", rule, f"{weight.dtype} {tuple(weight.shape)}")
    return tuple(weight.shape[-d:])


def _per_axis(name: str, given: Ints, d: int, least: int) -> tuple[int, ...]:
    numbers = tuple(given) if isinstance(given, Sequence) else (given,) * d
    require(len(numbers) == d, name, f"be one number or one per axis, {d}", numbers)
    require(
        all(isinstance(number, int) and number >= least for number in numbers),
        name,
        f"be integers from {least} on",
        numbers,
    )
    return numbers


def _pads(padding: Ints | Sequence[tuple[int, int]], d: int) -> list[tuple[int, int]]:
    """Nodes before and after each axis."""
    if isinstance(padding, int):
        padding = (padding,) * d
    require(len(padding) == d, "padding", f"be one number or one entry per axis, {d}", tuple(padding))
    pairs = [(pad, pad) if isinstance(pad, int) else pad for pad in padding]
    fits = all(len(pair) == 2 and all(isinstance(pad, int) and pad >= 0 for pad in pair) for pair in pairs)
    require(fits, "padding", "be integers from 0 on, or pairs of them", tuple(padding))
    return pairs


def unread_lags(size: int, rates: Sequence[int]) -> list[int]:
    """Lags within the reach of a stack of dilated tables that it never reads: the gridding artefact, as a list.

    A stack of convolutions reads the sums of one tap's lag per layer. Rates with a common divisor above 1 leave all
    lags between its multiples out; rates such as 1, 2, 5 leave none (hybrid dilated convolution, Wang et al. 2018,
    arXiv 1702.08502, section 3.2).

    Args:
        size: taps of each table, along one axis.
        rates: dilation of each layer.

    Returns:
        Lags from the first tap of all, in steps, ascending.

    Raises:
        ValueError: a size or rate below 1, or no layer.
    """
    require(isinstance(size, int) and size >= 1, "size", "be a positive integer", size)
    fits = len(rates) >= 1 and all(isinstance(rate, int) and rate >= 1 for rate in rates)
    require(fits, "rates", "be positive integers, one per layer", tuple(rates))
    read = {0}
    for rate in rates:
        read = {lag + rate * tap for lag in read for tap in range(size)}
    return [lag for lag in range(max(read)) if lag not in read]
