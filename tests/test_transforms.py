"""The transform of real arrays and its windowed inverse, against torch.fft and finite differences."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ccnn_irregular.operators.numerics.transforms import depthwise_convolution, fast_length, real_spectrum, real_window

# Shape of the values, lengths of the transform, window that is read.
CASES = (
    ((3, 7), (7,), ((1, 5),)),
    ((2, 5), (8,), ((0, 8),)),
    ((2, 1), (1,), ((0, 1),)),
    ((2, 2), (2,), ((1, 2),)),
    ((2, 4, 5), (6, 8), ((2, 5), (1, 8))),
    ((2, 2, 1), (6, 7), ((2, 4), (1, 3))),
    ((2, 3, 4, 5), (3, 6, 9), ((0, 3), (1, 2), (3, 4))),
    ((1, 2, 3, 2, 3), (3, 4, 2, 4), ((0, 2), (1, 2), (0, 1), (2, 4))),
    ((2, 9), (12,), ((1, 10, 3),)),
    ((2, 4, 5, 3), (12, 18, 9), ((2, 12, 3), (1, 17, 5), (0, 9, 2))),
)
Spans = tuple[tuple[int, ...], ...]


def axes(lengths: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(range(-len(lengths), 0))


def ranges(spans: Spans) -> list[range]:
    return [range(*span) for span in spans]


def drawn(shape: tuple[int, ...]) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize(("shape", "lengths", "spans"), CASES)
class TestAgainstTorch:
    def test_spectrum(self, shape: tuple[int, ...], lengths: tuple[int, ...], spans: Spans) -> None:
        values = drawn(shape)
        expected = torch.fft.rfftn(values, s=lengths, dim=axes(lengths))
        result = real_spectrum(values, lengths)
        torch.testing.assert_close(result, expected)
        factor = torch.randn_like(expected.detach())
        torch.testing.assert_close(
            torch.autograd.grad((result * factor).real.sum(), values),
            torch.autograd.grad((expected * factor).real.sum(), values),
        )

    def test_window(self, shape: tuple[int, ...], lengths: tuple[int, ...], spans: Spans) -> None:
        spectrum = torch.fft.rfftn(drawn(shape), s=lengths, dim=axes(lengths)).detach().requires_grad_()
        expected = torch.fft.irfftn(spectrum, s=lengths, dim=axes(lengths))
        expected = expected[(..., *(slice(*span) for span in spans))]
        result = real_window(spectrum, lengths, ranges(spans))
        torch.testing.assert_close(result, expected)
        factor = torch.randn_like(expected.detach())
        torch.testing.assert_close(
            torch.autograd.grad((result * factor).sum(), spectrum),
            torch.autograd.grad((expected * factor).sum(), spectrum),
        )

    def test_derivatives(self, shape: tuple[int, ...], lengths: tuple[int, ...], spans: Spans) -> None:
        values = drawn(shape)
        spectrum = real_spectrum(values, lengths).detach().requires_grad_()
        assert torch.autograd.gradcheck(lambda one: real_spectrum(one, lengths), values, fast_mode=True)
        assert torch.autograd.gradgradcheck(lambda one: real_spectrum(one, lengths), values, fast_mode=True)
        assert torch.autograd.gradcheck(lambda one: real_window(one, lengths, ranges(spans)), spectrum, fast_mode=True)
        assert torch.autograd.gradgradcheck(
            lambda one: real_window(one, lengths, ranges(spans)), spectrum, fast_mode=True
        )


@pytest.mark.parametrize("lengths", [(16,), (12, 18, 9), (6, 8)])
def test_spectrum_of_values_with_zeros_between_them(lengths: tuple[int, ...]) -> None:
    """Both ways: many cells filled, and few."""
    spans = [range(1, length, 3) for length in lengths]
    values = drawn((2, *map(len, spans)))
    spread = values.new_zeros(2, *lengths)
    spread[(slice(None), *(slice(1, None, 3) for _ in lengths))] = values
    expected = torch.fft.rfftn(spread, dim=axes(lengths))
    result = real_spectrum(values, lengths, spans)
    torch.testing.assert_close(result, expected)
    factor = torch.randn_like(expected.detach())
    torch.testing.assert_close(
        torch.autograd.grad((result * factor).real.sum(), values),
        torch.autograd.grad((expected * factor).real.sum(), values),
    )


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    ("sizes", "taps", "lengths", "spans"),
    [
        ((7,), (3,), (9,), ((2, 9),)),
        ((6,), (6,), (8,), ((0, 8),)),
        ((1,), (1,), (1,), ((0, 1),)),
        ((4, 5), (3, 1), (6, 5), ((1, 5), (0, 5))),
        ((3, 2, 5), (2, 2, 3), (4, 3, 8), ((1, 4), (0, 2), (2, 7))),
    ],
)
class TestDepthwiseConvolution:
    def test_against_torch_fft(
        self, batch: int, sizes: tuple[int, ...], taps: tuple[int, ...], lengths: tuple[int, ...], spans: Spans
    ) -> None:
        values, kernel = drawn((batch, 2, *sizes)), drawn((2, *taps))

        def expected(values: Tensor, kernel: Tensor) -> Tensor:
            spectra = [torch.fft.rfftn(one, s=lengths, dim=axes(lengths)) for one in (values, kernel)]
            whole = torch.fft.irfftn(spectra[0] * spectra[1], s=lengths, dim=axes(lengths))
            return whole[(..., *(slice(*span) for span in spans))]

        cells = [range(size) for size in sizes]
        result = depthwise_convolution(values, kernel, lengths, cells, ranges(spans))
        target = expected(values, kernel)
        torch.testing.assert_close(result, target)
        factor = torch.randn_like(target.detach())
        torch.testing.assert_close(
            torch.autograd.grad((result * factor).sum(), (values, kernel)),
            torch.autograd.grad((target * factor).sum(), (values, kernel)),
        )

    def test_derivatives(
        self, batch: int, sizes: tuple[int, ...], taps: tuple[int, ...], lengths: tuple[int, ...], spans: Spans
    ) -> None:
        values, kernel = drawn((batch, 2, *sizes)), drawn((2, *taps))

        def function(values: Tensor, kernel: Tensor) -> Tensor:
            return depthwise_convolution(values, kernel, lengths, [range(size) for size in sizes], ranges(spans))

        assert torch.autograd.gradcheck(function, (values, kernel))
        assert torch.autograd.gradgradcheck(function, (values, kernel))


def test_depthwise_gradients_can_be_taken_again_and_by_one_factor_alone() -> None:
    values, kernel = drawn((3, 2, 7)), drawn((2, 3))
    result = depthwise_convolution(values, kernel, [9], [range(7)], [range(9)])
    first = torch.autograd.grad(result.square().sum(), (values, kernel), retain_graph=True)
    again = torch.autograd.grad(result.square().sum(), (values, kernel))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    for place in range(2):
        pair = [one if at == place else one.detach() for at, one in enumerate((values, kernel))]
        alone = depthwise_convolution(*pair, [9], [range(7)], [range(9)])
        torch.testing.assert_close(torch.autograd.grad(alone.square().sum(), pair[place])[0], first[place])


def test_depthwise_convolution_of_spread_values_that_all_kernels_read() -> None:
    values, kernel = drawn((3, 1, 4, 3)), drawn((2, 3, 2))
    cells, spans, lengths = [range(0, 10, 3), range(1, 6, 2)], [range(2, 11, 4), range(6)], [12, 8]

    def function(values: Tensor, kernel: Tensor) -> Tensor:
        return depthwise_convolution(values, kernel, lengths, cells, spans)

    def expected(values: Tensor, kernel: Tensor) -> Tensor:
        spread = values.new_zeros(3, 1, *lengths)
        spread[:, :, 0:10:3, 1:6:2] = values
        spectra = [torch.fft.rfftn(one, s=lengths, dim=(-2, -1)) for one in (spread, kernel)]
        return torch.fft.irfftn(spectra[0] * spectra[1], s=lengths, dim=(-2, -1))[..., 2:11:4, :6]

    torch.testing.assert_close(function(values, kernel), expected(values, kernel))
    torch.testing.assert_close(
        torch.autograd.grad(function(values, kernel).square().sum(), (values, kernel)),
        torch.autograd.grad(expected(values, kernel).square().sum(), (values, kernel)),
    )
    assert torch.autograd.gradgradcheck(function, (values, kernel))


def test_backward_pass_needs_no_complex_transform_of_real_values() -> None:
    """What a backward pass writes beside gradients stays below the full complex array torch's own gradient fills."""
    values = torch.randn(4, 4096, requires_grad=True)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
        real_spectrum(values, [8192]).abs().sum().backward()
    assert not [event.key for event in found.key_averages() if "c2c" in event.key]


