"""What an engine is: three methods that evaluate y(q) = sum_n w_n K(q - p_n) x_n."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from ccnn_irregular._checks import require
from ccnn_irregular.domains import Domain
from ccnn_irregular.kernels import Kernel
from ccnn_irregular.operators.arguments import check_periods, check_result, check_values
from ccnn_irregular.operators.check import CheckReport, ToleranceError, measure_error, require_count

__all__ = ["Cost", "Engine", "Plan"]


@dataclass(frozen=True)
class Plan:
    """Geometry of one convolution, made once and shared by every layer between the same two domains.

    Attributes:
        runner: the engine it was made for.
        source: where values are given.
        query: where the result is wanted.
        geometry: what the engine precomputed; its own business.
        rtol: relative error it was made for; engines that are exact keep any.
    """

    runner: Engine
    source: Domain
    query: Domain
    geometry: Any = field(repr=False)
    rtol: float = 1e-3

    @property
    def engine(self) -> str:
        """Name of the engine it was made for."""
        return self.runner.name

    def convolve(self, kernel: Kernel, values: Tensor) -> Tensor:
        """The convolution of values on ``source``, at ``query``; see ``ccnn_irregular.convolve``."""
        check_values(kernel, values, self.source, self.query)
        check_periods(kernel, self.source)
        return self.runner.apply(kernel, values, self)

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
            check_values(kernel, values, self.source, self.query)
            check_result(kernel, values, result, self.source, self.query)
        report = measure_error(
            kernel, values, self.source, self.query, result, engine=self.engine, rtol=rtol, n=n, generator=generator
        )
        if report.error > rtol:
            raise ToleranceError(report)
        return report


@dataclass(frozen=True)
class Cost:
    """Predicted cost of planning once, and of one forward and one backward pass.

    Attributes:
        plan_seconds: wall time of the geometry, and of all else that is done once.
        forward_seconds: wall time of one forward pass.
        backward_seconds: wall time of one backward pass, to the values and every trained parameter.
        bytes: peak memory of planning, forward and backward beyond the values and the result; geometry included.
        note: what a user should know, or an empty string.
        study: what the engine found out on the way and ``prepare`` would otherwise find out again; its own business.
    """

    plan_seconds: float
    forward_seconds: float
    backward_seconds: float
    bytes: float
    note: str = ""
    study: Any = field(default=None, repr=False, compare=False)

    @property
    def seconds(self) -> float:
        """Wall time of planning and of one forward and one backward pass."""
        return self.plan_seconds + self.forward_seconds + self.backward_seconds


class Engine(ABC):
    """One way to evaluate the convolution; all give the same answer.

    Attributes:
        name: key in ``ENGINES``.
        plan_follows_kernel: whether its geometry depends on the support or spectrum of the kernel it was made for;
            else one plan serves every kernel between the same domains.
    """

    name: ClassVar[str]
    plan_follows_kernel: ClassVar[bool] = False

    @abstractmethod
    def assess(self, kernel: Kernel, source: Domain, query: Domain, batch: int, rtol: float) -> Cost | str:
        """Predicted cost, or the reason why the engine cannot serve this kernel on these domains.

        ``batch`` counts the entries on a grid, ``rtol`` is the error an approximation may make.
        """

    def least_seconds(self, kernel: Kernel, source: Domain) -> float:
        """What no case with this kernel costs less than, known without looking at the case.

        Where another engine is cheaper still, this one need not be assessed.
        """
        return 0.0

    @abstractmethod
    def prepare(self, kernels: Sequence[Kernel], source: Domain, query: Domain, rtol: float, study: Any = None) -> Any:
        """The geometry part of a ``Plan`` that serves all of the kernels.

        ``study`` is what ``assess`` found out about these very arguments, or None.
        """

    @abstractmethod
    def apply(self, kernel: Kernel, values: Tensor, plan: Plan) -> Tensor:
        """The convolution; values and result in the domains' conventions."""
