"""Which way a layer of tiles takes, and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ccnn_irregular._checks import require
from ccnn_irregular.shiftwise.ways import LARGE_KERNEL, least_seconds

if TYPE_CHECKING:
    from ccnn_irregular.shiftwise.tiled import TiledConv

__all__ = ["TILES", "Choice", "choose"]

TILES = "tiles"  # grouped small convolutions, sliced and added
_chosen: dict[tuple[Any, ...], Choice] = {}


@dataclass(frozen=True)
class Choice:
    """What was measured for one layer and one shape of values.

    Attributes:
        shape: of the values, ``(B, C, *sizes)``.
        gradients: whether backward passes were measured with the forward ones.
        tiles: how many the layer has, over all channels.
        seconds: of each way: "tiles", and one large kernel "direct", "channels last" or by "FFT".
    """

    shape: tuple[int, ...]
    gradients: bool
    tiles: int
    seconds: dict[str, float]

    @property
    def picked(self) -> str:
        """The way of least time, which the layer takes."""
        return min(self.seconds, key=self.seconds.__getitem__)

    @property
    def crossover(self) -> int:
        """Number of tiles below which shifting would take the least time, if its time went with their number."""
        others = min(seconds for name, seconds in self.seconds.items() if name != TILES)
        return round(self.tiles * others / self.seconds[TILES])

    def __str__(self) -> str:
        passes = "forward and backward" if self.gradients else "forward"
        times = ", ".join(f"{name} {1e3 * seconds:.3g} ms" for name, seconds in self.seconds.items())
        picked = f"takes {self.picked!r}; tiles would be fastest below about {self.crossover} of them"
        return f"values of shape {self.shape}, {passes}: {times}\nof {self.tiles} tiles: {picked}"


def choose(layer: TiledConv, shape: Sequence[int], gradients: bool = False) -> Choice:
    """The choice for a layer and a shape ``(B, C, *sizes)``: measured at its first use, kept for the process."""
    weight = layer.weight
    fits = len(shape) == layer.d + 2 and shape[1] == layer.channels
    require(fits, "shape", f"be (B, {layer.channels}, *{layer.d} sizes)", tuple(shape))
    key = (
        *(tuple(shape), gradients, weight.dtype, weight.device, tuple(weight.shape), tuple(layer.offsets)),
        torch.get_num_threads(),
    )
    if key not in _chosen:
        _chosen[key] = _measured(layer, tuple(shape), gradients)
    return _chosen[key]


def _measured(layer: TiledConv, shape: tuple[int, ...], gradients: bool) -> Choice:
    draw = torch.Generator().manual_seed(0)  # what is drawn for others stays as it is
    values = torch.randn(shape, generator=draw, dtype=layer.weight.dtype).to(layer.weight.device)
    values.requires_grad_(gradients)

    def timed(way: Callable[[Tensor], Tensor]) -> Callable[[], None]:
        def once() -> None:
            with torch.enable_grad() if gradients else torch.no_grad():
                result = way(values)
                if gradients:
                    torch.autograd.grad(result.sum(), [values, layer.weight], allow_unused=True)

        return once

    ways: dict[str, Callable[[Tensor], Tensor]] = {TILES: layer.shifted}
    for name in LARGE_KERNEL:
        if layer.d == 3 and values.dtype == torch.float64 and name != "FFT":
            continue  # torch has no fast kernel for it: seconds where others take milliseconds
        ways[name] = lambda values, name=name: layer.by(name, values)  # type: ignore[misc]  # a default holds the name
    seconds = least_seconds({name: timed(way) for name, way in ways.items()}, layer.weight.device)
    return Choice(shape, gradients, layer.groups, seconds)
