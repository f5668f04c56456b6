"""Seconds of a training step of the CCNN on grids of one to four axes, and the share of each kind of operation.

    python benchmarks/training_step.py [--threads 2] [--repeats 5] [--only "sequence 784"] [--autocast]

Beside it, in turns, the same network with the same weights in the form of its published implementation: convolutions
by ``torch.fft`` on the padded length, or by ``conv2d`` with the channels last in memory, channel mixes by convolutions
of width 1, PyTorch's own normalisation. Both give the same loss. Prints the fastest of the repeats; wants an otherwise
idle machine. Freed memory stays with the process (GLIBC_TUNABLES): to fetch pages anew takes either form up to a
quarter of its time, by chance.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from ccnn_irregular.domains import Grid
from ccnn_irregular.layers import SeparableContinuousConv, sampled_kernel
from ccnn_irregular.networks import CCNN, PUBLISHED_KERNEL, ccnn_4_140, unit_grid
from ccnn_irregular.operators.numerics.lattice import Lattice

_TUNABLES = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=1073741824:glibc.malloc.trim_threshold=17179869184"


@dataclass(frozen=True)
class Case:
    """One training step.

    Attributes:
        grid: domain of the batch.
        batch: number of samples.
        in_channels: channels of the input.
        causal: whether kernels are zero for the future.
        width: standard deviation of the masks, on positions in [-1, 1].
        mask: "cropped" as published, or "smooth": 1.4 times as wide, as our defaults have it.
    """

    grid: Grid
    batch: int
    in_channels: int = 1
    causal: bool = False
    width: float = 0.075
    mask: str = "smooth"


# A kernel of 33 x 33 nodes on 32 x 32 pixels, positions in [-1, 1], is one over the whole image: the smooth mask ends
# 3.03 widths from its centre.
_WHOLE = 1 / 3.035
CASES = {
    "sequence 784": Case(unit_grid([784]), 32, causal=True, mask="cropped"),
    "sequence 784, smooth mask": Case(unit_grid([784]), 32, causal=True),
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
    if os.environ.get("GLIBC_TUNABLES") != _TUNABLES:  # read by the C library when a process starts
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | {"GLIBC_TUNABLES": _TUNABLES})
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {options.threads} threads, fastest of {options.repeats}")
    for name, case in CASES.items():
        if options.only in (None, name):
            print_case(name, case, options.repeats, autocast=options.autocast)


def print_case(name: str, case: Case, repeats: int, *, autocast: bool = False) -> None:
    """Time one case and print where the time goes."""
    torch.manual_seed(0)
    kernel = replace(PUBLISHED_KERNEL, causal=case.causal, width=case.width, mask=case.mask)
    network = ccnn_4_140(case.grid.d, case.in_channels, 10, kernel).train()
    network.calibrate(case.grid)
    values = torch.randn(case.batch, case.in_channels, *case.grid.sizes)
    labels = torch.arange(case.batch) % 10

    def forward() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return nn.functional.cross_entropy(network(values, case.grid), labels)

    def published() -> Tensor:
        return nn.functional.cross_entropy(published_form(network, values, case.grid), labels)

    forms = {"step": forward} | ({"published form": published} if case.grid.d <= 2 else {})
    if len(forms) > 1:
        torch.testing.assert_close(published(), network_loss(network, values, case.grid, labels), rtol=1e-4, atol=1e-4)
    times: dict[str, list[tuple[float, float]]] = {form: [] for form in forms}
    for repeat in range(repeats + 1):
        for form, step in forms.items():
            spent = timed(step)
            if repeat:  # the first one fetches memory
                times[form].append(spent)
    print(f"\n{name}, batch {case.batch}:")
    for form, spent in times.items():
        first, second = min(spent, key=sum)
        print(f"  {form}: forward {first:.3f} s, backward {second:.3f} s, both {first + second:.3f} s")
    with profile(activities=[ProfilerActivity.CPU]) as found:
        forward().backward()
    shares: dict[str, float] = {}
    for event in found.key_averages():
        kind = next((kind for kind, names in KINDS.items() if any(part in event.key for part in names)), "other")
        shares[kind] = shares.get(kind, 0.0) + event.self_cpu_time_total
    whole = sum(shares.values())
    for kind, seconds in sorted(shares.items(), key=lambda item: -item[1]):
        print(f"  {seconds / whole:5.1%}  {kind}")
    rows = sorted(found.key_averages(), key=lambda event: -event.self_cpu_time_total)[:12]
    print("  " + ", ".join(f"{row.key.removeprefix('aten::')} {row.self_cpu_time_total / whole:.1%}" for row in rows))


def network_loss(network: CCNN, values: Tensor, grid: Grid, labels: Tensor) -> Tensor:
    """Loss in full precision."""
    return nn.functional.cross_entropy(network(values, grid), labels)


def published_form(network: CCNN, values: Tensor, grid: Grid) -> Tensor:
    """Compute the network's logits by the operations of the published implementation (arXiv 2206.03398)."""
    hidden = nn.functional.gelu(published_norm(network.stem_norm, published_conv(network.stem, values, grid)))
    for block in network.blocks:
        inner = nn.functional.gelu(published_conv(block.conv, published_norm(block.norm, hidden), grid))
        hidden = hidden + nn.functional.gelu(published_mix(block.linear, inner))
    return nn.functional.linear(
        published_norm(network.norm, hidden).flatten(2).mean(2), network.output.weight, network.output.bias
    )


