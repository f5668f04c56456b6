"""A grid of the strongest kernels of a network, each with its axes in units.

Needs matplotlib, imported when a plot is made.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ccnn_irregular._checks import require
from ccnn_irregular.kernels import Kernel
from ccnn_irregular.plotting import COLOURS, new_figure, with_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["layer_titles", "plot_strongest_kernels"]

_COLUMNS = 4
# Nodes on each axis: of the picture, and of the integral that tells how strong a kernel is, by the number of axes.
_DRAWN = {1: 401, 2: 81, 3: 81}
_SUMMED = {1: 401, 2: 41, 3: 15}
_QUIET = "#666666"
_MASK = "mask, as high as the largest value"
# Names of layers in the networks of this package -> what a reader calls them; numbers count from 0 and from 1.
_LAYERS = {
    r"stem": "first convolution",
    r"readout": "last convolution",
    r"filter_bank": "filter bank before the network",
    r"blocks\.(\d+)\.conv": "block {0} of {count}",
    r"downs\.(\d+)": "from level {0} down to {next}",
    r"down_levels\.(\d+)\.blocks\.(\d+)": "level {0} on the way down, block {1}",
    r"ups\.(\d+)": "from level {next} up to {0}",
    r"up_levels\.(\d+)\.blocks\.(\d+)": "level {0} on the way up, block {1}",
}


def plot_strongest_kernels(
    kernels: Mapping[str, Kernel],
    *,
    most: int = 8,
    unit: str | None = None,
    names: tuple[str, ...] | None = None,
    title: str | None = None,
) -> Figure:
    """Plot the kernels of largest norm of all channels of a network, layer by layer, each over its own reach.

    Within a layer the strongest come first. The norm is the integral of the absolute value, which has no unit: kernels
    of coarse and of fine levels compare. Of one axis they are curves with their mask; of two and three, values in the
    plane of the first two axes through the origin, in colours from minus to plus the largest value of each, which its
    title tells.

    Args:
        kernels: by name, all of one number of axes and with a mask; for titles see ``layer_titles``.
        most: at most so many panels.
        unit: of the kernels' coordinates.
        names: of the axes, for labels; None = "offset" of one axis, else "axis 0" and "axis 1".
        title: above the panels; None = how many kernels of how many these are.

    Raises:
        ValueError: no kernel, kernels of more than three axes or of different numbers of them, one without an end.
    """
    require(len(kernels) > 0, "kernels", "hold one at least", "none")
    require(most >= 1, "most", "be at least 1", most)
    axes_of = {kernel.d for kernel in kernels.values()}
    require(len(axes_of) == 1 and axes_of <= {1, 2, 3}, "kernels", "all have one to three axes", sorted(axes_of))
    for name, kernel in kernels.items():
        bounded = bool(torch.isfinite(kernel.support).all())
        require(bounded, f"kernels[{name!r}]", "have a mask that ends", kernel.support.tolist())
    (chosen, total), layers = _strongest(kernels, most), layer_titles(kernels)
    columns = min(_COLUMNS, len(chosen))
    rows = math.ceil(len(chosen) / columns)
    d = axes_of.pop()
    names = names or (("offset",) if d == 1 else ("axis 0", "axis 1"))
    figure = new_figure(2.35 * columns + (0 if d == 1 else 0.8), 2.1 * rows + 0.4)
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes, (name, channel) in zip(panels.flat, chosen, strict=False):
        draw = _curve if d == 1 else _plane
        largest = draw(axes, kernels[name], channel)
        axes.set_title(f"{layers[name]}\nchannel {channel}, largest {largest:.3g}", fontsize="small")
        axes.tick_params(labelsize="small")
        axes.locator_params(nbins=5)
    for axes in panels.flat[len(chosen) :]:
        axes.set_axis_off()
    for axes in [panels[(len(chosen) - 1 - column) // columns, column] for column in range(columns)]:
        axes.set_xlabel(with_unit(names[0], unit), fontsize="small")
    for axes in panels[:, 0]:
        axes.set_ylabel("kernel value" if d == 1 else with_unit(names[1], unit), fontsize="small")
    if d > 1:
        bar = figure.colorbar(panels[0, 0].images[0], ax=panels, shrink=0.8, ticks=[-1, 0, 1])
        bar.set_label("share of the largest value", fontsize="small")
    else:
        mask = [line for line in panels[0, 0].get_lines() if line.get_label() == _MASK]
        figure.legend(mask, [_MASK], loc="outside lower center", frameon=False, fontsize="small")
    figure.suptitle(title or f"the {len(chosen)} strongest of {total} kernels, by layer", fontsize="medium")
    return figure


def layer_titles(names: Iterable[str]) -> dict[str, str]:
    """What a reader calls the layers of a network: "block 2 of 4" for ``blocks.1.conv``; other names stay.

    Args:
        names: of all convolutions, as the ``kernels()`` of a network tells them.
    """
    names = list(names)
    found: dict[str, str] = {}
    for name in names:
        for pattern, title in _LAYERS.items():
            if (met := re.fullmatch(pattern, name)) is not None:
                numbers = [int(number) + 1 for number in met.groups()]
                count = sum(re.fullmatch(pattern, other) is not None for other in names)
                following = numbers[0] + 1 if numbers else 0
                found[name] = title.format(*numbers, count=count, next=following)
        found.setdefault(name, name)
    return found


def _strongest(kernels: Mapping[str, Kernel], most: int) -> tuple[list[tuple[str, int]], int]:
    """Names and channels of the kernels of largest norm, by layer and from the strongest on, and how many there are."""
    norms: dict[tuple[str, int], float] = {}
    for name, kernel in kernels.items():
        values = _values(kernel, [_nodes(half, _SUMMED[kernel.d]) for half in kernel.support.tolist()])
        volume = math.prod(2 * half for half in kernel.support.tolist())
        means = np.abs(values).reshape(-1, values.shape[-1]).mean(0)
        norms |= {(name, channel): float(mean) * volume for channel, mean in enumerate(means)}
    found = sorted(norms, key=norms.__getitem__, reverse=True)[:most]
    return sorted(found, key=lambda one: list(kernels).index(one[0])), len(norms)


def _curve(axes: Axes, kernel: Kernel, channel: int) -> float:
    """Draw a kernel of one axis and its mask; return its largest absolute value."""
    offsets = _nodes(float(kernel.support[0]), _DRAWN[1])
    values = _values(kernel, [offsets])[:, channel]
    largest = float(np.abs(values).max())
    assert kernel.mask is not None
    mask = largest * kernel.mask(torch.from_numpy(offsets)[:, None].to(kernel.extent)).detach().cpu().numpy()[:, 0]
    axes.axhline(0, color=_QUIET, linewidth=0.5)
    for side, label in ((mask, _MASK), (-mask, None)):
        axes.plot(offsets, side, color=_QUIET, linestyle=":", linewidth=0.8, label=label)
    axes.plot(offsets, values, color=COLOURS[0], linewidth=1.4)
    axes.margins(x=0)
    return largest


def _plane(axes: Axes, kernel: Kernel, channel: int) -> float:
    """Draw a kernel in the plane of its first two axes through the origin; return its largest absolute value there."""
    right, up = kernel.support[:2].tolist()
    nodes = [_nodes(half, _DRAWN[kernel.d]) for half in (right, up)]
    values = _values(kernel, nodes + [np.zeros(1)] * (kernel.d - 2))[..., channel].reshape(len(nodes[0]), -1)
    largest = float(np.abs(values).max())
    box = (-right, right, -up, up)
    colours: dict[str, Any] = {"cmap": "RdBu_r", "vmin": -1, "vmax": 1}
    axes.imshow(values.T / (largest or 1.0), origin="lower", extent=box, interpolation="nearest", **colours)
    return largest


def _nodes(half: float, count: int) -> NDArray[np.float64]:
    return np.linspace(-half, half, count)


@torch.no_grad()
def _values(kernel: Kernel, nodes: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Values ``(*lengths, channels)`` at all combinations of offsets."""
    offsets = torch.from_numpy(np.stack(np.meshgrid(*nodes, indexing="ij"), -1)).to(kernel.extent)
    return kernel(offsets).reshape(*offsets.shape[:-1], -1).double().cpu().numpy()
