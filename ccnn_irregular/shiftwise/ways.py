"""Ways to convolve with a large kernel, and which of them takes the least time for a shape, measured once on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ccnn_irregular.operators.numerics.transforms import depthwise_convolution, fast_length

__all__ = ["LARGE_KERNEL", "convolve", "least_seconds"]

_CONVOLUTIONS: dict[int, Callable[..., Tensor]] = {
    1: torch.nn.functional.conv1d,
    2: torch.nn.functional.conv2d,
    3: torch.nn.functional.conv3d,
}
# Runs of each way; one whose first run takes so many times the least one's is not run again.
_RUNS, _HOPELESS, _SHORT = 5, 3.0, 0.005


def convolve(
    values: Tensor,
    weight: Tensor,
    *,
    stride: Sequence[int] | None = None,
    padding: Sequence[int] | None = None,
    groups: int = 1,
    channels_last: bool = False,
) -> Tensor:
    """torch's convolution of 1 to 3 axes in either layout, the result contiguous.

    On CPUs depthwise kernels of many taps are up to 20 times as fast channels last. One axis has no such layout: it is
    made the second of two.

    Args:
        values: ``(B, C, *sizes)``.
        weight: ``(D, C / groups, *taps)``.
        stride: per axis; None = 1.
        padding: zeros on both sides, per axis; None = none.
        groups: as torch has them.
        channels_last: the layout that is computed in.
    """
    d = weight.ndim - 2
    stride, padding = [1] * d if stride is None else list(stride), [0] * d if padding is None else list(padding)
    if not channels_last:
        return _CONVOLUTIONS[d](values, weight, stride=stride, padding=padding, groups=groups)
    layout = torch.channels_last_3d if d == 3 else torch.channels_last
    if d == 1:
        values, weight, stride, padding = values[:, :, None], weight[:, :, None], [1, *stride], [0, *padding]
    values, weight = values.contiguous(memory_format=layout), weight.contiguous(memory_format=layout)
    result = _CONVOLUTIONS[max(d, 2)](values, weight, stride=stride, padding=padding, groups=groups).contiguous()
    return result[:, :, 0] if d == 1 else result


def _directly(values: Tensor, kernel: Tensor, channels_last: bool) -> Tensor:
    padding = [size // 2 for size in kernel.shape[1:]]
    return convolve(values, kernel[:, None], padding=padding, groups=len(kernel), channels_last=channels_last)


def _by_fft(values: Tensor, kernel: Tensor) -> Tensor:
    pairs = list(zip(values.shape[2:], kernel.shape[1:], strict=True))
    lengths = [fast_length(max(size + taps // 2, taps)) for size, taps in pairs]
    cells = [range(size) for size, _ in pairs]
    windows = [range(taps // 2, taps // 2 + size) for size, taps in pairs]
    return depthwise_convolution(values, kernel.flip(*range(1, kernel.ndim)), lengths, cells, windows)


LARGE_KERNEL: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "direct": lambda values, kernel: _directly(values, kernel, False),
    "channels last": lambda values, kernel: _directly(values, kernel, True),
    "FFT": _by_fft,
}
"""Ways that take the one large depthwise kernel ``(C, *odd lengths)``; sizes stay."""


def least_seconds(ways: Mapping[str, Callable[[], Any]], device: torch.device) -> dict[str, float]:
    """Least time of a few runs of each way, all in turn; of one that is far behind the time of its first."""
    best: dict[str, float] = {}
    for run in range(_RUNS):
        for name, way in ways.items():
            limit = max(_HOPELESS * min(best.values(), default=0.0), _SHORT)
            # What a first run prepares may take longer than a short run itself.
            if run == 0 or best[name] <= limit:
                best[name] = min(best.get(name, float("inf")), _seconds(way, device))
    return best


def _seconds(way: Callable[[], Any], device: torch.device) -> float:
    # One thread's own time, where there is but one: others on the machine do not disturb it.
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.thread_time if alone else time.perf_counter
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = clock()
    way()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - began
