"""``Kernel``: generator times mask, as one function of the offset in coordinate units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor

from ccnn_irregular._autocast import outside_autocast
from ccnn_irregular._checks import require
from ccnn_irregular.kernels.buffers import ExactBuffers
from ccnn_irregular.kernels.formula import TENSORS, Operations
from ccnn_irregular.kernels.generators import Generator
from ccnn_irregular.kernels.masks import Mask

__all__ = ["Kernel"]

# Lags this small, relative to the extent, count as zero: coordinates that should be equal may
# differ by rounding, and a causal kernel must not lose its value at lag zero to that.
_ZERO_LAG = 1e-6


@final
class Kernel(ExactBuffers):
    """Continuous kernel K(offset) = generator(offset / extent) * mask(offset), zero for negative causal lags.

    Offsets are query minus source, in coordinate units.

    Args:
        generator: values at normalised offsets.
        mask: reach of the kernel; None = everywhere.
        extent: coordinate units per generator unit, one per axis: offsets up to ``extent`` map to [-1, 1].
        shape: ``(C,)`` for a depthwise kernel (default, C = generator.out_channels), ``(D, C)`` for a
            full one from C to D channels with ``D * C = generator.out_channels``.
        causal_axes: axes along which the kernel is zero for negative offsets (the future).

    Raises:
        ValueError: numbers of axes that disagree, an extent that is not positive, a shape that does
            not match the generator.
    """

    extent: Tensor

    def __init__(
        self,
        generator: Generator,
        mask: Mask | None = None,
        *,
        extent: Sequence[float],
        shape: tuple[int] | tuple[int, int] | None = None,
        causal_axes: Sequence[int] = (),
    ) -> None:
        super().__init__()
        d = generator.d
        require(len(extent) == d, "extent", f"have one entry per axis, {d}", tuple(extent))
        require(all(math.isfinite(e) and e > 0 for e in extent), "extent", "be positive and finite", tuple(extent))
        if mask is not None:
            require(len(mask.support) == d, "mask", f"have the generator's {d} axes", len(mask.support))
        shape = (generator.out_channels,) if shape is None else shape
        require(
            len(shape) in (1, 2) and math.prod(shape) == generator.out_channels,
            "shape",
            f"be (C,) or (D, C) with product {generator.out_channels}",
            shape,
        )
        require(all(0 <= axis < d for axis in causal_axes), "causal_axes", f"lie in 0..{d - 1}", tuple(causal_axes))
        self.generator = generator
        self.mask = mask
        self.shape = shape
        self.causal_axes = tuple(causal_axes)
        self.register_exact_buffer("extent", extent)

    @property
    def d(self) -> int:
        """Number of coordinate axes."""
        return self.generator.d

    @property
    def depthwise(self) -> bool:
        """Whether each channel is convolved on its own."""
        return len(self.shape) == 1

    @property
    def in_channels(self) -> int:
        """Number of channels the kernel reads."""
        return self.shape[-1]

    @property
    def out_channels(self) -> int:
        """Number of channels the kernel writes."""
        return self.shape[0]

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the parameters, hence of values it is convolved with."""
        return self.extent.dtype

    @property
    def support(self) -> Tensor:
        """Half width of the box about zero outside which the kernel is zero, ``(d,)``; inf without a mask."""
        return torch.full_like(self.extent, math.inf) if self.mask is None else self.mask.support

    def formula(self, offsets: Any, operations: Operations) -> Any:
        """Flattened kernel values at offsets in coordinate units, in terms of ``operations``."""
        values = self.generator.formula(offsets * operations.vector(1 / self.extent), operations)
        if self.mask is not None:
            values = values * self.mask.formula(offsets, operations)
        for axis in self.causal_axes:
            tolerance = operations.vector(self.extent[axis : axis + 1] * _ZERO_LAG)
            values = values * operations.step(operations.component(offsets, axis) + tolerance)
        return values

    def require_full_precision(self) -> None:
        """Refuse parameters of less than float32.

        Raises:
            ValueError: float16 or bfloat16.
        """
        fits = self.dtype in (torch.float32, torch.float64)
        rule = "be float32 or float64, as positions need it (kernel.float(), and torch.autocast for the other layers)"
        require(fits, "kernel", rule, self.dtype)

    @outside_autocast
    def forward(self, offsets: Tensor) -> Tensor:
        """Kernel values ``(..., C)`` or ``(..., D, C)`` at offsets ``(..., d)`` in coordinate units."""
        self.require_full_precision()
        require(
            offsets.ndim >= 1 and offsets.shape[-1] == self.d,
            "offsets",
            f"have shape (..., {self.d})",
            tuple(offsets.shape),
        )
        return self.formula(offsets, TENSORS).reshape(*offsets.shape[:-1], *self.shape)
