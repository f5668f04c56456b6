"""Checks of what a convolution is given besides its domains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ccnn_irregular._checks import require, require_dtype, require_finite
from ccnn_irregular._transforms import is_batched
from ccnn_irregular.domains import Domain
from ccnn_irregular.kernels import Kernel

__all__ = ["CHARACTER", "check_alike", "check_periods", "check_result", "check_values"]


CHARACTER: Mapping[str, Callable[[Kernel], object]] = {
    "number of axes": lambda kernel: kernel.d,
    "dtype": lambda kernel: kernel.dtype,
    "device": lambda kernel: kernel.extent.device,
    "set of causal axes": lambda kernel: kernel.causal_axes,
    "kind, with or without a mask,": lambda kernel: kernel.mask is not None,
}
"""What kernels that share a plan have in common."""


def check_alike(kernels: Sequence[Kernel]) -> None:
    """Refuse kernels that no plan can serve together."""
    require(len(kernels) >= 1, "kernel", "be one or more", kernels)
    for what, of in CHARACTER.items():
        found = {of(kernel) for kernel in kernels}
        require(len(found) == 1, "kernel", f"be of one {what} where several share a plan", sorted(map(str, found)))


def check_values(kernel: Kernel, values: Tensor, source: Domain, query: Domain) -> None:
    """Refuse values that do not fit the kernel and the domains, and what is not finite but carries weight.

    Raises:
        ValueError: another shape, dtype or device, nan or infinity, weights for another number of channels.
    """
    kernel.require_full_precision()
    channels, device = kernel.in_channels, kernel.extent.device
    require(values.device == device, "values", f"be on the kernel's device {device}", values.device)
    shape = source.values_shape(channels, len(values) if values.ndim else 1)
    wanted = ", ".join(map(str, ("B", *shape[1:]) if source.samples is None else shape))
    require(values.shape == shape, "values", f"have shape ({wanted})", tuple(values.shape))
    require_dtype("values", values, kernel.dtype, "the kernel")
    points = source.irregular
    if points is not None:
        require(points.device == device, "source", f"be on the kernel's device {device}", points.device)
        _check_weighted(values, points.weights, channels)
        return
    entries = query.samples
    require(entries in (None, len(values)), "query", f"have one sample per entry, {len(values)}", entries)
    if not is_batched(values):
        require_finite("values", values)


def check_result(kernel: Kernel, values: Tensor, result: Tensor, source: Domain, query: Domain) -> None:
    """Refuse what cannot be the result of these values, which fit the source, at the query.

    Raises:
        ValueError: another shape or device.
    """
    shape = query.values_shape(kernel.out_channels, source.batch_size(values))
    require(result.shape == shape, "result", f"have shape {shape}", tuple(result.shape))
    require(result.device == values.device, "result", f"be on the values' device {values.device}", result.device)


def _check_weighted(values: Tensor, weights: Tensor, channels: int) -> None:
    if weights.ndim == 2:
        require(weights.shape[1] == channels, "weights", f"have one column per channel, {channels}", weights.shape[1])
    if is_batched(values) or bool(torch.isfinite(values.detach().sum())):
        return
    unread = (weights == 0).reshape(*weights.shape, *(1,) * (values.ndim - weights.ndim))
    require_finite("values", torch.where(unread, 0.0, values.detach()))


def check_periods(kernel: Kernel, source: Domain) -> None:
    """Refuse a kernel that reaches farther than half a period."""
    periods = source.periods
    if not any(periods):
        return
    for axis, (period, reach) in enumerate(zip(periods, kernel.support.tolist(), strict=True)):
        if period is not None:
            rule = f"have a support of at most half the period {period:g} on axis {axis}"
            require(reach <= period / 2, "kernel", rule, f"{reach:g}")
