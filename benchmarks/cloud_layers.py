"""Layers for point clouds side by side: time, peak memory, and accuracy after the same seconds of training.

    python benchmarks/cloud_layers.py [--quick] [--threads 1] [--data FOLDER] [--output benchmarks/results]

Each measurement is a process of its own. ``cost`` rows time one layer from 32 to 32 channels on 16 clouds of 1,024
points, with 32 neighbours a point and with 128; the graph that a layer needs is made once, by SciPy, and timed apart.
This package's layer has a radius instead of a graph: the one within which as many neighbours lie, on average.
``accuracy`` rows train the same network around each layer (three layers of 32 channels, norms, mean, linear) for the
same time, graphs included, on 64 to 256 points a shape, with three learning rates of AdamW, of which the validation
part picks one (``chosen``). It is tested with 256 points, with 64, and with a density that falls by e^2 across each
shape. FOLDER holds ModelNet10, see ``ccnn_irregular.datasets.modelnet``; without it the shapes are simulated solids.
Wants an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import results
import torch
from measure import _Memory, median
from scipy.spatial import cKDTree
from torch import Tensor, nn

from ccnn_irregular.adapters.geometric import CLOUD_KERNEL, CCNNConv
from ccnn_irregular.domains import Points
from ccnn_irregular.layers import BatchNorm, mean_over_positions
from ccnn_irregular.optimisation import parameter_groups
from ccnn_irregular.pipelines.tasks.classification.data import SampleBatch
from ccnn_irregular.pipelines.tasks.cloud_classification.data import CloudChanges, DrawnClouds, ShapeDataModule
from ccnn_irregular.plotting import COLOURS, new_figure

Row = dict[str, Any]
Build = Callable[[int, int, "Reach"], nn.Module]  # input channels, width, reach

WIDTH = 32
LEARNING_RATES = (5e-3, 1.5e-2, 4.5e-2)
FIELDS = (
    "kind", "layer", "status", "data", "clouds", "points", "fewest", "neighbours", "radius", "width", "parameters",
    "graph_s", "forward_s", "forward_backward_s", "repeats", "peak_mib", "budget_s", "learning_rate", "steps",
    "validation_accuracy", "chosen", "accuracy",
    "accuracy_fewest", "accuracy_falling_density", "note", "date", *results.IDENTITY,
)  # fmt: skip


@dataclass(frozen=True)
class Reach:
    """What a layer takes in around a point: its ``count`` nearest points, or those within the ``radius``."""

    count: int
    radius: float

    @staticmethod
    def of(points: Points, count: int) -> Reach:
        """The radius within which ``count`` points lie, the point itself among them, on the average of some clouds."""
        splits = points.splits[:9].tolist()
        places = [points.coordinates[first:last] for first, last in pairwise(splits)]
        distances = torch.cat([torch.cdist(cloud, cloud).flatten() for cloud in places])
        total = sum(len(cloud) for cloud in places)
        return Reach(count, float(distances.kthvalue(min(count * total, len(distances))).values))


@dataclass(frozen=True)
class Clouds:
    """What a layer may want to know of the points.

    Attributes:
        points: with quadrature weights.
        pos: float32 positions.
        edges: int64 ``(2, E)``, from a neighbour (first row) to a point; empty for layers without graph.
    """

    points: Points
    pos: Tensor
    edges: Tensor

    @staticmethod
    def of(points: Points, neighbours: int) -> Clouds:
        """Without graph where ``neighbours`` is 0."""
        edges = nearest(points, neighbours) if neighbours else torch.zeros(2, 0, dtype=torch.int64)
        return Clouds(points, points.coordinates.float(), edges)


def nearest(points: Points, neighbours: int) -> Tensor:
    """Return edges from the nearest points of the same cloud, itself included, as of ``knn_graph``."""
    sources, targets = [], []
    for first, last in zip(points.splits[:-1].tolist(), points.splits[1:].tolist(), strict=True):
        if last == first:
            continue
        places = points.coordinates[first:last].numpy()
        found = cKDTree(places).query(places, k=min(neighbours, last - first))[1].reshape(last - first, -1)
        sources.append(first + found.reshape(-1))
        targets.append(first + np.repeat(np.arange(last - first), found.shape[1]))
    return torch.from_numpy(np.stack([np.concatenate(sources), np.concatenate(targets)]))


class Continuous(nn.Module):
    """This package's layer; it finds its neighbours itself."""

    def __init__(self, channels: int, width: int, reach: Reach) -> None:
        super().__init__()
        self.conv = CCNNConv(
            channels, width, kernel=replace(CLOUD_KERNEL, width=reach.radius / 3.03, hidden=16)
        )  # ends there

    def calibrate(self, clouds: Clouds) -> None:
        points = clouds.points
        self.conv.calibrate(points.coordinates, points.sample_index(), points.weights)

    def forward(self, x: Tensor, clouds: Clouds) -> Tensor:
        points = clouds.points
        return self.conv(x, points.coordinates, points.sample_index(), points.weights, points.samples)


