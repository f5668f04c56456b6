"""The non-uniform FFT convolution of points in up to three dimensions: spread, one FFT convolution, interpolate.

    y = interp_q . FFTconv_K . spread_p (w x)

Points are spread onto a uniform grid with a window psi a few cells wide, convolved there with the
kernel's transform, and the result is read off at the queries with the same window. The window's
effect is divided out of the modes that are kept, so with twofold oversampling the error falls by
about a digit per cell of window width (Barnett, Magland & af Klinteberg 2019, arXiv 1808.06736).

Samples of a ragged batch are laid end to end along one axis, one kernel support apart: a whole
batch is one transform, and nothing is padded to equal lengths.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
import scipy.sparse
import torch
from scipy.fft import next_fast_len
from torch import Tensor

from ccnn_irregular._checks import require
from ccnn_irregular.domains import Domain, Grid, Points, Product
from ccnn_irregular.kernels import Kernel
from ccnn_irregular.operators.engine import Cost, Engine, Plan
from ccnn_irregular.operators.layout import from_rows, pair_points, to_rows, weighted
from ccnn_irregular.operators.reference import kernel_work

__all__ = ["Spectral"]

# Window exp(beta (sqrt(1 - (2u/width)^2) - 1)): beta per cell of width for an oversampling of 2.
_BETA_PER_CELL = 2.3
_OVERSAMPLING = 2
_SMALLEST_RTOL = {torch.float32: 1e-5, torch.float64: 1e-8}
_MOST_AXES = 3
# Kernel samples per axis to look for the end of its spectrum: doubled axis by axis up to so many in all.
_FIRST_SAMPLES = {1: 256, 2: 32, 3: 16}
_MOST_SAMPLES = {1: 1 << 15, 2: 1 << 20, 3: 1 << 21}
_SECONDS_PER_FFT_OPERATION = 4e-10
_SECONDS_PER_SPREAD_OPERATION = 4e-10


@dataclass(frozen=True)
class _Sparse:
    """A window matrix and its transpose, both CSR: products are fast forward and backward."""

    matrix: Tensor
    transpose: Tensor

    @property
    def transposed(self) -> _Sparse:
        return _Sparse(self.transpose, self.matrix)


@dataclass(frozen=True)
class _Layout:
    """Where the samples lie in one common box of cells.

    Attributes:
        steps: cell per axis, coordinate units.
        sizes: number of cells per axis, fast FFT sizes.
        shifts: float64 ``(B, d)``, added to a sample's coordinates to lay it into the box; 0 on axes that repeat.
        repeats: per axis, whether the box is one period of it.
    """

    steps: tuple[float, ...]
    sizes: tuple[int, ...]
    shifts: Tensor
    repeats: tuple[bool, ...]

    @property
    def cells(self) -> int:
        return math.prod(self.sizes)


@dataclass(frozen=True)
class _Geometry:
    """What a plan holds.

    Attributes:
        layout: the box.
        support: kernel support per axis that the gaps were made for, coordinate units.
        spread: ``(cells, N)`` window matrix of the sources.
        interpolate: ``(M, cells)`` window matrix of the queries.
        correction: over the modes of a real FFT, 1 / window transform squared on the kept ones, 0 beyond.
        sources: the source as points, for its weights.
    """

    layout: _Layout
    support: tuple[float, ...]
    spread: _Sparse
    interpolate: _Sparse
    correction: Tensor
    sources: Points


@final
class Spectral(Engine):
    """Non-uniform FFT convolution of points, ragged batches included, on plain and periodic axes.

    The relative error is about ``rtol``. No gradient reaches the coordinates.
    """

    name: ClassVar[str] = "spectral"
    plan_follows_kernel: ClassVar[bool] = True

    def assess(self, kernel: Kernel, source: Domain, query: Domain, batch: int, rtol: float) -> Cost | str:
        if source.d > _MOST_AXES:
            return f"more than {_MOST_AXES} axes"
        if isinstance(source, Grid) and isinstance(query, Grid):
            return "both domains are grids: 'fft' is exact there"
        if kernel.mask is None:
            return "the kernel has no mask, so no support that could separate the samples"
        if kernel.causal_axes:
            return "a causal kernel jumps at lag zero: its spectrum never ends"
        if any(_points(side).requires_grad for side in (source, query) if not isinstance(side, Grid)):
            return "gradients of the coordinates are asked for"
        smallest = _SMALLEST_RTOL[kernel.dtype]
        if rtol < smallest:
            return f"rtol {rtol:g} is below {smallest:g}, the least in {kernel.dtype}"
        steps = _steps(kernel, rtol)
        if steps is None:
            return f"the kernel is too sharp for {_MOST_SAMPLES[kernel.d]} samples over its support at rtol {rtol:g}"
        sources, queries = pair_points(source, query)
        if sources.samples > 1 and all(sources.periods):
            return "several samples need an axis that does not repeat, to be laid along"
        support = kernel.support.tolist()
        layout = _layout(sources, queries, steps, support, _width(rtol))
        channels = kernel.in_channels + kernel.out_channels
        entries = (sources.count + queries.count) * _width(rtol) ** kernel.d
        taps = math.prod(2 * reach / step + 1 for reach, step in zip(support, layout.steps, strict=True))
        seconds = entries * channels * _SECONDS_PER_SPREAD_OPERATION
        seconds += 2 * channels * layout.cells * math.log2(layout.cells + 2) * _SECONDS_PER_FFT_OPERATION
        seconds += taps * kernel_work(kernel) * _SECONDS_PER_SPREAD_OPERATION
        item = kernel.extent.element_size()
        memory = item * 4.0 * layout.cells * channels + entries * 2.0 * (item + 4)
        return Cost(0.0, seconds, 2 * seconds, memory, f"{'x'.join(map(str, layout.sizes))} cells")

    def prepare(self, kernel: Kernel, source: Domain, query: Domain, rtol: float) -> _Geometry:
        sources, queries = pair_points(source, query)
        steps, support, width = _steps(kernel, rtol), kernel.support.tolist(), _width(rtol)
        assert steps is not None  # assess came first
        layout = _layout(sources, queries, steps, support, width)
        return _Geometry(
            layout,
            tuple(support),
            _window_matrix(sources, layout, width, kernel.dtype).transposed,
            _window_matrix(queries, layout, width, kernel.dtype),
            _correction(layout.sizes, width).to(kernel.extent),
            sources,
        )

    def apply(self, kernel: Kernel, values: Tensor, plan: Plan) -> Tensor:
        geometry: _Geometry = plan.geometry
        _require_support(kernel, geometry)
        sizes, dims = geometry.layout.sizes, tuple(range(1, kernel.d + 1))
        rows = weighted(to_rows(values, plan.source, plan.query), geometry.sources.weights)[:, 0]
        grid = _SparseProduct.apply(geometry.spread, rows).T.reshape(-1, *sizes)
        spectrum = torch.fft.rfftn(grid, dim=dims)  # (C, *modes)
        transfer = _transfer(kernel, geometry) * geometry.correction
        product = spectrum * transfer if kernel.depthwise else torch.einsum("c...,dc...->d...", spectrum, transfer)
        result = torch.fft.irfftn(product, s=sizes, dim=dims).reshape(-1, geometry.layout.cells).T
        return from_rows(_SparseProduct.apply(geometry.interpolate, result)[:, None], plan.source, plan.query)


def _points(domain: Points | Product) -> Tensor:
    return domain.points.coordinates if isinstance(domain, Product) else domain.coordinates


def _require_support(kernel: Kernel, geometry: _Geometry) -> None:
    for axis, (reach, planned) in enumerate(zip(kernel.support.tolist(), geometry.support, strict=True)):
        rule = f"be made anew when the kernel's support on axis {axis} grows beyond {planned:g}"
        require(reach <= planned * (1 + 1e-6), "plan", rule, f"{reach:g}")


def _width(rtol: float) -> int:
    """Cells the window covers: about one per digit, and two more."""
    return math.ceil(-math.log10(rtol)) + 2


def _steps(kernel: Kernel, rtol: float) -> tuple[float, ...] | None:
    """Cell per axis at which the kept modes hold all but ``rtol`` of the kernel's L2 norm.

    The kernel is sampled finer and finer, on the axes that need it, until the upper half of its
    spectrum is negligible there; None if that takes too many samples.
    """
    d, support = kernel.d, kernel.support.tolist()
    counts = [_FIRST_SAMPLES[d]] * d
    while math.prod(counts) <= _MOST_SAMPLES[d]:
        ends = [_end_of_spectrum(energy, (rtol / 2) ** 2 / d) for energy in _marginal_energies(kernel, counts)]
        # Modes lie pi / (2 support) apart; count is the Nyquist mode.
        unsure = [axis for axis in range(d) if ends[axis] > counts[axis] // 2]
        if not unsure:
            bands = [max(end, 1) * math.pi / (2 * reach) for end, reach in zip(ends, support, strict=True)]
            return tuple(math.pi / (_OVERSAMPLING * band) for band in bands)
        for axis in unsure:
            counts[axis] *= 2
    return None


@torch.no_grad()
def _marginal_energies(kernel: Kernel, counts: list[int]) -> list[Tensor]:
    """Per axis the energy of each mode 0 .. count, summed over the other axes: float64 ``(count + 1, channels)``."""
    offsets = [
        (torch.arange(count, dtype=torch.float64, device=kernel.extent.device) - count // 2) * (2 * reach / count)
        for count, reach in zip(counts, kernel.support.tolist(), strict=True)
    ]
    mesh = torch.stack(torch.meshgrid(*offsets, indexing="ij"), dim=-1)
    samples = kernel(mesh.to(kernel.dtype)).flatten(kernel.d).to(torch.float64)
    energies = []
    for axis, count in enumerate(counts):
        # By Parseval the other axes need no transform.
        energy = torch.fft.rfft(samples, n=2 * count, dim=axis).abs().square()
        energies.append(energy.movedim(axis, 0).reshape(count + 1, -1, samples.shape[-1]).sum(1))
    return energies


def _end_of_spectrum(energy: Tensor, share: float) -> int:
    """First mode from which on no channel has more than ``share`` of its energy left."""
    beyond = energy.flip(0).cumsum(0).flip(0)
    negligible = (beyond <= share * beyond[:1]).all(1)
    return int(negligible.to(torch.int64).argmax()) if bool(negligible.any()) else len(energy)


def _layout(sources: Points, queries: Points, steps: tuple[float, ...], support: list[float], width: int) -> _Layout:
    """Lay the samples end to end along the first axis that does not repeat, side by side with nothing on the others."""
    lowest, highest = _bounds(sources, queries)
    extent = highest - lowest
    shifts = -lowest
    periods = sources.periods
    along = next((axis for axis, period in enumerate(periods) if period is None), None)
    sizes, cell = [], []
    for axis, (step, reach, period) in enumerate(zip(steps, support, periods, strict=True)):
        if period is not None:
            shifts[:, axis] = 0.0
            size = int(next_fast_len(max(math.ceil(period / step), width), real=True))
            cell.append(period / size)
        else:
            # The gap behind the last sample keeps it apart from the first: the FFT is circular.
            ends = (extent[:, axis] + reach).cumsum(0) if axis == along else extent[:, axis] + reach
            if axis == along:
                shifts[:, axis] += ends - extent[:, axis] - reach
            # Half a window of margin at either end, so that no point's window leaves the box.
            size = int(next_fast_len(math.ceil(float(ends.max()) / step) + 2 * width, real=True))
            shifts[:, axis] += width * step
            cell.append(step)
        sizes.append(size)
    return _Layout(tuple(cell), tuple(sizes), shifts, tuple(period is not None for period in periods))


def _bounds(sources: Points, queries: Points) -> tuple[Tensor, Tensor]:
    """Lowest and highest coordinates of each sample, ``(B, d)``; 0 and 0 for a sample without any point."""
    both = torch.cat([sources.coordinates, queries.coordinates]).detach()
    sample = torch.cat([sources.sample_index(), queries.sample_index()])[:, None].expand(both.shape)
    empty = both.new_zeros(sources.samples, both.shape[1])
    lowest = empty.scatter_reduce(0, sample, both, "amin", include_self=False)
    highest = empty.scatter_reduce(0, sample, both, "amax", include_self=False)
    return lowest, highest


def _window_matrix(points: Points, layout: _Layout, width: int, dtype: torch.dtype) -> _Sparse:
    """``(count, cells)`` matrix of window values at the points' places in the box, and its transpose."""
    position = (points.coordinates.detach() + layout.shifts[points.sample_index()]).cpu()
    columns = torch.zeros(points.count, 1, dtype=torch.int64)
    window = torch.ones(points.count, 1, dtype=torch.float64)
    for axis, (step, size, repeats) in enumerate(zip(layout.steps, layout.sizes, layout.repeats, strict=True)):
        place = position[:, axis] / step
        cells = torch.ceil(place - width / 2).to(torch.int64)[:, None] + torch.arange(width)
        distance = (cells - place[:, None]) * (2 / width)
        arc = (1 - distance * distance).clamp(min=0.0).sqrt()
        values = torch.exp(_BETA_PER_CELL * width * (arc - 1))
        cells = cells % size if repeats else cells
        columns = (columns[:, :, None] * size + cells[:, None, :]).flatten(1)
        window = (window[:, :, None] * values[:, None, :]).flatten(1)
    per_row = columns.shape[1]
    row_starts = np.arange(points.count + 1, dtype=np.int64) * per_row
    entries = window.to(dtype).reshape(-1).numpy()
    matrix = scipy.sparse.csr_matrix(
        (entries, columns.reshape(-1).numpy(), row_starts), shape=(points.count, layout.cells)
    )
    matrix.sort_indices()
    transpose = matrix.tocsc()  # its arrays are those of the transpose's CSR form
    device = points.device
    return _Sparse(
        _csr(matrix, (points.count, layout.cells), device), _csr(transpose, (layout.cells, points.count), device)
    )


