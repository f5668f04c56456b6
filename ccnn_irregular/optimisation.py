"""How networks of continuous kernels are trained: groups of parameters, the schedule, the published penalty."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ccnn_irregular._checks import require
from ccnn_irregular.domains import Grid
from ccnn_irregular.layers import ContinuousConv, sampled_kernel
from ccnn_irregular.operators.numerics.lattice import Lattice

__all__ = ["norm_penalty", "parameter_groups", "warmup_cosine"]


def parameter_groups(
    network: nn.Module,
    *,
    learning_rate: float,
    weight_decay: float = 0.0,
    mask_rate: float = 1.0,
    decay_generators: bool = False,
) -> list[dict[str, Any]]:
    """Trained parameters as groups for a torch optimiser, by weight decay and learning rate.

    Decay pulls towards zero, which is no neutral value for a norm, a bias or a width: parameters with at most one axis
    and masks are exempt. So are generators unless asked for: their weights are frequencies and amplitudes of the
    kernel's waves, and smaller ones make another kernel, not a smaller one. (The published recipes exempt generators
    too and penalise the sampled kernels instead, see ``norm_penalty``.)

    The published learning rate of the masks is 1 or 0.1 times the others', on the width itself, which starts at 0.075.
    Here the logarithm of the width is learned: one step of Adam moves it by a share ``learning_rate * mask_rate`` of
    itself, so that ``mask_rate`` = 1 / 0.075 = 13 and 1.3 are the like.

    Args:
        network: parameters inside modules called ``mask`` and ``generator`` are those of kernels.
        learning_rate: of all groups but the masks'.
        weight_decay: of those that are decayed, decoupled as in AdamW.
        mask_rate: learning rate of the masks relative to the others'.
        decay_generators: decay the matrices of the generators too.

    Returns:
        Groups that are not empty, decayed parameters first; groups of equal options are one.

    Raises:
        ValueError: a rate that is not positive, or a negative decay.
    """
    require(learning_rate > 0, "learning_rate", "be positive", learning_rate)
    require(weight_decay >= 0, "weight_decay", "not be negative", weight_decay)
    require(mask_rate > 0, "mask_rate", "be positive", mask_rate)
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        inside = name.split(".")
        mask, generator = "mask" in inside, "generator" in inside
        decayed = parameter.ndim > 1 and not mask and (decay_generators or not generator)
        groups.setdefault((decayed, mask_rate if mask else 1.0), []).append(parameter)
    return [
        {"params": parameters, "lr": learning_rate * rate, "weight_decay": weight_decay if decayed else 0.0}
        for (decayed, rate), parameters in sorted(groups.items(), key=lambda group: group[0], reverse=True)
    ]


def warmup_cosine(step: int, *, steps: int, warmup: int, final_share: float = 0.0) -> float:
    """Share of the peak learning rate at ``step``: a linear rise over ``warmup`` steps, then half a cosine.

    For ``torch.optim.lr_scheduler.LambdaLR``. Published: a warm-up of 5 or 10 of 210 epochs, and a cosine to 0.

    Args:
        step: number of steps taken.
        steps: of the whole training, warm-up included.
        warmup: steps of the rise.
        final_share: what is left at the end.
    """
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(steps - warmup, 1))
    return final_share + (1 - final_share) * 0.5 * (1 + math.cos(math.pi * progress))


def norm_penalty(network: nn.Module, grid: Grid) -> Tensor:
    """The published form of weight decay: the sum of L2 norms, not squared, of parameters and of sampled kernels.

    Times a factor (published: 0 to 1e-4) it is added to the loss. Generators enter by what they make, the kernel in
    units of the grid's cells; every other parameter, masks, norms and biases included, by its own norm.

    Args:
        network: holds ``ContinuousConv`` layers.
        grid: kernels are sampled with its steps, as far as they reach or, without a mask, as the grid does.
    """
    norms = [parameter.norm() for name, parameter in network.named_parameters() if "generator" not in name.split(".")]
    for layer in network.modules():
        if isinstance(layer, ContinuousConv):
            lattices = [Lattice.build(axis, axis) for axis in grid.axes]
            norms.append((sampled_kernel(layer.kernel, lattices) * grid.cell_volume).norm())
    return torch.stack(norms).sum()
