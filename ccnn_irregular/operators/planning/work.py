"""How much work a convolution is: pairs counted on the domains, operations on one evaluation of the kernel itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ccnn_irregular.domains import Domain, Grid, Points
from ccnn_irregular.kernels import Kernel
from ccnn_irregular.operators.planning.rates import Work

__all__ = ["KernelWork", "PairWork", "drawn", "evaluation_work", "kernel_work", "pair_work", "scale"]

_OFFSETS = 64


@dataclass(frozen=True)
class KernelWork:
    """Work of evaluating a kernel at one offset.

    Attributes:
        multiply_adds: multiply-adds in matrix products.
        elements: numbers written by all other operations, sines and exponentials among them.
        saved: numbers kept for the backward pass.
    """

    multiply_adds: float
    elements: float
    saved: float


class _Count(TorchFunctionMode):
    """Counts what runs on arrays of ``_OFFSETS`` rows; arithmetic of the parameters alone is nothing beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.multiply_adds = 0
        self.elements = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.ndim and len(result) == _OFFSETS:
            if func is torch.nn.functional.linear:
                self.multiply_adds += result.numel() * args[0].shape[-1]
            elif not any(isinstance(one, Tensor) and _same_memory(one, result) for one in args):
                self.elements += result.numel()
        return result


def _same_memory(one: Tensor, other: Tensor) -> bool:
    """Whether one is a view of the other: nothing was written."""
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


_COUNTED: WeakKeyDictionary[Kernel, KernelWork] = WeakKeyDictionary()


def evaluation_work(kernel: Kernel) -> KernelWork:
    """Work per offset, found by evaluating the kernel at a few; remembered as long as the kernel lives."""
    if kernel not in _COUNTED:
        _COUNTED[kernel] = _counted(kernel)
    return _COUNTED[kernel]


def _counted(kernel: Kernel) -> KernelWork:
    offsets = kernel.extent.new_zeros(_OFFSETS, kernel.d)
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.ndim and len(tensor) == _OFFSETS:
            kept[tensor.untyped_storage().data_ptr()] = tensor.numel()
        return tensor

    unchanged: Callable[[Tensor], Tensor] = lambda tensor: tensor  # noqa: E731
    with torch.enable_grad(), _Count() as count, torch.autograd.graph.saved_tensors_hooks(keep, unchanged):
        result = kernel.unscaled(offsets)
    del result
    per_offset = 1 / _OFFSETS
    return KernelWork(count.multiply_adds * per_offset, count.elements * per_offset, sum(kept.values()) * per_offset)


def kernel_work(kernel: Kernel, offsets: float) -> tuple[Work, Work]:
    """Work of evaluating the kernel at so many offsets on tensors, and what the backward pass adds."""
    work, times = evaluation_work(kernel), scale(kernel) * offsets
    products, others = times * work.multiply_adds, times * work.elements
    backward = Work(multiply_add_backward=products, element_backward=others)
    return Work(multiply_add=products, element=others), backward


def scale(kernel: Kernel) -> float:
    """What the kernel's dtype costs relative to float32, for which the rates hold."""
    return kernel.extent.element_size() / 4


@dataclass(frozen=True)
class PairWork:
    """Sizes of the sum over all pairs within samples.

    Attributes:
        pairs: number of (source, query) pairs.
        sources, queries: number of rows of either domain; a grid's nodes count once for each sample of the other.
        widest: largest number of source rows in a sample.
    """

    pairs: float
    sources: float
    queries: float
    widest: float


def pair_work(source: Domain, query: Domain) -> PairWork:
    """Counted on offsets and sizes: no node of a grid or product is made."""
    sources, queries = torch.broadcast_tensors(_rows_per_sample(source), _rows_per_sample(query))
    widest = float(sources.max()) if len(sources) else 0.0
    return PairWork(float((sources * queries).sum()), float(sources.sum()), float(queries.sum()), widest)


def _rows_per_sample(domain: Domain) -> Tensor:
    """float64 ``(samples,)``, one entry for a grid: 4096^3 nodes squared are beyond int64."""
    if domain.irregular is None:
        return torch.tensor([float(domain.count)], dtype=torch.float64)
    rows = domain.irregular.splits.diff().cpu().to(torch.float64)
    return rows if domain.uniform is None else rows * domain.uniform.count


def drawn(domain: Domain, samples: int, count: int) -> Points:
    """At most ``count`` random points of the domain, in their samples; all of them where there are no more.

    The same in every call; no seed of the caller's is spent, and no other node of a grid is made.

    Args:
        domain: a grid stands for ``samples`` equal ones.
        samples: number of samples.
        count: number of points over all samples.
    """
    points, grid = domain.irregular, domain.uniform
    total = domain.count * (samples if points is None else 1)
    if total > count:
        rows = torch.from_numpy(np.sort(np.random.default_rng(0).choice(total, count, replace=False)))
    else:
        rows = torch.arange(total)
    coordinates, sample = [], rows
    if grid is not None:
        coordinates, sample = [_nodes(grid, rows % grid.count)], rows // grid.count
    if points is not None:
        places, sample = _places(points, sample)
        coordinates = [places, *coordinates]
    splits = torch.cat([rows.new_zeros(1), torch.bincount(sample, minlength=samples).cumsum(0)])
    return Points(torch.cat(coordinates, dim=1), splits=splits, periods=domain.periods)


def _nodes(grid: Grid, index: Tensor) -> Tensor:
    """Coordinates of the grid's nodes by their index in row-major order, float64 ``(len(index), d)``."""
    places = torch.unravel_index(index, grid.sizes)
    return torch.stack(
        [axis.start + axis.step * place.to(torch.float64) for axis, place in zip(grid.axes, places, strict=True)], dim=1
    )


def _places(points: Points, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates and sample of some rows, on the CPU."""
    coordinates = points.coordinates.detach().index_select(0, rows.to(points.device)).cpu()
    return coordinates, torch.searchsorted(points.splits[1:].cpu(), rows, right=True)
