"""Sparse groups: which small kernels of which channels count, chosen at the start and moved during training."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ccnn_irregular._checks import require
from ccnn_irregular.shiftwise.conv import ShiftwiseConv

__all__ = ["GroupSparsity"]


class GroupSparsity:
    """Prunes groups (channel, shift) of all shift-wise layers of a network and lets others grow, by a schedule.

    ``start`` keeps those of the largest saliency |weight x gradient| over all layers (Lee et al., SNIP, ICLR 2019).
    Every ``every`` steps the smallest of the kept groups are pruned in each layer and as many grow at random; their
    share falls as half a cosine from ``prune_rate`` to 0 at ``steps``. Pruned weights are zero and stay so.

    Args:
        network: with ``ShiftwiseConv`` layers.
        kept: share of the groups that count, in (0, 1].
        prune_rate: share of the kept groups that is replaced at first, in [0, 1).
        every: steps between replacements.
        steps: step from which on nothing is replaced.
        seed: of what grows.

    Raises:
        ValueError: arguments outside their ranges, a network without such layers.
    """

    def __init__(
        self,
        network: nn.Module,
        kept: float = 0.7,
        prune_rate: float = 0.3,
        *,
        every: int = 100,
        steps: int = 10_000,
        seed: int = 0,
    ) -> None:
        require(0 < kept <= 1, "kept", "lie in (0, 1]", kept)
        require(0 <= prune_rate < 1, "prune_rate", "lie in [0, 1)", prune_rate)
        require(every >= 1 and steps >= 1, "every, steps", "be at least 1", (every, steps))
        self.layers = [layer for layer in network.modules() if isinstance(layer, ShiftwiseConv)]
        require(bool(self.layers), "network", "have ShiftwiseConv layers", type(network).__name__)
        self.kept, self.prune_rate, self.every, self.steps, self.done = kept, prune_rate, every, steps, 0
        self._draw = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def start(self) -> None:
        """Keep the groups of the largest saliency; to be called after a backward pass through the dense network.

        Raises:
            ValueError: weights without gradients.
        """
        gradients = [layer.weight.grad for layer in self.layers]
        require(all(one is not None for one in gradients), "network", "have gradients: run a backward pass", "none")
        scores = [
            (layer.weight * gradient).abs().sum((0, *range(3, layer.weight.ndim)))
            for layer, gradient in zip(self.layers, gradients, strict=True)
            if gradient is not None
        ]
        together = torch.cat([score.flatten() for score in scores])
        best = torch.zeros_like(together, dtype=torch.bool)
        best[together.topk(max(1, round(self.kept * len(together)))).indices] = True
        for layer, own in zip(self.layers, best.split([score.numel() for score in scores]), strict=True):
            layer.mask.copy_(own.reshape(layer.mask.shape))
        self._clear()

    @torch.no_grad()
    def step(self) -> None:
        """To be called after each step of the optimiser."""
        self.done += 1
        if self.done % self.every == 0 and self.done < self.steps:
            share = 0.5 * self.prune_rate * (1 + math.cos(math.pi * self.done / self.steps))
            for layer in self.layers:
                self._replace(layer, share)
        self._clear()

    def state_dict(self) -> dict[str, Any]:
        """The number of steps done and to do, and the state of the draws; masks are in the network's own."""
        return {"done": self.done, "steps": self.steps, "draw": self._draw.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what ``state_dict`` gave."""
        self.done, self.steps = int(state["done"]), int(state["steps"])
        self._draw.set_state(state["draw"])

    def _replace(self, layer: ShiftwiseConv, share: float) -> None:
        mask, sizes = layer.mask.flatten(), layer.weight.abs().sum((0, *range(3, layer.weight.ndim))).flatten()
        free = (~mask).nonzero().flatten()
        count = min(int(share * int(mask.sum())), len(free))
        if not count:
            return
        standing = mask.nonzero().flatten()
        pruned = standing[sizes[standing].topk(count, largest=False).indices]
        grown = free[torch.randperm(len(free), generator=self._draw)[:count].to(free.device)]
        mask = mask.index_fill(0, pruned, False).index_fill(0, grown, True)
        layer.mask.copy_(mask.reshape(layer.mask.shape))

    def _clear(self) -> None:
        """Weights of pruned groups are zero, whatever the optimiser's momentum does, so that groups grow from zero."""
        for layer, mask in zip(self.layers, self._masks(), strict=True):
            layer.weight.mul_(mask)

    def _masks(self) -> Iterable[Tensor]:
        return (layer.mask.reshape(*layer.mask.shape, *(1,) * layer.d).to(layer.weight) for layer in self.layers)
