"""Seconds of a training step of the CCNN on grids of one to four axes, and the share of each kind of operation.

    python benchmarks/training_step.py [--threads 2] [--repeats 5] [--only "sequence 784"] [--autocast]

Prints the fastest of the repeats; wants an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from ccnn_irregular.domains import Grid
from ccnn_irregular.networks import ccnn_4_140, unit_grid


@dataclass(frozen=True)
class Case:
    """One training step.

    Attributes:
        grid: domain of the batch.
        batch: number of samples.
        in_channels: channels of the input.
        causal: whether kernels are zero for the future.
        width: standard deviation of the masks, on positions in [-1, 1].
    """

    grid: Grid
    batch: int
    in_channels: int = 1
    causal: bool = False
    width: float = 0.075


# A kernel of 33 x 33 nodes on 32 x 32 pixels, positions in [-1, 1], is one over the whole image: the smooth mask ends
# 3.03 widths from its centre.
_WHOLE = 1 / 3.035
CASES = {
    "sequence 784": Case(unit_grid([784]), 32, causal=True),
    "image 32 x 32": Case(Grid([32, 32], [1 / 16] * 2, [-1, -1]), 8, 3, width=_WHOLE),
    "image 32 x 32, width 0.075": Case(Grid([32, 32], [1 / 16] * 2, [-1, -1]), 8, 3),
    "volume 16^3": Case(unit_grid([16] * 3), 4, width=0.15),
    "four axes 8^4": Case(unit_grid([8] * 4), 4, width=0.25),
}
# Kinds of operation by what the profiler calls them, first match.
KINDS = {
    "transform": ("fft",),
    "matrix product": ("bmm", "addmm", "mm", "baddbmm"),
    "norm": ("batch_norm",),
    "gelu": ("gelu",),
    "copy": ("copy_", "fill_", "zero_", "slice_backward", "clone", "constant_pad", "cat"),
    "product of spectra, sums": ("mul", "add", "sum", "div", "sub"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=sorted(CASES))
    parser.add_argument("--autocast", action="store_true", help="matrix products in bfloat16")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {options.threads} threads, fastest of {options.repeats}")
    for name, case in CASES.items():
        if options.only in (None, name):
            print_case(name, case, options.repeats, autocast=options.autocast)


def print_case(name: str, case: Case, repeats: int, *, autocast: bool = False) -> None:
    """Time one case and print where the time goes."""
    torch.manual_seed(0)
    options = {"causal": case.causal, "width": case.width}
    network = ccnn_4_140(case.grid.d, case.in_channels, 10, **options).train()
    network.calibrate(case.grid)
    values = torch.randn(case.batch, case.in_channels, *case.grid.sizes)
    labels = torch.arange(case.batch) % 10

    def forward() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return nn.functional.cross_entropy(network(values, case.grid), labels)

    forward().backward()
    times = [timed(forward) for _ in range(repeats)]
    first, second = min(times, key=sum)
    print(f"\n{name}, batch {case.batch}: forward {first:.3f} s, backward {second:.3f} s, step {first + second:.3f} s")
    with profile(activities=[ProfilerActivity.CPU]) as found:
        forward().backward()
    spent: dict[str, float] = {}
    for event in found.key_averages():
        kind = next((kind for kind, names in KINDS.items() if any(one in event.key for one in names)), "other")
        spent[kind] = spent.get(kind, 0.0) + event.self_cpu_time_total
    whole = sum(spent.values())
    for kind, seconds in sorted(spent.items(), key=lambda item: -item[1]):
        print(f"  {seconds / whole:5.1%}  {kind}")
    rows = sorted(found.key_averages(), key=lambda event: -event.self_cpu_time_total)[:12]
    print("  " + ", ".join(f"{row.key.removeprefix('aten::')} {row.self_cpu_time_total / whole:.1%}" for row in rows))


def timed(forward: Callable[[], torch.Tensor]) -> tuple[float, float]:
    """Seconds of a forward and a backward pass."""
    start = time.perf_counter()
    loss = forward()
    middle = time.perf_counter()
    loss.backward()
    return middle - start, time.perf_counter() - middle


if __name__ == "__main__":
    main()
