"""Non-uniform FFTs of scattered rows: to the modes of a box of cells, and back, with gradients.

    to_modes:  X_k = psi^(k) sum_n r_n exp(-i k p_n)        spread with the window, FFT, keep the lower modes
    at_points: y_m = 1/n sum_k psi^(k) X_k exp(+i k q_m)    inverse FFT, interpolate with the window

The factors psi^(k), the window's transform, are left to the caller to divide out (``Box.deconvolution``):
between a spreading and an interpolation one product with the kernel's transform does both. Each of the
two is the other's adjoint up to a factor per mode, and the derivative by a coordinate is the same
transform of the modes times ik: so the backward passes are made of the two again.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from ccnn_irregular.domains import Points
from ccnn_irregular.operators.numerics.box import Box

__all__ = [
    "Spreading",
    "adjoint_factor",
    "along_axes",
    "at_points",
    "columns_at_once",
    "to_modes",
    "transform_taps",
]

# Points are sorted by tiles of so many cells along each axis: the cells of a tile stay in the cache. So do all cells of
# a small box without it, and sorting would only move the rows.
_TILE, _CELLS_IN_CACHE = 8, 1 << 13
_NUMBERS_AT_ONCE = 1 << 22
# Terms of a cell beyond which a float32 total, which grows one by one, would lose about 1e-6: float64 adds them up.
_TERMS_IN_FLOAT32 = 2048
# torch says once per process that CSR tensors are in beta. Said here, not when the first plan is made: a filter of
# warnings belongs to all threads.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch.sparse_csr_tensor([0], [], [], (0, 0))


@dataclass(frozen=True)
class Spreading:
    """Window values of points on the cells of a box, as a sparse matrix and its transpose, both CSR.

    Attributes:
        box: the cells.
        order: int64 ``(N,)``, the points tile by tile; their rows in the matrix. None = as they come.
        matrix: ``(N, layers * cells)``.
        transpose: ``(layers * cells, N)``.
    """

    box: Box
    order: Tensor | None
    matrix: Tensor
    transpose: Tensor

    @classmethod
    def build(cls, points: Points, used: Tensor, box: Box, dtype: torch.dtype) -> Spreading:
        """Window values of ``points`` in ``dtype``, zero for those not ``used``; coordinates are read once."""
        sample = points.sample_index().cpu()
        position = points.coordinates.detach().cpu() + box.shifts.cpu()[sample]
        used = used.cpu()[:, None]
        position = torch.where(used, position, 0.0)
        layer = sample if box.layers > 1 else torch.zeros_like(sample)
        order = _by_tiles(position, layer, box) if box.layers * box.cells > _CELLS_IN_CACHE else None
        if order is not None:
            position, layer, used = position[order], layer[order], used[order]
        last, width = box.layers * box.cells, math.prod(window.width for window in box.windows)
        wide = torch.float64 if points.count * width > _TERMS_IN_FLOAT32 * last else dtype
        columns, values = layer[:, None], used.to(wide)
        columns = columns.to(torch.int32 if max(last, points.count) < 2**31 else torch.int64)
        for axis, (step, size, window) in enumerate(zip(box.steps, box.sizes, box.windows, strict=True)):
            place = position[:, axis] / step
            cells = torch.ceil(place - window.width / 2)[:, None] + torch.arange(window.width, dtype=torch.float64)
            own = window.values(cells - place[:, None]).to(wide)
            # Modulo the size: axes that repeat, and what is not used.
            cells = torch.remainder(cells, size)
            columns = (columns[:, :, None] * size + cells.to(columns.dtype)[:, None, :]).flatten(1)
            values = (values[:, :, None] * own[:, None, :]).flatten(1)
        starts = np.arange(points.count + 1, dtype=np.int64) * columns.shape[1]
        matrix = scipy.sparse.csr_matrix(
            (values.reshape(-1).numpy(), columns.reshape(-1).numpy(), starts), shape=(points.count, last)
        )
        transpose = matrix.tocsc()  # its arrays are those of the transpose's CSR form
        device = points.device
        return cls(
            box,
            None if order is None else order.to(device),
            _csr(matrix, (points.count, last), device).to(dtype),
            _csr(transpose, (last, points.count), device),
        )

    @cached_property
    def places(self) -> Tensor | None:
        """Row of the matrix that holds each point, the inverse of ``order``."""
        if self.order is None:
            return None
        places = torch.empty_like(self.order)
        places[self.order] = torch.arange(len(self.order), device=self.order.device)
        return places

    def spread(self, rows: Tensor) -> Tensor:
        """Real or complex rows ``(N, K)`` to cells ``(layers * cells, K)``."""
        rows = rows if self.order is None else rows.index_select(0, self.order)
        wide = self.transpose.dtype
        return _complex_as_real(lambda real: (self.transpose @ real.to(wide)).to(real.dtype), rows)

    def interpolate(self, cells: Tensor) -> Tensor:
        """Cells ``(layers * cells, K)`` to rows ``(N, K)``."""
        rows = _complex_as_real(lambda real: self.matrix @ real, cells)
        return rows if self.places is None else rows.index_select(0, self.places)


def to_modes(rows: Tensor, points: Points, spreading: Spreading) -> Tensor:
    """Spread rows ``(N, K)`` and transform: ``(K, layers, *kept modes)``, half the last axis for real rows."""
    return _ToModes.apply(rows, points.coordinates, spreading)


def at_points(modes: Tensor, points: Points, spreading: Spreading, *, real: bool) -> Tensor:
    """Transform back and interpolate: ``(K, layers, *kept modes)`` to rows ``(N, K)``; the inverse of ``to_modes``."""
    return _AtPoints.apply(modes, points.coordinates, spreading, real)


class _ToModes(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, coordinates: Tensor, spreading: Spreading) -> Tensor:
        ctx.save_for_backward(rows, coordinates)
        ctx.spreading = spreading
        return _kept_transform(spreading.spread(rows), spreading.box)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        rows, coordinates = ctx.saved_tensors
        spreading, real = ctx.spreading, not rows.is_complex()
        field = gradient / adjoint_factor(spreading.box, gradient, real)
        by_rows = _AtPoints.apply(field, coordinates, spreading, real) if ctx.needs_input_grad[0] else None
        by_coordinates = along_axes(field, coordinates, spreading, rows, real) if ctx.needs_input_grad[1] else None
        return by_rows, by_coordinates, None


class _AtPoints(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, modes: Tensor, coordinates: Tensor, spreading: Spreading, real: bool) -> Tensor:
        ctx.save_for_backward(modes, coordinates)
        ctx.spreading, ctx.real = spreading, real
        return spreading.interpolate(_inverse_transform(modes, spreading.box, real))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        modes, coordinates = ctx.saved_tensors
        spreading, real = ctx.spreading, ctx.real
        by_modes = by_coordinates = None
        if ctx.needs_input_grad[0]:
            by_modes = _ToModes.apply(gradient, coordinates, spreading)
            by_modes = by_modes * adjoint_factor(spreading.box, by_modes, real)
        if ctx.needs_input_grad[1]:
            by_coordinates = along_axes(modes, coordinates, spreading, gradient, real)
        return by_modes, by_coordinates, None, None


def adjoint_factor(box: Box, modes: Tensor, real: bool) -> Tensor:
    """Per mode, what the adjoint of ``_AtPoints`` is times ``_ToModes``: 1 / n, twice where a mode stands for two."""
    count = torch.full((modes.shape[-1],), 1 / box.cells, dtype=modes.real.dtype, device=modes.device)
    if real:
        count[1:] *= 2
    return count


def along_axes(modes: Tensor, coordinates: Tensor, spreading: Spreading, rows: Tensor, real: bool) -> Tensor:
    """Per point and axis, the real inner product over the channels of ``rows`` with the field's slope, ``(N, d)``."""
    box, slopes = spreading.box, []
    for axis in range(box.d):
        half = real and axis == box.d - 1
        wave = 1j * box.wave_numbers(axis, half=half).to(modes.dtype)
        slope = _AtPoints.apply(modes * _on_axis(wave, axis, box.d), coordinates, spreading, real)
        slopes.append((slope * rows.conj()).real.sum(1) if not real else (slope * rows).sum(1))
    return torch.stack(slopes, 1).to(coordinates.dtype)


