"""Measures the rates of the cost model on this machine, on the code that the engines run."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, replace

import numpy as np
import scipy.sparse
import torch
from torch import Tensor
from torch.utils.benchmark import Timer

from ccnn_irregular.domains import Points
from ccnn_irregular.kernels import SIREN, GaussianMask, Kernel
from ccnn_irregular.operators.engines.engine import Plan
from ccnn_irregular.operators.engines.keops import KeOps, compiler
from ccnn_irregular.operators.engines.neighbours import Neighbours
from ccnn_irregular.operators.engines.reference import Reference
from ccnn_irregular.operators.planning.rates import DEFAULT_RATES, Rates
from ccnn_irregular.operators.planning.work import evaluation_work, kernel_work

__all__ = ["measure_rates"]

_SECONDS_PER_MEASUREMENT = 0.3
# As many rows as a block of pairs has.
_ROWS = 1 << 16
# Points all of whose pairs are summed, and points whose neighbours are searched.
_PAIRED, _SEARCHED = 512, 10000
# Numbers of an array that no cache holds.
_WRITTEN = 1 << 24
# Enough to keep the device busy.
_KEOPS_POINTS = {"cpu": 1000, "cuda": 20000}
_Step = Callable[[torch.device, Rates], Rates]


def measure_rates(
    device: torch.device | str = "cpu", follow: Callable[[Sequence[_Step]], Iterable[_Step]] = iter
) -> Rates:
    """Medians of repeated runs of each elementary operation; half a minute, most of it spent by the C++ compiler.

    Args:
        device: what is measured, with as many threads as PyTorch has now.
        follow: shows progress: given the steps, yields them one after the other.

    Returns:
        The rates; those of KeOps are the default ones where there is no compiler, and, with a warning, where it fails.
    """
    device, rates = torch.device(device), DEFAULT_RATES
    for step in follow((_calls, _writes, _evaluation, _pairs, _search, _transforms, _windows, _keops)):
        rates = step(device, rates)
    # A difference of two noisy numbers may come out as nothing: no operation is faster than light.
    return Rates(**{field.name: max(getattr(rates, field.name), 1e-13) for field in fields(Rates)})


def _median(call: Callable[[], object]) -> float:
    call()
    timer = Timer("call()", globals={"call": call}, num_threads=torch.get_num_threads())
    return timer.blocked_autorange(min_run_time=_SECONDS_PER_MEASUREMENT).median


def _forward_and_backward(function: Callable[[], Tensor]) -> tuple[float, float]:
    """Seconds of the function, and what its backward pass adds."""
    with torch.no_grad():
        gradient = torch.ones_like(function())
        forward = _median(function)
    return forward, _median(lambda: function().backward(gradient)) - forward


def _calls(device: torch.device, rates: Rates) -> Rates:
    few = torch.ones(4, device=device, requires_grad=True)
    return replace(rates, call=_median(lambda: few * few))


def _writes(device: torch.device, rates: Rates) -> Rates:
    """An array that no cache holds."""
    many = torch.ones(_WRITTEN, device=device)
    return replace(rates, write=_median(lambda: many + many) / _WRITTEN)


def _evaluation(device: torch.device, rates: Rates) -> Rates:
    """A generator's matrix products, and its other operations."""
    width = 32
    hidden = torch.rand(_ROWS, width, device=device, requires_grad=True)
    linear = torch.nn.Linear(width, width, device=device)
    bias = torch.rand(width, device=device, requires_grad=True)
    products = _forward_and_backward(lambda: linear(hidden))
    others = _forward_and_backward(lambda: (hidden * bias).sin() * hidden)
    return replace(
        rates,
        multiply_add=products[0] / (_ROWS * width**2),
        multiply_add_backward=products[1] / (_ROWS * width**2),
        element=others[0] / (3 * _ROWS * width),
        element_backward=others[1] / (3 * _ROWS * width),
    )


def _pairs(device: torch.device, rates: Rates) -> Rates:
    """The blocked sum with few channels, then with many, less the evaluation of its kernel."""
    few, many, pairs = 1, 64, _PAIRED**2
    points = Points(torch.rand(_PAIRED, 2, dtype=torch.float64, device=device))
    forward, backward = {}, {}
    for channels in (few, many):
        kernel = Kernel(SIREN(2, channels, hidden=4, layers=1), extent=[1.0, 1.0]).to(device)
        values = torch.rand(len(points.coordinates), channels, device=device, requires_grad=True)
        plan = Plan(Reference(), points, points, Reference().prepare([kernel], points, points, 0.0))

        def summed(kernel: Kernel = kernel, values: Tensor = values, plan: Plan = plan) -> Tensor:
            return Reference().apply(kernel, values, plan)

        evaluated = [rates.seconds(work) for work in kernel_work(kernel, pairs)]
        seconds = _forward_and_backward(summed)
        forward[channels] = seconds[0] - evaluated[0]
        backward[channels] = seconds[1] - seconds[0] - evaluated[1]  # blocks are computed anew
    per_value, per_value_backward = ((one[many] - one[few]) / (pairs * (many - few)) for one in (forward, backward))
    pair = forward[few] / pairs - few * per_value
    return replace(rates, pair=pair, pair_value=per_value, pair_value_backward=per_value_backward)


