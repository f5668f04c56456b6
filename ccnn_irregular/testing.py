"""Comparison of results: of two tensors for tests, and of engines and samplings for users."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ccnn_irregular._checks import require
from ccnn_irregular.consistency import check_consistency

__all__ = ["TOLERANCES", "assert_all_close", "assert_close", "check_consistency"]

TOLERANCES: Mapping[torch.dtype, float] = {torch.float64: 1e-12, torch.float32: 1e-5}
"""Largest difference between two exact evaluations, relative to the largest expected magnitude."""

# A gradient this small beside the largest one of its set is the difference of larger terms: it is
# compared on their scale, not on its own.
_SMALLEST_SCALE = 1e-2


def assert_close(
    actual: Tensor, expected: Tensor, *, scale: float | None = None, factor: float = 1.0, name: str = "result"
) -> None:
    """Compare two tensors relative to the largest expected magnitude.

    Args:
        actual: what was computed; must have ``expected``'s shape, dtype and device and be finite.
        expected: what is right.
        scale: magnitude differences are relative to; None = the largest of ``expected``. Must be
            given where ``expected`` is zero everywhere: else zeros would pass for anything.
        factor: multiple of the tolerance of the dtype that is allowed.
        name: what is compared, for the message.

    Raises:
        AssertionError: the tensors differ, or there is nothing to compare.
        ValueError: a dtype without a tolerance, or a scale that is not positive.
    """
    require(expected.dtype in TOLERANCES, "expected", f"have a dtype of {list(TOLERANCES)}", expected.dtype)
    require(scale is None or scale > 0, "scale", "be positive", scale)
    for what in ("shape", "dtype", "device"):
        got, wanted = getattr(actual, what), getattr(expected, what)
        if got != wanted:
            raise AssertionError(f"{name}: {what} is {got}, expected {wanted}")
    if expected.numel() == 0:
        raise AssertionError(f"{name}: expected is empty, so nothing is compared")
    actual, expected = actual.detach(), expected.detach()
    if not bool(torch.isfinite(actual).all()):
        raise AssertionError(
            f"{name}: {int((~torch.isfinite(actual)).sum())} of {actual.numel()} values are not finite"
        )
    scale = float(expected.abs().max()) if scale is None else scale
    if scale == 0:
        raise AssertionError(f"{name}: expected is zero everywhere, so zeros would pass; give a scale")
    difference = (actual - expected).abs()
    worst = int(difference.argmax())
    error, allowed = float(difference.flatten()[worst]) / scale, TOLERANCES[expected.dtype] * factor
    if not error <= allowed:
        index = tuple(int(i) for i in torch.unravel_index(torch.tensor(worst), expected.shape))
        got, wanted = float(actual.flatten()[worst]), float(expected.flatten()[worst])
        raise AssertionError(
            f"{name}: differs by {error:.3g} of scale {scale:.3g}, allowed {allowed:.3g}; "
            f"largest at {index}: got {got:.9g}, expected {wanted:.9g}"
        )


def assert_all_close(actual: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, factor: float = 1.0) -> None:
    """``assert_close`` on every entry, gradients of one result, say; both must have the same names.

    Each entry is compared on its own scale, but not on less than a hundredth of the largest entry's.

    Raises:
        AssertionError: names or tensors differ, or all that is expected is zero.
    """
    if actual.keys() != expected.keys():
        raise AssertionError(f"names are {sorted(actual)}, expected {sorted(expected)}")
    scales = {name: float(value.detach().abs().max()) if value.numel() else 0.0 for name, value in expected.items()}
    largest = max(scales.values(), default=0.0)
    if largest == 0:
        raise AssertionError("all that is expected is zero or empty, so zeros would pass")
    for name, value in expected.items():
        scale = max(scales[name], _SMALLEST_SCALE * largest)
        if value.numel():
            assert_close(actual[name], value, scale=scale, factor=factor, name=name)
        elif actual[name].shape != value.shape:
            raise AssertionError(f"{name}: shape is {tuple(actual[name].shape)}, expected {tuple(value.shape)}")
