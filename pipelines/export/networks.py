"""Trained networks as modules of values alone: standardisation, layers and answer on one grid."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ccnn_irregular._checks import reject, require
from ccnn_irregular.domains import Grid
from ccnn_irregular.pipelines.tasks.classification.data import SampleBatch
from ccnn_irregular.pipelines.tasks.classification.network import ContinuousClassifier
from ccnn_irregular.pipelines.tasks.classification.shiftwise import ShiftwiseClassifier
from ccnn_irregular.pipelines.tasks.segmentation.batch import PERCENTILES, VolumeBatch
from ccnn_irregular.pipelines.tasks.segmentation.network import ContinuousSegmenter
from ccnn_irregular.shiftwise import GridConv, LayerReport, compress, export, plain, settle

__all__ = ["Exporter", "Trained", "require_on_grid", "trained"]


@dataclass
class Exporter:
    """Turns layers on a grid into ordinary ones, or into tiles of which small ones are left out.

    Attributes:
        tolerance: share of a kernel's magnitudes that may be left out; None = no tiles.
        width: taps of a tile.
        layers: what became of each convolution that was asked to be tiles.
    """

    tolerance: float | None = None
    width: int = 5
    layers: list[LayerReport] = field(default_factory=list)

    def __call__(self, layer: nn.Module, source: Grid, query: Grid | None = None) -> nn.Module:
        """A layer, a norm or a network on a grid."""
        if self.tolerance is None or isinstance(layer, nn.BatchNorm1d):
            module = plain(layer, source, query)
            for one in module.modules():
                if isinstance(one, GridConv):
                    one.choose_layout()
            return module
        exported = export(layer, source, self.tolerance, self.width, query=query)
        self.layers += exported.layers
        return exported.module


@dataclass(frozen=True)
class Trained:
    """A trained network and its form for a file.

    Attributes:
        before: the network as it was trained: tensors in, logits out.
        after: the same on one grid as plain PyTorch.
        shapes: of its inputs by their names, without the batch.
    """

    before: Callable[..., Tensor]
    after: nn.Module
    shapes: dict[str, tuple[int, ...]]

    def noise(self, batch: int) -> tuple[Tensor, ...]:
        """Inputs for where no data are at hand: white noise, as long as the grid."""
        draw = torch.Generator().manual_seed(0)
        values = torch.randn(batch, *self.shapes["values"], generator=draw)
        whole = torch.full((batch,), self.shapes["values"][-1])
        return (values, whole) if "lengths" in self.shapes else (values,)


def trained(model: Any, grid: Grid, exporter: Exporter, *, padded: bool = False) -> Trained:
    """A network of one of the tasks on a grid.

    Args:
        model: the Lightning module, with its weights.
        grid: of the samples or volumes.
        exporter: makes ordinary layers of continuous ones.
        padded: whether samples may end before the grid does: their lengths are a second input.

    Raises:
        ValueError: a network that is none of those that can be exported.
    """
    network = model.network
    for kind, build in _KINDS.items():
        if isinstance(network, kind):
            return build(model, grid, exporter, padded)
    names = ", ".join(kind.__name__ for kind in _KINDS)
    reject("run_dir", f"hold a network of one of the kinds {names}", type(network).__name__)


def require_on_grid(network: Any) -> None:
    """Refuse a network that no grid helps, before data are read or a grid is asked for."""
    rule = (
        "hold a network that reads samples on a grid to be exported, which no option makes of this one (ccnn predict "
        "answers for files; of series that are sampled uniformly, train with --data.window LENGTH and "
        "--model.network.init_args.presence false, and export that run)"
    )
    got = "presence true: a channel of series at times of their own"
    require(not getattr(network, "presence", False), "run_dir", rule, got)


class _Classifier(nn.Module):
    """Samples on a grid to logits."""

    copied: Tensor | None

    def __init__(self, network: Any, grid: Grid, parts: Sequence[nn.Module]) -> None:
        super().__init__()
        self.standardise, self.grid = copy.deepcopy(network.standardise), grid
        copies = torch.arange(network.in_channels).repeat_interleave(network.copies)
        self.register_buffer("copied", copies if network.copies > 1 else None)
        self.layers = nn.Sequential(*parts)

    def forward(self, values: Tensor, lengths: Tensor | None = None) -> Tensor:
        sampled = None
        if lengths is not None:
            sampled = (torch.arange(self.grid.sizes[0], device=lengths.device) < lengths[:, None])[:, None]
        values = self.standardise(values, self.grid, sampled)
        return self.layers(values if self.copied is None else values.index_select(1, self.copied))


def _classifier(model: Any, grid: Grid, exporter: Exporter, padded: bool) -> Trained:
    network: ContinuousClassifier = model.network
    _require_axes(grid, next(iter(network.kernels().values())).d)
    parts: list[nn.Module] = []
    read = grid
    if network.bank is not None:
        read = network.bank_grid
        parts += [exporter(network.bank, grid, read), exporter(network.bank_norm, read), nn.GELU()]
    parts.append(exporter(network.cnn, read))

    def before(values: Tensor, lengths: Tensor | None = None) -> Tensor:
        sampled = None if lengths is None else (torch.arange(grid.sizes[0]) < lengths[:, None])[:, None]
        return network(SampleBatch(values, grid, torch.zeros(len(values), dtype=torch.int64), sampled=sampled))

    shapes: dict[str, tuple[int, ...]] = {"values": (network.in_channels, *grid.sizes)}
    return Trained(before, _Classifier(network, grid, parts).eval(), shapes | ({"lengths": ()} if padded else {}))


class _Standardised(nn.Module):
    """Samples on a grid, standardised, through a network of values."""

    def __init__(self, standardise: nn.Module, grid: Grid, network: nn.Module) -> None:
        super().__init__()
        self.standardise, self.grid, self.network = copy.deepcopy(standardise), grid, network

    def forward(self, values: Tensor) -> Tensor:
        return self.network(self.standardise(values, self.grid))


def _shiftwise(model: Any, grid: Grid, exporter: Exporter, padded: bool) -> Trained:
    network: ShiftwiseClassifier = model.network
    _require_axes(grid, network.axes)
    require(not padded, "the run", "read samples as long as their grid", "samples that end before (data.window)")

    def before(values: Tensor) -> Tensor:
        return network(SampleBatch(values, grid, torch.zeros(len(values), dtype=torch.int64)))

    values = torch.randn(1, network.in_channels, *grid.sizes, generator=torch.Generator().manual_seed(0))
    after = _Standardised(network.standardise, grid, settle(compress(network.net), values))
    return Trained(before, after.eval(), {"values": (network.in_channels, *grid.sizes)})


class _Intensities(nn.Module):
    """Volumes as ``pipelines.tasks.segmentation.batch.standardised`` has them, without float64.

    Values are first brought to [0, 1] between the percentiles, so that no digit is lost.
    """

    def __init__(self, count: int, compressed: bool) -> None:
        super().__init__()
        self.compressed = compressed
        self.places = [share / 100 * (count - 1) for share in PERCENTILES]

    def forward(self, values: Tensor) -> Tensor:
        flat = values.flatten(2)
        flat = flat - flat.amin(2, keepdim=True)  # exact, where values are large and alike
        ordered = flat.sort(2).values
        low, high = (self._between(ordered, place) for place in self.places)
        least, most = ordered[:, :, :1], ordered[:, :, -1:]
        reach = torch.where(high > low, high - low, most - least)
        reach = torch.where(reach > 0, reach, torch.ones_like(reach))
        low, high, exact = low - low, (high - low) / reach, (flat - low) / reach
        cut = torch.minimum(torch.maximum(exact, low), high)
        mean = cut.mean(2, keepdim=True)
        deviation = _deviation(cut)
        if self.compressed:
            deviation = torch.where(high > low, deviation, _deviation(exact))
            known = most > least
        else:
            known = high > low
        safe = torch.where(known, deviation, torch.ones_like(deviation))
        result = (cut - mean) / safe
        if self.compressed:
            beyond = (exact - cut) / safe
            result = result + beyond.sign() * (1 + beyond.abs()).log()
        return torch.where(known, result, torch.zeros_like(result)).reshape(values.shape)

    def _between(self, ordered: Tensor, place: float) -> Tensor:
        first = int(place)
        last = min(first + 1, ordered.shape[2] - 1)
        one, other = ordered[:, :, first : first + 1], ordered[:, :, last : last + 1]
        return one + (place - first) * (other - one)


def _deviation(values: Tensor) -> Tensor:
    return (values - values.mean(2, keepdim=True)).square().mean(2, keepdim=True).sqrt()


def _segmenter(model: Any, grid: Grid, exporter: Exporter, padded: bool) -> Trained:
    network: ContinuousSegmenter = model.network
    _require_axes(grid, len(network.steps))
    intensities = _Intensities(grid.count, model.intensities == "compressed")

    def before(values: Tensor) -> Tensor:
        batches = (VolumeBatch("", one[None], grid, grid, None) for one in values)
        return torch.cat([network(model.standardised(batch)) for batch in batches])

    after = nn.Sequential(intensities, exporter(network.unet, grid)).eval()
    return Trained(before, after, {"values": (network.in_channels, *grid.sizes)})


def _require_axes(grid: Grid, axes: int) -> None:
    require(grid.d == axes, "size", f"have {axes} entries, one for each axis of the network", list(grid.sizes))


_KINDS: dict[type[nn.Module], Callable[[Any, Grid, Exporter, bool], Trained]] = {
    ContinuousClassifier: _classifier,
    ContinuousSegmenter: _segmenter,
    ShiftwiseClassifier: _shiftwise,
}
