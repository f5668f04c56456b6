"""What an engine is: three methods that count, prepare and evaluate y(q) = sum_n w_n K(q - p_n) x_n."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from ccnn_irregular._checks import reject, require
from ccnn_irregular.domains import Domain, Points, shares_memory
from ccnn_irregular.kernels import Kernel
from ccnn_irregular.operators.arguments import CHARACTER, check_periods, check_result, check_values
from ccnn_irregular.operators.check import CheckReport, ToleranceError, measure_error, require_count
from ccnn_irregular.operators.planning.rates import Rates, Work

__all__ = ["Cost", "Engine", "Plan"]


@dataclass(frozen=True)
class _Planned:
    """A tensor of a domain as it was when a plan was made.

    Attributes:
        points: the domain, or a product's irregular factor.
        name: name of its attribute that holds the tensor.
        side: "source" or "query".
        tensor: what the attribute held.
        version: how often PyTorch had changed the tensor in place, None where it does not count.
        learned: whether it required a gradient.
        values: a copy where the tensor may be written without PyTorch's counting, as some optimisers do; else None.
    """

    points: Points
    name: str
    side: str
    tensor: Tensor
    version: int | None
    learned: bool
    values: Tensor | None

    @classmethod
    def of(cls, points: Points, name: str, side: str) -> _Planned:
        """As it is now."""
        tensor: Tensor = getattr(points, name)
        counted = not (tensor.requires_grad or tensor.is_inference() or shares_memory(tensor))
        values = None if counted else tensor.detach().clone()
        return cls(points, name, side, tensor, _version(tensor), tensor.requires_grad, values)

    def require_unchanged(self) -> None:
        """Refuse to go on where the tensor is another one, holds other numbers, or is learned only now."""
        now: Tensor = getattr(self.points, self.name)
        same = now is self.tensor and _version(now) == self.version and now.requires_grad <= self.learned
        if not same or (self.values is not None and not torch.equal(now.detach(), self.values)):
            rule = f"be made anew (make_plan) when the {self.name} of its {self.side} change"
            reject("plan", rule, f"{self.name} that moved, or began to require a gradient, since it was made")


def _version(tensor: Tensor) -> int | None:
    return None if tensor.is_inference() else tensor._version


@dataclass(frozen=True)
class Plan:
    """Geometry of one convolution, made once and shared by every layer between the same two domains.

    A plan knows what it was made for and refuses all else, by name, before anything is computed: domains whose
    coordinates have moved since, a smaller rtol than it was made for, a kernel that reaches farther than planned, or is
    of another kind than the engine's geometry holds for.

    Attributes:
        runner: the engine it was made for.
        source: where values are given.
        query: where the result is wanted.
        geometry: what the engine precomputed; its own business.
        rtol: relative error it was made for; engines that are exact serve any.
        character: what kernels must have in common with those it was made for, see ``CHARACTER``.
    """

    runner: Engine
    source: Domain
    query: Domain
    geometry: Any = field(repr=False)
    rtol: float = 1e-3
    character: Mapping[str, object] = field(default_factory=dict, repr=False)
    _planned: tuple[_Planned, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        sides = {"source": self.source} | ({} if self.query is self.source else {"query": self.query})
        planned = [_Planned.of(*one, side) for side, domain in sides.items() for one in _tensors(domain)]
        object.__setattr__(self, "_planned", tuple(planned))

    def __repr__(self) -> str:
        where = f"at {self.source!r}" if self.query is self.source else f"from {self.source!r} to {self.query!r}"
        return f"Plan({self.engine!r}, {where}, rtol={self.rtol:g})"

    @property
    def engine(self) -> str:
        """Name of the engine it was made for."""
        return self.runner.name

    @property
    def state(self) -> tuple[tuple[int, int | None], ...]:
        """Which tensors it was made from, and how often each had been changed in place."""
        return tuple((id(one.tensor), one.version) for one in self._planned)

    @property
    def learned(self) -> bool:
        """Whether places or weights were learned that it was made from."""
        return any(one.learned for one in self._planned)

    def convolve(self, kernel: Kernel, values: Tensor) -> Tensor:
        """The convolution of values on ``source``, at ``query``; see ``ccnn_irregular.convolve``."""
        self._require_fit(kernel, values)
        return self.runner.apply(kernel, values, self)

    def require_rtol(self, rtol: float) -> None:
        """Refuse a smaller error than the plan was made for."""
        rule = f"be made for rtol {rtol:g} or less, make_plan(..., rtol={rtol:g})"
        require(self.runner.error(self.rtol) <= rtol, "plan", rule, f"one made for rtol {self.rtol:g}")

    def _require_fit(self, kernel: Kernel, values: Tensor) -> None:
        """Refuse arguments that do not fit the plan, and domains that are not what it was made for."""
        require(self.source.d == kernel.d, "plan", f"have the kernel's {kernel.d} axes", self.source.d)
        for domain in (self.source, self.query):
            domain.require_current()
        for one in self._planned:
            one.require_unchanged()
        check_values(kernel, values, self.source, self.query)
        check_periods(kernel, self.source)
        for what, planned in self.character.items():
            given = CHARACTER[what](kernel)
            require(given == planned, "plan", f"be made with a kernel of the same {what}, now {given}", planned)

    def check(
        self,
        kernel: Kernel,
        values: Tensor,
        result: Tensor | None = None,
        *,
        n: int = 64,
        rtol: float | None = None,
        generator: torch.Generator | None = None,
    ) -> CheckReport:
        """Compare a result with the sum itself, in float64, at random queries spread evenly over the samples.

        It costs ``n`` times the number of sources in evaluations of the kernel, in blocks, whatever the engine.

        Args:
            kernel: as for ``convolve``.
            values: as for ``convolve``.
            result: what the convolution gave, if at hand; None = convolve once more.
            n: number of queries; on grids each is checked in every entry. All of them where there are no more.
            rtol: largest error allowed; None = the plan's.
            generator: draws the queries; None = others in every call, without spending a seed of PyTorch's.

        Returns:
            The largest error found, and where: see ``CheckReport``.

        Raises:
            ToleranceError: the error is above ``rtol``, or the result is not finite; its ``report`` says more.
            ValueError: as ``convolve``.
        """
        rtol = self.rtol if rtol is None else rtol
        require(0 < rtol < 1, "rtol", "lie between 0 and 1", rtol)
        require_count("n", n)
        if result is None:
            with torch.no_grad():
                result = self.convolve(kernel, values)
        else:
            self._require_fit(kernel, values)
            check_result(kernel, values, result, self.source, self.query)
        report = measure_error(
            kernel, values, self.source, self.query, result, engine=self.engine, rtol=rtol, n=n, generator=generator
        )
        if report.error > rtol:
            raise ToleranceError(report)
        return report


def _tensors(domain: Domain) -> list[tuple[Points, str]]:
    """The tensors that a geometry may have been computed from. Weights of points are read anew in every call."""
    points = domain.irregular
    if points is None:
        return []
    names = ("coordinates", "splits") if domain.uniform is None else ("coordinates", "splits", "weights")
    return [(points, name) for name in names]


@dataclass(frozen=True)
class Cost:
    """What planning once, and one forward and one backward pass, are counted to take.

    Engines count operations; how long these take is a matter of the machine, see ``Rates``.

    Attributes:
        plan: work of the geometry, and of all else that is done once.
        forward: work of one forward pass.
        backward: work of one backward pass, to the values and every trained parameter.
        bytes: peak memory of planning, forward and backward beyond the values and the result; geometry included.
        note: what a user should know, or an empty string.
        study: what the engine found out on the way and ``prepare`` would otherwise find out again; its own business.

    Raises:
        ValueError: something else than counted operations, seconds, say.
    """

    plan: Work
    forward: Work
    backward: Work
    bytes: float
    note: str = ""
    study: Any = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        given: dict[str, object] = {"plan": self.plan, "forward": self.forward, "backward": self.backward}
        for name, work in given.items():
            if not isinstance(work, Work):
                rule = "be counted in operations, Work(call=..., pair=...): the machine says how long they take"
                reject(name, rule, work)
        if not self.forward.counts:
            reject("forward", "count the operations of a forward pass", self.forward)

    def seconds(self, rates: Rates) -> float:
        """Wall time of planning and of one forward and one backward pass."""
        return rates.seconds(self.plan) + rates.seconds(self.forward) + rates.seconds(self.backward)


class Engine(ABC):
    """One way to evaluate the convolution; all give the same answer.

    Attributes:
        name: key in ``ENGINES``.
        plan_follows_kernel: whether its geometry depends on the support or spectrum of the kernel it was made for;
            else one plan serves every kernel between the same domains.
        transformable: whether it is made of tensor operations that ``torch.func`` and forward-mode differentiation
            take. Of those that serve a case, the last one registered runs under them.
    """

    name: ClassVar[str]
    plan_follows_kernel: ClassVar[bool] = False
    transformable: ClassVar[bool] = False

    def error(self, rtol: float) -> float:
        """Relative error of its results where ``rtol`` is asked for; 0 = they differ from the sum by rounding only.

        The geometry of an engine that makes an error suits only kernels of the character it was made for.
        """
        return 0.0

    def refuses(self, kernel: Kernel, source: Domain, query: Domain) -> str | None:
        """Why it cannot serve this kernel between these domains, whatever error is allowed; None if it can."""
        return None

    def assess(self, kernel: Kernel, source: Domain, query: Domain, batch: int, rtol: float) -> Cost | str:
        """Cost, or the reason why the engine cannot serve.

        Args:
            kernel: the kernel.
            source, query: the domains.
            batch: number of entries on a grid.
            rtol: relative error an approximation may make.
        """
        return self.refuses(kernel, source, query) or self.cost(kernel, source, query, batch, rtol)

    def least_work(self, kernel: Kernel, source: Domain) -> Work:
        """Lower bound on the work for this kernel, without a look at the case.

        Where another engine takes less time, this one need not be assessed.
        """
        return Work()

    @abstractmethod
    def cost(self, kernel: Kernel, source: Domain, query: Domain, batch: int, rtol: float) -> Cost | str:
        """Cost in a case that ``refuses`` lets pass, or the reason why this ``rtol`` cannot be reached in it."""

    @abstractmethod
    def prepare(self, kernels: Sequence[Kernel], source: Domain, query: Domain, rtol: float, study: Any = None) -> Any:
        """Geometry part of a ``Plan`` that serves all of the kernels.

        ``study`` is what ``cost`` found out about these very arguments, or None.
        """

    @abstractmethod
    def apply(self, kernel: Kernel, values: Tensor, plan: Plan) -> Tensor:
        """The convolution; values and result in the domains' conventions."""
