"""Generators: small networks from a normalised offset to kernel values.

A generator sees offsets divided by the kernel's extent (so roughly [-1, 1]) and knows nothing of
units, masks or causality; ``Kernel`` joins them.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from ccnn_irregular import _registry
from ccnn_irregular._checks import require
from ccnn_irregular._reprs import one_line
from ccnn_irregular.kernels.formula import TENSORS, Operations
from ccnn_irregular.kernels.substitution import with_tensors

__all__ = ["GENERATORS", "MLP", "SIREN", "Generator", "MAGNet", "OutputRows", "RandomFourier", "register"]

# They set a layer's weight when the layer is called, which no kernel formula does.
_HOOKS_THAT_COMPUTE_WEIGHTS = (WeightNorm, SpectralNorm, BasePruningMethod)
# Nodes of the quadrature over a normal variable that initialisation uses.
_NODES = 64


class Generator(nn.Module, ABC):
    """A function R^d -> R^out_channels with parameters.

    Engines evaluate it on twins that share its tensors (``substitution.with_tensors``), so ``formula`` reaches
    parameters and submodules through ``self``, and writes to neither: several threads may call it.

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

    __repr__ = one_line

    def extra_repr(self) -> str:
        frequency = f", omega_0={self.omega_0:g}" if hasattr(self, "omega_0") else ""
        return f"{self.d} -> {self.out_channels}, hidden={self.output.in_features}{frequency}"

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


GENERATORS: dict[str, Callable[..., Generator]] = {}
"""All generators by name: each is called as ``GENERATORS[name](d, out_channels)``."""


def register(name: str, make: Callable[..., Generator]) -> None:
    """Add a generator, so that recipes of kernels can name it, and is held to tests/kernel_contract.py.

    Args:
        name: a word in small letters.
        make: the class, or a function; called with ``d`` and ``out_channels``, all other arguments have defaults.
            Recipes of kernels give it ``hidden``, the width of its layers, and ``omega_0``, its frequency, too.

    Raises:
        ValueError: a name that is no word in small letters, or that of another generator.
    """
    _registry.add(GENERATORS, "a generator", name, make)


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
            gamma.copy_(torch.distributions.Gamma(shape, 1.0, validate_args=False).sample())
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


