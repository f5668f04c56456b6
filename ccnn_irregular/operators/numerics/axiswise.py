"""The convolution between grids through modes, axis after axis: one function, with a backward pass of its own.

    values -> modes of the values, times modes of the kernel's taps -> values at the queries

What PyTorch would do in the backward pass, step by step, are the same sums in the other direction. Taken together they
need no copy of the modes, and channels pass one group after another, whose modes stay in the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ccnn_irregular.operators.numerics.uniform import UniformSum, repeated, stretches

__all__ = ["AxisWay", "convolved", "to_modes"]


# Share of the places that are drawn evenly, wherever a kernel is large.
_EVENLY = 0.2
_GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Draw:
    """A few places along an axis.

    Attributes:
        places: float64 ``(n,)``, offsets, coordinate units.
        weights: what each stands for in a sum over places one tap apart, float64.
        from_taps: float64 ``(n, taps)``, times taps: what their modes make at the places.
    """

    places: Tensor
    weights: Tensor
    from_taps: Tensor


@dataclass(frozen=True)
class AxisWay:
    """One axis of a pair of grids.

    Attributes:
        kept: nodes of the source within reach of the queries.
        source, taps, query: sums between their nodes and the modes of one circle.
        offsets: of the taps, float64, coordinate units.
        band: whether the modes end where the kernel's spectrum does; else on a lattice.
    """

    kept: range
    source: UniformSum
    taps: UniformSum
    query: UniformSum
    offsets: Tensor
    band: bool

    @property
    def modes(self) -> int:
        """Number of modes."""
        return self.source.count

    @property
    def cells(self) -> int:
        """Number of taps that go round the circle."""
        return round(1 / self.taps.nodes.step)

    def drawn(self, energy: Tensor, count: int) -> Draw:
        """Places at and between the taps, the same in every call, most where a kernel's ``energy`` ``(taps,)`` is."""
        share = energy.to(torch.float64)
        share = torch.lerp(
            share / share.sum().clamp(min=torch.finfo(torch.float64).tiny), torch.ones_like(share) / len(share), _EVENLY
        )
        number = torch.arange(count, dtype=torch.float64, device=share.device)
        chosen = torch.searchsorted(share.cumsum(0), (number + 0.5) * share.sum() / count).clamp(max=len(share) - 1)
        within = (number * _GOLDEN).frac() - 0.5 if self.band else torch.zeros_like(number)
        apart = (chosen + within)[:, None] - torch.arange(len(share), device=share.device)
        places = self.offsets[0] + (chosen + within) * self._tap_step
        return Draw(places, 1 / (count * share[chosen]), self._between(apart))

    def source_lags(self, phases: int) -> Draw:
        """All lags of the source's nodes within the taps from queries at a few places between them, ``(phases, n)``."""
        count, device = len(self.offsets), self.offsets.device
        if not self.band:
            places = torch.arange(count, dtype=torch.float64, device=device).expand(phases, count)
        else:
            step = self.source.nodes.step * self.cells
            first = torch.arange(phases, dtype=torch.float64, device=device)[:, None] * (step * _GOLDEN) % step
            places = first + step * torch.arange(int(count / step) + 1, dtype=torch.float64, device=device)
        apart = places.flatten()[:, None] - torch.arange(count, device=device)
        offsets = self.offsets[0] + places.flatten() * self._tap_step
        return Draw(offsets, torch.ones_like(offsets), self._between(apart))

    @property
    def _tap_step(self) -> float:
        return float(self.offsets[1] - self.offsets[0]) if len(self.offsets) > 1 else 0.0

    def _between(self, apart: Tensor) -> Tensor:
        """What the modes make, so many taps away, of a tap that is 1 among others that are 0."""
        if not self.band:
            return (apart == 0).to(apart)
        both = 2 * (self.source.first + self.source.count) - 1  # modes of either sign
        turns = apart * (torch.pi / self.cells)
        waves = torch.where(apart == 0, both, (both * turns).sin() / turns.sin())
        return waves / self.cells


