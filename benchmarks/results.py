"""The rows of a suite as a CSV file: every row with the machine and the versions it was measured with."""

from __future__ import annotations

import csv
import hashlib
import importlib.metadata
import math
import os
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from suites import SUITES

__all__ = [
    "FIELDS", "IDENTITY", "RESULTS", "Row", "cores", "described", "done", "files", "machine", "now", "read", "same",
    "write",
]  # fmt: skip

Row = dict[str, Any]

RESULTS = Path(__file__).resolve().parent / "results"
# What decides the numbers. Two sets of rows are of one run where these agree.
IDENTITY = (
    "device", "threads", "cpu", "cores", "memory_gib", "gpu", "python", "torch", "numpy", "scipy", "pykeops",
    "torch_geometric", "finufft", "code",
)  # fmt: skip
FIELDS = (
    "suite", "task", "problem", "method", "status", "kind", "d", "size", "points", "channels", "batch", "support",
    "rtol", "dtype", "plan_s", "first_s", "forward_s", "forward_backward_s", "forward_repeats", "repeats", "peak_mib",
    "process_mib", "relative_error", "gradient_error", "measured_size", "law", "note", "run", "date", *IDENTITY,
)  # fmt: skip
# Rows that are not measured again; a failure may have been the machine's.
_DONE = ("ok", "extrapolated", "refused", "too slow")
_PACKAGES = ("torch", "numpy", "scipy", "pykeops", "torch_geometric", "finufft")
_MEASURING = ("cases.py", "exact.py", "measure.py", "baselines.py", "problems.py")


def read(path: Path) -> list[Row]:
    """Read the rows of a file, as text; none if it does not exist."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: Iterable[Row]) -> None:
    """Replace a file in one step: an interruption leaves the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    with unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({field: _text(row.get(field, "")) for field in FIELDS} for row in rows)
    unfinished.replace(path)


def files(folder: Path, device: str) -> dict[str, Path]:
    """Return the file of each suite; those of a GPU carry its name."""
    suffix = "" if device == "cpu" else f"-{device.replace(':', '')}"
    return {suite: folder / f"{suite}{suffix}.csv" for suite in SUITES}


def described(row: Row) -> str:
    """Describe machine and versions of a row, in a line."""
    packages = ", ".join(f"{name} {row[name]}" for name in _PACKAGES if row[name] != "absent")
    where = row["cpu"] if row["device"] == "cpu" else row["gpu"]
    machine = f"{where}, {row['threads']} threads of {row['cores']} cores, {row['memory_gib']} GiB"
    return f"{machine}; {packages}; {row['date'][:10]}"


def same(text: str, value: object) -> bool:
    """Tell whether a field holds ``value``; numbers are compared as numbers, to the digits that are written."""
    if isinstance(value, int | float):
        return text != "" and math.isclose(float(text), value, rel_tol=1e-5)
    return text == value


def done(rows: Iterable[Row]) -> set[str]:
    """Return the tasks that need not run again."""
    return {row["task"] for row in rows if row["status"] in _DONE}


def machine(device: str, threads: int) -> Row:
    """Return machine, versions and a digest of the code that is measured, as text."""
    return {
        "device": device,
        "threads": str(threads),
        "cpu": _cpu(),
        "cores": str(cores()),
        "memory_gib": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f}",
        "gpu": _gpu(device),
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
        "code": _digest(),
    }


def cores() -> int:
    """Count the CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def now() -> str:
    """Return the coordinated universal time to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _cpu() -> str:
    """Return the processor's name, where the system tells it."""
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _gpu(device: str) -> str:
    if device == "cpu":
        return "none"
    import torch

    return torch.cuda.get_device_name(device)


def _digest() -> str:
    """Return ten hexadecimal digits of the SHA-256 of the package's core and of what is timed here."""
    here = Path(__file__).resolve().parent
    files = [*sorted((here.parent / "ccnn_irregular").rglob("*.py")), *(here / name for name in _MEASURING)]
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.relative_to(here.parent).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:10]
