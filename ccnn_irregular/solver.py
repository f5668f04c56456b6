"""``Solver``: the engine of a layer and the error it may make, as one value."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from ccnn_irregular._checks import require
from ccnn_irregular.domains import Domain
from ccnn_irregular.kernels import Kernel
from ccnn_irregular.operators import Plan, convolve, make_plan, require_engine

__all__ = ["Solver"]


# Not @final: jsonargparse takes no value of a final class for the default of an argument.
@dataclass(frozen=True)
class Solver:
    """How layers evaluate their sums: an engine, and the relative error it may make.

    Args:
        engine: a name in ``ENGINES``, or "auto" for the cheapest that suits.
        rtol: relative error that "spectral", or another engine whose ``error`` is not 0, may make; others are exact.

    Raises:
        ValueError: an unknown engine, an error that does not lie between 0 and 1.
    """

    engine: str = "auto"
    rtol: float = 1e-3

    def __post_init__(self) -> None:
        require_engine(self.engine, "solver.engine")
        require(0 < self.rtol < 1, "solver.rtol", "lie between 0 and 1", self.rtol)

    @classmethod
    def shared(cls, solvers: Iterable[Solver]) -> Solver:
        """For a plan that layers of these solvers share: the engine of the first, and the least error of all."""
        first, *others = solvers
        return cls(first.engine, min([first.rtol, *(other.rtol for other in others)]))

    def convolve(
        self, kernel: Kernel, values: Tensor, source: Domain, query: Domain | None = None, plan: Plan | None = None
    ) -> Tensor:
        """See ``ccnn_irregular.convolve``."""
        return convolve(kernel, values, source, query, engine=self.engine, rtol=self.rtol, plan=plan)

    def plan(
        self, kernel: Kernel | Sequence[Kernel], source: Domain, query: Domain | None = None, *, batch: int = 1
    ) -> Plan:
        """See ``ccnn_irregular.make_plan``."""
        return make_plan(kernel, source, query, engine=self.engine, rtol=self.rtol, batch=batch)
