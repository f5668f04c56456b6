"""The axes of an array in the order of a kernel's; its values as samples on a domain, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from ccnn_irregular._checks import require
from ccnn_irregular.adapters.xarray_axes import Line
from ccnn_irregular.adapters.xarray_clouds import Cloud
from ccnn_irregular.adapters.xarray_results import fitting_encoding, set_coordinates
from ccnn_irregular.domains import Domain, Grid, Points, Product

__all__ = [
    "CHANNEL",
    "Frame",
    "Samples",
    "as_tensor",
    "framed",
    "numpy_dtype",
    "restored",
    "samples_of",
]

# Name of the dimension that a result with another number of channels gets.
CHANNEL = "channel"


@final
@dataclass(frozen=True)
class Frame:
    """The axes of an array in the order of a kernel's.

    Without an order asked for: time, vertical, latitude or y, longitude or x, others, whatever the order of the array's
    dimensions. Coordinates of one set of points stay together, at the place of the first of them. In a ``Product``
    points come first: all axes up to the last one that is not uniform are points.

    Attributes:
        factors: lines and clouds.
        samples: dimensions of independent entries.
        channels: dimension of the channels, or None.
    """

    factors: tuple[Line | Cloud, ...]
    samples: tuple[str, ...]
    channels: str | None

    def __str__(self) -> str:
        lines = []
        for factor in self.factors:
            for axis, name in enumerate(factor.names):
                low, high = factor.coordinates[:, axis].min(), factor.coordinates[:, axis].max()
                step = f"step {factor.step:.6g}" if factor.step is not None else "not uniform"
                kind = step
                if isinstance(factor, Cloud):
                    kind = f"{factor.count} points of {', '.join(factor.dims)}, weights: {factor.rule}"
                turns = "" if factor.periods[axis] is None else ", repeats"
                unit = f" {factor.units[axis]}" if factor.units[axis] else ""
                lines.append(f"{name} ({factor.roles[axis]}): {low:.6g} to {high:.6g}{unit}, {kind}{turns}")
        return "\n".join(lines)

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the axes in the order of a kernel's."""
        return tuple(name for factor in self.factors for name in factor.names)

    @property
    def units(self) -> tuple[str, ...]:
        """Unit of each axis."""
        return tuple(unit for factor in self.factors for unit in factor.units)

    @property
    def d(self) -> int:
        """Number of axes."""
        return len(self.axes)

    @property
    def dims(self) -> tuple[str, ...]:
        """The array's dimensions in the order values are packed from: samples, channels, axes."""
        channels = (self.channels,) if self.channels is not None else ()
        return (*self.samples, *channels, *(dim for factor in self.factors for dim in factor.dims))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Nodes or points of each factor."""
        return tuple(factor.count for factor in self.factors)

    def packed(self, values: NDArray[Any]) -> NDArray[Any]:
        """Convert an array with dimensions ``dims`` to ``(B, C, *sizes)``, samples and channels present.

        Raises:
            ValueError: infinite values, or a repeated meridian that differs.
        """
        batch = math.prod(values.shape[: len(self.samples)])
        channels = values.shape[len(self.samples)] if self.channels is not None else 1
        skipped = len(self.samples) + (self.channels is not None)
        values = values.reshape(batch, channels, *values.shape[skipped:])
        if values.dtype.kind == "f":
            infinite = int(np.isinf(values).sum())
            require(infinite == 0, "values", "be finite, or nan where missing", f"{infinite} infinite ones")
        for place, factor in enumerate(self.factors):
            values = factor.packed(values, 2 + place)
        return values

    def unpacked(self, values: NDArray[Any]) -> NDArray[Any]:
        """Convert ``(B, D, *sizes)`` to ``(B, D, *sizes of dims)``; nan where there is no position."""
        for place in reversed(range(len(self.factors))):
            values = self.factors[place].unpacked(values, 2 + place)
        return values

    def scattered(self, *, weighted: bool) -> int:
        """Count the leading factors that must be points; uneven widths count unless values are to be ``weighted``."""
        fit = [factor.step is not None and (weighted or factor.even) for factor in self.factors]
        return max((place + 1 for place, fits in enumerate(fit) if not fits), default=0)

    def domain(self, scattered: int, batch: int = 1, observed: NDArray[np.bool_] | None = None) -> Domain:
        """Make a domain of the places, the first ``scattered`` factors as points, the others as a grid.

        Args:
            scattered: number of leading factors that are points.
            batch: number of samples, for points.
            observed: bool ``(B, C, *sizes of the points)``: what is False weighs nothing; None = everything counts.
        """
        points, lines = self.factors[:scattered], self.factors[scattered:]
        grid = None
        if lines:
            assert all(isinstance(line, Line) and line.step is not None for line in lines)
            grid = Grid(
                [line.count for line in lines],
                [float(line.step or 0) for line in lines],
                [float(line.coordinates[0, 0]) for line in lines],
                [line.periods[0] is not None for line in lines],
            )
        if not points:
            assert grid is not None
            return grid
        places = np.indices([factor.count for factor in points]).reshape(len(points), -1)
        coordinates = np.concatenate(
            [factor.coordinates[at] for factor, at in zip(points, places, strict=True)], axis=1
        )
        weights = np.prod([factor.weights[at] for factor, at in zip(points, places, strict=True)], axis=0)
        count = len(coordinates)
        weights = np.tile(weights, batch)
        if observed is not None:
            seen = observed.reshape(*observed.shape[:2], -1).transpose(0, 2, 1).reshape(batch * count, -1)
            same = bool((seen == seen[:, :1]).all())
            weights = weights * seen[:, 0] if same else weights[:, None] * seen
        scattering = Points(
            torch.from_numpy(np.tile(coordinates, (batch, 1))),
            torch.from_numpy(weights),
            torch.arange(batch + 1, dtype=torch.int64) * count,
            periods=[period for factor in points for period in factor.periods],
        )
        return scattering if grid is None else Product(scattering, grid)

    def to_values(self, values: Tensor, scattered: int) -> Tensor:
        """Convert ``(B, C, *sizes)`` to the convention of ``domain(scattered)``."""
        if scattered == 0:
            return values
        flat = values.flatten(2, 1 + scattered)  # (B, C, points, *grid)
        return flat.movedim(1, 2).flatten(0, 1).contiguous()

    def from_values(self, values: Tensor, scattered: int, batch: int) -> Tensor:
        """Invert ``to_values`` for any number of channels."""
        if scattered == 0:
            return values
        return values.unflatten(0, (batch, -1)).movedim(2, 1).unflatten(2, self.sizes[:scattered])

    def ratios(self, scattered: int) -> NDArray[np.float64]:
        """Return weights relative to the cells of the grid, ``(*sizes)``, of length 1 along even axes."""
        product = np.ones((1,) * len(self.factors))
        for place, factor in enumerate(self.factors):
            if place >= scattered and not factor.even:
                assert factor.step is not None
                along = [1] * len(self.factors)
                along[place] = factor.count
                product = product * (factor.weights / factor.step).reshape(along)
        return product

    def sliced(self, parts: Mapping[int, tuple[int, int]]) -> Frame:
        """Cut the array between two places on some of the factors, by their number."""
        factors = list(self.factors)
        for place, (start, stop) in parts.items():
            line = factors[place]
            assert isinstance(line, Line)
            factors[place] = line.sliced(start, stop)
        return replace(self, factors=tuple(factors))

    def observed_part(self, packed: NDArray[Any]) -> tuple[int, NDArray[np.bool_] | None]:
        """Count leading factors that must be points for missing values to weigh nothing; return what is observed."""
        scattered = self.scattered(weighted=False)
        missing = np.isnan(packed) if packed.dtype.kind == "f" else np.zeros((1,) * packed.ndim, dtype=bool)
        if not missing.any():
            return scattered, None
        for place in range(len(self.factors)):
            varies = (missing != missing.take([0], 2 + place)).any()
            scattered = max(scattered, place + 1) if varies else scattered
        seen = ~missing.reshape(*missing.shape[: 2 + scattered], -1)[..., 0]
        # Nothing is left to say on which axes the values are missing: those of a whole sample or channel.
        if scattered == 0:
            return 1, np.broadcast_to(seen[..., None], (*seen.shape, self.sizes[0]))
        return scattered, seen


@final
@dataclass(frozen=True)
class Samples:
    """Values of an array on a domain, and the way back.

    Attributes:
        values: in the domain's convention; where a weight is 0 a value may be nan.
        domain: where they are; missing values weigh nothing.
        frame: the axes.
        batch: number of samples.
        scattered: number of leading factors of the frame that are points.
        template: the array they were taken from.
    """

    values: Tensor
    domain: Domain
    frame: Frame
    batch: int
    scattered: int
    template: xr.DataArray

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the domain's axes."""
        return self.frame.axes

    @property
    def units(self) -> tuple[str, ...]:
        """Units of the domain's axes."""
        return self.frame.units

    @property
    def omitted(self) -> int:
        """Entries of the array per sample and channel that have no position, so are no samples."""
        places = math.prod(math.prod(factor.shape) for factor in self.frame.factors if isinstance(factor, Cloud))
        return places - math.prod(factor.count for factor in self.frame.factors if isinstance(factor, Cloud))

    def to_xarray(self, values: Tensor) -> xr.DataArray:
        """Convert values on the domain, of any number of channels, to an array like the original.

        Dimensions, coordinates, attributes, name and what fits of the encoding (``xarray_results.fitting_encoding``)
        are the template's; another number of channels is a dimension "channel" in place of the template's, or the
        last one.
        """
        found = self.frame.from_values(values.detach().cpu(), self.scattered, self.batch)
        return restored(self.frame.unpacked(found.numpy()), self.frame, self.template)


