"""Depthwise convolutions with large kernels: torch's own in either layout, by FFT, and as shifted small ones.

    python benchmarks/shiftwise.py    # prints a table: milliseconds of a forward pass of one image, one thread

Times are those of the process, the least of a few runs, all ways in turn. "60% out": so many tiles left out at random.
``TiledConv`` measures these ways at its first values and takes the fastest.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from ccnn_irregular.shiftwise import TiledConv
from ccnn_irregular.shiftwise.tiles import cut, tile_offsets

__all__ = ["CASES", "measured"]

# Channels, size of the map, kernel.
CASES = (
    (96, (56, 56), (7, 7)),
    (96, (56, 56), (13, 13)),
    (96, (56, 56), (31, 31)),
    (96, (56, 56), (51, 5)),
    (96, (56, 56), (5, 51)),
    (192, (28, 28), (13, 13)),
    (192, (28, 28), (31, 31)),
    (192, (28, 28), (51, 5)),
    (32, (24, 24, 24), (9, 9, 9)),
)
_WIDTH, _SPARSITIES = 5, (0.0, 0.6, 0.8)


def _by_fft(values: Tensor, weight: Tensor) -> Tensor:
    lengths = [size + taps - 1 for size, taps in zip(values.shape[2:], weight.shape[1:], strict=True)]
    dims = tuple(range(-len(lengths), 0))
    product = torch.fft.rfftn(values, lengths, dims) * torch.fft.rfftn(weight, lengths, dims).conj()
    return torch.fft.irfftn(product, lengths, dims)


@torch.no_grad()
def measured(channels: int, sizes: tuple[int, ...], lengths: tuple[int, ...], repeats: int = 5) -> dict[str, float]:
    """Milliseconds of each way."""
    torch.manual_seed(0)
    values, weight = torch.randn(1, channels, *sizes), torch.randn(channels, *lengths)
    convolution = torch.nn.functional.conv2d if len(sizes) == 2 else torch.nn.functional.conv3d
    last = torch.channels_last if len(sizes) == 2 else torch.channels_last_3d
    padding = [taps // 2 for taps in lengths]
    kernel = weight[:, None]
    ours, theirs = values.to(memory_format=last), kernel.to(memory_format=last)
    ways: dict[str, Callable[[], Tensor]] = {
        "direct": lambda: convolution(values, kernel, padding=padding, groups=channels),
        "channels last": lambda: convolution(ours, theirs, padding=padding, groups=channels),
        "FFT": lambda: _by_fft(values, weight),
    }
    widths = [min(_WIDTH, taps) for taps in lengths]
    tiles, offsets = cut(weight, widths), tile_offsets(lengths, widths)
    for sparsity in _SPARSITIES:
        layer = TiledConv(tiles, offsets, torch.rand(tiles.shape[:2]) >= sparsity)
        ways[f"shifted, {sparsity:.0%} out"] = lambda layer=layer: layer.shifted(values)
    dense = TiledConv(tiles, offsets)
    ways["TiledConv"] = lambda: dense(values)
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(repeats):
        for name, one in ways.items():
            began = time.process_time()
            one()
            best[name] = min(best[name], 1e3 * (time.process_time() - began))
    return best


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    torch.zeros(30 << 20, dtype=torch.uint8)
    for number, (channels, sizes, lengths) in enumerate(CASES):
        row = measured(channels, sizes, lengths)
        if not number:
            print(f"| case | {' | '.join(row)} |\n|---|{'---|' * len(row)}")
        case = f"{channels} channels, {'x'.join(map(str, sizes))}, kernel {'x'.join(map(str, lengths))}"
        print(f"| {case} | {' | '.join(f'{one:.1f}' for one in row.values())} |", flush=True)


if __name__ == "__main__":
    main()
