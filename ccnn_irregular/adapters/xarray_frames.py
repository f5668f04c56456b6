"""Which dimensions of an array are axes, samples and channels; its values as samples on a domain, and back."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final, get_args

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from ccnn_irregular._checks import reject, require
from ccnn_irregular._optional import import_optional
from ccnn_irregular.adapters.xarray_axes import Cloud, Line, Role, TimeUnit, cloud, line
from ccnn_irregular.adapters.xarray_meshes import Areas, CellsOf
from ccnn_irregular.adapters.xarray_results import fitting_encoding, set_coordinates
from ccnn_irregular.adapters.xarray_units import compass, measure, same_unit
from ccnn_irregular.domains import Domain, Grid, Points, Product

__all__ = [
    "CHANNEL",
    "SCATTERED",
    "Axes",
    "Frame",
    "Options",
    "Samples",
    "as_tensor",
    "cf_roles",
    "frame_of",
    "framed",
    "numpy_dtype",
    "restored",
    "samples_of",
]

Axes = Mapping[str, Role] | Sequence[str]

# What weights are called that say: these are no cells, but places where something was measured.
SCATTERED = "scattered"
# Name of the dimension that a result with another number of channels gets.
CHANNEL = "channel"
# CF names of coordinates that are what a role says, whatever else is known of them; those of rotated poles keep the
# metric of the rotated sphere.
_STANDARD_NAMES: dict[str, Role] = {
    "latitude": "latitude",
    "grid_latitude": "latitude",
    "longitude": "longitude",
    "grid_longitude": "longitude",
    "projection_x_coordinate": "x",
    "projection_y_coordinate": "y",
    "time": "time",
}
# What cf-xarray calls them, the more telling ones first.
_CF_COORDINATES: dict[str, Role] = {
    "latitude": "latitude",
    "longitude": "longitude",
    "time": "time",
    "vertical": "vertical",
}
_CF_AXES: dict[str, Role] = {"T": "time", "Z": "vertical", "Y": "y", "X": "x"}
# The order of axes that CF conventions recommend: T, Z, Y, X.
_ORDER: dict[Role, int] = {"time": 0, "vertical": 1, "latitude": 2, "y": 2, "longitude": 3, "x": 3, "other": 4}
# Units of axes that count their nodes.
_COUNTS = ("", "1", "level", "levels", "layer", "index", "dimensionless")
_PLACES: tuple[Role, ...] = ("time", "vertical", "latitude", "longitude")
_SPHERE: tuple[Role, Role] = ("latitude", "longitude")


@final
@dataclass(frozen=True)
class Options:
    """How an array is to be understood, where its attributes do not say so or say too much.

    Attributes:
        axes: coordinates that are axes, with or without their roles ("time", "vertical", "latitude", "longitude", "x",
            "y", "other"); they settle their dimensions. The others are recognised by CF conventions.
        samples: dimensions whose entries know nothing of each other.
        channels: dimension of the channels; None = one channel.
        order: coordinates in the order of the kernel's axes; None = see ``Frame``.
        area_weights: whether latitudes count by their area on the sphere.
        time_unit: unit of dates and time spans.
        weights: what each place stands for, along the dimensions of one axis or one set of points: an array, or the
            name of a coordinate or variable. ``SCATTERED`` = one over the density of points. None = as the file says.
        about: what stands beside the array in its Dataset, and its own attributes; None = its coordinates and its own.
    """

    axes: Axes | None = None
    samples: Sequence[str] = ()
    channels: str | None = None
    order: Sequence[str] | None = None
    area_weights: bool = True
    time_unit: TimeUnit = "days"
    weights: xr.DataArray | str | None = None
    about: tuple[xr.Dataset, xr.DataArray] | None = None


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
        for one in self.factors:
            for axis, name in enumerate(one.names):
                low, high = one.coordinates[:, axis].min(), one.coordinates[:, axis].max()
                step = f"step {one.step:.6g}" if one.step is not None else "not uniform"
                kind = step
                if isinstance(one, Cloud):
                    kind = f"{one.count} points of {', '.join(one.dims)}, weights: {one.rule}"
                turns = "" if one.periods[axis] is None else ", repeats"
                unit = f" {one.units[axis]}" if one.units[axis] else ""
                lines.append(f"{name} ({one.roles[axis]}): {low:.6g} to {high:.6g}{unit}, {kind}{turns}")
        return "\n".join(lines)

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the axes in the order of a kernel's."""
        return tuple(name for one in self.factors for name in one.names)

    @property
    def units(self) -> tuple[str, ...]:
        """Unit of each axis."""
        return tuple(unit for one in self.factors for unit in one.units)

    @property
    def d(self) -> int:
        """Number of axes."""
        return len(self.axes)

    @property
    def dims(self) -> tuple[str, ...]:
        """The array's dimensions in the order values are packed from: samples, channels, axes."""
        channels = (self.channels,) if self.channels is not None else ()
        return (*self.samples, *channels, *(dim for one in self.factors for dim in one.dims))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Nodes or points of each factor."""
        return tuple(one.count for one in self.factors)

    def packed(self, values: NDArray[Any]) -> NDArray[Any]:
        """An array with dimensions ``dims`` as ``(B, C, *sizes)``, samples and channels present.

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
        for place, one in enumerate(self.factors):
            values = one.packed(values, 2 + place)
        return values

    def unpacked(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values ``(B, D, *sizes)`` as ``(B, D, *sizes of dims)``; nan where there is no position."""
        for place in reversed(range(len(self.factors))):
            values = self.factors[place].unpacked(values, 2 + place)
        return values

    def scattered(self, *, weighted: bool) -> int:
        """Number of leading factors that must be points; uneven widths count unless values are to be ``weighted``."""
        fit = [one.step is not None and (weighted or one.even) for one in self.factors]
        return max((place + 1 for place, fits in enumerate(fit) if not fits), default=0)

    def domain(self, scattered: int, batch: int = 1, observed: NDArray[np.bool_] | None = None) -> Domain:
        """The places as a domain, the first ``scattered`` factors as points, the others as a grid.

        Args:
            scattered: number of leading factors that are points.
            batch: number of samples, for points.
            observed: bool ``(B, C, *sizes of the points)``: what is False weighs nothing; None = everything counts.
        """
        points, lines = self.factors[:scattered], self.factors[scattered:]
        grid = None
        if lines:
            assert all(isinstance(one, Line) and one.step is not None for one in lines)
            grid = Grid(
                [one.count for one in lines],
                [float(one.step or 0) for one in lines],
                [float(one.coordinates[0, 0]) for one in lines],
                [one.periods[0] is not None for one in lines],
            )
        if not points:
            assert grid is not None
            return grid
        places = np.indices([one.count for one in points]).reshape(len(points), -1)
        coordinates = np.concatenate([one.coordinates[at] for one, at in zip(points, places, strict=True)], axis=1)
        weights = np.prod([one.weights[at] for one, at in zip(points, places, strict=True)], axis=0)
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
            periods=[period for one in points for period in one.periods],
        )
        return scattering if grid is None else Product(scattering, grid)

    def to_values(self, values: Tensor, scattered: int) -> Tensor:
        """``(B, C, *sizes)`` in the convention of ``domain(scattered)``."""
        if scattered == 0:
            return values
        flat = values.flatten(2, 1 + scattered)  # (B, C, points, *grid)
        return flat.movedim(1, 2).flatten(0, 1).contiguous()

    def from_values(self, values: Tensor, scattered: int, batch: int) -> Tensor:
        """The inverse of ``to_values`` for any number of channels."""
        if scattered == 0:
            return values
        return values.unflatten(0, (batch, -1)).movedim(2, 1).unflatten(2, self.sizes[:scattered])

    def ratios(self, scattered: int) -> NDArray[np.float64]:
        """What a value counts relative to its cell of the grid, ``(*sizes)`` with ones for length where it is even."""
        product = np.ones((1,) * len(self.factors))
        for place, one in enumerate(self.factors):
            if place >= scattered and not one.even:
                assert one.step is not None
                along = [1] * len(self.factors)
                along[place] = one.count
                product = product * (one.weights / one.step).reshape(along)
        return product

    def sliced(self, parts: Mapping[int, tuple[int, int]]) -> Frame:
        """The part of the array between two places on some of the factors, by their number."""
        factors = list(self.factors)
        for place, (start, stop) in parts.items():
            one = factors[place]
            assert isinstance(one, Line)
            factors[place] = one.sliced(start, stop)
        return replace(self, factors=tuple(factors))

    def observed_part(self, packed: NDArray[Any]) -> tuple[int, NDArray[np.bool_] | None]:
        """How many leading factors must be points for missing values to weigh nothing, and what is observed there."""
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
        places = math.prod(math.prod(one.shape) for one in self.frame.factors if isinstance(one, Cloud))
        return places - math.prod(one.count for one in self.frame.factors if isinstance(one, Cloud))

    def to_xarray(self, values: Tensor) -> xr.DataArray:
        """Values on the domain, of any number of channels, as an array like the one they came from.

        Dimensions, coordinates, attributes, name and what fits of the encoding (``xarray_results.fitting_encoding``)
        are the template's; another number of channels is a dimension "channel" in place of the template's, or the
        last one.
        """
        found = self.frame.from_values(values.detach().cpu(), self.scattered, self.batch)
        return restored(self.frame.unpacked(found.numpy()), self.frame, self.template)


def samples_of(array: xr.DataArray, frame: Frame, dtype: torch.dtype | None = None) -> Samples:
    """Values and domain of an array in memory; integers become floats that hold them exactly."""
    packed = frame.packed(array.transpose(*frame.dims).to_numpy())
    scattered, observed = frame.observed_part(packed)
    batch = len(packed)
    domain = frame.domain(scattered, batch, observed)
    values = frame.to_values(as_tensor(packed, dtype), scattered)
    return Samples(values, domain, frame, batch, scattered, array)


def as_tensor(values: NDArray[Any], dtype: torch.dtype | None) -> Tensor:
    """Values as a tensor of ``dtype``, or of the smallest float type that holds them; nothing is rounded.

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
    """The dtype of arrays that hold a tensor's values."""
    return torch.empty(0, dtype=dtype).numpy().dtype


def restored(values: Any, frame: Frame, template: xr.DataArray) -> xr.DataArray:
    """``(B, D, *dims)`` (NumPy or dask) as an array like ``template``."""
    shape = [template.sizes[dim] for dim in frame.samples]
    channels = values.shape[1]
    values = values.reshape(*shape, channels, *values.shape[2:])
    dims = [*frame.samples, CHANNEL, *(dim for one in frame.factors for dim in one.dims)]
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
    """``result`` with the template's coordinates that still fit, attributes and name."""
    sizes = dict(result.sizes)
    fitting = {
        name: one
        for name, one in template.coords.items()
        if all(sizes.get(dim) == size for dim, size in one.sizes.items())
    }
    result = set_coordinates(result, fitting)
    result.attrs, result.name = dict(template.attrs), template.name
    return result


def frame_of(array: xr.DataArray, options: Options, *, weighted: bool = True) -> Frame:
    """The axes of an array by CF conventions and by what ``options`` name.

    Args:
        array: whose dimensions are axes, samples and channels.
        options: how it is to be understood.
        weighted: whether it matters what each place stands for; without, points count nothing.

    Raises:
        ValueError: a dimension that is neither recognised nor named; names the array does not have; two coordinates
            that say the same of one dimension; horizontal axes of different units; an axis that cannot be one, see
            ``xarray_axes.line`` and ``xarray_axes.cloud``; cells whose areas the file says somewhere else.
    """
    beside, own = options.about or (array.coords.to_dataset(), array)
    cells = CellsOf(own, beside)
    array = _placed(array, cells)
    samples = (options.samples,) if isinstance(options.samples, str) else tuple(options.samples)
    dims = [str(dim) for dim in array.dims]
    for what, names in (("samples", samples), ("channels", (options.channels,) if options.channels else ())):
        for name in names:
            require(name in dims, what, f"be of the dimensions {dims}", repr(name))
    free = [dim for dim in dims if dim not in (*samples, options.channels)]
    known = cf_roles(array)
    groups = _named_groups(array, options.axes, known, free)
    taken = {dim for group in groups for name in group for dim in array[name].dims}
    recognised = _recognised_groups(array, known, [dim for dim in free if dim not in taken])
    _announce_counted_axes(array, recognised, known)
    groups += recognised
    given = _given_weights(array, beside, options)
    spans = [{str(dim) for name in group for dim in array[name].dims} for group in groups]
    fits = given is None or set(map(str, given.dims)) in spans
    rule = f"run along the dimensions of one axis or set of points: {[sorted(one) for one in spans]}"
    require(fits, "weights", rule, None if given is None else given.dims)
    factors = [_factor(array, group, options, cells, given, weighted) for group in groups]
    _require_same_units(factors)
    return Frame(_ordered(factors, free, options.order), samples, options.channels)


def cf_roles(array: xr.DataArray) -> dict[str, Role]:
    """Coordinates that CF conventions give a role."""
    roles: dict[str, Role] = {}
    import_optional("cf_xarray", "recognising axes by CF conventions", "files")
    for table, found in ((_CF_AXES, array.cf.axes), (_CF_COORDINATES, array.cf.coordinates)):
        for key, role in table.items():
            roles |= {str(name): role for name in found.get(key, ())}
    for name, coordinate in array.coords.items():
        standard = coordinate.attrs.get("standard_name")
        way = compass(str(coordinate.attrs.get("units", ""))) if coordinate.dtype.kind in "iuf" else None
        if way and str(name) not in roles:  # cf-xarray knows degrees north and east only
            roles[str(name)] = "latitude" if way in ("north", "south") else "longitude"
        if standard in _STANDARD_NAMES:
            roles[str(name)] = _STANDARD_NAMES[standard]
    return roles


def _named_groups(
    array: xr.DataArray, axes: Axes | None, known: Mapping[str, Role], free: Sequence[str]
) -> list[dict[str, Role]]:
    """The coordinates the caller names, those that share dimensions together."""
    named = dict(axes) if isinstance(axes, Mapping) else {name: known.get(name, "other") for name in axes or ()}
    groups: list[dict[str, Role]] = []
    for name, role in named.items():
        there = sorted(str(one) for one in array.coords)
        require(name in array.coords, "axes", f"be of the coordinates {there}", repr(name))
        require(role in get_args(Role), "axes", f"have roles of {get_args(Role)}", repr(role))
        dims = set(array[name].dims)
        outside = sorted(map(str, dims - set(free)))
        require(bool(dims), "axes", "run along a dimension", f"the scalar {name!r}")
        require(not outside, "axes", "not run along samples or channels", f"{name!r} along {outside}")
        joined = [group for group in groups if any(dims & set(array[other].dims) for other in group)]
        groups = [group for group in groups if group not in joined]
        groups.append({key: value for group in joined for key, value in group.items()} | {name: role})
    return groups


def _recognised_groups(array: xr.DataArray, known: Mapping[str, Role], free: list[str]) -> list[dict[str, Role]]:
    """Axes by CF conventions along ``free``: dimensions with a coordinate of their own, else points."""
    groups: list[dict[str, Role]] = []
    for dim in list(free):
        own = known.get(dim) if dim in array.coords else None
        along = {name: role for name, role in known.items() if array[name].dims == (dim,)}
        where = {role for name, role in along.items() if name != dim}
        if own is None or (own in ("time", "vertical") and {"latitude", "longitude"} <= where):
            continue  # points, or the track of something that moves
        groups.append({dim: own})
        free.remove(dim)
    while free:
        dim = free[0]
        reached, group = {dim}, {}
        for name, role in known.items():
            if role in _PLACES and array[name].dims and set(map(str, array[name].dims)) <= set(free):
                group[name] = role
        # Only those connected to this dimension.
        connected: dict[str, Role] = {}
        grown = True
        while grown:
            more = {n: r for n, r in group.items() if n not in connected and reached & set(map(str, array[n].dims))}
            connected |= more
            reached |= {str(one) for name in more for one in array[name].dims}
            grown = bool(more)
        if not connected:
            _refuse_dimension(array, dim)
        roles = list(connected.values())
        twice = sorted({role for role in roles if roles.count(role) > 1})
        rule = "be told apart: name the ones to use in axes"
        require(not twice, f"coordinates of {sorted(reached)}", rule, f"several for {twice}: {sorted(connected)}")
        groups.append(dict(sorted(connected.items(), key=lambda item: _PLACES.index(item[1]))))
        free[:] = [one for one in free if one not in reached]
    return groups


def _announce_counted_axes(
    array: xr.DataArray, groups: Sequence[Mapping[str, Role]], known: Mapping[str, Role]
) -> None:
    """Warn of an axis that only counts levels or cells where a length, pressure, date or place lies along it, too."""
    for name, role in (item for group in groups if len(group) == 1 for item in group.items()):
        unit = str(array[name].attrs.get("units", ""))
        if array[name].dtype.kind not in "iuf" or unit.strip().lower() not in _COUNTS:
            continue
        formula = str(array[name].attrs.get("formula_terms", "")).split()
        beside = [
            str(other)
            for other, one in array.coords.items()
            if other != name and str(other) not in formula and name in one.dims and _measures(one, role)
        ]
        if beside:
            named = {other: known.get(other, role) for other in (beside if role in ("x", "y") else beside[:1])}
            text = (
                f"axis {name!r} is taken as numbers of unit {unit!r}, although {', '.join(beside)} lies along it: name "
                f"what is meant, axes={named} or axes={ {name: role} }"
            )
            warnings.warn(text, UserWarning, stacklevel=2)


def _measures(coordinate: xr.DataArray, role: Role) -> bool:
    """Whether a coordinate has the unit of what a role measures."""
    if role == "time":
        return coordinate.dtype.kind in "MO"
    if coordinate.dtype.kind not in "iuf":
        return False
    unit = str(coordinate.attrs.get("units", ""))
    known = measure(unit)
    wanted = {"vertical": ("length", "pressure"), "x": ("length",), "y": ("length",)}.get(role, ())
    return (known is not None and known[0] in wanted) or (role in ("x", "y") and bool(compass(unit)))


def _refuse_dimension(array: xr.DataArray, dim: str) -> None:
    there = sorted(str(one) for one in array.coords if dim in array[one].dims)
    got = f"coordinates {there} without a role" if there else "no coordinate"
    for key in ("mesh", "grid_mapping"):
        name = array.attrs.get(key)
        if name is not None and name not in array.coords:
            got += f" (its {key} {name!r} is not with the array: use the accessor of the Dataset)"
    reject(f"dimension {dim!r}", "be an axis by its CF attributes, or be named in axes, samples or channels", got)


def _placed(array: xr.DataArray, cells: CellsOf) -> xr.DataArray:
    """The array with the positions of a mesh's cells as coordinates, where it has none of its own."""
    positions = cells.positions()
    known = cf_roles(array) if positions else {}
    for name, position in positions.items():
        role = "latitude" if "lat" in str(position.attrs.get("standard_name", name)) else "longitude"
        there = any(known[one] == role and set(position.dims) <= set(array[one].dims) for one in known)
        array = array if there else array.assign_coords({name: position.variable})
    return array


def _given_weights(array: xr.DataArray, beside: xr.Dataset, options: Options) -> xr.DataArray | None:
    """The weights that ``options`` name, areas in square degrees."""
    given = options.weights
    if given is None or (isinstance(given, str) and given == SCATTERED):
        return None
    if isinstance(given, str):
        there = sorted(map(str, beside.variables))
        require(given in beside.variables, "weights", f"be {SCATTERED!r}, an array, or one of {there}", repr(given))
        given = beside[given]
    require(isinstance(given, xr.DataArray), "weights", "be an array of xarray or a name", type(given).__name__)
    given = given.transpose(*(dim for dim in array.dims if dim in given.dims), ...)
    for dim, size in given.sizes.items():
        rule = f"have the array's entries along {dim!r}"
        require(array.sizes.get(dim) == size, "weights", rule, size)
        both = dim in given.indexes and dim in array.indexes
        require(not both or given.indexes[dim].equals(array.indexes[dim]), "weights", rule, "other coordinates")
    values = given.to_numpy().astype(np.float64)
    bad = int((np.isinf(values) | (values < 0)).sum())
    require(bad == 0, "weights", "be finite and not negative", f"{bad} that are not")
    return given.copy(data=values)


def _factor(
    array: xr.DataArray,
    group: Mapping[str, Role],
    options: Options,
    cells: CellsOf,
    given: xr.DataArray | None,
    weighted: bool,
) -> Line | Cloud:
    kept = {"time_unit": options.time_unit, "area_weights": options.area_weights}
    names, roles = list(group), list(group.values())
    dims = tuple(str(dim) for dim in array.dims if any(dim in array[name].dims for name in names))
    own = given if given is not None and set(map(str, given.dims)) == set(dims) else None
    if len(names) == 1 and len(dims) == 1:
        found = line(array[names[0]], roles[0], **kept)  # type: ignore[arg-type]
        return found if own is None else replace(found, widths=found.packed(own.to_numpy(), 0))
    rule = "give more than one coordinate, or one of one dimension"
    require(len(names) > 1, "axes", rule, f"{names[0]!r} on {dims}")
    areas, scattered, sphere = None, True, set(roles) == set(_SPHERE)
    if not weighted:
        areas = Areas(xr.DataArray(np.zeros([array.sizes[dim] for dim in dims]), dims=dims), "none", given=True)
    elif own is not None:
        own = own.transpose(*dims)
        unitless = str(own.attrs.get("units", "")) in ("", "1")
        areas = Areas(own if unitless or not sphere else cells.square_degrees(own), "as given", given=True)
    elif sphere:
        areas, scattered = _areas_of(array, group, dims, options, cells)
    coordinates = [array[name] for name in names]
    return cloud(coordinates, roles, dims, areas=areas, scattered=scattered, **kept)  # type: ignore[arg-type]


def _areas_of(
    array: xr.DataArray, group: Mapping[str, Role], dims: tuple[str, ...], options: Options, cells: CellsOf
) -> tuple[Areas | None, bool]:
    """Areas of the cells at latitudes and longitudes, or None; and whether to weigh by the density of points.

    Warns where that is taken for want of anything else: points may be stations, or cells that came without areas.
    """
    if isinstance(options.weights, str) and options.weights == SCATTERED:
        return None, True
    latitude, longitude = (array[next(n for n, one in group.items() if one == role)] for role in _SPHERE)
    areas = cells.areas(dims, latitude, longitude)
    if areas is not None or (len(dims) == 2 and min(array.sizes[dim] for dim in dims) > 1):
        return areas, False
    lacking = cells.lacking(latitude, longitude)
    at = f"cells along {', '.join(dims)}"
    rule = f"come with their areas: use the accessor of the Dataset, or weights= (an array, or {SCATTERED!r})"
    require(lacking is None, at, rule, f"no {lacking} with the array")
    text = (
        f"nothing says what the points along {', '.join(dims)} stand for: each weighs one over the density of points. "
        f"weights={SCATTERED!r} says that this is meant, weights=<array> gives the areas of cells"
    )
    warnings.warn(text, UserWarning, stacklevel=2)
    return None, True


def _require_same_units(factors: Sequence[Line | Cloud]) -> None:
    """Refuse a plane whose axes are measured in different units."""
    for pair in (("x", "y"), ("longitude", "latitude")):
        found = {
            unit for one in factors for role, unit in zip(one.roles, one.units, strict=True) if role in pair and unit
        }
        require(
            all(same_unit(unit, next(iter(found))) for unit in found),
            f"units of {pair[0]} and {pair[1]}",
            "be the same",
            sorted(found),
        )


def _ordered(
    factors: Sequence[Line | Cloud], dims: Sequence[str], order: Sequence[str] | None
) -> tuple[Line | Cloud, ...]:
    """Factors in the order of a kernel's axes."""
    if order is None:
        # Neither the order in a file nor whether an axis happens to be uniform may decide which axis a kernel takes
        # for which.
        return tuple(
            sorted(
                factors,
                key=lambda one: (min(_ORDER[role] for role in one.roles), min(dims.index(dim) for dim in one.dims)),
            )
        )
    names = [name for one in factors for name in one.names]
    require(sorted(order) == sorted(names), "order", f"name the axes {names}, each once", list(order))
    arranged = sorted(factors, key=lambda one: min(list(order).index(name) for name in one.names))
    found = [name for one in arranged for name in one.names]
    require(found == list(order), "order", f"keep together what are coordinates of one set of points: {found}", order)
    return tuple(arranged)
