"""Batch normalisation from vectorised sums, against PyTorch's and against double precision."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ccnn_irregular.batch_statistics import normalised, suits
from ccnn_irregular.domains import Grid
from ccnn_irregular.layers import BatchNorm

EPS = 1e-5


def drawn(shape: tuple[int, ...], *, weighted: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:
    torch.manual_seed(0)
    values = torch.randn(shape, dtype=torch.float64) * 3 + 5
    if not weighted:
        return values.requires_grad_(), None, None
    weight, bias = (torch.randn(shape[1], dtype=torch.float64).requires_grad_() for _ in range(2))
    return values.requires_grad_(), weight, bias


def torchs(values: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    return nn.functional.batch_norm(values, None, None, weight, bias, training=True, eps=EPS)


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("shape", [(2, 3, 5), (1, 2, 2), (7, 1, 1), (3, 4, 17)])
def test_values_and_gradients_are_torchs(shape: tuple[int, ...], weighted: bool) -> None:
    values, weight, bias = drawn(shape, weighted=weighted)
    result, mean, variance = normalised(values, weight, bias, EPS)
    expected = torchs(values, weight, bias)
    torch.testing.assert_close(result, expected)
    torch.testing.assert_close(mean, values.detach().mean((0, 2)))
    torch.testing.assert_close(variance, values.detach().var((0, 2), correction=0))
    assert not mean.requires_grad
    assert not variance.requires_grad
    inputs = [one for one in (values, weight, bias) if one is not None]
    factor = torch.randn_like(expected.detach())
    torch.testing.assert_close(
        torch.autograd.grad((result * factor).sum(), inputs), torch.autograd.grad((expected * factor).sum(), inputs)
    )


def test_a_gradient_that_is_a_part_of_a_larger_array() -> None:
    values, weight, bias = drawn((2, 3, 5), weighted=True)
    wide = torch.randn(2, 3, 9, dtype=torch.float64)[..., 2:7]
    inputs = (values, weight, bias)
    found = torch.autograd.grad(normalised(*inputs, EPS)[0], inputs, wide)
    torch.testing.assert_close(found, torch.autograd.grad(torchs(*inputs), inputs, wide))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_need_no_eps_of_zero(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    """PyTorch 2.11 refuses it; what is asked for instead changes no bit."""
    plain, asked = nn.functional.batch_norm, []

    def recorded(*args: Tensor, eps: float, **options: bool) -> Tensor:
        asked.append(eps)
        return plain(*args, eps=eps, **options)

    def gradients() -> tuple[Tensor, ...]:
        inputs = [one.detach().to(dtype).requires_grad_() for one in drawn((2, 3, 5), weighted=True)]
        return torch.autograd.grad(normalised(*inputs, EPS)[0], inputs, torch.ones(2, 3, 5, dtype=dtype).cumsum(2))

    monkeypatch.setattr(nn.functional, "batch_norm", recorded)
    found = gradients()
    assert len(asked) == 2
    assert min(asked) > 0
    monkeypatch.setattr(nn.functional, "batch_norm", lambda *args, eps: plain(*args, eps=eps if eps == EPS else 0.0))
    assert all(torch.equal(one, other) for one, other in zip(found, gradients(), strict=True))


def test_second_derivatives() -> None:
    values, weight, bias = drawn((2, 3, 4), weighted=True)
    inputs = (values, weight, bias)
    assert torch.autograd.gradcheck(lambda *given: normalised(*given, EPS)[0], inputs)
    assert torch.autograd.gradgradcheck(lambda *given: normalised(*given, EPS)[0], inputs)


def test_a_mean_far_from_zero_costs_no_more_digits_than_the_values_have() -> None:
    torch.manual_seed(0)
    values = (torch.randn(8, 2, 1000, dtype=torch.float64) + 1000).float()
    exact = torchs(values.double(), None, None)
    variance = normalised(values, None, None, EPS)[2]
    torch.testing.assert_close(variance.double(), values.double().var((0, 2), correction=0), rtol=1e-6, atol=0)
    single, double = (one.clone().requires_grad_() for one in (values, values.double()))
    factor = torch.randn_like(values)
    ours = torch.autograd.grad((normalised(single, None, None, EPS)[0] * factor).sum(), single)[0]
    theirs = torch.autograd.grad((torchs(double, None, None) * factor).sum(), double)[0]
    assert (ours.double() - theirs).abs().max() < 2**-10 * theirs.abs().max()
    # Spacing of float32 at 1000, in units of the standard deviation of 1.
    assert (normalised(values, None, None, EPS)[0].double() - exact).abs().max() < 2**-13


def test_the_layer_follows_as_torchs_does() -> None:
    torch.manual_seed(0)
    ours, theirs = BatchNorm(3), nn.BatchNorm2d(3)
    grid = Grid([4, 5], [1.0, 1.0])
    for _ in range(3):
        values = torch.randn(6, 3, 4, 5) + 2
        torch.testing.assert_close(ours(values, grid), theirs(values))
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())
    torch.testing.assert_close(ours.eval()(values, grid), theirs.eval()(values))


def test_half_precision_is_left_to_torch() -> None:
    values = torch.randn(4, 3, 5)
    assert suits(values, None, None)
    assert not suits(values.bfloat16(), torch.ones(3), None)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        BatchNorm(3)(values[:1, :, :1], Grid([1], [1.0]))
