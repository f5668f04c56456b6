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
    """``layer`` applied to an array; lazily where the array is lazy. See the accessor."""
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
    """``model`` applied to an array; lazily where the array is lazy. See the accessor."""
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
    """A result with the attributes that still hold: of a layer's convolution, or of a network's answer."""
    what = "network's answer" if layer is None else "convolution"
    made.attrs = derived_attributes(array, what, same_quantity=layer is not None and smooths(layer))
    return made


def _predicted_lazily(array: xr.DataArray, model: nn.Module, frame: Frame) -> xr.DataArray:
    """A network that answers at every place, block by block; each sees as far as all of its kernels together."""
    _require_cast(array.dtype, model)
    support = np.sum([one.kernel.support.tolist() for one in _convolutions(model)], axis=0).tolist()

    def apply(packed: Array, source: Frame, wanted: Frame) -> Array:
        result = _answer(model, packed, source, None)
        rule = "answer at every place of a lazy array (head 'dense'); load the array for others"
        require(result.ndim == packed.ndim, "model", rule, f"shape {result.shape}")
        return _trimmed(result, source, wanted)

    # A corner tells how many channels there will be.
    corner = frame.sliced({i: (0, min(2, one.count)) for i, one in enumerate(frame.factors) if may_be_cut(one)})
    channels = array.sizes[frame.channels] if frame.channels is not None else 1
    blank = np.zeros((1, channels, *corner.sizes), dtype=array.dtype)
    probe = apply(blank, corner, corner)
    return restored(Blocks.of(array, frame, support).map(apply, probe.shape[1], probe.dtype), frame, array)


def _trimmed(result: Array, source: Frame, wanted: Frame) -> Array:
    """What of a block's result lies on the wanted nodes."""
    for place, (own, part) in enumerate(zip(source.factors, wanted.factors, strict=True)):
        if own.count != part.count:
            first = int(np.abs(own.coordinates[:, 0] - part.coordinates[0, 0]).argmin())
            result = result.take(np.arange(first, first + part.count), 2 + place)
    return result


@torch.no_grad()
def _integral(layer: ContinuousConv | SeparableContinuousConv, packed: Array, source: Frame, wanted: Frame) -> Array:
    """A convolution of ``(B, C, *sizes)``, ``(B, D, *wanted.sizes)``.

    A value meets its weight before anything else, so one that counts for nothing may as well be zero, and one that
    counts for less than its cell be multiplied: uniform axes stay a grid whatever is missing there.
    """
    scattered, batch = source.scattered(weighted=True), len(packed)
    values = torch.nan_to_num(as_tensor(packed, layer.kernel.dtype))
    values = values * torch.from_numpy(source.ratios(scattered)).to(values.dtype)
    domain = source.domain(scattered, batch)
    there = wanted.scattered(weighted=True)
    query = domain if wanted is source else wanted.domain(there, batch)
    result = layer(source.to_values(values, scattered), domain, query)
    return wanted.from_values(result, there, batch).numpy()


@torch.no_grad()
def _answer(model: nn.Module, packed: Array, frame: Frame, query: Frame | None) -> Array:
    """What a network says to ``(B, C, *sizes)``: ``(B, D, *sizes)``, or ``(B, D)`` once per sample."""
    scattered, observed = frame.observed_part(packed)
    batch = len(packed)
    values = frame.to_values(as_tensor(packed, _dtype(model)), scattered)
    domain = frame.domain(scattered, batch, observed)
    if query is not None:
        there = query.scattered(weighted=False)
        return query.from_values(model(values, domain, query.domain(there, batch)), there, batch).numpy()
    result: Tensor = model(values, domain)
    if result.shape[:1] == values.shape[:1] and result.shape[2:] == values.shape[2:]:
        return frame.from_values(result, scattered, batch).numpy()
    rule = "answer at every place, or once per sample"
    require(result.ndim == 2 and len(result) == batch, "model", rule, f"shape {tuple(result.shape)}")
    return result.numpy()


def _asked(like: xr.DataArray, array: xr.DataArray, frame: Frame, options: Options) -> Frame:
    """The axes of ``like`` in the order and the measure of ``frame``'s, longitudes in the same turn."""
    shared = _shared(options.axes, like)
    options = replace(options, samples=(), channels=None, order=None, axes=shared, weights=None, about=None)
    found = frame_of(like, options, weighted=False)
    roles = [role for one in frame.factors for role in one.roles]
    arranged: list[Line | Cloud] = []
    for role in roles:
        fitting = [one for one in found.factors if role in one.roles]
        rule = f"have each axis of the array once, {roles}"
        require(len(fitting) == 1, "like", rule, [role for one in found.factors for role in one.roles])
        if fitting[0] not in arranged:
            arranged.append(fitting[0])
    query = Frame(tuple(_in_turn(one, frame) for one in arranged), (), None)
    given = [role for one in query.factors for role in one.roles]
    require(given == roles, "like", f"have the axes {roles} in this order", given)
    return in_measure_of(frame, array, query, like, options.time_unit)


