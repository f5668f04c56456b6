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

__all__ = ["Nodes", "UniformSum", "repeated", "stretches"]

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

    @cached_property
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

    @cached_property
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

    @cached_property
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
        whole = self.nodes.whole
        return fast_length(self.nodes.count + self.count - 1) if whole is None or whole < self.count else whole

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

    @cached_property
    def mirrored(self) -> bool:
        """Whether the sums are those of nodes that mirror each other, ``folded``, by a real matrix."""
        return self.dense and self.nodes.about_zero

    def to_modes(self, values: Tensor, dim: int) -> Tensor:
        """Values at the nodes along ``dim``, counted from the end, to modes; real ones along the last axis only."""
        if self.mirrored and not values.is_complex():
            return self._real_to_modes(values)
        return self.modes_of_folded(self.folded(values, dim), dim)

    def at_nodes(self, modes: Tensor, dim: int) -> Tensor:
        """Modes along ``dim``, counted from the end, to complex values at the nodes; the adjoint of ``to_modes``."""
        return self.unfolded(self.folded_at_nodes(modes, dim), dim)

    def folded(self, values: Tensor, dim: int) -> Tensor:
        """Sums and differences of complex values at nodes that mirror each other; as they are where that is no use."""
        if not self.mirrored:
            return values
        below, middle, above = values.split(self._parts, dim)
        above = above.flip(dim)
        return torch.cat([below + above, middle, (below - above) * -1j], dim)

    def unfolded(self, values: Tensor, dim: int) -> Tensor:
        """The adjoint of ``folded``, with which it commutes along different axes."""
        if not self.mirrored:
            return values
        even, middle, odd = values.split(self._parts, dim)
        odd = odd * 1j
        return torch.cat([even + odd, middle, (even - odd).flip(dim)], dim)

    def modes_of_folded(self, values: Tensor, dim: int) -> Tensor:
        """``to_modes`` of values that are folded already."""
        if self.mirrored:
            return _product(self._waves, values, dim)
        if self.dense and values.is_complex():
            return _product(self._conjugate, values, dim)
        if self.dense:
            # One real product, whose columns are real and imaginary parts in turn.
            pairs = torch.view_as_real(self._conjugate.T.contiguous()).flatten(1)
            return torch.view_as_complex((values @ pairs).unflatten(-1, (-1, 2)))
        values, whole = values.movedim(dim, -1), self.nodes.whole
        if whole is None:
            return self._chirped_back(values).movedim(-1, dim)
        if not values.is_complex() and self.first == 0 and 2 * (self.count - 1) <= whole:
            modes = torch.fft.rfft(values, n=whole)[..., : self.count]
        else:
            modes = torch.fft.fft(values, n=whole)[..., self._modes % whole]
        return (modes if self._turns is None else modes * self._turns.conj()).movedim(-1, dim)

    def folded_at_nodes(self, modes: Tensor, dim: int) -> Tensor:
        """``at_nodes`` before it is unfolded."""
        if self.dense:
            return _product(self._waves.T if self.mirrored else self._conjugate.mH, modes, dim)
        modes, whole = modes.movedim(dim, -1), self.nodes.whole
        if whole is None or whole < self.count:
            return self._chirped(modes).movedim(-1, dim)
        modes = modes if self._turns is None else modes * self._turns
        circle = modes.new_zeros(*modes.shape[:-1], whole).index_copy(-1, self._modes % whole, modes)
        return torch.fft.ifft(circle, norm="forward")[..., : self.nodes.count].movedim(-1, dim)

    def shares(self, cells: int) -> Tensor:
        """What modes 0 to at most half of ``cells`` count for in a real sum: the other half mirrors them."""
        shares = torch.full((self.count,), 2.0, dtype=self.dtype.to_real(), device=self.device)
        shares[0] = 1.0
        if 2 * (self.count - 1) == cells:
            shares[-1] = 1.0
        return shares

    def real_at_nodes(self, modes: Tensor) -> Tensor:
        """The real part of ``at_nodes`` along the last axis."""
        if self.mirrored:
            cosines, sines = self._cosines_and_sines
            even, middle = (modes.real @ cosines).split(self._parts[:2], -1)
            odd = modes.imag @ sines
            return torch.cat([even - odd, middle, (even + odd).flip(-1)], -1)
        if not self.dense:
            return self.at_nodes(modes, -1).real
        pairs = torch.view_as_real(self._conjugate).movedim(-1, 1).flatten(0, 1)
        return torch.view_as_real(modes).flatten(-2) @ pairs

    def _real_to_modes(self, values: Tensor) -> Tensor:
        """Cosines make the real parts, sines the imaginary ones."""
        below, middle, above = values.split(self._parts, -1)
        above = above.flip(-1)
        cosines, sines = self._cosines_and_sines
        return torch.complex(torch.cat([below + above, middle], -1) @ cosines.T, (above - below) @ sines.T)

    @property
    def _cosines_and_sines(self) -> tuple[Tensor, ...]:
        return self._waves.split([self.nodes.count - self._parts[0], self._parts[0]], 1)

    @cached_property
    def _parts(self) -> list[int]:
        """Numbers of nodes below, at and above the middle."""
        half = self.nodes.count // 2
        return [half, self.nodes.count - 2 * half, half]

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

    @cached_property
    def _turns(self) -> Tensor | None:
        """What the first node's place turns each mode by; None where it lies at 0."""
        return self._phases(self._modes.double() * self.nodes.first, 1) if self.nodes.first else None

    def _chirped(self, modes: Tensor) -> Tensor:
        """Modes along the last axis to nodes, by a convolution with a chirp."""
        before, after, chirp = self._chirp
        result = torch.fft.ifft(torch.fft.fft(modes * before, n=self.length) * chirp)
        return result[..., self.count - 1 : self.count - 1 + self.nodes.count] * after

    def _chirped_back(self, values: Tensor) -> Tensor:
        """The adjoint: the same steps from the last to the first."""
        before, after, chirp = self._chirp
        placed = torch.nn.functional.pad(values * after.conj(), [self.count - 1, 0])
        result = torch.fft.ifft(torch.fft.fft(placed, n=self.length) * chirp.conj())
        return result[..., : self.count] * before.conj()

    @cached_property
    def _chirp(self) -> tuple[Tensor, Tensor, Tensor]:
        """Factors of modes and of nodes, and the transform of the chirp between them.

        The turns (k0 + l) (t0 + step j) of mode l and node j are k0 t0 + l t0 + k0 step j and the product step l j.
        """
        step, count = self.nodes.step, self.nodes.count
        a, b = self._counted(self.count), self._counted(count)
        apart = torch.arange(1 - self.count, count, dtype=torch.float64, device=self.device)
        before = self._phases(a * self.nodes.first + 0.5 * step * a * a, 1)
        after = self._phases(self.first * (self.nodes.first + b * step) + 0.5 * step * b * b, 1)
        return before, after, torch.fft.fft(self._phases(0.5 * step * apart * apart, -1), n=self.length)


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


def repeated(modes: Tensor, counts: Sequence[int]) -> Tensor:
    """Modes along the last axes, again and again until there are as many as ``counts``."""
    for dim, count in enumerate(counts, -len(counts)):
        size = modes.shape[dim]
        if size < count:
            modes = torch.cat([modes] * (-(-count // size)), dim).narrow(dim, 0, count)
    return modes


def stretches(sizes: Sequence[int], counts: Sequence[int]) -> Iterator[tuple[Any, Any]]:
    """Indices of modes that are ``sizes`` and repeat, and of the stretch of ``counts`` modes that each time meets them.

    All of the first meet the first stretch.
    """
    axes = []
    for size, count in zip(sizes, counts, strict=True):
        starts = range(0, count, size)
        axes.append([(slice(0, min(size, count - start)), slice(start, min(start + size, count))) for start in starts])
    for stretch in itertools.product(*axes):
        yield (..., *(ours for ours, _ in stretch)), (..., *(theirs for _, theirs in stretch))
