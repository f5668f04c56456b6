"""The choice of an engine: what each is predicted to cost, and the plan that the chosen one makes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import torch

from ccnn_irregular._checks import reject, require
from ccnn_irregular._transforms import is_batched, transforms_active
from ccnn_irregular.domains import Domain
from ccnn_irregular.kernels import Kernel
from ccnn_irregular.operators.arguments import CHARACTER, check_alike
from ccnn_irregular.operators.engines import ENGINES, Cost, Plan, require_engine
from ccnn_irregular.operators.evenness import warn_of_uneven
from ccnn_irregular.operators.layout import check_pair
from ccnn_irregular.operators.planning.memory import as_size, available_memory
from ccnn_irregular.operators.planning.rates import DEFAULT_MACHINE, Rates, current_rates, measured

__all__ = ["Explanation", "explain", "make_plan", "require_transformable"]

# It takes every kernel on every domain, and reads no number of the kernel's.
_JUDGE = "reference"
# Bytes that are there: to ask how many are left takes as long as a small convolution.
_LITTLE = 2**24


def make_plan(
    kernel: Kernel | Sequence[Kernel],
    source: Domain,
    query: Domain | None = None,
    *,
    engine: str = "auto",
    rtol: float = 1e-3,
    batch: int = 1,
) -> Plan:
    """Choose an engine and compute the geometry once, to be shared by layers between the same domains.

    Args:
        kernel: the kernel, or all that will share the plan. The first decides under "auto"; support and spectrum of
            all enter the geometry of engines that follow the kernel ("neighbours" and "spectral").
        source: where values will be given.
        query: where results are wanted; None = at the source.
        engine: a name in ``ENGINES``, or "auto".
        rtol: relative error an approximate engine may make; the plan serves this and any larger one.
        batch: number of entries on grids, for the choice under "auto"; between points and any domain the samples of
            the points count instead.

    Returns:
        A plan that holds as long as the domains stay what they are and kernels do not reach farther: see ``Plan``.

    Raises:
        ValueError: domains that disagree, an engine that cannot be used on them, or one that is predicted to need more
            memory than there is; nothing has been allocated then.
    """
    query = source if query is None else query
    kernels = [kernel] if isinstance(kernel, Kernel) else list(kernel)
    check_alike(kernels)
    kernel = kernels[0]
    require_engine(engine)
    _check_case(kernel, source, query, rtol)
    if transforms_active():
        require_transformable(kernel, engine, source, query)
        runner = ENGINES[_transformable(kernel, source, query) if engine == "auto" else engine]
        return Plan(runner, source, query, runner.prepare(kernels, source, query, rtol), rtol)
    if source.irregular is not None:
        warn_of_uneven(source.irregular, kernel.extent[: source.irregular.d])
    name, cost = _chosen(kernel, source, query, engine, _entries(source, query, batch), rtol)
    runner = ENGINES[name]
    study = cost.study if len(kernels) == 1 else None
    character = {what: of(kernel) for what, of in CHARACTER.items()} if runner.error(rtol) else {}
    with torch.enable_grad():  # gradients of a later pass must find their way back to the points of a product
        geometry = runner.prepare(kernels, source, query, rtol, study)
    return Plan(runner, source, query, geometry, rtol, character)


def _chosen(kernel: Kernel, source: Domain, query: Domain, engine: str, batch: int, rtol: float) -> tuple[str, Cost]:
    """Name and cost of the engine that is asked for, or of the cheapest under "auto"."""
    if engine == "auto":
        return _fitting(kernel, source, query, batch, rtol)
    cost = ENGINES[engine].assess(kernel, source, query, batch, rtol)
    if isinstance(cost, str):
        _cannot_be_used(engine, cost, source, query)
    if cost.bytes > _LITTLE and cost.bytes > (available := available_memory(kernel.extent.device)):
        need = f"{engine!r} needs about {as_size(cost.bytes)}"
        reject("engine", f"fit into memory: {need}", f"{as_size(available)} available")
    return engine, cost


def _cannot_be_used(engine: str, reason: str, source: Domain, query: Domain) -> NoReturn:
    raise ValueError(
        f"engine {engine!r} cannot be used: {reason} (from {source!r} to {query!r}). "
        "engine='auto' takes one that can; print(explain(kernel, source, query)) shows all"
    )


@dataclass(frozen=True)
class Explanation:
    """Predicted cost of every engine, printed as a table.

    Attributes:
        choice: the engine "auto" takes, or None where no engine that suits fits into memory.
        costs: engine name to its cost, or the reason why it cannot be used.
        rtol: relative error an approximate engine may make.
        available: bytes of memory that are free on the kernel's device; an engine that needs more is out.
        rates: what the operations that the costs count take.
        measured: whether the rates were measured on this machine, by ``ccnn machine``.
    """

    choice: str | None
    costs: dict[str, Cost | str]
    rtol: float
    available: float
    rates: Rates
    measured: bool

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        lines = [_row("engine", "plan", "forward", "backward", "memory", "error", note="note")]
        for name, cost in self.costs.items():
            label = f"{'*' if name == self.choice else ' '}{name}"
            if isinstance(cost, str):
                lines.append(_row(label, *"-----", note=f"out: {cost}"))
                continue
            seconds = (f"{self.rates.seconds(work):.2g} s" for work in (cost.plan, cost.forward, cost.backward))
            error = f"{made:g}" if (made := ENGINES[name].error(self.rtol)) else "exact"
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
        rtol: relative error an approximate engine may make.
        batch: number of entries, where both domains are grids; else the samples of the points count.

    Raises:
        ValueError: domains that disagree.
    """
    query = source if query is None else query
    _check_case(kernel, source, query, rtol)
    device, batch = kernel.extent.device, _entries(source, query, batch)
    costs = {name: engine.assess(kernel, source, query, batch, rtol) for name, engine in ENGINES.items()}
    available, rates = available_memory(device), current_rates(device)
    fits = any(isinstance(cost, Cost) and cost.bytes <= available for cost in costs.values())
    choice = _cheapest(costs, rates, available)[0] if fits else None
    return Explanation(choice, costs, rtol, available, rates, measured(device))


