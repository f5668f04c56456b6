"""Discrete Fourier sums between uniform nodes and consecutive modes of a circle, axis by axis.

    to_modes:  X_k = sum_j x_j exp(-2 pi i k t_j)
    at_nodes:  y_m = sum_k X_k exp(+2 pi i k t_m)

The nodes t = first + step j need not divide the circle, so neither direction is an FFT. Short sums are products with a
matrix; where the nodes lie about 0 it is a real one, for sums and differences of nodes that mirror each other, which
is half of the work. Long sums are FFTs where the nodes divide the circle, and else a chirp (Bluestein 1970): with
k j = (k^2 + j^2 - (k - j)^2) / 2 the sum becomes a convolution. All are exact up to rounding, and differentiable.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ccnn_irregular.operators.numerics.transforms import fast_length

__all__ = ["Nodes", "UniformSum", "repeated", "times"]

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

    @property
    def centre(self) -> float:
        """Place of their middle."""
        return self.first + 0.5 * self.step * (self.count - 1)

    def about(self, place: float) -> Nodes:
        """The same nodes with their middle at ``place``."""
        return replace(self, first=place - 0.5 * self.step * (self.count - 1))

    @property
    def about_zero(self) -> bool:
        """Whether each node has its mirror image."""
        return self.first == self.about(0.0).first


@dataclass(frozen=True)
class UniformSum:
    """Sums between nodes and the modes ``first .. first + count - 1``, along one axis.

    Attributes:
        nodes: where values are.
        first, count: the modes.
        device: of the tensors.
        dtype: complex dtype of the sums.
        turned: after so many modes the sign changes, and back after so many more; 0 = never.
    """

    nodes: Nodes
    first: int
    count: int
    device: torch.device
    dtype: torch.dtype
    turned: int = 0

    @property
    def dense(self) -> bool:
        """Whether a matrix is the faster way."""
        return self.nodes.count * self.count <= _MOST_ENTRIES

    @property
    def multiply_adds(self) -> float:
        """Real multiply-adds of the sum for one complex column, as a matrix; 0 for a transform."""
        return (2.0 if self.nodes.about_zero else 4.0) * self.nodes.count * self.count if self.dense else 0.0

    @property
    def length(self) -> int:
        """Length of the transforms that take the matrix's place."""
        return self.nodes.whole or fast_length(self.nodes.count + self.count - 1)

    @cached_property
    def distinct(self) -> UniformSum:
        """The sum to those of its modes from which on they repeat, or their negatives (``alternating``)."""
        whole = self.nodes.whole
        if whole is None or not (self.nodes.first == 0 or self.nodes.about_zero) or whole >= self.count:
            return self
        return replace(self, count=whole)

    @property
    def alternating(self) -> int:
        """Number of modes after which their negatives follow; 0 = they do not."""
        shifted = self.nodes.first != 0 and self.nodes.count % 2 == 0
        return self.distinct.count if shifted and self.distinct.count < self.count else 0

    def to_modes(self, values: Tensor, dim: int) -> Tensor:
        """Values at the nodes along ``dim``, counted from the end, to modes; real ones along the last axis only."""
        if self.dense and values.is_complex():
            return self._folded(values, dim) if self.nodes.about_zero else _product(self._conjugate, values, dim)
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
            return self._unfolded(modes, dim) if self.nodes.about_zero else _product(self._conjugate.mH, modes, dim)
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

    def _folded(self, values: Tensor, dim: int) -> Tensor:
        half = self.nodes.count // 2
        below, middle, above = values.split([half, self.nodes.count - 2 * half, half], dim)
        above = above.flip(dim)
        folded = torch.cat([below + above, middle, (below - above) * -1j], dim)
        return _product(self._waves, folded, dim)

    def _unfolded(self, modes: Tensor, dim: int) -> Tensor:
        half = self.nodes.count // 2
        even, middle, odd = _product(self._waves.T, modes, dim).split([half, self.nodes.count - 2 * half, half], dim)
        odd = odd * 1j
        return torch.cat([even + odd, middle, (even - odd).flip(dim)], dim)

    @cached_property
    def _waves(self) -> Tensor:
        """Cosines at the nodes up to the middle and sines at those before it, ``(modes, nodes)``; real."""
        below = self.nodes.first + self.nodes.step * self._counted(self.nodes.count // 2)
        waves = self._phases(self._modes[:, None] * below, 1)
        middle = waves.real.new_ones(self.count, self.nodes.count % 2)
        signs = 1.0 - 2.0 * (torch.arange(self.count, device=self.device) // (self.turned or self.count) % 2)
        return torch.cat([waves.real, middle, waves.imag], 1) * signs.to(middle)[:, None]

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
        # Whole turns are taken off in float64; waves of the rest in float32 take an eighth of the time.
        angle = ((turns - turns.round()) * (sign * 2 * math.pi)).to(self.dtype.to_real())
        return torch.complex(angle.cos(), angle.sin())

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
    """A matrix, complex or real, times complex values along ``dim``."""
    if dim == -1:
        return values @ matrix.to(values.dtype).T
    before = math.prod(values.shape[:dim])
    columns = values.reshape(before, values.shape[dim], math.prod(values.shape[dim + 1 :]))
    if not matrix.is_complex():  # real and imaginary parts are columns of their own
        columns = torch.view_as_real(columns.resolve_conj()).flatten(2)
    result = torch.bmm(matrix.expand(before, *matrix.shape), columns)
    if not matrix.is_complex():
        result = torch.view_as_complex(result.unflatten(2, (-1, 2)))
    return result.reshape(*values.shape[:dim], len(matrix), *values.shape[dim + 1 :])


def times(spectrum: Tensor, transfer: Tensor) -> Tensor:
    """The product of modes ``(B, C, *modes)`` that repeat with a kernel's ``(C, *more)``, differentiable twice.

    Nothing is repeated in memory: each stretch of the kernel's modes meets the same modes of the values.
    """
    return _Product.apply(spectrum, transfer)


def repeated(modes: Tensor, counts: Sequence[int]) -> Tensor:
    """Modes along the last axes, again and again until there are as many as ``counts``."""
    for dim, count in enumerate(counts, -len(counts)):
        size = modes.shape[dim]
        if size < count:
            modes = torch.cat([modes] * (-(-count // size)), dim).narrow(dim, 0, count)
    return modes


class _Product(torch.autograd.Function):
    """The product of modes that repeat with a kernel's."""

    @staticmethod
    def forward(ctx: Any, spectrum: Tensor, transfer: Tensor) -> Tensor:
        ctx.save_for_backward(spectrum, transfer)
        result = transfer.new_empty(len(spectrum), *transfer.shape)
        for ours, theirs in _stretches(spectrum, transfer):
            torch.mul(spectrum[ours], transfer[theirs], out=result[theirs])
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (spectrum, transfer), (gradient,) = ctx.saved_tensors, gradients
        if torch.is_grad_enabled():  # a gradient of gradients is wanted
            whole = repeated(spectrum, transfer.shape[1:])
            along_modes = _summed_repeats(gradient * transfer.conj(), spectrum.shape[2:])
            return along_modes, (gradient * whole.conj()).sum(0)
        along_modes = along_transfer = None
        if ctx.needs_input_grad[0]:
            along_modes = torch.zeros_like(spectrum)
            for ours, theirs in _stretches(spectrum, transfer):
                along_modes[ours].addcmul_(gradient[theirs], transfer[theirs].conj_physical())
        if ctx.needs_input_grad[1]:
            conjugate, along_transfer = spectrum.conj_physical(), torch.empty_like(transfer)
            for ours, theirs in _stretches(spectrum, transfer):
                torch.mul(gradient[0][theirs], conjugate[0][ours], out=along_transfer[theirs])
                for entry in range(1, len(spectrum)):
                    along_transfer[theirs].addcmul_(gradient[entry][theirs], conjugate[entry][ours])
        return along_modes, along_transfer


def _stretches(spectrum: Tensor, transfer: Tensor) -> Iterator[tuple[Any, Any]]:
    """Indices of stretches of a kernel's modes, and of the values' modes that they meet."""
    axes = []
    for size, count in zip(spectrum.shape[2:], transfer.shape[1:], strict=True):
        starts = range(0, count, size)
        axes.append([(slice(0, min(size, count - start)), slice(start, min(start + size, count))) for start in starts])
    for stretch in itertools.product(*axes):
        yield (..., *(ours for ours, _ in stretch)), (..., *(theirs for _, theirs in stretch))


def _summed_repeats(modes: Tensor, sizes: Sequence[int]) -> Tensor:
    """The adjoint of ``repeated``."""
    for dim, size in enumerate(sizes, -len(sizes)):
        first, *others = modes.split(size, dim)
        for other in others:
            short = size - other.shape[dim]
            first = first + torch.cat([other, other.new_zeros(()).expand_as(first.narrow(dim, 0, short))], dim)
        modes = first
    return modes
