"""Which stored values are missing: never written, or outside the range that the file calls valid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.core import indexing

from ccnn_irregular._checks import reject, require

__all__ = ["default_fill", "marked", "unpacked_limits"]

Array = NDArray[Any]

# What the netCDF library puts where nothing was written (NC_FILL_* of netcdf.h). Bytes have no such value: all of
# them may be data.
_DEFAULT_FILLS: dict[str, float | int] = {
    "i2": -32767,
    "i4": -2147483647,
    "i8": -9223372036854775806,
    "u2": 65535,
    "u4": 4294967295,
    "u8": 18446744073709551614,
    "f4": 9.969209968386869e36,
    "f8": 9.969209968386869e36,
}
_PACKED = ("scale_factor", "add_offset")
_LIMITS = ("valid_range", "valid_min", "valid_max")
_FILLS = ("_FillValue", "missing_value")
# Values that are looked at together.
_BLOCK = 1 << 23


def default_fill(dtype: np.dtype[Any]) -> Any:
    """Return the value of an entry of this type that was never written, or None."""
    value = _DEFAULT_FILLS.get(f"{dtype.kind}{dtype.itemsize}")
    return None if value is None else dtype.type(value)


def marked(
    where: str, name: str, variable: xr.Variable, *, default_fills: bool = True, valid_range: bool = True
) -> xr.Variable:
    """Mark missing values of a variable as stored, so that decoding makes them nan.

    Floats become nan. Integers become the variable's ``_FillValue``; those that have none, and hold missing values,
    get one. Integers that hold none stay as they are.

    Args:
        where: the file, for messages.
        name: of the variable.
        variable: not decoded.
        default_fills: whether entries that were never written hold the netCDF library's default.
        valid_range: whether values outside ``valid_range``, ``valid_min`` and ``valid_max`` are missing.

    Raises:
        ValueError: limits that are no numbers, or that nothing can lie between.
    """
    if variable.dtype.kind not in "iuf":
        return variable
    rule = _Rule.of(where, name, variable, default_fills, valid_range)
    if rule is None:
        return variable
    attributes = dict(variable.attrs)
    if variable.dtype.kind == "f":
        marker = variable.dtype.type(np.nan)
    else:
        known = _stored_fill(variable)
        plain = known is None and not set(_PACKED) & set(attributes)
        # A number that names something (a grid mapping) is no value. Others turn into floats only where they have to.
        if plain and (variable.ndim == 0 or not _any_missing(variable, rule)):
            return variable
        marker = rule.missing_value(variable.dtype) if known is None else known
        if marker is None:
            return variable
        attributes |= {"_FillValue": marker} if known is None else {}
    data = indexing.LazilyIndexedArray(_Marked(variable, rule, marker))
    return xr.Variable(variable.dims, data, attributes, variable.encoding)


def unpacked_limits(stored: xr.Variable, decoded: xr.Variable) -> dict[Any, Any]:
    """Convert the limits of packed values in a decoded variable's attributes to those of the unpacked values."""
    attributes = dict(decoded.attrs)
    if not set(_PACKED) & set(stored.attrs):
        return attributes
    scale, offset = _packing(stored.attrs)
    for key in _LIMITS:
        if key in attributes and _is_packed(np.asarray(attributes[key]), stored):
            given = np.asarray(attributes[key])
            unpacked = given.astype(_seen_as(stored)) * scale + offset
            attributes[key] = np.sort(unpacked.astype(decoded.dtype), axis=None).reshape(given.shape)[()]
    if scale < 0:
        swapped = {"valid_min": "valid_max", "valid_max": "valid_min"}
        attributes = {swapped.get(key, key): value for key, value in attributes.items()}
    return attributes


@final
@dataclass(frozen=True)
class _Rule:
    """The rule by which stored values are missing.

    Attributes:
        fill: what entries hold that were never written, or None.
        low, high: the smallest and the largest value that is valid, or None.
        seen: the type in which they are compared: unsigned where the file says that stored integers are.
    """

    fill: Any
    low: Any
    high: Any
    seen: np.dtype[Any]

    @classmethod
    def of(cls, where: str, name: str, variable: xr.Variable, default_fills: bool, valid_range: bool) -> _Rule | None:
        """Make the rule of a variable by its type and attributes; None where nothing can be missing."""
        fill = default_fill(variable.dtype) if default_fills else None
        # An integer that has a fill value of its own may hold the default as a value.
        stated = variable.attrs.get("_FillValue")
        if stated is not None and (variable.dtype.kind != "f" or bool(np.all(np.asarray(stated) == fill))):
            fill = None
        low, high = _limits(where, name, variable) if valid_range else (None, None)
        if fill is None and low is None and high is None:
            return None
        return cls(fill, low, high, _seen_as(variable))

    def missing(self, values: Array) -> NDArray[np.bool_]:
        """Tell where values as stored are missing."""
        found = np.zeros(values.shape, bool) if self.fill is None else np.asarray(values == self.fill)
        seen = values.astype(self.seen, copy=False)
        if self.low is not None:
            found |= seen < self.low
        if self.high is not None:
            found |= seen > self.high
        return found

    def missing_value(self, dtype: np.dtype[Any]) -> Any:
        """Return an integer of ``dtype`` that is missing by this rule, or None."""
        ends = np.iinfo(self.seen)
        # Where any number lies outside the limits, an end of the type does.
        candidates = np.array([ends.min, ends.max], self.seen).astype(dtype)
        default = default_fill(dtype)
        candidates = candidates if default is None else np.insert(candidates, 0, default)
        found = candidates[self.missing(candidates)]
        return found[0] if len(found) else None


