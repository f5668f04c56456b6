"""Argument checks, all in one message form: ``argument must rule, got what was given``."""

from __future__ import annotations

from typing import NoReturn

import torch
from torch import Tensor

from ccnn_irregular._transforms import is_batched

__all__ = ["reject", "require", "require_dtype", "require_finite", "require_splits"]

_ROWS_SHOWN = 5


def reject(argument: str, rule: str, got: object) -> NoReturn:
    """Raise the ValueError that every check of this package ends in.

    >>> reject("step", "be positive", 0.0)
    Traceback (most recent call last):
    ValueError: step must be positive, got 0.0
    """
    raise ValueError(f"{argument} must {rule}, got {got}")


def require(condition: bool, argument: str, rule: str, got: object) -> None:
    """Raise ``ValueError`` in the one message form unless ``condition`` holds."""
    if not condition:
        reject(argument, rule, got)


def require_finite(argument: str, values: Tensor) -> None:
    """Refuse nan and infinity, naming the first rows (index along axis 0) that hold them."""
    if values.is_meta:
        reject(argument, "have numbers, which tensors on the meta device have not", f"shape {tuple(values.shape)}")
    if is_batched(values):
        reject(argument, "be no tensor that torch.func.vmap runs over: call once for each of them", "a batch")
    # One reduction decides the usual case: nan and inf survive a sum, and a sum that overflows on
    # finite values is sorted out by the exact look below.
    if bool(torch.isfinite(values.detach().sum())):
        return
    bad = ~torch.isfinite(values.detach())
    if not bool(bad.any()):
        return
    kind = "nan" if bool(torch.isnan(values.detach()).any()) else "inf"
    rows = torch.nonzero(bad.reshape(bad.shape[0], -1).any(1) if bad.ndim else bad.reshape(1)).flatten()
    shown = ", ".join(str(int(row)) for row in rows[:_ROWS_SHOWN])
    more = ", ..." if len(rows) > _ROWS_SHOWN else ""
    total = values.shape[0] if values.ndim else 1
    reject(argument, "be finite", f"{kind} at rows [{shown}{more}] of {total}")


def require_dtype(argument: str, values: Tensor, dtype: torch.dtype, owner: str) -> None:
    """Refuse a silent change of precision: ``values`` must have ``owner``'s dtype."""
    require(values.dtype == dtype, argument, f"have {owner}'s dtype {dtype}", values.dtype)


def require_splits(splits: Tensor, total: int) -> None:
    """Check CSR offsets of a ragged batch: int64 ``(B + 1,)``, from 0 to ``total``, never falling."""
    require(splits.dtype == torch.int64, "splits", "be int64", splits.dtype)
    require(splits.ndim == 1 and len(splits) >= 2, "splits", "have shape (B + 1,) with B >= 1", tuple(splits.shape))
    require(int(splits[0]) == 0, "splits", "start at 0", int(splits[0]))
    require(int(splits[-1]) == total, "splits", f"end at the number of points {total}", int(splits[-1]))
    falls = torch.nonzero(splits.diff() < 0).flatten()
    require(len(falls) == 0, "splits", "never fall", f"a fall after entry {int(falls[0]) if len(falls) else ''}")
