"""Gaussian smoothing of arrays with coordinates: a convolution over what is known, divided by that of its mask."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, final

import numpy as np
import torch
import xarray as xr
from torch import nn

from ccnn_irregular._checks import require
from ccnn_irregular.adapters.xarray_apply import convolved
from ccnn_irregular.adapters.xarray_results import derived_attributes, fitting_encoding
from ccnn_irregular.adapters.xarray_roles import Options, frame_of
from ccnn_irregular.kernels import GaussianMask, Generator, Kernel
from ccnn_irregular.kernels.formula import Operations
from ccnn_irregular.layers import ContinuousConv

__all__ = ["smoothed"]

# Where the Gaussian ends: six standard deviations from the middle.
_THRESHOLD = math.exp(-18.0)
# Share of the Gaussian's mass that must be known for a place to have an answer.
_LEAST_MASS = 1e-6


@final
class _Constant(Generator):
    """The same value at every offset."""

    def __init__(self, d: int, value: float) -> None:
        super().__init__(d, 1)
        self._output = nn.Linear(d, 1, dtype=torch.float64)
        with torch.no_grad():
            self._output.weight.zero_()
            self._output.bias.fill_(value)

    @property
    def output(self) -> nn.Linear:
        return self._output

    def formula(self, offsets: Any, operations: Operations) -> Any:
        return operations.linear(offsets, self._output.weight, self._output.bias)


def smoothed(
    array: xr.DataArray, sigma: float | Mapping[str, float], options: Options, keep_missing: bool
) -> xr.DataArray:
    """Smooth ``array`` by a Gaussian; see the accessor."""
    options = replace(options, samples=_apart(array, sigma, options), channels=None)
    axes = [str(axis) for axis in frame_of(array, options).axes]
    widths = _widths(sigma, axes)
    # Quotients of float32 sums would lose digits where little is known.
    known = array.notnull()
    values, mask = (one.astype(np.float64) for one in (array, known.where(known)))
    layer = _layer(widths)
    mass = convolved(mask, layer, options)
    result = convolved(values, layer, options) / mass.where(mass > _LEAST_MASS)
    result = result.where(known) if keep_missing else result
    result = result.astype(array.dtype if array.dtype.kind == "f" else np.float64)
    result.attrs, result.name = derived_attributes(array, "smooth", same_quantity=True), array.name
    result.encoding = fitting_encoding(result, array)
    return result


def _apart(array: xr.DataArray, sigma: float | Mapping[str, float], options: Options) -> tuple[str, ...]:
    """Dimensions whose entries are smoothed each by itself: samples, channels, and those that ``sigma`` leaves out."""
    samples = (options.samples,) if isinstance(options.samples, str) else tuple(options.samples)
    apart = [*samples, *([options.channels] if options.channels else [])]
    if isinstance(sigma, Mapping):
        unknown = sorted(set(sigma) - set(map(str, array.coords)) - set(map(str, array.dims)))
        require(not unknown, "sigma", f"name axes of {list(array.dims)}", unknown)
        moved = {str(dim) for name in sigma for dim in (array[name].dims or (name,))}
        apart += [str(dim) for dim in array.dims if str(dim) not in moved]
    return tuple(dict.fromkeys(apart))


def _widths(sigma: float | Mapping[str, float], axes: Sequence[str]) -> list[float]:
    """The standard deviation along each axis."""
    if isinstance(sigma, Mapping):
        rule = f"name each axis, {', '.join(axes)} (samples=... are the others)"
        require(set(axes) == set(sigma), "sigma", rule, dict(sigma))
    by_axis = dict(sigma) if isinstance(sigma, Mapping) else dict.fromkeys(axes, sigma)
    widths = [float(by_axis[axis]) for axis in axes]
    require(all(math.isfinite(width) and width > 0 for width in widths), "sigma", "be positive", by_axis)
    return widths


def _layer(widths: Sequence[float]) -> ContinuousConv:
    """A moving average by a Gaussian of unit mass, float64."""
    mass = math.prod(math.sqrt(2 * math.pi) * width for width in widths)
    mask = GaussianMask(list(widths), threshold=_THRESHOLD, trainable=False)
    reach = [6.0 * width for width in widths]
    kernel = Kernel(_Constant(len(widths), 1 / mass), mask, extent=reach)
    return ContinuousConv(kernel.double()).requires_grad_(False)