@final
class _Marked(xr.backends.BackendArray):
    """The values of a lazy variable, the missing ones replaced by a marker when they are read."""

    def __init__(self, variable: xr.Variable, rule: _Rule, marker: Any) -> None:
        self.variable, self.rule, self.marker = variable, rule, marker
        self.shape, self.dtype = variable.shape, variable.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> Array:
        values = self.variable[key].to_numpy()
        missing = self.rule.missing(values)
        return np.where(missing, self.marker, values) if missing.any() else values


def _seen_as(variable: xr.Variable) -> np.dtype[Any]:
    """Return the type of stored integers, with the sign that ``_Unsigned`` gives them."""
    unsigned = str(variable.attrs.get("_Unsigned", "")).lower()
    kind = {"true": "u", "false": "i"}.get(unsigned, variable.dtype.kind)
    return np.dtype(f"{kind}{variable.dtype.itemsize}") if variable.dtype.kind in "iu" else variable.dtype


def _packing(attributes: Mapping[Any, Any]) -> tuple[float, float]:
    scale, offset = (np.ravel(attributes.get(key, default)) for key, default in zip(_PACKED, (1.0, 0.0), strict=True))
    return float(scale[0]), float(offset[0])


def _is_packed(limits: Array, variable: xr.Variable) -> bool:
    """Tell whether limits are meant for the packed values.

    They are in the packed type by the conventions; limits in the type of the scale are meant for the unpacked values.
    """
    if not set(_PACKED) & set(variable.attrs) or limits.dtype == variable.dtype:
        return bool(set(_PACKED) & set(variable.attrs))
    scale = np.asarray(variable.attrs.get("scale_factor", variable.attrs.get("add_offset")))
    return limits.dtype.kind != "f" and limits.dtype != scale.dtype


def _limits(where: str, name: str, variable: xr.Variable) -> tuple[Any, Any]:
    """Return the smallest and the largest valid value as they are stored, or None."""
    given = {key: np.ravel(variable.attrs[key]) for key in _LIMITS if key in variable.attrs}
    for key, limit in given.items():
        count = 2 if key == "valid_range" else 1
        rule = f"be {count} number{'s' if count > 1 else ''}; valid_range=False reads all values"
        require(len(limit) == count and limit.dtype.kind in "iuf", f"{key} of {name!r} in {where}", rule, list(limit))
    lows = [given[key][:1] for key in ("valid_range", "valid_min") if key in given]
    highs = [given[key][-1:] for key in ("valid_range", "valid_max") if key in given]
    if _packing(variable.attrs)[0] < 0:
        # A falling scale turns what is meant for unpacked values around.
        lows, highs = (
            [limit for limit in lows if _is_packed(limit, variable)]
            + [limit for limit in highs if not _is_packed(limit, variable)],
            [limit for limit in highs if _is_packed(limit, variable)]
            + [limit for limit in lows if not _is_packed(limit, variable)],
        )
    low = max((_stored_limit(limit, variable, -1) for limit in lows), default=None)
    high = min((_stored_limit(limit, variable, 1) for limit in highs), default=None)
    if low is not None and high is not None and low > high:
        shown = {key: limit.tolist() for key, limit in given.items()}
        reject(f"limits of {name!r} in {where}", "leave valid values; valid_range=False reads all values", shown)
    return low, high


def _stored_limit(limit: Array, variable: xr.Variable, side: int) -> Any:
    """Convert a limit to the stored type, moved outwards by what rounding can have moved it."""
    if (
        limit.dtype.kind in "iu"
        and variable.dtype.kind in "iu"
        and not (set(_PACKED) & set(variable.attrs) and not _is_packed(limit, variable))
    ):
        # Zarr's attributes have no type: what fits into the stored one is meant as it.
        ends = np.iinfo(variable.dtype)
        stored = limit.dtype.itemsize == variable.dtype.itemsize or ends.min <= int(limit[0]) <= ends.max
        return int(limit.astype(_seen_as(variable))[0]) if stored else int(limit[0])
    value, step = float(limit[0]), 0.0
    if set(_PACKED) & set(variable.attrs) and not _is_packed(limit, variable):
        scale, offset = _packing(variable.attrs)
        step = abs(value / scale) * (np.finfo(limit.dtype).eps if limit.dtype.kind == "f" else 0.0)
        value, step = (value - offset) / scale, 4 * step + 1e-6
    if variable.dtype.kind == "f":
        step += 4 * float(np.finfo(variable.dtype).eps) * abs(value)
    return value + side * step


def _stored_fill(variable: xr.Variable) -> Any:
    """Return the first fill value of an integer variable that its type holds, or None."""
    for key in _FILLS:
        for value in np.ravel(variable.attrs.get(key, [])):
            if np.asarray(value).dtype.kind in "iuf" and variable.dtype.type(value) == value:
                return variable.dtype.type(value)
    return None


def _any_missing(variable: xr.Variable, rule: _Rule) -> bool:
    """Tell whether any value is missing, a block of rows at a time."""
    rows = max(1, _BLOCK // max(1, variable.size // max(1, variable.shape[0])))
    first = variable.dims[0]
    starts = range(0, variable.shape[0], rows)
    return any(rule.missing(variable.isel({first: slice(at, at + rows)}).to_numpy()).any() for at in starts)
