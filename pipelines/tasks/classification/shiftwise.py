"""A shift-wise network for samples on a grid, dense or trained with some of its groups alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ccnn_irregular._checks import reject, require
from ccnn_irregular._reprs import sized
from ccnn_irregular.domains import Grid
from ccnn_irregular.pipelines.tasks.classification.data import SampleBatch
from ccnn_irregular.pipelines.tasks.classification.standardise import Standardise
from ccnn_irregular.shiftwise import GroupSparsity, ShiftwiseNet

__all__ = ["ShiftwiseClassifier"]


class ShiftwiseClassifier(nn.Module):
    """A ``ShiftwiseNet`` behind a standardisation: one logit per class for images, series on a grid, or volumes.

    Its kernels count nodes, whatever their distance.

    Args:
        in_channels: channels of the data; null = as the training part, likewise classes.
        classes: number of classes.
        axes: 1 for series on a grid, 2 for images, 3 for volumes.
        depths: blocks of each stage.
        channels: of each stage.
        lengths: focus length of each stage, nodes.
        width: focus width, nodes.
        stem_strides: of the two convolutions before the first stage; 1 1 for small samples.
        drop_path: of the last block.
        each: standardise each sample by itself.
        kept: share of the groups (channel, shift) that count; 1 = all. Less: those of the largest saliency in the first
            batch, then some are replaced every ``every`` steps, see ``ccnn_irregular.shiftwise.GroupSparsity``.
        prune_rate: share of the kept groups that is replaced at first; it falls to 0 at the end of training.
        every: steps between replacements.
    """

    def __init__(
        self,
        in_channels: int | None = None,
        classes: int | None = None,
        axes: int = 2,
        depths: Sequence[int] = (1, 1, 1),
        channels: Sequence[int] = (16, 32, 64),
        lengths: Sequence[int] = (13, 9, 7),
        width: int = 3,
        stem_strides: Sequence[int] = (1, 1),
        drop_path: float = 0.0,
        each: bool = False,
        kept: float = 1.0,
        prune_rate: float = 0.3,
        every: int = 100,
    ) -> None:
        super().__init__()
        if in_channels is None or classes is None:
            reject("in_channels and classes", "be given: no data tell them here", "null")
        require(axes in (1, 2, 3), "axes", "be 1, 2 or 3", axes)
        require(len(stem_strides) == 2, "stem_strides", "have two entries", list(stem_strides))
        self.in_channels, self.classes, self.axes = in_channels, classes, axes
        self.standardise = Standardise(in_channels, each)
        strides = (int(stem_strides[0]), int(stem_strides[1]))
        # Branches count from the start: few blocks, and few steps to make them grow from 1e-6.
        options: dict[str, Any] = {"stem_strides": strides, "drop_path": drop_path, "layer_scale": 0.1}
        self.net = ShiftwiseNet(in_channels, classes, depths, channels, lengths, width, axes, **options)
        self.sparsity: GroupSparsity | None = None
        if kept < 1:
            self.sparsity = GroupSparsity(self.net, kept, prune_rate, every=every)

    def extra_repr(self) -> str:
        return f"{self.in_channels} -> {self.classes} classes, {sized(self)}"

    @torch.no_grad()
    def prepare(self, batch: SampleBatch, values: tuple[Tensor, Tensor | None]) -> None:
        """Take the normalisation from the training values."""
        self.standardise.fit(*values)

    def forward(self, batch: SampleBatch) -> Tensor:
        """Logits ``(B, classes)``."""
        domain = batch.domain
        gridded = isinstance(domain, Grid) and domain.d == self.axes
        require(gridded, "network", f"read samples on a grid of {self.axes} axes (fixed kernels)", f"{domain!r}")
        return self.net(self.standardise(batch.values, domain, batch.sampled))

    def before_step(self, steps: int) -> None:
        """Choose the groups by the gradients of the first step; to be called before each one.

        Args:
            steps: of the whole training.
        """
        if self.sparsity is not None and self.sparsity.done == 0:
            self.sparsity.steps = steps
            self.sparsity.start()

    def after_step(self) -> None:
        """Replace groups by the schedule; to be called after each step of the optimiser."""
        if self.sparsity is not None:
            self.sparsity.step()

    def get_extra_state(self) -> dict[str, Any]:
        return {} if self.sparsity is None else self.sparsity.state_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        if self.sparsity is not None:
            self.sparsity.load_state_dict(state)
