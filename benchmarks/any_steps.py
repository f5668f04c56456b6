"""Convolutions between grids whose steps have no common lattice, beside the same ones on a common lattice.

    python benchmarks/any_steps.py    # prints a table: a forward and a backward pass, its plan included

Times are those of the process (one thread), the least of a few runs, both cases in turn, so that other work on the
machine counts for both alike. A large array is taken and freed first, as any training does: from then on the C library
keeps memory for the next arrays, where it would ask the system anew for each. ``error`` is relative, root mean square,
against the sum pair by pair at random nodes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ccnn_irregular import SIREN, GaussianMask, Grid, Kernel, convolve, explain
from ccnn_irregular.operators import make_plan

__all__ = ["CASES", "Case", "measured"]


@dataclass(frozen=True)
class Case:
    """A convolution from grid to grid.

    Attributes:
        name: in the table.
        sizes, steps: of the source.
        query, query_steps: sizes and steps of the query; the source has these steps in the common case.
        width: of the kernels, in steps of the query.
        channels: of values and kernels.
    """

    name: str
    sizes: tuple[int, ...]
    steps: tuple[float, ...]
    query: tuple[int, ...]
    query_steps: tuple[float, ...]
    width: float
    channels: int = 8


_SCAN = ((30, 30, 10), (0.94, 1.03, 3.7), (26, 26, 14), (1.25, 1.25, 3.0))
CASES = (
    Case("scan to latent grid, kernels of 1 step", *_SCAN, width=1.0),
    Case("scan to latent grid, kernels of 2 steps", *_SCAN, width=2.0),
    Case("the same, 32 channels", *_SCAN, width=2.0, channels=32),
    Case("96^3 voxels", (96, 96, 96), (0.94, 1.03, 1.17), (90, 90, 80), (1.0, 1.0, 1.3), 2.0, 2),
    Case("200^2 pixels", (200, 200), (0.94, 1.03), (190, 190), (1.0, 1.0), 2.0),
    Case("100,000 samples", (100_000,), (0.94,), (93_000,), (1.0,), 3.0, 2),
)


def measured(case: Case, repeats: int = 5) -> dict[str, float | str]:
    """Seconds on a common lattice and between the odd steps, their ratio, and the error of the latter."""
    torch.manual_seed(0)
    width = [case.width * step for step in case.query_steps]
    generator = SIREN(len(width), case.channels, 32, omega_0=6.0)
    kernel = Kernel(generator, GaussianMask(width), extent=[3 * one for one in width])
    query = Grid(case.query, case.query_steps)
    sources = {"common": Grid(case.sizes, case.query_steps), "odd": Grid(case.sizes, case.steps)}
    values = torch.randn(1, case.channels, *case.sizes, requires_grad=True)
    passes: dict[str, Callable[[], None]] = {}
    for name, source in sources.items():
        passes[name] = lambda source=source: convolve(kernel, values, source, query).sum().backward()
    best = {name: float("inf") for name in passes}
    for _ in range(repeats):
        for name, one in passes.items():
            began = time.process_time()
            one()
            best[name] = min(best[name], time.process_time() - began)
    odd = sources["odd"]
    report = make_plan(kernel, odd, query).check(kernel, values.detach(), n=8, rtol=0.5)
    return {
        "case": case.name,
        "engine": str(explain(kernel, odd, query).choice),
        "common": best["common"],
        "odd": best["odd"],
        "ratio": best["odd"] / best["common"],
        "error": report.error,
    }


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    torch.zeros(30 << 20, dtype=torch.uint8)
    print("| case | engine | common lattice, ms | odd steps, ms | ratio | error |\n|---|---|---|---|---|---|")
    for case in CASES:
        row = measured(case)
        times = " | ".join(f"{1e3 * float(row[name]):.1f}" for name in ("common", "odd"))
        print(f"| {row['case']} | {row['engine']} | {times} | {row['ratio']:.1f} | {row['error']:.0e} |")


if __name__ == "__main__":
    main()
