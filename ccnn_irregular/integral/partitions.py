"""Where on [0, 1] an axis of channels is sampled, and the weights with which samples are summed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self, final

import numpy as np
import torch
from torch import Tensor, nn

from ccnn_irregular import _registry
from ccnn_irregular._checks import require
from ccnn_irregular.integral.interpolation import INTERPOLATIONS
from ccnn_irregular.quadrature import gauss_legendre, midpoint, simpson, trapezoid

__all__ = ["RULES", "Partition", "Rule", "register_rule"]


@dataclass(frozen=True)
class Rule:
    """A quadrature of [0, 1] on a partition.

    Attributes:
        sample: from the lengths of the partition's intervals, which sum to 1, to positions and weights, float64.
        cells: whether positions lie inside intervals, as many as there are intervals; else they are the ends of the
            intervals, one more.
        learns: whether positions follow the intervals.
    """

    sample: Callable[[Tensor], tuple[Tensor, Tensor]]
    cells: bool
    learns: bool = True


def _ends(intervals: Tensor) -> Tensor:
    return torch.cat([intervals.new_zeros(1), intervals.cumsum(0)])


def _trapezoid(intervals: Tensor) -> tuple[Tensor, Tensor]:
    return _ends(intervals), trapezoid(_ends(intervals))


def _simpson(intervals: Tensor) -> tuple[Tensor, Tensor]:
    return _ends(intervals), simpson(_ends(intervals), allow_negative=True)


def _gauss_legendre(intervals: Tensor) -> tuple[Tensor, Tensor]:
    positions, weights = gauss_legendre(len(intervals), 0.0, 1.0)
    return positions.to(intervals.device), weights.to(intervals.device)


RULES: dict[str, Rule] = {}
"""All rules by name; what each integrates exactly is said in ``ccnn_irregular.quadrature``."""


def register_rule(name: str, rule: Rule) -> None:
    """Add a rule, which ``convert`` and ``Partition`` know by its name from then on.

    Raises:
        ValueError: a name that is no word in small letters, or that of another one.
    """
    _registry.add(RULES, "a rule", name, rule)


register_rule("midpoint", Rule(lambda intervals: midpoint(_ends(intervals)), cells=True))
register_rule("trapezoid", Rule(_trapezoid, cells=False))
register_rule("simpson", Rule(_simpson, cells=False))
register_rule("gauss_legendre", Rule(_gauss_legendre, cells=True, learns=False))


@final
class Partition(nn.Module):
    """Positions in [0, 1] at which functions of one axis are sampled, and their quadrature weights.

    The intervals are squares that are divided by their sum: sorted positions for any parameters, uniform to begin with.
    They are learned where ``learn()`` was called.

    Args:
        count: number of nodes that functions of this axis have; the size to begin with.
        rule: a name of ``RULES``.
        interpolation: a name of ``INTERPOLATIONS``.

    Attributes:
        roots: the parameter whose squares are the intervals' shares.
        is_whole: whether the samples are the nodes themselves.

    Raises:
        ValueError: names that are not known, or fewer nodes than the rule needs.
    """

    matrix: Tensor
    weights: Tensor

    def __init__(self, count: int, rule: str = "midpoint", interpolation: str = "cubic") -> None:
        super().__init__()
        _registry.require_known(RULES, "rule", rule)
        _registry.require_known(INTERPOLATIONS, "interpolation", interpolation)
        self.count = count
        self.rule = rule
        self.interpolation = interpolation
        self._require_size(count)
        self.roots = nn.Parameter(torch.ones(self._intervals_of(count), dtype=torch.float64), requires_grad=False)
        self.register_buffer("matrix", torch.empty(0), persistent=False)
        self.register_buffer("weights", torch.empty(0), persistent=False)
        self._store()

    @property
    def size(self) -> int:
        """Number of samples."""
        return len(self.roots) + (not RULES[self.rule].cells)

    @property
    def smallest(self) -> int:
        """Least number of samples."""
        return 1 if RULES[self.rule].cells else 2

    @property
    def learned(self) -> bool:
        """Whether the positions are learned."""
        return self.roots.requires_grad

    def intervals(self) -> Tensor:
        """Lengths of the intervals, float64, which sum to 1."""
        squares = self.roots.to(torch.float64).square()
        return squares / squares.sum()

    def positions(self) -> Tensor:
        """Where functions are sampled, float64 ``(size,)``, ascending."""
        return RULES[self.rule].sample(self.intervals())[0]

    def sampling(self) -> tuple[Tensor, Tensor]:
        """The values at all positions as a linear map of the nodes', ``(size, count)``, and relative weights.

        The weights ``(size,)`` are those of the rule times ``count``: about 1 at full size.
        """
        return self._sampling() if self.learned else (self.matrix, self.weights)

    def resize(self, size: int) -> None:
        """Take so many samples; a learned partition keeps its density.

        Raises:
            ValueError: fewer than the rule needs.
        """
        self._require_size(size)
        if size == self.size:
            return
        ends = np.concatenate([[0.0], self.intervals().detach().cpu().numpy().cumsum()])
        wanted = np.linspace(0, 1, self._intervals_of(size) + 1)
        shares = np.diff(np.interp(wanted, np.linspace(0, 1, len(ends)), ends)) * (len(wanted) - 1)
        self._set_roots(torch.from_numpy(np.sqrt(np.where(np.abs(shares - 1) < 1e-12, 1.0, shares))))

    def learn(self, learned: bool = True) -> None:
        """Learn the positions, or keep them as they are.

        Raises:
            ValueError: a rule that has its own positions.
        """
        require(not learned or RULES[self.rule].learns, "rule", "follow a partition to be learned", repr(self.rule))
        self.roots.requires_grad_(learned)
        self._store()

    def extra_repr(self) -> str:
        return f"{self.size} samples of {self.count} nodes, rule={self.rule!r}, interpolation={self.interpolation!r}"

    def _intervals_of(self, size: int) -> int:
        return size if RULES[self.rule].cells else size - 1

    def _require_size(self, size: int) -> None:
        require(size >= self.smallest, "size", f"be at least {self.smallest} for rule {self.rule!r}", size)

    def _sampling(self) -> tuple[Tensor, Tensor]:
        rule = RULES[self.rule]
        positions, weights = rule.sample(self.intervals())
        places = positions * self.count - 0.5 if rule.cells else positions * (self.count - 1)
        return INTERPOLATIONS[self.interpolation].matrix(places, self.count), weights * self.count

    @torch.no_grad()
    def _store(self) -> None:
        """Keep what does not change until the next size."""
        self.matrix, self.weights = self._sampling()
        even = not self.learned and bool((self.roots == self.roots[0]).all())
        self.is_whole = even and self.size == self.count and self.rule != "gauss_legendre"

    def _set_roots(self, roots: Tensor) -> None:
        self.roots = nn.Parameter(roots.to(self.roots), requires_grad=self.learned)
        self._store()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # A checkpoint may be of another size: it brings it along.
        stored = state_dict.get(f"{prefix}roots")
        if stored is not None and stored.shape != self.roots.shape:
            self._set_roots(stored)
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._store()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # Positions are float64 whatever the dtype of the parameters.
        before = self.roots.data
        super()._apply(fn, recurse)
        self.roots.data = before.to(self.roots.device)
        self._store()
        return self