def to_modes(values: Tensor, sums: Sequence[UniformSum]) -> Tensor:
    """Real values ``(..., *sizes)`` to modes: all along the last axis, along the others those before any repeats."""
    values, dims = sums[-1].to_modes(values, -1), range(-2, -len(sums) - 1, -1)
    for dim in dims:  # while the array is small
        values = sums[dim].distinct.folded(values, dim)
    for dim in dims:
        values = sums[dim].distinct.modes_of_folded(values, dim)
    return values


def _from_modes(modes: Tensor, sums: Sequence[UniformSum]) -> Tensor:
    """The adjoint of ``to_modes``."""
    for dim in range(-len(sums), -1):
        modes = sums[dim].distinct.folded_at_nodes(modes, dim)
    for dim in range(-len(sums), -1):
        modes = sums[dim].distinct.unfolded(modes, dim)
    return sums[-1].real_at_nodes(modes)


def convolved(rows: Tensor, taps: Tensor, parts: Sequence[Tensor], ways: Sequence[AxisWay]) -> Tensor:
    """Values ``(B, C, *sizes)`` convolved with taps, at the queries ``(B, D, *sizes)``; differentiable twice.

    Args:
        rows: real values at the source.
        taps: of the kernel over the number of circles' cells, ``(D, *taps)`` if depthwise, else ``(D, C, *taps)``.
        parts: their modes, a group of channels of the result each.
        ways: one per axis.
    """
    return _Convolved.apply(rows, taps, tuple(parts), tuple(ways))


