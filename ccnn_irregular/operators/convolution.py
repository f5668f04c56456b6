"""The convolution itself: y(q_m) = sum_n  w_n  K(q_m - p_n)  x_n, by the engine that suits."""

from __future__ import annotations

from torch import Tensor

from ccnn_irregular._autocast import outside_autocast
from ccnn_irregular._checks import require
from ccnn_irregular._transforms import transforms_active
from ccnn_irregular.domains import Domain
from ccnn_irregular.kernels import Kernel
from ccnn_irregular.operators.check import require_count
from ccnn_irregular.operators.engines import Plan
from ccnn_irregular.operators.planning.planner import make_plan, require_transformable
from ccnn_irregular.operators.replanning import Replanning

__all__ = ["convolve"]


@outside_autocast
def convolve(
    kernel: Kernel,
    values: Tensor,
    source: Domain,
    query: Domain | None = None,
    engine: str = "auto",
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
        rtol: relative error that "spectral", or another engine whose ``error`` is not 0, may make; all others are
            exact. None = the plan's, 1e-3 without one.
        plan: from ``make_plan`` for the same source and query: geometry computed once. It must have been made for
            ``rtol`` or less, and be made anew when coordinates move.
        check: number of random queries at which the result is compared with the sum itself in float64, see
            ``Plan.check``, which also reports the error it found.

    Returns:
        The result in the query's convention: ``(M, D)``, ``(B, D, *sizes)`` or ``(M, D, *sizes)``.

    Raises:
        ValueError: shapes, dtypes or devices that disagree; nan or infinite values that carry weight;
            a kernel wider than half a period; an engine that cannot be used on the domains; a plan that was made for
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
        require_transformable(kernel, engine if plan is None else plan.engine, source, at)
    watch: Replanning | None = None
    if plan is None:
        watch = Replanning() if engine == "auto" and not transforms_active() else None
        batch = len(values) if source.samples is None and values.ndim else 1
        plan = make_plan(kernel, source, query, engine=engine, rtol=1e-3 if rtol is None else rtol, batch=batch)
        if watch is not None:
            watch.planned()
    else:
        _check_plan(plan, source, query, engine, rtol)
    result = plan.convolve(kernel, values)
    if watch is not None:
        watch.computed(kernel, plan)
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