def _csr(matrix: Any, shape: tuple[int, int], device: torch.device) -> Tensor:
    """Arrays of a SciPy CSR (or, transposed, CSC) matrix as a tensor."""
    starts, columns, entries = (torch.from_numpy(array) for array in (matrix.indptr, matrix.indices, matrix.data))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
        return torch.sparse_csr_tensor(starts, columns, entries, shape, check_invariants=False).to(device)


def _correction(sizes: tuple[int, ...], width: int) -> Tensor:
    """1 / (window's Fourier transform)^2 on the kept modes, 0 beyond; float64, over the modes of a real FFT."""
    nodes, weights = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(2 * width + 20))
    window = torch.exp(_BETA_PER_CELL * width * ((1 - nodes * nodes).sqrt() - 1)) * weights * (width / 2)
    correction = torch.ones(1, dtype=torch.float64)
    for axis, size in enumerate(sizes):
        frequency = torch.fft.rfftfreq(size) if axis == len(sizes) - 1 else torch.fft.fftfreq(size)
        phase = (math.pi * width) * frequency.to(torch.float64)[:, None] * nodes
        transform = (phase.cos() * window).sum(1)
        kept = frequency.abs() <= 1 / (2 * _OVERSAMPLING)
        correction = correction[..., None] * torch.where(kept, 1 / transform.square(), 0.0)
    return correction[0]


