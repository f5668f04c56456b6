"""Lazy arrays in blocks that overlap by what a kernel reaches."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ccnn_irregular._optional import import_optional
from ccnn_irregular.adapters.xarray_axes import Line
from ccnn_irregular.adapters.xarray_clouds import Cloud
from ccnn_irregular.adapters.xarray_frames import CHANNEL, Frame

__all__ = ["Blocks", "may_be_cut"]

Array = NDArray[Any]


def may_be_cut(factor: Line | Cloud) -> bool:
    """Tell whether a factor may be cut into blocks: a line whose neighbours in the array are neighbours on it."""
    return isinstance(factor, Line) and factor.may_be_cut


@final
@dataclass(frozen=True)
class Blocks:
    """A lazy array in blocks that overlap by what a kernel reaches.

    Attributes:
        array: dask array ``(*samples, C, *dims)``.
        frame: its axes, a channel dimension present.
        depth: nodes a block sees beyond its ends, by number of the factor; axes that are one block are left out.
        place: dimension of the array where each factor begins.
    """

    array: Any
    frame: Frame
    depth: dict[int, int]
    place: tuple[int, ...]

    @classmethod
    def of(cls, array: xr.DataArray, frame: Frame, support: Sequence[float]) -> Blocks:
        """Cut a lazy array into blocks no smaller than the reach of ``support``, one entry per axis of ``frame``."""
        lazy = array.transpose(*frame.dims).data
        count = len(frame.samples)
        if frame.channels is None:
            lazy = lazy[(slice(None),) * count + (None,)]
        depth: dict[int, int] = {}
        place: list[int] = []
        chunks, axis = list(lazy.chunks), 0
        chunks[count] = (lazy.shape[count],)
        for number, factor in enumerate(frame.factors):
            first = place[-1] + len(frame.factors[number - 1].dims) if place else count + 1
            place.append(first)
            for dim in range(first, first + len(factor.dims)):
                chunks[dim] = chunks[dim] if may_be_cut(factor) else (lazy.shape[dim],)
            if isinstance(factor, Line) and len(chunks[first]) > 1:
                chunks[first], seen = _cut(factor, chunks[first], support[axis])
                depth |= {number: seen} if len(chunks[first]) > 1 else {}
            axis += len(factor.names)
        return cls(lazy.rechunk(tuple(chunks)), replace(frame, channels=CHANNEL), depth, tuple(place))

    def map(self, apply: Callable[[Array, Frame, Frame], Array], channels: int, dtype: np.dtype[Any]) -> Any:
        """Call ``apply`` with each block, its places and the wanted ones: lazy ``(B, channels, *dims)``."""
        da = import_optional("dask.array", "a lazy array", "files")
        overlap = import_optional("dask.array.overlap", "a lazy array", "files")
        depths = {self.place[number]: seen for number, seen in self.depth.items()}
        wraps = {self.place[number]: self._wraps(number) for number in self.depth}
        edges = {dim: "periodic" if wrap else "none" for dim, wrap in wraps.items()}
        wide = overlap.overlap(self.array, depths, edges, allow_rechunk=False) if depths else self.array
        count = len(self.frame.samples)
        chunks = list(self.array.chunks)
        chunks[count] = (channels,)

        def block(values: Array, block_id: tuple[int, ...]) -> Array:
            seen, wanted = self._parts(block_id)
            source, query = self.frame.sliced(seen), self.frame.sliced(wanted)
            query = source if seen == wanted else query
            result = query.unpacked(apply(source.packed(values), source, query))
            return result.reshape(*values.shape[:count], *result.shape[1:]).astype(dtype, copy=False)

        # A name of its own: dask would make one from a hash of the network.
        result = da.map_blocks(
            block,
            wide,
            chunks=tuple(chunks),
            dtype=dtype,
            meta=np.empty((0,) * self.array.ndim, dtype),
            name=f"ccnn-{uuid.uuid4().hex}",
        )
        shape = result.shape
        return result.reshape(int(np.prod(shape[:count])), *shape[count:]) if count != 1 else result

    def _wraps(self, number: int) -> bool:
        return self.frame.factors[number].periods[0] is not None

    def _parts(self, block_id: tuple[int, ...]) -> tuple[dict[int, tuple[int, int]], dict[int, tuple[int, int]]]:
        """Yield, by factor, the range of the array that a block sees and the range that is wanted of it."""
        seen, wanted = {}, {}
        for number, depth in self.depth.items():
            sizes, at = self.array.chunks[self.place[number]], block_id[self.place[number]]
            start, stop = sum(sizes[:at]), sum(sizes[: at + 1])
            wanted[number] = (start, stop)
            low, high = start - depth, stop + depth
            seen[number] = (low, high) if self._wraps(number) else (max(low, 0), min(high, sum(sizes)))
        return seen, wanted


def _cut(line: Line, chunks: tuple[int, ...], support: float) -> tuple[tuple[int, ...], int]:
    """Return chunks along a line no smaller than a kernel's reach, and that reach in nodes."""
    whole = (line.count,)
    depth = line.count if support == float("inf") else line.reach(support)
    if depth >= line.count:
        return whole, 0
    chunks = _joined(chunks, depth)
    meets_itself = line.period is not None and max(chunks) + 2 * depth > line.count
    return (whole, 0) if meets_itself else (chunks, depth)


def _joined(chunks: tuple[int, ...], least: int) -> tuple[int, ...]:
    """Join whole chunks until none is smaller than the reach: ends stay where a store's chunks end."""
    joined = [0]
    for size in chunks:
        if joined[-1] >= least:
            joined.append(0)
        joined[-1] += size
    if len(joined) > 1 and joined[-1] < least:
        joined[-2:] = [sum(joined[-2:])]
    return tuple(joined)
