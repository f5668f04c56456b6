"""The benchmark of layers for clouds at tiny sizes: the same neighbours for all, the learning rate by validation."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ccnn_irregular.domains import Points

# The benchmarks are scripts that stand side by side, not a package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import cloud_layers


def clouds(seed: int = 0) -> Points:
    generator = torch.Generator().manual_seed(seed)
    splits = torch.tensor([0, 30, 30, 75])
    places = torch.rand(75, 3, generator=generator, dtype=torch.float64)
    return Points(places, torch.full((75,), 1 / 40, dtype=torch.float64), splits)


def test_edges_lead_from_the_nearest_points_of_the_same_cloud() -> None:
    points = clouds()
    source, target = cloud_layers.nearest(points, 8)
    distances = torch.cdist(points.coordinates, points.coordinates)
    cloud = points.sample_index()
    distances[cloud[:, None] != cloud] = torch.inf
    for point in range(points.count):
        expected = set(distances[point].argsort()[:8].tolist())
        assert set(source[target == point].tolist()) == expected


def test_the_radius_holds_as_many_points_on_average() -> None:
    points = clouds()
    reach = cloud_layers.Reach.of(points, 8)
    distances = torch.cdist(points.coordinates, points.coordinates)
    cloud = points.sample_index()
    within = (distances <= reach.radius * (1 + 1e-9)) & (cloud[:, None] == cloud)
    assert abs(float(within.sum(1).double().mean()) - 8) < 0.1


@pytest.mark.parametrize("name", list(cloud_layers.LAYERS))
def test_each_layer_is_measured_or_says_why_not(name: str) -> None:
    job = {"layer": name, "data": None, "clouds": 4, "points": 48, "fewest": 12, "shapes": 60, "neighbours": 6}
    cost = cloud_layers.run(job | {"kind": "cost", "points": 24, "fewest": 24})
    if cost["status"] == "absent":
        assert "requires" in cost["note"]
        return
    assert cost["status"] == "ok"
    assert min(cost["forward_backward_s"], cost["forward_s"]) > 0
    assert cost["peak_mib"] > -1  # less than nothing, by a few pages, where others have grown the process before
    trained = cloud_layers.run(job | {"kind": "accuracy", "budget": 0.2, "learning_rate": 1e-2})
    assert trained["steps"] >= 1
    assert 0 <= trained["accuracy_falling_density"] <= 1


def test_the_learning_rate_is_chosen_on_the_validation_part_and_drawn(tmp_path: Path) -> None:
    names = list(cloud_layers.LAYERS)[:2]
    shared = {"status": "ok", "points": 256, "fewest": 64}
    rows = [
        shared | {"kind": "cost", "layer": name, "neighbours": count, "forward_backward_s": 0.1 * count,
                  "peak_mib": 5.0 * count, "graph_s": ""}
        for name in names for count in (32, 128)
    ]  # fmt: skip
    rows += [
        shared | {"kind": "accuracy", "layer": name, "neighbours": 32, "learning_rate": rate,
                  "validation_accuracy": 1 - abs(rate - 0.01), "accuracy": 0.5 + rate, "accuracy_fewest": 0.4,
                  "accuracy_falling_density": 0.3}
        for name in names for rate in (0.001, 0.01, 0.1)
    ]  # fmt: skip
    cloud_layers.choose(rows)
    chosen = [row["learning_rate"] for row in rows if row.get("chosen") == "yes"]
    assert chosen == [0.01, 0.01]
    path = tmp_path / "cloud_layers.csv"
    cloud_layers.write(path, rows)
    written = cloud_layers.results.read(path)
    assert np.mean([float(row["accuracy"]) for row in written if row["chosen"] == "yes"]) == pytest.approx(0.51)
    assert cloud_layers.draw(path).stat().st_size > 10_000
    assert not list(tmp_path.glob("*.part"))
