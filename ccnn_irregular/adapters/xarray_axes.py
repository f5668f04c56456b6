"""Coordinates of an array as numbers, and as lines (uniform or not) with units, periods and widths."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Literal, final

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from ccnn_irregular._checks import reject, require
from ccnn_irregular.adapters.xarray_times import TimeUnit, kind_of_times, time_numbers
from ccnn_irregular.adapters.xarray_units import compass
from ccnn_irregular.longitudes import GLOBE, Rising, longitude_line
from ccnn_irregular.quadrature import spherical_areas

__all__ = ["Line", "Role", "TimeUnit", "coordinate_numbers", "line", "require_latitudes"]

Role = Literal["time", "vertical", "latitude", "longitude", "x", "y", "other"]
Floats = NDArray[np.float64]

# Share of a step by which nodes may be off a uniform axis: printed decimals are, calendars are off by more.
_UNIFORM = 1e-3
# Roundings of a number that the gaps of uniform dates must exceed at least.
_FINE = 4
# Share of a step by which the seam of a longitude may differ from the other gaps.
_SEAM = 1e-2
# The way degrees count, and the sign that turns them into degrees north and east.
_SIGNS: dict[str, dict[str, int]] = {
    "latitude": {"": 1, "north": 1, "south": -1},
    "longitude": {"": 1, "east": 1, "west": -1},
}


@final
@dataclass(frozen=True)
class Line:
    """One axis whose nodes are numbers on a line, rising.

    Attributes:
        name: of the coordinate.
        dim: dimension of the array it runs along.
        role: what it measures.
        unit: of nodes and widths.
        nodes: float64 ``(n,)``, rising.
        widths: float64 ``(n,)``, the measure each node stands for; on latitudes times the cosine.
        step: distance of neighbouring nodes where they are uniform, else None.
        period: length after which the axis repeats, or None.
        falling: whether the array has the nodes the other way round.
        closed: whether the array has one more node, the first one again a period later.
        first: place of the first node in the array, rising and without the repeated one: a file may cut the circle of
            longitudes anywhere.
    """

    name: str
    dim: str
    role: Role
    unit: str
    nodes: Floats
    widths: Floats
    step: float | None
    period: float | None
    falling: bool = False
    closed: bool = False
    first: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """The coordinates it is made of."""
        return (self.name,)

    @property
    def dims(self) -> tuple[str, ...]:
        """The dimensions of the array it covers."""
        return (self.dim,)

    @property
    def roles(self) -> tuple[Role, ...]:
        """What each axis measures."""
        return (self.role,)

    @property
    def units(self) -> tuple[str, ...]:
        """Unit of each axis."""
        return (self.unit,)

    @property
    def count(self) -> int:
        """Number of nodes."""
        return len(self.nodes)

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of its dimensions in the array."""
        return (self.count + self.closed,)

    @property
    def coordinates(self) -> Floats:
        """The nodes as ``(n, 1)``."""
        return self.nodes[:, None]

    @property
    def weights(self) -> Floats:
        """The widths."""
        return self.widths

    @property
    def periods(self) -> tuple[float | None, ...]:
        """The period of its one axis."""
        return (self.period,)

    @property
    def even(self) -> bool:
        """Whether it is uniform and all nodes stand for one step."""
        return self.step is not None and bool(np.allclose(self.widths, self.step, rtol=1e-9))

    @property
    def may_be_cut(self) -> bool:
        """Whether neighbours in the array are neighbours on the axis."""
        return not self.closed and self.first == 0

    def packed(self, values: NDArray[Any], place: int) -> NDArray[Any]:
        """Values along the array's dimension ``place`` in the order of the nodes."""
        if self.closed:
            first, last = values.take(0, place), values.take(-1, place)
            tolerance = 1e-5 * np.nanmax(np.abs(values), initial=0)
            same = np.allclose(first, last, rtol=0, atol=tolerance, equal_nan=True)
            require(same, f"values at {self.name!r}", "be the same on the repeated meridian", "different ones")
            values = values.take(np.arange(1, self.count + 1) if self.falling else np.arange(self.count), place)
        values = np.flip(values, place) if self.falling else values
        return np.roll(values, -self.first, place) if self.first else values

    def unpacked(self, values: NDArray[Any], place: int) -> NDArray[Any]:
        """The inverse of ``packed``."""
        values = np.roll(values, self.first, place) if self.first else values
        if self.closed:
            values = np.concatenate([values, values.take([0], place)], place)
        return np.flip(values, place) if self.falling else values

    def sliced(self, start: int, stop: int) -> Line:
        """The part between two places of the array; beyond its ends where the axis repeats."""
        assert self.may_be_cut
        if self.falling:
            start, stop = self.count - stop, self.count - start
        places = np.arange(start, stop)
        turns = np.floor_divide(places, self.count)
        nodes = self.nodes[places % self.count] + (turns * self.period if self.period is not None else 0.0)
        whole = start == 0 and stop == self.count
        return replace(
            self, nodes=nodes, widths=self.widths[places % self.count], period=self.period if whole else None
        )

    def reach(self, support: float) -> int:
        """The largest number of nodes within ``support`` on one side of a node."""
        if self.step is not None:
            return min(self.count, int(support / self.step * (1 + 1e-6)) + 1)
        nodes = self.nodes
        if self.period is not None:
            nodes = np.concatenate([nodes - self.period, nodes, nodes + self.period])
        after = np.searchsorted(nodes, nodes + support, side="right") - np.arange(len(nodes))
        before = np.arange(len(nodes)) + 1 - np.searchsorted(nodes, nodes - support, side="left")
        return min(self.count, int(max(after.max(), before.max())))


