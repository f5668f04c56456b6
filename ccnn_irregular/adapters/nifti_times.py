"""When the volumes and slices of a NIfTI file were taken: its header's fields, and times."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ccnn_irregular._checks import require
from ccnn_irregular.adapters.nifti_space import uniform_axis

__all__ = ["SCAN_FIELDS", "TIMES", "header_times", "scan_fields", "slice_fields", "time_fields"]

Floats = NDArray[np.float64]

TIMES = {"sec": "seconds", "msec": "milliseconds", "usec": "microseconds"}
_SECONDS = {"seconds": 1.0, "s": 1.0, "milliseconds": 1e-3, "ms": 1e-3, "microseconds": 1e-6, "us": 1e-6}
# Order of the slices in time (slice_code) after their axis is turned around.
_TURNED = {0: 0, 1: 2, 2: 1, 3: 4, 4: 3, 5: 6, 6: 5}
_SLICE_FIELDS = ("slice_code", "slice_start", "slice_end", "slice_duration")
# Header fields kept as attributes where they differ from those of a new file.
SCAN_FIELDS = {"dim_info": 0, "toffset": 0.0, **dict.fromkeys(_SLICE_FIELDS, 0)}


def scan_fields(header: Any) -> dict[str, Any]:
    """Collect the fields of the header that describe the scan beyond its coordinates."""
    space, time = header.get_xyzt_units()
    fields: dict[str, Any] = {"space_units": space} if space == "unknown" else {}
    fields |= {"time_units": time} if time != "unknown" else {}
    step = float(header["pixdim"][4])
    fields |= {"pixdim4": step} if np.isfinite(step) and step != 1 else {}
    found = {name: header[name].item() for name in SCAN_FIELDS}
    return fields | {name: value for name, value in found.items() if np.isfinite(value) and value != SCAN_FIELDS[name]}


def header_times(header: Any) -> Floats | None:
    """Return the times of the volumes in the header's unit; None if the fourth axis is not declared to be time."""
    step, first = float(header["pixdim"][4]), float(header["toffset"])
    shape = header.get_data_shape()
    if len(shape) < 4 or header.get_xyzt_units()[1] not in TIMES or not (np.isfinite(step) and step > 0):
        return None
    return (first if np.isfinite(first) else 0.0) + step * np.arange(shape[3])


def time_fields(array: xr.DataArray, rest: list[str]) -> dict[str, Any]:
    """Return unit, step and first of the times, in the unit of the file that the array came from."""
    attributes = array.attrs
    fields = {name: attributes[name] for name in ("time_units", "pixdim4", "toffset") if name in attributes}
    if rest not in ([], ["t"], ["volume"]):
        return {}
    if "t" in array.coords:
        times, unit = _times_of(array["t"], fields.get("time_units"))
        first, step = uniform_axis("t", times)
        if step is not None:
            require(step > 0, "coordinate 't'", "rise", f"{times[0]:g} before {times[1]:g}")
            fields["pixdim4"] = step
        return fields | {"toffset": first} | ({"time_units": unit} if unit is not None else {})
    require(rest != ["t"], "coordinates", "hold 't', or the dimension be named 'volume'", list(array.coords))
    volumes = attributes.get("volumes")
    if array.sizes.get("volume") != volumes:
        # Nobody knows which are left: the first need not be among them, nor the step between them be the file's.
        fields.pop("toffset", None)
        if rest and fields.pop("pixdim4", 0) and volumes is not None:
            text = "pixdim[4] is left out: without a unit of time nobody knows which of the volumes are left"
            warnings.warn(text, UserWarning, stacklevel=3)
    return fields


def _times_of(coordinate: xr.DataArray, wanted: str | None) -> tuple[Floats, str | None]:
    """Convert times to the wanted unit, a key of ``TIMES``, or keep their unit; None where they have none."""
    rule = f"be numbers with the attribute units, one of {tuple(_SECONDS)}, or timedelta64"
    require(coordinate.dtype.kind in "iufm", "coordinate 't'", rule, coordinate.dtype)
    times, given = np.atleast_1d(coordinate.to_numpy()), coordinate.attrs.get("units")
    if coordinate.dtype.kind == "m":
        times, given = times / np.timedelta64(1, "s"), "seconds"
    times = times.astype(np.float64)
    if given is None:
        return times, None
    require(given in _SECONDS, "coordinate 't'", rule, repr(given))
    written = next(name for name, unit in TIMES.items() if _SECONDS[unit] == _SECONDS[given])
    unit = wanted if wanted in TIMES else written
    return times if unit == written else times * (_SECONDS[given] / _SECONDS[TIMES[unit]]), unit


def slice_fields(array: xr.DataArray, axes: list[str], indices: Floats) -> dict[str, Any]:
    """Return when the slices were taken, if the cut still allows to say it."""
    fields = {name: array.attrs[name] for name in _SLICE_FIELDS if name in array.attrs}
    moved = [axis for axis in range(3) if indices[axis, 3] != 0 or indices[axis, axis] != 1]
    axis = (int(array.attrs.get("dim_info", 0)) >> 4 & 3) - 1  # -1: not said
    start, end = int(fields.get("slice_start", 0)), int(fields.get("slice_end", 0))
    if axis >= 0:
        first, step = indices[axis, 3], indices[axis, axis]
        ends = sorted(((start - first) / step, (end - first) / step))
        inside = abs(step) == 1 and first == round(first) and ends[0] >= 0 and ends[1] < array.sizes[axes[axis]]
        if inside and axis in moved:
            code = int(fields.get("slice_code", 0))
            fields |= {"slice_start": int(ends[0]), "slice_end": int(ends[1])}
            fields |= {"slice_code": _TURNED[code] if step < 0 else code} if code in _TURNED else {}
    else:
        inside = not moved
    if fields and not inside:
        text = "slice_code and the slices' times are left out: they cannot describe the slices that are left"
        warnings.warn(text, UserWarning, stacklevel=3)
        return {}
    return fields
