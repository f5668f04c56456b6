"""One measurement in a process of its own: seconds, peak memory and error of one method on one problem.

A process of its own makes peak memory honest, and can be stopped when it takes too long. It is told what to measure
by JSON in its argument, and answers with a JSON list of rows in its last line.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cases
import torch
from baselines import METHODS
from exact import Judge, judge, relative_error
from problems import Instance, Problem, build
from torch import Tensor

__all__ = ["judge_of", "main", "measure", "median", "rows_of"]

Row = dict[str, Any]

_AT_LEAST = 3
_SECONDS = 1.0
# A process that would need more than this share of the free memory fails with a message; the machine does not.
_SHARE_OF_MEMORY = 0.9


def measure(
    problem: Problem, method: str, device: str = "cpu", judges: Path | None = None, seconds: float | None = None
) -> Row:
    """Measure seconds, memory and error of one method.

    Args:
        problem: what is convolved.
        method: a name in ``METHODS``.
        device: "cpu" or a CUDA device.
        judges: folder that keeps exact results for the next method; None = compute them here.
        seconds: of repeats of what is timed, three of them at the least; None = one.

    Returns:
        The measured fields of a row. ``status`` is "ok", "refused" (the method says that it cannot, ``note`` why) or
        "absent" (a package is missing).
    """
    make = METHODS[method]
    try:
        for name in make.requires:
            importlib.import_module(name)
    except ImportError as error:
        return {"status": "absent", "note": str(error)}
    instance = build(problem, device)
    judged = judge_of(problem, instance, judges)
    gc.collect()
    memory = _Memory(device)
    try:
        start = time.perf_counter()
        planned = make(instance)
        _wait(device)
        plan_seconds = time.perf_counter() - start
    except (ValueError, MemoryError) as error:
        return {"status": "refused", "note": str(error)}
    values = instance.values.clone().requires_grad_()

    def forward() -> None:
        with torch.no_grad():
            planned(values)

    def forward_backward() -> Tensor:
        for tensor in (values, *instance.kernel.parameters(), *planned.parameters()):
            tensor.grad = None
        result = planned(values)
        result.backward(judged.cotangent)
        return result.detach()

    start = time.perf_counter()
    result = forward_backward()
    _wait(device)
    first = time.perf_counter() - start
    assert values.grad is not None
    row: Row = {
        "status": "ok",
        "points": instance.points.count * instance.entries,
        "first_s": first,
        "relative_error": relative_error(instance.rows(result)[judged.rows], judged.result),
        "gradient_error": relative_error(instance.rows(values.grad)[judged.rows], judged.gradient),
        "note": planned.note,
    }
    del result
    row["forward_s"], row["forward_repeats"] = median(forward, device, seconds)
    row["forward_backward_s"], row["repeats"] = median(forward_backward, device, seconds)
    row["peak_mib"], row["process_mib"] = memory.peak()
    note = planned.note
    if plan_seconds < _SECONDS:  # the first plan also paid for what is set up once
        del planned
        plan_seconds, _ = median(lambda: make(instance), device, seconds)
    return row | {"plan_s": plan_seconds, "note": note}


def judge_of(problem: Problem, instance: Instance, folder: Path | None) -> Judge:
    """Return the exact result, from ``folder`` if an earlier method left it there."""
    if folder is None:
        return judge(instance)
    path = folder / f"{problem.name.replace(' ', '_').replace(',', '')}.pt"
    if path.exists():
        return Judge(**torch.load(path, map_location=instance.device, weights_only=True))
    judged = judge(instance)
    unfinished = path.with_suffix(".part")
    torch.save(vars(judged), unfinished)
    unfinished.replace(path)
    return judged


def rows_of(job: dict[str, Any]) -> list[Row]:
    """Measure the rows of one job: ``{"kind": "time" | "random" | "refinement", ...}``."""
    if job["kind"] == "time":
        judges = Path(job["judges"]) if job["judges"] else None
        return [measure(Problem(**job["problem"]), job["method"], job["device"], judges, job.get("seconds"))]
    if job["kind"] == "random":
        return cases.random_cases(job["first"], job["count"])
    return [row for rule in cases.RULES for row in cases.refinement(rule)]


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)


def median(call: Callable[[], object], device: str, least: float | None = None) -> tuple[float, int]:
    """Median seconds of repeated calls, and how many there were: at least 3, and so many seconds' worth, or one's."""
    least = _SECONDS if least is None else least
    call()
    _wait(device)
    seconds: list[float] = []
    while len(seconds) < _AT_LEAST or sum(seconds) < least:
        start = time.perf_counter()
        call()
        _wait(device)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), len(seconds)


class _Memory:
    """Peak memory since it was made, and of the whole process, in MiB.

    On Linux the kernel's own high-water mark is set back first: what ``getrusage`` reports includes the parent that
    the process was forked from and everything that building the data needed for a moment.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        if device != "cpu":
            torch.cuda.synchronize(device)
            torch.cuda.reset_peak_memory_stats(device)
            self._before = torch.cuda.memory_allocated(device) / 2**20
            return
        if sys.platform == "linux":
            Path("/proc/self/clear_refs").write_text("5")
        self._before = _high_water()

    def peak(self) -> tuple[float, float]:
        """Beyond what there was in the beginning, and in all."""
        now = _high_water() if self._device == "cpu" else torch.cuda.max_memory_allocated(self._device) / 2**20
        return now - self._before, now


def _high_water() -> float:
    """Return the largest resident size so far, MiB."""
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / 2**20 if sys.platform == "darwin" else size / 1024


def _limit_memory() -> None:
    """Let an allocation fail before the machine runs out of memory."""
    if sys.platform != "linux":
        return
    available = next(
        int(line.split()[1]) for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvail")
    )
    limit = int(available * 1024 * _SHARE_OF_MEMORY)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def main() -> None:
    job = json.loads(sys.argv[1])
    os.environ.setdefault("KEOPS_VERBOSE", "0")
    if job.get("device", "cpu") == "cpu":
        _limit_memory()
    torch.set_num_threads(job["threads"])
    rows = rows_of(job)
    print(json.dumps({"rows": rows, "threads": torch.get_num_threads()}))


if __name__ == "__main__":
    main()
