"""The convolutions that are measured, each built from a seed: the same kernel, values and places for every method."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from ccnn_irregular import SIREN, GaussianMask, Grid, Kernel, Points
from ccnn_irregular.domains import Domain

__all__ = ["HIDDEN", "Instance", "Problem", "build", "gaussian_mask", "gridded"]

HIDDEN = 32
_HOURS = 48.0
_SHORTEST, _LONGEST = 30, 200


@dataclass(frozen=True)
class Problem:
    """What is convolved; plain values, so that it can be handed to another process.

    Attributes:
        kind: points in a unit box, a ragged batch of series over 48 hours, or a grid over the unit box.
        d: number of coordinate axes.
        size: number of points; of series; of nodes along each axis.
        channels: number of channels of values and (depthwise) kernel.
        support: half width of the kernel: a share of the box, or hours for series.
        batch: entries that share the grid; 1 otherwise.
        rtol: relative error the methods that approximate may make.
        dtype: of values and kernel.
    """

    kind: Literal["points", "ragged", "grid"]
    d: int
    size: int
    channels: int
    support: float
    batch: int = 1
    rtol: float = 1e-3
    dtype: Literal["float32", "float64"] = "float32"

    @property
    def name(self) -> str:
        """A name no other problem has."""
        size = {"points": f"{self.size} points", "ragged": f"{self.size} series"}.get(
            self.kind, "x".join([str(self.size)] * self.d)
        )
        batch = f", batch {self.batch}" if self.batch > 1 else ""
        rest = f"{self.channels} ch{batch}, support {self.support:.4g}, rtol {self.rtol:g}, {self.dtype}"
        return f"{self.kind} {self.d}-D, {size}, {rest}"

    @property
    def nodes(self) -> int:
        """Number of points or nodes; of series for a ragged batch, whose lengths are drawn."""
        return self.size**self.d if self.kind == "grid" else self.size

    def sized(self, size: int) -> Problem:
        """The same problem at another size."""
        return replace(self, size=size)

    def as_dict(self) -> dict[str, Any]:
        """Fields by name, for JSON: ``Problem(**fields)`` is the way back."""
        return asdict(self)


@dataclass
class Instance:
    """A problem's kernel, values, where they were sampled and where the result is wanted (there as well).

    ``values`` are in the convention of ``domain``: ``(N, C)`` on Points, ``(B, C, *sizes)`` on Grid.
    """

    kernel: Kernel
    values: Tensor
    domain: Domain
    rtol: float

    @property
    def device(self) -> torch.device:
        """Where values and kernel are."""
        return self.values.device

    @property
    def entries(self) -> int:
        """Entries that share the geometry."""
        return len(self.values) if isinstance(self.domain, Grid) else 1

    @cached_property
    def points(self) -> Points:
        """The domain as points, nodes in row-major order."""
        return self.domain.as_points(device=self.device)

    def rows(self, values: Tensor) -> Tensor:
        """Values in the domain's convention as ``(N, B, C)``."""
        return values.flatten(2).permute(2, 0, 1) if isinstance(self.domain, Grid) else values[:, None]


def build(problem: Problem, device: str = "cpu") -> Instance:
    """The problem's data: a kernel of 32 hidden units and two sine layers under a Gaussian mask, white noise on
    uniformly random places. Seeded by the number of axes, so that sizes share the kernel."""
    torch.manual_seed(problem.d)
    dtype = getattr(torch, problem.dtype)
    extent = [problem.support] * problem.d
    kernel = Kernel(SIREN(problem.d, problem.channels, HIDDEN), gaussian_mask(extent), extent=extent)
    domain, shape = _domain(problem)
    values = torch.randn(shape, dtype=dtype)
    if isinstance(domain, Points):
        domain = domain.to(device)
    return Instance(kernel.to(device, dtype), values.to(device), domain, problem.rtol)


def gridded(count: int, d: int) -> int:
    """Return the number of nodes along each of ``d`` axes, about ``count`` in all."""
    return round(count ** (1 / d))


def gaussian_mask(support: list[float], threshold: float = 0.01) -> GaussianMask:
    """Make a Gaussian mask that ends ``support`` from its centre."""
    reach = math.sqrt(-2 * math.log(threshold))
    return GaussianMask([length / reach for length in support], threshold)


def _domain(problem: Problem) -> tuple[Domain, tuple[int, ...]]:
    """Return the domain of the values, and their shape."""
    if problem.kind == "grid":
        sizes = (problem.size,) * problem.d
        return Grid(sizes, [1 / problem.size] * problem.d), (problem.batch, problem.channels, *sizes)
    if problem.kind == "ragged":
        lengths = torch.randint(_SHORTEST, _LONGEST + 1, (problem.size,))
        splits = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
        count = int(splits[-1])
        hours = torch.rand(count, 1, dtype=torch.float64) * _HOURS
        # A sample stands for its share of the series.
        weights = (_HOURS / lengths.to(torch.float64)).repeat_interleave(lengths)
        return Points(hours, weights, splits), (count, problem.channels)
    coordinates = torch.rand(problem.size, problem.d, dtype=torch.float64)
    weights = torch.full((problem.size,), 1 / problem.size, dtype=torch.float64)
    return Points(coordinates, weights), (problem.size, problem.channels)
