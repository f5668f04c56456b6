"""The non-uniform FFT convolution of points on a line: spread, one FFT convolution, interpolate.

    y = interp_q . FFTconv_K . spread_p (w x)

Points are spread onto a uniform grid with a window psi a few cells wide, convolved there with the
kernel's transform, and the result is read off at the queries with the same window. The window's
effect is divided out of the modes that are kept, so with twofold oversampling the error falls by
about a digit per cell of window width (Barnett, Magland & af Klinteberg 2019, arXiv 1808.06736).

Samples of a ragged batch are laid end to end with gaps of one kernel support: a whole batch is one
transform, and nothing is padded to equal lengths.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
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
_FIRST_SAMPLES = 256
_LARGEST_SAMPLES = 1 << 15
_SECONDS_PER_FFT_OPERATION = 4e-10
_SECONDS_PER_SPREAD_OPERATION = 1e-9


@dataclass(frozen=True)
class _Sparse:
    """A window matrix and its transpose, both CSR: products are fast forward and backward."""

    matrix: Tensor
    transpose: Tensor


@dataclass(frozen=True)
class _Line:
    """The uniform line a ragged batch is laid on.

    Attributes:
        step: cell of the line, coordinate units.
        length: number of cells, a fast FFT size.
        support: kernel support the gaps were made for, coordinate units.
        spread: ``(length, N)`` window matrix of the sources.
        interpolate: ``(M, length)`` window matrix of the queries.
        correction: ``(length // 2 + 1,)`` 1 / window transform squared on the kept modes, 0 beyond.
        sources: the source as points, for its weights.
    """

    step: float
    length: int
    support: float
    spread: _Sparse
    interpolate: _Sparse
    correction: Tensor
    sources: Points


@final
class Spectral(Engine):
    """Non-uniform FFT convolution between points on a line (or a 1-D grid), ragged batches included.

    The relative error is about ``rtol``. No gradient reaches the coordinates.
    """

    name: ClassVar[str] = "spectral"

    def unsuitable(self, kernel: Kernel, source: Domain, query: Domain, rtol: float) -> str | None:
        if source.d != 1 or isinstance(source, Product) or isinstance(query, Product):
            return "source and query must be points on a line"
        if isinstance(source, Grid) and isinstance(query, Grid):
            return "both domains are grids: 'fft' is exact there"
        if any(source.periods) or any(query.periods):
            return "the axis repeats"
        if kernel.mask is None:
            return "the kernel has no mask, so no support that could separate the samples"
        if kernel.causal_axes:
            return "a causal kernel jumps at lag zero: its spectrum never ends"
        if any(isinstance(side, Points) and side.coordinates.requires_grad for side in (source, query)):
            return "gradients of the coordinates are asked for"
        smallest = _SMALLEST_RTOL[kernel.dtype]
        if rtol < smallest:
            return f"rtol {rtol:g} is below {smallest:g}, the least in {kernel.dtype}"
        if _step(kernel, rtol) is None:
            return f"the kernel is too sharp for {_LARGEST_SAMPLES} samples over its support at rtol {rtol:g}"
        return None

    def cost(self, kernel: Kernel, source: Domain, query: Domain, batch: int, rtol: float) -> Cost:
        sources, queries = pair_points(source, query)
        step, support = _step(kernel, rtol) or math.nan, float(kernel.support)
        _, total = _offsets(sources, queries, support)
        cells = total / step + 2 * _width(rtol)
        channels = kernel.in_channels + kernel.out_channels
        window = (sources.count * kernel.in_channels + queries.count * kernel.out_channels) * _width(rtol)
        seconds = window * _SECONDS_PER_SPREAD_OPERATION
        seconds += 2 * channels * cells * math.log2(cells + 2) * _SECONDS_PER_FFT_OPERATION
        seconds += 2 * support / step * kernel_work(kernel) * _SECONDS_PER_SPREAD_OPERATION
        return Cost(seconds, 4.0 * cells * channels * kernel.extent.element_size(), f"{cells:.0f} cells of {step:.3g}")

    def prepare(self, kernel: Kernel, source: Domain, query: Domain, rtol: float) -> _Line:
        sources, queries = pair_points(source, query)
        step, support, width = _step(kernel, rtol), float(kernel.support), _width(rtol)
        assert step is not None  # unsuitable came first
        starts, total = _offsets(sources, queries, support)
        # Half a window of margin at either end, so that no point's window leaves the line.
        length = int(next_fast_len(math.ceil(total / step) + 2 * width, real=True))
        dtype = kernel.dtype

        def matrix(points: Points) -> _Sparse:
            cells = (points.coordinates.detach()[:, 0] + starts[points.sample_index()]) / step + width
            return _window_matrix(cells, length, width, dtype)

        at_sources = matrix(sources)
        return _Line(
            step,
            length,
            support,
            _Sparse(at_sources.transpose, at_sources.matrix),
            matrix(queries),
            _correction(length, width).to(device=kernel.extent.device, dtype=dtype),
            sources,
        )

    def apply(self, kernel: Kernel, values: Tensor, plan: Plan) -> Tensor:
        line: _Line = plan.geometry
        reach = float(kernel.support)
        require(
            reach <= line.support * (1 + 1e-6),
            "plan",
            f"be made anew when the kernel's support grows beyond {line.support:g}",
            f"{reach:g}",
        )
        rows = weighted(to_rows(values, plan.source, plan.query), line.sources.weights)[:, 0]
        grid = _SparseProduct.apply(line.spread, rows)
        spectrum = torch.fft.rfft(grid, dim=0)  # (modes, C)
        transfer = _transfer(kernel, line) * line.correction.reshape(-1, *(1,) * len(kernel.shape))
        product = spectrum * transfer if kernel.depthwise else torch.einsum("kc,kdc->kd", spectrum, transfer)
        result = torch.fft.irfft(product, n=line.length, dim=0)
        return from_rows(_SparseProduct.apply(line.interpolate, result)[:, None], plan.source, plan.query)


def _width(rtol: float) -> int:
    """Cells the window covers: about one per digit, and two more."""
    return math.ceil(-math.log10(rtol)) + 2


def _step(kernel: Kernel, rtol: float) -> float | None:
    """Cell of the line at which the kept modes hold all but ``rtol`` of the kernel's L2 norm.

    The kernel is sampled finer and finer until the upper half of its spectrum is negligible; None
    if it never is.
    """
    support = float(kernel.support)
    count = _FIRST_SAMPLES
    while count <= _LARGEST_SAMPLES:
        offsets = (torch.arange(count, dtype=torch.float64, device=kernel.extent.device) - count // 2) / count
        with torch.no_grad():
            samples = kernel((2 * support * offsets)[:, None].to(kernel.dtype)).flatten(1).to(torch.float64)
        energy = torch.fft.rfft(samples, n=2 * count, dim=0).abs().square()  # modes pi / (2 support) apart
        beyond = energy.flip(0).cumsum(0).flip(0)  # energy of each mode and all above
        negligible = (beyond <= (rtol / 2) ** 2 * beyond[:1]).all(1)
        if bool(negligible[count // 2]):
            first = int(negligible.to(torch.int64).argmax())
            band = max(first, 1) * math.pi / (2 * support)
            return math.pi / (_OVERSAMPLING * band)
        count *= 2
    return None


def _offsets(sources: Points, queries: Points, support: float) -> tuple[Tensor, float]:
    """Shift of each sample, float64 ``(B,)``, that lays the samples end to end, and the length of it all."""
    both = torch.cat([sources.coordinates[:, 0], queries.coordinates[:, 0]]).detach()
    sample = torch.cat([sources.sample_index(), queries.sample_index()])
    lowest = both.new_full((sources.samples,), math.inf).scatter_reduce(0, sample, both, "amin")
    highest = both.new_full((sources.samples,), -math.inf).scatter_reduce(0, sample, both, "amax")
    extent = (highest - lowest).clamp(min=0.0)  # samples without any point: -inf
    ends = (extent + support).cumsum(0)
    starts = ends - extent - support - torch.where(torch.isfinite(lowest), lowest, 0.0)
    return starts, float(ends[-1])


def _window_matrix(cells: Tensor, length: int, width: int, dtype: torch.dtype) -> _Sparse:
    """``(len(cells), length)`` matrix of window values at positions ``cells`` (in cells), and its transpose."""
    first = torch.ceil(cells - width / 2)
    columns = first.to(torch.int64)[:, None] + torch.arange(width, device=cells.device)
    distance = (columns - cells[:, None]) * (2 / width)
    arc = (1 - distance * distance).clamp(min=0.0).sqrt()
    window = torch.exp(_BETA_PER_CELL * width * (arc - 1)).to(dtype)
    count = len(cells)
    rows = torch.arange(count + 1, device=cells.device) * width
    order = torch.argsort(columns.reshape(-1), stable=True)
    column_counts = torch.bincount(columns.reshape(-1), minlength=length)
    column_rows = torch.cat([column_counts.new_zeros(1), column_counts.cumsum(0)])
    return _Sparse(
        _csr(rows, columns.reshape(-1), window.reshape(-1), (count, length)),
        _csr(column_rows, order // width, window.reshape(-1)[order], (length, count)),
    )


def _csr(rows: Tensor, columns: Tensor, entries: Tensor, size: tuple[int, int]) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
        return torch.sparse_csr_tensor(rows, columns, entries, size, check_invariants=False)


def _correction(length: int, width: int) -> Tensor:
    """1 / (window's Fourier transform)^2 on the kept modes 0 .. length / 4, 0 beyond; float64."""
    modes = torch.arange(length // 2 + 1, dtype=torch.float64)
    nodes, weights = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(2 * width + 20))
    window = torch.exp(_BETA_PER_CELL * width * ((1 - nodes * nodes).sqrt() - 1)) * weights * (width / 2)
    phase = (math.pi * width / length) * modes[:, None] * nodes
    transform = (phase.cos() * window).sum(1)
    kept = modes <= length / (2 * _OVERSAMPLING)
    return torch.where(kept, 1 / transform.square(), 0.0)


def _transfer(kernel: Kernel, line: _Line) -> Tensor:
    """Transform of the kernel sampled on the line, ``(modes, *kernel.shape)``."""
    reach = min(math.floor(line.support / line.step), (line.length - 1) // 2)
    taps = torch.arange(-reach, reach + 1, dtype=torch.float64, device=kernel.extent.device)
    values = kernel((taps * line.step)[:, None].to(kernel.dtype))
    padded = torch.cat([values, values.new_zeros(line.length - len(values), *kernel.shape)])
    return torch.fft.rfft(torch.roll(padded, -reach, dims=0), dim=0)


class _SparseProduct(torch.autograd.Function):
    """Product of a constant sparse matrix with dense rows; the backward pass uses the stored transpose."""

    @staticmethod
    def forward(ctx: Any, sparse: _Sparse, rows: Tensor) -> Tensor:
        ctx.sparse = sparse
        return sparse.matrix @ rows

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        return None, _SparseProduct.apply(_Sparse(ctx.sparse.transpose, ctx.sparse.matrix), gradient)
