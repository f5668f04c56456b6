"""How much memory is left, for refusing what cannot fit before anything is allocated."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import psutil
import torch

__all__ = ["as_size", "available_memory"]

_CGROUP_ROOT = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")


def available_memory(device: torch.device) -> float:
    """Bytes that can still be allocated on the device: free memory, and on the CPU no more than a container allows."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return min(psutil.virtual_memory().available, _left_by_cgroups())


def as_size(count: float) -> str:
    """Bytes for a reader: 1.5 KiB, 20.1 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024 or unit == "TiB":
            break
        count /= 1024
    return f"{count:.3g} {unit}" if count < 1000 else f"{count:,.0f} {unit}"


def _left_by_cgroups() -> float:
    """Bytes the control groups of this process leave it, inf without any limit; Linux, cgroup versions 1 and 2."""
    left = math.inf
    for folder, limit, usage in _limited_cgroups():
        used = _number(folder / usage)
        if used is not None:
            left = min(left, max(0.0, limit - used + _reclaimable(folder)))
    return left


@cache
def _limited_cgroups() -> tuple[tuple[Path, float, str], ...]:
    """Folder, limit and name of the usage file of the process's memory groups that have less than the machine.

    Looked up once: a planned convolution may take no longer than it takes to read a few files.
    """
    found = []
    for folder, (limit_file, usage_file) in _memory_cgroups():
        limit = _number(folder / limit_file)
        if limit is not None and limit < psutil.virtual_memory().total:
            found.append((folder, limit, usage_file))
    return tuple(found)


def _memory_cgroups() -> Iterator[tuple[Path, tuple[str, str]]]:
    """Folders of the process's memory groups and their parents, with the names of their limit and usage files."""
    try:
        lines = _OWN_CGROUP.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, names = _CGROUP_ROOT, ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            root, names = _CGROUP_ROOT / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        # Inside a container the path may be the host's: then only the root exists here, and it is the container's own.
        own = root / path.lstrip("/")
        for folder in (own, *own.parents):
            yield folder, names
            if folder == root:
                break


def _number(path: Path) -> float | None:
    """What the file says, None where there is no file or no limit ("max")."""
    try:
        text = path.read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return float(text) if text.isdigit() else None


def _reclaimable(folder: Path) -> float:
    """Bytes of files the system keeps cached in the group: it drops them as soon as the memory is needed."""
    try:
        lines = (folder / "memory.stat").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0.0
    return float(sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file ")))
