"""Time and error of every engine, side by side in one run: ``make bench``.

Each row of the CSV is one engine on one problem: forward and backward seconds (median of repeated
runs in this process), relative error against the pairwise reference in float64, and the ratio of
its time to the first engine's of the same problem. Engines predicted to take longer than
``--limit`` seconds are left out of a problem and say so.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.benchmark import Timer

from ccnn_irregular import ENGINES, SIREN, GaussianMask, Grid, Kernel, Points, convolve
from ccnn_irregular.domains import Domain
from ccnn_irregular.operators.engine import Cost

RTOL = 1e-3
MEASURED = ("problem", "engine", "forward_s", "forward_backward_s", "relative_error", "times_first", "note")
FIELDS = (*MEASURED, "dtype", "threads", "machine", "torch", "python")
COLUMN_WIDTHS = (34, 10, 10, 18, 14, 11, 0)


@dataclass(frozen=True)
class Problem:
    """One convolution: float32 values on ``source`` evaluated at ``query``."""

    name: str
    kernel: Kernel
    values: Tensor
    source: Domain
    query: Domain


def ragged_series(samples: int, channels: int) -> Problem:
    """Series of 30 to 200 samples over 48 h, evaluated at their own times; kernel support about 6 h."""
    lengths = torch.randint(30, 201, (samples,))
    splits = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    count = int(splits[-1])
    points = Points(torch.rand(count, 1, dtype=torch.float64) * 48, torch.full((count,), 0.5), splits)
    kernel = Kernel(SIREN(1, channels, 32), GaussianMask([2.0]), extent=[6.0])
    return Problem(f"ragged 1-D, {samples} series, {channels} ch", kernel, torch.randn(count, channels), points, points)


def grid(sizes: tuple[int, ...], channels: int, batch: int) -> Problem:
    """A uniform grid with a kernel that reaches a tenth of it to either side."""
    d = len(sizes)
    domain = Grid(sizes, [1.0] * d)
    width = [max(1.0, 0.1 * size / 3.0) for size in sizes]
    kernel = Kernel(SIREN(d, channels, 32), GaussianMask(width), extent=[float(size) for size in sizes])
    name = f"grid {'x'.join(map(str, sizes))}, {channels} ch, batch {batch}"
    return Problem(name, kernel, torch.randn(batch, channels, *sizes), domain, domain)


def problems() -> list[Problem]:
    torch.manual_seed(0)
    return [
        ragged_series(64, 64),
        grid((1024,), 32, 8),
        grid((48, 40), 16, 4),
        grid((16, 18, 14), 8, 2),
        grid((6, 8, 10, 9), 4, 1),
    ]


def median_seconds(call: Callable[[], object]) -> float:
    call()  # the first call compiles and allocates
    timer = Timer("call()", globals={"call": call}, num_threads=torch.get_num_threads())
    return timer.blocked_autorange(min_run_time=0.5).median


def measure(problem: Problem, engine: str, exact: Tensor) -> dict[str, object]:
    """Seconds and error of one engine."""
    values = problem.values.clone().requires_grad_()

    def forward() -> Tensor:
        return convolve(problem.kernel, values, problem.source, problem.query, engine=engine, rtol=RTOL)  # type: ignore[arg-type]

    def forward_backward() -> None:
        forward().square().mean().backward()

    result = forward().detach().double()
    return {
        "forward_s": f"{median_seconds(forward):.4g}",
        "forward_backward_s": f"{median_seconds(forward_backward):.4g}",
        "relative_error": f"{float((result - exact).norm() / exact.norm()):.2g}",
    }


def reference(problem: Problem) -> Tensor:
    """The pairwise sum in float64."""
    with torch.no_grad():
        kernel = problem.kernel.double()
        exact = convolve(kernel, problem.values.double(), problem.source, problem.query, engine="reference")
        problem.kernel.float()
    return exact


def print_row(row: dict[str, object]) -> None:
    cells = zip(MEASURED, COLUMN_WIDTHS, strict=True)
    print("  ".join(f"{row.get(field, '')!s:<{width}}" for field, width in cells), flush=True)


def rows(limit: float) -> list[dict[str, object]]:
    machine = {
        "dtype": "float32",
        "threads": torch.get_num_threads(),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPU cores",
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    table: list[dict[str, object]] = []
    for problem in problems():
        exact, first = reference(problem), None
        for name, engine in ENGINES.items():
            row: dict[str, object] = {"problem": problem.name, "engine": name, "note": "", **machine}
            batch = len(problem.values) if isinstance(problem.source, Grid) else 1
            cost = engine.assess(problem.kernel, problem.source, problem.query, batch, RTOL)
            reason = cost if isinstance(cost, str) else ""
            if isinstance(cost, Cost) and cost.seconds > limit:
                reason = f"predicted {cost.seconds:.3g} s"
            if not reason:
                row |= measure(problem, name, exact)
                seconds = float(str(row["forward_backward_s"]))
                first = seconds if first is None else first
                row["times_first"] = f"{seconds / first:.3g}"
            else:
                row["note"] = f"left out: {reason}"
            table.append(row)
            print_row(row)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("results.csv"))
    parser.add_argument(
        "--limit", type=float, default=120.0, help="leave an engine out beyond this prediction, seconds"
    )
    options = parser.parse_args()
    print_row({field: field for field in MEASURED})
    table = rows(options.limit)
    unfinished = options.output.with_suffix(".csv.part")
    with unfinished.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(table)
    unfinished.replace(options.output)
    print(f"written to {options.output}")


if __name__ == "__main__":
    main()