def _on_axis(vector: Tensor, axis: int, d: int) -> Tensor:
    """A vector that broadcasts along axis ``axis`` of the last ``d``."""
    return vector.reshape(-1, *(1,) * (d - 1 - axis))


def _kept_transform(cells: Tensor, box: Box) -> Tensor:
    """Cells ``(layers * cells, K)`` to their kept modes ``(K, layers, *kept modes)``."""
    parts = cells.split(columns_at_once(*cells.shape), 1)
    modes = [_kept_modes(part.T.reshape(-1, box.layers, *box.sizes), box) for part in parts]
    return modes[0] if len(modes) == 1 else torch.cat(modes)


def _inverse_transform(modes: Tensor, box: Box, real: bool) -> Tensor:
    """Cells ``(layers * cells, K)`` whose kept modes ``(K, layers, *kept modes)`` are given, and whose others are 0."""
    dtype = modes.real.dtype if real else modes.dtype
    cells, first = modes.new_empty(box.layers * box.cells, len(modes), dtype=dtype), 0
    for part in modes.split(columns_at_once(len(cells), len(modes))):
        cells[:, first : first + len(part)] = _from_kept_modes(part, box, real).flatten(1).T
        first += len(part)
    return cells


def columns_at_once(cells: int, columns: float) -> int:
    """How many of the columns are transformed together: in larger arrays each transform waits for the memory."""
    return max(1, min(math.ceil(columns), _NUMBERS_AT_ONCE // cells))


def _kept_modes(cells: Tensor, box: Box) -> Tensor:
    """FFT over the last axes, axis by axis, dropping the upper modes as early as possible."""
    kept, last = box.kept, box.d - 1
    if cells.is_complex():
        modes = _lower(torch.fft.fft(cells, dim=-1), -1, kept[last])
    else:
        modes = torch.fft.rfft(cells, dim=-1)[..., : kept[last] + 1]
    for axis in range(last - 1, -1, -1):
        modes = _lower(torch.fft.fft(modes, dim=axis - box.d), axis - box.d, kept[axis])
    return modes


def _from_kept_modes(modes: Tensor, box: Box, real: bool) -> Tensor:
    """The inverse of ``_kept_modes``, where the other modes are zero."""
    for axis in range(box.d - 1):
        modes = torch.fft.ifft(_with_upper(modes, axis - box.d, box.sizes[axis]), dim=axis - box.d)
    size = box.sizes[-1]
    return torch.fft.irfft(modes, n=size, dim=-1) if real else torch.fft.ifft(_with_upper(modes, -1, size), dim=-1)


def _lower(modes: Tensor, dim: int, kept: int) -> Tensor:
    """Modes -kept .. kept of all those along ``dim``, in the order of an FFT."""
    size = modes.shape[dim]
    return torch.cat([modes.narrow(dim, 0, kept + 1), modes.narrow(dim, size - kept, kept)], dim)


def _with_upper(modes: Tensor, dim: int, size: int) -> Tensor:
    """The opposite of ``_lower``: zeros for the modes that were dropped."""
    kept = modes.shape[dim] // 2
    shape = list(modes.shape)
    shape[dim] = size - 2 * kept - 1
    lower, upper = modes.narrow(dim, 0, kept + 1), modes.narrow(dim, kept + 1, kept)
    return torch.cat([lower, modes.new_zeros(shape), upper], dim)


def transform_taps(
    taps: Tensor, first: tuple[int, ...], box: Box, sizes: torch.dtype | None = None
) -> tuple[Tensor, Tensor]:
    """Transform of a kernel sampled on the cells, over the last axes, divided by the window's transform squared.

    Args:
        taps: ``(..., *counts)`` kernel values at consecutive cells, real, or complex as other axes left them.
        first: cell of the first tap per axis, counted from the kernel's origin.
        box: the cells.
        sizes: dtype of squares, where those of the taps leave their own dtype's range; None = the taps' own.

    Returns:
        The transform, ``(..., *kept modes)``, half the last axis for real taps; and ``(...)``, squared, the error that
        the box makes of one row of size 1, on average over all places: by the modes that are dropped, and by the
        windows' aliases on those that are kept (``bands`` says how they add up).
    """
    d, real, lost = box.d, not taps.is_complex(), taps.real.new_zeros(())
    # The energy of a kernel's spectrum is that of a function twice as long as its taps: in a longer box, every so many
    # modes tell it.
    strides = [max(1, size // (2 * count)) for size, count in zip(box.sizes, taps.shape[taps.ndim - d :], strict=True)]
    for axis in range(d - 1, -1, -1):
        half = real and axis == d - 1
        size, kept = box.sizes[axis], box.kept[axis]
        taps = _wrapped(taps, axis - d, size)
        transform = torch.fft.rfft(taps, n=size, dim=-1) if half else torch.fft.fft(taps, n=size, dim=axis - d)
        dropped = transform.narrow(axis - d, kept + 1, transform.shape[axis - d] - (kept + 1 if half else 2 * kept + 1))
        # Axes that are not transformed yet hold their energy in taps, not in modes.
        step = strides[axis]
        some: tuple[Any, ...] = (..., slice(None, None, step), *(slice(None),) * (d - 1 - axis))
        lost = lost + (2 if half else 1) * step * math.prod(box.sizes[:axis]) * _energy(dropped[some], d, sizes)
        taps = transform[..., : kept + 1] if half else _lower(transform, axis - d, kept)
    lost = lost + _aliased(taps.detach(), box, real, strides, sizes)
    for axis in range(d):
        half = real and axis == d - 1
        factor = box.deconvolution(axis, first[axis], half=half)
        taps = taps * _on_axis(factor.to(taps.dtype), axis, d)
    return taps, lost / float(box.cells) ** 2


def _energy(modes: Tensor, d: int, dtype: torch.dtype | None) -> Tensor:
    """Sum of squares over the last ``d`` axes."""
    return torch.view_as_real(modes.detach()).flatten(-d - 1).to(dtype or modes.real.dtype).square().sum(-1)


def _aliased(modes: Tensor, box: Box, real: bool, strides: Sequence[int], dtype: torch.dtype | None) -> Tensor:
    """Energy of the kept modes times twice the windows' squared alias there, summed over the last axes."""
    some = [slice(None, None, step) for step in strides]
    every: tuple[Any, ...] = (..., *some)
    numbers = torch.view_as_real(modes[every]).flatten(-box.d - 1)
    share = modes.real.new_zeros((), dtype=torch.float64)
    for axis in range(box.d):
        alias = box.squared_alias(axis, half=real and axis == box.d - 1)[some[axis]]
        share = share + 2 * math.prod(strides) * _on_axis(alias, axis, box.d)
    if real:
        share[..., 1:] *= 2  # each stands for the negative frequency too
    return numbers.to(dtype or numbers.dtype).square() @ share.flatten().repeat_interleave(2).to(dtype or numbers.dtype)


def _wrapped(taps: Tensor, dim: int, size: int) -> Tensor:
    """Taps beyond one length of the box added to those they fall upon: an FFT would cut them off."""
    count = taps.shape[dim]
    if count <= size:
        return taps
    turns = -(-count // size)
    shape = list(taps.shape)
    shape[dim] = turns * size - count
    return torch.cat([taps, taps.new_zeros(shape)], dim).unflatten(dim, (turns, size)).sum(dim - 1)


def _by_tiles(position: Tensor, layer: Tensor, box: Box) -> Tensor:
    """The order of the points tile by tile: neighbouring rows of the matrix read neighbouring cells."""
    key = layer
    for axis, (step, size) in enumerate(zip(box.steps, box.sizes, strict=True)):
        tiles = size // _TILE + 2
        key = key * tiles + (position[:, axis] / (step * _TILE)).floor().to(torch.int64).remainder(tiles)
    return torch.argsort(key, stable=True)


def _csr(matrix: Any, shape: tuple[int, int], device: torch.device) -> Tensor:
    """Arrays of a SciPy CSR (or, transposed, CSC) matrix as a tensor."""
    starts, columns, entries = (torch.from_numpy(array) for array in (matrix.indptr, matrix.indices, matrix.data))
    return torch.sparse_csr_tensor(starts, columns, entries, shape, check_invariants=False).to(device)


def _complex_as_real(product: Any, rows: Tensor) -> Tensor:
    """A real matrix product applied to rows that may be complex, as twice as many real columns."""
    if not rows.is_complex():
        return product(rows)
    real = product(torch.view_as_real(rows.resolve_conj()).flatten(1))
    return torch.view_as_complex(real.unflatten(1, (-1, 2)))
