"""The spectrum of kernels: shares beyond a sampling's limit, against the analytic Gaussian."""

from __future__ import annotations

import math

import pytest
import torch
from contract_cases import small_kernel

from ccnn_irregular import SIREN, GaussianMask, Kernel
from ccnn_irregular.kernels import energy_above
from ccnn_irregular.kernels.spectrum import marginal_energy
from ccnn_irregular.testing import assert_close


def gaussian(width: list[float], causal: bool = False) -> Kernel:
    """Constant 1 under a mask so wide that it is the Gaussian to rounding."""
    d = len(width)
    generator = SIREN(d, 2, hidden=3, layers=1)
    with torch.no_grad():
        generator.output.weight.zero_()
        generator.output.bias.copy_(torch.tensor([1.0, -3.0]))
    mask = GaussianMask(width, threshold=1e-14)
    return Kernel(generator, mask, extent=[1.0] * d, causal_axes=(0,) if causal else ()).double()


@pytest.mark.parametrize("step", [2.0, 3.0, 4.1])
def test_share_of_a_gaussian_is_the_complementary_error_function(step: float) -> None:
    """|K(f)|^2 falls as exp(-(2 pi width f)^2): beyond f the share is erfc(2 pi width f)."""
    width = 0.8
    shares = energy_above(gaussian([width]), [step], resolution=16)
    expected = math.erfc(2 * math.pi * width / (2 * step))
    assert shares.shape == (1, 2)
    assert shares[0].tolist() == pytest.approx([expected] * 2, rel=0.01)


def test_each_axis_has_its_own_share() -> None:
    width, steps = [0.8, 0.5, 1.1], [2.5, 2.0, None]
    shares = energy_above(gaussian(width), steps, resolution=16)
    for axis in (0, 1):
        expected = math.erfc(math.pi * width[axis] / steps[axis])
        assert shares[axis].tolist() == pytest.approx([expected] * 2, rel=0.02)
    assert not shares[2].any()


def test_marginal_energy_obeys_parseval() -> None:
    kernel = small_kernel(2)
    offsets = [torch.linspace(-2, 2, n, dtype=torch.float64) for n in (40, 30)]
    samples = kernel(torch.stack(torch.meshgrid(*offsets, indexing="ij"), -1))
    for axis in (0, 1):
        energy = marginal_energy(kernel, axis, offsets)
        modes = torch.full((len(energy), 1), 2.0, dtype=torch.float64)
        modes[0] = modes[-1] = 1
        whole = (energy * modes).sum(0) / (2 * len(offsets[axis]))
        assert_close(whole, samples.square().sum((0, 1)))


def test_full_and_float32_kernels() -> None:
    kernel = small_kernel(1, shape=(3, 2), dtype=torch.float32)
    shares = energy_above(kernel, [1.0])
    assert shares.shape == (1, 3, 2)
    assert shares.dtype == torch.float32
    assert bool(((shares > 0) & (shares < 1)).all())


def test_training_on_it_lowers_aliasing() -> None:
    """What the kernel at a coarse rate makes of white noise comes nearer to what it makes at a fine one."""
    torch.manual_seed(0)
    kernel = Kernel(SIREN(1, 4, hidden=16, omega_0=20.0), GaussianMask([0.5]), extent=[1.0]).double()
    step = 0.25
    before = float(energy_above(kernel, [step]).detach().mean())
    optimiser = torch.optim.Adam(kernel.parameters(), lr=0.02)
    for _ in range(60):
        loss = energy_above(kernel, [step]).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert before > 0.2
    assert float(energy_above(kernel, [step]).detach().mean()) < 0.2 * before

    # Judged apart from it: sums over samples of K at two shifts of the sampling agree where nothing is folded to zero.
    def spread() -> float:
        nodes = torch.arange(-40, 41, dtype=torch.float64) * step
        sums = torch.stack([kernel((nodes + shift)[:, None]).sum(0) for shift in torch.arange(5) * step / 5])
        size = kernel(torch.linspace(-2, 2, 801, dtype=torch.float64)[:, None]).square().sum(0).sqrt()
        return float((sums.std(0) / size).mean().detach())

    trained = spread()
    torch.manual_seed(0)
    kernel = Kernel(SIREN(1, 4, hidden=16, omega_0=20.0), GaussianMask([0.5]), extent=[1.0]).double()
    assert trained < 0.5 * spread()


@pytest.mark.parametrize(
    ("kernel", "steps", "options", "message"),
    [
        (small_kernel(1, masked=False), [1.0], {}, "kernel must have a mask"),
        (small_kernel(2), [1.0], {}, "steps must have one entry per axis, 2"),
        (small_kernel(1), [0.0], {}, "steps must be positive"),
        (small_kernel(1), [1.0], {"resolution": 1}, "resolution must be at least 2, got 1"),
    ],
)
def test_refusals(kernel: Kernel, steps: list[float], options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        energy_above(kernel, steps, **options)
