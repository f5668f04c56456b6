"""Which device the engines are tested on: CCNN_TEST_DEVICE, the CPU by default.

The functions here are the package's own there. On another device they bring kernel, values and domains to it and the
result back: a test stays what it is, and what it compares with is computed on the CPU.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

import ccnn_irregular
from ccnn_irregular import Grid, Kernel
from ccnn_irregular.domains import Domain
from ccnn_irregular.kernels import with_tensors
from ccnn_irregular.operators import Explanation, Plan

__all__ = ["DEVICE", "convolve", "explain", "kernel_there", "make_plan", "there"]

DEVICE = torch.device(os.environ.get("CCNN_TEST_DEVICE", "cpu"))


def there(domain: Domain) -> Domain:
    """The domain on the tested device; gradients find their way back."""
    return domain if isinstance(domain, Grid) or domain.device == DEVICE else domain.to(DEVICE)


def convolve(
    kernel: Kernel, values: Tensor, source: Domain, query: Domain | None = None, *args: Any, **options: Any
) -> Tensor:
    """``ccnn_irregular.convolve`` on the tested device."""
    if DEVICE.type == "cpu":
        return ccnn_irregular.convolve(kernel, values, source, query, *args, **options)
    plan: Plan | None = options.get("plan")
    source, query = _both(source, query) if plan is None else (plan.source, plan.query)
    result = ccnn_irregular.convolve(kernel_there(kernel), values.to(DEVICE), source, query, *args, **options)
    return result.to(values.device)


def make_plan(kernel: Kernel | Sequence[Kernel], source: Domain, query: Domain | None = None, **options: Any) -> Plan:
    """``ccnn_irregular.make_plan`` on the tested device."""
    if DEVICE.type == "cpu":
        return ccnn_irregular.make_plan(kernel, source, query, **options)
    kernels = kernel_there(kernel) if isinstance(kernel, Kernel) else [kernel_there(one) for one in kernel]
    return ccnn_irregular.make_plan(kernels, *_both(source, query), **options)


def explain(kernel: Kernel, source: Domain, query: Domain | None = None, **options: Any) -> Explanation:
    """``ccnn_irregular.explain`` on the tested device."""
    if DEVICE.type == "cpu":
        return ccnn_irregular.explain(kernel, source, query, **options)
    return ccnn_irregular.explain(kernel_there(kernel), *_both(source, query), **options)


def _both(source: Domain, query: Domain | None) -> tuple[Domain, Domain]:
    moved = there(source)
    return moved, moved if query is None or query is source else there(query)


def kernel_there(kernel: Kernel) -> Kernel:
    """The kernel on the tested device, its parameters made of the given one's."""
    if DEVICE.type == "cpu":
        return kernel
    moved = copy.deepcopy(kernel).to(DEVICE)
    return with_tensors(moved, {name: one.to(DEVICE) for name, one in kernel.named_parameters()})
