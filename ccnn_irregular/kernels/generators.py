"""Generators: small networks from a normalised offset to kernel values.

A generator sees offsets divided by the kernel's extent (so roughly [-1, 1]) and knows nothing of
units, masks or causality; ``Kernel`` joins them.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from typing import Any, final

import torch
from torch import Tensor, nn

from ccnn_irregular._checks import require
from ccnn_irregular.kernels.formula import TENSORS, Operations

__all__ = ["SIREN", "Generator", "MAGNet"]


class Generator(nn.Module, ABC):
    """A function R^d -> R^out_channels with parameters.

    Attributes:
        d: number of coordinate axes.
        out_channels: number of kernel values per offset.
    """

    def __init__(self, d: int, out_channels: int) -> None:
        super().__init__()
        require(d >= 1, "d", "be at least 1", d)
        require(out_channels >= 1, "out_channels", "be at least 1", out_channels)
        self.d = d
        self.out_channels = out_channels

    @property
    @abstractmethod
    def output(self) -> nn.Linear:
        """The last, linear layer; scaling it scales the kernel."""

    @abstractmethod
    def formula(self, offsets: Any, operations: Operations) -> Any:
        """Kernel values at normalised offsets, in terms of ``operations``."""

    def forward(self, offsets: Tensor) -> Tensor:
        """Kernel values ``(..., out_channels)`` at normalised offsets ``(..., d)``."""
        return self.formula(offsets, TENSORS)


@final
class SIREN(Generator):
    """Sinusoidal network (Sitzmann et al. 2020, arXiv 2006.09661), initialised as its section 3.2 states.

    ``omega_0`` multiplies the first layer only: with the hidden weights drawn from
    U(-sqrt(6/n), sqrt(6/n)) the activations' distribution is the paper's.

    Args:
        d: number of coordinate axes.
        out_channels: number of kernel values per offset.
        hidden: width of the hidden layers.
        layers: number of sine layers, at least 1.
        omega_0: frequency of the first layer, in radians per kernel extent.
    """

    def __init__(self, d: int, out_channels: int, hidden: int = 32, layers: int = 2, omega_0: float = 10.0) -> None:
        super().__init__(d, out_channels)
        require(layers >= 1, "layers", "be at least 1", layers)
        require(omega_0 > 0, "omega_0", "be positive", omega_0)
        self.omega_0 = omega_0
        widths = [d] + [hidden] * layers
        self.linears = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        self._output = nn.Linear(hidden, out_channels)
        with torch.no_grad():
            for index, linear in enumerate(self.linears):
                assert isinstance(linear, nn.Linear)
                # The first layer's inputs lie in [-1, 1], the hidden layers' are arcsine distributed.
                bound = 1 / d if index == 0 else math.sqrt(6 / hidden)
                linear.weight.uniform_(-bound, bound)
            bound = math.sqrt(6 / hidden)
            self._output.weight.uniform_(-bound, bound)
            self._output.bias.zero_()

    @property
    def output(self) -> nn.Linear:
        return self._output

    def formula(self, offsets: Any, operations: Operations) -> Any:
        hidden = offsets
        for index, linear in enumerate(self.linears):
            hidden = _linear(linear, hidden, operations)
            hidden = (hidden * self.omega_0).sin() if index == 0 else hidden.sin()
        return _linear(self._output, hidden, operations)


@final
class MAGNet(Generator):
    """Multiplicative anisotropic Gabor network (Romero et al. 2022, arXiv 2110.08059).

    ``layers + 1`` Gabor filters g_l(x) = exp(-1/2 sum_d (gamma_d (x_d - mu_d))^2) sin(W x + b) are
    multiplied in turn with ``layers`` linear maps: h_0 = g_0(x), h_l = (A_l h_{l-1} + a_l) g_l(x).

    Args:
        d: number of coordinate axes.
        out_channels: number of kernel values per offset.
        hidden: width of the hidden layers.
        layers: number of hidden linear maps.
        omega_0: base frequency; W starts as torch's default initialisation times 2 pi omega_0 gamma.
        spread: the filters' centres mu start uniform in [-spread, spread]; the published value is
            1.667 times the relative width of the mask, 0.075.
        one_sided: start the centres in [0, spread]: for causal kernels, which see lags >= 0 only.
    """

    def __init__(
        self,
        d: int,
        out_channels: int,
        hidden: int = 32,
        layers: int = 3,
        omega_0: float = 100.0,
        spread: float = 0.125,
        *,
        one_sided: bool = False,
    ) -> None:
        super().__init__(d, out_channels)
        require(layers >= 1, "layers", "be at least 1", layers)
        require(omega_0 > 0, "omega_0", "be positive", omega_0)
        require(spread > 0, "spread", "be positive", spread)
        self.linears = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(layers))
        self.waves = nn.ModuleList(nn.Linear(d, hidden) for _ in range(layers + 1))
        self.gammas = nn.ParameterList(torch.empty(hidden, d) for _ in range(layers + 1))
        self.centres = nn.ParameterList(torch.empty(hidden, d) for _ in range(layers + 1))
        self._output = nn.Linear(hidden, out_channels)
        self._initialise(omega_0, spread, one_sided)

    @torch.no_grad()
    def _initialise(self, omega_0: float, spread: float, one_sided: bool) -> None:
        for level, (wave, gamma, centre) in enumerate(zip(self.waves, self.gammas, self.centres, strict=True)):
            assert isinstance(wave, nn.Linear)
            shape = torch.full_like(gamma, 6.0 / (level + 1))
            gamma.copy_(torch.distributions.Gamma(shape, 1.0).sample())
            centre.uniform_(0.0 if one_sided else -spread, spread)
            wave.weight.mul_(2 * math.pi * omega_0 * gamma)
            wave.bias.zero_()
        for linear in self.linears:
            assert isinstance(linear, nn.Linear)
            nn.init.kaiming_uniform_(linear.weight, nonlinearity="linear")
            nn.init.ones_(linear.bias)
        nn.init.kaiming_uniform_(self._output.weight, nonlinearity="linear")
        nn.init.zeros_(self._output.bias)

    @property
    def output(self) -> nn.Linear:
        return self._output

    def formula(self, offsets: Any, operations: Operations) -> Any:
        hidden = self._filter(0, offsets, operations)
        for level, linear in enumerate(self.linears):
            hidden = _linear(linear, hidden, operations)
            hidden = hidden * self._filter(level + 1, offsets, operations)
        return _linear(self._output, hidden, operations)

    def _filter(self, level: int, offsets: Any, operations: Operations) -> Any:
        gamma, centre, wave = self.gammas[level], self.centres[level], self.waves[level]
        # Axis by axis: an array (..., hidden, d) never exists, on tensors or in KeOps' registers.
        exponent: Any = 0.0
        for axis in range(self.d):
            scaled = operations.component(offsets, axis) * operations.vector(gamma[:, axis])
            distance = scaled - operations.vector(gamma[:, axis] * centre[:, axis])
            exponent = distance * distance + exponent
        return (exponent * -0.5).exp() * _linear(wave, offsets, operations).sin()


def _linear(layer: nn.Module, x: Any, operations: Operations) -> Any:
    """A linear layer's map in terms of ``operations``."""
    assert isinstance(layer, nn.Linear)  # what module lists hold is not visible to a type checker
    return operations.linear(x, layer.weight, layer.bias)
