"""Layers and networks on arrays: in memory, or lazily with the overlap that their kernels need."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor, nn

from ccnn_irregular._checks import require
from ccnn_irregular._optional import import_optional
from ccnn_irregular.adapters.xarray_alike import in_measure_of
from ccnn_irregular.adapters.xarray_axes import Line
from ccnn_irregular.adapters.xarray_blocks import Blocks, may_be_cut
from ccnn_irregular.adapters.xarray_clouds import Cloud
from ccnn_irregular.adapters.xarray_frames import CHANNEL, Frame, as_tensor, framed, numpy_dtype, restored
from ccnn_irregular.adapters.xarray_results import (
    derived_attributes,
    fitting_encoding,
    set_coordinates,
    smooths,
)
from ccnn_irregular.adapters.xarray_roles import Axes, Options, frame_of
from ccnn_irregular.layers import ContinuousConv, SeparableContinuousConv
from ccnn_irregular.longitudes import GLOBE, on_circle

__all__ = ["convolved", "predicted"]

Array = NDArray[Any]

# Share of a step by which gaps between the nodes of a uniform axis may differ.
_SEAM = 1e-2


def convolved(
    array: xr.DataArray,
    layer: ContinuousConv | SeparableContinuousConv,
    options: Options,
    like: xr.DataArray | None = None,
) -> xr.DataArray:
    """Apply ``layer`` to an array; lazily where the array is lazy. See the accessor."""
    kinds = (ContinuousConv, SeparableContinuousConv)
    require(isinstance(layer, kinds), "layer", "be one convolution; predict takes networks", type(layer).__name__)
    frame = frame_of(array, options)
    _require_axes("layer", layer, frame)
    frame = _around(frame, layer.kernel.support.tolist(), asked=like is not None)
    query = None if like is None else _asked(like, array, frame, options)

    def apply(packed: Array, source: Frame, wanted: Frame) -> Array:
        return _integral(layer, packed, source, wanted)

    if array.chunks is None:
        packed = frame.packed(array.transpose(*frame.dims).to_numpy())
        wanted = frame if query is None else query
        result = wanted.unpacked(apply(packed, frame, wanted))
        made = restored(result, frame, array) if like is None else _asked_array(result, wanted, frame, array, like)
        return _described(made, array, layer)
    require(like is None, "like", "be None for a lazy array: load it first", "another array")
    _require_cast(array.dtype, layer)
    support = layer.kernel.support.tolist()
    channels = _channels_out(layer)
    lazy = Blocks.of(array, frame, support).map(apply, channels, numpy_dtype(_dtype(layer)))
    return _described(restored(lazy, frame, array), array, layer)


def predicted(
    array: xr.DataArray,
    model: nn.Module,
    options: Options,
    batch_size: int | None = None,
    progress: bool = False,
    like: xr.DataArray | None = None,
) -> xr.DataArray:
    """Apply ``model`` to an array; lazily where the array is lazy. See the accessor."""
    require(batch_size is None or batch_size >= 1, "batch_size", "be at least 1", batch_size)
    frame = frame_of(array, options)
    _require_axes("model", model, frame)
    model = copy.deepcopy(model).eval().requires_grad_(False)
    if array.chunks is not None:
        require(like is None, "like", "be None for a lazy array: load it first", "another array")
        return _described(_predicted_lazily(array, model, frame), array)
    query = None if like is None else _asked(like, array, frame, options)
    packed = frame.packed(array.transpose(*frame.dims).to_numpy())
    size = (1 if progress else max(1, len(packed))) if batch_size is None else batch_size
    parts = [packed[start : start + size] for start in range(0, len(packed), size)]
    results = [_answer(model, part, frame, query) for part in _watched(parts, progress)]
    result = np.concatenate(results)
    if query is not None and like is not None:
        return _described(_asked_array(query.unpacked(result), query, frame, array, like), array)
    if result.ndim == 2:
        return _once_per_sample(result, frame, array)
    return _described(restored(frame.unpacked(result), frame, array), array)


def _described(
    made: xr.DataArray, array: xr.DataArray, layer: ContinuousConv | SeparableContinuousConv | None = None
) -> xr.DataArray:
    """Add the attributes that still hold for a layer's convolution, or for a network's answer."""
    what = "network's answer" if layer is None else "convolution"
    made.attrs = derived_attributes(array, what, same_quantity=layer is not None and smooths(layer))
    return made


def _predicted_lazily(array: xr.DataArray, model: nn.Module, frame: Frame) -> xr.DataArray:
    """Apply a network that answers at every place, block by block; each block sees as far as all kernels together."""
    _require_cast(array.dtype, model)
    support = np.sum([convolution.kernel.support.tolist() for convolution in _convolutions(model)], axis=0).tolist()

    def apply(packed: Array, source: Frame, wanted: Frame) -> Array:
        result = _answer(model, packed, source, None)
        rule = "answer at every place of a lazy array (head 'dense'); load the array for others"
        require(result.ndim == packed.ndim, "model", rule, f"shape {result.shape}")
        return _trimmed(result, source, wanted)

    # A corner tells how many channels there will be.
    corner = frame.sliced(
        {i: (0, min(2, factor.count)) for i, factor in enumerate(frame.factors) if may_be_cut(factor)}
    )
    channels = array.sizes[frame.channels] if frame.channels is not None else 1
    blank = np.zeros((1, channels, *corner.sizes), dtype=array.dtype)
    probe = apply(blank, corner, corner)
    return restored(Blocks.of(array, frame, support).map(apply, probe.shape[1], probe.dtype), frame, array)


def _trimmed(result: Array, source: Frame, wanted: Frame) -> Array:
    """Cut a block's result to the wanted nodes."""
    for place, (factor, part) in enumerate(zip(source.factors, wanted.factors, strict=True)):
        if factor.count != part.count:
            first = int(np.abs(factor.coordinates[:, 0] - part.coordinates[0, 0]).argmin())
            result = result.take(np.arange(first, first + part.count), 2 + place)
    return result


