"""The scale of a kernel on a sampling: how it is measured, set, and warned of."""

from __future__ import annotations

import math
import warnings
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch._compile import _disable_dynamo

from ccnn_irregular._checks import require
from ccnn_irregular._transforms import transforms_active
from ccnn_irregular.domains import Domain
from ccnn_irregular.kernels import Kernel
from ccnn_irregular.operators.engines.reference import PairGeometry

__all__ = ["scale_kernel", "warn_of_scale", "warn_uncalibrated", "white_noise_gain"]

_CALIBRATION_QUERIES = 64
# A kernel's factor stays in its output layer's weight between these. Beyond them, where weights would be so small or
# large that steps of an optimiser make no sense, it goes to the kernel's scale.
_LEAST_IN_WEIGHTS, _MOST_IN_WEIGHTS = 2.0**-20, 2.0**20
# A result so much smaller or larger than what it was made of is lost on the layers behind it: norms add 1e-5 to a
# variance.
_LEAST_RESPONSE, _MOST_RESPONSE = 1e-4, 1e4
# Values and offsets that are looked at to find out.
_LOOKED_AT, _OFFSETS_LOOKED_AT = 1024, 64
_LOOKED_AT_IN_TRAINING: WeakSet[nn.Module] = WeakSet()


@torch.no_grad()
def scale_kernel(kernel: Kernel, gain: float) -> None:
    """Divide the kernel by the square root of ``gain``, the mean square of what white noise of unit power becomes."""
    fits = 0 < gain < math.inf
    require(fits, "source", "reach the queries within the kernel's support", f"a response of {gain}")
    kernel.calibrated = True
    factor, output = gain**-0.5, kernel.generator.output
    tensors = [parameter for parameter in (output.weight, output.bias) if parameter is not None]
    in_kernel = {id(parameter) for parameter in kernel.parameters()}
    if all(id(tensor) in in_kernel for tensor in tensors) and _LEAST_IN_WEIGHTS < factor < _MOST_IN_WEIGHTS:
        for tensor in tensors:
            tensor.mul_(factor)
    else:
        kernel.scale.mul_(factor)


def white_noise_gain(kernel: Kernel, source: Domain, query: Domain, groups: int) -> float:
    """Mean of sum_n w_n^2 K(q - p_n)^2 over output channels and queries, those whose sample holds any point."""
    geometry = PairGeometry.build(source, query, kernel.extent.device)
    weights = geometry.source.weights * kernel.scale
    # (N, groups or 1, 1, C / groups or 1), beside responses (pairs, groups, D / groups, C / groups).
    columns = weights[:, None] if weights.ndim == 1 else weights.unflatten(1, (groups, -1))[:, :, None]
    columns = columns.reshape(len(weights), *columns.shape[1:], *(1,) * (4 - columns.ndim))
    shape = (groups, kernel.generator.out_channels // (groups * kernel.in_channels), kernel.in_channels)
    paired = torch.nonzero(geometry.pairs.diff()).flatten()
    queries = torch.linspace(0, len(paired) - 1, min(_CALIBRATION_QUERIES, len(paired))).round().long()
    power = 0.0
    for query_row in paired.cpu()[queries].tolist():
        _, partners, offset = geometry.offsets(query_row, query_row + 1)
        response = kernel.unscaled(offset.to(kernel.extent)).reshape(len(partners), *shape).to(torch.float64)
        power += float((response * columns[partners]).square().sum()) / kernel.out_channels
    return power / max(1, len(queries))


@_disable_dynamo
def warn_uncalibrated(network: nn.Module, call: str) -> None:
    """Say so where a network is trained whose kernels were neither calibrated nor loaded; once for each network.

    Args:
        network: its first pass in training is looked at.
        call: what to type, "calibrate(values, source)".
    """
    if network in _LOOKED_AT_IN_TRAINING or not network.training or not torch.is_grad_enabled() or transforms_active():
        return
    _LOOKED_AT_IN_TRAINING.add(network)
    kernels = [module for module in network.modules() if isinstance(module, Kernel)]
    if not all(kernel.calibrated for kernel in kernels):
        text = (
            f"this {type(network).__name__} is trained without having been calibrated: its kernels do not have the "
            f"scale that suits the sampling. Call {call} once, before training; a loaded state_dict needs none"
        )
        warnings.warn(text, UserWarning, stacklevel=2)


def warn_of_scale(kernel: Kernel, values: Tensor, result: Tensor, source: Domain) -> None:
    """Say so where a kernel changes the size of values so much that nothing can be learned from them.

    A look at a few values tells whether there is anything to find out.
    """
    if transforms_active():
        return
    # Read together, as a GPU is waited for.
    size, answer = torch.stack([_typical_size(values), _typical_size(result)]).tolist()
    if size == 0 or _LEAST_RESPONSE <= answer / size <= _MOST_RESPONSE:
        return
    response = _typical_response(kernel, source)
    if not _LEAST_RESPONSE <= response <= _MOST_RESPONSE:
        text = (
            f"the kernel makes values about {response:.0e} times as large on this sampling, too far from 1 to train: "
            "call the network's or the layer's calibrate(...) once, before training, or give positions in another unit"
        )
        warnings.warn(text, UserWarning, stacklevel=2)


def _typical_size(values: Tensor) -> Tensor:
    """Root mean square of some of the values, float64."""
    rows = torch.linspace(0, values.numel() - 1, min(values.numel(), _LOOKED_AT), device=values.device).long()
    return values.detach().take(rows).to(torch.float64).square().nanmean().nan_to_num().sqrt()


@torch.no_grad()
def _typical_response(kernel: Kernel, source: Domain) -> float:
    """About the root of ``white_noise_gain``, from a few kernel values and the sampling's volumes."""
    weight, total = 1.0, 1.0
    points, grid = source.irregular, source.uniform
    if points is not None:
        weights = points.weights
        total = float(weights.sum()) / max(1, weights.numel() // len(weights))
        weight = float(weights.square().sum() / weights.sum())
    if grid is not None:
        weight, total = weight * grid.cell_volume, total * grid.cell_volume * grid.count
    reach = torch.minimum(kernel.support, kernel.extent) if kernel.mask is None else kernel.support
    places = torch.rand(_OFFSETS_LOOKED_AT, kernel.d, generator=torch.Generator().manual_seed(0)) * 2 - 1
    square = kernel.unscaled(places.to(reach) * reach).to(torch.float64).square().mean() * kernel.scale.square()
    volume = min(float((2 * reach.to(torch.float64)).prod()), total)
    channels = 1 if kernel.depthwise else kernel.in_channels
    return math.sqrt(float(square) * channels * weight * max(volume, weight))
