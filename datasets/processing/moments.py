"""Mean and standard deviation of values of any size, in float64; a constant has no deviation, to the last bit."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["mean_and_deviation"]


def mean_and_deviation(columns: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (of the population) of each column; nan is left out.

    Rounding gives a constant such as 0.1 a deviation of 1e-9 where its mean is a sum over a count, and dividing by
    that makes -1 or 1 of it; squares of 1e20 are infinite in float32. So values are first brought to [-1, 1].

    Args:
        columns: ``(N, C)``, any floating dtype.
        weights: ``(N,)``, what each row counts, not negative; None = all the same.

    Returns:
        Two float64 tensors ``(C,)``. The deviation of a constant is 0, both are nan for a column of nan alone.
    """
    pairs = [_of_one(column, weights) for column in columns.T]
    return torch.stack([mean for mean, _ in pairs]), torch.stack([deviation for _, deviation in pairs])


def _of_one(column: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    read = ~column.isnan() if weights is None else ~column.isnan() & (weights > 0)
    whole = bool(read.all())
    values = (column if whole else column[read]).to(torch.float64, copy=True)
    if not len(values):
        return values.new_tensor(torch.nan), values.new_tensor(torch.nan)
    low, high = values.aminmax()
    middle, reach = high / 2 + low / 2, high / 2 - low / 2
    if not reach > 0:
        return low, torch.zeros_like(low)
    values.sub_(middle).div_(reach)
    if weights is None:
        mean = values.mean()
        return middle + reach * mean, reach * values.sub_(mean).square_().mean().sqrt()
    shares = (weights if whole else weights[read]).to(torch.float64)
    shares = shares / shares.sum()
    mean = torch.dot(values, shares)
    return middle + reach * mean, reach * torch.dot(values.sub_(mean).square_(), shares).sqrt()
