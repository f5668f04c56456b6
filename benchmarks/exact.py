"""The judge: the sum as written, in float64, at a few places only, independent of every engine."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from problems import Instance
from torch import Tensor

from ccnn_irregular import Kernel, Points

__all__ = ["Judge", "judge", "relative_error", "sums"]

_ROWS = 256
_ROWS_OF_MANY = 64
_MANY = 200_000


@dataclass
class Judge:
    """What is right at some rows.

    Attributes:
        rows: int64 ``(m,)`` rows of the domain's points.
        cotangent: gradient handed to the backward pass, in the convention of the values.
        result: float64 ``(m, B, C)`` the convolution there.
        gradient: float64 ``(m, B, C)`` gradient of <result, cotangent> with respect to the values there.
    """

    rows: Tensor
    cotangent: Tensor
    result: Tensor
    gradient: Tensor


@torch.no_grad()
def judge(instance: Instance) -> Judge:
    """Compute exact result and gradient at 256 random rows (64 of more than 200,000)."""
    points = instance.points
    generator = torch.Generator().manual_seed(1)
    count = min(_ROWS if points.count <= _MANY else _ROWS_OF_MANY, points.count)
    rows = torch.randperm(points.count, generator=generator)[:count].sort().values.to(instance.device)
    cotangent = torch.randn(instance.values.shape, generator=generator, dtype=instance.values.dtype)
    cotangent = cotangent.to(instance.device)
    kernel = copy.deepcopy(instance.kernel).double()
    weights = points.weights[:, None, None]
    values = instance.rows(instance.values).double() * weights
    result = sums(kernel, points, values, points.coordinates[rows], points.sample_index()[rows])
    # The gradient is the convolution with the mirrored kernel, weighted at the source.
    gradient = sums(
        kernel,
        points,
        instance.rows(cotangent).double(),
        points.coordinates[rows],
        points.sample_index()[rows],
        mirrored=True,
    )
    return Judge(rows, cotangent, result, gradient * weights[rows])


@torch.no_grad()
def sums(
    kernel: Kernel, points: Points, values: Tensor, queries: Tensor, samples: Tensor, *, mirrored: bool = False
) -> Tensor:
    """sum_n K(q - p_n) values_n, or K(p_n - q) values_n, over the points of each query's own sample.

    Args:
        kernel: depthwise, float64.
        points: where the values are; axes may repeat.
        values: float64 ``(N, B, C)``, weights included.
        queries: float64 ``(m, d)``.
        samples: int64 ``(m,)`` sample of each query.
        mirrored: evaluate the kernel at the negative offset.

    Returns:
        float64 ``(m, B, C)``.
    """
    support = kernel.support
    starts = points.splits.tolist()
    result = []
    for query, sample in zip(queries, samples.tolist(), strict=True):
        rows = slice(starts[sample], starts[sample + 1])
        offsets = query - points.coordinates[rows]
        for axis, period in enumerate(points.periods):
            if period is not None:
                offsets[:, axis] -= period * torch.round(offsets[:, axis] / period)
        near = (offsets.abs() <= support).all(1).nonzero()[:, 0]
        offsets = -offsets[near] if mirrored else offsets[near]
        result.append(torch.einsum("nc,nbc->bc", kernel(offsets), values[rows][near]))
    return torch.stack(result)


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Return the relative difference in the L2 norm; nan where only zero is expected."""
    return float((actual.double() - expected).norm() / expected.norm())