def samples_of(array: xr.DataArray, frame: Frame, dtype: torch.dtype | None = None) -> Samples:
    """Return values and domain of an array in memory; integers become floats that hold them exactly."""
    packed = frame.packed(array.transpose(*frame.dims).to_numpy())
    scattered, observed = frame.observed_part(packed)
    batch = len(packed)
    domain = frame.domain(scattered, batch, observed)
    values = frame.to_values(as_tensor(packed, dtype), scattered)
    return Samples(values, domain, frame, batch, scattered, array)


def as_tensor(values: NDArray[Any], dtype: torch.dtype | None) -> Tensor:
    """Convert values to a tensor of ``dtype``, or of the smallest float type that holds them; nothing is rounded.

    Raises:
        ValueError: no numbers, or numbers that ``dtype`` does not hold.
    """
    require(values.dtype.kind in "biuf", "values", "be numbers", values.dtype)
    wanted = np.result_type(values.dtype, np.float32) if dtype is None else numpy_dtype(dtype)
    rule = f"be of a dtype that {wanted} holds exactly; convert them by astype({str(wanted)!r})"
    require(np.can_cast(values.dtype, wanted), "values", rule, values.dtype)
    converted = np.ascontiguousarray(values, dtype=wanted)
    if values.dtype.kind in "iu" and values.dtype.itemsize == 8:  # NumPy calls the cast to float64 safe
        rule = f"be whole numbers that {wanted} holds exactly, up to 2**53; subtract an origin first"
        held = (np.abs(converted) < 2.0**63) & (converted.astype(values.dtype) == values)
        require(bool(held.all()), "values", rule, values[~held].ravel()[:1].tolist())
    return torch.from_numpy(converted)