@final
class RandomFourier(Generator):
    """Random Fourier features, then a small network (Tancik et al. 2020, arXiv 2006.10739).

    The features are cos(2 pi B x) and sin(2 pi B x) with entries of B drawn once from N(0, omega_0^2) and
    never trained, as the paper has it. The network behind them has SiLU in place of the paper's ReLU, whose
    bends would widen the kernel's spectrum. Its weights keep the second moment of the pre-activations at 1
    (He et al. 2015, arXiv 1502.01852, section 2.2), so kernel values start with variance about 1.

    Args:
        d: number of coordinate axes.
        out_channels: number of kernel values per offset.
        hidden: number of features, even, and width of the hidden layers.
        layers: number of hidden layers behind the features, at least 1.
        omega_0: standard deviation of the features' frequencies, cycles per kernel extent.

    Attributes:
        frequencies: ``(hidden / 2, d)`` the matrix B, a buffer.
    """

    frequencies: Tensor

    def __init__(self, d: int, out_channels: int, hidden: int = 32, layers: int = 1, omega_0: float = 10.0) -> None:
        super().__init__(d, out_channels)
        require(hidden >= 2 and hidden % 2 == 0, "hidden", "be even, a sine and a cosine of each frequency", hidden)
        require(layers >= 1, "layers", "be at least 1", layers)
        require(omega_0 > 0, "omega_0", "be positive", omega_0)
        self.register_buffer("frequencies", torch.randn(hidden // 2, d) * omega_0)
        self.linears = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(layers))
        self._output = nn.Linear(hidden, out_channels)
        for index, linear in enumerate([*self.linears, self._output]):
            # cos^2 + sin^2 = 1: a feature's second moment is 1/2.
            _initialise_normal(linear, 0.5 if index == 0 else _silu_second_moment(1.0))

    @property
    def output(self) -> nn.Linear:
        return self._output

    def formula(self, offsets: Any, operations: Operations) -> Any:
        # cos(z) = sin(z + pi / 2): both halves of the features are one linear map and one sine.
        frequencies = torch.cat([self.frequencies, self.frequencies]) * (2 * math.pi)
        quarter = torch.full_like(frequencies[:, 0], math.pi / 2)
        quarter[len(self.frequencies) :] = 0.0
        hidden = operations.linear(offsets, frequencies, quarter).sin()
        for linear in self.linears:
            hidden = operations.silu(_linear(linear, hidden, operations))
        return _linear(self._output, hidden, operations)


@final
class MLP(Generator):
    """Plain network: linear layers and SiLU, the smooth nonlinearity that costs one exponential.

    KeOps has neither tanh nor erf; of what it has, SiLU = x / (1 + exp(-x)) is smooth, so that the kernel's
    spectrum ends, and does not saturate.

    ``omega_0`` multiplies the first layer: its units bend over a distance of about extent / omega_0, about
    centres that start uniform in [-1, 1]^d. Weights are normal with the variance that keeps the second moment
    of the pre-activations at 1 behind the first layer (He et al. 2015, arXiv 1502.01852, section 2.2, for
    SiLU), so kernel values start with variance about 1 whatever omega_0 is.

    Args:
        d: number of coordinate axes.
        out_channels: number of kernel values per offset.
        hidden: width of the hidden layers.
        layers: number of SiLU layers, at least 1.
        omega_0: sharpness of the first layer's bends, per kernel extent.
    """

    def __init__(self, d: int, out_channels: int, hidden: int = 32, layers: int = 2, omega_0: float = 10.0) -> None:
        super().__init__(d, out_channels)
        require(layers >= 1, "layers", "be at least 1", layers)
        require(omega_0 > 0, "omega_0", "be positive", omega_0)
        self.omega_0 = omega_0
        widths = [d] + [hidden] * layers
        self.linears = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        self._output = nn.Linear(hidden, out_channels)
        first, *others = [*self.linears, self._output]
        assert isinstance(first, nn.Linear)
        with torch.no_grad():
            # Offset minus centre, both uniform in [-1, 1], has variance 2 / 3 on each axis.
            first.weight.normal_(0.0, math.sqrt(3 / (2 * d)))
            first.bias.copy_(-(first.weight * torch.empty_like(first.weight).uniform_(-1, 1)).sum(1))
        for index, linear in enumerate(others):
            _initialise_normal(linear, _silu_second_moment(omega_0 if index == 0 else 1.0))

    @property
    def output(self) -> nn.Linear:
        return self._output

    def formula(self, offsets: Any, operations: Operations) -> Any:
        hidden = offsets
        for index, linear in enumerate(self.linears):
            hidden = _linear(linear, hidden, operations)
            hidden = operations.silu(hidden * self.omega_0 if index == 0 else hidden)
        return _linear(self._output, hidden, operations)


@final
class OutputRows(Generator):
    """Some consecutive outputs of a generator, whose tensors it shares: the others' rows are never multiplied.

    Args:
        inner: the generator.
        start: first output taken.
        count: number of outputs taken.

    Raises:
        ValueError: rows that ``inner`` does not have, or an output layer whose weight is computed (by a weight norm,
            say) and therefore has no rows to choose.
    """

    def __init__(self, inner: Generator, start: int, count: int) -> None:
        super().__init__(inner.d, count)
        require(0 <= start <= inner.out_channels - count, "start", f"leave {count} of {inner.out_channels} rows", start)
        self.inner = inner
        self.start = start
        self._replaced()  # refuses what cannot be cut

    @property
    def output(self) -> nn.Linear:
        """The rows as a layer of their own; its weight is a view, not a parameter."""
        whole = self.inner.output
        layer = nn.Linear(whole.in_features, self.out_channels, bias=whole.bias is not None, device="meta")
        del layer.weight
        layer.weight = self._rows(whole.weight)
        if whole.bias is not None:
            del layer.bias
            layer.bias = self._rows(whole.bias)  # type: ignore[assignment]  # a view
        return layer

    def formula(self, offsets: Any, operations: Operations) -> Any:
        tensors = {name: self._rows(tensor) for name, tensor in self._replaced().items()}
        return with_tensors(self.inner, tensors).formula(offsets, operations)

    def _rows(self, tensor: Tensor) -> Tensor:
        return tensor[self.start : self.start + self.out_channels]

    def _replaced(self) -> dict[str, Tensor]:
        """The tensors of the inner generator's output layer by name, as they are now."""
        output = self.inner.output
        wanted = [parameter for parameter in (output.weight, output.bias) if parameter is not None]
        names = {id(tensor): name for name, tensor in self.inner.named_parameters()}
        plain = all(id(number) in names for number in wanted)
        require(plain, "kernel", "have an output layer of plain parameters to be cut into groups", type(output))
        return {names[id(number)]: number for number in wanted}


def _silu_second_moment(scale: float) -> float:
    """Mean square of SiLU of a normal variable with standard deviation ``scale``."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    squares = nn.functional.silu(torch.from_numpy(nodes) * scale).square()
    return float((squares * torch.from_numpy(weights)).sum() / weights.sum())


@torch.no_grad()
def _initialise_normal(layer: nn.Module, second_moment: float) -> None:
    """Outputs of second moment 1 for inputs of ``second_moment``, no bias."""
    assert isinstance(layer, nn.Linear)
    layer.weight.normal_(0.0, 1 / math.sqrt(layer.in_features * second_moment))
    layer.bias.zero_()


def _linear(layer: nn.Module, x: Any, operations: Operations) -> Any:
    """A linear layer's map in terms of ``operations``."""
    assert isinstance(layer, nn.Linear)  # what module lists hold is not visible to a type checker
    computed = [hook for hook in layer._forward_pre_hooks.values() if isinstance(hook, _HOOKS_THAT_COMPUTE_WEIGHTS)]
    rule = "have weights that no hook computes: use torch.nn.utils.parametrizations"
    require(not computed, "kernel", rule, computed)
    return operations.linear(x, layer.weight, layer.bias)


register("magnet", MAGNet)
register("siren", SIREN)
register("random_fourier", RandomFourier)
register("mlp", MLP)