def line(coordinate: xr.DataArray, role: Role, *, time_unit: TimeUnit = "days", area_weights: bool = True) -> Line:
    """Make an axis of a 1-D coordinate.

    Nodes count as uniform where none is farther from its place on a uniform axis than a thousandth of a step, or
    than the coordinate's own dtype resolves. Each node stands for half the gaps to both sides, the outermost for
    their gap on the other side too; a single node for one unit. Longitudes repeat where they go round the globe;
    elsewhere they begin after their widest gap, wherever the array cuts the circle (``longitudes.longitude_line``).

    Args:
        coordinate: 1-D; numbers, dates of any calendar, or time spans, also as numbers with their unit.
        role: what it measures.
        time_unit: unit of dates and time spans; dates are counted from 1970-01-01 of their calendar.
        area_weights: give latitudes their share of the sphere, in degrees at the equator.

    Raises:
        ValueError: not 1-D, no numbers, nan, neither rising nor falling, longitudes that span more than the globe,
            latitudes and longitudes that are not in degrees, dates closer than float64 tells; see
            ``coordinate_numbers``.
    """
    name = str(coordinate.name)
    require(coordinate.ndim == 1 and coordinate.size >= 1, f"coordinate {name!r}", "be 1-D", coordinate.shape)
    nodes, unit, resolution = coordinate_numbers(coordinate, role, time_unit)
    bad = np.flatnonzero(~np.isfinite(nodes))
    require(len(bad) == 0, f"coordinate {name!r}", "be finite", f"{len(bad)} missing, the first at {bad[:1]}")
    gaps = np.diff(nodes)
    _require_told_apart(coordinate, gaps, _FINE * resolution)
    repeated = np.flatnonzero(gaps == 0)
    at = f"coordinate {name!r}"
    require(len(repeated) == 0, at, "have no duplicates", f"{coordinate.values[repeated[:1]]} twice in a row")
    rising = longitude_line(name, nodes) if role == "longitude" else _rising(name, nodes)
    nodes, period = rising.nodes, GLOBE if rising.globe else None
    step = _step(nodes, resolution)
    if step is None:
        _require_told_apart(coordinate, gaps, resolution / _UNIFORM)
    if period is not None and step is not None:
        seam = period - (nodes[-1] - nodes[0])
        step = period / len(nodes) if abs(seam - step) <= max(_SEAM * step, 2 * resolution) else None
    widths = _widths(nodes, period)
    if step is not None:
        widths = np.full(len(nodes), step)
    if role == "latitude":
        require_latitudes(name, nodes)
        widths = _bands(nodes) if area_weights else widths
    dim, (falling, closed, first) = str(coordinate.dims[0]), (rising.falling, rising.closed, rising.first)
    return Line(name, dim, role, unit, nodes, widths, step, period, falling, closed, first)


