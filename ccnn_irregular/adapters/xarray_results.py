"""What a computed array keeps of the attributes and the encoding of the array it was computed from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr

from ccnn_irregular.layers import ContinuousConv, SeparableContinuousConv

__all__ = ["PACKING", "derived_attributes", "fitting_encoding", "set_coordinates", "smooths", "without_limits"]

# How values are made into the numbers that are stored, or rounded before: results are other values.
PACKING = (
    "dtype",
    "scale_factor",
    "add_offset",
    "_FillValue",
    "missing_value",
    "_Unsigned",
    "fill_value",
    "filters",
    "serializer",
    "least_significant_digit",
    "significant_digits",
    "quantize_mode",
    "units",
    "calendar",
)
# How dimensions are cut.
_LAYOUT = ("chunks", "chunksizes", "shards")
_SHAPE = (*_LAYOUT, "preferred_chunks", "original_shape")
# Attributes by CF conventions, and what cfgrib adds to them, by what ends their truth.
_LIMITS = ("valid_range", "valid_min", "valid_max", "actual_range", "missing_value", "_FillValue")
_CELLS = ("cell_methods", "flag_values", "flag_masks", "flag_meanings", "ancillary_variables", "GRIB_stepType")
_QUANTITY = ("units", "standard_name", "long_name")
_GRIB_QUANTITY = ("units", "cfName", "cfVarName", "name", "shortName", "paramId")

# Nodes per axis at which a kernel's mass is summed, and how far from 1 it may be.
_MASS_NODES = {1: 1024, 2: 128, 3: 32, 4: 16}
_UNIT_MASS = 0.01


def fitting_encoding(result: xr.DataArray, template: xr.DataArray) -> dict[Any, Any]:
    """Drop from the template's encoding what does not fit a computed result.

    Compression stays; so does the layout of chunks where the result has the template's sizes, a new dimension in one
    chunk. A float type stays that holds the result exactly, with a fill value that no value of the result equals (a
    lazy result may hold any: only nan stays). Integers, packings and all that rounds are left out.
    """
    given = template.encoding
    encoding = {key: value for key, value in given.items() if key not in (*PACKING, *_SHAPE)}
    named = str(encoding.get("coordinates") or "").split()
    if not set(named) <= set(map(str, result.coords)):
        del encoding["coordinates"]
    dtype = np.dtype(given.get("dtype") or result.dtype)
    if dtype.kind == "f" and np.can_cast(result.dtype, dtype):
        encoding |= {"dtype": given["dtype"]} if "dtype" in given else {}
        encoding |= _fitting_fill(result, given)
    return encoding | _fitting_layout(result, template)


def _fitting_fill(result: xr.DataArray, encoding: Mapping[Any, Any]) -> dict[Any, Any]:
    if "_FillValue" not in encoding or {"scale_factor", "add_offset"} & set(encoding):
        return {}
    fill = encoding["_FillValue"]
    if fill is None or np.isnan(fill):
        return {"_FillValue": fill}
    dtype = np.dtype(encoding.get("dtype") or result.dtype)
    with np.errstate(over="ignore"):
        stored = dtype.type(fill)
    free = result.chunks is None and bool(np.isfinite(stored)) and not bool((result.to_numpy() == stored).any())
    return {"_FillValue": stored} if free else {}


def _fitting_layout(result: xr.DataArray, template: xr.DataArray) -> dict[Any, Any]:
    given = template.encoding
    sizes = {dim: size for dim, size in result.sizes.items() if dim in template.dims}
    if any(template.sizes[dim] != size for dim, size in sizes.items()):
        return {}
    layout: dict[Any, Any] = {}
    for key in _LAYOUT:
        steps = given.get(key)
        if steps is not None and len(steps) == template.ndim:
            by_dim = dict(zip(template.dims, steps, strict=True))
            layout[key] = tuple(by_dim.get(dim, size) for dim, size in result.sizes.items())
    if "preferred_chunks" in given:
        layout["preferred_chunks"] = {dim: step for dim, step in given["preferred_chunks"].items() if dim in sizes}
    return layout | ({"original_shape": result.shape} if "original_shape" in given else {})


def set_coordinates(result: xr.DataArray, coordinates: Mapping[Any, xr.DataArray]) -> xr.DataArray:
    """Set coordinates of ``result``, with their encodings."""
    result = result.assign_coords({name: coordinate.variable for name, coordinate in coordinates.items()})
    for name, coordinate in coordinates.items():
        result.coords[name].encoding = dict(coordinate.encoding)
    return result


def without_limits(attributes: Mapping[Any, Any]) -> dict[Any, Any]:
    """Drop the attributes that bound the values: computed values need not keep to them."""
    return {key: value for key, value in attributes.items() if key not in _LIMITS}


def derived_attributes(array: xr.DataArray, what: str, *, same_quantity: bool) -> dict[Any, Any]:
    """Derive the attributes of an array that is computed from another.

    Limits, methods of the cells, flags and ancillary variables are those of its values, so they are left out. Unless
    the result is the same quantity, its unit and standard name are too, and the long name says what it is.

    Args:
        array: see above.
        what: is computed from it, "convolution" for instance.
        same_quantity: the result has the array's unit.
    """
    attributes = {key: value for key, value in without_limits(array.attrs).items() if key not in _CELLS}
    if same_quantity:
        return attributes
    named = [str(array.attrs[key]) for key in ("long_name", "standard_name") if key in array.attrs]
    named += [str(array.name)] if array.name is not None else []
    gone = (*_QUANTITY, *(f"GRIB_{key}" for key in _GRIB_QUANTITY))
    attributes = {key: value for key, value in attributes.items() if key not in gone}
    if named and set(_QUANTITY) & set(array.attrs):
        unit = f" ({array.attrs['units']})" if "units" in array.attrs else ""
        attributes["long_name"] = f"{what} of {named[0]}{unit}"
    return attributes


@torch.no_grad()
def smooths(layer: ContinuousConv | SeparableContinuousConv) -> bool:
    """Tell whether a layer is a moving average: each channel by itself, a kernel that integrates to 1, no bias."""
    if not isinstance(layer, ContinuousConv) or (layer.bias is not None and bool((layer.bias != 0).any())):
        return False
    kernel = layer.kernel
    support = kernel.support.double()
    alone = kernel.depthwise or (layer.groups == 1 and kernel.in_channels == kernel.out_channels == 1)
    if not alone or kernel.d not in _MASS_NODES or not bool(torch.isfinite(support).all()):
        return False
    count = _MASS_NODES[kernel.d]
    ticks = (torch.arange(count, dtype=torch.float64) + 0.5) * (2 / count) - 1
    offsets = torch.stack(torch.meshgrid(*(ticks * reach for reach in support), indexing="ij"), dim=-1)
    values = kernel(offsets.reshape(-1, kernel.d).to(kernel.dtype)).double()
    masses = values.reshape(len(values), -1).mean(0) * (2 * support).prod()
    return bool(((masses - 1).abs() <= _UNIT_MASS).all())