class Wrapped(nn.Module):
    """A layer of torch-geometric behind one call."""

    def __init__(self, layer: nn.Module, call: Callable[[nn.Module, Tensor, Clouds], Tensor]) -> None:
        super().__init__()
        self.layer, self.call = layer, call

    def forward(self, x: Tensor, clouds: Clouds) -> Tensor:
        return self.call(self.layer, x, clouds)


class IntegralTransform(nn.Module):
    """The integral of graph neural operators (Li et al. 2020, arXiv 2003.03485), of the form "linear" of GINO.

    The mean over neighbours of kappa(p, q) times their lifted values, kappa a network of both positions
    (arXiv 2309.00583).
    """

    def __init__(self, channels: int, width: int, reach: Reach) -> None:
        super().__init__()
        self.lift = nn.Linear(channels, width)
        self.kernel = nn.Sequential(
            nn.Linear(6, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)
        )

    def forward(self, x: Tensor, clouds: Clouds) -> Tensor:
        source, target = clouds.edges
        kappa = self.kernel(torch.cat([clouds.pos[source], clouds.pos[target]], dim=1))
        values = self.lift(x)
        sums = values.new_zeros(values.shape).index_add(0, target, kappa * values[source])
        return sums / torch.bincount(target, minlength=len(x)).clamp_min(1)[:, None]


def _mlp(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(channels, width), nn.GELU(), nn.Linear(width, width))


def _pointnet(channels: int, width: int, reach: Reach) -> nn.Module:
    from torch_geometric.nn import PointNetConv

    layer = PointNetConv(_mlp(channels + 3, width), add_self_loops=False)
    return Wrapped(layer, lambda layer, x, clouds: layer(x, clouds.pos, clouds.edges))


def _transformer(channels: int, width: int, reach: Reach) -> nn.Module:
    from torch_geometric.nn import PointTransformerConv

    layer = PointTransformerConv(channels, width, add_self_loops=False)
    return Wrapped(layer, lambda layer, x, clouds: layer(x, clouds.pos, clouds.edges))


def _edge(channels: int, width: int, reach: Reach) -> nn.Module:
    from torch_geometric.nn import EdgeConv

    return Wrapped(EdgeConv(_mlp(2 * channels, width)), lambda layer, x, clouds: layer(x, clouds.edges))


def _dynamic_edge(channels: int, width: int, reach: Reach) -> nn.Module:
    from torch_geometric.nn import DynamicEdgeConv

    layer = DynamicEdgeConv(_mlp(2 * channels, width), k=reach.count)
    return Wrapped(layer, lambda layer, x, clouds: layer(x, clouds.points.sample_index()))


def _gmm(channels: int, width: int, reach: Reach) -> nn.Module:
    from torch_geometric.nn import GMMConv

    def call(layer: nn.Module, x: Tensor, clouds: Clouds) -> Tensor:
        source, target = clouds.edges
        return layer(x, clouds.edges, (clouds.pos[source] - clouds.pos[target]) / reach.radius)

    return Wrapped(GMMConv(channels, width, dim=3, kernel_size=8), call)


def _spline(channels: int, width: int, reach: Reach) -> nn.Module:
    from torch_geometric.nn import SplineConv

    def call(layer: nn.Module, x: Tensor, clouds: Clouds) -> Tensor:
        source, target = clouds.edges
        offsets = (clouds.pos[source] - clouds.pos[target]) / (2 * reach.radius) + 0.5
        return layer(x, clouds.edges, offsets.clamp(0, 1))

    return Wrapped(SplineConv(channels, width, dim=3, kernel_size=5), call)


