"""The network that makes gridded fields finer: cubic interpolation, and a CCNN for what it misses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ccnn_irregular._checks import require
from ccnn_irregular._reprs import sized
from ccnn_irregular.datasets.processing.moments import mean_and_deviation
from ccnn_irregular.domains import Axis, Grid
from ccnn_irregular.kernels import KernelSpec
from ccnn_irregular.layers import ContinuousConv
from ccnn_irregular.networks import CCNN
from ccnn_irregular.pipelines.tasks.downscale.fields import Coarse
from ccnn_irregular.pipelines.tasks.downscale.gaps import answerable, beside, filled
from ccnn_irregular.pipelines.train.reach import sampling_of, warn_of_kernel
from ccnn_irregular.solver import Solver

if TYPE_CHECKING:
    from ccnn_irregular.pipelines.tasks.downscale.data import DownscalingBatch

__all__ = ["DownscalingNetwork", "FieldFormat", "cubic", "interpolation"]

_GHOSTS = 2
# Rings of missing nodes that cubic interpolation looks at from a place that is answered.
_RINGS = 2
# Nodes that cubic interpolation, and the difference from the neighbours, look at beside a place, and what fills them.
_LEAST_REACH = 3 + _RINGS


@dataclass(frozen=True)
class FieldFormat:
    """What a trained network reads and answers.

    Attributes:
        variables: the channels.
        units: unit of each variable.
        factor: fine nodes per coarse node along each axis.
        coarse: how a coarse field follows from a fine one.
        steps: of the coarse nodes along rows and columns.
        unit: of the steps, along rows and columns.
    """

    variables: tuple[str, ...]
    units: tuple[str, ...]
    factor: int
    coarse: Coarse
    steps: tuple[float, float]
    unit: tuple[str, str]

    def plain(self) -> dict[str, Any]:
        """As values that a checkpoint may hold."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_plain(cls, content: dict[str, Any]) -> FieldFormat:
        """The inverse of ``plain``."""
        made: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in content.items()
        }
        return cls(**made)


class DownscalingNetwork(nn.Module):
    """Coarse fields to fine ones: y = interpolation + scale x CCNN.

    The CCNN (head "anywhere") reads each variable, standardised, and its difference from the mean of the four
    neighbours, in units of that difference's own standard deviation: what is missing between the nodes goes with the
    finest that the nodes show, which may be a thousandth of a field's range. Before training the answer is the
    interpolation's. A place is influenced as far as all kernels reach together, see ``reach``.

    Values may be missing (nan). The CCNN reads zeros there, as it does beyond the ends of the axes; differences are
    from the known neighbours; interpolation has missing nodes ``filled``. The answer is nan where the next coarse node
    is missing, see ``answerable``.

    Args:
        in_channels: number of variables.
        hidden_channels: of all blocks.
        blocks: number of residual blocks.
        kernel: recipe of all kernels, coordinate units along rows and columns.
        dropout: probability in every block.
    """

    leaves_gaps = True  # no value where the coarse field has none

    mean: Tensor
    scale: Tensor
    detail: Tensor
    residual: Tensor

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int = 24,
        blocks: int = 2,
        *,
        kernel: KernelSpec,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        require(in_channels >= 1, "in_channels", "be at least 1", in_channels)
        self.in_channels = in_channels
        self.hidden_channels = hidden_channels
        self.kernel = kernel.on_axes(2)
        self.cnn = CCNN(
            2 * in_channels,
            hidden_channels,
            in_channels,
            kernel=self.kernel,
            blocks=blocks,
            dropout=dropout,
            head="anywhere",
            solver=Solver("fft"),
        )
        for name in ("scale", "detail", "residual"):
            self.register_buffer(name, torch.ones(in_channels))
        self.register_buffer("mean", torch.zeros(in_channels))
        self.format: FieldFormat | None = None

    def extra_repr(self) -> str:
        return f"{self.in_channels} variables, {sized(self)}"

    def get_extra_state(self) -> dict[str, Any]:
        return {} if self.format is None else self.format.plain()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.format = FieldFormat.from_plain(state) if state else None

    @torch.no_grad()
    def prepare(self, batch: DownscalingBatch, values: None = None) -> None:
        """Standardise and calibrate by training fields, by their known values; nothing else is learned here.

        Raises:
            ValueError: a variable without known values.
        """
        coarse, source = batch.coarse, batch.source
        unknown = coarse.isnan().transpose(0, 1).flatten(1).all(1).nonzero().flatten().tolist()
        require(not unknown, "coarse", "have known values of each variable", f"none of variables {unknown}")
        coarse_nodes = sampling_of(source, "the coarse nodes")
        warn_of_kernel(self.kernel, next(iter(self.cnn.kernels().values())).support, coarse_nodes)
        mean, deviation = mean_and_deviation(_rows(coarse))
        self.mean.copy_(mean)
        self.scale.copy_(_spread(deviation))
        self.detail.copy_(_spread(mean_and_deviation(_rows(_difference(coarse, source)))[1]))
        errors = (batch.fine - interpolation(coarse, source, batch.query)).double()
        self.residual.copy_(_spread(errors.square().nanmean((0, 2, 3)).sqrt()))
        self.cnn.calibrate(source, self._inputs(coarse, source))
        nn.init.zeros_(self.cnn.output.weight)
        assert self.cnn.output.bias is not None
        nn.init.zeros_(self.cnn.output.bias)

    def forward(self, values: Tensor, source: Grid, query: Grid) -> Tensor:
        """``(B, C, rows, columns)`` on the coarse grid to the same on the fine one; nan is missing."""
        correction: Tensor = self.cnn(self._inputs(values, source), source, query)
        return torch.addcmul(interpolation(values, source, query), correction, _channels(self.residual))

    def _inputs(self, values: Tensor, source: Grid) -> Tensor:
        standard = (values - _channels(self.mean)) / _channels(self.scale)
        inputs = torch.cat([standard, _difference(values, source) / _channels(self.detail)], 1)
        return inputs.masked_fill(values.isnan().repeat(1, 2, 1, 1), 0.0)

    def reach(self, steps: Sequence[float]) -> tuple[int, int]:
        """Coarse nodes beyond a place, along rows and columns, that its answer may depend on."""
        supports = [layer.kernel.support.tolist() for layer in self.modules() if isinstance(layer, ContinuousConv)]
        total = [sum(support) for support in zip(*supports, strict=True)]
        rows, columns = (math.ceil(far / step) + _LEAST_REACH for far, step in zip(total, steps, strict=True))
        return rows, columns