@torch.no_grad()
def _integral(layer: ContinuousConv | SeparableContinuousConv, packed: Array, source: Frame, wanted: Frame) -> Array:
    """Convolve ``(B, C, *sizes)``; returns ``(B, D, *wanted.sizes)``.

    A value meets its weight before anything else, so one that counts for nothing may as well be zero, and one that
    counts for less than its cell be multiplied: uniform axes stay a grid whatever is missing there.
    """
    scattered, batch = source.scattered(weighted=True), len(packed)
    values = torch.nan_to_num(as_tensor(packed, layer.kernel.dtype))
    values = values * torch.from_numpy(source.ratios(scattered)).to(values.dtype)
    domain = source.domain(scattered, batch)
    asked = wanted.scattered(weighted=True)
    query = domain if wanted is source else wanted.domain(asked, batch)
    result = layer(source.to_values(values, scattered), domain, query)
    return wanted.from_values(result, asked, batch).numpy()


@torch.no_grad()
def _answer(model: nn.Module, packed: Array, frame: Frame, query: Frame | None) -> Array:
    """Apply a network to ``(B, C, *sizes)``; returns ``(B, D, *sizes)``, or ``(B, D)`` for one answer per sample."""
    scattered, observed = frame.observed_part(packed)
    batch = len(packed)
    values = frame.to_values(as_tensor(packed, _dtype(model)), scattered)
    domain = frame.domain(scattered, batch, observed)
    if query is not None:
        asked = query.scattered(weighted=False)
        return query.from_values(model(values, domain, query.domain(asked, batch)), asked, batch).numpy()
    result: Tensor = model(values, domain)
    if result.shape[:1] == values.shape[:1] and result.shape[2:] == values.shape[2:]:
        return frame.from_values(result, scattered, batch).numpy()
    rule = "answer at every place, or once per sample"
    require(result.ndim == 2 and len(result) == batch, "model", rule, f"shape {tuple(result.shape)}")
    return result.numpy()


def _asked(like: xr.DataArray, array: xr.DataArray, frame: Frame, options: Options) -> Frame:
    """Return the axes of ``like`` in the order and the units of ``frame``'s, longitudes in the same turn."""
    shared = _shared(options.axes, like)
    options = replace(options, samples=(), channels=None, order=None, axes=shared, weights=None, about=None)
    found = frame_of(like, options, weighted=False)
    roles = [role for factor in frame.factors for role in factor.roles]
    arranged: list[Line | Cloud] = []
    for role in roles:
        fitting = [factor for factor in found.factors if role in factor.roles]
        rule = f"have each axis of the array once, {roles}"
        require(len(fitting) == 1, "like", rule, [role for factor in found.factors for role in factor.roles])
        if fitting[0] not in arranged:
            arranged.append(fitting[0])
    query = Frame(tuple(_in_turn(factor, frame) for factor in arranged), (), None)
    given = [role for factor in query.factors for role in factor.roles]
    require(given == roles, "like", f"have the axes {roles} in this order", given)
    return in_measure_of(frame, array, query, like, options.time_unit)


def _shared(axes: Axes | None, like: xr.DataArray) -> Axes | None:
    """Keep those of the named axes that ``like`` has too."""
    usable = [name for name in axes or () if name in like.coords and like[name].dims]
    return {name: axes[name] for name in usable} if isinstance(axes, Mapping) else usable


def _around(frame: Frame, support: Sequence[float], *, asked: bool) -> Frame:
    """Let longitudes repeat where a kernel reaches across the gap that they leave open.

    A query in the gap (``asked``) lies in the turn of the nearer end: from there the kernel may reach the other one.
    """
    factors = list(frame.factors)
    for place, factor in enumerate(factors):
        axis = factor.roles.index("longitude") if "longitude" in factor.roles else None
        if axis is None or factor.periods[axis] is not None:
            continue
        gap = GLOBE - float(np.ptp(factor.coordinates[:, axis]))
        if gap / (2 if asked else 1) < support[frame.axes.index(factor.names[axis])] < GLOBE / 2:
            factors[place] = _repeating(factor, axis)
    return replace(frame, factors=tuple(factors))


