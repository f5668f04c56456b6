"""The layers that are checked: a random smooth kernel, or one of a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from ccnn_irregular._checks import require
from ccnn_irregular.domains import Grid
from ccnn_irregular.kernels import SIREN, GaussianMask, Kernel
from ccnn_irregular.layers import ContinuousConv

__all__ = ["checkpoint_layer", "smooth_layer"]

_KERNEL_OMEGA = 2.0
# Nodes per axis at which the smooth kernel's mass is summed.
_MASS_NODES = {1: 1024, 2: 128, 3: 32, 4: 16}


@torch.no_grad()
def smooth_layer(grid: Grid, width: Sequence[float], seed: int = 0) -> ContinuousConv:
    """A random smooth depthwise kernel of one channel: a SIREN of low frequency under a Gaussian mask.

    It is nowhere negative and integrates to 1: the answer is a lopsided moving average in the unit of the field.

    Args:
        grid: whose axes it has.
        width: standard deviation of the mask in coordinate units, one number or one per axis.
        seed: of the SIREN.
    """
    require(len(width) in (1, grid.d), "kernel_width", f"be one number, or one for each of {grid.d} axes", list(width))
    widths = [width[0]] * grid.d if len(width) == 1 else list(width)
    mask = GaussianMask(widths)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator = SIREN(grid.d, 1, omega_0=_KERNEL_OMEGA)
    kernel = Kernel(generator, mask, extent=mask.support.tolist())
    count = _MASS_NODES[grid.d]
    ticks = (torch.arange(count) + 0.5) * (2 / count) - 1
    offsets = torch.stack(torch.meshgrid(*(ticks * reach for reach in mask.support), indexing="ij"), dim=-1)
    # Between 1/2 and 3/2 under the mask: a sum of positive and negative parts would mostly show what is left of it.
    share = 0.5 / float(generator(offsets / kernel.extent).abs().max())
    generator.output.weight.mul_(share)
    generator.output.bias.mul_(share).add_(1)
    mass = float(kernel(offsets).mean() * (2 * mask.support).prod())
    generator.output.weight.div_(mass)
    generator.output.bias.div_(mass)
    return ContinuousConv(kernel, bias=False)


def checkpoint_layer(path: Path, name: str) -> ContinuousConv:
    """The kernel of one convolution of a network that ``ccnn fit`` trained, as a layer without bias.

    Args:
        path: of the checkpoint; read without running any code in it.
        name: of the convolution in the network, or in its first member (``stem``, ``blocks.0.conv``).

    Raises:
        ValueError: a file that is no such checkpoint, or a name that is not there.
    """
    from ccnn_irregular.pipelines.tasks.series.network import SeriesNetwork
    from ccnn_irregular.pipelines.tasks.series.samples import Schema
    from ccnn_irregular.pipelines.train.earlier import migrated

    require(path.is_file(), "checkpoint", "be a file", path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        options, state = migrated(content["hyper_parameters"]["network"]), content["state_dict"]
        class_path, arguments = options["class_path"], options["init_args"]
    except Exception as error:  # a file of any kind may come here
        raise ValueError(f"checkpoint must be one that 'ccnn fit' wrote, got {path}: {error!r}") from error
    wanted = f"{SeriesNetwork.__module__}.{SeriesNetwork.__qualname__}"
    require(class_path == wanted, "checkpoint", f"hold a {wanted}", class_path)
    network = SeriesNetwork(**arguments | {"schema": Schema(**arguments["schema"])})
    network.load_state_dict(
        {key.removeprefix("network."): tensor for key, tensor in state.items() if key[:8] == "network."}
    )
    kernels = {place: module.kernel for place, module in network.named_modules() if isinstance(module, ContinuousConv)}
    kernels |= {place: kernel for place, kernel in network.kernels().items()}
    require(name in kernels, "layer", f"be one of {', '.join(kernels)}", repr(name))
    return ContinuousConv(kernels[name], bias=False)