def interpolation(values: Tensor, source: Grid, query: Grid) -> Tensor:
    """``cubic`` with missing values ``filled``: ``(B, C, rows, columns)``, nan where it is not ``answerable``."""
    if not bool(values.isnan().any()):
        return cubic(values, source, query)
    smooth = cubic(filled(values, source, _RINGS), source, query)
    return smooth.masked_fill(~answerable(values, source, query), torch.nan)


def cubic(values: Tensor, source: Grid, query: Grid) -> Tensor:
    """Cubic convolution (Keys 1981, IEEE Trans. ASSP 29:1153): ``(B, C, rows, columns)`` at the query's nodes.

    Third order, and local: four nodes along each axis. Beyond the ends of an axis that does not repeat values go on
    as Keys has them, so that quadratics are exact up to there.

    Raises:
        ValueError: an axis of less than 3 nodes that does not repeat.
    """
    for axis, (nodes, wanted) in enumerate(zip(source.axes, query.axes, strict=True)):
        values = _cubic_along(values, 2 + axis, nodes, wanted)
    return values


def _cubic_along(values: Tensor, dim: int, nodes: Axis, wanted: Axis) -> Tensor:
    padded = _extended(values, dim, nodes.periodic)
    places = (wanted.nodes() - nodes.start) / nodes.step
    first = (places + 1e-9).floor().clamp(-1, nodes.size - 1)
    if nodes.periodic:
        first = (places + 1e-9).floor()
    t = (places - first).to(values.dtype)
    index = first.long()
    if nodes.periodic:
        index = index.remainder(nodes.size)
    weights = (
        ((2 - t) * t - 1) * t / 2,
        ((3 * t - 5) * t * t + 2) / 2,
        ((4 - 3 * t) * t + 1) * t / 2,
        (t - 1) * t * t / 2,
    )
    along = [1] * values.ndim
    along[dim] = len(t)
    result: Tensor | None = None
    for offset, weight in enumerate(weights, _GHOSTS - 1):
        term = padded.index_select(dim, index + offset)
        weight = weight.reshape(along)
        result = term.mul_(weight) if result is None else result.addcmul_(term, weight)
    assert result is not None
    return result


def _extended(values: Tensor, dim: int, periodic: bool) -> Tensor:
    """Two more values at both ends."""
    count = values.shape[dim]
    if periodic:
        return torch.cat([values.narrow(dim, count - _GHOSTS, _GHOSTS), values, values.narrow(dim, 0, _GHOSTS)], dim)
    require(count >= 3, "values", "have 3 nodes or more along each axis", tuple(values.shape))
    before = [values.select(dim, place) for place in range(3)]
    after = [values.select(dim, count - 1 - place) for place in range(3)]
    for ends in (before, after):
        for _ in range(_GHOSTS):
            ends.insert(0, 3 * ends[0] - 3 * ends[1] + ends[2])
    outer = [torch.stack(ends[:_GHOSTS], dim) for ends in (before, after)]
    return torch.cat([outer[0], values, outer[1].flip(dim)], dim)


def _difference(values: Tensor, source: Grid) -> Tensor:
    """Values minus the mean of their four neighbours; one that is missing or beyond an end is the value itself."""
    total = torch.zeros_like(values)
    for dim, axis in enumerate(source.axes, 2):
        for neighbour in beside(values, dim, axis, torch.nan):
            total += torch.where(neighbour.isnan(), values, neighbour)
    return values - total / 4


def _rows(values: Tensor) -> Tensor:
    """``(B, C, rows, columns)`` as ``(N, C)``."""
    return values.movedim(1, -1).flatten(0, -2)


def _channels(numbers: Tensor) -> Tensor:
    return numbers.reshape(1, -1, 1, 1)


def _spread(numbers: Tensor) -> Tensor:
    """A channel that does not vary keeps its scale."""
    return torch.where(numbers > 0, numbers, 1.0)