def coordinate_numbers(coordinate: xr.DataArray, role: Role, time_unit: TimeUnit) -> tuple[Floats, str, float]:
    """Convert a coordinate to numbers (nan where missing), their unit, and the resolution of the stored dtype.

    Degrees west and south are turned into degrees east and north, dates and times into ``time_unit``.

    Raises:
        ValueError: no numbers, latitudes and longitudes that are not in degrees north and east or south and west,
            dates that have no length in ``time_unit``; see ``xarray_times.time_numbers``.
    """
    kind, name = coordinate.dtype.kind, str(coordinate.name)
    require(kind in "iufmMO", f"coordinate {name!r}", "hold numbers or dates", coordinate.dtype)
    unit = str(coordinate.attrs.get("units", ""))
    times = None
    if kind in "mMO" or role == "time" or kind_of_times(coordinate).what == "dates":
        times = time_numbers(coordinate, time_unit)
    if times is not None:
        numbers, scale = times
        return numbers, time_unit, _resolution(coordinate, scale, numbers)
    numbers = coordinate.to_numpy().astype(np.float64)
    resolution = _resolution(coordinate, Fraction(1), numbers)
    if role in ("latitude", "longitude"):
        signs, way = _SIGNS[role], compass(unit)
        if way is None:
            reject(f"unit of {name!r}", "be degrees", repr(unit) + (" (use np.degrees)" if unit[:3] == "rad" else ""))
        if way not in signs:
            reject(f"unit of {name!r}, a {role},", f"be degrees {' or '.join(filter(None, signs))}", repr(unit))
        return signs[way] * numbers, "degrees", resolution
    return numbers, unit, resolution


def _resolution(coordinate: xr.DataArray, scale: Fraction, numbers: Floats) -> float:
    """Return how far apart ``numbers`` must be to be told apart: in float64, and as stored in units of ``scale``."""
    stored, given = np.dtype(coordinate.encoding.get("dtype", coordinate.dtype)), coordinate.dtype
    rounding = float(np.spacing(np.nanmax(np.abs(numbers), initial=0.0)))
    if given.kind != "f":
        return rounding
    kept = stored if stored.kind == "f" and stored.itemsize < given.itemsize else given
    largest = np.nanmax(np.abs(coordinate.to_numpy().astype(np.float64)), initial=0.0)
    return max(rounding, float(np.spacing(largest.astype(kept))) * float(scale)) if np.isfinite(largest) else rounding


def _require_told_apart(coordinate: xr.DataArray, gaps: Floats, smallest: float) -> None:
    """Refuse dates so near one another, and so far from 1970, that float64 loses the time between them."""
    if coordinate.dtype.kind not in "mM" or len(gaps) == 0:
        return
    lost = (np.diff(coordinate.to_numpy().view(np.int64)) != 0) & (np.abs(gaps) < smallest)
    name = str(coordinate.name)
    rule = (
        "have gaps that float64 holds in numbers since 1970; count from the first date instead: "
        f"array.assign_coords({name}=array.{name} - array.{name}[0])"
    )
    require(not lost.any(), f"coordinate {name!r}", rule, f"{int(lost.sum())} gaps below {smallest:.2g}")


def _step(nodes: Floats, resolution: float) -> float | None:
    """Return the step of a uniform axis, or None."""
    if len(nodes) == 1:
        return 1.0
    step = float(nodes[-1] - nodes[0]) / (len(nodes) - 1)
    off = np.abs(nodes - nodes[0] - step * np.arange(len(nodes))).max()
    return step if off <= max(_UNIFORM * step, resolution) else None


def _rising(name: str, nodes: Floats) -> Rising:
    """Check that nodes rise or fall throughout, on an axis that is no circle."""
    falling = len(nodes) > 1 and bool(nodes[1] < nodes[0])
    rising = nodes[::-1].copy() if falling else nodes
    turns = np.flatnonzero(np.diff(nodes) * (-1 if falling else 1) < 0)
    require(len(turns) == 0, f"coordinate {name!r}", "rise or fall throughout", f"a turn after entry {turns[:1]}")
    return Rising(rising, falling, closed=False, first=0, globe=False)


def _widths(nodes: Floats, period: float | None) -> Floats:
    """Add half the gaps to both sides; the outermost nodes use their only gap twice."""
    if len(nodes) == 1:
        return np.ones(1)
    gaps = np.diff(nodes)
    before, after = (gaps[0], gaps[-1]) if period is None else (period - gaps.sum(),) * 2
    return np.asarray((np.concatenate([[before], gaps]) + np.concatenate([gaps, [after]])) / 2)


def require_latitudes(name: str, latitudes: Floats) -> None:
    """Refuse latitudes beyond the poles."""
    farthest = float(np.abs(latitudes).max())
    require(farthest <= 90 + 1e-4, f"latitudes {name!r}", "lie between -90 and 90 degrees", farthest)


def _bands(latitudes: Floats) -> Floats:
    """Compute the widths of the bands around rising latitudes times their mean cosine, degrees."""
    if len(latitudes) == 1:
        return np.cos(np.radians(latitudes))
    clipped = torch.from_numpy(latitudes.clip(-90, 90))
    gap = float(clipped.diff().max())
    globe = 90 - float(clipped[-1]) < gap and 90 + float(clipped[0]) < gap
    return spherical_areas(clipped, 1.0, radius=float(np.degrees(1)), globe=globe).numpy()