def _repeating(factor: Line | Cloud, axis: int) -> Line | Cloud:
    if isinstance(factor, Line):
        return replace(factor, period=GLOBE, step=None)
    return replace(factor, periods=tuple(GLOBE if place == axis else p for place, p in enumerate(factor.periods)))


def _in_turn(asked: Line | Cloud, frame: Frame) -> Line | Cloud:
    """Move longitudes into the turn about those of ``frame``; they repeat only if those do."""
    if "longitude" not in asked.roles:
        return asked
    source = next(factor for factor in frame.factors if "longitude" in factor.roles)
    axis = source.roles.index("longitude")
    longitudes, period = source.coordinates[:, axis], source.periods[axis]
    centre = float(longitudes.min() + longitudes.max()) / 2
    if isinstance(asked, Line):
        return _line_in_turn(asked, centre, period)
    turning = asked.roles.index("longitude")
    moved = asked.coordinates.copy()
    moved[:, turning] = on_circle(moved[:, turning], centre)
    periods = tuple(period if axis == turning else p for axis, p in enumerate(asked.periods))
    return replace(asked, coordinates=moved, periods=periods)


def _line_in_turn(line: Line, centre: float, period: float | None) -> Line:
    """Move a line of longitudes into the turn about ``centre``, cut opposite of it unless the source repeats."""
    if period is not None:
        middle = np.array((line.nodes[0] + line.nodes[-1]) / 2)
        return replace(line, nodes=line.nodes + float(on_circle(middle, centre) - middle))
    nodes = on_circle(line.nodes, centre)
    first = int(nodes.argmin())
    nodes, widths = np.roll(nodes, -first), np.roll(line.widths, -first)
    even = line.step is not None and np.allclose(np.diff(nodes), line.step, rtol=_SEAM, atol=0)
    return replace(
        line,
        nodes=nodes,
        widths=widths,
        step=line.step if even else None,
        period=None,
        first=(line.first + first) % line.count,
    )


def _asked_array(result: Array, query: Frame, frame: Frame, array: xr.DataArray, like: xr.DataArray) -> xr.DataArray:
    """Make an array of ``(B, D, *dims of query)`` with the coordinates of ``like`` and the name of ``array``."""
    sizes = [array.sizes[dim] for dim in frame.samples]
    dims = [*frame.samples, CHANNEL, *(dim for factor in query.factors for dim in factor.dims)]
    made = xr.DataArray(result.reshape(*sizes, *result.shape[1:]), dims=dims)
    made = made.isel({CHANNEL: 0}) if result.shape[1] == 1 and frame.channels is None else made
    made = framed(made.transpose(..., *(str(dim) for dim in like.dims)), like)
    made = set_coordinates(made, _own_of_samples(frame, array))
    made.name = array.name
    made.encoding = fitting_encoding(made, array)
    return made


def _own_of_samples(frame: Frame, array: xr.DataArray) -> dict[Any, xr.DataArray]:
    """Return the coordinates that only run along the samples."""
    return {
        name: coordinate
        for name, coordinate in array.coords.items()
        if coordinate.dims and set(coordinate.dims) <= set(frame.samples)
    }


def _once_per_sample(result: Array, frame: Frame, array: xr.DataArray) -> xr.DataArray:
    """Make an array of ``(B, D)`` with the samples' dimensions and a channel dimension."""
    sizes = [array.sizes[dim] for dim in frame.samples]
    made = xr.DataArray(result.reshape(*sizes, -1), dims=(*frame.samples, CHANNEL))
    made = set_coordinates(made, _own_of_samples(frame, array))
    made.name = array.name
    return made


def _watched(parts: Sequence[Array], progress: bool) -> Iterator[Array]:
    bar = import_optional("tqdm", "a progress bar").tqdm(parts, desc="predict", unit="batch") if progress else parts
    yield from bar


def _convolutions(model: nn.Module) -> list[ContinuousConv]:
    return [module for module in model.modules() if isinstance(module, ContinuousConv)]


def _require_axes(what: str, model: nn.Module, frame: Frame) -> None:
    found = _convolutions(model)
    require(len(found) > 0, what, "hold a continuous convolution", type(model).__name__)
    rule = f"have kernels of the array's {frame.d} axes {frame.axes}"
    for convolution in found:
        require(convolution.kernel.d == frame.d, what, rule, f"{convolution.kernel.d} axes")


def _channels_out(layer: ContinuousConv | SeparableContinuousConv) -> int:
    return layer.pointwise.out_features if isinstance(layer, SeparableContinuousConv) else layer.kernel.out_channels


def _dtype(model: nn.Module) -> Any:
    """Return the dtype of a model's kernels."""
    return _convolutions(model)[0].kernel.dtype


def _require_cast(dtype: np.dtype[Any], model: nn.Module) -> None:
    as_tensor(np.empty(0, dtype), _dtype(model))
