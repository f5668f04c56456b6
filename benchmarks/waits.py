"""Where the host waits for the device: operations whose answer Python or the shape of a tensor depends on.

A GPU works through a queue of operations while Python prepares the next ones. To read a number, to copy to the CPU or
to find out how many entries are not zero empties the queue: the host waits, and then the device does. The same
operations are found on a CPU, where nothing waits, so that the table can be made, and tested, without a GPU; there it
also holds those on tensors that are on the CPU in any case.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

import ccnn_irregular

__all__ = ["Waits", "device_waits"]

# The shape of their result, or what Python does next, depends on values.
_READING = {
    "_local_scalar_dense", "_unique2", "bincount", "equal", "masked_select", "nonzero", "unique_consecutive",
    "unique_dim",
}  # fmt: skip
_COPYING = {"_to_copy", "copy_"}
_INDEXING = {"index", "index_put", "index_put_"}
# What CUDA's own trace calls a wait.
_SYNCHRONISING = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
_OURS = Path(ccnn_irregular.__file__).parent


class Waits(TorchDispatchMode):
    """Counts the operations that make the host wait, by phase, place in the code and operation.

    Args:
        device: type of the device whose tensors are waited for.

    Attributes:
        found: how many by (phase, "file:line function", operation).
    """

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device
        self.found: Counter[tuple[str, str, str]] = Counter()
        self._phase = ""

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count what is done inside under this name."""
        self._phase = name
        with self:
            yield

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        result = func(*args, **given)
        name = func.overloadpacket.__name__
        if _waits(name, args, given, result) and self._concerned(*args, result):
            self.found[(self._phase, _place(sys._getframe(1)), name)] += 1
        return result

    def _concerned(self, *tensors: object) -> bool:
        return any(isinstance(tensor, Tensor) and tensor.device.type == self.device for tensor in tensors)


def _waits(name: str, args: tuple[Any, ...], given: Mapping[str, Any], result: Any) -> bool:
    if name in _READING:
        return True
    if name == "repeat_interleave":  # the form that finds out how long the result is
        return given.get("output_size") is None
    if name in _INDEXING:
        return any(isinstance(tensor, Tensor) and tensor.dtype == torch.bool for tensor in args[1] or ())
    if name in _COPYING:
        other = args[1] if name == "copy_" else result
        return isinstance(other, Tensor) and other.device.type != args[0].device.type
    return False


def _place(frame: FrameType | None) -> str:
    """Return the innermost line of the package, else of its caller; the autograd engine has none."""
    outside = "autograd"
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if _OURS in path.parents:
            return f"{path.relative_to(_OURS)}:{frame.f_lineno} {frame.f_code.co_name}"
        if outside == "autograd" and path.parent == Path(__file__).parent and path.name != Path(__file__).name:
            outside = f"{path.name}:{frame.f_lineno} {frame.f_code.co_name}"
        frame = frame.f_back
    return outside


def device_waits(call: Callable[[], object]) -> int:
    """Count how often the host waits for the GPU while ``call`` runs, by CUDA's trace."""
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as trace:
        call()
    # The profiler itself waits once, in the end, for the device.
    return sum(event.count for event in trace.key_averages() if event.key in _SYNCHRONISING)
