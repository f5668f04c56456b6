"""Discrete Fourier sums between uniform nodes and consecutive modes of a circle, axis by axis.

    to_modes:  X_k = sum_j x_j exp(-2 pi i k t_j)
    at_nodes:  y_m = sum_k X_k exp(+2 pi i k t_m)

The nodes t = first + step j need not divide the circle, so neither direction is an FFT. Short sums are products with a
matrix. Long ones are FFTs where the nodes do divide the circle, and else a chirp (Bluestein 1970): with
k j = (k^2 + j^2 - (k - j)^2) / 2 the sum becomes a convolution. Both are exact up to rounding, and differentiable.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from ccnn_irregular.operators.numerics.transforms import fast_length

__all__ = ["Nodes", "UniformSum"]

# Entries of a matrix, beyond which transforms take less time.
_MOST_ENTRIES = 1 << 19
# Relative distance from a whole number of nodes on the circle that rounding explains.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Nodes:
    """Uniform nodes on a circle of length 1.

    Attributes:
        first: place of the first one.
        step: distance of neighbours.
        count: how many.
    """

    first: float
    step: float
    count: int

    @property
    def whole(self) -> int | None:
        """How many nodes of this step divide the circle, no fewer than there are; None where they do not."""
        count = round(1 / self.step)
        divides = abs(count * self.step - 1) < _ROUNDING and count >= self.count
        return count if divides else None


@dataclass(frozen=True)
class UniformSum:
    """Sums between nodes and the modes ``first .. first + count - 1``, along one axis.

    Attributes:
        nodes: where values are.
        first, count: the modes.
        device: of the tensors.
        dtype: complex dtype of the sums.
    """

    nodes: Nodes
    first: int
    count: int
    device: torch.device
    dtype: torch.dtype

    @property
    def dense(self) -> bool:
        """Whether a matrix is the faster way."""
        return self.nodes.count * self.count <= _MOST_ENTRIES

    @property
    def multiply_adds(self) -> float:
        """Real multiply-adds of the sum for one column, as a matrix; 0 for a transform."""
        return 4.0 * self.nodes.count * self.count if self.dense else 0.0

    @property
    def length(self) -> int:
        """Length of the transforms that take the matrix's place."""
        return self.nodes.whole or fast_length(self.nodes.count + self.count - 1)

    @cached_property
    def distinct(self) -> UniformSum:
        """The sum to those of its modes from which on they repeat."""
        whole = self.nodes.whole
        if whole is None or self.nodes.first != 0 or whole >= self.count:
            return self
        return replace(self, count=whole)

    def to_modes(self, values: Tensor, dim: int) -> Tensor:
        """Values at the nodes along ``dim``, counted from the end, to modes; real ones along the last axis only."""
        if self.dense and values.is_complex():
            return _product(self._conjugate, values, dim)
        if self.dense:
            # One real product, whose columns are real and imaginary parts in turn.
            pairs = torch.view_as_real(self._conjugate.T.contiguous()).flatten(1)
            return torch.view_as_complex((values @ pairs).unflatten(-1, (-1, 2)))
        values, whole = values.movedim(dim, -1), self.nodes.whole
        if whole is None:
            place, frequency = self.nodes.first, self.first * self.nodes.step
            return self._chirp(values, self.count, place, frequency, -1).movedim(-1, dim)
        modes = torch.fft.fft(values, n=whole)[..., self._modes % whole]
        return (modes * self._phases(self._modes.double() * self.nodes.first, -1)).movedim(-1, dim)

    def at_nodes(self, modes: Tensor, dim: int) -> Tensor:
        """Modes along ``dim``, counted from the end, to complex values at the nodes."""
        if self.dense:
            return _product(self._conjugate.mH, modes, dim)
        modes, whole = modes.movedim(dim, -1), self.nodes.whole
        if whole is None or whole < self.count:
            place, frequency = self.first * self.nodes.step, self.nodes.first
            return self._chirp(modes, self.nodes.count, place, frequency, 1).movedim(-1, dim)
        modes = modes * self._phases(self._modes.double() * self.nodes.first, 1)
        circle = modes.new_zeros(*modes.shape[:-1], whole).index_copy(-1, self._modes % whole, modes)
        return torch.fft.ifft(circle, norm="forward")[..., : self.nodes.count].movedim(-1, dim)

    def real_at_nodes(self, modes: Tensor, cells: int) -> Tensor:
        """Modes 0 to at most half of ``cells`` along the last axis to real values: the other half mirrors them."""
        shares = torch.full((self.count,), 2.0, dtype=modes.real.dtype, device=self.device)
        shares[0] = 1.0
        if 2 * (self.count - 1) == cells:
            shares[-1] = 1.0
        if not self.dense:
            return self.at_nodes(modes * shares, -1).real
        pairs = torch.view_as_real(self._conjugate * shares[:, None]).movedim(-1, 1).flatten(0, 1)
        return torch.view_as_real(modes).flatten(-2) @ pairs

    @cached_property
    def _modes(self) -> Tensor:
        return torch.arange(self.first, self.first + self.count, device=self.device)

    @cached_property
    def _conjugate(self) -> Tensor:
        """exp(-2 pi i k t), ``(modes, nodes)``."""
        places = self.nodes.first + self.nodes.step * self._counted(self.nodes.count)
        return self._phases(self._modes[:, None] * places, -1)

    def _counted(self, count: int) -> Tensor:
        return torch.arange(count, dtype=torch.float64, device=self.device)

    def _phases(self, turns: Tensor, sign: int) -> Tensor:
        angle = torch.remainder(turns, 1.0) * (sign * 2 * math.pi)
        return torch.polar(torch.ones_like(angle), angle).to(self.dtype)

    def _chirp(self, inputs: Tensor, count: int, place: float, frequency: float, sign: int) -> Tensor:
        """Sums of the inputs a along the last axis, times exp(sign 2 pi i (k0 + l) (t0 + step j)), for outputs b.

        Inputs are nodes and outputs modes or the other way round: ``frequency`` times its number is what an input alone
        adds to the turns, ``place`` times its number an output.
        """
        step, ins = self.nodes.step, inputs.shape[-1]
        a, b = self._counted(ins), self._counted(count)
        apart = torch.arange(1 - ins, count, dtype=torch.float64, device=self.device)
        length = fast_length(ins + count - 1)
        before = self._phases(a * frequency + 0.5 * step * a * a, sign)
        after = self._phases(self.first * self.nodes.first + b * place + 0.5 * step * b * b, sign)
        chirp = torch.fft.fft(self._phases(0.5 * step * apart * apart, -sign), n=length)
        result = torch.fft.ifft(torch.fft.fft(inputs * before, n=length) * chirp)
        return result[..., ins - 1 : ins - 1 + count] * after


def _product(matrix: Tensor, values: Tensor, dim: int) -> Tensor:
    """A matrix times values along ``dim``."""
    if dim == -1:
        return values @ matrix.T
    before = math.prod(values.shape[:dim])
    columns = values.reshape(before, values.shape[dim], math.prod(values.shape[dim + 1 :]))
    result = torch.bmm(matrix.expand(before, *matrix.shape), columns)
    return result.reshape(*values.shape[:dim], len(matrix), *values.shape[dim + 1 :])