class _Convolved(torch.autograd.Function):
    """Values and taps to values at the queries."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, taps: Tensor, parts: tuple[Tensor, ...], ways: tuple[AxisWay, ...]) -> Tensor:
        kept, sources = _kept(rows, ways), [way.source for way in ways]
        result = rows.new_empty(len(rows), len(taps), *(way.query.nodes.count for way in ways))
        if _is_depthwise(taps, ways):
            spectra = [to_modes(own, sources) for own in kept.split([len(part) for part in parts], 1)]
        else:
            spectra = [repeated(to_modes(kept, sources), [way.modes for way in ways])] * len(parts)
        for spectrum, part, own in zip(spectra, parts, result.split([len(part) for part in parts], 1), strict=True):
            own.copy_(_at_queries(_product(spectrum, part, ways), ways))
        ctx.save_for_backward(rows, taps, *spectra, *parts)
        ctx.ways = ways
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        (rows, taps, *saved), (gradient,), ways = ctx.saved_tensors, gradients, ctx.ways
        needed = ctx.needs_input_grad[:2]
        wanted = [one for one, asked in zip((rows, taps), needed, strict=True) if asked]
        if torch.is_grad_enabled():  # a gradient of gradients is wanted
            found = iter(torch.autograd.grad(_composed(rows, taps, ways), wanted, gradient, create_graph=True))
            by_rows, by_taps = (next(found) if asked else None for asked in needed)
            return by_rows, by_taps, None, None
        spectra, parts = saved[: len(saved) // 2], saved[len(saved) // 2 :]
        along_rows, along_taps = (torch.zeros_like(one) if asked else None
                                  for one, asked in zip((rows, taps), needed, strict=True))  # fmt: skip
        depthwise, start = _is_depthwise(taps, ways), 0
        for spectrum, part in zip(spectra, parts, strict=True):
            own = slice(start, start + len(part))
            start += len(part)
            modes = _of_queries(gradient[:, own], ways)
            if along_taps is not None:
                along_taps[own] = _from_modes(_along_transfer(modes, spectrum, depthwise), [way.taps for way in ways])
            if along_rows is not None:
                along = _from_modes(_along_modes(modes, part, spectrum, ways), [way.source for way in ways])
                _kept(along_rows, ways)[:, own if depthwise else slice(None)] += along
        return along_rows, along_taps, None, None


def _composed(rows: Tensor, taps: Tensor, ways: Sequence[AxisWay]) -> Tensor:
    """The same in operations that PyTorch differentiates."""
    modes = repeated(to_modes(_kept(rows, ways), [way.source for way in ways]), [way.modes for way in ways])
    return _at_queries(_product(modes, to_modes(taps, [way.taps for way in ways]), ways), ways)


def _kept(rows: Tensor, ways: Sequence[AxisWay]) -> Tensor:
    return rows[(slice(None), slice(None), *(slice(way.kept.start, way.kept.stop) for way in ways))]


def _is_depthwise(taps: Tensor, ways: Sequence[AxisWay]) -> bool:
    return taps.ndim == len(ways) + 1


def _product(spectrum: Tensor, transfer: Tensor, ways: Sequence[AxisWay]) -> Tensor:
    """Modes of the result, ``(B, D, *modes)``; nothing that repeats is repeated in memory."""
    if not _is_depthwise(transfer, ways):
        return torch.einsum("bc...,dc...->bd...", spectrum, transfer)
    if spectrum.shape[2:] == transfer.shape[1:]:
        return spectrum * transfer
    result = transfer.new_empty(len(spectrum), *transfer.shape)
    for ours, theirs in stretches(spectrum.shape[2:], transfer.shape[1:]):
        torch.mul(spectrum[ours], transfer[theirs], out=result[theirs])
    return result


def _at_queries(modes: Tensor, ways: Sequence[AxisWay]) -> Tensor:
    """Modes ``(..., *modes)`` of a result to its values at the queries, the last axis at the end."""
    for dim, way in enumerate(ways[:-1], -len(ways)):
        modes = way.query.folded_at_nodes(modes, dim)
    for dim, way in enumerate(ways[:-1], -len(ways)):
        modes = way.query.unfolded(modes, dim)
    return ways[-1].query.real_at_nodes(modes * ways[-1].query.shares(ways[-1].cells))


def _of_queries(gradient: Tensor, ways: Sequence[AxisWay]) -> Tensor:
    """The adjoint of ``_at_queries``."""
    modes = ways[-1].query.to_modes(gradient, -1) * ways[-1].query.shares(ways[-1].cells)
    for dim in range(-2, -len(ways) - 1, -1):
        modes = ways[dim].query.folded(modes, dim)
    for dim in range(-2, -len(ways) - 1, -1):
        modes = ways[dim].query.modes_of_folded(modes, dim)
    return modes


def _along_transfer(gradient: Tensor, spectrum: Tensor, depthwise: bool) -> Tensor:
    """Gradient along a kernel's modes."""
    conjugate = spectrum.conj_physical()
    if not depthwise:
        return torch.einsum("bd...,bc...->dc...", gradient, conjugate)
    result = torch.empty_like(gradient[0])
    for ours, theirs in stretches(spectrum.shape[2:], gradient.shape[2:]):
        torch.mul(gradient[0][theirs], conjugate[0][ours], out=result[theirs])
        for entry in range(1, len(spectrum)):
            result[theirs].addcmul_(gradient[entry][theirs], conjugate[entry][ours])
    return result


def _along_modes(gradient: Tensor, transfer: Tensor, spectrum: Tensor, ways: Sequence[AxisWay]) -> Tensor:
    """Gradient along the modes of the values, the repeats added up; overwrites the gradient."""
    gradient = gradient.conj_physical_()
    if not _is_depthwise(transfer, ways):
        result = torch.einsum("bd...,dc...->bc...", gradient, transfer)
        return _summed(result, [way.source.distinct.count for way in ways[:-1]] + [ways[-1].modes]).conj_physical_()
    result = torch.empty_like(spectrum)
    for number, (ours, theirs) in enumerate(stretches(spectrum.shape[2:], gradient.shape[2:])):
        if number:
            result[ours].addcmul_(gradient[theirs], transfer[theirs])
        else:
            torch.mul(gradient[theirs], transfer[theirs], out=result[ours])
    return result.conj_physical_()


def _summed(modes: Tensor, sizes: Sequence[int]) -> Tensor:
    """The adjoint of ``repeated``."""
    first: Any = (..., *(slice(size) for size in sizes))
    result = torch.zeros_like(modes[first])
    for ours, theirs in stretches(sizes, modes.shape[-len(sizes) :]):
        result[ours] += modes[theirs]
    return result