def _transfer(kernel: Kernel, geometry: _Geometry) -> Tensor:
    """Transform of the kernel sampled on the box's cells, ``(*kernel.shape, *modes)``."""
    layout, device = geometry.layout, kernel.extent.device
    reaches = [
        min(math.floor(reach / step), (size - 1) // 2)
        for reach, step, size in zip(geometry.support, layout.steps, layout.sizes, strict=True)
    ]
    offsets = [
        torch.arange(-reach, reach + 1, dtype=torch.float64, device=device) * step
        for reach, step in zip(reaches, layout.steps, strict=True)
    ]
    mesh = torch.stack(torch.meshgrid(*offsets, indexing="ij"), dim=-1)
    values = kernel(mesh.to(kernel.dtype))
    d = kernel.d
    values = values.permute(*range(d, values.ndim), *range(d))
    margins = [(0, size - values.shape[values.ndim - d + axis]) for axis, size in enumerate(layout.sizes)]
    padded = torch.nn.functional.pad(values, [side for margin in reversed(margins) for side in margin])
    dims = tuple(range(-d, 0))
    return torch.fft.rfftn(torch.roll(padded, [-reach for reach in reaches], dims), dim=dims)


class _SparseProduct(torch.autograd.Function):
    """Product of a constant sparse matrix with dense rows; the backward pass uses the stored transpose."""

    @staticmethod
    def forward(ctx: Any, sparse: _Sparse, rows: Tensor) -> Tensor:
        ctx.sparse = sparse
        return sparse.matrix @ rows

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        return None, _SparseProduct.apply(ctx.sparse.transposed, gradient)
