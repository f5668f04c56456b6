"""Continuous convolutions as ``nn.Module``s."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn
from torch._compile import _disable_dynamo

from ccnn_irregular._autocast import outside_autocast
from ccnn_irregular._checks import require
from ccnn_irregular._reprs import one_line
from ccnn_irregular.domains import Domain
from ccnn_irregular.kernels import Kernel
from ccnn_irregular.kernels.generators import OutputRows
from ccnn_irregular.layers.pointwise import PointwiseLinear, require_groups, shuffle_channels
from ccnn_irregular.layers.positions import mean_square, per_channel, with_weights_in_values
from ccnn_irregular.layers.scale import scale_kernel, warn_of_scale, white_noise_gain
from ccnn_irregular.operators import Plan
from ccnn_irregular.operators.layout import out_of_range_unannounced
from ccnn_irregular.solver import Solver

__all__ = ["ContinuousConv", "SeparableContinuousConv"]

# Beyond these gains float32 may have lost digits of a result.
_LEAST_GAIN, _MOST_GAIN = 2.0**-40, 2.0**40


@final
class ContinuousConv(nn.Module):
    """y(q) = bias + sum_n w_n K(q - p_n) x_n.

    Which kind of convolution it is, strided, transposed, dilated, causal, periodic or any other, is decided by the
    kernel, the domains and ``groups``, on grids, points and products alike (docs/convolutions.md).

    Under autocast the convolution itself stays in the kernel's dtype: no FFT exists in bfloat16, and positions do
    not survive eight bits.

    Args:
        kernel: depthwise (C,) or full (D, C), in coordinate units; of shape (D, C / groups) where it is grouped.
        bias: add a learned constant per output channel.
        groups: number of groups of consecutive channels that are convolved with one another only, as in
            ``torch.nn.Conv1d``. As many groups as channels make a depthwise convolution with D / C results each.
        shuffle: interleave the groups of the result, see ``shuffle_channels``.
        solver: engine and tolerance of the sums, see ``Solver``.

    Raises:
        ValueError: groups that do not divide the kernel's output channels, or a depthwise kernel cut into groups.
    """

    def __init__(
        self,
        kernel: Kernel,
        *,
        bias: bool = True,
        groups: int = 1,
        shuffle: bool = False,
        solver: Solver = Solver(),
    ) -> None:
        super().__init__()
        require_groups(groups, kernel.out_channels, shuffle)
        require(groups == 1 or not kernel.depthwise, "kernel", "have shape (D, C / groups) for groups", kernel.shape)
        self.kernel = kernel
        self.groups = groups
        self.shuffle = shuffle
        self.solver = solver
        self.bias = nn.Parameter(torch.zeros(kernel.out_channels)) if bias else None

    __repr__ = one_line

    def extra_repr(self) -> str:
        channels = f"{self.in_channels} -> {self.kernel.out_channels}"
        return f"{channels}, {self.kernel!r}{_options(self, self.groups, self.shuffle, self.solver)}"

    @property
    def in_channels(self) -> int:
        """Number of channels the layer reads."""
        return self.groups * self.kernel.in_channels

    def forward(self, values: Tensor, source: Domain, query: Domain | None = None, plan: Plan | None = None) -> Tensor:
        """Convolve ``values`` on ``source`` and evaluate at ``query``; see ``ccnn_irregular.convolve``."""
        result = self.integral(values, source, query, plan)
        result = result if self.bias is None else result + per_channel(self.bias, result)
        return shuffle_channels(result, self.groups) if self.shuffle else result

    # The choice of engine and the extent of a kernel depend on values: torch.compile leaves them as they are. This
    # form of torch.compiler.disable does not import the compiler, a second's work, with the package.
    @_disable_dynamo
    @outside_autocast
    def integral(self, values: Tensor, source: Domain, query: Domain | None = None, plan: Plan | None = None) -> Tensor:
        """The convolution without the bias, not shuffled."""
        result = self._convolved(values, source, query, plan)
        warn_of_scale(self.kernel, values, result, source)
        return result

    def _convolved(self, values: Tensor, source: Domain, query: Domain | None, plan: Plan | None) -> Tensor:
        if self.groups == 1:
            return self.solver.convolve(self.kernel, values, source, query, plan)
        fits = values.ndim >= 2 and values.shape[1] == self.in_channels
        require(fits, "values", f"have {self.in_channels} channels on axis 1", tuple(values.shape))
        kernels = self._group_kernels()
        if source.weighs_channels:
            require(plan is None, "plan", "be None for a grouped kernel where weights differ between channels", plan)
            query = source if query is None else query
            values, source = with_weights_in_values(values, source)
        if plan is None:
            batch = len(values) if source.samples is None else 1
            plan = self.solver.plan(kernels, source, query, batch=batch)
        # One channel a group: each is read by D / C depthwise kernels. Else one full kernel for each group.
        multiplier = self.kernel.out_channels // self.groups
        single = len(kernels) == 1
        blocks = (values.repeat_interleave(multiplier, 1),) if single else values.split(self.kernel.in_channels, 1)
        results = [
            self.solver.convolve(kernel, block, source, query, plan)
            for kernel, block in zip(kernels, blocks, strict=True)
        ]
        return torch.cat(results, 1)

    def _group_kernels(self) -> list[Kernel]:
        """Kernels that share this one's tensors: one full kernel a group, or a depthwise one for groups of one."""
        kernel, (rows, columns) = self.kernel, (self.kernel.out_channels // self.groups, self.kernel.in_channels)
        if columns == 1:
            return [kernel.replace(shape=(kernel.out_channels,))]
        count = rows * columns
        generators = [OutputRows(kernel.generator, group * count, count) for group in range(self.groups)]
        return [kernel.replace(generator=generator, shape=(rows, columns)) for generator in generators]

    @_disable_dynamo
    def plan(self, source: Domain, query: Domain | None = None, *, batch: int = 1) -> Plan:
        """Geometry for several calls between the same domains; see ``ccnn_irregular.make_plan``."""
        kernel = self.kernel if self.groups == 1 else self._group_kernels()
        return self.solver.plan(kernel, source, query, batch=batch)

    @torch.no_grad()
    @outside_autocast
    def calibrate(self, source: Domain, query: Domain | None = None) -> None:
        """Scale the kernel so that white noise sampled on ``source`` keeps its variance.

        The output variance for white noise of variance 1 is sum_n w_n^2 K(q - p_n)^2, here averaged
        over up to 64 queries and the output channels: it depends on the kernel's L2 mass and on the
        density of the sampling, which only the caller knows. Queries of samples without any point are left out. Any
        unit will do: where the factor is beyond what parameters should be, or the output layer's weight is computed
        (by a weight norm, say), it goes to ``kernel.scale``.

        Raises:
            ValueError: no pair of source and query lies within the kernel's support.
        """
        query = source if query is None else query
        scale_kernel(self.kernel, white_noise_gain(self.kernel, source, query, self.groups))


@final
class SeparableContinuousConv(nn.Module):
    """Depthwise continuous convolution followed by a linear mix of the channels.

    Args:
        kernel: depthwise kernel of the input's channels.
        out_channels: number of channels after the mix.
        bias: learned constants after both steps.
        groups: number of groups of channels that are mixed with one another only.
        shuffle: interleave the groups of the result, see ``shuffle_channels``.
        solver: engine and tolerance of the sums, see ``Solver``.

    Raises:
        ValueError: the kernel is not depthwise, or groups that do not divide both numbers of channels.
    """

    def __init__(
        self,
        kernel: Kernel,
        out_channels: int,
        *,
        bias: bool = True,
        groups: int = 1,
        shuffle: bool = False,
        solver: Solver = Solver(),
    ) -> None:
        super().__init__()
        require(kernel.depthwise, "kernel", "be depthwise, of shape (C,)", kernel.shape)
        self.depthwise = ContinuousConv(kernel, bias=bias, solver=solver)
        self.pointwise = PointwiseLinear(kernel.out_channels, out_channels, bias=bias, groups=groups, shuffle=shuffle)

    __repr__ = one_line

    def extra_repr(self) -> str:
        mix = self.pointwise
        channels = f"{mix.in_features} -> {mix.out_features}"
        return f"{channels}, {self.kernel!r}{_options(mix, mix.groups, mix.shuffle, self.depthwise.solver)}"

    @property
    def kernel(self) -> Kernel:
        """The depthwise kernel."""
        return self.depthwise.kernel

    def forward(self, values: Tensor, source: Domain, query: Domain | None = None, plan: Plan | None = None) -> Tensor:
        """Convolve ``values`` on ``source``, evaluate at ``query``, mix the channels."""
        # The mix adds the depthwise bias: one pass over the values less.
        return self.pointwise(self.depthwise.integral(values, source, query, plan), self.depthwise.bias)

    @torch.no_grad()
    @outside_autocast
    def calibrate(
        self, source: Domain, query: Domain | None = None, values: Tensor | None = None, plan: Plan | None = None
    ) -> None:
        """Scale the kernel so that the layer keeps the mean square of its input.

        Args:
            source: sampling of the input.
            query: where the layer is evaluated; None = at the source.
            values: input to keep the mean square of, over all channels and positions, the latter by their quadrature
                weights. Behind other layers neighbouring values resemble each other, which a smooth kernel
                amplifies: layers in a row are calibrated first to last, each on what the ones before it send
                (Mishkin & Matas 2016, arXiv 1511.06422). None = white noise, see ``ContinuousConv.calibrate``;
                the mix keeps its variance by its initialisation.
            plan: from ``self.depthwise.plan``, if at hand.

        Raises:
            ValueError: the kernel's support holds no pair of source and query, or nothing but zeros arrives.
        """
        if values is None:
            self.depthwise.calibrate(source, query)
            return
        power = mean_square(values, source)
        require(power > 0, "values", "not be zero everywhere", power)
        gain = self._power_of_result(values, source, query, plan) / power
        if not _LEAST_GAIN < gain < _MOST_GAIN:
            self.depthwise.calibrate(source, query)
            gain = self._power_of_result(values, source, query, plan) / power
        scale_kernel(self.kernel, gain)

    def _power_of_result(self, values: Tensor, source: Domain, query: Domain | None, plan: Plan | None) -> float:
        with out_of_range_unannounced():
            convolved = self.depthwise._convolved(values, source, query, plan)
        result = self.pointwise.mixed(convolved, None)
        return mean_square(result, source if query is None else query)


def _options(biased: nn.Module, groups: int, shuffle: bool, solver: Solver) -> str:
    """What of a layer is not as usual, for its repr."""
    unusual = [
        ", bias=False" if biased.bias is None else "",
        f", groups={groups}" if groups > 1 else "",
        ", shuffle=True" if shuffle else "",
        f", engine={solver.engine!r}" if solver.engine != Solver().engine else "",
        f", rtol={solver.rtol:g}" if solver.rtol != Solver().rtol else "",
    ]
    return "".join(unusual)