def _x(channels: int, width: int, reach: Reach) -> nn.Module:
    from torch_geometric.nn import XConv

    layer = XConv(channels, width, dim=3, kernel_size=reach.count, hidden_channels=16)
    return Wrapped(layer, lambda layer, x, clouds: layer(x, clouds.pos, clouds.points.sample_index()))


# Name -> how it is built, and whether it needs a graph.
LAYERS: dict[str, tuple[Build, bool]] = {
    "ccnn_irregular CCNNConv": (Continuous, False),
    "PointNetConv": (_pointnet, True),
    "PointTransformerConv": (_transformer, True),
    "EdgeConv": (_edge, True),
    "DynamicEdgeConv": (_dynamic_edge, False),
    "GMMConv": (_gmm, True),
    "SplineConv": (_spline, True),
    "XConv": (_x, False),
    "GNO-style integral transform": (IntegralTransform, True),
}


class Network(nn.Module):
    """Three layers, each with norm and GELU, and a residual around the last two; mean over the cloud; linear."""

    def __init__(self, build: Build, reach: Reach, classes: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(build(4 if number == 0 else WIDTH, WIDTH, reach) for number in range(3))
        self.norms = nn.ModuleList(BatchNorm(WIDTH) for _ in range(3))
        self.hidden, self.output = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, classes)

    def calibrate(self, clouds: Clouds) -> None:
        for layer in self.layers:
            if isinstance(layer, Continuous):
                layer.calibrate(clouds)

    def forward(self, clouds: Clouds) -> Tensor:
        x = torch.cat([torch.ones(len(clouds.pos), 1), clouds.pos], dim=1)
        for number, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            new = nn.functional.gelu(norm(layer(x, clouds), clouds.points))
            x = new if number == 0 else x + new
        return self.output(nn.functional.gelu(self.hidden(mean_over_positions(x, clouds.points))))


def data_of(job: Row) -> ShapeDataModule:
    """Load ModelNet10 or solids. All layers get the same weights of the points, for norms and the mean at the end."""
    name = "simulated_solids" if job["data"] is None else "modelnet10"
    changes = CloudChanges(fewest=job["fewest"])
    data = ShapeDataModule(
        name, job["data"], count=job["shapes"], points=job["points"], batch_size=job["clouds"], changes=changes
    )
    data.setup("fit")
    return data


def cost(job: Row) -> Row:
    """Measure seconds and memory of one layer."""
    build, graph = LAYERS[job["layer"]]
    points = data_of(job).typical_batch(job["clouds"]).domain
    assert isinstance(points, Points)
    reach = Reach.of(points, job["neighbours"])
    torch.manual_seed(0)
    layer = build(WIDTH, WIDTH, reach)
    memory = _Memory("cpu")
    started = time.perf_counter()
    clouds = Clouds.of(points, graph * reach.count)
    graph_seconds = time.perf_counter() - started
    if isinstance(layer, Continuous):
        layer.calibrate(clouds)
    x = torch.randn(points.count, WIDTH, requires_grad=True)

    def forward() -> None:
        with torch.no_grad():
            layer(x, clouds)

    def forward_backward() -> None:
        layer(x, clouds).square().sum().backward()

    forward_seconds, _ = median(forward, "cpu")
    both, repeats = median(forward_backward, "cpu")
    return {
        "radius": reach.radius,
        "parameters": sum(parameter.numel() for parameter in layer.parameters()),
        "graph_s": graph_seconds if graph else "",
        "forward_s": forward_seconds,
        "forward_backward_s": both,
        "repeats": repeats,
        "peak_mib": memory.peak()[0],
    }