@given(st.integers(1, 1 << 30))
def test_fast_length(shortest: int) -> None:
    length = fast_length(shortest)
    assert shortest <= length < 2 * shortest or length == shortest
    assert length % 2 == 0 or length == 1
    for prime in (2, 3, 5, 7):
        while length % prime == 0:
            length //= prime
    assert length == 1


def test_fast_length_is_no_odd_one() -> None:
    """The next numbers of small factors are 18,225 = 3^6 5^2 and 875 = 5^3 7: several times as slow."""
    assert fast_length(18_022) == 2**5 * 3**4 * 7
    assert fast_length(873) == 2**7 * 7


def test_an_empty_batch_has_an_empty_convolution() -> None:
    values, kernel = drawn((0, 2, 4, 5)), drawn((2, 3, 1))
    result = depthwise_convolution(values, kernel, [6, 5], [range(4), range(5)], [range(1, 5), range(5)])
    assert result.shape == (0, 2, 4, 5)
    along_values, along_kernel = torch.autograd.grad(result.sum(), (values, kernel))
    assert along_values.shape == values.shape
    torch.testing.assert_close(along_kernel, torch.zeros_like(kernel))


def test_an_empty_batch_has_an_empty_spectrum_and_window() -> None:
    values = torch.zeros(0, 3, 4, 5, requires_grad=True)
    window = real_window(real_spectrum(values, [6, 9]), [6, 9], [range(1, 6), range(2, 4)])
    assert window.shape == (0, 3, 5, 2)
    window.sum().backward()
    assert values.grad is not None
    assert values.grad.shape == values.shape
