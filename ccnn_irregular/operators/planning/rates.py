"""The cost model: engines count elementary operations (``Work``), the machine says what each takes (``Rates``).

The default rates were measured on one named machine. ``ccnn machine`` measures them where it runs
(``measure``); they are kept in this user's cache folder, in one file per machine.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import tempfile
import warnings
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import final

import torch

from ccnn_irregular._cache_folder import cache_folder
from ccnn_irregular._checks import reject

__all__ = [
    "DEFAULT_MACHINE",
    "DEFAULT_RATES",
    "Rates",
    "Work",
    "current_rates",
    "load_rates",
    "measured",
    "rates_file",
    "save_rates",
]


@dataclass(frozen=True)
class Rates:
    """Seconds of elementary operations, float32. Each backward rate is what the backward pass adds.

    Attributes:
        call: one call of an array operation, however small its arrays.
        write: one number of a new array that no cache holds.
        multiply_add, multiply_add_backward: one multiply-add of a matrix product in a generator.
        element, element_backward: one number written by any other operation in a generator or mask (sines, products).
        pair: one pair enumerated: its two rows, and its offset.
        pair_value, pair_value_backward: one channel of one pair gathered, multiplied and added up.
        search: one pair found by a k-d tree.
        fft: one point of a real transform of n points, per log2(n).
        window: one entry of a sparse window matrix built, its transpose included.
        sparse: one entry of a sparse matrix times one channel.
        keops: one multiply-add or other operation of a kernel formula at one pair in KeOps.
        keops_compile: one formula compiled by KeOps.
    """

    call: float
    write: float
    multiply_add: float
    multiply_add_backward: float
    element: float
    element_backward: float
    pair: float
    pair_value: float
    pair_value_backward: float
    search: float
    fft: float
    window: float
    sparse: float
    keops: float
    keops_compile: float

    def seconds(self, work: Work) -> float:
        """Predicted wall time of the counted operations."""
        seconds, rates = 0.0, self.__dict__
        for name, count in work.counts.items():  # no generator: a choice of an engine asks for a dozen of these
            seconds += count * rates[name]
        return seconds


_OPERATIONS = frozenset(field.name for field in fields(Rates))


@final
class Work:
    """How often each elementary operation runs: ``Work(call=60, fft=2e6)``.

    Its names are those of ``Rates``. Works add up, and are multiplied by numbers. Numbers of float64 count twice, since
    rates hold for float32.

    Raises:
        ValueError: an operation that ``Rates`` does not have, or a negative count.
    """

    __slots__ = ("counts",)

    def __init__(self, **counts: float) -> None:
        if not _OPERATIONS.issuperset(counts):
            reject("Work", f"count operations of {sorted(_OPERATIONS)}", sorted(counts.keys() - _OPERATIONS))
        for count in counts.values():
            if not count >= 0:  # nan too
                reject("Work", "count no operation fewer than 0 times", counts)
        self.counts = counts

    def __repr__(self) -> str:
        return f"Work({', '.join(f'{name}={count:.6g}' for name, count in self.counts.items())})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Work) and self.counts == other.counts

    __hash__ = None  # type: ignore[assignment]

    def __add__(self, other: Work) -> Work:
        counts = self.counts | other.counts
        for name in self.counts.keys() & other.counts.keys():
            counts[name] += self.counts[name]
        return Work(**counts)

    def __mul__(self, times: float) -> Work:
        return Work(**{name: times * count for name, count in self.counts.items()})


DEFAULT_MACHINE = "two cores of an AMD EPYC"
DEFAULT_RATES = Rates(
    call=1.8e-6,
    write=1.3e-9,
    multiply_add=1.4e-11,
    multiply_add_backward=7.3e-11,
    element=3.4e-10,
    element_backward=1.2e-9,
    pair=2.6e-8,
    pair_value=3.5e-9,
    pair_value_backward=3.8e-9,
    search=6.5e-8,
    fft=1.1e-10,
    window=3.3e-8,
    sparse=2.7e-10,
    keops=4.6e-10,
    keops_compile=5.7,
)


def machine(device_type: str) -> dict[str, str | int]:
    """What the rates depend on."""
    if device_type == "cuda":
        return {"device": device_type, "name": torch.cuda.get_device_name(), "torch": torch.__version__}
    threads = torch.get_num_threads()
    return {"device": device_type, "name": _processor(), "threads": threads, "torch": torch.__version__}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def rates_file(device_type: str) -> Path:
    """Where the rates of this machine are kept; machines that share a home folder have a file each."""
    key = hashlib.sha256(json.dumps(machine(device_type)).encode()).hexdigest()[:12]
    return cache_folder() / f"rates-{device_type}-{key}.json"


def save_rates(rates: Rates, device_type: str) -> Path:
    """Keep rates measured on this machine, under a temporary name until the file is whole.

    Raises:
        OSError: the folder takes no files.
    """
    path = rates_file(device_type)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=path.stem, suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump({"machine": machine(device_type), "rates": asdict(rates)}, file, indent=2)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _loaded.cache_clear()
    return path


def load_rates(device_type: str) -> Rates | None:
    """Rates measured on this machine earlier, or None, with a warning where a file is there but is of no use."""
    path = rates_file(device_type)
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        _warn_unused(path, f"cannot be read ({error})")
        return None
    values = stored.get("rates") if isinstance(stored, dict) else None
    names = {field.name for field in fields(Rates)}
    if not isinstance(values, dict) or set(values) != names or not all(map(_is_rate, values.values())):
        _warn_unused(path, "is damaged or of another version")
        return None
    if stored.get("machine") != machine(device_type):
        _warn_unused(path, f"is of another machine ({stored.get('machine')})")
        return None
    return Rates(**values)


def _is_rate(value: object) -> bool:
    return isinstance(value, float | int) and math.isfinite(value) and value > 0


def _warn_unused(path: Path, why: str) -> None:
    warnings.warn(f"{path} {why} and is not used; 'ccnn machine' measures anew", stacklevel=3)


def current_rates(device: torch.device) -> Rates:
    """Rates of the device: those measured on this machine, else the default ones."""
    return _loaded(device.type, torch.get_num_threads()) or DEFAULT_RATES


def measured(device: torch.device) -> bool:
    """Whether the rates of the device were measured on this machine."""
    return _loaded(device.type, torch.get_num_threads()) is not None


@cache
def _loaded(device_type: str, threads: int) -> Rates | None:
    """Read once per process, so that a warning is given once; the number of threads is part of the machine."""
    return load_rates(device_type)