def accuracy(job: Row) -> Row:
    """Measure the share of test shapes whose class is found, after ``budget`` seconds of training."""
    build, graph = LAYERS[job["layer"]]
    data = data_of(job)
    typical = data.typical_batch(job["clouds"]).domain
    assert isinstance(typical, Points)
    reach = Reach.of(typical, job["neighbours"])
    neighbours = graph * reach.count
    torch.manual_seed(0)
    network = Network(build, reach, len(data.classes)).train()
    network.calibrate(Clouds.of(typical, neighbours))
    rate = job["learning_rate"]
    optimiser = torch.optim.AdamW(parameter_groups(network, learning_rate=rate, weight_decay=1e-2))
    started, steps, loader, epoch = time.perf_counter(), 0, data.loader("train"), 0
    spent = 0.0
    while spent < job["budget"]:
        loader.sampler.set_epoch(epoch)  # type: ignore[union-attr, attr-defined]  # our own sampler
        for batch in loader:
            for group in optimiser.param_groups:
                group["lr"] = rate * 0.5 * (1 + np.cos(np.pi * min(spent / job["budget"], 1)))
            loss = nn.functional.cross_entropy(network(_clouds(batch, neighbours)), batch.labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            steps += 1
            spent = time.perf_counter() - started
            if spent >= job["budget"]:
                break
        epoch += 1
    network.eval()
    loaders = {
        "validation_accuracy": data.loader("validation"),
        "accuracy": data.loader("test", DrawnClouds(job["points"])),
        "accuracy_fewest": data.loader("test", DrawnClouds(job["fewest"])),
        "accuracy_falling_density": data.loader("test", DrawnClouds(job["points"], gradient=2.0)),
    }
    row: Row = {
        "steps": steps,
        "radius": reach.radius,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
    }
    with torch.no_grad():
        for name, loader in loaders.items():
            right = total = 0
            for batch in loader:
                right += int((network(_clouds(batch, neighbours)).argmax(1) == batch.labels).sum())
                total += len(batch)
            row[name] = right / total
    return row


def _clouds(batch: SampleBatch, neighbours: int) -> Clouds:
    assert isinstance(batch.domain, Points)
    return Clouds.of(batch.domain, neighbours)


def run(job: Row) -> Row:
    """Run a job in this process."""
    try:
        LAYERS[job["layer"]][0](4, WIDTH, Reach(8, 1.0))
    except ImportError as error:
        # torch-geometric's own search for neighbours, and its splines, are in compiled packages.
        return {"status": "absent", "note": str(error).replace("\n", " ")}
    return (cost if job["kind"] == "cost" else accuracy)(job) | {"status": "ok"}


def isolated(job: Row, threads: int) -> Row:
    """Run a job in a separate process."""
    command = [sys.executable, __file__, "--job", json.dumps(job), "--threads", str(threads)]
    process = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": str(threads)}, capture_output=True, text=True, check=False
    )
    if process.returncode:
        return {"status": "failed", "note": " / ".join(process.stderr.strip().splitlines()[-3:])}
    answer: Row = json.loads(process.stdout.splitlines()[-1])
    return answer


