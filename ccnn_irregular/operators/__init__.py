"""Continuous convolution on any sampling: choose an engine, plan once, apply.

y(q_m) = sum_n  w_n  K(q_m - p_n)  x_n
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ccnn_irregular._autocast import outside_autocast
from ccnn_irregular._checks import reject, require
from ccnn_irregular._transforms import is_batched, transforms_active
from ccnn_irregular.domains import Domain, Grid
from ccnn_irregular.kernels import Kernel
from ccnn_irregular.operators.arguments import CHARACTER, check_alike
from ccnn_irregular.operators.check import CheckReport, ToleranceError, require_count
from ccnn_irregular.operators.engines.engine import Cost, Engine, Plan
from ccnn_irregular.operators.engines.fft import FFT
from ccnn_irregular.operators.engines.keops import KeOps
from ccnn_irregular.operators.engines.neighbours import Neighbours
from ccnn_irregular.operators.engines.reference import Reference
from ccnn_irregular.operators.engines.spectral import Spectral
from ccnn_irregular.operators.layout import check_pair
from ccnn_irregular.operators.numerics.lattice import no_common_lattice
from ccnn_irregular.operators.planning.memory import as_size, available_memory
from ccnn_irregular.operators.planning.rates import DEFAULT_MACHINE, measured

__all__ = [
    "ENGINES",
    "CheckReport",
    "Engine",
    "EngineName",
    "Explanation",
    "Plan",
    "ToleranceError",
    "convolve",
    "explain",
    "make_plan",
]

EngineName = Literal["auto", "reference", "neighbours", "keops", "fft", "spectral"]

ENGINES: dict[str, Engine] = {
    "reference": Reference(),
    "neighbours": Neighbours(),
    "keops": KeOps(),
    "fft": FFT(),
    "spectral": Spectral(),
}


# Made of tensor operations where they have to be.
_TRANSFORMABLE = ("reference", "neighbours", "fft")


@outside_autocast
def convolve(
    kernel: Kernel,
    values: Tensor,
    source: Domain,
    query: Domain | None = None,
    engine: EngineName = "auto",
    rtol: float | None = None,
    plan: Plan | None = None,
    check: int | None = None,
) -> Tensor:
    """Continuous convolution of sampled values: y(q) = sum_n w_n K(q - p_n) x_n.

    Differentiable in the values, the kernel's parameters, and, on the pairwise engines, in the
    coordinates and weights of ``Points``. Under ``torch.autocast`` it runs as outside of it: values of autocast's
    dtype become float32, as the result is.

    Args:
        kernel: depthwise (C,) or full (D, C).
        values: ``(N, C)`` on Points, ``(B, C, *sizes)`` on Grid, ``(N, C, *sizes)`` on Product, of the
            kernel's dtype. Where a weight is 0 the value is never read and may be nan.
        source: where the values were sampled. Points bring their weights, a grid its cell volume.
        query: where the result is wanted; None = at the source. From Points to Grid every sample is
            evaluated on the whole grid, from Grid to Points entry ``b`` at the points of sample ``b``.
        engine: a name in ``ENGINES``, or "auto" for the cheapest that suits. A named engine is never
            replaced (but see ``KeOps`` where there is no compiler).
        rtol: relative error "spectral" may make; all other engines are exact. None = the plan's, 1e-3 without one.
        plan: from ``make_plan`` for the same source and query: geometry computed once. It must have been made for
            ``rtol`` or less, and be made anew when coordinates move.
        check: number of random queries at which the result is compared with the sum itself in float64, see
            ``Plan.check``, which also reports the error it found.

    Returns:
        The result in the query's convention: ``(M, D)``, ``(B, D, *sizes)`` or ``(M, D, *sizes)``.

    Raises:
        ValueError: shapes, dtypes or devices that disagree; nan or infinite values that carry weight;
            a kernel wider than half a period; an engine that does not suit the domains; a plan that was made for
            something else, see ``Plan``.
        ToleranceError: ``check`` found an error above ``rtol``.
    """
    require(rtol is None or 0 < rtol < 1, "rtol", "lie between 0 and 1", rtol)
    if check is not None:
        require_count("check", check)
    device = kernel.extent.device
    kernel.require_numbers()
    require(values.device == device, "values", f"be on the kernel's device {device}", values.device)
    if transforms_active():
        require(check is None, "check", "be None under torch.func and forward-mode differentiation", check)
        at = source if query is None else query
        _require_transformable(kernel, engine if plan is None else plan.engine, source, at)
    if plan is None:
        batch = len(values) if isinstance(source, Grid) and values.ndim else 1
        plan = make_plan(kernel, source, query, engine=engine, rtol=1e-3 if rtol is None else rtol, batch=batch)
    else:
        _check_plan(plan, source, query, engine, rtol)
    result = plan.convolve(kernel, values)
    if check is not None:
        plan.check(kernel, values, result, n=check, rtol=rtol)
    return result


def _check_plan(plan: Plan, source: Domain, query: Domain | None, engine: str, rtol: float | None) -> None:
    """Refuse a plan that was made for something else than is asked for."""
    require(_same(plan.source, source), "plan", "be made for this source", plan.source)
    if query is None:
        rule = "be given with a plan for another query than its source, query=plan.query"
        require(_same(plan.query, source), "query", rule, None)
    else:
        require(_same(plan.query, query), "plan", "be made for this query", plan.query)
    require(engine in ("auto", plan.engine), "plan", f"be made for engine {engine!r}", repr(plan.engine))
    if rtol is not None:
        plan.require_rtol(rtol)


def _same(one: Domain, other: Domain) -> bool:
    return one is other or one == other


def make_plan(
    kernel: Kernel | Sequence[Kernel],
    source: Domain,
    query: Domain | None = None,
    *,
    engine: EngineName = "auto",
    rtol: float = 1e-3,
    batch: int = 1,
) -> Plan:
    """Choose an engine and compute the geometry once, to be shared by layers between the same domains.

    Args:
        kernel: the kernel, or all that will share the plan. The first decides under "auto"; support and spectrum of
            all enter the geometry of "neighbours" and "spectral".
        source: where values will be given.
        query: where results are wanted; None = at the source.
        engine: a name in ``ENGINES``, or "auto".
        rtol: relative error "spectral" may make; the plan serves this and any larger one.
        batch: number of entries on a grid, for the choice under "auto".

    Returns:
        A plan that holds as long as the domains stay what they are and kernels do not reach farther: see ``Plan``.

    Raises:
        ValueError: domains that disagree, an engine that does not suit them, or one that is predicted to need more
            memory than there is; nothing has been allocated then.
    """
    query = source if query is None else query
    kernels = [kernel] if isinstance(kernel, Kernel) else list(kernel)
    check_alike(kernels)
    kernel = kernels[0]
    require(engine == "auto" or engine in ENGINES, "engine", f"be 'auto' or one of {sorted(ENGINES)}", repr(engine))
    _check_case(kernel, source, query, rtol)
    if transforms_active():
        _require_transformable(kernel, engine, source, query)
        name = _transformable(kernel, source, query) if engine == "auto" else engine
        return Plan(ENGINES[name], source, query, ENGINES[name].prepare(kernels, source, query, rtol), rtol)
    available = available_memory(kernel.extent.device)
    if engine == "auto":
        costs = _promising(kernel, source, query, batch, rtol, available)
        name = _cheapest(costs, available)
        cost = costs[name]
    else:
        name = engine
        cost = ENGINES[name].assess(kernel, source, query, batch, rtol)
        if isinstance(cost, str):
            reject("engine", f"suit source and query ({name!r}: {cost})", f"{source!r} and {query!r}")
        if cost.bytes > available:
            need = f"{name!r} needs about {as_size(cost.bytes)}"
            reject("engine", f"fit into memory: {need}", f"{as_size(available)} available")
    study = cost.study if isinstance(cost, Cost) and len(kernels) == 1 else None
    runner = ENGINES[name]
    character = {} if runner.exact else {what: of(kernel) for what, of in CHARACTER.items()}
    with torch.enable_grad():  # gradients of a later pass must find their way back to the points of a product
        geometry = runner.prepare(kernels, source, query, rtol, study)
    return Plan(runner, source, query, geometry, rtol, character)


@dataclass(frozen=True)
class Explanation:
    """Predicted cost of every engine; ``str()`` is a table.

    Attributes:
        choice: the engine "auto" takes, or None where no engine that suits fits into memory.
        costs: engine name to its predicted cost, or the reason why it does not suit.
        rtol: relative error the approximate engine may make.
        available: bytes of memory that are free on the kernel's device; an engine that needs more is out.
        measured: whether the cost model's constants were measured on this machine, by ``ccnn machine``.
    """

    choice: str | None
    costs: dict[str, Cost | str]
    rtol: float
    available: float
    measured: bool

    def __str__(self) -> str:
        lines = [_row("engine", "plan", "forward", "backward", "memory", "error", note="note")]
        for name, cost in self.costs.items():
            label = f"{'*' if name == self.choice else ' '}{name}"
            if isinstance(cost, str):
                lines.append(_row(label, *"-----", note=f"out: {cost}"))
                continue
            seconds = (f"{part:.2g} s" for part in (cost.plan_seconds, cost.forward_seconds, cost.backward_seconds))
            error = "exact" if ENGINES[name].exact else f"{self.rtol:g}"
            note = f"out: {_too_large(cost, self.available)}" if cost.bytes > self.available else cost.note
            lines.append(_row(label, *seconds, as_size(cost.bytes), error, note=note))
        machine = "on this machine" if self.measured else f"on {DEFAULT_MACHINE}; measure yours: ccnn machine"
        return "\n".join([*lines, f"* = what 'auto' takes: the least sum of the times, predicted {machine}"])


def _row(label: str, *cells: str, note: str) -> str:
    return f"{label:<12}" + "".join(f"{cell:>11}" for cell in cells) + f"  {note}"


def explain(
    kernel: Kernel, source: Domain, query: Domain | None = None, *, rtol: float = 1e-3, batch: int = 1
) -> Explanation:
    """Predicted seconds and memory of every engine, or why it is out; ``print`` it. Nothing is computed or allocated.

    Args:
        kernel: the kernel.
        source: where values are given.
        query: where the result is wanted; None = at the source.
        rtol: relative error "spectral" may make.
        batch: number of entries on a grid.

    Raises:
        ValueError: domains that disagree.
    """
    query = source if query is None else query
    _check_case(kernel, source, query, rtol)
    costs, available = _assessed(kernel, source, query, batch, rtol), available_memory(kernel.extent.device)
    fits = any(isinstance(cost, Cost) and cost.bytes <= available for cost in costs.values())
    choice = _cheapest(costs, available) if fits else None
    return Explanation(choice, costs, rtol, available, measured(kernel.extent.device))


def _require_transformable(kernel: Kernel, engine: str, source: Domain, query: Domain) -> None:
    """Refuse what ``torch.func`` and forward-mode differentiation cannot take."""
    named = ", ".join(map(repr, ("auto", *_TRANSFORMABLE)))
    rule = f"be one of {named} under torch.func and forward-mode differentiation, which take tensor operations alone"
    require(engine in ("auto", *_TRANSFORMABLE), "engine", rule, repr(engine))
    reads = engine in ("auto", "reference") or not is_batched(kernel.support)
    require(reads, "engine", "be 'reference' where torch.func.vmap runs over kernels", repr(engine))
    grids = isinstance(source, Grid) and isinstance(query, Grid) and no_common_lattice(source, query) is None
    require(engine != "fft" or grids, "engine", "suit source and query: 'fft' takes grids of steps in a ratio", "'fft'")
    suits = engine != "neighbours" or kernel.mask is not None
    require(
        suits, "engine", "be 'reference' for a kernel without a mask, all of whose points are neighbours", repr(engine)
    )


def _transformable(kernel: Kernel, source: Domain, query: Domain) -> str:
    """The engine of least work that ``torch.func`` takes; to count the work itself takes hooks that it refuses."""
    if is_batched(kernel.support):
        return "reference"
    if isinstance(source, Grid) and isinstance(query, Grid):
        return "fft" if no_common_lattice(source, query) is None else "reference"
    return "reference" if kernel.mask is None else "neighbours"


def _assessed(kernel: Kernel, source: Domain, query: Domain, batch: int, rtol: float) -> dict[str, Cost | str]:
    return {name: engine.assess(kernel, source, query, batch, rtol) for name, engine in ENGINES.items()}


def _promising(
    kernel: Kernel, source: Domain, query: Domain, batch: int, rtol: float, available: float
) -> dict[str, Cost | str]:
    """The engines assessed one by one, but for those that cannot be cheaper than one before them.

    To measure a spectrum takes as long as the sum itself over a few hundred points.
    """
    costs: dict[str, Cost | str] = {}
    best = math.inf
    for name, engine in ENGINES.items():
        if engine.least_seconds(kernel, source) >= best:
            continue
        cost = costs[name] = engine.assess(kernel, source, query, batch, rtol)
        if isinstance(cost, Cost) and cost.bytes <= available:
            best = min(best, cost.seconds)
    return costs


def _cheapest(costs: dict[str, Cost | str], available: float) -> str:
    """Name of the engine of least predicted time among those that suit and fit."""
    suitable = {name: cost for name, cost in costs.items() if isinstance(cost, Cost)}
    fitting = {name: cost.seconds for name, cost in suitable.items() if cost.bytes <= available}
    if not fitting:
        needs = ", ".join(f"{name!r} needs about {as_size(cost.bytes)}" for name, cost in suitable.items())
        reject("engine", f"fit into memory: {needs}", f"{as_size(available)} available")
    return min(fitting, key=fitting.__getitem__)


def _too_large(cost: Cost, available: float) -> str:
    return f"needs about {as_size(cost.bytes)}, {as_size(available)} available"


def _check_case(kernel: Kernel, source: Domain, query: Domain, rtol: float) -> None:
    require(0 < rtol < 1, "rtol", "lie between 0 and 1", rtol)
    kernel.require_numbers()
    kernel.require_full_precision()
    require(source.d == kernel.d, "source", f"have the kernel's {kernel.d} axes", source.d)
    check_pair(source, query)
    device = kernel.extent.device
    for name, domain in (("source", source), ("query", query)):
        if not isinstance(domain, Grid):
            domain.require_current()
            require(domain.device == device, name, f"be on the kernel's device {device}", domain.device)