def _search(device: torch.device, rates: Rates) -> Rates:
    """About 50 neighbours a point in three dimensions."""
    points = Points(torch.rand(_SEARCHED, 3, dtype=torch.float64, device=device))
    width = 0.106 / 3.03
    kernel = Kernel(SIREN(3, 1, 1, 1), GaussianMask([width] * 3), extent=[1.0] * 3).to(device)
    start = time.perf_counter()
    geometry = Neighbours().prepare([kernel], points, points, 0.0)
    return replace(rates, search=(time.perf_counter() - start) / (int(geometry.pairs.pairs[-1]) + 8 * points.count))


def _transforms(device: torch.device, rates: Rates) -> Rates:
    """One transform there and back."""
    sizes, channels = (64, 64, 64), 8
    values = torch.rand(channels, *sizes, device=device)
    dims = (1, 2, 3)
    seconds = _median(lambda: torch.fft.irfftn(torch.fft.rfftn(values, dim=dims), s=sizes, dim=dims)) / 2
    points = values[0].numel()
    return replace(rates, fft=seconds / (channels * points * np.log2(points)))


def _windows(device: torch.device, rates: Rates) -> Rates:
    """A window six cells wide in three dimensions."""
    count, per_row, cells, channels = 5000, 216, 64**3, 16
    generator = np.random.default_rng(0)
    start = time.perf_counter()
    columns = generator.integers(cells - 6, size=(count, 36, 1)) + np.arange(6)
    window = np.exp(np.sqrt(generator.random((count, 6, 6, 6)))).astype(np.float32)
    starts = np.arange(count + 1, dtype=np.int64) * per_row
    matrix = scipy.sparse.csr_matrix((window.reshape(-1), columns.reshape(-1), starts), shape=(count, cells))
    matrix.sort_indices()
    matrix.tocsc()
    build = time.perf_counter() - start
    first, column, entry = (torch.from_numpy(part).to(device) for part in (matrix.indptr, matrix.indices, matrix.data))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
        sparse = torch.sparse_csr_tensor(first, column, entry, matrix.shape, check_invariants=False)
    dense = torch.rand(cells, channels, device=device)
    product = _median(lambda: sparse @ dense)
    return replace(rates, window=build / matrix.nnz, sparse=product / (matrix.nnz * channels))


def _keops(device: torch.device, rates: Rates) -> Rates:
    """In a process of its own, with an empty folder for what KeOps compiles."""
    if compiler() is None:
        return rates
    script = f"from {__name__} import keops_seconds; print(*keops_seconds({str(device)!r}, {torch.get_num_threads()}))"
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "KEOPS_CACHE_FOLDER": folder},
            capture_output=True,
            text=True,
            check=False,
        )
    if process.returncode:
        reason = process.stderr.strip() or f"its process ended with {process.returncode}"
        warnings.warn(f"KeOps could not be measured, its rates stay the default ones: {reason}", stacklevel=2)
        return rates
    compiled, operation = map(float, process.stdout.split()[-2:])
    return replace(rates, keops=operation, keops_compile=compiled)


@torch.no_grad()
def keops_seconds(device: str, threads: int) -> tuple[float, float]:
    """Seconds to compile one formula, and per operation at one pair; the formula must never have been compiled."""
    torch.set_num_threads(threads)
    count = _KEOPS_POINTS[torch.device(device).type]
    points = Points(torch.rand(count, 3, dtype=torch.float64, device=device))
    kernel = Kernel(SIREN(3, 16), GaussianMask([1.0] * 3), extent=[1.0] * 3).to(device)
    values = torch.rand(count, 16, device=device)
    plan = Plan(KeOps(), points, points, KeOps().prepare([kernel], points, points, 0.0))
    start = time.perf_counter()
    KeOps().apply(kernel, values, plan)
    first = time.perf_counter() - start
    again = _median(lambda: KeOps().apply(kernel, values, plan))
    work = evaluation_work(kernel)
    return max(first - again, 0.0), again / (count**2 * (work.multiply_adds + work.elements))