def jobs(quick: bool, data: str | None) -> list[Row]:
    """List all measurements."""
    shapes = 100 if quick else 1000
    points = 128 if quick else 1024
    small = {"data": data, "clouds": 4 if quick else 16, "points": points, "fewest": points, "shapes": shapes}
    points = 64 if quick else 256
    trained = small | {"points": points, "fewest": points // 4, "clouds": 16, "neighbours": 32}
    trained["budget"] = 2.0 if quick else 60.0
    costs = [{"kind": "cost", "layer": name, "neighbours": count, **small} for count in (32, 128) for name in LAYERS]
    return costs + [
        {"kind": "accuracy", "layer": name, "learning_rate": rate, **trained}
        for name in LAYERS
        for rate in LEARNING_RATES[: 1 if quick else None]
    ]


def choose(rows: list[Row]) -> None:
    """Mark the learning rate of best validation accuracy of each layer."""
    for name in LAYERS:
        trained = [row for row in rows if row["layer"] == name and "validation_accuracy" in row]
        best = max(trained, key=lambda row: row["validation_accuracy"], default=None)
        for row in trained:
            row["chosen"] = "yes" if row is best else "no"


def write(path: Path, rows: list[Row]) -> None:
    """Replace the file in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    with unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        for row in rows:
            texts = {field: row.get(field, "") for field in FIELDS}
            writer.writerow({name: f"{cell:.6g}" if isinstance(cell, float) else cell for name, cell in texts.items()})
    unfinished.replace(path)


def draw(path: Path) -> Path:
    """Plot time and memory with few and many neighbours, and accuracies at the chosen rates, beside the CSV."""
    found = [row for row in results.read(path) if row["status"] == "ok"]
    names = [name for name in LAYERS if any(row["layer"] == name for row in found)]
    costs = {(row["layer"], int(row["neighbours"])): row for row in found if row["kind"] == "cost"}
    counts = sorted({neighbours for _, neighbours in costs})
    figure = new_figure(12.0, 1.3 + 0.5 * len(names))
    time_axes, memory_axes, accuracy_axes = figure.subplots(1, 3, sharey=True)
    for number, count in enumerate(counts):
        rows = [costs[name, count] for name in names]
        seconds = [float(row["forward_backward_s"]) + float(row["graph_s"] or 0) for row in rows]
        heights = np.arange(len(names)) + 0.36 * (number - 0.5)
        for axes, values in ((time_axes, seconds), (memory_axes, [float(row["peak_mib"]) for row in rows])):
            bars = axes.barh(heights, values, 0.34, color=COLOURS[number], label=f"{count} neighbours a point")
            texts = [f"{value:,.0f}" if value >= 100 else f"{value:.2g}" for value in values]
            axes.bar_label(bars, texts, padding=3, fontsize=7)
    trained = {row["layer"]: row for row in found if row["chosen"] == "yes"}
    places = [place for place, name in enumerate(names) if name in trained]
    shown = (("accuracy", "{points} points", "o"), ("accuracy_fewest", "{fewest} points", "v"),
             ("accuracy_falling_density", "{points} points, density falls by e²", "s"))  # fmt: skip
    for number, (field, label, marker) in enumerate(shown, start=2):
        values = [100 * float(trained[names[place]][field]) for place in places]
        named = label.format(**trained[names[places[0]]])
        accuracy_axes.plot(values, places, marker, color=COLOURS[number], label=named)
    titles = ("forward + backward, graph included (s)", "peak memory (MiB)", "test accuracy after equal seconds (%)")
    for axes, title in zip(figure.axes, titles, strict=True):
        axes.set_xlabel(title)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", color="0.9")
        axes.set_axisbelow(True)
        if axes is not accuracy_axes:
            axes.set(xscale="log")
            low, high = axes.get_xlim()
            axes.set_xlim(10.0 ** np.floor(np.log10(low)), 2 * high)
    time_axes.set_yticks(range(len(names)), names)
    time_axes.invert_yaxis()
    bars, marks = (axes.get_legend_handles_labels() for axes in (time_axes, accuracy_axes))
    handles, labels = bars[0] + marks[0], bars[1] + marks[1]
    figure.legend(handles, labels, loc="outside upper center", ncols=5, frameon=False, fontsize="small")
    picture = path.with_suffix(".png")
    figure.savefig(picture)
    return picture


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes and 2 s of training: does everything run?")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data", help="folder of ModelNet10; simulated solids without it")
    parser.add_argument("--output", type=Path, default=results.RESULTS)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.job:
        print(json.dumps(run(json.loads(options.job))))
        return
    identity = results.machine("cpu", options.threads)
    path = (options.output / "quick" if options.quick else options.output) / "cloud_layers.csv"
    rows: list[Row] = []
    for job in jobs(options.quick, options.data):
        measured = isolated(job, options.threads)
        set_by = {"width": WIDTH, "data": "ModelNet10" if options.data else "solids", "budget_s": job.get("budget", "")}
        rows.append(job | measured | set_by | {"date": results.now(), **identity})
        choose(rows)
        write(path, rows)
        shown = (
            "forward_backward_s",
            "peak_mib",
            "steps",
            "validation_accuracy",
            "accuracy",
            "accuracy_falling_density",
            "note",
        )
        text = ", ".join(f"{name} {_short(measured[name])}" for name in shown if name in measured)
        print(
            f"{job['kind']}, {job['neighbours']} neighbours, {job['layer']}: {measured['status']}: {text}", flush=True
        )
    print(path, draw(path), sep="\n")


if __name__ == "__main__":
    main()