def _entries(source: Domain, query: Domain, batch: int) -> int:
    """Entries that share one geometry. Points bring their samples along, and a grid is repeated for each of them."""
    return batch if source.samples is None and query.samples is None else 1


def require_transformable(kernel: Kernel, engine: str, source: Domain, query: Domain) -> None:
    """Refuse what ``torch.func`` and forward-mode differentiation cannot take.

    Raises:
        ValueError: an engine that is not made of tensor operations alone, reads numbers of a batch of kernels, or
            cannot be used on the domains.
    """
    names = ["auto", *(name for name, runner in ENGINES.items() if runner.transformable)]
    named = ", ".join(map(repr, names))
    rule = f"be one of {named} under torch.func and forward-mode differentiation, which take tensor operations alone"
    require(engine in names, "engine", rule, repr(engine))
    if engine == "auto":
        return
    reads = engine == _JUDGE or not is_batched(kernel.support)
    require(reads, "engine", f"be {_JUDGE!r} where torch.func.vmap runs over kernels", repr(engine))
    reason = ENGINES[engine].refuses(kernel, source, query)
    if reason is not None:
        _cannot_be_used(engine, reason, source, query)


def _transformable(kernel: Kernel, source: Domain, query: Domain) -> str:
    """Name of the engine that runs under ``torch.func``; to count the work itself takes hooks that it refuses."""
    if is_batched(kernel.support):
        return _JUDGE
    serve = (name for name, runner in ENGINES.items() if runner.transformable)
    return [name for name in serve if ENGINES[name].refuses(kernel, source, query) is None][-1]


def _fitting(kernel: Kernel, source: Domain, query: Domain, batch: int, rtol: float) -> tuple[str, Cost]:
    """Name and cost of the cheapest engine that fits into memory."""
    chosen = _cheapest(*_promising(kernel, source, query, batch, rtol, math.inf), math.inf)
    if chosen[1].bytes <= _LITTLE or chosen[1].bytes <= (available := available_memory(kernel.extent.device)):
        return chosen
    return _cheapest(*_promising(kernel, source, query, batch, rtol, available), available)


def _promising(
    kernel: Kernel, source: Domain, query: Domain, batch: int, rtol: float, available: float
) -> tuple[dict[str, Cost | str], Rates]:
    """Costs of the engines, but for those that cannot be cheaper than one before them, and the machine's rates.

    To measure a spectrum takes as long as the sum itself over a few hundred points.
    """
    costs: dict[str, Cost | str] = {}
    best, rates = math.inf, current_rates(kernel.extent.device)
    for name, engine in ENGINES.items():
        if rates.seconds(engine.least_work(kernel, source)) >= best:
            continue
        cost = costs[name] = engine.assess(kernel, source, query, batch, rtol)
        if isinstance(cost, Cost) and cost.bytes <= available:
            best = min(best, cost.seconds(rates))
    return costs, rates


def _cheapest(costs: dict[str, Cost | str], rates: Rates, available: float) -> tuple[str, Cost]:
    """Name and cost of the engine of least predicted time among those that can be used and fit."""
    usable = {name: cost for name, cost in costs.items() if isinstance(cost, Cost)}
    fitting = {name: cost.seconds(rates) for name, cost in usable.items() if cost.bytes <= available}
    if not fitting:
        needs = ", ".join(f"{name!r} needs about {as_size(cost.bytes)}" for name, cost in usable.items())
        reject("engine", f"fit into memory: {needs}", f"{as_size(available)} available")
    name = min(fitting, key=fitting.__getitem__)
    return name, usable[name]


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
        domain.require_current()
        require(domain.device in (None, device), name, f"be on the kernel's device {device}", domain.device)
