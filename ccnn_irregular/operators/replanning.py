"""Plans that "auto" makes over and over for the same domains, where one would do."""

from __future__ import annotations

import math
import time
import warnings
import weakref
from dataclasses import dataclass

import torch

from ccnn_irregular.domains import Domain
from ccnn_irregular.kernels import Kernel
from ccnn_irregular.operators.engines import Plan

__all__ = ["Replanning"]

# Seconds that may be lost before it is worth a word.
_LOST = 1.0


@dataclass
class _Repeated:
    """Plans for one source.

    Attributes:
        query: of the last one.
        state: the tensors it was made from, and how often they had been changed.
        plans: how many were made for the same.
        lost: seconds that all but the first took; infinite once it was told.
    """

    query: weakref.ref[Domain]
    state: tuple[tuple[int, int | None], ...]
    plans: int = 1
    lost: float = 0.0


_MADE: weakref.WeakKeyDictionary[Domain, _Repeated] = weakref.WeakKeyDictionary()


class Replanning:
    """Seconds that a plan takes under "auto", and a word where plans made again took longer than the sums.

    A second has to be lost first, in plans for the same source and query of which the first could have served: learned
    places, places that were moved, and kernels in training whose reach the geometry follows need plans anew.
    """

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._seconds = 0.0

    def planned(self) -> None:
        """The plan is made."""
        self._seconds = time.perf_counter() - self._started

    def computed(self, kernel: Kernel, plan: Plan) -> None:
        """The sum is computed: say so where plans like this one lose more time than sums take."""
        record = _again(kernel, plan)
        if record is None or record.lost == math.inf:
            return
        record.lost += self._seconds
        if record.lost < _LOST:
            return
        if kernel.extent.is_cuda:
            torch.cuda.synchronize(kernel.extent.device)
        computing = time.perf_counter() - self._started - self._seconds
        if self._seconds <= computing:
            return
        text = (
            f"engine 'auto' has made {record.plans} plans for the same domains, {record.lost:.1f} s in all; the last "
            f"took {self._seconds:.2g} s, its sum {computing:.2g} s. Make it once, plan = make_plan(kernel, source, "
            "query), and give it as plan=plan; a layer has plan = layer.plan(source, query)"
        )
        record.lost = math.inf
        warnings.warn(text, UserWarning, stacklevel=2)


def _again(kernel: Kernel, plan: Plan) -> _Repeated | None:
    """What is known of earlier plans that could have served; None for the first one."""
    follows = plan.runner.plan_follows_kernel and torch.is_grad_enabled()
    if plan.learned or (follows and any(one.requires_grad for one in kernel.parameters())):
        return None
    record, state = _MADE.get(plan.source), plan.state
    if record is not None and record.state == state and record.query() == plan.query:
        record.plans += 1
        return record
    _MADE[plan.source] = _Repeated(weakref.ref(plan.query), state)
    return None
