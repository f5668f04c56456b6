"""The picture of the README, docs/images/samplings.png: one kernel on one signal, sampled in several ways."""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from ccnn_irregular import SIREN, GaussianMask, Grid, Kernel, Points, convolve
from ccnn_irregular.quadrature import trapezoid, voronoi

__all__ = ["main"]

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "samplings.png"
HOURS = 24.0
MILLIMETRES = (40.0, 60.0)
_BLUE, _ORANGE, _GREY = "#0072b2", "#d55e00", "#777777"


def series(hours: Tensor) -> Tensor:
    """A signal of one day, ``(N, 1)``."""
    return (torch.sin(hours / 2.2) + 0.6 * torch.sin(hours / 0.9 + 1) + 0.02 * hours)[:, None]


def field(places: Tensor) -> Tensor:
    """A field at places in millimetres, ``(N, 1)``."""
    y, x = places.unbind(-1)
    return (torch.sin(x / 6 + 0.08 * y) * torch.cos(y / 7) + torch.exp(-((x - 40) ** 2 + (y - 12) ** 2) / 60))[:, None]


def nodes(grid: Grid) -> Tensor:
    """The places of a grid's nodes, float64 ``(N, d)``."""
    lines = [axis.start + axis.step * torch.arange(axis.size, dtype=torch.float64) for axis in grid.axes]
    return torch.cartesian_prod(*lines).reshape(-1, len(lines))


def filtered(kernel: Kernel, values: Tensor, source: Points | Grid, query: Grid) -> NDArray[np.float64]:
    """The convolution at the nodes of a grid."""
    if isinstance(source, Grid):
        values = values.reshape(1, 1, *source.sizes)
    with torch.no_grad():
        return convolve(kernel, values, source, query)[0, 0].numpy()


def draw_series(above: Axes, below: Axes, generator: torch.Generator) -> None:
    """Every five minutes beside 60 samples at random times."""
    kernel = Kernel(SIREN(1, 1, omega_0=4.0), GaussianMask([0.8]), extent=[3.0]).double()
    regular = Grid([289], [HOURS / 288])
    odd = (torch.rand(60, generator=generator, dtype=torch.float64) * HOURS).sort().values
    every = nodes(regular)[:, 0]
    above.plot(every, series(every), color=_GREY, linewidth=1)
    above.plot(odd, series(odd), "o", color=_ORANGE, markersize=4)
    below.plot(
        every,
        filtered(kernel, series(every), regular, regular),
        color=_BLUE,
        linewidth=4,
        alpha=0.4,
        label="of the grey line",
    )
    from_odd = filtered(kernel, series(odd), Points(odd[:, None], trapezoid(odd)), regular)
    below.plot(every, from_odd, color=_ORANGE, label="of the 60 samples")
    below.legend(frameon=False, fontsize=9)
    below.set_xlabel("hours")


def draw_points(above: Axes, below: Axes, kernel: Kernel, generator: torch.Generator, query: Grid) -> None:
    """Points at random, dense at the left."""
    share = torch.rand(2500, 2, generator=generator, dtype=torch.float64) ** torch.tensor([1.0, 1.5])
    places = share * torch.tensor(MILLIMETRES)
    weights = voronoi(places, bounds=[(0.0, length) for length in MILLIMETRES])
    above.scatter(places[:, 1], places[:, 0], c=field(places), s=2, cmap="viridis", vmin=-1.2, vmax=1.6)
    show(below, filtered(kernel, field(places), Points(places, weights), query), "bilinear")


def draw_voxels(above: Axes, below: Axes, kernel: Kernel, query: Grid) -> None:
    """Voxels five times as long as wide."""
    voxels = Grid([16, 120], [2.5, 0.5], [1.25, 0.25])
    values = field(nodes(voxels))
    show(above, values.reshape(voxels.sizes).numpy(), "nearest", vmin=-1.2, vmax=1.6)
    show(below, filtered(kernel, values, voxels, query), "bilinear")


def show(axes: Axes, image: NDArray[np.float64], interpolation: str, **limits: float) -> None:
    """An image of the whole field."""
    extent = (0, MILLIMETRES[1], MILLIMETRES[0], 0)
    axes.imshow(image, extent=extent, cmap="viridis", interpolation=interpolation, aspect="auto", **limits)


def main(arguments: list[str] | None = None) -> None:
    """Draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=PICTURE, help=f"default: {PICTURE}")
    path: Path = parser.parse_args(arguments).output
    torch.manual_seed(3)
    generator = torch.Generator().manual_seed(0)
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    axes = figure.subplots(2, 3, width_ratios=[1.3, 1, 1])
    kernel = Kernel(SIREN(2, 1, omega_0=4.0), GaussianMask([3.0, 3.0]), extent=[9.0, 9.0]).double()
    query = Grid([40, 60], [1.0, 1.0], [0.5, 0.5])
    draw_series(*axes[:, 0], generator)
    draw_points(*axes[:, 1], kernel, generator, query)
    draw_voxels(*axes[:, 2], kernel, query)
    for column, title in zip(
        axes[0], ("60 odd times a day", "2,500 scattered points", "voxels of 2.5 x 0.5 mm"), strict=True
    ):
        column.set_title(title, fontsize=11)
        column.tick_params(labelbottom=False)
    for column in axes[:, 1:].flat:
        column.set(xlim=(0, MILLIMETRES[1]), ylim=(MILLIMETRES[0], 0), yticks=[0, 20, 40])
    for column in axes[1, 1:]:
        column.set_xlabel("mm")
    axes[0, 0].set_ylabel("measured")
    axes[1, 0].set_ylabel("convolved")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main()
