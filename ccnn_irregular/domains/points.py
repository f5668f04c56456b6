"""Irregular positions, or a ragged batch of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ccnn_irregular._checks import require, require_finite, require_splits
from ccnn_irregular._reprs import coordinates as shown

__all__ = ["Points", "as_coordinates", "shares_memory"]

_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


@final
class Points:
    """Irregular positions, or a ragged batch of them laid end to end.

    Tensors are held as they are given, float64 ones without a copy: the points move with them if they are changed in
    place, and a ``Plan`` that was made before refuses them. Others are converted; of learned ones, which an optimiser
    moves, the points must then be made again after each step, and a convolution refuses them until they are. Memory
    shared with NumPy is copied, because PyTorch cannot tell when it is written.

    NumPy arrays are taken too, and copied; integers become float64, which holds them exactly up to 2^53.

    Attributes:
        coordinates: float64 ``(N, d)``, coordinate units; gradients flow through it.
        weights: float64 ``(N,)``, or ``(N, C)`` where channels were observed at different places;
            units of volume. 0 = not observed: the value there is never read.
        splits: int64 ``(B + 1,)``; sample ``b`` owns rows ``splits[b]:splits[b + 1]`` and is blind to all others.
        periods: per axis the length after which it repeats, or None.
        weighted: whether weights were given; else each point counts 1.

    Raises:
        ValueError: shapes that disagree, nan or infinite coordinates or weights, negative weights,
            splits that are not offsets, a period that is not positive.
    """

    def __init__(
        self,
        coordinates: Tensor | NDArray[Any],
        weights: Tensor | NDArray[Any] | None = None,
        splits: Tensor | NDArray[Any] | None = None,
        *,
        periods: Sequence[float | None] | None = None,
    ) -> None:
        coordinates = as_coordinates("coordinates", coordinates)
        require(coordinates.ndim == 2, "coordinates", "have shape (N, d)", tuple(coordinates.shape))
        require_finite("coordinates", coordinates)
        count, d = coordinates.shape
        device = coordinates.device
        self.weighted = weights is not None
        self.evenness_told = False  # a look at the density of unweighted points is taken once
        if weights is None:
            weights = torch.ones(count, dtype=torch.float64, device=device)
        if splits is None:
            splits = torch.tensor([0, count], dtype=torch.int64, device=device)
        weights, splits = as_tensor("weights", weights), as_tensor("splits", splits)
        for name, tensor in (("weights", weights), ("splits", splits)):
            require(tensor.device == device, name, f"be on the coordinates' device {device}", tensor.device)
        require(
            weights.ndim in (1, 2) and len(weights) == count,
            "weights",
            f"have shape (N,) or (N, C) with N = {count}",
            tuple(weights.shape),
        )
        require_finite("weights", weights)
        require(not bool((weights < 0).any()), "weights", "not be negative", "a negative weight")
        require_splits(splits, count)
        periods = tuple(periods) if periods is not None else (None,) * d
        require(len(periods) == d, "periods", f"have one entry per axis, {d}", periods)
        require(all(p is None or (math.isfinite(p) and p > 0) for p in periods), "periods", "be positive", periods)
        self.coordinates = _held(coordinates.to(torch.float64))
        self.weights = _held(weights.to(torch.float64))
        self.splits = _held(splits)
        self.periods = periods
        given = {"coordinates": coordinates, "weights": weights}
        self._converted = {
            name: tensor for name, tensor in given.items() if tensor.requires_grad and tensor.dtype != torch.float64
        }

    def __repr__(self) -> str:
        parts = [f"n={self.count}, d={self.d}, samples={self.samples}"]
        if self.count:
            low, high = self.coordinates.detach().aminmax(dim=0)
            parts.append(f"from={shown(low)}, to={shown(high)}, weights={self._weights_shown()}")
        if any(self.periods):
            parts.append(f"periods={self.periods}")
        return f"Points({', '.join(parts)})"

    def _weights_shown(self) -> str:
        """The weight of each point, or the lowest and the highest; of how many channels."""
        ends = torch.stack(self.weights.detach().aminmax()) if self.weights.numel() else self.weights
        low, high = (shown(end[None]) for end in ends)
        channels = f" of {self.weights.shape[1]} channels" if self.weighs_channels else ""
        return (low if low == high else f"{low}..{high}") + channels

    @property
    def count(self) -> int:
        """Number of points over all samples."""
        return self.coordinates.shape[0]

    @property
    def d(self) -> int:
        """Number of coordinate axes."""
        return self.coordinates.shape[1]

    @property
    def samples(self) -> int:
        """Number of samples in the ragged batch."""
        return len(self.splits) - 1

    @property
    def device(self) -> torch.device:
        """Device of the coordinates."""
        return self.coordinates.device

    @property
    def irregular(self) -> Points:
        """The irregular factor: these points."""
        return self

    @property
    def uniform(self) -> None:
        """The uniform factor: points have none."""
        return None

    @property
    def weighs_channels(self) -> bool:
        """Whether every channel has weights of its own, ``(N, C)``."""
        return self.weights.ndim == 2

    def values_shape(self, channels: int, batch: int = 1) -> tuple[int, ...]:
        """Shape of values: ``(N, channels)``, whatever ``batch``."""
        return self.count, channels

    def batch_size(self, values: Tensor) -> int:
        """Number of samples that ``values`` hold: those of the points."""
        return self.samples

    def require_current(self) -> None:
        """Refuse points made of learned coordinates or weights, in another dtype than float64, that have moved since.

        Raises:
            ValueError: the tensor was changed in place, by an optimiser, say.
        """
        for name, given in self._converted.items():
            same = torch.equal(given.detach().to(torch.float64), getattr(self, name).detach())
            rule = f"be as they were when Points was made of them in {given.dtype}: make Points anew after each change"
            require(same, name, rule, "others, changed in place")

    def sample_index(self) -> Tensor:
        """Sample each row belongs to, int64 ``(N,)``."""
        return self._sample_index

    @cached_property
    def _sample_index(self) -> Tensor:
        return torch.repeat_interleave(
            torch.arange(self.samples, device=self.device), self.splits.diff(), output_size=self.count
        )

    def as_points(self, samples: int | None = None, device: torch.device | str | None = None) -> Points:
        """The points themselves, on their own device; see ``Grid.as_points``.

        Raises:
            ValueError: another number of samples.
        """
        require(samples in (None, self.samples), "samples", f"be None or the {self.samples} there are", samples)
        return self

    def to(self, device: torch.device | str) -> Points:
        """The same points on another device."""
        weights = self.weights.to(device) if self.weighted else None
        return Points(self.coordinates.to(device), weights, self.splits.to(device), periods=self.periods)


def as_coordinates(argument: str, given: Tensor | NDArray[Any]) -> Tensor:
    """Positions as a tensor of floating point; integers become float64.

    Raises:
        ValueError: neither a tensor nor an array of numbers, or integers that float64 would round.
    """
    tensor = as_tensor(argument, given)
    if tensor.is_floating_point():
        return tensor
    require(tensor.dtype in _INTEGERS, argument, "be floating point or integers", tensor.dtype)
    exact = tensor.to(torch.float64)
    rule = "be at most 2^53, which float64 holds exactly: subtract an origin first"
    require(bool((exact.abs() <= 2.0**53).all()), argument, rule, exact.abs().max().item() if len(exact) else "")
    return exact


def as_tensor(argument: str, given: Tensor | NDArray[Any]) -> Tensor:
    """A tensor as it is; a NumPy array as a copy, since writes to shared memory cannot be noticed.

    Raises:
        ValueError: something else, or an array of no numbers.
    """
    if isinstance(given, np.ndarray):
        require(given.dtype.kind in "iuf", argument, "hold numbers", given.dtype)
        return torch.tensor(given.astype(given.dtype.newbyteorder("="), copy=False))
    require(isinstance(given, Tensor), argument, "be a tensor or a NumPy array", type(given).__name__)
    return given


def shares_memory(tensor: Tensor) -> bool:
    """Whether others than PyTorch can write the tensor's memory: NumPy, or another process."""
    try:
        return not tensor.untyped_storage().resizable()
    except NotImplementedError:  # what torch.func wraps has no memory of its own
        return False


def _held(tensor: Tensor) -> Tensor:
    """The tensor, or a copy where others may write it and no gradient has to reach it."""
    return tensor.clone() if shares_memory(tensor) and not tensor.requires_grad else tensor
