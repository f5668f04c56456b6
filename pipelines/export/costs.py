"""What a network costs: numbers stored, floating point operations, seconds of a batch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["flops", "seconds", "stored"]

# Runs of which the median is taken, and the time after which no further one begins.
_RUNS, _ENOUGH = 20, 3.0


def stored(network: nn.Module) -> int:
    """Numbers a network keeps: parameters and buffers, each once."""
    tensors = {id(one): one.numel() for one in [*network.parameters(), *network.buffers()]}
    return sum(tensors.values())


def flops(run: Callable[..., Any], inputs: tuple[Tensor, ...]) -> int:
    """Floating point operations of convolutions, products of matrices and Fourier transforms in one call.

    A complex transform of n numbers counts 5 n log2 n, a real one half of it; what is done value by value is left out.
    """
    aten = torch.ops.aten
    transforms = {
        aten._fft_r2c: lambda shape, dims, *_, **__: _transform(shape, dims) // 2,
        aten._fft_c2c: lambda shape, dims, *_, **__: _transform(shape, dims),
        aten._fft_c2r: lambda shape, dims, *_, out_shape=None, **__: _transform(out_shape or shape, dims) // 2,
    }
    with FlopCounterMode(display=False, custom_mapping=transforms) as counter, torch.no_grad():
        run(*inputs)
    return counter.get_total_flops()


def _transform(shape: Any, dims: Any) -> int:
    length = math.prod(shape[dim] for dim in dims)
    return round(5 * math.prod(shape) * math.log2(max(length, 2)))


def seconds(run: Callable[[], Any]) -> float:
    """Median of some calls, the first one left out."""
    run()
    found: list[float] = []
    while len(found) < _RUNS and (not found or sum(found) < _ENOUGH):
        began = time.perf_counter()
        run()
        found.append(time.perf_counter() - began)
    return float(np.median(found))
