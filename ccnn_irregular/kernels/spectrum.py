"""The spectrum of a kernel along one axis, and how much of it a sampling cannot carry."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ccnn_irregular._checks import require
from ccnn_irregular.kernels.kernel import Kernel

__all__ = ["energy_above", "marginal_energy"]

# Samples along an axis across whose directions the energy is only summed up.
_OTHER_SAMPLES = 16


def marginal_energy(kernel: Kernel, axis: int, offsets: Sequence[Tensor]) -> Tensor:
    """Energy of each mode along ``axis``, summed over the other axes.

    By Parseval the other axes need no transform. The samples along ``axis`` are padded with as many zeros, so that
    modes lie 1 / (2 n step) cycles per coordinate unit apart.

    Args:
        kernel: the kernel; the result is differentiable in its parameters.
        axis: where frequencies are looked at.
        offsets: float64 offsets per axis, coordinate units; the n of ``axis`` are evenly spaced.

    Returns:
        Modes 0 .. n of each channel of the kernel without its scale, float64 on the CPU, ``(n + 1, channels)``. Modes
        of negative frequency equal those of positive one and are left out.
    """
    count = len(offsets[axis])
    samples = kernel.sampled(offsets).flatten(kernel.d).to("cpu", torch.float64)
    energy = torch.fft.rfft(samples, n=2 * count, dim=axis).abs().square()
    return energy.movedim(axis, 0).reshape(count + 1, -1, samples.shape[-1]).sum(1)


def energy_above(kernel: Kernel, steps: Sequence[float | None], *, resolution: int = 4) -> Tensor:
    """Share of the kernel's energy above the Nyquist frequency 1 / (2 step) of a sampling, along each axis.

    What lies there is folded back by the sampling: the kernel acts as another one, and as yet another at another rate.
    Added to a loss, the share keeps a model that is trained at one rate free of aliases at the coarser one given
    here. FlexConv bounds the spectrum of its generator in closed form for the same end (Romero et al. 2022,
    arXiv 2110.08059, section 3.3); here the spectrum of the kernel itself, mask included, is measured, whatever
    the generator.

    Args:
        kernel: with a mask; the result is differentiable in its parameters.
        steps: distance of neighbouring samples per axis, coordinate units; None = an axis that is left out.
        resolution: the kernel is sampled this many times as finely as the steps. What lies above so many times
            the Nyquist frequency is folded too, most of it onto frequencies that count.

    Returns:
        Shares in [0, 1], ``(axes, *kernel.shape)``, 0 where a step is None and for a kernel that is zero.

    Raises:
        ValueError: a kernel without a mask, steps that are not positive or not one per axis, a resolution below 2.
    """
    mask = kernel.mask
    if mask is None:
        raise ValueError("kernel must have a mask: without one its reach has no end, got none")
    require(len(steps) == kernel.d, "steps", f"have one entry per axis, {kernel.d}", tuple(steps))
    require(all(step is None or step > 0 for step in steps), "steps", "be positive", tuple(steps))
    require(resolution >= 2, "resolution", "be at least 2", resolution)
    shares = []
    for axis, step in enumerate(steps):
        if step is None:
            shares.append(torch.zeros(kernel.shape, dtype=kernel.dtype, device=kernel.extent.device))
            continue
        fine = step / resolution
        energy = marginal_energy(kernel, axis, _box(kernel, axis, fine))
        modes = len(energy) - 1
        # Each mode between the first and the last stands for a negative frequency as well.
        energy = torch.cat([energy[:1], 2 * energy[1:-1], energy[-1:]])
        # Mode j is the frequency j / modes * 1 / (2 fine), and stands for half a mode to either side of it.
        above = (torch.arange(modes + 1, dtype=energy.dtype) + 0.5 - modes / resolution).clamp(0.0, 1.0)
        total = energy.sum(0)
        share = above @ energy / torch.where(total > 0, total, 1.0)
        shares.append(share.to(kernel.extent).reshape(kernel.shape))
    return torch.stack(shares)


def _box(kernel: Kernel, axis: int, step: float) -> list[Tensor]:
    """Offsets that cover the kernel's support: ``step`` apart along ``axis``, a few along the others."""
    assert kernel.mask is not None
    device = kernel.extent.device
    centres, reaches = kernel.mask.centre.tolist(), kernel.mask.half_width.tolist()
    offsets = []
    for other, (centre, reach) in enumerate(zip(centres, reaches, strict=True)):
        count = max(2, math.ceil(2 * reach / step)) if other == axis else _OTHER_SAMPLES
        distance = step if other == axis else 2 * reach / count
        nodes = torch.arange(count, dtype=torch.float64, device=device) - (count - 1) / 2
        offsets.append(centre + distance * nodes)
    return offsets
