"""The picture of docs/integral.md: a weight matrix in order, as a function, and sampled at half the size."""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

from ccnn_irregular import integral

__all__ = ["main"]

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "integral.png"
CHANNELS, SMALLER = 24, 12


def smooth_network() -> nn.Sequential:
    """Three layers whose middle weights are smooth in some order of the channels, which is then lost."""
    numbers = np.random.default_rng(0)
    places = (np.arange(CHANNELS) + 0.5) / CHANNELS
    out, into = np.meshgrid(places, places, indexing="ij")
    weight = np.sin(5 * out + 2) * np.cos(7 * into) + 0.5 * np.cos(9 * out * into)
    rows, columns = numbers.permutation(CHANNELS), numbers.permutation(CHANNELS)
    network = nn.Sequential(nn.Linear(2, CHANNELS), nn.Linear(CHANNELS, CHANNELS), nn.Linear(CHANNELS, 2))
    with torch.no_grad():
        for layer in network:
            nn.init.zeros_(layer.bias)
        network[1].weight.copy_(torch.from_numpy(weight[np.ix_(rows, columns)]))
        network[0].weight.copy_(torch.from_numpy(np.stack([places, places**2], 1)[columns]))
        network[2].weight.copy_(torch.from_numpy(np.stack([places, places**2])[:, rows]))
    return network


def main() -> None:
    """Draw it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=PICTURE)
    output = parser.parse_args().output
    network = smooth_network()
    converted = integral.convert(network, torch.zeros(1, 2))
    fine = integral.resize(converted, 10.0)[1].weight.detach().numpy() * 10
    whole = integral.resize(converted, 1.0)[1].weight.detach().numpy()
    half = integral.resize(converted, SMALLER / CHANNELS)[1].weight.detach().numpy() / 2
    panels = (
        ("as trained: channels in any order", network[1].weight.detach().numpy()),
        ("reordered: neighbours are alike", whole),
        ("a continuous function of both axes", fine),
        (f"sampled: {SMALLER} x {SMALLER} in place of {CHANNELS} x {CHANNELS}", half),
    )
    figure = Figure(figsize=(12, 3.4), layout="constrained")
    for number, (axes, (title, values)) in enumerate(zip(figure.subplots(1, 4), panels, strict=True)):
        axes.imshow(values, cmap="RdBu_r", vmin=-1.5, vmax=1.5, extent=(0, 1, 1, 0), interpolation="nearest")
        axes.set_title(title, fontsize=10)
        axes.set_xticks([0, 1])
        axes.set_yticks([0, 1] if number == 0 else [])
        axes.set_xlabel("input channels")
    figure.axes[0].set_ylabel("output channels")
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=110)
    print(output)


if __name__ == "__main__":
    main()