def published_norm(norm: nn.BatchNorm1d, values: Tensor) -> Tensor:
    return nn.functional.batch_norm(values, None, None, norm.weight, norm.bias, training=True, eps=norm.eps)


def published_mix(linear: nn.Linear, values: Tensor) -> Tensor:
    convolution = (nn.functional.conv1d, nn.functional.conv2d)[values.ndim - 3]
    return convolution(values, linear.weight[(..., *(None,) * (values.ndim - 2))], linear.bias)


def published_conv(layer: SeparableContinuousConv, values: Tensor, grid: Grid) -> Tensor:
    """Apply depthwise convolution, bias, channel mix: by FFT of the padded length in 1-D, by ``conv2d`` in 2-D."""
    lattices = [Lattice.build(axis, axis) for axis in grid.axes]
    # A correlation with the reversed kernel, as PyTorch's convolutions are.
    taps = sampled_kernel(layer.kernel, lattices).flip(list(range(-grid.d, 0))) * grid.cell_volume
    bias = layer.depthwise.bias
    if grid.d == 2:
        half = [size // 2 for size in taps.shape[1:]]
        # In the contiguous layout the forward pass takes twenty times as long.
        values, taps = (one.contiguous(memory_format=torch.channels_last) for one in (values, taps[:, None]))
        result = nn.functional.conv2d(values, taps, bias, padding=half, groups=len(taps))
        return published_mix(layer.pointwise, result)
    taps = nn.functional.pad(taps, [1 - taps.shape[-1] % 2, 0])
    padded = nn.functional.pad(values, [taps.shape[-1] - 1, 0])
    taps = nn.functional.pad(taps, [0, padded.shape[-1] - taps.shape[-1]])
    product = torch.fft.rfft(padded) * torch.fft.rfft(taps).conj()
    result = torch.fft.irfft(product, n=padded.shape[-1])[..., : values.shape[-1]] + bias[:, None]
    return published_mix(layer.pointwise, result)


def timed(forward: Callable[[], Tensor]) -> tuple[float, float]:
    """Measure the seconds of a forward and a backward pass."""
    start = time.perf_counter()
    loss = forward()
    middle = time.perf_counter()
    loss.backward()
    return middle - start, time.perf_counter() - middle


if __name__ == "__main__":
    main()
