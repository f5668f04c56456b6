"""``Kernel``: generator times mask, as one function of the offset in coordinate units."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any, Self, final

import torch
from torch import Tensor

from ccnn_irregular._autocast import outside_autocast
from ccnn_irregular._checks import require
from ccnn_irregular._reprs import lengths, one_line
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
    """Continuous kernel K(offset) = scale * generator(offset / extent) * mask(offset), zero for negative causal lags.

    Offsets are query minus source, in coordinate units. A kernel is a number per volume: where a cell measures
    1e-45 s m^3, one that keeps the size of values is about 1e45, which no float32 can hold. So its scale stands apart,
    and engines multiply it into the quadrature weights, in float64.

    Args:
        generator: values at normalised offsets.
        mask: reach of the kernel; None = everywhere.
        extent: coordinate units per generator unit, one per axis: offsets up to ``extent`` map to [-1, 1].
        shape: ``(C,)`` for a depthwise kernel (default, C = generator.out_channels), ``(D, C)`` for a
            full one from C to D channels with ``D * C = generator.out_channels``.
        causal_axes: axes along which the kernel is zero for negative offsets (the future).
        scale: factor of all values.

    Attributes:
        scale: ``()`` factor of all values, a buffer that stays float64 whatever the dtype of the parameters.
        calibrated: whether a ``calibrate`` of its layer or network has scaled it, or a state_dict was loaded.

    Raises:
        ValueError: numbers of axes that disagree, an extent that is not positive, a shape that does
            not match the generator, a scale that is not positive.
    """

    extent: Tensor
    scale: Tensor

    def __init__(
        self,
        generator: Generator,
        mask: Mask | None = None,
        *,
        extent: Sequence[float],
        shape: tuple[int] | tuple[int, int] | None = None,
        causal_axes: Sequence[int] = (),
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.generator = generator
        self.mask = mask
        self.shape = (generator.out_channels,) if shape is None else shape
        self.causal_axes = tuple(causal_axes)
        self._require_parts_that_fit(extent)
        require(math.isfinite(scale) and scale > 0, "scale", "be positive and finite", scale)
        self.register_exact_buffer("extent", extent)
        self._first_scale = float(scale)
        self.calibrated = False
        self.register_buffer("scale", torch.tensor(self._first_scale, dtype=torch.float64))

    __repr__ = one_line

    def extra_repr(self) -> str:
        shape = "" if self.depthwise else f", shape={self.shape}"
        causal = f", causal_axes={self.causal_axes}" if self.causal_axes else ""
        scale = lengths(self.scale[None])
        scale = "" if scale in ("1", "?") else f", scale={scale}"
        extent = lengths(self.exact_numbers("extent"))
        return f"{self.generator!r}, {self.mask!r}, extent={extent}{shape}{causal}{scale}"

    def _require_parts_that_fit(self, extent: Sequence[float]) -> None:
        """Refuse parts that disagree with the generator."""
        d, channels = self.generator.d, self.generator.out_channels
        require(len(extent) == d, "extent", f"have one entry per axis, {d}", tuple(extent))
        require(all(math.isfinite(e) and e > 0 for e in extent), "extent", "be positive and finite", tuple(extent))
        if self.mask is not None:
            axes = len(self.mask.support)
            require(axes == d, "mask", f"have the generator's {d} axes", axes)
        fits = len(self.shape) in (1, 2) and math.prod(self.shape) == channels
        require(fits, "shape", f"be (C,) or (D, C) with product {channels}", self.shape)
        causal = all(0 <= axis < d for axis in self.causal_axes)
        require(causal, "causal_axes", f"lie in 0..{d - 1}", self.causal_axes)

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

    def require_numbers(self) -> None:
        """Refuse a kernel on the meta device.

        Raises:
            ValueError: one that has not been given memory yet.
        """
        rule = "have numbers: give the module memory by to_empty(device=...), then load its state_dict"
        require(not self.extent.is_meta, "kernel", rule, "one on the meta device")

    def replace(
        self,
        *,
        generator: Generator | None = None,
        mask: Mask | None = None,
        extent: Sequence[float] | None = None,
        shape: tuple[int] | tuple[int, int] | None = None,
        scale: float | None = None,
    ) -> Kernel:
        """A kernel with other parts that shares all other tensors with this one; what is None stays as it is.

        It is quick enough to be called in every pass: ``kernel.replace(scale=1.0)`` is the kernel for values, or
        weights, that were multiplied by its scale.

        Raises:
            ValueError: parts that disagree, as in the constructor.
        """
        twin = copy.copy(self)  # of the module alone: a pass has no time to build one
        twin._buffers, twin._modules, twin._exact = dict(self._buffers), dict(self._modules), dict(self._exact)
        if generator is not None:
            twin.generator = generator
        if mask is not None:
            twin.mask = mask
        if shape is not None:
            twin.shape = shape
        if extent is not None:
            twin._exact["extent"] = tuple(map(float, extent))
            twin.extent = self.extent.new_tensor(twin._exact["extent"])
        if scale is not None:
            twin.scale = torch.full_like(self.scale, scale)
        if any(part is not None for part in (generator, mask, extent, shape)):
            twin._require_parts_that_fit(twin._exact["extent"])
        return twin

    def formula(self, offsets: Any, operations: Operations) -> Any:
        """Flattened kernel values without the scale, at offsets in coordinate units, in terms of ``operations``."""
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

    def forward(self, offsets: Tensor) -> Tensor:
        """Kernel values ``(..., C)`` or ``(..., D, C)`` at offsets ``(..., d)`` in coordinate units."""
        values = self.unscaled(offsets)
        return (values.to(torch.float64) * self.scale).to(values.dtype)

    @outside_autocast
    def unscaled(self, offsets: Tensor) -> Tensor:
        """Kernel values without the scale, which is to be multiplied into float64 quadrature weights instead."""
        self.require_full_precision()
        require(
            offsets.ndim >= 1 and offsets.shape[-1] == self.d,
            "offsets",
            f"have shape (..., {self.d})",
            tuple(offsets.shape),
        )
        return self.formula(offsets, TENSORS).reshape(*offsets.shape[:-1], *self.shape)

    def sampled(self, offsets: Sequence[Tensor]) -> Tensor:
        """Kernel values without the scale at every combination of some offsets, ``(*lengths, *shape)``.

        Args:
            offsets: ``(n,)`` per axis, float64, coordinate units.
        """
        return self.unscaled(torch.stack(torch.meshgrid(*offsets, indexing="ij"), dim=-1).to(self.dtype))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        before = self.scale
        super()._apply(fn, recurse)
        if before.is_meta and not self.scale.is_meta:
            self.scale = torch.tensor(self._first_scale, dtype=torch.float64, device=self.scale.device)
        elif not before.is_meta:
            self.scale = before.to(self.scale.device)
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Checkpoints written before kernels had a scale hold all of it in the output layer's weight.
        if f"{prefix}extent" in state_dict:
            state_dict.setdefault(f"{prefix}scale", torch.full_like(self.scale, self._first_scale))
        super()._load_from_state_dict(state_dict, prefix, *args)
        self.calibrated = self.calibrated or f"{prefix}extent" in state_dict