def numpy_dtype(dtype: torch.dtype) -> np.dtype[Any]:
    """Return the dtype of arrays that hold a tensor's values."""
    return torch.empty(0, dtype=dtype).numpy().dtype


def restored(values: Any, frame: Frame, template: xr.DataArray) -> xr.DataArray:
    """Make an array like ``template`` of ``(B, D, *dims)`` (NumPy or dask)."""
    shape = [template.sizes[dim] for dim in frame.samples]
    channels = values.shape[1]
    values = values.reshape(*shape, channels, *values.shape[2:])
    dims = [*frame.samples, CHANNEL, *(dim for factor in frame.factors for dim in factor.dims)]
    kept = [str(dim) for dim in template.dims]
    if frame.channels is None and channels == 1:
        values, dims = values[(slice(None),) * len(shape) + (0,)], [dim for dim in dims if dim != CHANNEL]
    elif frame.channels is None:
        require(CHANNEL not in kept, "dimensions", f"leave the name {CHANNEL!r} free", kept)
        kept.append(CHANNEL)
    elif channels == template.sizes[frame.channels]:
        dims[len(shape)] = frame.channels
    else:
        kept[kept.index(frame.channels)] = CHANNEL
    result = framed(xr.DataArray(values, dims=dims).transpose(*kept), template)
    result.encoding = fitting_encoding(result, template)
    return result


def framed(result: xr.DataArray, template: xr.DataArray) -> xr.DataArray:
    """Add the template's coordinates that still fit, attributes and name to ``result``."""
    sizes = dict(result.sizes)
    fitting = {
        name: coordinate
        for name, coordinate in template.coords.items()
        if all(sizes.get(dim) == size for dim, size in coordinate.sizes.items())
    }
    result = set_coordinates(result, fitting)
    result.attrs, result.name = dict(template.attrs), template.name
    return result