def _shared(axes: Axes | None, like: xr.DataArray) -> Axes | None:
    """Of the axes named for the array those that ``like`` has, too."""
    there = [name for name in axes or () if name in like.coords and like[name].dims]
    return {name: axes[name] for name in there} if isinstance(axes, Mapping) else there


def _around(frame: Frame, support: Sequence[float], *, asked: bool) -> Frame:
    """``frame``, with longitudes that repeat where a kernel reaches across the gap that they leave open.

    A query in the gap (``asked``) lies in the turn of the nearer end: from there the kernel may reach the other one.
    """
    factors = list(frame.factors)
    for place, one in enumerate(factors):
        axis = one.roles.index("longitude") if "longitude" in one.roles else None
        if axis is None or one.periods[axis] is not None:
            continue
        gap = GLOBE - float(np.ptp(one.coordinates[:, axis]))
        if gap / (2 if asked else 1) < support[frame.axes.index(one.names[axis])] < GLOBE / 2:
            factors[place] = _repeating(one, axis)
    return replace(frame, factors=tuple(factors))


def _repeating(one: Line | Cloud, axis: int) -> Line | Cloud:
    if isinstance(one, Line):
        return replace(one, period=GLOBE, step=None)
    return replace(one, periods=tuple(GLOBE if place == axis else p for place, p in enumerate(one.periods)))


def _in_turn(one: Line | Cloud, frame: Frame) -> Line | Cloud:
    """Longitudes in the turn about those of ``frame``; nothing repeats where nothing does there."""
    if "longitude" not in one.roles:
        return one
    source = next(factor for factor in frame.factors if "longitude" in factor.roles)
    axis = source.roles.index("longitude")
    longitudes, period = source.coordinates[:, axis], source.periods[axis]
    centre = float(longitudes.min() + longitudes.max()) / 2
    if isinstance(one, Line):
        return _line_in_turn(one, centre, period)
    own = one.roles.index("longitude")
    moved = one.coordinates.copy()
    moved[:, own] = on_circle(moved[:, own], centre)
    periods = tuple(period if axis == own else p for axis, p in enumerate(one.periods))
    return replace(one, coordinates=moved, periods=periods)


def _line_in_turn(one: Line, centre: float, period: float | None) -> Line:
    """A line of longitudes in the turn about ``centre``, cut opposite of it unless the source repeats."""
    if period is not None:
        middle = np.array((one.nodes[0] + one.nodes[-1]) / 2)
        return replace(one, nodes=one.nodes + float(on_circle(middle, centre) - middle))
    nodes = on_circle(one.nodes, centre)
    first = int(nodes.argmin())
    nodes, widths = np.roll(nodes, -first), np.roll(one.widths, -first)
    even = one.step is not None and np.allclose(np.diff(nodes), one.step, rtol=_SEAM, atol=0)
    return replace(
        one,
        nodes=nodes,
        widths=widths,
        step=one.step if even else None,
        period=None,
        first=(one.first + first) % one.count,
    )


def _asked_array(result: Array, query: Frame, frame: Frame, array: xr.DataArray, like: xr.DataArray) -> xr.DataArray:
    """Values ``(B, D, *dims of query)`` with the coordinates of ``like`` and the name of ``array``."""
    sizes = [array.sizes[dim] for dim in frame.samples]
    dims = [*frame.samples, CHANNEL, *(dim for one in query.factors for dim in one.dims)]
    made = xr.DataArray(result.reshape(*sizes, *result.shape[1:]), dims=dims)
    made = made.isel({CHANNEL: 0}) if result.shape[1] == 1 and frame.channels is None else made
    made = framed(made.transpose(..., *(str(dim) for dim in like.dims)), like)
    made = set_coordinates(made, _own_of_samples(frame, array))
    made.name = array.name
    made.encoding = fitting_encoding(made, array)
    return made


def _own_of_samples(frame: Frame, array: xr.DataArray) -> dict[Any, xr.DataArray]:
    """Coordinates that only run along the samples."""
    return {name: one for name, one in array.coords.items() if one.dims and set(one.dims) <= set(frame.samples)}


def _once_per_sample(result: Array, frame: Frame, array: xr.DataArray) -> xr.DataArray:
    """``(B, D)`` with the samples' dimensions and a channel dimension."""
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
    for one in found:
        require(one.kernel.d == frame.d, what, rule, f"{one.kernel.d} axes")


def _channels_out(layer: ContinuousConv | SeparableContinuousConv) -> int:
    return layer.pointwise.out_features if isinstance(layer, SeparableContinuousConv) else layer.kernel.out_channels


def _dtype(model: nn.Module) -> Any:
    """The dtype of a model's kernels."""
    return _convolutions(model)[0].kernel.dtype


def _require_cast(dtype: np.dtype[Any], model: nn.Module) -> None:
    as_tensor(np.empty(0, dtype), _dtype(model))
